/* A row's logits depend on its own token prefix alone: the same bits for any thread count, chunks,
 * cuts, companions, and whether the prefix was decoded or replayed. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/mem.h"
#include "exact.h"
#include "golden_opts.h"

static float *logits_new(const struct exact *x)
{
    return mem_alloc(sizeof(float) * EXACT_LEN_MAX * (size_t)x->n_vocab);
}

/* Feeds sequence 0 in chunks and compares, in a fresh slot each time. */
static void check_chunks(const struct exact *x, int n_threads, const int *chunks, int n_chunks)
{
    struct segment_opts opts = exact_opts(x);
    float *logits = logits_new(x);
    struct rig rig;
    char what[64];

    rig_open(&rig, x->path, n_threads, &opts, NULL, 0);
    for (int i = 0; i < n_chunks; i++) {
        snprintf(what, sizeof(what), "%d threads, chunks of %d", n_threads, chunks[i]);
        rig_feed(&rig, i, 0, x->tokens[0], x->len[0], chunks[i], logits);
        exact_same(x, 0, 0, x->len[0], logits, what);
    }
    /* Decoded above or not, slot 0 is now forgotten and replayed as one prefill. */
    assert_int_equal(segment_slot_truncate(rig.segments[0], 0, 0, NULL), ERR_NONE);
    rig_feed(&rig, 0, 0, x->tokens[0], x->len[0], x->len[0], logits);
    exact_same(x, 0, 0, x->len[0], logits, "decoded, forgotten, replayed");
    rig_close(&rig);
    free(logits);
}

/* Prefill in chunks of 64, then the last rows one by one, through the given cuts. */
static void check_cut(const struct exact *x, const int *cuts, int n_cuts)
{
    struct segment_opts opts = exact_opts(x);
    float *logits = logits_new(x);
    int n_decode = 9, n_prefill = x->len[0] - n_decode;
    struct rig rig;
    char what[64];

    snprintf(what, sizeof(what), "cut before %d (%d cuts)", cuts[0], n_cuts);
    rig_open(&rig, x->path, 1, &opts, cuts, n_cuts);
    rig_feed(&rig, 0, 0, x->tokens[0], n_prefill, 64, logits);
    exact_same(x, 0, 0, n_prefill, logits, what);
    rig_feed(&rig, 0, n_prefill, x->tokens[0], n_decode, 1, logits);
    exact_same(x, 0, n_prefill, n_decode, logits, what);
    rig_close(&rig);
    free(logits);
}

static void check_cuts(const struct exact *x)
{
    struct tiny_rng rng = {9};

    for (int m = 1; m < x->n_modules; m++)
        check_cut(x, &m, 1);
    for (int trial = 0; trial < 3; trial++) {
        int cuts[3];

        /* Three different places, ascending. */
        for (int i = 0; i < 3; i++) {
            int room = x->n_modules - 1 - (i ? cuts[i - 1] : 0) - (2 - i);

            cuts[i] = (i ? cuts[i - 1] : 0) + 1 + (int)(tiny_rng_next(&rng) % (uint64_t)room);
        }
        check_cut(x, cuts, 3);
    }
}

struct companions {
    int n, done[EXACT_SLOTS], taken[EXACT_SLOTS];
    int32_t slot[EXACT_LEN_MAX], pos[EXACT_LEN_MAX], token[EXACT_LEN_MAX];
    uint8_t want[EXACT_LEN_MAX];
};

static void companions_add(struct companions *c, const struct exact *x, int s)
{
    c->slot[c->n] = s;
    c->pos[c->n] = c->done[s] + c->taken[s];
    c->token[c->n] = x->tokens[s][c->pos[c->n]];
    c->want[c->n] = (uint8_t)((c->n + s) % 3 != 0);
    c->taken[s]++;
    c->n++;
}

/* Fills one step: each slot takes its share of rows, the slots in ascending order in even steps and
 * descending in odd ones. */
static void companions_fill(struct companions *c, const struct exact *x, int step)
{
    c->n = 0;
    memset(c->taken, 0, sizeof(c->taken));
    for (int i = 0; i < EXACT_SLOTS; i++) {
        int s = step & 1 ? EXACT_SLOTS - 1 - i : i;
        int share = (s + step) % 4 == 0 ? 23 : (s * 5 + step) % 7 == 0 ? 6 : 1;
        int left = x->len[s] - c->done[s];

        for (int row = 0; row < share && row < left; row++)
            companions_add(c, x, s);
    }
}

/* Eight sequences side by side, each at its own pace; every wanted row of each must be its base's.
 */
static void check_beside(const struct exact *x, int n_threads, const int *cuts, int n_cuts)
{
    struct segment_opts opts = exact_opts(x);
    float *logits = logits_new(x);
    struct companions *c = mem_zalloc(1, sizeof(*c));
    struct rig rig;

    rig_open(&rig, x->path, n_threads, &opts, cuts, n_cuts);
    for (int step = 0;; step++) {
        struct batch b = {.slot = c->slot, .pos = c->pos, .token = c->token, .want = c->want};
        int at = 0;

        companions_fill(c, x, step);
        if (c->n == 0)
            break;
        b.n_rows = c->n;
        rig_run(&rig, &b, logits);
        for (int i = 0; i < c->n; i++)
            if (c->want[i])
                exact_same(x, c->slot[i], c->pos[i], 1, logits + (size_t)at++ * (size_t)x->n_vocab,
                           "beside seven others");
        for (int s = 0; s < EXACT_SLOTS; s++)
            c->done[s] += c->taken[s];
    }
    assert_int_equal(c->done[0], x->len[0]);
    rig_close(&rig);
    free(logits);
    free(c);
}

enum cuts { CUT_ONCE, CUT_EVERYWHERE };

static void check_all(enum tiny_variant v, enum ggml_type type, enum kv_type kv, int len,
                      enum cuts cuts)
{
    static const int chunks[] = {1, 7, 64}, chunks_threads[] = {7, EXACT_LEN_MAX};
    struct exact x;
    int middle;

    exact_open(&x, v, type, kv, len, EXACT_SLOTS);
    middle = x.n_modules - 3; /* between the last layers, before rows shrink */
    check_chunks(&x, 1, chunks, 3);
    check_chunks(&x, 2, chunks_threads, 2);
    if (cuts == CUT_EVERYWHERE)
        check_cuts(&x);
    check_beside(&x, 1, NULL, 0);
    check_beside(&x, 2, &middle, 1);
    print_message("  %s: %d positions, %s: same bits\n", x.label, len,
                  cuts == CUT_EVERYWHERE ? "cut everywhere" : "cut once");
    exact_close(&x);
}

/* What an emulated CPU, fifty times slower, can do in a minute. */
static void check_few(enum tiny_variant v)
{
    static const int chunks[] = {1, 7};
    struct exact x;
    int middle;

    exact_open(&x, v, GGML_TYPE_Q4_0, KV_F16, 24, 1);
    middle = x.n_modules - 3;
    check_chunks(&x, 1, chunks, 2);
    check_chunks(&x, 2, chunks + 1, 1);
    check_cut(&x, &middle, 1);
    print_message("  %s: 24 positions, cut once: same bits\n", x.label);
    exact_close(&x);
}

static const enum ggml_type types[] = {GGML_TYPE_F32, GGML_TYPE_Q4_0, GGML_TYPE_Q8_0, GGML_TYPE_F16,
                                       GGML_TYPE_Q6_K};
static const enum kv_type kvs[] = {KV_F16, KV_Q8_0, KV_F32};

/* Every type with every KV type, on one family with grouped heads, over several KV blocks. */
static void types_are_exact(void **state)
{
    bool small = golden_size() == GOLDEN_SMALL;

    (void)state;
    for (size_t t = 0; t < (small ? 2 : ARRAY_LEN(types)); t++)
        for (size_t k = 0; k < ARRAY_LEN(kvs); k++)
            check_all(TINY_LLAMA_GQA, types[t], kvs[k], small ? 80 : 200,
                      golden_size() == GOLDEN_FULL ? CUT_EVERYWHERE : CUT_ONCE);
}

static void family_is_exact(void **state)
{
    enum tiny_variant v = (enum tiny_variant)(intptr_t)*state;
    bool q8 = v != TINY_LLAMA_BIAS; /* heads of 48 are no whole number of q8_0 blocks */

    if (golden_tiny()) {
        check_few(v);
        return;
    }
    if (golden_size() != GOLDEN_FULL) {
        check_all(v, GGML_TYPE_Q4_0, KV_F16, golden_size() == GOLDEN_SMALL ? 70 : 100,
                  CUT_EVERYWHERE);
        return;
    }
    for (size_t t = 0; t < ARRAY_LEN(types); t++)
        for (size_t k = 0; k < ARRAY_LEN(kvs); k++)
            if (q8 || kvs[k] != KV_Q8_0)
                check_all(v, types[t], kvs[k], 290, CUT_EVERYWHERE);
}

int main(void)
{
    static struct CMUnitTest tests[TINY_N_VARIANTS + 1];
    static const enum tiny_variant few[] = {TINY_LLAMA, TINY_QWEN3MOE, TINY_GPTNEOX};
    static struct CMUnitTest few_tests[ARRAY_LEN(few)];

    for (int v = 0; v < TINY_N_VARIANTS; v++)
        tests[v] = (struct CMUnitTest){.name = tiny_name((enum tiny_variant)v),
                                       .test_func = family_is_exact,
                                       .initial_state = (void *)(intptr_t)v};
    tests[TINY_N_VARIANTS] = (struct CMUnitTest)cmocka_unit_test(types_are_exact);
    for (size_t i = 0; i < ARRAY_LEN(few); i++)
        few_tests[i] = tests[few[i]];
    if (golden_tiny())
        return cmocka_run_group_tests(few_tests, NULL, NULL);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
