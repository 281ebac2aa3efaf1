"""Numbers, times and histograms as Prometheus' HTTP API prints them."""

from __future__ import annotations

import math
from decimal import Decimal
from typing import Any, Final

from collector.model import Number
from collector.sketch import Sketch, bin_bounds

# Which ends of a bucket belong to it.
_OPEN_LEFT: Final = 0  # (left, right]
_OPEN_RIGHT: Final = 1  # [left, right)
_CLOSED: Final = 3  # [left, right]


def number(value: Number) -> str:
    """The shortest text that reads back; an exponent only below 1e-6 and from 1e21 on."""
    if isinstance(value, int):
        return str(value)
    if math.isnan(value):
        return "NaN"
    if math.isinf(value):
        return "+Inf" if value > 0 else "-Inf"
    text = repr(value)
    if "e" in text and 1e-6 <= abs(value) < 1e21:
        text = format(Decimal(text), "f")
    return text.removesuffix(".0")


def timestamp(at: float) -> Number:
    """Unix seconds to the millisecond, whole ones without a point."""
    rounded = round(float(at), 3)
    return int(rounded) if rounded.is_integer() else rounded


def histogram(sketch: Sketch) -> dict[str, Any]:
    """A sketch as a native histogram: buckets of [boundary rule, left, right, count], values ascending."""
    buckets: list[list[Any]] = []
    for index, weight in sorted(sketch.negative.items(), reverse=True):
        lower, upper = bin_bounds(index)
        buckets.append([_OPEN_RIGHT, number(-upper), number(-lower), number(weight)])
    if sketch.zero:
        buckets.append([_CLOSED, "0", "0", number(sketch.zero)])
    for index, weight in sorted(sketch.positive.items()):
        lower, upper = bin_bounds(index)
        buckets.append([_OPEN_LEFT, number(lower), number(upper), number(weight)])
    return {"count": number(sketch.count), "sum": number(sketch.sum), "buckets": buckets}
