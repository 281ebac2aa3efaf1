/* The compiled core of the engine: lines in, sums by series out. Plain C without the Python API.
 *
 * A line's head is all of it but the value. The same head comes again and again:
 *
 *     api.latency:231|ms|@0.1|#route:/pay
 *     ^^^^^^^^^^^ name ^^^^^^^^^^^^^^^^^^ tail        what the value is added to depends on these alone
 *
 *     heads     (profile, name, tail) -> head         found by a seeded hash, the bytes compared
 *     series    canonical key -> number               as Python's grammar and limits decide, once a head
 *     interval  cells: what one series gathers in one window, at one weight
 *
 *     slots                          cell (of the open interval)
 *     +------+------+-------------+     +--------------------------------+
 *     | hash | head | epoch, cell-+---> | series, weight, next of series |
 *     +------+---|--+-------------+     | sum | gauge | samples | members |
 *                |                      +--------------------------------+
 *                |   +----------------+
 *                '-> | series, weight |
 *                    | name and tail  |
 *                    +----------------+
 *
 * A slot remembers the cell that its head was given in the interval numbered `epoch`. Opening an interval makes
 * a new number: no slot has to be told, and nothing is walked over. All heads of one series and one weight share
 * a cell, so gauges and samples keep their order over all spellings.
 *
 * Of the grammar the core knows how a line is split and what a plain number is. Whatever else comes (a new
 * head, a sign that it does not know the meaning of, an event, a fault) goes to Python: for bytes that Python
 * hands in (`core_feed`) by stopping at the line, so that all stays in order; for datagrams that a reader
 * thread receives (reader.h) by a bounded queue. Values of a head that waits for Python gather in a cell of
 * its own until the head is known.
 *
 * One mutex guards all of it. Whoever calls a function below without taking it says so there. */
#ifndef COLLECTOR_CORE_H
#define COLLECTOR_CORE_H

#include <pthread.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "arena.h"
#include "hash.h"
#include "number.h"
#include "sketch.h"
#include "sums.h"
#include "text.h"

#define NONE UINT32_MAX

/* What the values of a head are. In the order of the tests in the hot loop. */
enum state {
    COUNTER,
    TIMER,
    GAUGE,        /* a sign is part of the number: dogstatsd */
    GAUGE_MOVING, /* a sign makes it a move: statsd */
    SET,
    REFUSED, /* `series` is the number of the reason */
    PENDING, /* Python has not seen it yet; `series` is the number of its waiting cell */
};

/* What is compared of a head before its text. */
typedef uint64_t shape;
static inline shape shape_of(uint32_t profile, size_t name_length, size_t tail_length)
{
    return (uint64_t)profile << 32 | (uint64_t)name_length << 16 | tail_length;
}

static inline size_t shape_name_length(shape shape) { return shape >> 16 & UINT16_MAX; }
static inline size_t shape_tail_length(shape shape) { return shape & UINT16_MAX; }

typedef struct cell cell;

typedef struct {
    double weight;
    shape shape; /* whoever asks for a head has checked that its lengths fit 16 bits */
    uint32_t series;
    uint16_t turn; /* when it was last used, see core_turn */
    uint8_t state;
    uint8_t odd; /* number of the oddities that each of its lines counts; 0: none */
    char text[]; /* name, tail */
} head;

enum { HEAD_MOST = UINT16_MAX }; /* bytes of a name or a tail */

static inline uint32_t head_profile(const head *head) { return (uint32_t)(head->shape >> 32); }
static inline size_t head_name_length(const head *head) { return shape_name_length(head->shape); }
static inline size_t head_tail_length(const head *head) { return shape_tail_length(head->shape); }

/* Slots of the table of heads: four fill a line of the cache, and one look compares their hashes. A head lies in the
 * bucket that its hash leads to or, where all before are full, in the next one that is not. */
enum { SLOTS = 4 };
typedef struct {
    uint32_t hash[SLOTS]; /* half of it, for the rest there is the text */
    uint32_t head[SLOTS]; /* its place in the arena, NOWHERE: a free slot */
    uint32_t epoch[SLOTS], cell[SLOTS];
} bucket;
_Static_assert(sizeof(bucket) == LINE, "a bucket is one line of the cache");

/* The slots of a bucket with that half of a hash, a bit for each; and those that are free. */
static inline uint32_t bucket_with(const bucket *bucket, uint32_t half, uint32_t *empty)
{
#if defined(__SSE2__)
    __m128i hashes = _mm_load_si128((const __m128i *)(const void *)bucket->hash);
    __m128i heads = _mm_load_si128((const __m128i *)(const void *)bucket->head);
    uint32_t same = (uint32_t)_mm_movemask_ps(_mm_castsi128_ps(_mm_cmpeq_epi32(hashes, _mm_set1_epi32((int)half))));
    *empty = (uint32_t)_mm_movemask_ps(_mm_castsi128_ps(_mm_cmpeq_epi32(heads, _mm_setzero_si128())));
#else
    uint32_t same = 0;
    *empty = 0;
    for (int n = 0; n < SLOTS; n++) {
        same |= (uint32_t)(bucket->hash[n] == half) << n;
        *empty |= (uint32_t)!bucket->head[n] << n;
    }
#endif
    return same & ~*empty;
}

typedef struct {
    uint32_t epoch; /* of the interval that `cell` belongs to */
    uint32_t cell;  /* the first one; others, of other weights, are linked to it */
    uint32_t key_length;
    uint16_t metric_length; /* the kind and the name: the start of the key */
    uint16_t turn;
    char key[];
} series;

typedef struct {
    uint32_t hash; /* half of it, for the rest there is the key */
    uint32_t number;
} series_slot;

/* Counts the tagged series of a metric by the hash of its name: 64 seeded bits stand for the name itself. */
typedef struct {
    uint64_t hash;
    uint64_t count;
} metric_slot;

/* 64 bytes: one cache line. */
struct cell {
    uint32_t series;
    uint32_t next; /* of the same series, NONE at the end */
    double weight;
    uint64_t ticket; /* gauges: number of the line that set it */
    uint32_t lines;  /* waiting cells only */
    uint8_t state;
    uint8_t is_set : 1, is_real : 1, moves_real : 1; /* gauges: which of the members below count */
    uint8_t linked : 1;                              /* it is the `next` of another one */
    union {
        struct {
            __extension__ __int128 whole; /* integers: no sum of 64-bit numbers can leave it */
            exact *fractions;             /* the others; Python weighs both when the window is read */
        } sum;
        struct {
            union {
                __extension__ __int128 integer;
                double real;
            } move; /* since the last set */
            union {
                int64_t integer;
                double real;
            } value;
            int64_t at; /* milliseconds of the last change */
        } gauge;
        struct {
            double *values; /* the first `folded` are in the sketch as well */
            sketch *sketch;
            uint32_t length, room, folded;
        } samples;
        members members;
    } as;
};
_Static_assert(sizeof(cell) == LINE, "a cell is one line of the cache");

/* A set that reached its limit: its members leave ahead of the window. */
typedef struct spill {
    struct spill *next;
    uint32_t series;
    members members;
} spill;

typedef struct {
    cell **chunks;
    uint32_t length, room; /* cells; chunks that fit the array */
} interval;

/* A window that is over: its cells, and when it began, in milliseconds. */
typedef struct ended {
    struct ended *next;
    interval *cells;
    int64_t start;
} ended;

/* Bytes that Python is to read, in the order of their arrival; before each one of these, and its sender. */
typedef struct {
    uint32_t length;
    uint32_t profile;
    int64_t at; /* milliseconds */
    uint8_t counted; /* the line's value is in a waiting cell: only the head is to be settled */
    uint8_t sender_length;
} piece;

typedef struct {
    char *bytes; /* a ring */
    size_t room, start, used;
    uint32_t pieces;
} queue;

typedef struct {
    uint8_t signs_move; /* gauges: statsd */
    uint8_t meters;     /* the type "m" is known */
} profile;

typedef struct {
    uint64_t series, series_per_metric, heads, line, set_members, samples;
    uint64_t waiting;     /* heads that may wait for Python at one time */
    uint64_t queue_bytes; /* of the ring */
    uint8_t baseline;     /* keep to what every processor of this architecture has */
} limits;

enum { REASONS = 64, ODDITIES = 256 };

typedef struct core {
    pthread_mutex_t mutex;
    uint64_t seed;
    limits limits;
    size_t longest; /* line that a head is looked for in */
    uint8_t wide;   /* how heads are hashed and compared, see text.h */

    bucket *heads;
    uint64_t heads_mask, heads_used; /* slots */
    arena head_texts;
    series_slot *series_slots;
    uint64_t series_mask, series_used;
    series **series; /* by number */
    uint32_t series_length, series_room;
    uint32_t *free_numbers;
    uint32_t free_length, free_room;
    metric_slot *metrics;
    uint64_t metrics_mask, metrics_used;

    interval *open;
    int64_t window_start, window_end; /* of the open interval, in milliseconds */
    ended *ended;                     /* oldest first */
    uint32_t ended_length;
    uint32_t epoch;
    uint16_t turn;
    uint64_t ticket;
    spill *spills;
    struct {
        cell *cell;
        uint32_t next_free; /* where there is none */
    } * waiting;            /* by number */
    uint32_t waiting_length, waiting_free, waiting_used;
    queue queue;
    uint8_t woken; /* Python was told that the queue holds something */
    profile *profiles; /* by number */
    uint32_t profiles_length;

    /* All counts only ever grow; `news` with each of them, so that one look tells whether any did. */
    uint64_t news;
    uint64_t refused[REASONS]; /* lines of the reader threads, by number of the reason */
    uint64_t odd[ODDITIES];    /* lines, by number of the oddities */
    uint64_t spilled;          /* sets that reached their limit */
    uint64_t no_memory;        /* values that were lost for want of memory */
    uint64_t overload;         /* lines that found no room to wait for Python */
    uint64_t truncated;        /* datagrams longer than a buffer: their last line was lost */
} core;

/* -- life ------------------------------------------------------------------------------------------------ */

core *core_new(uint64_t seed, const limits *limits); /* NULL without memory */
void core_free(core *core);
int core_add_profile(core *core, uint32_t number, profile profile); /* 0 without memory */

/* -- heads and series (table.c) ---------------------------------------------------------------------------- */

#define NO_MEMORY (NONE - 1)
#define TOO_MANY_SERIES (NONE - 2)
#define TOO_MANY_OF_METRIC (NONE - 3)

/* Sixteen bytes before the name and the tail may be read, as in front of Python's. */
head *core_find_head(core *core, uint32_t profile, const char *name, size_t name_length, const char *tail,
                     size_t tail_length, uint64_t *hash);
/* NULL if there is no memory, or no room: then *full is set. `hash` is as core_find_head gave it. */
head *core_add_head(core *core, uint64_t hash, uint32_t profile, const char *name, size_t name_length,
                    const char *tail, size_t tail_length, int *full);
void core_forget_head(core *core, head *head);
/* The slot of a head; slots move when one is added or forgotten. */
uint64_t core_slot(const core *core, uint64_t hash, const head *head);
static inline bucket *bucket_at(const core *core, uint64_t slot)
{
    return &core->heads[(slot & core->heads_mask) / SLOTS];
}
static inline head *head_at(const core *core, uint32_t place) { return arena_at(&core->head_texts, place); }
/* Marks a head and its series as used. */
void core_touch(core *core, head *head);
/* The number of a series, new or known; marked as used. Or one of the numbers above. */
uint32_t core_intern(core *core, const char *key, size_t length, size_t metric_length);
/* Begins a new turn: what was not used in the last two is to be swept. */
void core_turn(core *core);
/* Forget what is to be swept among the slots from *at on, some thousand at a time; whether any are left.
 * The numbers of forgotten series go to `numbers`, which has room for SWEPT. Take the mutex for each call. */
enum { SWEPT = 4096 };
int core_sweep_heads(core *core, uint64_t *at);
int core_sweep_series(core *core, uint32_t *at, uint32_t *numbers, uint32_t *count);
uint64_t core_memory(const core *core); /* bytes of tables, heads and series, without allocator overhead */

/* -- cells (cells.c) --------------------------------------------------------------------------------------- */

interval *interval_new(void);
void interval_free(interval *interval);
enum { CHUNK = 512 };
static inline cell *interval_cell(const interval *interval, uint32_t number)
{
    return &interval->chunks[number / CHUNK][number % CHUNK];
}
/* The cell of a series at a weight in the open interval; NULL without memory. */
cell *core_cell(core *core, uint32_t number, int state, double weight, uint32_t *cell_number);
/* Values. 0 without memory, with nothing changed. */
int cell_count(cell *cell, number value);
int cell_time(cell *cell, double value, uint64_t kept);
/* Brings all samples of a timer into its sketch. */
int cell_fold(cell *cell);
void cell_set_gauge(cell *cell, number value, int64_t at, uint64_t ticket);
void cell_move_gauge(cell *cell, number by, int64_t at);
/* May spill; so `cell` must belong to a series. */
int cell_add_member(core *core, cell *cell, uint32_t hash, const char *text, size_t length);
static inline uint32_t member_hash(const core *core, const char *text, size_t length)
{
    return (uint32_t)hash_bytes(core->seed, text, length);
}
void cell_clear(cell *cell);
/* Ends an interval: the old one is the caller's. NULL, with nothing changed, without memory. */
interval *core_swap(core *core);
/* Reader threads: ends the open window if it is over at `now`. While Python is held up, each window gets its own
 * values all the same; up to MOST_ENDED of them, then the last one goes on. */
enum { MOST_ENDED = 256 };
void core_keep_time(core *core, int64_t now);
/* Python: the window that began at `from` is over, and the one from `start` to `end` open; 0 without memory. What
 * has ended by then is in core->ended. */
int core_cut(core *core, int64_t from, int64_t start, int64_t end);
void ended_free(ended *ended);

/* -- heads that wait for Python ---------------------------------------------------------------------------- */

int core_wait(core *core, head *head, int state); /* 0 if it cannot */
/* What a waiting head gathered goes where it belongs; lines that it gathered. The head is no more PENDING. */
uint32_t core_settle(core *core, head *head, int state, uint32_t series, double weight, uint8_t odd);

/* -- lines (feed.c) ---------------------------------------------------------------------------------------- */

typedef struct {
    const char *bytes; /* LEAD bytes before them may be read */
    size_t length;
    const void *sender; /* sockaddr */
    size_t sender_length;
} datagram;

typedef struct {
    const datagram *from;
    const char *line, *value, *tail, *end; /* the name is line[0..value - 1) */
    uint64_t hash;
    shape shape;
    head *head;
    cell *cell; /* NULL: none yet in this interval, or the head has to be asked */
    uint8_t what;
    uint8_t is_plain; /* the value is the number below */
    uint32_t member_hash; /* where `cell` is a set */
    number number;
} record;

enum { AHEAD = 32 };

/* Where one caller is in its bytes. They must stay as they are until `core_feed` says DONE. */
typedef struct {
    const datagram *datagram, *last; /* the one that it is in, and the last one */
    const char *at, *end;
    uint32_t profile, epoch; /* epoch: of the cells in `ahead` */
    int64_t now; /* milliseconds */
    uint64_t lines, doubtful; /* doubtful: those that Python may refuse, new heads apart */
    uint32_t next, length; /* of `ahead` */
    record ahead[AHEAD];
} feeder;

enum stop {
    DONE,
    WHOLE,      /* a line for the whole grammar */
    NEW_HEAD,   /* a head that is not known, or waits: settle it and feed again, or take the line whole */
    ODD_VALUES, /* the head is known, its values need the grammar */
    KNOWN_FAULT,/* the head is refused */
    TOO_LONG,
    AT_EVENT,   /* an event starts: say with feeder_skip where it ends */
};

void feeder_start(feeder *feeder, uint32_t profile, const datagram *datagrams, size_t count, int64_t now);
/* Goes on; what stopped it is feeder_stopped(). After NEW_HEAD the line is tried again once `retry`. */
enum stop core_feed(core *core, feeder *feeder);
static inline record *feeder_stopped(feeder *feeder) { return &feeder->ahead[feeder->next - 1]; }
static inline void feeder_retry(feeder *feeder) { feeder->next--; }
void feeder_skip(feeder *feeder, const char *to);
/* Takes all lines without ever stopping: what is for Python goes into the queue with its sender. */
void core_feed_queued(core *core, feeder *feeder);

/* Takes the oldest piece off the queue: 1 with its sockaddr and its bytes copied, 0 if there is none. They have
 * room for SENDER_MOST and PIECE_MOST, which no datagram exceeds. */
enum { SENDER_MOST = 128, PIECE_MOST = 65536 };
int core_take_piece(core *core, piece *out, char *sender, char *bytes);

#endif
