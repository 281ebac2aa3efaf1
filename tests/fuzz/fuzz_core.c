/* Fuzzes the core alone. An input is
 *
 *     byte 0     limits: how small they are; 16: the core keeps to what every processor has
 *     byte 1     every so many-th allocation fails; 0: none does
 *     the rest   datagrams, a 0xfe between them; each begins with a byte that says what is done with it
 *
 *     that byte  1  received by a thread, not handed in     8  then the window is ended, idle ones are forgotten
 *                2  of the second profile                  16  first time goes on, and windows end by themselves
 *                4  then what waits is read                32  its sender is looked at, and may send little
 *
 * Here stands a small Python: it binds heads to series, refuses some, forgets some, adds values that the core
 * leaves to it, and reads what waits, so that all paths of the core are walked. Besides the sanitizers, what the
 * core says of itself is checked. */
#include "target.h"

#include <math.h>
#include <netinet/in.h>
#include <stdint.h>
#include <string.h>

#include "core.h"
#include "senders.h"

enum { DATAGRAM_ENDS = 0xfe };
enum { QUEUED = 1, SECOND_PROFILE = 2, READ = 4, FLUSH = 8, LATER = 16, POLICED = 32 };
enum { WINDOW = 1000 }; /* milliseconds */

static int64_t now, opened; /* milliseconds; when the window began that Python knows of */

/* The quick reader says what the other one says, or nothing. */
static void check_plain_number(const char *text, size_t length)
{
    number quick, found;
    if (!length || !number_plain(text, text + length, &quick)) return;
    CHECK(number_scan(text, length, &found) && found.is_integer == quick.is_integer);
    CHECK(found.as.integer == quick.as.integer); /* for doubles: their bits */
}

/* Numbers are those of the C library in the "C" locale, bit for bit. */
static void check_number(const char *text, size_t length)
{
    check_plain_number(text, length);
    char copy[512], *end;
    number found;
    if (length >= sizeof copy || !number_scan(text, length, &found)) return;
    memcpy(copy, text, length);
    copy[length] = 0;
    double expected = strtod(copy, &end);
    CHECK(end == copy + length);
    if (found.is_integer)
        CHECK(found.as.integer == strtoll(copy, NULL, 10));
    else
        CHECK(!memcmp(&expected, &found.as.real, sizeof expected));
}

/* What Python would say of a head: by its type, and by its length for variety. */
static int state_of(const char *name, size_t name_length, const char *tail, size_t tail_length)
{
    if (!name_length || tail_length % 7 == 6) return REFUSED;
    switch (tail[0]) {
    case 'c':
        return COUNTER;
    case 'g':
        return name[0] == 'd' ? GAUGE : GAUGE_MOVING;
    case 's':
        return SET;
    case 'm':
        return tail_length > 1 && tail[1] == 's' ? TIMER : COUNTER;
    case 'h':
    case 'd':
        return TIMER;
    default:
        return REFUSED;
    }
}

static uint32_t intern(core *core, int state, const char *name, size_t length)
{
    char key[128] = {"ctggs"[state]};
    if (length > 100) length = 100;
    memcpy(key + 1, name, length);
    return core_intern(core, key, length + 1, length > 4 ? 4 : length + 1);
}

/* Settles a head; 0 where it cannot be remembered. */
static int settle(core *core, uint32_t profile, const char *name, size_t name_length, const char *tail,
                  size_t tail_length)
{
    uint64_t hash;
    int full, state = state_of(name, name_length, tail, tail_length);
    double weight = tail_length % 3 == 2 ? 1 / 0.3 : 1.0;
    uint32_t series = state == REFUSED ? 3 : intern(core, state, name, name_length);
    if (series >= TOO_MANY_OF_METRIC) {
        state = REFUSED;
        series = 5;
    }
    if (state == GAUGE || state == GAUGE_MOVING || state == SET) weight = 1.0;
    head *found = core_find_head(core, profile, name, name_length, tail, tail_length, &hash);
    if (found && found->state == PENDING) {
        core_settle(core, found, state, series, weight, tail_length % 5 == 4);
        return 1;
    }
    if (found) return 1;
    found = core_add_head(core, hash, profile, name, name_length, tail, tail_length, &full);
    if (!found) return 0;
    found->state = (uint8_t)state;
    found->series = series;
    found->weight = weight;
    found->odd = tail_length % 5 == 4;
    return 1;
}

/* What Python reads itself and adds: here some number, whatever the line says. */
static void add_values(core *core, const record *line)
{
    const head *head = line->head;
    size_t length = (size_t)(line->tail - line->value);
    number whole = {1, {.integer = -(int64_t)length}}, real = {.is_integer = 0};
    real.as.real = ldexp(1.1, (int)(length % 60));
    uint32_t cell_number;
    int state = head->state == GAUGE_MOVING ? GAUGE : head->state;
    cell *to = core_cell(core, head->series, state, head->weight, &cell_number);
    if (!to) return;
    CHECK(cell_number < core->open->length && to->series == head->series);
    if (state == COUNTER) {
        cell_count(to, length % 2 ? whole : real);
    } else if (state == TIMER) {
        cell_time(to, real.as.real, core->limits.samples);
    } else if (state == SET) {
        cell_add_member(core, to, member_hash(core, line->line, length % 100), line->line, length % 100);
    } else if (length % 3) {
        cell_move_gauge(to, length % 2 ? whole : real, now);
    } else {
        cell_set_gauge(to, length % 2 ? whole : real, now, ++core->ticket);
    }
}

static void feed(core *core, uint32_t profile, const char *bytes, size_t length)
{
    for (size_t at = 0; at < length && at < 100; at++)
        for (size_t size = 1; size <= 20 && size <= length - at; size += 1 + size / 9 * 10) check_plain_number(bytes + at, size);
    static feeder feeder;
    int tried = 0;
    datagram one = {bytes, length, "", 0};
    feeder_start(&feeder, profile, &one, 1, now);
    for (enum stop stop; (stop = core_feed(core, &feeder)) != DONE;) {
        record *line = feeder_stopped(&feeder);
        CHECK(line->line >= bytes && line->end <= bytes + length && line->line <= line->end);
        if (stop == AT_EVENT) {
            const char *end = memchr(line->line, '\n', (size_t)(line->end - line->line));
            feeder_skip(&feeder, end ? end + 1 : line->end);
        } else if (stop == NEW_HEAD && !tried &&
                   settle(core, profile, line->line, (size_t)(line->value - 1 - line->line), line->tail,
                          (size_t)(line->end - line->tail))) {
            feeder_retry(&feeder);
            tried = 1;
            continue;
        } else if (stop == ODD_VALUES) {
            check_number(line->value, (size_t)(line->tail - 1 - line->value));
            add_values(core, line);
        }
        tried = 0;
    }
}

/* Reads all that waits. */
static void read_queue(core *core)
{
    static char room[LEAD + PIECE_MOST], sender[SENDER_MOST], *const bytes = room + LEAD;
    piece found;
    while (core_take_piece(core, &found, sender, bytes)) {
        CHECK(found.length <= PIECE_MOST && found.sender_length <= SENDER_MOST);
        if (!found.counted) {
            feed(core, found.profile, bytes, found.length);
            continue;
        }
        const char *colon = memchr(bytes, ':', found.length);
        CHECK(colon);
        const char *bar = memchr(colon, '|', found.length - (size_t)(colon - bytes));
        CHECK(bar);
        const char *tail = bar + 1;
        size_t name_length = (size_t)(colon - bytes), tail_length = found.length - (size_t)(tail - bytes);
        settle(core, found.profile, bytes, name_length, tail, tail_length);
        uint64_t hash;
        head *known = core_find_head(core, found.profile, bytes, name_length, tail, tail_length, &hash);
        if (known && known->state == REFUSED && tail_length % 2) core_forget_head(core, known); /* room may come */
    }
}

static void check_interval(const core *core, const interval *of)
{
    for (uint32_t n = 0; n < of->length; n++) {
        const cell *one = interval_cell(of, n);
        CHECK(one->series < core->series_length);
        CHECK(one->next == NONE || (one->next < of->length && interval_cell(of, one->next)->series == one->series));
        if (one->state == SET) CHECK(one->as.members.used <= core->limits.set_members + 1);
        if (one->state == TIMER) CHECK(one->as.samples.folded <= one->as.samples.length);
        if (one->state == COUNTER && one->as.sum.fractions)
            for (uint16_t part = 0; part < one->as.sum.fractions->length; part++)
                CHECK(isfinite(one->as.sum.fractions->parts[part]));
    }
}

/* Time goes on, now and then for so long that no more windows are kept apart. */
static void go_on(core *core, unsigned windows)
{
    for (; windows; windows--) {
        now += WINDOW;
        core_keep_time(core, now);
        CHECK(core->ended_length <= MOST_ENDED);
    }
}

static void flush(core *core)
{
    uint64_t at = 0;
    uint32_t place = 0, count, numbers[SWEPT], ended_count = 0;
    int64_t start = now - now % WINDOW, last = INT64_MIN;
    if (core_cut(core, opened, start, start + WINDOW)) opened = start;
    for (ended *next; core->ended; core->ended = next, ended_count++) {
        CHECK(core->ended->start >= last);
        last = core->ended->start;
        check_interval(core, core->ended->cells);
        next = core->ended->next;
        ended_free(core->ended);
    }
    CHECK(ended_count == core->ended_length);
    core->ended_length = 0;
    core_turn(core);
    while (core_sweep_heads(core, &at)) continue;
    while (core_sweep_series(core, &place, numbers, &count)) continue;
    while (core->spills) {
        spill *next = core->spills->next;
        members_clear(&core->spills->members);
        free(core->spills);
        core->spills = next;
    }
}

static void check_tables(core *core)
{
    uint64_t hash, heads = 0;
    for (uint64_t n = 0; n <= core->heads_mask; n++) {
        uint32_t place = core->heads[n / SLOTS].head[n % SLOTS];
        const head *one = place ? head_at(core, place) : NULL;
        if (!one) continue;
        heads++;
        CHECK(core_find_head(core, head_profile(one), one->text, head_name_length(one), one->text + head_name_length(one),
                             head_tail_length(one), &hash) == one);
        if (one->state < REFUSED) CHECK(core->series[one->series]);
    }
    CHECK(heads == core->heads_used && heads <= core->limits.heads);
    CHECK(core->series_used <= core->limits.series);
    CHECK(core->waiting_used <= core->limits.waiting);
    CHECK(core_memory(core) >= heads * sizeof(head) + core->series_used * sizeof(series));
}

/* Whether the sender of a datagram, one of four, may send it. */
static int admitted(senders *senders, const char *bytes, size_t length)
{
    struct sockaddr_in peer = {.sin_family = AF_INET, .sin_addr = {htonl(0x7f000001u + (uint32_t)length % 4)}};
    if (!senders) return 1;
    senders_lock(senders);
    int taken = senders_admit(senders, (struct sockaddr *)&peer, now, bytes, length);
    uint64_t dropped = 0;
    for (int place = 0; place < PLACES; place++)
        dropped += senders_dropped(senders, NOT_ALLOWED, place) + senders_dropped(senders, OVER_RATE, place);
    CHECK(taken || dropped);
    senders_unlock(senders);
    return taken;
}

static void receive(core *core, const policy *policy, senders **senders, int what, const char *bytes,
                    size_t length)
{
    static feeder feeder;
    if (what & POLICED) {
        if (!*senders) *senders = senders_new(policy, 42, now); /* large, and most inputs need none */
        if (!admitted(*senders, bytes, length)) return;
    }
    datagram both[] = {{bytes, length, "sender", 6}, {bytes, length / 2, "other", 5}};
    feeder_start(&feeder, what & SECOND_PROFILE ? 1 : 0, both, 2, now);
    core_feed_queued(core, &feeder);
}

static void take_datagram(core *core, const policy *policy, senders **senders, int what, const char *data,
                          size_t length)
{
    char *room = malloc(LEAD + length), *bytes = room + LEAD; /* of its own, so that a look beyond it is seen */
    if (length) memcpy(bytes, data, length);
    if (what & LATER) go_on(core, what >> 6 == 3 ? MOST_ENDED + 4 : 1);
    if (what & QUEUED)
        receive(core, policy, senders, what, bytes, length);
    else
        feed(core, what & SECOND_PROFILE ? 1 : 0, bytes, length);
    free(room);
    if (what & READ) read_queue(core);
    if (what & FLUSH) flush(core);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static double bounds[64];
    if (!bounds[0]) {
        for (int n = 0; n < 64; n++) bounds[n] = ldexp(1.0, n - 16);
        sketch_bounds(bounds, 64);
    }
    if (size < 2) return 0;
    const limits small = {1 + data[0] % 16,       1 + data[0] % 8, 1 + data[0] % 32, 200, 1 + data[0] % 4,
                          1 + data[0] % 8 * 100u, data[0] % 8,     64 + data[0] * 16u, data[0] / 16 % 2};
    const network heard = {.bytes = {127, 0, 0, 0}, .bits = 31, .family = 4}; /* two of the four */
    const policy policy = {&heard, data[0] % 2, &heard, 1, 5};
    fail_every = 0;
    core *core = core_new(42, &small);
    CHECK(core);
    CHECK(core_add_profile(core, 0, (profile){1, 0}) && core_add_profile(core, 1, (profile){0, 1}));
    now = 2000;
    opened = core->window_start = now;
    core->window_end = now + WINDOW;
    fail_every = data[1];
    senders *senders = NULL;
    for (const uint8_t *at = data + 2, *end = data + size; at < end;) {
        const uint8_t *stop = memchr(at, DATAGRAM_ENDS, (size_t)(end - at));
        if (!stop) stop = end;
        if (stop > at)
            take_datagram(core, &policy, &senders, *at, (const char *)at + 1, (size_t)(stop - at) - 1);
        check_tables(core);
        at = stop < end ? stop + 1 : end;
    }
    read_queue(core);
    flush(core);
    senders_free(senders);
    core_free(core);
    return 0;
}
