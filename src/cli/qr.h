/* A QR code in the terminal, drawn with half blocks in black on white of its own, so that it looks
 * the same to a phone's camera in a dark terminal as in a light one. */
#ifndef LINGUA_CLI_QR_H
#define LINGUA_CLI_QR_H

#include <stdbool.h>
#include <stdio.h>

/* Whether stderr is a terminal that can show one. */
bool qr_is_possible(void);
/* false: it does not fit (too long, or the terminal too narrow), and nothing was drawn. */
bool qr_print(const char *text, int columns, FILE *f);
/* What a phone reads instead of a typed token: "lingua:TOKEN@HOST:PORT", drawn where possible. */
void qr_invite(const char *token, const char *address);

#endif
