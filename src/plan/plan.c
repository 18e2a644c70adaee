#include "plan/plan.h"

#include <stdio.h>
#include <string.h>

#include "base/check.h"

enum err plan_check(const struct plan *p, int n_modules, struct err_text *et)
{
    int held[PLAN_DEVICES_MAX] = {0}, at = 0;

    if (p->n_devices < 1 || p->n_devices > PLAN_DEVICES_MAX || p->n_stages < 1 ||
        p->n_stages > PLAN_STAGES_MAX)
        return err_set(et, ERR_INPUT, "plan: %d devices, %d stages", p->n_devices, p->n_stages);
    for (int i = 0; i < p->n_stages; i++) {
        const struct plan_stage *s = &p->stage[i];

        if (s->device < 0 || s->device >= p->n_devices)
            return err_set(et, ERR_INPUT, "plan: stage %d is on device %d of %d", i, s->device,
                           p->n_devices);
        if (s->first != at || s->end <= s->first || s->end > n_modules)
            return err_set(et, ERR_INPUT, "plan: stage %d is [%d, %d) where module %d of %d is due",
                           i, s->first, s->end, at, n_modules);
        if (++held[s->device] > PLAN_PER_DEVICE_MAX)
            return err_set(et, ERR_INPUT, "plan: device %d has more than %d stages", s->device,
                           PLAN_PER_DEVICE_MAX);
        if (i > 0 && s->device == s[-1].device)
            return err_set(et, ERR_INPUT, "plan: stages %d and %d are both on device %d", i - 1, i,
                           s->device);
        at = s->end;
    }
    if (at != n_modules)
        return err_set(et, ERR_INPUT, "plan: it ends at module %d of %d", at, n_modules);
    for (int d = 0; d < p->n_devices; d++)
        if (!held[d])
            return err_set(et, ERR_INPUT, "plan: device %d has no module", d);
    return ERR_NONE;
}

int plan_stages(const struct plan *p, int device, int stages[PLAN_PER_DEVICE_MAX])
{
    int n = 0;

    for (int i = 0; i < p->n_stages; i++)
        if (p->stage[i].device == device) {
            CHECK(n < PLAN_PER_DEVICE_MAX);
            stages[n++] = i;
        }
    return n;
}

void plan_transfer(const struct plan *p, const struct model *m, int stage,
                   struct plan_transfer *out)
{
    memset(out, 0, sizeof *out);
    out->to_stage = stage + 1;
    if (stage + 1 == p->n_stages) {
        out->n = 1;
        out->width[0] = model_shape(m)->n_vocab;
        return;
    }
    out->to_device = p->stage[stage + 1].device;
    out->n = plan_inputs(p, m, stage + 1, out->width);
}

int plan_inputs(const struct plan *p, const struct model *m, int stage, int width[EDGES_MAX])
{
    struct edge edges[EDGES_MAX];
    int n;

    if (stage == 0)
        return 0;
    n = model_edges(m, p->stage[stage].first, edges);
    CHECK(n >= 1 && n <= EDGES_MAX);
    for (int i = 0; i < n; i++)
        width[i] = edges[i].width;
    return n;
}

bool plan_linked(const struct plan *p, int a, int b)
{
    int from = 0; /* the head feeds stage 0 */

    for (int i = 0; i <= p->n_stages; i++) {
        int to = i < p->n_stages ? p->stage[i].device : 0;

        if ((from == a && to == b) || (from == b && to == a))
            return a != b;
        from = to;
    }
    return false;
}

void plan_describe(const struct plan *p, const struct model *m, int device, char *buf, size_t cap)
{
    size_t used = 0;

    CHECK(cap > 0);
    buf[0] = '\0';
    for (int i = 0; i < p->n_stages; i++) {
        const struct plan_stage *s = &p->stage[i];
        int n;

        if (s->device != device)
            continue;
        n = snprintf(buf + used, cap - used, "%s%s", used ? " + " : "",
                     model_module(m, s->first)->name);
        if (n > 0 && used + (size_t)n < cap && s->end - s->first > 1) {
            used += (size_t)n;
            n = snprintf(buf + used, cap - used, "..%s", model_module(m, s->end - 1)->name);
        }
        if (n < 0 || used + (size_t)n >= cap)
            return;
        used += (size_t)n;
    }
}

uint64_t plan_weight_bytes(const struct plan *p, const struct model *m, int device)
{
    uint64_t bytes = 0;

    for (int i = 0; i < p->n_stages; i++)
        if (p->stage[i].device == device)
            for (int k = p->stage[i].first; k < p->stage[i].end; k++)
                bytes += model_module(m, k)->bytes;
    return bytes;
}
