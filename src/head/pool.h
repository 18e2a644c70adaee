/* Threads for what must not hold up the event loop: tokenising, templates, grammars, sampling, JSON
 * of strangers. A job runs on one of them and is then told of on the loop's thread.
 *
 * Two lanes, each with threads of its own: QUICK for sampling (well under a millisecond, and a token
 * waits for it), SLOW for the rest (a megabyte of text takes a second). Jobs of a lane begin in the
 * order they were given. */
#ifndef LINGUA_HEAD_POOL_H
#define LINGUA_HEAD_POOL_H

struct event_base;
struct pool;

enum pool_lane { POOL_QUICK, POOL_SLOW, POOL_LANES };

/* n_threads of each lane, >= 1. */
struct pool *pool_new(struct event_base *base, const int n_threads[POOL_LANES]);
/* Waits for the jobs that run; those that have not begun do not run any more. Then `done` comes for
 * every job, with ran = false for these. Not from within `done`. */
void pool_close(struct pool *p); /* NULL is fine */

struct pool_job {
    void (*run)(void *user);           /* on a thread of the lane */
    void (*done)(void *user, int ran); /* on the loop's thread */
    void *user;
};
void pool_give(struct pool *p, enum pool_lane lane, struct pool_job job);
/* Jobs of the lane that wait; on the loop's thread. */
int pool_waiting(const struct pool *p, enum pool_lane lane);

#endif
