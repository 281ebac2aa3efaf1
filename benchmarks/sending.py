"""One run of the native sender."""

from __future__ import annotations

import json
import subprocess
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from typing import IO, Any, Final

from benchmarks.errors import BenchmarkError
from benchmarks.native import program
from benchmarks.payload import Load, packets, write_packets
from benchmarks.target import Target

MOST_SECONDS: Final = 600.0
MOST_LINES: Final = 10_000_000_000
MOST_CONNECTIONS: Final = 256
_GRACE: Final = 30.0  # seconds beyond the time that was given: the sender gives up on a server by itself


@dataclass(frozen=True, slots=True)
class Sending:
    """How the packets are sent."""

    seconds: float = 10.0
    rate: float = 0.0
    """Lines a second; 0 for as fast as they leave."""
    lines: int = 0
    """Stops at the packet that reaches it; 0 for no bound but the time."""
    connections: int = 1
    segments: bool = True
    """At full speed on this machine, hands UDP packets of one length to the kernel together."""


@dataclass(frozen=True, slots=True)
class Sent:
    """What left."""

    lines: int
    packets: int
    bytes: int
    seconds: float
    cpu_seconds: float


Progress = Callable[[float, int], None]
"""Is told (seconds, lines) so far, five times a second."""


class Packets:
    """One round of packets in a temporary file, made once and sent by as many runs as wanted."""

    def __init__(self, load: Load, *, stream: bool) -> None:
        self.load = load
        self.stream = stream
        self._file: IO[bytes] = tempfile.TemporaryFile(prefix="benchmark-load-")  # noqa: SIM115 - kept
        write_packets(packets(load, stream=stream), self._file)
        self._file.flush()

    def close(self) -> None:
        """Removes the file."""
        self._file.close()

    def send(self, target: Target, how: Sending, progress: Progress | None = None) -> Sent:
        """Sends them; BenchmarkError when the server cannot be reached or stops reading."""
        segments = how.segments and how.rate <= 0 and target.local
        command = [
            *(str(program("sender")), target.scheme, *target.where),
            *(repr(how.rate), repr(how.seconds), str(how.lines), str(how.connections), str(int(segments))),
        ]
        self._file.seek(0)
        with tempfile.TemporaryFile("w+") as errors:
            process = subprocess.Popen(
                command, stdin=self._file, stdout=subprocess.PIPE, stderr=errors, text=True
            )
            try:
                final = _follow(process, progress)
                process.wait(_GRACE)
            finally:
                if process.poll() is None:
                    process.kill()
                process.wait()
            errors.seek(0)
            said = errors.read().strip()
        if process.returncode or final is None:
            raise BenchmarkError(
                f"{target}: {said or f'the sender ended with {process.returncode}'}",
                "is the server running, and is that its address?",
            )
        names = ("lines", "packets", "bytes", "seconds", "cpu_seconds")
        return Sent(**{name: final[name] for name in names})


def _follow(process: subprocess.Popen[str], progress: Progress | None) -> dict[str, Any] | None:
    assert process.stdout is not None
    final = None
    with process.stdout as lines:
        for line in lines:
            report: dict[str, Any] = json.loads(line)
            if report.get("done"):
                final = report
            elif progress:
                progress(report["seconds"], report["lines"])
    return final
