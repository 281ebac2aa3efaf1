"""The store as a real cluster and under real Sentinels: under load, slots moved, primaries killed."""

from __future__ import annotations

import asyncio
from pathlib import Path

import uvloop
from clusters import ClusterProcesses, cluster, redis_only, sentinels
from stores import Load, Store, opened

from collector.store.keys import hash_slot
from collector.store.topology import Cluster


async def _read(store: Store, load: Load, done: asyncio.Event) -> int:
    """Reads totals, which never go back, until it is done; how often."""
    before = [0] * len(load.counters)
    times = 0
    while not done.is_set():
        totals = [int(total) for total in await store.reader.totals(load.counters)]
        assert all(now >= then for now, then in zip(totals, before, strict=True))
        before = totals
        times += 1
        await asyncio.sleep(0.01)
    return times


@redis_only
def test_a_cluster_takes_a_load_and_a_slot_that_moves(tmp_path: Path) -> None:
    """Totals are equal to what was sent while a slot with a shard's keys moves from one node to another, and
    meanwhile all of them can be read.
    """

    async def run(servers: ClusterProcesses) -> None:
        load = Load()
        async with opened(servers.url) as store:
            await load.run(store, 0.5)
            slot = hash_slot(store.keys.tags[0])
            source, target = servers.primaries[0], servers.primaries[1]
            moving = asyncio.to_thread(servers.move, slot, source, target, 0.02)
            done = asyncio.Event()
            reading = asyncio.create_task(_read(store, load, done))
            await asyncio.gather(load.run(store, 2.0), moving)
            done.set()
            assert await reading > 10
            assert source.command("CLUSTER", "COUNTKEYSINSLOT", slot) == 0
            await load.run(store, 0.5)
            await load.check(store)
            assert isinstance(store.topology, Cluster)
            assert len(store.topology.nodes) == 3
            assert target.command("CLUSTER", "COUNTKEYSINSLOT", slot) > 0
        async with opened(f"redis://127.0.0.1:{source.port}", prefix="single") as store:
            await load.round(store)
            await store.until("redis+cluster://")  # an address of one server, and it is not alone

    with cluster("redis", tmp_path) as servers:
        uvloop.run(run(servers))


def test_a_primary_is_killed_and_its_replica_takes_over(tmp_path: Path) -> None:
    """What the replica did not have yet is sent again: totals are equal, and the others never stopped."""

    async def run(servers: ClusterProcesses) -> None:
        load = Load()
        async with opened(servers.url) as store:
            await load.run(store, 0.5)
            victim = servers.primaries[1]
            victim.kill()
            await load.run(store, 0.5)
            waiting = {shard.number for shard in store.outbox.shards if len(shard.ready) > 2}
            keys = store.keys
            lost = {shard for shard, tag in enumerate(keys.tags) if 5461 <= hash_slot(tag) < 10922}
            assert waiting <= lost, "one node away holds up the shards of others"
            await load.run(store, 1.0, 0.05)
            await load.check(store)
            assert f":{victim.port}" not in " ".join(node.name for node in store.topology.nodes)

    with cluster("valkey", tmp_path, replicas=1) as servers:
        uvloop.run(run(servers))


@redis_only
def test_a_primary_is_killed_and_started_again(tmp_path: Path) -> None:
    """Without a replica its shards wait, with an error that names the node; totals are equal afterwards."""

    async def run(servers: ClusterProcesses) -> None:
        load = Load()
        async with opened(servers.url) as store:
            await load.run(store, 0.3)
            victim = servers.primaries[2]
            victim.kill()
            await load.run(store, 1.5)
            assert not store.sender.up
            assert f"127.0.0.1:{victim.port}" in store.sender.last_error
            others = [shard for shard, tag in enumerate(store.keys.tags) if hash_slot(tag) < 10922]
            assert max(len(store.outbox.shards[one].ready) for one in others) <= 2
            await asyncio.to_thread(victim.start)
            await load.run(store, 0.3)
            await load.check(store)
            await store.until("")

    with cluster("redis", tmp_path) as servers:
        uvloop.run(run(servers))


def test_sentinels_fail_over_under_load(tmp_path: Path) -> None:
    """The primary is killed, the replica becomes it: totals are equal, nothing is lost or doubled."""

    async def run() -> None:
        with sentinels("valkey", tmp_path) as servers:
            load = Load()
            async with opened(servers.url) as store:
                await load.run(store, 0.5)
                servers.primary.kill()
                await load.run(store, 1.0, 0.05)
                await load.check(store)
                await store.until("")
                servers.primary = servers.replica

    uvloop.run(run())


@redis_only
def test_a_primary_that_is_demoted_takes_no_more(tmp_path: Path) -> None:
    """The old primary lives on as a replica: READONLY is no loss, the new one is found."""

    async def run() -> None:
        with sentinels("redis", tmp_path) as servers:
            load = Load(100)
            async with opened(servers.url) as store:
                await load.run(store, 0.3)
                servers.sentinels[0].command("SENTINEL", "FAILOVER", servers.SERVICE)
                await load.run(store, 2.0, 0.05)
                await load.check(store)

    uvloop.run(run())
