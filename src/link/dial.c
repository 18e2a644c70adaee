#include "link/link_impl.h"

#include <errno.h>
#include <event2/dns.h>
#include <openssl/crypto.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/check.h"
#include "base/mem.h"

/* A question under way outlives its link when that is closed: libevent answers even then. */
struct lookup {
    struct link *link; /* NULL: nobody wants to know any more */
    struct evdns_getaddrinfo_request *request;
};

void dial_free(struct link *l)
{
    struct dial *d = l->dial;

    if (!d)
        return;
    if (d->lookup) {
        d->lookup->link = NULL;
        if (d->lookup->request)
            evdns_getaddrinfo_cancel(d->lookup->request);
    }
    if (d->found)
        evutil_freeaddrinfo(d->found);
    if (d->connecting)
        event_free(d->connecting);
    if (d->fd >= 0)
        close(d->fd);
    OPENSSL_cleanse(d, sizeof *d);
    free(d);
    l->dial = NULL;
}

static void try_next(struct link *l);

static void on_connected(evutil_socket_t fd, short what, void *arg)
{
    struct link *l = arg;
    struct dial *d = l->dial;
    struct hub *h = l->hub;
    int trouble = 0;
    socklen_t len = sizeof trouble;

    hub_enter(h);
    if (getsockopt(d->fd, SOL_SOCKET, SO_ERROR, &trouble, &len) != 0)
        trouble = errno;
    event_free(d->connecting);
    d->connecting = NULL;
    if (trouble) {
        close(d->fd);
        d->fd = -1;
        errno = trouble;
        try_next(l);
    } else {
        fd = d->fd;
        d->fd = -1;
        link_connected(l, fd);
    }
    hub_leave(h);
}

/* Begins to connect; false, and errno, when that failed at once. */
static bool connect_to(struct link *l, const union address *a)
{
    struct dial *d = l->dial;

    address_text(a, l->address);
    d->fd = socket(a->sa.sa_family, SOCK_STREAM, 0);
    if (d->fd < 0)
        return false;
    evutil_make_socket_closeonexec(d->fd);
    evutil_make_socket_nonblocking(d->fd);
    if (connect(d->fd, &a->sa, address_len(a)) != 0 && errno != EINPROGRESS && errno != EINTR) {
        int saved = errno;

        close(d->fd);
        d->fd = -1;
        errno = saved;
        return false;
    }
    d->connecting = event_new(l->hub->base, d->fd, EV_WRITE, on_connected, l);
    CHECK(d->connecting && event_add(d->connecting, NULL) == 0);
    return true;
}

/* The next address of a name. errno says what became of the one before. */
static void try_next(struct link *l)
{
    struct dial *d = l->dial;

    while (d->next) {
        struct evutil_addrinfo *ai = d->next;
        union address a;

        d->next = ai->ai_next;
        if (ai->ai_addrlen > sizeof a)
            continue;
        memset(&a, 0, sizeof a);
        memcpy(&a, ai->ai_addr, ai->ai_addrlen);
        if (connect_to(l, &a))
            return;
    }
    link_fail(l, ERR_GONE, "%s cannot be reached: %s", l->address, strerror(errno));
}

static void on_resolved(int result, struct evutil_addrinfo *found, void *arg)
{
    struct lookup *lookup = arg;
    struct link *l = lookup->link;
    struct hub *h;

    free(lookup);
    if (!l) {
        if (found)
            evutil_freeaddrinfo(found);
        return;
    }
    h = l->hub;
    hub_enter(h);
    l->dial->lookup = NULL;
    l->dial->found = l->dial->next = found;
    if (result || !found) {
        link_fail(l, ERR_GONE, "no device \"%.100s\" was found: %s; try its address in numbers",
                  l->dial->to.host, evutil_gai_strerror(result));
    } else {
        link_move(l, LINK_CONNECTING);
        errno = EHOSTUNREACH;
        try_next(l);
    }
    hub_leave(h);
}

/* Phones have no /etc/resolv.conf; names in /etc/hosts work even then. */
static struct evdns_base *dns_of(struct hub *h)
{
    if (!h->dns) {
        h->dns = evdns_base_new(h->base, EVDNS_BASE_DISABLE_WHEN_INACTIVE);
        CHECK(h->dns);
        (void)evdns_base_resolv_conf_parse(
            h->dns, DNS_OPTIONS_ALL | DNS_OPTION_NAMESERVERS_NO_DEFAULT, "/etc/resolv.conf");
    }
    return h->dns;
}

static void resolve(struct link *l)
{
    struct dial *d = l->dial;
    struct evutil_addrinfo hints = {.ai_family = AF_UNSPEC, .ai_socktype = SOCK_STREAM};
    struct lookup *lookup = mem_zalloc(1, sizeof *lookup);
    struct evdns_getaddrinfo_request *request;
    char port[8];

    lookup->link = l;
    d->lookup = lookup;
    evutil_snprintf(port, sizeof port, "%d", d->to.port);
    request = evdns_getaddrinfo(dns_of(l->hub), d->to.host, port, &hints, on_resolved, lookup);
    if (request) /* else it has been answered already, and lookup is gone */
        lookup->request = request;
}

void dial_start(struct link *l)
{
    struct dial *d = l->dial;
    union address a;

    link_set_timer(l, l->hub->dial_timeout_ms);
    if (!d->to.host[0] || d->to.port == 0) {
        link_fail(l, ERR_INPUT, "\"%.100s\" is no address to dial; write HOST:PORT", l->address);
    } else if (address_numeric(d->to.host, d->to.port, &a)) {
        link_move(l, LINK_CONNECTING);
        if (!connect_to(l, &a))
            link_fail(l, ERR_GONE, "%s cannot be reached: %s", l->address, strerror(errno));
    } else {
        resolve(l);
    }
}
