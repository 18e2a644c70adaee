/* Generations: what the API asks of a cluster. One is a prompt that is read, and then either tokens
 * that are sampled one by one until something ends it (GEN_ANSWER), or rows that are looked at
 * (GEN_LOGITS, GEN_HIDDEN: likelihoods, embeddings).
 *
 * One token's way: the core says CORE_ROW while a result is at hand; the row is copied and goes to
 * the pool's quick lane: pick, text, stop words, probabilities, `digest`. Back on the loop the core
 * gets CORE_TOKEN first, so that the devices go on, and then `token` is called. All functions and
 * all calls but `digest` and `rows` are on the event loop's thread. Closing a cluster ends them. */
#ifndef LINGUA_HEAD_GEN_H
#define LINGUA_HEAD_GEN_H

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"
#include "text/text.h"

struct cluster;
struct gen;

enum gen_kind { GEN_ANSWER, GEN_LOGITS, GEN_HIDDEN };

enum { GEN_STOPS_MAX = 32, GEN_STOP_BYTES_MAX = 1024 };

/* A token whose text has become ready, in the order they were generated. A token that ends the
 * answer, or whose text is part of the stop word, is counted but is not among them. */
struct gen_token {
    int32_t id;
    struct token_prob own;
    int n_top;
    const struct token_prob *top;
    const char *piece; /* its own bytes, maybe no whole characters; special tokens show */
    int n_piece;
};

/* What became ready: whole characters that no stop word can begin in any more. */
struct gen_chunk {
    const char *text;
    size_t n_text;
    int n_tokens; /* whose text this is; 0 with the rest of a token's text */
    const struct gen_token *tokens;
};

enum gen_why {
    GEN_STOP,      /* the model ended its answer */
    GEN_WORD,      /* a stop word; `word` */
    GEN_LENGTH,    /* n_max tokens, or the context is full */
    GEN_DONE,      /* LOGITS, HIDDEN: all rows were seen */
    GEN_TIME,      /* ms_max have passed since the first token */
    GEN_CANCELLED, /* gen_cancel */
    GEN_FAILED,    /* code and text */
};

struct gen_end {
    enum gen_why why;
    enum err code;
    const char *text; /* a sentence */
    bool busy;        /* ERR_LIMIT: only for now; retry_s */
    int retry_s;
    const char *word;
    int n_prompt, n_cached, n_generated;
    double queue_ms, ttft_ms, prompt_ms, generate_ms; /* ttft from gen_begin to the first token */
    int slot;
};

struct gen_calls {
    /* On a thread of the pool, one call at a time per generation, each before the `token` (or `end`)
     * it belongs to: what text becomes, before it is sent. final: no more comes; does not come when
     * the devices fail. May be NULL. */
    void (*digest)(void *user, const char *text, size_t n, bool final);
    /* LOGITS, HIDDEN: rows of consecutive positions, (n, width) f32, also on a thread of the pool. */
    void (*rows)(void *user, const float *rows, int pos, int n, int width);
    void (*started)(void *user,
                    int n_cached); /* it has a slot and is about to be read; may be NULL */
    void (*token)(void *user, const struct gen_chunk *chunk); /* ANSWER */
    void (*end)(void *user,
                const struct gen_end *end); /* once, the last call; not after gen_cancel */
};

struct gen_opts {
    enum gen_kind kind;
    int flow;              /* whose it is; flows take turns */
    const int32_t *tokens; /* the prompt, >= 1; copied */
    int n_tokens;
    struct sampler *sampler; /* ANSWER: taken, also on errors; has seen the prompt */
    int n_max;               /* tokens; -1: as many as the context has room for; 0: read only, then
                                 GEN_LENGTH */
    int n_top;     /* probabilities per token, 0..SAMPLING_TOP_MAX; -1: not even its own */
    int want_from; /* LOGITS, HIDDEN: rows from this position on */
    int n_stops;
    const char *const *stops; /* copied; a stop word is not part of the text */
    bool special;             /* control tokens are part of the text, for parsers of tool calls */
    bool fresh;               /* read it all, whatever slots hold */
    int slot;                 /* -1 = any */
    int64_t ms_max;           /* 0 = no limit */
    struct gen *after; /* with the same prompt, begun before and not over: read it once for both */
    struct gen_calls calls;
    void *user;
};

/* ERR_INPUT, ERR_LIMIT (`et` says what to do): nothing was begun and no call comes. A full queue is
 * told by `end`. *out lives until `end` has returned or gen_cancel was called. */
MUST_CHECK enum err gen_begin(struct cluster *c, const struct gen_opts *opts, struct gen **out,
                              struct err_text *et);
/* How many more may wait for a slot; one that is begun when there is room is not refused as busy. */
int gen_room(const struct cluster *c);
/* No call comes after it, but for a `digest` or `rows` under way: `gone` is called on the loop's
 * thread when there is none, at once or later; from then on user is the caller's alone. */
void gen_cancel(struct gen *g, void (*gone)(void *user));

/* ---- what the API tells of a cluster ---- */

struct text;
struct pool;
struct model_shape;

/* Opened with the cluster when cluster_opts.api is set. Borrowed. */
const struct text *cluster_text(const struct cluster *c);
struct pool *cluster_pool(const struct cluster *c);

struct cluster_facts {
    const char *model_name, *model_path, *arch, *quantisation; /* borrowed */
    int n_ctx, n_slots, n_vocab, n_embd, n_ctx_train;
    uint64_t n_params, weight_bytes;
    int pooling; /* of embeddings, as the file has it: 1 mean, 2 cls, 3 last; 0 = it says nothing */
};
void cluster_facts(const struct cluster *c, struct cluster_facts *out);

/* One slot, for /slots. stream < 0: free. */
struct cluster_slot {
    bool busy, local; /* local: of a program of this machine */
    int n_held, n_prompt, n_generated;
    struct gen *gen; /* busy and not local */
};
void cluster_slot(const struct cluster *c, int slot, struct cluster_slot *out);

/* The answer that began or ended last, as JSON text: step by step (head/timeline.h), or as a trace for
 * Perfetto. Devices are asked for their records, so `done` comes later (or at once), on the loop's
 * thread; text is borrowed for the call. At closing it comes with NULL. False: too many ask at once,
 * and it does not come. */
enum cluster_picture { CLUSTER_TIMELINE, CLUSTER_TRACE };
bool cluster_picture_ask(struct cluster *c, enum cluster_picture kind,
                         void (*done)(void *user, const char *text, size_t n), void *user);
/* done does not come any more for this user. */
void cluster_picture_forget(struct cluster *c, const void *user);

/* Monotone sums and present figures, for /metrics. */
struct cluster_stats {
    bool running; /* an epoch runs: answers can come */
    uint32_t epoch;
    int n_streams, n_waiting, n_slots_busy, n_flight;
    uint64_t steps, rows_read, rows_decoded; /* sent since the start */
    uint64_t epochs, devices_lost;
    double predicted_token_s, measured_token_s; /* of the plan that runs; 0 = not known */
    int n_devices;
    struct cluster_device_stats {
        const char *name; /* borrowed until the next call */
        bool up;
        uint64_t steps, rows;
        double busy_s; /* computing, since it was first seen */
        uint64_t memory_bytes, budget_bytes;
    } device[64];
    int n_hops; /* of the plan that runs, in order; the last goes home */
    struct cluster_hop_stats {
        const char *from, *to;
        uint64_t bytes,
            frames;       /* sent over it since the epoch began; 0 where the head does not see it */
        double latency_s; /* half the least round trip; 0 = not known */
    } hop[129];
};
void cluster_stats(struct cluster *c, struct cluster_stats *out);

#endif
