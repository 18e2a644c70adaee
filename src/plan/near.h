/* A plan near one that is known: what a change of one device's wish makes of it, without the whole
 * search. Internal to src/plan. Pure. */
#ifndef LINGUA_PLAN_NEAR_H
#define LINGUA_PLAN_NEAR_H

#include "plan/place.h"

/* p is the problem that `known` was found for, but for `device`, whose wish is now PLACE_NOT, and
 * which was used, or PLACE_MUST, and which was not. With few devices this is place_solve with
 * opts.quick. With many the orders of devices that are looked at are those of `known`: with another
 * one or none in the device's place, or with the device anywhere among them; the cuts of each are
 * exact. Fails as place_solve does. */
MUST_CHECK enum err place_near(const struct place_problem *p, const struct placement *known,
                               int device, struct placement *out, struct err_text *et);

#endif
