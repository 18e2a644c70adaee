/* An engine whose modules are a running head's: the vocabulary and the sampling are here, the
 * computing is there. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "head/engine.h"
#include "head/trace.h"

static enum err ask_devices(struct ll_engine *engine, struct err_text *et)
{
    json_t *answer;
    enum err e = remote_ask(engine->remote, json_pack("{s:s}", "do", "devices"), &answer, et);

    if (e)
        return e;
    json_decref(engine->devices);
    engine->devices = answer;
    return ERR_NONE;
}

/* Only devices with a part in the plan count. */
static const json_t *device_at(const struct ll_engine *engine, int i)
{
    const json_t *list = json_object_get(engine->devices, "devices");
    const json_t *d;
    size_t k;

    json_array_foreach(list, k, d)
    {
        const char *modules = json_string_value(json_object_get(d, "modules"));

        if (modules && *modules && i-- == 0)
            return d;
    }
    return NULL;
}

int engine_remote_n_devices(const struct ll_engine *engine)
{
    int n = 0;

    while (device_at(engine, n))
        n++;
    return n;
}

enum err engine_open_remote(struct ll_engine *engine, const struct ll_engine_opts *opts,
                            struct err_text *et)
{
    struct remote_info info;
    enum err e = remote_open(opts->cluster, &engine->remote, et);

    if (e)
        return e;
    engine->n_sessions = opts->n_sessions ? opts->n_sessions : 1;
    if (opts->waiting)
        remote_on_waiting(engine->remote, opts->waiting, opts->user);
    e = remote_slots(engine->remote, engine->n_sessions, &info, et);
    if (!e)
        e = engine_load_model(engine, info.path, et);
    if (!e)
        e = ask_devices(engine, et);
    if (e)
        return e;
    engine->n_ctx = info.n_ctx;
    engine->n_rows_max = info.n_rows_max;
    engine->slots = mem_zalloc((size_t)engine->n_sessions, sizeof *engine->slots);
    for (int i = 0; i < model_n_modules(engine->model); i++)
        engine->kv_bytes_per_position += model_kv_bytes(engine->model, i, (enum kv_type)info.kv);
    return ERR_NONE;
}

void engine_close_remote(struct ll_engine *engine)
{
    json_decref(engine->devices);
    remote_close(engine->remote);
}

enum err engine_remote_device(struct ll_engine *engine, int i, struct ll_device_info *info,
                              struct err_text *et)
{
    const json_t *d;
    enum err e = i == 0 || !engine->devices ? ask_devices(engine, et) : ERR_NONE;

    if (e)
        return e;
    d = device_at(engine, i);
    if (!d)
        return err_set(et, ERR_GONE, "device %d has left", i);
    *info = (struct ll_device_info){
        .n_threads = (int)remote_number(d, "threads"),
        .weight_bytes = remote_number(d, "weight_bytes"),
        .kv_bytes = remote_number(d, "kv_bytes"),
        .resident_bytes = remote_number(d, "resident_bytes"),
        .steps = remote_number(d, "steps"),
        .rows = remote_number(d, "rows"),
        .compute_ms = json_real_value(json_object_get(d, "compute_ms")),
        .decode_ms = json_real_value(json_object_get(d, "decode_ms")),
        .sent_bytes = remote_number(d, "sent_bytes"),
        .sent_bytes_per_row = json_real_value(json_object_get(d, "sent_bytes_per_row")),
        .received_bytes = remote_number(d, "received_bytes"),
    };
    snprintf(info->name, sizeof info->name, "%s", remote_text(d, "name"));
    snprintf(info->modules, sizeof info->modules, "%s", remote_text(d, "modules"));
    snprintf(info->link, sizeof info->link, "%s", remote_text(d, "security"));
    return ERR_NONE;
}

/* ---- traces ---- */

static enum ll_code ask_trace(struct ll_engine *engine, bool on, json_t **answer,
                              struct ll_error *error)
{
    struct err_text et = {{0}};
    enum err e;

    if (!engine->remote)
        return engine_say(error, LL_UNSUPPORTED,
                          "a trace shows how devices work together: it needs a cluster");
    pthread_mutex_lock(&engine->lock);
    e = remote_ask(engine->remote, json_pack("{s:s, s:b}", "do", "trace", "on", (int)on), answer,
                   &et);
    pthread_mutex_unlock(&engine->lock);
    return e ? engine_fail(error, e, &et) : LL_OK;
}

enum ll_code ll_engine_trace_begin(struct ll_engine *engine, struct ll_error *error)
{
    json_t *answer = NULL;
    enum ll_code code = ask_trace(engine, true, &answer, error);

    json_decref(answer);
    return code;
}

static bool record_get(const json_t *list, size_t i, struct trace_record *r)
{
    const json_t *a = json_array_get(list, i);
    int64_t v[8];

    if (json_array_size(a) != 8)
        return false;
    for (size_t k = 0; k < 8; k++)
        v[k] = json_integer_value(json_array_get(a, k));
    *r = (struct trace_record){v[0], v[1], v[2], v[3], v[4], v[5], v[6], v[7]};
    return true;
}

static json_t *events_of(const json_t *answer)
{
    const json_t *list = json_object_get(answer, "records");
    size_t n = 0, n_all = json_array_size(list);
    struct trace_record *r = mem_zalloc(n_all + 1, sizeof *r);
    json_t *events;

    for (size_t i = 0; i < n_all; i++)
        n += record_get(list, i, &r[n]);
    events = trace_events(json_object_get(answer, "devices"), r, n,
                          json_object_get(answer, "predicted_ms")); /* by stage, of one row */
    free(r);
    return events;
}

enum ll_code ll_engine_trace_write(struct ll_engine *engine, const char *path,
                                   struct ll_error *error)
{
    json_t *answer = NULL, *o;
    enum ll_code code = ask_trace(engine, false, &answer, error);
    struct err_text et = {{0}};

    if (code)
        return code;
    o = trace_json(events_of(answer));
    json_decref(answer);
    if (json_dump_file(o, path, JSON_COMPACT))
        code = engine_fail(error, err_system(&et, "write %s", path), &et);
    json_decref(o);
    return code;
}
