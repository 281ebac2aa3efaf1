"""Writes batches until the server has confirmed them, each exactly once.

The life of a batch, per shard:

    building --close--> pending --sent, confirmed--> kept --after a while--> forgotten
                           ^                          |
                           '-------- rewound ---------'     the server no longer has it

Before anything is sent on a new connection, the server is asked for the number of the last batch that it
has of ours, shard by shard. What it has is moved on, what it lost is moved back. That one rule covers a
lost reply, a crash that forgot the last second of its log, and a fail-over to a replica that was behind;
the script covers a batch that was sent twice. `prev` is the number that the server is known to have when
a batch is sent, so batches that had to be dropped leave no gap.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from collections import Counter, deque
from collections.abc import Collection, Iterable
from typing import Any, Final

from redis.asyncio import Redis
from redis.exceptions import RedisError

from collector.engine.generations import Generations
from collector.errors import StoreError
from collector.logfmt import event
from collector.model import (
    Check,
    CounterPoint,
    Event,
    GaugePoint,
    Point,
    Series,
    SetPoint,
    TimerPoint,
    Window,
)
from collector.store.client import TIMEOUT, check_schema, explain
from collector.store.encode import BATCH_BYTES, BATCH_POINTS, SCRIPT, Batch, Encoder
from collector.store.keys import SET_SECONDS, SHARDS, KeySpace

log = logging.getLogger(__name__)

CHUNK_TTL: Final = 7 * 86400  # seconds; no chunk may go before it has been rolled up
_IN_FLIGHT: Final = 512 * 1024  # bytes sent ahead of their replies
_KEEP_SECONDS: Final = 20.0  # confirmed batches: two flushes, and what `appendfsync everysec` may lose
_PING_SECONDS: Final = 5.0  # how long an idle connection is believed
_FIRST_PAUSE: Final = 0.1  # seconds before the second try
_LONGEST_PAUSE: Final = 5.0


class _Known:
    """What the writer has told the store of a series. It is small, for there may be a million."""

    __slots__ = ("chunk", "registered", "shard")

    def __init__(self, shard: int) -> None:
        self.shard = shard
        self.chunk = -1  # the newest chunk that was given its time to live
        self.registered = 0


class _Shard:
    """The batches of one shard."""

    __slots__ = ("building", "confirmed", "dropped", "flying", "kept", "pending", "seq")

    def __init__(self) -> None:
        self.seq = 0  # of the newest batch
        self.confirmed = 0  # of the newest batch that the server is known to have
        self.dropped = 0  # of the newest batch that was dropped
        self.flying = 0  # how many of the first pending ones are sent and not yet confirmed
        self.building: Encoder | None = None
        self.pending: deque[Batch] = deque()
        self.kept: deque[tuple[float, Batch]] = deque()


class Writer:
    """Takes points, keeps batches, sends them. One per store; `run` is its task."""

    def __init__(self, keys: KeySpace, *, max_bytes: int, samples: int, refresh: float) -> None:
        """`max_bytes` bounds what is held while the store is away; `samples` are kept per timer; the
        registry hears of a live series every `refresh` seconds.
        """
        self.keys = keys
        self.collector = secrets.token_hex(6).encode()
        self._max_bytes = max_bytes
        self._samples = samples
        self._refresh = refresh
        self._known: Generations[str, _Known] = Generations()
        self._known_chunk = -1
        self._shards = [_Shard() for _ in range(SHARDS)]
        self._wake = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()
        self.up = False
        self.ever_up = False
        self.last_error = ""
        self.points = 0
        self.applied = 0
        self.duplicates = 0
        self.retries = 0
        self.pending_batches = 0
        self.pending_bytes = 0
        self.operation_errors = 0
        self.lost: Counter[str] = Counter()
        self._overflowing = False  # logged once for each outage

    # ------------------------------------------------------------------ points to batches

    def write(self, window: Window, points: Collection[Point], now: float) -> None:
        """Adds points of a window to the batches being built; `now` is for the registry."""
        chunk = self.keys.chunk(window.start)
        if chunk > self._known_chunk:
            self._known_chunk = chunk
            self._known.turn()
        slot = self.keys.slot(window.start)
        ms, minute = window.start * 1000, window.start // SET_SECONDS
        seen = int(max(now, window.start))
        recall, refresh = self._known.recent.get, self._refresh
        keys = self.keys
        for point in points:
            known = recall(point.series.key) or self._recall(point.series)
            field = point.series.key.encode()
            encoder = self._encoder(known.shard)
            base = keys.chunks(field, known.shard)
            ttl = 0 if chunk == known.chunk else self._time_to_live(known, chunk)
            match point:
                case CounterPoint():
                    encoder.counter(base, chunk, slot, field, point.value, ttl)
                case GaugePoint():
                    encoder.gauge(base, chunk, slot, field, point, ttl)
                case TimerPoint():
                    encoder.sketch(base, chunk, slot, point.encoded, ttl)
                    samples = keys.samples(field, known.shard)
                    encoder.samples(samples, ms, point.samples, self._samples, CHUNK_TTL)
                case SetPoint():
                    encoder.members(base, minute, point.members, CHUNK_TTL)
            if seen - known.registered >= refresh:
                known.registered = seen
                encoder.register(field, seen)
        self.points += len(points)

    def _recall(self, series: Series) -> _Known:
        """What is known of a series that was not written in this chunk's time yet, or is new."""
        known = self._known.get(series.key)
        if known is None:
            known = self._known[series.key] = _Known(self.keys.shard(series))
        return known

    def _time_to_live(self, known: _Known, chunk: int) -> int:
        """What a chunk is given at its first point; a late sample may open one that nobody has seen yet."""
        if chunk < known.chunk:
            return CHUNK_TTL
        known.chunk = chunk
        return CHUNK_TTL + self.keys.chunk_seconds

    def write_entries(self, window: Window, entries: Iterable[Event | Check]) -> None:
        """Adds events and checks; those without a time get the window's start."""
        for entry in entries:
            name = b"events" if isinstance(entry, Event) else b"checks"
            self._encoder(0).entry(self.keys.shard_key(0, name), window.start, entry)
            self.points += 1

    def _encoder(self, shard: int) -> Encoder:
        """The batch that is being built; one that is full is closed, and the next begun."""
        state = self._shards[shard]
        encoder = state.building
        if encoder is not None:
            if encoder.points < BATCH_POINTS and encoder.size < BATCH_BYTES:
                return encoder
            self._close(shard)
        state.seq += 1
        state.building = Encoder(state.seq, self.collector)
        return state.building

    def _close(self, shard: int) -> None:
        state = self._shards[shard]
        assert state.building is not None
        names = (b"last", b"total", b"ix")
        batch = state.building.close(
            [
                self.keys.sequence(shard, self.collector),
                *(self.keys.shard_key(shard, name) for name in names),
            ]
        )
        state.building = None
        state.pending.append(batch)
        self.pending_batches += 1
        self.pending_bytes += batch.size

    async def commit(self) -> None:
        """Closes what is being built and lets it be sent. Yields to the event loop between shards."""
        for shard, state in enumerate(self._shards):
            if state.building is not None:
                self._close(shard)
                await asyncio.sleep(0)
        self._bound()
        if self.pending_batches:
            self._idle.clear()
            self._wake.set()

    def _bound(self) -> None:
        """Drops the oldest batches beyond the limit, but none that is under way."""
        while self.pending_bytes > self._max_bytes:
            droppable = [shard for shard in self._shards if len(shard.pending) > shard.flying]
            if not droppable:
                return
            shard = min(droppable, key=lambda shard: shard.pending[shard.flying].closed)
            batch = shard.pending[shard.flying]
            del shard.pending[shard.flying]
            shard.dropped = batch.seq
            self._forget(batch)
            self.lost["backlog_full"] += batch.points
            if not self._overflowing:
                self._overflowing = True
                log.error(event("backlog.full", held=self.pending_bytes, limit=self._max_bytes))

    def _forget(self, batch: Batch) -> None:
        self.pending_batches -= 1
        self.pending_bytes -= batch.size

    # ------------------------------------------------------------------ batches to the server

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

    async def wait_idle(self, seconds: float) -> bool:
        """Waits until all is confirmed; False when that takes longer."""
        try:
            async with asyncio.timeout(seconds):
                await self._idle.wait()
        except TimeoutError:
            return False
        return True

    def abandon(self) -> int:
        """Counts what is still pending as lost, at the end of a stop; how many points."""
        points = sum(batch.points for state in self._shards for batch in state.pending)
        if points:
            self.lost["stopped"] += points
        return points

    def _down(self, error: BaseException) -> None:
        text = explain(error)
        if self.up or text != self.last_error:
            held = {"batches": self.pending_batches, "bytes": self.pending_bytes}
            log.warning(event("store.away", error=text, **held))
        self.up = False
        self.last_error = text
        self.retries += 1
        self._bound()

    async def _session(self, client: Redis) -> None:
        """One connection: settles what the server has, then sends until it fails."""
        await check_schema(client, self.keys)
        pool = client.connection_pool
        connection: Any = await pool.get_connection()  # type: ignore[no-untyped-call]
        try:
            await self._ask(connection, [(b"SCRIPT", b"LOAD", SCRIPT)])
            sequences = [self.keys.sequence(shard, self.collector) for shard in range(SHARDS)]
            replies = await self._ask(connection, [(b"GET", key) for key in sequences])
            for shard, reply in zip(self._shards, replies, strict=True):
                self._align(shard, -1 if reply is None else int(reply))
            if not self.up:
                log.info(event("store.up", pending=self.pending_batches))
            self.up = self.ever_up = True
            self.last_error = ""
            while True:
                self._wake.clear()
                await self._send_all(connection)
                if not self.pending_batches:
                    self._overflowing = False
                    self._idle.set()
                self._forget_old()
                await self._wait_or_ping(connection)
        finally:
            for shard in self._shards:
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
        await connection.send_packed_command(packed, check_health=False)
        return [await connection.read_response(disable_decoding=True, timeout=TIMEOUT) for _ in commands]

    def _align(self, shard: _Shard, has: int) -> None:
        """Moves batches to where the server's last number says they belong."""
        while shard.kept and shard.kept[-1][1].seq > has:
            _, batch = shard.kept.pop()
            shard.pending.appendleft(batch)
            self.pending_batches += 1
            self.pending_bytes += batch.size
        while shard.pending and shard.pending[0].seq <= has:
            self._confirm(shard, shard.pending.popleft())
            self.duplicates += 1
        shard.confirmed = max(has, 0)
        missing = self._oldest(shard) - 1 - max(shard.confirmed, shard.dropped)
        if missing > 0:
            self.lost["store_forgot"] += missing
            log.error(event("store.forgot", batches=missing, has=has))
            shard.dropped = shard.confirmed + missing

    @staticmethod
    def _oldest(shard: _Shard) -> int:
        """The number of the oldest batch that is still held, or will be the next."""
        if shard.kept:
            return shard.kept[0][1].seq
        if shard.pending:
            return shard.pending[0].seq
        return shard.building.seq if shard.building is not None else shard.seq + 1

    async def _send_all(self, connection: Any) -> None:
        """Sends all pending batches, a bounded number of bytes ahead of the replies."""
        flying: deque[tuple[_Shard, Batch]] = deque()
        ahead = 0
        for shard in self._shards:
            while shard.flying < len(shard.pending):
                at = shard.flying
                prev = shard.pending[at - 1].seq if at else shard.confirmed
                batch = shard.pending[at]
                shard.flying += 1
                await connection.send_packed_command(batch.command(prev), check_health=False)
                flying.append((shard, batch))
                ahead += batch.size
                while ahead > _IN_FLIGHT:
                    ahead -= flying[0][1].size
                    await self._settle(connection, *flying.popleft())
        while flying:
            await self._settle(connection, *flying.popleft())

    async def _settle(self, connection: Any, shard: _Shard, batch: Batch) -> None:
        """Reads the reply to a batch; raises, and so starts a new session, unless it was confirmed."""
        reply = await connection.read_response(disable_decoding=True, timeout=TIMEOUT)
        outcome, number, *errors = reply
        if outcome < 0:
            raise StoreError(f"the server has batch {number}, not the one before {batch.seq}")
        if outcome:
            self.applied += 1
        else:
            self.duplicates += 1
        for error in errors:
            self.operation_errors += 1
            self.lost["store_refused"] += 1
            log.error(event("store.refused", error=error.decode("utf-8", "backslashreplace")))
        assert shard.pending[0] is batch
        shard.flying -= 1
        self._confirm(shard, shard.pending.popleft())

    def _confirm(self, shard: _Shard, batch: Batch) -> None:
        self._forget(batch)
        shard.confirmed = batch.seq
        shard.kept.append((time.monotonic(), batch))

    def _forget_old(self) -> None:
        horizon = time.monotonic() - _KEEP_SECONDS
        for shard in self._shards:
            while shard.kept and shard.kept[0][0] < horizon:
                shard.kept.popleft()
