/* The other side of a head's socket: how a program on the same machine uses a running cluster.
 *
 * Questions are JSON objects with a member "do"; answers are JSON objects, {"error": {"code": 1,
 * "message": "..."}} when it went wrong (codes as in docs/protocol.md).
 *
 *   {"do":"devices"}   {"head": name, "state": "alone|waiting|fetching|loading|running",
 *                       "waiting_for": text, "address": "host:port", "epoch": n, "n_ctx": n,
 *                       "model": {"name","alias" (what it is called),"arch","quantisation","path",
 *                                 "weight_bytes","n_modules",
 *                                 "scratch_bytes", "scratch_output_bytes" (on top, with output)},
 *                       "devices": [DEVICE...], "slots", "speed", "stages", "hops", "plan",
 *                       "predicted", "measured", "time_ms" (Unix)}
 *       DEVICE = {"name", "key" (short), "head": bool, "mine": bool, "drained": bool,
 *                 "state": "ready|fetching|loading|measuring|idle|draining|failed|lost|offline",
 *                 "trouble": text, "modules": text, "address", "kind", "kernels", "threads",
 *                 "memory_bytes", "base_bytes" (before any model), "planned_bytes",
 *                 "resident_bytes", "weight_bytes", "kv_bytes", "speed",
 *                 "received_bytes" (weights, since it was assigned its part), "done", "total",
 *                 "rtt_ms", "security", "steps", "rows", "compute_ms", "decode_ms",
 *                 "sent_bytes", "sent_bytes_per_row",
 *                 "hops": [{"to": name, "via": "direct"|"head"}]}
 *       "draining": drained, and still holding a part of the plan that runs. One that was never here
 *       since the head runs has but name, key, head, mine, state, modules, trouble.
 *       DEVICE has costs and condition, too: "predicted_ms" (computing per token), "cap_percent",
 *       "spare", "out_bytes_per_s", "in_bytes_per_s" (of its link), "memory_free_bytes",
 *       "storage_free_bytes", and where its system tells "temperature_c", "battery_percent",
 *       "charging".
 *       "slots" {"n", "busy", "waiting" (requests in the queue)}
 *       "speed" over about the last two seconds, of all streams {"tokens_per_s",
 *       "prefill_tokens_per_s", and now: "streams"}
 *       "stages" in the order of the chain, [] when no plan runs: [{"device": name, "first", "last"
 *       (modules), "text", "weight_bytes", "predicted_ms", "measured_ms" (arrival to departure)}]
 *       "hops" one more than stages; hops[i] is in front of stages[i], the last leads home. Where
 *       from and to are the same nothing is sent: [{"from", "to": names, "via": "direct"|"head",
 *       "latency_ms", "bytes_per_s" (of the link), "bytes", "frames" (since the epoch began),
 *       "bytes_per_token", "predicted_ms", "measured_ms"}]. What is not known is null
 *       "plan" {"concurrency", "ms_per_token", "tokens_per_s", "ttft_ms", "prompt", "limit",
 *       "gap_percent", "stayed", "left_out": [{"name", "tokens_per_s_with_it", "why"}]}
 *       "predicted" of one token of one stream {"token_ms", "compute_ms", "hops_ms", "head_ms",
 *       "tokens_per_s", "ttft_ms"}
 *       "measured" (docs/planner.md); each of the three is null when there is none.
 *   {"do":"plan", ...}            the plan's document (docs/planner.md); of the plan that runs, or,
 *                                 with any of "concurrency", "context", "prompt", "depth": n,
 *                                 "use", "without": [names], "equal": B, of the one that would be
 *   {"do":"invite"}               {"token": text, "address": "host:port", "expires_s": n}
 *   {"do":"mine","name":N,"on":B} {"name": N}
 *   {"do":"drain","name":N}       {"name": N}     leaves it out of every plan until it joins anew
 *   {"do":"revoke","name":N}      {"name": N}
 *   {"do":"open","slots":n}       {"path", "n_ctx", "n_rows_max", "n_slots", "kv", "n_devices"}
 *   {"do":"trace","on":B}         {} or, when turned off, {"devices": [name...], "records":
 *                                 [[device, step, stage, rows, arrived, begun, ended, sent]...]}
 *                                 in microseconds of the head's clock, and "predicted_ms" by stage
 * Unasked, the head sends {"event": "stale"} (every slot is empty now) and {"event": "waiting",
 * "text": ...} (what it waits for, "" when it goes on); their number is 0.
 *
 * A remote belongs to one thread at a time. */
#ifndef LINGUA_HEAD_REMOTE_H
#define LINGUA_HEAD_REMOTE_H

#include <jansson.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"
#include "model/segment.h"

struct remote;

/* state_folder: where the head keeps its state; NULL or "" = the usual place. ERR_GONE: no head
 * runs there ("start one with lingua serve MODEL"). */
MUST_CHECK enum err remote_open(const char *state_folder, struct remote **out, struct err_text *et);
void remote_close(struct remote *r); /* NULL is fine */

/* Asks and waits. The error of an answer comes back as the function's. *answer is the caller's.
 * question is taken. */
MUST_CHECK enum err remote_ask(struct remote *r, json_t *question, json_t **answer,
                               struct err_text *et);

/* The same for who must not wait: begin sends it, and look says what has come since, *answer NULL
 * while it is not there. Poll remote_fd for remote_events in between. One question at a time. */
void remote_ask_begin(struct remote *r, json_t *question);
MUST_CHECK enum err remote_ask_look(struct remote *r, json_t **answer, struct err_text *et);
int remote_fd(const struct remote *r);
short remote_events(const struct remote *r);

/* A member of an answer; "" or 0 when there is none, or it is of another kind. */
const char *remote_text(const json_t *o, const char *key);
uint64_t remote_number(const json_t *o, const char *key);

/* ---- what an engine does with it ---- */

struct remote_info {
    char *path; /* of the model file, borrowed */
    int n_ctx, n_rows_max, n_slots, kv;
};
MUST_CHECK enum err remote_slots(struct remote *r, int n_slots, struct remote_info *info,
                                 struct err_text *et);
/* As chain_run and its kin (chain.h), over slots 0..n_slots-1 of this program. ERR_CANCELLED with
 * *stale: the slots were emptied since (a device came or left); read again. ERR_GONE: a device left
 * while this was under way: the slots it touched are empty, and a later call may well work. */
MUST_CHECK enum err remote_run(struct remote *r, const struct batch *b, struct tensors *logits,
                               bool *stale, struct err_text *et);
MUST_CHECK enum err remote_slot_truncate(struct remote *r, int slot, int len, struct err_text *et);
int remote_slot_len(const struct remote *r, int slot);
/* While remote_run waits it looks at *flag now and then: not 0 makes it return ERR_CANCELLED (and
 * *stale false). The step goes on at the head; its answer is taken later. NULL: nothing is looked
 * at. */
void remote_watch(struct remote *r, const atomic_int *flag);
/* Called with what the head waits for, from within remote_run. */
void remote_on_waiting(struct remote *r, void (*waiting)(void *user, const char *text), void *user);

#endif
