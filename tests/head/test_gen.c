/* Generations over whole clusters in this process: the same tokens as a session of one device gives,
 * however many are at it; stop words, ends, rows, refusals and losses. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <cmocka.h>

#include "base/mem.h"
#include "head/gen.h"
#include "support/tiny_model.h"
#include "support/town.h"

enum { CTX = 128, N_PROMPT = 40, N_ANSWER = 24, TEXT_MAX = 8192, MANY = 8, WAIT_S = 60 };

static char model_path[256];
static int32_t prompt[N_PROMPT];
static int n_vocab;

/* What a session of one device answers: tokens, where the text of each begins, logits. */
static struct {
    int32_t ids[N_ANSWER];
    size_t begin[N_ANSWER + 1];
    char text[TEXT_MAX];
    float *logits; /* (N_PROMPT, n_vocab) */
} truth;

/* ---- what one device says ---- */

/* A token's bytes, as tiny_put_vocab has them. */
static size_t spell(int32_t id, char *out)
{
    if (id >= 259)
        return (size_t)sprintf(out, "t%d", (int)id);
    *out = (char)(id - 3);
    return id >= 3;
}

static void read_truth(struct ll_engine *engine)
{
    struct ll_sampling greedy = {.temp = 0, .top_p = 1};
    struct ll_session *s;
    struct ll_error error;
    const float *logits;

    assert_int_equal(ll_session_open(engine, &greedy, &s, &error), LL_OK);
    assert_int_equal(ll_session_add_tokens(s, prompt, N_PROMPT, &error), LL_OK);
    assert_int_equal(ll_session_read(s, N_PROMPT, &logits, &error), LL_OK);
    truth.logits = mem_alloc((size_t)N_PROMPT * (size_t)n_vocab * sizeof *logits);
    memcpy(truth.logits, logits, (size_t)N_PROMPT * (size_t)n_vocab * sizeof *logits);
    for (int i = 0; i < N_ANSWER; i++) {
        struct ll_token t;

        if (ll_session_next(s, &t, &error))
            fail_msg("this model and prompt end after %d tokens: %s", i, error.message);
        truth.ids[i] = t.id;
        truth.begin[i + 1] = truth.begin[i] + spell(t.id, truth.text + truth.begin[i]);
    }
    ll_session_close(s);
}

static int make_truth(void **state)
{
    struct ll_engine_opts opts = ll_engine_defaults();
    struct tiny_rng rng = {3};
    struct ll_engine *engine;
    struct ll_engine_info info;
    struct ll_error error;

    (void)state;
    tiny_path(model_path, (int)sizeof model_path, "gen.gguf");
    tiny_write_layers(model_path, TINY_LLAMA, GGML_TYPE_Q8_0, 83, 5);
    opts.model_path = model_path;
    opts.n_ctx = CTX;
    opts.n_threads = 1;
    assert_int_equal(ll_engine_open(&opts, &engine, &error), LL_OK);
    ll_engine_info(engine, &info);
    n_vocab = info.n_vocab;
    for (int i = 0; i < N_PROMPT; i++)
        prompt[i] = 259 + (int32_t)(tiny_rng_next(&rng) % (uint64_t)(n_vocab - 259));
    read_truth(engine);
    ll_engine_close(engine);
    return 0;
}

static int forget_truth(void **state)
{
    (void)state;
    free(truth.logits);
    return 0;
}

/* ---- one generation and what it was told ---- */

struct talk {
    struct town *town;
    struct gen *gen;
    struct gen_opts opts;
    struct err_text et;
    enum err refused;
    int cancel_at; /* cancels after so many tokens; 0 = not */

    /* Told on the loop's thread. */
    int n_started, n_cached, n_ids, n_tops;
    int32_t ids[CTX];
    char text[TEXT_MAX];
    size_t n_text;
    bool ended, gone;
    struct gen_end end;
    char why[ERR_TEXT_MAX], word[64];

    /* On the pool's. */
    char digested[TEXT_MAX];
    size_t n_digested;
    int n_final;
    float *rows;
    int n_rows, width;
};

static void on_digest(void *user, const char *text, size_t n, bool final)
{
    struct talk *t = user;

    memcpy(t->digested + t->n_digested, text, n);
    t->n_digested += n;
    t->n_final += final;
}

static void on_rows(void *user, const float *rows, int pos, int n, int width)
{
    struct talk *t = user;
    size_t have = (size_t)t->n_rows * (size_t)width, more = (size_t)n * (size_t)width;

    assert_int_equal(pos, t->opts.want_from + t->n_rows);
    t->rows = mem_realloc(t->rows, have + more, sizeof *t->rows);
    memcpy(t->rows + have, rows, more * sizeof *rows);
    t->n_rows += n;
    t->width = width;
}

static void on_started(void *user, int n_cached)
{
    struct talk *t = user;

    t->n_started++;
    t->n_cached = n_cached;
}

static void on_gone(void *user)
{
    ((struct talk *)user)->gone = true;
}

static void on_token(void *user, const struct gen_chunk *c)
{
    struct talk *t = user;

    assert_int_equal(t->n_started, 1);
    memcpy(t->text + t->n_text, c->text, c->n_text);
    t->n_text += c->n_text;
    assert_true(t->n_text <= t->n_digested); /* it was digested before it is told */
    for (int i = 0; i < c->n_tokens; i++) {
        t->ids[t->n_ids++] = c->tokens[i].id;
        t->n_tops += c->tokens[i].n_top;
        if (t->opts.n_top >= 0)
            assert_int_equal(c->tokens[i].own.token, c->tokens[i].id);
        if (t->opts.n_top > 0) /* greedy: the best there is */
            assert_int_equal(c->tokens[i].top[0].token, c->tokens[i].id);
    }
    if (t->cancel_at && t->n_ids >= t->cancel_at)
        gen_cancel(t->gen, on_gone);
}

static void on_end(void *user, const struct gen_end *end)
{
    struct talk *t = user;

    assert_false(t->ended || t->gone);
    t->end = *end;
    strcpy(t->why, end->text ? end->text : "");
    strcpy(t->word, end->word ? end->word : "");
    t->gen = NULL;
    t->ended = true;
}

static const struct gen_calls calls = {on_digest, on_rows, on_started, on_token, on_end};

static struct talk *talk_new(struct town *town)
{
    struct talk *t = mem_zalloc(1, sizeof *t);

    t->town = town;
    t->opts = (struct gen_opts){.kind = GEN_ANSWER,
                                .tokens = prompt,
                                .n_tokens = N_PROMPT,
                                .n_max = N_ANSWER,
                                .n_top = -1,
                                .slot = -1,
                                .calls = calls,
                                .user = t};
    return t;
}

static void talk_free(struct talk *t)
{
    free(t->rows);
    free(t);
}

static void begin_here(struct town *town, void *arg)
{
    struct talk *t = arg;
    struct sampling greedy = SAMPLING_DEFAULT;

    greedy.temp = 0;
    if (t->opts.kind == GEN_ANSWER)
        assert_int_equal(
            sampler_open(cluster_text(town->cluster), &greedy, &t->opts.sampler, &t->et), ERR_NONE);
    t->refused = gen_begin(town->cluster, &t->opts, &t->gen, &t->et);
}

static void begin(struct talk *t)
{
    town_call(t->town, begin_here, t);
    if (t->refused)
        fail_msg("%s", t->et.text);
}

static void refuses(struct town *town, struct gen_opts opts, enum err e)
{
    struct talk *t = talk_new(town);

    opts.calls = calls;
    opts.user = t;
    t->opts = opts;
    town_call(town, begin_here, t);
    assert_int_equal(t->refused, e);
    assert_true(strlen(t->et.text) > 10);
    assert_null(t->gen);
    talk_free(t);
}

struct look {
    struct talk *t;
    bool over;
    int n_ids;
};

static void look_here(struct town *town, void *arg)
{
    struct look *l = arg;

    (void)town;
    l->over = l->t->ended || l->t->gone;
    l->n_ids = l->t->n_ids;
}

/* Until it is over, or has so many tokens; 0 = over. */
static void await_tokens(struct talk *t, int n)
{
    const struct timespec nap = {0, 2000000};
    time_t until = time(NULL) + WAIT_S;
    struct look l = {.t = t};

    for (;;) {
        town_call(t->town, look_here, &l);
        if (l.over || (n && l.n_ids >= n))
            return;
        if (time(NULL) > until)
            fail_msg("a generation did not end\n%s", t->town->log);
        nanosleep(&nap, NULL);
    }
}

static void await(struct talk *t)
{
    await_tokens(t, 0);
}

static void cancel_here(struct town *town, void *arg)
{
    struct talk *t = arg;

    (void)town;
    if (t->gen)
        gen_cancel(t->gen, on_gone);
}

/* ---- checks ---- */

/* The first n tokens of the truth and their text. */
static void is_truth(const struct talk *t, int n, enum gen_why why)
{
    if (!t->ended || t->end.why != why)
        fail_msg("why: %d, not %d: %s", (int)t->end.why, (int)why, t->why);
    assert_int_equal(t->n_started, 1);
    assert_int_equal(t->n_ids, n);
    assert_memory_equal(t->ids, truth.ids, (size_t)n * sizeof *t->ids);
    assert_int_equal(t->n_text, truth.begin[n]);
    assert_memory_equal(t->text, truth.text, t->n_text);
    assert_int_equal(t->n_digested, t->n_text);
    assert_memory_equal(t->digested, t->text, t->n_text);
    assert_int_equal(t->n_final, 1);
    assert_int_equal(t->end.n_prompt, N_PROMPT);
    assert_int_equal(t->end.n_generated, n);
}

static void open_town(struct town *town, int n_devices, int n_slots, int n_queue_max)
{
    static char split[8]; /* outlives the town */
    struct town_opts opts = {.model_path = model_path,
                             .n_devices = n_devices,
                             .n_ctx = CTX,
                             .n_slots = n_slots,
                             .split = split,
                             .api = true,
                             .n_queue_max = n_queue_max};

    snprintf(split, sizeof split, "%d", n_devices);
    town_open(town, &opts, true);
}

/* ---- the tests ---- */

static void one_answers_as_a_session_does(struct town *town)
{
    struct talk *t = talk_new(town);

    t->opts.n_top = 3;
    begin(t);
    await(t);
    is_truth(t, N_ANSWER, GEN_LENGTH);
    assert_int_equal(t->n_tops, 3 * N_ANSWER);
    assert_int_equal(t->end.n_cached, 0);
    assert_true(t->end.slot >= 0 && t->end.ttft_ms > 0 && t->end.prompt_ms > 0);
    assert_true(t->end.generate_ms > 0);
    talk_free(t);
    t = talk_new(town); /* its prompt is there still */
    begin(t);
    await(t);
    is_truth(t, N_ANSWER, GEN_LENGTH);
    assert_int_equal(t->end.n_cached, N_PROMPT - 1);
    assert_int_equal(t->n_cached, N_PROMPT - 1);
    talk_free(t);
    t = talk_new(town);
    t->opts.fresh = true;
    begin(t);
    await(t);
    is_truth(t, N_ANSWER, GEN_LENGTH);
    assert_int_equal(t->end.n_cached, 0);
    talk_free(t);
}

static void many_at_once_answer_alike(struct town *town, bool together)
{
    struct talk *t[MANY];

    for (int i = 0; i < MANY; i++) {
        t[i] = talk_new(town);
        t[i]->opts.flow = i;
        t[i]->opts.fresh = !together;
        t[i]->opts.after = together && i ? t[0]->gen : NULL;
        begin(t[i]);
    }
    for (int i = 0; i < MANY; i++) {
        await(t[i]);
        is_truth(t[i], N_ANSWER, GEN_LENGTH);
        if (together && i > 0)
            assert_true(t[i]->end.n_cached > 0);
    }
    for (int i = 0; i < MANY; i++)
        talk_free(t[i]);
}

static void few_tokens_do(struct town *town)
{
    for (int n = 0; n < 2; n++) {
        struct talk *t = talk_new(town);

        t->opts.n_max = n;
        begin(t);
        await(t);
        is_truth(t, n, GEN_LENGTH);
        talk_free(t);
    }
}

static bool comes_first_at(const char *word, size_t n, size_t at)
{
    for (size_t i = 0; i < at; i++)
        if (memcmp(truth.text + i, word, n) == 0)
            return false;
    return true;
}

/* The last byte of one token and the first of the next, which is that one's number. */
static int between_tokens(char *word)
{
    for (int i = 3; i < N_ANSWER; i++) {
        const char *at = truth.text + truth.begin[i] - 1;

        memcpy(word, at, 2);
        if (strlen(word) == 2 && truth.begin[i] > truth.begin[i - 1] &&
            comes_first_at(word, 2, truth.begin[i] - 1))
            return i;
    }
    fail_msg("this model repeats itself too much");
    return 0;
}

static void a_stop_word_over_two_tokens_ends_it(struct town *town)
{
    struct talk *t = talk_new(town);
    char word[8] = "";
    const char *stops[2] = {"not in there", word};
    int n = between_tokens(word), n_before = n;
    size_t from = truth.begin[n] - 1;

    while (n_before > 0 && truth.begin[n_before - 1] >= from)
        n_before--;
    t->opts.n_stops = 2;
    t->opts.stops = stops;
    begin(t);
    await(t);
    assert_int_equal(t->end.why, GEN_WORD);
    assert_string_equal(t->word, word);
    assert_int_equal(t->n_text, from);
    assert_memory_equal(t->text, truth.text, from);
    assert_int_equal(t->n_digested, from);
    assert_int_equal(t->n_ids, n_before); /* the others are part of the word */
    assert_int_equal(t->end.n_generated, n + 1);
    assert_int_equal(t->n_final, 1);
    talk_free(t);
}

static void the_context_fills_up(struct town *town)
{
    struct talk *t = talk_new(town);

    t->opts.n_max = -1;
    begin(t);
    await(t);
    /* Unless the model ends it before. */
    assert_true(t->end.why == GEN_STOP ||
                (t->end.why == GEN_LENGTH && t->end.n_generated == CTX - N_PROMPT));
    talk_free(t);
}

static void cancelling_frees_everything(struct town *town)
{
    struct talk *t = talk_new(town), *other = talk_new(town);

    t->cancel_at = 4;
    begin(t);
    begin(other);
    await(t);
    assert_true(t->gone && !t->ended);
    assert_int_equal(t->n_ids, 4);
    await(other);
    is_truth(other, N_ANSWER, GEN_LENGTH);
    talk_free(t);
    t = talk_new(town); /* from outside, at any moment */
    begin(t);
    await_tokens(t, 2);
    town_call(town, cancel_here, t);
    await(t);
    talk_free(t);
    talk_free(other);
}

static void rows_come_as_they_are(struct town *town)
{
    struct talk *t = talk_new(town);

    t->opts.kind = GEN_LOGITS;
    t->opts.want_from = 3;
    begin(t);
    await(t);
    assert_int_equal(t->end.why, GEN_DONE);
    assert_int_equal(t->n_rows, N_PROMPT - 3);
    assert_int_equal(t->width, n_vocab);
    assert_memory_equal(t->rows, truth.logits + 3 * (size_t)n_vocab,
                        (size_t)t->n_rows * (size_t)n_vocab * sizeof *t->rows);
    assert_int_equal(t->end.n_generated, 0);
    talk_free(t);
}

static void hidden_rows(struct town *town, float **rows)
{
    struct talk *t = talk_new(town), *other = talk_new(town);

    t->opts.kind = GEN_HIDDEN;
    begin(other); /* they do not share steps, and so do not disturb each other */
    begin(t);
    await(t);
    await(other);
    is_truth(other, N_ANSWER, GEN_LENGTH);
    assert_int_equal(t->end.why, GEN_DONE);
    assert_int_equal(t->n_rows, N_PROMPT);
    if (!*rows) {
        *rows = mem_alloc((size_t)t->n_rows * (size_t)t->width * sizeof **rows);
        memcpy(*rows, t->rows, (size_t)t->n_rows * (size_t)t->width * sizeof **rows);
    }
    assert_memory_equal(t->rows, *rows, (size_t)t->n_rows * (size_t)t->width * sizeof **rows);
    talk_free(t);
    talk_free(other);
}

static void bad_wishes_are_refused(struct town *town)
{
    static const int32_t wrong[] = {5, 1 << 20};
    static int32_t long_prompt[CTX + 1];
    static const char *const empty[] = {""};
    struct gen_opts good = {.tokens = prompt, .n_tokens = N_PROMPT, .n_max = 1, .slot = -1}, o;

    o = good;
    o.n_tokens = 0;
    refuses(town, o, ERR_INPUT);
    o.tokens = wrong;
    o.n_tokens = 2;
    refuses(town, o, ERR_INPUT);
    o.tokens = long_prompt;
    o.n_tokens = CTX;
    refuses(town, o, ERR_LIMIT);
    o = good;
    o.n_stops = 1;
    o.stops = empty;
    refuses(town, o, ERR_INPUT);
    o = good;
    o.slot = 99;
    refuses(town, o, ERR_INPUT);
    o = good;
    o.kind = GEN_HIDDEN;
    o.want_from = N_PROMPT;
    refuses(town, o, ERR_INPUT);
}

struct figures {
    struct cluster_stats stats;
    struct cluster_facts facts;
    struct cluster_slot slot;
};

static void look_at_figures(struct town *town, void *arg)
{
    struct figures *f = arg;

    cluster_stats(town->cluster, &f->stats);
    cluster_facts(town->cluster, &f->facts);
    cluster_slot(town->cluster, 0, &f->slot);
}

static void figures_are_told(struct town *town, int n_devices)
{
    struct figures *f = mem_zalloc(1, sizeof *f);
    const struct timespec nap = {0, 100000000};
    time_t until = time(NULL) + WAIT_S;

    /* Devices are asked, and what the last answers took is worked out when all is quiet. */
    while (f->stats.measured_token_s <= 0) {
        if (time(NULL) > until)
            fail_msg("nothing was measured");
        town_call(town, look_at_figures, f);
        nanosleep(&nap, NULL);
    }
    assert_true(f->stats.running && f->stats.epoch > 0 && f->stats.epochs > 0);
    assert_true(f->stats.steps > 0 && f->stats.rows_read > 0 && f->stats.rows_decoded > 0);
    assert_int_equal(f->stats.n_streams, 0);
    assert_int_equal(f->stats.n_devices, n_devices);
    assert_int_equal(f->stats.n_hops, n_devices > 1 ? n_devices : 0);
    for (int i = 0; i < n_devices; i++) {
        assert_true(f->stats.device[i].up && f->stats.device[i].steps > 0);
        assert_true(f->stats.device[i].busy_s > 0);
    }
    for (int i = 0; i < f->stats.n_hops; i++) {
        assert_string_not_equal(f->stats.hop[i].from, f->stats.hop[i].to);
        assert_true(f->stats.hop[i].bytes > 0 && f->stats.hop[i].frames > 0);
    }
    assert_true(f->stats.predicted_token_s > 0);
    assert_string_equal(f->facts.arch, "llama");
    assert_int_equal(f->facts.n_ctx, CTX);
    assert_false(f->slot.busy);
    assert_true(f->slot.n_held > 0);
    free(f);
}

static void whole_clusters(void **state)
{
    static const int counts[] = {1, 3};
    float *hidden = NULL;

    (void)state;
    for (size_t i = 0; i < sizeof counts / sizeof *counts; i++) {
        struct town town;

        print_message("%d devices\n", counts[i]);
        open_town(&town, counts[i], 4, 0);
        one_answers_as_a_session_does(&town);
        many_at_once_answer_alike(&town, false);
        many_at_once_answer_alike(&town, true);
        few_tokens_do(&town);
        a_stop_word_over_two_tokens_ends_it(&town);
        the_context_fills_up(&town);
        cancelling_frees_everything(&town);
        rows_come_as_they_are(&town);
        hidden_rows(&town, &hidden);
        bad_wishes_are_refused(&town);
        figures_are_told(&town, counts[i]);
        town_close(&town);
    }
    free(hidden);
}

static void a_full_queue_says_when_to_come_back(void **state)
{
    struct talk *t[5];
    struct town town;
    int n_busy = 0;

    (void)state;
    open_town(&town, 1, 1, 2);
    for (int i = 0; i < 5; i++) {
        t[i] = talk_new(&town);
        t[i]->opts.n_max = -1; /* so long that none ends before all have begun */
        begin(t[i]);
    }
    for (int i = 0; i < 5; i++) {
        await(t[i]);
        if (!t[i]->end.busy)
            continue;
        assert_int_equal(t[i]->end.why, GEN_FAILED);
        assert_int_equal(t[i]->end.code, ERR_LIMIT);
        assert_true(t[i]->end.retry_s >= 1 && strlen(t[i]->why) > 10);
        assert_int_equal(t[i]->n_started, 0);
        n_busy++;
    }
    assert_true(n_busy >= 1 && n_busy <= 2 && !t[0]->end.busy && t[4]->end.busy);
    for (int i = 0; i < 5; i++)
        talk_free(t[i]);
    town_close(&town);
}

static void a_lost_device_ends_what_runs_and_says_which(void **state)
{
    struct town town;
    struct talk *t;

    (void)state;
    open_town(&town, 2, 2, 0);
    t = talk_new(&town);
    t->opts.n_max = -1;
    begin(t);
    await_tokens(t, 1);
    town_leave(&town, 0);
    await(t);
    if (t->end.why == GEN_FAILED) { /* else it was quicker */
        assert_int_equal(t->end.code, ERR_GONE);
        assert_non_null(strstr(t->why, "dev-1"));
        assert_int_equal(t->n_final, 0);
    }
    talk_free(t);
    town_return(&town, 0);
    town_wait(&town, 2);
    t = talk_new(&town);
    begin(t);
    await(t);
    is_truth(t, N_ANSWER, GEN_LENGTH);
    talk_free(t);
    town_close(&town);
}

static void closing_ends_everything(void **state)
{
    struct talk *t[6];
    struct town town;

    (void)state;
    open_town(&town, 1, 2, 0);
    for (int i = 0; i < 6; i++) {
        t[i] = talk_new(&town);
        t[i]->opts.n_max = -1;
        t[i]->opts.kind = i == 5 ? GEN_LOGITS : GEN_ANSWER;
        begin(t[i]);
    }
    town_call(&town, cancel_here, t[1]);
    await_tokens(t[0], 1);
    town_close(&town);
    for (int i = 0; i < 6; i++) {
        assert_true(t[i]->ended != t[i]->gone);
        if (t[i]->ended && t[i]->end.why == GEN_FAILED)
            assert_int_equal(t[i]->end.code, ERR_CANCELLED);
        talk_free(t[i]);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(whole_clusters),
        cmocka_unit_test(a_full_queue_says_when_to_come_back),
        cmocka_unit_test(a_lost_device_ends_what_runs_and_says_which),
        cmocka_unit_test(closing_ends_everything),
    };

    return cmocka_run_group_tests(tests, make_truth, forget_truth);
}
