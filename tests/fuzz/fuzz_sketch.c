/* Fuzzes what reads sketches, adds them up and writes them. An input is
 *
 *     byte 0     every so many-th copy is also scaled, and no copy has memory every so many-th time; 0: none
 *     the rest   sketches as they are stored; a byte with its length before each
 *
 * Besides the sanitizers, what holds of every sketch is checked: bins ascend, none is empty, and what is written
 * reads back as the same bytes. */
#include "target.h"

#include <math.h>
#include <stdint.h>
#include <string.h>

#include "weighted.h"

static size_t bins_of(const weighted *one) { return (size_t)one->sides[0].length + one->sides[1].length; }

static void check(const weighted *one)
{
    for (int n = 0; n < 2; n++) {
        const struct side *side = one->sides + n;
        CHECK(side->length <= BINS);
        for (uint32_t k = 0; k < side->length; k++) {
            CHECK(side->weights[k] > 0.0 && side->bins[k] < BINS);
            CHECK(!k || side->bins[k] > side->bins[k - 1]);
        }
    }
    int side;
    uint32_t bin = 0;
    for (double q = 0.001; q < 1.0; q += 0.333)
        if (weighted_rank(one, q, &side, &bin)) CHECK(side == 2 || bin < BINS);
}

/* Written, read, and written again: the same bytes. */
static void check_bytes(const weighted *one)
{
    static roomy room;
    static uint8_t again[1 << 17];
    size_t most = weighted_most(bins_of(one));
    uint8_t *bytes = malloc(most); /* no larger, so that a write beyond it is seen */
    size_t length = weighted_write(one, bytes);
    CHECK(length <= most && most <= sizeof again);
    CHECK(weighted_read(roomy_start(&room), bytes, length) == NO_FAULT);
    CHECK(weighted_write(&room.as, again) == length && !memcmp(bytes, again, length));
    free(bytes);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static roomy room;
    static tally sum;
    int begun = 0;
    unsigned copies = 0;
    weighted held;
    weighted_start(&held);
    if (!size) return 0;
    fail_every = data[0];
    for (const uint8_t *at = data + 1, *end = data + size; at < end;) {
        size_t length = *at++;
        if (length > (size_t)(end - at)) length = (size_t)(end - at);
        uint8_t *bytes = malloc(length + 1); /* of its own, so that a look beyond it is seen */
        memcpy(bytes, at, length);
        at += length;
        fault found = weighted_read(roomy_start(&room), bytes, length);
        free(bytes);
        if (found != NO_FAULT) continue;
        check(&room.as);
        check_bytes(&room.as);
        if (weighted_copy(&held, &room.as)) {
            CHECK(bins_of(&held) == bins_of(&room.as));
            if (fail_every && ++copies % fail_every == 0) weighted_scale(&held, 2.5);
        }
        check(&held);
        if (begun++)
            tally_add(&sum, &held);
        else
            tally_start(&sum, &held);
    }
    if (begun) {
        tally_take(&sum, roomy_start(&room));
        check(&room.as);
        if (!isnan(room.as.sum)) check_bytes(&room.as);
    }
    weighted_free(&held);
    return 0;
}
