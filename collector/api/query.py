"""Selectors answered in the shape of Prometheus' HTTP API.

    counter   the running total
    gauge     the current value, until it has been idle for too long
    set       distinct members in the newest minute that has any, of the last five
    timer     a native histogram of the last five minutes, or one quantile of it

With a range, the same at every point in it: totals, values, minutes, histograms.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final, Protocol

from collector.model import Kind, Number, Series
from collector.promql import KIND_NAMES, Selector
from collector.sketch import Sketch, bin_bounds

LOOKBACK: Final = 300.0  # seconds, as in Prometheus
_OPEN_LEFT: Final = (
    0  # Prometheus' boundary rules: 0 is (left, right], 1 is [left, right), 3 is [left, right]
)
_OPEN_RIGHT: Final = 1
_CLOSED: Final = 3


class Reader(Protocol):
    """What the API asks of the store; see `collector.store.reader` for shapes and units."""

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


Values = list[tuple[float, Number | Sketch]]


async def answer(selector: Selector, reader: Reader, now: float) -> dict[str, Any]:
    """The `data` of /api/v1/query at `now`: a vector, or a matrix when the selector has a range."""
    found = await reader.find(selector.matches, now)
    kinds = {name: {one.kind for one in found if one.name == name} for name in {one.name for one in found}}
    result = []
    for kind in Kind:
        series = [one for one in found if one.kind is kind]
        if not series:
            continue
        read = _instant if selector.range is None else _range
        for one, values in zip(series, await read(kind, series, reader, selector, now), strict=True):
            if values:
                metric = _metric(one, selector, ambiguous=len(kinds[one.name]) > 1)
                result.append({"metric": metric, **_printed(values, single=selector.range is None)})
    return {"resultType": "vector" if selector.range is None else "matrix", "result": result}


def _metric(series: Series, selector: Selector, *, ambiguous: bool) -> dict[str, str]:
    metric = {"__name__": series.name, **series.labels()}
    if ambiguous:
        metric["kind"] = KIND_NAMES[series.kind]
    if selector.quantile is not None:
        metric["quantile"] = selector.quantile.text
    return metric


async def _instant(
    kind: Kind, series: list[Series], reader: Reader, selector: Selector, now: float
) -> list[Values]:
    """The newest value of each series, with `now` as its time."""
    match kind:
        case Kind.COUNTER:
            return [[(now, total)] for total in await reader.totals(series)]
        case Kind.GAUGE:
            return [[(now, one[1])] if one else [] for one in await reader.gauges(series, now)]
        case Kind.SET:
            minutes = await reader.uniques(series, now - LOOKBACK, now + 1)
            return [[(now, points[-1][1])] if points else [] for points in minutes]
        case Kind.TIMER:
            merged = [_merge(points) for points in await reader.sketches(series, now - LOOKBACK, now + 1)]
            return [_quantiles([(now, sketch)], selector) if sketch.count else [] for sketch in merged]


async def _range(
    kind: Kind, series: list[Series], reader: Reader, selector: Selector, now: float
) -> list[Values]:
    """Every point of each series in the range that ends at `now`."""
    assert selector.range is not None
    start, end = now - selector.range, now + 1
    match kind:
        case Kind.COUNTER:
            increments = await reader.increments(series, start, end)
            totals = await reader.totals(series)
            return [_running(points, total) for points, total in zip(increments, totals, strict=True)]
        case Kind.GAUGE:
            return [list(points) for points in await reader.gauge_points(series, start, end)]
        case Kind.SET:
            return [list(points) for points in await reader.uniques(series, start, end)]
        case Kind.TIMER:
            found = await reader.sketches(series, start, end)
            return [_quantiles(list(points), selector) for points in found]


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


def _quantiles(points: Values, selector: Selector) -> Values:
    """Sketches, or one quantile of each when the selector asks for it."""
    if selector.quantile is None:
        return points
    return [(at, one.quantile(selector.quantile.value)) for at, one in points if isinstance(one, Sketch)]


def _printed(values: Values, *, single: bool) -> dict[str, Any]:
    name = "histogram" if isinstance(values[0][1], Sketch) else "value"
    printed = [[at, _histogram(one) if isinstance(one, Sketch) else _text(one)] for at, one in values]
    return {name: printed[0]} if single else {f"{name}s": printed}


def _histogram(sketch: Sketch) -> dict[str, Any]:
    """A sketch as Prometheus prints a native histogram: buckets of [boundary rule, left, right, count]."""
    buckets: list[list[Any]] = []
    for index in sorted(sketch.negative, reverse=True):
        lower, upper = bin_bounds(index)
        buckets.append([_OPEN_RIGHT, _text(-upper), _text(-lower), _text(sketch.negative[index])])
    if sketch.zero:
        buckets.append([_CLOSED, "0", "0", _text(sketch.zero)])
    for index in sorted(sketch.positive):
        lower, upper = bin_bounds(index)
        buckets.append([_OPEN_LEFT, _text(lower), _text(upper), _text(sketch.positive[index])])
    return {"count": _text(sketch.count), "sum": _text(sketch.sum), "buckets": buckets}


def _text(value: Number) -> str:
    """A number as Prometheus prints it: the shortest text that reads back."""
    if isinstance(value, int):
        return str(value)
    if value != value:
        return "NaN"
    if value in (float("inf"), float("-inf")):
        return "+Inf" if value > 0 else "-Inf"
    return str(int(value)) if value.is_integer() and abs(value) < 2**53 else repr(value)
