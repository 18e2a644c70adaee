#include "wire/cluster.h"

#include <string.h>

#include "base/check.h"
#include "cluster.pb-c.h"
#include "wire/pb.h"

enum { STAGE_FIELDS = 3, CAP_ALL = 100 };

/* ---- opening a link ---- */

void wire_greet_encode(const struct wire_greet *m, struct wire_buf *buf, struct frame_out *out)
{
    Lingua__Wire__Greet p = LINGUA__WIRE__GREET__INIT;

    p.version = (uint32_t)m->version;
    p.version_min = (uint32_t)m->version_min;
    p.purpose = m->purpose;
    p.name = pb_of_text(m->name, sizeof m->name);
    if (m->has_proof)
        p.proof = pb_of(m->proof, sizeof m->proof);
    p.epoch = m->epoch;
    p.kernels = pb_of_text(m->kernels, sizeof m->kernels);
    p.kind = pb_of_text(m->kind, sizeof m->kind);
    p.n_threads = (uint32_t)m->n_threads;
    p.memory_bytes = m->memory_bytes;
    p.base_bytes = m->base_bytes;
    p.speed = m->speed;
    p.port = (uint32_t)m->port;
    p.roster = m->roster;
    CHECK(m->cap >= 0 && m->cap <= CAP_ALL);
    p.cap = m->cap == CAP_ALL ? 0 : (uint32_t)m->cap; /* the usual, which takes no bytes */
    p.spare = m->spare;
    pb_finish_small(&p.base, FRAME_GREET, buf, out);
}

/* Before anything else: a version we do not speak may mean something else by the rest. */
static enum err greet_versions(const Lingua__Wire__Greet *p, struct wire_greet *m,
                               struct err_text *et)
{
    if (!pb_fits(p->version_min, 1, p->version) || p->version > INT32_MAX)
        return err_set(et, ERR_PROTO, "greet: versions %u to %u", p->version_min, p->version);
    m->version = (int)p->version;
    m->version_min = (int)p->version_min;
    if (m->version < WIRE_VERSION_MIN || m->version_min > WIRE_VERSION)
        return err_set(et, ERR_UNSUPPORTED,
                       "the device that dials speaks protocol versions %d to %d, the other %d to "
                       "%d: update lingua on the %s",
                       m->version_min, m->version, WIRE_VERSION_MIN, WIRE_VERSION,
                       m->version < WIRE_VERSION_MIN ? "former" : "other");
    return ERR_NONE;
}

static enum err greet_numbers(const Lingua__Wire__Greet *p, struct wire_greet *m,
                              struct err_text *et)
{
    if (!pb_fits(p->purpose, WIRE_FOR_PAIR, WIRE_FOR_LOCAL))
        return err_set(et, ERR_PROTO, "greet: purpose %u", p->purpose);
    if (p->n_threads > PB_THREADS_MAX || p->port > WIRE_PORT_MAX)
        return err_set(et, ERR_PROTO, "greet: %u threads, port %u", p->n_threads, p->port);
    if (p->memory_bytes > PB_BYTES_MAX || p->base_bytes > PB_BYTES_MAX || p->speed > PB_BYTES_MAX)
        return err_set(et, ERR_PROTO, "greet: memory, base or speed beyond all measure");
    if (p->cap > CAP_ALL || p->spare > 1)
        return err_set(et, ERR_PROTO, "greet: busy for %u %% of the time, spare %u", p->cap,
                       p->spare);
    m->purpose = (enum wire_purpose)p->purpose;
    m->epoch = p->epoch;
    m->n_threads = (int)p->n_threads;
    m->memory_bytes = p->memory_bytes;
    m->base_bytes = p->base_bytes;
    m->speed = p->speed;
    m->port = (int)p->port;
    m->roster = p->roster;
    m->cap = p->cap ? (int)p->cap : CAP_ALL;
    m->spare = p->spare;
    return ERR_NONE;
}

enum err wire_greet_decode(const struct frame *f, struct wire_greet *m, struct err_text *et)
{
    struct arena a;
    const Lingua__Wire__Greet *p =
        pb_open(f, FRAME_GREET, &lingua__wire__greet__descriptor, &a, et);
    enum err e;

    memset(m, 0, sizeof *m);
    if (!p)
        return ERR_PROTO;
    e = greet_versions(p, m, et);
    if (!e)
        e = greet_numbers(p, m, et);
    if (!e)
        e = pb_name("greet: name", &p->name, m->name, sizeof m->name, et);
    if (!e)
        e = pb_text("greet: kernels", &p->kernels, m->kernels, sizeof m->kernels, et);
    if (!e)
        e = pb_text("greet: kind", &p->kind, m->kind, sizeof m->kind, et);
    m->has_proof = p->proof.len > 0;
    if (!e && m->has_proof)
        e = pb_exact("greet: proof", &p->proof, m->proof, sizeof m->proof, et);
    arena_fini(&a);
    return e;
}

void wire_welcome_encode(const struct wire_welcome *m, struct wire_buf *buf, struct frame_out *out)
{
    Lingua__Wire__Welcome p = LINGUA__WIRE__WELCOME__INIT;

    p.version = (uint32_t)m->version;
    p.name = pb_of_text(m->name, sizeof m->name);
    p.address = pb_of_text(m->address, sizeof m->address);
    pb_finish_small(&p.base, FRAME_WELCOME, buf, out);
}

enum err wire_welcome_decode(const struct frame *f, struct wire_welcome *m, struct err_text *et)
{
    struct arena a;
    const Lingua__Wire__Welcome *p =
        pb_open(f, FRAME_WELCOME, &lingua__wire__welcome__descriptor, &a, et);
    enum err e = ERR_NONE;

    if (!p)
        return ERR_PROTO;
    m->version = (int)p->version;
    if (!pb_fits(p->version, WIRE_VERSION_MIN, WIRE_VERSION))
        e = err_set(et, ERR_PROTO, "welcome: version %u was not offered", p->version);
    if (!e)
        e = pb_text("welcome: name", &p->name, m->name, sizeof m->name, et);
    if (!e)
        e = pb_text("welcome: address", &p->address, m->address, sizeof m->address, et);
    arena_fini(&a);
    return e;
}

void wire_refuse_encode(const struct wire_refuse *m, struct wire_buf *buf, struct frame_out *out)
{
    Lingua__Wire__Refuse p = LINGUA__WIRE__REFUSE__INIT;

    p.code = wire_code(m->code);
    p.text = pb_of_text(m->text.text, sizeof m->text.text);
    pb_finish_small(&p.base, FRAME_REFUSE, buf, out);
}

/* A newer peer may have codes that are news to us; its sentence is worth showing all the same. */
enum err wire_refuse_decode(const struct frame *f, struct wire_refuse *m, struct err_text *et)
{
    struct arena a;
    const Lingua__Wire__Refuse *p =
        pb_open(f, FRAME_REFUSE, &lingua__wire__refuse__descriptor, &a, et);
    enum err e;
    int known;

    if (!p)
        return ERR_PROTO;
    m->code = wire_code_back(p->code, &known);
    if (m->code == ERR_NONE)
        e = err_set(et, ERR_PROTO, "refuse: without a reason");
    else
        e = pb_text("refuse: text", &p->text, m->text.text, sizeof m->text.text, et);
    arena_fini(&a);
    return e;
}

/* ---- the plan ---- */

void wire_assign_encode(const struct wire_assign *m, struct wire_big_buf *buf,
                        struct frame_out *out)
{
    Lingua__Wire__Assign p = LINGUA__WIRE__ASSIGN__INIT;
    uint32_t stages[STAGE_FIELDS * WIRE_STAGES_MAX];
    Lingua__Wire__Peer peer[WIRE_PEERS_MAX], *peers[WIRE_PEERS_MAX];

    CHECK(m->n_stages <= WIRE_STAGES_MAX && m->n_peers <= WIRE_PEERS_MAX);
    p.epoch = m->epoch;
    p.device = (uint32_t)m->device;
    p.n_devices = (uint32_t)m->n_devices;
    p.model = pb_of(m->model, sizeof m->model);
    p.n_slots = (uint32_t)m->n_slots;
    p.n_ctx = (uint32_t)m->n_ctx;
    p.n_rows_max = (uint32_t)m->n_rows_max;
    p.kv = (uint32_t)m->kv;
    for (int i = 0; i < m->n_stages; i++) {
        stages[STAGE_FIELDS * i] = (uint32_t)m->stage[i].device;
        stages[STAGE_FIELDS * i + 1] = (uint32_t)m->stage[i].first;
        stages[STAGE_FIELDS * i + 2] = (uint32_t)m->stage[i].end;
    }
    p.stages = stages;
    p.n_stages = (size_t)(STAGE_FIELDS * m->n_stages);
    for (int i = 0; i < m->n_peers; i++) {
        const struct wire_peer *from = &m->peer[i];

        lingua__wire__peer__init(&peer[i]);
        peer[i].device = (uint32_t)from->device;
        peer[i].key = pb_of(from->key, sizeof from->key);
        peer[i].name = pb_of_text(from->name, sizeof from->name);
        peer[i].addresses = pb_of_text(from->addresses, sizeof from->addresses);
        peers[i] = &peer[i];
    }
    p.peers = peers;
    p.n_peers = (size_t)m->n_peers;
    out->n_payloads = 0;
    pb_finish(&p.base, FRAME_ASSIGN, buf->bytes, sizeof buf->bytes, out);
}

static enum err assign_stages(const Lingua__Wire__Assign *p, struct wire_assign *m,
                              struct err_text *et)
{
    if (p->n_stages % STAGE_FIELDS || p->n_stages == 0)
        return err_set(et, ERR_PROTO, "assign: %zu numbers are no stages", p->n_stages);
    if (p->n_stages / STAGE_FIELDS > WIRE_STAGES_MAX)
        return err_set(et, ERR_LIMIT, "assign: %zu stages, at most %d", p->n_stages / STAGE_FIELDS,
                       WIRE_STAGES_MAX);
    m->n_stages = (int)(p->n_stages / STAGE_FIELDS);
    for (int i = 0; i < m->n_stages; i++) {
        const uint32_t *s = p->stages + STAGE_FIELDS * i;

        if (s[0] >= p->n_devices || s[1] >= s[2] || s[2] > INT32_MAX)
            return err_set(et, ERR_PROTO, "assign: stage %d is [%u, %u) on device %u", i, s[1],
                           s[2], s[0]);
        m->stage[i] = (struct wire_stage){(int)s[0], (int)s[1], (int)s[2]};
    }
    return ERR_NONE;
}

/* Each peer is somebody else than this device and than the peers before it. */
static enum err assign_peer(const Lingua__Wire__Peer *p, struct wire_assign *m, struct err_text *et)
{
    struct wire_peer *to = &m->peer[m->n_peers];
    enum err e;

    if (p->device > (uint32_t)m->n_devices || p->device == (uint32_t)m->device)
        return err_set(et, ERR_PROTO, "assign: peer %u of %d devices, told to device %d", p->device,
                       m->n_devices, m->device);
    to->device = (int)p->device;
    e = pb_exact("assign: key", &p->key, to->key, sizeof to->key, et);
    if (!e)
        e = pb_name("assign: name", &p->name, to->name, sizeof to->name, et);
    if (!e)
        e = pb_text("assign: addresses", &p->addresses, to->addresses, sizeof to->addresses, et);
    if (e)
        return e;
    for (int i = 0; i < m->n_peers; i++)
        if ((m->peer[i].device == to->device && to->device < m->n_devices) ||
            !memcmp(m->peer[i].key, to->key, sizeof to->key))
            return err_set(et, ERR_PROTO, "assign: peer %d is peer %d again", m->n_peers, i);
    m->n_peers++;
    return ERR_NONE;
}

static enum err assign_unpack(const Lingua__Wire__Assign *p, struct wire_assign *m,
                              struct err_text *et)
{
    enum err e;

    if (p->epoch == 0 || !pb_fits(p->n_devices, 1, WIRE_DEVICES_MAX) || p->device >= p->n_devices)
        return err_set(et, ERR_PROTO, "assign: device %u of %u in epoch %u", p->device,
                       p->n_devices, p->epoch);
    if (!pb_fits(p->n_slots, 1, WIRE_SLOTS_MAX) || !pb_fits(p->n_ctx, 1, INT32_MAX) ||
        !pb_fits(p->n_rows_max, 1, WIRE_ROWS_MAX) || p->kv >= PB_KV_TYPES)
        return err_set(et, ERR_PROTO, "assign: %u slots, context %u, %u rows, KV type %u",
                       p->n_slots, p->n_ctx, p->n_rows_max, p->kv);
    if (p->n_peers > WIRE_PEERS_MAX)
        return err_set(et, ERR_LIMIT, "assign: %zu peers, at most %d", p->n_peers, WIRE_PEERS_MAX);
    m->epoch = p->epoch;
    m->device = (int)p->device;
    m->n_devices = (int)p->n_devices;
    m->n_slots = (int)p->n_slots;
    m->n_ctx = (int)p->n_ctx;
    m->n_rows_max = (int)p->n_rows_max;
    m->kv = (int)p->kv;
    e = pb_exact("assign: model", &p->model, m->model, sizeof m->model, et);
    if (!e)
        e = assign_stages(p, m, et);
    m->n_peers = 0;
    for (size_t i = 0; !e && i < p->n_peers; i++)
        e = assign_peer(p->peers[i], m, et);
    return e;
}

enum err wire_assign_decode(const struct frame *f, struct wire_assign *m, struct err_text *et)
{
    struct arena a;
    const Lingua__Wire__Assign *p =
        pb_open(f, FRAME_ASSIGN, &lingua__wire__assign__descriptor, &a, et);
    enum err e;

    if (!p)
        return ERR_PROTO;
    e = assign_unpack(p, m, et);
    arena_fini(&a);
    return e;
}

void wire_load_encode(const struct wire_load *m, struct wire_buf *buf, struct frame_out *out)
{
    Lingua__Wire__Load p = LINGUA__WIRE__LOAD__INIT;

    p.epoch = m->epoch;
    p.last_step = m->last_step;
    pb_finish_small(&p.base, FRAME_LOAD, buf, out);
}

enum err wire_load_decode(const struct frame *f, struct wire_load *m, struct err_text *et)
{
    struct arena a;
    const Lingua__Wire__Load *p = pb_open(f, FRAME_LOAD, &lingua__wire__load__descriptor, &a, et);
    enum err e = ERR_NONE;

    if (!p)
        return ERR_PROTO;
    *m = (struct wire_load){p->epoch, p->last_step};
    if (p->epoch == 0)
        e = err_set(et, ERR_PROTO, "load: epoch 0");
    arena_fini(&a);
    return e;
}

void wire_dial_encode(const struct wire_dial *m, struct wire_buf *buf, struct frame_out *out)
{
    Lingua__Wire__Dial p = LINGUA__WIRE__DIAL__INIT;

    p.epoch = m->epoch;
    p.device = (uint32_t)m->device;
    p.how = m->how;
    pb_finish_small(&p.base, FRAME_DIAL, buf, out);
}

enum err wire_dial_decode(const struct frame *f, struct wire_dial *m, struct err_text *et)
{
    struct arena a;
    const Lingua__Wire__Dial *p = pb_open(f, FRAME_DIAL, &lingua__wire__dial__descriptor, &a, et);
    enum err e = ERR_NONE;

    if (!p)
        return ERR_PROTO;
    *m = (struct wire_dial){p->epoch, (int)p->device, (enum wire_dial_how)p->how};
    if (p->epoch == 0 || p->device >= WIRE_DEVICES_MAX ||
        !pb_fits(p->how, WIRE_DIAL_OUT, WIRE_DIAL_RELAY))
        e = err_set(et, ERR_PROTO, "dial: device %u by way %u in epoch %u", p->device, p->how,
                    p->epoch);
    arena_fini(&a);
    return e;
}

void wire_link_encode(const struct wire_link_report *m, struct wire_buf *buf, struct frame_out *out)
{
    Lingua__Wire__Link p = LINGUA__WIRE__LINK__INIT;

    p.epoch = m->epoch;
    p.device = (uint32_t)m->device;
    p.state = m->state;
    p.rtt_us = m->rtt_us;
    p.out_bytes_per_s = m->out_bytes_per_s;
    p.in_bytes_per_s = m->in_bytes_per_s;
    pb_finish_small(&p.base, FRAME_LINK, buf, out);
}

enum err wire_link_decode(const struct frame *f, struct wire_link_report *m, struct err_text *et)
{
    struct arena a;
    const Lingua__Wire__Link *p = pb_open(f, FRAME_LINK, &lingua__wire__link__descriptor, &a, et);
    enum err e = ERR_NONE;

    if (!p)
        return ERR_PROTO;
    *m = (struct wire_link_report){.epoch = p->epoch,
                                   .device = (int)p->device,
                                   .state = (enum wire_link_state)p->state,
                                   .rtt_us = p->rtt_us,
                                   .out_bytes_per_s = p->out_bytes_per_s,
                                   .in_bytes_per_s = p->in_bytes_per_s};
    if (p->epoch == 0 || p->device >= WIRE_DEVICES_MAX ||
        !pb_fits(p->state, WIRE_LINK_DIRECT, WIRE_LINK_LOST))
        e = err_set(et, ERR_PROTO, "link: device %u in state %u in epoch %u", p->device, p->state,
                    p->epoch);
    else if (p->rtt_us > INT64_MAX || p->out_bytes_per_s > PB_BYTES_MAX ||
             p->in_bytes_per_s > PB_BYTES_MAX)
        e = err_set(et, ERR_PROTO, "link: times or rates beyond all measure");
    else if (p->state != WIRE_LINK_DIRECT && (p->rtt_us || p->out_bytes_per_s || p->in_bytes_per_s))
        e = err_set(et, ERR_PROTO, "link: state %u and how quick it is", p->state);
    arena_fini(&a);
    return e;
}

void wire_phase_encode(const struct wire_phase *m, struct wire_buf *buf, struct frame_out *out)
{
    Lingua__Wire__Phase p = LINGUA__WIRE__PHASE__INIT;

    p.epoch = m->epoch;
    p.phase = m->phase;
    p.done = m->done;
    p.total = m->total;
    p.received = m->received;
    p.weight_bytes = m->weight_bytes;
    p.kv_bytes = m->kv_bytes;
    p.resident_bytes = m->resident_bytes;
    p.code = wire_code(m->code);
    p.text = pb_of_text(m->text.text, sizeof m->text.text);
    pb_finish_small(&p.base, FRAME_PHASE, buf, out);
}

static enum err phase_check(const Lingua__Wire__Phase *p, struct err_text *et)
{
    int known;
    enum err code = wire_code_back(p->code, &known);

    if (p->epoch == 0 || !pb_fits(p->phase, WIRE_PHASE_FETCHING, WIRE_PHASE_FAILED))
        return err_set(et, ERR_PROTO, "phase: %u of epoch %u", p->phase, p->epoch);
    if (!known || (p->phase == WIRE_PHASE_FAILED) != (code != ERR_NONE))
        return err_set(et, ERR_PROTO, "phase: %u with code %u", p->phase, p->code);
    if (p->done > p->total || p->total > PB_BYTES_MAX || p->received > PB_BYTES_MAX ||
        p->weight_bytes > PB_BYTES_MAX || p->kv_bytes > PB_BYTES_MAX ||
        p->resident_bytes > PB_BYTES_MAX)
        return err_set(et, ERR_PROTO, "phase: bytes beyond all measure");
    return ERR_NONE;
}

enum err wire_phase_decode(const struct frame *f, struct wire_phase *m, struct err_text *et)
{
    struct arena a;
    const Lingua__Wire__Phase *p =
        pb_open(f, FRAME_PHASE, &lingua__wire__phase__descriptor, &a, et);
    enum err e;
    int known;

    if (!p)
        return ERR_PROTO;
    e = phase_check(p, et);
    if (!e) {
        m->epoch = p->epoch;
        m->phase = (enum wire_phase_kind)p->phase;
        m->done = p->done;
        m->total = p->total;
        m->received = p->received;
        m->weight_bytes = p->weight_bytes;
        m->kv_bytes = p->kv_bytes;
        m->resident_bytes = p->resident_bytes;
        m->code = wire_code_back(p->code, &known);
        e = pb_text("phase: text", &p->text, m->text.text, sizeof m->text.text, et);
    }
    arena_fini(&a);
    return e;
}

/* ---- being there ---- */

void wire_ping_encode(const struct wire_ping *m, struct wire_buf *buf, struct frame_out *out)
{
    Lingua__Wire__Ping p = LINGUA__WIRE__PING__INIT;

    p.sent_us = m->sent_us;
    pb_finish_small(&p.base, FRAME_PING, buf, out);
}

enum err wire_ping_decode(const struct frame *f, struct wire_ping *m, struct err_text *et)
{
    struct arena a;
    const Lingua__Wire__Ping *p = pb_open(f, FRAME_PING, &lingua__wire__ping__descriptor, &a, et);
    enum err e = ERR_NONE;

    if (!p)
        return ERR_PROTO;
    m->sent_us = p->sent_us;
    if (p->sent_us > INT64_MAX) /* clocks are signed */
        e = err_set(et, ERR_PROTO, "ping: no time");
    arena_fini(&a);
    return e;
}

void wire_pong_encode(const struct wire_pong *m, struct wire_buf *buf, struct frame_out *out)
{
    Lingua__Wire__Pong p = LINGUA__WIRE__PONG__INIT;

    p.sent_us = m->sent_us;
    p.clock_us = m->clock_us;
    pb_finish_small(&p.base, FRAME_PONG, buf, out);
}

enum err wire_pong_decode(const struct frame *f, struct wire_pong *m, struct err_text *et)
{
    struct arena a;
    const Lingua__Wire__Pong *p = pb_open(f, FRAME_PONG, &lingua__wire__pong__descriptor, &a, et);
    enum err e = ERR_NONE;

    if (!p)
        return ERR_PROTO;
    *m = (struct wire_pong){p->sent_us, p->clock_us};
    if (p->sent_us > INT64_MAX || p->clock_us > INT64_MAX)
        e = err_set(et, ERR_PROTO, "pong: no time");
    arena_fini(&a);
    return e;
}

void wire_leave_encode(const struct wire_leave *m, struct wire_buf *buf, struct frame_out *out)
{
    Lingua__Wire__Leave p = LINGUA__WIRE__LEAVE__INIT;

    p.text = pb_of_text(m->text.text, sizeof m->text.text);
    pb_finish_small(&p.base, FRAME_LEAVE, buf, out);
}

enum err wire_leave_decode(const struct frame *f, struct wire_leave *m, struct err_text *et)
{
    struct arena a;
    const Lingua__Wire__Leave *p =
        pb_open(f, FRAME_LEAVE, &lingua__wire__leave__descriptor, &a, et);
    enum err e;

    if (!p)
        return ERR_PROTO;
    e = pb_text("leave: text", &p->text, m->text.text, sizeof m->text.text, et);
    arena_fini(&a);
    return e;
}

void wire_trace_ask_encode(const struct wire_trace_ask *m, struct wire_buf *buf,
                           struct frame_out *out)
{
    Lingua__Wire__TraceAsk p = LINGUA__WIRE__TRACE_ASK__INIT;

    p.on = m->on;
    p.epoch = m->epoch;
    p.first = m->first;
    p.last = m->last;
    pb_finish_small(&p.base, FRAME_TRACE_ASK, buf, out);
}

enum err wire_trace_ask_decode(const struct frame *f, struct wire_trace_ask *m, struct err_text *et)
{
    struct arena a;
    const Lingua__Wire__TraceAsk *p =
        pb_open(f, FRAME_TRACE_ASK, &lingua__wire__trace_ask__descriptor, &a, et);
    enum err e = ERR_NONE;

    if (!p)
        return ERR_PROTO;
    *m = (struct wire_trace_ask){p->on != 0, p->epoch, p->first, p->last};
    if (p->on > 1)
        e = err_set(et, ERR_PROTO, "trace_ask: %u is neither on nor off", p->on);
    arena_fini(&a);
    return e;
}
