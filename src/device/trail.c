#include "device/trail.h"

#include <stdlib.h>

#include "base/mem.h"

/* Packed, for phones are small: durations of more than an hour are kept as an hour. */
struct kept {
    uint64_t number;
    int64_t arrived_us;
    uint32_t epoch, wait_us, compute_us, send_us;
    uint16_t stage, rows;
};

struct trail {
    uint64_t n;    /* added in all; the newest WIRE_TRACE_MAX of them are there */
    uint64_t mark; /* of these, the first that trail_take gives */
    bool on;
    struct kept kept[WIRE_TRACE_MAX]; /* record i at i % WIRE_TRACE_MAX */
};

struct trail *trail_new(void)
{
    return mem_zalloc(1, sizeof(struct trail));
}

void trail_free(struct trail *t)
{
    free(t);
}

static uint32_t between(uint64_t from_us, uint64_t to_us)
{
    uint64_t us = to_us > from_us ? to_us - from_us : 0;

    return us > UINT32_MAX ? UINT32_MAX : (uint32_t)us;
}

void trail_add(struct trail *t, uint32_t epoch, const struct wire_trace_record *r)
{
    t->kept[t->n++ % WIRE_TRACE_MAX] = (struct kept){
        .number = r->number,
        .arrived_us = (int64_t)r->arrived_us,
        .epoch = epoch,
        .wait_us = between(r->arrived_us, r->begun_us),
        .compute_us = between(r->begun_us, r->ended_us),
        .send_us = between(r->ended_us, r->sent_us),
        .stage = (uint16_t)r->stage,
        .rows = (uint16_t)r->rows,
    };
}

static struct wire_trace_record unpack(const struct kept *k)
{
    struct wire_trace_record r = {.number = k->number,
                                  .stage = k->stage,
                                  .rows = k->rows,
                                  .arrived_us = (uint64_t)k->arrived_us};

    r.begun_us = r.arrived_us + k->wait_us;
    r.ended_us = r.begun_us + k->compute_us;
    r.sent_us = r.ended_us + k->send_us;
    return r;
}

static uint64_t oldest(const struct trail *t)
{
    return t->n > WIRE_TRACE_MAX ? t->n - WIRE_TRACE_MAX : 0;
}

void trail_mark(struct trail *t, bool on)
{
    t->on = on;
    t->mark = t->n;
}

int trail_take(struct trail *t, struct wire_trace_record *out)
{
    uint64_t from = t->mark > oldest(t) ? t->mark : oldest(t);
    int n = 0;

    for (uint64_t i = from; t->on && i < t->n; i++)
        out[n++] = unpack(&t->kept[i % WIRE_TRACE_MAX]);
    t->mark = t->n;
    return n;
}

int trail_look(const struct trail *t, uint32_t epoch, uint64_t first, uint64_t last,
               struct wire_trace_record *out)
{
    int n = 0;

    for (uint64_t i = oldest(t); i < t->n; i++) {
        const struct kept *k = &t->kept[i % WIRE_TRACE_MAX];

        if (k->epoch == epoch && k->number >= first && k->number <= last)
            out[n++] = unpack(k);
    }
    return n;
}
