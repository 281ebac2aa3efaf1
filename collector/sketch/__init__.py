"""The quantile sketch: counts in bins whose bounds grow by a factor of 2^(1/32).

Bin i holds the values x with  2^(i/32) < x <= 2^((i+1)/32), so that

    i = ceil(log2(x) * 32) - 1

which is OpenTelemetry's exponential histogram at scale 5 and a DDSketch (Masson, Rim, Lee, VLDB 2019)
with gamma = 2^(1/32). A quantile is answered with the bin's harmonic middle 2ab/(a+b), whose relative
error is at most (gamma-1)/(gamma+1) = 1.083 % whatever the distribution, and two sketches merge by
adding their counts: no error is added by merging, over time or over nodes.

Negative values have bins of their own, by magnitude; zero has one. Magnitudes are clamped to
[2^-40, 2^64]: from a picosecond to five hundred billion years if the unit is the second.

As bytes (`encode`), little-endian:

    u8 version | u8 flags | f64 count | f64 sum | f64 min | f64 max | zero | positive | negative
                   |                                                  |       |
                   |   zero: one weight             bins, in the shorter form <-'
                   |
                   +-> 1: weights are f64; else varints, for all are whole numbers up to 2^53
                       2: the positive bins are dense     4: the negative ones

    sparse   varint n, then n times (varint gap, weight)     gap: distance to the bin before
    dense    varint n, varint first, then n weights          of n bins in a row; 0 for an empty one

The first gap, and `first`, count from MIN_INDEX. Of two forms of the same length the sparse one is taken. A
varint has at most nine bytes of seven bits, the lowest first; all but the last have their upper bit set.
"""

from __future__ import annotations

from collector.sketch.bins import (
    BOUNDS,
    LARGEST,
    MAX_INDEX,
    MIN_INDEX,
    RELATIVE_ERROR,
    SCALE,
    UNITS,
    bin_bounds,
    bin_index,
    bin_middle,
    finite_sum,
    in_units,
    rounded,
    saturated,
)
from collector.sketch.pure import SketchInPython

__all__ = [
    "BOUNDS",
    "LARGEST",
    "MAX_INDEX",
    "MIN_INDEX",
    "RELATIVE_ERROR",
    "SCALE",
    "UNITS",
    "Sketch",
    "SketchInPython",
    "bin_bounds",
    "bin_index",
    "bin_middle",
    "finite_sum",
    "in_units",
    "rounded",
    "saturated",
]

try:
    from collector.sketch._compiled import Sketch
except ImportError:  # not built in this installation
    Sketch = SketchInPython  # type: ignore[assignment,misc]
