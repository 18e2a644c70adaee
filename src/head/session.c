/* One conversation: the tokens in one slot of the chain.
 *
 * The tokens [0, n_read) are in the KV cache; [n_read, n_tokens) are pending. Whoever needs a
 * result reads the pending ones first, in chunks, and only then looks at logits, so a token that
 * was just sampled simply stays pending until the next call. Nothing else is kept between calls:
 * when all tokens are read and the next one is wanted (after a truncate, or after ll_session_read),
 * the last is read again, which gives the same bits by the promise in segment.h. */
#include <limits.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "base/check.h"
#include "base/mem.h"
#include "base/sys.h"
#include "head/engine.h"

enum { PIECE_USUAL = 64 }; /* bytes of a token; longer ones grow the buffer */

struct ll_session {
    struct ll_engine *engine;
    struct sampler *sampler;
    int slot;
    atomic_int cancel; /* the only member another thread or a signal handler touches */

    int32_t *tokens; /* (cap) */
    int n_tokens, n_read, cap;

    char *text; /* [0, n_given) went to the caller, [n_given, n_text) is no whole character yet */
    int n_text, n_given, text_cap;

    float *logits; /* of ll_session_read, (logits_rows, n_vocab) */
    size_t logits_rows;

    int32_t *row_slot, *row_pos; /* (n_rows_max) each, the batch under way */
    uint8_t *row_want;

    bool answering; /* ll_session_next has begun an answer that nothing has ended */
    int64_t us_begin;
    int64_t us_prompt, us_generate; /* spent inside ll_session_next */
    struct ll_stats stats;
};

_Static_assert(ATOMIC_INT_LOCK_FREE == 2, "ll_session_cancel must be safe in a signal handler");

struct ll_sampling ll_sampling_defaults(void)
{
    struct sampling s = SAMPLING_DEFAULT;

    return (struct ll_sampling){s.temp, s.top_k, s.top_p, s.min_p, s.seed};
}

enum ll_code ll_session_open(struct ll_engine *engine, const struct ll_sampling *sampling,
                             struct ll_session **out, struct ll_error *error)
{
    struct ll_sampling given = sampling ? *sampling : ll_sampling_defaults();
    struct sampling s = SAMPLING_DEFAULT;
    size_t n_rows = (size_t)engine->n_rows_max;
    struct err_text et = {{0}};
    struct ll_session *session;
    struct sampler *sampler;
    enum err e;
    int slot;

    *out = NULL;
    s.temp = given.temp;
    s.top_k = given.top_k;
    s.top_p = given.top_p;
    s.min_p = given.min_p;
    s.seed = given.seed;
    e = sampler_open(engine->text, &s, &sampler, &et);
    if (e)
        return engine_fail(error, e, &et);
    slot = engine_slot_take(engine);
    if (slot < 0) {
        sampler_free(sampler);
        return engine_say(error, LL_LIMIT,
                          "all %d sessions are open: close one, or open the engine with more",
                          engine->n_sessions);
    }
    session = mem_zalloc(1, sizeof *session);
    session->engine = engine;
    session->slot = slot;
    session->sampler = sampler;
    session->row_slot = mem_zalloc(n_rows, sizeof *session->row_slot);
    session->row_pos = mem_zalloc(n_rows, sizeof *session->row_pos);
    session->row_want = mem_zalloc(n_rows, sizeof *session->row_want);
    session->text_cap = PIECE_USUAL;
    session->text = mem_alloc((size_t)session->text_cap);
    atomic_init(&session->cancel, 0);
    *out = session;
    return LL_OK;
}

void ll_session_close(struct ll_session *session)
{
    if (!session)
        return;
    engine_slot_give(session->engine, session->slot);
    sampler_free(session->sampler);
    free(session->tokens);
    free(session->text);
    free(session->logits);
    free(session->row_slot);
    free(session->row_pos);
    free(session->row_want);
    free(session);
}

/* What is held back belongs to an answer that will not go on. */
static void answer_end(struct ll_session *session)
{
    session->answering = false;
    session->n_text = session->n_given = 0;
}

static void tokens_append(struct ll_session *session, const int32_t *tokens, int n)
{
    CHECK(n <= session->engine->n_ctx - session->n_tokens);
    if (session->n_tokens + n > session->cap) {
        int cap = session->cap > INT_MAX / 2 ? INT_MAX : 2 * session->cap;

        session->cap = cap > session->n_tokens + n ? cap : session->n_tokens + n;
        session->tokens =
            mem_realloc(session->tokens, (size_t)session->cap, sizeof *session->tokens);
    }
    if (n > 0)
        memcpy(session->tokens + session->n_tokens, tokens, (size_t)n * sizeof *tokens);
    session->n_tokens += n;
}

enum ll_code ll_session_add_text(struct ll_session *session, const char *text, long n, int flags,
                                 struct ll_error *error)
{
    int32_t *tokens;
    int n_tokens;
    enum ll_code code = ll_tokenize(session->engine, text, n, flags, &tokens, &n_tokens, error);

    if (code)
        return code;
    code = ll_session_add_tokens(session, tokens, n_tokens, error);
    free(tokens);
    return code;
}

enum ll_code ll_session_add_tokens(struct ll_session *session, const int32_t *tokens, int n,
                                   struct ll_error *error)
{
    int n_vocab = model_shape(session->engine->model)->n_vocab;
    int n_free = session->engine->n_ctx - session->n_tokens;

    if (n < 0)
        return engine_say(error, LL_INPUT, "%d tokens cannot be added", n);
    for (int i = 0; i < n; i++)
        if (tokens[i] < 0 || tokens[i] >= n_vocab)
            return engine_say(error, LL_INPUT,
                              "token %d is %d, but the vocabulary has tokens 0 to %d", i,
                              (int)tokens[i], n_vocab - 1);
    if (n > n_free)
        return engine_say(error, LL_FULL,
                          "%d more tokens do not fit: the context holds %d, and %d are taken", n,
                          session->engine->n_ctx, session->n_tokens);
    answer_end(session);
    tokens_append(session, tokens, n);
    return LL_OK;
}

static bool cancelled(struct ll_session *session)
{
    return atomic_exchange(&session->cancel, 0) != 0;
}

void ll_session_cancel(struct ll_session *session)
{
    atomic_store(&session->cancel, 1);
}

/* The next rows to read, as a batch; rows from first_wanted on want logits. Returns how many do. */
static int chunk_fill(struct ll_session *session, int first_wanted, struct batch *b)
{
    int n_held = engine_slot_len(session->engine, session->slot), n, n_wanted = 0;

    /* A step that failed has emptied its slots, and nobody may have told us: read those again. */
    if (n_held < session->n_read)
        session->n_read = n_held;
    n = session->n_tokens - session->n_read;
    if (n > session->engine->n_rows_max)
        n = session->engine->n_rows_max;
    for (int i = 0; i < n; i++) {
        session->row_slot[i] = session->slot;
        session->row_pos[i] = session->n_read + i;
        session->row_want[i] = session->n_read + i >= first_wanted;
        n_wanted += session->row_want[i];
    }
    *b = (struct batch){n, session->row_slot, session->row_pos, session->tokens + session->n_read,
                        session->row_want};
    return n_wanted;
}

enum { STALE_MAX = 20 }; /* devices that come and go while one chunk is read */

/* Reads the next chunk of what is pending. The last n_wanted pending rows want logits; *logits gets
 * those of this chunk and, when it has any, the engine stays locked. */
static enum err chunk_read(struct ll_session *session, int n_wanted, struct tensors *logits,
                           struct err_text *et)
{
    int n_chunk_wanted = 0;
    bool stale = true;
    enum err e = ERR_NONE;

    for (int i = 0; stale && i < STALE_MAX; i++) {
        struct batch b;

        if (cancelled(session))
            return err_set(et, ERR_CANCELLED, "cancelled");
        n_chunk_wanted = chunk_fill(session, session->n_tokens - n_wanted, &b);
        e = engine_run_locked(session->engine, &b, &session->cancel, logits, &stale, et);
        if (!e)
            session->n_read += b.n_rows;
    }
    if (e == ERR_CANCELLED)
        (void)cancelled(session); /* it has been heard */
    if (e)
        return e;
    if (!n_chunk_wanted)
        engine_unlock(session->engine);
    else
        CHECK(logits->n == 1 && logits->n_rows == n_chunk_wanted &&
              logits->width[0] == model_shape(session->engine->model)->n_vocab);
    return ERR_NONE;
}

/* Reads all that is pending and picks the token that follows it. */
static enum err token_pick(struct ll_session *session, int32_t *token, struct err_text *et)
{
    struct tensors logits = {0};
    enum err e = ERR_NONE;

    CHECK(session->n_read < session->n_tokens);
    while (session->n_read < session->n_tokens) {
        e = chunk_read(session, 1, &logits, et);
        if (e)
            return e;
    }
    e = sampler_pick(session->sampler, logits.data[0], token, NULL, 0, NULL, et);
    engine_unlock(session->engine);
    return e;
}

static void text_append(struct ll_session *session, int32_t token)
{
    const struct text *t = session->engine->text;
    int n_held = session->n_text - session->n_given, n;

    if (n_held)
        memmove(session->text, session->text + session->n_given, (size_t)n_held);
    session->n_given = 0;
    session->n_text = n_held;
    n = text_piece(t, token, false, session->text + n_held, session->text_cap - n_held);
    if (n < 0) {
        session->text_cap = n_held - n;
        session->text = mem_realloc(session->text, (size_t)session->text_cap, 1);
        n = text_piece(t, token, false, session->text + n_held, -n);
        CHECK(n >= 0);
    }
    session->n_text += n;
}

/* Hands out the whole characters, or at the end of an answer everything. */
static void text_give(struct ll_session *session, bool all, struct ll_token *token)
{
    size_t n = (size_t)session->n_text;

    session->n_given = (int)(all || !n ? n : text_utf8_whole(session->text, n));
    token->text = session->n_given ? session->text : "";
    token->n_text = session->n_given;
}

static void stats_begin(struct ll_session *session)
{
    session->answering = true;
    session->us_prompt = session->us_generate = 0;
    session->us_begin = clock_us();
    session->stats = (struct ll_stats){.n_prompt = session->n_tokens, .n_cached = session->n_read};
}

/* us is what this call has taken. A cancelled call counts towards the prompt until a token came. */
static void stats_count(struct ll_session *session, int64_t us, bool got_token)
{
    struct ll_stats *s = &session->stats;

    if (s->n_generated)
        session->us_generate += us;
    else
        session->us_prompt += us;
    if (got_token && !s->n_generated)
        s->ttft_ms = (double)(clock_us() - session->us_begin) / 1000;
    s->n_generated += got_token;
    s->prompt_ms = (double)session->us_prompt / 1000;
    s->generate_ms = (double)session->us_generate / 1000;
}

static enum ll_code context_full(struct ll_session *session, struct ll_token *token,
                                 struct ll_error *error)
{
    session->n_text -= session->n_given;
    if (session->n_text)
        memmove(session->text, session->text + session->n_given, (size_t)session->n_text);
    text_give(session, true, token);
    session->answering = false;
    return engine_say(error, LL_FULL, "the context of %d tokens is full", session->engine->n_ctx);
}

enum ll_code ll_session_next(struct ll_session *session, struct ll_token *token,
                             struct ll_error *error)
{
    struct err_text et = {{0}};
    int64_t us = clock_us();
    int32_t id = -1;
    enum err e;

    *token = (struct ll_token){.id = -1, .text = ""};
    if (session->n_tokens == 0)
        return engine_say(error, LL_INPUT, "there is nothing to continue: add text first");
    if (session->n_tokens >= session->engine->n_ctx)
        return context_full(session, token, error);
    if (session->n_read == session->n_tokens)
        session->n_read--;
    if (!session->answering)
        stats_begin(session);
    e = token_pick(session, &id, &et);
    stats_count(session, clock_us() - us, !e);
    if (e)
        return engine_fail(error, e, &et);
    tokens_append(session, &id, 1);
    text_append(session, id);
    token->id = id;
    if (!text_is_end(session->engine->text, id)) {
        text_give(session, false, token);
        return LL_OK;
    }
    text_give(session, true, token);
    session->answering = false;
    return engine_say(error, LL_END, "the model ended its answer");
}

static enum err logits_reserve(struct ll_session *session, int n, struct err_text *et)
{
    size_t n_vocab = (size_t)model_shape(session->engine->model)->n_vocab;
    float *bigger;

    if ((size_t)n <= session->logits_rows)
        return ERR_NONE;
    if ((size_t)n > SIZE_MAX / (n_vocab * sizeof *bigger))
        return err_set(et, ERR_MEMORY, "the logits of %d rows are more than memory can hold", n);
    bigger = mem_try((size_t)n, n_vocab * sizeof *bigger);
    if (!bigger)
        return err_set(et, ERR_MEMORY,
                       "the logits of %d rows need %zu MB, which the system does not have: read "
                       "fewer rows at once",
                       n, (size_t)n * n_vocab * sizeof *bigger / 1000000);
    free(session->logits);
    session->logits = bigger;
    session->logits_rows = (size_t)n;
    return ERR_NONE;
}

enum ll_code ll_session_read(struct ll_session *session, int n, const float **logits,
                             struct ll_error *error)
{
    size_t n_vocab = (size_t)model_shape(session->engine->model)->n_vocab;
    int n_added = session->n_tokens - session->n_read;
    struct err_text et = {{0}};
    enum err e;

    *logits = NULL;
    if (n < 1 || n > n_added)
        return engine_say(error, LL_INPUT,
                          "the logits of %d rows were asked for, but %d tokens are to be read", n,
                          n_added);
    e = logits_reserve(session, n, &et);
    while (!e && session->n_read < session->n_tokens) {
        struct tensors out = {0};
        int wanted_before = session->n_tokens - n;

        e = chunk_read(session, n, &out, &et);
        if (e || session->n_read <= wanted_before)
            continue;
        /* By position: rows may come twice, when a device has come or left in between. */
        memcpy(session->logits + (size_t)(session->n_read - out.n_rows - wanted_before) * n_vocab,
               out.data[0], (size_t)out.n_rows * n_vocab * sizeof *out.data[0]);
        engine_unlock(session->engine);
    }
    if (e)
        return engine_fail(error, e, &et);
    *logits = session->logits;
    return LL_OK;
}

int ll_session_length(const struct ll_session *session)
{
    return session->n_tokens;
}

const int32_t *ll_session_tokens(const struct ll_session *session)
{
    return session->tokens;
}

enum ll_code ll_session_truncate(struct ll_session *session, int n, struct ll_error *error)
{
    struct err_text et = {{0}};

    if (n < 0 || n > session->n_tokens)
        return engine_say(error, LL_INPUT, "cannot forget from position %d of %d tokens", n,
                          session->n_tokens);
    if (n < session->n_tokens)
        answer_end(session);
    if (n < session->n_read) {
        enum err e = engine_slot_truncate(session->engine, session->slot, n, &et);

        if (e)
            return engine_fail(error, e, &et);
        session->n_read = n;
    }
    session->n_tokens = n;
    return LL_OK;
}

void ll_session_stats(const struct ll_session *session, struct ll_stats *stats)
{
    *stats = session->stats;
}
