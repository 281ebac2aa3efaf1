"""The sketch in Python: the reference, and what runs where nothing was compiled."""

from __future__ import annotations

import math
import struct
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterable, Sequence
from itertools import pairwise
from typing import Final

from collector.sketch.bins import BOUNDS, MAX_INDEX, MIN_INDEX, bin_middle, finite_sum, saturated

_LAST: Final = len(BOUNDS) - 1

_VERSION: Final = 1
_FRACTIONAL: Final = 1
_DENSE: Final = (2, 4)  # the positive bins, the negative ones
_FLAGS: Final = _FRACTIONAL | sum(_DENSE)
_WHOLE: Final = 2.0**53  # up to it a double holds each whole number
_LONGEST_VARINT: Final = 9  # bytes: 63 bits
_HEADER: Final = struct.Struct("<BBdddd")
_DOUBLE: Final = struct.Struct("<d")
_DIGITS: Final = 9  # of a slot's number, at most


class SketchInPython:
    """Counts by bin, with count, sum, min and max kept exactly.

    Weights are positive floats: a sample rate of 0.1 is a weight of 10.
    """

    __slots__ = ("count", "max", "min", "negative", "positive", "sum", "zero")

    def __init__(self) -> None:
        self.count = 0.0
        self.sum = 0.0
        self.min = math.inf
        self.max = -math.inf
        self.zero = 0.0
        self.positive: dict[int, float] = {}
        self.negative: dict[int, float] = {}

    def add(self, values: Iterable[float], weight: float = 1.0) -> None:
        """Adds finite values, each `weight` times.

        Sorted, the values of one bin stand together, so the work per value is the sort's (C) and the
        work in Python is per bin: 3,000 values in 150 bins cost a tenth of 3,000 look-ups.
        """
        ordered = sorted(values)
        if not ordered:
            return
        self.count += weight * len(ordered)
        self.sum = saturated(self.sum + saturated(weight * finite_sum(ordered)))
        self.min = min(self.min, float(ordered[0]))
        self.max = max(self.max, float(ordered[-1]))
        below = bisect_left(ordered, 0.0)
        above = bisect_right(ordered, 0.0, below)
        if below:
            _fill(self.negative, [-value for value in reversed(ordered[:below])], 0, weight)
        self.zero += weight * (above - below)
        _fill(self.positive, ordered, above, weight)

    def merge(self, other: SketchInPython) -> None:
        """Adds the counts of `other`; exact, in any order and grouping."""
        self.count += other.count
        self.sum = saturated(self.sum + other.sum)
        self.min = min(self.min, other.min)
        self.max = max(self.max, other.max)
        self.zero += other.zero
        for mine, theirs in (
            (self.positive, other.positive),
            (self.negative, other.negative),
        ):
            for index, weight in theirs.items():
                mine[index] = mine.get(index, 0.0) + weight

    def scale(self, weight: float) -> None:
        """Lets each value count `weight` times."""
        self.count *= weight
        self.sum = saturated(self.sum * weight)
        self.zero *= weight
        self.positive = {index: found for index, one in self.positive.items() if (found := one * weight)}
        self.negative = {index: found for index, one in self.negative.items() if (found := one * weight)}

    def quantile(self, q: float) -> float:
        """The value at rank ceil(q * count), within 1.083 %; NaN when empty.

        The nearest-rank rule: of 12 values, p90 is the 11th; p100 is the largest and p0 the
        smallest. Results never leave [min, max].
        """
        if not self.count:
            return math.nan
        if q <= 0 or q >= 1:
            return self.max if q >= 1 else self.min
        rank = q * self.count * (1 - 1e-12)  # 0.07 * 100 is 7.000000000000001 and means 7
        seen = 0.0
        for value, weight in self.cells():
            seen += weight
            if seen >= rank:
                return min(max(value, self.min), self.max)
        return self.max

    def cells(self) -> list[tuple[float, float]]:
        """(representative value, weight) of every bin that is not empty, values ascending."""
        cells = [(-bin_middle(i), self.negative[i]) for i in sorted(self.negative, reverse=True)]
        if self.zero:
            cells.append((0.0, self.zero))
        cells.extend((bin_middle(i), self.positive[i]) for i in sorted(self.positive))
        return cells

    def encode(self) -> bytes:
        """The sketch as bytes; see the package's drawing."""
        weights = (self.zero, *self.positive.values(), *self.negative.values())
        fractional = max(weights) > _WHOLE or not all(map(float.is_integer, weights))
        flags, put, size = (_FRACTIONAL, _put_double, 8) if fractional else (0, _put_whole, 1)
        out = bytearray(_HEADER.pack(_VERSION, flags, self.count, self.sum, self.min, self.max))
        put(out, self.zero)
        for side, dense in zip((self.positive, self.negative), _DENSE, strict=True):
            if _put_bins(out, side, put, size):
                out[1] |= dense
        return bytes(out)

    @classmethod
    def decode(cls, blob: bytes) -> SketchInPython:
        """Reads what `encode` wrote; ValueError for anything else."""
        sketch = cls()
        try:
            version, flags, sketch.count, sketch.sum, *extremes = _HEADER.unpack_from(blob)
            if version != _VERSION or flags & ~_FLAGS:
                raise ValueError(f"sketch of version {version}, flags {flags}: not known here")
            if not (sketch.count >= 0 and math.isfinite(sketch.sum)) or any(map(math.isnan, extremes)):
                raise ValueError("sketch with a number out of range")
            sketch.min, sketch.max = extremes
            get = _get_double if flags & _FRACTIONAL else _get_whole
            sketch.zero, at = get(blob, _HEADER.size)
            for side, dense in zip((sketch.positive, sketch.negative), _DENSE, strict=True):
                at = (_get_dense if flags & dense else _get_sparse)(blob, at, side, get)
        except (struct.error, IndexError):
            raise ValueError("sketch cut short") from None
        if at != len(blob):
            raise ValueError("bytes after the end of a sketch")
        return sketch

    @classmethod
    def fold(
        cls, names: Sequence[bytes], blobs: Sequence[bytes], low: int, high: int, ratio: int
    ) -> tuple[dict[int, SketchInPython], list[tuple[bytes, str]]]:
        """Merges stored sketches slot by slot, those of `ratio` slots in a row into one.

        A name begins with the number of a slot, alone or with a colon behind it; those of slots outside
        [low, high) are left out. {slot // ratio: sketch}, ascending, and (name, what is wrong with it) of
        what is none.
        """
        found: dict[int, list[tuple[bytes, bytes]]] = {}
        bad: list[tuple[bytes, str]] = []
        for name, blob in zip(names, blobs, strict=True):
            digits = name.partition(b":")[0]
            if not digits.isdigit() or len(digits) > _DIGITS:
                bad.append((name, "sketch without a slot"))
            elif low <= (slot := int(digits)) < high:
                found.setdefault(slot // ratio, []).append((name, blob))
        merged: dict[int, SketchInPython] = {}
        for number, pairs in sorted(found.items()):
            for name, blob in pairs:
                try:
                    one = cls.decode(blob)
                except ValueError as error:
                    bad.append((name, str(error)))
                    continue
                if number in merged:
                    merged[number].merge(one)
                else:
                    merged[number] = one
        return merged, bad

    def __eq__(self, other: object) -> bool:
        return isinstance(other, SketchInPython) and self.encode() == other.encode()

    __hash__ = None  # type: ignore[assignment]  # mutable

    def __repr__(self) -> str:
        return f"Sketch(count={self.count}, sum={self.sum}, min={self.min}, max={self.max})"


def _fill(side: dict[int, float], ordered: list[float], start: int, weight: float) -> None:
    """Adds the positive, ascending values from `start` on to their bins."""
    end = len(ordered)
    slot = 0
    while start < end:
        slot = bisect_left(BOUNDS, ordered[start], slot)
        if slot >= _LAST:
            slot, stop = _LAST, end
        else:
            stop = bisect_right(ordered, BOUNDS[slot], start)
        index = slot + MIN_INDEX
        side[index] = side.get(index, 0.0) + weight * (stop - start)
        start = stop


# ---------------------------------------------------------------------- bytes

Put = Callable[[bytearray, float], None]  # appends a weight
Get = Callable[[bytes, int], tuple[float, int]]  # (weight at a place, the place behind it)


def _put_bins(out: bytearray, side: dict[int, float], put: Put, size: int) -> bool:
    """Appends the bins of one side in the shorter form; whether that is the dense one. `size`: of a 0."""
    indices = sorted(index for index in side if side[index])
    if not indices:
        out.append(0)
        return False
    gaps = [index - before for before, index in pairwise((MIN_INDEX, *indices))]
    length = indices[-1] - indices[0] + 1
    dense = _size(length) + _size(gaps[0]) + (length - len(indices)) * size
    sparse = _size(len(gaps)) + sum(map(_size, gaps))  # beside the weights, which both have
    if dense < sparse:
        _put_varint(out, length)
        _put_varint(out, gaps[0])
        for index in range(indices[0], indices[-1] + 1):
            put(out, side.get(index, 0.0))
        return True
    _put_varint(out, len(gaps))
    for gap, index in zip(gaps, indices, strict=True):
        _put_varint(out, gap)
        put(out, side[index])
    return False


def _get_sparse(blob: bytes, at: int, side: dict[int, float], get: Get) -> int:
    """Reads bins that have a gap each; where they end."""
    length, at = _get_varint(blob, at)
    index = MIN_INDEX
    for n in range(length):
        gap, at = _get_varint(blob, at)
        index += gap
        if index > MAX_INDEX or (n and not gap):
            raise ValueError("sketch with a bin out of order")
        weight, at = get(blob, at)
        if weight:
            side[index] = weight
    return at


def _get_dense(blob: bytes, at: int, side: dict[int, float], get: Get) -> int:
    """Reads bins in a row; where they end."""
    length, at = _get_varint(blob, at)
    first, at = _get_varint(blob, at)
    if first + length > len(BOUNDS):
        raise ValueError("sketch with a bin out of order")
    for index in range(MIN_INDEX + first, MIN_INDEX + first + length):
        weight, at = get(blob, at)
        if weight:
            side[index] = weight
    return at


def _size(number: int) -> int:
    """Bytes of the varint of a number below 2^14, as all about bins are."""
    return 1 if number < 0x80 else 2


def _put_varint(out: bytearray, number: int) -> None:
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)


def _put_whole(out: bytearray, weight: float) -> None:
    _put_varint(out, int(weight))


def _put_double(out: bytearray, weight: float) -> None:
    out += _DOUBLE.pack(weight)


def _get_varint(blob: bytes, at: int) -> tuple[int, int]:
    number = blob[at]
    if number < 0x80:
        return number, at + 1
    number &= 0x7F
    for n in range(1, _LONGEST_VARINT):
        byte = blob[at + n]
        number |= (byte & 0x7F) << 7 * n
        if byte < 0x80:
            return number, at + n + 1
    raise ValueError("sketch with a number out of range")


def _get_whole(blob: bytes, at: int) -> tuple[float, int]:
    number, at = _get_varint(blob, at)
    return float(number), at


def _get_double(blob: bytes, at: int) -> tuple[float, int]:
    (weight,) = _DOUBLE.unpack_from(blob, at)
    if not weight >= 0:
        raise ValueError("sketch with a number out of range")
    return weight, at + _DOUBLE.size
