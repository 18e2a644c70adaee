/* Parts of answers that several routes have: probabilities, reasons, times. Any thread. */
#ifndef LINGUA_API_SHAPE_H
#define LINGUA_API_SHAPE_H

#include <jansson.h>
#include <stdbool.h>

#include "head/gen.h"

struct text;

/* An element of a chat's logprobs.content: {"token", "logprob", "bytes", "top_logprobs": [...]}.
 * ids: "id" as well, and in top_logprobs, as llama-server's completion_probabilities has it. */
json_t *shape_prob(const struct text *t, const struct gen_token *token, bool ids);

/* A completion's logprobs: {"tokens", "token_logprobs", "top_logprobs", "text_offset"}. */
json_t *shape_probs_new(void);
void shape_probs_add(json_t *probs, const struct text *t, const struct gen_token *token,
                     size_t offset);

/* OpenAI's finish_reason. */
const char *shape_reason(const struct gen_end *end, int n_calls);
/* llama-server's stop_type. */
const char *shape_stop_type(const struct gen_end *end);
/* llama-server's timings. */
json_t *shape_timings(const struct gen_end *end);

/* Text that grows. */
struct growing {
    char *s; /* terminated; NULL while empty. free() */
    size_t n, cap;
};
void growing_add(struct growing *g, const char *s, size_t n);

#endif
