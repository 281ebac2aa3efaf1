"""Real servers for a test, of both products: alone, as a cluster, under Sentinels. All end with the test."""

from __future__ import annotations

import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import redis
import trustme
from harness import wait_for

from collector.embedded import find_server
from collector.store.keys import CLUSTER_SLOTS
from collector.store.settings import StoreTlsSettings

REDIS = shutil.which("redis-server")

redis_only = pytest.mark.skipif(REDIS is None, reason="redis-server is not installed")


def binary(product: str) -> str:
    """The server's path; skips the test where it is not installed."""
    if product == "valkey":
        return str(find_server())
    if REDIS is None:
        pytest.skip("redis-server is not installed")
    return REDIS


each_product = pytest.mark.parametrize("product", ["valkey", "redis"])


def free_port() -> int:
    """A port that is free, and whose cluster bus (10,000 above it) is free too."""
    while True:
        with socket.socket() as sock, socket.socket() as bus:
            sock.bind(("127.0.0.1", 0))
            port: int = sock.getsockname()[1]
            if port < 20_000 or port > 55_000:
                continue
            try:
                bus.bind(("127.0.0.1", port + 10_000))
            except OSError:
                continue
            return port


@dataclass
class Certificates:
    """Files of an authority, of servers at 127.0.0.1 and of a client; `other.pem` is another authority."""

    directory: Path

    def __post_init__(self) -> None:
        ca = trustme.CA()
        ca.cert_pem.write_to_path(self.directory / "ca.pem")
        trustme.CA().cert_pem.write_to_path(self.directory / "other.pem")
        for name, whose in (("server", "127.0.0.1"), ("client", "client.example")):
            issued = ca.issue_cert(whose)
            issued.private_key_pem.write_to_path(self.directory / f"{name}.key")
            blobs = [one.bytes() for one in issued.cert_chain_pems]
            (self.directory / f"{name}.pem").write_bytes(b"".join(blobs))

    def options(self, port: int) -> tuple[str, ...]:
        """Those of a server that wants TLS and a client's certificate on that port."""
        return (
            *("--tls-port", str(port), "--tls-ca-cert-file", str(self.directory / "ca.pem")),
            *("--tls-cert-file", str(self.directory / "server.pem")),
            *("--tls-key-file", str(self.directory / "server.key")),
        )

    def client(self, **changed: Path | None) -> StoreTlsSettings:
        """What a client needs, but for what is changed."""
        files = {"ca": "ca.pem", "certificate": "client.pem", "key": "client.key"}
        paths: dict[str, Path | None] = {key: self.directory / name for key, name in files.items()}
        return StoreTlsSettings(**{**paths, **changed})  # type: ignore[arg-type]


class ServerProcess:
    """One server on a TCP port, which can be killed and started again with its data."""

    def __init__(
        self,
        product: str,
        directory: Path,
        *options: str,
        port: int = 0,
        prepare: Callable[[], None] | None = None,
    ) -> None:
        """`options` are those of the command line; `prepare` runs in the child before the server does."""
        self.directory = directory
        self.port = port or free_port()
        self._command = [binary(product)]
        self._options = options
        self._prepare = prepare
        directory.mkdir(parents=True, exist_ok=True)
        self.start()

    def start(self) -> None:
        """Starts it, and waits until it answers."""
        common = ["--port", str(self.port), "--bind", "127.0.0.1", "--dir", str(self.directory)]
        with (self.directory / "server.log").open("ab") as out:
            self.process = subprocess.Popen(
                [*self._command, *self._options, *common],
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                cwd=self.directory,
                preexec_fn=self._prepare,  # noqa: PLW1509  # it sets a limit and a signal
            )
        wait_for(self._answers, f"the server on port {self.port}:\n{self.log[-500:]}")

    @property
    def log(self) -> str:
        """What it has said."""
        path = self.directory / "server.log"
        return path.read_text(errors="replace") if path.exists() else ""

    def _answers(self) -> bool:
        if self.process.poll() is not None:
            raise AssertionError(f"the server ended:\n{self.log[-2000:]}")
        try:
            with socket.create_connection(("127.0.0.1", self.port), timeout=1) as sock:
                sock.sendall(b"PING\r\n")
                return sock.recv(5) in (b"+PONG", b"-NOAU")
        except OSError:
            return False

    def client(self) -> redis.Redis:
        """A client with all rights."""
        return redis.Redis(port=self.port, protocol=2)

    def command(self, *words: Any) -> Any:
        """The reply to one command."""
        with self.client() as client:
            return client.execute_command(*words)

    def kill(self, number: int = signal.SIGKILL) -> None:
        """Ends it."""
        if self.process.poll() is None:
            self.process.send_signal(number)
        self.process.wait()


@contextmanager
def alone(
    product: str, directory: Path, *options: str, prepare: Callable[[], None] | None = None
) -> Iterator[ServerProcess]:
    """One server, which keeps nothing unless told to."""
    options = ("--save", "", *options) if "--save" not in options else options
    server = ServerProcess(product, directory, *options, prepare=prepare)
    try:
        yield server
    finally:
        server.kill()


class ClusterProcesses:
    """Primaries, each with as many replicas; slots are spread evenly."""

    def __init__(self, product: str, directory: Path, primaries: int, replicas: int) -> None:
        count = primaries * (1 + replicas)
        options = (
            *("--cluster-enabled", "yes", "--cluster-node-timeout", "1000", "--save", ""),
            *("--appendonly", "yes", "--appendfsync", "everysec", "--cluster-require-full-coverage", "no"),
        )
        self.servers: list[ServerProcess] = []
        try:
            for n in range(count):
                self.servers.append(ServerProcess(product, directory / f"node{n}", *options))
            self.primaries = self.servers[:primaries]
            self._join(primaries)
        except BaseException:
            self.end()
            raise

    def _join(self, primaries: int) -> None:
        first, others = self.servers[0], self.servers[1:]
        share = CLUSTER_SLOTS // primaries
        for n, server in enumerate(self.primaries):
            last = CLUSTER_SLOTS if n == primaries - 1 else (n + 1) * share
            server.command("CLUSTER", "ADDSLOTSRANGE", n * share, last - 1)
        for n, server in enumerate(self.servers):
            server.command("CLUSTER", "SET-CONFIG-EPOCH", n + 1)
        for server in others:
            server.command("CLUSTER", "MEET", "127.0.0.1", first.port)
        wait_for(
            lambda: all(len(self.known(one)) == len(self.servers) for one in self.servers), "all to meet"
        )
        for n, server in enumerate(self.servers[primaries:]):
            primary = self.id(self.primaries[n % primaries])
            wait_for(partial(_accepted, server, "CLUSTER", "REPLICATE", primary), "a replica")
        wait_for(lambda: all(self.state(one) == "ok" for one in self.servers), "the cluster to be ok")
        for server in self.servers[primaries:]:
            wait_for(partial(_in_step, server), "replicas to be in step")

    def known(self, server: ServerProcess) -> list[str]:
        """What a server says of all nodes, a line each."""
        text = server.command("CLUSTER", "NODES")
        return (text.decode() if isinstance(text, bytes) else str(text)).splitlines()

    def state(self, server: ServerProcess) -> str:
        """ok or fail."""
        text = server.command("CLUSTER", "INFO")
        if isinstance(text, dict):
            return str(text["cluster_state"])
        return "ok" if b"cluster_state:ok" in text else "fail"

    def id(self, server: ServerProcess) -> str:
        """The name of a node."""
        return str(server.command("CLUSTER", "MYID").decode())

    @property
    def url(self) -> str:
        """As `redis.url` names it."""
        return "redis+cluster://" + ",".join(f"127.0.0.1:{one.port}" for one in self.servers[:2])

    def move(self, slot: int, source: ServerProcess, target: ServerProcess, pause: float) -> None:
        """Moves a slot with its keys, a few at a time, as redis-cli --cluster reshard does."""
        target.command("CLUSTER", "SETSLOT", slot, "IMPORTING", self.id(source))
        source.command("CLUSTER", "SETSLOT", slot, "MIGRATING", self.id(target))
        while keys := source.command("CLUSTER", "GETKEYSINSLOT", slot, 10):
            source.command("MIGRATE", "127.0.0.1", target.port, "", 0, 5000, "KEYS", *keys)
            time.sleep(pause)
        owner = self.id(target)
        for server in (target, source, *self.primaries):
            with suppress(redis.exceptions.ResponseError):
                server.command("CLUSTER", "SETSLOT", slot, "NODE", owner)

    def end(self) -> None:
        """Ends all."""
        for server in self.servers:
            server.kill()


@contextmanager
def cluster(
    product: str, directory: Path, *, primaries: int = 3, replicas: int = 0
) -> Iterator[ClusterProcesses]:
    """A cluster that is in step."""
    found = ClusterProcesses(product, directory, primaries, replicas)
    try:
        yield found
    finally:
        found.end()


def _accepted(server: ServerProcess, *words: Any) -> bool:
    try:
        server.command(*words)
    except redis.exceptions.ResponseError:
        return False
    return True


def _in_step(server: ServerProcess) -> bool:
    with socket.create_connection(("127.0.0.1", server.port), timeout=5) as sock:
        sock.sendall(b"INFO replication\r\n")
        return b"master_link_status:up" in sock.recv(65536)


class SentinelProcesses:
    """A primary, a replica, and three Sentinels that watch them; over TLS, where there are certificates."""

    SERVICE = "metrics"

    def __init__(self, product: str, directory: Path, certificates: Certificates | None = None) -> None:
        options = ("--save", "", "--appendonly", "yes", "--repl-diskless-sync-delay", "0")
        self._certificates = certificates
        self._tls_ports: dict[Path, int] = {}
        self.servers: list[ServerProcess] = []
        self.sentinels: list[ServerProcess] = []
        try:
            first, second = directory / "first", directory / "second"
            self.primary = ServerProcess(product, first, *options, *self._tls(first))
            self.servers.append(self.primary)
            follow = ("--replicaof", f"127.0.0.1 {self._port(self.primary)}")
            self.replica = ServerProcess(product, second, *options, *follow, *self._tls(second))
            self.servers.append(self.replica)
            wait_for(partial(_in_step, self.replica), "the replica to be in step")
            for n in range(3):
                self.sentinels.append(self._sentinel(product, directory / f"sentinel{n}"))
            wait_for(lambda: all(self._agreed(one) for one in self.sentinels), "the Sentinels to meet")
        except BaseException:
            self.end()
            raise

    def _tls(self, directory: Path) -> tuple[str, ...]:
        """Options of the server in a directory: the others reach it over TLS, and only tests do not."""
        if self._certificates is None:
            return ()
        port = self._tls_ports[directory] = free_port()
        return *self._certificates.options(port), "--tls-replication", "yes"

    def _port(self, server: ServerProcess) -> int:
        return self._tls_ports.get(server.directory, server.port)

    def _sentinel(self, product: str, directory: Path) -> ServerProcess:
        directory.mkdir()
        name = self.SERVICE
        (directory / "sentinel.conf").write_text(
            f"sentinel monitor {name} 127.0.0.1 {self._port(self.primary)} 2\n"
            f"sentinel down-after-milliseconds {name} 1000\n"
            f"sentinel failover-timeout {name} 5000\n"
        )
        return ServerProcess(product, directory, "sentinel.conf", "--sentinel", *self._tls(directory))

    def _agreed(self, sentinel: ServerProcess) -> bool:
        state = sentinel.command("SENTINEL", "MASTER", self.SERVICE)
        found = dict(zip(state[::2], state[1::2], strict=True)) if isinstance(state, list) else state
        text = {_text(key): _text(value) for key, value in found.items()}
        return text["num-other-sentinels"] == "2" and text["num-slaves"] == "1"

    @property
    def url(self) -> str:
        """As `redis.url` names it."""
        places = ",".join(f"127.0.0.1:{self._port(one)}" for one in self.sentinels)
        return f"redis{'s' if self._certificates else ''}+sentinel://{places}/{self.SERVICE}/0"

    def end(self) -> None:
        """Ends all."""
        for server in (*self.sentinels, *self.servers):
            server.kill()


def _text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)


@contextmanager
def sentinels(
    product: str, directory: Path, certificates: Certificates | None = None
) -> Iterator[SentinelProcesses]:
    """A trio that is in step."""
    found = SentinelProcesses(product, directory, certificates)
    try:
        yield found
    finally:
        found.end()


def admin(server: ServerProcess, user: str, rules: Sequence[str]) -> None:
    """Makes a user of just these rules."""
    server.command("ACL", "SETUSER", user, "reset", "on", ">secret", *rules)
