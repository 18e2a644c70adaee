/* A head as a device sees it, without a mind of its own: it pairs, keeps a roster, gives weights
 * and passes steps on, and does what a test tells it otherwise. It runs device 0's stages itself,
 * on the event loop's thread. Functions fail the test when something is not as it should be. */
#ifndef LINGUA_TESTS_FAKE_HEAD_H
#define LINGUA_TESTS_FAKE_HEAD_H

#include <event2/event.h>

#include "device/bulk.h"
#include "device/executor.h"
#include "device/probe.h"
#include "link/link.h"
#include "link/roster.h"
#include "link/token.h"

enum { HEAD_MEMBERS_MAX = 4, HEAD_GIVERS_MAX = 16, HEAD_VOCAB_MAX = 4096 };

struct fake_member {
    struct fake_head *head;
    struct key_id key;
    char name[WIRE_NAME_MAX];
    struct link *link; /* NULL while away */
    struct wire_greet greet;
    struct wire_phase phase; /* the latest of its kind, by phase */
    int n_phase[WIRE_PHASE_FAILED + 1];
    int n_state[WIRE_LINK_LOST + 1]; /* LINK reports */
    struct wire_link_report direct;  /* the latest that said so */
    int n_greets, n_pongs, n_left, n_reports, n_traces, n_trace_records;
    uint32_t trace_epoch;
    struct wire_report report;
    int n_profiles;
    struct wire_profile profile;
    struct probe *probe; /* while fake_head_probe runs */
    struct probe_result speed;
    int n_probed; /* well */
};

struct fake_giver {
    struct bulk_store store;
    struct bulk_giver *bulk;
    struct fake_head *head;
    bool used;
};

struct fake_head {
    struct event_base *base;
    const char *folder;
    struct identity *identity;
    struct roster *roster;
    struct hub *hub;
    int port;
    struct token_book book;
    struct event *ping, *timeout;
    bool silent, timed_out;
    struct fake_member member[HEAD_MEMBERS_MAX]; /* member i is device i + 1 */
    int n_members;
    struct fake_giver giver[HEAD_GIVERS_MAX];
    int n_bulk_greets;

    /* The model, and device 0's part of it. */
    const char *path;
    struct manifest *manifest;
    int fd;
    struct model *model;
    struct compute *compute;
    struct executor *executor;
    struct step_codec *codec;
    struct plan plan;
    struct segment_opts segment;

    /* What came home. */
    int n_results, n_relayed;
    enum err code;
    int n_rows;
    float logits[HEAD_VOCAB_MAX];
};

/* A head of the model at path, whose state lies in folder. */
void fake_head_open(struct fake_head *h, struct event_base *base, const char *folder,
                    const char *path);
void fake_head_close(struct fake_head *h);
/* Its links go, as when the program ends; then it is back at the same port. */
void fake_head_stop(struct fake_head *h);
void fake_head_start(struct fake_head *h);

void fake_head_token(struct fake_head *h, struct token *out);
/* Turns the event loop until *count is at least n. */
void fake_head_wait(struct fake_head *h, const int *count, int n);
void fake_head_run_ms(struct fake_head *h, int ms);

void fake_head_roster(struct fake_head *h, const struct wire_roster *w); /* NULL: the present one */
/* addresses of member i as told to the others; NULL: where it really listens */
void fake_head_assign(struct fake_head *h, uint32_t epoch, const char *addresses);
void fake_head_load(struct fake_head *h);
void fake_head_dial(struct fake_head *h, int member, int device, enum wire_dial_how how);
/* ASSIGN, LOAD and DIAL, until both members are ready. relay: no direct link. */
void fake_head_bring_up(struct fake_head *h, uint32_t epoch, bool relay);
/* One row of one slot through the whole chain; the result's logits are in h. */
void fake_head_step(struct fake_head *h, uint64_t number, int pos, int32_t token);
/* Measures the link with member i; what came of it is in the member's speed. */
void fake_head_probe(struct fake_head *h, int member);
void fake_head_send(struct fake_head *h, int member, const struct frame_out *f);

#endif
