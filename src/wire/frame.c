#include "wire/frame.h"

#include <string.h>

#include "base/check.h"
#include "base/mem.h"
#include "wire/cluster.h"

/* Bytes the length field does not count: itself. */
enum { LENGTH_BYTES = 4 };

enum {
    SMALL = WIRE_CONTROL_HEADER_MAX / 8,
    STRANGER = 1 << WIRE_STRANGER,
    CONTROL = 1 << WIRE_CONTROL,
    STAGES = 1 << WIRE_STAGES,
    BULK = 1 << WIRE_BULK,
    LOCAL = 1 << WIRE_LOCAL,
    /* Steps go from stage to stage, by the head when they must, and to the head's commands. */
    STEPS = CONTROL | STAGES | LOCAL,
    ANY = STRANGER | STEPS | BULK,
    /* 1 GiB holds the hidden states of 4096 rows at any width in use; the head refuses steps that
     * would not fit before it sends them. */
    STEP_PAYLOAD_MAX = (1 << 30) - FRAME_HEAD_BYTES - WIRE_STEP_HEADER_MAX,
};

/* What each type may be, and on which links. A link between parent and child (device/conn.h) has no
 * trust: the first four types have a place on it alone. */
static const struct {
    size_t header_max, payload_max;
    unsigned trusts;
} rules[FRAME_TYPES] = {
    [FRAME_CONFIG] = {WIRE_CONTROL_HEADER_MAX, 0, 0},
    [FRAME_HELLO] = {SMALL, 0, 0},
    [FRAME_PROGRESS] = {SMALL, 0, 0},
    [FRAME_READY] = {SMALL, 0, 0},
    [FRAME_STEP] = {WIRE_STEP_HEADER_MAX, STEP_PAYLOAD_MAX, STEPS},
    [FRAME_RESULT] = {WIRE_STEP_HEADER_MAX, STEP_PAYLOAD_MAX, STEPS},
    [FRAME_REPORT_ASK] = {SMALL, 0, CONTROL},
    [FRAME_REPORT] = {SMALL, 0, CONTROL},
    [FRAME_STOP] = {SMALL, 0, CONTROL},
    [FRAME_ERROR] = {SMALL, 0, CONTROL},
    [FRAME_GREET] = {SMALL, 0, STRANGER},
    [FRAME_WELCOME] = {SMALL, 0, STRANGER},
    [FRAME_REFUSE] = {SMALL, 0, ANY}, /* later too: a device that is being revoked */
    [FRAME_ROSTER] = {WIRE_BIG_HEADER_MAX, 0, CONTROL},
    [FRAME_ASSIGN] = {WIRE_BIG_HEADER_MAX, 0, CONTROL},
    [FRAME_LOAD] = {SMALL, 0, CONTROL},
    [FRAME_DIAL] = {SMALL, 0, CONTROL},
    [FRAME_LINK] = {SMALL, 0, CONTROL},
    [FRAME_PHASE] = {SMALL, 0, CONTROL},
    [FRAME_PING] = {SMALL, 0, CONTROL | STAGES | BULK},
    [FRAME_PONG] = {SMALL, 0, CONTROL | STAGES | BULK},
    [FRAME_LEAVE] = {SMALL, 0, CONTROL},
    [FRAME_TRACE_ASK] = {SMALL, 0, CONTROL},
    [FRAME_TRACE] = {SMALL, (size_t)WIRE_TRACE_MAX *WIRE_TRACE_BYTES, CONTROL},
    [FRAME_MANIFEST_ASK] = {SMALL, 0, BULK},
    [FRAME_MANIFEST] = {SMALL, WIRE_MANIFEST_MAX, BULK},
    [FRAME_HAVE_ASK] = {SMALL, 0, BULK},
    [FRAME_HAVE] = {SMALL, WIRE_PARTS_MAX / 8, BULK},
    [FRAME_FETCH] = {SMALL, 0, BULK},
    [FRAME_CHUNK] = {SMALL, WIRE_CHUNK_MAX, BULK},
    [FRAME_ADMIN] = {SMALL, WIRE_ADMIN_MAX, LOCAL},
    [FRAME_PROFILE_ASK] = {SMALL, 0, CONTROL},
    [FRAME_PROFILE] = {WIRE_CONTROL_HEADER_MAX, 0, CONTROL},
    [FRAME_PROBE] = {SMALL, WIRE_PROBE_MAX, CONTROL | STAGES},
};

static const char *const trust_names[] = {
    [WIRE_STRANGER] = "a stranger's",   [WIRE_CONTROL] = "a device's",
    [WIRE_STAGES] = "a stage's",        [WIRE_BULK] = "a bulk",
    [WIRE_LOCAL] = "a local command's",
};

size_t wire_header_max(unsigned type)
{
    return type < FRAME_TYPES ? rules[type].header_max : 0;
}

size_t wire_payload_max(unsigned type)
{
    return type < FRAME_TYPES ? rules[type].payload_max : 0;
}

size_t wire_frame_max(unsigned type)
{
    size_t header_max = wire_header_max(type);

    return header_max ? FRAME_HEAD_BYTES + header_max + wire_payload_max(type) : 0;
}

size_t wire_frame_max_for(unsigned type, enum wire_trust trust)
{
    size_t max = wire_frame_max(type);

    if (!max || (unsigned)trust >= ARRAY_LEN(trust_names) || !(rules[type].trusts & 1u << trust))
        return 0;
    return trust == WIRE_STRANGER && max > WIRE_STRANGER_FRAME_MAX ? WIRE_STRANGER_FRAME_MAX : max;
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

/* frame_max: what the frame may have here; 0 for types that must not come. */
static enum err measure(const uint8_t *buf, unsigned type, size_t frame_max, size_t *total,
                        struct err_text *et)
{
    size_t size = (size_t)get_u32(buf) + LENGTH_BYTES, header_len = get_u32(buf + 8), start;

    if (buf[6] || buf[7])
        return err_set(et, ERR_PROTO, "frame of type %u: reserved bytes are not zero", type);
    if (size > frame_max)
        return err_set(et, ERR_LIMIT, "frame of type %u: %zu bytes, more than the %zu it may have",
                       type, size, frame_max);
    if (header_len > wire_header_max(type))
        return err_set(et, ERR_LIMIT, "frame of type %u: header of %zu bytes, at most %zu", type,
                       header_len, wire_header_max(type));
    start = FRAME_HEAD_BYTES + round_up4(header_len);
    if (start > size)
        return err_set(et, ERR_PROTO, "frame of type %u: header of %zu bytes in a frame of %zu",
                       type, header_len, size);
    if (size - start > wire_payload_max(type))
        return err_set(et, ERR_LIMIT, "frame of type %u: payload of %zu bytes, at most %zu", type,
                       size - start, wire_payload_max(type));
    *total = size;
    return ERR_NONE;
}

static unsigned type_of(const uint8_t *buf)
{
    return buf[4] | (unsigned)buf[5] << 8;
}

enum err frame_measure(const uint8_t *buf, size_t len, size_t *total, struct err_text *et)
{
    unsigned type;

    *total = 0;
    if (len < FRAME_HEAD_BYTES)
        return ERR_NONE;
    type = type_of(buf);
    if (!wire_frame_max(type))
        return err_set(et, ERR_PROTO, "frame of unknown type %u", type);
    return measure(buf, type, wire_frame_max(type), total, et);
}

enum err frame_measure_for(const uint8_t *buf, size_t len, enum wire_trust trust, size_t *total,
                           struct err_text *et)
{
    unsigned type;

    *total = 0;
    if (len < FRAME_HEAD_BYTES)
        return ERR_NONE;
    CHECK((unsigned)trust < ARRAY_LEN(trust_names));
    type = type_of(buf);
    if (!wire_frame_max_for(type, trust))
        return err_set(et, ERR_PROTO, "frame of type %u has no place on %s link", type,
                       trust_names[trust]);
    return measure(buf, type, wire_frame_max_for(type, trust), total, et);
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
    CHECK(header_len <= wire_header_max(type) &&
          out->total - FRAME_HEAD_BYTES - padded <= wire_payload_max(type));
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
