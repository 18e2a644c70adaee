#include "api/page.h"

#include <ctype.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static bool refuse(struct page *p, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
static bool refuse(struct page *p, const char *fmt, ...)
{
    va_list ap;

    va_start(ap, fmt);
    vsnprintf(p->why, sizeof p->why, fmt, ap);
    va_end(ap);
    return false;
}

/* A metric's or a label's name; labels have no colon. Returns its length, 0 = none. */
static size_t name_length(const char *s, bool label)
{
    size_t n = 0;

    while (isalpha((unsigned char)s[n]) || s[n] == '_' || (!label && s[n] == ':') ||
           (n && isdigit((unsigned char)s[n])))
        n++;
    return n < PAGE_NAME_MAX ? n : 0;
}

static void name_copy(char to[PAGE_NAME_MAX], const char *s, size_t n)
{
    memcpy(to, s, n);
    to[n] = '\0';
}

/* A value between quotes, from behind the first; returns what follows the last, or NULL. */
static const char *value_read(const char *s, char to[PAGE_NAME_MAX])
{
    size_t n = 0;

    for (; *s && *s != '"' && *s != '\n' && n + 1 < PAGE_NAME_MAX; s++) {
        char c = *s;

        if (c == '\\') {
            s++;
            if (*s != '\\' && *s != '"' && *s != 'n')
                return NULL;
            c = *s == 'n' ? '\n' : *s;
        }
        to[n++] = c;
    }
    to[n] = '\0';
    return *s == '"' ? s + 1 : NULL;
}

/* {a="b",c="d"}; returns what follows, or NULL. */
static const char *labels_read(const char *s, struct page_sample *to)
{
    if (*s != '{')
        return s;
    do {
        size_t n = name_length(++s, true);

        if (!n || s[n] != '=' || s[n + 1] != '"' || to->n_labels == PAGE_LABELS_MAX)
            return NULL;
        name_copy(to->label[to->n_labels].name, s, n);
        s = value_read(s + n + 2, to->label[to->n_labels++].value);
    } while (s && *s == ',');
    return s && *s == '}' ? s + 1 : NULL;
}

/* The family a sample belongs to: of its own name, or a histogram's of its name without an ending. */
static bool belongs(const struct page_family *f, const char *sample)
{
    size_t n = strlen(f->name);

    if (strcmp(f->name, sample) == 0)
        return strcmp(f->type, "histogram") != 0;
    return strcmp(f->type, "histogram") == 0 && strncmp(f->name, sample, n) == 0 &&
           (strcmp(sample + n, "_bucket") == 0 || strcmp(sample + n, "_sum") == 0 ||
            strcmp(sample + n, "_count") == 0);
}

static bool same_labels(const struct page_sample *a, const struct page_sample *b)
{
    if (a->n_labels != b->n_labels)
        return false;
    for (int i = 0; i < a->n_labels; i++)
        if (strcmp(a->label[i].name, b->label[i].name) != 0 ||
            strcmp(a->label[i].value, b->label[i].value) != 0)
            return false;
    return true;
}

static bool sample_read(struct page *p, const char *line)
{
    size_t n = name_length(line, false);
    struct page_sample *to = &p->sample[p->n_samples];
    const char *s;
    char *end;

    if (p->n_samples == PAGE_SAMPLES_MAX || !n)
        return refuse(p, "no sample: %s", line);
    memset(to, 0, sizeof *to);
    name_copy(to->name, line, n);
    to->family = p->n_families - 1;
    if (to->family < 0 || !belongs(&p->family[to->family], to->name))
        return refuse(p, "stands outside its family: %s", line);
    s = labels_read(line + n, to);
    if (!s || *s != ' ')
        return refuse(p, "labels are not right: %s", line);
    to->value = strtod(s + 1, &end);
    if (end == s + 1 || *end)
        return refuse(p, "no value: %s", line);
    for (int i = 0; i < p->n_samples; i++)
        if (strcmp(p->sample[i].name, to->name) == 0 && same_labels(&p->sample[i], to))
            return refuse(p, "stands twice: %s", line);
    p->n_samples++;
    return true;
}

/* "# HELP name text" begins a family, "# TYPE name type" has to follow at once. */
static bool comment_read(struct page *p, const char *line, bool *want_type)
{
    bool help = strncmp(line, "# HELP ", 7) == 0;
    size_t n = name_length(line + 7, false);
    struct page_family *f;

    if ((!help && strncmp(line, "# TYPE ", 7) != 0) || !n || line[7 + n] != ' ' || !line[8 + n])
        return refuse(p, "neither HELP nor TYPE: %s", line);
    if (help == *want_type)
        return refuse(p, "HELP and TYPE do not take turns: %s", line);
    *want_type = help;
    if (help) {
        if (p->n_families == PAGE_FAMILIES_MAX)
            return refuse(p, "more families than this reader takes");
        f = &p->family[p->n_families];
        name_copy(f->name, line + 7, n);
        if (page_family(p, f->name) >= 0)
            return refuse(p, "a family stands twice: %s", f->name);
        p->n_families++;
        return true;
    }
    f = &p->family[p->n_families - 1];
    snprintf(f->type, sizeof f->type, "%s", line + 8 + n);
    if (strncmp(f->name, line + 7, n) != 0 || strlen(f->name) != n)
        return refuse(p, "TYPE is of another family: %s", line);
    if (strcmp(f->type, "counter") != 0 && strcmp(f->type, "gauge") != 0 &&
        strcmp(f->type, "histogram") != 0)
        return refuse(p, "no type: %s", line);
    n = strlen(f->name);
    if (strcmp(f->type, "counter") == 0 && (n < 6 || strcmp(f->name + n - 6, "_total") != 0))
        return refuse(p, "a counter's name ends in _total: %s", f->name);
    return true;
}

static const char *bound_of(const struct page_sample *s)
{
    return s->n_labels && strcmp(s->label[s->n_labels - 1].name, "le") == 0
               ? s->label[s->n_labels - 1].value
               : NULL;
}

/* Buckets come in order, each at least as large as the one before, up to +Inf, then sum and count. */
static bool histograms_check(struct page *p)
{
    double last = 0, bound = -INFINITY;

    for (int i = 0; i < p->n_samples; i++) {
        const struct page_sample *s = &p->sample[i];
        const struct page_family *f = &p->family[s->family];
        const char *part = s->name + strlen(f->name), *le = bound_of(s);

        if (strcmp(f->type, "histogram") != 0)
            continue;
        if (strcmp(part, "_bucket") == 0) {
            if (!le || strtod(le, NULL) <= bound || s->value < last)
                return refuse(p, "a bucket is out of order: %s %s", s->name, le ? le : "");
            bound = strtod(le, NULL);
            last = s->value;
        } else if (!isinf(bound)) {
            return refuse(p, "no bucket up to +Inf: %s", s->name);
        } else if (strcmp(part, "_count") == 0) {
            if (s->value != last)
                return refuse(p, "count and +Inf differ: %s", s->name);
            bound = -INFINITY;
            last = 0;
        }
    }
    return bound < 0 ? true : refuse(p, "a histogram has no count");
}

bool page_read(const char *text, struct page *p)
{
    bool want_type = false;

    memset(p, 0, sizeof *p);
    while (*text) {
        const char *end = strchr(text, '\n');
        char line[1024];

        if (!end || (size_t)(end - text) >= sizeof line)
            return refuse(p, "a line has no end, or is too long");
        memcpy(line, text, (size_t)(end - text));
        line[end - text] = '\0';
        text = end + 1;
        if (*line == '#' ? !comment_read(p, line, &want_type) : want_type || !sample_read(p, line))
            return *p->why ? false : refuse(p, "no TYPE in front of %s", line);
    }
    return histograms_check(p);
}

int page_family(const struct page *p, const char *name)
{
    for (int i = 0; i < p->n_families; i++)
        if (strcmp(p->family[i].name, name) == 0)
            return i;
    return -1;
}

const struct page_sample *page_sample(const struct page *p, const char *name, const char *labels)
{
    for (int i = 0; i < p->n_samples; i++) {
        const struct page_sample *s = &p->sample[i];
        char all[PAGE_LABELS_MAX * 2 * PAGE_NAME_MAX] = "";
        size_t n = 0;

        for (int k = 0; k < s->n_labels; k++)
            n += (size_t)snprintf(all + n, sizeof all - n, "%s%s=%s", k ? "," : "",
                                  s->label[k].name, s->label[k].value);
        if (strcmp(s->name, name) == 0 && strcmp(all, labels) == 0)
            return s;
    }
    return NULL;
}
