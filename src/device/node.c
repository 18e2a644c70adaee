#include "device/node.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/check.h"
#include "base/mem.h"
#include "base/sys.h"
#include "device/node_impl.h"

enum { LEAVE_MS = 300 }; /* for the last word to go out */

/* ---- what is shown ---- */

void node_say(struct node *n)
{
    n->status_us = clock_us();
    if (n->status_call)
        n->status_call(n->user, &n->status);
}

void node_say_progress(struct node *n, uint64_t done, uint64_t total)
{
    n->status.done = done;
    n->status.total = total;
    if (done == total || clock_us() - n->status_us >= STATUS_EVERY_MS * 1000)
        node_say(n);
}

void node_trouble(struct node *n, const char *fmt, ...)
{
    char words[ERR_TEXT_MAX];
    struct err_text clean;
    va_list ap;

    va_start(ap, fmt);
    vsnprintf(words, sizeof words, fmt, ap);
    va_end(ap);
    (void)err_set(&clean, ERR_NONE, "%s", words);
    if (strcmp(n->status.trouble, clean.text) == 0)
        return;
    memcpy(n->status.trouble, clean.text, sizeof n->status.trouble);
    node_say(n);
}

static enum node_state state_of(const struct node *n)
{
    const struct epoch *now = n->now && !n->now->over ? n->now : NULL;

    if (n->ended)
        return NODE_ENDED;
    if (!n->head_open)
        return NODE_DIALLING;
    if ((n->next && n->next->fetch) || (now && now->fetch))
        return NODE_FETCHING;
    if (n->loading || (now && !now->ready && !now->failed))
        return NODE_LOADING;
    if (now && now->ready)
        return NODE_READY;
    return n->asked.wanted ? NODE_MEASURING : NODE_WAITING;
}

void node_update(struct node *n)
{
    n->status.state = state_of(n);
    memcpy(n->status.head_name, n->known.head_name, sizeof n->status.head_name);
    memcpy(n->status.name, n->known.name, sizeof n->status.name);
    node_say(n);
}

void node_end(struct node *n, enum err e, const char *fmt, ...)
{
    char words[ERR_TEXT_MAX];
    va_list ap;

    va_start(ap, fmt);
    vsnprintf(words, sizeof words, fmt, ap);
    va_end(ap);
    n->ended = err_set(&n->ended_text, e, "%s", words);
    head_close(n);
    epoch_stop(n);
    log_say(&n->log, "node", "%s", n->ended_text.text);
    n->status.state = NODE_ENDED;
    node_trouble(n, "%s", n->ended_text.text);
    node_update(n);
    event_base_loopbreak(n->base);
}

/* ---- opening ---- */

/* Its identity, and what it knows of a cluster. */
static enum err open_state(struct node *n, const struct node_opts *opts, struct err_text *et)
{
    bool there;
    enum err e = folder_lock(opts->state_folder, &n->lock_fd, et);

    if (!e)
        e = identity_open(opts->state_folder, &n->identity, et);
    if (!e)
        e = remembered_read(opts->state_folder, &n->known, &there, et);
    if (e == ERR_INPUT && n->identity && opts->token) {
        there = false; /* a token mends a damaged file */
        e = ERR_NONE;
    }
    if (e)
        return e;
    n->has_token = opts->token != NULL;
    if (opts->token)
        n->token = *opts->token;
    /* A token of the head we belong to already is kept for the case that it has removed us. */
    n->joined = there && (!opts->token || token_names(opts->token, &n->known.head));
    if (!n->joined && !opts->token)
        return err_set(et, ERR_INPUT,
                       "this device belongs to no cluster yet: join with the token that "
                       "`lingua serve` shows on the head");
    if (!n->joined)
        memset(&n->known, 0, sizeof n->known);
    else
        e = remembered_roster(opts->state_folder, &n->known.head, &n->roster, et);
    return e;
}

static enum err measure(struct node *n, const struct node_opts *opts, struct err_text *et)
{
    struct compute *c;
    enum err e = compute_open(opts->n_threads, &c, et);

    if (e)
        return e;
    n->base_bytes = profile_base_bytes(opts->state_folder);
    e = profile_speed(c, opts->state_folder, opts->memory_bytes, &n->bytes_per_s, et);
    compute_close(c);
    n->memory_bytes = opts->memory_bytes ? opts->memory_bytes : sys_available_bytes() / 10 * 7;
    return e;
}

static enum err open_links(struct node *n, const struct node_opts *opts, struct err_text *et)
{
    struct hub_opts h = {.base = n->base,
                         .identity = n->identity,
                         .log = n->log,
                         .calls = &stages_accept_calls,
                         .user = n};
    enum err e;

    memcpy(h.name, n->own_name, sizeof h.name);
    e = hub_open(&h, &n->hub, et);
    if (!e)
        e = hub_listen(n->hub, opts->listen ? opts->listen : "*", 0, &n->port, et);
    return e;
}

static void node_free(struct node *n)
{
    if (n->hub)
        hub_close(n->hub);
    profile_fini(n);
    if (n->cache)
        cache_close(n->cache);
    roster_close(n->roster);
    identity_close(n->identity);
    if (n->lock_fd >= 0)
        close(n->lock_fd);
    if (n->retry)
        event_free(n->retry);
    if (n->silence)
        event_free(n->silence);
    token_wipe(&n->token);
    free(n->checked);
    free(n->folder);
    free(n->cache_folder);
    free(n->own_address);
    free(n);
}

enum err node_open(struct event_base *base, const struct node_opts *opts, struct node **out,
                   struct err_text *et)
{
    struct node *n = mem_zalloc(1, sizeof *n);
    enum err e;

    *out = NULL;
    n->base = base;
    n->log = opts->log;
    n->status_call = opts->status;
    n->user = opts->user;
    n->folder = mem_strdup(opts->state_folder);
    n->cache_folder = opts->cache_folder ? mem_strdup(opts->cache_folder) : NULL;
    n->cap = opts->cap ? opts->cap : 100;
    n->spare = opts->spare;
    n->profile_windows = opts->profile_windows;
    n->profile_window_ms = opts->profile_window_ms;
    n->own_address = opts->address ? mem_strdup(opts->address) : NULL;
    n->n_threads = opts->n_threads;
    n->lock_fd = -1;
    snprintf(n->own_name, sizeof n->own_name, "%s", opts->name);
    e = open_state(n, opts, et);
    if (!e)
        e = measure(n, opts, et);
    if (!e)
        e = cache_open(opts->cache_folder, opts->cache_bytes, &n->log, &n->cache, et);
    if (!e)
        e = open_links(n, opts, et);
    if (!e)
        e = worker_open(base, opts->n_threads, &epoch_worker_calls, n, &n->worker, et);
    if (e) {
        node_free(n);
        return e;
    }
    *out = n;
    head_init(n);
    profile_init(n);
    node_update(n);
    head_begin(n);
    return ERR_NONE;
}

/* ---- the rest of its life ---- */

void node_found(struct node *n, const char *address)
{
    head_found(n, address);
}

enum err node_ended(const struct node *n, struct err_text *et)
{
    return n->ended ? err_set(et, n->ended, "%s", n->ended_text.text) : ERR_NONE;
}

void node_close(struct node *n)
{
    int64_t until = clock_us() + LEAVE_MS * 1000;
    struct epoch *stopped;

    if (!n)
        return;
    n->status_call = NULL;
    head_say_leave(n, "it was stopped there");
    if (!n->ended)
        n->ended = ERR_CANCELLED; /* no more dialling */
    while (n->head_open && link_pending(n->head) && clock_us() < until) {
        if (event_base_loop(n->base, EVLOOP_NONBLOCK) < 0)
            break;
        usleep(1000);
    }
    head_close(n);
    worker_close(n->worker);
    stopped = n->loading != n->now ? n->loading : NULL;
    n->loading = NULL; /* no call comes any more */
    epoch_free(stopped);
    epoch_free(n->was);
    epoch_free(n->now);
    node_free(n);
}
