"""The steps of a chain, and how far each has come."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise

from collector.model import Kind
from collector.retention import SLOTS, chain_fault
from collector.store.keys import LETTERS


@dataclass(frozen=True, slots=True)
class Edge:
    """One step along a chain: what is made from what. Resolutions in seconds."""

    kind: Kind
    finer: int
    coarser: int
    after: int  # the next rung, 0 behind the last

    @property
    def field(self) -> bytes:
        """Its name in the hash of the watermark."""
        return b"%b:%d" % (LETTERS[self.kind], self.finer)

    @property
    def span(self) -> int:
        """Seconds that are rolled up at once: a chunk, or of a set what one coarser slot covers."""
        return self.coarser if self.kind is Kind.SET else self.finer * SLOTS


def edges(kind: Kind, chain: tuple[int, ...]) -> Iterator[Edge]:
    """The steps of a chain, the finest first."""
    for at, (finer, coarser) in enumerate(pairwise(chain), 2):
        yield Edge(kind, finer, coarser, chain[at] if at < len(chain) else 0)


class Watermarks:
    """How far the roll-ups of one shard have come: (begun, done) of each, in seconds of Unix time."""

    def __init__(self, hashes: Mapping[int, Mapping[bytes, bytes]]) -> None:
        self._marks: dict[tuple[bytes, int, int], tuple[int, int]] = {}
        for coarser, fields in hashes.items():
            for field, text in fields.items():
                letter, _, finer = field.partition(b":")
                begun, _, done = text.partition(b" ")
                self._marks[letter, int(finer), coarser] = int(begun), int(done)

    def chain(self, kind: Kind, wanted: tuple[int, ...]) -> tuple[int, ...]:
        """The chain of a kind, with resolutions that a ladder of the past has left as long as they fit in."""
        letter = LETTERS[kind]
        left = {one for key in self._marks if key[0] == letter for one in key[1:] if one > wanted[0]}
        chain = tuple(sorted({*wanted, *left}))
        return wanted if chain_fault(chain) else chain

    def done(self, edge: Edge) -> int | None:
        """Where a roll-up goes on; None when none has been there.

        A new rung takes over where the roll-up went on that led past it.
        """
        letter = LETTERS[edge.kind]
        marks = [
            done
            for (of, finer, coarser), (_, done) in self._marks.items()
            if of == letter and (finer == edge.finer or coarser == edge.coarser)
        ]
        return max(marks, default=None)
