/* lingua classify: which of some labels fits a text, by how likely the model would write each
 * (head/likelihood.h). On lingua.h, so that a model file, devices on this machine and a running
 * cluster are the same. */
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/mem.h"
#include "base/words.h"
#include "cli/cmd.h"
#include "cli/files.h"
#include "cli/open.h"
#include "cli/options.h"
#include "cli/say.h"
#include "cli/table.h"
#include "head/likelihood.h"
#include "lingua/lingua.h"

/* Logits are fetched in pieces of about this size, as by perplexity. */
enum { LOGITS_BYTES = 32 << 20 };

struct classify {
    struct open_options open;
    const char *model, *labels, *template, *state, *text_arg;
    bool json;
    char *text;
    size_t n_text;
    char *label[LIKELIHOOD_LABELS_MAX];
    int n_labels;
    struct ll_engine *engine;
    struct ll_session *session;
    int n_vocab;
    struct likelihood likelihood;
};

static const char usage[] = "classify [MODEL | --cluster] --labels A,B,C [TEXT | -] [OPTIONS]";
static const char about[] =
    "Tells which label fits a text: each is put behind the text by a template, and the model says\n"
    "how likely it would have written it. The text comes from the argument, or from standard "
    "input.\n"
    "A single argument is the text, unless it ends in .gguf.\n"
    "The default template: \"Text: {input}\\nLabels: {labels}\\nLabel: {label}\".";

static bool is_model(const char *arg)
{
    size_t n = strlen(arg);

    return n > 5 && strcmp(arg + n - 5, ".gguf") == 0;
}

static int arguments_take(struct classify *c, const char *const *args, int n_args)
{
    const char *settled = c->open.split     ? "--split"
                          : c->open.ctx     ? "--ctx"
                          : c->open.threads ? "--threads"
                          : c->open.kv      ? "--kv"
                                            : NULL;

    if (n_args == 2 || (n_args == 1 && !c->open.cluster && is_model(args[0])))
        c->model = args[0];
    if (n_args == 2 || (n_args == 1 && !c->model))
        c->text_arg = args[n_args - 1];
    if (c->state && !c->open.cluster)
        say("classify: --state belongs to --cluster");
    else if (c->open.cluster && c->model)
        say("classify: the cluster has its model already (lingua serve MODEL); leave out \"%s\"",
            c->model);
    else if (c->open.cluster && settled)
        say("classify: %s is not for --cluster: the head decides it (lingua serve)", settled);
    else if (!c->labels)
        say("classify: which labels? --labels good,bad");
    else
        return -1;
    return STATUS_USAGE;
}

static int labels_take(struct classify *c)
{
    const char *list = c->labels, *name;
    size_t n;

    while ((name = list_next(&list, &n))) {
        if (c->n_labels == LIKELIHOOD_LABELS_MAX) {
            say("classify: at most %d labels can be told apart at once", LIKELIHOOD_LABELS_MAX);
            return STATUS_USAGE;
        }
        c->label[c->n_labels++] = mem_printf("%.*s", (int)n, name);
    }
    return -1;
}

static int parse(struct classify *c, int argc, char **argv)
{
    const struct option_spec options[] = {
        {"labels", 0, OPTION_TEXT, &c->labels, 0, 0, NULL, "A,B,C", "what to choose from"},
        {"template", 0, OPTION_TEXT, &c->template, 0, 0, NULL, "TEXT",
         "with {input} and {label} in it, and {labels} if you like;\nall from {label} on is "
         "scored"},
        {"cluster", 0, OPTION_MAYBE, &c->open.cluster, 0, 0, NULL, "DIR",
         "use the cluster whose head (lingua serve) runs on this\nmachine; DIR is its --state"},
        {"state", 0, OPTION_TEXT, &c->state, 0, 0, NULL, "DIR", "the same as --cluster=DIR"},
        OPTION_CTX(&c->open, "positions of context (default: as trained, at most 4096)"),
        OPTION_THREADS(&c->open),
        OPTION_KV(&c->open),
        OPTION_SPLIT(&c->open),
        {"json", 0, OPTION_FLAG, &c->json, 0, 0, NULL, NULL, "one JSON object"},
    };
    const struct command_spec spec = {usage, about, options, sizeof options / sizeof *options, 2};
    const char *args[ARGS_MAX];
    int n_args, status = options_parse(&spec, argc, argv, args, &n_args);

    if (status < 0)
        status = arguments_take(c, args, n_args);
    if (status < 0)
        status = labels_take(c);
    return status;
}

static int text_find(struct classify *c)
{
    if (c->text_arg && strcmp(c->text_arg, "-") != 0) {
        c->text = mem_strdup(c->text_arg);
        c->n_text = strlen(c->text);
        return -1;
    }
    if (!c->text_arg && isatty(STDIN_FILENO)) {
        say("classify: which text? Give it as an argument or on standard input");
        return STATUS_USAGE;
    }
    if (stream_read(stdin, "the text on standard input", &c->text, &c->n_text))
        return STATUS_FAILED;
    newline_drop(c->text, &c->n_text);
    return -1;
}

static enum err tokenize(void *user, const char *s, size_t n, int32_t **tokens, int *n_tokens,
                         struct err_text *et)
{
    struct classify *c = user;
    struct ll_error error;

    if (ll_tokenize(c->engine, s, (long)n, LL_BOS, tokens, n_tokens, &error))
        return err_set(et, ERR_INPUT, "%s", error.message);
    return ERR_NONE;
}

static int texts_make(struct classify *c)
{
    struct likelihood_ask ask = {.template = c->template,
                                 .input = c->text,
                                 .n_input = c->n_text,
                                 .labels = (const char *const *)c->label,
                                 .n_labels = c->n_labels,
                                 .tokenize = tokenize,
                                 .user = c};
    struct ll_engine_info info;
    struct err_text et;

    ll_engine_info(c->engine, &info);
    c->n_vocab = info.n_vocab;
    ask.n_ctx = info.n_ctx;
    if (!likelihood_init(&c->likelihood, &ask, &et))
        return STATUS_OK;
    say("classify: %s", et.text);
    return STATUS_FAILED;
}

/* Reads the rest of one text behind what all share, which the first one reads for all. */
static enum ll_code run_read(struct classify *c, int run, struct ll_error *error)
{
    struct likelihood *l = &c->likelihood;
    int n_tokens, at = run ? l->n_shared - 1 : 0, n;
    int n_piece = (int)(LOGITS_BYTES / ((size_t)c->n_vocab * sizeof(float)));
    const int32_t *tokens = likelihood_run(l, run, &n_tokens);
    const float *rows;
    enum ll_code code = ll_session_truncate(c->session, at, error);

    n_piece = n_piece < 16 ? 16 : n_piece;
    if (!code && at < l->n_shared - 1)
        code = ll_session_add_tokens(c->session, tokens, l->n_shared - 1, error);
    for (at = l->n_shared - 1; !code && at < n_tokens; at += n) {
        n = n_tokens - at < n_piece ? n_tokens - at : n_piece;
        code = ll_session_add_tokens(c->session, tokens + at, n, error);
        if (!code)
            code = ll_session_read(c->session, n, &rows, error);
        if (!code)
            likelihood_rows(l, run, rows, at, n, c->n_vocab);
    }
    return code;
}

static int by_probability(const void *a, const void *b)
{
    const struct likelihood_label *x = *(const struct likelihood_label *const *)a;
    const struct likelihood_label *y = *(const struct likelihood_label *const *)b;

    return x->logprob != y->logprob ? (x->logprob < y->logprob ? 1 : -1) : x < y ? -1 : 1;
}

static int result_print(const struct classify *c)
{
    static const struct table_column columns[] = {
        {"label", false}, {"probability", true}, {"log p", true},
        {"tokens", true}, {"log p/token", true},
    };
    const struct likelihood *l = &c->likelihood;
    const struct likelihood_label *order[LIKELIHOOD_LABELS_MAX];
    struct table t;

    if (c->json)
        return json_print(likelihood_json(l));
    for (int i = 0; i < l->n_labels; i++)
        order[i] = &l->label[i];
    qsort(order, (size_t)l->n_labels, sizeof *order, by_probability);
    table_init(&t, columns, (int)ARRAY_LEN(columns));
    for (int i = 0; i < l->n_labels; i++) {
        table_row(&t);
        table_cell(&t, 0, "%s", order[i]->name);
        table_cell(&t, 1, "%.4f", order[i]->p);
        table_cell(&t, 2, "%.3f", order[i]->logprob);
        table_cell(&t, 3, "%d", order[i]->n_scored);
        table_cell(&t, 4, "%.3f", order[i]->mean);
    }
    table_print(&t, stdout);
    table_fini(&t);
    return out_finish();
}

static int judge(struct classify *c)
{
    struct ll_error error;

    if (ll_session_open(c->engine, NULL, &c->session, &error))
        return fail(&error);
    for (int run = 0; run < c->likelihood.n_runs; run++)
        if (run_read(c, run, &error))
            return fail(&error);
    likelihood_settle(&c->likelihood);
    return result_print(c);
}

int cmd_classify(int argc, char **argv)
{
    struct classify c = {0};
    int status = parse(&c, argc, argv);

    if (status < 0)
        status = text_find(&c);
    if (status >= 0)
        goto out;
    if (c.open.cluster && !*c.open.cluster && c.state)
        c.open.cluster = c.state;
    status = c.open.cluster ? cluster_engine_open(&c.open, &c.engine)
                            : engine_open(c.model, &c.open, &c.engine);
    if (!status)
        status = texts_make(&c);
    if (!status)
        status = judge(&c);
out:
    ll_session_close(c.session);
    ll_engine_close(c.engine);
    likelihood_fini(&c.likelihood);
    for (int i = 0; i < c.n_labels; i++)
        free(c.label[i]);
    free(c.text);
    return status;
}
