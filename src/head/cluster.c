#define _GNU_SOURCE
#include "head/cluster.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/random.h>
#include <unistd.h>

#include "base/check.h"
#include "base/mem.h"
#include "base/sys.h"
#include "device/node.h"
#include "head/cluster_impl.h"
#include "model/modelfile.h"

enum {
    SLOTS_DEFAULT = 4,
    CTX_DEFAULT_MAX = 4096,
    ROWS_MAX = 128, /* short chunks keep several stages busy with one prompt */
    CHANGE_MS = 200,
    STOP_US = 300000,  /* for devices to answer STOP */
    MEMORY_SHARE = 70, /* percent of what is available */
    /* Longer than it takes a device to look for a head that stopped (2 s, give or take) again. */
    EXPECT_US = 6000000,
    DEPTH_USUAL = 256, /* positions that a predicted token has behind it */
    PROMPT_USUAL = 256,
    QUEUE_USUAL = 256, /* requests that may wait */
};
#define WEIGHTS_PER_S_MAX 1e14

/* ---- small things ---- */

static void tell_change(evutil_socket_t fd, short what, void *user)
{
    struct cluster *c = user;

    (void)fd;
    (void)what;
    c->change_told = false;
    if (c->opts.changed)
        c->opts.changed(c->opts.user);
    for (struct cluster_watch *w = c->watches, *next; w; w = next) {
        next = w->next;
        w->changed(w->user);
    }
}

void cluster_watch(struct cluster *c, struct cluster_watch *w)
{
    w->next = c->watches;
    c->watches = w;
}

void cluster_unwatch(struct cluster *c, struct cluster_watch *w)
{
    struct cluster_watch **at = &c->watches;

    while (*at != w)
        at = &(*at)->next;
    *at = w->next;
}

const char *cluster_name(const struct cluster *c)
{
    return c->name;
}

void cluster_changed(struct cluster *c)
{
    const struct timeval soon = {0, CHANGE_MS * 1000};

    if (c->change_told)
        return;
    c->change_told = true;
    event_add(c->change_timer, &soon);
}

static struct member *member_of(struct cluster *c, const struct key_id *key)
{
    for (int i = 0; i < c->n_members; i++)
        if (key_id_equal(&c->member[i].key, key))
            return &c->member[i];
    return NULL;
}

/* By the roster: one that was removed may have had the name before. */
struct member *cluster_member_named(struct cluster *c, const char *name)
{
    const struct wire_member *entry = roster_named(c->roster, name);
    struct key_id key;

    if (!entry)
        return NULL;
    memcpy(key.bytes, entry->key, sizeof key.bytes);
    return member_of(c, &key);
}

void cluster_address(const struct cluster *c, char buf[ADDRESS_MAX])
{
    const char *host = c->listen_host;
    char name[64] = "";

    if (!*host || strcmp(host, "*") == 0 || strcmp(host, "0.0.0.0") == 0 ||
        strcmp(host, "::") == 0) {
        sys_local_address(name, sizeof name);
        host = *name ? name : "127.0.0.1";
    }
    snprintf(buf, ADDRESS_MAX, strchr(host, ':') ? "[%s]:%d" : "%s:%d", host, c->port);
}

int64_t cluster_token_life_us(const struct cluster *c)
{
    return c->opts.token_life_s ? (int64_t)c->opts.token_life_s * 1000000 : TOKEN_LIFE_US_DEFAULT;
}

/* ---- members ---- */

static void send_roster(struct cluster *c, struct link *l)
{
    struct wire_roster w = roster_signed(c->roster);
    struct wire_big_buf *buf = mem_alloc(sizeof *buf);
    struct frame_out f;

    wire_roster_encode(&w, buf, &f);
    link_send(l, &f);
    free(buf);
}

void cluster_send_roster(struct cluster *c)
{
    for (int i = 1; i < c->n_members; i++)
        if (c->member[i].link)
            send_roster(c, c->member[i].link);
    cluster_changed(c);
}

static void member_down(struct member *m, const char *text, bool lost)
{
    struct cluster *c = m->cluster;
    struct err_text words;

    m->report_due = m->trace_due = false;
    m->n_looks_due = 0;
    probe_free(m->probe);
    m->probe = NULL;
    (void)err_set(&words, ERR_GONE, "%s %s", m->able.name, text);
    memcpy(m->trouble, words.text, sizeof m->trouble);
    if (c->closing)
        return;
    if (!m->up || epoch_device(&c->running, m->id) < 0) /* else the core says it, and more */
        log_say(&c->opts.log, "cluster", "%s", words.text);
    if (m->up) {
        m->up = false;
        c->sums.devices_lost += lost;
        cluster_feed_member(c, CORE_DOWN, m->id, 0, ERR_GONE, words.text);
    }
    cluster_answer_questions(c, clock_us());
    cluster_changed(c);
}

void cluster_member_down(struct member *m, const char *text)
{
    member_down(m, text, true);
}

void cluster_member_left(struct member *m, const char *sentence, const char *text)
{
    struct cluster *c = m->cluster;

    if (m->up && epoch_device(&c->running, m->id) >= 0)
        cluster_feed_member(c, CORE_FAILED, m->id, c->running.number, ERR_GONE, sentence);
    if (m->up && epoch_device(&c->coming, m->id) >= 0)
        cluster_feed_member(c, CORE_FAILED, m->id, c->coming.number, ERR_GONE, sentence);
    member_down(m, text, false);
}

static void take_pong(struct member *m, const struct wire_pong *p)
{
    int64_t now = clock_us(), rtt = now - (int64_t)p->sent_us;

    if (rtt < 0)
        return;
    if (!rtt)
        rtt = 1;
    if (!m->rtt_us || rtt < m->rtt_us)
        m->rtt_us = rtt;
    if (!m->ping_us || rtt < m->ping_us) {
        m->ping_us = rtt;
        m->offset_us = (int64_t)p->clock_us - ((int64_t)p->sent_us + rtt / 2);
    }
}

static void on_probed(void *user, bool ok, const struct probe_result *r)
{
    struct member *m = user;
    struct cluster *c = m->cluster;

    m->probed = true;
    if (ok) {
        if (!m->rtt_us || (int64_t)r->rtt_us < m->rtt_us)
            m->rtt_us = (int64_t)r->rtt_us;
        m->out_bytes_per_s = r->out_bytes_per_s;
        m->in_bytes_per_s = r->in_bytes_per_s;
        log_say(&c->opts.log, "cluster",
                "%s: %.2f ms there and back, %.1f MB/s to it, %.1f from it", m->able.name,
                (double)r->rtt_us / 1e3, (double)r->out_bytes_per_s / 1e6,
                (double)r->in_bytes_per_s / 1e6);
    } else {
        log_say(&c->opts.log, "cluster", "how quick the link to %s is could not be measured",
                m->able.name);
    }
    cluster_member_known(m);
}

static enum err take_ping(struct member *m, const struct frame *f, struct err_text *et)
{
    struct wire_pong pong = {.clock_us = (uint64_t)clock_us()};
    struct wire_ping ping;
    struct wire_buf buf;
    struct frame_out out;
    enum err e = wire_ping_decode(f, &ping, et);

    if (e)
        return e;
    pong.sent_us = ping.sent_us;
    wire_pong_encode(&pong, &buf, &out);
    link_send(m->link, &out);
    return ERR_NONE;
}

static enum err take_leave(struct member *m, const struct frame *f, struct err_text *et)
{
    struct wire_leave leave;
    struct err_text text;
    enum err e = wire_leave_decode(f, &leave, et);

    if (e)
        return e;
    (void)err_set(&text, ERR_GONE, "%s left (%.200s)", m->able.name, leave.text.text);
    link_close_after_sending(m->link);
    m->link = NULL;
    cluster_member_left(m, text.text, "left");
    return ERR_NONE;
}

/* ---- what a member costs ---- */

void cluster_member_known(struct member *m)
{
    struct cluster *c = m->cluster;

    if (m->up || !m->link || !m->profile || !m->probed)
        return;
    m->up = true;
    cluster_feed_member(c, CORE_UP, m->id, 0, ERR_NONE, NULL);
    if (m->drained) /* while it was being measured */
        cluster_feed_member(c, CORE_DRAIN, m->id, 0, ERR_NONE, NULL);
    if (*c->member[0].trouble) { /* with more devices the head has less to load */
        c->member[0].trouble[0] = '\0';
        cluster_feed_member(c, CORE_UP, 0, 0, ERR_NONE, NULL);
    }
    cluster_changed(c);
}

static void forget_costs(struct member *m)
{
    free(m->profile);
    m->profile = NULL;
    m->factor = 1;
    m->step_s = 0;
}

static void ask_profile(struct member *m)
{
    struct cluster *c = m->cluster;
    struct wire_profile_ask ask = {
        .classes = c->classes.id, .n_classes = c->classes.n, .kv = (int)c->segment.kv};
    struct wire_buf buf;
    struct frame_out f;

    memcpy(ask.model, c->manifest->id, sizeof ask.model);
    wire_profile_ask_encode(&ask, &buf, &f);
    link_send(m->link, &f);
}

/* A rough figure for people and devices files: weight bytes it goes through in a second. */
static double weights_per_s(const struct cluster *c, const struct wire_profile *w)
{
    double bytes = 0, s = 0;

    for (int i = 0; i < c->problem.n_modules; i++) {
        bytes += (double)c->modules[i].decode_bytes;
        s += 1e-12 * (double)w->cost_ps[c->modules[i].class][0];
    }
    return s > 0 ? bytes / s : 0;
}

/* No device is that quick, and a plan would give it everything. */
static bool too_good(const struct cluster *c, const struct wire_profile *w)
{
    for (int k = 0; k < w->n_classes; k++)
        for (int i = 0; i <= PLACE_BATCHES; i++) /* steps of five sizes, and prefill */
            if (w->cost_ps[k][i] == 0)
                return true;
    return weights_per_s(c, w) > WEIGHTS_PER_S_MAX;
}

static void leave_out(struct member *m, const char *why)
{
    snprintf(m->trouble, sizeof m->trouble, "%s", why);
    log_say(&m->cluster->opts.log, "cluster", "%s is left out: %s", m->able.name, why);
    cluster_changed(m->cluster);
}

static enum err take_profile(struct member *m, const struct frame *f, struct err_text *et)
{
    struct cluster *c = m->cluster;
    struct wire_profile *w = mem_zalloc(1, sizeof *w);
    enum err e = wire_profile_decode(f, w, et);

    if (!e && (w->classes != c->classes.id || m->profile))
        goto out; /* the answer to a question that is over */
    if (!e && !w->code && w->n_classes != c->classes.n)
        e = err_set(et, ERR_PROTO, "a profile of %d classes; the model has %d", w->n_classes,
                    c->classes.n);
    if (e)
        goto out;
    if (w->code || too_good(c, w)) {
        leave_out(m, w->code ? w->text.text
                             : "what it says of its speed cannot be: update lingua on it, remove "
                               "the file `profile` from its state folder, and join again");
        goto out;
    }
    m->profile = w;
    m->factor = 1;
    cluster_member_known(m);
    return ERR_NONE;
out:
    free(w);
    return e;
}

static enum err take_frame(struct member *m, const struct frame *f, struct err_text *et)
{
    struct cluster *c = m->cluster;
    struct wire_link_report link_report;
    struct wire_trace trace;
    struct wire_phase phase;
    struct wire_error error;
    struct wire_pong pong;
    enum err e;

    switch (f->type) {
    case FRAME_STEP:
    case FRAME_RESULT:
        return cluster_take_step(m, f, et);
    case FRAME_PONG:
        e = wire_pong_decode(f, &pong, et);
        if (!e)
            take_pong(m, &pong);
        return e;
    case FRAME_PING:
        return take_ping(m, f, et);
    case FRAME_PROBE:
        return probe_frame(m->probe, f, et);
    case FRAME_PHASE:
        e = wire_phase_decode(f, &phase, et);
        if (!e)
            cluster_take_phase(m, &phase);
        return e;
    case FRAME_LINK:
        e = wire_link_decode(f, &link_report, et);
        if (!e)
            cluster_take_link(m, &link_report);
        return e;
    case FRAME_REPORT:
        e = wire_report_decode(f, &m->report, et);
        m->report_due = false;
        if (e)
            return e;
        cluster_count_report(m);
        cluster_answer_questions(c, clock_us());
        return ERR_NONE;
    case FRAME_TRACE:
        e = wire_trace_decode(f, &trace, et);
        if (!e)
            cluster_take_trace(m, &trace);
        return e;
    case FRAME_PROFILE:
        return take_profile(m, f, et);
    case FRAME_LEAVE:
        return take_leave(m, f, et);
    case FRAME_ERROR:
        e = wire_error_decode(f, &error, et);
        return e ? e : err_set(et, error.code, "%s", error.text.text);
    default:
        return err_set(et, ERR_PROTO, "it sent a frame of type %d", f->type);
    }
}

static void on_member_frame(void *user, struct link *link, const struct frame *f)
{
    struct member *m = user;
    struct err_text et = {{0}}, text;

    m->heard_us = clock_us();
    if (!take_frame(m, f, &et))
        return;
    (void)err_set(&text, ERR_PROTO, "was cut off: %s", et.text);
    if (m->link == link)
        m->link = NULL;
    link_close(link);
    cluster_member_down(m, text.text);
}

static void on_member_closed(void *user, struct link *link, enum err e, const char *why)
{
    struct member *m = user;
    struct err_text text;

    (void)e;
    if (m->link != link)
        return;
    m->link = NULL;
    (void)err_set(&text, ERR_GONE, "is gone (%s)", why);
    cluster_member_down(m, text.text);
}

static const struct link_calls member_calls = {.frame = on_member_frame,
                                               .closed = on_member_closed};

/* ---- the door ---- */

static void ignore_frame(void *user, struct link *link, const struct frame *f)
{
    (void)user;
    (void)link;
    (void)f;
}

static void ignore_closed(void *user, struct link *link, enum err e, const char *why)
{
    (void)user;
    (void)link;
    (void)e;
    (void)why;
}

static const struct link_calls paired_calls = {.frame = ignore_frame, .closed = ignore_closed};

static void let_in(struct cluster *c, struct link *l)
{
    link_welcome(l, WIRE_CONTROL, &paired_calls, NULL);
    send_roster(c, l);
    link_close_after_sending(l);
}

static void pair(struct cluster *c, struct link *l, const struct wire_greet *g)
{
    uint8_t exported[TOKEN_EXPORT_BYTES];
    char given[WIRE_NAME_MAX], key[KEY_ID_TEXT_MAX];
    struct err_text et = {{0}};
    bool used = false;
    enum err e = ERR_NONE;

    if (!g->has_proof)
        e = err_set(&et, ERR_INPUT, "pairing needs a token");
    link_exported(l, exported);
    if (!e)
        e = token_book_take(&c->tokens, clock_us(), exported, g->proof, &et);
    used = !e;
    if (!e)
        e = roster_add(c->roster, link_peer(l), g->name, given, &et);
    OPENSSL_cleanse(exported, sizeof exported);
    if (e) {
        link_refuse(l, e, et.text);
        if (used)
            cluster_invite_anew(c);
        return;
    }
    log_say(&c->opts.log, "cluster", "%s is paired now (%s, key %s)", given, link_peer_address(l),
            key_id_short(link_peer(l), key));
    let_in(c, l);
    cluster_send_roster(c);
    cluster_invite_anew(c);
}

static struct member *member_new(struct cluster *c, const struct key_id *key)
{
    struct member *m;

    if (c->n_members == MEMBERS_MAX)
        return NULL;
    m = &c->member[c->n_members];
    m->cluster = c;
    m->id = c->n_members++;
    m->key = *key;
    m->factor = 1;
    return m;
}

/* "192.168.1.7:51234" as we see it, with the port it listens at. */
static void neighbour_address(struct member *m, const struct link *l)
{
    const char *seen = link_peer_address(l), *colon = strrchr(seen, ':');
    int host = colon ? (int)(colon - seen) : (int)strlen(seen);

    snprintf(m->address, sizeof m->address, "%.*s:%d", host, seen, m->able.port);
}

static void forget_speeds(struct cluster *c, int member)
{
    for (int i = 0; i < MEMBERS_MAX; i++)
        c->speed[member][i] = c->speed[i][member] = (struct pair_speed){0};
}

static void take_member(struct cluster *c, struct link *l, const struct wire_greet *g,
                        const struct wire_member *entry)
{
    struct member *m = member_of(c, link_peer(l));

    if (!m)
        m = member_new(c, link_peer(l));
    if (!m) {
        link_refuse(l, ERR_LIMIT, "this head has seen too many devices; restart it");
        return;
    }
    if (m->link) { /* it was quicker to come back than we to notice */
        link_close(m->link);
        m->link = NULL;
        cluster_member_down(m, "came back by a new link");
    }
    if (strcmp(m->able.kernels, g->kernels) != 0 || m->able.n_threads != g->n_threads)
        forget_costs(m);
    m->able = *g;
    memcpy(m->able.name, entry->name, sizeof m->able.name);
    m->link = l;
    m->heard_us = clock_us();
    m->rtt_us = m->ping_us = 0;
    m->out_bytes_per_s = m->in_bytes_per_s = 0;
    m->trouble[0] = '\0';
    m->drained = false;
    for (int i = 0; i < MEMBERS_MAX; i++) { /* it may have a better network now */
        c->n_lost[m->id][i] = c->n_lost[i][m->id] = 0;
        c->hop_extra_s[m->id][i] = c->hop_extra_s[i][m->id] = 0;
    }
    forget_speeds(c, m->id);
    m->probed = false;
    memset(&m->phase, 0, sizeof m->phase);
    memset(&m->running, 0, sizeof m->running);
    neighbour_address(m, l);
    link_welcome(l, WIRE_CONTROL, &member_calls, m);
    send_roster(c, l);
    m->probe = probe_new(c->base, l, on_probed, m);
    probe_begin(m->probe);
    log_say(&c->opts.log, "cluster", "%s is here (%s, %s)", m->able.name, m->able.kind,
            link_peer_address(l));
    if (m->profile)
        cluster_member_known(m);
    else
        ask_profile(m);
    cluster_changed(c);
}

static void bulk_end(struct bulk_link *b)
{
    bulk_giver_free(b->giver);
    link_close(b->link);
    b->link = NULL;
}

static void on_bulk_frame(void *user, struct link *link, const struct frame *f)
{
    struct bulk_link *b = user;
    struct err_text et;

    if (!bulk_giver_frame(b->giver, f, &et))
        return;
    log_say(&b->cluster->opts.log, "link", "closed a bulk link of %s: %s", link_peer_address(link),
            et.text);
    bulk_end(b);
}

static void on_bulk_drained(void *user, struct link *link)
{
    struct bulk_link *b = user;

    (void)link;
    bulk_giver_drained(b->giver);
}

static void on_bulk_closed(void *user, struct link *link, enum err e, const char *why)
{
    struct bulk_link *b = user;

    if (e != ERR_GONE)
        log_say(&b->cluster->opts.log, "link", "closed a bulk link of %s: %s",
                link_peer_address(link), why);
    bulk_giver_free(b->giver);
    b->link = NULL;
}

static const struct link_calls bulk_calls = {
    .frame = on_bulk_frame, .drained = on_bulk_drained, .closed = on_bulk_closed};

static void take_bulk(struct cluster *c, struct link *l)
{
    struct bulk_link *b = NULL;

    /* A device fetches by one link at a time: an older one is of a fetch that is over, and its far
     * end may have gone without a word. */
    for (int i = 0; i < BULK_LINKS_MAX; i++)
        if (c->bulk[i].link && key_id_equal(link_peer(c->bulk[i].link), link_peer(l)))
            bulk_end(&c->bulk[i]);
    for (int i = 0; i < BULK_LINKS_MAX && !b; i++)
        if (!c->bulk[i].link)
            b = &c->bulk[i];
    CHECK(b); /* one per device of the roster */
    b->cluster = c;
    b->link = l;
    link_set_bulk(l);
    link_welcome(l, WIRE_BULK, &bulk_calls, b);
    b->giver = bulk_giver_new(&c->store, l);
}

static void on_greeted(void *user, struct link *l, const struct wire_greet *g)
{
    struct cluster *c = user;
    const struct wire_member *entry = roster_find(c->roster, link_peer(l));

    if (g->purpose == WIRE_FOR_PAIR && !entry)
        pair(c, l, g);
    else if (g->purpose == WIRE_FOR_PAIR && !key_id_equal(link_peer(l), identity_key(c->identity)))
        let_in(c, l); /* our answer to its token was lost on the way, and the token is spent */
    else if (!entry || key_id_equal(link_peer(l), identity_key(c->identity)))
        link_refuse(l, ERR_INPUT,
                    "this device does not belong to the cluster (or no longer does): pair it with "
                    "a token");
    else if (g->purpose == WIRE_FOR_MEMBER)
        take_member(c, l, g, entry);
    else if (g->purpose == WIRE_FOR_BULK)
        take_bulk(c, l);
    else
        link_refuse(l, ERR_UNSUPPORTED, "a head takes steps by the member's own link");
}

static const struct link_calls door_calls = {.greeted = on_greeted, .closed = ignore_closed};

/* ---- heartbeat ---- */

static void on_tick(evutil_socket_t fd, short what, void *user)
{
    struct cluster *c = user;
    const int64_t late = (int64_t)CLUSTER_PING_MS * 1000;
    int64_t now = clock_us(), paused = 0;

    (void)fd;
    (void)what;
    /* A pause of this device is not one of the others: they had no PING to answer. */
    if (c->tick_us && now - c->tick_us > 2 * late)
        paused = now - c->tick_us - late;
    c->tick_us = now;
    for (int i = 1; i < c->n_members; i++) {
        struct member *m = &c->member[i];
        struct wire_ping ping = {(uint64_t)now};
        struct wire_buf buf;
        struct frame_out f;

        if (!m->link)
            continue;
        m->heard_us += paused;
        if (link_moved(m->link))
            m->heard_us = now;
        if (now - m->heard_us > (int64_t)CLUSTER_LOST_MS * 1000) {
            link_close(m->link);
            m->link = NULL;
            cluster_member_down(m, "stopped answering");
            continue;
        }
        wire_ping_encode(&ping, &buf, &f);
        link_send(m->link, &f);
    }
    event_add(c->local_listener, NULL); /* if it had to be put aside */
    cluster_stats_tick(c, now);
    cluster_measure_begin(c, now);
    cluster_answer_questions(c, now);
    cluster_expect(c, now);
}

static void on_core_time(evutil_socket_t fd, short what, void *user)
{
    struct core_event event = {.kind = CORE_TIME};

    (void)fd;
    (void)what;
    cluster_feed(user, &event);
}

/* ---- opening ---- */

static enum err lock_folder(struct cluster *c, struct err_text *et)
{
    char *path = mem_printf("%s/lock", c->state_folder);
    enum err e = ERR_NONE;

    c->lock_fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    if (c->lock_fd < 0)
        e = err_system(et, "open %s", path);
    else if (flock(c->lock_fd, LOCK_EX | LOCK_NB) < 0)
        e = err_set(et, ERR_FILE,
                    "another lingua uses %s: stop it, or give this one a folder of its own with "
                    "--state DIR",
                    c->state_folder);
    free(path);
    return e;
}

static void choose_name(struct cluster *c)
{
    char host[WIRE_NAME_MAX] = "";

    if (c->opts.name && *c->opts.name)
        snprintf(c->name, sizeof c->name, "%s", c->opts.name);
    else if (gethostname(host, sizeof host - 1) == 0 && *host)
        snprintf(c->name, sizeof c->name, "%s", host);
    else
        snprintf(c->name, sizeof c->name, "head");
}

/* All of a problem that does not change while this head runs. */
static enum err describe_model(struct cluster *c, struct err_text *et)
{
    struct place_problem *p = &c->problem;
    enum err e = model_classes(c->model, c->segment.kv, &c->classes, et);

    if (e)
        return e;
    p->n_modules = model_n_modules(c->model);
    c->modules = mem_zalloc((size_t)p->n_modules, sizeof *c->modules);
    place_describe(c->model, &c->classes, &c->segment, p, c->modules);
    p->want_private = c->opts.want_private;
    p->concurrency = c->opts.concurrency > 0 ? c->opts.concurrency : 1;
    p->group_max = STEP_DECODE_ROWS; /* of many streams; more cost in proportion anyway */
    p->depth = p->n_ctx / 2 < DEPTH_USUAL ? p->n_ctx / 2 : DEPTH_USUAL;
    p->prompt = p->n_ctx / 2 < PROMPT_USUAL ? p->n_ctx / 2 : PROMPT_USUAL;
    return ERR_NONE;
}

static enum err open_model(struct cluster *c, struct err_text *et)
{
    enum err e = model_open(c->model_path, &c->model, et);
    const struct model_shape *shape;
    int trained;

    if (!e)
        e = manifest_remembered(c->model_path, c->state_folder, c->opts.hashing, c->opts.user,
                                &c->manifest, et);
    if (!e)
        e = model_check_kv(c->model, c->opts.kv, et);
    if (e)
        return e;
    c->model_fd = open(c->model_path, O_RDONLY | O_CLOEXEC);
    if (c->model_fd < 0)
        return err_system(et, "open %s", c->model_path);
    c->store = (struct bulk_store){.manifest = c->manifest, .fd = c->model_fd};
    shape = model_shape(c->model);
    trained = shape->n_ctx_train > 0 ? shape->n_ctx_train : CTX_DEFAULT_MAX;
    c->segment.n_ctx = c->opts.n_ctx               ? c->opts.n_ctx
                       : trained < CTX_DEFAULT_MAX ? trained
                                                   : CTX_DEFAULT_MAX;
    if (shape->ctx_is_hard && c->segment.n_ctx > trained)
        return err_set(et, ERR_INPUT,
                       "a context of %d: this model has learned positions, so its maximum is %d",
                       c->segment.n_ctx, trained);
    c->segment.n_slots = c->opts.n_slots ? c->opts.n_slots : SLOTS_DEFAULT;
    c->segment.n_rows_max = c->segment.n_ctx < ROWS_MAX ? c->segment.n_ctx : ROWS_MAX;
    c->segment.kv = c->opts.kv;
    return describe_model(c, et);
}

/* What this device takes for the classes of its model: remembered, or measured now. */
static enum err measure_self(struct cluster *c, struct err_text *et)
{
    struct member *m = &c->member[0];
    struct profile_opts opts = {.folder = c->state_folder,
                                .memory_bytes = c->opts.memory_bytes,
                                .windows = c->opts.profile_windows,
                                .window_ms = c->opts.profile_window_ms};
    struct compute *compute;
    enum err e;

    m->profile = mem_zalloc(1, sizeof *m->profile);
    if (profile_recall(c->state_folder, c->classes.id, c->classes.n, c->opts.n_threads, m->profile))
        return ERR_NONE;
    log_say(&c->opts.log, "cluster", "measuring how fast this device is with such a model");
    e = compute_open(c->opts.n_threads, &compute, et);
    if (e)
        return e;
    e = profile_measure(compute, c->model_path, c->opts.kv, &opts, m->profile, et);
    compute_close(compute);
    return e;
}

/* The head as a member of its own cluster. */
static enum err describe_self(struct cluster *c, struct err_text *et)
{
    struct member *m = member_new(c, identity_key(c->identity));
    struct wire_greet *g = &m->able;
    enum err e;

    g->base_bytes = profile_base_bytes(c->state_folder);
    e = measure_self(c, et);
    if (e)
        return e;
    snprintf(g->name, sizeof g->name, "%s", c->name);
    snprintf(g->kernels, sizeof g->kernels, "%s", model_kernels());
    sys_kind(g->kind, sizeof g->kind);
    g->n_threads = c->opts.n_threads;
    g->memory_bytes =
        c->opts.memory_bytes ? c->opts.memory_bytes : sys_available_bytes() / 100 * MEMORY_SHARE;
    g->speed = (uint64_t)weights_per_s(c, m->profile);
    g->cap = c->opts.cap > 0 ? c->opts.cap : 100;
    g->spare = c->opts.spare;
    m->up = true;
    return ERR_NONE;
}

static enum err open_door(struct cluster *c, struct err_text *et)
{
    struct hub_opts h = {.base = c->base,
                         .identity = c->identity,
                         .log = c->opts.log,
                         .calls = &door_calls,
                         .user = c};
    const char *listen = c->opts.listen ? c->opts.listen : "";
    const char *colon = strrchr(listen, ':');
    struct err_text text;
    enum err e;

    snprintf(h.name, sizeof h.name, "%s", c->name);
    e = hub_open(&h, &c->hub, et);
    if (!e)
        e = hub_listen(c->hub, listen, PORT_DEFAULT, &c->port, et);
    if (e)
        return e;
    if (*listen == '[')
        snprintf(c->listen_host, sizeof c->listen_host, "%.*s", (int)strcspn(listen + 1, "]"),
                 listen + 1);
    else
        snprintf(c->listen_host, sizeof c->listen_host, "%.*s",
                 colon ? (int)(colon - listen) : (int)strlen(listen), listen);
    if (c->opts.announce &&
        discover_announce(c->base, c->name, c->port, &c->opts.log, &c->discover, &text))
        log_say(&c->opts.log, "link", "not announced on the network: %s", text.text);
    return ERR_NONE;
}

static int queue_max(const struct cluster *c)
{
    int n = c->opts.n_queue_max > 0 ? c->opts.n_queue_max : QUEUE_USUAL;
    int most = CORE_STREAMS_MAX - c->segment.n_slots;

    return n < most ? n : most;
}

static void begin(struct cluster *c)
{
    const struct timeval every = {CLUSTER_PING_MS / 1000, CLUSTER_PING_MS % 1000 * 1000};
    struct core_opts opts = {.n_slots = c->segment.n_slots,
                             .n_ctx = c->segment.n_ctx,
                             .n_rows_max = c->segment.n_rows_max,
                             .n_vocab = model_shape(c->model)->n_vocab,
                             .n_queue_max = queue_max(c)};

    CHECK(getrandom(opts.tag_key, sizeof opts.tag_key, 0) == sizeof opts.tag_key);
    c->core = core_new(&opts);
    c->planner = planner_new(c->base, cluster_planner_done, c);
    c->codec = step_codec_new();
    c->tick = event_new(c->base, -1, EV_PERSIST, on_tick, c);
    c->core_timer = event_new(c->base, -1, 0, on_core_time, c);
    CHECK(c->tick && c->core_timer);
    event_add(c->tick, &every);
    cluster_invite_anew(c);
    if (roster_body(c->roster)->n > 1)
        c->expect_until_us = clock_us() + EXPECT_US;
    cluster_feed_member(c, CORE_UP, 0, 0, ERR_NONE, NULL);
}

enum err cluster_open(struct event_base *base, const struct cluster_opts *opts,
                      struct cluster **out, struct err_text *et)
{
    struct cluster *c = mem_zalloc(1, sizeof *c);
    enum err e;

    c->base = base;
    c->opts = *opts;
    c->lock_fd = c->model_fd = c->local_fd = -1;
    c->last = &c->first;
    c->model_path = realpath(opts->model_path, NULL);
    c->state_folder = mem_strdup(opts->state_folder);
    c->change_timer = event_new(base, -1, 0, tell_change, c);
    CHECK(c->change_timer);
    choose_name(c);
    e = c->model_path ? lock_folder(c, et) : err_system(et, "open %s", opts->model_path);
    if (!e)
        e = identity_open(c->state_folder, &c->identity, et);
    if (!e)
        e = roster_open_head(c->state_folder, c->identity, c->name, &c->roster, et);
    if (!e)
        e = open_model(c, et);
    if (!e)
        e = describe_self(c, et);
    if (!e)
        e = worker_open(base, opts->n_threads, &cluster_worker_calls, c, &c->worker, et);
    if (!e)
        e = open_door(c, et);
    if (!e)
        e = cluster_local_open(c, et);
    if (!e)
        e = cluster_gen_open(c, et);
    if (e) {
        cluster_close(c);
        return e;
    }
    token_book_init(&c->tokens, identity_key(c->identity));
    begin(c);
    *out = c;
    return ERR_NONE;
}

static bool anybody_here(const struct cluster *c)
{
    for (int i = 1; i < c->n_members; i++)
        if (c->member[i].link)
            return true;
    return false;
}

/* So that they do not have to guess whether this head was lost: they give back what the model took,
 * and answer by LEAVE. */
static void say_stop(struct cluster *c)
{
    int64_t until = clock_us() + STOP_US;
    struct wire_buf buf;
    struct frame_out f;

    c->closing = true;
    wire_empty_encode(FRAME_STOP, &buf, &f);
    for (int i = 1; i < c->n_members; i++)
        if (c->member[i].link)
            link_send(c->member[i].link, &f);
    while (anybody_here(c) && clock_us() < until) {
        if (event_base_loop(c->base, EVLOOP_NONBLOCK) < 0)
            break;
        usleep(1000);
    }
}

void cluster_close(struct cluster *c)
{
    if (!c)
        return;
    say_stop(c);
    cluster_gen_close(c);
    cluster_local_close(c);
    discover_close(c->discover);
    for (int i = 0; i < BULK_LINKS_MAX; i++)
        if (c->bulk[i].link)
            bulk_giver_free(c->bulk[i].giver);
    if (c->hub)
        hub_close(c->hub);
    for (int i = 0; i < c->n_members; i++)
        probe_free(c->member[i].probe);
    if (c->worker)
        worker_close(c->worker);
    planner_close(c->planner);
    planner_job_free(c->planned);
    for (int i = 0; i < c->n_members; i++)
        free(c->member[i].profile);
    model_classes_fini(&c->classes);
    if (c->core)
        core_free(c->core);
    step_codec_free(c->codec);
    if (c->tick)
        event_free(c->tick);
    if (c->core_timer)
        event_free(c->core_timer);
    event_free(c->change_timer);
    if (c->manifest)
        manifest_free(c->manifest);
    if (c->model)
        model_close(c->model);
    if (c->model_fd >= 0)
        close(c->model_fd);
    if (c->roster)
        roster_close(c->roster);
    token_book_fini(&c->tokens);
    identity_close(c->identity);
    if (c->lock_fd >= 0)
        close(c->lock_fd);
    free(c->modules);
    free(c->model_path);
    free(c->state_folder);
    free(c);
}

int cluster_port(const struct cluster *c)
{
    return c->port;
}
