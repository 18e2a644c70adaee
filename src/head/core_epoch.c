/* Three crews (a plan and who its devices are): `cur` runs or did last, `next` is on its way to
 * run, `lost` waits for somebody to come back. What moves them:
 *
 *   event                      | what becomes of it
 *   ---------------------------|----------------------------------------------------------------
 *   a plan that is new         | next = it, FETCHING: ASSIGN
 *   all of next have fetched   | SWITCHING; no step under way any more: LOADING, and cur has ended
 *   all of next are ready      | cur = next, running
 *   one of cur and next lost   | cur has ended, next is dropped, lost = cur (nothing to ship)
 *   one of cur alone lost      | cur has ended; lost = cur, unless next is coming without it
 *   one of next alone lost     | next is dropped, lost = next; cur goes on
 *   lost is complete again     | next = lost under a new number
 *   one fails, drains          | what it belonged to is dropped, and not waited for
 *   no step comes home         | cur has ended, next = cur under a new number; if all was ready to
 *                              | change over, that is done instead
 *
 * The planner is asked when things have been quiet for SETTLE_US, not while lost is waited for, nor
 * while devices change from one epoch to the next. */
#include <stdio.h>
#include <string.h>

#include "base/check.h"
#include "head/core_impl.h"

enum { SETTLE_MAX_US = 10 * CORE_SETTLE_US }; /* who comes and goes all the time holds nobody up */

void epoch_init(struct core *c)
{
    c->solve_us = c->grace_us = INT64_MAX;
}

/* ---- who is there ---- */

static struct member *find(struct core *c, int number)
{
    for (int i = 0; i < c->n_members; i++)
        if (c->members[i].number == number)
            return &c->members[i];
    return NULL;
}

/* In order of their numbers, so that the planner sees the same list whoever came first. */
static struct member *insert(struct core *c, int number)
{
    int i = c->n_members++;

    for (; i > 0 && c->members[i - 1].number > number; i--)
        c->members[i] = c->members[i - 1];
    return &c->members[i];
}

static void erase(struct core *c, struct member *m)
{
    c->n_members--;
    memmove(m, m + 1, (size_t)(c->members + c->n_members - m) * sizeof *m);
}

static bool usable(struct core *c, int number)
{
    const struct member *m = find(c, number);

    return m && !m->failed && !m->drained;
}

/* Its place in a crew, or -1. */
static int place_of(const struct crew *crew, int number)
{
    for (int i = 0; i < crew->plan.n_devices; i++)
        if (crew->members[i] == number)
            return i;
    return -1;
}

static bool all_usable(struct core *c, const struct crew *crew)
{
    for (int i = 0; i < crew->plan.n_devices; i++)
        if (!usable(c, crew->members[i]))
            return false;
    return true;
}

static bool same_crew(const struct crew *a, const struct crew *b)
{
    if (a->plan.n_devices != b->plan.n_devices || a->plan.n_stages != b->plan.n_stages)
        return false;
    for (int i = 0; i < a->plan.n_devices; i++)
        if (a->members[i] != b->members[i])
            return false;
    for (int i = 0; i < a->plan.n_stages; i++) {
        const struct plan_stage *x = &a->plan.stage[i], *y = &b->plan.stage[i];

        if (x->device != y->device || x->first != y->first || x->end != y->end)
            return false;
    }
    return true;
}

/* ---- planning ---- */

static bool in_next(const struct core *c, int member)
{
    return c->phase != PHASE_NONE && place_of(&c->next, member) >= 0;
}

static bool in_cur(const struct core *c, int member)
{
    return c->live && place_of(&c->cur, member) >= 0;
}

static bool changing(const struct core *c)
{
    return c->phase == PHASE_SWITCHING || c->phase == PHASE_LOADING;
}

static void solve_soon(struct core *c)
{
    if (c->solve_us == INT64_MAX)
        c->solve_first_us = c->now_us;
    c->solve_us = c->now_us + CORE_SETTLE_US;
    if (c->solve_us > c->solve_first_us + SETTLE_MAX_US)
        c->solve_us = c->solve_first_us + SETTLE_MAX_US;
}

/* What the planner is working on is out of date. */
static void solve_anew(struct core *c)
{
    c->ticket = 0;
    solve_soon(c);
}

static void solve(struct core *c)
{
    int members[CORE_MEMBERS_MAX], n = 0;

    c->solve_us = INT64_MAX;
    c->asked = true;
    for (int i = 0; i < c->n_members; i++)
        if (usable(c, c->members[i].number))
            members[n++] = c->members[i].number;
    if (n == 0) {
        c->trouble = err_set(&c->trouble_text, ERR_GONE, "no device is there to answer");
        core_say(c, "%s", c->trouble_text.text);
        return;
    }
    c->ticket = ++c->last_ticket;
    core_act(c, &(struct core_action){
                    .kind = CORE_SOLVE, .ticket = c->ticket, .members = members, .n = n});
}

/* ---- the life of an epoch ---- */

static void begin_phase(struct core *c, enum phase phase)
{
    c->phase = phase;
    memset(c->done, 0, sizeof c->done);
    for (int i = 0; i < c->next.plan.n_devices; i++)
        c->moved_us[i] = c->now_us;
}

static void assign(struct core *c, const struct crew *crew)
{
    c->next = *crew;
    c->next.plan.epoch = ++c->last_epoch;
    c->grace_us = INT64_MAX;
    c->trouble = ERR_NONE;
    begin_phase(c, PHASE_FETCHING);
    core_act(c, &(struct core_action){.kind = CORE_ASSIGN,
                                      .epoch = c->last_epoch,
                                      .plan = &c->next.plan,
                                      .members = c->next.members,
                                      .n = c->next.plan.n_devices});
}

static void load(struct core *c)
{
    begin_phase(c, PHASE_LOADING);
    if (c->live)
        c->stopped_us = c->now_us;
    c->live = false;
    core_act(c, &(struct core_action){
                    .kind = CORE_LOAD, .epoch = c->next.plan.epoch, .number = c->next_number - 1});
    slots_wipe(c);
}

static void run(struct core *c)
{
    c->phase = PHASE_NONE;
    c->cur = c->next;
    c->live = c->had_cur = true;
    c->next_number = 1;
    for (int i = 0; i < CORE_CLIENTS_MAX; i++)
        c->clients[i].told = 0;
    core_say(c, "epoch %u: %d device%s answer%s", c->cur.plan.epoch, c->cur.plan.n_devices,
             c->cur.plan.n_devices == 1 ? "" : "s", c->cur.plan.n_devices == 1 ? "s" : "");
}

/* As model.h names them; the core has no model to ask. */
static void name_module(int module, int n_modules, char *buf, size_t cap)
{
    if (module == 0 || module == n_modules - 1)
        snprintf(buf, cap, "%s", module == 0 ? "embed" : "output");
    else
        snprintf(buf, cap, "%s.%d", module % 2 ? "attn" : "ffn", (module - 1) / 2);
}

static void describe(const struct plan *p, int device, char *buf, size_t cap)
{
    int n_modules = p->stage[p->n_stages - 1].end;
    size_t used = 0;

    buf[0] = '\0';
    for (int i = 0; i < p->n_stages; i++) {
        const struct plan_stage *s = &p->stage[i];
        char first[MODULE_NAME_MAX], last[MODULE_NAME_MAX];
        int n;

        if (s->device != device || used >= cap)
            continue;
        name_module(s->first, n_modules, first, sizeof first);
        name_module(s->end - 1, n_modules, last, sizeof last);
        n = snprintf(buf + used, cap - used, "%s%s%s%s", used ? " + " : "", first,
                     s->end - s->first > 1 ? ".." : "", s->end - s->first > 1 ? last : "");
        used += n > 0 ? (size_t)n : 0;
    }
}

/* The running epoch ends here and now. */
static void end(struct core *c, int member, const char *text, const char *advice)
{
    char held[160];
    struct err_text whole;

    c->live = false;
    c->stopped_us = c->now_us;
    describe(&c->cur.plan, place_of(&c->cur, member), held, sizeof held);
    err_set(&whole, ERR_GONE, "%.200s while it held %s; %s", text, held, advice);
    core_say(c, "%s", whole.text);
    slots_wipe(c);
    flight_lose(c, whole.text);
    stream_lose(c, ERR_GONE, whole.text);
    c->trouble = err_set(&c->trouble_text, ERR_GONE,
                         "%.300s, and the devices that are left are still being "
                         "made ready; try again, or bring it back (lingua join on "
                         "it)",
                         text);
}

/* Waits for everybody in crew to be back. */
static void wait_for(struct core *c, const struct crew *crew)
{
    if (c->ticket || c->grace_us != INT64_MAX)
        solve_anew(c); /* what was planned or waited for so far comes afterwards */
    c->lost = *crew;
    c->grace_us = c->now_us + CORE_GRACE_US;
}

/* ---- members ---- */

void epoch_up(struct core *c, int member)
{
    struct member *m = find(c, member);
    bool waiting = c->grace_us != INT64_MAX;

    if (!m && c->n_members == CORE_MEMBERS_MAX) {
        core_say(c, "more than %d devices: the newest is left out", CORE_MEMBERS_MAX);
        return;
    }
    if (!m)
        m = insert(c, member);
    *m = (struct member){.number = member};
    if (waiting && place_of(&c->lost, member) >= 0) {
        if (all_usable(c, &c->lost))
            assign(c, &c->lost);
        return;
    }
    solve_soon(c);
}

/* What a member was part of is over; back = it may come back and take its place again. */
static void part(struct core *c, int member, const char *text, const char *advice, bool back)
{
    bool cur = in_cur(c, member), next = in_next(c, member);
    struct crew was = next ? c->next : c->cur;

    if (next)
        c->phase = PHASE_NONE;
    if (cur) {
        was = c->cur;
        end(c, member, text, advice);
    }
    if (next && cur)
        solve_soon(c); /* what next was to bring is still wanted, afterwards */
    if (back && (next || cur) && c->phase == PHASE_NONE)
        wait_for(c, &was);
    else if (next || cur)
        solve_anew(c);
}

void epoch_down(struct core *c, int member, const char *text)
{
    struct member *m = find(c, member);

    if (!m)
        return;
    if (!text)
        text = "a device left";
    erase(c, m);
    if (in_cur(c, member) || in_next(c, member)) {
        part(c, member, text,
             "bring it back (lingua join on it) or wait: the next request goes to the devices that "
             "are left",
             true);
        return;
    }
    if (c->ticket || (!c->live && c->phase == PHASE_NONE && c->grace_us == INT64_MAX))
        solve_anew(c);
}

static void stop_waiting_for(struct core *c, int member)
{
    if (c->grace_us != INT64_MAX && place_of(&c->lost, member) >= 0)
        c->grace_us = INT64_MAX;
}

void epoch_drain(struct core *c, int member)
{
    struct member *m = find(c, member);

    if (!m || m->drained)
        return;
    m->drained = true;
    stop_waiting_for(c, member);
    if (c->phase != PHASE_LOADING && in_next(c, member))
        c->phase = PHASE_NONE;
    solve_anew(c);
}

void epoch_failed(struct core *c, const struct core_event *ev)
{
    struct member *m = find(c, ev->member);
    bool cur = in_cur(c, ev->member) && ev->epoch == c->cur.plan.epoch;
    bool next = in_next(c, ev->member) && ev->epoch == c->next.plan.epoch;
    const char *text = ev->text ? ev->text : "a device could not take part";

    if (!m || (!cur && !next))
        return;
    m->failed = true;
    core_say(c, "%s; it is left out until it joins anew", text);
    /* One that cannot go on in the old epoch is not to be in the next either. */
    if (cur) {
        part(c, ev->member, text, "the next request goes to the devices that are left", false);
        return;
    }
    c->phase = PHASE_NONE;
    solve_anew(c);
}

void epoch_changed(struct core *c)
{
    solve_anew(c);
}

/* ---- the planner's answer ---- */

static bool take_crew(const struct core_event *ev, struct crew *out)
{
    const struct plan *p = ev->plan;
    struct err_text et;

    if (p->n_stages < 1 || p->n_stages > PLAN_STAGES_MAX || !ev->members ||
        plan_check(p, p->stage[p->n_stages - 1].end, &et))
        return false;
    *out = (struct crew){.plan = *p};
    if (ev->pace)
        out->pace = *ev->pace;
    for (int i = 0; i < p->n_devices; i++) {
        out->members[i] = ev->members[i];
        if (place_of(out, out->members[i]) != i)
            return false;
    }
    return true;
}

static void no_plan(struct core *c, const struct core_event *ev)
{
    const char *text = ev->text && ev->text[0] ? ev->text : "no plan works";

    if (c->live) {
        core_say(c, "the plan stays as it is: %s", text);
        return;
    }
    c->trouble = ev->code ? ev->code : ERR_GONE;
    err_set(&c->trouble_text, c->trouble, "%s", text);
    core_say(c, "%s", text);
}

void epoch_planned(struct core *c, const struct core_event *ev)
{
    struct crew crew;

    if (c->ticket == 0 || ev->ticket != c->ticket)
        return;
    c->ticket = 0;
    if (changing(c)) {
        solve_soon(c); /* then it will be the time to think again */
        return;
    }
    if (!ev->plan) {
        no_plan(c, ev);
        return;
    }
    if (!take_crew(ev, &crew)) {
        core_say(c, "the planner gave a plan that makes no sense");
        return;
    }
    if (!all_usable(c, &crew)) {
        solve_soon(c);
        return;
    }
    if (c->phase == PHASE_FETCHING && same_crew(&crew, &c->next))
        return;
    if (c->live && same_crew(&crew, &c->cur)) {
        c->cur.pace = crew.pace;
        c->phase = PHASE_NONE;
        return;
    }
    assign(c, &crew);
}

/* ---- how far the next epoch is ---- */

/* True when everybody in next is done. */
static bool one_done(struct core *c, int member, uint32_t epoch, enum phase phase)
{
    int place = place_of(&c->next, member);

    if (c->phase != phase || epoch != c->next.plan.epoch || place < 0)
        return false;
    c->done[place] = true;
    for (int i = 0; i < c->next.plan.n_devices; i++)
        if (!c->done[i])
            return false;
    return true;
}

void epoch_progress(struct core *c, int member)
{
    int place = c->phase != PHASE_NONE ? place_of(&c->next, member) : -1;

    if (place >= 0)
        c->moved_us[place] = c->now_us;
}

void epoch_fetched(struct core *c, int member, uint32_t epoch)
{
    if (one_done(c, member, epoch, PHASE_FETCHING))
        c->phase = PHASE_SWITCHING;
}

void epoch_member_ready(struct core *c, int member, uint32_t epoch)
{
    if (one_done(c, member, epoch, PHASE_LOADING))
        run(c);
}

static bool is_awaited(const struct core *c, int place)
{
    return (c->phase == PHASE_FETCHING || c->phase == PHASE_LOADING) && !c->done[place];
}

/* Asked again only after as long a time: the driver may have a reason to wait on. */
static void find_stuck(struct core *c)
{
    for (int i = 0; i < c->next.plan.n_devices; i++) {
        if (!is_awaited(c, i) || c->now_us < c->moved_us[i] + CORE_STUCK_US)
            continue;
        c->moved_us[i] = c->now_us;
        core_act(c, &(struct core_action){.kind = CORE_STUCK,
                                          .member = c->next.members[i],
                                          .epoch = c->next.plan.epoch});
    }
}

static void give_up_steps(struct core *c)
{
    const char *text = "a step was lost on its way through the devices; they begin anew: try again";

    core_say(c, "%s", text);
    c->live = false;
    c->stopped_us = c->now_us;
    slots_wipe(c);
    flight_lose(c, text);
    stream_lose(c, ERR_GONE, text);
    if (c->phase == PHASE_SWITCHING)
        return;
    if (c->phase == PHASE_FETCHING)
        solve_soon(c); /* what next was to bring is still wanted, afterwards */
    assign(c, &c->cur);
}

void epoch_tick(struct core *c)
{
    find_stuck(c);
    if (c->n_flight > 0 && c->now_us >= c->home_us + CORE_STEP_US)
        give_up_steps(c);
    if (c->now_us >= c->grace_us) {
        c->grace_us = INT64_MAX;
        c->solve_us = c->now_us;
    }
    if (c->phase == PHASE_SWITCHING && c->n_flight == 0)
        load(c);
    if (c->now_us >= c->solve_us && c->grace_us == INT64_MAX && !changing(c))
        solve(c);
}

int64_t epoch_next_us(const struct core *c)
{
    int64_t next = c->grace_us != INT64_MAX ? c->grace_us : changing(c) ? INT64_MAX : c->solve_us;

    for (int i = 0; i < c->next.plan.n_devices; i++)
        if (is_awaited(c, i) && c->moved_us[i] + CORE_STUCK_US < next)
            next = c->moved_us[i] + CORE_STUCK_US;
    if (c->n_flight > 0 && c->home_us + CORE_STEP_US < next)
        next = c->home_us + CORE_STEP_US;
    return next;
}

const char *epoch_waits_for(const struct core *c)
{
    if (c->phase == PHASE_LOADING)
        return "the devices are still loading their parts of the model; try again in a while";
    if (c->phase != PHASE_NONE)
        return "the devices are still fetching their parts of the model; try again in a while";
    if (c->trouble)
        return c->trouble_text.text;
    return c->asked || c->solve_us != INT64_MAX ? "a plan for the devices is being made"
                                                : "no device is there to answer";
}
