/* Included before every file of the core in a fuzzed build: allocations that fail when they are told to. */
#ifndef COLLECTOR_FAILING_MEMORY_H
#define COLLECTOR_FAILING_MEMORY_H

#include <stddef.h>
#include <stdlib.h>

void *failing_malloc(size_t size);
void *failing_calloc(size_t count, size_t size);
void *failing_realloc(void *old, size_t size);
void *failing_aligned_alloc(size_t alignment, size_t size);

#define malloc failing_malloc
#define calloc failing_calloc
#define realloc failing_realloc
#define aligned_alloc failing_aligned_alloc

#endif
