#define _GNU_SOURCE
#include "link/link_impl.h"

#include <errno.h>
#include <event2/dns.h>
#include <event2/listener.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/check.h"
#include "base/mem.h"

enum { BACKLOG = 512, LISTEN_AGAIN_MS = 200 };

void hub_enter(struct hub *h)
{
    h->depth++;
}

static void hub_free(struct hub *h)
{
    if (h->dns)
        evdns_base_free(h->dns, 0);
    event_free(h->later);
    event_free(h->listen_again);
    tls_close(h);
    free(h);
}

void hub_leave(struct hub *h)
{
    CHECK(h->depth > 0);
    if (h->depth > 1) {
        h->depth--;
        return;
    }
    while (h->dead) {
        struct link *l = h->dead;

        h->dead = l->next;
        link_free(l);
    }
    h->depth = 0;
    if (h->closing)
        hub_free(h);
}

static struct link *first_doomed(const struct hub *h)
{
    struct link *l = h->links;

    while (l && l->state != LINK_DOOMED)
        l = l->next;
    return l;
}

/* Each call may close and dial others, so the search begins anew. */
static void on_later(evutil_socket_t fd, short what, void *arg)
{
    struct hub *h = arg;
    struct link *l;

    hub_enter(h);
    while ((l = first_doomed(h)) != NULL) {
        bool known = l->known;

        link_bury(l); /* first: link_close from within closed must find nothing to do */
        if (known)
            l->calls->closed(l->user, l, l->end, l->why.text);
    }
    hub_leave(h);
}

static void on_listen_again(evutil_socket_t fd, short what, void *arg)
{
    struct hub *h = arg;

    for (int i = 0; i < h->n_listeners; i++)
        (void)evconnlistener_enable(h->listener[i]);
}

static int or_default(int value, int otherwise)
{
    return value ? value : otherwise;
}

enum err hub_open(const struct hub_opts *opts, struct hub **out, struct err_text *et)
{
    struct hub *h = mem_zalloc(1, sizeof *h);
    sigset_t pipe;
    enum err e;

    h->base = opts->base;
    h->identity = opts->identity;
    h->log = opts->log;
    snprintf(h->name, sizeof h->name, "%s", opts->name[0] ? opts->name : "device");
    h->calls = opts->calls;
    h->user = opts->user;
    h->version = or_default(opts->version, WIRE_VERSION);
    h->version_min = or_default(opts->version_min, WIRE_VERSION_MIN);
    h->greet_timeout_ms = or_default(opts->greet_timeout_ms, GREET_TIMEOUT_MS);
    h->dial_timeout_ms = or_default(opts->dial_timeout_ms, DIAL_TIMEOUT_MS);
    h->later = event_new(h->base, -1, 0, on_later, h);
    h->listen_again = event_new(h->base, -1, 0, on_listen_again, h);
    CHECK(h->later && h->listen_again && h->version >= h->version_min);
    e = tls_open(h, et);
    if (e) {
        hub_free(h);
        return e;
    }
    sigemptyset(&pipe);
    sigaddset(&pipe, SIGPIPE);
    CHECK(pthread_sigmask(SIG_BLOCK, &pipe, NULL) == 0);
    *out = h;
    return ERR_NONE;
}

void hub_close(struct hub *h)
{
    if (!h || h->closing)
        return;
    hub_enter(h);
    for (int i = 0; i < h->n_listeners; i++)
        evconnlistener_free(h->listener[i]);
    h->n_listeners = 0;
    while (h->links)
        link_bury(h->links);
    h->closing = true;
    hub_leave(h);
}

/* ---- accepting ---- */

static void on_accept(struct evconnlistener *listener, evutil_socket_t fd, struct sockaddr *sa,
                      int len, void *arg)
{
    struct hub *h = arg;
    union address from;
    struct link *l;
    char text[ADDRESS_MAX];

    memset(&from, 0, sizeof from);
    memcpy(&from, sa, (size_t)len < sizeof from ? (size_t)len : sizeof from);
    address_text(&from, text);
    if (h->strangers >= STRANGERS_MAX) {
        evutil_closesocket(fd);
        log_say(&h->log, "link", "turned away %s: %d connections are being judged already", text,
                STRANGERS_MAX);
        return;
    }
    hub_enter(h);
    l = link_new(h, LINK_CONNECTING, h->calls, h->user);
    memcpy(l->address, text, sizeof text);
    l->stranger = true;
    h->strangers++;
    link_connected(l, fd);
    hub_leave(h);
}

/* Too many open files, mostly: the connection stays in the queue, and asking again at once would
 * only turn the loop. */
static void on_accept_error(struct evconnlistener *listener, void *arg)
{
    struct hub *h = arg;
    struct timeval wait = {0, LISTEN_AGAIN_MS * 1000};

    log_say(&h->log, "link", "cannot accept connections just now: %s", strerror(errno));
    (void)evconnlistener_disable(listener);
    (void)event_add(h->listen_again, &wait);
}

static int bind_listening(const union address *a)
{
    int one = 1, zero = 0,
        fd = socket(a->sa.sa_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0), saved;

    if (fd < 0)
        return -1;
    (void)setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    if (a->sa.sa_family == AF_INET6)
        (void)setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &zero, sizeof zero);
    if (bind(fd, &a->sa, address_len(a)) == 0 && listen(fd, BACKLOG) == 0)
        return fd;
    saved = errno;
    close(fd);
    errno = saved;
    return -1;
}

static enum err listen_error(const char *address, int port, struct err_text *et)
{
    if (errno == EADDRINUSE)
        return err_set(et, ERR_FILE,
                       "port %d is taken by another program (%s); stop that or listen on another "
                       "port",
                       port, strerror(errno));
    if (errno == EADDRNOTAVAIL)
        return err_set(et, ERR_FILE, "%s is no address of this machine (%s)", address,
                       strerror(errno));
    if (errno == EACCES)
        return err_set(et, ERR_FILE, "port %d is not for ordinary users (%s); take one from 1024",
                       port, strerror(errno));
    return err_system(et, "listen on port %d", port);
}

enum err hub_listen(struct hub *h, const char *address, int port_default, int *port,
                    struct err_text *et)
{
    struct host_port to;
    union address a;
    socklen_t len = sizeof a;
    enum err e = address_split(address, port_default, &to, et);
    const char *host = to.host;
    bool all;
    int fd;

    if (e)
        return e;
    all = !*host || strcmp(host, "*") == 0;
    if (strcmp(host, "localhost") == 0)
        host = "127.0.0.1";
    if (!address_numeric(all ? "::" : host, to.port, &a))
        return err_set(et, ERR_INPUT,
                       "cannot listen on \"%.100s\": write an address of this machine in numbers, "
                       "or * for all",
                       host);
    CHECK(h->n_listeners < LISTENERS_MAX);
    fd = bind_listening(&a);
    if (fd < 0 && all && errno != EADDRINUSE && address_numeric("0.0.0.0", to.port, &a))
        fd = bind_listening(&a); /* a machine without IPv6 */
    if (fd < 0)
        return listen_error(host, to.port, et);
    CHECK(getsockname(fd, &a.sa, &len) == 0);
    *port = address_port(&a);
    h->listener[h->n_listeners] =
        evconnlistener_new(h->base, on_accept, h, LEV_OPT_CLOSE_ON_FREE | LEV_OPT_CLOSE_ON_EXEC, 0,
                           fd); /* 0: it listens already */
    CHECK(h->listener[h->n_listeners]);
    evconnlistener_set_error_cb(h->listener[h->n_listeners], on_accept_error);
    h->n_listeners++;
    return ERR_NONE;
}

int hub_cut(struct hub *h, const struct key_id *key, const char *why)
{
    int n = 0;

    hub_enter(h);
    for (struct link *l = h->links; l; l = l->next)
        if (l->state == LINK_OPEN && !l->local && key_id_equal(&l->peer, key)) {
            link_fail(l, ERR_GONE, "%s", why);
            n++;
        }
    hub_leave(h);
    return n;
}
