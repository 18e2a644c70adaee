/* The GGUF reader against a good file, all its truncations, and one lie at a time. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "ggml.h"
#include "model/modelfile.h"
#include "support/gguf_bytes.h"

#define PATH "dir/model.gguf"

/* --- allocations, counted --- */

static size_t allocated; /* bytes asked for since the last reset */

void *__real_malloc(size_t n);
void *__real_calloc(size_t n, size_t size);
void *__wrap_malloc(size_t n);
void *__wrap_calloc(size_t n, size_t size);

void *__wrap_malloc(size_t n)
{
    allocated += n;
    return __real_malloc(n);
}

void *__wrap_calloc(size_t n, size_t size)
{
    allocated += n * size;
    return __real_calloc(n, size);
}

/* --- helpers --- */

/* Opens an exact-size copy on the heap, so that the sanitizer sees a read past the end. */
static enum err open_copy(const struct gguf_bytes *b, size_t size, struct modelfile **mf,
                          uint8_t **copy, struct err_text *et)
{
    enum err e;

    *copy = malloc(size ? size : 1);
    assert_non_null(*copy);
    if (size > 0)
        memcpy(*copy, b->data, size);
    *mf = NULL;
    et->text[0] = '\0';
    allocated = 0;
    e = modelfile_open_bytes(PATH, *copy, size, mf, et);
    /* The promise of the header: a small multiple of the file, whatever the file says. */
    assert_true(allocated <= 8 * size + 4096);
    return e;
}

static void expect_words(const struct err_text *et, const char *a, const char *b)
{
    if (!strstr(et->text, PATH) || (a && !strstr(et->text, a)) || (b && !strstr(et->text, b)))
        fail_msg("\"%s\" lacks \"%s\" or \"%s\"", et->text, a ? a : "", b ? b : "");
    assert_null(strchr(et->text, '\n'));
}

/* Takes b. */
static void expect_refused(struct gguf_bytes *b, enum err want, const char *thing,
                           const char *words)
{
    struct modelfile *mf;
    struct err_text et;
    uint8_t *copy;
    enum err e = open_copy(b, b->size, &mf, &copy, &et);

    if (e != want)
        fail_msg("error %d where %d is expected: %s", e, want, et.text);
    assert_null(mf);
    expect_words(&et, thing, words);
    free(copy);
    gguf_bytes_free(b);
}

/* Three tensors of 128, 32 and 34 bytes, each on a multiple of 32. */
static void good_file(struct gguf_bytes *b, uint32_t version)
{
    uint64_t matrix[] = {8, 4}, vector[] = {8}, block[] = {32, 1, 1};

    gguf_bytes_begin(b, version);
    gguf_bytes_key_string(b, "general.architecture", "llama");
    gguf_bytes_key_u32(b, "llama.block_count", 2);
    gguf_bytes_array(b, "some.strings", GB_STRING, 3);
    gguf_bytes_string(b, "one");
    gguf_bytes_string(b, "");
    gguf_bytes_string(b, "three");
    gguf_bytes_key_bool(b, "some.bool", 1);
    gguf_bytes_tensor(b, "token_embd.weight", 2, matrix, GGML_TYPE_F32, 0);
    gguf_bytes_tensor(b, "output_norm.weight", 1, vector, GGML_TYPE_F32, 128);
    gguf_bytes_tensor(b, "blk.0.attn_q.weight", 3, block, GGML_TYPE_Q8_0, 160);
    gguf_bytes_pad(b, 32);
    gguf_bytes_fill(b, 'a', 128);
    gguf_bytes_fill(b, 'b', 32);
    gguf_bytes_fill(b, 'c', 34);
}

static void one_tensor(struct gguf_bytes *b, uint32_t n_dims, const uint64_t *ne, uint32_t type,
                       uint64_t offset)
{
    gguf_bytes_begin(b, 3);
    gguf_bytes_tensor(b, "blk.3.attn_q.weight", n_dims, ne, type, offset);
    gguf_bytes_pad(b, 32);
    gguf_bytes_fill(b, 0, 64);
}

/* --- good files --- */

static void check_good(const struct modelfile *mf)
{
    const struct mf_tensor *t;
    struct err_text et;
    const char *s = NULL;
    uint64_t n = 0;
    uint32_t v = 0;

    assert_int_equal(modelfile_n_tensors(mf), 3);
    t = modelfile_tensor(mf, 0);
    assert_string_equal(t->name, "token_embd.weight");
    assert_int_equal(t->type, GGML_TYPE_F32);
    assert_int_equal(t->n_dims, 2);
    assert_int_equal(t->ne[0], 8);
    assert_int_equal(t->ne[1], 4);
    assert_int_equal(t->ne[2], 1);
    assert_int_equal(t->ne[3], 1);
    assert_int_equal(t->size, 128);
    assert_int_equal(*(const char *)modelfile_data(mf, t), 'a');
    t = modelfile_find(mf, "blk.0.attn_q.weight");
    assert_ptr_equal(t, modelfile_tensor(mf, 2));
    assert_int_equal(t->size, 34);
    assert_int_equal(((const char *)modelfile_data(mf, t))[33], 'c');
    assert_int_equal(*(const char *)modelfile_data(mf, modelfile_tensor(mf, 1)), 'b');
    assert_int_equal(t->offset + t->size, modelfile_size(mf));
    assert_null(modelfile_find(mf, "blk.0.attn_q.weigh"));
    assert_null(modelfile_find(mf, ""));

    assert_int_equal(modelfile_str(mf, "general.architecture", &s, &et), ERR_NONE);
    assert_string_equal(s, "llama");
    assert_int_equal(modelfile_u32(mf, "llama.block_count", &v, &et), ERR_NONE);
    assert_int_equal(v, 2);
    assert_int_equal(modelfile_arr_len(mf, "some.strings", &n, &et), ERR_NONE);
    assert_int_equal(n, 3);
    assert_true(modelfile_has(mf, "some.bool"));
    assert_false(modelfile_has(mf, "some.boo"));
}

static void test_good(void **state)
{
    for (uint32_t version = 2; version <= 3; version++) {
        struct gguf_bytes b;
        struct modelfile *mf;
        struct err_text et;
        uint8_t *copy;

        good_file(&b, version);
        assert_int_equal(open_copy(&b, b.size, &mf, &copy, &et), ERR_NONE);
        assert_true(allocated > 0); /* or we do not count at all */
        assert_string_equal(modelfile_path(mf), PATH);
        assert_int_equal(modelfile_size(mf), b.size);
        check_good(mf);
        modelfile_give_back(mf, modelfile_tensor(mf, 0));
        check_good(mf);
        modelfile_close(mf);
        free(copy);
        gguf_bytes_free(&b);
    }
    modelfile_close(NULL);
}

static void test_good_on_disk(void **state)
{
    char path[] = "/tmp/test_modelfile_XXXXXX";
    uint64_t ne[] = {64 * 1024};
    struct gguf_bytes b;
    struct modelfile *mf;
    struct err_text et;
    const struct mf_tensor *t;
    int fd = mkstemp(path);

    assert_true(fd >= 0);
    gguf_bytes_begin(&b, 3);
    gguf_bytes_tensor(&b, "big", 1, ne, GGML_TYPE_I8, 0);
    gguf_bytes_pad(&b, 32);
    for (int i = 0; i < 64 * 1024; i++)
        gguf_bytes_fill(&b, i % 251, 1);
    assert_int_equal(write(fd, b.data, b.size), b.size);
    close(fd);
    assert_int_equal(modelfile_open(path, &mf, &et), ERR_NONE);
    assert_string_equal(modelfile_path(mf), path);
    t = modelfile_find(mf, "big");
    for (int round = 0; round < 2; round++) {
        const uint8_t *p = modelfile_data(mf, t);

        for (int i = 0; i < 64 * 1024; i++)
            assert_int_equal(p[i], i % 251);
        modelfile_give_back(mf, t); /* what is read again must be the file's bytes, not zeros */
    }
    modelfile_close(mf);
    unlink(path);
    gguf_bytes_free(&b);
}

static void test_alignment(void **state)
{
    uint64_t ne[] = {8};
    struct gguf_bytes b;
    struct modelfile *mf;
    struct err_text et;
    uint8_t *copy;

    gguf_bytes_begin(&b, 3);
    gguf_bytes_key_u32(&b, "general.alignment", 256);
    gguf_bytes_tensor(&b, "t", 1, ne, GGML_TYPE_F32, 256);
    gguf_bytes_pad(&b, 256);
    gguf_bytes_fill(&b, 'x', 256);
    gguf_bytes_fill(&b, 'y', 32);
    assert_int_equal(open_copy(&b, b.size, &mf, &copy, &et), ERR_NONE);
    assert_int_equal(modelfile_tensor(mf, 0)->offset, 512);
    assert_int_equal(*(const char *)modelfile_data(mf, modelfile_tensor(mf, 0)), 'y');
    modelfile_close(mf);
    free(copy);
    gguf_bytes_free(&b);
}

static void test_no_tensors_no_keys(void **state)
{
    struct gguf_bytes b;
    struct modelfile *mf;
    struct err_text et;
    uint8_t *copy;

    gguf_bytes_begin(&b, 3);
    assert_int_equal(open_copy(&b, b.size, &mf, &copy, &et), ERR_NONE);
    assert_int_equal(modelfile_n_tensors(mf), 0);
    assert_null(modelfile_find(mf, "x"));
    assert_false(modelfile_has(mf, "x"));
    modelfile_close(mf);
    free(copy);
    gguf_bytes_free(&b);
}

/* --- truncation --- */

static void test_every_truncation(void **state)
{
    struct gguf_bytes b;

    good_file(&b, 3);
    for (size_t size = 0; size < b.size; size++) {
        struct modelfile *mf;
        struct err_text et;
        uint8_t *copy;
        enum err e = open_copy(&b, size, &mf, &copy, &et);

        if (e != ERR_INPUT)
            fail_msg("cut to %zu of %zu bytes: error %d", size, b.size, e);
        assert_null(mf);
        expect_words(&et, NULL, NULL);
        free(copy);
    }
    gguf_bytes_free(&b);
}

/* Any byte may be anything: the answer may be either, but it comes back. */
static void test_every_byte_changed(void **state)
{
    static const uint8_t values[] = {0x00, 0x01, 0x7f, 0x80, 0xff};
    struct gguf_bytes b;

    good_file(&b, 3);
    for (size_t at = 0; at < b.size; at++) {
        for (size_t i = 0; i < sizeof values; i++) {
            uint8_t old = b.data[at], *copy;
            struct modelfile *mf;
            struct err_text et;

            b.data[at] = values[i];
            if (open_copy(&b, b.size, &mf, &copy, &et) == ERR_NONE)
                modelfile_close(mf);
            else
                expect_words(&et, NULL, NULL);
            free(copy);
            b.data[at] = old;
        }
    }
    gguf_bytes_free(&b);
}

/* --- the header --- */

static void test_not_gguf(void **state)
{
    struct gguf_bytes b;

    gguf_bytes_begin(&b, 3);
    memcpy(b.data, "\x1b[2J", 4);
    expect_refused(&b, ERR_INPUT, "not a GGUF file", "\\x1b[2J");
    gguf_bytes_begin(&b, 3);
    b.size = 0;
    expect_refused(&b, ERR_INPUT, "empty", NULL);
}

static void test_versions(void **state)
{
    static const uint32_t refused[] = {1, 4, 0x03000000, 0x02000000};
    struct gguf_bytes b;

    for (size_t i = 0; i < 4; i++) {
        good_file(&b, refused[i]);
        expect_refused(&b, ERR_UNSUPPORTED, i < 2 ? "version" : "big-endian", NULL);
    }
    good_file(&b, 0);
    expect_refused(&b, ERR_INPUT, "version 0", NULL);
}

static void test_absurd_counts(void **state)
{
    static const uint64_t counts[] = {UINT64_MAX, 1ull << 63, 1ull << 60, 1ull << 32, 1000};
    struct gguf_bytes b;

    for (size_t i = 0; i < 5; i++) {
        good_file(&b, 3);
        gguf_bytes_counts(&b, counts[i], 4);
        expect_refused(&b, ERR_INPUT, "tensors", "can hold");
        good_file(&b, 3);
        gguf_bytes_counts(&b, 3, counts[i]);
        expect_refused(&b, ERR_INPUT, "metadata keys", "can hold");
    }
    /* One too many, which the size alone does not rule out. */
    good_file(&b, 3);
    gguf_bytes_counts(&b, 3, 5);
    expect_refused(&b, ERR_INPUT, NULL, NULL);
    /* More than we want, in a file that could hold them. */
    gguf_bytes_begin(&b, 3);
    gguf_bytes_fill(&b, 0, 14 * 5000);
    gguf_bytes_counts(&b, 0, 5000);
    expect_refused(&b, ERR_INPUT, "5000 metadata keys", "4096");
    gguf_bytes_begin(&b, 3);
    gguf_bytes_fill(&b, 0, 33 * 40000);
    gguf_bytes_counts(&b, 40000, 0);
    expect_refused(&b, ERR_INPUT, "40000 tensors", "32768");
}

/* --- keys --- */

static void test_lying_lengths(void **state)
{
    static const uint64_t lengths[] = {UINT64_MAX, UINT64_MAX - 7, 1ull << 63, 1ull << 60, 65536};
    struct gguf_bytes b;

    for (size_t i = 0; i < 5; i++) {
        gguf_bytes_begin(&b, 3); /* a key's name */
        gguf_bytes_counts(&b, 0, 1);
        gguf_bytes_u64(&b, lengths[i]);
        gguf_bytes_fill(&b, 'k', 64);
        expect_refused(&b, ERR_INPUT, "key 0", "name");

        gguf_bytes_begin(&b, 3); /* a string value */
        gguf_bytes_key(&b, "general.name", GB_STRING);
        gguf_bytes_u64(&b, lengths[i]);
        gguf_bytes_fill(&b, 's', 64);
        expect_refused(&b, ERR_INPUT, "key general.name", "past the file");

        gguf_bytes_begin(&b, 3); /* a string inside an array */
        gguf_bytes_array(&b, "some.list", GB_STRING, 2);
        gguf_bytes_string(&b, "fine");
        gguf_bytes_u64(&b, lengths[i]);
        gguf_bytes_fill(&b, 's', 64);
        expect_refused(&b, ERR_INPUT, "key some.list", "past the file");

        for (uint32_t type = 0; type <= GB_F64; type++) { /* an array's length */
            if (type == GB_ARRAY)
                continue;
            gguf_bytes_begin(&b, 3);
            gguf_bytes_array(&b, "some.list", type, lengths[i]);
            gguf_bytes_fill(&b, 0, 64);
            expect_refused(&b, ERR_INPUT, "key some.list", NULL);
        }
    }
}

static void test_bad_keys(void **state)
{
    struct gguf_bytes b;

    gguf_bytes_begin(&b, 3);
    gguf_bytes_key_u32(&b, "a.key", 1);
    gguf_bytes_key_u32(&b, "b.key", 1);
    gguf_bytes_key_string(&b, "a.key", "again");
    expect_refused(&b, ERR_INPUT, "key a.key", "twice");

    gguf_bytes_begin(&b, 3);
    gguf_bytes_key_u32(&b, "", 1);
    gguf_bytes_fill(&b, 0, 16);
    expect_refused(&b, ERR_INPUT, "key 0", "0 bytes");

    gguf_bytes_begin(&b, 3);
    gguf_bytes_counts(&b, 0, 1);
    gguf_bytes_string_n(&b, "a\0b", 3);
    gguf_bytes_u32(&b, GB_U32);
    gguf_bytes_u32(&b, 1);
    expect_refused(&b, ERR_INPUT, "key a\\x00b", "NUL");

    gguf_bytes_begin(&b, 3);
    gguf_bytes_key(&b, "odd", 13);
    gguf_bytes_fill(&b, 0, 64);
    expect_refused(&b, ERR_INPUT, "key odd", "type");

    gguf_bytes_begin(&b, 3);
    gguf_bytes_array(&b, "odd", UINT32_MAX, 1);
    gguf_bytes_fill(&b, 0, 64);
    expect_refused(&b, ERR_INPUT, "key odd", "type");

    gguf_bytes_begin(&b, 3);
    gguf_bytes_array(&b, "deep", GB_ARRAY, 1);
    gguf_bytes_fill(&b, 0, 64);
    expect_refused(&b, ERR_INPUT, "key deep", "arrays inside arrays");
}

static void test_bad_alignment(void **state)
{
    static const uint32_t wrong[] = {0, 1, 4, 33, 131072, UINT32_MAX};
    uint64_t wide = 32;
    struct gguf_bytes b;

    for (size_t i = 0; i < 6; i++) {
        gguf_bytes_begin(&b, 3);
        gguf_bytes_key_u32(&b, "general.alignment", wrong[i]);
        expect_refused(&b, ERR_INPUT, "key general.alignment", "power of two");
    }
    gguf_bytes_begin(&b, 3);
    gguf_bytes_value(&b, "general.alignment", GB_U64, &wide, 8);
    expect_refused(&b, ERR_INPUT, "key general.alignment", "u32");
}

static void test_split(void **state)
{
    uint16_t one = 1, three = 3;
    struct gguf_bytes b;
    struct modelfile *mf;
    struct err_text et;
    uint8_t *copy;

    gguf_bytes_begin(&b, 3);
    gguf_bytes_value(&b, "split.count", GB_U16, &three, 2);
    expect_refused(&b, ERR_UNSUPPORTED, "key split.count", "llama-gguf-split --merge");
    gguf_bytes_begin(&b, 3);
    gguf_bytes_key_string(&b, "split.count", "3");
    expect_refused(&b, ERR_INPUT, "key split.count", "integer");
    gguf_bytes_begin(&b, 3);
    gguf_bytes_value(&b, "split.count", GB_U16, &one, 2);
    assert_int_equal(open_copy(&b, b.size, &mf, &copy, &et), ERR_NONE);
    modelfile_close(mf);
    free(copy);
    gguf_bytes_free(&b);
}

/* --- tensors --- */

static void test_bad_tensor_names(void **state)
{
    uint64_t ne[] = {8};
    char name[66];
    struct gguf_bytes b;

    memset(name, 'n', sizeof name);
    name[64] = '\0';
    gguf_bytes_begin(&b, 3); /* 64 bytes do not fit ggml */
    gguf_bytes_tensor(&b, name, 1, ne, GGML_TYPE_F32, 0);
    gguf_bytes_fill(&b, 0, 128);
    expect_refused(&b, ERR_INPUT, "tensor 0", "nnnn");

    gguf_bytes_begin(&b, 3);
    gguf_bytes_tensor(&b, "", 1, ne, GGML_TYPE_F32, 0);
    gguf_bytes_fill(&b, 0, 128);
    expect_refused(&b, ERR_INPUT, "tensor 0", "1 to 63");

    gguf_bytes_begin(&b, 3);
    gguf_bytes_counts(&b, 1, 0);
    gguf_bytes_string_n(&b, "a\0b\x1b", 4);
    gguf_bytes_fill(&b, 0, 128);
    expect_refused(&b, ERR_INPUT, "tensor 0", "a\\x00b\\x1b");

    gguf_bytes_begin(&b, 3);
    gguf_bytes_counts(&b, 1, 0);
    gguf_bytes_u64(&b, UINT64_MAX - 3);
    gguf_bytes_fill(&b, 0, 128);
    expect_refused(&b, ERR_INPUT, "tensor 0", "past the file");

    gguf_bytes_begin(&b, 3);
    gguf_bytes_tensor(&b, "same", 1, ne, GGML_TYPE_F32, 0);
    gguf_bytes_tensor(&b, "other", 1, ne, GGML_TYPE_F32, 32);
    gguf_bytes_tensor(&b, "same", 1, ne, GGML_TYPE_F32, 64);
    gguf_bytes_pad(&b, 32);
    gguf_bytes_fill(&b, 0, 96);
    expect_refused(&b, ERR_INPUT, "tensor same", "twice");
}

static void test_bad_shapes(void **state)
{
    static const struct {
        uint32_t n_dims;
        uint64_t ne[5];
        uint32_t type;
        const char *words;
    } cases[] = {
        {0, {0}, GGML_TYPE_F32, "0 dimensions"},
        {5, {1, 1, 1, 1, 1}, GGML_TYPE_F32, "5 dimensions"},
        {1, {0}, GGML_TYPE_F32, "dimension 0 has 0"},
        {3, {8, 0, 1}, GGML_TYPE_F32, "dimension 1 has 0"},
        {1, {1ull << 63}, GGML_TYPE_F32, "dimension 0 has 9223372036854775808"},
        {2, {8, UINT64_MAX}, GGML_TYPE_F32, "dimension 1 has 18446744073709551615"},
        {2, {1ull << 32, 1ull << 31}, GGML_TYPE_F32, "more elements"},
        {4, {1ull << 16, 1ull << 16, 1ull << 16, 1ull << 16}, GGML_TYPE_I8, "more elements"},
        {1, {1ull << 62}, GGML_TYPE_F32, "more bytes"},
        {2, {INT64_MAX, 3}, GGML_TYPE_F32, "more elements"},
        {1, {33}, GGML_TYPE_Q8_0, "rows of 33 elements"},
        {2, {16, 2}, GGML_TYPE_Q4_0, "rows of 16 elements"},
        {2, {128, 2}, GGML_TYPE_Q4_K, "rows of 128 elements"},
        {1, {8}, GGML_TYPE_COUNT, "unknown type"},
        {1, {8}, UINT32_MAX, "unknown type"},
        {1, {8}, 4, "no longer supported"},
        {1, {32}, 31, "no longer supported"},
        {1, {32}, 38, "no longer supported"},
    };

    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct gguf_bytes b;

        one_tensor(&b, cases[i].n_dims, cases[i].ne, cases[i].type, 0);
        expect_refused(&b, ERR_INPUT, "tensor blk.3.attn_q.weight", cases[i].words);
    }
}

static void test_bad_places(void **state)
{
    static const uint64_t past[] = {64, 1ull << 40, UINT64_MAX - 31, 1ull << 63};
    uint64_t ne[] = {8}, large[] = {17}, huge[] = {1ull << 40};
    struct gguf_bytes b;

    one_tensor(&b, 1, ne, GGML_TYPE_F32, 16);
    expect_refused(&b, ERR_INPUT, "tensor blk.3.attn_q.weight", "offset 16 is not aligned to 32");
    for (size_t i = 0; i < 4; i++) {
        one_tensor(&b, 1, ne, GGML_TYPE_F32, past[i]);
        expect_refused(&b, ERR_INPUT, "tensor blk.3.attn_q.weight", "data ends past the file");
    }
    one_tensor(&b, 1, large, GGML_TYPE_F32, 0);
    expect_refused(&b, ERR_INPUT, "tensor blk.3.attn_q.weight", "needs 68 bytes at 96, the file");
    one_tensor(&b, 1, huge, GGML_TYPE_F32, 0);
    expect_refused(&b, ERR_INPUT, "tensor blk.3.attn_q.weight", "data ends past the file");
}

static void test_overlaps(void **state)
{
    static const uint64_t second[] = {0, 32, 64};
    uint64_t ne[] = {24}, small[] = {8};
    struct gguf_bytes b;

    for (size_t i = 0; i < 3; i++) { /* the first takes 96 bytes */
        gguf_bytes_begin(&b, 3);
        gguf_bytes_tensor(&b, "first", 1, ne, GGML_TYPE_F32, 0);
        gguf_bytes_tensor(&b, "second", 1, small, GGML_TYPE_F32, second[i]);
        gguf_bytes_tensor(&b, "third", 1, small, GGML_TYPE_F32, 96);
        gguf_bytes_pad(&b, 32);
        gguf_bytes_fill(&b, 0, 128);
        expect_refused(&b, ERR_INPUT, "first", "overlaps");
    }
}

/* --- getters --- */

static void typed_file(struct gguf_bytes *b)
{
    uint8_t u8 = 200, two = 2;
    int8_t i8 = -1;
    uint16_t u16 = 60000;
    int32_t i32 = 7, negative = -7;
    uint64_t u64 = 4294967295u, wide = 1ull << 32;
    int64_t i64 = 12, deep = INT64_MIN;
    float f32 = 1.5f, inf = 1.0f / 0.0f;
    double f64 = 0.25, big = 1e300;

    gguf_bytes_begin(b, 3);
    gguf_bytes_value(b, "u8", GB_U8, &u8, 1);
    gguf_bytes_value(b, "i8.negative", GB_I8, &i8, 1);
    gguf_bytes_value(b, "u16", GB_U16, &u16, 2);
    gguf_bytes_value(b, "i32", GB_I32, &i32, 4);
    gguf_bytes_value(b, "i32.negative", GB_I32, &negative, 4);
    gguf_bytes_value(b, "u64", GB_U64, &u64, 8);
    gguf_bytes_value(b, "u64.wide", GB_U64, &wide, 8);
    gguf_bytes_value(b, "i64", GB_I64, &i64, 8);
    gguf_bytes_value(b, "i64.negative", GB_I64, &deep, 8);
    gguf_bytes_value(b, "f32", GB_F32, &f32, 4);
    gguf_bytes_value(b, "f32.inf", GB_F32, &inf, 4);
    gguf_bytes_value(b, "f64", GB_F64, &f64, 8);
    gguf_bytes_value(b, "f64.big", GB_F64, &big, 8);
    gguf_bytes_key_bool(b, "bool", 1);
    gguf_bytes_value(b, "bool.two", GB_BOOL, &two, 1);
    gguf_bytes_key_string(b, "str", "text");
    gguf_bytes_key(b, "str.nul", GB_STRING);
    gguf_bytes_string_n(b, "a\0b", 3);
    gguf_bytes_array(b, "arr.i32", GB_I32, 3);
    gguf_bytes_u32(b, 5);
    gguf_bytes_u32(b, 6);
    gguf_bytes_u32(b, (uint32_t)-1);
    gguf_bytes_array(b, "arr.f32", GB_F32, 1);
    gguf_bytes_raw(b, &f32, 4);
    gguf_bytes_array(b, "arr.str", GB_STRING, 1);
    gguf_bytes_string(b, "x");
}

struct opened {
    struct gguf_bytes b;
    struct modelfile *mf;
    uint8_t *copy;
};

static int open_typed(void **state)
{
    struct opened *o = calloc(1, sizeof *o);
    struct err_text et;

    typed_file(&o->b);
    *state = o;
    return open_copy(&o->b, o->b.size, &o->mf, &o->copy, &et) == ERR_NONE ? 0 : -1;
}

static int close_typed(void **state)
{
    struct opened *o = *state;

    modelfile_close(o->mf);
    free(o->copy);
    gguf_bytes_free(&o->b);
    free(o);
    return 0;
}

static void expect_key(enum err e, const struct err_text *et, const char *key, const char *words)
{
    char thing[80];

    if (e != ERR_INPUT)
        fail_msg("key %s: error %d", key, e);
    snprintf(thing, sizeof thing, "key %s: ", key);
    expect_words(et, thing, words);
}

static void test_integers(void **state)
{
    static const struct {
        const char *key;
        uint32_t value;
    } good[] = {{"u8", 200}, {"u16", 60000}, {"i32", 7}, {"u64", 4294967295u}, {"i64", 12}};
    static const char *const bad[][2] = {
        {"i8.negative", "negative"}, {"i32.negative", "negative"}, {"i64.negative", "negative"},
        {"u64.wide", "32 bits"},     {"f32", "integer"},           {"bool", "integer"},
        {"str", "integer"},          {"arr.i32", "array of i32"},  {"absent", "missing"},
    };
    const struct modelfile *mf = ((struct opened *)*state)->mf;
    struct err_text et;
    uint32_t v = 99;

    for (size_t i = 0; i < sizeof good / sizeof good[0]; i++) {
        assert_int_equal(modelfile_u32(mf, good[i].key, &v, &et), ERR_NONE);
        assert_int_equal(v, good[i].value);
    }
    v = 99;
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        expect_key(modelfile_u32(mf, bad[i][0], &v, &et), &et, bad[i][0], bad[i][1]);
        if (strcmp(bad[i][0], "absent") != 0)
            expect_key(modelfile_u32_opt(mf, bad[i][0], &v, &et), &et, bad[i][0], bad[i][1]);
    }
    assert_int_equal(v, 99);
    assert_int_equal(modelfile_u32_opt(mf, "absent", &v, &et), ERR_NONE);
    assert_int_equal(v, 99);
    assert_int_equal(modelfile_u32_opt(mf, "i32", &v, &et), ERR_NONE);
    assert_int_equal(v, 7);
}

static void test_floats(void **state)
{
    static const char *const bad[][2] = {{"f32.inf", "does not fit"}, {"f64.big", "does not fit"},
                                         {"u8", "floating"},          {"str", "floating"},
                                         {"arr.f32", "floating"},     {"bool", "floating"}};
    const struct modelfile *mf = ((struct opened *)*state)->mf;
    struct err_text et;
    float v = 99;

    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        expect_key(modelfile_f32(mf, bad[i][0], &v, &et), &et, bad[i][0], bad[i][1]);
        expect_key(modelfile_f32_opt(mf, bad[i][0], &v, &et), &et, bad[i][0], bad[i][1]);
    }
    expect_key(modelfile_f32(mf, "absent", &v, &et), &et, "absent", "missing");
    assert_int_equal(modelfile_f32_opt(mf, "absent", &v, &et), ERR_NONE);
    assert_true(v == 99);
    assert_int_equal(modelfile_f32(mf, "f32", &v, &et), ERR_NONE);
    assert_true(v == 1.5f);
    assert_int_equal(modelfile_f32_opt(mf, "f64", &v, &et), ERR_NONE);
    assert_true(v == 0.25f);
}

static void test_bools_and_strings(void **state)
{
    const struct modelfile *mf = ((struct opened *)*state)->mf;
    const char *s = "default";
    struct err_text et;
    bool v = false;

    expect_key(modelfile_bool(mf, "bool.two", &v, &et), &et, "bool.two", "neither");
    expect_key(modelfile_bool(mf, "u8", &v, &et), &et, "u8", "bool");
    expect_key(modelfile_bool(mf, "absent", &v, &et), &et, "absent", "missing");
    expect_key(modelfile_bool_opt(mf, "str", &v, &et), &et, "str", "bool");
    assert_int_equal(modelfile_bool_opt(mf, "absent", &v, &et), ERR_NONE);
    assert_false(v);
    assert_int_equal(modelfile_bool(mf, "bool", &v, &et), ERR_NONE);
    assert_true(v);

    expect_key(modelfile_str(mf, "str.nul", &s, &et), &et, "str.nul", "NUL");
    expect_key(modelfile_str(mf, "u8", &s, &et), &et, "u8", "string");
    expect_key(modelfile_str(mf, "arr.str", &s, &et), &et, "arr.str", "array of string");
    expect_key(modelfile_str(mf, "absent", &s, &et), &et, "absent", "missing");
    expect_key(modelfile_str_opt(mf, "bool", &s, &et), &et, "bool", "string");
    assert_int_equal(modelfile_str_opt(mf, "absent", &s, &et), ERR_NONE);
    assert_string_equal(s, "default");
    assert_int_equal(modelfile_str(mf, "str", &s, &et), ERR_NONE);
    assert_string_equal(s, "text");
}

static void test_arrays(void **state)
{
    const struct modelfile *mf = ((struct opened *)*state)->mf;
    uint32_t v[4] = {0};
    struct err_text et;
    uint64_t n = 0;

    assert_int_equal(modelfile_u32s(mf, "u8", 4, v, &et), ERR_NONE); /* one for all */
    for (int i = 0; i < 4; i++)
        assert_int_equal(v[i], 200);
    assert_int_equal(modelfile_u32s(mf, "arr.i32", 2, v, &et), ERR_NONE); /* more than needed */
    assert_int_equal(v[0], 5);
    assert_int_equal(v[1], 6);
    expect_key(modelfile_u32s(mf, "arr.i32", 3, v, &et), &et, "arr.i32", "negative");
    expect_key(modelfile_u32s(mf, "arr.i32", 4, v, &et), &et, "arr.i32", "3 where 4");
    expect_key(modelfile_u32s(mf, "arr.f32", 1, v, &et), &et, "arr.f32", "integer");
    expect_key(modelfile_u32s(mf, "str", 1, v, &et), &et, "str", "integer");
    expect_key(modelfile_u32s(mf, "u64.wide", 1, v, &et), &et, "u64.wide", "32 bits");
    expect_key(modelfile_u32s(mf, "absent", 1, v, &et), &et, "absent", "missing");

    assert_int_equal(modelfile_arr_len(mf, "arr.i32", &n, &et), ERR_NONE);
    assert_int_equal(n, 3);
    expect_key(modelfile_arr_len(mf, "u8", &n, &et), &et, "u8", "array");
    expect_key(modelfile_arr_len(mf, "absent", &n, &et), &et, "absent", "missing");
}

static void test_long_string(void **state)
{
    struct gguf_bytes b;
    struct modelfile *mf;
    struct err_text et;
    const char *s;
    uint8_t *copy;

    gguf_bytes_begin(&b, 3);
    gguf_bytes_key(&b, "long", GB_STRING);
    gguf_bytes_u64(&b, (1 << 20) + 1);
    gguf_bytes_fill(&b, 'x', (1 << 20) + 1);
    assert_int_equal(open_copy(&b, b.size, &mf, &copy, &et), ERR_NONE);
    expect_key(modelfile_str(mf, "long", &s, &et), &et, "long", "1 MiB");
    modelfile_close(mf);
    free(copy);
    gguf_bytes_free(&b);
}

/* --- files and messages --- */

static void test_paths(void **state)
{
    static const char *const cases[][2] = {
        {"/nowhere/at/all.gguf", "/nowhere/at/all.gguf: No such file or directory"},
        {"/tmp", "/tmp: Is a directory"},
        {"/dev/null", "/dev/null: not a regular file"},
    };
    char path[] = "/tmp/test_modelfile_XXXXXX";
    struct modelfile *mf = NULL;
    struct err_text et;
    int fd;

    for (size_t i = 0; i < 3; i++) {
        assert_int_equal(modelfile_open(cases[i][0], &mf, &et), ERR_FILE);
        assert_string_equal(et.text, cases[i][1]);
    }
    fd = mkstemp(path);
    assert_true(fd >= 0);
    assert_int_equal(modelfile_open(path, &mf, &et), ERR_INPUT);
    assert_non_null(strstr(et.text, path));
    assert_non_null(strstr(et.text, "empty"));
    close(fd);
    unlink(path);
    assert_int_equal(mkfifo(path, 0600), 0); /* must not wait for a writer */
    assert_int_equal(modelfile_open(path, &mf, &et), ERR_FILE);
    assert_non_null(strstr(et.text, "not a regular file"));
    unlink(path);
    assert_null(mf);
}

/* A long path and a long hostile name leave room for the reason, and no control byte passes. */
static void test_messages_printable(void **state)
{
    struct gguf_bytes b;
    struct modelfile *mf;
    struct err_text et;
    char path[3000], name[300];

    memset(path, 'p', sizeof path);
    memcpy(path + sizeof path - 13, "\n\x1bmodel.gguf", 13);
    memset(name, '\x07', sizeof name);
    name[sizeof name - 1] = '\0';
    gguf_bytes_begin(&b, 3);
    gguf_bytes_key_u32(&b, name, 1);
    gguf_bytes_key_u32(&b, name, 2);
    assert_int_equal(modelfile_open_bytes(path, b.data, b.size, &mf, &et), ERR_INPUT);
    for (const char *p = et.text; *p; p++)
        assert_true(*p >= 0x20 && *p < 0x7f);
    assert_non_null(strstr(et.text, "model.gguf: key \\x07\\x07"));
    assert_non_null(strstr(et.text, "...: appears twice"));
    gguf_bytes_free(&b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_good),
        cmocka_unit_test(test_good_on_disk),
        cmocka_unit_test(test_alignment),
        cmocka_unit_test(test_no_tensors_no_keys),
        cmocka_unit_test(test_every_truncation),
        cmocka_unit_test(test_every_byte_changed),
        cmocka_unit_test(test_not_gguf),
        cmocka_unit_test(test_versions),
        cmocka_unit_test(test_absurd_counts),
        cmocka_unit_test(test_lying_lengths),
        cmocka_unit_test(test_bad_keys),
        cmocka_unit_test(test_bad_alignment),
        cmocka_unit_test(test_split),
        cmocka_unit_test(test_bad_tensor_names),
        cmocka_unit_test(test_bad_shapes),
        cmocka_unit_test(test_bad_places),
        cmocka_unit_test(test_overlaps),
        cmocka_unit_test_setup_teardown(test_integers, open_typed, close_typed),
        cmocka_unit_test_setup_teardown(test_floats, open_typed, close_typed),
        cmocka_unit_test_setup_teardown(test_bools_and_strings, open_typed, close_typed),
        cmocka_unit_test_setup_teardown(test_arrays, open_typed, close_typed),
        cmocka_unit_test(test_long_string),
        cmocka_unit_test(test_paths),
        cmocka_unit_test(test_messages_printable),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
