#include "head/timeline.h"

#include <stdlib.h>
#include <string.h>

#include "base/check.h"
#include "base/mem.h"

/* ---- what goes in ---- */

struct timeline_in *timeline_new(const struct answer_log *log, int64_t now_us)
{
    struct timeline_in *in = mem_zalloc(1, sizeof *in);

    if (!log)
        return in;
    in->id = log->id;
    in->running = !log->ended_us;
    in->begun_us = log->begun_us;
    in->started_us = log->started_us;
    in->first_us = log->first_us;
    in->ended_us = log->ended_us ? log->ended_us : now_us;
    in->n_tokens = log->n_tokens;
    in->n_prompt = log->n_prompt;
    in->n_cached = log->n_cached;
    in->n_steps = answer_log_n(log);
    in->gap = answer_log_gap(log);
    in->steps = mem_alloc((size_t)(in->n_steps + 1) * sizeof *in->steps);
    for (int i = 0; i < in->n_steps; i++)
        in->steps[i] = *answer_log_at(log, i);
    if (in->n_steps == 0)
        return in;
    in->epoch = in->steps[in->n_steps - 1].epoch;
    in->n_stages = log->plan.n_stages;
    for (int s = 0; s < in->n_stages; s++)
        in->stage[s].device = log->plan.stage[s].device;
    in->seen = mem_zalloc((size_t)in->n_steps * (size_t)in->n_stages, sizeof *in->seen);
    return in;
}

void timeline_free(struct timeline_in *in)
{
    if (!in)
        return;
    free(in->steps);
    free(in->seen);
    free(in);
}

bool timeline_range(const struct timeline_in *in, uint64_t *first, uint64_t *last)
{
    bool any = false;

    for (int i = 0; i < in->n_steps; i++) {
        if (in->steps[i].epoch != in->epoch)
            continue;
        if (!any)
            *first = in->steps[i].number;
        *last = in->steps[i].number;
        any = true;
    }
    return any;
}

/* Epochs and the numbers within one only grow. -1: none of this answer. */
static int step_find(const struct timeline_in *in, uint64_t number)
{
    int low = 0, high = in->n_steps;

    while (low < high) {
        int mid = low + (high - low) / 2;
        const struct answer_step *s = &in->steps[mid];

        if (s->epoch != in->epoch || s->number < number)
            low = mid + 1;
        else
            high = mid;
    }
    return low < in->n_steps && in->steps[low].number == number ? low : -1;
}

static struct timeline_seen *seen_at(const struct timeline_in *in, int step, int stage)
{
    return &in->seen[(size_t)step * (size_t)in->n_stages + (size_t)stage];
}

bool timeline_take(struct timeline_in *in, int device, int64_t offset_us,
                   const struct wire_trace_record *r)
{
    int i = step_find(in, r->number);
    struct timeline_seen *seen;

    if (i < 0 || r->stage >= (uint64_t)in->n_stages || in->stage[r->stage].device != device)
        return false;
    seen = seen_at(in, i, (int)r->stage);
    if (seen->sent_us || r->arrived_us > r->begun_us || r->begun_us > r->ended_us ||
        r->ended_us > r->sent_us || r->sent_us > INT64_MAX / 2 || offset_us > INT64_MAX / 4 ||
        offset_us < -INT64_MAX / 4)
        return false;
    *seen =
        (struct timeline_seen){(int64_t)r->arrived_us - offset_us, (int64_t)r->begun_us - offset_us,
                               (int64_t)r->ended_us - offset_us, (int64_t)r->sent_us - offset_us};
    if (!seen->sent_us) /* 0 says that there is none */
        seen->sent_us = 1;
    return true;
}

bool timeline_complete(const struct timeline_in *in)
{
    for (int i = 0; i < in->n_steps; i++)
        for (int s = 0; s < in->n_stages && in->steps[i].home_us; s++)
            if (!seen_at(in, i, s)->sent_us)
                return false;
    return !in->gap;
}

/* ---- spans ---- */

struct maker {
    const struct timeline_in *in;
    struct timeline *out;
    int cap;
};

static int64_t clamp(int64_t t, int64_t low, int64_t high)
{
    return t < low ? low : t > high ? high : t;
}

static int64_t total_us(const struct timeline_in *in)
{
    return in->ended_us > in->begun_us ? in->ended_us - in->begun_us : 0;
}

/* A time of the head's clock, from the beginning on. */
static int64_t since(const struct timeline_in *in, int64_t us)
{
    return clamp(us, in->begun_us, in->begun_us + total_us(in)) - in->begun_us;
}

static void add(struct maker *m, int lane, enum timeline_kind kind, int64_t start_us,
                int64_t end_us, const struct answer_step *step)
{
    struct timeline *t = m->out;

    if (end_us <= start_us)
        return;
    if (t->n_spans == TIMELINE_SPANS_MAX) {
        t->complete = false;
        return;
    }
    if (t->n_spans == m->cap) {
        m->cap = m->cap ? 2 * m->cap : 256;
        t->spans = mem_realloc(t->spans, (size_t)m->cap, sizeof *t->spans);
    }
    t->spans[t->n_spans++] = (struct timeline_span){.lane = lane,
                                                    .kind = kind,
                                                    .start_us = start_us,
                                                    .end_us = end_us,
                                                    .step = step ? step->number : 0,
                                                    .rows = step ? step->rows : 0};
}

/* Until when a step may have been under way. One that never came home, because its epoch ended or
 * nobody waited for it any more, was so at most until the next went out in another. */
static int64_t window_end(const struct timeline_in *in, int i)
{
    const struct answer_step *s = &in->steps[i];

    if (s->home_us)
        return since(in, s->home_us);
    for (int k = i + 1; k < in->n_steps; k++)
        if (in->steps[k].epoch != s->epoch)
            return since(in, in->steps[k].sent_us);
    return total_us(in);
}

/* What a stage did with step i, within *at..end, in order; *at becomes when it was through. False:
 * nothing is known of it. */
static bool seen_within(const struct timeline_in *in, int i, int stage, int64_t *at, int64_t end,
                        struct timeline_seen *out)
{
    const struct timeline_seen *seen = seen_at(in, i, stage);

    if (!seen->sent_us)
        return false;
    out->arrived_us = clamp(seen->arrived_us - in->begun_us, *at, end);
    out->begun_us = clamp(seen->begun_us - in->begun_us, out->arrived_us, end);
    out->ended_us = clamp(seen->ended_us - in->begun_us, out->begun_us, end);
    out->sent_us = clamp(seen->sent_us - in->begun_us, out->ended_us, end);
    *at = out->sent_us;
    return true;
}

static void step_spans(struct maker *m, int i)
{
    const struct timeline_in *in = m->in;
    const struct answer_step *step = &in->steps[i];
    int64_t at = since(in, step->sent_us), end = window_end(in, i);
    bool known = true; /* whose hands it was in just before */

    for (int s = 0; s < in->n_stages; s++) {
        struct timeline_seen seen;
        int64_t left = at;

        if (!seen_within(in, i, s, &at, end, &seen)) {
            known = false;
            continue;
        }
        if (known)
            add(m, 1 + s, TIMELINE_WIRE, left, seen.arrived_us, step);
        add(m, 1 + s, TIMELINE_WAIT, seen.arrived_us, seen.begun_us, step);
        add(m, 1 + s, TIMELINE_COMPUTE, seen.begun_us, seen.ended_us, step);
        add(m, 1 + s, TIMELINE_WAIT, seen.ended_us, seen.sent_us, step);
        known = true;
    }
    if (known && step->home_us)
        add(m, 0, TIMELINE_WIRE, at, end, step);
}

size_t timeline_records(const struct timeline_in *in, struct trace_record *r)
{
    size_t n = 0;

    for (int i = 0; i < in->n_steps; i++) {
        const struct answer_step *step = &in->steps[i];
        int64_t at = since(in, step->sent_us), end = window_end(in, i);

        for (int s = 0; s < in->n_stages; s++) {
            struct timeline_seen seen;

            if (seen_within(in, i, s, &at, end, &seen))
                r[n++] = (struct trace_record){.device = in->stage[s].device,
                                               .number = (int64_t)step->number,
                                               .stage = s,
                                               .rows = step->rows,
                                               .arrived = seen.arrived_us,
                                               .begun = seen.begun_us,
                                               .ended = seen.ended_us,
                                               .sent = seen.sent_us};
        }
    }
    return n;
}

/* The head is at work while no step is under way. Not between two epochs, when devices load, and
 * not where steps were left out. */
static void head_spans(struct maker *m)
{
    const struct timeline_in *in = m->in;
    int64_t free_us = since(in, in->started_us);

    for (int i = 0; i < in->n_steps; i++) {
        int64_t sent = since(in, in->steps[i].sent_us), end = window_end(in, i);
        bool same = i == 0 || in->steps[i].epoch == in->steps[i - 1].epoch;

        if (same && (!in->gap || i != in->gap))
            add(m, 0, TIMELINE_HEAD, free_us, sent, &in->steps[i]);
        free_us = end > free_us ? end : free_us;
    }
    add(m, 0, TIMELINE_HEAD, free_us, total_us(in),
        in->n_steps ? &in->steps[in->n_steps - 1] : NULL);
}

static int by_start(const void *a, const void *b)
{
    const struct timeline_span *x = a, *y = b;

    if (x->start_us != y->start_us)
        return x->start_us < y->start_us ? -1 : 1;
    if (x->lane != y->lane)
        return x->lane < y->lane ? -1 : 1;
    return x->end_us < y->end_us ? -1 : x->end_us > y->end_us;
}

/* ---- the sweep ---- */

struct turn {
    int64_t at_us;
    int what; /* kind * LANES + lane */
    int change;
};

enum { LANES = PLAN_STAGES_MAX + 1 };

struct sweep {
    int n_active[TIMELINE_KINDS * LANES];
    int n_lanes[TIMELINE_KINDS]; /* with something active */
};

static int by_time(const void *a, const void *b)
{
    const struct turn *x = a, *y = b;

    return x->at_us < y->at_us ? -1 : x->at_us > y->at_us;
}

static double *part_of(struct timeline_parts *p, enum timeline_kind kind, int lane, int n_stages)
{
    switch (kind) {
    case TIMELINE_COMPUTE:
        return &p->compute[lane - 1];
    case TIMELINE_WIRE:
        return &p->wire[lane ? lane - 1 : n_stages];
    case TIMELINE_WAIT:
        return &p->wait[lane - 1];
    case TIMELINE_HEAD:
        return &p->head;
    default:
        return &p->queue;
    }
}

/* Gives so many microseconds to what counts first of what is active. */
static void share(const struct sweep *sw, struct timeline_parts *p, int n_stages, double us)
{
    int kind = 0;

    p->total += us;
    while (kind < TIMELINE_KINDS && !sw->n_lanes[kind])
        kind++;
    if (kind == TIMELINE_KINDS) {
        p->other += us;
        return;
    }
    for (int lane = 0; lane <= n_stages; lane++)
        if (sw->n_active[kind * LANES + lane])
            *part_of(p, kind, lane, n_stages) += us / sw->n_lanes[kind];
}

static void take_turn(struct sweep *sw, const struct turn *e)
{
    int *n = &sw->n_active[e->what];
    int before = *n > 0;

    *n += e->change;
    sw->n_lanes[e->what / LANES] += (*n > 0) - before;
}

static void sum_up(const struct timeline_in *in, struct timeline *t)
{
    size_t n = 2 * (size_t)t->n_spans;
    struct turn *edges = mem_alloc((n + 1) * sizeof *edges);
    struct sweep *sw = mem_zalloc(1, sizeof *sw);
    int64_t end = total_us(in), first = in->first_us ? since(in, in->first_us) : end, at = 0;

    for (int i = 0; i < t->n_spans; i++) {
        const struct timeline_span *s = &t->spans[i];
        int what = (int)s->kind * LANES + s->lane;

        edges[2 * i] = (struct turn){s->start_us, what, 1};
        edges[2 * i + 1] = (struct turn){s->end_us, what, -1};
    }
    qsort(edges, n, sizeof *edges, by_time);
    for (size_t i = 0; i <= n; i++) {
        int64_t until = i < n ? edges[i].at_us : end;
        int64_t turns = clamp(first, at, until); /* where the first token falls in between */

        share(sw, &t->first, in->n_stages, (double)(turns - at));
        share(sw, &t->rest, in->n_stages, (double)(until - turns));
        at = until;
        if (i < n)
            take_turn(sw, &edges[i]);
    }
    free(sw);
    free(edges);
}

static void add_parts(struct timeline_parts *all, const struct timeline_parts *p, int n_stages)
{
    all->queue += p->queue;
    all->head += p->head;
    all->other += p->other;
    all->total += p->total;
    for (int s = 0; s < n_stages; s++) {
        all->compute[s] += p->compute[s];
        all->wait[s] += p->wait[s];
    }
    for (int s = 0; s <= n_stages; s++)
        all->wire[s] += p->wire[s];
}

void timeline_make(const struct timeline_in *in, struct timeline *out)
{
    struct maker m = {.in = in, .out = out};

    memset(out, 0, sizeof *out);
    if (!in->id)
        return;
    out->complete = timeline_complete(in);
    add(&m, 0, TIMELINE_QUEUE, 0, in->started_us ? since(in, in->started_us) : total_us(in), NULL);
    if (in->started_us)
        head_spans(&m);
    for (int i = 0; i < in->n_steps; i++)
        step_spans(&m, i);
    if (out->n_spans)
        qsort(out->spans, (size_t)out->n_spans, sizeof *out->spans, by_start);
    sum_up(in, out);
    add_parts(&out->all, &out->first, in->n_stages);
    add_parts(&out->all, &out->rest, in->n_stages);
}

void timeline_fini(struct timeline *t)
{
    free(t->spans);
    memset(t, 0, sizeof *t);
}
