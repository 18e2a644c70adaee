/* The compute thread: what goes in comes out as the executor alone would make it, whatever the
 * order of loads, steps and closing. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <event2/event.h>

#include "base/mem.h"
#include "device/trail.h"
#include "device/worker.h"
#include "support/tiny_model.h"

enum { WAIT_MS = 60000, KEPT_MAX = 64, ROWS_MAX = 8 };

static struct err_text et;

struct bench {
    struct event_base *base;
    struct worker *worker;
    struct step_codec *codec;
    char path[256];
    struct model *model;
    struct compute *compute;
    struct executor *other, *same; /* device 0 of the plan, and the worker's own device */
    struct plan plan;
    struct segment_opts segment;
    int32_t slot[ROWS_MAX], pos[ROWS_MAX], token[ROWS_MAX];
    uint8_t want[ROWS_MAX];

    /* What came out. */
    int n_out, n_loaded, n_bad, n_progress, n_prepared;
    struct worker_out out[KEPT_MAX];
    uint8_t *bytes[KEPT_MAX];
    enum err loaded, bad;
    uint32_t loaded_epoch, bad_epoch;
    char why[ERR_TEXT_MAX];
    enum err prepare_fails;
    bool close_on_out;
    bool timed_out;
};

/* ---- the worker's calls ---- */

static void on_out(void *user, const struct worker_out *out)
{
    struct bench *b = user;

    assert_true(b->n_out < KEPT_MAX);
    b->out[b->n_out] = *out;
    b->bytes[b->n_out] = mem_alloc(out->len);
    memcpy(b->bytes[b->n_out++], out->bytes, out->len);
    if (b->close_on_out) {
        worker_close(b->worker);
        b->worker = NULL;
    }
}

static void on_progress(void *user, uint32_t epoch, uint64_t done, uint64_t total)
{
    struct bench *b = user;

    (void)epoch;
    assert_true(done <= total && total > 0);
    b->n_progress++;
}

static void on_loaded(void *user, uint32_t epoch, enum err e, const char *why)
{
    struct bench *b = user;

    b->n_loaded++;
    b->loaded = e;
    b->loaded_epoch = epoch;
    strcpy(b->why, why);
}

static void on_bad_step(void *user, uint32_t epoch, enum err e, const char *why)
{
    struct bench *b = user;

    b->n_bad++;
    b->bad = e;
    b->bad_epoch = epoch;
    strcpy(b->why, why);
}

static enum err on_prepare(void *user, struct err_text *text)
{
    struct bench *b = user;

    __atomic_add_fetch(&b->n_prepared, 1, __ATOMIC_SEQ_CST);
    return b->prepare_fails ? err_set(text, b->prepare_fails, "the cache is broken") : ERR_NONE;
}

/* ---- the bench ---- */

static void on_timeout(evutil_socket_t fd, short what, void *user)
{
    struct bench *b = user;

    (void)fd;
    (void)what;
    b->timed_out = true;
}

/* Runs the loop until *count is at least n. */
static void wait_for(struct bench *b, const int *count, int n)
{
    struct event *timer = evtimer_new(b->base, on_timeout, b);
    struct timeval t = {WAIT_MS / 1000, 0};

    evtimer_add(timer, &t);
    while (*count < n && !b->timed_out)
        event_base_loop(b->base, EVLOOP_ONCE);
    event_free(timer);
    assert_false(b->timed_out);
}

static void load(struct bench *b, uint32_t epoch)
{
    struct worker_load l = {.path = b->path,
                            .plan = b->plan,
                            .device = 1,
                            .segment = b->segment,
                            .prepare = on_prepare,
                            .user = b};

    l.plan.epoch = epoch;
    worker_load(b->worker, &l);
}

static void load_and_wait(struct bench *b, uint32_t epoch, enum err e)
{
    int n = b->n_loaded;

    load(b, epoch);
    wait_for(b, &b->n_loaded, n + 1);
    if (b->loaded != e)
        fail_msg("loaded: %s", b->why);
    assert_int_equal(b->loaded_epoch, epoch);
}

/* Stages 0 and 2 on device 0, stage 1 on device 1, which the worker plays. */
static void bench_open(struct bench *b, enum tiny_variant variant)
{
    static const struct worker_calls calls = {on_out, on_progress, on_loaded, on_bad_step};
    struct executor_opts opts;

    memset(b, 0, sizeof *b);
    tiny_path(b->path, sizeof b->path, "worker.gguf");
    tiny_write(b->path, variant, GGML_TYPE_F32, 7);
    b->base = event_base_new();
    b->codec = step_codec_new();
    b->segment = (struct segment_opts){4, 64, ROWS_MAX, KV_F16};
    opts = (struct executor_opts){.segment = b->segment};
    assert_int_equal(model_open(b->path, &b->model, &et), ERR_NONE);
    b->plan = (struct plan){1, 2, 3, {{0, 0, 2}, {1, 2, 4}, {0, 4, model_n_modules(b->model)}}};
    assert_int_equal(compute_open(1, &b->compute, &et), ERR_NONE);
    assert_int_equal(executor_open(b->model, b->compute, &b->plan, 0, &opts, &b->other, &et),
                     ERR_NONE);
    assert_int_equal(executor_open(b->model, b->compute, &b->plan, 1, &opts, &b->same, &et),
                     ERR_NONE);
    assert_int_equal(worker_open(b->base, 1, &calls, b, &b->worker, &et), ERR_NONE);
}

static void bench_close(struct bench *b)
{
    worker_close(b->worker);
    for (int i = 0; i < b->n_out; i++)
        free(b->bytes[i]);
    executor_close(b->other);
    executor_close(b->same);
    compute_close(b->compute);
    model_close(b->model);
    step_codec_free(b->codec);
    event_base_free(b->base);
}

static struct step make_step(struct bench *b, uint64_t number, int pos, int n_rows)
{
    struct step s = {.number = number, .epoch = 1, .n_rows = n_rows};

    for (int i = 0; i < n_rows; i++) {
        b->slot[i] = 0;
        b->pos[i] = pos + i;
        b->token[i] = 10 + pos + i;
        b->want[i] = i == n_rows - 1;
    }
    s.slot = b->slot;
    s.pos = b->pos;
    s.token = b->token;
    s.want = b->want;
    s.n_want = n_rows > 0;
    return s;
}

static void give_step(struct bench *b, const struct step *s, enum err e)
{
    struct frame_out f;
    uint8_t *bytes;

    step_encode(b->codec, s, &f);
    bytes = mem_alloc(f.total);
    frame_copy(&f, bytes);
    assert_int_equal(worker_step(b->worker, bytes, f.total, &et), e);
    free(bytes);
}

/* Stage 0 here, stage 1 at the worker; what comes out must be what the executor makes of it. */
static void check_step(struct bench *b, struct step s, enum err e)
{
    struct step copy;
    struct frame f;
    int at = b->n_out;

    assert_int_equal(executor_run(b->other, &s, &et), ERR_NONE);
    give_step(b, &s, ERR_NONE);
    assert_int_equal(executor_run(b->same, &s, &et), ERR_NONE);
    wait_for(b, &b->n_out, at + 1);
    assert_int_equal(b->out[at].number, s.number);
    assert_int_equal(b->out[at].to_stage, 2);
    assert_int_equal(b->out[at].to_device, 0);
    assert_int_equal(b->out[at].n_rows, s.n_rows);
    assert_int_equal(frame_decode(b->bytes[at], b->out[at].len, &f, &et), ERR_NONE);
    assert_int_equal(step_decode(b->codec, &f, &copy, &et), ERR_NONE);
    assert_int_equal(copy.code, e);
    assert_int_equal(s.code, e);
    assert_int_equal(copy.in.n, s.in.n);
    assert_int_equal(copy.in.n_rows, s.in.n_rows);
    for (int i = 0; i < s.in.n; i++)
        assert_memory_equal(copy.in.data[i], s.in.data[i],
                            (size_t)s.in.n_rows * (size_t)s.in.width[i] * sizeof(float));
    /* The chain stays whole. */
    assert_int_equal(executor_run(b->other, &s, &et), ERR_NONE);
}

/* ---- tests ---- */

static void test_same_bits_as_the_executor(void **state)
{
    struct bench b;
    struct step s;
    struct slot_op op = {SLOT_OP_TRUNCATE, 0, 0, 60};
    struct wire_report report;

    (void)state;
    bench_open(&b, TINY_GPTNEOX);
    assert_int_equal(plan_inputs(&b.plan, b.model, 1, (int[EDGES_MAX]){0}), 2);
    load_and_wait(&b, 1, ERR_NONE);
    assert_int_equal(b.n_prepared, 1);
    assert_true(b.n_progress >= 1);
    check_step(&b, make_step(&b, 1, 0, 5), ERR_NONE);
    for (int i = 0; i < 6; i++)
        check_step(&b, make_step(&b, (uint64_t)i + 2, 5 + i, 1), ERR_NONE);
    s = make_step(&b, 8, 0, 0);
    s.ops = &op;
    s.n_ops = 1;
    check_step(&b, s, ERR_INPUT); /* the slot is shorter; it is passed on saying so */
    check_step(&b, make_step(&b, 9, 0, 0), ERR_NONE);
    worker_report(b.worker, &report);
    assert_int_equal(report.steps, 7);
    assert_int_equal(report.decode_steps, 6);
    assert_int_equal(report.device, 1);
    assert_true(report.sent_bytes > report.decode_sent_bytes && report.decode_sent_bytes > 0);
    assert_true(report.weight_bytes > 0 && report.kv_bytes > 0 && report.resident_bytes > 0);
    bench_close(&b);
}

/* The worker has the last stage: its outputs are results. */
static void test_results_go_home(void **state)
{
    struct bench b;
    struct step s;
    struct frame f;
    struct result r;
    int n;

    (void)state;
    bench_open(&b, TINY_LLAMA);
    n = model_n_modules(b.model);
    b.plan = (struct plan){1, 2, 2, {{0, 0, n - 1}, {1, n - 1, n}}};
    executor_close(b.other);
    executor_close(b.same);
    b.same = NULL;
    assert_int_equal(executor_open(b.model, b.compute, &b.plan, 0,
                                   &(struct executor_opts){.segment = b.segment}, &b.other, &et),
                     ERR_NONE);
    load_and_wait(&b, 1, ERR_NONE);
    for (int i = 0; i < 3; i++) { /* rows wanted; none wanted; a step that has failed */
        s = make_step(&b, (uint64_t)i + 1, i, 1);
        b.want[0] = i != 1;
        s.n_want = i != 1;
        assert_int_equal(executor_run(b.other, &s, &et), ERR_NONE);
        if (i == 2) {
            s.code = err_set(&s.reason, ERR_MEMORY, "stage 0 has none");
            memset(&s.in, 0, sizeof s.in);
        }
        give_step(&b, &s, ERR_NONE);
        wait_for(&b, &b.n_out, i + 1);
        assert_int_equal(b.out[i].to_stage, 2);
        assert_int_equal(b.out[i].to_device, 0);
        assert_int_equal(frame_decode(b.bytes[i], b.out[i].len, &f, &et), ERR_NONE);
        assert_int_equal(result_decode(b.codec, &f, &r, &et), ERR_NONE);
        assert_int_equal(r.number, i + 1);
        assert_int_equal(r.code, i == 2 ? ERR_MEMORY : ERR_NONE);
        assert_int_equal(r.n_rows, i == 0);
        assert_int_equal(r.width, i == 2 ? 0 : model_shape(b.model)->n_vocab);
        if (i == 2)
            assert_string_equal(r.reason.text, "stage 0 has none");
    }
    bench_close(&b);
}

static void test_epochs(void **state)
{
    struct bench b;
    struct step s, t;
    struct segment_opts more;

    (void)state;
    bench_open(&b, TINY_LLAMA);
    load_and_wait(&b, 1, ERR_NONE);
    check_step(&b, make_step(&b, 1, 0, 3), ERR_NONE);
    s = make_step(&b, 2, 3, 1);
    assert_int_equal(executor_run(b.other, &s, &et), ERR_NONE);

    /* The same modules again: nothing is read anew, and steps count from 1 in an empty slot. */
    load_and_wait(&b, 2, ERR_NONE);
    assert_int_equal(b.n_prepared, 1);
    give_step(&b, &s, ERR_NONE); /* of epoch 1: dropped without a word */
    b.plan.epoch = 2;
    assert_true(executor_restart(b.other, &b.plan, 0, &b.segment));
    assert_true(executor_restart(b.same, &b.plan, 1, &b.segment));
    t = make_step(&b, 1, 0, 2);
    t.epoch = 2;
    check_step(&b, t, ERR_NONE);
    assert_int_equal(b.n_out, 2);
    assert_int_equal(b.n_bad, 0);

    /* Other sizes are another load. */
    more = b.segment;
    b.segment.n_ctx = 32;
    load_and_wait(&b, 3, ERR_NONE);
    assert_int_equal(b.n_prepared, 2);
    b.segment = more;

    /* Nothing is loaded: steps go nowhere. */
    worker_unload(b.worker);
    s.epoch = 3;
    s.number = 1;
    give_step(&b, &s, ERR_NONE);
    load_and_wait(&b, 4, ERR_NONE);
    assert_int_equal(b.n_prepared, 3);
    assert_int_equal(b.n_out, 2);
    bench_close(&b);
}

static void test_load_fails(void **state)
{
    struct bench b;
    struct plan good;

    (void)state;
    bench_open(&b, TINY_LLAMA);
    good = b.plan;
    b.prepare_fails = ERR_FILE;
    load_and_wait(&b, 1, ERR_FILE);
    assert_string_equal(b.why, "the cache is broken");
    b.prepare_fails = ERR_NONE;
    b.plan.stage[2].end--; /* not the whole model */
    load_and_wait(&b, 1, ERR_INPUT);
    b.plan = good;
    b.plan.stage[2].end = 1000;
    load_and_wait(&b, 1, ERR_INPUT);
    b.plan = good;
    b.segment.kv = (enum kv_type)7;
    load_and_wait(&b, 1, ERR_UNSUPPORTED);
    b.segment.kv = KV_F16;
    b.path[0] = '/'; /* no such file */
    load_and_wait(&b, 1, ERR_FILE);
    tiny_path(b.path, sizeof b.path, "worker.gguf");
    load_and_wait(&b, 1, ERR_NONE); /* and none of that did any harm */
    check_step(&b, make_step(&b, 1, 0, 2), ERR_NONE);
    bench_close(&b);
}

static void test_bad_steps(void **state)
{
    struct bench b;
    struct step s;
    uint8_t junk[64] = {60, 0, 0, 0, FRAME_STEP, 0, 0, 0, 40};

    (void)state;
    bench_open(&b, TINY_LLAMA);
    load_and_wait(&b, 1, ERR_NONE);
    s = make_step(&b, 1, 0, 1);
    assert_int_equal(executor_run(b.other, &s, &et), ERR_NONE);
    s.number = 5;
    give_step(&b, &s, ERR_NONE); /* 1 was due */
    wait_for(&b, &b.n_bad, 1);
    assert_int_equal(b.bad, ERR_PROTO);
    assert_int_equal(b.bad_epoch, 1);
    assert_int_equal(b.n_out, 0);
    s.number = 1; /* too late: nothing of this epoch is believed any more */
    give_step(&b, &s, ERR_NONE);
    load_and_wait(&b, 2, ERR_NONE);
    assert_int_equal(b.n_out, 0);
    memset(junk + 12, 0xff, sizeof junk - 12);
    assert_int_equal(worker_step(b.worker, junk, sizeof junk, &et), ERR_NONE);
    wait_for(&b, &b.n_bad, 2);
    assert_int_equal(b.bad_epoch, 2);
    bench_close(&b);
}

static void test_load_replaces_what_waits(void **state)
{
    struct bench b;

    (void)state;
    bench_open(&b, TINY_LLAMA);
    for (uint32_t epoch = 1; epoch <= 20; epoch++)
        load(&b, epoch);
    wait_for(&b, &b.n_loaded, 20);
    assert_int_equal(b.loaded_epoch, 20);
    assert_int_equal(b.loaded, ERR_NONE);
    assert_true(b.n_prepared <= 2); /* the first may have begun; those between never do */
    bench_close(&b);
}

static void test_queue_is_bounded(void **state)
{
    struct bench b;
    struct step s;
    enum err e = ERR_NONE;
    uint8_t bytes[4096];
    struct frame_out f;

    (void)state;
    bench_open(&b, TINY_LLAMA);
    s = make_step(&b, 1, 0, 1);
    s.epoch = 9;
    step_encode(b.codec, &s, &f);
    frame_copy(&f, bytes);
    load(&b, 1); /* takes longer than a thousand copies; should it not, the loop below goes on */
    for (long i = 0; i < 10000000 && !e; i++)
        e = worker_step(b.worker, bytes, f.total, &et);
    assert_int_equal(e, ERR_LIMIT);
    bench_close(&b); /* with all that waiting */
}

static void test_close_in_the_midst(void **state)
{
    struct bench b;
    struct step s;

    (void)state;
    for (int way = 0; way < 3; way++) {
        bench_open(&b, TINY_LLAMA);
        load(&b, 1);
        for (int i = 0; i < 20; i++) {
            s = make_step(&b, (uint64_t)i + 1, i, 1);
            assert_int_equal(executor_run(b.other, &s, &et), ERR_NONE);
            give_step(&b, &s, ERR_NONE);
        }
        b.close_on_out = way == 1;
        if (way > 0)
            wait_for(&b, &b.n_out, 1);
        if (way == 1)
            assert_null(b.worker); /* closed inside its own call */
        bench_close(&b);
        assert_true(way != 1 || b.n_out == 1); /* and no call came after */
    }
}

static void test_trace(void **state)
{
    static struct wire_trace_record r[WIRE_TRACE_MAX];
    struct bench b;

    (void)state;
    bench_open(&b, TINY_LLAMA);
    load_and_wait(&b, 1, ERR_NONE);
    check_step(&b, make_step(&b, 1, 0, 3), ERR_NONE);
    assert_int_equal(worker_trace_take(b.worker, r), 0); /* off */
    worker_trace(b.worker, true);
    check_step(&b, make_step(&b, 2, 3, 1), ERR_NONE);
    check_step(&b, make_step(&b, 3, 4, 2), ERR_NONE);
    assert_int_equal(worker_trace_take(b.worker, r), 2);
    for (int i = 0; i < 2; i++) {
        assert_int_equal(r[i].number, i + 2);
        assert_int_equal(r[i].stage, 1);
        assert_int_equal(r[i].rows, i + 1);
        assert_true(r[i].arrived_us <= r[i].begun_us && r[i].begun_us <= r[i].ended_us &&
                    r[i].ended_us <= r[i].sent_us && r[i].arrived_us > 0);
    }
    assert_int_equal(worker_trace_take(b.worker, r), 0);
    worker_trace(b.worker, false);
    check_step(&b, make_step(&b, 4, 6, 1), ERR_NONE);
    assert_int_equal(worker_trace_take(b.worker, r), 0);
    /* All of it is kept, whether it was on or not. */
    assert_int_equal(worker_trace_look(b.worker, &(struct wire_trace_ask){false, 1, 1, 9}, r), 4);
    assert_true(r[0].number == 1 && r[3].number == 4 && r[0].rows == 3);
    bench_close(&b);
}

/* Records of many steps: the newest are kept, by epoch and by number, and a take gives each once. */
static void test_trail(void **state)
{
    static struct wire_trace_record r[WIRE_TRACE_MAX];
    struct trail *t = trail_new();
    struct wire_trace_record one = {.stage = 127, .rows = 4096};

    (void)state;
    assert_int_equal(trail_look(t, 1, 0, UINT64_MAX, r), 0);
    trail_mark(t, true);
    for (int i = 0; i < 3 * WIRE_TRACE_MAX; i++) {
        one.number = (uint64_t)(i % (2 * WIRE_TRACE_MAX)) + 1;
        one.arrived_us = 1000000 + (uint64_t)i * 10;
        one.begun_us = one.arrived_us + 1;
        one.ended_us = one.begun_us + 3;
        one.sent_us = one.ended_us + ((uint64_t)1 << 40); /* a day and more is kept as an hour */
        trail_add(t, i < 2 * WIRE_TRACE_MAX ? 7 : 8, &one);
        if (i == 2 * WIRE_TRACE_MAX + 99) {
            assert_int_equal(trail_look(t, 8, 0, UINT64_MAX, r), 100);
            assert_int_equal(trail_look(t, 8, 11, 20, r), 10);
            assert_true(r[0].number == 11 && r[9].number == 20);
            assert_int_equal(trail_look(t, 7, 0, UINT64_MAX, r), WIRE_TRACE_MAX - 100);
            assert_int_equal(trail_look(t, 6, 0, UINT64_MAX, r), 0);
        }
    }
    assert_int_equal(trail_take(t, r), WIRE_TRACE_MAX);
    assert_int_equal(trail_take(t, r), 0);
    assert_int_equal(trail_look(t, 7, 0, UINT64_MAX, r), 0);
    assert_int_equal(trail_look(t, 8, 5, 5, r), 1);
    assert_true(r[0].number == 5 && r[0].stage == 127 && r[0].rows == 4096);
    assert_true(r[0].begun_us == r[0].arrived_us + 1 && r[0].ended_us == r[0].begun_us + 3 &&
                r[0].sent_us == r[0].ended_us + UINT32_MAX);
    trail_mark(t, false);
    trail_add(t, 9, &one);
    assert_int_equal(trail_take(t, r), 0);
    trail_free(t);
}

/* The sums are those of the trace's records, one row each, and begin anew with a load. */
static void check_sums(struct bench *b, const struct wire_trace_record *r, int n, int own,
                       uint64_t stage)
{
    struct wire_report report;
    uint64_t steps = 0, arrived = 0, sent = 0, compute = 0;

    for (int i = 0; i < n; i++)
        if (r[i].rows == 1 && r[i].stage == stage) {
            steps++;
            arrived += r[i].arrived_us;
            sent += r[i].sent_us;
            compute += r[i].ended_us - r[i].begun_us;
        }
    worker_report(b->worker, &report);
    assert_true(steps > 0 && arrived > 0 && sent >= arrived);
    assert_int_equal(report.stage_steps[own], steps);
    assert_true(report.arrived_us[own] == arrived);
    assert_true(report.sent_us[own] == sent);
    assert_true(report.stage_us[own] == compute);
}

static bool no_sums(struct bench *b, int own)
{
    struct wire_report r;

    worker_report(b->worker, &r);
    return !r.stage_steps[own] && !r.arrived_us[own] && !r.sent_us[own] && !r.stage_us[own];
}

static void test_sums(void **state)
{
    static struct wire_trace_record r[WIRE_TRACE_MAX];
    struct wire_report report;
    struct bench b;
    struct step s;

    (void)state;
    bench_open(&b, TINY_LLAMA);
    load_and_wait(&b, 1, ERR_NONE);
    assert_true(no_sums(&b, 0) && no_sums(&b, 1));
    worker_trace(b.worker, true);
    check_step(&b, make_step(&b, 1, 0, 3), ERR_NONE); /* a prompt does not count */
    assert_true(no_sums(&b, 0));
    for (int i = 0; i < 4; i++)
        check_step(&b, make_step(&b, (uint64_t)i + 2, 3 + i, 1), ERR_NONE);
    check_step(&b, make_step(&b, 6, 0, 0), ERR_NONE);
    assert_int_equal(worker_trace_take(b.worker, r), 6);
    check_sums(&b, r, 6, 0, 1);
    assert_true(no_sums(&b, 1)); /* it has one stage */
    worker_trace(b.worker, false);
    s = make_step(&b, 7, 7, 1); /* counted with the trace off, too */
    check_step(&b, s, ERR_NONE);
    worker_report(b.worker, &report);
    assert_int_equal(report.stage_steps[0], 5);
    assert_int_equal(report.battery_percent, -1); /* nobody knows of one */
    load_and_wait(&b, 2, ERR_NONE);               /* the same modules, another epoch */
    assert_true(no_sums(&b, 0));
    bench_close(&b);
}

/* A device of two stages, as the head is: each has its own sums. */
static void test_sums_of_two_stages(void **state)
{
    static struct wire_trace_record r[WIRE_TRACE_MAX];
    struct worker_load l;
    struct bench b;
    struct step s, mid;
    struct frame f;

    (void)state;
    bench_open(&b, TINY_LLAMA);
    l = (struct worker_load){.path = b.path, .plan = b.plan, .segment = b.segment};
    worker_load(b.worker, &l);
    wait_for(&b, &b.n_loaded, 1);
    assert_int_equal(b.loaded, ERR_NONE);
    worker_trace(b.worker, true);
    for (int i = 0; i < 5; i++) {
        s = make_step(&b, (uint64_t)i + 1, i, 1);
        give_step(&b, &s, ERR_NONE);
        wait_for(&b, &b.n_out, 2 * i + 1);
        assert_int_equal(b.out[2 * i].to_device, 1);
        assert_int_equal(frame_decode(b.bytes[2 * i], b.out[2 * i].len, &f, &et), ERR_NONE);
        assert_int_equal(step_decode(b.codec, &f, &mid, &et), ERR_NONE);
        assert_int_equal(executor_run(b.same, &mid, &et), ERR_NONE);
        give_step(&b, &mid, ERR_NONE);
        wait_for(&b, &b.n_out, 2 * i + 2);
        assert_int_equal(b.out[2 * i + 1].to_stage, 3);
    }
    assert_int_equal(worker_trace_take(b.worker, r), 10);
    check_sums(&b, r, 10, 0, 0);
    check_sums(&b, r, 10, 1, 2);
    bench_close(&b);
}

/* ---- measuring ---- */

struct measured {
    int n;
    enum err e;
    struct wire_profile p;
};

static void on_measured(void *user, enum err e, const char *why, const struct wire_profile *p)
{
    struct measured *m = user;

    m->n++;
    m->e = e;
    assert_true((p != NULL) == (e == ERR_NONE));
    assert_true((*why == '\0') == (e == ERR_NONE));
    if (p)
        m->p = *p;
}

static struct worker_profile profile_job(const struct bench *b, struct measured *m, int window_ms)
{
    return (struct worker_profile){.path = b->path,
                                   .kv = KV_F16,
                                   .windows = 1,
                                   .window_ms = window_ms,
                                   .done = on_measured,
                                   .user = m};
}

/* What is loaded stays loaded, and goes on as it was. */
static void test_profile(void **state)
{
    struct bench b;
    struct measured m = {0}, wrong = {0};
    struct worker_profile job;
    struct step s;

    (void)state;
    bench_open(&b, TINY_LLAMA);
    job = profile_job(&b, &m, 1);
    worker_profile(b.worker, &job);
    wait_for(&b, &m.n, 1);
    assert_int_equal(m.e, ERR_NONE);
    assert_true(m.p.n_classes == 4 && m.p.n_threads == 1 && m.p.cost_ps[1][0] > 0);
    load_and_wait(&b, 1, ERR_NONE);
    job = profile_job(&b, &wrong, 1);
    job.path = "no-such-file.gguf";
    worker_profile(b.worker, &job);
    job = profile_job(&b, &m, 1);
    worker_profile(b.worker, &job);
    s = make_step(&b, 1, 0, 3);
    check_step(&b, s, ERR_NONE);
    assert_int_equal(wrong.n, 1);
    assert_int_equal(wrong.e, ERR_FILE);
    assert_int_equal(m.n, 2);
    assert_int_equal(m.e, ERR_NONE);
    bench_close(&b);
}

/* By a load, by whoever asked, and by the end of the worker. */
static void test_profile_is_cancelled(void **state)
{
    struct bench b;
    struct measured m[4] = {{0}};
    struct worker_profile job;

    (void)state;
    bench_open(&b, TINY_LLAMA);
    for (int i = 0; i < 2; i++) { /* one begins, one waits */
        job = profile_job(&b, &m[i], 400);
        worker_profile(b.worker, &job);
    }
    load_and_wait(&b, 1, ERR_NONE);
    for (int i = 0; i < 2; i++) {
        wait_for(&b, &m[i].n, 1);
        assert_int_equal(m[i].e, ERR_CANCELLED);
    }
    for (int i = 2; i < 4; i++) {
        job = profile_job(&b, &m[i], 400);
        worker_profile(b.worker, &job);
    }
    worker_profile_cancel(b.worker);
    for (int i = 2; i < 4; i++) {
        wait_for(&b, &m[i].n, 1);
        assert_int_equal(m[i].e, ERR_CANCELLED);
    }
    job = profile_job(&b, &m[0], 400);
    worker_profile(b.worker, &job);
    bench_close(&b);
    assert_int_equal(m[0].n, 1); /* nobody was told */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_same_bits_as_the_executor),
        cmocka_unit_test(test_results_go_home),
        cmocka_unit_test(test_epochs),
        cmocka_unit_test(test_load_fails),
        cmocka_unit_test(test_bad_steps),
        cmocka_unit_test(test_load_replaces_what_waits),
        cmocka_unit_test(test_queue_is_bounded),
        cmocka_unit_test(test_close_in_the_midst),
        cmocka_unit_test(test_trace),
        cmocka_unit_test(test_trail),
        cmocka_unit_test(test_profile),
        cmocka_unit_test(test_profile_is_cancelled),
        cmocka_unit_test(test_sums),
        cmocka_unit_test(test_sums_of_two_stages),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
