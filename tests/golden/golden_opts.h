/* How much of the matrix of variants, types and KV types to run: LINGUA_GOLDEN=small (sanitizer
 * builds: every variant, fewer types), full (every combination), or unset. */
#ifndef LINGUA_TESTS_GOLDEN_OPTS_H
#define LINGUA_TESTS_GOLDEN_OPTS_H

#include <stdlib.h>
#include <string.h>

enum golden_size { GOLDEN_SMALL, GOLDEN_NORMAL, GOLDEN_FULL };

static inline enum golden_size golden_size(void)
{
    const char *s = getenv("LINGUA_GOLDEN");

    if (s && !strcmp(s, "small"))
        return GOLDEN_SMALL;
    if (s && !strcmp(s, "full"))
        return GOLDEN_FULL;
    return GOLDEN_NORMAL;
}

#endif
