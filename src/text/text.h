/* Tokens, chat templates and sampling: everything we take from llama.cpp, behind plain C.
 *
 * A `struct text` is a vocabulary (llama.cpp's, loaded without weights) and the model's chat
 * template. Open it only on a file that modelfile_check_tokenizer has passed: llama.cpp aborts on,
 * or throws at, vocabularies that are malformed. Every C++ exception stops in text_shim.cpp.
 * Immutable after open: any thread may tokenise. A sampler belongs to one sequence and one thread
 * at a time. */
#ifndef LINGUA_TEXT_TEXT_H
#define LINGUA_TEXT_TEXT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"

struct text;
struct sampler;

MUST_CHECK enum err text_open(const char *path, struct text **out, struct err_text *et);
void text_close(struct text *t);

int text_n_vocab(const struct text *t);
int32_t text_bos(const struct text *t); /* -1 when the vocabulary has none */
int32_t text_eos(const struct text *t); /* the same; the one of text_is_end that ends a text */
bool text_adds_bos(const struct text *t);
bool text_is_end(const struct text *t, int32_t token); /* any end-of-generation token */

/* Tokens of n bytes of UTF-8. add_special adds BOS/EOS as the model wants at the start of a text;
 * parse_special reads
 * "<|im_end|>" as one control token (for rendered templates, never for what a person typed as plain
 * text). gives *tokens: free with free(). ERR_LIMIT past TEXT_BYTES_MAX. */
enum { TEXT_BYTES_MAX = 16 << 20 };
MUST_CHECK enum err text_tokenize(const struct text *t, const char *s, size_t n, bool add_special,
                                  bool parse_special, int32_t **tokens, int *n_tokens,
                                  struct err_text *et);

/* The bytes of one token, not terminated and not always whole UTF-8 characters. Returns their
 * number (0 for control tokens unless show_special), at most cap; -needed when cap is too small.
 * ERR cannot happen: an id out of range gives 0. */
int text_piece(const struct text *t, int32_t token, bool show_special, char *buf, int cap);

/* The UTF-8 bytes at the front of s[0..n) that are whole characters: what may be printed now.
 * Invalid bytes count as whole. */
size_t text_utf8_whole(const char *s, size_t n);

struct text_message {
    const char *role;    /* "system", "user" or "assistant" */
    const char *content; /* UTF-8 */
};

bool text_has_template(const struct text *t);
const char *text_template(const struct text *t); /* NULL when there is none; borrowed */

/* Renders a conversation with the model's own template, with the start of an assistant's turn at
 * the end when add_assistant. The template is a program from a file, so it runs in a child process
 * with bounds on memory and time: ERR_LIMIT when it exceeds them, ERR_INPUT with the template's own
 * complaint. gives *out, terminated: free with free(). */
MUST_CHECK enum err text_render_chat(const struct text *t, const struct text_message *messages,
                                     int n_messages, bool add_assistant, char **out,
                                     struct err_text *et);

/* ---- sampling ---- */

enum {
    SAMPLING_BIAS_MAX = 1024,
    SAMPLING_TOP_MAX = 64,
    SAMPLING_LAST_MAX = 1 << 20, /* of last_n */
    GRAMMAR_BYTES_MAX = 256 << 10,
    GRAMMAR_TRIGGERS_MAX = 64,
    TRIGGER_BYTES_MAX = 1024,
};

struct token_bias {
    int32_t token;
    float bias; /* added to the logit; -INFINITY forbids */
};

enum trigger_kind { TRIGGER_TOKEN, TRIGGER_WORD, TRIGGER_PATTERN, TRIGGER_PATTERN_FULL };

struct grammar_trigger {
    enum trigger_kind kind;
    const char *text; /* all but TOKEN */
    int32_t token;    /* TOKEN */
};

/* A grammar in GBNF; its first rule is `root`. Lazy: it holds from the first trigger on, in what is
 * generated; a trigger's text belongs to it. Patterns are ECMAScript's regular expressions, matched
 * against the last kilobyte, where a match begins at its first group: they may take exponential
 * time, so only templates may give them, never strangers. */
struct grammar {
    const char *text;   /* NULL: none */
    const char *prefix; /* how it begins, already there at the prompt's end; NULL: nothing. Not for
                           lazy ones */
    const char *begin;  /* what is generated begins with this, as far as the grammar allows; NULL */
    bool lazy;
    int n_triggers;
    const struct grammar_trigger *triggers;
};

struct sampling {
    float temp;    /* 0 = greedy: the largest logit, lowest id on a tie */
    int top_k;     /* 0 = all */
    float top_p;   /* 1 = all */
    float min_p;   /* 0 = all */
    uint32_t seed; /* the same seed, logits and settings give the same tokens */
    /* Penalties, llama.cpp's: over the last `last_n` tokens, prompt included; -1 = all of them. */
    int last_n;
    float repeat, frequency, presence; /* 1, 0, 0 = none */
    bool ignore_end;                   /* end-of-generation tokens are never chosen */
    int n_bias;
    const struct token_bias *bias; /* borrowed until sampler_open returns, as is the grammar */
    struct grammar grammar;
};
#define SAMPLING_DEFAULT                                                                           \
    ((struct sampling){                                                                            \
        .temp = 0.8f, .top_k = 40, .top_p = 0.95f, .min_p = 0.05f, .last_n = 64, .repeat = 1.0f})

MUST_CHECK enum err sampling_check(
    const struct sampling *s, struct err_text *et); /* ERR_INPUT naming the setting and its range */
/* Checks, too. ERR_INPUT with the line of a grammar that cannot be read; ERR_LIMIT for one that is
 * too long or too deep. */
MUST_CHECK enum err sampler_open(const struct text *t, const struct sampling *s,
                                 struct sampler **out, struct err_text *et);
void sampler_free(struct sampler *s);
/* Another of the same settings and state, with a seed of its own. */
struct sampler *sampler_clone(const struct sampler *s, uint32_t seed);
/* Tokens of the prompt, for penalties. Grammars begin behind it. */
void sampler_prompt(struct sampler *s, const int32_t *tokens, int n);

struct token_prob {
    int32_t token;
    float
        logprob; /* of the model's own distribution: softmax over all logits, before any setting */
};

/* One token from logits (n_vocab f32, borrowed, not changed), which counts as chosen from then on.
 * Applied in llama.cpp's order: bias, penalties, top-k, top-p, min-p, temperature; the grammar is
 * asked about the choice first and masks all tokens only when it refuses that one (FACTS: masking a
 * large vocabulary costs 20 ms). own and top[n_top] (best first) may be NULL / 0. ERR_INPUT: the
 * grammar allows no token at all; ERR_LIMIT: it matches the answer in too many ways to go on. After
 * an error the sampler is only to be freed. */
MUST_CHECK enum err sampler_pick(struct sampler *s, const float *logits, int32_t *token,
                                 struct token_prob *own, int n_top, struct token_prob *top,
                                 struct err_text *et);

/* log softmax(logits)[token]; for likelihoods. (n_vocab) f32. */
double text_logprob(const float *logits, int n_vocab, int32_t token);

#endif
