"""The batches that are not settled yet, shard by shard.

The life of a batch:

    building --close--> pending --sent, confirmed--> kept --after a while--> forgotten
                           ^                          |
                           '-------- rewound ---------'     the server no longer has it

At every new connection the server says which batch of ours it has last, and `align` moves batches to where
that number says they belong: what it has is moved on, what it lost is moved back. That one rule covers a
lost reply, a crash that forgot the last second of its log, and a fail-over to a replica that was behind;
the script covers a batch that was sent twice. Nothing here does input or output.
"""

from __future__ import annotations

import logging
import time
from collections import Counter, deque
from collections.abc import Iterable
from typing import Final

from collector.logfmt import event
from collector.store.encode import Batch
from collector.store.keys import SHARDS

log = logging.getLogger(__name__)

_KEEP_SECONDS: Final = 20.0  # confirmed batches: two flushes, and what `appendfsync everysec` may lose


class Shard:
    """The batches of one shard, oldest first. Pending ones from `flying` on have not been sent."""

    __slots__ = ("confirmed", "dropped", "flying", "kept", "number", "pending", "seq")

    def __init__(self, number: int) -> None:
        self.number = number
        self.seq = 0  # of the newest batch
        self.confirmed = 0  # of the newest batch that the server is known to have
        self.dropped = 0  # of the newest batch that was dropped
        self.flying = 0  # how many of the first pending ones are sent and not yet confirmed
        self.pending: deque[Batch] = deque()
        self.kept: deque[tuple[float, Batch]] = deque()

    @property
    def oldest(self) -> int:
        """The number of the oldest batch that is still held, or will be the next."""
        if self.kept:
            return self.kept[0][1].seq
        return self.pending[0].seq if self.pending else self.seq + 1

    def next_to_send(self) -> tuple[Batch, int] | None:
        """The oldest batch that was not sent, and the number of the one before it; it counts as sent now.

        That number is what the server will have by then, so batches that were dropped leave no gap.
        """
        at = self.flying
        if at == len(self.pending):
            return None
        self.flying += 1
        return self.pending[at], self.pending[at - 1].seq if at else self.confirmed


class Outbox:
    """Keeps batches until the server has confirmed them, and a while longer."""

    def __init__(self, *, max_bytes: int) -> None:
        """`max_bytes` bounds what is held while the store is away."""
        self.shards = [Shard(number) for number in range(SHARDS)]
        self.pending_batches = 0
        self.pending_bytes = 0
        self.applied = 0
        self.duplicates = 0
        self.operation_errors = 0
        self.lost: Counter[str] = Counter()
        self._max_bytes = max_bytes
        self._overflowing = False  # logged once for each outage

    def add(self, number: int, batch: Batch) -> None:
        """Takes the next batch of a shard."""
        shard = self.shards[number]
        shard.seq = batch.seq
        shard.pending.append(batch)
        self._hold(batch)

    def bound(self) -> None:
        """Drops the oldest batches beyond the limit, but none that is under way."""
        while self.pending_bytes > self._max_bytes:
            droppable = [shard for shard in self.shards if len(shard.pending) > shard.flying]
            if not droppable:
                return
            shard = min(droppable, key=lambda shard: shard.pending[shard.flying].closed)
            batch = shard.pending[shard.flying]
            del shard.pending[shard.flying]
            shard.dropped = batch.seq
            self._release(batch)
            self.lost["backlog_full"] += batch.points
            if not self._overflowing:
                self._overflowing = True
                log.error(event("backlog.full", held=self.pending_bytes, limit=self._max_bytes))

    def align(self, shard: Shard, has: int) -> None:
        """Moves batches to where the server's last number says they belong; -1 when it has none."""
        while shard.kept and shard.kept[-1][1].seq > has:
            _, batch = shard.kept.pop()
            shard.pending.appendleft(batch)
            self._hold(batch)
        while shard.pending and shard.pending[0].seq <= has:
            self._confirm(shard)
            self.duplicates += 1
        shard.confirmed = max(has, 0)
        missing = shard.oldest - 1 - max(shard.confirmed, shard.dropped)
        if missing > 0:
            self.lost["store_forgot"] += missing
            log.error(event("store.forgot", batches=missing, has=has))
            shard.dropped = shard.confirmed + missing

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

    def all_sent(self, shards: Iterable[Shard]) -> None:
        """These have been sent, and their server is there: what was kept for long enough is forgotten."""
        if not self.pending_batches:
            self._overflowing = False
        horizon = time.monotonic() - _KEEP_SECONDS
        for shard in shards:
            while shard.kept and shard.kept[0][0] < horizon:
                shard.kept.popleft()

    def abandon(self) -> int:
        """Counts what is still pending as lost, at the end of a stop; how many points."""
        points = sum(batch.points for shard in self.shards for batch in shard.pending)
        if points:
            self.lost["stopped"] += points
        return points

    def _confirm(self, shard: Shard) -> None:
        batch = shard.pending.popleft()
        self._release(batch)
        shard.confirmed = batch.seq
        shard.kept.append((time.monotonic(), batch))

    def _hold(self, batch: Batch) -> None:
        self.pending_batches += 1
        self.pending_bytes += batch.size

    def _release(self, batch: Batch) -> None:
        self.pending_batches -= 1
        self.pending_bytes -= batch.size
