#define _GNU_SOURCE
#include "device/mirror.h"

#include <errno.h>
#include <fcntl.h>
#include <openssl/evp.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/check.h"
#include "base/mem.h"
#include "device/mirror_impl.h"

enum { READ_BYTES = 1 << 20 };

/* ---- the state file ---- */

static void put_u64(uint8_t *p, uint64_t v)
{
    for (int i = 0; i < 8; i++)
        p[i] = (uint8_t)(v >> 8 * i);
}

static uint64_t get_u64(const uint8_t *p)
{
    uint64_t v = 0;

    for (int i = 8; i-- > 0;)
        v = v << 8 | p[i];
    return v;
}

void state_encode(const struct part_state *p, uint8_t bytes[STATE_RECORD_BYTES])
{
    put_u64(bytes, p->received);
    put_u64(bytes + 8, p->used);
    put_u64(bytes + 16, p->checked);
}

int state_decode(const struct manifest *m, const uint8_t *bytes, size_t len, uint64_t now,
                 struct part_state *out)
{
    bool whole = len == (size_t)m->n_parts * STATE_RECORD_BYTES;
    int n_bad = 0;

    for (int i = 0; i < m->n_parts; i++) {
        const uint8_t *p = bytes + (size_t)i * STATE_RECORD_BYTES;
        uint64_t size = m->part[i].size, received, used, checked;

        out[i] = (struct part_state){.received = 0};
        if (!whole) {
            n_bad++;
            continue;
        }
        received = get_u64(p);
        used = get_u64(p + 8);
        checked = get_u64(p + 16);
        if (received > size || checked > 1 || (received == size) != (checked == 1)) {
            n_bad++;
            continue;
        }
        out[i].received = received;
        out[i].checked = checked == 1;
        /* A clock that went back must not make a part immortal. */
        out[i].used = used < now ? used : now;
    }
    return n_bad;
}

void cached_save(struct cached *c, int part)
{
    uint8_t bytes[STATE_RECORD_BYTES];

    state_encode(&c->part[part], bytes);
    if (pwrite(c->state_fd, bytes, sizeof bytes, (off_t)part * STATE_RECORD_BYTES) !=
        (ssize_t)sizeof bytes)
        log_say(&c->cache->log, "cache", "write %s/state: %s", c->folder, strerror(errno));
}

/* ---- files ---- */

/* Every record afresh: what was read may have been worse than what we made of it. */
static enum err write_state(struct cached *c, struct err_text *et)
{
    size_t len = (size_t)c->manifest->n_parts * STATE_RECORD_BYTES;
    uint8_t *bytes = mem_alloc(len);
    enum err e = ERR_NONE;
    ssize_t n;

    for (int i = 0; i < c->manifest->n_parts; i++)
        state_encode(&c->part[i], bytes + (size_t)i * STATE_RECORD_BYTES);
    n = pwrite(c->state_fd, bytes, len, 0);
    if (n != (ssize_t)len || ftruncate(c->state_fd, (off_t)len) != 0)
        e = n >= 0 || errno == ENOSPC || errno == EDQUOT
                ? cache_disk_full(c->cache, c->manifest->file_bytes, et)
                : err_system(et, "write %s/state", c->folder);
    free(bytes);
    return e;
}

enum err cached_open_files(struct cached *c, struct err_text *et)
{
    char *state = mem_printf("%s/state", c->folder);
    struct stat st;
    enum err e = ERR_NONE;

    c->fd = open(c->path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    c->state_fd = open(state, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    if (c->fd < 0 || c->state_fd < 0 || fstat(c->fd, &st) != 0)
        e = err_system(et, "open %s", c->fd < 0 ? c->path : state);
    /* A file of another size is not what the state speaks of; see that it says nothing first. */
    if (!e && (uint64_t)st.st_size != c->manifest->file_bytes)
        for (int i = 0; i < c->manifest->n_parts; i++) {
            c->cache->bytes -= c->part[i].received;
            c->part[i] = (struct part_state){.received = 0};
        }
    if (!e)
        e = write_state(c, et);
    if (!e && (uint64_t)st.st_size != c->manifest->file_bytes &&
        ftruncate(c->fd, (off_t)c->manifest->file_bytes) != 0)
        e = err_system(et, "make %s %llu bytes long", c->path,
                       (unsigned long long)c->manifest->file_bytes);
    free(state);
    if (e)
        cached_close_files(c);
    return e;
}

static void stop_hashing(struct cached *c, int part)
{
    EVP_MD_CTX_free(c->hash[part]);
    c->hash[part] = NULL;
    c->hashed[part] = 0;
}

void cached_close_files(struct cached *c)
{
    for (int i = 0; i < c->manifest->n_parts; i++)
        stop_hashing(c, i);
    if (c->fd >= 0)
        close(c->fd);
    if (c->state_fd >= 0)
        close(c->state_fd);
    c->fd = c->state_fd = -1;
}

bool cached_drop_part(struct cached *c, int part, bool keep_if_not)
{
    const struct manifest_part *p = &c->manifest->part[part];
    struct part_state before = c->part[part];
    bool punched;

    if (!before.received)
        return true;
    c->part[part] = (struct part_state){.used = before.used};
    cached_save(c, part);
    punched = fallocate(c->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (off_t)p->offset,
                        (off_t)p->size) == 0;
    if (!punched && keep_if_not) {
        c->part[part] = before;
        cached_save(c, part);
        return false;
    }
    stop_hashing(c, part);
    c->cache->bytes -= before.received;
    return punched;
}

/* ---- what a handle can be asked ---- */

const struct manifest *mirror_manifest(const struct mirror *m)
{
    return m->of->manifest;
}

const char *mirror_path(const struct mirror *m)
{
    return m->of->path;
}

static const struct manifest_part *part_of(const struct mirror *m, int part)
{
    CHECK(part >= 0 && part < m->of->manifest->n_parts);
    return &m->of->manifest->part[part];
}

bool mirror_has(const struct mirror *m, int part)
{
    (void)part_of(m, part);
    return m->of->part[part].checked;
}

uint64_t mirror_received(const struct mirror *m, int part)
{
    (void)part_of(m, part);
    return m->of->part[part].received;
}

void mirror_use(struct mirror *m, int part)
{
    uint64_t now = cache_now();

    (void)part_of(m, part);
    if (m->of->part[part].used == now)
        return;
    m->of->part[part].used = now;
    cached_save(m->of, part);
}

void mirror_hold(struct mirror *m, const uint8_t *need)
{
    size_t n = (size_t)m->of->manifest->n_parts;

    if (!m->held)
        m->held = mem_alloc(n);
    memcpy(m->held, need, n);
}

void mirror_forget(struct mirror *m, int part)
{
    (void)part_of(m, part);
    (void)cached_drop_part(m->of, part, false);
}

/* ---- bytes in ---- */

/* Reads len bytes at offset of the part; false when the file does not give them. */
static bool read_part(const struct cached *c, int part, uint64_t offset, uint8_t *bytes, size_t len)
{
    for (size_t at = 0; at < len;) {
        ssize_t n = pread(c->fd, bytes + at, len - at,
                          (off_t)(c->manifest->part[part].offset + offset + at));

        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return false;
        at += (size_t)n;
    }
    return true;
}

static EVP_MD_CTX *begin_hash(void)
{
    EVP_MD_CTX *ctx = EVP_MD_CTX_new();

    CHECK(ctx && EVP_DigestInit_ex(ctx, EVP_sha256(), NULL) == 1);
    return ctx;
}

bool mirror_resume(struct mirror *m, int part, size_t max)
{
    struct cached *c = m->of;
    uint64_t received = mirror_received(m, part);
    uint8_t *buf;

    if (c->part[part].checked || c->hashed[part] == received)
        return true;
    if (!c->hash[part])
        c->hash[part] = begin_hash();
    buf = mem_alloc(READ_BYTES);
    while (max > 0 && c->hashed[part] < received) {
        uint64_t left = received - c->hashed[part];
        size_t n = left < READ_BYTES ? (size_t)left : READ_BYTES;

        n = n < max ? n : max;
        if (!read_part(c, part, c->hashed[part], buf, n)) {
            cached_drop_part(c, part, false); /* what cannot be read must come again */
            break;
        }
        CHECK(EVP_DigestUpdate(c->hash[part], buf, n) == 1);
        c->hashed[part] += n;
        max -= n;
    }
    free(buf);
    return c->hashed[part] == c->part[part].received;
}

static enum err write_bytes(struct cached *c, int part, uint64_t offset, const uint8_t *bytes,
                            size_t len, struct err_text *et)
{
    uint64_t left = c->manifest->part[part].size - offset;

    for (size_t at = 0; at < len;) {
        ssize_t n = pwrite(c->fd, bytes + at, len - at,
                           (off_t)(c->manifest->part[part].offset + offset + at));

        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0 && errno != ENOSPC && errno != EDQUOT && errno != EFBIG)
            return err_system(et, "write %s", c->path);
        if (n <= 0)
            return cache_disk_full(c->cache, c->cache->due > left ? c->cache->due : left, et);
        at += (size_t)n;
    }
    return ERR_NONE;
}

/* All bytes are there: are they the ones? */
static bool is_right(struct cached *c, int part)
{
    uint8_t sum[WIRE_KEY_BYTES];

    CHECK(EVP_DigestFinal_ex(c->hash[part], sum, NULL) == 1);
    stop_hashing(c, part);
    return memcmp(sum, c->manifest->part[part].sha256, sizeof sum) == 0;
}

enum err mirror_write(struct mirror *m, int part, uint64_t offset, const uint8_t *bytes, size_t len,
                      bool *complete, struct err_text *et)
{
    const struct manifest_part *p = part_of(m, part);
    struct cached *c = m->of;
    struct part_state *s = &c->part[part];
    enum err e;

    *complete = false;
    CHECK(!s->checked && offset == s->received && len <= p->size - offset);
    if (!mirror_resume(m, part, SIZE_MAX) || s->received != offset)
        return err_set(et, ERR_PROTO, "part %d: what had come of it cannot be read", part);
    if (len == 0)
        return ERR_NONE;
    e = write_bytes(c, part, offset, bytes, len, et);
    if (e)
        return e;
    if (!c->hash[part])
        c->hash[part] = begin_hash();
    CHECK(EVP_DigestUpdate(c->hash[part], bytes, len) == 1);
    c->hashed[part] += len;
    c->cache->bytes += len;
    c->cache->due -= len < c->cache->due ? len : c->cache->due;
    s->received += len;
    s->used = cache_now();
    if (s->received == p->size && !is_right(c, part)) {
        cached_drop_part(c, part, false);
        return err_set(et, ERR_PROTO, "part %d: what came is not what it should be", part);
    }
    *complete = s->checked = s->received == p->size;
    cached_save(c, part);
    return ERR_NONE;
}

/* ---- bytes out ---- */

enum err mirror_read(const struct mirror *m, int part, uint64_t offset, uint8_t *bytes, size_t len,
                     struct err_text *et)
{
    const struct cached *c = m->of;

    if (part < 0 || part >= c->manifest->n_parts || !c->part[part].checked)
        return err_set(et, ERR_INPUT, "part %d is not here", part);
    if (offset > c->manifest->part[part].size || len > c->manifest->part[part].size - offset)
        return err_set(et, ERR_INPUT, "part %d ends before that", part);
    if (!read_part(c, part, offset, bytes, len))
        return err_system(et, "read %s", c->path);
    return ERR_NONE;
}

enum err mirror_check(struct mirror *m, int part, bool *good, struct err_text *et)
{
    const struct manifest_part *p = part_of(m, part);
    struct cached *c = m->of;
    uint8_t *buf, sum[WIRE_KEY_BYTES];
    EVP_MD_CTX *ctx;

    (void)et;
    *good = c->part[part].checked;
    if (!*good)
        return ERR_NONE;
    ctx = begin_hash();
    buf = mem_alloc(READ_BYTES);
    for (uint64_t at = 0; at < p->size && *good;) {
        size_t n = p->size - at < READ_BYTES ? (size_t)(p->size - at) : READ_BYTES;

        *good = read_part(c, part, at, buf, n);
        CHECK(EVP_DigestUpdate(ctx, buf, *good ? n : 0) == 1);
        at += n;
    }
    CHECK(EVP_DigestFinal_ex(ctx, sum, NULL) == 1);
    *good = *good && memcmp(sum, p->sha256, sizeof sum) == 0;
    EVP_MD_CTX_free(ctx);
    free(buf);
    if (!*good)
        cached_drop_part(c, part, false);
    return ERR_NONE;
}
