"""Random walks through everything that can happen to a batch, with a server that is a few lines long.

What the server applies is noted; in the end each batch was applied once, or counted as lost, and never both.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from collector.store.backlog import Backlog
from collector.store.encode import SHA, Batch
from collector.store.outbox import Outbox
from collector.store.settings import BacklogSettings, SpoolMode
from collector.store.shard import Shard

SHARDS = 3
KIB = 1024


class Server:
    """What the script does, and a memory that can go back to what it was."""

    def __init__(self) -> None:
        self.has: dict[bytes, int] = {}
        self.applied: Counter[tuple[bytes, int]] = Counter()

    def apply(self, key: bytes, seq: int, prev: int) -> int:
        """1 applied, 0 a repeat, -1 a gap."""
        q = self.has.get(key, -1)
        if q >= seq:
            return 0
        if q != prev and not (q == -1 and prev == 0):
            return -1
        self.has[key] = seq
        self.applied[key, seq] += 1
        return 1

    def copy(self) -> Server:
        """As it is now."""
        other = Server()
        other.has, other.applied = dict(self.has), Counter(self.applied)
        return other


class Sender:
    """What a backlog asks of a sender."""

    up = False
    last_error = ""

    def wake(self) -> None:
        """The walk sends when it wants to."""


class Walk:
    """A collector and its server; each step is drawn."""

    def __init__(self, directory: Path, seed: int, mode: SpoolMode, limit: int) -> None:
        self.random = random.Random(seed)
        self.directory = directory
        self.settings = BacklogSettings(spool=mode, memory=20 * KIB, max_bytes=limit)
        self.server = Server()
        self.earlier: Server | None = None  # what it can go back to
        self.made = 0
        self.lost: Counter[str] = Counter()
        self.starts = 0
        # What is dropped while nobody knows whether the server has it may be counted although it has; so with
        # a limit no reply is lost, and the server does not go back.
        self.roomy = limit > KIB**2

    async def start(self) -> None:
        self.starts += 1
        names = [b"{m%02d}:q:%012x" % (shard, self.starts) for shard in range(SHARDS)]
        self.outbox = Outbox(names, max_bytes=self.settings.max_bytes, keep=5)
        self.sender = Sender()
        stands_in: Any = self.sender
        self.backlog = Backlog(self.settings, self.directory, self.outbox, stands_in)
        await self.backlog._open()

    async def stop(self, *, killed: bool) -> None:
        if killed:
            self.backlog.spool.close()
            self.backlog._thread.shutdown()
        else:
            await self.backlog._close()
            self.backlog._thread.shutdown()
        self.lost += self.outbox.lost

    def add(self) -> None:
        """A flush: some batches."""
        for _ in range(self.random.randrange(1, 12)):
            number = self.random.randrange(SHARDS)
            head = (
                b"*3\r\n$7\r\nEVALSHA\r\n$40\r\n" + SHA + self.random.randbytes(self.random.randrange(2000))
            )
            self.outbox.add(number, Batch(self.outbox.own[number].seq + 1, time.time(), 1, head, b"tail"))
            self.made += 1

    def session(self, chance: float) -> None:
        """A connection: asks, aligns, sends, until it breaks or all that is ready is sent."""
        shards = self.outbox.shards
        for shard in shards:
            self.outbox.align(shard, self.server.has.get(shard.sequence, -1))
        self.sender.up = True
        for shard in shards:
            while (following := shard.next_to_send()) is not None:
                batch, prev = following
                assert batch.head
                if self.random.random() < chance:
                    if self.roomy and self.random.random() < 0.5:
                        self.server.apply(shard.sequence, batch.seq, prev)
                    self.sender.up = False
                    break
                outcome = self.server.apply(shard.sequence, batch.seq, prev)
                assert outcome >= 0, "a gap after the question"
                self.outbox.settle(shard, applied=outcome > 0, errors=[])
            if not self.sender.up:
                break
        else:
            self.outbox.all_sent(self.outbox.shards)
        for shard in shards:
            shard.flying = 0

    async def step(self) -> None:
        match self.random.randrange(10):
            case 0 | 1 | 2:
                self.add()
                await self.backlog.commit()
            case 3 | 4:
                self.session(0.05)
                await self.backlog.commit()
            case 5:
                self.sender.up = False
            case 6:
                self.earlier = self.server.copy()
            case 7 if self.earlier is not None and self.roomy:
                self.server, self.earlier = self.earlier, None
                self.sender.up = False
            case 8 if self.sender.up:  # so it has been asked since it went back
                self.outbox._forget(self.outbox.shards, float("inf"), 0)
                self.earlier = None
            case 9 if self.random.random() < 0.3:
                always = self.settings.spool is SpoolMode.ALWAYS
                await self.stop(killed=always and self.random.random() < 0.7)
                await self.start()
                if not always:
                    self.earlier = None  # what was confirmed is on disk with `always` only
        self.check()

    def check(self) -> None:
        """The books agree with what there is, and each shard is in order."""
        outbox = self.outbox
        shards = outbox.shards
        ready = [batch for shard in shards for batch in shard.ready]
        fresh = [batch for shard in shards for batch in shard.fresh]
        assert (outbox.ready.batches, outbox.ready.bytes) == (len(ready), sum(one.size for one in ready))
        assert (outbox.fresh.batches, outbox.fresh.bytes) == (len(fresh), sum(one.size for one in fresh))
        stored = sum(shard.stored.bytes for shard in shards)
        assert outbox.stored.bytes == stored
        assert outbox.stored.batches == sum(shard.stored.batches for shard in shards)
        assert outbox.pending_bytes == stored + sum(one.cost for one in ready + fresh)
        assert outbox.kept.bytes == sum(len(one.head + one.tail) for shard in shards for _, one in shard.kept)
        for shard in shards:
            self.in_order(shard)

    def in_order(self, shard: Shard) -> None:
        numbers = [batch.seq for _, batch in shard.kept] + [batch.seq for batch in shard.ready]
        if shard.stored.batches:
            numbers += range(shard.stored_from, shard.stored_from + shard.stored.batches)
        numbers += [batch.seq for batch in shard.fresh]
        assert numbers == sorted(set(numbers))
        assert not numbers or shard.earlier or numbers[-1] == shard.seq or shard.dropped > numbers[-1]

    async def drain(self) -> None:
        for _ in range(1000):
            self.session(0.0)
            await self.backlog.commit()
            if not self.outbox.pending_batches:
                return
        raise AssertionError("the backlog is never sent")


@pytest.mark.parametrize("mode", [SpoolMode.ON_OUTAGE, SpoolMode.ALWAYS])
@pytest.mark.parametrize("limit", [10**9, 60 * KIB])
@pytest.mark.parametrize("seed", range(6))
def test_each_batch_is_applied_once_or_counted_as_lost(
    tmp_path: Path, seed: int, limit: int, mode: SpoolMode
) -> None:
    """Flushes, broken connections, lost replies, a server that goes back, spilling, reading back, dropping,
    stops, kills and starts, in any order.
    """

    async def run() -> None:
        walk = Walk(tmp_path, seed, mode, limit)
        await walk.start()
        for _ in range(250):
            await walk.step()
        await walk.drain()
        await walk.stop(killed=False)
        assert set(walk.server.applied.values()) <= {1}
        if limit == 10**9:
            assert not walk.lost
        assert len(walk.server.applied) + walk.lost.total() == walk.made, walk.lost

    asyncio.run(run())
