/* The cluster as JSON, what remote.h describes: what its devices make together. Stages and hops are in
 * the order in which a token passes them: hops[i] is in front of stages[i], the last one leads home. */
#include <time.h>

#include "base/sys.h"
#include "head/cluster_impl.h"

void json_set_u64(json_t *o, const char *key, uint64_t value)
{
    json_object_set_new(o, key, json_integer((json_int_t)value));
}

void json_set_text(json_t *o, const char *key, const char *value)
{
    json_t *text = json_string(value);

    json_object_set_new(o, key, text ? text : json_string("?"));
}

const struct place_prediction *cluster_prediction(const struct cluster *c)
{
    const struct planner_job *job = c->planned;
    const struct plan *p = &c->running.plan;

    if (!c->running.number || !job || !job->report || job->found.plan.n_stages != p->n_stages)
        return NULL;
    for (int s = 0; s < p->n_stages; s++)
        if (job->found.plan.stage[s].first != p->stage[s].first ||
            job->draft->member[job->found.used[job->found.plan.stage[s].device]] !=
                c->running.member[p->stage[s].device])
            return NULL;
    return &job->report->prediction;
}

json_t *cluster_predicted_json(const struct cluster *c)
{
    const struct place_prediction *of = cluster_prediction(c);
    json_t *list = json_array();

    for (int s = 0; of && s < c->running.plan.n_stages; s++)
        json_array_append_new(list, json_real(1e3 * of->compute_s[s]));
    return list;
}

/* What the last plan promises, and who is not in it and why; null when there is none. */
json_t *cluster_plan_json(const struct cluster *c)
{
    const struct planner_job *job = c->planned;
    json_t *o, *left = json_array();
    char limit[256], why[ERR_TEXT_MAX + 64];

    if (!job || !job->report) {
        json_decref(left);
        return json_null();
    }
    report_limit_text(&job->draft->p, job->report, limit, sizeof limit);
    for (int i = 0; i < job->draft->p.n_devices; i++) {
        const struct report_device *d = &job->report->device[i];

        if (d->used)
            continue;
        o = json_object();
        json_set_text(o, "name", job->draft->name[i]);
        json_object_set_new(o, "tokens_per_s_with_it", json_real(d->other_tokens_per_s));
        report_left_out_text(&job->draft->p, job->report, i, why, sizeof why);
        json_set_text(o, "why", why);
        json_array_append_new(left, o);
    }
    o = json_object();
    json_set_u64(o, "concurrency", (uint64_t)job->draft->p.concurrency);
    json_object_set_new(o, "ms_per_token", json_real(1e3 * job->report->prediction.token_s));
    json_object_set_new(o, "tokens_per_s", json_real(job->report->prediction.tokens_per_s));
    json_object_set_new(o, "ttft_ms", json_real(1e3 * job->report->prediction.ttft_s));
    json_set_u64(o, "prompt", (uint64_t)job->draft->p.prompt);
    json_set_text(o, "limit", limit);
    json_object_set_new(o, "gap_percent", json_real(100 * job->found.gap));
    json_object_set_new(o, "stayed", json_boolean(job->stayed));
    json_object_set_new(o, "left_out", left);
    return o;
}

/* What was thought, and what was measured, of the plan that runs. Where there is a measuring, the
 * thought is the one it goes with: of as many streams. */
struct times {
    const struct place_prediction *thought; /* NULL: nothing is known */
    const struct measured *seen;            /* NULL: not measured yet */
};

static struct times times_of(const struct cluster *c)
{
    struct times t = {.thought = cluster_prediction(c)};

    if (c->measured.epoch && c->measured.epoch == c->running.number) {
        t.seen = &c->measured;
        t.thought = &c->measured.was;
    }
    return t;
}

static json_t *ms_or_null(bool known, double seconds)
{
    return known ? json_real(1e3 * seconds) : json_null();
}

static json_t *number_or_null(double value)
{
    return value > 0 ? json_real(value) : json_null();
}

static uint64_t less(uint64_t a, uint64_t b)
{
    return a < b ? a : b;
}

/* As its device holds them: what `embed` and `output` share is there once. */
static uint64_t stage_bytes(const struct cluster *c, int stage)
{
    const struct plan *p = &c->running.plan;
    const struct plan_stage *st = &p->stage[stage];
    uint64_t bytes = 0;

    for (int i = st->first; i < st->end; i++)
        bytes += c->modules[i].weight_bytes;
    return stage == p->n_stages - 1 && p->stage[0].device == st->device
               ? bytes - less(bytes, c->problem.tied_bytes)
               : bytes;
}

static json_t *stage_json(const struct cluster *c, const struct times *t, int stage)
{
    const struct plan_stage *st = &c->running.plan.stage[stage];
    const struct plan one = {.n_devices = 1, .n_stages = 1, .stage = {{0, st->first, st->end}}};
    json_t *o = json_object();
    char modules[64];

    plan_describe(&one, c->model, 0, modules, sizeof modules);
    json_set_text(o, "device", c->member[c->running.member[st->device]].able.name);
    json_object_set_new(o, "first", json_integer(st->first));
    json_object_set_new(o, "last", json_integer(st->end - 1));
    json_set_text(o, "text", modules);
    json_set_u64(o, "weight_bytes", stage_bytes(c, stage));
    json_object_set_new(o, "predicted_ms",
                        ms_or_null(t->thought, t->thought ? t->thought->compute_s[stage] : 0));
    json_object_set_new(o, "measured_ms",
                        ms_or_null(t->seen, t->seen ? t->seen->stage_s[stage] : 0));
    return o;
}

/* What the way from one member to another carries per second; 0 = not known. */
static uint64_t rate(const struct cluster *c, int from, int to, bool relayed)
{
    if (!from || !to || relayed)
        return less(from ? c->member[from].in_bytes_per_s : UINT64_MAX,
                    to ? c->member[to].out_bytes_per_s : UINT64_MAX);
    return c->speed[from][to].out_bytes_per_s;
}

static bool is_relayed(const struct epoch *e, int from, int to)
{
    int a = from < to ? from : to, b = from < to ? to : from;

    return a > 0 && e->pair[a][b] == PAIR_RELAY;
}

/* A device that sends at more than one place says only what it sent in all. */
static double bytes_per_token(const struct cluster *c, int stage)
{
    const struct plan *p = &c->running.plan;
    int device = stage > 0 ? p->stage[stage - 1].device : -1, n = 0;
    const struct wire_report *r;

    for (int s = 1; s <= p->n_stages; s++)
        n += p->stage[s - 1].device == device &&
             (s < p->n_stages ? p->stage[s].device : 0) != device;
    if (n != 1)
        return 0;
    r = &c->member[c->running.member[device]].report;
    return r->decode_steps ? (double)r->decode_sent_bytes / (double)r->decode_steps : 0;
}

static json_t *hop_json(const struct cluster *c, const struct times *t, int stage)
{
    const struct epoch *e = &c->running;
    int from = stage > 0 ? e->plan.stage[stage - 1].device : 0;
    int to = stage < e->plan.n_stages ? e->plan.stage[stage].device : 0;
    bool relayed = is_relayed(e, from, to), seen = t->seen && t->seen->has_hops;
    struct cluster_hop_stats h;
    bool leaves = cluster_hop(c, stage, &h);
    json_t *o = json_object();

    if (relayed)
        h.latency_s =
            (double)(c->member[e->member[from]].rtt_us + c->member[e->member[to]].rtt_us) / 2e6;
    json_set_text(o, "from", h.from);
    json_set_text(o, "to", h.to);
    json_set_text(o, "via", relayed ? "head" : "direct");
    json_object_set_new(o, "latency_ms", number_or_null(1e3 * h.latency_s));
    json_object_set_new(
        o, "bytes_per_s",
        number_or_null(leaves ? (double)rate(c, e->member[from], e->member[to], relayed) : 0));
    json_set_u64(o, "bytes", h.bytes);
    json_set_u64(o, "frames", h.frames);
    json_object_set_new(o, "bytes_per_token",
                        number_or_null(leaves ? bytes_per_token(c, stage) : 0));
    json_object_set_new(o, "predicted_ms",
                        ms_or_null(t->thought, t->thought ? t->thought->hop_s[stage] : 0));
    json_object_set_new(o, "measured_ms", ms_or_null(seen, seen ? t->seen->hop_s[stage] : 0));
    return o;
}

/* Of one token of one answer alone. */
static json_t *predicted_json(const struct place_prediction *p, int n_stages)
{
    double compute_s = 0, hops_s = 0;

    if (!p)
        return json_null();
    for (int s = 0; s <= n_stages; s++) {
        compute_s += s < n_stages ? p->compute_s[s] : 0;
        hops_s += p->hop_s[s];
    }
    return json_pack("{s:f, s:f, s:f, s:f, s:f, s:f}", "token_ms", 1e3 * p->token_s, "compute_ms",
                     1e3 * compute_s, "hops_ms", 1e3 * hops_s, "head_ms", 1e3 * p->head_s,
                     "tokens_per_s", p->tokens_per_s, "ttft_ms", 1e3 * p->ttft_s);
}

static json_t *slots_json(const struct cluster *c, const struct core_view *v)
{
    return json_pack("{s:i, s:i, s:i}", "n", c->segment.n_slots, "busy", v->n_slots_taken,
                     "waiting", v->n_waiting);
}

static json_t *speed_json(const struct cluster *c, const struct core_view *v)
{
    double read_per_s, decoded_per_s;

    cluster_lately(c, &read_per_s, &decoded_per_s);
    return json_pack("{s:f, s:i, s:f}", "tokens_per_s", decoded_per_s, "streams", v->n_streams,
                     "prefill_tokens_per_s", read_per_s);
}

static json_int_t unix_ms(void)
{
    struct timespec now;

    clock_gettime(CLOCK_REALTIME, &now);
    return (json_int_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

void cluster_chain_json(const struct cluster *c, json_t *o)
{
    struct core_view v = core_view(c->core);
    struct times t = times_of(c);
    json_t *stages = json_array(), *hops = json_array();
    int n = v.state == CORE_RUNNING ? c->running.plan.n_stages : -1; /* -1: none runs */

    for (int s = 0; s <= n; s++) {
        if (s < n)
            json_array_append_new(stages, stage_json(c, &t, s));
        json_array_append_new(hops, hop_json(c, &t, s));
    }
    json_object_set_new(o, "slots", slots_json(c, &v));
    json_object_set_new(o, "speed", speed_json(c, &v));
    json_object_set_new(o, "stages", stages);
    json_object_set_new(o, "hops", hops);
    json_object_set_new(o, "plan", cluster_plan_json(c));
    json_object_set_new(o, "predicted", predicted_json(cluster_prediction(c), n));
    json_object_set_new(o, "measured", cluster_measured_json(c));
    json_object_set_new(o, "time_ms", json_integer(unix_ms()));
}
