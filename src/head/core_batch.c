/* What goes into the next step; core.h tells the rules. Whoever was taken longest ago is taken
 * first, so nobody starves, and short prompts pass long ones by turns. */
#include <math.h>
#include <stdlib.h>

#include "base/check.h"
#include "head/core_impl.h"

/* A step that also reads may take so much longer than one that only decodes, by the plan's costs:
 * a prompt has a third of the time of those who decode, and no more. */
#define PACE_STRETCH 1.5

enum { KERNEL_ROWS = 4 }; /* matrix kernels work on so many rows at once */

/* Who could be taken: a client's ask or a stream's rows. */
struct candidate {
    int client, stream; /* index of one, the other -1 */
    uint64_t served;
    bool decodes;
};

enum { CANDIDATES_MAX = CORE_CLIENTS_MAX + WIRE_SLOTS_MAX };

struct crowd {
    int n, n_ready;  /* candidates; of these, how many decode */
    int n_decoding;  /* all that decode now, under way, resting or ready */
    int n_groups;    /* they are to be */
    int n_fill;      /* steps under way that keep the busiest device at work */
    int n_resting;   /* of these, whose token is being made, and has not been for too long */
    int64_t hold_us; /* until when the last of them is waited for */
    struct candidate list[CANDIDATES_MAX];
};

/* ---- who is there ---- */

/* How long a token may be in the making for its group to wait: some milliseconds, or, where steps
 * are long (and so the head may be slow, too), a part of one. */
static int64_t patience_us(const struct core *c)
{
    double part = c->cur.pace.step_s[0] * 1e6 / CORE_HOLD_SHARE;

    return part < CORE_HOLD_US       ? CORE_HOLD_US
           : part > CORE_HOLD_MAX_US ? CORE_HOLD_MAX_US
                                     : (int64_t)part;
}

static void count_decoding(const struct core *c, struct crowd *w, int64_t rest_us)
{
    int64_t until = rest_us + patience_us(c);

    w->n_decoding++;
    if (rest_us == INT64_MIN || c->now_us >= until)
        return;
    w->n_resting++;
    if (until > w->hold_us)
        w->hold_us = until;
}

static void put(struct crowd *w, struct candidate one)
{
    CHECK(w->n < CANDIDATES_MAX);
    w->list[w->n++] = one;
    w->n_ready += one.decodes;
}

static int by_turn(const void *a, const void *b)
{
    const struct candidate *x = a, *y = b;

    if (x->served != y->served)
        return x->served < y->served ? -1 : 1;
    if (x->stream != y->stream)
        return x->stream < y->stream ? -1 : 1;
    return x->client - y->client;
}

static void look(const struct core *c, struct crowd *w)
{
    w->n = w->n_ready = w->n_decoding = w->n_resting = 0;
    w->hold_us = INT64_MIN;
    for (int i = 0; i < CORE_CLIENTS_MAX; i++) {
        const struct client *cl = &c->clients[i];

        if (!cl->open)
            continue;
        if (cl->decodes && (cl->n_asks + cl->n_flying > 0 || cl->rest_us != INT64_MIN))
            count_decoding(c, w, cl->rest_us);
        if (cl->n_asks > 0)
            put(w, (struct candidate){i, -1, cl->served,
                                      cl->asks[cl->first]->n_rows <= CORE_DECODE_ROWS});
    }
    for (int i = 0; i < c->n_streams; i++) {
        const struct stream *st = &c->streams[i];
        bool decodes = stream_decodes(st) && stream_left(st) <= CORE_DECODE_ROWS;

        if (stream_decodes(st))
            count_decoding(c, w, st->rest_us);
        if (stream_left(st) > 0)
            put(w, (struct candidate){-1, i, st->served, decodes});
    }
    if (w->n_decoding < w->n_ready)
        w->n_decoding = w->n_ready; /* clients whose last ask was of another kind */
    qsort(w->list, (size_t)w->n, sizeof *w->list, by_turn);
}

/* ---- how much ---- */

static double by_points(const double at_s[PACE_POINTS], double row_s, int rows)
{
    static const int at[PACE_POINTS] = {1, 2, 4, 8, 16};

    for (int i = 1; i < PACE_POINTS; i++)
        if (rows <= at[i])
            return at_s[i - 1] + (at_s[i] - at_s[i - 1]) * (rows - at[i - 1]) / (at[i] - at[i - 1]);
    return at_s[PACE_POINTS - 1] + row_s * (rows - at[PACE_POINTS - 1]);
}

/* Seconds that a step of rows that decode keeps the busiest device at work, or, when nobody knows,
 * in units of one row. */
static double step_s(const struct core_pace *p, int rows)
{
    return p->step_s[0] > 0 ? by_points(p->step_s, p->row_s, rows)
                            : (rows + KERNEL_ROWS - 1) / KERNEL_ROWS;
}

/* The same of n rows that decode and `read` of prompts, n + read >= 1, with pos positions in front. */
static double mixed_s(const struct core_pace *p, int n, int read, int pos)
{
    double deep = pos > p->depth ? p->position_s * (pos - p->depth) * read : 0;

    if (p->step_s[0] <= 0)
        return step_s(p, n + read);
    if (n == 0)
        return by_points(p->read_s, p->row_s, read) + deep;
    return step_s(p, n) + by_points(p->read_s, p->row_s, n + read) -
           by_points(p->read_s, p->row_s, n) + deep;
}

/* By how many rows steps grow. Kernels that take rows one by one ask for each; those that take them
 * by fours ask hardly more for four than for one. */
static int grain(const struct core_pace *p)
{
    return p->read_s[2] > 2 * p->read_s[0] ? 1 : KERNEL_ROWS;
}

/* Rows of a prompt with pos positions in front, in a step with n that decode. */
struct reader {
    int n, pos;
};

/* The most rows of prompts with which a step takes at most so long. */
static int rows_within(const struct core *c, struct reader r, double most)
{
    int by = grain(&c->cur.pace), best = 0;

    for (int total = (r.n / by + 1) * by; total <= c->opts.n_rows_max; total += by)
        if (mixed_s(&c->cur.pace, r.n, total - r.n, r.pos) <= most)
            best = total - r.n;
    return best;
}

/* The same of those that ride along at once. */
static int rows_riding(const struct core *c, struct reader r)
{
    return rows_within(c, r, PACE_STRETCH * step_s(&c->cur.pace, r.n));
}

/* Rows of prompts in a step that decodes; where none ride, steps save up for some. */
static int rows_beside(struct core *c, struct reader r)
{
    double alone = step_s(&c->cur.pace, r.n);
    int rows = rows_riding(c, r);

    if (rows == 0) {
        c->saved += (PACE_STRETCH - 1) * alone;
        rows = rows_within(c, r, alone + c->saved);
    }
    if (rows > 0)
        c->saved = 0;
    return rows;
}

/* Kernels that take rows by fours fill them up. */
static int rows_paid(const struct core *c, int rows)
{
    int by = grain(&c->cur.pace);

    return rows > KERNEL_ROWS / 2 ? (rows + by - 1) / by * by : rows;
}

/* Once round for a step of so many rows that decode, which waits for nobody. */
static double round_s(const struct core *c, int rows)
{
    const struct core_pace *p = &c->cur.pace;

    return p->latency_s + c->cur.plan.n_devices * (step_s(p, rows) - step_s(p, 1));
}

/* Of n rows that decode in k groups, how long until each has had its turn: a group after the other
 * on the busiest device, or once round for one of them. */
static double cycle_s(const struct core *c, int n, int k)
{
    int rows = rows_paid(c, (n + k - 1) / k);
    double one = step_s(&c->cur.pace, rows), round = round_s(c, rows);

    return k * one > round ? k * one : round;
}

static bool pace_is_known(const struct core *c)
{
    return c->cur.pace.step_s[0] > 0 && c->cur.pace.latency_s > 0;
}

/* How many steps of so many rows keep the busiest device at work, but for a quarter of one; without
 * a pace one per device. A device with little to do needs none of its own. */
static int steps_to_fill(const struct core *c, int rows)
{
    if (!pace_is_known(c))
        return c->cur.plan.n_devices;
    rows = rows_paid(c, rows);
    return (int)(fmin(round_s(c, rows) / step_s(&c->cur.pace, rows), PLAN_STAGES_MAX) + 0.25);
}

/* In how many groups n streams decode best; without a pace the plan's number, or one per stage. */
static int groups_for(const struct core *c, int n)
{
    const struct core_pace *p = &c->cur.pace;
    int n_stages = c->cur.plan.n_stages, best = 1;

    if (!pace_is_known(c))
        return p->k > 0 ? p->k : n_stages;
    for (int k = 2; k <= n && k <= CORE_FLIGHT_PER_STAGE * n_stages; k++)
        if (cycle_s(c, n, k) < cycle_s(c, n, best))
            best = k;
    return best;
}

/* ---- taking ---- */

/* What the step under construction has become. */
struct making {
    int n_decodes;       /* pieces that decode */
    int left;            /* rows of prompts that still go in */
    enum core_want want; /* of its wanted rows, NOTHING before the first */
};

static bool fits_kind(const struct making *m, enum core_want want)
{
    return m->want == CORE_WANT_NOTHING || m->want == want;
}

/* The client's next ask goes in, or is answered with a refusal. False: it stays. */
static bool take_ask(struct core *c, struct making *m, int i)
{
    struct client *cl = &c->clients[i];
    struct ask *q = cl->asks[cl->first];
    struct err_text why = q->why;
    int row = c->n_want;
    enum err e = q->code ? q->code : slots_check(c, i, q, &why);

    if (e || !slots_has_room(c, q) || (q->n_want && !fits_kind(m, CORE_WANT_LOGITS)))
        return false;
    slots_add_ask(c, i, q);
    slots_add_piece(c, (struct piece){.client = i,
                                      .stream = -1,
                                      .slot = -1,
                                      .ask = q->number,
                                      .row = row,
                                      .n_rows = q->n_want});
    if (q->n_want)
        m->want = CORE_WANT_LOGITS;
    if (q->n_rows <= CORE_DECODE_ROWS)
        m->n_decodes++;
    else
        m->left -= q->n_rows;
    cl->served = ++c->turn;
    free(flight_pop(cl));
    return true;
}

static bool take_rows(struct core *c, struct making *m, const struct candidate *one)
{
    struct stream *st = &c->streams[one->stream];
    int n = stream_left(st), room = c->opts.n_rows_max - c->n_rows, row = c->n_want, first, n_want;

    if (!one->decodes && n > m->left)
        n = m->left;
    if (n > room)
        n = room;
    first = st->want_from > st->told ? st->want_from : st->told;
    if (n <= 0 || (st->sent + n > first && !fits_kind(m, st->want)) ||
        c->n_pieces >= PIECES_MAX - CORE_CLIENTS_MAX || c->n_ops >= WIRE_OPS_MAX)
        return false;
    if (first < st->sent)
        first = st->sent;
    n_want = slots_add_rows(c, st, n, first);
    slots_add_piece(c, (struct piece){.client = -1,
                                      .stream = one->stream,
                                      .slot = st->slot,
                                      .row = row,
                                      .n_rows = n_want,
                                      .pos = first});
    st->sent += n;
    st->served = ++c->turn;
    if (n_want)
        m->want = st->want;
    if (one->decodes)
        m->n_decodes++;
    else
        m->left -= n;
    return true;
}

static bool take(struct core *c, struct making *m, const struct candidate *one)
{
    return one->client >= 0 ? take_ask(c, m, one->client) : take_rows(c, m, one);
}

/* ---- one step ---- */

/* As large as k groups of all that decode make it. */
static int group_size(const struct crowd *w)
{
    return (w->n_decoding + w->n_groups - 1) / w->n_groups;
}

static void take_group(struct core *c, const struct crowd *w, struct making *m)
{
    for (int i = 0; i < w->n && m->n_decodes < group_size(w); i++)
        if (w->list[i].decodes)
            take(c, m, &w->list[i]);
}

static void take_readers(struct core *c, const struct crowd *w, struct making *m)
{
    for (int i = 0; i < w->n && m->left > 0; i++)
        if (!w->list[i].decodes)
            take(c, m, &w->list[i]);
}

/* Whether a group should wait for those whose token is being made. */
static bool holds(struct core *c, const struct crowd *w)
{
    if (w->n_resting == 0 || w->n_ready >= group_size(w))
        return false;
    c->hold_us = w->hold_us;
    return true;
}

/* A reader whose rows cannot share a step with tokens gets one of its own, in turn. */
static bool reader_goes_alone(const struct core *c, const struct crowd *w)
{
    for (int i = 0; i < w->n; i++)
        if (w->list[i].decodes)
            return false;
        else if (w->list[i].stream >= 0 && c->streams[w->list[i].stream].want == CORE_WANT_HIDDEN)
            return true;
    return false;
}

/* How many positions are in front of the prompt that is read next; of asks nobody knows. */
static int next_pos(const struct core *c, const struct crowd *w)
{
    for (int i = 0; i < w->n; i++)
        if (!w->list[i].decodes)
            return w->list[i].stream >= 0 ? c->streams[w->list[i].stream].sent : 0;
    return 0;
}

/* Whether prompts go in steps of their own beside those who decode: where these leave the busiest
 * device idle and no rows ride along, which is cheaper. */
static bool reads_apart(const struct core *c, const struct crowd *w)
{
    return w->n_groups < w->n_fill &&
           rows_riding(c, (struct reader){group_size(w), next_pos(c, w)}) == 0;
}

/* Whether one more step that only reads may leave. Beside those who decode: as many as have nothing
 * to wait for, since each step more makes everybody's round longer. When nobody does: one for each
 * stage and one that waits, so that whoever begins to decode soon has its turn. Asks, whose size we do not know beforehand: as many as there may be of any. */
static bool may_read(const struct core *c, const struct crowd *w)
{
    int n_stages = c->cur.plan.n_stages, most = w->n_groups;

    if (w->n_decoding == 0)
        most = n_stages + 1;
    else if (reads_apart(c, w))
        most = w->n_fill;
    for (int i = 0; i < w->n; i++)
        if (w->list[i].client >= 0 && !w->list[i].decodes)
            most = CORE_FLIGHT_PER_STAGE * n_stages;
    return c->n_flight < most;
}

/* How many rows of prompts go into a step; some into one that only reads. */
static int read_share(struct core *c, const struct crowd *w, const struct making *m)
{
    struct reader r = {m->n_decodes, next_pos(c, w)};
    int rows;

    if (w->n_decoding == 0) {
        c->saved = 0;
        return c->opts.n_rows_max;
    }
    if (r.n > 0)
        return reads_apart(c, w) ? 0 : rows_beside(c, r);
    rows = rows_within(c, r, step_s(&c->cur.pace, group_size(w)));
    return rows > 0 ? rows : 1;
}

static bool make_step(struct core *c, const struct crowd *w)
{
    struct making m = {0};
    bool turn = c->n_decode_flights < w->n_groups && !reader_goes_alone(c, w);
    bool decode = turn && w->n_ready > 0;
    bool read = w->n > w->n_ready && (decode || may_read(c, w));

    /* Prompts hold back, too: a step of theirs in front of a token would keep it waiting. */
    if ((!decode && !read) || (turn && holds(c, w)))
        return false;
    if (decode)
        take_group(c, w, &m);
    if (read) {
        m.left = read_share(c, w, &m);
        take_readers(c, w, &m);
    }
    if (c->n_rows == 0 && c->n_ops == 0)
        return false;
    flight_send(c, m.n_decodes > 0);
    return true;
}

/* The client's next ask is bad, or builds on what is no more: it is answered once those before it
 * are. */
static bool refuse(struct core *c, int i)
{
    struct client *cl = &c->clients[i];
    struct err_text why;
    struct ask *q;
    enum err e;

    if (!cl->open || cl->n_asks == 0 || cl->n_flying > 0)
        return false;
    q = cl->asks[cl->first];
    why = q->why;
    e = q->code ? q->code : slots_check(c, i, q, &why);
    if (!e)
        return false;
    flight_pop(cl);
    if (e == ERR_CANCELLED)
        slots_stale(c, i);
    core_reply(c, cl->number, q->number, e, why.text);
    free(q);
    return true;
}

void batch_pump(struct core *c)
{
    struct crowd w;
    bool progress = true;

    c->hold_us = INT64_MAX;
    while (progress) {
        progress = false;
        for (int i = 0; i < CORE_CLIENTS_MAX; i++)
            while (refuse(c, i))
                progress = true;
        stream_admit(c);
        if (!c->live || c->phase == PHASE_SWITCHING ||
            c->n_flight >= CORE_FLIGHT_PER_STAGE * c->cur.plan.n_stages)
            continue;
        look(c, &w);
        w.n_groups = groups_for(c, w.n_decoding);
        w.n_fill = steps_to_fill(c, group_size(&w));
        if (w.n > 0 && make_step(c, &w))
            progress = true;
    }
}
