#include "cli/qr.h"

#include <qrencode.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "base/mem.h"

enum { QUIET = 4, COLUMNS_USUAL = 80 }; /* a camera wants four light modules around it */

bool qr_is_possible(void)
{
    const char *term = getenv("TERM");

    return isatty(STDERR_FILENO) && term && *term && strcmp(term, "dumb") != 0;
}

/* Whether the module is dark; those around the code are light. */
static bool dark(const QRcode *code, int x, int y)
{
    return x >= 0 && y >= 0 && x < code->width && y < code->width &&
           code->data[y * code->width + x] & 1;
}

bool qr_print(const char *text, int columns, FILE *f)
{
    /* The upper half of a character is its foreground, the lower its background. */
    static const char *const halves[2][2] = {{" ", "\u2584"}, {"\u2580", "\u2588"}};
    QRcode *code = QRcode_encodeString8bit(text, 0, QR_ECLEVEL_L);

    if (!code)
        return false;
    if (code->width + 2 * QUIET >= columns) {
        QRcode_free(code);
        return false;
    }
    for (int y = -QUIET; y < code->width + QUIET; y += 2) {
        /* Colours 16 and 231 are the same in every theme; 30 and 47 are not. */
        fputs("\033[38;5;16;48;5;231m", f);
        for (int x = -QUIET; x < code->width + QUIET; x++)
            fputs(halves[dark(code, x, y)][dark(code, x, y + 1)], f);
        fputs("\033[0m\n", f);
    }
    QRcode_free(code);
    return true;
}

void qr_invite(const char *token, const char *address)
{
    char *text = mem_printf("lingua:%s%s%s", token, *address ? "@" : "", address), *to = text;
    struct winsize size = {.ws_col = COLUMNS_USUAL};

    /* Without its dashes the token makes a smaller code. Those of a host's name stay. */
    for (const char *from = text, *end = text + strlen("lingua:") + strlen(token); *from; from++)
        if (*from != '-' || from >= end)
            *to++ = *from;
    *to = '\0';
    if (qr_is_possible()) {
        (void)ioctl(STDERR_FILENO, TIOCGWINSZ, &size);
        (void)qr_print(text, size.ws_col ? size.ws_col : COLUMNS_USUAL, stderr);
    }
    explicit_bzero(text, strlen(text));
    free(text);
}
