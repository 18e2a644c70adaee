/* Counts and times for /metrics. Event loop's thread only. */
#ifndef LINGUA_API_METRICS_H
#define LINGUA_API_METRICS_H

struct gen_end;
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

#endif
