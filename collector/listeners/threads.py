"""Threads of the engine that empty datagram sockets, whatever the event loop is doing.

What a thread has to leave to Python waits in the engine; it writes to an eventfd, and the event loop settles
that, a turn at a time.
"""

from __future__ import annotations

import asyncio
import ipaddress
import logging
import os
import socket
import struct
import time
from collections.abc import Iterable
from typing import Final

from collector.engine import Engine, Policed, Reader
from collector.listeners.senders import DROPS, PLACES, Drops, SenderClass, Senders
from collector.listeners.settings import ListenerSettings
from collector.logfmt import event

log = logging.getLogger(__name__)

_TURN: Final = 0.005  # seconds of settling before the event loop goes round
_PIECES: Final = 64  # lines or heads that Python reads between two looks at the clock
_REPORT: Final = 5.0  # seconds between two looks at what was dropped
_PLACES: Final = (SenderClass.LOOPBACK, SenderClass.PRIVATE, SenderClass.PUBLIC)  # by the core's number
_DRAIN: Final = 5.0  # seconds that a stop waits at most, for a socket that only gives errors


class ReaderThreads:
    """One thread for each socket of a listener; none where the engine has none."""

    def __init__(self, engine: Engine, settings: ListenerSettings, senders: Senders) -> None:
        self._engine = engine
        self._url = str(settings.url)
        self._profile = senders.shared_profile
        self._senders = senders
        self._policed = _policed(settings) if senders.matter else None
        self._strangers = 0
        self._report: asyncio.TimerHandle | None = None
        self._reported = Drops()
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
            reader = self._engine.reader(sock.fileno(), self._wake, self._profile, buffer, self._policed)
        except OSError as error:
            log.warning(event("listener.no_thread", url=self._url, error=error))
            return False
        if reader is None:
            return False
        if not self._readers:
            asyncio.get_running_loop().add_reader(self._wake, self._woken)
            if self._policed:
                self._report_later()
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

    def drops(self) -> Drops:
        """What was dropped because of who sent it."""
        found = Drops()
        strangers = 0
        for reader in self._readers:
            lines, named, unknown = reader.drops()
            strangers += unknown
            for reason, row in zip(DROPS, lines[1:], strict=True):
                for kind, count in zip(_PLACES, row, strict=True):
                    if count:
                        found.lines[reason, kind] += count
            for family, address, count in named:
                found.named[str(ipaddress.ip_address(address[:4] if family == 4 else address))] += count
        self._engine.limit_hits["senders"] += strangers - self._strangers
        self._strangers = strangers
        return found

    def _report_later(self) -> None:
        self._report = asyncio.get_running_loop().call_later(_REPORT, self._report_drops)

    def _report_drops(self) -> None:
        """Logs what the threads have dropped since the last time, which they cannot do themselves."""
        before, now = self._reported, self.drops()
        self._reported = now
        for reason in sorted({reason for reason, _ in now.lines - before.lines}):
            most = (now.named - before.named or now.named).most_common(1)
            self._senders.report(reason, most[0][0] if most else "others")
        self._report_later()

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
        for timer in (self._settling, self._report):
            if timer is not None:
                timer.cancel()
        for reader in self._readers:
            reader.close()
        if self._wake >= 0:
            asyncio.get_running_loop().remove_reader(self._wake)
            os.close(self._wake)
            self._wake = -1


_IPNetwork = ipaddress.IPv4Network | ipaddress.IPv6Network


def _policed(settings: ListenerSettings) -> Policed:
    """Who is heard, and how much of each is taken, as the engine's threads are told."""
    allowed = ((network.value, 0) for network in settings.allow)
    places = ((network, _PLACES.index(kind)) for network, kind in PLACES)
    return _packed(allowed), _packed(places), float(settings.rate)


def _packed(networks: Iterable[tuple[_IPNetwork, int]]) -> bytes:
    return b"".join(
        struct.pack("=16sBBBx", network.network_address.packed, network.prefixlen, network.version, place)
        for network, place in networks
    )
