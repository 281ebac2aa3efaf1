"""`make soak`: the promises about load at full size, with their figures. Some ten minutes.

    python tests/soak.py [flush|cold|names|tags|memory|idle]...    all of them when none is named

A part that does not hold says what was found; the exit code is then 1. Other work on the machine shows in
all of it.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Final

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # for the benchmarks

from harness import wait_for
from memory import idle_bytes, parts_of_a_million
from under_load import (
    a_cold_start_loses_nothing,
    a_flood_is_bounded,
    loaded,
    no_datagram_is_lost_during_a_flush,
)

MILLION: Final = 1_000_000
PATIENCE: Final = 300.0  # seconds for a million, where others compute too
GIGABYTE: Final = 10**9 / 2**20  # MiB


def a_million_series_fit(directory: Path) -> str:
    """A million counters of 35 characters: the collector's memory with all of them active, and idle."""
    lines = [f"app.service.endpoint.count.n{n:07d}:1|c" for n in range(MILLION)]
    with loaded(directory, flush_interval=10) as one:
        start = one.resident()
        one.send(lines, 20_000)  # Python reads each of them, and flushes meanwhile
        one.all_received(PATIENCE)
        assert one.refused() == {}
        wait_for(lambda: one.metric("collector_flush_points_total") >= MILLION, "their first flush", PATIENCE)
        assert one.metric("collector_series") == MILLION
        first = one.resident()
        points = one.metric("collector_flush_points_total")
        time.sleep(10 - time.time() % 10)  # so that one window has all of them
        one.send(lines, 500_000)
        one.all_received(PATIENCE)
        active = one.resident()
        wait_for(
            lambda: one.metric("collector_flush_points_total") >= points + MILLION, "a full flush", PATIENCE
        )
        one.all_stored({line.partition(":")[0]: 2 for line in lines}, PATIENCE)
        flushed = one.resident()
        time.sleep(25)  # batches are kept for 20 s
        one.send(["other:1|c"], 1000)  # the names of the last window are kept until the next one is read
        time.sleep(11)
        idle = one.resident()
        took = one.metric("collector_last_flush_seconds")
    figures = (
        f"MiB: {start:.0f} at the start, {first:.0f} once all were known and flushed, {active:.0f} with all"
        f" in one open window, {flushed:.0f} after its flush, {idle:.0f} idle (last flush {took:.1f} s)"
    )
    assert max(active, flushed, idle) <= GIGABYTE, figures
    return figures + "\n    " + "\n    ".join(parts_of_a_million())


def an_idle_series_is_small(_: Path) -> str:
    """At most 200 bytes of the process for an idle counter in the engine, also where its tables just grew."""
    sizes = (100_000, 150_000, 230_000, 460_000, 700_000, 920_000)
    found = {size: idle_bytes(size) for size in sizes}
    figures = ", ".join(f"{bytes_:.0f} B at {size:,}" for size, bytes_ in found.items())
    assert max(found.values()) <= 200, figures
    return figures


PARTS: Final[dict[str, Callable[[Path], str]]] = {
    "flush": partial(
        no_datagram_is_lost_during_a_flush, series=100_000, rate=1_110_000, seconds=15, flush_interval=10
    ),
    "cold": partial(a_cold_start_loses_nothing, series=100_000, rate=700_000, seconds=6, flush_interval=10),
    "names": partial(a_flood_is_bounded, kind="names", heads=MILLION, rate=100_000, series=20_000),
    "tags": partial(a_flood_is_bounded, kind="tags", heads=MILLION, rate=100_000, series=20_000),
    "idle": an_idle_series_is_small,
    "memory": a_million_series_fit,
}


def main() -> int:
    """0 if all held, 1 if one did not, 2 for a name that is not known."""
    names = sys.argv[1:] or list(PARTS)
    if unknown := [name for name in names if name not in PARTS]:
        print(f"unknown: {', '.join(unknown)}; known: {', '.join(PARTS)}", file=sys.stderr)
        return 2
    failed = 0
    for name in names:
        with tempfile.TemporaryDirectory(prefix="soak-") as directory:
            try:
                print(f"{name}: {PARTS[name](Path(directory))}", flush=True)
            except (AssertionError, subprocess.TimeoutExpired) as error:
                failed = 1
                print(f"{name}: DOES NOT HOLD: {error.__context__ or error}", flush=True)
    return failed


if __name__ == "__main__":
    sys.exit(main())
