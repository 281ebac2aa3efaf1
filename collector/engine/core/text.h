/* Splitting lines, and hashing and comparing heads, in two ways: as any C compiler can, and with what x86 processors
 * have had since 2013 (AVX2, AES), which takes half the instructions. `core->wide` says which way a core goes; the
 * hashes of the two differ, so one core keeps to one.
 *
 * A block is what one register holds. The last block of a text is read so that it ends where the text ends; it
 * overlaps the one before it, or begins before the text does, and what does not belong to the text is masked away:
 *
 *     |a|p|i|.|l|a|t|e|n|c|y|:|2|3|1|"|"|m|s|       last_block(end, 2)
 *            \______________ 16 ____________/^end     -> |0|0|0|0|0|0|0|0|0|0|0|0|0|0|m|s|
 *
 * So nothing behind a text is ever read, and up to LEAD bytes before it are. */
#ifndef COLLECTOR_TEXT_H
#define COLLECTOR_TEXT_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "hash.h"

#if defined(__SSE2__)
#include <emmintrin.h>
#endif
#if defined(__x86_64__) && defined(__GNUC__)
#include <immintrin.h>
#define WIDE 1
#define IN_WIDE __attribute__((target("avx2,aes,bmi")))
#endif

/* Readable bytes before every text that comes in. In front of those of a Python `bytes` lies its own header:
 * reference count, type, size and hash. */
enum { LEAD = 32 };

/* A line's three marks:    name:value|tail\n
 *                              ^colon ^bar ^end  (or the end of the datagram) */
typedef struct {
    const char *colon, *bar, *end;
} marks;

/* A head as it is looked for. */
typedef struct {
    const char *name, *tail;
    size_t name_length, tail_length;
    uint64_t shape;
} wanted;

/* -- any machine ------------------------------------------------------------------------------------------- */

/* The first of up to three bytes in [at, end), or end. */
static inline const char *find_plain(const char *at, const char *end, char a, char b, char c)
{
#if defined(__SSE2__)
    const __m128i as = _mm_set1_epi8(a), bs = _mm_set1_epi8(b), cs = _mm_set1_epi8(c);
    for (; end - at >= 16; at += 16) {
        __m128i text = _mm_loadu_si128((const __m128i *)(const void *)at);
        __m128i hit = _mm_or_si128(_mm_or_si128(_mm_cmpeq_epi8(text, as), _mm_cmpeq_epi8(text, bs)),
                                   _mm_cmpeq_epi8(text, cs));
        unsigned mask = (unsigned)_mm_movemask_epi8(hit);
        if (mask) return at + __builtin_ctz(mask);
    }
#endif
    while (at < end && *at != a && *at != b && *at != c) at++;
    return at;
}

/* Whether the line at `at` has all marks, in this order. Its end is set in any case. */
static inline int split_plain(const char *at, const char *end, marks *of)
{
    of->colon = find_plain(at, end, ':', '|', '\n');
    of->bar = of->colon < end && *of->colon == ':' ? find_plain(of->colon + 1, end, '|', '\n', '\n') : end;
    int is_whole = of->bar < end && *of->bar == '|';
    of->end = find_plain(is_whole ? of->bar + 1 : of->colon, end, '\n', '\n', '\n');
    return is_whole;
}

static inline void leave_plain(void) {}

typedef uint64_t seeded_plain;
static inline seeded_plain key_plain(uint64_t seed) { return seed; }

static inline uint64_t hash_head_plain(seeded_plain seed, const wanted *head)
{
    uint64_t hash = hash_bytes(seed ^ head->shape * HASH_A, head->name, head->name_length);
    return hash_bytes(hash, head->tail, head->tail_length);
}

/* Whether the text of a head is what is wanted; its shape is. */
static inline int same_head_plain(const char *own, const wanted *head)
{
    return same_bytes(own, head->name, head->name_length) &&
           same_bytes(own + head->name_length, head->tail, head->tail_length);
}

#if defined(WIDE)

/* -- AVX2 and AES ------------------------------------------------------------------------------------------ */

/* Where three bytes are in a block of 32, a bit for each. */
typedef struct {
    uint32_t colons, bars, ends;
} spots;

IN_WIDE static inline uint32_t spots_of(__m256i text, char what)
{
    return (uint32_t)_mm256_movemask_epi8(_mm256_cmpeq_epi8(text, _mm256_set1_epi8(what)));
}

IN_WIDE static inline __m256i wide_block(const char *at)
{
    return _mm256_loadu_si256((const __m256i *)(const void *)at);
}

/* The same in the last `left` bytes before `end`, fewer than 32. */
IN_WIDE static inline uint32_t spots_before(const char *end, unsigned left, char what)
{
    return (uint32_t)((uint64_t)spots_of(wide_block(end - 32), what) >> (32 - left));
}

/* The block with the first mark of the line at `at`. The end of the datagram stands for the end of a line. */
IN_WIDE static inline const char *first_marks(const char *at, const char *end, spots *of)
{
    for (; end - at >= 32; at += 32) {
        __m256i text = wide_block(at);
        *of = (spots){spots_of(text, ':'), spots_of(text, '|'), spots_of(text, '\n')};
        if (of->colons | of->bars | of->ends) return at;
    }
    unsigned left = (unsigned)(end - at);
    *of = (spots){spots_before(end, left, ':'), spots_before(end, left, '|'),
                  spots_before(end, left, '\n') | 1u << left};
    return at;
}

IN_WIDE static inline const char *find_end_wide(const char *at, const char *end)
{
    for (; end - at >= 32; at += 32) {
        uint32_t ends = spots_of(wide_block(at), '\n');
        if (ends) return at + _tzcnt_u32(ends);
    }
    unsigned left = (unsigned)(end - at);
    return at + _tzcnt_u32(spots_before(end, left, '\n') | 1u << left);
}

/* _tzcnt_u32 gives 32 where there is no bit. */
IN_WIDE static inline int split_wide(const char *at, const char *end, marks *of)
{
    spots spots;
    const char *block = first_marks(at, end, &spots);
    uint32_t colon = _tzcnt_u32(spots.colons), bar = _tzcnt_u32(spots.bars), line_end = _tzcnt_u32(spots.ends);
    if (__builtin_expect(colon > bar || bar > line_end || bar == 32, 0)) return split_plain(at, end, of);
    of->colon = block + colon;
    of->bar = block + bar;
    of->end = line_end < 32 ? block + line_end : find_end_wide(block + 32, end);
    return 1;
}

/* Code that was not compiled for AVX runs many times slower while the upper halves of its registers are in use. */
IN_WIDE static inline void leave_wide(void) { _mm256_zeroupper(); }

typedef __m128i seeded_wide;
IN_WIDE static inline seeded_wide key_wide(uint64_t seed)
{
    return _mm_set_epi64x((long long)(seed * HASH_B), (long long)(seed ^ HASH_A));
}

IN_WIDE static inline __m128i block_at(const char *at) { return _mm_loadu_si128((const __m128i *)(const void *)at); }

/* The last `length` bytes before `end`, at most sixteen, with zeros before them. */
IN_WIDE static inline __m128i last_block(const char *end, size_t length)
{
    static const char MASKS[32] = {[16] = -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1};
    return _mm_and_si128(block_at(end - 16), block_at(MASKS + length));
}

/* Two rounds of AES a block: one would let the difference of one byte be undone by the next block with a chance of
 * 1 in 127, whatever the key; after two it is spread over all sixteen bytes. */
IN_WIDE static inline __m128i mixed(__m128i state, __m128i block, seeded_wide key)
{
    return _mm_aesenc_si128(_mm_aesenc_si128(state, block), key);
}

IN_WIDE static inline __m128i mixed_text(__m128i state, seeded_wide key, const char *at, size_t length)
{
    const char *last = at + length - 16;
    if (length <= 16) return mixed(state, last_block(at + length, length), key);
    for (state = mixed(state, block_at(at), key); (at += 16) < last;) state = mixed(state, block_at(at), key);
    return mixed(state, block_at(last), key);
}

IN_WIDE static inline uint64_t hash_head_wide(seeded_wide key, const wanted *head)
{
    __m128i state = _mm_xor_si128(key, _mm_cvtsi64_si128((long long)head->shape));
    state = mixed_text(state, key, head->name, head->name_length);
    state = mixed_text(state, key, head->tail, head->tail_length);
    return (uint64_t)_mm_cvtsi128_si64(_mm_aesenc_si128(state, key));
}

IN_WIDE static inline __m128i differing(const char *a, const char *b, size_t length)
{
    if (length <= 16) return _mm_xor_si128(last_block(a + length, length), last_block(b + length, length));
    size_t last = length - 16;
    __m128i differ = _mm_or_si128(_mm_xor_si128(block_at(a), block_at(b)),
                                  _mm_xor_si128(block_at(a + last), block_at(b + last)));
    for (size_t at = 16; at < last; at += 16)
        differ = _mm_or_si128(differ, _mm_xor_si128(block_at(a + at), block_at(b + at)));
    return differ;
}

IN_WIDE static inline int same_head_wide(const char *own, const wanted *head)
{
    __m128i differ = _mm_or_si128(differing(own, head->name, head->name_length),
                                  differing(own + head->name_length, head->tail, head->tail_length));
    return _mm_testz_si128(differ, differ);
}

static inline int machine_is_wide(void)
{
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("aes") && __builtin_cpu_supports("bmi");
}

#else
static inline int machine_is_wide(void) { return 0; }
#endif

#endif
