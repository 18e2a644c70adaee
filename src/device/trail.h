/* What a device did with its newest steps: one record per step and stage, always kept, so that a
 * head can show an answer's timeline after the fact. All room is taken when it is made; adding costs
 * no more than a few stores. One thread. */
#ifndef LINGUA_DEVICE_TRAIL_H
#define LINGUA_DEVICE_TRAIL_H

#include <stdbool.h>
#include <stdint.h>

#include "wire/cluster.h"

struct trail; /* holds the newest WIRE_TRACE_MAX records */

struct trail *trail_new(void);
void trail_free(struct trail *t); /* NULL is fine */

/* Times grow from arrived to sent. */
void trail_add(struct trail *t, uint32_t epoch, const struct wire_trace_record *r);

/* What comes from here on is to be taken by trail_take; off: nothing is. */
void trail_mark(struct trail *t, bool on);
/* Records since the mark, or since the last take, the oldest first; those that were pushed out are
 * missing. out has room for WIRE_TRACE_MAX; returns how many. */
int trail_take(struct trail *t, struct wire_trace_record *out);
/* Records of the steps first..last of an epoch, the oldest first; changes nothing. The same out. */
int trail_look(const struct trail *t, uint32_t epoch, uint64_t first, uint64_t last,
               struct wire_trace_record *out);

#endif
