/* A token as a QR code: what a phone reads instead of a typed one. The terminal and the page draw the
 * same one, each in its way. Any thread. */
#ifndef LINGUA_HEAD_QR_H
#define LINGUA_HEAD_QR_H

#include <stdbool.h>
#include <stdint.h>

struct qr {
    int width;       /* modules, without the quiet zone that a camera wants around them (4) */
    uint8_t *module; /* (width, width): 1 is dark */
};

/* Of any text; NULL: it is too long for one. */
struct qr *qr_of(const char *text);
/* Of "lingua:TOKEN@HOST:PORT", which `lingua join` takes; address: "" = none. */
struct qr *qr_of_invitation(const char *token, const char *address);
/* Outside of it everything is light. */
bool qr_is_dark(const struct qr *qr, int x, int y);
void qr_free(struct qr *qr); /* wipes it: it may hold a token; NULL is fine */

#endif
