/* Sampling: checks, bias and penalties, the greedy choice, llama.cpp's samplers behind one reused
 * buffer, and the grammar's word on the choice. */
#include "text/text.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/check.h"
#include "base/mem.h"
#include "text/text_shim.h"

/* The last tokens and how often each stands among them. */
struct history {
    uint32_t *count; /* (n_vocab); NULL: nobody asks */
    int32_t *last;   /* (cap) a ring; NULL: nothing is ever forgotten */
    int cap, n, next;
};

struct sampler {
    int n_vocab;
    const struct llama_vocab *vocab; /* borrowed from the text */
    struct sampling set;             /* without bias and grammar */
    bool plain;                      /* greedy, on the logits as they are */
    struct llama_sampler *chain;     /* NULL: greedy */
    struct llama_token_data *data;   /* (n_vocab) candidates, refilled for every token */
    struct token_bias *bias;         /* (n_bias), end tokens with ignore_end among them */
    int n_bias;
    struct history history;
    struct shim_grammar *grammar; /* NULL: none */
};

/* Below this a temperature only divides logits into infinity: the choice is greedy anyway, since a
 * difference of one unit in the last place of a logit already weighs e^(10^13). */
static const float temp_min = 1e-20f;
/* Broken weights give infinities and NaN; llama.cpp's sorting and its softmax need finite numbers
 * that can be ordered. No real logit is near this. */
static const float logit_max = 1e6f;
/* While a lazy grammar waits, a choice can be refused only for completing a trigger with text that
 * the grammar does not allow; each round forbids one more. */
enum { ROUNDS_MAX = 64 };

static float clamp(float l)
{
    l = l > -logit_max ? l : -logit_max; /* NaN too */
    return l < logit_max ? l : logit_max;
}

static bool penalises(const struct sampling *s)
{
    return s->last_n != 0 && (s->repeat != 1 || s->frequency != 0 || s->presence != 0);
}

static enum err penalties_check(const struct sampling *s, struct err_text *et)
{
    if (s->last_n < -1 || s->last_n > SAMPLING_LAST_MAX)
        return err_set(et, ERR_INPUT,
                       "repeat-last-n is %d; it must be from 1 to %d tokens, 0 (none) or -1 (all)",
                       s->last_n, SAMPLING_LAST_MAX);
    if (s->last_n == 0)
        return ERR_NONE;
    if (!(s->repeat >= 0.01f && s->repeat <= 100))
        return err_set(et, ERR_INPUT,
                       "repeat-penalty is %g; it must be from 0.01 to 100, where 1 is none",
                       (double)s->repeat);
    if (!(fabsf(s->frequency) <= 100))
        return err_set(et, ERR_INPUT,
                       "frequency-penalty is %g; it must be from -100 to 100, where 0 is none",
                       (double)s->frequency);
    if (!(fabsf(s->presence) <= 100))
        return err_set(et, ERR_INPUT,
                       "presence-penalty is %g; it must be from -100 to 100, where 0 is none",
                       (double)s->presence);
    return ERR_NONE;
}

static enum err bias_check(const struct sampling *s, struct err_text *et)
{
    if (s->n_bias < 0 || s->n_bias > SAMPLING_BIAS_MAX)
        return err_set(et, ERR_INPUT, "logit-bias names %d tokens; %d is the most", s->n_bias,
                       SAMPLING_BIAS_MAX);
    for (int i = 0; i < s->n_bias; i++) {
        float bias = s->bias[i].bias;

        if (isnan(bias) || bias == INFINITY)
            return err_set(et, ERR_INPUT,
                           "logit-bias of token %d is %g; it must be a number, or minus infinity "
                           "to forbid the token",
                           s->bias[i].token, (double)bias);
    }
    return ERR_NONE;
}

static enum err grammar_check(const struct grammar *g, struct err_text *et)
{
    if (!g->text)
        return ERR_NONE;
    if (strnlen(g->text, (size_t)GRAMMAR_BYTES_MAX + 1) > GRAMMAR_BYTES_MAX)
        return err_set(et, ERR_LIMIT, "grammar is longer than %d KiB", GRAMMAR_BYTES_MAX >> 10);
    if (g->n_triggers < 0 || g->n_triggers > GRAMMAR_TRIGGERS_MAX)
        return err_set(et, ERR_LIMIT, "grammar has %d triggers; %d is the most", g->n_triggers,
                       GRAMMAR_TRIGGERS_MAX);
    if (g->lazy && !g->n_triggers)
        return err_set(et, ERR_INPUT, "grammar is lazy but has no trigger to begin at");
    for (int i = 0; i < g->n_triggers; i++) {
        const struct grammar_trigger *t = &g->triggers[i];

        if (t->kind == TRIGGER_TOKEN)
            continue;
        if (!t->text || !t->text[0])
            return err_set(et, ERR_INPUT, "grammar trigger %d has no text", i + 1);
        if (strnlen(t->text, (size_t)TRIGGER_BYTES_MAX + 1) > TRIGGER_BYTES_MAX)
            return err_set(et, ERR_LIMIT, "grammar trigger %d is longer than %d bytes", i + 1,
                           TRIGGER_BYTES_MAX);
    }
    return grammar_scan(g->text, et);
}

enum err sampling_check(const struct sampling *s, struct err_text *et)
{
    enum err e;

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
    e = penalties_check(s, et);
    if (!e)
        e = bias_check(s, et);
    return e ? e : grammar_check(&s->grammar, et);
}

static enum err tokens_check(const struct text *t, const struct sampling *s, struct err_text *et)
{
    const struct grammar *g = &s->grammar;

    for (int i = 0; i < s->n_bias; i++) {
        if (s->bias[i].token < 0 || s->bias[i].token >= text_n_vocab(t))
            return err_set(et, ERR_INPUT, "logit-bias names token %d; the model has tokens 0 to %d",
                           s->bias[i].token, text_n_vocab(t) - 1);
    }
    for (int i = 0; g->text && i < g->n_triggers; i++) {
        if (g->triggers[i].kind == TRIGGER_TOKEN &&
            (g->triggers[i].token < 0 || g->triggers[i].token >= text_n_vocab(t)))
            return err_set(et, ERR_INPUT,
                           "grammar trigger %d names token %d; the model has tokens 0 to %d", i + 1,
                           g->triggers[i].token, text_n_vocab(t) - 1);
    }
    return ERR_NONE;
}

static void bias_copy(struct sampler *p, const struct text *t, const struct sampling *s)
{
    int n_end = 0;

    for (int32_t id = 0; s->ignore_end && id < p->n_vocab; id++)
        n_end += text_is_end(t, id);
    p->bias = mem_zalloc((size_t)(s->n_bias + n_end), sizeof *p->bias);
    if (s->n_bias)
        memcpy(p->bias, s->bias, (size_t)s->n_bias * sizeof *p->bias);
    p->n_bias = s->n_bias;
    for (int32_t id = 0; s->ignore_end && id < p->n_vocab; id++) {
        if (text_is_end(t, id))
            p->bias[p->n_bias++] = (struct token_bias){id, -INFINITY};
    }
}

static void history_init(struct history *h, const struct sampling *s, int n_vocab)
{
    if (!penalises(s))
        return;
    h->count = mem_zalloc((size_t)n_vocab, sizeof *h->count);
    if (s->last_n > 0) {
        h->cap = s->last_n;
        h->last = mem_zalloc((size_t)h->cap, sizeof *h->last);
    }
}

static void history_add(struct history *h, int32_t token)
{
    if (!h->count)
        return;
    h->count[token]++;
    if (!h->last)
        return;
    if (h->n == h->cap)
        h->count[h->last[h->next]]--;
    else
        h->n++;
    h->last[h->next] = token;
    h->next = (h->next + 1) % h->cap;
}

/* The parts that follow from the settings alone. */
static void parts_new(struct sampler *p)
{
    if (p->set.temp >= temp_min) {
        p->chain = shim_chain_new(&p->set);
        CHECK(p->chain != NULL);
    }
    p->plain = !p->chain && !p->n_bias && !penalises(&p->set) && !p->grammar;
    if (!p->plain)
        p->data = mem_zalloc((size_t)p->n_vocab, sizeof *p->data);
    history_init(&p->history, &p->set, p->n_vocab);
}

enum err sampler_open(const struct text *t, const struct sampling *s, struct sampler **out,
                      struct err_text *et)
{
    struct sampler *p;
    enum err e = sampling_check(s, et);

    *out = NULL;
    if (!e)
        e = tokens_check(t, s, et);
    if (e)
        return e;
    p = mem_zalloc(1, sizeof *p);
    p->n_vocab = text_n_vocab(t);
    p->vocab = t->vocab;
    p->set = *s;
    p->set.n_bias = 0;
    p->set.bias = NULL;
    p->set.grammar = (struct grammar){0};
    if (s->grammar.text) {
        e = shim_grammar_new(t->vocab, &s->grammar, &p->grammar, et);
        if (e) {
            sampler_free(p);
            return e;
        }
    }
    bias_copy(p, t, s);
    parts_new(p);
    *out = p;
    return ERR_NONE;
}

void sampler_free(struct sampler *s)
{
    if (!s)
        return;
    if (s->chain)
        llama_sampler_free(s->chain);
    shim_grammar_free(s->grammar);
    free(s->history.count);
    free(s->history.last);
    free(s->bias);
    free(s->data);
    free(s);
}

struct sampler *sampler_clone(const struct sampler *s, uint32_t seed)
{
    struct sampler *p = mem_zalloc(1, sizeof *p);
    struct history *h = &p->history;

    p->n_vocab = s->n_vocab;
    p->vocab = s->vocab;
    p->set = s->set;
    p->set.seed = seed;
    p->n_bias = s->n_bias;
    p->bias = mem_zalloc((size_t)s->n_bias, sizeof *p->bias);
    if (s->n_bias)
        memcpy(p->bias, s->bias, (size_t)s->n_bias * sizeof *p->bias);
    if (s->grammar) {
        p->grammar = shim_grammar_clone(s->grammar);
        CHECK(p->grammar != NULL);
    }
    parts_new(p);
    if (h->count)
        memcpy(h->count, s->history.count, (size_t)p->n_vocab * sizeof *h->count);
    if (h->last)
        memcpy(h->last, s->history.last, (size_t)h->cap * sizeof *h->last);
    h->n = s->history.n;
    h->next = s->history.next;
    return p;
}

void sampler_prompt(struct sampler *s, const int32_t *tokens, int n)
{
    for (int i = 0; i < n; i++) {
        CHECK(tokens[i] >= 0 && tokens[i] < s->n_vocab);
        history_add(&s->history, tokens[i]);
    }
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

/* Fills data with the candidates, bias and penalties applied; returns how many there are. */
static int candidates(struct sampler *s, const float *logits)
{
    int n = 0;

    for (int i = 0; i < s->n_vocab; i++)
        s->data[i] = (struct llama_token_data){i, clamp(logits[i]), 0};
    for (int i = 0; i < s->n_bias; i++)
        s->data[s->bias[i].token].logit += s->bias[i].bias;
    for (int i = 0; s->history.count && i < s->n_vocab; i++) {
        float times = (float)s->history.count[i], *l = &s->data[i].logit;

        if (times == 0)
            continue;
        *l = *l <= 0 ? *l * s->set.repeat : *l / s->set.repeat;
        *l -= times * s->set.frequency + s->set.presence;
    }
    if (!s->n_bias && !s->history.count)
        return s->n_vocab;
    for (int i = 0; i < s->n_vocab; i++) {
        if (s->data[i].logit == -INFINITY)
            continue;
        s->data[n] = s->data[i];
        s->data[n++].logit = clamp(s->data[i].logit);
    }
    return n;
}

/* One of the n candidates. */
static int32_t choose(struct sampler *s, int n)
{
    int best = 0;

    if (s->chain) {
        best = shim_chain_pick(s->chain, s->data, n);
        CHECK(best >= 0 && best < n);
    } else {
        for (int i = 1; i < n; i++) {
            if (s->data[i].logit > s->data[best].logit)
                best = i;
        }
    }
    return s->data[best].id;
}

static enum err pick(struct sampler *s, const float *logits, int32_t *token, struct err_text *et)
{
    bool yes = true;
    enum err e;

    for (int round = 0; round < ROUNDS_MAX; round++) {
        int n = candidates(s, logits);

        if (n == 0)
            return err_set(et, ERR_INPUT, "logit-bias and ignore-end forbid every token");
        if (round > 0) {
            e = shim_grammar_mask(s->grammar, s->data, &n, et);
            if (e)
                return e;
            if (n == 0)
                break;
        }
        *token = choose(s, n);
        if (s->grammar) {
            e = shim_grammar_allows(s->grammar, *token, &yes, et);
            if (e)
                return e;
        }
        if (yes)
            return ERR_NONE;
    }
    return err_set(et, ERR_INPUT, "the grammar allows none of the tokens that may come here");
}

/* log of the sum of exp(logits). */
static double log_sum(const float *logits, int n)
{
    float max = -logit_max;
    double sum = 0;

    for (int i = 0; i < n; i++)
        max = clamp(logits[i]) > max ? clamp(logits[i]) : max;
    for (int i = 0; i < n; i++)
        sum += exp((double)(clamp(logits[i]) - max));
    return (double)max + log(sum);
}

double text_logprob(const float *logits, int n_vocab, int32_t token)
{
    return (double)clamp(logits[token]) - log_sum(logits, n_vocab);
}

static void probabilities(const struct sampler *s, const float *logits, struct token_prob *own,
                          int n_top, struct token_prob *top)
{
    double sum = log_sum(logits, s->n_vocab);
    int n = 0;

    if (own)
        own->logprob = (float)((double)clamp(logits[own->token]) - sum);
    for (int32_t id = 0; n_top > 0 && id < s->n_vocab; id++) {
        float p = (float)((double)clamp(logits[id]) - sum);
        int at = n;

        if (n == n_top && p <= top[n - 1].logprob)
            continue;
        while (at > 0 && top[at - 1].logprob < p)
            at--;
        n += n < n_top;
        memmove(top + at + 1, top + at, (size_t)(n - 1 - at) * sizeof *top);
        top[at] = (struct token_prob){id, p};
    }
    for (; n < n_top; n++) /* more asked for than there are tokens */
        top[n] = (struct token_prob){-1, -INFINITY};
}

enum err sampler_pick(struct sampler *s, const float *logits, int32_t *token,
                      struct token_prob *own, int n_top, struct token_prob *top,
                      struct err_text *et)
{
    enum err e;

    CHECK(n_top >= 0 && n_top <= SAMPLING_TOP_MAX);
    *token = 0;
    if (s->plain) {
        *token = pick_greedy(logits, s->n_vocab);
    } else {
        e = pick(s, logits, token, et);
        if (!e && s->grammar)
            e = shim_grammar_accept(s->grammar, *token, et);
        if (e)
            return e;
        history_add(&s->history, *token);
    }
    if (own)
        own->token = *token;
    if (own || n_top)
        probabilities(s, logits, own, n_top, top);
    return ERR_NONE;
}
