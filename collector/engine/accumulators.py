"""What one series gathers in one window. Each becomes the series' point when the window is read out.

The hot loop of the engine writes into the attributes marked "hot" directly; everything else goes through
`add`.
"""

from __future__ import annotations

import math
from array import array
from collections.abc import Sequence

from collector.model import (
    CounterPoint,
    GaugePoint,
    Kind,
    Number,
    Series,
    SetPoint,
    TimerPoint,
    clamp_integer,
)
from collector.sketch import UNITS, Sketch, finite_sum, in_units, rounded, saturated
from collector.statsd.lines import Move, Value


class CounterAccumulator:
    """Increments are summed without any rounding, for each weight apart; they are weighed, and rounded once,
    at the end. So neither the order nor the grouping in which they came shows.

    hot: each head that means this series has a running total in a table of its own; `heads` lists
    (weight, table, name).
    """

    __slots__ = ("_fractions", "_whole", "heads", "series")

    def __init__(self, series: Series) -> None:
        self.series = series
        self._whole: dict[float, int] = {}
        self._fractions: dict[float, int] = {}  # in units of 2^-1074
        self.heads: list[tuple[float, dict[str, int], str]] = []

    def add(self, value: Value, weight: float, at: int) -> None:
        """Adds one increment, 1/rate times."""
        if isinstance(value, int):
            self._whole[weight] = self._whole.get(weight, 0) + value
        else:
            assert isinstance(value, float)
            self._fractions[weight] = self._fractions.get(weight, 0) + in_units(value)

    def point(self) -> CounterPoint:
        """The sum of everything: exact below 2^63 unless fractions came."""
        for weight, totals, name in self.heads:
            self.add(totals[name], weight, 0)
        if not self._fractions and all(weight.is_integer() for weight in self._whole):
            whole = sum(value * int(weight) for weight, value in self._whole.items())
            return CounterPoint(self.series, clamp_integer(whole))
        total = sum((value << UNITS) * in_units(weight) for weight, value in self._whole.items())
        total += sum(units * in_units(weight) for weight, units in self._fractions.items())
        return CounterPoint(self.series, rounded(total, 2 * UNITS))


class GaugeAccumulator:
    """The last value set and the moves since. hot: all three."""

    __slots__ = ("at", "move", "series", "value")

    def __init__(self, series: Series) -> None:
        self.series = series
        self.value: Number | None = None
        self.move: Number = 0
        self.at = 0

    def add(self, value: Value, weight: float, at: int) -> None:
        """Sets or moves; `at` is in milliseconds."""
        if isinstance(value, Move):
            self.move = _finite(self.move + value.by)
        else:
            assert isinstance(value, int | float)
            self.value = value
            self.move = 0
        self.at = at

    def point(self) -> GaugePoint:
        """A set with its moves applied, or the moves alone."""
        value = self.value
        if value is None:
            return GaugePoint(self.series, None, clamp_integer(self.move), self.at)
        return GaugePoint(self.series, clamp_integer(_finite(value + self.move)), 0, self.at)


class TimerAccumulator:
    """Samples by weight. hot: the list of each weight.

    Each weight has a sketch in which a sample counts once, and the sum of its samples without any rounding:
    how often they were folded does not show.
    """

    __slots__ = ("_raw", "_sketches", "_sums", "newest", "series")

    def __init__(self, series: Series) -> None:
        self.series = series
        self._raw: dict[float, list[Number]] = {}
        self._sketches: dict[float, Sketch] = {}
        self._sums: dict[float, int] = {}  # in units of 2^-1074
        self.newest = array("d")

    def raw(self, weight: float) -> list[Number]:
        """Where samples of one weight are appended."""
        return self._raw.setdefault(weight, [])

    def add(self, value: Value, weight: float, at: int) -> None:
        """Adds one sample, which counts 1/rate times."""
        assert isinstance(value, int | float)
        self.raw(weight).append(float(value))  # as the sketch compares: an integer of 19 digits would not

    @property
    def unfolded(self) -> int:
        """How many raw samples are not in the sketch yet."""
        return sum(map(len, self._raw.values()))

    def fold(self, keep: int) -> int:
        """Moves the samples into the sketch, keeping the newest raw; how many no longer are."""
        before = len(self.newest)
        for weight, values in self._raw.items():
            if not values:
                continue
            self._sketches.setdefault(weight, Sketch()).add(values)
            self._sums[weight] = self._sums.get(weight, 0) + _exact_sum(values)
            before += len(values)
            self.newest.extend(values[max(0, len(values) - keep) :])
            values.clear()
        excess = len(self.newest) - keep
        if excess > 0:
            del self.newest[:excess]
        return before - len(self.newest)

    def point(self) -> TimerPoint:
        """The sketch of all samples, and the newest of them; `fold` comes first."""
        for weight, sketch in self._sketches.items():
            sketch.sum = rounded(self._sums[weight], UNITS)
        return TimerPoint(self.series, weighed(self._sketches).encode(), self.newest)


class SetAccumulator:
    """Distinct members, as latin-1 views of their bytes. hot: `members`."""

    __slots__ = ("members", "series")

    def __init__(self, series: Series) -> None:
        self.series = series
        self.members: set[str] = set()

    def add(self, value: Value, weight: float, at: int) -> None:
        """Adds one member."""
        assert isinstance(value, bytes)
        self.members.add(value.decode("latin-1"))

    def point(self) -> SetPoint:
        """The members seen since the last time this was asked."""
        members = [member.encode("latin-1") for member in self.members]
        self.members.clear()
        return SetPoint(self.series, members)


def weighed(sketches: dict[float, Sketch]) -> Sketch:
    """The sketch of samples of several weights, of which each has one in `sketches` where it counts once.

    It takes them over. The sum of each weight is rounded before it is weighed, and once more that of all.
    """
    for weight, sketch in sketches.items():
        if weight != 1.0:
            sketch.scale(weight)
    merged, *others = (sketches[weight] for weight in sorted(sketches))  # doubles add up by their order
    if others:
        total = finite_sum([merged.sum, *(other.sum for other in others)])
        for other in others:
            merged.merge(other)
        merged.sum = total
    return merged


def _finite(value: Number) -> Number:
    return saturated(value) if isinstance(value, float) else value


def _exact_sum(values: Sequence[float]) -> int:
    """The sum of finite numbers in units of 2^-1074.

    What is left of the values without their rounded sum is summed again, until nothing is: few rounds, and
    each costs a small part of turning every value into units.
    """
    total = 0
    rest = list(values)
    try:
        while part := math.fsum(rest):
            total += in_units(part)
            rest.append(-part)
    except OverflowError:
        return sum(map(in_units, values))
    return total


Accumulator = CounterAccumulator | GaugeAccumulator | TimerAccumulator | SetAccumulator


def accumulator(series: Series) -> Accumulator:
    """An empty accumulator for the kind of a series."""
    match series.kind:
        case Kind.COUNTER:
            return CounterAccumulator(series)
        case Kind.GAUGE:
            return GaugeAccumulator(series)
        case Kind.TIMER:
            return TimerAccumulator(series)
        case Kind.SET:
            return SetAccumulator(series)
