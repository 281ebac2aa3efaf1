# cython: language_level=3
"""What `_core.pyx` uses of the core in C: see the headers in core/ for what each of these is."""

from libc.stddef cimport size_t
from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t

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
    ctypedef struct member:
        uint32_t taken
    ctypedef struct members:
        uint32_t used
        const member *slots
    uint32_t members_slots(const members *)
    size_t member_length(const member *)
    const char *member_text(const member *)
    void members_clear(members *)

cdef extern from "sketch.h" nogil:
    ctypedef struct sketch:
        uint64_t count
    void sketch_bounds(const double *bounds, uint32_t length)
    int sketch_fits(const sketch *, double)
    size_t sketch_most(const sketch *)
    size_t sketch_encode(const sketch *, double, uint8_t *)

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
        uint8_t baseline
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
    void cell_clear(cell *)
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
    const sketch *samples_fold(cell *)
    const members *set_members(const cell *)
    uint64_t reader_count(reader_t *, int)
    int reader_has_ended(reader_t *)
