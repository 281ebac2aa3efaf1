"""IP addresses to host names, a few at a time."""

from __future__ import annotations

import asyncio
import logging
import socket
from typing import Final

from collector.logfmt import event

log = logging.getLogger(__name__)

_AT_ONCE: Final = 8  # look-ups; each may hold a thread for as long as the resolver likes
_SECONDS: Final = 2.0  # that lines wait for a name


class HostNames:
    """Reverse look-ups; an address without a name, or whose name takes too long, stays an address."""

    def __init__(self) -> None:
        self._free = asyncio.Semaphore(_AT_ONCE)
        self._waiting = 0
        self._idle = asyncio.Event()
        self._idle.set()

    async def of(self, host: str) -> str:
        """The name of a numeric address."""
        self._waiting += 1
        self._idle.clear()
        try:
            async with asyncio.timeout(_SECONDS), self._free:
                found = await asyncio.get_running_loop().getnameinfo((host, 0), socket.NI_NAMEREQD)
                return str(found[0])
        except (OSError, TimeoutError) as error:
            log.debug(event("listener.no_host_name", address=host, error=error))
            return host
        finally:
            self._waiting -= 1
            if not self._waiting:
                self._idle.set()

    async def idle(self) -> None:
        """Waits until no look-up is under way."""
        await self._idle.wait()
        await asyncio.sleep(0)  # for what was waiting for the last of them
