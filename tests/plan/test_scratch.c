/* What segment_needs and place_describe say of a file, against what segments of it really take once
 * opened and run in more shapes than they keep graphs for. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "model/segment.h"
#include "plan/place.h"
#include "support/tiny_model.h"

enum { ROWS = 16, SHAPES = 13 };

static const uint64_t MIB = 1 << 20;
static const struct segment_opts opts = {.n_slots = 2, .n_ctx = 64, .n_rows_max = ROWS};

static void must(enum err e, const struct err_text *et)
{
    if (e)
        fail_msg("%s", et->text);
}

/* n rows at the beginning of slot 0, the first n_wanted of them wanted. */
static void run(const struct model *m, struct segment *s, int n, int n_wanted)
{
    int32_t slot[ROWS] = {0}, pos[ROWS], token[ROWS];
    uint8_t want[ROWS];
    struct batch b = {n, slot, pos, token, want};
    struct tensors in = {.n_rows = n}, out;
    struct edge edges[EDGES_MAX];
    struct err_text et;
    float *zero = calloc((size_t)ROWS * (size_t)model_shape(m)->n_embd, sizeof *zero);

    for (int r = 0; r < n; r++) {
        pos[r] = r;
        token[r] = 3 + r;
        want[r] = r < n_wanted;
    }
    if (segment_first(s) > model_rows_shrink_at(m))
        in.n_rows = n_wanted;
    if (segment_first(s) > 0) {
        in.n = model_edges(m, segment_first(s), edges);
        for (int i = 0; i < in.n; i++) {
            in.width[i] = edges[i].width;
            in.data[i] = zero;
        }
    }
    must(segment_run(s, &b, segment_first(s) ? &in : NULL, &out, &et), &et);
    free(zero);
}

/* Opens modules [first, end) and gives what they take after many shapes. */
static uint64_t taken(const struct model *m, int n_threads, int first, int end,
                      struct segment_needs *needs)
{
    struct compute *compute;
    struct segment *s;
    struct err_text et;
    uint64_t bytes;

    segment_needs(m, first, end, &opts, n_threads, needs);
    must(compute_open(n_threads, &compute, &et), &et);
    must(segment_open(m, compute, first, end, &opts, &s, &et), &et);
    run(m, s, ROWS, ROWS);
    run(m, s, ROWS, ROWS - 1);
    for (int n = 1; n <= SHAPES; n++)
        run(m, s, n, n);
    bytes = segment_scratch_bytes(s);
    assert_true(needs->weight_bytes == segment_weight_bytes(s));
    assert_true(needs->embed_bytes == segment_embed_bytes(s));
    segment_close(s);
    compute_close(compute);
    return bytes;
}

static void check_model(const char *path)
{
    struct place_problem p = {0};
    struct place_module *modules;
    struct segment_needs needs;
    struct model_classes classes;
    struct model *m;
    struct err_text et;
    uint64_t weights = 0;
    int n, cuts[4][2];

    must(model_open(path, &m, &et), &et);
    n = model_n_modules(m);
    modules = calloc((size_t)n, sizeof *modules);
    must(model_classes(m, opts.kv, &classes, &et), &et);
    place_describe(m, &classes, &opts, &p, modules);
    model_classes_fini(&classes);
    assert_int_equal(p.n_modules, n);
    memcpy(cuts, (int[4][2]){{0, n}, {0, n / 2}, {n / 2, n - 1}, {n - 1, n}}, sizeof cuts);
    for (int i = 0; i < 4; i++) {
        int first = cuts[i][0], end = cuts[i][1];
        /* More threads need more; one segment shows it. */
        uint64_t bytes = taken(m, i == 3 ? 2 : 1, first, end, &needs), sum = 0;

        if (needs.scratch_bytes < bytes || needs.scratch_bytes > bytes + bytes / 4 + 2 * MIB)
            fail_msg("%s: modules %d to %d take %.3f MiB to compute, %.3f were said", path, first,
                     end - 1, (double)bytes / (double)MIB,
                     (double)needs.scratch_bytes / (double)MIB);
        for (int k = first; k < end; k++)
            sum += modules[k].weight_bytes;
        if (first == 0 && end == n)
            sum -= p.tied_bytes;
        assert_true(sum >= needs.weight_bytes);
        assert_true(p.scratch_bytes + (end == n ? p.scratch_output_bytes : 0) >= bytes);
    }
    /* One module at a time: the smallest and oddest segments there are. */
    for (int k = 0; k<n; k += n> 8 ? 3 : 1) {
        uint64_t bytes = taken(m, 1, k, k + 1, &needs);

        assert_true(needs.scratch_bytes >= bytes);
        assert_true(p.scratch_bytes >= bytes || k == n - 1);
        assert_true(modules[k].weight_bytes == needs.weight_bytes);
        assert_int_equal(modules[k].kv_bytes > 0, model_module(m, k)->kind == MODULE_ATTN);
        weights += modules[k].weight_bytes;
    }
    assert_true(weights > 0);
    assert_true(modules[0].is_private && modules[1].is_private && modules[n - 1].is_private);
    assert_true(n < 8 || !modules[n / 2].is_private);
    assert_true(p.tied_bytes == 0 || model_shape(m)->tied);
    free(modules);
    model_close(m);
}

static void test_tiny(void **state)
{
    static const enum ggml_type types[] = {GGML_TYPE_F32, GGML_TYPE_Q8_0, GGML_TYPE_Q4_0};

    for (int v = 0; v < TINY_N_VARIANTS; v++) {
        char path[512], name[64];
        enum ggml_type type = types[v % 3];

        snprintf(name, sizeof name, "scratch-%s.gguf", tiny_name((enum tiny_variant)v));
        tiny_path(path, sizeof path, name);
        tiny_write(path, (enum tiny_variant)v, type, 7);
        check_model(path);
    }
}

/* Tied, and repacked where this CPU repacks: then the two ends share nothing. */
static void test_tied(void **state)
{
    static const enum ggml_type types[] = {GGML_TYPE_F32, GGML_TYPE_Q8_0, GGML_TYPE_Q4_0};
    char path[512];

    tiny_path(path, sizeof path, "scratch-tied.gguf");
    for (int i = 0; i < 3; i++) {
        struct place_problem p = {0};
        struct place_module *modules;
        struct segment_needs whole;
        struct model_classes classes;
        struct model *m;
        struct err_text et;
        uint64_t sum = 0;
        int n;

        tiny_write(path, TINY_LLAMA_FREQS, types[i], 7);
        must(model_open(path, &m, &et), &et);
        n = model_n_modules(m);
        modules = calloc((size_t)n, sizeof *modules);
        must(model_classes(m, opts.kv, &classes, &et), &et);
        place_describe(m, &classes, &opts, &p, modules);
        model_classes_fini(&classes);
        segment_needs(m, 0, n, &opts, 1, &whole);
        for (int k = 0; k < n; k++)
            sum += modules[k].weight_bytes;
        if (types[i] == GGML_TYPE_F32)
            assert_true(p.tied_bytes > 0);
        /* The rotary factors are counted with every attn: a few bytes each. */
        assert_in_range(sum - p.tied_bytes, whole.weight_bytes, whole.weight_bytes + 64 * 1024);
        free(modules);
        model_close(m);
    }
}

static void test_default_model(void **state)
{
    const char *dir = getenv("LINGUA_MODELS");
    static const char *const names[] = {"stories15M-q8_0.gguf", "stories15M-f16.gguf"};
    int n = 0;

    if (!dir)
        fail_msg("LINGUA_MODELS must name the folder of the default models");
    for (int i = 0; i < 2; i++) {
        char path[512];
        FILE *f;

        snprintf(path, sizeof path, "%s/%s", dir, names[i]);
        f = fopen(path, "rb");
        if (!f)
            continue;
        fclose(f);
        check_model(path);
        n++;
    }
    assert_true(n > 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_tiny),
        cmocka_unit_test(test_tied),
        cmocka_unit_test(test_default_model),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
