"""The line that grows while packets are sent: on a terminal only, and never among the data."""

from __future__ import annotations

import sys
from typing import Final

from benchmarks.sending import Progress

_WIDTH: Final = 30


def bar(seconds: float) -> Progress | None:
    """Shows how far a run of so many seconds is; None where nobody watches."""
    if not sys.stderr.isatty():
        return None

    def show(elapsed: float, lines: int) -> None:
        share = min(1.0, elapsed / seconds)
        full = round(share * _WIDTH)
        rate = lines / elapsed / 1e6 if elapsed else 0.0
        sys.stderr.write(
            f"\r[{'#' * full}{'.' * (_WIDTH - full)}] {share:4.0%}  {lines:,} lines, {rate:.2f} M/s \x1b[K"
        )
        sys.stderr.flush()

    return show


def clear() -> None:
    """Leaves a clean line behind."""
    if sys.stderr.isatty():
        sys.stderr.write("\r\x1b[K")
        sys.stderr.flush()
