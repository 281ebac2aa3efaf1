"""TCP: lines out of byte streams. A listener never answers.

All connections of a listener read into one buffer. That is safe because asyncio and uvloop call `get_buffer`,
read, and call `buffer_updated` without letting another connection in between, and what is kept of a partial
line is copied out at once. So a thousand idle connections cost a thousand empty line buffers and no more.

Connections are accepted here rather than by an `asyncio.Server`, whose close drops those that the kernel has
completed and nobody has accepted yet: their clients have connected and sent, and never learn of the loss.
"""

from __future__ import annotations

import array
import asyncio
import fcntl
import logging
import socket
import termios
import time
from collections.abc import Callable
from typing import Any, Final, cast

from collector.engine import Engine, Limits
from collector.listeners.base import Listener, profile_of
from collector.listeners.settings import ListenerSettings
from collector.listeners.sockets import BACKLOG, bind, shown
from collector.logfmt import Every, event
from collector.statsd.framing import LineStream

log = logging.getLogger(__name__)

_READ: Final = 256 * 1024  # bytes read at a time

_ACCEPTED_AT_ONCE: Final = 64  # before the event loop goes round
_ACCEPT_PAUSE: Final = 1.0  # seconds, as in asyncio, until it is tried again without free descriptors
_LOG_SECONDS: Final = 60.0
_SHOWN_OF_LONG: Final = 64  # bytes


class TcpListener(Listener):
    """One TCP address, which may be several sockets."""

    def __init__(
        self, settings: ListenerSettings, engine: Engine, limits: Limits, clock: Callable[[], float]
    ) -> None:
        super().__init__(settings)
        self.engine = engine
        self.profile = engine.add_profile(profile_of(settings, limits))
        self.clock = clock
        self.longest_line = limits.line
        self.buffer = memoryview(bytearray(_READ))
        self.connections: set[_Connection] = set()
        self.connections_total = 0
        self.refused_connections = 0
        self.idle_closed = 0
        self._sockets: list[socket.socket] = []
        self._accepting = False
        self._making: set[asyncio.Task[Any]] = set()  # accepted, their transports not yet made
        self._timers: dict[object, asyncio.TimerHandle] = {}  # the sweep, and pauses of a socket
        self._refusal_log = Every(_LOG_SECONDS)
        self._accept_log = Every(_LOG_SECONDS)

    async def open(self) -> None:
        """Binds and accepts; OperatorError if the address cannot be had."""
        loop = asyncio.get_running_loop()
        self._accepting = True
        for sock in bind(self.settings.url, socket.SOCK_STREAM):
            self._sockets.append(sock)
            address = shown("tcp", sock)
            self.addresses.append(address)
            log.info(event("listener.open", url=address, max_connections=self.settings.max_connections))
            loop.add_reader(sock.fileno(), self._accept, sock, _ACCEPTED_AT_ONCE)
        self._sweep_later()

    def _accept(self, sock: socket.socket, most: int) -> None:
        """Takes connections that wait at a socket, so many at most."""
        for _ in range(most):
            try:
                peer, sender = sock.accept()
            except (BlockingIOError, InterruptedError):
                return
            except ConnectionAbortedError:
                continue  # gone again while it waited
            except OSError as error:
                self._pause_accepting(sock, error)
                return
            self.connections_total += 1
            if len(self.connections) >= self.settings.max_connections:
                peer.close()
                self._count_refused()
                continue
            peer.setblocking(False)
            peer.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            connection = _Connection(self, peer, sender)
            self.connections.add(connection)
            making = asyncio.get_running_loop().create_task(connection.start())
            self._making.add(making)
            making.add_done_callback(self._making.discard)

    def _pause_accepting(self, sock: socket.socket, error: OSError) -> None:
        """No descriptor or memory is free. The socket stays readable, so looking on would spin."""
        held = self._accept_log.admit(time.monotonic())
        if held is not None:
            log.error(event("listener.accept_failed", url=self.url, error=error, failed=held + 1))
        if self._accepting:
            loop = asyncio.get_running_loop()
            loop.remove_reader(sock.fileno())
            self._timers[sock] = loop.call_later(
                _ACCEPT_PAUSE, loop.add_reader, sock.fileno(), self._accept, sock, _ACCEPTED_AT_ONCE
            )

    def _count_refused(self) -> None:
        self.refused_connections += 1
        held = self._refusal_log.admit(time.monotonic())
        if held is not None:
            limit = self.settings.max_connections
            log.warning(event("listener.full", url=self.url, max_connections=limit, refused=held + 1))

    def take(self, data: bytes, sender: Any) -> None:
        """Hands whole lines to the engine."""
        if data:
            self.lines += self.engine.ingest(self.profile, data, sender, self.clock())

    def _sweep_later(self) -> None:
        delay = max(0.1, self.settings.idle_timeout / 4)
        self._timers[self] = asyncio.get_running_loop().call_later(delay, self._sweep_idle)

    def _sweep_idle(self) -> None:
        """Closes what has been silent for too long: one timer for all connections."""
        oldest = time.monotonic() - self.settings.idle_timeout
        for connection in list(self.connections):
            if connection.last_data < oldest:
                self.idle_closed += 1
                connection.close()
        self._sweep_later()

    async def drain(self) -> None:
        """Stops accepting, takes what clients have sent by now, their last lines too, and closes them."""
        self._stop_accepting()
        for sock in self._sockets:
            if sock.fileno() >= 0:
                self._accept(sock, BACKLOG + 1)  # the kernel lets one more wait
        if self._making:
            await asyncio.wait(self._making)
        for connection in list(self.connections):
            await connection.drain()

    async def close(self) -> None:
        """Closes the sockets."""
        self._stop_accepting()
        for sock in self._sockets:
            sock.close()
        if self._making:
            await asyncio.wait(self._making)
        for connection in list(self.connections):
            connection.close()
        await asyncio.sleep(0)  # transports close their sockets in the next turn of the loop

    def _stop_accepting(self) -> None:
        loop = asyncio.get_running_loop()
        self._accepting = False
        for timer in self._timers.values():
            timer.cancel()
        self._timers.clear()
        for sock in self._sockets:
            if sock.fileno() >= 0:
                loop.remove_reader(sock.fileno())

    def status(self) -> dict[str, Any]:
        """What /api/v1/status shows of it."""
        return {
            **super().status(),
            "connections": len(self.connections),
            "connections_total": self.connections_total,
            "refused_connections": self.refused_connections,
            "idle_closed": self.idle_closed,
        }


class _Connection(asyncio.BufferedProtocol):
    """One client."""

    def __init__(self, listener: TcpListener, sock: socket.socket, sender: Any) -> None:
        self._listener = listener
        self._sock = sock
        self._sender = sender
        self._lines = LineStream(listener.longest_line)
        self._transport: asyncio.Transport | None = None
        self.last_data = time.monotonic()

    async def start(self) -> None:
        """Gives the socket to a transport of the event loop."""
        try:
            await asyncio.get_running_loop().connect_accepted_socket(lambda: self, self._sock)
        except OSError as error:  # the client has gone already
            log.debug(event("listener.connection_failed", error=error))
            self.finish()
            self._sock.close()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    def get_buffer(self, sizehint: int) -> memoryview:
        return self._listener.buffer

    def buffer_updated(self, nbytes: int) -> None:
        listener = self._listener
        self.last_data = time.monotonic()
        listener.packets += 1
        listener.bytes += nbytes
        received = bytes(listener.buffer[:nbytes])
        before = self._lines.too_long
        data = self._lines.feed(received)
        listener.take(data, self._sender)
        if self._lines.too_long > before:
            start = received.rfind(b"\n") + 1
            listener.lines += 1
            listener.engine.refuse(
                "too_long", received[start : start + _SHOWN_OF_LONG], self._sender, listener.clock()
            )

    def eof_received(self) -> bool:
        return False  # the transport closes; connection_lost takes the last line

    def connection_lost(self, exc: Exception | None) -> None:
        self.finish()

    def finish(self) -> None:
        """Takes the last line, which no newline closed, once."""
        if self in self._listener.connections:
            self._listener.connections.discard(self)
            self._listener.take(self._lines.end(), self._sender)

    async def drain(self) -> None:
        """Takes what the kernel holds of this client now, then closes; what the client adds is left."""
        if self._transport is None or self._transport.is_closing():
            self.finish()
            return
        self._transport.pause_reading()
        left = _queued(self._sock)
        while left > 0:
            try:
                count = self._sock.recv_into(self._listener.buffer)
            except OSError:  # nothing more, or a reset behind what has been read
                break
            if not count:
                break
            self.buffer_updated(count)
            left -= count
            await asyncio.sleep(0)
        self.close()

    def close(self) -> None:
        """Takes the last line and closes the connection."""
        self.finish()
        if self._transport is not None:
            self._transport.close()


def _queued(sock: socket.socket) -> int:
    """Bytes that the kernel has received for a stream and that nobody has read."""
    count = array.array("i", [0])
    fcntl.ioctl(sock.fileno(), termios.FIONREAD, count)
    return count[0]
