#include "sim.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "head/siphash.h"
#include "sim_impl.h"

static const uint8_t key[16] = "a key for tests";

/* ---- chance, words, the end ---- */

uint64_t sim_random(struct sim *s, uint64_t below)
{
    s->random = s->random * 6364136223846793005u + 1442695040888963407u;
    return (s->random >> 33) % below;
}

void sim_broken(const struct sim *s, const char *fmt, ...)
{
    va_list ap;

    fprintf(stderr, "\nat %.3f ms: ", (double)s->now_us / 1e3);
    va_start(ap, fmt);
    vfprintf(stderr, fmt, ap);
    va_end(ap);
    fprintf(stderr, "\nseed %llu; again, with its trace: SIM_SEED=%llu build/test_sim\n",
            (unsigned long long)s->opts.seed, (unsigned long long)s->opts.seed);
    if (s->opts.trace)
        fprintf(stderr, "%s", s->trace);
    exit(1);
}

void sim_note(struct sim *s, const char *fmt, ...)
{
    char line[1024];
    size_t n, head;
    va_list ap;

    if (!s->opts.trace)
        return;
    head = (size_t)snprintf(line, sizeof line, "%9.3f ", (double)s->now_us / 1e3);
    va_start(ap, fmt);
    vsnprintf(line + head, sizeof line - head - 2, fmt, ap);
    va_end(ap);
    n = strlen(line);
    line[n++] = '\n';
    if (s->n_trace + n + 1 > s->cap_trace) {
        s->cap_trace = 2 * s->cap_trace + n + 1;
        s->trace = mem_realloc(s->trace, s->cap_trace, 1);
    }
    memcpy(s->trace + s->n_trace, line, n);
    s->n_trace += n;
    s->trace[s->n_trace] = '\0';
}

const char *sim_trace(const struct sim *s)
{
    return s->trace ? s->trace : "";
}

/* ---- the queue of messages ---- */

static bool before(const struct message *a, const struct message *b)
{
    return a->at_us < b->at_us || (a->at_us == b->at_us && a->order < b->order);
}

struct message *post(struct sim *s, int64_t delay_us, const struct message *m)
{
    struct message *copy = mem_alloc(sizeof *copy);
    int i = s->n_heap++;

    *copy = *m;
    copy->at_us = s->now_us + delay_us;
    copy->order = s->order++;
    if (s->n_heap > s->cap_heap) {
        s->cap_heap = 2 * s->cap_heap + 64;
        s->heap = mem_realloc(s->heap, (size_t)s->cap_heap, sizeof(struct message *));
    }
    for (; i > 0 && before(copy, s->heap[(i - 1) / 2]); i = (i - 1) / 2)
        s->heap[i] = s->heap[(i - 1) / 2];
    s->heap[i] = copy;
    return copy;
}

static struct message *take(struct sim *s)
{
    struct message *first = s->heap[0], *last = s->heap[--s->n_heap];
    int i = 0, child;

    for (; (child = 2 * i + 1) < s->n_heap; i = child) {
        if (child + 1 < s->n_heap && before(s->heap[child + 1], s->heap[child]))
            child++;
        if (!before(s->heap[child], last))
            break;
        s->heap[i] = s->heap[child];
    }
    s->heap[i] = last;
    return first;
}

static void discard(struct message *m)
{
    free(m->step);
    free(m);
}

/* ---- words for plans and steps ---- */

static const char *plan_words(const struct plan *p, const int *members, char buf[256])
{
    size_t n = 0;

    buf[0] = '\0';
    for (int i = 0; i < p->n_stages && n < 230; i++)
        n += (size_t)snprintf(buf + n, 256 - n, " %d[%d,%d)", members[p->stage[i].device],
                              p->stage[i].first, p->stage[i].end);
    return buf;
}

static const char *step_words(const struct step *st, char buf[256])
{
    size_t n = 0;

    buf[0] = '\0';
    for (int i = 0; i < st->n_ops && n < 200; i++)
        n += (size_t)(st->ops[i].kind == SLOT_OP_COPY
                          ? snprintf(buf + n, 256 - n, " copy %d>%d:%d", st->ops[i].slot,
                                     st->ops[i].to, st->ops[i].len)
                          : snprintf(buf + n, 256 - n, " cut %d:%d", st->ops[i].slot,
                                     st->ops[i].len));
    for (int r = 0, end; r < st->n_rows && n < 200; r = end) {
        for (end = r + 1; end < st->n_rows && st->slot[end] == st->slot[r];)
            end++;
        n += (size_t)snprintf(buf + n, 256 - n, " %d@%d+%d", st->slot[r], st->pos[r], end - r);
    }
    if (st->n_want)
        snprintf(buf + n, 256 - n, " want %d", st->n_want);
    return buf;
}

/* ---- the planner ---- */

/* Members in order, each as many modules as its share of what all can hold; the head first. */
static void plan_for(struct sim *s, const struct core_action *a)
{
    struct message m = {.kind = MESSAGE_CORE, .event = {.kind = CORE_PLANNED, .ticket = a->ticket}};
    int n_body = s->opts.n_modules - s->opts.output_home, left = n_body, room = 0, at = 0;

    for (int i = 0; i < a->n; i++)
        room += s->devices[a->members[i]].capacity;
    if (a->members[0] != 0 || room < n_body) {
        m.event.code = ERR_MEMORY;
        snprintf(m.text, sizeof m.text,
                 a->members[0] ? "the head cannot take part"
                               : "the devices hold %d modules of %d: %d are missing",
                 room, n_body, n_body - room);
        post(s, s->opts.plan_us, &m);
        return;
    }
    for (int i = 0; i < a->n && left > 0; i++) {
        int cap = s->devices[a->members[i]].capacity;
        int n = (left * cap + room - 1) / room;

        room -= cap;
        left -= n;
        if (n == 0)
            continue;
        m.members[m.plan.n_devices] = a->members[i];
        m.plan.stage[m.plan.n_stages++] = (struct plan_stage){m.plan.n_devices++, at, at + n};
        at += n;
    }
    if (s->opts.output_home && m.plan.n_stages == 1)
        m.plan.stage[0].end++;
    else if (s->opts.output_home)
        m.plan.stage[m.plan.n_stages++] = (struct plan_stage){0, at, at + 1};
    m.event.plan = &m.plan; /* set again when it arrives */
    post(s, s->opts.plan_us, &m);
}

/* ---- what the core wants done ---- */

static void on_assign(struct sim *s, const struct core_action *a)
{
    struct message m = {.kind = MESSAGE_ASSIGN, .epoch = a->epoch, .plan = *a->plan};
    char words[256];

    sim_note(s, "< assign %u:%s", a->epoch, plan_words(a->plan, a->members, words));
    if (a->epoch <= s->epoch || a->plan->epoch != a->epoch)
        sim_broken(s, "epoch %u is assigned after %u", a->epoch, s->epoch);
    memcpy(m.members, a->members, (size_t)a->n * sizeof *a->members);
    s->assigned = *a->plan;
    memcpy(s->assigned_members, m.members, sizeof m.members);
    for (int i = 0; i < a->n; i++) {
        m.device = a->members[i];
        post(s, hop_to_head(s, m.device), &m);
    }
}

static void on_load(struct sim *s, const struct core_action *a)
{
    sim_note(s, "< load %u after step %llu", a->epoch, (unsigned long long)a->number);
    if (s->running && s->sent != s->home)
        sim_broken(s, "epoch %u is loaded while steps are under way", a->epoch);
    if (a->number != s->sent || a->epoch != s->assigned.epoch)
        sim_broken(s, "load %u after step %llu; sent were %llu", a->epoch,
                   (unsigned long long)a->number, (unsigned long long)s->sent);
    s->epoch = a->epoch;
    s->plan = s->assigned;
    memcpy(s->members, s->assigned_members, sizeof s->members);
    s->running = false;
    for (int i = 0; i < s->plan.n_devices; i++)
        post(s, hop_to_head(s, s->members[i]),
             &(struct message){.kind = MESSAGE_LOAD, .device = s->members[i], .epoch = a->epoch});
}

/* The core begins an epoch when its first step leaves, or when it says that it runs. */
static void begin(struct sim *s, uint32_t epoch)
{
    if (epoch == s->begun || epoch != s->epoch)
        return;
    s->begun = epoch;
    s->running = true;
    s->sent = s->home = s->failed_until = 0;
}

/* What a device may rely on. */
static void check_step(const struct sim *s, const struct step *st)
{
    int n_want = 0, kind = 0;
    bool seen[SIM_SLOTS] = {false};

    for (int r = 0; r < st->n_rows; r++) {
        bool follows = r > 0 && st->slot[r] == st->slot[r - 1];

        n_want += st->want[r] != 0;
        if (st->want[r] && kind && st->want[r] != kind)
            sim_broken(s, "step %llu wants logits and hidden states",
                       (unsigned long long)st->number);
        kind = st->want[r] ? st->want[r] : kind;
        if (follows ? st->pos[r] != st->pos[r - 1] + 1 : seen[st->slot[r]])
            sim_broken(s, "step %llu: rows of slot %d are not one run",
                       (unsigned long long)st->number, st->slot[r]);
        seen[st->slot[r]] = true;
    }
    if (n_want != st->n_want || st->n_rows > SIM_ROWS || st->n_rows + st->n_ops == 0)
        sim_broken(s, "step %llu: %d rows, %d wanted", (unsigned long long)st->number, st->n_rows,
                   st->n_want);
}

int home_row(const struct sim *s, int n)
{
    const struct sim_step *st = s->homing;

    if (!st || st->code)
        sim_broken(s, "a result is told with no good step coming home");
    for (int r = 0; r < st->n_rows; r++)
        if (st->want[r] && n-- == 0)
            return r;
    sim_broken(s, "a result is told that the step coming home does not have");
}

static void on_send(struct sim *s, const struct core_action *a)
{
    const struct step *st = a->step;
    struct message m = {.kind = MESSAGE_STEP, .device = s->members[s->plan.stage[0].device]};
    struct sim_step *copy = mem_zalloc(1, sizeof *copy);
    char words[256];

    sim_note(s, "< send %u.%llu:%s", st->epoch, (unsigned long long)st->number,
             step_words(st, words));
    begin(s, st->epoch);
    if (st->epoch != s->epoch || !s->running || st->number != s->sent + 1)
        sim_broken(s, "step %llu of epoch %u is sent after %llu of %u",
                   (unsigned long long)st->number, st->epoch, (unsigned long long)s->sent,
                   s->epoch);
    s->sent = st->number;
    s->n_steps++;
    if (sim_flying(s) > CORE_FLIGHT_PER_STAGE * s->plan.n_stages)
        sim_broken(s, "%d steps are under way over %d stages", sim_flying(s), s->plan.n_stages);
    s->flying_most = sim_flying(s) > s->flying_most ? sim_flying(s) : s->flying_most;
    check_step(s, st);
    copy->number = st->number;
    copy->epoch = st->epoch;
    copy->n_ops = st->n_ops;
    copy->n_rows = st->n_rows;
    copy->n_tags = st->n_tags;
    memcpy(copy->ops, st->ops, (size_t)st->n_ops * sizeof *st->ops);
    for (int r = 0; r < st->n_rows; r++) {
        copy->slot[r] = st->slot[r];
        copy->pos[r] = st->pos[r];
        copy->token[r] = st->token[r];
        copy->want[r] = st->want[r];
    }
    memcpy(copy->tag, st->tag, (size_t)st->n_tags * sizeof *st->tag);
    m.step = copy;
    post(s, hop_to_head(s, m.device), &m);
}

static void on_reply(struct sim *s, const struct core_action *a)
{
    struct message m = {
        .kind = MESSAGE_ANSWER, .client = a->client, .number = a->number, .code = a->code};
    const struct sim_step *st = s->homing;

    sim_note(s, "< reply c%d#%llu%s%s", a->client, (unsigned long long)a->number,
             a->code ? ": " : "", a->text);
    snprintf(m.text, sizeof m.text, "%s", a->text);
    if (!a->code && (!st || st->code))
        sim_broken(s, "client %d is answered with no step coming home", a->client);
    if (!a->code && a->n_rows > 0)
        m.hash = st->hash[home_row(s, a->row + a->n_rows - 1)];
    s->n_told += a->n_rows;
    post(s, s->opts.client_us, &m);
}

static void act(void *user, const struct core_action *a)
{
    struct sim *s = user;
    char members[64] = "";
    size_t n = 0;

    switch (a->kind) {
    case CORE_SOLVE:
        for (int i = 0; i < a->n; i++)
            n += (size_t)snprintf(members + n, sizeof members - n, " %d", a->members[i]);
        sim_note(s, "< solve %u:%s", a->ticket, members);
        plan_for(s, a);
        return;
    case CORE_ASSIGN:
        on_assign(s, a);
        return;
    case CORE_LOAD:
        on_load(s, a);
        return;
    case CORE_SEND:
        on_send(s, a);
        return;
    case CORE_REPLY:
        on_reply(s, a);
        return;
    case CORE_STALE:
        sim_note(s, "< stale c%d", a->client);
        post(s, s->opts.client_us, &(struct message){.kind = MESSAGE_STALE, .client = a->client});
        return;
    case CORE_OPENED:
        sim_note(s, "< opened c%d%s%s", a->client, a->code ? ": " : "", a->text);
        post(s, s->opts.client_us,
             &(struct message){.kind = MESSAGE_OPENED, .client = a->client, .code = a->code});
        return;
    case CORE_STUCK: {
        struct message m = {
            .kind = MESSAGE_CORE,
            .event = {
                .kind = CORE_FAILED, .member = a->member, .epoch = a->epoch, .code = ERR_GONE}};

        sim_note(s, "< stuck %d: epoch %u", a->member, a->epoch);
        snprintf(m.text, sizeof m.text, "device %d does not get on", a->member);
        post(s, 0, &m);
        return;
    }
    case CORE_STARTED:
        sim_note(s, "< started s%d in %d: %d cached", a->client, a->slot, a->n);
        stream_started(s, a);
        return;
    case CORE_ROW:
        sim_note(s, "< row s%d@%d%s", a->client, a->n, a->last ? ", last" : "");
        s->n_told++;
        stream_row(s, a);
        return;
    case CORE_ENDED:
        sim_note(s, "< ended s%d: %s", a->client, a->text);
        stream_ended(s, a);
        return;
    case CORE_SAY:
        sim_note(s, "< say: %s", a->text);
        return;
    }
}

/* ---- what the core is told ---- */

static void note_event(struct sim *s, const struct core_event *ev)
{
    static const char *const names[] = {
        [CORE_UP] = "up",          [CORE_DOWN] = "down",         [CORE_DRAIN] = "drain",
        [CORE_CHANGED] = "change", [CORE_FETCHED] = "fetched",   [CORE_READY] = "ready",
        [CORE_FAILED] = "failed",  [CORE_PROGRESS] = "progress",
    };
    char words[256];

    switch (ev->kind) {
    case CORE_PLANNED:
        sim_note(s, "> planned %u:%s", ev->ticket,
                 ev->plan ? plan_words(ev->plan, ev->members, words) : ev->text);
        return;
    case CORE_OPEN:
    case CORE_CLOSE:
        sim_note(s, "> %s c%d", ev->kind == CORE_OPEN ? "open" : "close", ev->client);
        return;
    case CORE_REQUEST:
        sim_note(s, "> request s%d: %d tokens", ev->request->stream, ev->request->n_tokens);
        return;
    case CORE_TOKEN:
    case CORE_END:
        sim_note(s, "> %s s%d", ev->kind == CORE_TOKEN ? "token" : "end", ev->client);
        return;
    case CORE_ASK:
        sim_note(s, "> ask c%d#%llu", ev->client, (unsigned long long)ev->ask->number);
        return;
    case CORE_HOME:
        sim_note(s, "> home %u.%llu%s%s", ev->epoch, (unsigned long long)ev->number,
                 ev->code ? ": " : "", ev->code && ev->text ? ev->text : "");
        return;
    case CORE_TIME:
        return;
    case CORE_FETCHED:
    case CORE_READY:
    case CORE_FAILED:
        sim_note(s, "> %s %d: epoch %u", names[ev->kind], ev->member, ev->epoch);
        return;
    default:
        sim_note(s, "> %s %d", names[ev->kind], ev->member);
    }
}

void core_event(struct sim *s, const struct core_event *ev, struct sim_step *step)
{
    note_event(s, ev);
    if (ev->kind == CORE_DOWN && s->running)
        for (int i = 0; i < s->plan.n_devices; i++)
            if (s->members[i] == ev->member)
                s->running = false;
    if (ev->kind == CORE_FAILED && s->running && ev->epoch == s->epoch)
        s->running = false;
    s->n_told = 0;
    s->homing = NULL;
    if (ev->kind == CORE_HOME && step && s->running && step->epoch == s->epoch) {
        if (step->number != s->home + 1)
            sim_broken(s, "step %llu comes home after %llu", (unsigned long long)step->number,
                       (unsigned long long)s->home);
        s->home++;
        s->homing = step;
        if (step->code) {
            s->n_failed++;
            if (step->slipped && step->number > s->failed_until)
                sim_broken(s, "step %llu fails by itself: %s", (unsigned long long)step->number,
                           step->why.text);
            s->failed_until = s->sent;
        }
    }
    core_step(s->core, ev, s->now_us, act, s);
    s->homing = NULL;
    if (core_view(s->core).state == CORE_RUNNING)
        begin(s, core_view(s->core).epoch);
    if (core_view(s->core).n_flight != sim_flying(s) && s->running)
        sim_broken(s, "the core believes in %d steps under way, and %d are",
                   core_view(s->core).n_flight, sim_flying(s));
}

static void deliver(struct sim *s, struct message *m)
{
    struct core_event ev = m->event;

    switch (m->kind) {
    case MESSAGE_CORE:
        ev.text = m->text;
        ev.plan = ev.plan ? &m->plan : NULL;
        ev.members = m->members;
        m->ask.ops = m->ops;
        m->ask.slot = m->rows[0];
        m->ask.pos = m->rows[1];
        m->ask.token = m->rows[2];
        m->ask.want = m->want;
        ev.ask = &m->ask;
        ev.request = &m->request;
        m->request.tokens = ev.tokens = m->tokens;
        ev.pace = &s->opts.pace;
        /* The driver keeps no word of a device whose link is gone. */
        if ((ev.kind == CORE_FETCHED || ev.kind == CORE_READY) && !s->devices[ev.member].announced)
            return;
        core_event(s, &ev, m->step);
        return;
    case MESSAGE_STEP:
        device_step(s, m);
        return;
    case MESSAGE_LEAVE:
        device_leave(s, m);
        return;
    case MESSAGE_ASSIGN:
        device_assign(s, m);
        return;
    case MESSAGE_FETCHED:
        device_fetched(s, m);
        return;
    case MESSAGE_LOAD:
        device_load(s, m);
        return;
    case MESSAGE_LOADED:
        device_loaded(s, m);
        return;
    case MESSAGE_ANSWER:
        client_answer(s, m);
        return;
    case MESSAGE_STALE:
        client_stale(s, m);
        return;
    case MESSAGE_OPENED:
        client_opened(s, m);
        return;
    case MESSAGE_TOKEN:
        stream_token_due(s, m);
        return;
    }
}

void sim_run(struct sim *s, int64_t until_us)
{
    for (;;) {
        int64_t timer = core_next_us(s->core);
        int64_t at = s->n_heap ? s->heap[0]->at_us : INT64_MAX;

        if (timer <= until_us && timer < at) {
            if (timer <= s->timer_us) /* it was served, and asks again for the same time */
                sim_broken(s, "the core's timer stands still");
            s->now_us = timer > s->now_us ? timer : s->now_us;
            s->timer_us = timer;
            core_event(s, &(struct core_event){.kind = CORE_TIME}, NULL);
        } else if (at <= until_us) {
            struct message *m = take(s);

            s->now_us = m->at_us;
            deliver(s, m);
            discard(m);
        } else {
            break;
        }
    }
    s->now_us = until_us > s->now_us ? until_us : s->now_us;
}

/* ---- what happens to devices ---- */

void sim_event(struct sim *s, const struct core_event *ev)
{
    core_event(s, ev, NULL);
}

static void announce(struct sim *s, int device, bool up)
{
    struct core_event ev = {.kind = up ? CORE_UP : CORE_DOWN, .member = device};
    char text[64];

    if (s->devices[device].announced == up)
        return;
    s->devices[device].announced = up;
    snprintf(text, sizeof text, "device %d stopped answering", device);
    ev.text = text;
    core_event(s, &ev, NULL);
}

void sim_up(struct sim *s, int device)
{
    struct sim_device *d = &s->devices[device];

    if (d->there)
        return;
    announce(s, device, false); /* it is back before anybody has noticed */
    d->there = true;
    announce(s, device, true);
}

void sim_down(struct sim *s, int device, int64_t detect_us)
{
    struct sim_device *d = &s->devices[device];

    if (!d->there)
        return;
    d->there = false;
    d->life++;
    d->loaded = d->assigned = 0;
    sim_note(s, "  device %d is gone", device);
    if (detect_us > 0)
        sim_run(s, s->now_us + detect_us);
    announce(s, device, false);
}

void sim_drain(struct sim *s, int device)
{
    core_event(s, &(struct core_event){.kind = CORE_DRAIN, .member = device}, NULL);
}

/* ---- the whole ---- */

struct sim *sim_new(const struct sim_opts *o)
{
    struct sim *s = mem_zalloc(1, sizeof *s);
    struct core_opts opts = {.n_slots = SIM_SLOTS, .n_ctx = SIM_CTX, .n_rows_max = SIM_ROWS};

    memcpy(opts.tag_key, key, sizeof key);
    opts.n_slots = o->n_slots ? o->n_slots : SIM_SLOTS;
    opts.n_queue_max = o->n_queue;
    s->opts = *o;
    s->random = o->seed * 2654435761u + 1;
    s->timer_us = INT64_MIN;
    s->tag_empty = siphash(key, key, 0);
    s->core = core_new(&opts);
    for (int i = 0; i < SIM_DEVICES; i++)
        s->devices[i].capacity = o->n_modules;
    return s;
}

void sim_free(struct sim *s)
{
    while (s->n_heap > 0)
        discard(s->heap[--s->n_heap]);
    core_free(s->core);
    free(s->heap);
    free(s->trace);
    free(s);
}

int64_t sim_now(const struct sim *s)
{
    return s->now_us;
}

struct core *sim_core(struct sim *s)
{
    return s->core;
}

struct sim_device *sim_device(struct sim *s, int i)
{
    return &s->devices[i];
}

struct sim_client *sim_client(struct sim *s, int i)
{
    return &s->clients[i];
}

int sim_flying(const struct sim *s)
{
    return s->running ? (int)(s->sent - s->home) : 0;
}

int sim_flying_most(const struct sim *s)
{
    return s->flying_most;
}

uint64_t sim_n_failed(const struct sim *s)
{
    return s->n_failed;
}

uint64_t sim_n_steps(const struct sim *s)
{
    return s->n_steps;
}
