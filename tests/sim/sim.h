/* A cluster that exists only in memory: the real core, and around it devices, a planner and clients
 * that keep the real rules on a virtual clock.
 *
 * A device checks what real ones check: each stage gets step numbers 1, 2, 3, ... of its epoch;
 * slot changes come before the rows; a row leaves no gap; the tag before a run is the one it holds
 * there. Instead of hidden states a step carries, for each row, a hash of the tokens the stage
 * holds up to it, which every stage compares with its own: so a wrong prefix anywhere shows, tags
 * or not, and what a client is answered can be compared with what it believes to have asked. A rule
 * that is broken ends the program and names the seed. One thread. */
#ifndef LINGUA_TESTS_SIM_H
#define LINGUA_TESTS_SIM_H

#include <stdbool.h>
#include <stdint.h>

#include "head/core.h"

enum {
    SIM_DEVICES = 6, /* members 0..5; 0 is the head */
    SIM_SLOTS = 12,
    SIM_CTX = 64,
    SIM_ROWS = 8,
    SIM_CLIENTS = 6,
    SIM_CLIENT_SLOTS = 3,
    SIM_OUTSTANDING = 48,
    SIM_STREAMS = 20,
};

struct sim_ask {             /* what a client waits for */
    uint64_t number, expect; /* hash of the wanted row's prefix */
    bool want, bad;
    uint64_t n_stale; /* how often it had heard CORE_STALE when it asked */
};

struct sim_client {
    bool open;   /* the client's view; it may not be answered yet */
    bool opened; /* CORE_OPENED came */
    int number, n_slots;
    int len[SIM_CLIENT_SLOTS];
    int32_t token[SIM_CLIENT_SLOTS][SIM_CTX];
    uint64_t next, n_stale, n_answers, n_good;
    int first, n_asks;
    struct sim_ask asks[SIM_OUTSTANDING]; /* a ring */
    uint64_t last_hash;                   /* "logits" of the last wanted row */
};

struct sim_stream { /* a request of the API, and who made it */
    bool open;      /* begun, and not over by either side */
    int number, flow;
    int n, n_prompt, n_more; /* tokens it has, began with, is to add */
    int32_t token[SIM_CTX];
    int next;                           /* the position whose result is due next */
    bool started;                       /* CORE_STARTED came */
    int n_cached;                       /* of its prompt */
    bool hidden;                        /* it wants hidden states, of every row */
    uint64_t life;                      /* counts streams in this place */
    int64_t begun_us, first_us;         /* when it asked; when its first result came */
    uint64_t n_over, n_lost, n_refused; /* in this place: finished, ended by the core, queue full */
};

struct sim_slot {
    int len;
    uint64_t tag[SIM_CTX], hash[SIM_CTX];
};

struct sim_stage {
    int stage;
    uint64_t next;
    struct sim_slot slot[SIM_SLOTS];
};

struct sim_device {
    bool there;     /* it lives and is linked */
    bool announced; /* the core has been told UP and not DOWN */
    int life;       /* grows with each loss: what was about to happen does not */
    bool full_disk, bad_load;
    bool mute;    /* never says that it is through with something */
    int capacity; /* modules */
    uint64_t has; /* modules in its cache, a bit each */
    int n_shipped;
    uint32_t assigned, loaded;
    struct plan next, plan; /* assigned, loaded */
    int next_members[PLAN_DEVICES_MAX], members[PLAN_DEVICES_MAX];
    int next_index, index, n_held;
    struct sim_stage held[PLAN_PER_DEVICE_MAX];
    int64_t busy_until;
};

struct sim_opts {
    uint64_t seed;
    int n_modules;
    bool output_home; /* the last module goes to the head */
    int64_t hop_us, module_us, fetch_us, load_us, plan_us, client_us;
    int64_t row_us;       /* of each row beyond four, per module */
    bool by_the_row;      /* each row takes module_us, per module */
    int n_slots, n_queue; /* 0: SIM_SLOTS, all that fit */
    struct core_pace pace;
    int fail_steps; /* one in so many fails on a device; 0 = none */
    bool trace;
};

struct sim;
struct sim *sim_new(const struct sim_opts *o);
void sim_free(struct sim *s);
/* Runs everything that is due until then. */
void sim_run(struct sim *s, int64_t until_us);
int64_t sim_now(const struct sim *s);
struct core *sim_core(struct sim *s);
struct sim_device *sim_device(struct sim *s, int i);
struct sim_client *sim_client(struct sim *s, int i);
uint64_t sim_random(struct sim *s, uint64_t below);
const char *sim_trace(const struct sim *s);
void sim_note(struct sim *s, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

void sim_up(struct sim *s, int device);
/* Gone at once; the core hears of it after detect_us. */
void sim_down(struct sim *s, int device, int64_t detect_us);
void sim_drain(struct sim *s, int device);
void sim_event(struct sim *s, const struct core_event *ev); /* as is, now */

void sim_open(struct sim *s, int client, int n_slots);
void sim_close(struct sim *s, int client);
/* Appends n tokens to a slot, the last wanted or not. */
void sim_feed(struct sim *s, int client, int slot, int n, bool want);
/* Any ask: ops in front of n rows at pos. bad: it must not succeed. */
void sim_ask_rows(struct sim *s, int client, const struct slot_op *ops, int n_ops, int slot,
                  int pos, int n, bool want, bool bad);
/* A request in place i: n_prompt tokens, of which the first n_like are those of place `like`, and
 * n_more to be sampled; after: it waits for the stream in that place, or -1. */
struct sim_request {
    int n_prompt, n_like, like, n_more, flow, after;
    bool hidden, fresh;
};
void sim_request(struct sim *s, int i, const struct sim_request *r);
/* The client goes away. */
void sim_cancel(struct sim *s, int i);
struct sim_stream *sim_stream(struct sim *s, int i);

/* Steps sent and not home, in the running epoch; how many came home failed, in all. */
int sim_flying(const struct sim *s);
uint64_t sim_n_failed(const struct sim *s);
uint64_t sim_n_steps(const struct sim *s);
int sim_flying_most(const struct sim *s);

_Noreturn void sim_broken(const struct sim *s, const char *fmt, ...)
    __attribute__((format(printf, 2, 3)));

#endif
