"""The event loop's turns within a long piece of work."""

from __future__ import annotations

import asyncio
import time
from typing import Final

_HOLD: Final = 0.003  # seconds between two of them


class Turns:
    """Counts from when it is made."""

    __slots__ = ("_held",)

    def __init__(self) -> None:
        self._held = time.monotonic()

    async def give(self) -> None:
        """Lets others run, if that was long ago."""
        if time.monotonic() - self._held > _HOLD:
            await asyncio.sleep(0)
            self._held = time.monotonic()
