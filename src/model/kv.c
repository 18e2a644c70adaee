#define _GNU_SOURCE
#include "model/kv.h"

#include <float.h>
#include <ggml.h>
#include <math.h>
#include <string.h>
#include <sys/mman.h>

#include "base/check.h"
#include "base/mem.h"
#include "model/arch.h"

enum { GROUP_BYTES = 2 + KV_GROUP, Q8_BLOCK_BYTES = KV_LANES * GROUP_BYTES };

/* Bytes of one position's row of one head as exported: no padding. */
static size_t row_bytes(enum kv_type type, int head_dim)
{
    switch (type) {
    case KV_F32:
        return 4 * (size_t)head_dim;
    case KV_F16:
        return 2 * (size_t)head_dim;
    case KV_Q8_0:
        return (size_t)(head_dim / KV_GROUP) * GROUP_BYTES;
    }
    CHECK(!"kv type");
    return 0;
}

uint64_t kv_position_bytes(enum kv_type type, int head_dim)
{
    return 2 * row_bytes(type, head_dim);
}

enum err kv_open(struct kv *kv, enum kv_type type, int n_slots, int n_heads, int head_dim,
                 int n_ctx, struct err_text *et)
{
    size_t blocks = ((size_t)n_ctx + KV_LANES - 1) / KV_LANES;

    CHECK(type != KV_Q8_0 || head_dim % KV_GROUP == 0);
    *kv = (struct kv){
        .type = type, .n_slots = n_slots, .n_heads = n_heads, .head_dim = head_dim, .n_ctx = n_ctx};
    kv->dim_pad = (head_dim + KV_LANES - 1) / KV_LANES * KV_LANES;
    kv->k_head_bytes = blocks * KV_LANES * row_bytes(type, head_dim);
    kv->v_head_bytes =
        blocks * KV_LANES * row_bytes(type, type == KV_Q8_0 ? head_dim : kv->dim_pad);
    kv->bytes = (kv->k_head_bytes + kv->v_head_bytes) * (size_t)n_heads * (size_t)n_slots;
    kv->base = mmap(NULL, kv->bytes, PROT_READ | PROT_WRITE,
                    MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (kv->base == MAP_FAILED) {
        kv->base = NULL;
        return err_system(et, "reserve %zu bytes for the KV cache", kv->bytes);
    }
    mem_huge(kv->base, kv->bytes);
    return ERR_NONE;
}

void kv_close(struct kv *kv)
{
    if (kv->base)
        munmap(kv->base, kv->bytes);
    kv->base = NULL;
}

/* ---- single rows, in and out of the blocked layout ---- */

/* One group of 32 as q8_0: the scale maps the largest magnitude to 127. Written here rather than
 * taken from ggml because ggml's rounding differs between CPUs, and what a device stores must be
 * what any other would have. */
static void quantize_group(const float *x, uint16_t *scale, int8_t *q)
{
    float amax = 0.0f;

    for (int i = 0; i < KV_GROUP; i++)
        amax = fmaxf(amax, fabsf(x[i]));
    float d = amax / 127.0f, inverse = d > 0.0f ? 1.0f / d : 0.0f;

    *scale = ggml_fp32_to_fp16(d);
    for (int i = 0; i < KV_GROUP; i++)
        q[i] = (int8_t)fminf(127.0f, fmaxf(-127.0f, roundf(x[i] * inverse)));
}

/* Where group g of the block that holds pos keeps its scales; the int8 follow. */
static uint8_t *key_group(const struct kv *kv, uint8_t *keys, int pos, int g)
{
    size_t block_bytes = (size_t)(kv->head_dim / KV_GROUP) * Q8_BLOCK_BYTES;

    return keys + (size_t)(pos / KV_LANES) * block_bytes + (size_t)g * Q8_BLOCK_BYTES;
}

static void store_key_q8(const struct kv *kv, uint8_t *keys, int pos, const float *k)
{
    int lane = pos % KV_LANES;

    for (int g = 0; g < kv->head_dim / KV_GROUP; g++) {
        uint8_t *group = key_group(kv, keys, pos, g);
        int8_t q[KV_GROUP], *out = (int8_t *)(group + 2 * KV_LANES);

        quantize_group(k + g * KV_GROUP, (uint16_t *)group + lane, q);
        for (int i = 0; i < KV_GROUP; i++)
            out[i * KV_LANES + lane] = q[i];
    }
}

static void store_value_q8(const struct kv *kv, uint8_t *values, int pos, const float *v)
{
    uint8_t *row = values + (size_t)pos * row_bytes(KV_Q8_0, kv->head_dim);

    for (int g = 0; g < kv->head_dim / KV_GROUP; g++, row += GROUP_BYTES) {
        uint16_t scale;

        quantize_group(v + g * KV_GROUP, &scale, (int8_t *)row + 2);
        memcpy(row, &scale, 2);
    }
}

/* A stored value is finite. Another row may carry it along with weight 0, and 0 times infinity
 * would make a number out of nothing for a row that never saw it. */
static void tame(enum kv_type type, const float *v, int n, float *out)
{
    float most = type == KV_F32 ? FLT_MAX : type == KV_F16 ? 65504.0f : 65504.0f * 127.0f;

    for (int i = 0; i < n; i++)
        out[i] = fmaxf(-most, fminf(most, v[i]));
}

void kv_store(const struct kv *kv, int slot, int head, int pos, const float *k,
              const float *untamed)
{
    float v[HEAD_DIM_MAX];
    uint8_t *keys = kv_keys(kv, slot, head), *values = kv_values(kv, slot, head);
    size_t first =
        (size_t)(pos / KV_LANES) * KV_LANES * (size_t)kv->head_dim + (size_t)(pos % KV_LANES);

    tame(kv->type, untamed, kv->head_dim, v);
    switch (kv->type) {
    case KV_F32:
        for (int d = 0; d < kv->head_dim; d++)
            ((float *)keys)[first + (size_t)d * KV_LANES] = k[d];
        memcpy((float *)values + (size_t)pos * (size_t)kv->dim_pad, v, (size_t)kv->head_dim * 4);
        return;
    case KV_F16:
        for (int d = 0; d < kv->head_dim; d++)
            ((ggml_fp16_t *)keys)[first + (size_t)d * KV_LANES] = ggml_fp32_to_fp16(k[d]);
        ggml_fp32_to_fp16_row(v, (ggml_fp16_t *)values + (size_t)pos * (size_t)kv->dim_pad,
                              kv->head_dim);
        return;
    case KV_Q8_0:
        store_key_q8(kv, keys, pos, k);
        store_value_q8(kv, values, pos, v);
        return;
    }
}

/* A stored key as an exported row, or an exported row as a stored key. */
static void move_key(const struct kv *kv, uint8_t *keys, int pos, uint8_t *row, bool out)
{
    size_t block = (size_t)(pos / KV_LANES), lane = (size_t)(pos % KV_LANES),
           dim = (size_t)kv->head_dim;
    size_t size = kv->type == KV_F32 ? 4 : 2;

    if (kv->type != KV_Q8_0) {
        for (size_t d = 0; d < dim; d++) {
            uint8_t *stored = keys + (block * KV_LANES * dim + d * KV_LANES + lane) * size;

            memcpy(out ? row + d * size : stored, out ? stored : row + d * size, size);
        }
        return;
    }
    for (int g = 0; g < kv->head_dim / KV_GROUP; g++, row += GROUP_BYTES) {
        uint8_t *group = key_group(kv, keys, pos, g), *scale = group + 2 * lane,
                *q = group + 2 * KV_LANES + lane;

        memcpy(out ? row : scale, out ? scale : row, 2);
        for (size_t i = 0; i < KV_GROUP; i++)
            *(out ? row + 2 + i : q + i * KV_LANES) = *(out ? q + i * KV_LANES : row + 2 + i);
    }
}

static uint8_t *value_row(const struct kv *kv, uint8_t *values, int pos)
{
    return values +
           (size_t)pos * row_bytes(kv->type, kv->type == KV_Q8_0 ? kv->head_dim : kv->dim_pad);
}

void kv_copy(const struct kv *kv, int from, int to, int len)
{
    size_t blocks = ((size_t)len + KV_LANES - 1) / KV_LANES;

    for (int h = 0; h < kv->n_heads; h++) {
        memcpy(kv_keys(kv, to, h), kv_keys(kv, from, h),
               blocks * KV_LANES * row_bytes(kv->type, kv->head_dim));
        memcpy(kv_values(kv, to, h), kv_values(kv, from, h),
               (size_t)(value_row(kv, kv_values(kv, from, h), len) - kv_values(kv, from, h)));
    }
}

/* ---- export and import ---- */

struct header {
    char magic[4];
    uint32_t type, n_heads, head_dim, pos, pos_end;
    uint64_t payload;
};
_Static_assert(sizeof(struct header) == KV_HEADER_BYTES, "the header is 32 bytes on the wire");

size_t kv_export_size(const struct kv *kv, int pos, int pos_end)
{
    return KV_HEADER_BYTES +
           2 * (size_t)kv->n_heads * (size_t)(pos_end - pos) * row_bytes(kv->type, kv->head_dim);
}

static void move_rows(const struct kv *kv, int slot, int pos, int pos_end, uint8_t *rows, bool out)
{
    size_t size = row_bytes(kv->type, kv->head_dim);

    for (int h = 0; h < kv->n_heads; h++)
        for (int p = pos; p < pos_end; p++, rows += size)
            move_key(kv, kv_keys(kv, slot, h), p, rows, out);
    for (int h = 0; h < kv->n_heads; h++)
        for (int p = pos; p < pos_end; p++, rows += size) {
            uint8_t *stored = value_row(kv, kv_values(kv, slot, h), p);

            memcpy(out ? rows : stored, out ? stored : rows, size);
        }
}

void kv_export(const struct kv *kv, int slot, int pos, int pos_end, uint8_t *buf)
{
    struct header h = {.magic = {'L', 'K', 'V', '1'},
                       .type = (uint32_t)kv->type,
                       .n_heads = (uint32_t)kv->n_heads,
                       .head_dim = (uint32_t)kv->head_dim,
                       .pos = (uint32_t)pos,
                       .pos_end = (uint32_t)pos_end,
                       .payload = kv_export_size(kv, pos, pos_end) - KV_HEADER_BYTES};

    memcpy(buf, &h, sizeof h);
    move_rows(kv, slot, pos, pos_end, buf + KV_HEADER_BYTES, true);
}

enum err kv_import(const struct kv *kv, int slot, int held, const uint8_t *buf, size_t len,
                   int *pos, int *pos_end, struct err_text *et)
{
    struct header h;

    if (len < sizeof h)
        return err_set(et, ERR_PROTO, "KV bytes: %zu of them cannot hold the 32-byte header", len);
    memcpy(&h, buf, sizeof h);
    if (memcmp(h.magic, "LKV1", 4) != 0)
        return err_set(et, ERR_PROTO, "KV bytes: do not begin with LKV1");
    if (h.type != (uint32_t)kv->type || h.n_heads != (uint32_t)kv->n_heads ||
        h.head_dim != (uint32_t)kv->head_dim)
        return err_set(et, ERR_PROTO,
                       "KV bytes: are for type %u, %u heads of %u, and this cache has %u, %d of %d",
                       h.type, h.n_heads, h.head_dim, (unsigned)kv->type, kv->n_heads,
                       kv->head_dim);
    if (h.pos_end > (uint32_t)kv->n_ctx || h.pos >= h.pos_end)
        return err_set(et, ERR_PROTO, "KV bytes: positions %u to %u do not fit a context of %d",
                       h.pos, h.pos_end, kv->n_ctx);
    if (h.pos > (uint32_t)held)
        return err_set(et, ERR_PROTO, "KV bytes: position %u leaves a gap after %d", h.pos,
                       held - 1);
    if (len != kv_export_size(kv, (int)h.pos, (int)h.pos_end) || h.payload != len - sizeof h)
        return err_set(et, ERR_PROTO, "KV bytes: %zu of them, and the header promises %llu",
                       len - sizeof h, (unsigned long long)h.payload);
    *pos = (int)h.pos;
    *pos_end = (int)h.pos_end;
    move_rows(kv, slot, *pos, *pos_end, (uint8_t *)(uintptr_t)(buf + KV_HEADER_BYTES), false);
    return ERR_NONE;
}
