#define _GNU_SOURCE
#include "head/pool.h"

#include <errno.h>
#include <event2/event.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "base/check.h"
#include "base/mem.h"

struct item {
    struct item *next;
    struct pool_job job;
};

struct queue {
    struct item *first, **last;
};

struct lane {
    struct pool *pool;
    int n_threads;
    pthread_t *threads;
    pthread_cond_t work;
    struct queue todo;
    atomic_int n_todo;
};

struct pool {
    pthread_mutex_t lock;
    int wake_fd;
    struct event *woken;
    bool telling; /* inside a `done`; the loop's thread alone */
    /* Under the lock. */
    struct lane lane[POOL_LANES];
    struct queue ran;
    bool waking; /* the loop's thread has been woken and has not yet looked */
    bool closing;
};

/* ---- queues ---- */

static void queue_init(struct queue *q)
{
    q->first = NULL;
    q->last = &q->first;
}

static void put(struct queue *q, struct item *it)
{
    it->next = NULL;
    *q->last = it;
    q->last = &it->next;
}

static struct item *take(struct queue *q)
{
    struct item *it = q->first;

    if (!it)
        return NULL;
    q->first = it->next;
    if (!q->first)
        q->last = &q->first;
    return it;
}

/* ---- the threads ---- */

/* Under the lock. */
static struct item *next_job(struct lane *l)
{
    struct item *it = take(&l->todo);

    if (it)
        atomic_fetch_sub(&l->n_todo, 1);
    return it;
}

/* Under the lock: what ran is to be told. */
static void give_back(struct pool *p, struct item *it)
{
    const uint64_t one = 1;

    put(&p->ran, it);
    if (p->waking)
        return;
    p->waking = true;
    CHECK(write(p->wake_fd, &one, sizeof one) == sizeof one);
}

static void *work(void *user)
{
    struct lane *l = user;
    struct pool *p = l->pool;

    pthread_mutex_lock(&p->lock);
    while (!p->closing) {
        struct item *it = next_job(l);

        if (!it) {
            pthread_cond_wait(&l->work, &p->lock);
            continue;
        }
        pthread_mutex_unlock(&p->lock);
        it->job.run(it->job.user);
        pthread_mutex_lock(&p->lock);
        give_back(p, it);
    }
    pthread_mutex_unlock(&p->lock);
    return NULL;
}

/* ---- the event loop's side ---- */

static void tell(struct pool *p, struct item *it, int ran)
{
    struct pool_job job = it->job;

    free(it);
    p->telling = true;
    job.done(job.user, ran);
    p->telling = false;
}

static void on_woken(evutil_socket_t fd, short what, void *user)
{
    struct pool *p = user;
    struct item *it, *next;
    uint64_t n;

    (void)what;
    if (read(fd, &n, sizeof n) < 0 && errno != EAGAIN && errno != EINTR)
        CHECK(!"the pool's eventfd can be read");
    pthread_mutex_lock(&p->lock);
    it = p->ran.first;
    queue_init(&p->ran);
    p->waking = false;
    pthread_mutex_unlock(&p->lock);
    for (; it; it = next) {
        next = it->next;
        tell(p, it, 1);
    }
}

/* Signals are the program's own business, in its own threads. */
static void start_threads(struct lane *l)
{
    sigset_t all, old;

    l->threads = mem_zalloc((size_t)l->n_threads, sizeof *l->threads);
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &old);
    for (int i = 0; i < l->n_threads; i++)
        CHECK(pthread_create(&l->threads[i], NULL, work, l) == 0);
    pthread_sigmask(SIG_SETMASK, &old, NULL);
}

struct pool *pool_new(struct event_base *base, const int n_threads[POOL_LANES])
{
    struct pool *p = mem_zalloc(1, sizeof *p);

    pthread_mutex_init(&p->lock, NULL);
    queue_init(&p->ran);
    p->wake_fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    CHECK(p->wake_fd >= 0);
    p->woken = event_new(base, p->wake_fd, EV_READ | EV_PERSIST, on_woken, p);
    CHECK(p->woken && event_add(p->woken, NULL) == 0);
    for (int i = 0; i < POOL_LANES; i++) {
        struct lane *l = &p->lane[i];

        CHECK(n_threads[i] >= 1);
        l->pool = p;
        l->n_threads = n_threads[i];
        queue_init(&l->todo);
        pthread_cond_init(&l->work, NULL);
        start_threads(l);
    }
    return p;
}

static void stop_threads(struct pool *p)
{
    pthread_mutex_lock(&p->lock);
    p->closing = true;
    for (int i = 0; i < POOL_LANES; i++)
        pthread_cond_broadcast(&p->lane[i].work);
    pthread_mutex_unlock(&p->lock);
    for (int i = 0; i < POOL_LANES; i++) {
        for (int k = 0; k < p->lane[i].n_threads; k++)
            pthread_join(p->lane[i].threads[k], NULL);
        free(p->lane[i].threads);
    }
}

static struct item *any_left(struct pool *p)
{
    for (int i = 0; i < POOL_LANES; i++)
        if (p->lane[i].todo.first)
            return next_job(&p->lane[i]);
    return NULL;
}

/* Whoever is told may give more, which does not run either. */
static void tell_the_rest(struct pool *p)
{
    struct item *it;

    while ((it = take(&p->ran)))
        tell(p, it, 1);
    while ((it = any_left(p)))
        tell(p, it, 0);
}

void pool_close(struct pool *p)
{
    if (!p)
        return;
    CHECK(!p->telling);
    stop_threads(p);
    tell_the_rest(p);
    for (int i = 0; i < POOL_LANES; i++)
        pthread_cond_destroy(&p->lane[i].work);
    event_free(p->woken);
    close(p->wake_fd);
    pthread_mutex_destroy(&p->lock);
    free(p);
}

void pool_give(struct pool *p, enum pool_lane lane, struct pool_job job)
{
    struct lane *l = &p->lane[lane];
    struct item *it = mem_alloc(sizeof *it);

    it->job = job;
    pthread_mutex_lock(&p->lock);
    put(&l->todo, it);
    atomic_fetch_add(&l->n_todo, 1);
    pthread_mutex_unlock(&p->lock);
    /* After: who wakes must not find the lock taken, and wait again. */
    pthread_cond_signal(&l->work);
}

int pool_waiting(const struct pool *p, enum pool_lane lane)
{
    return atomic_load(&p->lane[lane].n_todo);
}
