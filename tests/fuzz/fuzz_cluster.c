/* Every decoder of wire/cluster.h, and the judging of frames by their first bytes. What decodes
 * must encode to something that decodes to the same bytes.
 *
 * Input: byte 0 modulo 3. 0: the rest is what a stream would bring. 1: byte 1 is the kind of
 * message, bytes 2 and 3 the header's length (little-endian), then the header, then the payload; so
 * that the fuzzer need not find out how heads and messages agree. 2: the rest is a roster's body.
 */
#include <stdlib.h>
#include <string.h>

#include "base/check.h"
#include "support/cluster_kinds.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* A copy of exactly that size, so that a read beyond it is seen. */
static uint8_t *copy(const uint8_t *data, size_t size)
{
    uint8_t *p = malloc(size ? size : 1);

    if (size)
        memcpy(p, data, size);
    return p;
}

static uint8_t *say_again(const struct cluster_kind *k, const union cluster_any *m, size_t *len)
{
    static union cluster_buf buf;
    struct frame_out out;
    uint8_t *bytes;

    k->encode(m, &buf, &out);
    CHECK(out.total <= wire_frame_max(k->type));
    bytes = malloc(out.total);
    frame_copy(&out, bytes);
    *len = out.total;
    return bytes;
}

static void try_kind(const struct cluster_kind *k, const struct frame *f)
{
    static union cluster_any m, m2;
    struct err_text et;
    struct frame back;
    size_t len, len2;
    uint8_t *once, *twice;

    if (k->decode(f, &m, &et) != ERR_NONE)
        return;
    CHECK(f->type == k->type || f->type == FRAME_HAVE_ASK || f->type == FRAME_MANIFEST_ASK);
    once = say_again(k, &m, &len);
    CHECK(frame_decode(once, len, &back, &et) == ERR_NONE);
    CHECK(k->decode(&back, &m2, &et) == ERR_NONE);
    twice = say_again(k, &m2, &len2);
    CHECK(len == len2 && memcmp(once, twice, len) == 0);
    free(once);
    free(twice);
}

static void try_body(const uint8_t *bytes, size_t len)
{
    static struct wire_roster_body m;
    static uint8_t once[WIRE_ROSTER_BODY_MAX], twice[WIRE_ROSTER_BODY_MAX];
    struct err_text et;
    size_t n;

    if (wire_roster_body_decode(bytes, len, &m, &et) != ERR_NONE)
        return;
    CHECK(m.n >= 0 && m.n <= WIRE_MEMBERS_MAX);
    n = wire_roster_body_encode(&m, once);
    CHECK(wire_roster_body_decode(once, n, &m, &et) == ERR_NONE);
    CHECK(wire_roster_body_encode(&m, twice) == n && memcmp(once, twice, n) == 0);
}

/* A link of less trust never allows what one without limits by trust would refuse. */
static void try_stream(const uint8_t *bytes, size_t len)
{
    struct err_text et;
    struct frame f;
    struct wire_roster r;
    size_t any, total;
    enum err e = frame_measure(bytes, len, &any, &et);

    for (int trust = WIRE_STRANGER; trust <= WIRE_LOCAL; trust++) {
        enum wire_trust t = (enum wire_trust)trust;

        if (frame_measure_for(bytes, len, t, &total, &et) != ERR_NONE) {
            CHECK(total == 0);
            continue;
        }
        CHECK(e == ERR_NONE && total == any);
        CHECK(len < FRAME_HEAD_BYTES || total <= wire_frame_max_for(bytes[4], t));
        CHECK(trust != WIRE_STRANGER || total <= WIRE_STRANGER_FRAME_MAX);
    }
    if (frame_decode(bytes, len, &f, &et) != ERR_NONE)
        return;
    for (int i = 0; i < CLUSTER_KINDS; i++)
        try_kind(&cluster_kinds[i], &f);
    if (wire_roster_decode(&f, &r, &et) == ERR_NONE)
        try_body(r.body, r.body_len);
}

static void try_parts(const uint8_t *data, size_t size)
{
    const struct cluster_kind *k;
    uint8_t *header, *payload;
    size_t header_len;
    struct frame f;

    if (size < 3)
        return;
    k = &cluster_kinds[data[0] % CLUSTER_KINDS];
    header_len = data[1] | (size_t)data[2] << 8;
    if (header_len > size - 3)
        header_len = size - 3;
    header = copy(data + 3, header_len);
    payload = copy(data + 3 + header_len, size - 3 - header_len);
    f = (struct frame){k->type, header, header_len, payload, size - 3 - header_len};
    try_kind(k, &f);
    free(header);
    free(payload);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    uint8_t *bytes;

    if (size < 1)
        return 0;
    bytes = copy(data + 1, size - 1);
    if (data[0] % 3 == 0)
        try_stream(bytes, size - 1);
    else if (data[0] % 3 == 1)
        try_parts(bytes, size - 1);
    else
        try_body(bytes, size - 1);
    free(bytes);
    return 0;
}
