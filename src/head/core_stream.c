/* Requests: the queue in front of the slots, and what each stream has read and told.
 *
 * A stream's tokens are kept from its request on, so whatever happens to its slot (an epoch that
 * ends, a step that fails), it can be read again; `told` keeps results from being told twice. */
#include <stdlib.h>
#include <string.h>

#include "base/check.h"
#include "base/mem.h"
#include "head/core_impl.h"

enum { COPY_MIN = 16 }; /* positions: a shorter prefix is as soon read as copied */

static int find(const struct core *c, int number)
{
    for (int i = 0; i < c->n_streams; i++)
        if (c->streams[i].open && c->streams[i].number == number)
            return i;
    return -1;
}

static bool waits(const struct stream *st)
{
    return st->open && st->slot < 0;
}

int stream_left(const struct stream *st)
{
    return st->open && st->slot >= 0 ? st->n - st->sent : 0;
}

bool stream_decodes(const struct stream *st)
{
    return st->open && st->slot >= 0 && st->sent >= st->n_prompt - 1 && st->told >= st->n_prompt;
}

/* Its slot stays as it is, for whoever begins alike. */
static void forget(struct core *c, int i)
{
    struct stream *st = &c->streams[i];

    flight_forget_stream(c, i);
    if (st->slot >= 0) {
        c->slots[st->slot].stream = -1;
        c->slots[st->slot].used = ++c->turn;
    }
    free(st->tokens);
    memset(st, 0, sizeof *st);
    while (c->n_streams > 0 && !c->streams[c->n_streams - 1].open)
        c->n_streams--;
}

static void end(struct core *c, int i, enum err code, const char *text)
{
    int number = c->streams[i].number;

    forget(c, i);
    core_act(
        c, &(struct core_action){.kind = CORE_ENDED, .client = number, .code = code, .text = text});
}

void stream_fini(struct core *c)
{
    for (int i = 0; i < CORE_STREAMS_MAX; i++)
        free(c->streams[i].tokens);
}

/* ---- a new one ---- */

static enum err check(const struct core *c, const struct core_request *r, struct err_text *et)
{
    if (find(c, r->stream) >= 0)
        return err_set(et, ERR_INPUT, "stream %d is open already", r->stream);
    if (r->n_tokens < 1 || r->n_more < 0)
        return err_set(et, ERR_INPUT, "there is nothing to read");
    if (r->n_tokens > c->opts.n_ctx || r->n_more > c->opts.n_ctx - r->n_tokens)
        return err_set(et, ERR_LIMIT,
                       "%d tokens and %d more do not fit: the context holds %d; shorten the "
                       "prompt, or serve with a larger --ctx",
                       r->n_tokens, r->n_more, c->opts.n_ctx);
    for (int i = 0; i < r->n_tokens; i++)
        if (r->tokens[i] < 0 || (c->opts.n_vocab && r->tokens[i] >= c->opts.n_vocab))
            return err_set(et, ERR_INPUT, "token %d is %d, which the model does not have", i,
                           (int)r->tokens[i]);
    if (r->want_from < 0 || r->want_from >= r->n_tokens ||
        (r->want != CORE_WANT_LOGITS && r->want != CORE_WANT_HIDDEN))
        return err_set(et, ERR_INPUT, "results of rows from %d on are wanted, of %d", r->want_from,
                       r->n_tokens);
    if (r->slot < -1 || r->slot >= c->opts.n_slots)
        return err_set(et, ERR_INPUT, "slot %d: there are 0 to %d", r->slot, c->opts.n_slots - 1);
    return ERR_NONE;
}

static int n_waiting(const struct core *c)
{
    int n = 0;

    for (int i = 0; i < c->n_streams; i++)
        n += waits(&c->streams[i]);
    return n;
}

int stream_room(const struct core *c)
{
    int max = CORE_STREAMS_MAX - c->opts.n_slots;

    if (c->opts.n_queue_max && c->opts.n_queue_max < max)
        max = c->opts.n_queue_max;
    return max - n_waiting(c);
}

/* A free place, or -1 when as many wait as may. */
static int place(const struct core *c)
{
    if (stream_room(c) <= 0)
        return -1;
    for (int i = 0; i < CORE_STREAMS_MAX; i++)
        if (!c->streams[i].open)
            return i;
    return -1;
}

/* One turn after the last of its flow, or after the one that was admitted last. */
static uint64_t due(const struct core *c, int flow)
{
    uint64_t last = c->due;

    for (int i = 0; i < c->n_streams; i++)
        if (c->streams[i].open && c->streams[i].flow == flow && c->streams[i].due > last)
            last = c->streams[i].due;
    return last + 1;
}

static void begin(struct core *c, int i, const struct core_request *r)
{
    struct stream *st = &c->streams[i];

    *st = (struct stream){.open = true,
                          .number = r->stream,
                          .flow = r->flow,
                          .after = r->after,
                          .slot = -1,
                          .want_slot = r->slot,
                          .fresh = r->fresh,
                          .want = r->want,
                          .n_prompt = r->n_tokens,
                          .n_max = r->n_tokens + r->n_more,
                          .n = r->n_tokens,
                          .cap = r->n_tokens,
                          .want_from = r->want_from,
                          .arrived_us = c->now_us,
                          .rest_us = INT64_MIN,
                          .due = due(c, r->flow)};
    st->tokens = mem_alloc((size_t)r->n_tokens * sizeof *st->tokens);
    memcpy(st->tokens, r->tokens, (size_t)r->n_tokens * sizeof *st->tokens);
    if (i >= c->n_streams)
        c->n_streams = i + 1;
}

void stream_request(struct core *c, const struct core_request *r)
{
    struct core_action refusal = {.kind = CORE_ENDED, .client = r->stream};
    struct err_text et = {{0}};
    int i;

    refusal.code = check(c, r, &et);
    i = refusal.code ? -1 : place(c);
    if (!refusal.code && i < 0) {
        refusal.code =
            err_set(&et, ERR_LIMIT, "%d requests wait already; try again in a while", n_waiting(c));
        refusal.busy = true;
    }
    refusal.text = et.text;
    if (refusal.code)
        core_act(c, &refusal);
    else
        begin(c, i, r);
}

void stream_token(struct core *c, const struct core_event *ev)
{
    int i = find(c, ev->client);
    struct stream *st = &c->streams[i < 0 ? 0 : i];

    if (i < 0)
        return; /* it has ended meanwhile */
    /* The driver keeps to what it said when it asked. */
    CHECK(ev->n >= 1 && st->told == st->n && ev->n <= st->n_max - st->n);
    if (st->n + ev->n > st->cap) {
        st->cap = 2 * st->cap > st->n + ev->n ? 2 * st->cap : st->n + ev->n;
        st->tokens = mem_realloc(st->tokens, (size_t)st->cap, sizeof *st->tokens);
    }
    memcpy(st->tokens + st->n, ev->tokens, (size_t)ev->n * sizeof *st->tokens);
    st->want_from = st->n;
    st->n += ev->n;
    st->rest_us = INT64_MIN;
}

void stream_end(struct core *c, int number)
{
    int i = find(c, number);

    if (i >= 0)
        forget(c, i);
}

/* ---- slots ---- */

static bool may_begin(const struct core *c, const struct stream *st)
{
    int leader = st->after >= 0 ? find(c, st->after) : -1;

    if (leader >= 0 &&
        (c->streams[leader].slot < 0 || c->streams[leader].sent < c->streams[leader].n_prompt))
        return false;
    return st->want_slot < 0 || slots_is_free(c, st->want_slot);
}

static int next_waiting(const struct core *c)
{
    int best = -1;

    for (int i = 0; i < c->n_streams; i++) {
        const struct stream *st = &c->streams[i];

        if (waits(st) && (best < 0 || st->due < c->streams[best].due) && may_begin(c, st))
            best = i;
    }
    return best;
}

/* Of the slots that hold most of such a prompt: the first free one, and any. */
struct matches {
    int free, n_free, any, n_any;
};

static struct matches match(const struct core *c, const uint64_t *tag, int n)
{
    struct matches m = {-1, 0, -1, 0};

    for (int i = 0; i < c->opts.n_slots; i++) {
        int len = c->slots[i].client < 0 ? slots_match(c, i, tag, n) : 0;

        if (len > m.n_free && slots_is_free(c, i)) {
            m.free = i;
            m.n_free = len;
        }
        if (len > m.n_any) {
            m.any = i;
            m.n_any = len;
        }
    }
    return m;
}

/* A slot for it, and what of the prompt it holds or will hold after a copy in front of the next
 * step. A free slot that holds much else beside is not cut down while another can take a copy. */
static int choose(struct core *c, const struct stream *st, const uint64_t *tag, int *n_held)
{
    int limit = st->want_from < st->n_prompt - 1 ? st->want_from : st->n_prompt - 1;
    struct matches m = match(c, tag, st->fresh ? 0 : limit);
    int slot = st->want_slot >= 0 ? st->want_slot : m.free, idle = slots_idle(c);

    *n_held = 0;
    if (st->want_slot < 0 && (slot < 0 || (c->slots[slot].len > 2 * m.n_free && idle != slot)))
        slot = idle;
    if (slot < 0 || st->fresh)
        return slot;
    *n_held = slots_match(c, slot, tag, limit);
    if (m.n_any >= *n_held + COPY_MIN && m.any != slot && slots_copy(c, m.any, slot, m.n_any))
        *n_held = m.n_any;
    return slot;
}

static bool admit(struct core *c, int i)
{
    struct stream *st = &c->streams[i];
    uint64_t *tag = mem_alloc((size_t)st->n_prompt * sizeof *tag);
    int slot, n_ops = c->n_ops, n_held;

    slots_tags(c, st->tokens, st->n_prompt, tag);
    slot = choose(c, st, tag, &n_held);
    free(tag);
    if (slot < 0)
        return false;
    st->slot = slot;
    st->sent = st->n_cached = n_held;
    c->due = st->due > c->due ? st->due : c->due;
    c->slots[slot].stream = i;
    if (n_held == 0)
        slots_empty(c, slot);
    if (c->n_ops > n_ops) /* the step with the copy is of its making */
        slots_add_piece(c, (struct piece){.client = -1, .stream = i, .slot = slot});
    core_act(c, &(struct core_action){
                    .kind = CORE_STARTED, .client = st->number, .n = n_held, .slot = slot});
    return true;
}

void stream_admit(struct core *c)
{
    int i;

    /* Not into an epoch that is about to end: nothing would be left of what slots hold. */
    if (!c->live || c->phase == PHASE_SWITCHING)
        return;
    while (slots_idle(c) >= 0 && c->n_pieces < WIRE_SLOTS_MAX && (i = next_waiting(c)) >= 0)
        if (!admit(c, i))
            return;
}

/* ---- coming home ---- */

void stream_home(struct core *c, int i, int row, int pos, int n)
{
    struct stream *st = &c->streams[i];
    int number = st->number;

    st->tries = 0;
    for (int k = 0; k < n; k++) {
        if (pos + k < st->told)
            continue; /* told before it was read again */
        st->told = pos + k + 1;
        if (st->told == st->n)
            st->rest_us = c->now_us;
        core_act(c, &(struct core_action){.kind = CORE_ROW,
                                          .client = number,
                                          .n = pos + k,
                                          .row = row + k,
                                          .last = st->told == st->n});
    }
}

static void read_again(struct core *c, struct stream *st)
{
    slots_empty(c, st->slot);
    st->sent = st->n_cached = 0;
    st->failed = c->next_number - 1;
}

void stream_failed(struct core *c, int slot, const struct core_event *ev)
{
    int i = c->slots[slot].stream;
    struct stream *st = &c->streams[i < 0 ? 0 : i];

    if (i < 0 || ev->number <= st->failed)
        return;
    if (++st->tries >= CORE_STREAM_TRIES_MAX)
        end(c, i, ev->code, ev->text && ev->text[0] ? ev->text : "a device could not run it");
    else
        read_again(c, st);
}

/* Changes that wait for the next step were made for slots that are not what they were. */
static void drop_changes(struct core *c)
{
    for (int i = 0; i < c->n_ops; i++) {
        const struct slot_op *op = &c->ops[i];

        c->slots[op->kind == SLOT_OP_COPY ? op->to : op->slot].needs_empty = true;
    }
    slots_step_clear(c);
}

void stream_doubt(struct core *c)
{
    drop_changes(c);
    for (int i = 0; i < c->opts.n_slots; i++)
        if (slots_is_free(c, i))
            slots_empty(c, i);
    for (int i = 0; i < c->n_streams; i++) {
        struct stream *st = &c->streams[i];

        if (st->open && st->slot >= 0 && st->n_cached > 0 && st->sent == st->n_cached)
            read_again(c, st);
    }
}

void stream_wipe(struct core *c)
{
    for (int i = 0; i < c->n_streams; i++) {
        struct stream *st = &c->streams[i];

        st->sent = st->n_cached = 0;
        st->failed = 0;
    }
}

void stream_lose(struct core *c, enum err code, const char *text)
{
    for (int i = c->n_streams - 1; i >= 0; i--)
        if (i < c->n_streams && c->streams[i].open && c->streams[i].slot >= 0)
            end(c, i, code, text);
}

/* ---- waiting too long ---- */

/* Only time without a running epoch counts. */
static int64_t deadline(const struct core *c, const struct stream *st)
{
    if (c->live || !st->open)
        return INT64_MAX;
    return (st->arrived_us > c->stopped_us ? st->arrived_us : c->stopped_us) + CORE_WAIT_US;
}

void stream_expire(struct core *c)
{
    for (int i = c->n_streams - 1; i >= 0; i--)
        if (i < c->n_streams && c->now_us >= deadline(c, &c->streams[i]))
            end(c, i, c->trouble ? c->trouble : ERR_GONE, epoch_waits_for(c));
}

int64_t stream_next_us(const struct core *c)
{
    int64_t next = INT64_MAX;

    for (int i = 0; i < c->n_streams; i++) {
        int64_t t = deadline(c, &c->streams[i]);

        next = t < next ? t : next;
    }
    return next;
}
