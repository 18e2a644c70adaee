/* Whole clusters on a virtual clock, told as text: every event the core is given (>) and every
 * action it answers with (<), compared to the letter with tests/sim/golden. SIM_UPDATE=1 writes
 * those files anew; read the difference before keeping it. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "sim.h"

static struct sim *open_sim(int n_modules, bool output_home)
{
    return sim_new(&(struct sim_opts){.seed = 1,
                                      .n_modules = n_modules,
                                      .output_home = output_home,
                                      .hop_us = 1000,
                                      .module_us = 500,
                                      .fetch_us = 100000,
                                      .load_us = 20000,
                                      .plan_us = 5000,
                                      .trace = true});
}

/* Lets ms pass. */
static void pass(struct sim *s, int ms)
{
    sim_run(s, sim_now(s) + ms * INT64_C(1000));
}

static void compare(struct sim *s, const char *name)
{
    char path[512], *want;
    const char *got = sim_trace(s);
    size_t len;
    FILE *f;

    snprintf(path, sizeof path, "%s/%s.txt", SIM_GOLDEN, name);
    if (getenv("SIM_UPDATE")) {
        f = fopen(path, "w");
        assert_non_null(f);
        fputs(got, f);
        fclose(f);
    }
    f = fopen(path, "r");
    assert_non_null(f);
    want = calloc(1, 1 << 20);
    len = fread(want, 1, (1 << 20) - 1, f);
    fclose(f);
    assert_true(len > 0);
    for (size_t line = 1, at = 0; strcmp(got, want) != 0; at++) {
        line += want[at] == '\n';
        if (got[at] != want[at])
            fail_msg("%s:%zu: the trace is now\n%s", path, line, got);
    }
    free(want);
    sim_free(s);
}

static void answered(struct sim *s, int client, uint64_t n_good, uint64_t n_all)
{
    assert_int_equal(sim_client(s, client)->n_good, n_good);
    assert_int_equal(sim_client(s, client)->n_answers, n_all);
    assert_int_equal(sim_client(s, client)->n_asks, 0);
}

static void test_alone(void **state)
{
    struct sim *s = open_sim(4, false);

    sim_up(s, 0);
    sim_open(s, 0, 1);
    sim_feed(s, 0, 0, 5, true); /* waits for the first epoch */
    pass(s, 1000);
    answered(s, 0, 1, 1);
    sim_feed(s, 0, 0, 1, true);
    pass(s, 10);
    sim_feed(s, 0, 0, 1, true);
    pass(s, 10);
    answered(s, 0, 3, 3);
    assert_int_equal(core_slot_len(sim_core(s), 1, 0), 7);
    sim_close(s, 0);
    pass(s, 10);
    assert_int_equal(core_view(sim_core(s)).n_slots_taken, 0);
    compare(s, "alone");
}

static void test_two_join(void **state)
{
    struct sim *s = open_sim(7, true);

    sim_up(s, 0);
    pass(s, 2000);
    assert_int_equal(core_view(sim_core(s)).epoch, 1);
    sim_up(s, 1);
    pass(s, 100); /* less than it takes to settle: one plan for both */
    sim_up(s, 2);
    pass(s, 2000);
    assert_int_equal(core_view(sim_core(s)).epoch, 2);
    assert_int_equal(core_view(sim_core(s)).plan->n_devices, 3);
    sim_open(s, 0, 1);
    sim_feed(s, 0, 0, 4, true);
    pass(s, 100);
    answered(s, 0, 1, 1);
    compare(s, "two-join");
}

static struct sim *three_stages(void)
{
    struct sim *s = open_sim(6, false);

    for (int i = 0; i < 3; i++)
        sim_up(s, i);
    pass(s, 2000);
    assert_int_equal(core_view(sim_core(s)).state, CORE_RUNNING);
    assert_int_equal(core_view(sim_core(s)).plan->n_stages, 3);
    return s;
}

/* Five chunks of one prompt: each leaves as the one before it does, three stages work at once, and
 * the whole takes the first chunk's way plus four times the slowest stage. */
static void test_prefill(void **state)
{
    struct sim *s = three_stages();
    int64_t start = sim_now(s);

    sim_open(s, 0, 1);
    for (int i = 0; i < 5; i++)
        sim_feed(s, 0, 0, 8, i == 4);
    sim_run(s, start + (3 + 3 + 4) * 1000); /* three stages of 1 ms, three hops of 1 ms */
    answered(s, 0, 5, 5);
    assert_int_equal(sim_flying_most(s), 5);
    compare(s, "prefill");
}

/* Eight chunks: never more under way than two for each of the three stages. Another client's step
 * is not kept waiting behind them. */
static void test_fair(void **state)
{
    struct sim *s = three_stages();

    sim_open(s, 0, 1);
    sim_open(s, 1, 1);
    for (int i = 0; i < 8; i++)
        sim_feed(s, 0, 0, 8, i == 7);
    sim_feed(s, 1, 0, 1, true);
    sim_feed(s, 1, 0, 1, true);
    pass(s, 100);
    answered(s, 0, 8, 8);
    answered(s, 1, 2, 2);
    assert_int_equal(sim_flying_most(s), 6);
    compare(s, "fair");
}

static void test_back_in_grace(void **state)
{
    struct sim *s = three_stages();

    sim_open(s, 0, 1);
    sim_feed(s, 0, 0, 8, false);
    sim_feed(s, 0, 0, 3, true);
    pass(s, 2);
    sim_down(s, 1, 700000);
    pass(s, 100);
    answered(s, 0, 0, 2);
    sim_feed(s, 0, 0, 8, true); /* waits */
    pass(s, 3000);
    assert_int_equal(core_view(sim_core(s)).state, CORE_WANTING);
    sim_up(s, 1);
    pass(s, 1000);
    answered(s, 0, 1, 3);
    assert_int_equal(core_view(sim_core(s)).epoch, 2);
    for (int i = 0; i < 3; i++)
        assert_int_equal(sim_device(s, i)->n_shipped, 2); /* nothing twice */
    compare(s, "back-in-grace");
}

static void test_lost(void **state)
{
    struct sim *s = three_stages();

    sim_open(s, 0, 1);
    sim_feed(s, 0, 0, 8, true);
    pass(s, 2);
    sim_down(s, 2, 500000);
    sim_feed(s, 0, 0, 8, true); /* it has not heard yet that its slot is empty: stale */
    pass(s, 1);
    sim_feed(s, 0, 0, 8, true);
    pass(s, 10000);
    answered(s, 0, 1, 3);
    assert_int_equal(core_view(sim_core(s)).plan->n_devices, 2);
    compare(s, "lost");
}

/* Too little is left: who waits is told what is missing, in the planner's words, and the next one
 * is answered when the device is back. */
static void test_too_little_left(void **state)
{
    struct sim *s = open_sim(6, false);

    sim_device(s, 0)->capacity = sim_device(s, 1)->capacity = 4;
    sim_up(s, 0);
    sim_up(s, 1);
    pass(s, 2000);
    sim_down(s, 1, 500000);
    sim_open(s, 0, 1);
    sim_feed(s, 0, 0, 2, true);
    pass(s, 59000);
    assert_int_equal(sim_client(s, 0)->n_asks, 1);
    pass(s, 2000);
    answered(s, 0, 0, 1);
    assert_string_equal(core_view(sim_core(s)).text,
                        "the devices hold 4 modules of 6: 2 are missing");
    sim_up(s, 1);
    sim_feed(s, 0, 0, 2, true);
    pass(s, 2000);
    answered(s, 0, 1, 2);
    compare(s, "too-little-left");
}

static void test_full_disk(void **state)
{
    struct sim *s = open_sim(6, false);

    sim_up(s, 0);
    sim_up(s, 1);
    sim_device(s, 2)->full_disk = true;
    sim_up(s, 2);
    pass(s, 3000);
    assert_int_equal(core_view(sim_core(s)).plan->n_devices, 2);
    sim_open(s, 0, 1);
    sim_feed(s, 0, 0, 2, true);
    pass(s, 100);
    answered(s, 0, 1, 1);
    /* It makes room and joins anew. */
    sim_device(s, 2)->full_disk = false;
    sim_down(s, 2, 0);
    sim_up(s, 2);
    pass(s, 3000);
    assert_int_equal(core_view(sim_core(s)).plan->n_devices, 3);
    compare(s, "full-disk");
}

/* One that answers pings and never says READY, or FETCHED, holds the others up for a while only. */
static void test_mute(void **state)
{
    struct sim *s = open_sim(6, false);

    sim_up(s, 0);
    sim_device(s, 1)->mute = true;
    sim_up(s, 1);
    pass(s, 3000);
    assert_int_equal(core_view(sim_core(s)).state, CORE_FETCHING);
    sim_open(s, 0, 1);
    pass(s, CORE_STUCK_US / 1000);
    assert_int_equal(core_view(sim_core(s)).state, CORE_RUNNING);
    assert_int_equal(core_view(sim_core(s)).plan->n_devices, 1);
    sim_feed(s, 0, 0, 2, true);
    pass(s, 100);
    answered(s, 0, 1, 1);
    sim_free(s);
}

static void test_switch_under_load(void **state)
{
    struct sim *s = open_sim(6, false);

    sim_up(s, 0);
    sim_up(s, 1);
    pass(s, 2000);
    sim_open(s, 0, 1);
    sim_feed(s, 0, 0, 8, true);
    sim_up(s, 2);
    pass(s, 506); /* settled and planned at 305, the newcomer has fetched its two at 507 */
    for (int i = 0; i < 4; i++)
        sim_feed(s, 0, 0, 8, i == 3);
    pass(s, 2);
    sim_feed(s, 0, 0, 1, true); /* held back, and then the slot is empty */
    pass(s, 500);
    assert_int_equal(core_view(sim_core(s)).epoch, 2);
    /* What was under way came home; what had to wait was stale, and is read again. */
    assert_int_equal(sim_client(s, 0)->n_asks, 0);
    sim_feed(s, 0, 0, 8, true);
    sim_feed(s, 0, 0, 8, true);
    pass(s, 500);
    answered(s, 0, 7, 8);
    compare(s, "switch-under-load");
}

static void test_client_gone(void **state)
{
    struct sim *s = three_stages();

    sim_open(s, 0, 2);
    sim_feed(s, 0, 0, 8, false);
    sim_feed(s, 0, 0, 8, true);
    sim_feed(s, 0, 1, 4, true);
    pass(s, 2);
    sim_close(s, 0);
    sim_open(s, 0, 1);
    sim_feed(s, 0, 0, 6, true); /* in a slot the one before has used */
    pass(s, 100);
    answered(s, 0, 1, 1);
    assert_int_equal(core_view(sim_core(s)).n_slots_taken, 1);
    compare(s, "client-gone");
}

static void test_drain(void **state)
{
    struct sim *s = three_stages();

    sim_open(s, 0, 1);
    sim_feed(s, 0, 0, 8, true);
    sim_drain(s, 1);
    pass(s, 2000);
    assert_int_equal(core_view(sim_core(s)).plan->n_devices, 2);
    sim_down(s, 1, 0); /* then nobody misses it */
    sim_feed(s, 0, 0, 2, true);
    pass(s, 100);
    answered(s, 0, 2, 2);
    compare(s, "drain");
}

/* ---- streams ---- */

static void ask_for(struct sim *s, int i, int n_prompt, int n_more)
{
    sim_request(s, i, &(struct sim_request){.n_prompt = n_prompt, .n_more = n_more, .after = -1});
}

static void over(struct sim *s, int i)
{
    assert_false(sim_stream(s, i)->open);
    assert_int_equal(sim_stream(s, i)->n_over, 1);
    assert_int_equal(sim_stream(s, i)->n_lost, 0);
}

/* Seven streams over three stages: groups of three, so that at most three steps decode at once. */
static void test_streams_share(void **state)
{
    struct sim *s = three_stages();
    uint64_t before = sim_n_steps(s);

    for (int i = 0; i < 7; i++)
        ask_for(s, i, 4, 6);
    pass(s, 1000);
    for (int i = 0; i < 7; i++)
        over(s, i);
    /* Seven times four rows in steps of eight; then six rounds of three groups, or little more. */
    assert_in_range(sim_n_steps(s) - before, 4 + 6 * 3, 4 + 6 * 3 + 8);
    compare(s, "streams-share");
}

/* While one decodes, a long prompt is read in fours beside it; both keep moving. */
static void test_streams_chunks(void **state)
{
    struct sim *s = three_stages();

    ask_for(s, 0, 2, 12);
    pass(s, 30);
    ask_for(s, 1, 40, 2);
    pass(s, 1000);
    over(s, 0);
    over(s, 1);
    compare(s, "streams-chunks");
}

/* What was read is not read again: by the same slot when the request goes on where it ended, by a
 * copy when the slot is in use. */
static void test_streams_prefix(void **state)
{
    struct sim *s = three_stages();

    ask_for(s, 0, 30, 8);
    pass(s, 200);
    over(s, 0);
    sim_request(
        s, 1,
        &(struct sim_request){.n_prompt = 34, .n_like = 32, .like = 0, .n_more = 20, .after = -1});
    pass(s, 20);
    assert_int_equal(sim_stream(s, 1)->n_cached, 32);
    sim_request(
        s, 2,
        &(struct sim_request){.n_prompt = 34, .n_like = 34, .like = 1, .n_more = 2, .after = -1});
    pass(s, 20);
    assert_int_equal(sim_stream(s, 2)->n_cached, 33); /* the last row is always read */
    sim_request(
        s, 3,
        &(struct sim_request){
            .n_prompt = 34, .n_like = 34, .like = 1, .n_more = 2, .fresh = true, .after = -1});
    pass(s, 1000);
    for (int i = 1; i < 4; i++)
        over(s, i);
    assert_int_equal(sim_stream(s, 3)->n_cached, 0);
    compare(s, "streams-prefix");
}

/* Four streams are one full group of three stages; a prompt is read in steps of its own, by fours,
 * through the stages that would stand idle, and never makes the group's step longer. */
static void test_streams_beside(void **state)
{
    struct sim *s = sim_new(&(struct sim_opts){.seed = 1,
                                               .n_modules = 6,
                                               .hop_us = 1000,
                                               .module_us = 500,
                                               .fetch_us = 100000,
                                               .load_us = 20000,
                                               .plan_us = 5000,
                                               .pace = {.step_s = {2e-3, 2e-3, 2e-3, 4e-3, 8e-3},
                                                        .read_s = {2e-3, 2e-3, 2e-3, 4e-3, 8e-3},
                                                        .row_s = 5e-4,
                                                        .latency_s = 6e-3},
                                               .trace = true});

    for (int i = 0; i < 3; i++)
        sim_up(s, i);
    pass(s, 2000);
    for (int i = 0; i < 4; i++)
        ask_for(s, i, 4, 30);
    pass(s, 40);
    ask_for(s, 4, 60, 1);
    pass(s, 1000);
    for (int i = 0; i < 5; i++)
        over(s, i);
    assert_in_range(sim_stream(s, 4)->first_us - sim_stream(s, 0)->first_us, 1, 200000);
    compare(s, "streams-beside");
}

/* n choices of one prompt: it is read once. */
static void test_streams_after(void **state)
{
    struct sim *s = three_stages();

    ask_for(s, 0, 24, 3);
    for (int i = 1; i < 4; i++)
        sim_request(s, i,
                    &(struct sim_request){
                        .n_prompt = 24, .n_like = 24, .like = 0, .n_more = 3, .after = 0});
    pass(s, 1000);
    for (int i = 0; i < 4; i++)
        over(s, i);
    for (int i = 1; i < 4; i++)
        assert_int_equal(sim_stream(s, i)->n_cached, 23);
    compare(s, "streams-after");
}

static struct sim *few_slots(int n_slots, int n_queue)
{
    struct sim *s = sim_new(&(struct sim_opts){.seed = 1,
                                               .n_modules = 4,
                                               .hop_us = 1000,
                                               .module_us = 500,
                                               .fetch_us = 100000,
                                               .load_us = 20000,
                                               .plan_us = 5000,
                                               .n_slots = n_slots,
                                               .n_queue = n_queue,
                                               .trace = true});

    sim_up(s, 0);
    pass(s, 2000);
    return s;
}

/* One slot. Who asks once is not kept waiting by who asked four times before; the fifth finds the
 * queue full. */
static void test_streams_queue(void **state)
{
    struct sim *s = few_slots(1, 4);

    for (int i = 0; i < 4; i++)
        sim_request(s, i,
                    &(struct sim_request){.n_prompt = 3, .n_more = 2, .flow = 7, .after = -1});
    sim_request(s, 4, &(struct sim_request){.n_prompt = 3, .n_more = 2, .flow = 8, .after = -1});
    sim_request(s, 5, &(struct sim_request){.n_prompt = 3, .n_more = 2, .flow = 9, .after = -1});
    pass(s, 1000);
    for (int i = 0; i < 5; i++)
        over(s, i);
    assert_int_equal(sim_stream(s, 5)->n_refused, 1);
    assert_true(sim_stream(s, 4)->first_us < sim_stream(s, 2)->first_us);
    compare(s, "streams-queue");
}

/* A device is lost: those with a slot are told, those who wait go on when it is back. */
static void test_streams_lost(void **state)
{
    struct sim *s = open_sim(6, false);

    for (int i = 0; i < 3; i++)
        sim_up(s, i);
    pass(s, 2000);
    for (int i = 0; i < SIM_SLOTS + 1; i++)
        ask_for(s, i, 4, 20);
    pass(s, 20);
    sim_down(s, 1, 100000);
    pass(s, 1);
    for (int i = 0; i < SIM_SLOTS; i++)
        assert_int_equal(sim_stream(s, i)->n_lost, 1);
    assert_true(sim_stream(s, SIM_SLOTS)->open);
    sim_up(s, 1);
    pass(s, 3000);
    over(s, SIM_SLOTS);
    assert_int_equal(core_view(sim_core(s)).n_slots_taken, 0);
    compare(s, "streams-lost");
}

/* A device joins while streams decode: they read again on the new plan and go on, untold. */
static void test_streams_switch(void **state)
{
    struct sim *s = open_sim(6, false);

    sim_up(s, 0);
    sim_up(s, 1);
    pass(s, 2000);
    ask_for(s, 0, 6, 56);
    ask_for(s, 1, 6, 56);
    sim_up(s, 2);
    pass(s, 3000);
    assert_int_equal(core_view(sim_core(s)).epoch, 2);
    over(s, 0);
    over(s, 1);
    compare(s, "streams-switch");
}

/* Gone in the middle of its prompt: nothing more of it is sent, and its slot is free at once. */
static void test_streams_cancel(void **state)
{
    struct sim *s = three_stages();
    uint64_t sent;

    ask_for(s, 0, 60, 3);
    pass(s, 2);
    sim_cancel(s, 0);
    pass(s, 0);
    sent = sim_n_steps(s);
    assert_int_equal(core_view(sim_core(s)).n_slots_taken, 0);
    pass(s, 1000);
    assert_int_equal(sim_n_steps(s), sent);
    assert_int_equal(core_view(sim_core(s)).n_flight, 0);
    compare(s, "streams-cancel");
}

/* Hidden states and tokens take turns in steps of their own. */
static void test_streams_hidden(void **state)
{
    struct sim *s = three_stages();

    ask_for(s, 0, 4, 8);
    sim_request(s, 1, &(struct sim_request){.n_prompt = 20, .hidden = true, .after = -1});
    pass(s, 1000);
    over(s, 0);
    over(s, 1);
    assert_int_equal(sim_stream(s, 1)->next, 20);
    compare(s, "streams-hidden");
}

/* Kernels that take rows one by one: each row of a prompt would make a step of one token twice as
 * long, so every second step carries one, and tokens come half again as slowly, not twice. From
 * position 8 on rows cost more, and wait for more steps. */
static void test_streams_by_the_row(void **state)
{
    struct sim *s = sim_new(&(struct sim_opts){.seed = 1,
                                               .n_modules = 6,
                                               .hop_us = 100,
                                               .module_us = 1000,
                                               .by_the_row = true,
                                               .fetch_us = 100000,
                                               .load_us = 20000,
                                               .plan_us = 5000,
                                               .pace = {.step_s = {2e-3, 4e-3, 8e-3, 16e-3, 32e-3},
                                                        .read_s = {2e-3, 4e-3, 8e-3, 16e-3, 32e-3},
                                                        .row_s = 2e-3,
                                                        .position_s = 5e-4,
                                                        .depth = 8,
                                                        .latency_s = 6e-3},
                                               .trace = true});

    for (int i = 0; i < 3; i++)
        sim_up(s, i);
    pass(s, 2000);
    for (int i = 0; i < 4; i++)
        ask_for(s, i, 4, 60);
    pass(s, 60);
    ask_for(s, 4, 16, 1);
    pass(s, 1000);
    for (int i = 0; i < 5; i++)
        over(s, i);
    compare(s, "streams-by-the-row");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_alone),
        cmocka_unit_test(test_two_join),
        cmocka_unit_test(test_prefill),
        cmocka_unit_test(test_fair),
        cmocka_unit_test(test_back_in_grace),
        cmocka_unit_test(test_lost),
        cmocka_unit_test(test_too_little_left),
        cmocka_unit_test(test_full_disk),
        cmocka_unit_test(test_mute),
        cmocka_unit_test(test_switch_under_load),
        cmocka_unit_test(test_client_gone),
        cmocka_unit_test(test_drain),
        cmocka_unit_test(test_streams_share),
        cmocka_unit_test(test_streams_chunks),
        cmocka_unit_test(test_streams_prefix),
        cmocka_unit_test(test_streams_beside),
        cmocka_unit_test(test_streams_by_the_row),
        cmocka_unit_test(test_streams_after),
        cmocka_unit_test(test_streams_queue),
        cmocka_unit_test(test_streams_lost),
        cmocka_unit_test(test_streams_switch),
        cmocka_unit_test(test_streams_cancel),
        cmocka_unit_test(test_streams_hidden),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
