"""Which resolutions are read over which times, and how they are put together.

With a chain of 10 s, 1 min, 1 h, a question about minutes reads

    1 h      from the start up to where hours reach         needed where minutes are gone already
    1 min    from the start up to where minutes reach
    10 s                            from there to the end

and what is coarse is used only where nothing finer is: a coarse slot is the sum of the finer ones within it,
or those are gone, all of them. So no life of any key has to be known here, and a rule that changed lives
needs nothing but what is there.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, TypeVar

from collector.retention import LIVE, SLOTS

V = TypeVar("V")
Points = list[tuple[int, V]]  # (start of a slot, value), ascending


@dataclass(frozen=True, slots=True)
class Piece:
    """Slots of one resolution that begin in [start, end), all in seconds."""

    resolution: int
    start: int
    end: int

    @property
    def chunks(self) -> tuple[int, int]:
        """Numbers of the first chunk and of the last."""
        length = self.resolution * SLOTS
        return self.start // length, (self.end - 1) // length


@dataclass(frozen=True, slots=True)
class Reach:
    """How far one resolution of a chain has data, and how long it is kept at most; seconds."""

    resolution: int
    done: float  # the roll-up into it has come so far; infinite for the finest
    life: int


def target(own: Sequence[int], step: int | None) -> int:
    """The resolution to read for a step: the coarsest of a series' own that divides it, else the finest."""
    return max((one for one in own if step and step % one == 0), default=min(own))


def middle(start: float, end: float, resolution: int) -> tuple[int, int]:
    """The part of [start, end) that consists of whole slots; empty, at the end, when there is none."""
    low, high = -int(-start // resolution) * resolution, int(end // resolution) * resolution
    return (low, high) if low < high else (-int(-end // 1), -int(-end // 1))


def pieces(chain: Sequence[Reach], wanted: int, start: int, end: int) -> tuple[Piece, ...]:
    """What to read of a chain, the finest first, for slots in [start, end) of the resolution `wanted`."""
    found = []
    for reach, after in pairwise([*chain, Reach(0, 0.0, 0)]):
        first = start
        if reach.resolution < wanted:
            first = max(start, int(after.done))  # the coarser one has what came before
        elif after.resolution:  # nothing older is left, so nothing is asked for
            first = max(start, int(after.done) - max(LIVE, reach.life) - 2 * SLOTS * reach.resolution)
        last = int(min(end, reach.done))
        first = -(-first // reach.resolution) * reach.resolution
        if first < last:
            found.append(Piece(reach.resolution, first, last))
    return tuple(found)


def stitched(levels: Sequence[tuple[int, Points[V]]]) -> tuple[Points[V], int]:
    """Points of several resolutions as one list: coarse ones only where nothing finer is.

    `levels` are (resolution, points), the finest first. Beside the list, the coarsest resolution in it.
    """
    merged: Points[V] = []
    coarsest = 0
    for resolution, points in levels:
        if not points:
            continue
        if not merged:
            merged, coarsest = points, resolution
            continue
        finer = [at for at, _ in merged]
        more = [point for point in points if not _has(finer, point[0], point[0] + resolution)]
        if more:
            merged, coarsest = sorted(merged + more, key=lambda point: point[0]), resolution
    return merged, coarsest


def _has(times: list[int], start: int, end: int) -> bool:
    at = bisect_left(times, start)
    return at < len(times) and times[at] < end


def by_step(points: Points[V], step: int | None, join: Callable[[Any, V], V]) -> Points[V]:
    """One point for each step that has any; those that are coarser than the step stay as they are."""
    if not step:
        return points
    joined: Points[V] = []
    for at, value in points:
        begin = at - at % step
        if joined and joined[-1][0] == begin:
            joined[-1] = begin, join(joined[-1][1], value)
        else:
            joined.append((begin, value))
    return joined
