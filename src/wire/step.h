/* The step and its result, as messages: what one stage tells the next.
 *
 * The decoder checks everything that can be checked without a model: counts and widths within their
 * limits (frame.h), rows that say what they are, a payload of exactly the size the header names, no
 * trailing bytes. It allocates nothing: the arrays of a decoded step live in the codec, the tensors
 * stay where the payload is. Pure; a codec belongs to one thread at a time. */
#ifndef LINGUA_WIRE_STEP_H
#define LINGUA_WIRE_STEP_H

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"
#include "wire/frame.h"

enum slot_op_kind { SLOT_OP_TRUNCATE = 1, SLOT_OP_COPY };

struct slot_op {
    enum slot_op_kind kind;
    int slot; /* TRUNCATE: the slot; COPY: copied from */
    int to;   /* COPY: copied to; else 0 */
    int len;
};

/* What comes back for a row; all wanted rows of one step want the same. HIDDEN: the state that the
 * LM head is fed, after the final norm. */
enum step_want { STEP_WANT_NOTHING, STEP_WANT_LOGITS, STEP_WANT_HIDDEN };

struct step_tensors {
    int n;      /* 0..WIRE_TENSORS_MAX */
    int n_rows; /* may be 0 */
    int width[WIRE_TENSORS_MAX];
    const float *data[WIRE_TENSORS_MAX]; /* (n_rows, width) each */
};

struct step {
    uint64_t number; /* from 1 */
    uint32_t epoch;
    int stage; /* that is to run it */
    int n_ops; /* slot changes before the rows */
    const struct slot_op *ops;
    int n_rows;           /* 0: only the slot changes */
    const int32_t *slot;  /* (n_rows) */
    const int32_t *pos;   /* (n_rows) */
    const int32_t *token; /* (n_rows), or NULL behind the stage that embeds */
    const uint8_t *want;  /* (n_rows) enum step_want */
    int n_want;
    /* Keyed tags of the rows' token prefixes, made by the head and opaque to all others: (n_runs +
     * n_rows), for each run of neighbouring positions in one slot the tag of what must be there
     * before its first row, then the tag after each of its rows. NULL: not checked. A run begins
     * where the slot changes or the position is not the last one + 1. */
    const uint64_t *tag;
    int n_tags; /* step_runs(s) + n_rows, or 0 */
    struct step_tensors
        in;        /* what the stage reads; none for the stage that embeds, none when failed */
    enum err code; /* ERR_NONE, or why a stage could not run it */
    struct err_text reason;
};

struct result {
    uint64_t number;
    uint32_t epoch;
    enum step_want kind; /* LOGITS or HIDDEN; also without rows */
    int n_rows, width;   /* both 0 when failed */
    const float *logits; /* (n_rows, width), or hidden states */
    enum err code;
    struct err_text reason;
};

/* What s has become behind the last stage. width: of a result without rows. out borrows from s. */
void step_result(const struct step *s, int width, struct result *out);

struct step_codec;
struct step_codec *step_codec_new(void);
void step_codec_free(struct step_codec *c); /* NULL is fine */

/* s keeps the limits. *out borrows from s and from c, until c encodes again. */
void step_encode(struct step_codec *c, const struct step *s, struct frame_out *out);
void result_encode(struct step_codec *c, const struct result *r, struct frame_out *out);

/* ERR_PROTO or ERR_LIMIT. *s borrows from f's bytes and from c, until c decodes again; encoding in
 * between is fine. f's payload must lie at a multiple of four in memory. */
MUST_CHECK enum err step_decode(struct step_codec *c, const struct frame *f, struct step *s,
                                struct err_text *et);
MUST_CHECK enum err result_decode(struct step_codec *c, const struct frame *f, struct result *r,
                                  struct err_text *et);

/* Runs of neighbouring positions in one slot, each as long as it can be, that s's rows make. */
int step_runs(const struct step *s);
/* What its rows want. */
enum step_want step_wants(const struct step *s);
/* A decode step: up to STEP_DECODE_ROWS rows, each alone in its slot. What is measured of decoding is
 * measured over these, by everybody. */
enum { STEP_DECODE_ROWS = 16 };
bool step_decodes(const struct step *s);
/* Bytes of payload these tensors take. */
size_t step_payload_bytes(const struct step_tensors *t);

#endif
