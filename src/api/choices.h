/* The answers to one prompt: `n` choices that differ in their seeds and share the reading. Within
 * prepare (work.h). */
#ifndef LINGUA_API_CHOICES_H
#define LINGUA_API_CHOICES_H

#include "api/params.h"
#include "api/work.h"
#include "text/text.h"

struct prompt {
    const int32_t *tokens; /* borrowed until fini, as the stops are */
    int n_tokens;
    const char *const *stops;
    int n_stops;
    const struct grammar *grammar; /* NULL: params' own */
};

/* Plans p->n generations with consecutive indices. A grammar that cannot be used, a prompt that
 * does not fit: a fault. */
MUST_CHECK bool choices_plan(struct work *w, const struct params *p, const struct prompt *prompt,
                             struct fault *f);

#endif
