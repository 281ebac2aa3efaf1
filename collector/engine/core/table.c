/* Heads, series and the number of series of each metric: three tables with open addressing, linear probing
 * and no tombstones. See core.h for what they hold. */
#include <stdlib.h>
#include <string.h>

#include "core.h"

enum { FIRST_SLOTS = 1024 };

/* Whether one more entry would fill more than seven eighths. Then there are always free slots to end a search. */
static int crowded(uint64_t used, uint64_t mask) { return (used + 1) * 8 > (mask + 1) * 7; }

/* What was last used in the turn before the last, or earlier. Turns wrap around. */
static int forgotten(const core *core, uint16_t turn) { return (uint16_t)(core->turn - turn) > 1; }

/* -- slots of heads ---------------------------------------------------------------------------------------- */

static bucket *buckets_new(uint64_t slots)
{
    bucket *made = aligned_alloc(LINE, slots / SLOTS * sizeof *made);
    if (made) memset(made, 0, slots / SLOTS * sizeof *made);
    return made;
}

/* The first slot of the bucket that a hash leads to. */
static uint64_t home(uint64_t hash, uint64_t mask) { return hash & mask & ~(uint64_t)(SLOTS - 1); }

static uint32_t slots_head(const bucket *buckets, uint64_t slot) { return buckets[slot / SLOTS].head[slot % SLOTS]; }

static void set_slot(bucket *buckets, uint64_t slot, uint32_t hash, uint32_t head, uint32_t epoch, uint32_t cell)
{
    bucket *to = &buckets[slot / SLOTS];
    unsigned n = slot % SLOTS;
    to->hash[n] = hash;
    to->head[n] = head;
    to->epoch[n] = epoch;
    to->cell[n] = cell;
}

/* -- life ------------------------------------------------------------------------------------------------- */

core *core_new(uint64_t seed, const limits *limits)
{
    core *c = calloc(1, sizeof *c);
    if (!c) return NULL;
    c->seed = seed;
    c->limits = *limits;
    c->longest = limits->line < HEAD_MOST ? limits->line : HEAD_MOST;
    c->wide = !limits->baseline && machine_is_wide();
    c->waiting_free = NONE;
    c->epoch = 1; /* heads and series begin with 0: no cell yet */
    c->heads_mask = c->series_mask = c->metrics_mask = FIRST_SLOTS - 1;
    pthread_mutex_init(&c->mutex, NULL);
    c->heads = buckets_new(FIRST_SLOTS);
    c->series_slots = malloc(FIRST_SLOTS * sizeof *c->series_slots);
    c->metrics = calloc(FIRST_SLOTS, sizeof *c->metrics);
    c->open = interval_new();
    c->queue.room = limits->queue_bytes;
    c->queue.bytes = malloc(c->queue.room);
    if (!c->heads || !c->series_slots || !c->metrics || !c->open || !c->queue.bytes) {
        core_free(c);
        return NULL;
    }
    memset(c->series_slots, 0xff, FIRST_SLOTS * sizeof *c->series_slots);
    return c;
}

void core_free(core *core)
{
    if (!core) return;
    for (uint32_t n = 0; n < core->series_length; n++) free(core->series[n]);
    for (uint32_t n = 0; n < core->waiting_length; n++) {
        if (!core->waiting[n].cell) continue;
        cell_clear(core->waiting[n].cell);
        free(core->waiting[n].cell);
    }
    while (core->spills) {
        spill *next = core->spills->next;
        members_clear(&core->spills->members);
        free(core->spills);
        core->spills = next;
    }
    while (core->ended) {
        ended *next = core->ended->next;
        ended_free(core->ended);
        core->ended = next;
    }
    interval_free(core->open);
    free(core->heads);
    arena_clear(&core->head_texts);
    free(core->series_slots);
    free(core->series);
    free(core->free_numbers);
    free(core->metrics);
    free(core->waiting);
    free(core->queue.bytes);
    free(core->profiles);
    pthread_mutex_destroy(&core->mutex);
    free(core);
}

int core_add_profile(core *core, uint32_t number, profile given)
{
    if (number >= core->profiles_length) {
        uint32_t length = (number | 7) + 1;
        profile *larger = realloc(core->profiles, length * sizeof *larger);
        if (!larger) return 0;
        memset(larger + core->profiles_length, 0, (length - core->profiles_length) * sizeof *larger);
        core->profiles = larger;
        core->profiles_length = length;
    }
    core->profiles[number] = given;
    return 1;
}

/* -- heads ------------------------------------------------------------------------------------------------ */

static uint64_t head_hash(const core *core, const wanted *head)
{
#if defined(WIDE)
    if (core->wide) return hash_head_wide(key_wide(core->seed), head);
#endif
    return hash_head_plain(key_plain(core->seed), head);
}

static int same_head(const core *core, const head *one, const wanted *head)
{
    if (one->shape != head->shape) return 0;
#if defined(WIDE)
    if (core->wide) return same_head_wide(one->text, head);
#endif
    (void)core;
    return same_head_plain(one->text, head);
}

head *core_find_head(core *core, uint32_t profile, const char *name, size_t name_length, const char *tail,
                     size_t tail_length, uint64_t *hash)
{
    *hash = 0;
    if (name_length > HEAD_MOST || tail_length > HEAD_MOST) return NULL;
    const wanted of = {name, tail, name_length, tail_length, shape_of(profile, name_length, tail_length)};
    *hash = head_hash(core, &of);
    for (uint64_t at = *hash;; at += SLOTS) {
        const bucket *bucket = bucket_at(core, at);
        uint32_t empty, same = bucket_with(bucket, (uint32_t)*hash, &empty);
        for (; same; same &= same - 1) {
            head *found = head_at(core, bucket->head[__builtin_ctz(same)]);
            if (same_head(core, found, &of)) return found;
        }
        if (empty) return NULL;
    }
}

uint64_t core_slot(const core *core, uint64_t hash, const head *head)
{
    for (uint64_t at = home(hash, core->heads_mask);; at = (at + 1) & core->heads_mask)
        if (head_at(core, slots_head(core->heads, at)) == head) return at;
}

static void fill_slot(bucket *buckets, uint64_t mask, uint32_t hash, uint32_t head, uint32_t epoch, uint32_t cell)
{
    uint64_t at = home(hash, mask);
    while (slots_head(buckets, at)) at = (at + 1) & mask;
    set_slot(buckets, at, hash, head, epoch, cell);
}

static int grow_heads(core *core)
{
    uint64_t mask = core->heads_mask * 2 + 1;
    bucket *larger = buckets_new(mask + 1);
    if (!larger) return 0;
    for (uint64_t n = 0; n <= core->heads_mask; n++) {
        const bucket *from = &core->heads[n / SLOTS];
        unsigned slot = n % SLOTS;
        if (from->head[slot])
            fill_slot(larger, mask, from->hash[slot], from->head[slot], from->epoch[slot], from->cell[slot]);
    }
    free(core->heads);
    core->heads = larger;
    core->heads_mask = mask;
    return 1;
}

head *core_add_head(core *core, uint64_t hash, uint32_t profile, const char *name, size_t name_length,
                    const char *tail, size_t tail_length, int *full)
{
    *full = core->heads_used >= core->limits.heads || name_length > HEAD_MOST || tail_length > HEAD_MOST;
    if (*full || (crowded(core->heads_used, core->heads_mask) && !grow_heads(core))) return NULL;
    uint32_t place = arena_take(&core->head_texts, offsetof(head, text) + name_length + tail_length);
    if (!place) return NULL;
    head *made = head_at(core, place);
    *made = (head){.series = NONE,
                   .weight = 1.0,
                   .shape = shape_of(profile, name_length, tail_length),
                   .turn = core->turn,
                   .state = PENDING};
    memcpy(made->text, name, name_length);
    memcpy(made->text + name_length, tail, tail_length);
    fill_slot(core->heads, core->heads_mask, (uint32_t)hash, place, 0, 0);
    core->heads_used++;
    return made;
}

/* Closes the gap at a slot: whoever comes behind it and was pushed there by it moves up (Knuth 6.4 R). */
static void remove_head_slot(core *core, uint64_t gap)
{
    uint64_t mask = core->heads_mask;
    bucket *buckets = core->heads;
    uint32_t place = slots_head(buckets, gap);
    const head *one = head_at(core, place);
    arena_give(&core->head_texts, place, offsetof(head, text) + head_name_length(one) + head_tail_length(one));
    core->heads_used--;
    for (uint64_t at = (gap + 1) & mask; slots_head(buckets, at); at = (at + 1) & mask) {
        const bucket *from = &buckets[at / SLOTS];
        unsigned slot = at % SLOTS;
        if (((at - home(from->hash[slot], mask)) & mask) < ((at - gap) & mask)) continue;
        set_slot(buckets, gap, from->hash[slot], from->head[slot], from->epoch[slot], from->cell[slot]);
        gap = at;
    }
    set_slot(buckets, gap, 0, NOWHERE, 0, 0);
}

void core_forget_head(core *core, head *head)
{
    size_t name_length = head_name_length(head), tail_length = head_tail_length(head);
    const wanted of = {head->text, head->text + name_length, name_length, tail_length, head->shape};
    remove_head_slot(core, core_slot(core, head_hash(core, &of), head));
}

void core_touch(core *core, head *head)
{
    head->turn = core->turn;
    if (head->state < REFUSED) core->series[head->series]->turn = core->turn;
}

/* -- series ----------------------------------------------------------------------------------------------- */

/* The slot of a metric, or a free one. One whose count fell to 0 stays until the table grows. */
static metric_slot *metric_slot_of(metric_slot *slots, uint64_t mask, uint64_t hash)
{
    uint64_t at = hash;
    while (slots[at & mask].hash && slots[at & mask].hash != hash) at++;
    return &slots[at & mask];
}

static int grow_metrics(core *core)
{
    uint64_t live = 0, mask = FIRST_SLOTS - 1;
    for (uint64_t n = 0; n <= core->metrics_mask; n++) live += core->metrics[n].count != 0;
    while (crowded(live * 2, mask)) mask = mask * 2 + 1;
    metric_slot *made = calloc(mask + 1, sizeof *made);
    if (!made) return 0;
    for (uint64_t n = 0; n <= core->metrics_mask; n++)
        if (core->metrics[n].count) *metric_slot_of(made, mask, core->metrics[n].hash) = core->metrics[n];
    free(core->metrics);
    core->metrics = made;
    core->metrics_mask = mask;
    core->metrics_used = live;
    return 1;
}

/* 0 stands for a free slot. */
static uint64_t metric_hash(const core *core, const char *key, size_t metric_length)
{
    return hash_bytes(~core->seed, key, metric_length) | 1;
}

static series_slot *series_slot_of(core *core, uint32_t hash, const char *key, size_t length)
{
    for (uint64_t at = hash;; at++) {
        series_slot *slot = &core->series_slots[at & core->series_mask];
        if (slot->number == NONE) return slot;
        const series *one = core->series[slot->number];
        if (slot->hash == hash && one->key_length == length && !memcmp(one->key, key, length)) return slot;
    }
}

static int grow_series(core *core)
{
    uint64_t mask = core->series_mask * 2 + 1;
    series_slot *larger = malloc((mask + 1) * sizeof *larger);
    if (!larger) return 0;
    memset(larger, 0xff, (mask + 1) * sizeof *larger);
    for (uint64_t n = 0; n <= core->series_mask; n++) {
        if (core->series_slots[n].number == NONE) continue;
        uint64_t at = core->series_slots[n].hash;
        while (larger[at & mask].number != NONE) at++;
        larger[at & mask] = core->series_slots[n];
    }
    free(core->series_slots);
    core->series_slots = larger;
    core->series_mask = mask;
    return 1;
}

/* A number for a series; NONE without memory. Numbers of forgotten series are given again. */
static uint32_t take_number(core *core)
{
    if (core->free_length) return core->free_numbers[--core->free_length];
    if (core->series_length == core->series_room) {
        uint32_t room = core->series_room ? core->series_room + core->series_room / 8 : 1024;
        if (room >= NO_MEMORY - 8) return NONE;
        series **larger = realloc(core->series, room * sizeof *larger);
        if (!larger) return NONE;
        core->series = larger;
        core->series_room = room;
    }
    core->series[core->series_length] = NULL;
    return core->series_length++;
}

static void give_number_back(core *core, uint32_t number)
{
    if (core->free_length == core->free_room) {
        uint32_t room = core->free_room ? core->free_room * 2 : 1024;
        uint32_t *larger = realloc(core->free_numbers, room * sizeof *larger);
        if (!larger) return; /* the number is lost, not the series */
        core->free_numbers = larger;
        core->free_room = room;
    }
    core->free_numbers[core->free_length++] = number;
}

/* How many series of the metric there are: the tagged ones are counted, the other is there or not. So a
 * metric without tags, as most are, takes no slot. */
static uint64_t series_of_metric(core *core, const char *key, size_t metric_length)
{
    uint64_t tagged = metric_slot_of(core->metrics, core->metrics_mask, metric_hash(core, key, metric_length))->count;
    uint32_t hash = (uint32_t)hash_bytes(core->seed, key, metric_length);
    return tagged + (series_slot_of(core, hash, key, metric_length)->number != NONE);
}

static int count_tagged(core *core, const char *key, size_t metric_length)
{
    if (crowded(core->metrics_used, core->metrics_mask) && !grow_metrics(core)) return 0;
    uint64_t hash = metric_hash(core, key, metric_length);
    metric_slot *slot = metric_slot_of(core->metrics, core->metrics_mask, hash);
    core->metrics_used += !slot->hash;
    slot->hash = hash;
    slot->count++;
    return 1;
}

static void uncount_tagged(core *core, const series *one)
{
    uint64_t hash = metric_hash(core, one->key, one->metric_length);
    metric_slot_of(core->metrics, core->metrics_mask, hash)->count--;
}

uint32_t core_intern(core *core, const char *key, size_t length, size_t metric_length)
{
    uint32_t hash = (uint32_t)hash_bytes(core->seed, key, length);
    series_slot *slot = series_slot_of(core, hash, key, length);
    if (slot->number != NONE) {
        core->series[slot->number]->turn = core->turn;
        return slot->number;
    }
    if (core->series_used >= core->limits.series) return TOO_MANY_SERIES;
    if (series_of_metric(core, key, metric_length) >= core->limits.series_per_metric) return TOO_MANY_OF_METRIC;
    if (crowded(core->series_used, core->series_mask)) {
        if (!grow_series(core)) return NO_MEMORY;
        slot = series_slot_of(core, hash, key, length);
    }
    series *made = malloc(offsetof(series, key) + length);
    uint32_t number = made ? take_number(core) : NONE;
    if (number == NONE || (length != metric_length && !count_tagged(core, key, metric_length))) {
        if (number != NONE) give_number_back(core, number);
        free(made);
        return NO_MEMORY;
    }
    *made = (series){.cell = NONE,
                     .key_length = (uint32_t)length,
                     .metric_length = (uint16_t)metric_length,
                     .turn = core->turn};
    memcpy(made->key, key, length);
    core->series[number] = made;
    *slot = (series_slot){hash, number};
    core->series_used++;
    return number;
}

static void remove_series(core *core, uint32_t number)
{
    series *one = core->series[number];
    uint64_t mask = core->series_mask;
    uint32_t hash = (uint32_t)hash_bytes(core->seed, one->key, one->key_length);
    uint64_t gap = (uint64_t)(series_slot_of(core, hash, one->key, one->key_length) - core->series_slots);
    for (uint64_t at = (gap + 1) & mask; core->series_slots[at].number != NONE; at = (at + 1) & mask) {
        uint64_t home = core->series_slots[at].hash & mask;
        if (((at - home) & mask) < ((at - gap) & mask)) continue;
        core->series_slots[gap] = core->series_slots[at];
        gap = at;
    }
    core->series_slots[gap].number = NONE;
    if (one->key_length != one->metric_length) uncount_tagged(core, one);
    free(one);
    core->series[number] = NULL;
    core->series_used--;
    give_number_back(core, number);
}

/* -- forgetting ------------------------------------------------------------------------------------------- */

void core_turn(core *core) { core->turn++; }

/* A removal may move a later slot into this one, so it is looked at again; one that moves over the end of
 * the table to its start has been looked at there or will be in the next sweep. */
int core_sweep_heads(core *core, uint64_t *at)
{
    for (uint64_t seen = 0; *at <= core->heads_mask && seen < SWEPT; seen++) {
        uint32_t place = slots_head(core->heads, *at);
        const head *one = place ? head_at(core, place) : NULL;
        if (one && one->state != PENDING && forgotten(core, one->turn))
            remove_head_slot(core, *at);
        else
            ++*at;
    }
    return *at <= core->heads_mask;
}

int core_sweep_series(core *core, uint32_t *at, uint32_t *numbers, uint32_t *count)
{
    *count = 0;
    for (uint32_t seen = 0; *at < core->series_length && seen < SWEPT; seen++, ++*at) {
        if (!core->series[*at] || !forgotten(core, core->series[*at]->turn)) continue;
        numbers[(*count)++] = *at;
        remove_series(core, *at);
    }
    return *at < core->series_length;
}

uint64_t core_memory(const core *core)
{
    uint64_t bytes = (core->heads_mask + 1) / SLOTS * sizeof(bucket) + (core->series_mask + 1) * sizeof(series_slot) +
                     (core->metrics_mask + 1) * sizeof(metric_slot) + core->series_room * sizeof(series *);
    bytes += (uint64_t)core->head_texts.length * LARGE_PAGE;
    for (uint32_t n = 0; n < core->series_length; n++)
        if (core->series[n]) bytes += offsetof(series, key) + core->series[n]->key_length;
    return bytes;
}
