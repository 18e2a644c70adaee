#define _GNU_SOURCE
#include "head/cluster.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/random.h>
#include <unistd.h>

#include "base/check.h"
#include "base/mem.h"
#include "base/sys.h"
#include "device/node.h"
#include "head/cluster_impl.h"
#include "model/modelfile.h"

enum {
    SLOTS_DEFAULT = 4,
    CTX_DEFAULT_MAX = 4096,
    ROWS_MAX = 128, /* short chunks keep several stages busy with one prompt */
    CHANGE_MS = 200,
    STOP_US = 300000,  /* for devices to answer STOP */
    MEMORY_SHARE = 70, /* percent of what is available */
    /* Longer than it takes a device to look for a head that stopped (2 s, give or take) again. */
    EXPECT_US = 6000000,
    DEPTH_USUAL = 256, /* positions that a predicted token has behind it */
    PROMPT_USUAL = 256,
    QUEUE_USUAL = 256, /* requests that may wait */
};

/* ---- small things ---- */

static void tell_change(evutil_socket_t fd, short what, void *user)
{
    struct cluster *c = user;

    (void)fd;
    (void)what;
    c->change_told = false;
    if (c->opts.changed)
        c->opts.changed(c->opts.user);
    for (struct cluster_watch *w = c->watches, *next; w; w = next) {
        next = w->next;
        w->changed(w->user);
    }
}

void cluster_watch(struct cluster *c, struct cluster_watch *w)
{
    w->next = c->watches;
    c->watches = w;
}

void cluster_unwatch(struct cluster *c, struct cluster_watch *w)
{
    struct cluster_watch **at = &c->watches;

    while (*at != w)
        at = &(*at)->next;
    *at = w->next;
}

const char *cluster_name(const struct cluster *c)
{
    return c->name;
}

void cluster_changed(struct cluster *c)
{
    const struct timeval soon = {0, CHANGE_MS * 1000};

    if (c->change_told)
        return;
    c->change_told = true;
    event_add(c->change_timer, &soon);
}

struct member *cluster_member_of(struct cluster *c, const struct key_id *key)
{
    for (int i = 0; i < c->n_members; i++)
        if (key_id_equal(&c->member[i].key, key))
            return &c->member[i];
    return NULL;
}

/* By the roster: one that was removed may have had the name before. */
struct member *cluster_member_named(struct cluster *c, const char *name)
{
    const struct wire_member *entry = roster_named(c->roster, name);
    struct key_id key;

    if (!entry)
        return NULL;
    memcpy(key.bytes, entry->key, sizeof key.bytes);
    return cluster_member_of(c, &key);
}

void cluster_address(const struct cluster *c, char buf[ADDRESS_MAX])
{
    const char *host = c->listen_host;
    char name[64] = "";

    if (!*host || strcmp(host, "*") == 0 || strcmp(host, "0.0.0.0") == 0 ||
        strcmp(host, "::") == 0) {
        sys_local_address(name, sizeof name);
        host = *name ? name : "127.0.0.1";
    }
    snprintf(buf, ADDRESS_MAX, strchr(host, ':') ? "[%s]:%d" : "%s:%d", host, c->port);
}

int64_t cluster_token_life_us(const struct cluster *c)
{
    return c->opts.token_life_s ? (int64_t)c->opts.token_life_s * 1000000 : TOKEN_LIFE_US_DEFAULT;
}

/* ---- the door ---- */

static void ignore_frame(void *user, struct link *link, const struct frame *f)
{
    (void)user;
    (void)link;
    (void)f;
}

static void ignore_closed(void *user, struct link *link, enum err e, const char *why)
{
    (void)user;
    (void)link;
    (void)e;
    (void)why;
}

static const struct link_calls paired_calls = {.frame = ignore_frame, .closed = ignore_closed};

static void let_in(struct cluster *c, struct link *l)
{
    link_welcome(l, WIRE_CONTROL, &paired_calls, NULL);
    cluster_send_roster_to(c, l);
    link_close_after_sending(l);
}

static void pair(struct cluster *c, struct link *l, const struct wire_greet *g)
{
    uint8_t exported[TOKEN_EXPORT_BYTES];
    char given[WIRE_NAME_MAX], key[KEY_ID_TEXT_MAX];
    struct err_text et = {{0}};
    bool used = false;
    enum err e = ERR_NONE;

    if (!g->has_proof)
        e = err_set(&et, ERR_INPUT, "pairing needs a token");
    link_exported(l, exported);
    if (!e)
        e = token_book_take(&c->tokens, clock_us(), exported, g->proof, &et);
    used = !e;
    if (!e)
        e = roster_add(c->roster, link_peer(l), g->name, given, &et);
    OPENSSL_cleanse(exported, sizeof exported);
    if (e) {
        link_refuse(l, e, et.text);
        if (used)
            cluster_invite_anew(c);
        return;
    }
    log_say(&c->opts.log, "cluster", "%s is paired now (%s, key %s)", given, link_peer_address(l),
            key_id_short(link_peer(l), key));
    let_in(c, l);
    cluster_send_roster(c);
    cluster_invite_anew(c);
}

static void bulk_end(struct bulk_link *b)
{
    bulk_giver_free(b->giver);
    link_close(b->link);
    b->link = NULL;
}

static void on_bulk_frame(void *user, struct link *link, const struct frame *f)
{
    struct bulk_link *b = user;
    struct err_text et;

    if (!bulk_giver_frame(b->giver, f, &et))
        return;
    log_say(&b->cluster->opts.log, "link", "closed a bulk link of %s: %s", link_peer_address(link),
            et.text);
    bulk_end(b);
}

static void on_bulk_drained(void *user, struct link *link)
{
    struct bulk_link *b = user;

    (void)link;
    bulk_giver_drained(b->giver);
}

static void on_bulk_closed(void *user, struct link *link, enum err e, const char *why)
{
    struct bulk_link *b = user;

    if (e != ERR_GONE)
        log_say(&b->cluster->opts.log, "link", "closed a bulk link of %s: %s",
                link_peer_address(link), why);
    bulk_giver_free(b->giver);
    b->link = NULL;
}

static const struct link_calls bulk_calls = {
    .frame = on_bulk_frame, .drained = on_bulk_drained, .closed = on_bulk_closed};

static void take_bulk(struct cluster *c, struct link *l)
{
    struct bulk_link *b = NULL;

    /* A device fetches by one link at a time: an older one is of a fetch that is over, and its far
     * end may have gone without a word. */
    for (int i = 0; i < BULK_LINKS_MAX; i++)
        if (c->bulk[i].link && key_id_equal(link_peer(c->bulk[i].link), link_peer(l)))
            bulk_end(&c->bulk[i]);
    for (int i = 0; i < BULK_LINKS_MAX && !b; i++)
        if (!c->bulk[i].link)
            b = &c->bulk[i];
    CHECK(b); /* one per device of the roster */
    b->cluster = c;
    b->link = l;
    link_set_bulk(l);
    link_welcome(l, WIRE_BULK, &bulk_calls, b);
    b->giver = bulk_giver_new(&c->store, l);
}

static void on_greeted(void *user, struct link *l, const struct wire_greet *g)
{
    struct cluster *c = user;
    const struct wire_member *entry = roster_find(c->roster, link_peer(l));

    if (g->purpose == WIRE_FOR_PAIR && !entry)
        pair(c, l, g);
    else if (g->purpose == WIRE_FOR_PAIR && !key_id_equal(link_peer(l), identity_key(c->identity)))
        let_in(c, l); /* our answer to its token was lost on the way, and the token is spent */
    else if (!entry || key_id_equal(link_peer(l), identity_key(c->identity)))
        link_refuse(l, ERR_INPUT,
                    "this device does not belong to the cluster (or no longer does): pair it with "
                    "a token");
    else if (g->purpose == WIRE_FOR_MEMBER)
        cluster_member_take(c, l, g, entry);
    else if (g->purpose == WIRE_FOR_BULK)
        take_bulk(c, l);
    else
        link_refuse(l, ERR_UNSUPPORTED, "a head takes steps by the member's own link");
}

static const struct link_calls door_calls = {.greeted = on_greeted, .closed = ignore_closed};

/* ---- heartbeat ---- */

static void on_tick(evutil_socket_t fd, short what, void *user)
{
    struct cluster *c = user;
    const int64_t late = (int64_t)CLUSTER_PING_MS * 1000;
    int64_t now = clock_us(), paused = 0;

    (void)fd;
    (void)what;
    /* A pause of this device is not one of the others: they had no PING to answer. */
    if (c->tick_us && now - c->tick_us > 2 * late)
        paused = now - c->tick_us - late;
    c->tick_us = now;
    for (int i = 1; i < c->n_members; i++) {
        struct member *m = &c->member[i];
        struct wire_ping ping = {(uint64_t)now};
        struct wire_buf buf;
        struct frame_out f;

        if (!m->link)
            continue;
        m->heard_us += paused;
        if (link_moved(m->link))
            m->heard_us = now;
        if (now - m->heard_us > (int64_t)CLUSTER_LOST_MS * 1000) {
            link_close(m->link);
            m->link = NULL;
            cluster_member_down(m, "stopped answering");
            continue;
        }
        wire_ping_encode(&ping, &buf, &f);
        link_send(m->link, &f);
    }
    event_add(c->local_listener, NULL); /* if it had to be put aside */
    cluster_stats_tick(c, now);
    cluster_measure_begin(c, now);
    cluster_answer_questions(c, now);
    cluster_expect(c, now);
}

static void on_core_time(evutil_socket_t fd, short what, void *user)
{
    struct core_event event = {.kind = CORE_TIME};

    (void)fd;
    (void)what;
    cluster_feed(user, &event);
}

/* ---- opening ---- */

static enum err lock_folder(struct cluster *c, struct err_text *et)
{
    char *path = mem_printf("%s/lock", c->state_folder);
    enum err e = ERR_NONE;

    c->lock_fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    if (c->lock_fd < 0)
        e = err_system(et, "open %s", path);
    else if (flock(c->lock_fd, LOCK_EX | LOCK_NB) < 0)
        e = err_set(et, ERR_FILE,
                    "another lingua uses %s: stop it, or give this one a folder of its own with "
                    "--state DIR",
                    c->state_folder);
    free(path);
    return e;
}

static void choose_name(struct cluster *c)
{
    char host[WIRE_NAME_MAX] = "";

    if (c->opts.name && *c->opts.name)
        snprintf(c->name, sizeof c->name, "%s", c->opts.name);
    else if (gethostname(host, sizeof host - 1) == 0 && *host)
        snprintf(c->name, sizeof c->name, "%s", host);
    else
        snprintf(c->name, sizeof c->name, "head");
}

/* All of a problem that does not change while this head runs. */
static enum err describe_model(struct cluster *c, struct err_text *et)
{
    struct place_problem *p = &c->problem;
    enum err e = model_classes(c->model, c->segment.kv, &c->classes, et);

    if (e)
        return e;
    p->n_modules = model_n_modules(c->model);
    c->modules = mem_zalloc((size_t)p->n_modules, sizeof *c->modules);
    place_describe(c->model, &c->classes, &c->segment, p, c->modules);
    p->want_private = c->opts.want_private;
    p->concurrency = c->opts.concurrency > 0 ? c->opts.concurrency : 1;
    p->group_max = STEP_DECODE_ROWS; /* of many streams; more cost in proportion anyway */
    p->depth = p->n_ctx / 2 < DEPTH_USUAL ? p->n_ctx / 2 : DEPTH_USUAL;
    p->prompt = p->n_ctx / 2 < PROMPT_USUAL ? p->n_ctx / 2 : PROMPT_USUAL;
    return ERR_NONE;
}

static enum err open_model(struct cluster *c, struct err_text *et)
{
    enum err e = model_open(c->model_path, &c->model, et);
    const struct model_shape *shape;
    int trained;

    if (!e)
        e = manifest_remembered(c->model_path, c->state_folder, c->opts.hashing, c->opts.user,
                                &c->manifest, et);
    if (!e)
        e = model_check_kv(c->model, c->opts.kv, et);
    if (e)
        return e;
    c->model_fd = open(c->model_path, O_RDONLY | O_CLOEXEC);
    if (c->model_fd < 0)
        return err_system(et, "open %s", c->model_path);
    c->store = (struct bulk_store){.manifest = c->manifest, .fd = c->model_fd};
    shape = model_shape(c->model);
    trained = shape->n_ctx_train > 0 ? shape->n_ctx_train : CTX_DEFAULT_MAX;
    c->segment.n_ctx = c->opts.n_ctx               ? c->opts.n_ctx
                       : trained < CTX_DEFAULT_MAX ? trained
                                                   : CTX_DEFAULT_MAX;
    if (shape->ctx_is_hard && c->segment.n_ctx > trained)
        return err_set(et, ERR_INPUT,
                       "a context of %d: this model has learned positions, so its maximum is %d",
                       c->segment.n_ctx, trained);
    c->segment.n_slots = c->opts.n_slots ? c->opts.n_slots : SLOTS_DEFAULT;
    c->segment.n_rows_max = c->segment.n_ctx < ROWS_MAX ? c->segment.n_ctx : ROWS_MAX;
    c->segment.kv = c->opts.kv;
    return describe_model(c, et);
}

/* What this device takes for the classes of its model: remembered, or measured now. */
static enum err measure_self(struct cluster *c, struct err_text *et)
{
    struct member *m = &c->member[0];
    struct profile_opts opts = {.folder = c->state_folder,
                                .memory_bytes = c->opts.memory_bytes,
                                .windows = c->opts.profile_windows,
                                .window_ms = c->opts.profile_window_ms};
    struct compute *compute;
    enum err e;

    m->profile = mem_zalloc(1, sizeof *m->profile);
    if (profile_recall(c->state_folder, c->classes.id, c->classes.n, c->opts.n_threads, m->profile))
        return ERR_NONE;
    log_say(&c->opts.log, "cluster", "measuring how fast this device is with such a model");
    e = compute_open(c->opts.n_threads, &compute, et);
    if (e)
        return e;
    e = profile_measure(compute, c->model_path, c->opts.kv, &opts, m->profile, et);
    compute_close(compute);
    return e;
}

/* The head as a member of its own cluster. */
static enum err describe_self(struct cluster *c, struct err_text *et)
{
    struct member *m = cluster_member_new(c, identity_key(c->identity));
    struct wire_greet *g = &m->able;
    enum err e;

    g->base_bytes = profile_base_bytes(c->state_folder);
    e = measure_self(c, et);
    if (e)
        return e;
    snprintf(g->name, sizeof g->name, "%s", c->name);
    snprintf(g->kernels, sizeof g->kernels, "%s", model_kernels());
    sys_kind(g->kind, sizeof g->kind);
    g->n_threads = c->opts.n_threads;
    g->memory_bytes =
        c->opts.memory_bytes ? c->opts.memory_bytes : sys_available_bytes() / 100 * MEMORY_SHARE;
    g->speed = (uint64_t)cluster_weights_per_s(c, m->profile);
    g->cap = c->opts.cap > 0 ? c->opts.cap : 100;
    g->spare = c->opts.spare;
    m->up = true;
    return ERR_NONE;
}

static enum err open_door(struct cluster *c, struct err_text *et)
{
    struct hub_opts h = {.base = c->base,
                         .identity = c->identity,
                         .log = c->opts.log,
                         .calls = &door_calls,
                         .user = c};
    const char *listen = c->opts.listen ? c->opts.listen : "";
    const char *colon = strrchr(listen, ':');
    struct err_text text;
    enum err e;

    snprintf(h.name, sizeof h.name, "%s", c->name);
    e = hub_open(&h, &c->hub, et);
    if (!e)
        e = hub_listen(c->hub, listen, PORT_DEFAULT, &c->port, et);
    if (e)
        return e;
    if (*listen == '[')
        snprintf(c->listen_host, sizeof c->listen_host, "%.*s", (int)strcspn(listen + 1, "]"),
                 listen + 1);
    else
        snprintf(c->listen_host, sizeof c->listen_host, "%.*s",
                 colon ? (int)(colon - listen) : (int)strlen(listen), listen);
    if (c->opts.announce &&
        discover_announce(c->base, c->name, c->port, &c->opts.log, &c->discover, &text))
        log_say(&c->opts.log, "link", "not announced on the network: %s", text.text);
    return ERR_NONE;
}

static int queue_max(const struct cluster *c)
{
    int n = c->opts.n_queue_max > 0 ? c->opts.n_queue_max : QUEUE_USUAL;
    int most = CORE_STREAMS_MAX - c->segment.n_slots;

    return n < most ? n : most;
}

static void begin(struct cluster *c)
{
    const struct timeval every = {CLUSTER_PING_MS / 1000, CLUSTER_PING_MS % 1000 * 1000};
    struct core_opts opts = {.n_slots = c->segment.n_slots,
                             .n_ctx = c->segment.n_ctx,
                             .n_rows_max = c->segment.n_rows_max,
                             .n_vocab = model_shape(c->model)->n_vocab,
                             .n_queue_max = queue_max(c)};

    CHECK(getrandom(opts.tag_key, sizeof opts.tag_key, 0) == sizeof opts.tag_key);
    c->core = core_new(&opts);
    c->planner = planner_new(c->base, cluster_planner_done, c);
    c->codec = step_codec_new();
    c->tick = event_new(c->base, -1, EV_PERSIST, on_tick, c);
    c->core_timer = event_new(c->base, -1, 0, on_core_time, c);
    CHECK(c->tick && c->core_timer);
    event_add(c->tick, &every);
    cluster_invite_anew(c);
    if (roster_body(c->roster)->n > 1)
        c->expect_until_us = clock_us() + EXPECT_US;
    cluster_feed_member(c, CORE_UP, 0, 0, ERR_NONE, NULL);
}

enum err cluster_open(struct event_base *base, const struct cluster_opts *opts,
                      struct cluster **out, struct err_text *et)
{
    struct cluster *c = mem_zalloc(1, sizeof *c);
    enum err e;

    c->base = base;
    c->opts = *opts;
    c->lock_fd = c->model_fd = c->local_fd = -1;
    c->last = &c->first;
    c->model_path = realpath(opts->model_path, NULL);
    c->state_folder = mem_strdup(opts->state_folder);
    c->change_timer = event_new(base, -1, 0, tell_change, c);
    CHECK(c->change_timer);
    choose_name(c);
    e = c->model_path ? lock_folder(c, et) : err_system(et, "open %s", opts->model_path);
    if (!e)
        e = identity_open(c->state_folder, &c->identity, et);
    if (!e)
        e = roster_open_head(c->state_folder, c->identity, c->name, &c->roster, et);
    if (!e)
        e = open_model(c, et);
    if (!e)
        e = describe_self(c, et);
    if (!e)
        e = worker_open(base, opts->n_threads, &cluster_worker_calls, c, &c->worker, et);
    if (!e)
        e = open_door(c, et);
    if (!e)
        e = cluster_local_open(c, et);
    if (!e)
        e = cluster_gen_open(c, et);
    if (e) {
        cluster_close(c);
        return e;
    }
    token_book_init(&c->tokens, identity_key(c->identity));
    begin(c);
    *out = c;
    return ERR_NONE;
}

static bool anybody_here(const struct cluster *c)
{
    for (int i = 1; i < c->n_members; i++)
        if (c->member[i].link)
            return true;
    return false;
}

/* So that they do not have to guess whether this head was lost: they give back what the model took,
 * and answer by LEAVE. */
static void say_stop(struct cluster *c)
{
    int64_t until = clock_us() + STOP_US;
    struct wire_buf buf;
    struct frame_out f;

    c->closing = true;
    wire_empty_encode(FRAME_STOP, &buf, &f);
    for (int i = 1; i < c->n_members; i++)
        if (c->member[i].link)
            link_send(c->member[i].link, &f);
    while (anybody_here(c) && clock_us() < until) {
        if (event_base_loop(c->base, EVLOOP_NONBLOCK) < 0)
            break;
        usleep(1000);
    }
}

void cluster_close(struct cluster *c)
{
    if (!c)
        return;
    say_stop(c);
    cluster_gen_close(c);
    cluster_local_close(c);
    discover_close(c->discover);
    for (int i = 0; i < BULK_LINKS_MAX; i++)
        if (c->bulk[i].link)
            bulk_giver_free(c->bulk[i].giver);
    if (c->hub)
        hub_close(c->hub);
    for (int i = 0; i < c->n_members; i++)
        probe_free(c->member[i].probe);
    if (c->worker)
        worker_close(c->worker);
    planner_close(c->planner);
    planner_job_free(c->planned);
    for (int i = 0; i < c->n_members; i++)
        free(c->member[i].profile);
    model_classes_fini(&c->classes);
    if (c->core)
        core_free(c->core);
    step_codec_free(c->codec);
    if (c->tick)
        event_free(c->tick);
    if (c->core_timer)
        event_free(c->core_timer);
    event_free(c->change_timer);
    if (c->manifest)
        manifest_free(c->manifest);
    if (c->model)
        model_close(c->model);
    if (c->model_fd >= 0)
        close(c->model_fd);
    if (c->roster)
        roster_close(c->roster);
    token_book_fini(&c->tokens);
    identity_close(c->identity);
    if (c->lock_fd >= 0)
        close(c->lock_fd);
    free(c->modules);
    free(c->model_path);
    free(c->state_folder);
    free(c);
}

int cluster_port(const struct cluster *c)
{
    return c->port;
}
