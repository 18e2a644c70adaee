#include "model/model.h"

#include <ggml.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/check.h"
#include "base/mem.h"
#include "model/kv.h"
#include "model/model_impl.h"

const struct mf_tensor *model_output_tensor(const struct model *m)
{
    const struct mf_tensor *t = tensors_get(&m->bound, T_OUTPUT, -1);

    return t ? t : tensors_get(&m->bound, T_EMBED, -1);
}

static uint64_t elements(const struct mf_tensor *t)
{
    return (uint64_t)(t->ne[0] * t->ne[1] * t->ne[2] * t->ne[3]);
}

/* Adds one tensor to its module's account. */
static void module_add(struct module_info *mi, const struct hparams *hp, enum role r,
                       const struct mf_tensor *t)
{
    bool experts = t->ne[2] > 1 || r == T_GATE_EXPERTS || r == T_UP_EXPERTS || r == T_DOWN_EXPERTS;
    double share = experts ? (double)hp->n_experts_used / hp->n_experts : 1.0;

    mi->n_params += elements(t);
    mi->bytes += t->size;
    if (r == T_EMBED || r == T_POS_EMBED) { /* one row of it */
        mi->decode_bytes += t->size / (uint64_t)t->ne[1];
        return;
    }
    mi->decode_bytes += (uint64_t)((double)t->size * share);
    if (tensors_is_matrix(r))
        mi->decode_flops += 2.0 * (double)elements(t) * share;
}

static void describe_modules(struct model *m)
{
    const struct hparams *hp = &m->hp;

    m->n_modules = 2 * hp->n_layers + 2;
    m->modules = mem_zalloc((size_t)m->n_modules, sizeof *m->modules);
    for (int i = 0; i < m->n_modules; i++) {
        struct module_info *mi = &m->modules[i];
        int layer = (i - 1) / 2;

        mi->layer = -1;
        if (i == 0 || i == m->n_modules - 1) {
            mi->kind = i == 0 ? MODULE_EMBED : MODULE_OUTPUT;
            snprintf(mi->name, sizeof mi->name, i == 0 ? "embed" : "output");
        } else {
            mi->kind = i % 2 ? MODULE_ATTN : MODULE_FFN;
            mi->layer = layer;
            snprintf(mi->name, sizeof mi->name, "%s.%d", i % 2 ? "attn" : "ffn", layer);
        }
        for (int r = 0; r < ROLES_END; r++) {
            const struct mf_tensor *t = tensors_get(&m->bound, r, mi->layer < 0 ? 0 : mi->layer);

            if (t && tensors_module(r) == mi->kind)
                module_add(mi, hp, r, t);
        }
        if (mi->kind == MODULE_OUTPUT && !tensors_get(&m->bound, T_OUTPUT, -1)) {
            const struct mf_tensor *t = model_output_tensor(m);

            /* Tied: the parameters are the embedding's, but whoever holds this module needs the
             * bytes. */
            mi->bytes += t->size;
            mi->decode_bytes += t->size;
            mi->decode_flops += 2.0 * (double)elements(t);
        }
        if (mi->kind == MODULE_ATTN)
            mi->attn_flops_per_pos = 4.0 * hp->n_heads * hp->head_dim;
    }
}

/* The type most weight bytes are in. */
static const char *main_type(const struct modelfile *mf)
{
    uint64_t bytes[GGML_TYPE_COUNT] = {0};
    int best = 0;

    for (int i = 0; i < modelfile_n_tensors(mf); i++) {
        const struct mf_tensor *t = modelfile_tensor(mf, i);

        bytes[t->type] += t->size;
        if (bytes[t->type] > bytes[best])
            best = t->type;
    }
    return ggml_type_name(best);
}

static const char *base_name(const char *path)
{
    const char *slash = strrchr(path, '/');

    return slash ? slash + 1 : path;
}

static enum err describe(struct model *m, struct err_text *et)
{
    const struct modelfile *mf = m->file;
    const struct hparams *hp = &m->hp;
    const char *name = base_name(modelfile_path(mf));
    enum err e = modelfile_str_opt(mf, "general.name", &name, et);

    if (e)
        return e;
    snprintf(m->name, sizeof m->name, "%s", name);
    for (char *c = m->name; *c; c++) /* it will be printed */
        if ((unsigned char)*c < 0x20 || *c == 0x7f)
            *c = '?';
    m->shape = (struct model_shape){
        .arch = m->arch->name,
        .name = m->name,
        .n_layers = hp->n_layers,
        .n_embd = hp->n_embd,
        .n_heads = hp->n_heads,
        .n_kv_heads = hp->n_kv_heads,
        .head_dim = hp->head_dim,
        .n_ff = hp->n_experts ? hp->n_ff_expert : hp->n_ff,
        .n_vocab = hp->n_vocab,
        .n_experts = hp->n_experts,
        .n_experts_used = hp->n_experts_used,
        .n_ctx_train = hp->n_ctx_train,
        .ctx_is_hard = m->arch->position == POS_LEARNED,
        .tied = !tensors_get(&m->bound, T_OUTPUT, -1),
        .type_name = main_type(mf),
    };
    for (int i = 0; i < modelfile_n_tensors(mf); i++) {
        m->shape.n_params += elements(modelfile_tensor(mf, i));
        m->shape.weight_bytes += modelfile_tensor(mf, i)->size;
    }
    describe_modules(m);
    return ERR_NONE;
}

/* One row of the embedding per token: a tokenizer that knows more tokens would index past its end.
 * */
static enum err check_vocab(const struct modelfile *mf, const struct mf_tensor *embed,
                            struct err_text *et)
{
    uint64_t n_tokens;
    enum err e;

    if (!embed || embed->ne[1] < 1 || embed->ne[1] > 1 << 24)
        return err_set(et, ERR_INPUT, "%s: tensor token_embd.weight: %s", modelfile_path(mf),
                       embed ? "has an absurd number of tokens"
                             : "is missing, and every model needs it");
    if (!modelfile_has(mf, "tokenizer.ggml.tokens"))
        return ERR_NONE;
    e = modelfile_arr_len(mf, "tokenizer.ggml.tokens", &n_tokens, et);
    if (!e && n_tokens != (uint64_t)embed->ne[1])
        e = err_set(
            et, ERR_INPUT,
            "%s: tensor token_embd.weight: has %lld rows, and tokenizer.ggml.tokens names %llu",
            modelfile_path(mf), (long long)embed->ne[1], (unsigned long long)n_tokens);
    return e;
}

enum err model_open_file(struct modelfile *mf, struct model **out, struct err_text *et)
{
    struct model *m = mem_zalloc(1, sizeof *m);
    const struct mf_tensor *embed;
    const char *arch;
    enum err e;

    *out = NULL;
    m->file = mf;
    e = modelfile_str(mf, "general.architecture", &arch, et);
    if (e)
        goto fail;
    m->arch = arch_find(arch);
    if (!m->arch) {
        e = err_set(et, ERR_UNSUPPORTED,
                    "%s: general.architecture: \"%.40s\" is not supported; these are: %s",
                    modelfile_path(mf), arch, arch_names());
        goto fail;
    }
    embed = modelfile_find(mf, "token_embd.weight");
    e = check_vocab(mf, embed, et);
    if (e)
        goto fail;
    e = hparams_read(mf, m->arch, (int)embed->ne[1], &m->hp, et);
    if (!e)
        e = tensors_bind(mf, m->arch, &m->hp, &m->bound, et);
    if (!e)
        e = describe(m, et);
    if (e)
        goto fail;
    *out = m;
    return ERR_NONE;
fail:
    model_close(m);
    return e;
}

enum err model_open(const char *path, struct model **out, struct err_text *et)
{
    struct modelfile *mf;
    enum err e = modelfile_open(path, &mf, et);

    *out = NULL;
    return e ? e : model_open_file(mf, out, et);
}

void model_close(struct model *m)
{
    if (!m)
        return;
    tensors_fini(&m->bound);
    free(m->modules);
    modelfile_close(m->file);
    free(m);
}

const struct model_shape *model_shape(const struct model *m)
{
    return &m->shape;
}

const struct modelfile *model_file(const struct model *m)
{
    return m->file;
}

int model_n_modules(const struct model *m)
{
    return m->n_modules;
}

const struct module_info *model_module(const struct model *m, int i)
{
    CHECK(i >= 0 && i < m->n_modules);
    return &m->modules[i];
}

void model_module_tensors(const struct model *m, int i,
                          void (*tensor)(void *user, const struct mf_tensor *t), void *user)
{
    const struct module_info *mi = model_module(m, i);

    for (int r = 0; r < ROLES_END; r++) {
        const struct mf_tensor *t;

        if (tensors_module(r) != mi->kind)
            continue;
        t = r == T_OUTPUT ? model_output_tensor(m) : tensors_get(&m->bound, r, mi->layer);
        if (t)
            tensor(user, t);
    }
}

int model_edges(const struct model *m, int i, struct edge edges[EDGES_MAX])
{
    CHECK(i > 0 && i < m->n_modules);
    edges[0] = (struct edge){.name = "x", .width = m->hp.n_embd};
    /* x + attn(norm(x)) + ffn(norm'(x)): the FFN still needs the x that attention was given. */
    if (m->hp.parallel && m->modules[i].kind == MODULE_FFN) {
        edges[1] = (struct edge){.name = "attn_out", .width = m->hp.n_embd};
        return 2;
    }
    return 1;
}

uint64_t model_kv_bytes(const struct model *m, int i, enum kv_type type)
{
    if (model_module(m, i)->kind != MODULE_ATTN)
        return 0;
    return (uint64_t)m->hp.n_kv_heads * kv_position_bytes(type, m->hp.head_dim);
}

int model_rows_shrink_at(const struct model *m)
{
    return module_attn(m->hp.n_layers - 1);
}

enum err model_check_kv(const struct model *m, enum kv_type type, struct err_text *et)
{
    if (type == KV_Q8_0 && m->hp.head_dim % 32)
        return err_set(
            et, ERR_UNSUPPORTED,
            "a q8_0 KV cache needs heads of a multiple of 32, and this model's have %d; use f16",
            m->hp.head_dim);
    return ERR_NONE;
}

const char *kv_type_name(enum kv_type type)
{
    return type == KV_F32 ? "f32" : type == KV_Q8_0 ? "q8_0" : "f16";
}

const char *model_families(void)
{
    return arch_names();
}
