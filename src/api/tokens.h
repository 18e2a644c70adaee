/* Tokens in requests and answers. Any thread. */
#ifndef LINGUA_API_TOKENS_H
#define LINGUA_API_TOKENS_H

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

#include "api/error.h"

struct text;

/* An array of token ids, each within the vocabulary; false: *f names param. gives *tokens: free().
 */
MUST_CHECK bool tokens_read(const json_t *array, const struct text *t, const char *param,
                            int32_t **tokens, int *n, struct fault *f);
/* A token's own bytes, special ones shown. gives them: free(). */
char *token_bytes(const struct text *t, int32_t token, size_t *n);

#endif
