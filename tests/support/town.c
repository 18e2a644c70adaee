#define _GNU_SOURCE
#include "support/town.h"

#include <event2/event.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "base/check.h"
#include "base/mem.h"
#include "support/tiny_model.h"

enum { WAIT_S = 60 };

struct job {
    void (*fn)(struct town *t, void *arg);
    void *arg;
    pthread_mutex_t lock;
    pthread_cond_t ready;
    bool done;
};

static void die(const char *what, const char *why)
{
    fprintf(stderr, "town: %s: %s\n", what, why);
    exit(1);
}

static void on_line(void *user, const char *component, const char *text)
{
    struct town *t = user;
    int n = snprintf(t->log + t->n_log, sizeof t->log - t->n_log, "[%s] %s\n", component, text);

    if (getenv("LINGUA_TOWN_LOG"))
        fprintf(stderr, "[%s] %s\n", component, text);
    if (n > 0 && t->n_log + (size_t)n < sizeof t->log)
        t->n_log += (size_t)n;
}

static void open_node(struct town *t, int i, const struct token *token)
{
    struct town_node *n = &t->node[i];
    char address[64];
    struct node_opts o = {.state_folder = n->state,
                          .cache_folder = n->cache,
                          .name = n->name,
                          .listen = "127.0.0.1:0",
                          .address = address,
                          .token = token,
                          .n_threads = 1,
                          .memory_bytes = n->memory_bytes,
                          .profile_windows = 1,
                          .profile_window_ms = 1,
                          .log = {on_line, t}};
    struct err_text et;

    snprintf(address, sizeof address, "127.0.0.1:%d", cluster_port(t->cluster));
    if (node_open(t->base, &o, &n->node, &et))
        die("node_open", et.text);
}

/* Each token admits one device; the head gives a fresh one when it was used. */
static void open_next(struct town *t, void *text)
{
    struct err_text et;
    struct token token;

    if (t->next_to_pair == t->n_nodes)
        return;
    if (token_parse(text, &token, &et))
        die("token_parse", et.text);
    open_node(t, t->next_to_pair++, &token);
}

static void on_invited(void *user, const char *token, const char *address)
{
    struct town *t = user;

    (void)address;
    if (t->cluster)
        open_next(t, (void *)(uintptr_t)token);
    else
        snprintf(t->first_token, sizeof t->first_token, "%s", token);
}

static void on_job(evutil_socket_t fd, short what, void *user)
{
    struct town *t = user;

    (void)fd;
    (void)what;
    event_base_loopbreak(t->base); /* run_loop takes it: node_close runs the loop itself */
}

static void take_jobs(struct town *t)
{
    struct job *j;

    while (read(t->pipe[0], &j, sizeof j) == sizeof j) {
        j->fn(t, j->arg);
        pthread_mutex_lock(&j->lock);
        j->done = true;
        pthread_cond_signal(&j->ready);
        pthread_mutex_unlock(&j->lock);
    }
}

void town_call(struct town *t, void (*fn)(struct town *t, void *arg), void *arg)
{
    struct job j = {.fn = fn, .arg = arg}, *p = &j;

    pthread_mutex_init(&j.lock, NULL);
    pthread_cond_init(&j.ready, NULL);
    CHECK(write(t->pipe[1], &p, sizeof p) == sizeof p);
    pthread_mutex_lock(&j.lock);
    while (!j.done)
        pthread_cond_wait(&j.ready, &j.lock);
    pthread_mutex_unlock(&j.lock);
    pthread_mutex_destroy(&j.lock);
    pthread_cond_destroy(&j.ready);
}

static void *run_loop(void *user)
{
    struct town *t = user;

    while (!t->ended) {
        event_base_loop(t->base, EVLOOP_NO_EXIT_ON_EMPTY);
        take_jobs(t);
    }
    return NULL;
}

static void make_folders(struct town *t)
{
    static int serial;
    char name[64];

    snprintf(name, sizeof name, "town-%d-%d", (int)getpid(), serial++);
    tiny_path(t->folder, (int)sizeof t->folder, name);
    if (mkdir(t->folder, 0700) < 0)
        die("mkdir", t->folder);
    snprintf(t->head_folder, sizeof t->head_folder, "%s/head", t->folder);
    for (int i = 0; i < t->n_nodes; i++) {
        snprintf(t->node[i].name, sizeof t->node[i].name, "dev-%d", i + 1);
        snprintf(t->node[i].state, sizeof t->node[i].state, "%s/%s", t->folder, t->node[i].name);
        snprintf(t->node[i].cache, sizeof t->node[i].cache, "%s/cache", t->node[i].state);
        if (mkdir(t->node[i].state, 0700) < 0 || mkdir(t->node[i].cache, 0700) < 0)
            die("mkdir", t->node[i].state);
    }
    if (mkdir(t->head_folder, 0700) < 0)
        die("mkdir", t->head_folder);
}

void town_open(struct town *t, const struct town_opts *opts, bool wait)
{
    struct cluster_opts o = {.model_path = opts->model_path,
                             .name = "head",
                             .listen = "127.0.0.1:0",
                             .n_threads = 1,
                             .memory_bytes = opts->head_memory,
                             .n_slots = opts->n_slots,
                             .n_ctx = opts->n_ctx,
                             .kv = opts->kv,
                             .want_private = opts->want_private,
                             .split = opts->split,
                             .api = opts->api,
                             .n_queue_max = opts->n_queue_max,
                             /* Everybody has a part, whatever each was measured at. */
                             .equal = !opts->split && !opts->want_private && !opts->node_memory,
                             .profile_windows = 1,
                             .profile_window_ms = 1,
                             .invited = on_invited,
                             .user = t};
    struct err_text et;

    memset(t, 0, sizeof *t);
    signal(SIGPIPE, SIG_IGN);
    t->n_nodes = opts->n_devices - 1;
    for (int i = 0; i < t->n_nodes; i++)
        t->node[i].memory_bytes = opts->node_memory;
    make_folders(t);
    o.state_folder = t->head_folder;
    o.log = (struct log){on_line, t};
    t->base = event_base_new();
    CHECK(t->base && event_base_priority_init(t->base, 3) == 0);
    CHECK(pipe2(t->pipe, O_CLOEXEC) == 0);
    fcntl(t->pipe[0], F_SETFL, O_NONBLOCK);
    t->waker = event_new(t->base, t->pipe[0], EV_READ | EV_PERSIST, on_job, t);
    event_add(t->waker, NULL);
    if (cluster_open(t->base, &o, &t->cluster, &et))
        die("cluster_open", et.text);
    CHECK(pthread_create(&t->thread, NULL, run_loop, t) == 0);
    town_call(t, open_next, t->first_token);
    if (wait)
        town_wait(t, opts->n_devices);
}

static void close_all(struct town *t, void *arg)
{
    (void)arg;
    for (int i = 0; i < t->n_nodes; i++)
        if (t->node[i].node)
            node_close(t->node[i].node);
    cluster_close(t->cluster);
    t->ended = true;
}

void town_close(struct town *t)
{
    char *command = mem_printf("rm -rf '%s'", t->folder);

    town_call(t, close_all, NULL);
    pthread_join(t->thread, NULL);
    event_free(t->waker);
    /* Callbacks that were put off hold what they are for. */
    event_base_loop(t->base, EVLOOP_NONBLOCK);
    event_base_free(t->base);
    close(t->pipe[0]);
    close(t->pipe[1]);
    if (system(command) != 0) /* NOLINT: a path this test made */
        fprintf(stderr, "town: could not remove %s\n", t->folder);
    free(command);
}

static void get_json(struct town *t, void *arg)
{
    *(json_t **)arg = cluster_json(t->cluster);
}

json_t *town_json(struct town *t)
{
    json_t *o = NULL;

    town_call(t, get_json, &o);
    return o;
}

void town_wait(struct town *t, int n)
{
    const struct timespec nap = {0, 20000000};
    time_t until = time(NULL) + WAIT_S;

    for (;;) {
        json_t *o = town_json(t), *d;
        int n_ready = 0;
        size_t i;
        bool running = strcmp(json_string_value(json_object_get(o, "state")), "running") == 0;

        json_array_foreach(json_object_get(o, "devices"), i, d) n_ready +=
            *json_string_value(json_object_get(d, "modules")) &&
            strcmp(json_string_value(json_object_get(d, "state")), "ready") == 0;
        if (time(NULL) > until) {
            json_dumpf(o, stderr, JSON_INDENT(1));
            fprintf(stderr, "\n%s", t->log);
            die("the cluster did not come up", "see above");
        }
        json_decref(o);
        if (running && n_ready == n)
            return;
        nanosleep(&nap, NULL);
    }
}

static void leave(struct town *t, void *arg)
{
    struct town_node *n = &t->node[*(int *)arg];

    node_close(n->node);
    n->node = NULL;
}

void town_leave(struct town *t, int i)
{
    town_call(t, leave, &i);
}

static void come_back(struct town *t, void *arg)
{
    open_node(t, *(int *)arg, NULL);
}

void town_return(struct town *t, int i)
{
    town_call(t, come_back, &i);
}

struct pairing {
    int i;
    struct token token;
};

static void pair_node(struct town *t, void *arg)
{
    struct pairing *p = arg;

    open_node(t, p->i, &p->token);
}

void town_pair(struct town *t, int i, const char *token)
{
    struct pairing p = {.i = i};
    struct err_text et;

    if (token_parse(token, &p.token, &et))
        die("token_parse", et.text);
    town_call(t, pair_node, &p);
}

struct ll_engine *town_engine(struct town *t)
{
    struct ll_engine_opts opts = ll_engine_defaults();
    struct ll_engine *engine;
    struct ll_error error;

    opts.cluster = t->head_folder;
    opts.n_sessions = 2;
    if (ll_engine_open(&opts, &engine, &error))
        die("ll_engine_open", error.message);
    return engine;
}
