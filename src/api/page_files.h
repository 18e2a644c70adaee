/* The page that people look at: the files of web/, bundled and made a part of the program when it is
 * built (tools/embed-page.mjs writes the table). */
#ifndef LINGUA_API_PAGE_FILES_H
#define LINGUA_API_PAGE_FILES_H

#include <stddef.h>

struct page_file {
    const char *path, *type; /* "/" or "/app.js"; its media type */
    const char *etag;        /* of its bytes; in no quotes */
    const char *bytes;
    size_t n;
    const char *gz; /* the same, gzip'ed */
    size_t n_gz;
};
extern const struct page_file page_files[];
extern const int page_n_files;

#endif
