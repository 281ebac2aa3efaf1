"""What waits for the store, in memory and on disk: nothing lost, nothing doubled, what is lost is counted."""

from __future__ import annotations

import asyncio
import os
import re
import resource
import shutil
import signal
import socket
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import uvloop
from faulty import Proxy
from harness import CONFIG, DaemonProcess, running, server, wait_for

from collector.config import load
from collector.errors import OperatorError
from collector.model import CounterPoint, Kind, Point, Series, SetPoint, Window
from collector.store import outbox as outboxes
from collector.store.backlog import Backlog
from collector.store.client import connect
from collector.store.encode import Batch
from collector.store.keys import SET_SECONDS, KeySpace
from collector.store.outbox import Outbox
from collector.store.reader import Reader
from collector.store.settings import BacklogSettings, Durability, SpoolMode
from collector.store.spool import Spool
from collector.store.writer import Writer

RESOLUTION = 10
START = int(time.time()) // 600 * 600 - 600
MIB = 2**20
ON_OUTAGE, ALWAYS, OFF = SpoolMode.ON_OUTAGE, SpoolMode.ALWAYS, SpoolMode.OFF


def window(n: int) -> Window:
    """The nth window of ten seconds."""
    return Window(START + n * RESOLUTION, START + (n + 1) * RESOLUTION)


def counters(number: int) -> list[Series]:
    """So many series."""
    return [Series(Kind.COUNTER, f"backlog.counter{n:05d}", ("route:/pay",)) for n in range(number)]


class Collector:
    """Writer, backlog and sender of one start of a collector."""

    def __init__(self, path: Path | str, directory: Path, settings: BacklogSettings, **options: Any) -> None:
        self.client = connect(f"unix://{path}")
        self.keys = KeySpace("m", RESOLUTION)
        self.writer = Writer(self.keys, max_bytes=settings.max_bytes, samples=200, refresh=3600, **options)
        self.outbox = self.writer.outbox
        self.sender = self.writer.sender
        self.backlog = Backlog(settings, directory, self.outbox, self.sender)
        self.reader = Reader(self.client, self.keys, idle_expiry=3600, refresh=60)
        self.tasks: list[asyncio.Task[None]] = []

    async def write(self, *points: Point, n: int = 0) -> None:
        """One flush."""
        self.writer.write(window(n), points, START)
        await self.writer.commit()
        await self.backlog.commit()

    async def confirmed(self, seconds: float = 30) -> None:
        """Waits until the store has all."""
        assert await self.sender.wait_idle(seconds), (self.sender.last_error, self.outbox.pending_batches)

    async def total(self, series: list[Series]) -> float:
        """The sum of what the store has of them."""
        return sum(await self.reader.totals(series))

    async def sets(self, numbers: range) -> int:
        """How many of the sets `set<n>`, each written in window n, the store has."""
        keys = (
            self.keys.members(Series(Kind.SET, f"set{n}"), window(n).start // SET_SECONDS) for n in numbers
        )
        found: int = await self.client.exists(*keys)
        return found

    async def die(self) -> None:
        """Ends as a `kill -9` would: nothing more is written, the lock is free."""
        for task in self.tasks:
            task.cancel()
        await asyncio.gather(*self.tasks, return_exceptions=True)
        # On its thread, which may be in the middle of a call.
        await asyncio.get_running_loop().run_in_executor(self.backlog._thread, self.backlog.spool.close)
        self.outbox.own.clear()
        self.outbox.shards = []
        self.outbox.lost.clear()


@asynccontextmanager
async def started(
    path: Path | str,
    directory: Path,
    spool: SpoolMode = ON_OUTAGE,
    *,
    durability: Durability | None = None,
    **options: Any,
) -> AsyncIterator[Collector]:
    """A collector from start to stop."""
    settings = BacklogSettings(spool=spool, **options)
    one = Collector(path, directory, settings, **({"durability": durability} if durability else {}))
    try:
        async with one.backlog.opened():
            one.tasks = [
                asyncio.create_task(one.sender.run(one.client)),
                asyncio.create_task(one.backlog.run()),
            ]
            try:
                yield one
            finally:
                for task in one.tasks:
                    task.cancel()
                await asyncio.gather(*one.tasks, return_exceptions=True)
    finally:
        await one.client.aclose()


async def until(condition: Callable[[], Any], what: str, seconds: float = 20) -> None:
    """Waits for a condition."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"waited for {what}"
        await asyncio.sleep(0.01)


# ---------------------------------------------------------------------- outages


@pytest.mark.parametrize("spool", list(SpoolMode))
def test_ten_minutes_without_a_store_lose_nothing_that_there_is_room_for(
    tmp_path: Path, spool: SpoolMode
) -> None:
    """Sixty windows wait, all but a little of them on disk where there is one; then each is there once."""
    series = counters(800)

    async def run() -> None:
        socket_path = tmp_path / "server.sock"
        async with started(socket_path, tmp_path / "state", spool, memory=MIB) as one:
            for n in range(60):
                await one.write(*(CounterPoint(each, 1) for each in series), n=n)
                held = one.outbox.ready.bytes + one.outbox.fresh.bytes
                assert spool is OFF or held <= 2 * MIB
            assert (one.outbox.stored.bytes > MIB // 5) is (spool is not OFF)
            with server(tmp_path):
                await one.confirmed()
                assert await one.total(series) == 60 * len(series)
                increments = await one.reader.increments(series[:1], START, START + 600)
                assert increments == [[(START + n * RESOLUTION, 1) for n in range(60)]]
                assert not one.outbox.lost
                assert (one.outbox.pending_batches, one.outbox.pending_bytes) == (0, 0)

    uvloop.run(run())


@pytest.mark.parametrize("spool", list(SpoolMode))
def test_beyond_the_limit_the_oldest_are_dropped_and_counted(tmp_path: Path, spool: SpoolMode) -> None:
    """What is missing in the store afterwards is exactly what was counted, and it is the oldest."""
    series = counters(800)

    async def run() -> None:
        path = tmp_path / "server.sock"
        # Compressed on disk a tenth: with a spool the same limit holds more.
        limit = (3 if spool is OFF else 1) * MIB // 2
        async with started(path, tmp_path / "state", spool, memory=MIB // 5, max_bytes=limit) as one:
            for n in range(60):
                await one.write(*(CounterPoint(each, 1) for each in series), n=n)
                assert one.outbox.pending_bytes <= limit
            lost = one.outbox.lost["backlog_full"]
            assert 0 < lost < 60 * len(series)
            with server(tmp_path):
                await one.confirmed()
                assert await one.total(series) == 60 * len(series) - lost
                points = await one.reader.increments(series, START, START + 600)
                newest = [slots[-1][0] for slots in points if slots]
                assert len(newest) == len(series)
                assert set(newest) == {START + 590}
                assert one.outbox.lost == {"backlog_full": lost}

    uvloop.run(run())


def test_what_has_waited_for_too_long_is_dropped_and_counted(tmp_path: Path) -> None:
    """In memory and on disk; the younger batches arrive."""
    series = counters(300)

    async def run() -> None:
        async with started(tmp_path / "server.sock", tmp_path / "state", memory=1, max_age=1.0) as one:
            for n in range(4):
                await one.write(*(CounterPoint(each, 1) for each in series), n=n)
            assert one.outbox.stored.batches
            await asyncio.sleep(1.1)
            await one.write(*(CounterPoint(each, 1) for each in series), n=5)
            one.backlog._look_at = 0.0  # the next look at the age is up to ten seconds away
            await one.backlog.commit()
            assert one.outbox.lost == {"backlog_expired": 4 * len(series)}
            with server(tmp_path):
                await one.confirmed()
                assert await one.total(series) == len(series)

    uvloop.run(run())


def test_a_large_backlog_is_read_back_bit_by_bit(tmp_path: Path) -> None:
    """Memory holds a few megabytes of it at any time, however much there is."""
    members = [b"%032d" % n for n in range(6000)]

    async def run() -> None:
        async with started(tmp_path / "server.sock", tmp_path / "state", memory=MIB, max_bytes=2**30) as one:
            for n in range(200):
                await one.write(SetPoint(Series(Kind.SET, f"set{n}"), members), n=n)
            assert one.outbox.stored.batches > 180
            most = 0
            with server(tmp_path):
                while one.outbox.pending_batches:
                    most = max(most, one.outbox.ready.bytes + one.outbox.fresh.bytes)
                    await asyncio.sleep(0.001)
                assert await one.sets(range(200)) == 200
            assert 4 * MIB < most < 14 * MIB
            assert not one.outbox.lost

    uvloop.run(run())


# ---------------------------------------------------------------------- restarts


def ready_times(daemon: DaemonProcess, times: int) -> bool:
    """Whether daemons of the directory have begun to listen so many times."""
    return daemon.log.count("collector.ready") >= times


def received(daemon: DaemonProcess, lines: int) -> bool:
    """Whether the daemon has received so many lines over UDP."""
    return f'lines_total{{listener="udp://localhost:0"}} {lines}' in daemon.get_text("/metrics")


def test_a_stop_without_a_store_loses_nothing(tmp_path: Path) -> None:
    """The daemon ends at once, what it had is on disk, and the next start sends it before anything else."""
    config = CONFIG + f"redis: {{{{url: unix://{tmp_path}/server.sock}}}}\n"
    directory = tmp_path / "daemon"
    directory.mkdir()
    text = config.format(state_dir=directory / "state")
    for turn in range(2):
        daemon = DaemonProcess(directory, text)
        wait_for(partial(ready_times, daemon, turn + 1), "the daemon to listen")
        daemon.send_udp("kept:5|c", "moved:+2|g", "timed:7|ms")
        wait_for(partial(received, daemon, 3), "the lines")
        start = time.monotonic()
        assert daemon.stop() == 0
        assert time.monotonic() - start < 8
    assert "collector.lost" not in daemon.log
    with server(tmp_path), running(directory, config) as again:
        wait_for(lambda: again.value("kept") == 10, "what both had")
        assert again.value("moved") == 4
        assert re.search(r"backlog\.restored batches=[1-9]", again.log)
        lost = re.findall(r"^collector_lost_total.* (\d+)$", again.get_text("/metrics"), re.MULTILINE)
        assert set(lost) == {"0"}


def test_a_start_goes_on_where_a_killed_one_was(tmp_path: Path) -> None:
    """`always`: killed after writing ahead, after sending, after the reply; each batch is there once."""
    series = counters(50)

    async def run() -> None:
        path, state = tmp_path / "server.sock", tmp_path / "state"
        with server(tmp_path):
            async with started(path, state, ALWAYS) as first:
                await first.write(*(CounterPoint(each, 1) for each in series))
                await first.confirmed()  # its rows are still there, to be repeated if need be
                await first.die()
            async with started(path, state, ALWAYS) as second:
                second.sender.wake()
                await second.write(*(CounterPoint(each, 2) for each in series), n=1)
                await second.confirmed()
                assert await second.total(series) == 3 * len(series)
                await second.die()
        async with started(path, state, ALWAYS) as third:  # the server is gone
            await third.write(*(CounterPoint(each, 4) for each in series), n=2)
            await third.die()
        with server(tmp_path):  # and comes back empty: all of the last seconds is sent again
            async with started(path, state, ALWAYS) as fourth:
                await fourth.confirmed()
                assert await fourth.total(series) == 7 * len(series)
                assert not fourth.outbox.lost

    uvloop.run(run())


def test_batches_on_disk_are_given_again_to_a_server_that_lost_them(tmp_path: Path) -> None:
    """`always`: confirmed batches are kept on disk, not in memory, and are read back for a server without
    them.
    """
    series = counters(500)

    async def run() -> None:
        path = tmp_path / "server.sock"
        async with started(path, tmp_path / "state", ALWAYS) as one:
            with server(tmp_path):
                for n in range(3):
                    await one.write(*(CounterPoint(each, 1) for each in series), n=n)
                await one.confirmed()
                assert (one.outbox.kept.bytes, one.outbox.kept.batches) == (0, 3 * 64)
            with server(tmp_path):  # nothing was saved
                await one.write(*(CounterPoint(each, 1) for each in series), n=3)
                await one.confirmed()
                assert await one.total(series) == 4 * len(series)
                assert not one.outbox.lost

    uvloop.run(run())


def test_a_copy_of_a_spool_doubles_nothing(tmp_path: Path) -> None:
    """Two collectors with one state_dir copied, then an old copy put back: what it holds counts once."""
    series = counters(50)

    async def run() -> None:
        path, state, copy = tmp_path / "server.sock", tmp_path / "state", tmp_path / "copy"
        async with started(path, state) as one:
            await one.write(*(CounterPoint(each, 1) for each in series))
        shutil.copytree(state, copy)
        shutil.copytree(state, tmp_path / "old")
        with server(tmp_path):
            async with started(path, state) as one, started(path, copy) as other:
                await one.write(*(CounterPoint(each, 10) for each in series))
                await other.write(*(CounterPoint(each, 100) for each in series))
                await one.confirmed()
                await other.confirmed()
                assert await one.total(series) == 111 * len(series)
            async with started(path, tmp_path / "old") as late:
                await late.confirmed()
                assert await late.total(series) == 111 * len(series)
                assert not late.outbox.lost

    uvloop.run(run())


def test_what_a_kill_in_an_outage_lost_is_counted(tmp_path: Path) -> None:
    """`on_outage`: what was in memory only is gone with the process; the next start knows the gap."""

    async def run() -> None:
        path, state = tmp_path / "server.sock", tmp_path / "state"
        (one_series,) = counters(1)
        async with started(path, state, memory=1500) as first:
            for n in range(20):
                await first.write(CounterPoint(one_series, 1), n=n)
            stored = first.outbox.stored.batches
            assert 0 < stored < 20
            await first.die()
        with server(tmp_path):
            async with started(path, state) as second:
                await second.confirmed()
                assert await second.total([one_series]) == stored
                assert second.outbox.lost == {"earlier_start": 20 - stored}

    uvloop.run(run())


def test_one_collector_to_a_spool(tmp_path: Path) -> None:
    """A second one is refused by name with a remedy; when the first has ended, it starts."""

    async def run() -> None:
        state = tmp_path / "state"
        async with started(tmp_path / "server.sock", state):
            with pytest.raises(OperatorError, match=r"another collector \(pid \d+\).*state_dir"):
                async with started(tmp_path / "server.sock", state):
                    pass
        async with started(tmp_path / "server.sock", state):
            pass

    uvloop.run(run())


# ---------------------------------------------------------------------- damage


def flip(path: Path) -> None:
    """Every 1,999th byte of the file is another one."""
    data = bytearray(path.read_bytes())
    for at in range(4096, len(data), 1999):
        data[at] ^= 0x55
    path.write_bytes(data)


def flip_one(path: Path) -> None:
    """One byte in the middle of a batch."""
    data = bytearray(path.read_bytes())
    data[len(data) * 2 // 3] ^= 0x01
    path.write_bytes(data)


def cut(path: Path) -> None:
    """The second half is missing."""
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2 // 4096 * 4096])


def cut_odd(path: Path) -> None:
    """It ends within a page."""
    path.write_bytes(path.read_bytes()[:-1000])


def scribble(path: Path) -> None:
    """It is no database."""
    path.write_bytes(b"not a database " * 1000)


def empty(path: Path) -> None:
    """Nothing is left."""
    path.write_bytes(b"")


@pytest.mark.parametrize("damage", [flip, flip_one, cut, cut_odd, scribble, empty])
def test_a_damaged_spool_costs_what_it_held_and_nothing_else(
    tmp_path: Path, damage: Callable[[Path], None]
) -> None:
    """What can be read arrives, what cannot is counted; what comes afterwards goes on, on disk too."""
    series = counters(3000)

    async def run() -> None:
        path, state = tmp_path / "server.sock", tmp_path / "state"
        async with started(path, state) as first:
            for n in range(3):
                await first.write(*(CounterPoint(each, 1) for each in series), n=n)
        assert not (state / "backlog.db-wal").exists()
        damage(state / "backlog.db")
        async with started(path, state, memory=1) as second:
            await second.write(*(CounterPoint(each, 1000) for each in series), n=4)
            with server(tmp_path):
                await second.confirmed()
                total = await second.total(series) - 1000 * len(series)
            found = list(state.glob("backlog.db.damaged-*"))
            lost = second.outbox.lost
            if damage in (flip, cut, scribble):
                assert found
            if damage is flip_one:
                assert 0 < lost["spool_damaged"] < 3 * len(series)
            if damage is not empty:
                assert set(lost) == {"spool_damaged"}
            if lost["spool_damaged"] > 1:
                assert total == 3 * len(series) - lost["spool_damaged"]
            else:  # of a file that could not be read at all, nobody knows what was in it
                assert total == 0
            assert second.backlog.spool.is_open

    uvloop.run(run())


def test_a_spool_damaged_while_it_is_open_is_set_aside(tmp_path: Path) -> None:
    """What was only in it is counted as lost, in points; memory goes on, and a new file is begun."""

    def members(n: int) -> SetPoint:
        return SetPoint(Series(Kind.SET, f"set{n}"), [os.urandom(32) for _ in range(6000)])

    async def run() -> None:
        state = tmp_path / "state"
        async with started(tmp_path / "server.sock", state, memory=MIB) as one:
            for n in range(60):  # more than SQLite has in its own memory
                await one.write(members(n), n=n)
            stored = one.outbox.stored.points
            assert stored > 50
            for name in ("backlog.db", "backlog.db-wal"):
                (state / name).write_bytes(b"not a database" * (((state / name).stat().st_size) // 14))
            with server(tmp_path):
                await one.confirmed()
                lost = one.outbox.lost["spool_damaged"]
                assert 0 < lost <= stored
                assert await one.sets(range(60)) == 60 - lost
                assert list(state.glob("backlog.db.damaged-*"))
            for n in range(60, 70):
                await one.write(members(n), n=n)
                await until(lambda: not one.sender.up, "the store to be missed")
            assert one.outbox.stored.batches
            with server(tmp_path):
                await one.confirmed()
                assert await one.sets(range(60, 70)) == 10

    uvloop.run(run())


# ---------------------------------------------------------------------- a disk that refuses


def test_without_a_place_on_disk_memory_goes_on(tmp_path: Path) -> None:
    """A state_dir that cannot be used is said once and counted; batches are sent from memory."""
    (tmp_path / "file").write_text("in the way")

    async def run() -> None:
        (one_series,) = counters(1)
        async with started(tmp_path / "server.sock", tmp_path / "file" / "state", ALWAYS) as one:
            for n in range(5):
                await one.write(CounterPoint(one_series, 1), n=n)
            assert one.outbox.disk_errors == 1
            with server(tmp_path):
                await one.confirmed()
                assert await one.total([one_series]) == 5
            assert not one.outbox.lost

    uvloop.run(run())


@pytest.mark.skipif(sys.platform != "linux", reason="prlimit is Linux's")
def test_a_full_disk_costs_nothing_while_there_is_memory(tmp_path: Path) -> None:
    """The log names the file and the remedy once; when there is room again, the disk is used again."""
    with server(tmp_path) as path:
        config = CONFIG + f"redis: {{{{url: unix://{path}}}}}\nbacklog: {{{{spool: always}}}}\n"
        directory = tmp_path / "daemon"
        directory.mkdir()
        with running(directory, config) as daemon:
            lines = [f"full.disk{n}:1|c" for n in range(40)]
            resource.prlimit(daemon.process.pid, resource.RLIMIT_FSIZE, (16384, resource.RLIM_INFINITY))
            for turn in range(3):
                daemon.send_udp(*lines)
                wait_for(lambda: daemon.value("full.disk39") == turn + 1, "the points")  # noqa: B023
            metrics = daemon.get_text("/metrics")
            assert re.search(r"^collector_backlog_disk_errors_total [1-9]", metrics, re.MULTILINE)
            assert daemon.log.count("backlog.disk_refuses") == 1
            assert set(re.findall(r"^collector_lost_total.* (\d+)$", metrics, re.MULTILINE)) == {"0"}
            resource.prlimit(
                daemon.process.pid, resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY)
            )

            def well() -> bool:
                daemon.send_udp(*lines)
                time.sleep(0.5)
                return "backlog.disk_well" in daemon.log

            wait_for(well, "the disk to be used again")


def test_a_stop_ends_within_its_bound_when_the_store_falls_silent(tmp_path: Path) -> None:
    """The last flush meets a server that answers no more: it goes to disk, and the next start sends it."""
    lines = [f"silent{n:04d}:1|c" for n in range(2000)]
    with server(tmp_path) as path:
        proxy = Proxy(tmp_path / "proxy.sock", Path(path))
        config = CONFIG + f"redis: {{{{url: unix://{tmp_path}/proxy.sock}}}}\n"
        config = config.replace("flush_interval: 1s", "flush_interval: 60s")
        directory = tmp_path / "daemon"
        directory.mkdir()
        with proxy.running():
            with running(directory, config) as daemon:
                with socket.create_connection(("127.0.0.1", daemon.port("tcp"))) as stream:
                    stream.sendall("\n".join(lines).encode() + b"\n")
                wait_for(lambda: "collector_series 2000" in daemon.get_text("/metrics"), "the lines")
                proxy.plan.extend(["pass", "swallow"])
                start = time.monotonic()
                proxy.chance, proxy.kinds = 1.0, ("swallow",)
                assert daemon.stop(signal.SIGTERM) == 0
                assert time.monotonic() - start < 20
            proxy.chance = 0.0
            with running(directory, config) as again:
                wait_for(lambda: again.value("silent1999") == 1, "the last flush")
                wait_for(lambda: "collector_backlog_batches 0" in again.get_text("/metrics"), "all of it")
                assert again.value("silent0000") == 1


# ---------------------------------------------------------------------- what is kept for a while


def a_batch(seq: int, size: int = 1000) -> Batch:
    """One of a given size."""
    return Batch(seq, time.time(), 1, b"h" * size, b"")


def test_confirmed_batches_are_kept_for_two_flushes_and_five_seconds_at_least(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """With a short flush interval for five seconds, with a long one for two of them; then no longer."""
    now = [1000.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    for interval, kept in ((1, 5.0), (10, 20.0)):
        writer = Writer(KeySpace("m", interval), max_bytes=MIB, samples=1, refresh=60)
        outbox, shard = writer.outbox, writer.outbox.own[0]
        outbox.add(0, a_batch(1))
        assert shard.next_to_send()
        outbox.settle(shard, applied=True, errors=[])
        now[0] += kept - 0.1
        outbox.all_sent(outbox.shards)
        assert (len(shard.kept), outbox.kept.bytes) == (1, 1000)
        now[0] += 0.2
        outbox.all_sent(outbox.shards)
        assert (len(shard.kept), outbox.kept.bytes) == (0, 0)


def test_what_is_kept_is_bounded_in_bytes_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """Beyond the bound the older ones are forgotten sooner, but none of the last five seconds."""
    now = [1000.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    monkeypatch.setattr(outboxes, "_KEEP_BYTES", 10_000)
    outbox = Outbox([b"{m00-0}:q:1"], max_bytes=MIB, keep=60)
    shard = outbox.own[0]
    for seq in range(1, 31):
        outbox.add(0, a_batch(seq))
        assert shard.next_to_send()
        outbox.settle(shard, applied=True, errors=[])
        if seq == 15:
            now[0] += 6
    outbox.all_sent(outbox.shards)
    assert [batch.seq for _, batch in shard.kept] == list(range(16, 31))
    now[0] += 6
    outbox.all_sent(outbox.shards)
    assert 9_000 <= outbox.kept.bytes <= 10_000


# ---------------------------------------------------------------------- durability: replica


def test_with_a_replica_asked_for_only_what_it_has_is_confirmed(tmp_path: Path) -> None:
    """Without one, batches are kept and the error says what to do; with one they are confirmed, and it has
    them, once each.
    """
    series = counters(200)
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port = sock.getsockname()[1]
    first, second = tmp_path / "primary", tmp_path / "replica"
    first.mkdir()
    second.mkdir()

    async def run(path: str) -> None:
        async with started(path, tmp_path / "state", durability=Durability.REPLICA) as one:
            await one.write(*(CounterPoint(each, 1) for each in series))
            await until(lambda: "no replica" in one.sender.last_error, "the error")
            assert "redis.durability" in one.sender.last_error
            assert one.outbox.pending_batches
            assert not one.outbox.applied
            assert not one.sender.up
            with server(
                second, "--replicaof", f"127.0.0.1 {port}", "--repl-diskless-sync-delay", "0"
            ) as replica:
                await one.confirmed()
                await one.write(*(CounterPoint(each, 2) for each in series), n=1)
                await one.confirmed()
                client = connect(f"unix://{replica}")
                there = Reader(client, one.keys, idle_expiry=3600, refresh=60)
                assert sum(await there.totals(series)) == 3 * len(series)
                assert await one.total(series) == 3 * len(series)
                await client.aclose()
            await one.write(*(CounterPoint(each, 4) for each in series), n=2)
            assert not await one.sender.wait_idle(2.5)

    with server(first, "--port", str(port), "--repl-diskless-sync-delay", "0") as path:
        uvloop.run(run(path))


@pytest.mark.parametrize(
    ("text", "expected"), [("{}", ON_OUTAGE), ("{spool: off}", OFF), ("{spool: always}", ALWAYS)]
)
def test_off_is_read_as_it_is_written(tmp_path: Path, text: str, expected: SpoolMode) -> None:
    """`off` is a boolean to YAML 1.1."""
    file = tmp_path / "collector.yaml"
    file.write_text(f"backlog: {text}")
    assert load(file, {}).backlog.spool is expected


def test_with_off_an_earlier_spool_is_left_alone_and_named(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Nobody can take what it holds for sent."""

    async def run() -> None:
        (one_series,) = counters(1)
        async with started(tmp_path / "server.sock", tmp_path / "state") as one:
            await one.write(CounterPoint(one_series, 1))
        before = (tmp_path / "state" / "backlog.db").read_bytes()
        async with started(tmp_path / "server.sock", tmp_path / "state", OFF):
            pass
        assert (tmp_path / "state" / "backlog.db").read_bytes() == before

    uvloop.run(run())
    assert "backlog.left_alone" in caplog.text
    assert "on_outage" in caplog.text


def test_the_spool_is_readable_to_its_owner_only(tmp_path: Path) -> None:
    """Also in a state_dir that others may enter."""
    spool = Spool(tmp_path)
    spool.open()
    modes = {path.name: path.stat().st_mode & 0o777 for path in tmp_path.glob("backlog.*")}
    spool.close()
    assert modes
    assert set(modes.values()) == {0o600}, modes


def test_a_spool_of_another_version_is_not_sent(tmp_path: Path) -> None:
    """What a later version wrote may mean something else: the file is set aside."""
    spool = Spool(tmp_path)
    spool.open()
    assert spool._database is not None
    spool._database.execute("PRAGMA user_version = 99")
    spool.close()
    again = Spool(tmp_path)
    assert again.open()[0] == []
    assert again.damaged == 1
    again.close()
    assert list(tmp_path.glob("backlog.db.damaged-*"))
