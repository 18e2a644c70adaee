/* The messages of cluster.h that carry bytes of their own: the roster, traces, weights, commands.
 * What they carry stays where it came: payloads and the roster's body are borrowed. */
#include <string.h>

#include "base/check.h"
#include "cluster.pb-c.h"
#include "wire/cluster.h"
#include "wire/pb.h"

enum { TRACE_FIELDS = WIRE_TRACE_BYTES / 8, FLAG_MINE = 1, KEY_BITS = 3 };

static void finish_with(const ProtobufCMessage *m, enum frame_type type, const uint8_t *payload,
                        size_t payload_len, struct wire_buf *buf, struct frame_out *out)
{
    out->n_payloads = 1;
    out->payload[0] = payload;
    out->payload_len[0] = payload_len;
    pb_finish(m, type, buf->bytes, sizeof buf->bytes, out);
}

static enum err payload_is(const char *what, const struct frame *f, size_t len, struct err_text *et)
{
    if (f->payload_len == len)
        return ERR_NONE;
    return err_set(et, ERR_PROTO, "%s: payload of %zu bytes where %zu are due", what,
                   f->payload_len, len);
}

/* ---- the roster ---- */

void wire_roster_encode(const struct wire_roster *m, struct wire_big_buf *buf,
                        struct frame_out *out)
{
    Lingua__Wire__Roster p = LINGUA__WIRE__ROSTER__INIT;

    CHECK(m->body_len <= WIRE_ROSTER_BODY_MAX && m->signature_len == WIRE_SIGNATURE_BYTES);
    p.body = pb_of(m->body, m->body_len);
    p.signature = pb_of(m->signature, m->signature_len);
    out->n_payloads = 0;
    pb_finish(&p.base, FRAME_ROSTER, buf->bytes, sizeof buf->bytes, out);
}

/* Reads a varint at *at; false when it does not end within 10 bytes and len. */
static bool varint(const uint8_t *bytes, size_t len, size_t *at, uint64_t *v)
{
    *v = 0;
    for (unsigned shift = 0; shift < 70 && *at < len; shift += 7) {
        uint8_t b = bytes[(*at)++];

        *v |= shift < 64 ? (uint64_t)(b & 0x7f) << shift : 0;
        if (b < 0x80)
            return true;
    }
    return false;
}

/* The last field of that number and of type bytes in a message, where it lies: protobuf-c would
 * give a copy. 1 found, 0 not there, -1 the message makes no sense. */
static int find_bytes(const uint8_t *message, size_t len, uint64_t field, const uint8_t **out,
                      size_t *out_len)
{
    int found = 0;

    for (size_t at = 0; at < len;) {
        uint64_t key, n;

        if (!varint(message, len, &at, &key))
            return -1;
        switch (key & ((1u << KEY_BITS) - 1)) {
        case PROTOBUF_C_WIRE_TYPE_VARINT:
            if (!varint(message, len, &at, &n))
                return -1;
            continue;
        case PROTOBUF_C_WIRE_TYPE_64BIT:
            n = 8;
            break;
        case PROTOBUF_C_WIRE_TYPE_32BIT:
            n = 4;
            break;
        case PROTOBUF_C_WIRE_TYPE_LENGTH_PREFIXED:
            if (!varint(message, len, &at, &n))
                return -1;
            if (key >> KEY_BITS == field) {
                *out = message + at;
                *out_len = (size_t)n;
                found = 1;
            }
            break;
        default: /* groups are not in this protocol */
            return -1;
        }
        if (n > len - at)
            return -1;
        at += (size_t)n;
    }
    return found;
}

enum err wire_roster_decode(const struct frame *f, struct wire_roster *m, struct err_text *et)
{
    if (f->type != FRAME_ROSTER || f->header_len > wire_header_max(FRAME_ROSTER) || f->payload_len)
        return err_set(et, ERR_PROTO, "frame of type %d and %zu + %zu bytes is no roster", f->type,
                       f->header_len, f->payload_len);
    if (find_bytes(f->header, f->header_len, 1, &m->body, &m->body_len) != 1 ||
        find_bytes(f->header, f->header_len, 2, &m->signature, &m->signature_len) != 1)
        return err_set(et, ERR_PROTO, "roster: %zu bytes make no sense", f->header_len);
    if (m->body_len > WIRE_ROSTER_BODY_MAX)
        return err_set(et, ERR_LIMIT, "roster: %zu bytes, at most %d", m->body_len,
                       WIRE_ROSTER_BODY_MAX);
    if (m->body_len == 0 || m->signature_len != WIRE_SIGNATURE_BYTES)
        return err_set(et, ERR_PROTO, "roster: %zu bytes with a signature of %zu", m->body_len,
                       m->signature_len);
    return ERR_NONE;
}

size_t wire_roster_body_encode(const struct wire_roster_body *m,
                               uint8_t bytes[WIRE_ROSTER_BODY_MAX])
{
    Lingua__Wire__RosterBody p = LINGUA__WIRE__ROSTER_BODY__INIT;
    Lingua__Wire__RosterMember member[WIRE_MEMBERS_MAX], *members[WIRE_MEMBERS_MAX];

    CHECK(m->n >= 0 && m->n <= WIRE_MEMBERS_MAX);
    p.version = m->version;
    p.head = pb_of(m->head, sizeof m->head);
    for (int i = 0; i < m->n; i++) {
        const struct wire_member *from = &m->member[i];

        lingua__wire__roster_member__init(&member[i]);
        member[i].key = pb_of(from->key, sizeof from->key);
        member[i].name = pb_of_text(from->name, sizeof from->name);
        member[i].flags = from->mine ? FLAG_MINE : 0;
        members[i] = &member[i];
    }
    p.members = members;
    p.n_members = (size_t)m->n;
    CHECK(lingua__wire__roster_body__get_packed_size(&p) <= WIRE_ROSTER_BODY_MAX);
    return lingua__wire__roster_body__pack(&p, bytes);
}

/* Flags of a later version are not ours to judge. */
static enum err body_member(const Lingua__Wire__RosterMember *p, struct wire_roster_body *m,
                            struct err_text *et)
{
    struct wire_member *to = &m->member[m->n];
    enum err e = pb_exact("roster: key", &p->key, to->key, sizeof to->key, et);

    if (!e)
        e = pb_name("roster: name", &p->name, to->name, sizeof to->name, et);
    if (e)
        return e;
    to->mine = p->flags & FLAG_MINE;
    for (int i = 0; i < m->n; i++)
        if (!memcmp(m->member[i].key, to->key, sizeof to->key) ||
            !strcmp(m->member[i].name, to->name))
            return err_set(et, ERR_PROTO, "roster: \"%s\" and \"%s\" share a name or a key",
                           m->member[i].name, to->name);
    m->n++;
    return ERR_NONE;
}

static enum err body_unpack(const Lingua__Wire__RosterBody *p, struct wire_roster_body *m,
                            struct err_text *et)
{
    enum err e;

    if (p->version == 0)
        return err_set(et, ERR_PROTO, "roster: version 0");
    if (p->n_members > WIRE_MEMBERS_MAX)
        return err_set(et, ERR_LIMIT, "roster: %zu members, at most %d", p->n_members,
                       WIRE_MEMBERS_MAX);
    m->version = p->version;
    m->n = 0;
    e = pb_exact("roster: head", &p->head, m->head, sizeof m->head, et);
    for (size_t i = 0; !e && i < p->n_members; i++)
        e = body_member(p->members[i], m, et);
    return e;
}

enum err wire_roster_body_decode(const uint8_t *bytes, size_t len, struct wire_roster_body *m,
                                 struct err_text *et)
{
    struct arena a;
    const Lingua__Wire__RosterBody *p;
    enum err e;

    if (len > WIRE_ROSTER_BODY_MAX)
        return err_set(et, ERR_LIMIT, "roster: %zu bytes, at most %d", len, WIRE_ROSTER_BODY_MAX);
    arena_init(&a, len);
    arena_reset(&a, len);
    p = lingua__wire__roster_body__unpack(&a.allocator, len, bytes);
    e = p ? body_unpack(p, m, et) : err_set(et, ERR_PROTO, "roster: %zu bytes make no sense", len);
    arena_fini(&a);
    return e;
}

/* ---- traces ---- */

void wire_trace_put(uint8_t bytes[WIRE_TRACE_BYTES], const struct wire_trace_record *r)
{
    const uint64_t v[TRACE_FIELDS] = {r->number,   r->stage,    r->rows,   r->arrived_us,
                                      r->begun_us, r->ended_us, r->sent_us};

    for (int i = 0; i < TRACE_FIELDS; i++)
        for (int k = 0; k < 8; k++)
            bytes[8 * i + k] = (uint8_t)(v[i] >> 8 * k);
}

void wire_trace_get(const uint8_t bytes[WIRE_TRACE_BYTES], struct wire_trace_record *r)
{
    uint64_t v[TRACE_FIELDS] = {0};

    for (int i = 0; i < TRACE_FIELDS; i++)
        for (int k = 0; k < 8; k++)
            v[i] |= (uint64_t)bytes[8 * i + k] << 8 * k;
    *r = (struct wire_trace_record){v[0], v[1], v[2], v[3], v[4], v[5], v[6]};
}

void wire_trace_encode(const struct wire_trace *m, struct wire_buf *buf, struct frame_out *out)
{
    Lingua__Wire__Trace p = LINGUA__WIRE__TRACE__INIT;

    CHECK(m->n >= 0 && m->n <= WIRE_TRACE_MAX);
    p.n = (uint32_t)m->n;
    p.epoch = m->epoch;
    finish_with(&p.base, FRAME_TRACE, m->records, (size_t)m->n * WIRE_TRACE_BYTES, buf, out);
}

enum err wire_trace_decode(const struct frame *f, struct wire_trace *m, struct err_text *et)
{
    struct arena a;
    const Lingua__Wire__Trace *p =
        pb_open(f, FRAME_TRACE, &lingua__wire__trace__descriptor, &a, et);
    enum err e;

    if (!p)
        return ERR_PROTO;
    *m = (struct wire_trace){p->epoch, (int)p->n, f->payload};
    if (p->n > WIRE_TRACE_MAX)
        e = err_set(et, ERR_LIMIT, "trace: %u records, at most %d", p->n, WIRE_TRACE_MAX);
    else
        e = payload_is("trace", f, (size_t)p->n * WIRE_TRACE_BYTES, et);
    arena_fini(&a);
    return e;
}

/* ---- weights ---- */

void wire_model_ask_encode(enum frame_type type, const struct wire_model_ask *m,
                           struct wire_buf *buf, struct frame_out *out)
{
    Lingua__Wire__ManifestAsk manifest = LINGUA__WIRE__MANIFEST_ASK__INIT;
    Lingua__Wire__HaveAsk have = LINGUA__WIRE__HAVE_ASK__INIT;

    CHECK(type == FRAME_MANIFEST_ASK || type == FRAME_HAVE_ASK);
    manifest.model = have.model = pb_of(m->model, sizeof m->model);
    pb_finish_small(type == FRAME_MANIFEST_ASK ? &manifest.base : &have.base, type, buf, out);
}

enum err wire_model_ask_decode(const struct frame *f, struct wire_model_ask *m, struct err_text *et)
{
    struct arena a;
    const Lingua__Wire__ManifestAsk *manifest;
    const Lingua__Wire__HaveAsk *have;
    enum err e;

    if (f->type == FRAME_HAVE_ASK) {
        have = pb_open(f, FRAME_HAVE_ASK, &lingua__wire__have_ask__descriptor, &a, et);
        if (!have)
            return ERR_PROTO;
        e = pb_exact("have_ask: model", &have->model, m->model, sizeof m->model, et);
    } else {
        manifest = pb_open(f, FRAME_MANIFEST_ASK, &lingua__wire__manifest_ask__descriptor, &a, et);
        if (!manifest)
            return ERR_PROTO;
        e = pb_exact("manifest_ask: model", &manifest->model, m->model, sizeof m->model, et);
    }
    arena_fini(&a);
    return e;
}

void wire_manifest_encode(const struct wire_manifest *m, struct wire_buf *buf,
                          struct frame_out *out)
{
    Lingua__Wire__Manifest p = LINGUA__WIRE__MANIFEST__INIT;

    p.model = pb_of(m->model, sizeof m->model);
    finish_with(&p.base, FRAME_MANIFEST, m->bytes, m->len, buf, out);
}

enum err wire_manifest_decode(const struct frame *f, struct wire_manifest *m, struct err_text *et)
{
    struct arena a;
    const Lingua__Wire__Manifest *p =
        pb_open(f, FRAME_MANIFEST, &lingua__wire__manifest__descriptor, &a, et);
    enum err e;

    if (!p)
        return ERR_PROTO;
    m->bytes = f->payload;
    m->len = f->payload_len;
    e = pb_exact("manifest: model", &p->model, m->model, sizeof m->model, et);
    arena_fini(&a);
    return e;
}

void wire_have_encode(const struct wire_have *m, struct wire_buf *buf, struct frame_out *out)
{
    Lingua__Wire__Have p = LINGUA__WIRE__HAVE__INIT;

    CHECK(m->n_parts >= 0 && m->n_parts <= WIRE_PARTS_MAX);
    p.model = pb_of(m->model, sizeof m->model);
    p.n_parts = (uint32_t)m->n_parts;
    finish_with(&p.base, FRAME_HAVE, m->bits, (size_t)(m->n_parts + 7) / 8, buf, out);
}

static enum err have_check(const Lingua__Wire__Have *p, const struct frame *f, struct err_text *et)
{
    enum err e;

    if (p->n_parts > WIRE_PARTS_MAX)
        return err_set(et, ERR_LIMIT, "have: %u parts, at most %d", p->n_parts, WIRE_PARTS_MAX);
    e = payload_is("have", f, ((size_t)p->n_parts + 7) / 8, et);
    if (!e && p->n_parts % 8 && f->payload[p->n_parts / 8] >> p->n_parts % 8)
        e = err_set(et, ERR_PROTO, "have: bits past part %u", p->n_parts);
    return e;
}

enum err wire_have_decode(const struct frame *f, struct wire_have *m, struct err_text *et)
{
    struct arena a;
    const Lingua__Wire__Have *p = pb_open(f, FRAME_HAVE, &lingua__wire__have__descriptor, &a, et);
    enum err e;

    if (!p)
        return ERR_PROTO;
    m->n_parts = (int)p->n_parts;
    m->bits = f->payload;
    e = have_check(p, f, et);
    if (!e)
        e = pb_exact("have: model", &p->model, m->model, sizeof m->model, et);
    arena_fini(&a);
    return e;
}

void wire_fetch_encode(const struct wire_fetch *m, struct wire_buf *buf, struct frame_out *out)
{
    Lingua__Wire__Fetch p = LINGUA__WIRE__FETCH__INIT;

    p.model = pb_of(m->model, sizeof m->model);
    p.part = (uint32_t)m->part;
    p.offset = m->offset;
    p.length = (uint32_t)m->length;
    pb_finish_small(&p.base, FRAME_FETCH, buf, out);
}

enum err wire_fetch_decode(const struct frame *f, struct wire_fetch *m, struct err_text *et)
{
    struct arena a;
    const Lingua__Wire__Fetch *p =
        pb_open(f, FRAME_FETCH, &lingua__wire__fetch__descriptor, &a, et);
    enum err e;

    if (!p)
        return ERR_PROTO;
    m->part = (int)p->part;
    m->offset = p->offset;
    m->length = (int)p->length;
    if (p->part >= WIRE_PARTS_MAX || p->offset > PB_BYTES_MAX ||
        !pb_fits(p->length, 1, WIRE_CHUNK_MAX))
        e = err_set(et, ERR_PROTO, "fetch: %u bytes at %llu of part %u", p->length,
                    (unsigned long long)p->offset, p->part);
    else
        e = pb_exact("fetch: model", &p->model, m->model, sizeof m->model, et);
    arena_fini(&a);
    return e;
}

void wire_chunk_encode(const struct wire_chunk *m, struct wire_buf *buf, struct frame_out *out)
{
    Lingua__Wire__Chunk p = LINGUA__WIRE__CHUNK__INIT;

    CHECK(m->code ? m->len == 0 : m->len > 0);
    p.part = (uint32_t)m->part;
    p.offset = m->offset;
    p.code = wire_code(m->code);
    p.text = pb_of_text(m->text.text, sizeof m->text.text);
    finish_with(&p.base, FRAME_CHUNK, m->bytes, m->len, buf, out);
}

enum err wire_chunk_decode(const struct frame *f, struct wire_chunk *m, struct err_text *et)
{
    struct arena a;
    const Lingua__Wire__Chunk *p =
        pb_open(f, FRAME_CHUNK, &lingua__wire__chunk__descriptor, &a, et);
    enum err e;
    int known;

    if (!p)
        return ERR_PROTO;
    m->part = (int)p->part;
    m->offset = p->offset;
    m->code = wire_code_back(p->code, &known);
    m->bytes = f->payload;
    m->len = f->payload_len;
    if (p->part >= WIRE_PARTS_MAX || p->offset > PB_BYTES_MAX || !known ||
        (m->code == ERR_NONE) != (m->len > 0))
        e = err_set(et, ERR_PROTO, "chunk: %zu bytes at %llu of part %u, code %u", m->len,
                    (unsigned long long)p->offset, p->part, p->code);
    else
        e = pb_text("chunk: text", &p->text, m->text.text, sizeof m->text.text, et);
    arena_fini(&a);
    return e;
}

/* ---- commands ---- */

void wire_admin_encode(const struct wire_admin *m, struct wire_buf *buf, struct frame_out *out)
{
    Lingua__Wire__Admin p = LINGUA__WIRE__ADMIN__INIT;

    CHECK(m->len > 0);
    p.number = m->number;
    finish_with(&p.base, FRAME_ADMIN, (const uint8_t *)m->json, m->len, buf, out);
}

enum err wire_admin_decode(const struct frame *f, struct wire_admin *m, struct err_text *et)
{
    struct arena a;
    const Lingua__Wire__Admin *p =
        pb_open(f, FRAME_ADMIN, &lingua__wire__admin__descriptor, &a, et);
    enum err e = ERR_NONE;

    if (!p)
        return ERR_PROTO;
    *m = (struct wire_admin){p->number, (const char *)f->payload, f->payload_len};
    if (m->len == 0)
        e = err_set(et, ERR_PROTO, "admin: nothing in it");
    arena_fini(&a);
    return e;
}
