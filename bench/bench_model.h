/* Models with random weights, to measure speed on: of TinyLlama's shape (1.1 billion parameters), or
 * slim, for emulated devices: little to compute, and much memory for the KV cache.
 *
 * Speed does not depend on what the weights say, so quantised blocks are filled with random bits
 * and sane scales directly: a file is made in seconds and needs no download. Types: Q4_0 and Q4_K
 * with a Q6_K output, as quantisers make them (no other tensor is raised to a larger type), Q8_0
 * and Q2_0 throughout. */
#ifndef LINGUA_BENCH_MODEL_H
#define LINGUA_BENCH_MODEL_H

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"
#include "ggml.h"

enum { BENCH_LAYERS = 22, BENCH_LAYERS_MAX = 88, BENCH_VOCAB = 32000 };

/* Writes the file unless it is there already. */
MUST_CHECK enum err bench_model_write(const char *path, enum ggml_type type, struct err_text *et);

enum bench_shape { BENCH_WIDE, BENCH_SLIM };

bool bench_shape_find(const char *name, enum bench_shape *shape);
/* With another number of layers, 1 to BENCH_LAYERS_MAX; 0: as many as the shape usually has. */
MUST_CHECK enum err bench_model_write_shape(const char *path, enum bench_shape shape,
                                            enum ggml_type type, int n_layers, struct err_text *et);

#endif
