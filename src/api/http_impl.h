/* Shared by http.c (connections, routes), http_who.c (who may ask), http_answer.c (what goes out)
 * and http_tls.c. */
#ifndef LINGUA_API_HTTP_IMPL_H
#define LINGUA_API_HTTP_IMPL_H

#include <event2/buffer.h>
#include <event2/bufferevent.h>
#include <event2/event.h>
#include <event2/http.h>
#include <event2/keyvalq_struct.h>
#include <openssl/sha.h>
#include <openssl/ssl.h>
#include <sys/queue.h>

#include "api/error.h"
#include "api/http.h"
#include "api/session.h"

struct key {
    uint8_t digest[SHA256_DIGEST_LENGTH]; /* of the API key, which is not kept */
};

struct http {
    struct event_base *base;
    struct evhttp *evhttp;
    struct evconnlistener *listener; /* evhttp's */
    struct event *sweep;
    SSL_CTX *tls; /* NULL: plain */
    const struct http_table *table;
    struct http_table table_copy;
    struct key *keys;
    int n_keys, port;
    struct session session;
    char *cors;
    struct log log;
    struct http_stats stats;
    bool paused; /* the listener, at far too many connections */
    TAILQ_HEAD(, conn) conns;
};

/* A connection from accept on. evhttp does not say when it frees one, so we hold its bufferevent
 * and look: one that evhttp has let go has no callbacks left. */
struct conn {
    TAILQ_ENTRY(conn) next;
    struct http *h;
    struct bufferevent *bev;
    bool refused;   /* beyond API_CONNECTIONS_MAX: its request is answered 503 */
    bool answering; /* from a request to the last byte of its answer */
    bool half;      /* the client has ended its sending while its answer was on the way */
    struct call *call;
    struct event *flush; /* kept text may go out; or its reader has not read for too long */
    struct evbuffer_cb_entry *drained;
    /* evhttp's, while ours stand before them. */
    bufferevent_data_cb evhttp_write;
    bufferevent_event_cb evhttp_event;
    void *evhttp_arg;
};

struct call {
    struct conn *conn;
    struct evhttp_request *req;
    const char *route; /* "" = none */
    char *path;        /* decoded */
    struct evkeyvalq query;
    bool has_query;
    int flow;
    bool has_key, has_session;
    int64_t began_us;
    void (*gone)(void *user);
    void *user;

    bool streaming, ending;
    struct evbuffer *kept; /* events that wait for the client to read; NULL until needed */
};

/* http.c */
void call_free(struct call *c); /* of conn, too; not the request, which is evhttp's again */
void web_conn_watch(struct conn *n);
void web_conn_quiet(struct conn *n); /* its answer is on the way: nothing but writing counts */
void web_conn_next(struct conn *n);  /* another request may come */

/* http_who.c */
void who_keys_take(struct http *h, const struct api_opts *opts);
void who_keys_forget(struct http *h);
/* Looks who asks: has_key, has_session, flow. */
void who_look(struct call *c);
/* A page of another site may not use the reader's machine, unless --cors lets it. */
bool who_judge_origin(struct call *c, struct fault *f);
/* route: NULL = there is none. */
bool who_judge_need(struct call *c, const struct http_route *route, struct fault *f);

/* http_answer.c */
void answer_flush(struct conn *n);
void call_answered(const struct call *c, int status);

/* http_tls.c */
MUST_CHECK enum err http_tls_open(const struct api_opts *opts, SSL_CTX **out, struct err_text *et);

#endif
