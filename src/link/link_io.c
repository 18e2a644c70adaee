#include "link/link_impl.h"

#include <event2/buffer.h>
#include <stdlib.h>
#include <string.h>

#include "base/check.h"

enum {
    /* Of a large frame, as much lies together as 15 full TLS records hold; libevent rounds the
     * memory for it up to 256 KiB. Smaller pieces would go out as records of their own, and larger
     * ones would be freed only when all of them is gone. */
    OUT_PIECE = 15 * 16384,
    ONCE = 256 << 10,     /* read or written in one go */
    ONCE_BULK = 64 << 10, /* less, so that others get their turn */
    /* A frame that is larger and still arriving moves to a buffer of its own, which grows with what
     * comes; smaller ones wait in libevent's. */
    IN_PLACE_MAX = 32 << 10,
    IN_FIRST = 128 << 10,
    IN_KEPT = 4 << 20, /* of that buffer, between frames */
};

/* ---- in ---- */

/* The frame has come; p is where it lies. */
static void give(struct link *l, const uint8_t *p, size_t total)
{
    struct frame f;
    struct err_text et;

    l->received += total;
    if (frame_decode(p, total, &f, &et))
        link_fail(l, ERR_PROTO, "%s", et.text);
    else
        link_frame(l, &f);
}

/* Room for more of the large frame: twice what came, never beyond the frame's end. */
static bool grow(struct link *l)
{
    size_t cap = l->in_cap < IN_FIRST ? IN_FIRST : 2 * l->in_cap;
    uint8_t *in;

    if (l->in_len < l->in_cap)
        return true;
    if (cap > l->in_total && l->in_total > l->in_cap)
        cap = l->in_total;
    in = realloc(l->in, cap);
    if (!in) {
        link_fail(l, ERR_MEMORY, "no memory for a frame of %zu bytes", l->in_total);
        return false;
    }
    l->in = in;
    l->in_cap = cap;
    return true;
}

/* Moves what is there of the large frame; true when it was the last of it and it was given. */
static bool take_large(struct link *l, struct evbuffer *from)
{
    while (l->in_len < l->in_total) {
        size_t want;
        int got;

        if (!grow(l))
            return false;
        want = l->in_cap - l->in_len;
        if (want > l->in_total - l->in_len)
            want = l->in_total - l->in_len;
        got = evbuffer_remove(from, l->in + l->in_len, want);
        if (got <= 0)
            return false;
        l->in_len += (size_t)got;
    }
    give(l, l->in, l->in_total);
    l->in_len = l->in_total = 0;
    if (l->in_cap > IN_KEPT) {
        free(l->in);
        l->in = NULL;
        l->in_cap = 0;
    }
    return true;
}

/* The next frame, if it is there whole. It is read where it lies, unless that is no multiple of
 * four. */
static bool take_one(struct link *l)
{
    struct evbuffer *from = bufferevent_get_input(l->bev);
    size_t have = evbuffer_get_length(from), total;
    struct err_text et;
    const uint8_t *p;
    enum err e;

    if (l->in_total)
        return take_large(l, from);
    if (have < FRAME_HEAD_BYTES)
        return false;
    p = evbuffer_pullup(from, FRAME_HEAD_BYTES);
    CHECK(p);
    e = frame_measure_for(p, FRAME_HEAD_BYTES, l->state == LINK_OPEN ? l->trust : WIRE_STRANGER,
                          &total, &et);
    if (e) {
        link_fail(l, e, "%s", et.text);
        return false;
    }
    if (have < total && total <= IN_PLACE_MAX)
        return false;
    if (have >= total) {
        p = evbuffer_pullup(from, (ev_ssize_t)total);
        CHECK(p);
    }
    if (have < total || (uintptr_t)p % 4) {
        l->in_total = total;
        return take_large(l, from);
    }
    give(l, p, total);
    evbuffer_drain(from, total);
    return true;
}

void io_discard(struct link *l)
{
    struct evbuffer *in = bufferevent_get_input(l->bev);

    evbuffer_drain(in, evbuffer_get_length(in));
}

/* There are no watermarks on reading: this is called after every TLS record at most and leaves less
 * than a small frame behind, or moves it on; and a watermark that stops bufferevent_openssl with
 * bytes left inside OpenSSL never starts it again. */
void io_read(struct link *l)
{
    if (l->state == LINK_SHAKING && tls_read_plain(l) && tls_finished(l))
        link_proven(l);
    while ((l->state == LINK_GREETING || l->state == LINK_OPEN) && take_one(l))
        ;
    if (l->state == LINK_JUDGING && evbuffer_get_length(bufferevent_get_input(l->bev)))
        link_fail(l, ERR_PROTO, "it went on talking before it was answered");
    if (l->state >= LINK_DRAINING)
        io_discard(l);
}

/* ---- out ---- */

static void copy_from(const struct iovec *piece, int *i, size_t *skip, uint8_t *to, size_t len)
{
    while (len) {
        size_t n = piece[*i].iov_len - *skip;

        n = n < len ? n : len;
        if (n)
            memcpy(to, (const uint8_t *)piece[*i].iov_base + *skip, n);
        to += n;
        len -= n;
        *skip += n;
        if (*skip == piece[*i].iov_len && len) {
            ++*i;
            *skip = 0;
        }
    }
}

static size_t drained_below(const struct link *l)
{
    return l->bulk ? LINK_BULK_DRAINED : LINK_KEPT_MAX / 2;
}

/* bufferevent_openssl makes a record of each stretch of memory it finds, so a frame is laid out in
 * one as far as it fits. */
void io_send(struct link *l, const struct iovec *piece, int n, size_t total)
{
    struct evbuffer *out = bufferevent_get_output(l->bev);
    size_t skip = 0, pending = evbuffer_get_length(out);
    int i = 0;

    if (pending == 0)
        l->largest = 0;
    if (pending > LINK_KEPT_MAX + l->largest) {
        link_fail(l, ERR_LIMIT, "it takes nothing: %zu MiB wait to be sent", pending >> 20);
        return;
    }
    if (l->largest < total)
        l->largest = total;
    l->handed += total;
    while (total) {
        size_t len = total < OUT_PIECE ? total : OUT_PIECE;
        struct iovec space;

        if (evbuffer_reserve_space(out, (ev_ssize_t)len, &space, 1) != 1 || space.iov_len < len) {
            link_fail(l, ERR_MEMORY, "no memory for what is to be sent");
            return;
        }
        copy_from(piece, &i, &skip, space.iov_base, len);
        space.iov_len = len;
        CHECK(evbuffer_commit_space(out, &space, 1) == 0);
        total -= len;
    }
    CHECK(i < n);
    if (evbuffer_get_length(out) > drained_below(l))
        l->over_half = true;
}

void io_send_frame(struct link *l, const struct frame_out *f)
{
    struct iovec piece[2 + FRAME_PAYLOADS];
    int n = 0;

    piece[n++] = (struct iovec){(void *)f->head, sizeof f->head};
    piece[n++] = (struct iovec){(void *)f->header, f->header_len};
    for (int i = 0; i < f->n_payloads; i++)
        piece[n++] = (struct iovec){(void *)f->payload[i], f->payload_len[i]};
    io_send(l, piece, n, f->total);
}

/* ---- libevent's calls ---- */

/* libevent refuses while the socket's events wait to be handled; then it is tried again. */
static void set_priority(struct link *l)
{
    int n = event_base_get_npriorities(l->hub->base);

    if (l->bulk && !l->bulk_done)
        l->bulk_done = n < 2 || bufferevent_priority_set(l->bev, n - 1) == 0;
}

static void on_read(struct bufferevent *bev, void *arg)
{
    struct link *l = arg;
    struct hub *h = l->hub;

    hub_enter(h);
    set_priority(l);
    io_read(l);
    hub_leave(h);
}

/* The far end sees the end of the stream behind our last word, takes that, and ends its own. */
static void end_stream(struct link *l)
{
    tls_say_goodbye(l);
    (void)shutdown(bufferevent_getfd(l->bev), SHUT_WR);
}

static void on_write(struct bufferevent *bev, void *arg)
{
    struct link *l = arg;
    struct hub *h = l->hub;
    size_t pending = evbuffer_get_length(bufferevent_get_output(bev));

    hub_enter(h);
    if (l->state == LINK_DRAINING && pending == 0)
        end_stream(l);
    if (l->state == LINK_OPEN && l->over_half && pending < drained_below(l)) {
        l->over_half = false;
        if (l->calls->drained)
            l->calls->drained(l->user, l);
    }
    hub_leave(h);
}

static void on_event(struct bufferevent *bev, short what, void *arg)
{
    struct link *l = arg;
    struct hub *h = l->hub;
    struct err_text why;

    hub_enter(h);
    if (what & BEV_EVENT_CONNECTED) {
        if (l->state == LINK_SHAKING && tls_finished(l))
            link_proven(l);
    } else if (l->state == LINK_DRAINING) {
        link_bury(l);
    } else {
        if (what & BEV_EVENT_EOF)
            (void)err_set(&why, ERR_GONE, "it closed the link");
        else
            tls_reason(l, &why);
        link_fail(l, ERR_GONE, "%s", why.text);
    }
    hub_leave(h);
}

void io_attach(struct link *l)
{
    size_t once = l->bulk ? ONCE_BULK : ONCE;

    bufferevent_setcb(l->bev, on_read, on_write, on_event, l);
    /* on_write is called after each write that leaves at most so much. */
    bufferevent_setwatermark(l->bev, EV_WRITE, LINK_KEPT_MAX / 2, 0);
    (void)bufferevent_set_max_single_read(l->bev, once);
    (void)bufferevent_set_max_single_write(l->bev, once);
    (void)bufferevent_enable(l->bev, EV_READ | EV_WRITE);
    set_priority(l);
}

void io_silence(struct link *l)
{
    if (!l->bev)
        return;
    bufferevent_setcb(l->bev, NULL, NULL, NULL, NULL);
    (void)bufferevent_disable(l->bev, EV_READ | EV_WRITE);
}
