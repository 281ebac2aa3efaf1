"""How a log line reads, and how often: key=value texts, one line for many of a kind.

The modules that log do so through the standard `logging`; here is only the shape of what they say.
"""

from __future__ import annotations

import json
from dataclasses import dataclass


def event(name: str, /, **fields: object) -> str:
    """One log line: event("listener.open", url="udp://[::1]:8125") -> listener.open url=udp://[::1]:8125

    A value that holds blanks, quotes, "=" or control characters is quoted as JSON does, so a line stays a
    line whatever a client put into it. A float is shown to the millisecond.
    """
    return " ".join([name, *(f"{key}={_shown(value)}" for key, value in fields.items())])


def _shown(value: object) -> str:
    text = f"{value:.3f}" if isinstance(value, float) else str(value)
    if not text or any(c in '"=\\' or c.isspace() or not c.isprintable() for c in text):
        return json.dumps(text)
    return text


@dataclass(slots=True)
class Every:
    """Lets one of a kind through every `seconds` and counts what it held back since the last."""

    seconds: float
    _last: float = float("-inf")
    _held: int = 0

    def admit(self, now: float) -> int | None:
        """How many were held back since the last one that was let through; None to hold this one."""
        if now - self._last < self.seconds:
            self._held += 1
            return None
        self._last = now
        held, self._held = self._held, 0
        return held
