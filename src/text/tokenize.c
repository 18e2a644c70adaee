/* text_tokenize. llama.cpp does the work; we see to it that no text makes it overflow the stack.
 *
 * It splits a text for some BPE vocabularies (BLOOM's, DeepSeek's, Tekken and more) with
 * std::regex, which recurses once per character of a match: 40,000 letters without a space end a
 * program whose stack has 8 MiB. A match never goes on from letters into spaces or back, so the
 * longest stretch of either bounds the depth. A text with a long one is split on a thread whose
 * stack is large enough for it; a longer one still is refused. */
#include "text/text.h"

#include <limits.h>
#include <stdlib.h>
#include <string.h>

#include "base/check.h"
#include "base/mem.h"
#include "text/stack.h"
#include "text/text_shim.h"

enum {
    STRETCH_DIRECT = 256,    /* bytes: no matter for the caller's own stack */
    STRETCH_MAX = 512 << 10, /* bytes: a stack of half a gigabyte, of which it touches a third */
    STACK_PER_BYTE = 1024,   /* measured: 420 on x86-64, g++ 12 at -O1 */
    STACK_BYTES_MIN = 512 << 10,
};

struct job {
    const struct llama_vocab *vocab;
    const char *s;
    int n;
    bool add_special, parse_special;
    int32_t *tokens; /* (cap) */
    int cap;
    int got; /* as llama_tokenize */
    enum err e;
    struct err_text et;
};

static void job_main(void *arg)
{
    struct job *j = arg;

    j->e = shim_tokenize(j->vocab, j->s, j->n, j->add_special, j->parse_special, j->tokens, j->cap,
                         &j->got, &j->et);
}

/* Bytes of the longest run of ASCII space, or of everything else. */
static size_t stretch_longest(const char *s, size_t n)
{
    size_t longest = 0, start = 0;

    for (size_t i = 1; i <= n; i++) {
        bool space = (s[i - 1] >= '\t' && s[i - 1] <= '\r') || s[i - 1] == ' ';
        bool next = i < n && ((s[i] >= '\t' && s[i] <= '\r') || s[i] == ' ');

        if (i < n && space == next)
            continue;
        if (i - start > longest)
            longest = i - start;
        start = i;
    }
    return longest;
}

static enum err job_run(struct job *j, struct err_text *et)
{
    size_t stretch = 0;
    enum err e;

    if (llama_vocab_type(j->vocab) == LLAMA_VOCAB_TYPE_BPE)
        stretch = stretch_longest(j->s, (size_t)j->n);
    if (stretch > STRETCH_MAX)
        return err_set(et, ERR_LIMIT,
                       "the text has %zu bytes without a space between; %d is the most for this "
                       "vocabulary",
                       stretch, STRETCH_MAX);
    if (stretch <= STRETCH_DIRECT) {
        job_main(j);
    } else {
        e = stack_run(job_main, j, STACK_BYTES_MIN + stretch * STACK_PER_BYTE, et);
        if (e)
            return err_wrap(et, e, "split a text with a word of %zu bytes", stretch);
    }
    if (j->e)
        return err_set(et, j->e, "%s", j->et.text);
    return ERR_NONE;
}

enum err text_tokenize(const struct text *t, const char *s, size_t n, bool add_special,
                       bool parse_special, int32_t **tokens, int *n_tokens, struct err_text *et)
{
    struct job job = {.vocab = t->vocab,
                      .s = s,
                      .n = (int)n,
                      .add_special = add_special,
                      .parse_special = parse_special};
    int32_t *ids = NULL;
    int got = 0, cap;
    enum err e;

    *tokens = NULL;
    *n_tokens = 0;
    if (n > TEXT_BYTES_MAX)
        return err_set(et, ERR_LIMIT, "the text has %zu bytes; %d MiB is the most", n,
                       TEXT_BYTES_MAX >> 20);
    /* A token stands for a byte at least, so this nearly always does at once; what a vocabulary
     * adds (BOS, EOS, a leading space in bytes) seldom needs the second round. */
    cap = (int)n + 16;
    for (int round = 0; round < 2; round++) {
        free(ids);
        ids = mem_try((size_t)cap, sizeof *ids);
        if (!ids)
            return err_set(et, ERR_MEMORY, "no memory for the tokens of a text of %zu bytes", n);
        job.tokens = ids;
        job.cap = cap;
        e = job_run(&job, et);
        if (e)
            goto fail;
        got = job.got;
        if (got >= 0)
            break;
        if (got == INT_MIN) {
            e = err_set(et, ERR_LIMIT, "the text has too many tokens");
            goto fail;
        }
        cap = -got;
    }
    CHECK(got >= 0 && got <= cap);
    *tokens = mem_realloc(ids, (size_t)got, sizeof *ids);
    *n_tokens = got;
    return ERR_NONE;
fail:
    free(ids);
    return e;
}
