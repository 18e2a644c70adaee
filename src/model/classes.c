#include "model/classes.h"

#include <ggml.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/check.h"
#include "base/mem.h"
#include "model/model_impl.h"

/* What a module's cost depends on within one model: its kind, its tensors' shapes and types by role,
 * and how far its attention looks back. Without padding, so that it compares and hashes as bytes. */
struct signature {
    int64_t kind, window;
    struct {
        int64_t type, ne[3]; /* type is -1 where there is no such tensor */
    } tensor[ROLES_END];
};

static const struct mf_tensor *module_tensor(const struct model *m, int module, enum role r)
{
    const struct module_info *mi = model_module(m, module);

    if (tensors_module(r) != mi->kind)
        return NULL;
    return r == T_OUTPUT ? model_output_tensor(m) : tensors_get(&m->bound, r, mi->layer);
}

static void sign(const struct model *m, int module, struct signature *s)
{
    const struct module_info *mi = model_module(m, module);

    memset(s, 0, sizeof *s);
    s->kind = mi->kind;
    if (mi->kind == MODULE_ATTN && hparams_windowed(&m->hp, mi->layer))
        s->window = m->hp.window;
    for (int r = 0; r < ROLES_END; r++) {
        const struct mf_tensor *t = module_tensor(m, module, (enum role)r);

        s->tensor[r].type = t ? t->type : -1;
        for (int i = 0; i < 3; i++)
            s->tensor[r].ne[i] = t ? t->ne[i] : 0;
    }
}

static uint64_t fnv1a(uint64_t h, const void *bytes, size_t len)
{
    const uint8_t *b = bytes;

    for (size_t i = 0; i < len; i++)
        h = (h ^ b[i]) * 0x100000001b3;
    return h;
}

/* What all modules share. The fields of the family's row are options of the graph; those of the
 * hyperparameters are sizes and whether an operation is there at all, not its constants. */
static uint64_t hash_shared(const struct model *m, enum kv_type kv)
{
    const struct arch *a = m->arch;
    const struct hparams *hp = &m->hp;
    const int64_t shared[] = {
        kv,
        a->norm,
        a->position,
        a->ffn,
        a->act,
        a->qk_norm,
        a->post_norm,
        a->embed_norm,
        hp->n_embd,
        hp->n_heads,
        hp->n_kv_heads,
        hp->head_dim,
        hp->n_experts,
        hp->n_experts_used,
        hp->rope.n_rot,
        hp->parallel,
        hp->attn_cap > 0,
        hp->logit_cap > 0,
        hp->alibi_bias_max > 0,
        hp->embed_scale != 1,
        hp->expert_scale != 1,
        m->shape.tied,
    };

    return fnv1a(0xcbf29ce484222325, shared, sizeof shared);
}

enum err model_classes(const struct model *m, enum kv_type kv, struct model_classes *out,
                       struct err_text *et)
{
    struct signature *known = mem_zalloc(CLASSES_MAX, sizeof *known), s;
    enum err e = ERR_NONE;

    *out = (struct model_classes){.of = mem_zalloc((size_t)m->n_modules, sizeof *out->of),
                                  .id = hash_shared(m, kv)};
    for (int i = 0; i < m->n_modules; i++) {
        int c = 0;

        sign(m, i, &s);
        while (c < out->n && memcmp(&known[c], &s, sizeof s) != 0)
            c++;
        if (c == CLASSES_MAX) {
            e = err_set(
                et, ERR_UNSUPPORTED,
                "%s: its modules are of more than %d kinds of shapes and types, and no more "
                "can be planned with; quantise its layers alike",
                modelfile_path(m->file), CLASSES_MAX);
            model_classes_fini(out);
            break;
        }
        if (c == out->n) {
            known[out->n++] = s;
            out->example[c] = i;
            out->id = fnv1a(out->id, &s, sizeof s);
        }
        out->of[i] = c;
        out->count[c]++;
    }
    if (!e && !out->id)
        out->id = 1;
    free(known);
    return e;
}

void model_classes_fini(struct model_classes *c)
{
    free(c->of);
    *c = (struct model_classes){.of = NULL};
}

/* Types of the matrices (of the embedding, for `embed`), those with most bytes first. */
static void types_text(const struct model *m, int module, char *buf, size_t cap)
{
    uint64_t bytes[GGML_TYPE_COUNT] = {0};
    size_t len = 0;

    for (int r = 0; r < ROLES_END; r++) {
        const struct mf_tensor *t = module_tensor(m, module, (enum role)r);

        if (t && !tensors_is_vector((enum role)r))
            bytes[t->type] += t->size;
    }
    buf[0] = '\0';
    for (;;) {
        int most = 0;

        for (int i = 1; i < GGML_TYPE_COUNT; i++)
            most = bytes[i] > bytes[most] ? i : most;
        if (!bytes[most] || len >= cap)
            return;
        bytes[most] = 0;
        len += (size_t)snprintf(buf + len, cap - len, "%s%s", len ? "+" : "",
                                ggml_type_name((enum ggml_type)most));
    }
}

void model_class_text(const struct model *m, int example, char buf[CLASS_TEXT_MAX])
{
    static const char *const kinds[] = {"embed", "attn", "ffn", "output"};
    const struct module_info *mi = model_module(m, example);
    const struct hparams *hp = &m->hp;
    char types[48], more[32] = "";
    int64_t out = 0;

    types_text(m, example, types, sizeof types);
    switch (mi->kind) {
    case MODULE_EMBED:
    case MODULE_OUTPUT:
        out = hp->n_vocab;
        break;
    case MODULE_ATTN:
        out = (int64_t)(hp->n_heads + 2 * hp->n_kv_heads) * hp->head_dim;
        if (hparams_windowed(hp, mi->layer))
            snprintf(more, sizeof more, ", window %d", hp->window);
        break;
    case MODULE_FFN:
        out = hp->n_experts ? hp->n_ff_expert : hp->n_ff;
        if (hp->n_experts)
            snprintf(more, sizeof more, ", %d of %d experts", hp->n_experts_used, hp->n_experts);
        break;
    }
    snprintf(buf, CLASS_TEXT_MAX, "%s %s %dx%lld%s", kinds[mi->kind], types, hp->n_embd,
             (long long)out, more);
}
