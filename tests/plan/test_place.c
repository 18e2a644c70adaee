/* The solver's edges by hand: what a plan costs, in a case that is added up here; the two examples
 * of FACTS.md, section 1; what is refused, and with what words. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/mem.h"
#include "instance.h"

static const uint64_t MIB = 1 << 20;
static const struct place_opts EXACT = {.gap = 0};

static void solve(const struct instance *in, struct placement *q)
{
    struct err_text et;

    if (place_solve(&in->p, &EXACT, q, &et))
        fail_msg("%s", et.text);
    assert_null(instance_broken(&in->p, q));
}

/* The problem is refused as `want`, with these words in the sentence. */
static void refused(const struct instance *in, enum err want, const char *words)
{
    struct placement q;
    struct err_text et = {""};
    enum err e = place_solve(&in->p, &EXACT, &q, &et);

    if (e != want || !strstr(et.text, words))
        fail_msg("error %d (%s) where %d with '%s' is due", e, et.text, want, words);
}

static void near(double got, double want)
{
    if (!(fabs(got - want) <= 1e-12 * fabs(want)))
        fail_msg("%.15g where %.15g is due", got, want);
}

static void set_plan(struct placement *q, int n, const int (*stage)[2])
{
    *q = (struct placement){.plan = {.n_stages = n}};
    for (int s = 0, at = 0; s < n; s++) {
        int device = stage[s][0];

        q->plan.stage[s] = (struct plan_stage){device, at, stage[s][1]};
        q->used[device] = device;
        q->plan.n_devices = device >= q->plan.n_devices ? device + 1 : q->plan.n_devices;
        at = stage[s][1];
    }
}

/* ---- costs ---- */

/* Six modules of 10 ms; head 0-1, pi 2-4, head 5. Three streams. */
static void test_by_hand(void **state)
{
    struct instance in;
    struct placement q;
    struct place_prediction x;
    struct err_text et;
    double hop2 = 1e-3 + (100 + 4000 * 2) / 1e7, first, tail, pi, lat;

    instance_plain(&in, 6, 2);
    in.p.concurrency = 3;
    in.p.group_max = 2;
    in.p.depth = 1000;
    in.p.head_s = 0.002;
    in.device[0].step_s = 0.001;
    in.device[1].worth = 0.01;
    in.device[1].cap = 0.5;
    for (int c = 0; c < 4; c++) {
        in.cost[0][c].decode[1] = 0.015;
        in.cost[1][c].decode[1] = 0.016;
        in.cost[1][c].position = 1e-6;
    }
    set_plan(&q, 3, (const int[][2]){{0, 2}, {1, 5}, {0, 6}});
    assert_int_equal(place_judge(&in.p, &q, &et), ERR_NONE);
    /* Two groups of two rows, or three of one. Three of one: the pi works 3 x (10 ms + 1 ms of depth)
     * per group and may work half the time: T = 66 ms, T k / c = 66 ms. */
    /* Two of two: the pi works 3 x (16 + 2) = 54 ms per group: T = 108 ms, T k / c = 72 ms. */
    assert_int_equal(q.k, 3);
    assert_int_equal(q.g, 1);
    lat = 0.002 + 2 * 0.001 + 3 * 0.010 + 3 * 0.011 + 2 * (1e-3 + 4100 / 1e7);
    near(q.score, 0.066 + 1e-3 * lat / 3 + 0.01 * (6 * 0.010 / 3));
    assert_true(q.memory_bytes[0] == 30 * MIB && q.memory_bytes[1] == 30 * MIB);
    place_predict(&in.p, &q.plan, q.used, &x);
    near(x.token_s, lat);
    near(x.period_s, 0.066);
    near(x.tokens_per_s, 1 / 0.066);
    assert_int_equal(x.limit, PLACE_LIMIT_DEVICE);
    assert_int_equal(x.limit_at, 1);
    near(x.busy[1], 0.5);
    near(x.hop_s[1], 1e-3 + 4100 / 1e7);
    near(x.hop_s[0] + x.hop_s[3], 0);

    /* The pi may work all the time, and is busy all of it: T = 54 ms, k = 2, while a step of two rows
     * takes 106.6 ms once round. */
    in.device[1].cap = 1;
    in.p.concurrency = 4;
    in.link[1] = (struct place_link){true, 1e-3, 1e7, 3};
    assert_int_equal(place_judge(&in.p, &q, &et), ERR_NONE);
    first = 0.001 + 2 * 0.015;
    tail = 0.001 + 0.015;
    pi = 3 * (0.016 + 1e-6 * 1000 * 2);
    lat = 0.002 + first + hop2 + pi + hop2 + tail;
    assert_int_equal(q.k, 2);
    assert_int_equal(q.g, 2);
    assert_true(lat / 2 < pi);
    near(q.score, 2 * pi / 4 + 1e-3 * lat / 4 + 0.01 * (6 * 0.010 / 4));
    /* A slow link to the pi: 2 groups send less than 4, which have a frame each. */
    in.link[1].bytes_per_s = 1e4;
    assert_int_equal(place_judge(&in.p, &q, &et), ERR_NONE);
    place_predict(&in.p, &q.plan, q.used, &x);
    assert_int_equal(x.k, 2);
    assert_int_equal(x.limit, PLACE_LIMIT_LINK);
    assert_int_equal(x.limit_at, 1);
    near(x.period_s, 8100 / 1e4);
}

static void test_batches(void **state)
{
    struct instance in;

    instance_plain(&in, 6, 1);
    in.cost[0][2] = (struct place_cost){.decode = {1, 2, 3, 5, 8}, .position = 0.25};
    in.p.depth = 2;
    near(place_module_s(&in.p, 0, 1, 1), 1 + 0.5);
    near(place_module_s(&in.p, 0, 1, 3), 3 + 1.5);
    near(place_module_s(&in.p, 0, 1, 4), 3 + 2);
    near(place_module_s(&in.p, 0, 1, 6), 5 + 3);
    near(place_module_s(&in.p, 0, 1, 17), 8 * 20 / 16.0 + 8.5);
    near(place_wire_s(&in.p, 0, 0, 1, 1), 0);
}

/* ---- the examples of LinguaLinked's analysis ---- */

/* Ping, rate and speed are its authors'; what modules compute and send is not in its paper and is
 * chosen here so that the two assignments cost what the analysis says, 0.501 s and 0.558 s: the two
 * unknowns (operations per module, bytes per boundary) from the two totals. Modules are alike, and a
 * device has room for five of them. What is sent: 20 KB behind module 4, 1 MB behind modules 1 to 3
 * (else one would rather cut there), and behind the others what the second total asks for. The
 * result comes home as a token's 4 bytes. */
static void lingualinked(struct instance *in)
{
    static const double ping[3][3] = {{0, 91.865, 90}, {89.33, 0, 88}, {85.2033, 86.33, 0}};
    static const double rate[3][3] = {{1, 12.1227, 10.303}, {13.48, 1, 14.1}, {11.202, 8.98, 1}};
    static const double speed[3] = {3.31e10, 5.35e10, 5.31e10};
    double f, hops, bytes = 20480;

    instance_plain(in, 8, 3);
    in->p.frame_bytes = 0;
    for (int i = 0; i < 8; i++) {
        in->module[i].class = 0;
        in->module[i].is_private = false;
        in->module[i].weight_bytes = 100 * MIB;
        in->module[i].out_bytes = i == 7 ? 4 : i > 0 && i < 4 ? 1000000 : (uint64_t)bytes;
    }
    in->p.n_classes = 1;
    for (int i = 0; i < 9; i++) {
        in->link[i].latency_s = ping[i / 3][i % 3] * 1e-3;
        in->link[i].bytes_per_s = rate[i / 3][i % 3] * 1e6;
    }
    /* 5 f / speed 0 + 3 f / speed 2 + hops = 0.501 */
    hops = 0.090 + bytes / 10.303e6 + 0.0852033 + 4 / 11.202e6;
    f = (0.501 - hops) / (5 / speed[0] + 3 / speed[2]);
    for (int d = 0; d < 3; d++) {
        in->device[d].memory_bytes = 500 * MIB;
        in->cost[d][0] = (struct place_cost){.prefill = f / speed[d]};
        for (int b = 0; b < PLACE_BATCHES; b++)
            in->cost[d][0].decode[b] = f / speed[d];
    }
}

static void test_lingualinked(void **state)
{
    struct instance in;
    struct placement q, theirs;
    struct place_prediction x;
    struct err_text et;
    double rest;

    lingualinked(&in);
    set_plan(&q, 2, (const int[][2]){{0, 5}, {2, 8}});
    q.plan.stage[1].device = 1;
    q.plan.n_devices = 2;
    q.used[1] = 2;
    set_plan(&theirs, 3, (const int[][2]){{0, 1}, {1, 6}, {2, 8}});
    theirs.used[1] = 2;
    theirs.used[2] = 1;
    assert_int_equal(place_judge(&in.p, &theirs, &et), ERR_NONE);
    place_predict(&in.p, &theirs.plan, theirs.used, &x);
    /* What is missing to 0.558 s is what its two cuts send. */
    rest = 0.558 - x.token_s;
    assert_true(rest > 0);
    in.module[0].out_bytes += (uint64_t)(rest / (1 / 10.303e6 + 1 / 8.98e6));
    in.module[5].out_bytes = in.module[0].out_bytes;
    place_predict(&in.p, &theirs.plan, theirs.used, &x);
    assert_true(fabs(x.token_s - 0.558) < 1e-6);
    place_predict(&in.p, &q.plan, q.used, &x);
    assert_true(fabs(x.token_s - 0.501) < 1e-6);

    solve(&in, &q);
    assert_int_equal(q.plan.n_stages, 2);
    assert_int_equal(q.plan.stage[0].end, 5);
    assert_int_equal(q.used[1], 2);
    assert_int_equal(place_judge(&in.p, &theirs, &et), ERR_NONE);
    assert_true(theirs.score > q.score * 1.1);
}

/* ---- single cases ---- */

static void test_head_alone(void **state)
{
    struct instance in;
    struct placement q;

    instance_plain(&in, 6, 1);
    solve(&in, &q);
    assert_int_equal(q.plan.n_stages, 1);
    assert_int_equal(q.plan.stage[0].end, 6);
    assert_true(q.memory_bytes[0] == 60 * MIB);
    near(q.score, 0.060 * (1 + PLACE_LATENCY_WEIGHT));
}

/* One stream gains nothing from a device as quick as the head; four streams do. */
static void test_concurrency(void **state)
{
    struct instance in;
    struct placement q;

    instance_plain(&in, 6, 3);
    solve(&in, &q);
    assert_int_equal(q.plan.n_devices, 1);
    in.p.concurrency = 4;
    solve(&in, &q);
    assert_int_equal(q.plan.n_devices, 3);
    assert_true(q.score < 0.5 * 0.060);
}

/* A device that saves less than it is worth is left out; one that must be used is not. */
static void test_worth(void **state)
{
    struct instance in;
    struct placement q;

    instance_plain(&in, 6, 2);
    for (int c = 0; c < 4; c++) /* two hops of 1.41 ms; saves 5 x 0.6 ms */
        in.cost[1][c].decode[0] = 0.0094;
    solve(&in, &q);
    assert_int_equal(q.plan.n_devices, 2);
    in.device[1].worth = PLACE_WORTH_DEFAULT;
    solve(&in, &q);
    assert_int_equal(q.plan.n_devices, 1);
    in.device[1].wish = PLACE_MUST;
    solve(&in, &q);
    assert_int_equal(q.plan.n_devices, 2);
    in.device[1].wish = PLACE_NOT;
    in.device[1].worth = 0;
    solve(&in, &q);
    assert_int_equal(q.plan.n_devices, 1);
}

static void test_private(void **state)
{
    struct instance in;
    struct placement q;

    instance_plain(&in, 6, 2);
    in.device[0].memory_bytes = 45 * MIB;
    solve(&in, &q);
    in.p.want_private = true; /* 0, 1 and 4, 5 stay; a tail of two */
    solve(&in, &q);
    assert_int_equal(q.plan.n_stages, 3);
    assert_int_equal(q.plan.stage[2].first, 4);
    in.device[0].memory_bytes = 35 * MIB;
    refused(&in, ERR_INPUT, "do not fit on the devices marked mine");
    in.device[1].mine = true;
    solve(&in, &q);
}

static void test_memory_words(void **state)
{
    struct instance in;

    instance_plain(&in, 6, 2);
    in.device[0].memory_bytes = 20 * MIB;
    in.device[1].memory_bytes = 30 * MIB;
    refused(&in, ERR_MEMORY, "too small by 10 MiB");
    for (int i = 1; i < 6; i += 2)
        in.module[i].kv_bytes = MIB / 64;
    in.device[0].memory_bytes = 31 * MIB;
    in.device[1].memory_bytes = 32 * MIB;
    in.p.n_ctx = 256;
    refused(&in, ERR_MEMORY, "with these budgets the largest context is 64");
    assert_int_equal(place_largest_ctx(&in.p), 64);
    in.device[1].base_bytes = UINT64_MAX; /* figures of a device that lies do not wrap around */
    refused(&in, ERR_MEMORY, "more on head it would fit");
    in.device[0].memory_bytes = 0;
    assert_int_equal(place_largest_ctx(&in.p), 1 << 24);
}

static void test_links(void **state)
{
    struct instance in;

    instance_plain(&in, 6, 3);
    for (int d = 0; d < 3; d++)
        in.device[d].memory_bytes = 25 * MIB;
    in.link[1 * 3 + 2].there = in.link[2 * 3 + 1].there = false;
    refused(&in, ERR_GONE, "pi cannot send to phone");
    in.device[2].memory_bytes = 100 * MIB;
    struct placement q;
    solve(&in, &q);
    in.device[1].wish = in.device[2].wish = PLACE_MUST;
    refused(&in, ERR_INPUT, "pi, phone");
}

static void test_equal(void **state)
{
    struct instance in;
    struct placement q;
    struct err_text et;

    instance_plain(&in, 8, 4);
    in.device[2].wish = PLACE_NOT;
    assert_int_equal(place_equal(&in.p, &q, &et), ERR_NONE);
    assert_int_equal(q.plan.n_stages, 3);
    assert_int_equal(q.plan.stage[0].end, 3);
    assert_int_equal(q.plan.stage[1].end, 6);
    assert_int_equal(q.used[2], 3);
    assert_true(q.score > 0);
    in.device[1].memory_bytes = 29 * MIB;
    assert_int_equal(place_equal(&in.p, &q, &et), ERR_MEMORY);
    assert_non_null(strstr(et.text, "pi would need 30 MiB"));
    instance_plain(&in, 3, 5);
    assert_int_equal(place_equal(&in.p, &q, &et), ERR_NONE);
    assert_int_equal(q.plan.n_stages, 3);
}

static void test_judge(void **state)
{
    struct instance in;
    struct placement q;
    struct err_text et;

    instance_plain(&in, 6, 3);
    set_plan(&q, 3, (const int[][2]){{0, 2}, {1, 4}, {0, 6}});
    assert_int_equal(place_judge(&in.p, &q, &et), ERR_INPUT); /* no tail begins there */
    set_plan(&q, 3, (const int[][2]){{0, 2}, {1, 4}, {2, 6}});
    assert_int_equal(place_judge(&in.p, &q, &et), ERR_NONE);
    in.link[2 * 3].there = false;
    assert_int_equal(place_judge(&in.p, &q, &et), ERR_GONE);
    assert_non_null(strstr(et.text, "phone cannot send to head"));
    q.used[2] = 1;
    assert_int_equal(place_judge(&in.p, &q, &et), ERR_INPUT);
    set_plan(&q, 2, (const int[][2]){{0, 2}, {1, 6}});
    in.device[2].wish = PLACE_MUST;
    in.link[2 * 3].there = true;
    assert_int_equal(place_judge(&in.p, &q, &et), ERR_INPUT);
    in.device[2].wish = PLACE_MAY;
    in.device[1].memory_bytes = MIB;
    assert_int_equal(place_judge(&in.p, &q, &et), ERR_MEMORY);
}

static void test_guess(void **state)
{
    struct instance in;
    struct place_cost cost[4];

    instance_plain(&in, 6, 1);
    place_guess_cost(&in.p, 10.0 * (double)MIB, cost);
    near(cost[2].decode[0], 1);
    near(cost[2].decode[2], 1);
    near(cost[2].decode[3], 2);
    near(cost[2].decode[4], 4);
}

/* ---- absurdities ---- */

static void test_absurd_numbers(void **state)
{
    static const double bad[] = {NAN, -1, INFINITY, -INFINITY, 1e9};

    for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
        struct instance in;

        instance_plain(&in, 6, 3);
        in.cost[2][1].decode[3] = bad[i];
        refused(&in, ERR_INPUT, "device phone: a step of 8 rows");
        instance_plain(&in, 6, 3);
        in.cost[2][1].position = bad[i];
        refused(&in, ERR_INPUT, "device phone");
        instance_plain(&in, 6, 3);
        in.cost[1][1].prefill = bad[i];
        refused(&in, ERR_INPUT, "device pi");
        instance_plain(&in, 6, 3);
        in.device[1].cap = bad[i];
        refused(&in, ERR_INPUT, "device pi: its cap");
        instance_plain(&in, 6, 3);
        in.device[1].worth = bad[i];
        refused(&in, ERR_INPUT, "device pi");
        instance_plain(&in, 6, 3);
        in.device[1].step_s = bad[i];
        refused(&in, ERR_INPUT, "device pi");
        instance_plain(&in, 6, 3);
        in.p.head_s = bad[i];
        refused(&in, ERR_INPUT, "the head takes");
        instance_plain(&in, 6, 3);
        in.link[1 * 3 + 2].latency_s = bad[i];
        refused(&in, ERR_INPUT, "link pi to phone: its latency");
        if (bad[i] > 1)
            continue;
        instance_plain(&in, 6, 3);
        in.link[1 * 3 + 2].bytes_per_s = bad[i];
        refused(&in, ERR_INPUT, "link pi to phone: its rate");
    }
}

static void test_absurd_counts(void **state)
{
    static struct place_device many[1000];
    struct instance in;

    instance_plain(&in, 6, 3);
    in.p.device = many;
    in.p.n_devices = 1000;
    refused(&in, ERR_INPUT, "1 to 64");
    assert_int_equal(place_largest_ctx(&in.p), 0);
    instance_plain(&in, 6, 3);
    in.p.n_modules = 0;
    refused(&in, ERR_INPUT, "0 modules");
    instance_plain(&in, 6, 3);
    in.module[3].class = 4;
    refused(&in, ERR_INPUT, "module 3 is of class 4");
    instance_plain(&in, 6, 3);
    in.module[3].class = -1;
    refused(&in, ERR_INPUT, "module 3");
    instance_plain(&in, 6, 3);
    in.module[3].weight_bytes = UINT64_MAX;
    refused(&in, ERR_INPUT, "absurdly large");
    for (int i = 0; i < 7; i++) {
        instance_plain(&in, 6, 3);
        int *what[] = {&in.p.n_ctx, &in.p.n_slots, &in.p.concurrency, &in.p.group_max,
                       &in.p.depth, &in.p.prompt,  &in.p.n_classes};
        *what[i] = -1;
        refused(&in, ERR_INPUT, "-1");
    }
    instance_plain(&in, 6, 3);
    in.p.concurrency = 257;
    refused(&in, ERR_INPUT, "1 to 256");
    instance_plain(&in, 6, 3);
    in.link[1].air = PLACE_AIRS_MAX + 1;
    refused(&in, ERR_INPUT, "air 9");
}

static void test_contradictions(void **state)
{
    struct instance in;

    instance_plain(&in, 6, 3);
    in.device[2].name = "pi";
    refused(&in, ERR_INPUT, "two devices are called pi");
    instance_plain(&in, 6, 3);
    in.device[2].name = NULL;
    refused(&in, ERR_INPUT, "device 2 has no name");
    instance_plain(&in, 6, 3);
    in.device[2].cost = NULL;
    refused(&in, ERR_INPUT, "no profile");
    instance_plain(&in, 6, 3);
    in.device[0].wish = PLACE_NOT;
    refused(&in, ERR_INPUT, "head");
    instance_plain(&in, 6, 3);
    in.p.want_private = true;
    in.device[0].mine = false;
    refused(&in, ERR_INPUT, "lingua devices mine head");
    in.device[1].mine = true;
    in.device[1].wish = PLACE_NOT;
    refused(&in, ERR_INPUT, "there is none that may be used");
    instance_plain(&in, 6, 3);
    in.device[2].wish = PLACE_MUST;
    in.link[0 * 3 + 2].there = in.link[1 * 3 + 2].there = false;
    refused(&in, ERR_INPUT, "phone must be used, and no links lead to it");
    instance_plain(&in, 3, 3);
    in.device[1].wish = in.device[2].wish = PLACE_MUST;
    in.device[2].memory_bytes = MIB;
    refused(&in, ERR_INPUT, "must be used cannot all be");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_by_hand),        cmocka_unit_test(test_batches),
        cmocka_unit_test(test_lingualinked),   cmocka_unit_test(test_head_alone),
        cmocka_unit_test(test_concurrency),    cmocka_unit_test(test_worth),
        cmocka_unit_test(test_private),        cmocka_unit_test(test_memory_words),
        cmocka_unit_test(test_links),          cmocka_unit_test(test_equal),
        cmocka_unit_test(test_judge),          cmocka_unit_test(test_guess),
        cmocka_unit_test(test_absurd_numbers), cmocka_unit_test(test_absurd_counts),
        cmocka_unit_test(test_contradictions),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
