/* The API's part of `lingua serve`: its options, its keys, and its life beside the cluster. */
#ifndef LINGUA_CLI_SERVE_API_H
#define LINGUA_CLI_SERVE_API_H

#include <stdbool.h>
#include <stdint.h>

#include "api/api.h"
#include "cli/options.h"

struct serve_api {
    const char *host, *key, *key_file, *cors, *tls_cert, *tls_key, *alias;
    int64_t port, queue;
    int pooling; /* as api_opts has it */
    bool none;
    char *keys[API_KEYS_MAX];
    int n_keys;
    struct api *api;
};
#define SERVE_API_DEFAULT ((struct serve_api){.port = 8080})

/* Its rows of serve's option table. */
enum { SERVE_API_OPTIONS = 11 };
void serve_api_options(struct serve_api *a, struct option_spec out[SERVE_API_OPTIONS]);

/* After the options were read, whatever came of it: takes the keys in and wipes where they stood.
 * Returns -1, or the exit status after saying what is wrong. */
int serve_api_settle(struct serve_api *a);
/* Opens it beside the cluster and says where it is. The same. */
int serve_api_open(struct serve_api *a, struct event_base *base, struct cluster *cluster,
                   struct log log);
void serve_api_close(struct serve_api *a); /* before the cluster */

#endif
