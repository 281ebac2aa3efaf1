"""A store whose time is made: a writer, a compactor, a reader, and a truth to compare them with."""

from __future__ import annotations

import asyncio
import random
from array import array
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager
from typing import Any

import uvloop

from collector.model import (
    CounterPoint,
    GaugePoint,
    Kind,
    Number,
    Point,
    Series,
    SetPoint,
    TimerPoint,
    Window,
)
from collector.retention import Ladder, RetentionSettings
from collector.rules import Retention, SeriesRule
from collector.sketch import Sketch
from collector.store.client import connect
from collector.store.compaction import Compactor
from collector.store.keys import KeySpace
from collector.store.reader import Reader
from collector.store.writer import Writer

RESOLUTION = 10
START = 1_800_000_000 // 86400 * 86400  # midnight, so a multiple of every chunk in use
SHORT = RetentionSettings(
    counters=Ladder.parse({"10s": "20m", "1m": "3h", "10m": "30d"}),
    gauges=Ladder.parse({"10s": "20m", "1m": "3h", "10m": "30d"}),
    timers=Ladder.parse({"10s": "20m", "1m": "3h", "10m": "30d"}),
    sets=Ladder.parse({"1m": "1h", "10m": "30d"}),
)

_ADVANCE = """
local gone = 0
for _, key in ipairs(KEYS) do
  local left = redis.call('PTTL', key)
  if left >= 0 then
    if left <= tonumber(ARGV[1]) then gone = gone + redis.call('UNLINK', key)
    else redis.call('PEXPIRE', key, string.format('%.0f', left - tonumber(ARGV[1]))) end
  end
end
return gone
"""


class Rig:
    """One collector on a prefix. `now` is its time; `advance` lets the server's time pass, too."""

    def __init__(
        self, client: Any, prefix: str, settings: RetentionSettings, rules: Iterable[SeriesRule]
    ) -> None:
        self.client = client
        self.prefix = prefix
        self.now = float(START)
        self.truth = Truth()
        self._sending: asyncio.Task[None] | None = None
        self._use(settings, rules)

    def _use(self, settings: RetentionSettings, rules: Iterable[SeriesRule]) -> None:
        self.retention = Retention(settings, RESOLUTION, tuple(rules))
        self.keys = KeySpace(self.prefix, RESOLUTION, self.retention.resolutions)
        self.writer = Writer(self.keys, max_bytes=2**28, samples=200, refresh=60, retention=self.retention)
        self.compactor = Compactor(self.client, self.keys, self.retention)
        self.reader = Reader(self.client, self.keys, idle_expiry=10**9, refresh=60, retention=self.retention)

    async def restart(self, settings: RetentionSettings = SHORT, rules: Iterable[SeriesRule] = ()) -> None:
        """Another collector takes over, perhaps with other ladders."""
        await self.stop()
        self._use(settings, rules)

    async def stop(self) -> None:
        """The collector's end."""
        while self._sending and not self._sending.done():
            self._sending.cancel()
            await asyncio.wait([self._sending], timeout=0.1)
        self._sending = None

    async def write(self, at: float, *points: Point) -> None:
        """Writes points of the window that holds a time, and notes them in the truth."""
        self.put(at, *points)
        await self.flush()

    def put(self, at: float, *points: Point) -> None:
        """The same, but sends nothing yet."""
        window = Window(int(at) // RESOLUTION * RESOLUTION, int(at) // RESOLUTION * RESOLUTION + RESOLUTION)
        self.writer.write(window, points, self.now)
        self.truth.add(window, points)

    async def flush(self) -> None:
        """Sends what was put."""
        await self.writer.commit()
        if self._sending is None:
            self._sending = asyncio.create_task(self.writer.sender.run(self.client))
        assert await self.writer.sender.wait_idle(10), self.writer.sender.last_error

    async def compact(self, series: Iterable[Series]) -> None:
        """Rolls up the shards of some series."""
        for shard in sorted({self.keys.shard(one) for one in series}):
            assert await self.compactor.roll_up(shard, self.now)
        self.reader.forget_watermarks()

    async def advance(self, seconds: float) -> int:
        """Time passes, for the keys of the server as well; how many were gone by then."""
        self.now += seconds
        gone = 0
        keys = await self.client.keys("{" + self.prefix + "*")
        for first in range(0, len(keys), 1000):
            part = keys[first : first + 1000]
            gone += await self.client.eval(_ADVANCE, len(part), *part, int(seconds * 1000))
        return gone

    async def dump(self) -> dict[bytes, Any]:
        """All data of chunks, for comparison."""
        found: dict[bytes, Any] = {}
        for key in await self.client.keys("{" + self.prefix + "*"):
            kind = await self.client.type(key)
            if kind == b"hash":
                found[key] = await self.client.hgetall(key)
            elif b"}:s:" in key:
                found[key] = await self.client.pfcount(key)
        return found


class Truth:
    """All that was written, by the finest slot."""

    def __init__(self) -> None:
        self.numbers: defaultdict[Series, dict[int, Number]] = defaultdict(dict)
        self.values: defaultdict[Series, defaultdict[int, list[float]]] = defaultdict(
            lambda: defaultdict(list)
        )
        self.members: defaultdict[Series, defaultdict[int, set[bytes]]] = defaultdict(
            lambda: defaultdict(set)
        )

        self.newest: defaultdict[Series, int] = defaultdict(int)  # of a gauge, in milliseconds

    def add(self, window: Window, points: Iterable[Point]) -> None:
        """Notes points of a window."""
        for point in points:
            slots = self.numbers[point.series]
            match point:
                case CounterPoint():
                    slots[window.start] = slots.get(window.start, 0) + point.value
                case GaugePoint():
                    assert point.value is not None
                    if window.start not in slots or point.at >= self.newest[point.series]:
                        slots[window.start] = point.value  # one that comes late fills an empty slot only
                    self.newest[point.series] = max(self.newest[point.series], point.at)
                case TimerPoint():
                    self.values[point.series][window.start] += point.samples
                case SetPoint():
                    self.members[point.series][window.start].update(point.members)

    def expected(self, series: Series, start: int, end: int, step: int) -> list[tuple[int, Any]]:
        """What a read of [start, end) by steps has to give."""
        found: dict[int, Any] = {}
        match series.kind:
            case Kind.COUNTER:
                for at, value in self.numbers[series].items():
                    found[at - at % step] = found.get(at - at % step, 0) + value
            case Kind.GAUGE:
                for at in sorted(self.numbers[series]):
                    found[at - at % step] = self.numbers[series][at]
            case Kind.TIMER:
                for at, values in self.values[series].items():
                    found.setdefault(at - at % step, Sketch()).add(values)
            case Kind.SET:
                for at, members in self.members[series].items():
                    found.setdefault(at - at % step, set()).update(members)
                found = {at: len(members) for at, members in found.items()}
        return sorted((at, value) for at, value in found.items() if start <= at < end)


async def read(rig: Rig, series: Series, start: int, end: int, step: int | None) -> list[tuple[int, Any]]:
    """The same question to the store."""
    reader = rig.reader
    match series.kind:
        case Kind.COUNTER:
            return list((await reader.increments([series], start, end, step))[0])
        case Kind.GAUGE:
            return list((await reader.gauge_points([series], start, end, step))[0])
        case Kind.TIMER:
            return list((await reader.sketches([series], start, end, step))[0])
        case Kind.SET:
            return list((await reader.uniques([series], start, end, step))[0])


def point(series: Series, at: float, chance: random.Random) -> Point:
    """A random point of a series."""
    match series.kind:
        case Kind.COUNTER:
            odd = 0.5 if series.tags else 2**53 + 1  # both at once would be rounded, in some order
            return CounterPoint(series, chance.choice([1, 7, odd, chance.randrange(1000)]))
        case Kind.GAUGE:
            return GaugePoint(series, chance.randrange(-100, 100), 0, int(at * 1000))
        case Kind.TIMER:
            values = [float(chance.randrange(1, 500)) for _ in range(chance.randrange(1, 6))]
            sketch = Sketch()
            sketch.add(values)
            return TimerPoint(series, sketch.encode(), array("d", values))
        case Kind.SET:
            return SetPoint(series, [b"u%d" % chance.randrange(60) for _ in range(3)])


@asynccontextmanager
async def rigged(
    path: str, prefix: str, settings: RetentionSettings = SHORT, rules: Iterable[SeriesRule] = ()
) -> AsyncIterator[Rig]:
    """A rig on the server at a socket."""
    client = connect(f"unix://{path}")
    rig = Rig(client, prefix, settings, rules)
    try:
        yield rig
    finally:
        await rig.stop()
        await client.aclose()


def on(path: str, prefix: str, test: Callable[[Rig], Awaitable[None]], **options: Any) -> None:
    """Runs an async test on a prefix of its own."""

    async def run() -> None:
        async with rigged(path, prefix, **options) as rig:
            await test(rig)

    uvloop.run(run())
