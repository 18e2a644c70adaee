/* Plans as JSON: the document that `lingua plan --json` prints, that a running head answers {"do":
 * "plan"} with, and that tables and drawings are made from; and devices files (docs/planner.md has
 * both to the field). */
#ifndef LINGUA_HEAD_PLAN_JSON_H
#define LINGUA_HEAD_PLAN_JSON_H

#include <jansson.h>

#include "plan/report.h"

/* The whole report. m is the model; note: a word on where the devices come from ("live", a file's
 * name). */
json_t *plan_json(const struct place_problem *p, const struct model *m, const struct report *r,
                  const char *note);

/* A devices file: a problem's devices, links and wishes for a model whose modules are described in
 * p. Everything it points to belongs to *out. */
struct plan_devices {
    struct place_device *device;
    struct place_link *link;
    struct place_cost *cost;
    char **name;
    int n;
};
/* ERR_FILE, ERR_INPUT: names the file, the device and the field, and says what belongs there. */
MUST_CHECK enum err plan_devices_read(const char *path, const struct model *m,
                                      struct place_problem *p, struct plan_devices *out,
                                      struct err_text *et);
void plan_devices_fini(struct plan_devices *d);

/* p's devices as a devices file, so that a live cluster can be taken apart on paper. */
json_t *plan_devices_json(const struct place_problem *p, const struct model *m);

#endif
