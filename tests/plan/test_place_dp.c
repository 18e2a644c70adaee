/* Larger problems of a single stream against a dynamic program of their own: without caps a plan's
 * cost is then a sum, and the best plan a shortest path over sets of devices. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <math.h>
#include <stdlib.h>

#include "instance.h"

enum { INSTANCES = 200, MODULES = 40, DEVICES = 7, SETS = 1 << (DEVICES - 1) };

/* The least cost of modules [0, m) with these devices beside the head, the last of them d. */
struct table {
    double at[SETS][DEVICES][MODULES + 1];
};

static uint64_t bytes_of(const struct place_problem *p, int first, int end)
{
    uint64_t sum = p->scratch_bytes;

    for (int m = first; m < end; m++)
        sum += p->module[m].weight_bytes +
               p->module[m].kv_bytes * (uint64_t)p->n_ctx * (uint64_t)p->n_slots;
    return sum + (end == p->n_modules ? p->scratch_output_bytes : 0);
}

static bool may_hold(const struct place_problem *p, int d, int first, int end)
{
    uint64_t bytes = bytes_of(p, first, end) + p->device[d].base_bytes;

    for (int m = first; m < end; m++)
        if (p->want_private && p->module[m].is_private && !p->device[d].mine)
            return false;
    return !p->device[d].memory_bytes || bytes <= p->device[d].memory_bytes;
}

/* The head with [0, end) and [tail, n). */
static bool head_may_hold(const struct place_problem *p, int end, int tail)
{
    int n = p->n_modules;
    uint64_t bytes = bytes_of(p, 0, end) + p->device[0].base_bytes;

    if (tail < n)
        bytes += bytes_of(p, tail, n) - p->scratch_bytes;
    if (tail < n || end == n)
        bytes -= p->tied_bytes;
    return !p->device[0].memory_bytes || bytes <= p->device[0].memory_bytes;
}

static void fill(const struct place_problem *p, int tail, struct table *t)
{
    int n_sets = 1 << (p->n_devices - 1);

    for (int set = 0; set < n_sets; set++)
        for (int d = 0; d < p->n_devices; d++)
            for (int m = 0; m <= tail; m++)
                t->at[set][d][m] = INFINITY;
    for (int end = 1; end < tail; end++)
        if (head_may_hold(p, end, tail))
            t->at[0][0][end] = p->head_s + place_run_s(p, 0, 0, end, 1);
    for (int set = 0; set < n_sets; set++)
        for (int from = 0; from < p->n_devices; from++)
            for (int d = 1; d < p->n_devices; d++) {
                int next = set | 1 << (d - 1);

                if (next == set || !p->link[from * p->n_devices + d].there ||
                    p->device[d].wish == PLACE_NOT)
                    continue;
                for (int m = 1; m < tail; m++)
                    for (int end = m + 1;
                         !isinf(t->at[set][from][m]) && end <= tail && may_hold(p, d, m, end);
                         end++)
                        t->at[next][d][end] =
                            fmin(t->at[next][d][end], t->at[set][from][m] +
                                                          place_hop_s(p, from, d, m - 1, 1) +
                                                          place_run_s(p, d, m, end, 1));
            }
}

static double cost(const struct place_problem *p, double latency, int set)
{
    double worth = 0;

    for (int d = 1; d < p->n_devices; d++) {
        bool used = set >> (d - 1) & 1;

        worth += used ? p->device[d].worth : 0;
        if (p->device[d].wish == PLACE_MUST && !used)
            return INFINITY;
    }
    return latency * (1 + PLACE_LATENCY_WEIGHT) + worth * place_reference_s(p);
}

static double best(const struct place_problem *p, int tail, struct table *t)
{
    int n = p->n_modules;
    double least = INFINITY;

    if (tail == n && head_may_hold(p, n, n))
        least = cost(p, p->head_s + place_run_s(p, 0, 0, n, 1), 0);
    fill(p, tail, t);
    for (int set = 1; set < 1 << (p->n_devices - 1); set++)
        for (int d = 1; d < p->n_devices; d++) {
            double s = t->at[set][d][tail];

            if (isinf(s) || !p->link[d * p->n_devices].there)
                continue;
            s += place_hop_s(p, d, 0, tail - 1, 1);
            if (tail < n)
                s += place_run_s(p, 0, tail, n, 1);
            least = fmin(least, cost(p, s, set));
        }
    return least;
}

static void test_shortest_path(void **state)
{
    struct table *t = calloc(1, sizeof *t);
    int n_solved = 0, n_several = 0;

    for (uint64_t seed = 1; seed <= INSTANCES; seed++) {
        static struct instance in;
        struct placement q;
        struct err_text et;
        double want = INFINITY;
        int tail;

        instance_random(&in, 77000 + seed, MODULES, DEVICES);
        in.p.concurrency = 1;
        for (int d = 0; d < in.p.n_devices; d++)
            in.device[d].cap = 1;
        for (tail = in.p.n_modules; in.p.want_private && tail > 0 && in.module[tail - 1].is_private;
             tail--)
            ;
        if (tail > 0 && tail < in.p.n_modules - 1)
            want = best(&in.p, tail, t);
        want = fmin(want, best(&in.p, in.p.n_modules - 1, t));
        want = fmin(want, best(&in.p, in.p.n_modules, t));
        if (place_solve(&in.p, &(struct place_opts){.gap = 0}, &q, &et)) {
            if (!isinf(want))
                fail_msg("seed %d: %s", (int)seed, et.text);
            continue;
        }
        if (!(fabs(q.score - want) <= 1e-9 * want))
            fail_msg("seed %d: score %.12g, where %.12g is possible", (int)seed, q.score, want);
        n_solved++;
        n_several += q.plan.n_devices > 2;
    }
    free(t);
    print_message("solved %d, %d over three devices or more\n", n_solved, n_several);
    assert_true(n_solved > INSTANCES / 2 && n_several > INSTANCES / 10);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_shortest_path)};

    return cmocka_run_group_tests(tests, NULL, NULL);
}
