/* What modelfile.c, modelfile_keys.c and modelfile_tokenizer.c share; nobody else includes this.
 *
 * Keys and array elements are read in place from the mapping, which has no alignment to count on:
 * always through the modelfile_load_* functions. */
#ifndef LINGUA_MODEL_MODELFILE_IMPL_H
#define LINGUA_MODEL_MODELFILE_IMPL_H

#include "model/modelfile.h"

enum gguf_value {
    VALUE_U8 = 0,
    VALUE_I8 = 1,
    VALUE_U16 = 2,
    VALUE_I16 = 3,
    VALUE_U32 = 4,
    VALUE_I32 = 5,
    VALUE_F32 = 6,
    VALUE_BOOL = 7,
    VALUE_STRING = 8,
    VALUE_ARRAY = 9,
    VALUE_U64 = 10,
    VALUE_I64 = 11,
    VALUE_F64 = 12,
    VALUE_COUNT = 13,
};

/* One metadata pair. A scalar has n = 1; an array's elements follow one another from data on. */
struct mf_key {
    const char *name; /* name_len bytes in the mapping, no NUL at the end, none inside */
    uint32_t name_len;
    uint8_t is_array;
    uint8_t type; /* enum gguf_value: of the scalar, or of an array's elements */
    uint64_t n;
    const uint8_t *data; /* a string starts with its u64 length */
    const char *str;     /* scalar string with a NUL at the end; NULL when a NUL is inside or it is
                            longer than STRING_MAX */
};

struct mf_record {
    struct mf_tensor t;
    char name[64]; /* t.name points here */
};

struct modelfile {
    char *path;
    char *shown; /* path as messages show it */
    const uint8_t *bytes;
    uint64_t size;
    bool mapped;
    uint32_t n_keys, n_tensors;
    uint64_t alignment;
    uint64_t data_start;               /* where tensor offsets count from in the file */
    struct mf_key *keys;               /* sorted by name */
    char *strings;                     /* what mf_key.str points into */
    struct mf_record *tensors;         /* in the file's order */
    const struct mf_tensor **by_name;  /* sorted */
    const struct mf_tensor **by_place; /* sorted by offset */
};

enum {
    SHOWN_MAX = 64,
    STRING_MAX = 1 << 20, /* bytes of a scalar string we hand out */
};

/* Bytes from a file as they may be shown to a person: printable ASCII, the rest as \xNN, cut at
 * SHOWN_MAX characters and "...". */
struct mf_shown {
    char text[SHOWN_MAX + 4];
};

const char *modelfile_show(struct mf_shown *shown, const char *bytes, uint64_t n);

/* NULL when absent. */
const struct mf_key *modelfile_key(const struct modelfile *mf, const char *name);
/* Sets "path: key NAME: ..." and returns e. */
enum err modelfile_key_error(const struct modelfile *mf, const char *name, struct err_text *et,
                             enum err e, const char *fmt, ...)
    __attribute__((format(printf, 5, 6)));
const char *modelfile_value_name(unsigned type); /* "u32", "string" ... */
bool modelfile_value_is_integer(unsigned type);
/* Value i of an integer key; false when it is negative. */
bool modelfile_uint(const struct mf_key *k, uint64_t i, uint64_t *out);
uint32_t modelfile_load_u32(const uint8_t *p);
uint64_t modelfile_load_u64(const uint8_t *p);
float modelfile_load_f32(const uint8_t *p);

#endif
