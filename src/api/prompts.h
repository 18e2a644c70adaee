/* The prompts of a completion: a text, tokens, both mixed, or several of these. Any thread. */
#ifndef LINGUA_API_PROMPTS_H
#define LINGUA_API_PROMPTS_H

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

#include "api/error.h"

struct text;

enum { PROMPTS_MAX = 128 };

struct one_prompt {
    int32_t *tokens;
    int n_tokens;
    bool bos;   /* the first token was put in front by us: it is not in the text */
    char *text; /* as echo and `prompt` give it back */
    size_t n_text;
};

struct prompts {
    struct one_prompt *one;
    int n;
    bool many; /* an array of prompts was given, be it of one */
};

/* v: the request's `prompt`. Texts are tokenised as a model's input begins: with its BOS, and with
 * control tokens written out understood. */
MUST_CHECK bool prompts_read(const json_t *v, const struct text *t, struct prompts *out,
                             struct fault *f);
void prompts_fini(struct prompts *p); /* also after a fault */

#endif
