#include "api/json.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "api/api.h"
#include "base/mem.h"
#include "base/utf8.h"

/* Past the string that begins at s[i]; where it ends is for jansson to judge. */
static size_t string_skip(const char *s, size_t n, size_t i)
{
    for (i++; i < n && s[i] != '"'; i++)
        i += s[i] == '\\';
    return i;
}

/* Brackets and commas outside of strings are all that needs counting: a value is the first of its
 * container or has a comma before it. */
static bool scan(const char *s, size_t n, struct fault *f)
{
    size_t depth = 0, values = 1;

    for (size_t i = 0; i < n; i++) {
        switch (s[i]) {
        case '"':
            i = string_skip(s, n, i);
            break;
        case '[':
        case '{':
            depth++;
            values++;
            break;
        case ']':
        case '}':
            depth -= depth > 0;
            break;
        case ',':
            values++;
            break;
        default:
            break;
        }
        if (depth > API_JSON_DEPTH)
            return fault_field(f, "", "the JSON is nested more than %d deep", API_JSON_DEPTH);
        if (values > API_JSON_VALUES_MAX)
            return fault_field(f, "", "the JSON has more than %d values", API_JSON_VALUES_MAX);
    }
    return true;
}

int json_depth(const char *s)
{
    size_t n = strlen(s);
    int depth = 0, most = 0;

    for (size_t i = 0; i < n; i++) {
        if (s[i] == '"')
            i = string_skip(s, n, i);
        else if (s[i] == '[' || s[i] == '{')
            most = ++depth > most ? depth : most;
        else if (s[i] == ']' || s[i] == '}')
            depth--;
    }
    return most;
}

json_t *json_body(const char *s, size_t n, struct fault *f)
{
    json_error_t error;
    json_t *o;

    if (n == 0) {
        fault_field(f, "", "the body is empty; send a JSON object");
        return NULL;
    }
    if (!scan(s, n, f))
        return NULL;
    o = json_loadb(s, n, JSON_DECODE_ANY, &error);
    if (!o) {
        fault_field(f, "", "the body is no JSON that can be read: %s (line %d, column %d)",
                    error.text, error.line, error.column);
        return NULL;
    }
    if (!json_is_object(o)) {
        json_decref(o);
        fault_field(f, "", "the body must be a JSON object");
        return NULL;
    }
    return o;
}

/* NULL: not there, or null. */
static const json_t *field(const json_t *o, const char *name)
{
    const json_t *v = json_object_get(o, name);

    return json_is_null(v) ? NULL : v;
}

bool json_get_bool(const json_t *o, const char *name, bool *out, struct fault *f)
{
    const json_t *v = field(o, name);

    if (v && !json_is_boolean(v))
        return fault_field(f, name, "%s must be true or false", name);
    if (v)
        *out = json_is_true(v);
    return true;
}

bool json_get_int(const json_t *o, const char *name, int64_t min, int64_t max, int64_t *out,
                  struct fault *f)
{
    const json_t *v = field(o, name);
    double real = json_number_value(v);
    int64_t whole;

    if (!v)
        return true;
    /* Some clients write 5.0. */
    if (json_is_integer(v))
        whole = json_integer_value(v);
    else if (json_is_real(v) && real == floor(real) && fabs(real) < 9e15)
        whole = (int64_t)real;
    else
        return fault_field(f, name, "%s must be a whole number", name);
    if (whole < min || whole > max)
        return fault_field(f, name, "%s must be from %lld to %lld, not %lld", name, (long long)min,
                           (long long)max, (long long)whole);
    *out = whole;
    return true;
}

bool json_get_number(const json_t *o, const char *name, double min, double max, double *out,
                     struct fault *f)
{
    const json_t *v = field(o, name);
    double real = json_number_value(v);

    if (!v)
        return true;
    if (!json_is_number(v))
        return fault_field(f, name, "%s must be a number", name);
    if (!(real >= min && real <= max))
        return fault_field(f, name, "%s must be from %g to %g, not %g", name, min, max, real);
    *out = real;
    return true;
}

bool json_get_string(const json_t *o, const char *name, const char **out, struct fault *f)
{
    const json_t *v = field(o, name);

    if (v && !json_is_string(v))
        return fault_field(f, name, "%s must be a string", name);
    if (v)
        *out = json_string_value(v);
    return true;
}

json_t *json_text(const char *s, size_t n)
{
    static const char stand_in[] = "\xef\xbf\xbd"; /* U+FFFD */
    json_t *whole = json_stringn(s, n);
    char *text;
    size_t used = 0;

    if (whole)
        return whole;
    text = mem_alloc(3 * n + 1);
    for (size_t i = 0; i < n;) {
        size_t len = utf8_char((const uint8_t *)s + i, n - i);

        memcpy(text + used, len ? s + i : stand_in, len ? len : 3);
        used += len ? len : 3;
        i += len ? len : 1;
    }
    whole = json_stringn(text, used);
    free(text);
    return whole;
}
