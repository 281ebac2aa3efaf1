"""What each odd line must give, as one table, and how to tell what the parser and the engine make of it.

A result is {series key: value}. The key is the kind's letter, the name, "|#" and the sorted tags; a counter's
value is its sum, a gauge's the last set or a `Move`, a timer's its (sample, weight) pairs, a set's its
members.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import pytest

from collector.engine import Interval
from collector.model import (
    CounterPoint,
    GaugeMode,
    GaugePoint,
    Kind,
    Number,
    Point,
    Series,
    TimerPoint,
    clamp_integer,
)
from collector.statsd.lines import Bit, Move, Profile, parse_line
from collector.statsd.names import Dialect, Naming

NOW = 1_656_581_405  # in the window that starts at 1656581400
STAMP = 1_656_581_400
PLAIN = Profile()
DOGSTATSD = Profile(gauges=GaugeMode.DOGSTATSD)
ALL_DIALECTS = Profile(dialects=frozenset(Dialect))
KEEPING = Profile(keep_container=True)
METERS = Profile(meters=True)
BARE = Profile(bare_names=True)
RAW_NAMES = Profile(naming=Naming.KEEP)
STRICT_NAMES = Profile(naming=Naming.STRICT)
TAGGED = Profile(prefix="web.", tags=("env:prod", "bare"), dialects=frozenset({Dialect.INFLUX}))
COARSE_RATES = Profile(min_sample_rate=1e-6)

Totals = dict[str, Any]


@dataclass(frozen=True)
class Row:
    """`data` may be several lines; `refused` and `odd` are reasons, one for each time they count."""

    data: bytes
    result: Totals
    refused: list[str] = field(default_factory=list)
    odd: list[str] = field(default_factory=list)
    profile: Profile = PLAIN


def refused(data: bytes, *reasons: str, profile: Profile = PLAIN) -> Row:
    """A row of which nothing is left."""
    return Row(data, {}, list(reasons), [], profile)


BASELINE = [
    Row(b"foo:1|c|@0.5", {"cfoo": 2}),
    Row(b"foo:1|c|@0.1|#t:1", {"cfoo|#t:1": 10}),
    Row(b"foo:1|c|#t:1|@0.1", {"cfoo|#t:1": 10}),
    refused(b"foo:1|c@0.1", "bad_type"),
    Row(b"foo:1|c||@0.5", {"cfoo": 2}, odd=["unknown_field"]),
    Row(b"foo:1|c|", {"cfoo": 1}, odd=["unknown_field"]),
    Row(b"foo:1|c|zzz", {"cfoo": 1}, odd=["unknown_field"]),
    Row(b"foo:1|c|@0.1|@0.5", {"cfoo": 2}, odd=["dup_field"]),
    Row(b"foo:1|c|@2|@0.5", {"cfoo": 2}, odd=["dup_field"]),
    refused(b"foo:1|c|@0.5|@2", "bad_rate"),
    Row(b"foo.bar:1|c|@0.1", {"cfoo.bar": 10}),
]

MISSING = [
    refused(b"foo", "no_value"),
    Row(b"foo", {"cfoo": 1}, profile=BARE),
    Row(b"foo\r", {"cfoo": 1}, profile=BARE),
    refused(b"foo|c", "no_value", profile=BARE),
    refused(b"X", "no_value"),
    refused(b"foo:|c", "empty_value"),
    refused(b"foo:|g", "empty_value"),
    refused(b"foo:|s", "empty_value"),
    refused(b"foo:1", "no_type"),
    refused(b"foo:1|", "no_type"),
    refused(b"foo:1||@0.5", "no_type"),
    refused(b":1|c", "empty_name"),
    refused(b":", "empty_name"),
    refused(b"|", "empty_name"),
    refused(b"|h|#consumer:A::B,p:1", "empty_name"),
]

NAMES = [
    Row(b"foo bar:1|c", {"cfoo_bar": 1}),
    Row(b"foo \t bar:1|c", {}, ["control_char"]),
    Row(b"foo  bar:1|c", {"cfoo_bar": 1}),
    Row(b"foo/bar:1|c", {"cfoo-bar": 1}),
    Row(b"foo bar/x:1|c", {"cfoo bar/x": 1}, profile=RAW_NAMES),
    Row(b"foo-bar_x.y9:1|c", {"cfoo-bar_x.y9": 1}, profile=STRICT_NAMES),
    refused(b"foo bar:1|c", "bad_name", profile=STRICT_NAMES),
    refused(b"foo/bar:1|c", "bad_name", profile=STRICT_NAMES),
    refused("föö:1|c".encode(), "bad_name", profile=STRICT_NAMES),
    refused(b"f\0o:1|c", "control_char", profile=STRICT_NAMES),
    # what a listener adds
    Row(b"foo:1|c", {"cweb.foo|#bare,env:prod": 1}, profile=TAGGED),
    Row(b"foo:1|c|#env:test", {"cweb.foo|#bare,env:test": 1}, profile=TAGGED),
    Row(b"foo:1|c|#bare:1", {"cweb.foo|#bare:1,env:prod": 1}, profile=TAGGED),
    Row(b"foo,env=dev:1|c", {"cweb.foo|#bare,env:dev": 1}, profile=TAGGED),
    Row(b"foo,env=dev:1|c|#env:test", {"cweb.foo|#bare,env:test": 1}, profile=TAGGED),
    Row(b"foo:1|c:2|g", {"cweb.foo|#bare,env:prod": 1, "gweb.foo|#bare,env:prod": 2}, profile=TAGGED),
    refused(b"f\xc3\x28:1|c", "invalid_utf8"),
    refused(b"f\0o:1|c", "control_char"),
    refused(b"f\xc2\x85o:1|c", "control_char"),
    Row(b"constructor:1|ms", {"tconstructor": [(1, 1)]}),
    Row(b"__proto__:1|c", {"c__proto__": 1}),
    Row(b"_foo:1|c", {"c_foo": 1}),
    Row(b"_scan:1|c", {"c_scan": 1}),
    Row(b"_event:1|c", {"c_event": 1}),
    Row("föö:1|c\nfää:1|c".encode(), {"cföö": 1, "cfää": 1}),
    Row(b"n" * 256 + b":1|c", {"c" + "n" * 256: 1}),
    refused(b"n" * 257 + b":1|c", "too_long"),
    Row("é".encode() * 256 + b":1|c", {"c" + "é" * 256: 1}),
    refused(b"foo:1|c|#" + b"a" * 8192, "too_long"),
    Row(b"a:1|c\na:1|g\na:1|c|#x:1", {"ca": 1, "ga": 1, "ca|#x:1": 1}),
    Row(b"stat_count:1|c\nstat:2|ms", {"cstat_count": 1, "tstat": [(2, 1)]}),
]

NUMBERS = [
    Row(b"foo:+5|c", {"cfoo": 5}),
    Row(b"foo:-5|c", {"cfoo": -5}),
    Row(b"g:+5|g", {"gg": Move(5)}),
    Row(b"g:-5|g", {"gg": Move(-5)}),
    Row(b"g:+5|g", {"gg": 5}, profile=DOGSTATSD),
    Row(b"g:-5|g", {"gg": -5}, profile=DOGSTATSD),
    Row(b"g:10|g\ng:-3|g\ng:+1|g", {"gg": 8}),
    Row(b"g:10|g\ng:-3|g\ng:+1|g", {"gg": 1}, profile=DOGSTATSD),
    Row(b"g:10|g\ng:-5|g", {"gg": 5}),
    Row(b"g:10|g\ng:-5|g", {"gg": -5}, profile=DOGSTATSD),
    Row(b"g:1|g\ng:2|g", {"gg": 2}),
    Row(b"g:5|g|@0.5", {"gg": 5}),
    Row(b"g:+5|g|@0.5", {"gg": Move(5)}),
    refused(b"g:5|g|@5", "bad_rate"),
    Row(b"foo:1e3|c", {"cfoo": 1000.0}),
    Row(b"foo:1e+22|c", {"cfoo": 1e22}),
    Row(b"foo:9.3e-05|c", {"cfoo": 9.3e-05}),
    Row(b"t:9.3e-05|ms", {"tt": [(0.000093, 1)]}),
    *[
        refused(b"foo:%b|c" % text, "non_finite")
        for text in (b"inf", b"-Infinity", b"nan", b"NaN", b"+inf", b"1e400", b"-1e400", b"9" * 400)
    ],
    *[
        refused(b"foo:%b|%b" % (text, kind), "bad_value")
        for text in (
            b"0x10",
            b"1_000",
            "１２".encode(),
            b" 1",
            b"1 ",
            b"1.2.3",
            b".",
            b"+",
            b"--1",
            b"1e",
            b"1,5",
        )
        for kind in (b"c", b"g", b"ms")
    ],
    refused(b"foo:\xb2|c", "bad_value"),
    refused(b"foo:True|c", "bad_value"),
    refused(b"foo:1| c", "bad_type"),
    Row(b"foo:.5|c", {"cfoo": 0.5}),
    Row(b"foo:5.|ms", {"tfoo": [(5.0, 1)]}),
    Row(b"foo:1.7|c", {"cfoo": 1.7}),
    Row(b"c:0.5|c\nc:0.5|c", {"cc": 1.0}),
    Row(b"foo:007|c", {"cfoo": 7}),
    Row(b"foo:9007199254740993|c", {"cfoo": 9007199254740993}),
    Row(b"foo:9223372036854775807|c", {"cfoo": 9223372036854775807}),
    Row(b"foo:9223372036854775808|c", {"cfoo": 9223372036854775808.0}),
    Row(b"m:100|g|#a:b,c:d", {"gm|#a:b,c:d": 100}),
    Row(b"m:20|c\nm:10|c", {"cm": 30}),
]

RATES = [
    *[
        refused(b"foo:1|%b|@%b" % (kind, rate), "bad_rate")
        for rate in (
            b"0",
            b"2",
            b"-0.5",
            b"-1",
            b"abc",
            b"",
            b"nan",
            b"NaN",
            b"+Inf",
            b"1_0",
            b"1.0000001",
            b" 0.5",
        )
        for kind in (b"c", b"ms", b"s")
    ],
    Row(b"foo:1|c|@+0.5", {"cfoo": 2}),
    Row(b"foo:1|c|@5e-1", {"cfoo": 2}),
    Row(b"foo:1|c|@1", {"cfoo": 1}),
    Row(b"foo:1|c|@0.00001", {"cfoo": 100_000}),
    Row(b"foo:1|ms|@0.000000001", {"tfoo": [(1, 1e9)]}),
    Row(b"valid:0|ms|@0.000000001", {"tvalid": [(0, 1e9)]}),
    refused(b"foo:1|ms|@0.000000001", "bad_rate", profile=COARSE_RATES),
    refused(b"a:1:2:3|d|@0.0000000001", "bad_rate"),
    Row(b"t:320|ms|@0.1", {"tt": [(320, 10)]}),
    Row(b"t:1|ms|@0.3", {"tt": [(1, 1 / 0.3)]}),
]

SEVERAL = [
    Row(b"foo:1|c:2|c", {"cfoo": 3}),
    Row(b"foo:1|c:20|ms:5|g", {"cfoo": 1, "tfoo": [(20, 1)], "gfoo": 5}),
    Row(b"foo:1|c:2|c|#t:1", {"cfoo|#t:1": 3}),
    Row(b"foo:1:2|c", {"cfoo": 3}),
    Row(b"foo:1:2|c|@0.1", {"cfoo": 30}),
    Row(b"foo:1:2:3|g", {"gfoo": 3}),
    Row(b"foo:10:-3:+1|g", {"gfoo": 8}),
    Row(b"foo:10:-3:+1|g", {"gfoo": 1}, profile=DOGSTATSD),
    Row(b"foo:1::2|c", {"cfoo": 3}, ["empty_value"]),
    Row(b"foo::1|c", {"cfoo": 1}, ["empty_value"]),
    Row(b"foo:1:x:2:nan|c", {"cfoo": 3}, ["bad_value", "non_finite"]),
    Row(b"foo:1|c|@0.1:20|ms|#t:1", {"cfoo|#t:1": 10, "tfoo|#t:1": [(20, 1)]}),
    Row(b"foo:1|c:2|c|@0.5", {"cfoo": 5}),
    Row(b"foo:1|c:x|c:2|c", {"cfoo": 3}, ["bad_value"]),
    Row(b"foo:1|c:2|kv|#t:1", {"cfoo|#t:1": 1}, ["bad_type"]),
    Row(b"foo:1|kv:2|c|#t:1", {"cfoo|#t:1": 2}, ["bad_type"]),
    Row(b"foo:1|c:2|c|@2|#t:1", {"cfoo|#t:1": 1}, ["bad_rate"]),
    Row(b"foo:1|c|@2:2|c", {"cfoo": 2}, ["bad_rate"]),
    Row(b"foo:1|c:", {"cfoo": 1}, ["empty_value"]),
    Row(b"foo:1|c:2", {"cfoo": 1}, ["no_type"]),
    Row(b"foo:1|c:2|s:3|ms", {"cfoo": 1, "sfoo": {b"2"}, "tfoo": [(3, 1)]}),
    Row(b"d:21:43.2:1657|d|#x", {"td|#x": [(21, 1), (43.2, 1), (1657, 1)]}),
]

TAGS = [
    Row(b"foo:1|c|#url:http://x:80/y", {"cfoo|#url:http://x:80/y": 1}),
    Row(b"foo:1|c|#a", {"cfoo|#a": 1}),
    Row(b"foo:1|c|#a\nfoo:1|c|#a:", {"cfoo|#a": 2}),
    Row(b"foo:1|c|#:v", {"cfoo": 1}, odd=["bad_tag"]),
    Row(b"foo:1|c|#", {"cfoo": 1}),
    Row(b"foo:1|c|#a:1,a:1", {"cfoo|#a:1": 1}),
    Row(b"foo:1|c|#a:1,a:2", {"cfoo|#a:1,a:2": 1}),
    Row(b"foo:1|c|#b:2,a:1\nfoo:1|c|#a:1,b:2", {"cfoo|#a:1,b:2": 2}),
    Row(b"foo:1|c|#a:1,,b:2", {"cfoo|#a:1,b:2": 1}),
    Row(b"foo:1|c|#a:1|#b:2", {"cfoo|#a:1,b:2": 1}),
    Row("foo:1|c|#a:é".encode(), {"cfoo|#a:é": 1}),
    Row(b"foo:1|c|#a:\xff", {"cfoo|#a:\ufffd": 1}, odd=["bad_tag"]),
    Row(b"foo:1|c|#a:1\x002", {"cfoo|#a:1_2": 1}, odd=["bad_tag"]),
    Row(b"x:4.000000|g|#,s:172.16.92.5", {"gx|#s:172.16.92.5": 4.0}),
    Row(b"foo:1|c|#{'env': 't'}", {"cfoo|#env:'t'}": 1}, odd=["bad_tag"]),
    Row(b"foo,a=1:1|c", {"cfoo|#a:1": 1}, profile=ALL_DIALECTS),
    Row(b"foo[a=1]:1|c", {"cfoo|#a:1": 1}, profile=ALL_DIALECTS),
    Row(b"foo#a=1:1|c", {"cfoo|#a:1": 1}, profile=ALL_DIALECTS),
    Row(b"foo;a=1;b=2:1|c", {"cfoo|#a:1,b:2": 1}, profile=ALL_DIALECTS),
    Row(b"foo,a=1:1|c|#b:2", {"cfoo|#a:1,b:2": 1}, profile=ALL_DIALECTS),
    Row(b"foo,a=1,c=3:1|c|#a:2", {"cfoo|#a:2,c:3": 1}, profile=ALL_DIALECTS),
    Row(b"m,url=a=b:1|c", {"cm|#url:a=b": 1}, profile=ALL_DIALECTS),
    Row(b"foo,{}=1:1|c", {"cfoo": 1}, odd=["bad_tag"], profile=ALL_DIALECTS),
    *[refused(name + b":1|c", "dialect_off") for name in (b"foo,a=1", b"foo[a=1]", b"foo#a=1", b"foo;a=1")],
    refused(b"foo,a=1:1|c", "dialect_off", profile=Profile(dialects=frozenset({Dialect.LIBRATO}))),
]

FIELDS = [
    Row(b"foo:1|c|c:abc123", {"cfoo": 1}),
    Row(b"m:9|c|c:f6ac0ff4-0000-4000-8000-000000000123", {"cm": 9}),
    Row(b"foo:1|c|c:abc123", {"cfoo|#container_id:abc123": 1}, profile=KEEPING),
    Row(b"foo:1|c|c:a|c:b", {"cfoo|#container_id:b": 1}, odd=["dup_field"], profile=KEEPING),
    Row(b"foo:1|c|c:a,b", {"cfoo|#container_id:a_b": 1}, profile=KEEPING),
    Row(b"foo:1|c|#t:1|c:abc123", {"cfoo|#t:1": 1}),
    Row(b"foo:3|g|T%d" % STAMP, {"gfoo": 3}),
    Row(b"foo:3|g|T1|T%d" % STAMP, {"gfoo": 3}, odd=["dup_field"]),
    Row(b"foo:3|g|Tabc|T%d" % STAMP, {"gfoo": 3}, odd=["dup_field"]),
    *[refused(b"foo:3|g|T" + text, "bad_timestamp") for text in (b"abc", b"", b"-5", b"1.5", "１".encode())],
    refused(b"foo:3|g|T" + b"9" * 13, "bad_timestamp"),
    refused(b"foo:1|c:2|c|Tabc", "bad_timestamp"),
    refused(b"foo:1|c:2|c|@2|Tabc", "bad_timestamp"),
    Row(b"foo:1|c|@0.5|T%d" % STAMP, {"cfoo": 2}),
    Row(b"foo:5|ms|T%d" % STAMP, {"tfoo": [(5, 1)]}),
    Row(b"foo:1|c:20|ms|T%d" % STAMP, {"cfoo": 1, "tfoo": [(20, 1)]}),
    Row(b"foo:1|c|e:it-false,cn-x", {"cfoo": 1}),
    Row(b"foo:1|c|card:low", {"cfoo": 1}),
    Row(b"foo:1|c|card:low|card:high|e:x|e:y", {"cfoo": 1}, odd=["dup_field", "dup_field"]),
]

TYPES = [
    Row(b"foo:-5|ms", {"tfoo": [(-5, 1)]}),
    Row(b"x:-1.000000|h", {"tx": [(-1.0, 1)]}),
    Row(b"foo:0.25|ms", {"tfoo": [(0.25, 1)]}),
    Row(b"foo:5|h", {"tfoo": [(5, 1)]}),
    Row(b"foo:5|d", {"tfoo": [(5, 1)]}),
    refused(b"foo:5|m", "bad_type"),
    Row(b"foo:5|m|@0.5", {"cfoo": 10}, profile=METERS),
    *[
        refused(b"foo:5|" + token, "bad_type")
        for token in (b"kv", b"C", b"x", b"MS", b"cc", b"c\0", b"c\r\r")
    ],
    Row(b"foo:a|s|@0.1", {"sfoo": {b"a"}}),
    Row(b"foo:a|s|#t:1", {"sfoo|#t:1": {b"a"}}),
    Row(b"foo:-5.0e1|s\nfoo:007|s\nfoo:7|s", {"sfoo": {b"-5.0e1", b"007", b"7"}}),
    Row(b"foo:1:2|s", {"sfoo": {b"1:2"}}),
    Row(b"foo:2001:db8::1|s", {"sfoo": {b"2001:db8::1"}}),
    Row(b"foo:\xff\xfe\x00|s", {"sfoo": {b"\xff\xfe\x00"}}),
]

FRAMING = [
    Row(b"a:1|c\r\n", {"ca": 1}),
    Row(b"a:1|c\r\na:1|c\n", {"ca": 2}),
    Row(b"\n\r\n\n", {}),
    Row(b"", {}),
    Row(b"foo:1|c\n", {"cfoo": 1}),
    Row(b"\nfoo:1|c\n\n\nbar:1|c", {"cfoo": 1, "cbar": 1}),
    Row(b"a:1|c\nbad\nb:1|c", {"ca": 1, "cb": 1}, ["no_value"]),
    Row(b"a:1|c\n:\na:1|c", {"ca": 2}, ["empty_name"]),
    Row(b"x:+1|c\ny:1|c", {"cx": 1, "cy": 1}),
]

TABLE = [
    *BASELINE,
    *MISSING,
    *NAMES,
    *NUMBERS,
    *RATES,
    *SEVERAL,
    *TAGS,
    *FIELDS,
    *TYPES,
    *FRAMING,
]


def named(row: Row) -> str:
    """How a row is called in a test's name."""
    return ascii(row.data[:48].decode("utf-8", "replace")).strip("'")


# ---------------------------------------------------------------------- what the parser says


def parsed(data: bytes, profile: Profile) -> tuple[Totals, Counter[str], Counter[str]]:
    """(result, refusals, oddities) of lines, by `parse_line` alone."""
    result: Totals = {}
    reasons: Counter[str] = Counter()
    odd: Counter[str] = Counter()
    for line in data.split(b"\n"):
        if line.strip(b"\r"):
            read = parse_line(line, profile)
            reasons.update(refusal.reason for refusal in read.refusals)
            for bit in read.bits:
                odd.update(bit.head.odd)
                _gather(result, bit)
    return result, reasons, odd


def _gather(result: Totals, bit: Bit) -> None:
    head = bit.head
    key = Series(head.kind, head.name, head.tags).key
    for value in bit.values:
        if isinstance(value, bytes):
            result.setdefault(key, set()).add(value)
        elif isinstance(value, Move):
            held = result.get(key, Move(0))
            result[key] = Move(held.by + value.by) if isinstance(held, Move) else held + value.by
        elif head.kind is Kind.GAUGE:
            result[key] = value
        elif head.kind is Kind.TIMER:
            result.setdefault(key, []).append((value, head.weight))
        else:
            weight: Number = int(head.weight) if head.weight.is_integer() else head.weight
            result[key] = result.get(key, 0) + value * weight


# ---------------------------------------------------------------------- what the engine says


def points(intervals: Iterable[Interval]) -> dict[tuple[int, str], Point]:
    """{(start of the window, series key): point} of intervals that hold each series once."""
    found: dict[tuple[int, str], Point] = {}
    for interval in intervals:
        for window, chunk in interval.chunks(3):
            assert 0 < len(chunk) <= 3
            for point in chunk:
                place = (window.start, point.series.key)
                assert place not in found
                found[place] = point
    return found


def assert_gathered(found: dict[str, Point], expected: Totals) -> None:
    """The points of one window hold what was expected, and nothing else."""
    assert found.keys() == expected.keys()
    for key, point in found.items():
        _assert_point(point, expected[key])


def _assert_point(point: Point, expected: Any) -> None:
    if isinstance(point, CounterPoint):
        expected = clamp_integer(expected)
        assert point.value == pytest.approx(expected, rel=1e-15, abs=0)
        assert isinstance(point.value, int) == isinstance(expected, int)
        assert not isinstance(expected, int) or point.value == expected
    elif isinstance(point, GaugePoint):
        moved = isinstance(expected, Move)
        assert (point.value, point.move) == ((None, expected.by) if moved else (expected, 0))
    elif isinstance(point, TimerPoint):
        assert sorted(point.samples) == sorted(float(sample) for sample, _ in expected)
        assert point.sketch.count == pytest.approx(sum(weight for _, weight in expected), rel=1e-12)
        assert point.sketch.sum == pytest.approx(sum(s * w for s, w in expected), rel=1e-12)
    else:
        assert len(point.members) == len(expected)
        assert set(point.members) == expected


def repeated(expected: Totals, times: int) -> Totals:
    """What the same lines give when they come several times in one window."""
    return {key: _repeat(key, value, times) for key, value in expected.items()}


def _repeat(key: str, value: Any, times: int) -> Any:
    if isinstance(value, Move):
        return Move(value.by * times)
    return value * times if key[0] in (Kind.COUNTER, Kind.TIMER) else value
