"""Keys, the batch script, writer and reader, against a real server."""

from __future__ import annotations

import asyncio
import fnmatch
import re
import socket
import time
from array import array
from binascii import crc_hqx
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import redis
import uvloop
from harness import server
from hypothesis import given, settings
from hypothesis import strategies as st

from collector.errors import OperatorError, StoreError
from collector.model import (
    Check,
    CounterPoint,
    Event,
    GaugePoint,
    Kind,
    Number,
    Point,
    Series,
    SetPoint,
    TimerPoint,
    Window,
)
from collector.retention import RetentionSettings
from collector.rules import Retention
from collector.sketch import Sketch
from collector.store.address import without_password
from collector.store.client import connect
from collector.store.compaction import Compactor
from collector.store.compaction.lease import Lease
from collector.store.encode import SCRIPT, SEQUENCE_SECONDS, SHA, Encoder
from collector.store.keys import SHARDS, KeySpace
from collector.store.memory import MemoryGuard
from collector.store.numbers import number_text
from collector.store.packed import Packed, PackedInPython
from collector.store.reader import Reader
from collector.store.rights import rules
from collector.store.writer import Writer

RESOLUTION = 10
NOW = float(int(time.time()) // RESOLUTION * RESOLUTION)
WINDOW = Window(int(NOW), int(NOW) + RESOLUTION)

HITS = Series(Kind.COUNTER, "hits", ("route:/pay",))
LEVEL = Series(Kind.GAUGE, "level")
LATENCY = Series(Kind.TIMER, "api.latency")
USERS = Series(Kind.SET, "users")


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with server(tmp_path_factory.mktemp("store")) as found:
        yield found


class Store:
    """A writer with its task and a reader, on one server and prefix."""

    def __init__(self, client: Any, prefix: str, **options: Any) -> None:
        self.client = client
        self.keys = KeySpace(prefix, RESOLUTION)
        settings = {"max_bytes": 2**28, "samples": 200, "refresh": 60.0, **options}
        self.writer = Writer(self.keys, **settings)
        self.reader = Reader(client, self.keys, idle_expiry=3600, refresh=60)

    async def write(self, *points: Point, window: Window = WINDOW) -> None:
        self.writer.write(window, points, NOW)
        await self.writer.commit()
        assert await self.writer.sender.wait_idle(10), self.writer.sender.last_error


@asynccontextmanager
async def opened(path: str, prefix: str, user: str = "", **options: Any) -> AsyncIterator[Store]:
    client = connect(f"unix://{user}{path}")
    store = Store(client, prefix, **options)
    task = asyncio.create_task(store.writer.sender.run(client))
    try:
        yield store
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await client.aclose()


def on(path: str, name: str, test: Callable[[Store], Awaitable[None]], **options: Any) -> None:
    """Runs an async test on a prefix of its own."""

    async def run() -> None:
        async with opened(path, name, **options) as store:
            await test(store)

    uvloop.run(run())


def sketch_of(*values: float) -> Sketch:
    sketch = Sketch()
    sketch.add(values)
    return sketch


def neighbour(keys: KeySpace) -> Series:
    """A counter of the same shard as HITS."""
    some = (Series(Kind.COUNTER, f"n{n}") for n in range(1000))
    return next(series for series in some if keys.shard(series) == keys.shard(HITS))


def windows(count: int) -> list[Window]:
    """Flush windows one after another."""
    return [Window(WINDOW.start + n * RESOLUTION, WINDOW.end + n * RESOLUTION) for n in range(count)]


# ---------------------------------------------------------------------- keys


def test_shards_are_spread_evenly_over_the_slots_of_a_cluster() -> None:
    """Shard i lies in the i-th 64th of the 16384 slots, so any number of nodes gets an even share."""
    keys = KeySpace("m", 10)
    slots = [crc_hqx(tag.strip(b"{}"), 0) % 16384 for tag in keys.tags]
    assert [slot // (16384 // SHARDS) for slot in slots] == list(range(SHARDS))
    assert len(set(keys.tags)) == SHARDS


def test_series_are_spread_evenly_over_the_shards() -> None:
    """No shard holds more than one and a half times its share of many series."""
    keys = KeySpace("m", 10)
    counts = [0] * SHARDS
    for n in range(20_000):
        counts[keys.shard(Series(Kind.COUNTER, f"app.metric.{n}"))] += 1
    assert max(counts) < 1.5 * 20_000 / SHARDS


def test_every_second_has_one_slot() -> None:
    """Chunk and slot of a time lead back to the start of its slot, across chunk edges too."""
    keys = KeySpace("m", 10)
    for at in (0, 9, 10, 1199, 1200, 1_800_000_007):
        assert keys.slot_start(keys.chunk(at), keys.slot(at)) == at - at % 10


def test_keys_of_a_series_are_drawn_as_documented() -> None:
    """The layout in the module's docstring is what is written: users read it with redis-cli."""
    keys = KeySpace("m", 10)
    tag = keys.tags[keys.shard(HITS)].decode()
    assert keys.chunked(b"c", HITS, 7).decode() == f"{tag}:c:hits|#route:/pay:10:7"
    tag = keys.tags[keys.shard(USERS)].decode()
    assert keys.members(USERS, 9).decode() == f"{tag}:s:users:60:9"


# ---------------------------------------------------------------------- values


def test_counters_add_up_in_slot_and_total(path: str) -> None:
    """Increments of one window add up, fractions included; the total runs on over windows."""

    async def test(store: Store) -> None:
        await store.write(CounterPoint(HITS, 5))
        await store.write(CounterPoint(HITS, 2.5))
        later = Window(WINDOW.end, WINDOW.end + RESOLUTION)
        await store.write(CounterPoint(HITS, 1), window=later)
        assert await store.reader.totals([HITS]) == [8.5]
        points = await store.reader.increments([HITS], NOW, NOW + 60)
        assert points == [[(WINDOW.start, 7.5), (later.start, 1)]]

    on(path, "counters", test)


def test_answers_about_many_series_come_in_the_order_of_the_question(path: str) -> None:
    """Thousands at a time, of all kinds but timers; those that nobody wrote are among them."""

    async def test(store: Store) -> None:
        names = [f"many.{n}" for n in range(4500)]
        counters, gauges, sets = (
            [Series(kind, name) for name in names] for kind in (Kind.COUNTER, Kind.GAUGE, Kind.SET)
        )
        at = int(NOW * 1000)
        points: list[Point] = []
        for n in range(0, len(names), 7):
            points += CounterPoint(counters[n], n + 1), GaugePoint(gauges[n], n, 0, at)
            points.append(SetPoint(sets[n], [b"a"]))
        await store.write(*points)

        def expected(value: Callable[[int], Any], otherwise: Any) -> list[Any]:
            return [otherwise if n % 7 else value(n) for n in range(len(names))]

        reader, end = store.reader, NOW + RESOLUTION
        minute = int(NOW) // 60 * 60
        assert await reader.totals(counters) == expected(lambda n: n + 1, 0)
        assert await reader.gauges(gauges, NOW) == expected(lambda n: (NOW, n), None)
        assert await reader.increments(counters, NOW, end) == expected(lambda n: [(NOW, n + 1)], [])
        assert await reader.gauge_points(gauges, NOW, end) == expected(lambda n: [(NOW, n)], [])
        assert await reader.uniques(sets, minute, minute + 60) == expected(lambda n: [(minute, 1)], [])

    on(path, "many", test)


def test_integers_are_exact_and_never_change_sign(path: str) -> None:
    """2^53 + 1 twice is exact; past 2^63 the sum goes on as a double instead of overflowing."""

    async def test(store: Store) -> None:
        big = Series(Kind.COUNTER, "big")
        await store.write(CounterPoint(HITS, 2**53 + 1))
        await store.write(CounterPoint(HITS, 2**53 + 1))
        await store.write(CounterPoint(big, 2**63 - 1))
        await store.write(CounterPoint(big, 2**63 - 1))
        exact, huge = await store.reader.totals([HITS, big])
        assert exact == 2**54 + 2
        assert huge == pytest.approx(2**64, rel=1e-15)

    on(path, "exact", test)


def test_gauges_are_set_and_moved(path: str) -> None:
    """A set replaces, a move adds to the last value, whichever flush or collector that came from."""

    async def test(store: Store) -> None:
        at = int(NOW * 1000)
        await store.write(GaugePoint(LEVEL, None, 5, at))
        assert await store.reader.gauges([LEVEL], NOW) == [(NOW, 5)]
        await store.write(GaugePoint(LEVEL, 10, 0, at + 1))
        await store.write(GaugePoint(LEVEL, None, -3, at + 2))
        await store.write(GaugePoint(LEVEL, None, 0.25, at + 3))
        assert await store.reader.gauges([LEVEL], NOW) == [(NOW + 0.003, 7.25)]
        assert await store.reader.gauge_points([LEVEL], NOW, NOW + 10) == [[(WINDOW.start, 7.25)]]

    on(path, "gauges", test)


def test_late_gauge_does_not_replace_a_newer_one(path: str) -> None:
    """A value with an older timestamp fills an empty slot of the past and leaves the present alone."""

    async def test(store: Store) -> None:
        earlier = Window(WINDOW.start - 30, WINDOW.start - 20)
        await store.write(GaugePoint(LEVEL, 10, 0, int(NOW * 1000)))
        await store.write(GaugePoint(LEVEL, 3, 0, earlier.start * 1000), window=earlier)
        assert await store.reader.gauges([LEVEL], NOW) == [(NOW, 10)]
        points = await store.reader.gauge_points([LEVEL], NOW - 60, NOW + 10)
        assert points == [[(earlier.start, 3), (WINDOW.start, 10)]]

    on(path, "late", test)


def test_gauge_is_gone_after_its_expiry_and_back_with_a_new_value(path: str) -> None:
    """An idle gauge disappears; an update brings it back."""

    async def test(store: Store) -> None:
        await store.write(GaugePoint(LEVEL, 1, 0, int((NOW - 3601) * 1000)))
        assert await store.reader.gauges([LEVEL], NOW) == [None]
        await store.write(GaugePoint(LEVEL, 2, 0, int(NOW * 1000)))
        assert await store.reader.gauges([LEVEL], NOW) == [(NOW, 2)]

    on(path, "expiry", test)


def test_timers_keep_sketches_that_merge_and_the_newest_samples(path: str) -> None:
    """Sketches of two batches of one slot are both kept and merged; of the samples the newest come first,
    late ones where they belong, and equal values stay apart."""

    async def test(store: Store) -> None:
        first = TimerPoint(LATENCY, sketch_of(1, 2, 2).encode(), array("d", [1, 2, 2]))
        second = TimerPoint(LATENCY, sketch_of(3, 4).encode(), array("d", [3, 4]))
        later = Window(WINDOW.end, WINDOW.end + RESOLUTION)
        await store.write(first)
        await store.write(second)
        await store.write(second, window=later)
        ((at, merged), _) = (await store.reader.sketches([LATENCY], NOW, NOW + 60))[0]
        assert at == WINDOW.start
        assert merged == sketch_of(1, 2, 2, 3, 4)
        assert await store.reader.samples(LATENCY, 3) == [
            (later.start, 4.0),
            (later.start, 3.0),
            (WINDOW.start, 4.0),
        ]
        assert [value for _, value in await store.reader.samples(LATENCY, 10)] == [4, 3, 4, 3, 2, 2, 1]

    on(path, "timers", test)


@pytest.mark.parametrize("each", [1, 3, 50])
def test_raw_samples_are_trimmed_to_the_newest(path: str, each: int) -> None:
    """The newest are always there, as many as are kept; of older ones no more than eight flushes."""
    kept = 20

    async def test(store: Store) -> None:
        values = array("d")
        for n, window in enumerate(windows(60)):
            some = array("d", range(n * each, (n + 1) * each))
            values += some[-kept:]
            await store.write(TimerPoint(LATENCY, sketch_of(1).encode(), some), window=window)
            found = [value for _, value in await store.reader.samples(LATENCY, 10**6)]
            assert found == list(reversed(values))[: len(found)]
            assert min(kept, len(values)) <= len(found) <= kept + 8 * min(each, kept)

    on(path, f"trimmed{each}", test, samples=kept)


@pytest.mark.parametrize(
    ("before", "increments", "expected"),
    [
        (0, [1, 2, 3], 6),
        (2**53 - 2, [1, 1, 1], 2**53 + 1),
        (-(2**53) + 2, [-1, -1, -1], -(2**53) - 1),
        (2**62, [10**12 - 1, 10**12, 10**13], 2**62 + 12 * 10**12 - 1),
        (5, [0.25, 0.25, 0.5], 6),
        (0.1, [1, 1, 1], 3.1),
    ],
)
def test_a_total_is_exact_over_the_windows_of_a_batch(
    path: str, before: Number, increments: list[Number], expected: Number
) -> None:
    """Whole numbers at any size, fractions, and either upon the other; a neighbour is not touched."""

    async def test(store: Store) -> None:
        other = neighbour(store.keys)
        if before:
            await store.write(CounterPoint(HITS, before))
        for window, value in zip(windows(3), increments, strict=True):
            store.writer.write(window, [CounterPoint(HITS, value), CounterPoint(other, 7)], NOW)
        await store.writer.commit()
        assert await store.writer.sender.wait_idle(10)
        assert store.writer.outbox.applied == (2 if before else 1)
        assert await store.reader.totals([HITS, other]) == [expected, 21]

    on(path, f"batch:{before}:{increments[0]}", test)


def test_a_gauge_ends_where_the_windows_of_a_batch_lead(path: str) -> None:
    """Moves add to what the batch set before, and to what the store has; the latest setting wins."""

    async def test(store: Store) -> None:
        await store.write(GaugePoint(LEVEL, 100, 0, int(NOW * 1000)))
        points = [
            GaugePoint(LEVEL, None, 5, int(NOW * 1000) + 1),
            GaugePoint(LEVEL, 40, 0, int(NOW * 1000) + 2),
            GaugePoint(LEVEL, 7, 0, int(NOW * 1000) + 1),  # late: changes nothing
            GaugePoint(LEVEL, None, -2.5, int(NOW * 1000) + 3),
        ]
        for window, point in zip(windows(4), points, strict=True):
            store.writer.write(window, [point], NOW)
        await store.writer.commit()
        assert await store.writer.sender.wait_idle(10)
        assert await store.reader.gauges([LEVEL], NOW) == [(NOW + 0.003, 37.5)]
        (found,) = await store.reader.gauge_points([LEVEL], NOW, NOW + 4 * RESOLUTION)
        assert [value for _, value in found] == [105, 40, 7, 37.5]

    on(path, "gauge_batch", test)


def test_sets_count_members_a_minute_and_over_any_window(path: str) -> None:
    """HyperLogLogs of minutes and of several sets merge: a member seen twice counts once."""

    async def test(store: Store) -> None:
        other = Series(Kind.SET, "guests")
        minute = int(NOW) // 60 * 60
        for n in range(3):
            window = Window(minute - 60 * n, minute - 60 * n + 10)
            await store.write(SetPoint(USERS, [b"a", b"b%d" % n]), window=window)
        await store.write(SetPoint(other, [b"a", b"z"]), window=Window(minute, minute + 10))
        start, end = minute - 120, minute + 60
        counts = await store.reader.uniques([USERS], start, end)
        assert counts == [[(minute - 120, 2), (minute - 60, 2), (minute, 2)]]
        assert await store.reader.unique([USERS], start, end) == 4
        assert await store.reader.unique([USERS, other], start, end) == 5
        assert not await store.client.keys("sets*tmp*")

    on(path, "sets", test)


def test_uniques_are_within_the_error_of_redis(path: str) -> None:
    """100,000 members in one batch (more than Lua passes to a call) are counted within 3 sigma, 2.4 %."""

    async def test(store: Store) -> None:
        members = [b"user-%d" % n for n in range(100_000)]
        await store.write(SetPoint(USERS, members))
        minute = int(NOW) // 60 * 60
        count = await store.reader.unique([USERS], minute, minute + 60)
        assert count == pytest.approx(100_000, rel=0.0243)

    on(path, "many", test)


def test_events_and_checks_are_kept_newest_first(path: str) -> None:
    """Both come back as they were sent; one without a time has that of its window."""

    async def test(store: Store) -> None:
        entries: list[Event | Check] = [
            Event("deploy", "v1\nof api", at=5, alert="warning", tags=("a:b", "c")),
            Event("second", ""),
            Check("db", 2, message="gone", host="h"),
        ]
        store.writer.write_entries(WINDOW, entries)
        await store.writer.commit()
        assert await store.writer.sender.wait_idle(10)
        second, first = await store.reader.events(5)
        assert (first["title"], first["text"], first["at"]) == ("deploy", "v1\nof api", 5)
        assert (first["alert"], first["tags"]) == ("warning", ["a:b", "c"])
        assert second["at"] == WINDOW.start
        (check,) = await store.reader.checks(5)
        assert (check["name"], check["status"], check["message"]) == ("db", 2, "gone")

    on(path, "entries", test)


def test_registry_finds_live_series_of_all_kinds(path: str) -> None:
    """A counter and a gauge of one name are two series; one not seen for an hour is not found."""

    async def test(store: Store) -> None:
        twin = Series(Kind.GAUGE, "hits", HITS.tags)
        await store.write(CounterPoint(HITS, 1), GaugePoint(twin, 1, 0, int(NOW * 1000)))
        store.writer.write(WINDOW, [CounterPoint(Series(Kind.COUNTER, "new"), 1)], NOW)
        found = await store.reader.find(lambda series: series.name == "hits", NOW)
        assert found == [HITS, twin]
        assert await store.reader.find(lambda series: True, NOW + 3600 + 61) == []

    on(path, "registry", test)


def test_every_chunk_expires_and_nothing_else_does(path: str) -> None:
    """What carries a time has a time to live of a week or more; totals, gauges and registry have none."""

    async def test(store: Store) -> None:
        await store.write(
            CounterPoint(HITS, 1),
            GaugePoint(LEVEL, 1, 0, int(NOW * 1000)),
            TimerPoint(LATENCY, sketch_of(1).encode(), array("d", [1])),
            SetPoint(USERS, [b"a"]),
        )
        for key in await store.client.keys("{ttl*"):
            ttl = await store.client.ttl(key)
            kind = key.decode().split("}:")[1].split(":")[0]
            if kind in ("c", "g", "d", "t", "s"):
                assert 7 * 86400 - 5 <= ttl <= 7 * 86400 + 1200, key
            elif kind == "q":
                assert ttl > 29 * 86400, key
            else:
                assert ttl == -1, key

    on(path, "ttl", test)


# ---------------------------------------------------------------------- packing

# Round decimals, all kinds of doubles, and numbers at the edges of what is written in which way.
REALS = st.one_of(
    st.floats(allow_nan=False, allow_infinity=False),
    st.decimals(-(10**12), 10**12, places=4).map(float),
    st.integers(-(2**60), 2**60).map(float),
    st.sampled_from([2.0**52 + 1, 2.0**53 - 1, 2.0**53, 1e15, 1e15 - 0.125, 1e16, 1e22, 1e-4, 5e-324, -0.0]),
)
ARGUMENTS = st.lists(st.binary(max_size=30) | st.integers(-(10**20), 10**20) | REALS, max_size=6).map(tuple)


@pytest.mark.skipif(Packed.__name__ != "Packed", reason="nothing compiled in this installation")
@settings(max_examples=500, deadline=None)
@given(
    st.lists(st.tuples(st.binary(max_size=40), st.integers(-1, 10**7), ARGUMENTS), max_size=4),
    st.lists(REALS, max_size=30).map(lambda values: array("d", values)),
    st.integers(0, 10**6),
)
def test_operations_are_packed_alike_with_and_without_the_compiled_code(
    operations: list[tuple[bytes, int, tuple[Any, ...]]], samples: array[float], first: int
) -> None:
    """Byte for byte, and the sizes by which batches are closed."""
    ours, reference = Packed(), PackedInPython()
    for one in operations:
        assert ours.add(*one) == reference.add(*one)
    sampled = (b"key", 200, 1_656_581_400_000, samples, b"8f14e45fceea.17", first)
    assert ours.add_samples(*sampled) == reference.add_samples(*sampled)
    assert ours.keys == reference.keys
    assert ours.arguments == reference.arguments
    assert (ours.operations, ours.count) == (reference.operations, reference.count)


# ---------------------------------------------------------------------- exactly once


def apply(client: redis.Redis, keys: KeySpace, seq: int, prev: int, value: int) -> Any:
    """Runs the script as the writer would, with one increment."""
    encoder = Encoder(seq, b"c1")
    shard = keys.shard(HITS)
    encoder.counter(keys.chunks(HITS.key.encode(), shard), 1, 0, HITS.key.encode(), value, 60)
    names = [keys.shard_key(shard, name) for name in (b"last", b"total", b"ix")]
    batch = encoder.close([keys.sequence(shard, b"c1"), *names])
    connection = client.connection_pool.get_connection()
    try:
        connection.send_packed_command(batch.command(prev), check_health=False)  # type: ignore[no-untyped-call]
        return connection.read_response()
    finally:
        client.connection_pool.release(connection)


def test_script_applies_once_and_notices_gaps(path: str) -> None:
    """A repeat does nothing, a gap does nothing and says what the server has, the next one is applied."""
    client = redis.Redis(unix_socket_path=path, protocol=2)
    client.script_load(SCRIPT.decode())
    keys = KeySpace("once", RESOLUTION)
    total = keys.shard_key(keys.shard(HITS), b"total")
    assert apply(client, keys, 1, 0, 5) == [1, 1]
    assert apply(client, keys, 1, 0, 5) == [0, 1]
    assert apply(client, keys, 4, 3, 7) == [-1, 1]
    assert apply(client, keys, 3, 1, 7) == [1, 3]
    assert apply(client, keys, 2, 1, 7) == [0, 3]
    assert client.hget(total, HITS.key) == b"12"
    assert client.ttl(keys.sequence(keys.shard(HITS), b"c1")) > SEQUENCE_SECONDS - 5
    assert SHA.decode() == client.script_load(SCRIPT.decode())
    client.close()


def test_an_operation_that_fails_costs_only_itself(path: str) -> None:
    """A key of the wrong type loses its own point, named in the log; its neighbours are written."""

    async def test(store: Store) -> None:
        other = neighbour(store.keys)
        key = store.keys.chunked(b"c", HITS, store.keys.chunk(NOW))
        await store.client.set(key, "not a hash")
        await store.write(CounterPoint(HITS, 1), CounterPoint(other, 2))
        assert store.writer.outbox.operation_errors == 1
        assert store.writer.outbox.lost["store_refused"] == 1
        assert await store.reader.totals([other]) == [2]

    on(path, "wrongtype", test)


def test_batches_of_an_absent_store_are_kept_and_then_written_once(tmp_path: Path) -> None:
    """Points of an outage wait in memory and are there afterwards, none twice."""

    async def run() -> None:
        directory = tmp_path / "late"
        directory.mkdir()
        client = connect(f"unix://{directory}/server.sock")
        store = Store(client, "m")
        task = asyncio.create_task(store.writer.sender.run(client))
        for _ in range(5):
            store.writer.write(WINDOW, [CounterPoint(HITS, 1)], NOW)
            await store.writer.commit()
        assert not await store.writer.sender.wait_idle(0.3)
        assert not store.writer.sender.up
        assert "server.sock" in store.writer.sender.last_error
        assert store.writer.outbox.pending_batches == 5
        with pytest.raises(StoreError):
            await store.reader.totals([HITS])
        with server(directory):
            assert await store.writer.sender.wait_idle(20)
            assert await store.reader.totals([HITS]) == [5]
            assert (store.writer.outbox.pending_batches, store.writer.outbox.pending_bytes) == (0, 0)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            await client.aclose()

    uvloop.run(run())


def test_a_full_backlog_drops_the_oldest_and_counts_them(tmp_path: Path) -> None:
    """Beyond the limit the newest batches survive; the lost points are counted, the rest arrive."""

    async def run() -> None:
        directory = tmp_path / "full"
        directory.mkdir()
        client = connect(f"unix://{directory}/server.sock")
        store = Store(client, "m", max_bytes=4000)
        task = asyncio.create_task(store.writer.sender.run(client))
        for n in range(100):
            store.writer.write(WINDOW, [CounterPoint(HITS, 1)], NOW)
            await store.writer.commit()
            assert store.writer.outbox.pending_bytes <= 4000, n
        lost = store.writer.outbox.lost["backlog_full"]
        assert 0 < lost < 100
        with server(directory):
            assert await store.writer.sender.wait_idle(20)
            assert await store.reader.totals([HITS]) == [100 - lost]
            assert store.writer.outbox.lost == {"backlog_full": lost}
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            await client.aclose()

    uvloop.run(run())


def test_a_server_that_lost_its_memory_is_given_what_is_still_held(tmp_path: Path) -> None:
    """After a crash that forgot acknowledged writes, the kept batches are written again: once each."""

    async def run() -> None:
        with server(tmp_path):
            client = connect(f"unix://{tmp_path}/server.sock")
            store = Store(client, "m")
            task = asyncio.create_task(store.writer.sender.run(client))
            await store.write(CounterPoint(HITS, 3))
        with server(tmp_path):  # nothing was saved: the server starts empty
            await store.write(CounterPoint(HITS, 4))
            assert await store.reader.totals([HITS]) == [7]
            assert not store.writer.outbox.lost
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            await client.aclose()

    uvloop.run(run())


def test_two_collectors_add_up(path: str) -> None:
    """Counters, moves and sketches of two collectors on one store are summed, not overwritten."""

    async def test(store: Store) -> None:
        async with opened(path, "two") as other:
            at = int(NOW * 1000)
            for one in (store, other):
                await one.write(
                    CounterPoint(HITS, 2),
                    GaugePoint(LEVEL, None, 1.5, at),
                    TimerPoint(LATENCY, sketch_of(1).encode(), array("d", [1])),
                )
        assert await store.reader.totals([HITS]) == [4]
        assert await store.reader.gauges([LEVEL], NOW) == [(NOW, 3)]
        ((_, merged),) = (await store.reader.sketches([LATENCY], NOW, NOW + 10))[0]
        assert merged == sketch_of(1, 1)

    on(path, "two", test)


# ---------------------------------------------------------------------- addresses and errors


def test_a_store_of_another_version_is_refused_by_name(path: str) -> None:
    """Data of another schema is not written into; the error names both versions and the remedy."""

    async def test(store: Store) -> None:
        await store.client.hset("schema:meta", mapping={"schema": "99"})
        store.writer.write(WINDOW, [CounterPoint(HITS, 1)], NOW)
        await store.writer.commit()
        assert not await store.writer.sender.wait_idle(0.5)
        assert "schema 99" in store.writer.sender.last_error
        assert "redis.prefix" in store.writer.sender.last_error

    async def run() -> None:
        client = connect(f"unix://{path}")
        await client.hset("schema:meta", mapping={"schema": "99"})
        await client.aclose()
        async with opened(path, "schema") as store:
            await test(store)

    uvloop.run(run())


@pytest.mark.parametrize(
    ("user", "password", "remedy"),
    [
        ("app", "wrong", "check the user"),
        ("poor", "secret", "docs/store.md"),
    ],
)
def test_wrong_rights_are_told_with_their_remedy(
    tmp_path: Path, user: str, password: str, remedy: str
) -> None:
    """A refused password and a missing right keep the batch and say what to do."""

    async def run(path: str) -> None:
        client = connect(f"unix://{user}:{password}@{path}")
        store = Store(client, "m")
        task = asyncio.create_task(store.writer.sender.run(client))
        store.writer.write(WINDOW, [CounterPoint(HITS, 1)], NOW)
        await store.writer.commit()
        assert not await store.writer.sender.wait_idle(0.5)
        assert remedy in store.writer.sender.last_error
        assert store.writer.outbox.pending_batches == 1
        assert not store.writer.outbox.lost
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await client.aclose()

    with server(tmp_path) as path:
        admin = redis.Redis(unix_socket_path=path)
        admin.execute_command("ACL", "SETUSER", "app", "on", ">right", "~*", "+@all")  # type: ignore[no-untyped-call]
        admin.execute_command("ACL", "SETUSER", "poor", "on", ">secret", "~*", "+ping")  # type: ignore[no-untyped-call]
        admin.close()
        uvloop.run(run(path))


def test_user_password_and_database_of_the_address_are_used(tmp_path: Path) -> None:
    """redis://user:password@host:port/db writes as that user into that database."""

    async def run(port: int) -> None:
        client = connect(f"redis://app:secret@127.0.0.1:{port}/3")
        store = Store(client, "m")
        task = asyncio.create_task(store.writer.sender.run(client))
        await store.write(CounterPoint(HITS, 1))
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await client.aclose()

    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port = sock.getsockname()[1]
    with server(tmp_path, "--port", str(port)) as path:
        admin = redis.Redis(unix_socket_path=path)
        admin.execute_command("ACL", "SETUSER", "app", "on", ">secret", "~*", "+@all")  # type: ignore[no-untyped-call]
        uvloop.run(run(port))
        assert admin.dbsize() == 0
        admin.select(3)
        assert admin.dbsize() > 0
        admin.close()


def test_addresses_are_shown_without_their_password() -> None:
    """Logs and status name the server and the user, never the secret."""
    assert without_password("redis://u:secret@h:1/2") == "redis://u:***@h:1/2"
    assert without_password("rediss://:secret@h") == "rediss://:***@h"
    assert without_password("unix:///a/b.sock") == "unix:///a/b.sock"


def test_an_address_that_cannot_be_read_is_an_operators_error() -> None:
    """The error names the key and does not show the password."""
    with pytest.raises(OperatorError, match=r"redis\.url") as caught:
        connect("http://u:secret@h")
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (1, b"1"),
        (1.0, b"1"),
        (-3.0, b"-3"),
        (2.5, b"2.5"),
        (0.1, b"0.1"),
        (2**63 - 1, b"9223372036854775807"),
        (1e300, b"1e+300"),
    ],
)
def test_numbers_are_written_as_short_as_they_are(value: float, text: bytes) -> None:
    """Whole numbers go without a point, so that HINCRBY takes them and a point costs few bytes."""
    assert number_text(value) == text


# ---------------------------------------------------------------------- the documentation

DOCS = Path(__file__).resolve().parent.parent / "docs" / "store.md"
ALL_KINDS: list[Point] = [
    CounterPoint(HITS, 1),
    GaugePoint(LEVEL, 1, 0, int(NOW * 1000)),
    TimerPoint(LATENCY, sketch_of(1).encode(), array("d", [1])),
    SetPoint(USERS, [b"a"]),
]


async def roll_up_everything(store: Store) -> None:
    """Rolls up what was written, lets a late sample mark it dirty, and stops with the lease held."""
    compactor = Compactor(store.client, store.keys, Retention(RetentionSettings(), RESOLUTION))
    shard = store.keys.shard(HITS)
    await MemoryGuard(store.writer).look(store.client, compactor)
    await compactor.open(NOW)
    assert await compactor.roll_up(shard, NOW + 7300)
    await store.write(CounterPoint(HITS, 1), window=Window(WINDOW.start - 10, WINDOW.start))
    lease = Lease(store.client, store.keys, shard)
    assert await lease.take()
    assert (await store.reader.increments([HITS], NOW - 7200, NOW + 60, 60))[0]


async def use_everything(store: Store) -> None:
    """Writes every kind and asks every question."""
    store.writer.write_entries(WINDOW, [Event("e", ""), Check("c", 0)])
    await store.write(*ALL_KINDS)
    reader, minute = store.reader, int(NOW) // 60 * 60
    assert len(await reader.find(lambda series: True, NOW)) == 4
    assert await reader.totals([HITS]) == [1]
    assert (await reader.gauges([LEVEL], NOW))[0] is not None
    assert (await reader.increments([HITS], NOW, NOW + 1))[0]
    assert (await reader.gauge_points([LEVEL], NOW, NOW + 1))[0]
    assert (await reader.sketches([LATENCY], NOW, NOW + 1))[0]
    assert await reader.samples(LATENCY, 5)
    assert (await reader.uniques([USERS], minute, minute + 60))[0]
    assert await reader.unique([USERS, Series(Kind.SET, "others")], minute, minute + 60) == 1
    assert await reader.events(1)
    assert await reader.checks(1)
    await roll_up_everything(store)


def test_the_listed_rights_are_enough(tmp_path: Path) -> None:
    """A user with just the commands and keys of `rights.rules`, which are those of docs/store.md, can do all
    that the collector does."""

    async def run(path: str) -> None:
        async with opened(path, "m", user="app:secret@") as store:
            await use_everything(store)

    with server(tmp_path) as path:
        admin = redis.Redis(unix_socket_path=path)
        admin.execute_command("ACL", "SETUSER", "app", "on", ">secret", "-@all", *rules("m"))  # type: ignore[no-untyped-call]
        admin.close()
        uvloop.run(run(path))


def test_every_key_is_in_the_documentation(path: str) -> None:
    """The keys that are found after a use of everything are those of the table, with their types."""
    rows = re.findall(r"^\| (`.*?) \| (\w+) \|", DOCS.read_text(), re.MULTILINE)
    documented = {
        (re.sub(r"<\w+>", "*", key).replace("{t}", "{doc*}").replace("m:meta", "doc:meta"), kind)
        for keys, kind in rows
        for key in re.findall(r"`([^`]*)`", keys)
    }

    async def test(store: Store) -> None:
        await use_everything(store)
        found = set()
        for key in await store.client.keys("*doc*"):
            name = key.decode()
            pattern = next((one for one in documented if fnmatch.fnmatchcase(name, one[0])), None)
            assert pattern, name
            assert (await store.client.type(key)).decode() == pattern[1], name
            found.add(pattern)
        assert found == documented

    on(path, "doc", test)
