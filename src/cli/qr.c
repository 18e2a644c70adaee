#include "cli/qr.h"

#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "head/qr.h"

enum { QUIET = 4, COLUMNS_USUAL = 80 }; /* a camera wants four light modules around it */

bool qr_is_possible(void)
{
    const char *term = getenv("TERM");

    return isatty(STDERR_FILENO) && term && *term && strcmp(term, "dumb") != 0;
}

static bool draw(const struct qr *code, int columns, FILE *f)
{
    /* The upper half of a character is its foreground, the lower its background. */
    static const char *const halves[2][2] = {{" ", "\u2584"}, {"\u2580", "\u2588"}};

    if (!code || code->width + 2 * QUIET >= columns)
        return false;
    for (int y = -QUIET; y < code->width + QUIET; y += 2) {
        /* Colours 16 and 231 are the same in every theme; 30 and 47 are not. */
        fputs("\033[38;5;16;48;5;231m", f);
        for (int x = -QUIET; x < code->width + QUIET; x++)
            fputs(halves[qr_is_dark(code, x, y)][qr_is_dark(code, x, y + 1)], f);
        fputs("\033[0m\n", f);
    }
    return true;
}

bool qr_print(const char *text, int columns, FILE *f)
{
    struct qr *code = qr_of(text);
    bool drawn = draw(code, columns, f);

    qr_free(code);
    return drawn;
}

void qr_invite(const char *token, const char *address)
{
    struct winsize size = {.ws_col = COLUMNS_USUAL};
    struct qr *code;

    if (!qr_is_possible())
        return;
    (void)ioctl(STDERR_FILENO, TIOCGWINSZ, &size);
    code = qr_of_invitation(token, address);
    (void)draw(code, size.ws_col ? size.ws_col : COLUMNS_USUAL, stderr);
    qr_free(code);
}
