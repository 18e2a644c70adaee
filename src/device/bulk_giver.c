#define _GNU_SOURCE
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/check.h"
#include "base/mem.h"
#include "device/bulk.h"

enum {
    PENDING_MAX =
        1 << 20,      /* bytes that wait in the link before the next answer is read from disk */
    WAITING_MAX = 64, /* requests; whoever asks for more before it has read keeps no rules */
    LIES_MAX = 16,    /* requests for what cannot be */
};

struct bulk_giver {
    struct bulk_store store;
    struct link *link;
    struct mirror *mirror; /* of the model asked for last, or NULL */
    struct wire_fetch waiting[WAITING_MAX];
    int first, n; /* of waiting, a ring */
    int lies;
    uint64_t sent;
    uint8_t *buf; /* (WIRE_CHUNK_MAX) */
};

struct bulk_giver *bulk_giver_new(const struct bulk_store *store, struct link *link)
{
    struct bulk_giver *g = mem_zalloc(1, sizeof *g);

    g->store = *store;
    g->link = link;
    g->buf = mem_alloc(WIRE_CHUNK_MAX);
    link_set_bulk(link);
    return g;
}

void bulk_giver_free(struct bulk_giver *g)
{
    if (!g)
        return;
    mirror_close(g->mirror);
    free(g->buf);
    free(g);
}

uint64_t bulk_giver_sent(const struct bulk_giver *g)
{
    return g->sent;
}

/* ---- what is here ---- */

/* Is the model the file beside the cache? */
static bool is_file(const struct bulk_giver *g, const uint8_t model[WIRE_KEY_BYTES])
{
    return g->store.manifest && memcmp(g->store.manifest->id, model, WIRE_KEY_BYTES) == 0;
}

/* The cache's mirror of the model; NULL when it has none. */
static struct mirror *mirror_of(struct bulk_giver *g, const uint8_t model[WIRE_KEY_BYTES])
{
    if (g->mirror && memcmp(mirror_manifest(g->mirror)->id, model, WIRE_KEY_BYTES) == 0)
        return g->mirror;
    mirror_close(g->mirror);
    g->mirror = NULL;
    if (g->store.cache && cache_find(g->store.cache, model, &g->mirror, NULL) != ERR_NONE)
        g->mirror = NULL;
    return g->mirror;
}

static const struct manifest *manifest_of(struct bulk_giver *g, const uint8_t model[WIRE_KEY_BYTES])
{
    const struct mirror *m;

    if (is_file(g, model))
        return g->store.manifest;
    m = mirror_of(g, model);
    return m ? mirror_manifest(m) : NULL;
}

static enum err read_file(int fd, uint64_t at, uint8_t *bytes, size_t len, struct err_text *et)
{
    for (size_t done = 0; done < len;) {
        ssize_t n = pread(fd, bytes + done, len - done, (off_t)(at + done));

        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return err_system(et, "read the model");
        if (n == 0)
            return err_set(et, ERR_FILE, "the model's file has become shorter");
        done += (size_t)n;
    }
    return ERR_NONE;
}

/* ---- answers ---- */

static void give_manifest(struct bulk_giver *g, const struct wire_model_ask *ask)
{
    const struct manifest *m = manifest_of(g, ask->model);
    struct wire_manifest answer = {.len = 0}; /* empty: there is none */
    uint8_t *bytes = NULL;
    struct wire_buf buf;
    struct frame_out out;

    memcpy(answer.model, ask->model, sizeof answer.model);
    if (m) {
        bytes = mem_alloc(manifest_size(m));
        manifest_encode(m, bytes);
        answer.bytes = bytes;
        answer.len = manifest_size(m);
    }
    wire_manifest_encode(&answer, &buf, &out);
    link_send(g->link, &out);
    free(bytes);
}

static void give_have(struct bulk_giver *g, const struct wire_model_ask *ask)
{
    const struct manifest *m = manifest_of(g, ask->model);
    struct wire_have answer = {.n_parts = m ? m->n_parts : 0};
    uint8_t *bits = mem_zalloc((size_t)answer.n_parts / 8 + 1, 1);
    struct wire_buf buf;
    struct frame_out out;

    for (int i = 0; i < answer.n_parts; i++)
        if (is_file(g, ask->model) || mirror_has(g->mirror, i))
            bits[i / 8] |= (uint8_t)(1 << i % 8);
    memcpy(answer.model, ask->model, sizeof answer.model);
    answer.bits = bits;
    wire_have_encode(&answer, &buf, &out);
    link_send(g->link, &out);
    free(bits);
}

static enum err read_range(struct bulk_giver *g, const struct wire_fetch *ask, struct err_text *et)
{
    const struct manifest *m = manifest_of(g, ask->model);
    const struct manifest_part *p;
    size_t len = (size_t)ask->length;

    if (!m)
        return err_set(et, ERR_INPUT, "that model is not here");
    if (ask->part >= m->n_parts)
        return err_set(et, ERR_INPUT, "part %d of %d", ask->part, m->n_parts);
    p = &m->part[ask->part];
    if (ask->offset > p->size || len > p->size - ask->offset)
        return err_set(et, ERR_INPUT, "part %d ends before that", ask->part);
    if (is_file(g, ask->model))
        return read_file(g->store.fd, p->offset + ask->offset, g->buf, len, et);
    return mirror_read(g->mirror, ask->part, ask->offset, g->buf, len, et);
}

static void give_range(struct bulk_giver *g, const struct wire_fetch *ask)
{
    struct wire_chunk answer = {.part = ask->part, .offset = ask->offset};
    struct wire_buf buf;
    struct frame_out out;

    answer.code = read_range(g, ask, &answer.text);
    if (answer.code) {
        g->lies += answer.code == ERR_INPUT;
    } else {
        answer.bytes = g->buf;
        answer.len = (size_t)ask->length;
        g->sent += answer.len;
    }
    wire_chunk_encode(&answer, &buf, &out);
    link_send(g->link, &out);
}

void bulk_giver_drained(struct bulk_giver *g)
{
    while (g->n > 0 && link_pending(g->link) < PENDING_MAX) {
        struct wire_fetch ask = g->waiting[g->first];

        g->first = (g->first + 1) % WAITING_MAX;
        g->n--;
        give_range(g, &ask);
    }
}

static enum err take_fetch(struct bulk_giver *g, const struct frame *f, struct err_text *et)
{
    struct wire_fetch ask;
    enum err e = wire_fetch_decode(f, &ask, et);

    if (e)
        return e;
    if (g->n == WAITING_MAX)
        return err_set(et, ERR_PROTO, "asks for more than %d pieces at once", WAITING_MAX);
    g->waiting[(g->first + g->n++) % WAITING_MAX] = ask;
    bulk_giver_drained(g);
    if (g->lies > LIES_MAX)
        return err_set(et, ERR_PROTO, "asks again and again for what is not there");
    return ERR_NONE;
}

enum err bulk_giver_frame(struct bulk_giver *g, const struct frame *f, struct err_text *et)
{
    struct wire_model_ask ask;
    enum err e;

    if (f->type == FRAME_FETCH)
        return take_fetch(g, f, et);
    if (f->type != FRAME_MANIFEST_ASK && f->type != FRAME_HAVE_ASK)
        return err_set(et, ERR_PROTO, "frame %d on a link for weights", (int)f->type);
    e = wire_model_ask_decode(f, &ask, et);
    if (e)
        return e;
    if (link_pending(g->link) >= PENDING_MAX)
        return err_set(et, ERR_PROTO, "asks for more before it has read what it asked for");
    if (f->type == FRAME_MANIFEST_ASK)
        give_manifest(g, &ask);
    else
        give_have(g, &ask);
    return ERR_NONE;
}
