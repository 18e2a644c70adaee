/* src/api/http.h against raw sockets: what comes in pieces, too much, at once, or not at all. */
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

#include "api/client.h"
#include "api/http.h"
#include "api/session.h"
#include "base/mem.h"

struct rig {
    struct event_base *base;
    struct http *http;
    struct call *held; /* /hold's, or /stream's */
    bool gone, asked;
    int n_answered, last_status;
    char last_route[64];
    int flow;
    size_t n_body;
};

static void on_gone(void *user)
{
    struct rig *r = user;

    r->held = NULL;
    r->gone = true;
}

static void on_echo(void *user, struct call *c)
{
    struct rig *r = user;
    size_t n;
    const char *body = call_body(c, &n);

    r->n_body = n;
    r->flow = call_flow(c);
    http_reply_bytes(c, 200, "text/plain", body, n);
}

static void on_query(void *user, struct call *c)
{
    const char *name = call_query(c, "name");

    (void)user;
    http_reply(c, 200, json_pack("{s:s, s:s?}", "path", call_path(c), "name", name));
}

static void on_hold(void *user, struct call *c)
{
    struct rig *r = user;

    r->held = c;
    r->asked = true;
    call_on_gone(c, on_gone, r);
}

static void on_stream(void *user, struct call *c)
{
    on_hold(user, c);
    http_stream_begin(c);
    http_event(c, "{\"n\":0}", 7);
}

static const struct http_route routes[] = {
    {"/echo", HTTP_GET | HTTP_POST, HTTP_NEED_KEY, on_echo},
    {"/below/", HTTP_GET, HTTP_NEED_KEY, on_query},
    {"/hold", HTTP_GET, HTTP_NEED_KEY, on_hold},
    {"/stream", HTTP_POST, HTTP_NEED_KEY, on_stream},
    {"/open", HTTP_GET, HTTP_NEED_NOTHING, on_query},
    {"/page", HTTP_POST, HTTP_NEED_SESSION, on_echo},
};

static void on_answered(void *user, const char *route, int status, double seconds)
{
    struct rig *r = user;

    r->n_answered++;
    r->last_status = status;
    snprintf(r->last_route, sizeof r->last_route, "%s", route);
    assert_true(seconds >= 0);
}

static void rig_open(struct rig *r, const struct api_opts *opts)
{
    const struct http_table table = {routes, (int)(sizeof routes / sizeof *routes), r, on_answered};
    const struct api_opts plain = {0};
    struct err_text et;

    *r = (struct rig){.base = event_base_new()};
    assert_int_equal(http_open(r->base, opts ? opts : &plain, &table, &r->http, &et), ERR_NONE);
    assert_true(http_port(r->http) > 0);
}

static void rig_close(struct rig *r)
{
    http_close(r->http);
    event_base_loop(r->base, EVLOOP_NONBLOCK);
    event_base_free(r->base);
}

static void client_of(struct client *c, struct rig *r)
{
    client_open(c, r->base, http_port(r->http));
}

/* ---- what comes in ---- */

static void test_split(void **state)
{
    static const char request[] =
        "POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello";
    struct rig r = {0};
    struct client c;

    rig_open(&r, NULL);
    client_of(&c, &r);
    for (size_t i = 0; i < sizeof request - 1; i++) {
        client_send(&c, request + i, 1);
        event_base_loop(r.base, EVLOOP_NONBLOCK);
    }
    assert_true(client_wait(&c, "\r\n\r\nhello"));
    assert_true(strstr(c.in, "HTTP/1.1 200 OK") == c.in);
    assert_int_equal(r.n_answered, 1);
    assert_string_equal(r.last_route, "/echo");
    client_close(&c);
    rig_close(&r);
}

static void test_keep_alive_and_pipelined(void **state)
{
    struct rig r = {0};
    struct client c;

    rig_open(&r, NULL);
    client_of(&c, &r);
    client_say(&c, "GET /below/one?name=a%20b HTTP/1.1\r\nHost: a\r\n\r\n"
                   "POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\ntwo"
                   "GET /below/three HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_true(client_wait(&c, "/below/three"));
    assert_non_null(strstr(c.in, "{\"path\":\"/below/one\",\"name\":\"a b\"}"));
    assert_non_null(strstr(c.in, "\r\n\r\ntwo"));
    client_say(&c, "GET /below/four HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_true(client_wait(&c, "/below/four"));
    assert_false(c.ended);
    client_close(&c);
    rig_close(&r);
}

/* The second request comes while the first still waits for its answer. */
static void test_pipelined_behind_a_slow_one(void **state)
{
    struct rig r = {0};
    struct client c;

    rig_open(&r, NULL);
    client_of(&c, &r);
    client_say(&c, "GET /hold HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_true(loop_until(r.base, &r.asked));
    client_say(&c, "GET /below/second HTTP/1.1\r\nHost: a\r\n\r\n");
    for (int i = 0; i < 20; i++)
        event_base_loop(r.base, EVLOOP_NONBLOCK);
    assert_non_null(r.held);
    http_reply_bytes(r.held, 200, "text/plain", "first", 5);
    assert_true(client_wait(&c, "/below/second"));
    assert_true(strstr(c.in, "first") < strstr(c.in, "second"));
    client_close(&c);
    rig_close(&r);
}

static void test_chunked_body(void **state)
{
    struct rig r = {0};
    struct client c;

    rig_open(&r, NULL);
    client_of(&c, &r);
    client_say(&c, "POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
                   "3\r\nabc\r\n");
    client_say(&c, "2\r\nde\r\n0\r\n\r\n");
    assert_true(client_wait(&c, "\r\n\r\nabcde"));
    client_close(&c);
    rig_close(&r);
}

static void test_large_body(void **state)
{
    enum { N = 3 << 20 };
    struct rig r = {0};
    struct client c;
    char *body = mem_alloc(N);

    memset(body, 'x', N);
    rig_open(&r, NULL);
    client_of(&c, &r);
    client_say(&c, "POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 3145728\r\n\r\n");
    client_send(&c, body, N);
    assert_true(client_wait(&c, "xxx"));
    assert_int_equal(r.n_body, N);
    client_close(&c);
    free(body);
    rig_close(&r);
}

static void test_body_too_large(void **state)
{
    struct rig r = {0};
    struct client c;

    rig_open(&r, NULL);
    client_of(&c, &r);
    client_say(&c, "POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 99999999999\r\n\r\n");
    assert_true(client_wait_end(&c) || c.n > 0);
    assert_true(c.n == 0 || strstr(c.in, "HTTP/1.1 413") == c.in ||
                strstr(c.in, "HTTP/1.1 400") == c.in);
    assert_int_equal(r.n_answered, 0);
    client_close(&c);

    /* And one that does not say how long it will be. */
    client_of(&c, &r);
    client_say(&c, "POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
                   "7fffffff\r\n");
    assert_true(client_wait_end(&c) || c.n > 0);
    assert_int_equal(r.n_answered, 0);
    client_close(&c);
    rig_close(&r);
}

static void test_header_flood(void **state)
{
    char line[1024];
    struct rig r = {0};
    struct client c;

    rig_open(&r, NULL);
    client_of(&c, &r);
    client_say(&c, "GET /echo HTTP/1.1\r\n");
    for (int i = 0; i < 100 && !c.ended; i++) {
        snprintf(line, sizeof line, "X-%d: %0900d\r\n", i, 0);
        client_say(&c, line);
    }
    client_say(&c, "\r\n");
    assert_true(client_wait_end(&c) || c.n > 0);
    assert_null(strstr(c.in, " 200 "));
    assert_int_equal(r.n_answered, 0);
    client_close(&c);

    /* One line without an end. */
    client_of(&c, &r);
    memset(line, 'a', sizeof line);
    for (int i = 0; i < 100 && !c.ended; i++)
        client_send(&c, line, sizeof line);
    assert_true(client_wait_end(&c) || c.n > 0);
    client_close(&c);
    rig_close(&r);
}

static void test_rubbish(void **state)
{
    static const char *const rubbish[] = {
        "\r\n\r\n",
        "GET\r\n\r\n",
        "GET / HTTP/9.9\r\n\r\n",
        "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n",
        "POST /echo HTTP/1.1\r\nContent-Length: -5\r\n\r\n",
        "POST /echo HTTP/1.1\r\nContent-Length: zwei\r\n\r\n",
        "POST /echo HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        "GET /%00 HTTP/1.1\r\n\r\n",
        "FLY /echo HTTP/1.1\r\n\r\n",
    };
    struct rig r = {0};

    rig_open(&r, NULL);
    for (size_t i = 0; i < sizeof rubbish / sizeof *rubbish; i++) {
        struct client c;

        client_of(&c, &r);
        client_say(&c, rubbish[i]);
        shutdown(c.fd, SHUT_WR);
        assert_true(client_wait_end(&c));
        assert_null(strstr(c.in, " 200 "));
        client_close(&c);
    }
    rig_close(&r);
}

/* ---- routes and rights ---- */

static void ask(struct rig *r, struct client *c, const char *request)
{
    client_of(c, r);
    client_say(c, request);
    assert_true(client_wait(c, "\r\n\r\n"));
}

static void test_refusals(void **state)
{
    struct rig r = {0};
    struct client c;

    rig_open(&r, NULL);
    ask(&r, &c, "GET /nowhere HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
    assert_true(client_wait_end(&c));
    assert_non_null(strstr(c.in, "HTTP/1.1 404"));
    assert_non_null(strstr(c.in, "\"code\":404"));
    client_close(&c);
    ask(&r, &c, "GET /v1/nowhere HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
    assert_true(client_wait_end(&c));
    assert_non_null(strstr(c.in, "\"code\":\"unknown_url\""));
    client_close(&c);
    ask(&r, &c, "DELETE /echo HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
    assert_true(client_wait_end(&c));
    assert_non_null(strstr(c.in, "HTTP/1.1 405"));
    assert_non_null(strstr(c.in, "Allow: GET, HEAD, POST, OPTIONS"));
    assert_string_equal(r.last_route, "/echo");
    client_close(&c);
    ask(&r, &c, "HEAD /below/a HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
    assert_true(client_wait_end(&c));
    assert_non_null(strstr(c.in, "HTTP/1.1 200"));
    assert_null(strstr(c.in, "{"));
    client_close(&c);
    rig_close(&r);
}

static void test_keys(void **state)
{
    static const char *const keys[] = {"sesame", "open"};
    const struct api_opts opts = {.keys = keys, .n_keys = 2};
    struct rig r = {0};
    struct client c;

    rig_open(&r, &opts);
    ask(&r, &c, "GET /echo HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_non_null(strstr(c.in, "HTTP/1.1 401"));
    assert_non_null(strstr(c.in, "WWW-Authenticate: Bearer"));
    client_close(&c);
    ask(&r, &c, "GET /echo HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer sesam\r\n\r\n");
    assert_non_null(strstr(c.in, "HTTP/1.1 401"));
    client_close(&c);
    ask(&r, &c, "GET /echo HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer open\r\n\r\n");
    assert_non_null(strstr(c.in, "HTTP/1.1 200"));
    assert_int_equal(r.flow, 1);
    client_close(&c);
    ask(&r, &c, "GET /echo HTTP/1.1\r\nHost: a\r\nX-Api-Key: sesame\r\n\r\n");
    assert_non_null(strstr(c.in, "HTTP/1.1 200"));
    assert_int_equal(r.flow, 0);
    client_close(&c);
    ask(&r, &c, "GET /open HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_non_null(strstr(c.in, "HTTP/1.1 200"));
    client_close(&c);
    /* What is not there is not told to strangers. */
    ask(&r, &c, "GET /nowhere HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_non_null(strstr(c.in, "HTTP/1.1 401"));
    client_close(&c);
    rig_close(&r);
}

/* With what stands for the port in it. */
static void ask_at(struct rig *r, struct client *c, const char *fmt)
{
    int port = http_port(r->http);
    char *request = mem_printf(fmt, port, port);

    ask(r, c, request);
    free(request);
}

static void test_origins(void **state)
{
    const struct api_opts opts = {.cors = "http://page.test"};
    static const char *const keys[] = {"sesame"};
    const struct api_opts locked = {.keys = keys, .n_keys = 1};
    struct rig r = {0};
    struct client c;

    rig_open(&r, NULL);
    ask_at(&r, &c, "GET /echo HTTP/1.1\r\nHost: localhost:%d\r\nOrigin: http://page.test\r\n\r\n");
    assert_non_null(strstr(c.in, "HTTP/1.1 403"));
    client_close(&c);
    ask_at(&r, &c,
           "GET /echo HTTP/1.1\r\nHost: localhost:%d\r\nOrigin: http://localhost:%d\r\n\r\n");
    assert_non_null(strstr(c.in, "HTTP/1.1 200"));
    client_close(&c);
    /* A stranger's name for our address agrees with itself. */
    ask_at(&r, &c,
           "GET /echo HTTP/1.1\r\nHost: page.test:%d\r\nOrigin: http://page.test:%d\r\n\r\n");
    assert_non_null(strstr(c.in, "HTTP/1.1 403"));
    client_close(&c);
    ask(&r, &c, "OPTIONS /echo HTTP/1.1\r\nHost: here:1\r\nOrigin: http://page.test\r\n\r\n");
    assert_non_null(strstr(c.in, "HTTP/1.1 204"));
    assert_null(strstr(c.in, "Allow-Origin"));
    client_close(&c);
    rig_close(&r);

    /* Whose page has a key is let in by whatever name. */
    rig_open(&r, &locked);
    ask(&r, &c,
        "GET /echo HTTP/1.1\r\nHost: here:1\r\nOrigin: https://here:1\r\nX-Api-Key: "
        "sesame\r\n\r\n");
    assert_non_null(strstr(c.in, "HTTP/1.1 200"));
    client_close(&c);
    rig_close(&r);

    rig_open(&r, &opts);
    ask(&r, &c, "OPTIONS /echo HTTP/1.1\r\nHost: here:1\r\nOrigin: http://page.test\r\n\r\n");
    assert_non_null(strstr(c.in, "HTTP/1.1 204"));
    assert_non_null(strstr(c.in, "Access-Control-Allow-Origin: http://page.test"));
    assert_non_null(strstr(c.in, "Access-Control-Allow-Methods: GET, POST, OPTIONS"));
    client_close(&c);
    ask(&r, &c, "GET /echo HTTP/1.1\r\nHost: here:1\r\nOrigin: http://page.test\r\n\r\n");
    assert_non_null(strstr(c.in, "HTTP/1.1 200"));
    assert_non_null(strstr(c.in, "Access-Control-Allow-Origin: http://page.test"));
    client_close(&c);
    rig_close(&r);
}

static void page_ask(struct rig *r, struct client *c, const char *origin, const char *more)
{
    int port = http_port(r->http);
    char *request = mem_printf("POST /page HTTP/1.1\r\nHost: 127.0.0.1:%d\r\nOrigin: %s:%d\r\n"
                               "Cookie: %s=%s\r\n%sContent-Length: 0\r\n\r\n",
                               port, origin, port, http_session(r->http)->name,
                               http_session(r->http)->cookie, more);

    ask(r, c, request);
    free(request);
}

/* What is for the page alone: no key opens it, nor does the cookie from elsewhere. */
static void test_session_wanted(void **state)
{
    static const char *const keys[] = {"sesame"};
    const struct api_opts opts = {.keys = keys, .n_keys = 1, .cors = "*"};
    struct rig r = {0};
    struct client c;

    rig_open(&r, &opts);
    ask(&r, &c, "POST /page HTTP/1.1\r\nHost: a\r\nX-Api-Key: sesame\r\nContent-Length: 0\r\n\r\n");
    assert_non_null(strstr(c.in, "HTTP/1.1 403"));
    client_close(&c);
    page_ask(&r, &c, "http://127.0.0.1", "");
    assert_non_null(strstr(c.in, "HTTP/1.1 200"));
    client_close(&c);
    page_ask(&r, &c, "http://localhost", "");
    assert_non_null(strstr(c.in, "HTTP/1.1 403"));
    client_close(&c);
    page_ask(&r, &c, "http://127.0.0.1", "Sec-Fetch-Site: cross-site\r\n");
    assert_non_null(strstr(c.in, "HTTP/1.1 403"));
    client_close(&c);
    rig_close(&r);
}

/* ---- what goes out, and to nobody ---- */

static void test_stream(void **state)
{
    struct rig r = {0};
    struct client c;

    rig_open(&r, NULL);
    ask(&r, &c, "POST /stream HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n");
    assert_non_null(strstr(c.in, "Content-Type: text/event-stream"));
    assert_true(client_wait(&c, "data: {\"n\":0}\n\n"));
    http_event_json(r.held, json_pack("{s:i}", "n", 1));
    http_event(r.held, "[DONE]", 6);
    http_stream_end(r.held);
    assert_true(client_wait(&c, "data: [DONE]\n\n"));
    assert_non_null(strstr(c.in, "data: {\"n\":1}\n\n"));
    assert_int_equal(r.last_status, 200);
    /* The connection serves on. */
    client_forget(&c);
    client_say(&c, "GET /below/next HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_true(client_wait(&c, "/below/next"));
    client_close(&c);
    assert_false(r.gone);
    rig_close(&r);
}

static void test_stream_to_an_old_client(void **state)
{
    struct rig r = {0};
    struct client c;

    rig_open(&r, NULL);
    ask(&r, &c, "POST /stream HTTP/1.0\r\nContent-Length: 0\r\n\r\n");
    http_stream_end(r.held);
    assert_true(client_wait_end(&c));
    assert_non_null(strstr(c.in, "data: {\"n\":0}\n\n"));
    assert_null(strstr(c.in, "chunked"));
    client_close(&c);
    rig_close(&r);
}

static void test_gone_while_waiting(void **state)
{
    struct rig r = {0};
    struct client c;

    rig_open(&r, NULL);
    client_of(&c, &r);
    client_say(&c, "GET /hold HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_true(loop_until(r.base, &r.asked));
    client_close(&c);
    assert_true(loop_until(r.base, &r.gone));
    assert_int_equal(r.last_status, 499);
    rig_close(&r);
}

static void test_gone_in_a_stream(void **state)
{
    struct rig r = {0};
    struct client c;

    rig_open(&r, NULL);
    ask(&r, &c, "POST /stream HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n");
    client_close(&c);
    assert_true(loop_until(r.base, &r.gone));
    assert_int_equal(r.last_status, 499);
    rig_close(&r);
}

/* It ends its sending with the request: nobody can tell it from one that left, except where the
 * answer is on its way already. */
static void test_half_close(void **state)
{
    struct rig r = {0};
    struct client c;

    rig_open(&r, NULL);
    client_of(&c, &r);
    client_say(&c, "GET /below/half HTTP/1.1\r\nHost: a\r\n\r\n");
    shutdown(c.fd, SHUT_WR);
    assert_true(client_wait(&c, "/below/half"));
    assert_true(client_wait_end(&c));
    client_close(&c);

    client_of(&c, &r);
    client_say(&c, "GET /hold HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_true(loop_until(r.base, &r.asked));
    shutdown(c.fd, SHUT_WR);
    assert_true(loop_until(r.base, &r.gone));
    assert_true(client_wait_end(&c));
    client_close(&c);
    rig_close(&r);
}

/* A client that does not read: the text is kept and comes when it reads. */
static void test_slow_reader(void **state)
{
    enum { EVENTS = 200, SIZE = 64 << 10 };
    struct rig r = {0};
    struct client c;
    char *data = mem_alloc(SIZE);
    struct http_stats stats;

    memset(data, 'y', SIZE);
    rig_open(&r, NULL);
    ask(&r, &c, "POST /stream HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n");
    for (int i = 0; i < EVENTS; i++) {
        http_event(r.held, data, SIZE);
        event_base_loop(r.base, EVLOOP_NONBLOCK);
    }
    http_event(r.held, "[DONE]", 6);
    http_stream_end(r.held);
    assert_true(client_wait(&c, "data: [DONE]\n\n"));
    assert_true(c.n > (size_t)EVENTS * SIZE);
    http_stats(r.http, &stats);
    assert_int_equal(stats.dropped, 0);
    assert_int_equal(stats.n_calls, 0);
    assert_false(r.gone);
    client_close(&c);
    free(data);
    rig_close(&r);
}

static void test_close_with_calls_open(void **state)
{
    struct rig r = {0};
    struct client c, idle;

    rig_open(&r, NULL);
    client_of(&idle, &r);
    ask(&r, &c, "POST /stream HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n");
    http_close(r.http);
    assert_true(r.gone);
    assert_true(client_wait_end(&c));
    assert_true(client_wait_end(&idle));
    client_close(&c);
    client_close(&idle);
    event_base_free(r.base);
}

static void test_many_connections(void **state)
{
    enum { MORE = API_CONNECTIONS_MAX + 3 };
    struct rig r = {0};
    struct client *c = mem_zalloc(MORE, sizeof *c);
    struct http_stats stats;

    rig_open(&r, NULL);
    for (int i = 0; i < MORE; i++) {
        client_of(&c[i], &r);
        event_base_loop(r.base, EVLOOP_NONBLOCK);
    }
    client_say(&c[MORE - 1], "GET /below/x HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_true(client_wait_end(&c[MORE - 1]));
    assert_non_null(strstr(c[MORE - 1].in, "HTTP/1.1 503"));
    assert_non_null(strstr(c[MORE - 1].in, "Retry-After: "));
    client_say(&c[0], "GET /below/x HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_true(client_wait(&c[0], "/below/x"));
    for (int i = 0; i < MORE; i++)
        client_close(&c[i]);
    for (int i = 0; i < 100; i++) {
        event_base_loop(r.base, EVLOOP_NONBLOCK);
        http_stats(r.http, &stats);
    }
    /* Those that left make room. */
    client_of(&c[0], &r);
    client_say(&c[0], "GET /below/x HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_true(client_wait(&c[0], "/below/x"));
    http_stats(r.http, &stats);
    assert_true(stats.n_connections < 10);
    client_close(&c[0]);
    free(c);
    rig_close(&r);
}

static void test_port_in_use(void **state)
{
    const struct http_table table = {routes, 1, NULL, NULL};
    struct api_opts opts = {0};
    struct rig r = {0};
    struct http *second;
    struct err_text et;

    rig_open(&r, NULL);
    opts.port = http_port(r.http);
    assert_int_equal(http_open(r.base, &opts, &table, &second, &et), ERR_FILE);
    assert_non_null(strstr(et.text, "--port"));
    opts = (struct api_opts){.host = "203.0.113.7"};
    assert_int_equal(http_open(r.base, &opts, &table, &second, &et), ERR_INPUT);
    assert_non_null(strstr(et.text, "--host"));
    rig_close(&r);
}

static void test_ids(void **state)
{
    char a[CALL_ID_MAX], b[CALL_ID_MAX];

    call_id("chatcmpl-", a);
    call_id("chatcmpl-", b);
    assert_int_equal(strlen(a), 9 + 24);
    assert_string_not_equal(a, b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_split),
        cmocka_unit_test(test_keep_alive_and_pipelined),
        cmocka_unit_test(test_pipelined_behind_a_slow_one),
        cmocka_unit_test(test_chunked_body),
        cmocka_unit_test(test_large_body),
        cmocka_unit_test(test_body_too_large),
        cmocka_unit_test(test_header_flood),
        cmocka_unit_test(test_rubbish),
        cmocka_unit_test(test_refusals),
        cmocka_unit_test(test_keys),
        cmocka_unit_test(test_origins),
        cmocka_unit_test(test_session_wanted),
        cmocka_unit_test(test_stream),
        cmocka_unit_test(test_stream_to_an_old_client),
        cmocka_unit_test(test_gone_while_waiting),
        cmocka_unit_test(test_gone_in_a_stream),
        cmocka_unit_test(test_half_close),
        cmocka_unit_test(test_slow_reader),
        cmocka_unit_test(test_close_with_calls_open),
        cmocka_unit_test(test_many_connections),
        cmocka_unit_test(test_port_in_use),
        cmocka_unit_test(test_ids),
    };

    signal(SIGPIPE, SIG_IGN);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
