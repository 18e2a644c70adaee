/* Likelihoods of a prompt's own tokens, for `echo` with `logprobs`: from the rows of a GEN_LOGITS
 * generation over the prompt. Rows on any thread, one at a time. */
#ifndef LINGUA_API_ECHO_H
#define LINGUA_API_ECHO_H

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

#include "api/work.h"
#include "text/text.h"

struct echo {
    const int32_t *tokens; /* borrowed */
    int n_tokens, n_top;
    bool bos;               /* the first takes no room in the text */
    struct token_prob *own; /* [n_tokens]; of the first nothing is known */
    struct token_prob *top; /* [n_tokens][n_top], best first */
};

void echo_init(struct echo *e, const int32_t *tokens, int n_tokens, int n_top);
void echo_rows(struct echo *e, const struct work_rows *rows);
/* The prompt's part put before that of the answer (shape_probs_new), which is taken. */
json_t *echo_before(const struct echo *e, const struct text *t, json_t *answer);
void echo_fini(struct echo *e);

#endif
