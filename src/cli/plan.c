/* lingua plan: what goes where and why, on the running cluster (by the socket of its head) or on
 * paper (a devices file). Both give the same document (head/plan_json.h), from which the table, the
 * --json and the drawing are made. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "api/json.h"
#include "base/mem.h"
#include "base/words.h"
#include "cli/cmd.h"
#include "cli/member.h"
#include "cli/open.h"
#include "cli/options.h"
#include "cli/plan_table.h"
#include "cli/say.h"
#include "head/plan_json.h"
#include "head/remote.h"
#include "wire/step.h"

enum {
    PROMPT_DEFAULT = 256,
    SLOTS_DEFAULT = 4,      /* as lingua serve has them, */
    CTX_DEFAULT_MAX = 4096, /* and this, */
    ROWS_MAX = 128,         /* and its chunks */
};

struct plan_command {
    const char *model, *devices, *use, *without, *svg, *state;
    int64_t concurrency, slots, prompt, depth; /* 0, and depth -1: not said */
    struct open_options open;
    bool equal, private, json, explain, measured;
};

static const char about[] =
    "Says which device gets which part of the model, what that makes of a token's time, what\n"
    "limits it, and what each device is good for: how the cluster would do without it, or with\n"
    "those that are left out. It asks the running head (lingua serve); with --devices it plans on\n"
    "paper, for devices that a file describes (docs/planner.md; docs/examples has some). Nothing\n"
    "is changed by asking.";

static int parse(struct plan_command *c, int argc, char **argv)
{
    const struct option_spec options[] = {
        {"devices", 0, OPTION_TEXT, &c->devices, 0, 0, NULL, "FILE",
         "plan on paper, for the devices of this file"},
        {"concurrency", 'c', OPTION_WHOLE, &c->concurrency, 1, PLACE_CONCURRENCY_MAX, NULL, "N",
         "answers under way at once (default: 1)"},
        OPTION_CTX(&c->open, "positions each slot has room for"),
        {"context", 0, OPTION_WHOLE, &c->open.ctx, 2, 1 << 24, NULL, "N", "the same as --ctx"},
        {"slots", 0, OPTION_WHOLE, &c->slots, 1, SEGMENT_SLOTS_MAX, NULL, "N",
         "sequences with memory of their own (default: 4, or as\nmany as answers at once)"},
        OPTION_KV(&c->open),
        {"prompt", 0, OPTION_WHOLE, &c->prompt, 1, 1 << 24, NULL, "N",
         "tokens of the prompt whose first token is predicted\n(default: 256)"},
        {"depth", 0, OPTION_WHOLE, &c->depth, 0, 1 << 24, NULL, "N",
         "positions an answer has behind it (default: the prompt)"},
        {"use", 0, OPTION_TEXT, &c->use, 0, 0, NULL, "NAME,..", "these must take part"},
        {"without", 0, OPTION_TEXT, &c->without, 0, 0, NULL, "NAME,..", "these must not"},
        {"equal", 0, OPTION_FLAG, &c->equal, 0, 0, NULL, NULL,
         "equal numbers of modules for all, to compare with"},
        {"private", 0, OPTION_FLAG, &c->private, 0, 0, NULL, NULL,
         "the text's ends of the model only on devices that are\nmine"},
        {"explain", 0, OPTION_FLAG, &c->explain, 0, 0, NULL, NULL,
         "how the plan was found, and how good it is proved to be"},
        {"measured", 0, OPTION_FLAG, &c->measured, 0, 0, NULL, NULL,
         "what was measured, beside what was predicted"},
        {"json", 0, OPTION_FLAG, &c->json, 0, 0, NULL, NULL, "everything, for machines"},
        {"svg", 0, OPTION_TEXT, &c->svg, 0, 0, NULL, "FILE", "draw it into this file as well"},
        OPTION_STATE(&c->state),
    };
    const struct command_spec spec = {"plan [MODEL] [--devices FILE] [OPTIONS]", about, options,
                                      sizeof options / sizeof *options, 1};
    const char *args[ARGS_MAX];
    int n_args, status;

    c->depth = -1;
    status = options_parse(&spec, argc, argv, args, &n_args);
    c->model = n_args ? args[0] : NULL;
    return status;
}

static int failed(const char *sentence)
{
    say("plan: %s", sentence);
    return STATUS_FAILED;
}

/* ---- names ---- */

static json_t *names_of(const char *text)
{
    json_t *list = json_array();
    size_t n;

    for (const char *name; (name = list_next(&text, &n));)
        json_array_append_new(list, json_text(name, n));
    return list;
}

static int wish_for(struct plan_devices *d, const char *name, enum place_wish wish)
{
    const char *near;

    for (int i = 0; i < d->n; i++) {
        if (strcmp(d->name[i], name) != 0)
            continue;
        if (i == 0 && wish == PLACE_NOT) {
            say("plan: %s is the head, which has the model: it cannot be left out", name);
            return STATUS_FAILED;
        }
        d->device[i].wish = wish;
        return -1;
    }
    near = nearest_word(name, (const char *const *)d->name, d->n);
    if (near)
        say("plan: no device is called \"%s\"; did you mean \"%s\"?", name, near);
    else
        say("plan: no device is called \"%s\"", name);
    return STATUS_FAILED;
}

static int wishes_set(struct plan_devices *d, const json_t *names, enum place_wish wish)
{
    int status = -1;

    for (size_t i = 0; i < json_array_size(names) && status < 0; i++)
        status = wish_for(d, json_string_value(json_array_get(names, i)), wish);
    return status;
}

/* A name that must and must not take part at once. */
static int wishes_check(const json_t *use, const json_t *without)
{
    for (size_t i = 0; i < json_array_size(use); i++)
        for (size_t k = 0; k < json_array_size(without); k++)
            if (json_equal(json_array_get(use, i), json_array_get(without, k))) {
                say("plan: --use and --without both name \"%s\"",
                    json_string_value(json_array_get(use, i)));
                return STATUS_USAGE;
            }
    return -1;
}

/* ---- on paper ---- */

/* All that a plan on paper is made of. */
struct paper {
    struct model *model;
    struct model_classes classes;
    struct place_module *modules;
    struct plan_devices devices;
    struct place_problem p;
};

static enum err paper_open(struct paper *w, const struct plan_command *c, const char *path,
                           struct err_text *et)
{
    static const enum kv_type kinds[] = {KV_F16, KV_Q8_0, KV_F32};
    struct segment_opts opts = {.kv = kinds[c->open.kv]};
    int trained, slots = c->concurrency > SLOTS_DEFAULT ? (int)c->concurrency : SLOTS_DEFAULT;
    enum err e = model_open(path, &w->model, et);

    if (!e)
        e = model_check_kv(w->model, opts.kv, et);
    if (!e)
        e = model_classes(w->model, opts.kv, &w->classes, et);
    if (e)
        return e;
    trained = model_shape(w->model)->n_ctx_train;
    if (trained < 1 || trained > CTX_DEFAULT_MAX)
        trained = CTX_DEFAULT_MAX;
    opts.n_ctx = c->open.ctx ? (int)c->open.ctx : trained;
    opts.n_slots = c->slots ? (int)c->slots : slots;
    opts.n_rows_max = opts.n_ctx < ROWS_MAX ? opts.n_ctx : ROWS_MAX;
    w->modules = mem_zalloc((size_t)model_n_modules(w->model), sizeof *w->modules);
    place_describe(w->model, &w->classes, &opts, &w->p, w->modules);
    w->p.want_private = c->private;
    w->p.concurrency = c->concurrency ? (int)c->concurrency : 1;
    w->p.group_max = STEP_DECODE_ROWS;
    w->p.prompt = c->prompt                     ? (int)c->prompt
                  : opts.n_ctx > PROMPT_DEFAULT ? PROMPT_DEFAULT
                                                : opts.n_ctx / 2;
    w->p.depth = c->depth >= 0 ? (int)c->depth : w->p.prompt;
    if (w->p.prompt >= opts.n_ctx || w->p.depth >= opts.n_ctx)
        return err_set(et, ERR_INPUT,
                       "a prompt of %d tokens and %d positions behind an answer do not both fit a "
                       "context of %d: give --prompt, --depth or --ctx",
                       w->p.prompt, w->p.depth, opts.n_ctx);
    return ERR_NONE;
}

static void paper_close(struct paper *w)
{
    plan_devices_fini(&w->devices);
    free(w->modules);
    model_classes_fini(&w->classes);
    if (w->model)
        model_close(w->model);
}

/* The plan and its report, as a document. */
static enum err paper_solve(const struct plan_command *c, const struct paper *w, const char *note,
                            json_t **doc, struct err_text *et)
{
    struct placement *found = mem_zalloc(1, sizeof *found);
    struct report *report = mem_zalloc(1, sizeof *report);
    struct plan_json_opts opts = {.note = note, .guessed = w->devices.guessed};
    double began = now_s();
    enum err e = c->equal ? place_equal(&w->p, found, et)
                          : place_solve(&w->p, &PLACE_OPTS_DEFAULT, found, et);

    opts.solve_ms = 1e3 * (now_s() - began);
    if (!e) {
        report_make(&w->p, found, report);
        *doc = plan_json(&w->p, w->model, report, &opts);
    }
    free(found);
    free(report);
    return e;
}

/* file: a devices file that is here already, or NULL for the one of the command line. */
static int plan_on_paper(const struct plan_command *c, const json_t *file, json_t **doc)
{
    struct paper w = {.model = NULL};
    struct err_text et = {{0}};
    json_t *use = names_of(c->use), *without = names_of(c->without);
    const char *note = file ? "the head's devices" : c->devices;
    char *path = NULL;
    int status = model_path_find(c->model, &path);

    if (status > 0)
        goto out;
    if (paper_open(&w, c, path, &et) ||
        (file ? plan_devices_take(file, note, w.model, &w.p, &w.devices, &et)
              : plan_devices_read(note, w.model, &w.p, &w.devices, &et))) {
        status = failed(et.text);
        goto out;
    }
    status = wishes_set(&w.devices, use, PLACE_MUST);
    if (status < 0)
        status = wishes_set(&w.devices, without, PLACE_NOT);
    if (status < 0)
        status = paper_solve(c, &w, note, doc, &et) ? failed(et.text) : -1;
out:
    paper_close(&w);
    json_decref(use);
    json_decref(without);
    free(path);
    return status;
}

/* ---- on the running cluster ---- */

/* Only what was said: the head has its own idea of the rest. */
static json_t *question(const struct plan_command *c)
{
    json_t *q = json_pack("{s:s}", "do", "plan");

    if (c->concurrency)
        json_object_set_new(q, "concurrency", json_integer(c->concurrency));
    if (c->open.ctx)
        json_object_set_new(q, "context", json_integer(c->open.ctx));
    if (c->slots)
        json_object_set_new(q, "slots", json_integer(c->slots));
    if (c->prompt)
        json_object_set_new(q, "prompt", json_integer(c->prompt));
    if (c->depth >= 0)
        json_object_set_new(q, "depth", json_integer(c->depth));
    if (c->use)
        json_object_set_new(q, "use", names_of(c->use));
    if (c->without)
        json_object_set_new(q, "without", names_of(c->without));
    if (c->equal)
        json_object_set_new(q, "equal", json_true());
    if (c->private)
        json_object_set_new(q, "private", json_true());
    return q;
}

/* Whether the head serves the file that the command line names, or it names none. */
static int same_model(const struct plan_command *c, struct remote *r, bool *same)
{
    json_t *answer;
    struct err_text et = {{0}};
    char *here, *there;

    *same = true;
    if (!c->model)
        return -1;
    here = realpath(c->model, NULL);
    if (!here) {
        say("plan: %s: %s", c->model, strerror(errno));
        return STATUS_FAILED;
    }
    if (remote_ask(r, json_pack("{s:s}", "do", "devices"), &answer, &et)) {
        free(here);
        return failed(et.text);
    }
    there = realpath(remote_text(json_object_get(answer, "model"), "path"), NULL);
    *same = there && strcmp(here, there) == 0;
    json_decref(answer);
    free(here);
    free(there);
    return -1;
}

/* Another model than the head's: planned here, for the head's devices. */
static int plan_other_model(const struct plan_command *c, struct remote *r, json_t **doc)
{
    json_t *answer;
    const json_t *file;
    struct err_text et = {{0}};
    int status;

    if (remote_ask(r, json_pack("{s:s}", "do", "plan"), &answer, &et))
        return failed(et.text);
    file = json_object_get(answer, "devices_file");
    status = file ? plan_on_paper(c, file, doc)
                  : failed("the head does not say what its devices are like, so that only its own "
                           "model can be planned: leave MODEL out");
    json_decref(answer);
    return status;
}

static int plan_live(const struct plan_command *c, json_t **doc)
{
    struct remote *r;
    struct err_text et = {{0}};
    bool same;
    enum err e = remote_open(c->state, &r, &et);
    int status;

    if (e == ERR_GONE)
        return failed("no head runs here, whose devices could be planned with; start one with "
                      "lingua serve MODEL, or plan on paper: lingua plan MODEL --devices FILE, "
                      "where docs/examples/home.json is such a file");
    if (e)
        return failed(et.text);
    status = same_model(c, r, &same);
    if (status < 0 && same && c->open.kv) /* its devices were measured with the one it has */
        status = failed("--kv is for plans on paper (--devices FILE): a running head keeps the KV "
                        "cache it was started with; lingua serve --kv gives it another");
    else if (status < 0 && same)
        status = remote_ask(r, question(c), doc, &et) ? failed(et.text) : -1;
    else if (status < 0)
        status = plan_other_model(c, r, doc);
    remote_close(r);
    return status;
}

/* ---- the command ---- */

static int draw(const json_t *doc, const char *path)
{
    char *svg = plan_svg(doc);
    FILE *f = fopen(path, "wbe");
    bool bad = !f || fputs(svg, f) < 0;

    if (f && fclose(f))
        bad = true;
    free(svg);
    if (!bad)
        return STATUS_OK;
    say("plan: write %s: %s", path, strerror(errno));
    return STATUS_FAILED;
}

static int show(const struct plan_command *c, json_t *doc)
{
    const struct plan_table_opts opts = {.explain = c->explain, .measured = c->measured};
    int status = c->svg ? draw(doc, c->svg) : STATUS_OK;

    if (status)
        return status;
    if (c->json)
        return json_print(json_incref(doc));
    plan_table_print(doc, &opts);
    return out_finish();
}

int cmd_plan(int argc, char **argv)
{
    struct plan_command c = {0};
    json_t *doc = NULL, *use, *without;
    const char *unsuited;
    int status = parse(&c, argc, argv);

    if (status >= 0)
        return status;
    unsuited = model_cpu_unsuited();
    if (unsuited)
        return failed(unsuited);
    use = names_of(c.use);
    without = names_of(c.without);
    status = wishes_check(use, without);
    if (status < 0)
        status = c.devices ? plan_on_paper(&c, NULL, &doc) : plan_live(&c, &doc);
    if (status < 0)
        status = show(&c, doc);
    json_decref(doc);
    json_decref(use);
    json_decref(without);
    return status;
}
