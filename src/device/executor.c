#include "device/executor.h"

#include <stdlib.h>
#include <string.h>

#include "base/check.h"
#include "base/mem.h"
#include "base/sys.h"

_Static_assert((int)WIRE_ROWS_MAX == (int)SEGMENT_ROWS_MAX,
               "any step a segment can run fits in a frame");
_Static_assert((int)WIRE_SLOTS_MAX == (int)SEGMENT_SLOTS_MAX, "any slot has a number on the wire");
_Static_assert((int)WIRE_TENSORS_MAX == (int)EDGES_MAX, "any cut fits in a frame");
_Static_assert((int)WIRE_STAGES_MAX == (int)PLAN_STAGES_MAX &&
                   (int)WIRE_DEVICES_MAX == (int)PLAN_DEVICES_MAX,
               "any plan fits in a config");

struct held {
    struct segment *segment;
    int stage;
    uint64_t next; /* step number this stage waits for */
};

struct executor {
    const struct model *model;
    struct plan plan;
    int n_held;
    struct held held[PLAN_PER_DEVICE_MAX];
    struct executor_stats stats;
};

enum err executor_open(const struct model *m, struct compute *c, const struct plan *p, int device,
                       const struct executor_opts *opts, struct executor **out, struct err_text *et)
{
    struct executor *x = mem_zalloc(1, sizeof *x);
    int stages[PLAN_PER_DEVICE_MAX];
    uint64_t total = plan_weight_bytes(p, m, device), done = 0, embed_bytes = 0;

    x->model = m;
    x->plan = *p;
    for (int i = 0, n = plan_stages(p, device, stages); i < n; i++) {
        const struct plan_stage *s = &p->stage[stages[i]];
        struct held *h = &x->held[i];
        enum err e = segment_open(m, c, s->first, s->end, &opts->segment, &h->segment, et);

        if (e) {
            executor_close(x);
            return e;
        }
        h->stage = stages[i];
        h->next = 1;
        x->n_held++;
        x->stats.weight_bytes += segment_weight_bytes(h->segment);
        if (embed_bytes)
            x->stats.weight_bytes -= segment_embed_bytes(h->segment);
        embed_bytes += segment_embed_bytes(h->segment);
        x->stats.kv_bytes += segment_kv_bytes(h->segment);
        for (int k = s->first; k < s->end; k++)
            done += model_module(m, k)->bytes;
        if (opts->progress)
            opts->progress(opts->user, done, total);
    }
    *out = x;
    return ERR_NONE;
}

void executor_close(struct executor *x)
{
    if (!x)
        return;
    for (int i = 0; i < x->n_held; i++)
        segment_close(x->held[i].segment);
    free(x);
}

static enum err check_inputs(const struct executor *x, const struct step *s, struct err_text *et)
{
    int width[EDGES_MAX], n = plan_inputs(&x->plan, x->model, s->stage, width);
    int first = x->plan.stage[s->stage].first;
    int rows = first > model_rows_shrink_at(x->model) ? s->n_want : s->n_rows;

    if (s->code || s->n_rows == 0)
        return ERR_NONE;
    if (s->in.n != n || (n && s->in.n_rows != rows))
        return err_set(et, ERR_PROTO, "step %llu: %d tensors of %d rows where %d of %d are due",
                       (unsigned long long)s->number, s->in.n, s->in.n_rows, n, rows);
    for (int i = 0; i < n; i++)
        if (s->in.width[i] != width[i])
            return err_set(et, ERR_PROTO, "step %llu: tensor of width %d where %d is due",
                           (unsigned long long)s->number, s->in.width[i], width[i]);
    if (first == 0 && !s->token)
        return err_set(et, ERR_PROTO, "step %llu: no tokens to embed",
                       (unsigned long long)s->number);
    return ERR_NONE;
}

static void fail(struct step *s, enum err code, const struct err_text *why)
{
    if (s->code) /* the first reason is the one that explains the others */
        return;
    s->code = code;
    s->reason = *why;
}

/* Every change is tried even when one before it failed: the later ones are the head's picture of
 * the slots, and it will empty those that went wrong. */
static void apply_ops(struct segment *seg, struct step *s)
{
    struct err_text why;

    for (int i = 0; i < s->n_ops; i++) {
        const struct slot_op *op = &s->ops[i];
        enum err e = op->kind == SLOT_OP_TRUNCATE
                         ? segment_slot_truncate(seg, op->slot, op->len, &why)
                         : segment_slot_copy(seg, op->slot, op->to, op->len, &why);

        if (e)
            fail(s, e, &why);
    }
}

static void run_rows(struct executor *x, struct held *h, struct step *s)
{
    struct batch b = {s->n_rows, s->slot, s->pos, s->token, s->want};
    struct tensors in = {s->in.n, s->in.n_rows, {0}, {NULL}}, out;
    int64_t start_us = clock_us();
    bool first_here = h == x->held;
    struct err_text why;
    uint64_t took_us;
    enum err e;

    for (int i = 0; i < s->in.n; i++) {
        in.width[i] = s->in.width[i];
        in.data[i] = s->in.data[i];
    }
    e = segment_run(h->segment, &b, s->in.n ? &in : NULL, &out, &why);
    if (e) {
        fail(s, e, &why);
        return;
    }
    s->in.n = out.n;
    s->in.n_rows = out.n_rows;
    for (int i = 0; i < out.n; i++) {
        s->in.width[i] = out.width[i];
        s->in.data[i] = out.data[i];
    }
    took_us = (uint64_t)(clock_us() - start_us);
    x->stats.compute_us += took_us;
    x->stats.steps += first_here;
    x->stats.rows += first_here ? (uint64_t)s->n_rows : 0;
    if (s->n_rows == 1) {
        x->stats.decode_steps += first_here;
        x->stats.decode_us += took_us;
    }
}

enum err executor_run(struct executor *x, struct step *s, struct err_text *et)
{
    struct held *h = NULL;
    enum err e;

    for (int i = 0; i < x->n_held; i++)
        if (x->held[i].stage == s->stage)
            h = &x->held[i];
    if (!h)
        return err_set(et, ERR_PROTO, "step %llu is for stage %d, which is not here",
                       (unsigned long long)s->number, s->stage);
    if (s->epoch != x->plan.epoch || s->number != h->next)
        return err_set(et, ERR_PROTO, "step %llu of epoch %u came where %llu of %u was due",
                       (unsigned long long)s->number, s->epoch, (unsigned long long)h->next,
                       x->plan.epoch);
    e = check_inputs(x, s, et);
    if (e)
        return e;
    h->next++;
    apply_ops(h->segment, s);
    if (!s->code && s->n_rows)
        run_rows(x, h, s);
    if (s->code || s->n_rows == 0)
        memset(&s->in, 0, sizeof s->in);
    s->token = NULL; /* only the first stage embeds */
    s->stage++;
    return ERR_NONE;
}

void executor_stats(const struct executor *x, struct executor_stats *out)
{
    *out = x->stats;
}
