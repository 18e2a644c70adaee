/* Sums and present figures, for metrics. */
#include <string.h>

#include "base/sys.h"
#include "device/condition.h"
#include "head/cluster_impl.h"

enum { ASK_EVERY_US = 3000000 };

/* A counter of a device begins anew with what it loads. */
static uint64_t grown(uint64_t now, uint64_t then)
{
    return now >= then ? now - then : now;
}

void cluster_count_report(struct member *m)
{
    const struct wire_report *now = &m->report, *then = &m->counted;

    m->steps += grown(now->steps, then->steps);
    m->rows += grown(now->rows, then->rows);
    m->busy_us += grown(now->compute_us, then->compute_us);
    m->counted = *now;
}

void cluster_count_hop(struct cluster *c, int stage, size_t bytes)
{
    c->sums.hop[stage].bytes += bytes;
    c->sums.hop[stage].frames++;
}

void cluster_report_self(struct cluster *c)
{
    struct wire_report *r = &c->member[0].report;
    struct condition how;

    worker_report(c->worker, r);
    condition_read("/sys", c->state_folder, &how);
    r->memory_free = how.memory_free;
    r->storage_free = how.storage_free;
    r->temperature_mc = how.temperature_mc;
    r->battery_percent = how.battery_percent;
    r->charging = how.charging;
}

/* What devices say of themselves is asked for now and then, and there the next time. */
void cluster_refresh(struct cluster *c)
{
    int64_t now = clock_us();

    cluster_report_self(c);
    cluster_count_report(&c->member[0]);
    if (c->measure_until_us || (c->stats_asked_us && now - c->stats_asked_us < ASK_EVERY_US))
        return;
    c->stats_asked_us = now;
    cluster_ask_members(c);
}

static void fill_device(const struct member *m, struct cluster_device_stats *out)
{
    *out = (struct cluster_device_stats){.name = m->able.name,
                                         .up = m->up,
                                         .steps = m->steps,
                                         .rows = m->rows,
                                         .busy_s = (double)m->busy_us / 1e6,
                                         .memory_bytes = m->up ? m->report.resident_bytes : 0,
                                         .budget_bytes = m->able.memory_bytes};
}

static double latency_s(const struct cluster *c, int from, int to)
{
    uint64_t rtt_us =
        from && to ? c->speed[from][to].rtt_us : (uint64_t)c->member[from ? from : to].rtt_us;

    return (double)rtt_us / 2e6;
}

/* The head sees its own and those it passes on; of the others it knows what their device reports to
 * have sent, which has one stage. */
bool cluster_hop(const struct cluster *c, int stage, struct cluster_hop_stats *out)
{
    const struct epoch *e = &c->running;
    const struct plan *p = &e->plan;
    int from = stage > 0 ? e->member[p->stage[stage - 1].device] : 0;
    int to = stage < p->n_stages ? e->member[p->stage[stage].device] : 0;

    *out = (struct cluster_hop_stats){.from = c->member[from].able.name,
                                      .to = c->member[to].able.name};
    if (from == to)
        return false;
    out->bytes = c->sums.hop[stage].bytes;
    out->frames = c->sums.hop[stage].frames;
    out->latency_s = latency_s(c, from, to);
    if (!out->frames && from) {
        out->bytes = c->member[from].report.sent_bytes;
        out->frames = c->member[from].report.steps;
    }
    return true;
}

/* ---- what goes on now ---- */

void cluster_stats_tick(struct cluster *c, int64_t now_us)
{
    c->lately.moment[c->lately.at] =
        (struct cluster_moment){now_us, c->sums.rows_read, c->sums.rows_decoded};
    c->lately.at = (c->lately.at + 1) % CLUSTER_MOMENTS;
    if (!c->watches || c->measure_until_us ||
        now_us - c->stats_asked_us < (int64_t)CLUSTER_REPORT_MS * 1000)
        return;
    c->stats_asked_us = now_us;
    cluster_ask_members(c);
}

void cluster_lately(const struct cluster *c, double *read_per_s, double *decoded_per_s)
{
    int oldest = c->lately.moment[c->lately.at].us ? c->lately.at : 0; /* at first they are few */
    const struct cluster_moment *then = &c->lately.moment[oldest];
    double s = (double)(clock_us() - then->us) / 1e6;

    *read_per_s = *decoded_per_s = 0;
    if (!then->us || s <= 0)
        return;
    *read_per_s = (double)(c->sums.rows_read - then->rows_read) / s;
    *decoded_per_s = (double)(c->sums.rows_decoded - then->rows_decoded) / s;
}

/* ---- all of it ---- */

void cluster_stats(struct cluster *c, struct cluster_stats *out)
{
    struct core_view v = core_view(c->core);

    memset(out, 0, sizeof *out);
    cluster_refresh(c);
    out->running = v.state == CORE_RUNNING;
    out->epoch = v.epoch;
    out->n_streams = v.n_streams;
    out->n_waiting = v.n_waiting;
    out->n_flight = v.n_flight;
    for (int i = 0; i < c->segment.n_slots; i++) {
        struct cluster_slot slot;

        cluster_slot(c, i, &slot);
        out->n_slots_busy += slot.busy;
    }
    out->steps = c->sums.steps;
    out->rows_read = c->sums.rows_read;
    out->rows_decoded = c->sums.rows_decoded;
    out->epochs = c->sums.epochs;
    out->devices_lost = c->sums.devices_lost;
    cluster_token_times(c, &out->predicted_token_s, &out->measured_token_s);
    out->n_devices = c->n_members;
    for (int i = 0; i < c->n_members; i++)
        fill_device(&c->member[i], &out->device[i]);
    for (int s = 0; c->running.number && s <= c->running.plan.n_stages; s++)
        out->n_hops += cluster_hop(c, s, &out->hop[out->n_hops]);
}
