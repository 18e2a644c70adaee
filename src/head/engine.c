#include "head/engine.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/check.h"
#include "base/mem.h"
#include "base/sys.h"
#include "head/remote.h"
#include "model/modelfile.h"

enum {
    CTX_DEFAULT_MAX = 4096
}; /* a long context costs memory; more is taken only when asked for */

static enum ll_code code_of(enum err e)
{
    switch (e) {
    case ERR_NONE:
        return LL_OK;
    case ERR_INPUT:
        return LL_INPUT;
    case ERR_FILE:
        return LL_FILE;
    case ERR_MEMORY:
        return LL_MEMORY;
    case ERR_LIMIT:
        return LL_LIMIT;
    case ERR_UNSUPPORTED:
        return LL_UNSUPPORTED;
    case ERR_CANCELLED:
        return LL_CANCELLED;
    case ERR_PROTO:
    case ERR_GONE:
        return LL_GONE;
    }
    CHECK(!"an enum err");
    return LL_INPUT;
}

enum ll_code engine_fail(struct ll_error *error, enum err e, const struct err_text *et)
{
    return engine_say(error, code_of(e), "%s", et->text);
}

enum ll_code engine_say(struct ll_error *error, enum ll_code code, const char *fmt, ...)
{
    va_list ap;

    if (!error)
        return code;
    error->code = code;
    va_start(ap, fmt);
    vsnprintf(error->message, sizeof error->message, fmt, ap);
    va_end(ap);
    return code;
}

struct ll_engine_opts ll_engine_defaults(void)
{
    return (struct ll_engine_opts){.kv = LL_KV_F16};
}

static enum err kv_of(enum ll_kv kv, enum kv_type *out, struct err_text *et)
{
    switch (kv) {
    case LL_KV_F16:
        *out = KV_F16;
        return ERR_NONE;
    case LL_KV_Q8_0:
        *out = KV_Q8_0;
        return ERR_NONE;
    case LL_KV_F32:
        *out = KV_F32;
        return ERR_NONE;
    }
    return err_set(et, ERR_INPUT, "%d is no KV type; use LL_KV_F16, LL_KV_Q8_0 or LL_KV_F32",
                   (int)kv);
}

static enum err opts_check(const struct ll_engine_opts *opts, struct err_text *et)
{
    if (opts->cluster && opts->model_path)
        return err_set(et, ERR_INPUT,
                       "a cluster has its model: set cluster or model_path, not both");
    if (!opts->cluster && (!opts->model_path || !*opts->model_path))
        return err_set(et, ERR_INPUT, "no model was named: set model_path to a GGUF file");
    if (opts->n_ctx < 0 || opts->n_threads < 0)
        return err_set(et, ERR_INPUT, "a context of %d and %d threads: neither can be negative",
                       opts->n_ctx, opts->n_threads);
    if (opts->n_sessions < 0 || opts->n_sessions > SEGMENT_SLOTS_MAX)
        return err_set(et, ERR_INPUT, "%d sessions: at most %d can be open at once",
                       opts->n_sessions, SEGMENT_SLOTS_MAX);
    return ERR_NONE;
}

/* The model behind its tokenizer check, because text_open trusts the file (text.h). */
enum err engine_load_model(struct ll_engine *engine, const char *path, struct err_text *et)
{
    struct modelfile *mf;
    uint32_t n_tokens;
    enum err e = modelfile_open(path, &mf, et);

    if (e)
        return e;
    e = modelfile_check_tokenizer(mf, &n_tokens, et);
    if (e) {
        modelfile_close(mf);
        return e;
    }
    e = model_open_file(mf, &engine->model, et);
    if (e)
        return e;
    if (n_tokens > (uint32_t)model_shape(engine->model)->n_vocab)
        return err_set(et, ERR_INPUT,
                       "%s: the vocabulary has %u tokens, but the embedding only %d rows", path,
                       (unsigned)n_tokens, model_shape(engine->model)->n_vocab);
    return text_open(path, &engine->text, et);
}

static enum err context_choose(struct ll_engine *engine, int asked, struct err_text *et)
{
    const struct model_shape *shape = model_shape(engine->model);
    int trained = shape->n_ctx_train > 0 ? shape->n_ctx_train : CTX_DEFAULT_MAX;

    if (!asked)
        asked = trained < CTX_DEFAULT_MAX ? trained : CTX_DEFAULT_MAX;
    if (shape->ctx_is_hard && asked > trained)
        return err_set(et, ERR_INPUT,
                       "a context of %d: this model has learned positions, so its maximum is %d",
                       asked, trained);
    engine->n_ctx = asked;
    return ERR_NONE;
}

static enum err chain_start(struct ll_engine *engine, const struct ll_engine_opts *opts,
                            struct err_text *et)
{
    int cores = sys_cores();
    struct chain_opts copts = {.split = opts->split,
                               .device_program = opts->device_program,
                               .in_process = opts->split_in_process,
                               .progress = opts->progress,
                               .user = opts->user};
    enum err e = kv_of(opts->kv, &copts.segment.kv, et);

    if (!e)
        e = model_check_kv(engine->model, copts.segment.kv, et);
    if (!e)
        e = context_choose(engine, opts->n_ctx, et);
    if (e)
        return e;
    /* More threads than cores cost 10 to 60 times at the spin barriers, so asking for them is never
     * meant. The caller reads the number it got from ll_engine_info. */
    engine->n_threads = opts->n_threads && opts->n_threads < cores ? opts->n_threads : cores;
    engine->n_sessions = opts->n_sessions ? opts->n_sessions : 1;
    engine->n_rows_max =
        SEGMENT_ROWS_DEFAULT < engine->n_ctx ? SEGMENT_ROWS_DEFAULT : engine->n_ctx;
    engine->slots = mem_zalloc((size_t)engine->n_sessions, sizeof *engine->slots);
    for (int i = 0; i < model_n_modules(engine->model); i++)
        engine->kv_bytes_per_position += model_kv_bytes(engine->model, i, copts.segment.kv);
    copts.n_threads = engine->n_threads;
    copts.segment.n_slots = engine->n_sessions;
    copts.segment.n_ctx = engine->n_ctx;
    copts.segment.n_rows_max = engine->n_rows_max;
    return chain_open(engine->model, &copts, &engine->chain, et);
}

enum ll_code ll_engine_open(const struct ll_engine_opts *opts, struct ll_engine **out,
                            struct ll_error *error)
{
    struct err_text et = {{0}};
    const char *unsuited = model_cpu_unsuited();
    struct ll_engine *engine;
    enum err e;

    *out = NULL;
    if (unsuited)
        return engine_say(error, LL_UNSUPPORTED, "%s", unsuited);
    e = opts_check(opts, &et);
    if (e)
        return engine_fail(error, e, &et);
    engine = mem_zalloc(1, sizeof *engine);
    CHECK(pthread_mutex_init(&engine->lock, NULL) == 0);
    if (opts->cluster) {
        e = engine_open_remote(engine, opts, &et);
    } else {
        e = engine_load_model(engine, opts->model_path, &et);
        if (!e)
            e = chain_start(engine, opts, &et);
    }
    if (e) {
        ll_engine_close(engine);
        return engine_fail(error, e, &et);
    }
    *out = engine;
    return LL_OK;
}

void ll_engine_close(struct ll_engine *engine)
{
    if (!engine)
        return;
    for (int i = 0; engine->slots && i < engine->n_sessions; i++)
        CHECK(!engine->slots[i]); /* a session still open would use what is freed here */
    if (engine->chain)
        chain_close(engine->chain);
    engine_close_remote(engine);
    if (engine->text)
        text_close(engine->text);
    if (engine->model)
        model_close(engine->model);
    pthread_mutex_destroy(&engine->lock);
    free(engine->slots);
    free(engine);
}

void ll_engine_info(const struct ll_engine *engine, struct ll_engine_info *info)
{
    const struct model_shape *shape = model_shape(engine->model);

    *info = (struct ll_engine_info){
        .model_name = shape->name,
        .arch = shape->arch,
        .quantisation = shape->type_name,
        .n_params = shape->n_params,
        .weight_bytes = shape->weight_bytes,
        .kv_bytes_per_position = engine->kv_bytes_per_position,
        .n_vocab = shape->n_vocab,
        .n_ctx = engine->n_ctx,
        .n_ctx_train = shape->n_ctx_train,
        .n_modules = model_n_modules(engine->model),
        .n_devices =
            engine->remote ? engine_remote_n_devices(engine) : chain_n_devices(engine->chain),
        .n_threads = engine->n_threads,
        .has_chat_template = text_has_template(engine->text),
    };
}

/* Called with the lock held. */
static enum err usable(const struct ll_engine *engine, struct err_text *et)
{
    return *engine->gone.text ? err_set(et, ERR_GONE, "%s", engine->gone.text) : ERR_NONE;
}

static void remember(struct ll_engine *engine, enum err e, const struct err_text *et)
{
    if (engine->remote || (e != ERR_GONE && e != ERR_PROTO))
        return;
    engine->gone = *et;
    if (!*engine->gone.text)
        err_set(&engine->gone, e, "a device left");
}

static void describe_device(const struct device_report *r, struct ll_device_info *info)
{
    *info = (struct ll_device_info){
        .pid = r->pid,
        .n_threads = r->n_threads,
        .weight_bytes = r->weight_bytes,
        .kv_bytes = r->kv_bytes,
        .resident_bytes = r->resident_bytes,
        .steps = r->steps,
        .rows = r->rows,
        .compute_ms = (double)r->compute_us / 1000,
        .sent_bytes = r->sent_bytes,
    };
    if (r->decode_steps) {
        info->decode_ms = (double)r->decode_us / 1000 / (double)r->decode_steps;
        info->sent_bytes_per_row = (double)r->decode_sent_bytes / (double)r->decode_steps;
    }
    snprintf(info->name, sizeof info->name, "%.*s", (int)sizeof r->name, r->name);
    snprintf(info->modules, sizeof info->modules, "%.*s", (int)sizeof r->modules, r->modules);
    snprintf(info->link, sizeof info->link, "%s",
             r->pid == (int)getpid() ? "this program" : "socket pair");
}

enum ll_code ll_engine_device(struct ll_engine *engine, int i, struct ll_device_info *info,
                              struct ll_error *error)
{
    struct err_text et = {{0}};
    struct device_report r;
    struct ll_engine_info engine_info;
    enum err e;

    ll_engine_info(engine, &engine_info);
    if (i < 0 || i >= engine_info.n_devices)
        return engine_say(error, LL_INPUT, "there is no device %d: the engine has %d", i,
                          engine_info.n_devices);
    pthread_mutex_lock(&engine->lock);
    e = usable(engine, &et);
    if (!e && engine->remote) {
        e = engine_remote_device(engine, i, info, &et);
    } else if (!e) {
        e = chain_report(engine->chain, i, &r, &et);
        remember(engine, e, &et);
        if (!e)
            describe_device(&r, info);
    }
    pthread_mutex_unlock(&engine->lock);
    return e ? engine_fail(error, e, &et) : LL_OK;
}

enum ll_code ll_tokenize(const struct ll_engine *engine, const char *text, long n, int flags,
                         int32_t **tokens, int *n_tokens, struct ll_error *error)
{
    struct err_text et = {{0}};
    enum err e = text_tokenize(engine->text, text, n < 0 ? strlen(text) : (size_t)n, flags & LL_BOS,
                               flags & LL_SPECIAL, tokens, n_tokens, &et);

    return e ? engine_fail(error, e, &et) : LL_OK;
}

int ll_piece(const struct ll_engine *engine, int32_t token, char *buf, int cap)
{
    return text_piece(engine->text, token, false, buf, cap);
}

enum ll_code ll_chat_render(const struct ll_engine *engine, const struct ll_message *messages,
                            int n, char **out, struct ll_error *error)
{
    struct err_text et = {{0}};
    struct text_message *copies;
    enum err e;

    if (!text_has_template(engine->text))
        return engine_say(error, LL_UNSUPPORTED, "this model has no chat template");
    if (n < 1)
        return engine_say(error, LL_INPUT, "a conversation needs at least one message");
    copies = mem_zalloc((size_t)n, sizeof *copies);
    for (int i = 0; i < n; i++)
        copies[i] = (struct text_message){messages[i].role, messages[i].content};
    e = text_render_chat(engine->text, copies, n, true, out, &et);
    free(copies);
    return e ? engine_fail(error, e, &et) : LL_OK;
}

enum err engine_run_locked(struct ll_engine *engine, const struct batch *b,
                           const atomic_int *cancel, struct tensors *logits, bool *stale,
                           struct err_text *et)
{
    enum err e;

    *stale = false;
    pthread_mutex_lock(&engine->lock);
    e = usable(engine, et);
    if (!e && engine->remote) {
        remote_watch(engine->remote, cancel);
        e = remote_run(engine->remote, b, logits, stale, et);
        remote_watch(engine->remote, NULL);
    } else if (!e) {
        e = chain_run(engine->chain, b, logits, et);
        remember(engine, e, et);
    }
    if (e)
        pthread_mutex_unlock(&engine->lock);
    return e;
}

void engine_unlock(struct ll_engine *engine)
{
    pthread_mutex_unlock(&engine->lock);
}

int engine_slot_take(struct ll_engine *engine)
{
    int slot = -1;

    pthread_mutex_lock(&engine->lock);
    for (int i = 0; slot < 0 && i < engine->n_sessions; i++)
        if (!engine->slots[i]) {
            engine->slots[i] = true;
            slot = i;
        }
    pthread_mutex_unlock(&engine->lock);
    return slot;
}

static int slot_len(const struct ll_engine *engine, int slot)
{
    return engine->remote ? remote_slot_len(engine->remote, slot)
                          : chain_slot_len(engine->chain, slot);
}

int engine_slot_len(struct ll_engine *engine, int slot)
{
    int len;

    pthread_mutex_lock(&engine->lock);
    len = slot_len(engine, slot);
    pthread_mutex_unlock(&engine->lock);
    return len;
}

/* Called with the lock held. */
static enum err slot_shorten(struct ll_engine *engine, int slot, int len, struct err_text *et)
{
    enum err e = usable(engine, et);

    if (!e && slot_len(engine, slot) > len) {
        e = engine->remote ? remote_slot_truncate(engine->remote, slot, len, et)
                           : chain_slot_truncate(engine->chain, slot, len, et);
        remember(engine, e, et);
    }
    return e;
}

bool engine_slot_give(struct ll_engine *engine, int slot)
{
    struct err_text et = {{0}};
    bool forgotten;

    pthread_mutex_lock(&engine->lock);
    CHECK(engine->slots[slot]);
    forgotten = !slot_shorten(engine, slot, 0, &et);
    engine->slots[slot] = false;
    pthread_mutex_unlock(&engine->lock);
    return forgotten;
}

enum err engine_slot_truncate(struct ll_engine *engine, int slot, int len, struct err_text *et)
{
    enum err e;

    pthread_mutex_lock(&engine->lock);
    e = slot_shorten(engine, slot, len, et);
    pthread_mutex_unlock(&engine->lock);
    return e;
}
