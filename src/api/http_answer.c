#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "api/http_impl.h"
#include "base/check.h"
#include "base/mem.h"
#include "base/sys.h"

enum { STATUS_GONE = 499 };

static const char *status_words(int status)
{
    switch (status) {
    case 200:
        return "OK";
    case 204:
        return "No Content";
    case 304:
        return "Not Modified";
    case 400:
        return "Bad Request";
    case 401:
        return "Unauthorized";
    case 403:
        return "Forbidden";
    case 404:
        return "Not Found";
    case 405:
        return "Method Not Allowed";
    case 413:
        return "Content Too Large";
    case 500:
        return "Internal Server Error";
    case 501:
        return "Not Implemented";
    case 503:
        return "Service Unavailable";
    default:
        return status < 400 ? "OK" : "Error";
    }
}

void call_answered(const struct call *c, int status)
{
    struct http *h = c->conn->h;

    h->stats.bad_requests += status >= 400 && status < 500 && status != STATUS_GONE;
    if (h->table->answered)
        h->table->answered(h->table->user, c->route, status,
                           (double)(clock_us() - c->began_us) / 1e6);
}

void http_header(struct call *c, const char *name, const char *value)
{
    struct evkeyvalq *headers = evhttp_request_get_output_headers(c->req);

    (void)evhttp_remove_header(headers, name);
    /* It refuses values with line breaks, which none of ours has. */
    (void)evhttp_add_header(headers, name, value);
}

/* The last byte has been given to the socket. */
static void on_complete(struct evhttp_request *req, void *user)
{
    struct conn *n = user;

    /* Its headers are long gone: this only tells evhttp not to wait for another request. */
    if (n->half)
        (void)evhttp_add_header(evhttp_request_get_output_headers(req), "Connection", "close");
    web_conn_next(n);
}

void http_reply_bytes(struct call *c, int status, const char *type, const void *bytes, size_t n)
{
    struct evhttp_request *req = c->req;
    struct conn *conn = c->conn;
    struct evbuffer *body = evbuffer_new();
    char length[24];

    CHECK(body && !c->streaming);
    if (status != 204 && status != 304)
        http_header(c, "Content-Type", type);
    if (!call_is_head(c)) {
        CHECK(evbuffer_add(body, bytes, n) == 0);
    } else {
        snprintf(length, sizeof length, "%zu", n);
        http_header(c, "Content-Length", length);
    }
    call_answered(c, status);
    call_free(c);
    evhttp_request_set_on_complete_cb(req, on_complete, conn);
    evhttp_send_reply(req, status, status_words(status), body);
    evbuffer_free(body);
    web_conn_quiet(conn);
}

void http_reply(struct call *c, int status, json_t *json)
{
    char *text = json_dumps(json, JSON_COMPACT | JSON_REAL_PRECISION(HTTP_DIGITS));

    CHECK(text);
    http_reply_bytes(c, status, "application/json; charset=utf-8", text, strlen(text));
    free(text);
    json_decref(json);
}

/* ---- streams ---- */

void http_stream_begin(struct call *c)
{
    CHECK(!c->streaming);
    c->streaming = true;
    http_header(c, "Content-Type", "text/event-stream; charset=utf-8");
    http_header(c, "Cache-Control", "no-store");
    /* Proxies that collect answers before they pass them on. */
    http_header(c, "X-Accel-Buffering", "no");
    evhttp_send_reply_start(c->req, 200, status_words(200));
}

static void stream_over(struct call *c)
{
    struct evhttp_request *req = c->req;
    struct conn *n = c->conn;

    call_answered(c, 200);
    call_free(c);
    evhttp_request_set_on_complete_cb(req, on_complete, n);
    evhttp_send_reply_end(req);
    web_conn_quiet(n);
}

static size_t unread(const struct conn *n)
{
    return evbuffer_get_length(bufferevent_get_output(n->bev));
}

static void flush_within(struct conn *n, int s)
{
    const struct timeval tv = {s, 0};

    event_add(n->flush, &tv);
}

/* Called some time after room has been made, or API_UNREAD_S after there was none. */
void answer_flush(struct conn *n)
{
    struct call *c = n->call;

    if (!c || !c->kept)
        return;
    if (unread(n) > API_UNREAD_MAX / 2) {
        n->h->stats.dropped++;
        evhttp_connection_free(evhttp_request_get_connection(c->req)); /* its client is told gone */
        return;
    }
    evhttp_send_reply_chunk(c->req, c->kept);
    evbuffer_free(c->kept);
    c->kept = NULL;
    if (c->ending)
        stream_over(c);
}

void http_event(struct call *c, const char *data, size_t n)
{
    struct evbuffer *event;

    CHECK(c->streaming && !c->ending);
    event = c->kept ? c->kept : evbuffer_new();
    CHECK(event && evbuffer_expand(event, n + 8) == 0);
    evbuffer_add(event, "data: ", 6);
    evbuffer_add(event, data, n);
    evbuffer_add(event, "\n\n", 2);
    if (c->kept)
        return;
    if (unread(c->conn) > API_UNREAD_MAX) {
        c->kept = event;
        flush_within(c->conn, API_UNREAD_S);
        return;
    }
    evhttp_send_reply_chunk(c->req, event);
    evbuffer_free(event);
}

void http_event_json(struct call *c, json_t *json)
{
    char *text = json_dumps(json, JSON_COMPACT | JSON_REAL_PRECISION(HTTP_DIGITS));

    CHECK(text);
    http_event(c, text, strlen(text));
    free(text);
    json_decref(json);
}

void http_stream_bytes(struct call *c, const char *bytes, size_t n)
{
    struct evbuffer *text = evbuffer_new();

    CHECK(c->streaming && !c->ending && !c->kept);
    CHECK(text && evbuffer_add(text, bytes, n) == 0);
    evhttp_send_reply_chunk(c->req, text);
    evbuffer_free(text);
}

size_t call_unread(const struct call *c)
{
    return unread(c->conn);
}

void http_stream_end(struct call *c)
{
    CHECK(c->streaming && !c->ending);
    c->ending = true;
    c->gone = NULL; /* the caller's part is over */
    if (!c->kept)
        stream_over(c);
}
