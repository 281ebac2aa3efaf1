#include "number.h"

const double TENS[23] = {1e0,  1e1,  1e2,  1e3,  1e4,  1e5,  1e6,  1e7,  1e8,  1e9,  1e10, 1e11,
                              1e12, 1e13, 1e14, 1e15, 1e16, 1e17, 1e18, 1e19, 1e20, 1e21, 1e22};

static const uint64_t WHOLE_TENS[] = {1ull,
                                      10ull,
                                      100ull,
                                      1000ull,
                                      10000ull,
                                      100000ull,
                                      1000000ull,
                                      10000000ull,
                                      100000000ull,
                                      1000000000ull,
                                      10000000000ull,
                                      100000000000ull,
                                      1000000000000ull,
                                      10000000000000ull,
                                      100000000000000ull,
                                      1000000000000000ull,
                                      10000000000000000ull,
                                      100000000000000000ull,
                                      1000000000000000000ull,
                                      10000000000000000000ull};

enum { MOST_DIGITS = 19, MOST_EXPONENT_DIGITS = 4 };

/* 128 bits: two of 64 multiplied, or a decimal mantissa made long enough to be divided exactly. */
__extension__ typedef unsigned __int128 wide;

/* mantissa / 10^places, rounded to nearest, ties to even, for mantissa > 2^53 and places <= 19.
 *
 *     mantissa << 64         The numerator is above 2^117 and the divisor below 2^64, so the quotient has
 *     -------------- = q     54 bits or more: 53 to keep and one to round by. Whether anything follows
 *       10^places            those ("sticky") tells a tie from what only looks like one. */
static double divided(uint64_t mantissa, unsigned places)
{
    wide numerator = (wide)mantissa << 64;
    uint64_t divisor = WHOLE_TENS[places];
    wide quotient = numerator / divisor;
    int sticky = numerator % divisor != 0;
    uint64_t high = (uint64_t)(quotient >> 64);
    int bits = high ? 128 - __builtin_clzll(high) : 64 - __builtin_clzll((uint64_t)quotient);
    int shift = bits - 55; /* 53 bits, a rounding bit and one for sticky */
    uint64_t kept;
    if (shift > 0) {
        sticky |= (quotient & (((wide)1 << shift) - 1)) != 0;
        kept = (uint64_t)(quotient >> shift);
    } else {
        kept = (uint64_t)(quotient << -shift);
    }
    kept |= (uint64_t)sticky;
    uint64_t rest = kept & 3;
    kept >>= 2;
    kept += rest == 3 || (rest == 2 && (kept & 1));
    int exponent = shift + 2 - 64;
    /* Between 2^-11 and 2^64: a power of two by which multiplying is exact. */
    double scale = 1.0;
    for (int n = exponent; n < 0; n++) scale *= 0.5;
    for (int n = exponent; n > 0; n--) scale *= 2.0;
    return (double)kept * scale;
}

/* mantissa * 10^exponent where that can be had exactly; 0 where it cannot.
 * Up to 2^53 and 10^22 both operands are exact doubles, so the one operation rounds once (Clinger, 1990). */
static int scaled(uint64_t mantissa, int exponent, double *out)
{
    if (mantissa <= (1ull << 53)) {
        if (exponent < -22 || exponent > 22) {
            if (mantissa) return 0;
            exponent = 0;
        }
        *out = exponent < 0 ? (double)mantissa / TENS[-exponent] : (double)mantissa * TENS[exponent];
        return 1;
    }
    if (exponent > 0 || exponent < -MOST_DIGITS) return 0;
    *out = exponent ? divided(mantissa, (unsigned)-exponent) : (double)mantissa;
    return 1;
}

/* The digits after "e", with their sign; 0 if there are none or too many. */
static int exponent_scan(const char *at, const char *end, int *out)
{
    int negative = 0, value = 0;
    if (at < end && (*at == '+' || *at == '-')) negative = *at++ == '-';
    if (at == end || end - at > MOST_EXPONENT_DIGITS) return 0;
    for (; at < end; at++) {
        unsigned digit = (unsigned)(unsigned char)*at - '0';
        if (digit > 9) return 0;
        value = value * 10 + (int)digit;
    }
    *out = negative ? -value : value;
    return 1;
}

int number_digits(const char *at, size_t length, number *out)
{
    uint64_t integer = 0;
    if (!length || length > 18) return 0; /* 18 digits fit an int64 */
    for (const char *end = at + length; at < end; at++) {
        unsigned digit = (unsigned)(unsigned char)*at - '0';
        if (digit > 9) return 0;
        integer = integer * 10 + digit;
    }
    out->is_integer = 1;
    out->as.integer = (int64_t)integer;
    return 1;
}

int number_scan(const char *text, size_t length, number *out)
{
    const char *at = text, *end = text + length;
    int negative = 0, seen = 0, digits = 0, places = 0, exponent = 0, point = 0;
    uint64_t mantissa = 0;
    if (at < end && (*at == '+' || *at == '-')) negative = *at++ == '-';
    for (; at < end; at++) {
        unsigned digit = (unsigned)(unsigned char)*at - '0';
        if (digit <= 9) {
            seen = 1;
            digits += digits || digit; /* leading zeros take no room */
            if (digits > MOST_DIGITS) return 0;
            mantissa = mantissa * 10 + digit; /* 19 nines are below 2^64 */
            places += point;
        } else if (*at == '.' && !point) {
            point = 1;
        } else {
            break;
        }
        if (at - text > 4096) return 0; /* zeros without end: `places` stays small */
    }
    if (!seen) return 0;
    if (at == end && !point) {
        if (mantissa > (uint64_t)INT64_MAX) return 0;
        out->is_integer = 1;
        out->as.integer = negative ? -(int64_t)mantissa : (int64_t)mantissa;
        return 1;
    }
    if (at < end && ((*at != 'e' && *at != 'E') || !exponent_scan(at + 1, end, &exponent))) return 0;
    if (!scaled(mantissa, exponent - places, &out->as.real)) return 0;
    out->is_integer = 0;
    if (negative) out->as.real = -out->as.real;
    return 1;
}
