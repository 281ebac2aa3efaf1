/* Sketches whose bins have weights, as collector/sketch has them: their bytes, and their sums. Bins are numbered from
 * 0, which is MIN_INDEX there. Nothing here takes a lock or allocates, but weighted_copy. */
#ifndef COLLECTOR_WEIGHTED_H
#define COLLECTOR_WEIGHTED_H

#include <stddef.h>
#include <stdint.h>

enum { BINS = 3329 }; /* MAX_INDEX - MIN_INDEX + 1 */

typedef struct {
    double count, sum, least, largest, zero;
    struct side {
        uint32_t length;
        uint16_t *bins; /* ascending */
        double *weights; /* none of them 0 */
    } sides[2];          /* the positive values, and the negative ones by magnitude */
} weighted;

void weighted_start(weighted *made); /* empty, without any memory */

/* One with room for all bins there are. */
typedef struct {
    weighted as;
    uint16_t bins[2][BINS];
    double weights[2][BINS];
} roomy;

weighted *roomy_start(roomy *room); /* an empty one in it */

/* A copy with memory of its own, no more than it needs; 0 without memory. What was in `to` is freed. */
int weighted_copy(weighted *to, const weighted *from);
void weighted_free(weighted *made);
void weighted_scale(weighted *made, double weight);
/* The bin of the value at rank ceil(q * count), 0 < q < 1; *side is 2 where it is zero itself. 0: there is none. */
int weighted_rank(const weighted *made, double q, int *side, uint32_t *bin);

/* What is wrong with bytes that are no sketch. */
typedef enum { NO_FAULT, CUT_SHORT, UNKNOWN, NUMBER_OUT_OF_RANGE, BIN_OUT_OF_ORDER, BYTES_AFTER } fault;

/* Reads a sketch out of whatever bytes, into room for all bins. */
fault weighted_read(weighted *to, const uint8_t *bytes, size_t length);
/* Writes it; the length, at most weighted_most() of the bins of both sides. */
size_t weighted_write(const weighted *made, uint8_t *to);
size_t weighted_most(size_t bins);

/* Sketches added up, each bin at its own place: adding costs as much as the bins that are added, and no more.
 *
 *     weights   0 0 0 0 2 0 7 1 0 3 0 0 0      all are 0 but those from low to high
 *                       |low      |high
 */
typedef struct {
    double count, sum, least, largest, zero;
    struct run {
        uint32_t low, high; /* low > high: none */
        double weights[BINS];
    } runs[2];
} tally;

void tally_start(tally *to, const weighted *first); /* for a tally that was used before, or is all zeros */
void tally_add(tally *to, const weighted *more);
void tally_take(const tally *from, weighted *to); /* into room for all bins */

#endif
