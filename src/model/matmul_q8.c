/* Compiled with the engine's CPU flags. Two widths: with AVX-512 VNNI a register holds the same
 * block of two activation rows, with AVX2 that of one; everything else is the same.
 *
 * A packed group holds ROWS_PER_GROUP activation rows: first their quants, a register per block of
 * 32, then their scales, f32, one per row and block. With AVX-512 quants carry 128 more than they
 * are, because VNNI multiplies unsigned by signed; the kernel starts each sum at -128 times the
 * weights' own sum, which takes it out again, exact in integers. */
#include "model/matmul_q8.h"

#include <ggml-cpu.h>
#include <ggml.h>
#include <stdint.h>
#include <string.h>

#include "base/check.h"

#if defined(__AVX512VNNI__) && defined(__AVX512VL__) && defined(__AVX512DQ__)
#define WIDE 1
#elif defined(__AVX2__) && defined(__FMA__)
#define WIDE 0
#endif

#ifdef WIDE
#include <immintrin.h>

enum {
    BLOCK = 32, /* weights per scale */
    LANES = 8,  /* running sums per row */
    ROWS_PER_GROUP = WIDE ? 2 : 1,
    REGISTER = WIDE ? 64 : 32, /* bytes */
    WEIGHT_ROWS = 4,           /* weight rows and groups per tile: their sums fill the registers */
    GROUPS = WIDE ? 4 : 2,
    STRIPE = 64, /* weight rows that stay in the cache while all groups pass */
};

struct block {
    uint16_t scale; /* f16 */
    int8_t quants[BLOCK];
};
_Static_assert(sizeof(struct block) == 34, "ggml's Q8_0 block");

#if WIDE
typedef __m512 vf;
typedef __m512i vi;

/* Both halves the same block: it meets two activation rows. */
static inline vi weight_load(const int8_t *q)
{
    return _mm512_broadcast_i64x4(_mm256_loadu_si256((const __m256i *)q));
}

static inline vi weight_start(vi w)
{
    vi sums = _mm512_dpbusd_epi32(_mm512_setzero_si512(), _mm512_set1_epi8((char)0x80), w);

    return _mm512_sub_epi32(_mm512_setzero_si512(), sums);
}

static inline vf dot(vi w, vi start, vi a)
{
    return _mm512_cvtepi32_ps(_mm512_dpbusd_epi32(start, a, w));
}

static inline vi quants_load(const uint8_t *q)
{
    return _mm512_load_si512(q);
}

/* Eight times the first row's scale, eight times the second's. */
static inline vf scales_load(const float *s)
{
    const __m512i which = _mm512_setr_epi32(0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 1, 1, 1);

    return _mm512_permutevar_ps(_mm512_castpd_ps(_mm512_set1_pd(*(const double *)(const void *)s)),
                                which);
}

#define ZERO()       _mm512_setzero_ps()
#define SPLAT(x)     _mm512_set1_ps(x)
#define MUL(a, b)    _mm512_mul_ps(a, b)
#define FMA(a, b, c) _mm512_fmadd_ps(a, b, c)
#define ROW(v, i)    ((i) ? _mm512_extractf32x8_ps(v, 1) : _mm512_castps512_ps256(v))
#else
typedef __m256 vf;
typedef __m256i vi;

static inline vi weight_load(const int8_t *q)
{
    return _mm256_loadu_si256((const __m256i *)q);
}

/* Unsigned weights for the multiplication; their signs go to the activations. */
static inline vi weight_start(vi w)
{
    return _mm256_sign_epi8(w, w);
}

static inline vf dot(vi w, vi start, vi a)
{
    vi pairs = _mm256_maddubs_epi16(start, _mm256_sign_epi8(a, w));

    return _mm256_cvtepi32_ps(_mm256_madd_epi16(pairs, _mm256_set1_epi16(1)));
}

static inline vi quants_load(const uint8_t *q)
{
    return _mm256_load_si256((const __m256i *)q);
}

static inline vf scales_load(const float *s)
{
    return _mm256_broadcast_ss(s);
}

#define ZERO()       _mm256_setzero_ps()
#define SPLAT(x)     _mm256_set1_ps(x)
#define MUL(a, b)    _mm256_mul_ps(a, b)
#define FMA(a, b, c) _mm256_fmadd_ps(a, b, c)
#define ROW(v, i)    (v)
#endif

/* The order in which ggml adds up its eight running sums. */
static inline float sum8(__m256 x)
{
    __m128 s = _mm_add_ps(_mm256_extractf128_ps(x, 1), _mm256_castps256_ps128(x));

    s = _mm_add_ps(s, _mm_movehl_ps(s, s));
    return _mm_cvtss_f32(_mm_add_ss(s, _mm_movehdup_ps(s)));
}

static int n_groups(int n_rows)
{
    return (n_rows + ROWS_PER_GROUP - 1) / ROWS_PER_GROUP;
}

bool matmul_q8_available(void)
{
    return true;
}

/* Quants, then scales, up to a whole register. */
static size_t group_bytes(size_t n_blocks)
{
    size_t bytes = n_blocks * (REGISTER + ROWS_PER_GROUP * sizeof(float));

    return (bytes + REGISTER - 1) / REGISTER * REGISTER;
}

size_t matmul_q8_packed_bytes(int k, int n_rows)
{
    return (size_t)n_groups(n_rows) * group_bytes((size_t)(k / BLOCK));
}

/* Puts quantised block i of row r of a group where the kernel wants it. */
static void place(const struct block *b, int r, size_t i, uint8_t *group, size_t n_blocks)
{
    float *scales = (float *)(void *)(group + n_blocks * REGISTER);
    uint8_t *quants = group + i * REGISTER + (size_t)r * BLOCK;

    scales[i * ROWS_PER_GROUP + (size_t)r] = ggml_fp16_to_fp32(b->scale);
    for (int q = 0; q < BLOCK; q++)
        quants[q] = (uint8_t)(b->quants[q] + (WIDE ? 128 : 0));
}

void matmul_q8_pack(const float *x, size_t stride, int k, int n_rows, void *packed, int ith,
                    int nth)
{
    ggml_from_float_t quantize = ggml_get_type_traits_cpu(GGML_TYPE_Q8_0)->from_float;
    size_t n_blocks = (size_t)(k / BLOCK);
    struct block piece[64];

    CHECK(k % BLOCK == 0);
    for (int i = ith; i < n_groups(n_rows) * ROWS_PER_GROUP; i += nth) {
        uint8_t *group = (uint8_t *)packed + (size_t)(i / ROWS_PER_GROUP) * group_bytes(n_blocks);

        for (size_t b = 0; b < n_blocks; b += 64) {
            size_t n = n_blocks - b < 64 ? n_blocks - b : 64;

            if (i < n_rows)
                quantize(x + (size_t)i * stride + b * BLOCK, piece, (int64_t)(n * BLOCK));
            else
                memset(piece, 0, sizeof piece); /* the odd row's companion */
            for (size_t j = 0; j < n; j++)
                place(&piece[j], i % ROWS_PER_GROUP, b + j, group, n_blocks);
        }
    }
}

struct job {
    const struct block *weights;
    size_t n_blocks;
    const uint8_t *packed;
    int n_rows;
    float *out;
    size_t out_stride;
};

/* Weight rows [w, w + n_w) times groups [g, g + n_g); the counts are constants where it matters. */
static inline __attribute__((always_inline)) void tile(const struct job *j, int w, const int n_w,
                                                       int g, const int n_g)
{
    const struct block *row[WEIGHT_ROWS];
    const uint8_t *quants[GROUPS];
    const float *scales[GROUPS];
    vf acc[WEIGHT_ROWS][GROUPS];

    for (int a = 0; a < n_w; a++) {
        row[a] = j->weights + (size_t)(w + a) * j->n_blocks;
        for (int b = 0; b < n_g; b++)
            acc[a][b] = ZERO();
    }
    for (int b = 0; b < n_g; b++) {
        quants[b] = j->packed + (size_t)(g + b) * group_bytes(j->n_blocks);
        scales[b] = (const float *)(const void *)(quants[b] + j->n_blocks * REGISTER);
    }
    for (size_t i = 0; i < j->n_blocks; i++) {
        vi q[GROUPS];
        vf s[GROUPS];

        for (int b = 0; b < n_g; b++) {
            q[b] = quants_load(quants[b] + i * REGISTER);
            s[b] = scales_load(scales[b] + i * ROWS_PER_GROUP);
        }
        for (int a = 0; a < n_w; a++) {
            /* A few short rows side by side are no stream a prefetcher would follow: fetch what
             * the next tile will read at this place. Past the end it does nothing. */
            _mm_prefetch((const char *)&row[a][i + (size_t)WEIGHT_ROWS * j->n_blocks], _MM_HINT_T0);
            vi weight = weight_load(row[a][i].quants), start = weight_start(weight);
            vf scale = SPLAT(_mm_cvtss_f32(_mm_cvtph_ps(_mm_cvtsi32_si128(row[a][i].scale))));

            for (int b = 0; b < n_g; b++)
                acc[a][b] = FMA(MUL(scale, s[b]), dot(weight, start, q[b]), acc[a][b]);
        }
    }
    for (int b = 0; b < n_g; b++)
        for (int r = 0; r < ROWS_PER_GROUP && (g + b) * ROWS_PER_GROUP + r < j->n_rows; r++)
            for (int a = 0; a < n_w; a++)
                j->out[(size_t)((g + b) * ROWS_PER_GROUP + r) * j->out_stride + (size_t)(w + a)] =
                    sum8(ROW(acc[a][b], r));
}

static void stripe(const struct job *j, int first, int end, int groups)
{
    for (int g = 0, n_g; g < groups; g += n_g) {
        n_g = groups - g >= GROUPS ? GROUPS : 1;
        for (int w = first, n_w; w < end; w += n_w) {
            n_w = end - w >= WEIGHT_ROWS ? WEIGHT_ROWS : 1;
            if (n_w == WEIGHT_ROWS && n_g == GROUPS)
                tile(j, w, WEIGHT_ROWS, g, GROUPS);
            else if (n_w == WEIGHT_ROWS)
                tile(j, w, WEIGHT_ROWS, g, 1);
            else if (n_g == GROUPS)
                tile(j, w, 1, g, GROUPS);
            else
                tile(j, w, 1, g, 1);
        }
    }
}

void matmul_q8_run(const void *weights, int k, int n_out, const void *packed, int n_rows,
                   float *out, size_t out_stride, int ith, int nth)
{
    struct job j = {.weights = weights,
                    .n_blocks = (size_t)(k / BLOCK),
                    .packed = packed,
                    .n_rows = n_rows,
                    .out = out,
                    .out_stride = out_stride};

    for (int first = ith * STRIPE; first < n_out; first += nth * STRIPE)
        stripe(&j, first, first + STRIPE < n_out ? first + STRIPE : n_out, n_groups(n_rows));
}

#else /* no kernel for this CPU */

bool matmul_q8_available(void)
{
    return false;
}

size_t matmul_q8_packed_bytes(int k, int n_rows)
{
    (void)k;
    (void)n_rows;
    return 0;
}

void matmul_q8_pack(const float *x, size_t stride, int k, int n_rows, void *packed, int ith,
                    int nth)
{
    (void)x, (void)stride, (void)k, (void)n_rows, (void)packed, (void)ith, (void)nth;
    CHECK(!"matmul_q8 on this CPU");
}

void matmul_q8_run(const void *weights, int k, int n_out, const void *packed, int n_rows,
                   float *out, size_t out_stride, int ith, int nth)
{
    (void)weights, (void)k, (void)n_out, (void)packed, (void)n_rows, (void)out, (void)out_stride;
    (void)ith, (void)nth;
    CHECK(!"matmul_q8 on this CPU");
}
#endif
