"""Rules: what becomes of which series.

A rule file has one list so far:

    series:
      - match: "api.*"          # the name; * is any run of characters, ? is one
        type: timer             # counter, gauge, timer or set; any when left out
        retain: {10s: 6h, 1m: 7d}
        samples: 1000

Each key below `type` is an action. Of the rules that match a series, the first that has an action decides
about it, so what is special stands before what is general.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Annotated, Any, Final

import re2
from annotated_types import Ge, Le

from collector.model import Kind, Series
from collector.retention import SET_SECONDS, Ladder, RetentionSettings, chain_fault

_LONGEST_GLOB: Final = 500


class KindWord(StrEnum):
    """The kinds as a rule names them."""

    COUNTER = "counter"
    GAUGE = "gauge"
    TIMER = "timer"
    SET = "set"

    @property
    def kind(self) -> Kind:
        """The kind that is meant."""
        return Kind[self.name]


@dataclass(frozen=True, slots=True)
class Glob:
    """A pattern of names: * is any run of characters, ? is one, all else is itself."""

    text: str

    @classmethod
    def parse(cls, text: object) -> Glob:
        """ValueError for what is no pattern."""
        if isinstance(text, cls):
            return text
        if not isinstance(text, str) or not 0 < len(text) <= _LONGEST_GLOB:
            raise ValueError('not a pattern of names: write it like "api.*"')
        return cls(text)

    @property
    def expression(self) -> str:
        """The same as a regular expression."""
        parts = {"*": ".*", "?": "."}
        return "(?s)" + "".join(parts.get(one) or re.escape(one) for one in self.text)

    def __str__(self) -> str:
        return self.text

    @classmethod
    def __get_pydantic_core_schema__(cls, source: object, handler: object) -> dict[str, Any]:
        schema = {"type": "string", "examples": ["api.*"]}
        return {
            "type": "function-plain",
            "function": {"type": "no-info", "function": cls.parse},
            "serialization": {"type": "to-string"},
            "metadata": {"pydantic_js_functions": [lambda _schema, _handler: dict(schema)]},
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class SeriesRule:
    """Which series, and what becomes of them."""

    __pydantic_config__ = {"extra": "forbid", "use_attribute_docstrings": True}  # noqa: RUF012

    match: Glob
    """Names that it is about."""
    type: KindWord | None = None
    """The kind that it is about: counter, gauge, timer or set; any when left out."""
    retain: Ladder | None = None
    """Resolutions and how long each is kept."""
    samples: Annotated[int, Ge(1), Le(100_000)] | None = None
    """Newest raw samples of a timer that the store keeps."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RuleFile:
    """What a rule file holds."""

    __pydantic_config__ = {"extra": "forbid", "use_attribute_docstrings": True}  # noqa: RUF012

    series: tuple[SeriesRule, ...] = ()
    """What becomes of series: the first rule that matches and has an action decides about it."""


class _Matcher:
    """A rule made ready: its pattern, the ladders of the kinds that it is about, its samples of timers."""

    def __init__(self, rule: SeriesRule, finest: Mapping[Kind, int]) -> None:
        kinds = Kind if rule.type is None else (rule.type.kind,)
        self._pattern: Any = re2.compile(rule.match.expression)
        self.ladders = {kind: rule.retain.fitted(finest[kind]) for kind in kinds} if rule.retain else {}
        self.samples = rule.samples if Kind.TIMER in kinds else None

    def matches(self, series: Series) -> bool:
        """Whether it is about a name."""
        return self._pattern.fullmatch(series.name) is not None


class Retention:
    """How long each series is kept at which resolutions, and how many raw samples are kept.

    All series of a kind are rolled up along one `chain`, the resolutions of all ladders of that kind; a
    series' own ladder says how long it is kept at each, which is until the next roll-up where it has no such
    rung. So a rule that changes changes lives, and never what a slot is summed up from.
    """

    def __init__(
        self, settings: RetentionSettings, resolution: int, rules: Sequence[SeriesRule] = ()
    ) -> None:
        """`resolution`, in seconds, is what is written of all but sets."""
        self._finest = {kind: SET_SECONDS if kind is Kind.SET else resolution for kind in Kind}
        self._defaults = {kind: settings.of(kind).fitted(self._finest[kind]) for kind in Kind}
        self._rules = [_Matcher(rule, self._finest) for rule in rules if rule.retain or rule.samples]
        self.chains: Mapping[Kind, tuple[int, ...]] = {kind: self._chain(kind) for kind in Kind}

    def ladders(self, kind: Kind) -> list[Ladder]:
        """All ladders that series of a kind may have, the default first."""
        named = [one.ladders[kind] for one in self._rules if kind in one.ladders]
        return [self._defaults[kind], *named]

    def _chain(self, kind: Kind) -> tuple[int, ...]:
        return tuple(sorted({rung.resolution for one in self.ladders(kind) for rung in one.rungs}))

    @property
    def resolutions(self) -> frozenset[int]:
        """All resolutions of all kinds, in seconds."""
        return frozenset(one for chain in self.chains.values() for one in chain)

    def fault(self, kind: Kind) -> str:
        """Why the ladders of a kind do not go together, with the remedy; or ""."""
        return chain_fault(self.chains[kind])

    def ladder(self, series: Series) -> Ladder:
        """The ladder of a series."""
        kind = series.kind
        for one in self._rules:
            if kind in one.ladders and one.matches(series):
                return one.ladders[kind]
        return self._defaults[kind]

    def samples(self, series: Series) -> int | None:
        """How many raw samples a rule keeps of a timer."""
        for one in self._rules:
            if one.samples and one.matches(series):
                return one.samples
        return None

    def written_life(self, series: Series, least: int) -> int:
        """Seconds that what is written of a series lives; `least` when a roll-up will say otherwise."""
        life = self.ladder(series).rungs[0].life
        return life if len(self.chains[series.kind]) == 1 else max(least, life)

    def longest(self, kind: Kind) -> int:
        """Seconds until nothing is left of any series of a kind."""
        return max(one.longest for one in self.ladders(kind))

    def life(self, kind: Kind, resolution: int) -> int:
        """The longest life that a resolution has in any ladder of a kind, in seconds."""
        return max(one.life(resolution) for one in self.ladders(kind))
