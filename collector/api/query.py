"""Selectors answered in the shape of Prometheus' HTTP API.

    counter   the running total
    gauge     the current value, until it has been idle for too long
    set       distinct members in the newest minute that has any, of the last five
    timer     a native histogram of the last five minutes, or one quantile of it

With a range, the same at every point in it: totals, values, minutes, histograms. A point stands at the
start of its slot and tells what was true at its end.

The store keeps increments and one running total, the one of now. A total of the past is that total less
all increments since; so every answer about counters reads from its start up to now.

Reading, printing and sending go in parts: a large answer never holds the event loop for long.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Sequence
from itertools import groupby
from typing import Any, Final, Protocol

from collector.api.prometheus import pair
from collector.errors import CollectorError
from collector.model import Kind, Number, Series
from collector.promql import KIND, KIND_NAMES, NAME, QUANTILE, Selector
from collector.sketch import Sketch
from collector.turns import Turns

LOOKBACK: Final = 300.0  # seconds, as in Prometheus
_GAUGE_LOOKBACK: Final = 3600.0  # how long before `at` a gauge that was set again since is looked for
_AHEAD: Final = 3600.0  # clients may stamp samples a little ahead; the running total has them already

# Bounds on one query: with 10 s a slot, the most that is read is three million points.
_MOST_SERIES: Final = 200_000
_MOST_SERIES_SECONDS: Final = 30_000_000.0
# What is read at once, in series times seconds: about 10,000 numbers or 1,000 sketches, some 15 ms.
_PART: Final = {Kind.COUNTER: 100_000.0, Kind.GAUGE: 100_000.0, Kind.SET: 600_000.0, Kind.TIMER: 10_000.0}
_PART_SERIES: Final = 1000
_READINGS: Final = 5  # flushes are seconds apart, a reading takes milliseconds

# What is printed at once: some milliseconds.
_VALUES: Final = 2000
_HISTOGRAMS: Final = 50
_PIECE: Final = 2**16  # characters of one part of the answer


class Reader(Protocol):
    """What the API asks of the store; see `collector.store.reader` for shapes and units."""

    kept: float

    async def find(self, matches: Callable[[Series], bool], now: float) -> list[Series]: ...
    async def totals(self, series: Sequence[Series]) -> list[Number]: ...
    async def gauges(self, series: Sequence[Series], now: float) -> list[tuple[float, Number] | None]: ...
    async def increments(
        self, series: Sequence[Series], start: float, end: float
    ) -> list[list[tuple[int, Number]]]: ...
    async def gauge_points(
        self, series: Sequence[Series], start: float, end: float
    ) -> list[list[tuple[int, Number]]]: ...
    async def sketches(
        self, series: Sequence[Series], start: float, end: float
    ) -> list[list[tuple[int, Sketch]]]: ...
    async def uniques(
        self, series: Sequence[Series], start: float, end: float
    ) -> list[list[tuple[int, int]]]: ...
    async def events(self, count: int) -> list[dict[str, Any]]: ...
    async def checks(self, count: int) -> list[dict[str, Any]]: ...


class TooMuchError(CollectorError):
    """A query that would read or answer too much at once."""


Values = list[tuple[float, Number | Sketch]]


class _Text:
    """Text in pieces that are never put together: 200 MB would hold the loop for a second."""

    def __init__(self) -> None:
        self._parts: list[str] = []
        self._length = 0
        self.pieces: list[bytes] = []

    def add(self, part: str) -> None:
        self._parts.append(part)
        self._length += len(part)
        if self._length >= _PIECE:
            self.close()

    def close(self) -> None:
        self.pieces.append("".join(self._parts).encode())
        self._parts, self._length = [], 0


async def answer(selector: Selector, reader: Reader, at: float, now: float) -> list[bytes]:
    """The `data` of /api/v1/query as JSON, in pieces: a vector at `at`, or a matrix when the selector has a
    range.

    `now` is the time, in seconds as `at` is. Raises TooMuchError, and StoreError when the store is away.
    """
    question = _Question(selector, reader, at, now)
    found = await reader.find(selector.matches, at) if at >= now - reader.kept else []
    question.bound(found)
    kinds: dict[str, set[Kind]] = {}
    for one in found:
        kinds.setdefault(one.name, set()).add(one.kind)
    text, turns = _Text(), Turns()
    text.add(f'{{"resultType":"{"vector" if selector.range is None else "matrix"}","result":[')
    first = True
    for kind, part in question.parts(found):
        read = question.instant if selector.range is None else question.range
        for series, values in zip(part, await read(kind, part), strict=True):
            if values:
                metric = _metric(series, selector, ambiguous=len(kinds[series.name]) > 1)
                text.add(f'{"" if first else ","}{{"metric":{json.dumps(metric)},')
                await question.print(values, text, turns)
                first = False
    text.add("]}")
    text.close()
    return text.pieces


def _metric(series: Series, selector: Selector, *, ambiguous: bool) -> dict[str, str]:
    labels = series.labels()
    labels.pop(NAME, None)  # a tag may be called so; the name is the name
    metric = {NAME: series.name, **labels}
    if ambiguous:
        metric.setdefault(KIND, KIND_NAMES[series.kind])
    if selector.quantile is not None:
        metric[QUANTILE] = selector.quantile.text
    return metric


class _Question:
    """One query on its way to the store."""

    def __init__(self, selector: Selector, reader: Reader, at: float, now: float) -> None:
        self._selector = selector
        self._reader = reader
        self._at = at
        self._now = now
        self._start = max(at - (selector.range or 0.0), now - reader.kept)
        # Slots begin at whole seconds; one that begins at `at` counts.
        self._end = math.floor(min(at, now + _AHEAD)) + 1

    # ------------------------------------------------------------------ how much, in which parts

    def _seconds(self, kind: Kind) -> float:
        """How far back the store has to read for one series of a kind."""
        ranged, past = self._selector.range is not None, self._at < self._now
        match kind:
            case Kind.COUNTER:
                return self._now - self._start + _AHEAD if ranged or past else 0.0
            case Kind.GAUGE:
                past_seconds = _GAUGE_LOOKBACK if past else 0.0
                return self._end - self._start if ranged else past_seconds
            case Kind.SET | Kind.TIMER:
                return self._end - self._start if ranged else LOOKBACK

    def bound(self, found: Sequence[Series]) -> None:
        """TooMuchError when the series found are too many for what is asked of each."""
        remedy = "narrow it with matchers, or shorten its range"
        if len(found) > _MOST_SERIES:
            raise TooMuchError(f"the query finds {len(found)} series, at most {_MOST_SERIES}: {remedy}")
        seconds = sum(self._seconds(one.kind) for one in found)
        if seconds > _MOST_SERIES_SECONDS:
            hours = seconds / 3600
            most = _MOST_SERIES_SECONDS / 3600
            raise TooMuchError(f"the query reads {hours:.0f} hours of series, at most {most:.0f}: {remedy}")

    def parts(self, found: Sequence[Series]) -> Iterator[tuple[Kind, list[Series]]]:
        """The series of one kind after another, as many at a time as are read at once."""
        for kind, group in groupby(found, key=lambda one: one.kind):
            series = list(group)
            size = min(_PART_SERIES, int(_PART[kind] / max(1.0, self._seconds(kind)))) or 1
            for first in range(0, len(series), size):
                yield kind, series[first : first + size]

    # ------------------------------------------------------------------ what is asked

    async def instant(self, kind: Kind, series: list[Series]) -> list[Values]:
        """The newest value of each series, with `at` as its time."""
        at, reader = self._at, self._reader
        match kind:
            case Kind.COUNTER:
                totals = await self._totals(series)
                return [[] if total is None else [(at, total)] for total in totals]
            case Kind.GAUGE:
                values = await self._gauges(series)
                return [[] if value is None else [(at, value)] for value in values]
            case Kind.SET:
                minutes = await reader.uniques(series, at - LOOKBACK, self._end)
                return [[(at, points[-1][1])] if points else [] for points in minutes]
            case Kind.TIMER:
                slots = await reader.sketches(series, at - LOOKBACK, self._end)
                merged = [_merge(points) for points in slots]
                return [self._quantiles([(at, one)] if one.count else []) for one in merged]

    async def range(self, kind: Kind, series: list[Series]) -> list[Values]:
        """Every point of each series in the range that ends at `at`."""
        start, end, reader = self._start, self._end, self._reader
        match kind:
            case Kind.COUNTER:
                totals, increments = await self._history(series, start)
                return [
                    [point for point in _running(points, total) if point[0] < end]
                    for points, total in zip(increments, totals, strict=True)
                ]
            case Kind.GAUGE:
                return [list(points) for points in await reader.gauge_points(series, start, end)]
            case Kind.SET:
                return [list(points) for points in await reader.uniques(series, start, end)]
            case Kind.TIMER:
                found = await reader.sketches(series, start, end)
                return [self._quantiles(list(points)) for points in found]

    async def _totals(self, series: list[Series]) -> list[Number | None]:
        """The running totals at `at`; None for a counter that did not count yet."""
        if self._at >= self._now:
            return list(await self._reader.totals(series))
        totals, later = await self._history(series, self._end)
        then = [
            total - sum(value for _, value in points) for points, total in zip(later, totals, strict=True)
        ]
        return [value if value or not points else None for value, points in zip(then, later, strict=True)]

    async def _history(
        self, series: list[Series], start: float
    ) -> tuple[list[Number], list[list[tuple[int, Number]]]]:
        """The totals of now, and all increments from `start` up to them.

        A flush between the two readings would tear them apart, so they are read again when there was one.
        """
        totals = await self._reader.totals(series)
        increments: list[list[tuple[int, Number]]] = []
        for _ in range(_READINGS):
            increments = await self._reader.increments(series, start, self._now + _AHEAD)
            before, totals = totals, await self._reader.totals(series)
            if before == totals:
                break
        return totals, increments

    async def _gauges(self, series: list[Series]) -> list[Number | None]:
        """The values at `at`: the current ones, or for those set again since, the last one before."""
        current = await self._reader.gauges(series, self._at)
        values = [None if one is None or one[0] > self._at else one[1] for one in current]
        if self._at < self._now:
            since = [i for i, one in enumerate(current) if one is not None and one[0] > self._at]
            earlier = await self._reader.gauge_points(
                [series[i] for i in since], self._at - _GAUGE_LOOKBACK, self._end
            )
            for i, points in zip(since, earlier, strict=True):
                values[i] = points[-1][1] if points else None
        return values

    # ------------------------------------------------------------------ how it is shown

    def _quantiles(self, points: Values) -> Values:
        """Sketches, or one quantile of each when the selector asks for it."""
        wanted = self._selector.quantile
        if wanted is None:
            return points
        return [(at, one.quantile(wanted.value)) for at, one in points if isinstance(one, Sketch)]

    async def print(self, values: Values, text: _Text, turns: Turns) -> None:
        """Adds the values under the key that Prometheus gives them."""
        name, size = ("histogram", _HISTOGRAMS) if isinstance(values[0][1], Sketch) else ("value", _VALUES)
        if self._selector.range is None:
            text.add(f'"{name}":{pair(*values[0])}}}')
            await turns.give()
            return
        text.add(f'"{name}s":[')
        for first in range(0, len(values), size):
            text.add("," * (first > 0) + ",".join([pair(*one) for one in values[first : first + size]]))
            await turns.give()
        text.add("]}")


def _running(increments: list[tuple[int, Number]], total: Number) -> Values:
    """Running totals from the increments and the total after the last of them."""
    points: Values = []
    for at, increment in reversed(increments):
        points.append((at, total))
        total -= increment
    return points[::-1]


def _merge(points: list[tuple[int, Sketch]]) -> Sketch:
    merged = Sketch()
    for _, sketch in points:
        merged.merge(sketch)
    return merged
