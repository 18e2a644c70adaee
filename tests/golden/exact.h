/* What test_exact and test_slots share: a tiny model, eight sequences, and the logits each has when
 * it is fed alone, whole, in one chunk, by one thread. Everything else must give these bits. */
#ifndef LINGUA_TESTS_EXACT_H
#define LINGUA_TESTS_EXACT_H

#include "support/rig.h"
#include "support/tiny_model.h"

enum { EXACT_SLOTS = 8, EXACT_LEN_MAX = 300, EXACT_CTX = 320 };

struct exact {
    char path[256], label[96];
    enum tiny_variant variant;
    enum ggml_type type;
    enum kv_type kv;
    int n_modules, n_vocab;
    int len[EXACT_SLOTS]; /* the first is the longest */
    int32_t tokens[EXACT_SLOTS][EXACT_LEN_MAX];
    float *base[EXACT_SLOTS]; /* (len, n_vocab) */
};

/* len: of the first sequence; the others get ever shorter. n_base: how many get base logits. */
void exact_open(struct exact *x, enum tiny_variant v, enum ggml_type type, enum kv_type kv, int len,
                int n_base);
void exact_close(struct exact *x);
struct segment_opts exact_opts(const struct exact *x);
/* Fails the test unless rows [pos, pos + n) of sequence `seq` are bit for bit the base's. */
void exact_same(const struct exact *x, int seq, int pos, int n, const float *logits,
                const char *what);

#endif
