#include "head/split.h"

#include <float.h>
#include <stdlib.h>
#include <string.h>

#include "base/check.h"
#include "base/mem.h"

void split_whole(int n_modules, struct plan *out)
{
    memset(out, 0, sizeof *out);
    out->epoch = 1;
    out->n_devices = out->n_stages = 1;
    out->stage[0] = (struct plan_stage){0, 0, n_modules};
}

static enum err add_stage(struct plan *p, int device, int first, int end, struct err_text *et)
{
    if (p->n_stages == PLAN_STAGES_MAX)
        return err_set(et, ERR_INPUT, "split: more than %d ranges", PLAN_STAGES_MAX);
    p->stage[p->n_stages++] = (struct plan_stage){device, first, end};
    return ERR_NONE;
}

/* What a run of cost sum adds to the runs before it. Without a cap the figure is the largest sum so
 * far, with one the sum of squares of runs that keep it. */
static double weigh(double before, double sum, double cap)
{
    if (cap < 0)
        return before > sum ? before : sum;
    return sum > cap || before == DBL_MAX ? DBL_MAX : before + sum * sum;
}

/* Cuts modules [0, n) into n_devices runs so that weigh's figure, which is returned, is smallest;
 * extra is what device 0 carries besides. best[d][i]: that figure for modules [0, i) on devices
 * 0..d; from[d][i]: where the last of these devices then begins. The ends go to end[0..n_devices).
 */
static double cut(const double *cost, int n, int n_devices, double extra, double cap, int *end)
{
    size_t width = (size_t)n + 1;
    double *best = mem_zalloc((size_t)n_devices * width, sizeof *best), least;
    int *from = mem_zalloc((size_t)n_devices * width, sizeof *from);

    for (int d = 0; d < n_devices; d++)
        for (int i = d + 1; i <= n; i++) {
            double sum = d == 0 ? extra : 0, *b = &best[(size_t)d * width + (size_t)i];

            *b = DBL_MAX;
            for (int k = i - 1; k >= d; k--) {
                double figure;

                sum += cost[k];
                if (d == 0 && k > 0) /* device 0 begins at the first module */
                    continue;
                figure = weigh(d ? best[(size_t)(d - 1) * width + (size_t)k] : 0, sum, cap);
                if (figure < *b) {
                    *b = figure;
                    from[(size_t)d * width + (size_t)i] = k;
                }
            }
        }
    least = best[(size_t)n_devices * width - 1];
    for (int d = n_devices - 1, at = n; d >= 0; d--) {
        end[d] = at;
        at = from[(size_t)d * width + (size_t)at];
    }
    free(best);
    free(from);
    return least;
}

/* The smallest largest burden; among the cuts that reach it, the one that is even otherwise: where
 * `output` alone outweighs everything, the largest burden says nothing about the rest. */
static void cut_evenly(const double *cost, int n, int n_devices, double extra, int *end)
{
    double largest = cut(cost, n, n_devices, extra, -1, end);

    cut(cost, n, n_devices, extra, largest, end);
}

static enum err split_even(int n_devices, int n_modules, const double *cost, struct plan *out,
                           struct err_text *et)
{
    int most = n_modules - 1 < PLAN_DEVICES_MAX ? n_modules - 1 : PLAN_DEVICES_MAX;
    int end[PLAN_DEVICES_MAX];

    if (n_devices < 1 || n_devices > most)
        return err_set(et, ERR_INPUT,
                       "split: %d devices; this model has %d modules, of which the first device "
                       "takes the last as well, so 1 to %d devices can share it",
                       n_devices, n_modules, most);
    if (n_devices == 1) {
        split_whole(n_modules, out);
        return ERR_NONE;
    }
    cut_evenly(cost, n_modules - 1, n_devices, cost[n_modules - 1], end);
    out->n_devices = n_devices;
    for (int d = 0; d < n_devices; d++) {
        enum err e = add_stage(out, d, d ? end[d - 1] : 0, end[d], et);

        if (e)
            return e;
    }
    return add_stage(out, 0, n_modules - 1, n_modules, et);
}

/* A number at *p, which moves behind it; -1 when there is none, large ones stop at 2^30. */
static int parse_number(const char **p)
{
    int v = -1;

    for (; **p >= '0' && **p <= '9'; ++*p) {
        if (v < 0)
            v = 0;
        v = v < (1 << 26) ? v * 10 + (**p - '0') : 1 << 30;
    }
    return v;
}

static enum err malformed(const char *text, const char *at, int n_modules, struct err_text *et)
{
    char seen[2] = {*at >= 0x20 && *at < 0x7f ? *at : '?', '\0'};

    return err_set(et, ERR_INPUT,
                   "split \"%.100s\": %s%s%s at character %d; write a number of devices (3) or a "
                   "range of modules for each device (0-5,6-13,14- or 0-4+13,5-12); this model has "
                   "modules 0 to %d",
                   text, *at ? "unexpected '" : "it ends too early", *at ? seen : "",
                   *at ? "'" : "", (int)(at - text) + 1, n_modules - 1);
}

/* One range: "0-5", "14-", "13". */
static enum err parse_range(const char *text, const char **p, int device, int n_modules,
                            struct plan *out, struct err_text *et)
{
    int first = parse_number(p), last = first;

    if (first < 0)
        return malformed(text, *p, n_modules, et);
    if (**p == '-') {
        ++*p;
        last = parse_number(p);
        if (last < 0)
            last = n_modules - 1;
    }
    if (first >= n_modules || last >= n_modules)
        return err_set(et, ERR_INPUT, "split: there is no module %d; this model has 0 to %d",
                       first >= n_modules ? first : last, n_modules - 1);
    if (last < first)
        return err_set(et, ERR_INPUT,
                       "split: range %d-%d ends before it begins; this model has modules 0 to %d",
                       first, last, n_modules - 1);
    return add_stage(out, device, first, last + 1, et);
}

static enum err parse_ranges(const char *text, int n_modules, struct plan *out, struct err_text *et)
{
    const char *p = text;
    int device = 0;

    for (;;) {
        enum err e = parse_range(text, &p, device, n_modules, out, et);

        if (e)
            return e;
        if (*p == '\0')
            break;
        if (*p != ',' && *p != '+')
            return malformed(text, p, n_modules, et);
        if (*p++ == ',' && ++device == PLAN_DEVICES_MAX)
            return err_set(et, ERR_INPUT, "split: more than %d devices", PLAN_DEVICES_MAX);
    }
    out->n_devices = device + 1;
    return ERR_NONE;
}

static int by_module(const void *a, const void *b)
{
    const struct plan_stage *x = a, *y = b;

    return (x->first > y->first) - (x->first < y->first);
}

/* Puts the ranges in order of modules and joins neighbours on one device. */
static enum err arrange(struct plan *p, int n_modules, struct err_text *et)
{
    int n = 0, held[PLAN_DEVICES_MAX] = {0};

    qsort(p->stage, (size_t)p->n_stages, sizeof p->stage[0], by_module);
    for (int i = 0, at = 0; i <= p->n_stages; i++) {
        int first = i < p->n_stages ? p->stage[i].first : n_modules;

        if (first < at)
            return err_set(et, ERR_INPUT,
                           "split: module %d is given twice (devices %d and %d); each of 0 to %d "
                           "must be on one device",
                           first, p->stage[i - 1].device, p->stage[i].device, n_modules - 1);
        if (first > at)
            return err_set(et, ERR_INPUT,
                           "split: module %d is on no device; each of 0 to %d must be on one", at,
                           n_modules - 1);
        if (i < p->n_stages)
            at = p->stage[i].end;
    }
    for (int i = 0; i < p->n_stages; i++) {
        if (n && p->stage[n - 1].device == p->stage[i].device)
            p->stage[n - 1].end = p->stage[i].end;
        else
            p->stage[n++] = p->stage[i];
    }
    p->n_stages = n;
    for (int i = 0; i < n; i++)
        if (++held[p->stage[i].device] > PLAN_PER_DEVICE_MAX)
            return err_set(et, ERR_INPUT,
                           "split: device %d has more than %d separate ranges of the model's %d "
                           "modules; join some",
                           p->stage[i].device, PLAN_PER_DEVICE_MAX, n_modules);
    return ERR_NONE;
}

enum err split_parse(const char *text, int n_modules, const double *cost, struct plan *out,
                     struct err_text *et)
{
    const char *p = text;
    int number;
    enum err e;

    CHECK(n_modules >= 2);
    memset(out, 0, sizeof *out);
    out->epoch = 1;
    number = parse_number(&p);
    if (number >= 0 && *p == '\0')
        e = split_even(number, n_modules, cost, out, et);
    else
        e = parse_ranges(text, n_modules, out, et);
    if (!e)
        e = arrange(out, n_modules, et);
    return e ? e : plan_check(out, n_modules, et);
}
