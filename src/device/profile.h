/* How fast this device is: weight bytes per second it multiplies by in decoding, measured on a
 * synthetic matrix that does not fit the cache, with its own kernels. A fraction of a second.
 * Remembered in the state folder with what it depends on (kernels, threads), so that a restart does
 * not measure again. */
#ifndef LINGUA_DEVICE_PROFILE_H
#define LINGUA_DEVICE_PROFILE_H

#include <stdint.h>

#include "base/err.h"

struct compute;

struct profile {
    uint64_t speed;      /* weight bytes per second */
    uint64_t base_bytes; /* resident memory of the process before any model */
};

/* folder NULL: measure, remember nothing. memory_bytes: the process's budget, which measuring keeps
 * to; 0 = none. */
MUST_CHECK enum err profile_measure(struct compute *c, const char *folder, uint64_t memory_bytes,
                                    struct profile *out, struct err_text *et);

#endif
