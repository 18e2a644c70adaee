/* The attention kernel against plain arithmetic in double precision, and against the same source
 * compiled for AVX2: where multiply-add is fused, the width of a register must not change a bit. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/check.h"
#include "base/mem.h"
#include "model/attn.h"
#include "model/model.h"

#ifdef HAVE_AVX2_TWIN
void attn_run_avx2(const struct kv *kv, const struct attn_shape *shape,
                   const struct attn_rows *rows, const float *q, size_t q_stride, float *out,
                   size_t out_stride, int ith, int nth, void *scratch);
#endif

enum { POSITIONS = 300, ROWS = 40, KV_HEADS = 2, HEADS = 6, DIM_MAX = 128 };

static float noise(uint32_t *seed)
{
    *seed = *seed * 1664525u + 1013904223u;
    return (float)(int32_t)*seed / 2147483648.0f;
}

struct scene {
    struct kv kv;
    struct attn_shape shape;
    float k[KV_HEADS][POSITIONS][DIM_MAX], v[KV_HEADS][POSITIONS][DIM_MAX];
    float q[ROWS][HEADS][DIM_MAX]; /* only the first head_dim of each are used, packed */
    int32_t slot[ROWS], pos[ROWS];
    void *scratch;
};

static struct scene *scene_new(enum kv_type type, const struct attn_shape *shape)
{
    struct scene *s = mem_zalloc(1, sizeof *s);
    uint32_t seed = (uint32_t)(type * 100 + shape->head_dim);
    float *q = &s->q[0][0][0];

    s->shape = *shape;
    assert_int_equal(kv_open(&s->kv, type, 1, KV_HEADS, shape->head_dim, POSITIONS, NULL), 0);
    for (int h = 0; h < KV_HEADS; h++)
        for (int p = 0; p < POSITIONS; p++) {
            for (int d = 0; d < shape->head_dim; d++) {
                s->k[h][p][d] = 3.0f * noise(&seed);
                s->v[h][p][d] = noise(&seed);
            }
            kv_store(&s->kv, 0, h, p, s->k[h][p], s->v[h][p]);
        }
    for (int i = 0; i < ROWS; i++)
        s->pos[i] = POSITIONS - ROWS + i;
    for (int i = 0; i < ROWS * HEADS * shape->head_dim; i++)
        q[i] = noise(&seed);
    CHECK(posix_memalign(&s->scratch, 64, attn_scratch_bytes(shape->head_dim)) == 0);
    return s;
}

static void scene_free(struct scene *s)
{
    kv_close(&s->kv);
    free(s->scratch);
    free(s);
}

static const float *query(const struct scene *s, int row, int head)
{
    return &s->q[0][0][0] + (size_t)(row * HEADS + head) * (size_t)s->shape.head_dim;
}

static double slope(const struct attn_shape *a, int head)
{
    /* Six heads: four on the power of two, the other two on the odd half-steps (arXiv 2108.12409).
     * */
    double step = pow(2.0, -(double)a->alibi_bias_max / 4.0);

    if (a->alibi_bias_max <= 0.0f)
        return 0.0;
    return head < 4 ? pow(step, head + 1) : pow(sqrt(step), 2 * (head - 4) + 1);
}

/* out: (head_dim) */
static void plain(const struct scene *s, int row, int head, double *out)
{
    const struct attn_shape *a = &s->shape;
    int h = head / (HEADS / KV_HEADS), pos = s->pos[row], first = 0;
    double w[POSITIONS], top = -INFINITY, sum = 0.0;

    if (a->window > 0 && pos + 1 > a->window)
        first = pos + 1 - a->window;
    for (int p = first; p <= pos; p++) {
        double x = 0.0;

        for (int d = 0; d < a->head_dim; d++)
            x += (double)query(s, row, head)[d] * (double)s->k[h][p][d];
        x *= (double)a->scale;
        if (a->cap > 0.0f)
            x = (double)a->cap * tanh(x / (double)a->cap);
        w[p] = x - slope(a, head) * (pos - p);
        top = fmax(top, w[p]);
    }
    for (int d = 0; d < a->head_dim; d++)
        out[d] = 0.0;
    for (int p = first; p <= pos; p++) {
        double e = exp(w[p] - top);

        sum += e;
        for (int d = 0; d < a->head_dim; d++)
            out[d] += e * (double)s->v[h][p][d];
    }
    for (int d = 0; d < a->head_dim; d++)
        out[d] /= sum;
}

static void check(enum kv_type type, const struct attn_shape *shape)
{
    struct scene *s = scene_new(type, shape);
    size_t stride = (size_t)(HEADS * shape->head_dim), n = ROWS * stride;
    struct attn_rows rows = {.n = ROWS, .slot = s->slot, .pos = s->pos};
    float *all = mem_zalloc(n, sizeof *all), *one = mem_zalloc(n, sizeof *one);
    double error = 0.0, power = 0.0, want[DIM_MAX];
    double bound = type == KV_F32 ? 1e-11 : type == KV_F16 ? 1e-6 : 1e-3;

    for (int t = 0; t < 3; t++) /* three threads, one after the other */
        attn_run(&s->kv, shape, &rows, &s->q[0][0][0], stride, all, stride, t, 3, s->scratch);
    for (int i = 0; i < ROWS; i++) { /* each row alone */
        struct attn_rows lone = {.n = 1, .slot = s->slot + i, .pos = s->pos + i};

        attn_run(&s->kv, shape, &lone, query(s, i, 0), stride, one + (size_t)i * stride, stride, 0,
                 1, s->scratch);
        for (int h = 0; h < HEADS; h++) {
            plain(s, i, h, want);
            for (int d = 0; d < shape->head_dim; d++) {
                double got = (double)one[(size_t)i * stride + (size_t)(h * shape->head_dim + d)];

                error += (got - want[d]) * (got - want[d]);
                power += want[d] * want[d];
            }
        }
    }
    assert_memory_equal(all, one, n * sizeof *all);
    if (!(error < bound * power))
        fail_msg("type %d, heads of %d: NMSE %.1e", (int)type, shape->head_dim, error / power);
#ifdef HAVE_AVX2_TWIN
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) {
        memset(one, 0, n * sizeof *one);
        attn_run_avx2(&s->kv, shape, &rows, &s->q[0][0][0], stride, one, stride, 0, 1, s->scratch);
        if (strstr(model_kernels(), "avx")) /* a portable build has no fused multiply-add */
            assert_memory_equal(all, one, n * sizeof *all);
    }
#endif
    free(all);
    free(one);
    scene_free(s);
}

static void every_kind_of_attention(void **state)
{
    static const int dims[] = {8, 32, 48, 64, 128};
    static const enum kv_type types[] = {KV_F32, KV_F16, KV_Q8_0};

    (void)state;
    for (size_t t = 0; t < ARRAY_LEN(types); t++)
        for (size_t d = 0; d < ARRAY_LEN(dims); d++) {
            struct attn_shape a = {.n_heads = HEADS,
                                   .n_kv_heads = KV_HEADS,
                                   .head_dim = dims[d],
                                   .scale = 1.0f / sqrtf((float)dims[d])};

            if (types[t] == KV_Q8_0 && dims[d] % KV_GROUP)
                continue;
            check(types[t], &a);
            a.window = 50;
            check(types[t], &a);
            a.cap = 3.0f;
            check(types[t], &a);
            a.window = 0;
            a.alibi_bias_max = 8.0f;
            check(types[t], &a);
        }
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(every_kind_of_attention)};

    return cmocka_run_group_tests(tests, NULL, NULL);
}
