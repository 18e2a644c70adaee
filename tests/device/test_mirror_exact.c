/* A device whose mirror holds the parts it needs and not a byte more computes what it would compute
 * with the whole file: for every family, every stage's output bit for bit. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/mem.h"
#include "cache_rig.h"
#include "device/executor.h"
#include "model/modelfile.h"
#include "support/tiny_model.h"

enum { ROWS = 20, DECODES = 3, OUTPUTS = (1 + DECODES) * 4 };

static struct err_text et;

static void must(enum err e)
{
    if (e)
        fail_msg("%s", et.text);
}

/* What came out of each stage at each step. */
struct outputs {
    int n;
    size_t len[OUTPUTS];
    float *data[OUTPUTS];
};

static void outputs_add(struct outputs *o, const struct step_tensors *t)
{
    size_t len = step_payload_bytes(t), at = 0;
    float *data = mem_alloc(len);

    for (int i = 0; i < t->n; i++) {
        size_t n = (size_t)t->n_rows * (size_t)t->width[i] * sizeof(float);

        memcpy((char *)data + at, t->data[i], n);
        at += n;
    }
    assert_true(o->n < OUTPUTS && len > 0);
    o->len[o->n] = len;
    o->data[o->n++] = data;
}

static void outputs_free(struct outputs *o)
{
    for (int i = 0; i < o->n; i++)
        free(o->data[i]);
}

static bool outputs_equal(const struct outputs *a, const struct outputs *b)
{
    bool equal = a->n == b->n;

    for (int i = 0; equal && i < a->n; i++)
        equal = a->len[i] == b->len[i] && memcmp(a->data[i], b->data[i], a->len[i]) == 0;
    return equal;
}

/* One model file per device: the same one, or mirrors. */
struct chain {
    struct compute *compute;
    struct model *model[3];
    struct executor *x[3];
};

static void chain_open(struct chain *c, const char *const path[3], const struct plan *p)
{
    struct executor_opts opts = {.segment = {1, 64, ROWS, KV_F16}};

    must(compute_open(1, &c->compute, &et));
    for (int d = 0; d < 3; d++) {
        must(model_open(path[d], &c->model[d], &et));
        must(executor_open(c->model[d], c->compute, p, d, &opts, &c->x[d], &et));
    }
}

static void chain_close(struct chain *c)
{
    for (int d = 0; d < 3; d++) {
        executor_close(c->x[d]);
        model_close(c->model[d]);
    }
    compute_close(c->compute);
}

static void run(struct chain *c, const struct plan *p, uint64_t number, int pos, int n,
                struct outputs *out)
{
    int32_t slot[ROWS] = {0}, at[ROWS], token[ROWS];
    uint8_t want[ROWS];
    struct step s = {.number = number, .epoch = p->epoch, .n_rows = n, .n_want = n};

    for (int i = 0; i < n; i++) {
        at[i] = pos + i;
        token[i] = (pos + i) * 37 % 300;
        want[i] = 1;
    }
    s.slot = slot;
    s.pos = at;
    s.token = token;
    s.want = want;
    while (s.stage < p->n_stages) {
        must(executor_run(c->x[p->stage[s.stage].device], &s, &et));
        if (s.code)
            fail_msg("%s", s.reason.text);
        outputs_add(out, &s.in);
    }
}

static void run_all(const char *const path[3], const struct plan *p, struct outputs *out)
{
    struct chain c;

    *out = (struct outputs){.n = 0};
    chain_open(&c, path, p);
    run(&c, p, 1, 0, ROWS, out);
    for (int i = 0; i < DECODES; i++)
        run(&c, p, 2 + (uint64_t)i, ROWS + i, 1, out);
    chain_close(&c);
}

/* A model file and its three devices' caches. */
struct family {
    struct folder folder;
    char path[128];
    struct manifest *mf;
    uint8_t *bytes; /* the file */
    size_t len;
    struct plan plan;
    struct cache *cache[3];
    struct mirror *mirror[3];
    uint8_t *need[3];
};

static void ship(struct family *f, int d, int part)
{
    const struct manifest_part *p = &f->mf->part[part];
    bool complete;

    must(mirror_write(f->mirror[d], part, 0, f->bytes + p->offset, p->size, &complete, &et));
    assert_true(complete);
}

static void family_open(struct family *f, enum tiny_variant v, enum ggml_type type, bool ends)
{
    struct model *m;
    char folder[128];
    uint64_t bytes;

    folder_make(&f->folder);
    snprintf(f->path, sizeof f->path, "%s/tiny.gguf", f->folder.path);
    tiny_write(f->path, v, type, 11 + (uint64_t)v);
    must(manifest_make(f->path, NULL, NULL, &f->mf, &et));
    f->bytes = file_read(f->path, &f->len);
    must(model_open(f->path, &m, &et));
    f->plan = plan_in_three(model_n_modules(m), ends);
    for (int d = 0; d < 3; d++) {
        snprintf(folder, sizeof folder, "%s/cache%d", f->folder.path, d);
        f->need[d] = mem_zalloc((size_t)f->mf->n_parts, 1);
        must(manifest_needs(f->mf, m, &f->plan, d, f->need[d], &bytes, &et));
        must(cache_open(folder, 0, NULL, &f->cache[d], &et));
        must(cache_add(f->cache[d], f->mf, &f->mirror[d], &et));
        for (int i = 0; i < f->mf->n_parts; i++)
            if (f->need[d][i])
                ship(f, d, i);
        assert_int_equal(cache_bytes(f->cache[d]), bytes);
    }
    model_close(m);
}

static void family_close(struct family *f)
{
    for (int d = 0; d < 3; d++) {
        mirror_close(f->mirror[d]);
        cache_close(f->cache[d]);
        free(f->need[d]);
    }
    free(f->bytes);
    manifest_free(f->mf);
    folder_remove(&f->folder);
}

/* All else is holes. */
static void holds_nothing_else(const struct family *f, int d)
{
    size_t len;
    uint8_t *bytes = file_read(mirror_path(f->mirror[d]), &len);
    bool left_out = false;

    assert_int_equal(len, f->len);
    for (int i = 0; i < f->mf->n_parts; i++) {
        const struct manifest_part *p = &f->mf->part[i];

        if (f->need[d][i]) {
            assert_memory_equal(bytes + p->offset, f->bytes + p->offset, p->size);
            continue;
        }
        left_out = true;
        for (uint64_t k = 0; k < p->size; k++)
            assert_int_equal(bytes[p->offset + k], 0);
    }
    assert_true(left_out);
    free(bytes);
}

static void paths(const struct family *f, const char *path[3])
{
    for (int d = 0; d < 3; d++)
        path[d] = mirror_path(f->mirror[d]);
}

static void family_needs_no_more(void **state)
{
    enum tiny_variant v = (enum tiny_variant)(intptr_t)*state;
    static const enum ggml_type types[] = {GGML_TYPE_Q4_0, GGML_TYPE_Q8_0};

    for (int i = 0; i < 2; i++) {
        struct family f;
        struct outputs whole, mirrored;
        const char *path[3];

        family_open(&f, v, types[i], i == 1);
        run_all((const char *const[]){f.path, f.path, f.path}, &f.plan, &whole);
        paths(&f, path);
        for (int d = 0; d < 3; d++)
            holds_nothing_else(&f, d);
        run_all(path, &f.plan, &mirrored);
        if (!outputs_equal(&whole, &mirrored))
            fail_msg("%s: the mirrors compute something else", tiny_name(v));
        outputs_free(&whole);
        outputs_free(&mirrored);
        family_close(&f);
    }
}

/* Nor could it do with less: any part taken away shows. That also shows that the test above can see
 * a part that is missing. */
static void family_needs_no_less(void **state)
{
    static const enum tiny_variant variants[] = {TINY_LLAMA_FREQS, TINY_GPTNEOX, TINY_BLOOM};

    (void)state;
    for (size_t v = 0; v < ARRAY_LEN(variants); v++) {
        struct family f;
        struct outputs whole, less;
        const char *path[3];
        int n = 0;

        family_open(&f, variants[v], GGML_TYPE_Q4_0, false);
        paths(&f, path);
        run_all(path, &f.plan, &whole);
        for (int d = 0; d < 3; d++)
            for (int i = 1; i < f.mf->n_parts; i++) {
                if (!f.need[d][i])
                    continue;
                mirror_forget(f.mirror[d], i);
                run_all(path, &f.plan, &less);
                if (outputs_equal(&whole, &less))
                    fail_msg("%s: device %d does not need part %d", tiny_name(variants[v]), d, i);
                outputs_free(&less);
                ship(&f, d, i);
                n++;
            }
        assert_true(n > 20);
        run_all(path, &f.plan, &less);
        assert_true(outputs_equal(&whole, &less));
        outputs_free(&less);
        outputs_free(&whole);
        family_close(&f);
    }
}

int main(void)
{
    struct CMUnitTest tests[TINY_N_VARIANTS + 1] = {cmocka_unit_test(family_needs_no_less)};

    for (intptr_t v = 0; v < TINY_N_VARIANTS; v++)
        tests[v + 1] = (struct CMUnitTest){.name = tiny_name((enum tiny_variant)v),
                                           .test_func = family_needs_no_more,
                                           .initial_state = (void *)v};
    return _cmocka_run_group_tests("mirror exact", tests, ARRAY_LEN(tests), NULL, NULL);
}
