"""The batches that are not settled yet, in memory and on disk.

The life of a batch:

    building --close--> ready --sent, confirmed--> kept --after a while--> forgotten
                         ^ |                        |
                         | '-- stored on disk       |
                         '-------- rewound ---------'     the server no longer has it

At every new connection the server says which batch of ours it has last, and `align` moves batches to where
that number says they belong: what it has is moved on, what it lost is moved back. That one rule covers a
lost reply, a crash that forgot the last second of its log, a fail-over to a replica that was behind, and
batches that an earlier start left on disk; the script covers a batch that was sent twice. Nothing here does
input or output: `backlog` moves batches to the disk and back.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter, deque
from collections.abc import Iterable, Iterator
from typing import Final

from collector.logfmt import event
from collector.store.encode import Batch
from collector.store.shard import Gone, Shard, Tally

log = logging.getLogger(__name__)

# What `appendfsync everysec` and a replica that is behind may lose, with room.
SHORTEST_KEEP: Final = 5.0
_KEEP_BYTES: Final = 96 * 2**20  # of confirmed batches in memory, beyond those of the shortest time
_LOW: Final = 8 * 2**20  # with fewer bytes ready, more are read back from the disk


class Outbox:
    """Keeps batches until the server has confirmed them, and a while longer."""

    def __init__(self, sequences: Iterable[bytes], *, max_bytes: int, keep: float) -> None:
        """`sequences` are the keys of the last batch applied, shard by shard; `max_bytes` bounds what is not
        confirmed; what is confirmed is kept for `keep` seconds, at least `SHORTEST_KEEP`.
        """
        self.own = [Shard(number, key) for number, key in enumerate(sequences)]
        self.shards = self.own  # those of earlier starts come first
        self.pending_bytes = 0  # not confirmed: what is on disk counts as it is there, all else as in memory
        self.ready = Tally()
        self.fresh = Tally()
        self.stored = Tally()  # on disk only
        self.kept = Tally()
        self.applied = 0
        self.duplicates = 0
        self.operation_errors = 0
        self.lost: Counter[str] = Counter()
        self.max_bytes = max_bytes
        self.write_ahead = False  # batches go to disk before they are sent
        self.disk_fails = False  # so memory is bounded even if what is on disk is older
        self.disk_errors = 0
        self.forgotten: list[int] = []  # ids whose bytes on disk are no longer needed
        self.short = asyncio.Event()  # little is ready, and more is stored
        # Ids go up over restarts too, whether or not the file could be opened by then.
        self._next_id = time.time_ns() // 1000
        self._stored_from = 0  # no batch that is on disk only has a lower id
        self._keep = max(keep, SHORTEST_KEEP)
        self._dropping: set[str] = set()  # reasons, each logged once an outage

    @property
    def pending_batches(self) -> int:
        """Batches that are not confirmed."""
        return self.ready.batches + self.fresh.batches + self.stored.batches

    # ------------------------------------------------------------------ what comes

    def add(self, number: int, batch: Batch) -> None:
        """Takes the next batch of a shard."""
        shard = self.own[number]
        batch.id = self._next_id
        self._next_id += 1
        shard.seq = batch.seq
        self.pending_bytes += batch.size
        if self.write_ahead or shard.stored.batches or shard.fresh:
            self.set_aside(shard, batch)
        else:
            self.make_ready(shard, batch)

    def set_aside(self, shard: Shard, batch: Batch) -> None:
        """Puts a batch behind all others of its shard, to be sent when those before it have been."""
        shard.fresh.append(batch)
        self.fresh.add(batch, batch.size)

    def make_ready(self, shard: Shard, batch: Batch) -> None:
        """Puts a batch behind those that are ready."""
        shard.ready.append(batch)
        self.ready.add(batch, batch.size)

    def restore(self, shards: Iterable[Shard], next_id: int) -> None:
        """Takes what earlier starts left on disk; it is sent before anything of this one."""
        earlier = list(shards)
        for shard in earlier:
            self.pending_bytes += shard.stored.bytes
            self.stored.more(shard.stored)
        self.shards = earlier + self.shards
        self._next_id = max(self._next_id, next_id)

    # ------------------------------------------------------------------ what the sender does

    def align(self, shard: Shard, has: int) -> None:
        """Moves batches to where the server's last number says they belong; -1 when it has none."""
        while shard.kept and shard.kept[-1][1].seq > has:
            _, batch = shard.kept.pop()
            self.kept.take(batch, batch.held)
            shard.ready.appendleft(batch)
            self.pending_bytes += batch.cost
            self.ready.add(batch, batch.size)
            if not batch.head:
                self.short.set()
        while shard.ready and shard.ready[0].seq <= has:
            self._confirm(shard)
            self.duplicates += 1
        shard.confirmed = max(has, 0)
        missing = shard.oldest - 1 - shard.settled
        if missing > 0:
            reason = "earlier_start" if shard.earlier else "store_forgot"
            self.lost[reason] += missing
            log.error(event(f"lost.{reason}", batches=missing, has=has, key=shard.sequence.decode()))
            shard.dropped = shard.settled + missing

    def settle(self, shard: Shard, *, applied: bool, errors: list[bytes]) -> None:
        """The first batch that was sent is confirmed: applied now, or found to have been applied before."""
        if applied:
            self.applied += 1
        else:
            self.duplicates += 1
        for error in errors:
            self.operation_errors += 1
            self.lost["store_refused"] += 1
            log.error(event("store.refused", error=error.decode("utf-8", "backslashreplace")))
        shard.flying -= 1
        self._confirm(shard)
        if self.stored.batches and self.ready.bytes < _LOW:
            self.short.set()

    def all_sent(self, shards: Iterable[Shard]) -> None:
        """All that was ready of these is confirmed; what they have kept for long enough is forgotten."""
        those = list(shards)
        if not self.pending_batches:
            self._dropping.clear()
        now = time.monotonic()
        self._forget(those, now - self._keep, 0)
        if self.kept.bytes > _KEEP_BYTES:
            self._forget(those, now - SHORTEST_KEEP, _KEEP_BYTES)
        if any(shard.earlier and shard.done for shard in self.shards):
            self.shards = [shard for shard in self.shards if not (shard.earlier and shard.done)]
        if self.stored.batches or self.forgotten:
            self.short.set()

    def _forget(self, shards: list[Shard], horizon: float, down_to: int) -> None:
        """Forgets what was confirmed before a time, while more than so many bytes of it are in memory."""
        for shard in shards:
            while shard.kept and shard.kept[0][0] < horizon and self.kept.bytes >= down_to:
                _, batch = shard.kept.popleft()
                self.kept.take(batch, batch.held)
                if batch.stored:
                    self.forgotten.append(batch.id)

    def _confirm(self, shard: Shard) -> None:
        batch = shard.ready.popleft()
        self.ready.take(batch, batch.size)
        self.pending_bytes -= batch.cost
        shard.confirmed = max(shard.confirmed, batch.seq)
        if batch.stored:
            batch.put_down()
        shard.kept.append((time.monotonic(), batch))
        self.kept.add(batch, batch.held)

    # ------------------------------------------------------------------ what is lost

    def bound(self) -> None:
        """Drops the oldest batches in memory beyond the limit, but none that is under way, nor any while
        there are older ones on disk: those are the backlog's to drop.
        """
        while self.pending_bytes > self.max_bytes and self._drop_oldest("backlog_full"):
            pass

    def expire(self, horizon: float) -> None:
        """Drops the batches in memory that were closed before a time."""
        while self._drop_oldest("backlog_expired", horizon):
            pass

    def _drop_oldest(self, reason: str, horizon: float = float("inf")) -> bool:
        """Drops the oldest batch in memory, if it was closed before `horizon`."""
        heads = [
            (shard.ready[shard.flying], shard) for shard in self.shards if len(shard.ready) > shard.flying
        ]
        on_disk = self.stored.batches and not self.disk_fails
        if on_disk:  # its turn, where it has older ones
            heads = [head for head in heads if head[0].id < self._stored_from]
        elif not heads:
            heads = [(one.fresh[0], one) for one in self.own if one.fresh]
        if not heads:
            return False
        batch, shard = min(heads, key=lambda head: head[0].id)
        if batch.closed >= horizon:
            return False
        if len(shard.ready) > shard.flying:
            del shard.ready[shard.flying]
            self.ready.take(batch, batch.size)
        else:
            shard.fresh.popleft()
            self.fresh.take(batch, batch.size)
        self.pending_bytes -= batch.cost
        if batch.stored:
            self.forgotten.append(batch.id)
        shard.dropped = batch.seq
        self.lose(reason, batch.points)
        return True

    def lose(self, reason: str, points: int) -> None:
        """Counts what is lost, and says so once an outage and reason."""
        self.lost[reason] += points
        if reason not in self._dropping:
            self._dropping.add(reason)
            log.error(event("backlog.dropped", reason=reason, held=self.pending_bytes, limit=self.max_bytes))

    def abandon(self) -> int:
        """Counts what is only in memory as lost, at the end of a stop; how many points."""
        points = sum(batch.points for _, batch in self.in_memory_only(kept=False))
        if points:
            self.lost["stopped"] += points
        return points

    # ------------------------------------------------------------------ to the disk and back

    def in_memory_only(self, *, kept: bool) -> Iterator[tuple[Shard, Batch]]:
        """What is not confirmed and not on disk; with `kept`, what was confirmed lately too."""
        for shard in self.shards:
            confirmed = (batch for _, batch in shard.kept) if kept else ()
            for batches in (confirmed, shard.ready, shard.fresh):
                yield from ((shard, batch) for batch in batches if not batch.stored)

    def books(self) -> Iterator[tuple[bytes, int, int]]:
        """Sequence key, confirmed and dropped of each shard that has something on disk."""
        for shard in self.shards:
            kept, ready = shard.kept, shard.ready
            if shard.stored.batches or (kept and kept[-1][1].stored) or (ready and ready[0].stored):
                yield shard.sequence, shard.confirmed, shard.dropped

    def spill(self, excess: int, after: int) -> None:
        """Sets aside so many bytes of what is ready, the newest, so that they can be written to disk.

        Only batches with an id past `after` may go there: the disk is read in the order of ids, and has been
        read up to that one.
        """
        unsent = [
            (batch.id, shard)
            for shard in self.own
            if not shard.stored.batches  # else there are some between what is ready and what is fresh
            for batch in shard.unsent()
            if batch.id > after and not batch.stored
        ]
        for _, shard in sorted(unsent, key=lambda one: -one[0]):
            if excess <= 0:
                return
            batch = shard.ready.pop()
            self.ready.take(batch, batch.size)
            shard.fresh.appendleft(batch)
            self.fresh.add(batch, batch.size)
            excess -= batch.size

    def to_write(self, most: int) -> list[tuple[Shard, Batch]]:
        """The oldest of what was set aside, up to about so many bytes."""
        found = sorted(
            ((shard, batch) for shard in self.own for batch in shard.fresh), key=lambda one: one[1].id
        )
        size = 0
        for n, (_, batch) in enumerate(found):
            size += batch.size
            if size > most:
                return found[: n + 1]
        return found

    def written(self, rows: list[tuple[Shard, Batch]], *, ready: bool) -> None:
        """What `to_write` gave is on disk. With `ready` it stays in memory too, to be sent."""
        for shard, batch in rows:
            if not shard.fresh or shard.fresh[0] is not batch:  # dropped meanwhile
                self.forgotten.append(batch.id)
                continue
            shard.fresh.popleft()
            self.fresh.take(batch, batch.size)
            self.pending_bytes += batch.stored - batch.size
            if ready:
                self.make_ready(shard, batch)
                continue
            self._stored_from = min(self._stored_from, batch.id) if self.stored.batches else batch.id
            if not shard.stored.batches:
                shard.stored_from = batch.seq
            shard.stored.add(batch, batch.stored)
            self.stored.add(batch, batch.stored)
            batch.put_down()

    def unwritten(self) -> None:
        """The disk takes nothing: what was set aside is sent from memory, unless more is stored before it."""
        for shard in self.own:
            if not shard.stored.batches:
                self._merge(shard)

    def loaded(self, sequence: bytes, batch: Batch) -> None:
        """A batch was read back from the disk: the next of those that are stored."""
        shard = self._shard(sequence)
        shard.stored.take(batch, batch.stored)
        self.stored.take(batch, batch.stored)
        shard.stored_from = batch.seq + 1
        self._stored_from = batch.id + 1
        self.make_ready(shard, batch)
        if batch.seq <= shard.confirmed and len(shard.ready) == 1:
            self._confirm(shard)
            self.duplicates += 1
        if not shard.stored.batches:
            self._merge(shard)

    def _shard(self, sequence: bytes) -> Shard:
        return next(shard for shard in self.shards if shard.sequence == sequence)

    def _merge(self, shard: Shard) -> None:
        while shard.fresh:
            batch = shard.fresh.popleft()
            self.fresh.take(batch, batch.size)
            self.make_ready(shard, batch)

    def without_bytes(self) -> list[int]:
        """The ids of batches that were rewound and have their bytes on disk."""
        return [batch.id for shard in self.shards for batch in shard.ready if not batch.head]

    def refilled(self, asked: list[int], found: dict[int, Batch]) -> None:
        """Gives rewound batches their bytes; those that were asked for and not found are lost."""
        ids = set(asked)
        for shard in self.shards:
            for batch in [batch for batch in shard.ready if not batch.head and batch.id in ids]:
                if (same := found.get(batch.id)) is not None:
                    batch.head, batch.tail = same.head, same.tail
                else:
                    self._damaged(shard, batch)

    def _damaged(self, shard: Shard, batch: Batch) -> None:
        shard.ready.remove(batch)
        self.ready.take(batch, batch.size)
        self.pending_bytes -= batch.cost
        self.lose("spool_damaged", batch.points)

    def dropped(self, sequence: bytes, gone: Gone, reason: str) -> None:
        """The oldest stored batches of a shard were deleted."""
        shard = self._shard(sequence)
        shard.stored.less(gone.all)
        self.stored.less(gone.all)
        self.pending_bytes -= gone.all.bytes
        shard.stored_from = gone.last + 1
        shard.dropped = max(shard.dropped, gone.lost_up_to)
        if gone.lost_points:
            self.lose(reason, gone.lost_points)
        if not shard.stored.batches:
            self._merge(shard)

    def nothing_stored(self, *, gone: bool) -> None:
        """The disk has no more to give: what should have been there is lost. With `gone` the file is, with
        all that it held.
        """
        for shard in self.shards:
            if shard.stored.batches:
                self.lose("spool_damaged", shard.stored.points)
                shard.dropped = shard.fresh[0].seq - 1 if shard.fresh else shard.seq
                self.stored.less(shard.stored)
                self.pending_bytes -= shard.stored.bytes
                shard.stored = Tally()
                self._merge(shard)
            if gone:
                self._without_file(shard)

    def _without_file(self, shard: Shard) -> None:
        for batch in [batch for batch in shard.ready if not batch.head]:
            self._damaged(shard, batch)
        for batch in shard.ready:
            self.pending_bytes += batch.size - batch.cost
            batch.stored = 0
        for _, batch in shard.kept:
            batch.stored = 0
        self.kept.batches -= sum(not batch.head for _, batch in shard.kept)
        shard.kept = deque(one for one in shard.kept if one[1].head)
        self.forgotten.clear()
