#include "api/fake_gen.h"

#include <event2/event.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/check.h"
#include "base/mem.h"
#include "base/utf8.h"
#include "head/cluster.h"
#include "head/pool.h"
#include "support/tiny_vocab.h"

struct cluster {
    struct event_base *base;
    struct text *text;
    struct pool *pool;
    const char *model_name;
    struct fake_wish wish;
    struct fake_seen seen;
    struct gen *first;
    struct cluster_watch *watches;
    struct event *picture; /* comes a little later, as a real one does */
    enum cluster_picture picture_kind;
    void (*picture_done)(void *user, const char *text, size_t n);
    void *picture_user;
};

struct gen {
    struct gen *next;
    struct cluster *c;
    struct event *step;
    struct gen_opts o;
    int32_t *tokens;
    char *answer; /* as it will be said */
    size_t n_answer, said, ready;
    int n_said;
    enum gen_why why;
    char word[64];
    bool in_pool, ending, started;
    void (*gone)(void *user); /* cancelled */
};

static void gen_free(struct gen *g)
{
    struct gen **at = &g->c->first;

    while (*at != g)
        at = &(*at)->next;
    *at = g->next;
    g->c->seen.n_running--;
    event_free(g->step);
    sampler_free(g->o.sampler);
    free(g->tokens);
    free(g->answer);
    free(g);
}

static void end_call(struct gen *g, const struct gen_end *how)
{
    struct gen_end end = *how;

    end.n_prompt = g->o.n_tokens;
    end.n_cached = g->o.n_tokens / 2;
    end.n_generated = g->n_said;
    end.word = g->word;
    end.prompt_ms = 10;
    end.generate_ms = 5;
    g->o.calls.end(g->o.user, &end);
    gen_free(g);
}

/* Bytes of the answer's next character: one token each, text only when it is whole. */
static void chunk_call(struct gen *g)
{
    const struct token_prob top[2] = {{TINY_BYTE0 + 'x', -0.5f}, {TINY_BYTE0 + 0xff, -2}};
    struct gen_token tokens[4];
    size_t n = g->ready - g->said;

    for (size_t i = 0; i < n; i++)
        tokens[i] =
            (struct gen_token){.id = TINY_BYTE0 + (unsigned char)g->answer[g->said + i],
                               .own = {TINY_BYTE0 + (unsigned char)g->answer[g->said + i], -0.25f},
                               .n_top = g->o.n_top > 2   ? 2
                                        : g->o.n_top > 0 ? g->o.n_top
                                                         : 0,
                               .top = top,
                               .piece = g->answer + g->said + i,
                               .n_piece = 1};
    const struct gen_chunk chunk = {g->answer + g->said, n, (int)n, tokens};

    g->said = g->ready;
    g->n_said += (int)n;
    g->o.calls.token(g->o.user, &chunk);
}

static void rows_run(struct gen *g)
{
    int width = g->o.kind == GEN_HIDDEN ? FAKE_EMBD : text_n_vocab(g->c->text);
    int n = g->o.n_tokens - g->o.want_from;
    float *rows = mem_zalloc((size_t)n * (size_t)width, sizeof *rows);

    for (int i = 0; i < n; i++) {
        int32_t token = g->tokens[g->o.want_from + i];

        for (int j = 0; g->o.kind == GEN_HIDDEN && j < width; j++)
            rows[i * width + j] = (float)(token % 7 + j);
        if (g->o.kind == GEN_LOGITS)
            rows[i * width + (token + 1) % width] = 5; /* the next in the alphabet */
    }
    if (n > 1) /* in two parts */
        g->o.calls.rows(g->o.user, rows, g->o.want_from, 1, width);
    g->o.calls.rows(g->o.user, rows + (n > 1) * width, g->o.want_from + (n > 1), n - (n > 1),
                    width);
    free(rows);
}

static void run(void *user)
{
    struct gen *g = user;

    if (g->o.kind != GEN_ANSWER)
        rows_run(g);
    else if (g->o.calls.digest)
        g->o.calls.digest(g->o.user, g->answer + g->said, g->ready - g->said, g->ending);
}

static void step_later(struct gen *g)
{
    event_add(g->step, &(struct timeval){0, 0});
}

static void done(void *user, int ran)
{
    struct gen *g = user;

    g->in_pool = false;
    if (g->gone) {
        g->gone(g->o.user);
        gen_free(g);
    } else if (!ran) {
        end_call(g, &(struct gen_end){.why = GEN_FAILED, .code = ERR_GONE, .text = "closing"});
    } else if (g->ending) {
        end_call(g, &(struct gen_end){.why = g->why});
    } else {
        step_later(g); /* first: `token` may cancel */
        chunk_call(g);
    }
}

static void on_step(evutil_socket_t fd, short what, void *user)
{
    struct gen *g = user;
    const struct fake_wish *wish = &g->c->wish;

    if (wish->hold) {
        event_add(g->step, &(struct timeval){0, 2000});
        return;
    }
    if (!g->started && g->o.calls.started)
        g->o.calls.started(g->o.user, g->o.n_tokens / 2);
    g->started = true;
    if (wish->fail_after && g->n_said >= wish->fail_after) {
        end_call(g, &(struct gen_end){.why = GEN_FAILED,
                                      .code = ERR_GONE,
                                      .text = "device pi has left; start it again"});
        return;
    }
    g->ending = g->said == g->n_answer;
    if (!g->ending) {
        size_t n = utf8_char((const uint8_t *)g->answer + g->said, g->n_answer - g->said);

        g->ready = g->said + (n ? n : 1);
    }
    g->in_pool = true;
    pool_give(g->c->pool, POOL_QUICK, (struct pool_job){run, done, g});
}

/* Cuts the answer where a stop word or n_max ends it. */
static void answer_cut(struct gen *g)
{
    const struct gen_opts *o = &g->o;

    g->answer = mem_strdup(o->kind == GEN_ANSWER ? g->c->wish.answer : "");
    g->n_answer = strlen(g->answer);
    g->why = o->kind == GEN_ANSWER ? GEN_STOP : GEN_DONE;
    for (int i = 0; i < o->n_stops; i++) {
        const char *at = strstr(g->answer, o->stops[i]);

        if (!at || (size_t)(at - g->answer) >= g->n_answer)
            continue;
        g->n_answer = (size_t)(at - g->answer);
        g->why = GEN_WORD;
        snprintf(g->word, sizeof g->word, "%s", o->stops[i]);
    }
    if (o->kind == GEN_ANSWER && o->n_max >= 0 && (size_t)o->n_max < g->n_answer) {
        g->n_answer = (size_t)o->n_max;
        g->why = GEN_LENGTH;
    }
}

static void note(struct cluster *c, const struct gen_opts *o)
{
    struct fake_seen *s = &c->seen;

    s->n_begun++;
    s->n_running++;
    s->n_after += o->after != NULL;
    s->last = *o;
    s->n_prompt = o->n_tokens < FAKE_PROMPT_MAX ? o->n_tokens : FAKE_PROMPT_MAX;
    memcpy(s->prompt, o->tokens, (size_t)s->n_prompt * sizeof *s->prompt);
    s->n_stops = o->n_stops;
    for (int i = 0; i < o->n_stops; i++)
        snprintf(s->stop[i], sizeof s->stop[i], "%s", o->stops[i]);
}

enum err gen_begin(struct cluster *c, const struct gen_opts *opts, struct gen **out,
                   struct err_text *et)
{
    struct gen *g = mem_zalloc(1, sizeof *g);

    CHECK(opts->n_tokens >= 1);
    note(c, opts);
    g->c = c;
    g->o = *opts;
    g->tokens = mem_alloc((size_t)opts->n_tokens * sizeof *g->tokens);
    memcpy(g->tokens, opts->tokens, (size_t)opts->n_tokens * sizeof *g->tokens);
    g->step = evtimer_new(c->base, on_step, g);
    g->next = c->first;
    c->first = g;
    answer_cut(g);
    *out = g;
    if (c->wish.busy) { /* told before gen_begin has returned, which it may */
        end_call(g, &(struct gen_end){.why = GEN_FAILED,
                                      .code = ERR_LIMIT,
                                      .busy = true,
                                      .retry_s = 3,
                                      .text = "all slots are busy"});
        return ERR_NONE;
    }
    step_later(g);
    return ERR_NONE;
}

int gen_room(const struct cluster *c)
{
    (void)c;
    return 1;
}

void gen_cancel(struct gen *g, void (*gone)(void *user))
{
    g->c->seen.n_cancelled++;
    g->gone = gone;
    event_del(g->step);
    if (g->in_pool)
        return;
    gone(g->o.user);
    gen_free(g);
}

struct cluster *fake_open(struct event_base *base, const char *vocab, const char *model_name)
{
    static const int threads[POOL_LANES] = {1, 2};
    struct cluster *c = mem_zalloc(1, sizeof *c);
    struct err_text et;

    c->base = base;
    c->model_name = model_name;
    c->wish = (struct fake_wish){.answer = "Hello.", .n_ctx = 512};
    c->pool = pool_new(base, threads);
    CHECK(text_open(vocab, &c->text, &et) == ERR_NONE);
    return c;
}

void fake_close(struct cluster *c)
{
    pool_close(c->pool);
    while (c->first)
        end_call(c->first,
                 &(struct gen_end){.why = GEN_FAILED, .code = ERR_GONE, .text = "closing"});
    text_close(c->text);
    free(c);
}

struct fake_wish *fake_wish(struct cluster *c)
{
    return &c->wish;
}

struct fake_seen *fake_seen(struct cluster *c)
{
    return &c->seen;
}

const struct text *cluster_text(const struct cluster *c)
{
    return c->text;
}

struct pool *cluster_pool(const struct cluster *c)
{
    return c->pool;
}

void cluster_facts(const struct cluster *c, struct cluster_facts *out)
{
    *out = (struct cluster_facts){.model_name = c->model_name,
                                  .model_path = "/models/tiny.gguf",
                                  .arch = "llama",
                                  .quantisation = "F32",
                                  .n_ctx = c->wish.n_ctx,
                                  .n_slots = 2,
                                  .n_vocab = text_n_vocab(c->text),
                                  .n_embd = FAKE_EMBD,
                                  .n_ctx_train = 512,
                                  .n_params = 1000,
                                  .weight_bytes = 4000};
}

void cluster_slot(const struct cluster *c, int slot, struct cluster_slot *out)
{
    *out = (struct cluster_slot){.busy = slot == 0, .n_held = 12, .n_prompt = 9, .n_generated = 3};
}

static void on_picture(evutil_socket_t fd, short what, void *user)
{
    struct cluster *c = user;
    const char *text = c->picture_kind == CLUSTER_TRACE ? "{\"traceEvents\":[]}" : "{\"spans\":[]}";

    (void)fd;
    (void)what;
    event_free(c->picture);
    c->picture = NULL;
    c->picture_done(c->picture_user, text, strlen(text));
}

bool cluster_picture_ask(struct cluster *c, enum cluster_picture kind,
                         void (*text_done)(void *user, const char *text, size_t n), void *user)
{
    const struct timeval later = {0, 300000};

    if (c->picture)
        return false; /* one is as many as it takes */
    c->picture_kind = kind;
    c->picture_done = text_done;
    c->picture_user = user;
    c->picture = evtimer_new(c->base, on_picture, c);
    CHECK(c->picture && evtimer_add(c->picture, &later) == 0);
    return true;
}

void cluster_picture_forget(struct cluster *c, const void *user)
{
    CHECK(c->picture && c->picture_user == user);
    event_free(c->picture);
    c->picture = NULL;
}

void cluster_stats(struct cluster *c, struct cluster_stats *out)
{
    *out = (struct cluster_stats){.running = !c->wish.down, .epoch = 1, .n_devices = 1};
    out->device[0] = (struct cluster_device_stats){.name = "head", .up = true};
}

/* ---- the cluster, looked at and told ---- */

void fake_changed(struct cluster *c)
{
    for (struct cluster_watch *w = c->watches; w; w = w->next)
        w->changed(w->user);
}

const char *cluster_name(const struct cluster *c)
{
    (void)c;
    return "head";
}

json_t *cluster_json(const struct cluster *c)
{
    ((struct cluster *)c)->seen.n_documents++;
    return json_pack("{s:s, s:{s:s}, s:i, s:i}", "head", "head", "model", "name", c->model_name,
                     "moved", c->wish.moved, "time_ms", c->seen.n_documents);
}

void cluster_watch(struct cluster *c, struct cluster_watch *w)
{
    w->next = c->watches;
    c->watches = w;
    c->seen.n_watches++;
}

void cluster_unwatch(struct cluster *c, struct cluster_watch *w)
{
    CHECK(c->watches == w);
    c->watches = w->next;
    c->seen.n_watches--;
}

void cluster_refresh(struct cluster *c)
{
    (void)c;
}

void cluster_invite(struct cluster *c, struct cluster_invitation *out)
{
    *out = (struct cluster_invitation){.expires_s = 900};
    c->seen.n_invited++;
    snprintf(out->token, sizeof out->token, "aaaa-bbbb-cccc-%d", c->seen.n_invited);
    snprintf(out->address, sizeof out->address, "192.168.1.5:7333");
}

enum err cluster_drain(struct cluster *c, const char *name, struct err_text *et)
{
    if (strcmp(name, "head") == 0)
        return err_set(et, ERR_UNSUPPORTED, "%s is the head itself", name);
    if (strcmp(name, "phone") != 0)
        return err_set(et, ERR_INPUT, "there is no device %s here now", name);
    snprintf(c->seen.drained, sizeof c->seen.drained, "%s", name);
    return ERR_NONE;
}
