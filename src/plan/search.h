/* The search for a plan, and what is known of it so far. Internal to src/plan. Pure. */
#ifndef LINGUA_PLAN_SEARCH_H
#define LINGUA_PLAN_SEARCH_H

#include "plan/order.h"

struct search {
    const struct room *room;
    int n_paces;
    struct pace pace[PACES_MAX];
    struct placement best; /* plan and used, k and g */
    bool found;
    double z;     /* the best plan's */
    long tries;   /* runs looked at along orders */
    int n_orders; /* orders of devices whose cuts were made exact */
};
void search_init(struct search *s, const struct room *room); /* borrows room */
void search_fini(struct search *s);

/* All chains there are; true when it looked at all of them, so that the best plan known is the best
 * there is. */
bool search_all(struct search *s);
/* Chains along one order of the devices beside the head. */
void search_order(struct search *s, const int *order, int n);
/* Likely orders, and what is near the best of them, until a plan has z <= enough. */
void search_near(struct search *s, double enough);
/* The same around a given order; devices that are not in it are tried behind it. */
void search_around(struct search *s, const int *order, int n, double enough);

#endif
