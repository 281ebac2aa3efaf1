"""One flush window: gathers while it is open, is read out in chunks once it is retired."""

from __future__ import annotations

from collections.abc import Iterator

from collector.engine.accumulators import Accumulator, TimerAccumulator, accumulator
from collector.model import Check, Event, Point, Series, Window


class PureInterval:
    """The accumulators of one window, and of other windows for samples that carried a timestamp."""

    __slots__ = ("_samples", "checks", "events", "gathered", "others", "window")

    def __init__(self, window: Window, samples: int) -> None:
        """`samples` are kept raw of each timer."""
        self.window = window
        self.gathered: dict[str, Accumulator] = {}
        self.others: dict[int, dict[str, Accumulator]] = {}
        self.events: list[Event] = []
        self.checks: list[Check] = []
        self._samples = samples

    def of(self, series: Series, start: int | None = None) -> Accumulator:
        """The accumulator of a series in this window, or in the one that starts at `start`."""
        if start is None or start == self.window.start:
            gathered = self.gathered
        else:
            gathered = self.others.setdefault(start, {})
        found = gathered.get(series.key)
        if found is None:
            found = gathered[series.key] = accumulator(series, self._samples)
        return found

    def fold_timers(self) -> int:
        """Bounds the memory of busy timers: raw samples into sketches; how many were folded."""
        timers = (found for found in self.gathered.values() if isinstance(found, TimerAccumulator))
        return sum(timer.fold() for timer in timers)

    def __bool__(self) -> bool:
        return bool(self.gathered or self.others or self.events or self.checks)

    def chunks(self, size: int) -> Iterator[tuple[Window, list[Point]]]:
        """The points, at most `size` at a time; each accumulator is let go as it is read."""
        length = self.window.end - self.window.start
        yield from _chunks(self.window, self.gathered, size)
        for start in sorted(self.others):
            yield from _chunks(Window(start, start + length), self.others[start], size)


def _chunks(
    window: Window, gathered: dict[str, Accumulator], size: int
) -> Iterator[tuple[Window, list[Point]]]:
    while gathered:
        count = min(size, len(gathered))
        yield window, [gathered.popitem()[1].point() for _ in range(count)]
