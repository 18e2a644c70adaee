/* A model as a chain of placeable modules: what a GGUF file describes, before any weight is loaded.
 *
 * Modules, in order: `embed`, then `attn.i` and `ffn.i` for each layer i, then `output` (final norm
 * and LM head). A segment is a run [first, end) of them (segment.h). model_open has checked that
 * every tensor the family needs is there with the right shape and type, so nothing after it meets a
 * surprise in the file. Immutable after open: any thread may read.
 *
 * Between two modules travels the residual stream x, (n_rows, n_embd) f32. In families with a
 * parallel residual a cut between attn.i and ffn.i carries two tensors: the layer's input x and the
 * attention's output. model_edges says which cut needs what. */
#ifndef LINGUA_MODEL_MODEL_H
#define LINGUA_MODEL_MODEL_H

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"

struct model;
struct modelfile;
struct mf_tensor;

enum module_kind { MODULE_EMBED, MODULE_ATTN, MODULE_FFN, MODULE_OUTPUT };
enum kv_type { KV_F16, KV_Q8_0, KV_F32 };
enum { EDGES_MAX = 2, MODULE_NAME_MAX = 24 };

struct model_shape {
    const char *arch; /* GGUF's general.architecture */
    const char *name; /* general.name, or the file's base name */
    int n_layers, n_embd, n_heads, n_kv_heads, head_dim, n_ff, n_vocab, n_experts, n_experts_used;
    int n_ctx_train;  /* positions the model was trained for */
    bool ctx_is_hard; /* learned positions: nothing exists beyond n_ctx_train */
    bool tied;        /* output shares the embedding's tensor */
    uint64_t n_params;
    uint64_t weight_bytes; /* all tensors of the file that the modules use, each counted once */
    const char *type_name; /* the quantisation most bytes are in, e.g. "q8_0" */
};

struct module_info {
    char name[MODULE_NAME_MAX];
    enum module_kind kind;
    int layer; /* -1 for embed and output */
    uint64_t n_params;
    uint64_t bytes; /* weights this module needs at hand; a tied output counts the embedding's
                       tensor too */
    uint64_t decode_bytes; /* weight bytes read for one token (one row of the embedding; the chosen
                              experts only) */
    double decode_flops; /* multiply-adds * 2 for one row, attention's score and value products left
                            out */
    double attn_flops_per_pos; /* what attention adds per position already in the cache */
};

/* One tensor crossing a cut. */
struct edge {
    const char *name; /* "x" or "attn_out" */
    int width;        /* f32 per row */
};

MUST_CHECK enum err model_open(const char *path, struct model **out, struct err_text *et);
/* The same on a file already opened; takes mf, on error too. */
MUST_CHECK enum err model_open_file(struct modelfile *mf, struct model **out, struct err_text *et);
void model_close(struct model *m);

const struct model_shape *model_shape(const struct model *m);
const struct modelfile *model_file(const struct model *m);
int model_n_modules(const struct model *m); /* 2 * n_layers + 2 */
const struct module_info *model_module(const struct model *m, int i);
/* Names each tensor of the file that module i needs at hand, once: for a tied output the
 * embedding's too, for every attn the rotary factors, which all of them share. */
void model_module_tensors(const struct model *m, int i,
                          void (*tensor)(void *user, const struct mf_tensor *t), void *user);
/* The tensors that cross the cut in front of module i (0 < i < n_modules). Returns how many. */
int model_edges(const struct model *m, int i, struct edge edges[EDGES_MAX]);
/* KV bytes one position of one slot takes in module i; 0 unless it is an attn. */
uint64_t model_kv_bytes(const struct model *m, int i, enum kv_type type);
/* From this module on, only rows whose logits are wanted are carried: the last attn, whose other
 * rows have done all they are for once their keys and values are stored. */
int model_rows_shrink_at(const struct model *m);
/* ERR_UNSUPPORTED when the type does not suit this model (q8_0 needs a head of a multiple of 32).
 */
MUST_CHECK enum err model_check_kv(const struct model *m, enum kv_type type, struct err_text *et);
const char *kv_type_name(enum kv_type type);
/* "llama, qwen2, ..." */
const char *model_families(void);
/* Why this CPU cannot run this build, or NULL when it can. Call before anything else: a missing
 * instruction kills the program. */
const char *model_cpu_unsuited(void);
/* How this device's kernels are chosen, e.g. "x86-64 avx512 vnni, 2": devices that say the same
 * compute the same bits. */
const char *model_kernels(void);

#endif
