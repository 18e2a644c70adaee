/* Every family against libllama: the same file, rows, KV type and kernels; logits compared by
 * normalised mean squared error over a prefill and over decode steps.
 *
 * The bounds: 1e-8 where weights and KV are F32 (two orders of summation apart), 1e-4 where one of
 * them is rounded. q8_0 KV has no counterpart, as libllama wants flash attention for it: it is held
 * against libllama's F32 KV by what rounding keys and values to 8 bits may cost. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/mem.h"
#include "golden_opts.h"
#include "support/ref_llama.h"
#include "support/rig.h"
#include "support/tiny_model.h"

enum {
    N_PREFILL = 90, /* past a KV block of 64 positions */
    N_DECODE = 16,
    N_ROWS = N_PREFILL + N_DECODE,
};

static const enum ggml_type types[] = {GGML_TYPE_F32,  GGML_TYPE_Q4_0, GGML_TYPE_Q8_0,
                                       GGML_TYPE_Q6_K, GGML_TYPE_Q4_K, GGML_TYPE_F16};
static const int n_types[] = {[GOLDEN_SMALL] = 2, [GOLDEN_NORMAL] = 6, [GOLDEN_FULL] = 6};

struct rows {
    int32_t slot[N_ROWS], pos[N_ROWS], token[N_ROWS];
};

static void rows_fill(struct rows *r, int n_vocab, uint64_t seed)
{
    struct tiny_rng rng = {seed};

    for (int i = 0; i < N_ROWS; i++) {
        r->slot[i] = 0;
        r->pos[i] = i;
        r->token[i] = (int32_t)(tiny_rng_next(&rng) % (uint64_t)n_vocab);
    }
}

static float *reference(const char *path, const struct rows *rows, enum ggml_type kv, int n_ctx)
{
    struct ref_opts opts = {.n_threads = 1, .n_ctx = n_ctx, .n_seqs = 1, .kv = kv};
    struct ref *ref = ref_open(path, &opts);
    int n_vocab = ref_n_vocab(ref);
    float *logits = mem_alloc(sizeof(*logits) * N_ROWS * (size_t)n_vocab);

    ref_run(ref, N_PREFILL, rows->slot, rows->pos, rows->token, NULL, logits);
    for (int i = N_PREFILL; i < N_ROWS; i++)
        ref_run(ref, 1, rows->slot + i, rows->pos + i, rows->token + i, NULL,
                logits + (size_t)i * (size_t)n_vocab);
    ref_close(ref);
    return logits;
}

static float *ours(const char *path, const struct rows *rows, enum kv_type kv, int n_ctx)
{
    struct segment_opts opts = {.n_slots = 1, .n_ctx = n_ctx, .n_rows_max = N_ROWS, .kv = kv};
    struct rig rig;
    float *logits;

    rig_open(&rig, path, 1, &opts, NULL, 0);
    logits = mem_alloc(sizeof(*logits) * N_ROWS * (size_t)rig.n_vocab);
    rig_feed(&rig, 0, 0, rows->token, N_PREFILL, N_PREFILL, logits);
    rig_feed(&rig, 0, N_PREFILL, rows->token, N_DECODE, 1,
             logits + (size_t)N_PREFILL * (size_t)rig.n_vocab);
    rig_close(&rig);
    return logits;
}

/* Rows whose most likely token differs by more than the bound lets two logits trade places. */
static int wrong_tokens(const float *a, const float *b, int n_vocab, double bound)
{
    int n = 0;

    for (int row = 0; row < N_ROWS; row++, a += n_vocab, b += n_vocab) {
        int top_a = argmax(a, n_vocab), top_b = argmax(b, n_vocab);
        double power = 0.0;

        for (int i = 0; i < n_vocab; i++)
            power += (double)b[i] * (double)b[i] / n_vocab;
        /* Each of the two may err by four standard deviations of an error of just the bound. */
        n += top_a != top_b && (double)b[top_b] - (double)b[top_a] > 8.0 * sqrt(bound * power);
    }
    return n;
}

struct trial {
    const char *path, *label;
    const struct rows *rows;
    int n_vocab, n_ctx;
    enum kv_type kv;
    enum ggml_type kv_ref;
    double bound;
};

/* Compares one combination; returns how many bounds it breaks, so that one table shows them all. */
static int compare(const struct trial *t)
{
    float *a = ours(t->path, t->rows, t->kv, t->n_ctx);
    float *b = reference(t->path, t->rows, t->kv_ref, t->n_ctx);
    int64_t split = (int64_t)N_PREFILL * t->n_vocab, all = (int64_t)N_ROWS * t->n_vocab;
    double prefill = nmse(a, b, split), decode = nmse(a + split, b + split, all - split);
    int wrong = wrong_tokens(a, b, t->n_vocab, t->bound);
    int broken = !(prefill < t->bound) + !(decode < t->bound) + (wrong > 0);

    print_message("  %-26s kv %-4s ctx %4d: NMSE prefill %.1e decode %.1e (bound %.0e), wrong "
                  "tokens %d%s\n",
                  t->label, kv_type_name(t->kv), t->n_ctx, prefill, decode, t->bound, wrong,
                  broken ? "  <-- BROKEN" : "");
    free(a);
    free(b);
    return broken;
}

static int compare_type(enum tiny_variant v, enum ggml_type type)
{
    bool exact = type == GGML_TYPE_F32;
    char name[96], path[256], label[96];
    struct rows rows;
    struct trial t = {.path = path, .label = label, .rows = &rows, .n_ctx = 512};
    struct model *m;
    struct err_text et = {{0}};
    int broken = 0;

    snprintf(name, sizeof(name), "families-%s-%s.gguf", tiny_name(v), ggml_type_name(type));
    snprintf(label, sizeof(label), "%s %s", tiny_name(v), ggml_type_name(type));
    tiny_path(path, sizeof(path), name);
    tiny_write(path, v, type, 1000 + (uint64_t)v);
    if (model_open(path, &m, &et) != ERR_NONE)
        fail_msg("%s", et.text);
    t.n_vocab = model_shape(m)->n_vocab;
    rows_fill(&rows, t.n_vocab, 77 + (uint64_t)v);
    for (t.n_ctx = 512; t.n_ctx <= (v == TINY_PHI3 ? 1024 : 512); t.n_ctx *= 2) {
        t.kv = KV_F32, t.kv_ref = GGML_TYPE_F32, t.bound = exact ? 1e-8 : 1e-4;
        broken += compare(&t);
        t.kv = KV_F16, t.kv_ref = GGML_TYPE_F16, t.bound = 1e-4;
        broken += compare(&t);
    }
    t.n_ctx = 512;
    if (exact && model_check_kv(m, KV_Q8_0, NULL) == ERR_NONE) {
        t.kv = KV_Q8_0, t.kv_ref = GGML_TYPE_F32, t.bound = 1e-3;
        broken += compare(&t);
    }
    model_close(m);
    unlink(path);
    return broken;
}

static void family_agrees_with_libllama(void **state)
{
    enum tiny_variant v = (enum tiny_variant)(intptr_t)*state;
    int broken = 0;

    for (int i = 0; i < n_types[golden_size()]; i++)
        broken += compare_type(v, types[i]);
    assert_int_equal(broken, 0);
}

int main(void)
{
    static struct CMUnitTest tests[TINY_N_VARIANTS];

    for (int v = 0; v < TINY_N_VARIANTS; v++)
        tests[v] = (struct CMUnitTest){.name = tiny_name((enum tiny_variant)v),
                                       .test_func = family_agrees_with_libllama,
                                       .initial_state = (void *)(intptr_t)v};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
