/* The tokenizer's keys: good vocabularies of both kinds pass, and one lie at a time is named. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "ggml.h"
#include "model/modelfile.h"
#include "support/gguf_bytes.h"

#define PATH      "dir/model.gguf"
#define KEY(name) "tokenizer.ggml." name

enum { TOKENS_MAX = 400, TEXT_MAX = 8192, MERGES_MAX = 4 };

/* What the file will say; a lie changes one thing. */
struct vocab {
    const char *model, *pre;
    char *texts[TOKENS_MAX];
    size_t lens[TOKENS_MAX];
    uint32_t types[TOKENS_MAX];
    float scores[TOKENS_MAX];
    uint32_t n, n_types, n_scores; /* array lengths; 0 leaves the key out */
    uint32_t texts_type, types_type, scores_type;
    const char *merges[MERGES_MAX];
    size_t merge_lens[MERGES_MAX]; /* 0: as strlen says */
    uint32_t n_merges, merges_type;
};

static void set_token(struct vocab *v, uint32_t i, const void *text, size_t n, uint32_t type)
{
    free(v->texts[i]);
    v->texts[i] = malloc(n ? n : 1);
    assert_non_null(v->texts[i]);
    if (n > 0)
        memcpy(v->texts[i], text, n);
    v->lens[i] = n;
    v->types[i] = type;
}

static void add_token(struct vocab *v, const char *text, uint32_t type)
{
    set_token(v, v->n++, text, strlen(text), type);
    v->n_types = v->n_scores = v->n;
}

static struct vocab *new_vocab(const char *model)
{
    struct vocab *v = calloc(1, sizeof *v);

    assert_non_null(v);
    v->model = model;
    v->texts_type = GB_STRING;
    v->types_type = GB_I32;
    v->scores_type = GB_F32;
    v->merges_type = GB_STRING;
    return v;
}

static struct vocab *spm(void)
{
    struct vocab *v = new_vocab("llama");
    char text[8];

    add_token(v, "<unk>", 2);
    add_token(v, "<s>", 3);
    add_token(v, "</s>", 3);
    for (int i = 0; i < 256; i++) {
        snprintf(text, sizeof text, "<0x%02X>", i);
        add_token(v, text, 6);
    }
    add_token(v, "\xe2\x96\x81once", 1);
    add_token(v, "\xe2\x96\x81upon", 1);
    return v;
}

static struct vocab *bpe(void)
{
    struct vocab *v = new_vocab("gpt2");
    char text[2] = "a";

    v->pre = "gpt-2";
    for (; text[0] <= 'p'; text[0]++)
        add_token(v, text, 1);
    add_token(v, "ab", 1);
    add_token(v, "<|endoftext|>", 3);
    v->n_scores = 0;
    v->merges[0] = "a b";
    v->merges[1] = "\xc4\xa0 c";
    v->n_merges = 2;
    return v;
}

static void free_vocab(struct vocab *v)
{
    for (int i = 0; i < TOKENS_MAX; i++)
        free(v->texts[i]);
    free(v);
}

/* Elements are written as wide as their type says. */
static void write_numbers(struct gguf_bytes *b, const char *key, uint32_t type, uint32_t n,
                          const void *values)
{
    static const size_t sizes[] = {1, 1, 2, 2, 4, 4, 4, 1, 0, 0, 8, 8, 8};

    if (n == 0)
        return;
    gguf_bytes_array(b, key, type, n);
    for (uint32_t i = 0; i < n; i++) {
        uint8_t wide[8] = {0};

        memcpy(wide, (const uint8_t *)values + 4 * i, 4);
        if (type == GB_STRING)
            gguf_bytes_string(b, "x");
        else
            gguf_bytes_raw(b, wide, sizes[type]);
    }
}

static void write_texts(struct gguf_bytes *b, const struct vocab *v)
{
    if (v->texts_type != GB_STRING) {
        write_numbers(b, KEY("tokens"), v->texts_type, v->n, v->types);
        return;
    }
    gguf_bytes_array(b, KEY("tokens"), GB_STRING, v->n);
    for (uint32_t i = 0; i < v->n; i++)
        gguf_bytes_string_n(b, v->texts[i], v->lens[i]);
}

static void write_vocab(struct gguf_bytes *b, const struct vocab *v)
{
    gguf_bytes_begin(b, 3);
    if (v->model)
        gguf_bytes_key_string(b, KEY("model"), v->model);
    if (v->pre)
        gguf_bytes_key_string(b, KEY("pre"), v->pre);
    write_texts(b, v);
    write_numbers(b, KEY("token_type"), v->types_type, v->n_types, v->types);
    write_numbers(b, KEY("scores"), v->scores_type, v->n_scores, v->scores);
    if (v->n_merges == 0)
        return;
    if (v->merges_type != GB_STRING) {
        write_numbers(b, KEY("merges"), v->merges_type, v->n_merges, v->types);
        return;
    }
    gguf_bytes_array(b, KEY("merges"), GB_STRING, v->n_merges);
    for (uint32_t i = 0; i < v->n_merges; i++)
        gguf_bytes_string_n(b, v->merges[i],
                            v->merge_lens[i] ? v->merge_lens[i] : strlen(v->merges[i]));
}

/* Takes v and b. thing NULL: the check passes and counts v's tokens. */
static void expect(struct vocab *v, struct gguf_bytes *b, enum err want, const char *thing,
                   const char *words)
{
    uint8_t *copy = malloc(b->size); /* exact, for the sanitizer */
    struct modelfile *mf;
    struct err_text et = {""};
    uint32_t n = 12345;
    enum err e;

    assert_non_null(copy);
    memcpy(copy, b->data, b->size);
    if (modelfile_open_bytes(PATH, copy, b->size, &mf, &et) != ERR_NONE)
        fail_msg("open: %s", et.text);
    e = modelfile_check_tokenizer(mf, &n, &et);
    if (e != want)
        fail_msg("error %d where %d is expected (%s %s): %s", e, want, thing, words, et.text);
    if (want == ERR_NONE) {
        assert_int_equal(n, v->n);
    } else if (!strstr(et.text, PATH) || !strstr(et.text, thing) || !strstr(et.text, words)) {
        fail_msg("\"%s\" lacks \"%s\" or \"%s\"", et.text, thing, words);
    }
    modelfile_close(mf);
    free(copy);
    gguf_bytes_free(b);
    free_vocab(v);
}

static void expect_vocab(struct vocab *v, enum err want, const char *thing, const char *words)
{
    struct gguf_bytes b;

    write_vocab(&b, v);
    expect(v, &b, want, thing, words);
}

/* --- good ones --- */

static void test_good(void **state)
{
    struct gguf_bytes b;
    struct vocab *v;

    expect_vocab(spm(), ERR_NONE, NULL, NULL);
    expect_vocab(bpe(), ERR_NONE, NULL, NULL);

    v = spm(); /* all the optional keys at once */
    write_vocab(&b, v);
    gguf_bytes_key_string(&b, "general.name", "tiny");
    gguf_bytes_key_u32(&b, "general.file_type", 0);
    gguf_bytes_key_u32(&b, KEY("bos_token_id"), 1);
    gguf_bytes_key_u32(&b, KEY("eos_token_id"), v->n - 1);
    gguf_bytes_key_bool(&b, KEY("add_bos_token"), 1);
    gguf_bytes_key_bool(&b, KEY("add_eos_token"), 1);
    gguf_bytes_key_string(&b, "tokenizer.chat_template", "{{ messages }}");
    gguf_bytes_array(&b, KEY("suppress_tokens"), GB_I32, 1);
    gguf_bytes_u32(&b, 5);
    expect(v, &b, ERR_NONE, NULL, NULL);

    v = bpe();
    set_token(v, 3, "", 0, 1); /* two empty tokens get names of their own */
    set_token(v, 4, "", 0, 1);
    expect_vocab(v, ERR_NONE, NULL, NULL);
    v = spm();
    v->types_type = GB_U32;
    expect_vocab(v, ERR_NONE, NULL, NULL);
    v = bpe();
    v->pre = "kimi-k2";
    v->n_merges = 0;
    expect_vocab(v, ERR_NONE, NULL, NULL);
    v = bpe(); /* token types and scores are optional here */
    v->n_types = 0;
    expect_vocab(v, ERR_NONE, NULL, NULL);
}

/* --- kinds --- */

static void test_kinds(void **state)
{
    static const char *const kinds[] = {"t5",         "bert",     "rwkv",   "plamo2",
                                        "none",       "no_vocab", "gemma4", "hybriddna",
                                        "whitespace", "",         "new\x1b"};
    struct vocab *v;

    for (size_t i = 0; i < sizeof kinds / sizeof kinds[0]; i++) {
        v = spm();
        v->model = kinds[i];
        expect_vocab(v, ERR_UNSUPPORTED, "key " KEY("model"), i == 10 ? "new\\x1b" : kinds[i]);
    }
    v = spm();
    v->model = NULL;
    expect_vocab(v, ERR_INPUT, "key " KEY("model"), "missing");
    v = bpe();
    v->pre = "whitespace";
    expect_vocab(v, ERR_UNSUPPORTED, "key " KEY("pre"), "whitespace");
}

/* --- arrays --- */

static void test_array_types(void **state)
{
    static const uint32_t wrong[] = {GB_U8, GB_I16, GB_BOOL, GB_U64, GB_F64, GB_STRING};

    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++) {
        struct vocab *v;

        if (wrong[i] != GB_STRING) {
            v = spm();
            v->texts_type = wrong[i];
            expect_vocab(v, ERR_INPUT, "key " KEY("tokens"), "array of string");
            v = bpe();
            v->merges_type = wrong[i];
            expect_vocab(v, ERR_INPUT, "key " KEY("merges"), "array of string");
        }
        v = spm();
        v->types_type = wrong[i];
        expect_vocab(v, ERR_INPUT, "key " KEY("token_type"), "array of i32");
        v = spm();
        v->scores_type = wrong[i];
        expect_vocab(v, ERR_INPUT, "key " KEY("scores"), "array of f32");
    }
}

static void test_array_lengths(void **state)
{
    for (int d = -1; d <= 1; d += 2) {
        struct vocab *v = spm();

        v->n_types += (uint32_t)d;
        expect_vocab(v, ERR_INPUT, "key " KEY("token_type"), "entries for 261 tokens");
        v = spm();
        v->n_scores += (uint32_t)d;
        expect_vocab(v, ERR_INPUT, "key " KEY("scores"), "entries for 261 tokens");
    }
}

static void test_missing_arrays(void **state)
{
    struct vocab *v = spm();

    v->n_types = 0;
    expect_vocab(v, ERR_INPUT, "key " KEY("token_type"), "missing");
    v = spm();
    v->n_scores = 0;
    expect_vocab(v, ERR_INPUT, "key " KEY("scores"), "missing");
    v = bpe();
    v->n_merges = 0;
    expect_vocab(v, ERR_INPUT, "key " KEY("merges"), "missing");
    v = bpe();
    v->n = v->n_types = 0;
    expect_vocab(v, ERR_INPUT, "key " KEY("tokens"), "0 tokens");
}

static void test_scalar_where_array(void **state)
{
    static const char *const keys[] = {KEY("tokens"), KEY("token_type"), KEY("scores"),
                                       KEY("merges"), KEY("suppress_tokens")};

    for (size_t i = 0; i < sizeof keys / sizeof keys[0]; i++) {
        struct vocab *v = i == 3 ? bpe() : spm();
        struct gguf_bytes b;

        gguf_bytes_begin(&b, 3);
        gguf_bytes_key_string(&b, KEY("model"), v->model);
        if (i > 0)
            write_texts(&b, v);
        if (i > 1)
            write_numbers(&b, KEY("token_type"), GB_I32, v->n, v->types);
        if (i > 2)
            write_numbers(&b, KEY("scores"), GB_F32, v->n, v->scores);
        gguf_bytes_key_string(&b, keys[i], "a b");
        expect(v, &b, ERR_INPUT, keys[i], "array of");
    }
}

static void test_suppressed(void **state)
{
    struct vocab *v = spm();
    struct gguf_bytes b;

    write_vocab(&b, v); /* libllama would read 4 bytes per entry */
    gguf_bytes_array(&b, KEY("suppress_tokens"), GB_U8, 3);
    gguf_bytes_fill(&b, 1, 3);
    expect(v, &b, ERR_INPUT, "key " KEY("suppress_tokens"), "array of i32");
}

/* --- tokens --- */

static void test_duplicates(void **state)
{
    struct vocab *v = spm();

    set_token(v, 260, "<s>", 3, 1);
    expect_vocab(v, ERR_INPUT, "key " KEY("tokens"), "token 260 \"<s>\": the same text as token 1");
    v = bpe();
    set_token(v, 2, "", 0, 1);
    set_token(v, 0, "[EMPTY_2]", 9, 1); /* what libllama calls token 2 */
    expect_vocab(v, ERR_INPUT, "key " KEY("tokens"), "the same text as token 0");
}

static void test_bad_tokens(void **state)
{
    char *text = calloc(1, TEXT_MAX);
    struct vocab *v = spm();

    memset(text, 'x', TEXT_MAX);
    set_token(v, 259, text, 4097, 1);
    expect_vocab(v, ERR_INPUT, "key " KEY("tokens"), "longer than 4096");
    v = spm();
    set_token(v, 259, "a\0b", 3, 1);
    expect_vocab(v, ERR_INPUT, "token 259 \"a\\x00b\"", "NUL");
    v = spm();
    v->types[7] = 7;
    expect_vocab(v, ERR_INPUT, "key " KEY("token_type"), "entry 7 is 7");
    v = spm();
    v->types[8] = (uint32_t)-1;
    expect_vocab(v, ERR_INPUT, "key " KEY("token_type"), "entry 8 is -1");
    v = spm();
    v->types[259] = 6; /* a byte token without a byte */
    expect_vocab(v, ERR_INPUT, "token 259", "<0x0A>");
    v = bpe();
    v->types[0] = 6;
    expect_vocab(v, ERR_INPUT, "token 0 \"a\"", "<0x0A>");
    v = spm();
    v->scores[3] = NAN;
    expect_vocab(v, ERR_INPUT, "key " KEY("scores"), "entry 3");
    v = bpe(); /* 380 tokens of 4 kB each may cost 4000 * 4000 * 380 bytes to spell out */
    while (v->n < 380) {
        snprintf(text, TEXT_MAX, "%04u%04000u", v->n, 0u);
        add_token(v, text, 1);
    }
    v->n_scores = 0;
    expect_vocab(v, ERR_INPUT, "key " KEY("tokens"), "too many long tokens");
    free(text);
}

static void test_missing_bytes(void **state)
{
    struct vocab *v = spm();

    set_token(v, 3 + '\n', "other", 5, 1);
    expect_vocab(v, ERR_INPUT, "key " KEY("tokens"), "no token <0x0A>");
    v = spm();
    set_token(v, 3 + '\n', "\n", 1, 1); /* the plain byte will do */
    expect_vocab(v, ERR_NONE, NULL, NULL);
    v = spm();
    set_token(v, 3 + 0, "other", 5, 1);
    expect_vocab(v, ERR_INPUT, "key " KEY("tokens"), "no token <0x00>");
    v = spm();
    set_token(v, 3 + 0xff, "other", 5, 1);
    expect_vocab(v, ERR_INPUT, "key " KEY("tokens"), "no token <0xFF>");
}

static void test_merges(void **state)
{
    static const struct {
        const char *text;
        size_t n;
    } bad[] = {{"", 0},      {"ab", 2}, {" ab", 3},  {"ab ", 3},
               {"a b c", 5}, {" ", 1},  {"a  b", 4}, {"a\0 b", 4}};

    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        struct vocab *v = bpe();

        v->merges[1] = bad[i].text;
        v->merge_lens[1] = bad[i].n;
        expect_vocab(v, ERR_INPUT, "key " KEY("merges"), "entry 1 \"");
    }
}

/* Empty strings take 8 bytes in the file and a hundred in libllama. */
static void test_absurd_counts(void **state)
{
    struct vocab *v = bpe();
    struct gguf_bytes b;

    gguf_bytes_begin(&b, 3);
    gguf_bytes_key_string(&b, KEY("model"), "gpt2");
    gguf_bytes_array(&b, KEY("tokens"), GB_STRING, (1 << 20) + 1);
    gguf_bytes_fill(&b, 0, 8 * (((size_t)1 << 20) + 1));
    expect(v, &b, ERR_INPUT, "key " KEY("tokens"), "1048577 tokens");
    v = bpe();
    v->n_merges = 0;
    write_vocab(&b, v);
    gguf_bytes_array(&b, KEY("merges"), GB_STRING, (1 << 22) + 1);
    gguf_bytes_fill(&b, 0, 8 * (((size_t)1 << 22) + 1));
    expect(v, &b, ERR_INPUT, "key " KEY("merges"), "4194305 merges");
}

/* --- ids, flags, templates --- */

static void test_special_ids(void **state)
{
    static const char *const keys[] = {
        KEY("bos_token_id"),     KEY("eos_token_id"),     KEY("eot_token_id"),
        KEY("eom_token_id"),     KEY("unknown_token_id"), KEY("seperator_token_id"),
        KEY("padding_token_id"), KEY("mask_token_id"),    KEY("fim_pre_token_id"),
        KEY("fim_suf_token_id"), KEY("fim_mid_token_id"), KEY("fim_pad_token_id"),
        KEY("fim_rep_token_id"), KEY("fim_sep_token_id"), KEY("prefix_token_id"),
        KEY("suffix_token_id"),  KEY("middle_token_id"),
    };
    int32_t minus = -1;

    for (size_t i = 0; i < sizeof keys / sizeof keys[0]; i++) {
        struct vocab *v = spm();
        struct gguf_bytes b;

        write_vocab(&b, v);
        gguf_bytes_key_u32(&b, keys[i], v->n);
        expect(v, &b, ERR_INPUT, keys[i], "token 261 is outside the vocabulary of 261");
        v = spm();
        write_vocab(&b, v);
        gguf_bytes_value(&b, keys[i], GB_I32, &minus, 4);
        expect(v, &b, ERR_INPUT, keys[i], "u32");
    }
}

/* An added token that does not exist is an assertion in libllama. */
static void test_added_ids(void **state)
{
    struct vocab *v = bpe();
    struct gguf_bytes b;

    v->n = v->n_types = 5; /* the default, 11, is not there */
    expect_vocab(v, ERR_INPUT, "key " KEY("bos_token_id"), "BOS");
    v = bpe();
    v->n = v->n_types = 5;
    write_vocab(&b, v);
    gguf_bytes_key_bool(&b, KEY("add_bos_token"), 0);
    expect(v, &b, ERR_NONE, NULL, NULL);
    v = bpe();
    v->n = v->n_types = 5;
    write_vocab(&b, v);
    gguf_bytes_key_u32(&b, KEY("bos_token_id"), 4);
    gguf_bytes_key_bool(&b, KEY("add_eos_token"), 1);
    expect(v, &b, ERR_INPUT, "key " KEY("eos_token_id"), "EOS");
    v = bpe();
    v->pre = "glm4"; /* no default at all */
    write_vocab(&b, v);
    gguf_bytes_key_bool(&b, KEY("add_bos_token"), 1);
    expect(v, &b, ERR_INPUT, "key " KEY("bos_token_id"), "BOS");
    v = bpe();
    v->pre = "gemma4"; /* adds BOS whatever the key says */
    v->n = v->n_types = 5;
    write_vocab(&b, v);
    gguf_bytes_key_bool(&b, KEY("add_bos_token"), 0);
    expect(v, &b, ERR_INPUT, "key " KEY("bos_token_id"), "BOS");
}

static void test_scalar_types(void **state)
{
    static const char *const keys[] = {
        "general.architecture",      "general.name",
        "general.file_type",         KEY("pre"),
        KEY("token_type_count"),     KEY("add_bos_token"),
        KEY("add_eos_token"),        KEY("add_sep_token"),
        KEY("add_space_prefix"),     KEY("remove_extra_whitespaces"),
        KEY("normalizer.lowercase"), KEY("normalizer.strip_accents"),
    };
    uint8_t one = 1;

    for (size_t i = 0; i < sizeof keys / sizeof keys[0]; i++) {
        struct vocab *v = spm();
        struct gguf_bytes b;

        write_vocab(&b, v);
        gguf_bytes_value(&b, keys[i], GB_U8, &one, 1);
        expect(v, &b, ERR_INPUT, keys[i], "u8 where a");
        v = spm();
        write_vocab(&b, v);
        gguf_bytes_array(&b, keys[i], GB_BOOL, 1);
        gguf_bytes_fill(&b, 1, 1);
        expect(v, &b, ERR_INPUT, keys[i], "an array of bool where a");
    }
}

static void test_templates(void **state)
{
    struct vocab *v = spm();
    struct gguf_bytes b;

    write_vocab(&b, v);
    gguf_bytes_key(&b, "tokenizer.chat_template", GB_STRING);
    gguf_bytes_u64(&b, (256 << 10) + 1);
    gguf_bytes_fill(&b, 'x', (256 << 10) + 1);
    expect(v, &b, ERR_INPUT, "key tokenizer.chat_template", "256 KiB");
    v = spm();
    write_vocab(&b, v);
    gguf_bytes_key(&b, "tokenizer.chat_template.tool_use", GB_STRING);
    gguf_bytes_string_n(&b, "a\0b", 3);
    expect(v, &b, ERR_INPUT, "key tokenizer.chat_template.tool_use", "NUL");
    v = spm();
    write_vocab(&b, v);
    gguf_bytes_key_u32(&b, "tokenizer.chat_template", 5);
    expect(v, &b, ERR_INPUT, "key tokenizer.chat_template", "must be a string");
}

/* libllama looks four tokens up when the name says Phi-3. */
static void test_phi3(void **state)
{
    for (int complete = 0; complete < 2; complete++) {
        struct vocab *v = spm();
        struct gguf_bytes b;

        if (complete)
            add_token(v, "<|endoftext|>", 3);
        write_vocab(&b, v);
        gguf_bytes_key_string(&b, "general.name", "My PHI-3 mini");
        expect(v, &b, complete ? ERR_NONE : ERR_INPUT, "key " KEY("tokens"), "<|endoftext|>");
    }
}

static void test_layout(void **state)
{
    uint64_t ne[] = {8};

    for (int swap = 0; swap < 2; swap++) {
        struct vocab *v = spm();
        struct gguf_bytes b;

        write_vocab(&b, v);
        gguf_bytes_tensor(&b, "first", 1, ne, GGML_TYPE_F32, swap ? 32 : 0);
        gguf_bytes_tensor(&b, "second", 1, ne, GGML_TYPE_F32, swap ? 0 : 32);
        gguf_bytes_pad(&b, 32);
        gguf_bytes_fill(&b, 0, 64);
        expect(v, &b, swap ? ERR_UNSUPPORTED : ERR_NONE, "tensor first", "order");
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_good),           cmocka_unit_test(test_kinds),
        cmocka_unit_test(test_array_types),    cmocka_unit_test(test_array_lengths),
        cmocka_unit_test(test_missing_arrays), cmocka_unit_test(test_scalar_where_array),
        cmocka_unit_test(test_suppressed),     cmocka_unit_test(test_duplicates),
        cmocka_unit_test(test_bad_tokens),     cmocka_unit_test(test_missing_bytes),
        cmocka_unit_test(test_merges),         cmocka_unit_test(test_special_ids),
        cmocka_unit_test(test_added_ids),      cmocka_unit_test(test_scalar_types),
        cmocka_unit_test(test_templates),      cmocka_unit_test(test_phi3),
        cmocka_unit_test(test_layout),         cmocka_unit_test(test_absurd_counts),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
