"""TCP: lines out of byte streams. A listener never answers.

All connections of a listener read into one buffer. That is safe because asyncio and uvloop call `get_buffer`,
read, and call `buffer_updated` without letting another connection in between, and what is kept of a partial
line is copied out at once. So a thousand idle connections cost a thousand empty line buffers and no more.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import time
from collections.abc import Callable
from typing import Any, Final, cast

from collector.engine import Engine, Limits
from collector.listeners.base import Listener, profile_of
from collector.listeners.settings import ListenerSettings
from collector.listeners.sockets import bind, shown
from collector.logfmt import Every, event
from collector.statsd.framing import LineStream

log = logging.getLogger(__name__)

_READ: Final = 256 * 1024  # bytes read at a time
_BACKLOG: Final = 1024  # connections that the kernel holds until they are accepted
_QUIET: Final = 0.05  # a stop waits until no data has come for so long,
_DRAIN: Final = 1.0  # but at most so long
_LOG_SECONDS: Final = 60.0


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
        self.last_data = 0.0
        self._servers: list[asyncio.Server] = []
        self._sweep: asyncio.TimerHandle | None = None
        self._refusal_log = Every(_LOG_SECONDS)

    async def open(self) -> None:
        """Binds and accepts; OperatorError if the address cannot be had."""
        loop = asyncio.get_running_loop()
        for sock in bind(self.settings.url, socket.SOCK_STREAM):
            address = shown("tcp", sock)
            self._servers.append(
                await loop.create_server(lambda: _Connection(self), sock=sock, backlog=_BACKLOG)
            )
            self.addresses.append(address)
            log.info(event("listener.open", url=address, max_connections=self.settings.max_connections))
        self._sweep_later()

    def admit(self, connection: _Connection) -> bool:
        """Counts a new connection; False when there are too many."""
        self.connections_total += 1
        if len(self.connections) < self.settings.max_connections:
            self.connections.add(connection)
            return True
        self.refused_connections += 1
        held = self._refusal_log.admit(time.monotonic())
        if held is not None:
            limit = self.settings.max_connections
            log.warning(event("listener.full", url=self.url, max_connections=limit, refused=held + 1))
        return False

    def take(self, data: bytes, sender: Any) -> None:
        """Hands whole lines to the engine."""
        if data:
            self.lines += self.engine.ingest(self.profile, data, sender, self.clock())

    def _sweep_later(self) -> None:
        delay = max(0.1, self.settings.idle_timeout / 4)
        self._sweep = asyncio.get_running_loop().call_later(delay, self._sweep_idle)

    def _sweep_idle(self) -> None:
        """Closes what has been silent for too long: one timer for all connections."""
        oldest = time.monotonic() - self.settings.idle_timeout
        for connection in list(self.connections):
            if connection.last_data < oldest:
                self.idle_closed += 1
                connection.close()
        self._sweep_later()

    async def drain(self) -> None:
        """Stops accepting, takes what open connections have sent, and their last lines."""
        for server in self._servers:
            server.close()
        end = time.monotonic() + _DRAIN
        self.last_data = time.monotonic()
        while self.connections and time.monotonic() < min(end, self.last_data + _QUIET):
            await asyncio.sleep(_QUIET / 5)
        for connection in list(self.connections):
            connection.close()

    async def close(self) -> None:
        """Closes the sockets."""
        if self._sweep is not None:
            self._sweep.cancel()
        for server in self._servers:
            server.close()
        for connection in list(self.connections):
            connection.close()
        await asyncio.sleep(0)  # transports close their sockets in the next turn of the loop

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

    def __init__(self, listener: TcpListener) -> None:
        self._listener = listener
        self._lines = LineStream(listener.longest_line)
        self._transport: asyncio.Transport | None = None
        self._sender: Any = ""
        self.last_data = time.monotonic()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._sender = transport.get_extra_info("peername") or ""
        if not self._listener.admit(self):
            self._transport.abort()
            return
        sock = transport.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)

    def get_buffer(self, sizehint: int) -> memoryview:
        return self._listener.buffer

    def buffer_updated(self, nbytes: int) -> None:
        listener = self._listener
        if self not in listener.connections:
            return  # refused, and not yet gone
        self.last_data = listener.last_data = time.monotonic()
        listener.packets += 1
        listener.bytes += nbytes
        before = self._lines.too_long
        data = self._lines.feed(bytes(listener.buffer[:nbytes]))
        if self._lines.too_long > before:
            start = bytes(listener.buffer[: min(nbytes, 64)])
            listener.lines += 1
            listener.engine.refuse("too_long", start, self._sender, listener.clock())
        listener.take(data, self._sender)

    def eof_received(self) -> bool:
        return False  # the transport closes; connection_lost takes the last line

    def connection_lost(self, exc: Exception | None) -> None:
        self.finish()

    def finish(self) -> None:
        """Takes the last line, which no newline closed, once."""
        if self in self._listener.connections:
            self._listener.connections.discard(self)
            self._listener.take(self._lines.end(), self._sender)

    def close(self) -> None:
        """Takes the last line and closes the connection."""
        self.finish()
        if self._transport is not None:
            self._transport.close()
