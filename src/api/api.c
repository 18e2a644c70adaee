#include "api/api.h"

#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "api/api_impl.h"
#include "api/json.h"
#include "api/page_files.h"
#include "api/session.h"
#include "api/watch.h"
#include "base/check.h"
#include "base/mem.h"
#include "lingua/lingua.h"

/* Whoever puts a /v1 before llama-server's routes, or leaves it out before OpenAI's, is understood
 * where llama-server does so. */
static const struct http_route routes[] = {
    {"/v1/chat/completions", HTTP_POST, HTTP_NEED_KEY, handle_chat},
    {"/chat/completions", HTTP_POST, HTTP_NEED_KEY, handle_chat},
    {"/v1/completions", HTTP_POST, HTTP_NEED_KEY, handle_completions},
    {"/completion", HTTP_POST, HTTP_NEED_KEY, handle_completion},
    {"/completions", HTTP_POST, HTTP_NEED_KEY, handle_completion},
    {"/v1/embeddings", HTTP_POST, HTTP_NEED_KEY, handle_embeddings},
    {"/embedding", HTTP_POST, HTTP_NEED_KEY, handle_embedding},
    {"/embeddings", HTTP_POST, HTTP_NEED_KEY, handle_embedding},
    {"/v1/classify", HTTP_POST, HTTP_NEED_KEY, handle_classify},
    {"/v1/models", HTTP_GET, HTTP_NEED_KEY, handle_models},
    {"/v1/models/", HTTP_GET, HTTP_NEED_KEY, handle_models},
    {"/models", HTTP_GET, HTTP_NEED_KEY, handle_models},
    {"/tokenize", HTTP_POST, HTTP_NEED_KEY, handle_tokenize},
    {"/detokenize", HTTP_POST, HTTP_NEED_KEY, handle_detokenize},
    {"/apply-template", HTTP_POST, HTTP_NEED_KEY, handle_apply_template},
    {"/health", HTTP_GET, HTTP_NEED_NOTHING, handle_health},
    {"/v1/health", HTTP_GET, HTTP_NEED_NOTHING, handle_health},
    {"/props", HTTP_GET, HTTP_NEED_KEY, handle_props},
    {"/slots", HTTP_GET, HTTP_NEED_KEY, handle_slots},
    {"/metrics", HTTP_GET, HTTP_NEED_KEY, handle_metrics},
    {"/session", HTTP_GET | HTTP_POST, HTTP_NEED_NOTHING, handle_session},
    {"/cluster", HTTP_GET, HTTP_NEED_KEY, handle_cluster},
    {"/cluster/events", HTTP_GET, HTTP_NEED_KEY, handle_events},
    {"/cluster/timeline", HTTP_GET, HTTP_NEED_KEY, handle_timeline},
    {"/cluster/trace", HTTP_GET, HTTP_NEED_KEY, handle_trace},
    {"/cluster/drain", HTTP_POST, HTTP_NEED_SESSION, handle_drain},
    {"/cluster/invite", HTTP_POST, HTTP_NEED_SESSION, handle_invite},
};

/* The table, and the page's files behind it. */
static struct http_route *routes_made(int *n)
{
    struct http_route *all = mem_alloc((ARRAY_LEN(routes) + (size_t)page_n_files) * sizeof *all);

    memcpy(all, routes, sizeof routes);
    *n = (int)ARRAY_LEN(routes);
    for (int i = 0; i < page_n_files; i++)
        all[(*n)++] =
            (struct http_route){page_files[i].path, HTTP_GET, HTTP_NEED_NOTHING, handle_page};
    return all;
}

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
    struct http_table table = {.user = a, .answered = on_answered};
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
    a->watch = watch_new(a);
    a->routes = routes_made(&table.n_routes);
    table.routes = a->routes;
    e = http_open(base, opts, &table, &a->http, et);
    if (e) {
        watch_free(a->watch);
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
    watch_free(a->watch);
    api_unref(a);
}

int api_port(const struct api *a)
{
    return http_port(a->http);
}

const char *api_page_key(const struct api *a)
{
    return http_session(a->http)->key;
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
    free(a->routes);
    free(a);
}
