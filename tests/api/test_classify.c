/* Likelihoods of labels against the same sums made the long way, with a made-up tokeniser and a
 * made-up model: what is shared, what rides on what, and what is refused. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/mem.h"
#include "head/likelihood.h"

/* Bytes are tokens, but a space and the byte behind it are one, as word pieces are. */
enum { START = 256, SPACED = 300, N_VOCAB = SPACED + 256, TOKENS_MAX = 1024 };

struct words {
    bool no_start;
    int n_asked;
};

static enum err tokenize(void *user, const char *s, size_t n, int32_t **tokens, int *n_tokens,
                         struct err_text *et)
{
    struct words *w = user;
    int32_t *list = mem_alloc((n + 1) * sizeof *list);
    int k = 0;

    w->n_asked++;
    if (!w->no_start)
        list[k++] = START;
    for (size_t i = 0; i < n; i++)
        if (s[i] == ' ' && i + 1 < n)
            list[k++] = SPACED + (unsigned char)s[++i];
        else
            list[k++] = (unsigned char)s[i];
    *tokens = list;
    *n_tokens = k;
    return ERR_NONE;
}

/* What the model thinks of all tokens before `at`: any function of them will do. */
static void model_row(const int32_t *tokens, int at, float *row)
{
    uint64_t x = 88172645463325252u;

    for (int i = 0; i < at; i++)
        x = (x ^ (uint64_t)tokens[i]) * 1099511628211u;
    for (int i = 0; i < N_VOCAB; i++) {
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        row[i] = (float)(x % 10000) / 1000.0f - 3.0f;
    }
}

static double long_way(const int32_t *tokens, int from, int n)
{
    float row[N_VOCAB];
    double sum = 0, all;

    for (int at = from; at < n; at++) {
        model_row(tokens, at, row);
        all = 0;
        for (int i = 0; i < N_VOCAB; i++)
            all += exp((double)row[i]);
        sum += (double)row[tokens[at]] - log(all);
    }
    return sum;
}

/* Every run's rows, `piece` at a time; the first of each piece come twice, as after a device's
 * loss. */
static void judge(struct likelihood *l, int piece)
{
    float *rows = mem_alloc((size_t)piece * N_VOCAB * sizeof *rows);

    for (int r = 0; r < l->n_runs; r++) {
        int n_tokens;
        const int32_t *tokens = likelihood_run(l, r, &n_tokens);

        for (int pos = l->n_shared - 1; pos < n_tokens; pos += piece) {
            int n = n_tokens - pos < piece ? n_tokens - pos : piece;

            for (int k = 0; k < n; k++)
                model_row(tokens, pos + k + 1, rows + (size_t)k * N_VOCAB);
            likelihood_rows(l, r, rows, pos, 1, N_VOCAB);
            likelihood_rows(l, r, rows, pos, n, N_VOCAB);
        }
    }
    free(rows);
}

static struct likelihood_ask ask_of(struct words *w, const char *template, const char *input,
                                    const char *const *labels, int n_labels)
{
    return (struct likelihood_ask){.template = template,
                                   .input = input,
                                   .n_input = strlen(input),
                                   .labels = labels,
                                   .n_labels = n_labels,
                                   .n_ctx = TOKENS_MAX,
                                   .tokenize = tokenize,
                                   .user = w};
}

static void init(struct likelihood *l, const struct likelihood_ask *ask)
{
    struct err_text et;

    if (likelihood_init(l, ask, &et))
        fail_msg("%s", et.text);
}

/* The text of tokens. */
static void spell(const int32_t *tokens, int n, char *out)
{
    for (int i = 0; i < n; i++)
        if (tokens[i] >= SPACED) {
            *out++ = ' ';
            *out++ = (char)(tokens[i] - SPACED);
        } else if (tokens[i] != START) {
            *out++ = (char)tokens[i];
        }
    *out = '\0';
}

static void expect_text(const struct likelihood_label *one, const char *wanted)
{
    char text[2 * TOKENS_MAX];

    spell(one->tokens, one->n_tokens, text);
    assert_string_equal(text, wanted);
}

/* ---- the tests ---- */

static void test_arithmetic(void **state)
{
    static const char *const labels[] = {"good", "bad", "good enough", "g", "indifferent"};
    struct words w = {0};
    struct likelihood_ask ask = ask_of(&w, NULL, "a fine day", labels, 5);
    double logprob[5], sum = 0, sum_mean = 0, all = 0, all_mean = 0;
    struct likelihood l;
    int best = 0;

    init(&l, &ask);
    judge(&l, 3);
    assert_int_equal(l.n_labels, 5);
    for (int i = 0; i < 5; i++) {
        logprob[i] = long_way(l.label[i].tokens, l.n_shared, l.label[i].n_tokens);
        all += exp(logprob[i]);
        all_mean += exp(logprob[i] / (l.label[i].n_tokens - l.n_shared));
        best = logprob[i] > logprob[best] ? i : best;
    }
    assert_int_equal(likelihood_settle(&l), best);
    for (int i = 0; i < 5; i++) {
        const struct likelihood_label *one = &l.label[i];

        assert_true(fabs(one->logprob - logprob[i]) < 1e-4);
        assert_true(fabs(one->mean - logprob[i] / one->n_scored) < 1e-4);
        assert_true(fabs(one->p - exp(logprob[i]) / all) < 1e-4);
        assert_true(fabs(one->p_mean - exp(one->mean) / all_mean) < 1e-4);
        sum += one->p;
        sum_mean += one->p_mean;
    }
    assert_true(fabs(sum - 1) < 1e-9 && fabs(sum_mean - 1) < 1e-9);
    likelihood_fini(&l);
}

/* The chunks that rows come in change no bit. */
static void test_chunks(void **state)
{
    static const char *const labels[] = {"one", "another", "a third"};
    struct words w = {0};
    struct likelihood_ask ask = ask_of(&w, NULL, "x", labels, 3);
    struct likelihood a, b;

    init(&a, &ask);
    init(&b, &ask);
    judge(&a, 1);
    judge(&b, 64);
    likelihood_settle(&a);
    likelihood_settle(&b);
    for (int i = 0; i < 3; i++)
        assert_true(a.label[i].logprob == b.label[i].logprob);
    likelihood_fini(&a);
    likelihood_fini(&b);
}

/* A tokeniser joins the prompt's last blank with the label: that token is the label's. */
static void test_shared(void **state)
{
    static const char *const labels[] = {"yes", "no"};
    struct words w = {0};
    struct likelihood_ask ask = ask_of(&w, "{input}? {label}", "Is it", labels, 2);
    struct likelihood l;
    char text[64];

    init(&l, &ask);
    expect_text(&l.label[0], "Is it? yes");
    spell(l.label[0].tokens, l.n_shared, text);
    assert_string_equal(text, "Is it?");
    assert_int_equal(l.label[0].n_tokens - l.n_shared, 3); /* " y", "e", "s" */
    assert_int_equal(likelihood_n_scored(&l), 5);
    likelihood_fini(&l);
}

/* Holes in what fills a hole are text; other braces, too. */
static void test_template(void **state)
{
    static const char *const labels[] = {"{input}", "b"};
    struct words w = {0};
    struct likelihood_ask ask =
        ask_of(&w, "{x}{{labels}} {input}{input}:{label}.", "{label}", labels, 2);
    struct likelihood l;

    init(&l, &ask);
    expect_text(&l.label[0], "{x}{{input}, b} {label}{label}:{input}.");
    expect_text(&l.label[1], "{x}{{input}, b} {label}{label}:b.");
    likelihood_fini(&l);
    ask = ask_of(&w, NULL, "text", labels, 2);
    init(&l, &ask);
    expect_text(&l.label[1], "Text: text\nLabels: {input}, b\nLabel: b");
    likelihood_fini(&l);
}

/* With the label in front, what is scored is the text it leads to. */
static void test_label_first(void **state)
{
    static const char *const labels[] = {"sad", "happy"};
    struct words w = {0};
    struct likelihood_ask ask = ask_of(&w, "A {label} text: {input}", "it rains", labels, 2);
    struct likelihood l;

    init(&l, &ask);
    expect_text(&l.label[1], "A happy text: it rains");
    judge(&l, 4);
    likelihood_settle(&l);
    assert_int_equal(l.n_shared, 2); /* the start, and "A" */
    assert_true(fabs(l.label[1].logprob - long_way(l.label[1].tokens, 2, l.label[1].n_tokens)) <
                1e-3);
    likelihood_fini(&l);
}

static void test_runs(void **state)
{
    static const char *const labels[] = {"a", "ab", "abc", "x", "xyz", "abd"};
    static const char *const single[] = {"a", "b", "c", "d"};
    struct words w = {0};
    struct likelihood_ask ask = ask_of(&w, "{input} {label}", "i", labels, 6);
    struct likelihood l;
    int n;

    init(&l, &ask);
    assert_int_equal(l.n_runs, 2); /* "ab" and "xy" are read; the rest are their beginnings */
    assert_int_equal(l.run[0], 2);
    assert_int_equal(l.run[1], 4);
    assert_int_equal(l.label[0].run, 0);
    assert_int_equal(l.label[5].run, 0);
    assert_int_equal(l.label[4].run, 1);
    judge(&l, 2);
    likelihood_settle(&l);
    for (int i = 0; i < 6; i++)
        assert_true(fabs(l.label[i].logprob -
                         long_way(l.label[i].tokens, l.n_shared, l.label[i].n_tokens)) < 1e-4);
    likelihood_fini(&l);

    ask = ask_of(&w, "{input} {label}", "i", single, 4);
    init(&l, &ask);
    assert_int_equal(l.n_runs, 1);
    likelihood_run(&l, 0, &n);
    assert_int_equal(n, l.n_shared);
    likelihood_fini(&l);
}

/* A single label is certain, and still scored. */
static void test_single(void **state)
{
    static const char *const labels[] = {"only"};
    struct words w = {0};
    struct likelihood_ask ask = ask_of(&w, NULL, "", labels, 1);
    struct likelihood l;

    init(&l, &ask);
    judge(&l, 8);
    assert_int_equal(likelihood_settle(&l), 0);
    assert_true(l.label[0].p == 1 && l.label[0].logprob < 0);
    likelihood_fini(&l);
}

/* Damaged weights: no figure that JSON cannot hold, and no crash. */
static void test_not_finite(void **state)
{
    static const char *const labels[] = {"a", "b"};
    struct words w = {0};
    struct likelihood_ask ask = ask_of(&w, NULL, "x", labels, 2);
    float row[N_VOCAB];
    struct likelihood l;
    char *text;
    json_t *o;

    for (int i = 0; i < N_VOCAB; i++)
        row[i] = NAN;
    init(&l, &ask);
    likelihood_rows(&l, 0, row, l.n_shared - 1, 1, N_VOCAB);
    likelihood_settle(&l);
    o = likelihood_json(&l);
    assert_non_null(o);
    text = json_dumps(o, 0);
    assert_non_null(text);
    assert_true(l.label[0].p == 0.5);
    free(text);
    json_decref(o);
    likelihood_fini(&l);
}

static void test_json(void **state)
{
    static const char *const labels[] = {"gr\xc3\xbcn", "rot"};
    struct words w = {0};
    struct likelihood_ask ask = ask_of(&w, NULL, "Gras", labels, 2);
    struct likelihood l;
    json_t *o, *list;
    int best;

    init(&l, &ask);
    judge(&l, 8);
    best = likelihood_settle(&l);
    o = likelihood_json(&l);
    list = json_object_get(o, "labels");
    assert_string_equal(json_string_value(json_object_get(o, "label")), labels[best]);
    assert_int_equal(json_array_size(list), 2);
    for (size_t i = 0; i < 2; i++) {
        const json_t *one = json_array_get(list, i);

        assert_string_equal(json_string_value(json_object_get(one, "label")), labels[i]);
        assert_true(json_number_value(json_object_get(one, "probability")) == l.label[i].p);
        assert_true(json_number_value(json_object_get(one, "logprob")) == l.label[i].logprob);
        assert_true(json_integer_value(json_object_get(one, "tokens")) == l.label[i].n_scored);
    }
    json_decref(o);
    likelihood_fini(&l);
}

static void refused(const struct likelihood_ask *ask, enum err wanted, const char *words)
{
    struct likelihood l;
    struct err_text et = {{0}};
    enum err e = likelihood_init(&l, ask, &et);

    if (e != wanted || !strstr(et.text, words))
        fail_msg("error %d, \"%s\"; wanted %d with \"%s\"", e, et.text, wanted, words);
    assert_null(l.label);
    likelihood_fini(&l);
}

static void test_refused(void **state)
{
    static const char *const fine[] = {"a", "b"}, *const twice[] = {"a", "b", "a"};
    static const char *const empty[] = {"a", ""}, *const bad[] = {"\xff"};
    const char *many[LIKELIHOOD_LABELS_MAX + 1];
    struct words w = {0};
    struct likelihood_ask ask = ask_of(&w, "{label}", "text", fine, 2);
    char *text;

    refused(&ask, ERR_INPUT, "no {input}");
    ask.template = "{input}";
    refused(&ask, ERR_INPUT, "{label} 0 times");
    ask.template = "{input}{label}{label}";
    refused(&ask, ERR_INPUT, "{label} 2 times");
    ask.template = NULL;
    ask.n_labels = 0;
    refused(&ask, ERR_INPUT, "no labels");
    ask = ask_of(&w, NULL, "text", twice, 3);
    refused(&ask, ERR_INPUT, "label 2 is the same as label 0");
    ask = ask_of(&w, NULL, "text", empty, 2);
    refused(&ask, ERR_INPUT, "label 1 is empty");
    ask = ask_of(&w, NULL, "text", bad, 1);
    refused(&ask, ERR_INPUT, "UTF-8");
    for (size_t i = 0; i < ARRAY_LEN(many); i++)
        many[i] = "x";
    ask = ask_of(&w, NULL, "text", many, LIKELIHOOD_LABELS_MAX + 1);
    refused(&ask, ERR_LIMIT, "257 labels");
    ask = ask_of(&w, "{label}: {input}", "text", fine, 2);
    w.no_start = true;
    refused(&ask, ERR_INPUT, "no start token");
    w.no_start = false;
    assert_true(w.n_asked > 0);

    /* Too long a text: both numbers are named, and no label is looked at. */
    text = mem_alloc(TOKENS_MAX + 1);
    memset(text, 'x', TOKENS_MAX);
    text[TOKENS_MAX] = '\0';
    ask = ask_of(&w, "{input}{label}", text, fine, 2);
    w.n_asked = 0;
    refused(&ask, ERR_LIMIT, "has 1025 tokens with its template, but the context holds 1024");
    assert_int_equal(w.n_asked, 1);
    text[TOKENS_MAX - 1] = '\0'; /* now all but the last token of the label fits */
    ask = ask_of(&w, "{input}{label}", text, fine, 2);
    {
        struct likelihood l;

        init(&l, &ask);
        likelihood_fini(&l);
    }
    ask.template = "{input}{label}!";
    refused(&ask, ERR_LIMIT, "the label \"a\"");
    free(text);
}

/* Many labels times much text: the tokeniser is not even asked. */
static void test_much(void **state)
{
    enum { BYTES = 8 << 20 };
    static const char *const labels[] = {"a", "b", "c"};
    struct words w = {0};
    char *text = mem_alloc(BYTES + 1);
    struct likelihood_ask ask;

    memset(text, 'x', BYTES);
    text[BYTES] = '\0';
    ask = ask_of(&w, "{label}{input}", text, labels, 3);
    refused(&ask, ERR_LIMIT, "too long for 3 labels");
    assert_int_equal(w.n_asked, 0);
    free(text);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_arithmetic),  cmocka_unit_test(test_chunks),
        cmocka_unit_test(test_shared),      cmocka_unit_test(test_template),
        cmocka_unit_test(test_label_first), cmocka_unit_test(test_runs),
        cmocka_unit_test(test_single),      cmocka_unit_test(test_not_finite),
        cmocka_unit_test(test_json),        cmocka_unit_test(test_refused),
        cmocka_unit_test(test_much),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
