/* The text of --split: what it means, and what it says when it means nothing. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "head/split.h"

enum { MODULES = 16 };

/* "0:0-4 1:5-12 0:13-15" */
static const char *show(const struct plan *p, char *buf, size_t cap)
{
    size_t used = 0;

    buf[0] = '\0';
    for (int i = 0; i < p->n_stages; i++)
        used += (size_t)snprintf(buf + used, cap - used, "%s%d:%d-%d", i ? " " : "",
                                 p->stage[i].device, p->stage[i].first, p->stage[i].end - 1);
    return buf;
}

static void flat(double *cost, int n)
{
    for (int i = 0; i < n; i++)
        cost[i] = 10;
}

static void test_good(void **state)
{
    static const struct {
        const char *text, *plan;
        int n_devices;
    } rows[] = {
        {"1", "0:0-15", 1},
        {"0-15", "0:0-15", 1},
        {"0-", "0:0-15", 1},
        {"0-5,6-13,14-", "0:0-5 1:6-13 2:14-15", 3},
        {"0-4+13-,5-12", "0:0-4 1:5-12 0:13-15", 2},
        {"13-+0-4,5-12", "0:0-4 1:5-12 0:13-15", 2},
        {"0+15,1-14", "0:0-0 1:1-14 0:15-15", 2},
        {"0-4+5-7,8-15", "0:0-7 1:8-15", 2},
        {"0-3+4-6+7,8-", "0:0-7 1:8-15", 2},
        {"4-,0-3", "1:0-3 0:4-15", 2},
        {"0-1+4-5,2-3+6-", "0:0-1 1:2-3 0:4-5 1:6-15", 2},
    };
    double cost[MODULES];
    char buf[256];

    (void)state;
    flat(cost, MODULES);
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        struct plan p;
        struct err_text et = {""};

        if (split_parse(rows[i].text, MODULES, cost, &p, &et))
            fail_msg("%s: %s", rows[i].text, et.text);
        assert_int_equal(p.n_devices, rows[i].n_devices);
        assert_string_equal(show(&p, buf, sizeof buf), rows[i].plan);
        assert_int_equal(plan_check(&p, MODULES, &et), ERR_NONE);
    }
}

static void test_bad(void **state)
{
    static const struct {
        const char *text, *says;
    } rows[] = {
        {"", "it ends too early"},
        {"0", "1 to 15 devices"},
        {"16", "1 to 15 devices"},
        {"99999999999999999999", "1 to 15 devices"},
        {"0-5,", "it ends too early"},
        {",0-5", "unexpected ','"},
        {"0-5,,6-", "unexpected ','"},
        {"-5", "unexpected '-'"},
        {"0-5 6-", "unexpected ' ' at character 4"},
        {"a", "unexpected 'a'"},
        {"3x", "unexpected 'x'"},
        {"0-5+", "it ends too early"},
        {"0-\n", "unexpected '?'"},
        {"0-16", "no module 16; this model has 0 to 15"},
        {"0-99999999999999999999", "no module"},
        {"16-", "no module 16"},
        {"5-3", "ends before it begins"},
        {"0-5,7-15", "module 6 is on no device"},
        {"1-15", "module 0 is on no device"},
        {"0-14", "module 15 is on no device"},
        {"0,1,2,3", "module 4 is on no device"},
        {"0-5,5-15", "module 5 is given twice (devices 0 and 1)"},
        {"0-5,3-4,6-15", "module 3 is given twice"},
        {"0-15,0-15", "module 0 is given twice"},
        {"0+2+4,1+3+5-", "device 0 has more than 2 separate ranges"},
    };
    double cost[MODULES];

    (void)state;
    flat(cost, MODULES);
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        struct plan p;
        struct err_text et = {""};

        assert_int_equal(split_parse(rows[i].text, MODULES, cost, &p, &et), ERR_INPUT);
        if (!strstr(et.text, rows[i].says) || !(strstr(et.text, "15") || strstr(et.text, "16")))
            fail_msg("\"%s\" says: %s", rows[i].text, et.text);
    }
}

/* The largest burden, by trying every cut. */
static double brute(const double *cost, int n, int n_devices, double extra)
{
    double best = 1e300, sum = extra;

    if (n_devices == 1) {
        for (int i = 0; i < n; i++)
            sum += cost[i];
        return sum;
    }
    for (int k = 1; k <= n - (n_devices - 1); k++) {
        double rest;

        sum += cost[k - 1];
        rest = brute(cost + k, n - k, n_devices - 1, 0);
        rest = rest > sum ? rest : sum;
        best = rest < best ? rest : best;
    }
    return best;
}

static void test_even_is_best(void **state)
{
    unsigned seed = 1;

    (void)state;
    for (int round = 0; round < 200; round++) {
        int n = 5 + round % 8, n_devices = 2 + round % 3;
        double cost[MODULES], load[4] = {0}, worst = 0;
        char text[8];
        struct plan p;
        struct err_text et;

        for (int i = 0; i < n; i++) {
            seed = seed * 1664525u + 1013904223u;
            cost[i] = 1 + (seed >> 24);
        }
        snprintf(text, sizeof text, "%d", n_devices);
        assert_int_equal(split_parse(text, n, cost, &p, &et), ERR_NONE);
        for (int i = 0; i < p.n_stages; i++)
            for (int k = p.stage[i].first; k < p.stage[i].end; k++)
                load[p.stage[i].device] += cost[k];
        for (int d = 0; d < n_devices; d++)
            worst = load[d] > worst ? load[d] : worst;
        assert_true(worst == brute(cost, n - 1, n_devices, cost[n - 1]));
        assert_int_equal(p.stage[p.n_stages - 1].device, 0);
    }
}

/* When `output` outweighs everything, the others still share evenly. */
static void test_even_beside_a_heavy_output(void **state)
{
    double cost[MODULES];
    struct plan p;
    struct err_text et;
    char buf[256];

    (void)state;
    flat(cost, MODULES);
    cost[0] = 1;
    cost[MODULES - 1] = 1000;
    assert_int_equal(split_parse("3", MODULES, cost, &p, &et), ERR_NONE);
    assert_string_equal(show(&p, buf, sizeof buf), "0:0-0 1:1-7 2:8-14 0:15-15");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_good),
        cmocka_unit_test(test_bad),
        cmocka_unit_test(test_even_is_best),
        cmocka_unit_test(test_even_beside_a_heavy_output),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
