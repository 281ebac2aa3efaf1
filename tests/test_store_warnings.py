"""What is said of a server that may harm the data: it evicts, or left half a batch in its file."""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path

import pytest
import uvloop
from clusters import ServerProcess, alone, each_product
from harness import wait_for
from stores import Load, opened

from collector.store.server import Server


@each_product
def test_an_eviction_policy_is_warned_of(
    product: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Once for each start of the server, with the remedy; noeviction is no warning."""

    async def run(server: ServerProcess) -> int:
        caplog.clear()
        load = Load(10)
        async with opened(f"redis://127.0.0.1:{server.port}") as store:
            await load.round(store)
            assert await store.sender.wait_idle(10)
            server.command("CLIENT", "KILL", "TYPE", "normal")
            await load.round(store)
            assert await store.sender.wait_idle(10)
        return caplog.text.count("store.evicts")

    with caplog.at_level(logging.WARNING), alone(product, tmp_path) as server:
        assert uvloop.run(run(server)) == 0
        server.command("CONFIG", "SET", "maxmemory-policy", "allkeys-lru")
        assert uvloop.run(run(server)) == 1
        assert "maxmemory-policy noeviction" in caplog.text


def _tear(server: ServerProcess) -> None:
    """Cuts the append-only file within its last script, as a power loss does that comes before the disk."""
    path = max((server.directory / "appendonlydir").glob("*.incr.aof"))
    with path.open("r+b") as file:
        file.truncate(path.read_bytes().rindex(b"\r\nEXEC\r\n") - 100)


@pytest.mark.parametrize(("product", "warned"), [("redis", True), ("valkey", False)])
def test_a_torn_script_is_warned_of_and_counted_once(
    product: str, warned: bool, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """What the tear took is sent again; after the remedy that the warning names, or where none is needed, a
    further restart changes nothing."""

    async def run(server: ServerProcess) -> None:
        load = Load(300)
        async with opened(f"redis://127.0.0.1:{server.port}") as store:
            for _ in range(3):
                await load.round(store)
            await load.check(store)
            server.kill()
            _tear(server)
            await asyncio.to_thread(server.start)
            await load.round(store)
            await load.check(store)
            if warned:
                server.command("BGREWRITEAOF")
                await asyncio.to_thread(wait_for, lambda: not _rewriting(server), "the file to be rewritten")
            server.kill()
            await asyncio.to_thread(server.start)
            await load.check(store)

    with caplog.at_level(logging.WARNING), alone(product, tmp_path, "--appendonly", "yes") as server:
        uvloop.run(run(server))
    assert ("store.unclean_restart" in caplog.text) is warned
    assert ("BGREWRITEAOF" in caplog.text) is warned


def _rewriting(server: ServerProcess) -> bool:
    with server.client() as client:
        info = client.info("persistence")
    return bool(info["aof_rewrite_in_progress"] or info["aof_rewrite_scheduled"])


def test_a_clean_restart_is_no_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Whatever the server: nothing that it had is missing."""

    async def run(server: ServerProcess) -> None:
        load = Load(50)
        async with opened(f"redis://127.0.0.1:{server.port}") as store:
            await load.round(store)
            await load.check(store)
            server.kill(15)
            await asyncio.to_thread(server.start)
            await load.round(store)
            await load.check(store)

    with caplog.at_level(logging.WARNING), alone("redis", tmp_path, "--appendonly", "yes") as server:
        uvloop.run(run(server))
    assert "store.unclean_restart" not in caplog.text


@pytest.mark.parametrize(
    ("info", "shown", "may_double"),
    [
        ("redis_version:6.2.14\r\naof_enabled:1\r\n", "Redis 6.2.14", True),
        ("redis_version:8.2.1\r\naof_enabled:1\r\n", "Redis 8.2.1", True),
        ("redis_version:7.0.15\r\naof_enabled:0\r\n", "Redis 7.0.15", False),
        (
            "redis_version:7.2.4\r\nserver_name:valkey\r\nvalkey_version:8.1.3\r\naof_enabled:1\r\n",
            "Valkey 8.1.3",
            True,
        ),
        (
            "redis_version:7.2.4\r\nserver_name:valkey\r\nvalkey_version:9.1.2\r\naof_enabled:1\r\n",
            "Valkey 9.1.2",
            False,
        ),
        ("# Server\r\n", "Redis of unknown version", False),
    ],
)
def test_servers_are_told_apart(info: str, shown: str, may_double: bool) -> None:
    """By product, version, and whether they keep an append-only file."""
    server = Server.parse(info)
    assert (server.shown, server.may_double) == (shown, may_double)


def test_another_server_is_no_restart() -> None:
    """After a fail-over the run id is another one too, of a server that has been up for long."""
    before = Server.parse("run_id:a\r\nuptime_in_seconds:1000")
    assert Server.parse("run_id:b\r\nuptime_in_seconds:3").restarted_since(before, 5.0)
    assert not Server.parse("run_id:b\r\nuptime_in_seconds:900").restarted_since(before, 5.0)
    assert not Server.parse("run_id:a\r\nuptime_in_seconds:1005").restarted_since(before, 5.0)
