/* Addresses as both programs are given them, and what they share to stay well-behaved children. */
#ifndef BENCHMARK_SOCKETS_H
#define BENCHMARK_SOCKETS_H

#include <netdb.h>
#include <signal.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

/* "udp", "tcp", "unixgram" and "unixstream", as in the URLs of the command line. */
struct kind {
    int family; /* AF_UNSPEC: the host says which */
    int type;
};

static inline void fail(const char *what, const char *why) {
    fprintf(stderr, "%s: %s\n", what, why);
    exit(1);
}

static inline struct kind kind_of(const char *scheme) {
    if (!strcmp(scheme, "udp")) return (struct kind){AF_UNSPEC, SOCK_DGRAM};
    if (!strcmp(scheme, "tcp")) return (struct kind){AF_UNSPEC, SOCK_STREAM};
    if (!strcmp(scheme, "unixgram")) return (struct kind){AF_UNIX, SOCK_DGRAM};
    if (!strcmp(scheme, "unixstream")) return (struct kind){AF_UNIX, SOCK_STREAM};
    fail(scheme, "no such kind of socket");
    return (struct kind){0, 0};
}

/* `where` is a path, or a numeric host beside a port. The length of the address. */
static inline socklen_t address_of(struct kind kind, const char *where, const char *port,
                                   struct sockaddr_storage *address) {
    memset(address, 0, sizeof *address);
    if (kind.family == AF_UNIX) {
        struct sockaddr_un *local = (struct sockaddr_un *)address;
        if (strlen(where) >= sizeof local->sun_path) fail(where, "too long for the path of a socket");
        local->sun_family = AF_UNIX;
        strcpy(local->sun_path, where);
        return (socklen_t)(offsetof(struct sockaddr_un, sun_path) + strlen(where) + 1);
    }
    struct addrinfo hints = {.ai_socktype = kind.type, .ai_flags = AI_NUMERICHOST | AI_NUMERICSERV};
    struct addrinfo *found;
    int code = getaddrinfo(where, port, &hints, &found);
    if (code) fail(where, gai_strerror(code));
    socklen_t length = found->ai_addrlen;
    memcpy(address, found->ai_addr, length);
    freeaddrinfo(found);
    return length;
}

static inline double seconds_of(clockid_t clock) {
    struct timespec now;
    clock_gettime(clock, &now);
    return (double)now.tv_sec + (double)now.tv_nsec * 1e-9;
}

/* A benchmark that is killed takes its children along. */
static inline void die_with_parent(void) {
    prctl(PR_SET_PDEATHSIG, SIGTERM);
}

static inline void *allocate(size_t count, size_t size) {
    void *memory = calloc(count ? count : 1, size);
    if (!memory) fail("out of memory", "a smaller load needs less");
    return memory;
}

#endif
