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

static void grow(uint8_t **buf, size_t *have, size_t want, size_t copies)
{
    void *p = NULL;

    if (want <= *have)
        return;
    want = (want + 63) / 64 * 64;
    free(*buf);
    CHECK(posix_memalign(&p, 64, want * copies) == 0);
    *buf = p;
    *have = want;
}

void compute_grow(struct compute *c, size_t work_bytes, size_t scratch_bytes_per_thread)
{
    grow(&c->work, &c->work_bytes, work_bytes, 1);
    grow(&c->scratch, &c->scratch_bytes, scratch_bytes_per_thread, (size_t)c->n_threads);
}

struct ggml_cplan compute_plan(struct compute *c, struct ggml_cgraph *graph)
{
    struct ggml_cplan plan = ggml_graph_plan(graph, c->n_threads, c->pool);

    compute_grow(c, plan.work_size, 0);
    return plan;
}

enum err compute_run(struct compute *c, struct ggml_cgraph *graph, struct ggml_cplan *plan,
                     struct err_text *et)
{
    plan->work_data = c->work; /* may have moved since planning */
    if (ggml_graph_compute(graph, plan) != GGML_STATUS_SUCCESS)
        return err_set(et, ERR_MEMORY, "the computation could not get its working memory");
    return ERR_NONE;
}
