# cython: language_level=3, boundscheck=False, wraparound=False, binding=False, cdivision=True
"""The compiled twin of `pure.py`, which says what this does; kept to the limited API.

A sketch holds arrays of bins and weights, sorted; what is added up goes through one tally, which has a place for
every bin (core/weighted.h). The tally, and the room that bytes are read into, are there once: nothing is called
in between that could use them too.
"""

from array import array
from math import nan

cimport cython
from cpython.bytes cimport PyBytes_AsString, PyBytes_FromStringAndSize, PyBytes_Size
from libc.stddef cimport size_t
from libc.stdint cimport uint8_t, uint16_t, uint32_t
from libc.stdlib cimport free, malloc

from collector.sketch.bins import BOUNDS, MIN_INDEX, bin_middle

cdef extern from "weighted.h" nogil:
    enum:
        BINS
    ctypedef struct side_t "struct side":
        uint32_t length
        const uint16_t *bins
        const double *weights
    ctypedef struct weighted:
        double count, sum, least, largest, zero
        side_t *sides
    ctypedef struct roomy:
        weighted as_ "as"
    ctypedef struct tally:
        pass
    ctypedef enum fault:
        NO_FAULT, CUT_SHORT, UNKNOWN, NUMBER_OUT_OF_RANGE, BIN_OUT_OF_ORDER, BYTES_AFTER
    void weighted_start(weighted *)
    weighted *roomy_start(roomy *)
    int weighted_copy(weighted *, const weighted *)
    void weighted_free(weighted *)
    void weighted_scale(weighted *, double)
    int weighted_rank(const weighted *, double, int *, uint32_t *)
    fault weighted_read(weighted *, const uint8_t *, size_t)
    size_t weighted_write(const weighted *, uint8_t *)
    size_t weighted_most(size_t)
    void tally_start(tally *, const weighted *)
    void tally_add(tally *, const weighted *)
    void tally_take(const tally *, weighted *)

cdef extern from "sketch.h" nogil:
    ctypedef struct counted "sketch":
        pass
    void sketch_bounds(const double *, uint32_t)
    int sketch_add(counted **, const double *, uint32_t, uint32_t *)
    weighted *sketch_weigh(const counted *, double, roomy *)
    void sketch_free(counted *)

cdef tally total
cdef roomy room
cdef int FIRST = MIN_INDEX
cdef uint32_t PART = 1 << 20  # values that are counted at once

cdef bytes bounds = array("d", BOUNDS).tobytes()
if len(BOUNDS) != BINS:
    raise ImportError("compiled for other bins")
sketch_bounds(<const double *>PyBytes_AsString(bounds), BINS)

cdef dict WRONG = {
    CUT_SHORT: "sketch cut short",
    NUMBER_OUT_OF_RANGE: "sketch with a number out of range",
    BIN_OUT_OF_ORDER: "sketch with a bin out of order",
    BYTES_AFTER: "bytes after the end of a sketch",
}


cdef str wrong(fault found, bytes blob):
    if found == UNKNOWN:
        return f"sketch of version {blob[0]}, flags {blob[1]}: not known here"
    return WRONG[found]


cdef fault read(bytes blob) except *:
    """Reads a sketch into the room."""
    return weighted_read(roomy_start(&room), <const uint8_t *>PyBytes_AsString(blob), <size_t>PyBytes_Size(blob))


cdef dict as_dict(const side_t *side):
    cdef uint32_t n
    return {FIRST + side.bins[n]: side.weights[n] for n in range(side.length)}


cdef class Sketch:
    cdef weighted held

    def __cinit__(self):
        weighted_start(&self.held)

    def __dealloc__(self):
        weighted_free(&self.held)

    @property
    def count(self):
        return self.held.count

    @count.setter
    def count(self, double value):
        self.held.count = value

    @property
    def sum(self):
        return self.held.sum

    @sum.setter
    def sum(self, double value):
        self.held.sum = value

    @property
    def min(self):
        return self.held.least

    @min.setter
    def min(self, double value):
        self.held.least = value

    @property
    def max(self):
        return self.held.largest

    @max.setter
    def max(self, double value):
        self.held.largest = value

    @property
    def zero(self):
        return self.held.zero

    @zero.setter
    def zero(self, double value):
        self.held.zero = value

    @property
    def positive(self):
        return as_dict(&self.held.sides[0])

    @property
    def negative(self):
        return as_dict(&self.held.sides[1])

    def add(self, values, double weight=1.0):
        cdef list given = list(values)
        cdef size_t length = <size_t>len(given), n
        cdef uint32_t done, size
        cdef counted *made = NULL
        cdef double *numbers = <double *>malloc((length + 1) * sizeof(double))
        if numbers == NULL:
            raise MemoryError
        try:
            for n in range(length):
                numbers[n] = given[n]
            n = 0
            while n < length:
                size = <uint32_t>min(length - n, PART)
                if not sketch_add(&made, numbers + n, size, &done):
                    raise MemoryError
                n += size
            if length:
                add_up(self, sketch_weigh(made, weight, &room))
        finally:
            sketch_free(made)
            free(numbers)

    def merge(self, Sketch other not None):
        add_up(self, &other.held)

    def scale(self, double weight):
        weighted_scale(&self.held, weight)

    def quantile(self, double q):
        cdef int side = 0
        cdef uint32_t bin = 0
        cdef double value = 0.0
        if self.held.count == 0.0:
            return nan
        if q <= 0 or q >= 1:
            return self.held.largest if q >= 1 else self.held.least
        if not weighted_rank(&self.held, q, &side, &bin):
            return self.held.largest
        if side < 2:
            value = bin_middle(FIRST + <int>bin)
        if side == 1:
            value = -value
        if self.held.least > value:
            value = self.held.least
        return self.held.largest if self.held.largest < value else value

    def cells(self):
        cdef list cells = [(-bin_middle(i), weight) for i, weight in reversed(self.negative.items())]
        if self.held.zero:
            cells.append((0.0, self.held.zero))
        cells.extend([(bin_middle(i), weight) for i, weight in self.positive.items()])
        return cells

    def encode(self):
        cdef size_t bins = self.held.sides[0].length + self.held.sides[1].length
        cdef uint8_t *to = <uint8_t *>malloc(weighted_most(bins))
        if to == NULL:
            raise MemoryError
        try:
            return PyBytes_FromStringAndSize(<char *>to, <Py_ssize_t>weighted_write(&self.held, to))
        finally:
            free(to)

    @classmethod
    @cython.binding(True)  # the limited API has no other class methods
    def decode(cls, bytes blob not None):
        cdef fault found = read(blob)
        if found != NO_FAULT:
            raise ValueError(wrong(found, blob))
        return sketch_of(&room.as_)

    @classmethod
    @cython.binding(True)
    def fold(cls, names, blobs, int low, int high, int ratio):
        return folded(list(names), list(blobs), low, high, ratio)

    def __eq__(self, other):
        return isinstance(other, Sketch) and self.encode() == other.encode()

    def __hash__(self):
        raise TypeError("unhashable type: 'Sketch'")

    def __repr__(self):
        return f"Sketch(count={self.count}, sum={self.sum}, min={self.min}, max={self.max})"


cdef int take(Sketch to, const weighted *made) except -1:
    if not weighted_copy(&to.held, made):
        raise MemoryError
    return 0


cdef Sketch sketch_of(const weighted *made):
    cdef Sketch found = Sketch.__new__(Sketch)
    take(found, made)
    return found


cdef int add_up(Sketch to, const weighted *more) except -1:
    tally_start(&total, &to.held)
    tally_add(&total, more)
    tally_take(&total, roomy_start(&room))
    return take(to, &room.as_)


# ---------------------------------------------------------------------- many at once


cdef int number_of(bytes name):
    """The number that a name begins with, up to a colon; -1 where there is none of at most nine digits."""
    cdef const char *text = PyBytes_AsString(name)
    cdef Py_ssize_t length = PyBytes_Size(name), n = 0
    cdef int number = 0
    while n < length and text[n] != b":":
        if n == 9 or not b"0" <= text[n] <= b"9":
            return -1
        number = 10 * number + (text[n] - 48)
        n += 1
    return number if n else -1


cdef tuple folded(list names, list blobs, int low, int high, int ratio):
    """What `fold` answers. Places are chained by slot, in their order:

        first   [ 0,  2, -1 ]        slot 0: places 0, 1, 4        next   [ 1, 4, 3, -1, -1 ]
                                     slot 1: places 2, 3
    """
    cdef int slots = (high - 1) // ratio - low // ratio + 1 if high > low >= 0 and ratio > 0 else 0
    cdef int number, place, length = <int>len(names)
    cdef dict found = {}
    cdef list bad = []
    cdef int *first = <int *>malloc((2 * <size_t>slots + <size_t>length + 1) * sizeof(int))
    cdef int *last = first + slots
    cdef int *next = last + slots
    if first == NULL:
        raise MemoryError
    try:
        if len(blobs) != length:
            raise ValueError("not as many names as sketches")
        for number in range(slots):
            first[number] = -1
        for place in range(length):
            number = number_of(names[place])
            next[place] = -1
            if number < 0:
                bad.append((names[place], "sketch without a slot"))
            elif low <= number < high:
                number = number // ratio - low // ratio
                if first[number] < 0:
                    first[number] = place
                else:
                    next[last[number]] = place
                last[number] = place
        for number in range(slots):
            if first[number] >= 0:
                one = merged(first[number], next, names, blobs, bad)
                if one is not None:
                    found[low // ratio + number] = one
        return found, bad
    finally:
        free(first)


cdef Sketch merged(int place, const int *next, list names, list blobs, list bad):
    """The sketches of one chain, added up; None where there is none."""
    cdef bint begun = False
    cdef fault found
    while place >= 0:
        found = read(blobs[place])
        if found != NO_FAULT:
            bad.append((names[place], wrong(found, blobs[place])))
        elif begun:
            tally_add(&total, &room.as_)
        elif next[place] < 0:
            return sketch_of(&room.as_)
        else:
            tally_start(&total, &room.as_)
            begun = True
        place = next[place]
    if not begun:
        return None
    tally_take(&total, roomy_start(&room))
    return sketch_of(&room.as_)
