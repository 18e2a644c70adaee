/* Every message of wire/cluster.h as data: a good example, its encoder and its decoder behind one
 * pair of functions, so that tests, fuzzer and seeds go through all of them alike. In an example
 * every field is set, to a value of its own; but for a profile's reason why it has no costs. */
#ifndef LINGUA_TESTS_CLUSTER_KINDS_H
#define LINGUA_TESTS_CLUSTER_KINDS_H

#include <protobuf-c/protobuf-c.h>

#include "wire/cluster.h"

union cluster_any {
    struct wire_greet greet;
    struct wire_welcome welcome;
    struct wire_refuse refuse;
    struct wire_roster roster;
    struct wire_assign assign;
    struct wire_load load;
    struct wire_dial dial;
    struct wire_link_report link;
    struct wire_phase phase;
    struct wire_ping ping;
    struct wire_pong pong;
    struct wire_leave leave;
    struct wire_trace_ask trace_ask;
    struct wire_trace trace;
    struct wire_model_ask manifest_ask, have_ask;
    struct wire_manifest manifest;
    struct wire_have have;
    struct wire_fetch fetch;
    struct wire_chunk chunk;
    struct wire_admin admin;
    struct wire_profile_ask profile_ask;
    struct wire_profile profile;
    struct wire_probe probe;
};

union cluster_buf {
    struct wire_buf small;
    struct wire_big_buf big;
};

struct cluster_kind {
    const char *name;
    enum frame_type type;
    const ProtobufCMessageDescriptor *descriptor;
    void (*make)(union cluster_any *m);
    void (*encode)(const union cluster_any *m, union cluster_buf *buf, struct frame_out *out);
    enum err (*decode)(const struct frame *f, union cluster_any *m, struct err_text *et);
};

enum { CLUSTER_KINDS = 24 };
extern const struct cluster_kind cluster_kinds[CLUSTER_KINDS];
const struct cluster_kind *cluster_kind_of(enum frame_type type);

void make_roster_body(struct wire_roster_body *m);

#endif
