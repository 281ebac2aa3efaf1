/* Cells: what a series gathers in one window. And waiting cells: what a head gathers that Python has not read. */
#include <float.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "core.h"

/* -- intervals -------------------------------------------------------------------------------------------- */

interval *interval_new(void) { return calloc(1, sizeof(interval)); }

/* Cells never move: a chunk, once made, stays. Each begins on a cache line. The first ones have memory of their
 * own, so that few series need little; later ones are parts of large pages. */
enum { CHUNKS_ALONE = 64, CHUNK_BYTES = CHUNK * sizeof(cell), CHUNKS_TOGETHER = LARGE_PAGE / CHUNK_BYTES };

static int begins_memory(uint32_t chunk) { return chunk < CHUNKS_ALONE || chunk % CHUNKS_TOGETHER == 0; }

static cell *chunk_new(const interval *interval, uint32_t chunk)
{
    if (chunk < CHUNKS_ALONE) return aligned_alloc(LINE, CHUNK_BYTES);
    return begins_memory(chunk) ? large_page() : interval->chunks[chunk - 1] + CHUNK;
}

void interval_free(interval *interval)
{
    if (!interval) return;
    for (uint32_t n = 0; n < interval->length; n++) cell_clear(interval_cell(interval, n));
    for (uint32_t n = 0; n * CHUNK < interval->length; n++)
        if (begins_memory(n)) free(interval->chunks[n]);
    free(interval->chunks);
    free(interval);
}

static cell *interval_add(interval *interval)
{
    uint32_t chunk = interval->length / CHUNK;
    if (interval->length % CHUNK == 0) {
        if (chunk == interval->room) {
            uint32_t room = interval->room ? interval->room * 2 : 16;
            cell **larger = realloc(interval->chunks, room * sizeof *larger);
            if (!larger) return NULL;
            interval->chunks = larger;
            interval->room = room;
        }
        interval->chunks[chunk] = chunk_new(interval, chunk);
        if (!interval->chunks[chunk]) return NULL;
    }
    return interval_cell(interval, interval->length++);
}

void ended_free(ended *ended)
{
    interval_free(ended->cells);
    free(ended);
}

/* Ends the open window; 0 without memory, and then it goes on. */
static int end_window(core *core)
{
    ended *made = malloc(sizeof *made), **last = &core->ended;
    interval *cells = made ? core_swap(core) : NULL;
    if (!cells) {
        free(made);
        return 0;
    }
    *made = (ended){.next = NULL, .cells = cells, .start = core->window_start};
    while (*last) last = &(*last)->next;
    *last = made;
    core->ended_length++;
    return 1;
}

void core_keep_time(core *core, int64_t now)
{
    int64_t length = core->window_end - core->window_start;
    if (now < core->window_end || length <= 0 || core->ended_length == MOST_ENDED || !end_window(core)) return;
    core->window_start = now - now % length;
    core->window_end = core->window_start + length;
}

int core_cut(core *core, int64_t from, int64_t start, int64_t end)
{
    /* A reader thread may have opened the new window already. */
    if ((core->window_start == from || core->window_start != start) && !end_window(core)) return 0;
    core->window_start = start;
    core->window_end = end;
    return 1;
}

interval *core_swap(core *core)
{
    interval *opened = interval_new(), *retired = core->open;
    if (!opened) return NULL;
    core->open = opened;
    core->epoch++;
    if (core->epoch == 0) core->epoch = 1; /* 0 is no interval's; after 2^32 of them */
    return retired;
}

static void cell_begin(cell *cell, uint32_t number, int state, double weight)
{
    memset(cell, 0, sizeof *cell);
    cell->series = number;
    cell->next = NONE;
    cell->weight = weight;
    cell->state = (uint8_t)state;
}

cell *core_cell(core *core, uint32_t number, int state, double weight, uint32_t *cell_number)
{
    series *one = core->series[number];
    one->turn = core->turn;
    cell *last = NULL;
    if (one->epoch == core->epoch) {
        for (uint32_t n = one->cell; n != NONE; n = last->next) {
            last = interval_cell(core->open, n);
            if (last->weight == weight) {
                *cell_number = n;
                return last;
            }
        }
    }
    *cell_number = core->open->length;
    cell *made = interval_add(core->open);
    if (!made) return NULL;
    cell_begin(made, number, state, weight);
    if (last) {
        last->next = *cell_number;
        made->linked = 1;
    } else {
        one->epoch = core->epoch;
        one->cell = *cell_number;
    }
    return made;
}

void cell_clear(cell *cell)
{
    if (cell->state == COUNTER) {
        free(cell->as.sum.fractions);
    } else if (cell->state == TIMER) {
        free(cell->as.samples.values);
        sketch_free(cell->as.samples.sketch);
    } else if (cell->state == SET) {
        members_clear(&cell->as.members);
    }
    memset(&cell->as, 0, sizeof cell->as);
}

/* -- values ----------------------------------------------------------------------------------------------- */

static double saturated(double value) { return fmin(fmax(value, -DBL_MAX), DBL_MAX); }

int cell_count(cell *cell, number value)
{
    if (value.is_integer) {
        cell->as.sum.whole += value.as.integer;
        return 1;
    }
    return exact_add(&cell->as.sum.fractions, value.as.real);
}

/* So many samples before they are folded: 8 KiB, which stay in the near caches, and far more than are kept, so that
 * what is moved to the front each time is little. */
enum { FOLD_AT = 1024 };

int cell_fold(cell *cell)
{
    uint32_t done, folded = cell->as.samples.folded;
    int whole = sketch_add(&cell->as.samples.sketch, cell->as.samples.values + folded,
                           cell->as.samples.length - folded, &done);
    cell->as.samples.folded += done;
    return whole;
}

/* Folds, and keeps the newest samples only. */
static int fold(cell *cell, uint64_t kept)
{
    if (!cell_fold(cell)) return 0;
    double *values = cell->as.samples.values;
    uint32_t length = cell->as.samples.length;
    uint32_t stay = length < kept ? length : (uint32_t)kept;
    memmove(values, values + length - stay, stay * sizeof *values);
    cell->as.samples.length = cell->as.samples.folded = stay;
    return 1;
}

int cell_time(cell *cell, double value, uint64_t kept)
{
    if (cell->as.samples.length == cell->as.samples.room) {
        uint32_t room = cell->as.samples.room ? cell->as.samples.room * 2 : 4;
        int enough = cell->as.samples.length >= FOLD_AT && cell->as.samples.length / 2 >= kept;
        if (!enough || !fold(cell, kept)) {
            if (room > UINT32_MAX / 4) return 0;
            double *larger = realloc(cell->as.samples.values, room * sizeof *larger);
            if (!larger) return 0;
            cell->as.samples.values = larger;
            cell->as.samples.room = room;
        }
    }
    cell->as.samples.values[cell->as.samples.length++] = value;
    return 1;
}

void cell_set_gauge(cell *cell, number value, int64_t at, uint64_t ticket)
{
    cell->is_set = 1;
    cell->is_real = !value.is_integer;
    if (value.is_integer)
        cell->as.gauge.value.integer = value.as.integer;
    else
        cell->as.gauge.value.real = value.as.real;
    cell->moves_real = 0;
    cell->as.gauge.move.integer = 0;
    cell->as.gauge.at = at;
    cell->ticket = ticket;
}

/* As Python adds: integers exactly, and as doubles from the first fraction on. */
void cell_move_gauge(cell *cell, number by, int64_t at)
{
    cell->as.gauge.at = at;
    if (!cell->moves_real && by.is_integer) {
        cell->as.gauge.move.integer += by.as.integer;
        return;
    }
    double before = cell->moves_real ? cell->as.gauge.move.real : (double)cell->as.gauge.move.integer;
    cell->moves_real = 1;
    cell->as.gauge.move.real = saturated(before + number_real(by));
}

int cell_add_member(core *core, cell *cell, uint32_t hash, const char *text, size_t length)
{
    int added = members_add(&cell->as.members, hash, text, length);
    if (added <= 0 || cell->series == NONE || cell->as.members.used < core->limits.set_members) return added >= 0;
    spill *full = malloc(sizeof *full);
    if (!full) return 1; /* it stays where it is, and is tried again with the next member */
    *full = (spill){core->spills, cell->series, cell->as.members};
    core->spills = full;
    core->spilled++;
    core->news++;
    cell->as.members = (members){NULL, 0, 0};
    return 1;
}

/* -- waiting cells ---------------------------------------------------------------------------------------- */

/*     waiting    [ cell | next free --+ | cell | next free ]
 *                                     +-----------^
 */
static int waiting_room(core *core)
{
    uint32_t length = core->waiting_length ? core->waiting_length * 2 : 64;
    void *larger = realloc(core->waiting, length * sizeof *core->waiting);
    if (!larger) return 0;
    core->waiting = larger;
    for (uint32_t n = core->waiting_length; n < length; n++) {
        core->waiting[n].cell = NULL;
        core->waiting[n].next_free = n + 1 < length ? n + 1 : NONE;
    }
    core->waiting_free = core->waiting_length;
    core->waiting_length = length;
    return 1;
}

int core_wait(core *core, head *head, int state)
{
    if (core->waiting_used >= core->limits.waiting) return 0;
    if (core->waiting_free == NONE && !waiting_room(core)) return 0;
    cell *made = malloc(sizeof *made);
    if (!made) return 0;
    cell_begin(made, NONE, state, 1.0);
    uint32_t number = core->waiting_free;
    core->waiting_free = core->waiting[number].next_free;
    core->waiting[number].cell = made;
    core->waiting_used++;
    head->state = PENDING;
    head->series = number;
    return 1;
}

static int merge_samples(cell *to, cell *from, uint64_t kept)
{
    if (!to->as.samples.length) { /* nearly always: the series is as new as the head */
        cell_clear(to);
        to->as = from->as;
        memset(&from->as, 0, sizeof from->as);
        return 1;
    }
    uint32_t known = from->as.samples.folded;
    int whole = 1;
    if (known && (!fold(to, kept) || !sketch_merge(to->as.samples.sketch, from->as.samples.sketch))) return 0;
    for (uint32_t n = 0; n < from->as.samples.length; n++) {
        whole &= cell_time(to, from->as.samples.values[n], UINT64_MAX); /* so that none is folded here */
        to->as.samples.folded += whole && n < known;
    }
    return whole;
}

static void merge_gauges(cell *to, const cell *from)
{
    if (from->is_set) {
        if (to->is_set && to->ticket > from->ticket) return;
        to->is_set = 1;
        to->is_real = from->is_real;
        to->moves_real = from->moves_real;
        to->as.gauge = from->as.gauge;
        to->ticket = from->ticket;
    } else if (from->moves_real || to->moves_real) {
        number by = {.is_integer = 0};
        by.as.real = from->moves_real ? from->as.gauge.move.real : (double)from->as.gauge.move.integer;
        cell_move_gauge(to, by, from->as.gauge.at);
    } else {
        to->as.gauge.move.integer += from->as.gauge.move.integer;
        to->as.gauge.at = from->as.gauge.at;
    }
}

/* Adds what `from` gathered before its series was known; 0 if memory did not suffice. */
static int merge(core *core, cell *to, cell *from, int state)
{
    int whole = 1;
    switch (state) {
    case COUNTER:
        to->as.sum.whole += from->as.sum.whole;
        for (uint16_t n = 0; from->as.sum.fractions && n < from->as.sum.fractions->length; n++)
            whole &= exact_add(&to->as.sum.fractions, from->as.sum.fractions->parts[n]);
        return whole;
    case TIMER:
        return merge_samples(to, from, core->limits.samples);
    case SET:
        for (uint32_t n = 0; n < members_slots(&from->as.members); n++) {
            const member *one = &from->as.members.slots[n];
            if (one->taken) whole &= cell_add_member(core, to, one->hash, member_text(one), member_length(one));
        }
        return whole;
    default:
        merge_gauges(to, from);
        return 1;
    }
}

/* The type that the core knew a head by is the one that Python finds; if ever it is not, nothing is mixed. */
static int alike(int guessed, int found)
{
    int is_gauge = found == GAUGE || found == GAUGE_MOVING;
    return guessed == found || (is_gauge && (guessed == GAUGE || guessed == GAUGE_MOVING));
}

uint32_t core_settle(core *core, head *head, int state, uint32_t number, double weight, uint8_t odd)
{
    uint32_t waiting = head->series;
    cell *from = core->waiting[waiting].cell;
    uint32_t lines = from->lines;
    head->state = (uint8_t)state;
    head->series = number;
    head->weight = weight;
    head->odd = odd;
    if (state < REFUSED && lines) {
        uint32_t cell_number;
        cell *to = core_cell(core, number, state, weight, &cell_number);
        if (!to || !alike(from->state, state) || !merge(core, to, from, state)) core->no_memory += lines;
        core->odd[odd] += lines;
        core->news++;
    }
    cell_clear(from);
    free(from);
    core->waiting[waiting].cell = NULL;
    core->waiting[waiting].next_free = core->waiting_free;
    core->waiting_free = waiting;
    core->waiting_used--;
    return lines;
}
