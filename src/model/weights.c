#include "model/weights.h"

#include <ggml-backend.h>
#include <ggml-cpu.h>
#include <stdlib.h>
#include <string.h>

#include "base/check.h"
#include "base/mem.h"
#include "base/sys.h"
#include "model/matmul_q4.h"

enum { OWN_ALIGN = 64 }; /* a cache line, and the widest vector */

/* ---- can this tensor be repacked? ---- */

/* Asks every buffer type the CPU backend offers beyond plain memory whether it would multiply by
 * this weight. `experts` asks for the mixture-of-experts product. Returns NULL when none
 * would. */
static ggml_backend_buffer_type_t repack_type(struct ggml_tensor *w, bool experts)
{
    ggml_backend_dev_t dev = ggml_backend_reg_dev_get(ggml_backend_cpu_reg(), 0);
    ggml_backend_dev_get_extra_bufts_t list =
        (ggml_backend_dev_get_extra_bufts_t)ggml_backend_reg_get_proc_address(
            ggml_backend_cpu_reg(), "ggml_backend_dev_get_extra_bufts");
    struct ggml_init_params params = {.mem_size = 8 * ggml_tensor_overhead(), .no_alloc = true};
    struct ggml_context *ctx;
    ggml_backend_buffer_type_t found = NULL, *bufts = list ? list(dev) : NULL;

    if (!bufts)
        return NULL;
    ctx = ggml_init(params);
    CHECK(ctx != NULL);
    for (; *bufts && !found; bufts++) {
        struct ggml_tensor *op;

        /* Not AMX: its sums differ from every other kernel's, and it keeps no promise of ours. */
        if (strcmp(ggml_backend_buft_name(*bufts), "CPU_REPACK") != 0)
            continue;
        if (experts) {
            struct ggml_tensor *x = ggml_new_tensor_3d(ctx, GGML_TYPE_F32, w->ne[0], 1, 4);
            struct ggml_tensor *ids = ggml_new_tensor_2d(ctx, GGML_TYPE_I32, 1, 4);

            op = ggml_mul_mat_id(ctx, w, x, ids);
        } else {
            op = ggml_mul_mat(ctx, w, ggml_new_tensor_2d(ctx, GGML_TYPE_F32, w->ne[0], 4));
        }
        w->buffer = ggml_backend_buft_alloc_buffer(*bufts, 0);
        if (w->buffer && ggml_backend_dev_supports_op(dev, op))
            found = *bufts;
        ggml_backend_buffer_free(w->buffer);
        w->buffer = NULL;
        ggml_reset(ctx);
    }
    ggml_free(ctx);
    return found;
}

/* ---- placing tensors ---- */

struct loader {
    struct weights *w;
    const struct model *m;
    const struct modelfile *mf;
    struct err_text *et;
    bool describe; /* records alone */
};

static struct ggml_tensor *new_tensor(struct loader *l, const struct mf_tensor *t, int64_t rows)
{
    int64_t ne[4] = {t->ne[0], rows, t->ne[2], t->ne[3]};

    return ggml_new_tensor(l->w->ctx, (enum ggml_type)t->type, GGML_MAX_DIMS, ne);
}

static struct ggml_tensor *place_in_file(struct loader *l, const struct mf_tensor *t)
{
    struct ggml_tensor *x = new_tensor(l, t, t->ne[1]);

    CHECK(ggml_backend_tensor_alloc(l->w->file, x, (void *)(uintptr_t)modelfile_data(l->mf, t)) ==
          GGML_STATUS_SUCCESS);
    l->w->bytes += t->size;
    return x;
}

static void keep_buffer(struct weights *w, ggml_backend_buffer_t buffer, size_t bytes)
{
    ggml_backend_buffer_set_usage(buffer, GGML_BACKEND_BUFFER_USAGE_WEIGHTS);
    w->buffers = mem_realloc(w->buffers, (size_t)w->n_buffers + 1, sizeof *w->buffers);
    w->buffers[w->n_buffers++] = buffer;
    w->bytes += bytes;
}

static enum err no_memory(struct loader *l, const struct mf_tensor *t, size_t bytes)
{
    return err_set(l->et, ERR_MEMORY, "%s: tensor %s: no memory for %zu bytes",
                   modelfile_path(l->mf), t->name, bytes);
}

/* Norms and biases lie scattered between the matrices. Left in the file, each would bring a huge
 * page of its neighbours back to memory. */
static struct ggml_tensor *place_copied(struct loader *l, const struct mf_tensor *t, enum err *e)
{
    struct ggml_tensor *x = new_tensor(l, t, t->ne[1]);
    ggml_backend_buffer_t buffer;

    if (l->describe) {
        x->data = (void *)(uintptr_t)modelfile_data(l->mf, t);
        l->w->bytes += t->size;
        return x;
    }
    buffer = ggml_backend_buft_alloc_buffer(ggml_backend_cpu_buffer_type(), t->size);
    if (!buffer) {
        *e = no_memory(l, t, t->size);
        return NULL;
    }
    CHECK(ggml_backend_tensor_alloc(buffer, x, ggml_backend_buffer_get_base(buffer)) ==
          GGML_STATUS_SUCCESS);
    ggml_backend_tensor_set(x, modelfile_data(l->mf, t), 0, t->size);
    keep_buffer(l->w, buffer, t->size);
    return x;
}

static const char own_q4; /* `extra` of a tensor that matmul_q4 reads */

bool weights_are_q4(const struct ggml_tensor *w)
{
    return w->extra == (const void *)&own_q4;
}

/* n Q4_0 tensors of one width, one below the other, as matmul_q4 wants them; NULL when it has no
 * kernel for them. */
static struct ggml_tensor *place_q4(struct loader *l, const struct mf_tensor *const t[], int n)
{
    int64_t k = t[0]->ne[0], rows = 0;
    struct ggml_tensor *x;
    size_t bytes, at;

    for (int i = 0; i < n; i++) {
        if (t[i]->type != GGML_TYPE_Q4_0 || t[i]->ne[2] != 1 || t[i]->ne[3] != 1 ||
            !matmul_q4_fits(k, t[i]->ne[1]))
            return NULL;
        rows += t[i]->ne[1];
    }
    x = new_tensor(l, t[0], rows);
    x->extra = (void *)(uintptr_t)&own_q4;
    bytes = matmul_q4_bytes(k, rows);
    l->w->bytes += bytes;
    at = l->w->own_used;
    l->w->own_used += (bytes + OWN_ALIGN - 1) / OWN_ALIGN * OWN_ALIGN;
    if (l->describe) {
        x->data = (void *)(uintptr_t)modelfile_data(l->mf, t[0]);
        return x;
    }
    CHECK(l->w->own_used <= l->w->own_bytes &&
          ggml_backend_tensor_alloc(l->w->own, x, l->w->own_base + at) == GGML_STATUS_SUCCESS);
    for (int i = 0; i < n; i++) {
        int64_t below = rows;

        for (int j = i; j < n; j++)
            below -= t[j]->ne[1];
        matmul_q4_repack(modelfile_data(l->mf, t[i]), k, t[i]->ne[1],
                         (uint8_t *)x->data + matmul_q4_bytes(k, below));
        modelfile_give_back(l->mf, t[i]);
    }
    return x;
}

/* Repacks n tensors of one type and width, one below the other, into one: for a kernel of ours, or by
 * ggml. Returns NULL when they cannot be repacked; *et is set when that is for want of memory. */
static struct ggml_tensor *place_repacked(struct loader *l, const struct mf_tensor *const t[],
                                          int n, bool experts, enum err *e)
{
    int64_t rows = 0;
    size_t bytes = 0;
    struct ggml_tensor *x;
    ggml_backend_buffer_type_t buft;
    ggml_backend_buffer_t buffer;
    const void *data;
    uint8_t *joined = NULL;

    x = experts ? NULL : place_q4(l, t, n);
    if (x)
        return x;
    for (int i = 0; i < n; i++) {
        rows += t[i]->ne[1];
        bytes += t[i]->size;
    }
    x = new_tensor(l, t[0], rows);
    buft = repack_type(x, experts);
    if (!buft)
        return NULL;
    if (l->describe) { /* extra is how the builder knows a repacked tensor */
        x->data = x->extra = (void *)(uintptr_t)modelfile_data(l->mf, t[0]);
        l->w->repacked = true;
        l->w->bytes += bytes;
        return x;
    }
    buffer = ggml_backend_buft_alloc_buffer(buft, ggml_backend_buft_get_alloc_size(buft, x));
    /* Not malloc: large blocks that come and go teach it to keep them. */
    joined = n > 1 ? mem_pages(bytes) : NULL;
    if (!buffer || (n > 1 && !joined)) {
        ggml_backend_buffer_free(buffer);
        mem_pages_free(joined, bytes);
        *e = no_memory(l, t[0], bytes);
        return NULL;
    }
    mem_huge(ggml_backend_buffer_get_base(buffer), ggml_backend_buffer_get_size(buffer));
    data = modelfile_data(l->mf, t[0]);
    for (size_t i = 0, at = 0; joined && i < (size_t)n; at += t[i]->size, i++) {
        memcpy(joined + at, modelfile_data(l->mf, t[i]), t[i]->size);
        modelfile_give_back(l->mf, t[i]); /* now, so that two copies are all there ever are */
    }
    CHECK(ggml_backend_tensor_alloc(buffer, x, ggml_backend_buffer_get_base(buffer)) ==
          GGML_STATUS_SUCCESS);
    ggml_backend_tensor_set(x, joined ? joined : data, 0, bytes);
    mem_pages_free(joined, bytes);
    if (!joined)
        modelfile_give_back(l->mf, t[0]);
    keep_buffer(l->w, buffer, bytes);
    l->w->repacked = true;
    return x;
}

static struct ggml_tensor *place(struct loader *l, enum role r, int layer, enum err *e)
{
    const struct mf_tensor *t =
        r == T_OUTPUT ? model_output_tensor(l->m) : tensors_get(&l->m->bound, r, layer);
    struct ggml_tensor *x = NULL;

    if (!t || *e)
        return NULL;
    if (tensors_is_vector(r))
        x = place_copied(l, t, e);
    if (tensors_is_matrix(r))
        x = place_repacked(l, &t, 1,
                           r == T_GATE_EXPERTS || r == T_UP_EXPERTS || r == T_DOWN_EXPERTS, e);
    if (x || *e)
        return x;
    /* A tied LM head that reads the embedding's own pages costs nothing more. */
    if (r == T_OUTPUT && t == tensors_get(&l->m->bound, T_EMBED, -1))
        l->w->bytes -= l->w->embed_bytes;
    if (t == tensors_get(&l->m->bound, T_EMBED, -1))
        l->w->embed_bytes = t->size;
    return place_in_file(l, t);
}

/* The tensors of roles r[0..n) as one, where all are there, alike in type and repackable; else
 * NULL. */
static struct ggml_tensor *place_joined(struct loader *l, const enum role r[], int n, int layer,
                                        enum err *e)
{
    const struct mf_tensor *t[3];

    for (int i = 0; i < n; i++) {
        t[i] = tensors_get(&l->m->bound, r[i], layer);
        if (!t[i] || t[i]->type != t[0]->type || *e)
            return NULL;
    }
    return place_repacked(l, t, n, false, e);
}

static void load_attn(struct loader *l, int i, enum err *e)
{
    static const enum role qkv[] = {T_Q, T_K, T_V};
    struct attn_weights *a = &l->w->attn[i];
    bool biased = tensors_get(&l->m->bound, T_Q_B, i) || tensors_get(&l->m->bound, T_K_B, i) ||
                  tensors_get(&l->m->bound, T_V_B, i);

    a->norm = place(l, T_ATTN_NORM, i, e);
    a->norm_b = place(l, T_ATTN_NORM_B, i, e);
    a->qkv = place(l, T_QKV, i, e);
    a->qkv_b = place(l, T_QKV_B, i, e);
    if (!a->qkv && !biased)
        a->qkv = place_joined(l, qkv, 3, i, e);
    if (!a->qkv) {
        a->q = place(l, T_Q, i, e);
        a->q_b = place(l, T_Q_B, i, e);
        a->k = place(l, T_K, i, e);
        a->k_b = place(l, T_K_B, i, e);
        a->v = place(l, T_V, i, e);
        a->v_b = place(l, T_V_B, i, e);
    }
    a->q_norm = place(l, T_Q_NORM, i, e);
    a->k_norm = place(l, T_K_NORM, i, e);
    a->out = place(l, T_ATTN_OUT, i, e);
    a->out_b = place(l, T_ATTN_OUT_B, i, e);
    a->post_norm = place(l, T_ATTN_POST_NORM, i, e);
    if (!l->w->rope_freqs && !l->w->rope_long && !l->w->rope_short) {
        l->w->rope_freqs = place(l, T_ROPE_FREQS, i, e);
        l->w->rope_long = place(l, T_ROPE_LONG, i, e);
        l->w->rope_short = place(l, T_ROPE_SHORT, i, e);
    }
}

static void load_ffn(struct loader *l, int i, enum err *e)
{
    static const enum role gate_up[] = {T_GATE, T_UP};
    struct ffn_weights *f = &l->w->ffn[i];

    f->norm = place(l, T_FFN_NORM, i, e);
    f->norm_b = place(l, T_FFN_NORM_B, i, e);
    if (l->m->arch->ffn == FFN_GATED_FUSED)
        f->gate_up = place(l, T_UP, i, e);
    else if (!tensors_get(&l->m->bound, T_GATE_B, i) && !tensors_get(&l->m->bound, T_UP_B, i))
        f->gate_up = place_joined(l, gate_up, 2, i, e);
    if (!f->gate_up) {
        f->gate = place(l, T_GATE, i, e);
        f->gate_b = place(l, T_GATE_B, i, e);
        f->up = place(l, T_UP, i, e);
        f->up_b = place(l, T_UP_B, i, e);
    }
    f->down = place(l, T_DOWN, i, e);
    f->down_b = place(l, T_DOWN_B, i, e);
    f->router = place(l, T_ROUTER, i, e);
    f->gate_experts = place(l, T_GATE_EXPERTS, i, e);
    f->up_experts = place(l, T_UP_EXPERTS, i, e);
    f->down_experts = place(l, T_DOWN_EXPERTS, i, e);
    f->post_norm = place(l, T_FFN_POST_NORM, i, e);
}

static void load_module(struct loader *l, int module, enum err *e)
{
    const struct module_info *mi = model_module(l->m, module);
    struct weights *w = l->w;

    switch (mi->kind) {
    case MODULE_EMBED:
        w->embed = place(l, T_EMBED, -1, e);
        w->embed_norm = place(l, T_EMBED_NORM, -1, e);
        w->embed_norm_b = place(l, T_EMBED_NORM_B, -1, e);
        w->pos_embed = place(l, T_POS_EMBED, -1, e);
        return;
    case MODULE_ATTN:
        load_attn(l, mi->layer, e);
        return;
    case MODULE_FFN:
        load_ffn(l, mi->layer, e);
        return;
    case MODULE_OUTPUT:
        w->out_norm = place(l, T_OUT_NORM, -1, e);
        w->out_norm_b = place(l, T_OUT_NORM_B, -1, e);
        w->output = place(l, T_OUTPUT, -1, e);
        w->output_b = place(l, T_OUTPUT_B, -1, e);
        return;
    }
}

static enum err check_memory(const struct model *m, int first, int end, struct err_text *et)
{
    uint64_t need = 0, have = sys_available_bytes();

    /* The embedding stays in the mapped file, of which only the rows in use come to memory. */
    for (int i = first; i < end; i++)
        need += i == 0 ? model_module(m, i)->decode_bytes : model_module(m, i)->bytes;
    if (have && need > have)
        return err_set(
            et, ERR_MEMORY,
            "the weights of modules %s to %s need %.1f GB, and this device has %.1f GB available; "
            "use a smaller quantisation, or split the model over more devices",
            model_module(m, first)->name, model_module(m, end - 1)->name, (double)need / 1e9,
            (double)have / 1e9);
    return ERR_NONE;
}

static void open_records(struct weights *w, const struct model *m, int first, int end)
{
    size_t n_layers = (size_t)m->hp.n_layers,
           n_tensors = (size_t)(end - first) * 2 * ROLES_LAYER + ROLES_GLOBAL;
    struct ggml_init_params params = {.mem_size = n_tensors * ggml_tensor_overhead(),
                                      .no_alloc = true};
    const struct mf_tensor *any = modelfile_tensor(m->file, 0);

    *w = (struct weights){.ctx = ggml_init(params)};
    CHECK(w->ctx != NULL);
    w->attn = mem_zalloc(n_layers, sizeof *w->attn);
    w->ffn = mem_zalloc(n_layers, sizeof *w->ffn);
    w->file = ggml_backend_cpu_buffer_from_ptr(
        (void *)(uintptr_t)((const uint8_t *)modelfile_data(m->file, any) - any->offset),
        modelfile_size(m->file));
    CHECK(w->file != NULL);
    ggml_backend_buffer_set_usage(w->file, GGML_BACKEND_BUFFER_USAGE_WEIGHTS);
}

/* Room for all that matmul_q4 is to read. */
static enum err open_own(struct loader *l, int first, int end)
{
    struct weights all;
    struct weights *w = l->w;

    weights_describe(&all, l->m, first, end);
    w->own_bytes = all.own_used;
    weights_free(&all);
    if (w->own_bytes == 0)
        return ERR_NONE;
    w->own_base = mem_pages(w->own_bytes);
    if (!w->own_base)
        return err_set(l->et, ERR_MEMORY, "%s: no memory for %zu bytes of weights",
                       modelfile_path(l->mf), w->own_bytes);
    w->own = ggml_backend_cpu_buffer_from_ptr(w->own_base, w->own_bytes);
    CHECK(w->own != NULL);
    ggml_backend_buffer_set_usage(w->own, GGML_BACKEND_BUFFER_USAGE_WEIGHTS);
    return ERR_NONE;
}

enum err weights_load(struct weights *w, const struct model *m, int first, int end,
                      struct err_text *et)
{
    struct loader l = {.w = w, .m = m, .mf = m->file, .et = et};
    enum err e = check_memory(m, first, end, et);

    *w = (struct weights){.ctx = NULL};
    if (e)
        return e;
    open_records(w, m, first, end);
    e = open_own(&l, first, end);
    for (int i = first; i < end && !e; i++)
        load_module(&l, i, &e);
    modelfile_give_back(m->file, NULL); /* what was only read to be repacked or copied */
    if (e)
        weights_free(w);
    return e;
}

void weights_describe(struct weights *w, const struct model *m, int first, int end)
{
    struct loader l = {.w = w, .m = m, .mf = m->file, .describe = true};
    enum err e = ERR_NONE;

    open_records(w, m, first, end);
    for (int i = first; i < end; i++)
        load_module(&l, i, &e);
    CHECK(!e); /* nothing was read and nothing allocated */
}

void weights_free(struct weights *w)
{
    for (int i = 0; i < w->n_buffers; i++)
        ggml_backend_buffer_free(w->buffers[i]);
    free(w->buffers);
    ggml_backend_buffer_free(w->own);
    mem_pages_free(w->own_base, w->own_bytes);
    ggml_backend_buffer_free(w->file);
    ggml_free(w->ctx);
    free(w->attn);
    free(w->ffn);
    *w = (struct weights){.ctx = NULL};
}
