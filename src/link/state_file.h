/* Small private files in the state folder: a key, a roster. A folder that is missing is made with
 * mode 0700, a file is written whole or not at all (temporary file, fsync, rename) with mode 0600,
 * and one that others may read or change is refused, because what it says could no longer be
 * trusted. Holding a folder open keeps other processes of ours out of these functions (flock), so
 * two that start at once agree on one identity. Any thread; a state_folder has one owner. */
#ifndef LINGUA_LINK_STATE_FILE_H
#define LINGUA_LINK_STATE_FILE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"

struct state_folder {
    int fd;
    const char *path; /* borrowed */
};

/* Makes it where needed, opens and locks it. ERR_FILE; ERR_INPUT when others may write to it. */
MUST_CHECK enum err state_folder_open(struct state_folder *f, const char *path,
                                      struct err_text *et);
void state_folder_close(struct state_folder *f);

/* The whole file; *bytes is NULL when there is none, else the caller's to wipe and free. ERR_FILE;
 * ERR_INPUT when it is larger than max, is no plain file, or is not ours alone. */
MUST_CHECK enum err state_file_read(const struct state_folder *f, const char *name, size_t max,
                                    uint8_t **bytes, size_t *len, struct err_text *et);
/* On error the old file is still there. */
MUST_CHECK enum err state_file_write(const struct state_folder *f, const char *name,
                                     const void *bytes, size_t len, struct err_text *et);

#endif
