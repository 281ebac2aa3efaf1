/* The hash of heads, series and members: seeded at each start, so that no sender can choose names that fall
 * into one place. Where it decides anything, the bytes are compared as well. */
#ifndef COLLECTOR_HASH_H
#define COLLECTOR_HASH_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "words are read lowest byte first; else Python's engine runs");

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

/* Up to eight bytes as a number, the first one lowest. */
static inline uint64_t hash_short(const char *text, size_t length)
{
    if (length == 8) return hash_load8(text);
    if (length >= 4) return hash_load4(text) | hash_load4(text + length - 4) << 8 * (length - 4);
    uint64_t word = 0;
    while (length) word = word << 8 | (unsigned char)text[--length];
    return word;
}

/* memcmp for short texts that are nearly always equal: without the call, which takes longer than they do. */
static inline int same_bytes(const char *a, const char *b, size_t length)
{
    if (length <= 8) return hash_short(a, length) == hash_short(b, length);
    size_t first = length < 16 ? 0 : length - 16; /* of the last sixteen, or all that there are */
    uint64_t differ = (hash_load8(a + first) ^ hash_load8(b + first)) |
                      (hash_load8(a + length - 8) ^ hash_load8(b + length - 8));
    for (size_t at = 0; at < first; at += 16)
        differ |= (hash_load8(a + at) ^ hash_load8(b + at)) | (hash_load8(a + at + 8) ^ hash_load8(b + at + 8));
    return !differ;
}

/* Both factors hold the seed: nobody can send a zero. Sixteen bytes a round; the last round may read some bytes a
 * second time, never one outside the text. */
static inline uint64_t hash_bytes(uint64_t seed, const char *text, size_t length)
{
    uint64_t hash = seed ^ length * HASH_B, first, second = 0;
    if (length > 8) {
        const char *end = text + length;
        for (; end - text > 16; text += 16) hash = hash_mix(hash_load8(text) ^ hash, hash_load8(text + 8) ^ seed);
        first = length >= 16 ? hash_load8(end - 16) : hash_load8(text);
        second = hash_load8(end - 8);
    } else {
        first = hash_short(text, length);
    }
    return hash_mix(first ^ hash, second ^ seed ^ HASH_B);
}

#endif
