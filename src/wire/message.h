/* Control messages: everything that is not a step (message.proto has the fields' meanings).
 *
 * Encoders write into a caller's wire_buf; decoders check every number and give back plain structs
 * that borrow nothing. Pure; any thread. */
#ifndef LINGUA_WIRE_MESSAGE_H
#define LINGUA_WIRE_MESSAGE_H

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"
#include "wire/frame.h"

struct wire_buf {
    uint8_t bytes[WIRE_CONTROL_HEADER_MAX + 3];
};

struct wire_stage {
    int device, first, end; /* modules [first, end) */
};
struct wire_link {
    int device, fd;
};

struct wire_config {
    int version, device, n_devices;
    char path[WIRE_PATH_MAX];
    int n_threads, n_slots, n_ctx, n_rows_max, kv;
    uint32_t epoch;
    int n_stages, n_links;
    struct wire_stage stage[WIRE_STAGES_MAX];
    struct wire_link link[WIRE_DEVICES_MAX];
};

struct wire_hello {
    int version, device;
};

struct wire_progress {
    uint64_t done, total;
};

struct wire_ready {
    int device, n_segments;
    int first[2], end[2];
    uint64_t weight_bytes, kv_bytes;
};

struct wire_report {
    int device, n_threads;
    uint64_t weight_bytes, kv_bytes, resident_bytes;
    uint64_t steps, rows, compute_us, decode_steps, decode_us, sent_bytes, decode_sent_bytes;
    /* Sums over decode steps (step_decodes), of the device's own clock: when each arrived at
     * its stage and when it was given to the next. By stage: a device may have two. With everybody's,
     * and how far clocks are apart, they say how long each hop takes. Sums wrap; their differences
     * do not mind. */
    uint64_t stage_steps[2], arrived_us[2], sent_us[2], stage_us[2]; /* stage_us: computing */
    /* How the device is. */
    uint64_t memory_free, storage_free; /* bytes; 0 = unknown */
    int temperature_mc;                 /* thousandths of a degree Celsius; 0 = unknown */
    int battery_percent;                /* -1 = none, or unknown */
    bool charging;
};

struct wire_error {
    enum err code;
    struct err_text text;
};

/* *out borrows from buf. The structs keep the limits. */
void wire_config_encode(const struct wire_config *m, struct wire_buf *buf, struct frame_out *out);
void wire_hello_encode(const struct wire_hello *m, struct wire_buf *buf, struct frame_out *out);
void wire_progress_encode(const struct wire_progress *m, struct wire_buf *buf,
                          struct frame_out *out);
void wire_ready_encode(const struct wire_ready *m, struct wire_buf *buf, struct frame_out *out);
void wire_report_encode(const struct wire_report *m, struct wire_buf *buf, struct frame_out *out);
void wire_error_encode(const struct wire_error *m, struct wire_buf *buf, struct frame_out *out);
/* FRAME_REPORT_ASK and FRAME_STOP have nothing in them. */
void wire_empty_encode(enum frame_type type, struct wire_buf *buf, struct frame_out *out);

/* ERR_PROTO or ERR_LIMIT; another type than the function's is ERR_PROTO. */
MUST_CHECK enum err wire_config_decode(const struct frame *f, struct wire_config *m,
                                       struct err_text *et);
MUST_CHECK enum err wire_hello_decode(const struct frame *f, struct wire_hello *m,
                                      struct err_text *et);
MUST_CHECK enum err wire_progress_decode(const struct frame *f, struct wire_progress *m,
                                         struct err_text *et);
MUST_CHECK enum err wire_ready_decode(const struct frame *f, struct wire_ready *m,
                                      struct err_text *et);
MUST_CHECK enum err wire_report_decode(const struct frame *f, struct wire_report *m,
                                       struct err_text *et);
MUST_CHECK enum err wire_error_decode(const struct frame *f, struct wire_error *m,
                                      struct err_text *et);

/* enum err as it travels, and back: ERR_NONE is 0; a code we do not know is ERR_PROTO by *known =
 * 0. */
uint32_t wire_code(enum err e);
enum err wire_code_back(uint32_t code, int *known);
/* A peer's sentence for our own eyes: cut to fit, control characters and what is not UTF-8
 * become '?'. */
void wire_text(struct err_text *out, const uint8_t *bytes, size_t len);

#endif
