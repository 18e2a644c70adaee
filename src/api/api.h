/* The HTTP server of a head: OpenAI's dialect, llama-server's, metrics, the page.
 *
 * One request's way:
 *   1. http.c reads it (libevent), within limits; a route is found; key, origin and method are
 *      judged. A body that is too large, a header flood, a wrong method end here.
 *   2. The route's `prepare` runs on the pool's slow lane: JSON within limits (json.h), parameters
 *      (params.h), template, tokens, sampler. It makes the answer (an error, or /tokenize's), or a
 *      plan of generations.
 *   3. Back on the loop the generations begin (head/gen.h). What they say is turned into JSON on
 *      the pool's threads, too (gen_calls.digest), and written by http.c: at once as a server-sent
 *      event, or all together.
 *   4. The client that goes away cancels its generations. One that does not read: from
 *      API_UNREAD_MAX bytes waiting on, nothing more is written to it (the text is kept, which is
 *      bounded by the request's own limits); after API_UNREAD_S seconds of that it is dropped.
 *
 * No prompt and no answer is logged. All of it on the event loop's thread but for step 2 and
 * `digest`. */
#ifndef LINGUA_API_API_H
#define LINGUA_API_API_H

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"
#include "base/log.h"

struct event_base;
struct cluster;
struct api;

/* docs/api.md tells the user of these. */
enum {
    API_BODY_MAX = 16 << 20,
    API_HEADERS_MAX = 32 << 10,
    API_CONNECTIONS_MAX = 512,
    API_UNREAD_MAX = 1 << 20,
    API_UNREAD_S = 30,
    API_IDLE_S = 120, /* between requests, and within one that does not come on */
    API_N_MAX = 16,   /* choices of one request */
    API_KEYS_MAX = 64,
    API_JSON_DEPTH = 64,
    API_JSON_VALUES_MAX = 1 << 20,
    API_SCHEMA_DEPTH = 32,
    API_SCHEMA_BYTES_MAX = 64 << 10,
    API_MESSAGES_MAX = 4096,
    API_TOOLS_MAX = 128,
    API_LABELS_MAX = 256,
    API_INPUTS_MAX = 2048, /* of an embeddings request */
    API_WATCHERS_MAX = 64, /* readers of /cluster/events */
    API_ORDER_MAX = 4096,  /* bytes of what the page asks for */
};

struct api_opts {
    const char *host;        /* NULL: 127.0.0.1 */
    int port;                /* 0: any that is free */
    const char *const *keys; /* API keys, copied and wiped; none: everybody may ask */
    int n_keys;
    const char *cors;               /* origin that pages may come from; "*" = all; NULL = none */
    const char *tls_cert, *tls_key; /* PEM files, both or none */
    const char *alias;              /* the model's name in answers; NULL: the file's own */
    int pooling; /* of embeddings: 1 mean, 2 cls, 3 last; 0: the file's own, or mean */
    struct log log;
};

MUST_CHECK enum err api_open(struct event_base *base, struct cluster *cluster,
                             const struct api_opts *opts, struct api **out, struct err_text *et);
/* Open answers end. Before cluster_close. */
void api_close(struct api *a); /* NULL is fine */
int api_port(const struct api *a);
/* What the page at http://HOST:PORT/#key=KEY begins its session with (session.h): a secret, new with each
 * api_open. Borrowed. */
const char *api_page_key(const struct api *a);

#endif
