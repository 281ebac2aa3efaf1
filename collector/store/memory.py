"""What is left out first when the store is nearly full.

At 80 % of the server's maxmemory raw samples and minute sketches are no longer written, and counted as lost;
an hour's sketch is then made from what minutes it has. Counters, gauges, sets and the finest sketches never
stop. It ends below 75 %.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from typing import Any, Final

from redis.asyncio import Redis

from collector.errors import StoreError
from collector.logfmt import event
from collector.store.compaction import Compactor
from collector.store.server import NEARLY_FULL
from collector.store.topology import Topology, topology_of
from collector.store.writer import Writer

log = logging.getLogger(__name__)

SHED_UNTIL: Final = 0.75  # lower than where it began, so that it does not flutter
_SECONDS: Final = 10.0


class MemoryGuard:
    """Watches how full the store is."""

    def __init__(self, writer: Writer) -> None:
        self._writer = writer
        self._problem = ""
        self.ratio = 0.0  # of maxmemory that is used; 0 without a limit, and before it is known

    @property
    def shedding(self) -> bool:
        """Whether raw samples and minute sketches are left out."""
        return self._writer.shedding

    async def run(self, store: Topology | Redis, compactor: Compactor) -> None:
        """Looks every ten seconds, for ever."""
        while True:
            problem = ""
            try:
                await self.look(store, compactor)
            except StoreError as error:  # until it answers nothing changes
                problem = str(error)
            if problem and problem != self._problem:
                log.warning(event("store.memory_unknown", error=problem))
            self._problem = problem
            await asyncio.sleep(_SECONDS)

    async def look(self, store: Topology | Redis, compactor: Compactor) -> None:
        """Looks once, and decides: the fullest node counts. StoreError when one is away."""
        shown = await topology_of(store).ask_nodes(("INFO", "memory"))
        fullest = max(shown, key=_ratio)
        self.ratio = _ratio(fullest)
        shed = self.ratio >= (SHED_UNTIL if self.shedding else NEARLY_FULL)
        if shed != self.shedding:
            what = {"used": fullest["used_memory"], "limit": fullest["maxmemory"]}
            if shed:
                log.warning(event("store.nearly_full", leaves_out="raw samples and minute sketches", **what))
            else:
                log.info(event("store.has_room", **what))
        self._writer.shedding = compactor.shedding = shed


def _ratio(info: Mapping[str, Any]) -> float:
    """How much of its maxmemory a server uses; 0 without a limit."""
    limit = int(info.get("maxmemory", 0))
    return int(info["used_memory"]) / limit if limit else 0.0
