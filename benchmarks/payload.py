"""The load: packets of StatsD lines, the same bytes for every program and every run.

"Mixed" is 60 % counters, 20 % timers, 10 % gauges and 10 % sets over the given number of series, names of
some 35 characters, values as services send them: small counts, milliseconds with two digits behind the point,
integers, 5000 distinct members.
"""

from __future__ import annotations

import random
import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import IO, Final

DATAGRAM: Final = 1432  # bytes that fit an Ethernet frame with room for any header
LARGEST: Final = 65507  # bytes of a UDP datagram over IPv4
KINDS: Final = ("count", "time", "gauge", "uniq")
MIXED: Final = (60, 20, 10, 10)  # per cent of each kind
MOST_TAGS: Final = 4
MOST_SERIES: Final = 2_000_000
_ENOUGH: Final = 200_000  # lines of one round: more than a processor's caches hold
_HEAD: Final = struct.Struct("=II")


@dataclass(frozen=True, slots=True)
class Load:
    """What the lines are like and how they are packed."""

    series: int = 1_000
    mix: tuple[int, ...] = MIXED
    tags: int = 0
    size: int = DATAGRAM
    """Bytes of a packet at most; a line that is longer is a packet of its own, so 1 is one line each."""
    seed: int = 42

    @property
    def lines(self) -> int:
        """Lines of one round: each series comes at least once, then at random."""
        return max(_ENOUGH, 2 * self.series)


def mixed(
    series: int, lines: int, *, tags: int = 0, seed: int = 42, mix: tuple[int, ...] = MIXED
) -> list[str]:
    """`lines` lines; the first `series` of them touch each series once, a series keeps its kind."""
    rng = random.Random(seed)
    kinds = [kind for kind, share in zip(KINDS, mix, strict=True) for _ in range(share)]
    made = []
    for n in range(lines):
        index = n if n < series else rng.randrange(series)
        kind = kinds[(index * 2654435761 >> 7) % len(kinds)]
        name = f"app.service{index % 50:02d}.endpoint.{kind}{index:06d}"
        line = f"{name}:{_value(kind, rng)}"
        if tags:
            line += "|#" + ",".join(_tags(index)[:tags])
        made.append(line)
    return made


def _tags(index: int) -> tuple[str, ...]:
    """As many as `MOST_TAGS`; a series keeps its tags."""
    return ("env:prod", f"host:h{index % 20:02d}", f"path:p{index % 7:02d}", f"zone:z{index % 3}")


def _value(kind: str, rng: random.Random) -> str:
    if kind == "count":
        return f"{rng.randint(1, 10)}|c"
    if kind == "time":
        return f"{rng.randrange(1000)}.{rng.randrange(100):02d}|ms"
    if kind == "gauge":
        return f"{rng.randrange(100_000)}|g"
    return f"u{rng.randrange(5000)}|s"


def packed(lines: list[str], size: int = DATAGRAM) -> Iterator[bytes]:
    """Datagrams of at most `size` bytes."""
    held: list[str] = []
    length = 0
    for line in lines:
        if held and length + 1 + len(line) > size:
            yield "\n".join(held).encode()
            held, length = [], 0
        length += len(line) + bool(held)
        held.append(line)
    if held:
        yield "\n".join(held).encode()


def packets(load: Load, *, stream: bool) -> Iterable[bytes]:
    """One round of packets; over a stream each ends with a newline, which is not part of its size."""
    lines = mixed(load.series, load.lines, tags=load.tags, seed=load.seed, mix=load.mix)
    end = b"\n" if stream else b""
    return (packet + end for packet in packed(lines, load.size))


def write_packets(packets: Iterable[bytes], file: IO[bytes]) -> None:
    """Writes what the native sender reads: `| u32 lines | u32 length | length bytes |`, one after another."""
    for packet in packets:
        lines = packet.count(b"\n") + (not packet.endswith(b"\n"))
        file.write(_HEAD.pack(lines, len(packet)))
        file.write(packet)
