"""The quantile sketch: bins, quantiles, merging, bytes; the one in Python, and the compiled one."""

from __future__ import annotations

import itertools
import math
import random
import struct
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from collector.sketch import (
    LARGEST,
    MAX_INDEX,
    MIN_INDEX,
    RELATIVE_ERROR,
    SCALE,
    SketchInPython,
    bin_bounds,
    bin_index,
    finite_sum,
)
from collector.sketch import Sketch as Compiled

TWINS: dict[str, Any] = {"python": SketchInPython, "compiled": Compiled}
needs_compiled = pytest.mark.skipif(
    Compiled.__name__ != "Sketch", reason="nothing compiled in this installation"
)

Sketch: Any = SketchInPython  # the twin that a test is run with


@pytest.fixture(
    autouse=True, scope="module", params=["python", pytest.param("compiled", marks=needs_compiled)]
)
def each_twin(request: pytest.FixtureRequest) -> Iterator[None]:
    """Every test with both."""
    global Sketch  # noqa: PLW0603
    Sketch = TWINS[request.param]
    yield
    Sketch = SketchInPython


FIRST = bytes([-1 - MIN_INDEX & 0x7F | 0x80, -1 - MIN_INDEX >> 7])  # the number of bin -1, where 1 lies


def middle_of(index: int) -> float:
    """A value in a bin, away from its bounds."""
    return float(2.0 ** ((index + 0.5) / SCALE))


def sketch_of(*values: float, weight: float = 1.0) -> Any:
    """A sketch of some values."""
    sketch = Sketch()
    sketch.add(values, weight)
    return sketch


@pytest.mark.parametrize("index", [*range(-64, 64), MIN_INDEX + 1, MAX_INDEX - 1])
def test_a_value_on_a_bound_belongs_to_the_bin_below_it(index: int) -> None:
    """Lower bounds are exclusive and upper ones inclusive, as OpenTelemetry has it; no rounding moves one."""
    lower, upper = bin_bounds(index)
    assert bin_index(upper) == index
    assert bin_index(math.nextafter(upper, math.inf)) == index + 1
    assert bin_index(math.nextafter(lower, math.inf)) == index


def test_bins_follow_the_formula() -> None:
    """ceil(log2(x) * 32) - 1, away from the bounds."""
    for exponent in range(-39, 64):
        for step in range(SCALE):
            index = exponent * SCALE + step
            assert bin_index(2 ** ((index + 0.5) / SCALE)) == index == math.ceil(index + 0.5) - 1


@pytest.mark.parametrize(
    ("value", "index"),
    [(5e-324, MIN_INDEX), (2.0**-40, MIN_INDEX), (2.0**64, MAX_INDEX), (LARGEST, MAX_INDEX)],
)
def test_magnitudes_beyond_the_bins_are_clamped(value: float, index: int) -> None:
    """The first and the last bin take what lies outside."""
    assert bin_index(value) == index
    sketch = sketch_of(value, -value)
    assert (sketch.positive, sketch.negative) == ({index: 1}, {index: 1})
    assert (sketch.min, sketch.max) == (-value, value)


def test_the_promised_error() -> None:
    """1.083 %: the figure in the documentation is the one of the bins."""
    assert pytest.approx(0.01083, abs=1e-5) == RELATIVE_ERROR


def test_an_empty_sketch_has_no_quantile() -> None:
    """NaN, and neither an error nor zero."""
    assert math.isnan(Sketch().quantile(0.5))
    assert Sketch().cells() == []


def test_count_sum_and_extremes_are_exact() -> None:
    """Zeros have a bin of their own, negative values are kept by magnitude, weights multiply."""
    sketch = sketch_of(-2.5, -0.0, 0, 7, 7, weight=2.5)
    assert (sketch.count, sketch.sum, sketch.min, sketch.max) == (12.5, 28.75, -2.5, 7)
    assert (sketch.zero, sketch.positive, sketch.negative) == (5, {bin_index(7): 5}, {bin_index(2.5): 2.5})
    assert [weight for _, weight in sketch.cells()] == [2.5, 5, 5]


@pytest.mark.parametrize(
    "values",
    [
        [random.Random(1).lognormvariate(3, 2) for _ in range(5000)],
        [random.Random(2).paretovariate(0.8) for _ in range(5000)],
        [random.Random(3).gauss(0, 1000) for _ in range(5000)],
        [float(number % 7) for number in range(5000)],
        [5.0] * 5000,
    ],
    ids=["lognormal", "pareto", "gauss", "few", "one"],
)
@pytest.mark.parametrize("q", [0, 0.001, 0.07, 0.5, 0.9, 0.99, 0.999, 0.9999, 1])
def test_quantiles_are_the_nearest_rank_within_the_error(values: list[float], q: float) -> None:
    """Whatever the distribution, heavy tails and negative values included."""
    ordered = sorted(values)
    exact = ordered[max(math.ceil(round(q * len(values), 6)), 1) - 1]
    assert sketch_of(*values).quantile(q) == pytest.approx(exact, rel=RELATIVE_ERROR * (1 + 1e-9))


def test_merging_is_adding_in_any_order() -> None:
    """All orders of parts give the same bins, and the same as one sketch of everything."""
    parts = [(1.0, 2.5, -3.0), (0.0, 1e-9), (1e12,), (), (2.5, 2.5)]
    whole = sketch_of(*itertools.chain(*parts))
    for order in itertools.permutations(parts):
        merged = Sketch()
        for values in order:
            merged.merge(sketch_of(*values))
        assert (merged.positive, merged.negative, merged.zero) == (
            whole.positive,
            whole.negative,
            whole.zero,
        )
        assert (merged.count, merged.min, merged.max) == (whole.count, whole.min, whole.max)
        assert merged.sum == pytest.approx(whole.sum, rel=1e-15)


def test_merging_leaves_the_other_sketch_as_it_was() -> None:
    """A stored sketch may be merged into several results."""
    one, other = sketch_of(1, 2), sketch_of(2, 3)
    before = other.encode()
    one.merge(other)
    one.add([2.0])
    assert other.encode() == before


@pytest.mark.parametrize(
    ("values", "weight"),
    [
        ((), 1.0),
        ((0,), 1.0),
        ((1, 1, 2, -5, 0), 1.0),
        ((1, 2, 3), 1 / 0.3),
        ((5,), 1e9),
        ((5,), 2.0**60),
        ((5,), 1e300),
        ((5e-324, LARGEST, -LARGEST, -5e-324), 1.0),
        (range(-1000, 1000), 1.0),
        (range(-1000, 1000), 0.7),
        (tuple(2.0 ** (n / 32 - 0.01) for n in range(-1300, 2100)), 1.0),
    ],
)
def test_a_sketch_reads_back_from_its_bytes(values: tuple[float, ...], weight: float) -> None:
    """Whole weights and fractions, empty sides, the outermost bins, and all of them at once."""
    sketch = sketch_of(*values, weight=weight)
    again = Sketch.decode(sketch.encode())
    assert again == sketch
    assert (again.positive, again.negative, again.zero) == (sketch.positive, sketch.negative, sketch.zero)
    assert (again.count, again.sum, again.min, again.max) == (
        sketch.count,
        sketch.sum,
        sketch.min,
        sketch.max,
    )


def test_the_bytes_are_those_of_the_drawing() -> None:
    """Stored data must stay readable: version, flags, four doubles, then varints."""
    blob = sketch_of(1, 1, 2, -1, 0).encode()
    head = struct.pack("<BBdddd", 1, 0, 5, 3, -1, 2)
    assert blob == head + b"\x01" + b"\x02" + FIRST + b"\x02" + b"\x20\x01" + b"\x01" + FIRST + b"\x01"


def test_bins_that_lie_close_together_have_no_gaps() -> None:
    """The dense form: how many in a row, the first, a weight each; here of the negative side alone."""
    blob = sketch_of(-1, -1, *(-bin_bounds(n)[1] for n in (0, 1, 3)), 1).encode()
    head = struct.pack("<BBdddd", 1, 4, 6, Sketch.decode(blob).sum, -bin_bounds(3)[1], 1)
    assert blob == head + b"\x00" + b"\x01" + FIRST + b"\x01" + b"\x05" + FIRST + b"\x02\x01\x01\x00\x01"


def test_of_two_forms_the_shorter_one_is_written() -> None:
    """As many empty bins between as gaps are saved, and the sparse one stays; fractions make a bin dearer."""
    flags = [sketch_of(*map(middle_of, bins)).encode()[1] for bins in ((0, 1, 3), (0, 2), (0, 3))]
    assert flags == [2, 0, 0]
    assert sketch_of(*map(middle_of, range(4)), weight=1.5).encode()[1] == 1 | 2
    assert sketch_of(*map(middle_of, (0, 1, 2, 4)), weight=1.5).encode()[1] == 1


def test_what_was_written_before_there_was_a_dense_form_is_read() -> None:
    """A blob of 100 bins, a gap each."""
    head = struct.pack("<BBdddd", 1, 0, 100, 250, 1, 4)
    sketch = Sketch.decode(head + b"\x00" + b"\x64" + FIRST + b"\x01" + b"\x01\x01" * 99 + b"\x00")
    assert sketch.positive == dict.fromkeys(range(-1, 99), 1.0)
    assert len(sketch.encode()) < len(head) + 1 + 110


def test_whole_weights_are_small() -> None:
    """A sketch of 1000 values within a factor of ten takes some 170 bytes, 34 of them ahead of the bins."""
    assert len(sketch_of(*range(100, 1000)).encode()) < 170


def test_nothing_but_weights_of_the_right_kind_is_written() -> None:
    """A weight beyond 2^53 is no whole number that everybody reads."""
    assert sketch_of(5, weight=2.0**53).encode()[1] == 0
    assert sketch_of(5, weight=2.0**54).encode()[1] == 1


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=80) | st.binary(max_size=60).map(lambda tail: sketch_of(1).encode()[:35] + tail))
def test_what_is_no_sketch_is_a_value_error(blob: bytes) -> None:
    """Damaged bytes are told apart, never a strange exception or a bin that does not exist."""
    try:
        sketch = Sketch.decode(blob)
    except ValueError:
        return
    assert all(MIN_INDEX <= index <= MAX_INDEX for index in [*sketch.positive, *sketch.negative])


@pytest.mark.parametrize("cut", range(len(sketch_of(1, 2, 300, -4).encode())))
def test_a_cut_sketch_is_refused(cut: int) -> None:
    """At every length."""
    with pytest.raises(ValueError, match="sketch"):
        Sketch.decode(sketch_of(1, 2, 300, -4).encode()[:cut])


ODD_NUMBERS = [
    *[(math.nan, 1, 1, 1), (1, math.nan, 1, 1), (1, 1, math.nan, 1), (1, 1, 1, math.nan)],
    *[(-1, 1, 1, 1), (1, math.inf, 1, 1), (1, -math.inf, 1, 1)],
]


@pytest.mark.parametrize(
    "blob",
    [
        sketch_of(1).encode() + b"\0",
        b"\x02" + sketch_of(1).encode()[1:],
        b"\x01\x08" + sketch_of(1).encode()[2:],
        sketch_of(1).encode()[:35] + b"\x01" + b"\xff\x7f" + b"\x01\x00",  # a bin beyond the last
        sketch_of(1).encode()[:35] + b"\x02\x01\x01\x00\x01\x00",  # the same bin twice
        sketch_of(1).encode()[:34] + b"\xff" * 200 + b"\x00\x00\x00",  # a weight beyond 63 bits
        sketch_of(1).encode()[:34] + b"\x80" * 9 + b"\x00\x00\x00",  # zero, in ten bytes
        b"\x01\x02"
        + sketch_of(1).encode()[2:35]
        + b"\x02\x80\x1a\x01\x01\x00",  # in a row beyond the last bin
        b"\x01\x02" + sketch_of(1).encode()[2:35] + b"\xff" * 8 + b"\x7f\x00",  # a row without end
        b"\x01\x01" + sketch_of(1).encode()[2:34] + struct.pack("<d", -1.0) + b"\x00\x00",
        b"\x01\x01" + sketch_of(1).encode()[2:34] + struct.pack("<d", math.nan) + b"\x00\x00",
        *(struct.pack("<BBdddd", 1, 0, *four) + bytes(3) for four in ODD_NUMBERS),
    ],
)
def test_another_version_and_strange_bins_are_refused(blob: bytes) -> None:
    """Nothing is guessed from bytes of another kind."""
    with pytest.raises(ValueError, match="sketch"):
        Sketch.decode(blob)


@pytest.mark.parametrize(
    ("values", "total"),
    [
        ([], 0.0),
        ([0.1] * 10, 1.0),
        ([1e308] * 20, LARGEST),
        ([-1e308] * 20, -LARGEST),
        ([1e308] * 20 + [-1e308] * 19, 1e308),
        ([1e308, 1e308, -1e308, 1.0], 1e308),
    ],
)
def test_sums_stay_finite_and_exact(values: list[float], total: float) -> None:
    """Rounded once, even when partial sums leave the range of a double."""
    assert finite_sum(values) == total


def test_absurd_values_do_not_make_the_sum_infinite() -> None:
    """Adding, weighting and merging stop at the largest double, of either sign."""
    sketch = sketch_of(1e308, 1e308, weight=10)
    sketch.merge(sketch_of(LARGEST))
    assert sketch.sum == LARGEST
    sketch.add([-LARGEST] * 3, 10)
    assert math.isfinite(sketch.sum)
    assert Sketch.decode(sketch.encode()) == sketch


def test_a_sketch_says_what_is_in_it_and_is_no_key() -> None:
    """It can change, so it has no hash; it equals what has the same bytes, and nothing else."""
    sketch = sketch_of(1, 2.5)
    assert repr(sketch) == "Sketch(count=2.0, sum=3.5, min=1.0, max=2.5)"
    assert sketch == sketch_of(2.5, 1)
    assert sketch not in (sketch_of(1), 3.5, None)
    with pytest.raises(TypeError, match="unhashable"):
        hash(sketch)


def test_a_sketch_scales_as_its_values_weigh() -> None:
    """Each value twice and a half: the same as having added it so; with no weight there is no bin."""
    sketch = sketch_of(-2, 0, 1, 1)
    sketch.scale(2.5)
    assert sketch == sketch_of(-2, 0, 1, 1, weight=2.5)
    sketch.scale(0)
    assert (sketch.count, sketch.positive, sketch.negative) == (0, {}, {})


# ---------------------------------------------------------------------- many at once


def test_a_fold_merges_slot_by_slot() -> None:
    """Names begin with a slot; others are left out, and what is no sketch is told and costs itself only."""
    names = [b"7:a.1", b"6", b"11:a.2", b"12:a.2", b"6:b.9", b"5:a.1", b"8:a.1", b"x:1", b"", b"1" * 10]
    blobs = [sketch_of(float(n + 1)).encode() for n in range(len(names))]
    blobs[6] = b"\x01"
    found, bad = Sketch.fold(names, blobs, 6, 12, 3)
    assert list(found) == [2, 3]
    assert (found[2], found[3]) == (sketch_of(1, 2, 5), sketch_of(3))
    nameless = [(name, "sketch without a slot") for name in (b"x:1", b"", b"1" * 10)]
    assert bad == [*nameless, (b"8:a.1", "sketch cut short")]
    assert Sketch.fold([], [], 0, 120, 1) == ({}, [])
    with pytest.raises(ValueError, match=r"names|zip"):
        Sketch.fold([b"1"], [], 0, 120, 1)


def test_a_fold_is_what_merging_one_by_one_gives() -> None:
    """Bins, and the sum rounded in the order of arrival; a fold leaves nothing behind for the next."""
    chance = random.Random(5)
    parts = [
        sketch_of(*(chance.gauss(0, 10.0 ** chance.randint(-9, 9)) for _ in range(9))) for _ in range(50)
    ]
    for size in (1, 2, 50, 3):
        whole = Sketch()
        for part in parts[:size]:
            whole.merge(part)
        found, bad = Sketch.fold([b"3"] * size, [part.encode() for part in parts[:size]], 0, 120, 1)
        assert (found, bad) == ({3: whole}, [])
