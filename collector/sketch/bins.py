"""The bins of the sketch, and sums that stay finite."""

from __future__ import annotations

import math
import sys
from bisect import bisect_left
from collections.abc import Iterable
from typing import Final

SCALE: Final = 32  # bins an octave: scale 5
MIN_INDEX: Final = -40 * SCALE - 1  # the bin that ends at 2^-40 takes all that is smaller
MAX_INDEX: Final = 64 * SCALE - 1  # the bin that ends at 2^64 takes all that is larger
RELATIVE_ERROR: Final = (2 ** (1 / SCALE) - 1) / (2 ** (1 / SCALE) + 1)

# Upper bound of every bin. Looking a value up here costs no more than a logarithm and, unlike one,
# cannot disagree with the bound by a rounding error.
BOUNDS: Final = tuple(2.0 ** ((index + 1) / SCALE) for index in range(MIN_INDEX, MAX_INDEX + 1))

LARGEST: Final = sys.float_info.max
UNITS: Final = 1074  # bits behind the point of the smallest double


def bin_index(value: float) -> int:
    """The bin of a positive value."""
    return min(bisect_left(BOUNDS, value), len(BOUNDS) - 1) + MIN_INDEX


def bin_bounds(index: int) -> tuple[float, float]:
    """(lower, upper) of a bin: lower exclusive, upper inclusive."""
    return 2.0 ** (index / SCALE), 2.0 ** ((index + 1) / SCALE)


def bin_middle(index: int) -> float:
    """What stands for the values of a bin: the harmonic middle, from which neither bound is farther."""
    lower, upper = bin_bounds(index)
    return 2 * lower * upper / (lower + upper)


def saturated(value: float) -> float:
    """A sum or product of finite numbers, at most the largest double: one absurd value poisons nothing."""
    return min(max(value, -LARGEST), LARGEST)


def finite_sum(values: Iterable[float]) -> float:
    """The exact sum of finite numbers, rounded once, and `saturated`."""
    values = list(values)
    try:
        return math.fsum(values)
    except OverflowError:  # a partial sum left the range; the whole may lie within it
        return rounded(sum(map(in_units, values)), UNITS)


def in_units(value: float) -> int:
    """A finite number in units of 2^-1074, which every double is a whole number of."""
    numerator, denominator = value.as_integer_ratio()
    return numerator << (UNITS + 1 - denominator.bit_length())  # a denominator is a power of two


def rounded(total: int, bits: int) -> float:
    """The double nearest to total / 2^bits, `saturated`."""
    try:
        return total / (1 << bits)
    except OverflowError:
        return LARGEST if total > 0 else -LARGEST
