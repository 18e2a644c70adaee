#include "wire/pb.h"

#include <string.h>

#include "base/check.h"

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

/* Length of the printable character at p, of which n bytes are there; 0 when there is none. RFC
 * 3629: no overlong forms, no surrogates, nothing past U+10FFFF. */
static size_t printable(const uint8_t *p, size_t n)
{
    uint32_t c;
    size_t len = p[0] < 0x80 ? 1 : p[0] < 0xc2 ? 0 : p[0] < 0xe0 ? 2 : p[0] < 0xf0 ? 3 : 4;

    if (len == 1)
        return p[0] >= 0x20 && p[0] != 0x7f;
    if (len == 0 || len > n || p[0] > 0xf4)
        return 0;
    c = p[0] & (0x7fu >> len);
    for (size_t i = 1; i < len; i++) {
        if ((p[i] & 0xc0) != 0x80)
            return 0;
        c = c << 6 | (p[i] & 0x3fu);
    }
    if ((len == 3 && c < 0x800) || (len == 4 && (c < 0x10000 || c > 0x10ffff)))
        return 0;
    /* Surrogates, and the control characters between DEL and U+00A0. */
    return pb_fits(c, 0xd800, 0xdfff) || c < 0xa0 ? 0 : len;
}

void pb_clean(char *out, const uint8_t *bytes, size_t len)
{
    for (size_t i = 0; i < len;) {
        size_t n = printable(bytes + i, len - i);

        if (n)
            memcpy(out, bytes + i, n);
        else
            *out = '?';
        n += !n;
        out += n;
        i += n;
    }
    *out = '\0';
}

enum err pb_text(const char *what, const ProtobufCBinaryData *b, char *out, size_t cap,
                 struct err_text *et)
{
    if (b->len >= cap)
        return err_set(et, ERR_LIMIT, "%s of %zu bytes, at most %zu", what, b->len, cap - 1);
    if (b->len && memchr(b->data, 0, b->len))
        return err_set(et, ERR_PROTO, "%s with a NUL in it", what);
    pb_clean(out, b->data, b->len);
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
