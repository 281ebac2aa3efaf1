"""Listeners in a test: an engine of their own behind them, clients in front, under both event loops."""

from __future__ import annotations

import asyncio
import socket
import sys
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import uvloop
from engines import make_engine

from collector.addresses import Address
from collector.engine import Limits, PureEngine
from collector.listeners import Listener, ListenerSettings, create
from collector.model import CounterPoint

NOW = 1_000_000_000.0  # the listeners' wall clock, so that all samples fall into one window
DEADLINE = 20.0

LOOPS: dict[str, Callable[[], asyncio.AbstractEventLoop]] = {
    "asyncio": asyncio.new_event_loop,
    "uvloop": uvloop.new_event_loop,
}
both_loops = pytest.mark.parametrize("loop", list(LOOPS))
linux_only = pytest.mark.skipif(sys.platform != "linux", reason="Linux counts drops per socket")


def run(loop: str, main: Awaitable[None]) -> None:
    """Runs a test's coroutine on a loop of that kind; what the loop would only log fails the test."""
    faults: list[dict[str, Any]] = []

    async def watched() -> None:
        asyncio.get_running_loop().set_exception_handler(lambda _, context: faults.append(context))
        await asyncio.wait_for(main, 60)

    with asyncio.Runner(loop_factory=LOOPS[loop]) as runner:
        runner.run(watched())
    assert not faults


@dataclass
class Rig:
    """A listener that is open, its engine, and where to send."""

    listener: Listener
    engine: PureEngine

    def port(self, host: str = "127.0.0.1") -> int:
        """The port that the listener has bound on a host."""
        shown = f"[{host}]" if ":" in host else host
        for address in self.listener.addresses:
            where, port = address.split("://")[1].rsplit(":", 1)
            if where == shown:
                return int(port)
        raise AssertionError(f"not bound to {host}: {self.listener.addresses}")

    def totals(self) -> dict[str, float]:
        """The sum of every counter since the last call."""
        sums: Counter[str] = Counter()
        for interval in self.engine.close(NOW):
            for _, points in interval.chunks(500):
                for point in points:
                    if isinstance(point, CounterPoint):
                        sums[point.series.name] += point.value  # type: ignore[assignment]
        return dict(sums)

    async def lines(self, count: int) -> None:
        """Waits until so many lines have been taken."""
        await eventually(lambda: self.listener.lines >= count, f"{count} lines", self.listener.status)
        assert self.listener.lines == count

    async def ended(self, connections: int) -> None:
        """Waits until so many connections have come, and all of them have gone."""

        def gone() -> bool:
            status = self.listener.status()
            return (status["connections_total"], status["connections"]) == (connections, 0)

        await eventually(gone, f"{connections} connections to end", self.listener.status)


async def eventually(condition: Callable[[], bool], what: str, shown: Callable[[], Any] = str) -> None:
    """Waits for a condition, at most `DEADLINE` seconds."""
    loop = asyncio.get_running_loop()
    end = loop.time() + DEADLINE
    while not condition():
        assert loop.time() < end, f"waited for {what}: {shown()}"
        await asyncio.sleep(0.005)


@asynccontextmanager
async def listening(url: str, limits: Limits | None = None, **options: Any) -> AsyncIterator[Rig]:
    """A listener with an engine of its own, closed at the end."""
    limits = limits or Limits()
    engine = make_engine(NOW, limits=limits)
    found = create(ListenerSettings(url=Address.parse(url), **options), engine, limits, lambda: NOW)
    try:
        await found.open()
        yield Rig(found, engine)
    finally:
        await found.close()


def send_udp(port: int, *packets: bytes, host: str = "127.0.0.1") -> None:
    """Sends datagrams from a port of their own."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 2**20)
        for packet in packets:
            assert sock.sendto(packet, (host, port)) == len(packet)


async def connect(port: int, host: str = "127.0.0.1") -> socket.socket:
    """A connected client that blocks nobody."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_STREAM)
    sock.setblocking(False)
    await asyncio.get_running_loop().sock_connect(sock, (host, port))
    return sock


async def send_tcp(port: int, *parts: bytes, host: str = "127.0.0.1", pause: float = 0.0) -> None:
    """Sends the parts over one connection and closes it."""
    with await connect(port, host) as sock:
        for part in parts:
            await asyncio.get_running_loop().sock_sendall(sock, part)
            await asyncio.sleep(pause)


async def closed_by_peer(sock: socket.socket) -> bool:
    """Whether the other side ends the connection before the deadline, without having sent anything."""
    try:
        return await asyncio.wait_for(asyncio.get_running_loop().sock_recv(sock, 1), DEADLINE) == b""
    except ConnectionResetError:
        return True


def descriptors() -> int:
    """How many descriptors this process has open."""
    return sum(1 for _ in Path("/dev/fd").iterdir())


def has_ipv6() -> bool:
    """Whether this machine has ::1."""
    try:
        with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as sock:
            sock.bind(("::1", 0))
    except OSError:
        return False
    return True


ipv6_only = pytest.mark.skipif(not has_ipv6(), reason="this machine has no IPv6")
