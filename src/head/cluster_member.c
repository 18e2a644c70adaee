/* Members: their links and frames, their heartbeat's answers, what they cost. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/check.h"
#include "base/mem.h"
#include "base/sys.h"
#include "head/cluster_impl.h"

#define WEIGHTS_PER_S_MAX 1e14

/* ---- members ---- */

void cluster_send_roster_to(struct cluster *c, struct link *l)
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
            cluster_send_roster_to(c, c->member[i].link);
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

double cluster_weights_per_s(const struct cluster *c, const struct wire_profile *w)
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
    return cluster_weights_per_s(c, w) > WEIGHTS_PER_S_MAX;
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

/* ---- coming ---- */

struct member *cluster_member_new(struct cluster *c, const struct key_id *key)
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

void cluster_member_take(struct cluster *c, struct link *l, const struct wire_greet *g,
                         const struct wire_member *entry)
{
    struct member *m = cluster_member_of(c, link_peer(l));

    if (!m)
        m = cluster_member_new(c, link_peer(l));
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
    cluster_send_roster_to(c, l);
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
