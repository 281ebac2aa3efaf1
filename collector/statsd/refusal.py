"""Why a line was refused. A refusal belongs to the client's line and becomes a counter label."""

from __future__ import annotations

from typing import Final

# Label values of collector_lines_rejected_total{reason}, with what a user is told.
REASONS: Final[dict[str, str]] = {
    "empty_name": "the name before the first colon is empty",
    "empty_value": "the value is empty",
    "no_value": "there is no colon, so no value",
    "no_type": "there is no type after the value: add |c, |g, |ms, |h, |d or |s",
    "bad_type": "the type is none of c, g, ms, h, d, s",
    "bad_value": "the value is not a number as StatsD writes them",
    "non_finite": "the value is not finite, or too large for a double",
    "bad_rate": "the sample rate is not a number above 0 and at most 1",
    "bad_timestamp": "the timestamp after T is not a whole number of seconds",
    "stale_timestamp": "the timestamp lies outside the window in which samples are taken",
    "invalid_utf8": "the name is not valid UTF-8",
    "control_char": "the name holds a control character",
    "bad_name": 'the name holds something else than letters, digits, "_", "." and "-"',
    "too_long": "the line, name or tag list is longer than the limit",
    "cut_short": "the connection ended within a frame, so the end of the line is missing",
    "bad_event": "the event does not read as _e{title bytes,text bytes}:title|text",
    "bad_check": "the service check does not read as _sc|name|0..3",
    "dialect_off": "the name carries tags in a dialect that this listener does not speak",
    "rule_drop": "a rule drops this series",
    "cardinality": "the series would exceed a limit on the number of series",
    "overload": "too many lines waited to be read, or too many new names",
}

# Label values of collector_lines_odd_total{reason}: strange, but nothing was lost.
ODD: Final[dict[str, str]] = {
    "unknown_field": "a field is empty or of a kind that is not known here; it was skipped",
    "dup_field": "a field came twice; the last one counts",
    "bad_tag": "a tag had no key or held bytes that were replaced",
}


class Refusal(Exception):
    """One refused line, or one refused bit of a line; `at` is the offset in bytes of the fault.

    `limit` names the bound that was hit, where the line is refused for one.
    """

    def __init__(self, reason: str, at: int = 0, found: str = "", limit: str = "") -> None:
        super().__init__(reason)
        self.reason = reason
        self.at = at
        self.found = found
        self.limit = limit

    def shifted(self, by: int) -> Refusal:
        """A new refusal, as seen from `by` bytes further left."""
        return Refusal(self.reason, self.at + by, self.found, self.limit)

    @property
    def message(self) -> str:
        """What the user is told, in one line."""
        text = REASONS[self.reason]
        return f"{text} (found {self.found})" if self.found else text

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Refusal) and (self.reason, self.at) == (other.reason, other.at)

    __hash__ = Exception.__hash__

    def __repr__(self) -> str:
        return f"Refusal({self.reason!r}, at={self.at})"
