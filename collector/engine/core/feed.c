/* Lines: how bytes are split, and where each value goes.
 *
 *     api.latency:231|ms|@0.1|#route:/pay\n
 *     ^line       ^value            end--^
 *                     ^tail
 *
 * Lines are read ahead by the dozen, and memory is asked for in steps (slot, head, cell) over all of them before
 * any is used: with 100,000 series each of these is a miss of the cache, and together they cost little more
 * than one. Values are then added strictly in order. */
#include <math.h>
#include <string.h>

#include "core.h"

/* -- reading ahead: what is rare (the rest is in hot.h) ---------------------------------------------------- */

/* A line without a head that could be looked for; where the next one starts. */
static const char *whole_line(const core *core, record *to, const char *at, const char *end)
{
    int what = (uint64_t)(end - at) > core->limits.line ? TOO_LONG : WHOLE;
    *to = (record){.from = to->from, .line = at, .end = end, .what = (uint8_t)what};
    return end + 1;
}

/* Bytes of an empty line, with its end; 0 if it is none. */
static size_t empty_line(const char *at, const char *end)
{
    if (*at == '\n') return 1;
    return *at == '\r' && (at + 1 == end || at[1] == '\n') ? 2 : 0;
}

static int is_event(const char *at, const char *end) { return end - at >= 3 && !memcmp(at, "_e{", 3); }

/* An event may hold ends of lines: it reaches to the end of the datagram unless feeder_skip says where it ends. */
static const char *begin_event(record *to, const char *at, const char *end)
{
    *to = (record){.from = to->from, .line = at, .end = end, .what = AT_EVENT};
    return end;
}

/* What an address in a cell leads to. */
static inline void look_behind(const core *core, record *line)
{
    const cell *cell = line->cell;
    if (cell->state == TIMER && cell->as.samples.length) {
        __builtin_prefetch(cell->as.samples.values + cell->as.samples.length, 1);
    } else if (cell->state == SET) {
        line->member_hash = member_hash(core, line->value, (size_t)(line->tail - 1 - line->value));
        if (cell->as.members.slots)
            __builtin_prefetch(&cell->as.members.slots[line->member_hash & cell->as.members.mask]);
    }
}

static void look_ahead(const core *core, feeder *feeder)
{
    record *const end = feeder->ahead + feeder->length;
    const uint32_t epoch = feeder->epoch = core->epoch;
    for (record *line = feeder->ahead; line < end; line++) {
        line->head = NULL;
        line->cell = NULL;
        if (line->what != DONE) continue;
        uint32_t empty, same, half = (uint32_t)line->hash;
        const bucket *bucket = bucket_at(core, line->hash);
        for (uint64_t at = line->hash; !(same = bucket_with(bucket, half, &empty)) && !empty;)
            bucket = bucket_at(core, at += SLOTS);
        if (!same) continue;
        int slot = __builtin_ctz(same);
        line->head = head_at(core, bucket->head[slot]);
        __builtin_prefetch(line->head);
        if (line->end - line->line > LINE - (ptrdiff_t)offsetof(head, text))
            __builtin_prefetch((const char *)line->head + LINE);
        if (bucket->epoch[slot] != epoch) continue;
        line->cell = interval_cell(core->open, bucket->cell[slot]);
        __builtin_prefetch(line->cell, 1);
    }
    for (record *line = feeder->ahead; line < end; line++)
        if (line->cell) look_behind(core, line);
}

/* -- adding ----------------------------------------------------------------------------------------------- */

/* The cell of a line whose head belongs to a series; NULL without memory. */
static cell *cell_of(core *core, record *line)
{
    head *head = line->head;
    uint64_t slot = core_slot(core, line->hash, head);
    bucket *bucket = bucket_at(core, slot);
    uint32_t *epoch = &bucket->epoch[slot % SLOTS], *number = &bucket->cell[slot % SLOTS];
    if (*epoch == core->epoch) return line->cell = interval_cell(core->open, *number);
    head->turn = core->turn;
    line->cell = core_cell(core, head->series, head->state, head->weight, number);
    if (line->cell) *epoch = core->epoch;
    return line->cell;
}

static inline void count(core *core, uint64_t *what)
{
    ++*what;
    core->news++;
}

static int add_number(core *core, cell *to, int state, number value, int moves, int64_t now)
{
    switch (state) {
    case COUNTER:
        return cell_count(to, value);
    case TIMER:
        return cell_time(to, number_real(value), core->limits.samples);
    default:
        if (moves)
            cell_move_gauge(to, value, now);
        else
            cell_set_gauge(to, value, now, ++core->ticket);
        return 1;
    }
}

/* Whether the core reads all values of a line itself: plain numbers with ":" between them, and not so large
 * that an exact sum could overflow. */
static int all_plain(const record *line)
{
    const char *end = line->tail - 1;
    for (const char *at = line->value;;) {
        const char *stop = find_plain(at, end, ':', ':', ':');
        number value;
        if (!number_scan(at, (size_t)(stop - at), &value)) return 0;
        if (!value.is_integer && fabs(value.as.real) >= EXACT_LIMIT) return 0;
        if (stop == end) return 1;
        at = stop + 1;
    }
}

/* Adds the values of a line for which all_plain holds. */
static void add_packed(core *core, cell *to, int state, const record *line, int64_t now)
{
    const char *end = line->tail - 1;
    for (const char *at = line->value;;) {
        const char *stop = find_plain(at, end, ':', ':', ':');
        number value = {.is_integer = 0};
        number_scan(at, (size_t)(stop - at), &value);
        int moves = state == GAUGE_MOVING && (*at == '+' || *at == '-');
        if (!add_number(core, to, state, value, moves, now)) count(core, &core->no_memory);
        if (stop == end) return;
        at = stop + 1;
    }
}

/* Adds the values of a line to a cell, which is made only once it is clear that there is something to add. */
static enum stop add_values(core *core, head *head, cell *waiting, record *line, int64_t now)
{
    int state = waiting ? waiting->state : head->state;
    size_t length = (size_t)(line->tail - 1 - line->value);
    if (state == SET ? !length : !line->is_plain && !all_plain(line)) return ODD_VALUES;
    int is_known = line->cell != NULL; /* and so is the hash of a member */
    cell *to = waiting ? waiting : is_known ? line->cell : cell_of(core, line);
    if (!to) {
        count(core, &core->no_memory);
        return DONE;
    }
    if (state == SET) {
        uint32_t hash = is_known ? line->member_hash : member_hash(core, line->value, length);
        if (!cell_add_member(core, to, hash, line->value, length)) count(core, &core->no_memory);
    } else if (line->is_plain) {
        if (!add_number(core, to, state, line->number, 0, now)) count(core, &core->no_memory);
    } else {
        add_packed(core, to, state, line, now);
    }
    if (waiting)
        waiting->lines++;
    else if (head->odd)
        count(core, &core->odd[head->odd]);
    return DONE;
}

/* Where the first head with half of the line's hash is not the line's: looks for it by all of it. */
static head *look_again(core *core, const feeder *feeder, record *line)
{
    line->cell = NULL;
    return line->head = core_find_head(core, feeder->profile, line->line, shape_name_length(line->shape), line->tail,
                                       shape_tail_length(line->shape), &line->hash);
}

#define WAY(name) name##_plain
#define IN_WAY
#include "hot.h"
#undef WAY
#undef IN_WAY

#if defined(WIDE)
#define WAY(name) name##_wide
#define IN_WAY IN_WIDE
#include "hot.h"
#undef WAY
#undef IN_WAY
#endif

/* -- for Python, which settles what stops it -------------------------------------------------------------- */

void feeder_start(feeder *feeder, uint32_t profile, const datagram *datagrams, size_t count, int64_t now)
{
    feeder->datagram = datagrams;
    feeder->last = datagrams + count - 1;
    feeder->at = datagrams->bytes;
    feeder->end = datagrams->bytes + datagrams->length;
    feeder->profile = profile;
    feeder->now = now;
    feeder->lines = feeder->doubtful = 0;
    feeder->next = feeder->length = 0;
}

void feeder_skip(feeder *feeder, const char *to)
{
    feeder->at = to < feeder->end ? to : feeder->end;
}

enum stop core_feed(core *core, feeder *feeder)
{
    enum stop stop;
    if (feeder->epoch != core->epoch) /* meanwhile a reader thread has ended the window */
        for (uint32_t n = feeder->next; n < feeder->length; n++) feeder->ahead[n].cell = NULL;
#if defined(WIDE)
    if (core->wide)
        stop = feed_wide(core, feeder);
    else
#endif
        stop = feed_plain(core, feeder);
    if (stop != DONE && feeder_stopped(feeder)->head) core_touch(core, feeder_stopped(feeder)->head);
    return stop;
}

/* -- for reader threads, which cannot wait ---------------------------------------------------------------- */

static void ring_copy(queue *queue, size_t at, const void *bytes, size_t length)
{
    size_t start = (queue->start + at) % queue->room, first = queue->room - start;
    if (first > length) first = length;
    memcpy(queue->bytes + start, bytes, first);
    memcpy(queue->bytes, (const char *)bytes + first, length - first);
}

/* 0 where there is no room. Faults leave some to what can still become good. */
static int queue_piece(core *core, const feeder *feeder, const record *line, int counted)
{
    queue *queue = &core->queue;
    size_t sender_length = line->from->sender_length;
    piece head = {.length = (uint32_t)(line->end - line->line),
                  .profile = feeder->profile,
                  .at = feeder->now,
                  .counted = (uint8_t)counted,
                  .sender_length = (uint8_t)(sender_length <= SENDER_MOST ? sender_length : 0)};
    size_t before = sizeof head + head.sender_length;
    if (queue->room - queue->used < before + head.length) return 0;
    ring_copy(queue, queue->used, &head, sizeof head);
    ring_copy(queue, queue->used + sizeof head, line->from->sender, head.sender_length);
    ring_copy(queue, queue->used + before, line->line, head.length);
    queue->used += before + head.length;
    queue->pieces++;
    return 1;
}

int core_take_piece(core *core, piece *out, char *sender, char *bytes)
{
    queue *queue = &core->queue;
    if (!queue->pieces) return 0;
    char *to[] = {(char *)out, sender, bytes};
    for (int part = 0; part < 3; part++) {
        size_t length = part == 0 ? sizeof *out : part == 1 ? out->sender_length : out->length;
        size_t first = queue->room - queue->start;
        if (first > length) first = length;
        memcpy(to[part], queue->bytes + queue->start, first);
        memcpy(to[part] + first, queue->bytes, length - first);
        queue->start = (queue->start + length) % queue->room;
        queue->used -= length;
    }
    if (!--queue->pieces) queue->start = 0; /* so that memory that a rush has touched is not walked through for ever */
    return 1;
}

/* What the values of a head that Python has not read will be, by its type; -1 where it may not be a head: an
 * unknown type, another bit behind the first, a timestamp (new each time). */
static int guess(const core *core, uint32_t profile, const char *tail, const char *end)
{
    if (end > tail && end[-1] == '\r') end--;
    const char *bar = find_plain(tail, end, '|', '|', '|'), *at = bar;
    while (at < end) { /* at a bar */
        const char *next = find_plain(at + 1, end, '|', '|', '|');
        if (at + 1 < end && at[1] == 'T') return -1;
        if (at == bar && at + 1 < end && at[1] == '@' && find_plain(at, next, ':', ':', ':') < next) return -1;
        at = next;
    }
    if (bar - tail == 2) return tail[0] == 'm' && tail[1] == 's' ? TIMER : -1;
    if (bar - tail != 1) return -1;
    switch (*tail) {
    case 'c':
        return COUNTER;
    case 'm':
        return profile < core->profiles_length && core->profiles[profile].meters ? COUNTER : -1;
    case 'g':
        return profile < core->profiles_length && core->profiles[profile].signs_move ? GAUGE_MOVING : GAUGE;
    case 'h':
    case 'd':
        return TIMER;
    case 's':
        return SET;
    default:
        return -1;
    }
}

/* A head that is new: it gets a cell at once and is queued, once. Whether the line is done with. */
static int begin_waiting(core *core, feeder *feeder, record *line)
{
    int full, state = guess(core, feeder->profile, line->tail, line->end);
    size_t piece_length = sizeof(piece) + SENDER_MOST + (size_t)(line->end - line->line);
    if (state < 0 || core->queue.room - core->queue.used < piece_length) return 0;
    head *made = core_add_head(core, line->hash, feeder->profile, line->line, (size_t)(line->value - 1 - line->line),
                               line->tail, (size_t)(line->end - line->tail), &full);
    if (!made) return 0;
    if (!core_wait(core, made, state)) {
        made->state = REFUSED; /* so that nobody looks for its cell */
        core_forget_head(core, made);
        return 0;
    }
    if (add_values(core, made, core->waiting[made->series].cell, line, feeder->now) != DONE) {
        core_settle(core, made, REFUSED, 0, 1.0, 0);
        core_forget_head(core, made);
        return 0;
    }
    return queue_piece(core, feeder, line, 1);
}

void core_feed_queued(core *core, feeder *feeder)
{
    for (;;) {
        enum stop stop = core_feed(core, feeder);
        if (stop == DONE) return;
        record *line = feeder_stopped(feeder);
        head *head = line->head;
        if (stop == NEW_HEAD) {
            if (head ? add_values(core, head, core->waiting[head->series].cell, line, feeder->now) == DONE
                     : begin_waiting(core, feeder, line))
                continue;
        }
        feeder->doubtful++;
        if (stop == KNOWN_FAULT && core->queue.used > core->queue.room / 8) {
            count(core, &core->refused[head->series]);
            continue;
        }
        feeder->lines--; /* Python counts it, and an event may be followed by more lines */
        if (!queue_piece(core, feeder, line, 0)) {
            feeder->lines++;
            count(core, &core->overload);
        }
    }
}
