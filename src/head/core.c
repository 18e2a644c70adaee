#include "head/core.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/check.h"
#include "base/mem.h"
#include "head/core_impl.h"

struct core *core_new(const struct core_opts *opts)
{
    struct core *c = mem_zalloc(1, sizeof *c);

    CHECK(opts->n_slots >= 1 && opts->n_slots <= WIRE_SLOTS_MAX);
    CHECK(opts->n_rows_max >= 1 && opts->n_rows_max <= WIRE_ROWS_MAX && opts->n_ctx >= 1);
    c->opts = *opts;
    c->now_us = INT64_MIN;
    c->next_number = 1;
    c->hold_us = INT64_MAX;
    epoch_init(c);
    slots_init(c);
    return c;
}

void core_free(struct core *c)
{
    if (!c)
        return;
    for (int i = 0; i < CORE_CLIENTS_MAX; i++)
        flight_forget_client(c, i);
    for (int k = 0; k < c->n_flight; k++)
        free(c->flights[(c->flight_first + k) % FLIGHT_MAX].pieces);
    stream_fini(c);
    slots_fini(c);
    memset(c->opts.tag_key, 0, sizeof c->opts.tag_key);
    free(c);
}

/* ---- actions ---- */

void core_act(struct core *c, const struct core_action *action)
{
    c->act(c->user, action);
}

void core_say(struct core *c, const char *fmt, ...)
{
    char text[ERR_TEXT_MAX];
    va_list ap;

    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    core_act(c, &(struct core_action){.kind = CORE_SAY, .text = text});
}

void core_reply(struct core *c, int client, uint64_t number, enum err code, const char *text)
{
    core_act(c, &(struct core_action){.kind = CORE_REPLY,
                                      .client = client,
                                      .number = number,
                                      .code = code,
                                      .text = text ? text : ""});
}

/* ---- clients ---- */

/* Index, or -1. */
static int find_client(const struct core *c, int number)
{
    for (int i = 0; i < CORE_CLIENTS_MAX; i++)
        if (c->clients[i].open && c->clients[i].number == number)
            return i;
    return -1;
}

static enum err open_client(struct core *c, int number, int n, struct err_text *et)
{
    struct client *cl = c->clients;

    if (find_client(c, number) >= 0)
        return err_set(et, ERR_INPUT, "client %d is open already", number);
    if (n < 1)
        return err_set(et, ERR_INPUT, "%d slots; at least one is needed", n);
    while (cl < c->clients + CORE_CLIENTS_MAX && cl->open)
        cl++;
    if (cl == c->clients + CORE_CLIENTS_MAX)
        return err_set(et, ERR_LIMIT, "%d programs use this head already; try again later",
                       CORE_CLIENTS_MAX);
    if (!slots_take(c, (int)(cl - c->clients), n))
        return err_set(et, ERR_LIMIT,
                       "not enough of this head's %d conversations are free: try again later, or "
                       "serve with more",
                       c->opts.n_slots);
    cl->open = true;
    cl->number = number;
    return ERR_NONE;
}

static void on_open(struct core *c, const struct core_event *ev)
{
    struct err_text et = {{0}};
    enum err e = open_client(c, ev->client, ev->n, &et);

    core_act(c, &(struct core_action){.kind = CORE_OPENED,
                                      .client = ev->client,
                                      .n = e ? 0 : ev->n,
                                      .code = e,
                                      .text = et.text});
}

static void on_close(struct core *c, int number)
{
    int i = find_client(c, number);

    if (i < 0)
        return;
    flight_forget_client(c, i);
    slots_give(c, i);
    memset(&c->clients[i], 0, sizeof c->clients[i]);
}

static void on_ask(struct core *c, const struct core_event *ev)
{
    int i = find_client(c, ev->client);

    if (i < 0)
        core_reply(c, ev->client, ev->ask->number, ERR_INPUT, "this client is not open");
    else
        flight_ask(c, i, ev->ask);
}

/* ---- the step ---- */

static void handle(struct core *c, const struct core_event *ev)
{
    switch (ev->kind) {
    case CORE_UP:
        epoch_up(c, ev->member);
        return;
    case CORE_DOWN:
        epoch_down(c, ev->member, ev->text);
        return;
    case CORE_DRAIN:
        epoch_drain(c, ev->member);
        return;
    case CORE_CHANGED:
        epoch_changed(c);
        return;
    case CORE_PLANNED:
        epoch_planned(c, ev);
        return;
    case CORE_PROGRESS:
        epoch_progress(c, ev->member);
        return;
    case CORE_FETCHED:
        epoch_fetched(c, ev->member, ev->epoch);
        return;
    case CORE_READY:
        epoch_member_ready(c, ev->member, ev->epoch);
        return;
    case CORE_FAILED:
        epoch_failed(c, ev);
        return;
    case CORE_OPEN:
        on_open(c, ev);
        return;
    case CORE_CLOSE:
        on_close(c, ev->client);
        return;
    case CORE_ASK:
        on_ask(c, ev);
        return;
    case CORE_HOME:
        flight_home(c, ev);
        return;
    case CORE_REQUEST:
        stream_request(c, ev->request);
        return;
    case CORE_TOKEN:
        stream_token(c, ev);
        return;
    case CORE_END:
        stream_end(c, ev->client);
        return;
    case CORE_TIME:
        return;
    }
}

static void check(const struct core *c)
{
    for (int i = 0; i < CORE_CLIENTS_MAX; i++)
        CHECK(c->clients[i].n_flying <= c->n_flight);
    for (int i = 0; i < c->n_streams; i++)
        CHECK(!c->streams[i].open || c->streams[i].slot < 0 ||
              c->slots[c->streams[i].slot].stream == i);
    CHECK(c->n_rows == 0 && c->n_decode_flights >= 0 && c->n_decode_flights <= c->n_flight);
    CHECK(c->live || c->n_flight == 0);
    CHECK(!c->live || c->n_flight <= CORE_FLIGHT_PER_STAGE * c->cur.plan.n_stages);
    CHECK(c->grace_us == INT64_MAX || c->phase == PHASE_NONE);
    CHECK(c->n_flight > 0 || c->phase != PHASE_SWITCHING);
}

void core_step(struct core *c, const struct core_event *event, int64_t now_us,
               void (*act)(void *user, const struct core_action *action), void *user)
{
    CHECK(!c->act);
    if (c->now_us == INT64_MIN)
        c->stopped_us = now_us;
    if (now_us > c->now_us)
        c->now_us = now_us;
    c->act = act;
    c->user = user;
    handle(c, event);
    epoch_tick(c);
    batch_pump(c);
    flight_expire(c);
    stream_expire(c);
    check(c);
    c->act = NULL;
}

int64_t core_next_us(const struct core *c)
{
    const int64_t due[] = {epoch_next_us(c), flight_next_us(c), stream_next_us(c), c->hold_us};
    int64_t next = INT64_MAX;

    for (size_t i = 0; i < sizeof due / sizeof due[0]; i++)
        next = due[i] < next ? due[i] : next;
    return next;
}

struct core_view core_view(const struct core *c)
{
    struct core_view v = {.epoch = c->had_cur ? c->cur.plan.epoch : 0,
                          .coming = c->phase != PHASE_NONE ? c->next.plan.epoch : 0,
                          .plan = c->had_cur ? &c->cur.plan : NULL,
                          .members = c->cur.members,
                          .n_flight = c->n_flight,
                          .text = c->live ? "" : epoch_waits_for(c)};

    for (int i = 0; i < c->opts.n_slots; i++)
        v.n_slots_taken += !slots_is_free(c, i);
    for (int i = 0; i < c->n_streams; i++) {
        v.n_streams += c->streams[i].open && c->streams[i].slot >= 0;
        v.n_waiting += c->streams[i].open && c->streams[i].slot < 0;
    }
    v.n_room = stream_room(c);
    if (c->live)
        v.state = CORE_RUNNING;
    else if (c->phase == PHASE_LOADING)
        v.state = CORE_LOADING;
    else if (c->phase != PHASE_NONE)
        v.state = CORE_FETCHING;
    else
        v.state = c->asked ? CORE_WANTING : CORE_ALONE;
    return v;
}

int core_slot_len(const struct core *c, int client, int slot)
{
    int i = find_client(c, client);

    CHECK(i >= 0 && slot >= 0 && slot < c->clients[i].n_slots);
    return c->slots[c->clients[i].slot[slot]].len;
}

void core_slot_look(const struct core *c, int slot, struct core_slot_view *out)
{
    const struct slot *s = &c->slots[slot];

    CHECK(slot >= 0 && slot < c->opts.n_slots);
    *out = (struct core_slot_view){.stream = -1, .client = -1, .len = s->len};
    if (s->client >= 0)
        out->client = c->clients[s->client].number;
    if (s->stream >= 0) {
        out->stream = c->streams[s->stream].number;
        out->n_prompt = c->streams[s->stream].n_prompt;
    }
}
