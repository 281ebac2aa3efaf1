"""Numbers, times and histograms as Prometheus' HTTP API prints them: JSON, put together by hand.

An answer has millions of them, and a list for json.dumps takes three times as long as its text.
"""

from __future__ import annotations

import math
from decimal import Decimal
from functools import lru_cache
from typing import Final

from collector.model import Number
from collector.sketch import Sketch, bin_bounds

# Which ends of a bucket belong to it.
_OPEN_LEFT: Final = 0  # (left, right]
_OPEN_RIGHT: Final = 1  # [left, right)
_CLOSED: Final = 3  # [left, right]


def pair(at: float, value: Number | Sketch) -> str:
    """A point: its time, and a number or a histogram."""
    text = _histogram(value) if isinstance(value, Sketch) else f'"{number(value)}"'
    return f"[{timestamp(at)},{text}]"


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
    if isinstance(at, int):
        return at
    rounded = round(float(at), 3)
    return int(rounded) if rounded.is_integer() else rounded


def _histogram(sketch: Sketch) -> str:
    """A sketch as a native histogram: buckets of [boundary rule, left, right, count], values ascending."""
    buckets = [
        f'{_below_zero(index)}{number(weight)}"]'
        for index, weight in sorted(sketch.negative.items(), reverse=True)
    ]
    if sketch.zero:
        buckets.append(f'[{_CLOSED},"0","0","{number(sketch.zero)}"]')
    buckets += [
        f'{_above_zero(index)}{number(weight)}"]' for index, weight in sorted(sketch.positive.items())
    ]
    head = f'"count":"{number(sketch.count)}","sum":"{number(sketch.sum)}"'
    return f'{{{head},"buckets":[{",".join(buckets)}]}}'


# A bucket up to its count. There are some thousand of them.


@lru_cache(maxsize=10_000)
def _above_zero(index: int) -> str:
    lower, upper = bin_bounds(index)
    return f'[{_OPEN_LEFT},"{number(lower)}","{number(upper)}","'


@lru_cache(maxsize=10_000)
def _below_zero(index: int) -> str:
    lower, upper = bin_bounds(index)
    return f'[{_OPEN_RIGHT},"{number(-upper)}","{number(-lower)}","'
