#include "plan/report.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/check.h"
#include "base/mem.h"
#include "plan/near.h"

/* ---- what each device is good for ---- */

/* The same problem, but for one device's part in it. */
struct other {
    struct place_problem p;
    struct place_device *device;   /* (n_devices) a copy */
    const struct placement *known; /* the plan that is reported on */
    struct placement *placement;
};

static void ask_other(struct other *o, int d, enum place_wish wish, struct report_device *out)
{
    enum place_wish was = o->device[d].wish;
    struct place_prediction found;

    o->device[d].wish = wish;
    if (!place_near(&o->p, o->known, d, o->placement, &out->why)) {
        place_predict(&o->p, &o->placement->plan, o->placement->used, &found);
        out->other_tokens_per_s = found.tokens_per_s;
        out->why.text[0] = '\0';
    }
    o->device[d].wish = was;
}

static void ask_others(const struct place_problem *p, struct report *r)
{
    size_t n = (size_t)p->n_devices;
    struct other o = {.p = *p,
                      .device = mem_zalloc(n, sizeof *o.device),
                      .known = &r->placement,
                      .placement = mem_zalloc(1, sizeof *o.placement)};

    memcpy(o.device, p->device, n * sizeof *o.device);
    o.p.device = o.device;
    (void)err_set(&r->device[0].why, ERR_INPUT,
                  "it is the head, which has the model and the conversation");
    for (int d = 1; d < p->n_devices; d++)
        ask_other(&o, d, r->device[d].used ? PLACE_NOT : PLACE_MUST, &r->device[d]);
    free(o.device);
    free(o.placement);
}

void report_make(const struct place_problem *p, const struct placement *placement,
                 struct report *out)
{
    CHECK(p->n_devices >= 1 && p->n_devices <= PLAN_DEVICES_MAX);
    memset(out, 0, sizeof *out);
    out->placement = *placement;
    place_predict(p, &placement->plan, placement->used, &out->prediction);
    place_standby(p, placement, NULL, &out->standby);
    for (int d = 0; d < placement->plan.n_devices; d++)
        out->device[placement->used[d]].used = true;
    ask_others(p, out);
}

/* ---- what limits it ---- */

struct limiter {
    const struct place_problem *p;
    const struct report *r;
};

/* The name of the device at a stage; before the first and behind the last it is the head. */
static const char *name_at(const struct limiter *l, int stage)
{
    const struct placement *f = &l->r->placement;
    bool head = stage < 0 || stage >= f->plan.n_stages;

    return l->p->device[head ? 0 : f->used[f->plan.stage[stage].device]].name;
}

static int index_at(const struct limiter *l, int stage)
{
    const struct placement *f = &l->r->placement;

    return stage < 0 || stage >= f->plan.n_stages ? 0 : f->used[f->plan.stage[stage].device];
}

/* Seconds that a step of the prediction's rows takes on the plan's device d, all its stages. */
static double device_s(const struct limiter *l, int d)
{
    const struct placement *f = &l->r->placement;
    double sum = 0;

    for (int s = 0; s < f->plan.n_stages; s++) {
        const struct plan_stage *st = &f->plan.stage[s];

        if (st->device == d)
            sum += place_run_s(l->p, f->used[d], st->first, st->end, l->r->prediction.g);
    }
    return sum;
}

static double hop_s(const struct limiter *l, int stage)
{
    int before = stage == 0 ? -1 : l->r->placement.plan.stage[stage - 1].end - 1;

    return place_hop_s(l->p, index_at(l, stage - 1), index_at(l, stage), before,
                       l->r->prediction.g);
}

/* The largest part of a step's way round, as words: "pi computes 61", "the way from a to b takes
 * 40", "the head's own work takes 5". */
static void largest_part(const struct limiter *l, char *buf, size_t cap)
{
    const struct placement *f = &l->r->placement;
    double most = l->p->head_s;

    snprintf(buf, cap, "sampling on %.60s takes %.3g", l->p->device[0].name, 1e3 * most);
    for (int d = 0; d < f->plan.n_devices; d++)
        if (device_s(l, d) > most) {
            most = device_s(l, d);
            snprintf(buf, cap, "%.60s computes %.3g", l->p->device[f->used[d]].name, 1e3 * most);
        }
    for (int s = 0; s <= f->plan.n_stages; s++)
        if (hop_s(l, s) > most) {
            most = hop_s(l, s);
            snprintf(buf, cap, "the way from %.60s to %.60s takes %.3g", name_at(l, s - 1),
                     name_at(l, s), 1e3 * most);
        }
}

static void latency_text(const struct limiter *l, char *buf, size_t cap)
{
    const struct place_prediction *f = &l->r->prediction;
    char part[200];

    largest_part(l, part, sizeof part);
    if (l->p->concurrency == 1)
        snprintf(buf, cap, "single stream: %s of %.3g ms per token", part, 1e3 * f->latency_s);
    else
        snprintf(buf, cap,
                 "%d streams: a step of %d row%s must come home before the next can go; %s of "
                 "its %.3g ms",
                 l->p->concurrency, f->g, f->g == 1 ? "" : "s", part, 1e3 * f->latency_s);
}

static void device_text(const struct limiter *l, const char *who, char *buf, size_t cap)
{
    const struct place_prediction *f = &l->r->prediction;
    const struct place_device *d = &l->p->device[l->r->placement.used[f->limit_at]];

    if (d->cap < 1)
        snprintf(buf, cap,
                 "%s: %.60s is busy %.0f %% of the time, which is as much as its cap "
                 "allows",
                 who, d->name, 100 * d->cap);
    else
        snprintf(buf, cap, "%s: %.60s is busy all the time", who, d->name);
}

void report_limit_text(const struct place_problem *p, const struct report *r, char *buf, size_t cap)
{
    const struct limiter l = {p, r};
    const struct place_prediction *f = &r->prediction;
    char who[32] = "single stream";

    if (p->concurrency > 1)
        snprintf(who, sizeof who, "%d streams", p->concurrency);
    switch (f->limit) {
    case PLACE_LIMIT_LATENCY:
        latency_text(&l, buf, cap);
        return;
    case PLACE_LIMIT_DEVICE:
        device_text(&l, who, buf, cap);
        return;
    case PLACE_LIMIT_LINK:
        snprintf(buf, cap, "%s: the link from %.60s to %.60s carries all it can", who,
                 name_at(&l, f->limit_at - 1), name_at(&l, f->limit_at));
        return;
    case PLACE_LIMIT_AIR:
        snprintf(buf, cap, "%s: the shared air (air %d) carries all it can", who, f->limit_at);
        return;
    }
    CHECK(!"a limit of another kind");
}

/* ---- who is left out ---- */

void report_left_out_text(const struct place_problem *p, const struct report *r, int device,
                          char *buf, size_t cap)
{
    const struct report_device *rd = &r->device[device];
    const struct place_device *from = &p->device[device];
    double own = r->prediction.tokens_per_s, with = rd->other_tokens_per_s;
    const char *asked = from->wish == PLACE_NOT ? "as asked for; " : "";

    /* As many digits as it takes to tell them apart. */
    int digits = own >= 99.95 ? 0 : own >= 9.995 ? 1 : 2;

    if (own > 0 && fabs(with - own) < 0.02 * own)
        digits++;
    if (*rd->why.text)
        snprintf(buf, cap, "%sit could not take part: %s", asked, rd->why.text);
    else if (with <= own || from->wish == PLACE_NOT)
        snprintf(buf, cap, "%swith it %.*f instead of %.*f tokens/s", asked, digits, with, digits,
                 own);
    else
        snprintf(buf, cap,
                 "with it %.*f instead of %.*f tokens/s, less than the %.3g %% it would have to "
                 "bring",
                 digits, with, digits, own, 100 * from->worth);
}
