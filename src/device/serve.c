#include "device/serve.h"

#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>

#include "base/check.h"
#include "base/mem.h"
#include "base/sys.h"
#include "device/conn.h"
#include "device/executor.h"
#include "plan/plan.h"
#include "wire/message.h"
#include "wire/step.h"

enum { FLUSH_TIMEOUT_MS = 2000 };

struct link {
    int device;
    struct conn conn;
};

struct device {
    struct conn control;
    int n_links;
    struct link link[PLAN_DEVICES_MAX];
    struct wire_config config;
    struct plan plan;
    struct model *model;
    struct compute *compute;
    struct executor *executor;
    struct step_codec *codec;
    uint64_t decode_sent_bytes;
    bool stopped;
};

/* Waits until something can be read or written, and does both. */
static enum err pump(struct device *d, struct err_text *et)
{
    struct pollfd fds[PLAN_DEVICES_MAX + 1];
    struct conn *conns[PLAN_DEVICES_MAX + 1];
    nfds_t n = 0;

    conns[n++] = &d->control;
    for (int i = 0; i < d->n_links; i++)
        if (!d->link[i].conn.ended)
            conns[n++] = &d->link[i].conn;
    for (nfds_t i = 0; i < n; i++)
        fds[i] = (struct pollfd){conns[i]->fd, conn_events(conns[i]), 0};
    while (poll(fds, n, -1) < 0)
        if (errno != EINTR)
            return err_system(et, "wait for frames");
    for (nfds_t i = 0; i < n; i++) {
        if (fds[i].revents & POLLOUT)
            conn_flush(conns[i]);
        if (fds[i].revents & (POLLIN | POLLHUP | POLLERR | POLLNVAL))
            conn_read(conns[i]);
    }
    return ERR_NONE;
}

static void send_progress(void *user, uint64_t done, uint64_t total)
{
    struct device *d = user;
    struct wire_progress m = {done < total ? done : total, total};
    struct wire_buf buf;
    struct frame_out f;

    wire_progress_encode(&m, &buf, &f);
    conn_send(&d->control, &f);
}

static void send_error(struct device *d, enum err e, const struct err_text *text)
{
    struct wire_error m = {e, *text};
    struct wire_buf buf;
    struct frame_out f;

    wire_error_encode(&m, &buf, &f);
    conn_send(&d->control, &f);
    while (conn_pending(&d->control)) {
        struct pollfd p = {d->control.fd, POLLOUT, 0};

        if (poll(&p, 1, FLUSH_TIMEOUT_MS) <= 0)
            return;
        conn_flush(&d->control);
    }
}

static void send_report(struct device *d)
{
    struct executor_stats s;
    struct wire_report m = {.device = d->config.device, .battery_percent = -1};
    struct wire_buf buf;
    struct frame_out f;

    executor_stats(d->executor, &s);
    m.n_threads = compute_n_threads(d->compute);
    m.weight_bytes = s.weight_bytes;
    m.kv_bytes = s.kv_bytes;
    m.resident_bytes = sys_resident_bytes();
    m.steps = s.steps;
    m.rows = s.rows;
    m.compute_us = s.compute_us;
    m.decode_steps = s.decode_steps;
    m.decode_us = s.decode_us;
    for (int i = 0; i < d->n_links; i++)
        m.sent_bytes += d->link[i].conn.sent_bytes;
    m.decode_sent_bytes = d->decode_sent_bytes;
    wire_report_encode(&m, &buf, &f);
    conn_send(&d->control, &f);
}

/* Waits for CONFIG, the first thing the head says. */
static enum err receive_config(struct device *d, struct err_text *et)
{
    struct frame f;
    bool have;
    enum err e;

    for (;;) {
        e = conn_next(&d->control, &f, &have, et);
        if (e)
            return e;
        if (have)
            break;
        if (d->control.ended)
            return err_set(et, ERR_GONE, "the head left before it said what to load");
        e = pump(d, et);
        if (e)
            return e;
    }
    return wire_config_decode(&f, &d->config, et);
}

static enum err take_config(struct device *d, struct err_text *et)
{
    const struct wire_config *c = &d->config;
    struct wire_hello hello = {WIRE_VERSION, c->device};
    struct wire_buf buf;
    struct frame_out f;

    for (int i = 0; i < c->n_links; i++) {
        d->link[i].device = c->link[i].device;
        conn_init(&d->link[i].conn, c->link[i].fd);
        d->n_links++;
        if (d->link[i].conn.ended)
            return err_system(et, "connection to device %d", c->link[i].device);
    }
    d->plan.epoch = c->epoch;
    d->plan.n_devices = c->n_devices;
    d->plan.n_stages = c->n_stages;
    for (int i = 0; i < c->n_stages; i++)
        d->plan.stage[i] =
            (struct plan_stage){c->stage[i].device, c->stage[i].first, c->stage[i].end};
    wire_hello_encode(&hello, &buf, &f);
    conn_send(&d->control, &f);
    return ERR_NONE;
}

static enum err load(struct device *d, struct err_text *et)
{
    const struct wire_config *c = &d->config;
    struct executor_opts opts = {.progress = send_progress, .user = d};
    struct wire_ready ready = {.device = c->device};
    struct executor_stats stats;
    int stages[PLAN_PER_DEVICE_MAX];
    struct wire_buf buf;
    struct frame_out f;
    enum err e;

    opts.segment = (struct segment_opts){c->n_slots, c->n_ctx, c->n_rows_max, (enum kv_type)c->kv};
    e = model_open(c->path, &d->model, et);
    if (!e)
        e = plan_check(&d->plan, model_n_modules(d->model), et);
    if (e)
        return e;
    send_progress(d, 0, plan_weight_bytes(&d->plan, d->model, c->device));
    e = compute_open(c->n_threads, &d->compute, et);
    if (!e)
        e = executor_open(d->model, d->compute, &d->plan, c->device, &opts, &d->executor, et);
    if (e)
        return e;
    d->codec = step_codec_new();
    executor_stats(d->executor, &stats);
    ready.n_segments = plan_stages(&d->plan, c->device, stages);
    for (int i = 0; i < ready.n_segments; i++) {
        ready.first[i] = d->plan.stage[stages[i]].first;
        ready.end[i] = d->plan.stage[stages[i]].end;
    }
    ready.weight_bytes = stats.weight_bytes;
    ready.kv_bytes = stats.kv_bytes;
    wire_ready_encode(&ready, &buf, &f);
    conn_send(&d->control, &f);
    return ERR_NONE;
}

static void send_on(struct device *d, int to, const struct frame_out *f, bool decode)
{
    for (int i = 0; i < d->n_links; i++)
        if (d->link[i].device == to) {
            conn_send(&d->link[i].conn, f);
            d->decode_sent_bytes += decode ? f->total : 0;
            return;
        }
    CHECK(!"every transfer of the plan has a connection");
}

static enum err run_step(struct device *d, const struct frame *f, struct err_text *et)
{
    struct step s;
    struct frame_out out;
    bool decode;
    enum err e = step_decode(d->codec, f, &s, et);

    if (!e)
        e = executor_run(d->executor, &s, et);
    if (e)
        return e;
    decode = s.n_rows == 1;
    if (s.stage < d->plan.n_stages) {
        step_encode(d->codec, &s, &out);
        send_on(d, d->plan.stage[s.stage].device, &out, decode);
    } else {
        struct result r;

        step_result(&s, model_shape(d->model)->n_vocab, &r);
        result_encode(d->codec, &r, &out);
        send_on(d, 0, &out, decode);
    }
    return ERR_NONE;
}

static enum err take_control(struct device *d, bool *worked, struct err_text *et)
{
    struct frame f;
    enum err e = conn_next(&d->control, &f, worked, et);

    if (e || !*worked)
        return e;
    switch (f.type) {
    case FRAME_STOP:
        d->stopped = true;
        return ERR_NONE;
    case FRAME_REPORT_ASK:
        send_report(d);
        return ERR_NONE;
    default:
        return err_set(et, ERR_PROTO, "the head sent a frame of type %d", f.type);
    }
}

/* One frame, if there is one to work on. */
static enum err work(struct device *d, bool *worked, struct err_text *et)
{
    enum err e = take_control(d, worked, et);

    if (e || *worked)
        return e;
    for (int i = 0; i < d->n_links; i++)
        if (conn_pending(&d->link[i].conn))
            return ERR_NONE;
    for (int i = 0; i < d->n_links; i++) {
        struct conn *c = &d->link[i].conn;
        struct frame f;

        e = conn_next(c, &f, worked, et);
        if (!e && *worked)
            e = run_step(d, &f, et);
        if (e)
            return err_wrap(et, e, "from device %d", d->link[i].device);
        if (*worked)
            return ERR_NONE;
    }
    return ERR_NONE;
}

static enum err serve(struct device *d, struct err_text *et)
{
    while (!d->stopped) {
        bool worked;
        enum err e = work(d, &worked, et);

        if (e)
            return e;
        if (worked)
            continue;
        if (d->control.ended)
            return err_set(et, ERR_GONE, "the head left");
        /* A neighbour's end is the head's to notice and to act on: it hears of it, too. */
        e = pump(d, et);
        if (e)
            return e;
    }
    return ERR_NONE;
}

enum err device_serve(int control_fd, struct err_text *et)
{
    struct device *d = mem_zalloc(1, sizeof *d);
    struct err_text text = {""};
    enum err e;

    conn_init(&d->control, control_fd);
    if (d->control.ended)
        e = err_system(&text, "control connection %d", control_fd);
    else
        e = receive_config(d, &text);
    if (!e)
        e = take_config(d, &text);
    if (!e)
        e = load(d, &text);
    if (!e)
        e = serve(d, &text);
    if (e && e != ERR_GONE)
        send_error(d, e, &text);
    if (e && et)
        *et = text;
    executor_close(d->executor);
    if (d->compute)
        compute_close(d->compute);
    if (d->model)
        model_close(d->model);
    step_codec_free(d->codec);
    for (int i = 0; i < d->n_links; i++)
        conn_fini(&d->link[i].conn);
    conn_fini(&d->control);
    free(d);
    return e;
}
