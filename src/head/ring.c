#define _GNU_SOURCE
#include "head/ring.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "base/check.h"
#include "base/mem.h"
#include "base/sys.h"
#include "device/conn.h"

extern char **environ;

enum {
    HELLO_TIMEOUT_MS = 30000, /* a program that is not lingua never says it */
    STOP_TIMEOUT_MS = 2000,
    END_TIMEOUT_MS = 500, /* from the end of its connections to the end of a process */
    FD_LOWEST = 3,        /* below are the descriptors a child gets anew */
};

struct process {
    pid_t pid; /* 0 = not running, or already waited for */
    int pid_shown;
    struct conn control, data; /* data.fd is -1 unless the plan links it with the head */
    bool said_hello, ready;
    uint64_t done; /* bytes loaded */
    bool reported;
    struct wire_report report;
};

struct ring {
    struct plan plan;
    struct ring_opts opts;
    struct process process[PLAN_DEVICES_MAX]; /* [0] is unused: the head */
    int64_t started_us;
    int dead; /* device that has ended, 0 = none */
    enum err dead_code;
    struct err_text dead_text;
};

/* The child's ends, until it has them. -1 = none. */
struct ends {
    int control[PLAN_DEVICES_MAX];
    int link[PLAN_DEVICES_MAX][PLAN_DEVICES_MAX]; /* [device][to device] */
};

static enum err make_pair(int pair[2], struct err_text *et)
{
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) < 0)
        return err_system(et, "connect device processes");
    for (int i = 0; i < 2; i++) {
        int fd;

        if (pair[i] >= FD_LOWEST)
            continue;
        /* Someone runs us without stdin or stdout; keep clear of what the child will reopen. */
        fd = fcntl(pair[i], F_DUPFD_CLOEXEC, FD_LOWEST);
        close(pair[i]);
        pair[i] = fd;
        if (fd < 0) {
            close(pair[!i]);
            return err_system(et, "connect device processes");
        }
    }
    return ERR_NONE;
}

static enum err make_pairs(struct ring *r, struct ends *ends, struct err_text *et)
{
    int n = r->plan.n_devices, pair[2];
    enum err e;

    for (int d = 1; d < n; d++) {
        e = make_pair(pair, et);
        if (e)
            return e;
        conn_init(&r->process[d].control, pair[0]);
        ends->control[d] = pair[1];
    }
    for (int a = 0; a < n; a++)
        for (int b = a + 1; b < n; b++) {
            if (!plan_linked(&r->plan, a, b))
                continue;
            e = make_pair(pair, et);
            if (e)
                return e;
            if (a == 0)
                conn_init(&r->process[b].data, pair[0]);
            else
                ends->link[a][b] = pair[0];
            ends->link[b][a] = pair[1];
        }
    return ERR_NONE;
}

static void close_end(int *fd)
{
    if (*fd >= 0)
        close(*fd);
    *fd = -1;
}

static void close_ends(struct ends *ends)
{
    for (int d = 0; d < PLAN_DEVICES_MAX; d++) {
        close_end(&ends->control[d]);
        for (int to = 0; to < PLAN_DEVICES_MAX; to++)
            close_end(&ends->link[d][to]);
    }
}

/* dup2 of a descriptor to itself is how posix_spawn says "keep this one open". */
static int inherit(posix_spawn_file_actions_t *actions, const struct ends *ends, int device)
{
    int failed = posix_spawn_file_actions_addopen(actions, 0, "/dev/null", O_RDONLY, 0);

    if (!failed)
        failed = posix_spawn_file_actions_addopen(actions, 1, "/dev/null", O_WRONLY, 0);
    if (!failed)
        failed =
            posix_spawn_file_actions_adddup2(actions, ends->control[device], ends->control[device]);
    for (int to = 0; to < PLAN_DEVICES_MAX && !failed; to++)
        if (ends->link[device][to] >= 0)
            failed = posix_spawn_file_actions_adddup2(actions, ends->link[device][to],
                                                      ends->link[device][to]);
    return failed;
}

/* Ctrl-C is blocked from the first instruction on, until the device ignores it. */
static int child_signals(posix_spawnattr_t *attr)
{
    sigset_t blocked, usual;
    int failed;

    sigemptyset(&blocked);
    sigaddset(&blocked, SIGINT);
    sigemptyset(&usual);
    sigaddset(&usual, SIGTERM);
    sigaddset(&usual, SIGPIPE);
    sigaddset(&usual, SIGCHLD);
    failed = posix_spawnattr_setsigmask(attr, &blocked);
    if (!failed)
        failed = posix_spawnattr_setsigdefault(attr, &usual);
    if (!failed)
        failed = posix_spawnattr_setflags(attr, POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF);
    return failed;
}

static enum err start_process(struct ring *r, const struct ends *ends, int device,
                              struct err_text *et)
{
    const char *program = r->opts.program ? r->opts.program : "/proc/self/exe";
    char fd[16], parent[16];
    char *argv[] = {
        (char *)"lingua", (char *)"device", (char *)"--fd", fd, (char *)"--parent", parent, NULL};
    posix_spawn_file_actions_t actions;
    posix_spawnattr_t attr;
    int failed;

    snprintf(fd, sizeof fd, "%d", ends->control[device]);
    /* "Die with the parent" means with the thread that started it (prctl(2)). Only the main thread
     * is sure to live as long as the chain; otherwise the end of the control connection must do. */
    snprintf(parent, sizeof parent, "%d", syscall(SYS_gettid) == getpid() ? (int)getpid() : 0);
    failed = posix_spawn_file_actions_init(&actions);
    if (failed)
        goto out;
    failed = posix_spawnattr_init(&attr);
    if (failed)
        goto out_actions;
    failed = inherit(&actions, ends, device);
    if (!failed)
        failed = child_signals(&attr);
    if (!failed)
        failed = posix_spawn(&r->process[device].pid, program, &actions, &attr, argv, environ);
    if (failed)
        r->process[device].pid = 0;
    r->process[device].pid_shown = r->process[device].pid;
    posix_spawnattr_destroy(&attr);
out_actions:
    posix_spawn_file_actions_destroy(&actions);
out:
    errno = failed;
    return failed ? err_system(et, "start device %d (%s)", device, program) : ERR_NONE;
}

static void send_config(struct ring *r, const struct ends *ends, int device)
{
    struct wire_config *c = mem_zalloc(1, sizeof *c);
    struct wire_buf buf;
    struct frame_out f;

    c->version = WIRE_VERSION;
    c->device = device;
    c->n_devices = r->plan.n_devices;
    snprintf(c->path, sizeof c->path, "%s", r->opts.model_path);
    c->n_threads = r->opts.n_threads;
    c->n_slots = r->opts.segment.n_slots;
    c->n_ctx = r->opts.segment.n_ctx;
    c->n_rows_max = r->opts.segment.n_rows_max;
    c->kv = (int)r->opts.segment.kv;
    c->epoch = r->plan.epoch;
    c->n_stages = r->plan.n_stages;
    for (int i = 0; i < c->n_stages; i++)
        c->stage[i] = (struct wire_stage){r->plan.stage[i].device, r->plan.stage[i].first,
                                          r->plan.stage[i].end};
    for (int to = 0; to < PLAN_DEVICES_MAX; to++)
        if (ends->link[device][to] >= 0)
            c->link[c->n_links++] = (struct wire_link){to, ends->link[device][to]};
    wire_config_encode(c, &buf, &f);
    conn_send(&r->process[device].control, &f);
    free(c);
}

enum err ring_open(const struct plan *p, const struct ring_opts *opts, struct ring **out,
                   struct err_text *et)
{
    struct ring *r = mem_zalloc(1, sizeof *r);
    struct ends *ends = mem_alloc(sizeof *ends);
    enum err e;

    memset(ends, 0xff, sizeof *ends);
    r->plan = *p;
    r->opts = *opts;
    r->started_us = clock_us();
    for (int d = 0; d < PLAN_DEVICES_MAX; d++)
        r->process[d].control.fd = r->process[d].data.fd = -1;
    if (strlen(opts->model_path) >= WIRE_PATH_MAX)
        e = err_set(et, ERR_INPUT, "the model's path is longer than %d bytes", WIRE_PATH_MAX - 1);
    else
        e = make_pairs(r, ends, et);
    for (int d = 1; d < p->n_devices && !e; d++) {
        e = start_process(r, ends, d, et);
        if (!e)
            send_config(r, ends, d);
    }
    close_ends(ends);
    free(ends);
    if (e) {
        ring_close(r);
        return e;
    }
    *out = r;
    return ERR_NONE;
}

/* Waits at most timeout_ms for a process to end; *status is waitpid's, -1 when the system has
 * forgotten it. */
static bool reap(struct process *p, int timeout_ms, int *status)
{
    int64_t until_us = clock_us() + (int64_t)timeout_ms * 1000;
    const struct timespec nap = {0, 2000000};

    *status = -1;
    while (p->pid) {
        pid_t got = waitpid(p->pid, status, WNOHANG);

        if (got == p->pid || (got < 0 && errno != EINTR)) {
            if (got < 0) /* the program we are part of leaves its children to the system */
                *status = -1;
            p->pid = 0;
        } else if (clock_us() >= until_us) {
            return false;
        } else {
            nanosleep(&nap, NULL);
        }
    }
    return true;
}

void ring_close(struct ring *r)
{
    struct wire_buf buf;
    struct frame_out f;
    int64_t until_us = clock_us() + STOP_TIMEOUT_MS * 1000, left_us;
    int status;

    if (!r)
        return;
    wire_empty_encode(FRAME_STOP, &buf, &f);
    for (int d = 1; d < r->plan.n_devices; d++) {
        if (r->process[d].control.fd >= 0)
            conn_send(&r->process[d].control, &f);
        /* The end of its control connection says the same to a device that has stopped reading. */
        conn_fini(&r->process[d].control);
        conn_fini(&r->process[d].data);
    }
    for (int d = 1; d < r->plan.n_devices; d++) {
        struct process *p = &r->process[d];

        left_us = until_us - clock_us();
        if (!reap(p, left_us > 0 ? (int)(left_us / 1000) : 0, &status)) {
            kill(p->pid, SIGKILL);
            while (waitpid(p->pid, &status, 0) < 0 && errno == EINTR)
                ;
        }
    }
    free(r);
}

static void read_and_write(struct conn *c, short revents)
{
    if (revents & POLLOUT)
        conn_flush(c);
    if (revents & (POLLIN | POLLHUP | POLLERR | POLLNVAL))
        conn_read(c);
}

static enum err pump(struct ring *r, int timeout_ms, struct err_text *et)
{
    struct pollfd fds[2 * PLAN_DEVICES_MAX];
    struct conn *conns[2 * PLAN_DEVICES_MAX];
    nfds_t n = 0;
    int ready;

    for (int d = 1; d < r->plan.n_devices; d++) {
        struct process *p = &r->process[d];

        if (!p->control.ended)
            conns[n++] = &p->control;
        if (p->data.fd >= 0 && !p->data.ended)
            conns[n++] = &p->data;
    }
    for (nfds_t i = 0; i < n; i++)
        fds[i] = (struct pollfd){conns[i]->fd, conn_events(conns[i]), 0};
    ready = poll(fds, n, timeout_ms);
    if (ready < 0 && errno != EINTR)
        return err_system(et, "wait for devices");
    for (nfds_t i = 0; i < n && ready > 0; i++)
        read_and_write(conns[i], fds[i].revents);
    return ERR_NONE;
}

static enum err bury(struct ring *r, int device, enum err e, const struct err_text *text,
                     struct err_text *et)
{
    if (!r->dead) {
        r->dead = device;
        r->dead_code = e;
        r->dead_text = *text;
    }
    if (et)
        *et = r->dead_text;
    return r->dead_code;
}

/* A device's connections have ended and it left no words: what the system says of its end. */
static enum err ended(struct ring *r, int device, struct err_text *et)
{
    struct process *p = &r->process[device];
    const char *when = p->ready ? "" : " before it was ready";
    struct err_text text;
    int status;

    if (!reap(p, END_TIMEOUT_MS, &status))
        err_set(&text, ERR_GONE, "device %d (process %d) closed its connections%s", device,
                p->pid_shown, when);
    else if (status != -1 && WIFSIGNALED(status))
        err_set(&text, ERR_GONE, "device %d (process %d) was killed by signal %d (%s)%s", device,
                p->pid_shown, WTERMSIG(status), strsignal(WTERMSIG(status)), when);
    else if (status != -1 && WIFEXITED(status))
        err_set(&text, ERR_GONE, "device %d (process %d) ended with status %d%s", device,
                p->pid_shown, WEXITSTATUS(status), when);
    else
        err_set(&text, ERR_GONE, "device %d (process %d) ended%s", device, p->pid_shown, when);
    return bury(r, device, ERR_GONE, &text, et);
}

static enum err take_control(struct ring *r, int device, const struct frame *f, struct err_text *et)
{
    struct process *p = &r->process[device];
    struct wire_progress progress;
    struct wire_hello hello;
    struct wire_ready ready;
    struct wire_error error;
    enum err e;

    switch (f->type) {
    case FRAME_HELLO:
        e = wire_hello_decode(f, &hello, et);
        p->said_hello = !e;
        return e;
    case FRAME_PROGRESS:
        e = wire_progress_decode(f, &progress, et);
        p->done = e ? p->done : progress.done;
        return e;
    case FRAME_READY:
        e = wire_ready_decode(f, &ready, et);
        p->ready = !e;
        return e;
    case FRAME_REPORT:
        e = wire_report_decode(f, &p->report, et);
        p->reported = !e;
        return e;
    case FRAME_ERROR:
        e = wire_error_decode(f, &error, et);
        return e ? e : err_set(et, error.code, "%s", error.text.text);
    default:
        return err_set(et, ERR_PROTO, "it sent a control frame of type %d", f->type);
    }
}

/* Everything the devices have said beside the steps. */
static enum err take_controls(struct ring *r, struct err_text *et)
{
    struct err_text text;
    enum err e;

    if (r->dead)
        return bury(r, r->dead, r->dead_code, &r->dead_text, et);
    for (int d = 1; d < r->plan.n_devices; d++) {
        struct process *p = &r->process[d];
        struct frame f;
        bool have = true;

        while (have) {
            e = conn_next(&p->control, &f, &have, &text);
            if (!e && have)
                e = take_control(r, d, &f, &text);
            if (e)
                return bury(r, d, err_wrap(&text, e, "device %d", d), &text, et);
        }
        if (p->control.ended)
            return ended(r, d, et);
    }
    return ERR_NONE;
}

enum err ring_wait_ready(struct ring *r, void (*progress)(void *user, uint64_t done), void *user,
                         struct err_text *et)
{
    uint64_t shown = UINT64_MAX;

    for (;;) {
        uint64_t done = 0;
        bool all = true, hello = true;
        enum err e = take_controls(r, et);

        if (e)
            return e;
        for (int d = 1; d < r->plan.n_devices; d++) {
            struct process *p = &r->process[d];

            done += p->done;
            all = all && p->ready;
            if (!p->said_hello && hello) {
                hello = false;
                if (clock_us() - r->started_us > (int64_t)HELLO_TIMEOUT_MS * 1000)
                    return err_set(et, ERR_GONE,
                                   "device %d does not answer: is %s the lingua program?", d,
                                   r->opts.program ? r->opts.program : "this program");
            }
        }
        if (progress && done != shown)
            progress(user, done);
        shown = done;
        if (all)
            return ERR_NONE;
        e = pump(r, hello ? -1 : 1000, et);
        if (e)
            return e;
    }
}

void ring_send(struct ring *r, int device, const struct frame_out *f)
{
    CHECK(r->process[device].data.fd >= 0);
    conn_send(&r->process[device].data, f);
}

bool ring_pending(const struct ring *r)
{
    for (int d = 1; d < r->plan.n_devices; d++)
        if (conn_pending(&r->process[d].data))
            return true;
    return false;
}

enum err ring_next(struct ring *r, struct frame *f, bool *have, struct err_text *et)
{
    struct err_text text;
    enum err e;

    *have = false;
    for (int d = 1; d < r->plan.n_devices; d++) {
        struct process *p = &r->process[d];

        if (p->data.fd < 0)
            continue;
        e = conn_next(&p->data, f, have, &text);
        if (e)
            return bury(r, d, err_wrap(&text, e, "device %d", d), &text, et);
        if (*have)
            return ERR_NONE;
    }
    return take_controls(r, et);
}

enum err ring_pump(struct ring *r, bool wait, struct err_text *et)
{
    return pump(r, wait ? -1 : 0, et);
}

enum err ring_report(struct ring *r, int device, struct wire_report *out, struct err_text *et)
{
    struct process *p = &r->process[device];
    struct wire_buf buf;
    struct frame_out f;

    p->reported = false;
    wire_empty_encode(FRAME_REPORT_ASK, &buf, &f);
    conn_send(&p->control, &f);
    for (;;) {
        enum err e = take_controls(r, et);

        if (!e && p->reported) {
            *out = p->report;
            return ERR_NONE;
        }
        if (!e)
            e = pump(r, -1, et);
        if (e)
            return e;
    }
}

int ring_pid(const struct ring *r, int device)
{
    return r->process[device].pid_shown;
}

uint64_t ring_sent_bytes(const struct ring *r)
{
    uint64_t bytes = 0;

    for (int d = 1; d < r->plan.n_devices; d++)
        bytes += r->process[d].data.sent_bytes;
    return bytes;
}
