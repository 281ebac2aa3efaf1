"""Points to batches: which shard, which chunk of time, what the store has to be told of a series."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Collection, Iterable
from typing import Final

from collector.engine.generations import Generations
from collector.model import (
    Check,
    CounterPoint,
    Event,
    GaugePoint,
    Kind,
    Point,
    Series,
    SetPoint,
    TimerPoint,
    Window,
)
from collector.retention import LIVE, SLOTS, RetentionSettings
from collector.rules import Retention
from collector.store.encode import Encoder
from collector.store.keys import SET_SECONDS, SHARDS, KeySpace
from collector.store.outbox import Outbox
from collector.store.sender import Sender
from collector.store.settings import Durability

_EARLY: Final = 2**19  # bytes that are worth a round of sending while the rest is still encoded


class _Known:
    """What the writer has told the store of a series. It is small, for there may be a million."""

    __slots__ = ("chunk", "kept", "registered", "shard")

    def __init__(self, shard: int, kept: tuple[int, int]) -> None:
        self.shard = shard
        self.kept = kept  # seconds that it lives, raw samples; shared by series kept alike
        self.chunk = -1  # the newest chunk that was given its time to live
        self.registered = 0


class Writer:
    """Takes points, and hands batches of them to its outbox, which its sender empties. One per store."""

    def __init__(
        self,
        keys: KeySpace,
        *,
        max_bytes: int,
        samples: int,
        refresh: float,
        durability: Durability = Durability.PRIMARY,
        retention: Retention | None = None,
    ) -> None:
        """`max_bytes` bounds what is held while the store is away; `samples` are kept per timer; the
        registry hears of a live series every `refresh` seconds. Without a `retention` the default
        ladders hold.
        """
        self.keys = keys
        self.retention = retention or Retention(RetentionSettings(), keys.resolution)
        self.shedding = False  # whether raw samples are left out, because the store is nearly full
        self.collector = secrets.token_hex(6).encode()
        sequences = [keys.sequence(shard, self.collector) for shard in range(SHARDS)]
        self.outbox = Outbox(sequences, max_bytes=max_bytes, keep=2 * keys.resolution)
        self.sender = Sender(keys, self.outbox, durability)
        self.points = 0
        self._samples = samples
        self._refresh = refresh
        self._known: Generations[str, _Known] = Generations()
        self._known_chunk = -1
        self._kept: dict[tuple[int, int], tuple[int, int]] = {}
        self._building: dict[int, Encoder] = {}  # by shard
        self._begun: set[int] = set()  # shards that had a batch since the last commit
        self._closed = 0  # bytes of batches that the sender was not woken for

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
        when = self._when(window)
        for point in points:
            known = recall(point.series.key) or self._recall(point.series)
            field = point.series.key.encode()
            encoder = self._encoder(known.shard)
            base = keys.chunks(field, known.shard)
            ttl = 0 if chunk == known.chunk else self._time_to_live(known, chunk)
            match point:
                case CounterPoint():
                    encoder.counter(base, chunk, slot, field, point.value, ttl, when[Kind.COUNTER])
                case GaugePoint():
                    encoder.gauge(base, chunk, slot, field, point, ttl, when[Kind.GAUGE])
                case TimerPoint():
                    encoder.sketch(base, chunk, slot, point.encoded, ttl, when[Kind.TIMER])
                    self._write_samples(encoder, point, known, ms, LIVE if ttl else 0)
                case SetPoint():
                    encoder.members(base, minute, point.members, known.kept[0], when[Kind.SET])
            if seen - known.registered >= refresh:
                known.registered = seen
                encoder.register(field, seen)
        self.points += len(points)

    def _recall(self, series: Series) -> _Known:
        """What is known of a series that was not written in this chunk's time yet, or is new."""
        known = self._known.get(series.key)
        if known is None:
            live = self.retention.written_life(series, LIVE)
            kept = (live, self.retention.samples(series) or self._samples)
            known = _Known(self.keys.shard(series), self._kept.setdefault(kept, kept))
            self._known[series.key] = known
        return known

    def _when(self, window: Window) -> dict[Kind, bytes]:
        """Of each kind the start of the chunk and the resolutions it is rolled up to, for the script."""
        found = {}
        for kind, chain in self.retention.chains.items():
            seconds = SET_SECONDS if kind is Kind.SET else chain[0] * SLOTS
            found[kind] = b"%d,%b" % (window.start // seconds * seconds, ",".join(map(str, chain)).encode())
        return found

    def _write_samples(self, encoder: Encoder, point: TimerPoint, known: _Known, ms: int, ttl: int) -> None:
        """Adds the raw samples, which a full store is spared first."""
        if self.shedding:
            self.outbox.lost["shed_samples"] += len(point.samples)
            return
        key = self.keys.samples(point.series.key.encode(), known.shard)
        keep = known.kept[1]
        encoder.samples(key, ms, point.samples[-keep:], keep, ttl)

    def _time_to_live(self, known: _Known, chunk: int) -> int:
        """What a chunk is given at its first point; a late sample may open one that nobody has seen yet."""
        if chunk < known.chunk:
            return known.kept[0]
        known.chunk = chunk
        return known.kept[0] + self.keys.chunk_seconds

    def write_entries(self, window: Window, entries: Iterable[Event | Check]) -> None:
        """Adds events and checks; those without a time get the window's start."""
        for entry in entries:
            name = b"events" if isinstance(entry, Event) else b"checks"
            self._encoder(0).entry(self.keys.shard_key(0, name), window.start, entry)
            self.points += 1

    async def commit(self) -> None:
        """Closes what is being built and lets all be sent. Yields to the event loop between shards."""
        for shard in sorted(self._building):
            self._close(shard)
            await asyncio.sleep(0)
        self._begun.clear()
        self.outbox.bound()
        self._wake()

    def _encoder(self, shard: int) -> Encoder:
        """The batch that is being built; one that is full is closed, and the next begun."""
        encoder = self._building.get(shard)
        if encoder is not None:
            if not encoder.full:
                return encoder
            self._close(shard)
        # Shards fill alike. Were their first batches to close together, the store would have nothing to do
        # for the first third of a large flush.
        share = 1.0 if shard in self._begun else (shard + 1) / SHARDS
        self._begun.add(shard)
        encoder = self._building[shard] = Encoder(self.outbox.own[shard].seq + 1, self.collector, share)
        return encoder

    def _close(self, shard: int) -> None:
        names = (b"last", b"total", b"ix")
        batch = self._building.pop(shard).close(
            [
                self.outbox.own[shard].sequence,
                *(self.keys.shard_key(shard, name) for name in names),
            ]
        )
        self.outbox.add(shard, batch)
        self._closed += batch.size
        if self._closed >= _EARLY:
            self._wake()

    def _wake(self) -> None:
        self._closed = 0
        self.sender.wake()
