"""The yardstick: our C loop that receives and counts."""

from __future__ import annotations

import json
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks.contestants.base import HOST, RECEIVE_BUFFER, Contestant, Running, end
from benchmarks.counters import Reading
from benchmarks.errors import BenchmarkError
from benchmarks.native import compiler, program
from benchmarks.target import Target


class Bare(Contestant):
    """It understands nothing, so it takes part in everything."""

    name = "receive and count (C)"
    schemes = frozenset({"udp", "tcp", "unixstream", "unixgram"})
    tags = True

    def missing(self) -> str | None:
        """Without a compiler."""
        try:
            program("bare")
        except BenchmarkError as error:
            return error.problem
        return None

    def version(self) -> str:
        """That of the compiler."""
        said = subprocess.run([*compiler(), "--version"], capture_output=True, text=True, check=False)
        return (said.stdout.splitlines() or ["?"])[0]

    @contextmanager
    def start(self, directory: Path, scheme: str) -> Iterator[Running]:
        """It says its port when it listens."""
        where, port = (str(directory / "socket"), "0") if scheme.startswith("unix") else (HOST, "0")
        process = subprocess.Popen(
            [str(program("bare")), scheme, where, port, str(RECEIVE_BUFFER)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        try:
            assert process.stdout is not None and process.stderr is not None
            said = process.stdout.readline()
            if not said:
                raise BenchmarkError("the bare loop did not start", process.stderr.read().decode())
            target = Target(scheme, path=where) if int(said) == 0 else Target(scheme, HOST, int(said))
            yield Running(target, process.pid, _BareCounter(process))
        finally:
            end(process)
            for stream in (process.stdout, process.stderr):
                if stream is not None:
                    stream.close()


class _BareCounter:
    """Asks with a signal, reads a line."""

    name = "itself"
    pause = 0.25

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self._process = process

    def read(self) -> Reading:
        """Lines and packets (of a stream: reads)."""
        assert self._process.stdout is not None
        self._process.send_signal(signal.SIGUSR1)
        figures = json.loads(self._process.stdout.readline())
        return Reading(figures["lines"], figures["packets"])
