#include "link/roster.h"

#include <openssl/crypto.h>
#include <openssl/x509.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/check.h"
#include "base/mem.h"
#include "link/state_file.h"

/* The file, all numbers little-endian:
 *
 *     offset 0   16 bytes "lingua roster 1\n"
 *           16   u32 c, then c bytes: the head's certificate (DER)
 *                u32 b, then b bytes: the body as it was signed (wire/cluster.h)
 *                64 bytes: the head's Ed25519 signature over the body
 *
 * The certificate is there so that a member can check the signature before it has met its head
 * again. Whose certificate counts, it knows by the key id. */
enum {
    MAGIC_BYTES = 16,
    CERTIFICATE_MAX = 2048,
    FILE_MAX = MAGIC_BYTES + 4 + CERTIFICATE_MAX + 4 + WIRE_ROSTER_BODY_MAX + SIGNATURE_BYTES,
};

static const char magic[MAGIC_BYTES + 1] = "lingua roster 1\n", file_name[] = "roster";

struct roster {
    char *folder;
    const struct identity *id; /* the head's; NULL on a member */
    struct key_id head;
    X509 *certificate; /* the head's; NULL on a member that has no roster yet */
    struct wire_roster_body body;
    uint8_t signed_body[WIRE_ROSTER_BODY_MAX];
    size_t signed_len;
    uint8_t signature[SIGNATURE_BYTES];
};

/* ---- the file ---- */

static uint8_t *put_block(uint8_t *p, const void *bytes, size_t len)
{
    for (int i = 0; i < 4; i++)
        *p++ = (uint8_t)(len >> 8 * i);
    memcpy(p, bytes, len);
    return p + len;
}

static enum err save(const struct roster *r, struct err_text *et)
{
    uint8_t *der = NULL, *file = mem_alloc(FILE_MAX), *p = file;
    int der_len = i2d_X509(r->certificate, &der);
    struct state_folder f;
    enum err e;

    CHECK(der_len > 0 && der_len <= CERTIFICATE_MAX);
    memcpy(p, magic, MAGIC_BYTES);
    p = put_block(p + MAGIC_BYTES, der, (size_t)der_len);
    p = put_block(p, r->signed_body, r->signed_len);
    memcpy(p, r->signature, SIGNATURE_BYTES);
    p += SIGNATURE_BYTES;
    OPENSSL_free(der);
    e = state_folder_open(&f, r->folder, et);
    if (!e) {
        e = state_file_write(&f, file_name, file, (size_t)(p - file), et);
        state_folder_close(&f);
    }
    free(file);
    return e;
}

struct bytes {
    const uint8_t *p;
    size_t len;
};

/* The next block of in; false when it is longer than max or than what is there. */
static bool take_block(struct bytes *in, size_t max, struct bytes *out)
{
    size_t len;

    if (in->len < 4)
        return false;
    len =
        (size_t)in->p[0] | (size_t)in->p[1] << 8 | (size_t)in->p[2] << 16 | (size_t)in->p[3] << 24;
    if (len > max || len > in->len - 4)
        return false;
    *out = (struct bytes){in->p + 4, len};
    in->p += 4 + len;
    in->len -= 4 + len;
    return true;
}

static X509 *read_certificate(struct bytes der)
{
    const unsigned char *p = der.p;
    X509 *x = d2i_X509(NULL, &p, (long)der.len);

    if (x && p != der.p + der.len) {
        X509_free(x);
        x = NULL;
    }
    return x;
}

/* Whether these are the words of our head, and what they say. */
static enum err judge(const struct roster *r, X509 *certificate, struct bytes body,
                      struct bytes signature, struct wire_roster_body *out, struct err_text *et)
{
    struct key_id signer;
    enum err e;

    if (i2d_X509(certificate, NULL) > CERTIFICATE_MAX)
        return err_set(et, ERR_PROTO, "roster: a certificate larger than any of ours");
    key_id_of(certificate, &signer);
    if (!key_id_equal(&signer, &r->head))
        return err_set(et, ERR_PROTO, "roster: signed by another head");
    if (!identity_verify(certificate, body.p, body.len, signature.p, signature.len))
        return err_set(et, ERR_PROTO, "roster: the signature does not fit");
    e = wire_roster_body_decode(body.p, body.len, out, et);
    if (e)
        return ERR_PROTO;
    if (memcmp(out->head, r->head.bytes, KEY_ID_BYTES) != 0)
        return err_set(et, ERR_PROTO, "roster: of another head");
    return ERR_NONE;
}

/* Makes them the roster's own. */
static void install(struct roster *r, X509 *certificate, struct bytes body,
                    const uint8_t *signature, const struct wire_roster_body *m)
{
    X509 *old = r->certificate;

    CHECK(X509_up_ref(certificate) == 1);
    r->certificate = certificate;
    X509_free(old);
    memmove(r->signed_body, body.p, body.len);
    r->signed_len = body.len;
    memmove(r->signature, signature, SIGNATURE_BYTES);
    r->body = *m;
}

static enum err parse(struct roster *r, struct bytes in, struct err_text *et)
{
    struct bytes der, body;
    struct wire_roster_body m;
    X509 *certificate;
    enum err e;

    if (in.len < MAGIC_BYTES || memcmp(in.p, magic, MAGIC_BYTES) != 0)
        return err_set(et, ERR_INPUT, "no roster");
    in.p += MAGIC_BYTES;
    in.len -= MAGIC_BYTES;
    if (!take_block(&in, CERTIFICATE_MAX, &der) || !take_block(&in, WIRE_ROSTER_BODY_MAX, &body) ||
        in.len != SIGNATURE_BYTES)
        return err_set(et, ERR_INPUT, "cut short or damaged");
    certificate = read_certificate(der);
    if (!certificate)
        return err_set(et, ERR_INPUT, "damaged certificate");
    e = judge(r, certificate, body, in, &m, et);
    if (!e)
        install(r, certificate, body, in.p, &m);
    X509_free(certificate);
    return e;
}

/* What to do about it is for the caller to add: it differs between head and member. */
static enum err load(struct roster *r, struct err_text *et)
{
    struct state_folder f;
    uint8_t *bytes = NULL;
    size_t len = 0;
    enum err e = state_folder_open(&f, r->folder, et);

    if (e)
        return e;
    e = state_file_read(&f, file_name, FILE_MAX, &bytes, &len, et);
    state_folder_close(&f);
    if (!e && bytes && parse(r, (struct bytes){bytes, len}, et)) {
        struct err_text why = et ? *et : (struct err_text){""};

        e = err_set(et, ERR_INPUT, "%s/%s: %.120s; %s", r->folder, file_name, why.text,
                    r->id ? "put back a copy of it, or remove it and pair every device again"
                          : "remove it, and the head will send it again");
    }
    free(bytes);
    return e;
}

/* ---- both sides ---- */

static struct roster *roster_new(const char *folder, const struct key_id *head)
{
    struct roster *r = mem_zalloc(1, sizeof *r);

    r->folder = mem_strdup(folder);
    r->head = *head;
    memcpy(r->body.head, head->bytes, KEY_ID_BYTES);
    return r;
}

void roster_close(struct roster *r)
{
    if (!r)
        return;
    X509_free(r->certificate);
    free(r->folder);
    free(r);
}

const struct wire_roster_body *roster_body(const struct roster *r)
{
    return &r->body;
}

uint64_t roster_version(const struct roster *r)
{
    return r->body.version;
}

static int place_of_key(const struct wire_roster_body *b, const uint8_t key[WIRE_KEY_BYTES])
{
    for (int i = 0; i < b->n; i++)
        if (memcmp(b->member[i].key, key, WIRE_KEY_BYTES) == 0)
            return i;
    return -1;
}

static int place_of_name(const struct wire_roster_body *b, const char *name)
{
    for (int i = 0; i < b->n; i++)
        if (strcmp(b->member[i].name, name) == 0)
            return i;
    return -1;
}

const struct wire_member *roster_find(const struct roster *r, const struct key_id *key)
{
    int i = place_of_key(&r->body, key->bytes);

    return i < 0 ? NULL : &r->body.member[i];
}

const struct wire_member *roster_named(const struct roster *r, const char *name)
{
    int i = place_of_name(&r->body, name);

    return i < 0 ? NULL : &r->body.member[i];
}

struct wire_roster roster_signed(const struct roster *r)
{
    return (struct wire_roster){.body = r->signed_body,
                                .body_len = r->signed_len,
                                .signature = r->signature,
                                .signature_len = SIGNATURE_BYTES};
}

/* ---- the head ---- */

/* Signs b as the next version and writes it; r is as before when that fails. */
static enum err publish(struct roster *r, struct wire_roster_body *b, struct err_text *et)
{
    uint8_t bytes[WIRE_ROSTER_BODY_MAX], signature[SIGNATURE_BYTES];
    struct roster *old;
    size_t len;
    enum err e;

    b->version = r->body.version + 1;
    /* Read as a member will read it, so that a name nobody could read is noticed here. */
    len = wire_roster_body_encode(b, bytes);
    e = wire_roster_body_decode(bytes, len, b, et);
    if (e)
        return ERR_INPUT;
    len = wire_roster_body_encode(b, bytes);
    identity_sign(r->id, bytes, len, signature);
    old = mem_alloc(sizeof *old);
    *old = *r;
    if (old->certificate)
        CHECK(X509_up_ref(old->certificate) == 1);
    install(r, identity_certificate(r->id), (struct bytes){bytes, len}, signature, b);
    e = save(r, et);
    if (e) {
        X509_free(r->certificate);
        *r = *old;
    } else {
        X509_free(old->certificate);
    }
    free(old);
    return e;
}

/* wish, or wish-2 and so on when another member than the one at place self has it. A name of
 * several bytes per character is cut between characters. */
static void free_name(const struct wire_roster_body *b, int self, const char *wish,
                      char out[WIRE_NAME_MAX])
{
    char suffix[16] = "";

    if (!*wish)
        wish = "device";
    for (int i = 2;; i++) {
        size_t keep = strlen(wish), most = WIRE_NAME_MAX - 1 - strlen(suffix);
        int place;

        if (keep > most) {
            keep = most;
            while (keep && ((unsigned char)wish[keep] & 0xc0) == 0x80)
                keep--;
        }
        snprintf(out, WIRE_NAME_MAX, "%.*s%s", (int)keep, wish, suffix);
        place = place_of_name(b, out);
        if (place < 0 || place == self)
            return;
        snprintf(suffix, sizeof suffix, "-%d", i);
    }
}

enum err roster_open_head(const char *folder, const struct identity *id, const char *name,
                          struct roster **out, struct err_text *et)
{
    struct roster *r = roster_new(folder, identity_key(id));
    struct wire_roster_body b;
    enum err e;
    int self;

    r->id = id;
    *out = NULL;
    e = load(r, et);
    if (!e) {
        char given[WIRE_NAME_MAX];

        b = r->body;
        self = place_of_key(&b, r->head.bytes);
        free_name(&b, self, name, given);
        if (self < 0) {
            CHECK(b.n == 0); /* we never signed one without ourselves */
            self = b.n++;
            memcpy(b.member[self].key, r->head.bytes, WIRE_KEY_BYTES);
            b.member[self].mine = true;
        }
        if (r->body.version == 0 || strcmp(b.member[self].name, given) != 0) {
            memcpy(b.member[self].name, given, sizeof given);
            e = publish(r, &b, et);
        }
    }
    if (e)
        roster_close(r);
    else
        *out = r;
    return e;
}

enum err roster_add(struct roster *r, const struct key_id *key, const char *name,
                    char name_given[WIRE_NAME_MAX], struct err_text *et)
{
    struct wire_roster_body b = r->body;
    int self = place_of_key(&b, key->bytes);
    char given[WIRE_NAME_MAX];
    enum err e;

    CHECK(r->id);
    free_name(&b, self, name, given);
    if (self < 0 && b.n == WIRE_MEMBERS_MAX)
        return err_set(et, ERR_LIMIT,
                       "the cluster has %d devices, more it cannot have; revoke one that is gone",
                       WIRE_MEMBERS_MAX);
    if (self < 0) {
        self = b.n++;
        memset(&b.member[self], 0, sizeof b.member[self]);
        memcpy(b.member[self].key, key->bytes, WIRE_KEY_BYTES);
    }
    memcpy(b.member[self].name, given, sizeof given);
    e = publish(r, &b, et);
    if (!e && name_given)
        memcpy(name_given, r->body.member[self].name, WIRE_NAME_MAX);
    return e;
}

static enum err find_named(const struct roster *r, const char *name, int *place,
                           struct err_text *et)
{
    *place = place_of_name(&r->body, name);
    if (*place < 0)
        return err_set(et, ERR_INPUT, "no device of this cluster is named \"%s\"", name);
    return ERR_NONE;
}

enum err roster_revoke(struct roster *r, const char *name, struct key_id *key, struct err_text *et)
{
    struct wire_roster_body b = r->body;
    int place;
    enum err e = find_named(r, name, &place, et);

    CHECK(r->id);
    if (e)
        return e;
    if (memcmp(b.member[place].key, r->head.bytes, WIRE_KEY_BYTES) == 0)
        return err_set(et, ERR_INPUT, "\"%s\" is the head itself, which cannot be revoked", name);
    memcpy(key->bytes, b.member[place].key, KEY_ID_BYTES);
    b.n--;
    memmove(&b.member[place], &b.member[place + 1], (size_t)(b.n - place) * sizeof b.member[0]);
    return publish(r, &b, et);
}

enum err roster_mine(struct roster *r, const char *name, bool mine, struct err_text *et)
{
    struct wire_roster_body b = r->body;
    int place;
    enum err e = find_named(r, name, &place, et);

    CHECK(r->id);
    if (e || b.member[place].mine == mine)
        return e;
    b.member[place].mine = mine;
    return publish(r, &b, et);
}

/* ---- a member ---- */

enum err roster_open_member(const char *folder, const struct key_id *head, struct roster **out,
                            struct err_text *et)
{
    struct roster *r = roster_new(folder, head);
    enum err e = load(r, et);

    *out = NULL;
    if (e)
        roster_close(r);
    else
        *out = r;
    return e;
}

enum err roster_take(struct roster *r, const struct wire_roster *w, X509 *head_certificate,
                     struct err_text *et)
{
    struct bytes body = {w->body, w->body_len}, signature = {w->signature, w->signature_len};
    struct wire_roster_body m;
    enum err e;

    CHECK(!r->id);
    if (body.len > WIRE_ROSTER_BODY_MAX)
        return err_set(et, ERR_PROTO, "roster: %zu bytes", body.len);
    e = judge(r, head_certificate, body, signature, &m, et);
    if (e)
        return e;
    if (m.version < r->body.version)
        return err_set(et, ERR_PROTO,
                       "roster: version %llu is older than %llu, which this device has",
                       (unsigned long long)m.version, (unsigned long long)r->body.version);
    if (m.version == r->body.version)
        return ERR_NONE;
    /* In force even if the disk is full: a device it revokes is to stay out. */
    install(r, head_certificate, body, signature.p, &m);
    e = save(r, et);
    return e ? err_wrap(et, e, "the new roster counts, but could not be kept") : ERR_NONE;
}
