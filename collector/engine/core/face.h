/* What Cython cannot say: members of unnamed unions, and 128-bit numbers as two halves. */
#ifndef COLLECTOR_FACE_H
#define COLLECTOR_FACE_H

#include "core.h"
#include "reader.h"

static inline number number_of_integer(int64_t value) { return (number){1, {.integer = value}}; }
static inline number number_of_real(double value)
{
    number made = {.is_integer = 0};
    made.as.real = value;
    return made;
}

/* sum == high * 2^64 + low */
static inline int64_t sum_high(const cell *cell) { return (int64_t)(cell->as.sum.whole >> 64); }
static inline uint64_t sum_low(const cell *cell) { return (uint64_t)cell->as.sum.whole; }
static inline const exact *sum_fractions(const cell *cell) { return cell->as.sum.fractions; }

static inline int64_t gauge_integer(const cell *cell) { return cell->as.gauge.value.integer; }
static inline double gauge_real(const cell *cell) { return cell->as.gauge.value.real; }
static inline int64_t gauge_at(const cell *cell) { return cell->as.gauge.at; }
static inline int64_t move_high(const cell *cell) { return (int64_t)(cell->as.gauge.move.integer >> 64); }
static inline uint64_t move_low(const cell *cell) { return (uint64_t)cell->as.gauge.move.integer; }
static inline double move_real(const cell *cell) { return cell->as.gauge.move.real; }

static inline const double *samples_values(const cell *cell) { return cell->as.samples.values; }
static inline uint32_t samples_length(const cell *cell) { return cell->as.samples.length; }
/* The sketch of all samples of a cell that nobody adds to any more; NULL without memory. */
static inline const sketch *samples_fold(cell *cell) { return cell_fold(cell) ? cell->as.samples.sketch : NULL; }

static inline const members *set_members(const cell *cell) { return &cell->as.members; }

/* How often a count of a reader was raised. */
static inline uint64_t reader_count(reader *reader, int which)
{
    atomic_uint_fast64_t *counts[] = {&reader->packets, &reader->bytes, &reader->lines, &reader->naps, &reader->errors};
    return atomic_load_explicit(counts[which], memory_order_relaxed);
}
static inline int reader_has_ended(reader *reader) { return atomic_load(&reader->ended); }

#endif
