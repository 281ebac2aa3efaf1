"""What holds for any input: nothing raises, good neighbours are kept, cuts in a stream change nothing."""

from __future__ import annotations

import itertools
import math
from fractions import Fraction
from typing import Any

import pytest
from engines import make_engine
from hypothesis import given, settings
from hypothesis import strategies as st

from collector.engine import Limits, PureEngine
from collector.model import CounterPoint, Kind, Series, SetPoint, TimerPoint
from collector.sketch import RELATIVE_ERROR, Sketch
from collector.statsd.events import parse_check, parse_event
from collector.statsd.framing import LineStream
from collector.statsd.lines import Profile, parse_head, parse_line, parse_value
from collector.statsd.names import Dialect
from collector.statsd.numbers import parse_number
from collector.statsd.refusal import REASONS, Refusal
from collector.units import format_duration, parse_duration

pytestmark = pytest.mark.usefixtures("each_core")

LIMITED = settings(max_examples=300, deadline=None)
NOW = 1_656_581_405.0
PROFILES = [
    Profile(),
    Profile(dialects=frozenset(Dialect), meters=True, bare_names=True, keep_container=True),
]

# Bytes that look like StatsD far more often than chance would make them.
PIECES = st.sampled_from(
    [
        *(b" ", b"\r", b"\0", b"\xff", b"\xc3\xa9"),
        *b": | c g ms s h @ # T 1 - + . e 0.5 foo , = c: _e{ _sc| } / nan [ ]".split(b" "),
    ]
)
ODD_LINE = (
    st.lists(PIECES | st.binary(max_size=3), max_size=14).map(b"".join).map(lambda b: b.replace(b"\n", b""))
)
GOOD_LINE = st.tuples(
    st.sampled_from([b"a", b"b.c", b"d"]),
    st.integers(-1000, 1000),
    st.sampled_from([b"|c", b"|c|#t:1", b"|c\r", b"|c|@0.5", b"|ms", b"|h|#t:1"]),
)


def engine(profile: Profile = PROFILES[0]) -> PureEngine:
    """An engine with one profile, in the window of NOW."""
    made = make_engine(NOW)
    made.add_profile(profile)
    return made


def totals(made: PureEngine) -> dict[str, Any]:
    """What an engine gathered, comparably."""
    found: dict[str, Any] = {}
    for interval in made.close(NOW):
        for window, points in interval.chunks(7):
            for point in points:
                key = f"{window.start}:{point.series.key}"
                match point:
                    case CounterPoint():
                        found[key] = point.value
                    case TimerPoint():
                        found[key] = (point.sketch.count, point.sketch.sum, point.sketch.encode())
                    case SetPoint():
                        found[key] = found.get(key, frozenset()) | frozenset(point.members)
                    case _:
                        found[key] = (point.value, point.move)
        found.setdefault("events", []).extend(interval.events)
        found.setdefault("checks", []).extend(interval.checks)
    found["rejected"] = dict(made.rejected)
    return found


@LIMITED
@given(ODD_LINE, st.sampled_from(PROFILES))
def test_no_line_raises_and_every_refusal_has_a_known_reason(line: bytes, profile: Profile) -> None:
    """Whatever a client sends becomes samples or reasons, with a place inside the line."""
    parsed = parse_line(line, profile)
    for refusal in parsed.refusals:
        assert refusal.reason in REASONS
        assert 0 <= refusal.at <= len(line)
        assert refusal.message
    for parse in (parse_event, parse_check):
        try:
            parse(line)
        except Refusal as refusal:
            assert refusal.reason in REASONS
    name, _, rest = line.partition(b":")
    try:
        parse_head(name, rest.partition(b"|")[2], profile)
    except Refusal as refusal:
        assert refusal.reason in REASONS


@LIMITED
@given(st.binary(max_size=300) | st.lists(ODD_LINE, max_size=8).map(b"\n".join), st.sampled_from(PROFILES))
def test_no_datagram_raises(data: bytes, profile: Profile) -> None:
    """Twice, so that the fast path sees it too."""
    made = engine(profile)
    assert made.ingest(0, data, "test", NOW) == made.ingest(0, data, "test", NOW)
    totals(made)


@LIMITED
@given(st.lists(GOOD_LINE, min_size=1, max_size=10), st.data())
def test_good_neighbours_are_always_kept(good: list[tuple[bytes, int, bytes]], data: st.DataObject) -> None:
    """Lines of other names between them, however bad, change nothing about the good ones."""
    lines = [b"%b:%d%b" % one for one in good]
    alone = engine()
    alone.ingest(0, b"\n".join(lines), "test", NOW)
    expected = {key: value for key, value in totals(alone).items() if key[:1].isdigit()}
    mixed: list[bytes] = []
    for line in lines:
        # An event that begins in one line may rightly take the next ones with it: not what is meant here.
        mixed += [odd.replace(b"_e{", b"_e") for odd in data.draw(st.lists(ODD_LINE, max_size=3))]
        mixed.append(line)
    both = engine()
    both.ingest(0, b"\n".join(mixed), "test", NOW)
    found = totals(both)
    bad = {b"a", b"b.c", b"d"} & {line.partition(b":")[0] for line in mixed if line not in lines}
    if not bad:
        assert {key: found.get(key) for key in expected} == expected


@LIMITED
@given(
    st.lists(
        GOOD_LINE.map(lambda one: b"%b:%d%b" % one) | st.just(b"_e{3,2}:a\nb|cd") | ODD_LINE, max_size=12
    ),
    st.lists(st.integers(0, 400), max_size=12),
)
def test_any_split_of_a_stream_gives_the_same_totals(lines: list[bytes], cuts: list[int]) -> None:
    """Where the reads of a connection end is chance, and must not show."""
    data = b"\n".join(lines)
    whole, parts = engine(), engine()
    whole.ingest(0, data, "test", NOW)
    stream = LineStream(8192)
    places = sorted({0, *(cut for cut in cuts if cut < len(data)), len(data)})
    for start, end in itertools.pairwise(places):
        if complete := stream.feed(data[start:end]):
            parts.ingest(0, complete, "test", NOW)
    if last := stream.end():
        parts.ingest(0, last, "test", NOW)
    assert totals(parts) == totals(whole)


EVENTS = st.builds(
    lambda title, text, wrong, fields: (
        b"_e{%d,%d}:%b|%b%b" % (len(title), len(text) + wrong, title, text, fields)
    ),
    *[st.sampled_from([b"a", b"a\nb", b"\n\n", b"x:1|c\n_e{1,1}:", b"|", b"long" * 9])] * 2,
    st.sampled_from([0, 0, 0, -1, 1, 5, 30, 500]),
    st.sampled_from([b"", b"|#t", b"\r", b"|d:1", b"|d:x", b"x", b"|h:" + b"h" * 40]),
)


@LIMITED
@given(
    st.lists(GOOD_LINE.map(lambda one: b"%b:%d%b" % one) | EVENTS | st.just(b"y" * 70), max_size=8),
    st.sampled_from([b"", b"\n", b"\r\n"]),
    st.integers(1, 90),
)
def test_events_and_long_lines_may_be_cut_anywhere(lines: list[bytes], last: bytes, size: int) -> None:
    """Events with newlines or wrong lengths and lines over the limit count the same in reads of any size."""
    data = b"\n".join(lines) + last
    counted = []
    for step in (size, len(data) or 1):
        made = make_engine(NOW, limits=Limits(line=64))
        made.add_profile(PROFILES[0])
        stream = LineStream(64)
        reads = [stream.feed(data[at : at + step]) for at in range(0, len(data), step)]
        for complete in [*reads, stream.end()]:
            made.ingest(0, complete, "test", NOW)
        for _ in range(stream.too_long):
            made.refuse("too_long", b"", "test", NOW)
        counted.append(totals(made))
    assert counted[0] == counted[1]


@LIMITED
@given(ODD_LINE, st.sampled_from(PROFILES))
def test_what_a_line_names_reads_back_from_its_key(line: bytes, profile: Profile) -> None:
    """No name and no tag that the parser lets through needs escaping in the canonical text."""
    for bit in parse_line(line, profile).bits:
        series = Series(bit.head.kind, bit.head.name, bit.head.tags)
        again = Series.from_key(series.key)
        assert (again.kind, again.name, again.tags) == (series.kind, series.name, series.tags)
        assert all(tag and not tag.startswith(":") for tag in series.tags)
        assert not any(c < " " for c in series.key)


@LIMITED
@given(st.lists(ODD_LINE, min_size=1, max_size=5))
def test_the_fast_path_agrees_with_the_grammar(lines: list[bytes]) -> None:
    """Each line three times in one engine gives what three engines that saw it once give together."""
    hot = engine()
    for _ in range(3):
        hot.ingest(0, b"\n".join(lines), "test", NOW)
    cold = [engine() for _ in range(3)]
    for one in cold:
        one.ingest(0, b"\n".join(lines), "test", NOW)
    once, thrice = totals(cold[0]), totals(hot)
    assert {reason: 3 * count for reason, count in once["rejected"].items()} == thrice["rejected"]
    for key, value in once.items():
        series = key.partition(":")[2]
        if series.startswith("c"):
            assert thrice[key] == pytest.approx(3 * value)
        elif series.startswith("t"):
            assert thrice[key][0] == pytest.approx(3 * value[0])
        elif series.startswith("s"):
            assert thrice[key] == value


@LIMITED
@given(ODD_LINE)
def test_head_and_value_agree_with_the_whole_line(line: bytes) -> None:
    """What an engine makes of a head and a value apart is what the line says as a whole."""
    profile = PROFILES[0]
    name, _, rest = line.partition(b":")
    value, bar, tail = rest.partition(b"|")
    if not bar or b"|" in name or line.startswith((b"_e{", b"_sc|")):
        return
    parsed = parse_line(line, profile)
    try:
        head = parse_head(name, tail, profile)
    except Refusal as refusal:
        assert refusal.reason in {one.reason for one in parsed.refusals}
        return
    if head is None:
        return
    values: list[Any] = []
    refused: list[str] = []
    for text in [value] if head.kind is Kind.SET else value.split(b":"):
        try:
            values.append(parse_value(text, head.kind, profile))
        except Refusal as refusal:
            refused.append(refusal.reason)
    assert [one for bit in parsed.bits for one in bit.values] == values
    assert sorted(one.reason for one in parsed.refusals) == sorted(refused)
    assert all(bit.head == head for bit in parsed.bits)


@LIMITED
@given(st.text(alphabet="0123456789+-.eE_ nifaxX１", max_size=12))
def test_numbers_are_those_of_the_grammar_and_no_others(text: str) -> None:
    """Compared with exact fractions; underscores, blanks, words and full-width digits are refused."""
    try:
        number = parse_number(text.encode())
    except Refusal:
        number = None
    plain = bool(text) and all(c in "0123456789+-.eE" for c in text)
    try:
        exact = float(text) if plain else None
    except ValueError:
        exact = None
    if exact is None or not math.isfinite(exact):
        assert number is None
    else:
        assert number is not None
        if isinstance(number, int):
            assert Fraction(number) == Fraction(text)
        else:
            assert number == exact


FINITE = st.floats(-1e15, 1e15, allow_nan=False).filter(lambda x: x == 0 or abs(x) > 1e-9)


@LIMITED
@given(st.lists(FINITE, min_size=1, max_size=60), st.floats(0, 1))
def test_quantiles_are_within_the_promised_error(values: list[float], q: float) -> None:
    """Nearest rank, within 1.083 % of the exact value, for any values and any quantile."""
    sketch = Sketch()
    sketch.add(values)
    rank = max(1, math.ceil(q * len(values) * (1 - 1e-12)))
    exact = sorted(values)[rank - 1]
    assert sketch.quantile(q) == pytest.approx(exact, rel=RELATIVE_ERROR * 1.001)


@LIMITED
@given(st.lists(st.tuples(st.lists(FINITE, max_size=9), st.sampled_from([1.0, 2.0, 1 / 0.3])), max_size=6))
def test_sketches_merge_in_any_order_and_survive_encoding(parts: list[tuple[list[float], float]]) -> None:
    """Merging is adding counts: order and grouping do not show, nor does storing in between."""
    merged, backwards = Sketch(), Sketch()
    for target, ordered in ((merged, parts), (backwards, parts[::-1])):
        for values, weight in ordered:
            one = Sketch()
            one.add(values, weight)
            target.merge(Sketch.decode(one.encode()))
    assert merged.count == pytest.approx(backwards.count)
    assert merged.positive.keys() == backwards.positive.keys()
    assert merged.negative.keys() == backwards.negative.keys()
    assert (merged.min, merged.max) == (backwards.min, backwards.max)
    assert Sketch.decode(merged.encode()) == merged


@LIMITED
@given(st.integers(0, 10**10))
def test_durations_read_back(milliseconds: int) -> None:
    """What is shown is what is read."""
    assert parse_duration(format_duration(milliseconds / 1000)) == pytest.approx(milliseconds / 1000)


TAG = st.text(alphabet="abé:_./-0", min_size=1, max_size=6)


@LIMITED
@given(
    st.sampled_from(list(Kind)),
    st.text(alphabet="ab.é#=,-", min_size=1, max_size=8),
    st.lists(TAG, max_size=4),
)
def test_a_series_reads_back_from_its_key(kind: Kind, name: str, tags: list[str]) -> None:
    """The canonical text needs no escaping: names hold no bar, tags no comma."""
    series = Series(kind, name, tags)
    again = Series.from_key(series.key)
    assert (again, again.name, again.tags, again.kind) == (series, series.name, series.tags, kind)
