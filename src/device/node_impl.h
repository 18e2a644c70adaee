/* What the files of a node share: node.c (opening, closing, what is shown), node_state.c (what it
 * remembers), node_head.c (the link to the head), node_epoch.c (from ASSIGN to READY, and the
 * steps) node_stages.c (neighbours, and others who knock) and
 * node_profile.c (what the head asks about speed). Internal; the event loop's thread,
 * but for epoch.c's prepare, which the worker's thread runs.
 *
 * Invariants: at most one load is with the worker, `loading`; its epoch is not freed before the
 * worker has answered. Nothing is fetched while a load may be checking the cache. A neighbour's or
 * a fetcher's link lives only while the head's is open. */
#ifndef LINGUA_DEVICE_NODE_IMPL_H
#define LINGUA_DEVICE_NODE_IMPL_H

#include <event2/event.h>

#include "device/bulk.h"
#include "device/node.h"
#include "device/probe.h"
#include "device/profile.h"
#include "device/worker.h"
#include "link/identity.h"
#include "link/link.h"
#include "link/roster.h"

enum {
    BACKOFF_MIN_MS = 200,
    BACKOFF_MAX_MS = 15000,
    BACKOFF_STOPPED_MS = 2000, /* after the head said STOP: it will hardly be back at once */
    NEIGHBOUR_TRY_MS = 1500,   /* per address */
    NEIGHBOUR_PING_MS = 300,
    /* PINGs in a row that nothing came of: longer than the head takes to notice that a device is
     * gone (CLUSTER_LOST_MS), for that is the better reason to give. */
    NEIGHBOUR_SILENT_MAX = 7,
    SILENCE_LOOK_MS = 500,
    STATUS_EVERY_MS = 200,
    STEPS_SHOWN_MS = 1000, /* the count of steps, while nothing else changes */
    CHECKS_MAX = 3, /* of the cache's parts for one epoch, each but the first after fetching anew */
    GIVERS_MAX = 16, /* devices that fetch from here at once */
    ADDRESSES_MAX = 8,
    SPEEDS_MAX = 32,        /* links whose speed is remembered, */
    SPEED_KEPT_S = 10 * 60, /* so long: a change of epoch is to be quick */
};

/* ---- what it remembers (the file `cluster`) ---- */

/* Addresses, the best first. */
struct addresses {
    int n;
    char text[ADDRESSES_MAX][ADDRESS_MAX];
};
/* Puts it in front; the last makes room. False when it was in front already. */
bool addresses_prefer(struct addresses *a, const char *address);
/* Appends those not there yet of a list with spaces between, as far as there is room. */
void addresses_add(struct addresses *a, const char *list);

struct remembered {
    struct key_id head;
    char head_name[WIRE_NAME_MAX]; /* as the head calls itself */
    char name[WIRE_NAME_MAX];      /* as the head calls us */
    struct addresses addresses;
};

/* *there is false, and *r empty, when the folder knows no cluster. ERR_INPUT names the file when it
 * makes no sense. */
MUST_CHECK enum err remembered_read(const char *folder, struct remembered *r, bool *there,
                                    struct err_text *et);
MUST_CHECK enum err remembered_write(const char *folder, const struct remembered *r,
                                     struct err_text *et);
void remembered_forget(const char *folder);
/* The roster's copy in folder/joined; one of another head's is thrown away. */
MUST_CHECK enum err remembered_roster(const char *folder, const struct key_id *head,
                                      struct roster **out, struct err_text *et);
/* Keeps other processes out of the folder until *fd is closed. */
MUST_CHECK enum err folder_lock(const char *folder, int *fd, struct err_text *et);

/* ---- epochs ---- */

enum neighbour_state {
    NEIGHBOUR_IDLE, /* nothing is known yet, or it is lost */
    NEIGHBOUR_DIALLING,
    NEIGHBOUR_PROBING, /* the link stands; how quick it is is being measured */
    NEIGHBOUR_DIRECT,
    NEIGHBOUR_RELAYED,
};

struct neighbour {
    struct epoch *epoch;
    int device;
    const struct wire_peer *peer; /* the epoch's; NULL when the head did not say who it is */
    enum neighbour_state state;
    struct link *link;   /* while DIALLING, PROBING or DIRECT */
    struct probe *probe; /* while PROBING or DIRECT */
    const char *address; /* DIALLING: those not tried yet, in peer->addresses */
    struct event *timer; /* DIALLING: enough of this address; else: time for a PING */
    int silent;          /* PINGs since anything moved */
};

/* What the worker's thread looks at before it loads, alone. */
struct check {
    struct mirror *mirror;
    struct plan plan;
    int device;
    uint8_t *checked;    /* (n_parts) the node's: found right since this process began */
    int n_bad;           /* parts that were not what they were, */
    struct err_text bad; /* the first of them */
};

struct epoch {
    struct node *node;
    uint32_t number;
    struct plan plan; /* epoch set */
    int device;
    struct segment_opts segment;
    uint8_t model[WIRE_KEY_BYTES];
    int n_peers;
    struct wire_peer *peer; /* (n_peers) */
    int n_neighbours;
    struct neighbour
        *neighbour; /* (n_neighbours) devices we send to or hear from, the head left out */
    struct fetch *fetch;
    struct mirror *mirror; /* once fetched */
    struct check check;
    int n_checks;
    bool loaded; /* its segments are ready */
    bool ready;  /* and READY was said */
    bool failed; /* and that was said */
    bool over;   /* the head was lost since; its segments stay, in case the next epoch wants them */
    uint64_t received;
    int64_t phase_us; /* when progress was last told */
};

/* What a probe of the link with a neighbour found. */
struct known_speed {
    struct key_id key;
    char address[ADDRESS_MAX]; /* another may be another network */
    int64_t at_us;             /* 0: free */
    struct probe_result speed; /* all 0: it did not answer */
};

/* What the head asked of this device's speed (node_profile.c). */
struct asked {
    bool wanted; /* and is not answered */
    struct wire_profile_ask ask;
    struct fetch *fetch; /* of the header */
    struct mirror *mirror;
    bool measuring, stale; /* the worker does; for an ask that counts no more */
    struct event *again;
};

struct giver {
    struct giver *next;
    struct node *node;
    struct bulk_store store;
    struct bulk_giver *bulk;
    struct link *link;
};

struct node {
    struct event_base *base;
    struct log log;
    void (*status_call)(void *user, const struct node_status *s);
    void *user;
    char *folder, *own_address; /* of the head, as the person said; or NULL */
    char own_name[WIRE_NAME_MAX];
    int n_threads, lock_fd, port;
    int cap, profile_windows, profile_window_ms;
    bool spare;
    char *cache_folder;
    uint64_t memory_bytes, base_bytes, bytes_per_s; /* bytes_per_s: profile_speed */
    struct identity *identity;
    struct hub *hub;
    struct cache *cache;
    struct worker *worker;

    /* The cluster. */
    bool joined; /* `known` names its head */
    struct remembered known;
    struct roster *roster; /* when joined */
    bool has_token;        /* not used up yet */
    struct token token;
    struct addresses found;

    /* The link to the head. */
    struct link *head;
    struct probe *head_probe; /* while it is open: the head asks, we answer */
    bool head_open, pairing;
    bool roster_fresh; /* the head of this link has sent its roster: it is no old one */
    char dialled[ADDRESS_MAX];
    struct addresses round; /* still to be tried before the next pause */
    int backoff_ms;
    struct event *retry, *silence;
    int silent_looks;

    struct epoch *next; /* assigned, not loaded */
    struct epoch *now;  /* loaded, or being loaded */
    struct epoch *was;  /* until now has taken its place in the worker */
    struct epoch *loading;
    struct giver *givers;
    struct asked asked;
    struct known_speed link_speed[SPEEDS_MAX];
    uint8_t checked_model[WIRE_KEY_BYTES];
    uint8_t *checked; /* (n_checked) the worker's while it loads */
    int n_checked;

    struct node_status status;
    int64_t status_us; /* when it was last told */
    enum err ended;
    struct err_text ended_text;
};

/* node.c */
/* Tells the status; bytes on the move are told some times a second only. */
void node_say(struct node *n);
void node_say_progress(struct node *n, uint64_t done, uint64_t total);
void node_trouble(struct node *n, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
/* What the state should be from what is there. */
void node_update(struct node *n);
/* It ends by itself: everything is closed but memory, and the event loop told to stop. */
void node_end(struct node *n, enum err e, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));

/* node_head.c */
void head_init(struct node *n);
/* Dials, as soon as there is an address. */
void head_begin(struct node *n);
void head_found(struct node *n, const char *address);
void head_close(struct node *n); /* without a word, and without a new attempt */
void head_send(struct node *n, const struct frame_out *f); /* dropped while there is no link */
void head_send_bytes(struct node *n, const uint8_t *bytes, size_t len);
void head_say_leave(struct node *n, const char *why);
void head_lost(struct node *n, const char *why);

/* As a source of weights: under the address it was reached by. The link is open. */
void head_as_source(const struct node *n, struct wire_peer *out);

/* node_profile.c */
void profile_init(struct node *n);
void profile_fini(struct node *n); /* after the worker */
void profile_ask(struct node *n, const struct wire_profile_ask *m);
void profile_yield(struct node *n); /* an epoch is about to fetch */
void profile_head_lost(struct node *n);

/* node_epoch.c */
extern const struct worker_calls epoch_worker_calls;
void epoch_assign(struct node *n, const struct wire_assign *m);
void epoch_load(struct node *n, const struct wire_load *m);
/* ERR_LIMIT: whoever sent it keeps no rules. */
MUST_CHECK enum err epoch_step(struct node *n, const struct frame *f, struct err_text *et);
void epoch_head_lost(struct node *n);                           /* keeps what is loaded */
void epoch_stop(struct node *n);                                /* gives everything back */
void epoch_free(struct epoch *e);                               /* NULL is fine */
void epoch_ready(struct epoch *e);                              /* says READY when everything is */
struct neighbour *epoch_neighbour(struct epoch *e, int device); /* NULL when it is none */

/* node_stages.c */
extern const struct link_calls stages_accept_calls;
void stages_dial(struct node *n, const struct wire_dial *m);
void stages_out(struct node *n, const struct worker_out *out);
void stages_close(struct epoch *e); /* all links of its neighbours */
void stages_close_givers(struct node *n);
/* The other end sent PING. */
void stages_pong(struct link *l, const struct frame *f);

#endif
