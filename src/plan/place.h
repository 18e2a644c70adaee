/* Placing: which device gets which modules.
 *
 * Data in, plan out; pure. This first method keeps the head first and the others in the order
 * given, cuts the modules so that the busiest device takes as little time per token as possible
 * (each device's time is the weight bytes it reads over its speed: with one cut point per device
 * that is "proportional to speed"), within every device's memory, and gives `output` to the head
 * when it fits there. Of equally fast plans the one with the fewest devices is taken, then the one
 * with the least time in all. Exact, by dynamic programming over the cut points. The linear program
 * will take its place behind the same function. */
#ifndef LINGUA_PLAN_PLACE_H
#define LINGUA_PLAN_PLACE_H

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"
#include "model/segment.h"
#include "plan/plan.h"

/* What a module costs, whoever runs it. */
struct place_module {
    uint64_t weight_bytes; /* resident once loaded */
    uint64_t decode_bytes; /* read per token */
    uint64_t kv_bytes;     /* per position of one slot */
    bool is_private;       /* only on devices marked mine, when asked for */
};

struct place_device {
    const char *name;
    uint64_t memory_bytes; /* budget of the whole process; 0 = as much as it likes */
    uint64_t base_bytes;   /* taken before any module */
    uint64_t speed;        /* weight bytes per second; 0 = unknown: as the slowest that is known */
    bool mine;
};

struct place_problem {
    int n_modules, n_devices; /* device 0 is the head */
    const struct place_module *module;
    const struct place_device *device;
    uint64_t tied_bytes;    /* weight bytes that `embed` and `output` share where both are on one
                            device; 0 when they share none */
    uint64_t scratch_bytes; /* every device with a module needs, to compute */
    uint64_t scratch_output_bytes; /* the one with `output` needs on top */
    int n_slots, n_ctx;
    bool want_private;
};

struct placement {
    struct plan plan;                        /* n_devices counts those used; epoch is 0 */
    int used[PLAN_DEVICES_MAX];              /* plan's device i is the problem's device used[i] */
    uint64_t memory_bytes[PLAN_DEVICES_MAX]; /* what device i will take of its budget */
    double seconds[PLAN_DEVICES_MAX];        /* per token, predicted */
};

/* ERR_MEMORY: the budgets are too small; says by how many MiB (the least that would do, given to
 * the device it names), and the largest context that would fit, if any. ERR_INPUT: private modules
 * and no room on devices marked mine. The same problem gives the same placement. */
MUST_CHECK enum err place_solve(const struct place_problem *p, struct placement *out,
                                struct err_text *et);
/* The largest n_ctx (a multiple of 64, at least 64, at most 2^24) for which place_solve finds a
 * plan; 0 = none. */
int place_largest_ctx(const struct place_problem *p);

/* Fills modules, tied and scratch figures, slots and context from a model and how its segments will
 * be opened (describe.c). modules is (model_n_modules) and borrowed by p; p's devices stay as they
 * are. */
void place_describe(const struct model *m, const struct segment_opts *opts, struct place_problem *p,
                    struct place_module *modules);

#endif
