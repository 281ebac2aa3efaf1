/* The yardstick: receive and count lines, and nothing else.
 *
 *     bare SCHEME WHERE PORT BUFFER
 *
 * Datagrams are read by the rule that the collector's own reader follows: poll, `recvmmsg` of 64, and a nap of
 * a millisecond after a batch that came back less than half full, if the receive buffer can hold four
 * milliseconds of the rate that was measured. Streams are read 256 KiB at a time.
 *
 * It prints its port when it listens, a line of JSON at each SIGUSR1, and ends at SIGTERM.
 */
#define _GNU_SOURCE
#include "sockets.h"

#include <errno.h>
#include <netinet/in.h>
#include <poll.h>
#include <stdint.h>
#include <sys/uio.h>

enum {
    BATCH = 64,
    LONGEST = 65536,
    READ = 256 * 1024,
    CONNECTIONS = 256,
    OVERHEAD = 768, /* bytes of kernel bookkeeping that a datagram takes in the receive buffer, about */
};

static const double NAP = 0.001, RESERVE = 0.004, MEASURE = 0.02; /* seconds */

static volatile sig_atomic_t asked, stopped;

static void on_signal(int number) {
    if (number == SIGUSR1) asked = 1;
    else stopped = 1;
}

static uint64_t lines, packets, bytes;

/* In blocks whose count fits a byte, so that the compiler can count 16 bytes at a time. */
static uint64_t newlines(const char *data, size_t length) {
    uint64_t total = 0;
    while (length) {
        size_t block = length < 255 * 16 ? length : 255 * 16;
        uint8_t counts[16] = {0};
        size_t i = 0;
        for (; i + 16 <= block; i += 16)
            for (int j = 0; j < 16; j++) counts[j] = (uint8_t)(counts[j] + (data[i + (size_t)j] == '\n'));
        for (int j = 0; j < 16; j++) total += counts[j];
        for (; i < block; i++) total += data[i] == '\n';
        data += block;
        length -= block;
    }
    return total;
}

static void answer(void) {
    if (!asked) return;
    asked = 0;
    printf("{\"lines\": %llu, \"packets\": %llu, \"bytes\": %llu}\n", (unsigned long long)lines,
           (unsigned long long)packets, (unsigned long long)bytes);
    fflush(stdout);
}

/* Datagrams until the end; `buffer` is what the kernel granted. */
static void datagrams(int socket, double buffer) {
    static struct mmsghdr messages[BATCH];
    static struct iovec parts[BATCH];
    char *memory = allocate(BATCH, LONGEST);
    for (int i = 0; i < BATCH; i++) {
        parts[i] = (struct iovec){memory + (size_t)i * LONGEST, LONGEST};
        messages[i].msg_hdr.msg_iov = &parts[i];
        messages[i].msg_hdr.msg_iovlen = 1;
    }
    double since = seconds_of(CLOCK_MONOTONIC), held = 0, rate = 0; /* held, rate: bytes of the buffer */
    struct pollfd wait = {socket, POLLIN, 0};
    while (!stopped) {
        answer();
        if (poll(&wait, 1, 1000) <= 0) continue;
        for (;;) {
            int got = recvmmsg(socket, messages, BATCH, MSG_DONTWAIT, NULL);
            if (got <= 0) break;
            for (int i = 0; i < got; i++) {
                const char *data = parts[i].iov_base;
                size_t length = messages[i].msg_len;
                lines += newlines(data, length) + (length && data[length - 1] != '\n');
                bytes += length;
                held += (double)length + OVERHEAD;
            }
            packets += (uint64_t)got;
            double now = seconds_of(CLOCK_MONOTONIC);
            if (now - since >= MEASURE) {
                rate = held / (now - since);
                since = now;
                held = 0;
            }
            if (got < BATCH / 2) {
                if (rate * RESERVE < buffer) nanosleep(&(struct timespec){0, (long)(NAP * 1e9)}, NULL);
                break;
            }
            if (asked || stopped) break;
        }
    }
}

static void streams(int listener) {
    static struct pollfd waits[CONNECTIONS + 1];
    char *memory = allocate(READ, 1);
    nfds_t count = 1;
    waits[0] = (struct pollfd){listener, POLLIN, 0};
    while (!stopped) {
        answer();
        if (poll(waits, count, 1000) <= 0) continue;
        for (nfds_t i = count; i-- > 1;) {
            if (!waits[i].revents) continue;
            ssize_t got = recv(waits[i].fd, memory, READ, 0);
            if (got > 0) {
                lines += newlines(memory, (size_t)got);
                bytes += (uint64_t)got;
                packets++;
            } else if (got == 0 || (errno != EINTR && errno != EAGAIN)) {
                close(waits[i].fd);
                waits[i] = waits[--count];
            }
        }
        if (waits[0].revents) {
            int made = accept(listener, NULL, NULL);
            if (made >= 0 && count <= CONNECTIONS) waits[count++] = (struct pollfd){made, POLLIN, 0};
            else if (made >= 0) close(made);
        }
    }
}

int main(int argc, char **argv) {
    if (argc != 5) fail("usage", "bare SCHEME WHERE PORT BUFFER");
    die_with_parent();
    struct sigaction action = {.sa_handler = on_signal};
    sigaction(SIGUSR1, &action, NULL);
    sigaction(SIGTERM, &action, NULL);
    sigaction(SIGINT, &action, NULL);

    struct kind kind = kind_of(argv[1]);
    struct sockaddr_storage address;
    socklen_t length = address_of(kind, argv[2], argv[3], &address);
    int made = socket(address.ss_family, kind.type, 0), size = atoi(argv[4]);
    if (made < 0) fail("socket", strerror(errno));
    if (setsockopt(made, SOL_SOCKET, SO_RCVBUFFORCE, &size, sizeof size))
        setsockopt(made, SOL_SOCKET, SO_RCVBUF, &size, sizeof size);
    if (bind(made, (struct sockaddr *)&address, length)) fail(argv[2], strerror(errno));
    if (kind.type == SOCK_STREAM && listen(made, CONNECTIONS)) fail(argv[2], strerror(errno));
    socklen_t granted = sizeof size;
    getsockopt(made, SOL_SOCKET, SO_RCVBUF, &size, &granted);
    length = sizeof address;
    getsockname(made, (struct sockaddr *)&address, &length);
    int port = address.ss_family == AF_INET    ? ntohs(((struct sockaddr_in *)&address)->sin_port)
               : address.ss_family == AF_INET6 ? ntohs(((struct sockaddr_in6 *)&address)->sin6_port)
                                               : 0;
    printf("%d\n", port);
    fflush(stdout);
    if (kind.type == SOCK_STREAM) streams(made);
    else datagrams(made, size);
    asked = 1;
    answer();
    return 0;
}
