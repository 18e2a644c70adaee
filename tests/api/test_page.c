/* The page's files, its session, what it is told and what it may do: src/api/page.c, watch.c, orders.c
 * over a fake cluster. */
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

#include "api/api_rig.h"
#include "base/mem.h"

static const char *const keys[] = {"sesame"};
static const struct api_opts locked = {.keys = keys, .n_keys = 1};

struct rig {
    struct api_rig api;
    char cookie[256], origin[64], host[64]; /* header lines */
};

static void rig_open(struct rig *r, const struct api_opts *opts)
{
    api_rig_open(&r->api, opts);
    snprintf(r->host, sizeof r->host, "Host: 127.0.0.1:%d\r\n", api_port(r->api.api));
    snprintf(r->origin, sizeof r->origin, "Origin: http://127.0.0.1:%d\r\n", api_port(r->api.api));
    r->cookie[0] = '\0';
}

static void rig_close(struct rig *r)
{
    api_rig_close(&r->api);
}

/* Sends it with these header lines; host: NULL = ours. body: NULL = a GET. */
static void send_it(struct rig *r, struct client *c, const char *path, const char *headers,
                    const char *body)
{
    char *text = mem_printf("%s %s HTTP/1.1\r\n%s%sContent-Length: %zu\r\n\r\n%s",
                            body ? "POST" : "GET", path, strstr(headers, "Host:") ? "" : r->host,
                            headers, body ? strlen(body) : 0, body ? body : "");

    client_open(c, r->api.base, api_port(r->api.api));
    client_say(c, text);
    free(text);
}

/* The whole answer, and its status. free(). */
static char *ask(struct rig *r, const char *path, const char *headers, const char *body,
                 int *status)
{
    char *closing = mem_printf("%sConnection: close\r\n", headers), *all;
    struct client c;

    send_it(r, &c, path, closing, body);
    free(closing);
    assert_true(client_wait_end(&c));
    assert_int_equal(sscanf(c.in, "HTTP/1.1 %d", status), 1);
    all = mem_strdup(c.in);
    client_close(&c);
    return all;
}

static int status_of(struct rig *r, const char *path, const char *headers, const char *body)
{
    int status;

    free(ask(r, path, headers, body, &status));
    return status;
}

static char *key_body(const struct rig *r)
{
    return mem_printf("{\"key\":\"%s\"}", api_page_key(r->api.api));
}

static void enter(struct rig *r)
{
    char *body = key_body(r), *answer, *at;
    int status;

    answer = ask(r, "/session", r->origin, body, &status);
    assert_int_equal(status, 200);
    at = strstr(answer, "Set-Cookie: ");
    assert_non_null(at);
    at += strlen("Set-Cookie: ");
    snprintf(r->cookie, sizeof r->cookie, "Cookie: %.*s\r\n", (int)strcspn(at, ";"), at);
    free(answer);
    free(body);
}

/* ---- files ---- */

static void test_files(void **state)
{
    struct rig r = {0};
    char *answer, *etag, *again;
    int status;

    rig_open(&r, &locked); /* which is no matter */
    answer = ask(&r, "/", "", NULL, &status);
    assert_int_equal(status, 200);
    assert_non_null(strstr(answer, "Content-Type: text/html; charset=utf-8"));
    assert_non_null(
        strstr(answer, "Content-Security-Policy: default-src 'none'; script-src 'self'"));
    assert_null(strstr(answer, "unsafe"));
    assert_non_null(strstr(answer, "X-Content-Type-Options: nosniff"));
    assert_non_null(strstr(answer, "Referrer-Policy: no-referrer"));
    assert_non_null(strstr(answer, "Cache-Control: no-cache"));
    assert_null(strstr(answer, "Content-Encoding"));
    assert_non_null(strstr(answer, "<!doctype html>"));
    etag = strstr(answer, "ETag: ");
    assert_non_null(etag);
    again =
        mem_printf("If-None-Match: \"other\", W/%.*s\r\n", (int)strcspn(etag + 6, "\r"), etag + 6);
    free(answer);
    answer = ask(&r, "/", again, NULL, &status);
    assert_int_equal(status, 304);
    assert_null(strstr(answer, "<html"));
    free(answer);
    free(again);
    assert_int_equal(status_of(&r, "/", "If-None-Match: \"0\"\r\n", NULL), 200);
    assert_int_equal(status_of(&r, "/app.js", "", NULL), 200);
    assert_int_equal(status_of(&r, "/", "", "{}"), 405);
    assert_int_equal(status_of(&r, "/../app.js", "", NULL), 401); /* as what is not there */
    rig_close(&r);
}

static void test_codings(void **state)
{
    static const struct {
        const char *accept;
        bool gz;
    } rows[] = {
        {"", false},
        {"Accept-Encoding: gzip, deflate, br, zstd\r\n", true},
        {"Accept-Encoding: br;q=1.0,GZIP;q=0.8\r\n", true},
        {"Accept-Encoding: *\r\n", true},
        {"Accept-Encoding: identity\r\n", false},
        {"Accept-Encoding: gzip;q=0\r\n", false},
        {"Accept-Encoding: gzip ; q=0.000, *\r\n", false},
        {"Accept-Encoding: *;q=0\r\n", false},
        {"Accept-Encoding: xgzip, gzipx\r\n", false},
        {"Accept-Encoding: ,;,;q=, ,\r\n", false},
    };
    struct rig r = {0};

    rig_open(&r, NULL);
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        int status;
        char *answer = ask(&r, "/", rows[i].accept, NULL, &status);

        assert_int_equal(status, 200);
        if (rows[i].gz != !!strstr(answer, "Content-Encoding: gzip") ||
            rows[i].gz != !!strstr(answer, "-gz\"") || rows[i].gz != !strstr(answer, "<!doctype"))
            fail_msg("%s: %s", rows[i].accept, answer);
        assert_non_null(strstr(answer, "Vary: Accept-Encoding"));
        free(answer);
    }
    rig_close(&r);
}

/* ---- the session ---- */

static void test_how_it_begins(void **state)
{
    struct rig r = {0};
    char *good, *answer;
    int status;

    rig_open(&r, &locked);
    good = key_body(&r);
    assert_int_equal(status_of(&r, "/session", "", good), 403); /* no Origin */
    assert_int_equal(status_of(&r, "/session", r.origin, "{\"key\":\"00\"}"), 403);
    assert_int_equal(status_of(&r, "/session", r.origin, "{}"), 403);
    assert_int_equal(status_of(&r, "/session", r.origin, "{\"key\":1}"), 400);
    assert_int_equal(status_of(&r, "/session", r.origin, "nonsense"), 400);
    assert_int_equal(status_of(&r, "/session", "Origin: http://evil.test\r\n", good), 403);
    assert_int_equal(
        status_of(&r, "/session", "Host: evil.test\r\nOrigin: http://evil.test\r\n", good), 403);
    enter(&r);
    assert_null(strstr(r.cookie, api_page_key(r.api.api)));
    answer = ask(&r, "/session", r.cookie, NULL, &status);
    assert_non_null(strstr(answer, "{\"session\":true,\"key_wanted\":false,\"model\":\"tiny\","
                                   "\"head\":\"head\"}"));
    free(answer);
    /* Strangers learn that a key is wanted, and nothing else. */
    answer = ask(&r, "/session", "", NULL, &status);
    assert_int_equal(status, 200);
    assert_non_null(strstr(answer, "{\"session\":false,\"key_wanted\":true}"));
    free(answer);
    answer = ask(&r, "/session", "Authorization: Bearer sesame\r\n", NULL, &status);
    assert_non_null(strstr(answer, "{\"session\":false,\"key_wanted\":false,\"model\""));
    free(answer);
    free(good);
    rig_close(&r);
}

static void test_long_orders_are_refused(void **state)
{
    struct rig r = {0};
    char *body = mem_printf("{\"key\":\"%08000d\"}", 0);

    rig_open(&r, NULL);
    assert_int_equal(status_of(&r, "/session", r.origin, body), 400);
    free(body);
    rig_close(&r);
}

/* A session is as good as a key, where it comes from our own page by a name of ours. */
static void test_what_it_opens(void **state)
{
    struct rig r = {0};
    char text[512];

    rig_open(&r, &locked);
    enter(&r);
    assert_int_equal(status_of(&r, "/v1/models", "", NULL), 401);
    assert_int_equal(status_of(&r, "/v1/models", r.cookie, NULL), 200);
    assert_int_equal(status_of(&r, "/cluster", "", NULL), 401);
    assert_int_equal(status_of(&r, "/cluster", r.cookie, NULL), 200);
    assert_int_equal(status_of(&r, "/cluster", "Authorization: Bearer sesame\r\n", NULL), 200);
    /* Posted without an Origin: no browser does that. */
    assert_int_equal(status_of(&r, "/tokenize", r.cookie, "{\"content\":\"a\"}"), 401);
    snprintf(text, sizeof text, "%s%s", r.cookie, r.origin);
    assert_int_equal(status_of(&r, "/tokenize", text, "{\"content\":\"a\"}"), 200);
    /* By a stranger's name, from another port's page, as a page of another site has an image. */
    snprintf(text, sizeof text, "Host: evil.test:%d\r\n%s", api_port(r.api.api), r.cookie);
    assert_int_equal(status_of(&r, "/v1/models", text, NULL), 401);
    snprintf(text, sizeof text, "Origin: http://127.0.0.1:1\r\n%s", r.cookie);
    assert_int_equal(status_of(&r, "/v1/models", text, NULL), 403);
    snprintf(text, sizeof text, "Sec-Fetch-Site: same-site\r\n%s", r.cookie);
    assert_int_equal(status_of(&r, "/v1/models", text, NULL), 401);
    snprintf(text, sizeof text, "Sec-Fetch-Site: same-origin\r\n%s", r.cookie);
    assert_int_equal(status_of(&r, "/v1/models", text, NULL), 200);
    rig_close(&r);
}

/* An origin that --cors allows gets what a key gets it, and nothing by the cookie. */
static void test_not_under_cors(void **state)
{
    static const struct api_opts opts[] = {
        {.keys = keys, .n_keys = 1, .cors = "http://friend.test"},
        {.keys = keys, .n_keys = 1, .cors = "*"},
    };
    struct rig r = {0};
    char text[512];

    for (int i = 0; i < 2; i++) {
        rig_open(&r, &opts[i]);
        enter(&r);
        snprintf(text, sizeof text, "Origin: http://friend.test\r\n%s", r.cookie);
        assert_int_equal(status_of(&r, "/v1/models", text, NULL), 401);
        assert_int_equal(status_of(&r, "/cluster/invite", text, "{}"), 403);
        assert_int_equal(status_of(&r, "/v1/models",
                                   "Origin: http://friend.test\r\nX-Api-Key: sesame\r\n", NULL),
                         200);
        rig_close(&r);
    }
}

/* ---- what it may do ---- */

static void test_drain(void **state)
{
    struct rig r = {0};
    char page[512], *answer;
    int status;

    rig_open(&r, &locked);
    enter(&r);
    snprintf(page, sizeof page, "%s%s", r.cookie, r.origin);
    answer = ask(&r, "/cluster/drain", "X-Api-Key: sesame\r\n", "{\"name\":\"phone\"}", &status);
    assert_int_equal(status, 403);
    assert_non_null(strstr(answer, "\"code\":\"session_needed\""));
    free(answer);
    assert_int_equal(status_of(&r, "/cluster/drain", r.cookie, "{\"name\":\"phone\"}"), 403);
    assert_string_equal(fake_seen(r.api.cluster)->drained, "");
    answer = ask(&r, "/cluster/drain", page, "{\"name\":\"phone\"}", &status);
    assert_int_equal(status, 200);
    assert_non_null(strstr(answer, "{\"name\":\"phone\"}"));
    assert_string_equal(fake_seen(r.api.cluster)->drained, "phone");
    free(answer);
    answer = ask(&r, "/cluster/drain", page, "{\"name\":\"tablet\"}", &status);
    assert_int_equal(status, 404);
    assert_non_null(strstr(answer, "\"code\":\"unknown_device\""));
    free(answer);
    assert_int_equal(status_of(&r, "/cluster/drain", page, "{\"name\":\"head\"}"), 400);
    assert_int_equal(status_of(&r, "/cluster/drain", page, "{\"name\":7}"), 400);
    assert_int_equal(status_of(&r, "/cluster/drain", page, "{}"), 400);
    assert_int_equal(status_of(&r, "/cluster/drain", page, "[]"), 400);
    rig_close(&r);
}

static void test_invite(void **state)
{
    struct rig r = {0};
    char page[512], *answer;
    json_t *o;
    int status;

    rig_open(&r, NULL);
    assert_int_equal(status_of(&r, "/cluster/invite", r.origin, "{}"), 403);
    assert_int_equal(fake_seen(r.api.cluster)->n_invited, 0);
    enter(&r);
    snprintf(page, sizeof page, "%s%s", r.cookie, r.origin);
    answer = ask(&r, "/cluster/invite", page, "", &status);
    assert_int_equal(status, 200);
    o = json_loads(strstr(answer, "\r\n\r\n"), 0, NULL);
    assert_string_equal(at_text(o, "token"), "aaaa-bbbb-cccc-1");
    assert_string_equal(at_text(o, "command"), "lingua join 192.168.1.5:7333");
    assert_int_equal(at_number(o, "expires_s"), 900);
    /* Square, and with a finder in its corner. */
    assert_true(json_array_size(at(o, "qr")) >= 21);
    for (size_t i = 0; i < json_array_size(at(o, "qr")); i++)
        assert_int_equal(strlen(json_string_value(json_array_get(at(o, "qr"), i))),
                         json_array_size(at(o, "qr")));
    assert_memory_equal(at_text(o, "qr.0"), "11111110", 8);
    assert_memory_equal(at_text(o, "qr.1"), "10000010", 8);
    json_decref(o);
    free(answer);
    rig_close(&r);
}

/* ---- what it is told ---- */

static int count(const struct client *c, const char *what)
{
    int n = 0;

    for (const char *at = c->in; (at = strstr(at, what)); at += strlen(what))
        n++;
    return n;
}

static void test_events(void **state)
{
    struct rig r = {0};
    struct client a, b;

    rig_open(&r, NULL);
    send_it(&r, &a, "/cluster/events", "", NULL);
    assert_true(client_wait(&a, "\"time_ms\":1}\n\n"));
    assert_non_null(strstr(a.in, "Content-Type: text/event-stream"));
    assert_non_null(strstr(a.in, "retry: 1000\n\n"));
    assert_non_null(strstr(a.in, "event: cluster\ndata: {\"head\":\"head\","));
    assert_non_null(strstr(a.in, "\"alias\":\"tiny\""));
    send_it(&r, &b, "/cluster/events", "", NULL);
    assert_true(client_wait(&b, "\"moved\":0"));
    assert_int_equal(fake_seen(r.api.cluster)->n_watches, 1);
    fake_wish(r.api.cluster)->moved = 1;
    fake_changed(r.api.cluster);
    assert_true(client_wait(&a, "\"moved\":1"));
    assert_true(client_wait(&b, "\"moved\":1"));
    /* Without a word of a change, too. */
    fake_wish(r.api.cluster)->moved = 2;
    assert_true(client_wait(&a, "\"moved\":2"));
    assert_true(client_wait(&b, "\"moved\":2"));
    /* What is the same is not told again. */
    assert_int_equal(count(&a, "event: cluster"), 3);
    client_close(&a);
    fake_wish(r.api.cluster)->moved = 3;
    assert_true(client_wait(&b, "\"moved\":3"));
    client_close(&b);
    for (int i = 0; i < 200 && fake_seen(r.api.cluster)->n_watches; i++) {
        event_base_loop(r.api.base, EVLOOP_NONBLOCK);
        usleep(1000);
    }
    assert_int_equal(fake_seen(r.api.cluster)->n_watches, 0);
    rig_close(&r);
}

/* The document is made once, however many look on. */
static void test_many_watch(void **state)
{
    struct client *c = mem_zalloc(API_WATCHERS_MAX + 1, sizeof *c);
    struct rig r = {0};
    int n;

    rig_open(&r, NULL);
    for (int i = 0; i < API_WATCHERS_MAX; i++) {
        send_it(&r, &c[i], "/cluster/events", "", NULL);
        assert_true(client_wait(&c[i], "event: cluster"));
    }
    send_it(&r, &c[API_WATCHERS_MAX], "/cluster/events", "", NULL);
    assert_true(client_wait(&c[API_WATCHERS_MAX], "\r\n\r\n"));
    assert_non_null(strstr(c[API_WATCHERS_MAX].in, "HTTP/1.1 503"));
    assert_non_null(strstr(c[API_WATCHERS_MAX].in, "Retry-After: "));
    n = fake_seen(r.api.cluster)->n_documents;
    for (int k = 1; k <= 3; k++) {
        char what[32];

        snprintf(what, sizeof what, "\"moved\":%d", k);
        fake_wish(r.api.cluster)->moved = k;
        for (int i = 0; i < API_WATCHERS_MAX; i++)
            assert_true(client_wait(&c[i], what));
    }
    assert_true(fake_seen(r.api.cluster)->n_documents - n <= 8);
    for (int i = 0; i <= API_WATCHERS_MAX; i++)
        client_close(&c[i]);
    free(c);
    rig_close(&r); /* which ends those who look on */
}

static void test_close_while_watched(void **state)
{
    struct rig r = {0};
    struct client c;

    rig_open(&r, NULL);
    send_it(&r, &c, "/cluster/events", "", NULL);
    assert_true(client_wait(&c, "event: cluster"));
    api_close(r.api.api);
    r.api.api = NULL;
    assert_int_equal(fake_seen(r.api.cluster)->n_watches, 0);
    assert_true(client_wait_end(&c));
    client_close(&c);
    rig_close(&r);
}

static void test_only_the_headers(void **state)
{
    struct rig r = {0};
    struct client c;

    rig_open(&r, NULL);
    client_open(&c, r.api.base, api_port(r.api.api));
    client_say(&c, "HEAD /cluster/events HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
    assert_true(client_wait_end(&c));
    assert_non_null(strstr(c.in, "HTTP/1.1 200"));
    assert_null(strstr(c.in, "event: "));
    assert_int_equal(fake_seen(r.api.cluster)->n_watches, 0);
    client_close(&c);
    rig_close(&r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_files),
        cmocka_unit_test(test_codings),
        cmocka_unit_test(test_how_it_begins),
        cmocka_unit_test(test_long_orders_are_refused),
        cmocka_unit_test(test_what_it_opens),
        cmocka_unit_test(test_not_under_cors),
        cmocka_unit_test(test_drain),
        cmocka_unit_test(test_invite),
        cmocka_unit_test(test_events),
        cmocka_unit_test(test_many_watch),
        cmocka_unit_test(test_close_while_watched),
        cmocka_unit_test(test_only_the_headers),
    };

    signal(SIGPIPE, SIG_IGN);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
