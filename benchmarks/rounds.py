"""Contestants in turn, several times: what drifts on a machine meets all of them alike."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from benchmarks.contestants import Contestant, Workload
from benchmarks.errors import BenchmarkError
from benchmarks.measuring import Result, measure
from benchmarks.sending import Packets, Sending

_WARM_LINES: Final = 20_000
_WARM_RATE: Final = 100_000.0  # lines a second: slow enough that no contestant loses many
_SETTLE: Final = 30.0


@dataclass(slots=True)
class Entry:
    """One contestant in one workload."""

    contestant: str
    results: list[Result] = field(default_factory=list)
    notes: list[Mapping[str, float]] = field(default_factory=list)
    skipped: str = ""
    """Why there are no results, or fewer than rounds."""


@dataclass(slots=True)
class Table:
    """All contestants in one workload."""

    workload: Workload
    entries: list[Entry]


def run_one(contestant: Contestant, workload: Workload, packets: Packets, how: Sending, entry: Entry) -> None:
    """Starts a contestant, warms it up with every series once, and measures one run; adds it to `entry`.

    One that fails is out of this workload, with the reason; the others go on.
    """
    warm = max(_WARM_LINES, workload.load.series)
    warming = Sending(rate=_WARM_RATE, lines=warm, seconds=4 * warm / _WARM_RATE)
    with tempfile.TemporaryDirectory(prefix="benchmark-") as directory:
        try:
            with contestant.start(Path(directory), workload.scheme) as running:
                packets.send(running.target, warming)
                result = measure(packets, running.target, how, running.counter, running.pid, settle=_SETTLE)
                entry.notes.append(running.notes())
                entry.results.append(result)
        except BenchmarkError as error:
            reason = f"{error.problem}: {error.remedy}".replace("\n", " ")
            entry.skipped = reason.replace(directory, "DIRECTORY")  # it names this run and machine only
        except ProcessLookupError:
            entry.skipped = "it ended during the run"


def compare(
    contestants: Sequence[Contestant],
    workloads: Sequence[Workload],
    how: Sending,
    rounds: int,
    say: Callable[[str], None],
) -> list[Table]:
    """All workloads, each `rounds` times with the contestants in turn."""
    reasons = {one.name: one.missing() for one in contestants}
    tables = []
    for workload in workloads:
        entries = [Entry(one.name) for one in contestants]
        for one, entry in zip(contestants, entries, strict=True):
            entry.skipped = reasons[one.name] or one.unfit(workload) or ""
        tables.append(Table(workload, entries))
        packets = Packets(workload.load, stream=workload.scheme in ("tcp", "unixstream"))
        try:
            for number in range(1, rounds + 1):
                for one, entry in zip(contestants, entries, strict=True):
                    if entry.skipped:
                        continue
                    say(f"{workload.name}: round {number} of {rounds}: {one.name}")
                    run_one(one, workload, packets, how, entry)
        finally:
            packets.close()
    return tables


def resident(entry: Entry) -> int:
    """The most memory that was seen."""
    return max((one.resident_bytes or 0 for one in entry.results), default=0)
