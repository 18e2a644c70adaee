/* Embeddings as numbers: pooling, rows that come in pieces or twice, length, base64. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "api/vector.h"
#include "base/mem.h"

enum { WIDTH = 4, N = 5 };

static const float rows[N][WIDTH] = {
    {1, 2, 3, 4}, {0, 1, 0, -1}, {5, 5, 5, 5}, {-1, 0, 2, 2}, {3, 0, 0, 4},
};

/* All rows that are wanted, `piece` at a time, each piece's first once more before it. */
static void feed(struct vector *v, int piece)
{
    for (int pos = vector_want_from(v); pos < N; pos += piece) {
        int n = N - pos < piece ? N - pos : piece;

        vector_rows(v, rows[pos], pos, 1, WIDTH);
        vector_rows(v, rows[pos], pos, n, WIDTH);
    }
}

static void expect(const struct vector *v, const double wanted[WIDTH])
{
    for (int i = 0; i < WIDTH; i++)
        assert_true(fabs(v->sum[i] - wanted[i]) < 1e-12);
}

static void test_pooling(void **state)
{
    static const double mean[WIDTH] = {8 / 5.0, 8 / 5.0, 10 / 5.0, 14 / 5.0};
    static const double first[WIDTH] = {1, 2, 3, 4}, last[WIDTH] = {3, 0, 0, 4};
    const struct {
        enum pooling pooling;
        const double *wanted;
        int from;
    } all[] = {{POOLING_MEAN, mean, 0}, {POOLING_CLS, first, 0}, {POOLING_LAST, last, N - 1}};

    for (size_t i = 0; i < ARRAY_LEN(all); i++)
        for (int piece = 1; piece <= N; piece++) {
            struct vector v;

            vector_init(&v, all[i].pooling, N);
            assert_int_equal(vector_want_from(&v), all[i].from);
            feed(&v, piece);
            assert_true(vector_settle(&v, false));
            expect(&v, all[i].wanted);
            vector_fini(&v);
        }
}

static void test_length(void **state)
{
    static const double unit[WIDTH] = {0.6, 0, 0, 0.8}, zero[WIDTH] = {0};
    static const float nothing[WIDTH] = {0}, broken[WIDTH] = {0, NAN, 0, 0};
    struct vector v;

    vector_init(&v, POOLING_LAST, N);
    feed(&v, 1);
    assert_true(vector_settle(&v, true));
    expect(&v, unit);
    vector_fini(&v);

    vector_init(&v, POOLING_MEAN, 1);
    vector_rows(&v, nothing, 0, 1, WIDTH);
    assert_true(vector_settle(&v, true));
    expect(&v, zero);
    vector_fini(&v);

    vector_init(&v, POOLING_MEAN, 1);
    vector_rows(&v, broken, 0, 1, WIDTH);
    assert_false(vector_settle(&v, true));
    vector_fini(&v);
}

static void test_written(void **state)
{
    static const float row[3] = {1, -2, 0.1f};
    struct vector v;
    json_t *o;

    vector_init(&v, POOLING_LAST, 1);
    vector_rows(&v, row, 0, 1, 3);
    assert_true(vector_settle(&v, false));
    o = vector_json(&v);
    assert_int_equal(json_array_size(o), 3);
    for (size_t i = 0; i < 3; i++)
        assert_true((float)json_real_value(json_array_get(o, i)) == row[i]);
    json_decref(o);
    /* 3f800000 c0000000 3dcccccd, each from its low byte on. */
    o = vector_base64(&v);
    assert_string_equal(json_string_value(o), "AACAPwAAAMDNzMw9");
    json_decref(o);
    vector_fini(&v);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_pooling),
        cmocka_unit_test(test_length),
        cmocka_unit_test(test_written),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
