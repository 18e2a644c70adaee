/* For the tests of the weight cache: folders that go away again, made-up files with their
 * manifests, and plans that cut a model in three. Functions fail the test when something
 * refuses. */
#ifndef LINGUA_TESTS_CACHE_RIG_H
#define LINGUA_TESTS_CACHE_RIG_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "device/mirror.h"

enum { FAKE_PARTS_MAX = 64 };

/* A folder of the test's own below the current one. */
struct folder {
    char path[64];
};
void folder_make(struct folder *f);
void folder_remove(struct folder *f); /* with all that is in it */

/* A file of random bytes that was never a model, in parts of these sizes. */
struct fake {
    uint8_t *bytes;
    struct manifest *manifest;
};
void fake_make(struct fake *f, const uint64_t *sizes, int n, uint64_t seed);
void fake_free(struct fake *f);
const uint8_t *fake_part(const struct fake *f, int part);
/* Writes all of a part that the mirror does not have yet, in pieces of at most `piece` bytes. */
void fake_write(const struct fake *f, struct mirror *m, int part, size_t piece);

/* Counts log lines and keeps the last ones that hold `wanted`. */
struct lines {
    const char *wanted;
    int n, n_wanted;
    char last[512];
};
struct log lines_log(struct lines *l);

/* Modules cut in three. ends: device 0 has the first and the last modules. */
struct plan plan_in_three(int n_modules, bool ends);

uint8_t *file_read(const char *path, size_t *len);
void file_write(const char *path, const void *bytes, size_t len);
/* Changes one byte of a file. */
void file_flip(const char *path, uint64_t offset);

#endif
