/* Weights on their way, over real links between hubs of one event base: exactly what is needed
 * travels, once; and sources that lie, die or are cut off. */
#define _GNU_SOURCE
#include <event2/event.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/mem.h"
#include "cache_rig.h"
#include "device/bulk.h"
#include "support/tiny_model.h"

enum { GIVERS_MAX = 8, HELD_MAX = 64, DEVICE = 1 };

static struct err_text et;

static void must(enum err e)
{
    if (e)
        fail_msg("%s", et.text);
}

/* ---- a device that gives ---- */

struct place;

/* One link it gives by. */
struct given {
    struct place *place;
    struct link *link;
    struct bulk_giver *giver;
};

struct place {
    struct identity *id;
    struct hub *hub;
    int port;
    struct bulk_store store;
    struct given given[GIVERS_MAX];
    int n_given;
    uint64_t sent; /* by links that are over */
    int n_fetches; /* requests for anything but the header */
    uint64_t pending_max;
    /* What it does to others: */
    int close_after; /* requests; 0 = never */
    int cut_after;   /* the same, once, by hub_cut */
    bool gate;       /* answers no requests but for the header until gate_of has had one */
    struct place *gate_of;
    uint8_t *held[HELD_MAX]; /* frames that wait at the gate */
    size_t held_len[HELD_MAX];
    int n_held;
    enum err broke; /* what bulk_giver_frame said last */
};

static uint64_t place_sent(const struct place *p)
{
    uint64_t sent = p->sent;

    for (int i = 0; i < p->n_given; i++)
        sent += p->given[i].giver ? bulk_giver_sent(p->given[i].giver) : 0;
    return sent;
}

static void given_end(struct given *g)
{
    g->place->sent += bulk_giver_sent(g->giver);
    bulk_giver_free(g->giver);
    g->giver = NULL;
    g->link = NULL;
}

static void give(struct given *g, const struct frame *f)
{
    g->place->broke = bulk_giver_frame(g->giver, f, &et);
    if (link_pending(g->link) > g->place->pending_max)
        g->place->pending_max = link_pending(g->link);
    if (g->place->broke) {
        link_close(g->link);
        given_end(g);
    }
}

/* Keeps a request until the gate opens. */
static void hold_frame(struct place *p, const struct frame *f)
{
    assert_true(p->n_held < HELD_MAX);
    p->held[p->n_held] = mem_alloc(f->header_len);
    memcpy(p->held[p->n_held], f->header, f->header_len);
    p->held_len[p->n_held++] = f->header_len;
}

static void open_gate(struct place *p)
{
    p->gate = false;
    for (int i = 0; i < p->n_held; i++) {
        struct frame f = {.type = FRAME_FETCH, .header = p->held[i], .header_len = p->held_len[i]};

        if (p->given[0].giver)
            give(&p->given[0], &f);
        free(p->held[i]);
    }
    p->n_held = 0;
}

static void on_frame(void *user, struct link *link, const struct frame *f)
{
    struct given *g = user;
    struct place *p = g->place;
    struct wire_fetch ask = {.part = 0};

    if (f->type == FRAME_FETCH)
        must(wire_fetch_decode(f, &ask, &et));
    if (ask.part > 0) {
        p->n_fetches++;
        if (p->gate_of && p->gate_of->gate)
            open_gate(p->gate_of);
        if (p->gate) {
            hold_frame(p, f);
            return;
        }
        if (p->close_after && p->n_fetches > p->close_after) {
            link_close(link);
            given_end(g);
            return;
        }
        if (p->cut_after && p->n_fetches > p->cut_after) {
            p->cut_after = 0;
            assert_int_equal(hub_cut(p->hub, link_peer(link), "test"), 1);
            return;
        }
    }
    give(g, f);
}

static void on_drained(void *user, struct link *link)
{
    struct given *g = user;

    bulk_giver_drained(g->giver);
    if (link_pending(link) > g->place->pending_max)
        g->place->pending_max = link_pending(link);
}

static void on_closed(void *user, struct link *link, enum err e, const char *why)
{
    (void)link;
    (void)e;
    (void)why;
    given_end(user);
}

static const struct link_calls given_calls = {
    .frame = on_frame,
    .drained = on_drained,
    .closed = on_closed,
};

static void on_greeted(void *user, struct link *link, const struct wire_greet *greet)
{
    struct place *p = user;
    struct given *g = &p->given[p->n_given++];

    assert_in_range(p->n_given, 1, GIVERS_MAX);
    assert_int_equal(greet->purpose, WIRE_FOR_BULK);
    *g = (struct given){.place = p, .link = link};
    link_welcome(link, WIRE_BULK, &given_calls, g);
    g->giver = bulk_giver_new(&p->store, link);
}

static const struct link_calls greeting_calls = {.greeted = on_greeted};

static void place_open(struct place *p, struct event_base *base, const char *name)
{
    struct hub_opts opts = {.base = base, .calls = &greeting_calls, .user = p};

    memset(p, 0, sizeof *p);
    p->store.fd = -1;
    p->id = identity_new();
    opts.identity = p->id;
    snprintf(opts.name, sizeof opts.name, "%s", name);
    must(hub_open(&opts, &p->hub, &et));
    must(hub_listen(p->hub, "127.0.0.1", 0, &p->port, &et));
}

static void place_close(struct place *p)
{
    hub_close(p->hub);
    for (int i = 0; i < p->n_given; i++)
        bulk_giver_free(p->given[i].giver);
    for (int i = 0; i < p->n_held; i++)
        free(p->held[i]);
    if (p->store.fd >= 0)
        close(p->store.fd);
    identity_close(p->id);
}

static void peer_of(const struct place *p, const char *name, struct wire_peer *peer)
{
    memset(peer, 0, sizeof *peer);
    memcpy(peer->key, identity_key(p->id)->bytes, sizeof peer->key);
    snprintf(peer->name, sizeof peer->name, "%s", name);
    /* The first address is nobody's. */
    snprintf(peer->addresses, sizeof peer->addresses, "127.0.0.1:1 127.0.0.1:%d", p->port);
}

/* ---- the device that asks ---- */

struct bench {
    struct event_base *base;
    struct folder folder;
    char path[128];
    struct manifest *manifest;
    struct plan plan;
    uint8_t *need;
    uint64_t needed;
    struct place head, other;
    struct identity *id;
    struct hub *hub;
    struct cache *cache;
    struct lines lines;
    struct wire_peer source[2];
    int n_sources;

    struct fetch *fetch;
    int n_done, n_progress;
    enum err e;
    char why[ERR_TEXT_MAX];
    struct mirror *mirror;
    uint64_t done, total, received;
};

static void on_progress(void *user, uint64_t done, uint64_t total, uint64_t received)
{
    struct bench *b = user;

    assert_true(done <= total);
    assert_int_equal(b->n_done, 0);
    b->n_progress++;
    b->done = done;
    b->total = total;
    b->received = received;
}

static void on_done(void *user, enum err e, const char *why, struct mirror *mirror)
{
    struct bench *b = user;

    b->n_done++;
    b->e = e;
    snprintf(b->why, sizeof b->why, "%s", why);
    b->mirror = mirror;
    b->fetch = NULL;
    assert_true((e == ERR_NONE) == (mirror != NULL));
    event_base_loopbreak(b->base);
}

static const struct fetch_calls fetch_calls = {.progress = on_progress, .done = on_done};

static void open_cache(struct bench *b, uint64_t limit)
{
    char path[128];
    struct log log = lines_log(&b->lines);

    snprintf(path, sizeof path, "%s/cache", b->folder.path);
    must(cache_open(path, limit, &log, &b->cache, &et));
}

static void bench_open(struct bench *b)
{
    struct hub_opts opts = {.name = "asker"};
    struct model *m;

    memset(b, 0, sizeof *b);
    b->base = event_base_new();
    assert_int_equal(event_base_priority_init(b->base, 3), 0);
    folder_make(&b->folder);
    snprintf(b->path, sizeof b->path, "%s/tiny.gguf", b->folder.path);
    tiny_write(b->path, TINY_LLAMA_GQA, GGML_TYPE_F16, 5);
    must(manifest_make(b->path, NULL, NULL, &b->manifest, &et));
    must(model_open(b->path, &m, &et));
    b->plan = plan_in_three(model_n_modules(m), false);
    b->need = mem_zalloc((size_t)b->manifest->n_parts, 1);
    must(manifest_needs(b->manifest, m, &b->plan, DEVICE, b->need, &b->needed, &et));
    model_close(m);
    /* Enough for all that is to be seen: several windows full. */
    assert_true(b->needed > 4 << 20 && b->needed < b->manifest->file_bytes / 2);

    place_open(&b->head, b->base, "kitchen");
    b->head.store = (struct bulk_store){NULL, b->manifest, open(b->path, O_RDONLY | O_CLOEXEC)};
    place_open(&b->other, b->base, "attic");
    b->id = identity_new();
    opts.base = b->base;
    opts.identity = b->id;
    must(hub_open(&opts, &b->hub, &et));
    peer_of(&b->head, "kitchen", &b->source[0]);
    peer_of(&b->other, "attic", &b->source[1]);
    b->n_sources = 1;
    open_cache(b, 0);
}

static void bench_close(struct bench *b)
{
    fetch_cancel(b->fetch);
    mirror_close(b->mirror);
    hub_close(b->hub);
    place_close(&b->head);
    place_close(&b->other);
    cache_close(b->cache);
    identity_close(b->id);
    manifest_free(b->manifest);
    free(b->need);
    folder_remove(&b->folder);
    event_base_free(b->base);
}

/* The neighbour has the whole file, too, or one that differs in `flip` of every needed part. */
static void other_has(struct bench *b, bool flipped)
{
    char path[160];
    size_t len;
    uint8_t *bytes = file_read(b->path, &len);

    for (int i = 1; flipped && i < b->manifest->n_parts; i++)
        bytes[b->manifest->part[i].offset + b->manifest->part[i].size / 2] ^= 4;
    snprintf(path, sizeof path, "%s/other.gguf", b->folder.path);
    file_write(path, bytes, len);
    free(bytes);
    b->other.store = (struct bulk_store){NULL, b->manifest, open(path, O_RDONLY | O_CLOEXEC)};
    b->n_sources = 2;
    /* The head is faster here than anyone could dial a second source. */
    b->head.gate = true;
    b->other.gate_of = &b->head;
}

static void begin(struct bench *b)
{
    struct wire_greet greet = {.name = "asker", .purpose = WIRE_FOR_BULK};
    struct fetch_opts opts = {
        .base = b->base,
        .hub = b->hub,
        .cache = b->cache,
        .log = lines_log(&b->lines),
        .plan = &b->plan,
        .device = DEVICE,
        .source = b->source,
        .n_sources = b->n_sources,
        .greet = &greet,
        .calls = &fetch_calls,
        .user = b,
    };

    memcpy(opts.model, b->manifest->id, sizeof opts.model);
    mirror_close(b->mirror);
    b->mirror = NULL;
    b->n_done = b->n_progress = 0;
    b->done = b->total = b->received = 0;
    b->fetch = fetch_begin(&opts);
    assert_int_equal(b->n_done + b->n_progress, 0);
}

static void too_long(evutil_socket_t fd, short what, void *user)
{
    (void)fd;
    (void)what;
    (void)user;
    fail_msg("nothing happens");
}

/* Until done; then the loop runs a little more, so that what must not come could. */
static void run(struct bench *b)
{
    struct event *guard = event_new(b->base, -1, 0, too_long, NULL);

    event_add(guard, &(struct timeval){30, 0});
    event_base_dispatch(b->base);
    event_base_loopexit(b->base, &(struct timeval){0, 20000});
    event_base_dispatch(b->base);
    event_free(guard);
    assert_int_equal(b->n_done, 1);
}

static void fetch_all(struct bench *b)
{
    begin(b);
    run(b);
    if (b->e)
        fail_msg("%s", b->why);
    assert_string_equal(b->why, "");
}

/* The mirror has what was needed and nothing else, byte for byte. */
static void has_what_is_needed(const struct bench *b)
{
    size_t len, n;
    uint8_t *file = file_read(b->path, &len), *mirror = file_read(mirror_path(b->mirror), &n);

    assert_int_equal(len, n);
    for (int i = 0; i < b->manifest->n_parts; i++) {
        const struct manifest_part *p = &b->manifest->part[i];

        assert_int_equal(mirror_has(b->mirror, i), b->need[i]);
        if (b->need[i])
            assert_memory_equal(file + p->offset, mirror + p->offset, p->size);
        else
            assert_int_equal(mirror_received(b->mirror, i), 0);
    }
    assert_int_equal(cache_bytes(b->cache), b->needed);
    free(file);
    free(mirror);
}

/* ---- fetching ---- */

static void only_what_is_needed_travels(void **state)
{
    struct bench b;

    (void)state;
    bench_open(&b);
    fetch_all(&b);
    has_what_is_needed(&b);
    assert_int_equal(b.received, b.needed);
    assert_int_equal(b.done, b.needed);
    assert_int_equal(b.total, b.needed);
    assert_int_equal(place_sent(&b.head), b.needed);
    assert_int_equal(b.head.n_given, 1);
    assert_true(b.n_progress >= 1 && b.n_progress < 50);
    /* Never more than a window waits at the giver. */
    assert_true(b.head.pending_max < (1 << 20) + WIRE_CHUNK_MAX + 4096);

    fetch_all(&b); /* nothing, not even a link */
    has_what_is_needed(&b);
    assert_int_equal(b.received, 0);
    assert_int_equal(b.done, b.needed);
    assert_int_equal(b.head.n_given, 1);

    /* The same after a restart. */
    mirror_close(b.mirror);
    b.mirror = NULL;
    cache_close(b.cache);
    open_cache(&b, 0);
    fetch_all(&b);
    assert_int_equal(b.received, 0);
    assert_int_equal(place_sent(&b.head), b.needed);

    /* A byte flips in the cache: that part comes again, and no other. */
    int part = b.manifest->n_parts - 1;
    bool good;
    while (!b.need[part])
        part--;
    file_flip(mirror_path(b.mirror), b.manifest->part[part].offset + 3);
    must(mirror_check(b.mirror, part, &good, &et));
    assert_false(good);
    fetch_all(&b);
    has_what_is_needed(&b);
    assert_int_equal(b.received, b.manifest->part[part].size);

    /* Another place in the plan: what is here already does not come again. */
    uint64_t before = 0, more;
    uint8_t *need = mem_zalloc((size_t)b.manifest->n_parts, 1);
    struct model *m;
    must(model_open(b.path, &m, &et));
    b.plan.stage[1].end++;
    b.plan.stage[2].first++;
    must(manifest_needs(b.manifest, m, &b.plan, DEVICE, need, &more, &et));
    model_close(m);
    before = b.needed;
    fetch_all(&b);
    assert_true(more > before);
    assert_int_equal(b.received, more - before);
    assert_int_equal(b.total, more);
    free(need);
    bench_close(&b);
}

static void two_sources_share_the_work(void **state)
{
    struct bench b;

    (void)state;
    bench_open(&b);
    other_has(&b, false);
    fetch_all(&b);
    has_what_is_needed(&b);
    assert_int_equal(b.received, b.needed);
    assert_int_equal(place_sent(&b.head) + place_sent(&b.other), b.needed);
    assert_true(place_sent(&b.other) > b.needed / 10);
    assert_true(place_sent(&b.head) > b.needed / 10);
    bench_close(&b);
}

/* The neighbour has a mirror, and of it only some parts. */
static void a_neighbours_cache_gives_what_it_has(void **state)
{
    struct bench b;
    struct cache *cache;
    struct mirror *m;
    char path[160];
    size_t len;
    uint8_t *file;
    uint64_t at_other = 0;

    (void)state;
    bench_open(&b);
    snprintf(path, sizeof path, "%s/other-cache", b.folder.path);
    must(cache_open(path, 0, NULL, &cache, &et));
    must(cache_add(cache, b.manifest, &m, &et));
    file = file_read(b.path, &len);
    for (int i = 0; i < b.manifest->n_parts; i += 2) {
        const struct manifest_part *p = &b.manifest->part[i];
        bool complete;

        must(mirror_write(m, i, 0, file + p->offset, p->size, &complete, &et));
        at_other += b.need[i] && i > 0 ? p->size : 0;
    }
    free(file);
    b.other.store = (struct bulk_store){cache, NULL, -1};
    b.n_sources = 2;
    b.head.gate = true;
    b.other.gate_of = &b.head;
    fetch_all(&b);
    has_what_is_needed(&b);
    assert_int_equal(b.received, b.needed);
    assert_int_equal(place_sent(&b.head) + place_sent(&b.other), b.needed);
    assert_true(place_sent(&b.other) > 0 && place_sent(&b.other) <= at_other);
    for (int i = 0; i < b.other.n_given; i++)
        bulk_giver_free(b.other.given[i].giver);
    b.other.n_given = 0;
    mirror_close(m);
    cache_close(cache);
    bench_close(&b);
}

static void wrong_bytes_are_survived_and_named(void **state)
{
    struct bench b;

    (void)state;
    bench_open(&b);
    other_has(&b, true);
    b.lines.wanted = "from attic: it is not what it should be";
    fetch_all(&b);
    has_what_is_needed(&b);
    assert_in_range(b.lines.n_wanted, 1, 3);
    assert_non_null(strstr(b.lines.last, "tensor blk."));
    /* What was wrong travelled in vain, all else once. */
    assert_true(b.received > b.needed);
    assert_true(b.received <= place_sent(&b.head) + place_sent(&b.other));
    assert_int_equal(place_sent(&b.head), b.needed);
    bench_close(&b);
}

static void a_source_that_dies_is_survived(void **state)
{
    struct bench b;

    (void)state;
    bench_open(&b);
    other_has(&b, false);
    b.other.close_after = 12;
    b.lines.wanted = "attic";
    fetch_all(&b);
    has_what_is_needed(&b);
    assert_int_equal(b.received, b.needed); /* what came was not asked for again */
    assert_true(place_sent(&b.other) > 0);
    assert_int_equal(b.other.n_given, 1);
    assert_int_equal(b.lines.n_wanted, 1);
    assert_non_null(strstr(b.lines.last, "going on without it"));
    bench_close(&b);
}

static void a_cut_head_is_dialled_again(void **state)
{
    struct bench b;

    (void)state;
    bench_open(&b);
    b.head.cut_after = 20;
    b.lines.wanted = "trying again";
    fetch_all(&b);
    has_what_is_needed(&b);
    assert_int_equal(b.received, b.needed);
    assert_int_equal(b.head.n_given, 2);
    assert_int_equal(b.lines.n_wanted, 1);
    assert_non_null(strstr(b.lines.last, "kitchen"));
    bench_close(&b);
}

/* The head comes up later than the device that asks. */
static void open_head(evutil_socket_t fd, short what, void *user)
{
    struct bench *b = user;
    int port = 0;

    (void)fd;
    (void)what;
    must(hub_listen(b->head.hub, "127.0.0.1", b->head.port, &port, &et));
}

static void a_head_that_is_not_there_is_waited_for(void **state)
{
    struct bench b;
    struct event *later;
    struct hub_opts opts = {.calls = &greeting_calls, .name = "kitchen"};

    (void)state;
    bench_open(&b);
    hub_close(b.head.hub);
    opts.base = b.base;
    opts.identity = b.head.id;
    opts.user = &b.head;
    must(hub_open(&opts, &b.head.hub, &et));
    later = event_new(b.base, -1, 0, open_head, &b);
    event_add(later, &(struct timeval){0, 500000});
    b.lines.wanted = "trying again";
    fetch_all(&b);
    has_what_is_needed(&b);
    assert_int_equal(b.received, b.needed);
    assert_in_range(b.lines.n_wanted, 2, 4); /* after 0, 0.2 and 0.6 s */
    event_free(later);
    bench_close(&b);
}

static void stop_loop(evutil_socket_t fd, short what, void *user)
{
    struct bench *b = user;

    (void)fd;
    (void)what;
    if (place_sent(&b->head) > b->needed / 3)
        event_base_loopbreak(b->base);
}

static void what_came_before_a_restart_is_kept(void **state)
{
    struct bench b;
    struct event *watch;
    uint64_t kept;

    (void)state;
    bench_open(&b);
    watch = event_new(b.base, -1, EV_PERSIST, stop_loop, &b);
    event_add(watch, &(struct timeval){0, 100});
    begin(&b);
    event_base_dispatch(b.base);
    event_free(watch);
    assert_int_equal(b.n_done, 0);
    fetch_cancel(b.fetch);
    cache_close(b.cache);
    open_cache(&b, 0);
    kept = cache_bytes(b.cache);
    assert_true(kept > 0 && kept < b.needed);
    fetch_all(&b);
    has_what_is_needed(&b);
    assert_int_equal(b.received, b.needed - kept);
    bench_close(&b);
}

/* ---- what cannot go well ---- */

static void fails(struct bench *b, enum err e, const char *words)
{
    begin(b);
    run(b);
    assert_int_equal(b->e, e);
    if (!strstr(b->why, words))
        fail_msg("\"%s\" does not say \"%s\"", b->why, words);
}

static void a_wrong_head_is_an_error(void **state)
{
    struct bench b;
    int part = 1;

    (void)state;
    bench_open(&b);
    while (!b.need[part])
        part++;
    file_flip(b.path, b.manifest->part[part].offset + 1);
    fails(&b, ERR_PROTO, "kitchen: it is not what it should be, 3 times");
    assert_non_null(strstr(b.why, "tensor blk."));
    bench_close(&b);
}

static void a_head_without_the_model_is_an_error(void **state)
{
    struct bench b;

    (void)state;
    bench_open(&b);
    b.head.store.manifest = NULL;
    fails(&b, ERR_INPUT, "kitchen does not have that model");
    assert_int_equal(cache_bytes(b.cache), 0);
    bench_close(&b);
}

static void a_limit_is_said_before_anything_is_shipped(void **state)
{
    struct bench b;

    (void)state;
    bench_open(&b);
    cache_close(b.cache);
    open_cache(&b, b.manifest->part[0].size + 100000);
    fails(&b, ERR_LIMIT, "raise its limit");
    assert_int_equal(place_sent(&b.head), b.manifest->part[0].size);
    /* Raised, it goes on. */
    cache_close(b.cache);
    open_cache(&b, b.needed);
    fetch_all(&b);
    assert_int_equal(b.received, b.needed - b.manifest->part[0].size);
    bench_close(&b);
}

static void a_full_disk_is_an_error(void **state)
{
    struct bench b;
    char path[128];

    (void)state;
    bench_open(&b);
    cache_close(b.cache);
    snprintf(path, sizeof path, "%s/cache", b.folder.path);
    if (mount("tmpfs", path, "tmpfs", 0, "size=1m") != 0) {
        open_cache(&b, 0);
        bench_close(&b);
        skip(); /* wants root; test_mirror does without */
    }
    open_cache(&b, 0);
    fails(&b, ERR_FILE, "is full");
    assert_int_equal(place_sent(&b.head), b.manifest->part[0].size);
    assert_int_equal(mount(NULL, path, "tmpfs", MS_REMOUNT, "size=200m"), 0);
    fetch_all(&b);
    has_what_is_needed(&b);
    mirror_close(b.mirror);
    b.mirror = NULL;
    cache_close(b.cache);
    b.cache = NULL;
    assert_int_equal(umount(path), 0);
    bench_close(&b);
}

/* ---- giving, to someone who keeps no rules ---- */

struct asker {
    struct event_base *base;
    struct link *link;
    const struct fake *fake;
    int n_chunks, n_refused, n_manifests, n_haves, expect;
    uint64_t next; /* offset the next chunk must have, while they come in a row */
    bool closed;
};

static void asker_opened(void *user, struct link *link, const struct wire_welcome *w)
{
    struct asker *a = user;

    (void)link;
    (void)w;
    event_base_loopbreak(a->base);
}

static void asker_frame(void *user, struct link *link, const struct frame *f)
{
    struct asker *a = user;
    struct wire_chunk c;
    struct wire_manifest m;
    struct wire_have h;

    (void)link;
    if (f->type == FRAME_MANIFEST) {
        must(wire_manifest_decode(f, &m, &et));
        assert_int_equal(m.len, a->expect);
        a->n_manifests++;
    } else if (f->type == FRAME_HAVE) {
        must(wire_have_decode(f, &h, &et));
        assert_int_equal(h.n_parts, a->expect);
        a->n_haves++;
    } else {
        must(wire_chunk_decode(f, &c, &et));
        if (c.code) {
            assert_int_equal(c.code, ERR_INPUT);
            a->n_refused++;
        } else {
            assert_int_equal(c.offset, a->next);
            assert_memory_equal(c.bytes, fake_part(a->fake, c.part) + c.offset, c.len);
            a->next += c.len;
            a->n_chunks++;
        }
    }
    if (a->n_chunks + a->n_refused + a->n_manifests + a->n_haves == a->expect ||
        f->type != FRAME_CHUNK)
        event_base_loopbreak(a->base);
}

static void asker_closed(void *user, struct link *link, enum err e, const char *why)
{
    struct asker *a = user;

    (void)link;
    (void)e;
    (void)why;
    a->closed = true;
    a->link = NULL;
    event_base_loopbreak(a->base);
}

static const struct link_calls asker_calls = {
    .opened = asker_opened,
    .frame = asker_frame,
    .closed = asker_closed,
};

static void ask(struct asker *a, const uint8_t id[32], int part, uint64_t offset, int length)
{
    struct wire_fetch f = {.part = part, .offset = offset, .length = length};
    struct wire_buf buf;
    struct frame_out out;

    memcpy(f.model, id, 32);
    wire_fetch_encode(&f, &buf, &out);
    link_send(a->link, &out);
}

static void ask_model(struct asker *a, enum frame_type type, const uint8_t id[32])
{
    struct wire_model_ask m;
    struct wire_buf buf;
    struct frame_out out;

    memcpy(m.model, id, 32);
    wire_model_ask_encode(type, &m, &buf, &out);
    link_send(a->link, &out);
}

static void spin(struct asker *a)
{
    struct event *guard = event_new(a->base, -1, 0, too_long, NULL);

    event_add(guard, &(struct timeval){20, 0});
    event_base_dispatch(a->base);
    event_free(guard);
}

static void dial_giver(struct asker *a, struct hub *hub, const struct place *p)
{
    char address[64];
    struct wire_greet greet = {.name = "asker", .purpose = WIRE_FOR_BULK};
    struct dial_opts opts = {
        .address = address,
        .want_key = identity_key(p->id),
        .greet = &greet,
        .trust = WIRE_BULK,
        .calls = &asker_calls,
        .user = a,
    };

    snprintf(address, sizeof address, "127.0.0.1:%d", p->port);
    a->closed = false;
    a->link = hub_dial(hub, &opts);
    spin(a);
    assert_false(a->closed);
}

static void liars_get_answers_then_the_door(void **state)
{
    static const uint64_t sizes[] = {1000, 12 << 20};
    struct folder folder = {""};
    char path[160];
    struct fake fake;
    struct place p;
    struct asker a = {.base = event_base_new()};
    struct identity *id = identity_new();
    struct hub *hub;
    struct hub_opts opts = {.base = a.base, .identity = id, .name = "asker"};
    uint8_t unknown[32] = {1};

    (void)state;
    folder_make(&folder);
    snprintf(path, sizeof path, "%s/file", folder.path);
    fake_make(&fake, sizes, 2, 4);
    file_write(path, fake.bytes, fake.manifest->file_bytes);
    a.fake = &fake;
    place_open(&p, a.base, "giver");
    p.store = (struct bulk_store){NULL, fake.manifest, open(path, O_RDONLY | O_CLOEXEC)};
    must(hub_open(&opts, &hub, &et));

    dial_giver(&a, hub, &p);
    a.expect = 0;
    ask_model(&a, FRAME_MANIFEST_ASK, unknown);
    spin(&a);
    ask_model(&a, FRAME_HAVE_ASK, unknown);
    spin(&a);
    a.expect = (int)manifest_size(fake.manifest);
    ask_model(&a, FRAME_MANIFEST_ASK, fake.manifest->id);
    spin(&a);
    a.expect = 2;
    ask_model(&a, FRAME_HAVE_ASK, fake.manifest->id);
    spin(&a);
    assert_int_equal(a.n_manifests, 2);
    assert_int_equal(a.n_haves, 2);

    /* Many at once, though not too many: all are answered, and little waits meanwhile. */
    a.n_manifests = a.n_haves = 0;
    a.expect = 60;
    for (int i = 0; i < 60; i++)
        ask(&a, fake.manifest->id, 1, (uint64_t)i * WIRE_CHUNK_MAX, WIRE_CHUNK_MAX);
    spin(&a);
    assert_int_equal(a.n_chunks, 60);
    assert_true(p.pending_max < (1 << 20) + WIRE_CHUNK_MAX + 4096);
    assert_int_equal(place_sent(&p), 60 * WIRE_CHUNK_MAX);

    /* What cannot be is refused, some times. */
    a.n_chunks = 0;
    a.expect = 6;
    ask(&a, unknown, 0, 0, 10);
    ask(&a, fake.manifest->id, 2, 0, 10);
    ask(&a, fake.manifest->id, WIRE_PARTS_MAX - 1, 0, 10);
    ask(&a, fake.manifest->id, 0, 991, 10);
    ask(&a, fake.manifest->id, 0, 1000, 1);
    ask(&a, fake.manifest->id, 0, (uint64_t)1 << 40, 1);
    spin(&a);
    assert_int_equal(a.n_refused, 6);
    assert_false(a.closed);
    a.expect = 1000;
    for (int i = 0; i < 11; i++)
        ask(&a, fake.manifest->id, 2, 0, 10);
    spin(&a);
    assert_true(a.closed);
    assert_int_equal(p.broke, ERR_PROTO);
    assert_int_equal(place_sent(&p), 60 * WIRE_CHUNK_MAX);

    /* Too many at once. */
    p.broke = ERR_NONE;
    dial_giver(&a, hub, &p);
    a.next = 0;
    a.n_refused = 0;
    for (int i = 0; i < 4000 && a.link; i++)
        ask(&a, fake.manifest->id, 1, (uint64_t)(i % 90) * WIRE_CHUNK_MAX, WIRE_CHUNK_MAX);
    a.next = 0;
    while (!a.closed) {
        a.expect = -1;
        spin(&a);
    }
    assert_int_equal(p.broke, ERR_PROTO);
    hub_close(hub);
    place_close(&p);
    identity_close(id);
    fake_free(&fake);
    folder_remove(&folder);
    event_base_free(a.base);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(only_what_is_needed_travels),
        cmocka_unit_test(two_sources_share_the_work),
        cmocka_unit_test(a_neighbours_cache_gives_what_it_has),
        cmocka_unit_test(wrong_bytes_are_survived_and_named),
        cmocka_unit_test(a_source_that_dies_is_survived),
        cmocka_unit_test(a_cut_head_is_dialled_again),
        cmocka_unit_test(a_head_that_is_not_there_is_waited_for),
        cmocka_unit_test(what_came_before_a_restart_is_kept),
        cmocka_unit_test(a_wrong_head_is_an_error),
        cmocka_unit_test(a_head_without_the_model_is_an_error),
        cmocka_unit_test(a_limit_is_said_before_anything_is_shipped),
        cmocka_unit_test(a_full_disk_is_an_error),
        cmocka_unit_test(liars_get_answers_then_the_door),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
