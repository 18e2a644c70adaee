/* The Q4_0 kernel: each result to the bit as matmul_q4.h says it is made, whatever the number of
 * rows, threads and joined matrices; and near what ggml makes of the same weights. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include <ggml-cpu.h>
#include <ggml.h>
#include <math.h>

#include "base/check.h"
#include "base/mem.h"
#include "model/matmul_q4.h"
#include "support/rows.h"

enum { BLOCK = 32, Q4_BYTES = 18, Q8_BYTES = 34 };

static float half_at(const uint8_t *p)
{
    uint16_t h;

    memcpy(&h, p, sizeof h);
    return ggml_fp16_to_fp32(h);
}

/* One weight row (Q4_0) times one activation row (Q8_0), both as ggml lays them out. */
static float one(const uint8_t *w, const uint8_t *a, int k)
{
    float acc = 0;

    for (int b = 0; b < k / BLOCK; b++, w += Q4_BYTES, a += Q8_BYTES) {
        const int8_t *quants = (const int8_t *)a + 2;
        int sum = 0;

        for (int i = 0; i < BLOCK / 2; i++)
            sum += ((w[2 + i] & 15) - 8) * quants[i] + ((w[2 + i] >> 4) - 8) * quants[16 + i];
        acc = fmaf(half_at(w) * half_at(a), (float)sum, acc);
    }
    return acc;
}

struct shape {
    int k, n_out, n_rows, n_threads;
};

static void compare(const struct shape *s)
{
    const struct ggml_type_traits_cpu *q4 = ggml_get_type_traits_cpu(GGML_TYPE_Q4_0);
    const struct ggml_type_traits_cpu *q8 = ggml_get_type_traits_cpu(GGML_TYPE_Q8_0);
    size_t k = (size_t)s->k, n_out = (size_t)s->n_out, row = k / BLOCK * Q4_BYTES;
    size_t stride = k + 5, out_stride = n_out + 3;
    uint8_t *rows = rows_aligned(row * n_out), *x8 = rows_aligned(k / BLOCK * Q8_BYTES);
    uint8_t *weights = rows_aligned(matmul_q4_bytes(s->k, s->n_out));
    uint8_t *packed = rows_aligned(matmul_q4_packed_bytes(s->k, s->n_rows));
    float *x = mem_zalloc((size_t)s->n_rows * stride, sizeof *x);
    float *out = mem_zalloc((size_t)s->n_rows * out_stride, sizeof *out);
    uint32_t seed = (uint32_t)(s->k * 31 + s->n_out * 7 + s->n_rows);
    double error = 0, power = 0;

    for (size_t j = 0; j < n_out; j++) {
        for (size_t d = 0; d < k; d++)
            x[d] = rows_noise(&seed);
        x[j % k] = j % 2 ? 3.0f : -3.0f; /* the ends of what four bits hold */
        q4->from_float(x, rows + j * row, s->k);
    }
    /* In two parts, as q and k are joined. */
    matmul_q4_repack(rows, s->k, 16, weights);
    matmul_q4_repack(rows + 16 * row, s->k, s->n_out - 16, weights + matmul_q4_bytes(s->k, 16));
    for (size_t d = 0; d < (size_t)s->n_rows * stride; d++)
        x[d] = rows_noise(&seed) * (float)(1 + d % 7);
    memset(x, 0, k * sizeof *x); /* a row of zeros: its scale is zero */
    for (int t = s->n_threads - 1; t >= 0; t--)
        matmul_q4_pack(x, stride, s->k, s->n_rows, packed, t, s->n_threads);
    for (int t = s->n_threads - 1; t >= 0; t--)
        matmul_q4_run(weights, s->k, s->n_out, packed, s->n_rows, out, out_stride, t, s->n_threads);
    for (size_t i = 0; i < (size_t)s->n_rows; i++) {
        q8->from_float(x + i * stride, x8, s->k);
        for (size_t j = 0; j < n_out; j++) {
            float want = one(rows + j * row, x8, s->k), ggml, got = out[i * out_stride + j];

            assert_memory_equal(&want, &got, sizeof want);
            q4->vec_dot(s->k, &ggml, 0, rows + j * row, 0, x8, 0, 1);
            error += (double)(ggml - got) * (double)(ggml - got);
            power += (double)ggml * (double)ggml;
        }
        assert_true(out[i * out_stride + n_out] == 0.0f); /* not past the row */
    }
    assert_true(s->n_rows == 1 || (power > 0 && error / power < 1e-10)); /* one row: of zeros */
    free(rows);
    free(weights);
    free(x8);
    free(x);
    free(out);
    free(packed);
}

static void every_tile_gives_the_same_bits(void **state)
{
    static const int ks[] = {32, 96, 288, 2080}, outs[] = {32, 48, 208},
                     rows[] = {1, 2, 3, 4, 5, 6, 7, 8, 9, 15, 17};

    (void)state;
    if (!matmul_q4_fits(32, 16)) {
        print_message("no kernel for this CPU: ggml's own runs\n");
        skip();
    }
    assert_false(matmul_q4_fits(40, 16));
    assert_false(matmul_q4_fits(32, 24));
    ggml_cpu_init();
    for (size_t a = 0; a < ARRAY_LEN(ks); a++)
        for (size_t b = 0; b < ARRAY_LEN(outs); b++)
            for (size_t c = 0; c < ARRAY_LEN(rows); c++)
                compare(&(struct shape){ks[a], outs[b], rows[c], 1 + (int)(a + b + c) % 3});
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(every_tile_gives_the_same_bits)};

    return cmocka_run_group_tests(tests, NULL, NULL);
}
