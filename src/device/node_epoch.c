#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/check.h"
#include "base/mem.h"
#include "base/sys.h"
#include "device/node_impl.h"

/* ---- what the head hears ---- */

static void say_phase(const struct epoch *e, struct wire_phase *m, enum wire_phase_kind phase)
{
    struct wire_buf buf;
    struct frame_out f;

    m->epoch = e->number;
    m->phase = phase;
    m->received = e->received;
    wire_phase_encode(m, &buf, &f);
    head_send(e->node, &f);
}

static void say_progress(struct epoch *e, enum wire_phase_kind phase, uint64_t done, uint64_t total)
{
    struct wire_phase m = {.done = done, .total = total};
    int64_t now = clock_us();

    if (done > 0 && done < total && now - e->phase_us < STATUS_EVERY_MS * 1000)
        return;
    e->phase_us = now;
    say_phase(e, &m, phase);
    node_say_progress(e->node, done, total);
}

static void fail(struct epoch *e, enum err code, const char *why)
{
    struct wire_phase m = {.code = code};

    e->failed = true;
    (void)err_set(&m.text, code, "%s", why);
    log_say(&e->node->log, "node", "epoch %u: %s", e->number, m.text.text);
    node_trouble(e->node, "%s", m.text.text);
    say_phase(e, &m, WIRE_PHASE_FAILED);
    node_update(e->node);
}

void epoch_ready(struct epoch *e)
{
    struct node *n = e->node;
    struct wire_phase m = {0};
    struct wire_report r;

    if (e != n->now || e->over || !e->loaded || e->ready || e->failed)
        return;
    for (int i = 0; i < e->n_neighbours; i++)
        if (e->neighbour[i].state != NEIGHBOUR_DIRECT && e->neighbour[i].state != NEIGHBOUR_RELAYED)
            return;
    e->ready = true;
    worker_report(n->worker, &r);
    m.weight_bytes = r.weight_bytes;
    m.kv_bytes = r.kv_bytes;
    m.resident_bytes = r.resident_bytes;
    say_phase(e, &m, WIRE_PHASE_READY);
    n->status.trouble[0] = '\0';
    node_update(n);
}

/* ---- made and unmade ---- */

struct neighbour *epoch_neighbour(struct epoch *e, int device)
{
    for (int i = 0; i < e->n_neighbours; i++)
        if (e->neighbour[i].device == device)
            return &e->neighbour[i];
    return NULL;
}

static const struct wire_peer *find_peer(const struct epoch *e, int device)
{
    for (int i = 0; i < e->n_peers; i++)
        if (e->peer[i].device == device)
            return &e->peer[i];
    return NULL;
}

static void find_neighbours(struct epoch *e)
{
    e->neighbour = mem_zalloc((size_t)e->plan.n_devices, sizeof *e->neighbour);
    for (int d = 1; d < e->plan.n_devices; d++) /* the head, 0, is linked with everybody */
        if (plan_linked(&e->plan, e->device, d))
            e->neighbour[e->n_neighbours++] =
                (struct neighbour){.epoch = e, .device = d, .peer = find_peer(e, d)};
}

static struct epoch *epoch_new(struct node *n, const struct wire_assign *m)
{
    struct epoch *e = mem_zalloc(1, sizeof *e);

    e->node = n;
    e->number = m->epoch;
    e->device = m->device;
    e->segment = (struct segment_opts){m->n_slots, m->n_ctx, m->n_rows_max, (enum kv_type)m->kv};
    memcpy(e->model, m->model, sizeof e->model);
    e->n_peers = m->n_peers;
    e->peer = mem_alloc((size_t)m->n_peers * sizeof *e->peer);
    memcpy(e->peer, m->peer, (size_t)m->n_peers * sizeof *e->peer);
    e->plan.epoch = m->epoch;
    e->plan.n_devices = m->n_devices;
    e->plan.n_stages = m->n_stages;
    for (int i = 0; i < m->n_stages; i++)
        e->plan.stage[i] =
            (struct plan_stage){m->stage[i].device, m->stage[i].first, m->stage[i].end};
    return e;
}

void epoch_free(struct epoch *e)
{
    if (!e)
        return;
    CHECK(e != e->node->loading);
    fetch_cancel(e->fetch);
    if (e->neighbour)
        stages_close(e);
    mirror_close(e->mirror);
    free(e->neighbour);
    free(e->peer);
    free(e);
}

/* Module k of a model, by its place alone: the model itself is not open yet, or the worker's. */
static void module_name(int k, int n_modules, char buf[MODULE_NAME_MAX])
{
    if (k == 0)
        snprintf(buf, MODULE_NAME_MAX, "embed");
    else if (k == n_modules - 1)
        snprintf(buf, MODULE_NAME_MAX, "output");
    else
        snprintf(buf, MODULE_NAME_MAX, "%s.%d", k % 2 ? "attn" : "ffn", (k - 1) / 2);
}

static void describe(const struct epoch *e, char *buf, size_t cap)
{
    int n_modules = e->plan.stage[e->plan.n_stages - 1].end;
    size_t used = 0;

    buf[0] = '\0';
    for (int i = 0; i < e->plan.n_stages; i++) {
        const struct plan_stage *s = &e->plan.stage[i];
        char first[MODULE_NAME_MAX], last[MODULE_NAME_MAX];

        if (s->device != e->device || used >= cap)
            continue;
        module_name(s->first, n_modules, first);
        module_name(s->end - 1, n_modules, last);
        used +=
            (size_t)snprintf(buf + used, cap - used, "%s%s%s%s", used ? " + " : "", first,
                             s->end - s->first > 1 ? ".." : "", s->end - s->first > 1 ? last : "");
    }
}

/* ---- fetching ---- */

static void on_fetching(void *user, uint64_t done, uint64_t total, uint64_t received)
{
    struct epoch *e = user;

    e->received = received;
    e->node->status.received = received;
    say_progress(e, e == e->node->now ? WIRE_PHASE_LOADING : WIRE_PHASE_FETCHING, done, total);
}

static void begin_load(struct epoch *e);

static void on_fetched(void *user, enum err code, const char *why, struct mirror *mirror)
{
    struct epoch *e = user;
    struct node *n = e->node;
    struct wire_phase m = {0};

    e->fetch = NULL;
    if (code) {
        fail(e, code, why);
        return;
    }
    mirror_close(e->mirror); /* one in which a part was damaged */
    e->mirror = mirror;
    if (e == n->now) {
        begin_load(e);
        return;
    }
    m.done = m.total = n->status.total;
    say_phase(e, &m, WIRE_PHASE_FETCHED);
    node_update(n);
}

/* The head first, at the address it was reached by, then whoever else may have some of it. */
static int list_sources(const struct epoch *e, struct wire_peer source[WIRE_PEERS_MAX + 1])
{
    const struct node *n = e->node;
    int count = 1;

    head_as_source(n, &source[0]);
    for (int i = 0; i < e->n_peers; i++) {
        const struct wire_peer *p = &e->peer[i];

        if (memcmp(p->key, n->known.head.bytes, sizeof p->key) != 0 &&
            memcmp(p->key, identity_key(n->identity)->bytes, sizeof p->key) != 0)
            source[count++] = *p;
    }
    return count;
}

static void begin_fetch(struct epoch *e)
{
    static const struct fetch_calls calls = {on_fetching, on_fetched};
    struct node *n = e->node;
    struct wire_peer *source = mem_alloc((WIRE_PEERS_MAX + 1) * sizeof *source);
    struct wire_greet greet = {.purpose = WIRE_FOR_BULK};
    struct fetch_opts opts = {.base = n->base,
                              .hub = n->hub,
                              .cache = n->cache,
                              .log = n->log,
                              .plan = &e->plan,
                              .device = e->device,
                              .source = source,
                              .n_sources = list_sources(e, source),
                              .greet = &greet,
                              .calls = &calls,
                              .user = e};

    CHECK(!n->loading && !e->fetch);
    profile_yield(n);
    memcpy(opts.model, e->model, sizeof opts.model);
    memcpy(greet.name, n->own_name, sizeof greet.name);
    n->status.done = n->status.total = 0;
    describe(e, n->status.coming, sizeof n->status.coming);
    log_say(&n->log, "node", "epoch %u: this device is to hold %s", e->number, n->status.coming);
    e->fetch = fetch_begin(&opts);
    free(source);
    node_update(n);
}

void epoch_assign(struct node *n, const struct wire_assign *m)
{
    struct epoch *e = epoch_new(n, m);
    struct err_text et;
    enum err code;

    code = e->plan.n_stages < 1
               ? err_set(&et, ERR_INPUT, "plan: no stages")
               : plan_check(&e->plan, e->plan.stage[e->plan.n_stages - 1].end, &et);
    if (!code && (e->device < 1 || e->device >= e->plan.n_devices))
        code =
            err_set(&et, ERR_INPUT, "plan: this is device %d of %d", e->device, e->plan.n_devices);
    if (code) {
        fail(e, code, et.text);
        epoch_free(e);
        return;
    }
    find_neighbours(e);
    epoch_free(n->next);
    n->next = e;
    if (n->now && n->now->fetch) { /* was being mended; the head wants something else now */
        fetch_cancel(n->now->fetch);
        n->now->fetch = NULL;
    }
    if (!n->loading)
        begin_fetch(e);
}

/* ---- loading ---- */

/* Which parts of the model were found to be right since this process began: they need not be read
 * again each time a boundary moves. */
static void checked_for(struct node *n, const struct epoch *e, int n_parts)
{
    if (n->checked && n->n_checked == n_parts &&
        memcmp(n->checked_model, e->model, sizeof n->checked_model) == 0)
        return;
    free(n->checked);
    n->checked = mem_zalloc((size_t)n_parts, 1);
    n->n_checked = n_parts;
    memcpy(n->checked_model, e->model, sizeof n->checked_model);
}

/* ERR_NONE, also when the part is not what it was: then it is counted, and the first one named. */
static enum err check_part(struct check *c, const struct model *m, int part, struct err_text *et)
{
    const struct manifest *mf = mirror_manifest(c->mirror);
    char name[MANIFEST_PART_MAX_SHOWN + 16];
    bool good = false;
    enum err e = ERR_NONE;

    if (c->checked[part])
        return ERR_NONE;
    if (mirror_has(c->mirror, part))
        e = mirror_check(c->mirror, part, &good, et);
    if (e)
        return e;
    c->checked[part] = good;
    if (good)
        return ERR_NONE;
    if (c->n_bad++ == 0) {
        manifest_part_name(mf, m, part, name);
        (void)err_set(&c->bad, ERR_FILE, "%s in the cache is not what it was", name);
    }
    return ERR_NONE;
}

/* Runs on the worker's thread: reads what is about to be used, and compares. Part 0 comes first,
 * for it says what the others are. */
static enum err prepare(void *user, struct err_text *et)
{
    struct check *c = user;
    const struct manifest *mf = mirror_manifest(c->mirror);
    struct model *m = NULL;
    uint8_t *need = NULL;
    uint64_t bytes;
    enum err e;

    e = check_part(c, NULL, 0, et);
    if (!e && !c->n_bad)
        e = model_open(mirror_path(c->mirror), &m, et);
    if (m) {
        need = mem_zalloc((size_t)mf->n_parts, 1);
        e = manifest_needs(mf, m, &c->plan, c->device, need, &bytes, et);
    }
    for (int i = 1; m && i < mf->n_parts && !e; i++)
        if (need[i])
            e = check_part(c, m, i, et);
    free(need);
    if (m)
        model_close(m);
    return e || !c->n_bad ? e : err_set(et, ERR_FILE, "%s", c->bad.text);
}

static void begin_load(struct epoch *e)
{
    struct node *n = e->node;
    struct worker_load l = {.path = (char *)mirror_path(e->mirror),
                            .plan = e->plan,
                            .device = e->device,
                            .segment = e->segment,
                            .prepare = prepare,
                            .user = &e->check};

    CHECK(!n->loading);
    checked_for(n, e, mirror_manifest(e->mirror)->n_parts);
    e->check = (struct check){
        .mirror = e->mirror, .plan = e->plan, .device = e->device, .checked = n->checked};
    e->n_checks++;
    n->loading = e;
    profile_yield(n);
    n->status.done = n->status.total = 0;
    worker_load(n->worker, &l);
    node_update(n);
}

/* What is assigned is forgotten; what is loaded stays, but has no part in anything. */
static void end_all(struct node *n)
{
    epoch_free(n->next);
    n->next = NULL;
    if (n->now) {
        fetch_cancel(n->now->fetch);
        n->now->fetch = NULL;
        n->now->over = true;
        stages_close(n->now);
    }
}

/* What is loaded is given back, and its links end. */
static void let_go(struct node *n)
{
    struct epoch *e = n->now;

    if (e)
        stages_close(e);
    n->now = NULL;
    if (e != n->loading) /* else freed when the worker is done with it */
        epoch_free(e);
    n->status.modules[0] = '\0';
    worker_unload(n->worker);
}

void epoch_load(struct node *n, const struct wire_load *m)
{
    struct epoch *e = n->next;

    if (!e || e->number != m->epoch) { /* the others change over, and we have no part in it */
        epoch_free(e);
        n->next = NULL;
        let_go(n);
        node_update(n);
        return;
    }
    if (!e->mirror) {
        if (!e->failed)
            fail(e, ERR_PROTO, "it is to be loaded, but its weights are not here yet");
        return;
    }
    /* Nothing of it would be fetched while another was being loaded. */
    CHECK(!n->loading && !n->was);
    if (n->now)
        stages_close(n->now);
    n->was = n->now;
    n->now = e;
    n->next = NULL;
    describe(e, n->status.modules, sizeof n->status.modules);
    begin_load(e);
}

static void on_progress(void *user, uint32_t epoch, uint64_t done, uint64_t total)
{
    struct node *n = user;

    (void)epoch;
    if (n->loading && n->loading == n->now)
        say_progress(n->now, WIRE_PHASE_LOADING, done, total);
}

static void after_load(struct epoch *e, enum err code, const char *why)
{
    struct node *n = e->node;

    if (!code) {
        e->loaded = true;
        node_update(n);
        epoch_ready(e);
    } else if (e->check.n_bad && e->n_checks < CHECKS_MAX && !n->next && !e->over) {
        log_say(&n->log, "node", "%s; fetching it again", why);
        begin_fetch(e);
    } else if (!e->over) {
        fail(e, code, why);
    }
}

static void on_loaded(void *user, uint32_t epoch, enum err code, const char *why)
{
    struct node *n = user;
    struct epoch *e = n->loading;

    CHECK(e && e->number == epoch);
    n->loading = NULL;
    epoch_free(n->was);
    n->was = NULL;
    if (e == n->now)
        after_load(e, code, why);
    else
        epoch_free(e); /* stopped meanwhile */
    if (n->next && !n->next->fetch && !n->next->mirror && !n->next->failed)
        begin_fetch(n->next);
}

/* ---- steps ---- */

enum err epoch_step(struct node *n, const struct frame *f, struct err_text *et)
{
    const uint8_t *bytes = f->header - FRAME_HEAD_BYTES; /* a frame lies in one piece */

    if (!n->now || n->now->over || n->now->failed)
        return ERR_NONE; /* of an epoch that is over; its sender has heard, or will */
    return worker_step(n->worker, bytes, (size_t)(f->payload + f->payload_len - bytes), et);
}

static void on_out(void *user, const struct worker_out *out)
{
    struct node *n = user;

    n->status.steps++;
    if (n->now && !n->now->over && !n->loading && out->epoch == n->now->number)
        stages_out(n, out);
    if (clock_us() - n->status_us >= STEPS_SHOWN_MS * 1000)
        node_say(n);
}

static void on_bad_step(void *user, uint32_t epoch, enum err code, const char *why)
{
    struct node *n = user;

    if (n->now && !n->now->over && !n->now->failed && epoch == n->now->number)
        fail(n->now, code, why);
}

const struct worker_calls epoch_worker_calls = {
    .out = on_out,
    .progress = on_progress,
    .loaded = on_loaded,
    .bad_step = on_bad_step,
};

/* ---- the end of an epoch ---- */

void epoch_head_lost(struct node *n)
{
    end_all(n);
    stages_close_givers(n);
}

void epoch_stop(struct node *n)
{
    epoch_head_lost(n);
    let_go(n);
}
