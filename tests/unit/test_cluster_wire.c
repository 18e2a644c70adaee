/* The messages between the devices of a cluster: each one there and back, and every way we know of
 * getting one wrong. Most tests go through all of cluster_kinds. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/mem.h"
#include "support/cluster_kinds.h"

enum { VARINT = 0, FIXED64 = 1, BYTES = 2, FIXED32 = 5, VARINT_MAX = 10 };

static struct err_text et;

/* A frame in memory of exactly its size, so that a read beyond it is seen. */
struct sent {
    uint8_t *bytes;
    size_t len;
    struct frame f;
};

static void send_frame(const struct frame_out *out, struct sent *s)
{
    s->len = out->total;
    s->bytes = malloc(s->len);
    frame_copy(out, s->bytes);
    assert_int_equal(frame_decode(s->bytes, s->len, &s->f, &et), ERR_NONE);
}

static void send_any(const struct cluster_kind *k, const union cluster_any *m, struct sent *s)
{
    static union cluster_buf buf;
    struct frame_out out;

    k->encode(m, &buf, &out);
    send_frame(&out, s);
}

static void send_good(const struct cluster_kind *k, struct sent *s)
{
    static union cluster_any m;

    memset(&m, 0, sizeof m);
    k->make(&m);
    send_any(k, &m, s);
}

static enum err receive(const struct cluster_kind *k, const struct frame *f)
{
    static union cluster_any m;

    return k->decode(f, &m, &et);
}

/* Decoding f and encoding what came gives header and payload again, byte for byte. */
static bool says_the_same(const struct cluster_kind *k, const struct frame *f,
                          const struct frame *as)
{
    static union cluster_any m;
    struct sent s;
    bool same;

    memset(&m, 0x55, sizeof m); /* nothing may be left as it was */
    if (k->decode(f, &m, &et) != ERR_NONE)
        return false;
    send_any(k, &m, &s);
    same = s.f.header_len == as->header_len && s.f.payload_len == as->payload_len &&
           !memcmp(s.f.header, as->header, as->header_len) &&
           !memcmp(s.f.payload, as->payload, as->payload_len);
    free(s.bytes);
    return same;
}

static size_t put_varint(uint8_t *p, uint64_t v)
{
    size_t n = 0;

    for (; v >= 0x80; v >>= 7)
        p[n++] = (uint8_t)(v | 0x80);
    p[n++] = (uint8_t)v;
    return n;
}

/* f with one more field behind its header: a field that is there already is overridden by it. The
 * header is the caller's to free. */
static struct frame with_field(const struct frame *f, unsigned field, unsigned type, uint64_t value,
                               const void *bytes)
{
    size_t len = type == BYTES ? (size_t)value : type == FIXED32 ? 4 : 8;
    uint8_t *header = malloc(f->header_len + 2 * VARINT_MAX + len), *p = header;
    struct frame out = *f;

    memcpy(p, f->header, f->header_len);
    p += f->header_len;
    p += put_varint(p, field << 3 | type);
    if (type == VARINT || type == BYTES)
        p += put_varint(p, value);
    if (type != VARINT) {
        memcpy(p, type == BYTES ? bytes : &value, len);
        p += len;
    }
    out.header = header;
    out.header_len = (size_t)(p - header);
    return out;
}

static enum err receive_with(const struct cluster_kind *k, const struct frame *f, unsigned field,
                             unsigned type, uint64_t value, const void *bytes)
{
    struct frame changed = with_field(f, field, type, value, bytes);
    enum err e = receive(k, &changed);

    free((void *)changed.header);
    return e;
}

/* Whether the header has a field of that number, as protobuf-c sees it. */
static bool has_field(const struct frame *f, unsigned field)
{
    for (size_t at = 0; at < f->header_len;) {
        uint64_t v[2] = {0};

        for (int i = 0; i < 2 && (i == 0 || (v[0] & 7) != FIXED64); i++) {
            int shift = 0;

            for (; f->header[at] >= 0x80; at++, shift += 7)
                v[i] |= (uint64_t)(f->header[at] & 0x7f) << shift;
            v[i] |= (uint64_t)f->header[at++] << shift;
        }
        if (v[0] >> 3 == field)
            return true;
        if ((v[0] & 7) == BYTES)
            at += v[1];
        if ((v[0] & 7) == FIXED64)
            at += 8;
    }
    return false;
}

static void test_round_trips(void **state)
{
    (void)state;
    for (const struct cluster_kind *k = cluster_kinds; k < cluster_kinds + CLUSTER_KINDS; k++) {
        struct sent s;

        send_good(k, &s);
        assert_int_equal(s.f.type, k->type);
        assert_true(says_the_same(k, &s.f, &s.f));
        for (unsigned i = 0; i < k->descriptor->n_fields; i++) /* no field is forgotten */
            assert_true(has_field(&s.f, k->descriptor->fields[i].id) ||
                        k->type == FRAME_PROFILE); /* costs, or a reason: test_profile */
        free(s.bytes);
    }
    for (unsigned type = FRAME_GREET; type < FRAME_TYPES; type++)
        assert_int_equal(cluster_kind_of((enum frame_type)type)->type, type);
}

/* That fields are not merely swapped on both ways: two greetings and a trace record to the byte. */
static void test_to_the_byte(void **state)
{
    static const uint8_t greet[] = {
        0x58, 0,    0,    0,    0x0b, 0,    0,    0,    0x4e, 0,    0,    0,    0x08, 0x02, 0x10,
        0x02, 0x18, 0x02, 0x22, 0x02, 'p',  'i',  0x2a, 0x20, 1,    1,    1,    1,    1,    1,
        1,    1,    1,    1,    1,    1,    1,    1,    1,    1,    1,    1,    1,    1,    1,
        1,    1,    1,    1,    1,    1,    1,    1,    1,    1,    1,    0x30, 0x04, 0x3a, 0x01,
        'k',  0x42, 0x01, 'a',  0x48, 0x03, 0x50, 0x80, 0x80, 0x80, 0x80, 0x04, 0x58, 0x80, 0x80,
        0x40, 0x60, 0xc0, 0x84, 0x3d, 0x68, 0xa5, 0x39, 0x70, 0x0c, 0x78, 0x3c, 0x80, 0x01, 0x01,
    };
    static const uint8_t record[WIRE_TRACE_BYTES] = {
        [0] = 1, [8] = 2, [16] = 3, [24] = 4, [32] = 5, [40] = 6, [48] = 7, [55] = 8,
    };
    struct wire_greet m = {.version = 2,
                           .version_min = 2,
                           .purpose = WIRE_FOR_MEMBER,
                           .name = "pi",
                           .has_proof = true,
                           .epoch = 4,
                           .kernels = "k",
                           .kind = "a",
                           .n_threads = 3,
                           .memory_bytes = 1 << 30,
                           .base_bytes = 1 << 20,
                           .speed = 1000000,
                           .port = 7333,
                           .roster = 12,
                           .cap = 60,
                           .spare = true};
    struct wire_trace_record r;
    uint8_t bytes[WIRE_TRACE_BYTES];
    struct wire_buf buf;
    struct frame_out out;
    struct sent s;

    (void)state;
    memset(m.proof, 1, sizeof m.proof);
    wire_greet_encode(&m, &buf, &out);
    send_frame(&out, &s);
    assert_true(s.len >= sizeof greet);
    assert_memory_equal(s.bytes, greet, sizeof greet);
    free(s.bytes);
    wire_trace_get(record, &r);
    assert_true(r.number == 1 && r.stage == 2 && r.rows == 3 && r.arrived_us == 4 &&
                r.begun_us == 5 && r.ended_us == 6 && r.sent_us == (7 | 8ull << 56));
    wire_trace_put(bytes, &r);
    assert_memory_equal(bytes, record, sizeof record);
}

static void test_every_truncation(void **state)
{
    (void)state;
    for (const struct cluster_kind *k = cluster_kinds; k < cluster_kinds + CLUSTER_KINDS; k++) {
        struct sent s;

        send_good(k, &s);
        for (size_t len = 0; len < s.len; len++) {
            uint8_t *cut = malloc(len ? len : 1);
            uint32_t said = (uint32_t)len - 4;
            struct frame f;
            size_t total;

            /* To a stream it is a frame not yet complete; taken for a whole one it is refused. */
            memcpy(cut, s.bytes, len);
            assert_int_equal(frame_measure(cut, len, &total, &et), ERR_NONE);
            assert_true(total == (len < FRAME_HEAD_BYTES ? 0 : s.len));
            assert_int_equal(frame_decode(cut, len, &f, &et), ERR_PROTO);
            /* A head that admits to being shorter: then header or payload are. A manifest, a chunk
             * and a command are as long as they say. */
            if (len >= FRAME_HEAD_BYTES) {
                memcpy(cut, &said, 4);
                if (frame_decode(cut, len, &f, &et) == ERR_NONE && f.payload_len)
                    assert_true(receive(k, &f) == ERR_PROTO || k->type == FRAME_MANIFEST ||
                                k->type == FRAME_CHUNK || k->type == FRAME_ADMIN);
            }
            free(cut);
        }
        /* A message cut in the middle of a field is refused. Cut between two, it is one that never
         * had the later fields, and must be understood as just that or be refused. */
        for (size_t len = 0; len < s.f.header_len; len++) {
            struct frame f = s.f;
            uint8_t *cut = malloc(len ? len : 1);

            memcpy(cut, s.f.header, len);
            f.header = cut;
            f.header_len = len;
            if (receive(k, &f) == ERR_NONE)
                assert_true(says_the_same(k, &f, &f));
            free(cut);
        }
        free(s.bytes);
    }
}

static void test_trailing_bytes(void **state)
{
    (void)state;
    for (const struct cluster_kind *k = cluster_kinds; k < cluster_kinds + CLUSTER_KINDS; k++) {
        struct sent s;
        struct frame f;
        uint8_t *longer;
        uint32_t said;

        send_good(k, &s);
        longer = calloc(1, s.len + 4);
        memcpy(longer, s.bytes, s.len);
        assert_int_equal(frame_decode(longer, s.len + 4, &f, &et), ERR_PROTO);
        said = (uint32_t)s.len; /* four bytes more */
        memcpy(longer, &said, 4);
        if (wire_payload_max(k->type) == 0)
            assert_int_equal(frame_decode(longer, s.len + 4, &f, &et), ERR_LIMIT);
        else if (k->type != FRAME_MANIFEST && k->type != FRAME_ADMIN) {
            assert_int_equal(frame_decode(longer, s.len + 4, &f, &et), ERR_NONE);
            assert_int_equal(receive(k, &f), ERR_PROTO);
        }
        free(longer);
        f = s.f; /* decoders do not rely on the frame's having been measured */
        f.payload_len = wire_payload_max(k->type) + 1;
        assert_int_equal(receive(k, &f), ERR_PROTO);
        f = s.f;
        f.header_len = wire_header_max(k->type) + 1;
        assert_int_equal(receive(k, &f), ERR_PROTO);
        free(s.bytes);
    }
}

/* A peer one version newer says more than we know; what we know of it stays as it is. */
static void test_unknown_fields(void **state)
{
    (void)state;
    for (const struct cluster_kind *k = cluster_kinds; k < cluster_kinds + CLUSTER_KINDS; k++) {
        struct sent s;
        struct frame f[5];

        send_good(k, &s);
        f[0] = s.f;
        f[1] = with_field(&f[0], 100, VARINT, UINT64_MAX, NULL);
        f[2] = with_field(&f[1], 101, FIXED32, 1, NULL);
        f[3] = with_field(&f[2], 102, FIXED64, 1, NULL);
        f[4] = with_field(&f[3], 103, BYTES, 7, "unknown");
        assert_true(says_the_same(k, &f[4], &s.f));
        for (int i = 1; i < 5; i++)
            free((void *)f[i].header);
        free(s.bytes);
    }
}

static void test_other_types(void **state)
{
    (void)state;
    for (const struct cluster_kind *k = cluster_kinds; k < cluster_kinds + CLUSTER_KINDS; k++) {
        struct sent s;

        send_good(k, &s);
        for (unsigned type = 0; type <= FRAME_TYPES; type++) {
            s.f.type = (enum frame_type)type;
            if (type != k->type && !(k->type == FRAME_MANIFEST_ASK && type == FRAME_HAVE_ASK) &&
                !(k->type == FRAME_HAVE_ASK && type == FRAME_MANIFEST_ASK))
                assert_int_equal(receive(k, &s.f), ERR_PROTO);
        }
        free(s.bytes);
    }
}

static void make_head(uint8_t head[FRAME_HEAD_BYTES], unsigned type, size_t total, size_t header)
{
    uint32_t length = (uint32_t)total - 4, h = (uint32_t)header;

    memset(head, 0, FRAME_HEAD_BYTES);
    memcpy(head, &length, 4);
    head[4] = (uint8_t)type;
    memcpy(head + 8, &h, 4);
}

/* Twelve bytes are enough to refuse what is too large: nothing else has come, or is asked for. */
static void test_too_large(void **state)
{
    uint8_t *head = malloc(FRAME_HEAD_BYTES);
    size_t total;

    (void)state;
    for (unsigned type = 1; type < FRAME_TYPES; type++) {
        size_t header = wire_header_max(type), payload = wire_payload_max(type);
        size_t max = wire_frame_max(type);

        assert_true(header % 4 == 0 && max == FRAME_HEAD_BYTES + header + payload);
        make_head(head, type, max, header);
        assert_int_equal(frame_measure(head, FRAME_HEAD_BYTES, &total, &et), ERR_NONE);
        assert_true(total == max);
        make_head(head, type, max + 1, header);
        assert_int_equal(frame_measure(head, FRAME_HEAD_BYTES, &total, &et), ERR_LIMIT);
        assert_true(total == 0);
        make_head(head, type, max, header + 1);
        assert_int_equal(frame_measure(head, FRAME_HEAD_BYTES, &total, &et), ERR_LIMIT);
        make_head(head, type, max, header - 4);
        assert_int_equal(frame_measure(head, FRAME_HEAD_BYTES, &total, &et), ERR_LIMIT);
        make_head(head, type, FRAME_HEAD_BYTES + header - 1, header);
        assert_int_equal(frame_measure(head, FRAME_HEAD_BYTES, &total, &et), ERR_PROTO);
    }
    free(head);
}

/* What docs/protocol.md says of who may send what, once more and in another form. */
static void test_trust(void **state)
{
    static const unsigned char allowed[WIRE_LOCAL + 1][FRAME_TYPES] = {
        [WIRE_STRANGER] = {[FRAME_GREET] = 1, [FRAME_WELCOME] = 1, [FRAME_REFUSE] = 1},
        [WIRE_CONTROL] = {[FRAME_STEP] = 1,        [FRAME_RESULT] = 1,  [FRAME_REPORT_ASK] = 1,
                          [FRAME_REPORT] = 1,      [FRAME_STOP] = 1,    [FRAME_ERROR] = 1,
                          [FRAME_REFUSE] = 1,      [FRAME_ROSTER] = 1,  [FRAME_ASSIGN] = 1,
                          [FRAME_LOAD] = 1,        [FRAME_DIAL] = 1,    [FRAME_LINK] = 1,
                          [FRAME_PHASE] = 1,       [FRAME_PING] = 1,    [FRAME_PONG] = 1,
                          [FRAME_LEAVE] = 1,       [FRAME_TRACE] = 1,   [FRAME_TRACE_ASK] = 1,
                          [FRAME_PROFILE_ASK] = 1, [FRAME_PROFILE] = 1, [FRAME_PROBE] = 1},
        [WIRE_STAGES] = {[FRAME_STEP] = 1,
                         [FRAME_RESULT] = 1,
                         [FRAME_PING] = 1,
                         [FRAME_PONG] = 1,
                         [FRAME_PROBE] = 1,
                         [FRAME_REFUSE] = 1},
        [WIRE_BULK] = {[FRAME_MANIFEST_ASK] = 1,
                       [FRAME_MANIFEST] = 1,
                       [FRAME_HAVE_ASK] = 1,
                       [FRAME_HAVE] = 1,
                       [FRAME_FETCH] = 1,
                       [FRAME_CHUNK] = 1,
                       [FRAME_PING] = 1,
                       [FRAME_PONG] = 1,
                       [FRAME_REFUSE] = 1},
        [WIRE_LOCAL] =
            {[FRAME_STEP] = 1, [FRAME_RESULT] = 1, [FRAME_ADMIN] = 1, [FRAME_REFUSE] = 1},
    };
    uint8_t head[FRAME_HEAD_BYTES];
    size_t total;

    (void)state;
    for (int trust = 0; trust <= WIRE_LOCAL; trust++)
        for (unsigned type = 0; type <= FRAME_TYPES; type++) {
            enum wire_trust t = (enum wire_trust)trust;
            bool may = type < FRAME_TYPES && allowed[trust][type];
            size_t max = wire_frame_max_for(type, t);

            make_head(head, type, FRAME_HEAD_BYTES, 0);
            assert_int_equal(frame_measure_for(head, sizeof head, t, &total, &et),
                             may ? ERR_NONE : ERR_PROTO);
            assert_int_equal(max > 0, may);
            assert_true(total == (may ? FRAME_HEAD_BYTES : 0));
            assert_int_equal(frame_measure_for(head, sizeof head - 1, t, &total, &et), ERR_NONE);
            if (!may)
                continue;
            assert_true(max <=
                        (trust == WIRE_STRANGER ? WIRE_STRANGER_FRAME_MAX : wire_frame_max(type)));
            make_head(head, type, max, wire_header_max(type));
            assert_int_equal(frame_measure_for(head, sizeof head, t, &total, &et), ERR_NONE);
            make_head(head, type, max + 1, wire_header_max(type));
            assert_int_equal(frame_measure_for(head, sizeof head, t, &total, &et), ERR_LIMIT);
        }
    assert_true(wire_frame_max_for(FRAME_PING, (enum wire_trust)(WIRE_LOCAL + 1)) == 0);
}

#define PEBIBYTE  ((uint64_t)1 << 50)
#define TWO_TO_31 ((uint64_t)1 << 31)

/* One field of a good message overridden. BYTES: value is their number, all of them fill. */
static void test_fields(void **state)
{
    static const struct {
        enum frame_type type;
        unsigned field, wire;
        uint64_t value;
        char fill;
        enum err e;
    } rows[] = {
        {FRAME_GREET, 1, VARINT, 0, 0, ERR_PROTO}, /* older than the oldest it speaks */
        {FRAME_GREET, 1, VARINT, UINT32_MAX, 0, ERR_PROTO},
        {FRAME_GREET, 1, VARINT, WIRE_VERSION + 1, 0, ERR_NONE},
        {FRAME_GREET, 2, VARINT, 0, 0, ERR_PROTO},
        {FRAME_GREET, 2, VARINT, WIRE_VERSION + 1, 0, ERR_PROTO},
        {FRAME_GREET, 3, VARINT, 0, 0, ERR_PROTO},
        {FRAME_GREET, 3, VARINT, WIRE_FOR_LOCAL, 0, ERR_NONE},
        {FRAME_GREET, 3, VARINT, WIRE_FOR_LOCAL + 1, 0, ERR_PROTO},
        {FRAME_GREET, 4, BYTES, 0, 'n', ERR_PROTO},
        {FRAME_GREET, 4, BYTES, WIRE_NAME_MAX - 1, 'n', ERR_NONE},
        {FRAME_GREET, 4, BYTES, WIRE_NAME_MAX, 'n', ERR_LIMIT},
        {FRAME_GREET, 4, BYTES, 3, 0, ERR_PROTO},
        {FRAME_GREET, 5, BYTES, 0, 0, ERR_NONE},
        {FRAME_GREET, 5, BYTES, 31, 0, ERR_PROTO},
        {FRAME_GREET, 5, BYTES, 33, 0, ERR_PROTO},
        {FRAME_GREET, 7, BYTES, WIRE_TEXT_MAX - 1, 'k', ERR_NONE},
        {FRAME_GREET, 7, BYTES, WIRE_TEXT_MAX, 'k', ERR_LIMIT},
        {FRAME_GREET, 7, BYTES, 1, 0, ERR_PROTO},
        {FRAME_GREET, 8, BYTES, WIRE_TEXT_MAX, 'k', ERR_LIMIT},
        {FRAME_GREET, 8, BYTES, 1, 0, ERR_PROTO},
        {FRAME_GREET, 9, VARINT, 4097, 0, ERR_PROTO},
        {FRAME_GREET, 9, VARINT, UINT32_MAX, 0, ERR_PROTO},
        {FRAME_GREET, 10, VARINT, PEBIBYTE + 1, 0, ERR_PROTO},
        {FRAME_GREET, 11, VARINT, PEBIBYTE + 1, 0, ERR_PROTO},
        {FRAME_GREET, 12, VARINT, UINT64_MAX, 0, ERR_PROTO},
        {FRAME_GREET, 13, VARINT, WIRE_PORT_MAX, 0, ERR_NONE},
        {FRAME_GREET, 13, VARINT, WIRE_PORT_MAX + 1, 0, ERR_PROTO},
        {FRAME_GREET, 15, VARINT, 0, 0, ERR_NONE},
        {FRAME_GREET, 15, VARINT, 1, 0, ERR_NONE},
        {FRAME_GREET, 15, VARINT, 100, 0, ERR_NONE},
        {FRAME_GREET, 15, VARINT, 101, 0, ERR_PROTO},
        {FRAME_GREET, 15, VARINT, UINT32_MAX, 0, ERR_PROTO},
        {FRAME_GREET, 16, VARINT, 0, 0, ERR_NONE},
        {FRAME_GREET, 16, VARINT, 2, 0, ERR_PROTO},
        {FRAME_WELCOME, 1, VARINT, 0, 0, ERR_PROTO},
        {FRAME_WELCOME, 1, VARINT, WIRE_VERSION + 1, 0, ERR_PROTO},
        {FRAME_WELCOME, 2, BYTES, WIRE_NAME_MAX, 'n', ERR_LIMIT},
        {FRAME_WELCOME, 2, BYTES, 1, 0, ERR_PROTO},
        {FRAME_WELCOME, 3, BYTES, WIRE_TEXT_MAX, 'n', ERR_LIMIT},
        {FRAME_WELCOME, 3, BYTES, 1, 0, ERR_PROTO},
        {FRAME_REFUSE, 1, VARINT, 0, 0, ERR_PROTO},
        {FRAME_REFUSE, 1, VARINT, 99, 0, ERR_NONE}, /* a code of a later version */
        {FRAME_REFUSE, 2, BYTES, ERR_TEXT_MAX - 1, 't', ERR_NONE},
        {FRAME_REFUSE, 2, BYTES, ERR_TEXT_MAX, 't', ERR_LIMIT},
        {FRAME_REFUSE, 2, BYTES, 1, 0, ERR_PROTO},
        {FRAME_ROSTER, 1, BYTES, 0, 0, ERR_PROTO},
        {FRAME_ROSTER, 1, BYTES, WIRE_ROSTER_BODY_MAX, 0, ERR_NONE},
        {FRAME_ROSTER, 1, BYTES, WIRE_ROSTER_BODY_MAX + 1, 0, ERR_LIMIT},
        {FRAME_ROSTER, 2, BYTES, 0, 0, ERR_PROTO},
        {FRAME_ROSTER, 2, BYTES, 63, 0, ERR_PROTO},
        {FRAME_ROSTER, 2, BYTES, 65, 0, ERR_PROTO},
        {FRAME_ASSIGN, 1, VARINT, 0, 0, ERR_PROTO},
        {FRAME_ASSIGN, 2, VARINT, 3, 0, ERR_PROTO},
        {FRAME_ASSIGN, 3, VARINT, 0, 0, ERR_PROTO},
        {FRAME_ASSIGN, 3, VARINT, 2, 0, ERR_PROTO}, /* its stages name device 2 */
        {FRAME_ASSIGN, 3, VARINT, WIRE_DEVICES_MAX + 1, 0, ERR_PROTO},
        {FRAME_ASSIGN, 4, BYTES, 0, 0, ERR_PROTO},
        {FRAME_ASSIGN, 4, BYTES, 33, 0, ERR_PROTO},
        {FRAME_ASSIGN, 5, VARINT, 0, 0, ERR_PROTO},
        {FRAME_ASSIGN, 5, VARINT, WIRE_SLOTS_MAX + 1, 0, ERR_PROTO},
        {FRAME_ASSIGN, 6, VARINT, 0, 0, ERR_PROTO},
        {FRAME_ASSIGN, 6, VARINT, TWO_TO_31, 0, ERR_PROTO},
        {FRAME_ASSIGN, 7, VARINT, 0, 0, ERR_PROTO},
        {FRAME_ASSIGN, 7, VARINT, WIRE_ROWS_MAX + 1, 0, ERR_PROTO},
        {FRAME_ASSIGN, 8, VARINT, 3, 0, ERR_PROTO},
        {FRAME_ASSIGN, 9, BYTES, 3, 1, ERR_PROTO}, /* one more stage, of modules [1, 1) */
        {FRAME_ASSIGN, 9, BYTES, 2, 1, ERR_PROTO},
        {FRAME_ASSIGN, 10, BYTES, 0, 0, ERR_PROTO}, /* a peer with nothing in it */
        {FRAME_LOAD, 1, VARINT, 0, 0, ERR_PROTO},
        {FRAME_DIAL, 1, VARINT, 0, 0, ERR_PROTO},
        {FRAME_DIAL, 2, VARINT, WIRE_DEVICES_MAX, 0, ERR_PROTO},
        {FRAME_DIAL, 3, VARINT, 0, 0, ERR_PROTO},
        {FRAME_DIAL, 3, VARINT, WIRE_DIAL_RELAY + 1, 0, ERR_PROTO},
        {FRAME_LINK, 1, VARINT, 0, 0, ERR_PROTO},
        {FRAME_LINK, 2, VARINT, WIRE_DEVICES_MAX, 0, ERR_PROTO},
        {FRAME_LINK, 3, VARINT, 0, 0, ERR_PROTO},
        {FRAME_LINK, 3, VARINT, WIRE_LINK_LOST + 1, 0, ERR_PROTO},
        {FRAME_LINK, 3, VARINT, WIRE_LINK_LOST, 0, ERR_PROTO}, /* lost, yet measured */
        {FRAME_LINK, 4, VARINT, 0, 0, ERR_NONE},
        {FRAME_LINK, 4, VARINT, INT64_MAX, 0, ERR_NONE},
        {FRAME_LINK, 4, VARINT, UINT64_MAX, 0, ERR_PROTO},
        {FRAME_LINK, 5, VARINT, PEBIBYTE, 0, ERR_NONE},
        {FRAME_LINK, 5, VARINT, PEBIBYTE + 1, 0, ERR_PROTO},
        {FRAME_LINK, 6, VARINT, PEBIBYTE + 1, 0, ERR_PROTO},
        {FRAME_PHASE, 1, VARINT, 0, 0, ERR_PROTO},
        {FRAME_PHASE, 2, VARINT, 0, 0, ERR_PROTO},
        {FRAME_PHASE, 2, VARINT, WIRE_PHASE_FAILED + 1, 0, ERR_PROTO},
        {FRAME_PHASE, 2, VARINT, WIRE_PHASE_READY, 0, ERR_PROTO}, /* with a code */
        {FRAME_PHASE, 3, VARINT, TWO_TO_31 << 3, 0, ERR_PROTO},   /* done > total */
        {FRAME_PHASE, 4, VARINT, PEBIBYTE + 1, 0, ERR_PROTO},
        {FRAME_PHASE, 5, VARINT, PEBIBYTE + 1, 0, ERR_PROTO},
        {FRAME_PHASE, 6, VARINT, PEBIBYTE + 1, 0, ERR_PROTO},
        {FRAME_PHASE, 7, VARINT, PEBIBYTE + 1, 0, ERR_PROTO},
        {FRAME_PHASE, 8, VARINT, PEBIBYTE + 1, 0, ERR_PROTO},
        {FRAME_PHASE, 9, VARINT, 0, 0, ERR_PROTO}, /* failed without a reason */
        {FRAME_PHASE, 9, VARINT, 99, 0, ERR_PROTO},
        {FRAME_PHASE, 10, BYTES, ERR_TEXT_MAX, 't', ERR_LIMIT},
        {FRAME_PHASE, 10, BYTES, 1, 0, ERR_PROTO},
        {FRAME_PING, 1, VARINT, UINT64_MAX, 0, ERR_PROTO},
        {FRAME_PONG, 1, VARINT, UINT64_MAX, 0, ERR_PROTO},
        {FRAME_PONG, 2, VARINT, UINT64_MAX, 0, ERR_PROTO},
        {FRAME_LEAVE, 1, BYTES, ERR_TEXT_MAX, 't', ERR_LIMIT},
        {FRAME_LEAVE, 1, BYTES, 1, 0, ERR_PROTO},
        {FRAME_TRACE_ASK, 1, VARINT, 2, 0, ERR_PROTO},
        {FRAME_TRACE, 1, VARINT, 1, 0, ERR_PROTO},
        {FRAME_TRACE, 1, VARINT, 3, 0, ERR_PROTO},
        {FRAME_TRACE, 1, VARINT, WIRE_TRACE_MAX + 1, 0, ERR_LIMIT},
        {FRAME_TRACE, 1, VARINT, UINT32_MAX, 0, ERR_LIMIT},
        {FRAME_MANIFEST_ASK, 1, BYTES, 0, 0, ERR_PROTO},
        {FRAME_MANIFEST_ASK, 1, BYTES, 31, 0, ERR_PROTO},
        {FRAME_MANIFEST, 1, BYTES, 33, 0, ERR_PROTO},
        {FRAME_HAVE_ASK, 1, BYTES, 31, 0, ERR_PROTO},
        {FRAME_HAVE, 1, BYTES, 33, 0, ERR_PROTO},
        {FRAME_HAVE, 2, VARINT, 10, 0, ERR_PROTO}, /* bit 10 is set */
        {FRAME_HAVE, 2, VARINT, 16, 0, ERR_NONE},
        {FRAME_HAVE, 2, VARINT, 17, 0, ERR_PROTO},
        {FRAME_HAVE, 2, VARINT, 8, 0, ERR_PROTO},
        {FRAME_HAVE, 2, VARINT, WIRE_PARTS_MAX + 1, 0, ERR_LIMIT},
        {FRAME_FETCH, 1, BYTES, 31, 0, ERR_PROTO},
        {FRAME_FETCH, 2, VARINT, WIRE_PARTS_MAX, 0, ERR_PROTO},
        {FRAME_FETCH, 3, VARINT, PEBIBYTE + 1, 0, ERR_PROTO},
        {FRAME_FETCH, 4, VARINT, 0, 0, ERR_PROTO},
        {FRAME_FETCH, 4, VARINT, WIRE_CHUNK_MAX + 1, 0, ERR_PROTO},
        {FRAME_CHUNK, 1, VARINT, WIRE_PARTS_MAX, 0, ERR_PROTO},
        {FRAME_CHUNK, 2, VARINT, PEBIBYTE + 1, 0, ERR_PROTO},
        {FRAME_CHUNK, 3, VARINT, 0, 0, ERR_PROTO}, /* neither bytes nor a reason */
        {FRAME_CHUNK, 3, VARINT, 99, 0, ERR_PROTO},
        {FRAME_CHUNK, 4, BYTES, ERR_TEXT_MAX, 't', ERR_LIMIT},
        {FRAME_CHUNK, 4, BYTES, 1, 0, ERR_PROTO},
        {FRAME_PROFILE_ASK, 1, BYTES, 31, 0, ERR_PROTO},
        {FRAME_PROFILE_ASK, 2, FIXED64, 0, 0, ERR_PROTO},
        {FRAME_PROFILE_ASK, 3, VARINT, 0, 0, ERR_PROTO},
        {FRAME_PROFILE_ASK, 3, VARINT, WIRE_CLASSES_MAX, 0, ERR_NONE},
        {FRAME_PROFILE_ASK, 3, VARINT, WIRE_CLASSES_MAX + 1, 0, ERR_PROTO},
        {FRAME_PROFILE_ASK, 3, VARINT, UINT32_MAX, 0, ERR_PROTO},
        {FRAME_PROFILE_ASK, 4, VARINT, 3, 0, ERR_PROTO},
        {FRAME_PROFILE, 1, FIXED64, 0, 0, ERR_PROTO},
        {FRAME_PROFILE, 2, VARINT, 3, 0, ERR_PROTO}, /* failed, and has costs */
        {FRAME_PROFILE, 2, VARINT, 99, 0, ERR_PROTO},
        {FRAME_PROFILE, 3, BYTES, 1, 't', ERR_PROTO}, /* why it has none, and it has */
        {FRAME_PROFILE, 4, VARINT, 0, 0, ERR_PROTO},
        {FRAME_PROFILE, 4, VARINT, 4096, 0, ERR_NONE},
        {FRAME_PROFILE, 4, VARINT, 4097, 0, ERR_PROTO},
        {FRAME_PROFILE, 4, VARINT, UINT32_MAX, 0, ERR_PROTO},
        {FRAME_PROFILE, 5, BYTES, 6, 1, ERR_PROTO}, /* one class more, not all of it */
        {FRAME_PROFILE, 5, BYTES, 7, 1, ERR_NONE},
        {FRAME_PROFILE, 5, BYTES, WIRE_COSTS * (WIRE_CLASSES_MAX - 4), 1, ERR_NONE},
        {FRAME_PROFILE, 5, BYTES, WIRE_COSTS * (WIRE_CLASSES_MAX - 3), 1, ERR_PROTO},
        {FRAME_PROBE, 1, VARINT, 0, 0, ERR_PROTO},
        {FRAME_PROBE, 1, VARINT, WIRE_PROBE_BURST_TOOK + 1, 0, ERR_PROTO},
        {FRAME_PROBE, 1, VARINT, WIRE_PROBE_ECHO, 0, ERR_PROTO}, /* with bytes and a time */
        {FRAME_PROBE, 1, VARINT, WIRE_PROBE_BURST, 0, ERR_PROTO},
        {FRAME_PROBE, 4, VARINT, PEBIBYTE, 0, ERR_NONE},
        {FRAME_PROBE, 4, VARINT, PEBIBYTE + 1, 0, ERR_PROTO},
        {FRAME_PROBE, 5, VARINT, INT64_MAX, 0, ERR_NONE},
        {FRAME_PROBE, 5, VARINT, UINT64_MAX, 0, ERR_PROTO},
    };
    static uint8_t bytes[WIRE_ROSTER_BODY_MAX + 1];

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        const struct cluster_kind *k = cluster_kind_of(rows[i].type);
        struct sent s;
        enum err e;

        memset(bytes, rows[i].fill, sizeof bytes);
        send_good(k, &s);
        e = receive_with(k, &s.f, rows[i].field, rows[i].wire, rows[i].value, bytes);
        if (e != rows[i].e)
            print_error("%s, field %u = %llu: %s\n", k->name, rows[i].field,
                        (unsigned long long)rows[i].value, et.text);
        assert_int_equal(e, rows[i].e);
        free(s.bytes);
    }
}

/* What hangs together within one message. */
static void test_payloads(void **state)
{
    union cluster_any m = {.chunk = {.part = 1, .bytes = (const uint8_t *)"abc", .len = 3}};
    struct sent s;

    (void)state;
    send_any(cluster_kind_of(FRAME_CHUNK), &m, &s);
    assert_true(says_the_same(cluster_kind_of(FRAME_CHUNK), &s.f, &s.f));
    assert_int_equal(receive_with(cluster_kind_of(FRAME_CHUNK), &s.f, 3, VARINT, 2, NULL),
                     ERR_PROTO); /* failed, and carries bytes */
    free(s.bytes);
    send_good(cluster_kind_of(FRAME_ADMIN), &s);
    s.f.payload_len = 0;
    assert_int_equal(receive(cluster_kind_of(FRAME_ADMIN), &s.f), ERR_PROTO);
    free(s.bytes);
    memset(&m, 0, sizeof m);
    send_any(cluster_kind_of(FRAME_HAVE), &m, &s); /* of a model it does not know */
    assert_int_equal(receive(cluster_kind_of(FRAME_HAVE), &s.f), ERR_NONE);
    free(s.bytes);
}

static const uint64_t day_ps = 86400ull * 1000000000000;

static void test_profile(void **state)
{
    const struct cluster_kind *k = cluster_kind_of(FRAME_PROFILE);
    static union cluster_any m;
    static struct wire_profile back;
    struct sent s;

    (void)state;
    memset(&m, 0, sizeof m);
    m.profile = (struct wire_profile){
        .classes = 9, .code = ERR_MEMORY, .text = {"no module fits"}, .n_threads = 2};
    send_any(k, &m, &s);
    assert_true(says_the_same(k, &s.f, &s.f));
    assert_int_equal(wire_profile_decode(&s.f, &back, &et), ERR_NONE);
    assert_true(back.code == ERR_MEMORY && back.n_classes == 0 && back.classes == 9);
    assert_string_equal(back.text.text, "no module fits");
    assert_int_equal(receive_with(k, &s.f, 2, VARINT, 0, NULL), ERR_PROTO); /* nor costs */
    assert_int_equal(receive_with(k, &s.f, 3, BYTES, 1, "\0"), ERR_PROTO);
    free(s.bytes);

    m.profile = (struct wire_profile){.classes = UINT64_MAX, .n_threads = 4096};
    m.profile.n_classes = WIRE_CLASSES_MAX; /* the fullest one */
    for (int i = 0; i < WIRE_CLASSES_MAX * WIRE_COSTS; i++)
        m.profile.cost_ps[i / WIRE_COSTS][i % WIRE_COSTS] = day_ps - 1;
    send_any(k, &m, &s);
    assert_true(says_the_same(k, &s.f, &s.f));
    assert_int_equal(wire_profile_decode(&s.f, &back, &et), ERR_NONE);
    assert_true(back.n_classes == WIRE_CLASSES_MAX && back.cost_ps[63][6] == day_ps - 1);
    free(s.bytes);
    for (int i = 0; i < WIRE_CLASSES_MAX * WIRE_COSTS; i += 37) {
        uint64_t *cost = &m.profile.cost_ps[i / WIRE_COSTS][i % WIRE_COSTS];

        *cost = i & 1 ? UINT64_MAX : day_ps;
        send_any(k, &m, &s);
        assert_int_equal(receive(k, &s.f), ERR_PROTO);
        free(s.bytes);
        *cost = 0;
    }
    send_any(k, &m, &s);
    assert_int_equal(receive(k, &s.f), ERR_NONE);
    free(s.bytes);
}

static void test_probe(void **state)
{
    const struct cluster_kind *k = cluster_kind_of(FRAME_PROBE);
    static const size_t lens[] = {0, 1, 1000, WIRE_PROBE_MAX};
    union cluster_any m;
    struct wire_probe back;
    struct sent s;

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(lens); i++) {
        memset(&m, 0, sizeof m);
        m.probe = (struct wire_probe){
            .kind = WIRE_PROBE_BURST, .number = 7, .left = 3, .payload_len = lens[i]};
        send_any(k, &m, &s);
        assert_true(says_the_same(k, &s.f, &s.f));
        assert_int_equal(wire_probe_decode(&s.f, &back, &et), ERR_NONE);
        assert_true(back.kind == WIRE_PROBE_BURST && back.number == 7 && back.left == 3);
        assert_true(back.payload_len == lens[i]);
        for (uint64_t kind = WIRE_PROBE_ECHO; kind <= WIRE_PROBE_BURST_TOOK; kind++)
            assert_int_equal(receive_with(k, &s.f, 1, VARINT, kind, NULL),
                             lens[i] && kind != WIRE_PROBE_BURST ? ERR_PROTO : ERR_NONE);
        free(s.bytes);
    }
}

static void test_cap_of_old(void **state)
{
    const struct cluster_kind *k = cluster_kind_of(FRAME_GREET);
    static const int caps[][2] = {{0, 100}, {1, 1}, {100, 100}};
    union cluster_any m;
    struct sent s;

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(caps); i++) {
        k->make(&m);
        m.greet.cap = caps[i][0];
        send_any(k, &m, &s);
        assert_int_equal(k->decode(&s.f, &m, &et), ERR_NONE);
        assert_int_equal(m.greet.cap, caps[i][1]);
        assert_true(m.greet.spare);
        free(s.bytes);
    }
}

static void test_versions(void **state)
{
    const struct cluster_kind *k = cluster_kind_of(FRAME_GREET);
    union cluster_any m;
    struct sent s;

    (void)state;
    k->make(&m);
    m.greet.version = WIRE_VERSION + 2;
    m.greet.version_min = WIRE_VERSION + 1;
    m.greet.purpose = (enum wire_purpose)77; /* who knows what that means there */
    send_any(k, &m, &s);
    assert_int_equal(k->decode(&s.f, &m, &et), ERR_UNSUPPORTED);
    assert_non_null(strstr(et.text, "versions 3 to 4"));
    assert_non_null(strstr(et.text, "update lingua on the other"));
    assert_int_equal(m.greet.version, WIRE_VERSION + 2);
    assert_int_equal(m.greet.purpose, 0);
    free(s.bytes);
}

/* Names and sentences end up on people's terminals. */
static void test_texts_are_printable(void **state)
{
    static const struct {
        const char *said, *shown;
    } rows[] = {
        {"plain, and ~", "plain, and ~"},
        {"\x1b[2J\x07\n\x7f", "?[2J???"},
        {"K\xc3\xbc"
         "che \xe2\x82\xac \xf0\x9f\x98\x80",
         "K\xc3\xbc"
         "che \xe2\x82\xac \xf0\x9f\x98\x80"},
        {"\xc2\x9b"
         "2J",
         "??2J"},                            /* a control character of two bytes */
        {"\xc2\xa0", "\xc2\xa0"},            /* the first that is none */
        {"\xc0\xaf \xe0\x80\xaf", "?? ???"}, /* overlong */
        {"\xed\xa0\x80", "???"},             /* a surrogate */
        {"\xf4\x8f\xbf\xbf \xf4\x90\x80\x80", "\xf4\x8f\xbf\xbf ????"}, /* the last, and past it */
        {"\xf8\x88\x80\x80\x80 \xff", "????? ?"},
        {"\xf0\x8f\xbf\xbf", "????"},
        {"\x80 \xe2\x82", "? ??"}, /* not begun, and cut off */
        {"\xe2(\xa1", "?(?"},
    };
    const struct cluster_kind *greet = cluster_kind_of(FRAME_GREET);
    const struct cluster_kind *refuse = cluster_kind_of(FRAME_REFUSE);
    struct sent g, r;
    union cluster_any m;

    (void)state;
    send_good(greet, &g);
    send_good(refuse, &r);
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        struct frame f = with_field(&g.f, 4, BYTES, strlen(rows[i].said), rows[i].said);

        assert_int_equal(greet->decode(&f, &m, &et), ERR_NONE);
        assert_string_equal(m.greet.name, rows[i].shown);
        free((void *)f.header);
        f = with_field(&r.f, 2, BYTES, strlen(rows[i].said), rows[i].said);
        assert_int_equal(refuse->decode(&f, &m, &et), ERR_NONE);
        assert_string_equal(m.refuse.text.text, rows[i].shown);
        free((void *)f.header);
    }
    free(g.bytes);
    free(r.bytes);
}

static void test_assign(void **state)
{
    const struct cluster_kind *k = cluster_kind_of(FRAME_ASSIGN);
    static union cluster_any m;
    struct wire_assign *a = &m.assign;
    const struct {
        int *field, value;
    } bad[] = {
        {&a->n_stages, 0},        {&a->stage[1].device, 3}, {&a->stage[1].first, 9},
        {&a->stage[1].first, 10}, {&a->stage[1].end, -1},   {&a->peer[0].device, 1},
        {&a->peer[0].device, 4},  {&a->peer[0].device, 2},  {&a->peer[0].device, -1},
    };
    struct sent s;

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
        k->make(&m);
        *bad[i].field = bad[i].value;
        send_any(k, &m, &s);
        assert_int_equal(receive(k, &s.f), ERR_PROTO);
        free(s.bytes);
    }
    k->make(&m);
    memcpy(a->peer[3].key, a->peer[0].key, WIRE_KEY_BYTES);
    send_any(k, &m, &s);
    assert_int_equal(receive(k, &s.f), ERR_PROTO);
    assert_non_null(strstr(et.text, "peer 3 is peer 0 again"));
    free(s.bytes);
    k->make(&m);
    a->peer[2].name[0] = '\0';
    send_any(k, &m, &s);
    assert_int_equal(receive(k, &s.f), ERR_PROTO);
    free(s.bytes);

    k->make(&m); /* the fullest one */
    a->epoch = UINT32_MAX;
    a->n_devices = WIRE_DEVICES_MAX;
    a->n_ctx = INT32_MAX;
    a->n_stages = WIRE_STAGES_MAX;
    for (int i = 0; i < WIRE_STAGES_MAX; i++)
        a->stage[i] = (struct wire_stage){WIRE_DEVICES_MAX - 1, INT32_MAX - 1, INT32_MAX};
    a->n_peers = WIRE_PEERS_MAX;
    for (int i = 0; i < WIRE_PEERS_MAX; i++) {
        a->peer[i].device = WIRE_DEVICES_MAX - (i & 1) * (i + 1);
        memset(a->peer[i].key, i, WIRE_KEY_BYTES);
        memset(a->peer[i].name, 'n', WIRE_NAME_MAX - 1);
        memset(a->peer[i].addresses, 'a', WIRE_ADDRESSES_MAX - 1);
    }
    send_any(k, &m, &s);
    assert_true(says_the_same(k, &s.f, &s.f));
    /* One peer or one stage more. */
    assert_int_equal(receive_with(k, &s.f, 10, BYTES, 0, ""), ERR_LIMIT);
    assert_int_equal(receive_with(k, &s.f, 9, BYTES, 3, "\0\0\1"), ERR_LIMIT);
    free(s.bytes);
}

static enum err receive_body(const struct wire_roster_body *m, struct wire_roster_body *back)
{
    static uint8_t bytes[WIRE_ROSTER_BODY_MAX];
    size_t len = wire_roster_body_encode(m, bytes);
    uint8_t *exact = malloc(len);
    enum err e;

    memcpy(exact, bytes, len);
    e = wire_roster_body_decode(exact, len, back, &et);
    free(exact);
    return e;
}

static void test_roster_body(void **state)
{
    static struct wire_roster_body m, back;
    static uint8_t bytes[WIRE_ROSTER_BODY_MAX], again[WIRE_ROSTER_BODY_MAX];
    size_t len;

    (void)state;
    make_roster_body(&m);
    len = wire_roster_body_encode(&m, bytes);
    assert_int_equal(wire_roster_body_decode(bytes, len, &back, &et), ERR_NONE);
    assert_true(back.version == 12 && back.n == 3);
    assert_memory_equal(back.head, m.head, WIRE_KEY_BYTES);
    assert_memory_equal(back.member[2].key, m.member[2].key, WIRE_KEY_BYTES);
    assert_string_equal(back.member[1].name, "kitchen pi");
    assert_true(back.member[0].mine && !back.member[1].mine && back.member[2].mine);
    for (size_t cut = 0; cut < len; cut++) { /* between two members it is a shorter roster */
        if (wire_roster_body_decode(bytes, cut, &back, &et) == ERR_NONE) {
            assert_int_equal(wire_roster_body_encode(&back, again), cut);
            assert_memory_equal(again, bytes, cut);
        }
    }
    assert_int_equal(wire_roster_body_decode(bytes, WIRE_ROSTER_BODY_MAX + 1, &back, &et),
                     ERR_LIMIT);

    memcpy(m.member[2].key, m.member[0].key, WIRE_KEY_BYTES);
    assert_int_equal(receive_body(&m, &back), ERR_PROTO);
    make_roster_body(&m);
    strcpy(m.member[0].name, m.member[1].name);
    assert_int_equal(receive_body(&m, &back), ERR_PROTO);
    strcpy(m.member[0].name, "a\x01");
    strcpy(m.member[1].name, "a\x02"); /* they look the same to people */
    assert_int_equal(receive_body(&m, &back), ERR_PROTO);
    m.member[0].name[0] = '\0';
    assert_int_equal(receive_body(&m, &back), ERR_PROTO);
    make_roster_body(&m);
    m.version = 0;
    assert_int_equal(receive_body(&m, &back), ERR_PROTO);

    m.version = UINT64_MAX; /* the fullest one */
    m.n = WIRE_MEMBERS_MAX;
    for (int i = 0; i < m.n; i++) {
        memset(m.member[i].key, i, WIRE_KEY_BYTES);
        memset(m.member[i].name, 'a' + i % 26, WIRE_NAME_MAX - 1);
        m.member[i].name[0] = (char)('0' + i);
        m.member[i].mine = true;
    }
    assert_int_equal(receive_body(&m, &back), ERR_NONE);
    len = wire_roster_body_encode(&m, bytes);
    memcpy(bytes + len, "\x1a\0", 2); /* one member more */
    assert_int_equal(wire_roster_body_decode(bytes, len + 2, &back, &et), ERR_LIMIT);
}

/* A thousand empty peers or unknown fields are small on the wire and large in memory. */
static void test_bombs(void **state)
{
    static const struct {
        enum frame_type type;
        unsigned field;
    } rows[] = {{FRAME_ASSIGN, 10},    {FRAME_ASSIGN, 1000}, {FRAME_PROFILE, 3},
                {FRAME_PROFILE, 1000}, {FRAME_GREET, 4},     {FRAME_GREET, 1000}};
    static uint8_t header[WIRE_BIG_HEADER_MAX];

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        struct frame f = {rows[i].type, header, 0, header, 0};

        while (f.header_len + 4 <= wire_header_max(rows[i].type)) {
            f.header_len += put_varint(header + f.header_len, rows[i].field << 3 | BYTES);
            header[f.header_len++] = 0;
        }
        assert_int_not_equal(receive(cluster_kind_of(rows[i].type), &f), ERR_NONE);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_round_trips),
        cmocka_unit_test(test_to_the_byte),
        cmocka_unit_test(test_every_truncation),
        cmocka_unit_test(test_trailing_bytes),
        cmocka_unit_test(test_unknown_fields),
        cmocka_unit_test(test_other_types),
        cmocka_unit_test(test_too_large),
        cmocka_unit_test(test_trust),
        cmocka_unit_test(test_fields),
        cmocka_unit_test(test_payloads),
        cmocka_unit_test(test_profile),
        cmocka_unit_test(test_probe),
        cmocka_unit_test(test_cap_of_old),
        cmocka_unit_test(test_versions),
        cmocka_unit_test(test_texts_are_printable),
        cmocka_unit_test(test_assign),
        cmocka_unit_test(test_roster_body),
        cmocka_unit_test(test_bombs),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
