#include "device/worker.h"

#include <errno.h>
#include <event2/event.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/prctl.h>
#include <unistd.h>

#include "base/check.h"
#include "base/mem.h"
#include "base/sys.h"
#include "device/profile.h"
#include "device/trail.h"

#ifdef __GLIBC__
#include <malloc.h>
#endif

enum { PROGRESS_EVERY_US = 100000, OWN_STAGES_MAX = 2 };

/* Buffers are used again, so that a decode step allocates nothing; what is kept idle is bounded,
 * because prefill's are large and phones are small. */
enum { POOL_ITEMS_MAX = 64, POOL_BYTES_MAX = 4 << 20 };

/* A head lets few steps be under way; more bytes than this is a peer that keeps no rules. */
static const size_t queue_bytes_max = (size_t)256 << 20;

enum item_kind {
    ITEM_STEP, /* in */
    ITEM_LOAD,
    ITEM_UNLOAD,
    ITEM_PROFILE,
    ITEM_OUT, /* out */
    ITEM_PROGRESS,
    ITEM_LOADED,
    ITEM_BAD,
    ITEM_PROFILED,
};

/* A job to measure, and what came of it. */
struct profiling {
    struct worker_profile p;
    char *path, *folder;
    struct wire_profile out;
};

/* A job on its way to the compute thread, or what came of it on its way back. */
struct item {
    struct item *next;
    enum item_kind kind;
    uint8_t *bytes; /* a frame, of STEP and OUT */
    size_t cap, len;
    int64_t arrived_us, begun_us, ended_us;
    struct worker_out out;
    int stage, own;            /* that was run: of the plan, and of this device's */
    bool decodes;              /* a decode step */
    struct worker_load *load;  /* owned */
    struct profiling *profile; /* owned */
    uint32_t epoch;
    uint64_t done, total;
    enum err e;
    struct err_text why;
};

struct queue {
    struct item *first, *last;
    int n;
    size_t bytes;
};

/* Over decode steps since the load, by stage of this device; times are those of the trace. */
struct step_sums {
    uint64_t steps[OWN_STAGES_MAX], arrived_us[OWN_STAGES_MAX], sent_us[OWN_STAGES_MAX],
        compute_us[OWN_STAGES_MAX];
};

struct worker {
    /* The event loop's thread alone. */
    struct event_base *base;
    struct worker_calls calls;
    void *user;
    struct event *woken;
    pthread_t thread;
    struct trail *trail;
    struct step_sums sums;
    bool giving, closed; /* inside a callback; worker_close was called there */

    /* Under the lock. */
    pthread_mutex_t lock;
    pthread_cond_t work;
    struct queue in, out, idle;
    bool quit;
    bool stop_profile; /* the one under way is of no use any more */
    bool waking;       /* the loop's thread has been woken and has not yet looked */
    struct wire_report report;

    /* The compute thread's. */
    int wake_fd; /* written by it, read by the loop's */
    int n_threads;
    struct compute *compute;
    struct model *model;
    struct executor *executor;
    struct step_codec *codec;
    char *path; /* of what is loaded */
    struct plan plan;
    int device;
    bool deaf; /* a bad step came: no later one of this epoch is believed */
    int64_t progress_us;
    uint64_t sent_bytes, decode_sent_bytes;
};

/* ---- items ---- */

static void push(struct queue *q, struct item *it)
{
    it->next = NULL;
    if (q->last)
        q->last->next = it;
    else
        q->first = it;
    q->last = it;
    q->n++;
    q->bytes += it->len;
}

static struct item *pop(struct queue *q)
{
    struct item *it = q->first;

    if (!it)
        return NULL;
    q->first = it->next;
    if (!q->first)
        q->last = NULL;
    q->n--;
    q->bytes -= it->len;
    it->next = NULL;
    return it;
}

static void load_free(struct worker_load *l)
{
    if (!l)
        return;
    free(l->path);
    free(l);
}

static void profiling_free(struct profiling *p)
{
    if (!p)
        return;
    free(p->path);
    free(p->folder);
    free(p);
}

static void item_free(struct item *it)
{
    load_free(it->load);
    profiling_free(it->profile);
    free(it->bytes);
    free(it);
}

static void queue_empty(struct queue *q)
{
    struct item *it;

    while ((it = pop(q)))
        item_free(it);
}

/* An item with room for a frame of len bytes: of the idle ones the smallest that has it, else the
 * largest, made larger. NULL when there is no memory for so much. Under the lock. */
static struct item *item_take(struct worker *w, enum item_kind kind, size_t len)
{
    struct item **best = NULL, *it;

    for (struct item **p = &w->idle.first; *p; p = &(*p)->next)
        if (!best || ((*p)->cap >= len ? (*best)->cap < len || (*p)->cap < (*best)->cap
                                       : (*best)->cap < len && (*p)->cap > (*best)->cap))
            best = p;
    if (best) {
        it = *best;
        *best = it->next;
        w->idle.n--;
        w->idle.bytes -= it->cap;
    } else {
        it = mem_zalloc(1, sizeof *it);
    }
    if (it->cap < len) {
        free(it->bytes); /* what was in it is of no use, so no realloc, which would copy it */
        it->bytes = mem_try(len, 1);
        it->cap = it->bytes ? len : 0;
    }
    if (len && !it->bytes) {
        item_free(it);
        return NULL;
    }
    it->next = NULL;
    it->kind = kind;
    it->len = len;
    it->e = ERR_NONE;
    return it;
}

/* Under the lock. */
static void item_give_back(struct worker *w, struct item *it)
{
    load_free(it->load);
    it->load = NULL;
    profiling_free(it->profile);
    it->profile = NULL;
    if (w->idle.n >= POOL_ITEMS_MAX || w->idle.bytes + it->cap > POOL_BYTES_MAX) {
        item_free(it);
        return;
    }
    it->next = w->idle.first;
    w->idle.first = it;
    w->idle.n++;
    w->idle.bytes += it->cap;
}

/* Under the lock, or when there is no other thread. */
static void pool_empty(struct worker *w)
{
    struct item *it;

    while ((it = w->idle.first)) {
        w->idle.first = it->next;
        item_free(it);
    }
    memset(&w->idle, 0, sizeof w->idle);
}

/* ---- the compute thread ---- */

static struct item *take_sized(struct worker *w, enum item_kind kind, size_t len)
{
    struct item *it;

    pthread_mutex_lock(&w->lock);
    it = item_take(w, kind, len);
    pthread_mutex_unlock(&w->lock);
    return it;
}

static struct item *take(struct worker *w, enum item_kind kind)
{
    struct item *it = take_sized(w, kind, 0);

    CHECK(it);
    return it;
}

/* Hands an item to the event loop's thread. */
static void give(struct worker *w, struct item *it)
{
    const uint64_t one = 1;
    bool wake;

    pthread_mutex_lock(&w->lock);
    push(&w->out, it);
    wake = !w->waking;
    w->waking = true;
    pthread_mutex_unlock(&w->lock);
    while (wake && write(w->wake_fd, &one, sizeof one) < 0 && errno == EINTR)
        ;
}

static void give_error(struct worker *w, enum item_kind kind, uint32_t epoch, enum err e,
                       const struct err_text *why)
{
    struct item *it = take(w, kind);

    it->epoch = epoch;
    it->e = e;
    it->why.text[0] = '\0';
    if (e)
        it->why = *why;
    give(w, it);
}

static void give_progress(void *user, uint64_t done, uint64_t total)
{
    struct worker *w = user;
    int64_t now = clock_us();
    struct item *it;

    if (done && done < total && now - w->progress_us < PROGRESS_EVERY_US)
        return;
    w->progress_us = now;
    it = take(w, ITEM_PROGRESS);
    it->epoch = w->plan.epoch;
    it->done = done < total ? done : total;
    it->total = total;
    give(w, it);
}

static void publish_report(struct worker *w)
{
    struct executor_stats s = {0};
    struct wire_report r = {.device = w->device, .n_threads = w->n_threads, .battery_percent = -1};

    if (w->executor)
        executor_stats(w->executor, &s);
    r.weight_bytes = s.weight_bytes;
    r.kv_bytes = s.kv_bytes;
    r.steps = s.steps;
    r.rows = s.rows;
    r.compute_us = s.compute_us;
    r.decode_steps = s.decode_steps;
    r.decode_us = s.decode_us;
    r.sent_bytes = w->sent_bytes;
    r.decode_sent_bytes = w->decode_sent_bytes;
    pthread_mutex_lock(&w->lock);
    w->report = r;
    pthread_mutex_unlock(&w->lock);
}

static void unload_now(struct worker *w)
{
    bool had = w->model != NULL;

    executor_close(w->executor);
    w->executor = NULL;
    if (w->model)
        model_close(w->model);
    w->model = NULL;
    free(w->path);
    w->path = NULL;
    w->sent_bytes = w->decode_sent_bytes = 0;
    pthread_mutex_lock(&w->lock);
    pool_empty(w);
    pthread_mutex_unlock(&w->lock);
#ifdef __GLIBC__
    /* The next segments may need all the room these had, and the heap keeps what it is given. */
    if (had)
        malloc_trim(0);
#endif
    (void)had;
}

static enum err open_now(struct worker *w, const struct worker_load *l, struct err_text *et)
{
    struct executor_opts opts = {l->segment, give_progress, w};
    enum err e = l->prepare ? l->prepare(l->user, et) : ERR_NONE;

    if (!e)
        e = model_open(l->path, &w->model, et);
    if (!e)
        e = plan_check(&l->plan, model_n_modules(w->model), et);
    if (!e && (l->device < 0 || l->device >= l->plan.n_devices))
        e = err_set(et, ERR_INPUT, "plan: device %d of %d", l->device, l->plan.n_devices);
    if (!e && (unsigned)l->segment.kv > KV_F32)
        e = err_set(et, ERR_UNSUPPORTED, "this build knows no KV cache of type %d",
                    (int)l->segment.kv);
    if (e)
        return e;
    give_progress(w, 0, plan_weight_bytes(&l->plan, w->model, l->device));
    return executor_open(w->model, w->compute, &l->plan, l->device, &opts, &w->executor, et);
}

/* Whether what is loaded can serve the new epoch as it is. */
static bool restart_now(struct worker *w, const struct worker_load *l)
{
    return w->executor && strcmp(w->path, l->path) == 0 &&
           !plan_check(&l->plan, model_n_modules(w->model), NULL) && l->device >= 0 &&
           l->device < l->plan.n_devices &&
           executor_restart(w->executor, &l->plan, l->device, &l->segment);
}

static void load_now(struct worker *w, const struct worker_load *l)
{
    struct err_text why = {""};
    enum err e = ERR_NONE;

    w->deaf = false;
    w->progress_us = 0;
    if (restart_now(w, l)) {
        w->plan = l->plan;
        w->device = l->device;
    } else {
        unload_now(w);
        w->plan = l->plan;
        w->device = l->device;
        e = open_now(w, l, &why);
        if (e)
            unload_now(w);
        else
            w->path = mem_strdup(l->path);
    }
    publish_report(w);
    give_error(w, ITEM_LOADED, l->plan.epoch, e, &why);
}

/* No larger frame may exist, and who asked for it may not stop us by it. */
static void limit_output(struct step *s, enum frame_type type)
{
    if (s->code || step_payload_bytes(&s->in) + WIRE_STEP_HEADER_MAX + FRAME_HEAD_BYTES + 3 <=
                       wire_frame_max(type))
        return;
    s->code = err_set(&s->reason, ERR_LIMIT, "the step's output is too large for a frame");
    memset(&s->in, 0, sizeof s->in);
}

static void encode_output(struct worker *w, const struct step *s, struct frame_out *f)
{
    struct result r;

    if (s->stage < w->plan.n_stages) {
        step_encode(w->codec, s, f);
        return;
    }
    step_result(s, model_shape(w->model)->n_vocab, &r);
    result_encode(w->codec, &r, f);
}

/* A device's stages are counted in the plan's order. */
static int own_stage(const struct worker *w, int stage)
{
    int own = 0;

    for (int i = 0; i < stage; i++)
        own += w->plan.stage[i].device == w->device;
    CHECK(own < OWN_STAGES_MAX);
    return own;
}

static void give_output(struct worker *w, struct step *s, const struct item *job)
{
    bool home = s->stage == w->plan.n_stages;
    struct frame_out f;
    struct item *it;

    limit_output(s, home ? FRAME_RESULT : FRAME_STEP);
    encode_output(w, s, &f);
    it = take_sized(w, ITEM_OUT, f.total);
    if (!it) {
        s->code = err_set(&s->reason, ERR_MEMORY, "no memory for an output of %zu bytes", f.total);
        memset(&s->in, 0, sizeof s->in);
        encode_output(w, s, &f);
        it = take_sized(w, ITEM_OUT, f.total);
        CHECK(it);
    }
    frame_copy(&f, it->bytes);
    it->out = (struct worker_out){.epoch = s->epoch,
                                  .number = s->number,
                                  .to_device = home ? 0 : w->plan.stage[s->stage].device,
                                  .to_stage = s->stage,
                                  .bytes = it->bytes,
                                  .len = f.total,
                                  .n_rows = s->n_rows};
    it->stage = s->stage - 1;
    it->own = own_stage(w, it->stage);
    it->decodes = step_decodes(s);
    it->arrived_us = job->arrived_us;
    it->begun_us = job->begun_us;
    it->ended_us = job->ended_us;
    if (it->out.to_device != w->device) { /* the head's own result goes nowhere */
        w->sent_bytes += f.total;
        w->decode_sent_bytes += s->n_rows == 1 ? f.total : 0;
    }
    publish_report(w); /* first: who has the output may ask at once */
    give(w, it);
}

static void step_now(struct worker *w, struct item *job)
{
    struct step s = {0};
    struct frame f;
    struct err_text why;
    enum err e;

    if (!w->executor || w->deaf)
        return;
    job->begun_us = clock_us();
    e = frame_decode(job->bytes, job->len, &f, &why);
    if (!e)
        e = step_decode(w->codec, &f, &s, &why);
    if (!e && s.epoch != w->plan.epoch)
        return;
    if (!e)
        e = executor_run(w->executor, &s, &why);
    job->ended_us = clock_us();
    if (e) {
        w->deaf = true;
        give_error(w, ITEM_BAD, w->plan.epoch, e, &why);
        return;
    }
    give_output(w, &s, job);
}

static bool profile_stopped(void *user)
{
    struct worker *w = user;
    bool stop;

    pthread_mutex_lock(&w->lock);
    stop = w->quit || w->stop_profile;
    pthread_mutex_unlock(&w->lock);
    return stop;
}

static void profile_now(struct worker *w, struct item *job)
{
    struct profiling *p = job->profile;
    const struct profile_opts opts = {
        .folder = p->folder,
        .memory_bytes = p->p.memory_bytes,
        .windows = p->p.windows,
        .window_ms = p->p.window_ms,
        .stop = profile_stopped,
        .user = w,
    };
    struct item *it = take(w, ITEM_PROFILED);

    it->e = profile_measure(w->compute, p->path, p->p.kv, &opts, &p->out, &it->why);
    it->profile = p;
    job->profile = NULL;
    give(w, it);
}

static void *work(void *arg)
{
    struct worker *w = arg;

    prctl(PR_SET_NAME, "compute"); /* for top -H, and for whoever gives it a share of its own */
    pthread_mutex_lock(&w->lock);
    while (!w->quit) {
        struct item *job = pop(&w->in);

        if (!job) {
            pthread_cond_wait(&w->work, &w->lock);
            continue;
        }
        if (job->kind == ITEM_PROFILE)
            w->stop_profile = false;
        pthread_mutex_unlock(&w->lock);
        if (job->kind == ITEM_LOAD) {
            load_now(w, job->load);
        } else if (job->kind == ITEM_UNLOAD) {
            unload_now(w);
            publish_report(w);
        } else if (job->kind == ITEM_PROFILE) {
            profile_now(w, job);
        } else {
            step_now(w, job);
        }
        pthread_mutex_lock(&w->lock);
        item_give_back(w, job);
    }
    pthread_mutex_unlock(&w->lock);
    return NULL;
}

/* ---- the event loop's thread ---- */

static void keep_trace(struct worker *w, const struct item *it, int64_t sent_us)
{
    const struct wire_trace_record r = {
        .number = it->out.number,
        .stage = (uint64_t)it->stage,
        .rows = (uint64_t)it->out.n_rows,
        .arrived_us = (uint64_t)it->arrived_us,
        .begun_us = (uint64_t)it->begun_us,
        .ended_us = (uint64_t)it->ended_us,
        .sent_us = (uint64_t)sent_us,
    };

    trail_add(w->trail, it->out.epoch, &r);
}

static void add_up(struct worker *w, const struct item *it, int64_t sent_us)
{
    struct step_sums *s = &w->sums;

    if (!it->decodes)
        return;
    s->steps[it->own]++;
    s->arrived_us[it->own] += (uint64_t)it->arrived_us;
    s->sent_us[it->own] += (uint64_t)sent_us;
    s->compute_us[it->own] += (uint64_t)(it->ended_us - it->begun_us);
}

static void tell(struct worker *w, const struct item *it)
{
    int64_t now_us;

    switch (it->kind) {
    case ITEM_OUT:
        now_us = clock_us();
        keep_trace(w, it, now_us);
        add_up(w, it, now_us);
        w->calls.out(w->user, &it->out);
        return;
    case ITEM_PROGRESS:
        w->calls.progress(w->user, it->epoch, it->done, it->total);
        return;
    case ITEM_LOADED:
        if (it->e != ERR_CANCELLED) /* else what was loaded still is */
            w->sums = (struct step_sums){0};
        w->calls.loaded(w->user, it->epoch, it->e, it->why.text);
        return;
    case ITEM_BAD:
        w->calls.bad_step(w->user, it->epoch, it->e, it->why.text);
        return;
    case ITEM_PROFILED:
        it->profile->p.done(it->profile->p.user, it->e, it->e ? it->why.text : "",
                            it->e ? NULL : &it->profile->out);
        return;
    default:
        CHECK(!"only results come out");
    }
}

static void worker_free(struct worker *w)
{
    queue_empty(&w->in);
    queue_empty(&w->out);
    pool_empty(w);
    if (w->woken)
        event_free(w->woken);
    if (w->wake_fd >= 0)
        close(w->wake_fd);
    executor_close(w->executor);
    if (w->model)
        model_close(w->model);
    compute_close(w->compute);
    step_codec_free(w->codec);
    pthread_mutex_destroy(&w->lock);
    pthread_cond_destroy(&w->work);
    free(w->path);
    trail_free(w->trail);
    free(w);
}

static void on_woken(evutil_socket_t fd, short what, void *user)
{
    struct worker *w = user;
    struct queue ready;
    struct item *it;
    uint64_t n;

    (void)what;
    if (read(fd, &n, sizeof n) < 0 && errno != EAGAIN && errno != EINTR)
        CHECK(!"the worker's eventfd can be read");
    pthread_mutex_lock(&w->lock);
    ready = w->out;
    memset(&w->out, 0, sizeof w->out);
    w->waking = false;
    pthread_mutex_unlock(&w->lock);
    w->giving = true;
    while ((it = pop(&ready))) {
        if (!w->closed)
            tell(w, it);
        pthread_mutex_lock(&w->lock);
        item_give_back(w, it);
        pthread_mutex_unlock(&w->lock);
    }
    w->giving = false;
    if (w->closed)
        worker_free(w);
}

/* Signals are the program's own business, in its own threads. */
static int start_thread(struct worker *w)
{
    sigset_t all, old;
    int failed;

    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &old);
    failed = pthread_create(&w->thread, NULL, work, w);
    pthread_sigmask(SIG_SETMASK, &old, NULL);
    return failed;
}

enum err worker_open(struct event_base *base, int n_threads, const struct worker_calls *calls,
                     void *user, struct worker **out, struct err_text *et)
{
    struct worker *w = mem_zalloc(1, sizeof *w);
    enum err e;

    *out = NULL;
    w->base = base;
    w->calls = *calls;
    w->user = user;
    w->n_threads = n_threads;
    w->report.n_threads = n_threads;
    w->report.battery_percent = -1;
    w->codec = step_codec_new();
    w->trail = trail_new();
    pthread_mutex_init(&w->lock, NULL);
    pthread_cond_init(&w->work, NULL);
    w->wake_fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    if (w->wake_fd < 0) {
        e = err_system(et, "start the compute thread");
        goto fail;
    }
    w->woken = event_new(base, w->wake_fd, EV_READ | EV_PERSIST, on_woken, w);
    CHECK(w->woken && event_add(w->woken, NULL) == 0);
    e = compute_open(n_threads, &w->compute, et);
    if (e)
        goto fail;
    errno = start_thread(w);
    if (errno) {
        e = err_system(et, "start the compute thread");
        goto fail;
    }
    *out = w;
    return ERR_NONE;
fail:
    worker_free(w);
    return e;
}

void worker_close(struct worker *w)
{
    if (!w || w->closed)
        return;
    pthread_mutex_lock(&w->lock);
    w->quit = true;
    pthread_cond_signal(&w->work);
    pthread_mutex_unlock(&w->lock);
    pthread_join(w->thread, NULL);
    event_del(w->woken);
    if (w->giving)
        w->closed = true; /* on_woken frees it, once it is out of the callback we are in */
    else
        worker_free(w);
}

/* Hands an item that will not be done back as the answer to it. Under the lock; true when the loop's
 * thread must be woken. */
static bool cancel_item(struct worker *w, struct item *it, enum item_kind kind, const char *why)
{
    bool wake = !w->waking;

    it->kind = kind;
    it->e = err_set(&it->why, ERR_CANCELLED, "%s", why);
    push(&w->out, it);
    w->waking = true;
    return wake;
}

static void wake_loop(struct worker *w)
{
    const uint64_t one = 1;

    CHECK(write(w->wake_fd, &one, sizeof one) == sizeof one);
}

/* What waits is void once something else is to be loaded: steps are dropped, loads and measuring
 * answered. */
static void replace_queue(struct worker *w, struct item *by)
{
    struct item *it;
    bool wake = false;

    pthread_mutex_lock(&w->lock);
    while ((it = pop(&w->in))) {
        if (it->kind == ITEM_PROFILE) {
            wake |= cancel_item(w, it, ITEM_PROFILED, "something is to be loaded instead");
        } else if (it->kind == ITEM_LOAD) {
            it->epoch = it->load->plan.epoch;
            wake |= cancel_item(w, it, ITEM_LOADED, "something else is to be loaded instead");
        } else {
            item_give_back(w, it);
        }
    }
    w->stop_profile = true;
    push(&w->in, by);
    pthread_cond_signal(&w->work);
    pthread_mutex_unlock(&w->lock);
    if (wake)
        wake_loop(w);
}

void worker_load(struct worker *w, const struct worker_load *load)
{
    struct item *it = take(w, ITEM_LOAD);

    it->load = mem_alloc(sizeof *it->load);
    *it->load = *load;
    it->load->path = mem_strdup(load->path);
    replace_queue(w, it);
}

void worker_unload(struct worker *w)
{
    replace_queue(w, take(w, ITEM_UNLOAD));
}

void worker_profile(struct worker *w, const struct worker_profile *p)
{
    struct item *it = take(w, ITEM_PROFILE);

    it->profile = mem_zalloc(1, sizeof *it->profile);
    it->profile->p = *p;
    it->profile->path = mem_strdup(p->path);
    it->profile->folder = p->folder ? mem_strdup(p->folder) : NULL;
    pthread_mutex_lock(&w->lock);
    push(&w->in, it);
    pthread_cond_signal(&w->work);
    pthread_mutex_unlock(&w->lock);
}

void worker_profile_cancel(struct worker *w)
{
    struct queue kept = {NULL, NULL, 0, 0};
    struct item *it;
    bool wake = false;

    pthread_mutex_lock(&w->lock);
    while ((it = pop(&w->in)))
        if (it->kind == ITEM_PROFILE)
            wake |= cancel_item(w, it, ITEM_PROFILED, "measuring was stopped");
        else
            push(&kept, it);
    w->in = kept;
    w->stop_profile = true;
    pthread_mutex_unlock(&w->lock);
    if (wake)
        wake_loop(w);
}

enum err worker_step(struct worker *w, const uint8_t *frame, size_t len, struct err_text *et)
{
    struct item *it;

    pthread_mutex_lock(&w->lock);
    if (w->in.n >= WORKER_QUEUE_MAX || (w->in.n && w->in.bytes + len > queue_bytes_max)) {
        pthread_mutex_unlock(&w->lock);
        return err_set(et, ERR_LIMIT, "more than %d steps or %zu MiB of them wait to be run",
                       WORKER_QUEUE_MAX, queue_bytes_max >> 20);
    }
    it = item_take(w, ITEM_STEP, len);
    pthread_mutex_unlock(&w->lock);
    if (!it)
        return err_set(et, ERR_MEMORY, "no memory for a step of %zu bytes", len);
    memcpy(it->bytes, frame, len);
    it->arrived_us = clock_us();
    pthread_mutex_lock(&w->lock);
    push(&w->in, it);
    pthread_mutex_unlock(&w->lock);
    /* After: who wakes must not find the lock taken, and wait again. */
    pthread_cond_signal(&w->work);
    return ERR_NONE;
}

void worker_report(struct worker *w, struct wire_report *out)
{
    pthread_mutex_lock(&w->lock);
    *out = w->report;
    pthread_mutex_unlock(&w->lock);
    memcpy(out->stage_steps, w->sums.steps, sizeof out->stage_steps);
    memcpy(out->arrived_us, w->sums.arrived_us, sizeof out->arrived_us);
    memcpy(out->sent_us, w->sums.sent_us, sizeof out->sent_us);
    memcpy(out->stage_us, w->sums.compute_us, sizeof out->stage_us);
    out->resident_bytes = sys_resident_bytes();
}

void worker_trace(struct worker *w, bool on)
{
    trail_mark(w->trail, on);
}

int worker_trace_take(struct worker *w, struct wire_trace_record *out)
{
    return trail_take(w->trail, out);
}

int worker_trace_look(const struct worker *w, const struct wire_trace_ask *ask,
                      struct wire_trace_record *out)
{
    return trail_look(w->trail, ask->epoch, ask->first, ask->last, out);
}
