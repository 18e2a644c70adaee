#define _GNU_SOURCE
#include "model/llama2c.h"

#include <math.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <ggml.h>
#include <gguf.h>

#include "base/check.h"
#include "base/mem.h"

enum {
    N_INTS = 7,
    BLOCK = 32,        /* elements of a q8_0 block: rows must be whole blocks */
    FIRST_BYTE = 3,    /* the token of byte 0 */
    FIRST_TEXT = 259,  /* the first token after the bytes */
    TOKEN_BYTES = 512, /* no token is longer */
    TENSORS_PER_LAYER = 9,
    FILE_TYPE_F16 = 1, /* general.file_type, llama.cpp's numbering */
    FILE_TYPE_Q8_0 = 7,
};

/* A weight beyond this has no f16, and q8_0's scales are f16. */
#define WEIGHT_MAX 65504.0f

struct shape {
    int32_t dim, hidden, n_layers, n_heads, n_kv_heads, n_vocab, n_ctx;
    int32_t kv_dim, head_dim;
};

struct plan_item {
    char name[GGML_MAX_NAME];
    const float *data;       /* (n_rows, n_cols) f32, inside the checkpoint */
    int64_t n_cols, n_rows;  /* n_rows 0: a vector, kept as f32 */
    struct ggml_tensor *out; /* its record in the GGUF */
};

struct vocab {
    char *bytes; /* every token, terminated, one after the other */
    const char **tokens;
    float *scores;
    int32_t *types;
};

/* llama.cpp's token types. */
enum { TYPE_NORMAL = 1, TYPE_UNKNOWN = 2, TYPE_CONTROL = 3, TYPE_BYTE = 6 };

static enum err bounded(const char *what, int32_t value, int32_t least, int32_t most,
                        struct err_text *et)
{
    if (value >= least && value <= most)
        return ERR_NONE;
    return err_set(et, ERR_INPUT, "checkpoint: %s is %d, outside %d..%d", what, value, least, most);
}

static enum err shape_read(const struct llama2c_input *in, struct shape *s, struct err_text *et)
{
    int32_t v[N_INTS];
    enum err e;

    if (in->n_checkpoint < sizeof v)
        return err_set(et, ERR_INPUT, "checkpoint: %zu bytes are too few for its header",
                       in->n_checkpoint);
    memcpy(v, in->checkpoint, sizeof v);
    *s = (struct shape){v[0], v[1], v[2], v[3], v[4], v[5], v[6], 0, 0};
    if (s->n_vocab < 0 && s->n_vocab > INT32_MIN)
        return err_set(et, ERR_UNSUPPORTED,
                       "checkpoint: the vocabulary size %d is negative: an output head of its own, "
                       "which is not converted",
                       s->n_vocab);
    if ((e = bounded("dim", s->dim, BLOCK, 1 << 16, et)) ||
        (e = bounded("hidden size", s->hidden, BLOCK, 1 << 18, et)) ||
        (e = bounded("number of layers", s->n_layers, 1, 1 << 10, et)) ||
        (e = bounded("number of heads", s->n_heads, 1, 1 << 10, et)) ||
        (e = bounded("number of kv heads", s->n_kv_heads, 1, s->n_heads, et)) ||
        (e = bounded("vocabulary size", s->n_vocab, FIRST_TEXT, 1 << 20, et)) ||
        (e = bounded("context", s->n_ctx, 1, 1 << 20, et)))
        return e;
    if (s->dim % BLOCK || s->hidden % BLOCK)
        return err_set(et, ERR_INPUT,
                       "checkpoint: dim %d and hidden size %d must be multiples of %d", s->dim,
                       s->hidden, BLOCK);
    if (s->dim % s->n_heads || s->n_heads % s->n_kv_heads || s->dim / s->n_heads % 2)
        return err_set(et, ERR_INPUT,
                       "checkpoint: dim %d, %d heads and %d kv heads do not divide evenly", s->dim,
                       s->n_heads, s->n_kv_heads);
    s->head_dim = s->dim / s->n_heads;
    s->kv_dim = s->head_dim * s->n_kv_heads;
    return ERR_NONE;
}

/* Every factor is bounded by shape_read, so 64 bits hold the product. */
static enum err size_check(const struct llama2c_input *in, const struct shape *s,
                           struct err_text *et)
{
    uint64_t dim = (uint64_t)s->dim;
    uint64_t per_layer =
        2 * dim + 2 * dim * dim + 2 * dim * (uint64_t)s->kv_dim + 3 * dim * (uint64_t)s->hidden;
    uint64_t n_floats = (uint64_t)s->n_vocab * dim + (uint64_t)s->n_layers * per_layer + dim +
                        (uint64_t)s->n_ctx * (uint64_t)s->head_dim;
    uint64_t want = N_INTS * sizeof(int32_t) + n_floats * sizeof(float);

    if (want != in->n_checkpoint)
        return err_set(et, ERR_INPUT, "checkpoint: its shape makes %llu bytes, but there are %zu",
                       (unsigned long long)want, in->n_checkpoint);
    return ERR_NONE;
}

/* Is this the i-th byte's token? llama2.c has exported it as the character of that number in UTF-8
 * and, in older files, as "<0x0A>". */
static bool is_byte_token(int byte, const unsigned char *s, int32_t n)
{
    char named[8];

    if (n == 6) {
        snprintf(named, sizeof named, "<0x%02X>", (unsigned)byte);
        return memcmp(s, named, 6) == 0;
    }
    if (byte < 0x80)
        return n == 1 && s[0] == byte;
    return n == 2 && s[0] == (0xC0 | byte >> 6) && s[1] == (0x80 | (byte & 0x3F));
}

/* Writes token i as GGUF wants it, terminated, and returns the byte after it. A space grows into
 * the three bytes of U+2581. */
static char *token_write(int32_t i, const unsigned char *s, int32_t n, char *to)
{
    static const char *const special[FIRST_BYTE] = {"<unk>", "<s>", "</s>"};

    if (i < FIRST_BYTE)
        return stpcpy(to, special[i]) + 1;
    if (i < FIRST_TEXT)
        return to + snprintf(to, 8, "<0x%02X>", (unsigned)(i - FIRST_BYTE)) + 1;
    for (int32_t k = 0; k < n; k++) {
        if (s[k] == ' ')
            to = stpcpy(to, "\xE2\x96\x81");
        else
            *to++ = (char)s[k];
    }
    *to++ = '\0';
    return to;
}

static enum err token_check(int32_t i, float score, const unsigned char *s, int32_t n,
                            struct err_text *et)
{
    if (!isfinite(score))
        return err_set(et, ERR_INPUT, "tokenizer: the score of token %d is not a number", i);
    if (i >= FIRST_BYTE && i < FIRST_TEXT && !is_byte_token(i - FIRST_BYTE, s, n))
        return err_set(et, ERR_INPUT, "tokenizer: token %d should stand for byte 0x%02X", i,
                       (unsigned)(i - FIRST_BYTE));
    if (i >= FIRST_TEXT && memchr(s, 0, (size_t)n))
        return err_set(et, ERR_INPUT, "tokenizer: token %d holds a zero byte", i);
    return ERR_NONE;
}

static enum err vocab_read(const struct llama2c_input *in, int32_t n_vocab, struct vocab *v,
                           struct err_text *et)
{
    const unsigned char *p = in->tokenizer, *end = p + in->n_tokenizer;
    int32_t longest, n;
    char *to;
    enum err e;

    if (in->n_tokenizer < 4 + 8 * (size_t)n_vocab)
        return err_set(et, ERR_INPUT, "tokenizer: %zu bytes are too few for %d tokens",
                       in->n_tokenizer, n_vocab);
    memcpy(&longest, p, 4);
    p += 4;
    if (longest < 1 || longest > TOKEN_BYTES)
        return err_set(et, ERR_INPUT, "tokenizer: its longest token is %d bytes, outside 1..%d",
                       longest, TOKEN_BYTES);
    /* Three bytes for each there, and room for "<0x0A>" and the terminator on each token. */
    v->bytes = mem_alloc(3 * in->n_tokenizer + 8 * (size_t)n_vocab);
    v->tokens = mem_zalloc((size_t)n_vocab, sizeof *v->tokens);
    v->scores = mem_zalloc((size_t)n_vocab, sizeof *v->scores);
    v->types = mem_zalloc((size_t)n_vocab, sizeof *v->types);
    to = v->bytes;
    for (int32_t i = 0; i < n_vocab; i++) {
        if (end - p < 8)
            return err_set(et, ERR_INPUT, "tokenizer: it ends before token %d of %d", i, n_vocab);
        memcpy(&v->scores[i], p, 4);
        memcpy(&n, p + 4, 4);
        p += 8;
        if (n < 1 || n > longest || n > end - p)
            return err_set(et, ERR_INPUT, "tokenizer: token %d has the length %d", i, n);
        if ((e = token_check(i, v->scores[i], p, n, et)))
            return e;
        v->tokens[i] = to;
        to = token_write(i, p, n, to);
        v->types[i] = i == 0           ? TYPE_UNKNOWN
                      : i < FIRST_BYTE ? TYPE_CONTROL
                      : i < FIRST_TEXT ? TYPE_BYTE
                                       : TYPE_NORMAL;
        p += n;
    }
    if (p != end)
        return err_set(et, ERR_INPUT, "tokenizer: %td bytes follow its last token", end - p);
    return ERR_NONE;
}

static void vocab_fini(struct vocab *v)
{
    free(v->bytes);
    free(v->tokens);
    free(v->scores);
    free(v->types);
}

/* Where each tensor lies in the checkpoint, in the order a reader of the GGUF expects. In the
 * checkpoint the layers' tensors stand together by kind. Returns how many items were filled. */
static int plan_fill(const struct llama2c_input *in, const struct shape *s, struct plan_item *items)
{
    const int64_t dim = s->dim, kv = s->kv_dim, ff = s->hidden, v = s->n_vocab;
    /* (rows, columns) of each kind, in the checkpoint's order; 0 rows for a vector. */
    const struct {
        const char *name;
        int64_t n_rows, n_cols;
    } kinds[TENSORS_PER_LAYER] = {
        {"attn_norm", 0, dim}, {"attn_q", dim, dim},      {"attn_k", kv, dim},
        {"attn_v", kv, dim},   {"attn_output", dim, dim}, {"ffn_norm", 0, dim},
        {"ffn_gate", ff, dim}, {"ffn_down", dim, ff},     {"ffn_up", ff, dim},
    };
    const float *p = (const float *)in->checkpoint + N_INTS;
    int n_items = 2 + TENSORS_PER_LAYER * s->n_layers;

    items[0] = (struct plan_item){"token_embd.weight", p, dim, v, NULL};
    p += v * dim;
    for (int k = 0; k < TENSORS_PER_LAYER; k++) {
        for (int il = 0; il < s->n_layers; il++) {
            struct plan_item *item = &items[1 + il * TENSORS_PER_LAYER + k];

            *item = (struct plan_item){"", p, kinds[k].n_cols, kinds[k].n_rows, NULL};
            snprintf(item->name, sizeof item->name, "blk.%d.%s.weight", il, kinds[k].name);
            p += kinds[k].n_cols * (kinds[k].n_rows ? kinds[k].n_rows : 1);
        }
    }
    items[n_items - 1] = (struct plan_item){"output_norm.weight", p, dim, 0, NULL};
    return n_items;
}

static int64_t item_count(const struct plan_item *item)
{
    return item->n_cols * (item->n_rows ? item->n_rows : 1);
}

static enum err weights_check(const struct plan_item *items, int n, struct err_text *et)
{
    for (int i = 0; i < n; i++) {
        int64_t count = item_count(&items[i]);

        for (int64_t k = 0; k < count; k++)
            if (!(fabsf(items[i].data[k]) <= WEIGHT_MAX)) /* NaN too */
                return err_set(et, ERR_INPUT, "checkpoint: tensor %s: weight %lld is out of range",
                               items[i].name, (long long)k);
    }
    return ERR_NONE;
}

static void metadata_set(struct gguf_context *g, const struct llama2c_input *in,
                         enum llama2c_type type, const struct shape *s, struct vocab *v)
{
    size_t n = (size_t)s->n_vocab;

    gguf_set_val_str(g, "general.architecture", "llama");
    if (in->name)
        gguf_set_val_str(g, "general.name", in->name);
    if (in->license)
        gguf_set_val_str(g, "general.license", in->license);
    if (in->source)
        gguf_set_val_str(g, "general.source.url", in->source);
    gguf_set_val_u32(g, "general.file_type", type == LLAMA2C_Q8_0 ? FILE_TYPE_Q8_0 : FILE_TYPE_F16);
    gguf_set_val_u32(g, "general.quantization_version", GGML_QNT_VERSION);
    gguf_set_val_u32(g, "llama.block_count", (uint32_t)s->n_layers);
    gguf_set_val_u32(g, "llama.context_length", (uint32_t)s->n_ctx);
    gguf_set_val_u32(g, "llama.embedding_length", (uint32_t)s->dim);
    gguf_set_val_u32(g, "llama.feed_forward_length", (uint32_t)s->hidden);
    gguf_set_val_u32(g, "llama.attention.head_count", (uint32_t)s->n_heads);
    gguf_set_val_u32(g, "llama.attention.head_count_kv", (uint32_t)s->n_kv_heads);
    gguf_set_val_u32(g, "llama.rope.dimension_count", (uint32_t)s->head_dim);
    gguf_set_val_f32(g, "llama.attention.layer_norm_rms_epsilon", 1e-5f);
    gguf_set_val_f32(g, "llama.rope.freq_base", 10000.0f);
    gguf_set_val_u32(g, "llama.vocab_size", (uint32_t)s->n_vocab);
    gguf_set_val_str(g, "tokenizer.ggml.model", "llama");
    gguf_set_arr_str(g, "tokenizer.ggml.tokens", v->tokens, n);
    gguf_set_arr_data(g, "tokenizer.ggml.scores", GGUF_TYPE_FLOAT32, v->scores, n);
    gguf_set_arr_data(g, "tokenizer.ggml.token_type", GGUF_TYPE_INT32, v->types, n);
    gguf_set_val_u32(g, "tokenizer.ggml.unknown_token_id", 0);
    gguf_set_val_u32(g, "tokenizer.ggml.bos_token_id", 1);
    gguf_set_val_u32(g, "tokenizer.ggml.eos_token_id", 2);
    gguf_set_val_bool(g, "tokenizer.ggml.add_bos_token", true);
    gguf_set_val_bool(g, "tokenizer.ggml.add_eos_token", false);
}

static void tensors_declare(struct gguf_context *g, struct ggml_context *c, enum llama2c_type type,
                            struct plan_item *items, int n)
{
    enum ggml_type matrix = type == LLAMA2C_Q8_0 ? GGML_TYPE_Q8_0 : GGML_TYPE_F16;

    for (int i = 0; i < n; i++) {
        struct plan_item *item = &items[i];

        if (item->n_rows)
            item->out = ggml_new_tensor_2d(c, matrix, item->n_cols, item->n_rows);
        else
            item->out = ggml_new_tensor_1d(c, GGML_TYPE_F32, item->n_cols);
        ggml_set_name(item->out, item->name);
        gguf_add_tensor(g, item->out);
    }
}

static enum err put(FILE *out, const void *bytes, size_t n, struct err_text *et)
{
    if (fwrite(bytes, 1, n, out) != n)
        return err_system(et, "write the model");
    return ERR_NONE;
}

/* Metadata, then each tensor quantised and padded to GGUF's alignment. */
static enum err gguf_put(const struct gguf_context *g, const struct plan_item *items, int n,
                         FILE *out, struct err_text *et)
{
    static const char zeros[GGUF_DEFAULT_ALIGNMENT];
    size_t n_meta = gguf_get_meta_size(g), most = 0;
    void *meta, *data;
    enum err e;

    for (int i = 0; i < n; i++)
        if (ggml_nbytes(items[i].out) > most)
            most = ggml_nbytes(items[i].out);
    meta = mem_alloc(n_meta);
    data = mem_alloc(most);
    CHECK(n_meta % GGUF_DEFAULT_ALIGNMENT == 0);
    gguf_get_meta_data(g, meta);
    e = put(out, meta, n_meta, et);
    for (int i = 0; i < n && !e; i++) {
        size_t size = ggml_nbytes(items[i].out), pad = -size % GGUF_DEFAULT_ALIGNMENT;

        if (items[i].n_rows)
            CHECK(ggml_quantize_chunk(items[i].out->type, items[i].data, data, 0, items[i].n_rows,
                                      items[i].n_cols, NULL) == size);
        else
            memcpy(data, items[i].data, size);
        if (!(e = put(out, data, size, et)))
            e = put(out, zeros, pad, et);
    }
    free(meta);
    free(data);
    return e;
}

enum err llama2c_convert(const struct llama2c_input *in, enum llama2c_type type, FILE *out,
                         struct err_text *et)
{
    struct vocab v = {0};
    struct gguf_context *g = NULL;
    struct ggml_context *c = NULL;
    struct plan_item *items = NULL;
    struct shape s = {0};
    int n_items;
    enum err e;

    CHECK((uintptr_t)in->checkpoint % _Alignof(float) == 0);
    if ((e = shape_read(in, &s, et)) || (e = size_check(in, &s, et)) ||
        (e = vocab_read(in, s.n_vocab, &v, et)))
        goto out;
    items = mem_zalloc((size_t)(2 + TENSORS_PER_LAYER * s.n_layers), sizeof *items);
    n_items = plan_fill(in, &s, items);
    if ((e = weights_check(items, n_items, et)))
        goto out;
    g = gguf_init_empty();
    c = ggml_init((struct ggml_init_params){
        .mem_size = (size_t)n_items * ggml_tensor_overhead() + 1024, .no_alloc = true});
    if (!g || !c) {
        e = err_set(et, ERR_MEMORY, "no memory to describe the model");
        goto out;
    }
    metadata_set(g, in, type, &s, &v);
    tensors_declare(g, c, type, items, n_items);
    e = gguf_put(g, items, n_items, out, et);
out:
    if (c)
        ggml_free(c);
    if (g)
        gguf_free(g);
    free(items);
    vocab_fini(&v);
    return e;
}
