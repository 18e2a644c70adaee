#include "instance.h"

#include <math.h>
#include <string.h>

static uint64_t state_;

void chance_seed(uint64_t seed)
{
    state_ = seed * 2654435761u + 88172645463325252u;
}

uint64_t chance(uint64_t below)
{
    state_ ^= state_ << 13;
    state_ ^= state_ >> 7;
    state_ ^= state_ << 17;
    return (state_ >> 11) % below;
}

double chance_real(double low, double high)
{
    return low * pow(high / low, (double)chance(1 << 30) / (1 << 30));
}

void instance_bind(struct instance *in)
{
    in->p.module = in->module;
    in->p.device = in->device;
    in->p.link = in->link;
    for (int d = 0; d < in->p.n_devices; d++)
        in->device[d].cost = in->cost[d];
}

static void set_costs(struct place_cost *c, double one)
{
    for (int b = 0; b < PLACE_BATCHES; b++)
        c->decode[b] = one * (1 << b <= 4 ? 1 : (1 << b) / 4.0);
    c->prefill = one / 4;
}

void instance_plain(struct instance *in, int n_modules, int n_devices)
{
    static const char *const names[INSTANCE_DEVICES_MAX] = {
        "head", "pi",  "phone", "laptop", "tablet", "tv",  "nas", "box", "old", "pad",
        "d10",  "d11", "d12",   "d13",    "d14",    "d15", "d16", "d17", "d18", "d19"};

    memset(in, 0, sizeof *in);
    in->p = (struct place_problem){.n_modules = n_modules,
                                   .n_devices = n_devices,
                                   .n_classes = 4,
                                   .frame_bytes = 100,
                                   .n_slots = 1,
                                   .n_ctx = 64,
                                   .concurrency = 1,
                                   .group_max = 1,
                                   .prompt = 256};
    if (n_modules < 4)
        in->p.n_classes = n_modules;
    for (int i = 0; i < n_modules; i++) {
        int last = i == n_modules - 1;

        in->module[i] = (struct place_module){.class = i == 0 ? 0
                                                       : last ? 1
                                                              : 2 + (i + 1) % 2,
                                              .weight_bytes = 10 << 20,
                                              .decode_bytes = 10 << 20,
                                              .out_bytes = 4000};
        if (in->module[i].class >= in->p.n_classes)
            in->module[i].class = 0;
        in->module[i].is_private = i < 2 || i >= n_modules - 2;
    }
    for (int d = 0; d < n_devices; d++) {
        in->device[d] = (struct place_device){.name = names[d], .cap = 1, .mine = d == 0};
        for (int c = 0; c < INSTANCE_MODULES_MAX; c++)
            set_costs(&in->cost[d][c], 0.010);
        for (int e = 0; e < n_devices; e++)
            in->link[d * n_devices + e] =
                (struct place_link){.there = d != e, .latency_s = 1e-3, .bytes_per_s = 1e7};
    }
    instance_bind(in);
}

/* ---- random ---- */

static void random_modules(struct instance *in)
{
    int n = in->p.n_modules, irregular = chance(3) == 0;

    in->p.n_classes = irregular ? n : n < 4 ? n : 4;
    for (int i = 0; i < n; i++) {
        struct place_module *m = &in->module[i], *like = i > 2 && !irregular ? m - 2 : NULL;

        if (irregular)
            m->class = (int)chance((uint64_t)in->p.n_classes);
        m->weight_bytes = like && i < n - 1 && i > 2 ? like->weight_bytes : (1 + chance(40)) << 19;
        m->kv_bytes = i == 0 || i == n - 1 || i % 2 == 0 ? 0 : 1024;
        m->out_bytes = irregular ? chance(20000) : i % 2 ? 8192 : 4096;
        m->decode_bytes = m->weight_bytes;
    }
    in->module[n - 1].out_bytes = chance(200000);
    if (chance(2)) {
        in->p.tied_bytes = in->module[0].weight_bytes;
        in->module[n - 1].weight_bytes += in->p.tied_bytes;
    }
    in->p.scratch_bytes = chance(5) << 20;
    in->p.scratch_output_bytes = chance(5) << 20;
}

static void random_costs(struct instance *in)
{
    for (int d = 0; d < in->p.n_devices; d++) {
        double speed = chance_real(0.3, 4);

        for (int c = 0; c < in->p.n_classes; c++) {
            struct place_cost *x = &in->cost[d][c];

            set_costs(x, speed * chance_real(0.004, 0.012));
            for (int b = 1; b < PLACE_BATCHES; b++)
                x->decode[b] = x->decode[b - 1] * chance_real(1, 1.8);
            x->position = chance(2) ? 1e-8 * (double)chance(100) : 0;
        }
    }
}

static void random_devices(struct instance *in)
{
    uint64_t total = 0;
    bool roomy = chance(3) == 0, sparse = chance(4) == 0;
    int n = in->p.n_devices;

    for (int i = 0; i < in->p.n_modules; i++)
        total += in->module[i].weight_bytes + in->module[i].kv_bytes * 64;
    for (int d = 0; d < n; d++) {
        struct place_device *x = &in->device[d];

        x->base_bytes = chance(4) << 20;
        x->memory_bytes = x->base_bytes + chance(total + (8 << 20)) + 1;
        if (roomy || chance(5) == 0)
            x->memory_bytes = 0;
        x->mine = d == 0 || chance(2);
        x->wish = d > 0 && chance(10) == 0 ? PLACE_MUST : d > 0 && chance(10) == 0 ? PLACE_NOT : 0;
        x->cap = chance(3) ? 1 : chance_real(0.1, 1);
        x->worth = chance(2) ? 0.01 * (double)chance(11) : 0;
        x->step_s = chance(2) ? 1e-4 * (double)chance(10) : 0;
    }
    for (int i = 0; i < n * n; i++) {
        struct place_link *l = &in->link[i];

        l->there = i % (n + 1) != 0 && (!sparse || chance(3));
        l->latency_s = chance_real(1e-4, 1e-2);
        l->bytes_per_s = chance(8) ? chance_real(1e5, 1e8) : INFINITY;
        l->air = (int)chance(4) < 2 ? 0 : 1 + (int)chance(2);
    }
}

void instance_random(struct instance *in, uint64_t seed, int modules_max, int devices_max)
{
    chance_seed(seed);
    for (int i = 0; i < 8; i++)
        chance(2);
    instance_plain(in, 3 + (int)chance((uint64_t)modules_max - 2),
                   1 + (int)chance((uint64_t)devices_max));
    random_modules(in);
    random_costs(in);
    random_devices(in);
    in->p.concurrency = 1 + (int)chance(6);
    in->p.group_max = 1 + (int)chance(4);
    in->p.depth = (int)chance(1000);
    in->p.head_s = chance(2) ? 1e-3 : 0;
    in->p.want_private = chance(4) == 0;
}

/* ---- the rules, said again ---- */

static bool may_be_tail(const struct place_problem *p, int first)
{
    if (first == p->n_modules - 1)
        return true;
    for (int i = first; i < p->n_modules; i++)
        if (!p->want_private || !p->module[i].is_private)
            return false;
    return first > 0 && !p->module[first - 1].is_private;
}

const char *instance_broken(const struct place_problem *p, const struct placement *q)
{
    uint64_t bytes[INSTANCE_DEVICES_MAX] = {0};
    int runs[INSTANCE_DEVICES_MAX] = {0}, at = 0, before = 0, n = p->n_modules;
    bool ends[INSTANCE_DEVICES_MAX] = {false};

    for (int s = 0; s < q->plan.n_stages; s++) {
        int first = q->plan.stage[s].first, end = q->plan.stage[s].end;
        int d = q->used[q->plan.stage[s].device];

        if (first != at || end <= first)
            return "runs follow each other";
        if (s == 0 ? d != 0 : d == before)
            return "the head begins, and no device follows itself";
        if (s > 0 && !p->link[before * p->n_devices + d].there)
            return "no link";
        if (runs[d]++ > 0 && (d != 0 || end != n || !may_be_tail(p, first)))
            return "entered twice";
        if (p->device[d].wish == PLACE_NOT)
            return "must not be used";
        for (int m = first; m < end; m++) {
            bytes[d] += p->module[m].weight_bytes +
                        p->module[m].kv_bytes * (uint64_t)p->n_ctx * (uint64_t)p->n_slots;
            if (p->want_private && p->module[m].is_private && !p->device[d].mine)
                return "private";
        }
        ends[d] = end == n;
        at = end;
        before = d;
    }
    if (at != n)
        return "all modules";
    if (before != 0 && !p->link[before * p->n_devices].there)
        return "no link home";
    for (int d = 0; d < p->n_devices; d++) {
        uint64_t need = bytes[d] + p->device[d].base_bytes + p->scratch_bytes;

        if (!runs[d] && p->device[d].wish == PLACE_MUST)
            return "must be used";
        need += ends[d] ? p->scratch_output_bytes : 0;
        need -= ends[d] && d == 0 ? p->tied_bytes : 0;
        if (runs[d] && p->device[d].memory_bytes && need > p->device[d].memory_bytes)
            return "memory";
    }
    return NULL;
}
