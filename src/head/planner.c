#define _GNU_SOURCE
#include "head/planner.h"

#include <errno.h>
#include <event2/event.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "base/check.h"
#include "base/mem.h"
#include "base/sys.h"

struct queue {
    struct planner_job *first, **last;
};

struct planner {
    void (*done)(void *user, struct planner_job *job);
    void *user;
    pthread_t thread;
    pthread_mutex_t lock;
    pthread_cond_t work;
    int wake_fd;
    struct event *woken;
    /* Under the lock. */
    struct queue todo, made;
    bool closing;
};

/* ---- jobs ---- */

struct draft *draft_new(const struct place_problem *problem, int n)
{
    struct draft *d = mem_zalloc(1, sizeof *d);

    CHECK(n >= 1 && n <= PLAN_DEVICES_MAX);
    d->p = *problem;
    d->p.n_devices = n;
    d->p.device = d->device;
    d->p.link = d->link;
    for (int i = 0; i < n; i++) {
        d->device[i].name = d->name[i];
        d->device[i].cost = d->cost[i];
    }
    return d;
}

struct planner_job *planner_job_new(struct draft *draft)
{
    struct planner_job *job = mem_zalloc(1, sizeof *job);

    job->draft = draft;
    return job;
}

void planner_job_free(struct planner_job *job)
{
    if (!job)
        return;
    free(job->draft);
    free(job->report);
    free(job);
}

static void put(struct queue *q, struct planner_job *job)
{
    job->next = NULL;
    if (!q->first)
        q->last = &q->first;
    *q->last = job;
    q->last = &job->next;
}

/* Behind those that are as urgent. */
static void put_first(struct queue *q, struct planner_job *job)
{
    struct planner_job **at = &q->first;

    while (*at && !(*at)->about)
        at = &(*at)->next;
    job->next = *at;
    *at = job;
    if (!job->next)
        q->last = &job->next;
}

static struct planner_job *take(struct queue *q)
{
    struct planner_job *job = q->first;

    if (job)
        q->first = job->next;
    return job;
}

static void empty(struct queue *q)
{
    for (struct planner_job *job; (job = take(q));)
        planner_job_free(job);
}

/* ---- the thread ---- */

/* Whether the plan that runs is good enough to stay. */
static bool may_stay(struct planner_job *job)
{
    struct err_text why;

    if (!job->has_now || place_judge(&job->draft->p, &job->now, &why))
        return false;
    return job->now.score * (1 - PLANNER_STAY) <= job->found.score;
}

/* A plan the person wrote is carried out whatever is said against it: the device itself will say
 * when it does not fit. */
static void judge(struct planner_job *job)
{
    struct err_text why;
    const struct place_problem *p = &job->draft->p;
    const struct plan *plan = &job->found.plan;

    if (!job->code && place_judge(p, &job->found, &why))
        for (int d = 0; d < plan->n_devices; d++)
            job->found.memory_bytes[d] = place_memory(p, plan, d, job->found.used[d]);
}

static void find(struct planner_job *job)
{
    const struct place_problem *p = &job->draft->p;

    if (job->as_told)
        judge(job);
    else if (job->equal)
        job->code = place_equal(p, &job->found, &job->text);
    else
        job->code = place_solve(p, &PLACE_OPTS_DEFAULT, &job->found, &job->text);
}

static void answer(struct planner_job *job)
{
    const struct place_problem *p = &job->draft->p;
    int64_t begun = clock_us();

    find(job);
    job->took_s = (double)(clock_us() - begun) / 1e6;
    if (!job->code && !job->equal && !job->as_told && may_stay(job)) {
        job->now.bound = job->found.bound;
        job->now.gap = 1 - job->found.bound / job->now.score;
        job->now.n_columns = job->found.n_columns;
        job->now.n_rows = job->found.n_rows;
        job->now.n_nodes = job->found.n_nodes;
        job->now.n_orders = job->found.n_orders;
        job->found = job->now;
        job->stayed = true;
    }
    if (!job->code && job->with_report) {
        job->report = mem_zalloc(1, sizeof *job->report);
        report_make(p, &job->found, job->report);
    }
}

static void *work(void *user)
{
    struct planner *pl = user;
    const uint64_t one = 1;

    pthread_mutex_lock(&pl->lock);
    while (!pl->closing) {
        struct planner_job *job = take(&pl->todo);

        if (!job) {
            pthread_cond_wait(&pl->work, &pl->lock);
            continue;
        }
        pthread_mutex_unlock(&pl->lock);
        answer(job);
        pthread_mutex_lock(&pl->lock);
        put(&pl->made, job);
        CHECK(write(pl->wake_fd, &one, sizeof one) == sizeof one);
    }
    pthread_mutex_unlock(&pl->lock);
    return NULL;
}

/* ---- the event loop's side ---- */

static void on_woken(evutil_socket_t fd, short what, void *user)
{
    struct planner *pl = user;
    struct planner_job *job;
    uint64_t n;

    (void)what;
    if (read(fd, &n, sizeof n) < 0 && errno != EAGAIN && errno != EINTR)
        CHECK(!"the planner's eventfd can be read");
    do {
        pthread_mutex_lock(&pl->lock);
        job = take(&pl->made);
        pthread_mutex_unlock(&pl->lock);
        if (job)
            pl->done(pl->user, job);
    } while (job);
}

/* Signals are the program's own business, in its own threads. */
static void start_thread(struct planner *pl)
{
    sigset_t all, old;

    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &old);
    CHECK(pthread_create(&pl->thread, NULL, work, pl) == 0);
    pthread_sigmask(SIG_SETMASK, &old, NULL);
}

struct planner *planner_new(struct event_base *base,
                            void (*done)(void *user, struct planner_job *job), void *user)
{
    struct planner *pl = mem_zalloc(1, sizeof *pl);

    pl->done = done;
    pl->user = user;
    pthread_mutex_init(&pl->lock, NULL);
    pthread_cond_init(&pl->work, NULL);
    pl->wake_fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    CHECK(pl->wake_fd >= 0);
    pl->woken = event_new(base, pl->wake_fd, EV_READ | EV_PERSIST, on_woken, pl);
    CHECK(pl->woken && event_add(pl->woken, NULL) == 0);
    start_thread(pl);
    return pl;
}

void planner_close(struct planner *pl)
{
    if (!pl)
        return;
    pthread_mutex_lock(&pl->lock);
    pl->closing = true;
    pthread_cond_signal(&pl->work);
    pthread_mutex_unlock(&pl->lock);
    pthread_join(pl->thread, NULL);
    empty(&pl->todo);
    empty(&pl->made);
    event_free(pl->woken);
    close(pl->wake_fd);
    pthread_mutex_destroy(&pl->lock);
    pthread_cond_destroy(&pl->work);
    free(pl);
}

void planner_begin(struct planner *pl, struct planner_job *job)
{
    pthread_mutex_lock(&pl->lock);
    if (job->about)
        put(&pl->todo, job);
    else
        put_first(&pl->todo, job);
    pthread_cond_signal(&pl->work);
    pthread_mutex_unlock(&pl->lock);
}
