"""Metric lines and heads: each row of the grammar's table, and what a refusal tells."""

from __future__ import annotations

from collections import Counter

import pytest
from grammar_table import COARSE_RATES, DOGSTATSD, PLAIN, TABLE, Row, named, parsed

from collector.model import Kind
from collector.statsd.lines import Move, Profile, parse_head, parse_line, parse_value
from collector.statsd.numbers import parse_rate, weight_of
from collector.statsd.refusal import ODD, REASONS, Refusal


@pytest.mark.parametrize("row", TABLE, ids=named)
def test_lines_give_what_the_grammar_says(row: Row) -> None:
    """Good parts are kept with their exact values, bad parts counted by reason, odd ones by oddity."""
    result, reasons, odd = parsed(row.data, row.profile)
    assert result == row.result
    assert reasons == Counter(row.refused)
    assert odd == Counter(row.odd)


def test_every_reason_of_the_table_is_explained() -> None:
    """What is counted under a label has a sentence for the user."""
    assert {reason for row in TABLE for reason in row.refused} <= REASONS.keys()
    assert {reason for row in TABLE for reason in row.odd} <= ODD.keys()


@pytest.mark.parametrize(
    ("line", "reason", "at"),
    [
        (b"foo:1:x|c", "bad_value", 6),
        (b"foo:|c", "empty_value", 4),
        (b"foo:1:|c", "empty_value", 6),
        (b"foo:1|kv", "bad_type", 6),
        (b"foo:1|c|#a|@2", "bad_rate", 11),
        (b"foo:1|c|Tx", "bad_timestamp", 8),
        (b"foo:1|c:x|c", "bad_value", 8),
        (b"f\xc3\x28:1|c", "invalid_utf8", 1),
        (b"\xc3\xa9\x00:1|c", "control_char", 2),
        (b"\xc3\xa9,a=1:1|c", "dialect_off", 2),
        (b"foo:1", "no_type", 5),
        (b"foo|c", "no_value", 3),
        (b"|c", "empty_name", 0),
    ],
)
def test_a_refusal_points_at_the_fault(line: bytes, reason: str, at: int) -> None:
    """The offset is where the faulty bytes start, so that a user can be shown them."""
    assert parse_line(line, PLAIN).refusals == [Refusal(reason, at)]


def test_a_refusal_shows_what_was_found() -> None:
    """The message quotes the faulty part, escaped and cut."""
    (refusal,) = parse_line(b"foo:1\x1b" + b"9" * 90 + b"|c", PLAIN).refusals
    assert refusal.message == f"{REASONS['bad_value']} (found '1\\x1b{'9' * 38}')"


def test_all_faults_of_a_line_are_told_in_order() -> None:
    """One bad bit does not hide the next."""
    faults = parse_line(b"foo:x|c:2|kv:|c:1|c|@2", PLAIN).refusals
    assert [fault.reason for fault in faults] == ["bad_value", "bad_type", "empty_value", "bad_rate"]


@pytest.mark.parametrize(
    ("name", "tail"),
    [
        (b"foo", b"c:2|c"),  # several bits
        (b"foo", b"c|@0.5:2|c"),
        (b"foo", b"c|T1656581400"),  # a new head each second
    ],
)
def test_what_is_new_each_time_is_no_head(name: bytes, tail: bytes) -> None:
    """Such lines are read whole, and no table of heads fills up with them."""
    assert parse_head(name, tail, PLAIN) is None


def test_a_head_says_all_but_the_value() -> None:
    """Kind, weight, tags and oddities of a head hold for each of its values."""
    head = parse_head(b"api.latency", b"ms|@0.1||#route:/pay\r", PLAIN)
    assert head is not None
    assert (head.name, head.kind, head.weight) == ("api.latency", Kind.TIMER, 10.0)
    assert (head.tags, head.odd) == (["route:/pay"], ["unknown_field"])


def test_the_sign_of_a_gauge_depends_on_the_listener() -> None:
    """A sign moves in `statsd` mode and is part of the number in `dogstatsd` mode."""
    assert parse_value(b"-3", Kind.GAUGE, PLAIN) == Move(-3)
    assert parse_value(b"-3", Kind.GAUGE, DOGSTATSD) == -3
    assert parse_value(b"-3", Kind.COUNTER, PLAIN) == -3


def test_a_line_over_the_limit_is_refused_for_its_length() -> None:
    """The limit is in bytes, a trailing CR included; up to it a line is read."""
    profile = Profile(longest_line=8)
    assert parse_line(b"foo:12|c", profile).refusals == []
    (refusal,) = parse_line(b"foo:12|c\r", profile).refusals
    assert (refusal.reason, refusal.limit) == ("too_long", "line")


@pytest.mark.parametrize(
    ("rate", "weight"), [(0.5, 2.0), (0.1, 10.0), (1e-5, 1e5), (1e-9, 1e9), (0.3, 1 / 0.3), (0.07, 1 / 0.07)]
)
def test_a_rate_that_means_a_whole_number_weighs_one(rate: float, weight: float) -> None:
    """1/0.00001 is not quite 100000 in doubles; sampled counters stay integers all the same."""
    assert weight_of(rate) == weight


def test_the_smallest_rate_is_still_taken() -> None:
    """`min_sample_rate` is the smallest that is good."""
    assert parse_rate(b"0.000001", COARSE_RATES.min_sample_rate) == 1e-6
    with pytest.raises(Refusal):
        parse_rate(b"0.00000099", COARSE_RATES.min_sample_rate)
