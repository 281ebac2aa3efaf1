"""Heads to series: the grammar, the tags and the limits on cardinality, asked once per head.

What a head resolves to, a refusal included, is remembered under (profile, name, tail). Several heads
may mean one series: another order of tags, a trailing "\r", a container field that is not kept.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from collector.engine.generations import Generations
from collector.engine.interface import Limits
from collector.model import Series
from collector.statsd.lines import Head, Profile, parse_head
from collector.statsd.refusal import Refusal

HeadKey = tuple[int, str, str]  # profile, name, tail; texts are latin-1 views of the bytes


@dataclass(frozen=True, slots=True)
class Resolved:
    """What the values of a head are added to. `odd` are the oddities that each line counts."""

    series: Series
    weight: float
    odd: tuple[str, ...]


class HeadTable:
    """Resolves heads and knows all series."""

    def __init__(self, limits: Limits, limit_hits: Counter[str]) -> None:
        self._limits = limits
        self._hits = limit_hits
        self._heads: Generations[HeadKey, Resolved | Refusal] = Generations()
        self._series: Generations[str, Series] = Generations()
        self._by_metric: Counter[str] = Counter()

    @property
    def series(self) -> int:
        """How many series are known."""
        return len(self._series)

    @property
    def heads(self) -> int:
        """How many heads are remembered."""
        return len(self._heads)

    def resolve(self, key: HeadKey, profile: Profile) -> Resolved | Refusal | None:
        """What a head means; None where the line must be read whole."""
        known = self._heads.get(key)
        if known is not None:
            if isinstance(known, Resolved):
                self._series.get(known.series.key)  # keeps it from being forgotten
            return known
        try:
            head = parse_head(key[1].encode("latin-1"), key[2].encode("latin-1"), profile)
            if head is None:
                return None
            found: Resolved | Refusal = self.of(head)
        except Refusal as refusal:
            if refusal.reason == "cardinality":
                return refusal  # room may come again: not to be remembered
            found = refusal.shifted(0)  # a copy: it is kept, and this one holds the frames it passed
        if len(self._heads) < self._limits.heads:
            self._heads[key] = found
        else:
            self._hits["heads"] += 1
        return found

    def of(self, head: Head) -> Resolved:
        """The series of a head that was read; Refusal when a limit is in the way."""
        if len(head.tags) > self._limits.tags:
            tags = f"{len(head.tags)} tags, the limit is {self._limits.tags}"
            raise Refusal("too_long", 0, tags, limit="tags")
        series = self._intern(Series(head.kind, head.name, head.tags))
        return Resolved(series, head.weight, tuple(head.odd))

    def _intern(self, series: Series) -> Series:
        known = self._series.get(series.key)
        if known is not None:
            return known
        if len(self._series) >= self._limits.series:
            raise self.full()
        metric = _metric(series)
        if self._by_metric[metric] >= self._limits.series_per_metric:
            raise self.metric_full()
        self._by_metric[metric] += 1
        self._series[series.key] = series
        return series

    def full(self) -> Refusal:
        """Why a new series is refused: there are too many."""
        return Refusal("cardinality", 0, f"limit of {self._limits.series} series", limit="series")

    def metric_full(self) -> Refusal:
        """Why a new series is refused: there are too many of its metric."""
        found = f"limit of {self._limits.series_per_metric} series of one metric"
        return Refusal("cardinality", 0, found, limit="series_per_metric")

    def turn(self) -> None:
        """Forgets the heads and series that were not used since the turn before the last."""
        self._heads.turn()
        for series in self._series.turn().values():
            metric = _metric(series)
            self._by_metric[metric] -= 1
            if not self._by_metric[metric]:
                del self._by_metric[metric]


def _metric(series: Series) -> str:
    return series.kind + series.name
