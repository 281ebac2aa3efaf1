"""The batches of one shard that are not settled yet, oldest first.

        kept           ready           stored          fresh
    |-----------|-----------------|---------------|-------------|   numbers grow this way ->
     confirmed    in memory, to     on disk only    in memory, must not be sent before
                  be sent now                       what is stored; or is to be written first

Without a spool there are only `kept` and `ready`. A batch that is ready or kept may be on disk too; a kept
one, and one that was rewound, may have left its bytes there.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field

from collector.store.encode import Batch


@dataclass(slots=True)
class Tally:
    """How much there is of something."""

    batches: int = 0
    bytes: int = 0
    points: int = 0

    def add(self, batch: Batch, size: int) -> None:
        """Counts a batch in, that takes `size` bytes here."""
        self.batches += 1
        self.bytes += size
        self.points += batch.points

    def take(self, batch: Batch, size: int) -> None:
        """Counts it out."""
        self.batches -= 1
        self.bytes -= size
        self.points -= batch.points

    def more(self, other: Tally) -> None:
        """Counts many in."""
        self.batches += other.batches
        self.bytes += other.bytes
        self.points += other.points

    def less(self, other: Tally) -> None:
        """Counts many out."""
        self.batches -= other.batches
        self.bytes -= other.bytes
        self.points -= other.points


@dataclass(slots=True)
class Gone:
    """What was deleted of a shard, and what of it was lost by that."""

    last: int = 0
    all: Tally = field(default_factory=Tally)
    lost_up_to: int = 0
    lost_points: int = 0


class Shard:
    """One shard of one life of a collector. Ready batches from `flying` on have not been sent."""

    __slots__ = (
        *("confirmed", "dropped", "earlier", "flying", "fresh", "kept", "number", "ready", "seq"),
        *("sequence", "stored", "stored_from"),
    )

    def __init__(self, number: int, sequence: bytes, *, earlier: bool = False) -> None:
        """`sequence` is the key of the last batch applied, `earlier` an earlier start's, of which only that
        is here which was found on disk.
        """
        self.number = number
        self.sequence = sequence
        self.earlier = earlier
        self.seq = 0  # of the newest batch
        self.confirmed = 0  # of the newest batch that the server is known to have
        self.dropped = 0  # of the newest batch that was dropped
        self.flying = 0  # how many of the first ready ones are sent and not yet confirmed
        self.kept: deque[tuple[float, Batch]] = deque()  # with the time of confirmation
        self.ready: deque[Batch] = deque()
        self.stored = Tally()
        self.stored_from = 0  # number of the oldest that is stored
        self.fresh: deque[Batch] = deque()

    @property
    def oldest(self) -> int:
        """The number of the oldest batch that is still held, or will be the next."""
        if self.kept:
            return self.kept[0][1].seq
        if self.ready:
            return self.ready[0].seq
        if self.stored.batches:
            return self.stored_from
        return self.fresh[0].seq if self.fresh else self.seq + 1

    @property
    def settled(self) -> int:
        """The number up to which nothing is owed: confirmed, or dropped and counted."""
        return max(self.confirmed, self.dropped)

    @property
    def done(self) -> bool:
        """Whether nothing is left."""
        return not (self.kept or self.ready or self.stored.batches or self.fresh)

    def next_to_send(self) -> tuple[Batch, int] | None:
        """The oldest batch that was not sent, and the number of the one before it; it counts as sent now.

        That number is what the server will have by then, so batches that were dropped leave no gap. None also
        when the bytes have yet to be read back.
        """
        at = self.flying
        if at == len(self.ready) or not self.ready[at].head:
            return None
        self.flying += 1
        return self.ready[at], self.ready[at - 1].seq if at else self.confirmed

    def unsent(self) -> Iterable[Batch]:
        """The ready ones that were not sent, newest first."""
        for at in range(len(self.ready) - 1, self.flying - 1, -1):
            yield self.ready[at]
