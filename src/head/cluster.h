/* A running head: the model file, the members, and everyone who wants an answer. What `lingua
 * serve` runs. It is itself device 0 of every plan.
 *
 * How things flow, all on the thread of the event base but for the computing (device/worker.h):
 *   - Devices come by links (link/link.h): a stranger with a token is paired and written into the
 *     roster; a member says what it brings, gets the newest roster, and the core hears CORE_UP.
 *   - The core (core.h) decides; this file carries out: CORE_SOLVE by plan/place.h, CORE_ASSIGN and
 *     CORE_LOAD as frames to members and as jobs to the own worker, CORE_SEND to the device of
 *     stage 0, which is nearly always the own worker.
 *   - Steps come from the own worker, from devices' links, or, when two devices cannot reach each
 *     other, from one to be passed to the other (a relay). A step for `output` on the head goes to
 *     the worker; results go to the core.
 *   - Members give and fetch weights by bulk links; this head gives from the model's own file.
 *   - PING every PING_MS: the answer measures the round trip and the offset of the other clock (for
 *     traces). LOST_MS without an answer: the member is lost.
 *   - Commands of this machine come by the socket FOLDER/head.sock (mode 0600): ADMIN frames with
 *     JSON (remote.h lists them), and STEP frames answered by RESULT, which is how a session of
 *     lingua.h uses the cluster: the tokens, their sampling and the text stay in that program. */
#ifndef LINGUA_HEAD_CLUSTER_H
#define LINGUA_HEAD_CLUSTER_H

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"
#include "base/log.h"
#include "link/link.h"
#include "link/token.h"
#include "model/model.h"

struct event_base;
struct cluster;

enum { CLUSTER_PING_MS = 400, CLUSTER_LOST_MS = 1600, CLUSTER_REPORT_MS = 2000 };

struct cluster_opts {
    const char *model_path;
    const char *state_folder;
    const char *name;      /* of this device; NULL = the host's */
    const char *alias;     /* of the model; NULL = its file's name for it. Borrowed */
    const char *listen;    /* for devices: "host:port"; NULL = every address, the usual port */
    int n_threads;         /* >= 1 */
    uint64_t memory_bytes; /* of this whole process; 0 = 70 % of what is available */
    int n_slots, n_ctx;    /* 0 = the library's choice */
    enum kv_type kv;
    bool want_private, announce;
    int cap;                   /* percent of the time this device may be busy, 1..100; 0 = 100 */
    bool spare;                /* it is to hold only what it must, or where it helps much */
    int concurrency;           /* streams the plan is made for; 0 = 1 */
    bool equal;                /* LinguaLinked's baseline: equal segments on all devices */
    const char *use, *without; /* names with commas between, or NULL: must take part, must not */
    /* NULL: placed by the program (plan/place.h). Else as --split of run has it (split.h): device i of it is
     * the i-th in the roster that is here, the head first, and nothing runs before there are as
     * many. */
    const char *split;
    int profile_windows, profile_window_ms; /* device/profile.h; 0 = as usual. Tests take less */
    int token_life_s;                       /* 0 = as link/token.h has it */
    bool api;        /* answers requests itself, too (gen.h): opens the vocabulary and a pool */
    int n_queue_max; /* requests that may wait for a slot; 0 = 256 */
    struct log log;
    bool (*hashing)(void *user, uint64_t done, uint64_t total); /* false stops; may be NULL */
    /* A token was used up (or none is open yet): a fresh one to show. May be NULL. */
    void (*invited)(void *user, const char *token, const char *address);
    /* Something that `cluster_json` shows has changed; at most some times a second. May be NULL. */
    void (*changed)(void *user);
    void *user;
};

MUST_CHECK enum err cluster_open(struct event_base *base, const struct cluster_opts *opts,
                                 struct cluster **out, struct err_text *et);
/* Devices are told to stop and go on looking for this head; clients get an error. Not from within
 * the event loop, which it turns for a moment so that the word goes out. */
void cluster_close(struct cluster *c);

int cluster_port(const struct cluster *c);
const char *cluster_name(const struct cluster *c); /* of this device */
/* The same as {"do": "devices"} on the socket. */
json_t *cluster_json(const struct cluster *c);

/* Somebody who looks on. `changed` is called when something that cluster_json shows has changed, as
 * cluster_opts.changed is; figures that move all the time (tokens, bytes) do not count. Meanwhile
 * devices are asked for what they report every CLUSTER_REPORT_MS. */
struct cluster_watch {
    void (*changed)(void *user); /* the cluster must not be asked back from within */
    void *user;
    struct cluster_watch *next; /* the cluster's */
};
void cluster_watch(struct cluster *c, struct cluster_watch *w); /* borrowed until */
void cluster_unwatch(struct cluster *c, struct cluster_watch *w);
/* Asks devices for what they report, unless that was done just now; cluster_json has it a moment
 * later. */
void cluster_refresh(struct cluster *c);

/* ---- what its owner may tell it; on the socket, and from the page ---- */

struct cluster_invitation {
    char token[TOKEN_TEXT_MAX], address[ADDRESS_MAX]; /* a secret: to be wiped */
    int64_t expires_s;
};
/* A fresh token, for one device. */
void cluster_invite(struct cluster *c, struct cluster_invitation *out);
/* Leaves it out of every plan until it joins anew. ERR_INPUT: there is none of that name here;
 * ERR_UNSUPPORTED: it is the head. */
MUST_CHECK enum err cluster_drain(struct cluster *c, const char *name, struct err_text *et);
/* Throws it out for good. ERR_INPUT. */
MUST_CHECK enum err cluster_revoke(struct cluster *c, const char *name, struct err_text *et);
/* Whether private modules may be placed there. ERR_INPUT. */
MUST_CHECK enum err cluster_mine(struct cluster *c, const char *name, bool on, struct err_text *et);

#endif
