"""Events and service checks as lines."""

from __future__ import annotations

import time

import pytest

from collector.model import Check, Event
from collector.statsd.events import event_end, parse_check, parse_event
from collector.statsd.refusal import Refusal

EVENTS = [
    (b"_e{5,4}:title|text", Event("title", "text"), []),
    (b"_e{5,4}:title|text\r", Event("title", "text"), []),
    (b"_e{5,0}:title|", Event("title", ""), []),
    ("_e{5,2}:títl|é".encode(), Event("títl", "é"), []),  # lengths are bytes
    (b"_e{5,4}:a|b|c|x|yz", Event("a|b|c", "x|yz"), []),
    (b"_e{5,4}:ab\ncd|text", Event("ab\ncd", "text"), []),
    (b"_e{6,6}:ab\\ncd|te\\nxt", Event("ab\ncd", "te\nxt"), []),
    (
        b"_e{5,4}:title|text|d:1656581400|h:host|k:key|p:low|s:source|t:error|#b:2,a:1,a:1|c:abc|e:x|card:low",
        Event("title", "text", 1656581400, "host", "key", "low", "source", "error", ("a:1", "b:2")),
        [],
    ),
    (b"_e{1,1}:a|b|#x|#y", Event("a", "b", tags=("x", "y")), []),
    (b"_e{1,1}:a|b|h:x|h:y", Event("a", "b", host="y"), ["dup_field"]),
    (b"_e{1,1}:a|b|t:loud", Event("a", "b"), ["unknown_field"]),
    (b"_e{1,1}:a|b||z:1", Event("a", "b"), ["unknown_field", "unknown_field"]),
    (b"_e{1,1}:a|b|#:v", Event("a", "b"), ["bad_tag"]),
    (b"_e{1,1}:\xff|b", Event("\ufffd", "b"), []),
]


@pytest.mark.parametrize(("line", "event", "odd"), EVENTS)
def test_events(line: bytes, event: Event, odd: list[str]) -> None:
    """Title and text are cut by their lengths; the fields behind them may come in any order."""
    assert parse_event(line) == (event, odd)


@pytest.mark.parametrize(
    "line",
    [
        b"_e{99,4}:title|text",
        b"_e{5,99}:title|text",
        b"_e{4,4}:title|text",
        b"_e{5,3}:title|text",
        b"_e{5,5}:title|text",
        b"_e{5,4}:title",
        b"_e{0,4}:|text",
        b"_e{5,4}title|text",
        b"_e{5}:title|text",
        b"_e{-5,4}:title|text",
        "_e{１,4}:title|text".encode(),
        b"_e{5,4}:title|text|d:soon",
        b"_e{9999999999,4}:title|text",
        b"_e{",
    ],
)
def test_an_event_that_does_not_fit_its_lengths_is_refused(line: bytes) -> None:
    """A wrong length never gives an event with a shifted text."""
    with pytest.raises(Refusal) as caught:
        parse_event(line)
    assert caught.value.reason == "bad_event"


CHECKS = [
    (b"_sc|name|1|#t:1|m:msg", Check("name", 1, message="msg", tags=("t:1",)), []),
    (b"_sc|jmx.can_connect|0", Check("jmx.can_connect", 0), []),
    (b"_sc|a|3\r", Check("a", 3), []),
    (b"_sc|a|2|d:1656581400|h:host|#b,a|m:down", Check("a", 2, 1656581400, "host", "down", ("a", "b")), []),
    (b"_sc|a|2|m:a|b|#no:tag|h:no", Check("a", 2, message="a|b|#no:tag|h:no"), []),
    (b"_sc|a|2|m:line 1\\nline 2", Check("a", 2, message="line 1\nline 2"), []),
    (b"_sc|a|2|m:", Check("a", 2), []),
    # What Datadog's client makes of the message "m: of a disk|99 %", with its container behind it
    (b"_sc|a|2|m:m\\: of a disk|99 %|c:abc|card:low", Check("a", 2, message="m: of a disk|99 %"), []),
    (b"_sc|a|2|c:abc|m:msg", Check("a", 2, message="msg"), []),
    (b"_sc|a|2|h:x|h:y", Check("a", 2, host="y"), ["dup_field"]),
    (b"_sc|a|2|x:1", Check("a", 2), ["unknown_field"]),
]


@pytest.mark.parametrize(("line", "check", "odd"), CHECKS)
def test_checks(line: bytes, check: Check, odd: list[str]) -> None:
    """The message comes last and holds pipes, but not the client's origin behind it."""
    assert parse_check(line) == (check, odd)


@pytest.mark.parametrize(
    "line", [b"_sc|", b"_sc|a", b"_sc|a|", b"_sc||0", b"_sc|a|4", b"_sc|a|-1", b"_sc|a|00", b"_sc|a|0|d:x"]
)
def test_a_check_without_name_or_known_status_is_refused(line: bytes) -> None:
    """A status beyond 0 to 3 is no status."""
    with pytest.raises(Refusal) as caught:
        parse_check(line)
    assert caught.value.reason == "bad_check"


@pytest.mark.parametrize(
    ("data", "end"),
    [
        (b"_e{5,4}:ab\ncd|text\nfoo:1|c", 18),
        (b"_e{5,4}:ab\ncd|text|#t", 18),
        (b"_e{5,4}:ab\nc", 18),  # not all here: it may still fit
        (b"_e{4,4}:ab\ncd|text", None),  # no bar where the title ends
        (b"_e{5,3}:ab\ncd|text", None),  # neither bar nor newline where the text ends
        (b"_event:1|c", None),
    ],
)
def test_where_an_event_ends(data: bytes, end: int | None) -> None:
    """Known from the header alone, and denied as soon as the bytes disprove it."""
    assert event_end(data, 0) == end


def test_a_hostile_check_costs_no_more_than_its_length() -> None:
    """A message full of what looks like origin fields does not hold the loop: the work is linear.

    A pattern that tries each of them anew takes the better part of a minute for this line; read from its end
    it takes less than a millisecond, so the bound tells the two apart on any machine.
    """
    started = time.process_time()
    check, _ = parse_check(b"_sc|x|0|m:" + b"|c:" * 43_000 + b" z")
    assert time.process_time() - started < 5
    assert check.message.endswith("|c: z")
