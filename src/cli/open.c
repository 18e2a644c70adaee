#include "cli/open.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "api/json.h"
#include "base/check.h"
#include "base/mem.h"
#include "cli/cmd.h"
#include "cli/default_model.h"
#include "cli/say.h"
#include "cli/table.h"

const char *const open_kv_names[] = {"f16", "q8_0", "f32", NULL};

static void say_line(const char *line)
{
    say("%s", line);
}

int fail(const struct ll_error *error)
{
    say("%s", error->message);
    return STATUS_FAILED;
}

int model_path_find(const char *model, char **path)
{
    struct err_text et = {{0}};

    if (model) {
        *path = mem_strdup(model);
        return 0;
    }
    if (default_model_path(say_line, path, &et)) {
        say("%s", et.text);
        return STATUS_FAILED;
    }
    return 0;
}

static void on_progress(void *user, uint64_t done, uint64_t total)
{
    progress_show(user, done, total);
}

int engine_open(const char *model, const struct open_options *o, struct ll_engine **out)
{
    struct ll_engine_opts opts = ll_engine_defaults();
    struct ll_engine_info info;
    struct progress progress;
    struct ll_error error;
    enum ll_code code;
    char *path;
    int status = model_path_find(model, &path);

    if (status)
        return status;
    opts.model_path = path;
    opts.n_ctx = (int)o->ctx;
    opts.n_threads = (int)o->threads;
    opts.kv = (enum ll_kv)o->kv;
    opts.split = o->split;
    opts.progress = on_progress;
    opts.user = &progress;
    progress_begin(&progress, "loading");
    code = ll_engine_open(&opts, out, &error);
    progress_end(&progress);
    free(path);
    if (code)
        return fail(&error);
    ll_engine_info(*out, &info);
    if (!o->any_ctx && info.n_ctx_train && info.n_ctx > info.n_ctx_train)
        say("warning: a context of %d, but the model was trained for %d: text beyond that gets "
            "worse; --ctx %d keeps within it",
            info.n_ctx, info.n_ctx_train, info.n_ctx_train);
    if (o->threads > info.n_threads)
        say("warning: %lld threads were asked for, but there are %d cores: using %d",
            (long long)o->threads, info.n_threads, info.n_threads);
    return 0;
}

static void on_waiting(void *user, const char *text)
{
    static bool waits;

    (void)user;
    if (!waits && isatty(STDOUT_FILENO) && isatty(STDERR_FILENO))
        fputc('\n', stderr); /* the prompt or half an answer may stand on this line */
    waits = *text;
    if (*text)
        say("waiting: %s", text);
    else
        say("it goes on");
}

int cluster_engine_open(const struct open_options *o, struct ll_engine **out)
{
    struct ll_engine_opts opts = ll_engine_defaults();
    struct ll_error error;

    opts.cluster = o->cluster;
    opts.waiting = on_waiting;
    return ll_engine_open(&opts, out, &error) ? fail(&error) : 0;
}

void cluster_devices_print(struct ll_engine *engine, FILE *f)
{
    static const struct table_column columns[] = {
        {"device", false},  {"modules", false},  {"weights", true}, {"received", true},
        {"ms/token", true}, {"bytes/hop", true}, {"link", false},
    };
    struct ll_device_info d;
    struct ll_error error;
    struct table t;
    char buf[NUM_MAX];

    table_init(&t, columns, (int)ARRAY_LEN(columns));
    /* As many as there are now: they come and go. */
    for (int i = 0; ll_engine_device(engine, i, &d, &error) == LL_OK; i++) {
        table_row(&t);
        table_cell(&t, 0, "%s", d.name);
        table_cell(&t, 1, "%s", *d.modules ? d.modules : "-");
        table_cell(&t, 2, "%s", num_bytes(buf, d.weight_bytes));
        table_cell(&t, 3, "%s", num_bytes(buf, d.received_bytes));
        table_cell(&t, 4, d.decode_ms > 0 ? "%.2f" : "-", d.decode_ms);
        table_cell(&t, 5, "%s", num_thousands(buf, (uint64_t)(d.sent_bytes_per_row + 0.5)));
        table_cell(&t, 6, "%s", d.link);
    }
    if (t.n_rows)
        table_print(&t, f);
    else
        say("%s", error.message);
    table_fini(&t);
}

void devices_print(struct ll_engine *engine, FILE *f)
{
    static const struct table_column columns[] = {
        {"device", false}, {"pid", true},    {"modules", false}, {"threads", true},
        {"weights", true}, {"memory", true}, {"ms/token", true}, {"bytes/hop", true},
    };
    struct ll_engine_info info;
    struct ll_device_info d;
    struct ll_error error;
    struct table t;
    char buf[NUM_MAX];

    ll_engine_info(engine, &info);
    table_init(&t, columns, (int)ARRAY_LEN(columns));
    for (int i = 0; i < info.n_devices; i++) {
        if (ll_engine_device(engine, i, &d, &error)) {
            say("device %d: %s", i, error.message);
            continue;
        }
        table_row(&t);
        table_cell(&t, 0, "%s", d.name);
        table_cell(&t, 1, "%d", d.pid);
        table_cell(&t, 2, "%s", d.modules);
        table_cell(&t, 3, "%d", d.n_threads);
        table_cell(&t, 4, "%s", num_bytes(buf, d.weight_bytes));
        table_cell(&t, 5, "%s", num_bytes(buf, d.resident_bytes));
        table_cell(&t, 6, d.decode_ms > 0 ? "%.2f" : "-", d.decode_ms);
        table_cell(&t, 7, "%s", num_thousands(buf, (uint64_t)(d.sent_bytes_per_row + 0.5)));
    }
    table_print(&t, f);
    table_fini(&t);
}

json_t *devices_json(struct ll_engine *engine)
{
    json_t *list = json_array();
    struct ll_engine_info info;
    struct ll_device_info d;

    ll_engine_info(engine, &info);
    for (int i = 0;; i++) {
        if (ll_engine_device(engine, i, &d, NULL)) {
            if (i >= info.n_devices) /* a cluster may have grown since it was opened */
                break;
            continue;
        }
        json_array_append_new(
            list, json_pack("{s:o, s:s, s:i, s:i, s:I, s:I, s:I, s:I, s:I, s:f, s:f, s:I, s:f, "
                            "s:I, s:s}",
                            "name", json_text(d.name, strlen(d.name)), "modules", d.modules, "pid",
                            d.pid, "threads", d.n_threads, "weight_bytes",
                            (json_int_t)d.weight_bytes, "kv_bytes", (json_int_t)d.kv_bytes,
                            "resident_bytes", (json_int_t)d.resident_bytes, "steps",
                            (json_int_t)d.steps, "rows", (json_int_t)d.rows, "compute_ms",
                            d.compute_ms, "decode_ms", d.decode_ms, "sent_bytes",
                            (json_int_t)d.sent_bytes, "sent_bytes_per_row", d.sent_bytes_per_row,
                            "received_bytes", (json_int_t)d.received_bytes, "link", d.link));
    }
    return list;
}

int json_print(json_t *value)
{
    char *text;
    int reason;

    CHECK(value);
    text = json_dumps(value, JSON_INDENT(2) | JSON_REAL_PRECISION(9));
    json_decref(value);
    CHECK(text);
    reason = out_write(text, strlen(text));
    if (!reason)
        reason = out_write("\n", 1);
    free(text);
    return reason ? out_failed(reason) : STATUS_OK;
}
