/* What the core's own files know of it:
 *
 *   core.c        events, clients and the queue of each, time
 *   core_epoch.c  members, plans and the life of an epoch
 *   core_flight.c asks on their way: checked, sent, come home
 *   core_slots.c  the picture of every slot, and its tags
 *
 * Invariants: steps are under way only while `live`; a client's asks are sent in order and answered
 * in order; `unanswered` asks of a client = queued + under way. */
#ifndef LINGUA_HEAD_CORE_IMPL_H
#define LINGUA_HEAD_CORE_IMPL_H

#include "head/core.h"

enum { FLIGHT_MAX = CORE_FLIGHT_PER_STAGE * PLAN_STAGES_MAX };

/* An ask that waits, with its arrays behind it in one block of memory. */
struct ask {
    uint64_t number;
    int64_t arrived_us;
    enum err code; /* not ERR_NONE: it is bad whatever its slots hold, and why says so */
    struct err_text why;
    int n_ops, n_rows, n_want;
    struct slot_op *ops;
    int32_t *slot, *pos, *token; /* (n_rows) */
    uint8_t *want;
};

struct client {
    bool open;
    int number; /* the driver's */
    int n_slots;
    int slot[WIRE_SLOTS_MAX]; /* the core's slot of each of the client's */
    int n_flying;
    uint64_t told;       /* the last step sent when it was last told that its slots are empty */
    bool asked;          /* at least once */
    uint64_t last_asked; /* its number */
    int first, n_asks;
    struct ask *asks[CORE_ASKS_MAX]; /* a ring of n_asks from first */
};

struct slot {
    int client;    /* index, or -1 */
    int len, cap;  /* as it will be after every step sent */
    uint64_t *tag; /* (len): tag[i] is of tokens 0..i */
    bool
        needs_empty; /* on the devices it may hold more than len = 0 says: truncate it before use */
    bool emptied;    /* by us, and the client has not begun it anew */
};

/* A step under way. */
struct flight {
    uint64_t number, ask;
    int client; /* index; -1: gone */
};

/* A plan with the members that are its devices. */
struct crew {
    struct plan plan;
    int members[PLAN_DEVICES_MAX];
};

struct member {
    int number;
    bool failed, drained; /* left out of plans */
};

enum phase { PHASE_NONE, PHASE_FETCHING, PHASE_SWITCHING, PHASE_LOADING };
/* Of the next epoch. SWITCHING: everything is fetched, and the old one's last steps are awaited. */

struct core {
    struct core_opts opts;
    int64_t now_us;
    void (*act)(void *user, const struct core_action *action); /* only while a core_step runs */
    void *user;

    /* core_epoch.c */
    int n_members;
    struct member members[CORE_MEMBERS_MAX]; /* those who are there */
    struct crew cur;                         /* runs when live, else the last that did */
    bool live, had_cur;
    int64_t stopped_us; /* since when nothing runs, when not live */
    enum phase phase;
    struct crew next;
    bool done[PLAN_DEVICES_MAX];        /* who of next is through with the phase */
    int64_t moved_us[PLAN_DEVICES_MAX]; /* when each of next last got on */
    uint32_t last_epoch, last_ticket;
    uint32_t ticket;                  /* under way at the planner; 0 = none */
    int64_t solve_us, solve_first_us; /* when to ask it next; INT64_MAX = not */
    bool asked;                       /* it has been asked at least once */
    int64_t grace_us;                 /* until when lost is waited for; INT64_MAX = not */
    struct crew lost;                 /* what comes back if everybody in it does */
    enum err trouble;                 /* why there is no plan */
    struct err_text trouble_text;

    /* core_flight.c */
    uint64_t next_number;
    int64_t home_us; /* steps under way: when one came home, or the first of them was sent */
    int flight_first, n_flight;
    struct flight flights[FLIGHT_MAX];
    int turn; /* the client looked at first */
    struct slot_op ops[WIRE_OPS_MAX];
    int32_t *row_slot; /* (n_rows_max) */
    uint64_t *row_tag; /* (2 * n_rows_max) */

    /* core_slots.c */
    struct slot *slots; /* (n_slots) */
    uint64_t tag_empty;

    struct client clients[CORE_CLIENTS_MAX];
};

void core_act(struct core *c, const struct core_action *action);
void core_say(struct core *c, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
void core_reply(struct core *c, int client, uint64_t number, enum err code, const char *text);

/* ---- core_epoch.c ---- */

void epoch_init(struct core *c);
void epoch_up(struct core *c, int member);
void epoch_down(struct core *c, int member, const char *text);
void epoch_drain(struct core *c, int member);
void epoch_changed(struct core *c);
void epoch_planned(struct core *c, const struct core_event *ev);
void epoch_progress(struct core *c, int member);
void epoch_fetched(struct core *c, int member, uint32_t epoch);
void epoch_member_ready(struct core *c, int member, uint32_t epoch);
void epoch_failed(struct core *c, const struct core_event *ev);
/* What has become due: planning, the end of grace, the change to the next epoch. */
void epoch_tick(struct core *c);
int64_t epoch_next_us(const struct core *c);
/* What is waited for, when not live. */
const char *epoch_waits_for(const struct core *c);

/* ---- core_flight.c ---- */

/* Queues or refuses. i is the client's index. */
void flight_ask(struct core *c, int i, const struct core_ask *ask);
void flight_home(struct core *c, const struct core_event *ev);
/* Takes asks in turn as long as there is room, and answers those that cannot be taken. */
void flight_pump(struct core *c);
/* Answers those who have waited long enough. */
void flight_expire(struct core *c);
int64_t flight_next_us(const struct core *c);
/* Every step under way is lost; their asks are answered. */
void flight_lose(struct core *c, const char *text);
void flight_forget_client(struct core *c, int i);

/* ---- core_slots.c ---- */

void slots_init(struct core *c);
void slots_fini(struct core *c);
/* Gives a client n slots, empty; false when there are not as many left. */
bool slots_take(struct core *c, int i, int n);
void slots_give(struct core *c, int i);
/* The devices begin an epoch with empty slots: those who lose something are told. */
void slots_wipe(struct core *c);
/* Empties all slots of a client, in front of its next step, and tells it. */
void slots_stale(struct core *c, int i);
/* Whether an ask can follow what the slots hold. ERR_CANCELLED: it could, had we not emptied them.
 * */
MUST_CHECK enum err slots_check(const struct core *c, int i, const struct ask *a,
                                struct err_text *et);
/* Carries a checked ask out in the picture and makes a step of it, number and epoch set. s borrows
 * from c and a. */
void slots_apply(struct core *c, int i, const struct ask *a, struct step *s);

#endif
