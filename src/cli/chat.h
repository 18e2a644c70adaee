/* `lingua run` without a prompt: a conversation in the terminal. */
#ifndef LINGUA_CLI_CHAT_H
#define LINGUA_CLI_CHAT_H

#include <stdbool.h>
#include <stdint.h>

#include "lingua/lingua.h"

/* Talks until the person leaves. n_max tokens per answer, < 0 = no bound. is_cluster: a device that
 * leaves ends the answer, not the conversation. Returns the exit status. */
int chat(struct ll_engine *engine, struct ll_session *session, int64_t n_max, bool is_cluster);

#endif
