/* Budgets are token buckets: they fill by `rate` lines a second, up to one second's worth, and may be overdrawn
 * by one datagram. Times are milliseconds of Unix time; a clock that steps back adds nothing. */
#include "senders.h"

#include <netinet/in.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "hash.h"

enum {
    SLOTS = 65536,  /* a third full at most */
    IDLE = 600000,  /* milliseconds */
    SITE_BYTES = 8, /* of an IPv6 address */
};

typedef struct {
    address address; /* of IPv6 the site; family 0: an empty slot */
    int64_t at;      /* of the last filling */
    double credit;
} sender;

struct senders {
    pthread_mutex_t mutex;
    policy policy;
    network *networks; /* both lists */
    uint64_t seed;
    sender *slots;
    uint32_t used;
    int64_t swept; /* when the table was looked through */
    sender others; /* who stands for all that the table has no room for */
    uint64_t strangers;
    uint64_t dropped[DROPS][PLACES];
    named_drops named[MOST_NAMED];
    size_t named_length;
};

senders *senders_new(const policy *policy, uint64_t seed, int64_t now)
{
    size_t length = policy->allowed_length + policy->places_length;
    senders *made = calloc(1, sizeof *made);
    if (!made) return NULL;
    made->slots = calloc(SLOTS, sizeof *made->slots);
    made->networks = malloc((length + 1) * sizeof *made->networks);
    if (!made->slots || !made->networks) {
        senders_free(made);
        return NULL;
    }
    if (policy->allowed_length)
        memcpy(made->networks, policy->allowed, policy->allowed_length * sizeof *made->networks);
    if (policy->places_length)
        memcpy(made->networks + policy->allowed_length, policy->places,
               policy->places_length * sizeof *made->networks);
    pthread_mutex_init(&made->mutex, NULL);
    made->policy = *policy;
    made->policy.allowed = made->networks;
    made->policy.places = made->networks + policy->allowed_length;
    made->seed = seed;
    made->swept = now;
    made->others = (sender){.at = now, .credit = policy->rate};
    return made;
}

void senders_free(senders *senders)
{
    if (!senders) return;
    free(senders->slots);
    free(senders->networks);
    free(senders);
}

void senders_lock(senders *senders) { pthread_mutex_lock(&senders->mutex); }

void senders_unlock(senders *senders) { pthread_mutex_unlock(&senders->mutex); }

/* -- addresses --------------------------------------------------------------------------------------------- */

static address address_of(const struct sockaddr *peer)
{
    address found = {.family = 0};
    if (peer->sa_family == AF_INET) {
        memcpy(found.bytes, &((const struct sockaddr_in *)(const void *)peer)->sin_addr, 4);
        found.family = 4;
    } else if (peer->sa_family == AF_INET6) {
        memcpy(found.bytes, &((const struct sockaddr_in6 *)(const void *)peer)->sin6_addr, 16);
        found.family = 6;
    }
    return found;
}

static int is_in(const network *network, const address *address)
{
    size_t whole = network->bits / 8, rest = network->bits % 8;
    if (network->family != address->family || memcmp(network->bytes, address->bytes, whole)) return 0;
    return !rest || (network->bytes[whole] ^ address->bytes[whole]) >> (8 - rest) == 0;
}

static int is_allowed(const policy *policy, const address *address)
{
    for (size_t n = 0; n < policy->allowed_length; n++)
        if (is_in(&policy->allowed[n], address)) return 1;
    return !policy->allowed_length;
}

static int place_of(const policy *policy, const address *address)
{
    for (size_t n = 0; n < policy->places_length; n++)
        if (is_in(&policy->places[n], address)) return policy->places[n].place;
    return NO_PLACE;
}

/* -- the table ---------------------------------------------------------------------------------------------- */

static sender *slot_of(senders *senders, const address *site)
{
    uint64_t hash = hash_bytes(senders->seed, (const char *)site, sizeof *site);
    for (uint64_t at = hash;; at++) {
        sender *slot = &senders->slots[at % SLOTS];
        if (!slot->address.family || !memcmp(&slot->address, site, sizeof *site)) return slot;
    }
}

/* Forgets who has sent nothing for a while. Without memory to build the table anew it stays as it is. */
static void sweep(senders *senders, int64_t now)
{
    sender *before = senders->slots, *after = calloc(SLOTS, sizeof *after);
    senders->swept = now;
    if (!after) return;
    senders->slots = after;
    senders->used = 0;
    for (size_t n = 0; n < SLOTS; n++)
        if (before[n].address.family && now - before[n].at < IDLE) {
            *slot_of(senders, &before[n].address) = before[n];
            senders->used++;
        }
    free(before);
}

static sender *sender_of(senders *senders, address site, int64_t now)
{
    if (site.family == 6) memset(site.bytes + SITE_BYTES, 0, sizeof site.bytes - SITE_BYTES);
    if (now - senders->swept >= IDLE || now < senders->swept) sweep(senders, now);
    sender *found = slot_of(senders, &site);
    if (found->address.family) return found;
    if (senders->used >= MOST_SENDERS) {
        senders->strangers++;
        return &senders->others;
    }
    senders->used++;
    *found = (sender){.address = site, .at = now, .credit = senders->policy.rate};
    return found;
}

static void fill(sender *sender, double rate, int64_t now)
{
    if (sender->at == now) return;
    if (now > sender->at) sender->credit += (double)(now - sender->at) * rate / 1000;
    if (sender->credit > rate) sender->credit = rate;
    sender->at = now;
}

static uint64_t lines_in(const char *bytes, size_t length)
{
    uint64_t lines = length && bytes[length - 1] == '\n' ? 0 : 1;
    for (const char *at = bytes, *end = bytes + length; (at = memchr(at, '\n', (size_t)(end - at))); at++) lines++;
    return lines;
}

/* -- datagrams ---------------------------------------------------------------------------------------------- */

static void count_dropped(senders *senders, const address *address, enum drop why, uint64_t lines)
{
    senders->dropped[why][place_of(&senders->policy, address)] += lines;
    named_drops *named = senders->named, *end = named + senders->named_length;
    while (named < end && memcmp(&named->address, address, sizeof *address)) named++;
    if (named == end) {
        if (senders->named_length == MOST_NAMED) return;
        senders->named_length++;
        *named = (named_drops){.address = *address};
    }
    named->lines += lines;
}

int senders_admit(senders *senders, const struct sockaddr *peer, int64_t now, const char *bytes, size_t length)
{
    address address = address_of(peer);
    double rate = senders->policy.rate;
    if (!is_allowed(&senders->policy, &address)) {
        count_dropped(senders, &address, NOT_ALLOWED, lines_in(bytes, length));
        return 0;
    }
    if (!rate || !address.family) return 1;
    sender *from = sender_of(senders, address, now);
    uint64_t lines = lines_in(bytes, length);
    fill(from, rate, now);
    if (from->credit <= 0) {
        count_dropped(senders, &address, OVER_RATE, lines);
        return 0;
    }
    from->credit -= (double)lines;
    return 1;
}

uint64_t senders_dropped(const senders *senders, enum drop why, int place) { return senders->dropped[why][place]; }

size_t senders_named(const senders *senders, const named_drops **all)
{
    *all = senders->named;
    return senders->named_length;
}

uint64_t senders_strangers(const senders *senders) { return senders->strangers; }
