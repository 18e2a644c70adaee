/* Stand-ins for the model, its vocabulary and the chain, so that engine.c and session.c can be
 * tested without weights. The chain remembers the tokens of each slot and answers from them alone,
 * as a real one does: a chunk sent at the wrong position, or a token lost in a truncate, changes
 * the answer. Token n < 256 is the byte n; the rest are named below. */
#ifndef LINGUA_TESTS_FAKES_H
#define LINGUA_TESTS_FAKES_H

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"

enum {
    FAKE_VOCAB = 300,
    FAKE_BOS = 256,
    FAKE_END = 257,
    FAKE_EURO = 258,    /* three bytes in one token */
    FAKE_SPECIAL = 259, /* "#" when special tokens are parsed; has no text */
    FAKE_LONG = 260,    /* 200 x 'y' */
    FAKE_SLOTS = 8,
    FAKE_CTX = 5000,
};

struct fake {
    /* What the outside says. */
    const char *cpu_unsuited;
    enum err file_err, tokenizer_err, model_err, text_err, chain_err, kv_err, report_err;
    int n_ctx_train;
    bool ctx_is_hard, has_template;
    uint32_t n_tokens;
    /* The token that follows a prefix of n tokens is script[n], as far as it goes; then a hash. */
    const int32_t *script;
    int n_script;
    enum err run_err; /* of the run numbered run_err_at, and of all after it */
    int run_err_at;
    void (*on_run)(void *user); /* called within chain_run, before it answers */
    void *user;

    /* What was seen. */
    int n_runs, rows[64], wanted[64], n_truncates, truncate_len;
    int n_open; /* things opened and not yet closed */
    int n_threads, n_slots, n_ctx, n_rows_max, kv, n_logits_out;
    int32_t slot_tokens[FAKE_SLOTS][FAKE_CTX];
    int slot_len[FAKE_SLOTS];
};

extern struct fake fake;

void fake_reset(void);
/* What the chain answers after a prefix. */
int32_t fake_next(const int32_t *tokens, int n);

#endif
