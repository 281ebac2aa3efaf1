# cython: language_level=3, boundscheck=False, wraparound=False, binding=False
"""The face of the compiled core (core/core.h) towards Python: `native.py` is its only user.

Nothing here decides anything. Bytes go in, and where the core stops at a line, the line comes out; what Python
makes of a head goes back in. All is called from one thread, the event loop's; reader threads are in C.

    _declared.pxd   what is used of the core
    _retired.pxi    a window that has ended, read out
    _reader.pxi     a thread that empties a socket

Kept to the limited API, so no typed memoryviews and no private structures of CPython.
"""

from cpython.bytes cimport PyBytes_FromStringAndSize
from libc.math cimport fabs
from libc.stddef cimport size_t
from libc.stdint cimport INT64_MIN, UINT32_MAX, int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memcpy
from libc.stdlib cimport free, malloc, realloc

from collector.engine._declared cimport *

COUNTER, TIMER, GAUGE, GAUGE_MOVING = C_COUNTER, C_TIMER, C_GAUGE, C_GAUGE_MOVING
SET, REFUSED, PENDING = C_SET, C_REFUSED, C_PENDING

DONE, WHOLE, NEW_HEAD, ODD_VALUES = C_DONE, C_WHOLE, C_NEW_HEAD, C_ODD_VALUES
KNOWN_FAULT, TOO_LONG, AT_EVENT = C_KNOWN_FAULT, C_TOO_LONG, C_AT_EVENT

MOST_REASONS, MOST_ODDITIES = REASONS, ODDITIES

# Instead of the number of a series.
FULL, METRIC_FULL = -1, -2

# Tests set it before they make a Core, so that it keeps to what every processor of this architecture has.
baseline = False

cdef size_t HELD = 16384  # bytes that are worth letting other threads run meanwhile


cdef class Core:
    """Heads, series and the open interval. See core.h for what each call does."""

    cdef core_t *core
    cdef feeder_t *feeder
    cdef uint64_t kept
    cdef char *room
    cdef bytes data  # what the feeder points into
    cdef datagram_t datagram
    cdef uint64_t told

    def __cinit__(self, uint64_t seed, bytes bounds, *, series, series_per_metric, heads, line, set_members,
                  samples, waiting, queue_bytes):
        cdef limits_t given
        given.series = min(series, <uint32_t>0xfffffff0)
        given.series_per_metric = series_per_metric
        given.heads = heads
        given.line = line
        given.set_members = set_members
        given.samples = samples
        given.waiting = waiting
        given.queue_bytes = queue_bytes
        given.baseline = baseline
        self.kept = samples
        sketch_bounds(<const double *><const char *>bounds, <uint32_t>(len(bounds) // sizeof(double)))
        self.core = core_new(seed, &given)
        self.feeder = <feeder_t *>malloc(sizeof(feeder_t))
        self.room = <char *>malloc(PIECE_MOST)
        if self.core == NULL or self.feeder == NULL or self.room == NULL:
            raise MemoryError

    def __dealloc__(self):
        core_free(self.core)
        free(self.feeder)
        free(self.room)

    def add_profile(self, uint32_t number, bint signs_move, bint meters):
        cdef profile_t given
        cdef int done
        given.signs_move = signs_move
        given.meters = meters
        pthread_mutex_lock(&self.core.mutex)
        done = core_add_profile(self.core, number, given)
        pthread_mutex_unlock(&self.core.mutex)
        if not done:
            raise MemoryError

    # ------------------------------------------------------------------ lines

    def feed(self, uint32_t profile, bytes data, int64_t now):
        """Takes lines; DONE, or why it stopped. `now` is in milliseconds."""
        self.data = data
        self.datagram.bytes = data
        self.datagram.length = <size_t>len(data)
        feeder_start(self.feeder, profile, &self.datagram, 1, now)
        return self.resume()

    cpdef int resume(self):
        """Goes on behind the line that it stopped at, or tries it again after `retry`."""
        cdef int stop
        if <size_t>len(self.data) < HELD:
            pthread_mutex_lock(&self.core.mutex)
            stop = core_feed(self.core, self.feeder)
            pthread_mutex_unlock(&self.core.mutex)
        else:
            with nogil:
                pthread_mutex_lock(&self.core.mutex)
                stop = core_feed(self.core, self.feeder)
                pthread_mutex_unlock(&self.core.mutex)
        return stop

    def retry(self):
        feeder_retry(self.feeder)

    def skip(self, Py_ssize_t to):
        """After AT_EVENT: the event ends before that offset."""
        feeder_skip(self.feeder, self.datagram.bytes + min(to, len(self.data)))

    @property
    def lines(self):
        """Lines of the last `feed`, up to where it is."""
        return self.feeder.lines

    @property
    def at(self):
        """Offset of the line that it stopped at."""
        return feeder_stopped(self.feeder).line - self.datagram.bytes

    @property
    def line(self):
        """The line that it stopped at."""
        cdef record *one = feeder_stopped(self.feeder)
        return PyBytes_FromStringAndSize(one.line, one.end - one.line)

    @property
    def head(self):
        """(name, tail) of the line that it stopped at, for NEW_HEAD, ODD_VALUES and KNOWN_FAULT."""
        cdef record *one = feeder_stopped(self.feeder)
        return (PyBytes_FromStringAndSize(one.line, one.value - 1 - one.line),
                PyBytes_FromStringAndSize(one.tail, one.end - one.tail))

    @property
    def known(self):
        """(state, series, weight, oddity) of the head of the line that it stopped at."""
        cdef head_t *one = feeder_stopped(self.feeder).head
        return one.state, one.series, one.weight, one.odd

    # ------------------------------------------------------------------ heads and series

    def bind(self, uint32_t profile, bytes name, bytes tail, int state, uint32_t series, double weight, int odd):
        """Says what a head is; the number of lines that waited for it, or -1 where the table is full."""
        cdef uint64_t hash
        cdef uint32_t lines = 0
        cdef int full = 0
        pthread_mutex_lock(&self.core.mutex)
        cdef head_t *one = core_find_head(self.core, profile, name, len(name), tail, len(tail), &hash)
        if one == NULL:
            one = core_add_head(self.core, hash, profile, name, len(name), tail, len(tail), &full)
            if one != NULL:
                one.state = <uint8_t>state
                one.series = series
                one.weight = weight
                one.odd = <uint8_t>odd
        elif one.state == C_PENDING:
            lines = core_settle(self.core, one, state, series, weight, <uint8_t>odd)
        pthread_mutex_unlock(&self.core.mutex)
        return -1 if one == NULL else lines

    def waits(self, uint32_t profile, bytes name, bytes tail):
        """Whether a head waits to be settled."""
        cdef uint64_t hash
        pthread_mutex_lock(&self.core.mutex)
        cdef head_t *one = core_find_head(self.core, profile, name, len(name), tail, len(tail), &hash)
        cdef bint found = one != NULL and one.state == C_PENDING
        pthread_mutex_unlock(&self.core.mutex)
        return found

    def forget(self, uint32_t profile, bytes name, bytes tail):
        """Forgets a head that does not wait."""
        cdef uint64_t hash
        pthread_mutex_lock(&self.core.mutex)
        cdef head_t *one = core_find_head(self.core, profile, name, len(name), tail, len(tail), &hash)
        if one != NULL and one.state != C_PENDING:
            core_forget_head(self.core, one)
        pthread_mutex_unlock(&self.core.mutex)

    def intern(self, bytes key, size_t metric_length):
        """The number of a series; FULL or METRIC_FULL where it is new and there is no room."""
        pthread_mutex_lock(&self.core.mutex)
        cdef uint32_t number = core_intern(self.core, key, len(key), metric_length)
        pthread_mutex_unlock(&self.core.mutex)
        if number == NO_MEMORY:
            raise MemoryError
        if number == TOO_MANY_SERIES:
            return FULL
        return METRIC_FULL if number == TOO_MANY_OF_METRIC else number

    def key(self, uint32_t number):
        """The key of a series."""
        cdef series_t *one = self.core.series[number]
        return PyBytes_FromStringAndSize(one.key, one.key_length)

    @property
    def series(self):
        return self.core.series_used

    @property
    def heads(self):
        pthread_mutex_lock(&self.core.mutex)
        cdef uint64_t used = self.core.heads_used
        pthread_mutex_unlock(&self.core.mutex)
        return used

    @property
    def memory(self):
        """Bytes of heads, series and their tables."""
        pthread_mutex_lock(&self.core.mutex)
        cdef uint64_t size = core_memory(self.core)
        pthread_mutex_unlock(&self.core.mutex)
        return size

    def turn(self):
        """Forgets heads and series that were not used in the last two turns; the numbers of the series."""
        cdef uint64_t at = 0
        cdef uint32_t place = 0, count = 0, n
        cdef int more = 1
        cdef uint32_t *numbers = <uint32_t *>malloc(SWEPT * sizeof(uint32_t))
        cdef list forgotten = []
        if numbers == NULL:
            raise MemoryError
        pthread_mutex_lock(&self.core.mutex)
        core_turn(self.core)
        pthread_mutex_unlock(&self.core.mutex)
        while more:
            pthread_mutex_lock(&self.core.mutex)
            more = core_sweep_heads(self.core, &at)
            pthread_mutex_unlock(&self.core.mutex)
        more = 1
        while more:
            pthread_mutex_lock(&self.core.mutex)
            more = core_sweep_series(self.core, &place, numbers, &count)
            pthread_mutex_unlock(&self.core.mutex)
            for n in range(count):
                forgotten.append(numbers[n])
        free(numbers)
        return forgotten

    # ------------------------------------------------------------------ values that Python has read

    cdef cell *cell_of(self, uint32_t series, int state, double weight):
        cdef uint32_t number
        return core_cell(self.core, series, state, weight, &number)

    def add(self, uint32_t series, int state, double weight, value, bint moves, int64_t at):
        """Adds a number, or bytes to a set; False if the core cannot hold a number so large."""
        cdef int done = 1
        cdef number given
        cdef double real = 0.0
        cdef bint whole = isinstance(value, int)
        if state != C_SET:
            real = value
            given = number_of_integer(value) if whole else number_of_real(real)
            if state == C_COUNTER and not whole and fabs(real) >= EXACT_LIMIT:
                return False
        pthread_mutex_lock(&self.core.mutex)
        cdef cell *to = self.cell_of(series, state, weight)
        if to == NULL:
            done = 0
        elif state == C_COUNTER:
            done = cell_count(to, given)
        elif state == C_TIMER:
            done = cell_time(to, real, self.kept)
        elif state == C_SET:
            done = cell_add_member(self.core, to, member_hash(self.core, value, len(value)), value, len(value))
        elif moves:
            cell_move_gauge(to, given, at)
        else:
            self.core.ticket += 1
            cell_set_gauge(to, given, at, self.core.ticket)
        pthread_mutex_unlock(&self.core.mutex)
        if not done:
            raise MemoryError
        return True

    # ------------------------------------------------------------------ what comes out

    def begin(self, int64_t start, int64_t end):
        """Tells when the first window is; in milliseconds."""
        self.core.window_start = start
        self.core.window_end = end

    def cut(self, int64_t since, int64_t start, int64_t end):
        """Ends the window that began at `since` and opens the one from `start` to `end`, in milliseconds.

        All that have ended, oldest first: [(milliseconds of the start, Retired)...].
        """
        cdef ended_t *ended
        cdef ended_t *next
        cdef Retired retired
        pthread_mutex_lock(&self.core.mutex)
        cdef int cut = core_cut(self.core, since, start, end)
        ended = self.core.ended
        if cut:
            self.core.ended = NULL
            self.core.ended_length = 0
        pthread_mutex_unlock(&self.core.mutex)
        if not cut:
            raise MemoryError
        found = []
        while ended != NULL:
            next = ended.next
            retired = Retired(self)
            retired.cells, ended.cells = ended.cells, NULL
            found.append((ended.start, retired))
            ended_free(ended)
            ended = next
        return found

    def spills(self):
        """[(series, members)] of sets that reached their limit since this was last asked."""
        pthread_mutex_lock(&self.core.mutex)
        cdef spill_t *one = self.core.spills
        self.core.spills = NULL
        pthread_mutex_unlock(&self.core.mutex)
        cdef spill_t *next
        cdef list found = []
        while one != NULL:
            found.append((one.series, list_of(&one.members)))
            next = one.next
            members_clear(&one.members)
            free(one)
            one = next
        found.reverse()
        return found

    def counts(self):
        """(spilled sets, lost values, lines that found the queue full, cut datagrams, refused lines by reason,
        lines by oddity), of all time; None if nothing has come since this was last asked."""
        cdef uint64_t[4] alone
        cdef uint64_t[REASONS] refused
        cdef uint64_t[ODDITIES] odd
        cdef int n
        pthread_mutex_lock(&self.core.mutex)
        cdef bint any = self.core.news != self.told
        if any:  # copied out first: while Python makes objects it may run anything, a reader's end too
            self.told = self.core.news
            alone[0], alone[1] = self.core.spilled, self.core.no_memory
            alone[2], alone[3] = self.core.overload, self.core.truncated
            memcpy(refused, self.core.refused, sizeof(refused))
            memcpy(odd, self.core.odd, sizeof(odd))
        pthread_mutex_unlock(&self.core.mutex)
        if not any:
            return None
        return (alone[0], alone[1], alone[2], alone[3],
                [refused[n] for n in range(REASONS)], [odd[n] for n in range(ODDITIES)])

    # ------------------------------------------------------------------ the queue of reader threads

    def take(self):
        """The oldest piece: (counted, profile, milliseconds, sockaddr, bytes); None if there is none."""
        cdef piece_t found
        cdef char sender[128]
        pthread_mutex_lock(&self.core.mutex)
        cdef int any = core_take_piece(self.core, &found, sender, self.room)
        if not any:
            self.core.woken = 0
        pthread_mutex_unlock(&self.core.mutex)
        if not any:
            return None
        return (found.counted != 0, found.profile, found.at,
                PyBytes_FromStringAndSize(sender, found.sender_length),
                PyBytes_FromStringAndSize(self.room, found.length))


include "_retired.pxi"
include "_reader.pxi"
