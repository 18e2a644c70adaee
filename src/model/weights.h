/* The weights of a segment, where the kernels want them.
 *
 * A tensor whose kernels read the file's layout stays in the mapped file. One that a kernel of ours
 * (matmul_q4.h) or ggml wants repacked for this CPU goes, repacked, into memory of its own, in huge
 * pages where there are any, and its file pages are given back. Those for our kernel lie one behind
 * the other in one piece, for most are no multiple of a huge page. Where q, k
 * and v (or gate and up) have one type and are repacked anyway, they become one tensor: one
 * multiplication then reads the activations once. Rows do not mix in a multiplication, so no bit
 * changes. */
#ifndef LINGUA_MODEL_WEIGHTS_H
#define LINGUA_MODEL_WEIGHTS_H

#include <ggml.h>

#include "base/err.h"
#include "model/model_impl.h"

struct attn_weights {
    struct ggml_tensor *norm, *norm_b;
    struct ggml_tensor *qkv, *qkv_b; /* fused, or NULL and the next six */
    struct ggml_tensor *q, *q_b, *k, *k_b, *v, *v_b;
    struct ggml_tensor *q_norm, *k_norm, *out, *out_b, *post_norm;
};

struct ffn_weights {
    struct ggml_tensor *norm, *norm_b;
    struct ggml_tensor *gate_up; /* fused, gate first, or NULL and gate and up */
    struct ggml_tensor *gate, *gate_b, *up, *up_b, *down, *down_b;
    struct ggml_tensor *router, *gate_experts, *up_experts, *down_experts, *post_norm;
};

struct weights {
    struct ggml_context *ctx;             /* tensor records only */
    struct ggml_backend_buffer *file;     /* the mapped file, as ggml sees it */
    struct ggml_backend_buffer **buffers; /* repacked tensors */
    int n_buffers;
    struct ggml_backend_buffer *own; /* tensors that matmul_q4 reads, in own_base[0..own_bytes) */
    uint8_t *own_base;
    size_t own_bytes, own_used;
    uint64_t bytes;       /* what the segment needs at hand */
    uint64_t embed_bytes; /* of those, the embedding in the mapped file */
    struct ggml_tensor *embed, *embed_norm, *embed_norm_b, *pos_embed;
    struct ggml_tensor *out_norm, *out_norm_b, *output, *output_b;
    struct ggml_tensor *rope_freqs, *rope_long, *rope_short;
    struct attn_weights *attn; /* (n_layers), filled for the segment's own */
    struct ffn_weights *ffn;   /* (n_layers) */
    bool repacked; /* by ggml, some matrix is: steps of 2 and 3 rows gain from padding to 4 */
};

/* Loads modules [first, end). ERR_MEMORY says what was needed and what there is. */
MUST_CHECK enum err weights_load(struct weights *w, const struct model *m, int first, int end,
                                 struct err_text *et);
/* The same records without their data: what weights_load would give, as long as nobody looks at a
 * weight. For measuring graphs on a device that has the file's header alone; takes no memory. */
void weights_describe(struct weights *w, const struct model *m, int first, int end);
void weights_free(struct weights *w);

/* Is this matrix repacked for matmul_q4? */
bool weights_are_q4(const struct ggml_tensor *w);

#endif
