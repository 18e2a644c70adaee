/* A generation, between the core and a thread of the pool.
 *
 *   1. gen_begin checks, and the core hears CORE_REQUEST. What the core says of it comes while the
 *      core is at work, when nobody may call back into it: it is noted, and told from the event
 *      loop a moment later (cluster_gen_tell).
 *   2. CORE_ROW: the row is copied at once, for it is gone when the call returns. A row to pick a
 *      token from goes to the quick lane; rows to look at are collected, and go to the slow lane
 *      together, while none is there.
 *   3. The job is done: the core hears CORE_TOKEN or CORE_END, and then the caller hears.
 *
 * At most one job per generation is in the pool, and while it is (g->at_work) the members under
 * "the job's" are its thread's alone. A generation that is cancelled meanwhile lives on until its
 * job is back. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/check.h"
#include "base/mem.h"
#include "base/sys.h"
#include "head/cluster_impl.h"
#include "head/gen_text.h"

enum { PIECE_USUAL = 64, RETRY_S_MAX = 60 };
#define GEN_S_USUAL 5.0  /* how long one lasts, before any has */
#define GEN_S_LEARN 0.25 /* how much of that the last one tells */

struct gen {
    struct cluster *cluster;
    struct gen *next, **link; /* in the cluster's list */

    /* As asked. */
    enum gen_kind kind;
    int stream, n_prompt, n_max, n_top;
    bool special;
    int64_t ms_max;
    struct gen_calls calls;
    void *user;

    /* The loop's. */
    bool core_knows; /* it is not over there */
    bool due;        /* something is to be told from the loop */
    bool started, started_told;
    bool ended, calling; /* `end` was, or any call is, under way */
    bool at_work;        /* a job is in the pool */
    bool cancelled;
    void (*gone)(void *user);
    int slot, n_cached, n_told; /* n_told: tokens, for cluster_slot */
    enum err failed;            /* by the core */
    struct err_text failed_text;
    bool busy;
    struct beat beat;
    struct answer_log *log; /* ANSWER, until it is over */
    int64_t begun_us, started_us;
    float *waiting; /* (n_waiting, width): rows to look at from position pos on */
    int n_waiting, pos, width;
    size_t waiting_cap; /* f32 */

    /* The job's. */
    float *rows; /* (n_rows, width), from position rows_pos on */
    int n_rows, rows_pos;
    size_t rows_cap;
    struct sampler *sampler;
    struct gen_text *text;
    char *piece; /* room for a token's bytes */
    int piece_cap;
    int32_t token;
    int n_generated;
    bool over; /* no token follows; why */
    enum gen_why why;
    enum err code;
    struct err_text code_text;
    struct gen_chunk chunk;
    int64_t first_us, last_us;
};

/* ---- life and death ---- */

static void destroy(struct gen *g)
{
    CHECK(!g->at_work && !g->core_knows);
    *g->link = g->next;
    if (g->next)
        g->next->link = g->link;
    sampler_free(g->sampler);
    gen_text_free(g->text);
    free(g->waiting);
    free(g->rows);
    free(g->piece);
    free(g);
}

static void notice(struct gen *g)
{
    g->due = true;
    event_active(g->cluster->gen_event, EV_TIMEOUT, 0);
}

/* No step carries rows of it any more. */
static void forget_slot(struct gen *g)
{
    if (g->slot >= 0 && g->log && g->cluster->answer_at[g->slot] == g->log)
        g->cluster->answer_at[g->slot] = NULL;
}

static void leave_core(struct gen *g)
{
    struct core_event event = {.kind = CORE_END, .client = g->stream};

    if (!g->core_knows)
        return;
    forget_slot(g);
    g->core_knows = false;
    cluster_feed(g->cluster, &event);
}

/* What was noted of it is there to be looked at from now on. */
static void close_log(struct gen *g, int n_tokens)
{
    struct answer_log *log = g->log;

    forget_slot(g);
    g->log = NULL;
    if (!log)
        return;
    log->ended_us = clock_us();
    log->n_tokens = n_tokens;
    cluster_answer_over(g->cluster, log);
}

/* After a call: false when the caller cancelled it there, and so it is gone. */
static bool still_here(struct gen *g)
{
    g->calling = false;
    if (g->cancelled && !g->at_work)
        destroy(g);
    else if (!g->cancelled)
        return true;
    return false;
}

/* Whoever is turned away is told when to come back: about when the queue in front of it has had
 * its turn. */
static int retry_s(const struct cluster *c)
{
    double turns = 1 + (double)core_view(c->core).n_waiting / c->segment.n_slots;
    double s = ceil((c->gen_s > 0 ? c->gen_s : GEN_S_USUAL) * turns);

    return s < 1 ? 1 : s > RETRY_S_MAX ? RETRY_S_MAX : (int)s;
}

static double ms_between(int64_t from_us, int64_t to_us)
{
    return from_us && to_us > from_us ? (double)(to_us - from_us) / 1e3 : 0;
}

static void finish(struct gen *g, enum gen_why why, enum err code, const char *text)
{
    int64_t now = clock_us(), first = g->first_us ? g->first_us : now;
    struct cluster *c = g->cluster;
    struct gen_end end = {.why = why,
                          .code = code,
                          .text = text,
                          .busy = g->busy,
                          .retry_s = g->busy ? retry_s(c) : 0,
                          .word = why == GEN_WORD ? gen_text_word(g->text) : NULL,
                          .n_prompt = g->n_prompt,
                          .n_cached = g->n_cached,
                          .n_generated = g->n_generated,
                          .slot = g->slot};

    CHECK(!g->ended && !g->at_work);
    leave_core(g);
    if (g->log)
        g->log->first_us = g->first_us;
    close_log(g, g->n_generated);
    g->ended = true;
    end.queue_ms = ms_between(g->begun_us, g->started ? g->started_us : now);
    end.prompt_ms = g->started ? ms_between(g->started_us, first) : 0;
    end.ttft_ms = g->first_us ? ms_between(g->begun_us, g->first_us) : 0;
    end.generate_ms = ms_between(g->first_us, g->last_us);
    if (why != GEN_FAILED && g->started) {
        double s = ms_between(g->started_us, now) / 1e3;

        c->gen_s = c->gen_s > 0 ? c->gen_s + GEN_S_LEARN * (s - c->gen_s) : s;
    }
    g->calling = true;
    if (g->calls.end)
        g->calls.end(g->user, &end);
    destroy(g);
}

/* ---- beginning ---- */

static enum err check_stops(const struct gen_opts *o, struct err_text *et)
{
    if (o->n_stops < 0 || o->n_stops > GEN_STOPS_MAX)
        return err_set(et, ERR_INPUT, "%d stop words; up to %d are possible", o->n_stops,
                       GEN_STOPS_MAX);
    for (int i = 0; i < o->n_stops; i++) {
        size_t n = strlen(o->stops[i]);

        if (n == 0 || n > GEN_STOP_BYTES_MAX)
            return err_set(et, ERR_INPUT, "a stop word of %zu bytes; 1 to %d are possible", n,
                           GEN_STOP_BYTES_MAX);
    }
    return ERR_NONE;
}

/* How many of the context's positions an answer needs at least. */
static int least_room(const struct gen_opts *o)
{
    return o->kind == GEN_ANSWER && o->n_max != 0;
}

static enum err check(const struct cluster *c, const struct gen_opts *o, struct err_text *et)
{
    int n_vocab = model_shape(c->model)->n_vocab, n_ctx = c->segment.n_ctx;

    if (c->closing)
        return err_set(et, ERR_CANCELLED, "this head is closing");
    if (o->n_tokens < 1)
        return err_set(et, ERR_INPUT, "there is nothing to read: the prompt has no tokens");
    if (o->n_tokens + least_room(o) > n_ctx)
        return err_set(et, ERR_LIMIT,
                       "the prompt has %d tokens, and the context holds %d: shorten it, or serve "
                       "with a larger --ctx",
                       o->n_tokens, n_ctx);
    for (int i = 0; i < o->n_tokens; i++)
        if (o->tokens[i] < 0 || o->tokens[i] >= n_vocab)
            return err_set(et, ERR_INPUT, "token %d is %d: the vocabulary has 0 to %d", i,
                           (int)o->tokens[i], n_vocab - 1);
    if (o->kind == GEN_ANSWER ? o->n_max < -1 || o->n_top < -1 || o->n_top > SAMPLING_TOP_MAX
                              : o->want_from < 0 || o->want_from >= o->n_tokens)
        return err_set(et, ERR_INPUT, "what is wanted of %d tokens is out of range", o->n_tokens);
    if (o->slot < -1 || o->slot >= c->segment.n_slots)
        return err_set(et, ERR_INPUT, "there is no slot %d; 0 to %d exist", o->slot,
                       c->segment.n_slots - 1);
    return check_stops(o, et);
}

static struct gen *make(struct cluster *c, const struct gen_opts *o)
{
    struct gen *g = mem_zalloc(1, sizeof *g);
    int room = c->segment.n_ctx - o->n_tokens;

    CHECK(c->pool && (o->kind != GEN_ANSWER || o->sampler || o->n_max == 0));
    g->cluster = c;
    g->next = c->gens;
    g->link = &c->gens;
    if (g->next)
        g->next->link = &g->next;
    c->gens = g;
    g->kind = o->kind;
    g->stream = ++c->last_stream;
    g->n_prompt = o->n_tokens;
    g->n_max = o->n_max < 0 || o->n_max > room ? room : o->n_max;
    g->n_top = o->n_top;
    g->special = o->special;
    g->ms_max = o->ms_max;
    g->calls = o->calls;
    g->user = o->user;
    g->slot = -1;
    g->begun_us = clock_us();
    g->pos = o->want_from;
    g->width =
        o->kind == GEN_HIDDEN ? model_shape(c->model)->n_embd : model_shape(c->model)->n_vocab;
    if (o->kind != GEN_ANSWER)
        return g;
    g->log = c->answer_begun = answer_log_new(++c->last_answer, g->begun_us, o->n_tokens);
    g->pos = o->n_tokens - 1;
    g->sampler = o->sampler;
    g->text = gen_text_new(o->stops, o->n_stops);
    g->piece_cap = PIECE_USUAL;
    g->piece = mem_alloc(PIECE_USUAL);
    return g;
}

enum err gen_begin(struct cluster *c, const struct gen_opts *o, struct gen **out,
                   struct err_text *et)
{
    enum err e = check(c, o, et);
    struct core_request request = {.flow = o->flow,
                                   .after = o->after ? o->after->stream : -1,
                                   .n_tokens = o->n_tokens,
                                   .tokens = o->tokens,
                                   .fresh = o->fresh,
                                   .slot = o->slot};
    struct core_event event = {.kind = CORE_REQUEST, .request = &request};
    struct gen *g;

    *out = NULL;
    CHECK(!c->in_core);
    if (e) {
        sampler_free(o->sampler);
        return e;
    }
    g = *out = make(c, o);
    request.stream = g->stream;
    request.n_more = o->kind == GEN_ANSWER ? g->n_max : 0;
    request.want_from = g->pos;
    request.want = o->kind == GEN_HIDDEN ? CORE_WANT_HIDDEN : CORE_WANT_LOGITS;
    g->core_knows = true;
    cluster_feed(c, &event);
    return ERR_NONE;
}

int gen_room(const struct cluster *c)
{
    return core_view(c->core).n_room;
}

void gen_cancel(struct gen *g, void (*gone)(void *user))
{
    bool was = g->cancelled;

    g->cancelled = true;
    if (was)
        return;
    leave_core(g);
    close_log(g, g->n_told);
    if (g->at_work) {
        g->gone = gone;
        return;
    }
    if (gone)
        gone(g->user);
    if (!g->calling)
        destroy(g);
}

/* ---- picking a token: on a thread of the quick lane ---- */

static void end_answer(struct gen *g, enum gen_why why)
{
    g->over = true;
    g->why = why;
}

/* The token's bytes in g->piece. */
static int spell(struct gen *g)
{
    const struct text *t = g->cluster->text;
    int n = text_piece(t, g->token, true, g->piece, g->piece_cap);

    if (n < 0) {
        g->piece_cap = -n;
        free(g->piece);
        g->piece = mem_alloc((size_t)g->piece_cap);
        n = text_piece(t, g->token, true, g->piece, g->piece_cap);
        CHECK(n >= 0);
    }
    return n;
}

static void take_token(struct gen *g, struct gen_token *t)
{
    int n_shown = spell(g), n_text = n_shown;
    char none;

    t->id = g->token;
    t->piece = g->piece;
    t->n_piece = n_shown;
    /* Control tokens have no text unless it is asked for. */
    if (!g->special && text_piece(g->cluster->text, g->token, false, &none, 0) == 0)
        n_text = 0;
    if (gen_text_add(g->text, t, g->piece, (size_t)n_text))
        end_answer(g, GEN_WORD);
    else if (g->n_generated >= g->n_max)
        end_answer(g, GEN_LENGTH);
    else if (g->ms_max > 0 && g->last_us - g->first_us >= g->ms_max * 1000)
        end_answer(g, GEN_TIME);
}

static void pick(struct gen *g)
{
    struct token_prob top[SAMPLING_TOP_MAX];
    struct gen_token t = {.n_top = g->n_top > 0 ? g->n_top : 0, .top = top};

    g->code = sampler_pick(g->sampler, g->rows, &g->token, g->n_top >= 0 ? &t.own : NULL, t.n_top,
                           top, &g->code_text);
    if (g->code) {
        end_answer(g, GEN_FAILED);
        return;
    }
    g->n_generated++;
    g->last_us = clock_us();
    if (!g->first_us)
        g->first_us = g->last_us;
    if (text_is_end(g->cluster->text, g->token))
        end_answer(g, GEN_STOP);
    else
        take_token(g, &t);
}

static void answer_run(void *user)
{
    struct gen *g = user;

    if (g->n_max == 0)
        end_answer(g, GEN_LENGTH);
    else
        pick(g);
    gen_text_take(g->text, g->over, &g->chunk);
    if (g->calls.digest && (g->chunk.n_text || g->over))
        g->calls.digest(g->user, g->chunk.text, g->chunk.n_text, g->over);
}

/* ---- back on the loop ---- */

static bool tell_start(struct gen *g)
{
    if (!g->started || g->started_told)
        return true;
    g->started_told = true;
    g->calling = true;
    if (g->calls.started)
        g->calls.started(g->user, g->n_cached);
    return still_here(g);
}

/* A job is back. False: nobody waits for what it did. */
static bool job_back(struct gen *g, int ran)
{
    g->at_work = false;
    if (g->cancelled) {
        if (g->gone)
            g->gone(g->user);
        destroy(g);
        return false;
    }
    return ran; /* else the cluster is closing, and will end it */
}

static void send_token(struct gen *g)
{
    struct core_event event = {
        .kind = CORE_TOKEN, .client = g->stream, .tokens = &g->token, .n = 1};

    if (!g->core_knows)
        return;
    if (g->log)
        answer_log_token(g->log, clock_us());
    cluster_meter_ask(g->cluster, &g->beat, 1);
    cluster_feed(g->cluster, &event);
}

static void answer_done(void *user, int ran)
{
    struct gen *g = user;

    if (!job_back(g, ran))
        return;
    g->n_told = g->n_generated;
    if (g->log) {
        g->log->first_us = g->first_us;
        g->log->n_tokens = g->n_generated;
    }
    if (g->over)
        leave_core(g);
    else
        send_token(g); /* first: the devices go on while the caller is told */
    if (!tell_start(g))
        return;
    if (g->chunk.n_text || g->chunk.n_tokens) {
        g->calling = true;
        if (g->calls.token)
            g->calls.token(g->user, &g->chunk);
        if (!still_here(g))
            return;
    }
    if (g->over)
        finish(g, g->why, g->code, g->code ? g->code_text.text : "");
    else if (g->failed)
        finish(g, GEN_FAILED, g->failed, g->failed_text.text);
}

/* ---- rows that are looked at ---- */

static void rows_run(void *user)
{
    struct gen *g = user;

    if (g->calls.rows)
        g->calls.rows(g->user, g->rows, g->rows_pos, g->n_rows, g->width);
}

static void rows_done(void *user, int ran);

/* What was collected goes to the pool; its room is used again for what comes meanwhile. */
static void give_rows(struct gen *g)
{
    float *rows = g->rows;
    size_t cap = g->rows_cap;

    g->rows = g->waiting;
    g->rows_cap = g->waiting_cap;
    g->n_rows = g->n_waiting;
    g->rows_pos = g->pos - g->n_waiting;
    g->waiting = rows;
    g->waiting_cap = cap;
    g->n_waiting = 0;
    g->at_work = true;
    pool_give(g->cluster->pool, POOL_SLOW,
              (struct pool_job){.run = rows_run, .done = rows_done, .user = g});
}

/* Whatever comes next for rows: more of them, or the end. */
static void go_on(struct gen *g)
{
    if (g->failed) {
        finish(g, GEN_FAILED, g->failed, g->failed_text.text);
    } else if (g->n_waiting > 0) {
        give_rows(g);
    } else if (g->pos == g->n_prompt) {
        finish(g, GEN_DONE, ERR_NONE, "");
    }
}

static void rows_done(void *user, int ran)
{
    struct gen *g = user;

    if (job_back(g, ran) && tell_start(g))
        go_on(g);
}

/* ---- what the core says ---- */

static struct gen *of_stream(const struct cluster *c, int stream)
{
    struct gen *g = c->gens;

    while (g && g->stream != stream)
        g = g->next;
    return g && g->core_knows ? g : NULL; /* else it was cancelled, and this is for nothing */
}

struct gen *cluster_gen_of(const struct cluster *c, int stream, int *n_generated)
{
    struct gen *g = of_stream(c, stream);

    *n_generated = g ? g->n_told : 0;
    return g;
}

void cluster_gen_started(struct cluster *c, const struct core_action *a)
{
    struct gen *g = of_stream(c, a->client);

    if (!g)
        return;
    g->started = true;
    g->started_us = clock_us();
    g->slot = a->slot;
    g->n_cached = a->n;
    if (g->log) {
        g->log->started_us = g->started_us;
        g->log->n_cached = a->n;
        c->answer_at[a->slot] = g->log;
    }
    notice(g);
}

static void fail(struct gen *g, enum err code, const char *text)
{
    g->failed = code;
    (void)err_set(&g->failed_text, code, "%s", text);
    notice(g);
}

/* Room for n f32 behind the first used ones. */
static bool reserve(float **rows, size_t *cap, size_t used, size_t n)
{
    size_t want = used + n;
    float *more;

    if (want <= *cap)
        return true;
    want = want < 2 * *cap ? 2 * *cap : want;
    more = mem_try(want, sizeof *more);
    if (!more)
        return false;
    if (used > 0)
        memcpy(more, *rows, used * sizeof *more);
    free(*rows);
    *rows = more;
    *cap = want;
    return true;
}

static void take_row(struct gen *g, const float *row)
{
    size_t width = (size_t)g->width;

    g->pos++;
    if (!reserve(&g->rows, &g->rows_cap, 0, width)) {
        fail(g, ERR_MEMORY, "there is no memory for the logits of one row");
        return;
    }
    memcpy(g->rows, row, width * sizeof *row);
    cluster_meter_reply(g->cluster, &g->beat);
    g->at_work = true;
    pool_give(g->cluster->pool, POOL_QUICK,
              (struct pool_job){.run = answer_run, .done = answer_done, .user = g});
}

static void collect_row(struct gen *g, const float *row)
{
    size_t width = (size_t)g->width, used = (size_t)g->n_waiting * width;

    g->pos++;
    if (!reserve(&g->waiting, &g->waiting_cap, used, width)) {
        fail(g, ERR_MEMORY, "there is no memory for so many rows: ask for fewer of them");
        return;
    }
    memcpy(g->waiting + used, row, width * sizeof *row);
    g->n_waiting++;
    notice(g);
}

void cluster_gen_row(struct cluster *c, const struct core_action *a)
{
    struct gen *g = of_stream(c, a->client);
    const float *row;

    if (!g || g->failed)
        return;
    /* Whether the result has this row, and of the width it should be, was seen when it came. */
    CHECK(c->home && a->row >= 0 && a->row < c->home->n_rows && c->home->width == g->width);
    CHECK(a->n == g->pos);
    row = c->home->logits + (size_t)a->row * (size_t)g->width;
    if (g->kind != GEN_ANSWER)
        collect_row(g, row);
    else if (a->last)
        take_row(g, row);
}

void cluster_gen_ended(struct cluster *c, const struct core_action *a)
{
    struct gen *g = of_stream(c, a->client);

    if (!g)
        return;
    forget_slot(g);
    g->core_knows = false;
    g->busy = a->busy;
    fail(g, a->code, a->text);
}

/* ---- told from the loop ---- */

static struct gen *first_due(const struct cluster *c)
{
    struct gen *g = c->gens;

    while (g && !g->due)
        g = g->next;
    return g;
}

static void tell(struct gen *g)
{
    g->due = false;
    if (g->cancelled || g->ended || !tell_start(g) || g->at_work)
        return; /* the job that is under way tells the rest */
    if (g->kind != GEN_ANSWER)
        go_on(g);
    else if (g->failed)
        finish(g, GEN_FAILED, g->failed, g->failed_text.text);
}

void cluster_gen_tell(evutil_socket_t fd, short what, void *user)
{
    struct cluster *c = user;
    struct gen *g;

    (void)fd;
    (void)what;
    while ((g = first_due(c)))
        tell(g);
}

void cluster_gen_end_all(struct cluster *c)
{
    while (c->gens) {
        struct gen *g = c->gens;

        g->core_knows = false; /* it hears nothing any more */
        finish(g, GEN_FAILED, ERR_CANCELLED, "this head is closing");
    }
}
