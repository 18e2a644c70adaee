/* A whole cluster in one process: a head and up to eight devices, each with its own state folder,
 * links over loopback and a compute thread, all on one event loop in a thread of its own. The
 * test's thread uses it as any program does, by the head's socket.
 *
 * Functions end the test program with a sentence when the cluster does not do what it should. */
#ifndef LINGUA_TESTS_TOWN_H
#define LINGUA_TESTS_TOWN_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

#include "device/node.h"
#include "head/cluster.h"
#include "lingua/lingua.h"

enum { TOWN_MAX = 8 };

struct town {
    char folder[200], head_folder[240];
    struct event_base *base;
    struct event *waker;
    int pipe[2];
    pthread_t thread;
    bool ended;
    struct cluster *cluster;
    int n_nodes; /* beside the head */
    struct town_node {
        struct node *node; /* NULL: not there */
        char state[240], cache[250], name[16];
        uint64_t memory_bytes;
    } node[TOWN_MAX];
    int next_to_pair;
    char first_token[TOKEN_TEXT_MAX]; /* spent on node 0 */
    char log[64 << 10];               /* what was said, as far as it fits */
    size_t n_log;
};

struct town_opts {
    const char *model_path;
    int n_devices;      /* the head counts */
    int n_ctx, n_slots; /* 0 = the cluster's choice */
    enum kv_type kv;
    uint64_t head_memory, node_memory; /* 0 = as much as they like */
    bool want_private;
    const char *split; /* NULL: as the placement has it */
    bool api;          /* it answers requests itself */
    int n_queue_max;
};

/* Opens it, pairs every device by its token, and waits until all of them are ready (when wait). */
void town_open(struct town *t, const struct town_opts *opts, bool wait);
void town_close(struct town *t);
/* Runs fn on the event loop's thread and waits for it. */
void town_call(struct town *t, void (*fn)(struct town *t, void *arg), void *arg);
/* Until the cluster runs with n devices that have a part; at most a minute. */
void town_wait(struct town *t, int n);
/* The cluster's JSON; the caller's. */
json_t *town_json(struct town *t);
/* Closes node i (it leaves), or opens it again from its state folder. */
void town_leave(struct town *t, int i);
void town_return(struct town *t, int i);
/* Opens it with a token. */
void town_pair(struct town *t, int i, const char *token);
struct ll_engine *town_engine(struct town *t);

#endif
