# cython: language_level=3, boundscheck=False, wraparound=False, binding=False
"""The face of the compiled core (core/core.h) towards Python: `native.py` is its only user.

Nothing here decides anything. Bytes go in, and where the core stops at a line, the line comes out; what Python
makes of a head goes back in. All is called from one thread, the event loop's; reader threads are in C.

Kept to the limited API, so no typed memoryviews and no private structures of CPython.
"""

from cpython.bytes cimport PyBytes_FromStringAndSize
from libc.math cimport fabs
from libc.stddef cimport size_t
from libc.stdint cimport UINT32_MAX, int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.stdlib cimport free, malloc

cdef extern from "<pthread.h>" nogil:
    ctypedef struct pthread_mutex_t:
        pass
    int pthread_mutex_lock(pthread_mutex_t *)
    int pthread_mutex_unlock(pthread_mutex_t *)

cdef extern from "sums.h" nogil:
    double EXACT_LIMIT
    ctypedef struct exact:
        uint16_t length
        const double *parts
    ctypedef struct bins "struct bins":
        uint32_t first, length
        const uint64_t *counts
    ctypedef struct sketch:
        bins positive, negative
        uint64_t zero, count
        const exact *sum
        double huge, least, largest
    ctypedef struct member:
        uint32_t taken
    ctypedef struct members:
        const member *slots
    uint32_t members_slots(const members *)
    size_t member_length(const member *)
    const char *member_text(const member *)
    void sketch_bounds(const double *bounds, uint32_t length)
    void members_clear(members *)

cdef extern from "core.h" nogil:
    uint32_t NO_MEMORY, TOO_MANY_SERIES, TOO_MANY_OF_METRIC
    enum:
        REASONS, ODDITIES, SWEPT, PIECE_MOST
    enum:
        C_COUNTER "COUNTER"
        C_TIMER "TIMER"
        C_GAUGE "GAUGE"
        C_GAUGE_MOVING "GAUGE_MOVING"
        C_SET "SET"
        C_REFUSED "REFUSED"
        C_PENDING "PENDING"
    enum:
        C_DONE "DONE"
        C_WHOLE "WHOLE"
        C_NEW_HEAD "NEW_HEAD"
        C_ODD_VALUES "ODD_VALUES"
        C_KNOWN_FAULT "KNOWN_FAULT"
        C_TOO_LONG "TOO_LONG"
        C_AT_EVENT "AT_EVENT"
    ctypedef struct number:
        pass
    ctypedef struct head_t "head":
        uint32_t series
        double weight
        uint8_t state, odd
    ctypedef struct series_t "series":
        uint32_t key_length
        const char *key
    ctypedef struct cell:
        uint32_t series, next
        double weight
        uint8_t state, is_set, is_real, moves_real, linked
    ctypedef struct spill_t "spill":
        spill_t *next
        uint32_t series
        members members
    ctypedef struct interval:
        uint32_t length
    ctypedef struct piece_t "piece":
        uint32_t length, profile
        int64_t at
        uint8_t counted, sender_length
    ctypedef struct queue_t "queue":
        uint32_t pieces
    ctypedef struct profile_t "profile":
        uint8_t signs_move, meters
    ctypedef struct limits_t "limits":
        uint64_t series, series_per_metric, heads, line, set_members, samples, waiting, queue_bytes
    ctypedef struct ended_t "ended":
        ended_t *next
        interval *cells
        int64_t start
    ctypedef struct core_t "core":
        int64_t window_start, window_end
        ended_t *ended
        uint32_t ended_length
        pthread_mutex_t mutex
        uint64_t heads_used, series_used, ticket
        series_t **series
        spill_t *spills
        queue_t queue
        uint8_t woken
        uint64_t news, spilled, no_memory, overload, truncated
        const uint64_t *refused
        const uint64_t *odd
    ctypedef struct datagram_t "datagram":
        const char *bytes
        size_t length
    ctypedef struct record:
        const char *line
        const char *value
        const char *tail
        const char *end
        uint64_t hash
        head_t *head
    ctypedef struct feeder_t "feeder":
        uint64_t lines
    core_t *core_new(uint64_t, const limits_t *)
    void core_free(core_t *)
    int core_add_profile(core_t *, uint32_t, profile_t)
    head_t *core_find_head(core_t *, uint32_t, const char *, size_t, const char *, size_t, uint64_t *)
    head_t *core_add_head(core_t *, uint64_t, uint32_t, const char *, size_t, const char *, size_t, int *)
    void core_forget_head(core_t *, head_t *)
    uint32_t core_intern(core_t *, const char *, size_t, size_t)
    void core_turn(core_t *)
    int core_sweep_heads(core_t *, uint64_t *)
    int core_sweep_series(core_t *, uint32_t *, uint32_t *, uint32_t *)
    uint64_t core_memory(const core_t *)
    int core_cut(core_t *, int64_t, int64_t, int64_t)
    void ended_free(ended_t *)
    void interval_free(interval *)
    cell *interval_cell(const interval *, uint32_t)
    cell *core_cell(core_t *, uint32_t, int, double, uint32_t *)
    int cell_count(cell *, number)
    int cell_time(cell *, double, uint64_t)
    void cell_set_gauge(cell *, number, int64_t, uint64_t)
    void cell_move_gauge(cell *, number, int64_t)
    int cell_add_member(core_t *, cell *, uint32_t, const char *, size_t)
    uint32_t member_hash(const core_t *, const char *, size_t)
    uint32_t core_settle(core_t *, head_t *, int, uint32_t, double, uint8_t)
    void feeder_start(feeder_t *, uint32_t, const datagram_t *, size_t, int64_t)
    int core_feed(core_t *, feeder_t *)
    record *feeder_stopped(feeder_t *)
    void feeder_retry(feeder_t *)
    void feeder_skip(feeder_t *, const char *)
    int core_take_piece(core_t *, piece_t *, char *, char *)

cdef extern from "senders.h" nogil:
    enum:
        PLACES, DROPS
    ctypedef struct network:
        pass
    ctypedef struct address:
        const uint8_t *bytes
        uint8_t family
    ctypedef struct named_drops:
        address address
        uint64_t lines
    ctypedef struct policy_t "policy":
        const network *allowed
        size_t allowed_length
        const network *places
        size_t places_length
        double rate
    ctypedef struct senders_t "senders":
        pass
    void senders_lock(senders_t *)
    void senders_unlock(senders_t *)
    uint64_t senders_dropped(const senders_t *, int, int)
    size_t senders_named(const senders_t *, const named_drops **)
    uint64_t senders_strangers(const senders_t *)

cdef extern from "reader.h" nogil:
    ctypedef struct reader_t "reader":
        senders_t *senders
    reader_t *reader_start(core_t *, int, int, uint32_t, size_t, const policy_t *)
    void reader_end(reader_t *, int)
    void reader_join(reader_t *)
    void reader_free(reader_t *)

cdef extern from "face.h" nogil:
    number number_of_integer(int64_t)
    number number_of_real(double)
    int64_t sum_high(const cell *)
    uint64_t sum_low(const cell *)
    const exact *sum_fractions(const cell *)
    int64_t gauge_integer(const cell *)
    double gauge_real(const cell *)
    int64_t gauge_at(const cell *)
    int64_t move_high(const cell *)
    uint64_t move_low(const cell *)
    double move_real(const cell *)
    const double *samples_values(const cell *)
    uint32_t samples_length(const cell *)
    uint32_t samples_folded(const cell *)
    const sketch *samples_sketch(const cell *)
    const members *set_members(const cell *)
    uint64_t reader_count(reader_t *, int)
    int reader_has_ended(reader_t *)

COUNTER, TIMER, GAUGE, GAUGE_MOVING = C_COUNTER, C_TIMER, C_GAUGE, C_GAUGE_MOVING
SET, REFUSED, PENDING = C_SET, C_REFUSED, C_PENDING

DONE, WHOLE, NEW_HEAD, ODD_VALUES = C_DONE, C_WHOLE, C_NEW_HEAD, C_ODD_VALUES
KNOWN_FAULT, TOO_LONG, AT_EVENT = C_KNOWN_FAULT, C_TOO_LONG, C_AT_EVENT

MOST_REASONS, MOST_ODDITIES = REASONS, ODDITIES

# Instead of the number of a series.
FULL, METRIC_FULL = -1, -2

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
        return self.core.heads_used

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
            if state == C_COUNTER and not whole and fabs(real) * max(weight, 1.0) >= EXACT_LIMIT:
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
        if self.core.news == self.told:
            return None
        cdef int n
        pthread_mutex_lock(&self.core.mutex)
        self.told = self.core.news
        cdef list refused = [self.core.refused[n] for n in range(REASONS)]
        cdef list odd = [self.core.odd[n] for n in range(ODDITIES)]
        found = (self.core.spilled, self.core.no_memory, self.core.overload, self.core.truncated, refused, odd)
        pthread_mutex_unlock(&self.core.mutex)
        return found

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

    @property
    def queued(self):
        """Pieces in the queue."""
        return self.core.queue.pieces


cdef list list_of(const members *found):
    cdef list texts = []
    cdef uint32_t n
    for n in range(members_slots(found)):
        if found.slots[n].taken:
            texts.append(PyBytes_FromStringAndSize(member_text(&found.slots[n]), member_length(&found.slots[n])))
    return texts


cdef list parts_of(const exact *found):
    cdef uint16_t n
    return [] if found == NULL else [found.parts[n] for n in range(found.length)]


cdef list bins_of(const bins *found):
    cdef uint32_t n
    return [(found.first + n, found.counts[n]) for n in range(found.length) if found.counts[n]]


cdef object sketch_of(const sketch *found):
    """(count, parts of the sum, the sum of the rest, least, largest, zeros, positive, negative bins)."""
    if found == NULL:
        return None
    return (found.count, parts_of(found.sum), found.huge, found.least, found.largest, found.zero,
            bins_of(&found.positive), bins_of(&found.negative))


cdef class Retired:
    """The cells of an interval that has ended. Nobody writes to it any more."""

    cdef interval *cells
    cdef Core owner  # keeps the keys

    def __cinit__(self, Core owner):
        self.owner = owner

    def __dealloc__(self):
        interval_free(self.cells)

    def __len__(self):
        return self.cells.length

    def read(self, uint32_t number):
        """What a series gathered, by the number of its first cell: (series, state, one entry a weight); None where
        the cell is not the first of its series.

        counter  (weight, integer sum, parts of the sum of the others)
        gauge    (value or None, move, milliseconds)
        timer    (weight, samples as the bytes of doubles, how many are in the sketch too, sketch or None)
        set      [members]
        """
        cdef const cell *one = interval_cell(self.cells, number)
        if one.linked:
            return None
        cdef list entries = []
        cdef const cell *at = one
        while True:
            entries.append(self.entry(at))
            if at.next == UINT32_MAX:
                break
            at = interval_cell(self.cells, at.next)
        return one.series, one.state, entries

    cdef object entry(self, const cell *one):
        if one.state == C_COUNTER:
            return one.weight, (<object>sum_high(one) << 64) + sum_low(one), parts_of(sum_fractions(one))
        if one.state == C_TIMER:
            return (one.weight,
                    PyBytes_FromStringAndSize(<const char *>samples_values(one), samples_length(one) * sizeof(double)),
                    samples_folded(one), sketch_of(samples_sketch(one)))
        if one.state == C_SET:
            return list_of(set_members(one))
        value = None
        if one.is_set:
            value = gauge_real(one) if one.is_real else gauge_integer(one)
        move = move_real(one) if one.moves_real else (<object>move_high(one) << 64) + move_low(one)
        return value, move, gauge_at(one)


cdef class Reader:
    """A thread that empties a datagram socket into a core. Counts only ever grow."""

    cdef reader_t *reader
    cdef Core owner
    cdef tuple last  # counts, once it is closed
    cdef tuple last_drops

    def __cinit__(self, Core owner, int socket, int wake, uint32_t profile, size_t buffer, policed=None):
        """`wake` is an eventfd that is written to when the core's queue holds something; OSError otherwise.

        `policed` is (networks that are heard, places of networks, lines per second and sender) where it matters who
        sends; networks are packed as senders.h has them.
        """
        cdef policy_t policy
        cdef const policy_t *given = NULL
        cdef bytes allowed, places
        self.owner = owner
        if policed is not None:
            allowed, places, policy.rate = policed
            policy.allowed = <const network *><const char *>allowed
            policy.allowed_length = len(allowed) // sizeof(network)
            policy.places = <const network *><const char *>places
            policy.places_length = len(places) // sizeof(network)
            given = &policy
        self.reader = reader_start(owner.core, socket, wake, profile, buffer, given)
        if self.reader == NULL:
            raise OSError("no thread for a reader")

    def __dealloc__(self):
        reader_free(self.reader)

    def end(self, bint at_once):
        """Tells the thread to end: at once, or when it has taken what the kernel holds. Does not wait."""
        if self.reader != NULL:
            reader_end(self.reader, 2 if at_once else 1)

    def close(self):
        """Ends the thread and waits for that."""
        cdef reader_t *reader = self.reader
        if reader == NULL:
            return
        reader_end(reader, 2)
        with nogil:
            reader_join(reader)
        self.last = self.counts()
        self.last_drops = self.drops()
        self.reader = NULL
        reader_free(reader)

    @property
    def ended(self):
        return self.reader == NULL or reader_has_ended(self.reader) != 0

    def counts(self):
        """(datagrams, bytes, lines, naps, errors); the lines are those that were not queued for Python."""
        cdef int n
        if self.reader == NULL:
            return self.last
        return tuple([reader_count(self.reader, n) for n in range(5)])

    def drops(self):
        """(lines by [reason][place], [(family, address, lines)...], senders that were not told apart)."""
        cdef const named_drops *named = NULL
        cdef senders_t *senders
        cdef size_t length, n
        cdef int why, place
        if self.reader == NULL:
            return self.last_drops
        senders = self.reader.senders
        if senders == NULL:
            return [[0] * PLACES for why in range(DROPS)], [], 0
        senders_lock(senders)
        length = senders_named(senders, &named)
        found = [
            (named[n].address.family, PyBytes_FromStringAndSize(<const char *>named[n].address.bytes, 16),
             named[n].lines)
            for n in range(length)
        ]
        lines = [[senders_dropped(senders, why, place) for place in range(PLACES)] for why in range(DROPS)]
        strangers = senders_strangers(senders)
        senders_unlock(senders)
        return lines, found, strangers
