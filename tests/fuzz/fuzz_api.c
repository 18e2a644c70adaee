/* What strangers may ask of the API, from the request's path and body through JSON, parameters and
 * the routes to generations, the core and the answer; all of it the real code, but for sockets,
 * threads, children and devices (api_world.h).
 *
 * Input: byte 0 is bits of struct world_opts, byte 1 the order of events and when things go wrong.
 * Then up to REQUESTS_MAX requests, with 0xff 0xff between them: a byte for the route, a byte for
 * when its client goes away (0: never; up to 127: after so many events of its stream; else after 128
 * turns less), and the body. */
#include <stdlib.h>
#include <string.h>

#include "api/api_impl.h"
#include "api/session.h"
#include "base/check.h"
#include "base/mem.h"
#include "fuzz/api_world.h"

enum {
    REQUESTS_MAX = 4,
    HEADER_MAX = 128,
    TURNS_MAX = 6000,       /* then all clients go away */
    TURNS_LEFT_MAX = 60000, /* of what is under way without clients */
    FLAG_BROKEN = 1,
    FLAG_TOOLS = 2,
    FLAG_FAIL = 4,
    FLAG_LOSE = 8,
    FLAG_NO_DEVICES = 16,
};

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* ---- HTTP without sockets ---- */

enum state { FREE, ASKED, STREAMING, ANSWERED };

struct call {
    enum state state;
    char path[64];
    char *body;   /* of exactly that size, so that a read beyond it is seen */
    char *header; /* what any header says: the body's beginning */
    size_t n_body;
    int flow, n_events;
    int gone_events, gone_turns; /* when the client goes away; 0 = never */
    void (*gone)(void *user);
    void *user;
};

static struct http {
    struct http_table table;
    struct call call[REQUESTS_MAX];
    int n_calls; /* made so far */
} server;

enum err http_open(struct event_base *base, const struct api_opts *opts,
                   const struct http_table *table, struct http **out, struct err_text *et)
{
    (void)base;
    (void)opts;
    (void)et;
    server.table = *table;
    *out = &server;
    return ERR_NONE;
}

void http_close(struct http *h)
{
    CHECK(h == &server);
}

int http_port(const struct http *h)
{
    CHECK(h == &server);
    return 8080;
}

void http_stats(const struct http *h, struct http_stats *out)
{
    *out = (struct http_stats){.n_calls = h->n_calls};
}

const char *call_path(const struct call *c)
{
    return c->path;
}

const struct session *http_session(const struct http *h)
{
    static const struct session session = {
        .key = "0123456789abcdef0123456789abcdef0123456789abcdef", .name = "lingua_8080"};

    CHECK(h == &server);
    return &session;
}

const char *call_header(const struct call *c, const char *name)
{
    return *name && c->n_body ? c->header : NULL;
}

bool call_is_head(const struct call *c)
{
    CHECK(c->state == ASKED);
    return false;
}

bool call_is_post(const struct call *c)
{
    return c->n_body > 0;
}

bool call_has_session(const struct call *c)
{
    return c->flow % 2;
}

bool call_is_let_in(const struct call *c)
{
    return c->flow % 2;
}

bool call_is_of_page(const struct call *c)
{
    return c->n_body % 2;
}

const char *call_query(const struct call *c, const char *name)
{
    return c->flow % 2 ? name : NULL;
}

const char *call_body(const struct call *c, size_t *n)
{
    *n = c->n_body;
    return c->body;
}

int call_flow(const struct call *c)
{
    return c->flow;
}

void call_on_gone(struct call *c, void (*gone)(void *user), void *user)
{
    CHECK(c->state == ASKED && !c->gone);
    c->gone = gone;
    c->user = user;
}

void call_id(const char *prefix, char buf[CALL_ID_MAX])
{
    CHECK(strlen(prefix) + 24 < CALL_ID_MAX);
    strcpy(buf, prefix);
    strcat(buf, "0123456789abcdefghijklmn");
}

static void call_over(struct call *c)
{
    free(c->body);
    free(c->header);
    c->body = c->header = NULL;
    c->state = ANSWERED;
}

/* Takes json. Everything that is answered can be written. */
static void json_check(json_t *json)
{
    char *text = json_dumps(json, JSON_COMPACT);

    CHECK(json && text);
    free(text);
    json_decref(json);
}

void http_reply(struct call *c, int status, json_t *json)
{
    CHECK(c->state == ASKED && status >= 200 && status < 600);
    json_check(json);
    call_over(c);
}

void http_reply_bytes(struct call *c, int status, const char *type, const void *bytes, size_t n)
{
    CHECK(c->state == ASKED && status >= 200 && status < 600 && type && (bytes || n == 0));
    call_over(c);
}

void http_header(struct call *c, const char *name, const char *value)
{
    CHECK(c->state == ASKED && name && value && !strpbrk(value, "\r\n"));
}

void http_stream_begin(struct call *c)
{
    CHECK(c->state == ASKED);
    c->state = STREAMING;
}

void http_event(struct call *c, const char *data, size_t n)
{
    CHECK(c->state == STREAMING && n > 0 && !memchr(data, '\n', n));
    c->n_events++;
}

void http_event_json(struct call *c, json_t *json)
{
    CHECK(c->state == STREAMING);
    json_check(json);
    c->n_events++;
}

/* Somebody who looks on does so for ever: this one goes at once. */
void http_stream_bytes(struct call *c, const char *bytes, size_t n)
{
    CHECK(c->state == STREAMING && n > 2 && memcmp(bytes + n - 2, "\n\n", 2) == 0);
    c->gone_events = 1;
    c->n_events++;
}

size_t call_unread(const struct call *c)
{
    CHECK(c->state == STREAMING);
    return 0;
}

void http_stream_end(struct call *c)
{
    CHECK(c->state == STREAMING);
    call_over(c);
}

/* ---- requests ---- */

static void ask(const uint8_t *data, size_t size)
{
    struct call *c = &server.call[server.n_calls];
    const struct http_route *route = &server.table.routes[(data[0] & 127) % server.table.n_routes];
    size_t n = strlen(route->path);

    *c = (struct call){.state = ASKED, .flow = server.n_calls++ / 2};
    CHECK(n + 5 <= sizeof c->path);
    strcpy(c->path, route->path);
    if (c->path[n - 1] == '/')
        strcat(c->path, data[0] & 128 ? "tiny" : "else");
    c->gone_events = data[1] < 128 ? data[1] : 0;
    c->gone_turns = data[1] < 128 ? 0 : 1 + data[1] - 128;
    c->n_body = size - 2;
    c->body = mem_alloc(c->n_body);
    memcpy(c->body, data + 2, c->n_body);
    c->header = mem_zalloc(1, HEADER_MAX);
    memcpy(c->header, c->body, c->n_body < HEADER_MAX ? c->n_body : HEADER_MAX - 1);
    route->handle(server.table.user, c);
}

/* Where the next request begins, behind 0xff 0xff; NULL: nowhere. */
static const uint8_t *next_ask(const uint8_t *data, const uint8_t *end)
{
    for (const uint8_t *p = data + 2; p + 2 <= end; p++)
        if (p[0] == 0xff && p[1] == 0xff)
            return p + 2;
    return NULL;
}

static void ask_all(const uint8_t *data, size_t size)
{
    const uint8_t *end = data + size, *next;

    server.n_calls = 0;
    for (; data && end - data >= 2 && server.n_calls < REQUESTS_MAX; data = next) {
        next = next_ask(data, end);
        ask(data, (size_t)((next ? next - 2 : end) - data));
    }
}

static void leave(struct call *c)
{
    /* Whoever is told of it lets go of the call. */
    CHECK(c->gone);
    c->gone(c->user);
    call_over(c);
}

/* Clients that go away now; returns how many wait. */
static int clients_look(int turn)
{
    int n = 0;

    for (int i = 0; i < server.n_calls; i++) {
        struct call *c = &server.call[i];

        if (c->state == ANSWERED)
            continue;
        if ((c->gone_events && c->n_events >= c->gone_events) ||
            (c->gone_turns && turn >= c->gone_turns) || turn >= TURNS_MAX)
            leave(c);
        else
            n++;
    }
    return n;
}

static void run(const uint8_t *data, size_t size)
{
    const struct api_opts opts = {.alias = "tiny"};
    struct err_text et;
    static struct event_base *base; /* never turned */
    struct api *a;
    int n_left = 0;

    if (!base)
        base = event_base_new();
    CHECK(api_open(base, world_cluster(), &opts, &a, &et) == ERR_NONE);
    ask_all(data, size);
    for (int turn = 0; clients_look(turn) > 0; turn++)
        /* Nobody may wait for what never comes. */
        CHECK(world_turn());
    for (; a->n_works > 0; n_left++) {
        CHECK(n_left < TURNS_LEFT_MAX);
        CHECK(world_turn());
    }
    CHECK(a->n_refs == 1);
    api_close(a);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static bool is_open;
    struct world_opts o;

    if (size < 4)
        return 0;
    if (!is_open)
        world_open();
    is_open = true;
    o = (struct world_opts){.order = data[1],
                            .broken = data[0] & FLAG_BROKEN,
                            .tools = data[0] & FLAG_TOOLS,
                            .fail_step = data[0] & FLAG_FAIL ? 1 + data[1] % 8 : 0,
                            .lose_step = data[0] & FLAG_LOSE ? 1 + data[1] % 11 : 0,
                            .no_devices = data[0] & FLAG_NO_DEVICES};
    world_begin(&o);
    run(data + 2, size - 2);
    world_end();
    return 0;
}
