#include "cli/options.h"

#include <errno.h>
#include <math.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/words.h"
#include "cli/cmd.h"
#include "cli/say.h"

enum { WORDS_MAX = 64 };

static void help_print(const struct command_spec *spec)
{
    printf("usage: lingua %s\n\n%s\n", spec->usage, spec->about);
    if (spec->n_options)
        printf("\n");
    for (int i = 0; i < spec->n_options; i++) {
        const struct option_spec *o = &spec->options[i];
        const char *argument = o->argument ? o->argument : "";
        const char *help = o->help;
        char left[64];

        if (o->kind == OPTION_MAYBE)
            snprintf(left, sizeof left, "    --%s[=%s]", o->name, argument);
        else if (o->letter)
            snprintf(left, sizeof left, "-%c, --%s %s", o->letter, o->name, argument);
        else
            snprintf(left, sizeof left, "    --%s %s", o->name, argument);
        printf("  %-24s ", left);
        for (; *help; help++)
            if (*help == '\n')
                printf("\n%27s", "");
            else
                putchar(*help);
        printf("\n");
    }
}

static int usage_error(const char *command)
{
    fprintf(stderr, "        (lingua help %s says more)\n", command);
    return STATUS_USAGE;
}

static int unknown(const struct command_spec *spec, const char *command, const char *typed)
{
    const char *words[WORDS_MAX], *near;
    int n = 0;

    for (int i = 0; i < spec->n_options && n < WORDS_MAX; i++)
        words[n++] = spec->options[i].name;
    near = typed[1] == '-' ? nearest_word(typed + 2, words, n) : NULL;
    /* What follows = is not repeated: it could be a secret. */
    if (near)
        say("%s: unknown option %.*s; did you mean --%s?", command, (int)strcspn(typed, "="), typed,
            near);
    else
        say("%s: unknown option %.*s", command, (int)strcspn(typed, "="), typed);
    return usage_error(command);
}

static bool whole_of(const char *text, int64_t *out)
{
    char *end;
    long long v;

    errno = 0;
    v = strtoll(text, &end, 10);
    *out = v;
    return *text && !*end && !errno && strchr("+-0123456789", *text);
}

static int value_wrong(const char *command, const struct option_spec *o, const char *text)
{
    char least[NUM_MAX];

    if (o->kind == OPTION_SIZE)
        say("%s: --%s takes a size such as 512M or 2G (at least %s), not \"%s\"", command, o->name,
            num_mib(least, (uint64_t)o->min), text);
    else if (o->kind == OPTION_WHOLE)
        say("%s: --%s takes a whole number from %.0f to %.0f, not \"%s\"", command, o->name, o->min,
            o->max, text);
    else
        say("%s: --%s takes a number from %g to %g, not \"%s\"", command, o->name, o->min, o->max,
            text);
    return usage_error(command);
}

static int value_set(const char *command, const struct option_spec *o, const char *text)
{
    int64_t whole;
    double real;
    char *end;

    switch (o->kind) {
    case OPTION_FLAG:
        *(bool *)o->value = true;
        return -1;
    case OPTION_TEXT:
    case OPTION_MAYBE:
        *(const char **)o->value = text;
        return -1;
    case OPTION_SIZE:
        if (!size_parse(text, &real) || !(real >= o->min && real <= o->max))
            return value_wrong(command, o, text);
        *(uint64_t *)o->value = (uint64_t)real;
        return -1;
    case OPTION_WHOLE:
        if (!whole_of(text, &whole) || (double)whole < o->min || (double)whole > o->max)
            return value_wrong(command, o, text);
        *(int64_t *)o->value = whole;
        return -1;
    case OPTION_REAL:
        real = strtod(text, &end);
        if (!*text || *end || !isfinite(real) || real < o->min || real > o->max)
            return value_wrong(command, o, text);
        *(double *)o->value = real;
        return -1;
    case OPTION_CHOICE:
        for (int i = 0; o->choices[i]; i++)
            if (strcmp(o->choices[i], text) == 0) {
                *(int *)o->value = i;
                return -1;
            }
        say("%s: --%s takes %s, not \"%s\"", command, o->name, o->argument, text);
        return usage_error(command);
    }
    return STATUS_USAGE;
}

/* The option that typed names; *value gets what is glued to it ("=VALUE", "-n16"), or NULL. */
static const struct option_spec *option_find(const struct command_spec *spec, const char *typed,
                                             const char **value)
{
    bool is_long = typed[1] == '-';
    const char *name = typed + (is_long ? 2 : 1);
    size_t n = is_long ? strcspn(name, "=") : 1;

    *value = NULL;
    if (name[n])
        *value = is_long ? name + n + 1 : name + n;
    for (int i = 0; i < spec->n_options; i++) {
        const struct option_spec *o = &spec->options[i];

        if (is_long ? strlen(o->name) == n && strncmp(o->name, name, n) == 0
                    : o->letter && o->letter == *name)
            return o;
    }
    return NULL;
}

int options_parse(const struct command_spec *spec, int argc, char **argv,
                  const char *args[ARGS_MAX], int *n_args)
{
    const char *command = argv[0];
    bool only_args = false;

    *n_args = 0;
    for (int i = 1; i < argc; i++) {
        const struct option_spec *o;
        const char *value;
        int status;

        if (only_args || argv[i][0] != '-' || !argv[i][1]) {
            if (*n_args >= spec->n_args_max) {
                say("%s: unexpected argument \"%s\"", command, argv[i]);
                return usage_error(command);
            }
            args[(*n_args)++] = argv[i];
            continue;
        }
        if (strcmp(argv[i], "--") == 0) {
            only_args = true;
            continue;
        }
        if (strcmp(argv[i], "--help") == 0 || strcmp(argv[i], "-h") == 0) {
            help_print(spec);
            return out_finish();
        }
        o = option_find(spec, argv[i], &value);
        if (!o)
            return unknown(spec, command, argv[i]);
        if (o->kind == OPTION_FLAG && value) {
            say("%s: --%s takes no value", command, o->name);
            return usage_error(command);
        }
        if (o->kind == OPTION_MAYBE && !value)
            value = "";
        if (o->kind != OPTION_FLAG && !value) {
            if (i + 1 == argc) {
                say("%s: --%s needs a value (%s)", command, o->name, o->argument);
                return usage_error(command);
            }
            value = argv[++i];
        }
        status = value_set(command, o, value);
        if (status >= 0)
            return status;
    }
    return -1;
}

int options_list(const char *command, const char *name, const char *text, int64_t min, int64_t max,
                 int *out, int cap)
{
    int n = 0;

    for (const char *p = text;; p++) {
        size_t len = strcspn(p, ",");
        char item[24];
        int64_t v = 0;
        bool good = len > 0 && len < sizeof item;

        if (good) {
            memcpy(item, p, len);
            item[len] = '\0';
            good = whole_of(item, &v) && v >= min && v <= max;
        }
        if (!good || n == cap) {
            say("%s: --%s takes up to %d whole numbers from %lld to %lld, joined by commas, not "
                "\"%s\"",
                command, name, cap, (long long)min, (long long)max, text);
            usage_error(command);
            return -1;
        }
        out[n++] = (int)v;
        p += len;
        if (!*p)
            return n;
    }
}
