/* Whatever the problem, a plan keeps every rule, its bound is not above it, and it comes out the same
 * again. `make soak` runs it for long: test_place_rules [SOLVES [SEED]]. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "instance.h"

static int n_solves_ = 2000;
static uint64_t seed_ = 1;

struct count {
    int solved, programs, several, near;
};

/* No plan that the test can think of is better than the bound: the equal split, the head alone, and
 * the plan with one cut moved. */
static void check_bound(const struct place_problem *p, const struct placement *q, uint64_t seed)
{
    struct placement other;
    struct err_text et;

    if (q->bound > q->score || q->gap < 0 || fabs(q->gap - (1 - q->bound / q->score)) > 1e-12)
        fail_msg("seed %llu: bound %g, score %g, gap %g", (unsigned long long)seed, q->bound,
                 q->score, q->gap);
    if (!place_equal(p, &other, &et) && other.score < q->bound * (1 - 1e-9))
        fail_msg("seed %llu: the equal split beats the bound", (unsigned long long)seed);
    for (int s = 0; s + 1 < q->plan.n_stages; s++)
        for (int by = -1; by <= 1; by += 2) {
            other = *q;
            other.plan.stage[s].end += by;
            other.plan.stage[s + 1].first += by;
            if (!place_judge(p, &other, &et) && other.score < q->bound * (1 - 1e-9))
                fail_msg("seed %llu: a neighbour beats the bound", (unsigned long long)seed);
        }
}

static void check_one(uint64_t seed, const struct place_opts *opts, struct count *n)
{
    static struct instance in;
    struct placement q, again;
    struct err_text et, et_again;
    enum err e;
    bool many = seed % 24 == 0; /* the programs' cases */

    for (uint64_t i = 0; i == 0 || (many && in.p.n_devices < 12); i++)
        instance_random(&in, seed + (i << 40), many ? 14 : 30, many ? 14 : 6);
    if (many)
        for (int d = 1; d < in.p.n_devices; d++)
            in.device[d].wish = PLACE_MAY;
    if (many && seed % 48 == 0) /* of one kind, as real models are */
        for (int i = 3; i < in.p.n_modules - 1; i++)
            in.module[i] = in.module[i - 2];
    memset(&q, 0, sizeof q);
    e = place_solve(&in.p, opts, &q, &et);
    if (seed % 8 == 0) {
        memset(&again, 0, sizeof again);
        if (place_solve(&in.p, opts, &again, &et_again) != e ||
            (e && strcmp(et.text, et_again.text)))
            fail_msg("seed %llu: refused otherwise the second time", (unsigned long long)seed);
        if (!e)
            assert_memory_equal(&q, &again, sizeof q);
    }
    if (e) {
        assert_true(e == ERR_INPUT || e == ERR_MEMORY || e == ERR_GONE);
        assert_true(et.text[0] != '\0');
        return;
    }
    if (instance_broken(&in.p, &q))
        fail_msg("seed %llu: %s", (unsigned long long)seed, instance_broken(&in.p, &q));
    check_bound(&in.p, &q, seed);
    n->solved++;
    n->programs += q.n_columns > 0;
    n->several += q.plan.n_devices > 2;
    n->near += q.gap <= opts->gap;
}

static void test_rules(void **state)
{
    struct count n = {0};

    if (n_solves_ > 2000)
        print_message("%d solves from seed %llu\n", n_solves_, (unsigned long long)seed_);
    for (int i = 0; i < n_solves_; i++) {
        check_one(seed_ + (uint64_t)i,
                  &(struct place_opts){.gap = 0.01, .nodes_max = 30, .quick = i % 5 == 4}, &n);
        if (i % 2000 == 1999 && n_solves_ > 2000) {
            printf("%d done, up to seed %llu\n", i + 1, (unsigned long long)seed_ + (uint64_t)i);
            fflush(stdout);
        }
    }
    print_message("solved %d, %d by programs, %d over three devices or more, %d to within 1 %%\n",
                  n.solved, n.programs, n.several, n.near);
    if (n_solves_ < 1000)
        return; /* too few to meet everything */
    assert_true(n.solved > n_solves_ / 2 && n.several > n_solves_ / 8);
    assert_true(n.programs > n_solves_ / 100 && n.near > n.solved * 3 / 4);
}

/* In whose program CBC 2.10 meets an inconsistency of its own and aborts: that ends a child, and the
 * plan is what the other searches found. */
static void test_solver_dies(void **state)
{
    struct count n = {0};

    check_one(20356104, &(struct place_opts){.gap = 0.01, .nodes_max = 30}, &n);
    assert_int_equal(n.solved, 1);
}

/* Which of two equal devices is which does not matter, nor their names. */
static void test_alike(void **state)
{
    for (uint64_t seed = 1; seed <= 50; seed++) {
        static struct instance in;
        struct placement a, b;
        struct err_text et;
        const char *swap;

        instance_random(&in, seed, 20, 6);
        if (in.p.n_devices < 3)
            continue;
        for (int d = 2; d < in.p.n_devices; d++) { /* all like the first */
            const char *name = in.device[d].name;

            in.device[d] = in.device[1];
            in.device[d].name = name;
            memcpy(in.cost[d], in.cost[1], sizeof in.cost[1]);
            in.device[d].cost = in.cost[d];
        }
        for (int i = 0; i < in.p.n_devices * in.p.n_devices; i++)
            in.link[i] = (struct place_link){true, 1e-3, 1e7, 0};
        if (place_solve(&in.p, &PLACE_OPTS_DEFAULT, &a, &et))
            continue;
        swap = in.device[1].name;
        in.device[1].name = in.device[2].name;
        in.device[2].name = swap;
        assert_int_equal(place_solve(&in.p, &PLACE_OPTS_DEFAULT, &b, &et), ERR_NONE);
        assert_memory_equal(&a.plan, &b.plan, sizeof a.plan);
        assert_memory_equal(a.used, b.used, sizeof a.used);
    }
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_rules),
                                       cmocka_unit_test(test_solver_dies),
                                       cmocka_unit_test(test_alike)};

    if (argc > 1)
        n_solves_ = atoi(argv[1]);
    if (argc > 2)
        seed_ = strtoull(argv[2], NULL, 10);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
