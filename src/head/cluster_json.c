/* The cluster as JSON, what remote.h describes: its devices. */
#include <string.h>

#include "base/check.h"
#include "base/sys.h"
#include "head/cluster_impl.h"

/* How far a member is: with the epoch that is being made ready, else with the one that runs. One
 * that was given up, because somebody else failed in it, is no matter any more. */
static const struct wire_phase *phase_of(const struct cluster *c, const struct member *m)
{
    uint32_t coming = core_view(c->core).coming;
    bool given_up = c->coming.number != coming || epoch_device(&c->coming, m->id) < 0;

    return given_up && epoch_device(&c->running, m->id) >= 0 ? &m->running : &m->phase;
}

static const char *member_state(const struct cluster *c, const struct member *m)
{
    bool has_part = epoch_device(&c->running, m->id) >= 0 || epoch_device(&c->coming, m->id) >= 0;
    const struct wire_phase *p = phase_of(c, m);

    if (m->id && !m->link)
        return *m->trouble ? "lost" : "offline";
    if (!m->up)
        return *m->trouble ? "failed" : "measuring";
    if (m->drained && epoch_device(&c->running, m->id) >= 0 &&
        core_view(c->core).state == CORE_RUNNING)
        return "draining"; /* until another plan runs */
    if (m->drained || !has_part)
        return p->phase == WIRE_PHASE_FAILED ? "failed" : "idle";
    switch (p->phase) {
    case WIRE_PHASE_FETCHING:
        return "fetching";
    case WIRE_PHASE_FETCHED:
    case WIRE_PHASE_LOADING:
        return "loading";
    case WIRE_PHASE_READY:
        return "ready";
    case WIRE_PHASE_FAILED:
        return "failed";
    }
    return "idle";
}

static void add_hop(const struct cluster *c, json_t *hops, int from, int to)
{
    const struct epoch *e = &c->running;
    int a = from < to ? from : to, b = from < to ? to : from;
    bool direct = a == 0 || e->pair[a][b] != PAIR_RELAY;

    json_array_append_new(hops, json_pack("{s:s, s:s}", "to", c->member[e->member[to]].able.name,
                                          "via", direct ? "direct" : "head"));
}

/* Where its stages send: to the next stage's device, or home. */
static json_t *hops_of(const struct cluster *c, const struct member *m)
{
    const struct epoch *e = &c->running;
    int device = epoch_device(e, m->id);
    json_t *hops = json_array();

    for (int s = 0; device >= 0 && s < e->plan.n_stages; s++) {
        bool last = s + 1 == e->plan.n_stages;
        int to = last ? 0 : e->plan.stage[s + 1].device;

        if (e->plan.stage[s].device == device && to != device)
            add_hop(c, hops, device, to);
    }
    return hops;
}

static void add_work(json_t *o, const struct wire_report *r)
{
    double decode_ms = 0, sent = 0;

    if (r->decode_steps) {
        decode_ms = (double)r->decode_us / 1000 / (double)r->decode_steps;
        sent = (double)r->decode_sent_bytes / (double)r->decode_steps;
    }
    json_set_u64(o, "resident_bytes", r->resident_bytes);
    json_set_u64(o, "weight_bytes", r->weight_bytes);
    json_set_u64(o, "kv_bytes", r->kv_bytes);
    json_set_u64(o, "steps", r->steps);
    json_set_u64(o, "rows", r->rows);
    json_object_set_new(o, "compute_ms", json_real((double)r->compute_us / 1000));
    json_object_set_new(o, "decode_ms", json_real(decode_ms));
    json_set_u64(o, "sent_bytes", r->sent_bytes);
    json_object_set_new(o, "sent_bytes_per_row", json_real(sent));
    json_set_u64(o, "memory_free_bytes", r->memory_free);
    json_set_u64(o, "storage_free_bytes", r->storage_free);
    if (r->temperature_mc > 0)
        json_object_set_new(o, "temperature_c", json_real(r->temperature_mc / 1000.0));
    if (r->battery_percent >= 0 && r->memory_free > 0) { /* else it has reported nothing yet */
        json_set_u64(o, "battery_percent", (uint64_t)r->battery_percent);
        json_object_set_new(o, "charging", json_boolean(r->charging));
    }
}

/* What a device of the plan computes per token; 0 when it is not known. */
static double predicted_s(const struct cluster *c, int device)
{
    const struct place_prediction *of = cluster_prediction(c);
    double sum = 0;

    for (int s = 0; of && device >= 0 && s < c->running.plan.n_stages; s++)
        if (c->running.plan.stage[s].device == device)
            sum += of->compute_s[s];
    return sum;
}

static json_t *member_json(const struct cluster *c, const struct member *m, bool mine)
{
    char key[KEY_ID_TEXT_MAX], modules[96] = "";
    int device = epoch_device(&c->running, m->id);
    const struct wire_phase *p = phase_of(c, m);
    json_t *o = json_object();

    if (device >= 0)
        plan_describe(&c->running.plan, c->model, device, modules, sizeof modules);
    json_set_text(o, "name", m->able.name);
    json_set_text(o, "key", key_id_short(&m->key, key));
    json_object_set_new(o, "head", json_boolean(m->id == 0));
    json_object_set_new(o, "mine", json_boolean(mine));
    json_object_set_new(o, "drained", json_boolean(m->drained));
    json_set_text(o, "state", member_state(c, m));
    json_set_text(o, "trouble", m->trouble);
    json_set_text(o, "modules", modules);
    json_set_text(o, "address", m->link ? link_peer_address(m->link) : "");
    json_set_text(o, "kind", m->able.kind);
    json_set_text(o, "kernels", m->able.kernels);
    json_set_u64(o, "threads", (uint64_t)m->able.n_threads);
    json_set_u64(o, "memory_bytes", m->able.memory_bytes);
    json_set_u64(o, "planned_bytes", m->planned_bytes);
    json_set_u64(o, "base_bytes", m->able.base_bytes);
    json_set_u64(o, "speed", m->able.speed);
    json_set_u64(o, "cap_percent", (uint64_t)m->able.cap);
    json_object_set_new(o, "spare", json_boolean(m->able.spare));
    json_object_set_new(o, "predicted_ms", json_real(1e3 * predicted_s(c, device)));
    json_set_u64(o, "received_bytes", p->received);
    json_set_u64(o, "done", p->done);
    json_set_u64(o, "total", p->total);
    json_object_set_new(o, "rtt_ms", json_real((double)m->rtt_us / 1000));
    json_set_u64(o, "out_bytes_per_s", m->out_bytes_per_s);
    json_set_u64(o, "in_bytes_per_s", m->in_bytes_per_s);
    json_set_text(o, "security",
                  m->id == 0 ? "this program"
                  : m->link  ? link_security(m->link)
                             : "");
    add_work(o, &m->report);
    json_object_set_new(o, "hops", hops_of(c, m));
    return o;
}

/* One of the roster that was not here since this head runs. */
static json_t *absent_json(const struct wire_member *w)
{
    struct key_id key;
    char shown[KEY_ID_TEXT_MAX];
    json_t *o = json_object();

    memcpy(key.bytes, w->key, sizeof key.bytes);
    json_set_text(o, "name", w->name);
    json_set_text(o, "key", key_id_short(&key, shown));
    json_object_set_new(o, "head", json_false());
    json_object_set_new(o, "mine", json_boolean(w->mine));
    json_set_text(o, "state", "offline");
    json_set_text(o, "modules", "");
    json_set_text(o, "trouble", "");
    return o;
}

static const struct member *seen(const struct cluster *c, const struct wire_member *w)
{
    for (int i = 0; i < c->n_members; i++)
        if (memcmp(c->member[i].key.bytes, w->key, sizeof w->key) == 0)
            return &c->member[i];
    return NULL;
}

static const char *state_name(enum core_state s)
{
    switch (s) {
    case CORE_ALONE:
        return "alone";
    case CORE_WANTING:
        return "waiting";
    case CORE_FETCHING:
        return "fetching";
    case CORE_LOADING:
        return "loading";
    case CORE_RUNNING:
        return "running";
    }
    return "?";
}

json_t *cluster_json(const struct cluster *c)
{
    const struct wire_roster_body *body = roster_body(c->roster);
    const struct model_shape *shape = model_shape(c->model);
    struct core_view view = core_view(c->core);
    json_t *o = json_object(), *devices = json_array(), *model = json_object();
    char address[ADDRESS_MAX];

    cluster_address(c, address);
    json_set_text(o, "head", c->name);
    json_set_text(o, "state", state_name(view.state));
    json_set_text(o, "waiting_for", view.text);
    json_set_text(o, "address", address);
    json_set_u64(o, "epoch", view.epoch);
    json_set_u64(o, "n_ctx", (uint64_t)c->segment.n_ctx);
    json_set_text(model, "name", shape->name);
    json_set_text(model, "alias", c->opts.alias ? c->opts.alias : shape->name);
    json_set_text(model, "arch", shape->arch);
    json_set_text(model, "quantisation", shape->type_name);
    json_set_text(model, "path", c->model_path);
    json_set_u64(model, "weight_bytes", shape->weight_bytes);
    json_set_u64(model, "n_modules", (uint64_t)model_n_modules(c->model));
    json_set_u64(model, "scratch_bytes", c->problem.scratch_bytes);
    json_set_u64(model, "scratch_output_bytes", c->problem.scratch_output_bytes);
    json_object_set_new(o, "model", model);
    for (int i = 0; i < body->n; i++) {
        const struct wire_member *w = &body->member[i];
        const struct member *m = seen(c, w);

        json_array_append_new(devices,
                              m ? member_json(c, m, w->mine || m->id == 0) : absent_json(w));
    }
    json_object_set_new(o, "devices", devices);
    cluster_chain_json(c, o);
    return o;
}

json_t *cluster_trace_record(int device, const struct wire_trace_record *r, int64_t offset_us)
{
    const uint64_t at[] = {r->arrived_us, r->begun_us, r->ended_us, r->sent_us};
    json_t *a = json_array();

    json_array_append_new(a, json_integer(device));
    json_array_append_new(a, json_integer((json_int_t)r->number));
    json_array_append_new(a, json_integer((json_int_t)r->stage));
    json_array_append_new(a, json_integer((json_int_t)r->rows));
    for (int i = 0; i < 4; i++)
        json_array_append_new(a, json_integer((json_int_t)at[i] - offset_us));
    return a;
}
