#include "cli/files.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "cli/say.h"

int stream_read(FILE *f, const char *name, char **bytes, size_t *n)
{
    size_t cap = 1 << 16, len = 0;
    char *buf = mem_alloc(cap + 1);

    for (;;) {
        size_t got = fread(buf + len, 1, cap - len, f);

        len += got;
        if (ferror(f)) {
            say("read %s: %s", name, strerror(errno));
            break;
        }
        if (len > FILE_BYTES_MAX) {
            say("%s holds more than %d MB of text", name, FILE_BYTES_MAX >> 20);
            break;
        }
        if (feof(f)) {
            buf[len] = '\0';
            *bytes = buf;
            *n = len;
            return 0;
        }
        if (len == cap) {
            cap *= 2;
            buf = mem_realloc(buf, cap + 1, 1);
        }
    }
    free(buf);
    return -1;
}

int file_read(const char *path, char **bytes, size_t *n)
{
    FILE *f = fopen(path, "rbe");
    int failed;

    if (!f) {
        say("%s: %s", path, strerror(errno));
        return -1;
    }
    failed = stream_read(f, path, bytes, n);
    fclose(f);
    return failed;
}

void newline_drop(char *bytes, size_t *n)
{
    if (*n && bytes[*n - 1] == '\n')
        bytes[--*n] = '\0';
}
