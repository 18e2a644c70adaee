/* The device processes of a chain: starting them, frames to and from them, and their end.
 *
 * How they come to be:
 *   1. Every socket pair is made: one per process for control, one for each two devices that the
 * plan has sending to each other. All are close-on-exec.
 *   2. Each process is started (`PROGRAM device --fd N`) inheriting only its own ends. Its stdin
 * and stdout are /dev/null: stdout belongs to the text.
 *   3. The head closes those ends, so that a process' death is the end of its connections, and
 * sends CONFIG. The device answers HELLO, PROGRESS..., READY (device/serve.h).
 *
 * Nothing here blocks on a write; ring_pump reads and writes whatever can be. Owned by one thread.
 */
#ifndef LINGUA_HEAD_RING_H
#define LINGUA_HEAD_RING_H

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"
#include "model/segment.h"
#include "plan/plan.h"
#include "wire/message.h"

struct ring;

struct ring_opts {
    const char *program; /* NULL = /proc/self/exe */
    const char *model_path;
    int n_threads; /* per device */
    struct segment_opts segment;
};

/* Starts the processes of devices 1.. of the plan (copied) and tells them what to load. */
MUST_CHECK enum err ring_open(const struct plan *p, const struct ring_opts *opts, struct ring **out,
                              struct err_text *et);
/* Says stop, waits two seconds, kills what is left. NULL is fine. */
void ring_close(struct ring *r);

/* Until every device is ready. progress gets the sum of what all have loaded so far (total is the
 * caller's to know); may be NULL. ERR_GONE or the device's own code, naming it. */
MUST_CHECK enum err ring_wait_ready(struct ring *r, void (*progress)(void *user, uint64_t done),
                                    void *user, struct err_text *et);

/* To the device, which is a neighbour of the head in the plan. Never blocks. */
void ring_send(struct ring *r, int device, const struct frame_out *f);
/* Whether frames sent still wait for room. */
bool ring_pending(const struct ring *r);

/* The next STEP or RESULT for the head, if *have; it borrows until the next call of ring_next or
 * ring_pump. ERR_GONE when a device has ended, with its last words. */
MUST_CHECK enum err ring_next(struct ring *r, struct frame *f, bool *have, struct err_text *et);
/* Reads and writes once; waits for something to do when wait is set. */
MUST_CHECK enum err ring_pump(struct ring *r, bool wait, struct err_text *et);

/* Asks a device for its figures and waits for them; no step may be under way. */
MUST_CHECK enum err ring_report(struct ring *r, int device, struct wire_report *out,
                                struct err_text *et);

int ring_pid(const struct ring *r, int device);
uint64_t ring_sent_bytes(const struct ring *r); /* by the head, steps alone */

#endif
