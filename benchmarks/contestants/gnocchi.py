"""gnocchi-statsd: known to this program, and not run."""

from __future__ import annotations

import shutil
from contextlib import AbstractContextManager
from pathlib import Path

from benchmarks.contestants.base import Contestant, Running
from benchmarks.errors import BenchmarkError

_WHY = "it needs an index in PostgreSQL or MySQL, which this program does not set up"


class Gnocchi(Contestant):
    """Always skipped, with the reason."""

    name = "gnocchi-statsd"

    def missing(self) -> str | None:
        """Always something."""
        return _WHY if shutil.which("gnocchi-statsd") else f"not installed (Debian: gnocchi-statsd); {_WHY}"

    def version(self) -> str:
        """Not asked for."""
        return "?"

    def start(self, directory: Path, scheme: str) -> AbstractContextManager[Running]:
        """Not possible."""
        raise BenchmarkError("gnocchi-statsd cannot be run", _WHY)
