/* Numbers as StatsD writes them, read without a locale and without the C library's readers.
 *
 *     [+-] digits [. [digits]] [e [+-] digits]        or        [+-] . digits [e [+-] digits]
 *
 * `number_scan` either gives exactly what Python's int() and float() give for the same text, bit for bit,
 * or says that it cannot; it never gives something near. What it leaves is read in Python. */
#ifndef COLLECTOR_NUMBER_H
#define COLLECTOR_NUMBER_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

/* Without a point and an exponent a number is an integer, else a double; counters add the two apart. */
typedef struct {
    int is_integer;
    union {
        int64_t integer;
        double real;
    } as;
} number;

/* 1 if the whole of text[0..length) was read into *out, else 0. */
int number_scan(const char *text, size_t length, number *out);

/* The same for up to eighteen digits and nothing else. */
int number_digits(const char *text, size_t length, number *out);

extern const double TENS[23]; /* the powers of ten that a double holds exactly */

/* The same for what nearly all numbers are, without a loop: up to eight digits, a point among them or not.
 *
 *     word  |.|.|1|2|.|5|0|    the last eight bytes before `end`, the first of them in the lowest byte
 *           |0|0|0|1|2|5|0|    what is not the number's is cleared, the point is closed over: a row of digits
 *
 * Eight bytes before `end` may be read. 0 if it is anything else. */
enum { PLAIN_MOST = 8 };
static inline int number_plain(const char *at, const char *end, number *out)
{
    const uint64_t ones = 0x0101010101010101ull, point = ('.' ^ '0') * ones;
    size_t length = (size_t)(end - at);
    if (length == 1) { /* most counters */
        out->is_integer = 1;
        out->as.integer = (unsigned char)*at - '0';
        return (uint64_t)out->as.integer <= 9;
    }
    if (length - 1 >= PLAIN_MOST) return number_digits(at, length, out);
    uint64_t word;
    memcpy(&word, end - 8, sizeof word);
    uint64_t digits = (word ^ '0' * ones) & UINT64_MAX << 8 * (PLAIN_MOST - length);
    uint64_t other = digits ^ point, places = 0;
    uint64_t hit = (other - ones) & ~other & 0x80 * ones; /* the lowest bit that is set is right: the first point */
    if (hit) {
        unsigned byte = (unsigned)__builtin_ctzll(hit) & ~7u; /* the bit at which the byte begins */
        uint64_t below = (1ull << byte) - 1;
        places = 7 - byte / 8;
        digits = (digits & below) << 8 | (digits & ~below & ~(0xffull << byte));
    }
    if (((digits + 0x06 * ones) | digits) & 0xf0 * ones) return 0;
    /* Neighbours are joined: digits to pairs, pairs to fours, fours to eight (Lemire, 2022). */
    digits = (digits * 10 + (digits >> 8)) & 0x00ff00ff00ff00ffull;
    digits = (digits * 100 + (digits >> 16)) & 0x0000ffff0000ffffull;
    digits = (digits * 10000 + (digits >> 32)) & 0xffffffffull;
    out->is_integer = !hit;
    if (hit)
        out->as.real = (double)digits / TENS[places];
    else
        out->as.integer = (int64_t)digits;
    return 1;
}

static inline double number_real(number n) { return n.is_integer ? (double)n.as.integer : n.as.real; }

#endif
