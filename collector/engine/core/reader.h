/* A thread that empties one datagram socket into the core, whatever Python is doing meanwhile. */
#ifndef COLLECTOR_READER_H
#define COLLECTOR_READER_H

#include <stdatomic.h>

#include "core.h"
#include "senders.h"

/* Counts only ever grow, and may be read at any time. */
typedef struct reader {
    core *core;
    int socket;
    int control; /* an eventfd: written to when `ending` has changed */
    int wake;    /* an eventfd of Python's: written to when the queue has something for it */
    uint32_t profile;
    size_t buffer;     /* bytes that the kernel holds for the socket, as it counts them; 0: never nap */
    atomic_int ending; /* 0: go on; 1: take what is there, then end; 2: end */
    atomic_int ended;
    atomic_uint_fast64_t packets, bytes, lines, naps, errors;
    pthread_t thread;
    int joined;
    struct batch *batch;
    senders *senders; /* NULL where it does not matter who sends; under the core's mutex */
} reader;

/* NULL, with errno set, if there is no memory or no thread. The socket stays the caller's. `policy` may be NULL. */
reader *reader_start(core *core, int socket, int wake, uint32_t profile, size_t buffer, const policy *policy);
/* Tells the thread to end, without waiting for it. */
void reader_end(reader *reader, int how);
/* Waits for the end of the thread, which must have been told. */
void reader_join(reader *reader);
/* Ends the thread if it has not ended yet, and frees all. */
void reader_free(reader *reader);

#endif
