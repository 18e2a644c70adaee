/* HTTP on libevent's evhttp: what comes in is bounded and judged, what goes out is watched. Knows
 * nothing of models. Event loop's thread only.
 *
 * A `call` is one request until its answer has been given. It is answered once: http_reply, or
 * http_stream_begin, then any number of http_event, then http_stream_end. */
#ifndef LINGUA_API_HTTP_H
#define LINGUA_API_HTTP_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>

#include "api/api.h"

struct http;
struct call;
struct session;

enum http_method { HTTP_GET = 1, HTTP_POST = 2 };

/* What a route wants to see: an API key, where the server has any (the page's session will do); nothing
 * (/health, the page); or the page's session itself (session.h), a key or not. */
enum http_need { HTTP_NEED_KEY, HTTP_NEED_NOTHING, HTTP_NEED_SESSION };

struct http_route {
    const char *path; /* whole: "/v1/models"; ending in a slash: everything below it, too */
    int methods;      /* of enum http_method, or'd */
    enum http_need need;
    void (*handle)(void *user, struct call *call);
};

/* What the server needs to know of itself, for /metrics. */
struct http_stats {
    unsigned long long connections, requests, bad_requests, dropped;
    int n_connections, n_calls;
};

struct http_table {
    const struct http_route *routes; /* borrowed until http_close */
    int n_routes;
    void *user;
    /* A request is over: its route's path ("" when none fitted), the status of its answer (499: the
     * client went away before), and the seconds it took. May be NULL. */
    void (*answered)(void *user, const char *route, int status, double seconds);
};

MUST_CHECK enum err http_open(struct event_base *base, const struct api_opts *opts,
                              const struct http_table *table, struct http **out,
                              struct err_text *et);
void http_close(struct http *h); /* calls end as if their clients had gone */
int http_port(const struct http *h);
const struct session *http_session(const struct http *h);
void http_stats(const struct http *h, struct http_stats *out);

const char *call_path(const struct call *c);
const char *call_query(const struct call *c, const char *name);  /* decoded; NULL: not there */
const char *call_header(const struct call *c, const char *name); /* NULL: not there */
const char *call_body(const struct call *c, size_t *n);
bool call_is_head(const struct call *c); /* only the headers of a GET's answer go out */
bool call_is_post(const struct call *c);
/* Whose it is: equal for equal API keys, else for equal addresses. */
int call_flow(const struct call *c);
bool call_has_session(const struct call *c);
/* Whether HTTP_NEED_KEY is met. */
bool call_is_let_in(const struct call *c);
/* Whether it comes from our own page at one of our own names: without that no session begins. */
bool call_is_of_page(const struct call *c);
/* Told once when the client goes away before the answer was complete; the call is gone then. */
void call_on_gone(struct call *c, void (*gone)(void *user), void *user);
/* "chatcmpl-" and 24 random letters, into buf. */
enum { CALL_ID_MAX = 48 };
void call_id(const char *prefix, char buf[CALL_ID_MAX]);

enum { HTTP_DIGITS = 9 }; /* of numbers in answers: what an f32 needs to be exact */

/* Whole answers; the call is gone afterwards. http_reply takes json. */
void http_reply(struct call *c, int status, json_t *json);
void http_reply_bytes(struct call *c, int status, const char *type, const void *bytes, size_t n);
void http_header(struct call *c, const char *name, const char *value); /* before the answer */

void http_stream_begin(struct call *c);
/* "data: ...\n\n". Kept back while the client does not read (api.h). */
void http_event(struct call *c, const char *data, size_t n);
void http_event_json(struct call *c, json_t *json); /* takes json */
/* Bytes of a stream as they are; for whoever looks first what of it is not taken yet. */
void http_stream_bytes(struct call *c, const char *bytes, size_t n);
size_t call_unread(const struct call *c); /* bytes that wait for the system to take them */
void http_stream_end(struct call *c);     /* the call is gone afterwards */

#endif
