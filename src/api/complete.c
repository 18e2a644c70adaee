/* POST /v1/completions, OpenAI's, and POST /completion, llama-server's: the same work in two
 * shapes. Choices are numbered prompt by prompt: `n` of the first, `n` of the second, ... In OpenAI's
 * dialect `echo` with `logprobs` has likelihoods of the prompt as well; they come from generations
 * of their own, planned behind the choices (echo.h). */
#include <stdlib.h>
#include <string.h>

#include "api/api_impl.h"
#include "api/ask.h"
#include "api/choices.h"
#include "api/echo.h"
#include "api/json.h"
#include "api/params.h"
#include "api/prompts.h"
#include "api/shape.h"
#include "base/mem.h"
#include "text/chat.h"

struct choice {
    struct growing text; /* without a stream: all of it */
    json_t *probs;       /* NULL: not wanted; in a stream: of this event */
    json_t *tokens;
    size_t offset; /* characters before the next token */
    int n_tokens;
    bool begun;
    struct gen_end end;
    char *word; /* the stop word that ended it */
};

struct completion {
    bool native;
    struct params p;
    struct prompts prompts;
    struct echo *echo; /* NULL: none; of each prompt */
    char *schema_grammar;
    char id[CALL_ID_MAX];
    int n_choices;
    struct choice *choice;
    int64_t n_echoed; /* tokens of prompts that were read a second time, for echo */
};

static struct one_prompt *prompt_of(const struct completion *c, int i)
{
    return &c->prompts.one[i / c->p.n];
}

static size_t characters(const char *s, size_t n)
{
    size_t count = 0;

    for (size_t i = 0; i < n; i++)
        count += ((unsigned char)s[i] & 0xc0) != 0x80;
    return count;
}

/* ---- before ---- */

static bool schema_read(struct completion *c, struct fault *f)
{
    char *schema = c->p.any_object ? mem_strdup("{}") : NULL;
    struct err_text et;
    enum err e;

    if (c->p.json_schema) {
        schema = ask_schema_text(c->p.json_schema, "json_schema", f);
        if (!schema)
            return false;
    }
    if (!schema)
        return true;
    e = chat_schema_grammar(schema, &c->schema_grammar, &et);
    free(schema);
    return e ? work_fault(f, e, &et) : true;
}

static bool unsupported_check(const json_t *body, const struct completion *c, struct fault *f)
{
    const json_t *suffix = json_object_get(body, "suffix");
    int64_t best_of = c->p.n;

    if (json_string_length(suffix) > 0)
        return fault_field(f, "suffix",
                           "suffix is not supported: this server continues text, it does not fill "
                           "gaps");
    if (!json_get_int(body, "best_of", 1, API_N_MAX, &best_of, f))
        return false;
    if (best_of != c->p.n)
        return fault_field(f, "best_of", "best_of is not supported; ask for n and choose");
    return true;
}

static void choices_make(struct completion *c)
{
    bool probs = c->p.n_top >= 0;

    c->n_choices = c->prompts.n * c->p.n;
    c->choice = mem_zalloc((size_t)c->n_choices, sizeof *c->choice);
    for (int i = 0; i < c->n_choices; i++) {
        struct choice *ch = &c->choice[i];
        const struct one_prompt *p = prompt_of(c, i);

        ch->tokens = json_array();
        if (probs)
            ch->probs = c->native ? json_array() : shape_probs_new();
        if (c->p.echo && !c->native)
            ch->offset = characters(p->text, p->n_text);
    }
}

static bool echo_plan(struct work *w, struct completion *c, struct fault *f)
{
    c->echo = mem_zalloc((size_t)c->prompts.n, sizeof *c->echo);
    for (int i = 0; i < c->prompts.n; i++) {
        const struct one_prompt *p = &c->prompts.one[i];
        const struct gen_opts o = {.kind = GEN_LOGITS,
                                   .tokens = p->tokens,
                                   .n_tokens = p->n_tokens,
                                   .slot = -1,
                                   .fresh = true};

        echo_init(&c->echo[i], p->tokens, p->n_tokens, c->p.n_top);
        c->echo[i].bos = p->bos;
        if (work_gen(w, &o, -1, f) < 0)
            return false;
    }
    return true;
}

static bool prepare(struct work *w, struct completion *c, struct fault *f)
{
    const json_t *body = work_body(w);
    struct grammar grammar = {0};

    call_id("cmpl-", c->id);
    if (!params_read(body, work_text(w), &c->p, f) || !unsupported_check(body, c, f) ||
        !prompts_read(json_object_get(body, "prompt"), work_text(w), &c->prompts, f) ||
        !schema_read(c, f))
        return false;
    /* OpenAI's default; a model that finds no end would fill its context. */
    if (!c->native && c->p.n_max < 0 && !json_object_get(body, "max_tokens"))
        c->p.n_max = 16;
    grammar.text = c->schema_grammar;
    choices_make(c);
    for (int i = 0; i < c->prompts.n; i++) {
        const struct prompt prompt = {c->prompts.one[i].tokens, c->prompts.one[i].n_tokens,
                                      c->p.stops, c->p.n_stops,
                                      c->schema_grammar ? &grammar : NULL};

        if (!choices_plan(w, &c->p, &prompt, f))
            return false;
    }
    if (c->p.stream)
        work_stream(w);
    return c->native || !c->p.echo || c->p.n_top < 0 || c->p.stream || echo_plan(w, c, f);
}

static bool openai_prepare(struct work *w, void *own, struct fault *f)
{
    return prepare(w, own, f);
}

static bool native_prepare(struct work *w, void *own, struct fault *f)
{
    struct completion *c = own;

    c->native = true;
    return prepare(w, c, f);
}

/* ---- OpenAI's ---- */

/* Takes probs. */
static json_t *openai_object(struct work *w, const struct completion *c, json_t *choices)
{
    json_t *o = json_pack("{s:s, s:s, s:I, s:s, s:s, s:o}", "id", c->id, "object",
                          "text_completion", "created", (json_int_t)work_created(w), "model",
                          work_model(w), "system_fingerprint", work_system(w), "choices", choices);

    if (c->p.stream && c->p.include_usage)
        json_object_set_new(o, "usage", json_null());
    return o;
}

/* Takes probs; NULL: none. */
static json_t *openai_choice(int i, json_t *text, json_t *probs, const char *reason)
{
    return json_pack("{s:i, s:o, s:o, s:s?}", "index", i, "text", text, "logprobs",
                     probs ? probs : json_null(), "finish_reason", reason);
}

static void openai_event(struct work *w, struct completion *c, int i, json_t *text,
                         const char *reason)
{
    struct choice *ch = &c->choice[i];
    json_t *probs = NULL;

    if (ch->probs) {
        probs = ch->probs;
        ch->probs = shape_probs_new();
    }
    work_event(w, openai_object(w, c, json_pack("[o]", openai_choice(i, text, probs, reason))));
}

static bool openai_finish(struct work *w, void *own, struct fault *f)
{
    struct completion *c = own;
    json_t *choices = json_array(), *answer;
    struct work_usage usage;

    for (int i = 0; i < c->n_choices; i++) {
        struct choice *ch = &c->choice[i];
        const struct one_prompt *p = prompt_of(c, i);
        struct growing whole = {0};
        json_t *probs = ch->probs;

        ch->probs = NULL;
        if (c->p.echo)
            growing_add(&whole, p->text, p->n_text);
        growing_add(&whole, ch->text.s, ch->text.n);
        if (c->echo)
            probs = echo_before(&c->echo[i / c->p.n], work_text(w), probs);
        json_array_append_new(choices, openai_choice(i, json_text(whole.s, whole.n), probs,
                                                     shape_reason(&ch->end, 0)));
        free(whole.s);
    }
    answer = openai_object(w, c, choices);
    work_usage(w, &usage);
    usage.n_prompt -= c->n_echoed;
    json_object_set_new(answer, "usage", usage_json(&usage));
    json_object_set_new(answer, "timings", shape_timings(&c->choice[0].end));
    work_answer(w, answer);
    return true;
}

static void openai_closing(struct work *w, void *own)
{
    struct completion *c = own;
    json_t *last;

    if (c->p.include_usage) {
        last = openai_object(w, c, json_array());
        json_object_set_new(last, "usage", work_usage_json(w));
        json_object_set_new(last, "timings", shape_timings(&c->choice[0].end));
        work_event(w, last);
    }
    work_done(w);
}

/* ---- llama-server's ---- */

static json_t *native_settings(struct work *w, const struct completion *c)
{
    json_t *settings = params_json(&c->p);

    json_object_set_new(settings, "n_ctx", json_integer(work_facts(w)->n_ctx));
    return settings;
}

static json_t *native_last(struct work *w, struct completion *c, int i)
{
    struct choice *ch = &c->choice[i];
    const struct one_prompt *p = prompt_of(c, i);
    bool stream = c->p.stream;
    json_t *o = json_pack(
        "{s:i, s:o, s:o, s:i, s:b, s:s, s:i, s:i, s:i, s:o, s:o, s:b, s:s, s:s, s:o}", "index", i,
        "content", stream ? json_string("") : json_text(ch->text.s ? ch->text.s : "", ch->text.n),
        "tokens", c->p.return_tokens && !stream ? json_incref(ch->tokens) : json_array(), "id_slot",
        ch->end.slot, "stop", 1, "model", work_model(w), "tokens_predicted", ch->end.n_generated,
        "tokens_evaluated", ch->end.n_prompt, "tokens_cached", ch->end.n_cached,
        "generation_settings", native_settings(w, c), "prompt", json_text(p->text, p->n_text),
        "truncated", 0, "stop_type", shape_stop_type(&ch->end), "stopping_word",
        ch->word ? ch->word : "", "timings", shape_timings(&ch->end));

    if (ch->probs && !stream)
        json_object_set(o, "completion_probabilities", ch->probs);
    return o;
}

static void native_event(struct work *w, struct completion *c, int i, const struct gen_chunk *chunk)
{
    struct choice *ch = &c->choice[i];
    json_t *event = json_pack("{s:i, s:o, s:o, s:b, s:i, s:i, s:i}", "index", i, "content",
                              json_text(chunk->text, chunk->n_text), "tokens", ch->tokens, "stop",
                              0, "id_slot", -1, "tokens_predicted", ch->n_tokens,
                              "tokens_evaluated", prompt_of(c, i)->n_tokens);

    ch->tokens = json_array();
    if (ch->probs) {
        json_object_set_new(event, "completion_probabilities", ch->probs);
        ch->probs = json_array();
    }
    work_event(w, event);
}

static bool native_finish(struct work *w, void *own, struct fault *f)
{
    struct completion *c = own;
    json_t *all = json_array();

    for (int i = 0; i < c->n_choices; i++)
        json_array_append_new(all, native_last(w, c, i));
    if (c->n_choices == 1) {
        work_answer(w, json_incref(json_array_get(all, 0)));
        json_decref(all);
    } else {
        work_answer(w, all);
    }
    return true;
}

/* ---- while it grows ---- */

static void tokens_note(struct work *w, struct completion *c, struct choice *ch,
                        const struct gen_chunk *chunk)
{
    for (int j = 0; j < chunk->n_tokens; j++) {
        const struct gen_token *token = &chunk->tokens[j];

        json_array_append_new(ch->tokens, json_integer(token->id));
        if (ch->probs && c->native)
            json_array_append_new(ch->probs, shape_prob(work_text(w), token, true));
        else if (ch->probs)
            shape_probs_add(ch->probs, work_text(w), token, ch->offset);
        ch->offset += characters(token->piece, (size_t)token->n_piece);
    }
    ch->n_tokens += chunk->n_tokens;
}

static void complete_started(struct work *w, void *own, int i, int n_cached)
{
    struct completion *c = own;
    const struct one_prompt *p;

    /* The prompts' own generations, for echo, stand behind the choices; they do not stream. */
    if (!c->p.stream || !c->p.echo || c->native || i >= c->n_choices)
        return;
    p = prompt_of(c, i);
    openai_event(w, c, i, json_text(p->text, p->n_text), NULL);
}

static void complete_token(struct work *w, void *own, int i, const struct gen_chunk *chunk)
{
    struct completion *c = own;
    struct choice *ch = &c->choice[i];

    tokens_note(w, c, ch, chunk);
    if (!c->p.stream)
        growing_add(&ch->text, chunk->text, chunk->n_text);
    else if (c->native)
        native_event(w, c, i, chunk);
    else
        openai_event(w, c, i, json_text(chunk->text, chunk->n_text), NULL);
}

static void complete_rows(struct work *w, void *own, const struct work_rows *rows)
{
    struct completion *c = own;

    if (c->echo && rows->i >= c->n_choices)
        echo_rows(&c->echo[rows->i - c->n_choices], rows);
}

static void complete_end(struct work *w, void *own, int i, const struct gen_end *end)
{
    struct completion *c = own;
    struct choice *ch;

    if (i >= c->n_choices) {
        c->n_echoed += end->n_prompt;
        return;
    }
    ch = &c->choice[i];
    ch->end = *end;
    if (end->why == GEN_WORD && end->word)
        ch->word = mem_strdup(end->word);
    if (c->p.stream && c->native)
        work_event(w, native_last(w, c, i));
    else if (c->p.stream)
        openai_event(w, c, i, json_string(""), shape_reason(end, 0));
}

static void complete_fini(void *own)
{
    struct completion *c = own;

    for (int i = 0; i < c->n_choices; i++) {
        free(c->choice[i].text.s);
        free(c->choice[i].word);
        json_decref(c->choice[i].probs);
        json_decref(c->choice[i].tokens);
    }
    for (int i = 0; c->echo && i < c->prompts.n; i++)
        echo_fini(&c->echo[i]);
    free(c->echo);
    free(c->choice);
    free(c->schema_grammar);
    prompts_fini(&c->prompts);
}

void handle_completions(void *api, struct call *call)
{
    static const struct work_kind kind = {.own_size = sizeof(struct completion),
                                          .body = true,
                                          .prepare = openai_prepare,
                                          .rows = complete_rows,
                                          .started = complete_started,
                                          .token = complete_token,
                                          .end = complete_end,
                                          .finish = openai_finish,
                                          .closing = openai_closing,
                                          .fini = complete_fini};

    work_start(api, call, &kind);
}

void handle_completion(void *api, struct call *call)
{
    static const struct work_kind kind = {.own_size = sizeof(struct completion),
                                          .body = true,
                                          .prepare = native_prepare,
                                          .started = complete_started,
                                          .token = complete_token,
                                          .end = complete_end,
                                          .finish = native_finish,
                                          .fini = complete_fini};

    work_start(api, call, &kind);
}
