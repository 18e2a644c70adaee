/* The head takes modules [0, a), the others follow in the order given, each a run or nothing, and
 * `output` is the head's again in a stage of its own, if there is a plan in which it fits there;
 * else it belongs to the last run. Where the ends are private, that last stage may begin with the
 * first of the private modules at the end: else a head that has devices which are not its owner's
 * could give them nothing.
 *
 * Among the plans that fit, the choice is, in this order: the least time of the busiest device, the
 * fewest devices, the least time in all. The first is a dynamic program over cut points on its own;
 * the other two are added up in a second one, over runs that take no longer than that least time.
 *
 * Whether anything fits at all needs no program: the more a device takes, the less is left for
 * those behind it, so each takes as many modules as it can hold. That answers how much is missing,
 * and how large a context would fit, by bisection. */
#include "plan/place.h"

#include <float.h>
#include <math.h>
#include <stdlib.h>

#include "base/check.h"
#include "base/mem.h"

enum { CTX_STEP = 64, CTX_MAX = 1 << 24 };

static const uint64_t MIB = 1 << 20;

/* A problem made ready: sums over the first i modules, and where `output` goes. */
struct work {
    const struct place_problem *p;
    int n_ctx;
    int n_body;                /* modules to be cut: all but the tail, */
    bool output_home;          /* which the head has beside its run, if there is one */
    bool private;              /* private modules stay on devices marked mine */
    int more_for;              /* a device, or -1, */
    uint64_t more_bytes;       /* whose budget is larger by this */
    uint64_t *weight, *decode; /* (n_modules + 1) */
    uint64_t *kv;              /* (n_modules + 1) at n_ctx in every slot */
    int *n_private;            /* (n_modules + 1) */
    uint64_t speed_else;       /* for a device whose speed nobody knows */
};

/* ---- figures ---- */

/* Figures come from other devices; a sum that does not fit is as good as endless. */
static uint64_t plus(uint64_t a, uint64_t b)
{
    return a > UINT64_MAX - b ? UINT64_MAX : a + b;
}

static uint64_t times(uint64_t a, uint64_t b)
{
    return a && b > UINT64_MAX / a ? UINT64_MAX : a * b;
}

static void set_ctx(struct work *w, int n_ctx)
{
    uint64_t positions = (uint64_t)n_ctx * (uint64_t)w->p->n_slots;

    w->n_ctx = n_ctx;
    for (int i = 0; i < w->p->n_modules; i++)
        w->kv[i + 1] = plus(w->kv[i], times(w->p->module[i].kv_bytes, positions));
}

/* An unknown speed counts as the slowest that is known; when none is, all are alike. */
static uint64_t slowest(const struct place_problem *p)
{
    uint64_t least = UINT64_MAX;

    for (int d = 0; d < p->n_devices; d++)
        if (p->device[d].speed && p->device[d].speed < least)
            least = p->device[d].speed;
    return least == UINT64_MAX ? 1 : least;
}

static void open_work(struct work *w, const struct place_problem *p)
{
    size_t n = (size_t)p->n_modules + 1;

    *w = (struct work){.p = p, .n_body = p->n_modules, .private = p->want_private, .more_for = -1};
    w->weight = mem_zalloc(n, sizeof *w->weight);
    w->decode = mem_zalloc(n, sizeof *w->decode);
    w->kv = mem_zalloc(n, sizeof *w->kv);
    w->n_private = mem_zalloc(n, sizeof *w->n_private);
    for (int i = 0; i < p->n_modules; i++) {
        w->weight[i + 1] = plus(w->weight[i], p->module[i].weight_bytes);
        w->decode[i + 1] = plus(w->decode[i], p->module[i].decode_bytes);
        w->n_private[i + 1] = w->n_private[i] + p->module[i].is_private;
    }
    w->speed_else = slowest(p);
    set_ctx(w, p->n_ctx);
}

static void close_work(struct work *w)
{
    free(w->weight);
    free(w->decode);
    free(w->kv);
    free(w->n_private);
}

static void put_tail(struct work *w, int first)
{
    w->n_body = first;
    w->output_home = first < w->p->n_modules;
}

enum { TAILS_MAX = 3 };

/* Where a tail could begin. The last is that there is none, for when it fits nowhere else. */
static int tails(const struct work *w, int first[TAILS_MAX])
{
    int n = 0, last = w->p->n_modules - 1, private = last + 1;

    while (w->private && private > 0 && w->p->module[private - 1].is_private)
    private--;
    if (private > 0 && private < last)
        first[n++] = private;
    first[n++] = last;
    first[n++] = last + 1;
    return n;
}

/* Whether device has the last module when its run is [first, end). */
static bool has_output(const struct work *w, int device, int end)
{
    return w->output_home ? device == 0 : end == w->p->n_modules;
}

static uint64_t memory(const struct work *w, int device, int first, int end)
{
    const struct place_problem *p = w->p;
    bool output = has_output(w, device, end);
    uint64_t bytes = plus(p->device[device].base_bytes, p->scratch_bytes);

    bytes = plus(bytes, w->weight[end] - w->weight[first]);
    bytes = plus(bytes, w->kv[end] - w->kv[first]);
    if (output && w->output_home) {
        bytes = plus(bytes, w->weight[p->n_modules] - w->weight[w->n_body]);
        bytes = plus(bytes, w->kv[p->n_modules] - w->kv[w->n_body]);
    }
    if (output)
        bytes = plus(bytes, p->scratch_output_bytes);
    if (output && first == 0)
        bytes -= p->tied_bytes < bytes ? p->tied_bytes : bytes;
    return bytes;
}

static bool fits(const struct work *w, int device, int first, int end)
{
    const struct place_device *d = &w->p->device[device];
    uint64_t budget = d->memory_bytes, need = memory(w, device, first, end);

    if (w->private && !d->mine &&
        (w->n_private[end] > w->n_private[first] ||
         (device == 0 && w->n_private[w->p->n_modules] > w->n_private[w->n_body])))
        return false;
    if (budget && device == w->more_for)
        budget = plus(budget, w->more_bytes);
    return need < UINT64_MAX && (!budget || need <= budget);
}

static double seconds(const struct work *w, int device, int first, int end)
{
    uint64_t speed = w->p->device[device].speed, bytes = w->decode[end] - w->decode[first];

    if (device == 0)
        bytes = plus(bytes, w->decode[w->p->n_modules] - w->decode[w->n_body]);
    return (double)bytes / (double)(speed ? speed : w->speed_else);
}

/* ---- does it fit? ---- */

/* As many modules from `first` on as the device holds; the head must take the first. */
static int most(const struct work *w, int device, int first)
{
    int end = first;

    /* Not from above: a run one module longer may need less, where it shares the embedding. */
    for (int e = first + 1; e <= w->n_body; e++)
        if (fits(w, device, first, e))
            end = e;
    return end;
}

static bool feasible_so(struct work *w, int tail)
{
    int at = 0;

    put_tail(w, tail);
    for (int d = 0; d < w->p->n_devices && at < w->n_body; d++) {
        at = most(w, d, at);
        if (at == 0)
            return false;
    }
    return at == w->n_body;
}

static bool feasible(struct work *w)
{
    int tail[TAILS_MAX], n = tails(w, tail);

    for (int i = 0; i < n; i++)
        if (feasible_so(w, tail[i]))
            return true;
    return false;
}

int place_largest_ctx(const struct place_problem *p)
{
    int low = 0, high = CTX_MAX / CTX_STEP; /* fits at low, if that is anything; not beyond high */
    struct work w;

    open_work(&w, p);
    while (low < high) {
        int middle = low + (high - low + 1) / 2;

        set_ctx(&w, middle * CTX_STEP);
        if (feasible(&w))
            low = middle;
        else
            high = middle - 1;
    }
    close_work(&w);
    return low * CTX_STEP;
}

/* MiB that `device` would need on top for everything to fit; 0 = that would not help. */
static uint64_t missing(struct work *w, int device)
{
    uint64_t low = 0, high = UINT64_MAX / MIB; /* not enough, enough */

    w->more_for = device;
    w->more_bytes = high * MIB;
    if (!w->p->device[device].memory_bytes || !feasible(w))
        return 0;
    while (high - low > 1) {
        uint64_t middle = low + (high - low) / 2;

        w->more_bytes = middle * MIB;
        if (feasible(w))
            high = middle;
        else
            low = middle;
    }
    return high;
}

static enum err explain(struct work *w, struct err_text *et)
{
    const struct place_problem *p = w->p;
    uint64_t least = UINT64_MAX;
    int device = -1, ctx;

    for (int d = 0; d < p->n_devices; d++) {
        uint64_t m = missing(w, d);

        if (m && m < least) {
            least = m;
            device = d;
        }
    }
    w->more_for = -1;
    w->private = false;
    if (p->want_private && (device < 0 || feasible(w)))
        return err_set(et, ERR_INPUT,
                       "the private modules (embedding, first and last layers, output) do not fit "
                       "on the devices marked mine: mark another (lingua devices mine NAME), give "
                       "them more memory%s%s, or do without --private",
                       device < 0 ? "" : ", first of all ",
                       device < 0 ? "" : p->device[device].name);
    if (device < 0)
        return err_set(et, ERR_MEMORY, "the model fits on no device");
    ctx = place_largest_ctx(p);
    if (ctx)
        return err_set(et, ERR_MEMORY,
                       "the memory budgets are too small by %llu MiB for a context of %d in %d "
                       "slot%s: with that much more on %s it would fit; with these budgets the "
                       "largest context is %d",
                       (unsigned long long)least, p->n_ctx, p->n_slots, p->n_slots == 1 ? "" : "s",
                       p->device[device].name, ctx);
    return err_set(et, ERR_MEMORY,
                   "the memory budgets are too small by %llu MiB: with that much more on %s it "
                   "would fit; with these budgets no context does",
                   (unsigned long long)least, p->device[device].name);
}

/* ---- the best that fits ---- */

/* Of a plan's first modules on its first devices. */
struct best {
    bool possible;
    int n_devices;
    double sum;
    int from; /* where the last of these devices begins; its end = nothing on it */
};

/* The least possible time of the busiest device. */
static double least_time(const struct work *w)
{
    int n = w->n_body;
    double *now = mem_alloc((size_t)(n + 1) * sizeof *now), result;
    double *next = mem_alloc((size_t)(n + 1) * sizeof *next);

    for (int m = 0; m <= n; m++)
        now[m] = m == 0 ? 0.0 : INFINITY;
    for (int d = 0; d < w->p->n_devices; d++) {
        double *swap = now;

        for (int m = 0; m <= n; m++) {
            next[m] = d > 0 ? now[m] : INFINITY; /* nothing on it, but the head takes something */
            for (int k = 0; k < m; k++) {
                double t;

                if (isinf(now[k]) || !fits(w, d, k, m))
                    continue;
                t = seconds(w, d, k, m);
                t = t > now[k] ? t : now[k];
                next[m] = t < next[m] ? t : next[m];
            }
        }
        now = next;
        next = swap;
    }
    result = now[n];
    free(now);
    free(next);
    return result;
}

static bool better(const struct best *a, const struct best *b)
{
    if (!b->possible || a->n_devices != b->n_devices)
        return !b->possible || a->n_devices < b->n_devices;
    return a->sum < b->sum;
}

/* rows of (n_body + 1) after each device, none over `limit` */
static struct best *fewest(const struct work *w, double limit)
{
    int n = w->n_body, n_devices = w->p->n_devices;
    size_t width = (size_t)n + 1;
    struct best *all = mem_zalloc((size_t)(n_devices + 1) * width, sizeof *all);

    all[0].possible = true;
    for (int d = 0; d < n_devices; d++) {
        const struct best *now = all + (size_t)d * width;
        struct best *next = all + (size_t)(d + 1) * width;

        for (int m = 0; m <= n; m++) {
            if (d > 0) {
                next[m] = now[m];
                next[m].from = m;
            }
            for (int k = 0; k < m; k++) {
                struct best b;
                double t;

                if (!now[k].possible || !fits(w, d, k, m))
                    continue;
                t = seconds(w, d, k, m);
                b = (struct best){true, now[k].n_devices + 1, now[k].sum + t, k};
                if (t <= limit && better(&b, &next[m]))
                    next[m] = b;
            }
        }
    }
    return all;
}

static void read_back(const struct work *w, const struct best *all, struct placement *out)
{
    int end = w->n_body, n = 0, first[PLAN_DEVICES_MAX], last[PLAN_DEVICES_MAX];

    for (int d = w->p->n_devices - 1; d >= 0; d--) {
        first[d] = all[(size_t)(d + 1) * (size_t)(w->n_body + 1) + (size_t)end].from;
        last[d] = end;
        end = first[d];
    }
    CHECK(end == 0);
    for (int d = 0; d < w->p->n_devices; d++) {
        if (first[d] == last[d])
            continue;
        out->used[n] = d;
        out->memory_bytes[n] = memory(w, d, first[d], last[d]);
        out->seconds[n] = seconds(w, d, first[d], last[d]);
        out->plan.stage[out->plan.n_stages++] = (struct plan_stage){n++, first[d], last[d]};
    }
    out->plan.n_devices = n;
    if (w->output_home && n == 1)
        out->plan.stage[0].end = w->p->n_modules;
    else if (w->output_home)
        out->plan.stage[out->plan.n_stages++] = (struct plan_stage){0, w->n_body, w->p->n_modules};
}

/* The best of all tails; `output` goes elsewhere only if there is no plan with it on the head. */
static bool best_plan(struct work *w, struct placement *out)
{
    int tail[TAILS_MAX], n = tails(w, tail);
    struct best end = {.possible = false};
    double limit = INFINITY;

    for (int i = 0; i < n; i++) {
        struct best *all, b;
        double t;

        if ((i == n - 1 && end.possible) || !feasible_so(w, tail[i]))
            continue;
        t = least_time(w);
        all = fewest(w, t);
        b = all[(size_t)(w->p->n_devices + 1) * (size_t)(w->n_body + 1) - 1];
        if (!end.possible || t < limit || (t <= limit && better(&b, &end))) {
            *out = (struct placement){.plan = {.n_devices = 0}};
            read_back(w, all, out);
            limit = t;
            end = b;
        }
        free(all);
    }
    return end.possible;
}

enum err place_solve(const struct place_problem *p, struct placement *out, struct err_text *et)
{
    struct work w;
    enum err e = ERR_NONE;

    *out = (struct placement){.plan = {.n_devices = 0}};
    if (p->n_modules < 2 || p->n_devices < 1 || p->n_devices > PLAN_DEVICES_MAX || p->n_ctx < 1 ||
        p->n_slots < 1)
        return err_set(et, ERR_INPUT, "%d modules for %d devices, a context of %d in %d slots",
                       p->n_modules, p->n_devices, p->n_ctx, p->n_slots);
    open_work(&w, p);
    if (best_plan(&w, out)) {
        e = plan_check(&out->plan, p->n_modules, et);
        CHECK(!e);
    } else {
        e = explain(&w, et);
    }
    close_work(&w);
    return e;
}
