#include "base/log.h"

#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>

#include "base/err.h"

void log_say(const struct log *log, const char *component, const char *fmt, ...)
{
    char words[ERR_TEXT_MAX];
    struct err_text clean;
    va_list ap;

    if (!log || !log->line)
        return;
    va_start(ap, fmt);
    vsnprintf(words, sizeof words, fmt, ap);
    va_end(ap);
    (void)err_set(&clean, ERR_NONE, "%s", words);
    log->line(log->user, component, clean.text);
}
