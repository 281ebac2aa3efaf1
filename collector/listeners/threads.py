"""Threads of the engine that empty datagram sockets, whatever the event loop is doing.

What a thread has to leave to Python waits in the engine; it writes to an eventfd, and the event loop settles
that, a turn at a time.
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import time
from typing import Final

from collector.engine import Engine, Reader
from collector.logfmt import event

log = logging.getLogger(__name__)

_TURN: Final = 0.005  # seconds of settling before the event loop goes round
_PIECES: Final = 64  # lines or heads that Python reads between two looks at the clock
_DRAIN: Final = 5.0  # seconds that a stop waits at most, for a socket that only gives errors


class ReaderThreads:
    """One thread for each socket of a listener; none where the engine has none."""

    def __init__(self, engine: Engine, url: str, profile: int) -> None:
        self._engine = engine
        self._url = url
        self._profile = profile
        self._readers: list[Reader] = []
        self._wake = -1  # the eventfd
        self._settling: asyncio.Handle | None = None

    def __bool__(self) -> bool:
        return bool(self._readers)

    def start(self, sock: socket.socket, buffer: int) -> bool:
        """Lets a thread empty a socket; False where there can be none.

        `buffer` is what the kernel holds for the socket, in bytes; 0 where it holds a few datagrams only.
        """
        if self._wake < 0 and hasattr(os, "eventfd"):
            self._wake = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        try:
            reader = self._engine.reader(sock.fileno(), self._wake, self._profile, buffer)
        except OSError as error:
            log.warning(event("listener.no_thread", url=self._url, error=error))
            return False
        if reader is None:
            return False
        if not self._readers:
            asyncio.get_running_loop().add_reader(self._wake, self._woken)
        self._readers.append(reader)
        return True

    def counts(self) -> tuple[int, int, int]:
        """(datagrams, bytes, lines) so far, lines that were left to Python and read there included."""
        packets = received = lines = 0
        for reader in self._readers:
            counts = reader.counts()
            packets += counts[0]
            received += counts[1]
            lines += counts[2]
        return packets, received, lines + self._engine.settled[self._profile]

    def _woken(self) -> None:
        os.eventfd_read(self._wake)
        self._settle()

    def _settle(self) -> None:
        self._settling = None
        end = time.monotonic() + _TURN
        while self._engine.settle(_PIECES):
            if time.monotonic() > end:
                self._settling = asyncio.get_running_loop().call_soon(self._settle)
                return

    async def drain(self) -> None:
        """Takes what the kernel holds by now, and ends."""
        for reader in self._readers:
            reader.end(at_once=False)
        end = time.monotonic() + _DRAIN
        while not all(reader.ended for reader in self._readers) and time.monotonic() < end:
            await asyncio.sleep(0.001)
        while self._engine.settle(_PIECES):
            await asyncio.sleep(0)

    def close(self) -> None:
        """Ends the threads, which must be over before their sockets are closed."""
        if self._settling is not None:
            self._settling.cancel()
        for reader in self._readers:
            reader.close()
        if self._wake >= 0:
            asyncio.get_running_loop().remove_reader(self._wake)
            os.close(self._wake)
            self._wake = -1
