/* The API over a fake cluster, asked by raw requests on the same thread. */
#ifndef LINGUA_TESTS_API_API_RIG_H
#define LINGUA_TESTS_API_API_RIG_H

#include <jansson.h>

#include "api/api.h"
#include "api/client.h"
#include "api/fake_gen.h"

struct api_rig {
    struct event_base *base;
    struct cluster *cluster;
    struct api *api;
    int status;   /* of the last answer */
    char *answer; /* its body, terminated; until the next */
};

/* opts: NULL = a free port and nothing else. The template reads and writes calls in the manner of
 * Hermes. */
void api_rig_open(struct api_rig *r, const struct api_opts *opts);
void api_rig_close(struct api_rig *r);

/* body: JSON as text; NULL: a GET. Returns r->answer. */
const char *api_ask(struct api_rig *r, const char *path, const char *body);
/* The same as JSON; the status must be as given. json_decref. */
json_t *api_json(struct api_rig *r, const char *path, const char *body, int status);
/* The events of a stream as an array of objects; "[DONE]" and what could not be read is a string. */
json_t *api_events(struct api_rig *r, const char *path, const char *body);
/* Sends it and waits for nothing. */
void api_begin(struct api_rig *r, struct client *c, const char *path, const char *body);

/* "choices.0.message.content": the string there, or "". */
const char *at_text(const json_t *v, const char *path);
const json_t *at(const json_t *v, const char *path);
long long at_number(const json_t *v, const char *path); /* -1: there is none */

#endif
