#include "model/measure.h"

#include <ggml.h>
#include <string.h>

#include "base/check.h"
#include "base/mem.h"
#include "base/sys.h"
#include "model/compute.h"
#include "model/graph.h"

enum { WIDTH = 2048, RUNS = 9, BLOCK_VALUES = 32, BLOCK_BYTES = 34 };

/* What the numbers are does not matter, as long as none is so small that the CPU takes a detour. */
static void fill(uint8_t *w, size_t bytes)
{
    static const uint8_t scale[2] = {0x00, 0x24}; /* 2^-6 as f16 */
    uint32_t random = 12345;

    for (size_t i = 0; i + BLOCK_BYTES <= bytes; i += BLOCK_BYTES) {
        memcpy(w + i, scale, sizeof scale);
        for (int k = 2; k < BLOCK_BYTES; k += 4) {
            random = random * 1664525 + 1013904223;
            memcpy(w + i + k, &random, 4);
        }
    }
}

/* Least time of one multiplication: what else runs on the machine can only add to it. */
static enum err time_runs(struct compute *c, struct ggml_context *ctx, struct ggml_tensor *y,
                          int64_t *us, struct err_text *et)
{
    struct ggml_cgraph *graph = ggml_new_graph_custom(ctx, 16, false);
    struct ggml_cplan plan;
    int64_t least = INT64_MAX;
    enum err e;

    ggml_build_forward_expand(graph, y);
    e = compute_plan(c, graph, &plan, et);
    for (int i = -1; i < RUNS && !e; i++) { /* the first one wakes the threads */
        int64_t begun = clock_us(), taken;

        e = compute_run(c, graph, &plan, et);
        taken = clock_us() - begun;
        if (i >= 0 && taken < least)
            least = taken > 0 ? taken : 1;
    }
    *us = least;
    return e;
}

enum err model_measure_speed(struct compute *c, size_t bytes, double *bytes_per_second,
                             struct err_text *et)
{
    size_t row_bytes = WIDTH / BLOCK_VALUES * BLOCK_BYTES;
    int64_t n_rows = (int64_t)(bytes / row_bytes), us = 0;
    struct ggml_init_params params = {.mem_size = (1 << 20) + (size_t)n_rows * 8};
    struct ggml_context *ctx;
    struct ggml_tensor *w, *x;
    uint8_t *weights;
    enum err e;

    CHECK(bytes >= MEASURE_BYTES_MIN);
    bytes = (size_t)n_rows * row_bytes;
    /* Of its own pages, so that all of it goes back to the system afterwards. */
    weights = mem_pages(bytes);
    if (!weights)
        return err_set(et, ERR_MEMORY, "no memory for %zu bytes to measure the speed with", bytes);
    fill(weights, bytes);
    ctx = ggml_init(params);
    CHECK(ctx != NULL);
    x = ggml_new_tensor_1d(ctx, GGML_TYPE_F32, WIDTH);
    for (int i = 0; i < WIDTH; i++)
        ((float *)x->data)[i] = (float)(i % 17 - 8) / 8;
    ggml_set_no_alloc(ctx, true);
    w = ggml_new_tensor_2d(ctx, GGML_TYPE_Q8_0, WIDTH, n_rows);
    w->data = weights;
    ggml_set_no_alloc(ctx, false);
    e = time_runs(c, ctx, graph_multiply(ctx, w, x), &us, et);
    if (!e)
        *bytes_per_second = (double)bytes * 1e6 / (double)us;
    ggml_free(ctx);
    mem_pages_free(weights, bytes);
    return e;
}
