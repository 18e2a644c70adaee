#define _GNU_SOURCE
#include "device/manifest.h"

#include <errno.h>
#include <fcntl.h>
#include <openssl/evp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/check.h"
#include "base/mem.h"
#include "model/modelfile.h"

enum {
    HEAD_BYTES = 16,
    PART_BYTES = 8 + WIRE_KEY_BYTES,
    READ_BYTES = 1 << 20,
    /* What is remembered: "LMR1", zero, size, time of modification and of change in nanoseconds,
     * the id; then the manifest. */
    MEMORY_BYTES = 4 + 4 + 3 * 8 + WIRE_KEY_BYTES,
};

_Static_assert(HEAD_BYTES + (uint64_t)WIRE_PARTS_MAX * PART_BYTES <= WIRE_MANIFEST_MAX,
               "any manifest fits in a frame");

/* ---- little-endian numbers ---- */

static void put_u32(uint8_t *p, uint32_t v)
{
    for (int i = 0; i < 4; i++)
        p[i] = (uint8_t)(v >> 8 * i);
}

static void put_u64(uint8_t *p, uint64_t v)
{
    for (int i = 0; i < 8; i++)
        p[i] = (uint8_t)(v >> 8 * i);
}

static uint64_t get(const uint8_t *p, int n)
{
    uint64_t v = 0;

    for (int i = n; i-- > 0;)
        v = v << 8 | p[i];
    return v;
}

/* ---- to and from bytes ---- */

static struct manifest *manifest_new(int n_parts, uint64_t file_bytes)
{
    struct manifest *m = mem_zalloc(1, sizeof *m);

    CHECK(n_parts >= 1 && n_parts <= WIRE_PARTS_MAX);
    m->n_parts = n_parts;
    m->file_bytes = file_bytes;
    m->part = mem_zalloc((size_t)n_parts, sizeof *m->part);
    return m;
}

void manifest_free(struct manifest *m)
{
    if (!m)
        return;
    free(m->part);
    free(m);
}

size_t manifest_size(const struct manifest *m)
{
    return HEAD_BYTES + (size_t)m->n_parts * PART_BYTES;
}

void manifest_encode(const struct manifest *m, uint8_t *bytes)
{
    memcpy(bytes, "LMF1", 4);
    put_u32(bytes + 4, (uint32_t)m->n_parts);
    put_u64(bytes + 8, m->file_bytes);
    bytes += HEAD_BYTES;
    for (int i = 0; i < m->n_parts; i++, bytes += PART_BYTES) {
        put_u64(bytes, m->part[i].size);
        memcpy(bytes + 8, m->part[i].sha256, WIRE_KEY_BYTES);
    }
}

static void hash(const void *bytes, size_t len, uint8_t out[WIRE_KEY_BYTES])
{
    CHECK(EVP_Digest(bytes, len, out, NULL, EVP_sha256(), NULL) == 1);
}

/* The id is made of what is sent, so that whoever asks for a model by its id can tell. */
static void name_manifest(struct manifest *m)
{
    uint8_t *bytes = mem_alloc(manifest_size(m));

    manifest_encode(m, bytes);
    hash(bytes, manifest_size(m), m->id);
    free(bytes);
}

enum err manifest_decode(const uint8_t *bytes, size_t len, const uint8_t id[WIRE_KEY_BYTES],
                         struct manifest **out, struct err_text *et)
{
    uint64_t n, file_bytes, at = 0;
    struct manifest *m;

    *out = NULL;
    if (len < HEAD_BYTES || memcmp(bytes, "LMF1", 4) != 0)
        return err_set(et, ERR_PROTO, "manifest: these bytes are none");
    n = get(bytes + 4, 4);
    file_bytes = get(bytes + 8, 8);
    if (n < 1 || n > WIRE_PARTS_MAX || len != HEAD_BYTES + n * PART_BYTES)
        return err_set(et, ERR_PROTO, "manifest: %llu parts in %zu bytes", (unsigned long long)n,
                       len);
    if (file_bytes > INT64_MAX)
        return err_set(et, ERR_PROTO, "manifest: of an impossibly large file");
    m = manifest_new((int)n, file_bytes);
    for (int i = 0; i < m->n_parts; i++) {
        const uint8_t *p = bytes + HEAD_BYTES + (size_t)i * PART_BYTES;

        m->part[i].offset = at;
        m->part[i].size = get(p, 8);
        memcpy(m->part[i].sha256, p + 8, WIRE_KEY_BYTES);
        if (m->part[i].size < 1 || m->part[i].size > file_bytes - at) {
            manifest_free(m);
            return err_set(et, ERR_PROTO, "manifest: part %d does not fit into the file", i);
        }
        at += m->part[i].size;
    }
    if (at != file_bytes) {
        manifest_free(m);
        return err_set(et, ERR_PROTO, "manifest: its parts are %llu bytes and its file is %llu",
                       (unsigned long long)at, (unsigned long long)file_bytes);
    }
    hash(bytes, len, m->id);
    if (id && memcmp(id, m->id, WIRE_KEY_BYTES) != 0) {
        manifest_free(m);
        return err_set(et, ERR_PROTO, "manifest: it is another model's");
    }
    *out = m;
    return ERR_NONE;
}

/* ---- making one ---- */

struct hashing {
    const char *path;
    int fd;
    uint8_t *buf; /* (READ_BYTES) */
    uint64_t done, total;
    bool (*progress)(void *user, uint64_t done, uint64_t total);
    void *user;
};

static enum err hash_part(struct hashing *h, struct manifest_part *p, struct err_text *et)
{
    EVP_MD_CTX *ctx = EVP_MD_CTX_new();
    enum err e = ERR_NONE;

    CHECK(ctx && EVP_DigestInit_ex(ctx, EVP_sha256(), NULL) == 1);
    for (uint64_t at = 0; at < p->size && !e;) {
        size_t want = p->size - at < READ_BYTES ? (size_t)(p->size - at) : READ_BYTES;
        ssize_t got = pread(h->fd, h->buf, want, (off_t)(p->offset + at));

        if (got < 0 && errno == EINTR)
            continue;
        if (got <= 0) {
            e = got < 0 ? err_system(et, "read %s", h->path)
                        : err_set(et, ERR_FILE, "read %s: it became shorter meanwhile", h->path);
            break;
        }
        CHECK(EVP_DigestUpdate(ctx, h->buf, (size_t)got) == 1);
        at += (uint64_t)got;
        h->done += (uint64_t)got;
        if (h->progress && !h->progress(h->user, h->done, h->total))
            e = err_set(et, ERR_CANCELLED, "hashing %s was stopped", h->path);
    }
    if (!e)
        CHECK(EVP_DigestFinal_ex(ctx, p->sha256, NULL) == 1);
    EVP_MD_CTX_free(ctx);
    return e;
}

static int compare_offsets(const void *a, const void *b)
{
    const uint64_t *x = a, *y = b;

    return (*x > *y) - (*x < *y);
}

/* The parts of a file that modelfile_open believes: their places alone. */
static enum err lay_out(const struct modelfile *mf, struct manifest **out, struct err_text *et)
{
    int n = modelfile_n_tensors(mf);
    uint64_t *start;
    struct manifest *m;

    if (n >= WIRE_PARTS_MAX)
        return err_set(et, ERR_LIMIT, "%s: has %d tensors; at most %d can be shipped",
                       modelfile_path(mf), n, WIRE_PARTS_MAX - 1);
    start = mem_zalloc((size_t)n + 2, sizeof *start);
    for (int i = 0; i < n; i++)
        start[i + 1] = modelfile_tensor(mf, i)->offset;
    start[n + 1] = modelfile_size(mf);
    qsort(start, (size_t)n + 2, sizeof *start, compare_offsets);
    m = manifest_new(n + 1, modelfile_size(mf));
    for (int i = 0; i <= n; i++) {
        m->part[i].offset = start[i];
        m->part[i].size = start[i + 1] - start[i];
        CHECK(m->part[i].size > 0); /* a tensor has bytes, and a header lies before the first */
    }
    free(start);
    *out = m;
    return ERR_NONE;
}

enum err manifest_make(const char *path, bool (*progress)(void *, uint64_t, uint64_t), void *user,
                       struct manifest **out, struct err_text *et)
{
    struct hashing h = {.path = path, .progress = progress, .user = user};
    struct modelfile *mf;
    struct manifest *m = NULL;
    enum err e = modelfile_open(path, &mf, et);

    *out = NULL;
    if (e)
        return e;
    e = lay_out(mf, &m, et);
    modelfile_close(mf);
    if (e)
        return e;
    h.fd = open(path, O_RDONLY | O_CLOEXEC);
    if (h.fd < 0) {
        manifest_free(m);
        return err_system(et, "open %s", path);
    }
    h.buf = mem_alloc(READ_BYTES);
    h.total = m->file_bytes;
    for (int i = 0; i < m->n_parts && !e; i++)
        e = hash_part(&h, &m->part[i], et);
    free(h.buf);
    close(h.fd);
    if (e) {
        manifest_free(m);
        return e;
    }
    name_manifest(m);
    *out = m;
    return ERR_NONE;
}

/* ---- remembering ---- */

/* What must be the same for a file to be believed unchanged, in MEMORY_BYTES' order. */
static void describe_file(const struct stat *st, uint8_t bytes[MEMORY_BYTES])
{
    memset(bytes, 0, MEMORY_BYTES);
    memcpy(bytes, "LMR1", 4);
    put_u64(bytes + 8, (uint64_t)st->st_size);
    put_u64(bytes + 16, (uint64_t)st->st_mtim.tv_sec * 1000000000 + (uint64_t)st->st_mtim.tv_nsec);
    put_u64(bytes + 24, (uint64_t)st->st_ctim.tv_sec * 1000000000 + (uint64_t)st->st_ctim.tv_nsec);
}

/* NULL when nothing is remembered that can be believed. */
static struct manifest *recall(const char *memory, const struct stat *st)
{
    size_t cap = MEMORY_BYTES + HEAD_BYTES + (size_t)WIRE_PARTS_MAX * PART_BYTES + 1, len;
    FILE *f = fopen(memory, "rbe");
    struct manifest *m = NULL;
    uint8_t expected[MEMORY_BYTES], *bytes;

    if (!f)
        return NULL;
    bytes = mem_alloc(cap);
    len = fread(bytes, 1, cap, f);
    fclose(f);
    describe_file(st, expected);
    if (len >= MEMORY_BYTES && memcmp(bytes, expected, MEMORY_BYTES - WIRE_KEY_BYTES) == 0 &&
        manifest_decode(bytes + MEMORY_BYTES, len - MEMORY_BYTES,
                        bytes + MEMORY_BYTES - WIRE_KEY_BYTES, &m, NULL) == ERR_NONE &&
        m->file_bytes != (uint64_t)st->st_size) {
        manifest_free(m);
        m = NULL;
    }
    free(bytes);
    return m;
}

static enum err remember(const char *memory, const struct stat *st, const struct manifest *m,
                         struct err_text *et)
{
    size_t len = MEMORY_BYTES + manifest_size(m);
    uint8_t *bytes = mem_alloc(len);
    char *tmp = mem_printf("%s.new", memory);
    FILE *f = fopen(tmp, "wbe");
    bool bad;
    enum err e = ERR_NONE;

    describe_file(st, bytes);
    memcpy(bytes + MEMORY_BYTES - WIRE_KEY_BYTES, m->id, WIRE_KEY_BYTES);
    manifest_encode(m, bytes + MEMORY_BYTES);
    bad = !f || fwrite(bytes, 1, len, f) != len;
    if ((f && fclose(f) != 0) || bad || rename(tmp, memory) != 0) {
        e = err_system(et, "write %s", memory);
        unlink(tmp);
    }
    free(tmp);
    free(bytes);
    return e;
}

static bool same_file(const struct stat *a, const struct stat *b)
{
    uint8_t x[MEMORY_BYTES], y[MEMORY_BYTES];

    describe_file(a, x);
    describe_file(b, y);
    return a->st_dev == b->st_dev && a->st_ino == b->st_ino && memcmp(x, y, sizeof x) == 0;
}

enum err manifest_remembered(const char *path, const char *folder,
                             bool (*progress)(void *, uint64_t, uint64_t), void *user,
                             struct manifest **out, struct err_text *et)
{
    struct stat before, after;
    char *memory;
    enum err e = ERR_NONE;

    *out = NULL;
    if (stat(path, &before) != 0)
        return err_system(et, "%s", path);
    memory = mem_printf("%s/manifest-%llx-%llx", folder, (unsigned long long)before.st_dev,
                        (unsigned long long)before.st_ino);
    *out = recall(memory, &before);
    if (*out)
        goto out;
    e = manifest_make(path, progress, user, out, et);
    if (e)
        goto out;
    /* A file that someone writes to while it is read has no manifest worth keeping. */
    if (stat(path, &after) != 0 || !same_file(&before, &after)) {
        e = err_set(et, ERR_FILE, "%s: it was changed while it was read; try again", path);
        manifest_free(*out);
        *out = NULL;
        goto out;
    }
    e = remember(memory, &before, *out, et);
    if (e) {
        manifest_free(*out);
        *out = NULL;
    }
out:
    free(memory);
    return e;
}

/* ---- what a device needs ---- */

/* The part that begins at offset, or -1. */
static int part_at(const struct manifest *mf, uint64_t offset)
{
    int low = 0, high = mf->n_parts;

    while (low < high) {
        int mid = low + (high - low) / 2;

        if (mf->part[mid].offset == offset)
            return mid;
        if (mf->part[mid].offset < offset)
            low = mid + 1;
        else
            high = mid;
    }
    return -1;
}

struct marking {
    const struct manifest *mf;
    uint8_t *need;
    const struct mf_tensor *strange; /* a tensor that is no part */
};

static void mark(void *user, const struct mf_tensor *t)
{
    struct marking *k = user;
    int part = part_at(k->mf, t->offset);

    if (part < 1 || t->size > k->mf->part[part].size)
        k->strange = t;
    else
        k->need[part] = 1;
}

enum err manifest_needs(const struct manifest *mf, const struct model *m, const struct plan *p,
                        int device, uint8_t *need, uint64_t *bytes, struct err_text *et)
{
    const struct modelfile *file = model_file(m);
    struct marking k = {.mf = mf, .need = need};
    enum err e = plan_check(p, model_n_modules(m), et);

    if (e)
        return e;
    if (device < 0 || device >= p->n_devices)
        return err_set(et, ERR_INPUT, "plan: device %d of %d", device, p->n_devices);
    if (mf->file_bytes != modelfile_size(file) || mf->n_parts != modelfile_n_tensors(file) + 1)
        return err_set(et, ERR_INPUT, "%s: the manifest is another file's", modelfile_path(file));
    memset(need, 0, (size_t)mf->n_parts);
    need[0] = 1;
    for (int i = 0; i < p->n_stages; i++)
        if (p->stage[i].device == device)
            for (int k_module = p->stage[i].first; k_module < p->stage[i].end; k_module++)
                model_module_tensors(m, k_module, mark, &k);
    if (k.strange)
        return err_set(et, ERR_INPUT, "%s: tensor %s: the manifest has no such part",
                       modelfile_path(file), k.strange->name);
    *bytes = 0;
    for (int i = 0; i < mf->n_parts; i++)
        *bytes += need[i] ? mf->part[i].size : 0;
    return ERR_NONE;
}

void manifest_part_name(const struct manifest *mf, const struct model *m, int part,
                        char buf[MANIFEST_PART_MAX_SHOWN + 16])
{
    size_t cap = MANIFEST_PART_MAX_SHOWN + 16;

    CHECK(part >= 0 && part < mf->n_parts);
    snprintf(buf, cap, part == 0 ? "header" : "part %d", part);
    if (!m || part == 0)
        return;
    for (int i = 0; i < modelfile_n_tensors(model_file(m)); i++) {
        const struct mf_tensor *t = modelfile_tensor(model_file(m), i);

        if (t->offset == mf->part[part].offset)
            snprintf(buf, cap, "tensor %s", t->name);
    }
}
