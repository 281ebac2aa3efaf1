"""How much has arrived: what a server, or the kernel, says of itself.

collector=URL     /metrics of a collector: lines, packets, refused lines, kernel drops
etsy=HOST:PORT    the admin port of etsy's statsd: lines, since its last flush
netdata=URL       the API of netdata: lines and packets
kernel            datagrams that the kernel dropped at the server's UDP sockets on this machine. All others
                  it has handed over, whatever the server then does with them
none              nothing
"""

from __future__ import annotations

import re
import socket
import urllib.request
from dataclasses import dataclass
from typing import Final, Protocol

from benchmarks.errors import BenchmarkError
from benchmarks.process import bound_sockets
from benchmarks.target import Target

_TIMEOUT: Final = 10.0
_SAMPLE: Final = re.compile(r"^([a-z_]+)(?:\{[^}]*\})? (\S+)", re.MULTILINE)
_DIMENSION: Final = re.compile(
    r'^netdata_netdata_statsd_(\w+)_total\{[^}]*dimension="([^"]*)"[^}]*\} (\S+)', re.M
)


@dataclass(frozen=True, slots=True)
class Reading:
    """Totals so far; None where the server does not tell."""

    lines: int | None = None
    packets: int | None = None
    refused: int | None = None
    drops: int | None = None

    def since(self, before: Reading) -> Reading:
        """What came in between."""

        def difference(now: int | None, then: int | None) -> int | None:
            return None if now is None or then is None else now - then

        return Reading(
            difference(self.lines, before.lines),
            difference(self.packets, before.packets),
            difference(self.refused, before.refused),
            difference(self.drops, before.drops),
        )


class Counter(Protocol):
    """One way to find out."""

    name: str
    pause: float
    """Seconds between two readings that may be compared: the server may refresh its figures that rarely."""

    def read(self) -> Reading:
        """The totals now; BenchmarkError when they cannot be had."""
        ...


class NoCounter:
    """A server that tells nothing."""

    name = "none"
    pause = 0.25

    def read(self) -> Reading:
        """Nothing."""
        return Reading()


class KernelCounter:
    """The drops of the server's UDP sockets."""

    name = "kernel"
    pause = 0.25

    def __init__(self, target: Target) -> None:
        if target.scheme != "udp" or not bound_sockets(target):
            raise BenchmarkError(
                f"the kernel counts no drops for {target}",
                "that is for UDP servers of this machine (and of this network namespace)",
            )
        self._target = target

    def read(self) -> Reading:
        """Drops only."""
        return Reading(drops=sum(one.drops for one in bound_sockets(self._target)))


class CollectorCounter:
    """Our own /metrics, all listeners together."""

    name = "collector"
    pause = 0.25

    def __init__(self, url: str) -> None:
        self._url = url.rstrip("/") + "/metrics"

    def read(self) -> Reading:
        """All four."""
        sums: dict[str, float] = {}
        for found in _SAMPLE.finditer(_fetch(self._url)):
            sums[found[1]] = sums.get(found[1], 0.0) + float(found[2])
        if "collector_lines_total" not in sums:
            raise BenchmarkError(f"{self._url} is not a collector's", "give the URL of its HTTP API")
        return Reading(
            *(
                int(sums.get(f"collector_{name}_total", 0))
                for name in ("lines", "packets", "lines_rejected", "kernel_drops")
            )
        )


class EtsyCounter:
    """The admin port of etsy's server. A flush sets its counters to 0, so its interval should be longer than
    a run: what came before a flush within the run is missing here."""

    name = "etsy"
    pause = 0.5

    def __init__(self, host: str, port: int) -> None:
        self._address = (host, port)

    def read(self) -> Reading:
        """Lines, and refused ones, since the last flush."""
        counters = self._counters()
        good, bad = (counters.get(f"statsd.{name}", 0) for name in ("metrics_received", "bad_lines_seen"))
        packets = counters.get("statsd.packets_received")
        return Reading(int(good), None if packets is None else int(packets), int(bad))

    def _counters(self) -> dict[str, float]:
        """The answer to `counters`: an object as Node prints it, `'name': number` a line, then END."""
        data = b""
        try:
            with socket.create_connection(self._address, timeout=_TIMEOUT) as connection:
                connection.sendall(b"counters\n")
                while not data.rstrip().endswith(b"END") and (part := connection.recv(1 << 16)):
                    data += part
        except OSError as error:
            raise BenchmarkError(
                f"no answer from {self._address[0]}:{self._address[1]}: {error}",
                "give the address of the server's admin port, 8126 if it was not changed",
            ) from error
        found = re.finditer(rb"""['"]?(statsd\.\w+)['"]?: (\d+)""", data)
        return {one[1].decode(): float(one[2]) for one in found}


class NetdataCounter:
    """The charts that netdata keeps of its own StatsD server; they move when it flushes."""

    name = "netdata"

    pause = 1.5

    def __init__(self, url: str) -> None:
        self._url = url.rstrip("/") + "/api/v1/allmetrics?format=prometheus&source=as-collected"

    def read(self) -> Reading:
        """Lines, and the packets of which they came."""
        sums: dict[str, int] = {}
        refused = 0
        for found in _DIMENSION.finditer(_fetch(self._url)):
            sums[found[1]] = sums.get(found[1], 0) + int(float(found[3]))
            if (found[1], found[2]) in (("events", "errors"), ("events", "unknown")):
                refused += int(float(found[3]))
        if "events" not in sums:
            raise BenchmarkError(f"{self._url} shows no StatsD server", "netdata must run with statsd = yes")
        return Reading(sums["events"], sums.get("packets"), refused)


def counter(text: str, target: Target) -> Counter:
    """Reads the option of the command line; BenchmarkError with a remedy.

    `auto` takes the kernel's drops where there are some to read.
    """
    kind, _, where = text.partition("=")
    if kind == "none" and not where:
        return NoCounter()
    if kind == "kernel" and not where:
        return KernelCounter(target)
    if kind == "auto" and not where:
        known = target.scheme == "udp" and target.local and bound_sockets(target)
        return KernelCounter(target) if known else NoCounter()
    if kind in ("collector", "netdata") and where:
        url = where if "://" in where else f"http://{where}"
        return CollectorCounter(url) if kind == "collector" else NetdataCounter(url)
    host, _, port = where.rpartition(":")
    if kind == "etsy" and host and port.isdecimal():
        return EtsyCounter(host.strip("[]"), int(port))
    raise BenchmarkError(
        f'"{text}" tells no way to count', "use collector=URL, etsy=HOST:PORT, netdata=URL, kernel or none"
    )


def _fetch(url: str) -> str:
    try:
        with urllib.request.urlopen(url, timeout=_TIMEOUT) as answer:
            text: str = answer.read().decode()
    except (OSError, ValueError) as error:
        raise BenchmarkError(
            f"no answer from {url}: {error}", "is that the server's HTTP address?"
        ) from error
    return text
