#include "model/arch.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/mem.h"

static const struct arch families[] = {
    /* Llama 1-3, Mistral, TinyLlama, and Mixtral through its experts. */
    {.name = "llama",
     .norm = NORM_RMS,
     .position = POS_ROPE_PAIRS,
     .ffn = FFN_GATED,
     .act = ACT_SILU,
     .bias = BIAS_OPTIONAL,
     .moe = MOE_MAYBE,
     .full_rotation = true},
    {.name = "qwen2",
     .norm = NORM_RMS,
     .position = POS_ROPE_HALVES,
     .ffn = FFN_GATED,
     .act = ACT_SILU,
     .bias = BIAS_OPTIONAL_ATTN},
    {.name = "qwen3",
     .norm = NORM_RMS,
     .position = POS_ROPE_HALVES,
     .ffn = FFN_GATED,
     .act = ACT_SILU,
     .bias = BIAS_OPTIONAL_ATTN,
     .qk_norm = true},
    {.name = "qwen3moe",
     .norm = NORM_RMS,
     .position = POS_ROPE_HALVES,
     .ffn = FFN_GATED,
     .act = ACT_SILU,
     .bias = BIAS_OPTIONAL_ATTN,
     .moe = MOE_ALWAYS,
     .qk_norm = true},
    {.name = "gemma2",
     .norm = NORM_RMS,
     .position = POS_ROPE_HALVES,
     .ffn = FFN_GATED,
     .act = ACT_GELU,
     .bias = BIAS_OPTIONAL_ATTN,
     .tie = TIE_ALWAYS,
     .post_norm = true,
     .embed_scale = true,
     .window_default = 4096,
     .window_period = 2,
     .softcap = true,
     .attn_cap = 50.0f,
     .logit_cap = 30.0f,
     .wide_scale_layers = 46},
    {.name = "gemma3",
     .norm = NORM_RMS,
     .position = POS_ROPE_HALVES,
     .ffn = FFN_GATED,
     .act = ACT_GELU,
     .bias = BIAS_OPTIONAL_ATTN,
     .qk_norm = true,
     .post_norm = true,
     .embed_scale = true,
     .window_period = 6,
     .window_own_rope = true,
     .softcap = true,
     .wide_scale_layers = 62},
    {.name = "phi3",
     .norm = NORM_RMS,
     .position = POS_ROPE_HALVES,
     .ffn = FFN_GATED_FUSED,
     .act = ACT_SILU,
     .bias = BIAS_OPTIONAL_ATTN},
    {.name = "gpt2",
     .norm = NORM_LAYER,
     .position = POS_LEARNED,
     .ffn = FFN_PLAIN,
     .act = ACT_GELU,
     .bias = BIAS_ALL},
    {.name = "bloom",
     .norm = NORM_LAYER,
     .position = POS_ALIBI,
     .ffn = FFN_PLAIN,
     .act = ACT_GELU,
     .bias = BIAS_ALL,
     .embed_norm = true},
    {.name = "gptneox",
     .norm = NORM_LAYER,
     .position = POS_ROPE_HALVES,
     .ffn = FFN_PLAIN,
     .act = ACT_GELU,
     .bias = BIAS_ALL,
     .tie = TIE_NEVER,
     .parallel_key = true},
};

const struct arch *arch_find(const char *name)
{
    for (size_t i = 0; i < ARRAY_LEN(families); i++)
        if (strcmp(families[i].name, name) == 0)
            return &families[i];
    return NULL;
}

const char *arch_names(void)
{
    return "llama (Mistral, TinyLlama and Mixtral too), qwen2, qwen3, qwen3moe, gemma2, gemma3, "
           "phi3, "
           "gpt2, bloom, gptneox";
}

/* ---- reading a file's hyperparameters ---- */

struct reader {
    const struct modelfile *mf;
    const char *arch;
    char key[128];
    struct err_text *et;
};

static const char *key(struct reader *r, const char *suffix)
{
    snprintf(r->key, sizeof r->key, "%s.%s", r->arch, suffix);
    return r->key;
}

static enum err bad_value(struct reader *r, const char *what)
{
    return err_set(r->et, ERR_INPUT, "%s: %s: %s", modelfile_path(r->mf), r->key, what);
}

enum presence { REQUIRED, OPTIONAL };

/* An integer in [lo, hi]; OPTIONAL leaves *out alone when absent. */
static enum err read_int(struct reader *r, enum presence p, const char *suffix, int lo, int hi,
                         int *out)
{
    uint32_t v = 0;
    char what[80];
    enum err e;

    key(r, suffix);
    if (p == OPTIONAL && !modelfile_has(r->mf, r->key))
        return ERR_NONE;
    e = modelfile_u32(r->mf, r->key, &v, r->et);
    if (e)
        return e;
    if (v > INT32_MAX || (int)v < lo || (int)v > hi) {
        snprintf(what, sizeof what, "%u is out of range (%d to %d)", v, lo, hi);
        return bad_value(r, what);
    }
    *out = (int)v;
    return ERR_NONE;
}

/* A key that may be one number or one per layer. We build uniform layers only, so all must agree.
 * */
static enum err read_layers_int(struct reader *r, enum presence p, const char *suffix, int n_layers,
                                int lo, int hi, int *out)
{
    uint32_t v[LAYERS_MAX];
    char what[96];
    enum err e;

    key(r, suffix);
    if (p == OPTIONAL && !modelfile_has(r->mf, r->key))
        return ERR_NONE;
    e = modelfile_u32s(r->mf, r->key, n_layers, v, r->et);
    if (e)
        return e;
    for (int i = 0; i < n_layers; i++) {
        if (v[i] != v[0])
            return err_set(r->et, ERR_UNSUPPORTED,
                           "%s: %s: layers differ (%u and %u), and this build wants them alike",
                           modelfile_path(r->mf), r->key, v[0], v[i]);
        if (v[i] > INT32_MAX || (int)v[i] < lo || (int)v[i] > hi) {
            snprintf(what, sizeof what, "%u is out of range (%d to %d)", v[i], lo, hi);
            return bad_value(r, what);
        }
    }
    *out = (int)v[0];
    return ERR_NONE;
}

static enum err read_float(struct reader *r, enum presence p, const char *suffix, float lo,
                           float hi, float *out)
{
    float v = *out;
    char what[96];
    enum err e;

    key(r, suffix);
    if (p == OPTIONAL && !modelfile_has(r->mf, r->key))
        return ERR_NONE;
    e = modelfile_f32(r->mf, r->key, &v, r->et);
    if (e)
        return e;
    if (!isfinite(v) || v < lo || v > hi) {
        snprintf(what, sizeof what, "%g is out of range (%g to %g)", (double)v, (double)lo,
                 (double)hi);
        return bad_value(r, what);
    }
    *out = v;
    return ERR_NONE;
}

#define TRY(call)                                                                                  \
    do {                                                                                           \
        enum err try_e = (call);                                                                   \
        if (try_e)                                                                                 \
            return try_e;                                                                          \
    } while (0)

static enum err read_heads(struct reader *r, struct hparams *hp)
{
    int value_dim;

    TRY(read_layers_int(r, REQUIRED, "attention.head_count", hp->n_layers, 1, 1024, &hp->n_heads));
    hp->n_kv_heads = hp->n_heads;
    TRY(read_layers_int(r, OPTIONAL, "attention.head_count_kv", hp->n_layers, 1, hp->n_heads,
                        &hp->n_kv_heads));
    if (hp->n_heads % hp->n_kv_heads)
        return bad_value(r, "does not divide attention.head_count");
    hp->head_dim = hp->n_embd / hp->n_heads;
    if (!modelfile_has(r->mf, key(r, "attention.key_length")) && hp->n_embd % hp->n_heads) {
        key(r, "attention.head_count");
        return bad_value(r, "does not divide embedding_length, and attention.key_length is absent");
    }
    TRY(read_int(r, OPTIONAL, "attention.key_length", 1, HEAD_DIM_MAX, &hp->head_dim));
    if (hp->head_dim > HEAD_DIM_MAX || hp->head_dim < 1) {
        key(r, "attention.head_count");
        return bad_value(r, "gives heads of a size this build does not run (1 to 512)");
    }
    value_dim = hp->head_dim;
    TRY(read_int(r, OPTIONAL, "attention.value_length", 1, HEAD_DIM_MAX, &value_dim));
    if (value_dim != hp->head_dim)
        return bad_value(r, "differs from attention.key_length, which this build does not run");
    return ERR_NONE;
}

static enum err read_experts(struct reader *r, const struct arch *a, struct hparams *hp)
{
    if (a->moe == MOE_NEVER)
        return ERR_NONE;
    TRY(read_int(r, a->moe == MOE_ALWAYS ? REQUIRED : OPTIONAL, "expert_count",
                 a->moe == MOE_ALWAYS ? 1 : 0, EXPERTS_MAX, &hp->n_experts));
    if (hp->n_experts == 0)
        return ERR_NONE;
    TRY(read_int(r, REQUIRED, "expert_used_count", 1,
                 hp->n_experts < EXPERTS_USED_MAX ? hp->n_experts : EXPERTS_USED_MAX,
                 &hp->n_experts_used));
    hp->n_ff_expert = a->moe == MOE_ALWAYS ? hp->n_ff / hp->n_experts_used : hp->n_ff;
    TRY(read_int(r, hp->n_ff_expert < 1 ? REQUIRED : OPTIONAL, "expert_feed_forward_length", 1,
                 1 << 20, &hp->n_ff_expert));
    TRY(read_float(r, OPTIONAL, "expert_weights_scale", 0.0f, 1e6f, &hp->expert_scale));
    if (hp->expert_scale == 0.0f)
        hp->expert_scale = 1.0f;
    return ERR_NONE;
}

/* YaRN's own attention factor, as it is when the file says nothing about mscale (arXiv 2309.00071,
 * section 3.4). The kernel applies 1 + 0.1 ln(factor) itself, so it is divided out here. */
static float yarn_attn_factor(float factor)
{
    float mscale = factor <= 1.0f ? 1.0f : 0.1f * logf(factor) + 1.0f;

    return mscale / (1.0f + 0.1f * logf(factor));
}

static enum err read_rope(struct reader *r, const struct arch *a, struct hparams *hp)
{
    struct rope *rope = &hp->rope;
    const char *type = "linear";
    float factor = 0.0f, attn = 1.0f;

    *rope = (struct rope){.n_rot = hp->head_dim,
                          .n_ctx_orig = hp->n_ctx_train,
                          .base = 10000.0f,
                          .scale = 1.0f,
                          .attn_factor = 1.0f,
                          .beta_fast = 32.0f,
                          .beta_slow = 1.0f};
    if (a->position != POS_ROPE_PAIRS && a->position != POS_ROPE_HALVES)
        return ERR_NONE;
    TRY(read_int(r, OPTIONAL, "rope.dimension_count", 2, hp->head_dim, &rope->n_rot));
    if (rope->n_rot % 2)
        return bad_value(r, "is odd");
    if (a->full_rotation && rope->n_rot != hp->head_dim)
        return bad_value(r, "differs from the head size");
    TRY(read_float(r, OPTIONAL, "rope.freq_base", 1.0f, 1e12f, &rope->base));
    TRY(read_int(r, OPTIONAL, "rope.scaling.original_context_length", 1, INT32_MAX,
                 &rope->n_ctx_orig));
    TRY(modelfile_str_opt(r->mf, key(r, "rope.scaling.type"), &type, r->et));
    TRY(read_float(r, OPTIONAL, "rope.scale_linear", 0.0f, 1e6f, &factor));
    TRY(read_float(r, OPTIONAL, "rope.scaling.factor", 0.0f, 1e6f, &factor));
    TRY(read_float(r, OPTIONAL, "rope.scaling.attn_factor", 0.0f, 1e3f, &attn));
    if (strcmp(type, "none") && strcmp(type, "linear") && strcmp(type, "yarn") &&
        strcmp(type, "longrope"))
        return err_set(r->et, ERR_UNSUPPORTED,
                       "%s: %s: \"%.40s\" is not one of none, linear, yarn, longrope",
                       modelfile_path(r->mf), key(r, "rope.scaling.type"), type);
    if (factor > 0.0f && factor < 1e-6f)
        return err_set(r->et, ERR_INPUT, "%s: %s: %g is out of range (1e-06 to 1e+06)",
                       modelfile_path(r->mf), key(r, "rope.scaling.factor"), (double)factor);
    if (factor > 0.0f && strcmp(type, "none"))
        rope->scale = 1.0f / factor;
    if (strcmp(type, "yarn") == 0) {
        rope->ext_factor = 1.0f;
        TRY(read_float(r, OPTIONAL, "rope.scaling.yarn_ext_factor", 0.0f, 1e3f, &rope->ext_factor));
        TRY(read_float(r, OPTIONAL, "rope.scaling.yarn_beta_fast", 0.0f, 1e6f, &rope->beta_fast));
        TRY(read_float(r, OPTIONAL, "rope.scaling.yarn_beta_slow", 0.0f, 1e6f, &rope->beta_slow));
        if (rope->ext_factor != 0.0f)
            rope->attn_factor = yarn_attn_factor(1.0f / rope->scale);
    }
    rope->attn_factor *= attn;
    return ERR_NONE;
}

static enum err read_window(struct reader *r, const struct arch *a, struct hparams *hp)
{
    hp->rope_window = hp->rope;
    if (a->window_period == 0)
        return ERR_NONE;
    hp->window = a->window_default;
    hp->window_period = a->window_period;
    TRY(read_int(r, OPTIONAL, "attention.sliding_window", 0, INT32_MAX, &hp->window));
    TRY(read_int(r, OPTIONAL, "attention.sliding_window_pattern", 0, LAYERS_MAX,
                 &hp->window_period));
    if (a->window_own_rope) {
        hp->rope_window.base = 10000.0f;
        hp->rope_window.scale = 1.0f;
    }
    return read_float(r, OPTIONAL, "rope.freq_base_swa", 1.0f, 1e12f, &hp->rope_window.base);
}

static enum err read_attention(struct reader *r, const struct arch *a, struct hparams *hp)
{
    const char *eps =
        a->norm == NORM_RMS ? "attention.layer_norm_rms_epsilon" : "attention.layer_norm_epsilon";

    TRY(read_float(r, REQUIRED, eps, 0.0f, 1.0f, &hp->norm_eps));
    hp->attn_scale = a->wide_scale_layers == hp->n_layers && a->wide_scale_layers
                         ? 1.0f / sqrtf((float)(hp->n_embd / hp->n_heads))
                         : 1.0f / sqrtf((float)hp->head_dim);
    if (!isfinite(hp->attn_scale)) {
        key(r, "attention.head_count");
        return bad_value(r, "leaves no width for a head");
    }
    hp->attn_cap = a->attn_cap;
    hp->logit_cap = a->logit_cap;
    if (a->attn_cap > 0.0f)
        TRY(read_float(r, OPTIONAL, "attn_logit_softcapping", 0.0f, 1e6f, &hp->attn_cap));
    if (a->softcap)
        TRY(read_float(r, OPTIONAL, "final_logit_softcapping", 0.0f, 1e6f, &hp->logit_cap));
    if (a->position == POS_ALIBI)
        hp->alibi_bias_max =
            8.0f; /* what every published BLOOM was trained with; GGUF has no key for it */
    return ERR_NONE;
}

enum err hparams_read(const struct modelfile *mf, const struct arch *a, int n_vocab,
                      struct hparams *hp, struct err_text *et)
{
    struct reader r = {.mf = mf, .arch = a->name, .et = et};

    *hp = (struct hparams){.n_vocab = n_vocab, .embed_scale = 1.0f, .expert_scale = 1.0f};
    TRY(read_int(&r, REQUIRED, "block_count", 1, LAYERS_MAX, &hp->n_layers));
    TRY(read_int(&r, REQUIRED, "embedding_length", 1, 1 << 17, &hp->n_embd));
    TRY(read_int(&r, REQUIRED, "context_length", 1, INT32_MAX, &hp->n_ctx_train));
    TRY(read_heads(&r, hp));
    TRY(read_layers_int(&r, a->moe == MOE_ALWAYS ? OPTIONAL : REQUIRED, "feed_forward_length",
                        hp->n_layers, 1, 1 << 20, &hp->n_ff));
    TRY(read_experts(&r, a, hp));
    TRY(read_attention(&r, a, hp));
    TRY(read_rope(&r, a, hp));
    TRY(read_window(&r, a, hp));
    if (a->embed_scale)
        hp->embed_scale = sqrtf((float)hp->n_embd);
    if (a->parallel_key)
        TRY(modelfile_bool(mf, key(&r, "use_parallel_residual"), &hp->parallel, et));
    return ERR_NONE;
}

bool hparams_windowed(const struct hparams *hp, int layer)
{
    if (hp->window <= 0)
        return false;
    return hp->window_period == 0 || layer % hp->window_period < hp->window_period - 1;
}
