/* Attention over the KV cache, the same bits however it is asked.
 *
 * softmax(q K^T * scale [soft cap] [ALiBi] [masks]) V for a list of rows, each with its own slot
 * and position. Fused attention kernels usually tile by batch size and split long caches by
 * thread, and then the low bits of a row depend on its company. Here they cannot:
 *
 *   - The cache is walked in blocks of 64 positions counted from position 0, never from where a
 *   step begins, with one running
 *     maximum and sum per row (online softmax: Milakov and Gimelshein, arXiv 1805.02867;
 *     FlashAttention, arXiv 2205.14135).
 *   - Scores of 16 positions are one chain of multiply-adds over the head's elements, values one
 *   chain over positions. Tiling over rows
 *     changes which rows share a loaded block, never the order inside a chain.
 *   - A masked position contributes p = 0, which changes no sum; a block in which a row sees
 *   nothing leaves that row as it was.
 *   - Threads take whole (row, head) tiles; no sum is ever split.
 *
 * Written with vector extensions on 16 lanes: AVX-512, AVX2, NEON and plain C run the same order
 * of operations, and agree to the bit wherever multiply-add is fused. */
#ifndef LINGUA_MODEL_ATTN_H
#define LINGUA_MODEL_ATTN_H

#include <stddef.h>
#include <stdint.h>

#include "model/kv.h"

struct attn_shape {
    int n_heads, n_kv_heads, head_dim;
    float scale;          /* scores are multiplied by it */
    float cap;            /* soft cap on scores: cap * tanh(s / cap); 0 = none */
    float alibi_bias_max; /* ALiBi (arXiv 2108.12409); 0 = none */
    int window;           /* a row sees this many positions, itself included; 0 = all */
};

struct attn_rows {
    int n;
    const int32_t *slot, *pos; /* (n); rows of one slot stand together, positions rising */
};

/* Scratch one thread needs, in bytes; aligned to 64 by the caller. */
size_t attn_scratch_bytes(int head_dim);

/* Thread ith of nth's share of all rows. Row i's queries are q + i * q_stride, (n_heads, head_dim)
 * f32; its result goes to out + i * out_stride, (n_heads, head_dim) f32. The keys and values of
 * every row's position must be stored. */
void attn_run(const struct kv *kv, const struct attn_shape *shape, const struct attn_rows *rows,
              const float *q, size_t q_stride, float *out, size_t out_stride, int ith, int nth,
              void *scratch);

#endif
