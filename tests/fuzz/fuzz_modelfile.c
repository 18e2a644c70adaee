/* Whatever the bytes, the reader answers; and what it accepts keeps the promises of modelfile.h. */
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "ggml.h"
#include "model/modelfile.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static const char *const keys[] = {
    "general.architecture",
    "general.name",
    "general.alignment",
    "llama.block_count",
    "tokenizer.ggml.model",
    "tokenizer.ggml.tokens",
    "tokenizer.ggml.scores",
    "tokenizer.chat_template",
    "tokenizer.ggml.bos_token_id",
    "some.value",
    "some.list",
    "",
};

static void require(int x)
{
    if (!x)
        abort();
}

/* An error is one line that names the file. */
static void check_answer(enum err e, const struct err_text *et)
{
    if (e == ERR_NONE)
        return;
    require(strstr(et->text, "fuzzed.gguf") != NULL);
    for (const char *p = et->text; *p; p++)
        require(*p >= 0x20 && *p < 0x7f);
}

static void walk_tensors(const struct modelfile *mf)
{
    volatile uint8_t sink = 0;

    for (int i = 0; i < modelfile_n_tensors(mf); i++) {
        const struct mf_tensor *t = modelfile_tensor(mf, i);
        const uint8_t *p = modelfile_data(mf, t);
        int64_t n = 1;

        require(strlen(t->name) > 0 && strlen(t->name) < 64);
        require(modelfile_find(mf, t->name) == t);
        require(t->n_dims >= 1 && t->n_dims <= 4);
        for (int d = 0; d < 4; d++) {
            require(d < t->n_dims ? t->ne[d] >= 1 : t->ne[d] == 1);
            require(!__builtin_mul_overflow(n, t->ne[d], &n));
        }
        require(t->ne[0] % ggml_blck_size((enum ggml_type)t->type) == 0);
        require(t->size == (uint64_t)(n / ggml_blck_size((enum ggml_type)t->type)) *
                               ggml_type_size((enum ggml_type)t->type));
        sink = (uint8_t)(sink + p[0] + p[t->size - 1]);
        modelfile_give_back(mf, t);
    }
    (void)sink;
}

static void walk_keys(const struct modelfile *mf)
{
    for (size_t i = 0; i < sizeof keys / sizeof keys[0]; i++) {
        struct err_text et;
        const char *s = "";
        uint32_t u = 0, us[4];
        uint64_t n = 0;
        float f = 0;
        bool b = false;
        enum err e;

        e = modelfile_u32(mf, keys[i], &u, &et);
        check_answer(e, &et);
        require(e == ERR_NONE || !modelfile_has(mf, keys[i]) ||
                modelfile_u32_opt(mf, keys[i], &u, NULL) != ERR_NONE);
        check_answer(modelfile_f32(mf, keys[i], &f, &et), &et);
        check_answer(modelfile_f32_opt(mf, keys[i], &f, &et), &et);
        require(f - f == 0);
        check_answer(modelfile_bool(mf, keys[i], &b, &et), &et);
        check_answer(modelfile_bool_opt(mf, keys[i], &b, &et), &et);
        check_answer(modelfile_str(mf, keys[i], &s, &et), &et);
        check_answer(modelfile_str_opt(mf, keys[i], &s, &et), &et);
        require(strlen(s) <= modelfile_size(mf));
        check_answer(modelfile_u32s(mf, keys[i], 4, us, &et), &et);
        check_answer(modelfile_arr_len(mf, keys[i], &n, &et), &et);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct modelfile *mf;
    struct err_text et;
    uint32_t n_tokens = 0;
    enum err e = modelfile_open_bytes("fuzzed.gguf", data, size, &mf, &et);

    check_answer(e, &et);
    if (e)
        return 0;
    walk_tensors(mf);
    walk_keys(mf);
    e = modelfile_check_tokenizer(mf, &n_tokens, &et);
    check_answer(e, &et);
    require(e != ERR_NONE || n_tokens > 0);
    modelfile_close(mf);
    return 0;
}
