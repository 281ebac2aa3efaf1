"""`collector store check` and `store usage`, as a user runs them, against real servers."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
import uvloop
from clusters import ServerProcess, admin, alone, cluster
from harness import DaemonProcess
from stores import NOW, Load, opened
from test_cli import run

from collector.retention import RetentionSettings
from collector.rules import Retention
from collector.store.keys import KeySpace
from collector.store.rights import When, rules
from collector.store.topology import open_store
from collector.store.usage import measure


def config(directory: Path, url: str) -> str:
    """A configuration for a store."""
    path = directory / "collector.yaml"
    path.write_text(f"redis: {{url: '{url}'}}\n")
    return str(path)


def fill(url: str, series: int = 10) -> None:
    """Writes something of every kind."""

    async def write() -> None:
        load = Load(series)
        async with opened(url) as store:
            await load.round(store)
            await load.check(store)

    uvloop.run(write())


def checked(
    directory: Path, url: str, *options: str
) -> tuple[subprocess.CompletedProcess[str], dict[str, Any]]:
    """What `store check` says, by what was looked at."""
    done = run("store", "check", "--json", "--config", config(directory, url), *options)
    found = json.loads(done.stdout) if done.stdout else []
    return done, {one["what"]: one for one in found}


def test_a_fit_store_is_ok_line_by_line(tmp_path: Path) -> None:
    """Exit code 0, each line ok, nothing written; after a flush the schema is told."""
    with alone("valkey", tmp_path / "server", "--appendonly", "yes") as server:
        url = f"redis://127.0.0.1:{server.port}/2"
        done = run("store", "check", "--strict", "--config", config(tmp_path, url))
        assert done.returncode == 0, done
        assert [line.split()[0] for line in done.stdout.splitlines()] == ["ok"] * 7
        assert "nothing under the prefix 'm' yet" in done.stdout
        with server.client() as client:
            assert client.info("keyspace") == {}
        fill(url)
        _, found = checked(tmp_path, url)
        assert found["schema"]["found"] == "version 1, resolutions 10 s"
        assert found["version"]["found"].startswith("Valkey ")


def test_what_is_unfit_is_told_with_its_remedy(tmp_path: Path) -> None:
    """Rights, eviction, memory, persistence, schema, each its own line; 1 for failures, 3 for warnings."""
    with alone("redis", tmp_path / "server") as server:
        url = f"redis://app:secret@127.0.0.1:{server.port}"
        admin(server, "app", rules("m"))
        done, found = checked(tmp_path, url, "--strict")
        assert done.returncode == 3
        assert "BGREWRITEAOF" not in found["version"]["remedy"]  # there is no append-only file to tear
        assert found["persistence"]["level"] == "warning"
        server.command("CONFIG", "SET", "maxmemory-policy", "allkeys-lru")
        server.command("CONFIG", "SET", "appendonly", "yes")
        server.command("HSET", "m:meta", "schema", "99")
        admin(server, "app", [one for one in rules("m") if one not in ("+hincrby", "+expire")])
        done, found = checked(tmp_path, url)
        assert done.returncode == 1
        assert found["rights"]["remedy"].startswith("ACL SETUSER <user> +hincrby +expire")
        assert "noeviction" in found["eviction"]["remedy"]
        assert "BGREWRITEAOF" in found["version"]["remedy"]
        assert (found["schema"]["level"], "redis.prefix" in found["schema"]["remedy"]) == ("failed", True)
        server.command("CONFIG", "SET", "maxmemory", "1000")
        server.command("REPLICAOF", "127.0.0.1", "1")
        _, found = checked(tmp_path, url)
        assert "raise maxmemory" in found["memory"]["remedy"]
        assert "at the primary" in found["writes"]["remedy"]
        assert (found["role"]["level"], "primary" in found["role"]["remedy"]) == ("failed", True)


def test_a_store_that_is_away_is_unreachable(tmp_path: Path) -> None:
    """69 for each layout, the embedded one included; a wrong password is told as such."""
    for url in ("redis+cluster://u:hunter2@127.0.0.1:1", "redis+sentinel://127.0.0.1:1/x"):
        done = run("store", "usage", "--config", config(tmp_path, url))
        assert (done.returncode, done.stdout) == (69, ""), done
        assert "hunter2" not in done.stderr
    path = tmp_path / "embedded.yaml"
    path.write_text(f"state_dir: {tmp_path}/state\n")
    done = run("store", "check", "--config", str(path))
    assert (done.returncode, "start the daemon first" in done.stderr) == (69, True)
    done, found = checked(tmp_path, "redis://127.0.0.1:1")
    assert (done.returncode, found["connection"]["level"]) == (1, "failed")


def test_a_cluster_is_checked_node_by_node(tmp_path: Path) -> None:
    """Each node has its lines, and the slots one; what a node holds counts in usage."""
    with cluster("valkey", tmp_path / "nodes") as servers:
        for server in servers.servers:
            admin(server, "app", rules("m", When.CLUSTER, When.USAGE))
        url = servers.url.replace("://", "://app:secret@")
        fill(url)
        done = run("store", "check", "--json", "--config", config(tmp_path, url))
        found = json.loads(done.stdout)
        assert done.returncode == 0, found
        assert len({one["node"] for one in found if one["what"] == "rights"}) == 3
        assert {
            "what": "slots",
            "node": "",
            "level": "ok",
            "found": "all shards, on 3 primaries",
            "remedy": "",
        } in found
        usage = json.loads(run("store", "usage", "--json", "--config", config(tmp_path, url)).stdout)
        assert (usage["series"], usage["measured"]) == (12, 12)
        assert all(one["bytes"] > 0 for one in usage["metrics"])
        servers.primaries[0].kill()
        done = run("store", "check", "--config", config(tmp_path, url))
        assert done.returncode == 1
        assert f"failed   connection   127.0.0.1:{servers.primaries[0].port}" in done.stdout


def test_usage_is_what_the_server_says(tmp_path: Path) -> None:
    """Bytes of all keys add up to the sum over the keys that are there; neither KEYS nor SCAN is used."""
    with alone("valkey", tmp_path / "server") as server:
        url = f"redis://127.0.0.1:{server.port}"
        fill(url)
        done = run("store", "usage", "--top", "3", "--json", "--config", config(tmp_path, url))
        usage = json.loads(done.stdout)
        with server.client() as client:
            used = client.info("commandstats")
            assert not {"cmdstat_keys", "cmdstat_scan"} & used.keys()
            names = [one for one in client.keys("*") if b":q:" not in one and one != b"m:meta"]
            assert usage["bytes"] == sum(client.memory_usage(one) or 0 for one in names)
        assert len(usage["metrics"]) == len(usage["largest"]) == 3
        sizes = [one["bytes"] for one in usage["largest"]]
        assert sizes == sorted(sizes, reverse=True)
        shown = run("store", "usage", "--config", config(tmp_path, url))
        assert (shown.returncode, shown.stderr) == (0, "")
        assert "in 12 series\n" in shown.stdout
        assert "counter load.c" in shown.stdout
        admin(server, "app", rules("m"))
        done = run("store", "usage", "--config", config(tmp_path, url.replace("://", "://app:secret@")))
        assert (done.returncode, "docs/store.md" in done.stderr) == (1, True)


def test_usage_of_very_many_series_is_estimated(tmp_path: Path) -> None:
    """With a budget some series stand for the others: near the truth, and it says from how many."""

    async def both(server: ServerProcess) -> None:
        store = open_store(f"redis://127.0.0.1:{server.port}")
        keys = KeySpace("m", 10)
        told: list[tuple[int, int]] = []
        exact = await measure(
            store, keys, Retention(RetentionSettings(), 10), NOW, top=5, progress=lambda *at: told.append(at)
        )
        rough = await measure(
            store,
            keys,
            Retention(RetentionSettings(), 10),
            NOW,
            top=5,
            progress=lambda *_: None,
            budget=5_000,
        )
        assert not exact.sampled
        assert rough.sampled
        assert rough.measured < exact.measured / 2
        assert rough.bytes == pytest.approx(exact.bytes, rel=0.4)
        assert told
        await store.aclose()

    with alone("valkey", tmp_path) as server:
        fill(f"redis://127.0.0.1:{server.port}", 20)
        uvloop.run(both(server))


def test_the_embedded_store_is_looked_at_while_the_daemon_runs(daemon: DaemonProcess) -> None:
    """Without an address of its own: where the configuration's daemon has it."""
    done = run("store", "check", "--config", str(daemon.config))
    assert done.returncode == 0, done
    assert "failed" not in done.stdout
    assert run("store", "usage", "--config", str(daemon.config)).returncode == 0
