/* A device that lends itself to a cluster: what `lingua join` runs.
 *
 * Its life, on the thread of the event base:
 *   1. UNPAIRED: it has a token. It dials the head, proves the token, gets the roster: PAIRED. The
 *      head's key id and addresses go into the state folder (`cluster`), and no token is needed any
 *      more.
 *   2. It dials the head as a member (GREET with what it brings), again with back-off (0.2 s
 *      doubling to 15 s, with jitter) whenever the link is lost, keeping what it has loaded.
 *   3. ROSTER: the newest list of who belongs; links to anyone else are cut at once.
 *      PROFILE_ASK: what it takes for each class of the model's modules, remembered or measured
 *      (device/profile.h), which needs the model's header.
 *   4. ASSIGN of an epoch: it fetches what it lacks (device/bulk.h) while the old epoch still runs,
 *      says FETCHED; LOAD: it changes over (worker.h), and DIALs or awaits its neighbours as told;
 *      when the segments are loaded and each neighbour's link stands (or is relayed): READY.
 *   5. STEPs come from neighbours (or from the head), go to the worker, and what the worker gives
 *      goes to the next stage's device, direct or by the head.
 *   6. The head's PINGs are answered from the event loop, so that a long step is no silence. No
 *      ping for HEAD_SILENCE_MS: the head is lost; links to neighbours are closed (their roster
 *      could be old) and 2 begins again.
 *   7. The head refuses it as revoked: it forgets the cluster and ends with ERR_INPUT saying so
 *      (with a token that is still good it pairs anew instead). So does a token that is refused.
 *   8. STOP: the head ends for now. What its model took is given back, LEAVE is said, and 2 begins
 *      again, at first after a longer pause. */
#ifndef LINGUA_DEVICE_NODE_H
#define LINGUA_DEVICE_NODE_H

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"
#include "base/log.h"
#include "link/token.h"
#include "wire/cluster.h"

struct event_base;
struct node;

enum { PORT_DEFAULT = 7333, HEAD_SILENCE_MS = 5000 };

enum node_state {
    NODE_DIALLING, /* looking for the head */
    NODE_WAITING,  /* linked, no part to play yet */
    NODE_FETCHING,
    NODE_LOADING,
    NODE_READY,
    NODE_MEASURING, /* how fast it is with the head's model; no part to play yet */
    NODE_ENDED,
};

struct node_status {
    enum node_state state;
    char head_name[WIRE_NAME_MAX], name[WIRE_NAME_MAX]; /* "" until known */
    char modules[96];                                   /* "attn.2..ffn.3", "" when none */
    char coming[96];                                    /* what it fetches, in the same way */
    uint64_t done, total, received;                     /* of fetching or loading, bytes */
    uint64_t steps;
    char trouble[ERR_TEXT_MAX]; /* why not further, "" when all is well */
};

struct node_opts {
    const char *state_folder; /* identity, roster, cluster, profile */
    const char *cache_folder;
    uint64_t cache_bytes;      /* limit; 0 = none */
    const char *name;          /* what it calls itself */
    const char *listen;        /* for neighbours; NULL = any address, any free port */
    const char *address;       /* of the head; NULL = as remembered, else found by `addresses` */
    const struct token *token; /* NULL = already paired */
    int n_threads;
    uint64_t memory_bytes; /* of the whole process; 0 = 70 % of what is available */
    int cap;               /* percent of the time it may be busy, 1..100; 0 = 100 */
    bool spare;            /* to be used only where it helps much */
    int profile_windows, profile_window_ms; /* 0 = as device/profile.h has them */
    struct log log;
    /* Told of every change of state and, while bytes move, some times a second. */
    void (*status)(void *user, const struct node_status *s);
    void *user;
};

/* ERR_INPUT: not paired and no token; ERR_FILE: another lingua uses the folder. */
MUST_CHECK enum err node_open(struct event_base *base, const struct node_opts *opts,
                              struct node **out, struct err_text *et);
/* Heads that discovery has found, while no address is known or the known ones do not answer. */
void node_found(struct node *n, const char *address);
/* Says LEAVE and closes; what is cached stays. Not from within the event loop, which it turns for a
 * moment so that the word goes out. */
void node_close(struct node *n);
/* Why it ended by itself; ERR_NONE while it lives. The event loop is told to stop when it does. */
enum err node_ended(const struct node *n, struct err_text *et);

#endif
