/* What the core's own files know of it:
 *
 *   core.c        events, clients and the queue of each, time
 *   core_epoch.c  members, plans and the life of an epoch
 *   core_stream.c requests: the queue, slots for them, what each has read
 *   core_batch.c  what goes into the next step
 *   core_flight.c asks of clients, and steps that come home
 *   core_slots.c  the picture of every slot, and its tags
 *
 * Invariants: steps are under way only while `live`; a client's asks are sent in order and answered
 * in order; `unanswered` asks of a client = queued + under way; a stream has a slot, and the slot
 * the stream, or it waits. */
#ifndef LINGUA_HEAD_CORE_IMPL_H
#define LINGUA_HEAD_CORE_IMPL_H

#include "head/core.h"

enum {
    FLIGHT_MAX = CORE_FLIGHT_PER_STAGE * PLAN_STAGES_MAX,
    PIECES_MAX = CORE_CLIENTS_MAX + 2 * WIRE_SLOTS_MAX, /* of a step */
};

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
    bool decodes;        /* its last ask was small, and wanted something */
    int64_t rest_us;     /* when that was answered, if nothing has come since; INT64_MIN */
    uint64_t served;     /* the turn when an ask of it was last taken */
    bool asked;          /* at least once */
    uint64_t last_asked; /* its number */
    int first, n_asks;
    struct ask *asks[CORE_ASKS_MAX]; /* a ring of n_asks from first */
};

/* A request of the API. */
struct stream {
    bool open;
    int number, flow; /* the driver's */
    int after;        /* number of the stream it waits for; -1 */
    int slot;         /* -1: it waits for one */
    int want_slot;    /* -1, or the only one it takes */
    bool fresh;
    enum core_want want;
    int n_prompt, n_max; /* tokens of the prompt; most there may ever be */
    int n, cap;
    int32_t *tokens; /* (n): the prompt and what came behind it */
    int sent;        /* positions its slot holds, or will once what was sent is done */
    int n_cached;    /* of these, what it held when the stream came to it */
    int want_from;   /* results of the rows from here to n - 1 are wanted */
    int told;        /* results before this position have been told */
    int n_flying;    /* steps under way with rows of it */
    uint64_t failed; /* what fails among the steps up to this one means nothing any more */
    int tries;       /* failures since the last result */
    int64_t arrived_us, rest_us; /* rest: since when it waits for a token; INT64_MIN */
    uint64_t due, served;        /* its turn at the queue; when rows of it were last taken */
};

struct slot {
    int client;    /* index, or -1 */
    int stream;    /* index, or -1; both -1: free, and its prefix may serve again */
    uint64_t used; /* the turn when it became free */
    int len, cap;  /* as it will be after every step sent */
    uint64_t *tag; /* (len): tag[i] is of tokens 0..i */
    bool
        needs_empty; /* on the devices it may hold more than len = 0 says: truncate it before use */
    bool emptied;    /* by us, and the client has not begun it anew */
};

/* Whose rows a step carries, or for whom it changes a slot. */
struct piece {
    int client, stream; /* index of one, the other -1; both -1: gone */
    int slot;           /* the stream's */
    uint64_t ask;       /* the client's number of it */
    int row, n_rows;    /* its rows of the result */
    int pos;            /* of the stream's first wanted row */
};

/* A step under way. */
struct flight {
    uint64_t number;
    bool decodes;
    int n_pieces;
    struct piece *pieces;
};

/* A plan with the members that are its devices. */
struct crew {
    struct plan plan;
    struct core_pace pace;
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
    double saved;       /* time for reading, in the units of cur.pace (core_batch.c) */
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
    int flight_first, n_flight, n_decode_flights;
    struct flight flights[FLIGHT_MAX];

    /* core_batch.c */
    uint64_t turn;   /* grows with each piece taken */
    int64_t hold_us; /* until when a group that is not full waits; INT64_MAX = none does */

    /* core_stream.c */
    int n_streams; /* open ones are among the first so many */
    struct stream streams[CORE_STREAMS_MAX];
    uint64_t due; /* of the stream that was admitted last */

    /* core_slots.c */
    struct slot *slots; /* (n_slots) */
    uint64_t tag_empty;
    /* The step that is being made; slot changes may stand here before it is begun. */
    int n_ops;
    struct slot_op ops[WIRE_OPS_MAX];
    int n_pieces;
    struct piece pieces[PIECES_MAX];
    int n_rows, n_want, n_tags;
    int32_t *row_slot, *row_pos, *row_token; /* (n_rows_max) */
    uint8_t *row_want;                       /* (n_rows_max) */
    uint64_t *row_tag;                       /* (2 * n_rows_max) */

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
/* The client's first ask out of its queue; the caller's to free. */
struct ask *flight_pop(struct client *cl);
/* What was put together leaves as a step. */
void flight_send(struct core *c, bool decodes);
void flight_home(struct core *c, const struct core_event *ev);
/* Answers those who have waited long enough. */
void flight_expire(struct core *c);
int64_t flight_next_us(const struct core *c);
/* Every step under way is lost; their asks are answered. */
void flight_lose(struct core *c, const char *text);
void flight_forget_client(struct core *c, int i);
void flight_forget_stream(struct core *c, int i);

/* ---- core_batch.c ---- */

/* Makes and sends steps as long as there is something for them and room; answers asks that cannot
 * be taken. */
void batch_pump(struct core *c);

/* ---- core_stream.c ---- */

void stream_request(struct core *c, const struct core_request *r);
void stream_token(struct core *c, const struct core_event *ev);
void stream_end(struct core *c, int number);
/* Gives free slots to those who wait for one. */
void stream_admit(struct core *c);
/* Rows [pos, pos + n) of it came home, from row `row` of the result on. */
void stream_home(struct core *c, int i, int row, int pos, int n);
/* A step failed that had to do with a slot: its stream reads again, or ends. */
void stream_failed(struct core *c, int slot, const struct core_event *ev);
/* A step failed: what free slots hold, and copies that nobody has built on yet, may be wrong. */
void stream_doubt(struct core *c);
/* Devices begin anew: everything is to be read again. */
void stream_wipe(struct core *c);
/* Ends all that have a slot; told why. */
void stream_lose(struct core *c, enum err code, const char *text);
void stream_expire(struct core *c);
int64_t stream_next_us(const struct core *c);
void stream_fini(struct core *c);
/* How many more may wait. */
int stream_room(const struct core *c);
/* How many tokens it has been given but not yet sent; 0 too when it waits for a slot. */
int stream_left(const struct stream *st);
/* It has read its prompt: its rows come one by one. */
bool stream_decodes(const struct stream *st);

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
/* Empties one slot, in front of the next step that names it. */
void slots_empty(struct core *c, int slot);
bool slots_is_free(const struct core *c, int slot);
/* The free slot to lose least by: an empty one, or the one used least recently; -1 = none. */
int slots_idle(const struct core *c);
/* Tags of the prefixes of n tokens: (n). */
void slots_tags(const struct core *c, const int32_t *tokens, int n, uint64_t *tag);
/* How many positions a slot has in common with such a prompt. */
int slots_match(const struct core *c, int slot, const uint64_t *tag, int n);
/* In front of the next step: `to` becomes a copy of the first len positions. False: there is no
 * room for that in it. */
bool slots_copy(struct core *c, int from, int to, int len);

/* Whether an ask can follow what the slots hold. ERR_CANCELLED: it could, had we not emptied them.
 * */
MUST_CHECK enum err slots_check(const struct core *c, int i, const struct ask *a,
                                struct err_text *et);
/* Whether there is room for it in the step that is being made. */
bool slots_has_room(const struct core *c, const struct ask *a);
/* Carries a checked ask out in the picture and puts it into the step. */
void slots_add_ask(struct core *c, int i, const struct ask *a);
/* The same for rows of a stream; those from position want_from on are wanted. Returns how many. */
int slots_add_rows(struct core *c, const struct stream *st, int n, int want_from);
void slots_add_piece(struct core *c, struct piece piece);
/* The step, number and epoch to be set; it borrows from c until slots_step_clear. */
void slots_step(const struct core *c, struct step *out);
void slots_step_clear(struct core *c);

#endif
