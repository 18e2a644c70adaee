/* What a model's modules cost, as the device that runs them would find it: read off the file's
 * header by the code that loads them. */
#include "model/segment.h"
#include "plan/place.h"

/* Threads whose small buffers are counted; more would need some KiB more. */
enum { THREADS = 8 };

/* Keys and values lie padded to lanes of 16 elements (model/kv.h). */
static uint64_t kv_bytes(const struct model *m, int module, enum kv_type kv)
{
    uint64_t dim = (uint64_t)model_shape(m)->head_dim;

    return (model_kv_bytes(m, module, kv) * ((dim + 15) / 16 * 16) + dim - 1) / dim;
}

static bool is_private(const struct model *m, int i)
{
    const struct module_info *mi = model_module(m, i);

    return mi->layer <= 0 || mi->layer == model_shape(m)->n_layers - 1;
}

/* Steps that arrive, wait and leave: two under way per stage and direction, as frames. */
static uint64_t frame_bytes(const struct model *m, const struct segment_opts *opts)
{
    struct edge edges[EDGES_MAX];
    uint64_t widest = 0;

    for (int i = 1; i < model_n_modules(m); i++) {
        uint64_t width = 0;

        for (int n = model_edges(m, i, edges), k = 0; k < n; k++)
            width += (uint64_t)edges[k].width;
        widest = width > widest ? width : widest;
    }
    return 4 * widest * sizeof(float) * (uint64_t)opts->n_rows_max;
}

/* Of a step beside its rows: 12 bytes of frame, some 110 of header with its tags, one TLS record. */
enum { STEP_BYTES = 150 };

/* What leaves module i per row. */
static uint64_t out_bytes(const struct model *m, int i)
{
    struct edge edges[EDGES_MAX];
    uint64_t width = 0;

    if (i + 1 == model_n_modules(m))
        return (uint64_t)model_shape(m)->n_vocab * sizeof(float);
    for (int n = model_edges(m, i + 1, edges), k = 0; k < n; k++)
        width += (uint64_t)edges[k].width;
    return width * sizeof(float);
}

/* Of a run from the middle, which starts with tensors where the whole starts with tokens. */
static uint64_t scratch_bytes(const struct model *m, const struct segment_opts *opts)
{
    int n = model_n_modules(m);
    struct segment_needs needs;
    uint64_t most = 0;

    for (int first = 0; first < 3 && first < n - 1; first++) {
        segment_needs(m, first, n - 1, opts, THREADS, &needs);
        most = needs.scratch_bytes > most ? needs.scratch_bytes : most;
    }
    return most + frame_bytes(m, opts);
}

void place_describe(const struct model *m, const struct model_classes *classes,
                    const struct segment_opts *opts, struct place_problem *p,
                    struct place_module *modules)
{
    int n = model_n_modules(m);
    struct segment_needs needs;

    for (int i = 0; i < n; i++) {
        segment_needs(m, i, i + 1, opts, THREADS, &needs);
        modules[i] = (struct place_module){.class = classes->of[i],
                                           .weight_bytes = needs.weight_bytes,
                                           .decode_bytes = model_module(m, i)->decode_bytes,
                                           .kv_bytes = kv_bytes(m, i, opts->kv),
                                           .out_bytes = out_bytes(m, i),
                                           .is_private = is_private(m, i)};
    }
    p->n_modules = n;
    p->n_classes = classes->n;
    p->module = modules;
    p->n_slots = opts->n_slots;
    p->n_ctx = opts->n_ctx;
    p->frame_bytes = STEP_BYTES;
    /* Of the last module: its table in the mapped file, if it is the embedding's. */
    p->tied_bytes = needs.embed_bytes;
    p->scratch_output_bytes = needs.scratch_bytes;
    p->scratch_bytes = scratch_bytes(m, opts);
}
