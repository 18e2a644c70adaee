/* Work that may go wrong, done in a child process that cannot hurt us: bounds on its time, stack and
 * memory, nothing open but one pipe. For what strangers wrote (a chat template is a program, a
 * schema may nest without end), and for libraries that end the program when they are at a loss.
 * What it gives comes back as bytes, to be read with a stranger's care. Any thread. */
#ifndef LINGUA_BASE_APART_H
#define LINGUA_BASE_APART_H

#include <stddef.h>
#include <stdint.h>

#include "base/err.h"

struct apart_task {
    const char *what; /* the subject of sentences: "the chat template" */
    /* Runs in the child: malloc'd bytes and their number. ERR_INPUT, ERR_LIMIT, ERR_MEMORY or
     * ERR_UNSUPPORTED. */
    enum err (*work)(const void *arg, char **out, size_t *n, struct err_text *et);
    const void *arg;
    void (*prepare)(void); /* in the child, first; may be NULL */
    int cpu_s;             /* of processor time; ten times that by the clock */
    uint64_t memory_bytes; /* beyond what the parent has mapped */
    size_t answer_max;     /* bytes; work gives no more */
};

/* Exit statuses of the child that say how it ended when it could not say it in words; for `prepare`. */
enum { APART_EXIT_DONE = 0, APART_EXIT_MEMORY = 40, APART_EXIT_ABORT, APART_EXIT_LIMITS };

/* gives *out, *n bytes and a terminator: free(). What work returns; ERR_LIMIT when it exceeds its
 * bounds; ERR_INPUT when it ends by an abort; ERR_FILE when there can be no child. */
MUST_CHECK enum err apart_run(const struct apart_task *task, char **out, size_t *n,
                              struct err_text *et);

#endif
