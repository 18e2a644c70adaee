/* The architecture table: a decoder family is a row here, not a function.
 *
 * A row says what a family is made of; the shared builder (graph.c) reads the row and nothing else
 * knows families apart. A new decoder family is a new row and, at most, one new option that the
 * builder learns for everybody. The hyperparameters that differ between files of one family live
 * in `struct hparams`; which tensors must be there, and in what shape, follows from both
 * (tensors.h). Pure data and reading: any thread. */
#ifndef LINGUA_MODEL_ARCH_H
#define LINGUA_MODEL_ARCH_H

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"
#include "model/modelfile.h"

enum norm_kind { NORM_RMS, NORM_LAYER };
enum position_kind {
    POS_ROPE_PAIRS,  /* rotary, neighbouring pairs (GGUF's "normal") */
    POS_ROPE_HALVES, /* rotary, first half against second (GPT-NeoX) */
    POS_ALIBI,       /* a bias per head that grows with distance */
    POS_LEARNED,     /* an embedding per position, added once */
};
enum ffn_kind {
    FFN_GATED,       /* down(act(gate(x)) * up(x)) */
    FFN_GATED_FUSED, /* the same with gate and up in one tensor, gate first */
    FFN_PLAIN,       /* down(act(up(x))) */
};
enum act_kind { ACT_SILU, ACT_GELU };
enum tie_kind {
    TIE_MAYBE, /* no output tensor means the embedding serves */
    TIE_ALWAYS,
    TIE_NEVER,
};
enum moe_kind { MOE_NEVER, MOE_MAYBE, MOE_ALWAYS };
enum bias_kind {
    BIAS_NONE,
    BIAS_OPTIONAL_ATTN, /* q, k, v where the file has them */
    BIAS_OPTIONAL,      /* q, k, v, attention output, FFN and LM head, where the file has them */
    BIAS_ALL,           /* all of them and the norms', always (not the LM head) */
};

struct arch {
    const char *name; /* GGUF's general.architecture and the prefix of its keys */
    enum norm_kind norm;
    enum position_kind position;
    enum ffn_kind ffn;
    enum act_kind act;
    enum bias_kind bias;
    enum tie_kind tie;
    enum moe_kind moe;
    bool qk_norm;              /* RMS norm of each query and key head before rotation */
    bool post_norm;            /* a norm on each block's result before it joins the residual */
    bool embed_norm;           /* a norm right after the embedding */
    bool embed_scale;          /* embedding times sqrt(n_embd) */
    bool parallel_key;         /* use_parallel_residual decides how attention and FFN join */
    bool full_rotation;        /* rope.dimension_count must equal the head size */
    int window_default;        /* sliding window when the key is absent; 0 = none */
    int window_period;         /* every n-th layer sees everything; 0 = no windows in this family */
    bool window_own_rope;      /* windowed layers rotate with a base of their own, unscaled */
    bool softcap;              /* reads the soft cap keys */
    float attn_cap, logit_cap; /* soft caps when their keys are absent; 0 = none */
    /* At this depth attention scales by sqrt(n_embd / n_heads), not sqrt(head_dim); 0 = never. */
    int wide_scale_layers;
};

/* NULL when unknown. */
const struct arch *arch_find(const char *name);
/* "llama, qwen2, ...": a constant string. */
const char *arch_names(void);

enum { LAYERS_MAX = 1024, EXPERTS_MAX = 1024, EXPERTS_USED_MAX = 64, HEAD_DIM_MAX = 512 };

struct rope {
    int n_rot;
    int n_ctx_orig;
    float base, scale; /* frequency base; positions are multiplied by scale */
    float ext_factor, attn_factor, beta_fast, beta_slow; /* YaRN (arXiv 2309.00071) */
};

/* What one file says, checked: every count is at least 1 (experts may be 0) and bounded, heads
 * divide, floats are finite. */
struct hparams {
    int n_layers, n_embd, n_heads, n_kv_heads, head_dim, n_ff, n_vocab, n_ctx_train;
    int n_experts, n_experts_used, n_ff_expert; /* 0 when dense */
    float norm_eps;
    float attn_scale;          /* scores are multiplied by it */
    float attn_cap, logit_cap; /* 0 = none */
    float alibi_bias_max;      /* 0 = none */
    float embed_scale;         /* 1 = none */
    float expert_scale;        /* 1 = none */
    int window;                /* positions a windowed layer sees, itself included; 0 = none */
    int window_period;
    bool parallel;
    struct rope rope, rope_window;
};

/* n_vocab is read from the embedding's shape by the caller, who passes it. ERR_INPUT naming file
 * and key. */
MUST_CHECK enum err hparams_read(const struct modelfile *mf, const struct arch *a, int n_vocab,
                                 struct hparams *out, struct err_text *et);
/* Does layer i see only the last `window` positions? */
bool hparams_windowed(const struct hparams *hp, int layer);

#endif
