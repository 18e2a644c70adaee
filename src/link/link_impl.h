/* What the files of src/link that make up links share: hub.c (the hub and its listeners), dial.c
 * (up to a connected socket), link_tls.c (up to a proven key), link.c (states, greeting, judging)
 * and link_io.c (frames in and out). Internal; the thread of the hub's event base.
 *
 * Every function that libevent calls stands between hub_enter and hub_leave. Links that die are put
 * on the hub's list of the dead, and the outermost hub_leave frees them. */
#ifndef LINGUA_LINK_LINK_IMPL_H
#define LINGUA_LINK_LINK_IMPL_H

#include <event2/bufferevent.h>
#include <event2/event.h>
#include <event2/util.h>
#include <openssl/ssl.h>
#include <sys/uio.h>

#include "link/address.h"
#include "link/link.h"

enum {
    SECURITY_MAX = 96,
    LISTENERS_MAX = 8,
    LINGER_MS = 2000, /* for a last word to arrive; again as long as it makes progress */
};

struct evdns_base;
struct evdns_getaddrinfo_request;
struct evconnlistener;

enum link_state {
    LINK_RESOLVING,  /* dialled: a name is being looked up */
    LINK_CONNECTING, /* dialled: TCP */
    LINK_SHAKING,    /* TLS */
    LINK_GREETING,   /* keys are proven; GREET, or its answer, is due */
    LINK_JUDGING,    /* accepted: `greeted` was called, the judge has not answered */
    LINK_OPEN,
    LINK_DRAINING, /* our last word is on its way; nobody outside holds the link */
    LINK_DOOMED,   /* over; `closed` is about to be called */
    LINK_DEAD,     /* over; waits for hub_leave */
    LINK_STATES
};

/* What a dialled link needs until it is connected or has greeted. */
struct dial {
    struct host_port to;
    bool has_key, has_token;
    struct key_id key;
    struct token token; /* wiped with the rest */
    struct wire_greet greet;
    struct lookup *lookup;
    struct evutil_addrinfo *found, *next; /* of a name: all, and those not tried yet */
    struct event *connecting;
    evutil_socket_t fd; /* while connecting; -1 else */
};

struct link {
    struct hub *hub;
    struct link *prev, *next; /* in hub->links, or hub->dead by next alone */
    enum link_state state;
    bool local, dialled;
    bool stranger; /* counted in hub->strangers */
    bool known;    /* someone outside holds the link: closed must be called */
    bool bulk, bulk_done, over_half;
    uint64_t received_seen; /* when link_moved was asked last */
    size_t pending_seen;
    struct dial *dial; /* NULL on accepted links, and once open */
    struct bufferevent *bev;
    SSL *ssl; /* bev's; NULL without TLS */
    X509 *certificate;
    struct key_id peer;
    char address[ADDRESS_MAX], security[SECURITY_MAX];
    char name[WIRE_NAME_MAX]; /* what it called itself; accepted links */
    int version;
    enum wire_trust trust;
    const struct link_calls *calls;
    void *user;
    struct event *timer;
    size_t pending_before; /* draining: when the timer last looked */
    size_t largest;        /* frame that was handed over since nothing waited */
    uint64_t handed, received;
    /* A large frame that is still arriving: in_len of its in_total bytes are there. */
    uint8_t *in;
    size_t in_cap, in_len, in_total;
    enum err end;
    struct err_text why;
};

struct hub {
    struct event_base *base;
    const struct identity *identity;
    struct log log;
    char name[WIRE_NAME_MAX];
    const struct link_calls *calls;
    void *user;
    int version, version_min, greet_timeout_ms, dial_timeout_ms;
    SSL_CTX *tls;
    struct evdns_base *dns; /* made when the first name is dialled */
    struct event *later;    /* says closed of the doomed */
    struct event *listen_again;
    struct evconnlistener *listener[LISTENERS_MAX];
    int n_listeners;
    struct link *links, *dead;
    int strangers, depth;
    bool closing;
};

/* hub.c */
void hub_enter(struct hub *h);
void hub_leave(struct hub *h);

/* link.c */
struct link *link_new(struct hub *h, enum link_state state, const struct link_calls *calls,
                      void *user);
void link_move(struct link *l, enum link_state to);
/* The link is over for a reason from outside. closed is called later, or a log line is said now. */
void link_fail(struct link *l, enum err e, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));
void link_bury(struct link *l); /* from any state, without closed */
void link_free(struct link *l); /* hub_leave only */
void link_set_timer(struct link *l, int timeout_ms);
/* The socket stands; TLS begins. fd is taken. */
void link_connected(struct link *l, evutil_socket_t fd);
/* TLS has proven the far end's key. */
void link_proven(struct link *l);
void link_frame(struct link *l, const struct frame *f);

/* dial.c */
void dial_start(struct link *l);
void dial_free(struct link *l);

/* link_tls.c */
MUST_CHECK enum err tls_open(struct hub *h, struct err_text *et);
void tls_close(struct hub *h);
/* Gives the link its bufferevent on a connected socket. */
void tls_start(struct link *l, evutil_socket_t fd);
/* The handshake's end. False when the far end has shown nothing we can use; the link has failed. */
bool tls_finished(struct link *l);
/* Why the link broke, for people. */
void tls_reason(struct link *l, struct err_text *et);
/* Bench build: the far end's certificate has come in by the stream. */
bool tls_read_plain(struct link *l);
void tls_say_goodbye(struct link *l);

/* link_io.c */
void io_attach(struct link *l); /* callbacks and limits of l->bev */
void io_read(struct link *l);
void io_send(struct link *l, const struct iovec *piece, int n, size_t total);
void io_send_frame(struct link *l, const struct frame_out *f);
void io_discard(struct link *l);
void io_silence(struct link *l);

#endif
