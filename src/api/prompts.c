#include "api/prompts.h"

#include <stdlib.h>
#include <string.h>

#include "api/shape.h"
#include "api/tokens.h"
#include "base/mem.h"
#include "text/text.h"

struct building {
    const struct text *t;
    struct one_prompt *out;
    struct growing text;
    int cap;
};

static void tokens_add(struct building *b, const int32_t *tokens, int n)
{
    struct one_prompt *p = b->out;

    if (p->n_tokens + n > b->cap) {
        b->cap = 2 * (p->n_tokens + n);
        p->tokens = mem_realloc(p->tokens, (size_t)b->cap, sizeof *p->tokens);
    }
    if (n)
        memcpy(p->tokens + p->n_tokens, tokens, (size_t)n * sizeof *tokens);
    p->n_tokens += n;
}

static bool words_add(struct building *b, const json_t *words, bool first, struct fault *f)
{
    const char *s = json_string_value(words);
    size_t n = json_string_length(words);
    struct err_text et;
    int32_t *tokens;
    int n_tokens;
    enum err e = text_tokenize(b->t, s, n, first, true, &tokens, &n_tokens, &et);

    if (e) {
        fault_err(f, e, et.text, false, 0);
        return false;
    }
    if (first && n_tokens && tokens[0] == text_bos(b->t) && text_adds_bos(b->t))
        b->out->bos = true;
    tokens_add(b, tokens, n_tokens);
    free(tokens);
    growing_add(&b->text, s, n);
    return true;
}

static bool id_add(struct building *b, const json_t *id, struct fault *f)
{
    json_int_t v = json_integer_value(id);
    int32_t token = (int32_t)v;
    size_t n;
    char *bytes;

    if (!json_is_integer(id) || v < 0 || v >= text_n_vocab(b->t))
        return fault_field(f, "prompt",
                           "prompt must be a string, tokens (whole numbers from 0 to %d), or an "
                           "array of such",
                           text_n_vocab(b->t) - 1);
    tokens_add(b, &token, 1);
    bytes = token_bytes(b->t, token, &n);
    growing_add(&b->text, bytes, n);
    free(bytes);
    return true;
}

/* A string, or an array of token ids and strings. */
static bool one_read(const json_t *v, const struct text *t, struct one_prompt *out, struct fault *f)
{
    struct building b = {.t = t, .out = out};
    bool fine = true;

    growing_add(&b.text, "", 0);
    if (json_is_string(v))
        fine = words_add(&b, v, true, f);
    else if (!json_is_array(v))
        fine = id_add(&b, v, f); /* which says what a prompt may be */
    for (size_t i = 0; fine && i < json_array_size(v); i++) {
        const json_t *part = json_array_get(v, i);

        fine = json_is_string(part) ? words_add(&b, part, i == 0, f) : id_add(&b, part, f);
    }
    out->text = b.text.s;
    out->n_text = b.text.n;
    return fine;
}

/* Several prompts: all of them are strings or arrays. One mixed prompt has numbers in it. */
static bool is_many(const json_t *v)
{
    for (size_t i = 0; i < json_array_size(v); i++)
        if (!json_is_string(json_array_get(v, i)) && !json_is_array(json_array_get(v, i)))
            return false;
    return json_array_size(v) > 0;
}

bool prompts_read(const json_t *v, const struct text *t, struct prompts *out, struct fault *f)
{
    *out = (struct prompts){0};
    if (!v || json_is_null(v))
        return fault_field(f, "prompt", "prompt is missing");
    out->many = is_many(v);
    if (out->many && json_array_size(v) > PROMPTS_MAX)
        return fault_field(f, "prompt", "there may be %d prompts at most", PROMPTS_MAX);
    out->n = out->many ? (int)json_array_size(v) : 1;
    out->one = mem_zalloc((size_t)out->n, sizeof *out->one);
    for (int i = 0; i < out->n; i++)
        if (!one_read(out->many ? json_array_get(v, (size_t)i) : v, t, &out->one[i], f))
            return false;
    return true;
}

void prompts_fini(struct prompts *p)
{
    for (int i = 0; i < p->n; i++) {
        free(p->one[i].tokens);
        free(p->one[i].text);
    }
    free(p->one);
    *p = (struct prompts){0};
}
