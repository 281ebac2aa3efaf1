"""A window of the compiled engine, read out: what the core gathered becomes points.

Nearly all series of a window are of four plain forms, which the core hands over in lists, some hundred series
to a call. What is left (several weights of one series, fractions, moved gauges) is worked out by the code of
the engine in Python.
"""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Iterator
from typing import Any, Final, Protocol

from collector.engine import _core
from collector.engine.accumulators import CounterAccumulator, GaugeAccumulator, weighed
from collector.engine.interface import Limits
from collector.engine.interval import RAW_SAMPLES, PureInterval
from collector.model import CounterPoint, GaugePoint, Point, Series, SetPoint, TimerPoint, Window
from collector.sketch import Sketch
from collector.statsd.lines import Value

_FOLDED: Final = 100_000  # samples counted in one chunk: some two milliseconds


class Names(dict[int, Series]):
    """The series of the core by their numbers, each made when it is first asked for.

    Most series of a window come again in the next, so they are kept, until there are far more than one window
    needs: the others are idle, and a million idle series are to cost no more than the core's bytes.
    """

    def __init__(self, core: _core.Core) -> None:
        super().__init__()
        self._core = core

    def __missing__(self, number: int) -> Series:
        found = self[number] = Series.from_key(self._core.key(number).decode())
        return found

    def bound(self, needed: int) -> None:
        """Forgets all when more than twice as many are held as a window needed."""
        if len(self) > 2 * needed:
            self.clear()


class Owner(Protocol):
    """What a window asks of its engine."""

    @property
    def names(self) -> Names:
        """The series by their numbers."""
        ...

    def add(self, series: Series, value: Value, weight: float, at: int) -> None:
        """Adds one value to the open window; `at` is in milliseconds."""
        ...


class _Cell:
    """Adds values of one series that Python has read to the open interval of the core."""

    __slots__ = ("_engine", "series")

    def __init__(self, engine: Owner, series: Series) -> None:
        self._engine = engine
        self.series = series

    def add(self, value: Value, weight: float, at: int) -> None:
        self._engine.add(self.series, value, weight, at)


class NativeInterval(PureInterval):
    """A window whose values are in the core; what carries a timestamp of another one is kept in Python."""

    __slots__ = ("__weakref__", "_cells", "_engine", "_names", "huge", "turn")

    def __init__(self, window: Window, limits: Limits, limit_hits: Counter[str], engine: Owner) -> None:
        super().__init__(window, limits, limit_hits)
        self._engine = engine
        self._cells: _core.Retired | None = None
        self._names: dict[int, Series] | None = None  # of its own, where the core has forgotten them
        # (weight, increment) by series, where no sum in the core can hold it.
        self.huge: dict[str, list[tuple[float, float]]] = {}
        self.turn = 0

    def of(self, series: Series, start: int | None = None) -> Any:
        """Where values of a series are added, in this window or in the one that starts at `start`."""
        if start is None or start == self.window.start:
            return _Cell(self._engine, series)
        return super().of(series, start)

    def retire(self, cells: _core.Retired, turn: int) -> None:
        """Takes over what the core gathered."""
        self._cells = cells
        self.turn = turn

    def __bool__(self) -> bool:
        return bool(self._cells) or super().__bool__()

    def keep_names(self) -> None:
        """Reads the names of all series, which the core is about to forget."""
        if self._cells is not None:
            names = self._names or self._engine.names
            self._names = {number: names[number] for number in self._cells.numbers()}

    def chunks(self, size: int) -> Iterator[tuple[Window, list[Point]]]:
        """The points, at most `size` at a time."""
        if self._cells is not None:
            yield from self._read(self._cells, size)
            self._engine.names.bound(len(self._cells))
            self._cells = None
        yield from super().chunks(size)

    def _read(self, cells: _core.Retired, size: int) -> Iterator[tuple[Window, list[Point]]]:
        keep = self._limits.samples_of_each(cells.timers)
        while (read := cells.read(size, keep, RAW_SAMPLES, _FOLDED)) is not None:
            counters, gauges, timers, sets, others, beyond = read
            names = self._names or self._engine.names
            points: list[Point] = [CounterPoint(names[number], value) for number, value in counters]
            points += [GaugePoint(names[number], value, 0, at) for number, value, at in gauges]
            points += [
                TimerPoint(names[number], sketch, array("d", samples)) for number, sketch, samples in timers
            ]
            points += [SetPoint(names[number], members) for number, members in sets]
            points += [self._point(names[number], state, entries, keep) for number, state, entries in others]
            if beyond:
                self._limit_hits["samples"] += beyond
            if points:
                yield self.window, points

    def _point(self, series: Series, state: int, entries: list[Any], keep: int) -> Point:
        if state == _core.COUNTER:
            return self._counter(series, entries)
        if state == _core.TIMER:
            return self._timer(series, entries, keep)
        (entry,) = entries
        gauge = GaugeAccumulator(series)
        gauge.value, gauge.move, gauge.at = entry
        return gauge.point()

    def _counter(self, series: Series, entries: list[tuple[float, int, list[float]]]) -> CounterPoint:
        counter = CounterAccumulator(series)
        for weight, whole, parts in entries:
            for value in (whole, *parts):
                counter.add(value, weight, 0)
        for weight, value in self.huge.get(series.key, ()):  # such a series has parts too, so it comes here
            counter.add(value, weight, 0)
        return counter.point()

    def _timer(self, series: Series, entries: list[tuple[float, bytes, bytes]], keep: int) -> TimerPoint:
        parts: dict[float, Sketch] = {}
        newest = array("d")
        total = 0
        for weight, encoded, samples in entries:
            parts[weight] = Sketch.decode(encoded)
            total += int(parts[weight].count)
            newest.frombytes(samples)
        del newest[:-keep]
        if total > len(newest):
            self._limit_hits["samples"] += total - len(newest)
        return TimerPoint(series, weighed(parts).encode(), newest)
