#include "exact.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/mem.h"

struct segment_opts exact_opts(const struct exact *x)
{
    return (struct segment_opts){
        .n_slots = EXACT_SLOTS, .n_ctx = EXACT_CTX, .n_rows_max = EXACT_LEN_MAX, .kv = x->kv};
}

void exact_open(struct exact *x, enum tiny_variant v, enum ggml_type type, enum kv_type kv, int len,
                int n_base)
{
    struct tiny_rng rng = {555 + (uint64_t)v};
    struct segment_opts opts;
    struct rig rig;
    char name[128];

    memset(x, 0, sizeof(*x));
    x->variant = v;
    x->type = type;
    x->kv = kv;
    snprintf(x->label, sizeof(x->label), "%s %s kv %s", tiny_name(v), ggml_type_name(type),
             kv_type_name(kv));
    snprintf(name, sizeof(name), "exact-%s-%s-%d-%d.gguf", tiny_name(v), ggml_type_name(type),
             (int)kv, (int)getpid());
    tiny_path(x->path, sizeof(x->path), name);
    tiny_write(x->path, v, type, 2000 + (uint64_t)v);
    opts = exact_opts(x);
    rig_open(&rig, x->path, 1, &opts, NULL, 0);
    x->n_modules = model_n_modules(rig.model);
    x->n_vocab = rig.n_vocab;
    for (int s = 0; s < EXACT_SLOTS; s++) {
        x->len[s] = len - s * (len / 9);
        for (int i = 0; i < x->len[s]; i++)
            x->tokens[s][i] = (int32_t)(tiny_rng_next(&rng) % (uint64_t)x->n_vocab);
        if (s >= n_base)
            continue;
        x->base[s] = mem_alloc(sizeof(float) * (size_t)x->len[s] * (size_t)x->n_vocab);
        rig_feed(&rig, s, 0, x->tokens[s], x->len[s], x->len[s], x->base[s]);
    }
    rig_close(&rig);
}

void exact_close(struct exact *x)
{
    for (int s = 0; s < EXACT_SLOTS; s++)
        free(x->base[s]);
    unlink(x->path);
}

void exact_same(const struct exact *x, int seq, int pos, int n, const float *logits,
                const char *what)
{
    size_t width = (size_t)x->n_vocab * sizeof(float);

    for (int i = 0; i < n; i++)
        if (memcmp((const char *)logits + (size_t)i * width,
                   (const char *)x->base[seq] + (size_t)(pos + i) * width, width) != 0)
            fail_msg("%s: %s: the logits of sequence %d at position %d have other bits", x->label,
                     what, seq, pos + i);
}
