/* The manifest of a model: what its file is made of, so that any piece of it can be asked for,
 * checked and told apart from every other model's.
 *
 * Parts tile the file: part 0 is everything before the first tensor (metadata, vocabulary, the
 * tensors' records), part i is the i-th tensor in order of its place in the file, with the padding
 * behind it. So a mirror that has all parts is the file, byte for byte.
 *
 *     offset 0   "LMF1"
 *            4   u32  number of parts n
 *            8   u64  bytes of the file
 *           16   n times: u64 bytes of the part, 32 bytes SHA-256 of them
 *
 * Numbers are little-endian. A model's id is the SHA-256 of its manifest. Immutable after it was
 * made; any thread. */
#ifndef LINGUA_DEVICE_MANIFEST_H
#define LINGUA_DEVICE_MANIFEST_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "model/model.h"
#include "plan/plan.h"
#include "wire/cluster.h"

enum { MANIFEST_PART_MAX_SHOWN = 64 };

struct manifest {
    uint8_t id[WIRE_KEY_BYTES];
    uint64_t file_bytes;
    int n_parts;
    struct manifest_part {
        uint64_t offset, size; /* of the file */
        uint8_t sha256[WIRE_KEY_BYTES];
    } * part; /* (n_parts) */
};

/* Hashes the whole file. progress may be NULL; a call that returns false stops it
 * (ERR_CANCELLED). */
MUST_CHECK enum err manifest_make(const char *path,
                                  bool (*progress)(void *user, uint64_t done, uint64_t total),
                                  void *user, struct manifest **out, struct err_text *et);
/* The same, remembered in folder by the file's device, inode, size and time of change. */
MUST_CHECK enum err manifest_remembered(const char *path, const char *folder,
                                        bool (*progress)(void *user, uint64_t done, uint64_t total),
                                        void *user, struct manifest **out, struct err_text *et);
/* From bytes of a peer or a file. ERR_PROTO: no manifest; sizes that do not add up; not of that id
 * (NULL = any). */
MUST_CHECK enum err manifest_decode(const uint8_t *bytes, size_t len,
                                    const uint8_t id[WIRE_KEY_BYTES], struct manifest **out,
                                    struct err_text *et);
size_t manifest_size(const struct manifest *m);
void manifest_encode(const struct manifest *m, uint8_t *bytes); /* manifest_size bytes */
void manifest_free(struct manifest *m);

/* need[part] = 1 for part 0 and every tensor of the device's modules under the plan; m is the model
 * as opened from the file or from a mirror that holds part 0. ERR_INPUT when the two do not belong
 * together. Returns bytes needed by *bytes. */
MUST_CHECK enum err manifest_needs(const struct manifest *mf, const struct model *m,
                                   const struct plan *p, int device, uint8_t *need, uint64_t *bytes,
                                   struct err_text *et);
/* "tensor blk.3.ffn_up.weight", "header", "part 7" when m is NULL */
void manifest_part_name(const struct manifest *mf, const struct model *m, int part,
                        char buf[MANIFEST_PART_MAX_SHOWN + 16]);

#endif
