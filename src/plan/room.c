/* Whether a plan exists is asked of cut points alone: for each node of a chart, which cut points a
 * chain that ends in it can have reached. A run may end earlier than its memory demands, so from one
 * cut point a device reaches all up to its furthest.
 *
 * All figures have passed place_check: module bytes stay below 2^51 each at any context, so that the
 * sums over 2,048 of them are exact. Only base_bytes may be anything. */
#include "plan/room.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/check.h"
#include "base/mem.h"

enum { CTX_STEP = 64, CTX_MAX = 1 << 24, ORDERS = 4 };

static const uint64_t MIB = 1 << 20;

/* ---- memory and pins ---- */

static uint64_t plus(uint64_t a, uint64_t b)
{
    return a > UINT64_MAX - b ? UINT64_MAX : a + b;
}

/* Where a tail could begin. The last is that there is none. */
static void find_tails(struct room *r)
{
    int last = r->p->n_modules - 1, private = last + 1;

    r->n_tails = 0;
    while (r->p->want_private && private > 0 && r->p->module[private - 1].is_private)
    private--;
    if (private > 0 && private < last)
        r->tail[r->n_tails++] = private;
    r->tail[r->n_tails++] = last;
    r->tail[r->n_tails++] = last + 1;
}

static bool has_budget(const struct room *r, int device, uint64_t bytes)
{
    uint64_t budget = r->p->device[device].memory_bytes,
             need = plus(r->p->device[device].base_bytes, bytes);

    if (!r->budgets)
        return true;
    if (budget && device == r->more_for)
        budget = plus(budget, r->more_bytes);
    return need < UINT64_MAX && (!budget || need <= budget);
}

bool room_for_head(const struct room *r, int end, int tail)
{
    const struct place_problem *p = r->p;
    int n = p->n_modules;
    bool all = tail < n || end == n;
    uint64_t bytes = p->scratch_bytes + r->bytes[end] + (r->bytes[n] - r->bytes[tail]);

    if (r->pins && !p->device[0].mine && r->n_private[end] + r->n_private[n] > r->n_private[tail])
        return false;
    if (all)
        bytes += p->scratch_output_bytes;
    if (all)
        bytes -= p->tied_bytes < bytes ? p->tied_bytes : bytes;
    return has_budget(r, 0, bytes);
}

static bool has_room(const struct room *r, int device, int first, int end)
{
    const struct place_problem *p = r->p;
    uint64_t bytes = p->scratch_bytes + (r->bytes[end] - r->bytes[first]);

    if (r->pins && !p->device[device].mine && r->n_private[end] > r->n_private[first])
        return false;
    if (end == p->n_modules)
        bytes += p->scratch_output_bytes;
    return has_budget(r, device, bytes);
}

void room_update(struct room *r)
{
    const struct place_problem *p = r->p;
    uint64_t positions = (uint64_t)r->n_ctx * (uint64_t)p->n_slots;
    int n = p->n_modules;

    for (int m = 0; m < n; m++) {
        r->bytes[m + 1] =
            r->bytes[m] + p->module[m].weight_bytes + p->module[m].kv_bytes * positions;
        r->n_private[m + 1] = r->n_private[m] + p->module[m].is_private;
    }
    for (int d = 1; d < p->n_devices; d++)
        /* What fits from one module on fits from the next on, too. */
        for (int first = 0, end = 0; first < n; first++) {
            if (end < first)
                end = first;
            while (end < n && has_room(r, d, first, end + 1))
                end++;
            r->reach[d * n + first] = end;
        }
}

void room_init(struct room *r, const struct place_problem *p)
{
    size_t n = (size_t)p->n_modules + 1;

    *r = (struct room){.p = p,
                       .n_ctx = p->n_ctx,
                       .pins = p->want_private,
                       .musts = true,
                       .links = true,
                       .budgets = true,
                       .more_for = -1};
    r->bytes = mem_zalloc(n, sizeof *r->bytes);
    r->n_private = mem_zalloc(n, sizeof *r->n_private);
    r->reach = mem_zalloc((size_t)p->n_devices * n, sizeof *r->reach);
    find_tails(r);
    room_update(r);
}

void room_fini(struct room *r)
{
    free(r->bytes);
    free(r->n_private);
    free(r->reach);
}

bool room_may_use(const struct room *r, int device)
{
    return device > 0 && r->p->device[device].wish != PLACE_NOT;
}

bool room_linked(const struct room *r, int from, int to)
{
    return !r->links || r->p->link[from * r->p->n_devices + to].there;
}

static bool must(const struct room *r, int device)
{
    return r->musts && device > 0 && r->p->device[device].wish == PLACE_MUST;
}

/* ---- charts ---- */

static void chart_init(struct chart *c, const struct room *r, size_t n_nodes, size_t n_preds)
{
    *c = (struct chart){.n_nodes = 1, .head_alone = true};
    c->node = mem_zalloc(n_nodes, sizeof *c->node);
    c->pred = mem_zalloc(n_preds, sizeof *c->pred);
    for (int d = 1; d < r->p->n_devices; d++)
        c->head_alone &= !must(r, d);
}

void chart_fini(struct chart *c)
{
    free(c->node);
    free(c->pred);
}

static void add_pred(struct chart *c, struct chart_node *node, int pred)
{
    c->pred[c->n_preds++] = pred;
    node->n_preds++;
}

void chart_of_order(const struct room *r, const int *order, int n, struct chart *out)
{
    chart_init(out, r, (size_t)n + 1, (size_t)n * (size_t)(n + 1) / 2 + 1);
    for (int i = 0; i < n; i++) {
        struct chart_node *node = &out->node[out->n_nodes++];
        bool skipped = false; /* a device that must not be */

        node->device = order[i];
        node->pred = out->n_preds;
        for (int k = i - 1; k >= 0 && !skipped; k--) {
            if (room_linked(r, order[k], order[i]))
                add_pred(out, node, k + 1);
            skipped = must(r, order[k]);
        }
        if (!skipped && room_linked(r, 0, order[i]))
            add_pred(out, node, 0);
        node->may_end = room_linked(r, order[i], 0);
        for (int k = i + 1; k < n; k++)
            node->may_end &= !must(r, order[k]);
    }
}

bool chart_of_all(const struct room *r, struct chart *out)
{
    int device[CHART_ALL_MAX], n = 0, needed = 0, *id;
    size_t n_sets, n_nodes;

    for (int d = 1; d < r->p->n_devices; d++) {
        if (!room_may_use(r, d))
            continue;
        if (n == CHART_ALL_MAX)
            return false;
        needed |= must(r, d) << n;
        device[n++] = d;
    }
    n_sets = (size_t)1 << n;
    n_nodes = n_sets * (size_t)n / 2 + 1;
    chart_init(out, r, n_nodes, n_nodes * (size_t)n);
    id = mem_zalloc(n_sets * (size_t)n + 1, sizeof *id); /* 0: no such node */
    for (int set = 1; set < (int)n_sets; set++)
        for (int i = 0; i < n; i++) {
            struct chart_node *node = &out->node[out->n_nodes];
            int rest = set & ~(1 << i);

            if (rest == set)
                continue;
            *node = (struct chart_node){.device = device[i], .pred = out->n_preds};
            if (!rest && room_linked(r, 0, device[i]))
                add_pred(out, node, 0);
            for (int k = 0; k < n; k++)
                if (rest >> k & 1 && id[rest * n + k] && room_linked(r, device[k], device[i]))
                    add_pred(out, node, id[rest * n + k]);
            node->may_end = (set & needed) == needed && room_linked(r, device[i], 0);
            if (node->n_preds)
                id[set * n + i] = out->n_nodes++;
        }
    free(id);
    return true;
}

/* ---- does it fit? ---- */

/* at: (n_nodes, n_modules + 1), the cut points reached; for one tail. */
static bool passes(const struct room *r, const struct chart *c, int tail, bool *at)
{
    size_t width = (size_t)r->p->n_modules + 1;

    memset(at, 0, (size_t)c->n_nodes * width * sizeof *at);
    for (int end = 1; end < tail; end++)
        at[end] = room_for_head(r, end, tail);
    for (int i = 1; i < c->n_nodes; i++) {
        const struct chart_node *node = &c->node[i];
        bool *mine = at + (size_t)i * width;
        int furthest = 0; /* of the runs that begin at or before `m` */

        for (int m = 1; m <= tail; m++) {
            bool begins = false;

            mine[m] = furthest >= m;
            for (int k = 0; k < node->n_preds && !begins && m < tail; k++)
                begins = at[(size_t)c->pred[node->pred + k] * width + (size_t)m];
            if (begins && r->reach[node->device * r->p->n_modules + m] > furthest)
                furthest = r->reach[node->device * r->p->n_modules + m];
        }
        if (node->may_end && mine[tail])
            return true;
    }
    return false;
}

static bool feasible_in(const struct room *r, const struct chart *c)
{
    int n = r->p->n_modules;
    bool *at, found = c->head_alone && room_for_head(r, n, n);

    if (found)
        return true;
    at = mem_zalloc((size_t)c->n_nodes * (size_t)(n + 1), sizeof *at);
    for (int i = 0; i < r->n_tails && !found; i++)
        found = passes(r, c, r->tail[i], at);
    free(at);
    return found;
}

/* Most room first or last, those whose owner they are first or last. */
static void likely_order(const struct room *r, int which, int *order, int n)
{
    uint64_t key[PLAN_DEVICES_MAX];

    for (int i = 0; i < n; i++) {
        const struct place_device *d = &r->p->device[order[i]];
        uint64_t budget = d->memory_bytes ? d->memory_bytes : UINT64_MAX;

        key[i] = budget > d->base_bytes ? budget - d->base_bytes : 0;
        key[i] = which & 1 ? key[i] / 2 : (UINT64_MAX - key[i]) / 2;
        if (which & 2 && d->mine)
            key[i] |= (uint64_t)1 << 63;
        for (int k = i; k > 0 && key[k] < key[k - 1]; k--) {
            uint64_t swap = key[k];
            int device = order[k];

            key[k] = key[k - 1];
            key[k - 1] = swap;
            order[k] = order[k - 1];
            order[k - 1] = device;
        }
    }
}

bool room_feasible(const struct room *r)
{
    int order[PLAN_DEVICES_MAX], n = 0;
    struct chart c;
    bool found = false;

    if (chart_of_all(r, &c)) {
        found = feasible_in(r, &c);
        chart_fini(&c);
        return found;
    }
    for (int d = 1; d < r->p->n_devices; d++)
        if (room_may_use(r, d))
            order[n++] = d;
    for (int which = 0; which <= ORDERS && !found; which++) {
        chart_of_order(r, order, n, &c); /* first as they are given */
        found = feasible_in(r, &c);
        chart_fini(&c);
        likely_order(r, which, order, n);
    }
    return found;
}

int place_largest_ctx(const struct place_problem *p)
{
    int low = 0, high = CTX_MAX / CTX_STEP; /* fits at low, if that is anything; not beyond high */
    struct err_text et;
    struct room r;

    if (place_check(p, &et))
        return 0;
    room_init(&r, p);
    while (low < high) {
        int middle = low + (high - low + 1) / 2;

        r.n_ctx = middle * CTX_STEP;
        room_update(&r);
        if (room_feasible(&r))
            low = middle;
        else
            high = middle - 1;
    }
    room_fini(&r);
    return low * CTX_STEP;
}

/* ---- why not ---- */

static bool fits_with(struct room *r, int device, uint64_t mib)
{
    r->more_for = device;
    r->more_bytes = mib * MIB;
    room_update(r);
    return room_feasible(r);
}

/* The least MiB which, given to one device, are enough, and which device; false: no device's. */
static bool shortfall(struct room *r, int *device, uint64_t *mib)
{
    uint64_t least = UINT64_MAX / MIB; /* enough for `device`, if there is one; more than it not */

    *device = -1;
    for (int d = 0; d < r->p->n_devices; d++) {
        uint64_t low = 0, high = *device < 0 ? least : least - 1; /* not enough, perhaps enough */

        if (!r->p->device[d].memory_bytes || high == 0 || !fits_with(r, d, high))
            continue;
        while (high - low > 1) {
            uint64_t middle = low + (high - low) / 2;

            if (fits_with(r, d, middle))
                high = middle;
            else
                low = middle;
        }
        *device = d;
        least = high;
    }
    *mib = least;
    r->more_for = -1;
    room_update(r);
    return *device >= 0;
}

static bool feasible_without(struct room *r, bool *what)
{
    bool was = *what, found;

    *what = false;
    room_update(r);
    found = room_feasible(r);
    *what = was;
    room_update(r);
    return found;
}

/* The first link that would do; else the first that is missing between devices that may be used. */
static void missing_link(const struct room *r, int *from, int *to)
{
    int n = r->p->n_devices;
    size_t n_links = (size_t)n * (size_t)n;
    struct place_link *link = mem_zalloc(n_links, sizeof *link);
    struct place_problem p = *r->p;
    struct room with = *r;
    bool first = true, found = false;

    memcpy(link, r->p->link, n_links * sizeof *link);
    p.link = link;
    with.p = &p;
    for (int a = 0; a < n && !found; a++)
        for (int b = 0; b < n && !found; b++) {
            struct place_link *l = &link[a * n + b];

            if (a == b || l->there || (a && !room_may_use(r, a)) || (b && !room_may_use(r, b)))
                continue;
            l->there = true;
            found = room_feasible(&with);
            l->there = false;
            if (found || first) {
                *from = a;
                *to = b;
            }
            first = false;
        }
    free(link);
    CHECK(!first);
}

static enum err explain_private(struct room *r, struct err_text *et)
{
    uint64_t mib;
    int device;
    bool helps = shortfall(r, &device, &mib);

    return err_set(et, ERR_INPUT,
                   "the private modules (embedding, first and last layers, output) do not fit "
                   "on the devices marked mine: mark another (lingua devices mine NAME), give "
                   "them more memory%s%s, or do without --private",
                   helps ? ", first of all " : "", helps ? r->p->device[device].name : "");
}

static enum err explain_musts(const struct room *r, struct err_text *et)
{
    char names[ERR_TEXT_MAX / 2] = "";
    size_t used = 0;

    for (int d = 1; d < r->p->n_devices; d++) {
        int n = 0;

        if (must(r, d))
            n = snprintf(names + used, sizeof names - used, "%s%s", used ? ", " : "",
                         r->p->device[d].name);
        if (n < 0 || used + (size_t)n >= sizeof names)
            break;
        used += (size_t)n;
    }
    return err_set(et, ERR_INPUT,
                   "the devices that must be used cannot all be: no chain of links and budgets "
                   "takes in %s; insist on fewer, link them, or give them more memory",
                   names);
}

static enum err explain_memory(struct room *r, struct err_text *et)
{
    const struct place_problem *p = r->p;
    uint64_t mib;
    int device, ctx;

    if (!shortfall(r, &device, &mib))
        return err_set(et, ERR_MEMORY,
                       "the memory budgets are too small: the model fits on no device, and more "
                       "memory on one of them alone would not do: give more to several, or add "
                       "devices");
    ctx = place_largest_ctx(p);
    if (ctx)
        return err_set(et, ERR_MEMORY,
                       "the memory budgets are too small by %llu MiB for a context of %d in %d "
                       "slot%s: with that much more on %s it would fit; with these budgets the "
                       "largest context is %d",
                       (unsigned long long)mib, p->n_ctx, p->n_slots, p->n_slots == 1 ? "" : "s",
                       p->device[device].name, ctx);
    return err_set(et, ERR_MEMORY,
                   "the memory budgets are too small by %llu MiB: with that much more on %s it "
                   "would fit; with these budgets no context does",
                   (unsigned long long)mib, p->device[device].name);
}

/* We ask for less and less, and name the first thing that stands in the way alone. */
enum err room_explain(struct room *r, struct err_text *et)
{
    int from = 0, to = 0;

    if (r->pins && feasible_without(r, &r->pins))
        return explain_private(r, et);
    if (feasible_without(r, &r->musts))
        return explain_musts(r, et);
    if (feasible_without(r, &r->links)) {
        missing_link(r, &from, &to);
        return err_set(et, ERR_GONE,
                       "no chain of links reaches devices with enough memory: %s cannot send to "
                       "%s; link them, or give the devices that are linked more memory",
                       r->p->device[from].name, r->p->device[to].name);
    }
    if (!feasible_without(r, &r->budgets)) /* but for musts, the head could take it all */
        return explain_musts(r, et);
    return explain_memory(r, et);
}
