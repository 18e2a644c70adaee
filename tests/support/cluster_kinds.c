#include "support/cluster_kinds.h"

#include <stdlib.h>
#include <string.h>

#include "cluster.pb-c.h"

/* 32 bytes that differ from those of any other seed. */
static void key(uint8_t *out, int seed)
{
    for (int i = 0; i < WIRE_KEY_BYTES; i++)
        out[i] = (uint8_t)(seed + i);
}

static void make_greet(union cluster_any *m)
{
    m->greet = (struct wire_greet){
        .version = WIRE_VERSION,
        .version_min = WIRE_VERSION_MIN,
        .purpose = WIRE_FOR_MEMBER,
        .name = "kitchen pi",
        .has_proof = true,
        .epoch = 4,
        .kernels = "neon dotprod",
        .kind = "aarch64 Linux",
        .n_threads = 3,
        .memory_bytes = 1ull << 31,
        .base_bytes = 13 << 20,
        .speed = 5000000000,
        .port = 7333,
        .roster = 12,
        .cap = 60,
        .spare = true,
    };
    key(m->greet.proof, 7);
}

static void make_welcome(union cluster_any *m)
{
    m->welcome = (struct wire_welcome){WIRE_VERSION, "study", "192.168.1.7:40123"};
}

static void make_refuse(union cluster_any *m)
{
    m->refuse = (struct wire_refuse){ERR_INPUT, {"this device was revoked"}};
}

void make_roster_body(struct wire_roster_body *m)
{
    static const char *const names[] = {"study", "kitchen pi", u8"K\u00fcche"};

    memset(m, 0, sizeof *m);
    m->version = 12;
    key(m->head, 1);
    m->n = 3;
    for (int i = 0; i < m->n; i++) {
        key(m->member[i].key, 1 + i);
        strcpy(m->member[i].name, names[i]);
        m->member[i].mine = i != 1;
    }
}

static void make_roster(union cluster_any *m)
{
    static uint8_t bytes[WIRE_ROSTER_BODY_MAX];
    static const uint8_t signature[WIRE_SIGNATURE_BYTES] = {1, 2, 3};
    struct wire_roster_body body;

    make_roster_body(&body);
    m->roster = (struct wire_roster){
        .body = bytes,
        .signature = signature,
        .body_len = wire_roster_body_encode(&body, bytes),
        .signature_len = sizeof signature,
    };
}

static void make_assign(union cluster_any *m)
{
    m->assign = (struct wire_assign){
        .epoch = 5,
        .device = 1,
        .n_devices = 3,
        .n_slots = 8,
        .n_ctx = 4096,
        .n_rows_max = 256,
        .kv = 1,
        .n_stages = 4,
        .n_peers = 4,
        .stage = {{0, 0, 4}, {1, 4, 9}, {2, 9, 13}, {0, 13, 14}},
        .peer = {{0, {0}, "study", "192.168.1.2:7333 [fe80::1%wlan0]:7333"},
                 {2, {0}, "phone", ""},
                 {3, {0}, "attic", "10.0.0.9:7333"},
                 {3, {0}, "cellar", "10.0.0.8:7333"}},
    };
    key(m->assign.model, 90);
    for (int i = 0; i < m->assign.n_peers; i++)
        key(m->assign.peer[i].key, 20 + i);
}

static void make_load(union cluster_any *m)
{
    m->load = (struct wire_load){5, 1ull << 40};
}

static void make_dial(union cluster_any *m)
{
    m->dial = (struct wire_dial){5, 2, WIRE_DIAL_RELAY};
}

static void make_link(union cluster_any *m)
{
    m->link = (struct wire_link_report){5, 2, WIRE_LINK_DIRECT, 431, 1ull << 40, 12500000};
}

static void make_phase(union cluster_any *m)
{
    m->phase = (struct wire_phase){
        .epoch = 5,
        .phase = WIRE_PHASE_FAILED,
        .done = 100,
        .total = 1ull << 33,
        .received = 77,
        .weight_bytes = 78,
        .kv_bytes = 79,
        .resident_bytes = 80,
        .code = ERR_FILE,
        .text = {"No space left on device"},
    };
}

static void make_ping(union cluster_any *m)
{
    m->ping.sent_us = 1ull << 50;
}

static void make_pong(union cluster_any *m)
{
    m->pong = (struct wire_pong){1ull << 50, 123456};
}

static void make_leave(union cluster_any *m)
{
    m->leave = (struct wire_leave){{"stopped by its owner"}};
}

static void make_trace_ask(union cluster_any *m)
{
    m->trace_ask = (struct wire_trace_ask){true, 5, 17, 400};
}

static void make_trace(union cluster_any *m)
{
    static uint8_t bytes[2][WIRE_TRACE_BYTES];
    const struct wire_trace_record r = {1, 2, 3, 1000, 1001, 1010, UINT64_MAX};

    wire_trace_put(bytes[0], &r);
    wire_trace_put(bytes[1], &r);
    m->trace = (struct wire_trace){5, 2, bytes[0]};
}

static void make_manifest_ask(union cluster_any *m)
{
    key(m->manifest_ask.model, 90);
}

static void make_have_ask(union cluster_any *m)
{
    key(m->have_ask.model, 91);
}

static void make_manifest(union cluster_any *m)
{
    key(m->manifest.model, 90);
    m->manifest.bytes = (const uint8_t *)"LMF1 and so on";
    m->manifest.len = 14;
}

static void make_have(union cluster_any *m)
{
    static const uint8_t bits[] = {0xff, 0x05};

    key(m->have.model, 90);
    m->have.n_parts = 11;
    m->have.bits = bits;
}

static void make_fetch(union cluster_any *m)
{
    key(m->fetch.model, 90);
    m->fetch.part = 9;
    m->fetch.offset = 1ull << 35;
    m->fetch.length = WIRE_CHUNK_MAX;
}

/* One that failed: a good one has no code and no sentence. */
static void make_chunk(union cluster_any *m)
{
    m->chunk = (struct wire_chunk){
        .part = 9, .offset = 1ull << 35, .code = ERR_GONE, .text = {"not here any more"}};
}

static void make_admin(union cluster_any *m)
{
    m->admin = (struct wire_admin){3, "{\"do\":\"devices\"}", 16};
}

static void make_profile_ask(union cluster_any *m)
{
    key(m->profile_ask.model, 90);
    m->profile_ask.classes = 0xfedcba9876543210;
    m->profile_ask.n_classes = 4;
    m->profile_ask.kv = 1;
}

static void make_profile(union cluster_any *m)
{
    m->profile.classes = 0xfedcba9876543210;
    m->profile.n_threads = 3;
    m->profile.n_classes = 4;
    for (int i = 0; i < 4; i++)
        for (int k = 0; k < WIRE_COSTS; k++)
            m->profile.cost_ps[i][k] = 1ull << (12 * i + k);
}

static void make_probe(union cluster_any *m)
{
    m->probe = (struct wire_probe){.kind = WIRE_PROBE_BURST_TOOK,
                                   .number = UINT32_MAX,
                                   .left = 2,
                                   .bytes = 1 << 20,
                                   .took_us = 12345};
}

#define CODEC(field, buf_field)                                                                    \
    static void encode_##field(const union cluster_any *m, union cluster_buf *buf,                 \
                               struct frame_out *out)                                              \
    {                                                                                              \
        wire_##field##_encode(&m->field, &buf->buf_field, out);                                    \
    }                                                                                              \
    static enum err decode_##field(const struct frame *f, union cluster_any *m,                    \
                                   struct err_text *et)                                            \
    {                                                                                              \
        return wire_##field##_decode(f, &m->field, et);                                            \
    }

CODEC(greet, small)
CODEC(welcome, small)
CODEC(refuse, small)
CODEC(roster, big)
CODEC(assign, big)
CODEC(load, small)
CODEC(dial, small)
CODEC(link, small)
CODEC(phase, small)
CODEC(ping, small)
CODEC(pong, small)
CODEC(leave, small)
CODEC(trace_ask, small)
CODEC(trace, small)
CODEC(manifest, small)
CODEC(have, small)
CODEC(fetch, small)
CODEC(chunk, small)
CODEC(admin, small)
CODEC(profile_ask, small)
CODEC(profile, small)
CODEC(probe, small)

static void encode_manifest_ask(const union cluster_any *m, union cluster_buf *buf,
                                struct frame_out *out)
{
    wire_model_ask_encode(FRAME_MANIFEST_ASK, &m->manifest_ask, &buf->small, out);
}

static void encode_have_ask(const union cluster_any *m, union cluster_buf *buf,
                            struct frame_out *out)
{
    wire_model_ask_encode(FRAME_HAVE_ASK, &m->have_ask, &buf->small, out);
}

static enum err decode_manifest_ask(const struct frame *f, union cluster_any *m,
                                    struct err_text *et)
{
    return wire_model_ask_decode(f, &m->manifest_ask, et);
}

static enum err decode_have_ask(const struct frame *f, union cluster_any *m, struct err_text *et)
{
    return wire_model_ask_decode(f, &m->have_ask, et);
}

#define KIND(TYPE, field)                                                                          \
    {                                                                                              \
#field, FRAME_##TYPE, &lingua__wire__##field##__descriptor, make_##field, encode_##field,  \
            decode_##field                                                                         \
    }

const struct cluster_kind cluster_kinds[CLUSTER_KINDS] = {
    KIND(GREET, greet),
    KIND(WELCOME, welcome),
    KIND(REFUSE, refuse),
    KIND(ROSTER, roster),
    KIND(ASSIGN, assign),
    KIND(LOAD, load),
    KIND(DIAL, dial),
    KIND(LINK, link),
    KIND(PHASE, phase),
    KIND(PING, ping),
    KIND(PONG, pong),
    KIND(LEAVE, leave),
    KIND(TRACE_ASK, trace_ask),
    KIND(TRACE, trace),
    KIND(MANIFEST_ASK, manifest_ask),
    KIND(MANIFEST, manifest),
    KIND(HAVE_ASK, have_ask),
    KIND(HAVE, have),
    KIND(FETCH, fetch),
    KIND(CHUNK, chunk),
    KIND(ADMIN, admin),
    KIND(PROFILE_ASK, profile_ask),
    KIND(PROFILE, profile),
    KIND(PROBE, probe),
};

const struct cluster_kind *cluster_kind_of(enum frame_type type)
{
    for (int i = 0; i < CLUSTER_KINDS; i++)
        if (cluster_kinds[i].type == type)
            return &cluster_kinds[i];
    abort();
}
