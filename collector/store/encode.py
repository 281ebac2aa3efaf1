"""Points to the operations of a batch.

A batch is one EVALSHA of `batch.lua` for one shard. Its keys and operations are packed as soon as it is
full; the two numbers in front of them, its own and that of the batch before it, are put in when it is
sent, because what came before is settled by what the server says it has:

    *<n>  EVALSHA sha <keys>  q last total ix <key>…     seq prev ttl     op count ttl <argument>…
          \\__________________ head ________________/   per sending      \\_______ tail _________/
"""

from __future__ import annotations

import hashlib
import time
from dataclasses import dataclass
from importlib import resources
from typing import Any, Final, cast

import hiredis

from collector.model import (
    Check,
    CounterPoint,
    Event,
    GaugePoint,
    Number,
    SetPoint,
    TimerPoint,
)

SCRIPT: Final = (resources.files(__package__) / "batch.lua").read_bytes()
SHA: Final = hashlib.sha1(SCRIPT, usedforsecurity=False).hexdigest().encode()

SEQUENCE_SECONDS: Final = 30 * 86400  # how long a collector that is gone is remembered
STREAM_LENGTH: Final = 10_000  # events and checks kept, each
BATCH_POINTS: Final = 500
BATCH_BYTES: Final = 256 * 1024  # about: sizes are summed before RESP adds its own


@dataclass(slots=True)
class Batch:
    """A packed batch. `points` is what losing it would cost; `closed` orders batches of all shards."""

    seq: int
    closed: float
    points: int
    head: bytes
    tail: bytes

    @property
    def size(self) -> int:
        """Bytes held in memory, roughly those sent."""
        return len(self.head) + len(self.tail)

    def command(self, prev: int) -> list[bytes]:
        """The command as RESP, when `prev` is the number of the batch before it."""
        numbers = _bulks([b"%d" % self.seq, b"%d" % prev, b"%d" % SEQUENCE_SECONDS])
        return [self.head, numbers, self.tail]


class Encoder:
    """Gathers the operations of one batch. Groups hold operations of one kind and one time to live."""

    def __init__(self, seq: int, collector: bytes) -> None:
        self.seq = seq
        self.points = 0
        self.size = 0
        self._name = b"%b.%d" % (collector, seq)
        self._groups: dict[tuple[bytes, int], tuple[list[bytes], list[bytes]]] = {}
        self._registry: list[bytes] = []
        self._samples = 0

    @property
    def full(self) -> bool:
        """Whether the batch should be closed before more is added."""
        return self.points >= BATCH_POINTS or self.size >= BATCH_BYTES

    def register(self, key: bytes, seen: int) -> None:
        """Notes in the registry that a series was seen, at `seen` seconds."""
        self._registry += (key, b"%d" % seen)

    def counter(self, key: bytes, slot: int, field: bytes, point: CounterPoint, ttl: int) -> None:
        """Adds an increment to a slot and to the total."""
        self._add(b"C", ttl, key, [b"%d" % slot, number_text(point.value), field])

    def gauge(self, key: bytes, slot: int, field: bytes, point: GaugePoint, ttl: int) -> None:
        """Sets or moves a gauge."""
        how, value = (b"move", point.move) if point.value is None else (b"set", point.value)
        arguments = [b"%d" % slot, field, b"%d" % point.at, how, number_text(value)]
        self._add(b"G", ttl, key, arguments)

    def sketch(self, key: bytes, slot: int, point: TimerPoint, ttl: int) -> None:
        """Puts a sketch beside those of other batches and collectors in a slot."""
        self._add(b"D", ttl, key, [b"%d:%b" % (slot, self._name), point.sketch.encode()])

    def samples(self, key: bytes, ms: int, point: TimerPoint, keep: int, ttl: int) -> None:
        """Adds raw samples, all at `ms`, and trims to the newest `keep`."""
        arguments = [b"%d" % keep, b"%d" % len(point.samples)]
        score = b"%d" % ms
        for n, value in enumerate(point.samples, self._samples):
            arguments += (score, b"%b:%b.%d" % (number_text(value), self._name, n))
        self._samples += len(point.samples)
        self._add(b"T", ttl, key, arguments)

    def members(self, key: bytes, point: SetPoint, ttl: int) -> None:
        """Adds members to a HyperLogLog."""
        self._add(b"S", ttl, key, [b"%d" % len(point.members), *point.members])

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
        self._add(b"X", 0, key, [b"%d" % STREAM_LENGTH, b"%d" % len(fields), *fields])

    def _add(self, op: bytes, ttl: int, key: bytes, arguments: list[bytes]) -> None:
        keys, gathered = self._groups.setdefault((op, ttl), ([], []))
        keys.append(key)
        gathered += arguments
        self.points += 1
        self.size += len(key) + sum(map(len, arguments))

    def close(self, shard_keys: list[bytes]) -> Batch:
        """Packs what was gathered; `shard_keys` are q, last, total and ix of the shard."""
        keys = list(shard_keys)
        arguments: list[bytes] = []
        for (op, ttl), (group_keys, gathered) in self._groups.items():
            keys += group_keys
            arguments += (op, b"%d" % len(group_keys), b"%d" % ttl)
            arguments += gathered
        if self._registry:
            arguments += (b"R", b"%d" % (len(self._registry) // 2), b"0", *self._registry)
        start = [b"EVALSHA", SHA, b"%d" % len(keys), *keys]
        count = len(start) + 3 + len(arguments)
        return Batch(
            self.seq,
            time.monotonic(),
            self.points,
            b"*%d\r\n%b" % (count, _bulks(start)),
            _bulks(arguments),
        )


def number_text(value: Number) -> bytes:
    """A number as the store holds it: without a point when it is whole, so that HINCRBY takes it."""
    if isinstance(value, float) and value.is_integer() and abs(value) < 2**53:
        value = int(value)
    return b"%d" % value if isinstance(value, int) else repr(value).encode()


def read_number(text: bytes) -> Number:
    """Reads what `number_text`, HINCRBYFLOAT or the script wrote."""
    try:
        return int(text)
    except ValueError:
        return float(text)


def _bulks(parts: list[bytes]) -> bytes:
    """RESP bulk strings: hiredis packs a whole command in C; its first line is cut off again."""
    packed: bytes = hiredis.pack_command(cast("Any", tuple(parts)))  # its stub knows one-tuples only
    return packed[packed.index(b"\n") + 1 :]
