#include "device/executor.h"

#include <stdlib.h>
#include <string.h>

#include "base/check.h"
#include "base/mem.h"
#include "base/sys.h"

_Static_assert((int)WIRE_ROWS_MAX == (int)SEGMENT_ROWS_MAX,
               "any step a segment can run fits in a frame");
_Static_assert((int)WIRE_SLOTS_MAX == (int)SEGMENT_SLOTS_MAX, "any slot has a number on the wire");
_Static_assert((int)STEP_WANT_LOGITS == (int)ROW_LOGITS && (int)STEP_WANT_HIDDEN == (int)ROW_HIDDEN,
               "a step's wishes are a batch's");
_Static_assert((int)WIRE_TENSORS_MAX == (int)EDGES_MAX, "any cut fits in a frame");
_Static_assert((int)WIRE_STAGES_MAX == (int)PLAN_STAGES_MAX &&
                   (int)WIRE_DEVICES_MAX == (int)PLAN_DEVICES_MAX,
               "any plan fits in a config");

/* No head makes this one on purpose; should it come about, one step in 2^64 is failed for nothing.
 */
static const uint64_t TAG_UNKNOWN = 0;

struct held {
    struct segment *segment;
    int stage;
    uint64_t next; /* step number this stage waits for */
    uint64_t *tag; /* (n_slots, n_ctx), 0 = unknown; NULL until a step with tags comes */
};

struct executor {
    const struct model *model;
    struct plan plan;
    struct segment_opts segment;
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
    x->segment = opts->segment;
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
    for (int i = 0; i < x->n_held; i++) {
        segment_close(x->held[i].segment);
        free(x->held[i].tag);
    }
    free(x);
}

bool executor_restart(struct executor *x, const struct plan *p, int device,
                      const struct segment_opts *segment)
{
    int stages[PLAN_PER_DEVICE_MAX];
    const struct segment_opts *have = &x->segment;

    if (plan_stages(p, device, stages) != x->n_held || have->n_slots != segment->n_slots ||
        have->n_ctx != segment->n_ctx || have->n_rows_max != segment->n_rows_max ||
        have->kv != segment->kv)
        return false;
    for (int i = 0; i < x->n_held; i++) {
        const struct plan_stage *old = &x->plan.stage[x->held[i].stage];

        if (p->stage[stages[i]].first != old->first || p->stage[stages[i]].end != old->end)
            return false;
    }
    x->plan = *p;
    for (int i = 0; i < x->n_held; i++) {
        struct held *h = &x->held[i];

        h->stage = stages[i];
        h->next = 1;
        for (int slot = 0; slot < have->n_slots; slot++) {
            enum err e = segment_slot_truncate(h->segment, slot, 0, NULL);

            CHECK(!e);
        }
    }
    return true;
}

static bool run_begins(const struct step *s, int i)
{
    return i == 0 || s->slot[i] != s->slot[i - 1] || s->pos[i] != s->pos[i - 1] + 1;
}

static int n_tags_due(const struct step *s)
{
    int n = s->n_rows;

    for (int i = 0; i < s->n_rows; i++)
        n += run_begins(s, i);
    return n;
}

static enum err check_inputs(const struct executor *x, const struct step *s, struct err_text *et)
{
    int width[EDGES_MAX], n = plan_inputs(&x->plan, x->model, s->stage, width);
    int first = x->plan.stage[s->stage].first;
    int rows = first > model_rows_shrink_at(x->model) ? s->n_want : s->n_rows;

    if (s->tag && s->n_tags != n_tags_due(s))
        return err_set(et, ERR_PROTO, "step %llu: %d tags where %d are due",
                       (unsigned long long)s->number, s->n_tags, n_tags_due(s));
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

static uint64_t *tag_at(const struct executor *x, struct held *h, int slot, int pos)
{
    return h->tag + (size_t)slot * (size_t)x->segment.n_ctx + (size_t)pos;
}

/* Every change is tried even when one before it failed: the later ones are the head's picture of
 * the slots, and it will empty those that went wrong. */
static void apply_ops(struct executor *x, struct held *h, struct step *s)
{
    struct segment *seg = h->segment;
    struct err_text why;

    for (int i = 0; i < s->n_ops; i++) {
        const struct slot_op *op = &s->ops[i];
        enum err e = op->kind == SLOT_OP_TRUNCATE
                         ? segment_slot_truncate(seg, op->slot, op->len, &why)
                         : segment_slot_copy(seg, op->slot, op->to, op->len, &why);

        if (e)
            fail(s, e, &why);
        else if (op->kind == SLOT_OP_COPY && h->tag)
            memmove(tag_at(x, h, op->to, 0), tag_at(x, h, op->slot, 0),
                    (size_t)op->len * sizeof *h->tag);
    }
}

/* Whether row i has a place at all; where it has not, segment_run says so. */
static bool row_fits(const struct executor *x, const struct step *s, int i)
{
    return s->slot[i] >= 0 && s->slot[i] < x->segment.n_slots && s->pos[i] >= 0 &&
           s->pos[i] < x->segment.n_ctx;
}

/* What the rows leave in their slots is known no more. */
static void forget_tags(struct executor *x, struct held *h, const struct step *s)
{
    for (int i = 0; h->tag && i < s->n_rows; i++)
        if (row_fits(x, s, i))
            *tag_at(x, h, s->slot[i], s->pos[i]) = TAG_UNKNOWN;
}

/* Compares what each run stands on with what is there, and notes what the rows leave: in one walk,
 * because a run may stand on an earlier one of the same step. */
static void take_tags(struct executor *x, struct held *h, struct step *s)
{
    const uint64_t *tag = s->tag;
    struct err_text why;

    if (!h->tag)
        h->tag = mem_try((size_t)x->segment.n_slots * (size_t)x->segment.n_ctx, sizeof *h->tag);
    if (!h->tag) {
        (void)err_set(&why, ERR_MEMORY, "no memory for the tags of %d slots of %d positions",
                      x->segment.n_slots, x->segment.n_ctx);
        fail(s, ERR_MEMORY, &why);
        return;
    }
    for (int i = 0; i < s->n_rows; i++) {
        int slot = s->slot[i], pos = s->pos[i];

        if (!row_fits(x, s, i))
            return;
        if (run_begins(s, i)) {
            uint64_t before = *tag++;

            if (pos > 0 && *tag_at(x, h, slot, pos - 1) != before) {
                (void)err_set(&why, ERR_PROTO,
                              "slot %d does not hold what the step continues at position %d", slot,
                              pos);
                fail(s, ERR_PROTO, &why);
                return;
            }
        }
        *tag_at(x, h, slot, pos) = *tag++;
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
    apply_ops(x, h, s);
    if (!s->code && s->tag)
        take_tags(x, h, s);
    if (!s->code && s->n_rows)
        run_rows(x, h, s);
    if (s->code || !s->tag)
        forget_tags(x, h, s);
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
