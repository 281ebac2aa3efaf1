#include "sums.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "hash.h"

/* -- exact sums -------------------------------------------------------------------------------------------- */

static int exact_room(exact **sum)
{
    uint16_t room = *sum ? (uint16_t)((*sum)->room * 2) : 4;
    exact *larger = realloc(*sum, sizeof **sum + room * sizeof(double));
    if (!larger) return 0;
    if (!*sum) larger->length = 0;
    larger->room = room;
    *sum = larger;
    return 1;
}

/* Each part is added to what is carried, and leaves behind what the sum could not hold of the two:
 *
 *     high = a + b, rounded        low = what rounding took away, exactly (Dekker, 1971; |a| >= |b|)
 */
int exact_add(exact **sum, double value)
{
    if ((!*sum || (*sum)->length + 1 > (*sum)->room) && !exact_room(sum)) return 0;
    exact *s = *sum;
    uint16_t kept = 0;
    for (uint16_t n = 0; n < s->length; n++) {
        double a = value, b = s->parts[n];
        if (fabs(a) < fabs(b)) {
            double swap = a;
            a = b;
            b = swap;
        }
        double high = a + b;
        double low = b - (high - a);
        if (low != 0.0) s->parts[kept++] = low;
        value = high;
    }
    s->parts[kept++] = value;
    s->length = kept;
    return 1;
}

/* -- sets -------------------------------------------------------------------------------------------------- */

static member *free_slot(const members *set, uint32_t hash)
{
    while (set->slots[hash & set->mask].taken) hash++;
    return &set->slots[hash & set->mask];
}

static int members_grow(members *set)
{
    uint32_t before = members_slots(set), slots = before ? before * 2 : 8;
    members larger = {calloc(slots, sizeof(member)), set->used, slots - 1};
    if (!larger.slots) return 0;
    for (uint32_t n = 0; n < before; n++)
        if (set->slots[n].taken) *free_slot(&larger, set->slots[n].hash) = set->slots[n];
    free(set->slots);
    *set = larger;
    return 1;
}

int members_add(members *set, uint32_t hash, const char *text, size_t length)
{
    if ((uint64_t)set->used * 4 >= (uint64_t)members_slots(set) * 3 && !members_grow(set)) return -1;
    member *one;
    for (uint32_t at = hash;; at++) {
        one = &set->slots[at & set->mask];
        if (!one->taken) break;
        if (one->hash == hash && member_length(one) == length && same_bytes(member_text(one), text, length)) return 0;
    }
    char *to = one->text.here;
    if (length > MEMBER_HERE) {
        to = malloc(length);
        if (!to) return -1;
        one->text.there = to;
    }
    memcpy(to, text, length);
    one->hash = hash;
    one->taken = (uint32_t)length + 1;
    set->used++;
    return 1;
}

void members_clear(members *set)
{
    for (uint32_t n = 0; n < members_slots(set); n++)
        if (set->slots[n].taken && member_length(&set->slots[n]) > MEMBER_HERE) free(set->slots[n].text.there);
    free(set->slots);
    *set = (members){NULL, 0, 0};
}
