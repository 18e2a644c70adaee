#include "api/echo.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "api/shape.h"
#include "api/tokens.h"
#include "base/mem.h"

void echo_init(struct echo *e, const int32_t *tokens, int n_tokens, int n_top)
{
    *e = (struct echo){.tokens = tokens, .n_tokens = n_tokens, .n_top = n_top};
    e->own = mem_zalloc((size_t)n_tokens, sizeof *e->own);
    e->top = mem_zalloc((size_t)n_tokens * (size_t)(n_top > 0 ? n_top : 1), sizeof *e->top);
}

/* The n largest of a row, best first, the lower id on a tie. */
static void top_of(const float *row, int width, int n, struct token_prob *top)
{
    int found = 0;

    for (int id = 0; id < width; id++) {
        int at = found;

        while (at > 0 && row[id] > top[at - 1].logprob)
            at--;
        if (at == n)
            continue;
        found += found < n;
        memmove(top + at + 1, top + at, (size_t)(found - at - 1) * sizeof *top);
        top[at] = (struct token_prob){id, row[id]};
    }
}

static void row_note(struct echo *e, const float *row, int width, int at)
{
    struct token_prob *top = e->top + (size_t)at * (size_t)e->n_top;
    double own = text_logprob(row, width, e->tokens[at]), shift = (double)row[e->tokens[at]] - own;
    int n = e->n_top < width ? e->n_top : width;

    e->own[at] = (struct token_prob){e->tokens[at], (float)own};
    if (n <= 0)
        return;
    top_of(row, width, n, top);
    for (int i = 0; i < n; i++)
        top[i].logprob = (float)((double)top[i].logprob - shift);
}

void echo_rows(struct echo *e, const struct work_rows *rows)
{
    /* The row of a position is about the token that follows it. */
    for (int i = 0; i < rows->n; i++) {
        int at = rows->pos + i + 1;

        if (at < e->n_tokens && e->tokens[at] < rows->width)
            row_note(e, rows->rows + (size_t)i * (size_t)rows->width, rows->width, at);
    }
}

static void one_add(const struct echo *e, const struct text *t, int at, size_t *offset,
                    json_t *probs)
{
    size_t n;
    char *piece = token_bytes(t, e->tokens[at], &n);
    const struct gen_token token = {.id = e->tokens[at],
                                    .own = e->own[at],
                                    .n_top = at ? e->n_top : 0,
                                    .top = e->top + (size_t)at * (size_t)e->n_top,
                                    .piece = piece,
                                    .n_piece = (int)n};

    shape_probs_add(probs, t, &token, *offset);
    if (at == 0)
        json_array_set_new(json_object_get(probs, "token_logprobs"), 0, json_null());
    for (size_t i = 0; i < n && !(at == 0 && e->bos); i++)
        *offset += ((unsigned char)piece[i] & 0xc0) != 0x80;
    free(piece);
}

json_t *echo_before(const struct echo *e, const struct text *t, json_t *answer)
{
    json_t *probs = shape_probs_new(), *list;
    size_t offset = 0;
    const char *name;

    for (int at = 0; at < e->n_tokens; at++)
        one_add(e, t, at, &offset, probs);
    json_object_foreach(answer, name, list) json_array_extend(json_object_get(probs, name), list);
    json_decref(answer);
    return probs;
}

void echo_fini(struct echo *e)
{
    free(e->own);
    free(e->top);
}
