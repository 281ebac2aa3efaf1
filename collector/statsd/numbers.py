"""Values and sample rates.

The pattern comes first and `int` or `float` after it, never alone: Python's own readers also take
"1_000", full-width digits, surrounding blanks, "inf" and "nan", none of which a client may send.
"""

from __future__ import annotations

import math
import re
from typing import Final

from collector.model import INT64_MAX, Number
from collector.statsd.refusal import Refusal

_NUMBER: Final = re.compile(rb"[+-]?(?:[0-9]+(\.[0-9]*)?|(\.[0-9]+))([eE][+-]?[0-9]+)?")
_NON_FINITE: Final = re.compile(rb"[+-]?(?:nan|inf|infinity)", re.IGNORECASE)
_ROUNDING: Final = 4e-16  # twice the relative error of a double: the rate's own and the division's
_MAX_DIGITS: Final = 400  # more digits than the largest double has before its point


def parse_number(text: bytes) -> Number:
    """An int where the text is one and fits 64 bits, else a finite float; Refusal otherwise."""
    match = _NUMBER.fullmatch(text)
    if match is None:
        if not text:
            raise Refusal("empty_value")
        reason = "non_finite" if _NON_FINITE.fullmatch(text) else "bad_value"
        raise Refusal(reason, 0, shown(text))
    if match.lastindex is None and len(text) <= _MAX_DIGITS:
        integer = int(text)
        if -INT64_MAX <= integer <= INT64_MAX:
            return integer
    number = float(text)
    if not math.isfinite(number):
        raise Refusal("non_finite", 0, shown(text))
    return number


def is_signed(text: bytes) -> bool:
    """Whether a gauge's value carries a sign, which in `statsd` mode makes it a move."""
    return text[:1] in (b"+", b"-")


def parse_rate(text: bytes, least: float) -> float:
    """A sample rate in (0, 1], not below `least`; Refusal otherwise."""
    try:
        rate = float(parse_number(text))
    except Refusal:
        rate = 0.0
    if not 0 < rate <= 1 or rate < least:
        raise Refusal("bad_rate", 0, shown(text))
    return rate


def weight_of(rate: float) -> float:
    """How often a sample of this rate counts; whole where the rate means a whole number.

    1 / 0.00001 is 99999.99999999999 and means 100000, which keeps sampled counters integers.
    """
    weight = 1 / rate
    whole = float(round(weight))
    return whole if abs(weight - whole) <= weight * _ROUNDING else weight


def shown(text: bytes) -> str:
    """The start of a faulty part as it may be shown: quoted and escaped."""
    return repr(text[:40].decode("utf-8", "backslashreplace"))
