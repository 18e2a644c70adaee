/* Both forms of the program against the labels on all chains: the form by module is exact, the one by
 * kind is never above it. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <math.h>
#include <stdlib.h>

#include "instance.h"
#include "plan/bound.h"
#include "plan/milp.h"

/* The least z at this pace; INFINITY: no plan. */
static double exact(const struct pace *x)
{
    struct placement q;
    struct chart c;
    double z = INFINITY;

    assert_true(chart_of_all(x->room, &c));
    (void)order_best(x, &c, &(struct order_opts){.stride = 1}, &z, &q);
    chart_fini(&c);
    return z;
}

static void compare(int n, int modules, int devices, enum milp_form form, uint64_t seed_first)
{
    int n_exact = 0, n_solved = 0;

    for (uint64_t seed = seed_first; seed < seed_first + (uint64_t)n; seed++) {
        static struct instance in;
        struct err_text et;
        struct room room;
        int k[PACES_MAX], g[PACES_MAX], n_paces;

        instance_random(&in, seed, modules, devices);
        if (place_check(&in.p, &et))
            continue;
        room_init(&room, &in.p);
        n_paces = pace_list(&in.p, k, g);
        for (int i = 0; i < n_paces; i++) {
            struct milp_result r;
            struct pace x;
            double z, below;

            pace_init(&x, &room, k[i], g[i]);
            z = exact(&x);
            below = isfinite(z) ? z * (1 + 0.1 * (double)(1 + seed % 5)) : 100;
            milp_solve(&x, &(struct milp_opts){.form = form, .below = below}, &r);
            if (r.bound > z)
                fail_msg("seed %d, k %d: bound %.12g of a plan of %.12g", (int)seed, k[i], r.bound,
                         z);
            assert_true(bound_weak(&x) <= z);
            if (form == MILP_BY_MODULE) {
                double want = fmin(z, below);

                if (!(r.bound >= want * (1 - 1e-5)))
                    fail_msg("seed %d, k %d: bound %.12g where the best plan has %.12g", (int)seed,
                             k[i], r.bound, want);
            }
            n_solved += isfinite(z);
            n_exact += isfinite(z) && r.bound > z * (1 - 1e-5);
            pace_fini(&x);
        }
        room_fini(&room);
    }
    print_message("%d programs, %d bounds equal the best plan\n", n_solved, n_exact);
    assert_true(n_solved > n / 3 && n_exact > n_solved / 10);
}

static void test_by_module(void **state)
{
    compare(60, 7, 4, MILP_BY_MODULE, 1);
}

static void test_by_kind(void **state)
{
    compare(100, 12, 5, MILP_BY_KIND, 1000);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_by_module),
        cmocka_unit_test(test_by_kind),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
