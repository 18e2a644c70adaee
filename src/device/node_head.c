#include <event2/util.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/utsname.h>

#include "base/check.h"
#include "base/mem.h"
#include "base/sys.h"
#include "device/condition.h"
#include "device/node_impl.h"
#include "model/model.h"

static const struct link_calls head_calls;

/* ---- dialling ---- */

static void fill_greet(const struct node *n, struct wire_greet *g)
{
    struct utsname u;

    memset(g, 0, sizeof *g);
    memcpy(g->name, n->own_name, sizeof g->name);
    if (!n->joined) {
        g->purpose = WIRE_FOR_PAIR;
        return;
    }
    g->purpose = WIRE_FOR_MEMBER;
    snprintf(g->kernels, sizeof g->kernels, "%s", model_kernels());
    if (uname(&u) == 0)
        snprintf(g->kind, sizeof g->kind, "%.40s %.40s", u.machine, u.sysname);
    g->n_threads = n->n_threads;
    g->memory_bytes = n->memory_bytes;
    g->base_bytes = n->base_bytes;
    g->speed = n->bytes_per_s;
    g->cap = n->cap;
    g->spare = n->spare;
    g->port = n->port;
    g->roster = roster_version(n->roster);
}

static void dial(struct node *n)
{
    struct wire_greet greet;
    struct dial_opts opts = {
        .address = n->dialled,
        .port_default = PORT_DEFAULT,
        .want_key = n->joined ? &n->known.head : NULL,
        .token = n->joined ? NULL : &n->token,
        .greet = &greet,
        .trust = WIRE_CONTROL,
        .calls = &head_calls,
        .user = n,
    };

    memcpy(n->dialled, n->round.text[0], sizeof n->dialled);
    n->round.n--;
    memmove(n->round.text[0], n->round.text[1], (size_t)n->round.n * sizeof n->round.text[0]);
    fill_greet(n, &greet);
    n->pairing = !n->joined;
    n->head = hub_dial(n->hub, &opts);
}

void head_begin(struct node *n)
{
    if (n->head || n->ended)
        return;
    if (n->round.n == 0) {
        if (n->own_address)
            addresses_add(&n->round, n->own_address);
        for (int i = 0; n->joined && i < n->known.addresses.n; i++)
            addresses_add(&n->round, n->known.addresses.text[i]);
        for (int i = 0; i < n->found.n; i++)
            addresses_add(&n->round, n->found.text[i]);
    }
    if (n->round.n == 0) {
        node_trouble(n, "no head has been found on this network yet");
        return;
    }
    (void)event_del(n->retry);
    dial(n);
}

static void on_retry(evutil_socket_t fd, short what, void *user)
{
    (void)fd;
    (void)what;
    head_begin(user);
}

/* At once while there are other addresses to try; then after a pause that doubles each time, give
 * or take a quarter, so that devices which lost their head together do not come back together. */
static void dial_again(struct node *n, bool at_once)
{
    unsigned char luck;
    int ms = 0;

    if (n->ended)
        return;
    if (!at_once || n->round.n == 0) {
        evutil_secure_rng_get_bytes(&luck, sizeof luck);
        ms = n->backoff_ms * 3 / 4 + n->backoff_ms * luck / 510;
        n->backoff_ms *= 2;
        if (n->backoff_ms > BACKOFF_MAX_MS)
            n->backoff_ms = BACKOFF_MAX_MS;
        n->round.n = 0;
    }
    event_add(n->retry, &(struct timeval){ms / 1000, ms % 1000 * 1000});
}

void head_found(struct node *n, const char *address)
{
    for (int i = 0; i < n->found.n; i++)
        if (strcmp(n->found.text[i], address) == 0)
            return; /* it has its turn in each round */
    if (!addresses_prefer(&n->found, address) || n->head || n->ended)
        return;
    n->round.n = 0;
    addresses_add(&n->round, address);
    head_begin(n);
}

/* ---- the end of a link ---- */

/* What goes with the head's link, whoever ended it. */
static void forget_link(struct node *n)
{
    n->head = NULL;
    probe_free(n->head_probe);
    n->head_probe = NULL;
    n->head_open = n->roster_fresh = n->pairing = false;
    (void)event_del(n->silence);
    profile_head_lost(n);
    epoch_head_lost(n);
}

void head_close(struct node *n)
{
    (void)event_del(n->retry);
    if (n->head)
        link_close(n->head);
    forget_link(n);
}

void head_lost(struct node *n, const char *why)
{
    head_close(n);
    log_say(&n->log, "node", "lost the head: %s", why);
    node_trouble(n, "lost the head: %.400s", why);
    node_update(n);
    dial_again(n, false);
}

/* The head does not know this device any more. With a token that is still good we may ask anew. */
static void removed(struct node *n)
{
    char name[WIRE_NAME_MAX];

    memcpy(name, n->known.head_name, sizeof name);
    head_close(n);
    remembered_forget(n->folder);
    roster_close(n->roster);
    n->roster = NULL;
    n->joined = false;
    if (!n->has_token) {
        node_end(n, ERR_INPUT,
                 "this device was removed from %s's cluster; join again with a new token",
                 name[0] ? name : "the head");
        return;
    }
    for (int i = 0; i < n->known.addresses.n; i++)
        addresses_prefer(&n->found, n->known.addresses.text[i]);
    memset(&n->known, 0, sizeof n->known);
    node_update(n);
    dial_again(n, false);
}

static void on_closed(void *user, struct link *l, enum err e, const char *why)
{
    struct node *n = user;
    bool was_open = n->head_open, pairing = n->pairing;
    /* Only the head itself may say that we do not belong to it. */
    bool said_by_head =
        pairing ? token_names(&n->token, link_peer(l)) : key_id_equal(&n->known.head, link_peer(l));

    forget_link(n);
    if (e == ERR_INPUT && said_by_head) {
        if (pairing)
            node_end(n, ERR_INPUT, "%s", why);
        else
            removed(n);
        return;
    }
    if (was_open)
        log_say(&n->log, "node", "lost the head: %s", why);
    node_trouble(n, "%s%.400s", was_open ? "lost the head: " : "", why);
    node_update(n);
    dial_again(n, !was_open);
}

static void on_silence(evutil_socket_t fd, short what, void *user)
{
    struct node *n = user;

    (void)fd;
    (void)what;
    /* Looks are counted, not time: one long pause of this device is one look, behind which the
     * head's frames lie waiting to be read. */
    if (++n->silent_looks > HEAD_SILENCE_MS / SILENCE_LOOK_MS)
        head_lost(n, "it stopped answering");
}

/* ---- pairing ---- */

/* The head has let us in: from here on it knows our key and we know its. This is kept at once, for
 * the token is used up. */
static void paired(struct node *n, struct link *l)
{
    struct err_text et;
    enum err e;

    n->known.head = *link_peer(l);
    n->known.name[0] = '\0';
    e = remembered_roster(n->folder, &n->known.head, &n->roster, &et);
    if (!e)
        e = remembered_write(n->folder, &n->known, &et);
    if (e) {
        node_end(n, e, "%s", et.text);
        return;
    }
    n->joined = true;
    n->has_token = false;
    token_wipe(&n->token);
}

/* The roster has come by the link that paired us; what is left to say is said as a member. */
static void come_back_as_member(struct node *n)
{
    log_say(&n->log, "node", "joined %s's cluster as %s", n->known.head_name, n->known.name);
    head_close(n);
    addresses_add(&n->round, n->dialled);
    event_add(n->retry, &(struct timeval){0, 0});
}

/* ---- open ---- */

static void keep_known(struct node *n)
{
    struct err_text et;

    if (remembered_write(n->folder, &n->known, &et))
        log_say(&n->log, "node", "what cluster this is could not be kept: %s", et.text);
}

/* Never: the head asks, and this side only answers. */
static void on_probed(void *user, bool ok, const struct probe_result *r)
{
    (void)user;
    (void)ok;
    (void)r;
}

static void on_opened(void *user, struct link *l, const struct wire_welcome *welcome)
{
    struct node *n = user;
    bool changed = strcmp(n->known.head_name, welcome->name) != 0;

    n->head_open = true;
    n->head_probe = probe_new(n->base, l, on_probed, n);
    n->silent_looks = 0;
    event_add(n->silence, &(struct timeval){SILENCE_LOOK_MS / 1000, SILENCE_LOOK_MS % 1000 * 1000});
    memcpy(n->known.head_name, welcome->name, sizeof n->known.head_name);
    changed |= addresses_prefer(&n->known.addresses, n->dialled);
    n->round.n = 0;
    n->status.trouble[0] = '\0';
    if (n->pairing)
        paired(n, l);
    else if (changed)
        keep_known(n);
    node_update(n);
}

/* ---- the roster ---- */

/* Whoever is in old and not in the roster any more is cut off at once. */
static void cut_removed(struct node *n, const struct wire_roster_body *old)
{
    for (int i = 0; i < old->n; i++) {
        struct key_id key;

        memcpy(key.bytes, old->member[i].key, sizeof key.bytes);
        if (!roster_find(n->roster, &key) &&
            hub_cut(n->hub, &key, "it was removed from the cluster") > 0)
            log_say(&n->log, "node", "cut off %s: it was removed from the cluster",
                    old->member[i].name);
    }
}

static bool take_roster(struct node *n, const struct frame *f, struct err_text *et)
{
    struct wire_roster m;
    struct wire_roster_body *old;
    const struct wire_member *self;
    enum err e = wire_roster_decode(f, &m, et);

    if (e)
        return false;
    old = mem_alloc(sizeof *old);
    *old = *roster_body(n->roster);
    e = roster_take(n->roster, &m, link_peer_certificate(n->head), et);
    if (e == ERR_FILE || e == ERR_MEMORY) { /* it counts, but could not be kept */
        log_say(&n->log, "node", "%s", et->text);
        e = ERR_NONE;
    }
    if (!e)
        cut_removed(n, old);
    free(old);
    if (e)
        return false;
    n->roster_fresh = true;
    n->backoff_ms = BACKOFF_MIN_MS;
    self = roster_find(n->roster, identity_key(n->identity));
    if (self && strcmp(self->name, n->known.name) != 0) {
        memcpy(n->known.name, self->name, sizeof n->known.name);
        keep_known(n);
    }
    node_update(n);
    return true;
}

/* ---- frames ---- */

void head_as_source(const struct node *n, struct wire_peer *out)
{
    memset(out, 0, sizeof *out);
    memcpy(out->key, n->known.head.bytes, sizeof out->key);
    memcpy(out->name, n->known.head_name, sizeof out->name);
    snprintf(out->addresses, sizeof out->addresses, "%s", link_peer_address(n->head));
}

void head_send(struct node *n, const struct frame_out *f)
{
    if (n->head_open && link_is_open(n->head))
        link_send(n->head, f);
}

void head_send_bytes(struct node *n, const uint8_t *bytes, size_t len)
{
    if (n->head_open && link_is_open(n->head))
        link_send_bytes(n->head, bytes, len);
}

void head_say_leave(struct node *n, const char *why)
{
    struct wire_leave m;
    struct wire_buf buf;
    struct frame_out f;

    if (n->pairing)
        return;
    (void)err_set(&m.text, ERR_NONE, "%s", why);
    wire_leave_encode(&m, &buf, &f);
    head_send(n, &f);
}

static void report(struct node *n)
{
    struct wire_report m;
    struct condition c;
    struct wire_buf buf;
    struct frame_out f;

    worker_report(n->worker, &m);
    condition_read("/sys", n->cache_folder, &c);
    m.memory_free = c.memory_free;
    m.storage_free = c.storage_free;
    m.temperature_mc = c.temperature_mc;
    m.battery_percent = c.battery_percent;
    m.charging = c.charging;
    wire_report_encode(&m, &buf, &f);
    head_send(n, &f);
}

static enum err trace(struct node *n, const struct frame *f, struct err_text *et)
{
    struct wire_trace_ask ask;
    struct wire_trace_record *r;
    struct wire_trace m;
    struct wire_buf buf;
    struct frame_out out;
    uint8_t *bytes;
    enum err e = wire_trace_ask_decode(f, &ask, et);

    if (e)
        return e;
    if (ask.on && !ask.epoch) {
        worker_trace(n->worker, true);
        return ERR_NONE;
    }
    r = mem_alloc(WIRE_TRACE_MAX * sizeof *r);
    bytes = mem_alloc((size_t)WIRE_TRACE_MAX * WIRE_TRACE_BYTES);
    m.epoch = ask.epoch;
    m.n = ask.epoch ? worker_trace_look(n->worker, &ask, r) : worker_trace_take(n->worker, r);
    for (int i = 0; i < m.n; i++)
        wire_trace_put(bytes + (size_t)i * WIRE_TRACE_BYTES, &r[i]);
    m.records = bytes;
    wire_trace_encode(&m, &buf, &out);
    head_send(n, &out);
    if (!ask.epoch)
        worker_trace(n->worker, false);
    free(bytes);
    free(r);
    return ERR_NONE;
}

/* The head ends for now; it may be back. What its model took is given back meanwhile. */
static void stop(struct node *n)
{
    struct link *l = n->head;

    head_say_leave(n, "as the head wished");
    log_say(&n->log, "node", "%s has stopped", n->known.head_name);
    link_close_after_sending(l);
    (void)event_del(n->retry);
    forget_link(n);
    epoch_stop(n);
    n->backoff_ms = BACKOFF_STOPPED_MS;
    node_trouble(n, "%s has stopped", n->known.head_name);
    node_update(n);
    dial_again(n, false);
}

/* Those that make sense only to a member that knows who the others are. */
static enum err take_order(struct node *n, const struct frame *f, struct err_text *et)
{
    union {
        struct wire_assign assign;
        struct wire_load load;
        struct wire_dial dial;
        struct wire_profile_ask profile_ask;
    } *m = mem_alloc(sizeof *m);
    enum err e;

    switch (f->type) {
    case FRAME_ASSIGN:
        e = wire_assign_decode(f, &m->assign, et);
        if (!e)
            epoch_assign(n, &m->assign);
        break;
    case FRAME_LOAD:
        e = wire_load_decode(f, &m->load, et);
        if (!e)
            epoch_load(n, &m->load);
        break;
    case FRAME_DIAL:
        e = wire_dial_decode(f, &m->dial, et);
        if (!e)
            stages_dial(n, &m->dial);
        break;
    case FRAME_STEP:
        e = epoch_step(n, f, et);
        break;
    case FRAME_PROBE:
        e = probe_frame(n->head_probe, f, et);
        break;
    case FRAME_REPORT_ASK:
        report(n);
        e = ERR_NONE;
        break;
    case FRAME_PROFILE_ASK:
        e = wire_profile_ask_decode(f, &m->profile_ask, et);
        if (!e)
            profile_ask(n, &m->profile_ask);
        break;
    case FRAME_TRACE_ASK:
        e = trace(n, f, et);
        break;
    default:
        e = err_set(et, ERR_PROTO, "a frame of type %d from the head", f->type);
    }
    free(m);
    return e;
}

static void on_frame(void *user, struct link *l, const struct frame *f)
{
    struct node *n = user;
    struct err_text et;

    n->silent_looks = 0;
    switch (f->type) {
    case FRAME_PING:
        stages_pong(l, f);
        return;
    case FRAME_PONG:
        return;
    case FRAME_ROSTER:
        if (!take_roster(n, f, &et))
            head_lost(n, et.text);
        else if (n->pairing)
            come_back_as_member(n);
        return;
    case FRAME_STOP:
        stop(n);
        return;
    default:
        break;
    }
    if (!n->roster_fresh)
        (void)err_set(&et, ERR_PROTO, "a frame of type %d before the roster", f->type);
    else if (!take_order(n, f, &et))
        return;
    head_lost(n, et.text);
}

static const struct link_calls head_calls = {
    .opened = on_opened,
    .frame = on_frame,
    .closed = on_closed,
};

void head_init(struct node *n)
{
    n->backoff_ms = BACKOFF_MIN_MS;
    n->retry = evtimer_new(n->base, on_retry, n);
    n->silence = event_new(n->base, -1, EV_PERSIST, on_silence, n);
    CHECK(n->retry && n->silence);
}
