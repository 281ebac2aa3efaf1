# cython: language_level=3, boundscheck=False, wraparound=False, binding=False, cdivision=True
"""The compiled twin of `packed.py`, which says what this does; kept to the limited API."""

from cpython.buffer cimport PyBUF_SIMPLE, Py_buffer, PyBuffer_Release, PyObject_GetBuffer
from cpython.bytes cimport PyBytes_AsString, PyBytes_FromStringAndSize, PyBytes_Size
from cpython.mem cimport PyMem_Free
from libc.math cimport fabs
from libc.stdint cimport int64_t, uint64_t
from libc.stdlib cimport free, realloc
from libc.string cimport memcpy, memmove, strlen

cdef extern from "Python.h":
    int Py_DTSF_ADD_DOT_0
    int64_t PyLong_AsLongLongAndOverflow(object, int *) except? -1
    char *PyOS_double_to_string(double value, char format_code, int precision, int flags, int *kind) except NULL

cdef double WHOLE = 9007199254740992.0  # 2^53: up to it whole numbers are written without a point
cdef double SHORT = 1e15  # numbers of so many digits or fewer are told apart by a double, each of them
cdef enum:
    NUMBER = 32  # characters that suffice: repr(float) has up to 24, a 64-bit integer 20
    FRAME = 16  # about a bulk string: $<length>, two ends of line
cdef double[4] TENS = [1.0, 10.0, 100.0, 1000.0]


cdef char *put_digits(char *to, uint64_t number, int least) noexcept:
    """Writes a number in `least` digits or more."""
    cdef char[20] reversed_
    cdef int length = 0
    while number or length < least:
        reversed_[length] = <char>(48 + number % 10)
        number //= 10
        length += 1
    while length:
        length -= 1
        to[0] = reversed_[length]
        to += 1
    return to


cdef char *put_number(char *to, double value) except NULL:
    """Writes what `number_text` in numbers.py gives.

    Most samples have three decimals or fewer. If such a decimal of 15 digits or fewer reads back as the value, it
    is the shortest that does, and so what repr() gives.
    """
    cdef double size = fabs(value), scaled
    cdef uint64_t whole, power
    cdef int decimals
    cdef char *text
    for decimals in range(4):
        scaled = size * TENS[decimals]
        if scaled >= (SHORT if decimals else WHOLE):
            break
        whole = <uint64_t>(scaled + 0.5 if decimals else scaled)
        if <double>whole / TENS[decimals] == size:
            if value < 0.0:
                to[0] = b"-"
                to += 1
            if not decimals:
                return put_digits(to, whole, 1)
            power = <uint64_t>TENS[decimals]
            to = put_digits(to, whole // power, 1)
            to[0] = b"."
            return put_digits(to + 1, whole % power, decimals)
    text = PyOS_double_to_string(value, b"r", 0, Py_DTSF_ADD_DOT_0, NULL)
    memcpy(to, text, strlen(text))
    to += strlen(text)
    PyMem_Free(text)
    return to


cdef struct text:
    char *bytes
    size_t used, room


cdef int make_room(text *to, size_t more) except -1:
    cdef size_t room
    cdef char *larger
    if to.used + more > to.room:
        room = max(2 * to.room, to.used + more, 4096)
        larger = <char *>realloc(to.bytes, room)
        if larger == NULL:
            raise MemoryError
        to.bytes, to.room = larger, room
    return 0


cdef void put(text *to, const char *given, size_t length) noexcept:
    memcpy(to.bytes + to.used, given, length)
    to.used += length


cdef void begin(text *to, uint64_t length) noexcept:
    to.bytes[to.used] = b"$"
    to.used = <size_t>(put_digits(to.bytes + to.used + 1, length, 1) - to.bytes)
    put(to, b"\r\n", 2)


cdef int put_bulk(text *to, const char *first, size_t first_length, const char *rest, size_t rest_length) except -1:
    """Appends a bulk string that consists of two parts."""
    make_room(to, FRAME + 8 + first_length + rest_length)
    begin(to, first_length + rest_length)
    put(to, first, first_length)
    put(to, rest, rest_length)
    put(to, b"\r\n", 2)
    return 0


cdef size_t whole_text(char *to, int64_t value) noexcept:
    cdef char *end = to
    if value < 0:
        to[0] = b"-"
        end += 1
    end = put_digits(end, -<uint64_t>value if value < 0 else <uint64_t>value, 1)
    return <size_t>(end - to)


cdef int put_part(text *to, part) except -1:
    """Appends bytes or a number."""
    cdef char[NUMBER] number
    cdef int overflow = 0
    cdef int64_t whole
    if isinstance(part, bytes):
        return put_bulk(to, PyBytes_AsString(part), <size_t>PyBytes_Size(part), NULL, 0)
    if isinstance(part, float):
        return put_bulk(to, number, <size_t>(put_number(number, part) - number), NULL, 0)
    whole = PyLong_AsLongLongAndOverflow(part, &overflow)
    if overflow:
        return put_part(to, b"%d" % part)
    return put_bulk(to, number, whole_text(number, whole), NULL, 0)


cdef class Packed:
    cdef text key_text, argument_text
    cdef readonly uint64_t operations, count

    def __dealloc__(self):
        free(self.key_text.bytes)
        free(self.argument_text.bytes)

    @property
    def keys(self):
        return PyBytes_FromStringAndSize(self.key_text.bytes, <Py_ssize_t>self.key_text.used)

    @property
    def arguments(self):
        return PyBytes_FromStringAndSize(self.argument_text.bytes, <Py_ssize_t>self.argument_text.used)

    def add(self, bytes key, int64_t number, tuple arguments):
        cdef size_t before = self.key_text.used + self.argument_text.used
        cdef char[NUMBER] digits
        cdef size_t length = 0 if number < 0 else whole_text(digits, number)
        put_bulk(&self.key_text, PyBytes_AsString(key), <size_t>PyBytes_Size(key), digits, length)
        for part in arguments:
            put_part(&self.argument_text, part)
        self.operations += 1
        self.count += <uint64_t>len(arguments)
        return self.key_text.used + self.argument_text.used - before

    def add_samples(self, bytes key, int64_t keep, int64_t ms, values, bytes name, uint64_t number):
        cdef size_t before = self.key_text.used + self.argument_text.used
        cdef Py_buffer view
        self.add(key, -1, (keep, ms))
        PyObject_GetBuffer(values, &view, PyBUF_SIMPLE)
        try:
            put_samples(
                &self.argument_text, <const double *>view.buf, <size_t>view.len // sizeof(double), name, number
            )
        finally:
            PyBuffer_Release(&view)
        self.count += 1
        return self.key_text.used + self.argument_text.used - before


cdef int put_samples(text *to, const double *values, size_t count, bytes name, uint64_t number) except -1:
    """Appends one bulk string. How long it gets is known behind it only; then it moves up to its frame."""
    cdef size_t name_length = <size_t>PyBytes_Size(name), start, n
    cdef char *at
    make_room(to, 2 * FRAME + (count + 1) * NUMBER + name_length)
    start = to.used + FRAME
    at = to.bytes + start
    for n in range(count):
        if n:
            at[0] = b","
            at += 1
        at = put_number(at, values[n])
    at[0] = b":"
    memcpy(at + 1, PyBytes_AsString(name), name_length)
    at += 1 + name_length
    at[0] = b"."
    at = put_digits(at + 1, number, 1)
    n = <size_t>(at - to.bytes) - start
    begin(to, n)
    memmove(to.bytes + to.used, to.bytes + start, n)
    to.used += n
    put(to, b"\r\n", 2)
    return 0
