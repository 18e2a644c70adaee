#include "api/fake_work.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "api/json.h"
#include "base/mem.h"
#include "support/tiny_vocab.h"
#include "text/text.h"

enum { PIECE = 2 }; /* rows that come at once */

struct call {
    struct fake *f;
    const char *path, *body, *query;
};

struct work {
    struct fake *f;
    json_t *body, *answer;
    struct gen_opts gen[FAKE_GENS_MAX];
    int n_gens;
    int64_t n_prompt;
};

void fake_init(struct fake *f, const char *chat_template)
{
    char path[] = "/tmp/lingua-test-routes-XXXXXX";
    int fd = mkstemp(path);
    struct err_text et;

    memset(f, 0, sizeof *f);
    assert_true(fd >= 0);
    close(fd);
    assert_true(tiny_vocab_write(path, &(struct tiny_vocab){.chat_template = chat_template}));
    if (text_open(path, &f->text, &et))
        fail_msg("%s", et.text);
    unlink(path);
    f->facts = (struct cluster_facts){.model_name = "tiny",
                                      .model_path = "/models/tiny.gguf",
                                      .arch = "llama",
                                      .quantisation = "f32",
                                      .n_ctx = 256,
                                      .n_slots = FAKE_SLOTS,
                                      .n_vocab = text_n_vocab(f->text),
                                      .n_embd = FAKE_EMBD,
                                      .n_ctx_train = 512,
                                      .n_params = 1234,
                                      .weight_bytes = 4936};
    f->stats.running = true;
    f->api.cluster = (struct cluster *)f;
    f->api.text = f->text;
    f->api.metrics = metrics_new();
    f->api.opened_s = 1700000000;
}

static void answer_forget(struct fake *f)
{
    json_decref(f->json);
    free(f->bytes);
    free(f->type);
    f->json = NULL;
    f->bytes = f->type = NULL;
    f->status = f->n_gens = f->n_rows = 0;
    *f->retry_after = '\0';
}

void fake_fini(struct fake *f)
{
    answer_forget(f);
    metrics_free(f->api.metrics);
    text_close(f->text);
}

const json_t *fake_ask(struct fake *f, route_handler *handler, const char *path, const char *body,
                       const char *query)
{
    struct call call = {f, path, body, query};

    answer_forget(f);
    handler(&f->api, &call);
    assert_true(f->status > 0);
    return f->json;
}

void fake_row(const struct fake *f, const int32_t *tokens, int n, int width, float *row)
{
    uint64_t x = 88172645463325252u;

    for (int i = 0; i < n; i++)
        x = (x ^ (uint64_t)tokens[i]) * 1099511628211u;
    for (int i = 0; i < width; i++) {
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        row[i] = f->broken ? NAN : (float)(x % 10000) / 1000.0f - 3.0f;
    }
}

/* ---- what the routes find below them ---- */

void cluster_facts(const struct cluster *c, struct cluster_facts *out)
{
    *out = ((const struct fake *)c)->facts;
}

void cluster_stats(struct cluster *c, struct cluster_stats *out)
{
    *out = ((struct fake *)c)->stats;
}

void cluster_slot(const struct cluster *c, int slot, struct cluster_slot *out)
{
    *out = ((const struct fake *)c)->slot[slot];
}

const char *api_model(const struct api *a)
{
    struct cluster_facts facts;

    cluster_facts(a->cluster, &facts);
    return a->alias ? a->alias : facts.model_name;
}

void http_stats(const struct http *h, struct http_stats *out)
{
    *out = (struct http_stats){.n_calls = 1};
}

const char *call_path(const struct call *c)
{
    return c->path;
}

const char *call_query(const struct call *c, const char *name)
{
    return c->query && strcmp(c->query, name) == 0 ? "1" : NULL;
}

void http_header(struct call *c, const char *name, const char *value)
{
    if (strcmp(name, "Retry-After") == 0)
        snprintf(c->f->retry_after, sizeof c->f->retry_after, "%s", value);
}

/* By its text, as a client gets it. */
void http_reply(struct call *c, int status, json_t *json)
{
    char *text = json_dumps(json, JSON_COMPACT);

    assert_non_null(text);
    assert_int_equal(c->f->status, 0);
    json_decref(json);
    c->f->status = status;
    c->f->json = json_loads(text, JSON_DECODE_ANY, NULL);
    assert_non_null(c->f->json);
    free(text);
}

void http_reply_bytes(struct call *c, int status, const char *type, const void *bytes, size_t n)
{
    assert_int_equal(c->f->status, 0);
    c->f->status = status;
    c->f->type = mem_strdup(type);
    c->f->bytes = mem_alloc(n + 1);
    memcpy(c->f->bytes, bytes, n);
    c->f->bytes[n] = '\0';
}

/* ---- work.h ---- */

static int row_width(const struct work *w, const struct gen_opts *g)
{
    assert_true(g->kind == GEN_LOGITS || g->kind == GEN_HIDDEN);
    return g->kind == GEN_LOGITS ? w->f->facts.n_vocab : FAKE_EMBD;
}

static void gen_run(struct work *w, const struct work_kind *kind, void *own, int i)
{
    const struct gen_opts *g = &w->gen[i];
    int width = row_width(w, g);
    float *rows = mem_alloc(PIECE * (size_t)width * sizeof *rows);

    assert_true(g->want_from >= 0 && g->want_from < g->n_tokens);
    for (int pos = g->want_from; pos < g->n_tokens; pos += PIECE) {
        struct work_rows some = {i, rows, pos, g->n_tokens - pos, width};

        some.n = some.n < PIECE ? some.n : PIECE;
        for (int k = 0; k < some.n; k++)
            fake_row(w->f, g->tokens, pos + k + 1, width, rows + (size_t)k * (size_t)width);
        kind->rows(w, own, &some);
        w->f->n_rows += some.n;
    }
    w->n_prompt += g->n_tokens;
    free(rows);
}

static bool work_run(struct work *w, const struct work_kind *kind, void *own, struct fault *fault)
{
    if (!kind->prepare(w, own, fault))
        return false;
    w->f->n_gens = w->n_gens;
    for (int i = 0; i < w->n_gens; i++)
        gen_run(w, kind, own, i);
    return !w->n_gens || kind->finish(w, own, fault);
}

void work_start(struct api *a, struct call *call, const struct work_kind *kind)
{
    struct work *w = mem_zalloc(1, sizeof *w);
    void *own = mem_zalloc(1, kind->own_size + 1);
    struct fault fault = {0};
    bool good = true;

    w->f = call->f;
    if (kind->body) {
        w->body = json_body(call->body, strlen(call->body), &fault);
        good = w->body;
    }
    good = good && work_run(w, kind, own, &fault);
    if (kind->fini)
        kind->fini(own);
    assert_true(good == (fault.status == 0));
    if (good)
        http_reply(call, 200, w->answer);
    else
        fault_reply(call, &fault);
    json_decref(w->body);
    free(own);
    free(w);
}

const json_t *work_body(const struct work *w)
{
    return w->body;
}

const struct text *work_text(const struct work *w)
{
    return w->f->text;
}

const struct cluster_facts *work_facts(const struct work *w)
{
    return &w->f->facts;
}

const char *work_model(const struct work *w)
{
    return api_model(&w->f->api);
}

const struct api *work_api(const struct work *w)
{
    return &w->f->api;
}

bool work_fault(struct fault *f, enum err e, const struct err_text *et)
{
    fault_err(f, e, et->text, false, 0);
    return false;
}

int work_gen(struct work *w, const struct gen_opts *opts, int after, struct fault *f)
{
    if (opts->n_tokens > w->f->facts.n_ctx) {
        fault_field(f, "", "this prompt has %d tokens; there is room for %d", opts->n_tokens,
                    w->f->facts.n_ctx);
        f->code = "context_length_exceeded";
        return -1;
    }
    assert_true(opts->n_tokens > 0 && after < w->n_gens && w->n_gens < FAKE_GENS_MAX);
    w->f->after[w->n_gens] = after;
    w->gen[w->n_gens] = *opts;
    return w->n_gens++;
}

void work_answer(struct work *w, json_t *json)
{
    assert_non_null(json);
    assert_null(w->answer);
    w->answer = json;
}

void work_usage(const struct work *w, struct work_usage *out)
{
    *out = (struct work_usage){.n_prompt = w->n_prompt};
}
