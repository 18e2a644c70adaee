#include "plan/near.h"

#include <string.h>

#include "plan/search.h"

enum { WHOLE_SEARCH_MAX = 8 }; /* devices; their orders are all looked at in no time */

struct order {
    int n, device[PLAN_DEVICES_MAX];
};

/* The devices beside the head in the order of their stages, without `device`. */
static void order_of(const struct placement *known, int device, struct order *out)
{
    bool seen[PLAN_DEVICES_MAX] = {[0] = true};

    out->n = 0;
    for (int s = 0; s < known->plan.n_stages; s++) {
        int d = known->plan.stage[s].device;

        if (!seen[d] && known->used[d] != device)
            out->device[out->n++] = known->used[d];
        seen[d] = true;
    }
}

static void put_in(struct order *o, int at, int device)
{
    memmove(o->device + at + 1, o->device + at, (size_t)(o->n - at) * sizeof *o->device);
    o->device[at] = device;
    o->n++;
}

static int place_of(const struct placement *known, int device)
{
    struct order o;

    order_of(known, -1, &o);
    for (int i = 0; i < o.n; i++)
        if (o.device[i] == device)
            return i;
    return o.n;
}

/* The order as it was, with the device at each place in it. */
static void with_device(struct search *s, const struct placement *known, int device)
{
    struct order o;

    for (int at = 0; at <= known->plan.n_devices - 1; at++) {
        order_of(known, device, &o);
        put_in(&o, at, device);
        search_order(s, o.device, o.n);
    }
}

/* The order as it was, with those that had no part in the device's place, or at the end. */
static void without_device(struct search *s, const struct placement *known, int device)
{
    int at = place_of(known, device);

    for (int last = 0; last < 2; last++) {
        bool used[PLAN_DEVICES_MAX] = {[0] = true};
        struct order o;

        for (int i = 0; i < known->plan.n_devices; i++)
            used[known->used[i]] = true;
        order_of(known, device, &o);
        for (int d = s->room->p->n_devices - 1; d > 0; d--)
            if (!used[d] && room_may_use(s->room, d))
                put_in(&o, last ? o.n : at, d);
        search_order(s, o.device, o.n);
    }
}

static bool find_near(const struct room *r, const struct placement *known, int device,
                      struct placement *out)
{
    struct search s;
    bool found;

    search_init(&s, r);
    if (r->p->device[device].wish == PLACE_NOT)
        without_device(&s, known, device);
    else
        with_device(&s, known, device);
    found = s.found;
    *out = s.best;
    search_fini(&s);
    return found;
}

enum err place_near(const struct place_problem *p, const struct placement *known, int device,
                    struct placement *out, struct err_text *et)
{
    static const struct place_opts quick = {.quick = true};
    struct room r;
    bool found;
    enum err e;

    if (p->n_devices <= WHOLE_SEARCH_MAX)
        return place_solve(p, &quick, out, et);
    e = place_check(p, et);
    if (e)
        return e;
    room_init(&r, p);
    found = find_near(&r, known, device, out);
    if (!found && !room_feasible(&r))
        e = room_explain(&r, et);
    room_fini(&r);
    return found || e ? e : place_solve(p, &quick, out, et);
}
