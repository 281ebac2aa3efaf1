"""Two StatsD servers in Python, from PyPI; both flush to Graphite and count no lines."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks.contestants.base import FLUSH, HOST, Contestant, Running, child, free_port, listens, wait_for
from benchmarks.contestants.graphite import graphite
from benchmarks.counters import Counter, KernelCounter, NoCounter
from benchmarks.peers import NAVDOON, STATSDLY, PythonPeer
from benchmarks.target import Target


class _PythonServer(Contestant):
    peer: PythonPeer

    def missing(self) -> str | None:
        """Its virtual environment."""
        return None if self.peer.program.exists() else self.peer.hint

    def version(self) -> str:
        """The one that is installed."""
        return self.peer.version

    @contextmanager
    def start(self, directory: Path, scheme: str) -> Iterator[Running]:
        """With a Graphite of ours to flush to."""
        log = directory / "log"
        target = Target(scheme, HOST, free_port())
        with graphite() as sink:
            command = [str(self.peer.program), *self.options(target, f"{HOST}:{sink.port}")]
            with child(command, log, directory=directory) as process:
                wait_for(process, log, listens(target, process.pid))
                counter: Counter = KernelCounter(target) if scheme == "udp" else NoCounter()
                yield Running(target, process.pid, counter)

    @abstractmethod
    def options(self, target: Target, graphite: str) -> list[str]:
        """Its command line."""


class Statsdly(_PythonServer):
    """A loop around `select`."""

    name = "statsdly (Python)"
    largest = 4096
    peer = STATSDLY

    def options(self, target: Target, graphite: str) -> list[str]:
        """All of them."""
        return ["-l", f"{HOST}:{target.port}", "-f", str(FLUSH), "-g", graphite]


class Navdoon(_PythonServer):
    """One thread that receives, one that counts, and a queue between them."""

    name = "navdoon (Python)"
    peer = NAVDOON

    def options(self, target: Target, graphite: str) -> list[str]:
        """All of them."""
        address = f"{HOST}:{target.port}"
        return [
            *("--collect-udp", address, "--flush-interval", str(FLUSH)),
            *("--flush-graphite", graphite, "--log-level", "ERROR", "--log-stderr"),
        ]
