/* Command lines: --opt VALUE, --opt=VALUE, -o VALUE, -oVALUE, `--` before arguments that begin with
 * a dash. One table per command says what there is; parsing, checking and the help text all come
 * from it. */
#ifndef LINGUA_CLI_OPTIONS_H
#define LINGUA_CLI_OPTIONS_H

#include <stdint.h>

enum option_kind {
    OPTION_FLAG,   /* bool: true when given */
    OPTION_TEXT,   /* const char *: borrowed from argv */
    OPTION_MAYBE,  /* the same, but the value comes by = alone; "" when there is none */
    OPTION_SIZE,   /* uint64_t: bytes, as 512M or 2G; in [min, max] */
    OPTION_WHOLE,  /* int64_t in [min, max] */
    OPTION_REAL,   /* double in [min, max] */
    OPTION_CHOICE, /* int: index of one of choices */
};

struct option_spec {
    const char *name; /* without the dashes */
    char letter;      /* of the short form, or 0 */
    enum option_kind kind;
    void *value;
    double min, max;
    const char *const *choices; /* NULL at the end */
    const char *argument;       /* its name in the help, e.g. "N" */
    const char *help;
};

enum { ARGS_MAX = 4 };
struct command_spec {
    const char *usage; /* "run [MODEL] -p TEXT" */
    const char *about; /* paragraphs for the help */
    const struct option_spec *options;
    int n_options;
    int n_args_max;
};

/* Sets the values, and the arguments that are no options. Returns -1 to go on, or the exit status:
 * after --help (printed on stdout), or after a sentence about what is wrong. */
int options_parse(const struct command_spec *spec, int argc, char **argv,
                  const char *args[ARGS_MAX], int *n_args);

/* "1,2,4" into numbers within [min, max]; at most cap. Returns how many, or -1 after saying what is
 * wrong with option name. */
int options_list(const char *command, const char *name, const char *text, int64_t min, int64_t max,
                 int *out, int cap);

#endif
