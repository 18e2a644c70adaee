/* Is a problem sound, and can each of its constraints be met by itself? What passes here can be
 * added up without overflow or NaN; whether all constraints can be met together is for the solver
 * to find out. */
#include <math.h>
#include <string.h>

#include "plan/place.h"

#define SECONDS_MAX 86400.0 /* a day: nobody waits that long for a token */

static const uint64_t BYTES_MAX = (uint64_t)1 << 50; /* of one module, of scratch memory */
static const uint64_t KV_MAX = (uint64_t)1 << 20;    /* of one module, per position */
static const uint64_t ROW_MAX = (uint64_t)1 << 32;   /* what one row weighs on a link */
enum { CTX_MAX = 1 << 24 };

static bool seconds_ok(double s)
{
    return s >= 0 && s <= SECONDS_MAX; /* false for NaN */
}

/* ---- the model and what is asked of it ---- */

static enum err check_sizes(const struct place_problem *p, struct err_text *et)
{
    if (p->n_devices < 1 || p->n_devices > PLAN_DEVICES_MAX)
        return err_set(et, ERR_INPUT,
                       "%d devices: a plan is for 1 to %d of them; remove those that will not be "
                       "used",
                       p->n_devices, PLAN_DEVICES_MAX);
    if (p->n_modules < 2 || p->n_modules > PLACE_MODULES_MAX)
        return err_set(et, ERR_INPUT, "a model of %d modules: a plan is for 2 to %d of them",
                       p->n_modules, PLACE_MODULES_MAX);
    if (p->n_classes < 1 || p->n_classes > p->n_modules)
        return err_set(et, ERR_INPUT, "%d classes of %d modules", p->n_classes, p->n_modules);
    return ERR_NONE;
}

static enum err check_asked(const struct place_problem *p, struct err_text *et)
{
    if (p->n_ctx < 1 || p->n_ctx > CTX_MAX)
        return err_set(et, ERR_INPUT, "a context of %d: it must be 1 to %d", p->n_ctx, CTX_MAX);
    if (p->n_slots < 1 || p->n_slots > SEGMENT_SLOTS_MAX)
        return err_set(et, ERR_INPUT, "%d slots: there can be 1 to %d", p->n_slots,
                       SEGMENT_SLOTS_MAX);
    if (p->concurrency < 1 || p->concurrency > PLACE_CONCURRENCY_MAX)
        return err_set(et, ERR_INPUT, "a concurrency of %d streams: it must be 1 to %d",
                       p->concurrency, PLACE_CONCURRENCY_MAX);
    if (p->group_max < 1)
        return err_set(et, ERR_INPUT, "steps of at most %d rows: it must be 1 or more",
                       p->group_max);
    if (p->depth < 0 || p->depth > CTX_MAX)
        return err_set(et, ERR_INPUT, "streams %d positions deep: it must be 0 to %d", p->depth,
                       CTX_MAX);
    if (p->prompt < 0 || p->prompt > CTX_MAX)
        return err_set(et, ERR_INPUT, "a prompt of %d tokens: it must be 0 to %d", p->prompt,
                       CTX_MAX);
    if (!seconds_ok(p->head_s))
        return err_set(et, ERR_INPUT, "the head takes %g s per step: it must be 0 to %g", p->head_s,
                       SECONDS_MAX);
    return ERR_NONE;
}

static enum err check_modules(const struct place_problem *p, struct err_text *et)
{
    for (int i = 0; i < p->n_modules; i++) {
        const struct place_module *m = &p->module[i];

        if (m->class < 0 || m->class >= p->n_classes)
            return err_set(et, ERR_INPUT, "module %d is of class %d, of %d classes", i, m->class,
                           p->n_classes);
        if (m->weight_bytes > BYTES_MAX || m->kv_bytes > KV_MAX || m->out_bytes > ROW_MAX)
            return err_set(et, ERR_INPUT,
                           "module %d is absurdly large: %llu bytes of weights, %llu of KV cache "
                           "per position, %llu per row that leaves it",
                           i, (unsigned long long)m->weight_bytes, (unsigned long long)m->kv_bytes,
                           (unsigned long long)m->out_bytes);
    }
    if (p->tied_bytes > p->module[0].weight_bytes + p->module[p->n_modules - 1].weight_bytes)
        return err_set(et, ERR_INPUT,
                       "the first module and the last are said to share %llu bytes, more than they "
                       "have",
                       (unsigned long long)p->tied_bytes);
    if (p->scratch_bytes > BYTES_MAX || p->scratch_output_bytes > BYTES_MAX ||
        p->frame_bytes > ROW_MAX)
        return err_set(et, ERR_INPUT,
                       "memory to compute in is absurdly large: %llu bytes, %llu more for the "
                       "output, %llu per frame",
                       (unsigned long long)p->scratch_bytes,
                       (unsigned long long)p->scratch_output_bytes,
                       (unsigned long long)p->frame_bytes);
    return ERR_NONE;
}

/* ---- devices and links ---- */

static enum err check_cost(const struct place_device *d, int class, struct err_text *et)
{
    const struct place_cost *c = &d->cost[class];

    for (int b = 0; b < PLACE_BATCHES; b++)
        if (!seconds_ok(c->decode[b]))
            return err_set(et, ERR_INPUT,
                           "device %s: a step of %d rows through a module of class %d is said to "
                           "take %g s; it must be 0 to %g: profile it again",
                           d->name, 1 << b, class, c->decode[b], SECONDS_MAX);
    if (!seconds_ok(c->position))
        return err_set(et, ERR_INPUT,
                       "device %s: each position is said to add %g s to a module of class %d; it "
                       "must be 0 to %g: profile it again",
                       d->name, c->position, class, SECONDS_MAX);
    if (!seconds_ok(c->prefill))
        return err_set(et, ERR_INPUT,
                       "device %s: each row of a prompt is said to take %g s in a module of class "
                       "%d; it must be 0 to %g: profile it again",
                       d->name, c->prefill, class, SECONDS_MAX);
    return ERR_NONE;
}

static enum err check_device(const struct place_problem *p, int i, struct err_text *et)
{
    const struct place_device *d = &p->device[i];

    if (!d->name || !d->name[0])
        return err_set(et, ERR_INPUT, "device %d has no name: give it one", i);
    for (int k = 0; k < i; k++)
        if (!strcmp(p->device[k].name, d->name))
            return err_set(et, ERR_INPUT, "two devices are called %s: rename one", d->name);
    if (!(d->cap > 0 && d->cap <= 1))
        return err_set(et, ERR_INPUT,
                       "device %s: its cap is %g; the share of time it may be busy must be above "
                       "0 and at most 1",
                       d->name, d->cap);
    if (!(d->worth >= 0 && d->worth <= 1))
        return err_set(et, ERR_INPUT,
                       "device %s: it is to save at least %g of the time; that must be 0 to 1",
                       d->name, d->worth);
    if (!seconds_ok(d->step_s))
        return err_set(et, ERR_INPUT,
                       "device %s: each step is said to cost %g s; it must be 0 to %g", d->name,
                       d->step_s, SECONDS_MAX);
    if (d->wish != PLACE_MAY && d->wish != PLACE_MUST && d->wish != PLACE_NOT)
        return err_set(et, ERR_INPUT, "device %s: it may, must or must not be used", d->name);
    if (!d->cost)
        return err_set(et, ERR_INPUT, "device %s: it has no profile: profile it", d->name);
    for (int c = 0; c < p->n_classes; c++) {
        enum err e = check_cost(d, c, et);

        if (e)
            return e;
    }
    return ERR_NONE;
}

static enum err check_link(const struct place_problem *p, int from, int to, struct err_text *et)
{
    const struct place_link *l = &p->link[from * p->n_devices + to];
    const char *a = p->device[from].name, *b = p->device[to].name;

    if (!l->there)
        return ERR_NONE;
    if (!seconds_ok(l->latency_s))
        return err_set(et, ERR_INPUT,
                       "link %s to %s: its latency is %g s; it must be 0 to %g: measure it again",
                       a, b, l->latency_s, SECONDS_MAX);
    if (!(l->bytes_per_s >= 1))
        return err_set(et, ERR_INPUT,
                       "link %s to %s: its rate is %g bytes/s; it must be 1 or more: measure it "
                       "again, or leave the link out",
                       a, b, l->bytes_per_s);
    if (l->air < 0 || l->air > PLACE_AIRS_MAX)
        return err_set(et, ERR_INPUT,
                       "link %s to %s: it is on air %d; airs are 1 to %d, 0 for none", a, b, l->air,
                       PLACE_AIRS_MAX);
    return ERR_NONE;
}

/* ---- pins and wishes ---- */

static enum err check_pins(const struct place_problem *p, struct err_text *et)
{
    if (p->device[0].wish == PLACE_NOT)
        return err_set(et, ERR_INPUT,
                       "device %s is the head, which holds the embedding: it cannot be left out",
                       p->device[0].name);
    if (!p->want_private || p->device[0].mine || !p->module[0].is_private)
        return ERR_NONE;
    for (int d = 1; d < p->n_devices; d++)
        if (p->device[d].mine && p->device[d].wish != PLACE_NOT)
            return err_set(
                et, ERR_INPUT,
                "private modules are wanted on devices marked mine, and the embedding is "
                "on the head, %s, which is not: mark it (lingua devices mine %s), let %s "
                "be the head, or do without --private",
                p->device[0].name, p->device[0].name, p->device[d].name);
    return err_set(et, ERR_INPUT,
                   "private modules are wanted on devices marked mine, and there is none that may "
                   "be used: mark the head (lingua devices mine %s), or do without --private",
                   p->device[0].name);
}

/* Marks every device that can be reached from the head, or (back) from which the head can be. */
static void reach(const struct place_problem *p, bool back, bool *seen)
{
    int queue[PLAN_DEVICES_MAX], n = 0;

    memset(seen, 0, PLAN_DEVICES_MAX * sizeof *seen);
    seen[0] = true;
    queue[n++] = 0;
    for (int i = 0; i < n; i++)
        for (int d = 0; d < p->n_devices; d++) {
            int from = back ? d : queue[i], to = back ? queue[i] : d;

            if (seen[d] || p->device[d].wish == PLACE_NOT ||
                !p->link[from * p->n_devices + to].there)
                continue;
            seen[d] = true;
            queue[n++] = d;
        }
}

static enum err check_musts(const struct place_problem *p, struct err_text *et)
{
    bool there[PLAN_DEVICES_MAX], back[PLAN_DEVICES_MAX];
    int n = 0;

    reach(p, false, there);
    reach(p, true, back);
    for (int d = 1; d < p->n_devices; d++) {
        if (p->device[d].wish != PLACE_MUST)
            continue;
        if (!there[d] || !back[d])
            return err_set(
                et, ERR_INPUT,
                "device %s must be used, and no links lead %s: link it, or do not insist "
                "on it",
                p->device[d].name, there[d] ? "from it back to the head" : "to it");
        n++;
    }
    if (n >= p->n_modules)
        return err_set(et, ERR_INPUT,
                       "%d devices beside the head must be used for a model of %d modules: insist "
                       "on fewer",
                       n, p->n_modules);
    return ERR_NONE;
}

enum err place_check(const struct place_problem *p, struct err_text *et)
{
    enum err e = check_sizes(p, et);

    if (!e)
        e = check_asked(p, et);
    if (!e)
        e = check_modules(p, et);
    for (int d = 0; !e && d < p->n_devices; d++)
        e = check_device(p, d, et);
    for (int from = 0; !e && from < p->n_devices; from++)
        for (int to = 0; !e && to < p->n_devices; to++)
            if (from != to)
                e = check_link(p, from, to, et);
    if (!e)
        e = check_pins(p, et);
    return e ? e : check_musts(p, et);
}
