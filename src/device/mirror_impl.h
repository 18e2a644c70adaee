/* What cache.c (the folder, room, eviction) and mirror.c (one model's file) know of each other. */
#ifndef LINGUA_DEVICE_MIRROR_IMPL_H
#define LINGUA_DEVICE_MIRROR_IMPL_H

#include <openssl/types.h>

#include "device/mirror.h"

enum { STATE_RECORD_BYTES = 24 };

struct part_state {
    uint64_t received, used;
    bool checked; /* then received is the part's size; else it is less */
};

/* A model in the cache, whether someone has it open or not. */
struct cached {
    struct cache *cache;
    struct cached *next;
    struct manifest *manifest;
    char *folder, *path;     /* path: of model.gguf */
    struct part_state *part; /* (n_parts), as the state file says */
    int fd, state_fd;        /* -1 while no handle is open */
    struct mirror *handles;
    /* (n_parts) of the first hashed[i] bytes of the part; NULL and 0 when nothing is under way */
    EVP_MD_CTX **hash;
    uint64_t *hashed;
};

struct mirror {
    struct cached *of;
    struct mirror *next;
    uint8_t *held; /* (n_parts), or NULL */
};

struct cache {
    char *folder;
    int lock_fd;
    uint64_t limit, bytes;
    uint64_t due; /* bytes that were promised room and have not come yet */
    struct log log;
    struct cached *models;
};

/* Reads a state file's bytes. What contradicts itself is as if it had never come; returns how many
 * records did. now: no part was used later than that. */
int state_decode(const struct manifest *m, const uint8_t *bytes, size_t len, uint64_t now,
                 struct part_state *out);
void state_encode(const struct part_state *p, uint8_t bytes[STATE_RECORD_BYTES]);

/* Opens both files, which are made as they should be when they are not. */
MUST_CHECK enum err cached_open_files(struct cached *c, struct err_text *et);
void cached_close_files(struct cached *c);
/* Writes a part's record; what cannot be written is only logged: the bytes are then fetched again
 * after a restart. */
void cached_save(struct cached *c, int part);
/* The part's bytes are no longer there: says so, then gives the disk its space back. false: this
 * disk cannot, and nothing has changed (keep_if_not), or the part is forgotten all the same. */
bool cached_drop_part(struct cached *c, int part, bool keep_if_not);
void cached_free(struct cached *c);

uint64_t cache_now(void); /* seconds since 1970 */
/* "the disk that holds FOLDER is full ..." */
enum err cache_disk_full(const struct cache *c, uint64_t missing, struct err_text *et);

#endif
