/* Shared by the routes: the api itself, and the table's handlers. A handler gets the api as `user`
 * and answers the call at once (GETs) or by work_start (work.h). */
#ifndef LINGUA_API_API_IMPL_H
#define LINGUA_API_API_IMPL_H

#include <event2/event.h>

#include "api/api.h"
#include "api/error.h"
#include "api/http.h"
#include "api/metrics.h"
#include "api/work.h"
#include "head/gen.h"

struct api {
    struct event_base *base;
    struct cluster *cluster;
    const struct text *text;
    struct pool *pool;
    struct http *http; /* NULL once it is closing */
    struct metrics *metrics;
    struct watch *watch;
    struct http_route *routes;
    struct log log;
    char *alias, *system; /* the name in answers, and system_fingerprint */
    int pooling;
    int64_t opened_s; /* since 1970: "created" of the model */
    int n_refs;       /* of api_open, and of each request under way: those may outlive api_close */
    int n_works;
};

/* The model's name in answers. */
const char *api_model(const struct api *a);
void api_ref(struct api *a);
void api_unref(struct api *a);

/* api.c's table; each in the file named. */
typedef void route_handler(void *api, struct call *call); /* a function's type, to declare many */
route_handler handle_chat;                                /* chat.c: POST /v1/chat/completions */
route_handler handle_completions;                         /* complete.c: POST /v1/completions */
route_handler handle_completion;     /* complete.c: POST /completion, /completions */
route_handler handle_models;         /* status.c: GET /v1/models, /models, /v1/models/ID */
route_handler handle_health;         /* status.c: GET /health, /v1/health; open */
route_handler handle_props;          /* status.c: GET /props */
route_handler handle_slots;          /* status.c: GET /slots */
route_handler handle_metrics;        /* status.c: GET /metrics */
route_handler handle_timeline;       /* timeline.c: GET /cluster/timeline */
route_handler handle_trace;          /* timeline.c: GET /cluster/trace */
route_handler handle_tokenize;       /* tokens.c: POST /tokenize */
route_handler handle_detokenize;     /* tokens.c: POST /detokenize */
route_handler handle_apply_template; /* tokens.c: POST /apply-template */
route_handler handle_embeddings;     /* embed.c: POST /v1/embeddings: OpenAI's answer */
route_handler handle_embedding;      /* embed.c: POST /embedding, /embeddings: llama-server's */
route_handler handle_classify;       /* classify.c: POST /v1/classify */
route_handler handle_page;           /* page.c: GET / and the page's other files; open */
route_handler handle_session;        /* page.c: GET, POST /session; open */
route_handler handle_cluster;        /* watch.c: GET /cluster */
route_handler handle_events;         /* watch.c: GET /cluster/events */
route_handler handle_drain;          /* orders.c: POST /cluster/drain; for the page */
route_handler handle_invite;         /* orders.c: POST /cluster/invite; for the page */

/* A small body, read on the loop's thread. NULL: *f says why. */
json_t *order_body(struct call *call, struct fault *f); /* orders.c */

#endif
