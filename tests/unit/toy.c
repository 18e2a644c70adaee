#define _GNU_SOURCE
#include "toy.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/check.h"
#include "base/mem.h"
#include "model/model.h"
#include "model/modelfile.h"
#include "model/segment.h"

struct modelfile {
    char path[256];
};

struct model {
    struct modelfile file;
    struct model_shape shape;
    int parallel, fail_load, fail_module, fail_pos, slow_us;
    struct module_info *modules;
};

struct compute {
    int n_threads;
};

struct segment {
    const struct model *m;
    int first, end;
    struct segment_opts opts;
    int len[SEGMENT_SLOTS_MAX];
    uint32_t *keys;                          /* [module - first][slot][pos] */
    float *now[EDGES_MAX], *then[EDGES_MAX]; /* (rows, width): what a module reads and gives */
};

static int param(const char *path, const char *name, int otherwise)
{
    const char *at = strstr(path, name);

    return at ? atoi(at + strlen(name)) : otherwise;
}

enum err model_open(const char *path, struct model **out, struct err_text *et)
{
    struct model *m;

    if (strncmp(path, "toy", 3) != 0)
        return err_set(et, ERR_FILE, "%s: No such file or directory", path);
    m = mem_zalloc(1, sizeof *m);
    snprintf(m->file.path, sizeof m->file.path, "%s", path);
    m->shape.n_layers = param(path, "layers=", 3);
    m->shape.n_embd = param(path, "width=", 8);
    m->shape.n_vocab = TOY_VOCAB;
    m->parallel = param(path, "parallel=", 0);
    m->fail_load = param(path, "fail_load=", -1);
    m->fail_module = param(path, "fail_module=", -1);
    m->fail_pos = param(path, "fail_pos=", -1);
    m->slow_us = param(path, "slow_us=", 0);
    m->modules = mem_zalloc((size_t)model_n_modules(m), sizeof *m->modules);
    for (int i = 0; i < model_n_modules(m); i++) {
        struct module_info *info = &m->modules[i];

        info->kind = i == 0                        ? MODULE_EMBED
                     : i == model_n_modules(m) - 1 ? MODULE_OUTPUT
                     : i % 2                       ? MODULE_ATTN
                                                   : MODULE_FFN;
        info->bytes = info->decode_bytes = 1000;
        if (info->kind == MODULE_EMBED || info->kind == MODULE_OUTPUT)
            snprintf(info->name, sizeof info->name, "%s", i ? "output" : "embed");
        else
            snprintf(info->name, sizeof info->name, "%s.%d", i % 2 ? "attn" : "ffn", (i - 1) / 2);
    }
    *out = m;
    return ERR_NONE;
}

void model_close(struct model *m)
{
    free(m->modules);
    free(m);
}

const struct model_shape *model_shape(const struct model *m)
{
    return &m->shape;
}

const struct modelfile *model_file(const struct model *m)
{
    return &m->file;
}

const char *modelfile_path(const struct modelfile *mf)
{
    return mf->path;
}

int model_n_modules(const struct model *m)
{
    return 2 * m->shape.n_layers + 2;
}

const struct module_info *model_module(const struct model *m, int i)
{
    return &m->modules[i];
}

int model_edges(const struct model *m, int i, struct edge edges[EDGES_MAX])
{
    edges[0] = (struct edge){"x", m->shape.n_embd};
    edges[1] = (struct edge){"attn_out", m->shape.n_embd};
    return m->parallel && m->modules[i].kind == MODULE_FFN ? 2 : 1;
}

int model_rows_shrink_at(const struct model *m)
{
    return model_n_modules(m) - 3;
}

enum err compute_open(int n_threads, struct compute **out, struct err_text *et)
{
    (void)et;
    *out = mem_zalloc(1, sizeof **out);
    (*out)->n_threads = n_threads;
    return ERR_NONE;
}

void compute_close(struct compute *c)
{
    free(c);
}

int compute_n_threads(const struct compute *c)
{
    return c->n_threads;
}

enum err segment_open(const struct model *m, struct compute *c, int first, int end,
                      const struct segment_opts *opts, struct segment **out, struct err_text *et)
{
    struct segment *s;
    size_t width = (size_t)(m->shape.n_embd > TOY_VOCAB ? m->shape.n_embd : TOY_VOCAB);

    (void)c;
    CHECK(first >= 0 && first < end && end <= model_n_modules(m));
    if (first <= m->fail_load && m->fail_load < end)
        return err_set(et, ERR_MEMORY, "modules %d to %d need more memory than there is", first,
                       end - 1);
    s = mem_zalloc(1, sizeof *s);
    s->m = m;
    s->first = first;
    s->end = end;
    s->opts = *opts;
    s->keys = mem_zalloc((size_t)(end - first) * (size_t)opts->n_slots * (size_t)opts->n_ctx,
                         sizeof *s->keys);
    for (int i = 0; i < EDGES_MAX; i++) {
        s->now[i] = mem_zalloc((size_t)opts->n_rows_max * width, sizeof(float));
        s->then[i] = mem_zalloc((size_t)opts->n_rows_max * width, sizeof(float));
    }
    *out = s;
    return ERR_NONE;
}

void segment_close(struct segment *s)
{
    for (int i = 0; i < EDGES_MAX; i++) {
        free(s->now[i]);
        free(s->then[i]);
    }
    free(s->keys);
    free(s);
}

uint64_t segment_embed_bytes(const struct segment *s)
{
    return 0;
}

uint64_t segment_weight_bytes(const struct segment *s)
{
    return 1000 * (uint64_t)(s->end - s->first);
}

uint64_t segment_kv_bytes(const struct segment *s)
{
    return (uint64_t)(s->opts.n_slots * s->opts.n_ctx);
}

static uint32_t mix(uint32_t h, uint32_t v)
{
    h = (h ^ v) * 0x9e3779b1u;
    return h ^ h >> 15;
}

static uint32_t fold(const float *row, int width)
{
    uint32_t h = 1;

    for (int i = 0; i < width; i++)
        h = mix(h, (uint32_t)row[i]);
    return h;
}

/* Whole numbers below 2^20 are exact in f32. */
static void unfold(uint32_t h, float *row, int width)
{
    for (int i = 0; i < width; i++)
        row[i] = (float)(mix(h, (uint32_t)i) >> 12);
}

static uint32_t *key(struct segment *s, int module, int slot, int pos)
{
    return &s->keys[((size_t)(module - s->first) * (size_t)s->opts.n_slots + (size_t)slot) *
                        (size_t)s->opts.n_ctx +
                    (size_t)pos];
}

static enum err check(const struct segment *s, const struct batch *b, struct err_text *et)
{
    int len[SEGMENT_SLOTS_MAX];

    memcpy(len, s->len, sizeof len);
    for (int i = 0; i < b->n_rows; i++) {
        if (b->slot[i] < 0 || b->slot[i] >= s->opts.n_slots || b->pos[i] < 0 ||
            b->pos[i] > len[b->slot[i]] || b->pos[i] >= s->opts.n_ctx)
            return err_set(et, ERR_INPUT, "toy: row %d at position %d of slot %d", i, b->pos[i],
                           b->slot[i]);
        len[b->slot[i]] = b->pos[i] + 1;
        if (s->first <= s->m->fail_module && s->m->fail_module < s->end &&
            b->pos[i] == s->m->fail_pos)
            return err_set(et, ERR_MEMORY, "toy: position %d is too much for module %d", b->pos[i],
                           s->m->fail_module);
    }
    return ERR_NONE;
}

/* The rows a module keeps of those it reads. */
static void run_module(struct segment *s, int module, const struct batch *b, int *n_rows, int *n)
{
    int width = s->m->shape.n_embd, kept = 0, kind = (int)s->m->modules[module].kind;
    bool shrink = module == model_rows_shrink_at(s->m), two = s->m->parallel && kind == MODULE_ATTN;

    for (int i = 0; i < *n_rows; i++) {
        const float *x = s->now[0] + (size_t)i * (size_t)width;
        uint32_t h = mix(fold(x, width), (uint32_t)module);

        if (kind == MODULE_ATTN) {
            *key(s, module, b->slot[i], b->pos[i]) = h;
            for (int p = 0; p <= b->pos[i]; p++)
                h = mix(h, *key(s, module, b->slot[i], p));
        } else if (kind == MODULE_FFN && *n == 2) {
            h = mix(h, fold(s->now[1] + (size_t)i * (size_t)width, width));
        }
        if (shrink && !b->want[i])
            continue;
        if (two)
            memcpy(s->then[0] + (size_t)kept * (size_t)width, x, (size_t)width * sizeof(float));
        if (kind == MODULE_OUTPUT)
            unfold(h, s->then[0] + (size_t)kept * TOY_VOCAB, TOY_VOCAB);
        else
            unfold(h, s->then[two] + (size_t)kept * (size_t)width, width);
        kept++;
    }
    *n_rows = kept;
    *n = two ? 2 : 1;
    for (int i = 0; i < EDGES_MAX; i++) {
        float *t = s->now[i];

        s->now[i] = s->then[i];
        s->then[i] = t;
    }
}

enum err segment_run(struct segment *s, const struct batch *b, const struct tensors *in,
                     struct tensors *out, struct err_text *et)
{
    int n_rows = in ? in->n_rows : b->n_rows, n = in ? in->n : 1, width = s->m->shape.n_embd;
    enum err e = check(s, b, et);

    if (e)
        return e;
    if (s->m->slow_us)
        usleep((useconds_t)s->m->slow_us);
    CHECK(!in == (s->first == 0));
    for (int i = 0; in && i < in->n; i++)
        memcpy(s->now[i], in->data[i], (size_t)n_rows * (size_t)width * sizeof(float));
    for (int i = 0; !in && i < n_rows; i++)
        unfold((uint32_t)b->token[i] + 7, s->now[0] + (size_t)i * (size_t)width, width);
    for (int module = s->first; module < s->end; module++)
        if (module > 0)
            run_module(s, module, b, &n_rows, &n);
    for (int i = 0; i < b->n_rows; i++)
        s->len[b->slot[i]] = b->pos[i] + 1;
    out->n = n;
    out->n_rows = n_rows;
    for (int i = 0; i < n; i++) {
        out->width[i] = s->end == model_n_modules(s->m) ? TOY_VOCAB : width;
        out->data[i] = s->now[i];
    }
    return ERR_NONE;
}

enum err segment_slot_truncate(struct segment *s, int slot, int len, struct err_text *et)
{
    if (slot < 0 || slot >= s->opts.n_slots || len < 0 || len > s->len[slot])
        return err_set(et, ERR_INPUT, "toy: cut slot %d to %d", slot, len);
    s->len[slot] = len;
    return ERR_NONE;
}

enum err segment_slot_copy(struct segment *s, int from, int to, int len, struct err_text *et)
{
    if (from < 0 || from >= s->opts.n_slots || to < 0 || to >= s->opts.n_slots || len < 0 ||
        len > s->len[from])
        return err_set(et, ERR_INPUT, "toy: copy slot %d to %d", from, to);
    for (int module = s->first; module < s->end; module++)
        for (int p = 0; p < len; p++)
            *key(s, module, to, p) = *key(s, module, from, p);
    s->len[to] = len;
    return ERR_NONE;
}
