"""Whether a store is fit for the collector: what it can be reached by, may be done, keeps, and holds.

Nothing is written. Each finding is about one thing of one node, or of the store as a whole.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from redis.exceptions import RedisError

from collector.errors import StoreError
from collector.store.client import exchange, read_meta, schema_fault
from collector.store.faults import explain
from collector.store.keys import KeySpace, hash_slot
from collector.store.rights import When, may_write
from collector.store.server import KEEP_ALL, NEARLY_FULL, OLDEST, Server
from collector.store.topology import Cluster, Node, Topology
from collector.units import format_size


class Level(StrEnum):
    """How it is."""

    OK = "ok"
    WARNING = "warning"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of the answer: `what` was looked at, at `node` ("" for a store of one), and what was found."""

    what: str
    node: str
    level: Level
    found: str
    remedy: str = ""


async def check(store: Topology, keys: KeySpace, when: Sequence[When]) -> list[Finding]:
    """All findings, node by node, for the rights of these cases; StoreError when nobody answers at all."""
    try:
        await store.refresh()
    except (RedisError, OSError, TimeoutError) as error:
        raise StoreError(explain(error)) from error
    findings: list[Finding] = []
    for node in store.nodes:
        try:
            findings += await _of_node(node, store, keys, when)
        except (StoreError, RedisError, OSError, TimeoutError) as error:
            findings.append(Finding("connection", node.name, Level.FAILED, explain(error)))
    if isinstance(store, Cluster):
        findings.append(_coverage(store, keys))
    if not any(one.what == "connection" and one.level is Level.FAILED for one in findings):
        findings.append(await _schema(store, keys))
    return findings


async def _of_node(node: Node, store: Topology, keys: KeySpace, when: Sequence[When]) -> list[Finding]:
    """What there is to say of one server."""
    pool = node.client.connection_pool
    connection: Any = await pool.get_connection()  # type: ignore[no-untyped-call]
    try:
        began = time.perf_counter()
        await exchange(connection, [(b"PING",)])
        took = (time.perf_counter() - began) * 1000
        found = [Finding("connection", node.name, Level.OK, f"answers in {took:.1f} ms")]
        own = next((tag for tag in keys.tags if store.node_of(hash_slot(tag)) is node), keys.tags[0])
        answer = await may_write(connection, keys, own + b":check", when)
        if answer.missing:
            found.append(Finding("rights", node.name, Level.FAILED, *answer.told))
        else:
            found.append(Finding("rights", node.name, Level.OK, "all that are needed"))
        if answer.refused is not None:
            text, _, remedy = explain(answer.refused).partition(" (")
            found.append(Finding("writes", node.name, Level.FAILED, text, remedy.removesuffix(")")))
        (info,) = await exchange(connection, [(b"INFO",)])
        if not isinstance(info, Exception):
            found += _of_server(Server.parse(info.decode("utf-8", "replace")), node.name)
        return found
    finally:
        await connection.disconnect(nowait=True)
        await pool.release(connection)


def _of_server(server: Server, node: str) -> Iterator[Finding]:
    """What a server says of itself, judged."""
    yield _version(server, node)
    if server.role != "master":
        remedy = "name the primary in redis.url, or Sentinels, who know it"
        yield Finding("role", node, Level.FAILED, "a replica, which takes no writes", remedy)
    if server.evicts:
        yield Finding("eviction", node, Level.WARNING, server.policy, KEEP_ALL)
    else:
        yield Finding("eviction", node, Level.OK, server.policy or "the server does not say")
    yield _memory(server, node)
    yield _persistence(server, node)


def _version(server: Server, node: str) -> Finding:
    if server.version and server.version < OLDEST:
        return Finding(
            "version", node, Level.FAILED, server.shown, "the collector needs Redis 6.2 or a Valkey"
        )
    if server.may_double:
        remedy = "run BGREWRITEAOF after a power loss of the server: docs/store.md says why"
        found = f"{server.shown}, which may count a part of a batch twice after a power loss"
        return Finding("version", node, Level.WARNING, found, remedy)
    return Finding("version", node, Level.OK, server.shown)


def _memory(server: Server, node: str) -> Finding:
    used = format_size(server.memory)
    if not server.max_memory:
        return Finding("memory", node, Level.OK, f"{used}, without a limit")
    share = server.memory / server.max_memory
    found = f"{used} of {format_size(server.max_memory)} ({share:.0%})"
    if share >= NEARLY_FULL:
        remedy = "raise maxmemory, or shorten what is kept: `collector store usage` shows what takes it"
        return Finding("memory", node, Level.WARNING, found, remedy)
    return Finding("memory", node, Level.OK, found)


def _persistence(server: Server, node: str) -> Finding:
    if server.aof and not server.aof_ok:
        remedy = "look at the server's log and its free space"
        return Finding("persistence", node, Level.FAILED, "the append-only file cannot be written", remedy)
    if server.aof:
        return Finding("persistence", node, Level.OK, "append-only file")
    remedy = "CONFIG SET appendonly yes: a crash of the server loses what is newer than that"
    if not server.save_ok:
        return Finding("persistence", node, Level.WARNING, "the last snapshot failed", remedy)
    return Finding("persistence", node, Level.WARNING, "no append-only file, at most snapshots", remedy)


def _coverage(store: Cluster, keys: KeySpace) -> Finding:
    nobodys = sum(store.node_of(hash_slot(tag)) is None for tag in keys.tags)
    if nobodys:
        found = f"{nobodys} of {len(keys.tags)} shards lie in slots that no node has"
        return Finding("slots", "", Level.FAILED, found, "see CLUSTER SHARDS, and give the slots to a node")
    return Finding("slots", "", Level.OK, f"all shards, on {len(store.nodes)} primaries")


async def _schema(store: Topology, keys: KeySpace) -> Finding:
    try:
        found = await read_meta(store, keys)
    except StoreError as error:
        return Finding("schema", "", Level.FAILED, str(error))
    if fault := schema_fault(found):
        what, _, remedy = fault.partition(": ")
        return Finding("schema", "", Level.FAILED, what, remedy)
    if not found:
        return Finding("schema", "", Level.OK, f"nothing under the prefix {keys.prefix!r} yet")
    version, resolutions = found.get("schema", "?"), found.get("resolutions", "?")
    return Finding("schema", "", Level.OK, f"version {version}, resolutions {resolutions} s")
