"""One client of a stream listener.

All connections of a listener read into one buffer. That is safe because asyncio and uvloop call `get_buffer`,
read, and call `buffer_updated` without letting another connection in between, and what is kept of a partial
line is copied out at once. So a thousand idle connections cost a thousand empty line buffers and no more.
"""

from __future__ import annotations

import array
import asyncio
import contextlib
import fcntl
import logging
import socket
import ssl
import termios
import time
from typing import Any, Final, Protocol, cast

from collector.listeners.senders import Sender
from collector.logfmt import event
from collector.statsd.framing import AutoStream

log = logging.getLogger(__name__)

_HANDSHAKE: Final = 10.0  # seconds for a client to show that it speaks TLS
_GOODBYE: Final = 1.0  # seconds for it to answer that it is over
_DRAIN: Final = 1.0  # seconds to take what a TLS client has sent
_SHOWN_OF_LONG: Final = 64  # bytes


class Owner(Protocol):
    """The listener, as its connections know it."""

    buffer: memoryview
    longest_line: int

    def received(self, connection: Connection, count: int) -> None:
        """Counts a read of so many bytes."""
        ...

    def take(self, connection: Connection, data: bytes) -> None:
        """Takes whole lines."""
        ...

    def refuse(self, connection: Connection, reason: str, line: bytes) -> None:
        """Counts a line that was never whole."""
        ...

    def handshake_failed(self, connection: Connection, error: Exception) -> None:
        """Counts a client that did not get in."""
        ...

    def out_of_step(self, connection: Connection) -> None:
        """Closes a connection whose frames cannot be told apart."""
        ...

    def ended(self, connection: Connection) -> None:
        """Forgets a connection."""
        ...


class Connection(asyncio.BufferedProtocol):
    """One client. `peer` is what refused lines are shown with."""

    def __init__(self, owner: Owner, sock: socket.socket, sender: Sender, peer: Any) -> None:
        self.sender = sender
        self.peer = peer
        self.last_data = time.monotonic()
        self._owner = owner
        self._sock = sock
        self._tls = False
        self._stream = AutoStream(owner.longest_line)
        self._transport: asyncio.Transport | None = None
        self._over = False

    async def start(self, tls: ssl.SSLContext | None) -> None:
        """Gives the socket to a transport of the event loop, once its lines can be tagged."""
        self._tls = tls is not None
        try:
            if self.sender.naming is not None:
                await asyncio.wait({self.sender.naming})
            await asyncio.get_running_loop().connect_accepted_socket(
                lambda: self,
                self._sock,
                ssl=tls,
                ssl_handshake_timeout=_HANDSHAKE if tls else None,
                ssl_shutdown_timeout=_GOODBYE if tls else None,
            )
        except (OSError, TimeoutError) as error:  # ssl.SSLError is one of the first
            if tls is not None:
                self._owner.handshake_failed(self, error)
            else:  # the client has gone already
                log.debug(event("listener.connection_failed", error=error))
            self.finish()
            self._sock.close()

    def give_up(self) -> None:
        """Ends a handshake. To cancel it would leave the event loop with the descriptor."""
        if self._transport is None:
            with contextlib.suppress(OSError):
                self._sock.shutdown(socket.SHUT_RDWR)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        if self._over:
            transport.close()

    def get_buffer(self, sizehint: int) -> memoryview:
        return self._owner.buffer

    def buffer_updated(self, nbytes: int) -> None:
        self.last_data = time.monotonic()
        self._owner.received(self, nbytes)
        if self._over:
            return
        received = bytes(self._owner.buffer[:nbytes])
        before = self._stream.too_long
        for piece in self._stream.feed(received):
            self._owner.take(self, piece)
        if self._stream.too_long > before:
            start = received.rfind(b"\n") + 1
            self._owner.refuse(self, "too_long", received[start : start + _SHOWN_OF_LONG])
        if self._stream.broken:
            self._owner.out_of_step(self)

    def eof_received(self) -> bool:
        return False  # the transport closes; connection_lost takes the last line

    def connection_lost(self, exc: Exception | None) -> None:
        self.finish()

    def finish(self) -> None:
        """Takes the last line, which no newline closed, once."""
        if self._over:
            return
        self._over = True
        last = self._stream.end()
        if last and self._stream.framed:
            self._owner.refuse(self, "cut_short", last[:_SHOWN_OF_LONG])
        elif last:
            self._owner.take(self, last)
        self._owner.ended(self)

    async def drain(self) -> None:
        """Takes what the kernel holds of this client now, then closes; what the client adds is left."""
        if self._transport is None or self._transport.is_closing():
            self.finish()
        elif self._tls:
            await self._drain_tls()
        else:
            await self._drain_plain()
        self.close()

    async def _drain_plain(self) -> None:
        assert self._transport is not None
        self._transport.pause_reading()
        left = _queued(self._sock)
        while left > 0:
            try:
                count = self._sock.recv_into(self._owner.buffer)
            except OSError:  # nothing more, or a reset behind what has been read
                return
            if not count:
                return
            self.buffer_updated(count)
            left -= count
            await asyncio.sleep(0)

    async def _drain_tls(self) -> None:
        """Only the transport can read what is encrypted: it goes on until the kernel holds nothing."""
        end = time.monotonic() + _DRAIN
        while not self._over and _queued(self._sock) and time.monotonic() < end:
            await asyncio.sleep(0)
        await asyncio.sleep(0)

    def close(self) -> None:
        """Takes the last line and closes the connection."""
        self.finish()
        if self._transport is not None:
            self._transport.close()


def _queued(sock: socket.socket) -> int:
    """Bytes that the kernel has received for a stream and that nobody has read; 0 once it is closed."""
    if sock.fileno() < 0:
        return 0
    count = array.array("i", [0])
    fcntl.ioctl(sock.fileno(), termios.FIONREAD, count)
    return count[0]
