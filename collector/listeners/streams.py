"""TCP and unix streams: lines out of byte streams. A listener never answers.

Connections are accepted here rather than by an `asyncio.Server`, whose close drops those that the kernel has
completed and nobody has accepted yet: their clients have connected and sent, and never learn of the loss.

Nobody can take all places: when they are full, a sender with fewer connections than another gets one of the
other's.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import time
from collections import Counter
from collections.abc import Callable
from typing import Any, Final

from collector.engine import Engine, Limits
from collector.listeners import unix
from collector.listeners.base import Listener
from collector.listeners.connection import Connection
from collector.listeners.senders import Sender
from collector.listeners.settings import ListenerSettings
from collector.listeners.sockets import BACKLOG, bind, shown
from collector.listeners.tls import ServerTls
from collector.logfmt import Every, event

log = logging.getLogger(__name__)

REFUSED: Final = ("full", "not_allowed", "tls")  # why a connection did not come about
CLOSED: Final = ("idle", "crowded", "framing")  # why one was ended from here

_READ: Final = 256 * 1024  # bytes read at a time
_ACCEPTED_AT_ONCE: Final = 64  # before the event loop goes round
_ACCEPT_PAUSE: Final = 1.0  # seconds, as in asyncio, until it is tried again without free descriptors
_LAST_HANDSHAKES: Final = 2.5  # seconds of a stop; longer than names are waited for
_LOG_SECONDS: Final = 60.0


class StreamListener(Listener):
    """A TCP address, which may be several sockets, or a unix stream socket."""

    def __init__(
        self, settings: ListenerSettings, engine: Engine, limits: Limits, clock: Callable[[], float]
    ) -> None:
        """OperatorError where the files of `tls` make no certificate."""
        super().__init__(settings, engine, limits, clock)
        self.longest_line = limits.line
        self.buffer = memoryview(bytearray(_READ))
        self.connections: set[Connection] = set()
        self.connections_total = 0
        self.refused_connections: Counter[str] = Counter()
        self.closed_connections: Counter[str] = Counter()
        self._tls = ServerTls(self.url, settings.tls) if settings.tls else None
        self._sockets: list[socket.socket] = []
        self._file: unix.SocketFile | None = None
        self._accepting = False
        self._crowd: int | None = None  # connections of the sender who has most, as of this turn
        self._making: set[asyncio.Task[Any]] = set()  # accepted, their transports not yet made
        self._timers: dict[object, asyncio.TimerHandle] = {}  # the sweep, and pauses of a socket
        self._logs = {what: Every(_LOG_SECONDS) for what in (*REFUSED, *CLOSED, "accept")}

    async def open(self) -> None:
        """Binds and accepts; OperatorError if the address cannot be had."""
        loop = asyncio.get_running_loop()
        settings = self.settings
        if settings.url.unix:
            self._file = unix.bind(settings.url, settings.mode)
            self._sockets = [self._file.sock]
            self.addresses = [self.url]
            log.info(event("listener.open", url=self.url, mode=settings.mode))
        else:
            self._sockets = bind(settings.url, socket.SOCK_STREAM)
            self.addresses = [shown("tcp", sock) for sock in self._sockets]
            for address in self.addresses:
                log.info(event("listener.open", url=address, max_connections=settings.max_connections))
        self._accepting = True
        for sock in self._sockets:
            loop.add_reader(sock.fileno(), self._accept, sock, _ACCEPTED_AT_ONCE)
        self._sweep_later()

    # ------------------------------------------------------------------ accepting

    def _accept(self, sock: socket.socket, most: int) -> None:
        """Takes connections that wait at a socket, so many at most."""
        self._crowd = None
        for _ in range(most):
            try:
                client, address = sock.accept()
            except (BlockingIOError, InterruptedError):
                return
            except ConnectionAbortedError:
                continue  # gone again while it waited
            except OSError as error:
                self._pause_accepting(sock, error)
                return
            self.connections_total += 1
            client.setblocking(False)
            if self.settings.url.unix:
                key = peer = unix.peer_process(client)
            else:
                client.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
                key, peer = address[0], address
            sender = self.senders.of(key)
            refused = self._refusal(sender)
            if refused:
                client.close()
                self._count(self.refused_connections, "refused", refused, sender)
            else:
                self._begin(Connection(self, client, sender, peer))

    def _begin(self, connection: Connection) -> None:
        self.connections.add(connection)
        connection.sender.connections += 1
        tls = self._tls.context() if self._tls else None
        making = asyncio.get_running_loop().create_task(connection.start(tls))
        self._making.add(making)
        making.add_done_callback(self._making.discard)

    def _refusal(self, sender: Sender) -> str:
        """Why a sender gets no connection; "" when it does, for which another may have to go."""
        if not sender.allowed:
            return "not_allowed"
        if len(self.connections) < self.settings.max_connections:
            return ""
        if self._crowd is None:  # looked for once a turn, for there may be many places
            self._crowd = max(connection.sender.connections for connection in self.connections)
        if sender.connections + 1 >= self._crowd:  # to take one would only turn the tables
            return "full"
        crowd = [one for one in self.connections if one.sender.connections == self._crowd]
        self._crowd = None
        if not crowd:
            return "full"
        self._end(min(crowd, key=lambda connection: connection.last_data), "crowded")
        return ""

    def _pause_accepting(self, sock: socket.socket, error: OSError) -> None:
        """No descriptor or memory is free. The socket stays readable, so looking on would spin."""
        held = self._logs["accept"].admit(time.monotonic())
        if held is not None:
            log.error(event("listener.accept_failed", url=self.url, error=error, failed=held + 1))
        if self._accepting:
            loop = asyncio.get_running_loop()
            loop.remove_reader(sock.fileno())
            self._timers[sock] = loop.call_later(
                _ACCEPT_PAUSE, loop.add_reader, sock.fileno(), self._accept, sock, _ACCEPTED_AT_ONCE
            )

    def _count(self, counter: Counter[str], what: str, reason: str, sender: Sender, **more: object) -> None:
        counter[reason] += 1
        held = self._logs[reason].admit(time.monotonic())
        if held is not None:
            name = f"listener.connection_{what}"
            log.warning(event(name, url=self.url, reason=reason, sender=sender.name, others=held, **more))

    # ------------------------------------------------------------------ what connections call

    def received(self, connection: Connection, count: int) -> None:
        """Counts a read."""
        self._packets += 1
        self._bytes += count

    def take(self, connection: Connection, data: bytes) -> None:
        """Hands whole lines to the engine, within what their sender may send."""
        self._lines += self.senders.take(connection.sender, data, connection.peer, self.clock())

    def refuse(self, connection: Connection, reason: str, line: bytes) -> None:
        """Counts a line that was never whole."""
        self._lines += 1
        self.engine.refuse(reason, line, connection.peer, self.clock())

    def handshake_failed(self, connection: Connection, error: Exception) -> None:
        """Counts a client that speaks no TLS, or whose certificate does not let it in."""
        self._count(self.refused_connections, "refused", "tls", connection.sender, error=error)

    def out_of_step(self, connection: Connection) -> None:
        """Closes a connection whose frames cannot be told apart."""
        self._end(connection, "framing")

    def ended(self, connection: Connection) -> None:
        """Forgets a connection."""
        self.connections.discard(connection)
        connection.sender.connections -= 1

    def _end(self, connection: Connection, reason: str) -> None:
        connection.close()
        self._count(self.closed_connections, "closed", reason, connection.sender)

    # ------------------------------------------------------------------ silence and stop

    def _sweep_later(self) -> None:
        delay = max(0.1, self.settings.idle_timeout / 4)
        self._timers[self] = asyncio.get_running_loop().call_later(delay, self._sweep_idle)

    def _sweep_idle(self) -> None:
        """Closes what has been silent for too long: one timer for all connections."""
        oldest = time.monotonic() - self.settings.idle_timeout
        for connection in list(self.connections):
            if connection.last_data < oldest:
                self.closed_connections["idle"] += 1
                connection.close()
        self._sweep_later()

    async def drain(self) -> None:
        """Stops accepting, takes what clients have sent by now, their last lines too, and closes them."""
        self._stop_accepting()
        if self._file is not None:
            self._file.remove()
        for sock in self._sockets:
            if sock.fileno() >= 0:
                self._accept(sock, BACKLOG + 1)  # the kernel lets one more wait
        await self._stop_making()
        for connection in list(self.connections):
            await connection.drain()

    async def close(self) -> None:
        """Closes the sockets."""
        self._stop_accepting()
        if self._file is not None:
            self._file.remove()
        for sock in self._sockets:
            sock.close()
        await self._stop_making()
        for connection in list(self.connections):
            connection.close()
        await asyncio.sleep(0)  # transports close their sockets in the next turn of the loop

    async def _stop_making(self) -> None:
        """Waits for connections that are about to be made; who is silent in his handshake is given up."""
        if self._making:
            _, late = await asyncio.wait(self._making, timeout=_LAST_HANDSHAKES)
            if late:
                for connection in self.connections:
                    connection.give_up()
                await asyncio.wait(late)

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
            "refused_connections": dict(self.refused_connections),
            "closed_connections": dict(self.closed_connections),
        }
