/* Standby copies: the example of FACTS.md, section 1, and brute force over all lengths. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <string.h>

#include "instance.h"

enum { INSTANCES = 1500, LENGTHS_MAX = 2 * 5 };

static const uint64_t MIB = 1 << 20;

static void judge(const struct instance *in, struct placement *q)
{
    struct err_text et;

    if (place_judge(&in->p, q, &et))
        fail_msg("%s", et.text);
}

/* Owners (0,0,1,1,1,1,2,2) of modules of 100 MB, 700 MB each: 600 MB can be held twice. Many sets
 * reach it; the ones of the example are the only ones when the first device has storage for three
 * copies and the last for one. */
static void test_example(void **state)
{
    struct instance in;
    struct placement q = {.plan = {.n_devices = 3, .n_stages = 3}, .used = {0, 1, 2}};
    struct place_standby s;

    instance_plain(&in, 8, 3);
    for (int i = 0; i < 8; i++)
        in.module[i].weight_bytes = 100 * MIB;
    for (int d = 0; d < 3; d++)
        in.device[d].memory_bytes = 700 * MIB;
    q.plan.stage[0] = (struct plan_stage){0, 0, 2};
    q.plan.stage[1] = (struct plan_stage){1, 2, 6};
    q.plan.stage[2] = (struct plan_stage){2, 6, 8};
    judge(&in, &q);
    place_standby(&in.p, &q, NULL, &s);
    assert_true(s.bytes == 600 * MIB);
    place_standby(&in.p, &q, (const uint64_t[]){300 * MIB, 200 * MIB, 100 * MIB}, &s);
    assert_true(s.bytes == 600 * MIB);
    assert_int_equal(s.before[0].end - s.before[0].first, 0);
    assert_int_equal(s.after[0].first, 2); /* 1 1 1 1 1 0 0 0 */
    assert_int_equal(s.after[0].end, 5);
    assert_int_equal(s.before[1].first, 1); /* 0 1 1 1 1 1 1 0 */
    assert_int_equal(s.before[1].end, 2);
    assert_int_equal(s.after[1].first, 6);
    assert_int_equal(s.after[1].end, 7);
    assert_int_equal(s.before[2].first, 5); /* 0 0 0 0 0 1 1 1 */
    assert_int_equal(s.before[2].end, 6);
    assert_int_equal(s.after[2].end - s.after[2].first, 0);

    /* Pipeline 0-2-1: neighbours are those of the pipeline, not of the numbers. */
    q.used[1] = 2;
    q.used[2] = 1;
    judge(&in, &q);
    place_standby(&in.p, &q, NULL, &s);
    assert_true(s.bytes == 600 * MIB);
}

/* Whether these lengths (before and after, by stage) keep every rule; the bytes held twice. */
static bool rules(const struct place_problem *p, const struct placement *q, const uint64_t *storage,
                  const int *length, uint64_t *held)
{
    uint64_t bytes[PLAN_DEVICES_MAX] = {0}, weights[PLAN_DEVICES_MAX] = {0};
    int copies[INSTANCE_MODULES_MAX] = {0};

    *held = 0;
    for (int i = 0; i < 2 * q->plan.n_stages; i++) {
        const struct plan_stage *s = &q->plan.stage[i / 2], *from = i % 2 ? s + 1 : s - 1;
        bool none = i == 0 || i == 2 * q->plan.n_stages - 1;
        int device = s->device;

        if (length[i] && (none || length[i] > from->end - from->first))
            return false;
        for (int k = 0; k < length[i]; k++) {
            int m = i % 2 ? from->first + k : from->end - 1 - k;
            const struct place_module *x = &p->module[m];

            if (m == 0 || m == p->n_modules - 1 || copies[m]++)
                return false;
            if (p->want_private && x->is_private && !p->device[q->used[device]].mine)
                return false;
            *held += x->weight_bytes;
            weights[device] += x->weight_bytes;
            bytes[device] +=
                x->weight_bytes + x->kv_bytes * (uint64_t)p->n_ctx * (uint64_t)p->n_slots;
        }
    }
    for (int i = 0; i < q->plan.n_devices; i++) {
        uint64_t budget = p->device[q->used[i]].memory_bytes;

        if ((budget && bytes[i] && q->memory_bytes[i] + bytes[i] > budget) ||
            (storage && weights[i] > storage[i]))
            return false;
    }
    return true;
}

static uint64_t brute(const struct place_problem *p, const struct placement *q,
                      const uint64_t *storage)
{
    int length[LENGTHS_MAX] = {0}, n = 2 * q->plan.n_stages, i = 0;
    uint64_t most = 0, held;

    while (i < n) { /* counts through all of them, the first length quickest */
        int from = i % 2 ? i / 2 + 1 : i / 2 - 1, cap = 0;

        if (i == 0 && rules(p, q, storage, length, &held) && held > most)
            most = held;
        if (from >= 0 && from < q->plan.n_stages)
            cap = q->plan.stage[from].end - q->plan.stage[from].first;
        if (length[i] < cap) {
            length[i]++;
            i = 0;
        } else {
            length[i++] = 0;
        }
    }
    return most;
}

static void test_brute_force(void **state)
{
    int n_some = 0, n_tails = 0;

    for (uint64_t seed = 1; seed <= INSTANCES; seed++) {
        static struct instance in;
        struct placement q;
        struct place_standby s;
        struct err_text et;
        uint64_t storage[PLAN_DEVICES_MAX], held, *limit = NULL;
        int length[LENGTHS_MAX];

        instance_random(&in, seed, 9, 5);
        in.p.concurrency = 4; /* several devices */
        if (place_solve(&in.p, &PLACE_OPTS_DEFAULT, &q, &et) || q.plan.n_stages > 5)
            continue;
        for (int i = 0; i < q.plan.n_devices; i++)
            storage[i] = chance(60) << 20;
        if (chance(2))
            limit = storage;
        place_standby(&in.p, &q, limit, &s);
        for (int i = 0; i < q.plan.n_stages; i++) {
            length[2 * i] = s.before[i].end - s.before[i].first;
            length[2 * i + 1] = s.after[i].end - s.after[i].first;
            if (length[2 * i])
                assert_int_equal(s.before[i].end, q.plan.stage[i].first);
            if (length[2 * i + 1])
                assert_int_equal(s.after[i].first, q.plan.stage[i].end);
        }
        assert_true(rules(&in.p, &q, limit, length, &held));
        assert_true(held == s.bytes);
        if (held != brute(&in.p, &q, limit))
            fail_msg("seed %d: %llu bytes held twice, where %llu can be", (int)seed,
                     (unsigned long long)held, (unsigned long long)brute(&in.p, &q, limit));
        n_some += held > 0;
        n_tails += held > 0 && q.plan.n_stages > q.plan.n_devices;
    }
    print_message("%d with copies, %d of them with a tail\n", n_some, n_tails);
    assert_true(n_some > INSTANCES / 4 && n_tails > INSTANCES / 20);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_example),
        cmocka_unit_test(test_brute_force),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
