/* Messages between the devices of a cluster (cluster.proto has the fields' meanings).
 *
 * Encoders write into a caller's wire_buf; decoders check every number, length and text, and give
 * back plain structs. They borrow nothing, but for payloads and the roster's bytes, which borrow
 * from the frame. Names and sentences come out as printable UTF-8-or-'?' C strings. Pure; any
 * thread. */
#ifndef LINGUA_WIRE_CLUSTER_H
#define LINGUA_WIRE_CLUSTER_H

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"
#include "wire/frame.h"
#include "wire/message.h"

enum {
    WIRE_VERSION_MIN = 2, /* the oldest version this build still speaks */
    WIRE_KEY_BYTES = 32,  /* SHA-256 of a certificate, of a manifest, of a tensor */
    WIRE_SIGNATURE_BYTES = 64,
    WIRE_NAME_MAX = 64, /* terminating NUL included, as in all of these */
    WIRE_TEXT_MAX = 96,
    WIRE_ADDRESSES_MAX = 512,
    WIRE_PEERS_MAX = 24,
    WIRE_MEMBERS_MAX = 64,
    WIRE_PORT_MAX = 65535,
    WIRE_TRACE_MAX = 16384, /* records of one frame */
    WIRE_TRACE_BYTES = 56,
    WIRE_MANIFEST_MAX = 8 << 20,
    WIRE_PARTS_MAX = 1 << 16,
    WIRE_CHUNK_MAX = 128 << 10, /* payload; small, so that a step never waits long behind one */
    WIRE_ADMIN_MAX = 4 << 20,
    WIRE_CLASSES_MAX = 64,
    WIRE_COSTS = 7, /* of a class: steps of 1, 2, 4, 8, 16 rows, prefill per row, per position */
    WIRE_PROBE_MAX = 64 << 10, /* payload of a PROBE */
};

enum wire_purpose {
    WIRE_FOR_PAIR = 1, /* a stranger with a token */
    WIRE_FOR_MEMBER,   /* a device to its head */
    WIRE_FOR_STAGES,   /* a device to its neighbour in the plan */
    WIRE_FOR_BULK,     /* weights */
    WIRE_FOR_LOCAL,    /* a command on this machine */
};

struct wire_greet {
    int version, version_min;
    enum wire_purpose purpose;
    char name[WIRE_NAME_MAX];
    bool has_proof;
    uint8_t proof[WIRE_KEY_BYTES];
    uint32_t epoch;
    char kernels[WIRE_TEXT_MAX], kind[WIRE_TEXT_MAX];
    int n_threads;
    uint64_t memory_bytes, base_bytes, speed;
    int port;
    uint64_t roster;
    int cap;    /* percent of the time it may be busy, 1..100 */
    bool spare; /* its owner would rather keep it free */
};

struct wire_welcome {
    int version;
    char name[WIRE_NAME_MAX];
    char address[WIRE_TEXT_MAX];
};

struct wire_refuse {
    enum err code;
    struct err_text text;
};

struct wire_roster { /* borrows from the frame */
    const uint8_t *body, *signature;
    size_t body_len, signature_len;
};

struct wire_roster_body {
    uint64_t version;
    uint8_t head[WIRE_KEY_BYTES];
    int n;
    struct wire_member {
        uint8_t key[WIRE_KEY_BYTES];
        char name[WIRE_NAME_MAX];
        bool mine;
    } member[WIRE_MEMBERS_MAX];
};
enum { WIRE_ROSTER_BODY_MAX = 48 + WIRE_MEMBERS_MAX * (WIRE_KEY_BYTES + WIRE_NAME_MAX + 16) };

struct wire_peer {
    int device; /* n_devices = only a source of weights */
    uint8_t key[WIRE_KEY_BYTES];
    char name[WIRE_NAME_MAX];
    char addresses[WIRE_ADDRESSES_MAX];
};

struct wire_assign {
    uint32_t epoch;
    int device, n_devices;
    uint8_t model[WIRE_KEY_BYTES];
    int n_slots, n_ctx, n_rows_max, kv;
    int n_stages, n_peers;
    struct wire_stage stage[WIRE_STAGES_MAX];
    struct wire_peer peer[WIRE_PEERS_MAX];
};

struct wire_load {
    uint32_t epoch;
    uint64_t last_step;
};

enum wire_dial_how { WIRE_DIAL_OUT = 1, WIRE_DIAL_AWAIT, WIRE_DIAL_RELAY };
struct wire_dial {
    uint32_t epoch;
    int device;
    enum wire_dial_how how;
};

enum wire_link_state { WIRE_LINK_DIRECT = 1, WIRE_LINK_FAILED, WIRE_LINK_LOST };
struct wire_link_report {
    uint32_t epoch;
    int device;
    enum wire_link_state state;
    /* DIRECT, measured by the device that reports: 0 = not. From it and to it. */
    uint64_t rtt_us, out_bytes_per_s, in_bytes_per_s;
};

enum wire_phase_kind {
    WIRE_PHASE_FETCHING = 1,
    WIRE_PHASE_FETCHED,
    WIRE_PHASE_LOADING,
    WIRE_PHASE_READY,
    WIRE_PHASE_FAILED,
};
struct wire_phase {
    uint32_t epoch;
    enum wire_phase_kind phase;
    uint64_t done, total, received, weight_bytes, kv_bytes, resident_bytes;
    enum err code;
    struct err_text text;
};

struct wire_ping {
    uint64_t sent_us;
};
struct wire_pong {
    uint64_t sent_us, clock_us;
};
struct wire_leave {
    struct err_text text;
};
struct wire_trace_ask {
    bool on;
    uint32_t epoch; /* not 0: what is kept of these steps is wanted, on or off does not change */
    uint64_t first, last;
};

struct wire_trace_record {
    uint64_t number, stage, rows, arrived_us, begun_us, ended_us, sent_us;
};
struct wire_trace {
    uint32_t epoch; /* as asked; 0: of the trace that was on */
    int n;
    const uint8_t *records; /* n of WIRE_TRACE_BYTES, borrowed: wire_trace_get reads one */
};

/* MANIFEST_ASK, HAVE_ASK */
struct wire_model_ask {
    uint8_t model[WIRE_KEY_BYTES];
};
struct wire_manifest { /* bytes borrowed; none: the sender has no such manifest */
    uint8_t model[WIRE_KEY_BYTES];
    const uint8_t *bytes;
    size_t len;
};
struct wire_have { /* bits borrowed */
    uint8_t model[WIRE_KEY_BYTES];
    int n_parts;
    const uint8_t *bits; /* (n_parts + 7) / 8 bytes */
};
struct wire_fetch {
    uint8_t model[WIRE_KEY_BYTES];
    int part;
    uint64_t offset;
    int length; /* 1..WIRE_CHUNK_MAX */
};
struct wire_chunk { /* bytes borrowed */
    int part;
    uint64_t offset;
    enum err code; /* not ERR_NONE: no bytes, and text says why */
    struct err_text text;
    const uint8_t *bytes;
    size_t len;
};
struct wire_profile_ask {
    uint8_t model[WIRE_KEY_BYTES];
    uint64_t classes; /* model/classes.h: id */
    int n_classes, kv;
};
struct wire_profile {
    uint64_t classes;
    enum err code; /* not ERR_NONE: no costs, and text says why */
    struct err_text text;
    int n_threads;
    int n_classes;
    uint64_t cost_ps[WIRE_CLASSES_MAX][WIRE_COSTS]; /* picoseconds */
};

/* How quick a link is (device/probe.h has the whole story). ECHO is answered by ECHOED with the
 * same number at once, and with `left` not 0 by a burst of so many frames behind it. A burst is some
 * BURST frames with payloads, back to back, `left` counting down to 0; who gets the last of one it
 * has not asked for answers BURST_TOOK: the bytes that came after the first frame and how long they
 * took. */
enum wire_probe_kind {
    WIRE_PROBE_ECHO = 1,
    WIRE_PROBE_ECHOED,
    WIRE_PROBE_BURST,
    WIRE_PROBE_BURST_TOOK,
};
struct wire_probe {
    enum wire_probe_kind kind;
    uint32_t number, left;
    uint64_t bytes, took_us; /* BURST_TOOK */
    size_t payload_len;      /* BURST: zeros, at most WIRE_PROBE_MAX; not kept by decode */
};

struct wire_admin { /* json borrowed, not terminated */
    uint64_t number;
    const char *json;
    size_t len;
};

/* *out borrows from buf, and from the struct's borrowed bytes. The structs keep the limits. */
struct wire_big_buf { /* for ASSIGN and ROSTER */
    uint8_t bytes[WIRE_BIG_HEADER_MAX + 3];
};
void wire_greet_encode(const struct wire_greet *m, struct wire_buf *buf, struct frame_out *out);
void wire_welcome_encode(const struct wire_welcome *m, struct wire_buf *buf, struct frame_out *out);
void wire_refuse_encode(const struct wire_refuse *m, struct wire_buf *buf, struct frame_out *out);
void wire_roster_encode(const struct wire_roster *m, struct wire_big_buf *buf,
                        struct frame_out *out);
void wire_assign_encode(const struct wire_assign *m, struct wire_big_buf *buf,
                        struct frame_out *out);
void wire_load_encode(const struct wire_load *m, struct wire_buf *buf, struct frame_out *out);
void wire_dial_encode(const struct wire_dial *m, struct wire_buf *buf, struct frame_out *out);
void wire_link_encode(const struct wire_link_report *m, struct wire_buf *buf,
                      struct frame_out *out);
void wire_phase_encode(const struct wire_phase *m, struct wire_buf *buf, struct frame_out *out);
void wire_ping_encode(const struct wire_ping *m, struct wire_buf *buf, struct frame_out *out);
void wire_pong_encode(const struct wire_pong *m, struct wire_buf *buf, struct frame_out *out);
void wire_leave_encode(const struct wire_leave *m, struct wire_buf *buf, struct frame_out *out);
void wire_trace_ask_encode(const struct wire_trace_ask *m, struct wire_buf *buf,
                           struct frame_out *out);
void wire_trace_encode(const struct wire_trace *m, struct wire_buf *buf, struct frame_out *out);
/* type: FRAME_MANIFEST_ASK or FRAME_HAVE_ASK */
void wire_model_ask_encode(enum frame_type type, const struct wire_model_ask *m,
                           struct wire_buf *buf, struct frame_out *out);
void wire_manifest_encode(const struct wire_manifest *m, struct wire_buf *buf,
                          struct frame_out *out);
void wire_have_encode(const struct wire_have *m, struct wire_buf *buf, struct frame_out *out);
void wire_fetch_encode(const struct wire_fetch *m, struct wire_buf *buf, struct frame_out *out);
void wire_chunk_encode(const struct wire_chunk *m, struct wire_buf *buf, struct frame_out *out);
void wire_admin_encode(const struct wire_admin *m, struct wire_buf *buf, struct frame_out *out);

/* ERR_PROTO or ERR_LIMIT; another type than the function's is ERR_PROTO. *m is of no use then. */

/* Also ERR_UNSUPPORTED: no version in common. Then only m's two versions are set, because the rest
 * may mean something else there, and the sentence is one for REFUSE. With ERR_NONE the link's
 * version is the smaller of m->version and WIRE_VERSION. */
MUST_CHECK enum err wire_greet_decode(const struct frame *f, struct wire_greet *m,
                                      struct err_text *et);
MUST_CHECK enum err wire_welcome_decode(const struct frame *f, struct wire_welcome *m,
                                        struct err_text *et);
/* A code we do not know reads as ERR_PROTO; the sentence counts. */
MUST_CHECK enum err wire_refuse_decode(const struct frame *f, struct wire_refuse *m,
                                       struct err_text *et);
MUST_CHECK enum err wire_roster_decode(const struct frame *f, struct wire_roster *m,
                                       struct err_text *et);
MUST_CHECK enum err wire_assign_decode(const struct frame *f, struct wire_assign *m,
                                       struct err_text *et);
MUST_CHECK enum err wire_load_decode(const struct frame *f, struct wire_load *m,
                                     struct err_text *et);
MUST_CHECK enum err wire_dial_decode(const struct frame *f, struct wire_dial *m,
                                     struct err_text *et);
MUST_CHECK enum err wire_link_decode(const struct frame *f, struct wire_link_report *m,
                                     struct err_text *et);
MUST_CHECK enum err wire_phase_decode(const struct frame *f, struct wire_phase *m,
                                      struct err_text *et);
MUST_CHECK enum err wire_ping_decode(const struct frame *f, struct wire_ping *m,
                                     struct err_text *et);
MUST_CHECK enum err wire_pong_decode(const struct frame *f, struct wire_pong *m,
                                     struct err_text *et);
MUST_CHECK enum err wire_leave_decode(const struct frame *f, struct wire_leave *m,
                                      struct err_text *et);
MUST_CHECK enum err wire_trace_ask_decode(const struct frame *f, struct wire_trace_ask *m,
                                          struct err_text *et);
MUST_CHECK enum err wire_trace_decode(const struct frame *f, struct wire_trace *m,
                                      struct err_text *et);
MUST_CHECK enum err wire_model_ask_decode(const struct frame *f, struct wire_model_ask *m,
                                          struct err_text *et); /* either type */
MUST_CHECK enum err wire_manifest_decode(const struct frame *f, struct wire_manifest *m,
                                         struct err_text *et);
MUST_CHECK enum err wire_have_decode(const struct frame *f, struct wire_have *m,
                                     struct err_text *et);
MUST_CHECK enum err wire_fetch_decode(const struct frame *f, struct wire_fetch *m,
                                      struct err_text *et);
MUST_CHECK enum err wire_chunk_decode(const struct frame *f, struct wire_chunk *m,
                                      struct err_text *et);
MUST_CHECK enum err wire_admin_decode(const struct frame *f, struct wire_admin *m,
                                      struct err_text *et);

void wire_profile_ask_encode(const struct wire_profile_ask *m, struct wire_buf *buf,
                             struct frame_out *out);
void wire_profile_encode(const struct wire_profile *m, struct wire_buf *buf, struct frame_out *out);
void wire_probe_encode(const struct wire_probe *m, struct wire_buf *buf, struct frame_out *out);
MUST_CHECK enum err wire_profile_ask_decode(const struct frame *f, struct wire_profile_ask *m,
                                            struct err_text *et);
/* ERR_PROTO: costs of a day or more, too. */
MUST_CHECK enum err wire_profile_decode(const struct frame *f, struct wire_profile *m,
                                        struct err_text *et);
MUST_CHECK enum err wire_probe_decode(const struct frame *f, struct wire_probe *m,
                                      struct err_text *et);

void wire_trace_put(uint8_t bytes[WIRE_TRACE_BYTES], const struct wire_trace_record *r);
void wire_trace_get(const uint8_t bytes[WIRE_TRACE_BYTES], struct wire_trace_record *r);

/* The roster as it is signed and kept in files. Encoding the same body gives the same bytes.
 * Returns the length, at most WIRE_ROSTER_BODY_MAX. Decoding refuses two members of one key or one
 * name. */
size_t wire_roster_body_encode(const struct wire_roster_body *m,
                               uint8_t bytes[WIRE_ROSTER_BODY_MAX]);
MUST_CHECK enum err wire_roster_body_decode(const uint8_t *bytes, size_t len,
                                            struct wire_roster_body *m, struct err_text *et);

#endif
