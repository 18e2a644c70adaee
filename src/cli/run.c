/* lingua run: generate text, or chat. Written on lingua.h alone, as any program could be. */
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <unistd.h>

#include "api/json.h"
#include "cli/answer.h"
#include "cli/chat.h"
#include "cli/cmd.h"
#include "cli/files.h"
#include "cli/open.h"
#include "cli/options.h"
#include "cli/say.h"
#include "lingua/lingua.h"

struct run {
    struct open_options open;
    const char *model, *prompt_arg, *file, *state, *trace;
    int64_t n_max, top_k, seed;
    double temp, top_p, min_p;
    bool json;
    char *prompt; /* NULL = chat */
    size_t n_prompt;
    struct ll_sampling sampling;
};

static const char usage[] = "run [MODEL | --cluster] [-p TEXT | --file FILE] [OPTIONS]";
static const char about[] =
    "Generates text. With a prompt (-p, --file, or stdin when it is not a terminal) the text is\n"
    "continued exactly as given, also by a chat model. Without one it is a chat, in the model's "
    "own\n"
    "chat format. The text goes to stdout, everything else to stderr; Ctrl-C stops an answer.\n"
    "Exit status: 0, 1 on failure, 2 for a wrong command line, 130 when stopped by Ctrl-C.";

/* What the head has settled already cannot be chosen here. */
static int cluster_check(struct run *r)
{
    const char *settled = r->open.split     ? "--split"
                          : r->open.ctx     ? "--ctx"
                          : r->open.threads ? "--threads"
                          : r->open.kv      ? "--kv"
                                            : NULL;

    if (r->state && !r->open.cluster)
        say("run: --state belongs to --cluster");
    else if (r->trace && !r->open.cluster)
        say("run: --trace belongs to --cluster");
    else if (r->open.cluster && r->model)
        say("run: the cluster has its model already (lingua serve MODEL); leave out \"%s\", or "
            "give "
            "the cluster's folder as --cluster=DIR",
            r->model);
    else if (r->open.cluster && settled)
        say("run: %s is not for --cluster: the head decides it (lingua serve)", settled);
    else
        return -1;
    return STATUS_USAGE;
}

static int parse(struct run *r, int argc, char **argv)
{
    const struct option_spec options[] = {
        {"prompt", 'p', OPTION_TEXT, &r->prompt_arg, 0, 0, NULL, "TEXT", "the text to continue"},
        {"file", 0, OPTION_TEXT, &r->file, 0, 0, NULL, "FILE",
         "the same from a file (its last newline is dropped)"},
        {"predict", 'n', OPTION_WHOLE, &r->n_max, 1, 1 << 30, NULL, "N",
         "tokens per answer (default: until it ends)"},
        {"temp", 0, OPTION_REAL, &r->temp, 0, 100, NULL, "T",
         "randomness; 0 always takes the likeliest (default: 0.8)"},
        {"top-k", 0, OPTION_WHOLE, &r->top_k, 0, 1 << 30, NULL, "K",
         "among the K likeliest, 0 = all (default: 40)"},
        {"top-p", 0, OPTION_REAL, &r->top_p, 0, 1, NULL, "P",
         "among those that make up P together (default: 0.95)"},
        {"min-p", 0, OPTION_REAL, &r->min_p, 0, 1, NULL, "P",
         "at least P times as likely as the likeliest (default: 0.05)"},
        {"seed", 0, OPTION_WHOLE, &r->seed, 0, UINT32_MAX, NULL, "S",
         "makes a random answer repeatable (default: random)"},
        OPTION_CTX(&r->open, "positions of context (default: as trained, at most 4096)"),
        OPTION_THREADS(&r->open),
        OPTION_KV(&r->open),
        OPTION_SPLIT(&r->open),
        {"cluster", 0, OPTION_MAYBE, &r->open.cluster, 0, 0, NULL, "DIR",
         "use the cluster whose head (lingua serve) runs on this\nmachine; DIR is its --state"},
        {"state", 0, OPTION_TEXT, &r->state, 0, 0, NULL, "DIR", "the same as --cluster=DIR"},
        {"trace", 0, OPTION_TEXT, &r->trace, 0, 0, NULL, "FILE",
         "with --cluster: write what every stage did, for Perfetto\nor chrome://tracing"},
        {"json", 0, OPTION_FLAG, &r->json, 0, 0, NULL, NULL,
         "one JSON object at the end instead of text"},
    };
    const struct command_spec spec = {usage, about, options, sizeof options / sizeof *options, 1};
    const char *args[ARGS_MAX];
    int n_args, status = options_parse(&spec, argc, argv, args, &n_args);

    if (status >= 0)
        return status;
    r->model = n_args ? args[0] : NULL;
    if (r->prompt_arg && r->file) {
        say("run: give the prompt by -p or by --file, not both");
        return STATUS_USAGE;
    }
    return cluster_check(r);
}

/* Finds the prompt; r->prompt stays NULL for a chat. */
static int prompt_find(struct run *r)
{
    int failed = 0;

    if (r->prompt_arg) {
        r->n_prompt = strlen(r->prompt_arg);
        r->prompt = strdup(r->prompt_arg);
        return r->prompt ? -1 : STATUS_FAILED;
    }
    if (r->file)
        failed = file_read(r->file, &r->prompt, &r->n_prompt);
    else if (!isatty(STDIN_FILENO))
        failed = stream_read(stdin, "the prompt on standard input", &r->prompt, &r->n_prompt);
    if (failed)
        return STATUS_FAILED;
    if (r->prompt)
        newline_drop(r->prompt, &r->n_prompt);
    else if (r->json) {
        say("run: --json needs a prompt: -p, --file or standard input");
        return STATUS_USAGE;
    }
    if (r->prompt && !r->n_prompt) {
        say("the prompt is empty; for a chat, run it in a terminal without a prompt");
        return STATUS_FAILED;
    }
    return -1;
}

static void sampling_fill(struct run *r)
{
    uint32_t seed = (uint32_t)r->seed;

    if (r->seed < 0 && getrandom(&seed, sizeof seed, 0) != sizeof seed)
        seed = (uint32_t)(now_s() * 1e6) ^ (uint32_t)getpid();
    r->sampling = (struct ll_sampling){.temp = (float)r->temp,
                                       .top_k = (int)r->top_k,
                                       .top_p = (float)r->top_p,
                                       .min_p = (float)r->min_p,
                                       .seed = seed};
}

static void context_full(const struct ll_engine_info *info)
{
    int more = 2 * info->n_ctx;

    say("the context of %d tokens is full; --ctx %d goes on%s", info->n_ctx, more,
        info->n_ctx_train && more > info->n_ctx_train ? ", beyond what the model was trained for"
                                                      : "");
}

static int json_result(struct ll_engine *engine, struct ll_session *session, const struct run *r,
                       const struct answer *a)
{
    const int32_t *tokens = ll_session_tokens(session);
    int n = ll_session_length(session);
    json_t *ids = json_array(), *o;
    struct ll_engine_info info;

    ll_engine_info(engine, &info);
    for (int i = n - a->n_tokens; i < n; i++)
        json_array_append_new(ids, json_integer(tokens[i]));
    o = json_pack("{s:o, s:o, s:o, s:s, s:I, s:o}", "model",
                  json_text(info.model_name, strlen(info.model_name)), "text",
                  json_text(a->text, a->n_text), "tokens", ids, "finish_reason",
                  answer_end_name(a->end), "seed", (json_int_t)r->sampling.seed, "timings",
                  answer_timings(a));
    json_object_set_new(o, "devices", devices_json(engine));
    return json_print(o);
}

static void who_print(struct ll_engine *engine, const struct run *r)
{
    if (r->open.cluster)
        cluster_devices_print(engine, stderr);
    else if (r->open.split)
        devices_print(engine, stderr);
}

/* After the text: why it ended, who worked on it, and how fast. Returns the exit status. */
static int epilogue(struct ll_engine *engine, struct ll_session *session, const struct run *r,
                    const struct answer *a)
{
    bool on_terminal = isatty(STDOUT_FILENO);
    struct ll_engine_info info;
    int status = STATUS_OK;

    if (a->end == ANSWER_UNHEARD)
        return out_failed(a->out_reason);
    ll_engine_info(engine, &info);
    if (r->json && a->end != ANSWER_FAILED)
        status = json_result(engine, session, r, a);
    else if (a->n_text && a->text[a->n_text - 1] != '\n')
        fputs("\n", on_terminal ? stdout : stderr); /* what was asked for stays as it is */
    if (!r->json)
        fflush(stdout);
    if (a->end == ANSWER_FAILED)
        return fail(&a->error);
    if (a->end == ANSWER_CONTEXT)
        context_full(&info);
    if (!r->json)
        who_print(engine, r);
    answer_report(a, r->temp > 0 ? &r->sampling.seed : NULL);
    return a->end == ANSWER_CANCELLED ? STATUS_INTERRUPTED : status;
}

static int complete(struct ll_engine *engine, struct ll_session *session, const struct run *r)
{
    struct ll_error error;
    struct answer a;
    enum ll_code code = ll_session_add_text(session, r->prompt, (long)r->n_prompt, LL_BOS, &error);
    int status;

    if (code == LL_FULL) {
        say("%s; --ctx N holds more", error.message);
        return STATUS_FAILED;
    }
    if (code)
        return fail(&error);
    /* A person at a terminal reads the story from its beginning; a pipe gets the new text alone. */
    if (!r->json && isatty(STDOUT_FILENO) && isatty(STDERR_FILENO))
        fprintf(stderr, "%s", r->prompt);
    interrupts_take(1);
    answer_make(session, r->n_max, !r->json, &a);
    status = epilogue(engine, session, r, &a);
    answer_fini(&a);
    return status;
}

static int converse(struct ll_engine *engine, struct ll_session *session, const struct run *r)
{
    int status;

    interrupts_take(2);
    status = chat(engine, session, r->n_max, r->open.cluster != NULL);
    who_print(engine, r);
    return status;
}

static int answered(struct ll_engine *engine, struct ll_session *session, const struct run *r)
{
    return r->prompt ? complete(engine, session, r) : converse(engine, session, r);
}

/* The trace is written also when the answer failed: that is when it is looked at. */
static int traced(struct ll_engine *engine, struct ll_session *session, const struct run *r)
{
    struct ll_error error;
    int status;

    if (!r->trace)
        return answered(engine, session, r);
    if (ll_engine_trace_begin(engine, &error))
        return fail(&error);
    status = answered(engine, session, r);
    if (ll_engine_trace_write(engine, r->trace, &error))
        return fail(&error);
    say("the trace is in %s; https://ui.perfetto.dev and chrome://tracing show it", r->trace);
    return status;
}

int cmd_run(int argc, char **argv)
{
    struct ll_sampling usual = ll_sampling_defaults();
    struct run r = {.n_max = -1,
                    .seed = -1,
                    .temp = (double)usual.temp,
                    .top_k = usual.top_k,
                    .top_p = (double)usual.top_p,
                    .min_p = (double)usual.min_p};
    struct ll_engine *engine = NULL;
    struct ll_session *session = NULL;
    struct ll_error error;
    int status = parse(&r, argc, argv);

    if (status < 0)
        status = prompt_find(&r);
    if (status >= 0)
        goto out;
    sampling_fill(&r);
    if (r.open.cluster && !*r.open.cluster && r.state)
        r.open.cluster = r.state;
    status = r.open.cluster ? cluster_engine_open(&r.open, &engine)
                            : engine_open(r.model, &r.open, &engine);
    if (status)
        goto out;
    if (ll_session_open(engine, &r.sampling, &session, &error))
        status = fail(&error);
    else
        status = traced(engine, session, &r);
out:
    ll_session_close(session);
    ll_engine_close(engine);
    free(r.prompt);
    return status;
}
