/* A tiny llama2.c checkpoint with known weights goes through the converter; what comes out is read
 * with ggml's own reader and compared weight by weight. Then the same input, damaged in every way
 * the header promises to notice. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include <ggml.h>
#include <gguf.h>

#include "base/mem.h"
#include "model/llama2c.h"

enum { DIM = 64, HIDDEN = 96, LAYERS = 2, HEADS = 4, KV_HEADS = 2, VOCAB = 300, CTX = 8 };
enum { HEAD = DIM / HEADS, KV = HEAD * KV_HEADS };

struct fixture {
    void *checkpoint; /* the header's seven int32, then floats */
    size_t n_checkpoint;
    unsigned char *tokenizer;
    size_t n_tokenizer;
};

/* Deterministic, spread over -1..1, different everywhere. */
static float weight(size_t i)
{
    uint32_t x = (uint32_t)i * 2654435761u + 12345u;

    x ^= x >> 15;
    x *= 2246822519u;
    return (float)(int32_t)x / 2147483648.0f;
}

static size_t put_token(unsigned char *p, float score, const char *s, int32_t n)
{
    memcpy(p, &score, 4);
    memcpy(p + 4, &n, 4);
    memcpy(p + 8, s, (size_t)n);
    return 8 + (size_t)n;
}

static void make_tokenizer(struct fixture *f)
{
    const int32_t longest = 12;
    unsigned char *p = f->tokenizer = mem_alloc(VOCAB * 24);

    memcpy(p, &longest, 4);
    p += 4;
    p += put_token(p, 0, "<unk>", 5);
    p += put_token(p, 0, "\n<s>\n", 5);
    p += put_token(p, 0, "\n</s>\n", 6);
    for (int b = 0; b < 256; b++) {
        char utf8[2] = {(char)b, 0};

        if (b >= 0x80) {
            utf8[0] = (char)(0xC0 | b >> 6);
            utf8[1] = (char)(0x80 | (b & 0x3F));
        }
        p += put_token(p, 0, utf8, b < 0x80 ? 1 : 2);
    }
    for (int i = 259; i < VOCAB; i++) {
        char s[16];

        snprintf(s, sizeof s, " a %d", i);
        p += put_token(p, (float)(259 - i), s, (int32_t)strlen(s));
    }
    f->n_tokenizer = (size_t)(p - f->tokenizer);
}

static int setup(void **state)
{
    const int32_t header[7] = {DIM, HIDDEN, LAYERS, HEADS, KV_HEADS, VOCAB, CTX};
    struct fixture *f = mem_zalloc(1, sizeof *f);
    size_t n = VOCAB * DIM + LAYERS * (2 * DIM + 2 * DIM * DIM + 2 * KV * DIM + 3 * DIM * HIDDEN) +
               DIM + CTX * HEAD;
    float *weights;

    f->n_checkpoint = sizeof header + n * sizeof(float);
    f->checkpoint = mem_alloc(f->n_checkpoint);
    memcpy(f->checkpoint, header, sizeof header);
    weights = (float *)f->checkpoint + 7;
    for (size_t i = 0; i < n; i++)
        weights[i] = weight(i);
    make_tokenizer(f);
    *state = f;
    return 0;
}

static int teardown(void **state)
{
    struct fixture *f = *state;

    free(f->checkpoint);
    free(f->tokenizer);
    free(f);
    return 0;
}

static struct llama2c_input input_of(const struct fixture *f)
{
    return (struct llama2c_input){f->checkpoint, f->n_checkpoint, f->tokenizer, f->n_tokenizer,
                                  "tiny",        "mit",           NULL};
}

static FILE *converted(const struct fixture *f, enum llama2c_type type)
{
    struct llama2c_input in = input_of(f);
    struct err_text et = {""};
    FILE *out = tmpfile();

    assert_non_null(out);
    if (llama2c_convert(&in, type, out, &et))
        fail_msg("%s", et.text);
    assert_int_equal(fflush(out), 0);
    rewind(out);
    return out;
}

/* The floats of a converted tensor, (n) f32. Within half a q8_0 step of the original: the step is
 * the block's largest weight / 127, and the scale itself is rounded to f16. */
static void tensor_equals(const struct ggml_tensor *t, enum llama2c_type type, const float *want)
{
    size_t n = (size_t)ggml_nelements(t);
    float *got = mem_alloc(n * sizeof *got);

    if (t->type == GGML_TYPE_F32)
        memcpy(got, t->data, n * sizeof *got);
    else
        ggml_get_type_traits(t->type)->to_float(t->data, got, (int64_t)n);
    for (size_t i = 0; i < n; i++) {
        float bound = t->type == GGML_TYPE_F32 ? 0 : type == LLAMA2C_F16 ? 5e-4f : 4.5e-3f;

        if (!(got[i] - want[i] <= bound && want[i] - got[i] <= bound))
            fail_msg("%s[%zu] is %g, should be %g", t->name, i, (double)got[i], (double)want[i]);
    }
    free(got);
}

static void tensors_equal(struct ggml_context *c, const struct fixture *f, enum llama2c_type type)
{
    const struct {
        const char *name;
        int64_t n_rows, n_cols;
    } kinds[] = {{"attn_norm", 1, DIM},     {"attn_q", DIM, DIM},      {"attn_k", KV, DIM},
                 {"attn_v", KV, DIM},       {"attn_output", DIM, DIM}, {"ffn_norm", 1, DIM},
                 {"ffn_gate", HIDDEN, DIM}, {"ffn_down", DIM, HIDDEN}, {"ffn_up", HIDDEN, DIM}};
    const float *p = (const float *)f->checkpoint + 7;

    tensor_equals(ggml_get_tensor(c, "token_embd.weight"), type, p);
    p += VOCAB * DIM;
    for (size_t k = 0; k < ARRAY_LEN(kinds); k++) {
        for (int il = 0; il < LAYERS; il++) {
            char name[64];
            struct ggml_tensor *t;

            snprintf(name, sizeof name, "blk.%d.%s.weight", il, kinds[k].name);
            t = ggml_get_tensor(c, name);
            assert_non_null(t);
            assert_int_equal(t->ne[0], kinds[k].n_cols);
            assert_int_equal(t->ne[1], kinds[k].n_rows);
            assert_int_equal(t->type, kinds[k].n_rows == 1   ? GGML_TYPE_F32
                                      : type == LLAMA2C_Q8_0 ? GGML_TYPE_Q8_0
                                                             : GGML_TYPE_F16);
            tensor_equals(t, type, p);
            p += kinds[k].n_rows * kinds[k].n_cols;
        }
    }
    tensor_equals(ggml_get_tensor(c, "output_norm.weight"), type, p);
}

static uint32_t u32_of(const struct gguf_context *g, const char *key)
{
    int64_t i = gguf_find_key(g, key);

    assert_true(i >= 0);
    return gguf_get_val_u32(g, i);
}

static void vocab_equals(const struct gguf_context *g)
{
    int64_t tokens = gguf_find_key(g, "tokenizer.ggml.tokens"),
            types = gguf_find_key(g, "tokenizer.ggml.token_type"),
            scores = gguf_find_key(g, "tokenizer.ggml.scores");
    const int32_t *type = gguf_get_arr_data(g, types);
    const float *score = gguf_get_arr_data(g, scores);

    assert_int_equal(gguf_get_arr_n(g, tokens), VOCAB);
    assert_int_equal(gguf_get_arr_n(g, types), VOCAB);
    assert_int_equal(gguf_get_arr_n(g, scores), VOCAB);
    assert_string_equal(gguf_get_arr_str(g, tokens, 0), "<unk>");
    assert_string_equal(gguf_get_arr_str(g, tokens, 1), "<s>");
    assert_string_equal(gguf_get_arr_str(g, tokens, 2), "</s>");
    assert_string_equal(gguf_get_arr_str(g, tokens, 3), "<0x00>");
    assert_string_equal(gguf_get_arr_str(g, tokens, 258), "<0xFF>");
    assert_string_equal(gguf_get_arr_str(g, tokens, 260), "\xE2\x96\x81"
                                                          "a\xE2\x96\x81"
                                                          "260");
    assert_int_equal(type[0], 2);
    assert_int_equal(type[1], 3);
    assert_int_equal(type[2], 3);
    assert_int_equal(type[3], 6);
    assert_int_equal(type[258], 6);
    assert_int_equal(type[259], 1);
    assert_true(score[299] == -40.0f);
}

static void whole_model(const struct fixture *f, enum llama2c_type type)
{
    struct ggml_context *c = NULL;
    FILE *file = converted(f, type);
    struct gguf_context *g =
        gguf_init_from_file_ptr(file, (struct gguf_init_params){.no_alloc = false, .ctx = &c});

    assert_non_null(g);
    assert_int_equal(gguf_get_n_tensors(g), 2 + 9 * LAYERS);
    assert_string_equal(gguf_get_val_str(g, gguf_find_key(g, "general.architecture")), "llama");
    assert_string_equal(gguf_get_val_str(g, gguf_find_key(g, "general.name")), "tiny");
    assert_int_equal(gguf_find_key(g, "general.source.url"), -1);
    assert_int_equal(u32_of(g, "general.file_type"), type == LLAMA2C_Q8_0 ? 7 : 1);
    assert_int_equal(u32_of(g, "llama.block_count"), LAYERS);
    assert_int_equal(u32_of(g, "llama.context_length"), CTX);
    assert_int_equal(u32_of(g, "llama.embedding_length"), DIM);
    assert_int_equal(u32_of(g, "llama.feed_forward_length"), HIDDEN);
    assert_int_equal(u32_of(g, "llama.attention.head_count"), HEADS);
    assert_int_equal(u32_of(g, "llama.attention.head_count_kv"), KV_HEADS);
    assert_int_equal(u32_of(g, "llama.rope.dimension_count"), HEAD);
    assert_int_equal(u32_of(g, "tokenizer.ggml.bos_token_id"), 1);
    assert_int_equal(u32_of(g, "tokenizer.ggml.eos_token_id"), 2);
    assert_true(gguf_get_val_bool(g, gguf_find_key(g, "tokenizer.ggml.add_bos_token")));
    vocab_equals(g);
    tensors_equal(c, f, type);
    ggml_free(c);
    gguf_free(g);
    fclose(file);
}

static void test_q8_0(void **state)
{
    whole_model(*state, LLAMA2C_Q8_0);
}

static void test_f16(void **state)
{
    whole_model(*state, LLAMA2C_F16);
}

static void test_deterministic(void **state)
{
    FILE *a = converted(*state, LLAMA2C_Q8_0), *b = converted(*state, LLAMA2C_Q8_0);
    int x, y;

    do {
        x = fgetc(a);
        y = fgetc(b);
        assert_int_equal(x, y);
    } while (x != EOF);
    fclose(a);
    fclose(b);
}

/* The input must be refused with this error and these words, and with no output. */
static void refused(const struct llama2c_input *in, enum err want, const char *words)
{
    struct err_text et = {""};
    FILE *out = tmpfile();

    assert_non_null(out);
    assert_int_equal(llama2c_convert(in, LLAMA2C_Q8_0, out, &et), want);
    if (!strstr(et.text, words))
        fail_msg("\"%s\" does not say \"%s\"", et.text, words);
    assert_int_equal(fseek(out, 0, SEEK_END), 0);
    assert_int_equal(ftell(out), 0);
    fclose(out);
}

static void test_bad_header(void **state)
{
    struct fixture *f = *state;
    const struct {
        int which;
        int32_t value;
        enum err want;
        const char *words;
    } cases[] = {
        {0, 0, ERR_INPUT, "dim is 0"},
        {0, -64, ERR_INPUT, "dim is -64"},
        {0, INT32_MAX, ERR_INPUT, "dim is 2147483647"},
        {0, 72, ERR_INPUT, "multiples of 32"},
        {1, INT32_MIN, ERR_INPUT, "hidden size"},
        {1, 100, ERR_INPUT, "multiples of 32"},
        {2, 0, ERR_INPUT, "number of layers is 0"},
        {2, 1000000, ERR_INPUT, "number of layers"},
        {2, 1024, ERR_INPUT, "its shape makes"},
        {3, 0, ERR_INPUT, "number of heads is 0"},
        {3, 5, ERR_INPUT, "divide evenly"},
        {4, 0, ERR_INPUT, "number of kv heads is 0"},
        {4, 5, ERR_INPUT, "number of kv heads is 5"},
        {4, 3, ERR_INPUT, "divide evenly"},
        {5, -VOCAB, ERR_UNSUPPORTED, "negative"},
        {5, INT32_MIN, ERR_INPUT, "vocabulary size"},
        {5, 258, ERR_INPUT, "vocabulary size is 258"},
        {5, VOCAB - 1, ERR_INPUT, "its shape makes"},
        {6, 0, ERR_INPUT, "context is 0"},
        {6, INT32_MAX, ERR_INPUT, "context is"},
    };

    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct llama2c_input in = input_of(f);
        int32_t *field = (int32_t *)f->checkpoint + cases[i].which, good = *field;

        *field = cases[i].value;
        refused(&in, cases[i].want, cases[i].words);
        *field = good;
    }
}

static void test_truncated(void **state)
{
    struct fixture *f = *state;
    struct llama2c_input in = input_of(f);

    for (in.n_checkpoint = 0; in.n_checkpoint < 28; in.n_checkpoint++)
        refused(&in, ERR_INPUT, "too few for its header");
    for (; in.n_checkpoint < f->n_checkpoint; in.n_checkpoint += 4096)
        refused(&in, ERR_INPUT, "its shape makes");
    in.n_checkpoint = f->n_checkpoint - 1;
    refused(&in, ERR_INPUT, "its shape makes");
    in.n_checkpoint = f->n_checkpoint;
    for (in.n_tokenizer = 0; in.n_tokenizer < f->n_tokenizer; in.n_tokenizer++) {
        /* A copy of just this size, so that a sanitizer sees a byte read past its end. */
        unsigned char *cut = mem_alloc(in.n_tokenizer);

        in.tokenizer = memcpy(cut, f->tokenizer, in.n_tokenizer);
        refused(&in, ERR_INPUT, "tokenizer: ");
        free(cut);
    }
}

static void test_bad_tokenizer(void **state)
{
    struct fixture *f = *state;
    struct llama2c_input in = input_of(f);
    unsigned char *t = mem_alloc(f->n_tokenizer + 1);
    const size_t unk = 4, first_byte = 4 + 3 * 8 + 5 + 5 + 6;
    const struct {
        size_t at;
        uint32_t value;
        const char *words;
    } cases[] = {
        {0, 0, "longest token is 0"},
        {0, 0x7fffffff, "longest token is"},
        {unk, 0x7fc00000, "score of token 0"}, /* NaN */
        {unk + 4, 0, "token 0 has the length 0"},
        {unk + 4, 0xffffffff, "token 0 has the length -1"},
        {unk + 4, 13, "token 0 has the length 13"},
        {first_byte + 4, 2, "token 3 should stand for byte 0x00"},
    };

    in.tokenizer = t;
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        memcpy(t, f->tokenizer, f->n_tokenizer);
        memcpy(t + cases[i].at, &cases[i].value, 4);
        refused(&in, ERR_INPUT, cases[i].words);
    }
    memcpy(t, f->tokenizer, f->n_tokenizer);
    t[f->n_tokenizer - 1] = '\0'; /* inside the last text token */
    refused(&in, ERR_INPUT, "token 299 holds a zero byte");
    memcpy(t, f->tokenizer, f->n_tokenizer);
    in.n_tokenizer = f->n_tokenizer + 1;
    t[f->n_tokenizer] = 0;
    refused(&in, ERR_INPUT, "1 bytes follow its last token");
    free(t);
}

static void test_bad_weights(void **state)
{
    static const uint32_t bad[] = {0x7fc00000, 0x7f800000, 0xff800000, 0x47800000}; /* 65536 */
    struct fixture *f = *state;
    struct llama2c_input in = input_of(f);
    float *at = (float *)f->checkpoint + 7 + VOCAB * DIM + LAYERS * DIM + 5, good = *at;

    for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
        memcpy(at, &bad[i], 4);
        refused(&in, ERR_INPUT, "blk.0.attn_q.weight: weight 5");
    }
    *at = good;
}

static void test_full_disk(void **state)
{
    struct llama2c_input in = input_of(*state);
    struct err_text et = {""};
    FILE *out = fopen("/dev/full", "wb");

    if (!out)
        skip();
    assert_int_equal(llama2c_convert(&in, LLAMA2C_Q8_0, out, &et), ERR_FILE);
    assert_non_null(strstr(et.text, "No space left"));
    fclose(out);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_q8_0),          cmocka_unit_test(test_f16),
        cmocka_unit_test(test_deterministic), cmocka_unit_test(test_bad_header),
        cmocka_unit_test(test_truncated),     cmocka_unit_test(test_bad_tokenizer),
        cmocka_unit_test(test_bad_weights),   cmocka_unit_test(test_full_disk),
    };

    return cmocka_run_group_tests(tests, setup, teardown);
}
