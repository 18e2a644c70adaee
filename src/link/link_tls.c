#include "link/link_impl.h"

#include <errno.h>
#include <event2/buffer.h>
#include <event2/bufferevent_ssl.h>
#include <netinet/tcp.h>
#include <openssl/err.h>
#include <openssl/x509.h>
#include <stdio.h>
#include <string.h>

#include "base/check.h"

/* A certificate of ours has about 300 bytes. */
enum { CERTIFICATE_MAX = 2048 };

/* Whether the far end's certificate is one we can use at all: a key id is made of it later, and
 * names, dates and who signed it mean nothing (identity.h). */
static bool usable(X509 *x)
{
    EVP_PKEY *key = x ? X509_get0_pubkey(x) : NULL;

    return key && EVP_PKEY_get_id(key) == EVP_PKEY_ED25519 && i2d_X509(x, NULL) > 0 &&
           i2d_X509(x, NULL) <= CERTIFICATE_MAX;
}

#ifndef LINGUA_BENCH_PLAINTEXT

static const char ciphers[] = "TLS_AES_128_GCM_SHA256:TLS_CHACHA20_POLY1305_SHA256:"
                              "TLS_AES_256_GCM_SHA384";
static const char export_label[] = "EXPORTER-lingua-link";

/* Stands where OpenSSL would look for authorities; the handshake itself proves the key. */
static int verify(X509_STORE_CTX *store, void *user)
{
    if (usable(X509_STORE_CTX_get0_cert(store)))
        return 1;
    X509_STORE_CTX_set_error(store, X509_V_ERR_CERT_REJECTED);
    return 0;
}

enum err tls_open(struct hub *h, struct err_text *et)
{
    SSL_CTX *c = h->tls = SSL_CTX_new(TLS_method());

    if (!c || SSL_CTX_set_min_proto_version(c, TLS1_3_VERSION) != 1 ||
        SSL_CTX_set_max_proto_version(c, TLS1_3_VERSION) != 1 ||
        SSL_CTX_set_ciphersuites(c, ciphers) != 1 || SSL_CTX_set1_sigalgs_list(c, "ed25519") != 1 ||
        SSL_CTX_use_certificate(c, identity_certificate(h->identity)) != 1 ||
        SSL_CTX_use_PrivateKey(c, identity_private_key(h->identity)) != 1)
        return err_set(et, ERR_UNSUPPORTED, "OpenSSL cannot do TLS 1.3 with Ed25519 here: %s",
                       ERR_reason_error_string(ERR_get_error()));
    /* No way back in without being judged: a resumed session would skip `verify`. */
    SSL_CTX_set_options(c, SSL_OP_NO_TICKET);
    CHECK(SSL_CTX_set_num_tickets(c, 0) == 1);
    SSL_CTX_set_session_cache_mode(c, SSL_SESS_CACHE_OFF);
    SSL_CTX_set_max_early_data(c, 0);
    SSL_CTX_set_max_cert_list(c, 2 * CERTIFICATE_MAX);
    SSL_CTX_set_verify(c, SSL_VERIFY_PEER | SSL_VERIFY_FAIL_IF_NO_PEER_CERT, NULL);
    SSL_CTX_set_cert_verify_callback(c, verify, NULL);
    return ERR_NONE;
}

void tls_close(struct hub *h)
{
    SSL_CTX_free(h->tls);
}

void tls_start(struct link *l, evutil_socket_t fd)
{
    l->ssl = SSL_new(l->hub->tls);
    CHECK(l->ssl);
    /* Deferred: what came before an end is read before the end is told. */
    l->bev = bufferevent_openssl_socket_new(l->hub->base, fd, l->ssl,
                                            l->dialled ? BUFFEREVENT_SSL_CONNECTING
                                                       : BUFFEREVENT_SSL_ACCEPTING,
                                            BEV_OPT_CLOSE_ON_FREE | BEV_OPT_DEFER_CALLBACKS);
    CHECK(l->bev);
}

bool tls_finished(struct link *l)
{
    l->certificate = SSL_get1_peer_certificate(l->ssl);
    CHECK(usable(l->certificate) && SSL_version(l->ssl) == TLS1_3_VERSION);
    key_id_of(l->certificate, &l->peer);
    snprintf(l->security, sizeof l->security, "%s %s, Ed25519", SSL_get_version(l->ssl),
             SSL_CIPHER_get_name(SSL_get_current_cipher(l->ssl)));
    return true;
}

bool tls_read_plain(struct link *l)
{
    return false;
}

void tls_say_goodbye(struct link *l)
{
    if (l->ssl && SSL_is_init_finished(l->ssl) &&
        evbuffer_get_length(bufferevent_get_output(l->bev)) == 0)
        (void)SSL_shutdown(l->ssl);
    ERR_clear_error();
}

void link_exported(const struct link *l, uint8_t out[TOKEN_EXPORT_BYTES])
{
    CHECK(l->ssl && SSL_export_keying_material(l->ssl, out, TOKEN_EXPORT_BYTES, export_label,
                                               sizeof export_label - 1, NULL, 0, 0) == 1);
}

/* OpenSSL's reasons in our words, where ours say more. */
static const char *ssl_words(unsigned long code, bool dialled)
{
    switch (ERR_GET_LIB(code) == ERR_LIB_SSL ? ERR_GET_REASON(code) : 0) {
    case SSL_R_PEER_DID_NOT_RETURN_A_CERTIFICATE:
        return "it showed no certificate";
    case SSL_R_CERTIFICATE_VERIFY_FAILED:
        return "its certificate is none of a lingua device";
    case SSL_R_UNSUPPORTED_PROTOCOL:
    case SSL_R_VERSION_TOO_LOW:
    case SSL_R_TLSV1_ALERT_PROTOCOL_VERSION:
        return "it does not speak TLS 1.3";
    case SSL_R_HTTP_REQUEST:
    case SSL_R_HTTPS_PROXY_REQUEST:
        return "it speaks plain HTTP";
    case SSL_R_WRONG_VERSION_NUMBER:
    case SSL_R_WRONG_SSL_VERSION:
    case SSL_R_UNKNOWN_PROTOCOL:
    case SSL_R_BAD_RECORD_TYPE:
    case SSL_R_RECORD_LENGTH_MISMATCH:
    case SSL_R_PACKET_LENGTH_TOO_LONG:
        return "what it says is not TLS";
    case SSL_R_UNEXPECTED_EOF_WHILE_READING:
        return dialled ? "it closed the connection" : "it left";
    default:
        return NULL;
    }
}

void tls_reason(struct link *l, struct err_text *et)
{
    int saved = EVUTIL_SOCKET_ERROR();
    unsigned long code = l->ssl ? bufferevent_get_openssl_error(l->bev) : 0;
    const char *words = code ? ssl_words(code, l->dialled) : NULL;

    if (ERR_SYSTEM_ERROR(code)) { /* the connection's own, by way of OpenSSL, which has no words */
        saved = ERR_GET_REASON(code);
        code = 0;
    }
    if (words)
        (void)err_set(et, ERR_GONE, "%s", words);
    else if (code)
        (void)err_set(et, ERR_GONE, "TLS: %s", ERR_reason_error_string(code));
    else
        (void)err_set(et, ERR_GONE, "%s", saved ? strerror(saved) : "it left");
}

#else /* A bench build: plain TCP, to measure what TLS costs. Proves nothing to anybody. */

#include <openssl/evp.h>
#include <stdlib.h>

enum err tls_open(struct hub *h, struct err_text *et)
{
    return ERR_NONE;
}

void tls_close(struct hub *h)
{
}

/* The certificate itself and not its key id, because the roster's signature needs it. */
void tls_start(struct link *l, evutil_socket_t fd)
{
    uint8_t *der = NULL;
    int len = i2d_X509(identity_certificate(l->hub->identity), &der);
    uint16_t n = htons((uint16_t)len);

    l->bev =
        bufferevent_socket_new(l->hub->base, fd, BEV_OPT_CLOSE_ON_FREE | BEV_OPT_DEFER_CALLBACKS);
    CHECK(l->bev && len > 0 && len <= CERTIFICATE_MAX);
    CHECK(bufferevent_write(l->bev, &n, sizeof n) == 0);
    CHECK(bufferevent_write(l->bev, der, (size_t)len) == 0);
    l->handed += sizeof n + (size_t)len;
    OPENSSL_free(der);
}

bool tls_read_plain(struct link *l)
{
    struct evbuffer *in = bufferevent_get_input(l->bev);
    size_t have = evbuffer_get_length(in), len;
    const unsigned char *p = have < 2 ? NULL : evbuffer_pullup(in, 2);

    if (!p)
        return false;
    len = (size_t)p[0] << 8 | p[1];
    if (len > CERTIFICATE_MAX) {
        link_fail(l, ERR_PROTO, "this is no bench build");
        return false;
    }
    if (have < 2 + len)
        return false;
    p = evbuffer_pullup(in, (ev_ssize_t)(2 + len)) + 2;
    l->certificate = d2i_X509(NULL, &p, (long)len);
    evbuffer_drain(in, 2 + len);
    l->received += 2 + len;
    return true;
}

bool tls_finished(struct link *l)
{
    if (!usable(l->certificate)) {
        link_fail(l, ERR_PROTO, "its certificate is none of a lingua device");
        return false;
    }
    key_id_of(l->certificate, &l->peer);
    snprintf(l->security, sizeof l->security, "none: bench build");
    return true;
}

void tls_say_goodbye(struct link *l)
{
}

/* Bound to the two keys, as there is no session. */
void link_exported(const struct link *l, uint8_t out[TOKEN_EXPORT_BYTES])
{
    const struct key_id *own = identity_key(l->hub->identity);
    struct key_id both[2] = {l->dialled ? *own : l->peer, l->dialled ? l->peer : *own};
    unsigned n = TOKEN_EXPORT_BYTES;

    CHECK(EVP_Digest(both, sizeof both, out, &n, EVP_sha256(), NULL) == 1);
}

void tls_reason(struct link *l, struct err_text *et)
{
    int saved = EVUTIL_SOCKET_ERROR();

    (void)err_set(et, ERR_GONE, "%s", saved ? strerror(saved) : "it left");
}

#endif
