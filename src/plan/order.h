/* The best plan among the chains of a chart (room.h): which of the devices take part and where the
 * cuts are. Exact, by labels: for each node and cut point, what plans that have got there cost so
 * far, without those that another one beats in every respect, nor those that even at the best
 * cannot become better than the best plan known. Internal to src/plan. Pure.
 *
 * Inside the solver a plan's cost is z = score * concurrency, in seconds:
 *
 *     z = max(latency, k * most) + LATENCY_WEIGHT * latency + sum of worth
 *
 * where `most` is the most that any device (over its cap), link or air has to do for one group, and
 * worth is in the seconds of all streams. */
#ifndef LINGUA_PLAN_ORDER_H
#define LINGUA_PLAN_ORDER_H

#include "plan/room.h"

/* A problem at k groups of g rows: what its runs take. */
struct pace {
    const struct room *room;
    int k, g;
    double *sum;                    /* (n_devices, n_modules + 1): the first i modules */
    double *rest;                   /* (n_modules + 1): module i on at the quickest device each */
    double worth[PLAN_DEVICES_MAX]; /* in seconds of z; the head's is 0 */
};
void pace_init(struct pace *x, const struct room *room, int k, int g); /* borrows room */
void pace_fini(struct pace *x);
/* Numbers of groups k, and rows g of each, that no other pair is plainly better than; returns how
 * many. By falling k. */
enum { PACES_MAX = 64 };
int pace_list(const struct place_problem *p, int k[PACES_MAX], int g[PACES_MAX]);

struct order_opts {
    int stride; /* a cut may be at every module, every second, ... */
    /* Gives up after so many runs were tried, or when labels take too much memory; 0 = as many as
     * it takes. */
    long tries_max;
    long *tries; /* counts them up, unless NULL */
};
enum order_result { ORDER_NONE, ORDER_FOUND, ORDER_GAVE_UP };
/* Looks for plans with z < *z; the best becomes *out (plan and used, no more) and *z. GAVE_UP: it
 * may have found something, too (*z tells), yet not all was looked at. */
enum order_result order_best(const struct pace *x, const struct chart *c,
                             const struct order_opts *opts, double *z, struct placement *out);

#endif
