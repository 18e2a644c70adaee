/* The event loop of a command that runs until it is told to stop: SIGINT, SIGTERM and SIGHUP end
 * it. A second one, or an end that takes longer than LOOP_END_S, ends the program at once, so that
 * nobody has to reach for kill -9. The main thread's. */
#ifndef LINGUA_CLI_LOOP_H
#define LINGUA_CLI_LOOP_H

#include <event2/event.h>
#include <signal.h>
#include <stdbool.h>

enum { LOOP_SIGNALS = 3, LOOP_END_S = 2 };

struct loop {
    struct event_base *base;
    struct event *on_signal[LOOP_SIGNALS];
    sigset_t before;
    int signal; /* what ended it, or 0 */
};

/* The signals are held back from here on, also from threads started later, until loop_run. */
void loop_init(struct loop *l);
void loop_fini(struct loop *l);
/* Whether a signal has come meanwhile: for long work before loop_run. */
bool loop_is_told(const struct loop *l);
/* Returns after a signal, or when someone has broken the loop. What follows is the end, and has
 * LOOP_END_S. */
void loop_run(struct loop *l);

#endif
