"""The engine by itself: lines a second in memory, and what an idle series costs.

The yardstick is what no Python engine can be without: decoding a datagram, splitting it into lines, and
splitting each line at its colon and bar.
"""

from __future__ import annotations

import statistics
import time
import tracemalloc

from benchmarks.payload import mixed, packed
from collector.engine import PureEngine
from collector.statsd.lines import Profile

_SENDER = ("127.0.0.1", 40000)


def _split_only(datagrams: list[bytes]) -> float:
    start = time.process_time()
    for data in datagrams:
        for line in data.decode("latin-1").split("\n"):
            _, _, rest = line.partition(":")
            rest.partition("|")
    return time.process_time() - start


def _engine(engine: PureEngine, datagrams: list[bytes], now: float) -> float:
    start = time.process_time()
    for data in datagrams:
        engine.ingest(0, data, _SENDER, now)
    return time.process_time() - start


def speed(series: int, *, tags: int = 0, rounds: int = 7) -> None:
    """Prints nanoseconds a line, beside splitting alone, in turn."""
    lines = mixed(series, max(200_000, 2 * series), tags=tags)
    datagrams = list(packed(lines))
    engine = PureEngine(0.0)
    engine.add_profile(Profile())
    _engine(engine, datagrams, 1.0)
    ours, theirs = [], []
    for _ in range(rounds):
        theirs.append(_split_only(datagrams) / len(lines) * 1e9)
        ours.append(_engine(engine, datagrams, 1.0) / len(lines) * 1e9)
    start = time.process_time()
    points = sum(len(chunk) for it in engine.flush(10.0) for _, chunk in it.chunks(500))
    flush = time.process_time() - start
    ratio = statistics.median(a / b for a, b in zip(ours, theirs, strict=True))
    kind = "with tags" if tags else "mixed"
    print(
        f"  {series:>7,} series, {kind:9}  {statistics.median(ours):5.0f} ns a line"
        f" ({min(ours):.0f}-{max(ours):.0f}), splitting alone {statistics.median(theirs):.0f},"
        f" ratio {ratio:.1f}; flush {flush * 1e6 / points:.1f} us a series"
    )


def memory(series: int = 100_000) -> None:
    """Prints the bytes that a series costs while it is idle and while it is active."""
    datagrams = list(packed([f"app.idle.counter.number{n:07d}:1|c" for n in range(series)]))
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    engine = PureEngine(0.0)
    engine.add_profile(Profile())
    _engine(engine, datagrams, 1.0)
    active = tracemalloc.get_traced_memory()[0] - before
    for interval in engine.flush(10.0):
        for _ in interval.chunks(500):
            pass
    del interval
    idle = tracemalloc.get_traced_memory()[0] - before
    tracemalloc.stop()
    print(f"  a counter of 30 characters: {idle / series:.0f} bytes idle, {active / series:.0f} active")


def run() -> None:
    """Prints all figures of the engine."""
    print("Engine: in memory, 1432 B a datagram")
    speed(1_000)
    speed(1_000, tags=3)
    speed(100_000)
    memory()
