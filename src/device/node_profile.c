/* What the head wants to know of this device's speed for its model, from PROFILE_ASK to PROFILE.
 *
 *   1. What is remembered is answered at once.
 *   2. Else the model's header is fetched from the head. An epoch's weights go before it: a fetch
 *      of ours is dropped when an epoch's begins, and begun again when nothing else moves.
 *   3. The worker measures. A load goes before that, too, and it is begun again behind it.
 *
 * At most one job is with the worker; its mirror is kept until the worker has answered. */
#include <stdlib.h>
#include <string.h>

#include "base/check.h"
#include "base/mem.h"
#include "device/node_impl.h"
#include "device/profile.h"

enum { AGAIN_MS = 200 };

static void go(struct node *n);

static void send_profile(struct node *n, const struct wire_profile *m)
{
    struct wire_buf buf;
    struct frame_out f;

    wire_profile_encode(m, &buf, &f);
    head_send(n, &f);
}

static void answer(struct node *n, enum err code, const char *why, const struct wire_profile *p)
{
    struct asked *a = &n->asked;
    struct wire_profile *m = mem_zalloc(1, sizeof *m);

    if (p)
        *m = *p;
    m->classes = a->ask.classes;
    m->n_threads = n->n_threads;
    m->code = code;
    if (code) {
        m->n_classes = 0;
        (void)err_set(&m->text, code, "%s", why);
        log_say(&n->log, "node", "measuring: %s", m->text.text);
    }
    a->wanted = false;
    send_profile(n, m);
    free(m);
    node_update(n);
}

static void go_later(struct node *n)
{
    event_add(n->asked.again, &(struct timeval){.tv_usec = AGAIN_MS * 1000});
}

static void on_measured(void *user, enum err e, const char *why, const struct wire_profile *p)
{
    struct node *n = user;
    struct asked *a = &n->asked;
    bool stale = a->stale;

    a->measuring = a->stale = false;
    mirror_close(a->mirror);
    a->mirror = NULL;
    if (!a->wanted)
        return;
    if (stale)
        go(n);
    else if (e == ERR_CANCELLED)
        go_later(n); /* something was loaded first */
    else if (!e && (p->classes != a->ask.classes || p->n_classes != a->ask.n_classes))
        answer(n, ERR_UNSUPPORTED,
               "this device tells the modules of this model apart in another way than the head; "
               "run the same version of lingua on both",
               NULL);
    else
        answer(n, e, why, p);
}

static void measure(struct node *n)
{
    struct asked *a = &n->asked;
    const struct worker_profile job = {
        .path = mirror_path(a->mirror),
        .folder = n->folder,
        .kv = (enum kv_type)a->ask.kv,
        .memory_bytes = n->memory_bytes,
        .windows = n->profile_windows,
        .window_ms = n->profile_window_ms,
        .done = on_measured,
        .user = n,
    };

    a->measuring = true;
    worker_profile(n->worker, &job);
    node_update(n);
}

/* ---- the header ---- */

static void on_fetching(void *user, uint64_t done, uint64_t total, uint64_t received)
{
    (void)user; /* a header is soon there, and nobody waits for it with a bar */
    (void)done;
    (void)total;
    (void)received;
}

static void on_fetched(void *user, enum err e, const char *why, struct mirror *mirror)
{
    struct node *n = user;

    n->asked.fetch = NULL;
    if (e) {
        answer(n, e, why, NULL);
        return;
    }
    n->asked.mirror = mirror;
    measure(n);
}

static void fetch_header(struct node *n)
{
    static const struct fetch_calls calls = {on_fetching, on_fetched};
    struct wire_peer *head = mem_alloc(sizeof *head);
    struct wire_greet greet = {.purpose = WIRE_FOR_BULK};
    struct fetch_opts opts = {.base = n->base,
                              .hub = n->hub,
                              .cache = n->cache,
                              .log = n->log,
                              .source = head,
                              .n_sources = 1,
                              .greet = &greet,
                              .calls = &calls,
                              .user = n};

    head_as_source(n, head);
    memcpy(opts.model, n->asked.ask.model, sizeof opts.model);
    memcpy(greet.name, n->own_name, sizeof greet.name);
    n->asked.fetch = fetch_begin(&opts);
    free(head);
    node_update(n);
}

/* ---- from outside ---- */

static bool epoch_moves(const struct node *n)
{
    return n->loading || (n->next && n->next->fetch) || (n->now && n->now->fetch);
}

static void go(struct node *n)
{
    struct asked *a = &n->asked;

    if (!a->wanted || a->fetch || a->measuring)
        return;
    if (epoch_moves(n))
        go_later(n);
    else
        fetch_header(n);
}

static void on_again(evutil_socket_t fd, short what, void *user)
{
    (void)fd;
    (void)what;
    go(user);
}

void profile_init(struct node *n)
{
    n->asked.again = evtimer_new(n->base, on_again, n);
    CHECK(n->asked.again);
}

void profile_fini(struct node *n)
{
    if (n->asked.again)
        event_free(n->asked.again);
    mirror_close(n->asked.mirror);
}

/* What is under way is for nobody any more. */
static void drop(struct node *n)
{
    struct asked *a = &n->asked;

    (void)event_del(a->again);
    fetch_cancel(a->fetch);
    a->fetch = NULL;
    if (a->measuring && !a->stale) {
        a->stale = true;
        worker_profile_cancel(n->worker);
    }
}

static bool same_ask(const struct wire_profile_ask *a, const struct wire_profile_ask *b)
{
    return memcmp(a->model, b->model, sizeof a->model) == 0 && a->classes == b->classes &&
           a->n_classes == b->n_classes && a->kv == b->kv;
}

void profile_ask(struct node *n, const struct wire_profile_ask *m)
{
    struct asked *a = &n->asked;
    struct wire_profile *known;

    if (a->wanted && same_ask(&a->ask, m))
        return; /* it is being seen to */
    drop(n);
    a->ask = *m;
    a->wanted = true;
    known = mem_alloc(sizeof *known);
    if (m->kv < KV_F16 || m->kv > KV_F32)
        answer(n, ERR_UNSUPPORTED, "this build does not know that type of KV cache", NULL);
    else if (profile_recall(n->folder, m->classes, m->n_classes, n->n_threads, known))
        answer(n, ERR_NONE, "", known);
    else
        go(n);
    free(known);
}

void profile_yield(struct node *n)
{
    struct asked *a = &n->asked;

    if (!a->fetch)
        return;
    fetch_cancel(a->fetch);
    a->fetch = NULL;
    go_later(n);
}

void profile_head_lost(struct node *n)
{
    drop(n);
    n->asked.wanted = false;
}
