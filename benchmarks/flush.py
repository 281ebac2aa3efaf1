"""A flush to the embedded server with each engine that was built: its cost, and how long it holds the loop.

Beside it the same points through a plain redis-py pipeline, the way most exporters write.
"""

from __future__ import annotations

import asyncio
import gc
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import uvloop

from collector.daemon import CHUNK
from collector.embedded import EmbeddedServer, EmbeddedSettings
from collector.engine import ENGINES, Interval, PureEngine
from collector.model import CounterPoint, GaugePoint, SetPoint, TimerPoint
from collector.statsd.lines import Profile
from collector.store.client import connect
from collector.store.keys import KeySpace
from collector.store.writer import Writer

_TICK = 0.001
_BUSY_TIMERS = 20_000
_BUSY_SAMPLES = 860


@dataclass
class _Cost:
    """Seconds of CPU of the client by what they went into; the rest is sending."""

    read: float = 0.0
    encode: float = 0.0


async def _watch(gaps: list[float]) -> None:
    while True:
        due = time.monotonic() + _TICK
        await asyncio.sleep(_TICK)
        gaps.append(time.monotonic() - due)


def _mixed(engine: PureEngine, series: int, now: float) -> None:
    """60 % counters, 20 % gauges, 15 % timers of 20 samples, 5 % sets of 20 members."""
    for n in range(series):
        share = n % 20
        if share < 12:
            line = f"bench.flush.counter{n:06d}:{n % 100 + 1}|c"
        elif share < 16:
            line = f"bench.flush.gauge{n:06d}:{n}|g"
        elif share < 19:
            values = ":".join(str((n * 31 + i * 17) % 997 + 0.25) for i in range(20))
            line = f"bench.flush.timer{n:06d}:{values}|ms"
        else:
            line = "\n".join(f"bench.flush.set{n:06d}:u{i}|s" for i in range(20))
        engine.ingest(0, line.encode(), "bench", now)


def _busy(engine: PureEngine, timers: int, now: float) -> None:
    """Timers of many samples each."""
    values = ":".join(str(i * 17 % 997 + 0.25) for i in range(_BUSY_SAMPLES))
    for n in range(timers):
        engine.ingest(0, f"bench.flush.busy{n:06d}:{values}|ms".encode(), "bench", now)


async def _ours(writer: Writer, interval: Interval, now: float) -> _Cost:
    cost = _Cost()
    chunks = interval.chunks(CHUNK)
    while True:
        start = time.process_time()
        chunk = next(chunks, None)
        read = time.process_time()
        cost.read += read - start
        if chunk is None:
            break
        writer.write(*chunk, now)
        cost.encode += time.process_time() - read
        await asyncio.sleep(0)
    await writer.commit()
    if not await writer.sender.wait_idle(120):
        raise SystemExit(f"the store did not confirm: {writer.sender.last_error}")
    return cost


async def _plain(url: str, interval: Interval) -> float:
    """What a simple exporter does: one command a point, pipelined, at least once. Seconds that it takes."""
    start = time.monotonic()
    client = connect(url)
    for window, points in interval.chunks(CHUNK):
        pipeline = client.pipeline(transaction=False)
        for point in points:
            key = f"plain:{point.series.key}"
            match point:
                case CounterPoint():
                    pipeline.hincrbyfloat(key, str(window.start), float(point.value))
                    pipeline.hincrbyfloat("plain:total", key, float(point.value))
                case GaugePoint():
                    pipeline.hset(key, str(window.start), str(point.value))
                case TimerPoint():
                    samples = enumerate(point.samples)
                    pipeline.zadd(key, {f"{value}:{n}": window.start for n, value in samples})
                    pipeline.hset(key + ":d", str(window.start), point.encoded)
                case SetPoint():
                    pipeline.pfadd(key, *point.members)
            pipeline.expire(key, 3600)
        await pipeline.execute()
    await client.aclose()
    return time.monotonic() - start


class _Bench:
    """Flushes of one engine to one server. The engine lives on, as a daemon's does."""

    def __init__(self, name: str, url: str, writer: Writer, gaps: list[float]) -> None:
        self._now = time.time()
        self._engine = ENGINES[name](self._now)
        self._engine.add_profile(Profile())
        self._url = url
        self._writer = writer
        self._gaps = gaps

    def _interval(self, fill: Callable[[PureEngine, int, float], None], series: int) -> Interval:
        fill(self._engine, series, self._now)
        self._now += 10
        (interval,) = self._engine.flush(self._now)
        return interval

    async def flush(
        self, what: str, fill: Callable[[PureEngine, int, float], None], series: int, *, beside: bool
    ) -> None:
        """Prints what one flush cost."""
        interval = self._interval(fill, series)
        gc.freeze()  # as the daemon does
        await asyncio.sleep(0.1)
        self._gaps.clear()
        start = time.monotonic()
        cost = await _ours(self._writer, interval, self._now)
        wall = time.monotonic() - start
        line = (
            f"  {self._engine.name:6} {what:18} {wall:5.2f} s, read-out {cost.read:.2f} s and encoding"
            f" {cost.encode:.2f} s of CPU, longest loop gap {max(self._gaps) * 1000:.0f} ms"
        )
        if beside:
            plain = await _plain(self._url, self._interval(fill, series))
            line += f"; redis-py pipeline {plain:.2f} s"
        print(line)


async def _run(name: str, series: int, busy: int) -> None:
    with tempfile.TemporaryDirectory() as directory:
        server = EmbeddedServer(Path(directory) / "state", EmbeddedSettings())
        url = await server.start()
        client = connect(url)
        writer = Writer(KeySpace("m", 10), max_bytes=2**30, samples=200, refresh=300)
        gaps: list[float] = []
        tasks = [asyncio.create_task(writer.sender.run(client)), asyncio.create_task(_watch(gaps))]
        bench = _Bench(name, url, writer, gaps)
        await bench.flush(f"{series:,} series, new", _mixed, series, beside=True)
        await bench.flush("known", _mixed, series, beside=True)
        await bench.flush(f"{busy:,} x {_BUSY_SAMPLES}", _busy, busy, beside=False)
        for task in tasks:
            task.cancel()
        await client.aclose()
        await server.stop()


def run(series: int = 100_000, busy: int = _BUSY_TIMERS) -> None:
    """Prints the figures of three flushes: series that are new, the same again, timers of many samples."""
    print("Flush: to the embedded server, exactly once")
    gc.set_threshold(10_000, 1000, 1000)  # as the daemon does
    for name in ENGINES:
        uvloop.run(_run(name, series, busy))
