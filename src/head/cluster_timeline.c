/* The last answer as a timeline: the head notes its own part while it is made (answer_log.h), and
 * devices keep records of their newest steps (device/trail.h). When somebody wants to see it:
 *
 *   1. The log is copied, and the devices of its plan are asked for their records of its steps
 *      (TRACE_ASK with an epoch). Whoever asks for the same answer meanwhile waits along.
 *   2. All have answered, or TRACE_WAIT_MS have passed: a thread of the pool makes the texts that
 *      are wanted, so that tokens do not wait for it.
 *   3. What was collected is kept: an answer that is over is not collected twice.
 *
 * "Last" is what began or ended last; what was turned away or cancelled in the queue does not
 * count. */
#include <stdlib.h>
#include <string.h>

#include "base/check.h"
#include "base/mem.h"
#include "base/sys.h"
#include "head/cluster_impl.h"

/* ---- noting ---- */

void cluster_answer_sent(struct cluster *c, const struct step *s, int64_t now_us)
{
    const struct answer_step step = {
        .number = s->number, .epoch = s->epoch, .rows = s->n_rows, .sent_us = now_us};

    for (int i = 0; i < s->n_rows; i++) {
        struct answer_log *log = c->answer_at[s->slot[i]];

        if (!log || (i && s->slot[i - 1] == s->slot[i]))
            continue;
        if (log->plan.epoch != s->epoch || !log->n) {
            log->plan = c->running.plan;
            log->plan.epoch = s->epoch;
            memcpy(log->member, c->running.member, sizeof log->member);
        }
        answer_log_sent(log, &step);
    }
}

void cluster_answer_home(struct cluster *c, uint32_t epoch, uint64_t number, int64_t now_us)
{
    for (int i = 0; i < c->segment.n_slots; i++)
        if (c->answer_at[i])
            answer_log_home(c->answer_at[i], epoch, number, now_us);
}

void cluster_answer_over(struct cluster *c, struct answer_log *log)
{
    if (!log->started_us) {
        if (c->answer_begun == log)
            c->answer_begun = NULL;
        answer_log_free(log);
        return;
    }
    c->answer_begun = NULL;
    answer_log_free(c->answer_ended);
    c->answer_ended = log;
}

/* ---- collecting ---- */

static const struct answer_log *newest(const struct cluster *c)
{
    return c->answer_begun ? c->answer_begun : c->answer_ended;
}

/* What is collected, or being so, is what somebody who asks now is to see. */
static bool is_current(const struct cluster *c)
{
    const struct timeline_in *in = c->pictures.in;
    const struct answer_log *log = newest(c);

    return in && in->id == (log ? log->id : 0) && in->running == (log && !log->ended_us);
}

static void fill_names(const struct cluster *c, const struct answer_log *log,
                       struct timeline_in *in)
{
    memcpy(in->head, c->member[0].able.name, sizeof in->head);
    for (int s = 0; s < in->n_stages; s++) {
        const struct plan_stage *st = &log->plan.stage[s];
        const struct plan one = {.n_devices = 1, .n_stages = 1, .stage = {{0, st->first, st->end}}};

        memcpy(in->stage[s].name, c->member[log->member[st->device]].able.name,
               sizeof in->stage[s].name);
        plan_describe(&one, c->model, 0, in->stage[s].modules, sizeof in->stage[s].modules);
    }
}

static void fill_predicted(const struct cluster *c, struct timeline_in *in)
{
    const struct place_prediction *of = cluster_prediction(c);

    if (!of || in->epoch != c->running.number || in->n_stages != c->running.plan.n_stages)
        return;
    in->predicted = true;
    in->head_s = of->head_s;
    memcpy(in->compute_s, of->compute_s, (size_t)in->n_stages * sizeof *in->compute_s);
    memcpy(in->hop_s, of->hop_s, ((size_t)in->n_stages + 1) * sizeof *in->hop_s);
}

static void take_own(struct cluster *c, const struct wire_trace_ask *ask)
{
    struct wire_trace_record *r = mem_alloc(WIRE_TRACE_MAX * sizeof *r);
    int n = worker_trace_look(c->worker, ask, r);

    for (int i = 0; i < n; i++)
        (void)timeline_take(c->pictures.in, 0, 0, &r[i]);
    free(r);
}

static void ask_devices(struct cluster *c, const struct answer_log *log)
{
    struct wire_trace_ask ask = {.epoch = c->pictures.in->epoch};
    struct wire_buf buf;
    struct frame_out f;

    if (!timeline_range(c->pictures.in, &ask.first, &ask.last))
        return;
    take_own(c, &ask);
    wire_trace_ask_encode(&ask, &buf, &f);
    for (int d = 1; d < log->plan.n_devices; d++) {
        struct member *m = &c->member[log->member[d]];

        if (!m->link)
            continue;
        link_send(m->link, &f);
        m->n_looks_due++;
    }
}

static void collect(struct cluster *c, int64_t now_us)
{
    struct pictures *p = &c->pictures;
    const struct answer_log *log = newest(c);

    timeline_free(p->in);
    p->in = timeline_new(log, now_us);
    p->collecting = true;
    p->until_us = now_us + (int64_t)TRACE_WAIT_MS * 1000;
    if (!log)
        return;
    p->n_devices = log->plan.n_devices;
    memcpy(p->member, log->member, sizeof p->member);
    fill_names(c, log, p->in);
    fill_predicted(c, p->in);
    ask_devices(c, log);
}

void cluster_timeline_take(struct member *m, const struct wire_trace *t)
{
    struct cluster *c = m->cluster;
    int device = -1;

    if (!m->n_looks_due)
        return;
    m->n_looks_due--;
    for (int d = 1; c->pictures.collecting && d < c->pictures.n_devices; d++)
        if (c->pictures.member[d] == m->id)
            device = d;
    for (int i = 0; device > 0 && i < t->n; i++) {
        struct wire_trace_record r;

        wire_trace_get(t->records + (size_t)i * WIRE_TRACE_BYTES, &r);
        (void)timeline_take(c->pictures.in, device, m->offset_us, &r);
    }
    cluster_timeline_go_on(c, clock_us());
}

/* ---- making texts ---- */

struct picture_job {
    struct cluster *cluster;
    const struct timeline_in *in;
    bool wanted[2];
    char *text[2]; /* by enum cluster_picture */
    size_t len[2];
};

static void job_run(void *user)
{
    struct picture_job *job = user;

    if (job->wanted[CLUSTER_TIMELINE])
        job->text[CLUSTER_TIMELINE] = timeline_text(job->in, &job->len[CLUSTER_TIMELINE]);
    if (job->wanted[CLUSTER_TRACE])
        job->text[CLUSTER_TRACE] = timeline_trace_text(job->in, &job->len[CLUSTER_TRACE]);
}

/* The first of those the batch is for, taken out; false: there is none left. */
static bool batch_next(struct pictures *p, struct asker *out)
{
    for (int i = 0; i < p->n_askers; i++)
        if (p->asker[i].in_batch) {
            *out = p->asker[i];
            memmove(&p->asker[i], &p->asker[i + 1], (size_t)(--p->n_askers - i) * sizeof *p->asker);
            return true;
        }
    return false;
}

static void job_done(void *user, int ran)
{
    struct picture_job *job = user;
    struct cluster *c = job->cluster;
    struct asker a;

    (void)ran; /* when it did not the cluster is closing: there are no texts */
    while (batch_next(&c->pictures, &a))
        a.done(a.user, job->text[a.kind], job->len[a.kind]);
    c->pictures.job = NULL;
    free(job->text[0]);
    free(job->text[1]);
    free(job);
    if (!c->closing)
        cluster_timeline_go_on(c, clock_us());
}

static void make_texts(struct cluster *c)
{
    struct pictures *p = &c->pictures;
    struct picture_job *job = mem_zalloc(1, sizeof *job);

    job->cluster = c;
    job->in = p->in;
    for (int i = 0; i < p->n_askers; i++)
        if (p->asker[i].in_batch)
            job->wanted[p->asker[i].kind] = true;
    p->job = job;
    pool_give(c->pool, POOL_SLOW, (struct pool_job){.run = job_run, .done = job_done, .user = job});
}

/* ---- one after the other ---- */

static bool somebody_is_awaited(const struct cluster *c)
{
    for (int i = 1; i < c->n_members; i++)
        if (c->member[i].link && c->member[i].n_looks_due)
            return true;
    return false;
}

/* What there is is kept, and used again when it is of an answer that is over and all of it came. */
static void begin(struct cluster *c, int64_t now_us)
{
    struct pictures *p = &c->pictures;

    if (!(is_current(c) && p->whole && !p->in->running))
        collect(c, now_us);
    for (int i = 0; i < p->n_askers; i++)
        p->asker[i].in_batch = true;
}

void cluster_timeline_go_on(struct cluster *c, int64_t now_us)
{
    struct pictures *p = &c->pictures;

    if (p->job || (!p->n_askers && !p->collecting))
        return;
    if (!p->collecting)
        begin(c, now_us);
    if (p->collecting && somebody_is_awaited(c) && now_us < p->until_us)
        return;
    if (p->collecting)
        p->whole = !somebody_is_awaited(c);
    p->collecting = false;
    make_texts(c);
}

bool cluster_picture_ask(struct cluster *c, enum cluster_picture kind,
                         void (*done)(void *user, const char *text, size_t n), void *user)
{
    struct pictures *p = &c->pictures;

    if (p->n_askers == ASKERS_MAX || c->closing || !c->pool)
        return false;
    p->asker[p->n_askers++] = (struct asker){kind, done, user, p->collecting && is_current(c)};
    cluster_timeline_go_on(c, clock_us());
    return true;
}

void cluster_picture_forget(struct cluster *c, const void *user)
{
    struct pictures *p = &c->pictures;
    int n = 0;

    for (int i = 0; i < p->n_askers; i++)
        if (p->asker[i].user != user)
            p->asker[n++] = p->asker[i];
    p->n_askers = n;
}

void cluster_timeline_close(struct cluster *c)
{
    struct pictures *p = &c->pictures;

    while (p->n_askers > 0) {
        struct asker a = p->asker[--p->n_askers];

        a.done(a.user, NULL, 0);
    }
    timeline_free(p->in);
    p->in = NULL;
    answer_log_free(c->answer_ended);
    c->answer_ended = c->answer_begun = NULL;
}
