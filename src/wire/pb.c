#include "wire/pb.h"

#include <string.h>

#include "base/check.h"
#include "base/utf8.h"

const void *pb_open(const struct frame *f, enum frame_type type,
                    const ProtobufCMessageDescriptor *desc, struct arena *a, struct err_text *et)
{
    ProtobufCMessage *m;

    if (f->type != type) {
        (void)err_set(et, ERR_PROTO, "frame of type %d where %s was due", f->type,
                      desc->short_name);
        return NULL;
    }
    if (f->header_len > wire_header_max(type) || f->payload_len > wire_payload_max(type)) {
        (void)err_set(et, ERR_PROTO, "%s of %zu + %zu bytes", desc->short_name, f->header_len,
                      f->payload_len);
        return NULL;
    }
    arena_init(a, f->header_len);
    arena_reset(a, f->header_len);
    m = protobuf_c_message_unpack(desc, &a->allocator, f->header_len, f->header);
    if (!m) {
        arena_fini(a);
        (void)err_set(et, ERR_PROTO, "%s: %zu bytes make no sense", desc->short_name,
                      f->header_len);
    }
    return m;
}

void pb_finish(const ProtobufCMessage *m, enum frame_type type, uint8_t *header, size_t size,
               struct frame_out *out)
{
    size_t len = protobuf_c_message_get_packed_size(m);

    CHECK(len <= wire_header_max(type) && len + 3 <= size); /* 3: what frame_finish may zero */
    frame_finish(out, type, header, protobuf_c_message_pack(m, header));
}

void pb_finish_small(const ProtobufCMessage *m, enum frame_type type, struct wire_buf *buf,
                     struct frame_out *out)
{
    out->n_payloads = 0;
    pb_finish(m, type, buf->bytes, sizeof buf->bytes, out);
}

bool pb_fits(uint64_t v, uint64_t low, uint64_t high)
{
    return v >= low && v <= high;
}

enum err pb_text(const char *what, const ProtobufCBinaryData *b, char *out, size_t cap,
                 struct err_text *et)
{
    if (b->len >= cap)
        return err_set(et, ERR_LIMIT, "%s of %zu bytes, at most %zu", what, b->len, cap - 1);
    if (b->len && memchr(b->data, 0, b->len))
        return err_set(et, ERR_PROTO, "%s with a NUL in it", what);
    utf8_clean(out, b->data, b->len);
    return ERR_NONE;
}

enum err pb_name(const char *what, const ProtobufCBinaryData *b, char *out, size_t cap,
                 struct err_text *et)
{
    if (b->len == 0)
        return err_set(et, ERR_PROTO, "%s is empty", what);
    return pb_text(what, b, out, cap, et);
}

enum err pb_exact(const char *what, const ProtobufCBinaryData *b, uint8_t *out, size_t len,
                  struct err_text *et)
{
    if (b->len != len)
        return err_set(et, ERR_PROTO, "%s of %zu bytes where %zu are due", what, b->len, len);
    memcpy(out, b->data, len);
    return ERR_NONE;
}

ProtobufCBinaryData pb_of_text(const char *text, size_t cap)
{
    size_t len = strnlen(text, cap);

    CHECK(len < cap);
    return pb_of(text, len);
}

ProtobufCBinaryData pb_of(const void *bytes, size_t len)
{
    return (ProtobufCBinaryData){len, (uint8_t *)bytes}; /* protobuf-c only reads it */
}
