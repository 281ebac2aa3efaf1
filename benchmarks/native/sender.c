/* The sender: packets that were made beforehand, as fast as they leave or at a rate.
 *
 *     sender SCHEME WHERE PORT RATE SECONDS LINES CONNECTIONS SEGMENTS < packets
 *
 *     RATE         lines a second; 0 for as fast as it goes
 *     LINES        stops at the packet that reaches it; 0 for no bound but the time
 *     CONNECTIONS  sockets, used in turn
 *     SEGMENTS     1: UDP packets of one length leave in one call (generic segmentation offload). The
 *                  receiver still sees single datagrams, for the loopback device cuts them apart again.
 *                  It takes the sender's cost out of the way, at the price of another order of packets.
 *
 * Standard input holds the packets, one record each, numbers in the machine's own byte order:
 *
 *     | u32 lines | u32 length | length bytes |
 *
 * They are sent round after round. Standard output gets a line of JSON five times a second while it sends,
 * `{"lines": ..., "seconds": ...}`, and one with all figures at the end, which has `"done": true`.
 */
#define _GNU_SOURCE
#include "sockets.h"

#include <errno.h>
#include <netinet/in.h>
#include <netinet/udp.h>
#include <stdint.h>
#include <sys/uio.h>

#ifndef UDP_SEGMENT
#define UDP_SEGMENT 103
#endif

enum {
    BATCH = 64,         /* sends a system call */
    MOST_SEGMENTS = 64, /* the kernel's own bound */
    MOST_BYTES = 65000, /* of several packets: what one of IP holds, less its headers */
    MOST_CONNECTIONS = 256,
};

static const double PAUSE = 100e-6;   /* seconds slept at least when nothing is due: a timer's resolution */
static const double REPORT = 0.2;     /* seconds between two reports */
static const double PATIENCE = 10.0;  /* seconds without progress until the server counts as stuck */

/* One send: a packet, or several of one length. */
struct send {
    uint32_t lines, packets, bytes, segment; /* segment: 0, or the length of each packet */
    char *data;
};

struct load {
    struct send *sends;
    size_t count;
    double lines; /* of one round */
};

struct totals {
    uint64_t lines, packets, bytes, calls, errors;
};

static struct load read_packets(void) {
    size_t size = 1 << 20, used = 0, got;
    char *data = allocate(size, 1);
    while ((got = fread(data + used, 1, size - used, stdin)) > 0) {
        used += got;
        if (used == size && !(data = realloc(data, size *= 2))) fail("out of memory", "a smaller load needs less");
    }
    size_t count = 0;
    uint32_t head[2];
    for (size_t at = 0; at + sizeof head <= used; at += sizeof head + head[1], count++)
        memcpy(head, data + at, sizeof head);
    if (!count) fail("standard input", "holds no packet");
    struct load load = {allocate(count, sizeof *load.sends), count, 0};
    char *at = data;
    for (size_t i = 0; i < count; i++, at += head[1]) {
        memcpy(head, at, sizeof head);
        at += sizeof head;
        if (head[1] > (size_t)(data + used - at)) fail("standard input", "ends within a packet");
        load.sends[i] = (struct send){head[0], 1, head[1], 0, at};
        load.lines += head[0];
    }
    return load;
}

static int by_length(const void *left, const void *right) {
    const struct send *a = left, *b = right;
    if (a->bytes != b->bytes) return a->bytes < b->bytes ? -1 : 1;
    return a->data < b->data ? -1 : a->data > b->data; /* keeps their order, so that runs are alike */
}

/* Packets of one length side by side, up to 64 a send; the sends are then shuffled, the same way each time. */
static struct load segmented(struct load load) {
    size_t bytes = 0, count = 0;
    for (size_t i = 0; i < load.count; i++) bytes += load.sends[i].bytes;
    qsort(load.sends, load.count, sizeof *load.sends, by_length);
    struct send *made = allocate(load.count, sizeof *made);
    char *memory = allocate(bytes, 1);
    for (size_t i = 0; i < load.count;) {
        struct send *first = &load.sends[i], *one = &made[count++];
        *one = (struct send){0, 0, 0, first->bytes, memory};
        for (; i < load.count && load.sends[i].bytes == one->segment && one->packets < MOST_SEGMENTS &&
               (!one->packets || one->bytes + one->segment <= MOST_BYTES); i++) {
            memcpy(memory, load.sends[i].data, one->segment);
            memory += one->segment;
            one->bytes += one->segment;
            one->lines += load.sends[i].lines;
            one->packets++;
        }
    }
    uint64_t random = 0x9E3779B97F4A7C15u;
    for (size_t i = count - 1; i > 0; i--) {
        random ^= random << 13, random ^= random >> 7, random ^= random << 17;
        size_t other = random % (i + 1);
        struct send kept = made[i];
        made[i] = made[other];
        made[other] = kept;
    }
    return (struct load){made, count, load.lines};
}

static int can_segment(int socket) {
    int none = 0;
    return setsockopt(socket, IPPROTO_UDP, UDP_SEGMENT, &none, sizeof none) == 0;
}

static int connected(struct kind kind, const char *where, const char *port) {
    struct sockaddr_storage address;
    socklen_t length = address_of(kind, where, port, &address);
    int made = socket(address.ss_family, kind.type, 0), size = 4 << 20;
    if (made < 0) fail("socket", strerror(errno));
    struct timeval wait = {1, 0}; /* so that a server that stopped reading does not hold the sender */
    setsockopt(made, SOL_SOCKET, SO_SNDTIMEO, &wait, sizeof wait);
    if (kind.type == SOCK_DGRAM) setsockopt(made, SOL_SOCKET, SO_SNDBUF, &size, sizeof size);
    if (connect(made, (struct sockaddr *)&address, length)) fail("cannot connect", strerror(errno));
    return made;
}

static void count(struct totals *totals, const struct send *send) {
    totals->lines += send->lines;
    totals->packets += send->packets;
    totals->bytes += send->bytes;
}

/* Sends whole packets over a stream; how many. Fewer than asked for: nobody reads any more. */
static size_t send_stream(int socket, const struct send *sends, size_t many, struct totals *totals) {
    struct iovec parts[BATCH];
    for (size_t i = 0; i < many; i++) parts[i] = (struct iovec){sends[i].data, sends[i].bytes};
    double since = seconds_of(CLOCK_MONOTONIC);
    size_t done = 0;
    while (done < many) {
        struct msghdr message = {.msg_iov = parts + done, .msg_iovlen = many - done};
        ssize_t sent = sendmsg(socket, &message, MSG_NOSIGNAL);
        totals->calls++;
        if (sent < 0) {
            if (errno == EINTR) continue;
            if (errno != EAGAIN) fail("the server closed the connection", strerror(errno));
            totals->errors++;
            if (seconds_of(CLOCK_MONOTONIC) - since > PATIENCE) fail("the server", "reads no more");
            continue;
        }
        since = seconds_of(CLOCK_MONOTONIC);
        while (done < many && (size_t)sent >= parts[done].iov_len) {
            sent -= (ssize_t)parts[done].iov_len;
            count(totals, &sends[done++]);
        }
        if (sent) {
            parts[done].iov_base = (char *)parts[done].iov_base + sent;
            parts[done].iov_len -= (size_t)sent;
        }
    }
    return done;
}

/* Sends datagrams, which a full queue or a missing server may refuse; how many went. */
static size_t send_datagrams(int socket, const struct send *sends, size_t many, struct totals *totals) {
    static double stuck_since;
    struct mmsghdr messages[BATCH];
    struct iovec parts[BATCH];
    char controls[BATCH][CMSG_SPACE(sizeof(uint16_t))];
    memset(messages, 0, many * sizeof *messages);
    for (size_t i = 0; i < many; i++) {
        struct msghdr *header = &messages[i].msg_hdr;
        parts[i] = (struct iovec){sends[i].data, sends[i].bytes};
        header->msg_iov = &parts[i];
        header->msg_iovlen = 1;
        if (sends[i].packets > 1) {
            memset(controls[i], 0, sizeof controls[i]);
            header->msg_control = controls[i];
            header->msg_controllen = sizeof controls[i];
            struct cmsghdr *control = CMSG_FIRSTHDR(header);
            control->cmsg_level = IPPROTO_UDP;
            control->cmsg_type = UDP_SEGMENT;
            control->cmsg_len = CMSG_LEN(sizeof(uint16_t));
            uint16_t segment = (uint16_t)sends[i].segment;
            memcpy(CMSG_DATA(control), &segment, sizeof segment);
        }
    }
    int sent = sendmmsg(socket, messages, (unsigned)many, 0);
    totals->calls++;
    if (sent >= 0) {
        for (int i = 0; i < sent; i++) count(totals, &sends[i]);
        stuck_since = 0;
        return (size_t)sent;
    }
    double now = seconds_of(CLOCK_MONOTONIC);
    totals->errors++;
    if (!stuck_since) stuck_since = now;
    if (errno == ECONNREFUSED || errno == ENOTCONN || errno == ECONNRESET) fail("nobody listens there", strerror(errno));
    if (errno == EMSGSIZE) fail("the packets are too long", strerror(errno));
    if (errno != EINTR && errno != EAGAIN && errno != ENOBUFS) fail("cannot send", strerror(errno));
    if (now - stuck_since > PATIENCE) fail("the server", "reads no more");
    return 0;
}

static void report(const struct totals *totals, double seconds, int done) {
    printf("{\"lines\": %llu, \"packets\": %llu, \"bytes\": %llu, \"seconds\": %.6f",
           (unsigned long long)totals->lines, (unsigned long long)totals->packets,
           (unsigned long long)totals->bytes, seconds);
    if (done)
        printf(", \"calls\": %llu, \"errors\": %llu, \"cpu_seconds\": %.6f, \"done\": true",
               (unsigned long long)totals->calls, (unsigned long long)totals->errors,
               seconds_of(CLOCK_PROCESS_CPUTIME_ID));
    puts("}");
    fflush(stdout);
}

static void sleep_for(double seconds) {
    if (seconds < PAUSE) seconds = PAUSE;
    struct timespec pause = {(time_t)seconds, (long)((seconds - (double)(time_t)seconds) * 1e9)};
    nanosleep(&pause, NULL);
}

/* How many of the next `many` sends may go now, so that neither rate nor count is overdrawn. */
static size_t allowed(const struct send *sends, size_t many, double due, uint64_t left) {
    double lines = 0;
    size_t take = 0;
    while (take < many && lines < due && lines < (double)left) lines += sends[take++].lines;
    return take;
}

int main(int argc, char **argv) {
    if (argc != 9) fail("usage", "sender SCHEME WHERE PORT RATE SECONDS LINES CONNECTIONS SEGMENTS < packets");
    die_with_parent();
    struct kind kind = kind_of(argv[1]);
    double rate = atof(argv[4]), seconds = atof(argv[5]);
    uint64_t most = strtoull(argv[6], NULL, 10);
    int connections = atoi(argv[7]), sockets[MOST_CONNECTIONS];
    if (connections < 1 || connections > MOST_CONNECTIONS) fail("connections", "1 to 256");
    if (!most) most = UINT64_MAX;
    struct load load = read_packets();
    for (int i = 0; i < connections; i++) sockets[i] = connected(kind, argv[2], argv[3]);
    int segments = atoi(argv[8]) && !strcmp(argv[1], "udp") && can_segment(sockets[0]);
    if (segments) load = segmented(load);
    size_t batch = segments ? 4 : BATCH; /* of up to 64 packets each: few, so that the end comes in time */

    struct totals totals = {0};
    double start = seconds_of(CLOCK_MONOTONIC), now = start, reported = start;
    size_t at = 0;
    int turn = 0;
    while (totals.lines < most && (now = seconds_of(CLOCK_MONOTONIC)) - start < seconds) {
        if (now - reported >= REPORT) {
            report(&totals, now - start, 0);
            reported = now;
        }
        double due = rate > 0 ? (now - start) * rate - (double)totals.lines : 1e18;
        if (due <= 0) {
            double wait = -due / rate, rest = seconds - (now - start);
            if (wait > REPORT) wait = REPORT;
            sleep_for(wait < rest ? wait : rest);
            continue;
        }
        size_t many = load.count - at < batch ? load.count - at : batch;
        many = allowed(load.sends + at, many, due, most - totals.lines);
        size_t sent = kind.type == SOCK_STREAM ? send_stream(sockets[turn], load.sends + at, many, &totals)
                                               : send_datagrams(sockets[turn], load.sends + at, many, &totals);
        turn = (turn + 1) % connections;
        at = (at + sent) % load.count;
    }
    report(&totals, seconds_of(CLOCK_MONOTONIC) - start, 1);
    return 0;
}
