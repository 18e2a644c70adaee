#include "model/tensors.h"

#include <ggml-cpu.h>
#include <ggml.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/check.h"
#include "base/mem.h"

/* Sizes a shape is made of. */
enum dim {
    D_NONE,
    D_EMBD,
    D_VOCAB,
    D_CTX,
    D_HEAD,
    D_Q,
    D_KV,
    D_QKV,
    D_FF,
    D_FF2,
    D_EXPERTS,
    D_FF_EXPERT,
    D_ROT2
};

/* What may be stored: a matrix is multiplied and may have any type with a dot-product kernel; rows
 * are looked up; a vector is added or multiplied element by element and must be F32. */
enum use { USE_MATRIX, USE_ROWS, USE_VECTOR };

static const struct rule {
    const char *name; /* with %d for the layer where there is one */
    enum module_kind module;
    enum use use;
    enum dim dims[3];
} rules[ROLES_END] = {
    [T_EMBED] = {"token_embd.weight", MODULE_EMBED, USE_ROWS, {D_EMBD, D_VOCAB}},
    [T_EMBED_NORM] = {"token_embd_norm.weight", MODULE_EMBED, USE_VECTOR, {D_EMBD}},
    [T_EMBED_NORM_B] = {"token_embd_norm.bias", MODULE_EMBED, USE_VECTOR, {D_EMBD}},
    [T_POS_EMBED] = {"position_embd.weight", MODULE_EMBED, USE_ROWS, {D_EMBD, D_CTX}},
    [T_ROPE_FREQS] = {"rope_freqs.weight", MODULE_ATTN, USE_VECTOR, {D_ROT2}},
    [T_OUT_NORM] = {"output_norm.weight", MODULE_OUTPUT, USE_VECTOR, {D_EMBD}},
    [T_OUT_NORM_B] = {"output_norm.bias", MODULE_OUTPUT, USE_VECTOR, {D_EMBD}},
    [T_OUTPUT] = {"output.weight", MODULE_OUTPUT, USE_MATRIX, {D_EMBD, D_VOCAB}},
    [T_OUTPUT_B] = {"output.bias", MODULE_OUTPUT, USE_VECTOR, {D_VOCAB}},

    [T_ATTN_NORM] = {"blk.%d.attn_norm.weight", MODULE_ATTN, USE_VECTOR, {D_EMBD}},
    [T_ATTN_NORM_B] = {"blk.%d.attn_norm.bias", MODULE_ATTN, USE_VECTOR, {D_EMBD}},
    [T_QKV] = {"blk.%d.attn_qkv.weight", MODULE_ATTN, USE_MATRIX, {D_EMBD, D_QKV}},
    [T_QKV_B] = {"blk.%d.attn_qkv.bias", MODULE_ATTN, USE_VECTOR, {D_QKV}},
    [T_Q] = {"blk.%d.attn_q.weight", MODULE_ATTN, USE_MATRIX, {D_EMBD, D_Q}},
    [T_Q_B] = {"blk.%d.attn_q.bias", MODULE_ATTN, USE_VECTOR, {D_Q}},
    [T_K] = {"blk.%d.attn_k.weight", MODULE_ATTN, USE_MATRIX, {D_EMBD, D_KV}},
    [T_K_B] = {"blk.%d.attn_k.bias", MODULE_ATTN, USE_VECTOR, {D_KV}},
    [T_V] = {"blk.%d.attn_v.weight", MODULE_ATTN, USE_MATRIX, {D_EMBD, D_KV}},
    [T_V_B] = {"blk.%d.attn_v.bias", MODULE_ATTN, USE_VECTOR, {D_KV}},
    [T_Q_NORM] = {"blk.%d.attn_q_norm.weight", MODULE_ATTN, USE_VECTOR, {D_HEAD}},
    [T_K_NORM] = {"blk.%d.attn_k_norm.weight", MODULE_ATTN, USE_VECTOR, {D_HEAD}},
    [T_ATTN_OUT] = {"blk.%d.attn_output.weight", MODULE_ATTN, USE_MATRIX, {D_Q, D_EMBD}},
    [T_ATTN_OUT_B] = {"blk.%d.attn_output.bias", MODULE_ATTN, USE_VECTOR, {D_EMBD}},
    [T_ATTN_POST_NORM] = {"blk.%d.post_attention_norm.weight", MODULE_ATTN, USE_VECTOR, {D_EMBD}},
    [T_ROPE_LONG] = {"rope_factors_long.weight", MODULE_ATTN, USE_VECTOR, {D_ROT2}},
    [T_ROPE_SHORT] = {"rope_factors_short.weight", MODULE_ATTN, USE_VECTOR, {D_ROT2}},

    [T_FFN_NORM] = {"blk.%d.ffn_norm.weight", MODULE_FFN, USE_VECTOR, {D_EMBD}},
    [T_FFN_NORM_B] = {"blk.%d.ffn_norm.bias", MODULE_FFN, USE_VECTOR, {D_EMBD}},
    [T_GATE] = {"blk.%d.ffn_gate.weight", MODULE_FFN, USE_MATRIX, {D_EMBD, D_FF}},
    [T_GATE_B] = {"blk.%d.ffn_gate.bias", MODULE_FFN, USE_VECTOR, {D_FF}},
    [T_UP] = {"blk.%d.ffn_up.weight", MODULE_FFN, USE_MATRIX, {D_EMBD, D_FF}},
    [T_UP_B] = {"blk.%d.ffn_up.bias", MODULE_FFN, USE_VECTOR, {D_FF}},
    [T_DOWN] = {"blk.%d.ffn_down.weight", MODULE_FFN, USE_MATRIX, {D_FF, D_EMBD}},
    [T_DOWN_B] = {"blk.%d.ffn_down.bias", MODULE_FFN, USE_VECTOR, {D_EMBD}},
    [T_ROUTER] = {"blk.%d.ffn_gate_inp.weight", MODULE_FFN, USE_MATRIX, {D_EMBD, D_EXPERTS}},
    [T_GATE_EXPERTS] = {"blk.%d.ffn_gate_exps.weight",
                        MODULE_FFN,
                        USE_MATRIX,
                        {D_EMBD, D_FF_EXPERT, D_EXPERTS}},
    [T_UP_EXPERTS] = {"blk.%d.ffn_up_exps.weight",
                      MODULE_FFN,
                      USE_MATRIX,
                      {D_EMBD, D_FF_EXPERT, D_EXPERTS}},
    [T_DOWN_EXPERTS] = {"blk.%d.ffn_down_exps.weight",
                        MODULE_FFN,
                        USE_MATRIX,
                        {D_FF_EXPERT, D_EMBD, D_EXPERTS}},
    [T_FFN_POST_NORM] = {"blk.%d.post_ffw_norm.weight", MODULE_FFN, USE_VECTOR, {D_EMBD}},
};

enum need { ABSENT, MAY, MUST };

static enum need need_bias(const struct arch *a, enum bias_kind optional_from)
{
    if (a->bias == BIAS_ALL)
        return MUST;
    return a->bias >= optional_from ? MAY : ABSENT;
}

static enum need must_if(bool yes)
{
    return yes ? MUST : ABSENT;
}

static enum need need_attn(const struct arch *a, const struct hparams *hp, enum role r, bool fused)
{
    switch (r) {
    case T_ATTN_NORM:
    case T_ATTN_OUT:
        return MUST;
    case T_ATTN_NORM_B:
        return must_if(a->bias == BIAS_ALL);
    case T_QKV:
        return must_if(fused);
    case T_QKV_B:
        return fused ? need_bias(a, BIAS_OPTIONAL_ATTN) : ABSENT;
    case T_Q:
    case T_K:
    case T_V:
        return must_if(!fused);
    case T_Q_B:
    case T_K_B:
    case T_V_B:
        return fused ? ABSENT : need_bias(a, BIAS_OPTIONAL_ATTN);
    case T_Q_NORM:
    case T_K_NORM:
        return must_if(a->qk_norm);
    case T_ATTN_OUT_B:
        return need_bias(a, BIAS_OPTIONAL);
    case T_ATTN_POST_NORM:
        return must_if(a->post_norm);
    case T_ROPE_FREQS:
    case T_ROPE_LONG:
    case T_ROPE_SHORT:
        return a->position == POS_ROPE_PAIRS || a->position == POS_ROPE_HALVES ? MAY : ABSENT;
    default:
        return ABSENT;
    }
}

static enum need need_ffn(const struct arch *a, const struct hparams *hp, enum role r)
{
    bool dense = hp->n_experts == 0;

    switch (r) {
    case T_FFN_NORM:
        return MUST;
    case T_FFN_NORM_B:
        return must_if(a->bias == BIAS_ALL);
    case T_GATE:
        return must_if(dense && a->ffn == FFN_GATED);
    case T_UP:
    case T_DOWN:
        return must_if(dense);
    case T_GATE_B:
        return dense && a->ffn == FFN_GATED ? need_bias(a, BIAS_OPTIONAL) : ABSENT;
    case T_UP_B:
    case T_DOWN_B:
        return dense ? need_bias(a, BIAS_OPTIONAL) : ABSENT;
    case T_ROUTER:
    case T_GATE_EXPERTS:
    case T_UP_EXPERTS:
    case T_DOWN_EXPERTS:
        return must_if(!dense);
    case T_FFN_POST_NORM:
        return must_if(a->post_norm);
    default:
        return ABSENT;
    }
}

static enum need need_ends(const struct arch *a, enum role r)
{
    switch (r) {
    case T_EMBED:
    case T_OUT_NORM:
        return MUST;
    case T_EMBED_NORM:
    case T_EMBED_NORM_B:
        return must_if(a->embed_norm);
    case T_POS_EMBED:
        return must_if(a->position == POS_LEARNED);
    case T_OUT_NORM_B:
        return must_if(a->bias == BIAS_ALL);
    case T_OUTPUT:
        return a->tie == TIE_NEVER ? MUST : a->tie == TIE_MAYBE ? MAY : ABSENT;
    case T_OUTPUT_B:
        return a->bias == BIAS_OPTIONAL || a->bias == BIAS_OPTIONAL_ATTN ? MAY : ABSENT;
    default:
        return ABSENT;
    }
}

static int64_t dim_size(const struct arch *a, const struct hparams *hp, enum dim d)
{
    int64_t q = (int64_t)hp->n_heads * hp->head_dim, kv = (int64_t)hp->n_kv_heads * hp->head_dim;

    switch (d) {
    case D_NONE:
        return 1;
    case D_EMBD:
        return hp->n_embd;
    case D_VOCAB:
        return hp->n_vocab;
    case D_CTX:
        return hp->n_ctx_train;
    case D_HEAD:
        return hp->head_dim;
    case D_Q:
        return q;
    case D_KV:
        return kv;
    case D_QKV:
        return q + 2 * kv;
    case D_FF:
        return hp->n_ff;
    case D_FF2:
        return 2 * (int64_t)hp->n_ff;
    case D_EXPERTS:
        return hp->n_experts;
    case D_FF_EXPERT:
        return hp->n_ff_expert;
    case D_ROT2:
        return hp->rope.n_rot / 2;
    }
    return 1;
}

static void shape_text(const int64_t ne[3], char *buf, size_t cap)
{
    if (ne[2] > 1)
        snprintf(buf, cap, "%lld x %lld x %lld", (long long)ne[0], (long long)ne[1],
                 (long long)ne[2]);
    else if (ne[1] > 1)
        snprintf(buf, cap, "%lld x %lld", (long long)ne[0], (long long)ne[1]);
    else
        snprintf(buf, cap, "%lld", (long long)ne[0]);
}

static bool type_fits(enum use use, int type)
{
    if (use == USE_VECTOR)
        return type == GGML_TYPE_F32;
    if (type == GGML_TYPE_F32 || type == GGML_TYPE_F16 || type == GGML_TYPE_BF16)
        return true;
    if (!ggml_is_quantized(type) || !ggml_get_type_traits(type)->to_float)
        return false;
    return use == USE_ROWS || ggml_get_type_traits_cpu(type)->vec_dot != NULL;
}

static enum err check_tensor(const struct modelfile *mf, const struct arch *a,
                             const struct hparams *hp, enum role r, const struct mf_tensor *t,
                             struct err_text *et)
{
    const struct rule *rule = &rules[r];
    char want_text[80], got_text[80];
    int64_t want[3];

    for (int i = 0; i < 3; i++)
        want[i] = dim_size(a, hp, rule->dims[i]);
    if (r == T_UP && a->ffn == FFN_GATED_FUSED)
        want[1] = dim_size(a, hp, D_FF2);
    if (t->ne[0] != want[0] || t->ne[1] != want[1] || t->ne[2] != want[2] || t->ne[3] != 1) {
        shape_text(want, want_text, sizeof want_text);
        shape_text(t->ne, got_text, sizeof got_text);
        return err_set(et, ERR_INPUT, "%s: tensor %s: is %s, and %s with this file's keys needs %s",
                       modelfile_path(mf), t->name, got_text, a->name, want_text);
    }
    if (!type_fits(rule->use, t->type))
        return err_set(et, ERR_UNSUPPORTED, "%s: tensor %s: type %s cannot be %s here%s",
                       modelfile_path(mf), t->name, ggml_type_name(t->type),
                       rule->use == USE_VECTOR ? "added or multiplied" : "multiplied",
                       rule->use == USE_VECTOR ? ", only f32 can" : "");
    return ERR_NONE;
}

static enum err bind_role(const struct modelfile *mf, const struct arch *a,
                          const struct hparams *hp, enum role r, int layer, enum need need,
                          const struct mf_tensor **out, int *n_found, struct err_text *et)
{
    char name[64];
    const struct mf_tensor *t;

    *out = NULL;
    if (need == ABSENT)
        return ERR_NONE;
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wformat-nonliteral"
    snprintf(name, sizeof name, rules[r].name, layer);
#pragma GCC diagnostic pop
    t = modelfile_find(mf, name);
    if (!t)
        return need == MAY ? ERR_NONE
                           : err_set(et, ERR_INPUT, "%s: tensor %s: is missing, and %s needs it",
                                     modelfile_path(mf), name, a->name);
    *out = t;
    /* The rotary factors are one tensor that every layer shares. */
    if (layer <= 0 || strstr(rules[r].name, "%d"))
        ++*n_found;
    return check_tensor(mf, a, hp, r, t, et);
}

static enum err bind_layer(const struct modelfile *mf, const struct arch *a,
                           const struct hparams *hp, int layer, struct bound *out, int *n_found,
                           struct err_text *et)
{
    char name[64];
    bool fused;
    enum err e = ERR_NONE;

    snprintf(name, sizeof name, "blk.%d.attn_qkv.weight", layer);
    fused = modelfile_find(mf, name) != NULL;
    for (int r = ROLES_GLOBAL; r < ROLES_END && !e; r++) {
        enum need need =
            rules[r].module == MODULE_ATTN ? need_attn(a, hp, r, fused) : need_ffn(a, hp, r);

        e = bind_role(mf, a, hp, r, layer, need, &out->layer[layer][r - ROLES_GLOBAL], n_found, et);
    }
    return e;
}

/* A tensor nobody asked for means that the file is of a kind we do not know after all; running
 * without it would give plausible nonsense. */
static enum err find_stranger(const struct modelfile *mf, const struct arch *a,
                              const struct hparams *hp, const struct bound *b, struct err_text *et)
{
    for (int i = 0; i < modelfile_n_tensors(mf); i++) {
        const struct mf_tensor *t = modelfile_tensor(mf, i);
        bool known = false;

        for (int r = 0; r < ROLES_GLOBAL && !known; r++)
            known = b->global[r] == t;
        for (int l = 0; l < hp->n_layers && !known; l++)
            for (int r = 0; r < ROLES_LAYER && !known; r++)
                known = b->layer[l][r] == t;
        if (!known)
            return err_set(et, ERR_UNSUPPORTED,
                           "%s: tensor %s: is not one that %s is known to have", modelfile_path(mf),
                           t->name, a->name);
    }
    return ERR_NONE;
}

enum err tensors_bind(const struct modelfile *mf, const struct arch *a, const struct hparams *hp,
                      struct bound *out, struct err_text *et)
{
    int n_found = 0;
    enum err e = ERR_NONE;

    *out = (struct bound){.layer = mem_zalloc((size_t)hp->n_layers, sizeof *out->layer)};
    for (int r = 0; r < ROLES_GLOBAL && !e; r++) {
        enum need need =
            rules[r].module == MODULE_ATTN ? need_attn(a, hp, r, false) : need_ends(a, r);

        e = bind_role(mf, a, hp, r, -1, need, &out->global[r], &n_found, et);
    }
    for (int l = 0; l < hp->n_layers && !e; l++)
        e = bind_layer(mf, a, hp, l, out, &n_found, et);
    if (!e && n_found != modelfile_n_tensors(mf))
        e = find_stranger(mf, a, hp, out, et);
    if (e)
        tensors_fini(out);
    return e;
}

void tensors_fini(struct bound *b)
{
    free(b->layer);
    *b = (struct bound){.layer = NULL};
}

const struct mf_tensor *tensors_get(const struct bound *b, enum role r, int layer)
{
    if (r < ROLES_GLOBAL)
        return b->global[r];
    CHECK(layer >= 0 && r < ROLES_END);
    return b->layer[layer][r - ROLES_GLOBAL];
}

enum module_kind tensors_module(enum role r)
{
    return rules[r].module;
}

bool tensors_is_matrix(enum role r)
{
    return rules[r].use == USE_MATRIX;
}

bool tensors_is_vector(enum role r)
{
    return rules[r].use == USE_VECTOR;
}
