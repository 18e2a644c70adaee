#include "head/answer_log.h"

#include <stdlib.h>

#include "base/mem.h"

enum { STEPS_USUAL = 64, NEWEST = ANSWER_STEPS_MAX - ANSWER_FIRST };

struct answer_log *answer_log_new(uint64_t id, int64_t now_us, int n_prompt)
{
    struct answer_log *l = mem_zalloc(1, sizeof *l);

    l->id = id;
    l->begun_us = now_us;
    l->n_prompt = n_prompt;
    return l;
}

void answer_log_free(struct answer_log *l)
{
    if (!l)
        return;
    free(l->steps);
    free(l);
}

/* Where step i of all stands: the first ones at their place, the others in a ring behind them. */
static int place_of(uint64_t i)
{
    return i < ANSWER_FIRST ? (int)i : ANSWER_FIRST + (int)((i - ANSWER_FIRST) % NEWEST);
}

void answer_log_sent(struct answer_log *l, const struct answer_step *s)
{
    int at = place_of(l->n++);

    if (at >= l->cap) {
        l->cap = l->cap ? 2 * l->cap : STEPS_USUAL;
        l->steps = mem_realloc(l->steps, (size_t)l->cap, sizeof *l->steps);
    }
    l->steps[at] = *s;
}

/* Steps come home in the order they were sent, so the one that is meant is among the last. */
void answer_log_home(struct answer_log *l, uint32_t epoch, uint64_t number, int64_t now_us)
{
    for (int i = answer_log_n(l) - 1; i >= 0; i--) {
        struct answer_step *s = (struct answer_step *)answer_log_at(l, i);

        if (s->epoch != epoch || s->number < number)
            return;
        if (s->number == number && !s->home_us) {
            s->home_us = now_us;
            return;
        }
    }
}

void answer_log_token(struct answer_log *l, int64_t now_us)
{
    for (int i = answer_log_n(l) - 1; i >= 0; i--) {
        struct answer_step *s = (struct answer_step *)answer_log_at(l, i);

        if (!s->home_us)
            continue;
        if (!s->token_us)
            s->token_us = now_us;
        return;
    }
}

int answer_log_n(const struct answer_log *l)
{
    return l->n < ANSWER_STEPS_MAX ? (int)l->n : ANSWER_STEPS_MAX;
}

int answer_log_gap(const struct answer_log *l)
{
    return l->n > ANSWER_STEPS_MAX ? ANSWER_FIRST : 0;
}

const struct answer_step *answer_log_at(const struct answer_log *l, int i)
{
    uint64_t pushed_out = l->n > ANSWER_STEPS_MAX ? l->n - ANSWER_STEPS_MAX : 0;

    return &l->steps[i < ANSWER_FIRST ? i : place_of((uint64_t)i + pushed_out)];
}
