#define _GNU_SOURCE
#include "link/state_file.h"

#include <errno.h>
#include <fcntl.h>
#include <openssl/crypto.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/mem.h"

enum { NAME_BYTES = 64 };

/* Makes path and what is missing above it; what is there already is left alone. */
static int make_folders(const char *path)
{
    char *copy = mem_strdup(path);
    int r = 0;

    for (char *p = copy + 1; *copy && r == 0; p++) {
        char c = *p;

        if (c != '/' && c != '\0')
            continue;
        *p = '\0';
        if (mkdir(copy, 0700) != 0 && errno != EEXIST)
            r = -1;
        *p = c;
        if (c == '\0')
            break;
    }
    free(copy);
    return r;
}

enum err state_folder_open(struct state_folder *f, const char *path, struct err_text *et)
{
    struct stat st;
    int r;

    *f = (struct state_folder){-1, path};
    if (make_folders(path) != 0)
        return err_system(et, "make the state folder %s", path);
    f->fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (f->fd < 0 || fstat(f->fd, &st) != 0) {
        enum err e = err_system(et, "open the state folder %s", path);

        state_folder_close(f);
        return e;
    }
    if (st.st_mode & (S_IWGRP | S_IWOTH)) {
        state_folder_close(f);
        return err_set(et, ERR_INPUT,
                       "state folder %s: other users may write to it; run: chmod go-w '%s'", path,
                       path);
    }
    do
        r = flock(f->fd, LOCK_EX);
    while (r != 0 && errno == EINTR);
    /* Some file systems of phones know no locks; then two first starts at once are on their own. */
    return ERR_NONE;
}

void state_folder_close(struct state_folder *f)
{
    if (f->fd >= 0)
        close(f->fd);
    f->fd = -1;
}

/* The file's size is looked at before memory is spent, and what is read is bounded by it. */
static enum err read_whole(int fd, const struct stat *st, uint8_t **bytes, size_t *len)
{
    size_t size = (size_t)st->st_size, got = 0;
    uint8_t *p = mem_alloc(size + 1); /* one more, to have something for an empty file */

    while (got < size) {
        ssize_t n = read(fd, p + got, size - got);

        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0) {
            OPENSSL_clear_free(p, size + 1);
            return ERR_FILE;
        }
        if (n == 0)
            break;
        got += (size_t)n;
    }
    *bytes = p;
    *len = got;
    return ERR_NONE;
}

enum err state_file_read(const struct state_folder *f, const char *name, size_t max,
                         uint8_t **bytes, size_t *len, struct err_text *et)
{
    struct stat st;
    enum err e = ERR_NONE;
    int fd = openat(f->fd, name, O_RDONLY | O_NOFOLLOW | O_CLOEXEC | O_NONBLOCK);

    *bytes = NULL;
    *len = 0;
    if (fd < 0 && errno == ENOENT)
        return ERR_NONE;
    if (fd < 0 || fstat(fd, &st) != 0)
        e = err_system(et, "read %s/%s", f->path, name);
    else if (!S_ISREG(st.st_mode))
        e = err_set(et, ERR_INPUT, "%s/%s is not a plain file", f->path, name);
    else if (st.st_mode & (S_IRWXG | S_IRWXO))
        e = err_set(et, ERR_INPUT, "%s/%s: other users may use it; run: chmod 600 '%s/%s'", f->path,
                    name, f->path, name);
    else if (st.st_uid != geteuid())
        e = err_set(et, ERR_INPUT, "%s/%s belongs to another user", f->path, name);
    else if ((uintmax_t)st.st_size > max)
        e = err_set(et, ERR_INPUT, "%s/%s is too large to be one of ours", f->path, name);
    else if (read_whole(fd, &st, bytes, len))
        e = err_system(et, "read %s/%s", f->path, name);
    if (fd >= 0)
        close(fd);
    return e;
}

static int write_all(int fd, const uint8_t *bytes, size_t len)
{
    while (len) {
        ssize_t n = write(fd, bytes, len);

        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return -1;
        bytes += n;
        len -= (size_t)n;
    }
    return 0;
}

enum err state_file_write(const struct state_folder *f, const char *name, const void *bytes,
                          size_t len, struct err_text *et)
{
    char temporary[NAME_BYTES];
    enum err e = ERR_NONE;
    int fd;

    /* One name is enough: the folder is locked, and what lies there was left by a power cut. */
    snprintf(temporary, sizeof temporary, "%s.new", name);
    (void)unlinkat(f->fd, temporary, 0);
    fd = openat(f->fd, temporary, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
    if (fd < 0)
        return err_system(et, "write %s/%s", f->path, temporary);
    if (write_all(fd, bytes, len) != 0 || fsync(fd) != 0)
        e = err_system(et, "write %s/%s", f->path, temporary);
    if (close(fd) != 0 && !e)
        e = err_system(et, "write %s/%s", f->path, temporary);
    if (!e && renameat(f->fd, temporary, f->fd, name) != 0)
        e = err_system(et, "rename %s/%s to %s", f->path, temporary, name);
    if (e)
        (void)unlinkat(f->fd, temporary, 0);
    else
        (void)fsync(f->fd); /* the name, too; not every file system has that for folders */
    return e;
}
