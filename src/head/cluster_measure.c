/* Predicted against measured. Every device keeps sums over decode steps (wire/step.h, step_decodes);
 * after each generation the head reads them, takes the difference to the time before, and knows by
 * part where the time of a token went:
 *
 *   computing    stage_us, whoever else was computing in between
 *   a stage      sent - arrived, on the device's own clock: computing, waiting, handing over
 *   a hop        arrived there - sent here, less how far the two clocks are apart (known to half
 *                the least round trip; an error of that goes from one hop to the next, the sum is
 *                right)
 *   the client   from a token's result to the same one's next: logits to it, sampling. A client is
 *                a program of this machine, or a generation of this one
 *
 * What is learnt goes into the next plan: each device's costs by a factor, its step_s, each link's
 * latency, head_s; slowly (LEARN), as one answer is not the next. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "base/sys.h"
#include "head/cluster_impl.h"

enum {
    TOKENS_MIN = 8,
    MEASURE_WAIT_MS = 400,
    PAUSE_US = 1000000,
    IDLE_US = 300000,
    METRICS_WAIT_US = 500000,
    BUSY_US = 10000000, /* under requests without a pause it is measured so often */
};
#define LEARN 0.7
/* What is learnt stays within these, whatever a device that is broken reports: beyond them a plan
 * would be refused for the sake of one device. */
#define FACTOR_MAX 50.0
#define STEP_S_MAX 1.0
#define HOP_S_MAX  10.0

/* ---- at the head ---- */

void cluster_meter_ask(struct cluster *c, struct beat *b, int n_rows)
{
    int64_t now = clock_us();

    b->one_row = n_rows == 1;
    if (b->one_row && b->home_us && now - b->home_us < PAUSE_US) {
        c->meter.client_us += now - b->home_us;
        c->meter.n_client++;
    }
    b->asked_us = now;
}

/* A token that came with rows of a prompt took longer than a token takes. */
void cluster_meter_reply(struct cluster *c, struct beat *b)
{
    int64_t now = clock_us(), from;

    if (b->one_row && c->home_decodes && b->home_us && b->asked_us - b->home_us < PAUSE_US) {
        c->meter.token_us += now - b->home_us;
        c->meter.n_tokens++;
        from = c->meter.last_us > b->home_us ? c->meter.last_us : b->home_us;
        c->meter.busy_us += now - from; /* not what lay between two answers */
        c->meter.last_us = now;
    }
    b->home_us = now;
}

static void count_rows(struct cluster *c, const struct step *s)
{
    c->sums.steps++;
    for (int i = 0; i < s->n_rows; i++) {
        bool alone = (i == 0 || s->slot[i - 1] != s->slot[i]) &&
                     (i + 1 == s->n_rows || s->slot[i + 1] != s->slot[i]);

        c->sums.rows_decoded += alone;
        c->sums.rows_read += !alone;
    }
}

/* A step goes out; what it is is remembered until it is home. */
void cluster_meter_send(struct cluster *c, const struct step *s)
{
    int n = step_decodes(s) ? s->n_rows : 0;

    count_rows(c, s);
    c->sent[s->number % SENT_MAX] = (struct sent){.number = s->number,
                                                  .n_want = s->n_want,
                                                  .hidden = step_wants(s) == STEP_WANT_HIDDEN,
                                                  .n_decode = n};
    c->n_decoding += n;
    if (n > 0)
        c->meter.by_rows[n]++;
    if (c->n_decoding > c->meter.streams)
        c->meter.streams = c->n_decoding;
}

void cluster_meter_home(struct cluster *c, uint64_t number)
{
    struct sent *s = &c->sent[number % SENT_MAX];

    c->home_decodes = s->number == number && s->n_decode > 0;
    if (c->home_decodes) {
        c->n_decoding -= s->n_decode;
        c->meter.home_us = clock_us();
        c->meter.home_sum_us += (uint64_t)c->meter.home_us;
        c->meter.n_home++;
    }
    if (s->number == number)
        s->number = 0; /* it comes home once, whatever a device sends */
}

void cluster_meter_epoch(struct cluster *c)
{
    memset(&c->meter, 0, sizeof c->meter);
    c->stock_us = clock_us();
    memset(c->sent, 0, sizeof c->sent);
    c->n_decoding = 0;
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

    if (n < TOKENS_MIN || now->stage_steps[k] < then->stage_steps[k] ||
        now->stage_us[k] < then->stage_us[k])
        return (struct stage_means){0};
    return (struct stage_means){
        .steps = n,
        .compute_s = (double)(now->stage_us[k] - then->stage_us[k]) / 1e6 / n,
        .arrived_s = (double)(now->arrived_us[k] - then->arrived_us[k]) / 1e6 / n - apart_s,
        .sent_s = (double)(now->sent_us[k] - then->sent_us[k]) / 1e6 / n - apart_s,
    };
}

/* Rows of a decode step. */
static double mean_rows(const struct meter *m)
{
    double steps = 0, rows = 0;

    for (int r = 1; r <= STEP_DECODE_ROWS; r++) {
        steps += (double)m->by_rows[r];
        rows += (double)m->by_rows[r] * r;
    }
    return steps > 0 ? rows / steps : 1;
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
    out->tokens = (int)lround(mean[0].steps * mean_rows(m));
    out->streams = m->streams;
    if (m->n_tokens)
        out->token_s = (double)m->token_us / 1e6 / (double)m->n_tokens;
    if (m->n_tokens && m->busy_us > 0)
        out->tokens_per_s = (double)m->n_tokens * 1e6 / (double)m->busy_us;
    if (m->streams > 1 &&
        m->busy_us > 0) { /* as many as there were on the average (Little's law) */
        int about = (int)lround(out->tokens_per_s * out->token_s);

        out->streams = about < 2 ? 2 : about < m->streams ? about : m->streams;
    }
    if (m->n_client)
        out->head_s = (double)m->client_us / 1e6 / (double)m->n_client;
    /* While steps are under way not everybody has counted the same ones. */
    out->has_hops = whole && m->n_home == (uint64_t)mean[0].steps && !core_view(c->core).n_flight;
    if (!out->has_hops)
        return true;
    for (int s = 1; s < p->n_stages; s++)
        out->hop_s[s] = mean[s].arrived_s - mean[s - 1].sent_s;
    out->hop_s[p->n_stages] =
        (double)m->home_sum_us / 1e6 / (double)m->n_home - mean[p->n_stages - 1].sent_s;
    return true;
}

/* ---- learning ---- */

/* least for NaN */
static double within(double value, double least, double most)
{
    return fmin(fmax(value, least), most);
}

static double learnt(double was, double seen, double most)
{
    return within(was + LEARN * (seen - was), 0, most);
}

/* Each device's costs, by what it computed against what it was thought to. */
static void learn_devices(struct cluster *c, const struct draft *thought_of,
                          const struct measured *m)
{
    const struct place_prediction *was = &m->was;
    const struct epoch *e = &c->running;

    for (int d = 0; d < e->plan.n_devices; d++) {
        struct member *member = &c->member[e->member[d]];
        double thought = 0, seen = 0, wait = 0;
        int n = 0;

        for (int s = 0; s < e->plan.n_stages; s++) {
            if (e->plan.stage[s].device != d)
                continue;
            thought += was->compute_s[s] - thought_of->device[d].step_s;
            seen += m->compute_s[s];
            wait += m->stage_s[s] - m->compute_s[s];
            n++;
        }
        if (n && thought > 0 && seen > 0)
            member->factor =
                within(member->factor * pow(seen / thought, LEARN), 1 / FACTOR_MAX, FACTOR_MAX);
        if (n && m->streams == 1 && wait >= 0)
            member->step_s = learnt(thought_of->device[d].step_s, wait / n, STEP_S_MAX);
    }
}

/* A link's latency is not below 0, so nothing is learnt that would ask for that. */
static double hop_learnt(double extra_s, double latency_s, double missing_s)
{
    return within(extra_s + fmax(LEARN * missing_s, -latency_s), -HOP_S_MAX, HOP_S_MAX);
}

static void learn_hops(struct cluster *c, const struct draft *thought_of, const struct measured *m)
{
    const struct place_prediction *was = &m->was;
    const struct epoch *e = &c->running;

    for (int s = 1; s <= e->plan.n_stages && m->has_hops && m->streams == 1; s++) {
        int from = e->plan.stage[s - 1].device;
        int to = s < e->plan.n_stages ? e->plan.stage[s].device : 0;
        double *extra_s = &c->hop_extra_s[e->member[from]][e->member[to]];

        if (from != to)
            *extra_s =
                hop_learnt(*extra_s, thought_of->link[from * e->plan.n_devices + to].latency_s,
                           m->hop_s[s] - was->hop_s[s]);
    }
    if (m->streams == 1 && m->head_s > 0)
        c->head_s = learnt(was->head_s, m->head_s, STEP_S_MAX);
}

/* What computing and the hops were to take, over steps of as many rows as there were. */
static void predict_mixture(const struct cluster *c, const struct place_problem *p,
                            struct place_prediction *out)
{
    const struct plan *plan = &c->running.plan;
    double steps = 0;

    for (int r = 1; r <= STEP_DECODE_ROWS; r++)
        steps += (double)c->meter.by_rows[r];
    if (steps <= 0)
        return;
    memset(out->compute_s, 0, sizeof out->compute_s);
    memset(out->hop_s, 0, sizeof out->hop_s);
    for (int r = 1; r <= STEP_DECODE_ROWS; r++) {
        double part = (double)c->meter.by_rows[r] / steps;

        for (int s = 0; part > 0 && s <= plan->n_stages; s++) {
            const struct plan_stage *st = &plan->stage[s];
            int from = s ? plan->stage[s - 1].device : 0, to = s < plan->n_stages ? st->device : 0;

            out->hop_s[s] +=
                part * place_hop_s(p, from, to, s ? plan->stage[s - 1].end - 1 : -1, r);
            if (s < plan->n_stages)
                out->compute_s[s] += part * place_run_s(p, to, st->first, st->end, r);
        }
    }
}

/* What would have been predicted for the plan that runs, knowing what was known before, and what
 * of: plan's devices. The caller's to free. */
static struct draft *predict(const struct cluster *c, int streams, struct place_prediction *out)
{
    const struct epoch *e = &c->running;
    struct draft *d = cluster_draft(c, e->member, e->plan.n_devices);
    int used[PLAN_DEVICES_MAX];

    for (int i = 0; i < e->plan.n_devices; i++)
        used[i] = i;
    d->p.concurrency = streams < 1                       ? 1
                       : streams > PLACE_CONCURRENCY_MAX ? PLACE_CONCURRENCY_MAX
                                                         : streams;
    place_predict(&d->p, &e->plan, used, out);
    predict_mixture(c, &d->p, out);
    return d;
}

static void take_stock(struct cluster *c)
{
    struct measured m;
    struct draft *thought_of;

    if (!c->running.number || c->measured_epoch != c->running.number || !measure(c, &m))
        return;
    thought_of = predict(c, m.streams, &m.was);
    learn_devices(c, thought_of, &m);
    learn_hops(c, thought_of, &m);
    free(thought_of);
    m.epoch = c->running.number;
    c->measured = m;
    for (int i = 0; i < c->n_members; i++)
        c->member[i].report_then = c->member[i].report;
    memset(&c->meter, 0, sizeof c->meter);
    c->stock_us = clock_us();
    cluster_changed(c);
}

/* ---- when ---- */

/* Between two tokens nothing is under way either: it is over when the client has gone, or has been
 * silent for a while. A head that always has requests is measured all the same, without its hops:
 * for these everybody must have seen the same steps. */
static bool is_over(const struct cluster *c, int64_t now_us)
{
    struct core_view v = core_view(c->core);
    bool anybody = v.n_streams > 0;

    for (int i = 0; i < CORE_CLIENTS_MAX; i++)
        anybody = anybody || (c->client[i].link && c->client[i].n_slots);
    if (v.n_streams > 0 && now_us - c->stock_us > BUSY_US)
        return true;
    return v.n_flight == 0 && (!anybody || now_us - c->meter.home_us > IDLE_US);
}

void cluster_measure_begin(struct cluster *c, int64_t now_us)
{
    if (c->meter.n_home < TOKENS_MIN || c->measure_until_us || !is_over(c, now_us))
        return;
    if (c->stats_asked_us && now_us - c->stats_asked_us < METRICS_WAIT_US)
        return; /* reports for metrics are on their way: they may be older than the last step */
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

void cluster_token_times(const struct cluster *c, double *predicted_s, double *measured_s)
{
    const struct measured *m = &c->measured;
    struct place_prediction p;

    *predicted_s = *measured_s = 0;
    if (!c->running.number)
        return;
    if (m->epoch != c->running.number) {
        free(predict(c, 1, &p));
        *predicted_s = p.token_s;
    } else if (m->streams == 1) {
        *predicted_s = m->was.token_s;
        *measured_s = m->token_s;
    } else if (m->tokens_per_s > 0 && m->was.tokens_per_s > 0) {
        *predicted_s = m->streams / m->was.tokens_per_s;
        *measured_s = m->streams / m->tokens_per_s;
    }
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
