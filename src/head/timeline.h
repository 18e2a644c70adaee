/* The last answer as a timeline: what the head noted of its steps, and what devices' records say of
 * the same, made into spans and into a sum by part. Pure; any thread.
 *
 * How it is made:
 *   1. timeline_new from the head's own log. Times are the head's, and a step's stages lie between
 *      its `sent` and its `home`, whatever a device's clock says: records are moved there
 *      (timeline_take), so that a clock that is a little off shifts a boundary and no more, and a
 *      device that lies spoils its own lane alone.
 *   2. Each step is followed along its stages: wire (sent by the one before, arrived here), wait
 *      (arrived, begun), compute (begun, ended), wait again (ended, handed to the network), and
 *      wire home. Between a step's coming home and the next one's going out the head is at work;
 *      before there is a slot the answer is queued.
 *   3. A sweep over time gives every instant to one part: compute before wire before wait before
 *      head before queue; between several stages at once it is shared. What nothing covers is
 *      `other`. So the parts and `other` add up to the total, always. */
#ifndef LINGUA_HEAD_TIMELINE_H
#define LINGUA_HEAD_TIMELINE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "head/answer_log.h"
#include "head/trace.h"
#include "wire/cluster.h"

enum { TIMELINE_SPANS_MAX = 1 << 17 };

struct timeline_stage {
    int device;               /* of the plan; 0 is the head */
    char name[WIRE_NAME_MAX]; /* of the device */
    char modules[WIRE_TEXT_MAX];
};

/* Of one stage's work on one step, in the head's clock; all 0: there is no record. */
struct timeline_seen {
    int64_t arrived_us, begun_us, ended_us, sent_us;
};

struct timeline_in {
    uint64_t id; /* the answer's; 0: there is none yet */
    bool running;
    int64_t begun_us, started_us, first_us, ended_us; /* started, first: 0 = not yet */
    int n_tokens, n_prompt, n_cached;
    char head[WIRE_NAME_MAX];
    uint32_t epoch; /* of the records; steps of others have none */
    int n_steps, gap;
    struct answer_step *steps; /* (n_steps) in the order they were sent; owned */
    int n_stages;
    struct timeline_stage stage[PLAN_STAGES_MAX];
    struct timeline_seen *seen; /* (n_steps, n_stages); owned */
    bool predicted;             /* seconds per token: */
    double compute_s[PLAN_STAGES_MAX], hop_s[PLAN_STAGES_MAX + 1], head_s;
};

/* now_us: the end, for an answer that is under way. Names of stages are the caller's to fill in. */
struct timeline_in *timeline_new(const struct answer_log *log, int64_t now_us);
void timeline_free(struct timeline_in *in); /* NULL is fine */
/* The steps of in->epoch, for asking devices; false: there are none. */
bool timeline_range(const struct timeline_in *in, uint64_t *first, uint64_t *last);
/* A record of a device of the plan whose clock is offset_us ahead. False: it is of no use (another
 * step, another device's stage, the second of its kind, times that run backwards). */
bool timeline_take(struct timeline_in *in, int device, int64_t offset_us,
                   const struct wire_trace_record *r);
/* Whether every stage of every step that is home has a record. */
bool timeline_complete(const struct timeline_in *in);

enum timeline_kind {
    TIMELINE_COMPUTE, /* in the order in which they count */
    TIMELINE_WIRE,
    TIMELINE_WAIT,
    TIMELINE_HEAD,
    TIMELINE_QUEUE,
    TIMELINE_KINDS,
};

struct timeline_span {
    int lane; /* 0: the head (of wire: home), 1 + stage */
    enum timeline_kind kind;
    int64_t start_us, end_us; /* from the answer's beginning */
    uint64_t step;            /* 0: of none */
    int rows;
};

/* In microseconds. */
struct timeline_parts {
    double queue, head, other, total;
    double compute[PLAN_STAGES_MAX], wait[PLAN_STAGES_MAX], wire[PLAN_STAGES_MAX + 1];
};

struct timeline {
    bool complete;
    int n_spans;
    struct timeline_span *spans;            /* owned */
    struct timeline_parts all, first, rest; /* first: up to the first token */
};
void timeline_make(const struct timeline_in *in, struct timeline *out);
void timeline_fini(struct timeline *t);

/* The records as they lie within their steps, from the answer's beginning on; r has room for one of
 * each step and stage. Returns how many. */
size_t timeline_records(const struct timeline_in *in, struct trace_record *r);

/* Of GET /cluster/timeline (docs/api.md); of /cluster/trace. The caller's to free. */
char *timeline_text(const struct timeline_in *in, size_t *len);
char *timeline_trace_text(const struct timeline_in *in, size_t *len);

#endif
