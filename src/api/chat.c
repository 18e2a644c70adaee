/* POST /v1/chat/completions. The template and its grammar are made in `prepare`; what is generated
 * goes through the template's own parser on the pool, as it comes in a stream, at the end otherwise
 * (a parser reads all of an answer again for each part). */
#include <stdlib.h>
#include <string.h>

#include "api/api_impl.h"
#include "api/ask.h"
#include "api/choices.h"
#include "api/json.h"
#include "api/params.h"
#include "api/shape.h"
#include "base/mem.h"
#include "text/chat.h"

struct choice {
    struct chat_parser *parser;
    struct growing text; /* all of it; without a stream */
    json_t *deltas;      /* read and not yet sent; in a stream */
    json_t *probs;       /* logprobs.content, not yet sent; NULL: not wanted */
    int n_calls;
    struct gen_end end;
};

struct chat {
    struct params p;
    struct ask ask;
    struct chat_form form;
    int32_t *tokens;
    int n_tokens;
    const char *stops[GEN_STOPS_MAX];
    int n_stops;
    char id[CALL_ID_MAX];
    struct choice choice[API_N_MAX];
};

/* ---- before ---- */

static bool stops_join(struct chat *c, struct fault *f)
{
    for (int i = 0; i < c->p.n_stops; i++)
        c->stops[c->n_stops++] = c->p.stops[i];
    for (int i = 0; i < c->form.n_stops; i++) {
        if (c->n_stops == GEN_STOPS_MAX)
            return fault_field(f, "stop",
                               "with the %d of this model's template there is room for "
                               "%d stop words",
                               c->form.n_stops, GEN_STOPS_MAX - c->form.n_stops);
        c->stops[c->n_stops++] = c->form.stops[i];
    }
    return true;
}

static bool parsers_open(struct chat *c, struct fault *f, struct work *w)
{
    struct err_text et;

    for (int i = 0; i < c->p.n; i++) {
        enum err e = chat_parser_new(c->form.parser, &c->choice[i].parser, &et);

        if (e)
            return work_fault(f, e, &et);
        if (c->p.stream)
            c->choice[i].deltas = json_array();
        if (c->p.n_top >= 0)
            c->choice[i].probs = json_array();
    }
    return true;
}

static bool chat_prepare(struct work *w, void *own, struct fault *f)
{
    struct chat *c = own;
    struct prompt prompt;
    struct err_text et;
    enum err e;

    call_id("chatcmpl-", c->id);
    if (!params_read(work_body(w), work_text(w), &c->p, f) || !ask_read(work_body(w), &c->ask, f))
        return false;
    e = chat_apply(work_text(w), &c->ask.chat, &c->form, &et);
    if (!e)
        e = text_tokenize(work_text(w), c->form.prompt, strlen(c->form.prompt), true, true,
                          &c->tokens, &c->n_tokens, &et);
    if (e)
        return work_fault(f, e, &et);
    if (!stops_join(c, f) || !parsers_open(c, f, w))
        return false;
    if (c->p.stream)
        work_stream(w);
    prompt = (struct prompt){c->tokens, c->n_tokens, c->stops, c->n_stops, &c->form.grammar};
    return choices_plan(w, &c->p, &prompt, f);
}

/* ---- while it grows ---- */

static void feed(struct choice *ch, const char *text, size_t n, bool final)
{
    char *deltas = NULL;
    json_t *more = NULL;
    struct err_text et;

    if (!chat_parser_feed(ch->parser, text, n, final, &deltas, &et))
        more = json_loads(deltas, 0, NULL);
    /* What cannot be read is still what the model said. */
    if (!more && n)
        more = json_pack("[{s:o}]", "content", json_text(text, n));
    json_array_extend(ch->deltas, more);
    json_decref(more);
    free(deltas);
}

static void chat_digest(struct work *w, void *own, int i, const char *text, size_t n, bool final)
{
    struct chat *c = own;
    struct choice *ch = &c->choice[i];
    struct err_text et;
    char *message = NULL;

    if (!c->p.stream) {
        growing_add(&ch->text, text, n);
        return;
    }
    feed(ch, text, n, final);
    if (final && chat_parser_message(ch->parser, &message, &ch->n_calls, &et))
        ch->n_calls = 0;
    free(message);
}

/* Takes delta. */
static void chunk_send(struct work *w, struct chat *c, int i, json_t *delta, const char *reason)
{
    struct choice *ch = &c->choice[i];
    json_t *logprobs = json_null(), *chunk;

    if (json_array_size(ch->probs)) {
        logprobs = json_pack("{s:o}", "content", ch->probs);
        ch->probs = json_array();
    }
    chunk = json_pack("{s:s, s:s, s:I, s:s, s:s, s:[{s:i, s:o, s:o, s:s?}]}", "id", c->id, "object",
                      "chat.completion.chunk", "created", (json_int_t)work_created(w), "model",
                      work_model(w), "system_fingerprint", work_system(w), "choices", "index", i,
                      "delta", delta, "logprobs", logprobs, "finish_reason", reason);
    if (c->p.include_usage)
        json_object_set_new(chunk, "usage", json_null());
    work_event(w, chunk);
}

static void deltas_send(struct work *w, struct chat *c, int i)
{
    json_t *deltas = c->choice[i].deltas;

    for (size_t j = 0; j < json_array_size(deltas); j++)
        chunk_send(w, c, i, json_incref(json_array_get(deltas, j)), NULL);
    json_array_clear(deltas);
}

static void chat_started(struct work *w, void *own, int i, int n_cached)
{
    struct chat *c = own;

    if (c->p.stream)
        chunk_send(w, c, i, json_pack("{s:s, s:s}", "role", "assistant", "content", ""), NULL);
}

static void chat_token(struct work *w, void *own, int i, const struct gen_chunk *chunk)
{
    struct chat *c = own;

    for (int j = 0; c->p.n_top >= 0 && j < chunk->n_tokens; j++)
        json_array_append_new(c->choice[i].probs,
                              shape_prob(work_text(w), &chunk->tokens[j], false));
    if (c->p.stream)
        deltas_send(w, c, i);
}

static void chat_end(struct work *w, void *own, int i, const struct gen_end *end)
{
    struct chat *c = own;

    c->choice[i].end = *end;
    if (!c->p.stream)
        return;
    deltas_send(w, c, i);
    chunk_send(w, c, i, json_object(), shape_reason(end, c->choice[i].n_calls));
}

/* ---- after ---- */

static void chat_closing(struct work *w, void *own)
{
    struct chat *c = own;

    if (c->p.include_usage)
        work_event(w, json_pack("{s:s, s:s, s:I, s:s, s:s, s:[], s:o, s:o}", "id", c->id, "object",
                                "chat.completion.chunk", "created", (json_int_t)work_created(w),
                                "model", work_model(w), "system_fingerprint", work_system(w),
                                "choices", "usage", work_usage_json(w), "timings",
                                shape_timings(&c->choice[0].end)));
    work_done(w);
}

static json_t *message_of(struct choice *ch)
{
    const char *text = ch->text.s ? ch->text.s : "";
    char *deltas = NULL, *message = NULL;
    json_t *m = NULL;
    struct err_text et;

    if (!chat_parser_feed(ch->parser, text, ch->text.n, true, &deltas, &et) &&
        !chat_parser_message(ch->parser, &message, &ch->n_calls, &et))
        m = json_loads(message, 0, NULL);
    free(deltas);
    free(message);
    if (m)
        return m;
    ch->n_calls = 0;
    return json_pack("{s:s, s:o}", "role", "assistant", "content", json_text(text, ch->text.n));
}

static bool chat_finish(struct work *w, void *own, struct fault *f)
{
    struct chat *c = own;
    json_t *choices = json_array();

    for (int i = 0; i < c->p.n; i++) {
        struct choice *ch = &c->choice[i];
        json_t *message = message_of(ch);
        json_t *probs = ch->probs ? json_pack("{s:O}", "content", ch->probs) : json_null();

        json_array_append_new(choices, json_pack("{s:i, s:o, s:o, s:s}", "index", i, "message",
                                                 message, "logprobs", probs, "finish_reason",
                                                 shape_reason(&ch->end, ch->n_calls)));
    }
    work_answer(w, json_pack("{s:s, s:s, s:I, s:s, s:s, s:o, s:o, s:o}", "id", c->id, "object",
                             "chat.completion", "created", (json_int_t)work_created(w), "model",
                             work_model(w), "system_fingerprint", work_system(w), "choices",
                             choices, "usage", work_usage_json(w), "timings",
                             shape_timings(&c->choice[0].end)));
    return true;
}

static void chat_fini(void *own)
{
    struct chat *c = own;

    for (int i = 0; i < API_N_MAX; i++) {
        struct choice *ch = &c->choice[i];

        chat_parser_free(ch->parser);
        free(ch->text.s);
        json_decref(ch->deltas);
        json_decref(ch->probs);
    }
    ask_fini(&c->ask);
    chat_form_fini(&c->form);
    free(c->tokens);
}

void handle_chat(void *api, struct call *call)
{
    static const struct work_kind kind = {.own_size = sizeof(struct chat),
                                          .body = true,
                                          .prepare = chat_prepare,
                                          .digest = chat_digest,
                                          .started = chat_started,
                                          .token = chat_token,
                                          .end = chat_end,
                                          .finish = chat_finish,
                                          .closing = chat_closing,
                                          .fini = chat_fini};

    work_start(api, call, &kind);
}
