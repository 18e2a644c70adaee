/* A device's life: paired, fed, linked with its neighbour, passing steps; then everything that can
 * go wrong with its head, its neighbour and its memory. Two devices and a head, in one process. */
#define _GNU_SOURCE
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>
#include <fcntl.h>
#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/mem.h"
#include "device/node.h"
#include "fake_head.h"
#include "model/classes.h"
#include "support/rig.h"
#include "support/tiny_model.h"

enum { NODES = 2, STEPS = 6 };

static struct err_text et;

struct device {
    struct node *node; /* NULL while it is not running */
    char folder[96], cache[112];
    struct node_status status;
    int n_said, n_measuring, n_found_bad, n_mended;
};

struct world {
    char folder[64], head_folder[96], path[96];
    struct event_base *base;
    struct fake_head head;
    struct device device[NODES];
    float expected[STEPS][HEAD_VOCAB_MAX]; /* logits of the model run in one piece */
    int n_vocab;
    uint32_t epoch;
    int window_ms; /* of what devices measure; 0 = 1 */
};

/* ---- the world ---- */

static int remove_one(const char *path, const struct stat *st, int flag, struct FTW *ftw)
{
    (void)st;
    (void)flag;
    (void)ftw;
    return remove(path);
}

static void on_status(void *user, const struct node_status *s)
{
    struct device *d = user;

    d->status = *s;
    d->n_said++;
    d->n_measuring += s->state == NODE_MEASURING;
}

static void on_line(void *user, const char *component, const char *text)
{
    struct device *d = user;

    if (strstr(text, "is not what it was"))
        d->n_found_bad++;
    if (strstr(text, "fetching it again"))
        d->n_mended++;
    if (getenv("LINGUA_TEST_LOG"))
        fprintf(stderr, "%s: %s: %s\n", d->folder, component, text);
}

static struct node_opts options(struct world *w, int i)
{
    struct device *d = &w->device[i];

    return (struct node_opts){.state_folder = d->folder,
                              .cache_folder = d->cache,
                              .name = i ? "second" : "first",
                              .listen = "127.0.0.1",
                              .n_threads = 1,
                              .cap = i ? 0 : 40,
                              .spare = i == 0,
                              .profile_windows = 1,
                              .profile_window_ms = w->window_ms ? w->window_ms : 1,
                              .log = {on_line, d},
                              .status = on_status,
                              .user = d};
}

static void start(struct world *w, int i, const struct token *token, bool with_address)
{
    struct node_opts o = options(w, i);
    char address[64];

    snprintf(address, sizeof address, "127.0.0.1:%d", w->head.port);
    o.token = token;
    o.address = with_address ? address : NULL;
    if (node_open(w->base, &o, &w->device[i].node, &et))
        fail_msg("%s", et.text);
}

static void stop(struct world *w, int i)
{
    node_close(w->device[i].node);
    w->device[i].node = NULL;
}

/* What each token's logits are when one device has it all. */
static void expect(struct world *w)
{
    struct rig rig;
    int32_t token[STEPS];

    for (int i = 0; i < STEPS; i++)
        token[i] = 10 + i;
    rig_open(&rig, w->path, 1, &w->head.segment, NULL, 0);
    w->n_vocab = rig.n_vocab;
    assert_true(w->n_vocab <= HEAD_VOCAB_MAX);
    for (int i = 0; i < STEPS; i++)
        rig_feed(&rig, 0, i, token, 1, 1, w->expected[i]);
    rig_close(&rig);
}

static void wait_state(struct world *w, int i, enum node_state state)
{
    for (int tries = 0; w->device[i].status.state != state; tries++) {
        if (tries == 600)
            fail_msg("state %d, %d wanted: %s", w->device[i].status.state, state,
                     w->device[i].status.trouble);
        fake_head_run_ms(&w->head, 50);
    }
}

/* What measuring this machine would give, so that not every test measures it again. */
static void put_profile(const char *folder)
{
    char path[192];
    FILE *f;

    mkdir(folder, 0700);
    snprintf(path, sizeof path, "%s/profile", folder);
    f = fopen(path, "we");
    assert_non_null(f);
    fprintf(f, "lingua profile 2\n= 1 speed 1 threads, %.100s\n1000000000\n", model_kernels());
    fclose(f);
}

/* Both devices have joined by a token each, and are linked as members. */
static struct world *world_open(void)
{
    struct world *w = mem_zalloc(1, sizeof *w);
    struct token token;

    strcpy(w->folder, "node-XXXXXX");
    assert_non_null(mkdtemp(w->folder));
    snprintf(w->path, sizeof w->path, "%s/model.gguf", w->folder);
    snprintf(w->head_folder, sizeof w->head_folder, "%s/head", w->folder);
    tiny_write(w->path, TINY_LLAMA, GGML_TYPE_F32, 11);
    w->base = event_base_new();
    fake_head_open(&w->head, w->base, w->head_folder, w->path);
    expect(w);
    for (int i = 0; i < NODES; i++) {
        struct device *d = &w->device[i];

        snprintf(d->folder, sizeof d->folder, "%s/device%d", w->folder, i);
        snprintf(d->cache, sizeof d->cache, "%s/cache", d->folder);
        put_profile(d->folder);
        fake_head_token(&w->head, &token);
        start(w, i, &token, true);
        fake_head_wait(&w->head, &w->head.member[i].n_greets, 1);
        wait_state(w, i, NODE_WAITING);
    }
    return w;
}

static void world_close(struct world *w)
{
    for (int i = 0; i < NODES; i++)
        node_close(w->device[i].node);
    fake_head_close(&w->head);
    event_base_free(w->base);
    assert_int_equal(nftw(w->folder, remove_one, 16, FTW_DEPTH | FTW_PHYS), 0);
    free(w);
}

static void bring_up(struct world *w, bool relay)
{
    fake_head_bring_up(&w->head, ++w->epoch, relay);
}

/* The same text as by one device, to the bit. */
static void check_steps(struct world *w)
{
    for (int i = 0; i < STEPS; i++) {
        fake_head_step(&w->head, (uint64_t)i + 1, i, 10 + i);
        assert_int_equal(w->head.n_rows, 1);
        assert_memory_equal(w->head.logits, w->expected[i], (size_t)w->n_vocab * sizeof(float));
    }
}

static bool has_file(const struct device *d, const char *name)
{
    char path[192];

    snprintf(path, sizeof path, "%s/%s", d->folder, name);
    return access(path, F_OK) == 0;
}

/* ---- tests ---- */

static void test_direct(void **state)
{
    struct world *w = world_open();
    struct fake_member *m = w->head.member;
    struct wire_buf buf;
    struct frame_out f;
    struct stat st;
    char path[192];

    (void)state;
    assert_string_equal(m[0].greet.name, "first");
    assert_true(m[0].greet.port > 0 && m[0].greet.speed > 0 && m[0].greet.memory_bytes > 0);
    assert_true(m[0].greet.speed == 1000000000); /* remembered */
    assert_true(m[0].greet.cap == 40 && m[0].greet.spare);
    assert_true(m[1].greet.cap == 100 && !m[1].greet.spare);
    assert_int_equal(m[0].greet.roster, 2); /* of the link it was paired by */
    snprintf(path, sizeof path, "%s/cluster", w->device[0].folder);
    assert_int_equal(stat(path, &st), 0);
    assert_int_equal(st.st_mode & 0777, 0600);

    bring_up(w, false);
    assert_true(m[0].phase.weight_bytes > 0 && m[0].phase.kv_bytes > 0);
    assert_true(m[0].phase.received > 0 && m[1].phase.received > 0);
    for (int i = 0; i < NODES; i++)
        assert_int_equal(m[i].n_state[WIRE_LINK_DIRECT], 1);
    assert_int_equal(w->device[0].status.state, NODE_READY);
    assert_string_equal(w->device[0].status.modules, "ffn.0..attn.1");
    assert_string_equal(w->device[0].status.name, "first");
    assert_string_equal(w->device[0].status.head_name, "head");
    wire_empty_encode(FRAME_REPORT_ASK, &buf, &f);
    fake_head_send(&w->head, 0, &f);
    wire_trace_ask_encode(&(struct wire_trace_ask){.on = true}, &buf, &f);
    fake_head_send(&w->head, 0, &f);
    check_steps(w);
    assert_int_equal(w->head.n_relayed, 0);
    /* A look at some of an epoch's steps, and at another's, leaves the trace as it is. */
    wire_trace_ask_encode(
        &(struct wire_trace_ask){.epoch = w->head.plan.epoch, .first = 2, .last = 3}, &buf, &f);
    fake_head_send(&w->head, 0, &f);
    fake_head_wait(&w->head, &m[0].n_traces, 1);
    assert_int_equal(m[0].n_trace_records, 2);
    assert_int_equal(m[0].trace_epoch, w->head.plan.epoch);
    wire_trace_ask_encode(
        &(struct wire_trace_ask){.epoch = w->head.plan.epoch + 1, .last = UINT64_MAX}, &buf, &f);
    fake_head_send(&w->head, 0, &f);
    fake_head_wait(&w->head, &m[0].n_traces, 2);
    assert_int_equal(m[0].n_trace_records, 0);
    wire_trace_ask_encode(&(struct wire_trace_ask){.on = false}, &buf, &f);
    fake_head_send(&w->head, 0, &f);
    fake_head_wait(&w->head, &m[0].n_traces, 3);
    assert_int_equal(m[0].n_trace_records, STEPS);
    assert_int_equal(m[0].trace_epoch, 0);
    wire_empty_encode(FRAME_REPORT_ASK, &buf, &f);
    fake_head_send(&w->head, 0, &f);
    fake_head_wait(&w->head, &m[0].n_reports, 2);
    assert_int_equal(m[0].report.decode_steps, STEPS);
    assert_true(m[0].report.storage_free > 0 && m[0].report.memory_free > 0);
    assert_in_range(m[0].report.battery_percent + 1, 0, 101);
    fake_head_wait(&w->head, &m[0].n_pongs, 1);
    world_close(w);
}

static void test_relay(void **state)
{
    struct world *w = world_open();

    (void)state;
    bring_up(w, true);
    check_steps(w);
    assert_int_equal(w->head.n_relayed, STEPS); /* from the first to the second */
    assert_int_equal(w->head.member[0].n_state[WIRE_LINK_DIRECT], 0);
    world_close(w);
}

/* The way there is barred; the way back is not. */
static void test_dial_the_other_way(void **state)
{
    struct world *w = world_open();
    struct fake_member *m = w->head.member;

    (void)state;
    fake_head_assign(&w->head, ++w->epoch, "127.0.0.1:1 127.0.0.1:2");
    for (int i = 0; i < NODES; i++)
        fake_head_wait(&w->head, &m[i].n_phase[WIRE_PHASE_FETCHED], 1);
    fake_head_load(&w->head);
    fake_head_dial(&w->head, 0, 2, WIRE_DIAL_OUT);
    fake_head_wait(&w->head, &m[0].n_state[WIRE_LINK_FAILED], 1);
    assert_int_equal(m[0].n_phase[WIRE_PHASE_READY], 0);
    fake_head_dial(&w->head, 0, 2, WIRE_DIAL_RELAY);
    fake_head_dial(&w->head, 1, 1, WIRE_DIAL_RELAY);
    for (int i = 0; i < NODES; i++)
        fake_head_wait(&w->head, &m[i].n_phase[WIRE_PHASE_READY], 1);
    check_steps(w);

    bring_up(w, false); /* now the first one's address is right */
    fake_head_assign(&w->head, ++w->epoch, NULL);
    for (int i = 0; i < NODES; i++)
        fake_head_wait(&w->head, &m[i].n_phase[WIRE_PHASE_FETCHED], 3);
    fake_head_load(&w->head);
    fake_head_dial(&w->head, 1, 1, WIRE_DIAL_OUT);
    fake_head_dial(&w->head, 0, 2, WIRE_DIAL_AWAIT);
    for (int i = 0; i < NODES; i++)
        fake_head_wait(&w->head, &m[i].n_phase[WIRE_PHASE_READY], 3);
    check_steps(w);
    world_close(w);
}

/* Restarted devices need no token and fetch nothing; a lost neighbour is told. */
static void test_restart(void **state)
{
    struct world *w = world_open();
    struct fake_member *m = w->head.member;
    struct node_opts o = options(w, 1);
    struct node *other;

    (void)state;
    bring_up(w, false);
    assert_int_equal(node_open(w->base, &o, &other, &et), ERR_FILE); /* the folder is in use */
    stop(w, 1);
    fake_head_wait(&w->head, &m[1].n_left, 1);
    fake_head_wait(&w->head, &m[0].n_state[WIRE_LINK_LOST], 1);
    start(w, 1, NULL, false); /* it remembers where */
    fake_head_wait(&w->head, &m[1].n_greets, 2);
    assert_int_equal(m[1].greet.roster, roster_version(w->head.roster));
    bring_up(w, false);
    assert_int_equal(m[0].phase.received, 0);
    assert_int_equal(m[1].phase.received, 0);
    check_steps(w);
    world_close(w);
}

/* The head's program ends and comes back; the devices find it again, and keep what they loaded. */
static void test_head_comes_back(void **state)
{
    struct world *w = world_open();
    struct fake_member *m = w->head.member;

    (void)state;
    bring_up(w, false);
    check_steps(w);
    fake_head_stop(&w->head);
    wait_state(w, 0, NODE_DIALLING);
    wait_state(w, 1, NODE_DIALLING);
    fake_head_start(&w->head);
    for (int i = 0; i < NODES; i++)
        fake_head_wait(&w->head, &m[i].n_greets, 2);
    bring_up(w, false);
    check_steps(w);
    world_close(w);
}

static void test_silence(void **state)
{
    struct world *w = world_open();
    struct fake_member *m = w->head.member;

    (void)state;
    bring_up(w, false);
    w->head.silent = true; /* its links stand, as those of a stopped process do */
    for (int i = 0; i < NODES; i++)
        fake_head_wait(&w->head, &m[i].n_greets, 2);
    w->head.silent = false;
    bring_up(w, false);
    check_steps(w);
    world_close(w);
}

static void test_stop(void **state)
{
    struct world *w = world_open();
    struct fake_member *m = w->head.member;
    struct wire_buf buf;
    struct frame_out f;

    (void)state;
    bring_up(w, false);
    check_steps(w);
    wire_empty_encode(FRAME_STOP, &buf, &f);
    fake_head_send(&w->head, 0, &f);
    fake_head_wait(&w->head, &m[0].n_left, 1);
    assert_int_equal(w->device[0].status.steps, STEPS);
    assert_string_equal(w->device[0].status.modules, "");
    fake_head_wait(&w->head, &m[0].n_greets, 2); /* after a while */
    bring_up(w, false);
    check_steps(w);
    world_close(w);
}

/* ---- who belongs, and who does not ---- */

static void test_revoked(void **state)
{
    struct world *w = world_open();
    struct fake_member *m = w->head.member;
    struct wire_roster old = roster_signed(w->head.roster);
    uint8_t body[WIRE_ROSTER_BODY_MAX], signature[WIRE_SIGNATURE_BYTES];
    struct key_id key;
    struct token token;

    (void)state;
    memcpy(body, old.body, old.body_len);
    memcpy(signature, old.signature, old.signature_len);
    old.body = body;
    old.signature = signature;
    bring_up(w, false);
    assert_int_equal(roster_revoke(w->head.roster, "second", &key, &et), ERR_NONE);
    /* Its neighbour cuts the link itself, before the head does anything else. */
    fake_head_roster(&w->head, NULL);
    fake_head_wait(&w->head, &m[0].n_state[WIRE_LINK_LOST], 1);
    assert_int_equal(hub_cut(w->head.hub, &key, "revoked"), 1);
    while (!node_ended(w->device[1].node, &et))
        fake_head_run_ms(&w->head, 20);
    assert_int_equal(node_ended(w->device[1].node, &et), ERR_INPUT);
    assert_non_null(strstr(et.text, "removed from head's cluster; join again with a new token"));
    assert_false(has_file(&w->device[1], "cluster"));
    assert_int_equal(w->device[1].status.state, NODE_ENDED);

    /* An old roster that names it still is not taken; the link it came by is not believed. */
    assert_non_null(m[0].link);
    fake_head_roster(&w->head, &old);
    fake_head_wait(&w->head, &m[0].n_greets, 2);
    assert_true(m[0].greet.roster > 3);
    assert_true(m[0].greet.roster == roster_version(w->head.roster));

    /* With a new token it may come again. */
    stop(w, 1);
    assert_int_equal(node_open(w->base, &(struct node_opts){.state_folder = w->device[1].folder},
                               &w->device[1].node, &et),
                     ERR_INPUT);
    fake_head_token(&w->head, &token);
    start(w, 1, &token, true);
    fake_head_wait(&w->head, &m[1].n_greets, 2);
    bring_up(w, false);
    check_steps(w);
    world_close(w);
}

static void test_tokens(void **state)
{
    struct world *w = world_open();
    struct token token;
    struct key_id key;

    (void)state;
    fake_head_token(&w->head, &token);
    stop(w, 1);
    /* A member keeps the token for the day it is removed. */
    start(w, 1, &token, false);
    fake_head_wait(&w->head, &w->head.member[1].n_greets, 2);
    assert_int_equal(w->head.book.n, 1);
    assert_int_equal(roster_revoke(w->head.roster, "second", &key, &et), ERR_NONE);
    hub_cut(w->head.hub, &key, "revoked");
    fake_head_wait(&w->head, &w->head.member[1].n_greets, 3);
    assert_int_equal(w->head.book.n, 0);
    stop(w, 1);

    /* One that was used up by another ends it. */
    assert_int_equal(roster_revoke(w->head.roster, "second", &key, &et), ERR_NONE);
    start(w, 1, &token, true);
    while (!node_ended(w->device[1].node, &et))
        fake_head_run_ms(&w->head, 20);
    assert_int_equal(node_ended(w->device[1].node, &et), ERR_INPUT);
    world_close(w);
}

/* No address is known: one that discovery finds will do, and one of another head does no harm. */
static void test_found(void **state)
{
    struct world *w = world_open();
    struct token token;
    char address[64], path[192];

    (void)state;
    stop(w, 1);
    snprintf(path, sizeof path, "%s/cluster", w->device[1].folder);
    assert_int_equal(remove(path), 0);
    fake_head_token(&w->head, &token);
    start(w, 1, &token, false);
    fake_head_run_ms(&w->head, 100);
    assert_int_equal(w->device[1].status.state, NODE_DIALLING);
    assert_non_null(strstr(w->device[1].status.trouble, "no head has been found"));
    /* The other device answers there, and is not the head of the token. */
    snprintf(address, sizeof address, "127.0.0.1:%d", w->head.member[0].greet.port);
    node_found(w->device[1].node, address);
    fake_head_run_ms(&w->head, 300);
    assert_int_equal(node_ended(w->device[1].node, &et), ERR_NONE);
    snprintf(address, sizeof address, "127.0.0.1:%d", w->head.port);
    node_found(w->device[1].node, address);
    fake_head_wait(&w->head, &w->head.member[1].n_greets, 2);
    world_close(w);
}

struct knock {
    int n_over, n_opened;
    enum err e;
    char why[ERR_TEXT_MAX];
};

static void knock_opened(void *user, struct link *l, const struct wire_welcome *welcome)
{
    (void)l;
    (void)welcome;
    ((struct knock *)user)->n_opened++;
}

static void knock_frame(void *user, struct link *l, const struct frame *f)
{
    (void)user;
    (void)l;
    (void)f;
}

static void knock_closed(void *user, struct link *l, enum err e, const char *why)
{
    struct knock *k = user;

    (void)l;
    k->n_over++;
    k->e = e;
    snprintf(k->why, sizeof k->why, "%s", why);
}

/* Knocks at the first device's door, and must be refused with a sentence that holds `says`. */
static void knock(struct world *w, struct hub *hub, enum wire_purpose purpose, uint32_t epoch,
                  const char *says)
{
    static const struct link_calls calls = {
        .opened = knock_opened, .frame = knock_frame, .closed = knock_closed};
    struct knock k = {0};
    struct wire_greet greet = {.purpose = purpose, .epoch = epoch};
    char address[64];
    struct dial_opts d = {.address = address,
                          .want_key = &w->head.member[0].key,
                          .greet = &greet,
                          .trust = purpose == WIRE_FOR_BULK ? WIRE_BULK : WIRE_STAGES,
                          .calls = &calls,
                          .user = &k};

    snprintf(address, sizeof address, "127.0.0.1:%d", w->head.member[0].greet.port);
    hub_dial(hub, &d);
    fake_head_wait(&w->head, &k.n_over, 1);
    assert_int_equal(k.n_opened, 0);
    if (!strstr(k.why, says))
        fail_msg("\"%s\" does not say \"%s\"", k.why, says);
}

static void test_strangers(void **state)
{
    struct world *w = world_open();
    struct identity *stranger = identity_new();
    struct hub *hub;
    struct hub_opts o = {.base = w->base, .identity = stranger, .name = "stranger"};

    (void)state;
    bring_up(w, false);
    assert_int_equal(hub_open(&o, &hub, &et), ERR_NONE);
    knock(w, hub, WIRE_FOR_STAGES, w->epoch, "not one of the cluster's");
    knock(w, hub, WIRE_FOR_BULK, 0, "not one of the cluster's");
    knock(w, hub, WIRE_FOR_MEMBER, 0, "no head");
    knock(w, hub, WIRE_FOR_PAIR, 0, "no head");
    /* The head is of the cluster, but no neighbour by this door; nor is anyone in another epoch. */
    knock(w, w->head.hub, WIRE_FOR_STAGES, w->epoch, "no neighbour");
    knock(w, w->head.hub, WIRE_FOR_STAGES, w->epoch + 7, "no neighbour");
    check_steps(w); /* none of that was felt */

    /* With its head gone a device cannot know who was removed: it takes nobody. */
    fake_head_stop(&w->head);
    wait_state(w, 0, NODE_DIALLING);
    w->head.hub = hub; /* to wait with */
    knock(w, hub, WIRE_FOR_STAGES, w->epoch, "not linked with its head");
    w->head.hub = NULL;
    hub_close(hub);
    fake_head_start(&w->head);
    identity_close(stranger);
    world_close(w);
}

/* ---- weights ---- */

/* Changes a byte of a tensor in a device's cache, in the last third of its own bytes. */
static void flip_cached(struct world *w, int i)
{
    uint8_t *need = mem_zalloc((size_t)w->head.manifest->n_parts, 1), byte;
    char path[256];
    uint64_t bytes, offset = 0;
    int fd;

    assert_int_equal(
        manifest_needs(w->head.manifest, w->head.model, &w->head.plan, i + 1, need, &bytes, &et),
        ERR_NONE);
    for (int p = 1; p < w->head.manifest->n_parts; p++)
        if (need[p])
            offset = w->head.manifest->part[p].offset + 5;
    free(need);
    snprintf(path, sizeof path, "%s/", w->device[i].cache);
    for (int k = 0; k < 8; k++)
        snprintf(path + strlen(path), 3, "%02x", w->head.manifest->id[k]);
    strcat(path, "/model.gguf");
    fd = open(path, O_RDWR | O_CLOEXEC);
    assert_true(fd >= 0 && offset > 0);
    assert_int_equal(pread(fd, &byte, 1, (off_t)offset), 1);
    byte ^= 0x40;
    assert_int_equal(pwrite(fd, &byte, 1, (off_t)offset), 1);
    close(fd);
}

static void test_flipped_byte(void **state)
{
    struct world *w = world_open();

    (void)state;
    bring_up(w, false);
    stop(w, 0);
    flip_cached(w, 0);
    start(w, 0, NULL, false);
    fake_head_wait(&w->head, &w->head.member[0].n_greets, 2);
    bring_up(w, false);
    assert_int_equal(w->device[0].n_found_bad, 1);
    assert_int_equal(w->device[0].n_mended, 1);
    assert_true(w->head.member[0].phase.received > 0);
    check_steps(w);
    world_close(w);
}

/* The second has what the first is to hold now: it may come from either, but a new plan works. */
static void test_other_boundaries(void **state)
{
    struct world *w = world_open();

    (void)state;
    bring_up(w, false);
    w->head.plan.stage[1].end = w->head.plan.stage[2].first = 5;
    bring_up(w, false);
    check_steps(w);
    assert_string_equal(w->device[0].status.modules, "ffn.0..ffn.1");
    world_close(w);
}

/* An epoch that has no place for a device: it lets go of what it has. */
static void test_no_part_any_more(void **state)
{
    struct world *w = world_open();
    struct fake_member *m = w->head.member;
    struct wire_buf buf;
    struct frame_out f;

    (void)state;
    bring_up(w, false);
    wire_load_encode(&(struct wire_load){++w->epoch, 0}, &buf, &f);
    fake_head_send(&w->head, 0, &f);
    wait_state(w, 0, NODE_WAITING);
    assert_string_equal(w->device[0].status.modules, "");
    assert_int_equal(m[0].n_phase[WIRE_PHASE_FAILED], 0);
    fake_head_wait(&w->head, &m[1].n_state[WIRE_LINK_LOST], 1);
    wire_empty_encode(FRAME_REPORT_ASK, &buf, &f);
    while (m[0].n_reports == 0 || m[0].report.weight_bytes) { /* the worker may take a moment */
        fake_head_send(&w->head, 0, &f);
        fake_head_run_ms(&w->head, 20);
    }
    bring_up(w, false);
    check_steps(w);
    world_close(w);
}

/* ---- a head that makes no sense ---- */

static void test_orders_that_make_no_sense(void **state)
{
    struct world *w = world_open();
    struct fake_member *m = w->head.member;
    struct wire_buf buf;
    struct frame_out f;

    (void)state;
    fake_head_assign(&w->head, ++w->epoch, NULL);
    wire_load_encode(&(struct wire_load){w->epoch, 0}, &buf, &f);
    fake_head_send(&w->head, 0, &f); /* too early */
    fake_head_wait(&w->head, &m[0].n_phase[WIRE_PHASE_FAILED], 1);
    assert_non_null(strstr(m[0].phase.text.text, "not here yet"));
    fake_head_dial(&w->head, 0, 2, WIRE_DIAL_OUT); /* of no epoch */
    w->head.plan.stage[1].first = 3;               /* a gap */
    fake_head_assign(&w->head, ++w->epoch, NULL);
    fake_head_wait(&w->head, &m[0].n_phase[WIRE_PHASE_FAILED], 2);
    w->head.plan.stage[1].first = 2;
    w->head.segment.n_ctx = 1 << 25; /* cannot be loaded */
    fake_head_assign(&w->head, ++w->epoch, NULL);
    while (m[0].phase.epoch != w->epoch || m[0].phase.phase != WIRE_PHASE_FETCHED)
        fake_head_run_ms(&w->head, 20);
    wire_load_encode(&(struct wire_load){w->epoch, 0}, &buf, &f);
    fake_head_send(&w->head, 0, &f);
    fake_head_wait(&w->head, &m[0].n_phase[WIRE_PHASE_FAILED], 3);
    assert_non_null(strstr(m[0].phase.text.text, "a context of"));
    w->head.segment.n_ctx = 64;
    bring_up(w, false);

    /* A step that is not due ends the epoch for this device, not more. */
    struct step s = {.number = 5, .epoch = w->epoch, .stage = 1};

    step_encode(w->head.codec, &s, &f);
    fake_head_send(&w->head, 0, &f);
    fake_head_wait(&w->head, &m[0].n_phase[WIRE_PHASE_FAILED], 4);
    bring_up(w, false);
    check_steps(w);

    /* A frame that a head does not send costs it the link. */
    wire_leave_encode(&(struct wire_leave){{"?"}}, &buf, &f);
    fake_head_send(&w->head, 0, &f);
    fake_head_wait(&w->head, &m[0].n_greets, 2);
    world_close(w);
}

/* ---- profiles ---- */

static void ask_profile(struct world *w, uint64_t classes, int n_classes)
{
    struct wire_profile_ask ask = {.classes = classes, .n_classes = n_classes, .kv = KV_F16};
    struct wire_buf buf;
    struct frame_out f;

    memcpy(ask.model, w->head.manifest->id, sizeof ask.model);
    wire_profile_ask_encode(&ask, &buf, &f);
    fake_head_send(&w->head, 0, &f);
}

static void test_profile(void **state)
{
    struct world *w = world_open();
    struct fake_member *m = &w->head.member[0];
    struct model_classes c;
    struct wire_profile first;
    int n_bulk;

    (void)state;
    if (model_classes(w->head.model, KV_F16, &c, &et))
        fail_msg("%s", et.text);
    ask_profile(w, c.id, c.n);
    fake_head_wait(&w->head, &w->device[0].n_measuring, 1);
    ask_profile(w, c.id, c.n); /* which is being seen to */
    fake_head_wait(&w->head, &m->n_profiles, 1);
    wait_state(w, 0, NODE_WAITING);
    if (m->profile.code)
        fail_msg("%s", m->profile.text.text);
    assert_true(m->profile.classes == c.id);
    assert_int_equal(m->profile.n_classes, c.n);
    assert_int_equal(m->profile.n_threads, 1);
    for (int i = 0; i < c.n; i++)
        for (int k = 0; k <= 5; k++)
            assert_true(m->profile.cost_ps[i][k] > 0);
    first = m->profile;
    n_bulk = w->head.n_bulk_greets;
    assert_int_equal(n_bulk, 1);
    /* It knows by now, and needs nobody for it, after a restart neither. */
    ask_profile(w, c.id, c.n);
    fake_head_wait(&w->head, &m->n_profiles, 2);
    assert_memory_equal(m->profile.cost_ps, first.cost_ps, sizeof first.cost_ps);
    stop(w, 0);
    start(w, 0, NULL, false);
    fake_head_wait(&w->head, &m->n_greets, 2);
    wait_state(w, 0, NODE_WAITING);
    ask_profile(w, c.id, c.n);
    fake_head_wait(&w->head, &m->n_profiles, 3);
    assert_memory_equal(m->profile.cost_ps, first.cost_ps, sizeof first.cost_ps);
    assert_int_equal(w->head.n_bulk_greets, n_bulk);
    /* Classes that are not what the header says; it is here already. */
    ask_profile(w, c.id + 1, c.n);
    fake_head_wait(&w->head, &m->n_profiles, 4);
    assert_int_equal(m->profile.code, ERR_UNSUPPORTED);
    assert_non_null(strstr(m->profile.text.text, "same version"));
    assert_int_equal(w->head.n_bulk_greets, n_bulk);
    /* And the chain comes up as ever, asked in the midst of it. */
    ask_profile(w, c.id + 2, c.n);
    bring_up(w, false);
    check_steps(w);
    fake_head_wait(&w->head, &m->n_profiles, 5);
    model_classes_fini(&c);
    world_close(w);
}

/* An ask replaces the one before it; the head's end cancels it. */
static void test_profile_is_replaced(void **state)
{
    struct world *w = world_open();
    struct fake_member *m = &w->head.member[0];
    struct model_classes c;

    (void)state;
    if (model_classes(w->head.model, KV_F16, &c, &et))
        fail_msg("%s", et.text);
    ask_profile(w, c.id + 1, c.n);
    ask_profile(w, c.id, c.n);
    fake_head_wait(&w->head, &m->n_profiles, 1);
    assert_true(m->profile.classes == c.id && !m->profile.code);
    stop(w, 0);
    w->window_ms = 400; /* so that it is still at it when the head goes */
    start(w, 0, NULL, false);
    fake_head_wait(&w->head, &m->n_greets, 2);
    wait_state(w, 0, NODE_WAITING);
    ask_profile(w, c.id + 1, c.n);
    wait_state(w, 0, NODE_MEASURING);
    fake_head_stop(&w->head);
    wait_state(w, 0, NODE_DIALLING);
    fake_head_start(&w->head);
    wait_state(w, 0, NODE_WAITING);
    ask_profile(w, c.id, c.n);
    fake_head_wait(&w->head, &m->n_profiles, 2);
    assert_int_equal(m->profile.code, ERR_NONE);
    model_classes_fini(&c);
    world_close(w);
}

/* ---- how quick links are ---- */

static bool is_measured(uint64_t rtt_us, uint64_t out_bytes_per_s, uint64_t in_bytes_per_s)
{
    return rtt_us > 0 && out_bytes_per_s > 0 && in_bytes_per_s > 0;
}

static bool same_speed(const struct wire_link_report *a, const struct wire_link_report *b)
{
    return a->rtt_us == b->rtt_us && a->out_bytes_per_s == b->out_bytes_per_s &&
           a->in_bytes_per_s == b->in_bytes_per_s;
}

/* The one that dialled measures, once; by the time all are ready the head has heard of it. */
static void test_speed(void **state)
{
    struct world *w = world_open();
    struct fake_member *m = w->head.member;
    struct wire_link_report first;
    struct wire_probe odd = {.kind = WIRE_PROBE_ECHOED, .number = 1};
    struct wire_buf buf;
    struct frame_out f;

    (void)state;
    fake_head_probe(&w->head, 1);
    assert_true(
        is_measured(m[1].speed.rtt_us, m[1].speed.out_bytes_per_s, m[1].speed.in_bytes_per_s));
    bring_up(w, false);
    first = m[0].direct;
    assert_true(is_measured(first.rtt_us, first.out_bytes_per_s, first.in_bytes_per_s));
    assert_true(first.epoch == w->epoch && first.device == 2);
    assert_true(m[1].direct.epoch == w->epoch && m[1].direct.device == 1);
    assert_true(same_speed(&m[1].direct, &(struct wire_link_report){0}));
    check_steps(w);
    bring_up(w, false);
    assert_int_equal(m[0].direct.epoch, w->epoch);
    assert_true(same_speed(&m[0].direct, &first)); /* to the microsecond: it is remembered */
    check_steps(w);
    fake_head_probe(&w->head, 0);
    wire_probe_encode(&odd, &buf, &f); /* an answer to nothing costs the head its link */
    fake_head_send(&w->head, 0, &f);
    fake_head_wait(&w->head, &m[0].n_greets, 2);
    world_close(w);
}

static void mute_frame(void *user, struct link *l, const struct frame *f)
{
    struct wire_ping ping;
    struct wire_pong pong = {0};
    struct wire_buf buf;
    struct frame_out out;

    (void)user;
    if (f->type != FRAME_PING)
        return;
    assert_int_equal(wire_ping_decode(f, &ping, &et), ERR_NONE);
    pong.sent_us = ping.sent_us;
    wire_pong_encode(&pong, &buf, &out);
    link_send(l, &out);
}

static void mute_closed(void *user, struct link *l, enum err e, const char *why)
{
    (void)user;
    (void)l;
    (void)e;
    (void)why;
}

static void mute_greeted(void *user, struct link *l, const struct wire_greet *greet)
{
    static const struct link_calls calls = {.frame = mute_frame, .closed = mute_closed};

    (void)greet;
    link_welcome(l, WIRE_STAGES, &calls, user);
}

/* A neighbour that is there and answers no probe: the epoch waits for that, and runs without. */
static void test_speed_unknown(void **state)
{
    static const struct link_calls calls = {.greeted = mute_greeted, .closed = mute_closed};
    struct world *w = world_open();
    struct fake_member *m = w->head.member;
    struct hub_opts o = {.base = w->base, .name = "mute", .calls = &calls};
    struct identity *id;
    struct hub *hub;
    char address[64];
    int port;

    (void)state;
    assert_int_equal(identity_open(w->device[1].folder, &id, &et), ERR_NONE);
    o.identity = id;
    assert_int_equal(hub_open(&o, &hub, &et), ERR_NONE);
    assert_int_equal(hub_listen(hub, "127.0.0.1", 0, &port, &et), ERR_NONE);
    snprintf(address, sizeof address, "127.0.0.1:%d", port);
    fake_head_assign(&w->head, ++w->epoch, address);
    for (int i = 0; i < NODES; i++)
        fake_head_wait(&w->head, &m[i].n_phase[WIRE_PHASE_FETCHED], 1);
    fake_head_load(&w->head);
    fake_head_dial(&w->head, 0, 2, WIRE_DIAL_OUT);
    fake_head_wait(&w->head, &m[0].n_phase[WIRE_PHASE_READY], 1);
    assert_int_equal(m[0].n_state[WIRE_LINK_DIRECT], 1);
    assert_true(same_speed(&m[0].direct, &(struct wire_link_report){0}));
    hub_close(hub);
    identity_close(id);
    world_close(w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_direct),
        cmocka_unit_test(test_relay),
        cmocka_unit_test(test_dial_the_other_way),
        cmocka_unit_test(test_restart),
        cmocka_unit_test(test_head_comes_back),
        cmocka_unit_test(test_silence),
        cmocka_unit_test(test_stop),
        cmocka_unit_test(test_revoked),
        cmocka_unit_test(test_tokens),
        cmocka_unit_test(test_found),
        cmocka_unit_test(test_strangers),
        cmocka_unit_test(test_flipped_byte),
        cmocka_unit_test(test_other_boundaries),
        cmocka_unit_test(test_no_part_any_more),
        cmocka_unit_test(test_orders_that_make_no_sense),
        cmocka_unit_test(test_profile),
        cmocka_unit_test(test_profile_is_replaced),
        cmocka_unit_test(test_speed),
        cmocka_unit_test(test_speed_unknown),
    };

    if (getenv("LINGUA_TEST_ONLY"))
        cmocka_set_test_filter(getenv("LINGUA_TEST_ONLY"));
    return cmocka_run_group_tests(tests, NULL, NULL);
}
