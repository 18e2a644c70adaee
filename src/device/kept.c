#define _DEFAULT_SOURCE
#include "device/kept.h"

#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/check.h"
#include "base/mem.h"

enum { PER_LINE = 7, ENTRIES_MAX = 64, LINE_MAX_BYTES = 512 };

static const char first_line[] = "lingua profile 2\n";

struct entry {
    char key[KEPT_KEY_MAX];
    int n;
    uint64_t *values;
};

struct entries {
    int n;
    struct entry entry[ENTRIES_MAX];
};

static void entries_fini(struct entries *all)
{
    for (int i = 0; i < all->n; i++)
        free(all->entry[i].values);
    all->n = 0;
}

static bool read_entry(FILE *f, char *line, struct entry *e)
{
    int at = 0;
    size_t len;

    if (sscanf(line, "= %d %n", &e->n, &at) != 1 || !at || e->n < 1 || e->n > KEPT_VALUES_MAX)
        return false;
    len = strlen(line + at);
    if (len < 2 || line[at + (int)len - 1] != '\n' || len > sizeof e->key)
        return false;
    memcpy(e->key, line + at, len - 1);
    e->key[len - 1] = '\0';
    e->values = mem_zalloc((size_t)e->n, sizeof *e->values);
    for (int i = 0; i < e->n; i++)
        if (fscanf(f, "%20" SCNu64, &e->values[i]) != 1)
            return false;
    return fgetc(f) == '\n';
}

/* Empty when there is no such file, or it makes no sense. */
static void read_all(const char *path, struct entries *all)
{
    char line[LINE_MAX_BYTES];
    FILE *f = fopen(path, "re");
    bool good = f && fgets(line, sizeof line, f) && strcmp(line, first_line) == 0;

    all->n = 0;
    while (good && fgets(line, sizeof line, f)) {
        good = all->n < ENTRIES_MAX;
        if (!good)
            break;
        memset(&all->entry[all->n], 0, sizeof all->entry[0]);
        good = read_entry(f, line, &all->entry[all->n++]);
    }
    if (!good)
        entries_fini(all);
    if (f)
        fclose(f);
}

bool kept_get(const char *folder, const char *key, int n, uint64_t *values)
{
    struct entries *all;
    bool found = false;
    char *path;

    if (!folder)
        return false;
    all = mem_alloc(sizeof *all);
    path = mem_printf("%s/profile", folder);
    read_all(path, all);
    for (int i = 0; i < all->n && !found; i++) {
        const struct entry *e = &all->entry[i];

        found = e->n == n && strcmp(e->key, key) == 0;
        if (found)
            memcpy(values, e->values, (size_t)n * sizeof *values);
    }
    entries_fini(all);
    free(all);
    free(path);
    return found;
}

static bool write_entry(FILE *f, const char *key, int n, const uint64_t *values)
{
    bool good = fprintf(f, "= %d %s\n", n, key) > 0;

    for (int i = 0; i < n && good; i++)
        good = fprintf(f, "%" PRIu64 "%c", values[i],
                       i + 1 == n || i % PER_LINE == PER_LINE - 1 ? '\n' : ' ') > 0;
    return good;
}

static bool same_word(const char *a, const char *b)
{
    size_t len = strcspn(a, " ");

    return len == strcspn(b, " ") && strncmp(a, b, len) == 0;
}

/* The new entry, then the others as far as they may stay. */
static bool write_all(FILE *f, const struct entries *all, const char *key, int n,
                      const uint64_t *values)
{
    bool good = fputs(first_line, f) >= 0 && write_entry(f, key, n, values);
    int n_written = 1;

    for (int i = 0; i < all->n && good && n_written < ENTRIES_MAX; i++) {
        const struct entry *e = &all->entry[i];
        int n_newer = same_word(e->key, key);

        for (int k = 0; k < i; k++)
            n_newer += same_word(e->key, all->entry[k].key) && strcmp(all->entry[k].key, key) != 0;
        if (strcmp(e->key, key) == 0 || n_newer >= KEPT_PER_WORD)
            continue;
        good = write_entry(f, e->key, e->n, e->values);
        n_written++;
    }
    return good;
}

enum err kept_put(const char *folder, const char *key, int n, const uint64_t *values,
                  struct err_text *et)
{
    struct entries *all;
    char *path, *tmp;
    int fd;
    bool good;
    enum err e = ERR_NONE;
    FILE *f;

    CHECK(strlen(key) < KEPT_KEY_MAX && !strchr(key, '\n') && n >= 1 && n <= KEPT_VALUES_MAX);
    if (!folder)
        return ERR_NONE;
    all = mem_alloc(sizeof *all);
    path = mem_printf("%s/profile", folder);
    tmp = mem_printf("%s.new", path);
    read_all(path, all);
    fd = open(tmp, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, S_IRUSR | S_IWUSR);
    f = fd >= 0 ? fdopen(fd, "w") : NULL;
    good = f && write_all(f, all, key, n, values);
    if ((f && fclose(f) != 0) || !good || rename(tmp, path) != 0) {
        e = err_system(et, "write %s", path);
        unlink(tmp);
    }
    entries_fini(all);
    free(all);
    free(tmp);
    free(path);
    return e;
}
