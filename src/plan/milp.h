/* The mixed-integer linear program, by CBC (docs/planner.md has it in the field's notation). It says
 * what no plan at one pace can be better than, and which order of devices would be that good.
 * Internal to src/plan.
 *
 * Two forms. By module: exact, one binary per device and module, one flow per boundary and pair of
 * devices; for what is small. By kind: modules that cost and weigh the same are counted, not named;
 * a relaxation (cuts are priced at the cheapest boundary, runs need not be contiguous kind by kind),
 * small enough for many devices and layers. Whoever takes its order makes the cuts exact by order.c.
 *
 * Never a time limit: plans would depend on the machine's speed. Each solve is a child process
 * (base/apart.h); one that dies is as if nothing had been found out. Any thread. */
#ifndef LINGUA_PLAN_MILP_H
#define LINGUA_PLAN_MILP_H

#include "plan/order.h"

enum milp_form { MILP_BY_MODULE, MILP_BY_KIND };

struct milp_opts {
    enum milp_form form;
    double below;  /* only plans with z < below are of interest; finite */
    double gap;    /* may stop when it is proved to be that near, relative */
    int nodes_max; /* 0 = as many as it takes */
};
struct milp_result {
    double bound; /* z of no plan is below it; never above opts.below */
    bool found;   /* a solution better than opts.below; `order` is its devices' */
    int n_order, order[PLAN_DEVICES_MAX];
    int n_columns, n_rows, n_nodes;
};
void milp_solve(const struct pace *x, const struct milp_opts *opts, struct milp_result *out);
/* Columns the form by module would have. */
int milp_columns_by_module(const struct pace *x);

#endif
