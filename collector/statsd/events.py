r"""Events and service checks, which are lines of their own.

    _e{5,4}:title|text|d:1656581400|h:host|k:key|p:low|s:source|t:error|#tag,tag
       ^ ^  ^     ^
       | |  |     text, that many bytes
       | |  title, that many bytes
       lengths in bytes of UTF-8

    _sc|name|2|d:1656581400|h:host|#tag,tag|m:what happened, up to the end of the line

Datadog's clients put their origin (`|c:`, `|e:`, `|card:`) behind the message, which the message does not
swallow, and write an "m:" within it as "m\:".

Since an event says how long it is, it may hold what a line may not: pipes, and from some clients raw
newlines. Clients write a newline in a text as the two characters "\n"; it is turned back here.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

from collector.model import Check, Event
from collector.statsd.names import parse_tags, with_defaults
from collector.statsd.numbers import shown
from collector.statsd.refusal import Refusal

EVENT: Final = b"_e{"
_RARE: Final = b"{"  # of its bytes
CHECK: Final = b"_sc|"

_EVENT_HEADER: Final = re.compile(rb"_e\{([0-9]{1,9}),([0-9]{1,9})\}:")
_TIMESTAMP: Final = re.compile(rb"[0-9]{1,12}")
_PRIORITIES: Final = {"normal", "low"}
_ALERTS: Final = {"error", "warning", "info", "success"}
_ORIGIN: Final = re.compile(rb"(?:c|e|card):\S*")
_ORIGIN_FIELDS: Final = 3  # each once


def may_hold_event(data: bytes) -> bool:
    """Whether an event may start anywhere in the data.

    A single byte is looked for some fifty times as fast as three, and lines of metrics hold no brace.
    """
    return _RARE in data and EVENT in data


def event_end(data: bytes, start: int) -> int | None:
    """Where the title and text of the event at `start` end, by its own lengths.

    None if there is no event of these lengths. The offset may lie beyond the data: then the event is cut
    short, or has not all arrived.
    """
    header = _EVENT_HEADER.match(data, start)
    if header is None:
        return None
    middle = header.end() + int(header[1])
    end = middle + 1 + int(header[2])
    fits = data[middle : middle + 1] in (b"", b"|") and data[end : end + 1] in (b"", b"|", b"\r", b"\n")
    return end if fits else None


def parse_event(line: bytes, tags: Sequence[str] = ()) -> tuple[Event, list[str]]:
    """(event, odd parts) of one event, without its LF; Refusal `bad_event` otherwise.

    `tags` are those of the listener.
    """
    line = line.removesuffix(b"\r")
    header = _EVENT_HEADER.match(line)
    if header is None:
        raise Refusal("bad_event", len(EVENT), "no lengths in braces")
    middle = header.end() + int(header[1])
    end = middle + 1 + int(header[2])
    if end > len(line) or line[middle : middle + 1] != b"|" or line[end : end + 1] not in (b"", b"|"):
        raise Refusal("bad_event", len(EVENT), "lengths that do not fit the title and text")
    if header.end() == middle:
        raise Refusal("bad_event", len(EVENT), "an empty title")
    values, own, odd = _fields(line[end + 1 :], b"dhkpst", "bad_event", end + 1)
    event = Event(
        title=_text(line[header.end() : middle]),
        text=_text(line[middle + 1 : end]),
        at=_seconds(values.get("d")),
        host=values.get("h", ""),
        aggregation_key=values.get("k", ""),
        priority=_one_of(values.get("p"), _PRIORITIES, "normal", odd),
        source=values.get("s", ""),
        alert=_one_of(values.get("t"), _ALERTS, "info", odd),
        tags=_sorted(own, tags),
    )
    return event, odd


def parse_check(line: bytes, tags: Sequence[str] = ()) -> tuple[Check, list[str]]:
    """(service check, odd parts) of one line; Refusal `bad_check` otherwise.

    `tags` are those of the listener.
    """
    line = line.removesuffix(b"\r")
    name, _, rest = line[len(CHECK) :].partition(b"|")
    status, _, rest = rest.partition(b"|")
    at = len(CHECK) + len(name) + 1
    if not name:
        raise Refusal("bad_check", len(CHECK), "an empty name")
    if status not in (b"0", b"1", b"2", b"3"):
        raise Refusal("bad_check", at, f"status {shown(status)}")
    # The message comes last and may hold pipes: everything from "m:" on is its own, but for the origin.
    head, _, message = (b"|" + rest).partition(b"|m:")
    message = _without_origin(message).replace(b"m\\:", b"m:")
    values, own, odd = _fields(head[1:], b"dh", "bad_check", at + len(status) + 1)
    check = Check(
        name=_text(name),
        status=int(status),
        at=_seconds(values.get("d")),
        host=values.get("h", ""),
        message=_text(message),
        tags=_sorted(own, tags),
    )
    return check, odd


def _without_origin(message: bytes) -> bytes:
    for _ in range(_ORIGIN_FIELDS):
        before, bar, last = message.rpartition(b"|")
        if not bar or not _ORIGIN.fullmatch(last):
            break
        message = before
    return message


def _fields(raw: bytes, known: bytes, reason: str, at: int) -> tuple[dict[str, str], list[str], list[str]]:
    """({letter: value}, tags, odd parts) of the fields after the fixed part."""
    values: dict[str, str] = {}
    tags: list[str] = []
    odd: list[str] = []
    for text in raw.split(b"|") if raw else ():
        letter, colon, value = text[:1], text[1:2], text[2:]
        if letter == b"#":
            found, changed = parse_tags(text[1:])
            tags.extend(found)
            odd.extend(["bad_tag"] if changed else [])
        elif colon == b":" and letter and letter in known:
            if letter.decode() in values:
                odd.append("dup_field")
            values[letter.decode()] = _text(value)
        elif not text.startswith((b"c:", b"e:", b"card:")):
            odd.append("unknown_field")
    if "d" in values and not _TIMESTAMP.fullmatch(values["d"].encode()):
        raise Refusal(reason, at, f"timestamp {values['d'][:40]!r}")
    return values, tags, odd


def _sorted(own: Sequence[str], listener: Sequence[str]) -> tuple[str, ...]:
    return tuple(sorted(set(with_defaults(own, listener))))


def _seconds(text: str | None) -> int | None:
    return None if text is None else int(text)


def _one_of(text: str | None, words: set[str], otherwise: str, odd: list[str]) -> str:
    if text is None or text in words:
        return text or otherwise
    odd.append("unknown_field")
    return otherwise


def _text(raw: bytes) -> str:
    return raw.decode("utf-8", "replace").replace("\\n", "\n")
