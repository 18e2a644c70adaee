/* Brings the parts together.
 *
 *   1. check.c refuses what makes no sense, room.c says when nothing fits, and why.
 *   2. With few devices all chains of them are gone through at once (order.c on the chart of all):
 *      the best plan is then known to be the best, and nothing more is needed.
 *   3. With more, good orders are looked for, and milp.c gives what no plan can be better than, and
 *      perhaps a better order.
 *
 * Nothing depends on a clock, nothing is random: work is bounded by counting it. Of plans that are
 * equally good the one is taken that is found first. */
#include "plan/place.h"

#include <math.h>
#include <string.h>

#include "base/check.h"
#include "plan/bound.h"
#include "plan/milp.h"
#include "plan/search.h"

/* ---- what a given plan costs ---- */

static double score(const struct place_problem *p, const struct placement *q,
                    const struct place_prediction *x)
{
    double worth = 0;

    for (int i = 1; i < q->plan.n_devices; i++)
        worth += p->device[q->used[i]].worth;
    return (x->period_s * x->k + PLACE_LATENCY_WEIGHT * x->latency_s) / p->concurrency +
           place_reference_s(p) * worth;
}

static void judge(const struct place_problem *p, struct placement *q)
{
    struct place_prediction x;

    place_predict(p, &q->plan, q->used, &x);
    q->k = x.k;
    q->g = x.g;
    q->score = score(p, q, &x);
    for (int i = 0; i < q->plan.n_devices; i++)
        q->memory_bytes[i] = place_memory(p, &q->plan, i, q->used[i]);
}

/* Who is used is a device each, the head first, and as wished. */
static enum err judge_used(const struct place_problem *p, const struct placement *q,
                           struct err_text *et)
{
    bool used[PLAN_DEVICES_MAX] = {false};

    for (int i = 0; i < q->plan.n_devices; i++) {
        int d = q->used[i];

        if (d < 0 || d >= p->n_devices || used[d] || (i == 0) != (d == 0))
            return err_set(et, ERR_INPUT, "plan: its device %d is device %d of %d", i, d,
                           p->n_devices);
        used[d] = true;
        if (p->device[d].wish == PLACE_NOT)
            return err_set(et, ERR_INPUT, "device %s is in the plan and must not be used",
                           p->device[d].name);
    }
    for (int d = 1; d < p->n_devices; d++)
        if (p->device[d].wish == PLACE_MUST && !used[d])
            return err_set(et, ERR_INPUT, "device %s must be used and is not in the plan",
                           p->device[d].name);
    return ERR_NONE;
}

/* A path from the head, which alone may come back, for a tail. */
static enum err judge_path(const struct room *r, const struct plan *plan, struct err_text *et)
{
    for (int s = 0; s < plan->n_stages; s++) {
        const struct plan_stage *st = &plan->stage[s];
        bool tail = s > 0 && st->device == 0, may = false;

        for (int i = 0; i < r->n_tails - 1; i++)
            may |= st->first == r->tail[i];
        if (tail ? s < plan->n_stages - 1 || !may : st->device != s)
            return err_set(et, ERR_INPUT,
                           "plan: stage %d is on its device %d; a plan begins on the head, enters "
                           "each other device once, and may come back for a tail",
                           s, st->device);
    }
    return ERR_NONE;
}

static enum err judge_links(const struct place_problem *p, const struct placement *q,
                            struct err_text *et)
{
    for (int s = 1; s <= q->plan.n_stages; s++) {
        int from = q->used[q->plan.stage[s - 1].device], to = 0;

        if (s < q->plan.n_stages)
            to = q->used[q->plan.stage[s].device];
        if (from != to && !p->link[from * p->n_devices + to].there)
            return err_set(et, ERR_GONE, "%s cannot send to %s: link them", p->device[from].name,
                           p->device[to].name);
    }
    return ERR_NONE;
}

static enum err judge_room(const struct place_problem *p, const struct placement *q,
                           struct err_text *et)
{
    for (int s = 0; s < q->plan.n_stages; s++) {
        const struct plan_stage *st = &q->plan.stage[s];
        const struct place_device *d = &p->device[q->used[st->device]];
        uint64_t need = place_memory(p, &q->plan, st->device, q->used[st->device]);

        for (int m = st->first; m < st->end; m++)
            if (p->want_private && p->module[m].is_private && !d->mine)
                return err_set(et, ERR_INPUT,
                               "module %d is private and %s is not marked mine: mark it (lingua "
                               "devices mine %s), or do without --private",
                               m, d->name, d->name);
        if (need == UINT64_MAX || (d->memory_bytes && need > d->memory_bytes))
            return err_set(et, ERR_MEMORY,
                           "%s would need %llu MiB, and may take %llu: give it more memory, or "
                           "less to hold",
                           d->name, (unsigned long long)(need >> 20),
                           (unsigned long long)(d->memory_bytes >> 20));
    }
    return ERR_NONE;
}

static enum err judge_all(const struct place_problem *p, struct placement *out, struct err_text *et)
{
    struct room r;
    enum err e = plan_check(&out->plan, p->n_modules, et);

    if (e)
        return e;
    room_init(&r, p);
    e = judge_used(p, out, et);
    if (!e)
        e = judge_path(&r, &out->plan, et);
    if (!e)
        e = judge_links(p, out, et);
    if (!e)
        e = judge_room(p, out, et);
    if (!e)
        judge(p, out);
    room_fini(&r);
    return e;
}

enum err place_judge(const struct place_problem *p, struct placement *out, struct err_text *et)
{
    enum err e = place_check(p, et);

    return e ? e : judge_all(p, out, et);
}

enum err place_equal(const struct place_problem *p, struct placement *out, struct err_text *et)
{
    enum err e = place_check(p, et);
    int n = 0, at = 0;

    *out = (struct placement){.plan = {.n_devices = 0}};
    if (e)
        return e;
    for (int d = 0; d < p->n_devices && n < p->n_modules; d++)
        if (p->device[d].wish != PLACE_NOT)
            out->used[n++] = d;
    for (int i = 0; i < n; i++) {
        int count = p->n_modules / n + (i < p->n_modules % n);

        out->plan.stage[i] = (struct plan_stage){i, at, at + count};
        at += count;
    }
    out->plan.n_devices = out->plan.n_stages = n;
    return judge_all(p, out, et);
}

/* ---- the best plan ---- */

/* The form by module is exact, and slow beyond this. */
enum { COLUMNS_BY_MODULE = 2000, PROGRAMS_MAX = 4 };
/* Of the gap asked for: what CBC's rounding costs is to stay within it. */
#define STOP 0.99

/* Programs at one pace, as long as what they find makes a better plan: raises its bound. */
static double run_programs(struct search *s, int pace, const struct place_opts *opts,
                           struct placement *out)
{
    const struct pace *x = &s->pace[pace];
    struct milp_opts o = {.form = MILP_BY_KIND, .gap = opts->gap, .nodes_max = opts->nodes_max};
    double best = bound_weak(x);

    if (milp_columns_by_module(x) <= COLUMNS_BY_MODULE)
        o.form = MILP_BY_MODULE;
    for (int i = 0; i < PROGRAMS_MAX && best < s->z * (1 - STOP * opts->gap); i++) {
        struct milp_result r;
        double z = s->z;

        o.below = s->z * (1 - STOP * opts->gap);
        milp_solve(x, &o, &r);
        out->n_columns += r.n_columns;
        out->n_rows += r.n_rows;
        out->n_nodes += r.n_nodes;
        best = fmax(best, r.bound);
        if (r.found)
            search_around(s, r.order, r.n_order, best / (1 - STOP * opts->gap));
        if (!r.found || (s->z >= z && o.gap < opts->gap))
            break;
        if (s->z >= z)
            o.gap *= 0.1; /* no better plan: then once more for a better bound */
    }
    return best;
}

/* With many devices: good orders, then programs. Returns what no plan's z is below. */
static double find_near(struct search *s, const struct place_opts *opts, struct placement *out)
{
    double bound[PACES_MAX], least = INFINITY;

    for (int i = 0; i < s->n_paces; i++) {
        bound[i] = bound_weak(&s->pace[i]);
        least = fmin(least, bound[i]);
    }
    /* Without a program near orders are all there is to look at; else it knows where to look. */
    search_near(s, opts->quick ? least / (1 - STOP * opts->gap) : INFINITY);
    CHECK(s->found);
    for (int i = 0; i < s->n_paces && !opts->quick; i++)
        bound[i] = run_programs(s, i, opts, out);
    least = INFINITY;
    for (int i = 0; i < s->n_paces; i++)
        least = fmin(least, bound[i]);
    return least;
}

static void find(const struct room *r, const struct place_opts *opts, struct placement *out)
{
    struct placement size = {.n_orders = 0};
    struct search s;
    double least = 0;
    bool all;

    search_init(&s, r);
    all = search_all(&s);
    if (!all)
        least = find_near(&s, opts, &size);
    CHECK(s.found);
    *out = s.best;
    out->n_orders = s.n_orders;
    out->n_columns = size.n_columns;
    out->n_rows = size.n_rows;
    out->n_nodes = size.n_nodes;
    judge(r->p, out);
    out->bound = all ? out->score : fmin(least / r->p->concurrency, out->score);
    out->gap = out->score > 0 ? 1 - out->bound / out->score : 0;
    search_fini(&s);
}

enum err place_solve(const struct place_problem *p, const struct place_opts *opts,
                     struct placement *out, struct err_text *et)
{
    struct room r;
    enum err e = place_check(p, et);

    *out = (struct placement){.plan = {.n_devices = 0}};
    if (e)
        return e;
    room_init(&r, p);
    if (room_feasible(&r))
        find(&r, opts, out);
    else
        e = room_explain(&r, et);
    room_fini(&r);
    if (!e)
        e = plan_check(&out->plan, p->n_modules, et);
    return e;
}

/* ---- costs of a device that nobody has measured ---- */

void place_guess_cost(const struct place_problem *p, double bytes_per_s, struct place_cost *cost)
{
    for (int c = 0; c < p->n_classes; c++)
        cost[c] = (struct place_cost){.position = 0};
    for (int m = 0; m < p->n_modules; m++) {
        struct place_cost *c = &cost[p->module[m].class];
        double one = (double)p->module[m].decode_bytes / bytes_per_s;

        for (int b = 0; b < PLACE_BATCHES; b++)
            c->decode[b] = one * (1 << b <= 4 ? 1 : (1 << b) / 4.0);
        c->prefill = one / 4;
    }
}
