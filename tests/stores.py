"""A writer with its task and a reader, on a store of a test; load, and what has to come of it."""

from __future__ import annotations

import asyncio
import time
from array import array
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from collector.model import CounterPoint, GaugePoint, Kind, Point, Series, SetPoint, TimerPoint, Window
from collector.sketch import Sketch
from collector.store.keys import KeySpace
from collector.store.reader import Reader
from collector.store.settings import StoreSettings
from collector.store.topology import Topology, open_store
from collector.store.writer import Writer

RESOLUTION = 10
NOW = float(int(time.time()) // RESOLUTION * RESOLUTION)
WINDOW = Window(int(NOW), int(NOW) + RESOLUTION)


class Store:
    """A collector's way to a store, and back."""

    def __init__(self, topology: Topology, prefix: str = "m", **options: Any) -> None:
        self.topology = topology
        self.keys = KeySpace(prefix, RESOLUTION)
        settings = {"max_bytes": 2**28, "samples": 200, "refresh": 60.0, **options}
        self.writer = Writer(self.keys, **settings)
        self.sender = self.writer.sender
        self.outbox = self.writer.outbox
        self.reader = Reader(topology, self.keys, idle_expiry=3600, refresh=60)

    async def put(self, *points: Point) -> None:
        """Hands points over, and does not wait."""
        self.writer.write(WINDOW, points, NOW)
        await self.writer.commit()

    async def write(self, *points: Point, seconds: float = 20) -> None:
        """Hands points over, and waits until they are confirmed."""
        await self.put(*points)
        assert await self.sender.wait_idle(seconds), self.sender.last_error

    async def until(self, what: str, seconds: float = 20) -> None:
        """Waits until the sender says something in `last_error`; "" waits until it says nothing."""
        end = time.monotonic() + seconds
        while (
            (what not in self.sender.last_error) if what else (self.sender.last_error or not self.sender.up)
        ):
            assert time.monotonic() < end, (what, self.sender.last_error)
            await asyncio.sleep(0.02)


@asynccontextmanager
async def opened(url: str, settings: StoreSettings | None = None, **options: Any) -> AsyncIterator[Store]:
    """A store with its sender running."""
    topology = open_store(url, settings)
    store = Store(topology, **options)
    task = asyncio.create_task(store.sender.run(topology))
    try:
        yield store
    finally:
        task.cancel()
        (ended,) = await asyncio.gather(task, return_exceptions=True)
        await topology.aclose()
        assert isinstance(ended, asyncio.CancelledError), ended


class Load:
    """Counters, timers and sets in many series, and the truth about them."""

    def __init__(self, series: int = 300) -> None:
        self.counters = [Series(Kind.COUNTER, f"load.c{n}") for n in range(series)]
        self.timers = [Series(Kind.TIMER, f"load.t{n}") for n in range(series // 10)]
        self.sets = [Series(Kind.SET, f"load.s{n}") for n in range(series // 10)]
        self.truth: Counter[Series] = Counter()
        self.rounds = 0

    async def round(self, store: Store) -> None:
        """One flush: every series once."""
        self.rounds += 1
        points: list[Point] = []
        for n, one in enumerate(self.counters):
            points.append(CounterPoint(one, n + 1))
            self.truth[one] += n + 1
        sketch = Sketch()
        sketch.add([1.0, 2.0, 3.0])
        for one in self.timers:
            points.append(TimerPoint(one, sketch.encode(), array("d", [1.0])))
            self.truth[one] += 3
        for one in self.sets:
            points.append(SetPoint(one, [b"m%d" % self.rounds]))
            self.truth[one] += 1
        await store.put(*points)

    async def run(self, store: Store, seconds: float, pause: float = 0.02) -> None:
        """Flush after flush, for so long."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            await self.round(store)
            await asyncio.sleep(pause)

    async def check(self, store: Store) -> None:
        """Every series is what was sent, to the unit."""
        assert await store.sender.wait_idle(30), store.sender.last_error
        totals = await store.reader.totals(self.counters)
        assert totals == [self.truth[one] for one in self.counters]
        start, end = NOW, NOW + RESOLUTION
        increments = await store.reader.increments(self.counters, start, end)
        assert [sum(value for _, value in slots) for slots in increments] == totals
        sketches = await store.reader.sketches(self.timers, start, end)
        counts = [sum(sketch.count for _, sketch in slots) for slots in sketches]
        assert counts == [self.truth[one] for one in self.timers]
        minute = int(NOW) // 60 * 60
        uniques = await store.reader.uniques(self.sets, minute, minute + 60)
        for one, slots in zip(self.sets, uniques, strict=True):
            assert abs(slots[0][1] - self.truth[one]) <= 1 + 0.03 * self.truth[one], one
        assert not store.outbox.lost


def gauge(name: str, value: float | None, move: float = 0, at: float = NOW) -> GaugePoint:
    """A gauge that is set, or moved."""
    return GaugePoint(Series(Kind.GAUGE, name), value, move, int(at * 1000))
