"""The load: datagrams of StatsD lines, the same for every program and every run.

"Mixed" is 60 % counters, 20 % timers, 10 % gauges and 10 % sets over the given number of series, names of
some 35 characters, values as services send them: small counts, milliseconds with two digits behind the point,
integers, 5000 distinct members.
"""

from __future__ import annotations

import random
from collections.abc import Iterator

DATAGRAM = 1432  # bytes that fit an Ethernet frame with room for any header

_KINDS = (("count", 60), ("time", 20), ("gauge", 10), ("uniq", 10))


def mixed(series: int, lines: int, *, tags: bool = False, seed: int = 42) -> list[str]:
    """`lines` lines; the first `series` of them touch each series once, a series keeps its kind."""
    rng = random.Random(seed)
    kinds = [kind for kind, share in _KINDS for _ in range(share)]
    made = []
    for n in range(lines):
        index = n if n < series else rng.randrange(series)
        kind = kinds[(index * 2654435761 >> 7) % 100]
        name = f"app.service{index % 50:02d}.endpoint.{kind}{index:06d}"
        line = f"{name}:{_value(kind, rng)}"
        if tags:
            line += f"|#env:prod,host:h{index % 20:02d},path:p{index % 7:02d}"
        made.append(line)
    return made


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
