"""A line as the grammar reads it, for people: what it says, or where its fault is."""

from __future__ import annotations

import unicodedata
from dataclasses import asdict, dataclass, field
from typing import Any

from collector.model import Kind
from collector.statsd.events import CHECK, EVENT, parse_check, parse_event
from collector.statsd.lines import Bit, Move, Profile, parse_line
from collector.statsd.refusal import ODD, Refusal

_KINDS = {Kind.COUNTER: "counter", Kind.GAUGE: "gauge", Kind.TIMER: "timer", Kind.SET: "set"}


@dataclass(slots=True)
class Explanation:
    """What a line says; `parts` are metrics, events or checks as plain data."""

    line: bytes
    parts: list[dict[str, Any]] = field(default_factory=list)
    odd: list[str] = field(default_factory=list)
    refusals: list[Refusal] = field(default_factory=list)

    def data(self) -> dict[str, Any]:
        """The explanation for programs."""
        return {
            "line": _escaped(self.line),
            "parts": self.parts,
            "odd": self.odd,
            "refused": [
                {"reason": one.reason, "at": one.at, "message": one.message} for one in self.refusals
            ],
        }

    def text(self) -> str:
        """The explanation for people."""
        rows = [_part_text(part) for part in self.parts]
        rows += [f"odd: {reason}: {ODD[reason]}" for reason in self.odd]
        for refusal in self.refusals:
            before = _escaped(self.line[: refusal.at])
            rows += [_escaped(self.line), f"{' ' * _width(before)}^ {refusal.reason}: {refusal.message}"]
        return "\n".join(rows)


def explain(line: bytes, profile: Profile) -> Explanation:
    """Reads one line, without its newline."""
    found = Explanation(line)
    try:
        if line.startswith(EVENT):
            event, found.odd = parse_event(line)
            found.parts.append({"kind": "event", **asdict(event)})
        elif line.startswith(CHECK):
            check, found.odd = parse_check(line)
            found.parts.append({"kind": "check", **asdict(check)})
        else:
            parsed = parse_line(line, profile)
            found.parts = [_metric(bit) for bit in parsed.bits]
            found.odd = [reason for bit in parsed.bits for reason in bit.head.odd]
            found.refusals = parsed.refusals
    except Refusal as refusal:
        found.refusals.append(refusal)
    return found


def _metric(bit: Bit) -> dict[str, Any]:
    head = bit.head
    values: list[Any] = []
    for value in bit.values:
        if isinstance(value, Move):
            values.append({"move": value.by})
        else:
            values.append(value.decode("utf-8", "backslashreplace") if isinstance(value, bytes) else value)
    return {
        "kind": _KINDS[head.kind],
        "name": head.name,
        "values": values,
        "rate": 1 / head.weight,
        "weight": head.weight,
        "tags": sorted(set(head.tags)),
        "timestamp": head.timestamp,
    }


def _part_text(part: dict[str, Any]) -> str:
    rows = []
    for name, value in part.items():
        title = name
        if value in (None, "", [], ()) or (name in ("rate", "weight") and value == 1):
            continue
        if name == "values":
            shown = ", ".join(
                f"moves by {one['move']:+}" if isinstance(one, dict) else str(one) for one in value
            )
            title = "value" if len(value) == 1 else "values"
        elif isinstance(value, list | tuple):
            shown = ", ".join(map(str, value))
        elif isinstance(value, float):
            shown = f"{value:g}"
        else:
            shown = str(value)
        rows.append(f"{title:<10} {_printable(shown)}")
    return "\n".join(rows)


def _escaped(line: bytes) -> str:
    """A line as a terminal may show it: no control characters, bytes that are no UTF-8 as \\xNN."""
    return _printable(line.decode("utf-8", "backslashreplace"))


def _printable(text: str) -> str:
    """A text that cannot steer the terminal that shows it: a client may send any byte in it."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def _width(text: str) -> int:
    """Columns that a text takes in a terminal: wide characters take two, combining ones none."""
    marks, wide = ("Mn", "Me"), ("W", "F")
    return sum(
        0 if unicodedata.category(c) in marks else 2 if unicodedata.east_asian_width(c) in wide else 1
        for c in text
    )
