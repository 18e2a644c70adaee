/* lingua perplexity: how surprised a model is by a text, as llama-perplexity measures it.
 *
 * The whole text is tokenised, with the start token where the model wants one, and cut into chunks
 * of n_ctx tokens. Each chunk is read by itself, its first token replaced by the start token. The
 * first half of a chunk only gives context: rows [n_ctx / 2, n_ctx - 2] are scored, each by the
 * negative log of the probability it gave to the token that really follows. The figure is e to the
 * mean of these; its error is that of the mean, carried through the exponential:
 * e^m * sqrt(variance / (count - 1)). */
#include <math.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli/cmd.h"
#include "cli/files.h"
#include "cli/open.h"
#include "cli/options.h"
#include "cli/say.h"
#include "lingua/lingua.h"

/* Logits of the scored half are fetched in pieces of about this size: 256 rows of a vocabulary of
 * 256,000 would be 262 MB. */
enum { LOGITS_BYTES = 32 << 20 };

struct score {
    double nll, nll2; /* sums of -log p and of its square */
    int count;
};

struct perplexity {
    struct open_options open;
    const char *model, *file;
    int64_t n_chunks; /* < 0 = all */
    bool json;
    char *text;
    size_t n_text;
    int32_t *tokens;
    int n_tokens, n_vocab;
    int32_t bos; /* < 0: this model wants none */
    struct score score;
    json_t *chunks; /* the running figure after each */
};

static const char about[] =
    "Prints the perplexity of a text, the same figure as llama-perplexity's: contexts of 512\n"
    "tokens by default, of which the second half is scored. Running values go to stderr.";

static int parse(struct perplexity *p, int argc, char **argv)
{
    const struct option_spec options[] = {
        OPTION_CTX(&p->open, "tokens per chunk (default: 512)"),
        {"chunks", 0, OPTION_WHOLE, &p->n_chunks, 1, 1 << 30, NULL, "N",
         "only the first N chunks (default: all)"},
        OPTION_THREADS(&p->open),
        OPTION_KV(&p->open),
        OPTION_SPLIT(&p->open),
        {"json", 0, OPTION_FLAG, &p->json, 0, 0, NULL, NULL, "one JSON object"},
    };
    const struct command_spec spec = {"perplexity [MODEL] FILE [OPTIONS]", about, options,
                                      sizeof options / sizeof *options, 2};
    const char *args[ARGS_MAX];
    int n_args, status = options_parse(&spec, argc, argv, args, &n_args);

    if (status >= 0)
        return status;
    if (n_args == 0) {
        say("perplexity: which text? lingua perplexity [MODEL] FILE");
        return STATUS_USAGE;
    }
    if (p->open.ctx < 4) {
        say("perplexity: a context of %lld leaves nothing to score; 4 is the least",
            (long long)p->open.ctx);
        return STATUS_USAGE;
    }
    p->model = n_args == 2 ? args[0] : NULL;
    p->file = args[n_args - 1];
    return -1;
}

/* -log of the probability that softmax gives to token. Single precision up to the sum, which is
 * double: llama-perplexity's arithmetic, so that the figures agree to the last digit shown. */
static double surprise(const float *logits, int n_vocab, int32_t token)
{
    float highest = logits[0];
    double sum;

    for (int i = 1; i < n_vocab; i++)
        highest = logits[i] > highest ? logits[i] : highest;
    sum = (double)expf(logits[0] - highest);
    for (int i = 1; i < n_vocab; i++)
        sum += (double)expf(logits[i] - highest);
    return -((double)(logits[token] - highest) - log(sum));
}

/* Reads tokens [0, n_ctx) of a chunk and scores its second half. */
static enum ll_code chunk_score(struct perplexity *p, struct ll_session *session,
                                const int32_t *chunk, struct ll_error *error)
{
    int n_ctx = (int)p->open.ctx, first = n_ctx / 2, n_rows, n;
    int n_piece = (int)(LOGITS_BYTES / ((size_t)p->n_vocab * sizeof(float)));
    const float *logits;
    struct score sum = {0};
    enum ll_code code = ll_session_truncate(session, 0, error);

    n_piece = n_piece < 16 ? 16 : n_piece;
    if (!code && p->bos >= 0)
        code = ll_session_add_tokens(session, &p->bos, 1, error);
    else if (!code)
        code = ll_session_add_tokens(session, chunk, 1, error);
    if (!code)
        code = ll_session_add_tokens(session, chunk + 1, first - 1, error);
    for (int i = first; !code && i < n_ctx - 1; i += n_rows) {
        n = n_ctx - 1 - i;
        n_rows = n < n_piece ? n : n_piece;
        code = ll_session_add_tokens(session, chunk + i, n_rows, error);
        if (!code)
            code = ll_session_read(session, n_rows, &logits, error);
        for (int j = 0; !code && j < n_rows; j++) {
            double v =
                surprise(logits + (size_t)j * (size_t)p->n_vocab, p->n_vocab, chunk[i + j + 1]);

            sum.nll += v;
            sum.nll2 += v * v;
        }
    }
    p->score.nll += sum.nll;
    p->score.nll2 += sum.nll2;
    p->score.count += n_ctx - first - 1;
    return code;
}

static int tokens_find(struct perplexity *p, struct ll_engine *engine)
{
    struct ll_engine_info info;
    struct ll_error error;
    char have[NUM_MAX], need[NUM_MAX];
    int32_t *start;
    int n_start;
    enum ll_code code;

    ll_engine_info(engine, &info);
    p->n_vocab = info.n_vocab;
    newline_drop(p->text, &p->n_text);
    code = ll_tokenize(engine, p->text, (long)p->n_text, LL_BOS, &p->tokens, &p->n_tokens, &error);
    if (code || ll_tokenize(engine, "", 0, LL_BOS, &start, &n_start, &error))
        return fail(&error);
    p->bos = n_start > 0 ? start[0] : -1;
    free(start);
    if (p->n_tokens < 2 * p->open.ctx) {
        say("%s has %s tokens, but a context of %lld needs at least twice as many, %s: take a "
            "longer text or a smaller --ctx",
            p->file, num_thousands(have, (uint64_t)p->n_tokens), (long long)p->open.ctx,
            num_thousands(need, (uint64_t)(2 * p->open.ctx)));
        return STATUS_FAILED;
    }
    return STATUS_OK;
}

static int result_print(const struct perplexity *p)
{
    const struct score *s = &p->score;
    double mean = s->nll / s->count, ppl = exp(mean);
    double variance = s->nll2 / s->count - mean * mean;
    double error = variance > 0 ? ppl * sqrt(variance / (s->count - 1)) : 0;

    if (p->json)
        return json_print(json_pack("{s:f, s:f, s:i, s:i, s:i, s:O}", "perplexity", ppl, "error",
                                    error, "context", (int)p->open.ctx, "scored_tokens", s->count,
                                    "tokens", p->n_tokens, "running", p->chunks));
    printf("Final estimate: PPL = %.4lf +/- %.5lf\n", ppl, error);
    return out_finish();
}

static int chunks_score(struct perplexity *p, struct ll_session *session)
{
    int n_ctx = (int)p->open.ctx, n = p->n_tokens / n_ctx;
    double began = now_s();
    struct ll_error error;
    char left[NUM_MAX];

    if (p->n_chunks > 0 && p->n_chunks < n)
        n = (int)p->n_chunks;
    for (int i = 0; i < n; i++) {
        double running;

        if (chunk_score(p, session, p->tokens + (size_t)i * (size_t)n_ctx, &error))
            return fail(&error);
        running = exp(p->score.nll / p->score.count);
        json_array_append_new(p->chunks, json_real(running));
        fprintf(stderr, "[%*d/%d] %.4f", snprintf(NULL, 0, "%d", n), i + 1, n, running);
        if (i + 1 < n)
            fprintf(stderr, "  %s to go",
                    num_duration(left, (now_s() - began) / (i + 1) * (n - i - 1)));
        fputc('\n', stderr);
    }
    return result_print(p);
}

int cmd_perplexity(int argc, char **argv)
{
    struct perplexity p = {.open.ctx = 512, .n_chunks = -1};
    struct ll_engine *engine = NULL;
    struct ll_session *session = NULL;
    struct ll_error error;
    int status = parse(&p, argc, argv);

    if (status >= 0)
        return status;
    if (file_read(p.file, &p.text, &p.n_text))
        return STATUS_FAILED;
    p.chunks = json_array();
    status = engine_open(p.model, &p.open, &engine);
    if (!status)
        status = tokens_find(&p, engine);
    if (!status && ll_session_open(engine, NULL, &session, &error))
        status = fail(&error);
    if (!status)
        status = chunks_score(&p, session);
    ll_session_close(session);
    ll_engine_close(engine);
    free(p.tokens);
    free(p.text);
    json_decref(p.chunks);
    return status;
}
