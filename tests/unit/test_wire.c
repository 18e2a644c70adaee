/* Frames and messages to bytes and back, and every way of being wrong we could think of. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "message.pb-c.h"
#include "step.pb-c.h"
#include "wire/arena.h"
#include "wire/message.h"
#include "wire/step.h"

enum { WIDTH = 5 };

static struct err_text et;

/* The frame's bytes in memory of exactly that size, so that a read beyond them is seen. */
static uint8_t *flatten(const struct frame_out *f)
{
    uint8_t *bytes = malloc(f->total);

    frame_copy(f, bytes);
    return bytes;
}

static void to_frame(const struct frame_out *out, uint8_t **bytes, struct frame *f)
{
    *bytes = flatten(out);
    assert_int_equal(frame_decode(*bytes, out->total, f, &et), ERR_NONE);
}

/* What a step's rows point to. */
struct rows {
    int32_t slot[WIRE_ROWS_MAX], pos[WIRE_ROWS_MAX], token[WIRE_ROWS_MAX];
    uint8_t want[WIRE_ROWS_MAX];
    uint64_t tag[2 * WIRE_ROWS_MAX];
};

/* Step 1 with the first n of the rows; no tokens and no tags until the test adds them. */
static struct step step_of(const struct rows *r, int n)
{
    struct step s = {.number = 1, .n_rows = n, .slot = r->slot, .pos = r->pos, .want = r->want};

    for (int i = 0; i < n; i++)
        s.n_want += r->want[i];
    return s;
}

/* As many tags as are due, no two alike. */
static void add_tags(struct step *s, struct rows *r)
{
    s->tag = r->tag;
    s->n_tags = step_runs(s) + s->n_rows;
    for (int i = 0; i < s->n_tags; i++)
        r->tag[i] = (uint64_t)(i + 1) * 0x9e3779b97f4a7c15u;
}

struct sample {
    struct step step;
    struct slot_op ops[2];
    struct rows rows;
    float data[2][6 * WIDTH];
};

static void make_sample(struct sample *s)
{
    static const struct {
        int32_t slot, pos;
        uint8_t want;
    } rows[] = {{3, 7, 0}, {3, 8, 0}, {3, 9, 1}, {0, 0, 1}, {255, 100000, 0}, {255, 100001, 1}};

    memset(s, 0, sizeof *s);
    for (int i = 0; i < 6; i++) {
        s->rows.slot[i] = rows[i].slot;
        s->rows.pos[i] = rows[i].pos;
        s->rows.want[i] = rows[i].want;
        s->rows.token[i] = 30000 + i;
    }
    s->ops[0] = (struct slot_op){SLOT_OP_TRUNCATE, 3, 0, 7};
    s->ops[1] = (struct slot_op){SLOT_OP_COPY, 255, 9, 100000};
    for (int i = 0; i < 6 * WIDTH; i++) {
        s->data[0][i] = (float)i * 0.25f;
        s->data[1][i] = -(float)i;
    }
    s->step = step_of(&s->rows, 6);
    s->step.number = 1ull << 40;
    s->step.epoch = 3;
    s->step.stage = 4;
    s->step.n_ops = 2;
    s->step.ops = s->ops;
    s->step.in = (struct step_tensors){2, 6, {WIDTH, WIDTH}, {s->data[0], s->data[1]}};
}

static void assert_same_step(const struct step *a, const struct step *b)
{
    assert_true(a->number == b->number);
    assert_int_equal(a->epoch, b->epoch);
    assert_int_equal(a->stage, b->stage);
    assert_int_equal(a->n_ops, b->n_ops);
    assert_memory_equal(a->ops, b->ops, (size_t)a->n_ops * sizeof *a->ops);
    assert_int_equal(a->n_rows, b->n_rows);
    assert_memory_equal(a->slot, b->slot, (size_t)a->n_rows * sizeof *a->slot);
    assert_memory_equal(a->pos, b->pos, (size_t)a->n_rows * sizeof *a->pos);
    assert_memory_equal(a->want, b->want, (size_t)a->n_rows);
    assert_int_equal(a->n_want, b->n_want);
    assert_int_equal(!a->token, !b->token);
    if (a->token)
        assert_memory_equal(a->token, b->token, (size_t)a->n_rows * sizeof *a->token);
    assert_int_equal(a->n_tags, b->n_tags);
    assert_int_equal(a->n_tags > 0, b->tag != NULL);
    if (a->n_tags)
        assert_memory_equal(a->tag, b->tag, (size_t)a->n_tags * sizeof *a->tag);
    assert_int_equal(a->code, b->code);
    if (a->code)
        assert_string_equal(a->reason.text, b->reason.text);
    assert_int_equal(a->in.n, b->in.n);
    for (int i = 0; i < a->in.n; i++) {
        assert_int_equal(a->in.n_rows, b->in.n_rows);
        assert_int_equal(a->in.width[i], b->in.width[i]);
        assert_memory_equal(a->in.data[i], b->in.data[i],
                            (size_t)(a->in.n_rows * a->in.width[i]) * sizeof(float));
    }
}

static void round_trip(struct step_codec *c, const struct step *s)
{
    struct frame_out out;
    struct frame f;
    struct step back;
    uint8_t *bytes;

    step_encode(c, s, &out);
    to_frame(&out, &bytes, &f);
    assert_int_equal(step_decode(c, &f, &back, &et), ERR_NONE);
    assert_same_step(s, &back);
    free(bytes);
}

static void test_step_round_trip(void **state)
{
    struct step_codec *c = step_codec_new();
    static struct sample s;

    (void)state;
    make_sample(&s);
    round_trip(c, &s.step);
    assert_int_equal(step_runs(&s.step), 3);
    add_tags(&s.step, &s.rows);
    assert_int_equal(s.step.n_tags, 9);
    round_trip(c, &s.step);
    s.step.in.n_rows = 3; /* past the shrink */
    round_trip(c, &s.step);
    s.step.in.n = 1;
    s.step.in.n_rows = 0;
    round_trip(c, &s.step);
    s.step.in = (struct step_tensors){0};
    s.step.token = s.rows.token;
    round_trip(c, &s.step);
    s.step.code = ERR_MEMORY;
    strcpy(s.step.reason.text, "out of it");
    round_trip(c, &s.step);
    memset(s.step.reason.text, 'x', ERR_TEXT_MAX - 1); /* the longest there is */
    round_trip(c, &s.step);
    memset(s.rows.want, 0, 6);
    s.step.n_want = 0;
    round_trip(c, &s.step);
    memset(s.rows.want, 1, 6);
    s.step.n_want = 6;
    round_trip(c, &s.step);
    s.step.n_rows = s.step.n_want = s.step.n_tags = 0; /* only slot changes */
    s.step.token = NULL;
    s.step.code = ERR_NONE;
    round_trip(c, &s.step);
    assert_int_equal(step_runs(&s.step), 0);
    step_codec_free(c);
}

/* The largest step anyone may send, in the least compact form: each row a run of its own. */
static void test_step_at_its_limits(void **state)
{
    struct step_codec *c = step_codec_new();
    static struct slot_op ops[WIRE_OPS_MAX];
    static struct rows rows;
    struct frame_out out;
    struct step s;

    (void)state;
    for (int i = 0; i < WIRE_OPS_MAX; i++)
        ops[i] = (struct slot_op){SLOT_OP_COPY, 255, 254, INT32_MAX};
    for (int i = 0; i < WIRE_ROWS_MAX; i++) {
        rows.slot[i] = 128 + i % 128; /* two bytes on the wire */
        rows.pos[i] = INT32_MAX - 1 - i;
        rows.token[i] = INT32_MAX;
        rows.want[i] = (uint8_t)(i % 2);
    }
    s = step_of(&rows, WIRE_ROWS_MAX);
    s.number = UINT64_MAX;
    s.epoch = UINT32_MAX;
    s.stage = WIRE_STAGES_MAX - 1;
    s.n_ops = WIRE_OPS_MAX;
    s.ops = ops;
    s.token = rows.token;
    add_tags(&s, &rows);
    assert_int_equal(s.n_tags, 2 * WIRE_ROWS_MAX);
    s.code = ERR_GONE;
    memset(s.reason.text, 'x', ERR_TEXT_MAX - 1);
    round_trip(c, &s);
    step_encode(c, &s, &out);
    assert_int_equal(out.total, FRAME_HEAD_BYTES + 133676); /* as docs/protocol.md says */
    step_codec_free(c);
}

static void test_result_round_trip(void **state)
{
    struct step_codec *c = step_codec_new();
    float logits[12];
    struct result r = {.number = 9, .epoch = 2, .n_rows = 3, .width = 4, .logits = logits}, back;
    struct frame_out out;
    struct frame f;
    uint8_t *bytes;

    (void)state;
    for (int i = 0; i < 12; i++)
        logits[i] = (float)i;
    result_encode(c, &r, &out);
    to_frame(&out, &bytes, &f);
    assert_int_equal(result_decode(c, &f, &back, &et), ERR_NONE);
    assert_true(back.number == 9 && back.epoch == 2 && back.n_rows == 3 && back.width == 4);
    assert_memory_equal(back.logits, logits, sizeof logits);
    for (size_t len = 0; len < out.total; len++)
        assert_int_not_equal(frame_decode(bytes, len, &f, &et), ERR_NONE);
    free(bytes);
    r = (struct result){.number = 9, .epoch = 2, .code = ERR_INPUT, .reason = {"no\x1b[2J"}};
    result_encode(c, &r, &out);
    to_frame(&out, &bytes, &f);
    assert_int_equal(result_decode(c, &f, &back, &et), ERR_NONE);
    assert_int_equal(back.code, ERR_INPUT);
    assert_string_equal(back.reason.text, "no?[2J"); /* a peer does not write to our terminal */
    free(bytes);
    step_codec_free(c);
}

/* Per decode token and hop: the tensors themselves and at most 200 bytes, whatever the position. */
static void test_decode_token_is_small(void **state)
{
    struct step_codec *c = step_codec_new();
    static float x[2][4096];
    static struct rows r = {.slot = {255}, .pos = {INT32_MAX - 1}, .token = {INT32_MAX}};
    struct slot_op op = {SLOT_OP_TRUNCATE, 255, 0, INT32_MAX};
    struct frame_out out;

    (void)state;
    for (int n = 0; n <= 2; n++) {
        struct step s;

        r.want[0] = 1;
        s = step_of(&r, 1);
        s.number = UINT64_MAX;
        s.epoch = UINT32_MAX;
        s.stage = WIRE_STAGES_MAX - 1;
        s.n_ops = 1;
        s.ops = &op;
        s.token = r.token;
        add_tags(&s, &r);
        s.in = (struct step_tensors){n, 1, {4096, 4096}, {x[0], x[1]}};
        step_encode(c, &s, &out);
        assert_true(out.total <= (size_t)n * 4 * 4096 + 200);
        assert_true(out.total >= (size_t)n * 4 * 4096 + FRAME_HEAD_BYTES);
    }
    step_codec_free(c);
}

/* The examples of docs/protocol.md: without tags, and with them. */
static void test_step_to_the_byte(void **state)
{
    static const uint8_t bytes[] = {
        0x24, 0x20, 0,    0,    5,    0,    0,    0,    0x1a, 0,    0,    0,    0x08, 0xd2,
        0x85, 0xd8, 0xcc, 0x04, 0x10, 0x01, 0x18, 0x02, 0x2a, 0x04, 0x00, 0xe8, 0x07, 0x01,
        0x3a, 0x02, 0x00, 0x01, 0x40, 0x01, 0x4a, 0x02, 0x80, 0x10, 0,    0,
    };
    static const uint8_t tagged[] = {
        0x34, 0x20, 0,    0,    5,    0,    0,    0,    0x2c, 0,    0,    0,    0x08, 0xd2,
        0x85, 0xd8, 0xcc, 0x04, 0x10, 0x01, 0x18, 0x02, 0x2a, 0x04, 0x00, 0xe8, 0x07, 0x01,
        0x3a, 0x02, 0x00, 0x01, 0x40, 0x01, 0x4a, 0x02, 0x80, 0x10, 0x62, 0x10, 0x88, 0x77,
        0x66, 0x55, 0x44, 0x33, 0x22, 0x11, 0x08, 0x07, 0x06, 0x05, 0x04, 0x03, 0x02, 0x01,
    };
    struct step_codec *c = step_codec_new();
    static float x[2048];
    static struct rows r = {
        .pos = {1000}, .want = {1}, .tag = {0x1122334455667788, 0x0102030405060708}};
    struct step s = step_of(&r, 1);
    struct frame_out out;
    uint8_t *sent;

    (void)state;
    x[0] = 1; /* 00 00 80 3f */
    s.number = 1234567890;
    s.epoch = 1;
    s.stage = 2;
    s.in = (struct step_tensors){1, 1, {2048}, {x}};
    step_encode(c, &s, &out);
    assert_int_equal(out.total, sizeof bytes + sizeof x);
    sent = flatten(&out);
    assert_memory_equal(sent, bytes, sizeof bytes);
    assert_int_equal(sent[sizeof bytes + 2], 0x80);
    assert_int_equal(sent[sizeof bytes + 3], 0x3f);
    free(sent);
    s.tag = r.tag;
    s.n_tags = 2;
    step_encode(c, &s, &out);
    assert_int_equal(out.total, sizeof tagged + sizeof x);
    sent = flatten(&out);
    assert_memory_equal(sent, tagged, sizeof tagged);
    free(sent);
    step_codec_free(c);
}

/* A prompt's rows are a run: their number hardly matters to the header. */
static void test_prompt_header_is_small(void **state)
{
    struct step_codec *c = step_codec_new();
    static struct rows r;
    struct step s;
    struct frame_out out;

    (void)state;
    for (int i = 0; i < WIRE_ROWS_MAX; i++)
        r.pos[i] = i;
    s = step_of(&r, WIRE_ROWS_MAX);
    step_encode(c, &s, &out);
    assert_true(out.total <= 64);
    add_tags(&s, &r);
    assert_int_equal(s.n_tags, WIRE_ROWS_MAX + 1);
    step_encode(c, &s, &out);
    assert_true(out.total <= 64 + 8 * (WIRE_ROWS_MAX + 2));
    step_codec_free(c);
}

static void test_every_truncation_of_a_step(void **state)
{
    struct step_codec *c = step_codec_new();
    static struct sample s;
    struct frame_out out;
    struct frame f;
    struct step back;
    uint8_t *bytes;

    (void)state;
    make_sample(&s);
    add_tags(&s.step, &s.rows);
    step_encode(c, &s.step, &out);
    bytes = flatten(&out);
    for (size_t len = 0; len < out.total; len++) {
        size_t total;
        uint8_t *cut = malloc(len ? len : 1);

        memcpy(cut, bytes, len);
        /* To a stream it is a frame not yet complete; taken for a whole one it is refused. */
        assert_int_equal(frame_measure(cut, len, &total, &et), ERR_NONE);
        assert_true(total == (len < FRAME_HEAD_BYTES ? 0 : out.total));
        assert_int_equal(frame_decode(cut, len, &f, &et), ERR_PROTO);
        free(cut);
    }
    /* A head that admits to being shorter: the message's end or the payload is missing. */
    for (size_t len = FRAME_HEAD_BYTES; len < out.total; len++) {
        uint8_t *cut = malloc(len);
        uint32_t said = (uint32_t)len - 4;

        memcpy(cut, bytes, len);
        memcpy(cut, &said, 4);
        if (frame_decode(cut, len, &f, &et) == ERR_NONE)
            assert_int_equal(step_decode(c, &f, &back, &et), ERR_PROTO);
        free(cut);
    }
    /* A message cut anywhere inside its own bytes; without its last field it is a step that has no
     * tags. */
    assert_int_equal(frame_decode(bytes, out.total, &f, &et), ERR_NONE);
    for (size_t len = f.header_len; len-- > 0;) {
        struct frame cut = f;

        cut.header_len = len;
        if (len == f.header_len - 2 - (size_t)s.step.n_tags * 8)
            assert_int_equal(step_decode(c, &cut, &back, &et), ERR_NONE);
        else
            assert_int_not_equal(step_decode(c, &cut, &back, &et), ERR_NONE);
    }
    free(bytes);
    step_codec_free(c);
}

static void test_trailing_bytes(void **state)
{
    struct step_codec *c = step_codec_new();
    static struct sample s;
    struct frame_out out;
    struct frame f;
    struct step back;
    uint8_t *bytes;
    uint32_t said;

    (void)state;
    make_sample(&s);
    step_encode(c, &s.step, &out);
    bytes = calloc(1, out.total + 4);
    frame_copy(&out, bytes);
    assert_int_equal(frame_decode(bytes, out.total + 4, &f, &et), ERR_PROTO);
    said = (uint32_t)out.total; /* four bytes more than its tensors */
    memcpy(bytes, &said, 4);
    assert_int_equal(frame_decode(bytes, out.total + 4, &f, &et), ERR_NONE);
    assert_int_equal(step_decode(c, &f, &back, &et), ERR_PROTO);
    assert_non_null(strstr(et.text, "payload"));
    free(bytes);
    step_codec_free(c);
}

static void test_frame_heads(void **state)
{
    uint8_t head[16] = {8, 0, 0, 0, FRAME_STOP};
    struct frame f;
    size_t total;

    (void)state;
    assert_int_equal(frame_decode(head, 12, &f, &et), ERR_NONE);
    head[4] = 0;
    assert_int_equal(frame_measure(head, 12, &total, &et), ERR_PROTO);
    head[4] = FRAME_TYPES;
    assert_int_equal(frame_measure(head, 12, &total, &et), ERR_PROTO);
    head[4] = FRAME_STOP;
    head[5] = 1; /* the type's high byte */
    assert_int_equal(frame_measure(head, 12, &total, &et), ERR_PROTO);
    head[5] = 0;
    head[6] = 1;
    assert_int_equal(frame_measure(head, 12, &total, &et), ERR_PROTO);
    head[6] = 0;
    head[0] = 7; /* shorter than its own head */
    assert_int_equal(frame_measure(head, 12, &total, &et), ERR_PROTO);
    head[0] = 8;
    head[8] = 1; /* a header that is not there */
    assert_int_equal(frame_measure(head, 12, &total, &et), ERR_PROTO);
    head[0] = 12;
    assert_int_equal(frame_decode(head, 16, &f, &et), ERR_NONE);
    head[13] = 1; /* padding */
    assert_int_equal(frame_decode(head, 16, &f, &et), ERR_PROTO);
    memset(head, 0xff, 4); /* 4 GiB */
    assert_int_equal(frame_measure(head, 12, &total, &et), ERR_LIMIT);
    head[4] = FRAME_STEP;
    assert_int_equal(frame_measure(head, 12, &total, &et), ERR_LIMIT);
    memset(head, 0, 4);
    head[2] = 0x10; /* 1 MiB, all header */
    memset(head + 8, 0xff, 4);
    assert_int_equal(frame_measure(head, 12, &total, &et), ERR_LIMIT);
    for (unsigned type = 1; type < FRAME_TYPES; type++)
        assert_true(wire_header_max(type) && wire_frame_max(type) >= wire_header_max(type));
}

/* Decodes a hand-made message with payload_len bytes of payload. */
static enum err try_step(struct step_codec *c, const Lingua__Wire__Step *m, size_t payload_len)
{
    size_t len = lingua__wire__step__get_packed_size(m);
    uint8_t *header = malloc(len ? len : 1), *payload = calloc(1, payload_len ? payload_len : 1);
    struct frame f = {FRAME_STEP, header, len, payload, payload_len};
    struct step s;
    enum err e;

    lingua__wire__step__pack(m, header);
    e = step_decode(c, &f, &s, &et);
    free(header);
    free(payload);
    return e;
}

/* A step of three rows that is as it should be; the tests below then make one thing wrong. */
static Lingua__Wire__Step one_run(uint32_t run[3])
{
    Lingua__Wire__Step m = LINGUA__WIRE__STEP__INIT;

    run[0] = 1;
    run[1] = 2;
    run[2] = 3;
    m.number = 1;
    m.n_runs = 3;
    m.runs = run;
    return m;
}

static void test_step_fields(void **state)
{
    struct step_codec *c = step_codec_new();
    uint32_t run[3];
    uint8_t reason[ERR_TEXT_MAX] = {0};
    Lingua__Wire__Step m;

    (void)state;
    m = one_run(run);
    assert_int_equal(try_step(c, &m, 0), ERR_NONE);
    m.number = 0;
    assert_int_equal(try_step(c, &m, 0), ERR_PROTO);
    m = one_run(run);
    m.stage = WIRE_STAGES_MAX;
    assert_int_equal(try_step(c, &m, 0), ERR_PROTO);
    m = one_run(run);
    m.code = 99;
    assert_int_equal(try_step(c, &m, 0), ERR_PROTO);
    m = one_run(run);
    m.code = 1;
    m.reason = (ProtobufCBinaryData){ERR_TEXT_MAX, reason};
    assert_int_equal(try_step(c, &m, 0), ERR_LIMIT);
    step_codec_free(c);
}

static void test_step_runs(void **state)
{
    struct step_codec *c = step_codec_new();
    uint32_t run[3];
    static uint32_t many[3 * (WIRE_ROWS_MAX + 1)];
    Lingua__Wire__Step m;

    (void)state;
    m = one_run(run);
    m.n_runs = 2;
    assert_int_equal(try_step(c, &m, 0), ERR_PROTO);
    m = one_run(run);
    run[0] = WIRE_SLOTS_MAX;
    assert_int_equal(try_step(c, &m, 0), ERR_LIMIT);
    m = one_run(run);
    run[1] = INT32_MAX;
    assert_int_equal(try_step(c, &m, 0), ERR_PROTO);
    m = one_run(run);
    run[1] = UINT32_MAX;
    assert_int_equal(try_step(c, &m, 0), ERR_PROTO);
    m = one_run(run);
    run[2] = 0;
    assert_int_equal(try_step(c, &m, 0), ERR_PROTO);
    run[2] = WIRE_ROWS_MAX;
    assert_int_equal(try_step(c, &m, 0), ERR_NONE);
    run[2] = WIRE_ROWS_MAX + 1;
    assert_int_equal(try_step(c, &m, 0), ERR_LIMIT);
    run[2] = UINT32_MAX;
    assert_int_equal(try_step(c, &m, 0), ERR_LIMIT);
    m = one_run(run);
    memcpy(many, (uint32_t[]){1, 2, 3, 1, 5, 1}, 6 * sizeof *many);
    m.runs = many;
    m.n_runs = 6; /* the second goes on where the first ended */
    assert_int_equal(try_step(c, &m, 0), ERR_PROTO);
    many[4] = 6;
    assert_int_equal(try_step(c, &m, 0), ERR_NONE);
    many[3] = 2;
    many[4] = 5;
    assert_int_equal(try_step(c, &m, 0), ERR_NONE);
    memset(many, 0, sizeof many);
    for (int i = 0; i < WIRE_ROWS_MAX + 1; i++)
        many[3 * i + 2] = 1;
    m.runs = many;
    m.n_runs = 3 * WIRE_ROWS_MAX;
    assert_int_equal(try_step(c, &m, 0), ERR_NONE);
    m.n_runs += 3;
    assert_int_equal(try_step(c, &m, 0), ERR_LIMIT);
    step_codec_free(c);
}

static void test_step_ops(void **state)
{
    struct step_codec *c = step_codec_new();
    uint32_t run[3];
    static uint32_t many[4 * (WIRE_OPS_MAX + 1)];
    uint32_t op[] = {1, 0, 0, 5};
    Lingua__Wire__Step m;

    (void)state;
    m = one_run(run);
    m.ops = op;
    m.n_ops = 4;
    assert_int_equal(try_step(c, &m, 0), ERR_NONE);
    m.n_ops = 3;
    assert_int_equal(try_step(c, &m, 0), ERR_PROTO);
    m.n_ops = 4;
    op[0] = 3;
    assert_int_equal(try_step(c, &m, 0), ERR_PROTO);
    op[0] = 0;
    assert_int_equal(try_step(c, &m, 0), ERR_PROTO);
    op[0] = 1;
    op[1] = WIRE_SLOTS_MAX;
    assert_int_equal(try_step(c, &m, 0), ERR_LIMIT);
    op[0] = 2;
    op[1] = 0;
    op[2] = WIRE_SLOTS_MAX;
    assert_int_equal(try_step(c, &m, 0), ERR_LIMIT);
    op[2] = 1;
    op[3] = (uint32_t)INT32_MAX + 1;
    assert_int_equal(try_step(c, &m, 0), ERR_PROTO);
    m = one_run(run);
    for (int i = 0; i <= WIRE_OPS_MAX; i++)
        many[4 * i] = 1;
    m.ops = many;
    m.n_ops = 4 * WIRE_OPS_MAX;
    assert_int_equal(try_step(c, &m, 0), ERR_NONE);
    m.n_ops += 4;
    assert_int_equal(try_step(c, &m, 0), ERR_LIMIT);
    step_codec_free(c);
}

static void test_step_tokens_and_want(void **state)
{
    struct step_codec *c = step_codec_new();
    uint32_t run[3];
    uint32_t want[] = {1, 2}, tokens[] = {1, 2, 3, 4};
    Lingua__Wire__Step m;

    (void)state;
    m = one_run(run);
    m.tokens = tokens;
    m.n_tokens = 3;
    assert_int_equal(try_step(c, &m, 0), ERR_NONE);
    m.n_tokens = 4;
    assert_int_equal(try_step(c, &m, 0), ERR_PROTO);
    m.n_tokens = 3;
    tokens[1] = UINT32_MAX;
    assert_int_equal(try_step(c, &m, 0), ERR_PROTO);

    m = one_run(run);
    m.want = want;
    m.n_want = 2;
    assert_int_equal(try_step(c, &m, 0), ERR_NONE);
    want[1] = 3;
    assert_int_equal(try_step(c, &m, 0), ERR_PROTO);
    want[1] = UINT32_MAX;
    assert_int_equal(try_step(c, &m, 0), ERR_PROTO);
    step_codec_free(c);
}

/* One tag before each run and one after each row, or none. */
static void test_step_tags(void **state)
{
    struct step_codec *c = step_codec_new();
    uint32_t run[3], runs[] = {1, 2, 3, 1, 9, 1};
    uint64_t tags[8] = {0, UINT64_MAX};
    Lingua__Wire__Step m = one_run(run);

    (void)state;
    m.tags = tags;
    for (m.n_tags = 0; m.n_tags <= 8; m.n_tags++)
        assert_int_equal(try_step(c, &m, 0), m.n_tags == 0 || m.n_tags == 4 ? ERR_NONE : ERR_PROTO);
    m.runs = runs;
    m.n_runs = 6;
    for (m.n_tags = 0; m.n_tags <= 8; m.n_tags++)
        assert_int_equal(try_step(c, &m, 0), m.n_tags == 0 || m.n_tags == 6 ? ERR_NONE : ERR_PROTO);
    m.n_runs = 0;
    m.n_tags = 1;
    assert_int_equal(try_step(c, &m, 0), ERR_PROTO);
    step_codec_free(c);
}

static void test_step_tensors(void **state)
{
    struct step_codec *c = step_codec_new();
    uint32_t run[3];
    uint32_t widths[] = {4, 4, 4};
    Lingua__Wire__Step m;

    (void)state;
    m = one_run(run);
    m.widths = widths;
    m.n_widths = 2;
    m.tensor_rows = 3;
    assert_int_equal(try_step(c, &m, 2 * 3 * 4 * 4), ERR_NONE);
    assert_int_equal(try_step(c, &m, 2 * 3 * 4 * 4 - 4), ERR_PROTO);
    assert_int_equal(try_step(c, &m, 2 * 3 * 4 * 4 + 4), ERR_PROTO);
    m.code = 1;
    assert_int_equal(try_step(c, &m, 2 * 3 * 4 * 4), ERR_PROTO);
    m.code = 0;
    m.n_widths = 3;
    assert_int_equal(try_step(c, &m, 3 * 3 * 4 * 4), ERR_LIMIT);
    m.n_widths = 1;
    m.tensor_rows = 4;
    assert_int_equal(try_step(c, &m, 4 * 4 * 4), ERR_PROTO);
    m.tensor_rows = 3;
    widths[0] = 0;
    assert_int_equal(try_step(c, &m, 0), ERR_LIMIT);
    widths[0] = WIRE_WIDTH_MAX + 1;
    assert_int_equal(try_step(c, &m, 0), ERR_LIMIT);
    m.n_widths = 0;
    assert_int_equal(try_step(c, &m, 0), ERR_PROTO);
    step_codec_free(c);
}

/* Messages that are legal protobuf and would cost their reader many times their size. */
static void test_bombs(void **state)
{
    struct step_codec *c = step_codec_new();
    uint8_t *header = malloc(WIRE_STEP_HEADER_MAX);
    struct frame f = {FRAME_STEP, header, WIRE_STEP_HEADER_MAX, (const uint8_t *)c, 0};
    struct step s;

    (void)state;
    for (size_t i = 0; i < WIRE_STEP_HEADER_MAX; i += 2) { /* unknown field 15, varint 0 */
        header[i] = 15 << 3;
        header[i + 1] = 0;
    }
    assert_int_equal(step_decode(c, &f, &s, &et), ERR_PROTO);
    for (size_t i = 0; i < WIRE_STEP_HEADER_MAX; i += 2) { /* ops, one by one */
        header[i] = 4 << 3;
        header[i + 1] = 0;
    }
    assert_int_not_equal(step_decode(c, &f, &s, &et), ERR_NONE);
    for (size_t i = 0; i < WIRE_STEP_HEADER_MAX; i += 2) { /* empty strings, one by one */
        header[i] = 11 << 3 | 2;
        header[i + 1] = 0;
    }
    assert_int_not_equal(step_decode(c, &f, &s, &et), ERR_NONE);
    free(header);
    step_codec_free(c);
}

static void test_arena_has_an_end(void **state)
{
    struct arena a;

    (void)state;
    arena_init(&a, 100);
    arena_reset(&a, 10);
    assert_non_null(a.allocator.alloc(a.allocator.allocator_data, 1000));
    assert_null(a.allocator.alloc(a.allocator.allocator_data, 1000));
    assert_null(a.allocator.alloc(a.allocator.allocator_data, SIZE_MAX));
    arena_reset(&a, 100);
    assert_non_null(a.allocator.alloc(a.allocator.allocator_data, 1000));
    arena_fini(&a);
}

static void make_config(struct wire_config *m)
{
    memset(m, 0, sizeof *m);
    m->version = WIRE_VERSION;
    m->device = 1;
    m->n_devices = 3;
    strcpy(m->path, "models/a b.gguf");
    m->n_threads = 2;
    m->n_slots = 4;
    m->n_ctx = 4096;
    m->n_rows_max = 256;
    m->kv = 1;
    m->epoch = 1;
    m->n_stages = 3;
    for (int i = 0; i < 3; i++)
        m->stage[i] = (struct wire_stage){i, 4 * i, 4 * i + 4};
    m->n_links = 2;
    m->link[0] = (struct wire_link){0, 7};
    m->link[1] = (struct wire_link){2, 9};
}

static void test_config(void **state)
{
    static struct wire_config m, back;
    struct wire_buf buf;
    struct frame_out out;
    struct frame f;
    uint8_t *bytes;

    (void)state;
    make_config(&m);
    wire_config_encode(&m, &buf, &out);
    to_frame(&out, &bytes, &f);
    assert_int_equal(wire_config_decode(&f, &back, &et), ERR_NONE);
    assert_memory_equal(&m, &back, sizeof m);
    for (size_t len = f.header_len; len-- > 0;) {
        struct frame cut = f;

        cut.header_len = len;
        (void)!wire_config_decode(&cut, &back, &et); /* proto3: a missing tail may be legal */
    }
    f.payload_len = 4;
    assert_int_equal(wire_config_decode(&f, &back, &et), ERR_PROTO);
    free(bytes);
    /* The fullest one fits. */
    memset(m.path, 'p', WIRE_PATH_MAX - 1);
    m.n_devices = WIRE_DEVICES_MAX;
    m.n_stages = WIRE_STAGES_MAX;
    for (int i = 0; i < WIRE_STAGES_MAX; i++)
        m.stage[i] = (struct wire_stage){WIRE_DEVICES_MAX - 1, i, INT32_MAX};
    m.n_links = WIRE_DEVICES_MAX;
    for (int i = 0; i < WIRE_DEVICES_MAX; i++)
        m.link[i] = (struct wire_link){WIRE_DEVICES_MAX - 1, INT32_MAX};
    memset(&back, 0, sizeof back);
    wire_config_encode(&m, &buf, &out);
    to_frame(&out, &bytes, &f);
    assert_int_equal(wire_config_decode(&f, &back, &et), ERR_NONE);
    assert_memory_equal(&m, &back, sizeof m);
    free(bytes);
}

static enum err try_config(const struct wire_config *m)
{
    static struct wire_config back;
    struct wire_buf buf;
    struct frame_out out;
    struct frame f;
    uint8_t *bytes;
    enum err e;

    wire_config_encode(m, &buf, &out);
    to_frame(&out, &bytes, &f);
    e = wire_config_decode(&f, &back, &et);
    free(bytes);
    return e;
}

static void test_config_bounds(void **state)
{
    static struct wire_config m;
    const struct {
        int *field, value;
    } bad[] = {
        {&m.device, 3},
        {&m.n_devices, 0},
        {&m.n_devices, WIRE_DEVICES_MAX + 1},
        {&m.n_threads, 0},
        {&m.n_slots, 0},
        {&m.n_slots, WIRE_SLOTS_MAX + 1},
        {&m.n_ctx, 0},
        {&m.n_ctx, -1},
        {&m.n_rows_max, 0},
        {&m.n_rows_max, 1 << 13},
        {&m.kv, 3},
        {&m.n_stages, 0},
        {&m.stage[1].device, 3},
        {&m.stage[1].first, 8},
        {&m.stage[1].end, -1},
        {&m.link[0].device, 3},
        {&m.link[0].device, 1},
        {&m.link[0].fd, -1},
    };

    (void)state;
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        make_config(&m);
        assert_int_equal(try_config(&m), ERR_NONE);
        *bad[i].field = bad[i].value;
        assert_int_equal(try_config(&m), ERR_PROTO);
    }
    make_config(&m);
    m.path[0] = '\0';
    assert_int_equal(try_config(&m), ERR_PROTO);
    make_config(&m);
    m.version = WIRE_VERSION + 1;
    assert_int_equal(try_config(&m), ERR_UNSUPPORTED);
    assert_non_null(strstr(et.text, "version 3"));
}

static void test_small_messages(void **state)
{
    struct wire_hello hello = {WIRE_VERSION, 5}, hello_back;
    struct wire_progress progress = {3, 1ull << 40}, progress_back;
    struct wire_ready ready, ready_back;
    struct wire_error error = {ERR_MEMORY, {"needs \x07 2 GiB"}}, error_back;
    struct wire_buf buf;
    struct frame_out out;
    struct frame f;
    uint8_t *bytes;

    (void)state;
    wire_hello_encode(&hello, &buf, &out);
    to_frame(&out, &bytes, &f);
    assert_int_equal(wire_hello_decode(&f, &hello_back, &et), ERR_NONE);
    assert_memory_equal(&hello, &hello_back, sizeof hello);
    assert_int_equal(wire_progress_decode(&f, &progress_back, &et), ERR_PROTO);
    free(bytes);
    hello.version = 7;
    wire_hello_encode(&hello, &buf, &out);
    to_frame(&out, &bytes, &f);
    assert_int_equal(wire_hello_decode(&f, &hello_back, &et), ERR_UNSUPPORTED);
    free(bytes);

    wire_progress_encode(&progress, &buf, &out);
    to_frame(&out, &bytes, &f);
    assert_int_equal(wire_progress_decode(&f, &progress_back, &et), ERR_NONE);
    assert_memory_equal(&progress, &progress_back, sizeof progress);
    free(bytes);

    memset(&ready, 0, sizeof ready);
    ready = (struct wire_ready){2, 2, {0, 9}, {4, 12}, 1ull << 33, 77};
    wire_ready_encode(&ready, &buf, &out);
    to_frame(&out, &bytes, &f);
    assert_int_equal(wire_ready_decode(&f, &ready_back, &et), ERR_NONE);
    assert_memory_equal(&ready, &ready_back, sizeof ready);
    free(bytes);
    ready.end[1] = 9;
    wire_ready_encode(&ready, &buf, &out);
    to_frame(&out, &bytes, &f);
    assert_int_equal(wire_ready_decode(&f, &ready_back, &et), ERR_PROTO);
    free(bytes);

    wire_error_encode(&error, &buf, &out);
    to_frame(&out, &bytes, &f);
    assert_int_equal(wire_error_decode(&f, &error_back, &et), ERR_NONE);
    assert_int_equal(error_back.code, ERR_MEMORY);
    assert_string_equal(error_back.text.text, "needs ? 2 GiB");
    free(bytes);
    error.code = ERR_NONE;
    wire_error_encode(&error, &buf, &out);
    to_frame(&out, &bytes, &f);
    assert_int_equal(wire_error_decode(&f, &error_back, &et), ERR_PROTO);
    free(bytes);

    wire_empty_encode(FRAME_STOP, &buf, &out);
    to_frame(&out, &bytes, &f);
    assert_int_equal(f.type, FRAME_STOP);
    assert_int_equal(f.header_len + f.payload_len, 0);
    free(bytes);
}

static void make_report(struct wire_report *m)
{
    *m = (struct wire_report){
        .device = 1,
        .n_threads = 2,
        .weight_bytes = 3,
        .kv_bytes = 4,
        .resident_bytes = 5,
        .steps = 6,
        .rows = 7,
        .compute_us = 8,
        .decode_steps = 9,
        .decode_us = 10,
        .sent_bytes = 11,
        .decode_sent_bytes = UINT64_MAX,
        .stage_steps = {12, 13},
        .arrived_us = {14, UINT64_MAX},
        .sent_us = {16, 17},
        .stage_us = {18, 19},
        .memory_free = 1ull << 33,
        .storage_free = 1ull << 50,
        .temperature_mc = 61500,
        .battery_percent = 100,
        .charging = true,
    };
}

static bool same_report(const struct wire_report *a, const struct wire_report *b)
{
    for (int i = 0; i < 2; i++)
        if (a->stage_steps[i] != b->stage_steps[i] || a->arrived_us[i] != b->arrived_us[i] ||
            a->sent_us[i] != b->sent_us[i] || a->stage_us[i] != b->stage_us[i])
            return false;
    return a->device == b->device && a->n_threads == b->n_threads &&
           a->weight_bytes == b->weight_bytes && a->kv_bytes == b->kv_bytes &&
           a->resident_bytes == b->resident_bytes && a->steps == b->steps && a->rows == b->rows &&
           a->compute_us == b->compute_us && a->decode_steps == b->decode_steps &&
           a->decode_us == b->decode_us && a->sent_bytes == b->sent_bytes &&
           a->decode_sent_bytes == b->decode_sent_bytes && a->memory_free == b->memory_free &&
           a->storage_free == b->storage_free && a->temperature_mc == b->temperature_mc &&
           a->battery_percent == b->battery_percent && a->charging == b->charging;
}

/* m there and back, with these bytes behind its header: fields that override it, as protobuf has
 * it, or more of a list. */
static enum err report_with(const struct wire_report *m, const uint8_t *more, size_t len,
                            struct wire_report *back)
{
    struct wire_buf buf;
    struct frame_out out;
    struct frame f;
    uint8_t *bytes, *header;
    enum err e;

    wire_report_encode(m, &buf, &out);
    to_frame(&out, &bytes, &f);
    header = malloc(f.header_len + len);
    memcpy(header, f.header, f.header_len);
    if (len)
        memcpy(header + f.header_len, more, len);
    f.header = header;
    f.header_len += len;
    memset(back, 0x55, sizeof *back);
    e = wire_report_decode(&f, back, &et);
    free(header);
    free(bytes);
    return e;
}

static void test_report(void **state)
{
    static const struct {
        const char *more;
        size_t len;
        enum err e;
    } rows[] = {
        {"\x6a\4\1\1\1\1", 6, ERR_PROTO},                     /* a third stage */
        {"\x6a\1\1", 3, ERR_PROTO},                           /* a quarter of one */
        {"\x70\x81\x80\x80\x80\x80\x80\x80\2", 9, ERR_PROTO}, /* a pebibyte and one free */
        {"\x78\x81\x80\x80\x80\x80\x80\x80\2", 9, ERR_PROTO},
        {"\x80\1\xc0\x84\x3d", 5, ERR_NONE}, /* a thousand degrees */
        {"\x80\1\xc1\x84\x3d", 5, ERR_PROTO},
        {"\x80\1\xff\xff\xff\xff\x0f", 7, ERR_PROTO},
        {"\x88\1\x00", 3, ERR_NONE},
        {"\x88\1\x66", 3, ERR_PROTO}, /* 101 percent */
        {"\x90\1\x02", 3, ERR_PROTO},
        {"\x08\x40", 2, ERR_PROTO},
    };
    struct wire_report m, back;

    (void)state;
    make_report(&m);
    assert_int_equal(report_with(&m, NULL, 0, &back), ERR_NONE);
    assert_true(same_report(&m, &back));
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++)
        assert_int_equal(report_with(&m, (const uint8_t *)rows[i].more, rows[i].len, &back),
                         rows[i].e);
    m = (struct wire_report){.battery_percent = -1}; /* one that knows nothing */
    assert_int_equal(report_with(&m, NULL, 0, &back), ERR_NONE);
    assert_true(same_report(&m, &back));
    /* Times of no steps; then one stage alone, the second. */
    assert_int_equal(report_with(&m, (const uint8_t *)"\x6a\4\0\1\0\0", 6, &back), ERR_PROTO);
    m.stage_steps[1] = m.stage_us[1] = 5;
    assert_int_equal(report_with(&m, NULL, 0, &back), ERR_NONE);
    assert_true(same_report(&m, &back));
}

static void test_every_truncation_of_a_report(void **state)
{
    struct wire_report m, back, again;
    struct wire_buf buf;
    struct frame_out out;
    struct frame f;
    uint8_t *bytes;

    (void)state;
    make_report(&m);
    wire_report_encode(&m, &buf, &out);
    to_frame(&out, &bytes, &f);
    for (size_t len = f.header_len; len-- > 0;) {
        struct frame cut = f;
        uint8_t *header = malloc(len ? len : 1);

        memcpy(header, f.header, len);
        cut.header = header;
        cut.header_len = len;
        if (wire_report_decode(&cut, &back, &et) == ERR_NONE) { /* between two fields */
            assert_int_equal(report_with(&back, NULL, 0, &again), ERR_NONE);
            assert_true(same_report(&back, &again));
        }
        free(header);
    }
    free(bytes);
}

static void test_codes(void **state)
{
    int known;

    (void)state;
    for (int e = ERR_NONE; e <= ERR_GONE; e++) {
        assert_int_equal(wire_code_back(wire_code((enum err)e), &known), e);
        assert_true(known);
    }
    assert_int_equal(wire_code_back(1000, &known), ERR_PROTO);
    assert_false(known);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_step_round_trip),
        cmocka_unit_test(test_step_at_its_limits),
        cmocka_unit_test(test_result_round_trip),
        cmocka_unit_test(test_decode_token_is_small),
        cmocka_unit_test(test_step_to_the_byte),
        cmocka_unit_test(test_prompt_header_is_small),
        cmocka_unit_test(test_every_truncation_of_a_step),
        cmocka_unit_test(test_trailing_bytes),
        cmocka_unit_test(test_frame_heads),
        cmocka_unit_test(test_step_fields),
        cmocka_unit_test(test_step_runs),
        cmocka_unit_test(test_step_ops),
        cmocka_unit_test(test_step_tokens_and_want),
        cmocka_unit_test(test_step_tags),
        cmocka_unit_test(test_step_tensors),
        cmocka_unit_test(test_bombs),
        cmocka_unit_test(test_arena_has_an_end),
        cmocka_unit_test(test_config),
        cmocka_unit_test(test_config_bounds),
        cmocka_unit_test(test_small_messages),
        cmocka_unit_test(test_report),
        cmocka_unit_test(test_every_truncation_of_a_report),
        cmocka_unit_test(test_codes),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
