#define _DEFAULT_SOURCE
#include "device/profile.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/mem.h"
#include "base/sys.h"
#include "model/measure.h"
#include "model/model.h"
#include "model/segment.h"

enum { MATRIX_MIN = 64 << 20, MATRIX_MAX = 256 << 20, BASE_NOISE = 2 << 20 };

/* Larger than the last cache, but a guest in this device's memory, and within the process's own
 * budget, which parts of a model will have to fit in as well. */
static size_t matrix_bytes(uint64_t budget, uint64_t resident)
{
    uint64_t bytes = MATRIX_MIN, available = sys_available_bytes();

#ifdef _SC_LEVEL3_CACHE_SIZE
    long cache = sysconf(_SC_LEVEL3_CACHE_SIZE);

    if (cache > 0 && 3 * (uint64_t)cache > bytes)
        bytes = 3 * (uint64_t)cache < MATRIX_MAX ? 3 * (uint64_t)cache : MATRIX_MAX;
#endif
    if (available && bytes > available / 4)
        bytes = available / 4;
    if (budget && (budget <= resident || bytes > (budget - resident) / 4 * 3))
        bytes = budget <= resident ? 0 : (budget - resident) / 4 * 3;
    return bytes > MEASURE_BYTES_MIN ? (size_t)bytes : MEASURE_BYTES_MIN;
}

/* The first line says what the others depend on; anything else is measured anew. */
static char *first_line(const struct compute *c)
{
    return mem_printf("lingua profile 1: %s, %d threads\n", model_kernels(), compute_n_threads(c));
}

/* base_bytes stays 0 when the file does not have it. */
static bool recall(const char *path, const char *first, struct profile *out)
{
    char line[256];
    FILE *f = fopen(path, "re");
    bool good = f && fgets(line, sizeof line, f) && strcmp(line, first) == 0 &&
                fscanf(f, "speed %" SCNu64, &out->speed) == 1 && out->speed > 0;

    if (good && fscanf(f, " base %" SCNu64, &out->base_bytes) != 1)
        out->base_bytes = 0;
    if (f)
        fclose(f);
    return good;
}

/* By a temporary file, so that a half-written one is never read. */
static enum err remember(const char *path, const char *first, const struct profile *p,
                         struct err_text *et)
{
    char *tmp = mem_printf("%s.new", path);
    FILE *f = fopen(tmp, "we");
    bool bad = !f || fprintf(f, "%sspeed %" PRIu64 "\nbase %" PRIu64 "\n", first, p->speed,
                             p->base_bytes) < 0;
    enum err e = ERR_NONE;

    if ((f && fclose(f) != 0) || bad || rename(tmp, path) != 0) {
        e = err_system(et, "write %s", path);
        unlink(tmp);
    }
    free(tmp);
    return e;
}

/* What a process takes at its start differs by some pages from one start to the next. Such noise
 * must not change who holds what, or a restart would ship weights: near what it was, it is what it
 * was. */
static bool is_near(uint64_t was, uint64_t now)
{
    return was && was + BASE_NOISE > now && now + BASE_NOISE > was;
}

enum err profile_measure(struct compute *c, const char *folder, uint64_t memory_bytes,
                         struct profile *out, struct err_text *et)
{
    char *path = folder ? mem_printf("%s/profile", folder) : NULL, *first = first_line(c);
    uint64_t base_bytes = sys_resident_bytes();
    double speed = 0;
    enum err e = ERR_NONE;

    *out = (struct profile){0};
    if (path && recall(path, first, out)) {
        if (is_near(out->base_bytes, base_bytes))
            goto out;
    } else {
        e = model_measure_speed(c, matrix_bytes(memory_bytes, base_bytes), &speed, et);
        if (e)
            goto out;
        out->speed = speed > 1 ? (uint64_t)speed : 1;
    }
    out->base_bytes = base_bytes;
    if (path)
        e = remember(path, first, out, et);
out:
    free(first);
    free(path);
    return e;
}
