/* What lies between a route and its answer (api.h, steps 2 to 4): `prepare` on the pool, the
 * generations it planned, the answer, and the end when the client goes away.
 *
 *   1. work_start, on the loop: the body is copied. On the pool's slow lane it is read as JSON
 *      (kind.body), then `prepare` runs. It ends with work_answer, or it has planned generations
 *      with work_gen, or it is a fault.
 *   2. On the loop: the generations begin in the order planned, as many at a time as the queue has
 *      room for, at most WORK_AT_ONCE. What
 *      gen.h's calls say is passed on with the generation's index. One that fails ends the request:
 *      its fault is the answer (in mid-stream: the last event), and the others are cancelled.
 *   3. When all have ended: without a stream `finish` runs on the slow lane and ends with
 *      work_answer; with one `closing` runs on the loop and says its last events.
 *   4. `fini` frees what `own` points to, when nothing of the request runs anywhere.
 *
 * `own` is the route's memory: kind.own_size bytes, zero at first, freed by work. Calls of one
 * generation never overlap, those of two may (on two threads): digest and rows write only to what
 * belongs to their index. */
#ifndef LINGUA_API_WORK_H
#define LINGUA_API_WORK_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "api/error.h"
#include "head/gen.h"

struct api;
struct call;
struct work;

enum { WORK_AT_ONCE = 16, WORK_GENS_MAX = 4096 };

struct work_rows {
    int i;             /* the generation */
    const float *rows; /* (n, width) f32, of positions pos .. pos + n - 1 */
    int pos, n, width;
};

struct work_kind {
    size_t own_size;
    bool body; /* a JSON object is required: POST. Else work_body is NULL */
    /* Pool. False: *f says what is wrong. */
    bool (*prepare)(struct work *w, void *own, struct fault *f);

    /* As gen_calls has them; any may be NULL. digest, rows: pool; the others: loop. */
    void (*digest)(struct work *w, void *own, int i, const char *text, size_t n, bool final);
    void (*rows)(struct work *w, void *own, const struct work_rows *rows);
    void (*started)(struct work *w, void *own, int i, int n_cached);
    void (*token)(struct work *w, void *own, int i, const struct gen_chunk *chunk);
    void (*end)(struct work *w, void *own, int i, const struct gen_end *end); /* it did not fail */

    bool (*finish)(struct work *w, void *own, struct fault *f); /* pool */
    void (*closing)(struct work *w, void *own);                 /* loop; a stream's; may be NULL */
    void (*fini)(void *own);                                    /* may be NULL */
};

/* A route's handler: takes the call. user is the api (http.h). */
void work_start(struct api *a, struct call *call, const struct work_kind *kind);

/* ---- on any thread, within the kind's functions ---- */

const json_t *work_body(const struct work *w);
const struct text *work_text(const struct work *w);
const struct cluster_facts *work_facts(const struct work *w);
const char *work_model(const struct work *w);  /* its name in answers: the alias, or the file's */
const char *work_system(const struct work *w); /* system_fingerprint */
const struct api *work_api(const struct work *w);
int64_t work_created(const struct work *w); /* seconds since 1970 */
/* A fault of the layers below, as fault_err, but naming what to do where this layer knows. */
bool work_fault(struct fault *f, enum err e, const struct err_text *et);

/* ---- within prepare ---- */

/* Plans one: flow, calls and user are set by work. opts->tokens and ->stops are borrowed until it
 * has begun (keep them in own, until fini); its sampler is taken, also on a fault. `after` is the
 * index of one planned before, with the same prompt, or -1. Returns its index. A prompt that is
 * empty or longer than the context is a fault: -1. */
int work_gen(struct work *w, const struct gen_opts *opts, int after, struct fault *f);
/* The answer will be a stream of events. */
void work_stream(struct work *w);

/* ---- within prepare and finish ---- */

/* The whole answer, status 200; takes json. */
void work_answer(struct work *w, json_t *json);

/* ---- on the loop, in a stream ---- */

void work_event(struct work *w, json_t *json); /* takes json */
/* A plain last event, "[DONE]", before the stream ends (OpenAI's); from `closing`. */
void work_done(struct work *w);

/* Sums over the generations that have ended: for `usage`. */
struct work_usage {
    int64_t n_prompt, n_cached, n_generated; /* a prompt shared by `after` counts once */
};
void work_usage(const struct work *w, struct work_usage *out);
/* {"prompt_tokens", "completion_tokens", "total_tokens", "prompt_tokens_details"} */
json_t *work_usage_json(const struct work *w);
json_t *usage_json(const struct work_usage *u);

#endif
