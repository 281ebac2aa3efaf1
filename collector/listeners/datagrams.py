"""UDP and unix datagrams: off the socket into the engine.

With the compiled engine a thread of its own empties each socket, unless each line is to be tagged with who
sends.

Else the event loop receives, without asyncio's transport in between: one wake-up of `add_reader` serves many
datagrams, where a protocol would be called for each. That loop is bounded in time, so that a flood leaves the
flush and the API their turn.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

from collector.engine import NOBODY, Engine, Limits
from collector.listeners import unix
from collector.listeners.base import Listener
from collector.listeners.senders import Drops
from collector.listeners.settings import ListenerSettings
from collector.listeners.sockets import DropCounter, bind, request_receive_buffer, shown
from collector.listeners.threads import ReaderThreads
from collector.logfmt import event

log = logging.getLogger(__name__)

_LARGEST: Final = 65536  # bytes; over IPv4 no datagram has more than 65507
_SMALLEST: Final = 512  # bytes of a receive buffer that even an empty datagram takes; Linux: about 768
_SHORT_QUEUE: Final = 128  # datagrams; Linux' own default is ten, systemd sets 512
_CREDENTIALS: Final = 64  # bytes for what the kernel says of a unix datagram's process
_TURN: Final = 0.005  # seconds of receiving before the event loop goes round
_DRAIN: Final = 5.0  # seconds that a stop waits at most, for a socket that only gives errors


@dataclass(slots=True)
class _Socket:
    """One bound socket. `receive` gives (datagram, peer)."""

    sock: socket.socket
    granted: int
    receive: Callable[[int], tuple[bytes, Any]]
    drops: DropCounter | None = None


class DatagramListener(Listener):
    """A UDP address, which may be several sockets, or a unix datagram socket."""

    _sockets: tuple[_Socket, ...] = ()
    _file: unix.SocketFile | None = None
    _take: Callable[[bytes, Any, float], int]

    def __init__(
        self, settings: ListenerSettings, engine: Engine, limits: Limits, clock: Callable[[], float]
    ) -> None:
        """`clock` tells wall time in seconds."""
        super().__init__(settings, engine, limits, clock)
        self._threads = ReaderThreads(engine, settings, self.senders)

    async def open(self) -> None:
        """Binds and starts to receive; OperatorError if the address cannot be had."""
        if self.settings.url.unix:
            self._open_unix()
        else:
            self._open_udp()
        loop = asyncio.get_running_loop()
        for one in self._sockets:
            if not self._start_thread(one):
                loop.add_reader(one.sock.fileno(), self._receive, one, _TURN)

    def _start_thread(self, one: _Socket) -> bool:
        """Lets a thread of the engine receive, where it can do all that the settings ask for."""
        if self.settings.url.unix:
            # It holds a few datagrams and makes its senders wait: never to be left for a while. Which process
            # they are of only Python asks.
            return not self.senders.matter and self._threads.start(one.sock, buffer=0)
        return not self.senders.tagged and self._threads.start(one.sock, one.granted)

    def _open_udp(self) -> None:
        wanted = self.settings.receive_buffer
        self._take = self._take_from_address if self.senders.matter else self._ingest()
        for sock in bind(self.settings.url, socket.SOCK_DGRAM):
            granted = request_receive_buffer(sock, wanted)
            self._sockets += (_Socket(sock, granted, sock.recvfrom, DropCounter(sock)),)
            address = shown("udp", sock)
            self.addresses.append(address)
            log.info(event("listener.open", url=address, receive_buffer=granted, requested=wanted))
        granted = min(one.granted for one in self._sockets)
        if granted < wanted:
            remedy = f"sysctl -w net.core.rmem_max={wanted}"
            log.warning(event("listener.small_buffer", url=self.url, granted=granted, remedy=remedy))

    def _open_unix(self) -> None:
        self._file = unix.bind(self.settings.url, self.settings.mode)
        sock = self._file.sock
        receive: Callable[[int], tuple[bytes, Any]] = sock.recvfrom
        ingest = self._ingest()
        if self.senders.matter and unix.ask_for_processes(sock):
            receive = partial(_receive_with_process, sock)
            ingest = self._take_from_process
        self._take = partial(self._take_whole, ingest)
        granted = sock.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF)
        self._sockets = (_Socket(sock, granted, receive),)
        self.addresses.append(self.url)
        queue = unix.queue_length()
        log.info(event("listener.open", url=self.url, mode=self.settings.mode, queue=queue))
        if queue is not None and queue < _SHORT_QUEUE:  # senders of a burst wait, or drop
            remedy = "sysctl -w net.unix.max_dgram_qlen=4096, then start again"
            log.warning(event("listener.short_queue", url=self.url, datagrams=queue, remedy=remedy))

    # ------------------------------------------------------------------ receiving

    def _receive(self, one: _Socket, seconds: float) -> bool:
        """Takes what the socket holds, for so long at most; whether it was emptied.

        `recvfrom` makes the bytes that the engine wants: 2.0 us a datagram of 1432 bytes over loopback, where
        `recvfrom_into` and a copy out of its buffer cost 2.3 us.
        """
        take, receive = self._take, one.receive
        now = self.clock()
        end = time.monotonic() + seconds
        packets = lines = received = 0
        emptied = False
        while True:
            try:
                data, peer = receive(_LARGEST)
            except (BlockingIOError, InterruptedError):
                emptied = True
                break
            except OSError as error:  # an ICMP error of an earlier peer; the socket lives on
                log.debug(event("listener.receive_error", error=error))
                break
            packets += 1
            received += len(data)
            lines += take(data, peer, now)
            if time.monotonic() > end:
                break
        self._packets += packets
        self._bytes += received
        self._lines += lines
        return emptied

    def _ingest(self) -> Callable[[bytes, Any, float], int]:
        """Straight into the engine, whoever sends."""
        return partial(self.engine.ingest, self.senders.shared_profile)

    def _take_from_address(self, data: bytes, peer: Any, now: float) -> int:
        return self.senders.ingest(data, peer[0], peer, now)

    def _take_from_process(self, data: bytes, peer: str, now: float) -> int:
        return self.senders.ingest(data, peer, peer, now)

    def _take_whole(
        self, ingest: Callable[[bytes, Any, float], int], data: bytes, peer: str | None, now: float
    ) -> int:
        """Takes a unix datagram, whose last line is cut short where it is longer than what is received."""
        sender = peer or NOBODY
        if len(data) < _LARGEST:
            return ingest(data, sender, now)
        end = data.rfind(b"\n") + 1
        self.engine.refuse("too_long", data[end:], sender, now)
        return 1 + (ingest(data[:end], sender, now) if end else 0)

    @property
    def lines(self) -> int:
        """Lines received, good and bad."""
        return self._lines + self._threads.counts()[2]

    @property
    def packets(self) -> int:
        """Datagrams received."""
        return self._packets + self._threads.counts()[0]

    @property
    def bytes(self) -> int:
        """Bytes received."""
        return self._bytes + self._threads.counts()[1]

    def drops(self) -> Drops:
        """What was dropped because of who sent it, by the event loop or by threads."""
        here, there = self.senders.drops, self._threads.drops()
        return Drops(here.lines + there.lines, here.named + there.named)

    @property
    def kernel_drops(self) -> int:
        """Datagrams dropped because the receive buffer was full; a unix socket makes its senders wait."""
        return sum(one.drops.read() for one in self._sockets if one.drops)

    # ------------------------------------------------------------------ stopping

    async def drain(self) -> None:
        """Stops and takes all that the kernel holds by now.

        A socket gives datagrams in order, so as many as its buffer can hold are all of those; what a sender
        adds meanwhile does not hold up the stop. To a unix socket nobody can add: senders get an error, and
        know that their datagram was not taken.
        """
        loop = asyncio.get_running_loop()
        for one in self._sockets:
            loop.remove_reader(one.sock.fileno())
        if self._file is not None:
            self._file.remove()
            self._file.sock.shutdown(socket.SHUT_RD)
        if self._threads:
            await self._threads.drain()
            return
        for one in self._sockets:
            most = one.granted // _SMALLEST if one.drops else sys.maxsize
            last = self.packets + most
            end = time.monotonic() + _DRAIN
            while not self._receive(one, _TURN) and self.packets < last and time.monotonic() < end:
                await asyncio.sleep(0)
        await self.senders.settle()

    async def close(self) -> None:
        """Closes the sockets."""
        self._threads.close()
        self.kernel_drops  # noqa: B018  # the last reading, while the kernel still has it
        for one in self._sockets:
            if one.sock.fileno() >= 0:
                asyncio.get_running_loop().remove_reader(one.sock.fileno())
                one.sock.close()
        if self._file is not None:
            self._file.remove()

    def status(self) -> dict[str, Any]:
        """What /api/v1/status shows of it."""
        status = {**super().status(), "reader": "thread" if self._threads else "event loop"}
        if not self.settings.url.unix:
            granted = [one.granted for one in self._sockets]
            status["receive_buffer"] = {"requested": self.settings.receive_buffer, "granted": granted}
        return status


def _receive_with_process(sock: socket.socket, size: int) -> tuple[bytes, str]:
    data, ancillary, _, _ = sock.recvmsg(size, _CREDENTIALS)
    return data, unix.process_of(ancillary)
