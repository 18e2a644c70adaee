#include "cli/answer.h"

#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/mem.h"
#include "cli/cmd.h"
#include "cli/say.h"

/* Shared with the signal handler, which may only set flags and call ll_session_cancel. */
static struct ll_session *volatile answering;
static volatile sig_atomic_t interrupts, interrupts_of_answer, patience_of_answer;

static void on_interrupt(int sig)
{
    struct ll_session *session = answering;

    (void)sig;
    interrupts++;
    if (!session)
        return;
    if (++interrupts_of_answer > patience_of_answer)
        _exit(STATUS_INTERRUPTED);
    ll_session_cancel(session);
}

void interrupts_take(int patience)
{
    struct sigaction sa = {.sa_handler = on_interrupt, .sa_flags = SA_RESTART};

    patience_of_answer = patience;
    sigemptyset(&sa.sa_mask);
    sigaction(SIGINT, &sa, NULL);
}

int interrupts_count(void)
{
    return interrupts;
}

static void text_append(struct answer *a, const char *text, int n)
{
    if (n <= 0)
        return;
    a->text = mem_realloc(a->text, a->n_text + (size_t)n + 1, 1);
    memcpy(a->text + a->n_text, text, (size_t)n);
    a->n_text += (size_t)n;
    a->text[a->n_text] = '\0';
}

/* What a code other than LL_OK means for the answer. */
static enum answer_end end_of(enum ll_code code)
{
    switch (code) {
    case LL_END:
        return ANSWER_STOP;
    case LL_FULL:
        return ANSWER_CONTEXT;
    case LL_CANCELLED:
        return ANSWER_CANCELLED;
    default:
        return ANSWER_FAILED;
    }
}

void answer_make(struct ll_session *session, int64_t n_max, bool show, struct answer *a)
{
    struct ll_token token;
    enum ll_code code = LL_OK;

    *a = (struct answer){.end = ANSWER_LENGTH, .text = mem_zalloc(1, 1)};
    interrupts_of_answer = 0;
    answering = session;
    while (code == LL_OK && (n_max < 0 || a->n_tokens < n_max)) {
        code = ll_session_next(session, &token, &a->error);
        if (code == LL_CANCELLED && !interrupts_of_answer) {
            code = LL_OK; /* a press that was meant for the answer before */
            continue;
        }
        a->n_tokens += token.id >= 0;
        text_append(a, token.text, token.n_text);
        if (show && token.n_text && (a->out_reason = out_write(token.text, (size_t)token.n_text)))
            break;
    }
    answering = NULL;
    if (a->out_reason)
        a->end = ANSWER_UNHEARD;
    else if (code)
        a->end = end_of(code);
    ll_session_stats(session, &a->stats);
}

void answer_fini(struct answer *a)
{
    free(a->text);
}

const char *answer_end_name(enum answer_end end)
{
    static const char *const names[] = {"stop",      "length", "context",
                                        "cancelled", "failed", "unheard"};

    return names[end];
}

double per_second(double n, double ms)
{
    return n > 0 && ms > 0 ? 1000 * n / ms : 0;
}

void answer_report(const struct answer *a, const uint32_t *seed)
{
    const struct ll_stats *s = &a->stats;
    char with_seed[32] = "", cached[32] = "";

    if (seed)
        snprintf(with_seed, sizeof with_seed, "; seed %u", (unsigned)*seed);
    if (s->n_cached)
        snprintf(cached, sizeof cached, " (%d kept)", s->n_cached);
    say("%d tokens after a prompt of %d%s; first token in %.0f ms; prefill %.1f tokens/s, decode "
        "%.1f "
        "tokens/s%s",
        s->n_generated, s->n_prompt, cached, s->ttft_ms,
        per_second(s->n_prompt - s->n_cached, s->prompt_ms),
        per_second(s->n_generated - 1, s->generate_ms), with_seed);
}

json_t *answer_timings(const struct answer *a)
{
    const struct ll_stats *s = &a->stats;

    return json_pack("{s:i, s:i, s:i, s:f, s:f, s:f, s:f, s:f}", "prompt_tokens", s->n_prompt,
                     "cached_tokens", s->n_cached, "generated_tokens", s->n_generated, "ttft_ms",
                     s->ttft_ms, "prompt_ms", s->prompt_ms, "generate_ms", s->generate_ms,
                     "prefill_tokens_per_second",
                     per_second(s->n_prompt - s->n_cached, s->prompt_ms),
                     "decode_tokens_per_second", per_second(s->n_generated - 1, s->generate_ms));
}
