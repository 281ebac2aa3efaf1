"""What one series gathers in one window. Each becomes the series' point when the window is read out.

The hot loop of the engine writes into the attributes marked "hot" directly; everything else goes through
`add`.
"""

from __future__ import annotations

from array import array
from typing import Final

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
from collector.sketch import Sketch, finite_sum, saturated
from collector.statsd.lines import Move, Value

_MANY: Final = 4096  # fractions held one by one


class CounterAccumulator:
    """Whole increments are summed as integers, fractions aside, so that neither blurs the other.

    The sum of the fractions is the rounded sum of them all: when many have come, they become that sum and
    what its rounding left.

    hot: each head that means this series has a running total in a table of its own; `heads` lists
    (weight, table, name).
    """

    __slots__ = ("fractions", "heads", "series", "whole")

    def __init__(self, series: Series) -> None:
        self.series = series
        self.whole = 0
        self.fractions: list[float] = []
        self.heads: list[tuple[float, dict[str, int], str]] = []

    def add(self, value: Value, weight: float, at: int) -> None:
        """Adds one increment, 1/rate times."""
        assert isinstance(value, int | float)
        if isinstance(value, int) and weight.is_integer():
            self.whole += value * int(weight)
        else:
            self.fractions.append(saturated(value * weight))
            if len(self.fractions) > _MANY:
                total = finite_sum(self.fractions)
                self.fractions = [total, finite_sum([*self.fractions, -total])]

    def point(self) -> CounterPoint:
        """The sum of everything: exact below 2^63 unless fractions came."""
        for weight, totals, name in self.heads:
            self.add(totals[name], weight, 0)
        if not self.fractions:
            return CounterPoint(self.series, clamp_integer(self.whole))
        near = float(self.whole)
        rest = float(self.whole - int(near))  # what a double does not hold of a large integer
        return CounterPoint(self.series, finite_sum([near, rest, *self.fractions]))


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
    """Samples by weight. hot: the list of each weight."""

    __slots__ = ("_raw", "newest", "series", "sketch")

    def __init__(self, series: Series) -> None:
        self.series = series
        self._raw: dict[float, list[Number]] = {}
        self.sketch = Sketch()
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
            self.sketch.add(values, weight)
            before += len(values)
            self.newest.extend(values[max(0, len(values) - keep) :])
            values.clear()
        excess = len(self.newest) - keep
        if excess > 0:
            del self.newest[:excess]
        return before - len(self.newest)

    def point(self) -> TimerPoint:
        """The sketch of all samples, and the newest of them; `fold` comes first."""
        return TimerPoint(self.series, self.sketch.encode(), self.newest)


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


def _finite(value: Number) -> Number:
    return saturated(value) if isinstance(value, float) else value


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
