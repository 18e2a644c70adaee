/* What batching is told of a plan. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "instance.h"

enum { MODULES = 10 }; /* four layers */

static void near(double a, double b)
{
    assert_true(fabs(a - b) <= 1e-9 * fmax(1, fabs(b)));
}

/* Embed and two layers on the head, two layers on another, output on the head. */
static struct plan three_stages(void)
{
    struct plan plan = {.n_devices = 2, .n_stages = 3};

    plan.stage[0] = (struct plan_stage){0, 0, 5};
    plan.stage[1] = (struct plan_stage){1, 5, 9};
    plan.stage[2] = (struct plan_stage){0, 9, 10};
    return plan;
}

static const int used[] = {0, 1};

static void the_busiest_device_counts(void **state)
{
    struct plan plan = three_stages();
    struct instance in;
    struct place_pace pace;

    (void)state;
    instance_plain(&in, MODULES, 2);
    in.device[0].step_s = 0.001;
    in.device[1].step_s = 0.002;
    place_pace(&in.p, &plan, used, &pace); /* the head has `output`, too, and two steps for it */
    near(pace.step_s[0], 2 * 0.001 + 6 * 0.010);
    near(pace.step_s[2], 2 * 0.001 + 6 * 0.010);
    near(pace.step_s[4], 2 * 0.001 + 6 * 0.040);
    near(pace.read_s[0], 2 * 0.001 + 5 * 0.010);
    near(pace.read_s[4], 2 * 0.001 + 5 * 0.040);
    near(pace.row_s, 5 * 0.0025);
    for (int c = 0; c < 4; c++) /* now the other one is slower, at many rows alone */
        in.cost[1][c].decode[4] = 0.100;
    place_pace(&in.p, &plan, used, &pace);
    near(pace.step_s[0], 2 * 0.001 + 6 * 0.010);
    near(pace.step_s[4], 0.002 + 4 * 0.100);
    near(pace.read_s[4], 0.002 + 4 * 0.100);
}

static void positions_cost_and_the_head_of_a_prompt_does_not(void **state)
{
    struct plan plan = {.n_devices = 1, .n_stages = 1, .stage = {{0, 0, MODULES}}};
    struct instance in;
    struct place_pace pace;

    (void)state;
    instance_plain(&in, MODULES, 1);
    in.p.depth = 100;
    for (int c = 0; c < 4; c++)
        in.cost[0][c].position = 1e-6;
    place_pace(&in.p, &plan, used, &pace);
    near(pace.step_s[1], MODULES * (0.010 + 2 * 1e-4));
    near(pace.read_s[1], (MODULES - 1) * (0.010 + 2 * 1e-4));
    near(pace.position_s, MODULES * 1e-6);
    near(pace.row_s, (MODULES - 1) * (0.0025 + 1e-4)); /* `output` sees the wanted row alone */
    assert_int_equal(pace.k, 1);
}

static void all_slots_are_kept_busy(void **state)
{
    struct plan plan = three_stages();
    struct instance in;
    struct place_pace pace;

    (void)state;
    instance_plain(&in, MODULES, 2);
    place_pace(&in.p, &plan, used, &pace);
    assert_int_equal(pace.k, 1); /* one slot */
    in.p.n_slots = 8;
    in.p.group_max = 16;
    place_pace(&in.p, &plan, used, &pace);
    assert_int_equal(in.p.concurrency, 1);
    assert_true(pace.k >= 2 && pace.k <= 8); /* one row costs what four do */
    in.p.group_max = 1;
    place_pace(&in.p, &plan, used, &pace);
    assert_int_equal(pace.k, 8);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_busiest_device_counts),
        cmocka_unit_test(positions_cost_and_the_head_of_a_prompt_does_not),
        cmocka_unit_test(all_slots_are_kept_busy),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
