"""Values, ranges, sketches and uniques out of the store.

Times are seconds of Unix time; a range is [start, end) and answers the slots that begin in it. Every method
raises StoreError when the store is away.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final

from redis.asyncio import Redis

from collector.model import Number, Series
from collector.sketch import Sketch
from collector.store.keys import SET_SECONDS, KeySpace
from collector.store.numbers import read_number
from collector.store.registry import Registry
from collector.store.topology import Topology, topology_of

_SCRATCH_MS: Final = 10_000  # life of the copies that a union over shards needs


class Reader:
    """Answers questions; keeps nothing but a copy of the registry."""

    def __init__(
        self, store: Topology | Redis, keys: KeySpace, *, idle_expiry: float, refresh: float
    ) -> None:
        """A series idle for `idle_expiry` seconds is gone; `refresh` is that of the writers."""
        self._store = topology_of(store)
        self._keys = keys
        self._idle_expiry = idle_expiry
        self._registry = Registry(self._store, keys, idle_expiry + refresh)

    async def find(self, matches: Callable[[Series], bool], now: float) -> list[Series]:
        """Live series that match, sorted by key."""
        return await self._registry.find(matches, now)

    async def totals(self, series: Sequence[Series]) -> list[Number]:
        """The running total of each counter, 0 for one that has none."""
        values = await self._fields(b"total", series)
        return [0 if value is None else read_number(value) for value in values]

    async def gauges(self, series: Sequence[Series], now: float) -> list[tuple[float, Number] | None]:
        """(time of the last change, value) of each gauge; None when idle for too long or unknown."""
        found: list[tuple[float, Number] | None] = []
        for value in await self._fields(b"last", series):
            ms, _, text = (value or b"").partition(b":")
            at = int(ms or 0) / 1000
            alive = value is not None and at >= now - self._idle_expiry
            found.append((at, read_number(text)) if alive else None)
        return found

    async def increments(
        self, series: Sequence[Series], start: float, end: float
    ) -> list[list[tuple[int, Number]]]:
        """Per counter, (slot start, sum of its increments), ascending, empty slots left out."""
        return await self._points(b"c", series, start, end)

    async def gauge_points(
        self, series: Sequence[Series], start: float, end: float
    ) -> list[list[tuple[int, Number]]]:
        """Per gauge, (slot start, last value in it), ascending, empty slots left out."""
        return await self._points(b"g", series, start, end)

    async def sketches(
        self, series: Sequence[Series], start: float, end: float
    ) -> list[list[tuple[int, Sketch]]]:
        """Per timer, (slot start, sketch of all collectors), ascending, empty slots left out."""
        answers: list[list[tuple[int, Sketch]]] = []
        for slots in await self._slots(b"d", series, start, end):
            merged: dict[int, Sketch] = {}
            for at, blob in slots:
                merged.setdefault(at, Sketch()).merge(Sketch.decode(blob))
            answers.append(sorted(merged.items()))
        return answers

    async def uniques(
        self, series: Sequence[Series], start: float, end: float
    ) -> list[list[tuple[int, int]]]:
        """Per set, (start of a minute, distinct members in it within 0.81 %), ascending."""
        minutes = _minutes(start, end)
        commands = [("PFCOUNT", self._keys.members(one, minute)) for one in series for minute in minutes]
        counts = iter(await self._ask(commands))
        return [
            [(minute * SET_SECONDS, count) for minute in minutes if (count := next(counts))] for _ in series
        ]

    async def unique(self, series: Sequence[Series], start: float, end: float) -> int:
        """Distinct members over the whole range and over all of the sets, within 0.81 %."""
        keys = [self._keys.members(one, minute) for one in series for minute in _minutes(start, end)]
        if not keys:
            return 0
        if len({self._keys.shard(one) for one in series}) == 1:
            (count,) = await self._ask([("PFCOUNT", *keys)])
            return int(count)
        # PFCOUNT takes keys of one shard only: the others are copied next to each other for a moment.
        blobs = [blob for blob in await self._ask([("GET", key) for key in keys]) if blob]
        scratch = self._keys.shard_key(0, b"tmp:" + secrets.token_hex(8).encode())
        names = [b"%b:%d" % (scratch, n) for n in range(len(blobs))]
        if not names:
            return 0
        copies = zip(names, blobs, strict=True)
        await self._ask([("SET", name, blob, "PX", _SCRATCH_MS) for name, blob in copies])
        (count,) = await self._ask([("PFCOUNT", *names)])
        await self._ask([("UNLINK", *names)])
        return int(count)

    async def samples(self, series: Series, count: int) -> list[tuple[float, float]]:
        """(window start, value) of the newest raw samples of a timer, newest first."""
        key = self._keys.base(b"t", series)
        (reply,) = await self._ask([("ZREVRANGE", key, 0, count - 1, "WITHSCORES")])
        pairs = zip(reply[::2], reply[1::2], strict=True)
        return [(float(ms) / 1000, float(member.partition(b":")[0])) for member, ms in pairs]

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

    async def _points(
        self, letter: bytes, series: Sequence[Series], start: float, end: float
    ) -> list[list[tuple[int, Number]]]:
        return [
            [(at, read_number(value)) for at, value in slots]
            for slots in await self._slots(letter, series, start, end)
        ]

    async def _slots(
        self, letter: bytes, series: Sequence[Series], start: float, end: float
    ) -> list[list[tuple[int, bytes]]]:
        """Per series, (slot start, field's value) of all chunks in the range, ascending."""
        chunks = range(self._keys.chunk(start), self._keys.chunk(max(start, end - 1)) + 1)
        commands = [("HGETALL", self._keys.chunked(letter, one, chunk)) for one in series for chunk in chunks]
        replies = iter(await self._ask(commands))
        answers: list[list[tuple[int, bytes]]] = []
        for _ in series:
            found: list[tuple[int, bytes]] = []
            for chunk in chunks:
                for field, value in next(replies).items():
                    at = self._keys.slot_start(chunk, int(field.partition(b":")[0]))
                    if start <= at < end:
                        found.append((at, value))
            answers.append(sorted(found))
        return answers

    async def _stream(self, name: bytes, count: int) -> list[dict[str, Any]]:
        key = self._keys.shard_key(0, name)
        (reply,) = await self._ask([("XREVRANGE", key, "+", "-", "COUNT", count)])
        return [_entry(fields) for _, fields in reply]


def _minutes(start: float, end: float) -> range:
    """Numbers of the minutes that begin in [start, end)."""
    return range(-int(-start // SET_SECONDS), -int(-end // SET_SECONDS))


def _entry(fields: dict[bytes, bytes]) -> dict[str, Any]:
    entry: dict[str, Any] = {name.decode(): value.decode() for name, value in fields.items()}
    entry["at"] = int(entry["at"])
    entry["tags"] = entry["tags"].split(",") if entry["tags"] else []
    if "status" in entry:
        entry["status"] = int(entry["status"])
    return entry
