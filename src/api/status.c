/* What the head says of itself: its model, whether it can answer, its slots. Never what people
 * wrote. */
#include <dirent.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

#include "api/api_impl.h"
#include "api/json.h"
#include "api/tokens.h"
#include "base/mem.h"
#include "base/sys.h"
#include "lingua/lingua.h"
#include "text/chat.h"
#include "text/text.h"

/* ---- GET /v1/models, /models, /v1/models/ID ---- */

static json_t *model_json(const struct api *a)
{
    struct cluster_facts facts;
    json_t *meta;

    cluster_facts(a->cluster, &facts);
    meta = json_pack("{s:o, s:o, s:i, s:i, s:i, s:i, s:I, s:I}", "arch",
                     json_text(facts.arch, strlen(facts.arch)), "quantisation",
                     json_text(facts.quantisation, strlen(facts.quantisation)), "n_vocab",
                     facts.n_vocab, "n_embd", facts.n_embd, "n_ctx", facts.n_ctx, "n_ctx_train",
                     facts.n_ctx_train, "n_params", (json_int_t)facts.n_params, "size",
                     (json_int_t)facts.weight_bytes);
    return json_pack("{s:o, s:s, s:I, s:s, s:o}", "id",
                     json_text(api_model(a), strlen(api_model(a))), "object", "model", "created",
                     (json_int_t)a->opened_s, "owned_by", "lingua", "meta", meta);
}

void handle_models(void *user, struct call *call)
{
    static const char below[] = "/v1/models/";
    const struct api *a = user;
    const char *path = call_path(call);
    struct fault f = {.status = 404, .type = "invalid_request_error", .code = "model_not_found"};

    if (strncmp(path, below, sizeof below - 1) != 0) {
        http_reply(call, 200, json_pack("{s:s, s:[o]}", "object", "list", "data", model_json(a)));
        return;
    }
    if (strcmp(path + sizeof below - 1, api_model(a)) == 0) {
        http_reply(call, 200, model_json(a));
        return;
    }
    snprintf(f.param, sizeof f.param, "model");
    snprintf(f.message, sizeof f.message,
             "there is no such model here; GET /v1/models names the one that is served");
    fault_reply(call, &f);
}

/* ---- GET /health, /v1/health ---- */

/* gives: free(). It is large for a stack. */
static struct cluster_stats *stats_now(struct cluster *c)
{
    struct cluster_stats *stats = mem_alloc(sizeof *stats);

    cluster_stats(c, stats);
    return stats;
}

void handle_health(void *user, struct call *call)
{
    const struct api *a = user;
    struct cluster_stats *stats = stats_now(a->cluster);
    struct fault f = {.status = 503,
                      .type = "unavailable_error",
                      .code = "model_not_ready",
                      .message = "Loading model",
                      .retry_s = 2};

    if (stats->running)
        http_reply(call, 200, json_pack("{s:s}", "status", "ok"));
    else
        fault_reply(call, &f);
    free(stats);
}

/* ---- GET /slots ---- */

void handle_slots(void *user, struct call *call)
{
    const struct api *a = user;
    json_t *list = json_array();
    struct cluster_facts facts;
    int n_free = 0;

    cluster_facts(a->cluster, &facts);
    for (int i = 0; i < facts.n_slots; i++) {
        struct cluster_slot slot;

        cluster_slot(a->cluster, i, &slot);
        n_free += !slot.busy;
        json_array_append_new(
            list, json_pack("{s:i, s:i, s:b, s:b, s:i, s:i, s:i}", "id", i, "n_ctx", facts.n_ctx,
                            "is_processing", slot.busy, "is_local", slot.local, "n_held",
                            slot.n_held, "n_prompt", slot.n_prompt, "n_decoded", slot.n_generated));
    }
    /* As llama-server has it, for balancers that ask so. */
    if (!n_free && call_query(call, "fail_on_no_slot")) {
        struct fault f = {.status = 503,
                          .type = "unavailable_error",
                          .message = "no slot is available",
                          .retry_s = 1};

        json_decref(list);
        fault_reply(call, &f);
        return;
    }
    http_reply(call, 200, list);
}

/* ---- GET /props ---- */

/* A setting as people write it: 0.8, where a float is 0.800000011920929. */
static json_t *setting(float value)
{
    return json_real(round((double)value * 1e6) / 1e6);
}

static json_t *defaults_json(const struct cluster_facts *facts)
{
    const struct sampling s = SAMPLING_DEFAULT;
    json_t *params = json_pack(
        "{s:i, s:i, s:i, s:o, s:i, s:o, s:o, s:i, s:o, s:o, s:o, s:b, s:[]}", "n_predict", -1,
        "max_tokens", -1, "seed", -1, "temperature", setting(s.temp), "top_k", s.top_k, "top_p",
        setting(s.top_p), "min_p", setting(s.min_p), "repeat_last_n", s.last_n, "repeat_penalty",
        setting(s.repeat), "presence_penalty", setting(s.presence), "frequency_penalty",
        setting(s.frequency), "stream", 0, "stop");

    return json_pack("{s:i, s:o}", "n_ctx", facts->n_ctx, "params", params);
}

static json_t *token_json(const struct text *t, int32_t token)
{
    size_t n = 0;
    char *bytes = token < 0 ? NULL : token_bytes(t, token, &n);
    json_t *text = json_text(bytes ? bytes : "", n);

    free(bytes);
    return text;
}

/* In a child process, since a template is a program from a file: so on the pool. A template that
 * cannot be judged can do nothing. */
static json_t *caps_json(const struct text *t)
{
    json_t *caps = NULL;
    char *text;

    if (text_has_template(t) && !chat_caps(t, &text, NULL)) {
        caps = json_loads(text, 0, NULL);
        free(text);
    }
    return json_is_object(caps) ? caps : json_object();
}

static bool props(struct work *w, void *own, struct fault *f)
{
    const struct cluster_facts *facts = work_facts(w);
    const struct text *t = work_text(w);
    const char *template = text_has_template(t) ? text_template(t) : "";
    json_t *o = json_object();

    json_object_set_new(o, "default_generation_settings", defaults_json(facts));
    json_object_set_new(o, "total_slots", json_integer(facts->n_slots));
    json_object_set_new(o, "model_alias", json_text(work_model(w), strlen(work_model(w))));
    json_object_set_new(o, "model_path", json_text(facts->model_path, strlen(facts->model_path)));
    json_object_set_new(o, "n_ctx", json_integer(facts->n_ctx));
    json_object_set_new(o, "modalities", json_pack("{s:b, s:b}", "vision", 0, "audio", 0));
    json_object_set_new(o, "chat_template", json_text(template, strlen(template)));
    json_object_set_new(o, "chat_template_caps", caps_json(t));
    json_object_set_new(o, "bos_token", token_json(t, text_bos(t)));
    json_object_set_new(o, "eos_token", token_json(t, text_eos(t)));
    json_object_set_new(o, "build_info", json_string("lingua " LL_VERSION));
    work_answer(w, o);
    return true;
}

void handle_props(void *user, struct call *call)
{
    static const struct work_kind kind = {.prepare = props};

    work_start(user, call, &kind);
}

/* ---- GET /metrics ---- */

static int fds_count(void)
{
    DIR *folder = opendir("/proc/self/fd");
    int n = 0;

    if (!folder)
        return 0;
    while (readdir(folder))
        n++;
    closedir(folder);
    return n > 3 ? n - 3 : 0; /* "." and "..", and the folder itself */
}

static double cpu_seconds(void)
{
    struct rusage used;

    if (getrusage(RUSAGE_SELF, &used))
        return 0;
    return (double)(used.ru_utime.tv_sec + used.ru_stime.tv_sec) +
           1e-6 * (double)(used.ru_utime.tv_usec + used.ru_stime.tv_usec);
}

void handle_metrics(void *user, struct call *call)
{
    struct api *a = user;
    struct cluster_stats *stats = stats_now(a->cluster);
    struct cluster_facts facts;
    struct http_stats http;
    struct metrics_now now = {.facts = &facts,
                              .cluster = stats,
                              .http = &http,
                              .resident_bytes = sys_resident_bytes(),
                              .n_fds = fds_count(),
                              .cpu_s = cpu_seconds(),
                              .started_s = (double)a->opened_s};
    size_t n;
    char *text;

    cluster_facts(a->cluster, &facts);
    http_stats(a->http, &http);
    text = metrics_text(a->metrics, &now, &n);
    free(stats);
    http_reply_bytes(call, 200, "text/plain; version=0.0.4; charset=utf-8", text, n);
    free(text);
}
