/* How a layer reads, for all families at once (h and f are the block's work, x the residual
 * stream):
 *
 *   h = norm(x);  q, k, v = split(W_qkv h);  [norm q, k per head];  [rotate q, k];  store k, v;  a
 *   = W_o attention(q) [a = norm(a)]
 *   sequential:  x = a + x;  f = ffn(norm(x));  [f = norm(f)];  x = f + x
 *   parallel:    f = ffn(norm'(x));  x = (f + x) + a
 *
 * At the model's last attention the rows whose logits nobody wants end: their keys and values are
 * stored, and only wanted rows of q, a and x go on. */
#include "model/graph.h"

#include <math.h>
#include <string.h>

#include "base/check.h"
#include "model/matmul_q4.h"
#include "model/matmul_q8.h"

struct builder {
    struct graph *g;
    const struct graph_plan *p;
    const struct hparams *hp;
    const struct arch *arch;
    struct ggml_context *ctx;
    struct ggml_tensor *x; /* (n_embd, rows) f32: the residual stream */
    struct ggml_tensor
        *a; /* (n_embd, rows) f32: the attention's output on its way to a parallel join, or NULL */
    bool shrunk; /* only wanted rows are left */
    /* The activations that were packed last, and by which of the op_pack. */
    struct ggml_tensor *packed_from, *packed;
    ggml_custom_op_t packed_by;
};

/* ---- the two custom operators ---- */

/* dst: one f32 nobody reads; src0 k, src1 v: (head_dim, n_kv_heads, n_rows) f32, rows contiguous
 * within a head. */
static void op_store(struct ggml_tensor *dst, int ith, int nth, void *user)
{
    const struct attn_op *op = user;
    const struct ggml_tensor *k = dst->src[0], *v = dst->src[1];

    for (int i = ith; i < op->step->n_rows * op->shape.n_kv_heads; i += nth) {
        int row = i / op->shape.n_kv_heads, head = i % op->shape.n_kv_heads;

        kv_store(op->kv, op->step->slot[row], head, op->step->pos[row],
                 (const float *)((const char *)k->data + (size_t)row * k->nb[2] +
                                 (size_t)head * k->nb[1]),
                 (const float *)((const char *)v->data + (size_t)row * v->nb[2] +
                                 (size_t)head * v->nb[1]));
    }
}

/* dst: (head_dim * n_heads, rows) f32; src0 q: (head_dim, n_heads, rows of q) f32, heads
 * contiguous; src1: op_store's dst, for order. */
static void op_attend(struct ggml_tensor *dst, int ith, int nth, void *user)
{
    const struct attn_op *op = user;
    const struct step_state *step = op->step;
    const struct ggml_tensor *q = dst->src[0];
    size_t q_stride = q->nb[2] / sizeof(float), out_stride = dst->nb[1] / sizeof(float);
    void *scratch = op->compute->scratch + (size_t)ith * op->compute->scratch_bytes;
    const float *q_data = q->data;
    float *out = dst->data;
    bool pick = op->shrink && step->n_wanted < step->n_rows;
    int n = op->shrink ? step->n_wanted : step->n_rows;
    struct attn_rows rows = {.n = n,
                             .slot = op->shrink ? step->wanted_slot : step->slot,
                             .pos = op->shrink ? step->wanted_pos : step->pos};

    for (int64_t i = n + ith; i < dst->ne[1]; i += nth) /* padding rows */
        memset(out + (size_t)i * out_stride, 0, (size_t)dst->ne[0] * sizeof(float));
    if (!pick) {
        attn_run(op->kv, &op->shape, &rows, q_data, q_stride, out, out_stride, ith, nth, scratch);
        return;
    }
    /* Wanted rows lie scattered in q: run each contiguous stretch of them. */
    for (int i = 0, len; i < n; i += len) {
        struct attn_rows part = {.slot = rows.slot + i, .pos = rows.pos + i};

        for (len = 1; i + len < n && step->wanted[i + len] == step->wanted[i] + len;)
            len++;
        part.n = len;
        attn_run(op->kv, &op->shape, &part, q_data + (size_t)step->wanted[i] * q_stride, q_stride,
                 out + (size_t)i * out_stride, out_stride, ith, nth, scratch);
    }
}

/* ggml aligns tensors to 32 bytes; the kernel wants 64, so there is room for that. */
static void *packed_at(const struct ggml_tensor *t)
{
    return (void *)(((uintptr_t)t->data + 63) / 64 * 64);
}

/* dst: (packed bytes) i8; src0: (k, rows) f32. */
static void op_pack_q8(struct ggml_tensor *dst, int ith, int nth, void *user)
{
    const struct ggml_tensor *x = dst->src[0];

    matmul_q8_pack(x->data, x->nb[1] / sizeof(float), (int)x->ne[0], (int)x->ne[1], packed_at(dst),
                   ith, nth);
}

/* dst: (n_out, rows) f32; src0: what op_pack_q8 gave; src1: (k, n_out) Q8_0. */
static void op_matmul_q8(struct ggml_tensor *dst, int ith, int nth, void *user)
{
    const struct ggml_tensor *w = dst->src[1];

    matmul_q8_run(w->data, (int)w->ne[0], (int)w->ne[1], packed_at(dst->src[0]), (int)dst->ne[1],
                  dst->data, dst->nb[1] / sizeof(float), ith, nth);
}

/* The same for a matrix that is repacked for matmul_q4. */
static void op_pack_q4(struct ggml_tensor *dst, int ith, int nth, void *user)
{
    const struct ggml_tensor *x = dst->src[0];

    matmul_q4_pack(x->data, x->nb[1] / sizeof(float), (int)x->ne[0], (int)x->ne[1], packed_at(dst),
                   ith, nth);
}

static void op_matmul_q4(struct ggml_tensor *dst, int ith, int nth, void *user)
{
    const struct ggml_tensor *w = dst->src[1];

    matmul_q4_run(w->data, (int)w->ne[0], (int)w->ne[1], packed_at(dst->src[0]), (int)dst->ne[1],
                  dst->data, dst->nb[1] / sizeof(float), ith, nth);
}

/* ---- pieces ---- */

static struct ggml_tensor *add(struct builder *b, struct ggml_tensor *x, struct ggml_tensor *bias)
{
    return bias ? ggml_add(b->ctx, x, bias) : x;
}

/* Activations as a kernel of ours wants them: packed once for all that multiply by them. */
static struct ggml_tensor *packed(struct builder *b, struct ggml_tensor *x, size_t bytes,
                                  ggml_custom_op_t by)
{
    if (b->packed_from != x || b->packed_by != by) {
        b->packed_from = x;
        b->packed_by = by;
        b->packed = ggml_custom_4d(b->ctx, GGML_TYPE_I8, (int64_t)bytes + 64, 1, 1, 1, &x, 1, by,
                                   GGML_N_TASKS_MAX, NULL);
    }
    return b->packed;
}

/* W x; W (n_in, n_out), x (n_in, rows) -> (n_out, rows). */
static struct ggml_tensor *multiply(struct builder *b, struct ggml_tensor *w, struct ggml_tensor *x)
{
    int k = (int)x->ne[0], rows = (int)x->ne[1];
    struct ggml_tensor *args[2] = {NULL, w};
    ggml_custom_op_t run = op_matmul_q8;

    if (weights_are_q4(w)) {
        args[0] = packed(b, x, matmul_q4_packed_bytes(k, rows), op_pack_q4);
        run = op_matmul_q4;
    } else if (w->type == GGML_TYPE_Q8_0 && !w->extra && matmul_q8_available()) {
        args[0] = packed(b, x, matmul_q8_packed_bytes(k, rows), op_pack_q8);
    } else {
        return ggml_mul_mat(b->ctx, w, x);
    }
    return ggml_custom_4d(b->ctx, GGML_TYPE_F32, w->ne[1], rows, 1, 1, args, 2, run,
                          GGML_N_TASKS_MAX, NULL);
}

struct ggml_tensor *graph_multiply(struct ggml_context *ctx, struct ggml_tensor *w,
                                   struct ggml_tensor *x)
{
    struct builder b = {.ctx = ctx};

    return multiply(&b, w, x);
}

/* W x + bias; W (n_in, n_out), x (n_in, rows) -> (n_out, rows). */
static struct ggml_tensor *linear(struct builder *b, struct ggml_tensor *w,
                                  struct ggml_tensor *bias, struct ggml_tensor *x)
{
    return add(b, multiply(b, w, x), bias);
}

static struct ggml_tensor *norm(struct builder *b, struct ggml_tensor *x, struct ggml_tensor *w,
                                struct ggml_tensor *bias)
{
    x = b->arch->norm == NORM_RMS ? ggml_rms_norm(b->ctx, x, b->hp->norm_eps)
                                  : ggml_norm(b->ctx, x, b->hp->norm_eps);
    return add(b, ggml_mul(b->ctx, x, w), bias);
}

static struct ggml_tensor *input(struct builder *b, enum ggml_type type, int64_t ne0, int64_t ne1)
{
    struct ggml_tensor *t = ggml_new_tensor_2d(b->ctx, type, ne0, ne1);

    ggml_set_input(t);
    return t;
}

static struct ggml_tensor *positions(struct builder *b)
{
    if (!b->g->pos)
        b->g->pos = input(b, GGML_TYPE_I32, b->g->n_rows, 1);
    return b->g->pos;
}

/* Only the wanted rows of x (n, n_rows). */
static struct ggml_tensor *pick_wanted(struct builder *b, struct ggml_tensor *x)
{
    if (b->g->n_wanted == b->g->n_rows)
        return x;
    if (!b->g->wanted)
        b->g->wanted = input(b, GGML_TYPE_I32, b->g->n_wanted, 1);
    return ggml_get_rows(b->ctx, x, b->g->wanted);
}

static struct ggml_tensor *rotate(struct builder *b, int layer, struct ggml_tensor *x)
{
    const struct rope *r = hparams_windowed(b->hp, layer) ? &b->hp->rope_window : &b->hp->rope;
    const struct weights *w = b->p->w;
    struct ggml_tensor *factors = w->rope_freqs;
    int mode;

    if (b->arch->position == POS_ROPE_PAIRS)
        mode = GGML_ROPE_TYPE_NORMAL;
    else if (b->arch->position == POS_ROPE_HALVES)
        mode = GGML_ROPE_TYPE_NEOX;
    else
        return x;
    if (!factors)
        factors = b->p->n_ctx > b->hp->rope.n_ctx_orig ? w->rope_long : w->rope_short;
    return ggml_rope_ext(b->ctx, x, positions(b), factors, r->n_rot, mode, r->n_ctx_orig, r->base,
                         r->scale, r->ext_factor, r->attn_factor, r->beta_fast, r->beta_slow);
}

struct qkv {
    struct ggml_tensor *q, *k, *v; /* (head_dim, heads, n_rows) each */
};

static struct qkv project(struct builder *b, const struct attn_weights *w, struct ggml_tensor *h)
{
    int64_t dim = b->hp->head_dim, n_q = b->hp->n_heads, n_kv = b->hp->n_kv_heads, rows = h->ne[1];
    size_t head = (size_t)dim * sizeof(float);
    struct qkv r;

    if (w->qkv) {
        struct ggml_tensor *all = linear(b, w->qkv, w->qkv_b, h);

        r.q = ggml_view_3d(b->ctx, all, dim, n_q, rows, head, all->nb[1], 0);
        r.k = ggml_view_3d(b->ctx, all, dim, n_kv, rows, head, all->nb[1], (size_t)n_q * head);
        r.v = ggml_view_3d(b->ctx, all, dim, n_kv, rows, head, all->nb[1],
                           (size_t)(n_q + n_kv) * head);
    } else {
        r.q = ggml_reshape_3d(b->ctx, linear(b, w->q, w->q_b, h), dim, n_q, rows);
        r.k = ggml_reshape_3d(b->ctx, linear(b, w->k, w->k_b, h), dim, n_kv, rows);
        r.v = ggml_reshape_3d(b->ctx, linear(b, w->v, w->v_b, h), dim, n_kv, rows);
    }
    if (w->q_norm)
        r.q = norm(b, r.q, w->q_norm, NULL);
    if (w->k_norm)
        r.k = norm(b, r.k, w->k_norm, NULL);
    return r;
}

/* ---- modules ---- */

static void build_embed(struct builder *b)
{
    const struct weights *w = b->p->w;

    b->g->tokens = input(b, GGML_TYPE_I32, b->g->n_rows, 1);
    b->x = ggml_get_rows(b->ctx, w->embed, b->g->tokens);
    if (b->hp->embed_scale != 1.0f)
        b->x = ggml_scale(b->ctx, b->x, b->hp->embed_scale);
    if (w->pos_embed)
        b->x = ggml_add(b->ctx, b->x, ggml_get_rows(b->ctx, w->pos_embed, positions(b)));
    if (w->embed_norm)
        b->x = norm(b, b->x, w->embed_norm, w->embed_norm_b);
}

static void build_attn(struct builder *b, int layer)
{
    const struct attn_weights *w = &b->p->w->attn[layer];
    struct attn_op *op = &b->p->attn[layer];
    struct qkv t = project(b, w, norm(b, b->x, w->norm, w->norm_b));
    struct ggml_tensor *args[2], *stored, *out;
    int64_t rows = op->shrink ? b->g->n_wanted : b->g->n_rows;

    args[0] = rotate(b, layer, t.k);
    args[1] = t.v;
    stored =
        ggml_custom_4d(b->ctx, GGML_TYPE_F32, 1, 1, 1, 1, args, 2, op_store, GGML_N_TASKS_MAX, op);
    ggml_build_forward_expand(b->g->cgraph, stored);
    if (op->shrink) {
        b->shrunk = true;
        if (rows == 0)
            return;
        b->x = pick_wanted(b, b->x);
    }
    args[0] = rotate(b, layer, t.q);
    args[1] = stored;
    out = ggml_custom_4d(b->ctx, GGML_TYPE_F32, (int64_t)b->hp->head_dim * b->hp->n_heads, rows, 1,
                         1, args, 2, op_attend, GGML_N_TASKS_MAX, op);
    out = linear(b, w->out, w->out_b, out);
    if (w->post_norm)
        out = norm(b, out, w->post_norm, NULL);
    if (b->hp->parallel)
        b->a = out;
    else
        b->x = ggml_add(b->ctx, out, b->x);
}

static struct ggml_tensor *activate(struct builder *b, struct ggml_tensor *gate,
                                    struct ggml_tensor *up)
{
    if (b->arch->act == ACT_SILU)
        return up ? ggml_swiglu_split(b->ctx, gate, up) : ggml_silu(b->ctx, gate);
    return up ? ggml_geglu_split(b->ctx, gate, up) : ggml_gelu(b->ctx, gate);
}

static struct ggml_tensor *ffn_dense(struct builder *b, const struct ffn_weights *w,
                                     struct ggml_tensor *h)
{
    if (w->gate_up) {
        h = multiply(b, w->gate_up, h);
        h = b->arch->act == ACT_SILU ? ggml_swiglu(b->ctx, h) : ggml_geglu(b->ctx, h);
    } else if (w->gate) {
        struct ggml_tensor *up = linear(b, w->up, w->up_b, h);

        h = activate(b, linear(b, w->gate, w->gate_b, h), up);
    } else {
        h = activate(b, linear(b, w->up, w->up_b, h), NULL);
    }
    return linear(b, w->down, w->down_b, h);
}

/* Mixture of experts: softmax over the router's scores, the best n used, their weights made to sum
 * to 1 (Mixtral, arXiv 2401.04088). */
static struct ggml_tensor *ffn_experts(struct builder *b, const struct ffn_weights *w,
                                       struct ggml_tensor *h)
{
    int64_t n = b->hp->n_experts, used = b->hp->n_experts_used, n_embd = h->ne[0], rows = h->ne[1];
    struct ggml_tensor *probs =
        ggml_soft_max(b->ctx, ggml_mul_mat(b->ctx, w->router, h));             /* (n, rows) */
    struct ggml_tensor *chosen = ggml_argsort_top_k(b->ctx, probs, (int)used); /* (used, rows) */
    struct ggml_tensor *share, *up, *gate, *sum;

    share = ggml_get_rows(b->ctx, ggml_reshape_3d(b->ctx, probs, 1, n, rows),
                          chosen); /* (1, used, rows) */
    share = ggml_reshape_2d(b->ctx, share, used, rows);
    /* The sum is kept off zero as f16's smallest normal number does it elsewhere in the field. */
    sum = ggml_clamp(b->ctx, ggml_sum_rows(b->ctx, share), 6.103515625e-5f, INFINITY);
    share = ggml_reshape_3d(b->ctx, ggml_div(b->ctx, share, sum), 1, used, rows);
    if (b->hp->expert_scale != 1.0f)
        share = ggml_scale(b->ctx, share, b->hp->expert_scale);

    h = ggml_reshape_3d(b->ctx, h, n_embd, 1, rows);
    up = ggml_mul_mat_id(b->ctx, w->up_experts, h, chosen); /* (n_ff, used, rows) */
    gate = ggml_mul_mat_id(b->ctx, w->gate_experts, h, chosen);
    h = ggml_mul_mat_id(b->ctx, w->down_experts, activate(b, gate, up),
                        chosen); /* (n_embd, used, rows) */
    h = ggml_mul(b->ctx, h, share);
    sum = NULL;
    for (int64_t i = 0; i < used; i++) {
        struct ggml_tensor *one =
            ggml_view_2d(b->ctx, h, n_embd, rows, h->nb[2], (size_t)i * h->nb[1]);

        sum = sum ? ggml_add(b->ctx, sum, one) : one;
    }
    return used > 1 ? sum : ggml_cont(b->ctx, sum);
}

static void build_ffn(struct builder *b, int layer)
{
    const struct ffn_weights *w = &b->p->w->ffn[layer];
    struct ggml_tensor *h = norm(b, b->x, w->norm, w->norm_b);

    h = w->router ? ffn_experts(b, w, h) : ffn_dense(b, w, h);
    if (w->post_norm)
        h = norm(b, h, w->post_norm, NULL);
    b->x = ggml_add(b->ctx, h, b->x);
    if (b->a)
        b->x = ggml_add(b->ctx, b->x, b->a);
    b->a = NULL;
}

static void build_output(struct builder *b)
{
    const struct weights *w = b->p->w;

    b->x = norm(b, b->x, w->out_norm, w->out_norm_b);
    if (b->p->hidden)
        return;
    b->x = linear(b, w->output, w->output_b, b->x);
    if (b->hp->logit_cap > 0.0f) {
        b->x = ggml_tanh(b->ctx, ggml_scale(b->ctx, b->x, 1.0f / b->hp->logit_cap));
        b->x = ggml_scale(b->ctx, b->x, b->hp->logit_cap);
    }
}

/* ---- the whole ---- */

static void build_inputs(struct builder *b)
{
    struct graph *g = b->g;
    struct edge edges[EDGES_MAX];
    int64_t rows;

    if (b->p->first == 0)
        return;
    b->shrunk = b->p->first > model_rows_shrink_at(b->p->m);
    rows = b->shrunk ? g->n_wanted : g->n_rows;
    g->n_in = model_edges(b->p->m, b->p->first, edges);
    for (int i = 0; i < g->n_in; i++)
        g->in[i] = input(b, GGML_TYPE_F32, edges[i].width, rows);
    b->x = g->in[0];
    b->a = g->in[1];
}

static void set_outputs(struct builder *b)
{
    struct graph *g = b->g;

    g->out_rows = b->shrunk ? g->n_wanted : g->n_rows;
    g->out[0] = b->x;
    g->out[1] = b->a;
    g->n_out = b->a ? 2 : 1;
    for (int i = 0; i < g->n_out && g->out_rows > 0; i++) {
        ggml_set_output(g->out[i]);
        ggml_build_forward_expand(g->cgraph, g->out[i]);
    }
}

void graph_build(struct graph *g, const struct graph_plan *p, int n_rows, int n_wanted)
{
    /* A module is at most about 40 nodes and a few inputs, plus two per expert used. */
    size_t n_nodes = (size_t)(p->end - p->first) * (size_t)(40 + 2 * p->m->hp.n_experts_used) + 32;
    struct ggml_init_params params = {.mem_size = n_nodes * ggml_tensor_overhead() +
                                                  ggml_graph_overhead_custom(n_nodes, false),
                                      .no_alloc = true};
    struct builder b = {.g = g, .p = p, .hp = &p->m->hp, .arch = p->m->arch};

    *g = (struct graph){.n_rows = n_rows, .n_wanted = n_wanted, .hidden = p->hidden};
    g->ctx = b.ctx = ggml_init(params);
    CHECK(g->ctx != NULL);
    g->cgraph = ggml_new_graph_custom(g->ctx, n_nodes, false);
    build_inputs(&b);
    for (int i = p->first; i < p->end; i++) {
        const struct module_info *mi = model_module(p->m, i);

        if (b.shrunk && n_wanted == 0)
            break;
        if (mi->kind == MODULE_EMBED)
            build_embed(&b);
        else if (mi->kind == MODULE_ATTN)
            build_attn(&b, mi->layer);
        else if (mi->kind == MODULE_FFN)
            build_ffn(&b, mi->layer);
        else
            build_output(&b);
    }
    set_outputs(&b);
}

void graph_free(struct graph *g)
{
    ggml_free(g->ctx);
    g->ctx = NULL;
}
