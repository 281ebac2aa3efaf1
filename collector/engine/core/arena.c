#include "arena.h"

#include <stdlib.h>
#include <string.h>

#if defined(__linux__)
#include <sys/mman.h>
#endif

/* Sanitizers see a block as one piece of memory; they are told which parts of it are anybody's. */
#if defined(__SANITIZE_ADDRESS__)
#define POISONS 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define POISONS 1
#endif
#endif
#ifdef POISONS
#include <sanitizer/asan_interface.h>
#else
#define ASAN_POISON_MEMORY_REGION(at, size) ((void)(at), (void)(size))
#define ASAN_UNPOISON_MEMORY_REGION(at, size) ((void)(at), (void)(size))
#endif

void *large_page(void)
{
    void *made = aligned_alloc(LARGE_PAGE, LARGE_PAGE);
#if defined(MADV_HUGEPAGE)
    if (made) madvise(made, LARGE_PAGE, MADV_HUGEPAGE); /* a wish */
#endif
    return made;
}

/* The units that a size is given, and which chain they go to once they are free. */
static uint32_t units_of(size_t size, uint32_t *chain)
{
    uint32_t units = (uint32_t)((size + UNIT - 1) / UNIT);
    *chain = units;
    if (units <= EXACT) return units;
    uint32_t rounded = EXACT * 2;
    for (*chain = EXACT + 1; rounded < units; ++*chain) rounded *= 2;
    return rounded;
}

/* The first block is an ordinary one: a small server is to stay small. */
static int add_block(arena *arena)
{
    if (arena->length == arena->room) {
        uint32_t room = arena->room ? arena->room * 2 : 8;
        char **larger = realloc(arena->blocks, room * sizeof *larger);
        if (!larger) return 0;
        arena->blocks = larger;
        arena->room = room;
    }
    char *made = arena->length ? large_page() : aligned_alloc(LINE, LARGE_PAGE);
    if (!made) return 0;
    ASAN_POISON_MEMORY_REGION(made, LARGE_PAGE);
    arena->next = arena->length ? 0 : LINE / UNIT; /* place 0 is NOWHERE */
    arena->blocks[arena->length++] = made;
    return 1;
}

uint32_t arena_take(arena *arena, size_t size)
{
    uint32_t chain, units = units_of(size, &chain), place = arena->free[chain];
    if (place) {
        ASAN_UNPOISON_MEMORY_REGION(arena_at(arena, place), size);
        memcpy(&arena->free[chain], arena_at(arena, place), sizeof place);
        return place;
    }
    uint32_t in_line = LINE / UNIT, start = arena->next;
    if (units <= in_line && start % in_line + units > in_line) start += in_line - start % in_line;
    if (!arena->length || start + units > UNITS) {
        if (arena->length == UINT32_MAX / UNITS || !add_block(arena)) return NOWHERE;
        start = arena->next;
    }
    arena->next = start + units;
    place = (arena->length - 1) * UNITS + start;
    ASAN_UNPOISON_MEMORY_REGION(arena_at(arena, place), size);
    return place;
}

void arena_give(arena *arena, uint32_t place, size_t size)
{
    uint32_t chain, units = units_of(size, &chain);
    memcpy(arena_at(arena, place), &arena->free[chain], sizeof place);
    ASAN_POISON_MEMORY_REGION(arena_at(arena, place), units * UNIT);
    arena->free[chain] = place;
}

void arena_clear(arena *arena)
{
    for (uint32_t n = 0; n < arena->length; n++) {
        ASAN_UNPOISON_MEMORY_REGION(arena->blocks[n], LARGE_PAGE);
        free(arena->blocks[n]);
    }
    free(arena->blocks);
    *arena = (struct arena){0};
}
