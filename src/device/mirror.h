/* The weight cache: sparse mirrors of models, filled part by part, each checked by its SHA-256.
 *
 *     FOLDER/<first 16 hex digits of the model's id>/manifest   as it came
 *                                                    model.gguf sparse, of the file's full size
 *                                                    state      what is in it
 *
 * `state` holds, per part, how many of its bytes have come (u64), when it was last used (u64,
 * seconds since 1970) and whether it was checked (u64, 0 or 1), little-endian; it is written after
 * the bytes it speaks of, so that a process killed in mid-transfer goes on where it was. Should
 * the machine die instead, the check finds what is not true. Bytes of a part come in order.
 *
 * What has not been used for longest makes room when the limit is met, or when the disk is full:
 * whole parts, of any model, by punching holes; never what an open handle holds on to
 * (mirror_hold). A model of which nothing is left goes altogether.
 *
 * A struct mirror is a handle; a model may have several. All of a cache belongs to one thread;
 * mirror_check and mirror_read may run on another while nothing is written or makes room. One
 * process at a time (a lock file); a second one gets ERR_FILE. */
#ifndef LINGUA_DEVICE_MIRROR_H
#define LINGUA_DEVICE_MIRROR_H

#include "base/log.h"
#include "device/manifest.h"

struct cache;
struct mirror;

/* Makes the folder when it is not there. limit_bytes 0 = no limit but the disk's. */
MUST_CHECK enum err cache_open(const char *folder, uint64_t limit_bytes, const struct log *log,
                               struct cache **out, struct err_text *et);
void cache_close(struct cache *c);           /* every mirror must be closed */
uint64_t cache_bytes(const struct cache *c); /* that parts of all models take */

/* The mirror of a model whose manifest the cache has; *out is NULL when it has none. */
MUST_CHECK enum err cache_find(struct cache *c, const uint8_t id[WIRE_KEY_BYTES],
                               struct mirror **out, struct err_text *et);
/* Begins one (or opens the one there is). */
MUST_CHECK enum err cache_add(struct cache *c, const struct manifest *m, struct mirror **out,
                              struct err_text *et);
/* Makes room for bytes more, not touching keep's parts that need[] marks (need may be NULL: none
 * of keep's; keep may be NULL). ERR_LIMIT when even that does not reach: says the limit, what is
 * needed and what to do. ERR_FILE: the disk itself has less than that. */
MUST_CHECK enum err cache_make_room(struct cache *c, uint64_t bytes, const struct mirror *keep,
                                    const uint8_t *need, struct err_text *et);
void mirror_close(struct mirror *m); /* NULL is fine */

const struct manifest *mirror_manifest(const struct mirror *m);
const char *mirror_path(const struct mirror *m);   /* of model.gguf */
bool mirror_has(const struct mirror *m, int part); /* complete and checked */
uint64_t mirror_received(const struct mirror *m, int part);
void mirror_use(struct mirror *m, int part); /* was used now */
/* Until this handle is closed, or holds others, the parts that need[] marks make room for nothing:
 * they are mapped, or soon will be. (device/bulk.h holds what it was asked to fetch.) */
void mirror_hold(struct mirror *m, const uint8_t *need);
/* What came of a part before this process began must be read again before more is written, as the
 * hash goes over all of it. mirror_write does that by itself, in one go; this does at most max
 * bytes at a time, for whoever must not be held up. True when nothing is left to do. */
bool mirror_resume(struct mirror *m, int part, size_t max);
/* Forgets what came of a part. */
void mirror_forget(struct mirror *m, int part);

/* The next bytes of a part; offset must be what mirror_received says. *complete when that was the
 * last of it and it is right. ERR_FILE: the disk is full (says so, and how much is missing) or
 * fails. ERR_PROTO: all came, but they are not the part: it begins again at 0. */
MUST_CHECK enum err mirror_write(struct mirror *m, int part, uint64_t offset, const uint8_t *bytes,
                                 size_t len, bool *complete, struct err_text *et);
/* ERR_INPUT unless the part is there and the range inside it. */
MUST_CHECK enum err mirror_read(const struct mirror *m, int part, uint64_t offset, uint8_t *bytes,
                                size_t len, struct err_text *et);
/* Reads a part again and compares; a part that is not what it was is forgotten (*good = false), to
 * be fetched anew. */
MUST_CHECK enum err mirror_check(struct mirror *m, int part, bool *good, struct err_text *et);

#endif
