/* A plan: which device holds which modules, and what travels between them.
 *
 * A stage is a segment in its place in the chain; stage i ends where stage i + 1 begins, so
 * neighbouring stages are always on different devices. Device 0 is the head. A device holds one
 * stage or two: two is how the head takes `output` as well as its first modules. After plan_check a
 * plan is a plain value: pure functions, any thread. */
#ifndef LINGUA_PLAN_PLAN_H
#define LINGUA_PLAN_PLAN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "model/model.h"

enum { PLAN_DEVICES_MAX = 64, PLAN_PER_DEVICE_MAX = 2, PLAN_STAGES_MAX = 128 };

struct plan_stage {
    int device, first, end; /* modules [first, end) */
};

struct plan {
    uint32_t epoch;
    int n_devices, n_stages;
    struct plan_stage stage[PLAN_STAGES_MAX]; /* in the order of their modules */
};

/* ERR_INPUT unless the stages are modules 0..n_modules - 1 without gap or overlap, every device has
 * one or two of them, and no two neighbours are on one device. */
MUST_CHECK enum err plan_check(const struct plan *p, int n_modules, struct err_text *et);

/* The stages of a device in order; returns how many. */
int plan_stages(const struct plan *p, int device, int stages[PLAN_PER_DEVICE_MAX]);

/* What leaves a stage, and where it goes. */
struct plan_transfer {
    int to_stage;  /* n_stages = home, as the result */
    int to_device; /* 0 for the result */
    int n;         /* tensors */
    int width[EDGES_MAX];
};

/* The transmission map, one stage at a time. All edges here are sequential: producer and consumer
 * are neighbours, because a module reads only what the module before it gives. A family whose
 * module reads an earlier one's output (a residual edge) will make model_edges name the producer;
 * this function then returns one transfer per consumer, and whoever sends sends to each of them
 * directly. */
void plan_transfer(const struct plan *p, const struct model *m, int stage,
                   struct plan_transfer *out);
/* The tensors stage is to be given with a step; returns how many, 0 for the stage that embeds. */
int plan_inputs(const struct plan *p, const struct model *m, int stage, int width[EDGES_MAX]);

/* Whether two devices send to each other, either way. Device 0 feeds the first stage and takes the
 * result. */
bool plan_linked(const struct plan *p, int a, int b);

/* "embed..ffn.1", "attn.2..ffn.3 + output" */
void plan_describe(const struct plan *p, const struct model *m, int device, char *buf, size_t cap);
/* Weights of the device's modules as the model counts them, known before anything is loaded. */
uint64_t plan_weight_bytes(const struct plan *p, const struct model *m, int device);

#endif
