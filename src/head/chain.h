/* The chain: every module of a model, cut into stages, on one device or several, behind one call.
 *
 * The head is always a device itself (device 0). The other devices are processes of
 * `device_program` (`lingua device`, a hidden command), each loading only its own segments, joined
 * in a ring by socket pairs that exist before they start: hidden states go straight from stage to
 * stage and only come home for a stage the head holds, or as the last result.
 *
 * The life of a step, here with three devices and `output` on the head:
 *   1. The caller gives a batch. The chain checks it against the head's own picture of every slot's
 *      length, so that no stage can refuse what another has already done, and numbers it.
 *   2. Device 0 runs its first segment and sends one frame (wire/step.h: header with slots,
 *      positions, wanted rows, and the slot changes that must happen first; payload: the edge
 *      tensors) to the device of the next stage.
 *   3. Each device reads frames in order, applies the slot changes, runs its segment, and sends the
 *      result on.
 *   4. The last hidden states reach the head, which runs `output`. A step with no wanted rows comes
 *      home as an empty frame.
 * Several steps may be under way (the chunks of a prompt, back to back): steps whose rows nobody
 * wants are not waited for.
 *
 * Owned by one thread at a time. */
#ifndef LINGUA_HEAD_CHAIN_H
#define LINGUA_HEAD_CHAIN_H

#include <stdint.h>

#include "base/err.h"
#include "model/segment.h"

struct chain;

struct chain_opts {
    int n_threads; /* over all devices, >= 1, each device gets at least one */
    struct segment_opts segment;
    const char *split;          /* NULL = whole; see lingua.h */
    const char *device_program; /* NULL = /proc/self/exe */
    int in_process;             /* the devices of split are segments of this process */
    void (*progress)(void *user, uint64_t done, uint64_t total);
    void *user;
};

/* m is borrowed until close. ERR_INPUT: the split is malformed, leaves a module out, or has more
 * devices than modules: the sentence says what would do. Device processes get n_threads / devices
 * threads each, at least one, and n_threads counts for no more than the cores there are; devices
 * beyond that number take turns. A device process that cannot load gives its own error, with its
 * number in front; ERR_GONE when one ends before it is ready. gives *out. */
MUST_CHECK enum err chain_open(const struct model *m, const struct chain_opts *opts,
                               struct chain **out, struct err_text *et);
void chain_close(struct chain *c); /* ends the device processes and waits for them */

/* Runs a batch through every stage. logits gets (n_wanted, n_vocab) f32, or hidden states of width
 * n_embd where the rows want those, borrowed until the next call. With no wanted row it may return before the last stage is done; should that step then
 * fail, the next call says so and does nothing else. A step that fails empties the slots it
 * touched: see chain_slot_len. ERR_GONE when a device leaves: the chain is then of no further use
 * but to close. */
MUST_CHECK enum err chain_run(struct chain *c, const struct batch *b, struct tensors *logits,
                              struct err_text *et);

/* Slot changes travel in front of the next step, in the order given. */
MUST_CHECK enum err chain_slot_truncate(struct chain *c, int slot, int len, struct err_text *et);
MUST_CHECK enum err chain_slot_copy(struct chain *c, int from, int to, int len,
                                    struct err_text *et);
int chain_slot_len(const struct chain *c, int slot);

struct device_report {
    char name[32];
    char modules[96];
    int pid, n_threads;
    uint64_t weight_bytes, kv_bytes, resident_bytes;
    uint64_t steps, rows;             /* computed so far */
    uint64_t compute_us;              /* in all */
    uint64_t decode_steps, decode_us; /* steps of one row */
    uint64_t sent_bytes, decode_sent_bytes;
};
int chain_n_devices(const struct chain *c);
/* Asks the device (a frame around the ring), so not for the middle of a measurement. */
MUST_CHECK enum err chain_report(struct chain *c, int device, struct device_report *out,
                                 struct err_text *et);

#endif
