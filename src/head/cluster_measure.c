/* Predicted against measured. Every device keeps sums over decode steps (message.proto, Report);
 * after each generation the head reads them, takes the difference to the time before, and knows by
 * part where the time of a token went:
 *
 *   computing    stage_us, whoever else was computing in between
 *   a stage      sent - arrived, on the device's own clock: computing, waiting, handing over
 *   a hop        arrived there - sent here, less how far the two clocks are apart (known to half
 *                the least round trip; an error of that goes from one hop to the next, the sum is
 *                right)
 *   the client   from a token's result to the next step of the same client: logits to it, sampling
 *
 * What is learnt goes into the next plan: each device's costs by a factor, its step_s, each link's
 * latency, head_s; slowly (LEARN), as one answer is not the next. */
#include <math.h>
#include <string.h>

#include "base/mem.h"
#include "base/sys.h"
#include "head/cluster_impl.h"

enum { TOKENS_MIN = 8, MEASURE_WAIT_MS = 400, PAUSE_US = 1000000, IDLE_US = 300000 };
#define LEARN 0.7

/* ---- at the head ---- */

void cluster_meter_ask(struct cluster *c, struct client *cl, int n_rows)
{
    int64_t now = clock_us();

    cl->one_row = n_rows == 1;
    if (cl->one_row && cl->home_us && now - cl->home_us < PAUSE_US) {
        c->meter.client_us += now - cl->home_us;
        c->meter.n_client++;
    }
    cl->asked_us = now;
}

void cluster_meter_reply(struct cluster *c, struct client *cl)
{
    int64_t now = clock_us();

    if (cl->one_row && cl->home_us && cl->asked_us - cl->home_us < PAUSE_US) {
        c->meter.token_us += now - cl->home_us;
        c->meter.n_tokens++;
        if (!c->meter.first_us)
            c->meter.first_us = cl->home_us;
        c->meter.last_us = now;
    }
    cl->home_us = now;
}

/* A step of one row goes out; its number is remembered until it is home. */
void cluster_meter_send(struct cluster *c, const struct step *s)
{
    c->one_row[s->number % METER_STEPS] = s->n_rows == 1 ? s->number : 0;
    c->n_one_row += s->n_rows == 1;
    if (c->n_one_row > c->meter.streams)
        c->meter.streams = c->n_one_row;
}

void cluster_meter_home(struct cluster *c, uint64_t number)
{
    if (c->one_row[number % METER_STEPS] != number)
        return;
    c->n_one_row--;
    c->meter.home_us = clock_us();
    c->meter.home_sum_us += (uint64_t)c->meter.home_us;
    c->meter.n_home++;
}

void cluster_meter_epoch(struct cluster *c)
{
    memset(&c->meter, 0, sizeof c->meter);
    memset(c->one_row, 0, sizeof c->one_row);
    c->n_one_row = 0;
    for (int i = 0; i < c->n_members; i++)
        memset(&c->member[i].report_then, 0, sizeof c->member[i].report_then);
}

/* ---- by part ---- */

/* Means over the steps since last time, of one stage; in the head's clock. */
struct stage_means {
    double steps, compute_s, arrived_s, sent_s;
};

/* Which of its device's stages a stage of the plan is. */
static int which(const struct plan *p, int stage)
{
    int n = 0;

    for (int s = 0; s < stage; s++)
        n += p->stage[s].device == p->stage[stage].device;
    return n;
}

static struct stage_means means_of(const struct cluster *c, int stage)
{
    const struct epoch *e = &c->running;
    const struct member *m = &c->member[e->member[e->plan.stage[stage].device]];
    const struct wire_report *now = &m->report, *then = &m->report_then;
    int k = which(&e->plan, stage);
    double n = (double)(now->stage_steps[k] - then->stage_steps[k]);
    double apart_s = m->id ? (double)m->offset_us / 1e6 : 0;

    if (n < TOKENS_MIN || now->stage_steps[k] < then->stage_steps[k])
        return (struct stage_means){0};
    return (struct stage_means){
        .steps = n,
        .compute_s = (double)(now->stage_us[k] - then->stage_us[k]) / 1e6 / n,
        .arrived_s = (double)(now->arrived_us[k] - then->arrived_us[k]) / 1e6 / n - apart_s,
        .sent_s = (double)(now->sent_us[k] - then->sent_us[k]) / 1e6 / n - apart_s,
    };
}

/* Fills what was measured; false when there is too little of it. */
static bool measure(const struct cluster *c, struct measured *out)
{
    const struct plan *p = &c->running.plan;
    const struct meter *m = &c->meter;
    struct stage_means mean[PLAN_STAGES_MAX];
    bool whole = true;

    memset(out, 0, sizeof *out);
    for (int s = 0; s < p->n_stages; s++) {
        mean[s] = means_of(c, s);
        if (mean[s].steps <= 0)
            return false;
        whole = whole && mean[s].steps == mean[0].steps;
        out->compute_s[s] = mean[s].compute_s;
        out->stage_s[s] = mean[s].sent_s - mean[s].arrived_s;
    }
    out->n_stages = p->n_stages;
    out->tokens = (int)mean[0].steps;
    out->streams = m->streams;
    if (m->n_tokens)
        out->token_s = (double)m->token_us / 1e6 / (double)m->n_tokens;
    if (m->n_tokens && m->last_us > m->first_us)
        out->tokens_per_s = (double)m->n_tokens * 1e6 / (double)(m->last_us - m->first_us);
    if (m->n_client)
        out->head_s = (double)m->client_us / 1e6 / (double)m->n_client;
    out->has_hops = whole && m->n_home == (uint64_t)mean[0].steps;
    if (!out->has_hops)
        return true;
    for (int s = 1; s < p->n_stages; s++)
        out->hop_s[s] = mean[s].arrived_s - mean[s - 1].sent_s;
    out->hop_s[p->n_stages] =
        (double)m->home_sum_us / 1e6 / (double)m->n_home - mean[p->n_stages - 1].sent_s;
    return true;
}

/* ---- learning ---- */

static void learn(double *value, double was, double seen)
{
    *value = was + LEARN * (seen - was);
}

/* Each device's costs, by what it computed against what it was thought to. */
static void learn_devices(struct cluster *c, const struct place_prediction *was,
                          const struct measured *m)
{
    const struct epoch *e = &c->running;

    for (int d = 0; d < e->plan.n_devices; d++) {
        struct member *member = &c->member[e->member[d]];
        double thought = 0, seen = 0, wait = 0;
        int n = 0;

        for (int s = 0; s < e->plan.n_stages; s++) {
            if (e->plan.stage[s].device != d)
                continue;
            thought += was->compute_s[s] - c->measured_step_s[d];
            seen += m->compute_s[s];
            wait += m->stage_s[s] - m->compute_s[s];
            n++;
        }
        if (n && thought > 0 && seen > 0)
            member->factor *= pow(seen / thought, LEARN);
        if (n && m->streams == 1 && wait >= 0)
            learn(&member->step_s, c->measured_step_s[d], wait / n);
    }
}

static void learn_hops(struct cluster *c, const struct place_prediction *was,
                       const struct measured *m)
{
    const struct epoch *e = &c->running;

    for (int s = 1; s <= e->plan.n_stages && m->has_hops && m->streams == 1; s++) {
        int from = e->member[e->plan.stage[s - 1].device];
        int to = s < e->plan.n_stages ? e->member[e->plan.stage[s].device] : 0;

        if (from != to)
            c->hop_extra_s[from][to] += LEARN * (m->hop_s[s] - was->hop_s[s]);
    }
    if (m->streams == 1 && m->head_s > 0)
        learn(&c->head_s, was->head_s, m->head_s);
}

/* What would have been predicted for the plan that runs, knowing what was known before. */
static void predict(struct cluster *c, int streams, struct place_prediction *out)
{
    const struct epoch *e = &c->running;
    struct draft *d = cluster_draft(c, e->member, e->plan.n_devices);
    int used[PLAN_DEVICES_MAX];

    for (int i = 0; i < e->plan.n_devices; i++) {
        used[i] = i;
        c->measured_step_s[i] = d->device[i].step_s;
    }
    d->p.concurrency = streams > 0 ? streams : 1;
    place_predict(&d->p, &e->plan, used, out);
    planner_job_free(planner_job_new(d));
}

static void take_stock(struct cluster *c)
{
    struct measured m;

    if (!c->running.number || c->measured_epoch != c->running.number || !measure(c, &m))
        return;
    predict(c, m.streams, &m.was);
    learn_devices(c, &m.was, &m);
    learn_hops(c, &m.was, &m);
    m.epoch = c->running.number;
    c->measured = m;
    for (int i = 0; i < c->n_members; i++)
        c->member[i].report_then = c->member[i].report;
    memset(&c->meter, 0, sizeof c->meter);
    cluster_changed(c);
}

/* ---- when ---- */

/* Between two tokens nothing is under way either: it is over when the client has gone, or has been
 * silent for a while. */
static bool is_over(const struct cluster *c, int64_t now_us)
{
    bool anybody = false;

    for (int i = 0; i < CORE_CLIENTS_MAX; i++)
        anybody = anybody || (c->client[i].link && c->client[i].n_slots);
    return core_view(c->core).n_flight == 0 && (!anybody || now_us - c->meter.home_us > IDLE_US);
}

void cluster_measure_begin(struct cluster *c, int64_t now_us)
{
    if (c->meter.n_home < TOKENS_MIN || c->measure_until_us || !is_over(c, now_us))
        return;
    c->measured_epoch = c->running.number;
    c->measure_until_us = now_us + (int64_t)MEASURE_WAIT_MS * 1000;
    cluster_ask_members(c);
}

void cluster_measure_end(struct cluster *c, int64_t now_us, bool all_reported)
{
    if (!c->measure_until_us || (!all_reported && now_us < c->measure_until_us))
        return;
    c->measure_until_us = 0;
    if (all_reported)
        take_stock(c);
}

/* ---- told ---- */

/* In milliseconds, null when the part is not known. */
static json_t *list_of(const double *seconds, int n, bool known)
{
    json_t *list = json_array();

    for (int i = 0; i < n; i++)
        json_array_append_new(list, known ? json_real(1e3 * seconds[i]) : json_null());
    return list;
}

static json_t *times(const double *stage_s, const double *hop_s, int n, bool hops)
{
    json_t *o = json_object();

    json_object_set_new(o, "compute_ms", list_of(stage_s, n, true));
    json_object_set_new(o, "hop_ms", list_of(hop_s, n + 1, hops));
    return o;
}

static void put_ms(json_t *o, const char *key, double seconds)
{
    json_object_set_new(o, key, json_real(1e3 * seconds));
}

/* The share by which a token was thought to take longer than it did. */
static double error_of(const struct measured *m)
{
    if (m->streams == 1 && m->token_s > 0)
        return m->was.token_s / m->token_s - 1;
    return m->tokens_per_s > 0 ? m->tokens_per_s / m->was.tokens_per_s - 1 : 0;
}

/* Whose parts these are: a plan that was asked for on paper may be another one. */
static json_t *stages_json(const struct cluster *c)
{
    const struct plan *plan = &c->running.plan;
    json_t *list = json_array();

    for (int s = 0; s < plan->n_stages; s++) {
        const struct plan_stage *st = &plan->stage[s];
        const struct plan one = {.n_devices = 1, .n_stages = 1, .stage = {{0, st->first, st->end}}};
        const struct member *m = &c->member[c->running.member[st->device]];
        json_t *name = json_string(m->able.name);
        char modules[64];

        plan_describe(&one, c->model, 0, modules, sizeof modules);
        json_array_append_new(list, json_pack("{s:o, s:s}", "name", name ? name : json_string("?"),
                                              "modules", modules));
    }
    return list;
}

json_t *cluster_measured_json(const struct cluster *c)
{
    const struct measured *m = &c->measured;
    json_t *o, *was;

    if (!m->epoch || m->epoch != c->running.number)
        return json_null();
    was = times(m->was.compute_s, m->was.hop_s, m->n_stages, true);
    put_ms(was, "head_ms", m->was.head_s);
    put_ms(was, "ms_per_token", m->was.token_s);
    json_object_set_new(was, "tokens_per_s", json_real(m->was.tokens_per_s));
    o = times(m->stage_s, m->hop_s, m->n_stages, m->has_hops);
    put_ms(o, "head_ms", m->head_s);
    put_ms(o, "ms_per_token", m->token_s);
    json_object_set_new(o, "tokens_per_s", json_real(m->tokens_per_s));
    json_object_set_new(o, "tokens", json_integer(m->tokens));
    json_object_set_new(o, "streams", json_integer(m->streams));
    json_object_set_new(o, "error_percent", json_real(100 * error_of(m)));
    json_object_set_new(o, "predicted", was);
    json_object_set_new(o, "stages", stages_json(c));
    return o;
}
