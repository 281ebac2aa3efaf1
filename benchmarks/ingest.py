"""Lines per CPU-second: the whole daemon beside a bare receive-and-count loop, over UDP on loopback.

The short form of `benchmarks.compare`: no other servers, nothing written, and what our own daemon says of the
longest hold of its event loop. It needs a C compiler.
"""

from __future__ import annotations

import sys

from benchmarks.contestants import everyone
from benchmarks.report import ratio, spread
from benchmarks.rounds import Table, compare, resident
from benchmarks.sending import Sending
from benchmarks.workloads import WORKLOADS

_NAMES = ("one line each, 1,000 counters", "1432 B, 1,000 mixed", "1432 B, 100,000 mixed")


def run(seconds: float = 12.0, rounds: int = 3) -> None:
    """Prints medians and ranges."""
    print(f"Ingest: UDP on loopback, {seconds:.0f} s a run, {rounds} rounds in turn")
    servers = everyone()[:3]  # the yardstick and our two engines
    workloads = [one for one in WORKLOADS if one.name in _NAMES]
    for table in compare(servers, workloads, Sending(seconds=seconds), rounds, _say):
        print(f"  {table.workload.name}")
        for line in _lines(table):
            print(f"      {line}")


def _lines(table: Table) -> list[str]:
    bare, *ours = table.entries
    told = []
    for entry in (bare, *ours):
        if not entry.results:
            told.append(f"{entry.contestant:22} {entry.skipped}")
            continue
        figure = spread(entry.results, lambda one: one.lines_per_cpu_second, 1e6)
        told.append(
            f"{entry.contestant:22} {figure} M lines per CPU-second, ratio {ratio(entry, bare)},"
            f" {resident(entry) / 2**20:.0f} MiB"
        )
        if lags := [note["loop_lag_max_seconds"] for note in entry.notes if note]:
            told[-1] += f", longest loop gap {max(lags) * 1000:.0f} ms"
    return told


def _say(what: str) -> None:
    print(what, file=sys.stderr)


if __name__ == "__main__":
    run()
