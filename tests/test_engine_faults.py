"""Faults that other collectors had, below the store: exactness, order, clock, expiry, limits, percentiles."""

from __future__ import annotations

import random
from collections import Counter
from typing import Any

import pytest
from engines import make_engine
from grammar_table import NOW, STAMP, TABLE, Row, Totals, assert_gathered, named, parsed, points, repeated

from collector.engine import Interval, Limits, PureEngine
from collector.model import (
    Check,
    CounterPoint,
    Event,
    GaugeMode,
    GaugePoint,
    Point,
    SetPoint,
    TimerPoint,
)
from collector.statsd.lines import Move, Profile

pytestmark = pytest.mark.usefixtures("each_engine")

SENDER = ("127.0.0.1", 40122)
START = NOW - NOW % 10
EDGE = START + 10


def engine_of(*profiles: Profile, now: float = NOW, **options: Any) -> PureEngine:
    """An engine with some profiles, or one plain one."""
    engine = make_engine(now, **options)
    for profile in profiles or (Profile(),):
        engine.add_profile(profile)
    return engine


def gathered(engine: PureEngine, now: float = NOW) -> dict[str, Point]:
    """{series key: point} of the open window, which must be the only one; the engine is closed by it."""
    found = points(engine.close(now))
    assert {start for start, _ in found} <= {int(now - now % 10)}
    return {key: point for (_, key), point in found.items()}


def value(point: Point) -> Any:
    """The value of a counter, or the last set or the move of a gauge."""
    if isinstance(point, GaugePoint):
        return Move(point.move) if point.value is None else point.value
    assert isinstance(point, CounterPoint)
    return point.value


def counts(intervals: list[Interval]) -> dict[int, Totals]:
    """{start of the window: {series key: value of the counter}}; each window must come once."""
    starts = [interval.window.start for interval in intervals]
    assert len(set(starts)) == len(starts)
    found: dict[int, Totals] = {}
    for (start, key), point in points(intervals).items():
        found.setdefault(start, {})[key] = value(point)
    return found


# ---------------------------------------------------------------------- the grammar, over windows


@pytest.mark.parametrize("row", TABLE, ids=named)
def test_a_head_means_the_same_in_the_next_window(row: Row) -> None:
    """What was remembered of a head, a refusal included, holds after a flush and carries no value over."""
    engine = engine_of(row.profile)
    for _ in range(2):
        engine.ingest(0, row.data, SENDER, NOW)
    engine.flush(EDGE)
    later = row.data.replace(b"T%d" % STAMP, b"T%d" % EDGE)
    for _ in range(2):
        engine.ingest(0, later, SENDER, EDGE)
    assert_gathered(gathered(engine, EDGE), repeated(row.result, 2))
    assert engine.rejected == Counter(row.refused * 4)
    assert engine.odd == Counter(row.odd * 4)


@pytest.mark.parametrize("at_once", [True, False])
def test_all_rows_in_one_engine_disturb_one_another_in_nothing(at_once: bool) -> None:
    """Every line of the table in one datagram, bad among good, gives what the parser says of each."""
    datagrams = [row.data for row in TABLE if row.profile == Profile() and len(row.data) < 8192]
    engine = engine_of(limits=Limits(line=8192))
    for data in [b"\n".join(datagrams)] if at_once else datagrams:
        engine.ingest(0, data, SENDER, NOW)
    result, reasons, odd = parsed(b"\n".join(datagrams), Profile())
    assert (engine.rejected, engine.odd) == (reasons, odd)
    assert_gathered(gathered(engine), result)


# ---------------------------------------------------------------------- order of gauges

ALIASES = [
    (b"g:%b|g|#a:1,b:2", 0),
    (b"g:%b|g|#b:2,a:1", 0),
    (b"g:%b|g|#a:1,b:2\r", 0),
    (b"g:%b|g|#a:1,b:2|c:abc", 0),
    (b"g:%b|g|#a:1,b:2||", 0),  # odd, so never on the hot path
    (b"g:%b|g|@0.5|#a:1,b:2", 0),
    (b"g:%b|g|#a:1,b:2", 1),
    (b"g:1|c:%b|g|#a:1,b:2", 0),  # read whole
    (b"g:0:%b|g|#a:1,b:2", 1),
]


@pytest.mark.parametrize("last", range(len(ALIASES)))
@pytest.mark.parametrize("warm", [False, True])
def test_the_gauge_that_comes_last_wins_however_it_is_spelled(last: int, warm: bool) -> None:
    """Spellings of one series, from listeners of both modes, keep their order of arrival."""
    engine = engine_of(Profile(), Profile(gauges=GaugeMode.DOGSTATSD))
    for _ in range(3 if warm else 1):
        for number, (line, profile) in enumerate([*ALIASES, ALIASES[last]]):
            engine.ingest(profile, line % (b"%d" % (100 + number)), SENDER, NOW)
    assert value(gathered(engine)["gg|#a:1,b:2"]) == 100 + len(ALIASES)


# ---------------------------------------------------------------------- exact sums

LARGEST = 1.7976931348623157e308
COUNTERS: list[tuple[list[bytes], float]] = [
    ([b"c:9007199254740993|c"] * 2, 18014398509481986),
    ([b"c:9223372036854775807|c"], 2**63 - 1),
    ([b"c:9223372036854775807|c", b"c:1|c"], 2.0**63),  # a float, and no sign flip
    ([b"c:9223372036854775807|c"] * 2 + [b"c:-9223372036854775807|c"], 2**63 - 1),
    ([b"c:-9223372036854775808|c"], -(2.0**63)),
    ([b"c:0.1|c"] * 10, 1.0),
    ([b"c:0.1|c"] * 10 + [b"c:9007199254740993|c"], 9007199254740994.0),
    ([b"c:0.5|c", b"c:9007199254740992|c", b"c:0.5|c", b"c:1|c"], 9007199254740994.0),
    ([b"c:1|c|@0.1", b"c:9007199254740983|c"], 9007199254740993),
    ([b"c:1|c|@0.00001", b"c:1|c"], 100_001),
    ([b"c:3|c|@0.3", b"c:1|c|#"], 3 * (1 / 0.3) + 1),
    ([b"c:1.5|c|@0.1"] * 3, 45.0),
    ([b"c:999999999999999999|c"] * 9, 9 * (10**18 - 1)),
    ([b"c:999999999999999999|c"] * 10, float(10 * (10**18 - 1))),
    ([b"c:1e308|c"] * 20, LARGEST),  # no infinity, and no error at the flush
    ([b"c:1e308|c"] * 20 + [b"c:-1e308|c"] * 19, 1e308),
    ([b"c:1e308|c|@0.001"], LARGEST),
    ([b"c:0.1|c"] * 10_000, 1000.0),
]


@pytest.mark.parametrize(("lines", "total"), COUNTERS)
def test_counters_are_exact(lines: list[bytes], total: float) -> None:
    """Integers to 2^63, beyond it and with fractions the double nearest to the true sum."""
    engine = engine_of()
    for line in lines:
        engine.ingest(0, line, SENDER, NOW)
    found = value(gathered(engine)["cc"])
    assert found == total
    assert type(found) is type(total)


def test_absurd_gauges_and_timers_stay_finite() -> None:
    """Sums that leave the range of a double stop at its end; the flush goes on."""
    engine = engine_of()
    engine.ingest(0, b"g:+1.7e308|g\ng:+1.7e308|g\nh:1.7e308|g\nh:+1.7e308|g", SENDER, NOW)
    engine.ingest(0, b"t:1.7e308:1.7e308:-5|ms|@0.1\nm:+9223372036854775807|g\nm:+1|g", SENDER, NOW)
    found = gathered(engine)
    assert (value(found["gg"]), value(found["gh"])) == (Move(LARGEST), LARGEST)
    assert value(found["gm"]) == Move(2.0**63)
    timer = found["tt"]
    assert isinstance(timer, TimerPoint)
    assert (timer.sketch.count, timer.sketch.sum) == (30, LARGEST)


# ---------------------------------------------------------------------- windows


def test_stamped_lines_land_in_the_windows_of_their_times() -> None:
    """A timestamp decides the window, for several bits in a line too; the rest stays in the open one."""
    engine = engine_of()
    engine.ingest(0, b"a:1|c|T%d\na:2|c\na:4|c|T%d" % (START - 1, START), SENDER, NOW)
    engine.ingest(0, b"b:3|c:7|g:5|ms|T%d|#t:1" % (START - 95), SENDER, NOW)
    engine.ingest(0, b"a:8|c|T%d|@0.5" % (START + 10), SENDER, NOW)
    found = points(engine.close(NOW))
    timer = found.pop((START - 100, "tb|#t:1"))
    assert isinstance(timer, TimerPoint)
    assert list(timer.samples) == [5]
    assert {place: value(point) for place, point in found.items()} == {
        (START - 10, "ca"): 1,
        (START, "ca"): 6,
        (START + 10, "ca"): 16,
        (START - 100, "cb|#t:1"): 3,
        (START - 100, "gb|#t:1"): 7,
    }
    gauge = found[START - 100, "gb|#t:1"]
    assert isinstance(gauge, GaugePoint)
    assert gauge.at == (START - 95) * 1000


def test_chunks_are_bounded_and_in_order_of_time() -> None:
    """The open window first, then the others by time; read once, an interval is empty."""
    engine = engine_of()
    for number in range(25):
        engine.ingest(0, b"c%d:1|c\nd:1|c|T%d" % (number, NOW - 10 * number), SENDER, NOW)
    (interval,) = engine.close(NOW)
    chunks = list(interval.chunks(10))
    assert [len(chunk) for _, chunk in chunks][:3] == [10, 10, 6]
    starts = [window.start for window, _ in chunks[3:]]
    assert starts == sorted(starts)
    assert all(window.end - window.start == 10 for window, _ in chunks)
    assert list(interval.chunks(10)) == []


def test_a_constant_rate_is_a_flat_line_under_drift() -> None:
    """With flushes that drift by 7 ms each, 30 minutes are 180 windows of one and the same count."""
    engine = engine_of(now=EDGE)
    flushed: list[Interval] = []
    flush_at = EDGE + 10.0
    for tenth in range(18_000):
        now = EDGE + tenth / 10
        if now >= flush_at:
            flushed += engine.flush(flush_at)
            flush_at += 10.007
        engine.ingest(0, b"a:1|c", SENDER, now)
    flushed += engine.close(EDGE + 1800)
    assert counts(flushed) == {EDGE + 10 * number: {"ca": 100} for number in range(180)}


def test_steps_back_around_the_edge_close_no_window_twice() -> None:
    """A timer that fires early, a clock that steps back up to an interval: one interval per window."""
    engine = engine_of(now=EDGE - 5)
    engine.ingest(0, b"a:1|c", SENDER, EDGE - 0.002)
    assert engine.flush(EDGE - 0.001) == []
    flushed = engine.flush(EDGE + 0.001)
    engine.ingest(0, b"a:2|c", SENDER, EDGE - 0.001)
    flushed += engine.flush(EDGE - 0.001) + engine.flush(EDGE + 0.002)
    engine.ingest(0, b"a:4|c", SENDER, EDGE - 9)
    flushed += engine.flush(EDGE + 10) + engine.flush(EDGE + 10)
    assert counts(flushed) == {EDGE - 10: {"ca": 1}, EDGE: {"ca": 6}}


def test_samples_that_come_while_the_flush_is_late_keep_their_windows() -> None:
    """A stalled flush hands over all windows at once, oldest first, none mixed or doubled."""
    engine = engine_of(now=EDGE)
    for step in range(4):
        engine.ingest(0, b"a:%d|c" % (step + 1), SENDER, EDGE + 10 * step)
    flushed = engine.flush(EDGE + 47)
    assert [interval.window.start for interval in flushed] == [EDGE, EDGE + 10, EDGE + 20, EDGE + 30]
    assert counts(flushed) == {EDGE + 10 * step: {"ca": step + 1} for step in range(4)}
    assert engine.flush(EDGE + 48) == []


def test_an_idle_window_is_not_written() -> None:
    """No sample, no interval; an idle timer has no old percentiles, no counter a zero."""
    engine = engine_of(now=EDGE)
    engine.ingest(0, b"a:1|c\nt:5|ms", SENDER, EDGE)
    assert len(engine.flush(EDGE + 10)) == 1
    assert engine.flush(EDGE + 20) == engine.flush(EDGE + 30) == []
    engine.ingest(0, b"a:1|c", SENDER, EDGE + 31)
    assert counts(engine.close(EDGE + 32)) == {EDGE + 30: {"ca": 1}}


def test_close_hands_over_the_open_window_and_all_that_waits() -> None:
    """A stop loses nothing, and closing again gives nothing again."""
    engine = engine_of(now=EDGE)
    engine.ingest(0, b"a:1|c", SENDER, EDGE)
    engine.ingest(0, b"a:2|c", SENDER, EDGE + 10)
    assert counts(engine.close(EDGE + 11)) == {EDGE: {"ca": 1}, EDGE + 10: {"ca": 2}}
    assert engine.close(EDGE + 11) == []


# ---------------------------------------------------------------------- events and refused lines


def test_events_and_checks_are_kept_apart_from_lines_that_look_alike() -> None:
    """Their heads look like those of counters; the hot path neither takes nor spoils them."""
    engine = engine_of()
    engine.ingest(0, b"a:5|c\n_e{1,1}:5|c\n_sc|a:5|0\n_e{5,4}:ab\ncd|text\na:5|c\n_e{9,4}:x|y", SENDER, NOW)
    engine.ingest(0, b"_sc|a|7\n_e{1,1}:a|b|zz\n_sc|a|1|#:v", SENDER, NOW)
    (interval,) = engine.flush(EDGE)
    assert interval.events == [Event("5", "c"), Event("ab\ncd", "text"), Event("a", "b")]
    assert interval.checks == [Check("a:5", 0), Check("a", 1)]
    assert counts([interval]) == {START: {"ca": 10}}
    assert engine.rejected == {"bad_event": 1, "bad_check": 1}
    assert engine.odd == {"unknown_field": 1, "bad_tag": 1}


def test_an_event_with_newlines_is_found_behind_a_line_that_is_too_long() -> None:
    """One long line in a datagram shifts nothing behind it."""
    engine = engine_of()
    engine.ingest(0, b"x" * 9000 + b":1|c\n_e{5,4}:ab\ncd|text\na:1|c", SENDER, NOW)
    (interval,) = engine.close(NOW)
    assert interval.events == [Event("ab\ncd", "text")]
    assert counts([interval]) == {START: {"ca": 1}}
    assert engine.rejected == {"too_long": 1}


def test_what_a_listener_refused_is_kept_like_the_rest() -> None:
    """Cut to what can be shown, with an address as people write it, and counted by reason and limit."""
    engine = engine_of()
    engine.refuse("too_long", b"y" * 9000, ("::1", 5, 0, 0), NOW)
    (cut,) = engine.refused
    assert (cut.reason, cut.sender, cut.line, cut.at) == ("too_long", "[::1]:5", "y" * 512, NOW)
    assert (engine.rejected, engine.limit_hits) == ({"too_long": 1}, {"line": 1})


# ---------------------------------------------------------------------- expiry


def test_an_idle_series_is_forgotten_between_one_and_two_expiries() -> None:
    """It comes back as a fresh counter, and busy ones stay."""
    engine = engine_of(now=EDGE, idle_expiry=100)
    engine.ingest(0, b"idle:5|c\nbusy:1|c", SENDER, EDGE)
    for step in range(1, 31):
        engine.ingest(0, b"busy:1|c", SENDER, EDGE + 10 * step)
        engine.flush(EDGE + 10 * step)
        assert engine.series == (2 if step < 20 else 1), step
    engine.ingest(0, b"idle:7|c", SENDER, EDGE + 310)
    assert engine.series == 2
    assert counts(engine.flush(EDGE + 320)) == {EDGE + 300: {"cbusy": 1}, EDGE + 310: {"cidle": 7}}


def test_a_series_in_use_by_stamped_lines_only_is_not_forgotten() -> None:
    """What cannot be a head keeps its series alive too."""
    engine = engine_of(now=EDGE, idle_expiry=50, limits=Limits(series=1))
    for step in range(30):
        now = EDGE + 10 * step
        engine.ingest(0, b"a:1|c|T%d" % now, SENDER, now)
        engine.flush(now)
    assert engine.series == 1
    assert not engine.rejected


def test_expiry_goes_on_after_a_large_step_back() -> None:
    """A clock that was a year ahead does not stop series from being forgotten."""
    year = 365 * 86400
    engine = engine_of(now=EDGE + year, idle_expiry=100)
    engine.ingest(0, b"a:1|c", SENDER, EDGE + year)
    for step in range(40):
        engine.flush(EDGE + 10 * step)
    assert engine.series == 0


# ---------------------------------------------------------------------- limits


def flood(limits: Limits, lines: list[bytes]) -> tuple[PureEngine, Totals]:
    """(engine, other counters) after each line twice with good neighbours, of which none may be lost."""
    engine = engine_of(limits=limits)
    for line in lines * 2:
        engine.ingest(0, b"good:1|c\n" + line + b"\ngood:1|c", SENDER, NOW)
    (found,) = counts(engine.close(NOW)).values()
    assert found.pop("cgood") == 4 * len(lines)
    return engine, found


def test_series_beyond_the_limit_are_refused_and_known_ones_go_on() -> None:
    """Each refused line counts as `cardinality` and as a hit of the limit."""
    engine, found = flood(Limits(series=3), [b"a:1|c", b"b:1|c", b"x:1|c", b"y:1|c|T%d" % NOW, b"a:1|c|#t"])
    assert found == {"ca": 2, "cb": 2}
    assert (engine.series, engine.rejected, engine.limit_hits) == (3, {"cardinality": 6}, {"series": 6})


def test_series_of_one_metric_are_limited_by_name_and_kind() -> None:
    """A tag with user ids stops by itself; other metrics have their own room."""
    users = [b"a:1|c|#u:%d" % user for user in range(5)]
    engine, found = flood(Limits(series_per_metric=2), [*users, b"b:1|c"])
    assert found == {"ca|#u:0": 2, "ca|#u:1": 2, "cb": 2}
    assert (engine.rejected, engine.limit_hits) == ({"cardinality": 6}, {"series_per_metric": 6})
    engine.ingest(0, b"a:1|g|#u:9", SENDER, NOW)
    assert engine.rejected == {"cardinality": 6}


def test_room_that_comes_again_is_given_again() -> None:
    """A refusal for cardinality is not remembered: when old series are forgotten, new ones are taken."""
    engine = engine_of(now=EDGE, idle_expiry=20, limits=Limits(series=1, series_per_metric=1))
    engine.ingest(0, b"a:1|c\nb:1|c", SENDER, EDGE)
    assert engine.rejected == {"cardinality": 1}
    for step in range(1, 8):
        engine.flush(EDGE + 10 * step)
    engine.ingest(0, b"b:1|c", SENDER, EDGE + 71)
    assert engine.rejected == {"cardinality": 1}
    assert counts(engine.close(EDGE + 72)) == {EDGE + 70: {"cb": 1}}


@pytest.mark.parametrize(
    ("limits", "line", "name"),
    [
        (Limits(tags=2), b"a:1|c|#x,y,z", "tags"),
        (Limits(tags=2), b"a:1|c|#x,y,z|T%d" % NOW, "tags"),
        (Limits(), b"a:1|c|#" + b",".join(b"t%d" % tag for tag in range(65)), "tags"),
        (Limits(), b"n" * 257 + b":1|c", "name"),
        (Limits(), b"n" * 257 + b":1|c|T%d" % NOW, "name"),
        (Limits(line=64), b"a:1|c|#" + b"t" * 64, "line"),
    ],
)
def test_what_is_too_long_is_refused_and_counted(limits: Limits, line: bytes, name: str) -> None:
    """Too many tags, a long name and a long line are `too_long`, each under its own limit."""
    engine, found = flood(limits, [line])
    assert found == {}
    assert (engine.rejected, engine.limit_hits) == ({"too_long": 2}, {name: 2})


def test_spellings_beyond_the_limit_mean_the_same_series() -> None:
    """Heads that are not remembered are read from scratch each time, which only costs time."""
    orders = [b"m:1|c|#" + order for order in (b"a,b,c", b"b,a,c", b"c,b,a", b"a,c,b", b"c,a,b")]
    engine, found = flood(Limits(heads=2), orders * 3)
    assert found == {"cm|#a,b,c": 30}
    assert engine.limit_hits.keys() == {"heads"}


@pytest.mark.parametrize("limit", [1, 2, 7, 10])
@pytest.mark.parametrize("line", [b"s:%d|s", b"s:%d|s|T1656581405", b"s:%d|s||"])
def test_sets_at_their_limit_are_written_early_and_stay_complete(limit: int, line: bytes) -> None:
    """The union of all points of the window is the set, and no point is larger than the limit or empty."""
    engine = engine_of(limits=Limits(set_members=limit))
    for member in [*range(30), *range(30)]:
        engine.ingest(0, line % member, SENDER, NOW)
    seen: list[bytes] = []
    for interval in [*engine.flush(NOW), *engine.close(NOW)]:
        for window, chunk in interval.chunks(10):
            assert window.start == START
            for point in chunk:
                assert isinstance(point, SetPoint)
                assert 0 < len(point.members) <= limit
                seen += point.members
    assert set(seen) == {b"%d" % member for member in range(30)}
    assert engine.limit_hits["set_members"] == 60 // limit
    assert not engine.rejected


def test_a_million_samples_in_one_window_hold_the_newest_only() -> None:
    """A busy timer is folded into its sketch while the window is open; nothing is lost by it."""
    engine = engine_of()
    data = b"\n".join([b"t:%d|ms" % (number % 1000) for number in range(10_000)])
    for _ in range(101):
        engine.ingest(0, data, SENDER, NOW)
    timer = gathered(engine)["tt"]
    assert isinstance(timer, TimerPoint)
    assert (timer.sketch.count, timer.sketch.sum) == (1_010_000, 1010 * 499_500)
    assert list(timer.samples) == list(range(800, 1000))
    assert engine.limit_hits == {"samples": 1_010_000 - 200}


# ---------------------------------------------------------------------- timers and rates


def timer_of(*lines: bytes) -> TimerPoint:
    """The point of the timer "t" after lines in an order of chance."""
    engine = engine_of()
    for line in random.Random(7).sample(lines, len(lines)):
        engine.ingest(0, line, SENDER, NOW)
    timer = gathered(engine)["tt"]
    assert isinstance(timer, TimerPoint)
    return timer


MIXED_RATES = [b"t:3|ms|@0.25", b"t:2|ms", b"t:1|ms|@0.5"]  # 1, 1, 2, 3, 3, 3, 3
THOUSANDS = [b"t:%d|ms" % number for number in range(1, 10_001)]
PERCENTILES = [
    ([b"t:%d|ms" % number for number in range(1, 101)], 0.95, 95),
    (THOUSANDS, 0.999, 9990),
    (THOUSANDS, 0.9999, 9999),
    (THOUSANDS, 1.0, 10_000),
    (MIXED_RATES, 0.28, 1),
    (MIXED_RATES, 0.29, 2),
    (MIXED_RATES, 0.42, 2),
    (MIXED_RATES, 0.44, 3),
    ([b"t:-5|ms", b"t:0|ms", b"t:5|ms"], 0.3, -5),
    ([b"t:-5|ms", b"t:0|ms", b"t:5|ms"], 0.5, 0),
]


@pytest.mark.parametrize(("lines", "q", "expected"), PERCENTILES)
def test_percentiles_follow_the_rank_rule(lines: list[bytes], q: float, expected: float) -> None:
    """The value at rank ceil(q * count), sample rates counted in, within 1.1 %."""
    assert timer_of(*lines).sketch.quantile(q) == pytest.approx(expected, rel=0.011)


@pytest.mark.parametrize(
    ("lines", "count", "total"),
    [
        ([b"t:57|ms|@0.1"], 10, 570),
        ([b"t:1|ms|@0.3"], 1 / 0.3, 1 / 0.3),
        ([b"t:4|ms"] * 10, 10, 40),
        ([b"t:4|ms|@0.5"] * 5, 10, 40),
        ([b"t:1:2:3|d|@0.000000001"], 3e9, 6e9),
        ([b"t:2.5|ms|@0.3"] * 3, 10, 25),
        ([b"t:-5|ms|@0.1", b"t:5|ms|@0.1"], 20, 0),
    ],
)
def test_a_rate_is_a_weight_and_never_a_factor_of_the_value(
    lines: list[bytes], count: float, total: float
) -> None:
    """Two streams of different rates count the same, and the mean stays the value's."""
    sketch = timer_of(*lines).sketch
    assert sketch.count == pytest.approx(count)
    assert sketch.sum == pytest.approx(total)
    assert sketch.min - 1e-9 <= sketch.sum / sketch.count <= sketch.max + 1e-9
