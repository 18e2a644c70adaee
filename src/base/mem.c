#define _DEFAULT_SOURCE
#include "base/mem.h"

#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/check.h"

enum { HUGE_PAGE = 2 << 20 }; /* of x86-64, and of ARM with pages of 4 KiB */

void *mem_alloc(size_t size)
{
    void *p = malloc(size ? size : 1);

    CHECK(p != NULL);
    return p;
}

void *mem_try(size_t n, size_t size)
{
    return calloc(n ? n : 1, size ? size : 1);
}

void *mem_zalloc(size_t n, size_t size)
{
    void *p = mem_try(n, size);

    CHECK(p != NULL);
    return p;
}

void *mem_realloc(void *p, size_t n, size_t size)
{
    size_t bytes = n * size;

    CHECK(size == 0 || n <= SIZE_MAX / size);
    p = realloc(p, bytes > 0 ? bytes : 1);
    CHECK(p != NULL);
    return p;
}

char *mem_strdup(const char *s)
{
    size_t n = strlen(s) + 1;

    return memcpy(mem_alloc(n), s, n);
}

char *mem_printf(const char *fmt, ...)
{
    va_list ap, again;
    char *s;
    int n;

    va_start(ap, fmt);
    va_copy(again, ap);
    n = vsnprintf(NULL, 0, fmt, ap);
    va_end(ap);
    CHECK(n >= 0);
    s = mem_alloc((size_t)n + 1);
    vsnprintf(s, (size_t)n + 1, fmt, again);
    va_end(again);
    return s;
}

/* Rounded up to whole pages; at least one, which a size of 0 gets. */
static size_t pages_of(size_t bytes)
{
    size_t page = (size_t)sysconf(_SC_PAGESIZE);

    return bytes > 0 ? (bytes + page - 1) / page * page : page;
}

/* A huge page begins where an address is a multiple of its size. */
void *mem_pages(size_t bytes)
{
    size_t whole = bytes + HUGE_PAGE, used = pages_of(bytes), before;
    uint8_t *all, *p;

    if (whole < bytes)
        return NULL;
    all = mmap(NULL, whole, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (all == MAP_FAILED)
        return NULL;
    before = -(uintptr_t)all % HUGE_PAGE;
    p = all + before;
    munmap(p + used, whole - before - used);
    if (before > 0)
        munmap(all, before);
    mem_huge(p, used);
    return p;
}

void mem_pages_free(void *p, size_t bytes)
{
    if (p)
        munmap(p, pages_of(bytes));
}

void mem_huge(void *p, size_t bytes)
{
#ifdef MADV_HUGEPAGE
    size_t before = -(uintptr_t)p % HUGE_PAGE;

    if (bytes >= before + HUGE_PAGE)
        (void)madvise((uint8_t *)p + before, (bytes - before) / HUGE_PAGE * HUGE_PAGE,
                      MADV_HUGEPAGE);
#else
    (void)p;
    (void)bytes;
#endif
}
