/* libllama as the reference: the same archive of kernels, driven by the engine that invented them.
 *
 * Functions exit the program with a sentence when libllama refuses: a reference that does not run
 * proves nothing. One thread at a time. */
#ifndef LINGUA_TESTS_REF_LLAMA_H
#define LINGUA_TESTS_REF_LLAMA_H

#include <stdbool.h>
#include <stdint.h>

#include "ggml.h"

struct ref;

struct ref_opts {
    int n_threads;
    int n_ctx;  /* per sequence; libllama rounds it up to 256s */
    int n_seqs; /* slots */
    enum ggml_type kv;
    bool flash; /* false: flash attention off; true: libllama's own default (auto) */
};

struct ref *ref_open(const char *path, const struct ref_opts *opts);
void ref_close(struct ref *r);
int ref_n_vocab(const struct ref *r);

/* Decodes n rows in one call and gives the logits of those wanted (NULL = all), in order, in
 * logits: (n wanted, n_vocab). */
void ref_run(struct ref *r, int n, const int32_t *slot, const int32_t *pos, const int32_t *token,
             const uint8_t *want, float *logits);
/* The same without copying logits out, for timing. */
void ref_step(struct ref *r, int n, const int32_t *slot, const int32_t *pos, const int32_t *token,
              const uint8_t *want);
void ref_truncate(struct ref *r, int slot, int len);

/* Tokens of a text, with BOS as the model wants; returns their number. */
int ref_tokenize(struct ref *r, const char *text, int32_t *tokens, int cap);
/* Bytes of one token; returns their number. */
int ref_piece(struct ref *r, int32_t token, char *buf, int cap);
bool ref_is_end(struct ref *r, int32_t token);
/* Greedy continuation of what is in slot 0 plus the prompt; stops after n tokens or an end token,
 * which is not given. Returns the number of tokens. */
int ref_greedy(struct ref *r, const int32_t *prompt, int n_prompt, int32_t *out, int n);

/* sum (a-b)^2 / sum b^2 */
double nmse(const float *a, const float *b, int64_t n);
double nmse_power(const float *b, int64_t n); /* sum b^2 */
int argmax(const float *a, int n);            /* the lowest index on a tie */

#endif
