/* How fast this device is: what each class of modules of a model (model/classes.h) takes it, measured
 * with the segments it would really run, on a sparse file that has the model's header and zeros for
 * weights (model/blank.h).
 *
 *   1. The head asks (PROFILE_ASK) with the id of the classes. What was measured before, under the
 *      same id, kernels, threads and CPU governor, is remembered in the state folder (kept.h) and
 *      answers at once.
 *   2. Else the header is fetched, and copied to a file without a name of the model's full size.
 *   3. For each class as many modules are opened as do not fit the caches (or all there are, or as
 *      many as the budget allows), and run in turn: steps of 1, 2, 4, 8, 16 rows; then one of them
 *      with a prefill chunk, and with rows behind such chunks. A figure is the median of windows
 *      of at least PROFILE_WINDOW_MS that follow one another, so that a CPU quota's bursts are
 *      averaged and what else runs for a moment does not count.
 *   4. What running a segment takes beside its modules is found by running a layer as two segments
 *      and as one, and taken off: a stage pays it once, however many modules it has.
 *
 * The figures of a class: [0..4] picoseconds of a step of 1, 2, 4, 8, 16 rows, each of a slot of its
 * own, near the start of a context; [5] of a row in a prefill chunk (for `output`, whose rows are
 * those whose logits are wanted, of a row among 16); [6] on top for each row and each position
 * before it, 0 but for attention.
 *
 * profile_measure runs on the thread that owns compute; the rest on any thread, as long as no two
 * write to one folder. */
#ifndef LINGUA_DEVICE_PROFILE_H
#define LINGUA_DEVICE_PROFILE_H

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"
#include "model/model.h"
#include "wire/cluster.h"

struct compute;

enum { PROFILE_WINDOW_MS = 50, PROFILE_WINDOWS = 5 };

struct profile_opts {
    const char *folder;       /* the state folder; NULL: remember nothing */
    uint64_t memory_bytes;    /* the process's budget, which measuring keeps to; 0 = none */
    int windows;              /* per figure; 0 = PROFILE_WINDOWS; tests take fewer */
    int window_ms;            /* 0 = PROFILE_WINDOW_MS */
    bool (*stop)(void *user); /* asked between windows; true: ERR_CANCELLED. May be NULL */
    void *user;
};

/* What is remembered of these classes with this many threads; false: nothing. */
bool profile_recall(const char *folder, uint64_t classes, int n_classes, int n_threads,
                    struct wire_profile *out);
/* header_path: a file that begins with the model's header and is as long as the model (a mirror, or
 * the model itself). Fills *out (code ERR_NONE) and remembers it. ERR_MEMORY: not even one module
 * of a class fits. */
MUST_CHECK enum err profile_measure(struct compute *c, const char *header_path, enum kv_type kv,
                                    const struct profile_opts *opts, struct wire_profile *out,
                                    struct err_text *et);

/* Weight bytes per second it multiplies by in decoding, roughly (model/measure.h), and remembered:
 * what can be said of a device before any model is known. */
MUST_CHECK enum err profile_speed(struct compute *c, const char *folder, uint64_t memory_bytes,
                                  uint64_t *bytes_per_s, struct err_text *et);
/* Resident bytes of this process before any model; near what is remembered it is what it was, so
 * that a restart does not change who holds what. Called before measuring anything. */
uint64_t profile_base_bytes(const char *folder);
/* The thread count that is really fastest at decoding, by trying (a fraction of a second), and
 * remembered: on phones it is rarely all cores. sysfs: "/sys". */
int profile_threads(const char *folder, uint64_t memory_bytes, const char *sysfs);

#endif
