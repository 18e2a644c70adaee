/* Thousands of clusters to whom anything may happen, in any order: devices come, go, come back,
 * fill up, fail; clients ask, rewind, copy, ask nonsense, vanish; the core is told things that are
 * out of place. The rules are in sim.c and sim_device.c; here stands what must be true at the end.
 *
 *     test_sim              SIM_SEEDS seeds (2000), or the one in SIM_SEED with its trace
 *     test_sim SEED         that one with its trace */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "sim.h"

enum { SEEDS = 2000, TURNS = 120 };

/* What all seeds met in all: a test that meets nothing proves nothing. */
static struct {
    uint64_t steps, failed, answers, good, stale, epochs, losses, over, lost, refused, cached;
} met;

static void jump(struct sim *s, uint64_t below_us)
{
    sim_run(s, sim_now(s) + (int64_t)sim_random(s, below_us));
}

/* ---- clients ---- */

static void ask_nonsense(struct sim *s, int client)
{
    struct sim_client *cl = sim_client(s, client);
    int slot = (int)sim_random(s, (uint64_t)cl->n_slots);
    struct slot_op op = {SLOT_OP_COPY, slot, slot, 0};

    switch (sim_random(s, 5)) {
    case 0: /* beyond the context */
        sim_ask_rows(s, client, NULL, 0, slot, SIM_CTX - 1, 2, true, true);
        return;
    case 1: /* a slot of somebody else's */
        sim_ask_rows(s, client, NULL, 0, cl->n_slots, 0, 1, true, true);
        return;
    case 2:
        sim_ask_rows(s, client, NULL, 0, slot, -1, 1, true, true);
        return;
    case 3:
        sim_ask_rows(s, client, &op, 1, slot, 0, 1, true, true);
        return;
    default: /* nothing */
        sim_ask_rows(s, client, NULL, 0, slot, 0, 0, false, true);
    }
}

static void ask_rows(struct sim *s, int client)
{
    struct sim_client *cl = sim_client(s, client);
    int slot = (int)sim_random(s, (uint64_t)cl->n_slots);
    int other = (int)sim_random(s, (uint64_t)cl->n_slots), pos = cl->len[slot], n_ops = 0, n;
    struct slot_op op = {0};
    uint64_t what = sim_random(s, 10);

    if (what == 0 && slot != other) { /* go on from a copy */
        pos = (int)sim_random(s, (uint64_t)cl->len[other] + 1);
        op = (struct slot_op){SLOT_OP_COPY, other, slot, pos};
        n_ops = 1;
    } else if (what == 1) { /* forget the end */
        pos = (int)sim_random(s, (uint64_t)pos + 1);
        op = (struct slot_op){SLOT_OP_TRUNCATE, slot, 0, pos};
        n_ops = 1;
    } else if (what == 2) { /* write over it */
        pos = (int)sim_random(s, (uint64_t)pos + 1);
    }
    n = 1 + (int)sim_random(s, SIM_ROWS);
    if (pos + n > SIM_CTX) {
        pos = 0;
        n_ops = 0;
    }
    if (n_ops && sim_random(s, 4) == 0)
        n = 0; /* the slot change alone */
    sim_ask_rows(s, client, &op, n_ops, slot, pos, n, sim_random(s, 2) == 0, false);
}

static void client_turn(struct sim *s)
{
    int i = (int)sim_random(s, SIM_CLIENTS);
    struct sim_client *cl = sim_client(s, i);

    if (!cl->open) {
        sim_open(s, i, 1 + (int)sim_random(s, SIM_CLIENT_SLOTS));
        return;
    }
    if (sim_random(s, 40) == 0) {
        met.answers += cl->n_answers;
        met.good += cl->n_good;
        met.stale += cl->n_stale;
        sim_close(s, i);
        return;
    }
    for (uint64_t n = 1 + sim_random(s, 4); n > 0 && cl->n_asks < SIM_OUTSTANDING - 1; n--) {
        if (sim_random(s, 30) == 0)
            ask_nonsense(s, i);
        else
            ask_rows(s, i);
    }
}

/* ---- streams ---- */

static void stream_turn(struct sim *s)
{
    int i = (int)sim_random(s, SIM_STREAMS);
    struct sim_stream *st = sim_stream(s, i), *like;
    struct sim_request r = {.after = -1};

    if (st->open) {
        if (sim_random(s, 3) == 0)
            sim_cancel(s, i);
        return;
    }
    met.cached += (uint64_t)st->n_cached;
    r.n_prompt = 1 + (int)sim_random(s, SIM_CTX - 1);
    r.n_more = (int)sim_random(s, (uint64_t)(SIM_CTX - r.n_prompt) + 1);
    r.flow = (int)sim_random(s, 4);
    r.hidden = sim_random(s, 6) == 0;
    r.fresh = sim_random(s, 8) == 0;
    r.like = (int)sim_random(s, SIM_STREAMS);
    like = sim_stream(s, r.like);
    r.n_like = (int)sim_random(s, (uint64_t)(r.n_prompt < like->n ? r.n_prompt : like->n) + 1);
    if (like->open && r.like != i && sim_random(s, 2))
        r.after = r.like;
    sim_request(s, i, &r);
}

/* Everybody who waited has been served, or was told why not. */
static void streams_end(struct sim *s)
{
    sim_run(s, sim_now(s) + 60 * INT64_C(1000000));
    for (int i = 0; i < SIM_STREAMS; i++) {
        struct sim_stream *st = sim_stream(s, i);

        if (st->open)
            sim_broken(s, "stream %d waits for ever, at %d of %d + %d", st->number, st->n,
                       st->n_prompt, st->n_more);
        met.over += st->n_over;
        met.lost += st->n_lost;
        met.refused += st->n_refused;
    }
    if (core_view(sim_core(s)).n_streams || core_view(sim_core(s)).n_waiting)
        sim_broken(s, "the core keeps streams that are over");
}

/* ---- devices, and words out of place ---- */

static void device_turn(struct sim *s)
{
    int i = (int)sim_random(s, SIM_DEVICES);
    struct sim_device *d = sim_device(s, i);

    switch (sim_random(s, 8)) {
    case 0:
        d->full_disk = !d->full_disk && sim_random(s, 3) == 0;
        return;
    case 1:
        d->bad_load = !d->bad_load && sim_random(s, 3) == 0;
        return;
    case 2:
        sim_drain(s, i);
        return;
    case 3:
        sim_event(s, &(struct core_event){.kind = CORE_CHANGED});
        return;
    case 4:
        met.losses += d->there;
        sim_down(s, i, (int64_t)sim_random(s, 1500000));
        return;
    default:
        sim_up(s, i);
    }
}

static void noise(struct sim *s)
{
    struct core_view v = core_view(sim_core(s));
    static const int32_t zero[1];
    static const uint8_t want[1];
    struct core_ask ask = {.number = 1, .n_rows = 1, .slot = zero, .pos = zero, .token = zero};
    struct core_event ev = {.member = (int)sim_random(s, 9),
                            .client = 1000,
                            .epoch = v.epoch + 1000,
                            .number = 100000,
                            .ticket = 1u << 30,
                            .ask = &ask};
    static const enum core_event_kind kinds[] = {
        CORE_HOME,  CORE_FETCHED, CORE_READY, CORE_FAILED, CORE_PLANNED,
        CORE_CLOSE, CORE_DOWN,    CORE_DRAIN, CORE_TOKEN,  CORE_END};

    ask.want = want;
    ev.kind = kinds[sim_random(s, sizeof kinds / sizeof kinds[0])];
    if (ev.kind == CORE_HOME && sim_random(s, 2))
        ev.epoch = v.epoch; /* of now, but nobody's */
    if (ev.kind == CORE_DOWN || ev.kind == CORE_DRAIN)
        ev.member = 77;
    sim_event(s, &ev);
}

/* ---- one cluster ---- */

/* Everybody is there and well: it must find back to work, and answer. */
static void recover(struct sim *s)
{
    struct sim_client *cl;
    struct core_view v;

    for (int i = 0; i < SIM_CLIENTS; i++)
        if (sim_client(s, i)->open)
            sim_run(s, sim_now(s) + 1000);
    for (int i = 0; i < SIM_DEVICES; i++) {
        sim_device(s, i)->full_disk = sim_device(s, i)->bad_load = false;
        sim_down(s, i, 0); /* so that no old failure keeps anyone out */
        sim_up(s, i);
    }
    sim_run(s, sim_now(s) + 90 * INT64_C(1000000));
    v = core_view(sim_core(s));
    if (v.state != CORE_RUNNING || v.text[0])
        sim_broken(s, "everybody is there, and the core is in state %d: %s", (int)v.state, v.text);
    if (v.n_flight != 0)
        sim_broken(s, "%d steps never came home", v.n_flight);
    for (int i = 0; i < SIM_CLIENTS; i++) {
        cl = sim_client(s, i);
        if (cl->open && cl->n_asks > 0)
            sim_broken(s, "client %d waits for ever for %d answers", cl->number, cl->n_asks);
        if (!cl->open)
            continue;
        for (int k = 0; k < cl->n_slots && cl->opened; k++)
            if (core_slot_len(sim_core(s), cl->number, k) > 0 && cl->len[k] == 0)
                continue; /* written by an ask on its way when the client was told */
            else if (core_slot_len(sim_core(s), cl->number, k) != cl->len[k])
                sim_broken(s, "client %d believes in %d positions of slot %d, the core in %d",
                           cl->number, cl->len[k], k, core_slot_len(sim_core(s), cl->number, k));
        met.answers += cl->n_answers;
        met.good += cl->n_good;
        met.stale += cl->n_stale;
        sim_close(s, i);
    }
    streams_end(s);
    if (core_view(sim_core(s)).n_slots_taken != 0)
        sim_broken(s, "%d slots leaked", core_view(sim_core(s)).n_slots_taken);
}

static void probe(struct sim *s)
{
    uint64_t failed = sim_n_failed(s);

    for (int i = 0; i < SIM_SLOTS / SIM_CLIENT_SLOTS; i++) /* every slot there is */
        sim_open(s, i, SIM_CLIENT_SLOTS);
    for (int i = 0; i < SIM_SLOTS / SIM_CLIENT_SLOTS; i++)
        for (int k = 0; k < SIM_CLIENT_SLOTS; k++)
            sim_feed(s, i, k, SIM_ROWS, true);
    sim_run(s, sim_now(s) + 10 * INT64_C(1000000));
    for (int i = 0; i < SIM_SLOTS / SIM_CLIENT_SLOTS; i++)
        if (sim_n_failed(s) == failed && sim_client(s, i)->n_good != SIM_CLIENT_SLOTS)
            sim_broken(s, "client %d of the calm after it all got %d answers", i,
                       (int)sim_client(s, i)->n_good);
}

static void run_seed(uint64_t seed, bool trace)
{
    struct sim_opts o = {.seed = seed, .trace = trace};
    struct sim *s;

    o.n_modules = 4 + (int)(seed % 9);
    o.output_home = seed / 9 % 2;
    o.hop_us = 200 + (int64_t)(seed * 37 % 3000);
    o.module_us = 100 + (int64_t)(seed * 53 % 900);
    o.fetch_us = 20000 + (int64_t)(seed * 71 % 400000);
    o.load_us = 5000 + (int64_t)(seed * 29 % 100000);
    o.plan_us = 1000 + (int64_t)(seed * 31 % 600000);
    o.client_us = (int64_t)(seed * 17 % 800);
    o.fail_steps = seed % 3 ? 0 : 25;
    o.n_queue = seed % 5 ? 0 : 3;
    o.row_us = (int64_t)(seed * 13 % 200);
    if (seed % 7 == 0)
        o.pace = (struct core_pace){.k = 1 + (int)(seed % 5),
                                    .step_s = {1, 1.6, 1.8, 2.5, 4},
                                    .read_s = {0.9, seed % 3 ? 1.8 : 1, seed % 3 ? 3.6 : 1.2, 2, 3},
                                    .row_s = 0.1,
                                    .position_s = seed % 2 ? 0.02 : 0,
                                    .depth = 8,
                                    .latency_s = seed % 2 ? 4 : 0};
    s = sim_new(&o);
    if (seed % 4 == 1) /* no two can hold it */
        for (int i = 0; i < SIM_DEVICES; i++)
            sim_device(s, i)->capacity = o.n_modules / 3 + 1;
    sim_up(s, 0);
    for (int turn = 0; turn < TURNS; turn++) {
        uint64_t what = sim_random(s, 20);

        if (what < 7)
            client_turn(s);
        else if (what < 13)
            stream_turn(s);
        else if (what < 17)
            device_turn(s);
        else if (what == 17)
            noise(s);
        else
            sim_run(s, sim_now(s) + (int64_t)sim_random(s, 3000000));
        jump(s, 4000);
    }
    recover(s);
    probe(s);
    met.steps += sim_n_steps(s);
    met.failed += sim_n_failed(s);
    met.epochs += core_view(sim_core(s)).epoch;
    if (trace)
        printf("%s", sim_trace(s));
    sim_free(s);
}

int main(int argc, char **argv)
{
    const char *one = argc > 1 ? argv[1] : getenv("SIM_SEED"), *many = getenv("SIM_SEEDS");
    uint64_t n = many ? strtoull(many, NULL, 10) : SEEDS;

    if (one) {
        run_seed(strtoull(one, NULL, 10), true);
        return 0;
    }
    for (uint64_t seed = 1; seed <= n; seed++)
        run_seed(seed, false);
    printf(
        "%llu seeds: %llu steps, %llu of them failed, %llu answers, %llu good, %llu times stale, "
        "%llu epochs, %llu losses; of streams %llu came to their end, %llu were lost, %llu "
        "refused; %llu positions were not read again\n",
        (unsigned long long)n, (unsigned long long)met.steps, (unsigned long long)met.failed,
        (unsigned long long)met.answers, (unsigned long long)met.good,
        (unsigned long long)met.stale, (unsigned long long)met.epochs,
        (unsigned long long)met.losses, (unsigned long long)met.over, (unsigned long long)met.lost,
        (unsigned long long)met.refused, (unsigned long long)met.cached);
    if (n < SEEDS)
        return 0;
    return met.steps > 20 * n && met.failed > n / 10 && met.good > 5 * n && met.stale > n &&
                   met.epochs > 3 * n && met.losses > n && met.over > 5 * n && met.lost > n / 4 &&
                   met.refused > n / 50 && met.cached > 5 * n
               ? 0
               : 1;
}
