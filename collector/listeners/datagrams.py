"""UDP: datagrams off the socket into the engine, without asyncio's transport in between.

One wake-up of `add_reader` serves many datagrams, where a protocol would be called for each. The loop is
bounded in time, so that a flood leaves the flush and the API their turn.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import time
from collections.abc import Callable
from typing import Any, Final

from collector.engine import Engine, Limits
from collector.listeners.base import Listener, profile_of
from collector.listeners.settings import ListenerSettings
from collector.listeners.sockets import DropCounter, bind, request_receive_buffer, shown
from collector.logfmt import event

log = logging.getLogger(__name__)

_LARGEST: Final = 65536  # no datagram is longer: 65507 bytes over IPv4
_SMALLEST: Final = 512  # bytes of a receive buffer that even an empty datagram takes; Linux: about 768
_TURN: Final = 0.005  # seconds of receiving before the event loop goes round
_DRAIN: Final = 5.0  # seconds that a stop waits at most, for a socket that only gives errors


class UdpListener(Listener):
    """One UDP address, which may be several sockets."""

    def __init__(
        self, settings: ListenerSettings, engine: Engine, limits: Limits, clock: Callable[[], float]
    ) -> None:
        super().__init__(settings)
        self._engine = engine
        self._profile = engine.add_profile(profile_of(settings, limits))
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
            loop.add_reader(sock.fileno(), self._receive, sock, _TURN)
        granted = min(self._granted)
        if granted < wanted:
            remedy = f"sysctl -w net.core.rmem_max={wanted}"
            log.warning(event("listener.small_buffer", url=self.url, granted=granted, remedy=remedy))

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
        loop = asyncio.get_running_loop()
        for sock in self._sockets:
            loop.remove_reader(sock.fileno())
        for sock, granted in zip(self._sockets, self._granted, strict=True):
            last = self.packets + granted // _SMALLEST
            end = time.monotonic() + _DRAIN
            while not self._receive(sock, _TURN) and self.packets < last and time.monotonic() < end:
                await asyncio.sleep(0)

    async def close(self) -> None:
        """Closes the sockets."""
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
            "receive_buffer": {"requested": self.settings.receive_buffer, "granted": self._granted},
        }
