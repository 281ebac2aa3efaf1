#include "total.h"

#include <math.h>

/* Turns a negative sum into its magnitude; whether it was one. */
static int take_sign(total *sum)
{
    if (sum->chunks[TOTAL_CHUNKS - 1] >= 0) return 0;
    for (int n = 0; n < TOTAL_CHUNKS; n++) sum->chunks[n] = -sum->chunks[n];
    total_carry(sum);
    return 1;
}

double total_rounded(const total *given)
{
    total sum = *given;
    int negative = take_sign(&sum), top = TOTAL_CHUNKS - 1;
    while (top > 2 && !sum.chunks[top]) top--;

    /* The upper three chunks hold the upper 64 bits wherever those begin; any bit that is left out marks the
     * lowest of them, so that the one rounding, from 64 bits to 53, knows of it. */
    __extension__ unsigned __int128 bits = 0;
    for (int n = top; n > top - 3; n--) bits = bits << 32 | (uint64_t)sum.chunks[n];
    int lost = 0, exponent = 32 * (top - 2) - 1075;
    for (int n = top - 3; n >= 0; n--) lost |= sum.chunks[n] != 0;
    while (bits >> 64) {
        lost |= bits & 1;
        bits >>= 1;
        exponent++;
    }
    double rounded = ldexp((double)((uint64_t)bits | (uint64_t)lost), exponent);
    rounded = fmin(rounded, DBL_MAX);
    return negative ? -rounded : rounded;
}
