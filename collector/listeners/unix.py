"""Unix sockets: the file, its owner, and who is at the other end.

A socket file outlives its process. So one that is found is asked: where nobody answers it is stale and
replaced, a live owner is left alone. Two daemons that start at one time ask in turn, under a lock on the
directory.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import socket
import stat
import struct
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from collector.addresses import Address, FileMode
from collector.errors import OperatorError
from collector.listeners.sockets import BACKLOG

_CREDENTIALS: Final = struct.Struct("=iII")  # Linux: struct ucred: pid, uid, gid
_UNKNOWN: Final = "process unknown"
_LOCK_SECONDS: Final = 5.0  # that another daemon may take to bind; milliseconds, as a rule
_QUEUE: Final = Path("/proc/sys/net/unix/max_dgram_qlen")
_DIRECTORY_MODE: Final = 0o755
_NOT_YET: Final = 0o600  # of the file until its mode is set; no wider moment in between


@dataclass(slots=True)
class SocketFile:
    """A bound socket and its file, which is removed at the end if it is still ours."""

    sock: socket.socket
    path: Path
    identity: tuple[int, int]  # device and inode

    def remove(self) -> None:
        """Removes the file, unless another daemon has put its own there."""
        with contextlib.suppress(OSError):
            if _identity(self.path) == self.identity:
                self.path.unlink()


def bind(address: Address, mode: FileMode) -> SocketFile:
    """A non-blocking socket at the address's path; OperatorError if it cannot be had."""
    kind = socket.SOCK_DGRAM if address.datagrams else socket.SOCK_STREAM
    path = Path(address.path)
    try:
        path.parent.mkdir(mode=_DIRECTORY_MODE, parents=True, exist_ok=True)
        with _alone_in(path.parent):
            _make_way(address, path, kind)
            sock = socket.socket(socket.AF_UNIX, kind)
            try:
                with contextlib.suppress(OSError):  # Linux only; elsewhere the umask has to do
                    os.fchmod(sock.fileno(), _NOT_YET)
                sock.setblocking(False)
                sock.bind(address.path)
                path.chmod(mode.value)
                if kind == socket.SOCK_STREAM:
                    sock.listen(BACKLOG)
                return SocketFile(sock, path, _identity(path))
            except OSError:
                sock.close()
                raise
    except OSError as error:
        remedy = f"{error.strerror}: {error.filename or path}; "
        remedy += "choose a directory that this user may write to, or make it with the rights it needs"
        raise OperatorError(f"cannot listen on {address}", remedy) from error


@contextlib.contextmanager
def _alone_in(directory: Path) -> Iterator[None]:
    """One daemon at a time: between the question and the answer nobody may bind. It leaves no lock file."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        end = time.monotonic() + _LOCK_SECONDS
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > end:
                    raise
                time.sleep(0.01)
        yield
    finally:
        os.close(descriptor)


def _make_way(address: Address, path: Path, kind: socket.SocketKind) -> None:
    """Removes a stale socket file; OperatorError for a live owner and for what is no socket."""
    try:
        found = path.lstat().st_mode
    except FileNotFoundError:
        return
    problem = f"cannot listen on {address}"
    if not stat.S_ISSOCK(found):
        raise OperatorError(
            problem, f"{path} is there and is no socket: move it away, or choose another path"
        )
    with socket.socket(socket.AF_UNIX, kind) as asking:
        asking.setblocking(False)
        try:
            asking.connect(address.path)
        except FileNotFoundError:
            return
        except OSError as error:
            if error.errno == errno.ECONNREFUSED:
                path.unlink()
                return
            if error.errno == errno.EACCES:
                raise OperatorError(
                    problem, f"{path} belongs to another user: remove it, or choose another path"
                ) from error
            # EPROTOTYPE: a socket of the other kind; EAGAIN: its queue is full. Either has an owner.
    raise OperatorError(problem, "another process listens there: stop it, or choose another path")


def _identity(path: Path) -> tuple[int, int]:
    found = path.lstat()
    return found.st_dev, found.st_ino


def queue_length() -> int | None:
    """How many datagrams a unix socket of this system holds until they are taken, where that is told."""
    try:
        return int(_QUEUE.read_text())
    except (OSError, ValueError):
        return None


def peer_process(sock: socket.socket) -> str:
    """The process that connected, "process 4711"."""
    if sys.platform != "linux":
        return _UNKNOWN
    return _process(sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size))


def ask_for_processes(sock: socket.socket) -> bool:
    """Lets each datagram of a socket tell its process, for `process_of`; whether this system can."""
    if sys.platform != "linux":
        return False
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
    return True


def process_of(ancillary: list[tuple[int, int, bytes]]) -> str:
    """The process that sent a datagram, "process 4711"."""
    if sys.platform == "linux":
        for level, kind, raw in ancillary:
            if (
                level == socket.SOL_SOCKET
                and kind == socket.SCM_CREDENTIALS
                and len(raw) >= _CREDENTIALS.size
            ):
                return _process(raw)
    return _UNKNOWN


def _process(credentials: bytes) -> str:
    pid = _CREDENTIALS.unpack_from(credentials)[0]
    return f"process {pid}" if pid else _UNKNOWN  # 0: it lives in another pid namespace
