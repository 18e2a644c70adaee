#include "api/api.h"

#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "api/api_impl.h"
#include "api/json.h"
#include "base/check.h"
#include "base/mem.h"
#include "lingua/lingua.h"

/* Whoever puts a /v1 before llama-server's routes, or leaves it out before OpenAI's, is understood
 * where llama-server does so. */
static const struct http_route routes[] = {
    {"/v1/chat/completions", HTTP_POST, false, handle_chat},
    {"/chat/completions", HTTP_POST, false, handle_chat},
    {"/v1/completions", HTTP_POST, false, handle_completions},
    {"/completion", HTTP_POST, false, handle_completion},
    {"/completions", HTTP_POST, false, handle_completion},
    {"/v1/embeddings", HTTP_POST, false, handle_embeddings},
    {"/embedding", HTTP_POST, false, handle_embedding},
    {"/embeddings", HTTP_POST, false, handle_embedding},
    {"/v1/classify", HTTP_POST, false, handle_classify},
    {"/v1/models", HTTP_GET, false, handle_models},
    {"/v1/models/", HTTP_GET, false, handle_models},
    {"/models", HTTP_GET, false, handle_models},
    {"/tokenize", HTTP_POST, false, handle_tokenize},
    {"/detokenize", HTTP_POST, false, handle_detokenize},
    {"/apply-template", HTTP_POST, false, handle_apply_template},
    {"/health", HTTP_GET, true, handle_health},
    {"/v1/health", HTTP_GET, true, handle_health},
    {"/props", HTTP_GET, false, handle_props},
    {"/slots", HTTP_GET, false, handle_slots},
    {"/metrics", HTTP_GET, false, handle_metrics},
    {"/cluster/timeline", HTTP_GET, false, handle_timeline},
    {"/cluster/trace", HTTP_GET, false, handle_trace},
};

static void on_answered(void *user, const char *route, int status, double seconds)
{
    struct api *a = user;

    metrics_answered(a->metrics, route, status, seconds);
}

/* A name that stands in every answer: a file may have any bytes in it. */
static char *name_made(const struct api_opts *opts, struct cluster *cluster)
{
    struct cluster_facts facts;
    const char *name;
    json_t *clean;
    char *made;

    cluster_facts(cluster, &facts);
    name = opts->alias ? opts->alias : facts.model_name ? facts.model_name : "model";
    clean = json_text(name, strlen(name));
    made = mem_strdup(json_string_value(clean));
    json_decref(clean);
    return made;
}

enum err api_open(struct event_base *base, struct cluster *cluster, const struct api_opts *opts,
                  struct api **out, struct err_text *et)
{
    struct api *a = mem_zalloc(1, sizeof *a);
    const struct http_table table = {routes, (int)ARRAY_LEN(routes), a, on_answered};
    enum err e;

    *out = NULL;
    a->base = base;
    a->cluster = cluster;
    a->text = cluster_text(cluster);
    a->pool = cluster_pool(cluster);
    CHECK(a->text && a->pool); /* cluster_opts.api */
    a->metrics = metrics_new();
    a->log = opts->log;
    a->alias = name_made(opts, cluster);
    a->system = mem_printf("lingua-%s", LL_VERSION);
    a->pooling = opts->pooling;
    a->opened_s = time(NULL);
    a->n_refs = 1;
    e = http_open(base, opts, &table, &a->http, et);
    if (e) {
        api_unref(a);
        return e;
    }
    *out = a;
    return ERR_NONE;
}

void api_close(struct api *a)
{
    struct http *http;

    if (!a)
        return;
    http = a->http;
    a->http = NULL;
    http_close(http);
    api_unref(a);
}

int api_port(const struct api *a)
{
    return http_port(a->http);
}

const char *api_model(const struct api *a)
{
    return a->alias;
}

void api_ref(struct api *a)
{
    a->n_refs++;
}

void api_unref(struct api *a)
{
    if (--a->n_refs > 0)
        return;
    metrics_free(a->metrics);
    free(a->alias);
    free(a->system);
    free(a);
}
