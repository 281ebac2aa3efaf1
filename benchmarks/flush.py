"""A flush of 100,000 series to the embedded server: how long it takes, and how long it holds the loop.

Beside it the same points through a plain redis-py pipeline, the way most exporters write.
"""

from __future__ import annotations

import asyncio
import tempfile
import time
from pathlib import Path

import uvloop

from collector.daemon import CHUNK
from collector.embedded import EmbeddedServer, EmbeddedSettings
from collector.engine import Interval, PureEngine
from collector.model import CounterPoint, GaugePoint, SetPoint, TimerPoint
from collector.statsd.lines import Profile
from collector.store.client import connect
from collector.store.keys import KeySpace
from collector.store.writer import Writer

_TICK = 0.001


async def _watch(gaps: list[float]) -> None:
    while True:
        due = time.monotonic() + _TICK
        await asyncio.sleep(_TICK)
        gaps.append(time.monotonic() - due)


def _interval(series: int, now: float) -> Interval:
    """60 % counters, 20 % gauges, 15 % timers of 20 samples, 5 % sets of 20 members."""
    engine = PureEngine(now)
    engine.add_profile(Profile())
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
    (interval,) = engine.flush(now + 10)
    return interval


async def _ours(writer: Writer, interval: Interval, now: float) -> None:
    for window, points in interval.chunks(CHUNK):
        writer.write(window, points, now)
        await asyncio.sleep(0)
    await writer.commit()
    if not await writer.wait_idle(120):
        raise SystemExit(f"the store did not confirm: {writer.last_error}")


async def _plain(url: str, interval: Interval) -> None:
    """What a simple exporter does: one command a point, pipelined, at least once."""
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
                    pipeline.hset(key + ":d", str(window.start), point.sketch.encode())
                case SetPoint():
                    pipeline.pfadd(key, *point.members)
            pipeline.expire(key, 3600)
        await pipeline.execute()
    await client.aclose()


async def _run(series: int) -> None:
    now = time.time()
    with tempfile.TemporaryDirectory() as directory:
        server = EmbeddedServer(Path(directory) / "state", EmbeddedSettings())
        url = await server.start()
        client = connect(url)
        writer = Writer(KeySpace("m", 10), max_bytes=2**30, samples=200, refresh=300)
        sender = asyncio.create_task(writer.run(client))
        gaps: list[float] = []
        watcher = asyncio.create_task(_watch(gaps))
        for round_ in ("first", "second"):
            interval = _interval(series, now)
            plain_interval = _interval(series, now)
            await asyncio.sleep(0.1)
            gaps.clear()
            start, cpu = time.monotonic(), time.process_time()
            await _ours(writer, interval, now)
            wall, cpu = time.monotonic() - start, time.process_time() - cpu
            longest = max(gaps)
            start = time.monotonic()
            await _plain(url, plain_interval)
            plain = time.monotonic() - start
            print(
                f"  {round_:6} flush of {series:,} series: {wall:.2f} s, {cpu:.2f} s of CPU,"
                f" longest loop gap {longest * 1000:.0f} ms; redis-py pipeline {plain:.2f} s"
            )
        for task in (sender, watcher):
            task.cancel()
        await client.aclose()
        await server.stop()


def run(series: int = 100_000) -> None:
    """Prints the figures of two flushes: the first registers the series, the second does not."""
    print("Flush: to the embedded server, exactly once")
    uvloop.run(_run(series))
