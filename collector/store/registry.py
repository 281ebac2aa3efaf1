"""Which series there are: a copy of the registry in memory, refreshed when asked.

The registry hears of a live series only every so often (see `Writer`), so what it says of the last time is
behind by up to that interval; the horizon makes up for it.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

from collector.model import Series
from collector.store.keys import SHARDS, KeySpace
from collector.store.topology import Topology

_FRESH: Final = 1.0  # seconds that a copy is good for


class Registry:
    """Finds series by label matchers."""

    def __init__(self, store: Topology, keys: KeySpace, horizon: float) -> None:
        """A series not seen for `horizon` seconds is not found."""
        self._store = store
        self._keys = keys
        self._horizon = horizon
        self._read_at = float("-inf")
        self._shards: list[dict[bytes, tuple[Series, int]]] = [{} for _ in range(SHARDS)]

    async def find(self, matches: Callable[[Series], bool], now: float) -> list[Series]:
        """Live series that match, sorted by key."""
        await self._refresh()
        oldest = now - self._horizon
        found = [
            series
            for shard in self._shards
            for series, seen in shard.values()
            if seen >= oldest and matches(series)
        ]
        return sorted(found, key=lambda series: series.key)

    async def _refresh(self) -> None:
        if time.monotonic() - self._read_at < _FRESH:
            return
        for shard in range(SHARDS):  # one at a time: a million series in one reply would hold the loop
            key = self._keys.shard_key(shard, b"ix")
            (reply,) = await self._store.ask([("HGETALL", key)])
            known = self._shards[shard]
            self._shards[shard] = {
                field: (known[field][0] if field in known else _series(field), int(seen))
                for field, seen in reply.items()
            }
        self._read_at = time.monotonic()


def _series(field: bytes) -> Series:
    return Series.from_key(field.decode())
