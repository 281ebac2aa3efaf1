"""Selectors: what they mean, and where and why other expressions are refused."""

from __future__ import annotations

import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from collector.model import Kind, Series
from collector.promql import QueryError, parse_selector

# (text, name, matchers, range in seconds, quantile)
READ: list[tuple[str, str | None, list[tuple[str, str, str]], float | None, str | None]] = [
    ("api", "api", [], None, None),
    ("api{}", "api", [], None, None),
    ("job:api:rate", "job:api:rate", [], None, None),
    ("api.latency", "api.latency", [], None, None),
    ("api.latency{}", "api.latency", [], None, None),
    ("api.5xx.total", "api.5xx.total", [], None, None),
    ('api.latency{route="/pay"}', "api.latency", [("route", "=", "/pay")], None, None),
    ('{"api.latency", route="/pay"}', "api.latency", [("route", "=", "/pay")], None, None),
    ('{route="/pay","api.latency"}', "api.latency", [("route", "=", "/pay")], None, None),
    ('{__name__="api.latency"}', "api.latency", [], None, None),
    ('{__name__=~"api.*"}', None, [("__name__", "=~", "api.*")], None, None),
    ('{route="/pay"}', None, [("route", "=", "/pay")], None, None),
    ('{"a b|c"}', "a b|c", [], None, None),
    ("{'it\\'s'}", "it's", [], None, None),
    ("{`a\\b`}", "a\\b", [], None, None),
    ('{"\\u00e9\\x41\\n"}', "éA\n", [], None, None),
    ('a{http.route="x"}', "a", [("http.route", "=", "x")], None, None),
    ('a{"http-route"!="x"}', "a", [("http-route", "!=", "x")], None, None),
    ('a{x="1",y!="2",z=~"3",w!~"4",}', "a", [*zip("xyzw", ("=", "!=", "=~", "!~"), "1234")], None, None),  # noqa: B905
    ('a{or="x",on="y",sum="z"}', "a", [("or", "=", "x"), ("on", "=", "y"), ("sum", "=", "z")], None, None),
    ("sum", "sum", [], None, None),
    ('{"on"}', "on", [], None, None),
    ("a[5m]", "a", [], 300.0, None),
    ("a.b{x='y'} [ 1h30m ]", "a.b", [("x", "=", "y")], 5400.0, None),
    ("a[90]", "a", [], 90.0, None),
    ("a[250ms]", "a", [], 0.25, None),
    ("a.b # a comment with {braces} and c.d\n[5m]", "a.b", [], 300.0, None),
    ('a.b{x="c.d{e}#f"}', "a.b", [("x", "=", "c.d{e}#f")], None, None),
    ('a.b{quantile="0.95"}', "a.b", [], None, "0.95"),
    ('a.b{quantile=".5",x="y"}[5m]', "a.b", [("x", "=", "y")], 300.0, ".5"),
    ('a{quantile=""}', "a", [("quantile", "=", "")], None, None),
]


@pytest.mark.parametrize(("text", "name", "matchers", "seconds", "quantile"), READ)
def test_a_selector_reads_as_name_matchers_range_and_quantile(
    text: str,
    name: str | None,
    matchers: list[tuple[str, str, str]],
    seconds: float | None,
    quantile: str | None,
) -> None:
    """Every way to write a selector: plain, dotted, quoted, with comments, with all four operators."""
    selector = parse_selector(text)
    assert selector.name == name
    assert [(one.label, one.op.value, one.value) for one in selector.matchers] == matchers
    assert selector.range == seconds
    assert (selector.quantile.text if selector.quantile else None) == quantile


# (text, line, column, a part of the problem, a part of the remedy)
REFUSED = [
    ("", 1, 1, "empty", "only a selector"),
    ("  # nothing\n", 2, 1, "empty", "only a selector"),
    ("{}", 1, 1, "empty selector", "name or a matcher"),
    ('{a=~".*"}', 1, 1, "non-empty matcher", "needs a value"),
    ("rate(a[5m])", 1, 1, "function rate()", "only a selector"),
    ("api.rate(a)", 1, 1, "function api.rate()", "only a selector"),
    ("(a)", 1, 1, "parentheses", "only a selector"),
    ("a + b", 1, 3, "operator +", "only a selector"),
    ("a\n\n  or b", 3, 3, "operator or", "only a selector"),
    ("a > 1", 1, 3, "operator >", "only a selector"),
    ("-a", 1, 1, "operator -", "quoted"),
    ("a-b.c", 1, 2, "operator -", 'quoted: {"a-b"}'),
    ("a offset 5m", 1, 3, "offset", "only a selector"),
    ("a[5m] offset 5m", 1, 7, "offset", "only a selector"),
    ("a @ 100", 1, 3, "@", "only a selector"),
    ("a[5m:1m]", 1, 2, "subqueries", "only a selector"),
    ("a[5m:]", 1, 2, "subqueries", "only a selector"),
    ("a[5m][5m]", 1, 6, "[", "only a selector"),
    ("a b", 1, 3, "b is not expected", "only a selector"),
    ("sum by (x) (y)", 1, 5, "by", "only a selector"),
    ("1", 1, 1, "1", "only a selector"),
    ('"a"', 1, 1, '"a"', "only a selector"),
    ('a{x="1" or y="2"}', 1, 9, '"or" between matchers', 'label=~"a|b"'),
    ('a{x="1" y="2"}', 1, 9, "y", "comma"),
    ('a{x="1"', 1, 2, "brace without an end", "}"),
    ("a{", 1, 3, "brace without an end", "}"),
    ('a{,x="1"}', 1, 3, "not a label", 'label="value"'),
    ('a{x:y="1"}', 1, 3, "not a label", "quote"),
    ("a{x}", 1, 4, "no operator", "= != =~ !~"),
    ('a{x=="1"}', 1, 4, "no operator", "= != =~ !~"),
    ("a{x=1}", 1, 5, "string", 'x="value"'),
    ('a{x="1}', 1, 5, "without an end", 'close it with "'),
    ('a{x="\\q"}', 1, 5, "escape", "mend the string"),
    ('a{x=~"("}', 1, 6, "regular expression", "RE2"),
    ('a{\n x=~"(?=y)"}', 2, 5, "regular expression", "RE2"),
    ('a{x=~"(y)\\\\1"}', 1, 6, "regular expression", "RE2"),
    ('a{"b"}', 1, 3, "second name", "__name__"),
    ('a{__name__="b"}', 1, 3, "second name", "__name__"),
    ('{"a","b"}', 1, 6, "second name", "__name__"),
    ("a[]", 1, 2, "not a range", "[5m]"),
    ("a[5m", 1, 2, "not a range", "[5m]"),
    ("a[-5m]", 1, 2, "not a range", "[5m]"),
    ("a[0s]", 1, 3, "greater than 0", "[5m]"),
    ("a[1.5m]", 1, 3, "duration", "[5m]"),
    ("a[1m1h]", 1, 3, "duration", "[5m]"),
    ("on", 1, 1, "word of PromQL", '{"on"}'),
    ("Inf", 1, 1, "word of PromQL", '{"Inf"}'),
    ("föö", 1, 2, "'ö'", "quoted"),
    ("a..b", 1, 2, "'.'", "quoted"),
    ('a{quantile=~"0.5|0.9"}', 1, 3, "quantile", 'quantile="0.95"'),
    ('a{quantile!="0.5"}', 1, 3, "quantile", 'quantile="0.95"'),
    ('a{quantile="1.01"}', 1, 12, "0 to 1", 'quantile="0.95"'),
    ('a{quantile="high"}', 1, 12, "0 to 1", 'quantile="0.95"'),
    ('a{quantile="0.5",quantile="0.9"}', 1, 18, "second quantile", "one quantile"),
]


@pytest.mark.parametrize(("text", "line", "column", "problem", "remedy"), REFUSED)
def test_what_is_no_selector_is_refused_where_it_stops_to_be_one(
    text: str, line: int, column: int, problem: str, remedy: str
) -> None:
    """The error names the problem, its line and column, and what to write instead."""
    with pytest.raises(QueryError) as caught:
        parse_selector(text)
    error = caught.value
    assert (error.line, error.column) == (line, column), error
    assert error.offset == len("".join(text.splitlines(keepends=True)[: line - 1])) + column - 1
    assert problem in error.problem
    assert remedy in error.remedy
    assert str(error) == f"{line}:{column}: {error.problem}: {error.remedy}"


PAY = Series(Kind.COUNTER, "api.latency", ["route:/pay", "env:prod", "bare"])

# (selector, whether it selects PAY)
SELECTED = [
    ("api.latency", True),
    ("api_latency", True),
    ("api:latency", False),
    ("api.latenc", False),
    ("latency", False),
    ('{__name__=~"api.lat.*"}', True),
    ('{__name__=~"api_lat.*"}', True),
    ('{__name__=~"api"}', False),
    ('{__name__!~"api_.*",env="prod"}', False),
    ('{__name__!~"api[.].*",env="prod"}', False),
    ('{__name__!="api_latency",env="prod"}', False),
    ('{__name__!="other",env="prod"}', True),
    ('api.latency{route="/pay"}', True),
    ('api.latency{route="/pa"}', False),
    ('api.latency{route=~"/p"}', False),
    ('api.latency{route=~"/p.*|x"}', True),
    ('api.latency{route!~"/p.*"}', False),
    ('api.latency{route!="/cart"}', True),
    ('api.latency{route="/pay",env="test"}', False),
    ('api.latency{bare=""}', True),
    ('api.latency{missing=""}', True),
    ('api.latency{missing!=""}', False),
    ('api.latency{missing!~".+"}', True),
    ('api.latency{missing=~".*"}', True),
    ('api.latency{kind="counter"}', True),
    ('api.latency{kind=~"gauge|set"}', False),
    ('{kind="counter"}', True),
    ('api.latency{quantile="0.5"}', False),
    ('api.latency{quantile=""}', True),
]


@pytest.mark.parametrize(("text", "selected"), SELECTED)
def test_matchers_select_as_prometheus_does(text: str, selected: bool) -> None:
    """Regular expressions match whole values; a label that is not there is empty; names match both ways."""
    assert parse_selector(text).matches(PAY) is selected


def test_kind_is_a_label_of_every_series_unless_a_client_sent_one() -> None:
    """Each kind has its word; a tag of that name is what counts on the series that carries it."""
    for kind, word in (("c", "counter"), ("g", "gauge"), ("t", "timer"), ("s", "set")):
        selector = parse_selector(f'a{{kind="{word}"}}')
        assert [k.value for k in Kind if selector.matches(Series(k, "a"))] == [kind]
    tagged = Series(Kind.COUNTER, "a", ["kind:special"])
    assert parse_selector('a{kind="special"}').matches(tagged)
    assert not parse_selector('a{kind="counter"}').matches(tagged)


def test_quantile_selects_all_timers_and_filters_the_other_kinds() -> None:
    """On a timer it is an instruction; a gauge that a client tagged with it is found by its tag."""
    selector = parse_selector('a{quantile="0.95"}')
    assert selector.quantile is not None
    assert selector.quantile.value == 0.95
    assert selector.matches(Series(Kind.TIMER, "a"))
    assert selector.matches(Series(Kind.GAUGE, "a", ["quantile:0.95"]))
    assert not selector.matches(Series(Kind.GAUGE, "a", ["quantile:0.5"]))
    assert not selector.matches(Series(Kind.GAUGE, "a"))
    assert parse_selector('a{quantile=""}').matches(Series(Kind.TIMER, "a"))


def test_repeated_tags_match_as_their_joined_value() -> None:
    """DogStatsD tags are a set; a label has one value."""
    series = Series(Kind.COUNTER, "a", ["x:2", "x:1"])
    assert parse_selector('a{x="1,2"}').matches(series)
    assert not parse_selector('a{x="1"}').matches(series)


def test_a_hostile_regular_expression_takes_linear_time() -> None:
    """What holds Python's own engine for ages is matched at once."""
    selector = parse_selector('a{x=~"(a*)*b|(a|a)*c|(a|aa)+d"}')
    series = Series(Kind.COUNTER, "a", ["x:" + "a" * 200])
    started = time.perf_counter()
    assert not selector.matches(series)
    assert time.perf_counter() - started < 1.0


def test_an_error_never_repeats_a_long_expression() -> None:
    """The libraries quote the expression in their messages; ours go to logs and answers and stay short."""
    for text in ('a{x=~"' + "(" * 20_000 + '"}', "a[" + "1" * 20_000 + "x]", 'a{x="\\' + "q" * 20_000 + '"}'):
        with pytest.raises(QueryError) as caught:
            parse_selector(text)
        assert len(str(caught.value)) < 500


_WORDS = [
    "a",
    "a.b",
    "or",
    "on",
    "offset",
    "quantile",
    "=~",
    "!~",
    "!=",
    "5m",
    "1h30m",
    "99999999999999999999y",
]
_PIECES = st.sampled_from([*"{}[](),=:-@'\"\\ é\0", *_WORDS, '"x"', '"("', "`y`", "#c\n"])


@settings(max_examples=500, deadline=None)
@given(st.one_of(st.text(max_size=40), st.lists(_PIECES, max_size=14).map("".join)))
def test_any_text_is_read_or_refused_with_a_place_in_it(text: str) -> None:
    """No text raises anything but QueryError, and its position lies within the text."""
    try:
        selector = parse_selector(text)
    except QueryError as error:
        assert 0 <= error.offset <= len(text)
        assert error.line >= 1
        assert error.column >= 1
    else:
        selector.matches(PAY)
