"""What series cost, as the process grows: allocators' overhead, tables and names included.

    python tests/memory.py idle SERIES    one size
    python tests/memory.py parts          a million, step by step

Each is measured in a process of its own, so that nothing came before it.
"""

from __future__ import annotations

import ctypes
import gc
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from collector.engine import ENGINES, Limits
from collector.engine.interface import Engine
from collector.model import CounterPoint
from collector.statsd.lines import Profile
from collector.store.keys import KeySpace
from collector.store.writer import _Known

_PACKET: Final = 30  # lines
_MILLION: Final = 1_000_000


def resident() -> int:
    """Bytes of this process that are in memory, after what is free was given back."""
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmRSS:")[2].split()[0]) * 1024


def packets(series: int) -> Iterator[bytes]:
    """Counters of 35 characters, each once."""
    for first in range(0, series, _PACKET):
        numbers = range(first, min(first + _PACKET, series))
        yield "\n".join(f"app.service.endpoint.count.n{n:07d}:1|c" for n in numbers).encode()


def read_out(engine: Engine, now: float) -> int:
    """Reads the windows that have ended by now; their points."""
    return sum(len(points) for it in engine.flush(now) for _, points in it.chunks(200))


def fill(engine: Engine, series: int, now: float) -> None:
    """Feeds each series once."""
    for packet in packets(series):
        engine.ingest(0, packet, "", now)


def engine_of(series: int) -> Engine:
    """A compiled engine that has been used and knows nothing."""
    engine: Engine = ENGINES["native"](0.0, limits=Limits(series=2 * series, heads=2 * series))
    engine.add_profile(Profile())
    fill(engine, 100, 1.0)
    assert read_out(engine, 11.0) == 100
    return engine


def measure_idle(series: int) -> float:
    """Bytes of the process for each series that is known, and of which no window is open."""
    engine = engine_of(series)
    before = resident()
    fill(engine, series, 12.0)
    assert read_out(engine, 21.0) == series
    engine.ingest(0, b"other:1|c", "", 22.0)  # what was kept of the last window goes with the next one
    assert read_out(engine, 31.0) == 1
    assert engine.series >= series
    return (resident() - before) / series


def idle_bytes(series: int) -> float:
    """`measure_idle` in a process of its own."""
    command = [sys.executable, str(Path(__file__)), "idle", str(series)]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def measure_parts() -> Iterator[str]:
    """How a million series share the memory, step by step, in bytes a series."""
    engine = engine_of(_MILLION)
    at = resident()

    def step(what: str) -> str:
        nonlocal at
        before, at = at, resident()
        return f"{(at - before) / _MILLION:6.0f} bytes a series: {what}"

    fill(engine, _MILLION, 12.0)
    yield step("heads, series, their tables and one open window's cells, in C")
    kept = [
        point.series
        for interval in engine.flush(21.0)
        for _, points in interval.chunks(200)
        for point in points
        if isinstance(point, CounterPoint)
    ]
    yield step("names of the window that was read, in Python, less its cells")
    keys = KeySpace("m", 10)
    kept_alike = (604800, 200)
    known = {series.key: _Known(keys.shard(series), kept_alike) for series in kept}
    yield step("what the writer knows of each (`_Known` and its table)")
    del kept
    engine.ingest(0, b"other:1|c", "", 22.0)
    read_out(engine, 31.0)
    yield step("given back when the next window is read")
    assert len(known) == _MILLION


def parts_of_a_million() -> list[str]:
    """`measure_parts` in a process of its own."""
    command = [sys.executable, str(Path(__file__)), "parts"]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()


if __name__ == "__main__":
    if sys.argv[1] == "idle":
        print(measure_idle(int(sys.argv[2])))
    else:
        for line in measure_parts():
            print(line, flush=True)
