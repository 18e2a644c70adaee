/* Writes GGUF files into memory for tests, lies included: nothing here checks what it is told.
 *
 * Start with gguf_bytes_begin, append keys, then tensors, then gguf_bytes_pad and the data. Keys
 * and tensors are counted into the header as they come; gguf_bytes_counts overrules that. One
 * owner; free with gguf_bytes_free. */
#ifndef TESTS_SUPPORT_GGUF_BYTES_H
#define TESTS_SUPPORT_GGUF_BYTES_H

#include <stddef.h>
#include <stdint.h>

enum { /* the format's value types */
       GB_U8 = 0,
       GB_I8 = 1,
       GB_U16 = 2,
       GB_I16 = 3,
       GB_U32 = 4,
       GB_I32 = 5,
       GB_F32 = 6,
       GB_BOOL = 7,
       GB_STRING = 8,
       GB_ARRAY = 9,
       GB_U64 = 10,
       GB_I64 = 11,
       GB_F64 = 12,
};

struct gguf_bytes {
    uint8_t *data;
    size_t size, room;
    uint64_t n_tensors, n_keys;
};

void gguf_bytes_begin(struct gguf_bytes *b, uint32_t version);
void gguf_bytes_counts(struct gguf_bytes *b, uint64_t n_tensors, uint64_t n_keys);
void gguf_bytes_free(struct gguf_bytes *b);

/* Raw parts. */
void gguf_bytes_raw(struct gguf_bytes *b, const void *p, size_t n);
void gguf_bytes_u32(struct gguf_bytes *b, uint32_t v);
void gguf_bytes_u64(struct gguf_bytes *b, uint64_t v);
void gguf_bytes_string_n(struct gguf_bytes *b, const void *p, size_t n);
void gguf_bytes_string(struct gguf_bytes *b, const char *s);
void gguf_bytes_fill(struct gguf_bytes *b, int byte, size_t n);
void gguf_bytes_pad(struct gguf_bytes *b, size_t alignment);

/* Keys. gguf_bytes_key and gguf_bytes_array write the head only; the value follows by raw parts. */
void gguf_bytes_key(struct gguf_bytes *b, const char *name, uint32_t type);
void gguf_bytes_array(struct gguf_bytes *b, const char *name, uint32_t type, uint64_t n);
void gguf_bytes_value(struct gguf_bytes *b, const char *name, uint32_t type, const void *p,
                      size_t n);
void gguf_bytes_key_u32(struct gguf_bytes *b, const char *name, uint32_t v);
void gguf_bytes_key_bool(struct gguf_bytes *b, const char *name, uint8_t v);
void gguf_bytes_key_string(struct gguf_bytes *b, const char *name, const char *s);

void gguf_bytes_tensor(struct gguf_bytes *b, const char *name, uint32_t n_dims, const uint64_t *ne,
                       uint32_t type, uint64_t offset);

#endif
