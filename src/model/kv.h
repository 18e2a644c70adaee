/* The KV cache of one attention module: keys and values of every slot, stored the way the
 * attention kernel reads them.
 *
 * For each slot and KV head, positions come in blocks of 16, each block whole in memory:
 *
 *   keys, f16 or f32    block[d][16]: element d of 16 positions side by side, so that one vector
 *   register holds one element of
 *                       16 keys and the score of 16 positions is a chain of multiply-adds over d,
 *                       in the same order for everyone
 *   keys, q8_0          block[d / 32]: 16 f16 scales, then [32][16] int8
 *   values, f16 or f32  [position][dim_pad]: dim_pad = head_dim rounded up to 16, the rest zero
 *   values, q8_0        [position][d / 32]: f16 scale, 32 int8 (ggml's block_q8_0)
 *
 * Exported bytes know nothing of blocks (they are what migrates between devices whose kernels may
 * differ). Little endian:
 *
 *   offset size
 *     0    4   "LKV1"
 *     4    4   type: 0 f16, 1 q8_0, 2 f32
 *     8    4   number of KV heads
 *    12    4   head_dim
 *    16    4   first position
 *    20    4   one past the last position
 *    24    8   bytes that follow
 *    32        per head: the keys of those positions, a row of head_dim each; then per head the
 *    values likewise.
 *              A q8_0 row is head_dim / 32 groups of f16 scale and 32 int8.
 *
 * Memory is mapped when the cache opens and becomes resident as positions are written, by huge
 * pages where there are any. One thread at a time. */
#ifndef LINGUA_MODEL_KV_H
#define LINGUA_MODEL_KV_H

#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "model/model.h"

enum { KV_LANES = 16, KV_GROUP = 32, KV_HEADER_BYTES = 32 };

struct kv {
    enum kv_type type;
    int n_slots, n_heads, head_dim, dim_pad;
    int n_ctx;                         /* positions per slot */
    size_t k_head_bytes, v_head_bytes; /* one head of one slot */
    uint8_t *base;
    size_t bytes;
};

/* ERR_MEMORY when the address space cannot be had. */
MUST_CHECK enum err kv_open(struct kv *kv, enum kv_type type, int n_slots, int n_heads,
                            int head_dim, int n_ctx, struct err_text *et);
void kv_close(struct kv *kv);

/* Bytes one position of one KV head takes, keys and values, without padding. */
uint64_t kv_position_bytes(enum kv_type type, int head_dim);

static inline uint8_t *kv_keys(const struct kv *kv, int slot, int head)
{
    return kv->base + ((size_t)slot * (size_t)kv->n_heads + (size_t)head) *
                          (kv->k_head_bytes + kv->v_head_bytes);
}

static inline uint8_t *kv_values(const struct kv *kv, int slot, int head)
{
    return kv_keys(kv, slot, head) + kv->k_head_bytes;
}

/* Writes one position of one head: k and v are (head_dim) f32; a v beyond what the type holds
 * becomes its largest. Positions of one head may be
 * written by different threads as long as no two write the same one. */
void kv_store(const struct kv *kv, int slot, int head, int pos, const float *k, const float *v);

void kv_copy(const struct kv *kv, int from, int to, int len);

size_t kv_export_size(const struct kv *kv, int pos, int pos_end);
/* buf holds kv_export_size bytes. */
void kv_export(const struct kv *kv, int slot, int pos, int pos_end, uint8_t *buf);
/* ERR_PROTO when the header does not fit this cache, the bytes do not fit the header, or the
 * positions would leave a gap after `held`; nothing is written then. */
MUST_CHECK enum err kv_import(const struct kv *kv, int slot, int held, const uint8_t *buf,
                              size_t len, int *pos, int *pos_end, struct err_text *et);

#endif
