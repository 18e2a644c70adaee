#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/check.h"
#include "sim_impl.h"

uint64_t hash_next(uint64_t before, int32_t token)
{
    uint64_t x = before ^ (uint64_t)(uint32_t)token * 0x9e3779b97f4a7c15;

    x = (x ^ x >> 29) * 0xbf58476d1ce4e5b9;
    return x ^ x >> 32;
}

int64_t hop_to_head(const struct sim *s, int device)
{
    return device == 0 ? 0 : s->opts.hop_us;
}

static void tell_core(struct sim *s, int device, enum core_event_kind kind, uint32_t epoch,
                      enum err code, const char *text)
{
    struct message m = {.kind = MESSAGE_CORE,
                        .event = {.kind = kind, .member = device, .epoch = epoch, .code = code}};

    snprintf(m.text, sizeof m.text, "%s", text ? text : "");
    post(s, hop_to_head(s, device), &m);
}

/* ---- epochs ---- */

void device_assign(struct sim *s, const struct message *m)
{
    struct sim_device *d = &s->devices[m->device];
    struct message done = {
        .kind = MESSAGE_FETCHED, .device = m->device, .life = d->life, .epoch = m->epoch};
    uint64_t need = 0;
    int n = 0;

    if (!d->there)
        return;
    d->assigned = m->epoch;
    d->next = m->plan;
    memcpy(d->next_members, m->members, sizeof d->next_members);
    for (int i = 0; i < m->plan.n_devices; i++)
        if (m->members[i] == m->device)
            d->next_index = i;
    for (int i = 0; i < d->next.n_stages; i++)
        for (int k = d->next.stage[i].first; k < d->next.stage[i].end; k++)
            if (d->next.stage[i].device == d->next_index)
                need |= (uint64_t)1 << k;
    for (int k = 0; k < 64; k++)
        n += need & ~d->has & (uint64_t)1 << k ? 1 : 0;
    done.number = need;
    post(s, n * s->opts.fetch_us, &done);
}

void device_fetched(struct sim *s, const struct message *m)
{
    struct sim_device *d = &s->devices[m->device];
    uint64_t missing = m->number & ~d->has;

    if (d->life != m->life || d->assigned != m->epoch)
        return;
    if (missing && d->full_disk) {
        char text[64];

        snprintf(text, sizeof text, "device %d: no space left on its disk", m->device);
        tell_core(s, m->device, CORE_FAILED, m->epoch, ERR_FILE, text);
        return;
    }
    for (int k = 0; k < 64; k++)
        d->n_shipped += missing & (uint64_t)1 << k ? 1 : 0;
    d->has |= missing;
    if (!d->mute)
        tell_core(s, m->device, CORE_FETCHED, m->epoch, ERR_NONE, NULL);
}

void device_load(struct sim *s, const struct message *m)
{
    struct sim_device *d = &s->devices[m->device];
    struct message done = {
        .kind = MESSAGE_LOADED, .device = m->device, .life = d->life, .epoch = m->epoch};

    if (!d->there || d->assigned != m->epoch)
        return;
    d->loaded = 0;
    post(s, s->opts.load_us, &done);
}

void device_loaded(struct sim *s, const struct message *m)
{
    struct sim_device *d = &s->devices[m->device];

    if (d->life != m->life || d->assigned != m->epoch)
        return;
    if (d->bad_load) {
        char text[64];

        snprintf(text, sizeof text, "device %d: no memory", m->device);
        tell_core(s, m->device, CORE_FAILED, m->epoch, ERR_MEMORY, text);
        return;
    }
    d->loaded = m->epoch;
    d->plan = d->next;
    d->index = d->next_index;
    memcpy(d->members, d->next_members, sizeof d->members);
    d->n_held = 0;
    d->busy_until = s->now_us;
    for (int i = 0; i < d->plan.n_stages; i++) {
        if (d->plan.stage[i].device != d->index)
            continue;
        memset(&d->held[d->n_held], 0, sizeof d->held[0]);
        d->held[d->n_held].stage = i;
        d->held[d->n_held++].next = 1;
    }
    if (!d->mute)
        tell_core(s, m->device, CORE_READY, m->epoch, ERR_NONE, NULL);
}

/* ---- steps ---- */

static void fail(struct sim_step *st, bool slipped, const char *why)
{
    if (st->code)
        return;
    st->code = ERR_MEMORY;
    st->slipped = slipped;
    snprintf(st->why.text, sizeof st->why.text, "%s", why);
}

static void run_ops(struct sim_stage *h, struct sim_step *st)
{
    for (int i = 0; i < st->n_ops; i++) {
        const struct slot_op *op = &st->ops[i];

        if (op->len > h->slot[op->slot].len)
            fail(st, true, "a slot change beyond the slot");
        else if (op->kind == SLOT_OP_TRUNCATE)
            h->slot[op->slot].len = op->len;
        else {
            h->slot[op->to] = h->slot[op->slot];
            h->slot[op->to].len = op->len;
        }
    }
}

/* Every run's tag is checked before any row is stored, as no row may be stored of a bad step. */
static bool rows_fit(const struct sim_stage *h, struct sim_step *st, uint64_t empty)
{
    int at = 0;

    for (int r = 0; r < st->n_rows; r++, at++) {
        const struct sim_slot *slot = &h->slot[st->slot[r]];
        int pos = st->pos[r];

        if (r > 0 && st->slot[r] == st->slot[r - 1] && pos == st->pos[r - 1] + 1)
            continue;
        if (pos > slot->len) {
            fail(st, true, "a gap");
            return false;
        }
        if (st->tag[at++] != (pos ? slot->tag[pos - 1] : empty)) {
            fail(st, true, "another prefix");
            return false;
        }
    }
    return true;
}

static void run_rows(struct sim *s, int device, struct sim_stage *h, struct sim_step *st)
{
    int at = 0;

    if (!rows_fit(h, st, s->tag_empty))
        return;
    if (s->opts.fail_steps && sim_random(s, (uint64_t)s->opts.fail_steps) == 0) {
        fail(st, false, "injected");
        return;
    }
    for (int r = 0; r < st->n_rows; r++, at++) {
        struct sim_slot *slot = &h->slot[st->slot[r]];
        int pos = st->pos[r];
        uint64_t hash = hash_next(pos ? slot->hash[pos - 1] : 1, st->token[r]);

        if (r == 0 || st->slot[r] != st->slot[r - 1])
            at++;
        if (st->stage == 0)
            st->hash[r] = hash;
        else if (hash != st->hash[r])
            sim_broken(s, "device %d computes step %llu on another prefix than stage 0", device,
                       (unsigned long long)st->number);
        slot->hash[pos] = hash;
        slot->tag[pos] = st->tag[at];
        slot->len = pos + 1;
    }
    if (at != st->n_tags)
        sim_broken(s, "step %llu has %d tags for %d", (unsigned long long)st->number, st->n_tags,
                   at);
}

void device_step(struct sim *s, struct message *m)
{
    struct sim_device *d = &s->devices[m->device];
    struct sim_step *st = m->step;
    struct sim_stage *h = NULL;
    struct message leave = {.kind = MESSAGE_LEAVE, .device = m->device, .life = d->life};
    int64_t took;

    if (!d->there || d->loaded != st->epoch)
        return;
    for (int i = 0; i < d->n_held; i++)
        if (d->held[i].stage == st->stage)
            h = &d->held[i];
    if (!h || st->number != h->next)
        sim_broken(s, "device %d: step %llu of stage %d where %llu is due", m->device,
                   (unsigned long long)st->number, st->stage,
                   (unsigned long long)(h ? h->next : 0));
    CHECK(h);
    h->next++;
    run_ops(h, st);
    if (!st->code && st->n_rows)
        run_rows(s, m->device, h, st);
    took = (d->plan.stage[st->stage].end - d->plan.stage[st->stage].first) *
           (s->opts.by_the_row
                ? st->n_rows * s->opts.module_us
                : s->opts.module_us + (st->n_rows > 4 ? st->n_rows - 4 : 0) * s->opts.row_us);
    if (d->busy_until < s->now_us)
        d->busy_until = s->now_us;
    d->busy_until += took;
    st->stage++;
    leave.step = st;
    m->step = NULL;
    post(s, d->busy_until - s->now_us, &leave);
}

void device_leave(struct sim *s, struct message *m)
{
    struct sim_device *d = &s->devices[m->device];
    struct sim_step *st = m->step;
    struct message next = {.kind = MESSAGE_STEP, .step = st};

    if (d->life != m->life || d->loaded != st->epoch)
        return;
    m->step = NULL;
    if (st->stage == d->plan.n_stages) {
        next.kind = MESSAGE_CORE;
        next.event = (struct core_event){
            .kind = CORE_HOME, .epoch = st->epoch, .number = st->number, .code = st->code};
        memcpy(next.text, st->why.text, sizeof next.text);
        post(s, hop_to_head(s, m->device), &next);
        return;
    }
    next.device = d->members[d->plan.stage[st->stage].device];
    post(s, s->opts.hop_us, &next);
}
