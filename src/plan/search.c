#include "plan/search.h"

#include <math.h>
#include <string.h>

#include "base/check.h"

/* Work is bounded by counting it, never by a clock: the same problem has the same plan anywhere. */
enum {
    TRIES_ALL = 10000000,   /* runs tried over all chains, per pace: some tenths of a second */
    TRIES_ORDER = 20000000, /* along one order */
    COARSE_CUTS = 24,       /* about so many when orders are compared */
    TRIES_NEAR = 3000000,   /* over all orders near one */
};
#define COARSE_LOSS 1.1 /* coarse cuts may make a plan worse by so much */

void search_init(struct search *s, const struct room *room)
{
    int k[PACES_MAX], g[PACES_MAX];

    memset(s, 0, sizeof *s);
    s->room = room;
    s->z = INFINITY;
    s->n_paces = pace_list(room->p, k, g);
    for (int i = 0; i < s->n_paces; i++)
        pace_init(&s->pace[i], room, k[i], g[i]);
}

void search_fini(struct search *s)
{
    for (int i = 0; i < s->n_paces; i++)
        pace_fini(&s->pace[i]);
}

/* At every pace; false when one gave up, and the others were not looked at. */
static bool in_chart(struct search *s, const struct chart *c, const struct order_opts *opts)
{
    bool all = true;

    for (int i = 0; i < s->n_paces && all; i++) {
        struct placement found;
        double z = s->z;

        all &= order_best(&s->pace[i], c, opts, &z, &found) != ORDER_GAVE_UP;
        if (z < s->z) {
            s->z = z;
            s->best = found;
            s->best.k = s->pace[i].k;
            s->best.g = s->pace[i].g;
            s->found = true;
        }
    }
    return all;
}

static int coarse_stride(const struct search *s)
{
    int stride = (s->room->p->n_modules - 2) / COARSE_CUTS;

    return stride < 2 ? 1 : stride / 2 * 2; /* layers stay whole */
}

static int factorial(int n)
{
    int f = 1;

    for (int i = 2; i <= n; i++)
        f *= i;
    return f;
}

bool search_all(struct search *s)
{
    struct chart c;
    bool all;
    int n = 0;

    if (!chart_of_all(s->room, &c))
        return false;
    /* A good plan early saves labels. Where even coarse cuts are too many, fine ones are. */
    all = coarse_stride(s) == 1 ||
          in_chart(s, &c, &(struct order_opts){coarse_stride(s), TRIES_ALL / 4, NULL});
    all = all && in_chart(s, &c, &(struct order_opts){1, TRIES_ALL, NULL});
    chart_fini(&c);
    for (int d = 1; d < s->room->p->n_devices; d++)
        n += room_may_use(s->room, d);
    s->n_orders += all ? factorial(n) : 0;
    return all;
}

static void try_order(struct search *s, const int *order, int n, int stride)
{
    struct chart c;

    chart_of_order(s->room, order, n, &c);
    in_chart(s, &c, &(struct order_opts){stride, TRIES_ORDER, &s->tries});
    chart_fini(&c);
    s->n_orders += stride == 1;
}

void search_order(struct search *s, const int *order, int n)
{
    try_order(s, order, n, 1);
}

/* ---- orders ---- */

static void sort_by(const double *key, int *order, int n)
{
    for (int i = 1; i < n; i++)
        for (int k = i; k > 0 && key[order[k]] < key[order[k - 1]]; k--) {
            int swap = order[k];

            order[k] = order[k - 1];
            order[k - 1] = swap;
        }
}

/* From the head on, each time the device that is nearest to the last one. */
static void nearest(const struct search *s, int *order, int n)
{
    const struct place_problem *p = s->room->p;

    for (int i = 0, from = 0; i < n; from = order[i++]) {
        int best = i, swap = order[i];
        double least = INFINITY;

        for (int k = i; k < n; k++) {
            double hop = INFINITY;

            if (room_linked(s->room, from, order[k]))
                hop = place_hop_s(p, from, order[k], 0, 1);
            if (hop < least) {
                least = hop;
                best = k;
            }
        }
        order[i] = order[best];
        order[best] = swap;
    }
}

enum { STARTS = 5 };

static void start(const struct search *s, int which, int *order, int n)
{
    const struct place_problem *p = s->room->p;
    double key[PLAN_DEVICES_MAX] = {0};

    for (int i = 0; i < n; i++) {
        int d = order[i];
        uint64_t budget = p->device[d].memory_bytes;

        if (which == 1) /* the quickest first */
            key[d] = s->pace[0].sum[(size_t)(d + 1) * (size_t)(p->n_modules + 1) - 1];
        else if (which == 2) /* the roomiest first */
            key[d] = budget ? -(double)budget : -INFINITY;
        else if (which == 3) /* the roomiest last */
            key[d] = budget ? (double)budget : INFINITY;
    }
    if (which == 4)
        nearest(s, order, n);
    else
        sort_by(key, order, n);
}

/* Takes the device at `from` out and puts it in so that it stands at `to`. */
static void move(int *order, int from, int to)
{
    int d = order[from];

    if (from < to)
        memmove(order + from, order + from + 1, (size_t)(to - from) * sizeof *order);
    else
        memmove(order + to + 1, order + to, (size_t)(from - to) * sizeof *order);
    order[to] = d;
}

/* Puts each device elsewhere, as long as that makes the plan better. Coarse cuts are compared with
 * coarse ones: the plan known may have finer ones, and would hide what is gained. */
static void improve(const struct search *s, int *order, int n, int stride, double enough)
{
    int since = 0;
    struct search c = *s;

    c.z = isfinite(c.z) ? c.z * COARSE_LOSS : c.z;
    c.tries = 0;
    try_order(&c, order, n, stride);
    for (int i = 0; since < n && c.tries < TRIES_NEAR && c.z > enough; i = (i + 1) % n, since++) {
        int d = order[i];

        for (int to = 0; to < n && c.tries < TRIES_NEAR && c.z > enough; to++) {
            int at = 0, next[PLAN_DEVICES_MAX];
            double z = c.z;

            while (order[at] != d)
                at++;
            if (at == to)
                continue;
            memcpy(next, order, (size_t)n * sizeof *next);
            move(next, at, to);
            try_order(&c, next, n, stride);
            if (c.z < z) {
                memcpy(order, next, (size_t)n * sizeof *next);
                since = -1;
            }
        }
    }
}

static int may_use(const struct search *s, int *order)
{
    int n = 0;

    for (int d = 1; d < s->room->p->n_devices; d++)
        if (room_may_use(s->room, d))
            order[n++] = d;
    return n;
}

void search_near(struct search *s, double enough)
{
    int order[PLAN_DEVICES_MAX], best[PLAN_DEVICES_MAX], n, stride = coarse_stride(s);
    struct search c = *s;

    n = may_use(s, order);
    memcpy(best, order, sizeof best);
    for (int which = 0; which < STARTS; which++) {
        double z = c.z;

        start(s, which, order, n);
        try_order(&c, order, n, stride);
        if (!c.found) /* the cuts that fit may be between */
            try_order(&c, order, n, 1);
        if (c.z < z)
            memcpy(best, order, sizeof best);
    }
    search_order(s, best, n);
    if (s->z > enough) {
        improve(s, best, n, stride, enough);
        search_order(s, best, n);
    }
}

void search_around(struct search *s, const int *order, int n, double enough)
{
    int all[PLAN_DEVICES_MAX], near[PLAN_DEVICES_MAX], n_all = may_use(s, all), n_near = n;
    bool there[PLAN_DEVICES_MAX] = {false};

    for (int i = 0; i < n; i++)
        there[near[i] = order[i]] = true;
    for (int i = 0; i < n_all; i++)
        if (!there[all[i]])
            near[n_near++] = all[i];
    search_order(s, near, n_near);
    if (s->z > enough) {
        improve(s, near, n_near, coarse_stride(s), enough);
        search_order(s, near, n_near);
    }
}
