#include "head/likelihood.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/check.h"
#include "base/mem.h"
#include "text/text.h"

/* JSON knows no infinity; nothing a model can say of a text comes near. */
#define LOGPROB_LEAST (-1e9)

/* ---- the texts ---- */

enum hole { HOLE_NONE, HOLE_INPUT, HOLE_LABEL, HOLE_LABELS };

static const struct {
    const char *word;
    enum hole hole;
} holes[] = {{"{input}", HOLE_INPUT}, {"{label}", HOLE_LABEL}, {"{labels}", HOLE_LABELS}};

/* The hole that begins at s, and its length. */
static enum hole hole_at(const char *s, size_t *n)
{
    for (size_t i = 0; *s == '{' && i < ARRAY_LEN(holes); i++) {
        *n = strlen(holes[i].word);
        if (strncmp(s, holes[i].word, *n) == 0)
            return holes[i].hole;
    }
    return HOLE_NONE;
}

static enum err template_check(const char *s, struct err_text *et)
{
    int n_input = 0, n_label = 0;
    size_t n;

    if (strlen(s) > LIKELIHOOD_TEMPLATE_MAX)
        return err_set(et, ERR_LIMIT, "a template has at most %d bytes", LIKELIHOOD_TEMPLATE_MAX);
    for (; *s; s++) {
        enum hole hole = hole_at(s, &n);

        n_input += hole == HOLE_INPUT;
        n_label += hole == HOLE_LABEL;
    }
    if (!n_input)
        return err_set(et, ERR_INPUT, "the template has no {input}, where the text belongs");
    if (n_label != 1)
        return err_set(et, ERR_INPUT,
                       "the template has {label} %d times; it takes one, where the answer belongs",
                       n_label);
    return ERR_NONE;
}

/* What fills the holes. label NULL: the text ends where the label would begin. */
struct filling {
    const char *input, *label, *labels;
    size_t n_input, n_label, n_labels;
};

/* Bytes that go into a hole; *end: nothing comes behind. */
static const char *filling_of(const struct filling *f, enum hole hole, size_t *n, bool *end)
{
    *end = hole == HOLE_LABEL && !f->label;
    *n = hole == HOLE_INPUT    ? f->n_input
         : hole == HOLE_LABELS ? f->n_labels
         : f->label            ? f->n_label
                               : 0;
    return hole == HOLE_INPUT ? f->input : hole == HOLE_LABELS ? f->labels : f->label;
}

/* Writes the text to out, or with out NULL only counts its bytes. Holes in what fills a hole are
 * text. */
static size_t text_fill(const char *template, const struct filling *f, char *out)
{
    size_t n = 0, n_hole, n_part;
    bool end = false;

    for (const char *s = template; *s && !end; s += n_hole) {
        enum hole hole = hole_at(s, &n_hole);
        const char *part = s;

        if (hole == HOLE_NONE)
            n_hole = n_part = 1;
        else
            part = filling_of(f, hole, &n_part, &end);
        if (out && n_part)
            memcpy(out + n, part, n_part);
        n += n_part;
    }
    return n;
}

static enum err text_tokens(const struct likelihood_ask *ask, const struct filling *f,
                            int32_t **tokens, int *n_tokens, struct err_text *et)
{
    const char *template = ask->template ? ask->template : LIKELIHOOD_TEMPLATE;
    size_t n = text_fill(template, f, NULL);
    char *text;
    enum err e;

    *tokens = NULL;
    if (n > TEXT_BYTES_MAX)
        return err_set(et, ERR_LIMIT, "the text has %zu bytes; at most %d are read", n,
                       TEXT_BYTES_MAX);
    text = mem_alloc(n + 1);
    text_fill(template, f, text);
    text[n] = '\0';
    e = ask->tokenize(ask->user, text, n, tokens, n_tokens, et);
    free(text);
    return e;
}

/* ---- the labels ---- */

static enum err labels_check(const struct likelihood_ask *ask, struct err_text *et)
{
    if (ask->n_labels < 1)
        return err_set(et, ERR_INPUT, "there are no labels to choose from");
    if (ask->n_labels > LIKELIHOOD_LABELS_MAX)
        return err_set(et, ERR_LIMIT, "%d labels; at most %d can be told apart at once",
                       ask->n_labels, LIKELIHOOD_LABELS_MAX);
    for (int i = 0; i < ask->n_labels; i++) {
        json_t *text = json_string(ask->labels[i]);

        json_decref(text);
        if (!text)
            return err_set(et, ERR_INPUT, "label %d is not UTF-8", i);
        if (!*ask->labels[i])
            return err_set(et, ERR_INPUT, "label %d is empty", i);
        for (int j = 0; j < i; j++)
            if (strcmp(ask->labels[i], ask->labels[j]) == 0)
                return err_set(et, ERR_INPUT, "label %d is the same as label %d", i, j);
    }
    return ERR_NONE;
}

/* "a, b, c". gives the text: free(). */
static char *labels_join(const struct likelihood_ask *ask, size_t *n_joined)
{
    size_t n = 1, k = 0;
    char *text;

    for (int i = 0; i < ask->n_labels; i++)
        n += strlen(ask->labels[i]) + 2;
    text = mem_alloc(n);
    for (int i = 0; i < ask->n_labels; i++) {
        size_t len = strlen(ask->labels[i]);

        memcpy(text + k, i ? ", " : "", i ? 2 : 0);
        k += i ? 2 : 0;
        memcpy(text + k, ask->labels[i], len);
        k += len;
    }
    text[k] = '\0';
    *n_joined = k;
    return text;
}

static int common(const int32_t *a, int n_a, const int32_t *b, int n_b)
{
    int n = 0;

    while (n < n_a && n < n_b && a[n] == b[n])
        n++;
    return n;
}

/* Every text is tokenised whole, since a tokeniser may join the end of the prompt with the
 * beginning of a label; what none of them changes of the prompt's own tokens is shared. */
static enum err labels_read(struct likelihood *l, const struct likelihood_ask *ask,
                            struct filling *f, struct err_text *et)
{
    int32_t *prompt;
    enum err e;

    f->label = NULL;
    e = text_tokens(ask, f, &prompt, &l->n_shared, et);
    if (!e && l->n_shared > ask->n_ctx)
        e = err_set(et, ERR_LIMIT,
                    "the text has %d tokens with its template, but the context holds %d",
                    l->n_shared, ask->n_ctx);
    for (int i = 0; !e && i < l->n_labels; i++) {
        struct likelihood_label *one = &l->label[i];
        int n;

        f->label = one->name;
        f->n_label = strlen(one->name);
        e = text_tokens(ask, f, &one->tokens, &one->n_tokens, et);
        if (e)
            break;
        n = common(prompt, l->n_shared, one->tokens, one->n_tokens);
        l->n_shared = n < one->n_tokens ? n : one->n_tokens - 1;
        if (one->n_tokens - 1 > ask->n_ctx)
            e = err_set(et, ERR_LIMIT,
                        "the text has %d tokens with its template and the label \"%s\", but the "
                        "context holds %d",
                        one->n_tokens, one->name, ask->n_ctx);
    }
    free(prompt);
    if (!e && l->n_shared < 1)
        e = err_set(et, ERR_INPUT,
                    "nothing stands in front of the label: this model has no start token, so the "
                    "template has to begin with some text");
    return e;
}

/* Whether b's run gives all the rows that a's needs, too. */
static bool carries(const struct likelihood *l, int a, int b)
{
    const struct likelihood_label *one = &l->label[a], *other = &l->label[b];
    int n = one->n_tokens - 1 - l->n_shared;

    return other->n_tokens >= one->n_tokens &&
           (n <= 0 || memcmp(one->tokens + l->n_shared, other->tokens + l->n_shared,
                             (size_t)n * sizeof *one->tokens) == 0);
}

/* The longest text that carries a label is carried by none but itself, so one pass finds all. */
static void runs_find(struct likelihood *l)
{
    l->run = mem_zalloc((size_t)l->n_labels, sizeof *l->run);
    for (int i = 0; i < l->n_labels; i++) {
        int best = i;

        for (int j = 0; j < l->n_labels; j++)
            if (carries(l, i, j) && (l->label[j].n_tokens > l->label[best].n_tokens ||
                                     (l->label[j].n_tokens == l->label[best].n_tokens && j < best)))
                best = j;
        l->label[i].run = best; /* a label's number, until the next loop */
        if (best == i)
            l->run[l->n_runs++] = i;
    }
    for (int i = 0; i < l->n_labels; i++)
        for (int r = 0; r < l->n_runs; r++)
            if (l->run[r] == l->label[i].run) {
                l->label[i].run = r;
                break;
            }
}

enum err likelihood_init(struct likelihood *l, const struct likelihood_ask *ask,
                         struct err_text *et)
{
    const char *template = ask->template ? ask->template : LIKELIHOOD_TEMPLATE;
    struct filling f = {.input = ask->input, .n_input = ask->n_input};
    char *joined;
    enum err e = template_check(template, et);

    memset(l, 0, sizeof *l);
    if (!e)
        e = labels_check(ask, et);
    if (e)
        return e;
    f.labels = joined = labels_join(ask, &f.n_labels);
    /* Each label costs the tokenising of a whole text. */
    f.label = "";
    if (text_fill(template, &f, NULL) > (size_t)TEXT_BYTES_MAX / (size_t)ask->n_labels)
        e = err_set(et, ERR_LIMIT,
                    "a text of %zu bytes is too long for %d labels: at most %d bytes in all",
                    ask->n_input, ask->n_labels, TEXT_BYTES_MAX);
    if (!e) {
        l->n_labels = ask->n_labels;
        l->label = mem_zalloc((size_t)l->n_labels, sizeof *l->label);
        for (int i = 0; i < l->n_labels; i++)
            l->label[i].name = mem_strdup(ask->labels[i]);
        e = labels_read(l, ask, &f, et);
    }
    free(joined);
    if (e)
        likelihood_fini(l);
    else
        runs_find(l);
    return e;
}

void likelihood_fini(struct likelihood *l)
{
    for (int i = 0; i < l->n_labels; i++) {
        free(l->label[i].name);
        free(l->label[i].tokens);
    }
    free(l->label);
    free(l->run);
    memset(l, 0, sizeof *l);
}

/* ---- the scores ---- */

const int32_t *likelihood_run(const struct likelihood *l, int run, int *n_tokens)
{
    const struct likelihood_label *of = &l->label[l->run[run]];

    *n_tokens = of->n_tokens - 1;
    return of->tokens;
}

/* Every label of a run asks the same row: its sum is made once. */
static double row_norm(const float *row, int n_vocab)
{
    int best = 0;

    for (int i = 1; i < n_vocab; i++)
        best = row[i] > row[best] ? i : best;
    return (double)row[best] - text_logprob(row, n_vocab, best);
}

void likelihood_rows(struct likelihood *l, int run, const float *rows, int pos, int n, int n_vocab)
{
    for (int k = 0; k < n; k++) {
        const float *row = rows + (size_t)k * (size_t)n_vocab;
        int next = pos + k + 1; /* the position this row speaks of */
        double norm = 0;
        bool has_norm = false;

        for (int i = 0; i < l->n_labels; i++) {
            struct likelihood_label *one = &l->label[i];

            if (one->run != run || next >= one->n_tokens || next - l->n_shared != one->n_scored)
                continue;
            CHECK(one->tokens[next] >= 0 && one->tokens[next] < n_vocab);
            norm = has_norm ? norm : row_norm(row, n_vocab);
            has_norm = true;
            one->logprob += (double)row[one->tokens[next]] - norm;
            one->n_scored++;
        }
    }
}

static void softmax(struct likelihood *l, double (*score)(const struct likelihood_label *),
                    void (*put)(struct likelihood_label *, double))
{
    double most = -INFINITY, sum = 0;

    for (int i = 0; i < l->n_labels; i++)
        most = fmax(most, score(&l->label[i]));
    for (int i = 0; i < l->n_labels; i++)
        sum += exp(score(&l->label[i]) - most);
    for (int i = 0; i < l->n_labels; i++)
        put(&l->label[i], exp(score(&l->label[i]) - most) / sum);
}

static double score_sum(const struct likelihood_label *of)
{
    return of->logprob;
}

static double score_mean(const struct likelihood_label *of)
{
    return of->mean;
}

static void put_sum(struct likelihood_label *of, double p)
{
    of->p = p;
}

static void put_mean(struct likelihood_label *of, double p)
{
    of->p_mean = p;
}

int likelihood_settle(struct likelihood *l)
{
    int best = 0;

    for (int i = 0; i < l->n_labels; i++) {
        struct likelihood_label *one = &l->label[i];

        CHECK(one->n_scored == one->n_tokens - l->n_shared);
        if (!(one->logprob > LOGPROB_LEAST)) /* NaN, too: broken weights */
            one->logprob = LOGPROB_LEAST;
        one->mean = one->logprob / one->n_scored;
        if (one->logprob > l->label[best].logprob)
            best = i;
    }
    softmax(l, score_sum, put_sum);
    softmax(l, score_mean, put_mean);
    return best;
}

int likelihood_n_scored(const struct likelihood *l)
{
    int n = 0;

    for (int i = 0; i < l->n_labels; i++)
        n += l->label[i].n_tokens - l->n_shared;
    return n;
}

json_t *likelihood_json(const struct likelihood *l)
{
    json_t *labels = json_array(), *o;
    int best = 0;

    for (int i = 0; i < l->n_labels; i++) {
        const struct likelihood_label *one = &l->label[i];

        o = json_pack("{s:s, s:f, s:f, s:f, s:f, s:i}", "label", one->name, "logprob", one->logprob,
                      "probability", one->p, "mean_logprob", one->mean, "mean_probability",
                      one->p_mean, "tokens", one->n_scored);
        CHECK(o);
        json_array_append_new(labels, o);
        if (one->logprob > l->label[best].logprob)
            best = i;
    }
    return json_pack("{s:s, s:o}", "label", l->label[best].name, "labels", labels);
}
