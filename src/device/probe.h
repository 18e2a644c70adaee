/* How quick a link is: its least round trip, and the rate each way, with a bounded amount of
 * traffic (at most PROBE_BYTES each way, PROBE_ECHOES small frames), before any step goes over it.
 *
 * One side begins; both answer. The side that began:
 *   1. sends ECHO, one after the other, PROBE_ECHOES times;
 *   2. then a burst of BURST frames, whose BURST_TOOK says the rate out. A burst starts small and
 *      doubles until some of one size take PROBE_BURST_US or PROBE_BYTES are spent, so that a slow
 *      link is not held up for long and a fast one is not judged by one packet;
 *   3. then asks for bursts the other way, by an ECHO with `left` = how many frames: ECHOED and the
 *      burst follow back to back, and this side times it itself: the rate in. They double, too.
 * A burst ends before anything else is said, so other frames wait for one burst at most.
 *
 * The two directions are told apart so: behind the ECHOED of an ECHO that asked comes that burst;
 * any other is the far end's own. Numbers are those of the side that began. Event loop's thread. */
#ifndef LINGUA_DEVICE_PROBE_H
#define LINGUA_DEVICE_PROBE_H

#include <stdbool.h>
#include <stdint.h>

#include "link/link.h"
#include "wire/cluster.h"

struct event_base;
struct probe;

enum {
    PROBE_ECHOES = 12,
    PROBE_BYTES = 2 << 20,
    PROBE_PAYLOAD = 15 << 10, /* of each BURST frame: with its header, one TLS record */
    PROBE_FRAMES_MIN = 2,     /* of the first burst; then 3, 5, 9, ... */
    PROBE_FRAMES_MAX = 65,
    PROBE_BURST_US = 20000,
    PROBE_TRIES = 3, /* of a burst that took longer */
    PROBE_WAIT_MS = 3000,
};

struct probe_result {
    uint64_t rtt_us;          /* least, at least 1 */
    uint64_t out_bytes_per_s; /* 0 = not known */
    uint64_t in_bytes_per_s;
};

/* For each link one, on both sides. done comes at most once per probe_begin, never from within it;
 * with ok false, and all of r 0, when the other side does not answer within PROBE_WAIT_MS of the
 * last sign of life. It may free the probe. */
struct probe *probe_new(struct event_base *base, struct link *link,
                        void (*done)(void *user, bool ok, const struct probe_result *r),
                        void *user);
void probe_free(struct probe *p); /* NULL is fine; no call comes after */
/* Does nothing while one is under way. */
void probe_begin(struct probe *p);
/* A PROBE frame of the link. ERR_PROTO: close it; done is not called. */
MUST_CHECK enum err probe_frame(struct probe *p, const struct frame *f, struct err_text *et);

#endif
