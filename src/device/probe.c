#include "device/probe.h"

#include <event2/event.h>
#include <stdlib.h>

#include "base/check.h"
#include "base/mem.h"
#include "base/sys.h"

/* What a BURST frame takes on the network beside its payload: less than this. */
enum { FRAME_COST = PROBE_PAYLOAD + 64 };

enum probe_state {
    PROBE_IDLE,
    PROBE_ECHO,   /* ECHOED is due */
    PROBE_OUT,    /* BURST_TOOK is due */
    PROBE_ASKED,  /* ECHOED is due, and behind it */
    PROBE_COMING, /* the burst asked for */
};

/* One that is arriving. */
struct burst {
    bool under_way;
    uint32_t number, left; /* of its latest frame */
    uint64_t bytes;        /* after its first frame */
    int64_t first_us;
};

struct probe {
    struct link *link;
    void (*done)(void *user, bool ok, const struct probe_result *r);
    void *user;
    struct event *timer;
    struct burst in; /* of either kind */

    /* What this side began. */
    enum probe_state state;
    uint32_t number; /* of what is due */
    /* Answers up to this number may come late, and mean nothing: a device may pause for longer than
     * we wait. Behind the one of late_number comes a burst of late_frames; late_left of them are
     * still on their way. */
    uint32_t given_up, late_number;
    int late_frames, late_left;
    int n_echoes;
    int64_t sent_us; /* what is due is the answer to */
    size_t pending_seen;
    int n_frames, n_tries; /* of the burst, out or in; that took long with so many */
    size_t spent;          /* by bursts of this direction */
    uint64_t rate, before; /* best with so many frames, and with fewer; 0 = none */
    struct probe_result r;

    /* What the other side began. */
    size_t taken; /* by its bursts since it last said ECHO for its own sake */
};

/* ---- sending ---- */

static void say(struct probe *p, const struct wire_probe *m)
{
    struct wire_buf buf;
    struct frame_out f;

    if (!link_is_open(p->link))
        return;
    wire_probe_encode(m, &buf, &f);
    link_send(p->link, &f);
}

static void say_burst(struct probe *p, uint32_t number, int n_frames)
{
    struct wire_probe m = {
        .kind = WIRE_PROBE_BURST, .number = number, .payload_len = PROBE_PAYLOAD};

    for (int i = n_frames; i-- > 0;) {
        m.left = (uint32_t)i;
        say(p, &m);
    }
}

static void await(struct probe *p, enum probe_state state)
{
    p->state = state;
    p->pending_seen = link_pending(p->link);
    event_add(p->timer, &(struct timeval){PROBE_WAIT_MS / 1000, PROBE_WAIT_MS % 1000 * 1000});
}

static void say_echo(struct probe *p, int n_frames)
{
    struct wire_probe m = {
        .kind = WIRE_PROBE_ECHO, .number = ++p->number, .left = (uint32_t)n_frames};

    p->sent_us = clock_us();
    say(p, &m);
    await(p, n_frames ? PROBE_ASKED : PROBE_ECHO);
}

/* ---- what this side began ---- */

static void end(struct probe *p, bool ok)
{
    const struct probe_result r = ok ? p->r : (struct probe_result){0};

    p->state = PROBE_IDLE;
    event_del(p->timer);
    p->done(p->user, ok, &r); /* last: p may be gone */
}

static void give_up(struct probe *p)
{
    p->given_up = p->number;
    if (p->state == PROBE_ASKED) {
        p->late_number = p->number;
        p->late_frames = p->n_frames;
    } else if (p->state == PROBE_COMING) {
        p->late_left = p->in.under_way ? (int)p->in.left : p->n_frames;
        p->in.under_way = false;
    }
}

static void on_timer(evutil_socket_t fd, short what, void *user)
{
    struct probe *p = user;

    (void)fd;
    (void)what;
    if (link_pending(p->link) < p->pending_seen) { /* it takes what we say, slowly */
        await(p, p->state);
        return;
    }
    give_up(p);
    end(p, false);
}

static void begin_bursts(struct probe *p)
{
    p->n_frames = PROBE_FRAMES_MIN;
    p->spent = 0;
    p->rate = p->before = 0;
    p->n_tries = 0;
}

static void next_burst(struct probe *p, bool out)
{
    p->spent += (size_t)p->n_frames * FRAME_COST;
    if (out) {
        p->sent_us = clock_us();
        say_burst(p, ++p->number, p->n_frames);
        await(p, PROBE_OUT);
    } else {
        say_echo(p, p->n_frames);
    }
}

/* What a burst took by this side's clock: from its sending, or asking for it, to its end or the word
 * of it, less the least round trip; of that the part that is not its first frame's. Less a quarter,
 * for what else is in it: TCP's window that grows, threads that wake. */
static uint64_t least_us(const struct probe *p)
{
    int64_t us = clock_us() - p->sent_us - (int64_t)p->r.rtt_us;

    return us > 0 ? (uint64_t)us * 3 / 4 * (uint64_t)(p->n_frames - 1) / (uint64_t)p->n_frames : 0;
}

/* The latest burst took so long, as its receiver saw it; false: there is to be another. A receiver
 * that is late for the first frame finds the others waiting and takes the link for quicker than it
 * is: so it is not to have taken less than this side saw. And one burst may be held up by what else
 * goes on, which only adds to it: so a long one is tried again. */
static bool enough(struct probe *p, uint64_t bytes, uint64_t took_us)
{
    uint64_t rate;

    if (took_us < least_us(p))
        took_us = least_us(p);
    if (took_us == 0)
        took_us = 1;
    rate = bytes * 1000000 / took_us;
    if (p->rate <= rate)
        p->rate = rate ? rate : 1;
    if (took_us >= PROBE_BURST_US) {
        p->before = 0; /* those were for finding out how large it must be */
        if (++p->n_tries == PROBE_TRIES)
            return true;
    } else {
        if (p->n_frames == PROBE_FRAMES_MAX)
            return true;
        p->before = p->rate;
        p->rate = 0;
        p->n_frames = 2 * p->n_frames - 1;
        p->n_tries = 0;
    }
    return p->spent + (size_t)p->n_frames * FRAME_COST > PROBE_BYTES;
}

/* The better of the two largest. */
static uint64_t best_rate(const struct probe *p)
{
    return p->rate > p->before ? p->rate : p->before;
}

void probe_begin(struct probe *p)
{
    if (p->state != PROBE_IDLE)
        return;
    p->r = (struct probe_result){0};
    p->n_echoes = 0;
    say_echo(p, 0);
}

static enum err unexpected(const struct wire_probe *m, struct err_text *et)
{
    return err_set(et, ERR_PROTO, "a probe frame of kind %d, number %u, that was not due", m->kind,
                   m->number);
}

static enum err take_echoed(struct probe *p, const struct wire_probe *m, struct err_text *et)
{
    uint64_t rtt_us = (uint64_t)(clock_us() - p->sent_us);

    if (m->number != p->number || (p->state != PROBE_ECHO && p->state != PROBE_ASKED))
        return unexpected(m, et);
    if (rtt_us == 0)
        rtt_us = 1;
    if (!p->r.rtt_us || rtt_us < p->r.rtt_us)
        p->r.rtt_us = rtt_us;
    if (p->state == PROBE_ASKED) {
        await(p, PROBE_COMING);
    } else if (++p->n_echoes < PROBE_ECHOES) {
        say_echo(p, 0);
    } else {
        begin_bursts(p);
        next_burst(p, true);
    }
    return ERR_NONE;
}

static enum err take_took(struct probe *p, const struct wire_probe *m, struct err_text *et)
{
    const uint64_t bytes = (uint64_t)(p->n_frames - 1) * PROBE_PAYLOAD;

    if (m->number != p->number || p->state != PROBE_OUT || m->bytes != bytes)
        return unexpected(m, et);
    if (!enough(p, bytes, m->took_us)) {
        next_burst(p, true);
        return ERR_NONE;
    }
    p->r.out_bytes_per_s = best_rate(p);
    begin_bursts(p);
    next_burst(p, false);
    return ERR_NONE;
}

/* ---- bursts that come ---- */

/* One more frame: the first of a burst, or the next of the one under way. */
static enum err take_part(struct probe *p, const struct wire_probe *m, struct err_text *et)
{
    struct burst *b = &p->in;

    if (b->under_way && (m->number != b->number || m->left + 1 != b->left))
        return err_set(et, ERR_PROTO, "a burst that says %u frames are left behind one with %u",
                       m->left, b->left);
    if (!b->under_way)
        *b = (struct burst){.under_way = true, .number = m->number, .first_us = clock_us()};
    else
        b->bytes += m->payload_len;
    b->left = m->left;
    b->under_way = b->left > 0;
    return ERR_NONE;
}

static enum err take_asked(struct probe *p, const struct wire_probe *m, struct err_text *et)
{
    enum err e;

    if (m->number != p->number || m->payload_len != PROBE_PAYLOAD ||
        (!p->in.under_way && (int64_t)m->left + 1 != p->n_frames))
        return unexpected(m, et);
    e = take_part(p, m, et);
    if (e)
        return e;
    if (p->in.under_way) {
        await(p, PROBE_COMING);
    } else if (enough(p, p->in.bytes, (uint64_t)(clock_us() - p->in.first_us))) {
        p->r.in_bytes_per_s = best_rate(p);
        end(p, true);
    } else {
        next_burst(p, false);
    }
    return ERR_NONE;
}

static enum err take_burst(struct probe *p, const struct wire_probe *m, struct err_text *et)
{
    struct wire_probe took = {.kind = WIRE_PROBE_BURST_TOOK, .number = m->number};
    enum err e;

    if (!p->in.under_way && (m->left == 0 || m->left >= PROBE_FRAMES_MAX))
        return err_set(et, ERR_PROTO, "a burst of %llu frames", m->left + 1ull);
    p->taken += m->payload_len;
    if (p->taken > PROBE_BYTES)
        return err_set(et, ERR_PROTO, "bursts of more than %d bytes", PROBE_BYTES);
    e = take_part(p, m, et);
    if (e || p->in.under_way)
        return e;
    took.bytes = p->in.bytes;
    took.took_us = (uint64_t)(clock_us() - p->in.first_us);
    say(p, &took);
    return ERR_NONE;
}

/* ---- what the other side began ---- */

static enum err take_echo(struct probe *p, const struct wire_probe *m, struct err_text *et)
{
    struct wire_probe echoed = {.kind = WIRE_PROBE_ECHOED, .number = m->number};

    if (m->left == 1 || m->left > PROBE_FRAMES_MAX)
        return err_set(et, ERR_PROTO, "it asks for a burst of %u frames", m->left);
    if (link_pending(p->link) > PROBE_BYTES && m->left)
        return err_set(et, ERR_PROTO, "it asks for more bursts than it takes");
    if (m->left == 0)
        p->taken = 0;
    say(p, &echoed);
    say_burst(p, m->number, (int)m->left);
    return ERR_NONE;
}

/* Whether it is of what was given up, which is then noted. */
static bool is_late(struct probe *p, const struct wire_probe *m)
{
    switch (m->kind) {
    case WIRE_PROBE_ECHOED:
        if (m->number == p->late_number && p->late_frames) {
            p->late_left = p->late_frames;
            p->late_frames = 0;
        }
        return m->number <= p->given_up;
    case WIRE_PROBE_BURST_TOOK:
        return m->number <= p->given_up;
    case WIRE_PROBE_BURST:
        if (!p->late_left)
            return false;
        p->late_left--;
        return true;
    case WIRE_PROBE_ECHO:
        break;
    }
    return false;
}

enum err probe_frame(struct probe *p, const struct frame *f, struct err_text *et)
{
    struct wire_probe m;
    enum err e = wire_probe_decode(f, &m, et);

    if (e)
        return e;
    if (p->in.under_way && m.kind != WIRE_PROBE_BURST)
        return err_set(et, ERR_PROTO, "a burst that ends with %u frames left", p->in.left);
    if (is_late(p, &m))
        return ERR_NONE;
    switch (m.kind) {
    case WIRE_PROBE_ECHO:
        return take_echo(p, &m, et);
    case WIRE_PROBE_ECHOED:
        return take_echoed(p, &m, et);
    case WIRE_PROBE_BURST:
        return p->state == PROBE_COMING ? take_asked(p, &m, et) : take_burst(p, &m, et);
    case WIRE_PROBE_BURST_TOOK:
        return take_took(p, &m, et);
    }
    return unexpected(&m, et);
}

/* ---- made and unmade ---- */

struct probe *probe_new(struct event_base *base, struct link *link,
                        void (*done)(void *user, bool ok, const struct probe_result *r), void *user)
{
    struct probe *p = mem_zalloc(1, sizeof *p);

    p->link = link;
    p->done = done;
    p->user = user;
    p->timer = evtimer_new(base, on_timer, p);
    CHECK(p->timer);
    return p;
}

void probe_free(struct probe *p)
{
    if (!p)
        return;
    event_free(p->timer);
    free(p);
}
