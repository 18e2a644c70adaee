#include "plan/order.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/check.h"
#include "base/mem.h"

/* ---- paces ---- */

/* Of all k that make groups of the same size the least is the best: it goes home sooner. */
int pace_list(const struct place_problem *p, int k[PACES_MAX], int g[PACES_MAX])
{
    int n = 0, c = p->concurrency;

    for (int rows = 1; rows <= p->group_max && rows <= c; rows++) {
        int groups = (c + rows - 1) / rows;

        if ((c + groups - 1) / groups != rows)
            continue; /* so many groups can be made of fewer rows each */
        CHECK(n < PACES_MAX);
        k[n] = groups;
        g[n++] = rows;
    }
    return n;
}

void pace_init(struct pace *x, const struct room *room, int k, int g)
{
    const struct place_problem *p = room->p;
    int n = p->n_modules;
    double reference = place_reference_s(p) * p->concurrency;

    *x = (struct pace){.room = room, .k = k, .g = g};
    x->sum = mem_zalloc((size_t)p->n_devices * (size_t)(n + 1), sizeof *x->sum);
    x->rest = mem_zalloc((size_t)n + 1, sizeof *x->rest);
    for (int m = n - 1; m >= 0; m--)
        x->rest[m] = INFINITY;
    for (int d = 0; d < p->n_devices; d++) {
        double *sum = x->sum + (size_t)d * (size_t)(n + 1);

        if (d > 0 && !room_may_use(room, d))
            continue;
        x->worth[d] = d > 0 ? reference * p->device[d].worth : 0;
        for (int m = 0; m < n; m++) {
            double s = place_module_s(p, d, m, g);

            sum[m + 1] = sum[m] + s;
            x->rest[m] = fmin(x->rest[m], s);
        }
    }
    for (int m = n - 1; m >= 0; m--)
        x->rest[m] += x->rest[m + 1];
}

void pace_fini(struct pace *x)
{
    free(x->sum);
    free(x->rest);
}

/* ---- labels ---- */

enum { LABELS_MAX = 500000 }; /* some 60 MB; only where tries are limited, too */

struct label {
    double lat;   /* so far, the head's tail and client included */
    double most;  /* k * most, and no less than what is known of the whole plan's latency */
    double worth; /* of the devices so far */
    double air[PLACE_AIRS_MAX]; /* k * seconds, of the airs in use */
    int prev;                   /* label this run was put behind; -1 = it is the head's */
    int next;                   /* in its cell's list */
    int node, end;
};

struct work {
    const struct pace *x;
    const struct place_problem *p;
    const struct chart *c;
    long tries, tries_max;
    bool gave_up;
    bool plain;                             /* latency and worth alone decide */
    int n_airs, air_at[PLACE_AIRS_MAX + 1]; /* airs in use, numbered as they come; -1 = not */
    int tail, n_cuts, *cut; /* where runs may end: (n_cuts), the last is the tail's beginning */
    int *cell;              /* (n_nodes, n_cuts): first label, or -1 */
    struct label *label;    /* (n_labels) */
    struct label *arrival;  /* (n_arrivals): at one node and cut */
    int n_labels, cap_labels, n_arrivals, cap_arrivals;
    double z;            /* the best */
    int best, best_tail; /* its last label; -1 = none, or the head alone */
    bool alone;
    struct placement *out;
};

static double z_of(double lat, double most, double worth)
{
    return fmax(lat, most) + PLACE_LATENCY_WEIGHT * lat + worth;
}

/* Takes into account what is to come at least; false when that is too much already. */
static bool hopeful(const struct work *w, struct label *l, double rest)
{
    double most = l->most;

    for (int a = 0; a < w->n_airs; a++)
        most = fmax(most, l->air[a]);
    l->most = fmax(l->most, l->lat + rest);
    /* Improvements below the last bits are none: sums differ by the order of adding. */
    return z_of(l->lat + rest, most, l->worth) < w->z * (1 - 1e-13);
}

/* Whether whatever b becomes, a becomes something as good. Both are at the same cut. */
static bool beats(const struct work *w, const struct label *a, const struct label *b)
{
    if (w->plain)
        return a->lat * (1 + PLACE_LATENCY_WEIGHT) + a->worth <=
               b->lat * (1 + PLACE_LATENCY_WEIGHT) + b->worth;
    if (a->lat > b->lat || a->most > b->most || a->worth > b->worth)
        return false;
    for (int i = 0; i < w->n_airs; i++)
        if (a->air[i] > b->air[i])
            return false;
    return true;
}

/* Adds the seconds of a hop's bytes. */
static void add_wire(const struct work *w, struct label *l, int from, int to, double wire)
{
    int air = w->p->link[from * w->p->n_devices + to].air;

    l->most = fmax(l->most, w->x->k * wire);
    if (air && w->air_at[air] >= 0)
        l->air[w->air_at[air]] += w->x->k * wire;
}

static int new_label(struct work *w, const struct label *l)
{
    if (w->n_labels == w->cap_labels) {
        w->cap_labels = w->cap_labels ? 2 * w->cap_labels : 1024;
        w->label = mem_realloc(w->label, (size_t)w->cap_labels, sizeof *w->label);
    }
    w->label[w->n_labels] = *l;
    return w->n_labels++;
}

/* Into the list of a cell, unless one there beats it; what it beats is taken out of the list. */
static void keep(struct work *w, int *cell, struct label *l)
{
    int *at = cell;

    while (*at >= 0) {
        const struct label *other = &w->label[*at];

        if (beats(w, other, l))
            return;
        if (beats(w, l, other))
            *at = other->next;
        else
            at = &w->label[*at].next;
    }
    l->next = *cell;
    *cell = new_label(w, l);
}

static void keep_arrival(struct work *w, const struct label *l)
{
    int n = 0;

    for (int i = 0; i < w->n_arrivals; i++)
        if (beats(w, &w->arrival[i], l))
            return;
    for (int i = 0; i < w->n_arrivals; i++)
        if (!beats(w, l, &w->arrival[i]))
            w->arrival[n++] = w->arrival[i];
    w->n_arrivals = n;
    if (n == w->cap_arrivals) {
        w->cap_arrivals = n ? 2 * n : 64;
        w->arrival = mem_realloc(w->arrival, (size_t)w->cap_arrivals, sizeof *w->arrival);
    }
    w->arrival[w->n_arrivals++] = *l;
}

/* ---- from node to node ---- */

/* Ends the chain: home, with the result or to the head's tail. */
static void finish(struct work *w, struct label *l)
{
    int from = w->c->node[l->node].device, last = w->tail - 1;
    double wire = place_wire_s(w->p, from, 0, last, w->x->g);

    l->lat += place_hop_s(w->p, from, 0, last, w->x->g);
    add_wire(w, l, from, 0, wire);
    if (!hopeful(w, l, 0))
        return;
    for (int a = 0; a < w->n_airs; a++)
        l->most = fmax(l->most, l->air[a]);
    w->z = z_of(l->lat, l->most, l->worth);
    w->best = new_label(w, l);
    w->best_tail = w->tail;
    w->alone = false;
}

/* All runs of a node that begin at cut i. */
static void extend(struct work *w, int node, int i, const struct label *from)
{
    int d = w->c->node[node].device, n = w->p->n_modules, first = w->cut[i];
    const double *sum = w->x->sum + (size_t)d * (size_t)(n + 1);
    double per_most = w->x->k / w->p->device[d].cap, step = w->p->device[d].step_s;
    int reach = w->x->room->reach[d * n + first];

    for (int j = i + 1; j < w->n_cuts && w->cut[j] <= reach; j++) {
        double run = step + sum[w->cut[j]] - sum[first];
        struct label l = *from;

        w->tries++;
        l.lat += run;
        l.most = fmax(l.most, run * per_most);
        l.node = node;
        l.end = w->cut[j];
        if (!hopeful(w, &l, w->x->rest[l.end] - w->x->rest[w->tail]))
            return; /* longer runs are no better */
        if (j < w->n_cuts - 1)
            keep(w, &w->cell[(size_t)node * (size_t)w->n_cuts + (size_t)j], &l);
        else if (w->c->node[node].may_end)
            finish(w, &l);
    }
}

static void arrive(struct work *w, int node, int i)
{
    const struct chart_node *to = &w->c->node[node];
    int m = w->cut[i];
    double rest = w->x->rest[m] - w->x->rest[w->tail];

    w->n_arrivals = 0;
    for (int k = 0; k < to->n_preds; k++) {
        int pred = w->c->pred[to->pred + k], from = w->c->node[pred].device;
        int at = w->cell[(size_t)pred * (size_t)w->n_cuts + (size_t)i];
        double wire, hop;

        if (at < 0)
            continue;
        wire = place_wire_s(w->p, from, to->device, m - 1, w->x->g);
        hop = place_hop_s(w->p, from, to->device, m - 1, w->x->g);
        for (; at >= 0; at = w->label[at].next) {
            struct label l = w->label[at];

            l.prev = at;
            l.lat += hop;
            l.worth += w->x->worth[to->device];
            add_wire(w, &l, from, to->device, wire);
            if (hopeful(w, &l, rest))
                keep_arrival(w, &l);
        }
    }
}

/* ---- one tail ---- */

static void set_cuts(struct work *w, int stride)
{
    w->n_cuts = 0;
    for (int m = 1; m < w->tail; m++)
        if (m % stride == 1 % stride)
            w->cut[w->n_cuts++] = m;
    w->cut[w->n_cuts++] = w->tail;
    for (int i = 0; i < w->c->n_nodes * w->n_cuts; i++)
        w->cell[i] = -1;
}

static struct label head_label(const struct work *w, int end)
{
    const struct place_device *head = &w->p->device[0];
    const double *sum = w->x->sum;
    int n = w->p->n_modules;
    double busy = head->step_s + sum[end];
    struct label l = {.prev = -1, .end = end};

    if (w->tail < n && end < n)
        busy += head->step_s + sum[n] - sum[w->tail];
    l.lat = w->p->head_s + busy;
    l.most = w->x->k * busy / head->cap;
    return l;
}

static void do_tail(struct work *w, int tail, int stride)
{
    w->tail = tail;
    set_cuts(w, stride);
    for (int i = 0; i < w->n_cuts - 1; i++) {
        struct label l = head_label(w, w->cut[i]);

        if (!hopeful(w, &l, w->x->rest[l.end] - w->x->rest[tail]))
            break;
        if (room_for_head(w->x->room, l.end, tail))
            keep(w, &w->cell[i], &l);
    }
    for (int node = 1; node < w->c->n_nodes; node++)
        for (int i = 0; i < w->n_cuts - 1 && !w->gave_up; i++) {
            arrive(w, node, i);
            for (int a = 0; a < w->n_arrivals; a++)
                extend(w, node, i, &w->arrival[a]);
            w->gave_up = w->tries_max && (w->tries > w->tries_max || w->n_labels > LABELS_MAX);
        }
}

static void do_alone(struct work *w)
{
    int n = w->p->n_modules;
    struct label l = head_label(w, n);

    w->tail = n;
    if (!w->c->head_alone || !room_for_head(w->x->room, n, n) || !hopeful(w, &l, 0))
        return;
    w->z = z_of(l.lat, l.most, l.worth);
    w->alone = true;
}

/* ---- all tails ---- */

static void find_airs(struct work *w)
{
    double cap = 1;

    for (int a = 0; a <= PLACE_AIRS_MAX; a++)
        w->air_at[a] = -1;
    for (int d = 0; d < w->p->n_devices; d++)
        cap = fmin(cap, w->p->device[d].cap);
    /* One group alone cannot keep anything busier than all the time. */
    w->plain = w->x->k == 1 && cap >= 1;
    if (w->x->k == 1)
        return;
    for (int i = 0; i < w->p->n_devices * w->p->n_devices; i++) {
        const struct place_link *l = &w->p->link[i];

        if (l->there && l->air && w->air_at[l->air] < 0)
            w->air_at[l->air] = w->n_airs++;
    }
}

static void read_back(const struct work *w, struct placement *out)
{
    int n = 0, chain[PLAN_DEVICES_MAX], n_modules = w->p->n_modules, first = 0;
    struct plan *plan = &out->plan;

    *out = (struct placement){.plan = {.n_devices = 1}};
    if (w->alone) {
        plan->stage[plan->n_stages++] = (struct plan_stage){0, 0, n_modules};
        return;
    }
    for (int at = w->best; at >= 0; at = w->label[at].prev)
        chain[n++] = at;
    plan->n_devices = n;
    for (int i = 0; i < n; i++) {
        const struct label *l = &w->label[chain[n - 1 - i]];

        out->used[i] = w->c->node[l->node].device;
        plan->stage[plan->n_stages++] = (struct plan_stage){i, first, l->end};
        first = l->end;
    }
    if (w->best_tail < n_modules)
        plan->stage[plan->n_stages++] = (struct plan_stage){0, w->best_tail, n_modules};
}

enum order_result order_best(const struct pace *x, const struct chart *c,
                             const struct order_opts *opts, double *z, struct placement *out)
{
    const struct place_problem *p = x->room->p;
    size_t n_cuts = (size_t)p->n_modules + 1;
    struct work w = {.x = x, .p = p, .c = c, .tries_max = opts->tries_max, .z = *z, .best = -1};

    w.cut = mem_zalloc(n_cuts, sizeof *w.cut);
    w.cell = mem_zalloc((size_t)c->n_nodes * n_cuts, sizeof *w.cell);
    find_airs(&w);
    do_alone(&w);
    for (int i = 0; i < x->room->n_tails && !w.gave_up; i++)
        do_tail(&w, x->room->tail[i], opts->stride);
    if (w.best >= 0 || w.alone) {
        read_back(&w, out);
        *z = w.z;
    }
    if (opts->tries)
        *opts->tries += w.tries;
    free(w.cut);
    free(w.cell);
    free(w.label);
    free(w.arrival);
    if (w.gave_up)
        return ORDER_GAVE_UP;
    return w.best >= 0 || w.alone ? ORDER_FOUND : ORDER_NONE;
}
