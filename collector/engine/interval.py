"""One flush window: gathers while it is open, is read out in chunks once it is retired."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from collector.engine.accumulators import Accumulator, SetAccumulator, TimerAccumulator, accumulator
from collector.model import Check, Event, Point, Series, Window


class PureInterval:
    """The accumulators of one window, and of other windows for samples that carried a timestamp."""

    __slots__ = ("_limit_hits", "_samples", "checks", "events", "gathered", "others", "window")

    def __init__(self, window: Window, samples: int, limit_hits: Counter[str]) -> None:
        """`samples` are kept raw of each timer; those beyond it are counted in `limit_hits`."""
        self.window = window
        self.gathered: dict[str, Accumulator] = {}
        self.others: dict[int, dict[str, Accumulator]] = {}
        self.events: list[Event] = []
        self.checks: list[Check] = []
        self._samples = samples
        self._limit_hits = limit_hits

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

    def fold_timers(self) -> None:
        """Bounds the memory of busy timers: raw samples into sketches."""
        for gathered in (self.gathered, *self.others.values()):
            for found in gathered.values():
                if isinstance(found, TimerAccumulator):
                    self._fold(found)

    def _fold(self, timer: TimerAccumulator) -> None:
        if beyond := timer.fold():
            self._limit_hits["samples"] += beyond

    def __bool__(self) -> bool:
        return bool(self.gathered or self.others or self.events or self.checks)

    def chunks(self, size: int) -> Iterator[tuple[Window, list[Point]]]:
        """The points, at most `size` at a time; each accumulator is let go as it is read."""
        length = self.window.end - self.window.start
        yield from self._chunks(self.window, self.gathered, size)
        for start in sorted(self.others):
            yield from self._chunks(Window(start, start + length), self.others[start], size)

    def _chunks(
        self, window: Window, gathered: dict[str, Accumulator], size: int
    ) -> Iterator[tuple[Window, list[Point]]]:
        points: list[Point] = []
        while gathered:
            _, found = gathered.popitem()
            if isinstance(found, SetAccumulator) and not found.members:
                continue  # all of them went ahead of the window
            if isinstance(found, TimerAccumulator):
                self._fold(found)
            points.append(found.point())
            if len(points) == size:
                yield window, points
                points = []
        if points:
            yield window, points
