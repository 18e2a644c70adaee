/* Frames: how messages lie one after the other in a byte stream.
 *
 *     offset 0   u32  length: bytes after this field
 *            4   u16  type (enum frame_type)
 *            6   u16  zero
 *            8   u32  header length h
 *           12   h bytes: the message, protobuf (step.proto, message.proto, cluster.proto)
 *                0..3 zero bytes, so that the payload starts at a multiple of four
 *                the rest: raw payload (f32 tensors, weights, a manifest)
 *
 * All numbers are little-endian. Every type has a largest header and a largest frame, so that
 * whoever reads a frame knows from its first twelve bytes whether it is worth any memory. Pure
 * functions over bytes: no I/O, no clock, no state; any thread. */
#ifndef LINGUA_WIRE_FRAME_H
#define LINGUA_WIRE_FRAME_H

#include <stddef.h>
#include <stdint.h>

#include "base/err.h"

enum frame_type {
    FRAME_CONFIG = 1, /* head -> device: what to load */
    FRAME_HELLO,      /* device -> head: I speak this version */
    FRAME_PROGRESS,   /* device -> head: weight bytes loaded so far */
    FRAME_READY,      /* device -> head: loaded */
    FRAME_STEP,       /* stage -> next stage */
    FRAME_RESULT,     /* last stage -> head */
    FRAME_REPORT_ASK, /* head -> device */
    FRAME_REPORT,     /* device -> head */
    FRAME_STOP,       /* head -> device */
    FRAME_ERROR,      /* device -> head: why it is about to end */

    /* Between devices of a cluster (wire/cluster.h). */
    FRAME_GREET,   /* who dials -> who is dialled, the first frame of a link */
    FRAME_WELCOME, /* its answer: the link is open */
    FRAME_REFUSE,  /* its other answer: why not; the link is then closed */
    FRAME_ROSTER,  /* head -> device: who belongs to the cluster, signed */
    FRAME_ASSIGN,  /* head -> device: the plan of an epoch and your place in it */
    FRAME_LOAD,    /* head -> device: change to that epoch now */
    FRAME_DIAL,    /* head -> device: how to reach a neighbour */
    FRAME_LINK,    /* device -> head: what became of that */
    FRAME_PHASE,   /* device -> head: how far it is with an epoch */
    FRAME_PING,    /* either way, answered at once by PONG */
    FRAME_PONG,
    FRAME_LEAVE,        /* device -> head: I am going, on purpose */
    FRAME_TRACE_ASK,    /* head -> device */
    FRAME_TRACE,        /* device -> head */
    FRAME_MANIFEST_ASK, /* bulk link: what is in this model? */
    FRAME_MANIFEST,
    FRAME_HAVE_ASK, /* bulk link: which of its parts do you hold? */
    FRAME_HAVE,
    FRAME_FETCH, /* bulk link: send me these bytes of a part */
    FRAME_CHUNK,
    FRAME_ADMIN,       /* local socket: a command or its answer, JSON in the payload */
    FRAME_PROFILE_ASK, /* head -> device: how long do you take for these classes of modules? */
    FRAME_PROFILE,     /* device -> head */
    FRAME_PROBE,       /* control and stage links, either way: how quick is this link? */
    FRAME_TYPES        /* one past the last */
};

/* What a link may carry depends on what its far end has proved to be. */
enum wire_trust {
    WIRE_STRANGER, /* nothing yet: GREET one way, WELCOME or REFUSE the other, all of them small */
    WIRE_CONTROL,  /* head and device */
    WIRE_STAGES,   /* stage to stage: steps alone */
    WIRE_BULK,     /* weights alone */
    WIRE_LOCAL,    /* a command on this machine, by the socket in the state folder */
};

enum {
    WIRE_VERSION = 2,
    FRAME_HEAD_BYTES = 12,
    FRAME_PAYLOADS = 2,
    WIRE_ROWS_MAX = 4096,
    WIRE_SLOTS_MAX = 256,
    WIRE_OPS_MAX = 1024,
    WIRE_WIDTH_MAX = 1 << 20,
    WIRE_TENSORS_MAX = 2,
    WIRE_STAGES_MAX = 128,
    WIRE_DEVICES_MAX = 64,
    WIRE_PATH_MAX = 4096, /* terminating NUL included */
    WIRE_STEP_HEADER_MAX = 160 << 10,
    WIRE_CONTROL_HEADER_MAX = 8 << 10,
    WIRE_BIG_HEADER_MAX = 32 << 10,    /* ROSTER, ASSIGN */
    WIRE_STRANGER_FRAME_MAX = 2 << 10, /* whole frames, before a link is open */
};

/* A frame taken apart; everything borrows from the bytes it was read from. */
struct frame {
    enum frame_type type;
    const uint8_t *header;
    size_t header_len;
    const uint8_t *payload; /* at a multiple of four from the frame's first byte */
    size_t payload_len;
};

/* A frame about to be sent, in pieces, so that tensors need not be copied to stand behind their
 * header. */
struct frame_out {
    uint8_t head[FRAME_HEAD_BYTES];
    const uint8_t *header;
    size_t header_len; /* zero bytes up to a multiple of four included */
    int n_payloads;
    const void *payload[FRAME_PAYLOADS];
    size_t payload_len[FRAME_PAYLOADS];
    size_t total; /* bytes of the whole frame */
};

/* Largest header, payload and whole frame of a type; 0 for types that do not exist. */
size_t wire_header_max(unsigned type);
size_t wire_payload_max(unsigned type);
size_t wire_frame_max(unsigned type);

/* The same for a link of that trust: 0 for types that have no place on it. */
size_t wire_frame_max_for(unsigned type, enum wire_trust trust);

/* What the first len bytes at buf say about the frame that starts there: *total is its size, or 0
 * when len is too short to tell. ERR_PROTO: no such frame can exist. ERR_LIMIT: it is larger than
 * its type allows. */
MUST_CHECK enum err frame_measure(const uint8_t *buf, size_t len, size_t *total,
                                  struct err_text *et);
/* The same on a link of that trust: a type that has no place on it is ERR_PROTO. */
MUST_CHECK enum err frame_measure_for(const uint8_t *buf, size_t len, enum wire_trust trust,
                                      size_t *total, struct err_text *et);
/* buf holds exactly one frame. ERR_PROTO on truncation, trailing bytes, a head that contradicts
 * itself. *out borrows from buf. */
MUST_CHECK enum err frame_decode(const uint8_t *buf, size_t len, struct frame *out,
                                 struct err_text *et);

/* Completes out, whose payloads are set. header must have 3 bytes of room behind its header_len,
 * which are zeroed. The caller has kept to the limits of the type. */
void frame_finish(struct frame_out *out, enum frame_type type, uint8_t *header, size_t header_len);
/* The frame's bytes in a row, for tests and copies. buf has room for out->total. */
void frame_copy(const struct frame_out *out, uint8_t *buf);

#endif
