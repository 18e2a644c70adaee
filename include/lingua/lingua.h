/* lingua: run a language model on one device, or on several as one.
 *
 * This boundary is for programs that want an answer from a model and do not care where its pieces
 * live. An *engine* is an opened model, whole or split over device processes (and, later, over a
 * cluster); a *session* is one conversation with it. Everything behind the engine (segments, slots,
 * sockets) stays behind it, so a program written on this header gains devices by opening the engine
 * differently, and changes nothing else.
 *
 *     struct ll_error error;
 *     struct ll_engine *engine;
 *     struct ll_session *session;
 *     struct ll_engine_opts opts = ll_engine_defaults();
 *     struct ll_token token;
 *
 *     opts.model_path = "model.gguf";
 *     if (ll_engine_open(&opts, &engine, &error)) die(error.message);
 *     if (ll_session_open(engine, NULL, &session, &error)) die(error.message);
 *     if (ll_session_add_text(session, "Once upon a time", -1, 0, &error)) die(error.message);
 *     while (ll_session_next(session, &token, &error) == LL_OK)
 *         fwrite(token.text, 1, token.n_text, stdout);
 *
 * Errors are values: LL_OK (0) or a code, with one sentence in the caller's ll_error (which may be
 * NULL). The library never exits, prints, installs signal handlers or keeps global state of its own
 * (the engine below it does: its log, which is silenced). Threads:
 * an engine may be shared; each session belongs to one thread at a time, except ll_session_cancel,
 * which any thread or signal handler may call. Strings are UTF-8. */
#ifndef LINGUA_H
#define LINGUA_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define LL_VERSION "0.1.0"

enum ll_code {
    LL_OK = 0,
    LL_INPUT,       /* an argument or a file is wrong */
    LL_FILE,        /* the system refused a file; the message has its reason */
    LL_MEMORY,      /* the message says what was needed and what there is */
    LL_LIMIT,       /* a bound was met, such as the number of sessions */
    LL_UNSUPPORTED, /* well-formed, but not something this build can do */
    LL_CANCELLED,   /* ll_session_cancel was called; the session can go on */
    LL_GONE,        /* a device left */
    LL_END,         /* the model ended its answer */
    LL_FULL,        /* the context is full: truncate, reset, or open with a larger n_ctx */
};

struct ll_error {
    enum ll_code code;
    char message[512];
};

struct ll_engine;
struct ll_session;

enum ll_kv { LL_KV_F16 = 0, LL_KV_Q8_0, LL_KV_F32 };

struct ll_engine_opts {
    const char *model_path; /* a GGUF file; NULL with cluster */
    /* Not NULL: use the cluster of the head running on this machine (lingua serve), whose state
     * folder this is; "" = the usual one. Only n_sessions, waiting and user count then. */
    const char *cluster;
    /* Cluster: told what it waits for before it can answer ("" = it goes on). May be NULL. */
    void (*waiting)(void *user, const char *text);
    int n_ctx;      /* positions per session; 0 = what the model was trained for, at most 4096 */
    int n_sessions; /* sessions open at once; 0 = 1 */
    int n_threads;  /* over all devices on this machine; 0 = all cores */
    enum ll_kv kv;
    /* NULL: whole. "3": three devices, cut evenly by cost. "0-5,6-13,14-": one range of module
     * numbers per device; "0-4+13" gives a device two. This process is the first device; the others
     * are processes running device_program. */
    const char *split;
    const char *device_program; /* the lingua program; NULL = the running program, which must then
                                   be lingua */
    int split_in_process;       /* 1: the devices of split are segments of this process; nothing is
                                   started */
    /* Told of loading: done and total bytes. May be NULL. Called on the opening thread. */
    void (*progress)(void *user, uint64_t done, uint64_t total);
    void *user;
};

struct ll_engine_opts ll_engine_defaults(void);
enum ll_code ll_engine_open(const struct ll_engine_opts *opts, struct ll_engine **out,
                            struct ll_error *error);
/* Every session must be closed before. Ends the device processes. NULL is fine. */
void ll_engine_close(struct ll_engine *engine);

struct ll_engine_info {
    const char *model_name, *arch, *quantisation; /* borrowed until close */
    uint64_t n_params, weight_bytes, kv_bytes_per_position;
    int n_vocab, n_ctx, n_ctx_train, n_modules, n_devices, n_threads;
    int has_chat_template;
};
void ll_engine_info(const struct ll_engine *engine, struct ll_engine_info *info);

/* What one device held and did since open. */
struct ll_device_info {
    char name[32];    /* "device 0" is this process */
    char modules[96]; /* "embed..ffn.1", "attn.2..ffn.3 + output" */
    int pid;
    int n_threads;
    uint64_t weight_bytes, kv_bytes, resident_bytes;
    uint64_t steps, rows;
    double compute_ms;         /* in all */
    double decode_ms;          /* per one-row step, mean; 0 before the first */
    uint64_t sent_bytes;       /* to the next devices, frames and all */
    double sent_bytes_per_row; /* of one-row steps, mean */
    uint64_t received_bytes;   /* weights that came by the network for its present part */
    char link[64];             /* how it is reached: "TLS 1.3", "this program", "socket pair" */
};
enum ll_code ll_engine_device(struct ll_engine *engine, int i, struct ll_device_info *info,
                              struct ll_error *error);

/* Records what each stage does from here on, and writes it: JSON that Perfetto and Chrome's tracing
 * page open. Compute, wire and queue per stage and step. Clusters only. */
enum ll_code ll_engine_trace_begin(struct ll_engine *engine, struct ll_error *error);
enum ll_code ll_engine_trace_write(struct ll_engine *engine, const char *path,
                                   struct ll_error *error);

/* Tokens of n bytes of text (n < 0: up to NUL). LL_SPECIAL reads control tokens such as <|im_end|>;
 * LL_BOS puts the start token in front where the model wants one. *tokens is freed with free(). */
enum { LL_SPECIAL = 1, LL_BOS = 2 };
enum ll_code ll_tokenize(const struct ll_engine *engine, const char *text, long n, int flags,
                         int32_t **tokens, int *n_tokens, struct ll_error *error);
/* The bytes of one token into buf; returns their number, or -needed. Pieces need not be whole
 * characters. */
int ll_piece(const struct ll_engine *engine, int32_t token, char *buf, int cap);

struct ll_message {
    const char *role, *content;
};
/* The model's own chat template over a conversation, ending where the assistant is to speak; feed
 * it with LL_SPECIAL | LL_BOS. LL_UNSUPPORTED when the model has none. *out is freed with free().
 */
enum ll_code ll_chat_render(const struct ll_engine *engine, const struct ll_message *messages,
                            int n, char **out, struct ll_error *error);

struct ll_sampling {
    float temp; /* 0 = greedy */
    int top_k;  /* 0 = all */
    float top_p, min_p;
    uint32_t seed;
};
struct ll_sampling ll_sampling_defaults(void);

/* sampling may be NULL for the defaults. LL_LIMIT when n_sessions are open. */
enum ll_code ll_session_open(struct ll_engine *engine, const struct ll_sampling *sampling,
                             struct ll_session **out, struct ll_error *error);
void ll_session_close(struct ll_session *session); /* NULL is fine */

/* Appends to what the model is to read; nothing is computed yet. LL_FULL when it cannot fit, and
 * then nothing was added. */
enum ll_code ll_session_add_text(struct ll_session *session, const char *text, long n, int flags,
                                 struct ll_error *error);
enum ll_code ll_session_add_tokens(struct ll_session *session, const int32_t *tokens, int n,
                                   struct ll_error *error);

struct ll_token {
    int32_t id;
    const char *text; /* whole characters that became ready with this token, maybe none; borrowed
                         until the next call */
    int n_text;
};
/* Reads what was added, then gives the next token, which is already part of the conversation.
 * LL_END: *token is the end token and holds what text was still held back. LL_FULL, LL_CANCELLED:
 * the session keeps what it has. */
enum ll_code ll_session_next(struct ll_session *session, struct ll_token *token,
                             struct ll_error *error);
/* Makes the ll_session_next or ll_session_read under way (or the next one) return LL_CANCELLED
 * soon. */
void ll_session_cancel(struct ll_session *session);

/* Reads what was added and gives the logits of the last n rows of it (1..added), (n, n_vocab) f32,
 * borrowed until the next call. For measuring: perplexity, benches. */
enum ll_code ll_session_read(struct ll_session *session, int n, const float **logits,
                             struct ll_error *error);

int ll_session_length(const struct ll_session *session); /* tokens read or added */
const int32_t *ll_session_tokens(
    const struct ll_session *session); /* all of them; borrowed until the next call */
/* Forgets all tokens from position n on. What stays is not computed again. */
enum ll_code ll_session_truncate(struct ll_session *session, int n, struct ll_error *error);

struct ll_stats {
    int n_prompt, n_cached, n_generated; /* of the last answer; cached = read earlier */
    double ttft_ms;                      /* from the first ll_session_next to its token */
    double prompt_ms, generate_ms;
};
void ll_session_stats(const struct ll_session *session, struct ll_stats *stats);

#ifdef __cplusplus
}
#endif
#endif
