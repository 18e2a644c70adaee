/* The one builder: a segment's modules as a ggml graph, for any family, read from the family's row.
 *
 * A graph is built for a shape (rows in, rows whose logits are wanted) and knows nothing of slots
 * or positions beyond its input tensors: the two attention operators read those from the step
 * state they were given a pointer to. So one graph serves every step of its shape. */
#ifndef LINGUA_MODEL_GRAPH_H
#define LINGUA_MODEL_GRAPH_H

#include <ggml.h>

#include "model/attn.h"
#include "model/compute.h"
#include "model/model_impl.h"
#include "model/weights.h"

/* What the operators of a running step see; the segment fills it before each run. Rows beyond
 * n_rows / n_wanted are padding. */
struct step_state {
    int n_rows, n_wanted;
    const int32_t *slot, *pos;               /* (n_rows) */
    const int32_t *wanted;                   /* (n_wanted) indexes of wanted rows */
    const int32_t *wanted_slot, *wanted_pos; /* (n_wanted) */
};

/* User data of the attention operators of one layer: lives as long as the segment. */
struct attn_op {
    const struct step_state *step;
    const struct kv *kv;
    struct attn_shape shape;
    const struct compute *compute;
    bool shrink; /* computes wanted rows only */
};

struct graph_plan {
    const struct model *m;
    const struct weights *w;
    struct attn_op *attn; /* (n_layers) */
    int first, end;
    int n_ctx;   /* decides between short and long rotary factors */
    bool hidden; /* the last module ends with its norm: the LM head is left out */
};

struct graph {
    int n_rows, n_wanted;
    bool hidden;
    struct ggml_context *ctx;
    struct ggml_cgraph *cgraph;
    struct ggml_cplan plan;
    struct ggml_tensor *tokens;        /* (n_rows) i32, when the segment starts with embed */
    struct ggml_tensor *in[EDGES_MAX]; /* (n_embd, rows) otherwise */
    struct ggml_tensor *pos;           /* (n_rows) i32, where something needs it */
    struct ggml_tensor *wanted;        /* (n_wanted) i32, where rows are picked */
    int n_in, n_out;
    struct ggml_tensor *out[EDGES_MAX];
    int out_rows;
    uint64_t used; /* for least-recently-used eviction */
};

/* Builds the graph; memory for its tensors is the caller's to allocate (ggml_gallocr). */
void graph_build(struct graph *g, const struct graph_plan *p, int n_rows, int n_wanted);
void graph_free(struct graph *g);
/* W x by the kernels that graphs use, for whoever measures them; W (n_in, n_out), x (n_in, rows).
 * */
struct ggml_tensor *graph_multiply(struct ggml_context *ctx, struct ggml_tensor *w,
                                   struct ggml_tensor *x);

#endif
