#include "wire/message.h"

#include <string.h>

#include "base/check.h"
#include "base/mem.h"
#include "base/utf8.h"
#include "message.pb-c.h"
#include "wire/pb.h"

enum { STAGE_FIELDS = 3, LINK_FIELDS = 2, SEGMENT_FIELDS = 2, SEGMENTS_MAX = 2, SUM_FIELDS = 4 };
enum { TEMPERATURE_MAX = 1000000, PERCENT = 100 };

/* The numbers on the wire are written down here, so that reordering enum err changes no protocol.
 */
static const struct {
    enum err e;
    uint32_t code;
} codes[] = {
    {ERR_NONE, 0},  {ERR_INPUT, 1}, {ERR_FILE, 2},        {ERR_MEMORY, 3},    {ERR_LIMIT, 4},
    {ERR_PROTO, 5}, {ERR_GONE, 8},  {ERR_UNSUPPORTED, 6}, {ERR_CANCELLED, 7},
};

uint32_t wire_code(enum err e)
{
    for (size_t i = 0; i < ARRAY_LEN(codes); i++)
        if (codes[i].e == e)
            return codes[i].code;
    CHECK(!"an error without a code");
    return 0;
}

enum err wire_code_back(uint32_t code, int *known)
{
    *known = 1;
    for (size_t i = 0; i < ARRAY_LEN(codes); i++)
        if (codes[i].code == code)
            return codes[i].e;
    *known = 0;
    return ERR_PROTO;
}

void wire_text(struct err_text *out, const uint8_t *bytes, size_t len)
{
    if (len > sizeof out->text - 1)
        len = sizeof out->text - 1;
    utf8_clean(out->text, bytes, len);
}

void wire_config_encode(const struct wire_config *m, struct wire_buf *buf, struct frame_out *out)
{
    Lingua__Wire__Config p = LINGUA__WIRE__CONFIG__INIT;
    uint32_t stages[STAGE_FIELDS * WIRE_STAGES_MAX], links[LINK_FIELDS * WIRE_DEVICES_MAX];

    CHECK(m->n_stages <= WIRE_STAGES_MAX && m->n_links <= WIRE_DEVICES_MAX);
    p.version = (uint32_t)m->version;
    p.device = (uint32_t)m->device;
    p.n_devices = (uint32_t)m->n_devices;
    p.path.data = (uint8_t *)m->path;
    p.path.len = strlen(m->path);
    p.n_threads = (uint32_t)m->n_threads;
    p.n_slots = (uint32_t)m->n_slots;
    p.n_ctx = (uint32_t)m->n_ctx;
    p.n_rows_max = (uint32_t)m->n_rows_max;
    p.kv = (uint32_t)m->kv;
    p.epoch = m->epoch;
    for (int i = 0; i < m->n_stages; i++) {
        stages[STAGE_FIELDS * i] = (uint32_t)m->stage[i].device;
        stages[STAGE_FIELDS * i + 1] = (uint32_t)m->stage[i].first;
        stages[STAGE_FIELDS * i + 2] = (uint32_t)m->stage[i].end;
    }
    p.stages = stages;
    p.n_stages = (size_t)(STAGE_FIELDS * m->n_stages);
    for (int i = 0; i < m->n_links; i++) {
        links[LINK_FIELDS * i] = (uint32_t)m->link[i].device;
        links[LINK_FIELDS * i + 1] = (uint32_t)m->link[i].fd;
    }
    p.links = links;
    p.n_links = (size_t)(LINK_FIELDS * m->n_links);
    pb_finish_small(&p.base, FRAME_CONFIG, buf, out);
}

void wire_hello_encode(const struct wire_hello *m, struct wire_buf *buf, struct frame_out *out)
{
    Lingua__Wire__Hello p = LINGUA__WIRE__HELLO__INIT;

    p.version = (uint32_t)m->version;
    p.device = (uint32_t)m->device;
    pb_finish_small(&p.base, FRAME_HELLO, buf, out);
}

void wire_progress_encode(const struct wire_progress *m, struct wire_buf *buf,
                          struct frame_out *out)
{
    Lingua__Wire__Progress p = LINGUA__WIRE__PROGRESS__INIT;

    p.done = m->done;
    p.total = m->total;
    pb_finish_small(&p.base, FRAME_PROGRESS, buf, out);
}

void wire_ready_encode(const struct wire_ready *m, struct wire_buf *buf, struct frame_out *out)
{
    Lingua__Wire__Ready p = LINGUA__WIRE__READY__INIT;
    uint32_t modules[SEGMENT_FIELDS * SEGMENTS_MAX];

    CHECK(m->n_segments <= SEGMENTS_MAX);
    p.device = (uint32_t)m->device;
    for (int i = 0; i < m->n_segments; i++) {
        modules[SEGMENT_FIELDS * i] = (uint32_t)m->first[i];
        modules[SEGMENT_FIELDS * i + 1] = (uint32_t)m->end[i];
    }
    p.modules = modules;
    p.n_modules = (size_t)(SEGMENT_FIELDS * m->n_segments);
    p.weight_bytes = m->weight_bytes;
    p.kv_bytes = m->kv_bytes;
    pb_finish_small(&p.base, FRAME_READY, buf, out);
}

void wire_report_encode(const struct wire_report *m, struct wire_buf *buf, struct frame_out *out)
{
    Lingua__Wire__Report p = LINGUA__WIRE__REPORT__INIT;
    uint64_t stages[SUM_FIELDS * SEGMENTS_MAX];

    CHECK(pb_fits((uint64_t)m->temperature_mc, 0, TEMPERATURE_MAX) && m->battery_percent >= -1 &&
          m->battery_percent <= PERCENT);
    p.device = (uint32_t)m->device;
    p.n_threads = (uint32_t)m->n_threads;
    p.weight_bytes = m->weight_bytes;
    p.kv_bytes = m->kv_bytes;
    p.resident_bytes = m->resident_bytes;
    p.steps = m->steps;
    p.rows = m->rows;
    p.compute_us = m->compute_us;
    p.decode_steps = m->decode_steps;
    p.decode_us = m->decode_us;
    p.sent_bytes = m->sent_bytes;
    p.decode_sent_bytes = m->decode_sent_bytes;
    for (int i = 0; i < SEGMENTS_MAX; i++) {
        stages[SUM_FIELDS * i] = m->stage_steps[i];
        stages[SUM_FIELDS * i + 1] = m->arrived_us[i];
        stages[SUM_FIELDS * i + 2] = m->sent_us[i];
        stages[SUM_FIELDS * i + 3] = m->stage_us[i];
        if (m->stage_steps[i])
            p.n_stages = (size_t)(SUM_FIELDS * (i + 1));
    }
    p.stages = stages;
    p.memory_free = m->memory_free;
    p.storage_free = m->storage_free;
    p.temperature_mc = (uint32_t)m->temperature_mc;
    p.battery = (uint32_t)(m->battery_percent + 1);
    p.charging = m->charging;
    pb_finish_small(&p.base, FRAME_REPORT, buf, out);
}

void wire_error_encode(const struct wire_error *m, struct wire_buf *buf, struct frame_out *out)
{
    Lingua__Wire__Error p = LINGUA__WIRE__ERROR__INIT;

    p.code = wire_code(m->code);
    p.text.data = (uint8_t *)m->text.text;
    p.text.len = strlen(m->text.text);
    pb_finish_small(&p.base, FRAME_ERROR, buf, out);
}

void wire_empty_encode(enum frame_type type, struct wire_buf *buf, struct frame_out *out)
{
    CHECK(type == FRAME_STOP || type == FRAME_REPORT_ASK);
    out->n_payloads = 0;
    frame_finish(out, type, buf->bytes, 0);
}

static enum err config_stages(const Lingua__Wire__Config *p, struct wire_config *m,
                              struct err_text *et)
{
    if (p->n_stages % STAGE_FIELDS || p->n_stages == 0 ||
        p->n_stages / STAGE_FIELDS > WIRE_STAGES_MAX)
        return err_set(et, ERR_PROTO, "config: %zu numbers are no stages", p->n_stages);
    m->n_stages = (int)(p->n_stages / STAGE_FIELDS);
    for (int i = 0; i < m->n_stages; i++) {
        const uint32_t *s = p->stages + STAGE_FIELDS * i;

        if (s[0] >= p->n_devices || s[1] >= s[2] || s[2] > INT32_MAX)
            return err_set(et, ERR_PROTO, "config: stage %d is [%u, %u) on device %u", i, s[1],
                           s[2], s[0]);
        m->stage[i] = (struct wire_stage){(int)s[0], (int)s[1], (int)s[2]};
    }
    return ERR_NONE;
}

static enum err config_links(const Lingua__Wire__Config *p, struct wire_config *m,
                             struct err_text *et)
{
    if (p->n_links % LINK_FIELDS || p->n_links / LINK_FIELDS > WIRE_DEVICES_MAX)
        return err_set(et, ERR_PROTO, "config: %zu numbers are no links", p->n_links);
    m->n_links = (int)(p->n_links / LINK_FIELDS);
    for (int i = 0; i < m->n_links; i++) {
        const uint32_t *l = p->links + LINK_FIELDS * i;

        if (l[0] >= p->n_devices || l[0] == p->device || l[1] > INT32_MAX)
            return err_set(et, ERR_PROTO, "config: link %d to device %u", i, l[0]);
        m->link[i] = (struct wire_link){(int)l[0], (int)l[1]};
    }
    return ERR_NONE;
}

static enum err config_unpack(const Lingua__Wire__Config *p, struct wire_config *m,
                              struct err_text *et)
{
    enum err e;

    /* Before anything else: another version may mean something else by the rest. */
    if (p->version != WIRE_VERSION)
        return err_set(et, ERR_UNSUPPORTED, "the head speaks protocol version %u, this device %d",
                       p->version, WIRE_VERSION);
    if (!pb_fits(p->n_devices, 1, WIRE_DEVICES_MAX) || p->device >= p->n_devices)
        return err_set(et, ERR_PROTO, "config: device %u of %u", p->device, p->n_devices);
    if (p->path.len == 0 || p->path.len >= WIRE_PATH_MAX || memchr(p->path.data, 0, p->path.len))
        return err_set(et, ERR_PROTO, "config: path of %zu bytes", p->path.len);
    if (!pb_fits(p->n_threads, 1, 4096) || !pb_fits(p->n_slots, 1, WIRE_SLOTS_MAX) ||
        !pb_fits(p->n_ctx, 1, INT32_MAX) || !pb_fits(p->n_rows_max, 1, WIRE_ROWS_MAX) || p->kv > 2)
        return err_set(et, ERR_PROTO,
                       "config: %u threads, %u slots, context %u, %u rows, KV type %u",
                       p->n_threads, p->n_slots, p->n_ctx, p->n_rows_max, p->kv);
    m->version = (int)p->version;
    m->device = (int)p->device;
    m->n_devices = (int)p->n_devices;
    memcpy(m->path, p->path.data, p->path.len);
    m->path[p->path.len] = '\0';
    m->n_threads = (int)p->n_threads;
    m->n_slots = (int)p->n_slots;
    m->n_ctx = (int)p->n_ctx;
    m->n_rows_max = (int)p->n_rows_max;
    m->kv = (int)p->kv;
    m->epoch = p->epoch;
    e = config_stages(p, m, et);
    return e ? e : config_links(p, m, et);
}

enum err wire_config_decode(const struct frame *f, struct wire_config *m, struct err_text *et)
{
    struct arena a;
    const Lingua__Wire__Config *p =
        pb_open(f, FRAME_CONFIG, &lingua__wire__config__descriptor, &a, et);
    enum err e;

    if (!p)
        return ERR_PROTO;
    e = config_unpack(p, m, et);
    arena_fini(&a);
    return e;
}

enum err wire_hello_decode(const struct frame *f, struct wire_hello *m, struct err_text *et)
{
    struct arena a;
    const Lingua__Wire__Hello *h =
        pb_open(f, FRAME_HELLO, &lingua__wire__hello__descriptor, &a, et);
    enum err e = ERR_NONE;

    if (!h)
        return ERR_PROTO;
    if (h->version != WIRE_VERSION)
        e = err_set(et, ERR_UNSUPPORTED, "it speaks protocol version %u, this program %d",
                    h->version, WIRE_VERSION);
    else if (h->device >= WIRE_DEVICES_MAX)
        e = err_set(et, ERR_PROTO, "hello from device %u", h->device);
    *m = (struct wire_hello){(int)h->version, (int)h->device};
    arena_fini(&a);
    return e;
}

enum err wire_progress_decode(const struct frame *f, struct wire_progress *m, struct err_text *et)
{
    struct arena a;
    const Lingua__Wire__Progress *g =
        pb_open(f, FRAME_PROGRESS, &lingua__wire__progress__descriptor, &a, et);
    enum err e = ERR_NONE;

    if (!g)
        return ERR_PROTO;
    if (g->done > g->total)
        e = err_set(et, ERR_PROTO, "progress beyond its end");
    *m = (struct wire_progress){g->done, g->total};
    arena_fini(&a);
    return e;
}

enum err wire_ready_decode(const struct frame *f, struct wire_ready *m, struct err_text *et)
{
    struct arena a;
    const Lingua__Wire__Ready *r =
        pb_open(f, FRAME_READY, &lingua__wire__ready__descriptor, &a, et);
    enum err e = ERR_NONE;

    if (!r)
        return ERR_PROTO;
    if (r->device >= WIRE_DEVICES_MAX || r->n_modules == 0 || r->n_modules % SEGMENT_FIELDS ||
        r->n_modules > SEGMENT_FIELDS * SEGMENTS_MAX) {
        e = err_set(et, ERR_PROTO, "ready: device %u with %zu numbers of modules", r->device,
                    r->n_modules);
        goto out;
    }
    memset(m, 0, sizeof *m);
    m->device = (int)r->device;
    m->n_segments = (int)r->n_modules / SEGMENT_FIELDS;
    m->weight_bytes = r->weight_bytes;
    m->kv_bytes = r->kv_bytes;
    for (int i = 0; i < m->n_segments; i++) {
        uint32_t first = r->modules[SEGMENT_FIELDS * i], end = r->modules[SEGMENT_FIELDS * i + 1];

        if (first >= end || end > INT32_MAX) {
            e = err_set(et, ERR_PROTO, "ready: modules [%u, %u)", first, end);
            goto out;
        }
        m->first[i] = (int)first;
        m->end[i] = (int)end;
    }
out:
    arena_fini(&a);
    return e;
}

/* A stage that ran nothing has no sums. Sums themselves may be anything: they wrap. */
static enum err report_stages(const Lingua__Wire__Report *p, struct wire_report *m,
                              struct err_text *et)
{
    if (p->n_stages % SUM_FIELDS || p->n_stages > SUM_FIELDS * SEGMENTS_MAX)
        return err_set(et, ERR_PROTO, "report: %zu numbers are no stages", p->n_stages);
    for (size_t i = 0; i < p->n_stages / SUM_FIELDS; i++) {
        const uint64_t *s = p->stages + SUM_FIELDS * i;

        if (!s[0] && (s[1] || s[2] || s[3]))
            return err_set(et, ERR_PROTO, "report: times of no steps");
        m->stage_steps[i] = s[0];
        m->arrived_us[i] = s[1];
        m->sent_us[i] = s[2];
        m->stage_us[i] = s[3];
    }
    return ERR_NONE;
}

static enum err report_condition(const Lingua__Wire__Report *p, struct wire_report *m,
                                 struct err_text *et)
{
    if (p->memory_free > PB_BYTES_MAX || p->storage_free > PB_BYTES_MAX)
        return err_set(et, ERR_PROTO, "report: memory or storage beyond all measure");
    if (p->temperature_mc > TEMPERATURE_MAX || p->battery > PERCENT + 1 || p->charging > 1)
        return err_set(et, ERR_PROTO, "report: %u thousandths of a degree, battery %u, charging %u",
                       p->temperature_mc, p->battery, p->charging);
    m->memory_free = p->memory_free;
    m->storage_free = p->storage_free;
    m->temperature_mc = (int)p->temperature_mc;
    m->battery_percent = (int)p->battery - 1;
    m->charging = p->charging;
    return ERR_NONE;
}

enum err wire_report_decode(const struct frame *f, struct wire_report *m, struct err_text *et)
{
    struct arena a;
    const Lingua__Wire__Report *r =
        pb_open(f, FRAME_REPORT, &lingua__wire__report__descriptor, &a, et);
    enum err e = ERR_NONE;

    if (!r)
        return ERR_PROTO;
    if (r->device >= WIRE_DEVICES_MAX || r->n_threads > INT32_MAX)
        e = err_set(et, ERR_PROTO, "report: device %u, %u threads", r->device, r->n_threads);
    *m = (struct wire_report){
        .device = (int)r->device,
        .n_threads = (int)r->n_threads,
        .weight_bytes = r->weight_bytes,
        .kv_bytes = r->kv_bytes,
        .resident_bytes = r->resident_bytes,
        .steps = r->steps,
        .rows = r->rows,
        .compute_us = r->compute_us,
        .decode_steps = r->decode_steps,
        .decode_us = r->decode_us,
        .sent_bytes = r->sent_bytes,
        .decode_sent_bytes = r->decode_sent_bytes,
    };
    if (!e)
        e = report_stages(r, m, et);
    if (!e)
        e = report_condition(r, m, et);
    arena_fini(&a);
    return e;
}

enum err wire_error_decode(const struct frame *f, struct wire_error *m, struct err_text *et)
{
    struct arena a;
    const Lingua__Wire__Error *r =
        pb_open(f, FRAME_ERROR, &lingua__wire__error__descriptor, &a, et);
    enum err e = ERR_NONE;
    int known;

    if (!r)
        return ERR_PROTO;
    m->code = wire_code_back(r->code, &known);
    if (!known || m->code == ERR_NONE)
        e = err_set(et, ERR_PROTO, "error of unknown code %u", r->code);
    wire_text(&m->text, r->text.data, r->text.len);
    arena_fini(&a);
    return e;
}
