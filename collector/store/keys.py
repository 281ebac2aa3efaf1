"""Every key and field in the store.

All keys of a series lie in one of 64 shards, and all keys of a shard carry one hash tag, so that one
script call can write a shard's batch, in a Redis Cluster too. `{t}` is the tag, like `{m07-3}`:

    {t}:c:<series>:<res>:<chunk>   hash    slot -> increment of a counter
    {t}:g:<series>:<res>:<chunk>   hash    slot -> last value of a gauge
    {t}:d:<series>:<res>:<chunk>   hash    <slot>:<collector>.<seq> -> sketch of a timer (see `sketch`);
                                           <slot> -> all that was rolled up into it
    {t}:t:<series>                 zset    <value>,<value>,…:<collector>.<seq>.<n>, by ms: newest samples
                                           of a timer, those of a flush together
    {t}:s:<series>:<res>:<number>  HLL     members of a set; <number> is Unix time / res
    {t}:total                      hash    c<series> -> running total of a counter
    {t}:last                       hash    g<series> -> <ms>:<value>, a gauge's clock and current value
    {t}:ix                         hash    <kind><series> -> when last seen, in seconds; the registry
    {t}:q:<collector>              string  number of the last batch applied
    {t}:wm:<res>                   hash    <letter>:<res it is made from> -> <begun> <done>, see `compaction`
    {t}:dirty                      set     <letter>:<series>:<res>:<chunk> to roll up again
    {t}:lease                      string  who rolls the shard up
    {t}:swept                      string  when the shard was last rid of what is too old, in seconds
    {t}:events, {t}:checks         stream  DogStatsD events and service checks, in the first shard
    m:meta                         hash    schema version, number of shards, resolutions

    <series>   the canonical text: name|#tag,tag (see `model`)
    <res>      seconds a slot: the flush interval, a minute for sets, or a coarser rung of a ladder
    <chunk>    floor(time / (res * 120)), and slot = floor(time / res) % 120: 120 slots to a hash, which
               keeps it a listpack, 6 bytes a point
    <collector>  a random name, new at each start: a batch of an earlier life that arrives late can never be
               taken for one of this life

The prefix "m" is a setting. A tag's suffix is chosen so that shard i falls into the i-th 64th of the
cluster's 16384 hash slots: any number of nodes gets an even share.
"""

from __future__ import annotations

from binascii import crc_hqx
from collections.abc import Iterable
from typing import Final

import xxhash

from collector.model import Kind, Series
from collector.retention import SET_SECONDS, SLOTS

__all__ = ["LETTERS", "SCHEMA", "SET_SECONDS", "SHARDS", "SLOTS", "KeySpace"]

SCHEMA: Final = 1
SHARDS: Final = 64
LETTERS: Final = {Kind.COUNTER: b"c", Kind.GAUGE: b"g", Kind.TIMER: b"d", Kind.SET: b"s"}  # of chunks
CLUSTER_SLOTS: Final = 16384


class KeySpace:
    """Names keys under one prefix and one resolution."""

    def __init__(self, prefix: str, resolution: int, coarser: Iterable[int] = ()) -> None:
        """`resolution` in seconds: what one slot of a chunk covers that a collector writes. The `coarser`
        ones are made from it.
        """
        self.prefix = prefix
        self.resolution = resolution
        self.resolutions = frozenset({resolution, *coarser})
        self.chunk_seconds = resolution * SLOTS
        self.tags: list[bytes] = [_tag(prefix, shard) for shard in range(SHARDS)]
        self.meta = f"{prefix}:meta".encode()
        self._around = {  # by the first byte of a series' key: what is put around the rest of it
            ord(kind.value): (b":%b:" % letter, b":%d:" % (SET_SECONDS if kind is Kind.SET else resolution))
            for kind, letter in LETTERS.items()
        }

    def shard(self, series: Series) -> int:
        """The shard that holds a series."""
        return xxhash.xxh64_intdigest(series.key.encode()) % SHARDS

    def chunk(self, at: float) -> int:
        """The number of the chunk that holds a time."""
        return int(at // self.chunk_seconds)

    def slot(self, at: float) -> int:
        """The slot of a time within its chunk."""
        return int(at // self.resolution) % SLOTS

    def slot_start(self, chunk: int, slot: int) -> int:
        """When a slot starts, in seconds of Unix time."""
        return chunk * self.chunk_seconds + slot * self.resolution

    def base(self, letter: bytes, series: Series) -> bytes:
        """What the keys of a series with chunks start with, and the whole key of its samples."""
        return b"%b:%b:%b" % (self.tags[self.shard(series)], letter, series.text.encode())

    def chunked(self, letter: bytes, series: Series, chunk: int) -> bytes:
        """A chunk's key; `letter` is c, g or d."""
        return b"%b:%d:%d" % (self.base(letter, series), self.resolution, chunk)

    def chunks(self, field: bytes, shard: int) -> bytes:
        """The keys of a series in its shard, up to the number of the chunk, or of the minute for a set.

        `field` is the series' key as bytes. A flush makes a hundred thousand of these.
        """
        start, end = self._around[field[0]]
        return b"%b%b%b%b" % (self.tags[shard], start, field[1:], end)

    def samples(self, field: bytes, shard: int) -> bytes:
        """The raw samples of a timer in its shard."""
        return b"%b:t:%b" % (self.tags[shard], field[1:])

    def members(self, series: Series, minute: int) -> bytes:
        """The HyperLogLog of a set in one minute of Unix time."""
        return b"%b:%d:%d" % (self.base(b"s", series), SET_SECONDS, minute)

    def shard_key(self, shard: int, name: bytes) -> bytes:
        """A key of a whole shard: total, last, ix, events, checks."""
        return self.tags[shard] + b":" + name

    def sequence(self, shard: int, collector: bytes) -> bytes:
        """Where a collector's last applied batch is noted."""
        return self.tags[shard] + b":q:" + collector


def hash_slot(key: bytes) -> int:
    """The hash slot of a key in a Redis Cluster: that of its hash tag, where it has one."""
    start = key.find(b"{") + 1
    end = key.find(b"}", start) if start else -1
    # Redis Cluster's CRC16 is the XMODEM one, which the standard library calls crc_hqx.
    return crc_hqx(key[start:end] if end > start else key, 0) % CLUSTER_SLOTS


def _tag(prefix: str, shard: int) -> bytes:
    width = CLUSTER_SLOTS // SHARDS
    suffix = 0
    while True:
        inner = b"%b%02d-%d" % (prefix.encode(), shard, suffix)
        tag = b"{" + inner + b"}"
        if hash_slot(tag) // width == shard:
            return tag
        suffix += 1
