#define _GNU_SOURCE
#include "model/blank.h"

#include <errno.h>
#include <fcntl.h>
#include <ggml.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/mem.h"
#include "model/model_impl.h"

/* Not every file system knows nameless files; a name that is gone at once does as well. */
static enum err open_nameless(const char *folder, int *fd, struct err_text *et)
{
    char *path;

#ifdef O_TMPFILE
    *fd = open(folder, O_TMPFILE | O_RDWR | O_CLOEXEC, S_IRUSR | S_IWUSR);
    if (*fd >= 0)
        return ERR_NONE;
#endif
    path = mem_printf("%s/blank.XXXXXX", folder);
    *fd = mkostemp(path, O_CLOEXEC);
    if (*fd >= 0)
        unlink(path);
    free(path);
    return *fd >= 0 ? ERR_NONE : err_system(et, "make a file in %s", folder);
}

static enum err write_at(int fd, const void *bytes, size_t len, uint64_t at, struct err_text *et)
{
    const uint8_t *p = bytes;

    while (len > 0) {
        ssize_t n = pwrite(fd, p, len, (off_t)at);

        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return err_system(et, "write a file to measure with");
        p += n;
        at += (uint64_t)n;
        len -= (size_t)n;
    }
    return ERR_NONE;
}

/* Everything in front of the first tensor. */
static enum err write_header(const struct modelfile *mf, int fd, struct err_text *et)
{
    uint64_t len = modelfile_size(mf);
    const uint8_t *bytes = NULL;

    for (int i = 0; i < modelfile_n_tensors(mf); i++) {
        const struct mf_tensor *t = modelfile_tensor(mf, i);

        bytes = (const uint8_t *)modelfile_data(mf, t) - t->offset;
        len = t->offset < len ? t->offset : len;
    }
    return bytes ? write_at(fd, bytes, (size_t)len, 0, et) : ERR_NONE;
}

/* One row of what the tensor is to hold. */
static void fill_row(float *row, int64_t n, bool ones, uint32_t *random)
{
    for (int64_t i = 0; i < n; i++) {
        *random = *random * 1664525 + 1013904223;
        row[i] = ones ? 1.0f : (float)(*random >> 8) / (1 << 23) - 1.0f;
    }
}

static enum err write_tensor(int fd, const struct mf_tensor *t, bool ones, struct err_text *et)
{
    ggml_from_float_t from_float = ggml_get_type_traits((enum ggml_type)t->type)->from_float_ref;
    size_t row_bytes = (size_t)(t->size / (uint64_t)t->ne[1]);
    float *row = mem_alloc((size_t)t->ne[0] * sizeof *row);
    uint8_t *bytes = mem_alloc(row_bytes);
    uint32_t random = 4711;
    enum err e = ERR_NONE;

    for (int64_t i = 0; i < t->ne[1] && !e; i++) {
        fill_row(row, t->ne[0], ones, &random);
        if (t->type == GGML_TYPE_F32)
            memcpy(bytes, row, row_bytes);
        else if (from_float)
            from_float(row, bytes, t->ne[0]);
        else
            break; /* a type nobody quantises to without data about its use; zeros must do */
        e = write_at(fd, bytes, row_bytes, t->offset + (uint64_t)i * row_bytes, et);
    }
    free(bytes);
    free(row);
    return e;
}

static enum err write_module(const struct model *m, int module, int fd, struct err_text *et)
{
    const struct module_info *mi = model_module(m, module);
    enum err e = ERR_NONE;

    for (int r = 0; r < ROLES_END && !e; r++) {
        const struct mf_tensor *t;

        if (tensors_module((enum role)r) != mi->kind ||
            (!tensors_is_vector((enum role)r) && r != T_ROUTER))
            continue;
        t = tensors_get(&m->bound, (enum role)r, mi->layer);
        if (t)
            e = write_tensor(fd, t, r != T_ROUTER, et);
    }
    return e;
}

enum err model_open_blank(const struct model *m, const uint8_t *run, const char *folder,
                          struct model **out, struct err_text *et)
{
    char path[64];
    int fd;
    enum err e = open_nameless(folder, &fd, et);

    *out = NULL;
    if (e)
        return e;
    if (ftruncate(fd, (off_t)modelfile_size(m->file)) < 0)
        e = err_system(et, "make a file of %llu bytes in %s",
                       (unsigned long long)modelfile_size(m->file), folder);
    if (!e)
        e = write_header(m->file, fd, et);
    for (int i = 0; i < m->n_modules && !e; i++)
        if (run[i])
            e = write_module(m, i, fd, et);
    snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    if (!e)
        e = model_open(path, out, et);
    close(fd);
    return e;
}
