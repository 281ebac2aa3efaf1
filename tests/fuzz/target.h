/* What each fuzz target begins with: its own allocations do not fail, those of what it fuzzes do when they are told to,
 * and what has to hold is checked. For the one file that is a target. */
#ifndef COLLECTOR_FUZZ_TARGET_H
#define COLLECTOR_FUZZ_TARGET_H

#include "failing_memory.h"
#undef malloc
#undef calloc
#undef realloc
#undef aligned_alloc

#include <stdio.h>

/* Every so many-th allocation fails; 0: none does. */
static unsigned fail_every, allocations;

static int fails(void) { return fail_every && ++allocations % fail_every == 0; }
void *failing_malloc(size_t size) { return fails() ? NULL : malloc(size); }
void *failing_calloc(size_t count, size_t size) { return fails() ? NULL : calloc(count, size); }
void *failing_realloc(void *old, size_t size) { return fails() ? NULL : realloc(old, size); }
void *failing_aligned_alloc(size_t alignment, size_t size) { return fails() ? NULL : aligned_alloc(alignment, size); }

#define CHECK(what) \
    do { \
        if (!(what)) { \
            fprintf(stderr, "%s:%d: %s does not hold\n", __FILE__, __LINE__, #what); \
            abort(); \
        } \
    } while (0)

#endif
