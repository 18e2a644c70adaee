/* The folder of mirrors: finding, adding, making room. What one mirror does is in mirror.c. */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <time.h>
#include <unistd.h>

#include "base/check.h"
#include "base/mem.h"
#include "device/mirror_impl.h"

enum { NAME_DIGITS = 16, MIB = 1 << 20 };

static const char *const files[] = {"manifest", "manifest.new", "model.gguf", "state"};

uint64_t cache_now(void)
{
    time_t now = time(NULL);

    return now > 0 ? (uint64_t)now : 0;
}

static void id_name(const uint8_t id[WIRE_KEY_BYTES], char name[NAME_DIGITS + 1])
{
    for (int i = 0; i < NAME_DIGITS / 2; i++)
        snprintf(name + (size_t)i * 2, 3, "%02x", id[i]);
}

/* ---- the disk ---- */

/* What it can still take; UINT64_MAX when it does not say. */
static uint64_t disk_free(const char *folder)
{
    struct statvfs v;

    if (statvfs(folder, &v) != 0)
        return UINT64_MAX;
    return (uint64_t)v.f_bavail * v.f_frsize;
}

enum err cache_disk_full(const struct cache *c, uint64_t missing, struct err_text *et)
{
    uint64_t have = disk_free(c->folder);
    uint64_t more = have < missing ? missing - have : missing;

    return err_set(et, ERR_FILE,
                   "the disk that holds %s is full: %llu MiB more are needed; free some, or choose "
                   "another with --cache",
                   c->folder, (unsigned long long)((more + MIB - 1) / MIB));
}

static enum err make_folders(const char *folder, struct err_text *et)
{
    char *path = mem_strdup(folder);
    enum err e = ERR_NONE;

    for (char *p = path + 1; !e; p++) {
        char c = *p;

        if (c != '/' && c != '\0')
            continue;
        *p = '\0';
        if (mkdir(path, 0700) != 0 && errno != EEXIST)
            e = err_system(et, "make %s", path);
        *p = c;
        if (c == '\0')
            break;
    }
    free(path);
    return e;
}

/* ---- models on the disk ---- */

static void remove_files(const char *folder)
{
    for (size_t i = 0; i < ARRAY_LEN(files); i++) {
        char *path = mem_printf("%s/%s", folder, files[i]);

        unlink(path);
        free(path);
    }
    rmdir(folder);
}

/* The whole file, or NULL when it cannot be read or is longer than max. */
static uint8_t *read_file(const char *folder, const char *name, size_t max, size_t *len)
{
    char *path = mem_printf("%s/%s", folder, name);
    FILE *f = fopen(path, "rbe");
    uint8_t *bytes = NULL;
    struct stat st;

    free(path);
    if (!f)
        return NULL;
    if (fstat(fileno(f), &st) == 0 && st.st_size >= 0 && (uint64_t)st.st_size <= max) {
        bytes = mem_alloc((size_t)st.st_size);
        *len = fread(bytes, 1, (size_t)st.st_size, f);
    }
    fclose(f);
    return bytes;
}

static struct cached *cached_new(struct cache *cache, struct manifest *m)
{
    struct cached *c = mem_zalloc(1, sizeof *c);
    size_t n = (size_t)m->n_parts;
    char name[NAME_DIGITS + 1];

    id_name(m->id, name);
    c->cache = cache;
    c->manifest = m;
    c->folder = mem_printf("%s/%s", cache->folder, name);
    c->path = mem_printf("%s/model.gguf", c->folder);
    c->part = mem_zalloc(n, sizeof *c->part);
    c->hash = mem_zalloc(n, sizeof(void *));
    c->hashed = mem_zalloc(n, sizeof *c->hashed);
    c->fd = c->state_fd = -1;
    c->next = cache->models;
    cache->models = c;
    return c;
}

/* Reads what an earlier process left. A folder without a manifest that fits is of no use. */
static void find_model(struct cache *cache, const char *name)
{
    char *folder = mem_printf("%s/%s", cache->folder, name), expected[NAME_DIGITS + 1] = "";
    struct manifest *m = NULL;
    struct cached *c;
    struct stat st;
    size_t len = 0;
    uint8_t *bytes = read_file(folder, "manifest", WIRE_MANIFEST_MAX, &len);

    if (bytes && manifest_decode(bytes, len, NULL, &m, NULL) == ERR_NONE)
        id_name(m->id, expected);
    free(bytes);
    if (strcmp(name, expected) != 0) {
        log_say(&cache->log, "cache", "%s has no good manifest: removed", folder);
        manifest_free(m);
        remove_files(folder);
        free(folder);
        return;
    }
    c = cached_new(cache, m);
    bytes = read_file(folder, "state", (size_t)m->n_parts * STATE_RECORD_BYTES, &len);
    if (bytes && stat(c->path, &st) == 0 && (uint64_t)st.st_size == m->file_bytes) {
        int n_bad = state_decode(m, bytes, len, cache_now(), c->part);

        if (n_bad > 0)
            log_say(&cache->log, "cache",
                    "%s/state: %d of %d parts are not what they can be, and will be fetched again",
                    folder, n_bad, m->n_parts);
    }
    for (int i = 0; i < m->n_parts; i++)
        cache->bytes += c->part[i].received;
    free(bytes);
    free(folder);
}

void cached_free(struct cached *c)
{
    CHECK(!c->handles && c->fd < 0);
    manifest_free(c->manifest);
    free(c->folder);
    free(c->path);
    free(c->part);
    free(c->hash);
    free(c->hashed);
    free(c);
}

/* ---- open and close ---- */

static enum err lock(struct cache *c, struct err_text *et)
{
    char *path = mem_printf("%s/lock", c->folder);
    enum err e = ERR_NONE;

    c->lock_fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    if (c->lock_fd < 0)
        e = err_system(et, "open %s", path);
    else if (flock(c->lock_fd, LOCK_EX | LOCK_NB) != 0)
        e = errno == EWOULDBLOCK
                ? err_set(et, ERR_FILE,
                          "another lingua uses the weight cache %s; choose another with --cache",
                          c->folder)
                : err_system(et, "lock %s", path);
    free(path);
    return e;
}

enum err cache_open(const char *folder, uint64_t limit_bytes, const struct log *log,
                    struct cache **out, struct err_text *et)
{
    struct cache *c = mem_zalloc(1, sizeof *c);
    struct dirent *entry;
    DIR *dir = NULL;
    enum err e;

    *out = NULL;
    c->folder = mem_strdup(folder);
    c->limit = limit_bytes;
    c->lock_fd = -1;
    c->log = log ? *log : (struct log){.line = NULL};
    e = make_folders(folder, et);
    if (!e)
        e = lock(c, et);
    if (e)
        goto fail;
    dir = opendir(folder);
    if (!dir) {
        e = err_system(et, "read %s", folder);
        goto fail;
    }
    while ((entry = readdir(dir)) != NULL)
        if (strlen(entry->d_name) == NAME_DIGITS &&
            strspn(entry->d_name, "0123456789abcdef") == NAME_DIGITS)
            find_model(c, entry->d_name);
    closedir(dir);
    *out = c;
    return ERR_NONE;
fail:
    cache_close(c);
    return e;
}

void cache_close(struct cache *c)
{
    if (!c)
        return;
    while (c->models) {
        struct cached *m = c->models;

        c->models = m->next;
        cached_free(m);
    }
    if (c->lock_fd >= 0)
        close(c->lock_fd);
    free(c->folder);
    free(c);
}

uint64_t cache_bytes(const struct cache *c)
{
    return c->bytes;
}

/* ---- models found and added ---- */

/* By the digits that name the folder. */
static struct cached *find(const struct cache *c, const uint8_t id[WIRE_KEY_BYTES])
{
    for (struct cached *m = c->models; m; m = m->next)
        if (memcmp(m->manifest->id, id, NAME_DIGITS / 2) == 0)
            return m;
    return NULL;
}

static enum err handle_new(struct cached *c, struct mirror **out, struct err_text *et)
{
    struct mirror *m;
    enum err e = c->handles ? ERR_NONE : cached_open_files(c, et);

    if (e)
        return e;
    m = mem_zalloc(1, sizeof *m);
    m->of = c;
    m->next = c->handles;
    c->handles = m;
    *out = m;
    return ERR_NONE;
}

void mirror_close(struct mirror *m)
{
    struct mirror **at;

    if (!m)
        return;
    for (at = &m->of->handles; *at != m; at = &(*at)->next)
        CHECK(*at != NULL);
    *at = m->next;
    if (!m->of->handles)
        cached_close_files(m->of);
    free(m->held);
    free(m);
}

enum err cache_find(struct cache *c, const uint8_t id[WIRE_KEY_BYTES], struct mirror **out,
                    struct err_text *et)
{
    struct cached *m = find(c, id);

    *out = NULL;
    if (!m || memcmp(m->manifest->id, id, WIRE_KEY_BYTES) != 0)
        return ERR_NONE;
    return handle_new(m, out, et);
}

/* The manifest goes in by a temporary file: one that is there is whole. */
static enum err write_manifest(struct cache *c, const struct manifest *m, const char *folder,
                               struct err_text *et)
{
    char *path = mem_printf("%s/manifest", folder), *tmp = mem_printf("%s.new", path);
    uint8_t *bytes = mem_alloc(manifest_size(m));
    FILE *f = NULL;
    bool bad;
    enum err e = ERR_NONE;

    manifest_encode(m, bytes);
    if (mkdir(folder, 0700) == 0 || errno == EEXIST)
        f = fopen(tmp, "wbe");
    bad = !f || fwrite(bytes, 1, manifest_size(m), f) != manifest_size(m);
    if ((f && fclose(f) != 0) || bad || rename(tmp, path) != 0)
        e = errno == ENOSPC || errno == EDQUOT ? cache_disk_full(c, m->file_bytes, et)
                                               : err_system(et, "write %s", path);
    free(bytes);
    free(tmp);
    free(path);
    return e;
}

static struct manifest *copy_manifest(const struct manifest *m)
{
    struct manifest *copy = mem_alloc(sizeof *copy);

    *copy = *m;
    copy->part = mem_zalloc((size_t)m->n_parts, sizeof *m->part);
    memcpy(copy->part, m->part, (size_t)m->n_parts * sizeof *m->part);
    return copy;
}

static void remove_model(struct cache *c, struct cached *m)
{
    struct cached **at;

    for (at = &c->models; *at != m; at = &(*at)->next)
        CHECK(*at != NULL);
    *at = m->next;
    for (int i = 0; i < m->manifest->n_parts; i++)
        c->bytes -= m->part[i].received;
    cached_close_files(m);
    remove_files(m->folder);
    cached_free(m);
}

enum err cache_add(struct cache *c, const struct manifest *m, struct mirror **out,
                   struct err_text *et)
{
    struct cached *there = find(c, m->id);
    enum err e;

    *out = NULL;
    if (there && memcmp(there->manifest->id, m->id, WIRE_KEY_BYTES) != 0)
        return err_set(et, ERR_FILE, "%s is taken by another model; remove that folder",
                       there->folder);
    if (there)
        return handle_new(there, out, et);
    there = cached_new(c, copy_manifest(m));
    e = write_manifest(c, m, there->folder, et);
    if (!e)
        e = handle_new(there, out, et);
    if (e)
        remove_model(c, there);
    return e;
}

/* ---- room ---- */

struct candidate {
    struct cached *model;
    int part;
    uint64_t used;
};

static bool is_held(const struct cached *m, int part)
{
    for (const struct mirror *h = m->handles; h; h = h->next)
        if (h->held && h->held[part])
            return true;
    return false;
}

/* Least recently used first; of parts used at the same time a file's later ones, as none is of any
 * use without the first. */
static int compare_candidates(const void *a, const void *b)
{
    const struct candidate *x = a, *y = b;

    if (x->used != y->used)
        return x->used < y->used ? -1 : 1;
    return (x->part < y->part) - (x->part > y->part);
}

static struct candidate *list_candidates(const struct cache *c, const struct mirror *keep,
                                         const uint8_t *need, size_t *n, uint64_t *bytes)
{
    struct candidate *list = NULL;
    size_t cap = 0;

    *n = 0;
    *bytes = 0;
    for (struct cached *m = c->models; m; m = m->next)
        for (int i = 0; i < m->manifest->n_parts; i++) {
            if (!m->part[i].received || is_held(m, i) || (keep && need && keep->of == m && need[i]))
                continue;
            if (*n == cap) {
                cap = cap ? 2 * cap : 256;
                list = mem_realloc(list, cap, sizeof *list);
            }
            list[(*n)++] = (struct candidate){m, i, m->part[i].used};
            *bytes += m->part[i].received;
        }
    if (*n)
        qsort(list, *n, sizeof *list, compare_candidates);
    return list;
}

static bool has_nothing(const struct cached *m)
{
    for (int i = 0; i < m->manifest->n_parts; i++)
        if (m->part[i].received)
            return false;
    return true;
}

/* Takes one part out. A disk that cannot punch holes gives space back by whole files only: then the
 * model goes, if nobody has it open. */
static void evict(struct cache *c, struct cached *m, int part)
{
    bool dropped = false;

    if (m->handles || cached_open_files(m, NULL) == ERR_NONE)
        dropped = cached_drop_part(m, part, true);
    if (m->handles)
        return;
    cached_close_files(m);
    if (!dropped || has_nothing(m)) {
        log_say(&c->log, "cache", "%s made room and is gone", m->folder);
        remove_model(c, m);
    }
}

static bool is_there(const struct cache *c, const struct cached *m)
{
    for (const struct cached *k = c->models; k; k = k->next)
        if (k == m)
            return true;
    return false;
}

enum err cache_make_room(struct cache *c, uint64_t bytes, const struct mirror *keep,
                         const uint8_t *need, struct err_text *et)
{
    uint64_t over = c->limit && c->bytes + bytes > c->limit ? c->bytes + bytes - c->limit : 0;
    uint64_t have = disk_free(c->folder), missing = bytes > have ? bytes - have : 0, evictable;
    struct candidate *list;
    size_t n;
    enum err e = ERR_NONE;

    c->due = bytes;
    if (!over && !missing)
        return ERR_NONE;
    list = list_candidates(c, keep, need, &n, &evictable);
    if (over > evictable)
        e = err_set(
            et, ERR_LIMIT,
            "the weight cache %s may hold %llu MiB, and %llu MiB more than that are needed: "
            "raise its limit, or give this device less of the model",
            c->folder, (unsigned long long)(c->limit / MIB),
            (unsigned long long)((over - evictable + MIB - 1) / MIB));
    else if (missing > evictable)
        e = cache_disk_full(c, bytes - evictable, et);
    for (size_t i = 0; i < n && !e; i++) {
        if ((!c->limit || c->bytes + bytes <= c->limit) && disk_free(c->folder) >= bytes)
            break;
        if (is_there(c, list[i].model))
            evict(c, list[i].model, list[i].part);
    }
    free(list);
    if (!e && c->limit && c->bytes + bytes > c->limit)
        e = err_set(et, ERR_LIMIT,
                    "the weight cache %s may hold %llu MiB, and its disk does not let parts of it "
                    "go: remove the folder, or raise its limit",
                    c->folder, (unsigned long long)(c->limit / MIB));
    if (!e && disk_free(c->folder) < bytes)
        e = cache_disk_full(c, bytes, et);
    return e;
}
