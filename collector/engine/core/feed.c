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

#if defined(__SSE2__)
#include <emmintrin.h>
#endif

/* -- looking for bytes ------------------------------------------------------------------------------------ */

/* The first of up to three bytes in [at, end), or end. Sixteen bytes at a time where they are all inside. */
static inline const char *find(const char *at, const char *end, char a, char b, char c)
{
#if defined(__SSE2__)
    const __m128i as = _mm_set1_epi8(a), bs = _mm_set1_epi8(b), cs = _mm_set1_epi8(c);
    if (end - at >= 16) {
        const char *last = end - 16;
        do {
            __m128i text = _mm_loadu_si128((const __m128i *)(const void *)at);
            __m128i hit = _mm_or_si128(_mm_or_si128(_mm_cmpeq_epi8(text, as), _mm_cmpeq_epi8(text, bs)),
                                       _mm_cmpeq_epi8(text, cs));
            unsigned mask = (unsigned)_mm_movemask_epi8(hit);
            if (mask) return at + __builtin_ctz(mask);
        } while ((at += 16) <= last);
    }
#endif
    while (at < end && *at != a && *at != b && *at != c) at++;
    return at;
}

static inline const char *find_end(const char *at, const char *end) { return find(at, end, '\n', '\n', '\n'); }

/* -- reading ahead ---------------------------------------------------------------------------------------- */

/* The last eight bytes before `end`, as if those before `start` were unknown. */
static inline uint64_t word_before(const char *start, const char *end)
{
    if (end - start >= 8) return hash_load8(end - 8);
    uint64_t word = 0;
    for (const char *at = start; at < end; at++) word = word >> 8 | (uint64_t)(unsigned char)*at << 56;
    return word;
}

/* Finds the bar behind the value that begins at `at`, and reads the value if it is a plain number. */
static inline const char *read_value(record *to, const char *at, const char *end)
{
    const char *from = at;
    uint64_t integer = 0;
    unsigned digit;
    while (at < end && (digit = (unsigned)(unsigned char)*at - '0') <= 9) {
        integer = integer * 10 + digit;
        at++;
    }
    to->value = from;
    to->is_plain = 0;
    if (at < end && *at == '|' && at > from && at - from <= 18) { /* 18 digits fit an int64 */
        to->is_plain = 1;
        to->number = (number){1, {.integer = (int64_t)integer}};
        return at;
    }
    const char *bar = find(at, end, '|', '\n', '\n');
    if (at > from && at < end && *at == '.')
        to->is_plain = (uint8_t)number_plain(word_before(to->line, bar), (size_t)(bar - from), &to->number);
    return bar;
}

/* What a head is looked for by. */
static inline void know_head(const core *core, uint32_t profile, record *to, const char *colon)
{
    size_t name_length = (size_t)(colon - to->line), tail_length = (size_t)(to->end - to->tail);
    to->what = DONE;
    to->shape = shape_of(profile, name_length, tail_length);
    to->short_tail = tail_length <= 8 ? word_before(to->line, to->end) >> 8 * (8 - tail_length) : 0;
    to->hash = hash_head(core->seed, profile, to->line, name_length, to->tail, tail_length, to->short_tail);
    __builtin_prefetch(&core->heads[to->hash & core->heads_mask]);
}

/* One line from `at` on; where the next one starts. */
static inline const char *read_line(const core *core, const feeder *feeder, record *to, const char *at)
{
    const char *end = feeder->end;
    to->from = feeder->datagram;
    to->line = at;
    to->what = WHOLE;
    to->head = NULL;
    to->cell = NULL;
    const char *colon = find(at, end, ':', '|', '\n');
    if (colon < end && *colon == ':') {
        const char *bar = read_value(to, colon + 1, end);
        if (bar < end && *bar == '|') {
            to->tail = bar + 1;
            to->end = find_end(bar + 1, end);
            if (to->end > to->tail && to->end - at <= HEAD_MOST) know_head(core, feeder->profile, to, colon);
        } else {
            to->end = bar;
        }
    } else {
        to->end = find_end(colon, end);
    }
    if ((uint64_t)(to->end - at) > core->limits.line) to->what = TOO_LONG;
    return to->end + 1;
}

static int is_event(const char *at, const char *end) { return end - at >= 3 && !memcmp(at, "_e{", 3); }

static void enter(feeder *feeder, const datagram *datagram)
{
    feeder->datagram = datagram;
    feeder->at = datagram->bytes;
    feeder->end = datagram->bytes + datagram->length;
}

/* Over the ends of datagrams, so that those of one line profit as well. */
static void read_ahead(const core *core, feeder *feeder)
{
    feeder->next = feeder->length = 0;
    while (feeder->length < AHEAD) {
        const char *at = feeder->at, *end = feeder->end;
        if (at >= end) {
            if (feeder->datagram == feeder->last) return;
            enter(feeder, feeder->datagram + 1);
        } else if (*at == '\n') {
            feeder->at = at + 1;
        } else if (*at == '\r' && (at + 1 == end || at[1] == '\n')) {
            feeder->at = at + 2;
        } else if (*at == '_' && is_event(at, end)) {
            if (feeder->length) return; /* those before it first */
            feeder->ahead[feeder->length++] =
                (record){.from = feeder->datagram, .line = at, .end = end, .what = AT_EVENT};
            feeder->at = end; /* unless feeder_skip says where it ends */
            return;
        } else {
            feeder->at = read_line(core, feeder, &feeder->ahead[feeder->length++], at);
        }
    }
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
    record *ahead = feeder->ahead;
    feeder->epoch = core->epoch;
    for (uint32_t n = 0; n < feeder->length; n++) {
        if (ahead[n].what != DONE) continue;
        const head_slot *slot;
        for (uint64_t at = ahead[n].hash;; at++) {
            slot = &core->heads[at & core->heads_mask];
            if (!slot->head || slot->hash == (uint32_t)ahead[n].hash) break;
        }
        if (!slot->head) continue;
        ahead[n].head = head_at(core, slot->head);
        __builtin_prefetch(ahead[n].head);
        if (ahead[n].end - ahead[n].line > LINE - (ptrdiff_t)offsetof(head, text))
            __builtin_prefetch((const char *)ahead[n].head + LINE);
        if (slot->epoch != core->epoch) continue;
        ahead[n].cell = interval_cell(core->open, slot->cell);
        __builtin_prefetch(ahead[n].cell, 1);
    }
    for (uint32_t n = 0; n < feeder->length; n++)
        if (ahead[n].cell) look_behind(core, &ahead[n]);
}

/* -- adding ----------------------------------------------------------------------------------------------- */

/* The cell of a line whose head belongs to a series; NULL without memory. */
static cell *cell_of(core *core, record *line)
{
    head *head = line->head;
    head_slot *slot = core_slot(core, line->hash, head);
    if (slot->epoch == core->epoch) return line->cell = interval_cell(core->open, slot->cell);
    head->turn = core->turn;
    line->cell = core_cell(core, head->series, head->state, head->weight, &slot->cell);
    if (line->cell) slot->epoch = core->epoch;
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

/* What a plain number may be multiplied by without leaving the range of exact sums. */
#define MOST_WEIGHT (EXACT_LIMIT / 1e8)

/* Whether the core reads all values of a line itself: plain numbers with ":" between them, and not so large
 * that an exact sum could overflow. */
static int all_plain(const record *line, double weight)
{
    const char *end = line->tail - 1;
    for (const char *at = line->value;;) {
        const char *stop = find(at, end, ':', ':', ':');
        number value;
        if (!number_scan(at, (size_t)(stop - at), &value)) return 0;
        if (!value.is_integer && fabs(value.as.real) * fmax(weight, 1.0) >= EXACT_LIMIT) return 0;
        if (stop == end) return 1;
        at = stop + 1;
    }
}

/* Adds the values of a line for which all_plain holds. */
static void add_packed(core *core, cell *to, int state, const record *line, int64_t now)
{
    const char *end = line->tail - 1;
    for (const char *at = line->value;;) {
        const char *stop = find(at, end, ':', ':', ':');
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
    int is_plain = line->is_plain && (line->number.is_integer || head->weight < MOST_WEIGHT);
    if (state == SET ? !length : !is_plain && !all_plain(line, head->weight)) return ODD_VALUES;
    int is_known = line->cell != NULL; /* and so is the hash of a member */
    cell *to = waiting ? waiting : is_known ? line->cell : cell_of(core, line);
    if (!to) {
        count(core, &core->no_memory);
        return DONE;
    }
    if (state == SET) {
        uint32_t hash = is_known ? line->member_hash : member_hash(core, line->value, length);
        if (!cell_add_member(core, to, hash, line->value, length)) count(core, &core->no_memory);
    } else if (is_plain) {
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

static inline enum stop take_line(core *core, feeder *feeder, record *line)
{
    if (line->what != DONE) return (enum stop)line->what;
    size_t name_length = shape_name_length(line->shape), tail_length = shape_tail_length(line->shape);
    head *head = line->head;
    if (!head || !head_is(head, line->shape, line->line, name_length, line->tail, tail_length, line->short_tail)) {
        line->cell = NULL;
        head = line->head = core_find_head(core, feeder->profile, line->line, name_length, line->tail, tail_length,
                                           &line->hash);
        if (!head) return NEW_HEAD;
    }
    if (line->cell && head->state == COUNTER && line->is_plain && line->number.is_integer && !head->odd) {
        line->cell->as.sum.whole += line->number.as.integer;
        return DONE;
    }
    if (head->state < REFUSED) return add_values(core, head, NULL, line, feeder->now);
    return head->state == REFUSED ? KNOWN_FAULT : NEW_HEAD;
}

/* -- for Python, which settles what stops it -------------------------------------------------------------- */

void feeder_start(feeder *feeder, uint32_t profile, const datagram *datagrams, size_t count, int64_t now)
{
    feeder->last = datagrams + count - 1;
    enter(feeder, datagrams);
    feeder->profile = profile;
    feeder->now = now;
    feeder->lines = 0;
    feeder->next = feeder->length = 0;
}

void feeder_skip(feeder *feeder, const char *to)
{
    feeder->at = to < feeder->end ? to : feeder->end;
}

enum stop core_feed(core *core, feeder *feeder)
{
    if (feeder->epoch != core->epoch) /* meanwhile a reader thread has ended the window */
        for (uint32_t n = feeder->next; n < feeder->length; n++) feeder->ahead[n].cell = NULL;
    for (;;) {
        while (feeder->next < feeder->length) {
            record *line = &feeder->ahead[feeder->next++];
            enum stop stop = take_line(core, feeder, line);
            if (__builtin_expect(stop != DONE, 0)) {
                if (line->head) core_touch(core, line->head);
                return stop;
            }
        }
        read_ahead(core, feeder);
        if (!feeder->length) return DONE;
        look_ahead(core, feeder);
        feeder->lines += feeder->length;
    }
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
    const char *bar = find(tail, end, '|', '|', '|'), *at = bar;
    while (at < end) { /* at a bar */
        const char *next = find(at + 1, end, '|', '|', '|');
        if (at + 1 < end && at[1] == 'T') return -1;
        if (at == bar && at + 1 < end && at[1] == '@' && find(at, next, ':', ':', ':') < next) return -1;
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
        } else if (stop == KNOWN_FAULT && core->queue.used > core->queue.room / 8) {
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
