"""The compiled engine against the one in Python: the same bytes, clocks and limits give the same of everything."""

from __future__ import annotations

import math
from collections import Counter
from typing import Any

import pytest
from engines import make_engine
from hypothesis import given, settings
from hypothesis import strategies as st

from collector.engine import ENGINES, WITHOUT_CORE, Limits, PureEngine
from collector.model import CounterPoint, GaugeMode, GaugePoint, SetPoint, TimerPoint
from collector.statsd.lines import Profile
from collector.statsd.names import Dialect

pytestmark = pytest.mark.skipif("native" not in ENGINES, reason=f"no compiled core: {WITHOUT_CORE}")

NOW = 1_656_581_405.0
PROFILES = [
    Profile(longest_line=256),
    Profile(
        gauges=GaugeMode.DOGSTATSD,
        dialects=frozenset(Dialect),
        meters=True,
        bare_names=True,
        longest_line=256,
    ),
]

NAMES = st.sampled_from(
    [b"a", b"b.c", b"d e", b"f/g", b"", b"n,k=v", b"\xff", b"\xc3\xa9", b"x" * 30, b"_e{"]
)
NUMBERS = st.one_of(
    st.integers(-3, 300).map(lambda n: b"%d" % n),
    st.integers(-(10**20), 10**20).map(lambda n: b"%d" % n),
    st.floats(allow_nan=False, allow_infinity=False).map(lambda x: repr(x).encode()),
    st.decimals(-1000, 1000, places=3).map(lambda d: str(d).encode()),
    st.sampled_from(
        [
            b"",
            b"+1",
            b"-0",
            b"-0.0",
            b"+.5",
            b"5.",
            b".",
            b"1e3",
            b"9.3e-05",
            b"1e400",
            b"nan",
            b"0x1",
            b"1_0",
        ]
        + [
            b"9223372036854775807",
            b"-9223372036854775808",
            b"0" * 25,
            b"1e308",
            b"-1e308",
            b"12.345678901234567",
        ]
    ),
)
VALUES = st.lists(NUMBERS, min_size=1, max_size=3).map(b":".join)
TAILS = st.sampled_from(
    [b"|c"] * 4
    + [b"|g"] * 3
    + [b"|ms", b"|h", b"|d", b"|s", b"|m", b"|x", b"|", b""]
    + [
        b"|c|@0.5",
        b"|c|@0.3",
        b"|ms|@0.1",
        b"|ms|@0.3",
        b"|g|@0.5",
        b"|c|@0",
        b"|c|@",
        b"|c|@1e-9",
        b"|c@0.1",
    ]
    + [b"|c|#t:1", b"|c|#a,b", b"|c|#b,a", b"|g|#b,a", b"|g|#a,b", b"|ms|#:v", b"|c||", b"|c|zz", b"|g|zz|zz"]
    + [b"|c\r", b"|ms|#t\r", b"|c|T1656581400", b"|g|T1656581390", b"|s|T1656581390", b"|c|T1", b"|c|Tx"]
    + [b"|c:2|ms", b"|c|@0.5:3|c", b"|g:+2|g|#t", b"|c|c:id", b"|c|#a:1|#b:2", b"|c|#" + b"t," * 9 + b"t"]
)
METRIC = st.tuples(NAMES, st.just(b":"), VALUES, TAILS).map(b"".join)
OTHER = st.sampled_from(
    [b"_e{1,1}:a|b", b"_e{3,1}:a\nb|c", b"_e{9,9}:a|b", b"_e{1:1|c", b"_sc|a|0", b"_sc|a|9", b"_sc|a|1|m:x|y"]
    + [
        b"",
        b"\r",
        b":",
        b"::",
        b"|",
        b"bare",
        b"s:a:b|s",
        b"s:\xff|s",
        b"s:|s",
        b"y" * 300,
        b"l:1|c|#" + b"l" * 300,
    ]
)
DATA = st.lists(st.one_of(METRIC, METRIC, METRIC, OTHER, st.binary(max_size=8)), max_size=12).map(b"\n".join)
STEPS = st.lists(
    st.tuples(DATA, st.sampled_from([0, 1]), st.sampled_from([0.0, 0.0, 0.5, 4.0, 11.0, 25.0, -3.0, -40.0])),
    min_size=1,
    max_size=8,
)
LIMITS = st.builds(
    Limits,
    series=st.sampled_from([2, 5, 1000]),
    series_per_metric=st.sampled_from([1, 3, 1000]),
    tags=st.sampled_from([2, 64]),
    name=st.sampled_from([8, 256]),
    line=st.just(256),
    heads=st.sampled_from([1, 4, 1000]),
    set_members=st.sampled_from([1, 2, 100]),
    samples=st.sampled_from([1, 3, 200]),
    events=st.sampled_from([1, 100]),
)


class Seen:
    """All that one engine gives for some steps."""

    def __init__(self, engine: PureEngine, steps: list[tuple[bytes, int, float]]) -> None:
        for profile in PROFILES:
            engine.add_profile(profile)
        self.points: dict[Any, Any] = {}
        self.lines: list[int] = []
        self.series: list[int] = []
        self.events: list[Any] = []
        now = NOW
        for data, profile, seconds in steps:
            now += seconds
            self.lines.append(engine.ingest(profile, data, ("127.0.0.1", 1), now))
            self.series.append(engine.series)
            if seconds:
                self.read(engine.flush(now))
        self.read(engine.close(now))
        self.rejected, self.odd, self.limit_hits = engine.rejected, engine.odd, engine.limit_hits
        self.refused = Counter(engine.refused)

    def read(self, intervals: list[Any]) -> None:
        """Takes all points; sets of one window that came in parts are put together."""
        for interval in intervals:
            self.events += [*interval.events, *interval.checks]
            for window, chunk in interval.chunks(3):
                for point in chunk:
                    key = (window.start, point.series.key, len(self.series))
                    match point:
                        case CounterPoint():
                            self.points[key] = point.value
                        case GaugePoint():
                            self.points[key] = (repr(point.value), repr(point.move), point.at)
                        case TimerPoint():
                            self.points[key] = (point.sketch, point.samples.tobytes())
                        case SetPoint():
                            self.points[key] = self.points.get(key, frozenset()) | frozenset(point.members)


def same_points(native: dict[Any, Any], python: dict[Any, Any]) -> None:
    """Bit for bit; but sums with a weight that is no whole number are rounded in another order."""
    assert native.keys() == python.keys()
    for key, expected in python.items():
        found = native[key]
        if isinstance(expected, float):
            assert isinstance(found, float)
            assert math.isclose(found, expected, rel_tol=1e-12, abs_tol=1e-300), key
        elif isinstance(expected, tuple) and not isinstance(expected[0], str):
            sketch, samples = found
            assert samples == expected[1], key
            assert math.isclose(sketch.sum, expected[0].sum, rel_tol=1e-12, abs_tol=1e-300), key
            sketch.sum = expected[0].sum
            assert sketch == expected[0], key
        else:
            assert found == expected, key


def compared(steps: list[tuple[bytes, int, float]], limits: Limits, **options: Any) -> Seen:
    """Feeds both engines; what the compiled one gave."""
    python = Seen(ENGINES["python"](NOW, limits=limits, **options), steps)
    native = Seen(ENGINES["native"](NOW, limits=limits, **options), steps)
    assert native.lines == python.lines
    assert native.rejected == python.rejected
    assert native.odd == python.odd
    # Beyond the limit of heads the engine in Python finds a head again until the window ends.
    heads = native.limit_hits.pop("heads", 0), python.limit_hits.pop("heads", 0)
    assert heads[0] >= heads[1]
    assert bool(heads[0]) == bool(heads[1])
    assert native.limit_hits == python.limit_hits
    assert native.refused == python.refused
    assert native.series == python.series
    assert native.events == python.events
    same_points(native.points, python.points)
    return native


@settings(max_examples=1500, deadline=None)
@given(STEPS, LIMITS, st.sampled_from([20, 3600]))
def test_both_engines_give_the_same(
    steps: list[tuple[bytes, int, float]], limits: Limits, idle_expiry: int
) -> None:
    """Points, counts by reason, refused lines, series, events; whatever the limits and the clock do."""
    compared(steps, limits, idle_expiry=idle_expiry)
