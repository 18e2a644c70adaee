#include "api/shape.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "api/json.h"
#include "api/tokens.h"
#include "base/mem.h"

/* JSON has no infinity; OpenAI's stand-in for "never". */
#define LOGPROB_MIN (-9999.0)

static double logprob(float p)
{
    return isfinite(p) ? (double)p : LOGPROB_MIN;
}

static json_t *bytes_json(const char *s, size_t n)
{
    json_t *bytes = json_array();

    for (size_t i = 0; i < n; i++)
        json_array_append_new(bytes, json_integer((unsigned char)s[i]));
    return bytes;
}

static json_t *one(const char *piece, size_t n, const struct token_prob *p, bool ids)
{
    json_t *o = json_object();

    if (ids)
        json_object_set_new(o, "id", json_integer(p->token));
    json_object_set_new(o, "token", json_text(piece, n));
    json_object_set_new(o, "logprob", json_real(logprob(p->logprob)));
    json_object_set_new(o, "bytes", bytes_json(piece, n));
    return o;
}

json_t *shape_prob(const struct text *t, const struct gen_token *token, bool ids)
{
    json_t *o = one(token->piece, (size_t)token->n_piece, &token->own, ids), *top = json_array();

    for (int i = 0; i < token->n_top; i++) {
        size_t n;
        char *piece = token_bytes(t, token->top[i].token, &n);

        json_array_append_new(top, one(piece, n, &token->top[i], ids));
        free(piece);
    }
    json_object_set_new(o, "top_logprobs", top);
    return o;
}

json_t *shape_probs_new(void)
{
    return json_pack("{s:[], s:[], s:[], s:[]}", "tokens", "token_logprobs", "top_logprobs",
                     "text_offset");
}

static json_t *top_map(const struct text *t, const struct gen_token *token)
{
    json_t *map = json_object();

    for (int i = 0; i < token->n_top; i++) {
        size_t n;
        char *piece = token_bytes(t, token->top[i].token, &n);
        json_t *key = json_text(piece, n);

        /* Best first: of two that look alike the likelier one stays. A key ends at a NUL. */
        if (!json_object_get(map, json_string_value(key)))
            json_object_set_new(map, json_string_value(key),
                                json_real(logprob(token->top[i].logprob)));
        json_decref(key);
        free(piece);
    }
    return map;
}

void shape_probs_add(json_t *probs, const struct text *t, const struct gen_token *token,
                     size_t offset)
{
    json_array_append_new(json_object_get(probs, "tokens"),
                          json_text(token->piece, (size_t)token->n_piece));
    json_array_append_new(json_object_get(probs, "token_logprobs"),
                          json_real(logprob(token->own.logprob)));
    json_array_append_new(json_object_get(probs, "top_logprobs"),
                          token->n_top ? top_map(t, token) : json_null());
    json_array_append_new(json_object_get(probs, "text_offset"), json_integer((json_int_t)offset));
}

const char *shape_reason(const struct gen_end *end, int n_calls)
{
    if (end->why == GEN_LENGTH || end->why == GEN_TIME)
        return "length";
    return n_calls > 0 ? "tool_calls" : "stop";
}

const char *shape_stop_type(const struct gen_end *end)
{
    switch (end->why) {
    case GEN_STOP:
        return "eos";
    case GEN_WORD:
        return "word";
    case GEN_LENGTH:
    case GEN_TIME:
        return "limit";
    default:
        return "none";
    }
}

static double per(double a, double b)
{
    return b > 0 ? a / b : 0;
}

json_t *shape_timings(const struct gen_end *end)
{
    double n_read = end->n_prompt - end->n_cached, n = end->n_generated;

    return json_pack("{s:i, s:i, s:f, s:f, s:f, s:i, s:f, s:f, s:f, s:f, s:f}", "cache_n",
                     end->n_cached, "prompt_n", end->n_prompt - end->n_cached, "prompt_ms",
                     end->prompt_ms, "prompt_per_token_ms", per(end->prompt_ms, n_read),
                     "prompt_per_second", per(1e3 * n_read, end->prompt_ms), "predicted_n",
                     end->n_generated, "predicted_ms", end->generate_ms, "predicted_per_token_ms",
                     per(end->generate_ms, n), "predicted_per_second",
                     per(1e3 * n, end->generate_ms), "queue_ms", end->queue_ms, "ttft_ms",
                     end->ttft_ms);
}

void growing_add(struct growing *g, const char *s, size_t n)
{
    if (g->n + n + 1 > g->cap) {
        g->cap = 2 * (g->n + n + 1);
        g->s = mem_realloc(g->s, g->cap, 1);
    }
    if (n)
        memcpy(g->s + g->n, s, n);
    g->n += n;
    g->s[g->n] = '\0';
}
