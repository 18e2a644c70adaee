#include "head/gen_text.h"

#include <stdlib.h>
#include <string.h>

#include "base/check.h"
#include "base/mem.h"

/* A token that was not given yet; what it points to stands behind it in one block. */
struct held {
    size_t begin; /* of its text in the buffer */
    bool silent;  /* it has none */
    void *block;
};

struct gen_text {
    int n_stops;
    char *stop[GEN_STOPS_MAX];
    size_t n_stop[GEN_STOPS_MAX], longest;
    int found; /* -1: none */

    char *buf; /* [0, n_given) went out with the last take */
    size_t n, n_given, cap;

    struct gen_token *tokens; /* (n_tokens), of which n_told went out */
    struct held *held;        /* beside them */
    int n_tokens, n_told, tokens_cap;
};

struct gen_text *gen_text_new(const char *const *stops, int n_stops)
{
    struct gen_text *g = mem_zalloc(1, sizeof *g);

    CHECK(n_stops >= 0 && n_stops <= GEN_STOPS_MAX);
    g->found = -1;
    g->n_stops = n_stops;
    for (int i = 0; i < n_stops; i++) {
        g->stop[i] = mem_strdup(stops[i]);
        g->n_stop[i] = strlen(stops[i]);
        CHECK(g->n_stop[i] > 0);
        g->longest = g->n_stop[i] > g->longest ? g->n_stop[i] : g->longest;
    }
    return g;
}

void gen_text_free(struct gen_text *g)
{
    if (!g)
        return;
    for (int i = 0; i < g->n_stops; i++)
        free(g->stop[i]);
    for (int i = 0; i < g->n_tokens; i++)
        free(g->held[i].block);
    free(g->tokens);
    free(g->held);
    free(g->buf);
    free(g);
}

/* ---- what went out ---- */

static void drop_given(struct gen_text *g)
{
    for (int i = 0; i < g->n_told; i++)
        free(g->held[i].block);
    g->n_tokens -= g->n_told;
    if (g->n_told > 0 && g->n_tokens > 0) {
        memmove(g->tokens, g->tokens + g->n_told, (size_t)g->n_tokens * sizeof *g->tokens);
        memmove(g->held, g->held + g->n_told, (size_t)g->n_tokens * sizeof *g->held);
    }
    g->n_told = 0;
    if (g->n_given == 0)
        return;
    for (int i = 0; i < g->n_tokens; i++)
        g->held[i].begin -= g->n_given; /* those that have gone further went out */
    memmove(g->buf, g->buf + g->n_given, g->n - g->n_given);
    g->n -= g->n_given;
    g->n_given = 0;
}

/* ---- a new token ---- */

static void keep_token(struct gen_text *g, const struct gen_token *token, size_t n_text)
{
    size_t n_top = (size_t)token->n_top * sizeof *token->top, n_piece = (size_t)token->n_piece;
    char *block = mem_alloc(n_top + n_piece);
    struct gen_token *t;

    if (g->n_tokens == g->tokens_cap) {
        g->tokens_cap = g->tokens_cap ? 2 * g->tokens_cap : 8;
        g->tokens = mem_realloc(g->tokens, (size_t)g->tokens_cap, sizeof *g->tokens);
        g->held = mem_realloc(g->held, (size_t)g->tokens_cap, sizeof *g->held);
    }
    if (n_top > 0)
        memcpy(block, token->top, n_top);
    if (n_piece > 0)
        memcpy(block + n_top, token->piece, n_piece);
    g->held[g->n_tokens] = (struct held){g->n, n_text == 0, block};
    t = &g->tokens[g->n_tokens++];
    *t = *token;
    t->top = (const struct token_prob *)(void *)block;
    t->piece = block + n_top;
}

/* The stop word that ends at byte `end`, the longest first; -1 when there is none. */
static int stop_at(const struct gen_text *g, size_t end)
{
    int best = -1;

    for (int i = 0; i < g->n_stops; i++)
        if (g->n_stop[i] <= end && (best < 0 || g->n_stop[i] > g->n_stop[best]) &&
            memcmp(g->buf + end - g->n_stop[i], g->stop[i], g->n_stop[i]) == 0)
            best = i;
    return best;
}

bool gen_text_add(struct gen_text *g, const struct gen_token *token, const char *text, size_t n)
{
    size_t end;

    CHECK(g->found < 0);
    drop_given(g);
    keep_token(g, token, n);
    if (n == 0)
        return false;
    if (g->n + n > g->cap) {
        g->cap = 2 * (g->n + n);
        g->buf = mem_realloc(g->buf, g->cap, 1);
    }
    memcpy(g->buf + g->n, text, n);
    end = g->n;
    g->n += n;
    while (g->found < 0 && end < g->n)
        g->found = stop_at(g, ++end);
    if (g->found >= 0)
        g->n = end - g->n_stop[g->found];
    return g->found >= 0;
}

/* ---- what is ready ---- */

static bool may_begin_a_stop(const struct gen_text *g, size_t at)
{
    size_t n = g->n - at;

    for (int i = 0; i < g->n_stops; i++)
        if (n < g->n_stop[i] && memcmp(g->buf + at, g->stop[i], n) == 0)
            return true;
    return false;
}

/* Where the first stop word may have begun. */
static size_t free_of_stops(const struct gen_text *g)
{
    size_t at = g->longest > g->n ? 0 : g->n + 1 - g->longest;

    if (g->n_stops == 0)
        return g->n;
    while (at < g->n && !may_begin_a_stop(g, at))
        at++;
    return at;
}

void gen_text_take(struct gen_text *g, bool all, struct gen_chunk *out)
{
    size_t ready;

    drop_given(g);
    ready = g->n;
    if (!all && g->found < 0) {
        ready = free_of_stops(g);
        ready = ready ? text_utf8_whole(g->buf, ready) : 0;
    }
    while (g->n_told < g->n_tokens) {
        const struct held *h = &g->held[g->n_told];

        if (h->silent ? h->begin > ready : h->begin >= ready)
            break;
        g->n_told++;
    }
    g->n_given = ready;
    *out = (struct gen_chunk){
        .text = ready ? g->buf : "", .n_text = ready, .n_tokens = g->n_told, .tokens = g->tokens};
}

const char *gen_text_word(const struct gen_text *g)
{
    return g->found < 0 ? NULL : g->stop[g->found];
}
