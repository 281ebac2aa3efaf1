"""The engine: windows, weights, order, limits and forgetting, with a clock of the test's own."""

from __future__ import annotations

import pytest
from engines import make_engine
from grammar_table import DOGSTATSD, NOW, PLAIN, TABLE, Row, assert_gathered, named, points, repeated

from collector.engine import Limits, PureEngine
from collector.model import INT64_MAX, CounterPoint, GaugePoint, SetPoint, TimerPoint
from collector.statsd.lines import Profile

pytestmark = pytest.mark.usefixtures("each_core")

START = 1_000_000_000.0  # the edge of a window of ten seconds


def engine(*profiles: Profile, now: float = START, **options: int) -> PureEngine:
    """An engine that knows the profiles, and limits if any are given."""
    made = make_engine(now, limits=Limits(**options))
    for profile in profiles or (PLAIN,):
        made.add_profile(profile)
    return made


def send(made: PureEngine, *lines: str, profile: int = 0, now: float = START) -> int:
    """Hands lines to an engine as one datagram."""
    return made.ingest(profile, "\n".join(lines).encode(), ("127.0.0.1", 40000), now)


def gathered(made: PureEngine, now: float = START) -> dict[str, object]:
    """Everything in all windows by series key: sums, gauges, counts and members."""
    found: dict[str, object] = {}
    for (_, key), point in points(made.close(now)).items():
        match point:
            case CounterPoint():
                found[key] = point.value
            case GaugePoint():
                found[key] = point.move if point.value is None else point.value
            case TimerPoint():
                found[key] = (point.sketch.count, point.sketch.sum)
            case SetPoint():
                found[key] = set(point.members)
    return found


@pytest.mark.parametrize("row", TABLE, ids=named)
@pytest.mark.parametrize("times", [1, 3])
def test_every_line_of_the_grammar_gives_what_it_must(row: Row, times: int) -> None:
    """Sent once it is read in full, sent again it takes the fast path: the same values, every time."""
    made = make_engine(NOW, backfill_window=3600)
    made.add_profile(row.profile)
    for _ in range(times):
        made.ingest(0, row.data, "test", NOW)
    assert sorted(made.rejected.elements()) == sorted(row.refused * times)
    assert sorted(made.odd.elements()) == sorted(row.odd * times)
    expected = {
        key: float(value) if isinstance(value, int) and abs(value) > INT64_MAX else value
        for key, value in repeated(row.result, times).items()
    }
    assert_gathered({key: point for (_, key), point in points(made.close(NOW)).items()}, expected)


# ---------------------------------------------------------------------- values


def test_gauges_keep_their_order_over_all_spellings() -> None:
    """The last value wins, whichever spelling, tag order or listener it came by."""
    made = engine(PLAIN, DOGSTATSD)
    send(made, "g:1|g|#a,b", "g:2|g|#b,a", "g:3|g|#a,b|c:id", "g:4|g|#a,b\r")
    assert gathered(made) == {"gg|#a,b": 4}
    send(made, "g:9|g|#b,a", "g:5|g|#a,b|@0.5")
    send(made, "g:-3|g|#a,b", profile=1)
    send(made, "g:+1|g|#a,b", profile=0)
    assert gathered(made) == {"gg|#a,b": -2}


def test_a_gauge_set_and_moved_over_several_windows() -> None:
    """10, +5, then 20, -1: a set forgets the moves before it, a move alone stays a move for the store."""
    made = engine()
    send(made, "g:10|g", "g:+5|g")
    assert gathered(made) == {"gg": 15}
    send(made, "g:+5|g", "g:20|g", "g:-1|g")
    assert gathered(made) == {"gg": 19}
    send(made, "g:-3|g")
    (point,) = points(made.close(START)).values()
    assert isinstance(point, GaugePoint)
    assert (point.value, point.move) == (None, -3)


def test_counters_are_exact() -> None:
    """Integers to 2^63, beyond it no sign flip; fractions beside large integers lose nothing of either."""
    made = engine()
    send(
        made,
        "a:9007199254740993|c",
        "a:9007199254740993|c",
        "b:9223372036854775807|c",
        "b:9223372036854775807|c",
    )
    send(made, *["c:0.1|c"] * 10, "c:4503599627370496|c", "d:0.5|c", "d:0.5|c", "e:1|c|@0.3")
    send(made, "f:1:9223372036854775807:-9223372036854775808|c|@0.3", "g:1e300:1:-1e300|c|@0.7")
    found = gathered(made)
    assert found["ca"] == 18014398509481986
    assert found["cb"] == pytest.approx(2.0**64)
    assert found["cc"] == 4503599627370497
    assert found["cd"] == 1.0
    assert found["ce"] == pytest.approx(10 / 3)
    assert found["cf"] == 0  # summed first, weighed then
    assert found["cg"] == pytest.approx(1 / 0.7)


def test_a_rate_is_a_weight_on_every_part_of_a_timer() -> None:
    """3|ms|@0.25, 2|ms, 1|ms|@0.5 are 3,3,3,3,2,1,1: count, sum and percentiles."""
    made = engine()
    send(made, "t:3|ms|@0.25", "t:2|ms", "t:1|ms|@0.5")
    (point,) = points(made.close(START)).values()
    assert isinstance(point, TimerPoint)
    assert (point.sketch.count, point.sketch.sum) == (7, 16)
    assert (point.sketch.min, point.sketch.max) == (1, 3)
    assert point.sketch.quantile(0.5) == pytest.approx(3, rel=0.011)
    assert point.sketch.quantile(2 / 7) == pytest.approx(1, rel=0.011)
    assert list(point.samples) == [3, 2, 1]


def test_percentiles_follow_the_rank() -> None:
    """The cases that other servers had wrong."""
    cases: list[tuple[list[int], float, int]] = [
        ([320, 123, 456, 999, 0, 447, 5632, 732, 34732, 34, 34, 344], 0.9, 5632),
        ([*range(1, 101)], 0.95, 95),
        ([1] * 1000 + [10_000_000], 0.99, 1),
        ([1] * 1000 + [10_000_000], 1.0, 10_000_000),
        ([7], 0.9, 7),
    ]
    for values, q, expected in cases:
        made = engine()
        send(made, *(f"t:{value}|ms" for value in values))
        (point,) = points(made.close(START)).values()
        assert isinstance(point, TimerPoint)
        assert point.sketch.quantile(q) == pytest.approx(expected, rel=0.011)


# ---------------------------------------------------------------------- windows


def test_half_an_hour_of_windows_without_a_gap() -> None:
    """However late each flush comes, consecutive windows are ten seconds apart and none comes twice."""
    made = engine()
    starts = []
    now = START
    for step in range(1800):
        now = START + step + (step % 7) * 0.13
        send(made, "steady:1|c", now=now)
        starts += [interval.window.start for interval in made.flush(now)]
    assert starts == list(range(int(START), int(now) // 10 * 10, 10))


def test_a_clock_that_steps_back_a_little_opens_no_window_twice() -> None:
    """A millisecond before the edge after it: the open window goes on."""
    made = engine()
    send(made, "a:1|c", now=START + 9)
    assert [one.window.start for one in made.flush(START + 10.0005)] == [START]
    send(made, "a:1|c", now=START + 9.9995)
    assert made.flush(START + 9.9996) == []
    send(made, "a:1|c", now=START + 12)
    (interval,) = made.flush(START + 20)
    assert interval.window.start == START + 10
    (point,) = points([interval]).values()
    assert isinstance(point, CounterPoint)
    assert point.value == 2


def test_a_long_step_back_is_followed() -> None:
    """A clock that was an hour ahead does not stop the flushes for an hour."""
    made = engine(now=START + 3600)
    send(made, "a:1|c", now=START + 3600)
    send(made, "b:1|c", now=START)
    assert [one.window.start for one in made.flush(START + 10)] == [START + 3600, START]


def test_a_late_flush_doubles_nothing() -> None:
    """Twice the interval late: one window with what came, and the next one begins at its own edge."""
    made = engine()
    send(made, "a:3|c")
    (interval,) = made.flush(START + 27)
    assert interval.window.start == START
    send(made, "a:1|c", now=START + 28)
    (interval,) = made.flush(START + 30)
    assert interval.window.start == START + 20
    assert made.flush(START + 39) == []


def test_timestamps_choose_the_window() -> None:
    """Within the window of acceptance a sample is stored at its time; outside it is refused."""
    made = make_engine(START, backfill_window=60, future_window=20)
    made.add_profile(PLAIN)
    at = int(START)
    for stamp in (at - 61, at - 60, at - 5, at, at + 20, at + 21):
        send(made, f"a:1|c|T{stamp}")
    assert made.rejected == {"stale_timestamp": 2}
    found = {start: point for (start, _), point in points(made.close(START)).items()}
    assert sorted(found) == [at - 60, at - 10, at, at + 20]


# ---------------------------------------------------------------------- limits


@pytest.mark.parametrize(
    ("options", "lines", "limit", "reason", "kept"),
    [
        ({"series": 2}, ["a:1|c", "b:1|c", "c:1|c", "a:1|c"], "series", "cardinality", {"ca": 2, "cb": 1}),
        (
            {"series_per_metric": 1},
            ["a:1|c|#x", "a:1|c|#y", "a:1|c|#x", "b:1|c"],
            "series_per_metric",
            "cardinality",
            {"ca|#x": 2, "cb": 1},
        ),
        ({"tags": 2}, ["a:1|c|#x,y,z", "a:1|c|#x,y"], "tags", "too_long", {"ca|#x,y": 1}),
    ],
)
def test_a_limit_refuses_what_is_new_and_keeps_what_is_known(
    options: dict[str, int], lines: list[str], limit: str, reason: str, kept: dict[str, object]
) -> None:
    """Each hit is counted by limit, each refused line by reason."""
    made = engine(**options)
    send(made, *lines)
    assert made.limit_hits[limit] == 1
    assert made.rejected == {reason: 1}
    assert gathered(made) == kept


def test_a_full_table_of_heads_loses_nothing() -> None:
    """Spellings beyond the limit are read from scratch, and counted."""
    made = engine(heads=1)
    for _ in range(3):
        send(made, "a:1|c", "b:1|c", "c:1|c")
    assert gathered(made) == {"ca": 3, "cb": 3, "cc": 3}
    assert made.limit_hits["heads"] > 0


def test_a_large_set_is_sent_early_and_whole() -> None:
    """At the limit the members leave ahead of the window; together nothing is missing."""
    made = engine(set_members=10)
    for n in range(95):
        send(made, f"s:{n}|s")
    members: set[bytes] = set()
    early = made.flush(START + 1)
    assert early
    for interval in [*early, *made.close(START + 1)]:
        for _, chunk in interval.chunks(100):
            for point in chunk:
                assert isinstance(point, SetPoint)
                assert len(point.members) <= 10
                members.update(point.members)
    assert members == {str(n).encode() for n in range(95)}
    assert made.limit_hits["set_members"] == 9


def test_samples_beyond_the_limit_are_counted_and_sketched() -> None:
    """The newest are kept raw; count, sum and quantiles are of all."""
    made = engine(samples=5)
    send(made, *(f"t:{n}|ms" for n in range(1, 101)))
    (point,) = points(made.close(START)).values()
    assert isinstance(point, TimerPoint)
    assert list(point.samples) == [96, 97, 98, 99, 100]
    assert (point.sketch.count, point.sketch.sum) == (100, 5050)
    assert made.limit_hits["samples"] == 95


def test_events_beyond_the_limit_are_refused() -> None:
    """A flood of events does not grow memory."""
    made = engine(events=2)
    send(made, *["_e{1,1}:a|b"] * 5)
    assert made.rejected == {"cardinality": 3}
    (interval,) = made.close(START)
    assert len(interval.events) == 2


def test_idle_series_are_forgotten_and_come_back() -> None:
    """They make room for others after their expiry; a returning one starts afresh."""
    made = make_engine(START, idle_expiry=100, limits=Limits(series=2))
    made.add_profile(PLAIN)
    send(made, "a:1|c", "b:1|c", "c:1|c")
    assert (made.series, made.rejected["cardinality"]) == (2, 1)
    now = START
    for _ in range(30):
        now += 10
        send(made, "b:1|c", now=now)
        made.flush(now)
    assert made.series == 1
    send(made, "c:1|c", "a:1|c", now=now)
    assert made.rejected["cardinality"] == 2
    assert "cc" in gathered(made, now)


# ---------------------------------------------------------------------- refusals


def test_refused_lines_are_kept_with_sender_and_escaped() -> None:
    """The last 200, each with its reason, and nothing that a terminal would obey."""
    made = engine()
    for n in range(300):
        send(made, f"bad{n}\x1b[31m|c")
    assert made.rejected["no_value"] == 300
    assert len(made.refused) == 200
    last = made.refused[-1]
    assert (last.reason, last.sender, last.line) == ("no_value", "127.0.0.1:40000", "bad299\\x1b[31m|c")


def test_long_lines_are_refused_and_counted_as_lines() -> None:
    """A line over the limit costs itself only, wherever it stands."""
    made = engine(line=20)
    assert send(made, "a:1|c", "x" * 21, "b:1|c") == 3
    assert made.rejected == {"too_long": 1}
    assert gathered(made) == {"ca": 1, "cb": 1}


def test_timers_of_a_busy_window_are_folded_without_a_trace() -> None:
    """Raw samples move into the sketch while the window is open: count and sum stay exact."""
    made = engine()
    for _ in range(40):
        send(made, *(f"t{n % 70}:{n}|ms" for n in range(1000)))
    found = gathered(made)
    assert sum(one[0] for one in found.values() if isinstance(one, tuple)) == 40_000
    assert sum(one[1] for one in found.values() if isinstance(one, tuple)) == 40 * sum(range(1000))


def test_a_gauge_updated_many_times_is_its_last_value() -> None:
    """Not the number of its updates."""
    made = engine()
    for _ in range(200):
        send(made, "path:2|g")
    assert gathered(made) == {"gpath": 2}


def test_a_tiny_rate_costs_no_time_and_poisons_nothing() -> None:
    """A weight of a billion is one addition; a smaller rate is refused, its neighbours are kept."""
    made = engine()
    send(
        made,
        "a:1|c",
        "a:0|ms|@0.000000001",
        "a:1:2:3|d|@0.0000000001",
        "a:1|c|@0",
        "a:1|c|@NaN",
        "a:1|c|@+Inf",
    )
    assert made.rejected == {"bad_rate": 4}
    assert gathered(made) == {"ca": 1, "ta": (1e9, 0.0)}


def test_refused_values_make_no_series() -> None:
    """A name of which every value was bad is not to be seen as one that counts zero."""
    made = engine()
    send(made, "a:x|c", "a:nan|g", "a:|ms")
    assert made.rejected == {"bad_value": 1, "non_finite": 1, "empty_value": 1}
    assert gathered(made) == {}


def test_names_are_not_merged_and_kinds_are_kept_apart() -> None:
    """Letters beyond ASCII stay; one name of two kinds or with other tags is several series."""
    made = engine()
    send(made, "föö:1|c", "fää:2|c", "a:1|c", "a:2|g", "a:3|c|#x:1")
    assert gathered(made) == {"cföö": 1, "cfää": 2, "ca": 1, "ga": 2, "ca|#x:1": 3}


def test_a_profile_that_is_given_up_leaves_what_came_for_it() -> None:
    """Its lines stay in the open window, and its number never means another one's heads."""
    made = engine(PLAIN)
    old = made.add_profile(Profile(tags=("sender:a",)))
    send(made, "hits:1|c", "hits:2|c", profile=old)
    made.forget_profile(old)
    new = made.add_profile(Profile(tags=("sender:b",)))
    assert new not in (0, old)
    send(made, "hits:4|c", profile=new)
    send(made, "hits:8|c")
    assert gathered(made) == {"chits|#sender:a": 3, "chits|#sender:b": 4, "chits": 8}
