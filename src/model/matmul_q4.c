/* Compiled with the engine's CPU flags. With AVX-512 VNNI a register holds all sixteen weight rows,
 * with AVX2 eight of them; everything else is the same. */
#include "model/matmul_q4.h"

#include <ggml-cpu.h>
#include <ggml.h>
#include <string.h>

#include "base/check.h"

#if defined(__AVX512VNNI__) && defined(__AVX512VL__) && defined(__AVX512BW__)
#define WIDE 1
#elif defined(__AVX2__) && defined(__FMA__) && defined(__F16C__)
#define WIDE 0
#endif

enum {
    BLOCK = 32, /* weights per scale */
    SIDE = 16,  /* weight rows side by side */
    FOURS = 4,  /* of elements, in the low nibbles; as many in the high ones */
};

/* ggml's blocks. */
struct q4 {
    uint16_t scale; /* f16 */
    uint8_t nibbles[BLOCK / 2];
};
struct q8 {
    uint16_t scale;
    int8_t quants[BLOCK];
};
_Static_assert(sizeof(struct q4) == 18 && sizeof(struct q8) == 34, "Q4_0 and Q8_0 of ggml");

/* A block of sixteen rows. Of nibbles[i][r] the low ones are elements 4 i .. 4 i + 3 of row r, the
 * high ones those 16 further on. */
struct side {
    uint16_t scale[SIDE];
    uint8_t nibbles[FOURS][SIDE][4];
};
_Static_assert(sizeof(struct side) == SIDE * sizeof(struct q4), "no byte more than the file has");

size_t matmul_q4_bytes(int64_t k, int64_t n_out)
{
    return (size_t)(k / BLOCK * (n_out / SIDE)) * sizeof(struct side);
}

void matmul_q4_repack(const void *rows, int64_t k, int64_t n_out, void *to)
{
    const struct q4 *from = rows;
    struct side *side = to;
    int64_t n_blocks = k / BLOCK;

    for (int64_t first = 0; first < n_out; first += SIDE)
        for (int64_t b = 0; b < n_blocks; b++, side++)
            for (int r = 0; r < SIDE; r++) {
                const struct q4 *q = &from[(first + r) * n_blocks + b];

                side->scale[r] = q->scale;
                for (int i = 0; i < FOURS; i++)
                    memcpy(side->nibbles[i][r], q->nibbles + 4 * i, 4);
            }
}

#ifdef WIDE
#include <immintrin.h>

enum {
    ROWS = WIDE ? 8 : 4, /* activation rows per tile: their sums stay in registers */
    AHEAD = 16,          /* blocks */
};

/* An activation row's block, as the kernel reads it. */
struct act {
    int8_t quants[BLOCK];
    int32_t start; /* -8 times the sum of them: nibbles are 8 more than weights */
    float scale;
};

bool matmul_q4_fits(int64_t k, int64_t n_out)
{
    return k % BLOCK == 0 && n_out % SIDE == 0;
}

size_t matmul_q4_packed_bytes(int k, int n_rows)
{
    return (size_t)(k / BLOCK) * (size_t)n_rows * sizeof(struct act);
}

static void act_set(struct act *a, const struct q8 *q)
{
    int sum = 0;

    for (int i = 0; i < BLOCK; i++)
        sum += q->quants[i];
    memcpy(a->quants, q->quants, BLOCK);
    a->start = -8 * sum;
    a->scale = ggml_fp16_to_fp32(q->scale);
}

void matmul_q4_pack(const float *x, size_t stride, int k, int n_rows, void *packed, int ith,
                    int nth)
{
    ggml_from_float_t quantize = ggml_get_type_traits_cpu(GGML_TYPE_Q8_0)->from_float;
    size_t n_blocks = (size_t)(k / BLOCK);
    struct q8 piece[64];

    CHECK(k % BLOCK == 0);
    for (int i = ith; i < n_rows; i += nth) {
        struct act *row = (struct act *)packed + (size_t)i * n_blocks;

        for (size_t b = 0; b < n_blocks; b += 64) {
            size_t n = n_blocks - b < 64 ? n_blocks - b : 64;

            quantize(x + (size_t)i * stride + b * BLOCK, piece, (int64_t)(n * BLOCK));
            for (size_t j = 0; j < n; j++)
                act_set(&row[b + j], &piece[j]);
        }
    }
}

/* ---- a block of some weight rows times that of one activation row ---- */

static inline int32_t four(const struct act *a, int i)
{
    int32_t v;

    memcpy(&v, a->quants + 4 * i, sizeof v);
    return v;
}

#if WIDE
typedef __m512 vf;
enum { LANES = 16 };

/* Unpacked once for all activation rows. */
struct weights {
    __m512i low[FOURS], high[FOURS];
    vf scale;
};

static inline __attribute__((always_inline)) void unpack(const struct side *s, int half,
                                                         struct weights *w)
{
    const __m512i mask = _mm512_set1_epi8(0x0f);

    (void)half;
    for (int i = 0; i < FOURS; i++) {
        __m512i both = _mm512_loadu_si512(s->nibbles[i]);

        w->low[i] = _mm512_and_si512(both, mask);
        w->high[i] = _mm512_and_si512(_mm512_srli_epi16(both, 4), mask);
    }
    w->scale = _mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *)(const void *)s->scale));
}

static inline vf dot(const struct weights *w, const struct act *a)
{
    __m512i sum = _mm512_set1_epi32(a->start);

    for (int i = 0; i < FOURS; i++)
        sum = _mm512_dpbusd_epi32(sum, w->low[i], _mm512_set1_epi32(four(a, i)));
    for (int i = 0; i < FOURS; i++)
        sum = _mm512_dpbusd_epi32(sum, w->high[i], _mm512_set1_epi32(four(a, FOURS + i)));
    return _mm512_cvtepi32_ps(sum);
}

#define ZERO()       _mm512_setzero_ps()
#define SPLAT(x)     _mm512_set1_ps(x)
#define MUL(a, b)    _mm512_mul_ps(a, b)
#define FMA(a, b, c) _mm512_fmadd_ps(a, b, c)
#define STORE(p, v)  _mm512_storeu_ps(p, v)
#else
typedef __m256 vf;
enum { LANES = 8 };

struct weights {
    __m256i low[FOURS], high[FOURS];
    vf scale;
};

static inline __attribute__((always_inline)) void unpack(const struct side *s, int half,
                                                         struct weights *w)
{
    const __m256i mask = _mm256_set1_epi8(0x0f);

    for (int i = 0; i < FOURS; i++) {
        const void *at = s->nibbles[i][LANES * half];
        __m256i both = _mm256_loadu_si256((const __m256i *)at);

        w->low[i] = _mm256_and_si256(both, mask);
        w->high[i] = _mm256_and_si256(_mm256_srli_epi16(both, 4), mask);
    }
    w->scale = _mm256_cvtph_ps(
        _mm_loadu_si128((const __m128i *)(const void *)(s->scale + (size_t)LANES * (size_t)half)));
}

/* Sums of pairs stay within 16 bits: 8 times 2 times 15 * 127. */
static inline vf dot(const struct weights *w, const struct act *a)
{
    __m256i pairs = _mm256_setzero_si256();

    for (int i = 0; i < FOURS; i++) {
        pairs =
            _mm256_add_epi16(pairs, _mm256_maddubs_epi16(w->low[i], _mm256_set1_epi32(four(a, i))));
        pairs = _mm256_add_epi16(
            pairs, _mm256_maddubs_epi16(w->high[i], _mm256_set1_epi32(four(a, FOURS + i))));
    }
    return _mm256_cvtepi32_ps(_mm256_add_epi32(_mm256_madd_epi16(pairs, _mm256_set1_epi16(1)),
                                               _mm256_set1_epi32(a->start)));
}

#define ZERO()       _mm256_setzero_ps()
#define SPLAT(x)     _mm256_set1_ps(x)
#define MUL(a, b)    _mm256_mul_ps(a, b)
#define FMA(a, b, c) _mm256_fmadd_ps(a, b, c)
#define STORE(p, v)  _mm256_storeu_ps(p, v)
#endif

/* ---- all of it ---- */

struct job {
    const struct side *weights;
    size_t n_blocks;
    const struct act *packed;
    int n_rows;
    float *out;
    size_t out_stride;
};

/* With several rows to each block the processor's own fetching falls behind. Past the end it does
 * nothing. (Not to be left to the compiler: a function that only prefetches is dropped as having no
 * effect.) */
static inline __attribute__((always_inline)) void fetch_ahead(const struct side *s)
{
    for (size_t i = 0; i < sizeof *s; i += 64)
        _mm_prefetch((const char *)s + i, _MM_HINT_T0);
}

/* LANES weight rows from SIDE * at + LANES * half, times activation rows [r, r + n); n is a
 * constant. */
static inline __attribute__((always_inline)) void tile(const struct job *j, size_t at, int half,
                                                       int r, const int n)
{
    const struct side *side = j->weights + at * j->n_blocks;
    const struct act *row = j->packed + (size_t)r * j->n_blocks;
    float *out = j->out + (size_t)r * j->out_stride + SIDE * at + (size_t)LANES * (size_t)half;
    struct weights w;
    vf acc[ROWS];

    for (int i = 0; i < n; i++)
        acc[i] = ZERO();
    for (size_t b = 0; b < j->n_blocks; b++) {
        fetch_ahead(&side[b + AHEAD]);
        unpack(&side[b], half, &w);
        for (int i = 0; i < n; i++) {
            const struct act *a = &row[(size_t)i * j->n_blocks + b];

            acc[i] = FMA(MUL(w.scale, SPLAT(a->scale)), dot(&w, a), acc[i]);
        }
    }
    for (int i = 0; i < n; i++)
        STORE(out + (size_t)i * j->out_stride, acc[i]);
}

static void tile_rest(const struct job *j, size_t at, int half, int r, int n)
{
    switch (n) {
    case 1:
        tile(j, at, half, r, 1);
        break;
    case 2:
        tile(j, at, half, r, 2);
        break;
    case 3:
        tile(j, at, half, r, 3);
        break;
#if WIDE
    case 4:
        tile(j, at, half, r, 4);
        break;
    case 5:
        tile(j, at, half, r, 5);
        break;
    case 6:
        tile(j, at, half, r, 6);
        break;
    case 7:
        tile(j, at, half, r, 7);
        break;
#endif
    default:
        break;
    }
}

void matmul_q4_run(const void *weights, int k, int n_out, const void *packed, int n_rows,
                   float *out, size_t out_stride, int ith, int nth)
{
    const struct job j = {.weights = weights,
                          .n_blocks = (size_t)(k / BLOCK),
                          .packed = packed,
                          .n_rows = n_rows,
                          .out = out,
                          .out_stride = out_stride};
    size_t n_sides = (size_t)(n_out / SIDE), n = (size_t)nth;
    /* One run of the matrix per thread, so that each reads memory from front to back. */
    size_t first = n_sides * (size_t)ith / n, end = n_sides * (size_t)(ith + 1) / n;

    for (size_t at = first; at < end; at++)
        for (int half = 0; half < SIDE / LANES; half++) {
            int r = 0;

            for (; r + ROWS <= n_rows; r += ROWS)
                tile(&j, at, half, r, ROWS);
            tile_rest(&j, at, half, r, n_rows - r);
        }
}

#else /* no kernel for this CPU */

bool matmul_q4_fits(int64_t k, int64_t n_out)
{
    (void)k, (void)n_out;
    return false;
}

size_t matmul_q4_packed_bytes(int k, int n_rows)
{
    (void)k, (void)n_rows;
    return 0;
}

void matmul_q4_pack(const float *x, size_t stride, int k, int n_rows, void *packed, int ith,
                    int nth)
{
    (void)x, (void)stride, (void)k, (void)n_rows, (void)packed, (void)ith, (void)nth;
    CHECK(!"matmul_q4 on this CPU");
}

void matmul_q4_run(const void *weights, int k, int n_out, const void *packed, int n_rows,
                   float *out, size_t out_stride, int ith, int nth)
{
    (void)weights, (void)k, (void)n_out, (void)packed, (void)n_rows, (void)out, (void)out_stride;
    (void)ith, (void)nth;
    CHECK(!"matmul_q4 on this CPU");
}
#endif
