/* What the files of the simulation share. */
#ifndef LINGUA_TESTS_SIM_IMPL_H
#define LINGUA_TESTS_SIM_IMPL_H

#include "sim.h"

/* A step on its way, owned by the message that carries it. */
struct sim_step {
    uint64_t number;
    uint32_t epoch;
    int stage, n_ops, n_rows, n_tags;
    struct slot_op ops[WIRE_OPS_MAX];
    int32_t slot[SIM_ROWS], pos[SIM_ROWS], token[SIM_ROWS];
    uint64_t tag[2 * SIM_ROWS], hash[SIM_ROWS];
    uint8_t want[SIM_ROWS];
    enum err code;
    struct err_text why;
    bool slipped; /* it failed for what a step before it left behind, not by itself */
};

enum message_kind {
    MESSAGE_CORE,    /* an event for the core */
    MESSAGE_STEP,    /* at a device */
    MESSAGE_LEAVE,   /* a step computed: it leaves the device now */
    MESSAGE_ASSIGN,  /* at a device */
    MESSAGE_FETCHED, /* a device is through with it */
    MESSAGE_LOAD,
    MESSAGE_LOADED,
    MESSAGE_ANSWER, /* at a client */
    MESSAGE_STALE,
    MESSAGE_OPENED,
    MESSAGE_TOKEN, /* sampled: at the core */
};

struct message {
    enum message_kind kind;
    int64_t at_us;
    uint64_t order; /* of those due at the same time */
    int device, life, client;
    uint64_t number, hash;
    uint32_t epoch;
    enum err code;
    struct plan plan;
    struct core_event event;
    int members[PLAN_DEVICES_MAX];
    struct core_ask ask;
    struct core_request request;
    int32_t tokens[SIM_CTX];
    uint64_t stream_life;
    struct slot_op ops[4];
    int32_t rows[3][SIM_ROWS];
    uint8_t want[SIM_ROWS];
    char text[ERR_TEXT_MAX];
    struct sim_step *step;
};

struct sim {
    struct sim_opts opts;
    struct core *core;
    uint64_t random, order, tag_empty;
    int64_t now_us, timer_us;
    struct message **heap;
    int n_heap, cap_heap;
    struct sim_device devices[SIM_DEVICES];
    struct sim_client clients[SIM_CLIENTS];
    struct sim_stream streams[SIM_STREAMS];
    int n_streams; /* numbers given so far */

    /* What the core has done so far, to hold it to its rules. */
    uint32_t epoch;      /* the last that was loaded */
    uint32_t begun;      /* the last that ran */
    bool running;        /* everybody has said READY, and nobody of it was lost */
    uint64_t sent, home; /* last numbers */
    struct plan plan;    /* of epoch */
    int members[PLAN_DEVICES_MAX];
    struct plan assigned; /* the last */
    int assigned_members[PLAN_DEVICES_MAX];
    uint64_t failed_until; /* steps up to this one were sent before a failure was known */
    uint64_t n_failed, n_steps;
    int flying_most;
    const struct sim_step *homing; /* while the core handles its HOME */
    int n_told;                    /* of its wanted rows, how many were answered for */

    char *trace;
    size_t n_trace, cap_trace;
};

/* Copies m and puts it in the queue. */
struct message *post(struct sim *s, int64_t delay_us, const struct message *m);
void core_event(struct sim *s, const struct core_event *ev, struct sim_step *step);

uint64_t hash_next(uint64_t before, int32_t token);

void device_assign(struct sim *s, const struct message *m);
void device_fetched(struct sim *s, const struct message *m);
void device_load(struct sim *s, const struct message *m);
void device_loaded(struct sim *s, const struct message *m);
void device_step(struct sim *s, struct message *m);
void device_leave(struct sim *s, struct message *m);
int64_t hop_to_head(const struct sim *s, int device);

/* The row of the step coming home that is the n-th wanted one. */
int home_row(const struct sim *s, int n);
uint64_t hash_of(const int32_t *token, int n);

void stream_started(struct sim *s, const struct core_action *a);
void stream_row(struct sim *s, const struct core_action *a);
void stream_ended(struct sim *s, const struct core_action *a);
void stream_token_due(struct sim *s, const struct message *m);

void client_answer(struct sim *s, const struct message *m);
void client_stale(struct sim *s, const struct message *m);
void client_opened(struct sim *s, const struct message *m);

#endif
