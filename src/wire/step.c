#include "wire/step.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "base/check.h"
#include "base/mem.h"
#include "step.pb-c.h"
#include "wire/arena.h"
#include "wire/message.h"

_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__,
               "payloads are little-endian f32 and are used in place");

enum {
    OP_FIELDS = 4,
    RUN_FIELDS = 3,

    /* The largest header there is: all counts at their limits and every row a run of its own.
     * Varints below 2^31 take up to 5 bytes, slots 2, counts of one row 1; a kind 1; a row has two
     * tags then. What stands alone (keys, lengths, number, epoch, ...) takes less than 128. */
    OP_BYTES = 1 + 2 + 2 + 5,
    ROW_BYTES = (2 + 5 + 1) + 5 /* token */ + 1 /* want */ + 2 * 8 /* tags */,
    HEADER_WORST = OP_BYTES * WIRE_OPS_MAX + ROW_BYTES * WIRE_ROWS_MAX + ERR_TEXT_MAX + 128,
};
_Static_assert((int)HEADER_WORST <= (int)WIRE_STEP_HEADER_MAX,
               "every step within the limits can be sent");

struct step_codec {
    struct arena arena;
    /* Of the last decoded step. */
    struct slot_op ops[WIRE_OPS_MAX];
    int32_t slot[WIRE_ROWS_MAX], pos[WIRE_ROWS_MAX], token[WIRE_ROWS_MAX];
    uint8_t want[WIRE_ROWS_MAX];
    uint64_t tag[2 * WIRE_ROWS_MAX];
    /* Of the last encoded one. */
    uint32_t flat_ops[OP_FIELDS * WIRE_OPS_MAX];
    uint32_t flat_runs[RUN_FIELDS * WIRE_ROWS_MAX];
    uint32_t flat_want[WIRE_ROWS_MAX + 1];
    uint32_t flat_widths[WIRE_TENSORS_MAX];
    uint8_t header[WIRE_STEP_HEADER_MAX + 3];
};

struct step_codec *step_codec_new(void)
{
    struct step_codec *c = mem_zalloc(1, sizeof *c);

    arena_init(&c->arena, WIRE_STEP_HEADER_MAX);
    return c;
}

void step_codec_free(struct step_codec *c)
{
    if (!c)
        return;
    arena_fini(&c->arena);
    free(c);
}

size_t step_payload_bytes(const struct step_tensors *t)
{
    size_t bytes = 0;

    for (int i = 0; i < t->n; i++)
        bytes += (size_t)t->n_rows * (size_t)t->width[i] * sizeof(float);
    return bytes;
}

static size_t pack_ops(struct step_codec *c, const struct step *s)
{
    uint32_t *p = c->flat_ops;

    CHECK(s->n_ops >= 0 && s->n_ops <= WIRE_OPS_MAX);
    for (int i = 0; i < s->n_ops; i++) {
        *p++ = s->ops[i].kind;
        *p++ = (uint32_t)s->ops[i].slot;
        *p++ = s->ops[i].kind == SLOT_OP_COPY ? (uint32_t)s->ops[i].to : 0;
        *p++ = (uint32_t)s->ops[i].len;
    }
    return (size_t)(p - c->flat_ops);
}

/* Whether row i goes on where the row before it ended. */
static bool goes_on(const int32_t *slot, const int32_t *pos, int i)
{
    return i > 0 && slot[i] == slot[i - 1] && pos[i] == pos[i - 1] + 1;
}

int step_runs(const struct step *s)
{
    int n = 0;

    for (int i = 0; i < s->n_rows; i++)
        n += !goes_on(s->slot, s->pos, i);
    return n;
}

enum step_want step_wants(const struct step *s)
{
    for (int i = 0; i < s->n_rows; i++)
        if (s->want[i])
            return (enum step_want)s->want[i];
    return STEP_WANT_NOTHING;
}

bool step_decodes(const struct step *s)
{
    return s->n_rows > 0 && s->n_rows <= STEP_DECODE_ROWS && step_runs(s) == s->n_rows;
}

void step_result(const struct step *s, int width, struct result *out)
{
    bool has_rows = !s->code && s->in.n > 0;

    *out = (struct result){.number = s->number, .epoch = s->epoch, .kind = STEP_WANT_LOGITS};
    if (step_wants(s) == STEP_WANT_HIDDEN)
        out->kind = STEP_WANT_HIDDEN;
    if (!s->code)
        out->width = width;
    if (has_rows) {
        out->n_rows = s->in.n_rows;
        out->width = s->in.width[0];
        out->logits = s->in.data[0];
    }
    out->code = s->code;
    out->reason = s->reason;
}

static size_t pack_runs(struct step_codec *c, const struct step *s)
{
    uint32_t *p = c->flat_runs;

    for (int i = 0; i < s->n_rows; i++) {
        if (goes_on(s->slot, s->pos, i)) {
            p[-1]++;
            continue;
        }
        *p++ = (uint32_t)s->slot[i];
        *p++ = (uint32_t)s->pos[i];
        *p++ = 1;
    }
    return (size_t)(p - c->flat_runs);
}

/* Alternating counts, the first of rows not wanted; a tail that is not wanted is left out. */
static size_t pack_want(struct step_codec *c, const struct step *s, enum step_want kind)
{
    size_t n = 0, n_used = 0;
    uint8_t wanted = 0;

    for (int i = 0; i < s->n_rows;) {
        uint32_t count = 0;

        for (; i < s->n_rows && !!s->want[i] == wanted; i++) {
            CHECK(!wanted || s->want[i] == kind);
            count++;
        }
        c->flat_want[n++] = count;
        if (wanted)
            n_used = n;
        wanted = !wanted;
    }
    return n_used;
}

void step_encode(struct step_codec *c, const struct step *s, struct frame_out *out)
{
    Lingua__Wire__Step m = LINGUA__WIRE__STEP__INIT;

    CHECK(s->n_rows >= 0 && s->n_rows <= WIRE_ROWS_MAX && s->in.n <= WIRE_TENSORS_MAX);
    CHECK(!s->code || s->in.n == 0);
    m.number = s->number;
    m.epoch = s->epoch;
    m.stage = (uint32_t)s->stage;
    m.n_ops = pack_ops(c, s);
    m.ops = c->flat_ops;
    m.n_runs = pack_runs(c, s);
    m.runs = c->flat_runs;
    if (s->token) {
        m.n_tokens = (size_t)s->n_rows;
        m.tokens = (uint32_t *)s->token; /* read only; never negative */
    }
    if (s->tag) {
        CHECK(s->n_tags == (int)m.n_runs / RUN_FIELDS + s->n_rows);
        m.n_tags = (size_t)s->n_tags;
        m.tags = (uint64_t *)s->tag; /* read only */
    }
    m.n_want = pack_want(c, s, step_wants(s));
    m.want = c->flat_want;
    m.wants = step_wants(s) == STEP_WANT_HIDDEN;
    m.n_widths = (size_t)s->in.n;
    m.widths = c->flat_widths;
    if (s->in.n)
        m.tensor_rows = (uint32_t)s->in.n_rows;
    out->n_payloads = s->in.n;
    for (int i = 0; i < s->in.n; i++) {
        c->flat_widths[i] = (uint32_t)s->in.width[i];
        out->payload[i] = s->in.data[i];
        out->payload_len[i] = (size_t)s->in.n_rows * (size_t)s->in.width[i] * sizeof(float);
    }
    if (s->code) {
        m.code = wire_code(s->code);
        m.reason.data = (uint8_t *)s->reason.text;
        m.reason.len = strlen(s->reason.text);
    }
    CHECK(lingua__wire__step__get_packed_size(&m) <= WIRE_STEP_HEADER_MAX);
    frame_finish(out, FRAME_STEP, c->header, lingua__wire__step__pack(&m, c->header));
}

void result_encode(struct step_codec *c, const struct result *r, struct frame_out *out)
{
    Lingua__Wire__Result m = LINGUA__WIRE__RESULT__INIT;

    m.number = r->number;
    m.epoch = r->epoch;
    out->n_payloads = 0;
    if (r->code) {
        m.code = wire_code(r->code);
        m.reason.data = (uint8_t *)r->reason.text;
        m.reason.len = strlen(r->reason.text);
    } else {
        m.kind = r->kind == STEP_WANT_HIDDEN;
        m.rows = (uint32_t)r->n_rows;
        m.width = (uint32_t)r->width;
        out->n_payloads = 1;
        out->payload[0] = r->logits;
        out->payload_len[0] = (size_t)r->n_rows * (size_t)r->width * sizeof(float);
    }
    frame_finish(out, FRAME_RESULT, c->header, lingua__wire__result__pack(&m, c->header));
}

static enum err unpack_ops(struct step_codec *c, const Lingua__Wire__Step *m, struct step *s,
                           struct err_text *et)
{
    if (m->n_ops % OP_FIELDS)
        return err_set(et, ERR_PROTO, "step: %zu numbers are no slot changes", m->n_ops);
    if (m->n_ops / OP_FIELDS > WIRE_OPS_MAX)
        return err_set(et, ERR_LIMIT, "step: %zu slot changes, at most %d", m->n_ops / OP_FIELDS,
                       WIRE_OPS_MAX);
    s->n_ops = (int)(m->n_ops / OP_FIELDS);
    for (int i = 0; i < s->n_ops; i++) {
        const uint32_t *p = m->ops + OP_FIELDS * i;

        if (p[0] != SLOT_OP_TRUNCATE && p[0] != SLOT_OP_COPY)
            return err_set(et, ERR_PROTO, "step: slot change %d is of unknown kind %u", i, p[0]);
        if (p[1] >= WIRE_SLOTS_MAX || p[2] >= WIRE_SLOTS_MAX)
            return err_set(et, ERR_LIMIT, "step: slot change %d names slot %u, at most %d", i,
                           p[1] >= WIRE_SLOTS_MAX ? p[1] : p[2], WIRE_SLOTS_MAX - 1);
        if (p[3] > INT32_MAX || (p[0] == SLOT_OP_TRUNCATE && p[2]))
            return err_set(et, ERR_PROTO, "step: slot change %d makes no sense", i);
        c->ops[i] = (struct slot_op){(enum slot_op_kind)p[0], (int)p[1], (int)p[2], (int)p[3]};
    }
    s->ops = c->ops;
    return ERR_NONE;
}

static enum err unpack_runs(struct step_codec *c, const Lingua__Wire__Step *m, struct step *s,
                            struct err_text *et)
{
    if (m->n_runs % RUN_FIELDS)
        return err_set(et, ERR_PROTO, "step: %zu numbers are no runs of rows", m->n_runs);
    s->n_rows = 0;
    for (size_t i = 0; i < m->n_runs; i += RUN_FIELDS) {
        uint32_t slot = m->runs[i], pos = m->runs[i + 1], count = m->runs[i + 2];

        if (slot >= WIRE_SLOTS_MAX)
            return err_set(et, ERR_LIMIT, "step: row in slot %u, at most %d", slot,
                           WIRE_SLOTS_MAX - 1);
        if (count > (uint32_t)(WIRE_ROWS_MAX - s->n_rows))
            return err_set(et, ERR_LIMIT, "step: more than %d rows", WIRE_ROWS_MAX);
        if (count == 0 || pos > INT32_MAX - count)
            return err_set(et, ERR_PROTO, "step: run of %u rows at position %u", count, pos);
        for (uint32_t k = 0; k < count; k++, s->n_rows++) {
            c->slot[s->n_rows] = (int32_t)slot;
            c->pos[s->n_rows] = (int32_t)(pos + k);
        }
        if (goes_on(c->slot, c->pos, s->n_rows - (int)count))
            return err_set(et, ERR_PROTO, "step: the run at position %u goes on from another", pos);
    }
    s->slot = c->slot;
    s->pos = c->pos;
    return ERR_NONE;
}

static enum err unpack_tokens(struct step_codec *c, const Lingua__Wire__Step *m, struct step *s,
                              struct err_text *et)
{
    s->token = NULL;
    if (m->n_tokens == 0)
        return ERR_NONE;
    if (m->n_tokens != (size_t)s->n_rows)
        return err_set(et, ERR_PROTO, "step: %zu tokens for %d rows", m->n_tokens, s->n_rows);
    for (int i = 0; i < s->n_rows; i++) {
        if (m->tokens[i] > INT32_MAX)
            return err_set(et, ERR_PROTO, "step: token %u", m->tokens[i]);
        c->token[i] = (int32_t)m->tokens[i];
    }
    s->token = c->token;
    return ERR_NONE;
}

static enum err unpack_tags(struct step_codec *c, const Lingua__Wire__Step *m, struct step *s,
                            struct err_text *et)
{
    size_t n = m->n_runs / RUN_FIELDS + (size_t)s->n_rows;

    s->tag = NULL;
    s->n_tags = 0;
    if (m->n_tags == 0)
        return ERR_NONE;
    if (m->n_tags != n)
        return err_set(et, ERR_PROTO, "step: %zu tags where %zu are due", m->n_tags, n);
    memcpy(c->tag, m->tags, n * sizeof *c->tag);
    s->tag = c->tag;
    s->n_tags = (int)n;
    return ERR_NONE;
}

static enum err unpack_want(struct step_codec *c, const Lingua__Wire__Step *m, struct step *s,
                            struct err_text *et)
{
    uint8_t kind = m->wants ? STEP_WANT_HIDDEN : STEP_WANT_LOGITS;
    int row = 0;

    memset(c->want, 0, sizeof c->want);
    s->n_want = 0;
    if (m->wants > 1)
        return err_set(et, ERR_PROTO, "step: its rows want %u, which is unknown", m->wants);
    for (size_t i = 0; i < m->n_want; i++) {
        if (m->want[i] > (uint32_t)(s->n_rows - row))
            return err_set(et, ERR_PROTO, "step: wanted rows beyond its %d", s->n_rows);
        if (i % 2) {
            memset(c->want + row, kind, m->want[i]);
            s->n_want += (int)m->want[i];
        }
        row += (int)m->want[i];
    }
    s->want = c->want;
    return ERR_NONE;
}

static enum err check_payload(const struct frame *f, const char *what, size_t bytes,
                              struct err_text *et)
{
    CHECK((uintptr_t)f->payload % sizeof(float) == 0);
    if (f->payload_len != bytes)
        return err_set(et, ERR_PROTO, "%s: payload of %zu bytes where %zu are due", what,
                       f->payload_len, bytes);
    return ERR_NONE;
}

static enum err unpack_tensors(const struct frame *f, const Lingua__Wire__Step *m, struct step *s,
                               struct err_text *et)
{
    struct step_tensors *t = &s->in;
    const float *data = (const float *)(const void *)f->payload;
    enum err e;

    if (m->n_widths > WIRE_TENSORS_MAX)
        return err_set(et, ERR_LIMIT, "step: %zu tensors, at most %d", m->n_widths,
                       WIRE_TENSORS_MAX);
    if (m->tensor_rows > (uint32_t)s->n_rows || (m->n_widths == 0 && m->tensor_rows))
        return err_set(et, ERR_PROTO, "step: %zu tensors of %u rows for %d rows", m->n_widths,
                       m->tensor_rows, s->n_rows);
    if (s->code && m->n_widths)
        return err_set(et, ERR_PROTO, "step: failed, and carries tensors");
    memset(t, 0, sizeof *t);
    t->n = (int)m->n_widths;
    t->n_rows = (int)m->tensor_rows;
    for (int i = 0; i < t->n; i++) {
        if (m->widths[i] == 0 || m->widths[i] > WIRE_WIDTH_MAX)
            return err_set(et, ERR_LIMIT, "step: tensor of width %u, at most %d", m->widths[i],
                           WIRE_WIDTH_MAX);
        t->width[i] = (int)m->widths[i];
    }
    e = check_payload(f, "step", step_payload_bytes(t), et);
    if (e)
        return e;
    for (int i = 0; i < t->n; i++) {
        t->data[i] = data;
        data += (size_t)t->n_rows * (size_t)t->width[i];
    }
    return ERR_NONE;
}

static enum err unpack_code(const char *what, uint32_t code, const ProtobufCBinaryData *reason,
                            enum err *out, struct err_text *text, struct err_text *et)
{
    int known;

    *out = wire_code_back(code, &known);
    if (!known)
        return err_set(et, ERR_PROTO, "%s: unknown code %u", what, code);
    if (reason->len >= ERR_TEXT_MAX)
        return err_set(et, ERR_LIMIT, "%s: a reason of %zu bytes", what, reason->len);
    wire_text(text, reason->data, reason->len);
    return ERR_NONE;
}

static enum err unpack_step(struct step_codec *c, const struct frame *f,
                            const Lingua__Wire__Step *m, struct step *s, struct err_text *et)
{
    enum err e;

    if (m->number == 0 || m->stage >= WIRE_STAGES_MAX)
        return err_set(et, ERR_PROTO, "step %llu for stage %u", (unsigned long long)m->number,
                       m->stage);
    s->number = m->number;
    s->epoch = m->epoch;
    s->stage = (int)m->stage;
    e = unpack_code("step", m->code, &m->reason, &s->code, &s->reason, et);
    if (!e)
        e = unpack_ops(c, m, s, et);
    if (!e)
        e = unpack_runs(c, m, s, et);
    if (!e)
        e = unpack_tokens(c, m, s, et);
    if (!e)
        e = unpack_tags(c, m, s, et);
    if (!e)
        e = unpack_want(c, m, s, et);
    if (!e)
        e = unpack_tensors(f, m, s, et);
    return e;
}

enum err step_decode(struct step_codec *c, const struct frame *f, struct step *s,
                     struct err_text *et)
{
    Lingua__Wire__Step *m;

    if (f->type != FRAME_STEP || f->header_len > WIRE_STEP_HEADER_MAX)
        return err_set(et, ERR_PROTO, "frame of type %d is no step", f->type);
    arena_reset(&c->arena, f->header_len);
    m = lingua__wire__step__unpack(&c->arena.allocator, f->header_len, f->header);
    if (!m)
        return err_set(et, ERR_PROTO, "step: header of %zu bytes makes no sense", f->header_len);
    return unpack_step(c, f, m, s, et);
}

enum err result_decode(struct step_codec *c, const struct frame *f, struct result *r,
                       struct err_text *et)
{
    Lingua__Wire__Result *m;
    enum err e;

    if (f->type != FRAME_RESULT || f->header_len > WIRE_STEP_HEADER_MAX)
        return err_set(et, ERR_PROTO, "frame of type %d is no result", f->type);
    arena_reset(&c->arena, f->header_len);
    m = lingua__wire__result__unpack(&c->arena.allocator, f->header_len, f->header);
    if (!m)
        return err_set(et, ERR_PROTO, "result: header of %zu bytes makes no sense", f->header_len);
    if (m->number == 0 || m->kind > 1)
        return err_set(et, ERR_PROTO, "result %llu of kind %u", (unsigned long long)m->number,
                       m->kind);
    r->number = m->number;
    r->epoch = m->epoch;
    r->kind = m->kind ? STEP_WANT_HIDDEN : STEP_WANT_LOGITS;
    e = unpack_code("result", m->code, &m->reason, &r->code, &r->reason, et);
    if (e)
        return e;
    if (m->rows > WIRE_ROWS_MAX || m->width > WIRE_WIDTH_MAX)
        return err_set(et, ERR_LIMIT, "result: %u rows of width %u", m->rows, m->width);
    if (r->code ? m->rows || m->width : m->width == 0)
        return err_set(et, ERR_PROTO, "result: code %u and width %u", m->code, m->width);
    e = check_payload(f, "result", (size_t)m->rows * m->width * sizeof(float), et);
    r->n_rows = (int)m->rows;
    r->width = (int)m->width;
    r->logits = (const float *)(const void *)f->payload;
    return e;
}
