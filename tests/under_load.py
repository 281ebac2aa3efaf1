"""The whole daemon under a load that is counted to the last line: some in `make test`, all in `make soak`.

Packets are made beforehand and each is sent a whole number of times, so the total of every series is known.
What arrived is asked of the daemon, what is kept of its store.
"""

from __future__ import annotations

import re
import socket
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from harness import DaemonProcess, running, wait_for

from benchmarks.payload import Load, mixed, packed, write_packets
from benchmarks.process import resident_bytes
from benchmarks.sending import Packets, Sending, Sent
from benchmarks.target import Target
from collector.store.keys import SHARDS

CONFIG: Final = """\
listen: [{{{{url: "udp://127.0.0.1:0", receive_buffer: 8388608}}}}]
flush_interval: {flush_interval}s
state_dir: {{state_dir}}
http: {{{{listen: "127.0.0.1:0"}}}}
limits: {{{{series: {series}}}}}
"""
_REFUSED: Final = re.compile(r'^collector_lines_rejected_total\{reason="(\w+)"\} (\d+)', re.MULTILINE)
_COUNT: Final = re.compile(r"^collector_(lines|packets|kernel_drops)_total\{[^}]*\} (\d+)", re.MULTILINE)
_PATIENCE: Final = 90.0  # seconds until the store has all


class Given(Packets):
    """Packets of the test's own."""

    def __init__(self, packets: Iterable[bytes]) -> None:
        self.stream = False
        self._file = tempfile.TemporaryFile(prefix="packets-")  # noqa: SIM115 - kept
        write_packets(packets, self._file)
        self._file.flush()


def counters(series: int) -> list[str]:
    """Lines of counters: each of the series once, then as many again at random."""
    return mixed(series, Load(series).lines, mix=(100, 0, 0, 0))


def times_for(lines: list[str], rate: float, seconds: float) -> int:
    """How often lines are sent so that it takes about so many seconds at a rate."""
    return max(1, round(rate * seconds / len(lines)))


def totals_of(lines: Iterable[str], times: int = 1) -> dict[str, int]:
    """What counters come to when their lines are sent so many times."""
    sums: Counter[str] = Counter()
    for line in lines:
        name, _, rest = line.partition(":")
        sums[name] += int(rest.partition("|")[0]) * times
    return dict(sums)


@dataclass
class Loaded:
    """A daemon, and what was sent to it."""

    daemon: DaemonProcess
    lines: int = 0
    packets: int = 0
    target: Target = field(init=False)

    def __post_init__(self) -> None:
        self.target = Target.parse(f"udp://127.0.0.1:{self.daemon.port('udp')}")

    def send(self, lines: list[str], rate: float, *, times: int = 1) -> Sent:
        """Sends the lines in datagrams of 1432 bytes at so many lines a second, all of them so many times."""
        packets = Given(packed(lines))
        try:
            sent = packets.send(
                self.target, Sending(seconds=600, rate=rate, lines=len(lines) * times, segments=False)
            )
        finally:
            packets.close()
        assert sent.lines == len(lines) * times
        self.lines += sent.lines
        self.packets += sent.packets
        return sent

    def counts(self) -> dict[str, int]:
        """Lines, packets and kernel drops, as the daemon counts them."""
        return {name: int(number) for name, number in _COUNT.findall(self.daemon.get_text("/metrics"))}

    def refused(self) -> dict[str, int]:
        """Refused lines by reason."""
        found = _REFUSED.findall(self.daemon.get_text("/metrics"))
        return {reason: int(number) for reason, number in found if int(number)}

    def metric(self, name: str) -> float:
        """A self-metric without labels."""
        found = re.search(rf"^{name} (\S+)", self.daemon.get_text("/metrics"), re.MULTILINE)
        assert found, name
        return float(found[1])

    def all_received(self, seconds: float = _PATIENCE) -> None:
        """Waits until every datagram that was sent is counted; none may have been dropped."""

        def arrived() -> bool:
            counts = self.counts()
            dropped = counts["kernel_drops"]
            assert not dropped, f"the kernel dropped {dropped:,} of {self.packets:,} datagrams"
            return counts["packets"] >= self.packets

        wait_for(arrived, f"{self.packets} packets, of {self.counts()}", seconds)
        wait_for(lambda: self.counts()["lines"] >= self.lines, f"{self.lines} lines", seconds)
        expected = {"lines": self.lines, "packets": self.packets, "kernel_drops": 0}
        assert self.counts() == expected

    def stored(self) -> dict[str, int]:
        """The running totals of all counters in the store."""
        keys = self.daemon.keys()
        with self.daemon.redis() as client:
            pipeline = client.pipeline(transaction=False)
            for shard in range(SHARDS):
                pipeline.hgetall(keys.shard_key(shard, b"total"))
            found = pipeline.execute()
        return {name.decode()[1:]: int(total) for part in found for name, total in part.items()}

    def all_stored(self, expected: dict[str, int], seconds: float = _PATIENCE) -> None:
        """Waits until the store has these totals, and no others."""
        total = sum(expected.values())
        found: dict[str, int] = {}

        def there() -> bool:
            nonlocal found
            found = self.stored()
            return sum(found.values()) >= total

        wait_for(there, f"a total of {total}", seconds)
        wrong = {name for name in expected.keys() | found.keys() if expected.get(name) != found.get(name)}
        assert not wrong, f"{len(wrong)} series, such as {sorted(wrong)[:3]}"

    def resident(self) -> float:
        """MiB of memory that the daemon uses, its embedded server apart."""
        return resident_bytes(self.daemon.process.pid) / 2**20


@contextmanager
def loaded(directory: Path, *, flush_interval: int, series: int = 1_000_000) -> Iterator[Loaded]:
    """A daemon with its embedded server and a receive buffer of 8 MB."""
    with running(directory, CONFIG.format(flush_interval=flush_interval, series=series)) as daemon:
        yield Loaded(daemon)


# ------------------------------------------------------------------ the promises


def no_datagram_is_lost_during_a_flush(
    directory: Path, *, series: int, rate: float, seconds: float, flush_interval: int
) -> str:
    """Every datagram arrives, and all of it is in the store, while windows of so many series are flushed."""
    lines = counters(series)
    times = times_for(lines, rate, seconds)
    with loaded(directory, flush_interval=flush_interval) as one:
        one.send(lines[:series], 50_000)  # each series once: they are known
        one.all_received()
        wait_for(lambda: one.metric("collector_flush_points_total") >= series, "the first flush")
        before = one.metric("collector_flush_points_total")
        flushed = 0.0
        sends = 0
        while flushed < series:  # a busy machine takes longer to flush
            assert sends < 5, f"only {flushed:,.0f} points were flushed while {sends} times the load came"
            sent = one.send(lines, rate, times=times)
            sends += 1
            flushed = one.metric("collector_flush_points_total") - before
        one.all_received()
        expected = totals_of(lines, times * sends)
        for name, total in totals_of(lines[:series]).items():
            expected[name] += total
        one.all_stored(expected)
        return (
            f"{sent.packets:,} datagrams, {sent.packets / sent.seconds:,.0f}/s,"
            f" {sent.lines / sent.seconds:,.0f} lines/s; {flushed:,.0f} points flushed meanwhile, the last"
            f" flush took {one.metric('collector_last_flush_seconds'):.2f} s, the event loop was held for"
            f" {one.metric('collector_loop_lag_max_seconds') * 1000:.0f} ms at most; none lost"
        )


def a_cold_start_loses_nothing(
    directory: Path, *, series: int, rate: float, seconds: float, flush_interval: int
) -> str:
    """A daemon that knows nothing gets all series at once at full rate: all are there, with their totals."""
    lines = counters(series)
    times = times_for(lines, rate, seconds)
    with loaded(directory, flush_interval=flush_interval) as one:
        sent = one.send(lines, rate, times=times)
        one.all_received()
        assert one.refused() == {}
        one.all_stored(totals_of(lines, times))
        rate = sent.lines / sent.seconds
        return f"{series:,} series at {rate:,.0f} lines/s for {sent.seconds:.1f} s; none lost"


class Calm(threading.Thread):
    """A sender of a few known series that goes on beside a flood, and counts what it has sent."""

    NAMES: Final = tuple(f"calm.{n}" for n in range(10))

    def __init__(self, port: int) -> None:
        super().__init__()
        self._port = port
        self.sent = 0  # datagrams, one line a name in each
        self.over = threading.Event()

    def run(self) -> None:
        packet = "\n".join(f"{name}:1|c" for name in self.NAMES).encode()
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            while not self.over.wait(0.005):
                sock.sendto(packet, ("127.0.0.1", self._port))
                self.sent += 1


class Watch(threading.Thread):
    """The most memory that a daemon uses while the block runs."""

    def __init__(self, one: Loaded) -> None:
        super().__init__()
        self._one = one
        self._over = threading.Event()
        self.most = 0.0

    def run(self) -> None:
        while not self._over.wait(0.05):
            self.most = max(self.most, self._one.resident())

    def __enter__(self) -> Watch:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self.join()


# MiB that a flood may take, however long it is. The queue holds 48 MiB of lines, and 250,000 heads may wait
# with their cells (64 bytes, 16 of the allocator) and their own bytes (some 100 with the table): 45 MiB. Each
# known series takes 1 KiB at most with what the writer knows: 20 MiB for 20,000. Batches of a flush, refused
# lines that are kept, and what the allocators keep come to the rest.
GROWTH: Final = 200.0

FLOODS: Final = {"names": "flood.{0:030d}:1|c", "tags": "flood:1|c|#request:{0:024d}"}


def a_flood_is_bounded(directory: Path, *, kind: str, heads: int, rate: float, series: int) -> str:
    """Far more new heads than may be known: the calm go on, memory stays, what is refused is counted."""
    lines = [FLOODS[kind].format(n) for n in range(heads)]
    with loaded(directory, flush_interval=2, series=series) as one:
        calm = Calm(int(one.target.where[1]))
        calm.start()
        wait_for(lambda: set(one.stored()) == set(Calm.NAMES), "the calm series")
        before = one.resident()
        try:
            with Watch(one) as watch:
                sent = one.send(lines, rate)
                time.sleep(3)  # a flush or two, which also take memory
        finally:
            calm.over.set()
            calm.join()
        one.lines += calm.sent * len(Calm.NAMES)
        one.packets += calm.sent
        one.all_received()
        wait_for(lambda: one.stored().get(Calm.NAMES[0]) == calm.sent, "all calm lines", _PATIENCE)
        calm_lines = calm.sent * len(Calm.NAMES)

        def balanced() -> (
            bool
        ):  # lines wait after they were counted: what is refused grows, what is stored too
            return sum(one.stored().values()) + sum(one.refused().values()) == heads + calm_lines

        wait_for(balanced, "all lines to be stored or refused", _PATIENCE)
        refused, stored = one.refused(), one.stored()
        accepted = heads - sum(refused.values())
        assert all(stored.pop(name) == calm.sent for name in Calm.NAMES)
        assert len(stored) == sum(stored.values()) == accepted == series - len(Calm.NAMES)
        assert set(refused) <= {"cardinality", "overload"}
        assert watch.most - before < GROWTH, f"{before:.0f} MiB before, {watch.most:.0f} at most"
        return (
            f"{heads:,} new heads at {sent.lines / sent.seconds:,.0f}/s: {accepted:,} accepted,"
            f" refused {refused}; {calm_lines:,} calm lines exact;"
            f" memory {before:.0f} -> {watch.most:.0f} MiB"
        )
