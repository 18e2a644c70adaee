/* What the files of the cluster driver share (cluster.h says what it is):
 *   cluster.c         opening and closing, the door, the heartbeat
 *   cluster_member.c  members: what they say, and what they cost
 *   cluster_epoch.c   the core's actions: solving, assigning, loading, linking neighbours
 *   cluster_steps.c   steps and results on their way
 *   cluster_gen.c     what generations need (gen.c): the vocabulary, the pool, slots
 *   cluster_stats.c   sums and figures, for metrics
 *   cluster_timeline.c  the last answer as a timeline
 *   cluster_admin.c   the socket for this machine's programs
 *   cluster_orders.c  what its owner tells it: invite, drain, revoke, mine
 *   cluster_json.c    the cluster as JSON: devices; and, in cluster_chain_json.c, what they make
 *                     together: the plan, stages, hops, speed
 * All of it on the event loop's thread. */
#ifndef LINGUA_HEAD_CLUSTER_IMPL_H
#define LINGUA_HEAD_CLUSTER_IMPL_H

#include <event2/event.h>
#include <openssl/crypto.h>

#include "device/bulk.h"
#include "device/probe.h"
#include "device/profile.h"
#include "device/worker.h"
#include "head/answer_log.h"
#include "head/cluster.h"
#include "head/core.h"
#include "head/gen.h"
#include "head/planner.h"
#include "head/pool.h"
#include "head/timeline.h"
#include "link/discover.h"
#include "link/link.h"
#include "link/roster.h"
#include "plan/place.h"
#include "wire/step.h"

enum {
    MEMBERS_MAX = CORE_MEMBERS_MAX,
    BULK_LINKS_MAX = 2 * MEMBERS_MAX, /* one per device of the roster, and those just removed */
    QUESTIONS_MAX = 16,
    REPORT_WAIT_MS = 400,
    TRACE_WAIT_MS = 3000,
    PAIR_LOST_MAX = 3,   /* then their steps go by the head for good */
    SENT_MAX = 1024,     /* steps remembered: more than can be under way */
    CLUSTER_MOMENTS = 5, /* ticks, which are two seconds */
    ASKERS_MAX = 64,     /* of the timeline, at once */
};

/* A device of the roster that was here at least once since we run; [0] is the head itself. */
struct member {
    struct cluster *cluster;
    int id;
    struct key_id key;
    struct link *link; /* NULL: not here (and always for the head) */
    bool up, drained;  /* up: the core counts on it */
    struct wire_greet able;
    char address[ADDRESS_MAX]; /* where neighbours reach it */
    char trouble[ERR_TEXT_MAX];
    struct wire_phase phase;   /* of the newest epoch it was given a part in */
    struct wire_phase running; /* its last word on the one that runs: ready */
    struct wire_report report;
    int64_t heard_us;         /* the last sign of life */
    struct probe *probe;      /* of its link, which lives as long */
    int64_t rtt_us;           /* least seen by pings and probe; 0 = none yet */
    uint64_t out_bytes_per_s; /* to it and from it, as the probe saw it; 0 = not known */
    uint64_t in_bytes_per_s;
    int64_t ping_us;        /* least round trip of a ping; 0 = none yet */
    int64_t offset_us;      /* its clock minus ours, at that ping */
    uint64_t planned_bytes; /* of its budget, by the last placement */

    /* What it costs. */
    struct wire_profile *profile; /* NULL: not known yet */
    bool probed;   /* its link was tried out, whether that came to something or not */
    double factor; /* what it takes over what its profile says */
    double step_s; /* beside computing, per step; 0 = not known */
    struct wire_report report_then; /* when was last measured */
    bool report_due, trace_due;     /* asked for, not yet come */
    int n_looks_due;                /* records for a timeline */

    /* What it did since it was first seen; its counters begin anew with what it loads. */
    struct wire_report counted;
    uint64_t steps, rows, busy_us;
};

/* How two neighbours of a plan reach each other. Index: plan's devices, a < b, neither the head. */
enum pair_state { PAIR_NONE, PAIR_FIRST, PAIR_SECOND, PAIR_DIRECT, PAIR_RELAY };

struct epoch {
    uint32_t number; /* 0 = there is none */
    struct plan plan;
    int member[PLAN_DEVICES_MAX];
    uint8_t pair[PLAN_DEVICES_MAX][PLAN_DEVICES_MAX]; /* enum pair_state */
};

/* How quick the link from one member to another is, as the two measured it; 0 = not known. */
struct pair_speed {
    uint64_t rtt_us, out_bytes_per_s, in_bytes_per_s;
};

/* A step under way. */
struct sent {
    uint64_t number; /* 0 = none */
    int n_want;
    bool hidden;  /* what is wanted is hidden states */
    int n_decode; /* rows, of a decode step (step_decodes) */
};

/* When somebody's tokens come and go: a client's, or a generation's. */
struct beat {
    bool one_row; /* its last ask */
    int64_t asked_us, home_us;
};

/* Since the last measuring, of decode steps. */
struct meter {
    uint64_t by_rows[STEP_DECODE_ROWS + 1]; /* how many had so many rows */
    uint64_t home_sum_us, n_home;           /* when they came home, added up */
    int64_t home_us;                        /* when the last did */
    int64_t token_us, client_us;            /* from result to result, from result to the next ask */
    uint64_t n_tokens, n_client;
    int64_t busy_us, last_us; /* in which tokens came; when the last did */
    int streams;              /* most at once */
};

/* One generation by part, as it was and as it was thought to be. Stages and hops as in struct
 * place_prediction. */
struct measured {
    uint32_t epoch; /* 0 = nothing yet */
    int tokens, streams, n_stages;
    double token_s, tokens_per_s, head_s;
    bool has_hops;
    double compute_s[PLAN_STAGES_MAX], stage_s[PLAN_STAGES_MAX], hop_s[PLAN_STAGES_MAX + 1];
    struct place_prediction was;
};

/* A program of this machine. */
struct client {
    struct cluster *cluster;
    struct link *link; /* NULL: free */
    int n_slots;       /* 0: it only asks questions */
    bool opening;
    uint64_t open_number; /* of the question that opened it */
    struct beat beat;
};

/* A question whose answer waits for members to answer theirs. */
struct question {
    struct client *client; /* NULL: free */
    uint64_t number;
    enum question_kind { ASK_DEVICES, ASK_TRACE, ASK_PLAN } kind;
    json_t *what; /* ASK_PLAN: the question, until it goes to the planner */
    int64_t until_us;
    bool with_planner; /* whose answer will name this place: it is not given to another */
};

/* Who wants to see the last answer. */
struct asker {
    enum cluster_picture kind;
    void (*done)(void *user, const char *text, size_t n);
    void *user;
    bool in_batch; /* what is under way is for it, too */
};

/* One at a time: records are collected, then a thread of the pool makes texts of them. */
struct pictures {
    int n_askers;
    struct asker asker[ASKERS_MAX];
    struct timeline_in *in; /* collected, or being so; kept for those who ask again */
    int n_devices, member[PLAN_DEVICES_MAX]; /* of its plan */
    bool collecting, whole;                  /* whole: nobody was late */
    int64_t until_us;
    struct picture_job *job; /* in the pool */
};

struct bulk_link {
    struct cluster *cluster;
    struct link *link; /* NULL: free */
    struct bulk_giver *giver;
};

struct waiting_event; /* an event for the core that came while it was at work */

struct cluster {
    struct event_base *base;
    struct cluster_opts opts;
    char *model_path, *state_folder;
    char name[WIRE_NAME_MAX];
    int lock_fd, port;
    struct identity *identity;
    struct roster *roster;
    struct token_book tokens;
    char listen_host[ADDRESS_MAX];
    struct hub *hub;
    struct discover *discover;

    struct model *model;
    struct manifest *manifest;
    int model_fd;
    struct bulk_store store;
    struct segment_opts segment;
    struct model_classes classes;
    struct place_problem problem; /* all but the devices */
    struct place_module *modules;

    struct planner *planner;
    struct planner_job *planned;                  /* the last that the core was told; NULL: none */
    struct err_text expected;                     /* who is waited for, "" when nobody */
    double hop_extra_s[MEMBERS_MAX][MEMBERS_MAX]; /* measured on top of what a link's figures say */
    double head_s;                                /* 0 = not known */

    struct sent sent[SENT_MAX]; /* by number */
    struct meter meter;
    int n_decoding;           /* rows of decode steps under way */
    bool home_decodes;        /* the step that is home is one of those */
    int64_t stock_us;         /* when it was last measured */
    int64_t measure_until_us; /* 0: no reports are awaited */
    uint32_t measured_epoch;
    struct measured measured;

    struct worker *worker;
    struct step_codec *codec;
    struct core *core;
    bool in_core, closing;
    struct waiting_event *first, **last; /* events that wait for the core */

    int n_members;
    struct member member[MEMBERS_MAX];
    int64_t expect_until_us; /* so long the devices of last time are waited for; 0 = not any more */
    struct epoch running, coming;
    uint8_t n_lost[MEMBERS_MAX]
                  [MEMBERS_MAX]; /* links between two members that broke; [less][more] */

    struct pair_speed speed[MEMBERS_MAX][MEMBERS_MAX]; /* [from][to], neither the head */

    struct client client[CORE_CLIENTS_MAX];
    struct question question[QUESTIONS_MAX];
    struct bulk_link bulk[BULK_LINKS_MAX];
    struct event *local_listener;
    int local_fd;
    char *local_path;

    const struct result *home; /* whose rows a CORE_REPLY or CORE_ROW names */
    struct event *tick, *core_timer, *change_timer;
    int64_t tick_us;
    bool change_told;
    struct err_text waiting; /* as clients were told last */
    json_t *trace_own;       /* the head's records, while others' are awaited */

    /* Generations. */
    struct text *text;
    struct pool *pool;
    struct gen *gens;
    struct event *gen_event; /* what the core said of them is to be told */
    int last_stream;
    uint64_t last_answer;
    struct answer_log *answer_at[WIRE_SLOTS_MAX]; /* of the generation that has the slot, or NULL */
    struct answer_log *answer_ended;              /* the last that ended; owned */
    struct answer_log *answer_begun;              /* begun since then, and not over; borrowed */
    struct pictures pictures;
    double gen_s; /* how long one lasts, about; 0 = none has ended yet */

    /* For metrics. */
    struct {
        uint64_t steps, rows_read, rows_decoded, epochs, devices_lost;
        struct {
            uint64_t bytes, frames;
        } hop[PLAN_STAGES_MAX +
              1]; /* of the running epoch, in front of each stage; the last home */
    } sums;
    int64_t stats_asked_us; /* when reports were last asked for */
    /* Sums as they were at the last ticks, the oldest at `at`: for what goes on now. */
    struct {
        struct cluster_moment {
            int64_t us; /* 0 = not yet */
            uint64_t rows_read, rows_decoded;
        } moment[CLUSTER_MOMENTS];
        int at;
    } lately;
    struct cluster_watch *watches;
};

/* cluster.c */
void cluster_changed(struct cluster *c);
struct member *cluster_member_named(struct cluster *c, const char *name);
struct member *cluster_member_of(struct cluster *c, const struct key_id *key); /* or NULL */
int64_t cluster_token_life_us(const struct cluster *c);
void cluster_address(const struct cluster *c, char buf[ADDRESS_MAX]);

/* cluster_member.c */
struct member *cluster_member_new(struct cluster *c, const struct key_id *key); /* NULL: too many */
/* A device of the roster has come by a link that has greeted. */
void cluster_member_take(struct cluster *c, struct link *l, const struct wire_greet *g,
                         const struct wire_member *entry);
/* Lets the core count on it once it is known what it costs and how far away it is. */
void cluster_member_known(struct member *m);
void cluster_member_down(struct member *m, const char *text);
/* The same for one that will not be back soon: nobody waits for it, as for one that was lost. */
void cluster_member_left(struct member *m, const char *sentence, const char *text);
void cluster_send_roster(struct cluster *c);
void cluster_send_roster_to(struct cluster *c, struct link *l);
/* A rough figure for people and devices files: weight bytes it goes through in a second. */
double cluster_weights_per_s(const struct cluster *c, const struct wire_profile *w);

/* cluster_plan.c */
/* Plans for those who are there, when the devices of last time were waited for long enough. */
void cluster_expect(struct cluster *c, int64_t now_us);
/* The problem as these members make it; the caller's to free. members[0] is the head. */
struct draft *cluster_draft(const struct cluster *c, const int *members, int n);
void cluster_solve(struct cluster *c, const struct core_action *a); /* CORE_SOLVE */
/* {"do": "plan"}: the job comes to cluster_plan_answer, with `about`. */
MUST_CHECK enum err cluster_ask_plan(struct cluster *c, const json_t *q, void *about,
                                     struct err_text *et);
void cluster_planner_done(void *user, struct planner_job *job);

/* cluster_measure.c */
/* A result goes to somebody (while its CORE_HOME is handled), and rows that follow it are asked for. */
void cluster_meter_reply(struct cluster *c, struct beat *b);
void cluster_meter_ask(struct cluster *c, struct beat *b, int n_rows);
void cluster_meter_send(struct cluster *c, const struct step *s);
void cluster_meter_home(struct cluster *c, uint64_t number);
void cluster_meter_epoch(struct cluster *c);
/* Asks for reports when a generation has just ended; end: they are there, or late. */
void cluster_measure_begin(struct cluster *c, int64_t now_us);
void cluster_measure_end(struct cluster *c, int64_t now_us, bool all_reported);
/* The last generation by part, in the shape of a plan's "prediction", with what had been "predicted"
 * for it before it began; null when nothing was measured of the plan that runs. compute_ms is a
 * stage from arrival to departure. */
json_t *cluster_measured_json(const struct cluster *c);
/* Of the plan that runs, seconds of a token: as it was thought to be, as it was. 0 = not known. */
void cluster_token_times(const struct cluster *c, double *predicted_s, double *measured_s);

/* cluster_epoch.c */
/* Gives the core an event, now or when it is done with the one at hand. */
void cluster_feed(struct cluster *c, const struct core_event *event);
void cluster_feed_member(struct cluster *c, enum core_event_kind kind, int member, uint32_t epoch,
                         enum err code, const char *text);
void cluster_take_phase(struct member *m, const struct wire_phase *p);
void cluster_take_link(struct member *m, const struct wire_link_report *r);
int epoch_device(const struct epoch *e, int member); /* -1: has no part in it */
extern const struct worker_calls cluster_worker_calls;

/* cluster_steps.c */
/* Sends step, as the core made it, to its stage's device. */
void cluster_send_step(struct cluster *c, const struct step *s);
/* A STEP or RESULT frame from a member. */
MUST_CHECK enum err cluster_take_step(struct member *m, const struct frame *f, struct err_text *et);
void cluster_worker_out(void *user, const struct worker_out *out);

/* gen.c */
void cluster_gen_started(struct cluster *c, const struct core_action *a);
void cluster_gen_row(struct cluster *c, const struct core_action *a);
void cluster_gen_ended(struct cluster *c, const struct core_action *a);
void cluster_gen_tell(evutil_socket_t fd, short what, void *user); /* of gen_event */
void cluster_gen_end_all(struct cluster *c);
/* NULL when there is none, or it was cancelled. */
struct gen *cluster_gen_of(const struct cluster *c, int stream, int *n_generated);

/* cluster_timeline.c */
void cluster_answer_sent(struct cluster *c, const struct step *s, int64_t now_us);
void cluster_answer_home(struct cluster *c, uint32_t epoch, uint64_t number, int64_t now_us);
/* It is the last that ended, from now on; takes it. */
void cluster_answer_over(struct cluster *c, struct answer_log *log);
/* Records have come, or nobody waits for them any more. */
void cluster_timeline_take(struct member *m, const struct wire_trace *t);
void cluster_timeline_go_on(struct cluster *c, int64_t now_us);
void cluster_timeline_close(struct cluster *c);

/* cluster_gen.c */
MUST_CHECK enum err cluster_gen_open(struct cluster *c, struct err_text *et);
/* Every generation is told that it is over. */
void cluster_gen_close(struct cluster *c);

/* cluster_stats.c */
/* The head's own report, and how this machine is. */
void cluster_report_self(struct cluster *c);
/* A report has come: what it says is added to the member's sums. */
void cluster_count_report(struct member *m);
/* Bytes that the head sends or sees on their way to a stage; n_stages: home. */
void cluster_count_hop(struct cluster *c, int stage, size_t bytes);
/* A tick: remembers the sums, and asks for reports when somebody looks on. */
void cluster_stats_tick(struct cluster *c, int64_t now_us);
/* Rows per second over about the last two. */
void cluster_lately(const struct cluster *c, double *read_per_s, double *decoded_per_s);
/* The hop in front of a stage of the running epoch (n_stages: home). False: it stays on one device. */
bool cluster_hop(const struct cluster *c, int stage, struct cluster_hop_stats *out);

/* cluster_admin.c */
MUST_CHECK enum err cluster_local_open(struct cluster *c, struct err_text *et);
void cluster_local_close(struct cluster *c);
void cluster_client_reply(struct cluster *c, const struct core_action *a);
void cluster_client_opened(struct cluster *c, const struct core_action *a);
void cluster_client_stale(struct cluster *c, int client);
void cluster_tell_waiting(struct cluster *c);
/* A member answered REPORT or TRACE, or is gone: questions may be answerable now. */
void cluster_answer_questions(struct cluster *c, int64_t now_us);
void cluster_take_trace(struct member *m, const struct wire_trace *t);
/* Sends REPORT_ASK to everyone who is here. */
void cluster_ask_members(struct cluster *c);
/* A plan that was asked for. */
void cluster_plan_answer(struct cluster *c, struct planner_job *job);

/* cluster_orders.c */
void cluster_invite_anew(struct cluster *c); /* a fresh token, told to cluster_opts.invited */

/* cluster_chain_json.c */
/* What was predicted for the plan that runs; NULL: it is not the last that was made. */
const struct place_prediction *cluster_prediction(const struct cluster *c);
/* Adds all of the document but the head, its model and the devices. */
void cluster_chain_json(const struct cluster *c, json_t *o);
json_t *cluster_plan_json(const struct cluster *c); /* its "plan" */
void json_set_u64(json_t *o, const char *key, uint64_t value);
void json_set_text(json_t *o, const char *key, const char *value); /* "?" when it is no UTF-8 */
/* Of the plan that runs, per stage, milliseconds of one row; empty when it is not known. */
json_t *cluster_predicted_json(const struct cluster *c);
/* records: [device, step, stage, rows, arrived, begun, ended, sent] as remote.h says. */
json_t *cluster_trace_record(int device, const struct wire_trace_record *r, int64_t offset_us);

#endif
