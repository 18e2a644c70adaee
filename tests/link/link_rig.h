/* Two hubs on one event base, a link between them, and what its two ends saw. */
#ifndef LINGUA_TESTS_LINK_RIG_H
#define LINGUA_TESTS_LINK_RIG_H

#include <event2/event.h>
#include <stdint.h>

#include "base/sys.h"
#include "link/link.h"

enum { RIG_LINES = 4096, RIG_WAIT_US = 20 * 1000000 };

enum rig_call { RIG_GREETED, RIG_OPENED, RIG_FRAME, RIG_DRAINED, RIG_CLOSED, RIG_CALLS };

struct rig;

/* One side of a link. hook is called in every callback, after what the rig itself does; once it has
 * ended the link it sets link to NULL. */
struct end {
    struct rig *rig;
    struct link *link;
    int n[RIG_CALLS];
    struct wire_greet greet;
    struct wire_welcome welcome;
    enum frame_type type;
    uint64_t payload_bytes, next; /* of frames made by rig_send: the next number expected */
    bool wrong;                   /* a frame was not what rig_send made, or misplaced */
    enum err err;
    char why[ERR_TEXT_MAX];
    void (*hook)(struct end *e, enum rig_call call);
    void (*frame_hook)(struct end *e, const struct frame *f); /* before that, with the frame */
    void *user;                                               /* the test's */
};

struct rig {
    struct event_base *base;
    struct event *tick;
    struct identity *id[2]; /* who dials, who accepts */
    struct hub *hub[2];
    int port;
    char address[64];
    struct end dialler, acceptor;
    bool no_judge; /* greeted leaves the link unanswered */
    enum wire_trust trust;
    int n_lines;
    char *line[RIG_LINES];
};

extern const struct link_calls rig_calls;

/* opts: versions and timeouts of the dialling and of the accepting hub; NULL = usual. */
struct rig *rig_new(const struct hub_opts *dialling, const struct hub_opts *accepting);
void rig_free(struct rig *r);
/* Dials with the accepting side's key, unless opts has something else in it. */
void rig_dial(struct rig *r, const struct dial_opts *opts);
/* Dials and waits until both ends are open. */
void rig_open(struct rig *r);
/* A STEP frame of that much payload whose bytes follow from number. */
void rig_send(struct link *l, uint64_t number, size_t payload);
/* One line has these words. */
bool rig_logged(const struct rig *r, const char *words);
void rig_settle(struct rig *r, int ms);

/* Runs the loop until x, or fails. */
#define RIG_UNTIL(r, x)                                                                            \
    do {                                                                                           \
        int64_t end_us_ = clock_us() + RIG_WAIT_US;                                                \
        bool done_;                                                                                \
        while (!(done_ = (x)) && clock_us() < end_us_)                                             \
            event_base_loop((r)->base, EVLOOP_ONCE);                                               \
        if (!done_)                                                                                \
            fail_msg("in vain: %s", #x);                                                           \
    } while (0)

#endif
