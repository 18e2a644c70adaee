/* The pool's threads: jobs run beside the event loop and are told of on it; lanes do not hold each
 * other up; closing tells of every job, whether it ran or not. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>
#include <event2/event.h>
#include <pthread.h>
#include <semaphore.h>
#include <signal.h>

#include "head/pool.h"

enum { JOBS = 200 };

static const int threads[POOL_LANES] = {[POOL_QUICK] = 1, [POOL_SLOW] = 2};
static struct event_base *base;
static struct pool *pool;
static pthread_t loop_thread;
static int n_told, n_wanted;

struct work {
    sem_t *await, *post; /* while it runs */
    int number;
    bool elsewhere, blocked; /* not on the loop's thread; no signal comes there */
    int ran, told_as;        /* ran: 1 + how many had begun before it */
    bool gives_more;
};

static int n_begun; /* of one lane with one thread */

static void run(void *user)
{
    struct work *w = user;
    sigset_t set;

    w->elsewhere = !pthread_equal(pthread_self(), loop_thread);
    pthread_sigmask(SIG_SETMASK, NULL, &set);
    w->blocked = sigismember(&set, SIGTERM) && sigismember(&set, SIGINT);
    if (w->post)
        sem_post(w->post);
    if (w->await)
        sem_wait(w->await);
    w->ran = 1;
}

static void run_counted(void *user)
{
    struct work *w = user;

    w->ran = ++n_begun;
}

static void give(struct work *w, enum pool_lane lane, void (*fn)(void *user));

static void done(void *user, int ran)
{
    struct work *w = user;

    assert_true(pthread_equal(pthread_self(), loop_thread));
    assert_int_equal(!!w->ran, ran);
    w->told_as = 1 + n_told++;
    if (w->gives_more) {
        w->gives_more = false;
        w->ran = 0;
        give(w, POOL_QUICK, run);
    }
    if (n_told == n_wanted)
        event_base_loopbreak(base);
}

static void give(struct work *w, enum pool_lane lane, void (*fn)(void *user))
{
    pool_give(pool, lane, (struct pool_job){.run = fn, .done = done, .user = w});
}

/* Turns the loop until n jobs have been told of. */
static void await(int n)
{
    n_wanted = n;
    if (n_told < n)
        event_base_loop(base, EVLOOP_NO_EXIT_ON_EMPTY);
    assert_int_equal(n_told, n);
}

static int open_pool(void **state)
{
    (void)state;
    n_told = n_begun = 0;
    n_wanted = -1;
    loop_thread = pthread_self();
    base = event_base_new();
    pool = pool_new(base, threads);
    return 0;
}

static int close_pool(void **state)
{
    (void)state;
    pool_close(pool);
    pool = NULL;
    event_base_free(base);
    return 0;
}

static void a_job_runs_elsewhere_and_is_told_here(void **state)
{
    struct work a = {0}, b = {0};

    (void)state;
    give(&a, POOL_QUICK, run);
    give(&b, POOL_SLOW, run);
    await(2);
    assert_true(a.elsewhere && b.elsewhere);
    assert_true(a.blocked && b.blocked);
}

static void jobs_of_a_lane_begin_in_order(void **state)
{
    static struct work w[JOBS];

    (void)state;
    memset(w, 0, sizeof w);
    for (int i = 0; i < JOBS; i++)
        give(&w[i], POOL_QUICK, run_counted);
    await(JOBS);
    for (int i = 0; i < JOBS; i++) {
        assert_int_equal(w[i].ran, i + 1);
        assert_int_equal(w[i].told_as, i + 1);
    }
    assert_int_equal(pool_waiting(pool, POOL_QUICK), 0);
}

static void a_slow_job_holds_no_quick_one_up(void **state)
{
    struct work slow[3] = {{0}}, quick = {0};
    sem_t gate, begun;

    (void)state;
    sem_init(&gate, 0, 0);
    sem_init(&begun, 0, 0);
    for (int i = 0; i < 3; i++) {
        slow[i].await = &gate;
        slow[i].post = &begun;
        give(&slow[i], POOL_SLOW, run);
    }
    sem_wait(&begun);
    sem_wait(&begun); /* both threads are busy, the third job waits */
    assert_int_equal(pool_waiting(pool, POOL_SLOW), 1);
    give(&quick, POOL_QUICK, run);
    await(1);
    assert_int_equal(quick.told_as, 1);
    for (int i = 0; i < 3; i++)
        sem_post(&gate);
    await(4);
    sem_destroy(&gate);
    sem_destroy(&begun);
}

static void who_is_told_may_give_more(void **state)
{
    struct work w = {.gives_more = true};

    (void)state;
    give(&w, POOL_SLOW, run);
    await(2);
    assert_int_equal(w.told_as, 2);
}

static void *open_gate(void *user)
{
    sem_post(user);
    return NULL;
}

static void closing_tells_of_every_job(void **state)
{
    struct work first = {0}, second = {.gives_more = true}, third = {0};
    sem_t gate, begun;
    pthread_t helper;

    (void)state;
    sem_init(&gate, 0, 0);
    sem_init(&begun, 0, 0);
    first.await = &gate;
    first.post = &begun;
    give(&first, POOL_QUICK, run);
    give(&second, POOL_QUICK, run);
    give(&third, POOL_QUICK, run);
    sem_wait(&begun);
    assert_int_equal(pthread_create(&helper, NULL, open_gate, &gate), 0);
    pool_close(pool); /* waits for the first; what of the others ran is told as it was */
    pool = NULL;
    assert_int_equal(pthread_join(helper, NULL), 0);
    assert_int_equal(first.ran, 1);
    assert_int_equal(n_told, 4); /* the second gave one more, which did not run */
    assert_int_equal(second.ran, 0);
    sem_destroy(&gate);
    sem_destroy(&begun);
}

int main(void)
{
#define POOL_TEST(fn) cmocka_unit_test_setup_teardown(fn, open_pool, close_pool)
    const struct CMUnitTest tests[] = {
        POOL_TEST(a_job_runs_elsewhere_and_is_told_here),
        POOL_TEST(jobs_of_a_lane_begin_in_order),
        POOL_TEST(a_slow_job_holds_no_quick_one_up),
        POOL_TEST(who_is_told_may_give_more),
        POOL_TEST(closing_tells_of_every_job),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
