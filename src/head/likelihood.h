/* Classification by likelihood: which of some labels a model would rather write.
 *
 * A template makes one text per label out of the input and that label. What the texts have in common
 * at their beginning (for the usual template: everything in front of the label) is read once. The
 * score of a label is the sum of log p(token | all tokens before it) over the rest of its text: its
 * own tokens and whatever the template puts behind them. The softmax of the scores over the labels
 * is what is given as their probability:
 *
 *     logprob(l) = sum_j log p(t_j | t_0 .. t_(j-1)),  j from n_shared on
 *     probability(l) = e^logprob(l) / sum_k e^logprob(k)
 *
 * Long labels score lower than short ones that are as likely word by word, so the mean per token
 * and its softmax are given, too.
 *
 * The row at position p of a text holds what the model expects at p + 1. A *run* is one text less
 * its last token; labels whose own tokens (less the last) begin another label's ride on that one's
 * run: labels of one token each take a single run, that reads the shared part alone.
 *
 * Pure but for the tokeniser it is given. likelihood_rows of different runs may be called on
 * different threads at once; the rest is for one thread at a time. */
#ifndef LINGUA_HEAD_LIKELIHOOD_H
#define LINGUA_HEAD_LIKELIHOOD_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"

enum { LIKELIHOOD_LABELS_MAX = 256, LIKELIHOOD_TEMPLATE_MAX = 64 << 10 };

/* {input} and {label} (once) have to be in a template; {labels}, all of them with commas between,
 * may be. Other braces are text. */
#define LIKELIHOOD_TEMPLATE "Text: {input}\nLabels: {labels}\nLabel: {label}"

struct likelihood_ask {
    const char *template; /* NULL: LIKELIHOOD_TEMPLATE */
    const char *input;
    size_t n_input;
    const char *const *labels; /* copied */
    int n_labels;
    int n_ctx; /* no run may be longer */
    /* Tokens of a text with the start token where the model wants one. gives *tokens: free(). */
    enum err (*tokenize)(void *user, const char *s, size_t n, int32_t **tokens, int *n_tokens,
                         struct err_text *et);
    void *user;
};

struct likelihood_label {
    char *name;
    int32_t *tokens; /* the whole text's */
    int n_tokens;
    int run;          /* that scores it */
    int n_scored;     /* tokens so far */
    double logprob;   /* of all, once likelihood_settle was called; before: so far */
    double mean;      /* per token */
    double p, p_mean; /* softmax of either over the labels */
};

struct likelihood {
    int n_shared; /* tokens that all texts begin with, >= 1 */
    int n_labels;
    struct likelihood_label *label;
    int n_runs;
    int *run; /* (n_runs): the label whose text, less its last token, is read */
};

/* ERR_INPUT: template, labels; ERR_LIMIT: the text is longer than the context (the sentence names
 * both), or too many bytes in all. gives what *out points to: likelihood_fini. */
MUST_CHECK enum err likelihood_init(struct likelihood *l, const struct likelihood_ask *ask,
                                    struct err_text *et);
void likelihood_fini(struct likelihood *l); /* zeros are fine */

/* The tokens of a run, borrowed; rows from position n_shared - 1 on are wanted. */
const int32_t *likelihood_run(const struct likelihood *l, int run, int *n_tokens);
/* Rows at positions pos..pos+n-1 of a run: (n, n_vocab) f32 logits. Rows that were seen before, or
 * are not wanted, are passed over. */
void likelihood_rows(struct likelihood *l, int run, const float *rows, int pos, int n, int n_vocab);
/* All rows were seen: the softmax. Returns the likeliest label, the first of equals. */
int likelihood_settle(struct likelihood *l);

int likelihood_n_scored(const struct likelihood *l); /* tokens, over all labels */
/* {"label": the likeliest, "labels": [{"label", "logprob", "probability", "mean_logprob",
 * "mean_probability", "tokens"}]} in the order they were given. After likelihood_settle. */
json_t *likelihood_json(const struct likelihood *l);

#endif
