#include "tiny_model.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/mem.h"
#include "gguf.h"

enum {
    QKV_FUSED = 1 << 0,
    QKV_BIAS = 1 << 1,
    OUT_BIAS = 1 << 2, /* of the attention's output projection */
    FFN_BIAS = 1 << 3,
    FFN_GATED = 1 << 4,
    FFN_FUSED = 1 << 5, /* gate and up in one ffn_up */
    QK_NORM = 1 << 6,
    POST_NORMS = 1 << 7,
    LAYER_NORM = 1 << 8, /* norms with a bias and layer_norm_epsilon; else RMS */
    TIED = 1 << 9,
    EMBD_NORM = 1 << 10,
    POS_EMBD = 1 << 11,
    ROPE_FREQS = 1 << 12,
    ROPE_LONG_SHORT = 1 << 13,
    NO_ROPE = 1 << 14,
};
#define ALL_BIASES (QKV_BIAS | OUT_BIAS | FFN_BIAS)

struct spec {
    const char *name, *arch;
    int n_layers, n_embd, n_heads, n_kv_heads, head_dim, n_rot, n_ff, n_experts, n_vocab;
    unsigned flags;
};

/* Whose vocabulary a model gets. */
struct words {
    void (*put)(struct gguf_context *gguf, int n_vocab, const void *arg);
    const void *arg;
};

/* Vocabularies that are no multiple of 8 or 4 keep the output out of the repacked kernels. */
static const struct spec specs[TINY_N_VARIANTS] = {
    [TINY_LLAMA] = {"llama", "llama", 3, 256, 8, 8, 32, 32, 512, 0, 320, FFN_GATED},
    [TINY_LLAMA_GQA] = {"llama-gqa", "llama", 3, 768, 12, 4, 64, 64, 512, 0, 320, FFN_GATED},
    [TINY_LLAMA_FREQS] = {"llama-freqs", "llama", 3, 256, 4, 1, 64, 64, 512, 0, 320,
                          FFN_GATED | ROPE_FREQS | TIED},
    [TINY_LLAMA_BIAS] = {"llama-bias", "llama", 2, 768, 16, 8, 48, 48, 512, 0, 323,
                         FFN_GATED | ALL_BIASES},
    [TINY_LLAMA_SCALED] = {"llama-scaled", "llama", 2, 256, 4, 2, 64, 64, 512, 0, 320, FFN_GATED},
    [TINY_LLAMA_YARN] = {"llama-yarn", "llama", 2, 256, 4, 2, 64, 64, 512, 0, 320, FFN_GATED},
    [TINY_MIXTRAL] = {"mixtral", "llama", 3, 256, 8, 2, 32, 32, 256, 8, 320, FFN_GATED},
    [TINY_QWEN2] = {"qwen2", "qwen2", 3, 256, 4, 2, 64, 64, 512, 0, 320,
                    FFN_GATED | QKV_BIAS | TIED},
    [TINY_QWEN3] = {"qwen3", "qwen3", 3, 256, 4, 2, 128, 128, 512, 0, 320,
                    FFN_GATED | QK_NORM | TIED},
    [TINY_QWEN3MOE] = {"qwen3moe", "qwen3moe", 3, 256, 8, 2, 64, 64, 256, 8, 320,
                       FFN_GATED | QK_NORM},
    [TINY_GEMMA2] = {"gemma2", "gemma2", 4, 256, 2, 1, 256, 256, 512, 0, 320,
                     FFN_GATED | POST_NORMS | TIED},
    [TINY_GEMMA3] = {"gemma3", "gemma3", 8, 256, 4, 1, 64, 64, 512, 0, 320,
                     FFN_GATED | POST_NORMS | QK_NORM | TIED},
    [TINY_PHI3] = {"phi3", "phi3", 2, 768, 8, 8, 96, 96, 512, 0, 320,
                   FFN_GATED | QKV_FUSED | FFN_FUSED | ROPE_LONG_SHORT},
    [TINY_GPT2] = {"gpt2", "gpt2", 3, 256, 4, 4, 64, 64, 512, 0, 320,
                   QKV_FUSED | ALL_BIASES | LAYER_NORM | TIED | POS_EMBD | NO_ROPE},
    [TINY_BLOOM] = {"bloom", "bloom", 2, 768, 12, 12, 64, 64, 768, 0, 320,
                    QKV_FUSED | ALL_BIASES | LAYER_NORM | TIED | EMBD_NORM | NO_ROPE},
    [TINY_GPTNEOX] = {"gptneox", "gptneox", 3, 256, 4, 4, 64, 16, 512, 0, 321,
                      QKV_FUSED | ALL_BIASES | LAYER_NORM},
    [TINY_GPTNEOX_SEQ] = {"gptneox-seq", "gptneox", 3, 256, 4, 4, 64, 16, 512, 0, 320,
                          QKV_FUSED | ALL_BIASES | LAYER_NORM},
};

const char *tiny_name(enum tiny_variant v)
{
    return specs[v].name;
}

const char *tiny_arch(enum tiny_variant v)
{
    return specs[v].arch;
}

uint64_t tiny_rng_next(struct tiny_rng *r)
{
    /* splitmix64: Steele, Lea, Flood, "Fast splittable pseudorandom number generators", 2014. */
    uint64_t z = (r->state += 0x9e3779b97f4a7c15u);

    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}

float tiny_rng_normal(struct tiny_rng *r)
{
    /* Four uniforms added up are close enough to a bell, and need no libm whose last bit could
     * change the files. Their variance is 4/12. */
    uint64_t z = tiny_rng_next(r);
    float sum = 0.0f;

    for (int i = 0; i < 4; i++, z >>= 16)
        sum += (float)(z & 0xffff) / 65536.0f - 0.5f;
    return sum * 1.7320508f;
}

static void die(const char *what, const char *name)
{
    fprintf(stderr, "tiny model: %s: %s\n", what, name);
    exit(1);
}

struct writer {
    struct gguf_context *gguf;
    struct ggml_context *ctx;
    const struct spec *spec;
    enum ggml_type type;
    struct tiny_rng rng;
};

static struct ggml_context *context_new(size_t size, bool no_alloc)
{
    struct ggml_init_params params = {.mem_size = size, .no_alloc = no_alloc};
    struct ggml_context *ctx = ggml_init(params);

    if (!ctx)
        die("no memory", "context");
    return ctx;
}

/* A matrix or stack of matrices, normal(0, std), in the writer's type; std 0 means 1/sqrt(fan in).
 */
static void put_matrix(struct writer *w, const char *name, int64_t ne0, int64_t ne1, int64_t ne2,
                       float std)
{
    enum ggml_type type = ne0 % ggml_blck_size(w->type) ? GGML_TYPE_Q8_0 : w->type;
    struct ggml_tensor *t = ne2 ? ggml_new_tensor_3d(w->ctx, type, ne0, ne1, ne2)
                                : ggml_new_tensor_2d(w->ctx, type, ne0, ne1);
    int64_t n = ggml_nelements(t);
    float *f = mem_alloc((size_t)n * sizeof(*f));

    if (std == 0.0f)
        std = 1.0f / sqrtf((float)ne0);
    for (int64_t i = 0; i < n; i++)
        f[i] = std * tiny_rng_normal(&w->rng);
    if (type == GGML_TYPE_F32)
        memcpy(t->data, f, (size_t)n * sizeof(*f));
    else
        ggml_quantize_chunk(type, f, t->data, 0, n / ne0, ne0, NULL);
    free(f);
    ggml_set_name(t, name);
    gguf_add_tensor(w->gguf, t);
}

static void put_vector(struct writer *w, const char *name, int64_t n, float mean, float std)
{
    struct ggml_tensor *t = ggml_new_tensor_1d(w->ctx, GGML_TYPE_F32, n);
    float *f = t->data;

    for (int64_t i = 0; i < n; i++)
        f[i] = mean + std * tiny_rng_normal(&w->rng);
    ggml_set_name(t, name);
    gguf_add_tensor(w->gguf, t);
}

static void put_norm(struct writer *w, const char *stem, int64_t n)
{
    char name[GGML_MAX_NAME];

    snprintf(name, sizeof(name), "%s.weight", stem);
    put_vector(w, name, n, 1.0f, 0.2f);
    if (w->spec->flags & LAYER_NORM) {
        snprintf(name, sizeof(name), "%s.bias", stem);
        put_vector(w, name, n, 0.0f, 0.1f);
    }
}

static void put_layer_norm(struct writer *w, int layer, const char *stem, int64_t n)
{
    char name[GGML_MAX_NAME];

    snprintf(name, sizeof(name), "blk.%d.%s", layer, stem);
    put_norm(w, name, n);
}

/* blk.<layer>.<stem>.weight (ne0, ne1) and, when the spec has `bias`, .bias (ne1). */
static void put_linear(struct writer *w, int layer, const char *stem, int64_t ne0, int64_t ne1,
                       unsigned bias)
{
    char name[GGML_MAX_NAME];

    snprintf(name, sizeof(name), "blk.%d.%s.weight", layer, stem);
    put_matrix(w, name, ne0, ne1, 0, 0.0f);
    if (w->spec->flags & bias) {
        snprintf(name, sizeof(name), "blk.%d.%s.bias", layer, stem);
        put_vector(w, name, ne1, 0.0f, 0.2f);
    }
}

static void put_experts(struct writer *w, int layer)
{
    const struct spec *s = w->spec;
    enum ggml_type type = w->type;
    char name[GGML_MAX_NAME];

    /* The router stays in F32, as in real files: it is small and decides a lot. */
    w->type = GGML_TYPE_F32;
    snprintf(name, sizeof(name), "blk.%d.ffn_gate_inp.weight", layer);
    put_matrix(w, name, s->n_embd, s->n_experts, 0, 0.0f);
    w->type = type;
    snprintf(name, sizeof(name), "blk.%d.ffn_gate_exps.weight", layer);
    put_matrix(w, name, s->n_embd, s->n_ff, s->n_experts, 0.0f);
    snprintf(name, sizeof(name), "blk.%d.ffn_up_exps.weight", layer);
    put_matrix(w, name, s->n_embd, s->n_ff, s->n_experts, 0.0f);
    snprintf(name, sizeof(name), "blk.%d.ffn_down_exps.weight", layer);
    put_matrix(w, name, s->n_ff, s->n_embd, s->n_experts, 0.0f);
}

static void put_ffn(struct writer *w, int layer)
{
    const struct spec *s = w->spec;

    put_layer_norm(w, layer, "ffn_norm", s->n_embd);
    if (s->n_experts) {
        put_experts(w, layer);
        return;
    }
    if ((s->flags & FFN_GATED) && !(s->flags & FFN_FUSED))
        put_linear(w, layer, "ffn_gate", s->n_embd, s->n_ff, FFN_BIAS);
    put_linear(w, layer, "ffn_up", s->n_embd, s->flags & FFN_FUSED ? 2 * s->n_ff : s->n_ff,
               FFN_BIAS);
    put_linear(w, layer, "ffn_down", s->n_ff, s->n_embd, FFN_BIAS);
    if (s->flags & POST_NORMS)
        put_layer_norm(w, layer, "post_ffw_norm", s->n_embd);
}

static void put_layer(struct writer *w, int layer)
{
    const struct spec *s = w->spec;
    int q = s->n_heads * s->head_dim, kv = s->n_kv_heads * s->head_dim;

    put_layer_norm(w, layer, "attn_norm", s->n_embd);
    if (s->flags & QKV_FUSED) {
        put_linear(w, layer, "attn_qkv", s->n_embd, q + 2 * kv, QKV_BIAS);
    } else {
        put_linear(w, layer, "attn_q", s->n_embd, q, QKV_BIAS);
        put_linear(w, layer, "attn_k", s->n_embd, kv, QKV_BIAS);
        put_linear(w, layer, "attn_v", s->n_embd, kv, QKV_BIAS);
    }
    if (s->flags & QK_NORM) {
        put_layer_norm(w, layer, "attn_q_norm", s->head_dim);
        put_layer_norm(w, layer, "attn_k_norm", s->head_dim);
    }
    put_linear(w, layer, "attn_output", q, s->n_embd, OUT_BIAS);
    if (s->flags & POST_NORMS)
        put_layer_norm(w, layer, "post_attention_norm", s->n_embd);
    put_ffn(w, layer);
}

static void put_tensors(struct writer *w)
{
    const struct spec *s = w->spec;

    put_matrix(w, "token_embd.weight", s->n_embd, s->n_vocab, 0, 0.25f);
    if (s->flags & EMBD_NORM)
        put_norm(w, "token_embd_norm", s->n_embd);
    if (s->flags & POS_EMBD) {
        enum ggml_type type = w->type;

        w->type = GGML_TYPE_F32;
        put_matrix(w, "position_embd.weight", s->n_embd, TINY_CTX_TRAIN, 0, 0.1f);
        w->type = type;
    }
    if (s->flags & ROPE_FREQS)
        put_vector(w, "rope_freqs.weight", s->n_rot / 2, 2.0f, 0.5f);
    if (s->flags & ROPE_LONG_SHORT) {
        put_vector(w, "rope_factors_long.weight", s->n_rot / 2, 4.0f, 1.0f);
        put_vector(w, "rope_factors_short.weight", s->n_rot / 2, 1.2f, 0.1f);
    }
    for (int i = 0; i < s->n_layers; i++)
        put_layer(w, i);
    put_norm(w, "output_norm", s->n_embd);
    if (!(s->flags & TIED))
        put_matrix(w, "output.weight", s->n_embd, s->n_vocab, 0, 2.0f / sqrtf((float)s->n_embd));
}

/* <unk> <s> </s>, the 256 bytes, then words "t259"...: the smallest vocabulary of type "llama" that
 * llama.cpp loads. */
void tiny_put_vocab(struct gguf_context *gguf, int n)
{
    const char **tokens = mem_zalloc((size_t)n, sizeof(*tokens));
    float *scores = mem_zalloc((size_t)n, sizeof(*scores));
    int32_t *types = mem_zalloc((size_t)n, sizeof(*types));

    for (int i = 0; i < n; i++) {
        static const char *special[] = {"<unk>", "<s>", "</s>"};

        if (i < 3)
            tokens[i] = mem_strdup(special[i]);
        else if (i < 259)
            tokens[i] = mem_printf("<0x%02X>", i - 3);
        else
            tokens[i] = mem_printf("t%d", i);
        scores[i] = i < 259 ? 0.0f : -(float)i;
        types[i] = i == 0 ? 2 : i < 3 ? 3 : i < 259 ? 6 : 1; /* unknown, control, byte, normal */
    }
    gguf_set_val_str(gguf, "tokenizer.ggml.model", "llama");
    gguf_set_arr_str(gguf, "tokenizer.ggml.tokens", tokens, (size_t)n);
    gguf_set_arr_data(gguf, "tokenizer.ggml.scores", GGUF_TYPE_FLOAT32, scores, (size_t)n);
    gguf_set_arr_data(gguf, "tokenizer.ggml.token_type", GGUF_TYPE_INT32, types, (size_t)n);
    gguf_set_val_u32(gguf, "tokenizer.ggml.unknown_token_id", 0);
    gguf_set_val_u32(gguf, "tokenizer.ggml.bos_token_id", 1);
    gguf_set_val_u32(gguf, "tokenizer.ggml.eos_token_id", 2);
    for (int i = 0; i < n; i++)
        free((void *)tokens[i]);
    free(tokens);
    free(scores);
    free(types);
}

static const char *key(const struct spec *s, const char *suffix)
{
    static _Thread_local char buf[128];

    snprintf(buf, sizeof(buf), "%s.%s", s->arch, suffix);
    return buf;
}

static void put_family_keys(struct gguf_context *g, enum tiny_variant v)
{
    const struct spec *s = &specs[v];

    switch (v) {
    case TINY_LLAMA_SCALED:
        gguf_set_val_f32(g, key(s, "rope.scale_linear"), 4.0f);
        break;
    case TINY_LLAMA_YARN:
        gguf_set_val_str(g, key(s, "rope.scaling.type"), "yarn");
        gguf_set_val_f32(g, key(s, "rope.scaling.factor"), 4.0f);
        gguf_set_val_u32(g, key(s, "rope.scaling.original_context_length"), 64);
        break;
    case TINY_GEMMA2:
        gguf_set_val_u32(g, key(s, "attention.sliding_window"), 8);
        gguf_set_val_f32(g, key(s, "attn_logit_softcapping"), 5.0f);
        gguf_set_val_f32(g, key(s, "final_logit_softcapping"), 10.0f);
        break;
    case TINY_GEMMA3:
        gguf_set_val_u32(g, key(s, "attention.sliding_window"), 8);
        gguf_set_val_f32(g, key(s, "rope.freq_base"), 1e6f);
        gguf_set_val_str(g, key(s, "rope.scaling.type"), "linear");
        gguf_set_val_f32(g, key(s, "rope.scaling.factor"), 8.0f);
        break;
    case TINY_PHI3:
        /* Real files carry a window that llama.cpp ignores, and so must we to agree with it. */
        gguf_set_val_u32(g, key(s, "attention.sliding_window"), 16);
        gguf_set_val_u32(g, key(s, "rope.scaling.original_context_length"), TINY_PHI3_CTX_ORIG);
        gguf_set_val_f32(g, key(s, "rope.scaling.attn_factor"), 1.19f);
        break;
    case TINY_QWEN3MOE:
        gguf_set_val_u32(g, key(s, "expert_feed_forward_length"), (uint32_t)s->n_ff);
        gguf_set_val_u32(g, key(s, "feed_forward_length"), 3 * (uint32_t)s->n_ff);
        break;
    case TINY_GPTNEOX:
    case TINY_GPTNEOX_SEQ:
        gguf_set_val_bool(g, key(s, "use_parallel_residual"), v == TINY_GPTNEOX);
        break;
    default:
        break;
    }
}

static void put_keys(struct gguf_context *g, enum tiny_variant v, const struct spec *s)
{
    gguf_set_val_str(g, "general.architecture", s->arch);
    /* Not the variant's name: llama.cpp expects particular tokens in a model called "phi3". */
    gguf_set_val_str(g, "general.name", "tiny");
    gguf_set_val_u32(g, key(s, "context_length"), TINY_CTX_TRAIN);
    gguf_set_val_u32(g, key(s, "embedding_length"), (uint32_t)s->n_embd);
    gguf_set_val_u32(g, key(s, "block_count"), (uint32_t)s->n_layers);
    gguf_set_val_u32(g, key(s, "feed_forward_length"), (uint32_t)s->n_ff);
    gguf_set_val_u32(g, key(s, "attention.head_count"), (uint32_t)s->n_heads);
    if (s->n_kv_heads != s->n_heads)
        gguf_set_val_u32(g, key(s, "attention.head_count_kv"), (uint32_t)s->n_kv_heads);
    if (s->head_dim * s->n_heads != s->n_embd) {
        gguf_set_val_u32(g, key(s, "attention.key_length"), (uint32_t)s->head_dim);
        gguf_set_val_u32(g, key(s, "attention.value_length"), (uint32_t)s->head_dim);
    }
    gguf_set_val_f32(g,
                     key(s, s->flags & LAYER_NORM ? "attention.layer_norm_epsilon"
                                                  : "attention.layer_norm_rms_epsilon"),
                     1e-5f);
    if (!(s->flags & NO_ROPE)) {
        gguf_set_val_u32(g, key(s, "rope.dimension_count"), (uint32_t)s->n_rot);
        gguf_set_val_f32(g, key(s, "rope.freq_base"), 10000.0f);
    }
    if (s->n_experts) {
        gguf_set_val_u32(g, key(s, "expert_count"), (uint32_t)s->n_experts);
        gguf_set_val_u32(g, key(s, "expert_used_count"), 2);
    }
    put_family_keys(g, v);
}

void tiny_write(const char *path, enum tiny_variant v, enum ggml_type type, uint64_t seed)
{
    tiny_write_layers(path, v, type, seed, specs[v].n_layers);
}

/* words: NULL for the usual ones. */
static void write_spec(const char *path, enum tiny_variant v, struct spec spec, enum ggml_type type,
                       uint64_t seed, const struct words *words)
{
    struct writer w = {
        .gguf = gguf_init_empty(),
        .ctx = context_new((size_t)64 << 20, false),
        .spec = &spec,
        .type = type,
        .rng = {seed},
    };

    put_keys(w.gguf, v, &spec);
    if (words)
        words->put(w.gguf, spec.n_vocab, words->arg);
    else
        tiny_put_vocab(w.gguf, spec.n_vocab);
    put_tensors(&w);
    if (!gguf_write_to_file(w.gguf, path, false))
        die("cannot write", path);
    gguf_free(w.gguf);
    ggml_free(w.ctx);
}

void tiny_write_layers(const char *path, enum tiny_variant v, enum ggml_type type, uint64_t seed,
                       int n_layers)
{
    struct spec spec = specs[v];

    spec.n_layers = n_layers;
    write_spec(path, v, spec, type, seed, NULL);
}

void tiny_write_vocab(const char *path, enum tiny_variant v, enum ggml_type type, int n_vocab,
                      void (*put)(struct gguf_context *gguf, int n_vocab, const void *arg),
                      const void *arg)
{
    struct spec spec = specs[v];

    spec.n_vocab = n_vocab;
    write_spec(path, v, spec, type, 1, &(struct words){put, arg});
}

static const struct tiny_edit *edit_of(const struct tiny_edit *edits, int n, const char *name)
{
    for (int i = 0; i < n; i++)
        if (edits[i].kind <= TINY_RENAME_TENSOR && !strcmp(edits[i].name, name))
            return &edits[i];
    return NULL;
}

static void edit_keys(struct gguf_context *g, const struct tiny_edit *edits, int n)
{
    for (int i = 0; i < n; i++) {
        const struct tiny_edit *e = &edits[i];

        if (e->kind == TINY_DROP_KEY && gguf_remove_key(g, e->name) < 0)
            die("no such key to drop", e->name);
        if (e->kind == TINY_SET_U32)
            gguf_set_val_u32(g, e->name, e->num);
        if (e->kind == TINY_SET_F32)
            gguf_set_val_f32(g, e->name, e->real);
        if (e->kind == TINY_SET_STR)
            gguf_set_val_str(g, e->name, e->str);
    }
}

/* The damaged stand-in for t, or NULL when it is to be left out. */
static struct ggml_tensor *edit_tensor(struct ggml_context *ctx, struct ggml_tensor *t,
                                       const struct tiny_edit *e)
{
    enum ggml_type type = t->type;
    int64_t ne[GGML_MAX_DIMS];
    struct ggml_tensor *out;

    memcpy(ne, t->ne, sizeof(ne));
    if (e->kind == TINY_DROP_TENSOR)
        return NULL;
    if (e->kind == TINY_RENAME_TENSOR) {
        ggml_set_name(t, e->str);
        return t;
    }
    if (e->kind == TINY_RETYPE_TENSOR)
        type = (enum ggml_type)e->num;
    else
        ne[ggml_n_dims(t) - 1]++;
    out = ggml_new_tensor(ctx, type, ggml_n_dims(t), ne);
    ggml_set_name(out, e->name);
    return out;
}

/* The header, and a hole where the data would be. */
static void write_sparse(const struct gguf_context *g, const char *path)
{
    int64_t last = gguf_get_n_tensors(g) - 1;
    size_t size = gguf_get_meta_size(g);

    size += gguf_get_tensor_offset(g, last);
    size += GGML_PAD(gguf_get_tensor_size(g, last), gguf_get_alignment(g));
    if (!gguf_write_to_file(g, path, true) || truncate(path, (off_t)size) != 0)
        die("cannot write", path);
}

void tiny_edit(const char *path_in, const char *path_out, const struct tiny_edit *edits,
               int n_edits)
{
    struct ggml_context *ctx = NULL, *extra = context_new((size_t)1 << 20, true);
    struct gguf_init_params params = {.no_alloc = true, .ctx = &ctx};
    struct gguf_context *in = gguf_init_from_file(path_in, params);
    struct gguf_context *out = gguf_init_empty();
    int n_used = 0, n_wanted = 0;

    if (!in)
        die("cannot read", path_in);
    gguf_set_kv(out, in);
    edit_keys(out, edits, n_edits);
    for (int i = 0; i < n_edits; i++)
        n_wanted += edits[i].kind <= TINY_RENAME_TENSOR;
    for (int64_t i = 0; i < gguf_get_n_tensors(in); i++) {
        struct ggml_tensor *t = ggml_get_tensor(ctx, gguf_get_tensor_name(in, i));
        const struct tiny_edit *e = edit_of(edits, n_edits, t->name);

        if (e)
            t = edit_tensor(extra, t, e);
        if (t)
            gguf_add_tensor(out, t);
        n_used += e != NULL;
    }
    if (n_used != n_wanted)
        die("a tensor to damage is not there", path_in);
    write_sparse(out, path_out);
    gguf_free(in);
    gguf_free(out);
    ggml_free(ctx);
    ggml_free(extra);
}

void tiny_path(char *buf, int cap, const char *name)
{
    const char *dir = getenv("LINGUA_TEST_DIR");

    if (!dir)
        dir = "tiny-models";
    mkdir(dir, 0777);
    snprintf(buf, (size_t)cap, "%s/%s", dir, name);
}
