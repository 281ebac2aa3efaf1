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

    async def of(self, host: str) -> str:
        """The name of a numeric address."""
        try:
            async with asyncio.timeout(_SECONDS), self._free:
                found = await asyncio.get_running_loop().getnameinfo((host, 0), socket.NI_NAMEREQD)
                return str(found[0])
        except (OSError, TimeoutError) as error:
            log.debug(event("listener.no_host_name", address=host, error=error))
            return host
