/*     poll -> recvmmsg (64 datagrams) -> core_feed_queued under the mutex -> nap, or again
 *
 * Where datagrams are few, being woken for each costs more than receiving it. So after a batch that was less
 * than half full the thread naps for a millisecond and lets them gather, if the socket's buffer can surely hold
 * what comes meanwhile.
 *
 * The kernel takes a fifteenth of the time of a small datagram to say whom it is from, and that matters only for lines
 * that are refused. So while batches are full and no line was refused of late, senders are not asked for. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "reader.h"

#include <errno.h>
#include <stdlib.h>

#if defined(__linux__)

#include <poll.h>
#include <signal.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum {
    BATCH = 64,
    LARGEST = 65536, /* no UDP datagram is longer: 65507 bytes over IPv4 */
    STRIDE = LARGEST + 4096 + 192, /* so that the starts of buffers do not share a set of the cache */
    NAP = 1000000,   /* nanoseconds */
    NAP_ROOM = 4,    /* naps that the buffer must hold at the rate of the last batch */
    OVERHEAD = 1024, /* bytes that the kernel counts for a datagram beside its own, about */
    SMALLEST = 512,  /* bytes that it counts for an empty one, at least */
    OF_LATE = 10000, /* milliseconds */
};

struct batch {
    struct mmsghdr headers[BATCH];
    struct iovec vectors[BATCH];
    struct sockaddr_storage senders[BATCH];
    datagram datagrams[BATCH];
    feeder feeder;
    char *bytes;
    uint64_t held; /* by the kernel for what was received since the last nap */
    int64_t doubtful_at; /* when a line came last that Python may refuse, in milliseconds */
    int asks; /* who the senders are */
};

static int64_t clock_of(clockid_t which)
{
    struct timespec now;
    clock_gettime(which, &now);
    return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

/* The part of a datagram that was received whole: without the line at which a buffer was full. */
static size_t whole_lines(const char *bytes, size_t length)
{
    while (length && bytes[length - 1] != '\n') length--;
    return length;
}

static void wake_python(reader *reader)
{
    uint64_t one = 1;
    if (reader->core->woken || !reader->core->queue.pieces) return;
    reader->core->woken = write(reader->wake, &one, sizeof one) == sizeof one;
}

static const sa_family_t NOT_ASKED = AF_UNSPEC; /* stands for a sender's address */

/* The datagrams of a batch that are to be read; how many. */
static size_t admit(reader *reader, int count, uint64_t *cut)
{
    struct batch *batch = reader->batch;
    size_t admitted_count = 0;
    int64_t now = clock_of(CLOCK_REALTIME) / 1000000;
    if (reader->senders) senders_lock(reader->senders);
    for (int n = 0; n < count; n++) {
        const struct msghdr *header = &batch->headers[n].msg_hdr;
        const char *bytes = batch->vectors[n].iov_base;
        size_t length = batch->headers[n].msg_len;
        batch->held += length + OVERHEAD;
        if (reader->senders && !senders_admit(reader->senders, header->msg_name, now, bytes, length)) continue;
        if (header->msg_flags & MSG_TRUNC) {
            ++*cut;
            length = whole_lines(bytes, length);
        }
        batch->datagrams[admitted_count++] = batch->asks
                                                 ? (datagram){bytes, length, header->msg_name, header->msg_namelen}
                                                 : (datagram){bytes, length, &NOT_ASKED, sizeof NOT_ASKED};
    }
    if (reader->senders) senders_unlock(reader->senders);
    return admitted_count;
}

/* Decides whether the senders of the next batch are asked for; a policy needs them always. */
static void ask(reader *reader, int asks)
{
    struct batch *batch = reader->batch;
    asks |= reader->senders != NULL;
    if (asks == batch->asks) return;
    batch->asks = asks;
    for (int n = 0; n < BATCH; n++) batch->headers[n].msg_hdr.msg_name = asks ? &batch->senders[n] : NULL;
}

static void take_batch(reader *reader, int count)
{
    struct batch *batch = reader->batch;
    uint64_t cut = 0, before = batch->held;
    size_t admitted_count = admit(reader, count, &cut);
    batch->feeder.lines = 0;
    if (admitted_count) {
        int64_t now = clock_of(CLOCK_REALTIME) / 1000000;
        pthread_mutex_lock(&reader->core->mutex);
        reader->core->truncated += cut;
        reader->core->news += cut;
        core_keep_time(reader->core, now);
        feeder_start(&batch->feeder, reader->profile, batch->datagrams, admitted_count, now);
        core_feed_queued(reader->core, &batch->feeder);
        wake_python(reader);
        pthread_mutex_unlock(&reader->core->mutex);
        if (batch->feeder.doubtful) batch->doubtful_at = now;
        ask(reader, count < BATCH || now - batch->doubtful_at < OF_LATE);
    }
    uint64_t bytes = batch->held - before - (uint64_t)count * OVERHEAD;
    atomic_fetch_add_explicit(&reader->packets, (uint64_t)count, memory_order_relaxed);
    atomic_fetch_add_explicit(&reader->bytes, bytes, memory_order_relaxed);
    atomic_fetch_add_explicit(&reader->lines, batch->feeder.lines + cut, memory_order_relaxed);
}

static int receive(reader *reader)
{
    struct batch *batch = reader->batch;
    for (int n = 0; n < BATCH && batch->asks; n++) batch->headers[n].msg_hdr.msg_namelen = sizeof batch->senders[n];
    return recvmmsg(reader->socket, batch->headers, BATCH, MSG_DONTWAIT, NULL);
}

/* Naps if the kernel can hold what comes during some naps at the rate since the last one. */
static int64_t nap(reader *reader, int64_t since)
{
    int64_t now = clock_of(CLOCK_MONOTONIC), passed = now - since;
    uint64_t held = reader->batch->held;
    reader->batch->held = 0;
    if (passed < NAP / 100) passed = NAP / 100;
    if (held * NAP_ROOM * NAP / (uint64_t)passed > reader->buffer) return now;
    nanosleep(&(struct timespec){.tv_nsec = NAP}, NULL);
    atomic_fetch_add_explicit(&reader->naps, 1, memory_order_relaxed);
    return now;
}

static void wait_for_datagrams(reader *reader)
{
    struct pollfd of[] = {{.fd = reader->socket, .events = POLLIN}, {.fd = reader->control, .events = POLLIN}};
    poll(of, 2, -1);
}

static void *run(void *argument)
{
    reader *reader = argument;
    int64_t since = clock_of(CLOCK_MONOTONIC);
    ask(reader, 1);
    /* A stop takes what the kernel holds by then: datagrams come in order, so as many as fit its buffer. To a
     * unix socket nobody can add any more. */
    uint64_t left = reader->buffer ? reader->buffer / SMALLEST + 1 : UINT64_MAX;
    for (int ending; (ending = atomic_load(&reader->ending)) < 2 && left;) {
        int count = receive(reader);
        if (count > 0) {
            take_batch(reader, count);
            if (ending)
                left = left > (uint64_t)count ? left - (uint64_t)count : 0;
            else if (count < BATCH / 2)
                since = nap(reader, since);
        } else if (errno == EAGAIN || errno == EWOULDBLOCK) {
            if (ending) break;
            wait_for_datagrams(reader);
        } else if (errno != EINTR) { /* an ICMP error of an earlier peer; the socket lives on */
            atomic_fetch_add_explicit(&reader->errors, 1, memory_order_relaxed);
            if (ending) left--;
            if (errno != ECONNREFUSED) nanosleep(&(struct timespec){.tv_nsec = NAP}, NULL);
        }
    }
    atomic_store(&reader->ended, 1);
    return NULL;
}

static struct batch *batch_new(void)
{
    struct batch *batch = calloc(1, sizeof *batch);
    if (!batch) return NULL;
    batch->bytes = aligned_alloc(LINE, (size_t)STRIDE * BATCH);
    if (!batch->bytes) {
        free(batch);
        return NULL;
    }
    for (int n = 0; n < BATCH; n++) {
        batch->vectors[n] = (struct iovec){batch->bytes + (size_t)STRIDE * (size_t)n + LEAD, LARGEST};
        batch->headers[n].msg_hdr = (struct msghdr){.msg_iov = &batch->vectors[n], .msg_iovlen = 1};
    }
    return batch;
}

static void reader_discard(reader *reader)
{
    if (reader->control >= 0) close(reader->control);
    senders_free(reader->senders);
    if (reader->batch) free(reader->batch->bytes);
    free(reader->batch);
    free(reader);
}

reader *reader_start(core *core, int socket, int wake, uint32_t profile, size_t buffer, const policy *policy)
{
    reader *made = calloc(1, sizeof *made);
    if (!made) return NULL;
    made->core = core;
    made->socket = socket;
    made->wake = wake;
    made->profile = profile;
    made->buffer = buffer;
    made->control = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    made->batch = batch_new();
    if (policy) made->senders = senders_new(policy, core->seed, clock_of(CLOCK_REALTIME) / 1000000);
    sigset_t all, before;
    sigfillset(&all); /* signals are the main thread's */
    int error = made->control < 0 || !made->batch || (policy && !made->senders) ? ENOMEM : 0;
    if (!error) {
        pthread_sigmask(SIG_SETMASK, &all, &before);
        error = pthread_create(&made->thread, NULL, run, made);
        pthread_sigmask(SIG_SETMASK, &before, NULL);
    }
    if (error) {
        reader_discard(made);
        errno = error;
        return NULL;
    }
    return made;
}

void reader_end(reader *reader, int how)
{
    uint64_t one = 1;
    atomic_store(&reader->ending, how);
    if (write(reader->control, &one, sizeof one) < 0) return; /* full: it was told before */
}

void reader_join(reader *reader)
{
    if (!reader->joined) pthread_join(reader->thread, NULL);
    reader->joined = 1;
}

void reader_free(reader *reader)
{
    if (!reader) return;
    reader_end(reader, 2);
    reader_join(reader);
    reader_discard(reader);
}

#else

/* Without recvmmsg and eventfd the event loop receives. */
reader *reader_start(core *core, int socket, int wake, uint32_t profile, size_t buffer, const policy *policy)
{
    (void)core, (void)socket, (void)wake, (void)profile, (void)buffer, (void)policy;
    errno = ENOSYS;
    return NULL;
}

void reader_end(reader *reader, int how) { (void)reader, (void)how; }

void reader_join(reader *reader) { (void)reader; }

void reader_free(reader *reader) { free(reader); }

#endif
