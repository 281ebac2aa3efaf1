/* Samples as counts in bins, as collector/sketch has them: bin i takes what is above bound i - 1, up to bound i.
 * The bounds are Python's, so that no value falls into another bin here than there. Nothing here takes a lock. */
#ifndef COLLECTOR_SKETCH_H
#define COLLECTOR_SKETCH_H

#include <stddef.h>
#include <stdint.h>

#include "total.h"
#include "weighted.h"

/* Takes the upper bounds, ascending; to be called once, before any sketch is made. */
void sketch_bounds(const double *bounds, uint32_t length);

typedef struct {
    struct bins {
        uint32_t first, length; /* counts[n] is of bin first + n */
        uint64_t *counts;
    } positive, negative; /* by magnitude */
    uint64_t zero, count;
    double least, largest;
    total sum;
} sketch;

/* Adds finite values. 0 without memory: then some of them, from values[*done] on, are not in it. */
int sketch_add(sketch **made, const double *values, uint32_t length, uint32_t *done);
int sketch_merge(sketch *to, const sketch *from); /* 0 without memory */
void sketch_free(sketch *made);

/* Whether a sketch, each of its values `weight` times, can be written: a weight without a fraction, and no count
 * beyond the integers that a double holds. */
int sketch_fits(const sketch *made, double weight);
/* The same with weights, each of its values `weight` times. */
weighted *sketch_weigh(const sketch *made, double weight, roomy *room);
/* Writes it as collector/sketch draws it; the length. There must be room for sketch_most(). */
size_t sketch_encode(const sketch *made, double weight, uint8_t *to);
size_t sketch_most(const sketch *made);

#endif
