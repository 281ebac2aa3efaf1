"""What a server refuses: a clear error, nothing lost, no busy loop, and no restart to recover."""

from __future__ import annotations

import asyncio
import logging
import re
import resource
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import uvloop
from clusters import ServerProcess, admin, alone, each_product
from stores import NOW, RESOLUTION, Load, Store, opened

from collector.model import CounterPoint, Kind, Series
from collector.store.rights import RIGHTS, TRANSACTION, When, rules

HITS = Series(Kind.COUNTER, "hits")
DOCS = Path(__file__).resolve().parent.parent / "docs" / "store.md"


@pytest.fixture(scope="module", params=["valkey", "redis"])
def server(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[ServerProcess]:
    """A server of each product, for all tests; each leaves it well."""
    with alone(request.param, tmp_path_factory.mktemp("server")) as found:
        yield found


def url(server: ServerProcess, user: str = "") -> str:
    """Its address, for a user of `admin`."""
    return f"redis://{user}{':secret@' if user else ''}127.0.0.1:{server.port}"


def commands(server: ServerProcess) -> int:
    """How many commands the server was sent so far."""
    with server.client() as client:
        return int(client.info("stats")["total_commands_processed"])


async def refused(
    server: ServerProcess, store: Store, says: str, begin: Callable[[], Any], end: Callable[[], Any]
) -> None:
    """Load before, while and after a server refuses: what is said, how often it is asked, the totals."""
    load = Load(100)
    await load.round(store)
    assert await store.sender.wait_idle(10), store.sender.last_error
    await asyncio.to_thread(begin)
    await load.round(store)
    await store.until(says)
    retries, before = store.sender.retries, await asyncio.to_thread(commands, server)
    await load.run(store, 0.8, 0.1)
    assert store.sender.retries - retries <= 4  # after 0.1, 0.2, 0.4 seconds
    assert await asyncio.to_thread(commands, server) - before < 500
    assert not store.sender.up
    assert store.outbox.pending_batches
    await asyncio.to_thread(end)
    await load.check(store)
    await store.until("")


@pytest.mark.parametrize(
    ("says", "begin", "end"),
    [
        ("raise maxmemory", ("CONFIG SET maxmemory 1",), ("CONFIG SET maxmemory 0",)),
        ("at the primary", ("REPLICAOF 127.0.0.1 1",), ("REPLICAOF NO ONE",)),
        (
            "min-replicas-to-write",
            ("CONFIG SET min-replicas-to-write 1",),
            ("CONFIG SET min-replicas-to-write 0",),
        ),
    ],
    ids=["OOM", "READONLY", "NOREPLICAS"],
)
def test_a_server_that_takes_no_writes_is_waited_for(
    server: ServerProcess, says: str, begin: tuple[str, ...], end: tuple[str, ...]
) -> None:
    """Full, a replica, or without enough replicas: cause and remedy are told; equal totals afterwards."""

    def each(lines: tuple[str, ...]) -> None:
        for line in lines:
            server.command(*line.split())

    async def run() -> None:
        async with opened(url(server), prefix=says[:3]) as store:
            await refused(server, store, says, lambda: each(begin), lambda: each(end))

    uvloop.run(run())


def test_a_script_that_blocks_the_server_is_waited_for(server: ServerProcess) -> None:
    """BUSY: another's endless script; the batches wait until it is killed."""

    async def run() -> None:
        server.command("CONFIG", "SET", "lua-time-limit", "50")
        load = Load(50)
        async with opened(url(server), prefix="busy") as store:
            await load.round(store)
            assert await store.sender.wait_idle(10)
            endless = asyncio.create_task(asyncio.to_thread(_endless, server))
            try:
                await asyncio.sleep(0.2)
                await load.round(store)
                await store.until("a script blocks the server")
            finally:
                await asyncio.to_thread(server.command, "SCRIPT", "KILL")
                await endless
            await load.check(store)

    uvloop.run(run())


@each_product
def test_a_server_that_reads_its_data_after_a_start_is_waited_for(tmp_path: Path, product: str) -> None:
    """LOADING: told, asked now and then, and the totals are equal once it has read all."""
    slowly = ("--key-load-delay", "1000", "--loading-process-events-interval-bytes", "1024")

    async def run(server: ServerProcess) -> None:
        load = Load(50)
        async with opened(url(server)) as store:
            await load.round(store)
            assert await store.sender.wait_idle(10)
            server.command("MSET", *(word for n in range(2000) for word in (f"other:{n}", "x" * 100)))
            server.command("SAVE")
            server.kill()
            await load.round(store)
            starting = asyncio.create_task(asyncio.to_thread(server.start))
            await store.until("loading the dataset")
            retries = store.sender.retries
            await asyncio.sleep(0.5)
            assert store.sender.retries - retries <= 3
            await starting
            await load.check(store)
            await store.until("")

    with alone(product, tmp_path, *slowly) as server:
        uvloop.run(run(server))


def _endless(server: ServerProcess) -> None:
    try:
        server.command("EVAL", "while true do end", 0)
    except Exception as error:
        assert "killed" in str(error).lower(), error


def test_scripts_that_were_flushed_are_loaded_again(server: ServerProcess) -> None:
    """NOSCRIPT costs a round trip, and nothing else."""

    async def run() -> None:
        load = Load(50)
        async with opened(url(server), prefix="flushed") as store:
            for _ in range(3):
                await load.round(store)
                await load.check(store)
                server.command("SCRIPT", "FLUSH")

    uvloop.run(run())


@each_product
def test_a_full_disk_is_waited_for(product: str, tmp_path: Path) -> None:
    """MISCONF: the append-only file cannot grow (a limit on the size of files stands in for the disk)."""

    def limited() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)  # write fails instead, as it does on a full disk
        resource.setrlimit(resource.RLIMIT_FSIZE, (2**20, resource.RLIM_INFINITY))

    async def run(server: ServerProcess) -> None:
        endless = (resource.RLIM_INFINITY, resource.RLIM_INFINITY)

        def fill() -> None:
            for n in range(40):
                try:
                    server.command("SET", f"fill{n}", "x" * 100_000)
                except Exception as error:
                    assert "MISCONF" in str(error)
                    break

        async with opened(url(server)) as store:
            await refused(
                server,
                store,
                "cannot save to disk",
                fill,
                lambda: resource.prlimit(server.process.pid, resource.RLIMIT_FSIZE, endless),
            )

    with alone(product, tmp_path, "--appendonly", "yes", prepare=limited) as server:
        uvloop.run(run(server))


# ---------------------------------------------------------------------- rights


@pytest.fixture
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rights are looked at again soon."""
    monkeypatch.setattr("collector.store.lane._PARKED", 0.1)


def test_a_wrong_password_is_waited_for(server: ServerProcess, hasty: None) -> None:
    """The error names where to look; when the password is set right on the server the batches go out."""

    async def run() -> None:
        admin(server, "app", rules("pass"))
        load = Load(50)
        async with opened(f"redis://app:wrong@127.0.0.1:{server.port}", prefix="pass") as store:
            await load.round(store)
            await store.until("check the user and password")
            await asyncio.sleep(0.5)
            assert store.sender.retries <= 8
            server.command("ACL", "SETUSER", "app", ">wrong")
            await load.check(store)

    uvloop.run(run())


def test_every_right_on_the_list_is_needed_and_named(server: ServerProcess, hasty: None) -> None:
    """Without it nothing is sent, and the error names it and the remedy; given, all goes on by itself."""

    async def run() -> None:
        names = [*TRANSACTION, *(right.name for right in RIGHTS if right.when is When.ALWAYS)]
        for name in names:
            allowed = [one for one in rules("right") if one != f"+{name}"]
            admin(server, "app", allowed)
            server.command("FLUSHALL")
            async with opened(url(server, "app"), prefix="right") as store:
                await store.put(CounterPoint(HITS, 1))
                await store.until("docs/store.md")
                text = store.sender.last_error
                # Without setname no connection comes about, so the server's own words are told.
                assert f"missing: +{name}:" in text or name == "client|setname", text
                assert name.replace("|", " ") in text.replace("|", " "), text
                assert store.outbox.pending_batches == 1
                admin(server, "app", rules("right"))
                assert await store.sender.wait_idle(10), store.sender.last_error
                assert await store.reader.totals([HITS]) == [1]
                assert not store.outbox.lost

    uvloop.run(run())


def test_keys_that_are_not_ours_are_named(server: ServerProcess, hasty: None) -> None:
    """A user of other keys is told which patterns are missing."""

    async def run() -> None:
        admin(server, "app", ["~{other*", "~mine:*", *(one for one in rules("x") if one.startswith("+"))])
        async with opened(url(server, "app"), prefix="mine") as store:
            await store.put(CounterPoint(HITS, 1))
            await store.until("~{mine*")

    uvloop.run(run())


def test_a_right_that_is_taken_away_costs_nothing(server: ServerProcess, hasty: None) -> None:
    """Between two flushes it is noticed before anything of the next is sent."""

    async def run() -> None:
        admin(server, "app", rules("taken"))
        load = Load(50)
        async with opened(url(server, "app"), prefix="taken") as store:
            await load.round(store)
            assert await store.sender.wait_idle(10)
            server.command("ACL", "SETUSER", "app", "-hincrby", "-pfadd")
            await load.round(store)
            await store.until("+hincrby +pfadd")
            server.command("ACL", "SETUSER", "app", "+hincrby", "+pfadd")
            await load.check(store)

    uvloop.run(run())


def test_the_documented_rights_are_the_list_in_the_code() -> None:
    """docs/store.md and `rights` say the same, for each case."""
    text = DOCS.read_text()
    text = text[text.index("## Rights") :]
    block = "".join(re.findall(r"^    .*\n", text, re.MULTILINE)).split()
    assert block == rules("m")
    table = dict(re.findall(r"^\| (.*?) \| `(\+.*?)` \|", text, re.MULTILINE))
    documented = {case: rights.replace("\\", "").split() for case, rights in table.items()}
    assert documented == {
        "a database other than 0": rules("m", When.DATABASE)[len(block) :],
        "Sentinels": rules("m", When.SENTINEL)[len(block) :],
        "`durability: replica`": rules("m", When.REPLICA)[len(block) :],
        "a cluster": rules("m", When.CLUSTER)[len(block) :],
        "`collector store usage`": rules("m", When.USAGE)[len(block) :],
    }


# ---------------------------------------------------------------------- what is in the way


def test_a_key_of_another_type_costs_its_own_operation(
    server: ServerProcess, caplog: pytest.LogCaptureFixture
) -> None:
    """It is named in the log; when it is gone its series is written again, without a restart."""

    async def run() -> None:
        async with opened(url(server), prefix="type") as store:
            key = store.keys.chunked(b"c", HITS, store.keys.chunk(NOW))
            server.command("SET", key, "not a hash")
            await store.write(CounterPoint(HITS, 1))
            assert store.outbox.lost == {"store_refused": 1}
            assert key.decode() in caplog.text
            assert "WRONGTYPE" in caplog.text
            server.command("DEL", key)
            await store.write(CounterPoint(HITS, 1))
            assert store.outbox.lost == {"store_refused": 1}
            assert (await store.reader.increments([HITS], NOW, NOW + RESOLUTION))[0][0][1] == 1

    with caplog.at_level(logging.ERROR):
        uvloop.run(run())


def test_a_store_of_another_version_is_waited_for(server: ServerProcess) -> None:
    """Nothing is written into it; the error names both versions and what to do."""

    async def run() -> None:
        server.command("HSET", "version:meta", "schema", "99")
        async with opened(url(server), prefix="version") as store:
            await store.put(CounterPoint(HITS, 1))
            await store.until("use another redis.prefix")
            assert "schema 99" in store.sender.last_error
            await asyncio.sleep(0.5)
            assert store.sender.retries < 6
            server.command("DEL", "version:meta")
            assert await store.sender.wait_idle(10)
            assert await store.reader.totals([HITS]) == [1]

    uvloop.run(run())


def test_a_server_that_is_no_cluster_is_told(server: ServerProcess) -> None:
    """redis+cluster:// to a server alone: what to write instead."""

    async def run() -> None:
        async with opened(f"redis+cluster://127.0.0.1:{server.port}") as store:
            await store.put(CounterPoint(HITS, 1))
            await store.until("it is no cluster: write redis://")

    uvloop.run(run())
