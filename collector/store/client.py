"""redis-py clients for an address, and what their errors mean.

redis-py brings connections, authentication, TLS, unix sockets and Sentinel; how often to try again is decided
here, so its own retries are off.
"""

from __future__ import annotations

import re
import ssl
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from enum import Enum
from typing import Any, Final, Protocol, cast

from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.asyncio.sentinel import Sentinel
from redis.backoff import NoBackoff
from redis.exceptions import RedisError, ResponseError

from collector.errors import OperatorError, StoreError
from collector.store.address import Layout, StoreAddress
from collector.store.keys import SCHEMA, SHARDS, KeySpace
from collector.store.settings import StoreSettings, StoreTlsSettings

TIMEOUT: Final = 5.0  # seconds for a connection or a reply; a slower server counts as away
NAME: Final = "collector"  # as CLIENT LIST shows our connections


class Fault(Enum):
    """What an error is the fault of. Whichever it is, the batch is kept."""

    SLOT = "slot"  # of where a slot is: it moves, or is nobody's just now; other slots are well
    SERVER = "server"  # of the server: away, full, loading, a replica. It may be well in a moment
    RIGHTS = "rights"  # of what we may do, which somebody has to change


# What an error reply says, or how redis-py words it -> whose fault it is, and what the operator is told. A
# script's errors carry the code somewhere within, so all of the text is searched.
_MEANINGS: Final = {
    "NOAUTH|authentication required": (Fault.RIGHTS, "set redis.user and redis.password"),
    "WRONGPASS|invalid username-password|invalid password": (
        Fault.RIGHTS,
        "check the user and password of redis.url",
    ),
    "NOPERM|no permissions|ACL failure": (Fault.RIGHTS, "give the user the rights listed in docs/store.md"),
    "OOM|used memory": (Fault.SERVER, "the server is full: raise maxmemory, or shorten what is kept"),
    "READONLY|read only replica|previous master is now": (Fault.SERVER, "point redis.url at the primary"),
    "MISCONF": (Fault.SERVER, "the server cannot save to disk: look at its log and its free space"),
    "NOREPLICAS|enough good replicas": (
        Fault.SERVER,
        "the server wants more replicas: see min-replicas-to-write",
    ),
    "LOADING|loading the dataset": (Fault.SERVER, "it will be tried again"),
    "MASTERDOWN": (Fault.SERVER, "the replica has lost its primary: point redis.url at the primary"),
    "BUSY ": (Fault.SERVER, "a script blocks the server: it will be tried again"),
    "NOSCRIPT": (Fault.SERVER, "somebody flushed the scripts: ours is loaded again"),
    "CLUSTERDOWN|slot not served|has that slot": (
        Fault.SLOT,
        "see CLUSTER INFO: a node is away, or a slot is nobody's",
    ),
    "MOVED|ASK |TRYAGAIN": (
        Fault.SLOT,
        "the slot is elsewhere, or moves: of a cluster redis.url is redis+cluster://",
    ),
    "cluster support": (Fault.SERVER, "it is no cluster: write redis:// in redis.url"),
    "CROSSSLOT": (Fault.SERVER, "write redis+cluster:// in redis.url"),
    "No master found": (Fault.SERVER, "no Sentinel knows a live primary of that name: see redis.url"),
    "certificate verify failed": (
        Fault.SERVER,
        "see redis.tls: ca has to name who issued the server's certificate",
    ),
    "wrong version number|record layer": (
        Fault.SERVER,
        "the server speaks no TLS there: write redis://, not rediss://",
    ),
}
_MEANING: Final = {re.compile(pattern, re.IGNORECASE): found for pattern, found in _MEANINGS.items()}


def connect(url: str, settings: StoreSettings | None = None) -> Redis:
    """A client of one server, or of the primary that Sentinels name; OperatorError for what cannot be read.

    `settings` adds user, password and certificates. Nothing is sent yet: the first command connects.
    """
    settings = settings or StoreSettings()
    address = StoreAddress.parse(url)
    options = connection_options(address, settings)
    if address.layout is Layout.CLUSTER:
        raise OperatorError("redis.url names a cluster", "which has more than one client: use `open_store`")
    if address.path:
        return Redis(unix_socket_path=address.path, **options)
    if address.layout is Layout.SINGLE:
        ((host, port),) = address.hosts
        return Redis(host=host, port=port, **options)
    # Sentinels have users of their own, and are asked over TLS too if the servers are.
    asked = {
        **options,
        "username": settings.sentinel_user or None,
        "password": settings.sentinel_password or None,
    }
    hosts, asked = list(address.hosts), {**asked, "db": 0}
    sentinel = Sentinel(hosts, sentinel_kwargs=asked, **options)  # type: ignore[no-untyped-call]
    return cast("Redis", sentinel.master_for(address.service))


def connection_options(address: StoreAddress, settings: StoreSettings) -> dict[str, Any]:
    """What redis-py is told for every connection; OperatorError when a certificate cannot be read."""
    options: dict[str, Any] = {
        "db": address.database,
        "username": settings.user or address.user or None,
        "password": settings.password or address.password or None,
        "protocol": 2,
        "retry": Retry(NoBackoff(), 0),
        "socket_timeout": TIMEOUT,
        "socket_connect_timeout": TIMEOUT,
        "client_name": NAME,
        "driver_info": None,  # CLIENT SETINFO would be one more right
    }
    if address.tls:
        options |= _tls_options(settings.tls)
    return options


def _tls_options(tls: StoreTlsSettings) -> dict[str, Any]:
    """redis-py's names for them; the files are tried here, since it would name none that is at fault."""
    files = {"ca": tls.ca, "certificate": tls.certificate, "key": tls.key}
    for key, path in files.items():
        try:
            if path is not None:
                path.open("rb").close()
        except OSError as error:
            problem = f"redis.tls.{key}: {path} cannot be read"
            raise OperatorError(problem, error.strerror or str(error)) from error
    if tls.key is not None and tls.certificate is None:
        raise OperatorError("redis.tls.key stands alone", "set redis.tls.certificate too")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    try:
        key = "ca"
        if tls.ca is not None:
            context.load_verify_locations(tls.ca)
        key = "certificate"
        if tls.certificate is not None:
            # Without a password OpenSSL would ask the terminal for that of an encrypted key.
            context.load_cert_chain(tls.certificate, tls.key, password=lambda: "")
    except ssl.SSLError as error:
        why = (error.reason or str(error)).lower().replace("_", " ")
        remedy = "write PEM files: authorities in ca, a certificate with its own key, which has no password"
        raise OperatorError(f"redis.tls.{key}: {files[key]}: {why}", remedy) from error
    return {
        "ssl": True,
        "ssl_ca_certs": None if tls.ca is None else str(tls.ca),
        "ssl_certfile": None if tls.certificate is None else str(tls.certificate),
        "ssl_keyfile": None if tls.key is None else str(tls.key),
        "ssl_check_hostname": tls.check_hostname,
    }


class RightsError(StoreError):
    """The store does not let us; somebody has to change that."""


def fault_of(error: BaseException) -> Fault:
    """Whose fault an error is."""
    if isinstance(error, RightsError):
        return Fault.RIGHTS
    meaning = _meaning(error)
    return Fault.SERVER if meaning is None else meaning[0]


def explain(error: BaseException) -> str:
    """What went wrong, with the remedy where there is one."""
    text = str(error) or type(error).__name__
    meaning = None if isinstance(error, StoreError) else _meaning(error)
    return text if meaning is None else f"{text} ({meaning[1]})"


def _meaning(error: BaseException) -> tuple[Fault, str] | None:
    # redis-py takes the code off the texts that it has a class for, and keeps it beside them.
    text = f"{getattr(error, 'status_code', None) or ''} {error}"
    return next((found for pattern, found in _MEANING.items() if pattern.search(text)), None)


@asynccontextmanager
async def store_errors() -> AsyncIterator[None]:
    """Turns what redis-py raises into StoreError, with the remedy."""
    try:
        yield
    except (TimeoutError, RedisError, OSError) as error:
        raise StoreError(explain(error)) from error


async def exchange(connection: Any, commands: Sequence[tuple[Any, ...]]) -> list[Any]:
    """Sends commands over a connection of redis-py's; the reply to each, or the error it was refused with."""
    await connection.send_packed_command(connection.pack_commands(commands), check_health=False)
    return [await reply_of(connection) for _ in commands]


async def reply_of(connection: Any) -> Any:
    """The next reply, bytes left as they are; what is refused comes back as the error that it is."""
    try:
        return await connection.read_response(disable_decoding=True, timeout=TIMEOUT)
    except ResponseError as error:
        return error


class Asked(Protocol):
    """What answers commands: see `topology.Topology.ask`."""

    async def ask(self, commands: Iterable[tuple[Any, ...]]) -> list[Any]:
        """The reply to each command."""
        ...


async def check_schema(store: Asked, keys: KeySpace) -> None:
    """Notes what the store holds on first use; StoreError when it is of another version."""
    (meta,) = await store.ask([("HGETALL", keys.meta)])
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
        await store.ask([("HSET", keys.meta, *(part for pair in mapping.items() for part in pair))])
