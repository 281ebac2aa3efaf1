"""Which series there are: a copy of the registry in memory, refreshed when asked.

The registry hears of a live series only every so often (see `Writer`), so what it says of the last time is
behind by up to that interval; the horizon makes up for it. A copy of a million series takes seconds to make,
so a large one is used for ten times as long as making it took, and made anew in the background.
"""

from __future__ import annotations

import asyncio
import time
from array import array
from collections.abc import Callable
from typing import Final

from collector.model import Series
from collector.store.commands import fields_of
from collector.store.keys import SHARDS, KeySpace
from collector.store.topology import Topology

_FRESH: Final = 1.0  # seconds that a copy is good for, at least
_SHARE: Final = 10.0  # a copy is good for so many times the seconds that it took
_QUICK: Final = 0.2  # seconds that a question waits for a new copy
_PIECE: Final = 1000  # entries read, or looked at, between two turns of the event loop


class Registry:
    """Finds series by label matchers."""

    def __init__(self, store: Topology, keys: KeySpace, horizon: float) -> None:
        """A series not seen for `horizon` seconds is not found."""
        self._store = store
        self._keys = keys
        self._horizon = horizon
        self._read_at = float("-inf")
        self._took = 0.0
        self._making: asyncio.Task[None] | None = None
        # Series of a shard, and beside them when each was last seen: 150 bytes a series.
        self._shards: list[tuple[list[Series], array[int]]] = [([], array("q")) for _ in range(SHARDS)]

    async def find(self, matches: Callable[[Series], bool], now: float) -> list[Series]:
        """Live series that match, sorted by key."""
        await self._refresh()
        oldest = now - self._horizon
        found: list[Series] = []
        looked = 0
        for series, seen in list(self._shards):
            for first in range(0, len(series), _PIECE):
                part = zip(series[first : first + _PIECE], seen[first : first + _PIECE], strict=True)
                found += [one for one, at in part if at >= oldest and matches(one)]
                looked += _PIECE
                if looked >= _PIECE:
                    looked = 0
                    await asyncio.sleep(0)
        return sorted(found, key=lambda series: series.key)

    async def _refresh(self) -> None:
        if time.monotonic() - self._read_at < max(_FRESH, _SHARE * self._took):
            return
        if self._making is None or self._making.done():
            self._making = asyncio.create_task(self._read())
        if self._took < _QUICK or self._making.done():
            await asyncio.shield(self._making)

    async def _read(self) -> None:
        start = time.monotonic()
        for shard in range(SHARDS):
            self._shards[shard] = await self._read_shard(self._keys.shard_key(shard, b"ix"))
        self._read_at = time.monotonic()
        self._took = self._read_at - start

    async def _read_shard(self, key: bytes) -> tuple[list[Series], array[int]]:
        found = await fields_of(self._store, key, _PIECE)
        series: list[Series] = []
        for n, field in enumerate(found, 1):
            series.append(Series.from_key(field.decode()))
            if n % _PIECE == 0:
                await asyncio.sleep(0)
        return series, array("q", map(int, found.values()))
