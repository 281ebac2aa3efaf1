"""One shard after another, for ever."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Callable, Coroutine
from typing import Any, Final

from redis.asyncio import Redis

from collector.errors import StoreError
from collector.logfmt import event
from collector.rules import Retention
from collector.store.client import check_schema
from collector.store.commands import command
from collector.store.compaction.edges import edges
from collector.store.compaction.lease import Lease, LeaseLostError
from collector.store.compaction.turn import GRACE, SWEEP_SECONDS, Counts, Turn
from collector.store.keys import SHARDS, KeySpace
from collector.store.topology import Topology, topology_of

log = logging.getLogger(__name__)

_AGAIN_SECONDS: Final = 1.0
_LEAST_PAUSE: Final = 0.05  # seconds between two shards, for a collector that is behind


class Compactor:
    """Rolls all shards up, one after another, spread over the length of the shortest chunk."""

    def __init__(
        self, store: Topology | Redis, keys: KeySpace, retention: Retention, lost: Counter[str] | None = None
    ) -> None:
        """What is left out of a store that is nearly full is counted in `lost`."""
        self._store = topology_of(store)
        self._keys = keys
        self._retention = retention
        self.shedding = False  # whether minute sketches are left out, because the store is nearly full
        self.counts = Counts()
        self.lost: Counter[str] = Counter() if lost is None else lost
        self.last_error = ""

    @property
    def period(self) -> float:
        """Seconds in which each shard has one turn."""
        spans = [edge.span for kind, chain in self._retention.chains.items() for edge in edges(kind, chain)]
        return float(min(spans, default=SWEEP_SECONDS))

    async def run(self, clock: Callable[[], float]) -> None:
        """Rolls up for ever, each shard at its time of the period; one that is late goes on at once, so that
        none is left out. What fails is tried again at the shard's next turn.
        """
        turn = self.period / SHARDS
        while not await self._tried(self.open(clock())):
            await asyncio.sleep(_AGAIN_SECONDS)
        number = int((clock() - GRACE) // turn)
        while True:
            await self._tried(self.roll_up(number % SHARDS, clock(), seconds=turn))
            due = int((clock() - GRACE) // turn)
            number = min(max(number + 1, due - SHARDS), due + 1)  # wherever a clock may jump
            await asyncio.sleep(max(_LEAST_PAUSE, number * turn + GRACE - clock()))

    async def _tried(self, work: Coroutine[Any, Any, Any]) -> bool:
        """Whether the store let it be done; a problem is logged when it is a new one."""
        try:
            await work
        except LeaseLostError as error:
            log.info(event("compaction.lease_lost", error=str(error)))
        except StoreError as error:
            if str(error) != self.last_error:
                log.warning(event("compaction.failed", error=str(error)))
            self.last_error = str(error)
            return False
        self.last_error = ""
        return True

    async def open(self, now: float) -> None:
        """Lets the watermarks of empty shards begin with now: nothing older waits to be rolled up there."""
        await check_schema(self._store, self._keys)
        for shard in range(SHARDS):
            if await command(self._store, "HLEN", self._keys.shard_key(shard, b"ix")):
                continue
            for kind, chain in self._retention.chains.items():
                for edge in edges(kind, chain):
                    start = b"%d" % (now // edge.span * edge.span)
                    mark = (
                        self._keys.shard_key(shard, b"wm:%d" % edge.coarser),
                        edge.field,
                        start + b" " + start,
                    )
                    await command(self._store, "HSETNX", *mark)

    async def roll_up(self, shard: int, now: float, *, seconds: float = 0.0) -> bool:
        """Rolls up all that has ended in a shard; False when another collector is at it.

        `seconds` is how long it may take to spare the server. Raises StoreError, LeaseLostError among them.
        """
        lease = Lease(self._store, self._keys, shard)
        if not await lease.take():
            return False
        turn = Turn(lease, self._keys, self._retention, self.counts, self.lost, now, seconds)
        try:
            await turn.run(shedding=self.shedding)
        finally:
            await asyncio.shield(lease.free())
        return True
