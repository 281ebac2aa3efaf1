"""One measured run: send, wait until the server has dealt with all of it, compare before and after."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any, Final

from benchmarks import process
from benchmarks.counters import Counter, Reading
from benchmarks.sending import Packets, Progress, Sending, Sent
from benchmarks.target import Target

_IDLE: Final = 0.5  # of a processor: a server below it, with nothing in its queue, has done its work


@dataclass(frozen=True, slots=True)
class Result:
    """The figures of a run. None: not known."""

    target: Target
    sent: Sent
    counter: str
    got: Reading
    """What the counter says has come in meanwhile."""
    settled: bool
    """Whether the server had dealt with everything when the counter was read last."""
    pid: int | None
    server: str
    cpu_seconds: float | None
    """Of the server process, the time of settling included."""
    resident_bytes: int | None

    @property
    def received_packets(self) -> int | None:
        """Packets of ours that arrived: as the server counts them, or what the kernel did not drop.

        Reads of a stream say nothing about the packets in it.
        """
        if self.target.stream:
            return None
        if self.got.packets is not None:
            return self.got.packets
        return None if self.got.drops is None else max(0, self.sent.packets - self.got.drops)

    @property
    def estimated(self) -> bool:
        """Whether the lines are reckoned from packets, for the server does not count them."""
        return self.got.lines is None and self.received_packets is not None

    @property
    def received_lines(self) -> int | None:
        """Lines that arrived."""
        if self.got.lines is not None:
            return self.got.lines
        if self.received_packets is None or not self.sent.packets:
            return None
        return round(self.received_packets / self.sent.packets * self.sent.lines)

    @property
    def lost_lines(self) -> int | None:
        """Lines that did not arrive. Below 0: somebody else sent too."""
        received = self.received_lines
        return None if received is None else self.sent.lines - received

    def _per_cpu_second(self, number: int | None) -> float | None:
        return number / self.cpu_seconds if number is not None and self.cpu_seconds else None

    @property
    def lines_per_cpu_second(self) -> float | None:
        """The figure to compare: what the server gets done in a second of its own CPU time."""
        return self._per_cpu_second(self.received_lines)

    @property
    def packets_per_cpu_second(self) -> float | None:
        """The same in packets."""
        return self._per_cpu_second(self.received_packets)

    @property
    def packets_per_second(self) -> float | None:
        """Packets that arrived, per second of sending."""
        packets = self.received_packets
        return packets / self.sent.seconds if packets is not None and self.sent.seconds else None

    @property
    def busy(self) -> float | None:
        """Processors that the server kept busy, while packets were sent."""
        return self.cpu_seconds / self.sent.seconds if self.cpu_seconds and self.sent.seconds else None

    def as_json(self) -> dict[str, Any]:
        """All figures; numbers in lines, packets, bytes and seconds."""
        sent = asdict(self.sent)
        if self.sent.seconds:
            sent["lines_per_second"] = self.sent.lines / self.sent.seconds
            sent["packets_per_second"] = self.sent.packets / self.sent.seconds
        return {
            "target": str(self.target),
            "sent": sent,
            "received": {
                "counter": self.counter,
                "lines": self.received_lines,
                "packets": self.received_packets,
                "estimated": self.estimated,
                "settled": self.settled,
                "refused_lines": self.got.refused,
                "kernel_drops": self.got.drops,
            },
            "lost": {
                "lines": self.lost_lines,
                "share": self.lost_lines / self.sent.lines
                if self.lost_lines is not None and self.sent.lines
                else None,
            },
            "server": {
                "pid": self.pid,
                "name": self.server,
                "cpu_seconds": self.cpu_seconds,
                "lines_per_cpu_second": self.lines_per_cpu_second,
                "packets_per_cpu_second": self.packets_per_cpu_second,
                "packets_per_second": self.packets_per_second,
                "busy": self.busy,
                "resident_bytes": self.resident_bytes,
            },
        }


def measure(
    packets: Packets,
    target: Target,
    how: Sending,
    counter: Counter,
    pid: int | None,
    *,
    settle: float = 10.0,
    progress: Progress | None = None,
) -> Result:
    """Runs it; waits at most `settle` seconds for the server to have dealt with everything."""
    before, _ = _settled(target, counter, pid, settle)  # what was sent before is none of this run's
    cpu = None if pid is None else process.cpu_seconds(pid)
    sent = packets.send(target, how, progress)
    after, settled = _settled(target, counter, pid, settle)
    spent = None if pid is None or cpu is None else process.cpu_seconds(pid) - cpu
    return Result(
        target=target,
        sent=sent,
        counter=counter.name,
        got=after.since(before),
        settled=settled,
        pid=pid,
        server=process.name(pid) if pid is not None else "",
        cpu_seconds=spent,
        resident_bytes=process.resident_bytes(pid) if pid is not None else None,
    )


def _settled(target: Target, counter: Counter, pid: int | None, limit: float) -> tuple[Reading, bool]:
    """The last reading, and whether all signs agree that no more will come: the server's counter stands
    still, its socket's queue is empty, and it does not compute."""
    end = time.monotonic() + limit
    reading = counter.read()
    idle = _idleness(pid)
    while time.monotonic() < end:
        time.sleep(counter.pause)
        last, reading = reading, counter.read()
        queued = any(one.queued for one in process.bound_sockets(target)) if target.local else False
        if reading == last and not queued and idle():
            return reading, True
    return reading, False


def _idleness(pid: int | None) -> Callable[[], bool]:
    """Whether a process has computed little since it was asked last."""
    if pid is None:
        return lambda: True
    last = (time.monotonic(), process.cpu_seconds(pid))

    def idle() -> bool:
        nonlocal last
        before, last = last, (time.monotonic(), process.cpu_seconds(pid))
        return last[1] - before[1] < _IDLE * (last[0] - before[0])

    return idle
