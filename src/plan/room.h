/* Room: which device can hold which runs of modules (memory, private pins), which chains of
 * devices there may be (links, wishes), and so whether there is any plan at all. Internal to
 * src/plan; nothing here speaks of time. Pure.
 *
 * A chart is a set of chains of devices, drawn as an acyclic graph. Node 0 is the head, every other
 * node a device in some state of the chain; an edge says that one may follow the other. A chart of
 * an order has a node per device, which may be skipped; a chart of all chains has a node per set of
 * devices and last one, as Held and Karp's program for the travelling salesman has. */
#ifndef LINGUA_PLAN_ROOM_H
#define LINGUA_PLAN_ROOM_H

#include "plan/place.h"

enum { ROOM_TAILS_MAX = 3, CHART_ALL_MAX = 10 /* devices beside the head */ };

struct room {
    const struct place_problem *p;
    /* What is asked of a plan; whoever explains a failure asks for less. After a change:
     * room_update. */
    int n_ctx;
    bool pins, musts, links, budgets;
    int more_for; /* a device, or -1, whose budget is larger by more_bytes */
    uint64_t more_bytes;

    int n_tails, tail[ROOM_TAILS_MAX]; /* where the head's second run may begin; the last is
                                          n_modules: it has none */
    uint64_t *bytes;                   /* (n_modules + 1) of the first i modules, KV included */
    int *n_private;                    /* (n_modules + 1) of the first i */
    int *reach; /* (n_devices, n_modules): the furthest end of a run that begins there; no further
                   than its beginning: none */
};
void room_init(struct room *r, const struct place_problem *p); /* p has passed place_check */
void room_fini(struct room *r);
void room_update(struct room *r);

/* Whether the head has room for its run [0, end) and for [tail, n_modules). */
bool room_for_head(const struct room *r, int end, int tail);
/* Whether a device beside the head may be used at all, and whether it can send to another. */
bool room_may_use(const struct room *r, int device);
bool room_linked(const struct room *r, int from, int to);

struct chart_node {
    int device, pred, n_preds; /* in chart's pred */
    bool may_end;              /* the chain may end here */
};
struct chart {
    int n_nodes, n_preds;
    struct chart_node *node; /* (n_nodes), each behind its predecessors */
    int *pred;               /* (n_preds) */
    bool head_alone;         /* the chain may be the head, and no more */
};
/* Chains that are parts of this order of devices beside the head. */
void chart_of_order(const struct room *r, const int *order, int n, struct chart *out);
/* All chains; false when that would be too many: more than CHART_ALL_MAX devices may be used. */
bool chart_of_all(const struct room *r, struct chart *out);
void chart_fini(struct chart *c);

/* Whether there is a plan. With more than CHART_ALL_MAX devices only likely orders are tried, so
 * that a no is likely, and a yes is sure. */
bool room_feasible(const struct room *r);
/* Why there is none, as place_solve says it. */
enum err room_explain(struct room *r, struct err_text *et);

#endif
