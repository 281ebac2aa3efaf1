"""Points to the operations of a batch.

A batch is one EVALSHA of `batch.lua` for one shard. Its keys and operations are packed as soon as it is
full; the two numbers in front of them, its own and that of the batch before it, are put in when it is
sent, because what came before is settled by what the server says it has:

    *<n>  EVALSHA sha <keys>  q last total ix <key>…     seq prev ttl     op count ttl when <argument>…
          \\__________________ head ________________/   per sending      \\_______ tail _________/
"""

from __future__ import annotations

import time
from array import array
from collections import defaultdict
from dataclasses import dataclass, field
from typing import Any, Final, cast

import hiredis

from collector.model import (
    Check,
    Event,
    GaugePoint,
    Number,
)
from collector.store.packed import Packed
from collector.store.scripts import ScriptText

_BATCH: Final = ScriptText("number.lua", "batch.lua")
SCRIPT: Final = _BATCH.text
SHA: Final = _BATCH.sha.encode()

SEQUENCE_SECONDS: Final = 30 * 86400  # how long a collector that is gone is remembered
STREAM_LENGTH: Final = 10_000  # events and checks kept, each
BATCH_POINTS: Final = 500
BATCH_BYTES: Final = 256 * 1024  # of keys and operations


@dataclass(slots=True)
class Batch:
    """A packed batch. `points` is what losing it would cost, `closed` is Unix time."""

    seq: int
    closed: float
    points: int
    head: bytes
    tail: bytes
    id: int = 0
    """Its place among the batches of all shards, and its key on disk; given by the outbox."""
    stored: int = 0
    """Bytes that it takes on disk; 0 while it is not there."""
    size: int = field(init=False)
    """Bytes of it in memory, roughly those sent."""

    def __post_init__(self) -> None:
        self.size = self.held

    @property
    def held(self) -> int:
        """Bytes of it that are in memory now; none once they are left to the disk."""
        return len(self.head) + len(self.tail)

    @property
    def cost(self) -> int:
        """Bytes that it counts for while it waits: on disk, or else in memory."""
        return self.stored or self.size

    def put_down(self) -> None:
        """Leaves the bytes to the disk, which has them."""
        self.head = self.tail = b""

    def command(self, prev: int) -> list[bytes]:
        """The command as RESP, when `prev` is the number of the batch before it."""
        numbers = _bulks([b"%d" % self.seq, b"%d" % prev, b"%d" % SEQUENCE_SECONDS])
        return [self.head, numbers, self.tail]


class Encoder:
    """Gathers the operations of one batch, by kind, time to live, and when it was.

    `when` is the start of the chunk and the chain that it is rolled up along, as `1700000400,10,60`: the
    script looks whether that has begun. Empty, it does not.

    One that is full should be closed before more is added: it has BATCH_POINTS points or BATCH_BYTES of size,
    or a `share` of them.
    """

    def __init__(self, seq: int, collector: bytes, share: float = 1.0) -> None:
        self.seq = seq
        self.points = 0
        self.size = 0
        self._most_points = share * BATCH_POINTS
        self._most_size = share * BATCH_BYTES
        self._name = b"%b.%d" % (collector, seq)
        self._groups: defaultdict[tuple[bytes, int, bytes], Packed] = defaultdict(Packed)
        self._registry: list[bytes] = []

    @property
    def full(self) -> bool:
        """Whether there is enough in it."""
        return self.points >= self._most_points or self.size >= self._most_size

    def register(self, key: bytes, seen: int) -> None:
        """Notes in the registry that a series was seen, at `seen` seconds."""
        self._registry += (key, b"%d" % seen)

    # `base` and `chunk` make the key, see `KeySpace.chunks`.

    def counter(
        self, base: bytes, chunk: int, slot: int, field: bytes, value: Number, ttl: int, when: bytes = b""
    ) -> None:
        """Adds an increment to a slot and to the total."""
        self.size += self._groups[b"C", ttl, when].add(base, chunk, (slot, value, field))
        self.points += 1

    def gauge(
        self, base: bytes, chunk: int, slot: int, field: bytes, point: GaugePoint, ttl: int, when: bytes = b""
    ) -> None:
        """Sets or moves a gauge."""
        how, value = (b"move", point.move) if point.value is None else (b"set", point.value)
        self.size += self._groups[b"G", ttl, when].add(base, chunk, (slot, field, point.at, how, value))
        self.points += 1

    def sketch(self, base: bytes, chunk: int, slot: int, encoded: bytes, ttl: int, when: bytes = b"") -> None:
        """Puts a sketch beside those of other batches and collectors in a slot."""
        field = b"%d:%b" % (slot, self._name)
        self.size += self._groups[b"D", ttl, when].add(base, chunk, (field, encoded))
        self.points += 1

    def samples(self, key: bytes, ms: int, values: array[float], keep: int, ttl: int) -> None:
        """Adds raw samples, all at `ms`; of older ones those beyond `keep` go, now or a few batches later."""
        group = self._groups[b"T", ttl, b""]
        self.size += group.add_samples(key, keep, ms, values, self._name, self.points)
        self.points += 1

    def members(self, base: bytes, minute: int, members: list[bytes], ttl: int, when: bytes = b"") -> None:
        """Adds members to a HyperLogLog."""
        self.size += self._groups[b"S", ttl, when].add(base, minute, (len(members), *members))
        self.points += 1

    def entry(self, key: bytes, at: int, item: Event | Check) -> None:
        """Appends an event or a check to its capped stream; `at` stands in for a missing time."""
        fields: list[bytes] = []
        for name in item.__slots__:
            value = getattr(item, name)
            if name == "at":
                value = at if value is None else value
            elif name == "tags":
                value = ",".join(value)
            fields += (name.encode(), str(value).encode())
        self.size += self._groups[b"X", 0, b""].add(key, -1, (STREAM_LENGTH, len(fields), *fields))
        self.points += 1

    def close(self, shard_keys: list[bytes]) -> Batch:
        """Packs what was gathered; `shard_keys` are q, last, total and ix of the shard."""
        keys = len(shard_keys)
        head = [_bulks(shard_keys)]
        tail: list[bytes] = []
        arguments = 0
        for (op, ttl, when), group in self._groups.items():
            keys += group.operations
            head.append(group.keys)
            tail += (_bulks([op, b"%d" % group.operations, b"%d" % ttl, when]), group.arguments)
            arguments += 4 + group.count
        if self._registry:
            registered = [b"R", b"%d" % (len(self._registry) // 2), b"0", b"", *self._registry]
            tail.append(_bulks(registered))
            arguments += len(registered)
        start = [b"EVALSHA", SHA, b"%d" % keys]
        count = len(start) + keys + 3 + arguments  # the three are the numbers between head and tail
        return Batch(
            self.seq,
            time.time(),
            self.points,
            b"".join((b"*%d\r\n" % count, _bulks(start), *head)),
            b"".join(tail),
        )


def _bulks(parts: list[bytes]) -> bytes:
    """RESP bulk strings: hiredis packs a whole command in C; its first line is cut off again."""
    packed: bytes = hiredis.pack_command(cast("Any", tuple(parts)))  # its stub knows one-tuples only
    return packed[packed.index(b"\n") + 1 :]
