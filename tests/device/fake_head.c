#include "fake_head.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/mem.h"
#include "base/sys.h"

enum { PING_MS = 100, WAIT_MS = 15000 };

static struct err_text et;

static void must(enum err e)
{
    if (e)
        fail_msg("%s", et.text);
}

/* ---- members ---- */

static void log_line(void *user, const char *component, const char *text)
{
    (void)user;
    if (getenv("LINGUA_TEST_LOG"))
        fprintf(stderr, "head: %s: %s\n", component, text);
}

static struct fake_member *member_of(struct fake_head *h, const struct key_id *key)
{
    for (int i = 0; i < h->n_members; i++)
        if (key_id_equal(&h->member[i].key, key))
            return &h->member[i];
    return NULL;
}

static void send_roster(struct fake_head *h, struct link *l, const struct wire_roster *w)
{
    struct wire_roster now = roster_signed(h->roster);
    struct wire_big_buf buf;
    struct frame_out f;

    wire_roster_encode(w ? w : &now, &buf, &f);
    link_send(l, &f);
}

void fake_head_roster(struct fake_head *h, const struct wire_roster *w)
{
    for (int i = 0; i < h->n_members; i++)
        if (h->member[i].link)
            send_roster(h, h->member[i].link, w);
}

static void home(struct fake_head *h, const struct step *s)
{
    h->n_results++;
    h->code = s->code;
    h->n_rows = s->in.n_rows;
    if (s->in.n) {
        assert_true(s->in.n_rows == 1 && s->in.width[0] <= HEAD_VOCAB_MAX);
        memcpy(h->logits, s->in.data[0], (size_t)s->in.width[0] * sizeof(float));
    }
}

/* A step at a stage of ours is run; others are passed on as they are. */
static void take_step(struct fake_head *h, const struct frame *f)
{
    const uint8_t *bytes = f->header - FRAME_HEAD_BYTES;
    struct step s = {0};
    int device;

    must(step_decode(h->codec, f, &s, &et));
    device = h->plan.stage[s.stage].device;
    if (device) {
        h->n_relayed++;
        assert_non_null(h->member[device - 1].link);
        link_send_bytes(h->member[device - 1].link, bytes,
                        (size_t)(f->payload + f->payload_len - bytes));
        return;
    }
    must(executor_run(h->executor, &s, &et));
    assert_int_equal(s.stage, h->plan.n_stages);
    home(h, &s);
}

static void on_frame(void *user, struct link *l, const struct frame *f)
{
    struct fake_member *m = user;
    struct wire_link_report link;
    struct wire_pong pong;
    struct wire_trace trace;

    (void)l;
    switch (f->type) {
    case FRAME_PHASE:
        must(wire_phase_decode(f, &m->phase, &et));
        m->n_phase[m->phase.phase]++;
        return;
    case FRAME_LINK:
        must(wire_link_decode(f, &link, &et));
        m->n_state[link.state]++;
        if (link.state == WIRE_LINK_DIRECT)
            m->direct = link;
        return;
    case FRAME_STEP:
        take_step(m->head, f);
        return;
    case FRAME_PROBE:
        assert_non_null(m->probe);
        must(probe_frame(m->probe, f, &et));
        return;
    case FRAME_PONG:
        must(wire_pong_decode(f, &pong, &et));
        assert_true(pong.clock_us >= pong.sent_us); /* one machine, one clock */
        m->n_pongs++;
        return;
    case FRAME_REPORT:
        must(wire_report_decode(f, &m->report, &et));
        m->n_reports++;
        return;
    case FRAME_PROFILE:
        must(wire_profile_decode(f, &m->profile, &et));
        m->n_profiles++;
        return;
    case FRAME_TRACE:
        must(wire_trace_decode(f, &trace, &et));
        m->n_trace_records = trace.n;
        m->trace_epoch = trace.epoch;
        m->n_traces++;
        return;
    case FRAME_LEAVE:
        m->n_left++;
        return;
    default:
        fail_msg("a frame of type %d", f->type);
    }
}

static void on_closed(void *user, struct link *l, enum err e, const char *why)
{
    struct fake_member *m = user;

    (void)e;
    log_line(NULL, m->name, why);
    if (m->link == l)
        m->link = NULL;
}

static const struct link_calls member_calls = {.frame = on_frame, .closed = on_closed};

/* ---- those who knock ---- */

static void nothing(void *user, struct link *l, const struct frame *f)
{
    (void)user;
    (void)l;
    (void)f;
}

static void nothing_closed(void *user, struct link *l, enum err e, const char *why)
{
    (void)user;
    (void)l;
    (void)e;
    (void)why;
}

static const struct link_calls pair_calls = {.frame = nothing, .closed = nothing_closed};

static void pair(struct fake_head *h, struct link *l, const struct wire_greet *g)
{
    uint8_t exported[TOKEN_EXPORT_BYTES];
    struct fake_member *m;
    enum err e;

    link_exported(l, exported);
    e = g->has_proof ? token_book_take(&h->book, clock_us(), exported, g->proof, &et)
                     : err_set(&et, ERR_INPUT, "no proof");
    if (e) {
        link_refuse(l, e, et.text);
        return;
    }
    m = member_of(h, link_peer(l));
    if (!m) {
        assert_true(h->n_members < HEAD_MEMBERS_MAX);
        m = &h->member[h->n_members++];
    }
    m->head = h;
    m->key = *link_peer(l);
    must(roster_add(h->roster, &m->key, g->name, m->name, &et));
    link_welcome(l, WIRE_CONTROL, &pair_calls, h);
    send_roster(h, l, NULL);
    fake_head_roster(h, NULL);
}

static void welcome_member(struct fake_head *h, struct link *l, const struct wire_greet *g)
{
    struct fake_member *m = member_of(h, link_peer(l));

    if (!m || !roster_find(h->roster, link_peer(l))) {
        link_refuse(l, ERR_INPUT, "this device is not in the cluster");
        return;
    }
    m->greet = *g;
    m->link = l;
    m->n_greets++;
    link_welcome(l, WIRE_CONTROL, &member_calls, m);
    send_roster(h, l, NULL);
}

static void giver_frame(void *user, struct link *l, const struct frame *f)
{
    struct fake_giver *g = user;

    (void)l;
    if (f->type != FRAME_PING && f->type != FRAME_PONG)
        must(bulk_giver_frame(g->bulk, f, &et));
}

static void giver_drained(void *user, struct link *l)
{
    (void)l;
    bulk_giver_drained(((struct fake_giver *)user)->bulk);
}

static void giver_closed(void *user, struct link *l, enum err e, const char *why)
{
    struct fake_giver *g = user;

    (void)l;
    (void)e;
    (void)why;
    bulk_giver_free(g->bulk);
    g->used = false;
}

static const struct link_calls giver_calls = {
    .frame = giver_frame, .drained = giver_drained, .closed = giver_closed};

static void welcome_bulk(struct fake_head *h, struct link *l)
{
    struct fake_giver *g = h->giver;

    h->n_bulk_greets++;
    while (g->used)
        g++;
    assert_true(g < h->giver + HEAD_GIVERS_MAX);
    link_welcome(l, WIRE_BULK, &giver_calls, g);
    *g = (struct fake_giver){{NULL, h->manifest, h->fd}, NULL, h, true};
    g->bulk = bulk_giver_new(&g->store, l);
}

static void on_greeted(void *user, struct link *l, const struct wire_greet *g)
{
    struct fake_head *h = user;

    if (g->purpose == WIRE_FOR_PAIR)
        pair(h, l, g);
    else if (g->purpose == WIRE_FOR_MEMBER)
        welcome_member(h, l, g);
    else if (g->purpose == WIRE_FOR_BULK && roster_find(h->roster, link_peer(l)))
        welcome_bulk(h, l);
    else
        link_refuse(l, ERR_INPUT, "not for you");
}

static const struct link_calls door = {.greeted = on_greeted, .closed = nothing_closed};

/* ---- the head ---- */

static void on_ping(evutil_socket_t fd, short what, void *user)
{
    struct fake_head *h = user;
    struct wire_ping m = {(uint64_t)clock_us()};
    struct wire_buf buf;
    struct frame_out f;

    (void)fd;
    (void)what;
    wire_ping_encode(&m, &buf, &f);
    for (int i = 0; i < h->n_members && !h->silent; i++)
        if (h->member[i].link && link_is_open(h->member[i].link))
            link_send(h->member[i].link, &f);
}

static void on_timeout(evutil_socket_t fd, short what, void *user)
{
    struct fake_head *h = user;

    (void)fd;
    (void)what;
    h->timed_out = true;
}

void fake_head_start(struct fake_head *h)
{
    struct hub_opts opts = {.base = h->base,
                            .identity = h->identity,
                            .name = "head",
                            .log = {log_line, NULL},
                            .calls = &door,
                            .user = h};
    char address[64];

    must(hub_open(&opts, &h->hub, &et));
    snprintf(address, sizeof address, "127.0.0.1:%d", h->port);
    must(hub_listen(h->hub, address, h->port, &h->port, &et));
}

void fake_head_stop(struct fake_head *h)
{
    hub_close(h->hub);
    h->hub = NULL;
    for (int i = 0; i < h->n_members; i++)
        h->member[i].link = NULL;
    for (int i = 0; i < HEAD_GIVERS_MAX; i++)
        if (h->giver[i].used) {
            bulk_giver_free(h->giver[i].bulk);
            h->giver[i].used = false;
        }
}

void fake_head_open(struct fake_head *h, struct event_base *base, const char *folder,
                    const char *path)
{
    struct executor_opts opts;
    int n;

    memset(h, 0, sizeof *h);
    h->base = base;
    h->folder = folder;
    h->path = path;
    must(identity_open(folder, &h->identity, &et));
    must(roster_open_head(folder, h->identity, "head", &h->roster, &et));
    token_book_init(&h->book, identity_key(h->identity));
    must(manifest_make(path, NULL, NULL, &h->manifest, &et));
    h->fd = open(path, O_RDONLY | O_CLOEXEC);
    assert_true(h->fd >= 0);
    must(model_open(path, &h->model, &et));
    must(compute_open(1, &h->compute, &et));
    h->codec = step_codec_new();
    n = model_n_modules(h->model);
    h->segment = (struct segment_opts){2, 64, 8, KV_F16};
    h->plan = (struct plan){1, 3, 4, {{0, 0, 2}, {1, 2, 4}, {2, 4, n - 1}, {0, n - 1, n}}};
    must(plan_check(&h->plan, n, &et));
    opts = (struct executor_opts){.segment = h->segment};
    must(executor_open(h->model, h->compute, &h->plan, 0, &opts, &h->executor, &et));
    h->ping = event_new(base, -1, EV_PERSIST, on_ping, h);
    h->timeout = evtimer_new(base, on_timeout, h);
    event_add(h->ping, &(struct timeval){0, PING_MS * 1000});
    fake_head_start(h);
}

void fake_head_close(struct fake_head *h)
{
    fake_head_stop(h);
    event_free(h->ping);
    event_free(h->timeout);
    token_book_fini(&h->book);
    step_codec_free(h->codec);
    executor_close(h->executor);
    compute_close(h->compute);
    model_close(h->model);
    close(h->fd);
    manifest_free(h->manifest);
    roster_close(h->roster);
    identity_close(h->identity);
}

void fake_head_token(struct fake_head *h, struct token *out)
{
    token_book_make(&h->book, clock_us(), TOKEN_LIFE_US_DEFAULT, out);
}

void fake_head_wait(struct fake_head *h, const int *count, int n)
{
    h->timed_out = false;
    event_add(h->timeout, &(struct timeval){WAIT_MS / 1000, 0});
    while (*count < n && !h->timed_out)
        event_base_loop(h->base, EVLOOP_ONCE);
    event_del(h->timeout);
    if (h->timed_out)
        fail_msg("waited for %d, got %d; phase %d: %s", n, *count, h->member[0].phase.phase,
                 h->member[0].phase.text.text);
}

void fake_head_run_ms(struct fake_head *h, int ms)
{
    h->timed_out = false;
    event_add(h->timeout, &(struct timeval){ms / 1000, ms % 1000 * 1000});
    while (!h->timed_out)
        event_base_loop(h->base, EVLOOP_ONCE);
}

/* ---- orders ---- */

void fake_head_send(struct fake_head *h, int member, const struct frame_out *f)
{
    assert_non_null(h->member[member].link);
    link_send(h->member[member].link, f);
}

static void put_peer(struct wire_peer *p, int device, const struct fake_member *m,
                     const char *addresses)
{
    p->device = device;
    memcpy(p->key, m->key.bytes, sizeof p->key);
    memcpy(p->name, m->name, sizeof p->name);
    if (addresses)
        snprintf(p->addresses, sizeof p->addresses, "%s", addresses);
    else
        snprintf(p->addresses, sizeof p->addresses, "127.0.0.1:%d", m->greet.port);
}

void fake_head_assign(struct fake_head *h, uint32_t epoch, const char *addresses)
{
    struct wire_assign *m = mem_zalloc(1, sizeof *m);
    struct wire_big_buf buf;
    struct frame_out f;

    h->plan.epoch = epoch;
    m->epoch = epoch;
    m->n_devices = h->plan.n_devices;
    memcpy(m->model, h->manifest->id, sizeof m->model);
    m->n_slots = h->segment.n_slots;
    m->n_ctx = h->segment.n_ctx;
    m->n_rows_max = h->segment.n_rows_max;
    m->kv = h->segment.kv;
    m->n_stages = h->plan.n_stages;
    for (int i = 0; i < m->n_stages; i++)
        m->stage[i] = (struct wire_stage){h->plan.stage[i].device, h->plan.stage[i].first,
                                          h->plan.stage[i].end};
    for (m->device = 1; m->device < m->n_devices; m->device++) {
        m->n_peers = 0;
        for (int d = 1; d < h->plan.n_devices; d++)
            if (d != m->device)
                put_peer(&m->peer[m->n_peers++], d, &h->member[d - 1], addresses);
        wire_assign_encode(m, &buf, &f);
        fake_head_send(h, m->device - 1, &f);
    }
    free(m);
}

void fake_head_load(struct fake_head *h)
{
    struct wire_load m = {h->plan.epoch, 0};
    struct wire_buf buf;
    struct frame_out f;

    assert_true(executor_restart(h->executor, &h->plan, 0, &h->segment));
    wire_load_encode(&m, &buf, &f);
    for (int d = 1; d < h->plan.n_devices; d++)
        fake_head_send(h, d - 1, &f);
}

void fake_head_dial(struct fake_head *h, int member, int device, enum wire_dial_how how)
{
    struct wire_dial m = {h->plan.epoch, device, how};
    struct wire_buf buf;
    struct frame_out f;

    wire_dial_encode(&m, &buf, &f);
    fake_head_send(h, member, &f);
}

static void wait_both(struct fake_head *h, enum wire_phase_kind phase, const int before[2])
{
    for (int i = 0; i < 2; i++)
        fake_head_wait(h, &h->member[i].n_phase[phase], before[i] + 1);
}

void fake_head_bring_up(struct fake_head *h, uint32_t epoch, bool relay)
{
    int fetched[2], ready[2];

    for (int i = 0; i < 2; i++) {
        fetched[i] = h->member[i].n_phase[WIRE_PHASE_FETCHED];
        ready[i] = h->member[i].n_phase[WIRE_PHASE_READY];
    }
    fake_head_assign(h, epoch, NULL);
    wait_both(h, WIRE_PHASE_FETCHED, fetched);
    fake_head_load(h);
    fake_head_dial(h, 0, 2, relay ? WIRE_DIAL_RELAY : WIRE_DIAL_OUT);
    fake_head_dial(h, 1, 1, relay ? WIRE_DIAL_RELAY : WIRE_DIAL_AWAIT);
    wait_both(h, WIRE_PHASE_READY, ready);
}

static void on_probed(void *user, bool ok, const struct probe_result *r)
{
    struct fake_member *m = user;

    assert_true(ok);
    m->speed = *r;
    m->n_probed++;
}

void fake_head_probe(struct fake_head *h, int member)
{
    struct fake_member *m = &h->member[member];

    m->probe = probe_new(h->base, m->link, on_probed, m);
    probe_begin(m->probe);
    fake_head_wait(h, &m->n_probed, m->n_probed + 1);
    probe_free(m->probe);
    m->probe = NULL;
}

void fake_head_step(struct fake_head *h, uint64_t number, int pos, int32_t token)
{
    int32_t slot = 0, at = pos;
    uint8_t want = 1;
    struct step s = {.number = number,
                     .epoch = h->plan.epoch,
                     .n_rows = 1,
                     .slot = &slot,
                     .pos = &at,
                     .token = &token,
                     .want = &want,
                     .n_want = 1};
    struct frame_out f;
    int before = h->n_results;

    must(executor_run(h->executor, &s, &et));
    step_encode(h->codec, &s, &f);
    fake_head_send(h, h->plan.stage[s.stage].device - 1, &f);
    fake_head_wait(h, &h->n_results, before + 1);
    if (h->code)
        fail_msg("step %llu failed: %d", (unsigned long long)number, h->code);
}
