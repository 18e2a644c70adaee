/* The compute thread of a device: it owns the model, the segments and their slots, and runs what
 * the event loop's thread gives it, in order.
 *
 * Jobs go in by a bounded queue and come out by calls on the event loop's thread. One step at a
 * time is computed; those that have arrived wait here. Loading checks and opens the model, too
 * (`prepare` runs on the compute thread), so that neither ever holds up a link. A load that asks
 * for what is loaded already (same file, modules and sizes) only begins the new epoch: slots empty,
 * step numbers from 1. Steps of another epoch than the one loaded are dropped: who sent them has
 * heard, or will hear, of the new one. */
#ifndef LINGUA_DEVICE_WORKER_H
#define LINGUA_DEVICE_WORKER_H

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"
#include "device/executor.h"
#include "plan/plan.h"
#include "wire/cluster.h"

struct event_base;
struct worker;

enum { WORKER_QUEUE_MAX = 1024 }; /* steps that may wait; more is a peer that keeps no rules */

/* A frame to pass on: STEP for the device of the next stage, RESULT for the head (to_device 0). */
struct worker_out {
    uint32_t epoch;
    uint64_t number;
    int to_device, to_stage; /* to_stage = n_stages: the result */
    const uint8_t *bytes;    /* the whole frame, borrowed for the call */
    size_t len;
    int n_rows;
};

struct worker_calls {
    /* All on the event loop's thread. */
    void (*out)(void *user, const struct worker_out *out);
    void (*progress)(void *user, uint32_t epoch, uint64_t done, uint64_t total);
    /* e is ERR_NONE when the epoch's segments are ready. */
    void (*loaded)(void *user, uint32_t epoch, enum err e, const char *why);
    /* A step that is not what the epoch's plan allows: whoever sent it is not to be believed. */
    void (*bad_step)(void *user, uint32_t epoch, enum err e, const char *why);
};

struct worker_load {
    char *path; /* of the model file or mirror; copied */
    struct plan plan;
    int device;
    struct segment_opts segment;
    /* Runs first, on the compute thread, before the file is opened: checks what the cache holds.
     * May be NULL. */
    enum err (*prepare)(void *user, struct err_text *et);
    void *user;
};

/* Measuring what the modules of a model cost here (device/profile.h). */
struct worker_profile {
    const char *path;   /* of a file that begins with the model's header; copied */
    const char *folder; /* the state folder, copied; NULL: remember nothing */
    enum kv_type kv;
    uint64_t memory_bytes;
    int windows, window_ms; /* as struct profile_opts has them */
    /* Once, on the event loop's thread, unless the worker is closed before. p is NULL when e is not
     * ERR_NONE. */
    void (*done)(void *user, enum err e, const char *why, const struct wire_profile *p);
    void *user;
};

MUST_CHECK enum err worker_open(struct event_base *base, int n_threads,
                                const struct worker_calls *calls, void *user, struct worker **out,
                                struct err_text *et);
/* Waits for the step under way, not for those queued. No call comes after it. */
void worker_close(struct worker *w);

/* Replaces what is loaded; answered by loaded. The old segments go before the new are read. */
void worker_load(struct worker *w, const struct worker_load *load);
void worker_unload(struct worker *w);
/* A STEP frame's bytes, copied. arrived_us for the trace. ERR_LIMIT past WORKER_QUEUE_MAX. */
MUST_CHECK enum err worker_step(struct worker *w, const uint8_t *frame, size_t len,
                                struct err_text *et);

/* Measures as soon as what was given before is done; what is loaded stays, and its steps wait
 * meanwhile. A later load or unload goes before it: then done comes with ERR_CANCELLED. */
void worker_profile(struct worker *w, const struct worker_profile *p);
/* Those under way and waiting end with ERR_CANCELLED. */
void worker_profile_cancel(struct worker *w);

/* As of the last finished step; the sums by stage as of the last one given to `out` since the last
 * load. Times are those the trace has. */
void worker_report(struct worker *w, struct wire_report *out);
/* One record per step and stage since it was turned on, the newest WIRE_TRACE_MAX. Returns how many
 * records were copied to out, which has room for WIRE_TRACE_MAX. sent_us is when the result was
 * given to `out`. */
void worker_trace(struct worker *w, bool on);
int worker_trace_take(struct worker *w, struct wire_trace_record *out);
/* What is kept of the steps ask names, whether tracing is on or off; the same out. */
int worker_trace_look(const struct worker *w, const struct wire_trace_ask *ask,
                      struct wire_trace_record *out);

#endif
