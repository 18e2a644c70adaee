#define _GNU_SOURCE
#include "head/qr.h"

#include <openssl/crypto.h>
#include <qrencode.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"

struct qr *qr_of(const char *text)
{
    QRcode *code = QRcode_encodeString8bit(text, 0, QR_ECLEVEL_L);
    struct qr *qr;
    size_t n;

    if (!code)
        return NULL;
    n = (size_t)code->width * (size_t)code->width;
    qr = mem_zalloc(1, sizeof *qr);
    qr->width = code->width;
    qr->module = mem_alloc(n);
    for (size_t i = 0; i < n; i++)
        qr->module[i] = code->data[i] & 1;
    OPENSSL_cleanse(code->data, n);
    QRcode_free(code);
    return qr;
}

struct qr *qr_of_invitation(const char *token, const char *address)
{
    char *text = mem_printf("lingua:%s%s%s", token, *address ? "@" : "", address), *to = text;
    struct qr *qr;

    /* Without its dashes the token makes a smaller code. Those of a host's name stay. */
    for (const char *from = text, *end = text + strlen("lingua:") + strlen(token); *from; from++)
        if (*from != '-' || from >= end)
            *to++ = *from;
    *to = '\0';
    qr = qr_of(text);
    OPENSSL_cleanse(text, strlen(text));
    free(text);
    return qr;
}

bool qr_is_dark(const struct qr *qr, int x, int y)
{
    return x >= 0 && y >= 0 && x < qr->width && y < qr->width && qr->module[y * qr->width + x];
}

void qr_free(struct qr *qr)
{
    if (!qr)
        return;
    OPENSSL_cleanse(qr->module, (size_t)qr->width * (size_t)qr->width);
    free(qr->module);
    free(qr);
}
