#define _GNU_SOURCE
#include "cache_rig.h"

#include <fcntl.h>
#include <ftw.h>
#include <openssl/evp.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/mem.h"

void folder_make(struct folder *f)
{
    snprintf(f->path, sizeof f->path, "cache-test-XXXXXX");
    assert_non_null(mkdtemp(f->path));
}

static int remove_one(const char *path, const struct stat *st, int flag, struct FTW *where)
{
    (void)st;
    (void)flag;
    (void)where;
    return remove(path);
}

void folder_remove(struct folder *f)
{
    assert_int_equal(nftw(f->path, remove_one, 16, FTW_DEPTH | FTW_PHYS), 0);
}

static void put_u64(uint8_t *p, uint64_t v)
{
    for (int i = 0; i < 8; i++)
        p[i] = (uint8_t)(v >> 8 * i);
}

void fake_make(struct fake *f, const uint64_t *sizes, int n, uint64_t seed)
{
    uint8_t bytes[16 + 40 * FAKE_PARTS_MAX] = "LMF1";
    uint64_t total = 0, at = 0;

    assert_in_range(n, 1, FAKE_PARTS_MAX);
    for (int i = 0; i < n; i++)
        total += sizes[i];
    f->bytes = mem_alloc(total);
    for (uint64_t i = 0; i < total; i++) {
        seed = seed * 6364136223846793005u + 1442695040888963407u;
        f->bytes[i] = (uint8_t)(seed >> 56);
    }
    put_u64(bytes + 4, (uint64_t)n); /* its upper half is overwritten at once */
    put_u64(bytes + 8, total);
    for (int i = 0; i < n; at += sizes[i++]) {
        put_u64(bytes + 16 + 40 * i, sizes[i]);
        assert_int_equal(
            EVP_Digest(f->bytes + at, sizes[i], bytes + 24 + 40 * i, NULL, EVP_sha256(), NULL), 1);
    }
    assert_int_equal(manifest_decode(bytes, 16 + 40 * (size_t)n, NULL, &f->manifest, NULL),
                     ERR_NONE);
}

void fake_free(struct fake *f)
{
    free(f->bytes);
    manifest_free(f->manifest);
}

const uint8_t *fake_part(const struct fake *f, int part)
{
    return f->bytes + f->manifest->part[part].offset;
}

void fake_write(const struct fake *f, struct mirror *m, int part, size_t piece)
{
    uint64_t size = f->manifest->part[part].size;
    struct err_text et = {""};
    bool complete = false;

    while (mirror_received(m, part) < size) {
        uint64_t at = mirror_received(m, part);
        size_t n = size - at < piece ? (size_t)(size - at) : piece;

        assert_false(complete);
        if (mirror_write(m, part, at, fake_part(f, part) + at, n, &complete, &et) != ERR_NONE)
            fail_msg("%s", et.text);
        assert_int_equal(mirror_received(m, part), at + n);
    }
    assert_true(complete);
    assert_true(mirror_has(m, part));
}

static void line(void *user, const char *component, const char *text)
{
    struct lines *l = user;

    (void)component;
    l->n++;
    if (!l->wanted || !strstr(text, l->wanted))
        return;
    l->n_wanted++;
    snprintf(l->last, sizeof l->last, "%s", text);
}

struct log lines_log(struct lines *l)
{
    return (struct log){.line = line, .user = l};
}

struct plan plan_in_three(int n_modules, bool ends)
{
    int a = n_modules / 3, b = 2 * n_modules / 3;
    struct plan p = {.epoch = 1, .n_devices = 3, .n_stages = 3};

    p.stage[0] = (struct plan_stage){0, 0, a};
    p.stage[1] = (struct plan_stage){1, a, b};
    p.stage[2] = (struct plan_stage){2, b, n_modules};
    if (ends) {
        p.stage[2].end = n_modules - 1;
        p.stage[3] = (struct plan_stage){0, n_modules - 1, n_modules};
        p.n_stages = 4;
    }
    return p;
}

uint8_t *file_read(const char *path, size_t *len)
{
    FILE *f = fopen(path, "rb");
    struct stat st;
    uint8_t *bytes;

    assert_non_null(f);
    assert_int_equal(fstat(fileno(f), &st), 0);
    bytes = mem_alloc((size_t)st.st_size);
    *len = fread(bytes, 1, (size_t)st.st_size, f);
    assert_int_equal(*len, st.st_size);
    fclose(f);
    return bytes;
}

void file_write(const char *path, const void *bytes, size_t len)
{
    FILE *f = fopen(path, "wb");

    assert_non_null(f);
    assert_int_equal(fwrite(bytes, 1, len, f), len);
    assert_int_equal(fclose(f), 0);
}

void file_flip(const char *path, uint64_t offset)
{
    int fd = open(path, O_RDWR | O_CLOEXEC);
    uint8_t byte;

    assert_true(fd >= 0);
    assert_int_equal(pread(fd, &byte, 1, (off_t)offset), 1);
    byte ^= 0x10;
    assert_int_equal(pwrite(fd, &byte, 1, (off_t)offset), 1);
    close(fd);
}
