#define _GNU_SOURCE
#include "model/compute.h"

#include <stdlib.h>

#include "base/check.h"
#include "base/mem.h"
#include "model/segment.h"

static void discard(enum ggml_log_level level, const char *text, void *user)
{
    (void)level;
    (void)text;
    (void)user;
}

enum err compute_open(int n_threads, struct compute **out, struct err_text *et)
{
    struct ggml_threadpool_params params;
    struct compute *c;

    *out = NULL;
    if (n_threads < 1 || n_threads > GGML_MAX_N_THREADS)
        return err_set(et, ERR_INPUT, "%d threads: choose between 1 and %d", n_threads,
                       GGML_MAX_N_THREADS);
    /* ggml's log is its own global and goes to stderr unless told otherwise; what a person needs
     * to know is in our errors. */
    ggml_log_set(discard, NULL);
    ggml_cpu_init();
    c = mem_zalloc(1, sizeof *c);
    c->n_threads = n_threads;
    /* Even one thread gets a pool: without one ggml makes and frees one for every graph. A little
     * polling bridges the gap between two tokens without a trip through the scheduler; ggml's own
     * default burns a core for 50 ms after every step. */
    ggml_threadpool_params_init(&params, n_threads);
    params.poll = 1;
    c->pool = ggml_threadpool_new(&params);
    CHECK(c->pool != NULL);
    *out = c;
    return ERR_NONE;
}

void compute_close(struct compute *c)
{
    if (!c)
        return;
    ggml_threadpool_free(c->pool);
    free(c->work);
    free(c->scratch);
    free(c);
}

int compute_n_threads(const struct compute *c)
{
    return c->n_threads;
}

static enum err grow(uint8_t **buf, size_t *have, size_t want, size_t copies, struct err_text *et)
{
    void *p = NULL;

    if (want <= *have)
        return ERR_NONE;
    want = (want + 63) / 64 * 64;
    if (want > SIZE_MAX / copies || posix_memalign(&p, 64, want * copies))
        return err_set(et, ERR_MEMORY, "no memory for %zu bytes to compute in", want);
    free(*buf);
    *buf = p;
    *have = want;
    return ERR_NONE;
}

enum err compute_grow(struct compute *c, size_t work_bytes, size_t scratch_bytes_per_thread,
                      struct err_text *et)
{
    enum err e = grow(&c->work, &c->work_bytes, work_bytes, 1, et);

    return e ? e
             : grow(&c->scratch, &c->scratch_bytes, scratch_bytes_per_thread, (size_t)c->n_threads,
                    et);
}

enum err compute_plan(struct compute *c, struct ggml_cgraph *graph, struct ggml_cplan *out,
                      struct err_text *et)
{
    *out = ggml_graph_plan(graph, c->n_threads, c->pool);
    return compute_grow(c, out->work_size, 0, et);
}

enum err compute_run(struct compute *c, struct ggml_cgraph *graph, struct ggml_cplan *plan,
                     struct err_text *et)
{
    plan->work_data = c->work; /* may have moved since planning */
    if (ggml_graph_compute(graph, plan) != GGML_STATUS_SUCCESS)
        return err_set(et, ERR_MEMORY, "the computation could not get its working memory");
    return ERR_NONE;
}
