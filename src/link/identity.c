#include "link/identity.h"

#include <openssl/asn1.h>
#include <openssl/bio.h>
#include <openssl/bn.h>
#include <openssl/crypto.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/rand.h>
#include <openssl/x509.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/check.h"
#include "base/mem.h"
#include "link/state_file.h"

enum { FILE_MAX = 16 << 10, SERIAL_BYTES = 16 };

static const char file_name[] = "identity.pem";

struct identity {
    EVP_PKEY *key;
    X509 *certificate;
    struct key_id id;
};

/* Names and dates mean nothing here (identity.h), but a certificate must have them. */
static X509 *make_certificate(EVP_PKEY *key)
{
    X509 *x = X509_new();
    X509_NAME *name = X509_NAME_new();
    uint8_t serial[SERIAL_BYTES];
    BIGNUM *n;

    CHECK(x && name && RAND_bytes(serial, sizeof serial) == 1);
    serial[0] = (serial[0] & 0x7f) | 0x40; /* positive, and of full length */
    n = BN_bin2bn(serial, sizeof serial, NULL);
    CHECK(n && BN_to_ASN1_INTEGER(n, X509_get_serialNumber(x)));
    CHECK(X509_set_version(x, X509_VERSION_3) == 1);
    CHECK(X509_NAME_add_entry_by_txt(name, "CN", MBSTRING_ASC, (const unsigned char *)"lingua", -1,
                                     -1, 0) == 1);
    CHECK(X509_set_subject_name(x, name) == 1 && X509_set_issuer_name(x, name) == 1);
    CHECK(ASN1_TIME_set_string_X509(X509_getm_notBefore(x), "19700101000000Z") == 1);
    CHECK(ASN1_TIME_set_string_X509(X509_getm_notAfter(x), "99991231235959Z") == 1);
    CHECK(X509_set_pubkey(x, key) == 1);
    CHECK(X509_sign(x, key, NULL) > 0);
    BN_free(n);
    X509_NAME_free(name);
    return x;
}

struct identity *identity_new(void)
{
    struct identity *id = mem_zalloc(1, sizeof *id);

    id->key = EVP_PKEY_Q_keygen(NULL, NULL, "ED25519");
    CHECK(id->key);
    id->certificate = make_certificate(id->key);
    key_id_of(id->certificate, &id->id);
    return id;
}

void identity_close(struct identity *id)
{
    if (!id)
        return;
    EVP_PKEY_free(id->key); /* wipes it */
    X509_free(id->certificate);
    free(id);
}

/* A key file of ours has no password; without this, OpenSSL would ask at the terminal. */
static int no_password(char *buf, int size, int writing, void *user)
{
    return -1;
}

static enum err parse(const uint8_t *bytes, size_t len, struct identity **out)
{
    struct identity *id = mem_zalloc(1, sizeof *id);
    BIO *bio = BIO_new_mem_buf(bytes, (int)len);
    enum err e = ERR_INPUT;

    CHECK(bio);
    id->key = PEM_read_bio_PrivateKey(bio, NULL, no_password, NULL);
    if (id->key && EVP_PKEY_get_id(id->key) == EVP_PKEY_ED25519)
        id->certificate = PEM_read_bio_X509(bio, NULL, no_password, NULL);
    if (id->certificate && X509_check_private_key(id->certificate, id->key) == 1) {
        key_id_of(id->certificate, &id->id);
        *out = id;
        e = ERR_NONE;
    } else {
        identity_close(id);
    }
    BIO_free(bio);
    ERR_clear_error();
    return e;
}

static enum err save(const struct identity *id, const struct state_folder *f, struct err_text *et)
{
    BIO *bio = BIO_new(BIO_s_secmem()); /* wiped when freed */
    char *bytes;
    long len;
    enum err e;

    CHECK(bio && PEM_write_bio_PrivateKey(bio, id->key, NULL, NULL, 0, NULL, NULL) == 1 &&
          PEM_write_bio_X509(bio, id->certificate) == 1);
    len = BIO_get_mem_data(bio, &bytes);
    CHECK(len > 0 && len <= FILE_MAX);
    e = state_file_write(f, file_name, bytes, (size_t)len, et);
    BIO_free(bio);
    return e;
}

enum err identity_open(const char *folder, struct identity **out, struct err_text *et)
{
    struct state_folder f;
    uint8_t *bytes = NULL;
    size_t len = 0;
    enum err e = state_folder_open(&f, folder, et);

    *out = NULL;
    if (e)
        return e;
    e = state_file_read(&f, file_name, FILE_MAX, &bytes, &len, et);
    if (!e && bytes) {
        if (parse(bytes, len, out))
            e = err_set(et, ERR_INPUT,
                        "%s/%s is not a key and its certificate; put back a copy, or remove it and "
                        "pair this device again",
                        folder, file_name);
        OPENSSL_clear_free(bytes, len);
    } else if (!e) {
        *out = identity_new();
        e = save(*out, &f, et);
        if (e) {
            identity_close(*out);
            *out = NULL;
        }
    }
    state_folder_close(&f);
    return e;
}

const struct key_id *identity_key(const struct identity *id)
{
    return &id->id;
}

X509 *identity_certificate(const struct identity *id)
{
    return id->certificate;
}

EVP_PKEY *identity_private_key(const struct identity *id)
{
    return id->key;
}

void identity_sign(const struct identity *id, const void *bytes, size_t len,
                   uint8_t signature[SIGNATURE_BYTES])
{
    size_t n = SIGNATURE_BYTES;
    EVP_MD_CTX *ctx = EVP_MD_CTX_new();

    CHECK(ctx && EVP_DigestSignInit(ctx, NULL, NULL, NULL, id->key) == 1);
    CHECK(EVP_DigestSign(ctx, signature, &n, bytes, len) == 1 && n == SIGNATURE_BYTES);
    EVP_MD_CTX_free(ctx);
}

bool identity_verify(X509 *certificate, const void *bytes, size_t len, const uint8_t *signature,
                     size_t signature_len)
{
    EVP_PKEY *key = X509_get0_pubkey(certificate);
    EVP_MD_CTX *ctx;
    bool good;

    if (!key || EVP_PKEY_get_id(key) != EVP_PKEY_ED25519 || signature_len != SIGNATURE_BYTES)
        return false;
    ctx = EVP_MD_CTX_new();
    CHECK(ctx);
    good = EVP_DigestVerifyInit(ctx, NULL, NULL, NULL, key) == 1 &&
           EVP_DigestVerify(ctx, signature, signature_len, bytes, len) == 1;
    EVP_MD_CTX_free(ctx);
    ERR_clear_error();
    return good;
}

void key_id_of(X509 *certificate, struct key_id *out)
{
    unsigned n = KEY_ID_BYTES;

    CHECK(X509_digest(certificate, EVP_sha256(), out->bytes, &n) == 1 && n == KEY_ID_BYTES);
}

bool key_id_equal(const struct key_id *a, const struct key_id *b)
{
    return CRYPTO_memcmp(a->bytes, b->bytes, KEY_ID_BYTES) == 0;
}

const char *key_id_short(const struct key_id *k, char buf[KEY_ID_TEXT_MAX])
{
    const uint8_t *b = k->bytes;

    snprintf(buf, KEY_ID_TEXT_MAX, "%02x%02x:%02x%02x:%02x%02x:%02x%02x", b[0], b[1], b[2], b[3],
             b[4], b[5], b[6], b[7]);
    return buf;
}
