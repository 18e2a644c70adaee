/* JSON of strangers. jansson recurses, so depth, size and number of values are counted by a scan
 * without a stack first. Any thread. */
#ifndef LINGUA_API_JSON_H
#define LINGUA_API_JSON_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "api/error.h"

/* A body that must be an object. NULL: *f says why (empty, too deep, not UTF-8, where it breaks). */
json_t *json_body(const char *s, size_t n, struct fault *f);

/* Fields. A field that is missing or null leaves *out as it was; one of a wrong type or out of range
 * is a fault that names it and says what it may be. False: a fault. */
bool json_get_bool(const json_t *o, const char *name, bool *out, struct fault *f);
bool json_get_int(const json_t *o, const char *name, int64_t min, int64_t max, int64_t *out,
                  struct fault *f);
bool json_get_number(const json_t *o, const char *name, double min, double max, double *out,
                     struct fault *f);
/* Borrowed from o. */
bool json_get_string(const json_t *o, const char *name, const char **out, struct fault *f);

/* How deep brackets stand in each other in JSON text that has been read or made by jansson. */
int json_depth(const char *s);

/* Text as JSON wants it where tokens need not be whole characters: bytes that are no UTF-8 become
 * U+FFFD. */
json_t *json_text(const char *s, size_t n);

#endif
