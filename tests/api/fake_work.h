/* Runs a route without a server and without a cluster: what work.h promises, done at once and on one
 * thread, with a made-up model behind it. For the routes that look at rows or at nothing at all. */
#ifndef TESTS_API_FAKE_WORK_H
#define TESTS_API_FAKE_WORK_H

#include "api/api_impl.h"

enum { FAKE_SLOTS = 3, FAKE_EMBD = 4, FAKE_GENS_MAX = 300 };

struct fake {
    struct api api;
    struct text *text;
    struct cluster_facts facts;
    struct cluster_stats stats;
    struct cluster_slot slot[FAKE_SLOTS];
    bool broken; /* the model's numbers are not finite */

    /* Of the last request. */
    int status;
    json_t *json; /* the answer; NULL: it was no JSON */
    char *bytes, *type;
    char retry_after[16];
    int n_gens, n_rows; /* generations it took, rows that were looked at */
    int after[FAKE_GENS_MAX];
};

/* chat_template NULL: none. */
void fake_init(struct fake *f, const char *chat_template);
void fake_fini(struct fake *f);
/* body NULL: a GET. query: "name" that is given, or NULL. Returns f->json. */
const json_t *fake_ask(struct fake *f, route_handler *handler, const char *path, const char *body,
                       const char *query);
/* What the made-up model gives behind tokens[0..n): (width). */
void fake_row(const struct fake *f, const int32_t *tokens, int n, int width, float *row);

#endif
