/* How the chain keeps its promises:
 *
 * Slots. The head has a picture of every slot's length and checks each call against it, so a stage
 * has no reason to refuse a step. Changes update the picture at once and travel in front of the
 * next step. Should a step fail all the same (a device out of memory), stages before the failure
 * have the step's rows and stages after it have not. The slots it touched are then emptied
 * everywhere: the one length that every stage agrees on whatever happened, also to the steps
 * already behind it.
 *
 * Flow. A step is sent when fewer than FLIGHT_PER_STAGE steps per stage are under way and what was
 * sent before has left the head, so that no connection ever has to keep more than those. Waiting is
 * always in ring_pump, which reads while it writes.
 *
 * Order. Steps come home in the order of their numbers: every stage keeps it. */
#include "head/chain.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/check.h"
#include "base/mem.h"
#include "base/sys.h"
#include "device/executor.h"
#include "head/ring.h"
#include "head/split.h"
#include "model/modelfile.h"
#include "plan/plan.h"
#include "wire/step.h"

enum { FLIGHT_PER_STAGE = 2, FLIGHT_MAX = FLIGHT_PER_STAGE * PLAN_STAGES_MAX };

/* A step under way. */
struct flight {
    uint64_t number;
    int n_rows;
    uint8_t touched[SEGMENT_SLOTS_MAX / 8];
};

struct chain {
    const struct model *model;
    struct plan plan;
    struct segment_opts opts;
    struct compute *compute;
    struct executor *local[PLAN_DEVICES_MAX]; /* [0] is the head; the others when in process */
    struct ring *ring;                        /* NULL when every device is in this process */
    struct step_codec *codec;                 /* with ring */
    int n_threads_device;

    int slot_len[SEGMENT_SLOTS_MAX]; /* as it will be after everything sent and waiting */
    int n_ops;
    struct slot_op ops[WIRE_OPS_MAX]; /* waiting for the next step */

    uint64_t next; /* number of the next step */
    int flight_first, n_flight, flight_max;
    struct flight flight[FLIGHT_MAX]; /* a ring of n_flight from flight_first */

    struct tensors logits; /* of the last step that came home */
    enum err failed;       /* of the first step that failed and nobody has heard of */
    struct err_text failed_text;
    enum err broken; /* why the chain is of no further use */
    struct err_text broken_text;
    uint64_t decode_sent_bytes;
};

/* ---- opening and closing ---- */

static double module_cost(const struct model *m, int i)
{
    /* What a module costs beside reading its weights: starting its few operations takes as long as
     * reading some 100 KB. Without it, a device might get all the modules that are nearly free. */
    const double overhead_bytes = 100e3;

    return (double)model_module(m, i)->decode_bytes + overhead_bytes;
}

static enum err make_plan(const struct model *m, const char *split, struct plan *out,
                          struct err_text *et)
{
    int n = model_n_modules(m);
    double *cost;
    enum err e;

    if (!split) {
        split_whole(n, out);
        return ERR_NONE;
    }
    cost = mem_zalloc((size_t)n, sizeof *cost);
    for (int i = 0; i < n; i++)
        cost[i] = module_cost(m, i);
    e = split_parse(split, n, cost, out, et);
    free(cost);
    return e;
}

static enum err check_opts(const struct chain_opts *o, struct err_text *et)
{
    const struct segment_opts *s = &o->segment;

    if (o->n_threads < 1)
        return err_set(et, ERR_INPUT, "%d threads; at least one is needed", o->n_threads);
    if (s->n_slots < 1 || s->n_slots > SEGMENT_SLOTS_MAX)
        return err_set(et, ERR_INPUT, "%d slots; 1 to %d are possible", s->n_slots,
                       SEGMENT_SLOTS_MAX);
    if (s->n_rows_max < 1 || s->n_rows_max > SEGMENT_ROWS_MAX)
        return err_set(et, ERR_INPUT, "steps of %d rows; 1 to %d are possible", s->n_rows_max,
                       SEGMENT_ROWS_MAX);
    if (s->n_ctx < 1)
        return err_set(et, ERR_INPUT, "a context of %d positions", s->n_ctx);
    return ERR_NONE;
}

/* Sums what the head and its devices have loaded. */
struct loading {
    const struct chain_opts *opts;
    uint64_t before; /* by devices of this process that are done */
    uint64_t here, total;
};

static void show_loading(struct loading *l, uint64_t elsewhere)
{
    uint64_t done = l->here + elsewhere;

    if (l->opts->progress)
        l->opts->progress(l->opts->user, done < l->total ? done : l->total, l->total);
}

static void loaded_here(void *user, uint64_t done, uint64_t total)
{
    struct loading *l = user;

    (void)total;
    l->here = l->before + done;
    show_loading(l, 0);
}

static void loaded_elsewhere(void *user, uint64_t done)
{
    show_loading(user, done);
}

/* The devices of this process: the head, and in_process all others. */
static enum err open_local(struct chain *c, const struct chain_opts *opts, struct loading *l,
                           struct err_text *et)
{
    int n = c->ring ? 1 : c->plan.n_devices;
    struct executor_opts x = {opts->segment, loaded_here, l};
    enum err e = compute_open(c->ring ? c->n_threads_device : opts->n_threads, &c->compute, et);

    for (int d = 0; d < n && !e; d++) {
        e = executor_open(c->model, c->compute, &c->plan, d, &x, &c->local[d], et);
        l->before += plan_weight_bytes(&c->plan, c->model, d);
    }
    return e;
}

/* Never more threads in all than cores, which would have them wait for each other at every barrier;
 * but devices beyond the number of cores take turns well enough, with one thread each. */
static int threads_per_device(int n_threads, int n_devices)
{
    int n = n_threads < sys_cores() ? n_threads : sys_cores();

    return n / n_devices > 1 ? n / n_devices : 1;
}

enum err chain_open(const struct model *m, const struct chain_opts *opts, struct chain **out,
                    struct err_text *et)
{
    struct loading loading = {.opts = opts};
    struct chain *c = mem_zalloc(1, sizeof *c);
    enum err e;

    c->model = m;
    c->opts = opts->segment;
    c->next = 1;
    c->n_threads_device = opts->n_threads;
    e = check_opts(opts, et);
    if (!e)
        e = make_plan(m, opts->split, &c->plan, et);
    if (e)
        goto out;
    c->flight_max = FLIGHT_PER_STAGE * c->plan.n_stages;
    for (int d = 0; d < c->plan.n_devices; d++)
        loading.total += plan_weight_bytes(&c->plan, m, d);
    if (c->plan.n_devices > 1 && !opts->in_process) {
        struct ring_opts ring = {.program = opts->device_program,
                                 .model_path = modelfile_path(model_file(m)),
                                 .segment = opts->segment};

        ring.n_threads = c->n_threads_device =
            threads_per_device(opts->n_threads, c->plan.n_devices);
        c->codec = step_codec_new();
        e = ring_open(&c->plan, &ring, &c->ring, et);
        if (e)
            goto out;
    }
    /* The others load while the head does. */
    e = open_local(c, opts, &loading, et);
    if (!e && c->ring)
        e = ring_wait_ready(c->ring, loaded_elsewhere, &loading, et);
out:
    if (e)
        chain_close(c);
    else
        *out = c;
    return e;
}

void chain_close(struct chain *c)
{
    if (!c)
        return;
    ring_close(c->ring);
    for (int d = 0; d < c->plan.n_devices; d++)
        executor_close(c->local[d]);
    if (c->compute)
        compute_close(c->compute);
    step_codec_free(c->codec);
    free(c);
}

/* ---- steps under way ---- */

/* Whether the waiting changes already leave slot empty. */
static bool will_be_empty(const struct chain *c, int slot)
{
    for (int i = c->n_ops - 1; i >= 0; i--) {
        const struct slot_op *op = &c->ops[i];

        if (op->kind == SLOT_OP_TRUNCATE ? op->slot == slot : op->to == slot)
            return op->len == 0;
    }
    return false;
}

static void empty_slots(struct chain *c, const struct flight *f)
{
    for (int slot = 0; slot < c->opts.n_slots; slot++) {
        if (!(f->touched[slot / 8] & 1u << slot % 8))
            continue;
        c->slot_len[slot] = 0;
        if (will_be_empty(c, slot))
            continue;
        CHECK(c->n_ops < WIRE_OPS_MAX); /* add_op leaves room for every slot */
        c->ops[c->n_ops++] = (struct slot_op){SLOT_OP_TRUNCATE, slot, 0, 0};
    }
}

/* A step is home. logits borrows from where it came from. */
static enum err come_home(struct chain *c, uint64_t number, enum err code,
                          const struct err_text *reason, const struct tensors *logits,
                          struct err_text *et)
{
    struct flight *f = &c->flight[c->flight_first];

    if (c->n_flight == 0 || number != f->number)
        return err_set(et, ERR_PROTO, "step %llu came home where %llu was due",
                       (unsigned long long)number,
                       (unsigned long long)(c->n_flight ? f->number : 0));
    c->flight_first = (c->flight_first + 1) % FLIGHT_MAX;
    c->n_flight--;
    c->logits = *logits;
    if (!code)
        return ERR_NONE;
    empty_slots(c, f);
    if (!c->failed) {
        c->failed = code;
        c->failed_text = *reason;
    }
    return ERR_NONE;
}

/* Takes a step through every stage of this process, then sends it on or takes it home. */
static enum err advance(struct chain *c, struct step *s, struct err_text *et)
{
    struct tensors logits = {.n = 1, .width = {model_shape(c->model)->n_vocab}};
    struct frame_out f;

    while (s->stage < c->plan.n_stages) {
        int device = c->plan.stage[s->stage].device;
        enum err e;

        if (!c->local[device]) {
            step_encode(c->codec, s, &f);
            ring_send(c->ring, device, &f);
            c->decode_sent_bytes += s->n_rows == 1 ? f.total : 0;
            return ERR_NONE;
        }
        e = executor_run(c->local[device], s, et);
        if (e)
            return e;
    }
    if (s->in.n) {
        logits.n_rows = s->in.n_rows;
        logits.width[0] = s->in.width[0];
        logits.data[0] = s->in.data[0];
    }
    return come_home(c, s->number, s->code, &s->reason, &logits, et);
}

static int width_of(const struct chain *c, enum step_want kind)
{
    const struct model_shape *shape = model_shape(c->model);

    return kind == STEP_WANT_HIDDEN ? shape->n_embd : shape->n_vocab;
}

static enum err take_result(struct chain *c, const struct frame *f, struct err_text *et)
{
    struct result r;
    struct tensors logits = {.n = 1};
    enum err e = result_decode(c->codec, f, &r, et);

    if (e)
        return e;
    if (r.epoch != c->plan.epoch || (!r.code && r.width != width_of(c, r.kind)))
        return err_set(et, ERR_PROTO, "result of epoch %u of width %d", r.epoch, r.width);
    logits.n_rows = r.n_rows;
    logits.width[0] = r.width;
    logits.data[0] = r.logits;
    return come_home(c, r.number, r.code, &r.reason, &logits, et);
}

/* One frame from the ring, if there is one. */
static enum err take_frame(struct chain *c, bool *have, struct err_text *et)
{
    struct frame f;
    struct step s;
    enum err e = ring_next(c->ring, &f, have, et);

    if (e || !*have)
        return e;
    if (f.type == FRAME_RESULT)
        return take_result(c, &f, et);
    e = step_decode(c->codec, &f, &s, et);
    if (e)
        return e;
    if (s.stage >= c->plan.n_stages || c->plan.stage[s.stage].device != 0)
        return err_set(et, ERR_PROTO, "step %llu for stage %d came to the head",
                       (unsigned long long)s.number, s.stage);
    return advance(c, &s, et);
}

/* After an error on the way of a step nobody knows any more where the others are. */
static enum err broke(struct chain *c, enum err e, struct err_text *text, struct err_text *et)
{
    if (!c->broken) {
        c->broken = e;
        c->broken_text = *text;
    }
    return err_set(et, c->broken, "%s", c->broken_text.text);
}

/* Works until at most n steps are under way; nothing is read beyond that, so that logits that came
 * by the ring stay where they are. */
static enum err settle(struct chain *c, int n, struct err_text *et)
{
    struct err_text text;
    enum err e = c->broken;

    while (!e && c->n_flight > n) {
        bool have;

        e = take_frame(c, &have, &text);
        if (!e && !have)
            e = ring_pump(c->ring, true, &text);
    }
    return e ? broke(c, e, &text, et) : ERR_NONE;
}

/* Takes what has come in the meantime, and lets what was sent leave. */
static enum err catch_up(struct chain *c, struct err_text *et)
{
    struct err_text text;
    bool have, wait = false;

    if (!c->ring || c->n_flight == 0)
        return ERR_NONE;
    do {
        enum err e = ring_pump(c->ring, wait, &text);

        do
            e = e ? e : take_frame(c, &have, &text);
        while (!e && have);
        if (e)
            return broke(c, e, &text, et);
        wait = true;
    } while (ring_pending(c->ring));
    return ERR_NONE;
}

/* The first failure nobody has heard of, told once. */
static enum err tell_failure(struct chain *c, struct err_text *et)
{
    enum err e = c->failed;

    if (e)
        err_set(et, e, "%s", c->failed_text.text);
    c->failed = ERR_NONE;
    return e;
}

static void touch(struct flight *f, int slot)
{
    f->touched[slot / 8] |= (uint8_t)(1u << slot % 8);
}

/* Numbers the batch (NULL: only the slot changes), and sends it on its way. */
static enum err depart(struct chain *c, const struct batch *b, int n_want, struct err_text *et)
{
    struct step s = {.number = c->next++, .epoch = c->plan.epoch, .n_ops = c->n_ops};
    struct flight *f = &c->flight[(c->flight_first + c->n_flight++) % FLIGHT_MAX];
    struct slot_op ops[WIRE_OPS_MAX];
    struct err_text text;
    enum err e;

    memset(f, 0, sizeof *f);
    f->number = s.number;
    for (int i = 0; i < c->n_ops; i++) {
        ops[i] = c->ops[i];
        /* A truncation goes wrong only in a slot that a step before this one has had emptied. */
        if (ops[i].kind == SLOT_OP_COPY)
            touch(f, ops[i].to);
    }
    /* A step that fails at once adds to the list again. */
    c->n_ops = 0;
    s.ops = ops;
    if (b) {
        s.n_rows = f->n_rows = b->n_rows;
        s.slot = b->slot;
        s.pos = b->pos;
        s.token = b->token;
        s.want = b->want;
        s.n_want = n_want;
        for (int i = 0; i < b->n_rows; i++)
            touch(f, b->slot[i]);
    }
    e = advance(c, &s, &text);
    return e ? broke(c, e, &text, et) : ERR_NONE;
}

static enum err make_room(struct chain *c, struct err_text *et)
{
    enum err e = catch_up(c, et);

    return e ? e : settle(c, c->flight_max - 1, et);
}

/* ---- slots ---- */

static enum err check_slot(const struct chain *c, int slot, struct err_text *et)
{
    if (slot < 0 || slot >= c->opts.n_slots)
        return err_set(et, ERR_INPUT, "there is no slot %d; 0 to %d exist", slot,
                       c->opts.n_slots - 1);
    return ERR_NONE;
}

static enum err add_op(struct chain *c, struct slot_op op, struct err_text *et)
{
    struct slot_op *last = &c->ops[c->n_ops - (c->n_ops > 0)];
    enum err e = ERR_NONE;

    /* A full list goes ahead as a step of its own. Half of it stays free for empty_slots. */
    if (c->n_ops >= WIRE_OPS_MAX / 2) {
        e = make_room(c, et);
        if (!e)
            e = depart(c, NULL, 0, et);
        if (e)
            return e;
    } else if (c->n_ops && op.kind == SLOT_OP_TRUNCATE && last->kind == op.kind &&
               last->slot == op.slot) {
        last->len = op.len; /* not longer than what the last one left */
        return ERR_NONE;
    }
    c->ops[c->n_ops++] = op;
    return ERR_NONE;
}

enum err chain_slot_truncate(struct chain *c, int slot, int len, struct err_text *et)
{
    enum err e = check_slot(c, slot, et);

    if (e)
        return e;
    if (len < 0 || len > c->slot_len[slot])
        return err_set(et, ERR_INPUT, "slot %d has %d positions and cannot be cut to %d", slot,
                       c->slot_len[slot], len);
    if (len == c->slot_len[slot])
        return ERR_NONE;
    e = add_op(c, (struct slot_op){SLOT_OP_TRUNCATE, slot, 0, len}, et);
    if (!e)
        c->slot_len[slot] = len;
    return e;
}

enum err chain_slot_copy(struct chain *c, int from, int to, int len, struct err_text *et)
{
    enum err e = check_slot(c, from, et);

    if (!e)
        e = check_slot(c, to, et);
    if (e)
        return e;
    if (from == to)
        return err_set(et, ERR_INPUT, "slot %d cannot be copied to itself", from);
    if (len < 0 || len > c->slot_len[from])
        return err_set(et, ERR_INPUT, "slot %d has %d positions; %d of them cannot be copied", from,
                       c->slot_len[from], len);
    e = add_op(c, (struct slot_op){SLOT_OP_COPY, from, to, len}, et);
    if (!e)
        c->slot_len[to] = len;
    return e;
}

int chain_slot_len(const struct chain *c, int slot)
{
    CHECK(slot >= 0 && slot < c->opts.n_slots);
    return c->slot_len[slot];
}

/* ---- running a batch ---- */

/* Checks every row against the picture, in len: the lengths as they will be after the batch. */
static enum err check_batch(const struct chain *c, const struct batch *b, int *len, int *n_want,
                            struct err_text *et)
{
    uint8_t seen[SEGMENT_SLOTS_MAX] = {0};
    int n_vocab = model_shape(c->model)->n_vocab;

    if (b->n_rows < 1)
        return err_set(et, ERR_INPUT, "a batch of %d rows", b->n_rows);
    if (b->n_rows > c->opts.n_rows_max)
        return err_set(et, ERR_LIMIT, "a batch of %d rows; %d go in one step", b->n_rows,
                       c->opts.n_rows_max);
    memcpy(len, c->slot_len, sizeof c->slot_len);
    *n_want = 0;
    for (int i = 0; i < b->n_rows; i++) {
        int slot = b->slot[i], pos = b->pos[i];
        enum err e = check_slot(c, slot, et);

        if (e)
            return e;
        if (pos < 0 || pos > len[slot] || (seen[slot] && pos != len[slot]))
            return err_set(et, ERR_INPUT, "row %d: position %d of slot %d, where %s%d is due", i,
                           pos, slot, seen[slot] ? "" : "at most ", len[slot]);
        if (pos >= c->opts.n_ctx)
            return err_set(et, ERR_LIMIT, "row %d: position %d in a context of %d", i, pos,
                           c->opts.n_ctx);
        if (b->token[i] < 0 || b->token[i] >= n_vocab)
            return err_set(et, ERR_INPUT, "row %d: token %d in a vocabulary of %d", i, b->token[i],
                           n_vocab);
        seen[slot] = 1;
        len[slot] = pos + 1;
        *n_want += b->want[i] != 0;
    }
    return ERR_NONE;
}

/* No transfer of this step may be larger than a frame. */
static enum err check_frames(const struct chain *c, int n_rows, int n_want, struct err_text *et)
{
    size_t max = wire_frame_max(FRAME_STEP) - FRAME_HEAD_BYTES - WIRE_STEP_HEADER_MAX;

    if (!c->ring)
        return ERR_NONE;
    for (int i = 0; i < c->plan.n_stages; i++) {
        struct plan_transfer t;
        size_t width = 0, rows;

        plan_transfer(&c->plan, c->model, i, &t);
        rows = (size_t)(c->plan.stage[i].end > model_rows_shrink_at(c->model) ? n_want : n_rows);
        for (int k = 0; k < t.n; k++)
            width += (size_t)t.width[k];
        if (t.to_stage == c->plan.n_stages && c->plan.stage[i].device == 0)
            continue;
        if (rows * width * sizeof(float) > max)
            return err_set(et, ERR_LIMIT,
                           "a step of %zu rows of %zu numbers does not fit between two devices; "
                           "at most %zu rows do",
                           rows, width, max / (width * sizeof(float)));
    }
    return ERR_NONE;
}

enum err chain_run(struct chain *c, const struct batch *b, struct tensors *logits,
                   struct err_text *et)
{
    int len[SEGMENT_SLOTS_MAX], n_want = 0;
    enum err e = make_room(c, et);

    if (!e)
        e = tell_failure(c, et);
    if (!e)
        e = check_batch(c, b, len, &n_want, et);
    if (!e)
        e = check_frames(c, b->n_rows, n_want, et);
    if (e)
        return e;
    memcpy(c->slot_len, len, sizeof c->slot_len);
    e = depart(c, b, n_want, et);
    if (!e && n_want)
        e = settle(c, 0, et);
    if (!e)
        e = tell_failure(c, et);
    if (e)
        return e;
    if (n_want)
        *logits = c->logits;
    else
        *logits = (struct tensors){.n = 1, .width = {model_shape(c->model)->n_vocab}};
    return ERR_NONE;
}

/* ---- what devices say of themselves ---- */

int chain_n_devices(const struct chain *c)
{
    return c->plan.n_devices;
}

static void report_local(struct chain *c, int device, struct device_report *out)
{
    struct executor_stats s;

    executor_stats(c->local[device], &s);
    out->pid = (int)getpid();
    out->n_threads = compute_n_threads(c->compute);
    out->weight_bytes = s.weight_bytes;
    out->kv_bytes = s.kv_bytes;
    out->resident_bytes = sys_resident_bytes();
    out->steps = s.steps;
    out->rows = s.rows;
    out->compute_us = s.compute_us;
    out->decode_steps = s.decode_steps;
    out->decode_us = s.decode_us;
    if (c->ring) {
        out->sent_bytes = ring_sent_bytes(c->ring);
        out->decode_sent_bytes = c->decode_sent_bytes;
    }
}

static void report_remote(struct chain *c, const struct wire_report *r, int device,
                          struct device_report *out)
{
    out->pid = ring_pid(c->ring, device);
    out->n_threads = r->n_threads;
    out->weight_bytes = r->weight_bytes;
    out->kv_bytes = r->kv_bytes;
    out->resident_bytes = r->resident_bytes;
    out->steps = r->steps;
    out->rows = r->rows;
    out->compute_us = r->compute_us;
    out->decode_steps = r->decode_steps;
    out->decode_us = r->decode_us;
    out->sent_bytes = r->sent_bytes;
    out->decode_sent_bytes = r->decode_sent_bytes;
}

enum err chain_report(struct chain *c, int device, struct device_report *out, struct err_text *et)
{
    struct wire_report r;
    enum err e;

    if (device < 0 || device >= c->plan.n_devices)
        return err_set(et, ERR_INPUT, "there is no device %d; 0 to %d exist", device,
                       c->plan.n_devices - 1);
    memset(out, 0, sizeof *out);
    snprintf(out->name, sizeof out->name, "device %d", device);
    plan_describe(&c->plan, c->model, device, out->modules, sizeof out->modules);
    e = settle(c, 0, et); /* so that every device has counted the same steps */
    if (e)
        return e;
    if (c->local[device]) {
        report_local(c, device, out);
        return ERR_NONE;
    }
    e = ring_report(c->ring, device, &r, et);
    if (!e)
        report_remote(c, &r, device, out);
    return e;
}
