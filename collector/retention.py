"""Ladders: at which resolutions a series is kept, and how long at each.

    10s: 6h     what is written: one slot every 10 s, kept for 6 hours
    1m: 48h     rolled up from the rung above it
    1h: 90d     and so on; each rung is coarser and kept longer

A chunk is 120 slots (see `collector.store.keys`), and a slot is rolled up out of one chunk of the finer
rung, so a rung is at most 120 times as coarse as the one before it, by a number that divides 120. Lives
count from a chunk's end: the oldest data of a rung may be there for a chunk longer.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Final

from collector.model import Kind
from collector.units import parse_duration

SLOTS: Final = 120  # slots of one chunk, which keeps a hash of numbers a listpack
LIVE: Final = (
    7 * 86400
)  # seconds that a chunk waits to be rolled up, at least; so in batch.lua and compact.lua
SET_SECONDS: Final = 60  # what one HyperLogLog of a set covers; no finer one is kept

# Bytes in the store, measured on Valkey 9.1: of a point, and of a key with its name and expiry. The sketch of
# a timer with two samples a second, which spread over a factor of ten, takes 73 bytes for 10 s, 136 for a
# minute and 203 for an hour; with its field 105, 142 and 211. Half the slots of the default ladder are hours.
_POINT: Final = {Kind.COUNTER: 6.0, Kind.GAUGE: 8.0, Kind.TIMER: 170.0, Kind.SET: 12_304.0}
_KEY: Final = 160


@dataclass(frozen=True, slots=True)
class Rung:
    """One resolution and how long it is kept, both in seconds."""

    resolution: int
    life: int


@dataclass(frozen=True, slots=True)
class Ladder:
    """Rungs, the finest first."""

    rungs: tuple[Rung, ...]

    @classmethod
    def parse(cls, value: object) -> Ladder:
        """Reads {"10s": "6h", "1m": "48h"}; ValueError with a remedy otherwise."""
        if isinstance(value, cls):
            return value
        if not isinstance(value, Mapping) or not value:
            raise ValueError("a ladder maps resolutions to lives: write it like {10s: 6h, 1m: 48h}")
        ladder = cls(tuple(Rung(_whole(res), _whole(life)) for res, life in value.items()))
        ladder._check()
        return ladder

    def _check(self) -> None:
        for rung in self.rungs:
            if rung.life < rung.resolution:
                raise ValueError(f"{_shown(rung)} is kept for less than one slot: keep it longer")
        for finer, coarser in pairwise(self.rungs):
            if coarser.resolution <= finer.resolution:
                raise ValueError(f"{_shown(coarser)} stands behind {_shown(finer)}: write the finest first")
            if coarser.life <= finer.life:
                raise ValueError(
                    f"{_shown(coarser)} is kept no longer than {_shown(finer)}: raise it, or leave it out"
                )
        if fault := chain_fault([rung.resolution for rung in self.rungs]):
            raise ValueError(fault)

    def written(self) -> dict[str, str]:
        """As `parse` reads it."""
        return {_text(rung.resolution): _text(rung.life) for rung in self.rungs}

    def fitted(self, finest: int) -> Ladder:
        """The ladder that begins with what is written, one slot every `finest` seconds.

        Rungs at its start that are no multiple of that cannot be had: the longest of their lives becomes that
        of the finest there is. Before a ladder that begins coarser stands what it is rolled up from, kept for
        one chunk.
        """
        coarser = self.rungs
        while coarser and (coarser[0].resolution % finest or coarser[0].resolution == finest):
            coarser = coarser[1:]
        lives = [rung.life for rung in self.rungs[: len(self.rungs) - len(coarser)]]
        life = max(lives, default=min(finest * SLOTS, coarser[0].life if coarser else finest * SLOTS))
        return Ladder((Rung(finest, life), *coarser))

    def life(self, resolution: int) -> int:
        """Seconds that slots of a resolution are kept, 0 when it is no rung of this ladder."""
        return next((rung.life for rung in self.rungs if rung.resolution == resolution), 0)

    @property
    def longest(self) -> int:
        """Seconds until nothing is left."""
        return self.rungs[-1].life

    def bytes(self, kind: Kind) -> int:
        """What a series takes in the store when each of its slots is filled, about."""
        slots = sum(rung.life / rung.resolution for rung in self.rungs)
        keys = slots if kind is Kind.SET else slots / SLOTS + len(self.rungs)
        return round(slots * _POINT[kind] + keys * _KEY)

    def __str__(self) -> str:
        return " ".join(f"{resolution}:{life}" for resolution, life in self.written().items())

    @classmethod
    def __get_pydantic_core_schema__(cls, source: object, handler: object) -> dict[str, Any]:
        life = {"anyOf": [{"type": "string"}, {"type": "number"}]}
        schema = {"type": "object", "additionalProperties": life, "examples": [{"10s": "6h", "1m": "48h"}]}
        return {
            "type": "function-plain",
            "function": {"type": "no-info", "function": cls.parse},
            "serialization": {"type": "function-plain", "function": cls.written},
            "metadata": {"pydantic_js_functions": [lambda _schema, _handler: dict(schema)]},
        }


def chain_fault(resolutions: Iterable[int]) -> str:
    """Why resolutions, the finest first, cannot be rolled up one from the other, with the remedy; or ""."""
    chain = list(resolutions)
    for finer, coarser in pairwise(chain):
        fine, coarse = _text(finer), _text(coarser)
        if coarser % finer:
            return f"{coarse} is no multiple of {fine}: try {_text(-(-coarser // finer) * finer)}"
        if SLOTS % (coarser // finer):
            between = next((one for one in range(finer + 1, coarser) if _fits(finer, one, coarser)), 0)
            remedy = f"put {_text(between)} between them" if between else "try another one"
            return f"{coarse} is {coarser // finer} times {fine}, which does not divide {SLOTS}: {remedy}"
    return ""


def _text(seconds: int) -> str:
    """As people write it: 90d, where the shortest text would be 12w6d."""
    units = (("d", 86400), ("h", 3600), ("m", 60))
    return next((f"{seconds // span}{unit}" for unit, span in units if seconds % span == 0), f"{seconds}s")


def _fits(*chain: int) -> bool:
    pairs = pairwise(chain)
    return all(coarser % finer == 0 and SLOTS % (coarser // finer) == 0 for finer, coarser in pairs)


def _whole(text: object) -> int:
    seconds = parse_duration(text)
    if seconds < 1 or seconds != int(seconds):
        raise ValueError(f'"{text}" is not whole seconds: write it like "10s", "48h" or "90d"')
    return int(seconds)


def _shown(rung: Rung) -> str:
    return f"{_text(rung.resolution)}: {_text(rung.life)}"


_NUMBERS: Final = Ladder.parse({"10s": "6h", "1m": "48h", "1h": "90d"})
_SKETCHES: Final = Ladder.parse({"10s": "1h", "1m": "6h", "1h": "30d"})
_SETS: Final = Ladder.parse({"1m": "6h", "1h": "30d"})


@dataclass(frozen=True, slots=True, kw_only=True)
class RetentionSettings:
    """How long what is stored, by kind: resolutions and how long each is kept, the finest first. A coarser
    one is a multiple of the finer by a number that divides 120, and is kept longer. Rules change it for
    some series. It can be changed at any time: what is stored stays, and is read as it is."""

    __pydantic_config__ = {"extra": "forbid", "use_attribute_docstrings": True}  # noqa: RUF012

    counters: Ladder = _NUMBERS
    """Increments of counters. A busy series takes some 50 kB with the default, 6 bytes a point. Rungs at the
    start that are no multiple of `flush_interval` give their life to that; before a ladder that begins
    coarser, the flush interval is kept until it is rolled up."""
    gauges: Ladder = _NUMBERS
    """Values of gauges: of a coarser slot the last one. Some 60 kB a series."""
    timers: Ladder = _SKETCHES
    """Sketches of timers. They are large, some 250 kB a busy series; longer lives cost that much more."""
    sets: Ladder = _SETS
    """Distinct members of sets: a minute is the finest. Up to 12 kB for each slot."""

    def of(self, kind: Kind) -> Ladder:
        """The ladder of a kind."""
        return {
            Kind.COUNTER: self.counters,
            Kind.GAUGE: self.gauges,
            Kind.TIMER: self.timers,
            Kind.SET: self.sets,
        }[kind]
