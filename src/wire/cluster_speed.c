/* The messages of cluster.h that say how fast devices and links are. */
#include <string.h>

#include "base/check.h"
#include "cluster.pb-c.h"
#include "wire/cluster.h"
#include "wire/pb.h"

/* What takes a day is not worth planning with, and sums of such costs would overflow. */
#define DAY_PS ((uint64_t)86400 * 1000000000000)

/* ---- profiles ---- */

void wire_profile_ask_encode(const struct wire_profile_ask *m, struct wire_buf *buf,
                             struct frame_out *out)
{
    Lingua__Wire__ProfileAsk p = LINGUA__WIRE__PROFILE_ASK__INIT;

    p.model = pb_of(m->model, sizeof m->model);
    p.classes = m->classes;
    p.n_classes = (uint32_t)m->n_classes;
    p.kv = (uint32_t)m->kv;
    pb_finish_small(&p.base, FRAME_PROFILE_ASK, buf, out);
}

enum err wire_profile_ask_decode(const struct frame *f, struct wire_profile_ask *m,
                                 struct err_text *et)
{
    struct arena a;
    const Lingua__Wire__ProfileAsk *p =
        pb_open(f, FRAME_PROFILE_ASK, &lingua__wire__profile_ask__descriptor, &a, et);
    enum err e;

    if (!p)
        return ERR_PROTO;
    m->classes = p->classes;
    m->n_classes = (int)p->n_classes;
    m->kv = (int)p->kv;
    if (p->classes == 0 || !pb_fits(p->n_classes, 1, WIRE_CLASSES_MAX) || p->kv >= PB_KV_TYPES)
        e = err_set(et, ERR_PROTO, "profile_ask: %u classes with KV type %u", p->n_classes, p->kv);
    else
        e = pb_exact("profile_ask: model", &p->model, m->model, sizeof m->model, et);
    arena_fini(&a);
    return e;
}

void wire_profile_encode(const struct wire_profile *m, struct wire_buf *buf, struct frame_out *out)
{
    Lingua__Wire__Profile p = LINGUA__WIRE__PROFILE__INIT;
    uint64_t costs[WIRE_CLASSES_MAX * WIRE_COSTS];

    p.classes = m->classes;
    p.code = wire_code(m->code);
    p.n_threads = (uint32_t)m->n_threads;
    if (m->code) {
        p.text = pb_of_text(m->text.text, sizeof m->text.text);
    } else {
        CHECK(m->n_classes > 0 && m->n_classes <= WIRE_CLASSES_MAX);
        memcpy(costs, m->cost_ps, (size_t)m->n_classes * sizeof m->cost_ps[0]);
        p.costs = costs;
        p.n_costs = (size_t)(m->n_classes * WIRE_COSTS);
    }
    pb_finish_small(&p.base, FRAME_PROFILE, buf, out);
}

static enum err profile_costs(const Lingua__Wire__Profile *p, struct wire_profile *m,
                              struct err_text *et)
{
    if (p->text.len)
        return err_set(et, ERR_PROTO, "profile: costs, and why there are none");
    if (p->n_threads == 0 || p->n_costs % WIRE_COSTS ||
        !pb_fits(p->n_costs / WIRE_COSTS, 1, WIRE_CLASSES_MAX))
        return err_set(et, ERR_PROTO, "profile: %zu numbers of %u threads are no costs", p->n_costs,
                       p->n_threads);
    m->n_classes = (int)(p->n_costs / WIRE_COSTS);
    for (size_t i = 0; i < p->n_costs; i++) {
        if (p->costs[i] >= DAY_PS)
            return err_set(et, ERR_PROTO, "profile: class %zu takes a day", i / WIRE_COSTS);
        m->cost_ps[i / WIRE_COSTS][i % WIRE_COSTS] = p->costs[i];
    }
    return ERR_NONE;
}

static enum err profile_unpack(const Lingua__Wire__Profile *p, struct wire_profile *m,
                               struct err_text *et)
{
    int known;

    memset(m, 0, sizeof *m);
    m->code = wire_code_back(p->code, &known);
    if (p->classes == 0 || !known || p->n_threads > PB_THREADS_MAX)
        return err_set(et, ERR_PROTO, "profile: code %u, %u threads", p->code, p->n_threads);
    m->classes = p->classes;
    m->n_threads = (int)p->n_threads;
    if (m->code == ERR_NONE)
        return profile_costs(p, m, et);
    if (p->n_costs)
        return err_set(et, ERR_PROTO, "profile: costs with code %u", p->code);
    return pb_text("profile: text", &p->text, m->text.text, sizeof m->text.text, et);
}

enum err wire_profile_decode(const struct frame *f, struct wire_profile *m, struct err_text *et)
{
    struct arena a;
    const Lingua__Wire__Profile *p =
        pb_open(f, FRAME_PROFILE, &lingua__wire__profile__descriptor, &a, et);
    enum err e;

    if (!p)
        return ERR_PROTO;
    e = profile_unpack(p, m, et);
    arena_fini(&a);
    return e;
}

/* ---- probes ---- */

void wire_probe_encode(const struct wire_probe *m, struct wire_buf *buf, struct frame_out *out)
{
    static const uint8_t zeros[WIRE_PROBE_MAX];
    Lingua__Wire__Probe p = LINGUA__WIRE__PROBE__INIT;

    CHECK(m->payload_len <= (m->kind == WIRE_PROBE_BURST ? sizeof zeros : 0));
    p.kind = m->kind;
    p.number = m->number;
    p.left = m->left;
    p.bytes = m->bytes;
    p.took_us = m->took_us;
    out->n_payloads = 1;
    out->payload[0] = zeros;
    out->payload_len[0] = m->payload_len;
    pb_finish(&p.base, FRAME_PROBE, buf->bytes, sizeof buf->bytes, out);
}

/* What a burst carries is nobody's business: only how much it is. */
enum err wire_probe_decode(const struct frame *f, struct wire_probe *m, struct err_text *et)
{
    struct arena a;
    const Lingua__Wire__Probe *p =
        pb_open(f, FRAME_PROBE, &lingua__wire__probe__descriptor, &a, et);
    enum err e = ERR_NONE;

    if (!p)
        return ERR_PROTO;
    *m = (struct wire_probe){.kind = (enum wire_probe_kind)p->kind,
                             .number = p->number,
                             .left = p->left,
                             .bytes = p->bytes,
                             .took_us = p->took_us,
                             .payload_len = f->payload_len};
    if (!pb_fits(p->kind, WIRE_PROBE_ECHO, WIRE_PROBE_BURST_TOOK) || p->bytes > PB_BYTES_MAX ||
        p->took_us > INT64_MAX)
        e = err_set(et, ERR_PROTO, "probe: kind %u, %llu bytes in %llu us", p->kind,
                    (unsigned long long)p->bytes, (unsigned long long)p->took_us);
    else if ((f->payload_len && p->kind != WIRE_PROBE_BURST) ||
             ((p->bytes || p->took_us) && p->kind != WIRE_PROBE_BURST_TOOK))
        e = err_set(et, ERR_PROTO, "probe: kind %u with what another kind carries", p->kind);
    arena_fini(&a);
    return e;
}
