/* Tiny random models: one GGUF file for each way a family's tensors and keys can look.
 *
 * Real weights would show whether a model speaks well; these show whether two engines compute the
 * same thing, which needs every tensor kind, every odd shape and nothing else. The same variant,
 * type and seed give the same bytes. Weights are scaled so that activations stay near 1 and no
 * logit dominates; biases and norms are far enough from 0 and 1 to be missed when forgotten.
 *
 * tiny_edit makes damaged copies for the tests of bad input. */
#ifndef LINGUA_TESTS_TINY_MODEL_H
#define LINGUA_TESTS_TINY_MODEL_H

#include <stdint.h>

#include "ggml.h"

enum tiny_variant {
    TINY_LLAMA,
    TINY_LLAMA_GQA,    /* three query heads per KV head, n_embd 768 */
    TINY_LLAMA_FREQS,  /* rope_freqs.weight, as Llama 3.1 has, and a tied output */
    TINY_LLAMA_BIAS,   /* every optional bias, heads of 48 */
    TINY_LLAMA_SCALED, /* linear RoPE scaling, the key of old files */
    TINY_LLAMA_YARN,
    TINY_MIXTRAL,
    TINY_QWEN2,
    TINY_QWEN3,
    TINY_QWEN3MOE,
    TINY_GEMMA2,
    TINY_GEMMA3,
    TINY_PHI3,
    TINY_GPT2,
    TINY_BLOOM, /* 12 heads: ALiBi's formula for counts that are no power of two */
    TINY_GPTNEOX,
    TINY_GPTNEOX_SEQ, /* use_parallel_residual false */
    TINY_N_VARIANTS
};

/* Positions phi3 was first trained for: contexts up to this use the short factors, others the long
 * ones. */
enum { TINY_PHI3_CTX_ORIG = 512, TINY_CTX_TRAIN = 2048 };

const char *tiny_name(enum tiny_variant v); /* for test output and file names */
const char *tiny_arch(enum tiny_variant v); /* general.architecture */

/* Writes the model; matrices in `type` (rows that are no whole number of its blocks become Q8_0, as
 * quantisers do), norms and biases in F32. Exits the test program when the file cannot be
 * written. */
void tiny_write(const char *path, enum tiny_variant v, enum ggml_type type, uint64_t seed);
/* With another number of layers than the variant usually has. */
void tiny_write_layers(const char *path, enum tiny_variant v, enum ggml_type type, uint64_t seed,
                       int n_layers);
/* With another vocabulary, whose n_vocab tokens put writes the keys of. */
struct gguf_context;
void tiny_write_vocab(const char *path, enum tiny_variant v, enum ggml_type type, int n_vocab,
                      void (*put)(struct gguf_context *gguf, int n_vocab, const void *arg),
                      const void *arg);

enum tiny_edit_kind {
    TINY_DROP_TENSOR,
    TINY_RETYPE_TENSOR,  /* same shape, type `num` */
    TINY_RESHAPE_TENSOR, /* one more row (or element, of a vector) */
    TINY_RENAME_TENSOR,  /* to str */
    TINY_DROP_KEY,
    TINY_SET_U32, /* num */
    TINY_SET_F32, /* real */
    TINY_SET_STR, /* str */
};

struct tiny_edit {
    enum tiny_edit_kind kind;
    const char *name; /* the tensor or key */
    uint32_t num;
    float real;
    const char *str;
};

/* Writes path_out as path_in with the edits applied and all weights zero (a sparse file: what is
 * damaged is found before any weight is read). The named tensors and dropped keys must exist
 * (exits otherwise), so that a test cannot rot into testing an undamaged file. */
void tiny_edit(const char *path_in, const char *path_out, const struct tiny_edit *edits,
               int n_edits);

/* Sets the tokenizer's keys to n dummy tokens (n >= 259). */
void tiny_put_vocab(struct gguf_context *gguf, int n);

/* Deterministic numbers for tests. */
struct tiny_rng {
    uint64_t state;
};
uint64_t tiny_rng_next(struct tiny_rng *r);
float tiny_rng_normal(struct tiny_rng *r); /* mean 0, variance 1, within +-3.5 */

/* "<dir>/<name>": dir is LINGUA_TEST_DIR or a folder made once under the build's test folder. */
void tiny_path(char *buf, int cap, const char *name);

#endif
