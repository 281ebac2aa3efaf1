"""The fields of a chunk of numbers, read: compiled where it was built, else in Python.

    17,5,18,2.5     slot, value, slot, value...

So gather.lua joins them.
"""

from __future__ import annotations

from operator import itemgetter
from typing import Final

from collector.model import Number
from collector.store.numbers import read_number
from collector.store.reading.plan import Points

__all__ = ["Bad", "read_fields", "read_fields_in_python"]

Bad = list[tuple[bytes, str]]  # fields that are not ours, and why not

_DIGITS: Final = 3  # of a slot, at most


def read_fields_in_python(
    text: bytes, times: tuple[int, ...], low: int, high: int
) -> tuple[Points[Number], Bad]:
    """(its time, value) of each slot in [low, high) that is there, ascending; and what is not ours.

    `times` are those of all slots of the chunk, so that points of many series share them. Where another
    program wrote a field or value with a comma in it, nobody can tell which part is what: all is bad then.
    """
    parts = text.split(b",")
    if len(parts) % 2:
        return [], [(text, "a comma within a field or value")]
    found: Points[Number] = []
    bad: Bad = []
    for field, value in zip(parts[::2], parts[1::2], strict=True):
        slot = int(field) if field.isdigit() and len(field) <= _DIGITS else -1
        if not 0 <= slot < len(times):
            bad.append((field, "no slot"))
        elif low <= slot < high:
            try:
                found.append((times[slot], read_number(value)))
            except ValueError:
                bad.append((field, f"no number: {value!r}"))
    found.sort(key=itemgetter(0))  # late samples come behind later ones
    return found, bad


try:
    from collector.store.reading._fields import read_fields
except ImportError:  # not built in this installation
    read_fields = read_fields_in_python
