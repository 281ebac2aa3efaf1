"""A redis-py client for an address, and what its errors mean.

redis-py brings connections, authentication, TLS and unix sockets; how often to try again is decided here, so
its own retries are off.
"""

from __future__ import annotations

import re
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

# What an error reply says, or how redis-py words it -> what the operator is told. All but WRONGTYPE keep the
# batch.
_REMEDIES: Final = {
    "NOAUTH|authentication required": "set the password in redis.url",
    "WRONGPASS|invalid username-password": "check the user and password in redis.url",
    "NOPERM|has no permissions": "give the user the rights listed in docs/store.md",
    "OOM|used memory": "the server is full: raise maxmemory, or shorten what is kept",
    "READONLY|read only replica": "point redis.url at the primary",
    "MISCONF": "the server cannot save to disk: look at its log and its free space",
    "LOADING|loading the dataset": "it will be tried again",
    "BUSY ": "a script blocks the server: it will be tried again",
    "MOVED|CROSSSLOT|cluster support": "redis.url cannot name a cluster yet",
}
_REMEDY: Final = {re.compile(pattern, re.IGNORECASE): text for pattern, text in _REMEDIES.items()}


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
    if isinstance(error, StoreError):
        return text
    # redis-py takes the code off the texts that it has a class for, and not always keeps it beside them.
    full = f"{getattr(error, 'status_code', None) or ''} {text}"
    for pattern, remedy in _REMEDY.items():
        if pattern.search(full):
            return f"{text} ({remedy})"
    return text


@asynccontextmanager
async def store_errors() -> AsyncIterator[None]:
    """Turns what redis-py raises into StoreError, with the remedy."""
    try:
        yield
    except (TimeoutError, RedisError, OSError) as error:
        raise StoreError(explain(error)) from error


async def check_schema(client: Redis, keys: KeySpace) -> None:
    """Notes what the store holds on first use; StoreError when it is of another version."""
    async with store_errors():
        meta = cast("dict[bytes, bytes]", await cast("Awaitable[Any]", client.hgetall(keys.meta.decode())))
        found = {name.decode(): value.decode() for name, value in meta.items()}
        expected = {"schema": str(SCHEMA), "shards": str(SHARDS)}
        for name, value in expected.items():
            if found.get(name, value) != value:
                raise StoreError(
                    f"the store holds {name} {found[name]}, this collector writes {name} {value}: "
                    f"use another redis.prefix or server, or the collector that wrote it"
                )
        resolutions = {*found.get("resolutions", "").split(","), *map(str, keys.resolutions)} - {""}
        mapping = {**expected, "resolutions": ",".join(sorted(resolutions, key=int))}
        if mapping != found:
            write = client.hset(keys.meta.decode(), mapping=cast("Any", mapping))
            await cast("Awaitable[Any]", write)
