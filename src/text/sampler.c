/* Sampling: checks, the greedy choice, and llama.cpp's samplers behind one reused buffer. */
#include "text/text.h"

#include <math.h>
#include <stdlib.h>

#include "base/check.h"
#include "base/mem.h"
#include "text/text_shim.h"

struct sampler {
    int n_vocab;
    struct llama_sampler *chain;   /* NULL: greedy */
    struct llama_token_data *data; /* (n_vocab) candidates, refilled for every token */
};

/* Below this a temperature only divides logits into infinity: the choice is greedy anyway, since a
 * difference of one unit in the last place of a logit already weighs e^(10^13). */
static const float temp_min = 1e-20f;
/* Broken weights give infinities and NaN; llama.cpp's sorting and its softmax need finite numbers
 * that can be ordered. No real logit is near this. */
static const float logit_max = 1e6f;

enum err sampling_check(const struct sampling *s, struct err_text *et)
{
    if (!(s->temp >= 0) || !isfinite(s->temp))
        return err_set(et, ERR_INPUT, "temp is %g; it must be 0 (greedy) or a number above it",
                       (double)s->temp);
    if (s->top_k < 0)
        return err_set(et, ERR_INPUT, "top-k is %d; it must be 0 (all tokens) or more", s->top_k);
    if (!(s->top_p > 0 && s->top_p <= 1))
        return err_set(et, ERR_INPUT, "top-p is %g; it must be above 0 and at most 1 (all tokens)",
                       (double)s->top_p);
    if (!(s->min_p >= 0 && s->min_p <= 1))
        return err_set(et, ERR_INPUT, "min-p is %g; it must be from 0 (all tokens) to 1",
                       (double)s->min_p);
    return ERR_NONE;
}

enum err sampler_open(const struct text *t, const struct sampling *s, struct sampler **out,
                      struct err_text *et)
{
    struct sampler *p;
    enum err e = sampling_check(s, et);

    *out = NULL;
    if (e)
        return e;
    p = mem_zalloc(1, sizeof *p);
    p->n_vocab = text_n_vocab(t);
    *out = p;
    if (s->temp < temp_min)
        return ERR_NONE;
    p->data = mem_zalloc((size_t)p->n_vocab, sizeof *p->data);
    p->chain = shim_chain_new(s);
    CHECK(p->chain != NULL);
    return ERR_NONE;
}

void sampler_free(struct sampler *s)
{
    if (!s)
        return;
    if (s->chain)
        llama_sampler_free(s->chain);
    free(s->data);
    free(s);
}

static int32_t pick_greedy(const float *logits, int n)
{
    float best = -INFINITY;
    int32_t id = 0;

    for (int i = 0; i < n; i++) {
        if (logits[i] > best) {
            best = logits[i];
            id = i;
        }
    }
    return id;
}

enum err sampler_pick(struct sampler *s, const float *logits, int32_t *token,
                      struct token_prob *own, int n_top, struct token_prob *top,
                      struct err_text *et)
{
    int i;

    (void)own, (void)n_top, (void)top, (void)et;
    *token = pick_greedy(logits, s->n_vocab);
    if (!s->chain)
        return ERR_NONE;
    for (i = 0; i < s->n_vocab; i++) {
        float l = logits[i] > -logit_max ? logits[i] : -logit_max; /* NaN too */

        s->data[i].id = i;
        s->data[i].logit = l < logit_max ? l : logit_max;
        s->data[i].p = 0;
    }
    i = shim_chain_pick(s->chain, s->data, s->n_vocab);
    CHECK(i >= 0 && i < s->n_vocab);
    *token = s->data[i].id;
    return ERR_NONE;
}
