"""A redis-py client for an address, and what its errors mean.

redis-py brings connections, authentication, TLS and unix sockets; how often to try again is decided here, so
its own retries are off.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager
from typing import Any, Final, cast
from urllib.parse import urlsplit, urlunsplit

from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from collector.errors import OperatorError, StoreError
from collector.store.keys import SCHEMA, SHARDS, KeySpace

TIMEOUT: Final = 5.0  # seconds for a connection or a reply; a slower server counts as away

# First word of an error reply -> what the operator is told. All but WRONGTYPE keep the batch.
_REMEDIES: Final = {
    "NOAUTH": "the server asks for a password: set it in redis.url",
    "WRONGPASS": "the server refuses the user or password: check redis.url",
    "NOPERM": "the user lacks a right: see the list of commands in docs/store.md",
    "OOM": "the server is full: raise maxmemory, or shorten what is kept",
    "READONLY": "this is a replica: point redis.url at the primary",
    "MISCONF": "the server cannot save to disk: look at its log and its free space",
    "LOADING": "the server is loading its data: it will be tried again",
    "BUSY": "a script blocks the server: it will be tried again",
    "MOVED": "this is a node of a cluster, which redis.url cannot name yet",
    "CROSSSLOT": "this is a node of a cluster, which redis.url cannot name yet",
}


def connect(url: str) -> Redis:
    """A client for redis://, rediss:// or unix://; OperatorError for an address that cannot be read.

    Nothing is sent yet: the first command connects.
    """
    try:
        return Redis.from_url(
            url,
            protocol=2,
            retry=Retry(NoBackoff(), 0),
            socket_timeout=TIMEOUT,
            socket_connect_timeout=TIMEOUT,
            client_name="collector",
        )
    except (ValueError, TypeError, RedisError) as error:
        raise OperatorError(f"redis.url {without_password(url)!r}", str(error)) from error


def without_password(url: str) -> str:
    """An address that may be shown."""
    parts = urlsplit(url)
    if parts.password is None:
        return url
    user, _, host = parts.netloc.rpartition("@")
    return urlunsplit(parts._replace(netloc=f"{user.partition(':')[0]}:***@{host}"))


def explain(error: BaseException) -> str:
    """What went wrong, with the remedy where there is one."""
    text = str(error) or type(error).__name__
    # redis-py takes the code off the texts that it has a class for, and keeps it beside them.
    code = getattr(error, "status_code", None) or text.split(" ", 1)[0]
    remedy = _REMEDIES.get(code)
    return f"{text} ({remedy})" if remedy else text


@asynccontextmanager
async def store_errors() -> AsyncIterator[None]:
    """Turns what redis-py raises into StoreError, with the remedy."""
    try:
        yield
    except (RedisError, OSError, asyncio.TimeoutError) as error:
        raise StoreError(explain(error)) from error


async def check_schema(client: Redis, keys: KeySpace) -> None:
    """Notes what the store holds on first use; StoreError when it is of another version."""
    async with store_errors():
        meta = cast(
            "dict[bytes, bytes]", await cast("Awaitable[Any]", client.hgetall(keys.meta.decode()))
        )
        found = {name.decode(): value.decode() for name, value in meta.items()}
        expected = {"schema": str(SCHEMA), "shards": str(SHARDS)}
        for name, value in expected.items():
            if found.get(name, value) != value:
                raise StoreError(
                    f"the store holds {name} {found[name]}, this collector writes {name} {value}: "
                    f"use another redis.prefix or server, or the collector that wrote it"
                )
        resolutions = {*found.get("resolutions", "").split(","), str(keys.resolution)} - {""}
        mapping = {**expected, "resolutions": ",".join(sorted(resolutions, key=int))}
        if mapping != found:
            write = client.hset(keys.meta.decode(), mapping=cast("Any", mapping))
            await cast("Awaitable[Any]", write)
