/* What a plan costs. Everybody who speaks of seconds (the programs, the report, the head) asks
 * here, so that they speak of the same ones. */
#include <math.h>
#include <string.h>

#include "base/check.h"
#include "plan/place.h"

enum { TOKEN_BYTES = 4 };

/* ---- one module, one stage, one hop ---- */

/* Kernels work in fours: three rows cost what four do. */
static double decode_s(const struct place_cost *c, int rows)
{
    int most = 1 << (PLACE_BATCHES - 1);

    for (int b = 0; b < PLACE_BATCHES; b++)
        if (rows <= 1 << b)
            return c->decode[b];
    return c->decode[PLACE_BATCHES - 1] * ((rows + 3) / 4 * 4) / most;
}

double place_module_s(const struct place_problem *p, int device, int module, int rows)
{
    const struct place_cost *c = &p->device[device].cost[p->module[module].class];

    return decode_s(c, rows) + c->position * p->depth * rows;
}

double place_run_s(const struct place_problem *p, int device, int first, int end, int rows)
{
    double sum = p->device[device].step_s;

    for (int m = first; m < end; m++)
        sum += place_module_s(p, device, m, rows);
    return sum;
}

double place_wire_s(const struct place_problem *p, int from, int to, int module, int rows)
{
    uint64_t row_bytes = module < 0 ? TOKEN_BYTES : p->module[module].out_bytes;
    double bytes = (double)p->frame_bytes + (double)row_bytes * rows;

    return from == to ? 0 : bytes / p->link[from * p->n_devices + to].bytes_per_s;
}

double place_hop_s(const struct place_problem *p, int from, int to, int module, int rows)
{
    if (from == to)
        return 0;
    return p->link[from * p->n_devices + to].latency_s + place_wire_s(p, from, to, module, rows);
}

double place_reference_s(const struct place_problem *p)
{
    double sum = 0;

    for (int m = 0; m < p->n_modules; m++) {
        double least = INFINITY;

        for (int d = 0; d < p->n_devices; d++)
            least = fmin(least, place_module_s(p, d, m, 1));
        sum += least;
    }
    return sum / p->concurrency;
}

/* ---- memory ---- */

/* Figures come from other devices; a sum that does not fit is as good as endless. */
static uint64_t plus(uint64_t a, uint64_t b)
{
    return a > UINT64_MAX - b ? UINT64_MAX : a + b;
}

static uint64_t times(uint64_t a, uint64_t b)
{
    return a && b > UINT64_MAX / a ? UINT64_MAX : a * b;
}

uint64_t place_memory(const struct place_problem *p, const struct plan *plan, int device, int is)
{
    uint64_t sum = p->device[is].base_bytes;
    uint64_t positions = times((uint64_t)p->n_ctx, (uint64_t)p->n_slots);
    bool embeds = false, puts_out = false, works = false;

    for (int s = 0; s < plan->n_stages; s++) {
        const struct plan_stage *st = &plan->stage[s];

        if (st->device != device)
            continue;
        for (int m = st->first; m < st->end; m++)
            sum =
                plus(sum, plus(p->module[m].weight_bytes, times(p->module[m].kv_bytes, positions)));
        works = true;
        embeds |= st->first == 0;
        puts_out |= st->end == p->n_modules;
    }
    if (works)
        sum = plus(sum, p->scratch_bytes);
    if (puts_out)
        sum = plus(sum, p->scratch_output_bytes);
    if (embeds && puts_out)
        sum -= p->tied_bytes < sum ? p->tied_bytes : sum;
    return sum;
}

/* ---- a whole plan ---- */

/* A plan with what is asked of it again and again. */
struct walk {
    const struct place_problem *p;
    const struct plan *plan;
    const int *used;
};

static int device_at(const struct walk *w, int stage)
{
    int head = stage < 0 || stage >= w->plan->n_stages;

    return head ? w->used[0] : w->used[w->plan->stage[stage].device];
}

/* The module behind which the step goes to `stage`. */
static int module_before(const struct walk *w, int stage)
{
    return stage == 0 ? -1 : w->plan->stage[stage - 1].end - 1;
}

static double stage_s(const struct walk *w, int stage, int rows)
{
    const struct plan_stage *s = &w->plan->stage[stage];

    return place_run_s(w->p, device_at(w, stage), s->first, s->end, rows);
}

static double hop_s(const struct walk *w, int stage, int rows)
{
    return place_hop_s(w->p, device_at(w, stage - 1), device_at(w, stage), module_before(w, stage),
                       rows);
}

static double latency_s(const struct walk *w, int rows)
{
    double sum = w->p->head_s + hop_s(w, w->plan->n_stages, rows);

    for (int s = 0; s < w->plan->n_stages; s++)
        sum += hop_s(w, s, rows) + stage_s(w, s, rows);
    return sum;
}

static void limit(struct place_prediction *out, double s, enum place_limit what, int at)
{
    if (s <= out->period_s)
        return;
    out->period_s = s;
    out->limit = what;
    out->limit_at = at;
}

/* Computes the period for k groups, each of g rows, and what limits it. */
static void period(const struct walk *w, struct place_prediction *out)
{
    double air[PLACE_AIRS_MAX + 1] = {0};

    out->latency_s = latency_s(w, out->g);
    out->period_s = 0;
    limit(out, out->latency_s / out->k, PLACE_LIMIT_LATENCY, 0);
    for (int d = 0; d < w->plan->n_devices; d++) {
        double busy = 0;

        for (int s = 0; s < w->plan->n_stages; s++)
            if (w->plan->stage[s].device == d)
                busy += stage_s(w, s, out->g);
        out->busy[d] = busy;
        limit(out, busy / w->p->device[w->used[d]].cap, PLACE_LIMIT_DEVICE, d);
    }
    for (int s = 0; s <= w->plan->n_stages; s++) {
        int from = device_at(w, s - 1), to = device_at(w, s);
        double wire = place_wire_s(w->p, from, to, module_before(w, s), out->g);

        limit(out, wire, PLACE_LIMIT_LINK, s);
        if (from != to)
            air[w->p->link[from * w->p->n_devices + to].air] += wire;
    }
    for (int a = 1; a <= PLACE_AIRS_MAX; a++)
        limit(out, air[a], PLACE_LIMIT_AIR, a);
    for (int d = 0; d < w->plan->n_devices; d++)
        out->busy[d] /= out->period_s > 0 ? out->period_s : 1;
}

/* ---- the first token ---- */

/* A chunk of rows, the first of which has `pos` positions in front of it. Of the last module only
 * the row whose logits are wanted is computed. */
static double prefill_s(const struct walk *w, int stage, int pos, int rows)
{
    const struct plan_stage *s = &w->plan->stage[stage];
    const struct place_device *d = &w->p->device[device_at(w, stage)];
    double sum = d->step_s, depth = pos + rows / 2.0;

    for (int m = s->first; m < s->end; m++) {
        const struct place_cost *c = &d->cost[w->p->module[m].class];

        sum += m + 1 == w->p->n_modules ? c->decode[0] : (c->prefill + c->position * depth) * rows;
    }
    return sum;
}

/* Chunk after chunk through the stages, each of which takes up the next as soon as it is there and
 * the one before is done. */
static double ttft_s(const struct walk *w)
{
    double done[PLAN_STAGES_MAX] = {0}, at = 0;

    for (int pos = 0; pos < w->p->prompt; pos += PLACE_CHUNK_ROWS) {
        int left = w->p->prompt - pos, rows = left < PLACE_CHUNK_ROWS ? left : PLACE_CHUNK_ROWS;

        at = 0;
        for (int s = 0; s < w->plan->n_stages; s++) {
            at = fmax(at + hop_s(w, s, rows), done[s]) + prefill_s(w, s, pos, rows);
            done[s] = at;
        }
    }
    return at + hop_s(w, w->plan->n_stages, 1) + w->p->head_s;
}

void place_predict(const struct place_problem *p, const struct plan *plan, const int *used,
                   struct place_prediction *out)
{
    const struct walk w = {p, plan, used};
    struct place_prediction best = {0}, one = {0};
    double least = INFINITY;

    CHECK(plan->n_stages >= 1 && plan->n_stages <= PLAN_STAGES_MAX);
    for (int k = 1; k <= p->concurrency; k++) {
        one.k = k;
        one.g = (p->concurrency + k - 1) / k;
        if (one.g > p->group_max)
            continue;
        period(&w, &one);
        one.tokens_per_s = p->concurrency / (k * fmax(one.period_s, 1e-12));
        if (k * one.period_s + PLACE_LATENCY_WEIGHT * one.latency_s < least) {
            least = k * one.period_s + PLACE_LATENCY_WEIGHT * one.latency_s;
            best = one;
        }
    }
    *out = best;
    out->token_s = latency_s(&w, 1);
    out->ttft_s = ttft_s(&w);
    for (int s = 0; s < plan->n_stages; s++) {
        out->compute_s[s] = stage_s(&w, s, 1);
        out->hop_s[s] = hop_s(&w, s, 1);
    }
    out->hop_s[plan->n_stages] = hop_s(&w, plan->n_stages, 1);
    out->head_s = p->head_s;
}

/* ---- for batching ---- */

/* A row of a prompt more. Of the last module only wanted rows are computed. */
static double row_s(const struct walk *w, int stage)
{
    const struct plan_stage *s = &w->plan->stage[stage];
    const struct place_device *d = &w->p->device[device_at(w, stage)];
    double sum = 0;

    for (int m = s->first; m < s->end && m + 1 < w->p->n_modules; m++) {
        const struct place_cost *c = &d->cost[w->p->module[m].class];

        sum += c->prefill + c->position * w->p->depth;
    }
    return sum;
}

static double position_s(const struct walk *w, int stage)
{
    const struct plan_stage *s = &w->plan->stage[stage];
    double sum = 0;

    for (int m = s->first; m < s->end; m++)
        sum += w->p->device[device_at(w, stage)].cost[w->p->module[m].class].position;
    return sum;
}

/* Without `output`. */
static double read_s(const struct walk *w, int stage, int rows)
{
    const struct plan_stage *s = &w->plan->stage[stage];
    int end = s->end < w->p->n_modules ? s->end : s->end - 1;

    return place_run_s(w->p, device_at(w, stage), s->first, end, rows);
}

/* All that one device does for a step, where that is more than what is there. */
static void pace_device(const struct walk *w, int device, struct place_pace *out)
{
    int stages[PLAN_PER_DEVICE_MAX], n = plan_stages(w->plan, device, stages);
    struct place_pace sum = {.k = 0};

    for (int i = 0; i < n; i++) {
        for (int b = 0; b < PLACE_BATCHES; b++) {
            sum.step_s[b] += stage_s(w, stages[i], 1 << b);
            sum.read_s[b] += read_s(w, stages[i], 1 << b);
        }
        sum.row_s += row_s(w, stages[i]);
        sum.position_s += position_s(w, stages[i]);
    }
    for (int b = 0; b < PLACE_BATCHES; b++) {
        out->step_s[b] = fmax(out->step_s[b], sum.step_s[b]);
        out->read_s[b] = fmax(out->read_s[b], sum.read_s[b]);
    }
    out->row_s = fmax(out->row_s, sum.row_s);
    out->position_s = fmax(out->position_s, sum.position_s);
}

void place_pace(const struct place_problem *p, const struct plan *plan, const int *used,
                struct place_pace *out)
{
    const struct walk w = {p, plan, used};
    struct place_problem full = *p;
    struct place_prediction of;

    memset(out, 0, sizeof *out);
    for (int d = 0; d < plan->n_devices; d++)
        pace_device(&w, d, out);
    full.concurrency = p->n_slots > p->concurrency ? p->n_slots : p->concurrency;
    place_predict(&full, plan, used, &of);
    out->k = of.k;
    out->latency_s = of.token_s;
}
