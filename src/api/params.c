#include "api/params.h"

#include <errno.h>
#include <math.h>
#include <openssl/rand.h>
#include <stdlib.h>
#include <string.h>

#include "api/api.h"
#include "api/json.h"
#include "base/check.h"
#include "base/mem.h"

enum { BIAS_MAX = 100, BIAS_TEXT_MAX = 256 };

/* ---- numbers ---- */

struct number {
    const char *name;
    double min, max;
    float *out;
};

struct whole {
    const char *name;
    int64_t min, max;
    int *out;
};

static bool numbers_read(const json_t *body, struct params *p, struct fault *f)
{
    struct sampling *s = &p->sampling;
    const struct number numbers[] = {
        {"temperature", 0, 100, &s->temp},
        {"top_p", 0, 1, &s->top_p},
        {"min_p", 0, 1, &s->min_p},
        {"repeat_penalty", 0.01, 100, &s->repeat},
        {"frequency_penalty", -2, 2, &s->frequency},
        {"presence_penalty", -2, 2, &s->presence},
    };

    for (size_t i = 0; i < ARRAY_LEN(numbers); i++) {
        double v = *numbers[i].out;

        if (!json_get_number(body, numbers[i].name, numbers[i].min, numbers[i].max, &v, f))
            return false;
        *numbers[i].out = (float)v;
    }
    return true;
}

static bool wholes_read(const json_t *body, struct params *p, struct fault *f)
{
    const struct whole wholes[] = {
        {"top_k", -1, INT32_MAX, &p->sampling.top_k},
        {"repeat_last_n", -1, INT32_MAX, &p->sampling.last_n},
        /* Three names of one thing; the later ones win. */
        {"n_predict", -2, INT32_MAX, &p->n_max},
        {"max_tokens", -1, INT32_MAX, &p->n_max},
        {"max_completion_tokens", -1, INT32_MAX, &p->n_max},
        {"n", 1, API_N_MAX, &p->n},
        {"id_slot", -1, 255, &p->slot},
    };

    for (size_t i = 0; i < ARRAY_LEN(wholes); i++) {
        int64_t v = *wholes[i].out;

        if (!json_get_int(body, wholes[i].name, wholes[i].min, wholes[i].max, &v, f))
            return false;
        *wholes[i].out = (int)v;
    }
    if (p->sampling.top_k < 0)
        p->sampling.top_k = 0;
    if (p->n_max < -1)
        p->n_max = -1;
    return json_get_int(body, "t_max_predict_ms", -1, INT32_MAX, &p->ms_max, f);
}

/* Any whole number is a seed; -1 is llama-server's for "draw one". */
static bool seed_read(const json_t *body, struct params *p, struct fault *f)
{
    int64_t seed = -1;

    if (!json_get_int(body, "seed", INT64_MIN, INT64_MAX, &seed, f))
        return false;
    p->has_seed = seed != -1;
    if (p->has_seed)
        p->sampling.seed = (uint32_t)seed ^ (uint32_t)((uint64_t)seed >> 32);
    else
        CHECK(RAND_bytes((uint8_t *)&p->sampling.seed, sizeof p->sampling.seed) == 1);
    return true;
}

static bool flags_read(const json_t *body, struct params *p, struct fault *f)
{
    const json_t *options = json_object_get(body, "stream_options");

    if (options && !json_is_object(options) && !json_is_null(options))
        return fault_field(f, "stream_options", "stream_options must be an object");
    return json_get_bool(body, "stream", &p->stream, f) &&
           json_get_bool(body, "echo", &p->echo, f) &&
           json_get_bool(body, "cache_prompt", &p->cache_prompt, f) &&
           json_get_bool(body, "ignore_eos", &p->sampling.ignore_end, f) &&
           json_get_bool(body, "timings_per_token", &p->timings_per_token, f) &&
           json_get_bool(body, "return_tokens", &p->return_tokens, f) &&
           json_get_bool(body, "post_sampling_probs", &p->post_probs, f) &&
           (!json_is_object(options) ||
            json_get_bool(options, "include_usage", &p->include_usage, f));
}

/* ---- probabilities ---- */

static bool probs_read(const json_t *body, struct params *p, struct fault *f)
{
    const json_t *logprobs = json_object_get(body, "logprobs");
    int64_t top = -1, native = 0;

    if (json_is_boolean(logprobs)) { /* a chat's */
        if (!json_get_int(body, "top_logprobs", 0, SAMPLING_TOP_MAX, &top, f))
            return false;
        if (top >= 0 && json_is_false(logprobs))
            return fault_field(f, "top_logprobs", "top_logprobs needs \"logprobs\": true");
        if (json_is_true(logprobs))
            p->n_top = top > 0 ? (int)top : 0;
        return true;
    }
    if (!json_get_int(body, "logprobs", 0, SAMPLING_TOP_MAX, &top, f) ||
        !json_get_int(body, "n_probs", 0, SAMPLING_TOP_MAX, &native, f))
        return false;
    if (top < 0 && json_is_integer(json_object_get(body, "top_logprobs")))
        return fault_field(f, "top_logprobs", "top_logprobs needs \"logprobs\": true");
    p->n_top = native > 0 ? (int)native : (int)top;
    return true;
}

/* ---- stop words ---- */

static bool stop_add(struct params *p, const json_t *word, struct fault *f)
{
    if (!json_is_string(word))
        return fault_field(f, "stop", "stop must be a string or an array of strings");
    if (json_string_length(word) == 0)
        return true; /* as llama-server has it: it would stop before it began */
    if (json_string_length(word) > GEN_STOP_BYTES_MAX)
        return fault_field(f, "stop", "a stop word may have %d bytes at most", GEN_STOP_BYTES_MAX);
    if (p->n_stops == GEN_STOPS_MAX)
        return fault_field(f, "stop", "there may be %d stop words at most", GEN_STOPS_MAX);
    p->stops[p->n_stops++] = json_string_value(word);
    return true;
}

static bool stops_read(const json_t *body, struct params *p, struct fault *f)
{
    const json_t *stop = json_object_get(body, "stop");

    if (!stop || json_is_null(stop))
        return true;
    if (!json_is_array(stop))
        return stop_add(p, stop, f);
    for (size_t i = 0; i < json_array_size(stop); i++)
        if (!stop_add(p, json_array_get(stop, i), f))
            return false;
    return true;
}

/* ---- logit_bias ---- */

static bool bias_value(const json_t *v, float *out, struct fault *f)
{
    if (json_is_false(v)) {
        *out = -INFINITY;
        return true;
    }
    if (!json_is_number(v) || !(fabs(json_number_value(v)) <= BIAS_MAX))
        return fault_field(f, "logit_bias",
                           "a bias must be a number from -%d to %d, or false to forbid the token",
                           BIAS_MAX, BIAS_MAX);
    *out = (float)json_number_value(v);
    return true;
}

static bool bias_add(struct params *p, int64_t token, float bias, struct fault *f)
{
    if (p->sampling.n_bias == SAMPLING_BIAS_MAX)
        return fault_field(f, "logit_bias", "logit_bias may name %d tokens at most",
                           SAMPLING_BIAS_MAX);
    p->bias[p->sampling.n_bias++] = (struct token_bias){(int32_t)token, bias};
    return true;
}

static bool bias_id(struct params *p, const struct text *t, int64_t id, float bias, struct fault *f)
{
    if (id < 0 || id >= text_n_vocab(t))
        return fault_field(f, "logit_bias", "logit_bias names token %lld; this model's are 0 to %d",
                           (long long)id, text_n_vocab(t) - 1);
    return bias_add(p, id, bias, f);
}

static bool bias_text(struct params *p, const struct text *t, const char *words, float bias,
                      struct fault *f)
{
    struct err_text et;
    int32_t *tokens;
    bool fine = true;
    int n;
    enum err e;

    if (strlen(words) > BIAS_TEXT_MAX)
        return fault_field(f, "logit_bias", "a text in logit_bias may have %d bytes at most",
                           BIAS_TEXT_MAX);
    e = text_tokenize(t, words, strlen(words), false, true, &tokens, &n, &et);
    if (e) {
        fault_err(f, e, et.text, false, 0);
        return false;
    }
    for (int i = 0; i < n && fine; i++)
        fine = bias_add(p, tokens[i], bias, f);
    free(tokens);
    return fine;
}

static bool bias_named(struct params *p, const struct text *t, const char *name, float bias,
                       struct fault *f)
{
    char *end;
    long long id;

    errno = 0;
    id = strtoll(name, &end, 10);
    if (*name && !*end && !errno)
        return bias_id(p, t, id, bias, f);
    return bias_text(p, t, name, bias, f);
}

static bool bias_pair(struct params *p, const struct text *t, const json_t *pair, struct fault *f)
{
    const json_t *what = json_array_get(pair, 0);
    float bias;

    if (json_array_size(pair) != 2 || !(json_is_integer(what) || json_is_string(what)))
        return fault_field(f, "logit_bias",
                           "logit_bias as an array has pairs: [token or text, bias or false]");
    if (!bias_value(json_array_get(pair, 1), &bias, f))
        return false;
    return json_is_integer(what) ? bias_id(p, t, json_integer_value(what), bias, f)
                                 : bias_text(p, t, json_string_value(what), bias, f);
}

static bool bias_read(const json_t *body, const struct text *t, struct params *p, struct fault *f)
{
    json_t *all = json_object_get(body, "logit_bias"), *value;
    const char *name;
    float bias;

    if (!all || json_is_null(all))
        return true;
    if (json_is_array(all)) {
        for (size_t i = 0; i < json_array_size(all); i++)
            if (!bias_pair(p, t, json_array_get(all, i), f))
                return false;
        return true;
    }
    if (!json_is_object(all))
        return fault_field(f, "logit_bias",
                           "logit_bias must be an object {\"token\": bias} or an array of pairs");
    json_object_foreach(all, name, value) if (!bias_value(value, &bias, f) ||
                                              !bias_named(p, t, name, bias, f)) return false;
    return true;
}

/* ---- shapes of the answer ---- */

bool params_schema(const json_t *body, const json_t **schema, bool *any_object, struct fault *f)
{
    const json_t *format = json_object_get(body, "response_format"), *inner;
    const char *type = NULL;

    *any_object = false;
    *schema = json_object_get(body, "json_schema");
    if (json_is_null(*schema))
        *schema = NULL;
    if (*schema && !json_is_object(*schema))
        return fault_field(f, "json_schema", "json_schema must be an object");
    if (!format || json_is_null(format))
        return true;
    if (!json_is_object(format))
        return fault_field(f, "response_format", "response_format must be an object");
    if (!json_get_string(format, "type", &type, f))
        return false;
    if (type && strcmp(type, "text") == 0)
        return true;
    if (type && strcmp(type, "json_object") == 0) {
        inner = json_object_get(format, "schema"); /* llama-server's own */
        *any_object = !json_is_object(inner);
        *schema = *any_object ? NULL : inner;
        return true;
    }
    if (!type || strcmp(type, "json_schema") != 0)
        return fault_field(f, "response_format.type",
                           "response_format.type must be text, json_object or json_schema");
    inner = json_object_get(format, "json_schema");
    *schema = json_object_get(inner, "schema");
    if (!*schema)
        *schema = json_object_get(format, "schema");
    if (!json_is_object(*schema))
        return fault_field(f, "response_format.json_schema",
                           "response_format.json_schema.schema must be an object");
    return true;
}

static bool shape_read(const json_t *body, struct params *p, struct fault *f)
{
    if (!json_get_string(body, "grammar", &p->grammar, f) ||
        !params_schema(body, &p->json_schema, &p->any_object, f))
        return false;
    if (p->grammar && !*p->grammar)
        p->grammar = NULL;
    if (p->grammar && (p->json_schema || p->any_object))
        return fault_field(f, "grammar", "a grammar and a JSON schema exclude each other");
    if (p->grammar && strlen(p->grammar) > GRAMMAR_BYTES_MAX)
        return fault_field(f, "grammar", "a grammar may have %d bytes at most", GRAMMAR_BYTES_MAX);
    return true;
}

bool params_read(const json_t *body, const struct text *t, struct params *out, struct fault *f)
{
    *out = (struct params){.sampling = SAMPLING_DEFAULT,
                           .n_max = -1,
                           .n = 1,
                           .n_top = -1,
                           .cache_prompt = true,
                           .slot = -1};
    if (!numbers_read(body, out, f) || !wholes_read(body, out, f) || !seed_read(body, out, f) ||
        !flags_read(body, out, f) || !probs_read(body, out, f) || !stops_read(body, out, f) ||
        !bias_read(body, t, out, f) || !shape_read(body, out, f))
        return false;
    if (out->ms_max < 0)
        out->ms_max = 0;
    out->sampling.bias = out->bias;
    return true;
}

json_t *params_json(const struct params *p)
{
    const struct sampling *s = &p->sampling;
    json_t *stops = json_array(), *bias = json_array();
    bool shaped = p->grammar || p->json_schema || p->any_object;

    for (int i = 0; i < p->n_stops; i++)
        json_array_append_new(stops, json_string(p->stops[i]));
    for (int i = 0; i < s->n_bias; i++)
        json_array_append_new(
            bias, isinf(s->bias[i].bias)
                      ? json_pack("{s:i, s:b}", "token", (int)s->bias[i].token, "bias", 0)
                      : json_pack("{s:i, s:f}", "token", (int)s->bias[i].token, "bias",
                                  (double)s->bias[i].bias));
    return json_pack("{s:I, s:f, s:i, s:f, s:f, s:i, s:f, s:f, s:f, s:b, s:o, s:i, s:i, s:i, s:b, "
                     "s:b, s:o, s:s}",
                     "seed", (json_int_t)s->seed, "temperature", (double)s->temp, "top_k", s->top_k,
                     "top_p", (double)s->top_p, "min_p", (double)s->min_p, "repeat_last_n",
                     s->last_n, "repeat_penalty", (double)s->repeat, "presence_penalty",
                     (double)s->presence, "frequency_penalty", (double)s->frequency, "ignore_eos",
                     s->ignore_end, "stop", stops, "max_tokens", p->n_max, "n_predict", p->n_max,
                     "n_probs", p->n_top > 0 ? p->n_top : 0, "stream", p->stream, "cache_prompt",
                     p->cache_prompt, "logit_bias", bias, "grammar",
                     p->grammar ? p->grammar
                     : shaped   ? "(of the JSON schema)"
                                : "");
}
