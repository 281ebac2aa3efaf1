"""The fields of a chunk of numbers are read as `int()` and `float()` read them, compiled or not."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from collector.store.numbers import number_text
from collector.store.reading.fields import read_fields, read_fields_in_python

TIMES = tuple(range(1_800_000_000, 1_800_001_200, 10))

NUMBERS = st.one_of(
    st.integers(-(2**70), 2**70),
    st.floats(),
    st.decimals(-(10**12), 10**12, places=4).map(float),
    st.sampled_from([2**53, 10**15 - 1, 10**15, 0.1, 1e22, 5e-324, -0.0]),
)
WORDS = (
    " - . -.5 5. +5 1_0 00012 1e5 1.2.3 1-2 0x10 inf -0 .000000000000001 123456789.12345 123456789012.3456"
)
STRANGE = st.sampled_from([*WORDS.encode().split(b" "), b" 5", b"\xff"])
FIELDS = (st.integers(-2, 1300) | st.integers(0, 119)).map(lambda slot: b"%d" % slot)
PAIRS = st.tuples(FIELDS | STRANGE, NUMBERS.map(number_text) | STRANGE)


def shown(found: tuple[Any, Any]) -> Any:
    """Comparable, with the type of each number and the sign of zero."""
    points, bad = found
    return [(at, repr(value)) for at, value in points], bad


@pytest.mark.skipif(read_fields is read_fields_in_python, reason="nothing compiled in this installation")
@settings(max_examples=500, deadline=None)
@given(
    st.lists(PAIRS, max_size=12).map(lambda pairs: b",".join(part for pair in pairs for part in pair))
    | st.binary(max_size=20),
    st.integers(0, 120),
    st.integers(0, 120),
)
@example(b"", 0, 120)
@example(b"1,2,3", 0, 120)
def test_fields_are_read_alike_with_and_without_the_compiled_code(text: bytes, low: int, high: int) -> None:
    """Values with their types, order, and what is refused."""
    assert shown(read_fields(text, TIMES, low, high)) == shown(read_fields_in_python(text, TIMES, low, high))


@pytest.mark.parametrize("read", [read_fields, read_fields_in_python])
def test_what_is_ours_is_read_and_the_rest_told(read: Any) -> None:
    """Late samples are put in order, other slots left out, foreign fields named with a reason."""
    points, bad = read(b"5,1,3,2.5,119,-7,0,9,4,inf,x,1,6,y", TIMES, 1, 120)
    assert points == [(TIMES[3], 2.5), (TIMES[4], math.inf), (TIMES[5], 1), (TIMES[119], -7)]
    assert [type(value) for _, value in points] == [float, float, int, int]
    assert bad == [(b"x", "no slot"), (b"6", "no number: b'y'")]
    assert read(b"5,1,a,b,c", TIMES, 0, 120) == ([], [(b"5,1,a,b,c", "a comma within a field or value")])


@pytest.mark.parametrize("read", [read_fields, read_fields_in_python])
@given(st.floats(allow_nan=False))
def test_a_number_is_read_as_it_was_written(read: Any, value: float) -> None:
    """Every double comes back, as an integer where it is written as one."""
    ((_, found),), bad = read(b"0," + number_text(value), TIMES, 0, 120)
    assert not bad
    assert found == value
