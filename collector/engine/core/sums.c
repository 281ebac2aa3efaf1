#include "sums.h"

#include <float.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

/* -- exact sums -------------------------------------------------------------------------------------------- */

static int exact_room(exact **sum)
{
    uint16_t room = *sum ? (uint16_t)((*sum)->room * 2) : 4;
    exact *larger = realloc(*sum, sizeof **sum + room * sizeof(double));
    if (!larger) return 0;
    if (!*sum) larger->length = 0;
    larger->room = room;
    *sum = larger;
    return 1;
}

/* Each part is added to what is carried, and leaves behind what the sum could not hold of the two:
 *
 *     high = a + b, rounded        low = what rounding took away, exactly (Dekker, 1971; |a| >= |b|)
 */
int exact_add(exact **sum, double value)
{
    if ((!*sum || (*sum)->length + 1 > (*sum)->room) && !exact_room(sum)) return 0;
    exact *s = *sum;
    uint16_t kept = 0;
    for (uint16_t n = 0; n < s->length; n++) {
        double a = value, b = s->parts[n];
        if (fabs(a) < fabs(b)) {
            double swap = a;
            a = b;
            b = swap;
        }
        double high = a + b;
        double low = b - (high - a);
        if (low != 0.0) s->parts[kept++] = low;
        value = high;
    }
    s->parts[kept++] = value;
    s->length = kept;
    return 1;
}

/* -- sketches ---------------------------------------------------------------------------------------------- */

static double *bounds;
static uint32_t bounds_length;

void sketch_bounds(const double *given, uint32_t length)
{
    if (bounds) return;
    bounds = malloc(length * sizeof *bounds);
    if (!bounds) return;
    memcpy(bounds, given, length * sizeof *bounds);
    bounds_length = length;
}

/* The first bin whose bound is not below the value; the last one takes all that is larger. */
static uint32_t bin_of(double value)
{
    uint32_t low = 0, high = bounds_length - 1;
    while (low < high) {
        uint32_t middle = (low + high) / 2;
        if (bounds[middle] < value)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

/* The count of a bin; NULL without memory. The array spans the bins that were needed, by octaves. */
static uint64_t *count_of(struct bins *bins, uint32_t bin)
{
    if (bin - bins->first >= bins->length) { /* also where it is below the first */
        uint32_t first = bin & ~31u, end = (bin | 31u) + 1;
        if (bins->length && bins->first < first) first = bins->first;
        if (bins->length && bins->first + bins->length > end) end = bins->first + bins->length;
        uint64_t *counts = calloc(end - first, sizeof *counts);
        if (!counts) return NULL;
        if (bins->length) memcpy(counts + (bins->first - first), bins->counts, bins->length * sizeof *counts);
        free(bins->counts);
        *bins = (struct bins){first, end - first, counts};
    }
    return &bins->counts[bin - bins->first];
}

static int sketch_one(sketch *s, double value)
{
    uint64_t *count = value == 0.0 ? &s->zero : count_of(value > 0 ? &s->positive : &s->negative, bin_of(fabs(value)));
    if (!count) return 0;
    if (fabs(value) >= EXACT_LIMIT)
        s->huge = fmin(fmax(s->huge + value, -DBL_MAX), DBL_MAX);
    else if (!exact_add(&s->sum, value))
        return 0;
    ++*count;
    s->count++;
    if (value < s->least) s->least = value;
    if (value > s->largest) s->largest = value;
    return 1;
}

int sketch_add(sketch **made, const double *values, uint32_t length, uint32_t *done)
{
    *done = 0;
    if (!bounds) return 0;
    if (!*made) {
        *made = calloc(1, sizeof **made);
        if (!*made) return 0;
        (*made)->least = INFINITY;
        (*made)->largest = -INFINITY;
    }
    for (; *done < length; ++*done)
        if (!sketch_one(*made, values[*done])) return 0;
    return 1;
}

static int merge_bins(struct bins *to, const struct bins *from)
{
    for (uint32_t n = 0; n < from->length; n++) {
        uint64_t *count = from->counts[n] ? count_of(to, from->first + n) : NULL;
        if (from->counts[n] && !count) return 0;
        if (count) *count += from->counts[n];
    }
    return 1;
}

int sketch_merge(sketch *to, const sketch *from)
{
    for (uint16_t n = 0; from->sum && n < from->sum->length; n++)
        if (!exact_add(&to->sum, from->sum->parts[n])) return 0;
    to->huge = fmin(fmax(to->huge + from->huge, -DBL_MAX), DBL_MAX);
    to->zero += from->zero;
    to->count += from->count;
    to->least = fmin(to->least, from->least);
    to->largest = fmax(to->largest, from->largest);
    return merge_bins(&to->positive, &from->positive) && merge_bins(&to->negative, &from->negative);
}

void sketch_free(sketch *made)
{
    if (!made) return;
    free(made->positive.counts);
    free(made->negative.counts);
    free(made->sum);
    free(made);
}

/* -- sets -------------------------------------------------------------------------------------------------- */

static member *free_slot(const members *set, uint32_t hash)
{
    while (set->slots[hash & set->mask].taken) hash++;
    return &set->slots[hash & set->mask];
}

static int members_grow(members *set)
{
    uint32_t before = members_slots(set), slots = before ? before * 2 : 8;
    members larger = {calloc(slots, sizeof(member)), set->used, slots - 1};
    if (!larger.slots) return 0;
    for (uint32_t n = 0; n < before; n++)
        if (set->slots[n].taken) *free_slot(&larger, set->slots[n].hash) = set->slots[n];
    free(set->slots);
    *set = larger;
    return 1;
}

int members_add(members *set, uint32_t hash, const char *text, size_t length)
{
    if ((uint64_t)set->used * 4 >= (uint64_t)members_slots(set) * 3 && !members_grow(set)) return -1;
    member *one;
    for (uint32_t at = hash;; at++) {
        one = &set->slots[at & set->mask];
        if (!one->taken) break;
        if (one->hash == hash && member_length(one) == length && !memcmp(member_text(one), text, length)) return 0;
    }
    char *to = one->text.here;
    if (length > MEMBER_HERE) {
        to = malloc(length);
        if (!to) return -1;
        one->text.there = to;
    }
    memcpy(to, text, length);
    one->hash = hash;
    one->taken = (uint32_t)length + 1;
    set->used++;
    return 1;
}

void members_clear(members *set)
{
    for (uint32_t n = 0; n < members_slots(set); n++)
        if (set->slots[n].taken && member_length(&set->slots[n]) > MEMBER_HERE) free(set->slots[n].text.there);
    free(set->slots);
    *set = (members){NULL, 0, 0};
}
