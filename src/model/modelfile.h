/* A GGUF file, opened and believed.
 *
 * ggml aborts on bad input, so nothing it does may be the first to look at a file. This reader
 * parses the header itself, bounds every count and offset by the bytes that are really there, and
 * hands out typed metadata and tensor records. After modelfile_open every tensor record satisfies:
 * known type, 1..4 dimensions all >= 1, ne[0] a whole number of quantisation blocks, element count
 * that fits in 63 bits, data aligned and inside the file, no overlap with another tensor, unique
 * name of at most 63 bytes, keys unique. It never allocates more than a small multiple of the
 * header's own size. Whether the tensors are the ones a family needs is model.h's question.
 *
 * The whole file is mapped read-only; pointers handed out are borrowed until modelfile_close.
 * Immutable after open: any thread may read. Format: GGUF versions 2 and 3, little endian (ggml's
 * docs/gguf.md). */
#ifndef LINGUA_MODEL_MODELFILE_H
#define LINGUA_MODEL_MODELFILE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"

struct modelfile;

struct mf_tensor {
    const char *name;
    int type; /* enum ggml_type; the GGUF numbering is the same */
    int n_dims;
    int64_t ne[4];   /* elements per dimension, ne[0] contiguous; 1 beyond n_dims */
    uint64_t offset; /* bytes from the start of the file */
    uint64_t size;   /* bytes */
};

/* ERR_FILE with the system's reason, ERR_INPUT naming the file, then the tensor or key at fault,
 * ERR_UNSUPPORTED for big-endian, version 1 and files split into several. gives *out: free with
 * modelfile_close. */
MUST_CHECK enum err modelfile_open(const char *path, struct modelfile **out, struct err_text *et);
/* The same for bytes already in memory, which are borrowed until close; path is only for messages.
 * For tests and fuzzing. */
MUST_CHECK enum err modelfile_open_bytes(const char *path, const void *bytes, size_t size,
                                         struct modelfile **out, struct err_text *et);
void modelfile_close(struct modelfile *mf); /* NULL is fine */

const char *modelfile_path(const struct modelfile *mf);
uint64_t modelfile_size(const struct modelfile *mf); /* bytes */
int modelfile_n_tensors(const struct modelfile *mf);
const struct mf_tensor *modelfile_tensor(const struct modelfile *mf, int i);
const struct mf_tensor *modelfile_find(const struct modelfile *mf,
                                       const char *name); /* NULL when absent */
const void *modelfile_data(const struct modelfile *mf,
                           const struct mf_tensor *t); /* t->size mapped bytes */
/* The system may take these pages back: their contents now live elsewhere. Only whole pages inside
 * t are given; NULL gives all of the file's. What is read again comes from the file again. */
void modelfile_give_back(const struct modelfile *mf, const struct mf_tensor *t);

/* Metadata. Every getter gives ERR_INPUT naming file and key when the key is absent (unless said
 * otherwise), has another type, or does not fit. Integer getters take any GGUF integer type whose
 * value fits. */
bool modelfile_has(const struct modelfile *mf, const char *key);
MUST_CHECK enum err modelfile_u32(const struct modelfile *mf, const char *key, uint32_t *out,
                                  struct err_text *et);
MUST_CHECK enum err modelfile_f32(const struct modelfile *mf, const char *key, float *out,
                                  struct err_text *et);
MUST_CHECK enum err modelfile_bool(const struct modelfile *mf, const char *key, bool *out,
                                   struct err_text *et);
/* *out is NUL-terminated (a string with NUL inside is refused); borrowed. */
MUST_CHECK enum err modelfile_str(const struct modelfile *mf, const char *key, const char **out,
                                  struct err_text *et);
/* Absent keys give the default already in *out and ERR_NONE; a present key of the wrong type is
 * still an error. */
MUST_CHECK enum err modelfile_u32_opt(const struct modelfile *mf, const char *key, uint32_t *out,
                                      struct err_text *et);
MUST_CHECK enum err modelfile_f32_opt(const struct modelfile *mf, const char *key, float *out,
                                      struct err_text *et);
MUST_CHECK enum err modelfile_bool_opt(const struct modelfile *mf, const char *key, bool *out,
                                       struct err_text *et);
MUST_CHECK enum err modelfile_str_opt(const struct modelfile *mf, const char *key, const char **out,
                                      struct err_text *et);
/* Fills out[0..n): one number repeated, or an array with at least n entries (some files give one
 * per layer). */
MUST_CHECK enum err modelfile_u32s(const struct modelfile *mf, const char *key, int n,
                                   uint32_t *out, struct err_text *et);
/* Number of entries of an array key; ERR_INPUT when the key is absent or no array. */
MUST_CHECK enum err modelfile_arr_len(const struct modelfile *mf, const char *key, uint64_t *out,
                                      struct err_text *et);

/* Everything about the tokenizer's keys that llama.cpp would abort on, throw at, or silently
 * misread: array types and equal lengths of tokens, scores and token types, at least the tokens a
 * vocabulary type needs, no duplicate token strings, special ids in range, merges that are pairs,
 * template length bounded, tensors packed as gguf.cpp wants them. ERR_INPUT names the key,
 * ERR_UNSUPPORTED a tokenizer other than "llama" (SentencePiece) and "gpt2" (byte-level BPE).
 * *n_tokens gets the vocabulary's size. Not checked: whether libllama knows the name of the
 * pre-tokenizer (tokenizer.ggml.pre); it refuses a strange one without harm, by not loading. */
MUST_CHECK enum err modelfile_check_tokenizer(const struct modelfile *mf, uint32_t *n_tokens,
                                              struct err_text *et);

#endif
