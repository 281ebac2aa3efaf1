"""UDP: datagrams off the socket into the engine.

With the compiled engine a thread of its own empties each socket, whatever the event loop is doing; what it
has to leave to Python waits in the engine, and the thread writes to an eventfd, on which `_settle` follows.

Else the event loop receives, without asyncio's transport in between: one wake-up of `add_reader` serves many
datagrams, where a protocol would be called for each. That loop is bounded in time, so that a flood leaves the
flush and the API their turn.
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import time
from collections.abc import Callable
from typing import Any, Final

from collector.engine import Engine, Limits, Reader
from collector.listeners.base import Listener, profile_of
from collector.listeners.settings import ListenerSettings
from collector.listeners.sockets import DropCounter, bind, request_receive_buffer, shown
from collector.logfmt import event

log = logging.getLogger(__name__)

_LARGEST: Final = 65536  # no datagram is longer: 65507 bytes over IPv4
_SMALLEST: Final = 512  # bytes of a receive buffer that even an empty datagram takes; Linux: about 768
_TURN: Final = 0.005  # seconds of receiving before the event loop goes round
_PIECES: Final = 64  # lines or heads that Python reads between two looks at the clock
_DRAIN: Final = 5.0  # seconds that a stop waits at most, for a socket that only gives errors


class UdpListener(Listener):
    """One UDP address, which may be several sockets."""

    def __init__(
        self, settings: ListenerSettings, engine: Engine, limits: Limits, clock: Callable[[], float]
    ) -> None:
        self._readers: list[Reader] = []
        self._wake = -1  # the eventfd, where there are readers
        self._settling: asyncio.Handle | None = None
        self._engine = engine
        self._profile = engine.add_profile(profile_of(settings, limits))
        super().__init__(settings)
        self._clock = clock
        self._sockets: list[socket.socket] = []
        self._drops: list[DropCounter] = []
        self._granted: list[int] = []

    async def open(self) -> None:
        """Binds and starts to receive; OperatorError if the address cannot be had."""
        loop = asyncio.get_running_loop()
        wanted = self.settings.receive_buffer
        for sock in bind(self.settings.url, socket.SOCK_DGRAM):
            granted = request_receive_buffer(sock, wanted)
            self._sockets.append(sock)
            self._drops.append(DropCounter(sock))
            self._granted.append(granted)
            address = shown("udp", sock)
            self.addresses.append(address)
            log.info(event("listener.open", url=address, receive_buffer=granted, requested=wanted))
            if not self._start_reader(sock, granted):
                loop.add_reader(sock.fileno(), self._receive, sock, _TURN)
        granted = min(self._granted)
        if granted < wanted:
            remedy = f"sysctl -w net.core.rmem_max={wanted}"
            log.warning(event("listener.small_buffer", url=self.url, granted=granted, remedy=remedy))

    # ------------------------------------------------------------------ a thread receives

    def _start_reader(self, sock: socket.socket, granted: int) -> bool:
        """Lets a thread of the engine empty a socket; False where the engine has none."""
        if self._wake < 0:
            wake = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC) if hasattr(os, "eventfd") else -1
            self._wake = wake
        try:
            reader = self._engine.reader(sock.fileno(), self._wake, self._profile, granted)
        except OSError as error:
            log.warning(event("listener.no_thread", url=self.url, error=error))
            return False
        if reader is None:
            return False
        if not self._readers:
            asyncio.get_running_loop().add_reader(self._wake, self._woken)
        self._readers.append(reader)
        return True

    def _woken(self) -> None:
        os.eventfd_read(self._wake)
        self._settle()

    def _settle(self) -> None:
        """Reads what the threads left to Python, for a turn at a time."""
        self._settling = None
        end = time.monotonic() + _TURN
        while self._engine.settle(_PIECES):
            if time.monotonic() > end:
                self._settling = asyncio.get_running_loop().call_soon(self._settle)
                return

    def _received(self, which: int) -> int:
        return sum(reader.counts()[which] for reader in self._readers)

    @property
    def packets(self) -> int:
        """Datagrams received."""
        return self._packets + self._received(0)

    @packets.setter
    def packets(self, count: int) -> None:
        self._packets = count - self._received(0)

    @property
    def bytes(self) -> int:
        """Bytes received."""
        return self._bytes + self._received(1)

    @bytes.setter  # noqa: A003  # the name is Listener's
    def bytes(self, count: int) -> None:
        self._bytes = count - self._received(1)

    @property
    def lines(self) -> int:
        """Lines received, those included that were left to Python and read there."""
        return self._lines + self._received(2) + self._engine.settled[self._profile]

    @lines.setter
    def lines(self, count: int) -> None:
        self._lines = count - self._received(2) - self._engine.settled[self._profile]

    # ------------------------------------------------------------------ the event loop receives

    def _receive(self, sock: socket.socket, seconds: float) -> bool:
        """Takes what the socket holds, for so long at most; whether it was emptied.

        `recvfrom` makes the bytes that the engine wants: 2.0 us a datagram of 1432 bytes over loopback, where
        `recvfrom_into` and a copy out of its buffer cost 2.3 us.
        """
        ingest, receive, profile = self._engine.ingest, sock.recvfrom, self._profile
        now = self._clock()
        end = time.monotonic() + seconds
        packets = lines = received = 0
        emptied = False
        while True:
            try:
                data, sender = receive(_LARGEST)
            except (BlockingIOError, InterruptedError):
                emptied = True
                break
            except OSError as error:  # an ICMP error of an earlier peer; the socket lives on
                log.debug(event("listener.receive_error", error=error))
                break
            packets += 1
            received += len(data)
            lines += ingest(profile, data, sender, now)
            if time.monotonic() > end:
                break
        self.packets += packets
        self.bytes += received
        self.lines += lines
        return emptied

    @property
    def kernel_drops(self) -> int:
        """Datagrams that the kernel dropped because the receive buffer was full."""
        return sum(drops.read() for drops in self._drops)

    async def drain(self) -> None:
        """Stops and takes all that the kernel holds by now.

        A socket gives datagrams in order, so as many as its buffer can hold are all of those; what a sender
        adds meanwhile does not hold up the stop.
        """
        if self._readers:
            await self._drain_readers()
            return
        loop = asyncio.get_running_loop()
        for sock in self._sockets:
            loop.remove_reader(sock.fileno())
        for sock, granted in zip(self._sockets, self._granted, strict=True):
            last = self.packets + granted // _SMALLEST
            end = time.monotonic() + _DRAIN
            while not self._receive(sock, _TURN) and self.packets < last and time.monotonic() < end:
                await asyncio.sleep(0)

    async def _drain_readers(self) -> None:
        for reader in self._readers:
            reader.end(at_once=False)
        end = time.monotonic() + _DRAIN
        while not all(reader.ended for reader in self._readers) and time.monotonic() < end:
            await asyncio.sleep(0.001)
        while self._engine.settle(_PIECES):
            await asyncio.sleep(0)

    async def close(self) -> None:
        """Closes the sockets."""
        if self._settling is not None:
            self._settling.cancel()
        for reader in self._readers:
            reader.close()
        if self._wake >= 0:
            asyncio.get_running_loop().remove_reader(self._wake)
            os.close(self._wake)
            self._wake = -1
        self.kernel_drops  # noqa: B018  # the last reading, while the kernel still has it
        for sock in self._sockets:
            if sock.fileno() >= 0:
                asyncio.get_running_loop().remove_reader(sock.fileno())
                sock.close()

    def status(self) -> dict[str, Any]:
        """What /api/v1/status shows of it."""
        return {
            **super().status(),
            "kernel_drops": self.kernel_drops,
            "reader": "thread" if self._readers else "event loop",
            "receive_buffer": {"requested": self.settings.receive_buffer, "granted": self._granted},
        }
