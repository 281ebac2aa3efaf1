"""Chunks of many series, out of the store."""

from __future__ import annotations

import asyncio
import logging
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache
from typing import Any, Final, TypeVar

from collector.logfmt import event
from collector.model import Number
from collector.retention import SLOTS
from collector.sketch import Sketch
from collector.store.commands import Script
from collector.store.reading.fields import read_fields
from collector.store.reading.plan import Piece, Points
from collector.store.topology import Topology
from collector.turns import Turns

V = TypeVar("V")

log = logging.getLogger(__name__)

_SCRIPT: Final = Script("gather.lua")
_CHUNKS: Final = 64  # chunks of one call: about two milliseconds of the server's time
_CALLS: Final = 4  # calls under way at once

Wanted = tuple[int, bytes, tuple[Piece, ...]]  # shard, what the keys start with, what is read
Levels = list[tuple[int, Points[V]]]  # (resolution, points), the finest first


async def numbers(store: Topology, wanted: Sequence[Wanted]) -> list[Levels[Number]]:
    """Counters or gauges: per series and resolution, (slot start, value), ascending."""
    return await _read(store, wanted, "text", _add_numbers)


async def sketches(store: Topology, wanted: Sequence[Wanted]) -> list[Levels[Sketch]]:
    """Timers: per series and resolution, (slot start, sketch of all collectors), ascending."""
    return await _read(store, wanted, "blobs", _add_sketches)


async def _read(
    store: Topology, wanted: Sequence[Wanted], how: str, add: Callable[[Points[V], Piece, int, Any], None]
) -> list[Levels[V]]:
    found: list[Levels[V]] = [[(piece.resolution, []) for piece in pieces] for _, _, pieces in wanted]
    room = asyncio.Semaphore(_CALLS)
    placing = asyncio.Lock()  # one at a time: each holds the loop for a while

    async def read(indices: list[int], pieces: tuple[Piece, ...]) -> None:
        keys = [wanted[index][1] for index in indices]
        spans = [one for piece in pieces for one in (piece.resolution, *piece.chunks)]
        async with room:
            reply = await _SCRIPT.run(store, keys, [how, *spans])
            async with placing:
                for index, chunks in zip(indices, reply, strict=True):
                    await _place(found[index], pieces, chunks, add)

    tasks = [asyncio.create_task(read(*call)) for call in _calls(wanted)]
    try:
        await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
    return found


def _calls(wanted: Sequence[Wanted]) -> list[tuple[list[int], tuple[Piece, ...]]]:
    """Which series go into one call: of one shard, with the same to read, not too many."""
    alike: defaultdict[tuple[int, tuple[Piece, ...]], list[int]] = defaultdict(list)
    for index, (shard, _, pieces) in enumerate(wanted):
        if pieces:
            alike[shard, pieces].append(index)
    calls = []
    for (_, pieces), indices in alike.items():
        chunks = sum(piece.chunks[1] - piece.chunks[0] + 1 for piece in pieces)
        size = max(1, _CHUNKS // chunks)
        calls += [(indices[first : first + size], pieces) for first in range(0, len(indices), size)]
    return calls


async def _place(
    levels: Levels[V],
    pieces: Sequence[Piece],
    chunks: list[Any],
    add: Callable[[Points[V], Piece, int, Any], None],
) -> None:
    """Puts the reply for one series where it belongs; the loop gets its turn every few milliseconds."""
    turns = Turns()
    by_resolution = {piece.resolution: (n, piece) for n, piece in enumerate(pieces)}
    for resolution, chunk, fields in zip(chunks[::3], chunks[1::3], chunks[2::3], strict=True):
        n, piece = by_resolution[resolution]
        add(levels[n][1], piece, chunk * SLOTS * resolution, fields)
        await turns.give()


def _add_numbers(points: Points[Number], piece: Piece, begin: int, text: bytes) -> None:
    found, bad = read_fields(text, _times(begin, piece.resolution), *_span(piece, begin))
    points += found
    _tell("number", bad)


def _add_sketches(points: Points[Sketch], piece: Piece, begin: int, fields: list[bytes]) -> None:
    """One call for a chunk: 120 sketches of each collector, some 40 microseconds."""
    found, bad = Sketch.fold(fields[::2], fields[1::2], *_span(piece, begin), 1)
    times = _times(begin, piece.resolution)
    points += [(times[slot], sketch) for slot, sketch in found.items()]
    _tell("sketch", bad)


def _span(piece: Piece, begin: int) -> tuple[int, int]:
    """The slots [low, high) of the chunk that begins at `begin` which are in the piece."""
    low, high = (-(-(at - begin) // piece.resolution) for at in (piece.start, piece.end))
    return max(low, 0), min(high, SLOTS)


@lru_cache(maxsize=1024)
def _times(begin: int, resolution: int) -> tuple[int, ...]:
    """Of the slots of a chunk, made once for all series."""
    return tuple(range(begin, begin + SLOTS * resolution, resolution))


def _tell(what: str, bad: Iterable[tuple[bytes, str]]) -> None:
    """Of fields that are not ours; each costs itself only."""
    for field, error in bad:
        log.error(event(f"store.bad_{what}", field=field.decode(errors="replace"), error=error))
