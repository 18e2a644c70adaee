/* Who a device is: an Ed25519 key and a certificate it signed itself, made at its first start and
 * kept in its state folder (`identity.pem`, mode 0600; a file others can read is refused). A device
 * is known to others by its key id, the SHA-256 of the certificate. Nothing else in the certificate
 * means anything: no name in it, and its dates are not looked at, because a small board has no
 * clock. Immutable after open; any thread. */
#ifndef LINGUA_LINK_IDENTITY_H
#define LINGUA_LINK_IDENTITY_H

#include <openssl/types.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"

enum { KEY_ID_BYTES = 32, KEY_ID_TEXT_MAX = 65, SIGNATURE_BYTES = 64 };

struct key_id {
    uint8_t bytes[KEY_ID_BYTES];
};

struct identity;

/* Reads folder/identity.pem, or makes it (by a temporary file and rename) when it is not there.
 * ERR_FILE; ERR_INPUT when the file is no such thing, or others may read it. */
MUST_CHECK enum err identity_open(const char *folder, struct identity **out, struct err_text *et);
/* One that lives in memory alone, for tests. */
struct identity *identity_new(void);
void identity_close(struct identity *id); /* NULL is fine; wipes the key */

const struct key_id *identity_key(const struct identity *id);
X509 *identity_certificate(const struct identity *id);     /* borrowed */
EVP_PKEY *identity_private_key(const struct identity *id); /* borrowed */

void identity_sign(const struct identity *id, const void *bytes, size_t len,
                   uint8_t signature[SIGNATURE_BYTES]);
/* Whether certificate's key made the signature. */
bool identity_verify(X509 *certificate, const void *bytes, size_t len, const uint8_t *signature,
                     size_t signature_len);

void key_id_of(X509 *certificate, struct key_id *out);
bool key_id_equal(const struct key_id *a, const struct key_id *b);
/* "3f9a:0c41:..." the first 8 bytes, for people */
const char *key_id_short(const struct key_id *k, char buf[KEY_ID_TEXT_MAX]);

#endif
