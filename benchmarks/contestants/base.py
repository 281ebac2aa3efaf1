"""What a contestant is, and the life of the process that it runs in."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from benchmarks import process
from benchmarks.counters import Counter
from benchmarks.errors import BenchmarkError
from benchmarks.payload import Load
from benchmarks.target import Target

HOST: Final = "127.0.0.1"
FLUSH: Final = 10  # seconds of a window, for every contestant: etsy's default and ours
RECEIVE_BUFFER: Final = 8 * 2**20  # bytes, where a contestant lets itself be told
_START: Final = 30.0  # seconds until it must listen
_STOP: Final = 20.0  # seconds until it is killed


@dataclass(frozen=True, slots=True)
class Workload:
    """One column of the comparison."""

    name: str
    load: Load
    scheme: str = "udp"


@dataclass(frozen=True, slots=True)
class Running:
    """A contestant that listens."""

    target: Target
    pid: int
    counter: Counter
    notes: Callable[[], Mapping[str, float]] = field(default=dict)
    """What else it tells of itself after a run, by name."""


class Contestant(ABC):
    """A server that can be started."""

    name: str
    schemes: frozenset[str] = frozenset({"udp"})
    tags: bool = False
    """Whether it understands DogStatsD tags."""
    largest: int = 65507
    """Bytes that it reads of a datagram."""

    @abstractmethod
    def missing(self) -> str | None:
        """Why it cannot be run here; None if it can."""

    @abstractmethod
    def version(self) -> str:
        """Its version, of one that can be run."""

    @abstractmethod
    def start(self, directory: Path, scheme: str) -> AbstractContextManager[Running]:
        """Runs it with its files in a directory of its own; BenchmarkError when it does not start."""

    def unfit(self, workload: Workload) -> str | None:
        """Why it takes no part in a workload; None if it does."""
        if workload.scheme not in self.schemes:
            return f"no {workload.scheme}"
        if workload.load.tags and not self.tags:
            return "knows no tags"
        if workload.load.size > self.largest:
            return f"reads {self.largest} bytes of a datagram at most"
        return None


def free_port() -> int:
    """A port that is free for UDP and for TCP, until somebody takes it."""
    for _ in range(100):
        with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as first:
            first.bind((HOST, 0))
            port: int = first.getsockname()[1]
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as second, contextlib.suppress(OSError):
                second.bind((HOST, port))
                return port
    raise BenchmarkError("no free port", "does something use them all up?")


@contextlib.contextmanager
def child(
    command: list[str], log: Path, env: Mapping[str, str] | None = None, directory: Path | None = None
) -> Iterator[subprocess.Popen[bytes]]:
    """A process whose output goes to a file; ended by its id on the way out."""
    with log.open("ab") as output:
        started = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            cwd=directory,
            env={**os.environ, **(env or {})},
            start_new_session=True,
        )
    try:
        yield started
    finally:
        end(started)


def end(started: subprocess.Popen[bytes]) -> None:
    """Asks a process to stop, and kills it when it does not."""
    if started.poll() is None:
        started.terminate()
    try:
        started.wait(_STOP)
    except subprocess.TimeoutExpired:
        started.kill()
        started.wait()


def wait_for(started: subprocess.Popen[bytes], log: Path, ready: Callable[[], bool]) -> None:
    """Waits until it is ready; BenchmarkError with the end of its log if it ends or takes too long."""
    limit = time.monotonic() + _START
    while not ready():
        if started.poll() is not None or time.monotonic() > limit:
            tail = "\n".join(log.read_text(errors="replace").splitlines()[-5:])
            what = "took too long to start" if started.poll() is None else f"ended with {started.returncode}"
            raise BenchmarkError(f"it {what}", tail or "it left no word why")
        time.sleep(0.05)


def listens(target: Target, pid: int) -> Callable[[], bool]:
    """Whether that process listens there."""
    return lambda: process.owner(target) == pid


def output_of(command: list[str], default: str = "") -> str:
    """What a command prints, such as a version; the default when it cannot be run."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=30)
    except (OSError, subprocess.TimeoutExpired):
        return default
    return done.stdout.strip() or default
