/* An ask's way: copied and put into its client's queue; put into a step when its turn comes
 * (core_batch.c); answered when that is home.
 *
 * What an ask names is checked when it comes, what its slots hold when it is taken, since a step
 * before it may have failed by then. A refusal waits until the client's asks before it are
 * answered, so that answers come in the order of the asks. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/check.h"
#include "base/mem.h"
#include "head/core_impl.h"

/* ---- a new ask ---- */

static enum err check_ops(const struct client *cl, const struct core_ask *a, struct err_text *et)
{
    /* Room for emptying every slot in front of them. */
    if (a->n_ops < 0 || a->n_ops > WIRE_OPS_MAX - WIRE_SLOTS_MAX)
        return err_set(et, ERR_LIMIT, "%d slot changes; %d go in one step", a->n_ops,
                       WIRE_OPS_MAX - WIRE_SLOTS_MAX);
    for (int i = 0; i < a->n_ops; i++) {
        const struct slot_op *op = &a->ops[i];
        bool copy = op->kind == SLOT_OP_COPY;

        if (!copy && op->kind != SLOT_OP_TRUNCATE)
            return err_set(et, ERR_INPUT, "slot change %d: kind %d", i, (int)op->kind);
        if (op->slot < 0 || op->slot >= cl->n_slots ||
            (copy && (op->to < 0 || op->to >= cl->n_slots)))
            return err_set(et, ERR_INPUT, "slot change %d: slot %d: there are 0 to %d", i,
                           copy && op->slot >= 0 && op->slot < cl->n_slots ? op->to : op->slot,
                           cl->n_slots - 1);
        if (copy && op->to == op->slot)
            return err_set(et, ERR_INPUT, "slot change %d: slot %d cannot be copied to itself", i,
                           op->slot);
        if (op->len < 0)
            return err_set(et, ERR_INPUT, "slot change %d: length %d", i, op->len);
    }
    return ERR_NONE;
}

static enum err check_row(const struct core *c, const struct client *cl, const struct core_ask *a,
                          int r, const bool *seen, struct err_text *et)
{
    int slot = a->slot[r], pos = a->pos[r], token = a->token[r];

    if (slot < 0 || slot >= cl->n_slots)
        return err_set(et, ERR_INPUT, "row %d: slot %d: there are 0 to %d", r, slot,
                       cl->n_slots - 1);
    if (pos < 0)
        return err_set(et, ERR_INPUT, "row %d: position %d", r, pos);
    if (pos >= c->opts.n_ctx)
        return err_set(et, ERR_LIMIT, "row %d: position %d does not fit a context of %d", r, pos,
                       c->opts.n_ctx);
    if (token < 0 || (c->opts.n_vocab && token >= c->opts.n_vocab))
        return err_set(et, ERR_INPUT, "row %d: token %d", r, token);
    if (r > 0 && a->slot[r - 1] == slot) {
        if (pos != a->pos[r - 1] + 1)
            return err_set(et, ERR_INPUT, "row %d: position %d of slot %d does not follow %d", r,
                           pos, slot, a->pos[r - 1]);
    } else if (seen[slot]) {
        return err_set(et, ERR_INPUT, "row %d: rows of slot %d do not stand together", r, slot);
    }
    return ERR_NONE;
}

static enum err check_ask(const struct core *c, const struct client *cl, const struct core_ask *a,
                          struct err_text *et)
{
    bool seen[WIRE_SLOTS_MAX] = {false};
    enum err e;

    if (cl->asked && a->number <= cl->last_asked)
        return err_set(et, ERR_INPUT, "ask %llu after %llu: numbers grow",
                       (unsigned long long)a->number, (unsigned long long)cl->last_asked);
    if (a->n_rows < 0 || a->n_rows > c->opts.n_rows_max)
        return err_set(et, ERR_LIMIT, "a step of %d rows; %d go in one", a->n_rows,
                       c->opts.n_rows_max);
    if (a->n_rows == 0 && a->n_ops == 0)
        return err_set(et, ERR_INPUT, "a step of nothing");
    e = check_ops(cl, a, et);
    for (int r = 0; r < a->n_rows && !e; r++) {
        e = check_row(c, cl, a, r, seen, et);
        if (!e)
            seen[a->slot[r]] = true;
    }
    return e;
}

static void *copy(uint8_t **at, const void *from, size_t size)
{
    void *p = *at;

    if (size > 0)
        memcpy(p, from, size);
    *at += size;
    return p;
}

static struct ask *new_ask(const struct core_ask *a)
{
    size_t ops = (size_t)a->n_ops * sizeof *a->ops, rows = (size_t)a->n_rows;
    struct ask *q = mem_alloc(sizeof *q + ops + 3 * rows * sizeof(int32_t) + rows);
    uint8_t *at = (uint8_t *)(q + 1);

    memset(q, 0, sizeof *q);
    q->n_ops = a->n_ops;
    q->n_rows = a->n_rows;
    q->ops = copy(&at, a->ops, ops);
    q->slot = copy(&at, a->slot, rows * sizeof(int32_t));
    q->pos = copy(&at, a->pos, rows * sizeof(int32_t));
    q->token = copy(&at, a->token, rows * sizeof(int32_t));
    q->want = copy(&at, a->want, rows);
    for (int r = 0; r < a->n_rows; r++) {
        q->want[r] = q->want[r] != 0;
        q->n_want += q->want[r];
    }
    return q;
}

void flight_ask(struct core *c, int i, const struct core_ask *a)
{
    static const struct core_ask nothing = {0};
    struct client *cl = &c->clients[i];
    struct err_text why = {{0}};
    struct ask *q;
    enum err e;

    if (cl->n_asks + cl->n_flying >= CORE_ASKS_MAX) {
        err_set(&why, ERR_LIMIT, "%d steps wait already; ask again when one is answered",
                CORE_ASKS_MAX);
        core_reply(c, cl->number, a->number, ERR_LIMIT, why.text);
        return;
    }
    e = check_ask(c, cl, a, &why);
    q = new_ask(e ? &nothing : a);
    q->number = a->number;
    q->arrived_us = c->now_us;
    q->code = e;
    q->why = why;
    if (!cl->asked || a->number > cl->last_asked)
        cl->last_asked = a->number;
    cl->asked = true;
    cl->decodes = !e && q->n_rows <= CORE_DECODE_ROWS && q->n_want > 0;
    cl->rest_us = INT64_MIN;
    cl->asks[(cl->first + cl->n_asks++) % CORE_ASKS_MAX] = q;
}

struct ask *flight_pop(struct client *cl)
{
    struct ask *q = cl->asks[cl->first];

    CHECK(cl->n_asks > 0);
    cl->first = (cl->first + 1) % CORE_ASKS_MAX;
    cl->n_asks--;
    return q;
}

static struct flight *flight_at(struct core *c, int k)
{
    return &c->flights[(c->flight_first + k) % FLIGHT_MAX];
}

void flight_forget_client(struct core *c, int i)
{
    struct client *cl = &c->clients[i];

    while (cl->n_asks > 0)
        free(flight_pop(cl));
    for (int k = 0; k < c->n_flight; k++)
        for (int j = 0; j < flight_at(c, k)->n_pieces; j++)
            if (flight_at(c, k)->pieces[j].client == i)
                flight_at(c, k)->pieces[j].client = -1;
    cl->n_flying = 0;
}

void flight_forget_stream(struct core *c, int i)
{
    for (int k = 0; k < c->n_flight; k++)
        for (int j = 0; j < flight_at(c, k)->n_pieces; j++)
            if (flight_at(c, k)->pieces[j].stream == i)
                flight_at(c, k)->pieces[j].stream = -1;
    for (int j = 0; j < c->n_pieces; j++)
        if (c->pieces[j].stream == i)
            c->pieces[j].stream = -1;
    c->streams[i].n_flying = 0;
}

void flight_send(struct core *c, bool decodes)
{
    struct flight *f = flight_at(c, c->n_flight);
    struct step s;

    slots_step(c, &s);
    s.number = c->next_number++;
    s.epoch = c->cur.plan.epoch;
    if (c->n_flight++ == 0)
        c->home_us = c->now_us;
    c->n_decode_flights += decodes;
    *f = (struct flight){.number = s.number, .decodes = decodes, .n_pieces = c->n_pieces};
    f->pieces = mem_alloc((size_t)(c->n_pieces + 1) * sizeof *f->pieces);
    for (int i = 0; i < c->n_pieces; i++) {
        f->pieces[i] = c->pieces[i];
        if (c->pieces[i].client >= 0)
            c->clients[c->pieces[i].client].n_flying++;
        if (c->pieces[i].stream >= 0)
            c->streams[c->pieces[i].stream].n_flying++;
    }
    core_act(c, &(struct core_action){
                    .kind = CORE_SEND, .epoch = s.epoch, .number = s.number, .step = &s});
    slots_step_clear(c);
}

/* ---- coming home ---- */

/* Its pieces are the caller's to free. */
static struct flight land(struct core *c)
{
    struct flight f = *flight_at(c, 0);

    c->flight_first = (c->flight_first + 1) % FLIGHT_MAX;
    c->n_flight--;
    c->n_decode_flights -= f.decodes;
    for (int i = 0; i < f.n_pieces; i++) {
        if (f.pieces[i].client >= 0)
            c->clients[f.pieces[i].client].n_flying--;
        if (f.pieces[i].stream >= 0)
            c->streams[f.pieces[i].stream].n_flying--;
    }
    return f;
}

static void client_home(struct core *c, const struct piece *p, uint64_t number,
                        const struct core_event *ev)
{
    struct client *cl = &c->clients[p->client];

    if (!ev->code) {
        cl->rest_us = cl->decodes && cl->n_asks + cl->n_flying == 0 ? c->now_us : INT64_MIN;
        core_act(c, &(struct core_action){.kind = CORE_REPLY,
                                          .client = cl->number,
                                          .number = p->ask,
                                          .text = "",
                                          .row = p->row,
                                          .n_rows = p->n_rows});
    } else if (number > cl->told) {
        slots_stale(c, p->client);
        core_reply(c, cl->number, p->ask, ev->code,
                   ev->text && ev->text[0] ? ev->text : "a device could not run it");
    } else { /* its client knows already that it was for nothing */
        core_reply(c, cl->number, p->ask, ERR_CANCELLED, "stale");
    }
}

static void piece_home(struct core *c, const struct piece *p, uint64_t number,
                       const struct core_event *ev)
{
    if (p->client >= 0)
        client_home(c, p, number, ev);
    else if (p->slot >= 0 && ev->code) /* whoever has it now has built on it */
        stream_failed(c, p->slot, ev);
    else if (p->stream >= 0 && number > c->streams[p->stream].failed)
        stream_home(c, p->stream, p->row, p->pos, p->n_rows);
}

void flight_home(struct core *c, const struct core_event *ev)
{
    struct flight f;

    if (!c->live || ev->epoch != c->cur.plan.epoch)
        return; /* of an epoch that is over */
    if (c->n_flight == 0 || ev->number != flight_at(c, 0)->number) {
        core_say(c, "step %llu came home, where %llu is due", (unsigned long long)ev->number,
                 (unsigned long long)(c->n_flight ? flight_at(c, 0)->number : 0));
        return;
    }
    f = land(c);
    c->home_us = c->now_us;
    for (int i = 0; i < f.n_pieces; i++)
        piece_home(c, &f.pieces[i], f.number, ev);
    if (ev->code)
        stream_doubt(c);
    free(f.pieces);
}

void flight_lose(struct core *c, const char *text)
{
    while (c->n_flight > 0) {
        struct flight f = land(c);

        for (int i = 0; i < f.n_pieces; i++)
            if (f.pieces[i].client >= 0)
                core_reply(c, c->clients[f.pieces[i].client].number, f.pieces[i].ask, ERR_GONE,
                           text);
        free(f.pieces);
    }
}

/* ---- waiting too long ---- */

/* When a client's oldest ask has waited long enough; only time without a running epoch counts. */
static int64_t deadline(const struct core *c, const struct client *cl)
{
    int64_t since;

    if (c->live || !cl->open || cl->n_asks == 0)
        return INT64_MAX;
    since = cl->asks[cl->first]->arrived_us;
    return (since > c->stopped_us ? since : c->stopped_us) + CORE_WAIT_US;
}

void flight_expire(struct core *c)
{
    for (int i = 0; i < CORE_CLIENTS_MAX; i++) {
        struct client *cl = &c->clients[i];

        while (c->now_us >= deadline(c, cl)) {
            struct ask *q = flight_pop(cl);

            slots_stale(c, i);
            core_reply(c, cl->number, q->number, c->trouble ? c->trouble : ERR_GONE,
                       epoch_waits_for(c));
            free(q);
        }
    }
}

int64_t flight_next_us(const struct core *c)
{
    int64_t next = INT64_MAX;

    for (int i = 0; i < CORE_CLIENTS_MAX; i++) {
        int64_t t = deadline(c, &c->clients[i]);

        next = t < next ? t : next;
    }
    return next;
}
