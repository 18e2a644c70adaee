/* Every family against libllama: the same file, rows, KV type and kernels; logits compared by
 * normalised mean squared error over a prefill and over decode steps.
 *
 * The bounds:
 * - F32 weights and KV: 1e-8. The two engines only add in another order.
 * - F16 or F32 weights, one of weights or KV rounded: 1e-4.
 * - Quantised weights: 1e-4 or twice the reference's own noise, whichever is larger
 *   (without experts never above 2e-3). ggml rounds the
 *   activations to 8 bits in front of every quantised matrix. Where two runs differ in the last
 *   bit, some values round the other way, by a step of about max / 127; a few matrices on, the
 *   roundings have nothing to do with each other any more, and NMSE is that of two independent
 *   roundings at every matrix: 2 * step^2 / 12 each, 4e-4 (groups of 32) to 1e-3 (K-quants' groups
 *   of 256) over three layers. No engine that adds in another order can be nearer. The noise is
 *   measured here, as the distance between libllama with f16 and libllama with F32 KV.
 * - q8_0 KV has no counterpart, as libllama wants flash attention for it: it is held against
 *   libllama's F32 KV by what rounding keys and values to 8 bits may cost, 1e-3, with F32 weights
 *   and without experts.
 * - Experts: where two of them are nearly tied, the last bit decides which one a row gets, and that
 *   row's logits are another's. So the worst rows are left out: none with F32 weights and KV, one
 *   in twenty with unquantised weights, one in five with quantised ones, whose noise is a thousand
 *   times larger. What remains is the wake of a row rerouted early, which all later rows attend
 *   to. An f16 KV reroutes so many that only F32 weights are held against it.
 */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/check.h"
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

struct distance {
    double prefill, decode;
    bool apart[N_ROWS]; /* rows left out: given to other experts */
};

/* NMSE over rows [first, end), without the worst n_apart of them. */
static double distance_of(const float *a, const float *b, int n_vocab, int first, int end,
                          int n_apart, bool apart[N_ROWS])
{
    double error[N_ROWS], power[N_ROWS], sum_error = 0.0, sum_power = 0.0;

    for (int row = first; row < end; row++) {
        const float *x = a + (size_t)row * (size_t)n_vocab, *y = b + (size_t)row * (size_t)n_vocab;

        power[row] = nmse_power(y, n_vocab);
        error[row] = nmse(x, y, n_vocab) * power[row];
    }
    for (int i = 0; i < n_apart; i++) {
        int worst = -1;

        for (int row = first; row < end; row++)
            if (!apart[row] && (worst < 0 || error[row] * power[worst] > error[worst] * power[row]))
                worst = row;
        CHECK(worst >= 0);
        apart[worst] = true;
    }
    for (int row = first; row < end; row++) {
        sum_error += apart[row] ? 0.0 : error[row];
        sum_power += apart[row] ? 0.0 : power[row];
    }
    return sum_error / sum_power;
}

/* One row in one_in is left out; 0 = none. */
static struct distance distance_between(const float *a, const float *b, int n_vocab, int one_in)
{
    struct distance d = {0};
    int n_prefill = one_in ? N_PREFILL / one_in : 0;
    int n_decode = one_in ? (N_DECODE + one_in - 1) / one_in : 0;

    d.prefill = distance_of(a, b, n_vocab, 0, N_PREFILL, n_prefill, d.apart);
    d.decode = distance_of(a, b, n_vocab, N_PREFILL, N_ROWS, n_decode, d.apart);
    return d;
}

/* Rows whose most likely token differs by more than the bound lets two logits trade places. */
static int wrong_tokens(const float *a, const float *b, int n_vocab, double bound,
                        const bool apart[N_ROWS])
{
    int n = 0;

    for (int row = 0; row < N_ROWS; row++, a += n_vocab, b += n_vocab) {
        int top_a = argmax(a, n_vocab), top_b = argmax(b, n_vocab);
        double power = nmse_power(b, n_vocab) / n_vocab;

        /* Each of the two may err by four standard deviations of an error of just the bound. */
        n += !apart[row] && top_a != top_b &&
             (double)b[top_b] - (double)b[top_a] > 8.0 * sqrt(bound * power);
    }
    return n;
}

/* One file in one context size: libllama's logits, and what to hold against them. */
struct trial {
    const char *label, *path;
    struct rows rows;
    int n_vocab, n_ctx;
    enum ggml_type type;
    int one_in;               /* rows left out, as distance_between has it */
    float *ref_f32, *ref_f16; /* by KV type */
    double noise;             /* between the two */
};

/* Compares one KV type; returns how many bounds it breaks, so that one table shows them all. */
static int compare(const struct trial *t, enum kv_type kv)
{
    bool exact = t->type == GGML_TYPE_F32 && kv == KV_F32;
    double bound = exact ? 1e-8 : kv == KV_Q8_0 ? 1e-3 : 1e-4;
    const float *theirs = kv == KV_F16 ? t->ref_f16 : t->ref_f32;
    float *a = ours(t->path, &t->rows, kv, t->n_ctx);
    struct distance d = distance_between(a, theirs, t->n_vocab, exact ? 0 : t->one_in);
    int wrong, broken;

    if (ggml_is_quantized(t->type) && 2.0 * t->noise > bound)
        bound = 2.0 * t->noise < 2e-3 || t->one_in ? 2.0 * t->noise : 2e-3;
    wrong = wrong_tokens(a, theirs, t->n_vocab, bound, d.apart);
    broken = !(d.prefill < bound) + !(d.decode < bound) + (wrong > 0);
    print_message("  %-17s kv %-4s ctx %4d: NMSE prefill %.1e decode %.1e (bound %.0e), wrong "
                  "tokens %d%s\n",
                  t->label, kv_type_name(kv), t->n_ctx, d.prefill, d.decode, bound, wrong,
                  broken ? "  <-- BROKEN" : "");
    free(a);
    return broken;
}

static int compare_context(struct trial *t, bool q8)
{
    struct distance d;
    int broken;

    t->ref_f32 = reference(t->path, &t->rows, GGML_TYPE_F32, t->n_ctx);
    t->ref_f16 = reference(t->path, &t->rows, GGML_TYPE_F16, t->n_ctx);
    d = distance_between(t->ref_f16, t->ref_f32, t->n_vocab, t->one_in);
    t->noise = d.prefill > d.decode ? d.prefill : d.decode;
    broken = compare(t, KV_F32);
    if (!t->one_in || t->type == GGML_TYPE_F32)
        broken += compare(t, KV_F16);
    if (q8)
        broken += compare(t, KV_Q8_0);
    free(t->ref_f32);
    free(t->ref_f16);
    return broken;
}

static int compare_type(enum tiny_variant v, enum ggml_type type)
{
    char name[96], path[256], label[96];
    struct trial t = {.path = path, .label = label, .n_ctx = 512, .type = type};
    struct model *m;
    struct err_text et = {{0}};
    int broken;
    bool q8;

    snprintf(name, sizeof(name), "families-%s-%s.gguf", tiny_name(v), ggml_type_name(type));
    snprintf(label, sizeof(label), "%s %s", tiny_name(v), ggml_type_name(type));
    tiny_path(path, sizeof(path), name);
    tiny_write(path, v, type, 1000 + (uint64_t)v);
    if (model_open(path, &m, &et) != ERR_NONE)
        fail_msg("%s", et.text);
    t.n_vocab = model_shape(m)->n_vocab;
    if (model_shape(m)->n_experts > 0)
        t.one_in = ggml_is_quantized(type) ? 5 : 20;
    q8 = type == GGML_TYPE_F32 && !t.one_in && model_check_kv(m, KV_Q8_0, NULL) == ERR_NONE;
    model_close(m);
    rows_fill(&t.rows, t.n_vocab, 77 + (uint64_t)v);
    broken = compare_context(&t, q8);
    if (v == TINY_PHI3) { /* past its first context the long factors rule */
        t.n_ctx = 2 * TINY_PHI3_CTX_ORIG;
        broken += compare_context(&t, q8);
    }
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
