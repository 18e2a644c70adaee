#include "link/mdns.h"

#include <arpa/inet.h>
#include <string.h>

#include "base/check.h"

enum {
    HEADER_BYTES = 12,
    WIRE_NAME_BYTES = 255, /* of a whole name, RFC 1035 section 2.3.4 */
    LABEL_BYTES = 63,
    JUMPS_MAX = 16, /* pointers within one name; writers need one */
    ADDRESSES_MAX = 16,
    CLASS_IN = 1,
    CLASS_FLUSH = 0x8000, /* in records: this is all there is; in questions: answer me alone */
    TYPE_A = 1,
    TYPE_PTR = 12,
    TYPE_TXT = 16,
    TYPE_SRV = 33,
    TYPE_ANY = 255,
};

/* As on the wire but without pointers: length byte and label, again and again, the root's 0 last.
 * */
struct name {
    uint8_t bytes[WIRE_NAME_BYTES];
    size_t len;
};

struct reader {
    const uint8_t *packet;
    size_t len, at;
};

struct record {
    struct name name;
    int type, class;
    uint32_t ttl_s;
    size_t data, data_end;
};

struct address {
    struct name name;
    uint32_t ip;
};

struct service {
    struct name name, target;
    uint16_t port;
    uint32_t ttl_s;
};

/* A packet's records about heads, before they are put together. */
struct pile {
    struct service services[MDNS_HEADS_MAX];
    struct address addresses[ADDRESSES_MAX];
    int n_services, n_addresses;
};

static const uint8_t service_name[] = "\7_lingua\4_tcp\5local"; /* the string's NUL is the root */

static bool get_u16(struct reader *r, int *out)
{
    if (r->len - r->at < 2)
        return false;
    *out = r->packet[r->at] << 8 | r->packet[r->at + 1];
    r->at += 2;
    return true;
}

static bool get_u32(struct reader *r, uint32_t *out)
{
    int high, low;

    if (!get_u16(r, &high) || !get_u16(r, &low))
        return false;
    *out = (uint32_t)high << 16 | (uint32_t)low;
    return true;
}

/* Every pointer must lead to before the place we came from last, so there is no loop to get into.
 * */
static bool get_name(struct reader *r, struct name *out)
{
    size_t at = r->at, lowest = r->at;
    bool jumped = false;

    out->len = 0;
    for (int jumps = 0;;) {
        size_t n;

        if (at >= r->len)
            return false;
        n = r->packet[at];
        if (n >= 0xc0) {
            size_t to;

            if (r->len - at < 2)
                return false;
            to = (n & 0x3f) << 8 | r->packet[at + 1];
            if (to >= lowest || to < HEADER_BYTES || ++jumps > JUMPS_MAX)
                return false;
            if (!jumped)
                r->at = at + 2;
            jumped = true;
            at = lowest = to;
            continue;
        }
        if (n > LABEL_BYTES || n >= r->len - at || out->len + n + 1 > WIRE_NAME_BYTES)
            return false;
        memcpy(out->bytes + out->len, r->packet + at, n + 1);
        out->len += n + 1;
        at += n + 1;
        if (n == 0)
            break;
    }
    if (!jumped)
        r->at = at;
    return true;
}

static uint8_t lower(uint8_t c)
{
    return c >= 'A' && c <= 'Z' ? c + ('a' - 'A') : c;
}

/* Length bytes are below 64, so folding the case of letters leaves them alone. */
static bool bytes_equal(const uint8_t *a, const uint8_t *b, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (lower(a[i]) != lower(b[i]))
            return false;
    return true;
}

static bool name_equal(const struct name *a, const struct name *b)
{
    return a->len == b->len && bytes_equal(a->bytes, b->bytes, a->len);
}

static bool is_service_type(const struct name *n)
{
    return n->len == sizeof service_name && bytes_equal(n->bytes, service_name, n->len);
}

/* One label in front of the service type. */
static bool is_head(const struct name *n)
{
    size_t label = n->bytes[0];

    return n->len == label + 1 + sizeof service_name && label > 0 &&
           bytes_equal(n->bytes + label + 1, service_name, sizeof service_name);
}

static void head_name(const char *label, struct name *out)
{
    size_t n = strlen(label);

    CHECK(n > 0 && n <= LABEL_BYTES);
    out->bytes[0] = (uint8_t)n;
    memcpy(out->bytes + 1, label, n);
    memcpy(out->bytes + 1 + n, service_name, sizeof service_name);
    out->len = 1 + n + sizeof service_name;
}

/* The code point at s and its length, or 0 where s is no UTF-8 (RFC 3629). */
static size_t utf8_next(const uint8_t *s, size_t n, uint32_t *code)
{
    size_t len = s[0] < 0x80 ? 1 : s[0] < 0xc2 ? 0 : s[0] < 0xe0 ? 2 : s[0] < 0xf0 ? 3 : 4;
    static const uint32_t least[] = {0, 0, 0x80, 0x800, 0x10000};

    if (len == 0 || len > n || s[0] > 0xf4)
        return 0;
    *code = len == 1 ? s[0] : s[0] & (0x7fu >> len);
    for (size_t i = 1; i < len; i++) {
        if ((s[i] & 0xc0) != 0x80)
            return 0;
        *code = *code << 6 | (s[i] & 0x3f);
    }
    if (*code < least[len] || *code > 0x10ffff || (*code >= 0xd800 && *code <= 0xdfff))
        return 0;
    return len;
}

/* Neither control characters nor those that turn the direction of what is printed after them. */
static bool label_fits(const uint8_t *s, size_t n)
{
    if (n == 0 || n > LABEL_BYTES)
        return false;
    while (n) {
        uint32_t c;
        size_t len = utf8_next(s, n, &c);

        if (len == 0 || c < 0x20 || (c >= 0x7f && c < 0xa0) || (c >= 0x200b && c <= 0x200f) ||
            (c >= 0x2028 && c <= 0x202e) || (c >= 0x2060 && c <= 0x206f) || c == 0xfeff)
            return false;
        s += len;
        n -= len;
    }
    return true;
}

bool mdns_name_fits(const char *name)
{
    return label_fits((const uint8_t *)name, strnlen(name, LABEL_BYTES + 1));
}

/* Reads a record and checks the data of those types we go on to use, used or not. */
static bool get_record(struct reader *r, struct record *rec, struct name *target, int *port)
{
    int len, skip;
    struct reader data;

    if (!get_name(r, &rec->name) || !get_u16(r, &rec->type) || !get_u16(r, &rec->class) ||
        !get_u32(r, &rec->ttl_s) || !get_u16(r, &len) || r->len - r->at < (size_t)len)
        return false;
    rec->data = r->at;
    rec->data_end = r->at += (size_t)len;
    data = (struct reader){r->packet, rec->data_end, rec->data};
    switch (rec->type) {
    case TYPE_A:
        return len == 4;
    case TYPE_PTR:
        return get_name(&data, target) && data.at == rec->data_end;
    case TYPE_SRV:
        return get_u16(&data, &skip) && get_u16(&data, &skip) && get_u16(&data, port) &&
               get_name(&data, target) && data.at == rec->data_end;
    default:
        return true;
    }
}

static void pile_add(struct pile *p, const struct reader *r, const struct record *rec,
                     const struct name *target, int port)
{
    if ((rec->class & ~CLASS_FLUSH) != CLASS_IN)
        return;
    if (rec->type == TYPE_SRV && is_head(&rec->name) && p->n_services < MDNS_HEADS_MAX) {
        p->services[p->n_services++] =
            (struct service){rec->name, *target, (uint16_t)port, rec->ttl_s};
    } else if (rec->type == TYPE_A && p->n_addresses < ADDRESSES_MAX) {
        struct address *a = &p->addresses[p->n_addresses++];
        uint32_t ip;

        memcpy(&ip, r->packet + rec->data, sizeof ip); /* four bytes, as get_record saw */
        a->name = rec->name;
        a->ip = ntohl(ip);
    }
}

/* Can a device be dialled there? */
static bool address_fits(uint32_t ip)
{
    uint32_t first = ip >> 24;

    return first != 0 && first < 224;
}

static void pile_sort(const struct pile *p, struct mdns_heard *out)
{
    for (int i = 0; i < p->n_services; i++) {
        const struct service *s = &p->services[i];
        const uint8_t *label = s->name.bytes;

        if (s->port == 0 || !label_fits(label + 1, label[0]))
            continue;
        for (int j = 0; j < p->n_addresses; j++) {
            const struct address *a = &p->addresses[j];
            struct mdns_head *h = &out->heads[out->n];

            if (!name_equal(&a->name, &s->target) || !address_fits(a->ip))
                continue;
            memcpy(h->name, label + 1, label[0]);
            h->name[label[0]] = 0;
            h->address = a->ip;
            h->port = s->port;
            h->ttl_s = s->ttl_s;
            out->n++;
            break;
        }
    }
}

static bool read_questions(struct reader *r, int n, const struct name *mine, struct mdns_heard *out)
{
    for (int i = 0; i < n; i++) {
        struct name name;
        int type, class;

        if (!get_name(r, &name) || !get_u16(r, &type) || !get_u16(r, &class))
            return false;
        if ((class & ~CLASS_FLUSH) != CLASS_IN)
            continue;
        if (is_service_type(&name) && (type == TYPE_PTR || type == TYPE_ANY))
            out->asked = true;
        else if (mine && name_equal(&name, mine) &&
                 (type == TYPE_SRV || type == TYPE_TXT || type == TYPE_A || type == TYPE_ANY))
            out->asked = true;
    }
    return true;
}

enum err mdns_read(const uint8_t *packet, size_t len, const char *mine, struct mdns_heard *out)
{
    struct reader r = {packet, len, 0};
    struct name me = {.len = 0};
    struct pile pile;
    int id, flags, n_questions, n_records[3];
    bool answer;

    memset(out, 0, sizeof *out);
    pile.n_services = pile.n_addresses = 0;
    if (len > MDNS_PACKET_MAX || !get_u16(&r, &id) || !get_u16(&r, &flags) ||
        !get_u16(&r, &n_questions))
        return ERR_PROTO;
    for (int i = 0; i < 3; i++)
        if (!get_u16(&r, &n_records[i]))
            return ERR_PROTO;
    if (mine)
        head_name(mine, &me);
    answer = flags & 0x8000;
    if (!read_questions(&r, n_questions, mine ? &me : NULL, out))
        goto malformed;
    for (int i = 0; i < 3; i++) {
        for (int j = 0; j < n_records[i]; j++) {
            struct record rec;
            struct name target;
            int port = 0;

            if (!get_record(&r, &rec, &target, &port))
                goto malformed;
            /* In a question an answer is one the asker has. RFC 6762 section 7.1. */
            if (answer)
                pile_add(&pile, &r, &rec, &target, port);
            else if (i == 0 && rec.type == TYPE_PTR && mine && is_service_type(&rec.name) &&
                     name_equal(&target, &me) && rec.ttl_s >= MDNS_TTL_S / 2)
                out->suppress = true;
        }
    }
    if (r.at != r.len)
        goto malformed;
    /* Another kind of message than query, or one that reports an error. */
    if (flags & 0x780f) {
        memset(out, 0, sizeof *out);
        return ERR_NONE;
    }
    if (answer)
        out->asked = false;
    pile_sort(&pile, out);
    return ERR_NONE;
malformed:
    memset(out, 0, sizeof *out);
    return ERR_PROTO;
}

struct writer {
    uint8_t *out;
    size_t len;
};

static void put(struct writer *w, const void *bytes, size_t n)
{
    CHECK(n <= MDNS_SENT_MAX - w->len);
    memcpy(w->out + w->len, bytes, n);
    w->len += n;
}

static void put_u16(struct writer *w, unsigned v)
{
    put(w, (uint8_t[]){(uint8_t)(v >> 8), (uint8_t)v}, 2);
}

static void put_u32(struct writer *w, uint32_t v)
{
    put_u16(w, v >> 16);
    put_u16(w, v & 0xffff);
}

static void put_header(struct writer *w, unsigned flags, unsigned questions, unsigned answers)
{
    put_u16(w, 0);
    put_u16(w, flags);
    put_u16(w, questions);
    put_u16(w, answers);
    put_u32(w, 0);
}

/* Names are written whole: our packets stay far below any limit, and no reader stumbles. */
static void put_record(struct writer *w, const struct name *name, int type, unsigned class,
                       uint32_t ttl_s, size_t len)
{
    put(w, name->bytes, name->len);
    put_u16(w, (unsigned)type);
    put_u16(w, class);
    put_u32(w, ttl_s);
    put_u16(w, (unsigned)len);
}

size_t mdns_write_query(uint8_t out[MDNS_SENT_MAX])
{
    struct writer w = {out, 0};

    put_header(&w, 0, 1, 0);
    put(&w, service_name, sizeof service_name);
    put_u16(&w, TYPE_PTR);
    put_u16(&w, CLASS_IN);
    return w.len;
}

size_t mdns_write_head(uint8_t out[MDNS_SENT_MAX], const struct mdns_head *head)
{
    static const char text[] = "\3v=1";
    const unsigned class = CLASS_IN | CLASS_FLUSH;
    struct writer w = {out, 0};
    struct name type, name;

    memcpy(type.bytes, service_name, sizeof service_name);
    type.len = sizeof service_name;
    head_name(head->name, &name);
    put_header(&w, 0x8400, 0, 4); /* an answer, from who knows */
    put_record(&w, &type, TYPE_PTR, CLASS_IN, head->ttl_s, name.len);
    put(&w, name.bytes, name.len);
    put_record(&w, &name, TYPE_SRV, class, head->ttl_s, 6 + name.len);
    put_u32(&w, 0);
    put_u16(&w, head->port);
    put(&w, name.bytes, name.len);
    put_record(&w, &name, TYPE_TXT, class, head->ttl_s, sizeof text - 1);
    put(&w, text, sizeof text - 1);
    put_record(&w, &name, TYPE_A, class, head->ttl_s, 4);
    put_u32(&w, head->address);
    return w.len;
}
