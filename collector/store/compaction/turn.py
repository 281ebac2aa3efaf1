"""All that is due in one shard: roll-ups, dirty chunks, and once a day the sweep."""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from collector.logfmt import event
from collector.model import Kind, Series
from collector.retention import LIVE, SLOTS
from collector.rules import Retention
from collector.sketch import Sketch
from collector.store.client import read_resolutions
from collector.store.commands import Part, command, fields_of
from collector.store.compaction.edges import Edge, Watermarks, edges
from collector.store.compaction.lease import Lease
from collector.store.keys import LETTERS, KeySpace

log = logging.getLogger(__name__)

GRACE: Final = 20.0  # seconds after a chunk's end in which its last window may come
PATIENCE: Final = 300  # seconds that a chunk lives after its roll-up, for readers that began before it
SLACK: Final = 600  # seconds that the registry may be behind, see `Writer`
SWEEP_SECONDS: Final = 86400

# Series of one call: about a millisecond of the server's time.
_SERIES: Final = {Kind.COUNTER: 25, Kind.GAUGE: 25, Kind.TIMER: 8, Kind.SET: 8}
_ENTRIES: Final = 500  # registry entries read, or removed, between two turns of the event loop
_DIRTY: Final = 100
_SKETCHES: Final = 250  # merged between two turns of the event loop: 0.1 ms, and 5 ms if they use all bins
_REST: Final = 4.0  # a call's time, so many times over, is rested after it while there is time

_KINDS: Final = {letter: kind for kind, letter in LETTERS.items()}


@dataclass(slots=True)
class Counts:
    """What was done since the start."""

    rolled: int = 0  # chunks
    again: int = 0  # of them because a late sample had entered
    swept: int = 0  # series removed


class Turn:
    """One shard's turn, under its lease."""

    def __init__(
        self,
        lease: Lease,
        keys: KeySpace,
        retention: Retention,
        counts: Counts,
        lost: Counter[str],
        now: float,
        seconds: float,
    ) -> None:
        """`now` in Unix time; `seconds` is how long it may take to spare the server."""
        self._lease = lease
        self._store = lease.store
        self._keys = keys
        self._retention = retention
        self._counts = counts
        self._lost = lost
        self._now = now
        self._until = time.monotonic() + seconds
        self._shedding = False
        self._seen: dict[Kind, list[tuple[Series, int]]] = {kind: [] for kind in Kind}

    async def run(self, *, shedding: bool) -> None:
        """Does all that is due."""
        self._shedding = shedding
        marks = await self._watermarks()
        await self._read_registry()
        steps: dict[tuple[Kind, int], Edge] = {}
        for kind, wanted in self._retention.chains.items():
            limit = self._now - GRACE
            for edge in edges(kind, marks.chain(kind, wanted)):
                steps[kind, edge.finer] = edge
                limit = await self._advance(edge, marks, limit)
        await self._redo(steps)
        await self._sweep()

    # ------------------------------------------------------------------ what there is

    async def _watermarks(self) -> Watermarks:
        resolutions = sorted(await read_resolutions(self._store, self._keys) | self._keys.resolutions)
        commands = [("HGETALL", self._watermark(one)) for one in resolutions]
        return Watermarks(dict(zip(resolutions, await self._store.ask(commands), strict=True)))

    async def _read_registry(self) -> None:
        """All series of the shard and when each was last seen, a piece at a time."""
        key = self._keys.shard_key(self._lease.shard, b"ix")
        entries = await fields_of(self._store, key, _ENTRIES)
        for n, (field, seen) in enumerate(entries.items()):
            try:
                series = Series.from_key(field.decode())
                self._seen[series.kind].append((series, int(seen)))
            except (KeyError, ValueError):  # not of ours
                log.error(event("compaction.bad_entry", field=field.decode(errors="replace")))
            if n % _ENTRIES == 0:
                await asyncio.sleep(0)

    # ------------------------------------------------------------------ roll-ups

    async def _advance(self, edge: Edge, marks: Watermarks, limit: float) -> float:
        """Rolls up all chunks that end by `limit`; where the watermark stands then."""
        span = edge.span
        end = int(limit // span) * span
        done = marks.done(edge)
        if done is None:
            done = int((self._now - LIVE) // span) * span
        while done < end:
            number = done // span
            series = [one for one, seen in self._seen[edge.kind] if seen >= number * span - SLACK]
            following = (number + 1) * span if series else end  # what is silent by then stays so
            await self._mark(edge, following, done)
            await self._roll(edge, [(one, number) for one in series])
            await self._mark(edge, following, following)
            done = following
        return done

    async def _mark(self, edge: Edge, begun: int, done: int) -> None:
        await self._lease.step("mark", [self._watermark(edge.coarser)], [edge.field, begun, done])

    async def _roll(self, edge: Edge, chunks: Sequence[tuple[Series, int]]) -> None:
        """Rolls up (series, number of the chunk, or of a set's coarser slot)."""
        size = _SERIES[edge.kind]
        for first in range(0, len(chunks), size):
            part = chunks[first : first + size]
            start = time.monotonic()
            merged = await self._merged(edge, part) if edge.kind is Kind.TIMER else [[]] * len(part)
            arguments: list[Part] = [LETTERS[edge.kind], edge.finer, edge.coarser, edge.after]
            for (series, number), more in zip(part, merged, strict=True):
                arguments += (number, *self._lives(edge, series, number), *more)
            bases = [self._keys.base(LETTERS[edge.kind], series) for series, _ in part]
            reply = await self._lease.step("roll", [self._watermark(edge.after), *bases], arguments)
            self._counts.rolled += reply[0]
            await self._rest(time.monotonic() - start)

    def _lives(self, edge: Edge, series: Series, number: int) -> tuple[int, int]:
        """Seconds from now that a chunk is to live, and the coarser one that it is rolled up into."""
        ladder = self._retention.ladder(series)
        end = (number + 1) * edge.span
        length = edge.coarser * (1 if edge.kind is Kind.SET else SLOTS)
        coarser_end = -(-end // length) * length
        life = self._left(coarser_end, ladder.life(edge.coarser))
        if edge.after:  # it has a roll-up before it, which will say
            life = max(LIVE, ladder.life(edge.coarser)) + length
        return self._left(end, ladder.life(edge.finer)), life

    def _left(self, end: int, life: int) -> int:
        return max(math.ceil(end + life - self._now), PATIENCE)

    async def _merged(self, edge: Edge, part: Sequence[tuple[Series, int]]) -> list[list[Part]]:
        """Per timer the fields its chunk has, how many slots they make, and each slot with its sketch."""
        chunks = await self._store.ask(
            [("HGETALL", self._chunk(edge, series, number)) for series, number in part]
        )
        found: list[list[Part]] = []
        for (_, number), fields in zip(part, chunks, strict=True):
            slots = await _merge(edge, number, fields)
            if self._shedding and edge.after:  # a rung between the finest and the coarsest
                self._lost["shed_sketches"] += len(slots)
                slots = {}
            pairs = [one for slot, sketch in slots.items() for one in (b"%d" % slot, sketch.encode())]
            found.append([len(fields), len(slots), *pairs])
        return found

    async def _redo(self, steps: dict[tuple[Kind, int], Edge]) -> None:
        """Rolls up again what late samples have entered. That may make coarser chunks dirty in turn."""
        key = self._keys.shard_key(self._lease.shard, b"dirty")
        before: set[bytes] = set()
        while True:
            found = set(await command(self._store, "SRANDMEMBER", key, _DIRTY))
            if not found or found == before:  # what changed meanwhile waits for the next turn
                return
            before = found
            by_edge: dict[Edge, set[tuple[Series, int]]] = {}
            for one in found:
                base, finer, number = one.rsplit(b":", 2)
                kind, text = _KINDS[base[:1]], base[2:].decode()
                edge = steps.get((kind, int(finer)))
                if edge is None:  # the end of a chain
                    await command(self._store, "SREM", key, one)
                    continue
                at = int(number) if kind is not Kind.SET else int(number) * edge.finer // edge.coarser
                by_edge.setdefault(edge, set()).add((Series.from_key(kind.value + text), at))
            for edge in sorted(by_edge, key=lambda edge: edge.finer):
                self._counts.again += len(by_edge[edge])
                await self._roll(edge, list(by_edge[edge]))

    # ------------------------------------------------------------------ the sweep

    async def _sweep(self) -> None:
        """Once a day: series unseen for longer than they are kept leave the registry, totals and values."""
        shard = self._lease.shard
        key = self._keys.shard_key(shard, b"swept")
        last = await command(self._store, "GET", key)
        if last is not None and self._now < int(last) + SWEEP_SECONDS:
            return
        names = [self._keys.shard_key(shard, name) for name in (b"ix", b"total", b"last")]
        gone: list[tuple[Series, int]] = []
        for kind in Kind:
            for n, (series, seen) in enumerate(self._seen[kind]):
                if seen < self._now - self._retention.ladder(series).longest - SLACK:
                    gone.append((series, seen))
                if n % _ENTRIES == 0:
                    await asyncio.sleep(0)
        for first in range(0, len(gone), _ENTRIES):
            part = gone[first : first + _ENTRIES]
            samples = [self._keys.base(b"t", series) for series, _ in part]
            entries: list[Part] = [one for series, seen in part for one in (series.key, seen)]
            (swept,) = await self._lease.step("sweep", [*names, *samples], entries)
            self._counts.swept += swept
        await command(self._store, "SET", key, int(self._now))
        if gone:
            log.info(event("compaction.swept", shard=shard, series=len(gone)))

    # ------------------------------------------------------------------ plumbing

    def _watermark(self, resolution: int) -> bytes:
        return self._keys.shard_key(self._lease.shard, b"wm:%d" % resolution)

    def _chunk(self, edge: Edge, series: Series, number: int) -> bytes:
        return b"%b:%d:%d" % (self._keys.base(LETTERS[edge.kind], series), edge.finer, number)

    async def _rest(self, took: float) -> None:
        """Leaves the server to others for a while."""
        await asyncio.sleep(max(0.0, min(took * _REST, self._until - time.monotonic())))


async def _merge(edge: Edge, number: int, fields: dict[bytes, bytes]) -> dict[int, Sketch]:
    """The sketches of a chunk by the slot of the coarser chunk that they belong to."""
    ratio = edge.coarser // edge.finer
    first = number % ratio * (SLOTS // ratio)
    names, blobs = list(fields), list(fields.values())
    slots: dict[int, Sketch] = {}
    for at in range(0, len(names), _SKETCHES):
        part = slice(at, at + _SKETCHES)
        found, bad = Sketch.fold(names[part], blobs[part], 0, SLOTS, ratio)
        for slot, sketch in found.items():
            if slots.setdefault(first + slot, sketch) is not sketch:
                slots[first + slot].merge(sketch)
        for field, error in bad:  # not of ours: it costs itself only
            log.error(event("compaction.bad_sketch", field=field.decode(errors="replace"), error=error))
        await asyncio.sleep(0)
    return slots
