/* How much of the matrix of variants, types and KV types to run: LINGUA_GOLDEN=tiny (emulated CPUs,
 * fifty times slower: three families; only what test_exact makes of it differs from small), small
 * (sanitizer builds: every variant, fewer types), full (every combination), or unset. */
#ifndef LINGUA_TESTS_GOLDEN_OPTS_H
#define LINGUA_TESTS_GOLDEN_OPTS_H

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

enum golden_size { GOLDEN_SMALL, GOLDEN_NORMAL, GOLDEN_FULL };

static inline bool golden_tiny(void)
{
    const char *s = getenv("LINGUA_GOLDEN");

    return s && !strcmp(s, "tiny");
}

static inline enum golden_size golden_size(void)
{
    const char *s = getenv("LINGUA_GOLDEN");

    if (golden_tiny() || (s && !strcmp(s, "small")))
        return GOLDEN_SMALL;
    if (s && !strcmp(s, "full"))
        return GOLDEN_FULL;
    return GOLDEN_NORMAL;
}

#endif
