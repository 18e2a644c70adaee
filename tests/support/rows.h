/* Rows for tests of kernels: aligned memory, and numbers that look like noise and are the same
 * everywhere. */
#ifndef LINGUA_TESTS_ROWS_H
#define LINGUA_TESTS_ROWS_H

#include <stdint.h>
#include <stdlib.h>

#include "base/check.h"

/* Whole cache lines; free(). */
static inline void *rows_aligned(size_t bytes)
{
    void *p = NULL;

    CHECK(posix_memalign(&p, 64, bytes) == 0);
    return p;
}

/* -1 to 1. */
static inline float rows_noise(uint32_t *seed)
{
    *seed = *seed * 1664525u + 1013904223u;
    return (float)(int32_t)*seed / 2147483648.0f;
}

#endif
