/* Where the layers below the commands say what happened: one line per event, named by component
 * ("link", "cluster", "fetch"). The owner decides what is shown; a NULL log or a NULL line says
 * nothing. No secret ever goes into a line. Lines are cleaned as errors are (err.h). */
#ifndef LINGUA_BASE_LOG_H
#define LINGUA_BASE_LOG_H

struct log {
    void (*line)(void *user, const char *component, const char *text);
    void *user;
};

void log_say(const struct log *log, const char *component, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));

#endif
