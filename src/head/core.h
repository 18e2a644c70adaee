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
 * Steps: numbered from 1 within the epoch, none left out; at most FLIGHT_PER_STAGE per stage under
 * way, prefill chunks back to back. A client's steps are answered in its own order; clients take
 * turns, one step each. Slot changes travel in front of the rows of the ask that brings them; an
 * ask of slot changes alone is a step without rows. When none comes home for STEP_US they are given
 * up, and the epoch begins anew: some device lost one, and nobody can say which.
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

enum {
    CORE_MEMBERS_MAX = PLAN_DEVICES_MAX,
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
};

enum core_action_kind {
    CORE_SOLVE,  /* ticket, members[n]: who could take part; answer with CORE_PLANNED */
    CORE_ASSIGN, /* epoch, plan, members: tell them */
    CORE_LOAD,   /* epoch, number: the last step of the old one */
    CORE_SEND,   /* step, in the core's slots and numbers: to stage 0 */
    CORE_REPLY,  /* client, number, code, text: its ask is answered; with ERR_NONE and wanted rows
                    the logits are those of the CORE_HOME being handled */
    CORE_STALE,  /* client: all its slots are empty now */
    CORE_OPENED, /* client, or code and text (ERR_LIMIT: no slots left) */
    CORE_STUCK,  /* member, epoch: answer with CORE_FAILED, for only the driver knows its name */
    CORE_SAY,    /* text, for the log and the user's eye */
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
    const char *text; /* what it waits for, in words; "" when running */
};
struct core_view core_view(const struct core *c);
/* For tests: what the core believes a client's slot holds. */
int core_slot_len(const struct core *c, int client, int slot);

#endif
