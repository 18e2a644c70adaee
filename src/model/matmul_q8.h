/* Rows times a Q8_0 matrix on x86: the bits of ggml's own kernel, several times faster for many
 * rows.
 *
 * ggml repacks Q4_0 and its kin for x86, not Q8_0: there, eight rows cost nearly eight times one.
 * But its one-row kernel is simple enough to follow exactly: activations rounded to Q8_0, then per
 * block of 32 eight partial sums of four products each, exact in integers, converted, and added to
 * eight running sums by one fused multiply-add with the product of the two scales. Here the same
 * is done for a tile of weight rows and activation rows at once, so that each weight is loaded
 * once per tile and not once per row, and what the next tile reads is fetched ahead. Every result
 * is ggml's to the bit (tests/unit/test_matmul_q8.c).
 *
 * Two operators, because all threads must have packed before any may multiply. Pure functions of
 * their arguments; threads share the work by (ith, nth). */
#ifndef LINGUA_MODEL_MATMUL_Q8_H
#define LINGUA_MODEL_MATMUL_Q8_H

#include <stdbool.h>
#include <stddef.h>

/* Is there a kernel for this build's CPU? If not, the functions below must not be called. */
bool matmul_q8_available(void);

/* Bytes that n_rows activation rows of k elements take once packed. k is a multiple of 32. */
size_t matmul_q8_packed_bytes(int k, int n_rows);

/* Rounds rows x + i * stride, (k) f32, to Q8_0 and lays them out for the kernel; packed is aligned
 * to 64 bytes. */
void matmul_q8_pack(const float *x, size_t stride, int k, int n_rows, void *packed, int ith,
                    int nth);

/* out[i * out_stride + j] = row i . weights j. weights: (n_out, k) Q8_0, rows one after the other.
 * */
void matmul_q8_run(const void *weights, int k, int n_out, const void *packed, int n_rows,
                   float *out, size_t out_stride, int ith, int nth);

#endif
