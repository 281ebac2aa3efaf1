"""What waits for the store: in memory first, then on disk. A task, and a thread for the file.

    spool: on_outage   While the store is away, or behind, what exceeds `memory` goes to the file, and at a
                       stop all that is not confirmed. A store that is well never waits for the disk.
    spool: always      Every batch is written before it is sent, and deleted when it need not be repeated
                       any more.
    spool: off         Memory only.

What an earlier start left in the file is sent first, under that start's name. A disk that refuses costs
nothing by itself: memory goes on, and the disk is asked again.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final, TypeVar

from collector.logfmt import event
from collector.store.encode import Batch
from collector.store.outbox import Outbox
from collector.store.sender import Sender
from collector.store.settings import BacklogSettings, SpoolMode
from collector.store.shard import Shard
from collector.store.spool import Books, Spool, SpoolDamaged, SpoolError

log = logging.getLogger(__name__)
T = TypeVar("T")

_AGE_SECONDS: Final = 10.0  # between two looks at the age of what is on disk
_TICK: Final = 1.0  # seconds between two looks at what may be deleted or is too old
_CHUNK: Final = 4 * 2**20  # bytes of one call of the thread: a fraction of a second
_AHEAD: Final = 8 * 2**20  # bytes that are read back ahead of the sender
_REWOUND: Final = 32  # rewound batches that are read back in one call, of up to a quarter of a megabyte each
_RETRY_SECONDS: Final = 2.0  # until a disk that refused is asked again
_AWAY_SECONDS: Final = 1.0  # that a stop waits for a store that is away
_BEHIND_SECONDS: Final = 10.0  # a store that lets batches wait for longer counts as away


class Backlog:
    """Moves batches of an outbox to the disk and back."""

    def __init__(self, settings: BacklogSettings, directory: Path, outbox: Outbox, sender: Sender) -> None:
        """Nothing is touched before `opened`."""
        self._settings = settings
        self._outbox = outbox
        self._sender = sender
        self.spool = Spool(directory)
        self._memory = min(settings.memory, settings.max_bytes)
        self._always = settings.spool is SpoolMode.ALWAYS
        self._off = settings.spool is SpoolMode.OFF
        self._thread = ThreadPoolExecutor(1, "backlog")
        self._turn_lock = asyncio.Lock()
        self._read_up_to = 0  # the id up to which everything on disk is in memory too, or was
        self._noted: set[Books] = set()
        self._retry_at = 0.0
        self._look_at = 0.0
        self._complained = False  # one line when the disk begins to refuse, one when it is well again

    # ------------------------------------------------------------------ start and stop

    @contextlib.asynccontextmanager
    async def opened(self) -> AsyncIterator[None]:
        """Takes over what earlier starts left, before the sender runs; stores what is left when it has ended.

        OperatorError when another collector has the file.
        """
        try:
            if self._off:
                self._warn_of_leftovers()
            else:
                await self._open()
            yield
        finally:
            try:
                await self._close()
            finally:
                self._thread.shutdown()

    def _warn_of_leftovers(self) -> None:
        path = self.spool.path
        with contextlib.suppress(OSError):
            if path.exists():
                remedy = "start once with backlog.spool: on_outage to send what it holds, or delete it"
                log.warning(event("backlog.left_alone", path=path, remedy=remedy))

    async def _open(self) -> None:
        """OperatorError when another collector has the file."""
        damaged = self.spool.damaged
        found = await self._do(self.spool.open)
        self._outbox.write_ahead = self._always
        if found is None:
            return
        shards, next_id = found
        if self.spool.damaged > damaged:
            self._outbox.lose("spool_damaged", 1)  # how much was in it, nobody can say
            log.error(event("backlog.damaged", path=self.spool.path, done="renamed, and a new one begun"))
        known = {shard.sequence for shard in self._outbox.shards}
        self._outbox.restore((one for one in shards if one.sequence not in known), next_id)
        if shards:
            held = {"batches": self._outbox.stored.batches, "bytes": self._outbox.stored.bytes}
            log.info(event("backlog.restored", **held))
        self._sender.wake()

    async def _close(self) -> None:
        """Writes what is not confirmed; what cannot be written is lost, and counted."""
        if not self._off:
            async with self._turn_lock:
                await self._delete()
                await self._write_all()
        lost = self._outbox.abandon()
        if lost:
            log.error(event("collector.lost", points=lost, reason="stopped", error=self._sender.last_error))
        await asyncio.get_running_loop().run_in_executor(self._thread, self.spool.close)

    async def wait_confirmed(self, seconds: float) -> None:
        """Gives the store a last chance, at a stop: what one that is away does not take, the disk keeps."""
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            if await self._sender.wait_idle(min(left, _AWAY_SECONDS)):
                return
            if not self._sender.up and self.spool.is_open and not self._complained:
                return

    async def _write_all(self) -> None:
        # A store that is away may come back without what it had confirmed.
        left = list(self._outbox.in_memory_only(kept=not self._sender.up))
        if not left:
            return
        self._retry_at = 0.0
        if not self.spool.is_open:
            await self._reopen()
        for rows in _chunks(left):
            if await self._store(rows):
                log.info(event("backlog.stored", batches=len(rows), bytes=sum(one.size for _, one in rows)))

    # ------------------------------------------------------------------ main loop

    async def run(self) -> None:
        """Reads back what the sender can take, deletes what is confirmed, drops what is too old; for ever."""
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_TICK):
                    await self._outbox.short.wait()
            self._outbox.short.clear()
            await self._turn()

    async def commit(self) -> None:
        """After the batches of a flush were added: writes those that have to be on disk.

        With `always` they all are there afterwards, unless the disk refuses.
        """
        await self._turn()

    async def _turn(self) -> None:
        """What is to be done now. One at a time: what is read must not overtake what is written."""
        async with self._turn_lock:
            self._drop_from_memory()
            if self._off:
                return
            await self._write()
            await self._drop_from_disk()
            await self._read()
            await self._delete()

    async def _write(self) -> None:
        outbox = self._outbox
        if not self._always and self._is_behind():
            held = outbox.ready.bytes + outbox.fresh.bytes
            outbox.spill(held - self._memory - outbox.fresh.bytes, self._read_up_to)
        elif not self._always:
            return
        while rows := outbox.to_write(_CHUNK):
            if not await self._store(rows):
                outbox.unwritten()
                self._sender.wake()
                return
            last = max(batch.id for _, batch in rows)
            ready = self._always and not outbox.stored.batches and outbox.ready.bytes < self._memory
            outbox.written(rows, ready=ready)
            if ready:
                self._read_up_to = last
                self._sender.wake()

    def _is_behind(self) -> bool:
        """Whether memory is full because the store does not take what comes."""
        outbox = self._outbox
        if outbox.ready.bytes + outbox.fresh.bytes <= self._memory:
            return False
        if not self._sender.up or outbox.stored.batches:
            return True
        oldest = min((shard.ready[0].closed for shard in outbox.shards if shard.ready), default=time.time())
        return oldest < time.time() - _BEHIND_SECONDS

    async def _store(self, rows: list[tuple[Shard, Batch]]) -> bool:
        """Writes batches; whether that went well."""
        if not self.spool.is_open and not await self._reopen():
            return False
        sizes = await self._do(self.spool.write, rows)
        if sizes is None:
            return False
        for (_, batch), size in zip(rows, sizes, strict=True):
            batch.stored = size
        return True

    async def _read(self) -> None:
        outbox = self._outbox
        if not self._sender.up:
            return
        while ids := outbox.without_bytes()[:_REWOUND]:
            found = await self._do(self.spool.read_these, ids)
            if found is None:
                return
            outbox.refilled(ids, found)
            self._sender.wake()
        for _ in range(_AHEAD // _CHUNK):  # then others have their turn: a backlog can be large
            if not outbox.stored.batches or outbox.ready.bytes >= _AHEAD:
                return
            if not self.spool.is_open and not await self._reopen():
                return
            read = await self._do(self.spool.read, self._read_up_to, _CHUNK)
            if read is None:
                return
            batches, after = read
            for sequence, batch in batches:
                outbox.loaded(sequence, batch)
            if after == self._read_up_to:
                outbox.nothing_stored(gone=False)
            self._read_up_to = after
            self._sender.wake()
        if outbox.ready.bytes < _AHEAD:
            outbox.short.set()

    async def _delete(self) -> None:
        """Deletes what is not needed any more, and notes how far the store has confirmed."""
        if not self.spool.is_open:
            return
        books = set(self._outbox.books())
        ids = self._outbox.forgotten
        if not ids and books <= self._noted:
            return
        self._outbox.forgotten = []
        if await self._do(self.spool.delete, ids, list(books)) is not None:
            self._noted = books
        elif self.spool.is_open:
            self._outbox.forgotten += ids

    def _drop_from_memory(self) -> None:
        """What is too old."""
        outbox = self._outbox
        outbox.disk_fails = not self._off and time.monotonic() < self._retry_at
        outbox.expire(time.time() - self._settings.max_age)

    async def _drop_from_disk(self) -> None:
        """Deletes from the disk what is beyond the limit, and what is too old."""
        outbox = self._outbox
        outbox.bound()
        excess = outbox.pending_bytes - outbox.max_bytes
        due = time.monotonic() >= self._look_at
        if not outbox.stored.batches or not (due or excess > 0):
            return
        self._look_at = time.monotonic() + _AGE_SECONDS
        horizon = time.time() - self._settings.max_age
        reason = "backlog_full" if excess > 0 else "backlog_expired"
        dropped = await self._do(self.spool.drop, self._read_up_to, excess, horizon)
        if dropped is not None:
            gone, self._read_up_to = dropped
            for sequence, of_shard in gone.items():
                outbox.dropped(sequence, of_shard, reason)
            outbox.bound()
            self._sender.wake()  # what is fresh may have become ready

    # ------------------------------------------------------------------ the thread, and what it says

    async def _do(self, call: Callable[..., T], *arguments: object) -> T | None:
        """Calls the file on its thread. None if the disk refuses or the file is damaged: that is seen to."""
        if time.monotonic() < self._retry_at:
            return None
        loop = asyncio.get_running_loop()
        try:
            result = await loop.run_in_executor(self._thread, call, *arguments)
        except SpoolDamaged as error:
            await self._put_away(error)
        except SpoolError as error:
            self._refused(error)
        else:
            if self._complained and call == self.spool.write:
                self._complained = False
                log.info(event("backlog.disk_well", path=self.spool.path))
            return result
        return None

    def _refused(self, error: SpoolError) -> None:
        self._outbox.disk_errors += 1
        self._retry_at = time.monotonic() + _RETRY_SECONDS
        if not self._complained:
            self._complained = True
            remedy = "batches are held in memory; look at the free space and the rights of state_dir"
            log.error(event("backlog.disk_refuses", path=self.spool.path, error=error, remedy=remedy))

    async def _put_away(self, error: SpoolDamaged) -> None:
        """Sets a damaged file aside and begins a new one; what only the file held is lost."""
        lost = self._outbox.stored.points
        try:
            aside = await asyncio.get_running_loop().run_in_executor(self._thread, self.spool.put_away)
        except SpoolError as refusal:
            self._refused(refusal)
            return
        log.error(event("backlog.damaged", error=error, path=aside, points=lost, done="renamed"))
        self._outbox.nothing_stored(gone=True)
        self._sender.wake()

    async def _reopen(self) -> bool:
        """Opens the file again, after it was damaged or the disk had refused."""
        await self._open()
        return self.spool.is_open


def _chunks(rows: list[tuple[Shard, Batch]]) -> list[list[tuple[Shard, Batch]]]:
    """Batches in groups of a few megabytes."""
    groups: list[list[tuple[Shard, Batch]]] = []
    size = _CHUNK
    for row in rows:
        if size >= _CHUNK:
            groups.append([])
            size = 0
        groups[-1].append(row)
        size += row[1].size
    return groups
