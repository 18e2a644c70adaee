/* Threads to compute with, and what they need: ggml's pool, its work buffer, and scratch for our
 * own operators. model/segment.h opens and closes it; this header is for src/model. */
#ifndef LINGUA_MODEL_COMPUTE_H
#define LINGUA_MODEL_COMPUTE_H

#include <ggml-cpu.h>
#include <stddef.h>

#include "base/err.h"

struct compute {
    int n_threads;
    struct ggml_threadpool *pool;
    uint8_t *work; /* ggml's work buffer, as large as any graph has asked for */
    size_t work_bytes;
    uint8_t *scratch; /* (n_threads, scratch_bytes), for attention */
    size_t scratch_bytes;
};

/* Makes the buffers at least this large: ERR_MEMORY where that cannot be. Called while graphs are
 * built, never while they run. */
MUST_CHECK enum err compute_grow(struct compute *c, size_t work_bytes,
                                 size_t scratch_bytes_per_thread, struct err_text *et);

/* Runs a graph that compute_plan has seen. */
MUST_CHECK enum err compute_plan(struct compute *c, struct ggml_cgraph *graph,
                                 struct ggml_cplan *out, struct err_text *et);
MUST_CHECK enum err compute_run(struct compute *c, struct ggml_cgraph *graph,
                                struct ggml_cplan *plan, struct err_text *et);

#endif
