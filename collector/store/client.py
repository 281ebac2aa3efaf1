"""redis-py clients for an address, and how commands go over one connection of theirs.

redis-py brings connections, authentication, TLS, unix sockets and Sentinel; how often to try again is decided
here, so its own retries are off.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final, Protocol, cast

from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.asyncio.sentinel import (
    MasterNotFoundError,
    Sentinel,
    SentinelConnectionPool,
    SentinelManagedConnection,
    SentinelManagedSSLConnection,
)
from redis.backoff import NoBackoff
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import RedisError, ResponseError

from collector.addresses import host_port
from collector.errors import OperatorError, StoreError
from collector.store.address import Layout, StoreAddress
from collector.store.faults import Fault, fault_of
from collector.store.keys import SCHEMA, SHARDS, KeySpace
from collector.store.settings import StoreSettings, StoreTlsSettings

TIMEOUT: Final = 5.0  # seconds for a connection or a reply; a slower server counts as away
NAME: Final = "collector"  # as CLIENT LIST shows our connections


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
    sentinel = _Sentinels(hosts, sentinel_kwargs=asked, **options)  # type: ignore[no-untyped-call]
    kind = _TlsPrimaryConnection if address.tls else _PrimaryConnection
    return cast("Redis", sentinel.master_for(address.service, connection_class=kind))


class _Sentinels(Sentinel):
    """Sentinels that say who of them said what, where redis-py shows its own objects."""

    async def discover_master(self, service_name: str) -> tuple[str, int]:
        """Host and port of the primary, from the first Sentinel that knows it alive."""
        problems: list[str] = []
        for number, one in enumerate(self.sentinels):
            place = host_port(*(one.connection_pool.connection_kwargs[key] for key in ("host", "port")))
            try:
                masters = cast("dict[str, Any]", await one.sentinel_masters())
            except (RedisError, OSError, TimeoutError) as error:
                rights = fault_of(error) is Fault.RIGHTS
                hint = " (see redis.sentinel_user and redis.sentinel_password)" if rights else ""
                problems.append(f"{place}: {error}{hint}")
                continue
            state = masters.get(service_name)
            if state and self.check_master_state(state, service_name):
                self.sentinels.insert(0, self.sentinels.pop(number))  # it is asked first the next time
                return state["ip"], state["port"]
            problems.append(f"{place}: {'it is down' if state else 'it is not known here'}")
        raise MasterNotFoundError(f"no Sentinel has a primary {service_name!r}: {'; '.join(problems)}")


async def check_primary(client: Redis, connection: Any) -> None:
    """Raises StoreError when Sentinels have another primary by now than the one that a connection leads to.

    The old one takes writes until a Sentinel demotes it, some ten seconds later, and loses them then. Without
    an answer of the Sentinels nothing is known, and nothing is raised.
    """
    pool = client.connection_pool
    if not isinstance(pool, SentinelConnectionPool):
        return
    try:
        host, port = await pool.get_master_address()  # type: ignore[no-untyped-call]
    except (RedisError, OSError, TimeoutError):
        return
    if (host, port) != (connection.host, connection.port):
        await pool.disconnect(inuse_connections=False)  # those who read would get what was there before
        raise StoreError(
            f"{host_port(host, port)} is the primary now: it will be given what it does not have"
        )


class _PrimaryConnection(SentinelManagedConnection):
    """A connection to what Sentinels call the primary, which has to say so itself: one Sentinel may hear of a
    failover seconds after another, and what was demoted would answer with what it had by then.
    """

    async def connect_to(self, address: tuple[str, int]) -> None:
        """Connects; ConnectionError when it is no primary, and then another Sentinel is asked first."""
        await super().connect_to(address)  # type: ignore[no-untyped-call]
        await self.send_command("ROLE")
        role = await self.read_response(disable_decoding=True)
        if role[0] == b"master":
            return
        await self.disconnect(nowait=True)
        sentinels = self.connection_pool.sentinel_manager.sentinels
        sentinels.append(sentinels.pop(0))
        raise RedisConnectionError(f"{host_port(*address)} is no primary any more")


class _TlsPrimaryConnection(_PrimaryConnection, SentinelManagedSSLConnection):
    """The same over TLS."""


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


async def exchange(connection: Any, commands: Sequence[tuple[Any, ...]]) -> list[Any]:
    """Sends commands over a connection of redis-py's; the reply to each, or the error it was refused with."""
    await send(connection, connection.pack_commands(commands))
    return [await reply_of(connection) for _ in commands]


async def send(connection: Any, packed: Sequence[bytes]) -> None:
    """Sends packed commands. ConnectionResetError where the other side has closed."""
    try:
        await connection.send_packed_command(packed, check_health=False)
    except RuntimeError as error:  # how uvloop says it between two writes
        raise ConnectionResetError(str(error)) from error


async def reply_of(connection: Any) -> Any:
    """The next reply, bytes left as they are; what is refused comes back as the error that it is.

    An error after TIMEOUT, which is the connection's own: with one of the call redis-py raises none.
    """
    try:
        return await connection.read_response(disable_decoding=True)
    except ResponseError as error:
        return error


def end_if_cancelled() -> None:
    """Raises CancelledError if the task was cancelled, however long ago.

    redis-py sends with `asyncio.wait_for`, which in Python 3.11 can swallow a cancellation:
    a task that goes on for ever has to look for itself.
    """
    task = asyncio.current_task()
    if task is not None and task.cancelling():
        raise asyncio.CancelledError


class Asked(Protocol):
    """What answers commands: see `topology.Topology.ask`."""

    async def ask(self, commands: Iterable[tuple[Any, ...]]) -> list[Any]:
        """The reply to each command."""
        ...


async def read_meta(store: Asked, keys: KeySpace) -> dict[str, str]:
    """What the store says it holds."""
    (meta,) = await store.ask([("HGETALL", keys.meta)])
    return {name.decode(): value.decode() for name, value in meta.items()}


async def read_resolutions(store: Asked, keys: KeySpace) -> set[int]:
    """Seconds a slot of all that has been written here."""
    named = (await read_meta(store, keys)).get("resolutions", "")
    return {int(one) for one in named.split(",") if one}


async def check_schema(store: Asked, keys: KeySpace) -> None:
    """Notes what the store holds on first use; StoreError when it is of another version."""
    found = await read_meta(store, keys)
    if fault := schema_fault(found):
        raise StoreError(fault)
    expected = _expected()
    resolutions = {*found.get("resolutions", "").split(","), *map(str, keys.resolutions)} - {""}
    mapping = {**expected, "resolutions": ",".join(sorted(resolutions, key=int))}
    if mapping != found:
        await store.ask([("HSET", keys.meta, *(part for pair in mapping.items() for part in pair))])


def schema_fault(found: Mapping[str, str]) -> str:
    """Why a store that says this of itself cannot be written into; "" when it can."""
    for name, value in _expected().items():
        if found.get(name, value) != value:
            return (
                f"the store holds {name} {found[name]}, this collector writes {name} {value}: "
                f"use another redis.prefix or server, or the collector that wrote it"
            )
    return ""


def _expected() -> dict[str, str]:
    return {"schema": str(SCHEMA), "shards": str(SHARDS)}
