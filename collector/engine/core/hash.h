/* The hash of heads, series and members: seeded at each start, so that no sender can choose names that fall
 * into one place. Where it decides anything, the bytes are compared as well. */
#ifndef COLLECTOR_HASH_H
#define COLLECTOR_HASH_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

/* Odd numbers with as many ones as zeros, without a pattern: digits of pi. */
#define HASH_A 0x243f6a8885a308d3ull
#define HASH_B 0x13198a2e03707345ull

static inline uint64_t hash_load8(const char *from)
{
    uint64_t word;
    memcpy(&word, from, sizeof word);
    return word;
}

static inline uint64_t hash_load4(const char *from)
{
    uint32_t word;
    memcpy(&word, from, sizeof word);
    return word;
}

/* Both halves of a product, folded: each bit of the result depends on all bits of both. */
static inline uint64_t hash_mix(uint64_t a, uint64_t b)
{
    __extension__ unsigned __int128 product = (unsigned __int128)a * b;
    return (uint64_t)product ^ (uint64_t)(product >> 64);
}

/* Both factors hold the seed: nobody can send a zero. Sixteen bytes a round; the last round may read some bytes a second time, never one outside the text. */
static inline uint64_t hash_bytes(uint64_t seed, const char *text, size_t length)
{
    uint64_t hash = seed ^ length * HASH_B, first, second;
    const char *at = text;
    size_t left = length;
    for (; left > 16; at += 16, left -= 16)
        hash = hash_mix(hash_load8(at) ^ hash, hash_load8(at + 8) ^ seed);
    if (left >= 8) {
        first = hash_load8(at);
        second = hash_load8(at + left - 8);
    } else if (left >= 4) {
        first = hash_load4(at);
        second = hash_load4(at + left - 4);
    } else if (left) {
        first = (uint64_t)(unsigned char)at[0] << 16 | (uint64_t)(unsigned char)at[left / 2] << 8 |
                (unsigned char)at[left - 1];
        second = 0;
    } else {
        first = second = 0;
    }
    return hash_mix(first ^ hash, second ^ seed ^ HASH_B);
}

static inline uint64_t hash_head(uint64_t seed, uint32_t profile, const char *name, size_t name_length,
                                 const char *tail, size_t tail_length)
{
    return hash_bytes(hash_bytes(seed ^ profile * HASH_A, name, name_length), tail, tail_length);
}

#endif
