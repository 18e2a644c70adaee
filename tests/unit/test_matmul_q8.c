/* The Q8_0 kernel against ggml's own: every shape of tile, to the bit. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include <ggml-cpu.h>
#include <ggml.h>

#include "base/check.h"
#include "base/mem.h"
#include "model/matmul_q8.h"
#include "support/rows.h"

struct shape {
    int k, n_out, n_rows, n_threads;
};

static void compare(const struct shape *s)
{
    const struct ggml_type_traits_cpu *ggml = ggml_get_type_traits_cpu(GGML_TYPE_Q8_0);
    size_t row = ggml_row_size(GGML_TYPE_Q8_0, s->k), k = (size_t)s->k, stride = k + 5;
    uint8_t *weights = rows_aligned(row * (size_t)s->n_out), *x8 = rows_aligned(row);
    float *x = mem_zalloc((size_t)s->n_rows * stride, sizeof *x);
    size_t out_stride = (size_t)s->n_out + 3;
    float *out = mem_zalloc((size_t)s->n_rows * out_stride, sizeof *out);
    uint8_t *packed = rows_aligned(matmul_q8_packed_bytes(s->k, s->n_rows));
    uint32_t seed = (uint32_t)(s->k * 31 + s->n_out * 7 + s->n_rows);

    for (int j = 0; j < s->n_out; j++) {
        for (size_t d = 0; d < k; d++)
            x[d] = rows_noise(&seed);
        /* The extremes of int8 must survive the trick with the signs. */
        x[0] = j % 2 ? 1.0f : -1.0f;
        ggml->from_float(x, weights + (size_t)j * row, s->k);
    }
    for (size_t d = 0; d < (size_t)s->n_rows * stride; d++)
        x[d] = rows_noise(&seed) * (float)(1 + d % 7);
    memset(x, 0, k * sizeof *x); /* a row of zeros: its scale is zero */
    for (int t = s->n_threads - 1; t >= 0; t--)
        matmul_q8_pack(x, stride, s->k, s->n_rows, packed, t, s->n_threads);
    for (int t = s->n_threads - 1; t >= 0; t--)
        matmul_q8_run(weights, s->k, s->n_out, packed, s->n_rows, out, out_stride, t, s->n_threads);
    for (int i = 0; i < s->n_rows; i++) {
        ggml->from_float(x + (size_t)i * stride, x8, s->k);
        for (int j = 0; j < s->n_out; j++) {
            float want;

            ggml->vec_dot(s->k, &want, 0, weights + (size_t)j * row, 0, x8, 0, 1);
            assert_memory_equal(&want, out + (size_t)i * out_stride + j, sizeof want);
        }
        assert_true(out[(size_t)i * out_stride + (size_t)s->n_out] == 0.0f); /* not past the row */
    }
    free(weights);
    free(x8);
    free(x);
    free(out);
    free(packed);
}

static void every_tile_gives_ggmls_bits(void **state)
{
    static const int ks[] = {32, 96, 288, 2080}, outs[] = {1, 3, 4, 67, 130},
                     rows[] = {1, 2, 3, 7, 8, 9, 17};

    (void)state;
    if (!matmul_q8_available()) {
        print_message("no kernel for this CPU: ggml's own runs\n");
        skip();
    }
    ggml_cpu_init();
    for (size_t a = 0; a < ARRAY_LEN(ks); a++)
        for (size_t b = 0; b < ARRAY_LEN(outs); b++)
            for (size_t c = 0; c < ARRAY_LEN(rows); c++)
                compare(&(struct shape){ks[a], outs[b], rows[c], 1 + (int)(a + b + c) % 3});
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(every_tile_gives_ggmls_bits)};

    return cmocka_run_group_tests(tests, NULL, NULL);
}
