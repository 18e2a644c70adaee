#include "plan/place.h"
#include <string.h>
#include "base/mem.h"
#include <stdlib.h>
void place_describe(const struct model *m, const struct segment_opts *opts, struct place_problem *p, struct place_module *mod)
{
    (void)opts;
    p->n_slots = opts->n_slots; p->n_ctx = opts->n_ctx;
    for (int i = 0; i < model_n_modules(m); i++) {
        const struct module_info *mi = model_module(m, i);
        mod[i] = (struct place_module){mi->bytes, mi->decode_bytes + 100000, model_kv_bytes(m, i, opts->kv), false};
    }
    p->scratch_bytes = 4 << 20;
}
int place_largest_ctx(const struct place_problem *p) { (void)p; return 0; }
enum err place_solve(const struct place_problem *p, struct placement *out, struct err_text *et)
{
    /* throwaway: equal split by module count among all, output on head */
    int n = p->n_devices, N = p->n_modules - 1;
    memset(out, 0, sizeof *out);
    if (n > N) n = N;
    out->plan.n_devices = n;
    for (int d = 0; d < n; d++) {
        out->used[d] = d;
        out->plan.stage[d] = (struct plan_stage){d, N * d / n, N * (d + 1) / n};
    }
    out->plan.n_stages = n;
    if (n > 1) { out->plan.stage[n] = (struct plan_stage){0, N, N + 1}; out->plan.n_stages = n + 1; }
    else out->plan.stage[0].end = N + 1;
    (void)et;
    return ERR_NONE;
}
