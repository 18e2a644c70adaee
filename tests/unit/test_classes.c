/* Which modules count as alike, and when two models do. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "model/classes.h"
#include "support/tiny_model.h"

static struct err_text et;

struct classed {
    struct model *model;
    struct model_classes c;
};

static void open_at(struct classed *x, const char *path, enum kv_type kv)
{
    if (model_open(path, &x->model, &et) || model_classes(x->model, kv, &x->c, &et))
        fail_msg("%s", et.text);
    for (int i = 0, n = 0; i < model_n_modules(x->model); i++) {
        assert_in_range(x->c.of[i], 0, n); /* numbered as they come */
        n += x->c.of[i] == n;
    }
    for (int c = 0; c < x->c.n; c++)
        assert_int_equal(x->c.of[x->c.example[c]], c);
    assert_true(x->c.id != 0);
}

static void close_it(struct classed *x)
{
    model_classes_fini(&x->c);
    model_close(x->model);
}

static void tiny(char path[512], enum tiny_variant v, enum ggml_type type)
{
    char name[64];

    snprintf(name, sizeof name, "classes-%s-%d.gguf", tiny_name(v), (int)type);
    tiny_path(path, 512, name);
    tiny_write(path, v, type, 5);
}

static void open_tiny(struct classed *x, enum tiny_variant v, enum ggml_type type, enum kv_type kv)
{
    char path[512];

    tiny(path, v, type);
    open_at(x, path, kv);
}

static void alike_layers_are_four(void **state)
{
    static const enum tiny_variant plain[] = {TINY_LLAMA,    TINY_LLAMA_FREQS, TINY_QWEN2,
                                              TINY_QWEN3MOE, TINY_BLOOM,       TINY_GPTNEOX};
    struct classed x;

    (void)state;
    for (size_t i = 0; i < sizeof plain / sizeof *plain; i++) {
        open_tiny(&x, plain[i], GGML_TYPE_Q8_0, KV_F16);
        assert_int_equal(x.c.n, 4);
        assert_int_equal(x.c.count[0] + x.c.count[3], 2);
        assert_int_equal(x.c.count[1], model_shape(x.model)->n_layers);
        assert_int_equal(x.c.count[2], model_shape(x.model)->n_layers);
        assert_int_equal(x.c.of[model_n_modules(x.model) - 1], 3);
        close_it(&x);
    }
}

/* A window makes an attention of its own kind. */
static void windows_are_a_class(void **state)
{
    char text[CLASS_TEXT_MAX];
    struct classed x;
    int windowed = 0;

    (void)state;
    open_tiny(&x, TINY_GEMMA3, GGML_TYPE_Q8_0, KV_F16);
    assert_int_equal(x.c.n, 5);
    for (int c = 0; c < x.c.n; c++) {
        model_class_text(x.model, x.c.example[c], text);
        windowed += strstr(text, "window") != NULL;
    }
    assert_int_equal(windowed, 1);
    close_it(&x);
}

/* As quantisers mix types: some layers' ffn_down in more bits than the others'. */
static void mixes_are_told_apart(void **state)
{
    const struct tiny_edit edits[] = {
        {TINY_RETYPE_TENSOR, "blk.1.ffn_down.weight", .num = GGML_TYPE_Q6_K},
        {TINY_RETYPE_TENSOR, "blk.1.attn_v.weight", .num = GGML_TYPE_Q6_K},
    };
    char path[512], mixed[512], text[CLASS_TEXT_MAX];
    struct classed x, y;

    (void)state;
    tiny(path, TINY_LLAMA, GGML_TYPE_Q4_K);
    tiny_path(mixed, sizeof mixed, "classes-mixed.gguf");
    tiny_edit(path, mixed, edits, 2);
    open_at(&x, path, KV_F16);
    open_at(&y, mixed, KV_F16);
    assert_int_equal(x.c.n, 4);
    assert_int_equal(y.c.n, 6);
    assert_int_equal(y.c.of[1], y.c.of[5]); /* attn.0 and attn.2, around the odd one */
    assert_int_not_equal(y.c.of[1], y.c.of[3]);
    assert_int_not_equal(y.c.of[2], y.c.of[4]);
    assert_true(x.c.id != y.c.id);
    model_class_text(y.model, 2, text);
    assert_string_equal(text, "ffn q4_K 256x512");
    model_class_text(y.model, 4, text);
    assert_string_equal(text, "ffn q4_K+q6_K 256x512");
    model_class_text(y.model, 0, text);
    assert_string_equal(text, "embed q4_K 256x320");
    close_it(&x);
    close_it(&y);
}

static uint64_t id_of(enum tiny_variant v, enum ggml_type type, enum kv_type kv)
{
    struct classed x;
    uint64_t id;

    open_tiny(&x, v, type, kv);
    id = x.c.id;
    close_it(&x);
    return id;
}

static void ids_say_what_costs_the_same(void **state)
{
    uint64_t id = id_of(TINY_LLAMA, GGML_TYPE_Q8_0, KV_F16), longer;
    char path[512];
    struct classed x;

    (void)state;
    assert_true(id == id_of(TINY_LLAMA, GGML_TYPE_Q8_0, KV_F16));
    assert_true(id != id_of(TINY_LLAMA, GGML_TYPE_Q8_0, KV_Q8_0));
    assert_true(id != id_of(TINY_LLAMA, GGML_TYPE_F32, KV_F16));
    assert_true(id != id_of(TINY_LLAMA_FREQS, GGML_TYPE_Q8_0, KV_F16));
    assert_true(id_of(TINY_GPTNEOX, GGML_TYPE_F32, KV_F16) !=
                id_of(TINY_GPTNEOX_SEQ, GGML_TYPE_F32, KV_F16));
    /* More of the same layers, and other weights, cost the same each. */
    tiny_path(path, sizeof path, "classes-longer.gguf");
    tiny_write_layers(path, TINY_LLAMA, GGML_TYPE_Q8_0, 6, 5);
    open_at(&x, path, KV_F16);
    longer = x.c.id;
    close_it(&x);
    assert_true(id == longer);
}

static void experts_are_named(void **state)
{
    char text[CLASS_TEXT_MAX];
    struct classed x;

    (void)state;
    open_tiny(&x, TINY_MIXTRAL, GGML_TYPE_Q8_0, KV_F16);
    model_class_text(x.model, 2, text);
    assert_non_null(strstr(text, " of 8 experts"));
    assert_int_equal(strncmp(text, "ffn ", 4), 0);
    close_it(&x);
}

enum { ODD_LAYERS = 64, ODD = 3 * ODD_LAYERS };

/* 4 x 4 x 4 mixes of the FFN's three types: with attn and the ends more than there may be. */
static void too_many_are_refused(void **state)
{
    static const enum ggml_type types[] = {GGML_TYPE_Q4_0, GGML_TYPE_Q8_0, GGML_TYPE_F16,
                                           GGML_TYPE_F32};
    static const char *const stems[] = {"gate", "up", "down"};
    struct tiny_edit edits[ODD];
    char names[ODD][40], path[512], odd[512];
    struct model_classes c;
    struct model *m;

    (void)state;
    for (int i = 0; i < ODD; i++) {
        int layer = i / 3, which = i % 3;

        snprintf(names[i], sizeof names[i], "blk.%d.ffn_%s.weight", layer, stems[which]);
        edits[i] = (struct tiny_edit){TINY_RETYPE_TENSOR, names[i],
                                      .num = types[layer >> (2 * which) & 3]};
    }
    tiny_path(path, sizeof path, "classes-many.gguf");
    tiny_path(odd, sizeof odd, "classes-odd.gguf");
    tiny_write_layers(path, TINY_LLAMA, GGML_TYPE_Q4_0, 5, ODD_LAYERS);
    tiny_edit(path, odd, edits, ODD);
    assert_int_equal(model_open(odd, &m, &et), ERR_NONE);
    assert_int_equal(model_classes(m, KV_F16, &c, &et), ERR_UNSUPPORTED);
    assert_non_null(strstr(et.text, "64"));
    model_close(m);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(alike_layers_are_four), cmocka_unit_test(windows_are_a_class),
        cmocka_unit_test(mixes_are_told_apart),  cmocka_unit_test(ids_say_what_costs_the_same),
        cmocka_unit_test(experts_are_named),     cmocka_unit_test(too_many_are_refused),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
