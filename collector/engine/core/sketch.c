#include "sketch.h"

#include <float.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

/* -- which bin ---------------------------------------------------------------------------------------------- */

/* The upper bits of a double, its exponent and six more, are the number of a cell: 64 cells an octave, so narrow
 * that no more than one bound lies inside of any.
 *
 *     cells    |    |    |    |    |    |          first[cell] is the first bin whose bound is not below the
 *     bounds     |      |      |      |            cell; one comparison tells whether it is that or the next
 */
enum { CELL_SHIFT = 52 - 6 };

static double *bounds;
static uint32_t last_bin;
static uint16_t *first;
static uint64_t lowest_cell, cells;

static uint64_t cell_number(double value)
{
    uint64_t bits;
    memcpy(&bits, &value, sizeof bits);
    return bits >> CELL_SHIFT;
}

static double cell_start(uint64_t number)
{
    double value;
    number <<= CELL_SHIFT;
    memcpy(&value, &number, sizeof value);
    return value;
}

void sketch_bounds(const double *given, uint32_t length)
{
    if (bounds) return;
    lowest_cell = cell_number(given[0]);
    cells = cell_number(given[length - 1]) - lowest_cell + 1;
    uint16_t *starts = malloc(cells * sizeof *starts);
    double *copy = malloc(length * sizeof *copy);
    if (!copy || !starts) {
        free(copy);
        free(starts);
        return;
    }
    memcpy(copy, given, length * sizeof *copy);
    uint32_t bin = 0;
    for (uint64_t cell = 0; cell < cells; cell++) {
        while (bin < length - 1 && given[bin] < cell_start(lowest_cell + cell)) bin++;
        starts[cell] = (uint16_t)bin;
    }
    last_bin = length - 1;
    first = starts;
    bounds = copy;
}

/* The first bin whose bound is not below a positive value; the last one takes all that is larger. */
static inline uint32_t bin_of(double value)
{
    uint64_t cell = cell_number(value) - lowest_cell;
    if (cell >= cells) return value < bounds[0] ? 0 : last_bin;
    uint32_t bin = first[cell];
    bin += bounds[bin] < value;
    return bin < last_bin ? bin : last_bin;
}

/* -- counting ----------------------------------------------------------------------------------------------- */

/* Makes the array span these bins; by octaves, so that it seldom grows. 0 without memory. */
static int span(struct bins *bins, uint32_t low, uint32_t high)
{
    if (low >= bins->first && high < bins->first + bins->length) return 1;
    uint32_t start = low & ~31u, end = (high | 31u) + 1;
    if (bins->length && bins->first < start) start = bins->first;
    if (bins->length && bins->first + bins->length > end) end = bins->first + bins->length;
    uint64_t *counts = calloc(end - start, sizeof *counts);
    if (!counts) return 0;
    if (bins->length) memcpy(counts + (bins->first - start), bins->counts, bins->length * sizeof *counts);
    free(bins->counts);
    *bins = (struct bins){start, end - start, counts};
    return 1;
}

/* What is found out about some values before any of them is counted: memory may not suffice. */
enum { BLOCK = 256 };
typedef struct {
    uint16_t bins[BLOCK];
    uint32_t low[2], high[2]; /* of the bins, of positive and negative values */
    double least, largest;
} block;

static void look(block *block, const double *values, uint32_t length)
{
    block->low[0] = block->low[1] = UINT32_MAX;
    block->high[0] = block->high[1] = 0;
    block->least = INFINITY;
    block->largest = -INFINITY;
    for (uint32_t n = 0; n < length; n++) {
        double value = values[n];
        /* As Python: of zeros that differ in sign the first is the least, the last is the largest. */
        if (value < block->least) block->least = value;
        if (value >= block->largest) block->largest = value;
        if (value == 0.0) continue;
        int side = value < 0.0;
        uint32_t bin = bin_of(fabs(value));
        block->bins[n] = (uint16_t)bin;
        if (bin < block->low[side]) block->low[side] = bin;
        if (bin > block->high[side]) block->high[side] = bin;
    }
}

static int reserve(sketch *s, const block *block)
{
    if (block->low[0] != UINT32_MAX && !span(&s->positive, block->low[0], block->high[0])) return 0;
    return block->low[1] == UINT32_MAX || span(&s->negative, block->low[1], block->high[1]);
}

static void count(sketch *s, const block *block, const double *values, uint32_t length)
{
    for (uint32_t n = 0; n < length; n++) {
        double value = values[n];
        total_add(&s->sum, value);
        if (value > 0.0)
            s->positive.counts[block->bins[n] - s->positive.first]++;
        else if (value < 0.0)
            s->negative.counts[block->bins[n] - s->negative.first]++;
        else
            s->zero++;
    }
    total_carry(&s->sum);
    s->count += length;
}

static void widen(sketch *s, double least, double largest)
{
    if (least < s->least) s->least = least;
    if (largest > s->largest) s->largest = largest;
}

int sketch_add(sketch **made, const double *values, uint32_t length, uint32_t *done)
{
    double least = INFINITY, largest = -INFINITY;
    *done = 0;
    if (!bounds) return 0;
    if (!*made) {
        *made = calloc(1, sizeof **made);
        if (!*made) return 0;
        (*made)->least = INFINITY;
        (*made)->largest = -INFINITY;
    }
    while (*done < length) {
        block some;
        uint32_t size = length - *done < BLOCK ? length - *done : BLOCK;
        look(&some, values + *done, size);
        if (!reserve(*made, &some)) break;
        count(*made, &some, values + *done, size);
        if (some.least < least) least = some.least;
        if (some.largest >= largest) largest = some.largest;
        *done += size;
    }
    widen(*made, least, largest);
    return *done == length;
}

static int merge_bins(struct bins *to, const struct bins *from)
{
    if (!from->length) return 1;
    if (!span(to, from->first, from->first + from->length - 1)) return 0;
    for (uint32_t n = 0; n < from->length; n++) to->counts[from->first - to->first + n] += from->counts[n];
    return 1;
}

int sketch_merge(sketch *to, const sketch *from)
{
    total_merge(&to->sum, &from->sum);
    to->zero += from->zero;
    to->count += from->count;
    widen(to, from->least, from->largest);
    return merge_bins(&to->positive, &from->positive) && merge_bins(&to->negative, &from->negative);
}

void sketch_free(sketch *made)
{
    if (!made) return;
    free(made->positive.counts);
    free(made->negative.counts);
    free(made);
}

/* -- with weights, and as bytes ----------------------------------------------------------------------------- */

static void weigh(const struct bins *bins, double weight, struct side *to)
{
    for (uint32_t n = 0; n < bins->length; n++) {
        if (!bins->counts[n]) continue;
        to->bins[to->length] = (uint16_t)(bins->first + n);
        to->weights[to->length++] = (double)bins->counts[n] * weight;
    }
}

weighted *sketch_weigh(const sketch *made, double weight, roomy *room)
{
    weighted *to = roomy_start(room);
    double sum = total_rounded(&made->sum) * weight;
    to->count = (double)made->count * weight;
    to->sum = fmin(fmax(sum, -DBL_MAX), DBL_MAX);
    to->least = made->least;
    to->largest = made->largest;
    to->zero = (double)made->zero * weight;
    weigh(&made->positive, weight, &to->sides[0]);
    weigh(&made->negative, weight, &to->sides[1]);
    return to;
}

int sketch_fits(const sketch *made, double weight)
{
    return weight >= 1.0 && weight <= 0x1p53 && weight == floor(weight) && (double)made->count * weight <= 0x1p53;
}

size_t sketch_most(const sketch *made)
{
    return weighted_most((size_t)made->positive.length + made->negative.length);
}

size_t sketch_encode(const sketch *made, double weight, uint8_t *to)
{
    roomy room;
    return weighted_write(sketch_weigh(made, weight, &room), to);
}
