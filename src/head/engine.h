/* What stands behind the opaque types of lingua.h: an engine owns the model, its vocabulary and one
 * chain, or a connection to a running head in its place (remote.h); a session is one slot of that
 * and the tokens in it.
 *
 * Threads: the vocabulary and the model are immutable, so they need no lock. The chain belongs to
 * one thread at a time; `lock` is that right, and it also guards `slots` and `gone`. It is held for
 * one chunk of a prompt or one token, never longer, so that sessions on several threads take turns.
 * Everything in a session belongs to the thread that uses it, except `cancel`. */
#ifndef LINGUA_HEAD_ENGINE_H
#define LINGUA_HEAD_ENGINE_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"
#include "head/chain.h"
#include "head/remote.h"
#include "lingua/lingua.h"
#include "model/model.h"
#include "text/text.h"

struct ll_engine {
    struct model *model;
    struct text *text;
    struct chain *chain;   /* or */
    struct remote *remote; /* with what it said of its devices last */
    json_t *devices;
    int n_ctx, n_sessions, n_threads, n_rows_max;
    uint64_t kv_bytes_per_position;
    pthread_mutex_t lock;
    bool *slots;          /* (n_sessions), true = taken */
    struct err_text gone; /* why the chain is of no further use; empty while it is */
};

/* e as the caller of lingua.h sees it, with the sentence in *error (which may be NULL). ERR_PROTO
 * becomes LL_GONE: a device that talks nonsense is as good as lost. */
enum ll_code engine_fail(struct ll_error *error, enum err e, const struct err_text *et);

/* The same for what only lingua.h has a code for. */
enum ll_code engine_say(struct ll_error *error, enum ll_code code, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));

/* chain_run under the lock, which is held on return when it succeeds, because the logits are
 * borrowed until the next run: call engine_unlock when done with them. A chain that has lost a
 * device is remembered and never run again; a cluster mends itself. *stale with an error: the slots
 * are empty since a device came or left, and running again from engine_slot_len on will do. A
 * cluster looks at *cancel while it waits. */
MUST_CHECK enum err engine_run_locked(struct ll_engine *engine, const struct batch *b,
                                      const atomic_int *cancel, struct tensors *logits, bool *stale,
                                      struct err_text *et);
void engine_unlock(struct ll_engine *engine);

/* engine_remote.c: an engine that uses a running head. */
MUST_CHECK enum err engine_open_remote(struct ll_engine *engine, const struct ll_engine_opts *opts,
                                       struct err_text *et);
void engine_close_remote(struct ll_engine *engine);
int engine_remote_n_devices(const struct ll_engine *engine);
/* With the lock held. */
MUST_CHECK enum err engine_remote_device(struct ll_engine *engine, int i,
                                         struct ll_device_info *info, struct err_text *et);
/* engine.c, for it: the model behind its tokenizer check. */
MUST_CHECK enum err engine_load_model(struct ll_engine *engine, const char *path,
                                      struct err_text *et);

/* A free slot, or -1. */
int engine_slot_take(struct ll_engine *engine);
/* False when the devices could not be told to forget it, because one is gone: then the whole chain
 * is. */
bool engine_slot_give(struct ll_engine *engine, int slot);

/* What the chain holds of a slot: less than was read when a step has failed. */
int engine_slot_len(struct ll_engine *engine, int slot);
MUST_CHECK enum err engine_slot_truncate(struct ll_engine *engine, int slot, int len,
                                         struct err_text *et);

#endif
