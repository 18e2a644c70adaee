/* One event loop's thread runs all of this. Three things may happen to a fetch from outside: a
 * frame or the end of a source's link, a source's back-off timer, and `tick`. Whatever they find
 * out, the callers' callbacks are called from `work` and `tick` alone, as the last thing done
 * there, so that a callback may cancel the fetch. */
#define _GNU_SOURCE
#include <event2/event.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/check.h"
#include "base/mem.h"
#include "base/sys.h"
#include "device/bulk.h"
#include "device/node.h"

enum {
    WINDOW = 8,    /* requests under way at each source */
    WRONG_MAX = 3, /* times a part may come wrong from the head; wrong parts of another source */
    TICK_MS = 200,
    BACKOFF_FIRST_MS = 200,
    BACKOFF_MAX_MS = 5000,
    STALL_US = 30 * 1000000,
    RESUME_BYTES = 4 << 20, /* read again at a time, of what came before this process began */
    HEAD = 0,               /* the first source */
};

struct request {
    int part;
    uint64_t offset;
    int length;
    bool unwanted; /* the part was given up meanwhile; the answer is still due */
};

struct source {
    struct fetch *fetch;
    struct wire_peer peer;
    struct link *link; /* dialled or open; NULL in between */
    bool open, gone;   /* gone: not dialled again */
    int address;       /* of the peer's, that is tried */
    struct event *again;
    int backoff_ms;
    uint8_t *have; /* (n_parts), or NULL: the head has all, others have not said yet */
    int part;      /* that is being asked for, or -1 */
    uint64_t asked;
    struct request under_way[WINDOW]; /* a ring, in the order of asking, which is that of answers */
    int first, n;
    int64_t heard_us;
    int n_wrong;
};

struct piece {
    int owner; /* the source that is asked for it, or -1 */
    int only;  /* the source all its bytes came from, or -1: several, or from before */
    int avoid; /* the source that gave it wrong, or -1 */
    int n_wrong;
};

struct fetch {
    struct event_base *base;
    struct hub *hub;
    struct cache *cache;
    struct log log;
    bool header_only;
    struct plan plan; /* unless header_only */
    int device;
    uint8_t model_id[WIRE_KEY_BYTES];
    struct wire_greet greet;
    const struct fetch_calls *calls;
    void *user;
    int n_sources;
    struct source *source; /* (n_sources) */
    struct event *work, *tick;

    struct mirror *mirror;           /* NULL until the manifest has come */
    struct model *model;             /* NULL until part 0 has */
    const struct manifest *manifest; /* the mirror's */
    uint8_t *need;                   /* (n_parts) */
    struct piece *piece;             /* (n_parts) */
    uint64_t total, received, shown_done, shown_received;
    int n_bad_manifests;

    bool calling, cancelled, ended;
    enum err end;
    struct err_text why;
};

static void fill(struct source *s);
static void dial(struct source *s);

/* ---- the end ---- */

static void fetch_free(struct fetch *f)
{
    for (int i = 0; i < f->n_sources; i++) {
        struct source *s = &f->source[i];

        if (s->link)
            link_close(s->link);
        event_free(s->again);
        free(s->have);
    }
    event_free(f->work);
    event_free(f->tick);
    model_close(f->model);
    mirror_close(f->mirror);
    free(f->need);
    free(f->piece);
    free(f->source);
    free(f);
}

void fetch_cancel(struct fetch *f)
{
    if (!f)
        return;
    if (f->calling)
        f->cancelled = true; /* whoever is calling frees it */
    else
        fetch_free(f);
}

static void end_with(struct fetch *f, enum err e, const struct err_text *why)
{
    if (f->ended)
        return;
    f->ended = true;
    f->end = e;
    f->why = *why;
    for (int i = 0; i < f->n_sources; i++) {
        struct source *s = &f->source[i];

        event_del(s->again);
        if (s->link)
            link_close(s->link);
        s->link = NULL;
        s->open = false;
    }
    event_active(f->work, EV_TIMEOUT, 0);
}

static uint64_t bytes_done(const struct fetch *f)
{
    uint64_t done = 0;

    for (int i = 0; f->mirror && i < f->manifest->n_parts; i++)
        done += f->need[i] ? mirror_received(f->mirror, i) : 0;
    return done;
}

/* False: the callback has cancelled, and f is gone. */
static bool show(struct fetch *f)
{
    uint64_t done = bytes_done(f);

    if (f->total == 0 || (done == f->shown_done && f->received == f->shown_received))
        return true;
    f->shown_done = done;
    f->shown_received = f->received;
    f->calling = true;
    f->calls->progress(f->user, done, f->total, f->received);
    f->calling = false;
    if (f->cancelled)
        fetch_free(f);
    return !f->cancelled;
}

/* The last thing that ever happens. */
static void say_done(struct fetch *f)
{
    struct mirror *m = f->end ? NULL : f->mirror;

    if (!show(f))
        return;
    if (m)
        f->mirror = NULL; /* theirs now */
    f->calling = true;
    f->calls->done(f->user, f->end, f->end ? f->why.text : "", m);
    fetch_free(f);
}

/* ---- parts ---- */

static const char *part_name(const struct fetch *f, int part,
                             char buf[MANIFEST_PART_MAX_SHOWN + 16])
{
    manifest_part_name(f->manifest, f->model, part, buf);
    return buf;
}

static bool source_has(const struct source *s, int part)
{
    if (!s->open)
        return false;
    return s->have ? s->have[part] : s == &s->fetch->source[HEAD];
}

static bool another_has(const struct source *s, int part)
{
    for (int i = 0; i < s->fetch->n_sources; i++)
        if (&s->fetch->source[i] != s && source_has(&s->fetch->source[i], part))
            return true;
    return false;
}

static bool all_here(const struct fetch *f)
{
    for (int i = 0; i < f->manifest->n_parts; i++)
        if (f->need[i] && !mirror_has(f->mirror, i))
            return false;
    return true;
}

/* A part for s to be asked for, or -1. A source that has nothing left to do takes the next one: so
 * each gets as much as it is fast. */
static int pick(const struct source *s)
{
    const struct fetch *f = s->fetch;
    int me = (int)(s - f->source);

    for (int i = 0; i < f->manifest->n_parts; i++) {
        const struct piece *p = &f->piece[i];

        if (!f->need[i] || p->owner >= 0 || mirror_has(f->mirror, i) || !source_has(s, i))
            continue;
        if (p->avoid == me && another_has(s, i))
            continue;
        return i;
    }
    return -1;
}

/* The part is nobody's again; what s still says of it is not listened to. */
static void give_up_part(struct source *s, int part)
{
    s->fetch->piece[part].owner = -1;
    if (s->part == part)
        s->part = -1;
    for (int i = 0; i < s->n; i++) {
        struct request *r = &s->under_way[(s->first + i) % WINDOW];

        if (r->part == part)
            r->unwanted = true;
    }
}

static void fill_all(struct fetch *f)
{
    for (int i = 0; i < f->n_sources && !f->ended; i++)
        fill(&f->source[i]);
}

/* ---- sources come and go ---- */

/* Address number n of the peer's list; false when it has fewer. */
static bool nth_address(const struct wire_peer *p, int n, char buf[ADDRESS_MAX])
{
    const char *at = p->addresses;

    for (;; n--) {
        size_t len;

        at += strspn(at, " ");
        len = strcspn(at, " ");
        if (len == 0)
            return false;
        if (n == 0) {
            snprintf(buf, ADDRESS_MAX, "%.*s", (int)len, at);
            return true;
        }
        at += len;
    }
}

static void dial_later(struct source *s)
{
    struct timeval tv = {s->backoff_ms / 1000, s->backoff_ms % 1000 * 1000};

    s->address = 0;
    event_add(s->again, &tv);
    s->backoff_ms = s->backoff_ms * 2 < BACKOFF_MAX_MS ? s->backoff_ms * 2 : BACKOFF_MAX_MS;
}

/* The link is gone already. Its parts are for others; the head is tried again. */
static void lost(struct source *s, const char *why)
{
    struct fetch *f = s->fetch;
    char address[ADDRESS_MAX];
    bool was_open = s->open;

    s->link = NULL;
    s->open = false;
    for (int i = 0; f->mirror && i < f->manifest->n_parts; i++)
        if (f->piece[i].owner == (int)(s - f->source))
            f->piece[i].owner = -1;
    s->part = -1;
    s->n = 0;
    if (!was_open && nth_address(&s->peer, s->address + 1, address)) {
        s->address++;
        dial(s);
        return;
    }
    log_say(&f->log, "fetch", "%s: %s%s", s->peer.name, why,
            s == &f->source[HEAD] ? "; trying again" : "; going on without it");
    if (s == &f->source[HEAD])
        dial_later(s);
    else
        s->gone = true;
    fill_all(f);
}

/* It does not keep the rules. */
static void drop(struct source *s, const char *why)
{
    link_close(s->link);
    lost(s, why);
}

static void ask_model(struct source *s, enum frame_type type)
{
    struct wire_model_ask ask;
    struct wire_buf buf;
    struct frame_out out;

    memcpy(ask.model, s->fetch->model_id, sizeof ask.model);
    wire_model_ask_encode(type, &ask, &buf, &out);
    link_send(s->link, &out);
}

static void opened(void *user, struct link *link, const struct wire_welcome *welcome)
{
    struct source *s = user;

    (void)welcome;
    link_set_bulk(link);
    s->open = true;
    s->heard_us = clock_us();
    if (s != &s->fetch->source[HEAD])
        ask_model(s, FRAME_HAVE_ASK);
    else if (!s->fetch->mirror)
        ask_model(s, FRAME_MANIFEST_ASK);
    fill(s);
}

static void closed(void *user, struct link *link, enum err e, const char *why)
{
    (void)link;
    (void)e;
    lost(user, why);
}

static void frame(void *user, struct link *link, const struct frame *f);

static const struct link_calls calls_of_links = {
    .opened = opened,
    .frame = frame,
    .closed = closed,
};

static void dial(struct source *s)
{
    struct key_id key;
    char address[ADDRESS_MAX] = "";
    struct dial_opts opts = {
        .address = address,
        .port_default = PORT_DEFAULT,
        .want_key = &key,
        .greet = &s->fetch->greet,
        .trust = WIRE_BULK,
        .calls = &calls_of_links,
        .user = s,
    };

    memcpy(key.bytes, s->peer.key, sizeof key.bytes);
    if (!nth_address(&s->peer, s->address, address) && s != &s->fetch->source[HEAD]) {
        s->gone = true;
        return;
    }
    s->link = hub_dial(s->fetch->hub, &opts);
}

static void dial_again(evutil_socket_t fd, short what, void *user)
{
    (void)fd;
    (void)what;
    dial(user);
}

/* ---- asking ---- */

static void ask_range(struct source *s)
{
    struct fetch *f = s->fetch;
    uint64_t left = f->manifest->part[s->part].size - s->asked;
    struct request r = {s->part, s->asked, left < WIRE_CHUNK_MAX ? (int)left : WIRE_CHUNK_MAX,
                        false};
    struct wire_fetch ask = {.part = r.part, .offset = r.offset, .length = r.length};
    struct wire_buf buf;
    struct frame_out out;

    CHECK(left > 0 && s->n < WINDOW);
    memcpy(ask.model, f->model_id, sizeof ask.model);
    wire_fetch_encode(&ask, &buf, &out);
    link_send(s->link, &out);
    if (s->n == 0)
        s->heard_us = clock_us();
    s->under_way[(s->first + s->n++) % WINDOW] = r;
    s->asked += (uint64_t)r.length;
    if (s->asked == f->manifest->part[s->part].size)
        s->part = -1; /* all of it is asked for */
}

/* Asks until as much is under way as may be. */
static void fill(struct source *s)
{
    struct fetch *f = s->fetch;

    while (f->mirror && !f->ended && s->open && s->n < WINDOW) {
        if (s->part < 0) {
            s->part = pick(s);
            if (s->part < 0)
                return;
            f->piece[s->part].owner = (int)(s - f->source);
            s->asked = UINT64_MAX;
        }
        if (s->asked == UINT64_MAX) {
            /* What came before this process began is read again first, a little at a time. */
            if (!mirror_resume(f->mirror, s->part, RESUME_BYTES)) {
                /* By a timeout: what is made active by its own call runs before the loop looks at
                 * anything else, and nobody's PING would be answered. */
                event_add(f->work, &(struct timeval){0, 0});
                return;
            }
            s->asked = mirror_received(f->mirror, s->part);
        }
        ask_range(s);
    }
}

/* ---- from the manifest to the list of what is needed ---- */

static enum err take_mirror(struct fetch *f, struct mirror *m)
{
    size_t n = (size_t)mirror_manifest(m)->n_parts;

    f->mirror = m;
    f->manifest = mirror_manifest(m);
    f->need = mem_zalloc(n, 1);
    f->need[0] = 1;
    f->total = f->manifest->part[0].size;
    f->piece = mem_zalloc(n, sizeof *f->piece);
    for (size_t i = 0; i < n; i++)
        f->piece[i] = (struct piece){-1, -1, -1, 0};
    mirror_hold(m, f->need);
    return mirror_has(m, 0)
               ? ERR_NONE
               : cache_make_room(f->cache, f->total - mirror_received(m, 0), m, f->need, &f->why);
}

/* Part 0 is there: the model says what its modules need. */
static enum err take_needs(struct fetch *f)
{
    uint64_t missing = 0;
    int n_missing = 0;
    enum err e = model_open(mirror_path(f->mirror), &f->model, &f->why);

    if (!e && !f->header_only)
        e = manifest_needs(f->manifest, f->model, &f->plan, f->device, f->need, &f->total, &f->why);
    if (e)
        return e;
    mirror_hold(f->mirror, f->need);
    for (int i = 0; i < f->manifest->n_parts; i++) {
        if (!f->need[i])
            continue;
        mirror_use(f->mirror, i);
        n_missing += !mirror_has(f->mirror, i);
        missing += f->manifest->part[i].size - mirror_received(f->mirror, i);
    }
    if (n_missing > 0)
        log_say(&f->log, "fetch", "%d parts are missing, %.1f MB of %.1f MB", n_missing,
                (double)missing / 1e6, (double)f->total / 1e6);
    return cache_make_room(f->cache, missing, f->mirror, f->need, &f->why);
}

/* Goes on as far as can be without anything from outside. */
static void advance(struct fetch *f)
{
    enum err e = ERR_NONE;

    if (!f->mirror || f->ended)
        return;
    if (!f->model && mirror_has(f->mirror, 0)) {
        e = take_needs(f);
        for (int i = 1; i < f->n_sources && !e && !all_here(f); i++)
            dial(&f->source[i]);
    }
    if (e) {
        struct err_text why = f->why;

        end_with(f, e, &why);
    } else if (f->model && all_here(f)) {
        end_with(f, ERR_NONE, &(struct err_text){""});
    } else {
        fill_all(f);
    }
}

static void begin(struct fetch *f)
{
    struct mirror *m = NULL;
    struct err_text why;
    enum err e = cache_find(f->cache, f->model_id, &m, &why);

    if (!e && m) {
        e = take_mirror(f, m);
        why = f->why;
    }
    if (e)
        end_with(f, e, &why);
    advance(f);
    if (!f->ended && !f->source[HEAD].link)
        dial(&f->source[HEAD]);
}

/* ---- frames ---- */

static void take_manifest(struct source *s, const struct frame *frame)
{
    struct fetch *f = s->fetch;
    struct wire_manifest w;
    struct manifest *manifest = NULL;
    struct mirror *m;
    struct err_text et;
    enum err e = wire_manifest_decode(frame, &w, &et);

    if (s != &f->source[HEAD] || f->mirror) {
        drop(s, "sent a manifest nobody asked for");
        return;
    }
    if (!e && w.len == 0) {
        err_set(&et, ERR_INPUT, "%s does not have that model", s->peer.name);
        end_with(f, ERR_INPUT, &et);
        return;
    }
    if (!e)
        e = manifest_decode(w.bytes, w.len, f->model_id, &manifest, &et);
    if (e) {
        if (++f->n_bad_manifests >= WRONG_MAX)
            end_with(f, e, &et);
        else
            drop(s, et.text);
        return;
    }
    e = cache_add(f->cache, manifest, &m, &et);
    manifest_free(manifest);
    if (!e) {
        e = take_mirror(f, m);
        et = f->why;
    }
    if (e)
        end_with(f, e, &et);
    advance(f);
}

static void take_have(struct source *s, const struct frame *frame)
{
    struct fetch *f = s->fetch;
    struct wire_have w;
    struct err_text et;

    if (wire_have_decode(frame, &w, &et) != ERR_NONE || !f->mirror || s == &f->source[HEAD] ||
        s->have || (w.n_parts != 0 && w.n_parts != f->manifest->n_parts)) {
        drop(s, "said what it has in a way that makes no sense");
        return;
    }
    s->have = mem_zalloc((size_t)f->manifest->n_parts, 1);
    for (int i = 0; i < w.n_parts; i++)
        s->have[i] = w.bits[i / 8] >> i % 8 & 1;
    fill(s);
}

/* A source does not give a part, or gave it wrong. */
static void blame(struct source *s, int part, bool theirs, const char *why)
{
    struct fetch *f = s->fetch;
    struct piece *p = &f->piece[part];
    char name[MANIFEST_PART_MAX_SHOWN + 16];
    struct err_text et;

    part_name(f, part, name);
    log_say(&f->log, "fetch", "%s: %s from %s: %s; fetching it again", mirror_path(f->mirror), name,
            theirs ? s->peer.name : "several devices", why);
    give_up_part(s, part);
    p->only = -1;
    if (!theirs)
        return;
    p->avoid = (int)(s - f->source);
    if (s != &f->source[HEAD]) {
        s->have[part] = 0;
        if (++s->n_wrong >= WRONG_MAX)
            drop(s, "gave too much that was wrong");
    } else if (++p->n_wrong >= WRONG_MAX) {
        err_set(&et, ERR_PROTO, "%s from %s: %s, %d times; check the model's file there", name,
                s->peer.name, why, WRONG_MAX);
        end_with(f, ERR_PROTO, &et);
    }
}

static void keep_bytes(struct source *s, const struct wire_chunk *w)
{
    struct fetch *f = s->fetch;
    struct piece *p = &f->piece[w->part];
    int me = (int)(s - f->source);
    struct err_text et;
    bool complete, theirs;
    enum err e;

    p->only = w->offset == 0 || p->only == me ? me : -1;
    theirs = p->only == me;
    e = mirror_write(f->mirror, w->part, w->offset, w->bytes, w->len, &complete, &et);
    if (e == ERR_PROTO) {
        blame(s, w->part, theirs, "it is not what it should be");
    } else if (e) {
        end_with(f, e, &et);
    } else {
        s->backoff_ms = BACKOFF_FIRST_MS; /* it does work */
        if (complete)
            p->owner = -1;
    }
}

static void take_chunk(struct source *s, const struct frame *frame)
{
    struct fetch *f = s->fetch;
    struct wire_chunk w;
    struct request r;
    struct err_text et;

    if (wire_chunk_decode(frame, &w, &et) != ERR_NONE || s->n == 0) {
        drop(s, "sent bytes nobody asked for");
        return;
    }
    r = s->under_way[s->first];
    if (w.part != r.part || w.offset != r.offset || (!w.code && w.len != (size_t)r.length)) {
        drop(s, "sent other bytes than it was asked for");
        return;
    }
    s->first = (s->first + 1) % WINDOW;
    s->n--;
    s->heard_us = clock_us();
    f->received += w.len;
    if (w.code && !r.unwanted)
        blame(s, w.part, true, w.text.text);
    else if (!w.code && !r.unwanted)
        keep_bytes(s, &w);
    advance(f);
}

static void frame(void *user, struct link *link, const struct frame *f)
{
    struct source *s = user;

    (void)link;
    if (f->type == FRAME_CHUNK)
        take_chunk(s, f);
    else if (f->type == FRAME_HAVE)
        take_have(s, f);
    else if (f->type == FRAME_MANIFEST)
        take_manifest(s, f);
    else
        drop(s, "sent what has no place on a link for weights");
}

/* ---- events of our own ---- */

static void work(evutil_socket_t fd, short what, void *user)
{
    struct fetch *f = user;

    (void)fd;
    (void)what;
    if (f->ended)
        say_done(f);
    else if (!event_pending(f->tick, EV_TIMEOUT, NULL)) { /* the first time */
        struct timeval tv = {0, TICK_MS * 1000};

        event_add(f->tick, &tv);
        begin(f);
    } else {
        fill_all(f);
    }
}

static void tick(evutil_socket_t fd, short what, void *user)
{
    struct fetch *f = user;
    int64_t now = clock_us();

    (void)fd;
    (void)what;
    if (f->ended)
        return;
    for (int i = 0; i < f->n_sources; i++)
        if (f->source[i].n > 0 && now - f->source[i].heard_us > STALL_US)
            drop(&f->source[i], "says nothing any more");
    (void)show(f);
}

struct fetch *fetch_begin(const struct fetch_opts *opts)
{
    struct fetch *f = mem_zalloc(1, sizeof *f);

    CHECK(opts->n_sources >= 1);
    f->base = opts->base;
    f->hub = opts->hub;
    f->cache = opts->cache;
    f->log = opts->log;
    f->header_only = !opts->plan;
    if (opts->plan)
        f->plan = *opts->plan;
    f->device = opts->device;
    memcpy(f->model_id, opts->model, sizeof f->model_id);
    f->greet = *opts->greet;
    f->greet.purpose = WIRE_FOR_BULK;
    f->calls = opts->calls;
    f->user = opts->user;
    f->n_sources = opts->n_sources;
    f->source = mem_zalloc((size_t)f->n_sources, sizeof *f->source);
    for (int i = 0; i < f->n_sources; i++) {
        f->source[i] = (struct source){
            .fetch = f,
            .peer = opts->source[i],
            .part = -1,
            .backoff_ms = BACKOFF_FIRST_MS,
            .again = event_new(f->base, -1, 0, dial_again, &f->source[i]),
        };
        CHECK(f->source[i].again != NULL);
    }
    f->work = event_new(f->base, -1, 0, work, f);
    f->tick = event_new(f->base, -1, EV_PERSIST, tick, f);
    CHECK(f->work && f->tick);
    event_active(f->work, EV_TIMEOUT, 0);
    return f;
}
