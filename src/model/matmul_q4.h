/* Rows times a Q4_0 matrix on x86, at the speed of memory for up to eight rows.
 *
 * ggml's repacked kernels take rows by fours and spend most of their time on the way from nibbles to
 * sums. Here sixteen weight rows lie side by side: for a block of 32 elements their sixteen scales
 * and then, four elements of each row at a time, their nibbles. A register then holds the same four
 * elements of sixteen rows, is multiplied by the same four of one activation row, and no sum is
 * ever taken across a register: lane r is the result of weight row r.
 *
 * Activations are rounded to Q8_0. Per block, weight row and activation row
 *     acc = fma(weight scale * activation scale, (float)(sum of q * a - 8 * sum of a), acc)
 * with exact integers in between, blocks in order. So a result depends on its own two rows alone,
 * not on how many others there are, and is the same with AVX2 and with AVX-512 (ARM runs ggml's own
 * kernels, which add up in another order).
 *
 * Two operators, because all threads must have packed before any may multiply. Pure functions of
 * their arguments; threads share the work by (ith, nth). */
#ifndef LINGUA_MODEL_MATMUL_Q4_H
#define LINGUA_MODEL_MATMUL_Q4_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Is there a kernel for this build's CPU, and for this many rows of so many elements (fours of
 * Q4_0's 32, sixteen rows side by side)? If not, the functions below must not be called. */
bool matmul_q4_fits(int64_t k, int64_t n_out);

/* Bytes of a repacked matrix: those of the file's. */
size_t matmul_q4_bytes(int64_t k, int64_t n_out);

/* Weight rows [0, n_out), (n_out, k) Q4_0 as the file has them, to where they stand in the repacked
 * matrix. Both of a multiple of 16 rows, so that matrices can be joined; `to` is aligned to 32. */
void matmul_q4_repack(const void *rows, int64_t k, int64_t n_out, void *to);

/* Bytes that n_rows activation rows of k elements take once packed. */
size_t matmul_q4_packed_bytes(int k, int n_rows);

/* Rounds rows x + i * stride, (k) f32, to Q8_0 and lays them out for the kernel; packed is aligned
 * to 64 bytes. */
void matmul_q4_pack(const float *x, size_t stride, int k, int n_rows, void *packed, int ith,
                    int nth);

/* out[i * out_stride + j] = row i . weights j. weights: (n_out, k), repacked. */
void matmul_q4_run(const void *weights, int k, int n_out, const void *packed, int n_rows,
                   float *out, size_t out_stride, int ith, int nth);

#endif
