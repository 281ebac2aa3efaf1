"""Heads and whole metric lines.

A line's *head* is all of it but the value:

    api.latency:231|ms|@0.1|#route:/pay
    ^^^^^^^^^^^     ^^^^^^^^^^^^^^^^^^^
    name            tail

The same head arrives again and again with other values, so the engines read each head once, through
`parse_head`, and a value by itself. What cannot be a head is read whole by `parse_line`: several bits
in one line, and a timestamp, which is new each time.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final

from collector.model import GaugeMode, Kind, Number
from collector.statsd.names import (
    Dialect,
    Name,
    Naming,
    clean_tag,
    parse_name,
    parse_tags,
    with_defaults,
)
from collector.statsd.numbers import is_signed, parse_number, parse_rate, shown, weight_of
from collector.statsd.refusal import Refusal

_TYPES: Final = {
    b"c": Kind.COUNTER,
    b"g": Kind.GAUGE,
    b"ms": Kind.TIMER,
    b"h": Kind.TIMER,
    b"d": Kind.TIMER,
    b"s": Kind.SET,
}
_METER: Final = b"m"
_LONGEST_TIMESTAMP: Final = 12  # digits: the year 33658


@dataclass(frozen=True, slots=True, kw_only=True)
class Profile:
    """How one listener reads lines.

    `prefix` goes before each name as it is. `tags` are added to each line; where a line has a tag of that
    key itself, its own one counts.
    """

    gauges: GaugeMode = GaugeMode.STATSD
    dialects: frozenset[Dialect] = frozenset()
    naming: Naming = Naming.SANITISE
    meters: bool = False
    bare_names: bool = False
    keep_container: bool = False
    prefix: str = ""
    tags: tuple[str, ...] = ()
    min_sample_rate: float = 1e-9
    longest_name: int = 256
    longest_line: int = 8192


@dataclass(slots=True)
class Head:
    """What a head says of its values. `weight` is 1/rate, and 1 for gauges and sets."""

    name: str
    kind: Kind
    weight: float
    tags: list[str]
    odd: list[str] = field(default_factory=list)
    timestamp: int | None = None


@dataclass(frozen=True, slots=True)
class Move:
    """A signed gauge value in `statsd` mode: what it moves by."""

    by: Number


Value = Number | Move | bytes


@dataclass(slots=True)
class Bit:
    """Some values of one type in a line: all but one line in a thousand is a single bit."""

    head: Head
    values: list[Value]


@dataclass(slots=True)
class Line:
    """A line as read: its good bits, and a refusal for each bad part."""

    bits: list[Bit] = field(default_factory=list)
    refusals: list[Refusal] = field(default_factory=list)


def parse_head(name: bytes, tail: bytes, profile: Profile) -> Head | None:
    """The head of the lines `name ":" value "|" tail`, or None where it takes the whole line.

    Refusal when no value could make the line good; its offset is that in a line of an empty value.
    """
    tail = tail.removesuffix(b"\r")
    if _end_of_bit(tail) is not None:
        return None
    read = _name(name, profile)
    kind, fields = _tail(tail, len(name) + 2, profile)
    if fields.refusal is not None:
        raise fields.refusal
    if fields.timestamp is not None:
        return None
    return _head(read, kind, fields, profile)


def parse_line(line: bytes, profile: Profile) -> Line:
    """A metric line, without its LF, read whole. Never raises."""
    parsed = Line()
    try:
        if len(line) > profile.longest_line:
            raise Refusal("too_long", profile.longest_line, f"a line of {len(line)} bytes", limit="line")
        line = line.removesuffix(b"\r")
        colon, pipe = line.find(b":"), line.find(b"|")
        if colon < 0 or 0 <= pipe < colon:
            if colon < 0 and pipe < 0 and profile.bare_names:
                line, colon = line + b":1|c", len(line)
            else:
                raise Refusal("empty_name" if pipe == 0 else "no_value", max(pipe, 0))
        _bits(line, colon + 1, _name(line[:colon], profile), profile, parsed)
    except Refusal as refusal:
        parsed.refusals.append(refusal)
    return parsed


def _name(raw: bytes, profile: Profile) -> Name:
    read = parse_name(
        raw,
        longest=profile.longest_name,
        naming=profile.naming,
        dialects=profile.dialects,
    )
    return read._replace(text=profile.prefix + read.text) if profile.prefix else read


def _bits(line: bytes, at: int, name: Name, profile: Profile, parsed: Line) -> None:
    """Reads the bits from offset `at`; what follows the last one belongs to all of them.

    a:1|c|@0.1:20|ms|#t:1
      ^ value
        ^ token: the type, up to "|", ":" or the end
          ^^^^ a rate that ends in ":" closes the bit as a type does
               ^^ the last bit; its tail gives the tags of all
    """
    raw: list[tuple[int, int, bytes]] = []  # value from, value to, tail
    while True:
        pipe = line.find(b"|", at)
        if pipe < 0:
            empty = at == len(line)
            parsed.refusals.append(Refusal("empty_value" if empty else "no_type", len(line)))
            break
        tail = line[pipe + 1 :]
        cut = _end_of_bit(tail)
        raw.append((at, pipe, tail if cut is None else tail[:cut]))
        if cut is None:
            break
        at = pipe + 1 + cut + 1
    parsed.refusals.extend(_read_bits(line, raw, name, profile, parsed))
    parsed.refusals.sort(key=lambda refusal: refusal.at)


def _read_bits(
    line: bytes,
    raw: list[tuple[int, int, bytes]],
    name: Name,
    profile: Profile,
    parsed: Line,
) -> Iterator[Refusal]:
    """Appends the good bits, yields a refusal for each bad one."""
    if not raw:
        return
    _, pipe, tail = raw[-1]
    token, bar, rest = tail.partition(b"|")
    last = _fields(rest.split(b"|") if bar else [], pipe + 1 + len(token) + 1, profile)
    if last.refusal is not None and last.refusal.reason == "bad_timestamp":
        yield last.refusal
        return
    for start, pipe, tail in raw:
        try:
            kind, fields = _tail(tail, pipe + 1, profile)
            if fields.refusal is not None:
                raise fields.refusal
        except Refusal as refusal:
            yield refusal
            continue
        if start != raw[-1][0]:
            fields.tags, fields.timestamp = last.tags, last.timestamp
        values = _values(line, start, pipe, kind, profile, parsed)
        if values:
            parsed.bits.append(Bit(_head(name, kind, fields, profile), values))


def _end_of_bit(tail: bytes) -> int | None:
    """Offset in `tail` of the ":" that starts the next value, None when this is the last bit."""
    token, bar, rest = tail.partition(b"|")
    colon = token.find(b":")
    if colon >= 0:
        return colon
    if bar and rest[:1] == b"@":
        colon = rest.partition(b"|")[0].find(b":")
        if colon >= 0:
            return len(token) + 1 + colon
    return None


def _values(line: bytes, start: int, end: int, kind: Kind, profile: Profile, parsed: Line) -> list[Value]:
    """The values between two offsets; a bad one is refused by itself."""
    if kind is Kind.SET:  # members are text and may hold colons: 2001:db8::1
        if start == end:
            parsed.refusals.append(Refusal("empty_value", start))
            return []
        return [line[start:end]]
    values: list[Value] = []
    at = start
    for text in line[start:end].split(b":"):
        try:
            values.append(parse_value(text, kind, profile))
        except Refusal as refusal:
            parsed.refusals.append(refusal.shifted(at))
        at += len(text) + 1
    return values


def parse_value(text: bytes, kind: Kind, profile: Profile) -> Value:
    """One value of a kind: a number, the move of a gauge, or a set's member; Refusal otherwise."""
    if kind is Kind.SET:
        if not text:
            raise Refusal("empty_value")
        return text
    number = parse_number(text)
    if kind is Kind.GAUGE and profile.gauges is GaugeMode.STATSD and is_signed(text):
        return Move(number)
    return number


def _head(name: Name, kind: Kind, fields: _Fields, profile: Profile) -> Head:
    tags = with_defaults(fields.tags, name.tags) if name.tags else fields.tags
    if profile.tags:
        tags = with_defaults(tags, profile.tags)
    odd = ["bad_tag", *fields.odd] if name.odd else fields.odd
    # A gauge or a set cannot be scaled: its rate is checked and then has no meaning.
    weight = fields.weight if kind in (Kind.COUNTER, Kind.TIMER) else 1.0
    return Head(name.text, kind, weight, tags, odd, fields.timestamp)


@dataclass(slots=True)
class _Fields:
    weight: float = 1.0
    tags: list[str] = field(default_factory=list)
    timestamp: int | None = None
    odd: list[str] = field(default_factory=list)
    refusal: Refusal | None = None


def _tail(raw: bytes, at: int, profile: Profile) -> tuple[Kind, _Fields]:
    """The type and the fields of a tail at offset `at` of its line; Refusal for a bad type."""
    token, bar, rest = raw.partition(b"|")
    kind = _TYPES.get(token)
    if kind is None and token == _METER and profile.meters:
        kind = Kind.COUNTER
    if kind is None:
        raise Refusal("bad_type" if token else "no_type", at, shown(token) if token else "")
    return kind, _fields(rest.split(b"|") if bar else [], at + len(token) + 1, profile)


def _fields(texts: list[bytes], at: int, profile: Profile) -> _Fields:
    """Reads all fields, also those behind a bad one: tags belong to the good bits before it.

    Of a repeated field the last one counts, with its fault if it has one; tags add up.
    """
    fields = _Fields()
    last: dict[bytes, tuple[bytes, int]] = {}
    for text in texts:
        sign = _sign(text)
        if sign == b"#":
            found, odd = parse_tags(text[1:])
            fields.tags.extend(found)
            fields.odd.extend(["bad_tag"] if odd else [])
        elif sign:
            fields.odd.extend(["dup_field"] if sign in last else [])
            last[sign] = (text[len(sign) :], at)
        else:
            fields.odd.append("unknown_field")
        at += len(text) + 1
    # A faulty time comes last, for it decides: it spoils all bits of a line, a faulty rate only one.
    for sign, read in _READERS:
        if sign in last:
            text, at = last[sign]
            try:
                read(fields, text, profile)
            except Refusal as refusal:
                fields.refusal = refusal.shifted(at)
    return fields


def _sign(text: bytes) -> bytes:
    """What a field starts with, if it is a known one."""
    if text[:1] in (b"#", b"@", b"T"):
        return text[:1]
    word, colon, _ = text.partition(b":")
    return word + colon if colon and word in (b"c", b"e", b"card") else b""


def _rate(fields: _Fields, text: bytes, profile: Profile) -> None:
    fields.weight = weight_of(parse_rate(text, profile.min_sample_rate))


def _container(fields: _Fields, text: bytes, profile: Profile) -> None:
    if profile.keep_container and text:
        fields.tags.append(clean_tag("container_id", text.decode("utf-8", "replace"))[0])


def _timestamp(fields: _Fields, text: bytes, profile: Profile) -> None:
    if not text.isdigit() or len(text) > _LONGEST_TIMESTAMP:
        raise Refusal("bad_timestamp", 0, shown(text))
    fields.timestamp = int(text)


_READERS: Final = ((b"@", _rate), (b"c:", _container), (b"T", _timestamp))
