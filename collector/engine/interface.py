"""What every engine does. The Python engine is the reference; a compiled one must agree with it."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, Final, Protocol

from annotated_types import Ge

from collector.model import Check, Event, Point, Window
from collector.statsd.lines import Profile

NOBODY: Final = "local"  # the sender of a unix datagram whose client has no name
UNKNOWN: Final = "unknown"  # of a datagram that came under full load, see core/reader.c
Sender = str | tuple[str | int, ...]  # a socket's peer address as the socket gives it


Positive = Annotated[int, Ge(1)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Bounds on what clients can make the collector hold. Each hit is counted, by limit."""

    __pydantic_config__ = {"extra": "forbid", "use_attribute_docstrings": True}  # noqa: RUF012

    series: Positive = 1_000_000
    """Series known at one time. New ones beyond it are refused (`cardinality`), known ones go on.
    A million idle series cost about half a gigabyte with the Python engine."""
    series_per_metric: Positive = 100_000
    """Series of one metric name: a tag that holds user ids stops here, before it eats all the room."""
    tags: Positive = 64
    """Tags of one series. A line with more is refused (`too_long`)."""
    name: Positive = 256
    """Characters of a metric name. A longer one is refused (`too_long`)."""
    line: Positive = 8192
    """Bytes of a line. A longer one is refused (`too_long`) and a stream goes on at the next line."""
    heads: Positive = 2_000_000
    """Distinct spellings of series (name, type, rate and tags as sent) that are remembered. Beyond
    it nothing is lost, but each line of a further spelling is read from scratch."""
    set_members: Positive = 100_000
    """Distinct members of one set held in memory. When reached they are written early."""
    samples: Positive = 200
    """Newest raw samples of a timer kept in a flush window, and in the store. All are counted and go
    into the sketch whatever this is."""
    samples_per_window: Positive = 200_000
    """Raw samples of all timers together that are kept in a flush window, shared evenly: with 20,000
    timers the newest 10 of each, and always one. All are counted and sketched. Raising it makes each
    flush longer, for the store above all, which sorts them in."""
    events: Positive = 1_000
    """Events and service checks taken in one flush window; more are refused (`cardinality`)."""

    def samples_of_each(self, timers: int) -> int:
        """How many raw samples each of so many timers of one window keeps."""
        return min(self.samples, max(1, self.samples_per_window // max(1, timers)))


@dataclass(frozen=True, slots=True)
class RefusedLine:
    """One refused line as it is shown: `at` in seconds of Unix time, `line` escaped and cut."""

    at: float
    reason: str
    message: str
    sender: str
    line: str


class Interval(Protocol):
    """A retired window, to be read out once."""

    window: Window
    events: list[Event]
    checks: list[Check]

    def chunks(self, size: int) -> Iterator[tuple[Window, list[Point]]]:
        """The points, at most `size` at a time, each with the window that it belongs to.

        That is the interval's own window, or an earlier or later one for samples that carried a
        timestamp. The work is done as it is asked for, so a caller may pause between chunks.
        """
        ...


# Where it matters who sends: networks that are heard, places of networks (0, 1), lines per second and sender.
# The networks are packed one behind the other: 16 bytes of address (of IPv4 the first four), bits, 4 or 6,
# place, 0.
Policed = tuple[bytes, bytes, float]


class Reader(Protocol):
    """A thread that empties a datagram socket into an engine, whatever the event loop is doing."""

    @property
    def ended(self) -> bool:
        """Whether the thread has ended."""
        ...

    def end(self, at_once: bool) -> None:
        """Tells the thread to end: at once, or when it has taken what the kernel holds. Does not wait."""
        ...

    def close(self) -> None:
        """Ends the thread and waits for that. The socket stays open."""
        ...

    def drops(self) -> tuple[list[list[int]], list[tuple[int, bytes, int]], int]:
        """What was dropped because of who sent it.

        (lines by reason (1 not heard, 2 over the rate) and place (2 for all others), the first senders as
        (4 or 6, address, lines), how often there was no room to tell one more sender apart).
        """
        ...

    def counts(self) -> tuple[int, int, int, int, int]:
        """(datagrams, bytes, lines, naps, errors); the lines are those that `settled` does not count."""
        ...


class Engine(Protocol):
    """Lines in, intervals out. All counts only ever grow."""

    name: str
    rejected: Counter[str]  # refused lines, or bits of lines, by reason
    odd: Counter[str]
    limit_hits: Counter[str]
    refused: deque[RefusedLine]  # the last ones, newest last
    settled: Counter[int]  # lines that a reader left to `settle`, by profile

    @property
    def series(self) -> int:
        """Series known now."""
        ...

    def add_profile(self, profile: Profile) -> int:
        """Registers how a listener reads lines, or those of one sender; the number is for `ingest`."""
        ...

    def forget_profile(self, number: int) -> None:
        """Gives up a profile that no line will come for; its number is never given again."""
        ...

    def ingest(self, profile: int, data: bytes, sender: Sender, now: float) -> int:
        """Takes one datagram, or whole lines of a stream; the number of lines that were in it."""
        ...

    def reader(
        self, socket: int, wake: int, profile: int, buffer: int, policed: Policed | None = None
    ) -> Reader | None:
        """A thread that receives from a datagram socket; None where the engine has none.

        `socket` and `wake` are descriptors; `wake`, an eventfd, is written to when `settle` is to be called.
        `buffer` is what the kernel holds for the socket, in bytes. OSError if a thread cannot be had.
        """
        ...

    def settle(self, most: int) -> bool:
        """Reads up to `most` of what readers had to leave to Python; whether more waits."""
        ...

    def refuse(self, reason: str, line: bytes, sender: Sender, now: float) -> None:
        """Counts and keeps a line that a listener had to refuse before it was whole."""
        ...

    def flush(self, now: float) -> list[Interval]:
        """The windows that have ended by `now`, oldest first."""
        ...

    def close(self, now: float) -> list[Interval]:
        """All windows, the open one included."""
        ...
