/* A cluster answers as one device does, to the bit: over 1, 2, 3, 5 and 8 devices, each with its
 * own links, cache and thread, and also after one of them left and came back. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/mem.h"
#include "golden_opts.h"
#include "support/tiny_model.h"
#include "support/town.h"

enum { N_PROMPT = 150, N_DECODE = 16, CTX = 256 };

struct answer {
    int n_vocab;
    float *prompt; /* (N_PROMPT, n_vocab) */
    float *decode; /* (N_DECODE, n_vocab) */
    int32_t token[N_DECODE];
};

static void fail_on(enum ll_code code, const struct ll_error *error)
{
    if (code)
        fail_msg("%s", error->message);
}

static int32_t best(const float *logits, int n)
{
    int k = 0;

    for (int i = 1; i < n; i++)
        if (logits[i] > logits[k])
            k = i;
    return k;
}

/* Reads a prompt, then goes on with the best token each time. */
static void answer_make(struct ll_engine *engine, uint64_t seed, struct answer *a)
{
    struct tiny_rng rng = {seed};
    int32_t tokens[N_PROMPT];
    struct ll_engine_info info;
    struct ll_session *session;
    struct ll_error error;
    const float *logits;

    ll_engine_info(engine, &info);
    a->n_vocab = info.n_vocab;
    a->prompt = mem_alloc(sizeof(float) * N_PROMPT * (size_t)info.n_vocab);
    a->decode = mem_alloc(sizeof(float) * N_DECODE * (size_t)info.n_vocab);
    for (int i = 0; i < N_PROMPT; i++)
        tokens[i] = (int32_t)(tiny_rng_next(&rng) % (uint64_t)info.n_vocab);
    fail_on(ll_session_open(engine, NULL, &session, &error), &error);
    fail_on(ll_session_add_tokens(session, tokens, N_PROMPT, &error), &error);
    fail_on(ll_session_read(session, N_PROMPT, &logits, &error), &error);
    memcpy(a->prompt, logits, sizeof(float) * N_PROMPT * (size_t)info.n_vocab);
    logits += (size_t)(N_PROMPT - 1) * (size_t)info.n_vocab;
    for (int i = 0; i < N_DECODE; i++) {
        a->token[i] = best(logits, info.n_vocab);
        fail_on(ll_session_add_tokens(session, &a->token[i], 1, &error), &error);
        fail_on(ll_session_read(session, 1, &logits, &error), &error);
        memcpy(a->decode + (size_t)i * (size_t)info.n_vocab, logits,
               sizeof(float) * (size_t)info.n_vocab);
    }
    ll_session_close(session);
}

static void answer_free(struct answer *a)
{
    free(a->prompt);
    free(a->decode);
}

static void answer_same(const struct answer *a, const struct answer *b)
{
    assert_int_equal(a->n_vocab, b->n_vocab);
    assert_memory_equal(a->token, b->token, sizeof a->token);
    assert_memory_equal(a->prompt, b->prompt, sizeof(float) * N_PROMPT * (size_t)a->n_vocab);
    assert_memory_equal(a->decode, b->decode, sizeof(float) * N_DECODE * (size_t)a->n_vocab);
}

static struct ll_engine *open_alone(const char *path, int ctx)
{
    struct ll_engine_opts opts = ll_engine_defaults();
    struct ll_engine *engine;
    struct ll_error error;

    opts.model_path = path;
    opts.n_ctx = ctx;
    opts.n_threads = 1;
    fail_on(ll_engine_open(&opts, &engine, &error), &error);
    return engine;
}

static void check(enum tiny_variant v, enum ggml_type type, const int *counts, int n_counts)
{
    char path[256], name[64];
    struct answer alone, together;
    struct ll_engine *engine;

    snprintf(name, sizeof name, "cluster-%s.gguf", tiny_name(v));
    tiny_path(path, (int)sizeof path, name);
    tiny_write_layers(path, v, type, 77, 5); /* 12 modules: enough for eight devices */
    engine = open_alone(path, CTX);
    answer_make(engine, 5, &alone);
    ll_engine_close(engine);
    for (int i = 0; i < n_counts; i++) {
        char split[8];
        struct town_opts opts = {
            .model_path = path, .n_devices = counts[i], .n_ctx = CTX, .split = split};
        struct town town;

        /* By itself the placement leaves out devices that would not make it faster. */
        snprintf(split, sizeof split, "%d", counts[i]);
        print_message("%s over %d devices\n", tiny_name(v), counts[i]);
        town_open(&town, &opts, true);
        engine = town_engine(&town);
        answer_make(engine, 5, &together);
        ll_engine_close(engine);
        answer_same(&alone, &together);
        answer_free(&together);
        town_close(&town);
    }
    answer_free(&alone);
}

static void every_number_of_devices_gives_the_same_bits(void **state)
{
    static const struct {
        enum tiny_variant v;
        enum ggml_type type;
    } models[] = {{TINY_LLAMA, GGML_TYPE_Q4_0},
                  {TINY_BLOOM, GGML_TYPE_F16},
                  {TINY_GPTNEOX, GGML_TYPE_Q8_0},
                  {TINY_QWEN3MOE, GGML_TYPE_F16}};
    static const int all[] = {1, 2, 3, 5, 8}, some[] = {3};
    bool small = golden_size() == GOLDEN_SMALL;

    (void)state;
    for (size_t i = 0; i < sizeof models / sizeof *models; i++)
        check(models[i].v, models[i].type, small ? some : all, small ? 1 : 5);
}

static void a_device_that_left_and_came_back_changes_no_bit(void **state)
{
    char path[256];
    struct town_opts opts = {.model_path = path, .n_devices = 3, .n_ctx = CTX};
    struct answer alone, before, without, after;
    struct ll_engine *engine;
    struct town town;

    (void)state;
    tiny_path(path, (int)sizeof path, "cluster-back.gguf");
    tiny_write(path, TINY_LLAMA, GGML_TYPE_Q8_0, 78);
    engine = open_alone(path, CTX);
    answer_make(engine, 6, &alone);
    ll_engine_close(engine);
    town_open(&town, &opts, true);
    engine = town_engine(&town);
    answer_make(engine, 6, &before);
    town_leave(&town, 1);
    town_wait(&town, 2);
    answer_make(engine, 6, &without);
    town_return(&town, 1);
    town_wait(&town, 3);
    answer_make(engine, 6, &after);
    ll_engine_close(engine);
    town_close(&town);
    answer_same(&alone, &before);
    answer_same(&alone, &without);
    answer_same(&alone, &after);
    answer_free(&alone);
    answer_free(&before);
    answer_free(&without);
    answer_free(&after);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_number_of_devices_gives_the_same_bits),
        cmocka_unit_test(a_device_that_left_and_came_back_changes_no_bit),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
