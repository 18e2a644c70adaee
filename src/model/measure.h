/* How fast this device multiplies: one row by a matrix that is far too large for its caches, as
 * every token of decoding does. Takes as much memory as the matrix while it runs. */
#ifndef LINGUA_MODEL_MEASURE_H
#define LINGUA_MODEL_MEASURE_H

#include <stddef.h>

#include "base/err.h"

struct compute;

/* A Q8_0 matrix of about `bytes`, the quickest of a few runs with the kernels that segments use.
 * bytes is at least MEASURE_BYTES_MIN. ERR_MEMORY when there is not that much. */
enum { MEASURE_BYTES_MIN = 1 << 20 };
MUST_CHECK enum err model_measure_speed(struct compute *c, size_t bytes, double *bytes_per_second,
                                        struct err_text *et);

#endif
