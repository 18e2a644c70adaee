/* Damaged models: whatever a file leaves out, bends or exaggerates, opening it gives one sentence
 * that names the file and the tensor or key, and never an abort. The reader's own bounds (truncated
 * files, overlapping tensors) are tested beside the reader. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/mem.h"
#include "golden_opts.h"
#include "model/model.h"
#include "model/modelfile.h"
#include "support/tiny_model.h"

struct fixture {
    enum tiny_variant v;
    char good[256], bad[256];
};

static void fixture_open(struct fixture *f, enum tiny_variant v)
{
    char name[96];

    f->v = v;
    snprintf(name, sizeof(name), "bad-%s-good.gguf", tiny_name(v));
    tiny_path(f->good, sizeof(f->good), name);
    snprintf(name, sizeof(name), "bad-%s-damaged.gguf", tiny_name(v));
    tiny_path(f->bad, sizeof(f->bad), name);
    tiny_write(f->good, v, GGML_TYPE_Q4_0, 3);
}

static void fixture_close(struct fixture *f)
{
    unlink(f->good);
    unlink(f->bad);
}

static enum err open_edited(struct fixture *f, const struct tiny_edit *edit, struct err_text *et)
{
    struct model *m = NULL;
    enum err e;

    tiny_edit(f->good, f->bad, edit, 1);
    et->text[0] = 0;
    e = model_open(f->bad, &m, et);
    if (e == ERR_NONE)
        model_close(m);
    return e;
}

/* One line, nothing in it that could steer a terminal. */
static bool is_one_line(const char *s)
{
    for (; *s; s++)
        if ((unsigned char)*s < 0x20 || *s == 0x7f)
            return false;
    return true;
}

/* What a message says behind the file's name, which may hold the word that is looked for. */
static const char *behind_path(const struct fixture *f, const char *text)
{
    const char *at = strstr(text, f->bad);

    return at ? at + strlen(f->bad) : text;
}

/* The edit must be refused with a sentence naming the file and, unless NULL, `name`. */
static void must_refuse(struct fixture *f, const struct tiny_edit *edit, const char *name,
                        const char *what)
{
    struct err_text et;
    enum err e = open_edited(f, edit, &et);

    if (e == ERR_NONE)
        fail_msg("%s: %s: %s: opened as if nothing were wrong", tiny_name(f->v), edit->name, what);
    if (e != ERR_INPUT && e != ERR_UNSUPPORTED && e != ERR_LIMIT)
        fail_msg("%s: %s: %s: error %d is no input error: %s", tiny_name(f->v), edit->name, what, e,
                 et.text);
    if (!strstr(et.text, f->bad) || (name && !strstr(behind_path(f, et.text), name)) ||
        !is_one_line(et.text))
        fail_msg("%s: %s: %s: the message does not say what is wrong: %s", tiny_name(f->v),
                 edit->name, what, et.text);
}

/* Tensors whose absence means something else, and is no damage. */
static bool is_optional(enum tiny_variant v, const char *name)
{
    const char *arch = tiny_arch(v);
    bool rms = strcmp(arch, "gpt2") && strcmp(arch, "bloom") && strcmp(arch, "gptneox");

    if (!strncmp(name, "rope_", 5))
        return true;
    if (!strcmp(name, "output.weight"))
        return v != TINY_GPTNEOX && v != TINY_GPTNEOX_SEQ;
    return rms && strstr(name, ".bias") != NULL;
}

/* Of layers, the first and the last stand for all. */
static bool is_sampled(const char *name, int n_layers)
{
    int layer;

    return sscanf(name, "blk.%d.", &layer) != 1 || layer == 0 || layer == n_layers - 1;
}

static void damage_tensor(struct fixture *f, const struct mf_tensor *t)
{
    bool vector = t->n_dims == 1, embed = !strcmp(t->name, "token_embd.weight");
    struct tiny_edit edit = {.kind = TINY_DROP_TENSOR, .name = t->name};
    struct err_text et;

    if (!is_optional(f->v, t->name))
        /* Without a fused tensor the separate ones are looked for, and missed. */
        must_refuse(f, &edit, strstr(t->name, "attn_qkv.weight") ? ".attn_q" : t->name, "dropped");
    else if (open_edited(f, &edit, &et) != ERR_NONE && !strstr(et.text, f->bad))
        fail_msg("%s dropped: %s", t->name, et.text);
    edit.kind = TINY_RESHAPE_TENSOR;
    /* A longer embedding is a larger vocabulary, at odds with the head's or the tokenizer's. */
    must_refuse(f, &edit, embed ? NULL : t->name, "one row more");
    edit.kind = TINY_RETYPE_TENSOR;
    edit.num = vector ? GGML_TYPE_F16 : GGML_TYPE_I32;
    must_refuse(f, &edit, t->name, "of the wrong type");
    if (!is_optional(f->v, t->name)) {
        edit.kind = TINY_RENAME_TENSOR;
        edit.str = "blk.0.mystery.weight";
        must_refuse(f, &edit, strstr(t->name, "attn_qkv.weight") ? ".attn_q" : t->name, "renamed");
    }
}

static void damaged_tensors_are_refused(void **state)
{
    struct fixture f;
    struct model *m;
    struct err_text et = {{0}};

    fixture_open(&f, (enum tiny_variant)(intptr_t)*state);
    if (model_open(f.good, &m, &et) != ERR_NONE)
        fail_msg("the good file: %s", et.text);
    for (int i = 0; i < modelfile_n_tensors(model_file(m)); i++) {
        const struct mf_tensor *t = modelfile_tensor(model_file(m), i);

        if (is_sampled(t->name, model_shape(m)->n_layers))
            damage_tensor(&f, t);
    }
    model_close(m);
    fixture_close(&f);
}

#define BILLION 1000000000u

/* Keys below "<arch>."; those a family does not have are skipped when `only_present`. */
static const struct key_damage {
    struct tiny_edit edit;
    bool only_present;
} key_damages[] = {
    {{TINY_DROP_KEY, "block_count", 0, 0, NULL}, false},
    {{TINY_SET_U32, "block_count", 0, 0, NULL}, false},
    {{TINY_SET_U32, "block_count", 1, 0, NULL}, false},
    {{TINY_SET_U32, "block_count", 9, 0, NULL}, false},
    {{TINY_SET_U32, "block_count", BILLION, 0, NULL}, false},
    {{TINY_SET_U32, "block_count", UINT32_MAX, 0, NULL}, false},
    {{TINY_SET_STR, "block_count", 0, 0, "three"}, false},
    {{TINY_DROP_KEY, "embedding_length", 0, 0, NULL}, false},
    {{TINY_SET_U32, "embedding_length", 0, 0, NULL}, false},
    {{TINY_SET_U32, "embedding_length", 255, 0, NULL}, false},
    {{TINY_SET_U32, "embedding_length", UINT32_MAX, 0, NULL}, false},
    {{TINY_DROP_KEY, "context_length", 0, 0, NULL}, false},
    {{TINY_SET_U32, "context_length", 0, 0, NULL}, false},
    {{TINY_SET_U32, "context_length", UINT32_MAX, 0, NULL}, false},
    {{TINY_DROP_KEY, "attention.head_count", 0, 0, NULL}, false},
    {{TINY_SET_U32, "attention.head_count", 0, 0, NULL}, false},
    {{TINY_SET_U32, "attention.head_count", 7, 0, NULL}, false},
    {{TINY_SET_U32, "attention.head_count", BILLION, 0, NULL}, false},
    {{TINY_SET_F32, "attention.head_count", 0, 4.0f, NULL}, false},
    {{TINY_SET_U32, "attention.head_count_kv", 0, 0, NULL}, false},
    {{TINY_SET_U32, "attention.head_count_kv", 5, 0, NULL}, false},
    {{TINY_SET_U32, "attention.head_count_kv", 64, 0, NULL}, false},
    {{TINY_SET_U32, "attention.head_count_kv", BILLION, 0, NULL}, false},
    {{TINY_SET_U32, "attention.key_length", 0, 0, NULL}, false},
    {{TINY_SET_U32, "attention.key_length", 16, 0, NULL}, false},
    {{TINY_SET_U32, "attention.key_length", BILLION, 0, NULL}, false},
    {{TINY_SET_U32, "attention.value_length", 16, 0, NULL}, false},
    {{TINY_SET_U32, "feed_forward_length", 0, 0, NULL}, false},
    {{TINY_SET_U32, "feed_forward_length", UINT32_MAX, 0, NULL}, false},
    {{TINY_SET_U32, "expert_feed_forward_length", 0, 0, NULL}, true},
    {{TINY_SET_U32, "expert_feed_forward_length", BILLION, 0, NULL}, true},
    {{TINY_SET_U32, "expert_count", BILLION, 0, NULL}, true},
    {{TINY_SET_U32, "expert_count", 7, 0, NULL}, true},
    {{TINY_SET_U32, "expert_used_count", 9, 0, NULL}, true},
    {{TINY_SET_U32, "expert_used_count", 0, 0, NULL}, true},
    {{TINY_DROP_KEY, "expert_used_count", 0, 0, NULL}, true},
    {{TINY_DROP_KEY, "attention.layer_norm_rms_epsilon", 0, 0, NULL}, true},
    {{TINY_SET_F32, "attention.layer_norm_rms_epsilon", 0, NAN, NULL}, true},
    {{TINY_SET_F32, "attention.layer_norm_rms_epsilon", 0, -1.0f, NULL}, true},
    {{TINY_DROP_KEY, "attention.layer_norm_epsilon", 0, 0, NULL}, true},
    {{TINY_SET_F32, "attention.layer_norm_epsilon", 0, INFINITY, NULL}, true},
    {{TINY_SET_F32, "rope.freq_base", 0, NAN, NULL}, true},
    {{TINY_SET_F32, "rope.freq_base", 0, 0.0f, NULL}, true},
    {{TINY_SET_F32, "rope.freq_base", 0, -10000.0f, NULL}, true},
    {{TINY_SET_F32, "rope.freq_base", 0, INFINITY, NULL}, true},
    {{TINY_SET_STR, "rope.freq_base", 0, 0, "fast"}, true},
    {{TINY_SET_U32, "rope.dimension_count", 0, 0, NULL}, true},
    {{TINY_SET_U32, "rope.dimension_count", 7, 0, NULL}, true},
    {{TINY_SET_U32, "rope.dimension_count", BILLION, 0, NULL}, true},
    {{TINY_SET_F32, "rope.scaling.factor", 0, NAN, NULL}, true},
    {{TINY_SET_STR, "rope.scaling.type", 0, 0, "mystery"}, true},
    {{TINY_SET_F32, "rope.scaling.attn_factor", 0, NAN, NULL}, true},
    {{TINY_SET_F32, "attn_logit_softcapping", 0, NAN, NULL}, true},
    {{TINY_SET_F32, "final_logit_softcapping", 0, -INFINITY, NULL}, true},
    {{TINY_SET_U32, "attention.sliding_window", UINT32_MAX, 0, NULL}, false},
    {{TINY_DROP_KEY, "use_parallel_residual", 0, 0, NULL}, true},
    {{TINY_SET_U32, "use_parallel_residual", 1, 0, NULL}, true},
};

/* Values a family may well ignore, since it has no use for the key. */
static bool may_pass(const struct fixture *f, const struct tiny_edit *e)
{
    const char *arch = tiny_arch(f->v);

    if (!strcmp(e->name, "attention.sliding_window"))
        return strncmp(arch, "gemma", 5) != 0;
    if (!strcmp(e->name, "block_count") && e->num == 9)
        return false;
    if (!strcmp(e->name, "feed_forward_length"))
        return f->v == TINY_QWEN3MOE;
    return false;
}

static void damaged_keys_are_refused(void **state)
{
    struct fixture f;
    struct model *m;
    struct err_text et = {{0}};

    fixture_open(&f, (enum tiny_variant)(intptr_t)*state);
    if (model_open(f.good, &m, &et) != ERR_NONE)
        fail_msg("the good file: %s", et.text);
    for (size_t i = 0; i < ARRAY_LEN(key_damages); i++) {
        struct tiny_edit edit = key_damages[i].edit;
        char key[128], family[32];

        snprintf(key, sizeof(key), "%s.%s", tiny_arch(f.v), edit.name);
        if (key_damages[i].only_present && !modelfile_has(model_file(m), key))
            continue;
        if (may_pass(&f, &edit))
            continue;
        edit.name = key;
        /* A wrong count may show first in a tensor whose shape no longer fits. */
        must_refuse(&f, &edit, NULL, "key");
        open_edited(&f, &edit, &et);
        snprintf(family, sizeof(family), "%s.",
                 tiny_arch(f.v)); /* this key or one it is at odds with */
        if (!strstr(behind_path(&f, et.text), "tensor ") &&
            !strstr(behind_path(&f, et.text), family))
            fail_msg("%s: the message names neither key nor tensor: %s", key, et.text);
    }
    model_close(m);
    fixture_close(&f);
}

static void unknown_architecture_lists_the_known(void **state)
{
    static const char *known[] = {"llama",  "qwen2", "qwen3", "qwen3moe", "gemma2",
                                  "gemma3", "phi3",  "gpt2",  "bloom",    "gptneox"};
    struct tiny_edit edit = {.kind = TINY_SET_STR, .name = "general.architecture", .str = "mamba"};
    struct fixture f;
    struct err_text et = {{0}};

    (void)state;
    fixture_open(&f, TINY_LLAMA);
    assert_int_equal(open_edited(&f, &edit, &et), ERR_UNSUPPORTED);
    assert_non_null(strstr(et.text, f.bad));
    assert_non_null(strstr(et.text, "mamba"));
    for (size_t i = 0; i < ARRAY_LEN(known); i++)
        assert_non_null(strstr(et.text, known[i]));
    edit.str = "";
    must_refuse(&f, &edit, "general.architecture", "empty");
    edit.str = "llama\x1b[31m";
    must_refuse(&f, &edit, "general.architecture", "with control characters");
    edit.kind = TINY_DROP_KEY;
    must_refuse(&f, &edit, "general.architecture", "dropped");
    edit.kind = TINY_SET_U32;
    must_refuse(&f, &edit, "general.architecture", "of the wrong type");
    fixture_close(&f);
}

/* A tensor that no module uses means that the file is not of the kind it says. */
static void strange_tensor_is_refused(void **state)
{
    struct tiny_edit edit = {
        .kind = TINY_RENAME_TENSOR, .name = "rope_freqs.weight", .str = "blk.0.mystery.weight"};
    struct fixture f;

    (void)state;
    fixture_open(&f, TINY_LLAMA_FREQS);
    must_refuse(&f, &edit, "blk.0.mystery.weight", "strange");
    edit.str = "blk.0.\x1b[31mred\nnew line";
    must_refuse(&f, &edit, "blk.0.?[31mred?new line", "strange, and out to paint the terminal");
    fixture_close(&f);
}

int main(void)
{
    static struct CMUnitTest tests[2 * TINY_N_VARIANTS + 2];
    int n = 0;

    for (int v = 0; v < TINY_N_VARIANTS; v++) {
        tests[n++] = (struct CMUnitTest){.name = tiny_name((enum tiny_variant)v),
                                         .test_func = damaged_tensors_are_refused,
                                         .initial_state = (void *)(intptr_t)v};
        tests[n++] = (struct CMUnitTest){.name = tiny_name((enum tiny_variant)v),
                                         .test_func = damaged_keys_are_refused,
                                         .initial_state = (void *)(intptr_t)v};
    }
    tests[n++] = (struct CMUnitTest)cmocka_unit_test(unknown_architecture_lists_the_known);
    tests[n++] = (struct CMUnitTest)cmocka_unit_test(strange_tensor_is_refused);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
