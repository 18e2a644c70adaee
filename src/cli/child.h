/* Another program, run to its end: its output collected, and stopped when we are told to stop.
 *
 * No shell is involved. While the child runs, SIGINT, SIGTERM and SIGHUP are held back from the
 * calling thread and looked for: one of them ends the child and everything it started, and
 * child_run returns ERR_CANCELLED with the signal's number, so that the caller can put its things
 * in order and then raise the signal again. A caller with things to put in order holds the signals
 * back itself from their beginning to their end. No other thread may take these signals. */
#ifndef LINGUA_CLI_CHILD_H
#define LINGUA_CLI_CHILD_H

#include <signal.h>
#include <stddef.h>

#include "base/err.h"

struct child {
    char *const *argv;       /* argv[0] is looked for in PATH; ends in NULL */
    const char *dir;         /* the child's working folder; NULL = ours */
    unsigned char *out;      /* gets stdout, at most out_cap bytes ... */
    size_t out_cap, out_len; /* ... and out_len counts all that came, even past out_cap */
    char complaint[2048];    /* the start of stderr, terminated */
    int error;               /* errno when it could not be started */
    int status;              /* as from waitpid */
    int signal;              /* what stopped us, or 0 */
};

/* Holds SIGINT, SIGTERM and SIGHUP back from the calling thread, save those the program ignores,
 * and gives the mask to put back with pthread_sigmask. */
void child_hold_signals(sigset_t *held, sigset_t *before);

/* ERR_NONE: the child ended by itself, see status. ERR_FILE: it could not be started. */
MUST_CHECK enum err child_run(struct child *c, struct err_text *et);

#endif
