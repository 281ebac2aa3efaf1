"""What roll-ups cost, what a point takes in the store, and how long questions over many series take.

Chunks are written as collectors leave them, then rolled up, on an embedded server of its own. Last, a store
is filled as 90 days of busy timers and sets fill it: with what is left of them, for all else has expired.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import random
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any, Final, cast

import uvloop
from redis.asyncio import Redis

from collector.embedded import EmbeddedServer, EmbeddedSettings
from collector.model import Kind, Series
from collector.retention import SLOTS, RetentionSettings
from collector.rules import Retention
from collector.sketch import Sketch
from collector.store.client import connect
from collector.store.compaction import Compactor
from collector.store.compaction.edges import edges
from collector.store.keys import LETTERS, SHARDS, KeySpace
from collector.store.reader import Reader
from collector.units import format_size

_RES: Final = 10
_HOURS: Final = 6
_SAMPLES: Final = 20  # of a busy timer, in ten seconds
_MEMBERS: Final = 1000  # of a busy set, in a minute
_DAY: Final = 86400
Field = Callable[[random.Random, int], dict[bytes, Any]]


class _Store:
    """A store with chunks in it."""

    def __init__(self, client: Redis, prefix: str) -> None:
        self.client = client
        self.retention = Retention(RetentionSettings(), _RES)
        self.keys = KeySpace(prefix, _RES, self.retention.resolutions)
        self.end = int(time.time()) // 7200 * 7200
        self.compactor = Compactor(client, self.keys, self.retention)
        self.reader = Reader(client, self.keys, idle_expiry=10**9, refresh=0, retention=self.retention)

    async def fill(self, series: list[Series], hours: int, fields: Field) -> int:
        """Writes full chunks of the last hours; how many points."""
        chance = random.Random(1)
        points = 0
        for one in series:
            pipeline = self.client.pipeline(transaction=False)
            pipeline.hset(self.keys.shard_key(self.keys.shard(one), b"ix"), one.key, self.end)
            base = self.keys.chunks(one.key.encode(), self.keys.shard(one))
            for chunk in range((self.end - hours * 3600) // 1200, self.end // 1200):
                found = fields(chance, chunk)
                points += len(found)
                pipeline.hset(b"%b%d" % (base, chunk), mapping=cast("Any", found))
            await pipeline.execute()
        return points

    async def open(self, hours: int) -> None:
        """Lets the roll-ups begin with what was filled."""
        await self.compactor.open(self.end - hours * 3600.0)

    async def memory(self) -> int:
        """Bytes that the server uses."""
        return int((await self.client.info("memory"))["used_memory"])

    async def cpu(self) -> float:
        """Seconds of CPU that the server has used."""
        found = await self.client.info("cpu")
        return float(found["used_cpu_user"]) + float(found["used_cpu_sys"])


def _counter(chance: random.Random, chunk: int) -> dict[bytes, Any]:
    return {b"%d" % slot: chance.randrange(1, 1000) for slot in range(SLOTS)}


def _gauge(chance: random.Random, chunk: int) -> dict[bytes, Any]:
    return {b"%d" % slot: round(chance.uniform(0, 100), 2) for slot in range(SLOTS)}


def _blobs(samples: int, count: int) -> list[bytes]:
    chance = random.Random(samples)
    found = []
    for _ in range(count):
        sketch = Sketch()
        sketch.add([round(chance.lognormvariate(3, 0.4), 3) for _ in range(samples)])
        found.append(sketch.encode())
    return found


def _timer_fields() -> Field:
    blobs = _blobs(_SAMPLES, 300)
    return lambda chance, chunk: {
        b"%d:0123456789ab.%d" % (slot, chunk): chance.choice(blobs) for slot in range(SLOTS)
    }


@contextlib.asynccontextmanager
async def _server(**settings: int) -> AsyncIterator[Redis]:
    with tempfile.TemporaryDirectory() as directory:
        server = EmbeddedServer(Path(directory) / "state", EmbeddedSettings(**settings))
        client = connect(await server.start())
        try:
            await client.config_set("appendonly", "no")  # measured is memory, and work
            yield client
        finally:
            await client.aclose()
            await server.stop()


async def _watch(gaps: list[float]) -> None:
    while True:
        due = time.monotonic() + 0.001
        await asyncio.sleep(0.001)
        gaps.append(time.monotonic() - due)


async def _roll_up(store: _Store, what: str, series: int, hours: int) -> None:
    """Rolls all up, and prints what that costs for 1,000 series and a day."""
    gaps: list[float] = []
    watch = asyncio.create_task(_watch(gaps))
    await asyncio.sleep(0.1)
    gaps.clear()
    client, server = time.process_time(), await store.cpu()
    for shard in range(SHARDS):
        await store.compactor.roll_up(shard, store.end + 60.0)
    client, server = time.process_time() - client, await store.cpu() - server
    watch.cancel()
    share = 1000 / series * 24 / hours
    print(
        f"  {what:9} {client * share:6.1f} s of the client's CPU and {server * share:.1f} s of the server's"
        f" for 1,000 series and a day; longest loop gap {max(gaps) * 1000:.0f} ms"
    )


async def _kinds(series: int) -> None:
    fields: dict[Kind, tuple[int, Field]] = {
        Kind.COUNTER: (series, _counter),
        Kind.GAUGE: (series, _gauge),
        Kind.TIMER: (max(1, series // 10), _timer_fields()),
    }
    for kind, (count, make) in fields.items():
        async with _server(max_memory=2**32) as client:
            store = _Store(client, "m")
            await store.open(_HOURS)
            before = await store.memory()
            some = [Series(kind, f"bench.compaction.{n:05d}") for n in range(count)]
            points = await store.fill(some, _HOURS, make)
            size = await store.memory() - before
            word = kind.name.lower() + "s"
            print(f"  {word:9} {size / points:6.1f} bytes a point, keys and registry included")
            await _roll_up(store, word, count, _HOURS)
            await _questions(store, kind, some)


async def _questions(store: _Store, kind: Kind, series: list[Series]) -> None:
    """Asks for six hours of all series, at the finest resolution and by the minute."""
    start, end = store.end - _HOURS * 3600, store.end
    for step in (None, 60):
        begun, client, server = time.monotonic(), time.process_time(), await store.cpu()
        match kind:
            case Kind.COUNTER:
                found: list[Any] = await store.reader.increments(series, start, end, step)
            case Kind.GAUGE:
                found = await store.reader.gauge_points(series, start, end, step)
            case _:
                found = await store.reader.sketches(series, start, end, step)
        points = sum(map(len, found))
        took = time.monotonic() - begun
        client, server = time.process_time() - client, await store.cpu() - server
        print(
            f"  {'':9} {took:6.2f} s to read 6 hours of {len(series):,} series, {points:,} points:"
            f" {client:.2f} s of the client's CPU, {server:.2f} s of the server's"
        )


async def _registry(series: int) -> None:
    async with _server(max_memory=2**32) as client:
        store = _Store(client, "m")
        for first in range(0, series, 10_000):
            pipeline = client.pipeline(transaction=False)
            for n in range(first, min(first + 10_000, series)):
                one = Series(
                    Kind.COUNTER, f"app.requests{n % 1000}", [f"route:/r{n % 97}", f"host:h{n // 1000}"]
                )
                pipeline.hset(store.keys.shard_key(store.keys.shard(one), b"ix"), one.key, store.end)
            await pipeline.execute()
        gaps: list[float] = []
        watch = asyncio.create_task(_watch(gaps))
        await asyncio.sleep(0.1)
        gaps.clear()
        for what in ("first", "again"):
            before, begun = _resident(), time.monotonic()
            found = await store.reader.find(lambda one: "route:/r5" in one.tags, store.end)
            print(
                f"  registry  {time.monotonic() - begun:6.2f} s to find {len(found):,} of {series:,} series"
                f" by a tag, {what}; {(_resident() - before) / 2**20:.0f} MiB more"
            )
        print(f"            longest loop gap {max(gaps) * 1000:.0f} ms")
        watch.cancel()


def _resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


# ---------------------------------------------------------------------- what 90 days leave


def _left(store: _Store, kind: Kind) -> Iterator[tuple[int, int, int]]:
    """(resolution, first second, last) of what is there of a series just before the oldest chunk expires.

    A chunk lives from its end as long as its rung.
    """
    retention = store.retention
    chain = retention.chains[kind]
    spans = {edge.finer: edge.span for edge in edges(kind, chain)}
    for resolution in chain:
        span = spans.get(resolution, resolution * (1 if kind is Kind.SET else SLOTS))
        life = retention.life(kind, resolution)
        yield resolution, store.end - life - span, store.end


async def _days(timers: int, sets: int) -> None:
    async with _server(max_memory=2**32) as client:
        store = _Store(client, "m")
        before = await store.memory()
        await _busy_timers(store, timers)
        after_timers = await store.memory()
        await _busy_sets(store, sets)
        after = await store.memory()
        limit = EmbeddedSettings().max_memory
        print(
            f"  90 days   {format_size(after_timers - before)} for {timers:,} timers of {_SAMPLES} samples"
            f" in 10 s, {format_size(after - after_timers)} for {sets} sets of {_MEMBERS:,} members a minute:"
            f" {after / limit:.0%} of {format_size(limit)}"
        )


async def _busy_timers(store: _Store, timers: int) -> None:
    blobs = {10: _blobs(_SAMPLES, 200), 60: _blobs(6 * _SAMPLES, 200), 3600: _blobs(360 * _SAMPLES, 60)}
    chance = random.Random(2)
    for n in range(timers):
        one = Series(Kind.TIMER, f"bench.days.{n:05d}")
        base = store.keys.base(LETTERS[Kind.TIMER], one)
        pipeline = store.client.pipeline(transaction=False)
        for resolution, first, last in _left(store, Kind.TIMER):
            ending = b":0123456789ab.%d" % n if resolution == _RES else b""
            for chunk in range(first // (resolution * SLOTS), last // (resolution * SLOTS)):
                found = {b"%d%b" % (slot, ending): chance.choice(blobs[resolution]) for slot in range(SLOTS)}
                pipeline.hset(b"%b:%d:%d" % (base, resolution, chunk), mapping=cast("Any", found))
        key = store.keys.base(b"t", one)
        pipeline.zadd(key, {_flushed(chance, i): store.end for i in range(200 // _SAMPLES)})
        await pipeline.execute()


def _flushed(chance: random.Random, number: int) -> str:
    """The raw samples of one flush, as the writer puts them."""
    values = ",".join(f"{chance.uniform(0, 99):.3f}" for _ in range(_SAMPLES))
    return f"{values}:0123456789ab.7.{number}"


async def _busy_sets(store: _Store, sets: int) -> None:
    chance = random.Random(3)
    blobs = {60: await _registers(store, _MEMBERS, 60), 3600: await _registers(store, 20 * _MEMBERS, 24)}
    for n in range(sets):
        base = store.keys.base(LETTERS[Kind.SET], Series(Kind.SET, f"bench.days.{n}"))
        pipeline = store.client.pipeline(transaction=False)
        for resolution, first, last in _left(store, Kind.SET):
            for slot in range(first // resolution, last // resolution):
                pipeline.set(b"%b:%d:%d" % (base, resolution, slot), chance.choice(blobs[resolution]))
        await pipeline.execute()


async def _registers(store: _Store, members: int, count: int) -> list[bytes]:
    """HyperLogLogs of so many members each."""
    chance = random.Random(members)
    found: list[Any] = []
    for _ in range(count):
        await store.client.pfadd("bench", *chance.sample(range(10**7), members))
        found.append(await store.client.get("bench"))
        await store.client.unlink("bench")
    return found


def run(series: int = 1000, registered: int = 1_000_000, timers: int = 1000, sets: int = 20) -> None:
    """Prints the figures; with smaller numbers they are rougher."""
    print("Compaction: roll-ups, bytes, questions")
    gc.set_threshold(10_000, 1000, 1000)  # as the daemon does
    uvloop.run(_kinds(series))
    uvloop.run(_registry(registered))
    uvloop.run(_days(timers, sets))
