/* The text of --split, turned into a plan. Pure: no model, only how many modules it has and what
 * each costs.
 *
 *     3               three devices, cut so that the most burdened has as little as possible, with
 *                     `output` (the last module) on the first device
 *     0-5,6-13,14-    one range of modules per device, separated by commas; an open end is the last
 *                     module; one number is one module
 *     0-4+13,5-12     a device with two ranges
 *
 * A single number alone is a number of devices; 7-7 is the range. Every module must be on exactly
 * one device. */
#ifndef LINGUA_HEAD_SPLIT_H
#define LINGUA_HEAD_SPLIT_H

#include "base/err.h"
#include "plan/plan.h"

/* cost[i]: what module i costs a device for one token, e.g. the bytes it reads. ERR_INPUT says what
 * is wrong and what would do. */
MUST_CHECK enum err split_parse(const char *text, int n_modules, const double *cost,
                                struct plan *out, struct err_text *et);
/* Everything on device 0. */
void split_whole(int n_modules, struct plan *out);

#endif
