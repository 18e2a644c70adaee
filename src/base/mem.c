#include "base/mem.h"

#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/check.h"

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
