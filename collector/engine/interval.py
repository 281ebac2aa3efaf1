"""One flush window: gathers while it is open, is read out in chunks once it is retired."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any, Final

from collector.engine.accumulators import Accumulator, SetAccumulator, TimerAccumulator, accumulator
from collector.engine.interface import Limits
from collector.model import Check, Event, Point, Series, Window

_FREED: Final = 2_000  # leftovers freed after each chunk
RAW_SAMPLES: Final = 10_000  # of timers in one chunk: sorting them takes some milliseconds


class PureInterval:
    """The accumulators of one window, and of other windows for samples that carried a timestamp."""

    __slots__ = (
        "_folded",
        "_limit_hits",
        "_limits",
        "_timers",
        "_timers_by_start",
        "checks",
        "events",
        "gathered",
        "leftovers",
        "others",
        "window",
    )

    def __init__(self, window: Window, limits: Limits, limit_hits: Counter[str]) -> None:
        """Raw samples of timers beyond the limits are counted in `limit_hits`."""
        self.window = window
        self.gathered: dict[str, Accumulator] = {}
        self.others: dict[int, dict[str, Accumulator]] = {}
        self.events: list[Event] = []
        self.checks: list[Check] = []
        self._limits = limits
        self._limit_hits = limit_hits
        self.leftovers: list[dict[str, Any]] = []  # what the engine has no use for any more
        self._timers: list[TimerAccumulator] = []
        self._timers_by_start: Counter[int] = Counter()
        self._folded = -1

    def of(self, series: Series, start: int | None = None) -> Accumulator:
        """The accumulator of a series in this window, or in the one that starts at `start`."""
        if start is None or start == self.window.start:
            start, gathered = self.window.start, self.gathered
        else:
            gathered = self.others.setdefault(start, {})
        found = gathered.get(series.key)
        if found is None:
            found = gathered[series.key] = accumulator(series)
            if isinstance(found, TimerAccumulator):
                self._timers.append(found)
                self._timers_by_start[start] += 1
        return found

    def fold_timers(self, part: int) -> None:
        """Bounds the memory of busy timers: the raw samples of one in `part` of them into sketches.

        Called again and again it comes round to each; all at once would hold the event loop.
        """
        for _ in range(-(-len(self._timers) // part)):
            self._folded = (self._folded + 1) % len(self._timers)
            self._fold(self._timers[self._folded], self._limits.samples)

    def _fold(self, timer: TimerAccumulator, keep: int) -> None:
        if beyond := timer.fold(keep):
            self._limit_hits["samples"] += beyond

    def __bool__(self) -> bool:
        return bool(self.gathered or self.others or self.events or self.checks)

    def chunks(self, size: int) -> Iterator[tuple[Window, list[Point]]]:
        """The points, at most `size` at a time; each accumulator is let go as it is read."""
        self._timers.clear()
        length = self.window.end - self.window.start
        for start in (self.window.start, *sorted(self.others)):
            gathered = self.gathered if start == self.window.start else self.others[start]
            for chunk in self._chunks(Window(start, start + length), gathered, size):
                yield chunk
                self._let_go()

    def _let_go(self) -> None:
        """Frees a part of the leftovers: all at once would hold the event loop for some 15 ms."""
        for table in self.leftovers:
            for _ in range(min(_FREED, len(table))):
                table.popitem()

    def _chunks(
        self, window: Window, gathered: dict[str, Accumulator], size: int
    ) -> Iterator[tuple[Window, list[Point]]]:
        points: list[Point] = []
        raw = 0
        keep = self._limits.samples_of_each(self._timers_by_start[window.start])
        while gathered:
            _, found = gathered.popitem()
            if isinstance(found, SetAccumulator) and not found.members:
                continue  # all of them went ahead of the window
            if isinstance(found, TimerAccumulator):
                raw += found.unfolded
                self._fold(found, keep)
            points.append(found.point())
            if len(points) == size or raw >= RAW_SAMPLES:
                yield window, points
                points, raw = [], 0
        if points:
            yield window, points
