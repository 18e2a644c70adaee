/* chat.h: the parent's side of what a child does with templates and schemas, and the pace at which
 * a growing answer is read again. */
#include "text/chat.h"

#include <stdlib.h>
#include <string.h>

#include "base/apart.h"
#include "base/mem.h"
#include "text/stack.h"
#include "text/text_shim.h"

enum {
    PARSER_BYTES_MAX = 8 << 20,
    FORM_BYTES_MAX = TEXT_BYTES_MAX + GRAMMAR_BYTES_MAX + PARSER_BYTES_MAX + (1 << 20),
    STOPS_MAX = 256,
    CAPS_BYTES_MAX = 64 << 10,

    /* An answer is parsed from its beginning each time, so a long one is parsed more seldom: after
     * each 64th part more of it. */
    PACE = 64,
    LEVELS_DIRECT = 64, /* of nesting: no matter for the caller's own stack */
    LEVELS_MAX = 32768,
    STACK_PER_LEVEL = 16 << 10, /* bytes */
    STACK_BYTES_MIN = 1 << 20,
};

/* ---- the form ---- */

/* A stranger's bytes: a template may have broken the child that wrote them. */
struct reader {
    const char *at;
    size_t left;
    bool bad;
};

static uint32_t read_number(struct reader *r)
{
    uint32_t n = 0;

    if (r->bad || r->left < sizeof n) {
        r->bad = true;
        return 0;
    }
    memcpy(&n, r->at, sizeof n);
    r->at += sizeof n;
    r->left -= sizeof n;
    return n;
}

static char *read_text(struct reader *r)
{
    size_t n = read_number(r);
    char *s;

    if (r->bad || n > r->left || memchr(r->at, 0, n)) {
        r->bad = true;
        return NULL;
    }
    s = mem_alloc(n + 1);
    memcpy(s, r->at, n);
    s[n] = '\0';
    r->at += n;
    r->left -= n;
    return s;
}

static void read_grammar(struct reader *r, struct grammar *g)
{
    struct grammar_trigger *triggers;
    char *text = read_text(r);
    uint32_t n;

    g->text = text;
    g->prefix = read_text(r);
    g->begin = read_text(r);
    g->lazy = read_number(r) != 0;
    n = read_number(r);
    if (r->bad || n > GRAMMAR_TRIGGERS_MAX) {
        r->bad = true;
        return;
    }
    triggers = mem_zalloc(n, sizeof *triggers);
    g->triggers = triggers;
    g->n_triggers = (int)n;
    for (uint32_t i = 0; i < n; i++) {
        uint32_t kind = read_number(r);

        r->bad |= kind > TRIGGER_PATTERN_FULL;
        triggers[i].kind = r->bad ? TRIGGER_TOKEN : (enum trigger_kind)kind;
        triggers[i].token = (int32_t)read_number(r);
        triggers[i].text = read_text(r);
    }
    if (!r->bad && !text[0]) { /* none */
        free(text);
        g->text = NULL;
    }
}

static void read_stops(struct reader *r, struct chat_form *f)
{
    uint32_t n = read_number(r);

    if (r->bad || n > STOPS_MAX) {
        r->bad = true;
        return;
    }
    f->stops = mem_zalloc(n, sizeof *f->stops);
    f->n_stops = (int)n;
    for (uint32_t i = 0; i < n; i++)
        f->stops[i] = read_text(r);
}

static enum err form_read(const char *bytes, size_t n, struct chat_form *f, struct err_text *et)
{
    struct reader r = {bytes, n, false};

    f->prompt = read_text(&r);
    read_grammar(&r, &f->grammar);
    read_stops(&r, f);
    f->parser = read_text(&r);
    if (r.bad || r.left)
        return err_set(et, ERR_INPUT, "the chat's template broke its reader");
    return ERR_NONE;
}

void chat_form_fini(struct chat_form *f)
{
    for (int i = 0; i < f->grammar.n_triggers; i++)
        free((void *)f->grammar.triggers[i].text);
    free((void *)f->grammar.triggers);
    free((void *)f->grammar.text);
    free((void *)f->grammar.prefix);
    free((void *)f->grammar.begin);
    for (int i = 0; i < f->n_stops; i++)
        free(f->stops[i]);
    free(f->stops);
    free(f->prompt);
    free(f->parser);
    memset(f, 0, sizeof *f);
}

/* ---- what the child does ---- */

struct job {
    const struct text *t;
    const struct chat_ask *ask;
    const char *schema;
};

static enum err apply_work(const void *arg, char **out, size_t *n, struct err_text *et)
{
    const struct job *job = arg;
    enum err e = shim_chat_apply(job->t, job->ask, out, n, et);

    if (!e && *n > FORM_BYTES_MAX)
        return err_set(et, ERR_LIMIT, "the chat's template and tools give more than %d MiB",
                       FORM_BYTES_MAX >> 20);
    return e;
}

static enum err schema_work(const void *arg, char **out, size_t *n, struct err_text *et)
{
    const struct job *job = arg;

    return shim_schema_grammar(job->schema, out, n, et);
}

static enum err caps_work(const void *arg, char **out, size_t *n, struct err_text *et)
{
    const struct job *job = arg;

    return shim_chat_caps(job->t, out, n, et);
}

static enum err ask_check(const struct text *t, const struct chat_ask *ask, struct err_text *et)
{
    const char *texts[] = {ask->messages,    ask->tools,   ask->tool_choice,
                           ask->json_schema, ask->grammar, ask->template_kwargs};
    size_t total = 0;

    if (!text_has_template(t))
        return err_set(et, ERR_UNSUPPORTED,
                       "the model has no chat template; it can only continue text "
                       "(/v1/completions)");
    if (!ask->messages)
        return err_set(et, ERR_INPUT, "messages are missing");
    if (ask->grammar && (ask->json_schema || ask->tools))
        return err_set(et, ERR_INPUT,
                       "a grammar cannot go together with tools or a JSON schema; send one of "
                       "them");
    if (ask->grammar && strlen(ask->grammar) > GRAMMAR_BYTES_MAX)
        return err_set(et, ERR_LIMIT, "grammar is longer than %d KiB", GRAMMAR_BYTES_MAX >> 10);
    for (size_t i = 0; i < ARRAY_LEN(texts); i++) {
        total += texts[i] ? strlen(texts[i]) : 0;
        if (total > TEXT_BYTES_MAX)
            return err_set(et, ERR_LIMIT, "the chat exceeds %d MiB", TEXT_BYTES_MAX >> 20);
    }
    return template_check(t, et);
}

enum err chat_apply(const struct text *t, const struct chat_ask *ask, struct chat_form *out,
                    struct err_text *et)
{
    struct job job = {.t = t, .ask = ask};
    struct apart_task task = {"the chat template, or a schema,", apply_work, &job, SHIM_CHILD,
                              .answer_max = FORM_BYTES_MAX};
    enum err e = ask_check(t, ask, et);
    char *bytes = NULL;
    size_t n = 0;

    memset(out, 0, sizeof *out);
    if (!e)
        e = apart_run(&task, &bytes, &n, et);
    if (!e)
        e = form_read(bytes, n, out, et);
    if (e)
        chat_form_fini(out);
    free(bytes);
    return e;
}

enum err chat_schema_grammar(const char *schema, char **out, struct err_text *et)
{
    struct job job = {.schema = schema};
    struct apart_task task = {"the JSON schema", schema_work, &job, SHIM_CHILD,
                              .answer_max = GRAMMAR_BYTES_MAX};
    size_t n;

    *out = NULL;
    if (strlen(schema) > TEXT_BYTES_MAX)
        return err_set(et, ERR_LIMIT, "the JSON schema exceeds %d MiB", TEXT_BYTES_MAX >> 20);
    return apart_run(&task, out, &n, et);
}

enum err chat_caps(const struct text *t, char **out, struct err_text *et)
{
    struct job job = {.t = t};
    struct apart_task task = {"the chat template", caps_work, &job, SHIM_CHILD,
                              .answer_max = CAPS_BYTES_MAX};
    enum err e;
    size_t n;

    *out = NULL;
    if (!text_has_template(t))
        return err_set(et, ERR_UNSUPPORTED, "the model has no chat template");
    e = template_check(t, et);
    return e ? e : apart_run(&task, out, &n, et);
}

/* ---- the way back ---- */

struct chat_parser {
    struct shim_parser *p;
    size_t n, n_read; /* bytes it has, and had when it was last parsed */
    size_t levels;
};

struct reading {
    struct shim_parser *p;
    bool final, plain;
    char *out;
    enum err e;
    struct err_text et;
};

enum err chat_parser_new(const char *parser, struct chat_parser **out, struct err_text *et)
{
    struct shim_parser *p;
    enum err e = shim_parser_new(parser, &p, et);

    *out = NULL;
    if (e)
        return e;
    *out = mem_zalloc(1, sizeof **out);
    (*out)->p = p;
    return ERR_NONE;
}

void chat_parser_free(struct chat_parser *p)
{
    if (!p)
        return;
    shim_parser_free(p->p);
    free(p);
}

static void reading_work(void *arg)
{
    struct reading *r = arg;

    r->e = shim_parser_read(r->p, r->final, r->plain, &r->out, &r->et);
}

enum err chat_parser_feed(struct chat_parser *p, const char *text, size_t n, bool final,
                          char **deltas, struct err_text *et)
{
    struct reading r = {.p = p->p, .final = final};
    enum err e = shim_parser_add(p->p, text, n, &p->levels, et);

    *deltas = NULL;
    if (e)
        return e;
    p->n += n;
    if (!final && (p->n == p->n_read || p->n - p->n_read < p->n / PACE)) {
        *deltas = mem_strdup("[]");
        return ERR_NONE;
    }
    p->n_read = p->n;
    /* The parser recurses into brackets, and a model can go on opening them. Beyond a depth that no
     * call has, the rest is content. */
    r.plain = p->levels > LEVELS_MAX;
    if (p->levels <= LEVELS_DIRECT || r.plain) {
        reading_work(&r);
    } else {
        e = stack_run(reading_work, &r, STACK_BYTES_MIN + p->levels * STACK_PER_LEVEL, et);
        if (e)
            return e;
    }
    if (r.e)
        return err_set(et, r.e, "%s", r.et.text);
    *deltas = r.out;
    return ERR_NONE;
}

enum err chat_parser_message(const struct chat_parser *p, char **out, int *n_calls,
                             struct err_text *et)
{
    return shim_parser_message(p->p, out, n_calls, et);
}
