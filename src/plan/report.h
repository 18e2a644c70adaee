/* What a person wants to know of a plan: what limits it, what each device is good for. Pure. */
#ifndef LINGUA_PLAN_REPORT_H
#define LINGUA_PLAN_REPORT_H

#include "plan/place.h"

struct report_device {
    bool used;
    /* Used: how the cluster would do without it. Not used: how it would do if it had to take part.
     * Tokens per second of all streams; 0 = it would not run at all, and why says what is missing. */
    double other_tokens_per_s;
    struct err_text why;
};

struct report {
    struct placement placement;
    struct place_prediction prediction;
    struct place_standby standby;
    struct report_device device[PLAN_DEVICES_MAX]; /* by the problem's device */
};

/* placement: of p, by place_solve or place_equal. The other plans are place_near's (near.h). Large: a
 * struct report belongs on the heap. */
void report_make(const struct place_problem *p, const struct placement *placement,
                 struct report *out);
/* One sentence: "single stream: old-phone computes 61 of 112 ms per token", "4 streams: pi is busy
 * all the time", "the shared air carries all it can". */
void report_limit_text(const struct place_problem *p, const struct report *r, char *buf,
                       size_t cap);

/* Why a device is left out, as words that go on after its name: "with it 8.1 instead of 9.4
 * tokens/s", "it could not take part: ...". */
void report_left_out_text(const struct place_problem *p, const struct report *r, int device,
                          char *buf, size_t cap);

#endif
