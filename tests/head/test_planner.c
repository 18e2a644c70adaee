/* The planner's thread: jobs come back answered, in order; a plan that runs stays while it is good
 * enough; closing loses nothing. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>
#include <event2/event.h>

#include "head/planner.h"

enum { LAYERS = 6, MODULES = 2 * LAYERS + 2, DEVICES = 3, QUESTIONS = 60 };

static struct place_module modules[MODULES];
static struct event_base *base;
static struct planner *planner;
static struct planner_job *answers[QUESTIONS + 1];
static int n_answers, n_wanted;

static void on_done(void *user, struct planner_job *job)
{
    assert_ptr_equal(user, &n_answers);
    answers[n_answers++] = job;
    if (n_answers == n_wanted)
        event_base_loopbreak(base);
}

/* Every module takes ms[d] on device d; hops 1 ms. */
static struct draft *draft_of(const double ms[DEVICES])
{
    struct place_problem p = {.n_modules = MODULES,
                              .n_classes = 1,
                              .module = modules,
                              .n_slots = 1,
                              .n_ctx = 64,
                              .concurrency = 1,
                              .group_max = 1,
                              .depth = 16,
                              .prompt = 16};
    struct draft *d;

    for (int i = 0; i < MODULES; i++)
        modules[i] = (struct place_module){
            .weight_bytes = 1 << 20, .decode_bytes = 1 << 20, .out_bytes = 1024};
    d = draft_new(&p, DEVICES);
    for (int i = 0; i < DEVICES; i++) {
        snprintf(d->name[i], sizeof d->name[i], "device %d", i);
        d->device[i].cap = 1;
        d->device[i].worth = PLACE_WORTH_DEFAULT;
        for (int b = 0; b < PLACE_BATCHES; b++)
            d->cost[i][0].decode[b] = ms[i] / 1e3;
        d->cost[i][0].prefill = ms[i] / 1e4;
        d->member[i] = i;
    }
    for (int i = 0; i < DEVICES * DEVICES; i++)
        d->link[i] = (struct place_link){.there = true, .latency_s = 0.001, .bytes_per_s = 1e8};
    return d;
}

static void await_answers(int n)
{
    n_wanted = n;
    while (n_answers < n)
        assert_int_equal(event_base_loop(base, EVLOOP_NO_EXIT_ON_EMPTY), 0);
}

static int setup(void **state)
{
    (void)state;
    base = event_base_new();
    planner = planner_new(base, on_done, &n_answers);
    n_answers = 0;
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    planner_close(planner);
    for (int i = 0; i < n_answers; i++)
        planner_job_free(answers[i]);
    event_base_free(base);
    return 0;
}

static void test_jobs_come_back_in_order(void **state)
{
    static const double even[] = {10, 10, 10}, fast[] = {10, 1, 30};

    (void)state;
    for (uint32_t i = 0; i < 6; i++) {
        struct planner_job *job = planner_job_new(draft_of(i % 2 ? fast : even));

        job->ticket = i;
        job->with_report = i == 1;
        planner_begin(planner, job);
    }
    await_answers(6);
    for (uint32_t i = 0; i < 6; i++) {
        assert_int_equal(answers[i]->ticket, i);
        assert_int_equal(answers[i]->code, ERR_NONE);
        /* Equal devices are no help to one stream; one that is ten times as fast is. */
        assert_int_equal(answers[i]->found.plan.n_devices, i % 2 ? 2 : 1);
    }
    assert_non_null(answers[1]->report);
    assert_null(answers[0]->report);
    assert_false(answers[1]->report->device[2].used);
    assert_true(answers[1]->report->prediction.token_s > 0);
}

static void test_what_runs_stays_while_it_is_good_enough(void **state)
{
    /* Moving one module from the first to the second would save 1 %, or half. */
    static const double near[] = {10, 9.9, 10}, far[] = {10, 1, 10};
    const double *costs[] = {near, far};

    (void)state;
    for (int i = 0; i < 2; i++) {
        struct planner_job *job = planner_job_new(draft_of(costs[i]));

        job->has_now = true;
        job->now.plan.n_devices = job->now.plan.n_stages = 1;
        job->now.plan.stage[0] = (struct plan_stage){0, 0, MODULES};
        planner_begin(planner, job);
    }
    await_answers(2);
    assert_true(answers[0]->found.plan.n_devices == 1);
    assert_false(answers[1]->stayed);
    assert_int_equal(answers[1]->found.plan.n_devices, 2);
}

static void test_a_plan_that_breaks_a_wish_does_not_stay(void **state)
{
    static const double even[] = {10, 10, 10};
    struct planner_job *job = planner_job_new(draft_of(even));

    (void)state;
    job->draft->device[2].wish = PLACE_MUST;
    job->has_now = true;
    job->now.plan.n_devices = job->now.plan.n_stages = 1;
    job->now.plan.stage[0] = (struct plan_stage){0, 0, MODULES};
    planner_begin(planner, job);
    await_answers(1);
    assert_int_equal(answers[0]->code, ERR_NONE);
    assert_false(answers[0]->stayed);
    assert_int_equal(answers[0]->found.used[1], 2);
}

/* Questions, then a job of the cluster's own: how many questions were answered before it. */
static uint32_t overtaken_by(void)
{
    static const double even[] = {10, 10, 10};
    struct planner_job *jobs[QUESTIONS + 1];
    uint32_t before = 0, last = 0;

    for (uint32_t i = 0; i <= QUESTIONS; i++) {
        jobs[i] = planner_job_new(draft_of(even));
        jobs[i]->ticket = i;
        jobs[i]->with_report = true;
        jobs[i]->about = i < QUESTIONS ? &n_answers : NULL;
    }
    for (int i = 0; i <= QUESTIONS; i++)
        planner_begin(planner, jobs[i]);
    await_answers(QUESTIONS + 1);
    while (answers[before]->about)
        before++;
    for (int i = 0; i <= QUESTIONS; i++) {
        if (answers[i]->about) { /* those in order */
            assert_true(last <= answers[i]->ticket);
            last = answers[i]->ticket;
        }
        planner_job_free(answers[i]);
    }
    n_answers = 0;
    return before;
}

/* The thread may be done with all questions before the last job is there: then once more. */
static void test_what_the_cluster_waits_for_goes_first(void **state)
{
    uint32_t before = QUESTIONS;

    (void)state;
    for (int i = 0; i < 100 && before == QUESTIONS; i++)
        before = overtaken_by();
    assert_true(before < QUESTIONS);
}

static void test_errors_come_back_in_words(void **state)
{
    static const double bad[] = {10, -1, 10};
    struct planner_job *job = planner_job_new(draft_of(bad));

    (void)state;
    job->with_report = true;
    planner_begin(planner, job);
    await_answers(1);
    assert_int_equal(answers[0]->code, ERR_INPUT);
    assert_non_null(strstr(answers[0]->text.text, "device 1"));
    assert_null(answers[0]->report);
}

static void test_closing_frees_what_was_not_answered(void **state)
{
    static const double even[] = {10, 10, 10};

    (void)state;
    for (int i = 0; i < 50; i++)
        planner_begin(planner, planner_job_new(draft_of(even)));
    /* teardown closes; the sanitizers see whether anything is left */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_jobs_come_back_in_order, setup, teardown),
        cmocka_unit_test_setup_teardown(test_what_runs_stays_while_it_is_good_enough, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(test_a_plan_that_breaks_a_wish_does_not_stay, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(test_what_the_cluster_waits_for_goes_first, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(test_errors_come_back_in_words, setup, teardown),
        cmocka_unit_test_setup_teardown(test_closing_frees_what_was_not_answered, setup, teardown),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
