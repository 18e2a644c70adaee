/* Work on what strangers wrote (a chat template is a program, a schema may nest without end), done
 * in a child process that cannot hurt us: bounds on its time, stack and memory, nothing open but
 * one pipe. What it gives comes back as bytes, to be read with a stranger's care. Inside src/text
 * only. Any thread. */
#ifndef LINGUA_TEXT_CHILD_H
#define LINGUA_TEXT_CHILD_H

#include <stddef.h>

#include "base/err.h"

struct child_task {
    const char *what; /* the subject of sentences: "the chat template" */
    /* Runs in the child: malloc'd bytes and their number. ERR_INPUT, ERR_LIMIT, ERR_MEMORY or
     * ERR_UNSUPPORTED. */
    enum err (*work)(const void *arg, char **out, size_t *n, struct err_text *et);
    const void *arg;
    size_t answer_max; /* bytes; work gives no more */
};

/* gives *out, *n bytes and a terminator: free(). What work returns; ERR_LIMIT when it exceeds its
 * bounds; ERR_INPUT when it breaks llama.cpp; ERR_FILE when there can be no child. */
MUST_CHECK enum err text_child_run(const struct child_task *task, char **out, size_t *n,
                                   struct err_text *et);

#endif
