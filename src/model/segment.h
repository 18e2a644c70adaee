/* A segment: modules [first, end) with their weights and KV cache, ready to compute.
 *
 * The promise: a row's result depends on its own token prefix alone. Not on the cut, the thread
 * count, how a prompt was chunked, who else was in the step, or whether the prefix was decoded or
 * replayed: the same bits, on x86 devices whose model_kernels() agree (types whose one-row and
 * many-row kernels differ, such as repacked Q4_K, keep the promise across cuts and threads only).
 *
 * One step through a segment:
 *   1. The caller fills a `struct batch`: for each row its slot, its position in the slot, its
 *      token (embed only) and what is wanted of it. Rows of one slot stand in order of
 *      position, without gaps, starting at or before the slot's length.
 *   2. segment_run looks up the graph for this shape (built once, kept), copies the inputs in and
 *      computes. Keys and values go into the slot at the row's position; what was there or after
 *      is overwritten or forgotten: the slot's length becomes the last position + 1.
 *   3. From the model's last attention on, only wanted rows are carried (model_rows_shrink_at), so
 *      the outputs have n_rows or n_wanted rows; segment_run says which.
 *
 * A segment and its slots belong to one thread at a time. Several segments may share one `struct
 * compute` (its thread pool), then all of them belong to that thread. */
#ifndef LINGUA_MODEL_SEGMENT_H
#define LINGUA_MODEL_SEGMENT_H

#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "model/model.h"

struct compute;
struct segment;

/* Threads to compute with; they sleep between steps. n_threads >= 1. */
MUST_CHECK enum err compute_open(int n_threads, struct compute **out, struct err_text *et);
void compute_close(struct compute *c);
int compute_n_threads(const struct compute *c);

struct segment_opts {
    int n_slots;    /* sequences held at once, >= 1 */
    int n_ctx;      /* positions per slot */
    int n_rows_max; /* rows of the largest step; longer prompts come in chunks */
    enum kv_type kv;
};
enum { SEGMENT_ROWS_DEFAULT = 256, SEGMENT_ROWS_MAX = 4096, SEGMENT_SLOTS_MAX = 256 };

/* Loads the weights of modules [first, end) of m (borrowed until close, as is c). ERR_MEMORY says
 * what was needed and what there is; ERR_INPUT a range that is empty or out of the model. gives
 * *out. */
MUST_CHECK enum err segment_open(const struct model *m, struct compute *c, int first, int end,
                                 const struct segment_opts *opts, struct segment **out,
                                 struct err_text *et);
void segment_close(struct segment *s);

/* What is wanted of a row; all wanted rows of one batch want the same. HIDDEN: what the LM head is
 * fed, the hidden state after the final norm; the LM head is not computed then. */
enum row_want { ROW_NOTHING, ROW_LOGITS, ROW_HIDDEN };

struct batch {
    int n_rows;
    const int32_t *slot;  /* (n_rows) */
    const int32_t *pos;   /* (n_rows) */
    const int32_t *token; /* (n_rows), read only when the segment starts with embed */
    const uint8_t *want;  /* (n_rows) enum row_want */
};

struct tensors {
    int n; /* tensors, 1 or 2 */
    int n_rows;
    int width[EDGES_MAX]; /* f32 per row */
    const float
        *data[EDGES_MAX]; /* (n_rows, width) each; an output is borrowed until the next run */
};

/* Runs one step. in is NULL when the segment starts with embed, else what model_edges(first) names,
 * with n_rows rows or, past the shrink, n_wanted. Every index is checked: ERR_INPUT / ERR_LIMIT
 * leave the slots as they were. With no wanted rows past the shrink, out has 0 rows. The last
 * segment's output is the logits, width n_vocab, or hidden states, width n_embd. */
MUST_CHECK enum err segment_run(struct segment *s, const struct batch *b, const struct tensors *in,
                                struct tensors *out, struct err_text *et);

/* Checks a batch without running it, for whoever must refuse it before others have started. */
MUST_CHECK enum err segment_check(const struct segment *s, const struct batch *b,
                                  struct err_text *et);

int segment_first(const struct segment *s);
int segment_end(const struct segment *s);
uint64_t segment_weight_bytes(const struct segment *s); /* as loaded */
/* Of those, the embedding's table in the mapped file: where it is tied, a device with a segment at
 * either end has it once. */
uint64_t segment_embed_bytes(const struct segment *s);
uint64_t segment_kv_bytes(const struct segment *s); /* when every slot is full */

/* What a segment takes beside its KV cache, found from the file's header alone. scratch: memory to
 * compute in, sized for steps of n_rows_max rows that are all wanted, the graphs it keeps, and what
 * its threads need; an upper bound (tests/plan/test_scratch.c says how close). opts as for
 * segment_open. */
struct segment_needs {
    uint64_t weight_bytes; /* as segment_weight_bytes will be */
    uint64_t embed_bytes;  /* as segment_embed_bytes will be */
    uint64_t scratch_bytes;
};
void segment_needs(const struct model *m, int first, int end, const struct segment_opts *opts,
                   int n_threads, struct segment_needs *out);
/* What an open segment has of it so far, its compute's buffers included. */
uint64_t segment_scratch_bytes(const struct segment *s);

/* Slots. Positions are dense: a slot of length n holds [0, n). */
int segment_slot_len(const struct segment *s, int slot);
MUST_CHECK enum err segment_slot_truncate(struct segment *s, int slot, int len,
                                          struct err_text *et); /* len <= length */
MUST_CHECK enum err segment_slot_copy(struct segment *s, int from, int to, int len,
                                      struct err_text *et);

/* The bytes of positions [pos, pos_end) of one attn module in one slot, as migration moves them: a
 * 32-byte header, then per KV head the keys of those positions as rows of head_dim, then the values
 * (kv.h has the layout to the byte). Import extends or overwrites the slot; pos must not leave a
 * gap. */
size_t segment_kv_export_size(const struct segment *s, int module, int pos, int pos_end);
MUST_CHECK enum err segment_kv_export(const struct segment *s, int module, int slot, int pos,
                                      int pos_end, uint8_t *buf, size_t cap, struct err_text *et);
MUST_CHECK enum err segment_kv_import(struct segment *s, int module, int slot, const uint8_t *buf,
                                      size_t len, struct err_text *et);

#endif
