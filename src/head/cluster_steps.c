/* Steps and results on their way. */
#include <stdlib.h>
#include <string.h>

#include "base/check.h"
#include "base/mem.h"
#include "base/sys.h"
#include "head/cluster_impl.h"

/* The bytes of a whole frame, which lie in a row around what frame_decode gave. */
static const uint8_t *whole(const struct frame *f, size_t *len)
{
    const uint8_t *start = f->header - FRAME_HEAD_BYTES;

    *len = (size_t)(f->payload + f->payload_len - start);
    return start;
}

/* To the device of a stage of the running epoch, which is not this one. A device that has gone
 * swallows it: the core hears of that by CORE_DOWN. */
static struct link *link_to(struct cluster *c, int device)
{
    return c->member[c->running.member[device]].link;
}

void cluster_send_step(struct cluster *c, const struct step *s)
{
    int device = c->running.plan.stage[s->stage].device;
    struct frame_out f;

    cluster_answer_sent(c, s, clock_us());
    cluster_meter_send(c, s);
    step_encode(c->codec, s, &f);
    if (device != 0)
        cluster_count_hop(c, s->stage, f.total);
    if (device == 0) {
        uint8_t *bytes = mem_alloc(f.total);
        struct err_text et;

        frame_copy(&f, bytes);
        /* The core lets no more steps be under way than a worker's queue takes. */
        if (worker_step(c->worker, bytes, f.total, &et))
            log_say(&c->opts.log, "cluster", "%s", et.text);
        free(bytes);
    } else if (link_to(c, device)) {
        link_send(link_to(c, device), &f);
    }
}

/* Whether it has the rows that were asked for: whoever they are given to counts on that. */
static enum err check_result(const struct cluster *c, const struct result *r, struct err_text *et)
{
    const struct sent *s = &c->sent[r->number % SENT_MAX];
    const struct model_shape *shape = model_shape(c->model);

    if (s->number != r->number)
        return err_set(et, ERR_PROTO, "a result of step %llu, which is not under way",
                       (unsigned long long)r->number);
    if (r->code)
        return ERR_NONE;
    if (r->n_rows != s->n_want || (s->n_want && (r->kind == STEP_WANT_HIDDEN) != s->hidden))
        return err_set(et, ERR_PROTO, "a result of %d rows of kind %d, where %d%s were wanted",
                       r->n_rows, (int)r->kind, s->n_want, s->hidden ? " hidden states" : "");
    if (r->width != (r->kind == STEP_WANT_HIDDEN ? shape->n_embd : shape->n_vocab))
        return err_set(et, ERR_PROTO, "a result with %d numbers per row", r->width);
    return ERR_NONE;
}

static enum err take_result(struct cluster *c, int member, const struct frame *f,
                            struct err_text *et)
{
    const struct plan *p = &c->running.plan;
    struct core_event event = {.kind = CORE_HOME};
    struct result r;
    int64_t now = clock_us(); /* what follows is the head's work */
    enum err e = result_decode(c->codec, f, &r, et);

    if (e)
        return e;
    if (!c->running.number || r.epoch != c->running.number)
        return ERR_NONE; /* of an epoch that has ended */
    if (c->running.member[p->stage[p->n_stages - 1].device] != member)
        return err_set(et, ERR_PROTO, "a result from a device that does not hold `output`");
    e = check_result(c, &r, et);
    if (e)
        return e;
    if (member != 0)
        cluster_count_hop(c, p->n_stages, (size_t)f->header_len + f->payload_len);
    cluster_meter_home(c, r.number);
    cluster_answer_home(c, r.epoch, r.number, now);
    event.epoch = r.epoch;
    event.number = r.number;
    event.code = r.code;
    event.text = r.reason.text;
    c->home = &r;
    cluster_feed(c, &event);
    c->home = NULL;
    return ERR_NONE;
}

enum err cluster_take_step(struct member *m, const struct frame *f, struct err_text *et)
{
    struct cluster *c = m->cluster;
    size_t len;
    const uint8_t *bytes = whole(f, &len);
    struct step s;
    enum err e;
    int device;

    if (f->type == FRAME_RESULT)
        return take_result(c, m->id, f, et);
    e = step_decode(c->codec, f, &s, et);
    if (e || s.epoch != c->running.number)
        return e;
    if (s.stage < 1 || s.stage >= c->running.plan.n_stages ||
        c->running.member[c->running.plan.stage[s.stage - 1].device] != m->id)
        return err_set(et, ERR_PROTO, "a step for stage %d from a device that is not before it",
                       s.stage);
    device = c->running.plan.stage[s.stage].device;
    cluster_count_hop(c, s.stage, len);
    if (device == 0)
        return worker_step(c->worker, bytes, len, et);
    if (link_to(c, device))
        link_send_bytes(link_to(c, device), bytes, len);
    return ERR_NONE;
}

void cluster_worker_out(void *user, const struct worker_out *out)
{
    struct cluster *c = user;
    struct err_text et;
    struct frame f;

    if (out->epoch != c->running.number)
        return;
    if (out->to_stage < c->running.plan.n_stages) {
        cluster_count_hop(c, out->to_stage, out->len);
        if (link_to(c, out->to_device))
            link_send_bytes(link_to(c, out->to_device), out->bytes, out->len);
        return;
    }
    if (frame_decode(out->bytes, out->len, &f, &et) || take_result(c, 0, &f, &et))
        CHECK(!"our own worker's results are right");
}
