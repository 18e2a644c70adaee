#include "api/work.h"

#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "api/api_impl.h"
#include "api/json.h"
#include "base/check.h"
#include "base/mem.h"
#include "base/sys.h"
#include "head/pool.h"

enum { WAITING_MAX = 256 }; /* requests before the slow lane */

struct planned {
    struct work *w;
    int i, after;
    struct gen_opts opts; /* the sampler is here until it begins */
    struct gen *gen;      /* between begin and end */
    bool over;
    int64_t token_us; /* when the last one came */
};

struct work {
    struct api *api;
    struct call *call; /* NULL: answered, or its client is gone */
    const struct work_kind *kind;
    void *own;
    /* What may still come back: the call, a job on the pool, generations. */
    int n_refs;
    char *body;
    size_t n_body;
    json_t *json;
    int flow;
    int64_t created_s;
    struct cluster_facts facts;

    bool good; /* prepare's and finish's verdict */
    struct fault fault;
    json_t *answer;
    char *bytes; /* the answer, dumped where that may take its time */
    bool stream, stream_begun, done_event;

    struct planned *gens;
    int n_gens, n_begun, n_running, n_over;
    struct work_usage usage;
};

static void work_unref(struct work *w)
{
    if (--w->n_refs > 0)
        return;
    CHECK(!w->call && w->n_running == 0);
    if (w->kind->fini)
        w->kind->fini(w->own);
    for (int i = w->n_begun; i < w->n_gens; i++)
        sampler_free(w->gens[i].opts.sampler);
    free(w->gens);
    free(w->own);
    json_decref(w->json);
    json_decref(w->answer);
    free(w->bytes);
    free(w->body);
    w->api->n_works--;
    api_unref(w->api);
    free(w);
}

/* ---- its end ---- */

static void on_left(void *user)
{
    struct planned *p = user;

    p->w->n_running--;
    work_unref(p->w);
}

/* Needs a reference of the caller's: the last generation may leave at once. */
static void gens_cancel(struct work *w)
{
    for (int i = 0; i < w->n_begun; i++) {
        struct gen *g = w->gens[i].gen;

        if (!g)
            continue;
        w->gens[i].gen = NULL;
        gen_cancel(g, on_left);
    }
}

static void on_gone(void *user)
{
    struct work *w = user;

    w->call = NULL;
    gens_cancel(w);
    work_unref(w);
}

static void call_over(struct work *w)
{
    w->call = NULL;
    gens_cancel(w);
    work_unref(w);
}

static void stream_need(struct work *w)
{
    if (!w->stream_begun)
        http_stream_begin(w->call);
    w->stream_begun = true;
}

/* The caller holds a reference. */
static void fail(struct work *w, const struct fault *f)
{
    bool native;

    if (!w->call)
        return;
    native = strncmp(call_path(w->call), "/v1/", 4) != 0;
    if (w->stream_begun) {
        http_event_json(w->call, fault_json(f, native));
        http_stream_end(w->call);
    } else {
        fault_reply(w->call, f);
    }
    call_over(w);
}

static void answer(struct work *w)
{
    if (!w->call)
        return;
    if (w->stream) {
        stream_need(w);
        if (w->kind->closing)
            w->kind->closing(w, w->own);
        if (w->done_event)
            http_event(w->call, "[DONE]", 6);
        http_stream_end(w->call);
    } else {
        CHECK(w->bytes);
        http_reply_bytes(w->call, 200, "application/json; charset=utf-8", w->bytes,
                         strlen(w->bytes));
    }
    call_over(w);
}

/* ---- generations ---- */

static void on_digest(void *user, const char *text, size_t n, bool final)
{
    struct planned *p = user;

    p->w->kind->digest(p->w, p->w->own, p->i, text, n, final);
}

static void on_rows(void *user, const float *rows, int pos, int n, int width)
{
    struct planned *p = user;
    const struct work_rows some = {p->i, rows, pos, n, width};

    if (p->w->kind->rows)
        p->w->kind->rows(p->w, p->w->own, &some);
}

static void on_started(void *user, int n_cached)
{
    struct planned *p = user;

    if (p->w->stream)
        stream_need(p->w);
    if (p->w->kind->started)
        p->w->kind->started(p->w, p->w->own, p->i, n_cached);
}

static void on_token(void *user, const struct gen_chunk *chunk)
{
    struct planned *p = user;
    int64_t now = clock_us();

    for (int i = 0; i < chunk->n_tokens && p->token_us; i++)
        metrics_token(p->w->api->metrics, (double)(now - p->token_us) / 1e6 / chunk->n_tokens);
    if (chunk->n_tokens)
        p->token_us = now;
    if (p->w->kind->token)
        p->w->kind->token(p->w, p->w->own, p->i, chunk);
}

static void gens_begin(struct work *w);
static void finish(struct work *w);

static void on_end(void *user, const struct gen_end *end)
{
    struct planned *p = user;
    struct work *w = p->w;
    struct fault f;

    p->over = true;
    p->gen = NULL;
    w->n_running--;
    w->n_over++;
    metrics_gen(w->api->metrics, end);
    if (end->why == GEN_FAILED) {
        /* Memory that a device has not got, nor all of them together: who comes back may find more. */
        fault_err(&f, end->code == ERR_MEMORY ? ERR_GONE : end->code, end->text, end->busy,
                  end->retry_s);
        fail(w, &f);
    } else if (w->call) {
        w->usage.n_prompt += p->after < 0 ? end->n_prompt : 0;
        w->usage.n_cached += p->after < 0 ? end->n_cached : 0;
        w->usage.n_generated += end->n_generated;
        if (w->kind->end)
            w->kind->end(w, w->own, p->i, end);
        if (w->n_over == w->n_gens)
            finish(w);
        else
            gens_begin(w);
    }
    work_unref(w);
}

static void gen_one(struct work *w)
{
    struct planned *p = &w->gens[w->n_begun++];
    struct gen *before = p->after >= 0 ? w->gens[p->after].gen : NULL, *g = NULL;
    struct err_text et;
    struct fault f;
    enum err e;

    p->w = w;
    p->opts.flow = w->flow;
    p->opts.after = before;
    p->opts.user = p;
    p->opts.calls = (struct gen_calls){w->kind->digest ? on_digest : NULL, on_rows, on_started,
                                       on_token, on_end};
    w->n_refs++;
    w->n_running++;
    e = gen_begin(w->api->cluster, &p->opts, &g, &et);
    if (!e) {
        /* It may have ended, or the client gone, before gen_begin returned. */
        if (!p->over)
            p->gen = g;
        return;
    }
    w->n_running--;
    fault_err(&f, e, et.text, false, 0);
    fail(w, &f);
    work_unref(w);
}

static void gens_begin(struct work *w)
{
    w->n_refs++;
    /* Only the first of a request may find the queue full; the others wait here for their turn. */
    while (w->call && w->n_begun < w->n_gens && w->n_running < WORK_AT_ONCE &&
           (w->n_running == 0 || gen_room(w->api->cluster) > 0))
        gen_one(w);
    work_unref(w);
}

/* ---- on the pool and back ---- */

static void judged(struct work *w)
{
    if (!w->good || !w->answer)
        return;
    w->bytes = json_dumps(w->answer, JSON_COMPACT | JSON_REAL_PRECISION(HTTP_DIGITS));
    json_decref(w->answer);
    w->answer = NULL;
    if (!w->bytes) {
        w->good = false;
        fault_err(&w->fault, ERR_MEMORY, "there is no memory for the answer", false, 0);
    }
}

static void prepare_run(void *user)
{
    struct work *w = user;

    if (w->kind->body) {
        w->json = json_body(w->body, w->n_body, &w->fault);
        if (!w->json)
            return;
        free(w->body); /* as large as all that was made of it */
        w->body = NULL;
    }
    w->good = w->kind->prepare(w, w->own, &w->fault);
    judged(w);
}

static void closing_fault(struct fault *f)
{
    fault_err(f, ERR_GONE, "this server is ending; ask again when it is back", false, 0);
}

static void prepare_done(void *user, int ran)
{
    struct work *w = user;

    if (!ran)
        closing_fault(&w->fault);
    if (w->call && (!ran || !w->good))
        fail(w, &w->fault);
    else if (w->n_gens)
        gens_begin(w);
    else
        answer(w);
    work_unref(w);
}

static void finish_run(void *user)
{
    struct work *w = user;

    w->good = w->kind->finish(w, w->own, &w->fault);
    judged(w);
}

static void finish_done(void *user, int ran)
{
    struct work *w = user;

    if (!ran)
        closing_fault(&w->fault);
    if (w->call && (!ran || !w->good))
        fail(w, &w->fault);
    else
        answer(w);
    work_unref(w);
}

static void finish(struct work *w)
{
    if (w->stream) {
        answer(w);
        return;
    }
    w->n_refs++;
    w->good = false;
    pool_give(w->api->pool, POOL_SLOW, (struct pool_job){finish_run, finish_done, w});
}

void work_start(struct api *a, struct call *call, const struct work_kind *kind)
{
    struct fault f;
    const char *body;
    struct work *w;

    if (pool_waiting(a->pool, POOL_SLOW) >= WAITING_MAX) {
        fault_err(&f, ERR_LIMIT, "too many requests wait here; ask again in a moment", true, 1);
        fault_reply(call, &f);
        return;
    }
    w = mem_zalloc(1, sizeof *w);
    w->api = a;
    w->call = call;
    w->kind = kind;
    w->own = mem_zalloc(1, kind->own_size ? kind->own_size : 1);
    w->flow = call_flow(call);
    w->created_s = time(NULL);
    w->n_refs = 2; /* the call, the job */
    cluster_facts(a->cluster, &w->facts);
    body = call_body(call, &w->n_body);
    w->body = mem_alloc(w->n_body);
    memcpy(w->body, body, w->n_body);
    api_ref(a);
    a->n_works++;
    call_on_gone(call, on_gone, w);
    pool_give(a->pool, POOL_SLOW, (struct pool_job){prepare_run, prepare_done, w});
}

/* ---- for the kinds ---- */

const json_t *work_body(const struct work *w)
{
    return w->json;
}

const struct text *work_text(const struct work *w)
{
    return w->api->text;
}

const struct cluster_facts *work_facts(const struct work *w)
{
    return &w->facts;
}

const char *work_model(const struct work *w)
{
    return api_model(w->api);
}

const char *work_system(const struct work *w)
{
    return w->api->system;
}

const struct api *work_api(const struct work *w)
{
    return w->api;
}

int64_t work_created(const struct work *w)
{
    return w->created_s;
}

bool work_fault(struct fault *f, enum err e, const struct err_text *et)
{
    fault_err(f, e, et->text, false, 0);
    return false;
}

static bool prompt_fits(const struct work *w, const struct gen_opts *o, struct fault *f)
{
    int n_ctx = w->facts.n_ctx;

    if (o->n_tokens < 1)
        return fault_field(f, "prompt", "the prompt is empty: it has no token");
    /* An answer needs room for a token. */
    if (o->n_tokens < n_ctx || (o->n_tokens == n_ctx && (o->kind != GEN_ANSWER || o->n_max == 0)))
        return true;
    fault_field(f, "",
                "this prompt has %d tokens, and the model's context has room for %d with its "
                "answer; shorten it, or serve with a larger --ctx",
                o->n_tokens, n_ctx);
    f->code = "context_length_exceeded";
    return false;
}

int work_gen(struct work *w, const struct gen_opts *opts, int after, struct fault *f)
{
    bool fits = prompt_fits(w, opts, f);

    if (fits && w->n_gens == WORK_GENS_MAX)
        fits = fault_field(f, "", "one request may ask for %d answers at most", WORK_GENS_MAX);
    if (!fits) {
        sampler_free(opts->sampler);
        return -1;
    }
    CHECK(after < w->n_gens);
    if ((w->n_gens & (w->n_gens - 1)) == 0) /* doubled at each power of two */
        w->gens = mem_realloc(w->gens, w->n_gens ? 2 * (size_t)w->n_gens : 1, sizeof *w->gens);
    w->gens[w->n_gens] = (struct planned){.i = w->n_gens, .after = after, .opts = *opts};
    return w->n_gens++;
}

void work_stream(struct work *w)
{
    w->stream = true;
}

void work_answer(struct work *w, json_t *json)
{
    CHECK(!w->answer);
    w->answer = json;
}

void work_event(struct work *w, json_t *json)
{
    if (!w->call) {
        json_decref(json);
        return;
    }
    stream_need(w);
    http_event_json(w->call, json);
}

void work_done(struct work *w)
{
    w->done_event = true;
}

void work_usage(const struct work *w, struct work_usage *out)
{
    *out = w->usage;
}

json_t *work_usage_json(const struct work *w)
{
    return usage_json(&w->usage);
}

json_t *usage_json(const struct work_usage *u)
{
    return json_pack("{s:I, s:I, s:I, s:{s:I}}", "prompt_tokens", (json_int_t)u->n_prompt,
                     "completion_tokens", (json_int_t)u->n_generated, "total_tokens",
                     (json_int_t)(u->n_prompt + u->n_generated), "prompt_tokens_details",
                     "cached_tokens", (json_int_t)u->n_cached);
}
