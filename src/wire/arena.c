#include "wire/arena.h"

#include <stdlib.h>

#include "base/check.h"
#include "base/mem.h"

/* A packed varint of one byte becomes a uint32 of four, and that is the worst an honest message
 * does; the rest is room for the message's own struct. */
enum { ARENA_FACTOR = 8, ARENA_ROOM = 1024, ARENA_ALIGN = 16 };

static void *arena_alloc(void *data, size_t size)
{
    struct arena *a = data;
    size_t start = (a->used + ARENA_ALIGN - 1) / ARENA_ALIGN * ARENA_ALIGN;

    if (start > a->limit || size > a->limit - start)
        return NULL;
    a->used = start + size;
    return a->base + start;
}

static void arena_free(void *data, void *pointer)
{
    (void)data;
    (void)pointer;
}

void arena_init(struct arena *a, size_t bytes_max)
{
    a->cap = ARENA_FACTOR * bytes_max + ARENA_ROOM;
    a->base = mem_alloc(a->cap);
    a->used = a->limit = 0;
    a->allocator = (ProtobufCAllocator){arena_alloc, arena_free, a};
}

void arena_fini(struct arena *a)
{
    free(a->base);
    a->base = NULL;
}

void arena_reset(struct arena *a, size_t len)
{
    a->used = 0;
    a->limit = ARENA_FACTOR * len + ARENA_ROOM;
    CHECK(a->limit <= a->cap);
}
