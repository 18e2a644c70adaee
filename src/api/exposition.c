#include "api/exposition.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/check.h"
#include "base/mem.h"
#include "base/utf8.h"

enum { VALUE_MAX = 40 };

static void put(struct exposition *x, const char *s, size_t n)
{
    if (x->n + n + 1 > x->cap) {
        x->cap = 2 * (x->n + n + 1);
        x->text = mem_realloc(x->text, x->cap, 1);
    }
    memcpy(x->text + x->n, s, n);
    x->n += n;
    x->text[x->n] = '\0';
}

static void put_text(struct exposition *x, const char *s)
{
    put(x, s, strlen(s));
}

/* The value of a label: backslash, quote and newline are escaped, and what is no UTF-8 becomes a
 * question mark, since one bad byte would cost the reader the whole page. */
static void put_escaped(struct exposition *x, const char *s)
{
    size_t n = strlen(s);
    char *clean = mem_alloc(n + 1);

    utf8_clean(clean, (const uint8_t *)s, n);
    for (size_t i = 0; i < n; i++)
        if (s[i] == '\n')
            put(x, "\\n", 2);
        else if (s[i] == '\\' || s[i] == '"')
            put(x, (char[]){'\\', s[i]}, 2);
        else
            put(x, clean + i, 1);
    free(clean);
}

static void put_label(struct exposition *x, const char *name, const char *value, char *before)
{
    put(x, before, 1);
    *before = ',';
    put_text(x, name);
    put_text(x, "=\"");
    put_escaped(x, value);
    put(x, "\"", 1);
}

static void put_value(struct exposition *x, double value)
{
    char text[VALUE_MAX];

    if (isnan(value))
        snprintf(text, sizeof text, " NaN\n");
    else if (isinf(value))
        snprintf(text, sizeof text, value > 0 ? " +Inf\n" : " -Inf\n");
    else
        snprintf(text, sizeof text, " %.12g\n", value);
    put_text(x, text);
}

static void put_count(struct exposition *x, uint64_t value)
{
    char text[VALUE_MAX];

    snprintf(text, sizeof text, " %llu\n", (unsigned long long)value);
    put_text(x, text);
}

static void put_name(struct exposition *x, const struct exposition_label labels[2])
{
    char before = '{';

    CHECK(x->family);
    put_text(x, x->family);
    for (int i = 0; labels && i < 2; i++)
        if (labels[i].name)
            put_label(x, labels[i].name, labels[i].value, &before);
    if (before == ',')
        put(x, "}", 1);
}

void histogram_add(struct histogram *h, double value)
{
    int i = 0;

    while (i < h->n_bounds && value > h->bounds[i])
        i++;
    h->count[i]++;
    h->sum += value;
}

void exposition_family(struct exposition *x, const char *name, const char *type, const char *help)
{
    x->family = name;
    put_text(x, "# HELP ");
    put_text(x, name);
    put(x, " ", 1);
    put_text(x, help);
    put_text(x, "\n# TYPE ");
    put_text(x, name);
    put(x, " ", 1);
    put_text(x, type);
    put(x, "\n", 1);
}

void exposition_count(struct exposition *x, const struct exposition_label labels[2], uint64_t value)
{
    put_name(x, labels);
    put_count(x, value);
}

void exposition_value(struct exposition *x, const struct exposition_label labels[2], double value)
{
    put_name(x, labels);
    put_value(x, value);
}

/* name_SUFFIX{label="..",le=".."} */
static void put_part(struct exposition *x, const char *suffix, const struct exposition_label *label,
                     const char *le)
{
    char before = '{';

    put_text(x, x->family);
    put_text(x, suffix);
    if (label)
        put_label(x, label->name, label->value, &before);
    if (le)
        put_label(x, "le", le, &before);
    if (before == ',')
        put(x, "}", 1);
}

void exposition_histogram(struct exposition *x, const struct exposition_label *label,
                          const struct histogram *h)
{
    uint64_t sum = 0;
    char le[VALUE_MAX];

    CHECK(h->n_bounds <= EXPOSITION_BUCKETS_MAX);
    for (int i = 0; i <= h->n_bounds; i++) {
        sum += h->count[i];
        if (i < h->n_bounds)
            snprintf(le, sizeof le, "%g", h->bounds[i]);
        else
            snprintf(le, sizeof le, "+Inf");
        put_part(x, "_bucket", label, le);
        put_count(x, sum);
    }
    put_part(x, "_sum", label, NULL);
    put_value(x, h->sum);
    put_part(x, "_count", label, NULL);
    put_count(x, sum);
}
