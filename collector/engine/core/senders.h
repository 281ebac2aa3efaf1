/* Who sends datagrams: which networks are heard, and how many lines each sender may still send.
 *
 *     address --> sender { credit, named }          of IPv6 the first 64 bits: one host may have all below
 *
 * Addresses can be forged, so the table is bounded: senders beyond it share one budget, and those that are known
 * keep theirs. Who has sent nothing for a while makes room, when the table is looked through every ten minutes.
 *
 * It belongs to one reader thread; it and whoever reads the counts hold its lock. */
#ifndef COLLECTOR_SENDERS_H
#define COLLECTOR_SENDERS_H

#include <stddef.h>
#include <stdint.h>
#include <sys/socket.h>

enum { NO_PLACE = 2, PLACES = 3 }; /* what `place` of a network may be: below PLACES */

typedef struct {
    uint8_t bytes[16]; /* of IPv4 the first four */
    uint8_t bits;
    uint8_t family; /* 4 or 6 */
    uint8_t place;  /* where its hosts are: what drops are counted by */
    uint8_t unused;
} network;

typedef struct {
    uint8_t bytes[16];
    uint8_t family; /* 4 or 6; 0: nothing is known of it */
} address;

typedef struct {
    const network *allowed; /* none: all are */
    size_t allowed_length;
    const network *places;
    size_t places_length;
    double rate; /* lines per second and sender; 0 without a limit */
} policy;

enum drop { TAKEN, NOT_ALLOWED, OVER_RATE, DROPS };

typedef struct {
    address address;
    uint64_t lines;
} named_drops;

enum { MOST_SENDERS = 20000, MOST_NAMED = 100 };

typedef struct senders senders;

senders *senders_new(const policy *policy, uint64_t seed, int64_t now); /* NULL without memory */
void senders_free(senders *senders);
void senders_lock(senders *senders);
void senders_unlock(senders *senders);
/* Whether a datagram is taken. Its lines are charged to its sender, or counted as dropped. */
int senders_admit(senders *senders, const struct sockaddr *peer, int64_t now, const char *bytes, size_t length);

uint64_t senders_dropped(const senders *senders, enum drop why, int place); /* lines */
size_t senders_named(const senders *senders, const named_drops **all);      /* of the first ones, one by one */
uint64_t senders_strangers(const senders *senders); /* times that there was no room to tell a sender apart */

#endif
