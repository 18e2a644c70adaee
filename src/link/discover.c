/* One socket on port 5353 serves all interfaces: it joins the group on each, learns from IP_PKTINFO
 * where a packet came in, and says with it where one goes out. The port is shared (SO_REUSEADDR)
 * with whoever else speaks mDNS on this machine; every multicast packet reaches all of them.
 *
 * What a stranger can make us do is bounded: ANSWER_GAP_US passes between two announcements on an
 * interface and a second between two calls of found for one name, HEADS_MAX names are kept, and a
 * wake-up reads PACKETS_MAX packets. Packets are judged by mdns_read before anything else. */
#define _GNU_SOURCE
#include "link/discover.h"

#include <arpa/inet.h>
#include <errno.h>
#include <event2/event.h>
#include <event2/util.h>
#include <ifaddrs.h>
#include <net/if.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/check.h"
#include "base/mem.h"
#include "base/sys.h"
#include "link/mdns.h"

enum {
    IFACES_MAX = 16,
    HEADS_MAX = 64,
    PACKETS_MAX = 32,
    ANNOUNCEMENTS = 3, /* of themselves, at 0, 1 and 3 s; later ones when asked */
    RENAMES_MAX = 99,
    TTL_MAX_S = 4500,
    SECOND_US = 1000000,
    SCAN_US = 5 * SECOND_US, /* interfaces come and go */
    LISTEN_US = SECOND_US / 2,
    ANSWER_GAP_US = SECOND_US / 4, /* short enough to be heard by who listens for a namesake */
    QUERY_MAX_US = 60 * SECOND_US, /* half of what an announcement is good for */
};

struct iface {
    int index;
    uint32_t address;
    int64_t sent_us;     /* the last announcement, 0: never */
    int64_t announce_us; /* the next, 0: none is due */
    int announced;
    int64_t query_us, query_gap_us; /* the next query; gap 0: none */
    bool listening;                 /* the query is for heads of our own name */
};

struct known {
    struct mdns_head head;
    int iface;
    int64_t expires_us, told_us;
};

struct discover {
    struct event_base *base;
    struct event *readable, *timer;
    int fd; /* -1 while there is no way to have one */
    bool announces, complained;
    struct log log;
    struct mdns_head self; /* address is filled in per interface */
    char name[MDNS_NAME_MAX];
    int renames;
    int64_t scan_us;
    struct iface ifaces[IFACES_MAX];
    int n_ifaces;
    void (*found)(void *user, const struct found *f);
    void *user;
    struct known known[HEADS_MAX];
    int n_known;
    bool in_callback, closed; /* discover_close may be called by found */
    uint8_t packet[MDNS_PACKET_MAX];
};

static void wake_later(struct discover *d);

static struct iface *iface_find(struct discover *d, int index)
{
    for (int i = 0; i < d->n_ifaces; i++)
        if (d->ifaces[i].index == index)
            return &d->ifaces[i];
    return NULL;
}

static bool is_ours(const struct discover *d, uint32_t address)
{
    for (int i = 0; i < d->n_ifaces; i++)
        if (d->ifaces[i].address == address)
            return true;
    return false;
}

/* A packet that cannot be sent is a packet lost: mDNS lives with those. */
static void send_packet(struct discover *d, const struct iface *ifc, uint8_t *bytes, size_t len)
{
    struct sockaddr_in to = {
        .sin_family = AF_INET, .sin_port = htons(MDNS_PORT), .sin_addr.s_addr = htonl(MDNS_GROUP)};
    struct in_pktinfo info = {.ipi_ifindex = ifc->index,
                              .ipi_spec_dst.s_addr = htonl(ifc->address)};
    union {
        struct cmsghdr head; /* for alignment */
        char bytes[CMSG_SPACE(sizeof info)];
    } control = {.bytes = {0}};
    struct iovec iov = {bytes, len};
    struct msghdr msg = {.msg_name = &to,
                         .msg_namelen = sizeof to,
                         .msg_iov = &iov,
                         .msg_iovlen = 1,
                         .msg_control = &control,
                         .msg_controllen = sizeof control.bytes};
    struct cmsghdr *c = CMSG_FIRSTHDR(&msg);

    c->cmsg_level = IPPROTO_IP;
    c->cmsg_type = IP_PKTINFO;
    c->cmsg_len = CMSG_LEN(sizeof info);
    memcpy(CMSG_DATA(c), &info, sizeof info);
    (void)sendmsg(d->fd, &msg, MSG_DONTWAIT | MSG_NOSIGNAL);
}

static void send_query(struct discover *d, const struct iface *ifc)
{
    uint8_t bytes[MDNS_SENT_MAX];

    send_packet(d, ifc, bytes, mdns_write_query(bytes));
}

static void send_head(struct discover *d, const struct iface *ifc, uint32_t ttl_s)
{
    uint8_t bytes[MDNS_SENT_MAX];
    struct mdns_head head = d->self;

    head.address = ifc->address;
    head.ttl_s = ttl_s;
    send_packet(d, ifc, bytes, mdns_write_head(bytes, &head));
}

/* The group's membership on one interface; it ends by itself with the interface. */
static bool membership(struct discover *d, int index, int option)
{
    struct ip_mreqn m = {.imr_multiaddr.s_addr = htonl(MDNS_GROUP), .imr_ifindex = index};

    return setsockopt(d->fd, IPPROTO_IP, option, &m, sizeof m) == 0 || errno == EADDRINUSE;
}

static void begin_announcing(struct iface *ifc, int64_t now_us)
{
    ifc->announced = 0;
    ifc->listening = true;
    ifc->query_us = now_us;
    ifc->query_gap_us = LISTEN_US / 2;
    ifc->announce_us = now_us + LISTEN_US;
}

static void iface_add(struct discover *d, int index, uint32_t address, int64_t now_us)
{
    struct iface *ifc = iface_find(d, index);
    bool is_new = !ifc;

    if (is_new) {
        if (d->n_ifaces == IFACES_MAX || !membership(d, index, IP_ADD_MEMBERSHIP))
            return;
        ifc = &d->ifaces[d->n_ifaces++];
        *ifc = (struct iface){.index = index};
    }
    if (ifc->address == address)
        return;
    ifc->address = address;
    if (d->announces) {
        begin_announcing(ifc, now_us);
    } else if (is_new) {
        ifc->query_us = now_us;
        ifc->query_gap_us = SECOND_US;
    }
}

/* Tunnels are left out: what is at their other end is not the local network. */
static bool iface_usable(const struct ifaddrs *a, bool loopback)
{
    unsigned need = IFF_UP | IFF_RUNNING | (loopback ? IFF_LOOPBACK : IFF_MULTICAST);

    return a->ifa_addr && a->ifa_addr->sa_family == AF_INET && (a->ifa_flags & need) == need &&
           !(a->ifa_flags & IFF_POINTOPOINT) && !!(a->ifa_flags & IFF_LOOPBACK) == loopback;
}

/* All interfaces of the machine; the loopback serves where there is no other. */
static void scan(struct discover *d, int64_t now_us)
{
    struct ifaddrs *all;
    bool seen[IFACES_MAX] = {false};
    bool loopback = true;

    if (d->fd < 0 || getifaddrs(&all) < 0)
        return;
    for (const struct ifaddrs *a = all; a; a = a->ifa_next)
        loopback = loopback && !iface_usable(a, false);
    for (const struct ifaddrs *a = all; a; a = a->ifa_next) {
        struct sockaddr_in address;
        struct iface *ifc;
        int index;

        if (!iface_usable(a, loopback) || (index = (int)if_nametoindex(a->ifa_name)) == 0)
            continue;
        ifc = iface_find(d, index);
        if (ifc && seen[ifc - d->ifaces])
            continue; /* its first address is enough */
        memcpy(&address, a->ifa_addr, sizeof address);
        iface_add(d, index, ntohl(address.sin_addr.s_addr), now_us);
        ifc = iface_find(d, index);
        if (ifc)
            seen[ifc - d->ifaces] = true;
    }
    freeifaddrs(all);
    for (int i = d->n_ifaces - 1; i >= 0; i--) {
        if (seen[i])
            continue;
        (void)membership(d, d->ifaces[i].index, IP_DROP_MEMBERSHIP);
        d->ifaces[i] = d->ifaces[--d->n_ifaces];
    }
}

/* Another head has our name. Who came later takes another; who hears of the other only now compares
 * places, as the other does, so that one of the two moves. */
static void rename_self(struct discover *d, int64_t now_us)
{
    char tail[16];
    size_t keep;

    if (d->renames == RENAMES_MAX)
        return;
    d->renames++;
    keep = MDNS_NAME_MAX - 1 - (size_t)snprintf(tail, sizeof tail, " (%d)", d->renames + 1);
    keep = strnlen(d->name, keep);
    while (keep && (d->name[keep] & 0xc0) == 0x80)
        keep--; /* no half of a character */
    snprintf(d->self.name, sizeof d->self.name, "%.*s%s", (int)keep, d->name, tail);
    log_say(&d->log, "discover", "another head here is called %s; this one is announced as %s",
            d->name, d->self.name);
    for (int i = 0; i < d->n_ifaces; i++)
        begin_announcing(&d->ifaces[i], now_us);
}

static void heard_namesake(struct discover *d, const struct iface *ifc,
                           const struct mdns_head *head, int64_t now_us)
{
    uint64_t ours = (uint64_t)ifc->address << 16 | d->self.port;
    uint64_t theirs = (uint64_t)head->address << 16 | head->port;

    if (head->ttl_s == 0 || strcmp(head->name, d->self.name) != 0)
        return;
    /* Our own words, come back on this interface or over another. */
    if (head->port == d->self.port && is_ours(d, head->address))
        return;
    if (ifc->listening || ours < theirs)
        rename_self(d, now_us);
}

static void tell(struct discover *d, struct known *k, int64_t now_us)
{
    char address[32];
    struct found f = {k->head.name, address};
    uint32_t ip = k->head.address;

    snprintf(address, sizeof address, "%u.%u.%u.%u:%u", ip >> 24, ip >> 16 & 255, ip >> 8 & 255,
             ip & 255, k->head.port);
    k->told_us = now_us;
    d->in_callback = true;
    d->found(d->user, &f);
    d->in_callback = false;
}

/* The entry of that name, or a free one, or NULL. */
static struct known *known_find(struct discover *d, const char *name, int64_t now_us)
{
    struct known *free_one = NULL;

    for (int i = 0; i < d->n_known; i++) {
        struct known *k = &d->known[i];

        if (strcmp(k->head.name, name) == 0)
            return k;
        if (k->expires_us <= now_us && k->told_us + SECOND_US <= now_us)
            free_one = k;
    }
    if (!free_one && d->n_known < HEADS_MAX)
        free_one = &d->known[d->n_known++];
    if (free_one)
        *free_one = (struct known){.told_us = -SECOND_US};
    return free_one;
}

static void heard_head(struct discover *d, const struct iface *ifc, const struct mdns_head *head,
                       int64_t now_us)
{
    struct known *k = known_find(d, head->name, now_us);
    uint32_t ttl_s = head->ttl_s < TTL_MAX_S ? head->ttl_s : TTL_MAX_S;
    bool fresh, same;

    if (!k)
        return;
    fresh = k->expires_us > now_us;
    same = k->head.address == head->address && k->head.port == head->port;
    if (ttl_s == 0) {
        if (same)
            k->expires_us = now_us;
        return;
    }
    /* A head on two networks of ours is one head; the way we know is good while it is kept up. */
    if (fresh && !same && k->iface != ifc->index)
        return;
    if ((!fresh || !same) && now_us - k->told_us < SECOND_US)
        return;
    k->head = *head;
    k->iface = ifc->index;
    k->expires_us = now_us + (int64_t)ttl_s * SECOND_US;
    if (!fresh || !same)
        tell(d, k, now_us);
}

/* Answers of several heads shall not fall on each other, hence the random 20 to 120 ms. */
static void answer_soon(struct iface *ifc, int64_t now_us)
{
    uint16_t random;
    int64_t at;

    evutil_secure_rng_get_bytes(&random, sizeof random);
    at = now_us + 20000 + random % 100000;
    if (ifc->sent_us && at < ifc->sent_us + ANSWER_GAP_US)
        at = ifc->sent_us + ANSWER_GAP_US;
    if (!ifc->announce_us || at < ifc->announce_us)
        ifc->announce_us = at;
}

static void heard(struct discover *d, struct iface *ifc, size_t len)
{
    int64_t now_us = clock_us();
    struct mdns_heard h;

    if (mdns_read(d->packet, len, d->announces ? d->self.name : NULL, &h))
        return;
    if (d->announces && h.asked && !h.suppress && !ifc->listening)
        answer_soon(ifc, now_us);
    for (int i = 0; i < h.n && !d->closed; i++) {
        if (d->announces)
            heard_namesake(d, ifc, &h.heads[i], now_us);
        else
            heard_head(d, ifc, &h.heads[i], now_us);
    }
}

/* One packet. false when there is none left. */
static bool receive(struct discover *d)
{
    struct sockaddr_in from = {0};
    struct in_pktinfo info = {0};
    union {
        struct cmsghdr head;
        char bytes[128];
    } control;
    struct iovec iov = {d->packet, sizeof d->packet};
    struct msghdr msg = {.msg_name = &from,
                         .msg_namelen = sizeof from,
                         .msg_iov = &iov,
                         .msg_iovlen = 1,
                         .msg_control = &control,
                         .msg_controllen = sizeof control.bytes};
    ssize_t n = recvmsg(d->fd, &msg, MSG_DONTWAIT);
    struct iface *ifc;

    if (n < 0)
        return errno == EINTR;
    for (struct cmsghdr *c = CMSG_FIRSTHDR(&msg); c; c = CMSG_NXTHDR(&msg, c))
        if (c->cmsg_level == IPPROTO_IP && c->cmsg_type == IP_PKTINFO)
            memcpy(&info, CMSG_DATA(c), sizeof info);
    /* What was sent to us alone may come from anywhere; the group's packets pass no router. */
    if ((msg.msg_flags & MSG_TRUNC) || info.ipi_addr.s_addr != htonl(MDNS_GROUP) ||
        ntohs(from.sin_port) != MDNS_PORT)
        return true;
    ifc = iface_find(d, (int)info.ipi_ifindex);
    if (ifc)
        heard(d, ifc, (size_t)n);
    return true;
}

static void discover_free(struct discover *d)
{
    if (d->readable)
        event_free(d->readable);
    if (d->timer)
        event_free(d->timer);
    if (d->fd >= 0)
        close(d->fd);
    free(d);
}

static void on_readable(evutil_socket_t fd, short what, void *user)
{
    struct discover *d = user;

    for (int i = 0; i < PACKETS_MAX && !d->closed && receive(d); i++)
        ;
    if (d->closed)
        discover_free(d);
    else
        wake_later(d);
}

static int socket_open(void)
{
    const int on = 1, off = 0, ttl = 255;
    struct sockaddr_in any = {.sin_family = AF_INET, .sin_port = htons(MDNS_PORT)};
    int fd = socket(AF_INET, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);

    if (fd < 0)
        return -1;
    if (setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on) < 0 ||
        setsockopt(fd, IPPROTO_IP, IP_PKTINFO, &on, sizeof on) < 0 ||
        setsockopt(fd, IPPROTO_IP, IP_MULTICAST_ALL, &off, sizeof off) < 0 ||
        setsockopt(fd, IPPROTO_IP, IP_MULTICAST_TTL, &ttl, sizeof ttl) < 0 ||
        bind(fd, (struct sockaddr *)&any, sizeof any) < 0) {
        int e = errno;

        close(fd);
        errno = e;
        return -1;
    }
    return fd;
}

/* Without a socket we stay silent and try again at the next scan. */
static void socket_want(struct discover *d)
{
    if (d->fd >= 0)
        return;
    d->fd = socket_open();
    if (d->fd >= 0) {
        d->readable = event_new(d->base, d->fd, EV_READ | EV_PERSIST, on_readable, d);
        CHECK(d->readable && event_add(d->readable, NULL) == 0);
    } else if (!d->complained) {
        d->complained = true;
        log_say(&d->log, "discover",
                "other devices will not find this one by themselves (port %d: %s); give them its "
                "address",
                MDNS_PORT, strerror(errno));
    }
}

static void iface_due(struct discover *d, struct iface *ifc, int64_t now_us)
{
    if (ifc->query_gap_us && ifc->query_us <= now_us) {
        send_query(d, ifc);
        ifc->query_us = now_us + ifc->query_gap_us;
        ifc->query_gap_us *= 2;
        if (ifc->query_gap_us > QUERY_MAX_US)
            ifc->query_gap_us = QUERY_MAX_US;
    }
    if (ifc->announce_us && ifc->announce_us <= now_us) {
        ifc->listening = false;
        ifc->query_gap_us = 0;
        send_head(d, ifc, MDNS_TTL_S);
        ifc->sent_us = now_us;
        ifc->announced++;
        ifc->announce_us =
            ifc->announced < ANNOUNCEMENTS ? now_us + ifc->announced * (int64_t)SECOND_US : 0;
    }
}

static void on_timer(evutil_socket_t fd, short what, void *user)
{
    struct discover *d = user;
    int64_t now_us = clock_us();

    if (d->scan_us <= now_us) {
        socket_want(d);
        scan(d, now_us);
        d->scan_us = now_us + SCAN_US;
    }
    for (int i = 0; i < d->n_ifaces; i++)
        iface_due(d, &d->ifaces[i], now_us);
    wake_later(d);
}

/* Sets the one timer to what comes next. */
static void wake_later(struct discover *d)
{
    int64_t at = d->scan_us, now_us = clock_us();
    struct timeval wait = {0, 0};

    for (int i = 0; i < d->n_ifaces; i++) {
        const struct iface *ifc = &d->ifaces[i];

        if (ifc->query_gap_us && ifc->query_us < at)
            at = ifc->query_us;
        if (ifc->announce_us && ifc->announce_us < at)
            at = ifc->announce_us;
    }
    if (at > now_us) {
        wait.tv_sec = (at - now_us) / SECOND_US;
        wait.tv_usec = (at - now_us) % SECOND_US;
    }
    CHECK(event_add(d->timer, &wait) == 0);
}

static struct discover *discover_new(struct event_base *base)
{
    struct discover *d = mem_zalloc(1, sizeof *d);

    d->base = base;
    d->fd = -1;
    d->timer = evtimer_new(base, on_timer, d);
    CHECK(d->timer);
    return d;
}

enum err discover_announce(struct event_base *base, const char *name, int port,
                           const struct log *log, struct discover **out, struct err_text *et)
{
    struct discover *d;

    *out = NULL;
    if (!mdns_name_fits(name))
        return err_set(
            et, ERR_INPUT,
            "a device's name has 1 to %d bytes of plain text, without control characters",
            MDNS_NAME_MAX - 1);
    if (port < 1 || port > 65535)
        return err_set(et, ERR_INPUT, "port %d does not exist", port);
    d = discover_new(base);
    d->announces = true;
    if (log)
        d->log = *log;
    snprintf(d->name, sizeof d->name, "%s", name);
    snprintf(d->self.name, sizeof d->self.name, "%s", name);
    d->self.port = (uint16_t)port;
    wake_later(d);
    *out = d;
    return ERR_NONE;
}

enum err discover_browse(struct event_base *base, void (*found)(void *user, const struct found *f),
                         void *user, struct discover **out, struct err_text *et)
{
    struct discover *d = discover_new(base);

    d->found = found;
    d->user = user;
    wake_later(d);
    *out = d;
    return ERR_NONE;
}

void discover_close(struct discover *d)
{
    if (!d)
        return;
    for (int i = 0; i < d->n_ifaces; i++)
        if (d->ifaces[i].sent_us)
            send_head(d, &d->ifaces[i], 0);
    d->closed = true;
    if (!d->in_callback)
        discover_free(d);
}
