#define _GNU_SOURCE
#include "device/conn.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

#include "base/mem.h"

enum { READ_CHUNK = 64 << 10, SOCKET_BUFFER = 4 << 20 };

void conn_init(struct conn *c, int fd)
{
    int size = SOCKET_BUFFER, flags = fcntl(fd, F_GETFL);

    memset(c, 0, sizeof *c);
    c->fd = fd;
    c->ended = c->deaf = flags < 0 || fcntl(fd, F_SETFL, flags | O_NONBLOCK) < 0 ||
                         fcntl(fd, F_SETFD, FD_CLOEXEC) < 0;
    c->in_cap = READ_CHUNK;
    c->in = mem_alloc(c->in_cap);
    /* Room for a prompt's chunk, so that a stage can start on the next one at once. The system may
     * give less; then the poll loop sends the rest. */
    (void)setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &size, sizeof size);
}

void conn_fini(struct conn *c)
{
    if (c->fd >= 0)
        close(c->fd);
    free(c->in);
    free(c->out);
    memset(c, 0, sizeof *c);
    c->fd = -1;
    c->ended = c->deaf = true;
}

static void keep(struct conn *c, const void *bytes, size_t len)
{
    if (c->out_start && c->out_len + len > c->out_cap) {
        memmove(c->out, c->out + c->out_start, c->out_len - c->out_start);
        c->out_len -= c->out_start;
        c->out_start = 0;
    }
    if (c->out_len + len > c->out_cap) {
        c->out_cap = 2 * c->out_cap > c->out_len + len ? 2 * c->out_cap : c->out_len + len;
        c->out = mem_realloc(c->out, c->out_cap, 1);
    }
    memcpy(c->out + c->out_len, bytes, len);
    c->out_len += len;
}

/* Bytes the kernel took; 0 when it is full or the other side has gone. */
static size_t push(struct conn *c, struct iovec *iov, int n)
{
    struct msghdr msg = {.msg_iov = iov, .msg_iovlen = (size_t)n};

    for (;;) {
        ssize_t sent = sendmsg(c->fd, &msg, MSG_NOSIGNAL | MSG_DONTWAIT);

        if (sent >= 0)
            return (size_t)sent;
        if (errno == EINTR)
            continue;
        if (errno != EAGAIN && errno != EWOULDBLOCK && errno != ENOBUFS)
            c->deaf = true;
        return 0;
    }
}

void conn_send(struct conn *c, const struct frame_out *f)
{
    struct iovec iov[2 + FRAME_PAYLOADS];
    int n = 0;
    size_t sent = 0;

    c->sent_bytes += f->total;
    if (c->deaf)
        return;
    iov[n++] = (struct iovec){(void *)f->head, sizeof f->head};
    iov[n++] = (struct iovec){(void *)f->header, f->header_len};
    for (int i = 0; i < f->n_payloads; i++)
        iov[n++] = (struct iovec){(void *)f->payload[i], f->payload_len[i]};
    if (!conn_pending(c))
        sent = push(c, iov, n);
    if (c->deaf)
        return;
    for (int i = 0; i < n; i++) {
        size_t skip = sent < iov[i].iov_len ? sent : iov[i].iov_len;

        sent -= skip;
        if (skip < iov[i].iov_len)
            keep(c, (const uint8_t *)iov[i].iov_base + skip, iov[i].iov_len - skip);
    }
}

bool conn_pending(const struct conn *c)
{
    return !c->deaf && c->out_len > c->out_start;
}

void conn_flush(struct conn *c)
{
    while (conn_pending(c)) {
        struct iovec iov = {c->out + c->out_start, c->out_len - c->out_start};
        size_t sent = push(c, &iov, 1);

        if (sent == 0)
            return;
        c->out_start += sent;
    }
    c->out_start = c->out_len = 0;
}

/* How many bytes to ask for: to the end of a large frame and no further, so that its payload need
 * not be moved to where the next frame should stand. */
static size_t wanted(const struct conn *c)
{
    size_t total, have = c->in_len - c->in_start;
    struct err_text ignored;

    if (have >= FRAME_HEAD_BYTES &&
        frame_measure(c->in + c->in_start, have, &total, &ignored) == ERR_NONE && total > have &&
        total - have > READ_CHUNK)
        return total - have < have ? total - have : have > READ_CHUNK ? have : READ_CHUNK;
    return READ_CHUNK;
}

void conn_read(struct conn *c)
{
    size_t want;
    ssize_t got;

    if (c->ended)
        return;
    c->in_start += c->in_held;
    c->in_held = 0;
    want = wanted(c);
    if (c->in_cap - c->in_len < want) {
        c->in_cap = c->in_len + want > 2 * c->in_cap ? c->in_len + want : 2 * c->in_cap;
        c->in = mem_realloc(c->in, c->in_cap, 1);
    }
    do
        got = recv(c->fd, c->in + c->in_len, want, MSG_DONTWAIT);
    while (got < 0 && errno == EINTR);
    if (got > 0)
        c->in_len += (size_t)got;
    else if (got == 0 || (errno != EAGAIN && errno != EWOULDBLOCK))
        c->ended = true;
}

enum err conn_next(struct conn *c, struct frame *f, bool *have, struct err_text *et)
{
    size_t total;
    enum err e;

    *have = false;
    c->in_start += c->in_held;
    c->in_held = 0;
    if (c->in_start == c->in_len)
        c->in_start = c->in_len = 0;
    e = frame_measure(c->in + c->in_start, c->in_len - c->in_start, &total, et);
    if (e)
        return e;
    if (c->in_start && (total == 0 || total > c->in_len - c->in_start || c->in_start % 4)) {
        /* An unfinished frame makes room for its end; tensors are read in place and must be
         * aligned. */
        memmove(c->in, c->in + c->in_start, c->in_len - c->in_start);
        c->in_len -= c->in_start;
        c->in_start = 0;
    }
    if (total == 0 || total > c->in_len - c->in_start)
        return ERR_NONE;
    e = frame_decode(c->in + c->in_start, total, f, et);
    if (e)
        return e;
    c->in_held = total;
    *have = true;
    return ERR_NONE;
}

short conn_events(const struct conn *c)
{
    return (short)(POLLIN | (conn_pending(c) ? POLLOUT : 0));
}
