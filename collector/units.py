"""Quantities as people write them: durations ("10s"), sizes ("16MiB"), and how they are read and shown.

Settings hold plain numbers, annotated with the unit that reads them:

    flush_interval: Annotated[float, DURATION]     "10s" -> 10.0 seconds
    max_bytes: Annotated[int, SIZE]                "16MiB" -> 16777216 bytes

The annotation carries the two hooks by which pydantic asks a type for its schema; pydantic itself
is imported by `collector.config` only.
"""

from __future__ import annotations

import math
import re
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

_DURATIONS: Final = {
    "ms": 0.001,
    "s": 1.0,
    "m": 60.0,
    "h": 3600.0,
    "d": 86400.0,
    "w": 604800.0,
}  # Prometheus' units; a year is not a fixed number of seconds and is left out
_SIZES: Final = {
    "": 1,
    "B": 1,
    "kB": 10**3,
    "KB": 10**3,
    "MB": 10**6,
    "GB": 10**9,
    "KiB": 2**10,
    "MiB": 2**20,
    "GiB": 2**30,
    "TiB": 2**40,
}
_DURATION_PART: Final = re.compile(r"([0-9]+(?:\.[0-9]+)?)(ms|s|m|h|d|w)")
_BARE: Final = re.compile(r"[+-]?[0-9]+(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?")
_SIZE: Final = re.compile(r"([0-9]+(?:\.[0-9]+)?)\s*([A-Za-z]*)")


def parse_duration(text: object) -> float:
    """Seconds from "10s", "1h30m", "250ms", or a bare number of seconds; ValueError otherwise."""
    if isinstance(text, (int, float)) and not isinstance(text, bool):
        return _finite(text)
    if not isinstance(text, str):
        raise ValueError('not a duration: write it like "10s", "5m" or "1h30m"')
    compact = text.replace(" ", "")
    total, end = 0.0, 0
    for part in _DURATION_PART.finditer(compact):
        if part.start() != end:
            break
        total += float(part[1]) * _DURATIONS[part[2]]
        end = part.end()
    if compact and end == len(compact):
        return _finite(total)
    if _BARE.fullmatch(compact):  # `float` by itself also takes "1_000" and full-width digits
        return _finite(float(compact))
    raise ValueError(
        f'"{text}" is not a duration: write it like "10s", "5m" or "1h30m" (units: {", ".join(_DURATIONS)})'
    )


def _finite(seconds: float) -> float:
    """As a float; ValueError for what is none, an integer too large included."""
    if not -sys.float_info.max <= seconds <= sys.float_info.max:
        raise ValueError("a duration must be finite")
    return float(seconds)


def format_duration(seconds: float) -> str:
    """The shortest text that `parse_duration` reads back: 5400.0 -> "1h30m", 0.25 -> "250ms"."""
    if seconds == 0:
        return "0s"
    milliseconds = round(seconds * 1000)
    if seconds < 0 or not math.isclose(milliseconds / 1000, seconds, rel_tol=1e-9):
        return repr(seconds)  # finer than the units go: a bare number of seconds
    parts = []
    for unit in ("w", "d", "h", "m", "s", "ms"):
        span = round(_DURATIONS[unit] * 1000)
        count, milliseconds = divmod(milliseconds, span)
        if count:
            parts.append(f"{count}{unit}")
    return "".join(parts)


def parse_size(text: object) -> int:
    """Bytes from "16MiB", "512 kB" or a bare number of bytes; ValueError otherwise."""
    if isinstance(text, int) and not isinstance(text, bool):
        return text
    match = _SIZE.fullmatch(text) if isinstance(text, str) else None
    if match is None or match[2] not in _SIZES:
        raise ValueError(
            f'"{text}" is not a size: write it like "16MiB" or "512kB" '
            f"(units: {', '.join(unit for unit in _SIZES if unit)})"
        )
    count = float(match[1]) * _SIZES[match[2]]
    if not math.isfinite(count):
        raise ValueError("a size must be finite")
    return int(match[1]) * _SIZES[match[2]] if match[1].isdecimal() else round(count)


def format_size(count: float) -> str:
    """A size for people: 16777216 -> "16MiB", 1500 -> "1.46KiB"."""
    for unit in ("TiB", "GiB", "MiB", "KiB"):
        if abs(count) >= _SIZES[unit]:
            return f"{count / _SIZES[unit]:.3g}{unit}"
    return f"{count:.0f}B"


@dataclass(frozen=True, slots=True)
class Unit:
    """How a setting of this unit is read from text and described to an editor."""

    parse: Callable[[object], Any]
    format: Callable[[Any], str]
    pattern: str
    examples: tuple[str, ...]

    def __get_pydantic_core_schema__(self, source: Any, handler: Any) -> Any:
        """Reads the text first, then lets the bounds beside the annotation judge the number."""
        return {
            "type": "function-before",
            "function": {"type": "no-info", "function": self.parse},
            "schema": handler(source),
            "metadata": {"pydantic_js_functions": [self._json_schema]},
        }

    def _json_schema(self, schema: Any, handler: Any) -> dict[str, Any]:
        written = {"type": "string", "pattern": self.pattern, "examples": list(self.examples)}
        return {"anyOf": [written, {"type": "number", "minimum": 0}]}


DURATION: Final = Unit(
    parse_duration,
    format_duration,
    r"^([0-9]+(\.[0-9]+)?(ms|s|m|h|d|w) ?)+$",
    ("10s", "1h30m", "250ms"),
)
SIZE: Final = Unit(parse_size, format_size, r"^[0-9]+(\.[0-9]+)? ?([kKMG]B|[KMGT]iB|B)?$", ("16MiB", "512kB"))
