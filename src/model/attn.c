/* Compiled with the engine's CPU flags and -ffp-contract=fast. Every sum below adds at most one
 * product, so that there is only one way to fuse it. */
#include "model/attn.h"

#include <ggml.h>
#include <math.h>
#include <stdbool.h>
#include <string.h>

#include "base/check.h"
#include "model/arch.h"

#if defined(__AVX512F__) || defined(__F16C__)
#include <immintrin.h>
#elif defined(__aarch64__)
#include <arm_neon.h>
#endif

typedef float v16 __attribute__((vector_size(64), aligned(4), may_alias));
typedef int32_t v16i __attribute__((vector_size(64), aligned(4), may_alias));

#define INLINE static inline __attribute__((always_inline))

enum {
    LANES = KV_LANES,
    BLOCK = 64,             /* positions per block, and the width of a row of scores */
    GROUPS = BLOCK / LANES, /* vectors of scores per block */
    TILE_ROWS = 64,         /* rows (tokens times query heads) that share a loaded block */
    ROWS = 4,               /* rows computed at once: their accumulators fill the registers */
#if defined(__AVX512F__)
    VECTORS = 4,
#else
    VECTORS = 1,
#endif
};

/* ---- small vector helpers ---- */

INLINE v16 splat(float x)
{
    return (v16){x, x, x, x, x, x, x, x, x, x, x, x, x, x, x, x};
}

INLINE v16 load(const float *p)
{
    return *(const v16 *)p;
}

INLINE void store(float *p, v16 x)
{
    *(v16 *)p = x;
}

INLINE v16 choose(v16i mask, v16 yes, v16 no)
{
    return (v16)(((v16i)yes & mask) | ((v16i)no & ~mask));
}

INLINE v16 load_f16(const ggml_fp16_t *p)
{
#if defined(__AVX512F__)
    return (v16)_mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *)p));
#elif defined(__F16C__)
    float x[LANES];

    _mm256_storeu_ps(x, _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)p)));
    _mm256_storeu_ps(x + 8, _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)(p + 8))));
    return load(x);
#elif defined(__aarch64__)
    float x[LANES];

    for (int i = 0; i < LANES; i += 4)
        vst1q_f32(x + i, vcvt_f32_f16(vreinterpret_f16_u16(vld1_u16(p + i))));
    return load(x);
#else
    float x[LANES];

    for (int i = 0; i < LANES; i++)
        x[i] = ggml_fp16_to_fp32(p[i]);
    return load(x);
#endif
}

INLINE v16 load_i8(const int8_t *p)
{
    typedef int8_t v16b __attribute__((vector_size(16), aligned(1), may_alias));

    return __builtin_convertvector(*(const v16b *)p, v16);
}

INLINE float sum(v16 x)
{
    float a[LANES];

    store(a, x);
    for (int w = LANES / 2; w > 0; w /= 2)
        for (int i = 0; i < w; i++)
            a[i] += a[i + w];
    return a[0];
}

INLINE float largest(v16 x)
{
    float a[LANES];

    store(a, x);
    for (int w = LANES / 2; w > 0; w /= 2)
        for (int i = 0; i < w; i++)
            a[i] = a[i] > a[i + w] ? a[i] : a[i + w];
    return a[0];
}

/* e^x for x <= 0, to about an ulp; exactly 1 at 0 and exactly 0 below -87. x = n ln 2 + r with |r|
 * <= ln 2 / 2, e^r by its Taylor series to r^7 (remainder under 6e-9), 2^n by adding n to the
 * exponent. */
INLINE v16 exp_neg(v16 x)
{
    const v16 shift =
        splat(12582912.0f); /* 1.5 * 2^23: adding it rounds to an integer, left in the low bits */
    v16 n = x * splat(1.44269504f) + shift;
    v16i exponent = (v16i)n << 23;
    v16 r, p;

    n = n - shift;
    r = x - n * splat(0.693145752f);
    r = r - n * splat(1.42860677e-6f);
    p = splat(1.0f / 5040) * r + splat(1.0f / 720);
    p = p * r + splat(1.0f / 120);
    p = p * r + splat(1.0f / 24);
    p = p * r + splat(1.0f / 6);
    p = p * r + splat(0.5f);
    p = p * r + splat(1.0f);
    p = p * r + splat(1.0f);
    return choose(x < splat(-87.0f), splat(0.0f), (v16)((v16i)p + exponent));
}

/* tanh(x): its odd series near 0, where the exponential form would cancel. */
INLINE v16 tanh_vec(v16 x)
{
    v16 a = choose(x < splat(0.0f), -x, x), a2 = a * a;
    v16 t = exp_neg(choose(a > splat(40.0f), splat(-80.0f), a * splat(-2.0f)));
    v16 large = (splat(1.0f) - t) / (splat(1.0f) + t);
    v16 small = splat(62.0f / 2835) * a2 + splat(-17.0f / 315);

    small = small * a2 + splat(2.0f / 15);
    small = small * a2 + splat(-1.0f / 3);
    small = small * a2 + splat(1.0f);
    small = small * a;
    a = choose(a < splat(0.25f), small, large);
    return choose(x < splat(0.0f), -a, a);
}

/* ---- one block of keys and values as f32 ---- */

/* (groups, head_dim, 16): borrowed from an f32 cache, else converted into buf. */
static const float *block_keys(const struct kv *kv, int slot, int head, int pos, int groups,
                               float *buf)
{
    const uint8_t *keys = kv_keys(kv, slot, head);
    size_t dim = (size_t)kv->head_dim, first = (size_t)pos * dim, n = (size_t)groups * dim;

    if (kv->type == KV_F32)
        return (const float *)keys + first;
    if (kv->type == KV_F16) {
        for (size_t i = 0; i < n; i++)
            store(buf + i * LANES, load_f16((const ggml_fp16_t *)keys + first + i * LANES));
        return buf;
    }
    keys += (size_t)(pos / LANES) * (dim / KV_GROUP) * (LANES * (KV_GROUP + 2));
    for (size_t g = 0; g < n / KV_GROUP; g++, keys += LANES * (KV_GROUP + 2)) {
        v16 scale = load_f16((const ggml_fp16_t *)keys);
        const int8_t *quants = (const int8_t *)keys + 2 * LANES;

        for (size_t i = 0; i < KV_GROUP; i++)
            store(buf + (g * KV_GROUP + i) * LANES, load_i8(quants + i * LANES) * scale);
    }
    return buf;
}

/* (n_pos, dim_pad). */
static const float *block_values(const struct kv *kv, int slot, int head, int pos, int n_pos,
                                 float *buf)
{
    const uint8_t *values = kv_values(kv, slot, head);
    size_t first = (size_t)pos * (size_t)kv->dim_pad, n = (size_t)n_pos * (size_t)kv->dim_pad;

    if (kv->type == KV_F32)
        return (const float *)values + first;
    if (kv->type == KV_F16) {
        for (size_t i = 0; i < n; i += LANES)
            store(buf + i, load_f16((const ggml_fp16_t *)values + first + i));
        return buf;
    }
    values += first / KV_GROUP * (KV_GROUP + 2);
    for (size_t g = 0; g < n / KV_GROUP; g++, values += KV_GROUP + 2) {
        ggml_fp16_t half;
        v16 scale;

        memcpy(&half, values, sizeof half);
        scale = splat(ggml_fp16_to_fp32(half));
        for (size_t i = 0; i < KV_GROUP; i += LANES)
            store(buf + g * KV_GROUP + i, load_i8((const int8_t *)values + 2 + i) * scale);
    }
    return buf;
}

/* ---- the two products, over rows x vectors held in registers ---- */

/* s[r][v] = sum over d of q[r][d] * k[v][d]. q: (rows, dim), k: (vectors, dim, 16), s: (rows,
 * BLOCK). */
INLINE void scores(const int rows, const int vectors, const float *q, size_t dim, const float *k,
                   float *s)
{
    v16 acc[ROWS][VECTORS];

    for (int r = 0; r < rows; r++)
        for (int v = 0; v < vectors; v++)
            acc[r][v] = splat(0.0f);
    for (size_t d = 0; d < dim; d++) {
        v16 key[VECTORS];

        for (int v = 0; v < vectors; v++)
            key[v] = load(k + ((size_t)v * dim + d) * LANES);
        for (int r = 0; r < rows; r++) {
            v16 query = splat(q[(size_t)r * dim + d]);

            for (int v = 0; v < vectors; v++)
                acc[r][v] += query * key[v];
        }
    }
    for (int r = 0; r < rows; r++)
        for (int v = 0; v < vectors; v++)
            store(s + r * BLOCK + v * LANES, acc[r][v]);
}

/* acc[r][v] += sum over j of p[r][j] * values[j][v]. p: (rows, BLOCK), values and acc with rows of
 * dim_pad. */
INLINE void weigh(const int rows, const int vectors, const float *p, int n_pos, const float *values,
                  size_t dim_pad, float *out)
{
    v16 acc[ROWS][VECTORS];

    for (int r = 0; r < rows; r++)
        for (int v = 0; v < vectors; v++)
            acc[r][v] = load(out + (size_t)r * dim_pad + v * LANES);
    for (int j = 0; j < n_pos; j++) {
        v16 value[VECTORS];

        for (int v = 0; v < vectors; v++)
            value[v] = load(values + (size_t)j * dim_pad + v * LANES);
        for (int r = 0; r < rows; r++) {
            v16 weight = splat(p[r * BLOCK + j]);

            for (int v = 0; v < vectors; v++)
                acc[r][v] += weight * value[v];
        }
    }
    for (int r = 0; r < rows; r++)
        for (int v = 0; v < vectors; v++)
            store(out + (size_t)r * dim_pad + v * LANES, acc[r][v]);
}

/* The compiler needs the counts as constants to keep the accumulators in registers. */
#define WITH_COUNTS(rows, vectors, fn, ...)                                                        \
    do {                                                                                           \
        if (VECTORS == 4 && (vectors) == 4)                                                        \
            (rows) == ROWS ? fn(ROWS, VECTORS, __VA_ARGS__) : fn(1, VECTORS, __VA_ARGS__);         \
        else if (VECTORS >= 3 && (vectors) == 3)                                                   \
            (rows) == ROWS ? fn(ROWS, 3 % (VECTORS + 1), __VA_ARGS__)                              \
                           : fn(1, 3 % (VECTORS + 1), __VA_ARGS__);                                \
        else if (VECTORS >= 2 && (vectors) == 2)                                                   \
            (rows) == ROWS ? fn(ROWS, 2 % (VECTORS + 1), __VA_ARGS__)                              \
                           : fn(1, 2 % (VECTORS + 1), __VA_ARGS__);                                \
        else                                                                                       \
            (rows) == ROWS ? fn(ROWS, 1, __VA_ARGS__) : fn(1, 1, __VA_ARGS__);                     \
    } while (0)

/* ---- a tile: some rows of one slot, some query heads that share one KV head ---- */

struct tile {
    const struct kv *kv;
    const struct attn_shape *shape;
    int slot, kv_head;
    int head_first, n_heads; /* query heads */
    const int32_t *pos;      /* (n_tokens) */
    int n_tokens;
    int n;            /* rows: n_tokens * n_heads, row = token * n_heads + head */
    float *q;         /* (n, head_dim) */
    float *s;         /* (n, BLOCK) scores, then weights */
    float *acc;       /* (n, dim_pad) */
    float *max, *sum; /* (n), (n, 16) */
    float *slope;     /* (n) */
    float *k, *v;     /* one block */
};

static int dim_pad(int head_dim)
{
    return (head_dim + LANES - 1) / LANES * LANES;
}

size_t attn_scratch_bytes(int head_dim)
{
    size_t dim = (size_t)dim_pad(head_dim);

    return sizeof(float) * (TILE_ROWS * (2 * dim + BLOCK + 1 + LANES + 1) + 2 * BLOCK * dim);
}

static void tile_scratch(struct tile *t, float *scratch)
{
    size_t dim = (size_t)dim_pad(t->shape->head_dim);

    t->k = scratch;
    t->v = t->k + BLOCK * dim;
    t->q = t->v + BLOCK * dim;
    t->acc = t->q + TILE_ROWS * dim;
    t->s = t->acc + TILE_ROWS * dim;
    t->sum = t->s + TILE_ROWS * BLOCK;
    t->max = t->sum + TILE_ROWS * LANES;
    t->slope = t->max + TILE_ROWS;
}

/* ALiBi's slope of a head: a geometric series over the largest power of two heads, its odd
 * half-steps for the rest. */
static float alibi_slope(const struct attn_shape *shape, int head)
{
    int n = 1;

    if (shape->alibi_bias_max <= 0.0f)
        return 0.0f;
    while (n * 2 <= shape->n_heads)
        n *= 2;
    return head < n ? powf(powf(2.0f, -shape->alibi_bias_max / (float)n), (float)(head + 1))
                    : powf(powf(2.0f, -shape->alibi_bias_max / 2.0f / (float)n),
                           (float)(2 * (head - n) + 1));
}

static void tile_begin(struct tile *t, const float *q, size_t q_stride)
{
    size_t dim = (size_t)t->shape->head_dim;

    t->n = t->n_tokens * t->n_heads;
    for (int i = 0; i < t->n; i++) {
        int head = t->head_first + i % t->n_heads;
        const float *row = q + (size_t)(i / t->n_heads) * q_stride + (size_t)head * dim;

        memcpy(t->q + (size_t)i * dim, row, dim * sizeof(float));
        if (t->kv->type == KV_F16) { /* f16 keys meet f16 queries: that is how the field rounds */
            ggml_fp16_t half[HEAD_DIM_MAX];

            ggml_fp32_to_fp16_row(row, half, (int64_t)dim);
            ggml_fp16_to_fp32_row(half, t->q + (size_t)i * dim, (int64_t)dim);
        }
        t->max[i] = -INFINITY;
        t->slope[i] = alibi_slope(t->shape, head);
        store(t->sum + i * LANES, splat(0.0f));
    }
    memset(t->acc, 0, sizeof(float) * (size_t)t->n * (size_t)t->kv->dim_pad);
}

/* Scores of one group of 16 positions as they enter the softmax. */
INLINE v16 adjust(const struct tile *t, int row, int row_pos, int pos, v16 s)
{
    static const v16i iota = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
    v16i distance = row_pos - (pos + iota); /* how far back each position lies */
    v16i hidden = distance < 0;

    s = s * splat(t->shape->scale);
    if (t->shape->cap > 0.0f)
        s = tanh_vec(s / splat(t->shape->cap)) * splat(t->shape->cap);
    if (t->slope[row] != 0.0f)
        s = s - splat(t->slope[row]) * __builtin_convertvector(distance, v16);
    if (t->shape->window > 0)
        hidden |= distance >= t->shape->window;
    return choose(hidden, splat(-INFINITY), s);
}

/* Turns a row's scores of this block into weights and folds them into its running maximum and sum.
 * */
static __attribute__((noinline)) void tile_softmax(struct tile *t, int row, int pos, int groups)
{
    float *s = t->s + row * BLOCK, *acc = t->acc + (size_t)row * (size_t)t->kv->dim_pad, rescale,
          max;
    v16 top = splat(-INFINITY), total = splat(0.0f);

    for (int g = 0; g < groups; g++) {
        v16 x = adjust(t, row, t->pos[row / t->n_heads], pos + g * LANES, load(s + g * LANES));

        store(s + g * LANES, x);
        top = choose(x > top, x, top);
    }
    max = largest(top);
    if (!(max > t->max[row]))
        max = t->max[row];
    if (max ==
        -INFINITY) { /* everything so far lies before this row's window: leave the row untouched */
        memset(s, 0, sizeof(float) * (size_t)groups * LANES);
        return;
    }
    for (int g = 0; g < groups; g++) {
        v16 p = exp_neg(load(s + g * LANES) - splat(max));

        store(s + g * LANES, p);
        total = total + p;
    }
    if (max != t->max[row]) {
        float old[LANES];

        store(old, exp_neg(splat(t->max[row] - max)));
        rescale = old[0];
        store(t->sum + row * LANES, load(t->sum + row * LANES) * splat(rescale));
        for (int d = 0; d < t->kv->dim_pad; d += LANES)
            store(acc + d, load(acc + d) * splat(rescale));
        t->max[row] = max;
    }
    store(t->sum + row * LANES, load(t->sum + row * LANES) + total);
}

static void tile_block(struct tile *t, int pos, int n_pos)
{
    int groups = (n_pos + LANES - 1) / LANES;
    size_t dim = (size_t)t->kv->head_dim, pad = (size_t)t->kv->dim_pad;
    const float *k = block_keys(t->kv, t->slot, t->kv_head, pos, groups, t->k);
    const float *v = block_values(t->kv, t->slot, t->kv_head, pos, n_pos, t->v);

    for (int i = 0, rows; i < t->n; i += rows) {
        rows = t->n - i >= ROWS ? ROWS : 1;
        for (int g = 0, n; g < groups; g += n) {
            n = groups - g < VECTORS ? groups - g : VECTORS;
            WITH_COUNTS(rows, n, scores, t->q + (size_t)i * dim, dim, k + (size_t)g * dim * LANES,
                        t->s + i * BLOCK + g * LANES);
        }
    }
    for (int i = 0; i < t->n; i++)
        tile_softmax(t, i, pos, groups);
    for (int i = 0, rows; i < t->n; i += rows) {
        rows = t->n - i >= ROWS ? ROWS : 1;
        for (size_t d = 0, n; d < pad; d += n * LANES) {
            n = (pad - d) / LANES < VECTORS ? (pad - d) / LANES : VECTORS;
            WITH_COUNTS(rows, n, weigh, t->s + i * BLOCK, n_pos, v + d, pad,
                        t->acc + (size_t)i * pad + d);
        }
    }
}

static void tile_run(struct tile *t, const float *q, size_t q_stride, float *out, size_t out_stride)
{
    int end = t->pos[t->n_tokens - 1] + 1, first = 0;

    tile_begin(t, q, q_stride);
    if (t->shape->window > 0 && t->pos[0] + 1 > t->shape->window)
        first = (t->pos[0] + 1 - t->shape->window) / BLOCK * BLOCK;
    for (int pos = first; pos < end; pos += BLOCK)
        tile_block(t, pos, end - pos < BLOCK ? end - pos : BLOCK);
    for (int i = 0; i < t->n; i++) {
        float *to = out + (size_t)(i / t->n_heads) * out_stride +
                    (size_t)(t->head_first + i % t->n_heads) * (size_t)t->kv->head_dim;
        const float *acc = t->acc + (size_t)i * (size_t)t->kv->dim_pad;
        float inverse = 1.0f / sum(load(t->sum + i * LANES));

        for (int d = 0; d < t->kv->head_dim; d++)
            to[d] = acc[d] * inverse;
    }
}

/* ---- sharing the work ---- */

/* Rows from `from` on that are of one slot, at most max. */
static int run_length(const struct attn_rows *rows, int from, int max)
{
    int n = 1;

    while (n < max && from + n < rows->n && rows->slot[from + n] == rows->slot[from])
        n++;
    return n;
}

void attn_run(const struct kv *kv, const struct attn_shape *shape, const struct attn_rows *rows,
              const float *q, size_t q_stride, float *out, size_t out_stride, int ith, int nth,
              void *scratch)
{
    int per_kv = shape->n_heads / shape->n_kv_heads, parts = 1, tokens, item = 0;
    struct tile t = {.kv = kv, .shape = shape};

    /* A lone decode row has only as many tiles as KV heads; with more threads than that, split its
     * query heads too. */
    if (rows->n * shape->n_kv_heads < nth)
        parts = (nth + shape->n_kv_heads - 1) / shape->n_kv_heads;
    while ((per_kv + parts - 1) / parts > TILE_ROWS)
        parts++;
    if (parts > per_kv)
        parts = per_kv;
    tokens = TILE_ROWS / ((per_kv + parts - 1) / parts);
    tile_scratch(&t, scratch);
    for (int i = 0, n; i < rows->n; i += n) {
        n = run_length(rows, i, tokens);
        for (int h = 0; h < shape->n_kv_heads * parts; h++) {
            int part = h % parts, head = part * per_kv / parts;

            if (item++ % nth != ith)
                continue;
            t.slot = rows->slot[i];
            t.kv_head = h / parts;
            t.head_first = t.kv_head * per_kv + head;
            t.n_heads = (part + 1) * per_kv / parts - head;
            t.pos = rows->pos + i;
            t.n_tokens = n;
            tile_run(&t, q + (size_t)i * q_stride, q_stride, out + (size_t)i * out_stride,
                     out_stride);
        }
    }
}
