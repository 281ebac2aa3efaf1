/* Where heads lie: side by side in large pages, named by 32 bits.
 *
 *     place    | block | unit |      blocks[block] + unit * 16
 *
 * With a hundred thousand of them each is a miss of the cache, and in pages of 4 KiB a miss of the address
 * translation as well; and a table of places is half as large as one of addresses. What is short never lies
 * across two lines of the cache if one can hold it. What is freed is used again for what is as large. */
#ifndef COLLECTOR_ARENA_H
#define COLLECTOR_ARENA_H

#include <stddef.h>
#include <stdint.h>

enum {
    UNIT = 16,
    LINE = 64,
    LARGE_PAGE = 2 << 20,
    UNITS = LARGE_PAGE / UNIT,
    EXACT = 1024 / UNIT, /* up to here freed places are kept by their very size, beyond by powers of two */
    SIZES = EXACT + 1 + 8,
    NOWHERE = 0, /* no place */
};

typedef struct arena {
    char **blocks;
    uint32_t length, room; /* blocks */
    uint32_t next;         /* unit of the last block */
    uint32_t free[SIZES];  /* chains of free places */
} arena;

/* At most 128 KiB; NOWHERE without memory. */
uint32_t arena_take(arena *arena, size_t size);
void arena_give(arena *arena, uint32_t place, size_t size);
void arena_clear(arena *arena);

static inline void *arena_at(const arena *arena, uint32_t place)
{
    return arena->blocks[place / UNITS] + (size_t)(place % UNITS) * UNIT;
}

/* LARGE_PAGE bytes that the system is asked to keep in one page; for free(). NULL without memory. */
void *large_page(void);

#endif
