/* A cluster that generates what a test tells it, one token a time, on the event loop and a real
 * pool, over a real vocabulary: for tests of src/api. It stands in for head/gen.h. */
#ifndef LINGUA_TESTS_API_FAKE_GEN_H
#define LINGUA_TESTS_API_FAKE_GEN_H

#include <stdbool.h>
#include <stdint.h>

#include "head/gen.h"

struct event_base;

enum { FAKE_EMBD = 8, FAKE_PROMPT_MAX = 4096 };

/* What it does; set at any time. */
struct fake_wish {
    const char *answer; /* one token per byte, then the end */
    int n_ctx;
    bool hold;      /* begun generations stay where they are */
    int fail_after; /* tokens; 0 = never. ERR_GONE */
    bool busy;      /* the queue is full */
    bool down;      /* no epoch runs */
    int moved;      /* a number in the cluster's document */
};

/* What it saw. */
struct fake_seen {
    int n_begun, n_running, n_cancelled, n_after;
    struct gen_opts last; /* its pointers mean nothing */
    int n_prompt;
    int32_t prompt[FAKE_PROMPT_MAX];
    int n_stops;
    char stop[GEN_STOPS_MAX][64];
    int n_invited, n_watches, n_documents;
    char drained[64];
};

/* vocab: a GGUF file (support/tiny_vocab.h). */
struct cluster *fake_open(struct event_base *base, const char *vocab, const char *model_name);
void fake_close(struct cluster *c);
struct fake_wish *fake_wish(struct cluster *c);
struct fake_seen *fake_seen(struct cluster *c);
void fake_changed(struct cluster *c); /* whoever looks on is told */

#endif
