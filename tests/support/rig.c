#include "rig.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "ggml.h"

/* ggml tells of every tensor it repacks. */
static void quiet(enum ggml_log_level level, const char *text, void *user)
{
    (void)user;
    if (level == GGML_LOG_LEVEL_ERROR)
        fputs(text, stderr);
}

static void must(enum err e, const char *what, const struct err_text *et)
{
    if (e != ERR_NONE) {
        fprintf(stderr, "rig: %s: %s\n", what, et->text);
        exit(1);
    }
}

void rig_open(struct rig *r, const char *path, int n_threads, const struct segment_opts *opts,
              const int *cuts, int n_cuts)
{
    struct err_text et = {{0}};

    ggml_log_set(quiet, NULL);
    memset(r, 0, sizeof(*r));
    must(model_open(path, &r->model, &et), path, &et);
    must(compute_open(n_threads, &r->compute, &et), "compute_open", &et);
    r->n_segments = n_cuts + 1;
    r->n_vocab = model_shape(r->model)->n_vocab;
    for (int i = 0; i <= n_cuts; i++) {
        int first = i ? cuts[i - 1] : 0;
        int end = i < n_cuts ? cuts[i] : model_n_modules(r->model);

        must(segment_open(r->model, r->compute, first, end, opts, &r->segments[i], &et),
             "segment_open", &et);
    }
}

void rig_close(struct rig *r)
{
    for (int i = 0; i < r->n_segments; i++)
        segment_close(r->segments[i]);
    compute_close(r->compute);
    model_close(r->model);
}

enum err rig_try(struct rig *r, const struct batch *b, float *logits, struct err_text *et)
{
    struct tensors edges[2];

    for (int i = 0; i < r->n_segments; i++) {
        enum err e =
            segment_run(r->segments[i], b, i ? &edges[(i + 1) & 1] : NULL, &edges[i & 1], et);

        if (e != ERR_NONE)
            return e;
    }
    if (logits) {
        const struct tensors *out = &edges[(r->n_segments + 1) & 1];

        if (out->n_rows > 0)
            memcpy(logits, out->data[0], sizeof(float) * (size_t)out->n_rows * (size_t)r->n_vocab);
    }
    return ERR_NONE;
}

void rig_run(struct rig *r, const struct batch *b, float *logits)
{
    struct err_text et = {{0}};

    must(rig_try(r, b, logits, &et), "segment_run", &et);
}

void rig_feed(struct rig *r, int slot, int pos, const int32_t *tokens, int n, int chunk,
              float *logits)
{
    int32_t *slots = mem_alloc((size_t)n * sizeof(*slots));
    int32_t *positions = mem_alloc((size_t)n * sizeof(*positions));
    uint8_t *want = mem_alloc((size_t)n);

    for (int i = 0; i < n; i++) {
        slots[i] = slot;
        positions[i] = pos + i;
        want[i] = 1;
    }
    for (int i = 0; i < n; i += chunk) {
        struct batch b = {
            .n_rows = n - i < chunk ? n - i : chunk,
            .slot = slots + i,
            .pos = positions + i,
            .token = tokens + pos + i,
            .want = want + i,
        };

        rig_run(r, &b, logits ? logits + (size_t)i * (size_t)r->n_vocab : NULL);
    }
    free(slots);
    free(positions);
    free(want);
}
