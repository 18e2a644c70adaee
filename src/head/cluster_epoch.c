/* The core's actions, carried out. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/check.h"
#include "base/mem.h"
#include "base/sys.h"
#include "head/cluster_impl.h"

/* ---- feeding the core ---- */

struct waiting_event {
    struct waiting_event *next;
    struct core_event event;
    struct err_text text;
    struct plan plan;
    int members[PLAN_DEVICES_MAX];
    struct core_pace pace;
};

static void act(void *user, const struct core_action *a);

/* The event with its own copies of what it points to. Asks, requests, tokens and results never wait:
 * they come from links and from callers, who do not speak while the core is at work. */
static void keep(struct cluster *c, const struct core_event *event)
{
    struct waiting_event *w = mem_zalloc(1, sizeof *w);

    CHECK(!event->ask && !event->request && !event->tokens && event->kind != CORE_HOME);
    w->event = *event;
    if (event->text) {
        (void)err_set(&w->text, ERR_NONE, "%s", event->text);
        w->event.text = w->text.text;
    }
    if (event->plan) {
        w->plan = *event->plan;
        w->event.plan = &w->plan;
        memcpy(w->members, event->members, (size_t)w->plan.n_devices * sizeof w->members[0]);
        w->event.members = w->members;
    }
    if (event->pace) {
        w->pace = *event->pace;
        w->event.pace = &w->pace;
    }
    *c->last = w;
    c->last = &w->next;
}

static void set_core_timer(struct cluster *c)
{
    int64_t at = core_next_us(c->core), left = at - clock_us();
    struct timeval tv;

    if (at == INT64_MAX) {
        event_del(c->core_timer);
        return;
    }
    if (left < 0)
        left = 0;
    tv.tv_sec = left / 1000000;
    tv.tv_usec = left % 1000000;
    event_add(c->core_timer, &tv);
}

void cluster_feed(struct cluster *c, const struct core_event *event)
{
    if (c->closing)
        return;
    if (c->in_core) {
        keep(c, event);
        return;
    }
    c->in_core = true;
    core_step(c->core, event, clock_us(), act, c);
    while (c->first) {
        struct waiting_event *w = c->first;

        core_step(c->core, &w->event, clock_us(), act, c);
        c->first = w->next;
        if (!c->first)
            c->last = &c->first;
        free(w);
    }
    c->in_core = false;
    cluster_tell_waiting(c);
    set_core_timer(c);
}

void cluster_feed_member(struct cluster *c, enum core_event_kind kind, int member, uint32_t epoch,
                         enum err code, const char *text)
{
    struct core_event event = {
        .kind = kind, .member = member, .epoch = epoch, .code = code, .text = text};

    cluster_feed(c, &event);
    cluster_changed(c);
}

int epoch_device(const struct epoch *e, int member)
{
    for (int d = 0; e->number && d < e->plan.n_devices; d++)
        if (e->member[d] == member)
            return d;
    return -1;
}

/* ---- an epoch ---- */

/* The devices a member is to know: its neighbours first, then everyone who may hold weights. */
static void list_peers(const struct cluster *c, const struct epoch *e, int device,
                       struct wire_assign *w)
{
    for (int pass = 0; pass < 2; pass++)
        for (int i = 1; i < c->n_members && w->n_peers < WIRE_PEERS_MAX; i++) {
            const struct member *m = &c->member[i];
            int d = epoch_device(e, i);
            bool neighbour = d > 0 && plan_linked(&e->plan, device, d);
            struct wire_peer *p = &w->peer[w->n_peers];

            if (!m->link || d == device || neighbour != (pass == 0) || !m->able.port)
                continue;
            memset(p, 0, sizeof *p);
            p->device = neighbour ? d : e->plan.n_devices;
            memcpy(p->key, m->key.bytes, sizeof p->key);
            memcpy(p->name, m->able.name, sizeof p->name);
            memcpy(p->addresses, m->address, sizeof m->address);
            w->n_peers++;
        }
}

static void send_assign(struct cluster *c, const struct epoch *e, int device)
{
    struct wire_assign *w = mem_zalloc(1, sizeof *w);
    struct wire_big_buf *buf = mem_alloc(sizeof *buf);
    struct member *m = &c->member[e->member[device]];
    struct frame_out f;

    w->epoch = e->number;
    w->device = device;
    w->n_devices = e->plan.n_devices;
    memcpy(w->model, c->manifest->id, sizeof w->model);
    w->n_slots = c->segment.n_slots;
    w->n_ctx = c->segment.n_ctx;
    w->n_rows_max = c->segment.n_rows_max;
    w->kv = (int)c->segment.kv;
    w->n_stages = e->plan.n_stages;
    for (int i = 0; i < w->n_stages; i++)
        w->stage[i] = (struct wire_stage){e->plan.stage[i].device, e->plan.stage[i].first,
                                          e->plan.stage[i].end};
    list_peers(c, e, device, w);
    memset(&m->phase, 0, sizeof m->phase);
    m->phase.epoch = e->number;
    m->phase.phase = WIRE_PHASE_FETCHING;
    wire_assign_encode(w, buf, &f);
    link_send(m->link, &f);
    free(buf);
    free(w);
}

static void assign(struct cluster *c, const struct core_action *a)
{
    struct epoch *e = &c->coming;

    memset(e, 0, sizeof *e);
    e->number = a->epoch;
    e->plan = *a->plan;
    e->plan.epoch = a->epoch;
    memcpy(e->member, a->members, (size_t)a->plan->n_devices * sizeof e->member[0]);
    for (int d = 0; d < e->plan.n_devices; d++) {
        if (e->member[d] == 0) /* the head has the file */
            cluster_feed_member(c, CORE_FETCHED, 0, e->number, ERR_NONE, NULL);
        else if (c->member[e->member[d]].link)
            send_assign(c, e, d);
        /* One that left since will be heard of by CORE_DOWN. */
    }
}

static void send_load(struct member *m, uint32_t epoch, uint64_t last_step)
{
    struct wire_load w = {epoch, last_step};
    struct wire_buf buf;
    struct frame_out f;

    wire_load_encode(&w, &buf, &f);
    link_send(m->link, &f);
}

static void send_dial(struct cluster *c, const struct epoch *e, int device, int to,
                      enum wire_dial_how how)
{
    struct wire_dial w = {e->number, to, how};
    struct member *m = &c->member[e->member[device]];
    struct wire_buf buf;
    struct frame_out f;

    if (!m->link)
        return;
    wire_dial_encode(&w, &buf, &f);
    link_send(m->link, &f);
}

/* a < b. First a dials b, then b dials a, then the head passes on. */
static void link_pair(struct cluster *c, struct epoch *e, int a, int b, enum pair_state how)
{
    static const enum wire_dial_how a_does[] = {
        [PAIR_FIRST] = WIRE_DIAL_OUT,
        [PAIR_SECOND] = WIRE_DIAL_AWAIT,
        [PAIR_RELAY] = WIRE_DIAL_RELAY,
    };
    static const enum wire_dial_how b_does[] = {
        [PAIR_FIRST] = WIRE_DIAL_AWAIT,
        [PAIR_SECOND] = WIRE_DIAL_OUT,
        [PAIR_RELAY] = WIRE_DIAL_RELAY,
    };

    e->pair[a][b] = (uint8_t)how;
    send_dial(c, e, a, b, a_does[how]);
    send_dial(c, e, b, a, b_does[how]);
    if (how == PAIR_RELAY)
        log_say(&c->opts.log, "link", "%s and %s cannot reach each other: their steps go by here",
                c->member[e->member[a]].able.name, c->member[e->member[b]].able.name);
}

static uint8_t *times_lost(struct cluster *c, int member, int other)
{
    return member < other ? &c->n_lost[member][other] : &c->n_lost[other][member];
}

/* Who can be dialled at all: one that listens nowhere only dials. */
static enum pair_state first_way(struct cluster *c, const struct epoch *e, int a, int b)
{
    /* A link that breaks again and again would begin epochs for ever. */
    if (*times_lost(c, e->member[a], e->member[b]) >= PAIR_LOST_MAX)
        return PAIR_RELAY;
    if (c->member[e->member[b]].able.port)
        return PAIR_FIRST;
    return c->member[e->member[a]].able.port ? PAIR_SECOND : PAIR_RELAY;
}

static void load_own(struct cluster *c, const struct epoch *e)
{
    struct worker_load load = {
        .path = c->model_path, .plan = e->plan, .device = 0, .segment = c->segment};

    memset(&c->member[0].phase, 0, sizeof c->member[0].phase);
    c->member[0].phase.epoch = e->number;
    c->member[0].phase.phase = WIRE_PHASE_LOADING;
    worker_load(c->worker, &load);
}

static void load(struct cluster *c, const struct core_action *a)
{
    struct epoch *e = &c->running;

    CHECK(c->coming.number == a->epoch);
    *e = c->coming;
    cluster_meter_epoch(c);
    c->sums.epochs++;
    memset(c->sums.hop, 0, sizeof c->sums.hop);
    for (int i = 1; i < c->n_members; i++) /* those without a part let go of the old one */
        if (c->member[i].link)
            send_load(&c->member[i], e->number, a->number);
    for (int x = 1; x < e->plan.n_devices; x++)
        for (int y = x + 1; y < e->plan.n_devices; y++)
            if (plan_linked(&e->plan, x, y))
                link_pair(c, e, x, y, first_way(c, e, x, y));
    CHECK(e->member[0] == 0);
    load_own(c, e);
    cluster_changed(c);
}

/* ---- what members say of an epoch ---- */

void cluster_take_phase(struct member *m, const struct wire_phase *p)
{
    struct cluster *c = m->cluster;

    if (p->epoch != c->running.number && p->epoch != c->coming.number)
        return;
    if (p->phase != m->phase.phase || p->done != m->phase.done || p->received != m->phase.received)
        cluster_feed_member(c, CORE_PROGRESS, m->id, p->epoch, ERR_NONE, NULL);
    m->phase = *p;
    m->trouble[0] = '\0';
    switch (p->phase) {
    case WIRE_PHASE_FETCHED:
        cluster_feed_member(c, CORE_FETCHED, m->id, p->epoch, ERR_NONE, NULL);
        break;
    case WIRE_PHASE_READY:
        m->running = *p;
        cluster_feed_member(c, CORE_READY, m->id, p->epoch, ERR_NONE, NULL);
        break;
    case WIRE_PHASE_FAILED:
        if (p->epoch == c->running.number)
            m->running = *p;
        memcpy(m->trouble, p->text.text, sizeof m->trouble);
        cluster_feed_member(c, CORE_FAILED, m->id, p->epoch, p->code, p->text.text);
        break;
    case WIRE_PHASE_FETCHING:
    case WIRE_PHASE_LOADING:
        cluster_changed(c);
        break;
    }
}

static void link_lost(struct cluster *c, struct member *m, const struct member *other)
{
    struct err_text text;

    if (*times_lost(c, m->id, other->id) < PAIR_LOST_MAX)
        ++*times_lost(c, m->id, other->id);
    (void)err_set(&text, ERR_GONE, "%s lost its link to %s", m->able.name, other->able.name);
    /* Steps may have been lost with it. The core takes it as a loss and a return, which begins a
     * new epoch of the same plan; its links are then made anew, or relayed. */
    cluster_feed_member(c, CORE_DOWN, m->id, 0, ERR_GONE, text.text);
    if (m->link && !m->drained)
        cluster_feed_member(c, CORE_UP, m->id, 0, ERR_NONE, NULL);
}

/* What one end measured holds for the other as well, the other way round. */
static void keep_speed(struct cluster *c, int from, int to, const struct wire_link_report *r)
{
    if (!r->rtt_us) /* the end that did not measure */
        return;
    c->speed[from][to] = (struct pair_speed){r->rtt_us, r->out_bytes_per_s, r->in_bytes_per_s};
    c->speed[to][from] = (struct pair_speed){r->rtt_us, r->in_bytes_per_s, r->out_bytes_per_s};
}

void cluster_take_link(struct member *m, const struct wire_link_report *r)
{
    struct cluster *c = m->cluster;
    struct epoch *e = &c->running;
    int own = epoch_device(e, m->id), a, b;

    if (r->epoch != e->number || own < 1 || r->device < 1 || r->device >= e->plan.n_devices ||
        r->device == own || !plan_linked(&e->plan, own, r->device))
        return;
    a = own < r->device ? own : r->device;
    b = own < r->device ? r->device : own;
    switch (r->state) {
    case WIRE_LINK_DIRECT:
        if (e->pair[a][b] != PAIR_RELAY)
            e->pair[a][b] = PAIR_DIRECT;
        keep_speed(c, m->id, e->member[r->device], r);
        break;
    case WIRE_LINK_FAILED:
        if (e->pair[a][b] == PAIR_FIRST && own == a && c->member[e->member[a]].able.port)
            link_pair(c, e, a, b, PAIR_SECOND);
        else if (e->pair[a][b] == PAIR_FIRST || e->pair[a][b] == PAIR_SECOND)
            link_pair(c, e, a, b, PAIR_RELAY);
        break;
    case WIRE_LINK_LOST:
        if (e->pair[a][b] != PAIR_NONE) {
            e->pair[a][b] = PAIR_NONE;
            link_lost(c, m, &c->member[e->member[r->device]]);
        }
        break;
    }
    cluster_changed(c);
}

/* ---- the own worker ---- */

static void own_progress(void *user, uint32_t epoch, uint64_t done, uint64_t total)
{
    struct cluster *c = user;

    if (epoch != c->running.number)
        return;
    c->member[0].phase.done = done;
    c->member[0].phase.total = total;
    cluster_changed(c);
}

static void own_loaded(void *user, uint32_t epoch, enum err e, const char *why)
{
    struct cluster *c = user;
    struct wire_phase *p = &c->member[0].phase;

    if (epoch != c->running.number)
        return;
    cluster_report_self(c);
    p->phase = e ? WIRE_PHASE_FAILED : WIRE_PHASE_READY;
    (void)snprintf(c->member[0].trouble, ERR_TEXT_MAX, "%s", e ? why : "");
    p->weight_bytes = c->member[0].report.weight_bytes;
    p->kv_bytes = c->member[0].report.kv_bytes;
    c->member[0].running = *p;
    cluster_feed_member(c, e ? CORE_FAILED : CORE_READY, 0, epoch, e, why);
}

static void own_bad_step(void *user, uint32_t epoch, enum err e, const char *why)
{
    struct cluster *c = user;
    const struct plan *p = &c->running.plan;
    struct member *m;

    (void)e;
    if (epoch != c->running.number)
        return;
    CHECK(p->n_stages > 1); /* what the core itself sends makes sense */
    /* The only steps that come from elsewhere are those of the stage before the head's last. */
    m = &c->member[c->running.member[p->stage[p->n_stages - 2].device]];
    log_say(&c->opts.log, "cluster", "%s sent a step that makes no sense: %s", m->able.name, why);
    if (m->link)
        link_close(m->link);
    m->link = NULL;
    cluster_member_down(m, "sent a step that makes no sense");
}

const struct worker_calls cluster_worker_calls = {
    .out = cluster_worker_out,
    .progress = own_progress,
    .loaded = own_loaded,
    .bad_step = own_bad_step,
};

/* ---- actions ---- */

static void stuck(struct cluster *c, const struct core_action *a)
{
    struct member *m = &c->member[a->member];
    struct err_text text;

    if (m->id == 0) /* without this device nothing goes at all: it takes the time it takes */
        return;
    (void)err_set(&text, ERR_GONE, "%s has not got on with its part of the model for %d minutes",
                  m->able.name, CORE_STUCK_US / 60000000);
    memcpy(m->trouble, text.text, sizeof m->trouble);
    m->phase.phase = WIRE_PHASE_FAILED;
    cluster_feed_member(c, CORE_FAILED, m->id, a->epoch, ERR_GONE, text.text);
}

static void act(void *user, const struct core_action *a)
{
    struct cluster *c = user;

    switch (a->kind) {
    case CORE_SOLVE:
        cluster_solve(c, a);
        return;
    case CORE_ASSIGN:
        assign(c, a);
        return;
    case CORE_LOAD:
        load(c, a);
        return;
    case CORE_SEND:
        cluster_send_step(c, a->step);
        return;
    case CORE_REPLY:
        cluster_client_reply(c, a);
        return;
    case CORE_STALE:
        cluster_client_stale(c, a->client);
        return;
    case CORE_OPENED:
        cluster_client_opened(c, a);
        return;
    case CORE_STUCK:
        stuck(c, a);
        return;
    case CORE_STARTED:
        cluster_gen_started(c, a);
        return;
    case CORE_ROW:
        cluster_gen_row(c, a);
        return;
    case CORE_ENDED:
        cluster_gen_ended(c, a);
        return;
    case CORE_SAY:
        log_say(&c->opts.log, "cluster", "%s", a->text);
        return;
    }
}
