"""Numbers as the store holds them."""

from __future__ import annotations

from collector.model import Number


def number_text(value: Number) -> bytes:
    """A number as the store holds it: without a point when it is whole, so that HINCRBY takes it."""
    if isinstance(value, int):
        return b"%d" % value
    if value.is_integer() and abs(value) < 2**53:
        return b"%d" % int(value)
    return repr(value).encode()


def read_number(text: bytes) -> Number:
    """Reads what `number_text`, HINCRBYFLOAT or the script wrote."""
    try:
        return int(text)
    except ValueError:
        return float(text)
