#include "bench_model.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/check.h"
#include "base/mem.h"
#include "gguf.h"
#include "support/tiny_model.h"

enum { N_KV_HEADS = 4, HEAD_DIM = 64 };

static const struct shape {
    const char *name;
    int n_embd, n_ff, n_heads, n_vocab, n_layers, context;
} shapes[] = {
    [BENCH_WIDE] = {"wide", 2048, 5632, 32, BENCH_VOCAB, BENCH_LAYERS, 2048},
    [BENCH_SLIM] = {"slim", 1024, 768, 16, 4096, 8, 8192},
};

struct writer {
    const struct shape *shape;
    struct gguf_context *gguf;
    struct ggml_context *ctx; /* shapes only */
    struct tiny_rng rng;
};

static void put(struct writer *w, const char *name, enum ggml_type type, int64_t ne0, int64_t ne1)
{
    struct ggml_tensor *t =
        ne1 ? ggml_new_tensor_2d(w->ctx, type, ne0, ne1) : ggml_new_tensor_1d(w->ctx, type, ne0);

    ggml_set_name(t, name);
    gguf_add_tensor(w->gguf, t);
}

static void put_layer(struct writer *w, int layer, enum ggml_type type)
{
    const int width = w->shape->n_embd, wide = w->shape->n_ff;
    const int q = w->shape->n_heads * HEAD_DIM, kv = N_KV_HEADS * HEAD_DIM;
    const struct {
        const char *stem;
        int ne0, ne1;
    } tensors[] = {
        {"attn_norm", width, 0},   {"attn_q", width, q},      {"attn_k", width, kv},
        {"attn_v", width, kv},     {"attn_output", q, width}, {"ffn_norm", width, 0},
        {"ffn_gate", width, wide}, {"ffn_up", width, wide},   {"ffn_down", wide, width},
    };

    for (size_t i = 0; i < ARRAY_LEN(tensors); i++) {
        char name[GGML_MAX_NAME];

        snprintf(name, sizeof(name), "blk.%d.%s.weight", layer, tensors[i].stem);
        put(w, name, tensors[i].ne1 ? type : GGML_TYPE_F32, tensors[i].ne0, tensors[i].ne1);
    }
}

static void put_all(struct writer *w, enum ggml_type type, int n_layers)
{
    const struct shape *s = w->shape;
    struct gguf_context *g = w->gguf;
    enum ggml_type output =
        type == GGML_TYPE_Q8_0 || type == GGML_TYPE_Q2_0 ? type : GGML_TYPE_Q6_K;

    gguf_set_val_str(g, "general.architecture", "llama");
    gguf_set_val_str(g, "general.name",
                     s != &shapes[BENCH_WIDE]  ? "random, slim"
                     : n_layers == s->n_layers ? "random 1.1B"
                     : n_layers < s->n_layers  ? "random, short"
                                               : "random, long");
    gguf_set_val_u32(g, "llama.context_length", (uint32_t)s->context);
    gguf_set_val_u32(g, "llama.embedding_length", (uint32_t)s->n_embd);
    gguf_set_val_u32(g, "llama.block_count", (uint32_t)n_layers);
    gguf_set_val_u32(g, "llama.feed_forward_length", (uint32_t)s->n_ff);
    gguf_set_val_u32(g, "llama.attention.head_count", (uint32_t)s->n_heads);
    gguf_set_val_u32(g, "llama.attention.head_count_kv", N_KV_HEADS);
    gguf_set_val_u32(g, "llama.rope.dimension_count", HEAD_DIM);
    gguf_set_val_f32(g, "llama.rope.freq_base", 10000.0f);
    gguf_set_val_f32(g, "llama.attention.layer_norm_rms_epsilon", 1e-5f);
    tiny_put_vocab(g, s->n_vocab);
    put(w, "token_embd.weight", type, s->n_embd, s->n_vocab);
    for (int i = 0; i < n_layers; i++)
        put_layer(w, i, type);
    put(w, "output_norm.weight", GGML_TYPE_F32, s->n_embd, 0);
    put(w, "output.weight", output, s->n_embd, s->n_vocab);
}

/* Where a block keeps its scales, and what one must be for uniformly random quants to have variance
 * 1. */
static void set_scales(enum ggml_type type, uint8_t *block, float std)
{
    ggml_fp16_t d, m;

    switch (type) {
    case GGML_TYPE_Q4_0: /* d (q - 8), q in 0..15 */
        d = ggml_fp32_to_fp16(std / 4.6f);
        memcpy(block, &d, sizeof(d));
        break;
    case GGML_TYPE_Q2_0: /* d (q - 1), q in 0..3 */
        d = ggml_fp32_to_fp16(std / 1.2f);
        memcpy(block, &d, sizeof(d));
        break;
    case GGML_TYPE_Q8_0: /* d q, q in -128..127 */
        d = ggml_fp32_to_fp16(std / 73.9f);
        memcpy(block, &d, sizeof(d));
        break;
    case GGML_TYPE_Q4_K: /* d s q - m s', s and s' in 0..63, q in 0..15: m = 7.5 d centres it */
        d = ggml_fp32_to_fp16(std / 255.0f);
        m = ggml_fp32_to_fp16(7.5f * std / 255.0f);
        memcpy(block, &d, sizeof(d));
        memcpy(block + 2, &m, sizeof(m));
        break;
    case GGML_TYPE_Q6_K: /* d s (q - 32), s in -128..127, q in 0..63; the scale comes last */
        d = ggml_fp32_to_fp16(std / 1367.0f);
        memcpy(block + ggml_type_size(type) - sizeof(d), &d, sizeof(d));
        break;
    default:
        CHECK(!"a type with known blocks");
    }
}

static void fill(struct writer *w, const struct ggml_tensor *t, uint8_t *buf, size_t size)
{
    size_t block = ggml_type_size(t->type);
    float std = 1.0f / sqrtf((float)t->ne[0]);

    if (t->type == GGML_TYPE_F32) {
        for (size_t i = 0; i < size / sizeof(float); i++)
            ((float *)buf)[i] = 1.0f + 0.1f * tiny_rng_normal(&w->rng);
        return;
    }
    for (size_t i = 0; i + 8 <= size; i += 8) {
        uint64_t bits = tiny_rng_next(&w->rng);

        memcpy(buf + i, &bits, sizeof(bits));
    }
    memset(buf + size / 8 * 8, 0x55, size % 8);
    for (size_t i = 0; i + block <= size; i += block)
        set_scales(t->type, buf + i, std);
}

static enum err write_data(struct writer *w, FILE *file, const char *path, struct err_text *et)
{
    size_t align = gguf_get_alignment(w->gguf);
    enum err e = ERR_NONE;

    for (int64_t i = 0; i < gguf_get_n_tensors(w->gguf) && e == ERR_NONE; i++) {
        struct ggml_tensor *t = ggml_get_tensor(w->ctx, gguf_get_tensor_name(w->gguf, i));
        size_t size = ggml_nbytes(t), padded = (size + align - 1) / align * align;
        uint8_t *buf = mem_zalloc(padded, 1);

        fill(w, t, buf, size);
        if (fwrite(buf, 1, padded, file) != padded)
            e = err_system(et, "%s", path);
        free(buf);
    }
    return e;
}

bool bench_shape_find(const char *name, enum bench_shape *shape)
{
    for (size_t i = 0; i < ARRAY_LEN(shapes); i++)
        if (strcmp(name, shapes[i].name) == 0) {
            *shape = (enum bench_shape)i;
            return true;
        }
    return false;
}

enum err bench_model_write(const char *path, enum ggml_type type, struct err_text *et)
{
    return bench_model_write_shape(path, BENCH_WIDE, type, 0, et);
}

enum err bench_model_write_shape(const char *path, enum bench_shape shape, enum ggml_type type,
                                 int n_layers, struct err_text *et)
{
    struct ggml_init_params params = {.mem_size = 1 << 20, .mem_buffer = NULL, .no_alloc = true};
    struct writer w = {.shape = &shapes[shape], .rng = {1234}};
    char *part;
    FILE *file;
    enum err e;

    if (access(path, R_OK) == 0)
        return ERR_NONE;
    w.ctx = ggml_init(params);
    w.gguf = gguf_init_empty();
    part = mem_printf("%s.part", path);
    put_all(&w, type, n_layers ? n_layers : shapes[shape].n_layers);
    file = fopen(part, "wb");
    if (!file) {
        e = err_system(et, "%s", part);
        goto out;
    }
    e = gguf_write_to_file_ptr(w.gguf, file, true)
            ? write_data(&w, file, part, et)
            : err_set(et, ERR_FILE, "%s: write failed", part);
    if (fclose(file) != 0 && e == ERR_NONE)
        e = err_system(et, "%s", part);
    if (e == ERR_NONE && rename(part, path) != 0)
        e = err_system(et, "%s", path);
out:
    free(part);
    gguf_free(w.gguf);
    ggml_free(w.ctx);
    return e;
}
