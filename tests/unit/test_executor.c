/* The executor over the toy model: order of steps, slot changes, failures. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

#include "device/executor.h"
#include "toy.h"

static struct err_text et;

/* A toy of 8 modules, cut into stages 0-2 and 5-7 on device 0, 3-4 on device 1. */
struct bench {
    struct model *model;
    struct compute *compute;
    struct plan plan;
    struct executor *device[2];
    int32_t slot[4], pos[4], token[4];
    uint8_t want[4];
    uint64_t tag[8];
    int n_tags;
};

static void bench_open(struct bench *b, const char *model)
{
    struct executor_opts opts = {.segment = {2, 32, 4, KV_F16}};

    memset(b, 0, sizeof *b);
    b->plan = (struct plan){1, 2, 3, {{0, 0, 3}, {1, 3, 5}, {0, 5, 8}}};
    assert_int_equal(model_open(model, &b->model, &et), ERR_NONE);
    assert_int_equal(plan_check(&b->plan, model_n_modules(b->model), &et), ERR_NONE);
    assert_int_equal(compute_open(1, &b->compute, &et), ERR_NONE);
    for (int d = 0; d < 2; d++)
        assert_int_equal(
            executor_open(b->model, b->compute, &b->plan, d, &opts, &b->device[d], &et), ERR_NONE);
}

static void bench_close(struct bench *b)
{
    executor_close(b->device[0]);
    executor_close(b->device[1]);
    compute_close(b->compute);
    model_close(b->model);
}

static struct step make_step(struct bench *b, uint64_t number, int pos, int n_rows)
{
    struct step s = {.number = number, .epoch = 1, .n_rows = n_rows};

    for (int i = 0; i < n_rows; i++) {
        b->slot[i] = 0;
        b->pos[i] = pos + i;
        b->token[i] = 10 + pos + i;
        b->want[i] = i == n_rows - 1;
    }
    s.slot = b->slot;
    s.pos = b->pos;
    s.token = b->token;
    s.want = b->want;
    s.n_want = n_rows > 0;
    return s;
}

static enum err run(struct bench *b, struct step *s)
{
    return executor_run(b->device[b->plan.stage[s->stage].device], s, &et);
}

static void run_through(struct bench *b, struct step *s)
{
    while (s->stage < b->plan.n_stages)
        assert_int_equal(run(b, s), ERR_NONE);
}

static void test_runs_and_counts(void **state)
{
    struct bench b;
    struct step s;
    struct executor_stats stats;

    (void)state;
    bench_open(&b, "toy layers=3");
    s = make_step(&b, 1, 0, 3);
    assert_int_equal(run(&b, &s), ERR_NONE);
    assert_int_equal(s.stage, 1);
    assert_null(s.token);
    assert_int_equal(s.in.n_rows, 3);
    run_through(&b, &s);
    assert_int_equal(s.in.width[0], TOY_VOCAB);
    assert_int_equal(s.in.n_rows, 1);
    s = make_step(&b, 2, 3, 1);
    run_through(&b, &s);
    executor_stats(b.device[0], &stats); /* two stages, but a step is one step */
    assert_int_equal(stats.steps, 2);
    assert_int_equal(stats.rows, 4);
    assert_int_equal(stats.decode_steps, 1);
    assert_int_equal(stats.weight_bytes, 6000);
    bench_close(&b);
}

static void test_refuses_what_is_not_due(void **state)
{
    struct bench b;
    struct step s;
    const struct step_tensors none = {0};

    (void)state;
    bench_open(&b, "toy layers=3");
    s = make_step(&b, 2, 0, 1); /* number 1 is missing */
    assert_int_equal(run(&b, &s), ERR_PROTO);
    s = make_step(&b, 1, 0, 1);
    s.epoch = 2;
    assert_int_equal(run(&b, &s), ERR_PROTO);
    s = make_step(&b, 1, 0, 1);
    s.token = NULL;
    assert_int_equal(run(&b, &s), ERR_PROTO);
    s = make_step(&b, 1, 0, 1);
    assert_int_equal(executor_run(b.device[1], &s, &et), ERR_PROTO); /* not its stage */
    assert_int_equal(run(&b, &s), ERR_NONE); /* nothing of all that counted */
    s.in.width[0]++;
    assert_int_equal(run(&b, &s), ERR_PROTO);
    s.in.width[0]--;
    s.in.n_rows = 0;
    assert_int_equal(run(&b, &s), ERR_PROTO);
    s.in.n_rows = 1;
    run_through(&b, &s);
    s = make_step(&b, 1, 1, 1); /* again */
    assert_int_equal(run(&b, &s), ERR_PROTO);
    s = make_step(&b, 2, 1, 1);
    assert_int_equal(run(&b, &s), ERR_NONE);
    s.in = none;
    assert_int_equal(run(&b, &s), ERR_PROTO);
    bench_close(&b);
}

/* Stage 1 cannot run position 2. The step still goes through all stages, is never skipped, and its
 * slot changes happen in each. */
static void test_failed_step_is_passed_on(void **state)
{
    struct bench b;
    struct step s;
    struct slot_op ops[] = {{SLOT_OP_COPY, 0, 1, 2}, {SLOT_OP_TRUNCATE, 0, 0, 2}};
    struct executor_stats stats;

    (void)state;
    bench_open(&b, "toy layers=3 fail_module=3 fail_pos=2");
    s = make_step(&b, 1, 0, 2);
    run_through(&b, &s);
    assert_int_equal(s.code, ERR_NONE);
    s = make_step(&b, 2, 2, 1);
    s.ops = ops;
    s.n_ops = 2;
    run_through(&b, &s);
    assert_int_equal(s.code, ERR_MEMORY);
    assert_non_null(strstr(s.reason.text, "module 3"));
    assert_int_equal(s.in.n, 0);
    executor_stats(b.device[1], &stats);
    assert_int_equal(stats.steps, 1);

    /* Slot 1 is the copy in every stage, and goes on. */
    s = make_step(&b, 3, 0, 0);
    ops[0] = (struct slot_op){SLOT_OP_TRUNCATE, 1, 0, 2};
    s.ops = ops;
    s.n_ops = 1;
    run_through(&b, &s);
    assert_int_equal(s.code, ERR_NONE);
    ops[0] = (struct slot_op){SLOT_OP_TRUNCATE, 1, 0, 3};
    s = make_step(&b, 4, 0, 0);
    s.ops = ops;
    s.n_ops = 1;
    run_through(&b, &s);
    assert_int_equal(s.code, ERR_INPUT); /* longer than it is */
    bench_close(&b);
}

static void test_copy_comes_before_the_rows(void **state)
{
    struct bench b;
    struct step s;
    struct slot_op op = {SLOT_OP_COPY, 0, 1, 2};
    float straight[TOY_VOCAB];

    (void)state;
    bench_open(&b, "toy layers=3");
    s = make_step(&b, 1, 0, 3);
    run_through(&b, &s);
    memcpy(straight, s.in.data[0], sizeof straight);
    s = make_step(&b, 2, 2, 1);
    b.slot[0] = 1;
    s.ops = &op;
    s.n_ops = 1;
    run_through(&b, &s);
    assert_memory_equal(straight, s.in.data[0], sizeof straight);
    bench_close(&b);
}

/* A tag per prefix as a head might make it: of all that was put into the slot, in order. */
static uint64_t toy_tag(int story, int len)
{
    return len ? (uint64_t)(story + 1) * 1000003u + (uint64_t)len : 77;
}

/* Gives s the tags of rows that tell the given story from their positions on. */
static void put_tags(struct bench *b, struct step *s, int story)
{
    b->n_tags = 0;
    for (int i = 0; i < s->n_rows; i++) {
        if (i == 0 || b->slot[i] != b->slot[i - 1] || b->pos[i] != b->pos[i - 1] + 1)
            b->tag[b->n_tags++] = toy_tag(story, b->pos[i]);
        b->tag[b->n_tags++] = toy_tag(story, b->pos[i] + 1);
    }
    s->tag = b->tag;
    s->n_tags = b->n_tags;
}

static void run_story(struct bench *b, uint64_t number, int pos, int n_rows, int story, enum err e)
{
    struct step s = make_step(b, number, pos, n_rows);

    put_tags(b, &s, story);
    run_through(b, &s);
    assert_int_equal(s.code, e);
    if (e)
        assert_non_null(strstr(s.reason.text, "slot 0 does not hold"));
}

static void test_tags(void **state)
{
    struct bench b;
    struct step s;

    (void)state;
    bench_open(&b, "toy layers=3");
    run_story(&b, 1, 0, 2, 0, ERR_NONE);
    run_story(&b, 2, 2, 1, 0, ERR_NONE);
    run_story(&b, 3, 3, 1, 1, ERR_PROTO); /* another story */
    run_story(&b, 4, 3, 1, 0, ERR_NONE);  /* what stands before it is untouched */
    run_story(&b, 5, 2, 1, 0, ERR_NONE);  /* back, over what was there */
    run_story(&b, 6, 0, 2, 1, ERR_NONE);  /* at 0 any story may begin */
    run_story(&b, 7, 2, 1, 0, ERR_PROTO);
    s = make_step(&b, 8, 2, 1); /* not checked: what it leaves is not known */
    run_through(&b, &s);
    assert_int_equal(s.code, ERR_NONE);
    run_story(&b, 9, 3, 1, 1, ERR_PROTO);
    s = make_step(&b, 10, 2, 1);
    put_tags(&b, &s, 1);
    s.n_tags++;
    assert_int_equal(run(&b, &s), ERR_PROTO); /* that many tags belong to no such rows */
    bench_close(&b);
}

static void test_tags_go_with_the_slots(void **state)
{
    struct bench b;
    struct step s;
    struct slot_op ops[] = {{SLOT_OP_COPY, 0, 1, 2}, {SLOT_OP_TRUNCATE, 0, 0, 1}};

    (void)state;
    bench_open(&b, "toy layers=3");
    run_story(&b, 1, 0, 3, 5, ERR_NONE);
    /* Slot 1 goes on with what was copied, slot 0 where it was cut; the third run stands on the
     * second row. */
    s = make_step(&b, 2, 0, 3);
    s.ops = ops;
    s.n_ops = 2;
    b.slot[0] = 1;
    b.pos[0] = 2;
    b.pos[1] = 1;
    b.slot[2] = 1;
    b.pos[2] = 3;
    put_tags(&b, &s, 5);
    assert_int_equal(s.n_tags, 6);
    run_through(&b, &s);
    assert_int_equal(s.code, ERR_NONE);
    /* The same with a wrong copy: of another length than the tags speak of. */
    run_story(&b, 3, 2, 2, 5, ERR_NONE);
    ops[0].len = 4;
    s = make_step(&b, 4, 4, 1);
    b.slot[0] = 1;
    put_tags(&b, &s, 6);
    s.ops = ops;
    s.n_ops = 1;
    run_through(&b, &s);
    assert_int_equal(s.code, ERR_PROTO);
    bench_close(&b);
}

/* A failed step leaves no tag behind that says its rows were run. */
static void test_failed_rows_have_no_tags(void **state)
{
    struct bench b;
    struct step s;

    (void)state;
    bench_open(&b, "toy layers=3 fail_module=3 fail_pos=2");
    run_story(&b, 1, 0, 2, 0, ERR_NONE);
    s = make_step(&b, 2, 2, 1);
    put_tags(&b, &s, 0);
    run_through(&b, &s);
    assert_int_equal(s.code, ERR_MEMORY);
    s = make_step(&b, 3, 3, 1);
    put_tags(&b, &s, 0);
    assert_int_equal(run(&b, &s), ERR_NONE); /* stage 0 did run position 2 */
    assert_int_equal(s.code, ERR_NONE);
    run_through(&b, &s);
    assert_int_equal(s.code, ERR_PROTO);
    assert_non_null(strstr(s.reason.text, "slot 0 does not hold"));
    bench_close(&b);
}

static void test_restart(void **state)
{
    struct bench b;
    struct step s;
    float first[TOY_VOCAB];
    struct segment_opts opts = {2, 32, 4, KV_F16};
    struct plan p;
    struct executor_stats stats;

    (void)state;
    bench_open(&b, "toy layers=3");
    run_story(&b, 1, 0, 3, 0, ERR_NONE);
    s = make_step(&b, 2, 0, 1);
    run_through(&b, &s);
    memcpy(first, s.in.data[0], sizeof first);
    p = b.plan;
    p.epoch = 2;
    p.stage[0].end = p.stage[1].first = 2;
    assert_false(executor_restart(b.device[0], &p, 0, &opts)); /* other modules */
    p.stage[0].end = p.stage[1].first = 3;
    assert_false(executor_restart(b.device[0], &p, 1, &opts));
    opts.n_slots = 3;
    assert_false(executor_restart(b.device[0], &p, 0, &opts));
    opts.n_slots = 2;
    s = make_step(&b, 3, 1, 1);
    run_through(&b, &s); /* none of that did anything */
    assert_int_equal(s.code, ERR_NONE);

    assert_true(executor_restart(b.device[0], &p, 0, &opts));
    assert_true(executor_restart(b.device[1], &p, 1, &opts));
    s = make_step(&b, 4, 2, 1);
    assert_int_equal(run(&b, &s), ERR_PROTO); /* the old epoch's next */
    s = make_step(&b, 1, 0, 1);
    s.epoch = 2;
    run_through(&b, &s);
    assert_int_equal(s.code, ERR_NONE);
    assert_memory_equal(first, s.in.data[0], sizeof first);
    s = make_step(&b, 2, 2, 1); /* slots were emptied: only one position is there */
    s.epoch = 2;
    run_through(&b, &s);
    assert_int_equal(s.code, ERR_INPUT);
    executor_stats(b.device[1], &stats);
    assert_int_equal(stats.steps, 4);
    bench_close(&b);
}

static void test_plan(void **state)
{
    struct bench b;
    struct plan_transfer t;
    char text[96];

    (void)state;
    bench_open(&b, "toy layers=3 parallel=1 width=6");
    plan_transfer(&b.plan, b.model, 0, &t); /* in front of attn.1 */
    assert_int_equal(t.to_device, 1);
    assert_int_equal(t.n, 1);
    b.plan.stage[0].end = b.plan.stage[1].first = 2; /* in front of ffn.0 */
    plan_transfer(&b.plan, b.model, 0, &t);
    assert_int_equal(t.n, 2);
    assert_int_equal(t.width[1], 6);
    plan_transfer(&b.plan, b.model, 2, &t);
    assert_int_equal(t.to_stage, 3);
    assert_int_equal(t.width[0], TOY_VOCAB);
    plan_describe(&b.plan, b.model, 0, text, sizeof text);
    assert_string_equal(text, "embed..attn.0 + attn.2..output");
    plan_describe(&b.plan, b.model, 0, text, 12); /* cut short, never beyond */
    assert_true(strlen(text) < 12);
    assert_true(plan_linked(&b.plan, 0, 1) && plan_linked(&b.plan, 1, 0));
    assert_false(plan_linked(&b.plan, 0, 0));
    assert_true(plan_weight_bytes(&b.plan, b.model, 1) == 3000);
    b.plan.stage[1].first = 3;
    assert_int_equal(plan_check(&b.plan, 8, &et), ERR_INPUT);
    b.plan.stage[1].first = 2;
    b.plan.stage[1].device = 0;
    assert_int_equal(plan_check(&b.plan, 8, &et), ERR_INPUT);
    b.plan.stage[1].device = 1;
    b.plan.n_devices = 3;
    assert_int_equal(plan_check(&b.plan, 8, &et), ERR_INPUT);
    b.plan.n_devices = 2;
    assert_int_equal(plan_check(&b.plan, 9, &et), ERR_INPUT);
    assert_int_equal(plan_check(&b.plan, 8, &et), ERR_NONE);
    bench_close(&b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_runs_and_counts),
        cmocka_unit_test(test_refuses_what_is_not_due),
        cmocka_unit_test(test_failed_step_is_passed_on),
        cmocka_unit_test(test_copy_comes_before_the_rows),
        cmocka_unit_test(test_tags),
        cmocka_unit_test(test_tags_go_with_the_slots),
        cmocka_unit_test(test_failed_rows_have_no_tags),
        cmocka_unit_test(test_restart),
        cmocka_unit_test(test_plan),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
