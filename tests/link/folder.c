#include "folder.h"

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/check.h"

char *folder_new(void)
{
    char *path = strdup("/tmp/lingua-test-XXXXXX");

    CHECK(path && mkdtemp(path));
    return path;
}

const char *folder_path(const char *folder, const char *name)
{
    static char path[512];

    snprintf(path, sizeof path, "%s/%s", folder, name);
    return path;
}

void folder_remove(char *folder)
{
    DIR *dir = opendir(folder);
    struct dirent *entry;

    while (dir && (entry = readdir(dir)) != NULL)
        if (strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0)
            (void)remove(folder_path(folder, entry->d_name));
    if (dir)
        closedir(dir);
    (void)rmdir(folder);
    free(folder);
}

uint8_t *folder_read(const char *folder, const char *name, size_t *len)
{
    FILE *f = fopen(folder_path(folder, name), "rb");
    uint8_t *bytes = malloc(1 << 16);

    CHECK(f && bytes);
    *len = fread(bytes, 1, 1 << 16, f);
    fclose(f);
    return bytes;
}

void folder_write(const char *folder, const char *name, const void *bytes, size_t len)
{
    FILE *f = fopen(folder_path(folder, name), "wb");
    size_t written;
    int failed;

    CHECK(f);
    written = fwrite(bytes, 1, len, f);
    failed = fclose(f);
    CHECK(written == len && !failed);
    CHECK(chmod(folder_path(folder, name), 0600) == 0);
}
