#include "api/watch.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "api/api_impl.h"
#include "api/json.h"
#include "base/check.h"
#include "base/mem.h"
#include "base/sys.h"
#include "head/cluster.h"

enum {
    LOOK_US = 500000,
    SOON_US = 250000, /* between two documents at least */
    PING_US = 15000000,
    TIME_MAX = 48,
};

static const char hello[] = "retry: 1000\n\n", ping[] = ": ping\n\n";

struct watcher {
    struct watch *watch;
    struct call *call; /* NULL: free */
    bool due;          /* has not got the newest */
    int64_t sent_us;
};

struct watch {
    struct api *api;
    struct watcher watcher[API_WATCHERS_MAX];
    int n;
    struct cluster_watch look; /* the cluster's, while n > 0 */
    struct event *timer;
    int64_t made_us;
    char *text;  /* the newest document, without its time; NULL: none */
    char *event; /* the same as it is sent */
};

static json_t *document(const struct api *a)
{
    json_t *o = cluster_json(a->cluster);

    json_object_set_new(json_object_get(o, "model"), "alias",
                        json_text(api_model(a), strlen(api_model(a))));
    return o;
}

/* ---- the newest ---- */

static void forget(struct watch *w)
{
    free(w->text);
    free(w->event);
    w->text = w->event = NULL;
    w->made_us = 0;
}

/* Time goes on by itself: a document that differs in nothing else is no news. */
static void make(struct watch *w, int64_t now)
{
    json_t *o = document(w->api);
    long long time_ms = json_integer_value(json_object_get(o, "time_ms"));
    char *text;

    json_object_del(o, "time_ms");
    text = json_dumps(o, JSON_COMPACT | JSON_REAL_PRECISION(HTTP_DIGITS));
    json_decref(o);
    CHECK(text && text[0] == '{' && text[1] != '}');
    w->made_us = now;
    if (w->text && strcmp(text, w->text) == 0) {
        free(text);
        return;
    }
    free(w->text);
    free(w->event);
    w->text = text;
    w->event = mem_printf("event: cluster\ndata: %.*s,\"time_ms\":%lld}\n\n", (int)strlen(text) - 1,
                          text, time_ms);
    for (int i = 0; i < API_WATCHERS_MAX; i++)
        w->watcher[i].due = w->watcher[i].call;
}

static void give(struct watcher *x, int64_t now)
{
    const char *text = x->due ? x->watch->event : now - x->sent_us >= PING_US ? ping : NULL;

    if (!text || call_unread(x->call) > 0)
        return;
    x->due = false;
    x->sent_us = now;
    http_stream_bytes(x->call, text, strlen(text));
}

static void look_within(struct watch *w, int64_t us)
{
    const struct timeval tv = {us / 1000000, us % 1000000};

    event_add(w->timer, &tv);
}

static void on_time(evutil_socket_t fd, short what, void *user)
{
    struct watch *w = user;
    int64_t now = clock_us();

    (void)fd;
    (void)what;
    make(w, now);
    for (int i = 0; i < API_WATCHERS_MAX; i++)
        if (w->watcher[i].call)
            give(&w->watcher[i], now);
    if (w->n > 0)
        look_within(w, LOOK_US);
}

static void on_changed(void *user)
{
    struct watch *w = user;
    int64_t since = clock_us() - w->made_us;

    look_within(w, since < SOON_US ? SOON_US - since : 0);
}

struct watch *watch_new(struct api *a)
{
    struct watch *w = mem_zalloc(1, sizeof *w);

    w->api = a;
    w->look = (struct cluster_watch){.changed = on_changed, .user = w};
    w->timer = evtimer_new(a->base, on_time, w);
    CHECK(w->timer);
    return w;
}

void watch_free(struct watch *w)
{
    CHECK(w->n == 0);
    event_free(w->timer);
    free(w);
}

/* ---- watchers ---- */

static void on_gone(void *user)
{
    struct watcher *x = user;
    struct watch *w = x->watch;

    *x = (struct watcher){0};
    if (--w->n > 0)
        return;
    cluster_unwatch(w->api->cluster, &w->look);
    event_del(w->timer);
    forget(w);
}

static struct watcher *watcher_free(struct watch *w)
{
    for (int i = 0; i < API_WATCHERS_MAX; i++)
        if (!w->watcher[i].call)
            return &w->watcher[i];
    return NULL;
}

static void begin(struct watcher *x)
{
    struct watch *w = x->watch;
    int64_t now = clock_us();

    if (w->n++ == 0) {
        cluster_watch(w->api->cluster, &w->look);
        cluster_refresh(w->api->cluster);
        look_within(w, LOOK_US);
    }
    if (!w->event || now - w->made_us >= SOON_US)
        make(w, now); /* the others get it with the next look */
    x->due = false;
    x->sent_us = now;
    http_stream_begin(x->call);
    http_stream_bytes(x->call, hello, sizeof hello - 1);
    http_stream_bytes(x->call, w->event, strlen(w->event));
}

void handle_events(void *user, struct call *call)
{
    struct api *a = user;
    struct watcher *x = watcher_free(a->watch);
    struct fault f = {0};

    if (call_is_head(call)) {
        http_reply_bytes(call, 200, "text/event-stream; charset=utf-8", "", 0);
        return;
    }
    if (!x) {
        fault_err(&f, ERR_LIMIT, "as many pages as can be are looking on already; close one", true,
                  5);
        fault_reply(call, &f);
        return;
    }
    *x = (struct watcher){.watch = a->watch, .call = call};
    call_on_gone(call, on_gone, x);
    begin(x);
}

void handle_cluster(void *user, struct call *call)
{
    const struct api *a = user;

    http_header(call, "Cache-Control", "no-store");
    http_header(call, "X-Content-Type-Options", "nosniff");
    http_reply(call, 200, document(a));
    cluster_refresh(a->cluster);
}
