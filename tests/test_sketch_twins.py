"""The compiled sketch does what the one in Python does, bit for bit, and says the same of what is damaged."""

from __future__ import annotations

import math
import random
import struct
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from collector.sketch import Sketch, SketchInPython

pytestmark = pytest.mark.skipif(
    Sketch is SketchInPython,  # type: ignore[comparison-overlap]
    reason="nothing compiled in this installation",
)


def varint(number: int, length: int = 1) -> bytes:
    """A number in at least so many bytes."""
    out: list[int] = []
    while number > 0x7F or len(out) < length - 1:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*out, number])


def spoiled(values: list[float], weight: float, chance: int) -> bytes:
    """What was written, with a byte or two changed, taken out or put in."""
    sketch = SketchInPython()
    sketch.add(values, weight)
    blob, dice = bytearray(sketch.encode()), random.Random(chance)
    for _ in range(dice.randrange(3)):
        place = dice.randrange(len(blob))
        blob[place : place + dice.randrange(2)] = bytes([dice.randrange(256)] * dice.randrange(3))
    return bytes(blob)


VALUES = st.lists(st.floats(allow_nan=False, allow_infinity=False) | st.floats(0.5, 50), max_size=40)
WEIGHTS = st.sampled_from([1.0, 1.0, 2.0, 1 / 0.3, 1e9, 2.0**53, 1e300, 5e-324])
STEPS = st.lists(
    st.tuples(st.just("add"), VALUES, WEIGHTS)
    | st.tuples(st.just("merge"), VALUES, WEIGHTS)
    | st.tuples(st.just("scale"), st.just([]), WEIGHTS),
    max_size=6,
)

DOUBLES = st.sampled_from([0.0, -0.0, 1.0, 2.5, -1.0, 1e300, 5e-324, math.inf, -math.inf, math.nan])
VARINTS = st.one_of(
    st.integers(0, 127).map(lambda number: bytes([number])),
    st.integers(0, 2**70).map(varint),
    st.tuples(st.integers(0, 300), st.integers(1, 12)).map(
        lambda one: varint(*one)
    ),  # longer than it need be
    st.sampled_from([b"\x80", b"\x80\x1a", b"\x81\x1a", b"\xff" * 8 + b"\x7f"]),
)
HEADS = st.builds(
    lambda version, flags, doubles: struct.pack("<BBdddd", version, flags, *doubles),
    st.sampled_from([1, 1, 1, 1, 0, 2]),
    st.sampled_from([*range(8), *range(8), 8, 255]),
    st.tuples(*[st.just(3.0) | DOUBLES] * 4),
)
BYTES = st.lists(
    VARINTS | DOUBLES.map(lambda one: struct.pack("<d", one)) | st.binary(max_size=3), max_size=24
)
HOSTILE = st.one_of(
    st.binary(max_size=80),
    st.builds(lambda head, parts: head + b"".join(parts), HEADS, BYTES),
    st.builds(spoiled, VALUES, WEIGHTS, st.integers(0, 10**9)),
)


def read(twin: Any, blob: bytes) -> Any:
    """A sketch, or why it is none."""
    try:
        return twin.decode(blob)
    except ValueError as error:
        return str(error)


def seen(sketch: Any) -> Any:
    """All that can be seen of a sketch."""
    if isinstance(sketch, str):
        return sketch
    quantiles = [sketch.quantile(q) for q in (-1, 0, 0.01, 0.5, 0.99, 1, 2)]
    numbers = (sketch.count, sketch.sum, sketch.min, sketch.max, sketch.zero, *quantiles)
    bins = (list(sketch.positive.items()), list(sketch.negative.items()), sketch.cells())
    return struct.pack(f"<{len(numbers)}d", *numbers), *map(sorted, bins), sketch.encode(), repr(sketch)


@settings(max_examples=400, deadline=None)
@given(STEPS)
def test_whatever_is_done_gives_the_same_sketch(steps: list[tuple[str, list[float], float]]) -> None:
    """Adding, merging and scaling in any order, with all kinds of values and weights."""
    ours, reference = Sketch(), SketchInPython()
    both: tuple[Any, ...] = ours, reference
    for what, values, weight in steps:
        for sketch in both:
            if what == "scale":
                sketch.scale(weight)
                continue
            more = sketch if what == "add" else type(sketch)()
            more.add(values, weight)
            if what == "merge":
                sketch.merge(more)
        assert seen(ours) == seen(reference)
    assert seen(read(Sketch, reference.encode())) == seen(read(SketchInPython, ours.encode()))


@settings(max_examples=800, deadline=None)
@given(HOSTILE)
def test_hostile_bytes_are_read_or_refused_alike(blob: bytes) -> None:
    """Huge numbers and lengths, varints longer than they need be, what is no number, cuts anywhere."""
    assert seen(read(Sketch, blob)) == seen(read(SketchInPython, blob))


NAMES = st.builds(
    lambda slot, rest: b"%d%b" % (slot, rest), st.integers(0, 30), st.sampled_from([b"", b":a.1"])
)


@settings(max_examples=300, deadline=None)
@given(
    st.lists(st.tuples(NAMES | st.binary(max_size=4), HOSTILE), max_size=12),
    st.integers(0, 20),
    st.integers(0, 31),
    st.sampled_from([1, 1, 6, 120]),
)
def test_a_fold_of_hostile_bytes_gives_the_same(
    pairs: list[tuple[bytes, bytes]], low: int, high: int, ratio: int
) -> None:
    """Sketches by slot, and the same complaints in the same order."""
    names, blobs = [name for name, _ in pairs], [blob for _, blob in pairs]
    (ours, bad), (reference, theirs) = (
        twin.fold(names, blobs, low, high, ratio) for twin in (Sketch, SketchInPython)
    )
    assert bad == theirs
    assert [(slot, seen(one)) for slot, one in ours.items()] == [
        (slot, seen(one)) for slot, one in reference.items()
    ]
