/* What the head notes of an answer while it is made: which steps carried rows of it, when each was
 * sent and came home, and when its token was back in the core. A few stores per step; the memory
 * grows with the answer up to ANSWER_STEPS_MAX steps. Of longer ones the first ANSWER_FIRST and the
 * newest are kept. Pure; one thread. */
#ifndef LINGUA_HEAD_ANSWER_LOG_H
#define LINGUA_HEAD_ANSWER_LOG_H

#include <stdint.h>

#include "plan/plan.h"

enum { ANSWER_STEPS_MAX = 4096, ANSWER_FIRST = 1024 };

struct answer_step {
    uint64_t number;
    uint32_t epoch;
    int rows;                           /* of the step, those of others included */
    int64_t sent_us, home_us, token_us; /* 0: not yet, or no token followed */
};

struct answer_log {
    uint64_t id;                                      /* of the cluster's answers, from 1 */
    int64_t begun_us, started_us, first_us, ended_us; /* 0: not yet */
    int n_prompt, n_cached, n_tokens;
    /* Of the newest step: the plan it ran by, and the member each of its devices is. */
    struct plan plan;
    int member[PLAN_DEVICES_MAX];
    uint64_t n; /* steps in all */
    int cap;
    struct answer_step *steps; /* answer_log_at finds them */
};

struct answer_log *answer_log_new(uint64_t id, int64_t now_us, int n_prompt);
void answer_log_free(struct answer_log *l); /* NULL is fine */

void answer_log_sent(struct answer_log *l, const struct answer_step *s);
/* The step, if it carried rows of this answer, is home. */
void answer_log_home(struct answer_log *l, uint32_t epoch, uint64_t number, int64_t now_us);
/* The newest step that is home gave a token, which is back in the core. */
void answer_log_token(struct answer_log *l, int64_t now_us);

/* How many steps are kept, and the i-th of them. */
int answer_log_n(const struct answer_log *l);
const struct answer_step *answer_log_at(const struct answer_log *l, int i);
/* Steps are missing in front of the i-th kept one; 0 = none are. */
int answer_log_gap(const struct answer_log *l);

#endif
