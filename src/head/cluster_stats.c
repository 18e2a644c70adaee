/* Sums and present figures, for metrics. */
#include <string.h>

#include "base/sys.h"
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

/* What devices say of themselves is asked for now and then, and there the next time. */
static void ask_reports(struct cluster *c)
{
    int64_t now = clock_us();

    worker_report(c->worker, &c->member[0].report);
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

/* The hop in front of a stage; n_stages: home. The head sees its own and those it passes on; of the
 * others it knows what their device reports to have sent, which has one stage. */
static void fill_hop(const struct cluster *c, int stage, struct cluster_stats *out)
{
    const struct epoch *e = &c->running;
    const struct plan *p = &e->plan;
    int from = stage > 0 ? e->member[p->stage[stage - 1].device] : 0;
    int to = stage < p->n_stages ? e->member[p->stage[stage].device] : 0;
    struct cluster_hop_stats *h = &out->hop[out->n_hops];

    if (from == to)
        return;
    *h = (struct cluster_hop_stats){.from = c->member[from].able.name,
                                    .to = c->member[to].able.name,
                                    .bytes = c->sums.hop[stage].bytes,
                                    .frames = c->sums.hop[stage].frames,
                                    .latency_s = latency_s(c, from, to)};
    if (!h->frames && from) {
        h->bytes = c->member[from].report.sent_bytes;
        h->frames = c->member[from].report.steps;
    }
    out->n_hops++;
}

void cluster_stats(struct cluster *c, struct cluster_stats *out)
{
    struct core_view v = core_view(c->core);

    memset(out, 0, sizeof *out);
    ask_reports(c);
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
        fill_hop(c, s, out);
}
