/* What the decoders and encoders of control messages share: unpacking a frame's header into an
 * arena, and reading the texts and keys in it. Internal to src/wire. Pure; any thread. */
#ifndef LINGUA_WIRE_PB_H
#define LINGUA_WIRE_PB_H

#include <protobuf-c/protobuf-c.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"
#include "wire/arena.h"
#include "wire/frame.h"
#include "wire/message.h"

/* f's header as the message of its type, living in a, which the caller ends by arena_fini. NULL,
 * with nothing to end: ERR_PROTO for the reasons in et: another type, larger than the type may be,
 * or bytes that make no sense. Whether there should be a payload is up to the type's limit alone.
 */
const void *pb_open(const struct frame *f, enum frame_type type,
                    const ProtobufCMessageDescriptor *desc, struct arena *a, struct err_text *et);

/* Packs m into header, which has size bytes, and completes out, whose payloads are set. */
void pb_finish(const ProtobufCMessage *m, enum frame_type type, uint8_t *header, size_t size,
               struct frame_out *out);

/* The same for the many that fit in a wire_buf and have no payload. */
void pb_finish_small(const ProtobufCMessage *m, enum frame_type type, struct wire_buf *buf,
                     struct frame_out *out);

/* No device and no file has more than a pebibyte: sums of what peers say must not overflow. */
#define PB_BYTES_MAX ((uint64_t)1 << 50)

enum { PB_THREADS_MAX = 4096, PB_KV_TYPES = 3 };

bool pb_fits(uint64_t v, uint64_t low, uint64_t high);

/* A peer's words, cleaned (base/utf8.h). They must fit in cap bytes, terminating NUL included:
 * ERR_LIMIT when they do not, ERR_PROTO when they hold a NUL. what ("greet: name") begins the
 * sentence. */
MUST_CHECK enum err pb_text(const char *what, const ProtobufCBinaryData *b, char *out, size_t cap,
                            struct err_text *et);
/* A text that must say something. */
MUST_CHECK enum err pb_name(const char *what, const ProtobufCBinaryData *b, char *out, size_t cap,
                            struct err_text *et);
/* Exactly len bytes, or ERR_PROTO. */
MUST_CHECK enum err pb_exact(const char *what, const ProtobufCBinaryData *b, uint8_t *out,
                             size_t len, struct err_text *et);

/* For encoders: fields that look at memory which stays the caller's. text is terminated within
 * cap. */
ProtobufCBinaryData pb_of_text(const char *text, size_t cap);
ProtobufCBinaryData pb_of(const void *bytes, size_t len);

#endif
