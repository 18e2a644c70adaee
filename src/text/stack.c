#include "text/stack.h"

#include <pthread.h>
#include <signal.h>
#include <string.h>

#include "base/check.h"

struct call {
    void (*work)(void *arg);
    void *arg;
};

static void *call_main(void *arg)
{
    struct call *c = arg;

    c->work(c->arg);
    return NULL;
}

enum err stack_run(void (*work)(void *arg), void *arg, size_t bytes, struct err_text *et)
{
    struct call call = {work, arg};
    sigset_t all, before;
    pthread_attr_t attr;
    pthread_t thread;
    int failed;

    /* The app's signal handlers are not to run on a thread it does not know. */
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    CHECK(pthread_attr_init(&attr) == 0);
    failed = pthread_attr_setstacksize(&attr, bytes);
    if (!failed)
        failed = pthread_create(&thread, &attr, call_main, &call);
    pthread_attr_destroy(&attr);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (failed)
        return err_set(et, ERR_MEMORY, "no stack of %zu MiB: %s", bytes >> 20, strerror(failed));
    CHECK(pthread_join(thread, NULL) == 0);
    return ERR_NONE;
}
