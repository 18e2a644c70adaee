#include "model/segment.h"

#include <ggml-alloc.h>
#include <ggml-backend.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "base/check.h"
#include "base/mem.h"
#include "base/sys.h"
#include "model/graph.h"

enum { GRAPHS_MAX = 12 };

struct segment {
    const struct model *m;
    struct compute *compute;
    struct segment_opts opts;
    int first, end;
    struct weights weights;
    struct kv *kv;        /* (n_layers), opened for the segment's own attn modules */
    struct attn_op *attn; /* (n_layers) */
    int *slot_len;        /* (n_slots): positions every module of the segment holds */
    /* (n_layers, n_slots): an attn's own length, ahead of the others while a slot is imported. */
    int *module_len;
    struct step_state step;
    int32_t *wanted, *wanted_slot, *wanted_pos; /* (n_rows_max) */
    ggml_gallocr_t
        alloc; /* reserved once for the largest shape, so that no graph moves another's memory */
    struct graph graphs[GRAPHS_MAX];
    int n_graphs;
    uint64_t clock; /* runs so far, for the graphs' age */
};

/* ---- open and close ---- */

static enum err check_opts(const struct model *m, int first, int end, const struct segment_opts *o,
                           struct err_text *et)
{
    if (first < 0 || end > m->n_modules || first >= end)
        return err_set(et, ERR_INPUT,
                       "modules [%d, %d): a segment is a run of this model's 0 to %d", first, end,
                       m->n_modules - 1);
    if (o->n_slots < 1 || o->n_slots > SEGMENT_SLOTS_MAX)
        return err_set(et, ERR_INPUT, "%d slots: choose between 1 and %d", o->n_slots,
                       SEGMENT_SLOTS_MAX);
    if (o->n_rows_max < 1 || o->n_rows_max > SEGMENT_ROWS_MAX)
        return err_set(et, ERR_INPUT, "%d rows per step: choose between 1 and %d", o->n_rows_max,
                       SEGMENT_ROWS_MAX);
    if (o->n_ctx < 1 || o->n_ctx > 1 << 24)
        return err_set(et, ERR_INPUT, "a context of %d positions: choose between 1 and %d",
                       o->n_ctx, 1 << 24);
    if (m->shape.ctx_is_hard && o->n_ctx > m->hp.n_ctx_train)
        return err_set(et, ERR_INPUT,
                       "a context of %d: %s has learned positions for %d and no more", o->n_ctx,
                       m->shape.name, m->hp.n_ctx_train);
    return model_check_kv(m, o->kv, et);
}

static enum err open_kv(struct segment *s, struct err_text *et)
{
    const struct hparams *hp = &s->m->hp;
    uint64_t have = sys_available_bytes();
    enum err e = ERR_NONE;

    for (int i = s->first; i < s->end && !e; i++) {
        const struct module_info *mi = model_module(s->m, i);
        struct attn_op *op;

        if (mi->kind != MODULE_ATTN)
            continue;
        op = &s->attn[mi->layer];
        *op = (struct attn_op){
            .step = &s->step,
            .kv = &s->kv[mi->layer],
            .compute = s->compute,
            .shrink = i == model_rows_shrink_at(s->m),
            .shape = {.n_heads = hp->n_heads,
                      .n_kv_heads = hp->n_kv_heads,
                      .head_dim = hp->head_dim,
                      .scale = hp->attn_scale,
                      .cap = hp->attn_cap,
                      .alibi_bias_max = hp->alibi_bias_max,
                      .window = hparams_windowed(hp, mi->layer) ? hp->window : 0},
        };
        e = kv_open(&s->kv[mi->layer], s->opts.kv, s->opts.n_slots, hp->n_kv_heads, hp->head_dim,
                    s->opts.n_ctx, et);
    }
    if (!e && have && segment_kv_bytes(s) > have)
        e = err_set(et, ERR_MEMORY,
                    "a context of %d in %d slots needs %.1f GB for keys and values, and this "
                    "device has %.1f GB "
                    "available; use a smaller context or a q8_0 cache",
                    s->opts.n_ctx, s->opts.n_slots, (double)segment_kv_bytes(s) / 1e9,
                    (double)have / 1e9);
    return e;
}

static struct graph_plan plan_of(const struct segment *s)
{
    return (struct graph_plan){.m = s->m,
                               .w = &s->weights,
                               .attn = s->attn,
                               .first = s->first,
                               .end = s->end,
                               .n_ctx = s->opts.n_ctx};
}

/* Graphs of the largest shapes size the memory that all graphs share: all rows wanted, and all but
 * one, which are picked out and so exist twice. Its pages become resident as they are used. */
static enum err reserve(struct segment *s, struct err_text *et)
{
    struct graph_plan plan = plan_of(s);
    int rows = (s->opts.n_rows_max + 3) / 4 * 4;
    enum err e = compute_grow(s->compute, 0, attn_scratch_bytes(s->m->hp.head_dim), et);
    bool ok = true;

    if (e)
        return e;
    s->alloc = ggml_gallocr_new(ggml_backend_cpu_buffer_type());
    for (int wanted = rows; wanted >= rows - 1 && ok; wanted--) {
        struct graph g;

        graph_build(&g, &plan, rows, wanted);
        ok = ggml_gallocr_reserve(s->alloc, g.cgraph);
        graph_free(&g);
    }
    return ok ? ERR_NONE
              : err_set(et, ERR_MEMORY, "no memory for steps of %d rows", s->opts.n_rows_max);
}

enum err segment_open(const struct model *m, struct compute *c, int first, int end,
                      const struct segment_opts *opts, struct segment **out, struct err_text *et)
{
    struct segment *s;
    size_t n_layers = (size_t)m->hp.n_layers, n_rows;
    enum err e = check_opts(m, first, end, opts, et);

    *out = NULL;
    if (e)
        return e;
    n_rows = (size_t)opts->n_rows_max;
    s = mem_zalloc(1, sizeof *s);
    s->m = m;
    s->compute = c;
    s->opts = *opts;
    s->first = first;
    s->end = end;
    s->kv = mem_zalloc(n_layers, sizeof *s->kv);
    s->attn = mem_zalloc(n_layers, sizeof *s->attn);
    s->slot_len = mem_zalloc((size_t)opts->n_slots, sizeof *s->slot_len);
    s->module_len = mem_zalloc(n_layers * (size_t)opts->n_slots, sizeof *s->module_len);
    s->wanted = mem_zalloc(n_rows, sizeof *s->wanted);
    s->wanted_slot = mem_zalloc(n_rows, sizeof *s->wanted_slot);
    s->wanted_pos = mem_zalloc(n_rows, sizeof *s->wanted_pos);
    e = weights_load(&s->weights, m, first, end, et);
    if (!e)
        e = open_kv(s, et);
    if (!e)
        e = reserve(s, et);
    if (e) {
        segment_close(s);
        return err_wrap(et, e, "%s", modelfile_path(m->file));
    }
    *out = s;
    return ERR_NONE;
}

static void forget_graphs(struct segment *s)
{
    for (int i = 0; i < s->n_graphs; i++)
        graph_free(&s->graphs[i]);
    s->n_graphs = 0;
}

void segment_close(struct segment *s)
{
    if (!s)
        return;
    forget_graphs(s);
    ggml_gallocr_free(s->alloc);
    for (int i = 0; i < s->m->hp.n_layers; i++)
        kv_close(&s->kv[i]);
    weights_free(&s->weights);
    free(s->kv);
    free(s->attn);
    free(s->slot_len);
    free(s->module_len);
    free(s->wanted);
    free(s->wanted_slot);
    free(s->wanted_pos);
    free(s);
}

/* ---- a step ---- */

static int *module_len(const struct segment *s, int layer, int slot)
{
    return &s->module_len[(size_t)layer * (size_t)s->opts.n_slots + (size_t)slot];
}

static void set_slot_len(struct segment *s, int slot, int len)
{
    s->slot_len[slot] = len;
    for (int i = 0; i < s->m->hp.n_layers; i++)
        *module_len(s, i, slot) = len;
}

static bool starts_with_embed(const struct segment *s)
{
    return s->first == 0;
}

/* What the rows want; ERR_INPUT when that is not the same for all. */
static enum err wanted_kind(const struct batch *b, enum row_want *out, struct err_text *et)
{
    *out = ROW_NOTHING;
    for (int i = 0; i < b->n_rows; i++) {
        if (b->want[i] > ROW_HIDDEN)
            return err_set(et, ERR_INPUT, "row %d: wants %d, which is unknown", i, b->want[i]);
        if (b->want[i] && *out && b->want[i] != *out)
            return err_set(et, ERR_INPUT, "row %d: wants another thing than those before it", i);
        if (b->want[i])
            *out = (enum row_want)b->want[i];
    }
    return ERR_NONE;
}

enum err segment_check(const struct segment *s, const struct batch *b, struct err_text *et)
{
    int n_vocab = s->m->hp.n_vocab;
    enum row_want kind;

    if (b->n_rows < 1 || b->n_rows > s->opts.n_rows_max)
        return err_set(et, ERR_LIMIT, "a step of %d rows: 1 to %d fit", b->n_rows,
                       s->opts.n_rows_max);
    for (int i = 0; i < b->n_rows; i++) {
        int slot = b->slot[i], pos = b->pos[i];
        bool follows = i > 0 && b->slot[i - 1] == slot;

        if (slot < 0 || slot >= s->opts.n_slots)
            return err_set(et, ERR_INPUT, "row %d: slot %d: there are 0 to %d", i, slot,
                           s->opts.n_slots - 1);
        if (pos < 0 || pos >= s->opts.n_ctx)
            return err_set(et, ERR_LIMIT, "row %d: position %d does not fit a context of %d", i,
                           pos, s->opts.n_ctx);
        if (follows ? pos != b->pos[i - 1] + 1 : pos > s->slot_len[slot])
            return err_set(et, ERR_INPUT, "row %d: position %d of slot %d leaves a gap after %d", i,
                           pos, slot, follows ? b->pos[i - 1] : s->slot_len[slot] - 1);
        if (starts_with_embed(s) && (b->token[i] < 0 || b->token[i] >= n_vocab))
            return err_set(et, ERR_INPUT, "row %d: token %d: the vocabulary has 0 to %d", i,
                           b->token[i], n_vocab - 1);
        for (int j = 0; !follows && j < i; j++)
            if (b->slot[j] == slot)
                return err_set(et, ERR_INPUT, "row %d: rows of slot %d do not stand together", i,
                               slot);
    }
    return wanted_kind(b, &kind, et);
}

static enum err check_inputs(const struct segment *s, const struct batch *b, int n_wanted,
                             const struct tensors *in, struct err_text *et)
{
    struct edge edges[EDGES_MAX];
    int n, rows = s->first > model_rows_shrink_at(s->m) ? n_wanted : b->n_rows;

    if (starts_with_embed(s))
        return ERR_NONE;
    n = model_edges(s->m, s->first, edges);
    if (!in || in->n != n || in->n_rows != rows)
        return err_set(
            et, ERR_INPUT, "a segment from %s takes %d tensors of %d rows, and was given %d of %d",
            model_module(s->m, s->first)->name, n, rows, in ? in->n : 0, in ? in->n_rows : 0);
    for (int i = 0; i < n; i++)
        if (in->width[i] != edges[i].width)
            return err_set(et, ERR_INPUT, "tensor %s is %d wide, and was given %d", edges[i].name,
                           edges[i].width, in->width[i]);
    return ERR_NONE;
}

static int collect_wanted(struct segment *s, const struct batch *b)
{
    int n = 0;

    for (int i = 0; i < b->n_rows; i++) {
        if (!b->want[i])
            continue;
        s->wanted[n] = i;
        s->wanted_slot[n] = b->slot[i];
        s->wanted_pos[n++] = b->pos[i];
    }
    return n;
}

/* Repacked kernels work on four rows at a time and fall back to one-row kernels for the rest: one
 * row more is cheaper than two or three alone. (Figures: batches of 1..8 took 82, 145, 189, 108,
 * 172, 213, 256, 219 ms on a 1.1B Q4_0 model.) */
static int padded_rows(const struct segment *s, int n)
{
    if (!s->weights.repacked || n > SEGMENT_ROWS_DEFAULT)
        return n;
    return n == 2 || n % 4 == 3 ? (n + 3) / 4 * 4 : n;
}

static struct graph *cached_graph(struct segment *s, int n_rows, int n_wanted, bool hidden)
{
    for (int i = 0; i < s->n_graphs; i++)
        if (s->graphs[i].n_rows == n_rows && s->graphs[i].n_wanted == n_wanted &&
            s->graphs[i].hidden == hidden)
            return &s->graphs[i];
    return NULL;
}

/* Keeps a graph, in the place of the one unused longest when there is no other. */
static struct graph *keep_graph(struct segment *s, const struct graph *g)
{
    struct graph *at = &s->graphs[0];

    if (s->n_graphs < GRAPHS_MAX) {
        at = &s->graphs[s->n_graphs++];
    } else {
        for (int i = 1; i < s->n_graphs; i++)
            at = s->graphs[i].used < at->used ? &s->graphs[i] : at;
        graph_free(at);
    }
    *at = *g;
    return at;
}

/* The graph for a shape: from the cache, or built. */
static enum err find_graph(struct segment *s, int n_rows, int n_wanted, bool hidden,
                           struct graph **out, struct err_text *et)
{
    size_t before = ggml_gallocr_get_buffer_size(s->alloc, 0);
    struct graph_plan plan = plan_of(s);
    struct graph g;
    enum err e = ERR_NONE;

    plan.hidden = hidden;
    *out = cached_graph(s, n_rows, n_wanted, hidden);
    if (!*out) {
        graph_build(&g, &plan, n_rows, n_wanted);
        if (!ggml_gallocr_alloc_graph(s->alloc, g.cgraph))
            e = err_set(et, ERR_MEMORY, "no memory for a step of %d rows", n_rows);
        if (ggml_gallocr_get_buffer_size(s->alloc, 0) != before)
            forget_graphs(s); /* the memory has moved, and they point to where it was */
        if (!e)
            e = compute_plan(s->compute, g.cgraph, &g.plan, et);
        if (e) {
            graph_free(&g);
            return e;
        }
        *out = keep_graph(s, &g);
    }
    (*out)->used = ++s->clock;
    return ERR_NONE;
}

/* Copies n values and zeroes the padding after them. */
static void fill(struct ggml_tensor *t, const void *data, size_t bytes)
{
    if (!t)
        return;
    memcpy(t->data, data, bytes);
    memset((char *)t->data + bytes, 0, ggml_nbytes(t) - bytes);
}

static void fill_inputs(struct segment *s, struct graph *g, const struct batch *b,
                        const struct tensors *in)
{
    size_t ints = (size_t)b->n_rows * sizeof(int32_t);

    if (g->tokens)
        fill(g->tokens, b->token, ints);
    fill(g->pos, b->pos, ints);
    fill(g->wanted, s->wanted, (size_t)s->step.n_wanted * sizeof(int32_t));
    for (int i = 0; i < g->n_in; i++)
        fill(g->in[i], in->data[i], (size_t)in->n_rows * (size_t)in->width[i] * sizeof(float));
}

/* What will come out, all but the data. */
static void describe_output(const struct segment *s, int n_rows, int n_wanted, bool hidden,
                            struct tensors *out)
{
    struct edge edges[EDGES_MAX] = {{.width = hidden ? s->m->hp.n_embd : s->m->hp.n_vocab}};

    *out = (struct tensors){.n = 1};
    if (s->end < s->m->n_modules)
        out->n = model_edges(s->m, s->end, edges);
    for (int i = 0; i < out->n; i++)
        out->width[i] = edges[i].width;
    out->n_rows = s->end > model_rows_shrink_at(s->m) ? n_wanted : n_rows;
}

enum err segment_run(struct segment *s, const struct batch *b, const struct tensors *in,
                     struct tensors *out, struct err_text *et)
{
    enum err e = segment_check(s, b, et);
    int n_wanted, rows, wanted;
    struct graph *g = NULL;
    enum row_want kind;
    bool hidden;

    if (e)
        return e;
    e = wanted_kind(b, &kind, et);
    if (e)
        return e;
    hidden = kind == ROW_HIDDEN && s->end == s->m->n_modules; /* to the others it is all one */
    n_wanted = collect_wanted(s, b);
    e = check_inputs(s, b, n_wanted, in, et);
    if (e)
        return e;
    describe_output(s, b->n_rows, n_wanted, hidden, out);
    rows = padded_rows(s, b->n_rows);
    wanted = padded_rows(s, n_wanted);
    if (wanted == rows && n_wanted < b->n_rows)
        wanted = n_wanted; /* as many as rows would mean "all of them" to the builder */
    s->step = (struct step_state){.n_rows = b->n_rows,
                                  .n_wanted = n_wanted,
                                  .slot = b->slot,
                                  .pos = b->pos,
                                  .wanted = s->wanted,
                                  .wanted_slot = s->wanted_slot,
                                  .wanted_pos = s->wanted_pos};
    if (n_wanted > 0 || s->first <= model_rows_shrink_at(s->m)) {
        e = find_graph(s, rows, wanted, hidden, &g, et);
        if (e)
            return e;
        fill_inputs(s, g, b, in);
        e = compute_run(s->compute, g->cgraph, &g->plan, et);
        if (e)
            return e;
        for (int i = 0; i < out->n && out->n_rows > 0; i++)
            out->data[i] = g->out[i]->data;
    }
    for (int i = 0; i < b->n_rows; i++)
        set_slot_len(s, b->slot[i], b->pos[i] + 1);
    return ERR_NONE;
}

/* ---- what it is ---- */

int segment_first(const struct segment *s)
{
    return s->first;
}

int segment_end(const struct segment *s)
{
    return s->end;
}

uint64_t segment_weight_bytes(const struct segment *s)
{
    return s->weights.bytes;
}

uint64_t segment_embed_bytes(const struct segment *s)
{
    return s->weights.embed_bytes;
}

uint64_t segment_kv_bytes(const struct segment *s)
{
    uint64_t bytes = 0;

    for (int i = 0; i < s->m->hp.n_layers; i++)
        bytes += s->kv[i].base ? s->kv[i].bytes : 0;
    return bytes;
}

/* ---- what it would take ---- */

/* Memory for the tensors of a graph, and what its operators ask the threads' buffer for. */
static void measure_graph(const struct graph_plan *plan, int rows, int wanted, int n_threads,
                          uint64_t *tensors, uint64_t *work, uint64_t *records)
{
    ggml_gallocr_t alloc = ggml_gallocr_new(ggml_backend_cpu_buffer_type());
    struct graph g;
    size_t bytes = 0;
    uint64_t work_bytes;

    graph_build(&g, plan, rows, wanted);
    ggml_gallocr_reserve_n_size(alloc, g.cgraph, NULL, NULL, &bytes);
    work_bytes = ggml_graph_plan(g.cgraph, n_threads, NULL).work_size;
    *tensors = bytes > *tensors ? bytes : *tensors;
    *work = work_bytes > *work ? work_bytes : *work;
    *records = ggml_get_mem_size(g.ctx);
    graph_free(&g);
    ggml_gallocr_free(alloc);
}

void segment_needs(const struct model *m, int first, int end, const struct segment_opts *opts,
                   int n_threads, struct segment_needs *out)
{
    size_t n_layers = (size_t)m->hp.n_layers;
    struct attn_op *attn = mem_zalloc(n_layers, sizeof *attn);
    int rows = (opts->n_rows_max + 3) / 4 * 4;
    uint64_t tensors = 0, work = 0, records = 0;
    struct weights w;
    struct graph_plan plan = {
        .m = m, .w = &w, .attn = attn, .first = first, .end = end, .n_ctx = opts->n_ctx};

    CHECK(!check_opts(m, first, end, opts, NULL));
    for (size_t i = 0; i < n_layers; i++)
        attn[i].shrink = module_attn((int)i) == model_rows_shrink_at(m);
    weights_describe(&w, m, first, end);
    /* The two shapes of reserve(). */
    for (int wanted = rows; wanted >= rows - 1; wanted--)
        measure_graph(&plan, rows, wanted, n_threads, &tensors, &work, &records);
    *out = (struct segment_needs){
        .weight_bytes = w.bytes,
        .embed_bytes = w.embed_bytes,
        .scratch_bytes = tensors + work + GRAPHS_MAX * records +
                         (uint64_t)n_threads * (attn_scratch_bytes(m->hp.head_dim) + 64),
    };
    weights_free(&w);
    free(attn);
}

uint64_t segment_scratch_bytes(const struct segment *s)
{
    uint64_t bytes = ggml_gallocr_get_buffer_size(s->alloc, 0) + s->compute->work_bytes +
                     s->compute->scratch_bytes * (uint64_t)s->compute->n_threads;

    for (int i = 0; i < s->n_graphs; i++)
        bytes += ggml_get_mem_size(s->graphs[i].ctx);
    return bytes;
}

/* ---- slots ---- */

static enum err check_slot(const struct segment *s, int slot, struct err_text *et)
{
    if (slot < 0 || slot >= s->opts.n_slots)
        return err_set(et, ERR_INPUT, "slot %d: there are 0 to %d", slot, s->opts.n_slots - 1);
    return ERR_NONE;
}

int segment_slot_len(const struct segment *s, int slot)
{
    CHECK(slot >= 0 && slot < s->opts.n_slots);
    return s->slot_len[slot];
}

enum err segment_slot_truncate(struct segment *s, int slot, int len, struct err_text *et)
{
    enum err e = check_slot(s, slot, et);

    if (e)
        return e;
    if (len < 0 || len > s->slot_len[slot])
        return err_set(et, ERR_INPUT, "slot %d: cannot be cut to %d, it holds %d positions", slot,
                       len, s->slot_len[slot]);
    set_slot_len(s, slot, len);
    return ERR_NONE;
}

enum err segment_slot_copy(struct segment *s, int from, int to, int len, struct err_text *et)
{
    enum err e = check_slot(s, from, et);

    if (!e)
        e = check_slot(s, to, et);
    if (e)
        return e;
    if (from == to || len < 0 || len > s->slot_len[from])
        return err_set(et, ERR_INPUT,
                       "slot %d: %d positions cannot be copied to slot %d, it holds %d", from, len,
                       to, s->slot_len[from]);
    for (int i = 0; i < s->m->hp.n_layers; i++)
        if (s->kv[i].base)
            kv_copy(&s->kv[i], from, to, len);
    set_slot_len(s, to, len);
    return ERR_NONE;
}

static enum err find_kv(const struct segment *s, int module, int slot, struct kv **kv,
                        struct err_text *et)
{
    if (module < s->first || module >= s->end || model_module(s->m, module)->kind != MODULE_ATTN)
        return err_set(et, ERR_INPUT, "module %d: is not an attention module of this segment",
                       module);
    *kv = &s->kv[model_module(s->m, module)->layer];
    return check_slot(s, slot, et);
}

size_t segment_kv_export_size(const struct segment *s, int module, int pos, int pos_end)
{
    struct kv *kv;

    if (find_kv(s, module, 0, &kv, NULL) || pos < 0 || pos >= pos_end)
        return 0;
    return kv_export_size(kv, pos, pos_end);
}

enum err segment_kv_export(const struct segment *s, int module, int slot, int pos, int pos_end,
                           uint8_t *buf, size_t cap, struct err_text *et)
{
    struct kv *kv;
    enum err e = find_kv(s, module, slot, &kv, et);

    if (e)
        return e;
    if (pos < 0 || pos >= pos_end || pos_end > s->slot_len[slot])
        return err_set(et, ERR_INPUT, "slot %d: positions %d to %d: it holds %d", slot, pos,
                       pos_end, s->slot_len[slot]);
    if (cap < kv_export_size(kv, pos, pos_end))
        return err_set(et, ERR_LIMIT, "%zu bytes cannot hold the %zu of these keys and values", cap,
                       kv_export_size(kv, pos, pos_end));
    kv_export(kv, slot, pos, pos_end, buf);
    return ERR_NONE;
}

enum err segment_kv_import(struct segment *s, int module, int slot, const uint8_t *buf, size_t len,
                           struct err_text *et)
{
    struct kv *kv;
    int pos, pos_end, *own, shortest;
    enum err e = find_kv(s, module, slot, &kv, et);

    if (e)
        return e;
    own = module_len(s, model_module(s->m, module)->layer, slot);
    e = kv_import(kv, slot, *own, buf, len, &pos, &pos_end, et);
    if (e)
        return e;
    if (pos_end > *own)
        *own = pos_end;
    shortest = *own;
    for (int i = 0; i < s->m->hp.n_layers; i++)
        if (s->kv[i].base && *module_len(s, i, slot) < shortest)
            shortest = *module_len(s, i, slot);
    s->slot_len[slot] = shortest;
    return ERR_NONE;
}
