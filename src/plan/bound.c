#include "plan/bound.h"

#include <math.h>

enum { BISECTIONS = 40 };

/* The least latency of a plan in which d has the run [first, end). */
static double latency(const struct pace *x, int d, int first, int end)
{
    const struct place_problem *p = x->room->p;
    const double *sum = x->sum + (size_t)d * (size_t)(p->n_modules + 1);
    double steps = p->device[0].step_s + (d > 0 ? p->device[d].step_s : 0);

    return p->head_s + steps + x->rest[0] - x->rest[first] + sum[end] - sum[first] + x->rest[end];
}

static bool in_time(const struct pace *x, double below, int d, int first, int end)
{
    const struct place_device *device = &x->room->p->device[d];
    const double *sum = x->sum + (size_t)d * (size_t)(x->room->p->n_modules + 1);
    double lat = latency(x, d, first, end);
    double most = x->k * (device->step_s + sum[end] - sum[first]) / device->cap;

    return fmax(lat, most) + PLACE_LATENCY_WEIGHT * lat + x->worth[d] < below;
}

int bound_reach(const struct pace *x, double below, int d, int first, int from)
{
    const struct room *r = x->room;
    int n = r->p->n_modules, end = from > first ? from : first;

    if (d == 0) {
        while (end < n && in_time(x, below, d, first, end + 1))
            end++;
        return end;
    }
    while (end < r->reach[d * n + first] && in_time(x, below, d, first, end + 1))
        end++;
    return end;
}

int bound_longest(const struct pace *x, double below, int d)
{
    int n = x->room->p->n_modules, end = 0, longest = 0;

    if (d == 0) /* with the tail's modules it could not do more than all that it has time for */
        return bound_reach(x, below, 0, 0, 0) + n - x->room->tail[0];
    for (int first = 1; first < n; first++) {
        end = bound_reach(x, below, d, first, end);
        longest = end - first > longest ? end - first : longest;
    }
    return longest;
}

static bool enough(const struct pace *x, double below)
{
    const struct room *r = x->room;
    int sum = 0;

    for (int d = 0; d < r->p->n_devices && sum < r->p->n_modules; d++)
        if (d == 0 || room_may_use(r, d))
            sum += bound_longest(x, below, d);
    return sum >= r->p->n_modules;
}

double bound_weak(const struct pace *x)
{
    const struct place_problem *p = x->room->p;
    double lat = p->head_s + p->device[0].step_s + x->rest[0];
    double low = lat * (1 + PLACE_LATENCY_WEIGHT), high = low; /* not enough below low */

    for (int i = 0; i < BISECTIONS && !enough(x, high); i++) {
        low = high;
        high *= 2;
    }
    for (int i = 0; i < BISECTIONS && high - low > 1e-6 * high; i++) {
        double middle = low + (high - low) / 2;

        if (enough(x, middle))
            high = middle;
        else
            low = middle;
    }
    return low * (1 - 1e-12);
}
