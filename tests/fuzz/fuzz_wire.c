/* Every decoder of src/wire. What decodes must encode to something that decodes to the same bytes.
 *
 * Input: byte 0 even: the rest is a frame as a stream would bring it. Odd: byte 1 is the type,
 * bytes 2 and 3 the header's length (little-endian), then the header, then the payload; so that the
 * fuzzer need not find out how heads and messages agree. */
#include <stdlib.h>
#include <string.h>

#include "base/check.h"
#include "wire/message.h"
#include "wire/step.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void encode_again(const struct frame_out *out, const struct frame_out *expected)
{
    uint8_t *a = malloc(out->total), *b = malloc(expected->total);

    CHECK(out->total == expected->total);
    frame_copy(out, a);
    frame_copy(expected, b);
    CHECK(memcmp(a, b, out->total) == 0);
    free(a);
    free(b);
}

static void check_rows(const struct step *s)
{
    int n_want = 0;

    CHECK(s->n_rows >= 0 && s->n_rows <= WIRE_ROWS_MAX && s->in.n_rows <= s->n_rows);
    for (int i = 0; i < s->n_rows; i++) {
        CHECK(s->slot[i] >= 0 && s->slot[i] < WIRE_SLOTS_MAX && s->pos[i] >= 0);
        CHECK(!s->token || s->token[i] >= 0);
        n_want += s->want[i];
    }
    CHECK(n_want == s->n_want);
    CHECK(s->n_tags == (s->tag ? step_runs(s) + s->n_rows : 0));
}

/* Made once: they are large, and decoding must not depend on what they decoded before. */
static struct step_codec *codec(int i)
{
    static struct step_codec *codecs[2];

    if (!codecs[i])
        codecs[i] = step_codec_new();
    return codecs[i];
}

static void try_step(const struct frame *f)
{
    struct step_codec *c = codec(0), *c2 = codec(1);
    struct frame_out once, twice;
    struct frame back;
    struct step s, s2;
    struct err_text et;

    if (step_decode(c, f, &s, &et) == ERR_NONE) {
        uint8_t *bytes;

        check_rows(&s);
        step_encode(c, &s, &once);
        bytes = malloc(once.total);
        frame_copy(&once, bytes);
        CHECK(frame_decode(bytes, once.total, &back, &et) == ERR_NONE);
        CHECK(step_decode(c2, &back, &s2, &et) == ERR_NONE);
        step_encode(c2, &s2, &twice);
        encode_again(&twice, &once);
        free(bytes);
    }
}

static void try_result(const struct frame *f)
{
    struct step_codec *c = codec(0);
    struct frame_out once;
    struct result r;
    struct err_text et;

    if (result_decode(c, f, &r, &et) == ERR_NONE) {
        CHECK((size_t)r.n_rows * (size_t)r.width * sizeof(float) == f->payload_len);
        result_encode(c, &r, &once);
        CHECK(once.total <= FRAME_HEAD_BYTES + WIRE_STEP_HEADER_MAX + f->payload_len);
    }
}

/* Decodes as each kind of control message; what it took it must be able to say again. */
static void try_control(const struct frame *f)
{
    static struct wire_config config;
    struct wire_hello hello;
    struct wire_progress progress;
    struct wire_ready ready;
    struct wire_report report;
    struct wire_error error;
    struct wire_buf buf;
    struct frame_out out;
    struct err_text et;

    if (wire_config_decode(f, &config, &et) == ERR_NONE)
        wire_config_encode(&config, &buf, &out);
    if (wire_hello_decode(f, &hello, &et) == ERR_NONE)
        wire_hello_encode(&hello, &buf, &out);
    if (wire_progress_decode(f, &progress, &et) == ERR_NONE)
        wire_progress_encode(&progress, &buf, &out);
    if (wire_ready_decode(f, &ready, &et) == ERR_NONE)
        wire_ready_encode(&ready, &buf, &out);
    if (wire_report_decode(f, &report, &et) == ERR_NONE)
        wire_report_encode(&report, &buf, &out);
    if (wire_error_decode(f, &error, &et) == ERR_NONE)
        wire_error_encode(&error, &buf, &out);
}

static void try_frame(const struct frame *f)
{
    try_step(f);
    try_result(f);
    try_control(f);
}

/* A copy of exactly that size and aligned, as a connection's buffer gives it. */
static uint8_t *copy(const uint8_t *data, size_t size)
{
    uint8_t *p = malloc(size ? size : 1);

    if (size)
        memcpy(p, data, size);
    return p;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct frame f;
    struct err_text et;
    size_t header_len;
    uint8_t *header, *payload;

    if (size < 1)
        return 0;
    if (data[0] % 2 == 0) {
        uint8_t *bytes = copy(data + 1, size - 1);

        if (frame_decode(bytes, size - 1, &f, &et) == ERR_NONE)
            try_frame(&f);
        free(bytes);
        return 0;
    }
    if (size < 4)
        return 0;
    header_len = data[2] | (size_t)data[3] << 8;
    if (header_len > size - 4)
        header_len = size - 4;
    header = copy(data + 4, header_len);
    payload = copy(data + 4 + header_len, size - 4 - header_len);
    f = (struct frame){(enum frame_type)(1 + data[1] % (FRAME_TYPES - 1)), header, header_len,
                       payload, size - 4 - header_len};
    try_frame(&f);
    free(header);
    free(payload);
    return 0;
}
