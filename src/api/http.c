/* evhttp's ways that this file works around (libevent 2.1.12):
 *   - While a request waits for its answer, evhttp does not read, so it would not hear of a client
 *     that goes; and were bytes to come all the same (pipelining), its reader would end the program.
 *     So our own callbacks stand before evhttp's meanwhile (web_conn_watch): what comes stays in the
 *     buffer, up to PIPELINED_MAX, and an end is passed on.
 *   - Half-close counts as close: a client that ends its sending while it waits is gone. Only an
 *     answer that is already on its way is still delivered (web_conn_quiet).
 *   - Its own refusals (a body past API_BODY_MAX, headers past API_HEADERS_MAX, what is no HTTP) are
 *     pages of HTML with the right status; there is no way to change that.
 *   - It does not say when it frees a connection: see struct conn. */
#include "api/http.h"

#include <arpa/inet.h>
#include <errno.h>
#include <event2/bufferevent_ssl.h>
#include <event2/listener.h>
#include <openssl/rand.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "api/error.h"
#include "api/http_impl.h"
#include "base/check.h"
#include "base/mem.h"
#include "base/sys.h"

enum {
    BACKLOG = 128,
    PIPELINED_MAX = 64 << 10,
    REFUSED_MAX =
        64, /* connections past API_CONNECTIONS_MAX that are told so; then nobody gets in */
    PORT_TEXT_MAX = 8,
};

/* ---- connections ---- */

static bool conn_is_dead(const struct conn *n)
{
    bufferevent_event_cb event;

    bufferevent_getcb(n->bev, NULL, NULL, &event, NULL);
    return !event;
}

static void conn_free(struct conn *n)
{
    TAILQ_REMOVE(&n->h->conns, n, next);
    n->h->stats.n_connections--;
    evbuffer_remove_cb_entry(bufferevent_get_output(n->bev), n->drained);
    event_free(n->flush);
    bufferevent_decref(n->bev);
    free(n);
}

static void conns_sweep(struct http *h)
{
    struct conn *after;

    for (struct conn *n = TAILQ_FIRST(&h->conns); n; n = after) {
        after = TAILQ_NEXT(n, next);
        if (!n->call && conn_is_dead(n))
            conn_free(n);
    }
    if (h->paused && h->stats.n_connections < API_CONNECTIONS_MAX) {
        h->paused = false;
        (void)evconnlistener_enable(h->listener);
    }
    if (!TAILQ_EMPTY(&h->conns) && !evtimer_pending(h->sweep, NULL))
        event_add(h->sweep, &(struct timeval){1, 0});
}

static void on_sweep(evutil_socket_t fd, short what, void *user)
{
    (void)fd;
    (void)what;
    conns_sweep(user);
}

static void on_flush(evutil_socket_t fd, short what, void *user)
{
    (void)fd;
    (void)what;
    answer_flush(user);
}

static void on_drained(struct evbuffer *out, const struct evbuffer_cb_info *info, void *user)
{
    struct conn *n = user;

    /* Not from within the buffer's own doings. */
    if (info->n_deleted && n->call && n->call->kept &&
        evbuffer_get_length(out) <= API_UNREAD_MAX / 2)
        event_add(n->flush, &(struct timeval){0, 0});
}

static struct bufferevent *bev_new(struct http *h)
{
    struct bufferevent *bev;

    if (!h->tls)
        return bufferevent_socket_new(h->base, -1, BEV_OPT_CLOSE_ON_FREE);
    bev = bufferevent_openssl_socket_new(h->base, -1, SSL_new(h->tls), BUFFEREVENT_SSL_ACCEPTING,
                                         BEV_OPT_CLOSE_ON_FREE);
    if (bev)
        bufferevent_openssl_set_allow_dirty_shutdown(bev, 1);
    return bev;
}

void web_conn_next(struct conn *n)
{
    const struct timeval idle = {API_IDLE_S, 0};

    n->answering = false;
    bufferevent_set_timeouts(n->bev, &idle, &idle);
    /* evhttp takes a body out of this buffer only when it is whole. */
    bufferevent_setwatermark(n->bev, EV_READ, 0, API_BODY_MAX + 2 * API_HEADERS_MAX);
}

/* evhttp asks for the bufferevent of a connection it has accepted. */
static struct bufferevent *on_connection(struct event_base *base, void *user)
{
    struct http *h = user;
    struct conn *n = mem_zalloc(1, sizeof *n);

    (void)base;
    conns_sweep(h);
    n->h = h;
    n->bev = bev_new(h);
    CHECK(n->bev);
    bufferevent_incref(n->bev);
    n->flush = evtimer_new(h->base, on_flush, n);
    n->drained = evbuffer_add_cb(bufferevent_get_output(n->bev), on_drained, n);
    CHECK(n->flush && n->drained);
    TAILQ_INSERT_TAIL(&h->conns, n, next);
    h->stats.connections++;
    n->refused = ++h->stats.n_connections > API_CONNECTIONS_MAX;
    if (h->stats.n_connections >= API_CONNECTIONS_MAX + REFUSED_MAX) {
        h->paused = true;
        (void)evconnlistener_disable(h->listener);
    }
    web_conn_next(n);
    if (!evtimer_pending(h->sweep, NULL))
        event_add(h->sweep, &(struct timeval){1, 0});
    return n->bev;
}

static void on_write(struct bufferevent *bev, void *user)
{
    struct conn *n = user;

    n->evhttp_write(bev, n->evhttp_arg);
}

static void on_event(struct bufferevent *bev, short what, void *user)
{
    struct conn *n = user;

    if (!n->call && n->answering && (what & BEV_EVENT_EOF) && (what & BEV_EVENT_READING)) {
        n->half = true;
        return;
    }
    n->evhttp_event(bev, what, n->evhttp_arg);
}

static void stand_before(struct conn *n)
{
    bufferevent_data_cb read, write;
    bufferevent_event_cb event;
    void *arg;

    bufferevent_getcb(n->bev, &read, &write, &event, &arg);
    if (!event || event == on_event)
        return;
    n->evhttp_write = write;
    n->evhttp_event = event;
    n->evhttp_arg = arg;
    bufferevent_setcb(n->bev, NULL, write ? on_write : NULL, on_event, n);
}

void web_conn_watch(struct conn *n)
{
    const struct timeval unread = {API_UNREAD_S, 0};

    stand_before(n);
    bufferevent_set_timeouts(n->bev, NULL, &unread); /* an answer may take its time */
    bufferevent_setwatermark(n->bev, EV_READ, 0, PIPELINED_MAX);
    bufferevent_enable(n->bev, EV_READ);
}

void web_conn_quiet(struct conn *n)
{
    if (n->answering)
        stand_before(n);
}

/* ---- calls ---- */

void call_free(struct call *c)
{
    struct conn *n = c->conn;

    n->call = NULL;
    n->h->stats.n_calls--;
    event_del(n->flush);
    if (c->kept)
        evbuffer_free(c->kept);
    if (c->has_query)
        evhttp_clear_headers(&c->query);
    free(c->path);
    free(c);
}

/* evhttp has lost, or is about to free, the connection. */
static void on_closed(struct evhttp_connection *evcon, void *user)
{
    struct conn *n = user;
    struct call *c = n->call;
    struct evhttp_request *req;
    void (*gone)(void *user);

    (void)evcon;
    if (!c)
        return;
    req = c->req;
    gone = c->gone;
    user = c->user;
    call_answered(c, c->ending ? 200 : 499);
    call_free(c);
    /* One that evhttp has parted from its connection is left to us. */
    if (!evhttp_request_get_connection(req))
        evhttp_request_free(req);
    if (gone)
        gone(user);
}

const char *call_path(const struct call *c)
{
    return c->path;
}

const char *call_query(const struct call *c, const char *name)
{
    return c->has_query ? evhttp_find_header(&c->query, name) : NULL;
}

const char *call_body(const struct call *c, size_t *n)
{
    struct evbuffer *in = evhttp_request_get_input_buffer(c->req);
    const char *s;

    *n = evbuffer_get_length(in);
    s = *n ? (const char *)evbuffer_pullup(in, -1) : "";
    CHECK(s);
    return s;
}

const char *call_header(const struct call *c, const char *name)
{
    return evhttp_find_header(evhttp_request_get_input_headers(c->req), name);
}

bool call_is_head(const struct call *c)
{
    return evhttp_request_get_command(c->req) == EVHTTP_REQ_HEAD;
}

bool call_is_post(const struct call *c)
{
    return evhttp_request_get_command(c->req) == EVHTTP_REQ_POST;
}

void call_on_gone(struct call *c, void (*gone)(void *user), void *user)
{
    c->gone = gone;
    c->user = user;
}

void call_id(const char *prefix, char buf[CALL_ID_MAX])
{
    static const char letters[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789";
    uint8_t random[24];
    size_t n = strlen(prefix);

    CHECK(n + sizeof random < CALL_ID_MAX && RAND_bytes(random, sizeof random) == 1);
    memcpy(buf, prefix, n);
    for (size_t i = 0; i < sizeof random; i++)
        buf[n + i] = letters[random[i] % (sizeof letters - 1)];
    buf[n + sizeof random] = '\0';
}

/* ---- routes ---- */

static const struct http_route *route_find(const struct http *h, const char *path)
{
    for (int i = 0; i < h->table->n_routes; i++) {
        const struct http_route *r = &h->table->routes[i];
        size_t n = strlen(r->path);

        if (strcmp(r->path, path) == 0 ||
            (n > 1 && r->path[n - 1] == '/' && strncmp(r->path, path, n) == 0))
            return r;
    }
    return NULL;
}

static int method_bit(const struct call *c)
{
    switch (evhttp_request_get_command(c->req)) {
    case EVHTTP_REQ_GET:
    case EVHTTP_REQ_HEAD:
        return HTTP_GET;
    case EVHTTP_REQ_POST:
        return HTTP_POST;
    default:
        return 0;
    }
}

static bool route_judge(struct call *c, const struct http_route *route, struct fault *f)
{
    static const char *const allowed[] = {"OPTIONS", "GET, HEAD, OPTIONS", "POST, OPTIONS",
                                          "GET, HEAD, POST, OPTIONS"};

    *f = (struct fault){.type = "invalid_request_error"};
    if (!route) {
        f->status = 404;
        f->code = "unknown_url";
        snprintf(f->message, sizeof f->message,
                 "there is nothing at this path; the API's routes begin at /v1/");
        return false;
    }
    if (route->methods & method_bit(c))
        return true;
    f->status = 405;
    f->code = "method_not_allowed";
    snprintf(f->message, sizeof f->message, "%s takes %s", route->path,
             route->methods == HTTP_GET    ? "GET"
             : route->methods == HTTP_POST ? "POST"
                                           : "GET and POST");
    http_header(c, "Allow", allowed[route->methods & 3]);
    return false;
}

/* What a browser asks before it sends; without --cors the answer simply allows nothing. */
static void preflight(struct call *c)
{
    http_header(c, "Allow", "GET, HEAD, POST, OPTIONS");
    http_header(c, "Access-Control-Allow-Methods", "GET, POST, OPTIONS");
    http_header(c, "Access-Control-Allow-Headers",
                "Authorization, Content-Type, X-Api-Key, OpenAI-Organization, OpenAI-Project, "
                "OpenAI-Beta, User-Agent, X-Stainless-Lang, X-Stainless-Package-Version, "
                "X-Stainless-OS, X-Stainless-Arch, X-Stainless-Runtime, "
                "X-Stainless-Runtime-Version, X-Stainless-Retry-Count, X-Stainless-Timeout, "
                "X-Stainless-Async, X-Stainless-Helper-Method");
    http_header(c, "Access-Control-Max-Age", "600");
    http_reply_bytes(c, 204, "text/plain", "", 0);
}

static bool target_read(struct call *c, struct fault *f)
{
    const struct evhttp_uri *uri = evhttp_request_get_evhttp_uri(c->req);
    const char *path = uri ? evhttp_uri_get_path(uri) : NULL;
    const char *query = uri ? evhttp_uri_get_query(uri) : NULL;
    size_t n = 0;

    c->path = evhttp_uridecode(path && *path ? path : "/", 0, &n);
    if (!c->path || strlen(c->path) != n) {
        free(c->path);
        c->path = mem_strdup("/");
        return fault_field(f, "", "the path cannot be read");
    }
    TAILQ_INIT(&c->query);
    c->has_query = query && evhttp_parse_query_str(query, &c->query) == 0;
    return true;
}

static bool judge(struct call *c, const struct http_route **route, struct fault *f)
{
    if (!target_read(c, f))
        return false;
    *route = route_find(c->conn->h, c->path);
    if (*route)
        c->route = (*route)->path;
    if (c->conn->refused) {
        fault_err(f, ERR_LIMIT, "too many connections are open; ask again in a moment", true, 5);
        http_header(c, "Connection", "close");
        return false;
    }
    who_look(c);
    if (evhttp_request_get_command(c->req) == EVHTTP_REQ_OPTIONS) {
        /* Whoever is not allowed is told nothing that allows. */
        (void)who_judge_origin(c, f);
        return true;
    }
    return who_judge_origin(c, f) && who_judge_need(c, *route, f) && route_judge(c, *route, f);
}

static struct conn *conn_of(struct http *h, struct evhttp_request *req)
{
    struct bufferevent *bev = evhttp_connection_get_bufferevent(evhttp_request_get_connection(req));
    struct conn *n;

    TAILQ_FOREACH(n, &h->conns, next)
    if (n->bev == bev)
        return n;
    CHECK(!"evhttp has a connection that we did not make");
    return NULL;
}

static void on_request(struct evhttp_request *req, void *user)
{
    struct http *h = user;
    struct conn *n = conn_of(h, req);
    struct call *c = mem_zalloc(1, sizeof *c);
    const struct http_route *route = NULL;
    struct fault f = {0};

    h->stats.requests++;
    h->stats.n_calls++;
    c->conn = n;
    c->req = req;
    c->route = "";
    c->began_us = clock_us();
    n->call = c;
    n->answering = true;
    evhttp_connection_set_closecb(evhttp_request_get_connection(req), on_closed, n);
    web_conn_watch(n);
    if (!judge(c, &route, &f))
        fault_reply(c, &f);
    else if (evhttp_request_get_command(req) == EVHTTP_REQ_OPTIONS)
        preflight(c);
    else
        route->handle(h->table->user, c);
}

/* ---- the server ---- */

static enum err bind_why(const char *host, int port, struct err_text *et)
{
    if (errno == EADDRINUSE)
        return err_set(et, ERR_FILE,
                       "port %d of %s is in use by another program; choose another with --port, "
                       "or --port 0 for any that is free",
                       port, host);
    if (errno == EACCES)
        return err_set(et, ERR_FILE, "port %d may not be used by this user; choose one above 1023",
                       port);
    if (errno == EADDRNOTAVAIL)
        return err_set(et, ERR_INPUT,
                       "%s is no address of this machine; --host takes one, or "
                       "0.0.0.0 for all",
                       host);
    return err_system(et, "listen at %s, port %d", host, port);
}

static enum err listener_bind(struct http *h, const struct api_opts *opts, struct err_text *et)
{
    const char *host = opts->host ? opts->host : "127.0.0.1";
    struct evutil_addrinfo hints = {.ai_socktype = SOCK_STREAM,
                                    .ai_flags = EVUTIL_AI_PASSIVE | EVUTIL_AI_NUMERICSERV},
                           *found = NULL;
    struct sockaddr_storage at;
    socklen_t at_len = sizeof at;
    char port[PORT_TEXT_MAX];
    int failed;

    snprintf(port, sizeof port, "%d", opts->port);
    failed = evutil_getaddrinfo(host, port, &hints, &found);
    if (failed || !found)
        return err_set(et, ERR_INPUT, "%s is no address to listen at: %s", host,
                       evutil_gai_strerror(failed));
    h->listener = evconnlistener_new_bind(
        h->base, NULL, NULL, LEV_OPT_CLOSE_ON_FREE | LEV_OPT_CLOSE_ON_EXEC | LEV_OPT_REUSEABLE,
        BACKLOG, found->ai_addr, (int)found->ai_addrlen);
    evutil_freeaddrinfo(found);
    if (!h->listener)
        return bind_why(host, opts->port, et);
    if (getsockname(evconnlistener_get_fd(h->listener), (struct sockaddr *)&at, &at_len) == 0)
        h->port = ntohs(at.ss_family == AF_INET6 ? ((struct sockaddr_in6 *)&at)->sin6_port
                                                 : ((struct sockaddr_in *)&at)->sin_port);
    CHECK(evhttp_bind_listener(h->evhttp, h->listener));
    return ERR_NONE;
}

enum err http_open(struct event_base *base, const struct api_opts *opts,
                   const struct http_table *table, struct http **out, struct err_text *et)
{
    struct http *h = mem_zalloc(1, sizeof *h);
    enum err e;

    *out = NULL;
    CHECK(opts->n_keys <= API_KEYS_MAX);
    TAILQ_INIT(&h->conns);
    h->base = base;
    h->log = opts->log;
    h->table_copy = *table;
    h->table = &h->table_copy;
    h->cors = opts->cors ? mem_strdup(opts->cors) : NULL;
    who_keys_take(h, opts);
    h->evhttp = evhttp_new(base);
    h->sweep = evtimer_new(base, on_sweep, h);
    CHECK(h->evhttp && h->sweep);
    evhttp_set_max_headers_size(h->evhttp, API_HEADERS_MAX);
    evhttp_set_max_body_size(h->evhttp, API_BODY_MAX);
    evhttp_set_timeout(h->evhttp, API_IDLE_S);
    evhttp_set_allowed_methods(h->evhttp, 0xffff); /* we say 405 ourselves */
    evhttp_set_bevcb(h->evhttp, on_connection, h);
    evhttp_set_gencb(h->evhttp, on_request, h);
    e = http_tls_open(opts, &h->tls, et);
    if (!e)
        e = listener_bind(h, opts, et);
    if (e) {
        http_close(h);
        return e;
    }
    session_init(&h->session, h->port, h->tls);
    *out = h;
    return ERR_NONE;
}

void http_close(struct http *h)
{
    struct conn *n;

    if (!h)
        return;
    evhttp_free(h->evhttp); /* its connections, too: calls hear of it by on_closed */
    while ((n = TAILQ_FIRST(&h->conns)))
        conn_free(n);
    event_free(h->sweep);
    SSL_CTX_free(h->tls);
    who_keys_forget(h);
    session_wipe(&h->session);
    free(h->cors);
    free(h);
}

int http_port(const struct http *h)
{
    return h->port;
}

const struct session *http_session(const struct http *h)
{
    return &h->session;
}

void http_stats(const struct http *h, struct http_stats *out)
{
    *out = h->stats;
}
