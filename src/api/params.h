/* What a request says of sampling and of its end, in OpenAI's words and llama-server's; both are
 * understood on every route, and fields that neither knows are ignored, as both do. Pure; any
 * thread. docs/api.md has the table of fields, ranges and defaults. */
#ifndef LINGUA_API_PARAMS_H
#define LINGUA_API_PARAMS_H

#include <jansson.h>
#include <stdbool.h>

#include "api/error.h"
#include "head/gen.h"
#include "text/text.h"

struct params {
    struct sampling sampling; /* bias and grammar point into this struct */
    bool has_seed;            /* else a random one was drawn */
    int n_max;                /* -1: as many as fit */
    int n;                    /* choices */
    int n_top;                /* -1: no probabilities */
    bool stream, include_usage, echo;
    bool cache_prompt;
    int slot;
    int64_t ms_max;
    bool timings_per_token, return_tokens, post_probs;
    int n_stops;
    const char *stops[GEN_STOPS_MAX]; /* borrowed from the body */
    struct token_bias bias[SAMPLING_BIAS_MAX];
    const char *grammar;       /* borrowed; NULL: none */
    const json_t *json_schema; /* borrowed; NULL: none */
    bool any_object;           /* response_format json_object: any JSON object */
};

/* t: to read words in logit_bias. */
MUST_CHECK bool params_read(const json_t *body, const struct text *t, struct params *out,
                            struct fault *f);

/* response_format and llama-server's json_schema: also for those that read nothing else. */
MUST_CHECK bool params_schema(const json_t *body, const json_t **schema, bool *any_object,
                              struct fault *f);
/* OpenAI's `logprobs` of a chat is a bool with `top_logprobs`, of a completion a number. Sampling's
 * settings as llama-server's generation_settings has them. */
json_t *params_json(const struct params *p);

#endif
