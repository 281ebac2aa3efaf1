"""Sends pending batches until the store has confirmed them, each exactly once.

There is a lane for each node (see `lane`), so that one that is away holds up nobody else's shards. The
sender knows which lane has which shard, and looks again when a lane says so: when its node does not answer,
or says that a slot is elsewhere now.
"""

from __future__ import annotations

import asyncio
import logging
from typing import Final

from redis.asyncio import Redis
from redis.exceptions import RedisError

from collector.errors import StoreError
from collector.logfmt import event
from collector.store.client import check_schema, end_if_cancelled
from collector.store.faults import explain
from collector.store.keys import SHARDS, KeySpace, hash_slot
from collector.store.lane import FIRST_PAUSE, Lane
from collector.store.outbox import Outbox
from collector.store.settings import Durability
from collector.store.shard import Shard
from collector.store.topology import Node, Topology, topology_of

log = logging.getLogger(__name__)

_LONGEST_PAUSE: Final = 5.0  # seconds between two questions about a cluster that does not answer


class Sender:
    """Carries an outbox to the store; `run` is its task."""

    def __init__(self, keys: KeySpace, outbox: Outbox, durability: Durability) -> None:
        self._keys = keys
        self._outbox = outbox
        self._replicated = durability is Durability.REPLICA
        self._idle = asyncio.Event()
        self._idle.set()
        self._stale = asyncio.Event()  # somebody doubts what we know of the topology
        self._topology: Topology | None = None
        self._lanes: dict[Node, Lane] = {}
        self._tasks: dict[Node, asyncio.Task[None]] = {}
        self._lane_of: list[Lane | None] = [None] * SHARDS
        self._known_schema = False
        self._error = ""  # why there is no topology
        self.ever_up = False
        self.retries = 0

    @property
    def up(self) -> bool:
        """Whether every node takes what is sent to it."""
        return bool(self._lanes) and not self._error and all(lane.up for lane in self._lanes.values())

    @property
    def last_error(self) -> str:
        """What is wrong, "" when nothing is."""
        errors = {lane.node.name: lane.error for lane in self._lanes.values() if lane.error}
        named = [f"{name}: {error}" if name else error for name, error in errors.items()]
        return "; ".join([*([self._error] if self._error else []), *named])

    def wake(self) -> None:
        """Says that the outbox has changed."""
        if self._outbox.pending_batches:
            self._idle.clear()
        for lane in self._lanes.values():
            lane.wake.set()

    async def wait_idle(self, seconds: float) -> bool:
        """Waits until all is confirmed; False when that takes longer."""
        try:
            async with asyncio.timeout(seconds):
                await self._idle.wait()
        except TimeoutError:
            return False
        return True

    async def run(self, store: Topology | Redis) -> None:
        """Sends what is pending, for ever; comes back from every failure of the store."""
        self._topology = topology = topology_of(store)
        pause = FIRST_PAUSE
        async with asyncio.TaskGroup() as tasks:
            while True:
                self._stale.clear()
                try:
                    await topology.refresh()
                except (TimeoutError, StoreError, RedisError, OSError) as error:
                    end_if_cancelled()
                    self._lost(explain(error))
                    await asyncio.sleep(pause)
                    pause = min(pause * 2, _LONGEST_PAUSE)
                    continue
                end_if_cancelled()
                self._error = ""
                pause = FIRST_PAUSE
                self._assign(topology, tasks)
                await self._stale.wait()
                await asyncio.sleep(FIRST_PAUSE)  # all that doubt it now are answered at once

    def _lost(self, text: str) -> None:
        if text != self._error:
            log.warning(event("store.away", error=text, batches=self._outbox.pending_batches))
        self._error = text
        self.retries += 1
        self._outbox.bound()

    def _assign(self, topology: Topology, tasks: asyncio.TaskGroup) -> None:
        """Gives each shard to the lane of its node; lanes come and go with their nodes."""
        owners = [topology.node_of(hash_slot(tag)) for tag in self._keys.tags]
        for node in {node for node in owners if node is not None} - self._lanes.keys():
            lane = Lane(node, self._keys, self._outbox, self, replicated=self._replicated)
            self._lanes[node] = lane
            self._tasks[node] = tasks.create_task(lane.run())
        before = self._lane_of
        self._lane_of = [None if node is None else self._lanes[node] for node in owners]
        for node in self._lanes.keys() - set(owners):
            self._tasks.pop(node).cancel()  # its shards are free when it has ended: see `owns`
            self._lanes.pop(node).wake.set()
        if before != self._lane_of:
            for lane in self._lanes.values():
                lane.wake.set()

    # ------------------------------------------------------------------ what lanes ask

    def owns(self, lane: Lane, shard: Shard) -> bool:
        """Whether the lane has the shard: it is the lane's, and nothing of it is under way elsewhere."""
        if self._lane_of[shard.number] is not lane:
            return False
        return shard.flying == 0 or shard.sequence in lane.opened

    async def check_schema(self, lane: Lane) -> None:
        """Asks once, and then in each session of the lane that has the answer; others can do without it."""
        topology = self._topology
        assert topology is not None
        if self._known_schema and topology.node_of(hash_slot(self._keys.meta)) is not lane.node:
            return
        self._known_schema = False
        await check_schema(topology, self._keys)
        self._known_schema = True

    def changed(self, lane: Lane) -> None:
        """A lane is up or down, or doubts what we know."""
        if lane.up:
            self.ever_up = True
        else:
            self.retries += 1
            self._outbox.bound()
        if lane.error:
            self._stale.set()
        for other in self._lanes.values():  # a shard that the lane gave up may be theirs
            if other is not lane:
                other.wake.set()

    def rested(self, lane: Lane) -> None:
        """A lane has sent all that it has."""
        self._outbox.all_sent(lane.opened.values())
        if not self._outbox.pending_batches:
            self._idle.set()
