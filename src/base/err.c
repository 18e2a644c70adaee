#include "base/err.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/utf8.h"

/* A sentence may quote a file or a peer; what it quotes must not steer a terminal or start a line.
 * And where it was cut short, half a character may stand at its end, which no JSON takes. */
static void clean(char *s)
{
    utf8_clean(s, (const uint8_t *)s, strlen(s));
}

enum err err_set(struct err_text *et, enum err e, const char *fmt, ...)
{
    va_list ap;

    if (!et)
        return e;
    va_start(ap, fmt);
    vsnprintf(et->text, sizeof et->text, fmt, ap);
    va_end(ap);
    clean(et->text);
    return e;
}

enum err err_wrap(struct err_text *et, enum err e, const char *fmt, ...)
{
    char words[ERR_TEXT_MAX], whole[2 * ERR_TEXT_MAX + 2];
    va_list ap;

    if (!et)
        return e;
    va_start(ap, fmt);
    vsnprintf(words, sizeof words, fmt, ap);
    va_end(ap);
    snprintf(whole, sizeof whole, "%s: %s", words, et->text);
    snprintf(et->text, sizeof et->text, "%.*s", (int)sizeof et->text - 1, whole);
    clean(et->text);
    return e;
}

enum err err_system(struct err_text *et, const char *fmt, ...)
{
    int saved = errno;
    char words[ERR_TEXT_MAX];
    va_list ap;

    va_start(ap, fmt);
    vsnprintf(words, sizeof words, fmt, ap);
    va_end(ap);
    return err_set(et, saved == ENOMEM ? ERR_MEMORY : ERR_FILE, "%s: %s", words, strerror(saved));
}
