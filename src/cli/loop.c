#include "cli/loop.h"

#include <time.h>
#include <unistd.h>

#include "base/check.h"
#include "base/mem.h"
#include "cli/child.h"
#include "cli/cmd.h"

static void on_signal(evutil_socket_t sig, short what, void *user)
{
    struct loop *l = user;

    (void)what;
    if (l->signal)
        _exit(128 + (int)sig);
    l->signal = (int)sig;
    event_base_loopbreak(l->base);
}

/* Of a signal after the loop, when nobody looks at events any more. */
static void on_overdue(int sig)
{
    _exit(sig == SIGALRM ? STATUS_FAILED : 128 + sig);
}

void loop_init(struct loop *l)
{
    static const int signals[LOOP_SIGNALS] = {SIGINT, SIGTERM, SIGHUP};
    sigset_t held;

    *l = (struct loop){.base = event_base_new()};
    CHECK(l->base);
    /* Events are in the middle one of three queues unless told otherwise; bulk links are in the
     * last (link/link.h). */
    CHECK(event_base_priority_init(l->base, 3) == 0);
    child_hold_signals(&held, &l->before);
    for (int i = 0; i < LOOP_SIGNALS; i++) {
        if (!sigismember(&held, signals[i]))
            continue; /* ignored from the start, as nohup has it */
        l->on_signal[i] = evsignal_new(l->base, signals[i], on_signal, l);
        CHECK(l->on_signal[i] && event_add(l->on_signal[i], NULL) == 0);
    }
}

bool loop_is_told(const struct loop *l)
{
    sigset_t pending;

    (void)l;
    sigpending(&pending);
    return sigismember(&pending, SIGINT) || sigismember(&pending, SIGTERM) ||
           sigismember(&pending, SIGHUP);
}

static void end_soon(struct loop *l)
{
    struct sigaction sa = {.sa_handler = on_overdue};

    sigemptyset(&sa.sa_mask);
    for (int i = 0; i < LOOP_SIGNALS; i++) {
        int sig = l->on_signal[i] ? event_get_signal(l->on_signal[i]) : 0;

        if (!sig)
            continue;
        event_free(l->on_signal[i]);
        l->on_signal[i] = NULL;
        sigaction(sig, &sa, NULL);
    }
    sigaction(SIGALRM, &sa, NULL);
    alarm(LOOP_END_S);
}

void loop_run(struct loop *l)
{
    sigset_t none = l->before;

    pthread_sigmask(SIG_SETMASK, &none, NULL);
    event_base_dispatch(l->base);
    end_soon(l);
}

void loop_fini(struct loop *l)
{
    for (int i = 0; i < LOOP_SIGNALS; i++)
        if (l->on_signal[i])
            event_free(l->on_signal[i]);
    event_base_free(l->base);
    alarm(0);
    pthread_sigmask(SIG_SETMASK, &l->before, NULL);
}
