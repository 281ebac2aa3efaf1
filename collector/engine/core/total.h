/* The exact sum of any number of doubles, rounded once at the end: a small superaccumulator (Neal, "Fast exact
 * summation using small and large superaccumulators", 2015). Adding costs two integer additions, whatever came
 * before; the parts that `exact` (sums.h) keeps cost a dependent chain of floating-point operations each.
 *
 *     bits of the sum   ... 95        64 63        32 31         0     unit: 2^-1075
 *                           chunks[2]    chunks[1]    chunks[0]
 *
 * Each chunk stands for 32 bits and holds 64, so that carries can wait for a while. */
#ifndef COLLECTOR_TOTAL_H
#define COLLECTOR_TOTAL_H

#include <float.h>
#include <stdint.h>
#include <string.h>

/* The largest double ends at bit 2098; 64 bits above it hold the sum of 2^64 of them. */
enum { TOTAL_CHUNKS = 68 };

/* An addition raises a chunk by less than 2^52, and carrying leaves less than 2^33: so many fit 63 bits. */
enum { TOTAL_CARRY = 1024 };

typedef struct {
    int64_t chunks[TOTAL_CHUNKS];
} total;

/* Adds a finite number. After TOTAL_CARRY of them at the latest, call total_carry. */
static inline void total_add(total *sum, double value)
{
    uint64_t bits;
    memcpy(&bits, &value, sizeof bits);
    uint32_t exponent = (bits >> 52) & 0x7ff;
    uint64_t mantissa = bits & 0xfffffffffffff;
    if (exponent)
        mantissa |= 1ull << 52;
    else
        exponent = 1; /* a subnormal number, or zero */
    int64_t sign = (int64_t)bits >> 63; /* 0 or -1: x ^ sign - sign is x or -x */
    int64_t low = (int64_t)(mantissa << (exponent & 31) & 0xffffffff);
    int64_t high = (int64_t)(mantissa >> (32 - (exponent & 31)));
    int64_t *at = sum->chunks + (exponent >> 5);
    at[0] += (low ^ sign) - sign;
    at[1] += (high ^ sign) - sign;
}

/* Leaves 32 bits in each chunk, and what is more in the next. */
static inline void total_carry(total *sum)
{
    int64_t carry = 0;
    for (int n = 0; n < TOTAL_CHUNKS - 1; n++) {
        int64_t chunk = sum->chunks[n] + carry;
        carry = chunk >> 32; /* rounded down, of negative numbers too */
        sum->chunks[n] = chunk & 0xffffffff;
    }
    sum->chunks[TOTAL_CHUNKS - 1] += carry; /* the only one that may be negative: the sign of it all */
}

/* Adds a sum to another, both of them carried. */
static inline void total_merge(total *to, const total *from)
{
    for (int n = 0; n < TOTAL_CHUNKS; n++) to->chunks[n] += from->chunks[n];
    total_carry(to);
}

/* The sum of what was carried last, rounded to the nearest double; at most the largest one. */
double total_rounded(const total *sum);

#endif
