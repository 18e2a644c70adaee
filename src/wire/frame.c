#include "wire/frame.h"

#include <string.h>

#include "base/check.h"

/* Bytes the length field does not count: itself. */
enum { LENGTH_BYTES = 4 };

/* 1 GiB holds the hidden states of 4096 rows at any width in use; the head refuses steps that would
 * not fit before it sends them. */
static const size_t step_frame_max = (size_t)1 << 30;

size_t wire_header_max(unsigned type)
{
    switch (type) {
    case FRAME_STEP:
    case FRAME_RESULT:
        return WIRE_STEP_HEADER_MAX;
    case FRAME_CONFIG:
        return WIRE_CONTROL_HEADER_MAX;
    case FRAME_HELLO:
    case FRAME_PROGRESS:
    case FRAME_READY:
    case FRAME_REPORT_ASK:
    case FRAME_REPORT:
    case FRAME_STOP:
    case FRAME_ERROR:
        return WIRE_CONTROL_HEADER_MAX / 8;
    default:
        return 0;
    }
}

size_t wire_frame_max(unsigned type)
{
    size_t header_max = wire_header_max(type);

    if (type == FRAME_STEP || type == FRAME_RESULT)
        return step_frame_max;
    return header_max ? FRAME_HEAD_BYTES + header_max : 0;
}

static uint32_t get_u32(const uint8_t *p)
{
    return (uint32_t)p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24;
}

static void put_u32(uint8_t *p, uint32_t v)
{
    p[0] = (uint8_t)v;
    p[1] = (uint8_t)(v >> 8);
    p[2] = (uint8_t)(v >> 16);
    p[3] = (uint8_t)(v >> 24);
}

static size_t round_up4(size_t n)
{
    return (n + 3) & ~(size_t)3;
}

enum err frame_measure(const uint8_t *buf, size_t len, size_t *total, struct err_text *et)
{
    unsigned type;
    size_t size, header_len;

    *total = 0;
    if (len < FRAME_HEAD_BYTES)
        return ERR_NONE;
    size = (size_t)get_u32(buf) + LENGTH_BYTES;
    type = buf[4] | (unsigned)buf[5] << 8;
    header_len = get_u32(buf + 8);
    if (!wire_frame_max(type))
        return err_set(et, ERR_PROTO, "frame of unknown type %u", type);
    if (buf[6] || buf[7])
        return err_set(et, ERR_PROTO, "frame of type %u: reserved bytes are not zero", type);
    if (size > wire_frame_max(type))
        return err_set(et, ERR_LIMIT, "frame of type %u: %zu bytes, more than the %zu it may have",
                       type, size, wire_frame_max(type));
    if (header_len > wire_header_max(type))
        return err_set(et, ERR_LIMIT, "frame of type %u: header of %zu bytes, at most %zu", type,
                       header_len, wire_header_max(type));
    if (FRAME_HEAD_BYTES + round_up4(header_len) > size)
        return err_set(et, ERR_PROTO, "frame of type %u: header of %zu bytes in a frame of %zu",
                       type, header_len, size);
    *total = size;
    return ERR_NONE;
}

enum err frame_decode(const uint8_t *buf, size_t len, struct frame *out, struct err_text *et)
{
    size_t total, start;
    enum err e = frame_measure(buf, len, &total, et);

    if (e)
        return e;
    if (total == 0 || total != len)
        return err_set(et, ERR_PROTO, "frame of %zu bytes in %zu", total, len);
    out->type = (enum frame_type)buf[4];
    out->header = buf + FRAME_HEAD_BYTES;
    out->header_len = get_u32(buf + 8);
    start = FRAME_HEAD_BYTES + round_up4(out->header_len);
    for (size_t i = FRAME_HEAD_BYTES + out->header_len; i < start; i++)
        if (buf[i])
            return err_set(et, ERR_PROTO, "frame of type %d: padding is not zero", out->type);
    out->payload = buf + start;
    out->payload_len = len - start;
    return ERR_NONE;
}

void frame_finish(struct frame_out *out, enum frame_type type, uint8_t *header, size_t header_len)
{
    size_t padded = round_up4(header_len);

    memset(header + header_len, 0, padded - header_len);
    out->header = header;
    out->header_len = padded;
    out->total = FRAME_HEAD_BYTES + padded;
    for (int i = 0; i < out->n_payloads; i++)
        out->total += out->payload_len[i];
    CHECK(header_len <= wire_header_max(type) && out->total <= wire_frame_max(type));
    put_u32(out->head, (uint32_t)(out->total - LENGTH_BYTES));
    out->head[4] = (uint8_t)type;
    out->head[5] = out->head[6] = out->head[7] = 0;
    put_u32(out->head + 8, (uint32_t)header_len);
}

void frame_copy(const struct frame_out *out, uint8_t *buf)
{
    memcpy(buf, out->head, sizeof out->head);
    buf += sizeof out->head;
    memcpy(buf, out->header, out->header_len);
    buf += out->header_len;
    for (int i = 0; i < out->n_payloads; i++) {
        if (out->payload_len[i])
            memcpy(buf, out->payload[i], out->payload_len[i]);
        buf += out->payload_len[i];
    }
}
