"""The words of the domain: kinds, series, points, windows, events and checks.

A *series* is one kind of metric, one name and one set of tags. Its canonical text is the line that
would send it, without the value:

    api.latency|#env:prod,route:/pay          name, then the tags sorted and without duplicates

Names hold no "|" or ":", tags hold no "," or "|", so the text reads back without escaping; it is what
the store's keys carry. The kind is not part of the text: a counter and a gauge of one name are two
series, kept apart by the kind letter beside it.
"""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final, NamedTuple

from collector.sketch import Sketch

INT64_MAX: Final = 2**63 - 1
Number = int | float


class Kind(StrEnum):
    """What a series is; the value is the letter that keys and registry fields carry."""

    COUNTER = "c"
    GAUGE = "g"
    TIMER = "t"
    SET = "s"


_KINDS: Final = {kind.value: kind for kind in Kind}  # calling Kind costs five times as much


class GaugeMode(StrEnum):
    """What a sign before a gauge's value means: a move (etsy) or a negative number (DogStatsD)."""

    STATSD = "statsd"
    DOGSTATSD = "dogstatsd"


class Series:
    """One series. `key` is its canonical text with the kind letter in front, unique to it.

    A million of them may be held, so all else is read off the key when it is asked for.
    """

    __slots__ = ("key",)

    def __init__(self, kind: Kind, name: str, tags: Sequence[str] = ()) -> None:
        """`tags` are "key:value" or "key" texts; they are sorted and de-duplicated here."""
        self.key = f"{kind.value}{name}|#{','.join(sorted(set(tags)))}" if tags else kind.value + name

    @classmethod
    def from_key(cls, key: str) -> Series:
        """The series of a `key`, as the registry in the store holds it; KeyError if it is of no kind."""
        if key[:1] not in _KINDS:
            raise KeyError(key)
        series = cls.__new__(cls)
        series.key = key
        return series

    @property
    def kind(self) -> Kind:
        """What it is."""
        return _KINDS[self.key[0]]

    @property
    def name(self) -> str:
        """The name without the tags."""
        return self.key[1:].partition("|#")[0]

    @property
    def text(self) -> str:
        """The canonical text without the kind: "name" or "name|#tag,tag"."""
        return self.key[1:]

    @property
    def tags(self) -> tuple[str, ...]:
        """The tags, sorted."""
        tags = self.key[1:].partition("|#")[2]
        return tuple(tags.split(",")) if tags else ()

    def labels(self) -> dict[str, str]:
        """Tags as Prometheus labels: several values of one tag joined with "," in sorted order.

        DogStatsD tags are a set and may repeat a key; a label set may not.
        """
        labels: dict[str, str] = {}
        for tag in self.tags:
            name, _, value = tag.partition(":")
            labels[name] = f"{labels[name]},{value}" if name in labels else value
        return labels

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Series) and self.key == other.key

    def __hash__(self) -> int:
        return hash(self.key)

    def __repr__(self) -> str:
        return f"Series({self.key!r})"


class Window(NamedTuple):
    """A flush window: the wall-clock-aligned span [start, end) in whole seconds of Unix time."""

    start: int
    end: int


@dataclass(slots=True)
class CounterPoint:
    """The sum of a counter's increments in a window; an int while it fits 63 bits."""

    series: Series
    value: Number


@dataclass(slots=True)
class GaugePoint:
    """A gauge in a window: the last value set, or None, and the sum of the moves since.

    `at` is when the last of them arrived, in milliseconds of Unix time.
    """

    series: Series
    value: Number | None
    move: Number
    at: int


@dataclass(slots=True)
class TimerPoint:
    """A timer in a window: the sketch of all values and the newest raw samples, oldest first.

    The sketch is held as it is stored, for nothing between the engine and the store looks into it.
    """

    series: Series
    encoded: bytes
    samples: array[float] = field(default_factory=lambda: array("d"))

    @property
    def sketch(self) -> Sketch:
        """The sketch, read anew each time."""
        return Sketch.decode(self.encoded)


@dataclass(slots=True)
class SetPoint:
    """The distinct members that a set saw in a window, or a part of them (see `set_members`)."""

    series: Series
    members: list[bytes]


Point = CounterPoint | GaugePoint | TimerPoint | SetPoint


@dataclass(frozen=True, slots=True)
class Event:
    """A DogStatsD event; `at` is in seconds of Unix time, None when the client gave none."""

    title: str
    text: str
    at: int | None = None
    host: str = ""
    aggregation_key: str = ""
    priority: str = "normal"
    source: str = ""
    alert: str = "info"
    tags: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Check:
    """A DogStatsD service check; `status` is 0 ok, 1 warning, 2 critical, 3 unknown."""

    name: str
    status: int
    at: int | None = None
    host: str = ""
    message: str = ""
    tags: tuple[str, ...] = ()


def clamp_integer(value: Number) -> Number:
    """An integer as it is up to 2^63, beyond it the nearest double: what the store can add to."""
    return value if isinstance(value, float) or abs(value) <= INT64_MAX else float(value)
