/* lingua bench: tokens per second, measured as llama-bench does it, in its table's columns. A
 * prefill test reads P random tokens; a decode test reads N tokens one by one. Neither samples. */
#include <math.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "api/json.h"
#include "base/mem.h"
#include "cli/cmd.h"
#include "cli/open.h"
#include "cli/options.h"
#include "cli/say.h"
#include "cli/table.h"
#include "lingua/lingua.h"

enum { LIST_MAX = 16, RUNS_MAX = 1000 };

struct bench {
    struct open_options open;
    const char *model;
    const char *prompts_arg, *predicts_arg, *depths_arg, *threads_arg;
    int prompts[LIST_MAX], predicts[LIST_MAX], depths[LIST_MAX], threads[LIST_MAX];
    int n_prompts, n_predicts, n_depths, n_threads;
    int64_t n_runs;
    bool json;
    struct table table;
    json_t *results;
};

struct test {
    int n_prompt, n_predict, depth; /* one of the first two is 0 */
    double rates[RUNS_MAX];         /* tokens/s of each run */
    double median, spread;
};

static const char about[] =
    "Measures tokens per second: prefill (pp) reads a prompt at once, decode (tg) one token after\n"
    "another, each `-r` times after a warm-up. The table has the median and the standard "
    "deviation.\n"
    "Options with a list take several values: -t 1,2 measures with each.";

static int parse(struct bench *b, int argc, char **argv)
{
    const struct option_spec options[] = {
        {"prompt", 'p', OPTION_TEXT, &b->prompts_arg, 0, 0, NULL, "N[,N]",
         "tokens of the prefill test, 0 = none (default: 512)"},
        {"predict", 'n', OPTION_TEXT, &b->predicts_arg, 0, 0, NULL, "N[,N]",
         "tokens of the decode test, 0 = none (default: 128)"},
        {"depth", 'd', OPTION_TEXT, &b->depths_arg, 0, 0, NULL, "N[,N]",
         "tokens in the context before it starts (default: 0)"},
        {"threads", 't', OPTION_TEXT, &b->threads_arg, 0, 0, NULL, "N[,N]",
         "threads over all devices (default: all cores)"},
        {"runs", 'r', OPTION_WHOLE, &b->n_runs, 1, RUNS_MAX, NULL, "N",
         "runs of each test (default: 5)"},
        OPTION_KV(&b->open),
        OPTION_SPLIT(&b->open),
        {"json", 0, OPTION_FLAG, &b->json, 0, 0, NULL, NULL, "every run, for machines"},
    };
    const struct command_spec spec = {"bench [MODEL] [-p N] [-n N] [-t N,N] [-r N] [OPTIONS]",
                                      about, options, sizeof options / sizeof *options, 1};
    const char *args[ARGS_MAX];
    int n_args, status = options_parse(&spec, argc, argv, args, &n_args);

    if (status >= 0)
        return status;
    b->model = n_args ? args[0] : NULL;
    b->n_prompts =
        options_list("bench", "prompt", b->prompts_arg, 0, 1 << 20, b->prompts, LIST_MAX);
    b->n_predicts = b->n_prompts < 0 ? -1
                                     : options_list("bench", "predict", b->predicts_arg, 0, 1 << 20,
                                                    b->predicts, LIST_MAX);
    b->n_depths = b->n_predicts < 0 ? -1
                                    : options_list("bench", "depth", b->depths_arg, 0, 1 << 20,
                                                   b->depths, LIST_MAX);
    if (b->n_depths < 0)
        return STATUS_USAGE;
    b->n_threads = 1; /* threads[0] = 0: all cores */
    if (b->threads_arg)
        b->n_threads =
            options_list("bench", "threads", b->threads_arg, 1, 4096, b->threads, LIST_MAX);
    return b->n_threads < 0 ? STATUS_USAGE : -1;
}

static int most(const int *list, int n)
{
    int best = 0;

    for (int i = 0; i < n; i++)
        best = list[i] > best ? list[i] : best;
    return best;
}

static void random_tokens(int32_t *tokens, int n, int n_vocab, uint32_t *state)
{
    for (int i = 0; i < n; i++) {
        *state = *state * 1664525u + 1013904223u; /* the same tokens in every bench */
        tokens[i] = (int32_t)((*state >> 8) % (uint32_t)n_vocab);
    }
}

/* Reads tokens in steps of n_step and gives the seconds it took. */
static enum ll_code timed_read(struct ll_session *session, const int32_t *tokens, int n, int n_step,
                               double *seconds, struct ll_error *error)
{
    double began = now_s();
    enum ll_code code = LL_OK;
    const float *logits;

    for (int i = 0; !code && i < n; i += n_step) {
        code = ll_session_add_tokens(session, tokens + i, n_step, error);
        if (!code)
            code = ll_session_read(session, 1, &logits, error);
    }
    *seconds = now_s() - began;
    return code;
}

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;

    return (x > y) - (x < y);
}

static void test_judge(struct test *t, int n_runs)
{
    double sorted[RUNS_MAX], mean = 0, squares = 0;

    memcpy(sorted, t->rates, (size_t)n_runs * sizeof *sorted);
    qsort(sorted, (size_t)n_runs, sizeof *sorted, by_value);
    t->median = (sorted[(n_runs - 1) / 2] + sorted[n_runs / 2]) / 2;
    for (int i = 0; i < n_runs; i++)
        mean += t->rates[i] / n_runs;
    for (int i = 0; i < n_runs; i++)
        squares += (t->rates[i] - mean) * (t->rates[i] - mean);
    t->spread = n_runs > 1 ? sqrt(squares / (n_runs - 1)) : 0;
}

static enum ll_code test_run(struct ll_session *session, struct test *t, int n_runs, int n_vocab,
                             struct ll_error *error)
{
    int n = t->n_prompt ? t->n_prompt : t->n_predict, n_step = t->n_prompt ? n : 1;
    int n_most = n > t->depth ? n : t->depth;
    int32_t *tokens = mem_zalloc((size_t)n_most, sizeof *tokens);
    uint32_t state = 1;
    double seconds;
    enum ll_code code = ll_session_truncate(session, 0, error);

    random_tokens(tokens, t->depth, n_vocab, &state);
    if (!code && t->depth)
        code = timed_read(session, tokens, t->depth, t->depth, &seconds, error);
    for (int i = -1; !code && i < n_runs; i++) {
        /* The run before the first warms up: graphs are built, weights are in memory. */
        random_tokens(tokens, n, n_vocab, &state);
        code = timed_read(session, tokens, n, n_step, &seconds, error);
        if (i >= 0)
            t->rates[i] = n / seconds;
        if (!code)
            code = ll_session_truncate(session, t->depth, error);
    }
    free(tokens);
    if (!code)
        test_judge(t, n_runs);
    return code;
}

static void test_report(struct bench *b, const struct ll_engine_info *info, const struct test *t)
{
    char size[NUM_MAX], params[NUM_MAX], devices[NUM_MAX] = "CPU", name[48];
    json_t *samples, *o;

    snprintf(name, sizeof name, "%s%d", t->n_prompt ? "pp" : "tg",
             t->n_prompt ? t->n_prompt : t->n_predict);
    if (t->depth)
        snprintf(name + strlen(name), sizeof name - strlen(name), " @ d%d", t->depth);
    if (info->n_devices > 1)
        snprintf(devices, sizeof devices, "CPU x %d", info->n_devices);
    num_short(params, (double)info->n_params);
    table_row(&b->table);
    table_cell(&b->table, 0, "%s %s %s", info->arch, params, info->quantisation);
    table_cell(&b->table, 1, "%s", num_mib(size, info->weight_bytes));
    table_cell(&b->table, 2, "%s", params);
    table_cell(&b->table, 3, "%s", devices);
    table_cell(&b->table, 4, "%d", info->n_threads);
    table_cell(&b->table, 5, "%s", name);
    table_cell(&b->table, 6, "%.2f ± %.2f", t->median, t->spread);

    samples = json_array();
    for (int i = 0; i < b->n_runs; i++)
        json_array_append_new(samples, json_real(t->rates[i]));
    o = json_pack("{s:o, s:s, s:s, s:I, s:I, s:i, s:i, s:i, s:i, s:i, s:s, s:f, s:f, s:o}", "model",
                  json_text(info->model_name, strlen(info->model_name)), "arch", info->arch,
                  "quantisation", info->quantisation, "weight_bytes",
                  (json_int_t)info->weight_bytes, "params", (json_int_t)info->n_params, "devices",
                  info->n_devices, "threads", info->n_threads, "n_prompt", t->n_prompt, "n_gen",
                  t->n_predict, "n_depth", t->depth, "test", name, "median_tokens_per_second",
                  t->median, "stddev_tokens_per_second", t->spread, "tokens_per_second", samples);
    json_array_append_new(b->results, o);
}

static int tests_of(struct bench *b, struct ll_engine *engine, struct ll_session *session)
{
    struct test *t = mem_alloc(sizeof *t);
    struct ll_engine_info info;
    struct progress progress;
    struct ll_error error;
    enum ll_code code = LL_OK;
    int per_depth = b->n_prompts + b->n_predicts, n = b->n_depths * per_depth;

    ll_engine_info(engine, &info);
    progress_begin(&progress, "measuring");
    for (int i = 0; !code && i < n; i++) {
        int k = i % per_depth;

        *t = (struct test){.depth = b->depths[i / per_depth]};
        if (k < b->n_prompts)
            t->n_prompt = b->prompts[k];
        else
            t->n_predict = b->predicts[k - b->n_prompts];
        if (!t->n_prompt && !t->n_predict)
            continue;
        progress_show(&progress, (uint64_t)i, (uint64_t)n);
        code = test_run(session, t, (int)b->n_runs, info.n_vocab, &error);
        if (!code)
            test_report(b, &info, t);
    }
    progress_end(&progress);
    free(t);
    return code ? fail(&error) : STATUS_OK;
}

static int bench_threads(struct bench *b, int n_threads)
{
    int longest = most(b->prompts, b->n_prompts), decoded = most(b->predicts, b->n_predicts);
    struct ll_engine *engine;
    struct ll_session *session = NULL;
    struct ll_error error;
    int status;

    b->open.ctx = most(b->depths, b->n_depths) + (longest > decoded ? longest : decoded);
    b->open.threads = n_threads;
    b->open.any_ctx = true;
    status = engine_open(b->model, &b->open, &engine);
    if (status)
        return status;
    if (ll_session_open(engine, NULL, &session, &error))
        status = fail(&error);
    else
        status = tests_of(b, engine, session);
    if (!status && b->open.split && !b->json)
        devices_print(engine, stderr);
    ll_session_close(session);
    ll_engine_close(engine);
    return status;
}

int cmd_bench(int argc, char **argv)
{
    static const struct table_column columns[] = {
        {"model", false},  {"size", true}, {"params", true}, {"backend", false},
        {"threads", true}, {"test", true}, {"t/s", true},
    };
    struct bench b = {.prompts_arg = "512", .predicts_arg = "128", .depths_arg = "0", .n_runs = 5};
    int status = parse(&b, argc, argv);

    if (status >= 0)
        return status;
    if (most(b.prompts, b.n_prompts) + most(b.predicts, b.n_predicts) == 0) {
        say("bench: -p 0 and -n 0 leave nothing to measure");
        return STATUS_USAGE;
    }
    table_init(&b.table, columns, (int)ARRAY_LEN(columns));
    b.table.pipes = true;
    b.results = json_array();
    status = STATUS_OK;
    for (int i = 0; !status && i < b.n_threads; i++)
        status = bench_threads(&b, b.threads[i]);
    if (!status && b.json) {
        status = json_print(json_incref(b.results));
    } else if (!status) {
        table_print(&b.table, stdout);
        status = out_finish();
    }
    json_decref(b.results);
    table_fini(&b.table);
    return status;
}
