/* A report as a JSON document. Devices are spoken of by their place in "devices", which is their
 * place in the problem. */
#include "head/plan_json.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "base/utf8.h"

enum { MODULES_TEXT_MAX = 96 };

struct doc {
    const struct place_problem *p;
    const struct model *m;
    const struct report *r;
    const struct plan_json_opts *opts;
};

/* ---- members ---- */

static void put(json_t *o, const char *key, json_t *value)
{
    json_object_set_new(o, key, value);
}

static void put_text(json_t *o, const char *key, const char *text)
{
    size_t n = strlen(text);
    char *clean = mem_alloc(n + 1);

    utf8_clean(clean, (const uint8_t *)text, n);
    put(o, key, json_string(clean));
    free(clean);
}

static void put_whole(json_t *o, const char *key, uint64_t value)
{
    put(o, key, json_integer((json_int_t)(value > INT64_MAX ? INT64_MAX : value)));
}

/* JSON has no word for endless. */
static json_t *real(double value)
{
    return isfinite(value) ? json_real(value) : json_null();
}

static void put_ms(json_t *o, const char *key, double seconds)
{
    put(o, key, real(1e3 * seconds));
}

/* ---- parts ---- */

/* The problem's device at a stage; in front of the first and behind the last it is the head. */
static int device_at(const struct doc *d, int stage)
{
    const struct placement *f = &d->r->placement;

    return stage < 0 || stage >= f->plan.n_stages ? f->used[0]
                                                  : f->used[f->plan.stage[stage].device];
}

/* The plan's number of a problem's device, or -1. */
static int plan_device(const struct doc *d, int device)
{
    const struct placement *f = &d->r->placement;

    for (int i = 0; i < f->plan.n_devices; i++)
        if (f->used[i] == device)
            return i;
    return -1;
}

static void run_text(const struct doc *d, int first, int end, char buf[MODULES_TEXT_MAX])
{
    const char *name = model_module(d->m, first)->name, *last = model_module(d->m, end - 1)->name;

    snprintf(buf, MODULES_TEXT_MAX, "%s%s%s", name, end - first > 1 ? ".." : "",
             end - first > 1 ? last : "");
}

static json_t *model_part(const struct doc *d)
{
    const struct model_shape *s = model_shape(d->m);
    json_t *o = json_object();

    put_text(o, "name", s->name);
    put_text(o, "arch", s->arch);
    put_text(o, "quantisation", s->type_name);
    put_whole(o, "weight_bytes", s->weight_bytes);
    put_whole(o, "n_modules", (uint64_t)d->p->n_modules);
    return o;
}

/* What it has in the plan. */
static void put_work(const struct doc *d, json_t *o, int is)
{
    const struct placement *f = &d->r->placement;
    const struct place_prediction *t = &d->r->prediction;
    char modules[MODULES_TEXT_MAX] = "";
    int n_modules = 0, at = plan_device(d, is);
    json_t *stages = json_array();
    double compute_s = 0;

    for (int s = 0; s < f->plan.n_stages; s++) {
        if (f->plan.stage[s].device != at)
            continue;
        json_array_append_new(stages, json_integer(s));
        n_modules += f->plan.stage[s].end - f->plan.stage[s].first;
        compute_s += t->compute_s[s];
    }
    if (at >= 0)
        plan_describe(&f->plan, d->m, at, modules, sizeof modules);
    put_text(o, "modules", modules);
    put_whole(o, "n_modules", (uint64_t)n_modules);
    put(o, "stages", stages);
    put_whole(o, "planned_bytes", at >= 0 ? f->memory_bytes[at] : 0);
    put_ms(o, "compute_ms", compute_s);
    put(o, "busy", real(at >= 0 ? t->busy[at] : 0));
}

/* What would be without it, or with it. */
static void put_other(const struct doc *d, json_t *o, int is)
{
    const struct report_device *rd = &d->r->device[is];
    double own = d->r->prediction.tokens_per_s;
    char why[ERR_TEXT_MAX + 64];

    put(o, "other_tokens_per_s", real(rd->other_tokens_per_s));
    if (!*rd->why.text && own > 0)
        put(o, rd->used ? "loses_percent" : "costs_percent",
            real(100 * (own - rd->other_tokens_per_s) / own));
    if (rd->used)
        snprintf(why, sizeof why, "%s", rd->why.text);
    else
        report_left_out_text(d->p, d->r, is, why, sizeof why);
    put_text(o, "why", why);
}

static json_t *device_part(const struct doc *d, int is)
{
    static const char *const wishes[] = {"may", "must", "not"};
    const struct place_device *from = &d->p->device[is];
    json_t *o = json_object();

    put_text(o, "name", from->name);
    put(o, "head", json_boolean(is == 0));
    put(o, "used", json_boolean(d->r->device[is].used));
    put_work(d, o, is);
    put_whole(o, "memory_bytes", from->memory_bytes);
    put_whole(o, "base_bytes", from->base_bytes);
    put_other(d, o, is);
    put(o, "use", json_string(wishes[from->wish]));
    put(o, "cap", real(from->cap));
    put(o, "worth_percent", real(100 * from->worth));
    put(o, "spare", json_boolean(from->worth >= PLACE_WORTH_SPARE));
    put(o, "mine", json_boolean(from->mine));
    put(o, "costs", json_string(d->opts->guessed && d->opts->guessed[is] ? "guessed" : "measured"));
    return o;
}

static json_t *stage_part(const struct doc *d, int s)
{
    const struct plan_stage *st = &d->r->placement.plan.stage[s];
    char modules[MODULES_TEXT_MAX];
    json_t *o = json_object();

    run_text(d, st->first, st->end, modules);
    put_whole(o, "device", (uint64_t)device_at(d, s));
    put_whole(o, "first", (uint64_t)st->first);
    put_whole(o, "end", (uint64_t)st->end);
    put_text(o, "modules", modules);
    put_ms(o, "compute_ms", d->r->prediction.compute_s[s]);
    return o;
}

/* The way to stage s; behind the last it is the way home. */
static json_t *hop_part(const struct doc *d, int s)
{
    int from = device_at(d, s - 1), to = device_at(d, s);
    int before = s == 0 ? -1 : d->r->placement.plan.stage[s - 1].end - 1;
    const struct place_link *l = &d->p->link[from * d->p->n_devices + to];
    json_t *o = json_object();

    put_whole(o, "from", (uint64_t)from);
    put_whole(o, "to", (uint64_t)to);
    put_ms(o, "hop_ms", d->r->prediction.hop_s[s]);
    if (from == to)
        return o;
    put_ms(o, "latency_ms", l->latency_s);
    put(o, "rate_mbit", real(l->bytes_per_s * 8 / 1e6));
    put(o, "sent_bytes",
        real((double)d->p->frame_bytes +
             (before < 0 ? sizeof(int32_t) : (double)d->p->module[before].out_bytes)));
    put_whole(o, "air", (uint64_t)l->air);
    return o;
}

static json_t *prediction_part(const struct doc *d)
{
    static const char *const limits[] = {"latency", "device", "link", "air"};
    const struct place_prediction *t = &d->r->prediction;
    int n = d->r->placement.plan.n_stages;
    json_t *o = json_object(), *compute = json_array(), *hops = json_array();

    for (int s = 0; s < n; s++)
        json_array_append_new(compute, real(1e3 * t->compute_s[s]));
    for (int s = 0; s <= n; s++)
        json_array_append_new(hops, real(1e3 * t->hop_s[s]));
    put_ms(o, "ms_per_token", t->token_s);
    put(o, "compute_ms", compute);
    put(o, "hop_ms", hops);
    put_ms(o, "head_ms", t->head_s);
    put(o, "tokens_per_s", real(t->tokens_per_s));
    put_ms(o, "ttft_ms", t->ttft_s);
    put_ms(o, "period_ms", t->period_s);
    put_ms(o, "latency_ms", t->latency_s);
    put_whole(o, "k", (uint64_t)t->k);
    put_whole(o, "g", (uint64_t)t->g);
    put(o, "limit", json_string(limits[t->limit]));
    return o;
}

static json_t *program_part(const struct doc *d)
{
    const struct placement *f = &d->r->placement;
    json_t *o = json_object();

    put_whole(o, "columns", (uint64_t)f->n_columns);
    put_whole(o, "rows", (uint64_t)f->n_rows);
    put_whole(o, "nodes", (uint64_t)f->n_nodes);
    put_whole(o, "orders", (uint64_t)f->n_orders);
    put_ms(o, "score_ms", f->score);
    put_ms(o, "bound_ms", f->bound);
    put(o, "gap", real(f->gap));
    put(o, "solve_ms", real(d->opts->solve_ms));
    return o;
}

static void put_copies(const struct doc *d, json_t *list, int stage, int first, int end)
{
    char modules[MODULES_TEXT_MAX];
    uint64_t bytes = 0;
    json_t *o;

    if (first >= end)
        return;
    for (int m = first; m < end; m++)
        bytes += d->p->module[m].weight_bytes;
    run_text(d, first, end, modules);
    o = json_object();
    put_whole(o, "device", (uint64_t)device_at(d, stage));
    put_whole(o, "first", (uint64_t)first);
    put_whole(o, "end", (uint64_t)end);
    put_text(o, "modules", modules);
    put_whole(o, "weight_bytes", bytes);
    json_array_append_new(list, o);
}

static json_t *standby_part(const struct doc *d)
{
    const struct place_standby *s = &d->r->standby;
    json_t *o = json_object(), *list = json_array();

    for (int i = 0; i < d->r->placement.plan.n_stages; i++) {
        put_copies(d, list, i, s->before[i].first, s->before[i].end);
        put_copies(d, list, i, s->after[i].first, s->after[i].end);
    }
    put_whole(o, "weight_bytes", s->bytes);
    put(o, "copies", list);
    return o;
}

/* ---- the whole ---- */

json_t *plan_json(const struct place_problem *p, const struct model *m, const struct report *r,
                  const struct plan_json_opts *opts)
{
    const struct doc d = {p, m, r, opts};
    json_t *o = json_object(), *devices = json_array(), *stages = json_array(),
           *hops = json_array();
    char limit[256];

    for (int i = 0; i < p->n_devices; i++)
        json_array_append_new(devices, device_part(&d, i));
    for (int s = 0; s < r->placement.plan.n_stages; s++)
        json_array_append_new(stages, stage_part(&d, s));
    for (int s = 0; s <= r->placement.plan.n_stages; s++)
        json_array_append_new(hops, hop_part(&d, s));
    report_limit_text(p, r, limit, sizeof limit);
    put_text(o, "note", opts->note ? opts->note : "");
    put(o, "model", model_part(&d));
    put_whole(o, "concurrency", (uint64_t)p->concurrency);
    put_whole(o, "n_ctx", (uint64_t)p->n_ctx);
    put_whole(o, "n_slots", (uint64_t)p->n_slots);
    put_whole(o, "depth", (uint64_t)p->depth);
    put_whole(o, "prompt", (uint64_t)p->prompt);
    put_whole(o, "group_max", (uint64_t)p->group_max);
    put(o, "private", json_boolean(p->want_private));
    put(o, "devices", devices);
    put(o, "stages", stages);
    put(o, "hops", hops);
    put(o, "prediction", prediction_part(&d));
    put_text(o, "limit", limit);
    put(o, "program", program_part(&d));
    put(o, "standby", standby_part(&d));
    return o;
}
