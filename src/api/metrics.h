/* Counts and times for /metrics. Event loop's thread only. */
#ifndef LINGUA_API_METRICS_H
#define LINGUA_API_METRICS_H

#include <stddef.h>
#include <stdint.h>

struct cluster_facts;
struct cluster_stats;
struct gen_end;
struct http_stats;
struct metrics;

struct metrics *metrics_new(void);
void metrics_free(struct metrics *m); /* NULL is fine */

/* An answer was given or its client went away (status 499). route: a path of the route table, or
 * "" when none fitted. seconds: from its first byte read to its last byte given to the socket. */
void metrics_answered(struct metrics *m, const char *route, int status, double seconds);
/* A generation has ended. */
void metrics_gen(struct metrics *m, const struct gen_end *end);
/* A generation's token other than the first: seconds since the one before it. */
void metrics_token(struct metrics *m, double seconds);

/* What is not counted here but looked at when somebody asks. */
struct metrics_now {
    const struct cluster_facts *facts;
    const struct cluster_stats *cluster;
    const struct http_stats *http;
    uint64_t resident_bytes;
    int n_fds;
    double cpu_s, started_s; /* used by this process; since 1970 */
};
/* The page, in Prometheus' text format; docs/metrics.md tells of each. gives: free(). */
char *metrics_text(const struct metrics *m, const struct metrics_now *now, size_t *n);

#endif
