/* What a report says of each device, against plans made with and without it; and every kind of
 * sentence about what limits a plan. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "plan/report.h"

enum { MODULES = 10, DEVICES = 4, CLASSES = 3 };

/* A laptop, a fast PC, a phone, and a board so slow that it only hurts; every device needs what it
 * holds, and no two can hold everything. */
struct world {
    struct place_module module[MODULES];
    struct place_cost cost[DEVICES][CLASSES];
    struct place_device device[DEVICES];
    struct place_link link[DEVICES * DEVICES];
    struct place_problem p;
    struct placement placement;
    struct report report;
};

static void cost_set(struct place_cost c[CLASSES], double ms)
{
    for (int k = 0; k < CLASSES; k++) {
        for (int b = 0; b < PLACE_BATCHES; b++)
            c[k].decode[b] = ms / 1e3 * (b < 3 ? 1 : 1 << (b - 2));
        c[k].prefill = ms / 1e4;
    }
}

static struct world *world_new(void)
{
    static const char *const names[DEVICES] = {"laptop", "pc", "phone", "old-board"};
    static const double ms[DEVICES] = {4, 2, 5, 400};
    struct world *w = calloc(1, sizeof *w);

    assert_non_null(w);
    for (int m = 0; m < MODULES; m++)
        w->module[m] = (struct place_module){.class = m == 0             ? 0
                                                      : m == MODULES - 1 ? 2
                                                                         : 1,
                                             .weight_bytes = 100 << 20,
                                             .decode_bytes = 100 << 20,
                                             .out_bytes = 8192};
    for (int d = 0; d < DEVICES; d++) {
        cost_set(w->cost[d], ms[d]);
        w->device[d] = (struct place_device){.name = names[d],
                                             .memory_bytes = 450 << 20,
                                             .mine = true,
                                             .cap = 1,
                                             .worth = PLACE_WORTH_DEFAULT,
                                             .cost = w->cost[d]};
    }
    for (int i = 0; i < DEVICES * DEVICES; i++)
        w->link[i] = (struct place_link){.there = true, .latency_s = 1e-3, .bytes_per_s = 12.5e6};
    w->p = (struct place_problem){.n_modules = MODULES,
                                  .n_devices = DEVICES,
                                  .n_classes = CLASSES,
                                  .module = w->module,
                                  .device = w->device,
                                  .link = w->link,
                                  .frame_bytes = 150,
                                  .n_slots = 1,
                                  .n_ctx = 64,
                                  .concurrency = 1,
                                  .group_max = 1,
                                  .prompt = 32};
    return w;
}

static void report_of(struct world *w)
{
    struct err_text et;

    if (place_solve(&w->p, &PLACE_OPTS_DEFAULT, &w->placement, &et))
        fail_msg("%s", et.text);
    report_make(&w->p, &w->placement, &w->report);
}

/* Tokens per second with a device's wish changed; 0 and the reason when there is no plan. */
static double speed_with(struct world *w, int d, enum place_wish wish, struct err_text *why)
{
    const struct place_opts quick = {.quick = true};
    enum place_wish was = w->device[d].wish;
    struct placement *found = calloc(1, sizeof *found);
    struct place_prediction t = {0};
    enum err e;

    w->device[d].wish = wish;
    e = place_solve(&w->p, &quick, found, why);
    if (!e)
        place_predict(&w->p, &found->plan, found->used, &t);
    w->device[d].wish = was;
    free(found);
    return e ? 0 : t.tokens_per_s;
}

static void devices_check(struct world *w)
{
    for (int d = 1; d < DEVICES; d++) {
        const struct report_device *rd = &w->report.device[d];
        struct err_text why = {{0}};
        double speed = speed_with(w, d, rd->used ? PLACE_NOT : PLACE_MUST, &why);

        assert_true(rd->other_tokens_per_s == speed);
        assert_string_equal(rd->why.text, speed > 0 ? "" : why.text);
    }
}

static void test_devices(void **state)
{
    struct world *w = world_new();
    (void)state;

    report_of(w);
    assert_true(w->report.device[0].used);
    assert_true(w->report.device[1].used);
    assert_true(w->report.device[2].used);
    assert_false(w->report.device[3].used);
    devices_check(w);
    /* Without the PC the old board must help out; with it forced in, all wait for it. */
    assert_true(w->report.device[1].other_tokens_per_s > 0);
    assert_true(w->report.device[1].other_tokens_per_s < w->report.prediction.tokens_per_s / 3);
    assert_true(w->report.device[3].other_tokens_per_s > 0);
    assert_true(w->report.device[3].other_tokens_per_s < w->report.prediction.tokens_per_s / 3);
    /* The head is no choice. */
    assert_true(w->report.device[0].other_tokens_per_s == 0);
    assert_non_null(strstr(w->report.device[0].why.text, "head"));
    free(w);
}

static void test_nothing_without(void **state)
{
    struct world *w = world_new();
    (void)state;

    w->p.n_devices = 3;
    for (int i = 0; i < 9; i++) /* a smaller square */
        w->link[i].there = true;
    report_of(w);
    for (int d = 1; d < 3; d++) {
        assert_true(w->report.device[d].used);
        assert_true(w->report.device[d].other_tokens_per_s == 0);
        assert_non_null(strstr(w->report.device[d].why.text, "MiB"));
    }
    free(w);
}

static void test_cannot_take_part(void **state)
{
    struct world *w = world_new();
    (void)state;

    for (int i = 0; i < DEVICES; i++) {
        w->link[3 * DEVICES + i].there = false;
        w->link[i * DEVICES + 3].there = false;
    }
    report_of(w);
    assert_false(w->report.device[3].used);
    assert_true(w->report.device[3].other_tokens_per_s == 0);
    assert_non_null(strstr(w->report.device[3].why.text, "old-board"));
    free(w);
}

/* A device that was asked to stay out is still told what it would bring. */
static void test_asked_out(void **state)
{
    struct world *w = world_new();
    (void)state;

    w->device[2].wish = PLACE_NOT;
    w->device[1].memory_bytes = 900u << 20;
    report_of(w);
    assert_false(w->report.device[2].used);
    assert_true(w->report.device[2].other_tokens_per_s > 0);
    devices_check(w);
    free(w);
}

static void test_equal(void **state)
{
    struct world *w = world_new();
    struct err_text et;
    (void)state;

    if (place_equal(&w->p, &w->placement, &et))
        fail_msg("%s", et.text);
    report_make(&w->p, &w->placement, &w->report);
    for (int d = 0; d < DEVICES; d++)
        assert_true(w->report.device[d].used);
    assert_true(w->report.device[3].other_tokens_per_s > w->report.prediction.tokens_per_s);
    devices_check(w);
    free(w);
}

/* With many devices the other plans are near the one that is reported on: hardly worse than a whole
 * search would find, and what they leave out or must use they do. */
static void test_many(void **state)
{
    enum { MANY = 14 };
    struct place_device device[MANY];
    struct place_cost cost[MANY][CLASSES];
    struct place_link link[MANY * MANY];
    char name[MANY][8];
    struct world *w = world_new();
    int n_used = 0, n_without = 0;
    (void)state;

    for (int d = 0; d < MANY; d++) {
        snprintf(name[d], sizeof name[d], "d%d", d);
        cost_set(cost[d], 2 + d * 5 % 7);
        device[d] = w->device[0];
        device[d].name = name[d];
        device[d].cost = cost[d];
        device[d].memory_bytes = (uint64_t)(250 + 100 * (d % 3)) << 20;
    }
    for (int i = 0; i < MANY * MANY; i++) {
        link[i] = w->link[0];
        link[i].latency_s = 1e-4 * (1 + i % 5);
    }
    w->p.n_devices = MANY;
    w->p.device = device;
    w->p.link = link;
    w->p.concurrency = 2;
    report_of(w);
    for (int d = 1; d < MANY; d++) {
        const struct place_opts quick = {.quick = true};
        const struct report_device *rd = &w->report.device[d];
        struct place_prediction t;
        struct err_text et;

        device[d].wish = rd->used ? PLACE_NOT : PLACE_MUST;
        if (place_solve(&w->p, &quick, &w->placement, &et))
            fail_msg("%s", et.text);
        device[d].wish = PLACE_MAY;
        place_predict(&w->p, &w->placement.plan, w->placement.used, &t);
        if (!(rd->other_tokens_per_s > 0.95 * t.tokens_per_s))
            fail_msg("%s: %g where %g is possible", name[d], rd->other_tokens_per_s,
                     t.tokens_per_s);
        n_used += rd->used;
        n_without += !rd->used;
    }
    assert_true(n_used >= 2 && n_without >= 2);
    free(w);
}

/* ---- sentences, on a plan made by hand: laptop, pc, phone, and `output` on the laptop ---- */

static void by_hand(struct world *w)
{
    static const struct plan_stage stage[] = {{0, 0, 3}, {1, 3, 6}, {2, 6, 9}, {0, 9, 10}};
    struct placement *f = &w->report.placement;

    memset(&w->report, 0, sizeof w->report);
    f->plan.n_devices = 3;
    f->plan.n_stages = 4;
    memcpy(f->plan.stage, stage, sizeof stage);
    for (int d = 0; d < 3; d++)
        f->used[d] = d;
    place_predict(&w->p, &f->plan, f->used, &w->report.prediction);
}

static void says(struct world *w, const char *sentence)
{
    char buf[256], cut[40];

    by_hand(w);
    report_limit_text(&w->p, &w->report, buf, sizeof buf);
    assert_string_equal(buf, sentence);
    report_limit_text(&w->p, &w->report, cut, sizeof cut);
    assert_true(strlen(cut) < sizeof cut);
    assert_memory_equal(cut, sentence, strlen(cut));
}

static void test_sentences(void **state)
{
    struct world *w = world_new();
    (void)state;

    says(w, "single stream: laptop computes 16 of 42 ms per token");
    w->link[1 * DEVICES + 2].latency_s = 0.1;
    says(w, "single stream: the way from pc to phone takes 101 of 141 ms per token");
    w->p.head_s = 0.3;
    says(w, "single stream: sampling on laptop takes 300 of 441 ms per token");
    w->p.concurrency = 2;
    says(w, "2 streams: a step of 1 row must come home before the next can go; sampling on laptop "
            "takes 300 of its 441 ms");
    w->p.head_s = 0;
    w->link[1 * DEVICES + 2].latency_s = 1e-3;
    w->p.concurrency = 8;
    says(w, "8 streams: laptop is busy all the time");
    w->device[2].cap = 0.5;
    says(w, "8 streams: phone is busy 50 % of the time, which is as much as its cap allows");
    w->device[2].cap = 1;
    w->link[1 * DEVICES + 2].bytes_per_s = 1e5;
    says(w, "8 streams: the link from pc to phone carries all it can");
    for (int i = 0; i < DEVICES * DEVICES; i++) {
        w->link[i].air = 3;
        w->link[i].bytes_per_s = 5e5;
    }
    says(w, "8 streams: the shared air (air 3) carries all it can");
    free(w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_devices),
        cmocka_unit_test(test_nothing_without),
        cmocka_unit_test(test_cannot_take_part),
        cmocka_unit_test(test_asked_out),
        cmocka_unit_test(test_equal),
        cmocka_unit_test(test_many),
        cmocka_unit_test(test_sentences),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
