/* How a token reaches `lingua join`: typed at a prompt, from a file, the environment, standard
 * input or, if it must be, an argument, which everyone on the machine could read (so it is wiped at
 * once). What a QR code holds, "lingua:TOKEN@HOST:PORT", is taken wherever a token is. A token is
 * never repeated to anyone, and every buffer that held one is wiped. */
#ifndef LINGUA_CLI_INVITATION_H
#define LINGUA_CLI_INVITATION_H

#include <stdbool.h>

#include "base/err.h"
#include "link/token.h"

enum { INVITATION_ADDRESS_MAX = 128 };

struct invitation {
    bool has_token;
    struct token token;
    char address[INVITATION_ADDRESS_MAX]; /* "" when it names none */
};

/* Blanks around it are fine. ERR_INPUT says what is wrong with it, never what it is. */
MUST_CHECK enum err invitation_parse(const char *text, struct invitation *out, struct err_text *et);
/* Whether an argument must be meant as one, mistyped or not: no host is called like that. */
bool invitation_is_like(const char *text);
void invitation_wipe(struct invitation *inv);

/* Each returns -1 when it has one, or the exit status after saying why not. */
int invitation_from_argument(char *argument, struct invitation *out); /* wiped and warned about */
int invitation_from_file(const char *path, struct invitation *out);
int invitation_from_environment(struct invitation *out); /* 0, and no token: there is none */
int invitation_from_stdin(struct invitation *out);       /* asks, when that is a terminal */

/* A line a person types at the prompt, without blanks around it; false at the end of input. */
bool ask_line(const char *prompt, char *buf, int cap);

#endif
