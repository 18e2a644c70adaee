/* Weights on their way: who asks and who gives, over bulk links of their own, so that no step
 * waits behind a tensor.
 *
 * Asking (struct fetch), in the order it happens:
 *   1. A link to the first source (the head) is dialled; MANIFEST_ASK, unless the cache has it.
 *   2. Part 0 is fetched; then the model can be opened from the mirror, and the plan says which
 *      tensors this device needs. Those that are there are not asked for.
 *   3. Other sources are dialled and asked what they have (HAVE_ASK). Each missing part is given to
 *      the source that has it and has least to do; requests of at most WIRE_CHUNK_MAX bytes, a few
 *      under way at each source.
 *   4. A part whose hash is wrong is named in the log and fetched again, from another source when
 *      there is one; three times wrong from the head is an error. A source that is lost gives its
 *      parts back; a lost head is dialled again with back-off. What has come is never asked again.
 * Giving (struct bulk_giver): answers MANIFEST_ASK, HAVE_ASK and FETCH from a mirror, or, on the
 * head, from the model's own file; at most about a megabyte waits in a link at once. A manifest of
 * no bytes, or parts 0 in all, say that the model is not there. Counts what it gave.
 *
 * All of it belongs to the event loop's thread. */
#ifndef LINGUA_DEVICE_BULK_H
#define LINGUA_DEVICE_BULK_H

#include "device/mirror.h"
#include "link/link.h"

/* ---- giving ---- */

/* What a device can give from: its cache, or (head) a file with its manifest; all borrowed until
 * the giver is freed. */
struct bulk_store {
    struct cache *cache;             /* or NULL */
    const struct manifest *manifest; /* of the file, or NULL */
    int fd;                          /* the file, open for reading */
};
/* One link that others fetch by. */
struct bulk_giver;
struct bulk_giver *bulk_giver_new(const struct bulk_store *store, struct link *link);
void bulk_giver_free(struct bulk_giver *g); /* does not close the link; NULL is fine */
/* A frame of the link; ERR_PROTO: close it. */
MUST_CHECK enum err bulk_giver_frame(struct bulk_giver *g, const struct frame *f,
                                     struct err_text *et);
void bulk_giver_drained(struct bulk_giver *g);        /* the link's drained callback */
uint64_t bulk_giver_sent(const struct bulk_giver *g); /* bytes of parts */

/* ---- asking ---- */

struct fetch_calls {
    /* Now and then; received counts bytes that came by the network since the fetch began, part 0
     * included; done and total count bytes of all needed parts, there before or not. */
    void (*progress)(void *user, uint64_t done, uint64_t total, uint64_t received);
    /* The end, once: ERR_NONE, and the mirror holds every needed part; or why not. The mirror is
     * the callback's to keep (mirror_close); NULL on error. While it is kept those parts make room
     * for nothing (mirror_hold), so it is kept as long as they are mapped. The fetch is gone when
     * done returns. */
    void (*done)(void *user, enum err e, const char *why, struct mirror *mirror);
};
struct fetch_opts {
    struct event_base *base;
    struct hub *hub;
    struct cache *cache;
    struct log log;
    const struct plan *plan; /* copied; NULL: the header (part 0) alone is needed */
    int device;
    uint8_t model[WIRE_KEY_BYTES];
    const struct wire_peer *source; /* [0] is the head; copied */
    int n_sources;
    const struct wire_greet *greet; /* purpose bulk; copied */
    const struct fetch_calls *calls;
    void *user;
};
struct fetch;
struct fetch *fetch_begin(const struct fetch_opts *opts); /* calls nothing before it returns */
void fetch_cancel(struct fetch *f); /* no callback; NULL is fine; from within one, too */

#endif
