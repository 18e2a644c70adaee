/* What no plan can be better than, without a program: by how much a device can do in a given time.
 * Internal to src/plan. Pure. */
#ifndef LINGUA_PLAN_BOUND_H
#define LINGUA_PLAN_BOUND_H

#include "plan/order.h"

/* The furthest end of a run on device d that begins at `first` in any plan with z < below: by
 * memory, pins, its own time and the least latency of the rest. `first` itself: none. from: the
 * furthest end for first - 1 (a run's furthest end never falls as its beginning moves on), or
 * first. For the head first is 0, and its tail does not count. */
int bound_reach(const struct pace *x, double below, int d, int first, int from);
/* Of all runs of d; the head's tail, if it may have one, counts. */
int bound_longest(const struct pace *x, double below, int d);
/* z of no plan is below it. */
double bound_weak(const struct pace *x);

#endif
