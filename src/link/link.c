#define _GNU_SOURCE
#include "link/link_impl.h"

#include <event2/buffer.h>
#include <netinet/tcp.h>
#include <openssl/x509.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/check.h"
#include "base/mem.h"

/* ---- states ---- */

#define TO(state) (1u << (state))

enum { ENDS = 1 << LINK_DOOMED | 1 << LINK_DEAD };

static const unsigned next_states[LINK_STATES] = {
    [LINK_RESOLVING] = TO(LINK_CONNECTING) | ENDS,
    [LINK_CONNECTING] = TO(LINK_SHAKING) | ENDS,
    [LINK_SHAKING] = TO(LINK_GREETING) | ENDS,
    [LINK_GREETING] = TO(LINK_JUDGING) | TO(LINK_OPEN) | TO(LINK_DRAINING) | ENDS,
    [LINK_JUDGING] = TO(LINK_OPEN) | TO(LINK_DRAINING) | ENDS,
    [LINK_OPEN] = TO(LINK_DRAINING) | ENDS,
    [LINK_DRAINING] = TO(LINK_DEAD),
    [LINK_DOOMED] = TO(LINK_DEAD),
    [LINK_DEAD] = 0,
};

/* Nothing but TLS, and a proven key, leads to a link that carries more than greetings. */
static bool invariant(const struct link *l)
{
    bool proven = l->state >= LINK_GREETING && l->state <= LINK_OPEN;
    bool dialling = l->state == LINK_RESOLVING || l->state == LINK_CONNECTING;

    return (!proven || l->local || l->certificate) && (!dialling || (l->dialled && !l->bev)) &&
           (l->state != LINK_JUDGING || !l->dialled) && (l->state != LINK_OPEN || !l->stranger);
}

void link_move(struct link *l, enum link_state to)
{
    CHECK(next_states[l->state] & TO(to));
    l->state = to;
    if (l->stranger && (to == LINK_OPEN || to == LINK_DEAD)) {
        l->stranger = false;
        l->hub->strangers--;
    }
    CHECK(invariant(l));
}

static void on_timer(evutil_socket_t fd, short what, void *arg);

struct link *link_new(struct hub *h, enum link_state state, const struct link_calls *calls,
                      void *user)
{
    struct link *l = mem_zalloc(1, sizeof *l);

    l->hub = h;
    l->calls = calls;
    l->user = user;
    l->state = state;
    l->trust = WIRE_STRANGER;
    l->timer = evtimer_new(h->base, on_timer, l);
    CHECK(l->timer);
    l->next = h->links;
    if (l->next)
        l->next->prev = l;
    h->links = l;
    return l;
}

void link_free(struct link *l)
{
    if (l->bev)
        bufferevent_free(l->bev);
    X509_free(l->certificate);
    event_free(l->timer);
    dial_free(l);
    free(l->in);
    free(l);
}

void link_bury(struct link *l)
{
    if (l->state == LINK_DEAD)
        return;
    io_silence(l);
    (void)event_del(l->timer);
    if (l->prev)
        l->prev->next = l->next;
    else
        l->hub->links = l->next;
    if (l->next)
        l->next->prev = l->prev;
    dial_free(l);
    link_move(l, LINK_DEAD);
    l->prev = NULL;
    l->next = l->hub->dead;
    l->hub->dead = l;
}

/* Who it was and why not, in one line; only for those who knocked here. */
static void log_refusal(const struct link *l, const char *why)
{
    char key[KEY_ID_TEXT_MAX];

    if (l->dialled || l->local)
        return;
    if (!l->certificate)
        log_say(&l->hub->log, "link", "refused %s: %s", l->address, why);
    else if (!l->name[0])
        log_say(&l->hub->log, "link", "refused %s (key %s): %s", l->address,
                key_id_short(&l->peer, key), why);
    else
        log_say(&l->hub->log, "link", "refused %s (\"%s\", key %s): %s", l->address, l->name,
                key_id_short(&l->peer, key), why);
}

void link_fail(struct link *l, enum err e, const char *fmt, ...)
{
    char words[ERR_TEXT_MAX];
    va_list ap;

    if (l->state >= LINK_DRAINING)
        return;
    va_start(ap, fmt);
    vsnprintf(words, sizeof words, fmt, ap);
    va_end(ap);
    l->end = err_set(&l->why, e, "%s", words);
    if (l->state != LINK_OPEN)
        log_refusal(l, l->why.text);
    io_silence(l);
    (void)event_del(l->timer);
    link_move(l, LINK_DOOMED);
    event_active(l->hub->later, EV_TIMEOUT, 0);
}

/* ---- time ---- */

void link_set_timer(struct link *l, int timeout_ms)
{
    struct timeval tv = {timeout_ms / 1000, timeout_ms % 1000 * 1000};

    CHECK(event_add(l->timer, &tv) == 0);
}

static void on_timer(evutil_socket_t fd, short what, void *arg)
{
    struct link *l = arg;
    struct hub *h = l->hub;
    double greet_s = h->greet_timeout_ms / 1000.0;

    hub_enter(h);
    if (l->state == LINK_DRAINING) {
        size_t pending = link_pending(l);

        if (pending && pending < l->pending_before && !l->stranger) {
            l->pending_before = pending;
            link_set_timer(l, LINGER_MS);
        } else {
            link_bury(l);
        }
    } else if (l->state <= LINK_CONNECTING) {
        link_fail(l, ERR_GONE, "%s does not answer (%g s)", l->address,
                  h->dial_timeout_ms / 1000.0);
    } else if (l->dialled) {
        link_fail(l, ERR_GONE, "%s did not say within %g s whether this device may join it",
                  l->address, greet_s);
    } else {
        link_fail(l, ERR_GONE, "%s within %g s",
                  l->state == LINK_JUDGING ? "it was not judged" : "it did not say who it is",
                  greet_s);
    }
    hub_leave(h);
}

/* ---- greeting ---- */

struct link *hub_dial(struct hub *h, const struct dial_opts *opts)
{
    struct link *l = link_new(h, LINK_RESOLVING, opts->calls, opts->user);
    struct dial *d = l->dial = mem_zalloc(1, sizeof *d);
    struct err_text et;

    CHECK(opts->want_key || opts->token);
    l->dialled = l->known = true;
    l->trust = opts->trust;
    d->fd = -1;
    d->greet = *opts->greet;
    d->has_key = opts->want_key != NULL;
    if (opts->want_key)
        d->key = *opts->want_key;
    d->has_token = opts->token != NULL;
    if (opts->token)
        d->token = *opts->token;
    snprintf(l->address, sizeof l->address, "%s", opts->address);
    hub_enter(h);
    if (address_split(opts->address, opts->port_default, &d->to, &et))
        link_fail(l, ERR_INPUT, "%s", et.text);
    else
        dial_start(l);
    hub_leave(h);
    return l;
}

void link_connected(struct link *l, evutil_socket_t fd)
{
    int one = 1;

    (void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    link_set_timer(l, l->hub->greet_timeout_ms);
    tls_start(l, fd);
    link_move(l, LINK_SHAKING);
    io_attach(l);
}

/* Whom we wanted, or nobody. */
static bool right_one(struct link *l)
{
    const struct dial *d = l->dial;
    char got[KEY_ID_TEXT_MAX], wanted[KEY_ID_TEXT_MAX];

    if (d->has_key && !key_id_equal(&d->key, &l->peer)) {
        link_fail(l, ERR_INPUT, "%s is another device: its key is %s, not %s", l->address,
                  key_id_short(&l->peer, got), key_id_short(&d->key, wanted));
        return false;
    }
    if (!d->has_key && !token_names(&d->token, &l->peer)) {
        link_fail(l, ERR_INPUT, "%s is not the head that gave out this token", l->address);
        return false;
    }
    return true;
}

void link_proven(struct link *l)
{
    struct dial *d = l->dial;
    struct wire_buf buf;
    struct frame_out out;

    link_move(l, LINK_GREETING);
    if (!l->dialled || !right_one(l))
        return;
    d->greet.version = l->hub->version;
    d->greet.version_min = l->hub->version_min;
    if (!d->greet.name[0])
        memcpy(d->greet.name, l->hub->name, sizeof d->greet.name);
    if (d->has_token) {
        uint8_t exported[TOKEN_EXPORT_BYTES];

        link_exported(l, exported);
        token_prove(&d->token, exported, d->greet.proof);
        d->greet.has_proof = true;
        OPENSSL_cleanse(exported, sizeof exported);
    }
    wire_greet_encode(&d->greet, &buf, &out);
    io_send_frame(l, &out);
}

/* Sends REFUSE and ends behind it. */
static void refuse(struct link *l, enum err code, const char *text)
{
    struct wire_refuse m = {.code = code};
    struct wire_buf buf;
    struct frame_out out;

    (void)err_set(&m.text, code, "%s", text);
    log_refusal(l, m.text.text);
    wire_refuse_encode(&m, &buf, &out);
    io_send_frame(l, &out);
    if (l->state < LINK_DRAINING)
        link_close_after_sending(l);
    else
        link_bury(l);
}

/* The newest version both speak; 0, and a sentence for both ends, when there is none. */
static int agree(const struct hub *h, const struct wire_greet *g, struct err_text *et)
{
    int newest = g->version < h->version ? g->version : h->version;

    if (newest >= g->version_min && newest >= h->version_min)
        return newest;
    (void)err_set(et, ERR_UNSUPPORTED,
                  "%s speaks protocol versions %d to %d, the device that dials %d to %d: update "
                  "lingua on %s",
                  h->name, h->version_min, h->version, g->version_min, g->version,
                  g->version < h->version_min ? "the device that dials" : h->name);
    return 0;
}

static void take_greet(struct link *l, const struct frame *f)
{
    struct wire_greet greet;
    struct err_text et;
    enum err e = wire_greet_decode(f, &greet, &et);

    if (e && e != ERR_UNSUPPORTED) {
        link_fail(l, e, "%s", et.text);
        return;
    }
    l->version = agree(l->hub, &greet, &et);
    if (e || !l->version) {
        refuse(l, ERR_UNSUPPORTED, et.text);
        return;
    }
    link_move(l, LINK_JUDGING);
    memcpy(l->name, greet.name, sizeof l->name);
    l->known = true;
    l->calls->greeted(l->user, l, &greet);
}

static void opened(struct link *l, enum wire_trust trust)
{
    l->trust = trust;
    link_move(l, LINK_OPEN);
    (void)event_del(l->timer);
}

static void take_refuse(struct link *l, const struct frame *f)
{
    struct wire_refuse no;
    struct err_text et;
    enum err e = wire_refuse_decode(f, &no, &et);

    link_fail(l, e ? e : no.code, "%s", e ? et.text : no.text.text);
}

static void take_welcome(struct link *l, const struct frame *f)
{
    struct wire_welcome welcome;
    struct err_text et;
    enum err e = wire_welcome_decode(f, &welcome, &et);

    if (!e && (welcome.version < l->hub->version_min || welcome.version > l->hub->version))
        e = err_set(&et, ERR_PROTO, "welcome: version %d was not offered", welcome.version);
    if (e) {
        link_fail(l, e, "%s", et.text);
        return;
    }
    l->version = welcome.version;
    dial_free(l);
    opened(l, l->trust);
    l->calls->opened(l->user, l, &welcome);
}

void link_frame(struct link *l, const struct frame *f)
{
    if (f->type == FRAME_REFUSE && (l->dialled || l->state == LINK_OPEN))
        take_refuse(l, f);
    else if (l->state == LINK_OPEN)
        l->calls->frame(l->user, l, f);
    else if (!l->dialled && f->type == FRAME_GREET)
        take_greet(l, f);
    else if (l->dialled && f->type == FRAME_WELCOME)
        take_welcome(l, f);
    else
        link_fail(l, ERR_PROTO, "frame of type %d where a greeting was due", f->type);
}

/* ---- what the owner says ---- */

void link_welcome(struct link *l, enum wire_trust trust, const struct link_calls *calls, void *user)
{
    struct wire_welcome m = {.version = l->version};
    struct wire_buf buf;
    struct frame_out out;

    if (l->state == LINK_DOOMED) /* it left while it was judged; closed is on its way */
        return;
    CHECK(l->state == LINK_JUDGING && trust != WIRE_STRANGER);
    hub_enter(l->hub);
    l->calls = calls;
    l->user = user;
    snprintf(m.name, sizeof m.name, "%s", l->hub->name);
    snprintf(m.address, sizeof m.address, "%.*s", WIRE_TEXT_MAX - 1, l->address);
    wire_welcome_encode(&m, &buf, &out);
    opened(l, trust);
    io_send_frame(l, &out);
    hub_leave(l->hub);
}

void link_refuse(struct link *l, enum err code, const char *text)
{
    struct hub *h = l->hub;

    hub_enter(h);
    if (l->state == LINK_DOOMED) {
        link_bury(l);
    } else {
        CHECK((l->state == LINK_JUDGING || l->state == LINK_OPEN) && code);
        refuse(l, code, text);
    }
    hub_leave(h);
}

struct link *hub_adopt_local(struct hub *h, int fd, const struct link_calls *calls, void *user)
{
    struct link *l = link_new(h, LINK_OPEN, calls, user);

    l->local = l->known = true;
    l->trust = WIRE_LOCAL;
    l->version = h->version;
    evutil_make_socket_nonblocking(fd);
    evutil_make_socket_closeonexec(fd);
    snprintf(l->address, sizeof l->address, "this machine");
    snprintf(l->security, sizeof l->security, "none: a socket on this machine");
    l->bev = bufferevent_socket_new(h->base, fd, BEV_OPT_CLOSE_ON_FREE | BEV_OPT_DEFER_CALLBACKS);
    CHECK(l->bev && invariant(l));
    io_attach(l);
    return l;
}

/* A frame to a link that just ended goes nowhere: closed will tell. */
static bool sendable(const struct link *l)
{
    CHECK(l->state == LINK_OPEN || l->state == LINK_DOOMED);
    return l->state == LINK_OPEN;
}

void link_send(struct link *l, const struct frame_out *f)
{
    unsigned type = f->head[4] | (unsigned)f->head[5] << 8;

    if (!sendable(l))
        return;
    CHECK(f->total <= wire_frame_max_for(type, l->trust));
    io_send_frame(l, f);
}

void link_send_bytes(struct link *l, const uint8_t *bytes, size_t len)
{
    struct iovec piece = {(void *)bytes, len};

    if (sendable(l))
        io_send(l, &piece, 1, len);
}

size_t link_pending(const struct link *l)
{
    return l->bev ? evbuffer_get_length(bufferevent_get_output(l->bev)) : 0;
}

void link_close(struct link *l)
{
    struct hub *h = l->hub;

    hub_enter(h);
    if (l->state == LINK_GREETING || l->state == LINK_JUDGING)
        log_refusal(l, "closed without an answer");
    if (l->bev && l->state < LINK_DRAINING)
        tls_say_goodbye(l);
    link_bury(l);
    hub_leave(h);
}

void link_close_after_sending(struct link *l)
{
    struct hub *h = l->hub;

    if (l->state < LINK_GREETING || l->state > LINK_OPEN) {
        link_close(l);
        return;
    }
    hub_enter(h);
    link_move(l, LINK_DRAINING);
    l->known = false;
    l->pending_before = link_pending(l) + 1;
    link_set_timer(l, LINGER_MS);
    if (link_pending(l) == 0)
        bufferevent_trigger(l->bev, EV_WRITE, BEV_TRIG_IGNORE_WATERMARKS);
    hub_leave(h);
}

void link_set_bulk(struct link *l)
{
    l->bulk = true;
    if (l->bev)
        io_attach(l);
}

void *link_user(const struct link *l)
{
    return l->user;
}

const struct key_id *link_peer(const struct link *l)
{
    return &l->peer;
}

X509 *link_peer_certificate(const struct link *l)
{
    return l->certificate;
}

const char *link_peer_address(const struct link *l)
{
    return l->address;
}

const char *link_security(const struct link *l)
{
    return l->security;
}

bool link_is_open(const struct link *l)
{
    return l->state == LINK_OPEN;
}

int link_version(const struct link *l)
{
    return l->version;
}

uint64_t link_sent_bytes(const struct link *l)
{
    return l->ssl ? BIO_number_written(SSL_get_wbio(l->ssl)) : l->handed - link_pending(l);
}

uint64_t link_received_bytes(const struct link *l)
{
    return l->ssl ? BIO_number_read(SSL_get_rbio(l->ssl)) : l->received;
}

bool link_moved(struct link *l)
{
    uint64_t received = link_received_bytes(l);
    size_t pending = link_pending(l);
    bool any = received != l->received_seen || pending < l->pending_seen;

    l->received_seen = received;
    l->pending_seen = pending;
    return any;
}
