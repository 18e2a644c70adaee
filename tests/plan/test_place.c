/* Placements against brute force: every way to cut small random models over a few devices. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "plan/place.h"

enum { MODULES_MAX = 10, DEVICES_MAX = 4, INSTANCES = 4000 };

static const uint64_t MIB = 1 << 20;

static uint64_t state_;

static uint64_t chance(uint64_t below)
{
    state_ = state_ * 6364136223846793005u + 1442695040888963407u;
    return (state_ >> 33) % below;
}

struct instance {
    struct place_problem p;
    struct place_module module[MODULES_MAX];
    struct place_device device[DEVICES_MAX];
};

static void random_instance(struct instance *in, uint64_t seed)
{
    static const char *const names[] = {"head", "pi", "phone", "laptop"};
    uint64_t total = 0;

    state_ = seed * 7919 + 1;
    memset(in, 0, sizeof *in);
    in->p.n_modules = 4 + 2 * (int)chance(3);
    in->p.n_devices = 1 + (int)chance(DEVICES_MAX);
    for (int i = 0; i < in->p.n_modules; i++) {
        struct place_module *m = &in->module[i];
        bool end = i == 0 || i == in->p.n_modules - 1;

        m->weight_bytes = (1 + chance(40)) * MIB / 2;
        m->decode_bytes = i == 0 ? 1000 : m->weight_bytes;
        m->kv_bytes = end || i % 2 == 0 ? 0 : 64 * (1 + chance(16));
        m->is_private = end || i < 3 || i > in->p.n_modules - 4;
        total += m->weight_bytes;
    }
    for (int d = 0; d < in->p.n_devices; d++) {
        struct place_device *x = &in->device[d];

        x->name = names[d];
        x->base_bytes = chance(4) * MIB;
        x->memory_bytes = chance(8) ? x->base_bytes + chance(2 * total / 3 + 8 * MIB) + 1 : 0;
        x->speed = chance(6) ? (1 + chance(9)) * 1000000 : 0;
        x->mine = d == 0 || chance(2);
    }
    if (chance(2)) {
        in->p.tied_bytes = in->module[0].weight_bytes;
        in->module[in->p.n_modules - 1].weight_bytes += in->p.tied_bytes;
    }
    in->p.module = in->module;
    in->p.device = in->device;
    in->p.scratch_bytes = chance(5) * MIB;
    in->p.scratch_output_bytes = chance(5) * MIB;
    in->p.n_slots = 1 + (int)chance(4);
    in->p.n_ctx = 64 * (1 + (int)chance(40));
    in->p.want_private = chance(3) == 0;
}

/* ---- the same rules, said again and plainly ---- */

static uint64_t speed_of(const struct place_problem *p, int d)
{
    uint64_t least = 0;

    if (p->device[d].speed)
        return p->device[d].speed;
    for (int i = 0; i < p->n_devices; i++)
        if (p->device[i].speed && (!least || p->device[i].speed < least))
            least = p->device[i].speed;
    return least ? least : 1;
}

struct load {
    bool any, private, embed, output;
    uint64_t bytes;
    double decode;
};

static void load_of(const struct place_problem *p, const int *owner, int d, struct load *l)
{
    *l = (struct load){.bytes = p->device[d].base_bytes};
    for (int i = 0; i < p->n_modules; i++) {
        const struct place_module *m = &p->module[i];

        if (owner[i] != d)
            continue;
        l->any = true;
        l->private |= m->is_private;
        l->embed |= i == 0;
        l->output |= i == p->n_modules - 1;
        l->bytes += m->weight_bytes + m->kv_bytes * (uint64_t)p->n_ctx * (uint64_t)p->n_slots;
        l->decode += (double)m->decode_bytes;
    }
    if (l->any)
        l->bytes += p->scratch_bytes;
    if (l->output)
        l->bytes += p->scratch_output_bytes;
    if (l->output && l->embed)
        l->bytes -= p->tied_bytes;
}

struct score {
    bool possible, output_home;
    double busiest, sum;
    int n_devices;
};

static struct score score_of(const struct place_problem *p, const int *owner)
{
    struct score s = {.possible = true, .output_home = owner[p->n_modules - 1] == 0};

    for (int d = 0; d < p->n_devices; d++) {
        struct load l;
        double t;

        load_of(p, owner, d, &l);
        if (!l.any)
            continue;
        if (p->device[d].memory_bytes && l.bytes > p->device[d].memory_bytes)
            s.possible = false;
        if (p->want_private && l.private && !p->device[d].mine)
            s.possible = false;
        t = l.decode / (double)speed_of(p, d);
        s.busiest = t > s.busiest ? t : s.busiest;
        s.sum += t;
        s.n_devices++;
    }
    return s;
}

static bool beats(const struct score *a, const struct score *b)
{
    if (!a->possible || !b->possible)
        return a->possible;
    if (a->output_home != b->output_home)
        return a->output_home;
    if (a->busiest != b->busiest)
        return a->busiest < b->busiest;
    if (a->n_devices != b->n_devices)
        return a->n_devices < b->n_devices;
    return a->sum < b->sum;
}

/* Where the head's second stage may begin: with `output`, or with the private modules at the end.
 * */
static bool may_come_home(const struct place_problem *p, int i)
{
    if (i == p->n_modules - 1)
        return true;
    for (int k = i; k < p->n_modules; k++)
        if (!p->want_private || !p->module[k].is_private)
            return false;
    return i > 0 && !p->module[i - 1].is_private;
}

/* The best of all owners: devices in order, the head first and perhaps again at the end. */
static struct score brute(const struct place_problem *p)
{
    struct score best = {.possible = false};
    int owner[MODULES_MAX], n = p->n_modules;
    uint64_t ways = 1;

    for (int i = 1; i < n; i++)
        ways *= (uint64_t)p->n_devices;
    for (uint64_t w = 0; w < ways; w++) {
        struct score s;
        uint64_t rest = w;
        bool legal = true, home = false;

        owner[0] = 0;
        for (int i = 1; i < n; i++, rest /= (uint64_t)p->n_devices) {
            owner[i] = (int)(rest % (uint64_t)p->n_devices);
            if ((home && owner[i] != 0) ||
                (owner[i] < owner[i - 1] && (owner[i] != 0 || !may_come_home(p, i)))) {
                legal = false;
                break;
            }
            home |= owner[i] < owner[i - 1];
        }
        if (!legal)
            continue;
        s = score_of(p, owner);
        if (beats(&s, &best))
            best = s;
    }
    return best;
}

static void owners_of(const struct placement *q, int *owner)
{
    for (int i = 0; i < q->plan.n_stages; i++)
        for (int k = q->plan.stage[i].first; k < q->plan.stage[i].end; k++)
            owner[k] = q->used[q->plan.stage[i].device];
}

/* ---- tests ---- */

static void test_brute_force(void **state)
{
    int n_solved = 0, n_split = 0, n_away = 0, n_left_out = 0;

    for (uint64_t seed = 1; seed <= INSTANCES; seed++) {
        struct instance in;
        struct placement q, again;
        struct score want, got;
        struct err_text et;
        int owner[MODULES_MAX];
        enum err e;

        random_instance(&in, seed);
        want = brute(&in.p);
        e = place_solve(&in.p, &q, &et);
        if (!e != want.possible)
            fail_msg("seed %d: %s", (int)seed, e ? et.text : "a plan where none is");
        if (e)
            continue;
        assert_int_equal(plan_check(&q.plan, in.p.n_modules, &et), ERR_NONE);
        assert_int_equal(q.used[0], 0);
        owners_of(&q, owner);
        got = score_of(&in.p, owner);
        if (!got.possible || beats(&want, &got)) {
            /* Sums of times may differ in the last bit by the order of adding. */
            if (!got.possible || want.output_home != got.output_home ||
                want.busiest < got.busiest || want.n_devices != got.n_devices ||
                want.sum < got.sum * (1 - 1e-12))
                fail_msg("seed %d: busiest %g over %d devices, where %g over %d is possible",
                         (int)seed, got.busiest, got.n_devices, want.busiest, want.n_devices);
        }
        for (int i = 0; i < q.plan.n_devices; i++) {
            struct load l;

            load_of(&in.p, owner, q.used[i], &l);
            assert_true(l.bytes == q.memory_bytes[i]);
            assert_true(l.decode / (double)speed_of(&in.p, q.used[i]) == q.seconds[i]);
        }
        assert_int_equal(place_solve(&in.p, &again, &et), ERR_NONE);
        assert_memory_equal(&q, &again, sizeof q);
        n_solved++;
        n_split += q.plan.n_devices > 1;
        n_away += !got.output_home;
        n_left_out += q.plan.n_devices < in.p.n_devices;
    }
    assert_true(n_solved > INSTANCES / 4 && n_solved < INSTANCES);
    assert_true(n_split > INSTANCES / 8 && n_away > INSTANCES / 50 && n_left_out > INSTANCES / 50);
}

/* More memory never makes a plan slower or impossible, where `output` stays where it was. */
static void test_more_memory(void **state)
{
    for (uint64_t seed = 1; seed <= INSTANCES; seed++) {
        struct instance in;
        struct placement a, b;
        struct err_text et;
        int oa[MODULES_MAX], ob[MODULES_MAX], d;
        struct score x, y;

        random_instance(&in, seed);
        if (place_solve(&in.p, &a, &et))
            continue;
        owners_of(&a, oa);
        x = score_of(&in.p, oa);
        d = (int)chance((uint64_t)in.p.n_devices);
        if (in.device[d].memory_bytes)
            in.device[d].memory_bytes += 1 + chance(20 * MIB);
        assert_int_equal(place_solve(&in.p, &b, &et), ERR_NONE);
        owners_of(&b, ob);
        y = score_of(&in.p, ob);
        assert_true(y.output_home >= x.output_home);
        if (x.output_home == y.output_home)
            assert_true(y.busiest <= x.busiest);
    }
}

/* Whether it fits when one device has so much more. */
static bool fits_with(struct instance *in, int device, uint64_t mib)
{
    uint64_t was = in->device[device].memory_bytes;
    bool possible;

    in->device[device].memory_bytes += mib * MIB;
    possible = brute(&in->p).possible;
    in->device[device].memory_bytes = was;
    return possible;
}

static void test_shortfall(void **state)
{
    int n_named = 0, n_private = 0;

    for (uint64_t seed = 1; seed <= INSTANCES; seed++) {
        struct instance in;
        struct placement q;
        struct err_text et;
        unsigned long long mib;
        const char *at;
        enum err e;
        int device = -1;

        random_instance(&in, seed);
        e = place_solve(&in.p, &q, &et);
        if (!e)
            continue;
        if (e == ERR_INPUT) {
            assert_true(in.p.want_private);
            in.p.want_private = false;
            assert_true(brute(&in.p).possible);
            n_private++;
            continue;
        }
        assert_int_equal(e, ERR_MEMORY);
        at = strstr(et.text, "too small by ");
        if (!at) { /* private modules that even endless memory would not place */
            assert_non_null(strstr(et.text, "on no device"));
            continue;
        }
        assert_int_equal(sscanf(at, "too small by %llu MiB", &mib), 1);
        for (int d = 0; d < in.p.n_devices; d++) {
            char words[64];

            snprintf(words, sizeof words, "much more on %s it", in.device[d].name);
            if (strstr(et.text, words))
                device = d;
        }
        assert_in_range(device, 0, in.p.n_devices - 1);
        assert_true(fits_with(&in, device, mib));
        for (int d = 0; d < in.p.n_devices; d++)
            if (in.device[d].memory_bytes)
                assert_false(fits_with(&in, d, mib - 1));
        n_named++;
    }
    assert_true(n_named > INSTANCES / 10 && n_private > 10);
}

static void test_largest_ctx(void **state)
{
    int n_some = 0, n_none = 0;

    for (uint64_t seed = 1; seed <= INSTANCES / 4; seed++) {
        struct instance in;
        struct placement q;
        struct err_text et;
        char words[64];
        int ctx, want;

        random_instance(&in, seed);
        ctx = place_largest_ctx(&in.p);
        want = in.p.n_ctx;
        if (ctx > 0) {
            in.p.n_ctx = ctx;
            assert_true(brute(&in.p).possible);
            n_some++;
        } else {
            n_none++;
        }
        in.p.n_ctx = ctx + 64;
        if (ctx < 1 << 24)
            assert_false(brute(&in.p).possible);
        in.p.n_ctx = want;
        if (ctx == 0 || place_solve(&in.p, &q, &et) != ERR_MEMORY)
            continue;
        snprintf(words, sizeof words, "largest context is %d", ctx);
        assert_non_null(strstr(et.text, words));
    }
    assert_true(n_some > INSTANCES / 20 && n_none > INSTANCES / 40);
}

/* ---- single cases ---- */

/* Six modules of 10 MiB, one of them `output`. */
static void plain(struct instance *in, int n_devices)
{
    static const char *const names[] = {"head", "pi", "phone", "laptop"};

    memset(in, 0, sizeof *in);
    in->p = (struct place_problem){.n_modules = 6,
                                   .n_devices = n_devices,
                                   .module = in->module,
                                   .device = in->device,
                                   .n_slots = 1,
                                   .n_ctx = 64};
    for (int i = 0; i < 6; i++)
        in->module[i] = (struct place_module){10 * MIB, 10 * MIB, 0, i == 0 || i == 5};
    for (int d = 0; d < n_devices; d++)
        in->device[d] = (struct place_device){names[d], 0, 0, 100 * MIB, d == 0};
}

static void solve(const struct instance *in, struct placement *q)
{
    struct err_text et;
    enum err e = place_solve(&in->p, q, &et);

    if (e)
        fail_msg("%s", et.text);
}

static void test_head_alone(void **state)
{
    struct instance in;
    struct placement q;

    plain(&in, 1);
    solve(&in, &q);
    assert_int_equal(q.plan.n_stages, 1);
    assert_int_equal(q.plan.stage[0].end, 6);
    assert_true(q.memory_bytes[0] == 60 * MIB);
    assert_true(q.seconds[0] == 0.6);
}

static void test_proportional(void **state)
{
    struct instance in;
    struct placement q;

    plain(&in, 3); /* alike: two modules each, the head's second one being output */
    solve(&in, &q);
    assert_int_equal(q.plan.n_stages, 4);
    assert_int_equal(q.plan.stage[0].end, 1);
    assert_int_equal(q.plan.stage[1].end, 3);
    assert_int_equal(q.plan.stage[2].end, 5);
    assert_int_equal(q.plan.stage[3].device, 0);
    in.device[0].speed = in.device[2].speed = 1000 * MIB;
    in.device[1].speed = 100 * MIB; /* ten times slower than the others: nothing */
    solve(&in, &q);
    assert_int_equal(q.plan.n_devices, 2);
    assert_int_equal(q.used[1], 2);
    assert_int_equal(q.plan.stage[1].first, 2);
    in.device[0].speed = 200 * MIB; /* two, one and three */
    in.device[2].speed = 300 * MIB;
    solve(&in, &q);
    assert_int_equal(q.plan.stage[0].end, 1);
    assert_int_equal(q.plan.stage[1].end, 2);
    assert_int_equal(q.plan.stage[2].end, 5);
}

static void test_small_head(void **state)
{
    struct instance in;
    struct placement q;
    struct err_text et;

    plain(&in, 2);
    in.device[0].memory_bytes = 10 * MIB - 1;
    assert_int_equal(place_solve(&in.p, &q, &et), ERR_MEMORY);
    assert_non_null(strstr(et.text, "by 1 MiB"));
    assert_non_null(strstr(et.text, "on head"));
    in.device[0].memory_bytes = 10 * MIB; /* enough for embed, not for output too */
    solve(&in, &q);
    assert_int_equal(q.plan.n_stages, 2);
    assert_int_equal(q.plan.stage[0].end, 1);
}

/* Too slow to help, or no room for anything: left out. */
static void test_left_out(void **state)
{
    struct instance in;
    struct placement q;

    plain(&in, 3);
    in.device[1].memory_bytes = 5 * MIB;
    in.device[2].speed = MIB;
    solve(&in, &q);
    assert_int_equal(q.plan.n_devices, 1);
    in.device[2].speed = 100 * MIB;
    solve(&in, &q);
    assert_int_equal(q.plan.n_devices, 2);
    assert_int_equal(q.used[1], 2);
}

static void test_unknown_speed(void **state)
{
    struct instance in;
    struct placement q;

    plain(&in, 2);
    in.device[0].speed = in.device[1].speed = 0; /* alike */
    solve(&in, &q);
    assert_int_equal(q.plan.stage[0].end, 2);
    assert_int_equal(q.plan.stage[1].end, 5);
}

static void test_private(void **state)
{
    struct instance in;
    struct placement q;
    struct err_text et;

    plain(&in, 2);
    in.device[0].memory_bytes = 15 * MIB;
    solve(&in, &q); /* output on the other */
    in.p.want_private = true;
    assert_int_equal(place_solve(&in.p, &q, &et), ERR_INPUT);
    assert_non_null(strstr(et.text, "marked mine"));
    in.device[1].mine = true;
    solve(&in, &q);

    /* The ends stay here, and what is between them may go to one who is not mine. */
    plain(&in, 2);
    in.device[1].mine = false;
    in.p.want_private = true;
    for (int i = 0; i < in.p.n_modules; i++)
        in.module[i].is_private = i < 2 || i > in.p.n_modules - 3;
    solve(&in, &q);
    assert_int_equal(q.plan.n_stages, 3);
    assert_true(q.plan.stage[0].end >= 2);
    assert_int_equal(q.plan.stage[1].device, 1);
    assert_int_equal(q.plan.stage[2].device, 0);
    assert_int_equal(q.plan.stage[2].first, in.p.n_modules - 2);
}

/* Figures of a device that lies do not wrap around. */
static void test_absurd(void **state)
{
    struct instance in;
    struct placement q;
    struct err_text et;

    plain(&in, 2);
    in.device[1].base_bytes = UINT64_MAX;
    in.device[1].memory_bytes = UINT64_MAX;
    in.device[0].memory_bytes = 30 * MIB;
    assert_int_equal(place_solve(&in.p, &q, &et), ERR_MEMORY);
    assert_non_null(strstr(et.text, "by 30 MiB"));
    in.device[0].memory_bytes = 0;
    solve(&in, &q);
    assert_int_equal(q.plan.n_devices, 1);
    in.p.n_devices = PLAN_DEVICES_MAX + 1;
    assert_int_equal(place_solve(&in.p, &q, &et), ERR_INPUT);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_brute_force),   cmocka_unit_test(test_more_memory),
        cmocka_unit_test(test_shortfall),     cmocka_unit_test(test_largest_ctx),
        cmocka_unit_test(test_head_alone),    cmocka_unit_test(test_proportional),
        cmocka_unit_test(test_small_head),    cmocka_unit_test(test_left_out),
        cmocka_unit_test(test_unknown_speed), cmocka_unit_test(test_private),
        cmocka_unit_test(test_absurd),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
