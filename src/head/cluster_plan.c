/* From members to a plan: what is known of each becomes a problem, the planner's thread solves it,
 * and the core hears of it. */
#include <math.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include "base/check.h"
#include "base/mem.h"
#include "base/sys.h"
#include "base/words.h"
#include "head/cluster_impl.h"
#include "head/plan_json.h"
#include "head/split.h"

/* Of what nobody has measured yet. The first two are what a token takes beside computing on links
 * without any delay (bench/net), the others those of a common home network. */
#define STEP_S      0.00005
#define HEAD_S      0.00023
#define LATENCY_S   0.001
#define BYTES_PER_S 12.5e6
/* Nothing is taken to be slower, whatever a device says of itself: it would be left out anyway, and
 * figures beyond all sense would have the planner refuse the others with it. */
enum { CTX_MAX = 1 << 24 }; /* as plan/check.c has it */
#define COST_S_MAX    3600.0
#define LATENCY_S_MAX 60.0

/* ---- who is there ---- */

/* The place of a member in the roster, which outlives this program. */
static int seat(const struct cluster *c, int member)
{
    const struct wire_member *entry = roster_find(c->roster, &c->member[member].key);

    if (member == 0)
        return -1;
    return entry ? (int)(entry - roster_body(c->roster)->member) : WIRE_MEMBERS_MAX;
}

/* The candidates in the roster's order, so that the same devices get the same parts, whoever of
 * them was quicker to come back. */
static void in_order(const struct cluster *c, const struct core_action *a, int *candidates)
{
    for (int i = 0; i < a->n; i++) {
        int k = i;

        for (; k > 0 && seat(c, candidates[k - 1]) > seat(c, a->members[i]); k--)
            candidates[k] = candidates[k - 1];
        candidates[k] = a->members[i];
    }
}

/* Its link, or itself: it will soon be one to plan with. */
static bool is_being_measured(const struct member *m)
{
    return m->link && !m->up && !*m->trouble;
}

/* After a start the devices of last time are waited for a while: a plan for the first to come would
 * have it fetch what the others hold. Until then the head answers alone, if it can. */
static bool someone_is_expected(const struct cluster *c, struct err_text *who)
{
    const struct wire_roster_body *body = roster_body(c->roster);

    for (int i = 0; c->expect_until_us && i < body->n; i++) {
        const struct key_id *own = identity_key(c->identity);
        bool here = memcmp(body->member[i].key, own->bytes, sizeof own->bytes) == 0;

        for (int k = 1; k < c->n_members && !here; k++)
            here = memcmp(body->member[i].key, c->member[k].key.bytes, WIRE_KEY_BYTES) == 0 &&
                   !is_being_measured(&c->member[k]);
        if (!here) {
            (void)err_set(who, ERR_GONE, "%s belongs here and is not ready yet",
                          body->member[i].name);
            return true;
        }
    }
    return false;
}

void cluster_expect(struct cluster *c, int64_t now_us)
{
    if (!c->expect_until_us || now_us < c->expect_until_us)
        return;
    c->expect_until_us = 0;
    cluster_feed_member(c, CORE_CHANGED, 0, 0, ERR_NONE, NULL);
}

/* ---- a device's costs, a link's speed ---- */

static void fill_cost(const struct cluster *c, const struct member *m, struct place_cost *cost)
{
    const struct wire_profile *w = m->profile;
    double s = 1e-12 * m->factor;

    if (!w) {
        place_guess_cost(&c->problem, (double)m->able.speed, cost);
        return;
    }
    for (int k = 0; k < w->n_classes; k++) {
        for (int b = 0; b < PLACE_BATCHES; b++)
            cost[k].decode[b] = fmin(COST_S_MAX, s * (double)w->cost_ps[k][b]);
        cost[k].prefill = fmin(COST_S_MAX, s * (double)w->cost_ps[k][PLACE_BATCHES]);
        cost[k].position = fmin(COST_S_MAX, s * (double)w->cost_ps[k][PLACE_BATCHES + 1]);
    }
}

static void fill_device(const struct cluster *c, const struct member *m, struct draft *d, int i)
{
    const struct wire_member *entry = roster_find(c->roster, &m->key);
    struct place_device *dev = &d->device[i];

    memcpy(d->name[i], m->able.name, sizeof d->name[i]);
    d->member[i] = m->id;
    dev->memory_bytes = m->able.memory_bytes;
    dev->base_bytes = m->able.base_bytes;
    dev->mine = m->id == 0 || (entry && entry->mine);
    dev->cap = m->able.cap > 0 ? m->able.cap / 100.0 : 1;
    dev->worth = m->able.spare ? PLACE_WORTH_SPARE : PLACE_WORTH_DEFAULT;
    dev->step_s = m->step_s > 0 ? m->step_s : STEP_S;
    fill_cost(c, m, d->cost[i]);
}

static struct place_link measured(uint64_t rtt_us, uint64_t bytes_per_s)
{
    return (struct place_link){.there = true,
                               .latency_s = rtt_us ? (double)rtt_us / 2e6 : LATENCY_S,
                               .bytes_per_s = bytes_per_s ? (double)bytes_per_s : BYTES_PER_S};
}

/* The head and a member. */
static struct place_link own_link(const struct member *m, bool to_member)
{
    return measured((uint64_t)m->rtt_us, to_member ? m->out_bytes_per_s : m->in_bytes_per_s);
}

static bool relayed(const struct cluster *c, int a, int b)
{
    const struct epoch *e = &c->running;
    int x = epoch_device(e, a), y = epoch_device(e, b);

    if (x < 1 || y < 1)
        return c->n_lost[a < b ? a : b][a < b ? b : a] >= PAIR_LOST_MAX;
    return e->pair[x < y ? x : y][x < y ? y : x] == PAIR_RELAY;
}

/* Two members. Those that never met are taken to be as far apart as each is from the head, on the
 * average: in one network that is about right, and when they have met it is known. */
static struct place_link pair_link(const struct cluster *c, int a, int b)
{
    const struct pair_speed *s = &c->speed[a][b];
    struct place_link in = own_link(&c->member[a], false), out = own_link(&c->member[b], true);

    if (relayed(c, a, b)) {
        out.latency_s += in.latency_s;
        out.bytes_per_s = 1 / (1 / in.bytes_per_s + 1 / out.bytes_per_s);
        return out;
    }
    if (s->rtt_us)
        return measured(s->rtt_us, s->out_bytes_per_s);
    out.latency_s = (in.latency_s + out.latency_s) / 2;
    out.bytes_per_s = fmin(in.bytes_per_s, out.bytes_per_s);
    return out;
}

static void fill_links(const struct cluster *c, struct draft *d)
{
    int n = d->p.n_devices;

    for (int i = 0; i < n * n; i++) {
        int a = d->member[i / n], b = d->member[i % n];

        if (a == b)
            d->link[i] = (struct place_link){.there = true, .bytes_per_s = INFINITY};
        else if (a == 0)
            d->link[i] = own_link(&c->member[b], true);
        else if (b == 0)
            d->link[i] = own_link(&c->member[a], false);
        else
            d->link[i] = pair_link(c, a, b);
        d->link[i].latency_s =
            fmin(fmax(0, d->link[i].latency_s + c->hop_extra_s[a][b]), LATENCY_S_MAX);
    }
}

struct draft *cluster_draft(const struct cluster *c, const int *members, int n)
{
    struct draft *d = draft_new(&c->problem, n);

    d->p.head_s = c->head_s > 0 ? c->head_s : HEAD_S;
    for (int i = 0; i < n; i++)
        fill_device(c, &c->member[members[i]], d, i);
    fill_links(c, d);
    return d;
}

/* ---- wishes ---- */

static void wish(struct draft *d, const char *use, const char *without)
{
    for (int i = 1; i < d->p.n_devices; i++) {
        if (list_has(use, d->name[i]))
            d->device[i].wish = PLACE_MUST;
        if (list_has(without, d->name[i]))
            d->device[i].wish = PLACE_NOT;
    }
}

/* ---- solving for the core ---- */

/* The plan the person wrote, over as many candidates as it names. */
static enum err plan_as_told(const struct cluster *c, int n_candidates, struct placement *out,
                             struct err_text *et)
{
    int n = c->problem.n_modules;
    double *cost = mem_zalloc((size_t)n, sizeof *cost);
    enum err e;

    for (int i = 0; i < n; i++)
        cost[i] = (double)c->modules[i].decode_bytes;
    e = split_parse(c->opts.split, n, cost, &out->plan, et);
    free(cost);
    if (!e && out->plan.n_devices > n_candidates)
        e = err_set(et, ERR_GONE, "the split names %d devices, and %d are here: %d more must join",
                    out->plan.n_devices, n_candidates, out->plan.n_devices - n_candidates);
    for (int d = 0; !e && d < out->plan.n_devices; d++)
        out->used[d] = d;
    return e;
}

/* What runs, in the draft's devices; false when one of its own is not there. */
static bool now_in(const struct cluster *c, const struct draft *d, struct placement *now)
{
    const struct epoch *e = &c->running;

    if (!e->number)
        return false;
    memset(now, 0, sizeof *now);
    now->plan = e->plan;
    now->plan.epoch = 0;
    for (int i = 0; i < e->plan.n_devices; i++) {
        int k = 0;

        while (k < d->p.n_devices && d->member[k] != e->member[i])
            k++;
        if (k == d->p.n_devices)
            return false;
        now->used[i] = k;
    }
    return true;
}

_Static_assert((int)PACE_POINTS == (int)PLACE_BATCHES, "the core knows a step's costs as we do");

static struct core_pace pace_of(const struct draft *d, const struct placement *found)
{
    struct core_pace pace;
    struct place_pace of;

    place_pace(&d->p, &found->plan, found->used, &of);
    pace.k = of.k;
    memcpy(pace.step_s, of.step_s, sizeof pace.step_s);
    memcpy(pace.read_s, of.read_s, sizeof pace.read_s);
    pace.row_s = of.row_s;
    pace.position_s = of.position_s;
    pace.depth = d->p.depth;
    pace.latency_s = of.latency_s;
    return pace;
}

static void tell_core(struct cluster *c, const struct draft *d, uint32_t ticket,
                      const struct placement *found)
{
    struct core_event event = {.kind = CORE_PLANNED, .ticket = ticket, .plan = &found->plan};
    struct core_pace pace = pace_of(d, found);
    int members[PLAN_DEVICES_MAX];

    event.pace = &pace;
    event.members = members;
    for (int i = 0; i < found->plan.n_devices; i++) {
        members[i] = d->member[found->used[i]];
        c->member[members[i]].planned_bytes = found->memory_bytes[i];
    }
    cluster_feed(c, &event);
}

static void tell_failure(struct cluster *c, uint32_t ticket, enum err code, const char *text)
{
    struct core_event event = {.kind = CORE_PLANNED, .ticket = ticket, .code = code, .text = text};

    cluster_feed(c, &event);
}

void cluster_solve(struct cluster *c, const struct core_action *a)
{
    int candidates[MEMBERS_MAX], n = a->n;
    struct planner_job *job;
    struct err_text et;

    CHECK(a->n >= 1 && a->n <= MEMBERS_MAX);
    in_order(c, a, candidates);
    if (candidates[0] != 0) { /* it failed to load its own part, and no cluster is without it */
        (void)err_set(&et, ERR_GONE, "%s cannot take part itself: %.400s", c->name,
                      c->member[0].trouble);
        tell_failure(c, a->ticket, ERR_GONE, et.text);
        return;
    }
    c->expected = (struct err_text){{0}};
    if (someone_is_expected(c, &c->expected))
        n = 1;
    else
        c->expect_until_us = 0; /* all of last time are here: who joins now is somebody new */
    job = planner_job_new(cluster_draft(c, candidates, n));
    wish(job->draft, c->opts.use, c->opts.without);
    job->ticket = a->ticket;
    job->equal = c->opts.equal && n > 1;
    job->has_now = now_in(c, job->draft, &job->now);
    job->with_report = true;
    if (c->opts.split) {
        job->code = plan_as_told(c, n, &job->found, &job->text);
        job->as_told = true;
    }
    planner_begin(c->planner, job);
}

static void planned(struct cluster *c, struct planner_job *job)
{
    if (job->code) {
        tell_failure(c, job->ticket, job->code,
                     *c->expected.text ? c->expected.text : job->text.text);
        return;
    }
    planner_job_free(c->planned);
    c->planned = job;
    tell_core(c, job->draft, job->ticket, &job->found);
    cluster_changed(c);
}

/* ---- {"do": "plan"} ---- */

/* Texts of an array as one list; NULL when there is none. */
static char *list_of(const json_t *q, const char *key)
{
    const json_t *a = json_object_get(q, key);
    char *list = NULL;

    for (size_t i = 0; i < json_array_size(a); i++) {
        const char *name = json_string_value(json_array_get(a, i));
        char *longer = name ? mem_printf("%s%s%s", list ? list : "", list ? "," : "", name) : NULL;

        if (!longer)
            continue;
        free(list);
        list = longer;
    }
    return list;
}

static enum err no_device(const struct draft *d, const char *name, struct err_text *et)
{
    const char *names[PLAN_DEVICES_MAX], *near;

    if (strcmp(name, d->name[0]) == 0)
        return err_set(et, ERR_INPUT, "%s is the head, which has the model: it cannot be left out",
                       name);
    for (int i = 1; i < d->p.n_devices; i++)
        names[i - 1] = d->name[i];
    near = nearest_word(name, names, d->p.n_devices - 1);
    if (near)
        return err_set(et, ERR_INPUT, "no device called \"%.100s\" is here; did you mean \"%s\"?",
                       name, near);
    return err_set(et, ERR_INPUT,
                   "no device called \"%.100s\" is here and ready to take part (lingua devices "
                   "shows who is)",
                   name);
}

/* first: 0 where the head may be named, too. */
static enum err check_names(const struct draft *d, const json_t *names, int first,
                            struct err_text *et)
{
    for (size_t i = 0; i < json_array_size(names); i++) {
        const char *name = json_string_value(json_array_get(names, i));
        bool here = false;

        for (int k = first; name && k < d->p.n_devices; k++)
            here = here || strcmp(d->name[k], name) == 0;
        if (!here)
            return no_device(d, name ? name : "", et);
    }
    return ERR_NONE;
}

/* What a question may ask for instead of what the head was started with. */
static const struct number {
    const char *key;
    size_t at;
    int least, most;
} numbers[] = {
    {"concurrency", offsetof(struct place_problem, concurrency), 1, PLACE_CONCURRENCY_MAX},
    {"context", offsetof(struct place_problem, n_ctx), 2, CTX_MAX},
    {"slots", offsetof(struct place_problem, n_slots), 1, SEGMENT_SLOTS_MAX},
    {"prompt", offsetof(struct place_problem, prompt), 1, CTX_MAX},
    {"depth", offsetof(struct place_problem, depth), 0, CTX_MAX},
};

static enum err take_numbers(const json_t *q, struct place_problem *p, struct err_text *et)
{
    for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++) {
        const struct number *n = &numbers[i];
        const json_t *v = json_object_get(q, n->key);
        json_int_t value = json_integer_value(v);

        if (!v)
            continue;
        if (!json_is_integer(v) || value < n->least || value > n->most)
            return err_set(et, ERR_INPUT, "\"%s\" must be a whole number from %d to %d", n->key,
                           n->least, n->most);
        *(int *)(void *)((char *)p + n->at) = (int)value;
    }
    return ERR_NONE;
}

/* A context or slots other than the head's take other memory to compute in. */
static void describe_anew(const struct cluster *c, struct place_problem *p)
{
    struct place_module *modules = mem_zalloc((size_t)p->n_modules, sizeof *modules);
    struct place_problem other = {.n_devices = 0};
    struct segment_opts opts = c->segment;

    opts.n_ctx = p->n_ctx;
    opts.n_slots = p->n_slots;
    opts.n_rows_max = c->segment.n_rows_max < p->n_ctx ? c->segment.n_rows_max : p->n_ctx;
    place_describe(c->model, &c->classes, &opts, &other, modules);
    p->scratch_bytes = other.scratch_bytes;
    p->scratch_output_bytes = other.scratch_output_bytes;
    free(modules); /* of a module nothing depends on how many positions there are */
}

static enum err take_asked(const struct cluster *c, const json_t *q, struct place_problem *p,
                           struct err_text *et)
{
    const struct model_shape *shape = model_shape(c->model);
    enum err e = take_numbers(q, p, et);

    if (e)
        return e;
    if (shape->ctx_is_hard && p->n_ctx > shape->n_ctx_train)
        return err_set(et, ERR_INPUT,
                       "a context of %d: this model has learned positions, so its maximum is %d",
                       p->n_ctx, shape->n_ctx_train);
    if (!json_object_get(q, "prompt") && p->prompt >= p->n_ctx)
        p->prompt = p->n_ctx / 2;
    if (!json_object_get(q, "depth") && p->depth >= p->n_ctx)
        p->depth = p->n_ctx / 2;
    if (p->prompt >= p->n_ctx || p->depth >= p->n_ctx)
        return err_set(et, ERR_INPUT,
                       "a prompt of %d tokens and %d positions behind an answer do not both fit a "
                       "context of %d",
                       p->prompt, p->depth, p->n_ctx);
    if (!json_object_get(q, "slots") && p->n_slots < p->concurrency)
        p->n_slots = p->concurrency;
    if (p->n_ctx != c->problem.n_ctx || p->n_slots != c->problem.n_slots)
        describe_anew(c, p);
    p->want_private = p->want_private || json_is_true(json_object_get(q, "private"));
    return ERR_NONE;
}

/* Everybody who is here and not drained. */
static int who_is_here(const struct cluster *c, int *members)
{
    int n = 0;

    for (int i = 0; i < c->n_members; i++)
        if (c->member[i].up && !c->member[i].drained)
            members[n++] = i;
    return n;
}

/* Whether the question is about anything but the plan that runs. */
static bool what_if(const json_t *q)
{
    static const char *const keys[] = {"use", "without", "equal", "private"};

    for (size_t i = 0; i < sizeof keys / sizeof *keys; i++)
        if (json_object_get(q, keys[i]))
            return true;
    for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++)
        if (json_object_get(q, numbers[i].key))
            return true;
    return false;
}

enum err cluster_ask_plan(struct cluster *c, const json_t *q, void *about, struct err_text *et)
{
    int members[MEMBERS_MAX], n = who_is_here(c, members);
    struct planner_job *job;
    char *use = list_of(q, "use"), *without = list_of(q, "without");
    enum err e;

    if (n == 0 || members[0] != 0) {
        e = err_set(et, ERR_GONE, "the head itself is not ready yet");
        goto out;
    }
    job = planner_job_new(cluster_draft(c, members, n));
    e = take_asked(c, q, &job->draft->p, et);
    if (!e)
        e = check_names(job->draft, json_object_get(q, "use"), 0, et);
    if (!e)
        e = check_names(job->draft, json_object_get(q, "without"), 1, et);
    if (e) {
        planner_job_free(job);
        goto out;
    }
    wish(job->draft, use ? use : c->opts.use, without ? without : c->opts.without);
    job->equal = json_is_true(json_object_get(q, "equal"));
    job->about = about;
    job->with_report = true;
    /* What runs is told as it runs, whatever would be better by now. */
    job->as_told = !what_if(q) && core_view(c->core).state == CORE_RUNNING &&
                   now_in(c, job->draft, &job->found);
    planner_begin(c->planner, job);
out:
    free(use);
    free(without);
    return e;
}

void cluster_planner_done(void *user, struct planner_job *job)
{
    struct cluster *c = user;

    if (job->about) {
        cluster_plan_answer(c, job);
        planner_job_free(job);
        return;
    }
    planned(c, job);
    if (c->planned != job)
        planner_job_free(job);
}
