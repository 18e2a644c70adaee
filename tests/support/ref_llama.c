#include "ref_llama.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "ggml-cpu.h"
#include "llama.h"

struct ref {
    struct llama_model *model;
    struct llama_context *ctx;
    const struct llama_vocab *vocab;
    struct ggml_threadpool *pool;
    struct llama_batch batch;
    int batch_cap, n_vocab;
};

static void quiet(enum ggml_log_level level, const char *text, void *user)
{
    (void)user;
    if (level == GGML_LOG_LEVEL_ERROR)
        fputs(text, stderr);
}

static void *must(void *p, const char *what)
{
    if (!p) {
        fprintf(stderr, "libllama: cannot make %s\n", what);
        exit(1);
    }
    return p;
}

struct ref *ref_open(const char *path, const struct ref_opts *opts)
{
    struct ref *r = mem_zalloc(1, sizeof(*r));
    struct llama_model_params mp = llama_model_default_params();
    struct llama_context_params cp = llama_context_default_params();
    struct ggml_threadpool_params tp = ggml_threadpool_params_default(opts->n_threads);

    llama_log_set(quiet, NULL);
    llama_backend_init();
    r->model = must(llama_model_load_from_file(path, mp), path);
    r->vocab = llama_model_get_vocab(r->model);
    r->n_vocab = llama_vocab_n_tokens(r->vocab);
    cp.n_ctx = (uint32_t)((opts->n_ctx + 255) / 256 * 256 * opts->n_seqs);
    cp.n_seq_max = (uint32_t)opts->n_seqs;
    cp.n_threads = cp.n_threads_batch = opts->n_threads;
    cp.type_k = cp.type_v = opts->kv;
    if (!opts->flash)
        cp.flash_attn_type = LLAMA_FLASH_ATTN_TYPE_DISABLED;
    r->ctx = must(llama_init_from_model(r->model, cp), "a context");
    r->pool = must(ggml_threadpool_new(&tp), "a thread pool");
    llama_attach_threadpool(r->ctx, r->pool, NULL);
    return r;
}

void ref_close(struct ref *r)
{
    if (r->batch_cap)
        llama_batch_free(r->batch);
    llama_free(r->ctx);
    ggml_threadpool_free(r->pool);
    llama_model_free(r->model);
    free(r);
}

int ref_n_vocab(const struct ref *r)
{
    return r->n_vocab;
}

void ref_step(struct ref *r, int n, const int32_t *slot, const int32_t *pos, const int32_t *token,
              const uint8_t *want)
{
    if (n > r->batch_cap) {
        if (r->batch_cap)
            llama_batch_free(r->batch);
        r->batch = llama_batch_init(n, 0, 1);
        r->batch_cap = n;
    }
    r->batch.n_tokens = n;
    for (int i = 0; i < n; i++) {
        r->batch.token[i] = token[i];
        r->batch.pos[i] = pos[i];
        r->batch.n_seq_id[i] = 1;
        r->batch.seq_id[i][0] = slot[i];
        r->batch.logits[i] = want ? (int8_t)want[i] : 1;
    }
    if (llama_decode(r->ctx, r->batch) != 0) {
        fprintf(stderr, "libllama: decoding %d rows failed\n", n);
        exit(1);
    }
    llama_synchronize(r->ctx);
}

void ref_run(struct ref *r, int n, const int32_t *slot, const int32_t *pos, const int32_t *token,
             const uint8_t *want, float *logits)
{
    ref_step(r, n, slot, pos, token, want);
    for (int i = 0; i < n; i++) {
        if (want && !want[i])
            continue;
        memcpy(logits, llama_get_logits_ith(r->ctx, i), sizeof(float) * (size_t)r->n_vocab);
        logits += r->n_vocab;
    }
}

void ref_truncate(struct ref *r, int slot, int len)
{
    llama_memory_seq_rm(llama_get_memory(r->ctx), slot, len, -1);
}

int ref_tokenize(struct ref *r, const char *text, int32_t *tokens, int cap)
{
    int n = llama_tokenize(r->vocab, text, (int32_t)strlen(text), tokens, cap, true, false);

    if (n < 0) {
        fprintf(stderr, "libllama: cannot tokenise the prompt\n");
        exit(1);
    }
    return n;
}

int ref_piece(struct ref *r, int32_t token, char *buf, int cap)
{
    return llama_token_to_piece(r->vocab, token, buf, cap, 0, false);
}

bool ref_is_end(struct ref *r, int32_t token)
{
    return llama_vocab_is_eog(r->vocab, token);
}

int ref_greedy(struct ref *r, const int32_t *prompt, int n_prompt, int32_t *out, int n)
{
    int32_t *zeros = mem_zalloc((size_t)n_prompt, sizeof(*zeros));
    int32_t *pos = mem_alloc((size_t)n_prompt * sizeof(*pos));
    uint8_t *want = mem_zalloc((size_t)n_prompt, 1), one = 1;
    float *logits = mem_alloc((size_t)r->n_vocab * sizeof(*logits));
    int n_out = 0;

    for (int i = 0; i < n_prompt; i++)
        pos[i] = i;
    want[n_prompt - 1] = 1;
    ref_run(r, n_prompt, zeros, pos, prompt, want, logits);
    for (int32_t at = n_prompt; n_out < n; at++) {
        int32_t token = argmax(logits, r->n_vocab);

        if (ref_is_end(r, token))
            break;
        out[n_out++] = token;
        if (n_out < n)
            ref_run(r, 1, zeros, &at, &token, &one, logits);
    }
    free(zeros);
    free(pos);
    free(want);
    free(logits);
    return n_out;
}

double nmse_power(const float *b, int64_t n)
{
    double power = 0.0;

    for (int64_t i = 0; i < n; i++)
        power += (double)b[i] * (double)b[i];
    return power;
}

double nmse(const float *a, const float *b, int64_t n)
{
    double error = 0.0, power = nmse_power(b, n);

    for (int64_t i = 0; i < n; i++) {
        double d = (double)a[i] - (double)b[i];

        error += d * d;
    }
    return power > 0.0 ? error / power : error > 0.0 ? INFINITY : 0.0;
}

int argmax(const float *a, int n)
{
    int best = 0;

    for (int i = 1; i < n; i++)
        if (a[i] > a[best])
            best = i;
    return best;
}
