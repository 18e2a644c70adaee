/* A model of TinyLlama's shape (1.1 billion parameters) with random weights, to measure speed on.
 *
 * Speed does not depend on what the weights say, so quantised blocks are filled with random bits
 * and sane scales directly: a file is made in seconds and needs no download. Types: Q4_0 and Q4_K
 * with a Q6_K output, as quantisers make them (no other tensor is raised to a larger type), and
 * Q8_0 throughout. */
#ifndef LINGUA_BENCH_MODEL_H
#define LINGUA_BENCH_MODEL_H

#include <stdint.h>

#include "base/err.h"
#include "ggml.h"

enum { BENCH_LAYERS = 22, BENCH_LAYERS_MAX = 88, BENCH_VOCAB = 32000 };

/* Writes the file unless it is there already. */
MUST_CHECK enum err bench_model_write(const char *path, enum ggml_type type, struct err_text *et);
/* With another number of layers, 1 to BENCH_LAYERS_MAX: as wide. */
MUST_CHECK enum err bench_model_write_layers(const char *path, enum ggml_type type, int n_layers,
                                             struct err_text *et);

#endif
