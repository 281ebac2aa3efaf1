"""Sets: HyperLogLogs of minutes and hours, counted and united."""

from __future__ import annotations

import secrets
from collections.abc import Awaitable, Callable, Iterator, Sequence
from typing import Any, Final

from collector.store.reading.plan import Piece, Points, middle, stitched

Ask = Callable[[Sequence[tuple[Any, ...]]], Awaitable[list[Any]]]

_SCRATCH_MS: Final = 10_000  # life of the copies that a union over shards needs


async def covering(
    ask: Ask, base: bytes, chain: Sequence[int], span: tuple[float, float], done: float
) -> list[bytes]:
    """Keys of one set that together cover a span: of the coarsest resolution in its middle, up to where that
    is done, of the finest at its edges; there also a coarse one, where the fine ones of its time are gone.
    """
    start, end = span
    minute, hour = chain[0], chain[-1]
    low, high = middle(start, max(start, min(end, done)), hour)
    if low == high:
        low = high = -int(-end // 1)
    keys = _keys(base, hour, low, high)
    keys += [*_keys(base, minute, start, min(low, end)), *_keys(base, minute, high, end)]
    edges = {int(at // hour) for at in (start, end - 1) if not low <= at < high}
    for number in sorted(edges):
        if (number + 1) * hour <= done:
            (found,) = await ask([("EXISTS", *_keys(base, minute, number * hour, (number + 1) * hour))])
            if not found:
                keys.append(b"%b:%d:%d" % (base, hour, number))
    return keys


def _keys(base: bytes, resolution: int, start: float, end: float) -> list[bytes]:
    """Keys of the slots that begin in [start, end)."""
    numbers = range(-int(-start // resolution), -int(-end // resolution))
    return [b"%b:%d:%d" % (base, resolution, number) for number in numbers]


async def counts(ask: Ask, sets: Sequence[tuple[bytes, Sequence[Piece]]], step: int) -> list[Points[int]]:
    """Per set, (start of a step, distinct members in it), ascending, empty ones left out.

    A piece that is coarser than the step is counted slot by slot, and used where nothing finer is left.
    """
    commands: list[tuple[Any, ...]] = []
    plans: list[list[tuple[int, list[int]]]] = []
    for base, pieces in sets:
        plan = []
        for resolution, windows in _windows(pieces, step):
            plan.append((resolution, list(windows)))
            commands += [
                ("PFCOUNT", *(b"%b:%d:%d" % (base, *key) for key in keys)) for keys in windows.values()
            ]
        plans.append(plan)
    replies = iter(await ask(commands))
    return [
        stitched(
            [(length, [(at, count) for at in starts if (count := next(replies))]) for length, starts in plan]
        )[0]
        for plan in plans
    ]


def _windows(pieces: Sequence[Piece], step: int) -> Iterator[tuple[int, dict[int, list[tuple[int, int]]]]]:
    """What is counted together: (seconds, start of the window -> (resolution, number) of its keys)."""
    fine: dict[int, list[tuple[int, int]]] = {}
    for piece in pieces:
        if piece.resolution > step:
            continue
        for at in range(piece.start, piece.end, piece.resolution):
            fine.setdefault(at - at % step, []).append((piece.resolution, at // piece.resolution))
    yield step, dict(sorted(fine.items()))
    for piece in pieces:
        if piece.resolution > step:
            starts = range(piece.start, piece.end, piece.resolution)
            yield piece.resolution, {at: [(piece.resolution, at // piece.resolution)] for at in starts}


async def union(ask: Ask, keys: Sequence[bytes], shards: int, scratch: bytes) -> int:
    """Distinct members over all keys, which lie in so many shards.

    PFCOUNT takes keys of one shard only, so for several the registers are copied next to each other for a
    moment, under names that begin with `scratch`.
    """
    if not keys:
        return 0
    if shards == 1:
        (count,) = await ask([("PFCOUNT", *keys)])
        return int(count)
    blobs = [blob for blob in await ask([("GET", key) for key in keys]) if blob]
    if not blobs:
        return 0
    names = [b"%b:%b:%d" % (scratch, secrets.token_hex(8).encode(), n) for n in range(len(blobs))]
    await ask([("SET", name, blob, "PX", _SCRATCH_MS) for name, blob in zip(names, blobs, strict=True)])
    (count,) = await ask([("PFCOUNT", *names)])
    await ask([("UNLINK", *names)])
    return int(count)
