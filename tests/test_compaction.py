"""Roll-ups, late samples and the reads over them, against a real server whose time is made."""

from __future__ import annotations

import asyncio
import random
import time
from array import array
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, cast

import pytest
from harness import server
from redis.asyncio import Redis
from rollup_rig import START, Rig, on, point, read

from collector.model import CounterPoint, GaugePoint, Kind, Series, TimerPoint
from collector.retention import SLOTS, Ladder, RetentionSettings
from collector.rules import Glob, SeriesRule
from collector.sketch import Sketch
from collector.store.compaction import Compactor, LeaseLostError
from collector.store.compaction.edges import edges
from collector.store.compaction.lease import Lease
from collector.store.compaction.turn import GRACE, PATIENCE
from collector.store.keys import LETTERS, KeySpace
from collector.store.memory import MemoryGuard
from collector.store.topology import Single

SERIES = [Series(kind, "one", tags) for kind in Kind for tags in ((), ("a:b",))]


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with server(tmp_path_factory.mktemp("compaction")) as found:
        yield found


async def agree(rig: Rig, series: Series, spans: dict[int, int]) -> None:
    """Every read of a series by a step gives the truth, as far back as that step is kept: {step: seconds}."""
    end = int(rig.now) + 10
    for step, back in spans.items():
        start = max(START - 86400, (int(rig.now) - back) // step * step)
        assert await read(rig, series, start, end, step) == rig.truth.expected(series, start, end, step), (
            series,
            step,
            rig.now - START,
        )


@pytest.mark.parametrize("seed", range(3))
def test_reads_over_all_resolutions_equal_the_truth(path: str, seed: int) -> None:
    """Random data of all kinds, much of it late, over hours in which chunks are rolled up and expire: each
    read by each step gives what a simple model of all that was written gives."""

    async def test(rig: Rig) -> None:
        chance = random.Random(seed)
        await rig.compactor.open(rig.now)
        for _ in range(40):
            for _ in range(12):
                series = chance.choice(SERIES)
                latest = 600 if series.kind is Kind.GAUGE else chance.choice([600, 600, 3000, 9000])
                at = max(START, rig.now - chance.randrange(latest))
                await rig.write(at, point(series, at, chance))
            await rig.advance(chance.choice([300, 600, 900]))
            await rig.compact(SERIES)
            series = chance.choice(SERIES)
            finest = {60: 3000} if series.kind is Kind.SET else {10: 900, 60: 9000}
            await agree(rig, series, finest | {600: 10**6, 3600: 10**6})
        for series in SERIES:
            await agree(rig, series, {600: 10**6})
        assert rig.compactor.counts.again  # late samples did enter rolled-up chunks

    on(path, f"random{seed}", test)


# ---------------------------------------------------------------------- crashes, repeats, competitors


class Crash(Exception):
    """The collector is gone."""


class Dying(Single):
    """A store that is reached so many times and then no more; the last question is carried out or not."""

    def __init__(self, client: Redis, left: int, *, done: bool) -> None:
        super().__init__(client)
        self._left = left
        self._done = done

    async def ask(self, commands: Iterable[tuple[Any, ...]]) -> list[Any]:
        """Asks, or dies before or after it."""
        if self._left < 0 or (self._left == 0 and not self._done):
            raise Crash
        self._left -= 1
        replies = await super().ask(commands)
        if self._left < 0:
            raise Crash
        return replies


def shard_mates() -> list[Series]:
    """One series of each kind, all of them in one shard."""
    keys = KeySpace("m", 10)
    names = [f"mate{n}" for n in range(5000)]
    return [
        next(one for one in (Series(kind, name) for name in names) if keys.shard(one) == 0) for kind in Kind
    ]


MATES = shard_mates()


async def fill(rig: Rig) -> None:
    """Points of all kinds in one shard over forty minutes, and then an hour passes."""
    chance = random.Random(1)
    for kind, chain in rig.retention.chains.items():
        for edge in edges(kind, chain):
            key = rig.keys.shard_key(0, b"wm:%d" % edge.coarser)
            await rig.client.hset(key, edge.field, f"{START} {START}")
    for n in range(8):
        at = START + n * 300 + 20
        await rig.write(at, *(point(series, at, chance) for series in MATES))
    rig.now = START + 3 * 3600.0 + 60
    late = START + 7 * 300 + 100
    await rig.client.hset(rig.keys.shard_key(0, b"wm:60"), "c:10", f"{START + 3600} {START}")
    await rig.write(late, point(MATES[0], late, chance))  # while its chunk is being rolled up


@pytest.mark.parametrize("done", [True, False])
def test_a_crash_at_any_step_changes_nothing(path: str, done: bool) -> None:
    """A collector that dies after any command, its reply lost or the command unsent, and one that takes over:
    all data is that of an undisturbed roll-up, and doing all of it again does not change it either."""

    async def test(rig: Rig) -> None:
        steps = 0
        while True:
            rig.prefix = f"crash{done}{steps}"
            rig.truth = type(rig.truth)()
            await rig.restart()
            rig.now = START
            await fill(rig)
            dying = Dying(rig.client, steps, done=done)
            compactor = Compactor(dying, rig.keys, rig.retention)
            try:
                await compactor.roll_up(0, rig.now)
            except Crash:
                finished = False
            else:
                finished = True
            await rig.client.delete(rig.keys.shard_key(0, b"lease"))
            await rig.compact(MATES)
            for series in MATES:
                await agree(rig, series, {60: 10**5, 600: 10**5})
            before = await rig.dump()
            for one in (60, 600):
                key = rig.keys.shard_key(0, b"wm:%d" % one)
                fields = await rig.client.hkeys(key)
                await rig.client.hset(key, mapping=dict.fromkeys(fields, f"{START} {START}"))
            await rig.compact(MATES)
            after = await rig.dump()
            assert before == {key: after[key] for key in before}
            await rig.client.unlink(*await rig.client.keys("{" + rig.prefix + "*"))
            if finished:
                break
            steps += 1 if steps < 16 else 5  # each kind goes through the same steps
        assert steps > 25

    on(path, "crash", test)


def test_collectors_that_compete_roll_up_once(path: str) -> None:
    """Of several collectors at one shard one holds the lease; the others do nothing, the data is right."""

    async def test(rig: Rig) -> None:
        await fill(rig)
        others = [Compactor(rig.client, rig.keys, rig.retention) for _ in range(5)]
        took = await asyncio.gather(*(one.roll_up(0, rig.now) for one in others))
        assert sum(took) == 1
        assert sum(one.counts.rolled for one in others) == max(one.counts.rolled for one in others) > 0
        for series in MATES:
            await agree(rig, series, {60: 10**5, 600: 10**5})
        rolled = sum(one.counts.rolled for one in others)
        assert all([await one.roll_up(0, rig.now) for one in others])
        assert sum(one.counts.rolled for one in others) == rolled

    on(path, "compete", test)


def test_a_lost_lease_is_noticed_and_its_holder_does_nothing_more(path: str) -> None:
    """Once another collector holds the lease, every step of the former holder is refused; the lease stays."""

    async def test(rig: Rig) -> None:
        await fill(rig)
        lease = Lease(rig.client, rig.keys, 0)
        assert await lease.take()
        assert not await Lease(rig.client, rig.keys, 0).take()
        key = rig.keys.shard_key(0, b"lease")
        await rig.client.set(key, "another")
        before = await rig.dump()
        steps: list[tuple[str, list[bytes], list[Any]]] = [
            ("mark", [rig.keys.shard_key(0, b"wm:60")], [b"c:10", START + 10**6, START + 10**6]),
            ("roll", [b"", rig.keys.base(b"c", MATES[0])], ["c", 10, 60, 0, START // 1200, 300, 300]),
            ("sweep", [rig.keys.shard_key(0, name) for name in (b"ix", b"total", b"last")], []),
            ("free", [], []),
        ]
        for step in steps:
            with pytest.raises(LeaseLostError):
                await lease.step(*step)
        assert await rig.dump() == before
        assert await rig.client.get(key) == b"another"

    on(path, "lost", test)


def test_a_chunk_that_changes_while_its_sketches_are_merged_is_refused_and_done_again(path: str) -> None:
    """Sketches are merged in the collector: if one enters meanwhile the step does nothing for that chunk."""

    async def test(rig: Rig) -> None:
        timer = MATES[2]
        await fill(rig)
        lease = Lease(rig.client, rig.keys, 0)
        assert await lease.take()
        base, chunk = rig.keys.base(b"d", timer), START // 1200
        had = await rig.client.hlen(b"%b:10:%d" % (base, chunk))
        stale = ["d", 10, 60, 0, chunk, 300, 300, had - 1, 1, 0, b"too little"]
        assert await lease.step("roll", [b"", base], cast("Any", stale)) == [0, 0]
        assert not await rig.client.exists(b"%b:60:%d" % (base, chunk * 10 // 60))

    on(path, "changed", test)


def test_many_collectors_and_damaged_sketches_roll_up_and_read_alike(
    path: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Five collectors in each slot of a chunk, more than are merged at once; what is no sketch costs itself
    only, in questions and in roll-ups, and is logged by its field.
    """

    async def test(rig: Rig) -> None:
        timer = MATES[2]
        await rig.compactor.open(rig.now)
        await rig.write(START + 5, TimerPoint(timer, Sketch().encode(), array("d")))
        key = b"%b:10:%d" % (rig.keys.base(b"d", timer), START // 1200)
        for slot in range(120):
            sketch = Sketch()
            sketch.add([slot + 1.0, -1.0])
            names = [b"%d:c%d.1" % (slot, n) for n in range(5)]
            await rig.client.hset(key, mapping=dict.fromkeys(names, sketch.encode()))
        await rig.client.hset(key, mapping={b"7:bad.1": b"\x01\x00", b"strange": b""})

        async def seen(step: int) -> list[tuple[int, float, float, float]]:
            (points,) = await rig.reader.sketches([timer], START, START + 1200, step)
            return [(at, one.count, one.sum, one.max) for at, one in points]

        fine, by_minute = await seen(10), await seen(60)
        assert fine == [(START + 10 * n, 10, 5.0 * n, n + 1) for n in range(120)]
        assert {(one.count, one.max) for one in await rig.reader.merged([timer], START, START + 1200)} == {
            (1200, 120)
        }
        assert "store.bad_sketch field=7:bad.1" in caplog.text
        assert "store.bad_sketch field=strange" in caplog.text
        rig.now = START + 1300.0
        await rig.compact([timer])
        assert await rig.client.exists(key.replace(b":10:%d" % (START // 1200), b":60:%d" % (START // 7200)))
        assert await seen(60) == by_minute
        assert [count for _, count, _, _ in by_minute] == [60.0] * 20
        assert "compaction.bad_sketch field=7:bad.1" in caplog.text

    on(path, "damaged", test)


def test_fields_of_another_program_cost_themselves_only(path: str, caplog: pytest.LogCaptureFixture) -> None:
    """Questions log them, roll-ups leave them out, late samples find their place beside them."""

    async def test(rig: Rig) -> None:
        counter, gauge, timer = MATES[:3]
        await rig.compactor.open(rig.now)
        for slot in range(120):
            at = START + 10 * slot
            await rig.write(
                at,
                CounterPoint(counter, slot),
                GaugePoint(gauge, slot, 0, at * 1000),
                TimerPoint(timer, Sketch().encode(), array("d")),
            )
        foreign = {"x": 1, "7.5": 1, "-1": 1, "120": 1, "8": "y", "9": ""}
        for letter, series in ((b"c", counter), (b"g", gauge), (b"d", timer)):
            key = b"%b:10:%d" % (rig.keys.base(letter, series), START // 1200)
            await rig.client.hset(key, mapping=foreign)

        expected = [(START + 10 * slot, slot) for slot in range(120) if slot not in (8, 9)]
        assert await read(rig, counter, START, START + 1200, 10) == expected
        assert await read(rig, gauge, START, START + 1200, 10) == expected
        for text in ('field=x error="no slot"', "field=7.5", "field=-1", "field=120", "field=8", "field=9"):
            assert f"store.bad_number {text}" in caplog.text

        rig.now = START + 1300.0
        await rig.compact(MATES[:3])
        for series, value in ((counter, 6 + 7 + 10 + 11), (gauge, 11)):
            minutes = await read(rig, series, START, START + 1200, 60)
            assert len(minutes) == 20
            assert minutes[1] == (START + 60, value)
        await rig.write(
            START + 5, CounterPoint(counter, 1000), TimerPoint(timer, Sketch().encode(), array("d"))
        )
        assert rig.writer.outbox.operation_errors == 0
        await rig.compact(MATES[:3])
        assert (await read(rig, counter, START, START + 60, 60))[0] == (START, 15 + 1000)

    on(path, "foreign", test)


def test_every_shard_has_its_turn_even_when_the_clock_runs_ahead(path: str) -> None:
    """The daemon's task goes through all shards, in a time in which none of them can be punctual."""

    async def test(rig: Rig) -> None:
        series = [Series(Kind.COUNTER, f"n{n}") for n in range(400)]
        await rig.compactor.open(rig.now)
        await rig.write(START + 5, *(CounterPoint(one, 1) for one in series))
        begun = time.monotonic()
        task = asyncio.create_task(
            rig.compactor.run(lambda: START + 1300 + (time.monotonic() - begun) * 1000)
        )
        while rig.compactor.counts.rolled < len(series):
            assert time.monotonic() < begun + 20, rig.compactor.counts
            await asyncio.sleep(0.05)
        while not task.done():
            task.cancel()
            await asyncio.wait([task], timeout=0.1)
        rig.now = START + 1300.0
        for one in series[::50]:
            await agree(rig, one, {60: 10**4})

    on(path, "turns", test)


# ---------------------------------------------------------------------- late samples


@pytest.mark.parametrize("series", MATES, ids=lambda one: one.kind.name)
def test_late_samples_end_up_where_their_slot_has_data(path: str, series: Series) -> None:
    """Before its chunk is rolled up, after that, and after the chunk is gone, each once: every read by a
    coarse step has all of them, and a chunk that is gone is not opened again."""

    async def test(rig: Rig) -> None:
        chance = random.Random(2)
        finest = 60 if series.kind is Kind.SET else 10
        key = rig.keys.base(LETTERS[series.kind], series) + b":%d:" % finest
        await rig.compactor.open(rig.now)

        async def one(at: float) -> None:
            await rig.write(at, point(series, at, chance))

        await one(START + 100)
        rig.now = START + 1300
        await one(START + 130)  # late, before the roll-up
        rig.now = START + 3700
        await rig.compact([series])
        await agree(rig, series, {60: 10**5, 600: 10**5})
        await one(START + 160)  # after it: its chunk is dirty now
        assert await rig.client.scard(rig.keys.shard_key(0, b"dirty")) == 1
        await rig.compact([series])
        assert not await rig.client.exists(rig.keys.shard_key(0, b"dirty"))
        await agree(rig, series, {60: 10**5, 600: 10**5})
        await rig.advance(2 * 3600)
        assert not [one for one in await rig.client.keys("{late*") if one.startswith(key)]
        if series.kind is not Kind.GAUGE:  # of which the later value of a slot stays
            await one(START + 100)
        await rig.compact([series])
        assert not [one for one in await rig.client.keys("{late*") if one.startswith(key)]
        await agree(rig, series, {600: 10**5})

    on(path, f"late{series.kind.name}", test)


def test_a_new_series_with_old_timestamps_is_there_at_the_finest_resolution(path: str) -> None:
    """What nothing was rolled up from may be written late: a replay of the last quarter of an hour."""

    async def test(rig: Rig) -> None:
        await rig.compactor.open(rig.now)
        rig.now = START + 3600
        await rig.compact(MATES)
        for n in range(90):
            await rig.write(START + 2400 + n * 10, CounterPoint(MATES[0], n + 1))
        await agree(rig, MATES[0], {10: 1200})
        await rig.compact(MATES)
        await agree(rig, MATES[0], {10: 1200, 60: 10**4, 600: 10**4})

    on(path, "replay", test)


# ---------------------------------------------------------------------- lives


def test_chunks_wait_for_their_roll_up_and_then_live_as_long_as_their_rung(path: str) -> None:
    """At least 7 days until it was rolled up; then from the chunk's end as long as the ladder says, five
    minutes at the least; the coarsest from the start."""

    async def test(rig: Rig) -> None:
        series = MATES[0]
        await rig.compactor.open(rig.now)
        await rig.write(START + 5, CounterPoint(series, 1))
        base = rig.keys.base(b"c", series)
        fine, minutes, coarse = (b"%b:%d:%d" % (base, res, START // (res * 120)) for res in (10, 60, 600))
        assert await rig.client.ttl(fine) > 7 * 86400
        rig.now = START + 1300
        await rig.compact([series])
        assert await rig.client.ttl(fine) == pytest.approx(1200 - 100, abs=5)
        assert await rig.client.ttl(minutes) > 7 * 86400
        rig.now = START + 7200 + 100
        await rig.compact([series])
        assert await rig.client.ttl(minutes) == pytest.approx(3 * 3600 - 100, abs=5)
        end = (START // 72000 + 1) * 72000
        assert await rig.client.ttl(coarse) == pytest.approx(end + 30 * 86400 - rig.now, abs=5)

    on(path, "lives", test)


def test_after_90_days_there_is_what_the_default_ladders_keep_and_no_more(path: str) -> None:
    """Of a timer and a set with something in each chunk: those chunks are left, and all hours that are kept
    equal what was written.
    """

    async def test(rig: Rig) -> None:
        chance = random.Random(90)
        timer, members = Series(Kind.TIMER, "days"), Series(Kind.SET, "days")
        times = range(START, START + 90 * 86400, 1200)
        await rig.compactor.open(rig.now)
        for first in range(0, len(times), 18):
            for at in times[first : first + 18]:
                rig.put(at, point(timer, at, chance), point(members, at, chance))
            await rig.flush()
            await rig.advance(18 * 1200)
            await rig.compact([timer, members])
        await rig.advance(GRACE + 1)
        await rig.compact([timer, members])
        await rig.advance(PATIENCE + 1)

        for series in (timer, members):
            ladder, width = rig.retention.ladder(series), 1 if series.kind is Kind.SET else SLOTS
            chain = [rung.resolution for rung in ladder.rungs]
            spans = {edge.finer: edge.span for edge in edges(series.kind, tuple(chain))}  # rolled up at once
            await agree(rig, series, {3600: ladder.longest})
            left = set()
            for rung in ladder.rungs:
                own = rung.resolution * width
                span = spans.get(rung.resolution, own)
                left |= {
                    (rung.resolution, at // own)
                    for at in times
                    if at // span * span + span + rung.life > rig.now
                }
            keys = await rig.client.keys(rig.keys.base(LETTERS[series.kind], series) + b":*")
            assert {tuple(map(int, key.split(b":")[-2:])) for key in keys} == left

    on(path, "days", test, settings=RetentionSettings())


def test_a_series_that_is_not_seen_for_longer_than_its_ladder_is_swept(path: str) -> None:
    """Once a day registry, totals, last values and samples lose it; one that was seen since stays."""

    async def test(rig: Rig) -> None:
        chance = random.Random(3)
        live = Series(Kind.COUNTER, "live")
        for series in [*MATES, live]:
            await rig.write(START, point(series, START, chance))
        await rig.compact([*MATES, live])
        rig.now = START + 29 * 86400.0
        await rig.write(rig.now, CounterPoint(live, 1))
        await rig.compact([*MATES, live])
        assert len(await rig.reader.find(lambda one: True, rig.now)) == 5
        rig.now = START + 30 * 86400.0 + 3600
        await rig.compact([*MATES, live])
        assert rig.compactor.counts.swept == 4
        rig.reader.forget_watermarks()
        for name in (b"ix", b"total", b"last"):
            assert not await rig.client.exists(rig.keys.shard_key(0, name)), name
        assert not await rig.client.exists(rig.keys.base(b"t", MATES[2]))
        assert await rig.reader.totals([live, MATES[0]]) == [rig.truth.numbers[live][START] + 1, 0]

    on(path, "sweep", test)


def test_retention_changed_by_rules_needs_no_data_rewritten(path: str) -> None:
    """Lives change, a rung is put between, one is taken away, by a restart with other rules each: what is
    kept reads as it was written, over all of it."""
    longer = SeriesRule(
        match=Glob.parse("mate*"), retain=Ladder.parse({"10s": "2h", "1m": "1d", "10m": "60d"})
    )
    between = SeriesRule(
        match=Glob.parse("mate*"), retain=Ladder.parse({"10s": "20m", "5m": "1d", "10m": "30d"})
    )
    fewer = SeriesRule(match=Glob.parse("mate*"), retain=Ladder.parse({"10s": "20m", "1m": "1d"}))

    async def test(rig: Rig) -> None:
        chance = random.Random(4)
        await rig.compactor.open(rig.now)
        mates = [one for one in MATES if one.kind is not Kind.SET]
        for rules in ((), (longer,), (between,), (), (fewer,), ()):
            await rig.restart(rules=rules)
            await rig.compactor.open(rig.now)
            for _ in range(10):
                for series in mates:
                    at = rig.now - chance.randrange(500)
                    await rig.write(max(at, START), point(series, at, chance))
                await rig.advance(600)
                await rig.compact(mates)
            for series in mates:
                await agree(rig, series, {10: 900, 60: 1200, 600: 12 * 3600})

    on(path, "changed_rules", test)


def test_windows_merge_over_resolutions(path: str) -> None:
    """Distinct members and sketches of any window, over one series or several: minutes at its edges, coarse
    slots in its middle, and coarse ones at an edge whose minutes are gone."""

    async def test(rig: Rig) -> None:
        chance = random.Random(5)
        await rig.compactor.open(rig.now)
        sets, timers = [one for one in SERIES if one.kind is Kind.SET], [MATES[2]]
        for _ in range(30):
            for series in [*sets, *timers]:
                await rig.write(rig.now, point(series, rig.now, chance))
            await rig.advance(240)
            await rig.compact([*sets, *timers])
        for _ in range(20):
            start = START + chance.randrange(60) * 60
            coarse = start // 600 * 600  # its minutes are gone by now
            end = int(rig.now) // 60 * 60 - chance.randrange(10) * 60
            for some in (sets[:1], sets):
                members = set[bytes]()
                for one in some:
                    found = rig.truth.members[one].items()
                    members.update(*(who for at, who in found if coarse <= at < end))
                assert await rig.reader.unique(some, start, end) == len(members)
            whole = Sketch()
            for at, values in rig.truth.values[timers[0]].items():
                if coarse <= at < end:
                    whole.add(values)
            assert await rig.reader.merged(timers, coarse, end) == [whole]

    on(path, "windows", test)


# ---------------------------------------------------------------------- what the server is asked


def test_nothing_looks_for_keys(path: str) -> None:
    """Which chunks there may be is known from the registry: no KEYS and no SCAN is ever sent."""

    async def test(rig: Rig) -> None:
        await fill(rig)
        await rig.client.config_resetstat()
        await rig.compact(MATES)
        await rig.reader.find(lambda one: True, rig.now)
        used = await rig.client.info("commandstats")
        assert not {"cmdstat_keys", "cmdstat_scan"} & set(used)
        assert used["cmdstat_hscan"]["calls"] >= 1

    on(path, "asked", test)


def test_a_key_of_another_type_costs_its_own_series_only(path: str) -> None:
    """What another program has put in the place of a chunk stops no roll-up of its neighbours."""

    async def test(rig: Rig) -> None:
        await fill(rig)
        twin = next(
            one for one in (Series(Kind.COUNTER, f"twin{n}") for n in range(5000)) if rig.keys.shard(one) == 0
        )
        await rig.write(START + 20, CounterPoint(twin, 1))
        await rig.client.set(rig.keys.base(b"c", twin) + b":60:%d" % (START // 7200), "taken")
        await rig.compact(MATES)
        await agree(rig, MATES[0], {60: 10**5, 600: 10**5})

    on(path, "taken", test)


# ---------------------------------------------------------------------- a store that is nearly full


def test_a_nearly_full_store_is_spared_samples_and_minute_sketches_only(tmp_path: Path) -> None:
    """At 80 % of maxmemory they stop and are counted; counters, gauges, sets and the finest sketches go on.
    With room again all of it goes on."""

    async def test(rig: Rig) -> None:
        guard = MemoryGuard(rig.writer)
        await rig.compactor.open(rig.now)
        await rig.client.set("ballast", b"." * 2**24)
        used = (await rig.client.info("memory"))["used_memory"]
        await rig.client.config_set("maxmemory", int(used / 0.85))
        await guard.look(rig.client, rig.compactor)
        assert rig.writer.shedding
        assert 0.8 <= guard.ratio < 1
        await fill(rig)
        samples = sum(len(values) for values in rig.truth.values[MATES[2]].values())
        assert rig.writer.outbox.lost == {"shed_samples": samples}
        await rig.client.config_set("maxmemory", 0)
        await rig.compact(MATES)
        assert rig.compactor.lost == {"shed_sketches": 8}
        for series in (MATES[0], MATES[1], MATES[3]):
            await agree(rig, series, {60: 10**5, 600: 10**5})
        assert await rig.reader.samples(MATES[2], 5) == []
        assert await read(rig, MATES[2], START, START + 3600, 60) == []
        assert len(await read(rig, MATES[2], START, START + 3600, None)) == 8
        await guard.look(rig.client, rig.compactor)
        assert not guard.shedding
        await rig.write(rig.now, point(MATES[2], rig.now, random.Random(6)))
        assert await rig.reader.samples(MATES[2], 5)

    with server(tmp_path) as own:
        on(own, "full", test)
