/* How long plans take, and how near to the best they are proved to be: uneven devices at random, like
 * a home's, each with links of its own. Prints the median and the worst of some seeds per row.
 *
 *     lingua-bench-plan [SEEDS]     20 by default */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/time.h>

#include "plan/place.h"

enum { DEVICES_MAX = 32, LAYERS_MAX = 128, MODULES_MAX = 2 * LAYERS_MAX + 2, SEEDS_MAX = 1000 };
enum { CLASSES = 4, EMBED = 0, ATTN, FFN, OUTPUT };

/* Room for the model on each device alone, or for a part of it, so that all are needed. */
enum memory { ROOMY, SNUG };

struct shape {
    int layers, devices, concurrency, group_max;
    enum memory memory;
    bool one_air;
};

struct instance {
    struct place_problem p;
    struct place_module module[MODULES_MAX];
    struct place_device device[DEVICES_MAX];
    struct place_cost cost[DEVICES_MAX][CLASSES];
    struct place_link link[DEVICES_MAX * DEVICES_MAX];
    char name[DEVICES_MAX][8];
};

static uint64_t state_;

static double between(double low, double high) /* evenly in the exponent */
{
    state_ ^= state_ << 13;
    state_ ^= state_ >> 7;
    state_ ^= state_ << 17;
    return low * pow(high / low, (double)(state_ >> 11) / (double)(1ull << 53));
}

/* Layers of 100 MB: attn 30, ffn 70; a table of 200 MB at either end. */
static void make_modules(struct instance *in, const struct shape *s)
{
    int n = 2 * s->layers + 2;

    in->p.n_modules = n;
    in->p.n_classes = CLASSES;
    for (int i = 0; i < n; i++) {
        int class = i == 0 ? EMBED : i == n - 1 ? OUTPUT : i % 2 ? ATTN : FFN;
        uint64_t mb = (uint64_t[]){200, 30, 70, 200}[class];

        in->module[i] = (struct place_module){.class = class,
                                              .weight_bytes = mb * 1000000,
                                              .decode_bytes = class == EMBED ? 16384 : mb * 1000000,
                                              .kv_bytes = class == ATTN ? 2048 : 0,
                                              .out_bytes = class == OUTPUT ? 128000 : 16384};
    }
}

static void make_devices(struct instance *in, const struct shape *s)
{
    double total = (double)s->layers * 100e6 + 400e6 + s->layers * 2048.0 * 4096 * s->concurrency;

    for (int d = 0; d < s->devices; d++) {
        double speed = between(2e9, 32e9), share = between(0.7, 2.4) / s->devices;

        snprintf(in->name[d], sizeof in->name[d], "d%d", d);
        in->device[d] = (struct place_device){.name = in->name[d],
                                              .base_bytes = 30000000,
                                              .memory_bytes = 400000000,
                                              .mine = d == 0,
                                              .cap = 1,
                                              .worth = PLACE_WORTH_DEFAULT,
                                              .step_s = between(5e-5, 4e-4),
                                              .cost = in->cost[d]};
        in->device[d].memory_bytes += (uint64_t)(s->memory == ROOMY ? 2 * total : share * total);
        place_guess_cost(&in->p, speed, in->cost[d]);
        for (int c = 0; c < CLASSES; c++) { /* kernels are not all equally good */
            double kernel = between(0.85, 1.2), more = between(1, 1.3);

            for (int b = 0; b < PLACE_BATCHES; b++) {
                in->cost[d][c].decode[b] *= kernel * (b ? more : 1);
                more *= b > 1 ? 1 : between(1, 1.2);
            }
            in->cost[d][c].position = c == ATTN ? between(1e-9, 1e-8) : 0;
        }
    }
}

static void make(struct instance *in, const struct shape *s, uint64_t seed)
{
    double own[DEVICES_MAX];

    state_ = seed * 0x9e3779b97f4a7c15u + 1;
    memset(in, 0, sizeof *in);
    in->p = (struct place_problem){.module = in->module,
                                   .device = in->device,
                                   .link = in->link,
                                   .n_devices = s->devices,
                                   .scratch_bytes = 50000000,
                                   .scratch_output_bytes = 20000000,
                                   .frame_bytes = 150,
                                   .n_slots = s->concurrency,
                                   .n_ctx = 4096,
                                   .concurrency = s->concurrency,
                                   .group_max = s->group_max,
                                   .depth = 512,
                                   .prompt = 256,
                                   .head_s = 2e-4};
    make_modules(in, s);
    make_devices(in, s);
    for (int d = 0; d < s->devices; d++)
        own[d] = between(5e-5, 2e-3);
    for (int d = 0; d < s->devices; d++)
        for (int e = 0; e < s->devices; e++)
            in->link[d * s->devices + e] = (struct place_link){.there = d != e,
                                                               .latency_s = own[d] + own[e],
                                                               .bytes_per_s = between(3e6, 1e8),
                                                               .air = s->one_air};
}

static double seconds(struct timeval t)
{
    return (double)t.tv_sec + 1e-6 * (double)t.tv_usec;
}

/* CPU seconds so far, with those of the children in which CBC solves. */
static double now(void)
{
    struct rusage self, children;

    getrusage(RUSAGE_SELF, &self);
    getrusage(RUSAGE_CHILDREN, &children);
    return seconds(self.ru_utime) + seconds(self.ru_stime) + seconds(children.ru_utime) +
           seconds(children.ru_stime);
}

static int by_size(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;

    return x < y ? -1 : x > y;
}

static void measure(const struct shape *s, int seeds)
{
    static double ms[SEEDS_MAX], gap[SEEDS_MAX], nodes[SEEDS_MAX], used[SEEDS_MAX];
    int n = 0, n_none = 0;

    for (int seed = 1; seed <= seeds; seed++) {
        static struct instance in;
        struct placement q;
        struct err_text et;
        double start;
        enum err e;

        make(&in, s, (uint64_t)seed);
        start = now();
        e = place_solve(&in.p, &PLACE_OPTS_DEFAULT, &q, &et);
        if (e) {
            if (e != ERR_MEMORY)
                fprintf(stderr, "%s\n", et.text);
            n_none++;
            continue;
        }
        ms[n] = (now() - start) * 1e3;
        gap[n] = q.gap * 100;
        nodes[n] = q.n_nodes;
        used[n++] = q.plan.n_devices;
    }
    qsort(ms, (size_t)n, sizeof *ms, by_size);
    qsort(gap, (size_t)n, sizeof *gap, by_size);
    qsort(nodes, (size_t)n, sizeof *nodes, by_size);
    qsort(used, (size_t)n, sizeof *used, by_size);
    if (n)
        printf("%6d %7d %7d %5d  %-5s %-4s %5.0f %9.1f %9.1f %8.2f %8.2f %7.0f %7.0f %5d\n",
               s->layers, s->devices, s->concurrency, s->group_max,
               s->memory == ROOMY ? "roomy" : "snug", s->one_air ? "one" : "none", used[n / 2],
               ms[n / 2], ms[n - 1], gap[n / 2], gap[n - 1], nodes[n / 2], nodes[n - 1], n_none);
    fflush(stdout);
}

int main(int argc, char **argv)
{
    static const int sizes[][2] = {{32, 6}, {80, 16}, {16, 3},  {32, 12},
                                   {48, 8}, {60, 10}, {100, 24}};
    int seeds = argc > 1 ? atoi(argv[1]) : 20;

    if (seeds < 1 || seeds > SEEDS_MAX) {
        fprintf(stderr, "usage: lingua-bench-plan [SEEDS, 1 to %d]\n", SEEDS_MAX);
        return 1;
    }
    printf("layers devices streams group memory air   used  ms, half     worst  gap, %%    worst"
           "   nodes   worst  none\n");
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++)
        for (int memory = ROOMY; memory <= SNUG; memory++)
            for (int kind = 0; kind < 4; kind++) {
                struct shape s = {sizes[i][0],       sizes[i][1],         kind ? 4 : 1,
                                  kind == 2 ? 4 : 1, (enum memory)memory, kind == 3};

                measure(&s, seeds);
            }
    return 0;
}
