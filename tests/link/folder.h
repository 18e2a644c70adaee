/* A state folder for one test, and its files byte by byte. */
#ifndef LINGUA_TESTS_LINK_FOLDER_H
#define LINGUA_TESTS_LINK_FOLDER_H

#include <stddef.h>
#include <stdint.h>

/* A fresh empty folder, mode 0700; removed by folder_remove with its files. */
char *folder_new(void);
void folder_remove(char *folder);

/* "folder/name", in a buffer of its own that the next call uses again. */
const char *folder_path(const char *folder, const char *name);
uint8_t *folder_read(const char *folder, const char *name, size_t *len);
void folder_write(const char *folder, const char *name, const void *bytes, size_t len);

#endif
