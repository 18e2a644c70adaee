/* A model under test: cut into segments at given modules, all in this thread, run as one.
 *
 * Functions exit with the code's own sentence when it refuses what it should do. */
#ifndef LINGUA_TESTS_RIG_H
#define LINGUA_TESTS_RIG_H

#include "model/segment.h"

enum { RIG_SEGMENTS_MAX = 8 };

struct rig {
    struct model *model;
    struct compute *compute;
    struct segment *segments[RIG_SEGMENTS_MAX];
    int n_segments, n_vocab;
};

/* Cuts are the modules in front of which a new segment begins, ascending; none = whole. */
void rig_open(struct rig *r, const char *path, int n_threads, const struct segment_opts *opts,
              const int *cuts, int n_cuts);
void rig_close(struct rig *r);

/* One step through every segment; logits of the wanted rows go to logits (may be NULL). */
void rig_run(struct rig *r, const struct batch *b, float *logits);
/* The same, refusal returned instead: what the first segment to refuse says. */
enum err rig_try(struct rig *r, const struct batch *b, float *logits, struct err_text *et);

/* Feeds tokens[pos..pos+n) of one slot in chunks of at most `chunk` rows, every row wanted;
 * logits: (n, n_vocab). */
void rig_feed(struct rig *r, int slot, int pos, const int32_t *tokens, int n, int chunk,
              float *logits);

#endif
