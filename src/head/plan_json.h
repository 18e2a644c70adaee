/* Plans as JSON: the document that `lingua plan --json` prints, that a running head answers {"do":
 * "plan"} with, and that tables and drawings are made from; and devices files. docs/planner.md has
 * both to the field. Any thread. */
#ifndef LINGUA_HEAD_PLAN_JSON_H
#define LINGUA_HEAD_PLAN_JSON_H

#include <jansson.h>

#include "plan/report.h"

/* ---- plan_json.c: the document ---- */

struct plan_json_opts {
    const char *note;    /* where the devices come from: "live", "live, as the plan runs", a file */
    double solve_ms;     /* that finding the plan took */
    const bool *guessed; /* (n_devices) costs follow from a speed; NULL: all were measured */
};
/* The whole report. A live head adds "measured" (docs/planner.md says what is in it) and
 * "devices_file" (plan_devices_json). */
json_t *plan_json(const struct place_problem *p, const struct model *m, const struct report *r,
                  const struct plan_json_opts *opts);

/* ---- plan_devices.c: devices files ---- */

/* A problem's devices, links and wishes for a model whose modules are described in p. */
struct plan_devices {
    struct place_device *device; /* (n) */
    struct place_link *link;     /* (n, n) */
    struct place_cost *cost;     /* (n, n_classes) */
    char **name;                 /* (n) */
    bool *guessed;               /* (n) some class's costs follow from its speed */
    int n;
};
/* Fills *out and makes p's devices, links and head_s those of the file; p borrows from *out. The
 * file may be 1 MiB long. ERR_FILE, ERR_INPUT: names the file, the device and the field, and says
 * what belongs there; *out is empty then. */
MUST_CHECK enum err plan_devices_read(const char *path, const struct model *m,
                                      struct place_problem *p, struct plan_devices *out,
                                      struct err_text *et);
/* The same from JSON that is here already; `path` is what errors call it. */
MUST_CHECK enum err plan_devices_take(const json_t *file, const char *path, const struct model *m,
                                      struct place_problem *p, struct plan_devices *out,
                                      struct err_text *et);
void plan_devices_fini(struct plan_devices *d);

/* p's devices as a devices file, so that a live cluster can be taken apart on paper. The costs of
 * each class stand under its text; "speed" is there for models with other classes. */
json_t *plan_devices_json(const struct place_problem *p, const struct model *m);

/* ---- plan_svg.c: the drawing ---- */

/* A plan's document as an SVG: gives a text, free with free(). Of a document that came from
 * elsewhere nothing is taken on trust. */
char *plan_svg(const json_t *document);

#endif
