/* What cells are made of: exact sums, sets of members; sketches are in sketch.h. Nothing here takes a lock. */
#ifndef COLLECTOR_SUMS_H
#define COLLECTOR_SUMS_H

#include <stddef.h>
#include <stdint.h>

/* The sum of doubles without any rounding, as parts that do not overlap (Shewchuk, 1997; math.fsum has the
 * same). Sums need two or three parts unless their terms are far apart; 42 hold any of magnitude below 2^960. */
typedef struct {
    uint16_t length, room;
    double parts[];
} exact;

/* Below it no sum of 2^63 terms overflows. Larger numbers are Python's. */
#define EXACT_LIMIT 0x1p960

/* Adds a finite number of magnitude below EXACT_LIMIT; 0 without memory, with the sum unchanged. */
int exact_add(exact **sum, double value);

/* Distinct byte strings. Short ones, as nearly all are, stand in the table itself: one miss of the cache less.
 *
 *     | hash | length + 1, 0: free | up to 16 bytes, or where they are |
 */
enum { MEMBER_HERE = 16 };
typedef struct {
    uint32_t hash;
    uint32_t taken;
    union {
        char here[MEMBER_HERE];
        char *there;
    } text;
} member;
typedef struct {
    member *slots; /* NULL while there is none */
    uint32_t used, mask;
} members;

static inline uint32_t members_slots(const members *set) { return set->slots ? set->mask + 1 : 0; }
static inline size_t member_length(const member *one) { return one->taken - 1; }
static inline const char *member_text(const member *one)
{
    return member_length(one) <= MEMBER_HERE ? one->text.here : one->text.there;
}

/* 1 if it is new, 0 if it was there, -1 without memory. */
int members_add(members *set, uint32_t hash, const char *text, size_t length);
void members_clear(members *set); /* leaves it empty */

#endif
