"""A proxy between collector and server that spoils connections: by chance out of a seed, or when told to.

It runs on a thread of its own. A fault concerns one read from the client, which is a part of a request, one,
or several:

    cut_before  the connection ends, the server never sees it
    torn        the server gets the first half, then the connection ends
    cut_after   the server gets it and answers; the answer is dropped and the connection ends
    half        the client gets half of the answer, then the connection ends
    late        the connection ends, and the server gets it a while after that
    swallow     the server gets it; no answer on this connection reaches the client any more
    delay       it comes a little later
    stall       nothing moves for a while
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import threading
from collections import Counter, deque
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Final

FAULTS: Final = ("cut_before", "torn", "cut_after", "half", "late", "swallow", "delay", "stall")
CUTS: Final = ("cut_before", "torn", "cut_after", "half", "late")
_READ: Final = 2048  # bytes; small, so that a flush is many reads
_SMALL: Final = 256  # a read below it is a handshake's, and left alone: one that always fails gets nowhere
_DELAY: Final = 0.05  # seconds
_LATE: Final = 0.2

Where = Path | tuple[str, int]  # a unix socket, or host and port


class _Link:
    """One connection of the client, and the proxy's own to the server."""

    def __init__(self, client: asyncio.StreamWriter, server: asyncio.StreamWriter) -> None:
        self.client = client
        self.server = server
        self.answers = "pass"
        self.free = asyncio.Event()
        self.free.set()

    def cut(self) -> None:
        """Ends both sides at once, without sending what is held."""
        self.client.transport.abort()
        self.server.transport.abort()


class Proxy:
    """What is to happen, and what has happened; both may be touched from any thread."""

    def __init__(self, listen: Where, target: Where, seed: int = 0) -> None:
        self.listen = listen
        self.target = target
        self.chance = 0.0  # of a fault, for each read
        self.kinds: tuple[str, ...] = CUTS  # of which one is chosen by chance
        self.stall_seconds = 1.0
        self.plan: deque[str | Callable[[], None]] = deque()  # for the next reads: a fault, "pass", or a call
        self.refusing = False  # whether connections end at once
        self.faults: Counter[str] = Counter()
        self.connections = 0
        self._random = random.Random(seed)
        self._links: set[_Link] = set()
        self._late: list[asyncio.StreamWriter] = []
        self._loop = asyncio.new_event_loop()

    @contextmanager
    def running(self) -> Iterator[Proxy]:
        """Serves on a thread until the block ends."""
        ready = threading.Event()
        ended = asyncio.Event()
        thread = threading.Thread(target=self._loop.run_until_complete, args=(self._serve(ready, ended),))
        thread.start()
        try:
            assert ready.wait(10), "the proxy does not listen"
            yield self
        finally:
            self._loop.call_soon_threadsafe(ended.set)
            thread.join()
            self._loop.close()

    def cut_all(self) -> None:
        """Ends all connections now."""
        self._loop.call_soon_threadsafe(self._cut_all)

    def _cut_all(self) -> None:
        for link in self._links:
            link.cut()

    async def _serve(self, ready: threading.Event, ended: asyncio.Event) -> None:
        if isinstance(self.listen, Path):
            server = await asyncio.start_unix_server(self._connected, self.listen)
        else:
            server = await asyncio.start_server(self._connected, *self.listen)
            self.listen = server.sockets[0].getsockname()[:2]
        ready.set()
        await ended.wait()
        server.close()
        for task in asyncio.all_tasks() - {asyncio.current_task()}:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        for writer in self._late:
            writer.transport.abort()
        await asyncio.sleep(0)

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        with contextlib.suppress(OSError, asyncio.CancelledError):
            async with self._link(writer) as (link, answers):
                tasks = [
                    asyncio.ensure_future(self._up(reader, link)),
                    asyncio.ensure_future(_down(answers, link)),
                ]
                await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
                for task in tasks:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)
        writer.transport.abort()

    @asynccontextmanager
    async def _link(self, client: asyncio.StreamWriter) -> AsyncIterator[tuple[_Link, asyncio.StreamReader]]:
        if self.refusing:
            raise ConnectionRefusedError
        if isinstance(self.target, Path):
            answers, server = await asyncio.open_unix_connection(self.target)
        else:
            answers, server = await asyncio.open_connection(*self.target)
        link = _Link(client, server)
        self._links.add(link)
        try:
            yield link, answers
        finally:
            self._links.discard(link)
            if link.answers != "late":
                server.transport.abort()

    def _next(self, size: int) -> str:
        if size < _SMALL:
            return "pass"
        if self.plan:
            planned = self.plan.popleft()
            if isinstance(planned, str):
                return planned
            planned()
        elif self._random.random() < self.chance:
            return self._random.choice(self.kinds)
        return "pass"

    async def _up(self, reader: asyncio.StreamReader, link: _Link) -> None:
        while data := await reader.read(_READ):
            fault = self._next(len(data))
            if fault != "pass":
                self.faults[fault] += 1
            match fault:
                case "cut_before":
                    link.cut()
                    return
                case "torn":
                    link.server.write(data[: len(data) // 2])
                    await link.server.drain()
                    link.cut()
                    return
                case "late":
                    link.answers = "late"
                    self._late.append(link.server)
                    asyncio.get_running_loop().call_later(_LATE, _deliver, link.server, data)
                    link.client.transport.abort()
                    return
                case "cut_after" | "half" | "swallow":
                    link.answers = fault
                case "delay":
                    await asyncio.sleep(_DELAY)
                case "stall":
                    link.free.clear()
                    await asyncio.sleep(self.stall_seconds)
                    link.free.set()
            link.server.write(data)
            await link.server.drain()


def _deliver(server: asyncio.StreamWriter, data: bytes) -> None:
    """Hands over what was held back; the server is left a moment to read it."""
    if not server.transport.is_closing():
        server.write(data)
        asyncio.get_running_loop().call_later(_LATE, server.transport.abort)


async def _down(answers: asyncio.StreamReader, link: _Link) -> None:
    while data := await answers.read(_READ):
        await link.free.wait()
        match link.answers:
            case "pass":
                link.client.write(data)
                await link.client.drain()
            case "cut_after":
                link.cut()
                return
            case "half":
                link.client.write(data[: len(data) // 2])
                await link.client.drain()
                await asyncio.sleep(0.01)  # abort drops what has not been read by the loop of the other side
                link.cut()
                return
