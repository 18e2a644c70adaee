/* Prometheus' text format, version 0.0.4: families of samples with HELP and TYPE in front. Pure; one
 * thread at a time.
 *
 *     # HELP name text
 *     # TYPE name counter
 *     name{label="value"} 12
 *
 * All samples of a family stand together, which the order of the calls has to see to. */
#ifndef LINGUA_API_EXPOSITION_H
#define LINGUA_API_EXPOSITION_H

#include <stddef.h>
#include <stdint.h>

struct exposition {
    char *text; /* n bytes; free() */
    size_t n, cap;
    const char *family; /* of the samples to come */
};

enum { EXPOSITION_BUCKETS_MAX = 16 };
struct histogram {
    int n_bounds;
    const double *bounds;                       /* upper ones, rising; +Inf is left out */
    uint64_t count[EXPOSITION_BUCKETS_MAX + 1]; /* of each bucket alone; the last is beyond all */
    double sum;
};
void histogram_add(struct histogram *h, double value);

struct exposition_label {
    const char *name, *value; /* value: any bytes up to NUL; escaped, and made UTF-8 */
};

/* type: "counter", "gauge", "histogram". */
void exposition_family(struct exposition *x, const char *name, const char *type, const char *help);
/* At most two labels; a name of NULL: no such label. */
void exposition_count(struct exposition *x, const struct exposition_label labels[2],
                      uint64_t value);
void exposition_value(struct exposition *x, const struct exposition_label labels[2], double value);
/* Cumulative buckets, sum and count. At most one label beside `le`. */
void exposition_histogram(struct exposition *x, const struct exposition_label *label,
                          const struct histogram *h);

#endif
