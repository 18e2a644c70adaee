/* The head's mind: events in, actions out. No sockets, no clock, no threads: time and every input
 * are arguments, so that a whole cluster can be run on a virtual clock and every surprise is a
 * test.
 *
 * What it keeps: which members are there, the plan and its epoch, every slot's token prefix (as a
 * tag per position) and steps under way. The driver (cluster.c) feeds it and carries its actions
 * out; the two agree on members by small numbers that the driver gives and never uses again for
 * another device.
 *
 * An epoch's life:
 *   1. Somebody came or left, or a plan failed: CORE_SOLVE, once things have been quiet for
 *      SETTLE_US (several devices tend to come together), answered by CORE_PLANNED. When nobody new
 *      fits, the old plan may simply come back.
 *   2. CORE_ASSIGN: every member of the plan is told its part and fetches, while the old epoch
 *      still runs. CORE_FETCHED from all of them.
 *   3. Requests are held back; when no step is under way: CORE_LOAD. Members drop the old epoch,
 *      load, link up. CORE_READY from all of them: RUNNING, and what was held back goes on. Every
 *      slot is empty: clients are told by CORE_STALE and read again.
 *   4. A member that is lost (CORE_DOWN) ends the epoch at once: every client with a step under way
 *      gets CORE_REPLY with ERR_GONE and a sentence that names the device and says what to do. If
 *      the same device comes back within GRACE_US the same plan gets a new epoch and nothing is
 *      shipped; else step 1 for those who are left. Requests wait, at most WAIT_US, then are
 *      answered by a sentence saying what is missing.
 *   5. A member that fails an epoch (full disk, no memory) is left out of the next plan and the
 *      rest goes on; it is asked again when it comes anew. One that neither fails nor gets on
 *      (CORE_PROGRESS) for STUCK_US is made to fail: CORE_STUCK, answered by CORE_FAILED.
 *
 * Two kinds of work share the steps. A *stream* is a request of the API: the core owns its tokens
 * and its slot, and decides what is computed when. A *client* is a program of this machine that
 * owns slots and asks for rows by itself (lingua run --cluster, perplexity); it knows nothing of
 * the others.
 *
 * Steps (core_batch.c): numbered from 1 within the epoch, none left out. One carries rows of many:
 *   1. The decode rows of one group: k groups are under way at once (as many as give the
 *      shortest round by struct core_pace; without it one per stage), so that with n streams
 *      decoding a group is ceil(n / k) rows. A group that is not full waits a little (CORE_HOLD_US)
 *      for those whose token is just being sampled, so that groups do not crumble into single rows.
 *   2. Rows of prompts, as struct core_pace has their costs. They fill up what the kernels' fours
 *      leave over, and go on by fours, as long as the step takes no longer than PACE_STRETCH times
 *      what it takes without. Where none fit (kernels that take rows one by one, a group that is a
 *      full four), steps save up what they may stretch until they do, so that a prompt never has
 *      more than that beside tokens; or, where the groups that decode leave the busiest device idle
 *      for most of a step, they go in steps of their own, as large as a group's. When nobody
 *      decodes: up to n_rows_max. Streams that read take turns, one step each, so that a short
 *      prompt does not wait for a long one; chunks of one prompt go back to back.
 *   3. At most one ask of each client, whole, in turn; its slot changes go in front of the rows.
 *      An ask of up to CORE_DECODE_ROWS rows counts as decoding. A larger one goes when it is its
 *      turn, whatever the pace says: clients choose their own chunks.
 *   4. Rows that want hidden states never share a step with rows that want logits.
 * At most CORE_FLIGHT_PER_STAGE steps per stage are under way. When none comes home for STEP_US
 * they are given up, and the epoch begins anew: some device lost one, and nobody can say which.
 *
 * A stream's life:
 *   1. CORE_REQUEST: refused at once (CORE_ENDED) when it can never fit or the queue is full, else
 *      it waits for a slot. Flows (API keys, addresses) take turns at the queue by start-time fair
 *      queueing: a request is due one turn after the last of its flow, or now; the one longest due
 *      is next. So no flow is served twice before another that waits, and none waits for ever.
 *   2. It gets the free slot that holds the longest prefix of its prompt; what another slot (in
 *      use or not) holds in common beyond that is copied by a slot change in front of its rows.
 *      CORE_STARTED says how much need not be read. The last token of a prompt is always read.
 *   3. It reads, and each row that wants a result is told by CORE_ROW while its CORE_HOME is
 *      handled. A generating stream wants the last row; then it waits for CORE_TOKEN (one token,
 *      or several that were guessed, for speculation), whose last row is wanted, and so on.
 *   4. CORE_END, whenever the driver likes: no further row of it is sent. Steps under way come home
 *      for nothing. The slot keeps its prefix for the next request that begins alike, and is the
 *      first to go when it was used least recently.
 *   5. A new epoch in which nobody was lost (a device joined, a better plan): every stream reads
 *      its tokens again and goes on; nothing is told. A device that is lost ends every stream by
 *      CORE_ENDED with ERR_GONE and the sentence that names it; those still in the queue wait, at
 *      most WAIT_US. A step that failed is read again, STREAM_TRIES_MAX times, then CORE_ENDED.
 * All that continuing after a loss will need is kept: tokens, wanted positions, the slot's tags.
 *
 * What a client sees. Each ask is answered exactly once, in the order of its asks (the one
 * exception: an ask beyond CORE_ASKS_MAX unanswered ones is refused at once, ERR_LIMIT). An answer
 * is
 *   ERR_NONE       done; with wanted rows the logits are those of the CORE_HOME being handled
 *   ERR_INPUT, ERR_LIMIT without CORE_STALE in front: the ask was bad, and nothing has changed
 *   ERR_CANCELLED  "stale", after a CORE_STALE: it builds on what a slot no longer holds
 *   ERR_GONE       the step was lost with a device, or waited for devices for CORE_WAIT_US
 *   others         why a device could not run it, or why there is no plan
 * CORE_STALE means: from here on all your slots are empty, whatever you were told or asked before;
 * read again what you need, from position 0. It comes when an epoch ends and you held something,
 * when a step of yours failed or an ask waited in vain (in front of its answer), and in front of
 * the refusal of every stale ask: asks that were already on their way to the core when it said so
 * are refused one by one until one begins anew, at position 0. So a client that forgets what its
 * slots hold whenever it hears CORE_STALE, and sends again from 0 what was answered with an error,
 * never computes on a wrong prefix.
 *
 * Members: CORE_DOWN makes it be forgotten; CORE_UP after it begins anew, also for one that had
 * failed or was drained (a driver that wants it to stay drained says so again). The head's own
 * device is a member like the others. A FAILED for the running epoch ends it, as a loss does, but
 * is not waited for. Whatever is out of place (an epoch that is over, a number nobody waits for) is
 * ignored or said. */
#ifndef LINGUA_HEAD_CORE_H
#define LINGUA_HEAD_CORE_H

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"
#include "plan/plan.h"
#include "wire/step.h"

struct core;

/* What a step of so many rows takes on the busiest device, by the plan's costs. All 0: not known;
 * four rows are then taken to cost what one does, and k to be one per stage. */
enum { PACE_POINTS = 5 };
struct core_pace {
    int k;                      /* groups under way; 0 = one per stage */
    double step_s[PACE_POINTS]; /* at 1, 2, 4, 8, 16 rows that decode */
    double read_s[PACE_POINTS]; /* of a prompt, whose logits nobody wants */
    double row_s;               /* each row of a prompt beyond 16 */
    double position_s;          /* each row of a prompt, per position in front of it beyond depth */
    int depth;                  /* positions in front of each row in all the others */
    double latency_s;           /* once round for one row, hops and all */
};

enum {
    CORE_MEMBERS_MAX = PLAN_DEVICES_MAX,
    CORE_STREAMS_MAX = 1024, /* waiting and under way */
    CORE_DECODE_ROWS = 2,    /* an ask of so many rows decodes */
    CORE_HOLD_US = 3000, /* or, where it is more, a step's time on the busiest device over SHARE */
    CORE_HOLD_SHARE = 4,
    CORE_HOLD_MAX_US = 50000,
    CORE_STREAM_TRIES_MAX = 3,
    CORE_CLIENTS_MAX = 64,
    CORE_ASKS_MAX = 64, /* of one client, unanswered */
    CORE_FLIGHT_PER_STAGE = 2,
    CORE_SETTLE_US = 300000,
    CORE_GRACE_US = 8000000,
    CORE_WAIT_US = 60000000,
    /* A device that checks gigabytes on a slow card says nothing meanwhile. */
    CORE_STUCK_US = 300000000,
    /* Many rows through large layers on a small board take minutes. */
    CORE_STEP_US = 600000000,
};

struct core_opts {
    int n_slots, n_ctx, n_rows_max;
    uint8_t tag_key[16]; /* random; of the SipHash-2-4 that makes prefix tags */
    int n_vocab;         /* 0: tokens are only checked not to be negative */
    int n_queue_max; /* streams that may wait for a slot; 0 = CORE_STREAMS_MAX - n_slots, which is the most */
};

enum core_event_kind {
    CORE_UP,       /* member; memory and speed are the driver's business */
    CORE_DOWN,     /* member, text: "kitchen-pi stopped answering" */
    CORE_DRAIN,    /* member: leave it out from now on */
    CORE_CHANGED,  /* something the plan depends on is different: solve again */
    CORE_PLANNED,  /* ticket, plan + member of each device; or plan NULL, code and text */
    CORE_PROGRESS, /* member: it gets on with whatever it does for the next epoch */
    CORE_FETCHED,  /* member, epoch */
    CORE_READY,    /* member, epoch */
    CORE_FAILED,   /* member, epoch, code, text: cannot take part in it */
    CORE_OPEN,     /* client, n: wants n slots */
    CORE_CLOSE,    /* client: gone; its slots are freed, its steps' results thrown away */
    CORE_ASK,      /* client, ask */
    CORE_HOME,     /* epoch, number, code, text: a step is back from the last stage */
    CORE_REQUEST,  /* request */
    CORE_TOKEN,    /* client = stream, tokens[n]: what follows; n = 1, or guesses of several */
    CORE_END,      /* client = stream: no more of it; ignored when it has ended */
    CORE_TIME,     /* nothing but that time has passed */
};

/* A client's batch, slots in its own numbering 0..n-1. */
struct core_ask {
    uint64_t number; /* the client's, growing */
    int n_ops;
    const struct slot_op *ops;
    int n_rows;
    const int32_t *slot, *pos, *token; /* (n_rows) */
    const uint8_t *want;
};

/* What comes back for a row. The values of `want` in a step. */
enum core_want { CORE_WANT_NOTHING = 0, CORE_WANT_LOGITS = 1, CORE_WANT_HIDDEN = 2 };

struct core_request {
    int stream; /* the driver's number, never used again */
    int flow;   /* whose it is */
    int after;  /* -1, or a stream with the same beginning: this one waits until that has read its
                   prompt (or has ended), and copies it */
    int n_tokens;
    const int32_t *tokens; /* the prompt, >= 1; copied */
    int n_more;            /* tokens it may add at most; n_tokens + n_more <= n_ctx */
    int want_from;         /* rows from this position on want a result; n_tokens - 1: the last */
    enum core_want want;   /* LOGITS or HIDDEN */
    bool fresh;            /* read everything, whatever slots hold */
    int slot;              /* -1, or the slot it insists on */
};

struct core_event {
    enum core_event_kind kind;
    int member, client, n;
    uint32_t epoch, ticket;
    uint64_t number;
    enum err code;
    const char *text;
    const struct plan *plan;
    const int *members; /* (plan->n_devices): member of each device of the plan */
    const struct core_ask *ask;
    const struct core_request *request;
    const int32_t *tokens;
    const struct core_pace *pace; /* PLANNED: of the plan; NULL = not known */
};

enum core_action_kind {
    CORE_SOLVE,   /* ticket, members[n]: who could take part; answer with CORE_PLANNED */
    CORE_ASSIGN,  /* epoch, plan, members: tell them */
    CORE_LOAD,    /* epoch, number: the last step of the old one */
    CORE_SEND,    /* step, in the core's slots and numbers: to stage 0 */
    CORE_REPLY,   /* client, number, code, text: its ask is answered; with ERR_NONE and wanted rows
                    the logits are those of the CORE_HOME being handled: n_rows from row on */
    CORE_STALE,   /* client: all its slots are empty now */
    CORE_OPENED,  /* client, or code and text (ERR_LIMIT: no slots left) */
    CORE_STUCK,   /* member, epoch: answer with CORE_FAILED, for only the driver knows its name */
    CORE_STARTED, /* client = stream, n = tokens that need not be read, slot */
    CORE_ROW,     /* client = stream, row of the CORE_HOME being handled, n = its position, last:
                     the last wanted one, so the stream now waits for CORE_TOKEN or CORE_END */
    CORE_ENDED,   /* client = stream, code, text: it is over, and it was not the driver's wish.
                     ERR_LIMIT with busy: the queue is full, later it may go */
    CORE_SAY,     /* text, for the log and the user's eye */
};

struct core_action {
    enum core_action_kind kind;
    int member, client, n;
    uint32_t epoch, ticket;
    uint64_t number;
    enum err code;
    const char *text;
    const struct plan *plan;
    const int *members;
    const struct step *step;
    int row, n_rows, slot;
    bool last, busy;
};

enum core_state { CORE_ALONE, CORE_WANTING, CORE_FETCHING, CORE_LOADING, CORE_RUNNING };
/* ALONE: no plan yet, and none asked for. WANTING: no plan that works; text says what is missing.
 * */

struct core *core_new(const struct core_opts *opts);
void core_free(struct core *c);

/* Handles one event. act is called for each action, in order, and may not call back into the core;
 * what the action points to is borrowed for that call. */
void core_step(struct core *c, const struct core_event *event, int64_t now_us,
               void (*act)(void *user, const struct core_action *action), void *user);
/* When CORE_TIME should come at the latest; INT64_MAX = no need. */
int64_t core_next_us(const struct core *c);

struct core_view {
    enum core_state state;
    uint32_t epoch;          /* running, or the last that ran */
    uint32_t coming;         /* that is being made ready; 0 = none, or it was given up */
    const struct plan *plan; /* of epoch; NULL before the first */
    const int *members;
    int n_flight, n_slots_taken;
    int n_streams, n_waiting; /* with a slot; in the queue */
    int n_room;               /* how many more the queue takes */
    const char *text;         /* what it waits for, in words; "" when running */
};
struct core_view core_view(const struct core *c);
/* For tests: what the core believes a client's slot holds. */
int core_slot_len(const struct core *c, int client, int slot);

struct core_slot_view {
    int stream, client; /* -1: not so; both -1: free */
    int len;            /* positions it holds */
    int n_prompt;       /* of the stream's */
};
void core_slot_look(const struct core *c, int slot, struct core_slot_view *out);

#endif
