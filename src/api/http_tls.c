#include <openssl/err.h>
#include <openssl/ssl.h>

#include "api/http_impl.h"

static const char *reason(void)
{
    const char *words = ERR_reason_error_string(ERR_peek_last_error());

    ERR_clear_error();
    return words ? words : "OpenSSL does not say why";
}

enum err http_tls_open(const struct api_opts *opts, SSL_CTX **out, struct err_text *et)
{
    SSL_CTX *c;
    enum err e = ERR_NONE;

    *out = NULL;
    if (!opts->tls_cert && !opts->tls_key)
        return ERR_NONE;
    if (!opts->tls_cert || !opts->tls_key)
        return err_set(et, ERR_INPUT,
                       "HTTPS needs both a certificate and its key: --tls-cert and --tls-key");
    c = SSL_CTX_new(TLS_server_method());
    if (!c || SSL_CTX_set_min_proto_version(c, TLS1_2_VERSION) != 1)
        e = err_set(et, ERR_UNSUPPORTED, "OpenSSL cannot do TLS 1.2 here: %s", reason());
    else if (SSL_CTX_use_certificate_chain_file(c, opts->tls_cert) != 1)
        e = err_set(et, ERR_INPUT, "%s is no certificate in PEM that can be read: %s",
                    opts->tls_cert, reason());
    else if (SSL_CTX_use_PrivateKey_file(c, opts->tls_key, SSL_FILETYPE_PEM) != 1)
        e = err_set(et, ERR_INPUT, "%s is no private key in PEM for %s: %s", opts->tls_key,
                    opts->tls_cert, reason());
    else if (SSL_CTX_check_private_key(c) != 1)
        e = err_set(et, ERR_INPUT, "%s is not the key of %s: %s", opts->tls_key, opts->tls_cert,
                    reason());
    if (e) {
        SSL_CTX_free(c);
        return e;
    }
    SSL_CTX_set_options(c, SSL_OP_NO_RENEGOTIATION | SSL_OP_NO_COMPRESSION);
    *out = c;
    return ERR_NONE;
}
