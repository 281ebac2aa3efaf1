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

/* The same for what nearly all numbers are, without a loop: up to eight digits, a point among them or not.
 *
 *     word  |.|.|1|2|.|5|0|    the last eight bytes before `end`, the first of them in the lowest byte
 *           |0|0|0|1|2|5|0|    what is not the number's is cleared, the point is closed over: a row of digits
 *
 * `word` holds the number's last character in its highest byte. 0 if it is anything else. */
enum { PLAIN_MOST = 8 };
int number_plain(uint64_t word, size_t length, number *out);

static inline double number_real(number n) { return n.is_integer ? (double)n.as.integer : n.as.real; }

#endif
