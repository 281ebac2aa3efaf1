"""Sends pending batches until the server has confirmed them, each exactly once.

Before anything is sent on a new connection, the server is asked for the number of the last batch that it
has of ours, shard by shard, and the outbox is aligned with it. Whatever goes wrong after that ends the
session; the next one begins with the same question.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from dataclasses import dataclass
from typing import Any, Final

from redis.asyncio import Redis
from redis.exceptions import RedisError

from collector.errors import StoreError
from collector.logfmt import event
from collector.store.client import check_schema, explain
from collector.store.encode import SCRIPT, Batch
from collector.store.keys import SCHEMA, KeySpace
from collector.store.outbox import Outbox
from collector.store.settings import Durability
from collector.store.shard import Shard

log = logging.getLogger(__name__)

_IN_FLIGHT: Final = 512 * 1024  # bytes sent ahead of their replies
_WAIT_MS: Final = 2000  # for a replica; below TIMEOUT, which would take the server for gone
_PING_SECONDS: Final = 5.0  # how long an idle connection is believed
_FIRST_PAUSE: Final = 0.1  # seconds before the second try
_LONGEST_PAUSE: Final = 5.0


@dataclass(slots=True)
class _Applied:
    """A batch that the server has applied, now or before, and what it said about single operations."""

    shard: Shard
    batch: Batch
    applied: bool
    errors: list[bytes]


class Sender:
    """Carries an outbox to the store; `run` is its task."""

    def __init__(self, keys: KeySpace, outbox: Outbox, durability: Durability) -> None:
        self._keys = keys
        self._outbox = outbox
        self._replicated = durability is Durability.REPLICA
        self._applied: list[_Applied] = []  # what a replica has yet to have
        self._wake = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()
        self.up = False
        self.ever_up = False
        self.last_error = ""
        self.retries = 0

    def wake(self) -> None:
        """Says that the outbox has changed."""
        if self._outbox.pending_batches:
            self._idle.clear()
        self._wake.set()

    async def wait_idle(self, seconds: float) -> bool:
        """Waits until all is confirmed; False when that takes longer."""
        try:
            async with asyncio.timeout(seconds):
                await self._idle.wait()
        except TimeoutError:
            return False
        return True

    async def run(self, client: Redis) -> None:
        """Sends what is pending, for ever; comes back from every failure of the store."""
        pause = _FIRST_PAUSE
        while True:
            try:
                await self._session(client)
            except (TimeoutError, StoreError, RedisError, OSError) as error:
                if self.up:
                    pause = _FIRST_PAUSE
                self._down(error)
            await asyncio.sleep(pause)
            pause = min(pause * 2, _LONGEST_PAUSE)

    def _down(self, error: BaseException) -> None:
        text = explain(error)
        if self.up or text != self.last_error:
            held = {"batches": self._outbox.pending_batches, "bytes": self._outbox.pending_bytes}
            log.warning(event("store.away", error=text, **held))
        self.up = False
        self.last_error = text
        self.retries += 1
        self._outbox.bound()

    async def _session(self, client: Redis) -> None:
        """One connection: settles what the server has, then sends until it fails."""
        await check_schema(client, self._keys)
        pool = client.connection_pool
        connection: Any = await pool.get_connection()  # type: ignore[no-untyped-call]
        shards = self._outbox.shards
        try:
            await self._ask(connection, [(b"SCRIPT", b"LOAD", SCRIPT)])
            replies = await self._ask(connection, [(b"GET", shard.sequence) for shard in shards])
            await self._replicate(connection)
            for shard, reply in zip(shards, replies, strict=True):
                self._outbox.align(shard, -1 if reply is None else int(reply))
            if not self.up:
                log.info(event("store.up", pending=self._outbox.pending_batches))
            self.up = self.ever_up = True
            self.last_error = ""
            while True:
                self._wake.clear()
                await self._send_all(connection)
                self._outbox.all_sent()
                if not self._outbox.pending_batches:
                    self._idle.set()
                await self._wait_or_ping(connection)
        finally:
            self._applied.clear()
            for shard in self._outbox.shards:
                shard.flying = 0
            await connection.disconnect(nowait=True)
            await pool.release(connection)

    async def _wait_or_ping(self, connection: Any) -> None:
        """Waits for the next commit; meanwhile asks now and then whether the server is still there."""
        try:
            async with asyncio.timeout(_PING_SECONDS):
                await self._wake.wait()
        except TimeoutError:
            await self._ask(connection, [(b"PING",)])

    async def _ask(self, connection: Any, commands: list[tuple[bytes, ...]]) -> list[Any]:
        packed = connection.pack_commands(commands)
        await _send(connection, packed)
        return [await _reply(connection) for _ in commands]

    async def _send_all(self, connection: Any) -> None:
        """Sends all pending batches, a bounded number of bytes ahead of the replies."""
        flying: deque[tuple[Shard, Batch]] = deque()
        ahead = 0
        for shard in self._outbox.shards:
            while (following := shard.next_to_send()) is not None:
                batch, prev = following
                await _send(connection, batch.command(prev))
                flying.append((shard, batch))
                ahead += batch.size
                while ahead > _IN_FLIGHT:
                    ahead -= flying[0][1].size
                    await self._settle(connection, *flying.popleft())
        while flying:
            await self._settle(connection, *flying.popleft())
        if self._applied:
            await self._replicate(connection)

    async def _settle(self, connection: Any, shard: Shard, batch: Batch) -> None:
        """Reads the reply to a batch; raises, and so starts a new session, unless it was confirmed."""
        outcome, number, *errors = await _reply(connection)
        if outcome < 0:
            raise StoreError(f"the server has batch {number}, not the one before {batch.seq}")
        done = _Applied(shard, batch, outcome > 0, errors)
        if self._replicated:
            self._applied.append(done)
        else:
            self._confirm(done)

    def _confirm(self, done: _Applied) -> None:
        assert done.shard.ready[0] is done.batch
        self._outbox.settle(done.shard, applied=done.applied, errors=done.errors)

    async def _replicate(self, connection: Any) -> None:
        """With `durability: replica`, confirms what was applied once a replica has it; one WAIT for all of
        it.

        At the start of a session nothing is confirmed by it, but what the server says that it has may be
        trusted afterwards: WAIT asks for what this connection has written, so it writes something, and what
        came before that was replicated before it.
        """
        if not self._replicated:
            return
        write = (b"HSET", self._keys.meta, b"schema", b"%d" % SCHEMA)  # as it is already
        _, replicas = await self._ask(connection, [write, (b"WAIT", b"1", b"%d" % _WAIT_MS)])
        if replicas < 1:
            raise StoreError(
                f"no replica has the batches after {_WAIT_MS / 1000:g} s: connect one to the server, "
                f"or set redis.durability to primary"
            )
        for done in self._applied:
            self._confirm(done)
        self._applied.clear()


async def _reply(connection: Any) -> Any:
    """The next reply; an error after TIMEOUT, which is the connection's own: with one of the call there is
    none.
    """
    return await connection.read_response(disable_decoding=True)


async def _send(connection: Any, packed: list[bytes]) -> None:
    try:
        await connection.send_packed_command(packed, check_health=False)
    except RuntimeError as error:  # how uvloop says that the other side has closed, between two writes
        raise ConnectionResetError(str(error)) from error
