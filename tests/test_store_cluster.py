"""The store as a real cluster and under real Sentinels: under load, slots moved, primaries killed."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from pathlib import Path

import uvloop
from clusters import Certificates, ClusterProcesses, cluster, redis_only, sentinels
from rollup_rig import SHORT, START, Rig, point, read
from stores import Load, Store, opened

from collector.errors import StoreError
from collector.model import Kind, Series
from collector.store.keys import hash_slot
from collector.store.settings import StoreSettings
from collector.store.topology import Cluster, open_store


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


async def _fill(rig: Rig, series: list[Series], slots: range) -> None:
    """A point of each series in each of these slots."""
    chance = random.Random(slots.start)
    for slot in slots:
        at = START + 10 * slot
        await rig.write(at, *(point(one, at, chance) for one in series))


async def _compacted(rig: Rig, series: list[Series]) -> bool:
    """Whether a roll-up of all shards came through; each is tried."""
    through = True
    for one in series:
        try:
            await rig.compact([one])
        except StoreError:
            through = False
    return through


@redis_only
def test_roll_ups_of_a_cluster_survive_a_slot_that_moves_and_a_node_that_is_killed(tmp_path: Path) -> None:
    """What they could not do in one turn they do in the next: minutes of all kinds equal what was written."""

    async def run(servers: ClusterProcesses) -> None:
        topology = open_store(servers.url)
        rig = Rig(topology, "rolled", SHORT, ())
        series = [Series(kind, f"cluster.{n}") for kind in Kind for n in range(15)]
        try:
            await rig.compactor.open(rig.now)
            await _fill(rig, series, range(0, 120, 4))
            rig.now = START + 1300.0
            source, target, victim = servers.primaries
            slot = next(
                found
                for found in (hash_slot(rig.keys.base(b"c", one)) for one in series)
                if source.command("CLUSTER", "COUNTKEYSINSLOT", found)
            )
            moving = asyncio.create_task(asyncio.to_thread(servers.move, slot, source, target, 0.05))
            await _compacted(rig, series)
            await moving
            victim.kill()
            assert not await _compacted(rig, series)
            await asyncio.to_thread(victim.start)
            while not await _compacted(rig, series):
                await asyncio.sleep(0.1)
            await _fill(rig, series, range(1, 5, 3))  # late
            assert await _compacted(rig, series)
            for one in series:
                minutes = await read(rig, one, START, START + 1200, 60)
                assert minutes == rig.truth.expected(one, START, START + 1200, 60), one
            assert rig.compactor.counts.again
        finally:
            await rig.stop()
            await topology.aclose()

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


@redis_only
def test_sentinels_fail_over_under_load_over_tls(tmp_path: Path) -> None:
    """Sentinels, servers and the collector know each other by certificates only; totals are equal."""
    certificates = Certificates(tmp_path)

    async def run(url: str, kill: Callable[[], None]) -> None:
        load = Load(100)
        async with opened(url, StoreSettings(url=url, tls=certificates.client())) as store:
            await load.run(store, 0.3)
            kill()
            await load.run(store, 1.0, 0.05)
            await load.check(store)

    with sentinels("redis", tmp_path, certificates) as servers:
        uvloop.run(run(servers.url, servers.primary.kill))
