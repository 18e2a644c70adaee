/* Figures that took time to measure, remembered in the state folder (file `profile`).
 *
 * Text, mode 0600. The first line names the format; then, for each entry, the newest first:
 *
 *     = <how many numbers> <key>
 *     <number> <number> ...          up to seven a line
 *
 * A key is one line: a word for what was measured, then everything it depends on, so that a figure
 * of other circumstances is not found. The same file in another device's folder counts there. A
 * file of another format, or a damaged one, is as good as none. Written whole, by a temporary file
 * and rename. One process writes (the folder is locked), one thread at a time. */
#ifndef LINGUA_DEVICE_KEPT_H
#define LINGUA_DEVICE_KEPT_H

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"

enum { KEPT_KEY_MAX = 224, KEPT_VALUES_MAX = 512, KEPT_PER_WORD = 8 };

/* True when there is an entry of exactly n numbers. folder NULL: nothing is. */
bool kept_get(const char *folder, const char *key, int n, uint64_t *values);
/* Replaces the entry of this key, if any; of those whose key begins with the same word the
 * KEPT_PER_WORD newest stay. folder NULL: does nothing. */
MUST_CHECK enum err kept_put(const char *folder, const char *key, int n, const uint64_t *values,
                             struct err_text *et);

#endif
