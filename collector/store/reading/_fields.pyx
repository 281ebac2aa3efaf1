# cython: language_level=3, boundscheck=False, wraparound=False, binding=False, cdivision=True
"""The compiled twin of `fields.py`, which says what this does; kept to the limited API."""

from cpython.bytes cimport PyBytes_AsString, PyBytes_FromStringAndSize, PyBytes_Size
from libc.stdint cimport int64_t

from operator import itemgetter

from collector.store.numbers import read_number

cdef enum:
    ZERO = 48  # the digits, as characters
    NINE = 57
    SLOT_DIGITS = 3
    # So many digits are below 2^53. A double holds such a number exactly, and every power of ten by which its
    # point can move it, so that their quotient is the nearest double: what float() gives.
    DIGITS = 15

cdef double[16] TENS = [1e0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11, 1e12, 1e13, 1e14, 1e15]

_by_time = itemgetter(0)


cdef const char *part_end(const char *at, const char *end) noexcept:
    while at != end and at[0] != b",":
        at += 1
    return at


cdef bytes copied(const char *at, const char *end):
    return PyBytes_FromStringAndSize(at, end - at)


cdef int read_slot(const char *at, const char *end) noexcept:
    """The number of a slot; -1 for what is none."""
    cdef int slot = 0
    if at == end or end - at > SLOT_DIGITS:
        return -1
    while at != end:
        if not ZERO <= at[0] <= NINE:
            return -1
        slot = 10 * slot + (at[0] - ZERO)
        at += 1
    return slot


cdef object read_value(const char *first, const char *end):
    """A number. Those that are not of the common shape are left to Python; ValueError when it is none."""
    cdef const char *at = first
    cdef const char *point = NULL
    cdef bint negative = at != end and at[0] == b"-"
    cdef int64_t whole = 0
    cdef int digits = 0
    cdef double value
    if negative:
        at += 1
    while at != end:
        if ZERO <= at[0] <= NINE and digits < DIGITS:
            whole = 10 * whole + (at[0] - ZERO)
            digits += 1
        elif at[0] == b"." and point == NULL:
            point = at
        else:
            return read_number(copied(first, end))
        at += 1
    if not digits:
        return read_number(copied(first, end))
    if point == NULL:
        return -whole if negative else whole
    value = <double>whole / TENS[end - point - 1]
    return -value if negative else value


def read_fields(bytes text, tuple times, int low, int high):
    cdef const char *at = PyBytes_AsString(text)
    cdef const char *end = at + PyBytes_Size(text)
    cdef const char *comma
    cdef const char *after
    cdef int slots = <int>len(times), slot, last = -1
    cdef bint ascending = True
    cdef list found = [], bad = []
    while True:
        comma = part_end(at, end)
        if comma == end:
            return [], [(text, "a comma within a field or value")]
        after = part_end(comma + 1, end)
        slot = read_slot(at, comma)
        if not 0 <= slot < slots:
            bad.append((copied(at, comma), "no slot"))
        elif low <= slot < high:
            try:
                found.append((times[slot], read_value(comma + 1, after)))
            except ValueError:
                bad.append((copied(at, comma), f"no number: {copied(comma + 1, after)!r}"))
            ascending = ascending and slot > last
            last = slot
        if after == end:
            break
        at = after + 1
    if not ascending:
        found.sort(key=_by_time)
    return found, bad
