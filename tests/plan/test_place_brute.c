/* The solver against brute force: every chain of devices and every cut of small random problems with
 * all constraints, priced by place_judge. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <math.h>
#include <string.h>

#include "instance.h"

enum { INSTANCES = 2000, MODULES = 10, DEVICES = 5 };

struct brute {
    const struct place_problem *p;
    struct placement q, best;
    double least;
    long n_plans;
};

/* What a plan costs, from cost.c's prediction. */
static double score_of(const struct place_problem *p, const struct placement *q)
{
    struct place_prediction x;
    double worth = 0;

    place_predict(p, &q->plan, q->used, &x);
    for (int i = 1; i < q->plan.n_devices; i++)
        worth += p->device[q->used[i]].worth;
    return (x.period_s * x.k + PLACE_LATENCY_WEIGHT * x.latency_s) / p->concurrency +
           worth * place_reference_s(p);
}

static void price(struct brute *b)
{
    double s;

    if (instance_broken(b->p, &b->q))
        return;
    b->n_plans++;
    s = score_of(b->p, &b->q);
    if (s < b->least) {
        b->least = s;
        b->best = b->q;
    }
}

/* With stages [0, n) set, up to module `at`: ends, or goes on. Depth is at most DEVICES. */
static void go_on(struct brute *b, int at, unsigned used)
{
    struct plan *plan = &b->q.plan;
    int n = b->p->n_modules, s = plan->n_stages;

    if (at == n) {
        price(b);
        return;
    }
    plan->n_stages++;
    if (s > 1) { /* home for a tail */
        plan->stage[s] = (struct plan_stage){0, at, n};
        price(b);
    }
    for (int d = 1; d < b->p->n_devices; d++) {
        if (used >> d & 1)
            continue;
        b->q.used[s] = d;
        plan->n_devices = s + 1;
        for (int end = at + 1; end <= n; end++) {
            plan->stage[s] = (struct plan_stage){s, at, end};
            go_on(b, end, used | 1u << d);
        }
    }
    plan->n_devices = s;
    plan->n_stages--;
}

static void brute(struct brute *b, const struct place_problem *p)
{
    memset(b, 0, sizeof *b);
    b->p = p;
    b->least = INFINITY;
    b->q.plan.n_devices = b->q.plan.n_stages = 1;
    for (int end = 1; end <= p->n_modules; end++) {
        b->q.plan.stage[0] = (struct plan_stage){0, 0, end};
        go_on(b, end, 1);
    }
}

static bool possible(const struct place_problem *p)
{
    struct brute b;

    brute(&b, p);
    return b.n_plans > 0;
}

/* The kind of error that place.h promises where there is no plan. */
static enum err error_of(const struct instance *in)
{
    struct instance other;

    other = *in;
    instance_bind(&other);
    other.p.want_private = false;
    if (possible(&other.p))
        return ERR_INPUT;
    other = *in;
    instance_bind(&other);
    for (int d = 1; d < other.p.n_devices; d++)
        if (other.device[d].wish == PLACE_MUST)
            other.device[d].wish = PLACE_MAY;
    if (possible(&other.p))
        return ERR_INPUT;
    other = *in;
    instance_bind(&other);
    for (int i = 0; i < other.p.n_devices * other.p.n_devices; i++)
        other.link[i].there = true;
    if (possible(&other.p))
        return ERR_GONE;
    other = *in;
    instance_bind(&other);
    for (int d = 0; d < other.p.n_devices; d++)
        other.device[d].memory_bytes = 0;
    return possible(&other.p) ? ERR_MEMORY : ERR_INPUT;
}

static void test_brute_force(void **state)
{
    const struct place_opts opts = {.gap = 0};
    int n_solved = 0, n_split = 0, n_pipelined = 0, n_grouped = 0, n_tails = 0, n_error[16] = {0};

    for (uint64_t seed = 1; seed <= INSTANCES; seed++) {
        static struct instance in;
        static struct brute b;
        struct placement q;
        struct err_text et;
        enum err e;

        instance_random(&in, seed, MODULES, DEVICES);
        brute(&b, &in.p);
        e = place_check(&in.p, &et);
        if (e) { /* a device that must be used and cannot be reached */
            assert_int_equal(e, ERR_INPUT);
            assert_int_equal(b.n_plans, 0);
            assert_int_equal(place_solve(&in.p, &opts, &q, &et), ERR_INPUT);
            continue;
        }
        e = place_solve(&in.p, &opts, &q, &et);
        if (b.n_plans == 0) {
            if (e != error_of(&in))
                fail_msg("seed %d: error %d where %d is due: %s", (int)seed, e, error_of(&in),
                         e ? et.text : "");
            n_error[e]++;
            continue;
        }
        if (e)
            fail_msg("seed %d: %s, where there is a plan", (int)seed, et.text);
        if (instance_broken(&in.p, &q))
            fail_msg("seed %d: %s", (int)seed, instance_broken(&in.p, &q));
        if (!(fabs(q.score - b.least) <= 1e-9 * b.least))
            fail_msg("seed %d: score %.12g, where %.12g is possible", (int)seed, q.score, b.least);
        assert_true(q.bound <= b.least * (1 + 1e-12));
        assert_true(q.gap <= 1e-5);
        assert_true(fabs(q.score - score_of(&in.p, &q)) <= 1e-12 * q.score);
        n_solved++;
        n_split += q.plan.n_devices > 1;
        n_tails += q.plan.n_stages > q.plan.n_devices;
        n_pipelined += q.k > 1;
        n_grouped += q.g > 1;
    }
    print_message("solved %d: %d over several devices, %d with a tail, %d in several groups, %d of "
                  "several rows; refused: %d for wishes, %d for memory, %d for links\n",
                  n_solved, n_split, n_tails, n_pipelined, n_grouped, n_error[ERR_INPUT],
                  n_error[ERR_MEMORY], n_error[ERR_GONE]);
    assert_true(n_solved > INSTANCES / 2 && n_split > INSTANCES / 4 && n_tails > INSTANCES / 20);
    assert_true(n_pipelined > INSTANCES / 10 && n_grouped > INSTANCES / 10);
    assert_true(n_error[ERR_INPUT] > 10 && n_error[ERR_MEMORY] > 50 && n_error[ERR_GONE] > 5);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_brute_force)};

    return cmocka_run_group_tests(tests, NULL, NULL);
}
