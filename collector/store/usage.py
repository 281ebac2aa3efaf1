"""How much of the store's memory each metric takes.

The registry tells which series there are, and so which keys there can be; the server tells what each takes
(MEMORY USAGE). Nothing is searched for: KEYS and SCAN are never used. A series has hundreds of keys, so where
there are very many series, some of a metric stand for all of it, and where there are very many metrics, the
larger ones of a kind stand for the others.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, Final

from collector.model import Kind, Series
from collector.retention import LIVE, SLOTS
from collector.rules import Retention
from collector.store.client import read_resolutions
from collector.store.keys import LETTERS, SET_SECONDS, SHARDS, KeySpace
from collector.store.topology import Topology

BUDGET: Final = 200_000  # questions, some seconds of our time
_ROUND: Final = 5_000  # questions asked before progress is told
_OF_SHARDS: Final = (b"total", b"last", b"ix")

Progress = Callable[[int, int], None]  # questions asked, of how many


@dataclass(slots=True)
class MetricUsage:
    """One metric of one kind. `measured` of its series were asked for; `bytes` are for all."""

    kind: Kind
    name: str
    series: int = 0
    measured: int = 0
    bytes: int = 0


@dataclass(slots=True)
class Usage:
    """What there is, largest first. Bytes are those of keys and values, as the server estimates them."""

    metrics: list[MetricUsage] = field(default_factory=list)
    largest: list[tuple[Series, int]] = field(default_factory=list)  # of those that were measured
    shared: dict[str, int] = field(default_factory=dict)  # registry, totals, last values, events and checks
    series: int = 0
    measured: int = 0

    @property
    def sampled(self) -> bool:
        """Whether some series stand for others."""
        return self.measured < self.series

    @property
    def bytes(self) -> int:
        """All of it."""
        return sum(one.bytes for one in self.metrics) + sum(self.shared.values())


async def measure(
    store: Topology,
    keys: KeySpace,
    retention: Retention,
    now: float,
    *,
    top: int,
    progress: Progress,
    budget: int = BUDGET,
) -> Usage:
    """Asks for at most about `budget` keys; `top` of the largest series are listed. StoreError as ever."""
    usage = Usage()
    resolutions = await read_resolutions(store, keys)
    groups = await _series(store, keys)
    usage.series = sum(map(len, groups.values()))
    names = {
        kind: sum(1 for _ in _keys_of(keys, Series(kind, "x"), now, resolutions, retention)) for kind in Kind
    }
    wanted = sum(names[kind] * len(found) for (kind, _), found in groups.items())
    every = max(1, -(-wanted // budget))  # one series in so many of each metric, and one at least
    asked = 0
    for (kind, name), found in sorted(groups.items(), key=lambda group: -len(group[1])):
        metric = MetricUsage(kind, name, series=len(found))
        usage.metrics.append(metric)
        for series in found[::every]:
            if asked >= budget:
                break
            size = await _size(store, list(_keys_of(keys, series, now, resolutions, retention)))
            metric.bytes += size
            metric.measured += 1
            usage.largest.append((series, size))
            before, asked = asked, asked + names[kind]
            if asked // _ROUND != before // _ROUND:
                usage.largest = _largest(usage.largest, top)
                progress(asked, min(wanted, budget))
    usage.measured = sum(metric.measured for metric in usage.metrics)
    _extrapolate(usage.metrics)
    usage.metrics.sort(key=lambda one: -one.bytes)
    usage.largest = _largest(usage.largest, top)
    usage.shared = await _shared(store, keys)
    return usage


def _extrapolate(metrics: list[MetricUsage]) -> None:
    """From what was measured of a metric to all of it; from a kind to a metric of which nothing was."""
    for kind in Kind:
        of_kind = [one for one in metrics if one.kind is kind]
        size, measured = sum(one.bytes for one in of_kind), sum(one.measured for one in of_kind)
        for one in of_kind:
            one.bytes = one.bytes * one.series // one.measured if one.measured else 0
            if not one.measured and measured:
                one.bytes = size * one.series // measured


def _largest(found: list[tuple[Series, int]], top: int) -> list[tuple[Series, int]]:
    return sorted(found, key=lambda one: -one[1])[:top]


async def _series(store: Topology, keys: KeySpace) -> dict[tuple[Kind, str], list[Series]]:
    """All series of the registry, by kind and metric, in the order of their keys."""
    groups: dict[tuple[Kind, str], list[Series]] = {}
    for shard in range(SHARDS):  # one at a time: a million series in one reply would be as much memory again
        (fields,) = await store.ask([("HGETALL", keys.shard_key(shard, b"ix"))])
        for one in fields:
            series = Series.from_key(one.decode())
            groups.setdefault((series.kind, series.name), []).append(series)
    for found in groups.values():
        found.sort(key=lambda series: series.key)
    return groups


def _keys_of(
    keys: KeySpace, series: Series, now: float, resolutions: set[int], retention: Retention
) -> Iterator[bytes]:
    """Every key that a series may have now, except its fields in the hashes of its shard."""
    kind = series.kind
    base = keys.base(LETTERS[kind], series)
    for resolution in {SET_SECONDS, *resolutions} if kind is Kind.SET else resolutions:
        span = resolution if kind is Kind.SET else resolution * SLOTS
        kept = max(LIVE, retention.life(kind, resolution))
        for number in range(int((now - kept) // span) - 1, int(now // span) + 2):
            yield b"%b:%d:%d" % (base, resolution, number)
    if kind is Kind.TIMER:
        yield keys.base(b"t", series)


async def _size(store: Topology, names: list[bytes]) -> int:
    """Bytes of the keys that are there."""
    sizes: list[Any] = await store.ask([("MEMORY USAGE", name) for name in names])
    return sum(size for size in sizes if size is not None)


async def _shared(store: Topology, keys: KeySpace) -> dict[str, int]:
    shared = {}
    for name in _OF_SHARDS:
        shared[name.decode()] = await _size(store, [keys.shard_key(shard, name) for shard in range(SHARDS)])
    for name in (b"events", b"checks"):
        shared[name.decode()] = await _size(store, [keys.shard_key(0, name)])
    return shared
