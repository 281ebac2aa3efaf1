"""Values, ranges, sketches and uniques out of the store.

Times are seconds of Unix time; a range is [start, end) and answers the slots that begin in it, ascending,
empty ones left out. With a `step`, in seconds, there is one point for each step that has any, read at the
coarsest resolution that divides it; without one at the finest. What is older than a resolution is kept comes
at the next coarser one: a slot then stands for all the time up to its own end. Every method raises StoreError
when the store is away.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from itertools import product
from typing import Any, Final, TypeVar

from redis.asyncio import Redis

from collector.model import Kind, Number, Series
from collector.retention import SET_SECONDS, RetentionSettings
from collector.rules import Retention
from collector.sketch import Sketch
from collector.store.client import read_resolutions
from collector.store.compaction.edges import Watermarks, edges
from collector.store.keys import LETTERS, KeySpace
from collector.store.numbers import read_number
from collector.store.reading import members, slots
from collector.store.reading.plan import Piece, Points, Reach, by_step, middle, pieces, stitched, target
from collector.store.registry import Registry
from collector.store.topology import Topology, topology_of
from collector.turns import Turns

V = TypeVar("V")
Read = Callable[[Topology, Sequence[slots.Wanted]], Awaitable[list[slots.Levels[V]]]]

_PART: Final = 2000  # series
_FRESH: Final = 1.0  # seconds that watermarks are good for: what is rolled up stays for minutes


class Reader:
    """Answers questions; keeps nothing but copies of the registry and of the watermarks."""

    def __init__(
        self,
        store: Topology | Redis,
        keys: KeySpace,
        *,
        idle_expiry: float,
        refresh: float,
        retention: Retention | None = None,
    ) -> None:
        """A series idle for `idle_expiry` seconds is gone; `refresh` is that of the writers. Without a
        `retention` the default ladders hold.
        """
        self._store = topology_of(store)
        self._keys = keys
        self._idle_expiry = idle_expiry
        self._retention = retention or Retention(RetentionSettings(), keys.resolution)
        self._registry = Registry(self._store, keys, idle_expiry + refresh)
        self._marks: dict[int, tuple[float, Watermarks]] = {}  # by shard, and when they were read
        self.kept = float(max(self._retention.longest(kind) for kind in Kind))  # seconds; nothing is older

    async def find(self, matches: Callable[[Series], bool], now: float) -> list[Series]:
        """Live series that match, sorted by key."""
        return await self._registry.find(matches, now)

    async def totals(self, series: Sequence[Series]) -> list[Number]:
        """The running total of each counter, 0 for one that has none."""
        found: list[Number] = []
        for some in _parts(series):
            values = await self._fields(b"total", some)
            found += [0 if value is None else read_number(value) for value in values]
        return found

    async def gauges(self, series: Sequence[Series], now: float) -> list[tuple[float, Number] | None]:
        """(time of the last change, value) of each gauge; None when idle for too long or unknown."""
        found: list[tuple[float, Number] | None] = []
        for some in _parts(series):
            for value in await self._fields(b"last", some):
                ms, _, text = (value or b"").partition(b":")
                at = int(ms or 0) / 1000
                alive = value is not None and at >= now - self._idle_expiry
                found.append((at, read_number(text)) if alive else None)
        return found

    async def increments(
        self, series: Sequence[Series], start: float, end: float, step: int | None = None
    ) -> list[Points[Number]]:
        """Per counter, (slot start, sum of its increments)."""
        return await self._range(slots.numbers, _add, series, start, end, step)

    async def gauge_points(
        self, series: Sequence[Series], start: float, end: float, step: int | None = None
    ) -> list[Points[Number]]:
        """Per gauge, (slot start, last value in it)."""
        return await self._range(slots.numbers, _last, series, start, end, step)

    async def sketches(
        self, series: Sequence[Series], start: float, end: float, step: int | None = None
    ) -> list[Points[Sketch]]:
        """Per timer, (slot start, sketch of all collectors)."""
        return await self._range(slots.sketches, _merge, series, start, end, step)

    async def merged(self, series: Sequence[Series], start: float, end: float) -> list[Sketch]:
        """Per timer, one sketch of the whole range, empty without data: its middle is read coarsely."""
        whole = [Sketch() for _ in series]
        coarse = self._retention.chains[Kind.TIMER][-1]
        low, high = middle(start, end, coarse)
        for first, last, step in ((start, low, None), (low, high, coarse), (high, end, None)):
            if first < last:
                found = await self.sketches(series, first, last, step)
                turns = Turns()
                for sketch, points in zip(whole, found, strict=True):
                    for _, one in points:
                        sketch.merge(one)
                    points.clear()  # freeing all of them at once would take long, too
                    await turns.give()
        return whole

    async def uniques(
        self, series: Sequence[Series], start: float, end: float, step: int | None = None
    ) -> list[Points[int]]:
        """Per set, (start of a minute or of a step, distinct members in it within 0.81 %)."""
        found: list[Points[int]] = []
        for some in _parts(series):
            sets = [(base, parts) for _, base, parts in await self._wanted(some, start, end, step)]
            found += await members.counts(self._ask, sets, step or SET_SECONDS)
        return found

    async def unique(self, series: Sequence[Series], start: float, end: float) -> int:
        """Distinct members over the whole range and over all of the sets, within 0.81 %.

        An hour at an edge of the range counts in full where its minutes are gone.
        """
        marks = await self._watermarks({self._keys.shard(one) for one in series})
        chain = self._retention.chains[Kind.SET]
        keys: list[bytes] = []
        for one in series:
            done = self._reaches(marks[self._keys.shard(one)], Kind.SET)[-1].done if chain[1:] else 0.0
            base = self._keys.base(LETTERS[Kind.SET], one)
            keys += await members.covering(self._ask, base, chain, (start, end), done)
        shards = len({self._keys.shard(one) for one in series})
        return await members.union(self._ask, keys, shards, self._keys.shard_key(0, b"tmp"))

    async def samples(self, series: Series, count: int) -> list[tuple[float, float]]:
        """(window start, value) of the newest raw samples of a timer, newest first."""
        key = self._keys.base(b"t", series)
        (reply,) = await self._ask([("ZREVRANGE", key, 0, count - 1, "WITHSCORES")])
        found: list[tuple[float, float]] = []
        for member, ms in zip(reply[::2], reply[1::2], strict=True):
            values = member.partition(b":")[0].split(b",")
            found += [(float(ms) / 1000, float(value)) for value in reversed(values)]
        return found[:count]

    async def events(self, count: int) -> list[dict[str, Any]]:
        """The newest events, newest first, as they were sent; `at` in seconds."""
        return await self._stream(b"events", count)

    async def checks(self, count: int) -> list[dict[str, Any]]:
        """The newest service checks, newest first; `at` in seconds, `status` 0 to 3."""
        return await self._stream(b"checks", count)

    # ------------------------------------------------------------------ plumbing

    async def _ask(self, commands: Iterable[tuple[Any, ...]]) -> list[Any]:
        return await self._store.ask(commands)

    async def _fields(self, name: bytes, series: Sequence[Series]) -> list[bytes | None]:
        """One hash field of each series, out of a hash of its shard."""
        by_shard: dict[int, list[int]] = {}
        for index, one in enumerate(series):
            by_shard.setdefault(self._keys.shard(one), []).append(index)
        commands = [
            ("HMGET", self._keys.shard_key(shard, name), *(series[i].key.encode() for i in indices))
            for shard, indices in by_shard.items()
        ]
        values: list[bytes | None] = [None] * len(series)
        for indices, reply in zip(by_shard.values(), await self._ask(commands), strict=True):
            for index, value in zip(indices, reply, strict=True):
                values[index] = value
        return values

    async def _range(
        self,
        read: Read[V],
        join: Callable[[V, V], V],
        series: Sequence[Series],
        start: float,
        end: float,
        step: int | None,
    ) -> list[Points[V]]:
        joined: list[Points[V]] = []
        for some in _parts(series):
            found = await self._stitched(read, some, start, end, step)
            turns = Turns()
            while found:  # each is freed when it was joined: all of them at once would hold the loop
                joined.append(by_step(found.popleft(), step, join))
                await turns.give()
        return joined

    async def _stitched(
        self, read: Read[V], series: Sequence[Series], start: float, end: float, step: int | None
    ) -> deque[Points[V]]:
        """Of each series the points of all resolutions that have any."""
        turns = Turns()
        found: list[tuple[Points[V], int]] = []
        wanted = await self._wanted(series, start, end, step)
        for levels in await read(self._store, wanted):
            found.append(stitched(levels))
            await turns.give()
        # A series that had another ladder may have finer slots where its own resolution has none.
        again = [
            index
            for index, (_, coarsest) in enumerate(found)
            if step and coarsest > self._target(series[index], step) > min(self._own(series[index]))
        ]
        if again:
            wanted = await self._wanted([series[index] for index in again], start, end, None)
            for index, levels in zip(again, await read(self._store, wanted), strict=True):
                found[index] = stitched(levels)
                await turns.give()
        return deque(points for points, _ in found)

    def _own(self, series: Series) -> list[int]:
        return [rung.resolution for rung in self._retention.ladder(series).rungs]

    def _target(self, series: Series, step: int | None) -> int:
        return target(self._own(series), step)

    async def _wanted(
        self, series: Sequence[Series], start: float, end: float, step: int | None
    ) -> list[slots.Wanted]:
        """Of each series its shard, what its keys start with, and the pieces to read."""
        marks = await self._watermarks({self._keys.shard(one) for one in series})
        plans: dict[tuple[int, Kind, int], tuple[Piece, ...]] = {}
        found: list[slots.Wanted] = []
        for one in series:
            shard, kind = self._keys.shard(one), one.kind
            plan = shard, kind, self._target(one, step)
            if plan not in plans:
                chain = self._reaches(marks[shard], kind)
                plans[plan] = pieces(chain, plan[2], -int(-start // 1), -int(-end // 1))
            found.append((shard, self._keys.base(LETTERS[kind], one), plans[plan]))
        return found

    def _reaches(self, marks: Watermarks, kind: Kind) -> list[Reach]:
        """The chain of a kind in a shard, with how far each resolution has data."""
        chain = marks.chain(kind, self._retention.chains[kind])
        reaches = [Reach(chain[0], float("inf"), self._retention.life(kind, chain[0]))]
        for edge in edges(kind, chain):
            life = self._retention.life(kind, edge.coarser)
            reaches.append(Reach(edge.coarser, marks.done(edge) or 0, life))
        return reaches

    def forget_watermarks(self) -> None:
        """Reads them anew with the next question."""
        self._marks.clear()

    async def _watermarks(self, shards: Iterable[int]) -> dict[int, Watermarks]:
        """Of some shards, at most a second old."""
        now = time.monotonic()
        stale = [one for one in shards if self._marks.get(one, (float("-inf"),))[0] < now - _FRESH]
        if stale:
            resolutions = await read_resolutions(self._store, self._keys)
            places = list(product(stale, sorted(resolutions | self._keys.resolutions)))
            keys = [self._keys.shard_key(shard, b"wm:%d" % one) for shard, one in places]
            hashes: dict[int, dict[int, dict[bytes, bytes]]] = {shard: {} for shard in stale}
            replies = await self._ask([("HGETALL", key) for key in keys])
            for (shard, one), fields in zip(places, replies, strict=True):
                hashes[shard][one] = fields
            self._marks.update({shard: (now, Watermarks(found)) for shard, found in hashes.items()})
        return {shard: self._marks[shard][1] for shard in shards}

    async def _stream(self, name: bytes, count: int) -> list[dict[str, Any]]:
        key = self._keys.shard_key(0, name)
        (reply,) = await self._ask([("XREVRANGE", key, "+", "-", "COUNT", count)])
        return [_entry(fields) for _, fields in reply]


def _parts(series: Sequence[Series]) -> Iterator[Sequence[Series]]:
    """What is asked about at once: what is done for them in one turn of the loop takes milliseconds."""
    for first in range(0, len(series), _PART):
        yield series[first : first + _PART]


def _add(one: Number, other: Number) -> Number:
    return one + other


def _last(one: Number, other: Number) -> Number:
    return other


def _merge(one: Sketch, other: Sketch) -> Sketch:
    one.merge(other)
    return one


def _entry(fields: dict[bytes, bytes]) -> dict[str, Any]:
    entry: dict[str, Any] = {name.decode(): value.decode() for name, value in fields.items()}
    entry["at"] = int(entry["at"])
    entry["tags"] = entry["tags"].split(",") if entry["tags"] else []
    if "status" in entry:
        entry["status"] = int(entry["status"])
    return entry
