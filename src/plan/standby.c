/* Standby copies. Two lengths per stage s are to be chosen: a(s), how many of the first modules of
 * stage s + 1 its device copies, and b(s), how many of the last of stage s - 1. Each is coupled with
 * one other by a device and with one other by a stage:
 *
 *     device of s:  copies of a(s) and b(s) together within its memory and storage
 *     stage s + 1:  a(s) + b(s + 2) <= its modules, for none is copied twice
 *
 * so they form two chains, a(0) b(2) a(2) b(4) ... and b(1) a(1) b(3) a(3) ..., and the most that can
 * be held twice along a chain is a dynamic program from its end: what is left for the rest depends on
 * one length alone. Only a head with a tail ties two ends together, a(0) and b(tail); there we try
 * every a(0). Exact. */
#include <stdlib.h>
#include <string.h>

#include "base/check.h"
#include "base/mem.h"
#include "plan/place.h"

/* One length to be chosen: modules [at, at + sign * length) in the direction of its growth. */
struct length {
    int stage;      /* whose device copies, */
    bool before;    /* what is in front of it: else behind it */
    int cap;        /* at most so many, by pins and ends */
    int fixed;      /* exactly so many, or -1 */
    int *best;      /* (cap + 1): by the most it may be, the length that is best */
    uint64_t *most; /* (cap + 1): and what that makes of it and the rest of the chain, in bytes */
};

struct work {
    const struct place_problem *p;
    const struct placement *q;
    const uint64_t *storage;
    uint64_t *weight, *bytes; /* (n_modules + 1) of the first i: weights; with KV */
    struct length length[2 * PLAN_STAGES_MAX];
    int *ints;
    uint64_t *sums;
};

static const struct plan_stage *stage_of(const struct work *w, int s)
{
    return &w->q->plan.stage[s];
}

static uint64_t sum_of(const struct work *w, const uint64_t *sum, const struct length *l, int n)
{
    const struct plan_stage *s = stage_of(w, l->stage);

    return l->before ? sum[s->first] - sum[s->first - n] : sum[s->end + n] - sum[s->end];
}

/* Whether one device may hold both copies. */
static bool fit(const struct work *w, const struct length *a, int n_a, const struct length *b,
                int n_b)
{
    int i = stage_of(w, a->stage)->device;
    uint64_t budget = w->p->device[w->q->used[i]].memory_bytes, have = w->q->memory_bytes[i];
    uint64_t weight = sum_of(w, w->weight, a, n_a), bytes = sum_of(w, w->bytes, a, n_a);

    if (b) {
        weight += sum_of(w, w->weight, b, n_b);
        bytes += sum_of(w, w->bytes, b, n_b);
    }
    if (budget && (have > budget || bytes > budget - have))
        return n_a + n_b == 0;
    return !w->storage || weight <= w->storage[i];
}

/* As many modules as stage's neighbour has to give. */
static int cap_of(const struct work *w, struct length *l)
{
    int n = w->p->n_modules, i = stage_of(w, l->stage)->device, other, cap = 0;
    const struct place_device *d = &w->p->device[w->q->used[i]];
    const struct plan_stage *from;

    other = l->before ? l->stage - 1 : l->stage + 1;
    if (other < 0 || other >= w->q->plan.n_stages)
        return 0;
    from = stage_of(w, other);
    while (cap < from->end - from->first) {
        int m = l->before ? from->end - 1 - cap : from->first + cap;

        if (m == 0 || m == n - 1 || (w->p->want_private && w->p->module[m].is_private && !d->mine))
            break;
        cap++;
        if (!fit(w, l, cap, NULL, 0))
            return cap - 1;
    }
    return cap;
}

/* The most that a length may be, up to `most`, when one on the same device is n. */
static int left_by_device(const struct work *w, const struct length *l, int n,
                          const struct length *other, int most)
{
    while (most > 0 && !fit(w, l, n, other, most))
        most--;
    return most;
}

/* The same of two that are neighbours in a chain. */
static int left(const struct work *w, const struct length *l, int n, const struct length *next,
                int most)
{
    const struct plan_stage *shared;
    int rest;

    if (next->stage == l->stage)
        return left_by_device(w, l, n, next, most);
    shared = stage_of(w, l->stage + 1);
    rest = shared->end - shared->first - n;
    return rest < most ? rest : most;
}

/* Chain of n lengths, every one coupled with the next. Returns the most bytes. */
static uint64_t solve_chain(const struct work *w, struct length **chain, int n)
{
    for (int i = n - 1; i >= 0; i--) {
        struct length *l = chain[i], *next = i + 1 < n ? chain[i + 1] : NULL;
        int rest = next ? next->cap : 0;

        for (int k = 0; k <= l->cap; k++) {
            uint64_t bytes = sum_of(w, w->weight, l, k);

            l->best[k] = k;
            if (next) {
                rest = left(w, l, k, next, rest);
                bytes += next->most[rest];
            }
            l->most[k] = bytes;
            if (k > 0 && l->fixed < 0 && l->most[k - 1] > bytes) {
                l->best[k] = l->best[k - 1];
                l->most[k] = l->most[k - 1];
            }
        }
    }
    return chain[0]->most[chain[0]->fixed >= 0 ? chain[0]->fixed : chain[0]->cap];
}

static void read_chain(const struct work *w, struct length **chain, int n,
                       struct place_standby *out)
{
    int most = chain[0]->fixed >= 0 ? chain[0]->fixed : chain[0]->cap;

    for (int i = 0; i < n; i++) {
        const struct length *l = chain[i];
        const struct plan_stage *s = stage_of(w, l->stage);
        int k = l->best[most];

        if (l->before) {
            out->before[l->stage].first = s->first - k;
            out->before[l->stage].end = s->first;
        } else {
            out->after[l->stage].first = s->end;
            out->after[l->stage].end = s->end + k;
        }
        out->bytes += sum_of(w, w->weight, l, k);
        if (i + 1 < n)
            most = left(w, l, k, chain[i + 1], chain[i + 1]->cap);
    }
}

static void open_work(struct work *w)
{
    const struct place_problem *p = w->p;
    int n = p->n_modules, n_stages = w->q->plan.n_stages;
    size_t room = 0;

    w->weight = mem_zalloc((size_t)n + 1, sizeof *w->weight);
    w->bytes = mem_zalloc((size_t)n + 1, sizeof *w->bytes);
    for (int m = 0; m < n; m++) {
        uint64_t kv = p->module[m].kv_bytes * (uint64_t)p->n_ctx * (uint64_t)p->n_slots;

        w->weight[m + 1] = w->weight[m] + p->module[m].weight_bytes;
        w->bytes[m + 1] = w->bytes[m] + p->module[m].weight_bytes + kv;
    }
    for (int i = 0; i < 2 * n_stages; i++) {
        struct length *l = &w->length[i];

        *l = (struct length){.stage = i / 2, .before = i % 2 == 0, .fixed = -1};
        l->cap = cap_of(w, l);
        room += (size_t)l->cap + 1;
    }
    w->ints = mem_zalloc(room, sizeof *w->ints);
    w->sums = mem_zalloc(room, sizeof *w->sums);
    room = 0;
    for (int i = 0; i < 2 * n_stages; i++) {
        w->length[i].best = w->ints + room;
        w->length[i].most = w->sums + room;
        room += (size_t)w->length[i].cap + 1;
    }
}

/* The lengths of stages `parity`, `parity` + 2, ... in the order in which they are coupled. */
static int chain_of(struct work *w, int parity, struct length **chain)
{
    int n = 0;

    for (int s = parity; s < w->q->plan.n_stages; s += 2) {
        chain[n++] = &w->length[2 * s];
        chain[n++] = &w->length[2 * s + 1];
    }
    return n;
}

void place_standby(const struct place_problem *p, const struct placement *placement,
                   const uint64_t *storage_bytes, struct place_standby *out)
{
    struct work w = {.p = p, .q = placement, .storage = storage_bytes};
    struct length *chain[2][2 * PLAN_STAGES_MAX], *first, *tail = NULL;
    int n[2], last = placement->plan.n_stages - 1, cap, best = -1;
    uint64_t most = 0;

    memset(out, 0, sizeof *out);
    open_work(&w);
    n[0] = chain_of(&w, 0, chain[0]) - 1; /* without b(0), in front of which there is nothing */
    n[1] = chain_of(&w, 1, chain[1]);
    memmove(chain[0], chain[0] + 1, (size_t)n[0] * sizeof *chain[0]);
    first = chain[0][0];
    if (last > 0 && placement->plan.stage[last].device == 0)
        tail = &w.length[2 * last];
    cap = tail ? tail->cap : 0;
    for (int k = 0; k <= first->cap; k++) {
        uint64_t bytes;

        first->fixed = k;
        if (tail)
            tail->cap = left_by_device(&w, first, k, tail, cap);
        bytes = solve_chain(&w, chain[0], n[0]) + (n[1] ? solve_chain(&w, chain[1], n[1]) : 0);
        if (best < 0 || bytes >= most) {
            most = bytes;
            best = k;
        }
    }
    first->fixed = best;
    if (tail)
        tail->cap = left_by_device(&w, first, best, tail, cap);
    for (int i = 0; i < 2 && n[i]; i++) {
        (void)solve_chain(&w, chain[i], n[i]);
        read_chain(&w, chain[i], n[i], out);
    }
    CHECK(out->bytes == most);
    free(w.weight);
    free(w.bytes);
    free(w.ints);
    free(w.sums);
}
