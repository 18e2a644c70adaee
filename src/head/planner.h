/* Plans are made on a thread of their own, so that no step ever waits for branch and bound: a job
 * is a problem with everything it points to, and comes back with its answer on the event loop's
 * thread. One at a time, in order (CBC keeps globals).
 *
 * Staying as one is has a worth: moving a boundary ships weights and empties caches. So a plan that
 * runs already is kept unless the new one is better by more than PLANNER_STAY. */
#ifndef LINGUA_HEAD_PLANNER_H
#define LINGUA_HEAD_PLANNER_H

#include <stdint.h>

#include "plan/report.h"
#include "wire/cluster.h"

struct event_base;
struct planner;

#define PLANNER_STAY 0.05

/* A problem that owns what it points to, but for its modules, which outlive it. Device i is
 * member[i] of whoever made it; [0] is the head. */
struct draft {
    struct place_problem p;
    struct place_device device[PLAN_DEVICES_MAX];
    char name[PLAN_DEVICES_MAX][WIRE_NAME_MAX];
    struct place_cost cost[PLAN_DEVICES_MAX][CLASSES_MAX];
    struct place_link link[PLAN_DEVICES_MAX * PLAN_DEVICES_MAX];
    int member[PLAN_DEVICES_MAX];
};
/* A copy of `problem` with n devices, whose links, costs and names are to be filled in. */
struct draft *draft_new(const struct place_problem *problem, int n);

struct planner_job {
    struct planner_job *next; /* the planner's */
    struct draft *draft;
    bool equal;   /* LinguaLinked's baseline instead of the program */
    bool as_told; /* `found` (or `code`) is set already: judge it, no more */
    bool has_now, with_report;
    struct placement now; /* has_now: the plan that runs, in the draft's devices */
    void *about;          /* the asker's, until the planner is closed */
    uint32_t ticket;      /* the asker's */

    enum err code; /* the answer */
    struct err_text text;
    struct placement found;
    bool stayed;
    struct report *report; /* with_report, and there is a plan */
    double took_s;
};
/* takes draft */
struct planner_job *planner_job_new(struct draft *draft);
void planner_job_free(struct planner_job *job); /* NULL is fine */

/* done is given the job, which is then its to free. */
struct planner *planner_new(struct event_base *base,
                            void (*done)(void *user, struct planner_job *job), void *user);
/* Waits for the job under way. No call comes after it; jobs that were not answered are freed. */
void planner_close(struct planner *pl);                          /* NULL is fine */
void planner_begin(struct planner *pl, struct planner_job *job); /* takes it */

#endif
