/* A device process: the other end of what head/ring.c starts.
 *
 * It is born with one open descriptor, the control connection to the head, and lives like this:
 *   1. The head sends CONFIG: the model's path, the whole plan, which device this is, and the
 *      descriptors of its connections to the devices it sends to or hears from.
 *   2. It answers HELLO, loads its segments (PROGRESS after each) and says READY.
 *   3. Frames STEP arrive; each is run and sent on to the device of the next stage, or home as
 *      RESULT.
 *   4. REPORT_ASK is answered by REPORT, between two steps.
 *   5. STOP, or the end of the control connection, ends it. If anything else does, ERROR says why
 *      first.
 *
 * One thread reads, computes and writes. While an output waits for the kernel to take it, no new
 * step is begun, but reading goes on: see conn.h. */
#ifndef LINGUA_DEVICE_SERVE_H
#define LINGUA_DEVICE_SERVE_H

#include "base/err.h"

/* Runs until the head says stop (ERR_NONE) or leaves (ERR_GONE). Takes control_fd and the
 * descriptors CONFIG names. What went wrong has been told to the head as well. */
MUST_CHECK enum err device_serve(int control_fd, struct err_text *et);

#endif
