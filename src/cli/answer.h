/* One answer of a session, streamed to stdout, and Ctrl-C, which stops it. */
#ifndef LINGUA_CLI_ANSWER_H
#define LINGUA_CLI_ANSWER_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "lingua/lingua.h"

enum answer_end {
    ANSWER_STOP,      /* the model ended it */
    ANSWER_LENGTH,    /* as many tokens as were asked for */
    ANSWER_CONTEXT,   /* the context is full */
    ANSWER_CANCELLED, /* Ctrl-C */
    ANSWER_FAILED,    /* error has the sentence */
    ANSWER_UNHEARD,   /* stdout failed; out_reason is its errno */
};

struct answer {
    enum answer_end end;
    char *text; /* all of it, n_text bytes */
    size_t n_text;
    int n_tokens;
    struct ll_stats stats;
    struct ll_error error;
    int out_reason;
};

/* n_max < 0: until the model or the context ends it. a is freed with answer_fini. */
void answer_make(struct ll_session *session, int64_t n_max, bool show, struct answer *a);
void answer_fini(struct answer *a);
const char *answer_end_name(enum answer_end end); /* "stop", "length", "context", "cancelled" */

/* The last line: tokens, time to the first, tokens per second; with the seed when seed is not
 * NULL. */
void answer_report(const struct answer *a, const uint32_t *seed);
json_t *answer_timings(const struct answer *a);
double per_second(double n, double ms); /* 0 when there is no time to divide by */

/* From here on Ctrl-C cancels the answer under way instead of ending the program. patience is how
 * many times it may be pressed in one answer before the program ends after all: a session notices
 * only between two steps, and a step can take long. */
void interrupts_take(int patience);
int interrupts_count(void); /* presses so far */

#endif
