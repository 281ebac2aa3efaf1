#include "weighted.h"

#include <float.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

/* As Python's comparisons have it, which matters for what is no number. */
static double saturated(double value)
{
    if (value < -DBL_MAX) return -DBL_MAX;
    return value > DBL_MAX ? DBL_MAX : value;
}

static inline void append(struct side *to, uint64_t bin, double weight)
{
    to->bins[to->length] = (uint16_t)bin;
    to->weights[to->length] = weight;
    to->length += weight != 0.0; /* else the next one takes its place */
}

void weighted_start(weighted *made) { *made = (weighted){.least = INFINITY, .largest = -INFINITY}; }

weighted *roomy_start(roomy *room)
{
    weighted_start(&room->as);
    for (int side = 0; side < 2; side++) {
        room->as.sides[side].bins = room->bins[side];
        room->as.sides[side].weights = room->weights[side];
    }
    return &room->as;
}

/* One piece of memory holds both sides, the weights first: they want the stricter alignment.
 *
 *     | weights of positive | of negative bins | positive bins | negative bins |
 *     '- sides[0].weights, and what is freed
 */
int weighted_copy(weighted *to, const weighted *from)
{
    size_t positive = from->sides[0].length, bins = positive + from->sides[1].length;
    double *weights = malloc(bins ? bins * (sizeof(double) + sizeof(uint16_t)) : 1);
    if (!weights) return 0;
    uint16_t *numbers = (uint16_t *)(weights + bins);
    weighted made = *from;
    for (int n = 0; n < 2; n++) {
        struct side *side = made.sides + n;
        side->weights = weights + (n ? positive : 0);
        side->bins = numbers + (n ? positive : 0);
        if (!side->length) continue;
        memcpy(side->weights, from->sides[n].weights, side->length * sizeof(double));
        memcpy(side->bins, from->sides[n].bins, side->length * sizeof(uint16_t));
    }
    weighted_free(to);
    *to = made;
    return 1;
}

void weighted_free(weighted *made)
{
    free(made->sides[0].weights);
    made->sides[0].weights = NULL;
}

void weighted_scale(weighted *made, double weight)
{
    made->count *= weight;
    made->sum = saturated(made->sum * weight);
    made->zero *= weight;
    for (int n = 0; n < 2; n++) {
        struct side *side = made->sides + n;
        uint32_t length = side->length;
        side->length = 0;
        for (uint32_t k = 0; k < length; k++) append(side, side->bins[k], side->weights[k] * weight);
    }
}

int weighted_rank(const weighted *made, double q, int *side, uint32_t *bin)
{
    const struct side *positive = made->sides, *negative = made->sides + 1;
    double rank = q * made->count * (1 - 1e-12), seen = 0.0; /* 0.07 * 100 is 7.000000000000001 and means 7 */
    *side = 1;
    for (uint32_t n = negative->length; n--;) {
        seen += negative->weights[n];
        *bin = negative->bins[n];
        if (seen >= rank) return 1;
    }
    *side = 2;
    seen += made->zero;
    if (made->zero != 0.0 && seen >= rank) return 1;
    *side = 0;
    for (uint32_t n = 0; n < positive->length; n++) {
        seen += positive->weights[n];
        *bin = positive->bins[n];
        if (seen >= rank) return 1;
    }
    return 0;
}

/* -- as bytes ----------------------------------------------------------------------------------------------- */

enum { VERSION = 1, FRACTIONAL = 1, DENSE = 2, FLAGS = FRACTIONAL | DENSE | DENSE << 1 };
enum { HEADER = 2 + 4 * 8, VARINT_MOST = 9 };

/* What is left to read. A fault stays: all that is read after it is 0. */
typedef struct {
    const uint8_t *at, *end;
    fault fault;
} source;

static uint64_t get_long_varint(source *from)
{
    uint64_t number = 0;
    for (int n = 0; n < VARINT_MOST; n++) {
        if (from->at == from->end) {
            from->fault = CUT_SHORT;
            return 0;
        }
        uint8_t byte = *from->at++;
        number |= (uint64_t)(byte & 0x7f) << 7 * n;
        if (byte < 0x80) return number;
    }
    from->fault = NUMBER_OUT_OF_RANGE;
    return 0;
}

static inline uint64_t get_varint(source *from)
{
    if (from->at < from->end && *from->at < 0x80) return *from->at++;
    return get_long_varint(from);
}

static double get_double(source *from)
{
    uint64_t bits = 0;
    double value;
    if (from->end - from->at < 8) {
        from->fault = CUT_SHORT;
        return 0.0;
    }
    for (int n = 0; n < 8; n++) bits |= (uint64_t)from->at[n] << 8 * n;
    from->at += 8;
    memcpy(&value, &bits, sizeof value);
    return value;
}

static inline double get_weight(source *from, int fractional)
{
    if (!fractional) return (double)get_varint(from);
    double weight = get_double(from);
    if (!(weight >= 0.0)) from->fault = NUMBER_OUT_OF_RANGE;
    return weight;
}

static void get_sparse(struct side *to, source *from, int fractional)
{
    uint64_t bin = 0, length = get_varint(from);
    for (uint64_t n = 0; n < length && !from->fault; n++) {
        uint64_t gap = get_varint(from); /* below 2^63, so the sum does not wrap */
        bin += gap;
        if (from->fault) return;
        if (bin >= BINS || (n && !gap)) {
            from->fault = BIN_OUT_OF_ORDER;
            return;
        }
        double weight = get_weight(from, fractional);
        if (!from->fault) append(to, bin, weight);
    }
}

static void get_dense(struct side *to, source *from, int fractional)
{
    uint64_t length = get_varint(from);
    uint64_t first = from->fault ? 0 : get_varint(from);
    if (from->fault) return;
    if (first + length > BINS) {
        from->fault = BIN_OUT_OF_ORDER;
        return;
    }
    for (uint64_t n = 0; n < length && !from->fault; n++) {
        double weight = get_weight(from, fractional);
        if (!from->fault) append(to, first + n, weight);
    }
}

fault weighted_read(weighted *to, const uint8_t *bytes, size_t length)
{
    source from = {bytes, bytes + length, NO_FAULT};
    if (length < HEADER) return CUT_SHORT;
    int version = *from.at++, flags = *from.at++, fractional = flags & FRACTIONAL;
    if (version != VERSION || flags & ~FLAGS) return UNKNOWN;
    to->count = get_double(&from);
    to->sum = get_double(&from);
    to->least = get_double(&from);
    to->largest = get_double(&from);
    if (!(to->count >= 0.0) || !isfinite(to->sum) || isnan(to->least) || isnan(to->largest))
        return NUMBER_OUT_OF_RANGE;
    to->zero = get_weight(&from, fractional);
    for (int side = 0; side < 2 && !from.fault; side++) {
        to->sides[side].length = 0;
        if (flags & DENSE << side)
            get_dense(to->sides + side, &from, fractional);
        else
            get_sparse(to->sides + side, &from, fractional);
    }
    if (!from.fault && from.at != from.end) return BYTES_AFTER;
    return from.fault;
}

static uint8_t *put_varint(uint8_t *to, uint64_t number)
{
    for (; number > 0x7f; number >>= 7) *to++ = (uint8_t)(number | 0x80);
    *to++ = (uint8_t)number;
    return to;
}

static uint8_t *put_double(uint8_t *to, double value)
{
    uint64_t bits;
    memcpy(&bits, &value, sizeof bits);
    for (int n = 0; n < 8; n++) *to++ = (uint8_t)(bits >> 8 * n);
    return to;
}

static uint8_t *put_weight(uint8_t *to, double weight, int fractional)
{
    return fractional ? put_double(to, weight) : put_varint(to, (uint64_t)weight);
}

static uint32_t varint_size(uint32_t number) { return number < 1 << 7 ? 1 : number < 1 << 14 ? 2 : 3; }

static int is_whole(double weight) { return weight >= 0.0 && weight <= 0x1p53 && weight == floor(weight); }

static int is_fractional(const weighted *made)
{
    int whole = is_whole(made->zero);
    for (int side = 0; side < 2; side++)
        for (uint32_t n = 0; n < made->sides[side].length && whole; n++) whole = is_whole(made->sides[side].weights[n]);
    return !whole;
}

/* The weights take as much in either form; what differs is what tells their bins. */
static int is_dense(const struct side *side, int fractional)
{
    if (!side->length) return 0;
    uint32_t first = side->bins[0], length = side->bins[side->length - 1] - first + 1u;
    uint32_t dense = varint_size(length) + (length - side->length) * (fractional ? 8 : 1);
    uint32_t sparse = varint_size(side->length);
    for (uint32_t n = 1; n < side->length; n++) sparse += varint_size((uint32_t)(side->bins[n] - side->bins[n - 1]));
    return dense < sparse;
}

static uint8_t *put_sparse(uint8_t *to, const struct side *side, int fractional)
{
    uint32_t before = 0;
    to = put_varint(to, side->length);
    for (uint32_t n = 0; n < side->length; n++) {
        to = put_varint(to, side->bins[n] - before);
        to = put_weight(to, side->weights[n], fractional);
        before = side->bins[n];
    }
    return to;
}

static uint8_t *put_dense(uint8_t *to, const struct side *side, int fractional)
{
    uint32_t bin = side->bins[0];
    to = put_varint(to, side->bins[side->length - 1] - bin + 1u);
    to = put_varint(to, bin);
    for (uint32_t n = 0; n < side->length; n++, bin++) {
        for (; bin < side->bins[n]; bin++) to = put_weight(to, 0.0, fractional);
        to = put_weight(to, side->weights[n], fractional);
    }
    return to;
}

size_t weighted_most(size_t bins)
{
    return HEADER + VARINT_MOST + 2 * 2 * 2 + bins * (2 + VARINT_MOST); /* the dense form is no longer */
}

size_t weighted_write(const weighted *made, uint8_t *to)
{
    uint8_t *start = to;
    int fractional = is_fractional(made);
    *to++ = VERSION;
    *to++ = fractional ? FRACTIONAL : 0;
    to = put_double(to, made->count);
    to = put_double(to, made->sum);
    to = put_double(to, made->least);
    to = put_double(to, made->largest);
    to = put_weight(to, made->zero, fractional);
    for (int n = 0; n < 2; n++) {
        const struct side *side = made->sides + n;
        if (is_dense(side, fractional)) {
            start[1] |= (uint8_t)(DENSE << n);
            to = put_dense(to, side, fractional);
        } else {
            to = put_sparse(to, side, fractional);
        }
    }
    return (size_t)(to - start);
}

/* -- added up ----------------------------------------------------------------------------------------------- */

void tally_start(tally *to, const weighted *first)
{
    to->count = first->count;
    to->sum = first->sum;
    to->least = first->least;
    to->largest = first->largest;
    to->zero = first->zero;
    for (int n = 0; n < 2; n++) {
        const struct side *side = first->sides + n;
        struct run *run = to->runs + n;
        if (run->low <= run->high)
            memset(run->weights + run->low, 0, (run->high - run->low + 1) * sizeof *run->weights);
        run->low = side->length ? side->bins[0] : BINS;
        run->high = side->length ? side->bins[side->length - 1] : 0;
        for (uint32_t k = 0; k < side->length; k++) run->weights[side->bins[k]] = side->weights[k];
    }
}

void tally_add(tally *to, const weighted *more)
{
    to->count += more->count;
    to->sum = saturated(to->sum + more->sum);
    if (more->least < to->least) to->least = more->least;
    if (more->largest > to->largest) to->largest = more->largest;
    to->zero += more->zero;
    for (int n = 0; n < 2; n++) {
        const struct side *side = more->sides + n;
        struct run *run = to->runs + n;
        if (!side->length) continue;
        if (side->bins[0] < run->low) run->low = side->bins[0];
        if (side->bins[side->length - 1] > run->high) run->high = side->bins[side->length - 1];
        for (uint32_t k = 0; k < side->length; k++) run->weights[side->bins[k]] += side->weights[k];
    }
}

void tally_take(const tally *from, weighted *to)
{
    to->count = from->count;
    to->sum = from->sum;
    to->least = from->least;
    to->largest = from->largest;
    to->zero = from->zero;
    for (int n = 0; n < 2; n++) {
        const struct run *run = from->runs + n;
        to->sides[n].length = 0;
        for (uint32_t bin = run->low; bin <= run->high; bin++) append(to->sides + n, bin, run->weights[bin]);
    }
}
