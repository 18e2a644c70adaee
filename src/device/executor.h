/* The executor: what every device does with a step.
 *
 * It owns the device's segments (one or two) with their slots, and runs steps that name one of
 * them. It knows nothing of sockets, links or processes: a step comes in as a plain struct and goes
 * out as one, whoever carries it.
 *
 * Invariants: each stage sees step numbers 1, 2, 3, ... within the plan's epoch, none left out.
 * Slot changes come before the rows, so all stages see them in one order. A step that cannot be run
 * is not dropped: it leaves marked failed, with the reason, and later stages still carry out its
 * slot changes, so that what follows finds every stage alike. What the rows left behind then
 * differs from stage to stage; the head empties the slots the step touched.
 *
 * Tags: a step may say, by opaque numbers its head made, what prefix each run of rows stands on and
 * what prefix each row completes. The stage keeps the latter per slot and position, moves them with
 * the slots, and fails a step whose former is not what it holds: then head and stage disagree about
 * the slot, and whatever came out would be another conversation's.
 *
 * Belongs to one thread at a time, together with its struct compute. */
#ifndef LINGUA_DEVICE_EXECUTOR_H
#define LINGUA_DEVICE_EXECUTOR_H

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"
#include "model/segment.h"
#include "plan/plan.h"
#include "wire/step.h"

struct executor;

struct executor_opts {
    struct segment_opts segment;
    /* Told after each segment; may be NULL. */
    void (*progress)(void *user, uint64_t done, uint64_t total);
    void *user;
};

/* Loads the device's segments. m and c are borrowed until close; the plan (checked) is copied.
 * gives *out. */
MUST_CHECK enum err executor_open(const struct model *m, struct compute *c, const struct plan *p,
                                  int device, const struct executor_opts *opts,
                                  struct executor **out, struct err_text *et);
void executor_close(struct executor *x); /* NULL is fine */

/* A new epoch over the same weights: steps are numbered from 1 again, every slot is empty, the
 * counters go on. False, and nothing was done, when under plan p (checked) this device is to hold
 * other modules, or slots of another shape, than it does. */
MUST_CHECK bool executor_restart(struct executor *x, const struct plan *p, int device,
                                 const struct segment_opts *segment);

/* Runs s at stage s->stage, which is this device's. Afterwards s is what goes to stage + 1:
 * s->stage is one more, s->in holds the outputs (borrowed until the next run), or s->code says why
 * not. ERR_PROTO when s is not the step this stage waits for, or its tensors are not what the plan
 * says: then nothing was done and the sender is not to be believed any more. */
MUST_CHECK enum err executor_run(struct executor *x, struct step *s, struct err_text *et);

struct executor_stats {
    uint64_t steps, rows; /* a step that passes here twice counts once */
    uint64_t compute_us;
    uint64_t decode_steps, decode_us; /* steps of one row */
    uint64_t weight_bytes, kv_bytes;
};
void executor_stats(const struct executor *x, struct executor_stats *out);

#endif
