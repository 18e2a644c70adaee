#include "support/gguf_bytes.h"

#include <stdlib.h>
#include <string.h>

static void reserve(struct gguf_bytes *b, size_t n)
{
    if (b->size + n <= b->room)
        return;
    b->room = 2 * (b->size + n);
    b->data = realloc(b->data, b->room);
    if (!b->data)
        abort();
}

void gguf_bytes_raw(struct gguf_bytes *b, const void *p, size_t n)
{
    if (n == 0)
        return;
    reserve(b, n);
    memcpy(b->data + b->size, p, n);
    b->size += n;
}

void gguf_bytes_counts(struct gguf_bytes *b, uint64_t n_tensors, uint64_t n_keys)
{
    memcpy(b->data + 8, &n_tensors, 8);
    memcpy(b->data + 16, &n_keys, 8);
}

void gguf_bytes_begin(struct gguf_bytes *b, uint32_t version)
{
    memset(b, 0, sizeof *b);
    gguf_bytes_raw(b, "GGUF", 4);
    gguf_bytes_u32(b, version);
    gguf_bytes_u64(b, 0);
    gguf_bytes_u64(b, 0);
}

void gguf_bytes_free(struct gguf_bytes *b)
{
    free(b->data);
    memset(b, 0, sizeof *b);
}

void gguf_bytes_u32(struct gguf_bytes *b, uint32_t v)
{
    gguf_bytes_raw(b, &v, sizeof v);
}

void gguf_bytes_u64(struct gguf_bytes *b, uint64_t v)
{
    gguf_bytes_raw(b, &v, sizeof v);
}

void gguf_bytes_string_n(struct gguf_bytes *b, const void *p, size_t n)
{
    gguf_bytes_u64(b, n);
    gguf_bytes_raw(b, p, n);
}

void gguf_bytes_string(struct gguf_bytes *b, const char *s)
{
    gguf_bytes_string_n(b, s, strlen(s));
}

void gguf_bytes_fill(struct gguf_bytes *b, int byte, size_t n)
{
    if (n == 0)
        return;
    reserve(b, n);
    memset(b->data + b->size, byte, n);
    b->size += n;
}

void gguf_bytes_pad(struct gguf_bytes *b, size_t alignment)
{
    gguf_bytes_fill(b, 0, (alignment - b->size % alignment) % alignment);
}

void gguf_bytes_key(struct gguf_bytes *b, const char *name, uint32_t type)
{
    gguf_bytes_string(b, name);
    gguf_bytes_u32(b, type);
    b->n_keys++;
    gguf_bytes_counts(b, b->n_tensors, b->n_keys);
}

void gguf_bytes_array(struct gguf_bytes *b, const char *name, uint32_t type, uint64_t n)
{
    gguf_bytes_key(b, name, GB_ARRAY);
    gguf_bytes_u32(b, type);
    gguf_bytes_u64(b, n);
}

void gguf_bytes_value(struct gguf_bytes *b, const char *name, uint32_t type, const void *p,
                      size_t n)
{
    gguf_bytes_key(b, name, type);
    gguf_bytes_raw(b, p, n);
}

void gguf_bytes_key_u32(struct gguf_bytes *b, const char *name, uint32_t v)
{
    gguf_bytes_value(b, name, GB_U32, &v, sizeof v);
}

void gguf_bytes_key_bool(struct gguf_bytes *b, const char *name, uint8_t v)
{
    gguf_bytes_value(b, name, GB_BOOL, &v, sizeof v);
}

void gguf_bytes_key_string(struct gguf_bytes *b, const char *name, const char *s)
{
    gguf_bytes_key(b, name, GB_STRING);
    gguf_bytes_string(b, s);
}

void gguf_bytes_tensor(struct gguf_bytes *b, const char *name, uint32_t n_dims, const uint64_t *ne,
                       uint32_t type, uint64_t offset)
{
    gguf_bytes_string(b, name);
    gguf_bytes_u32(b, n_dims);
    gguf_bytes_raw(b, ne, (size_t)n_dims * sizeof *ne);
    gguf_bytes_u32(b, type);
    gguf_bytes_u64(b, offset);
    b->n_tensors++;
    gguf_bytes_counts(b, b->n_tensors, b->n_keys);
}
