#include "plan/milp.h"

#include <Cbc_C_Interface.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/apart.h"
#include "base/check.h"
#include "base/mem.h"
#include "plan/bound.h"

/* Times are scaled so that `below` is this: CBC's tolerances are absolute, about 1e-7. */
#define SCALE 1000.0
/* What rounding inside CBC may have added to a bound. */
#define BOUND_SLACK 1e-6

enum { KINDS_MAX = 48 };

/* A program under construction. Columns and rows are numbered as they come; a row is collected by
 * put() and closed by row(). */
struct prog {
    Cbc_Model *m;
    const struct pace *x;
    const struct place_problem *p;
    double unit; /* scaled times per second */
    int n_cols, n_rows;
    int n, cap, *col; /* of the row under construction */
    double *coef;
    int cap_at, *at; /* (n_cols): where in that row a column is, + 1 */
    int z, lat;      /* columns: max(latency, k * most), latency */
    /* Devices that may take part: (n_d), the head first. arc: (n_d, n_d) columns, -1 = none. */
    int n_d, device[PLAN_DEVICES_MAX];
    int *arc;
};

/* ---- rows and columns ---- */

static int column(struct prog *g, double low, double high, double cost, bool integer)
{
    if (g->n_cols == g->cap_at) {
        g->cap_at = g->cap_at ? 2 * g->cap_at : 256;
        g->at = mem_realloc(g->at, (size_t)g->cap_at, sizeof *g->at);
    }
    g->at[g->n_cols] = 0;
    Cbc_addCol(g->m, "", low, high, cost, integer, 0, NULL, NULL);
    return g->n_cols++;
}

/* A column may be put several times: CBC wants to be told once. */
static void put(struct prog *g, int col, double coef)
{
    if (col < 0 || coef == 0)
        return;
    if (g->at[col]) {
        g->coef[g->at[col] - 1] += coef;
        return;
    }
    if (g->n == g->cap) {
        g->cap = g->cap ? 2 * g->cap : 256;
        g->col = mem_realloc(g->col, (size_t)g->cap, sizeof *g->col);
        g->coef = mem_realloc(g->coef, (size_t)g->cap, sizeof *g->coef);
    }
    g->col[g->n] = col;
    g->coef[g->n++] = coef;
    g->at[col] = g->n;
}

static void clear(struct prog *g)
{
    for (int i = 0; i < g->n; i++)
        g->at[g->col[i]] = 0;
    g->n = 0;
}

static void row(struct prog *g, char sense, double rhs)
{
    Cbc_addRow(g->m, "", g->n, g->col, g->coef, sense, rhs);
    g->n_rows++;
    clear(g);
}

static struct prog *prog_new(const struct pace *x, const struct milp_opts *opts)
{
    struct prog *g = mem_zalloc(1, sizeof *g);
    double high = SCALE * 1.001;

    g->m = Cbc_newModel();
    g->x = x;
    g->p = x->room->p;
    g->unit = SCALE / opts->below;
    g->arc = mem_alloc(PLAN_DEVICES_MAX * PLAN_DEVICES_MAX * sizeof *g->arc);
    for (int i = 0; i < PLAN_DEVICES_MAX * PLAN_DEVICES_MAX; i++)
        g->arc[i] = -1;
    g->z = column(g, 0, high, 1, false);
    g->lat = column(g, 0, high, PLACE_LATENCY_WEIGHT, false);
    put(g, g->z, 1);
    put(g, g->lat, -1);
    row(g, 'G', 0);
    return g;
}

static void prog_free(struct prog *g)
{
    Cbc_deleteModel(g->m);
    free(g->col);
    free(g->coef);
    free(g->at);
    free(g->arc);
    free(g);
}

/* ---- solving ---- */

static void solve(struct prog *g, const struct milp_opts *opts, struct milp_result *out)
{
    double best = -INFINITY;

    Cbc_setLogLevel(g->m, 0);
    Cbc_setParameter(g->m, "log", "0");
    Cbc_setParameter(g->m, "heuristicsOnOff", "off"); /* order.c is the better one */
    Cbc_setParameter(g->m, "preprocess", "off");      /* takes longer than it saves here */
    Cbc_setCutoff(g->m, SCALE);
    Cbc_setAllowableGap(g->m, 0);
    Cbc_setAllowableFractionGap(g->m, opts->gap);
    if (opts->nodes_max)
        Cbc_setMaximumNodes(g->m, opts->nodes_max);
    Cbc_solve(g->m);
    out->n_columns = g->n_cols;
    out->n_rows = g->n_rows;
    out->n_nodes = Cbc_getNodeCount(g->m);
    out->found = Cbc_bestSolution(g->m) != NULL;
    if (Cbc_isProvenInfeasible(g->m))
        best = SCALE; /* but for plans that are not better than asked for */
    else if (!Cbc_isAbandoned(g->m))
        best = Cbc_getBestPossibleObjValue(g->m);
    out->bound = fmin(best, SCALE) / g->unit * (1 - BOUND_SLACK);
}

/* Follows the arcs that are chosen from the head on. */
static void read_order(const struct prog *g, struct milp_result *out)
{
    const double *value = Cbc_bestSolution(g->m);

    out->n_order = 0;
    for (int at = 0; out->n_order < g->n_d;) {
        int next = 0;

        for (int e = 1; e < g->n_d; e++) {
            int col = g->arc[at * PLAN_DEVICES_MAX + e];

            if (col >= 0 && value[col] > 0.5)
                next = e;
        }
        if (!next)
            return;
        out->order[out->n_order++] = g->device[next];
        at = next;
    }
}

/* ---- by module ---- */

static double hop(const struct prog *g, int from, int to, int module)
{
    return g->unit * place_hop_s(g->p, from, to, module, g->x->g);
}

static double wire(const struct prog *g, int from, int to, int module)
{
    return g->unit * g->x->k * place_wire_s(g->p, from, to, module, g->x->g);
}

static int air_of(const struct prog *g, int from, int to)
{
    return g->p->link[from * g->p->n_devices + to].air;
}

int milp_columns_by_module(const struct pace *x)
{
    int n = 1;

    for (int d = 1; d < x->room->p->n_devices; d++)
        n += room_may_use(x->room, d);
    return n * (n + 1) * x->room->p->n_modules;
}

/* x[i,m] by g->device[i] and module; y[m,i,j]: the boundary behind m goes from i to j; y[m,i,i]:
 * there is none. */
struct by_module {
    struct prog *g;
    int *x, *y;
};

static int x_of(const struct by_module *b, int i, int m)
{
    return b->x[i * b->g->p->n_modules + m];
}

/* Behind the last module: home, which is x itself. */
static int y_of(const struct by_module *b, int m, int i, int j)
{
    if (m == b->g->p->n_modules - 1)
        return j == 0 ? x_of(b, i, m) : -1;
    return b->y[(m * b->g->n_d + i) * b->g->n_d + j];
}

static bool may_return(const struct prog *g, int module)
{
    for (int t = 0; t < g->x->room->n_tails - 1; t++)
        if (g->x->room->tail[t] == module)
            return true;
    return false;
}

static void module_columns(struct by_module *b)
{
    struct prog *g = b->g;
    const struct room *r = g->x->room;
    int n = g->p->n_modules;

    b->x = mem_zalloc((size_t)(g->n_d * n), sizeof *b->x);
    b->y = mem_zalloc((size_t)(g->n_d * g->n_d * n), sizeof *b->y);
    for (int i = 0; i < g->n_d; i++)
        for (int m = 0; m < n; m++) {
            const struct place_device *d = &g->p->device[g->device[i]];
            bool never = r->pins && g->p->module[m].is_private && !d->mine;
            int low = m == 0 && i == 0, high = m == 0 ? i == 0 : !never;

            b->x[i * n + m] = column(g, low, high, 0, true);
        }
    for (int m = 0; m < n - 1; m++)
        for (int i = 0; i < g->n_d; i++)
            for (int j = 0; j < g->n_d; j++) {
                bool may = i == j || (room_linked(r, g->device[i], g->device[j]) &&
                                      (j > 0 || may_return(g, m + 1)));

                b->y[(m * g->n_d + i) * g->n_d + j] = may ? column(g, 0, 1, 0, false) : -1;
            }
    for (int i = 1; i < g->n_d; i++)
        if (!room_linked(r, g->device[i], 0))
            Cbc_setColUpper(g->m, x_of(b, i, n - 1), 0);
}

/* Who has m sends behind it, who has m + 1 receives; a device is entered once, and the head that
 * has come home stays there. */
static void module_flow(const struct by_module *b)
{
    struct prog *g = b->g;
    int n = g->p->n_modules;

    for (int m = 0; m < n; m++) {
        for (int i = 0; i < g->n_d; i++)
            put(g, x_of(b, i, m), 1);
        row(g, 'E', 1);
    }
    for (int m = 0; m < n - 1; m++)
        for (int i = 0; i < g->n_d; i++) {
            for (int j = 0; j < g->n_d; j++)
                put(g, y_of(b, m, i, j), 1);
            put(g, x_of(b, i, m), -1);
            row(g, 'E', 0);
            for (int j = 0; j < g->n_d; j++)
                put(g, y_of(b, m, j, i), 1);
            put(g, x_of(b, i, m + 1), -1);
            row(g, 'E', 0);
        }
    for (int j = 0; j < g->n_d; j++) {
        for (int m = 0; m < n - 1; m++)
            for (int i = 0; i < g->n_d; i++)
                if (i != j)
                    put(g, y_of(b, m, i, j), 1);
        if (j == 0) { /* it goes out once: who has come home stays there */
            row(g, 'L', 1);
            for (int m = 0; m < n - 1; m++)
                for (int i = 1; i < g->n_d; i++)
                    put(g, y_of(b, m, 0, i), 1);
        }
        row(g, j && g->p->device[g->device[j]].wish == PLACE_MUST && g->x->room->musts ? 'E' : 'L',
            1);
    }
}

/* Of a device's computing, as a sum over its columns, times `factor`. */
static void put_busy(const struct by_module *b, int i, double factor)
{
    struct prog *g = b->g;
    int d = g->device[i], n = g->p->n_modules;
    double step = g->unit * g->p->device[d].step_s;

    for (int m = 0; m < n; m++)
        put(g, x_of(b, i, m), factor * g->unit * place_module_s(g->p, d, m, g->x->g));
    for (int m = 0; m < n - 1; m++)
        for (int j = 0; j < g->n_d; j++)
            if (j != i)
                put(g, y_of(b, m, j, i), factor * step);
}

static void module_time(const struct by_module *b)
{
    struct prog *g = b->g;
    int n = g->p->n_modules;
    double step0 = g->unit * g->p->device[0].step_s, k = g->x->k;

    put(g, g->lat, 1);
    for (int i = 0; i < g->n_d; i++) {
        put_busy(b, i, -1);
        for (int m = 0; m < n; m++)
            for (int j = 0; j < g->n_d; j++)
                if (j != i)
                    put(g, y_of(b, m, i, j), -hop(g, g->device[i], g->device[j], m));
    }
    row(g, 'E', g->unit * g->p->head_s + step0);
    for (int i = 0; i < g->n_d; i++) {
        double per = k / g->p->device[g->device[i]].cap;

        put(g, g->z, 1);
        put_busy(b, i, -per);
        row(g, 'G', i == 0 ? per * step0 : 0);
    }
    for (int i = 0; k > 1 && i < g->n_d; i++) /* of the links out of it one is used, the head's two
                                                 being at its beginning and behind its tail */
        for (int j = 0; j < g->n_d; j++) {
            if (i == j)
                continue;
            put(g, g->z, 1);
            for (int m = 0; m < n; m++)
                put(g, y_of(b, m, i, j), -wire(g, g->device[i], g->device[j], m));
            row(g, 'G', 0);
        }
    for (int a = 1; k > 1 && a <= PLACE_AIRS_MAX; a++) {
        put(g, g->z, 1);
        for (int i = 0; i < g->n_d; i++)
            for (int j = 0; j < g->n_d; j++)
                for (int m = 0; i != j && m < n; m++)
                    if (air_of(g, g->device[i], g->device[j]) == a)
                        put(g, y_of(b, m, i, j), -wire(g, g->device[i], g->device[j], m));
        row(g, 'G', 0);
    }
}

static double budget_of(const struct prog *g, int d)
{
    const struct place_device *x = &g->p->device[d];

    if (!x->memory_bytes)
        return INFINITY;
    return (double)x->memory_bytes - (double)x->base_bytes;
}

static void module_memory(const struct by_module *b)
{
    struct prog *g = b->g;
    const uint64_t *bytes = g->x->room->bytes;
    int n = g->p->n_modules;
    double mib = 1.0 / (1 << 20), scratch = (double)g->p->scratch_bytes;

    for (int i = 0; i < g->n_d; i++) {
        double budget = budget_of(g, g->device[i]);
        double output = (double)g->p->scratch_output_bytes;

        if (isinf(budget))
            continue;
        if (i == 0)
            output -= (double)g->p->tied_bytes;
        for (int m = 0; m < n; m++)
            put(g, x_of(b, i, m),
                mib * ((double)(bytes[m + 1] - bytes[m]) + (m == n - 1 ? output : 0)));
        if (i == 0) {
            row(g, 'L', mib * (budget - scratch));
            continue;
        }
        for (int m = 0; m < n - 1; m++)
            for (int j = 0; j < g->n_d; j++)
                if (j != i)
                    put(g, y_of(b, m, j, i), mib * scratch);
        row(g, 'L', mib * fmax(budget, 0));
    }
}

static void module_worth(const struct by_module *b)
{
    struct prog *g = b->g;

    for (int j = 1; j < g->n_d; j++)
        for (int m = 0; m < g->p->n_modules - 1; m++)
            for (int i = 0; i < g->n_d; i++)
                if (i != j && y_of(b, m, i, j) >= 0)
                    Cbc_setObjCoeff(g->m, y_of(b, m, i, j), g->unit * g->x->worth[g->device[j]]);
}

static void module_order(const struct by_module *b, struct milp_result *out)
{
    const struct prog *g = b->g;
    const double *value = Cbc_bestSolution(g->m);

    for (int m = 1; m < g->p->n_modules; m++)
        for (int i = 1; i < g->n_d; i++)
            if (value[x_of(b, i, m)] > 0.5 && value[x_of(b, i, m - 1)] < 0.5 &&
                out->n_order < PLAN_DEVICES_MAX)
                out->order[out->n_order++] = g->device[i];
}

static void by_module(struct prog *g, const struct milp_opts *opts, struct milp_result *out)
{
    struct by_module b = {.g = g};

    g->device[g->n_d++] = 0;
    for (int d = 1; d < g->p->n_devices; d++)
        if (room_may_use(g->x->room, d))
            g->device[g->n_d++] = d;
    module_columns(&b);
    module_flow(&b);
    module_time(&b);
    module_memory(&b);
    module_worth(&b);
    solve(g, opts, out);
    if (out->found)
        module_order(&b, out);
    free(b.x);
    free(b.y);
}

/* ---- by kind ---- */

/* Modules that cost, weigh and are pinned alike; where they stand does not count. The first and the
 * last are kinds of their own. */
struct by_kind {
    struct prog *g;
    int n_kinds, kind[PLACE_MODULES_MAX];
    int count[KINDS_MAX], example[KINDS_MAX];
    int *before; /* (n_modules + 1, n_kinds): of the first i modules */
    int *n;      /* (n_d, n_kinds): columns */
    int longest[PLAN_DEVICES_MAX], used[PLAN_DEVICES_MAX];
    int tail[PLAN_DEVICES_MAX], result[PLAN_DEVICES_MAX]; /* home: to the tail, with the logits */
    uint64_t row_bytes; /* the least behind any module but the last */
};

static bool alike(const struct prog *g, int a, int b)
{
    const struct place_module *x = &g->p->module[a], *y = &g->p->module[b];

    return a > 0 && b < g->p->n_modules - 1 && x->class == y->class &&
           x->weight_bytes == y->weight_bytes && x->kv_bytes == y->kv_bytes &&
           (x->is_private == y->is_private || !g->x->room->pins);
}

static bool find_kinds(struct by_kind *b)
{
    const struct prog *g = b->g;
    int n = g->p->n_modules;

    b->row_bytes = UINT64_MAX;
    for (int m = 0; m < n; m++) {
        int q = 0;

        while (q < b->n_kinds && !alike(g, b->example[q], m))
            q++;
        if (q == KINDS_MAX)
            return false;
        if (q == b->n_kinds)
            b->example[b->n_kinds++] = m;
        b->kind[m] = q;
        b->count[q]++;
        if (m < n - 1 && g->p->module[m].out_bytes < b->row_bytes)
            b->row_bytes = g->p->module[m].out_bytes;
    }
    b->before = mem_zalloc((size_t)((n + 1) * b->n_kinds), sizeof *b->before);
    for (int m = 0; m < n; m++)
        for (int q = 0; q < b->n_kinds; q++)
            b->before[(m + 1) * b->n_kinds + q] = b->before[m * b->n_kinds + q] + (b->kind[m] == q);
    return true;
}

/* Devices that may have a run in a plan that is good enough; false: they cannot hold all. */
static bool find_devices(struct by_kind *b, double below)
{
    struct prog *g = b->g;
    int sum = 0;

    for (int d = 0; d < g->p->n_devices; d++) {
        int longest = d == 0 || room_may_use(g->x->room, d) ? bound_longest(g->x, below, d) : 0;

        if (d > 0 && longest == 0) {
            if (g->x->room->musts && g->p->device[d].wish == PLACE_MUST)
                return false;
            continue;
        }
        b->longest[g->n_d] = longest;
        g->device[g->n_d++] = d;
        sum += longest;
    }
    return sum >= g->p->n_modules;
}

/* The most modules of each kind in any one run of a device. */
static void most_of_kinds(const struct by_kind *b, int i, double below, int *most)
{
    const struct prog *g = b->g;
    int n = g->p->n_modules, end = 0;

    for (int q = 0; q < b->n_kinds; q++)
        most[q] = 0;
    for (int first = i > 0; first < (i > 0 ? n : 1); first++) {
        end = bound_reach(g->x, below, g->device[i], first, end);
        for (int q = 0; q < b->n_kinds; q++) {
            int count = b->before[end * b->n_kinds + q] - b->before[first * b->n_kinds + q];

            most[q] = count > most[q] ? count : most[q];
        }
    }
    for (int m = g->x->room->tail[0]; i == 0 && m < n; m++)
        if (most[b->kind[m]] < b->count[b->kind[m]])
            most[b->kind[m]]++;
}

static double kind_wire(const struct by_kind *b, int from, int to, uint64_t row_bytes)
{
    const struct prog *g = b->g;
    double bytes = (double)g->p->frame_bytes + (double)row_bytes * g->x->g;

    return g->unit * bytes / g->p->link[from * g->p->n_devices + to].bytes_per_s;
}

/* A binary for the hop from one device to another, or -1 if no good plan has it. */
static int arc_column(struct by_kind *b, int from, int to, uint64_t row_bytes)
{
    struct prog *g = b->g;
    double least = g->unit * (g->p->head_s + g->p->device[0].step_s + g->x->rest[0]), s, hop_s;

    if (!room_linked(g->x->room, from, to))
        return -1;
    s = kind_wire(b, from, to, row_bytes);
    hop_s = s + g->unit * g->p->link[from * g->p->n_devices + to].latency_s;
    if (least + hop_s > SCALE || g->x->k * s > SCALE)
        return -1;
    return column(g, 0, 1, 0, true);
}

static uint64_t tail_bytes(const struct by_kind *b)
{
    const struct room *r = b->g->x->room;
    uint64_t least = UINT64_MAX;

    for (int t = 0; t < r->n_tails - 1; t++) {
        uint64_t bytes = r->p->module[r->tail[t] - 1].out_bytes;

        least = bytes < least ? bytes : least;
    }
    return least;
}

static void kind_columns(struct by_kind *b, double below)
{
    struct prog *g = b->g;
    int most[KINDS_MAX], n = g->p->n_modules;

    b->n = mem_zalloc((size_t)(g->n_d * b->n_kinds), sizeof *b->n);
    for (int i = 0; i < g->n_d; i++) {
        int d = g->device[i];
        bool must = i == 0 || (g->x->room->musts && g->p->device[d].wish == PLACE_MUST);

        most_of_kinds(b, i, below, most);
        b->used[i] = column(g, must, 1, g->unit * g->x->worth[d], true);
        for (int q = 0; q < b->n_kinds; q++) {
            bool mine = q == b->kind[0] && i == 0;

            b->n[i * b->n_kinds + q] = column(g, mine, most[q], 0, true);
            if (i == 0 || most[q] == 0)
                continue;
            put(g, b->n[i * b->n_kinds + q], 1);
            put(g, b->used[i], -most[q]);
            row(g, 'L', 0);
        }
        for (int j = 1; j < g->n_d; j++)
            if (i != j)
                g->arc[i * PLAN_DEVICES_MAX + j] = arc_column(b, d, g->device[j], b->row_bytes);
        b->tail[i] = i ? arc_column(b, d, 0, tail_bytes(b)) : -1;
        b->result[i] = i ? arc_column(b, d, 0, g->p->module[n - 1].out_bytes) : -1;
    }
}

static void put_kinds(const struct by_kind *b, int i, double factor)
{
    for (int q = 0; q < b->n_kinds; q++)
        put(b->g, b->n[i * b->n_kinds + q], factor);
}

/* Every module somewhere, and of a device in use one at least and so many as it can at most. */
static void kind_counts(const struct by_kind *b)
{
    struct prog *g = b->g;
    int last = b->kind[g->p->n_modules - 1];

    for (int q = 0; q < b->n_kinds; q++) {
        for (int i = 0; i < g->n_d; i++)
            put(g, b->n[i * b->n_kinds + q], 1);
        row(g, 'E', b->count[q]);
    }
    for (int i = 0; i < g->n_d; i++) {
        put_kinds(b, i, 1);
        put(g, b->used[i], -b->longest[i]);
        row(g, 'L', 0);
        put_kinds(b, i, 1);
        put(g, b->used[i], -1);
        row(g, 'G', 0);
        if (i > 0) { /* the last module is where the logits come from */
            put(g, b->n[i * b->n_kinds + last], 1);
            put(g, b->result[i], -1);
            row(g, 'E', 0);
        }
    }
}

/* In runs that are contiguous, kinds come in nearly fixed proportions: count[q] of a run is never
 * above rho * count[p] + beta. */
static void kind_ratio(const struct by_kind *b, int p, int q)
{
    struct prog *g = b->g;
    int n = g->p->n_modules;
    double rho = (double)b->count[q] / b->count[p], beta = 0, head = 0, tail = 0, run = 0, all = 0;

    for (int m = 0; m < n; m++) {
        double step = (b->kind[m] == q) - rho * (b->kind[m] == p);

        run = fmax(run + step, 0);
        all += step;
        beta = fmax(beta, run);
        head = fmax(head, all);
    }
    for (int m = n - 1, sum = 0; m >= g->x->room->tail[0]; m--) {
        sum += b->kind[m] == q;
        tail = fmax(tail, sum);
    }
    if (beta + 1 > b->count[q])
        return;
    for (int i = 0; i < g->n_d; i++) {
        put(g, b->n[i * b->n_kinds + q], 1);
        put(g, b->n[i * b->n_kinds + p], -rho);
        put(g, b->used[i], -(i ? beta : head + tail));
        row(g, 'L', 1e-9 * n);
    }
}

/* A path: into and out of every device that is used, once, and home. */
static void kind_path(const struct by_kind *b)
{
    struct prog *g = b->g;
    int n = g->n_d;

    for (int i = 1; i < n; i++) {
        for (int j = 0; j < n; j++)
            put(g, j == i ? -1 : g->arc[j * PLAN_DEVICES_MAX + i], 1);
        put(g, b->used[i], -1);
        row(g, 'E', 0);
        for (int j = 1; j < n; j++)
            put(g, j == i ? -1 : g->arc[i * PLAN_DEVICES_MAX + j], 1);
        put(g, b->tail[i], 1);
        put(g, b->result[i], 1);
        put(g, b->used[i], -1);
        row(g, 'E', 0);
    }
    for (int j = 1; j < n; j++)
        put(g, g->arc[j], 1);
    row(g, 'L', 1);
    for (int i = 1; i < n; i++) {
        put(g, b->tail[i], 1);
        put(g, b->result[i], 1);
        put(g, g->arc[i], -1);
    }
    row(g, 'E', 0);
}

/* Miller, Tucker and Zemlin's rows against circles beside the path, as Desrochers and Laporte lift
 * them: place(j) >= place(i) + 1 where i goes to j. */
static void kind_mtz(const struct by_kind *b)
{
    struct prog *g = b->g;
    int n = g->n_d, place[PLAN_DEVICES_MAX];

    if (n < 3)
        return;
    for (int i = 1; i < n; i++)
        place[i] = column(g, 1, n - 1, 0, false);
    for (int i = 1; i < n; i++)
        for (int j = 1; j < n; j++) {
            if (i == j || g->arc[i * PLAN_DEVICES_MAX + j] < 0)
                continue;
            put(g, place[i], 1);
            put(g, place[j], -1);
            put(g, g->arc[i * PLAN_DEVICES_MAX + j], n - 1);
            put(g, g->arc[j * PLAN_DEVICES_MAX + i], n - 3);
            row(g, 'L', n - 2);
        }
}

static void put_work(const struct by_kind *b, int i, double factor)
{
    struct prog *g = b->g;
    int d = g->device[i];
    double step = factor * g->unit * g->p->device[d].step_s;

    for (int q = 0; q < b->n_kinds; q++)
        put(g, b->n[i * b->n_kinds + q],
            factor * g->unit * place_module_s(g->p, d, b->example[q], g->x->g));
    put(g, b->used[i], step);
    for (int j = 1; i == 0 && j < g->n_d; j++)
        put(g, b->tail[j], step);
}

/* Calls put for every hop: with its seconds on the wire times k, or with its latency. air: only
 * those on it; 0 = all. */
static void put_hops(const struct by_kind *b, int from, int air, bool latency, double factor)
{
    struct prog *g = b->g;
    int d = g->device[from];

    for (int j = 0; j < g->n_d; j++) {
        int e = g->device[j];
        double extra = latency ? g->unit * g->p->link[d * g->p->n_devices + e].latency_s : 0;

        if (j == from || (air && air_of(g, d, e) != air))
            continue;
        if (j > 0) {
            put(g, g->arc[from * PLAN_DEVICES_MAX + j],
                factor * (kind_wire(b, d, e, b->row_bytes) + extra));
            continue;
        }
        put(g, b->tail[from], factor * (kind_wire(b, d, 0, tail_bytes(b)) + extra));
        put(g, b->result[from],
            factor * (kind_wire(b, d, 0, g->p->module[g->p->n_modules - 1].out_bytes) + extra));
    }
}

static void kind_time(const struct by_kind *b)
{
    struct prog *g = b->g;
    double k = g->x->k;

    put(g, g->lat, 1);
    for (int i = 0; i < g->n_d; i++) {
        put_work(b, i, -1);
        put_hops(b, i, 0, true, -1);
    }
    row(g, 'E', g->unit * g->p->head_s);
    for (int i = 0; i < g->n_d; i++) {
        double cap = g->p->device[g->device[i]].cap;

        if (k > 1 || cap < 1) {
            put(g, g->z, 1);
            put_work(b, i, -k / cap);
            row(g, 'G', 0);
        }
        if (k >
            1) { /* of the hops out of it one is chosen; the links home have their own columns */
            put(g, g->z, 1);
            put_hops(b, i, 0, false, -k);
            row(g, 'G', 0);
        }
    }
    for (int a = 1; k > 1 && a <= PLACE_AIRS_MAX; a++) {
        put(g, g->z, 1);
        for (int i = 0; i < g->n_d; i++)
            put_hops(b, i, a, false, -k);
        if (g->n > 1)
            row(g, 'G', 0);
        else
            clear(g);
    }
}

static void kind_memory(const struct by_kind *b)
{
    struct prog *g = b->g;
    const uint64_t *bytes = g->x->room->bytes;
    double mib = 1.0 / (1 << 20), output = (double)g->p->scratch_output_bytes;

    for (int i = 0; i < g->n_d; i++) {
        double budget = budget_of(g, g->device[i]);

        if (isinf(budget))
            continue;
        for (int q = 0; q < b->n_kinds; q++) {
            int m = b->example[q];
            double extra = m == g->p->n_modules - 1 ? output : 0;

            if (extra > 0 || m == g->p->n_modules - 1)
                extra -= i == 0 ? (double)g->p->tied_bytes : 0;
            put(g, b->n[i * b->n_kinds + q], mib * ((double)(bytes[m + 1] - bytes[m]) + extra));
        }
        put(g, b->used[i], mib * (double)g->p->scratch_bytes);
        row(g, 'L', mib * fmax(budget, 0) + 1e-6);
    }
}

static void by_kind(struct prog *g, const struct milp_opts *opts, struct milp_result *out)
{
    struct by_kind *b = mem_zalloc(1, sizeof *b);

    b->g = g;
    if (!find_kinds(b))
        goto out;
    if (!find_devices(b, opts->below)) {
        out->bound = opts->below * (1 - BOUND_SLACK);
        goto out;
    }
    kind_columns(b, opts->below);
    kind_counts(b);
    for (int p = 1; p < b->n_kinds; p++)
        for (int q = 1; q < b->n_kinds; q++)
            if (p != q && b->count[p] > 1 && b->count[q] > 1)
                kind_ratio(b, p, q);
    kind_path(b);
    kind_mtz(b);
    kind_time(b);
    kind_memory(b);
    solve(g, opts, out);
    if (out->found)
        read_order(g, out);
out:
    free(b->before);
    free(b->n);
    free(b);
}

/* ---- in a child ---- */

/* CBC ends the program at some of its own inconsistencies, installs a handler for SIGINT while it
 * solves, keeps globals and leaves some memory behind each time: none of that is for the head's own
 * process. No limit here is one that a plan meets: they are for a solver that has gone astray. */
enum { SOLVE_CPU_S = 3600 };
static const uint64_t solve_memory_bytes = (uint64_t)4 << 30;

struct task {
    const struct pace *x;
    const struct milp_opts *opts;
};

static enum err work(const void *arg, char **out, size_t *n, struct err_text *et)
{
    const struct task *t = arg;
    struct prog *g = prog_new(t->x, t->opts);
    struct milp_result *r = mem_zalloc(1, sizeof *r);

    (void)et;
    if (t->opts->form == MILP_BY_MODULE)
        by_module(g, t->opts, r);
    else
        by_kind(g, t->opts, r);
    prog_free(g);
    *out = (char *)r;
    *n = sizeof *r;
    return ERR_NONE;
}

static bool makes_sense(const struct pace *x, const struct milp_opts *opts,
                        const struct milp_result *r)
{
    bool seen[PLAN_DEVICES_MAX] = {true}; /* the head is nobody's next */

    if (!(r->bound >= 0 && r->bound <= opts->below) || r->n_order < 0 ||
        r->n_order >= x->room->p->n_devices)
        return false;
    for (int i = 0; i < r->n_order; i++) {
        if (r->order[i] < 0 || r->order[i] >= x->room->p->n_devices || seen[r->order[i]])
            return false;
        seen[r->order[i]] = true;
    }
    return true;
}

void milp_solve(const struct pace *x, const struct milp_opts *opts, struct milp_result *out)
{
    const struct task t = {x, opts};
    const struct apart_task task = {.what = "the program",
                                    .work = work,
                                    .arg = &t,
                                    .cpu_s = SOLVE_CPU_S,
                                    .memory_bytes = solve_memory_bytes,
                                    .answer_max = sizeof *out};
    struct err_text et;
    char *bytes;
    size_t n;

    CHECK(isfinite(opts->below) && opts->below > 0);
    *out = (struct milp_result){.bound = 0};
    if (apart_run(&task, &bytes, &n, &et))
        return; /* nothing is known: other bounds hold, and other orders were tried */
    if (n == sizeof *out)
        memcpy(out, bytes, n);
    free(bytes);
    if (!makes_sense(x, opts, out))
        *out = (struct milp_result){.bound = 0};
}
