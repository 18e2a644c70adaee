/* The core's single answers, where a whole cluster would hide them: tags to the bit, refusals,
 * words out of place, limits. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "head/core.h"
#include "head/siphash.h"

/* ---- a core and what it did last ---- */

enum { DONE_MAX = 64, CTX = 32, ROWS = 8, SLOTS = 4, VOCAB = 100 };

struct done {
    enum core_action_kind kind;
    int member, client, n, members[4];
    uint32_t epoch, ticket;
    uint64_t number;
    enum err code;
    char text[ERR_TEXT_MAX];
    int n_ops, n_rows, n_want, n_tags;
    struct slot_op ops[16];
    int32_t slot[ROWS], pos[ROWS];
    uint64_t tag[2 * ROWS];
};

struct rig {
    struct core *core;
    int64_t now_us;
    int n;
    struct done done[DONE_MAX]; /* by the last event */
};

static const uint8_t key[16] = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};

static void act(void *user, const struct core_action *a)
{
    struct rig *r = user;
    struct done *d = &r->done[r->n++];

    assert_true(r->n <= DONE_MAX);
    *d = (struct done){.kind = a->kind,
                       .member = a->member,
                       .client = a->client,
                       .n = a->n,
                       .epoch = a->epoch,
                       .ticket = a->ticket,
                       .number = a->number,
                       .code = a->code};
    if (a->text)
        snprintf(d->text, sizeof d->text, "%s", a->text);
    for (int i = 0; a->members && i < a->n; i++)
        d->members[i] = a->members[i];
    if (!a->step)
        return;
    d->n_ops = a->step->n_ops;
    d->n_rows = a->step->n_rows;
    d->n_want = a->step->n_want;
    d->n_tags = a->step->n_tags;
    memcpy(d->ops, a->step->ops, (size_t)d->n_ops * sizeof d->ops[0]);
    memcpy(d->slot, a->step->slot, (size_t)d->n_rows * sizeof d->slot[0]);
    memcpy(d->pos, a->step->pos, (size_t)d->n_rows * sizeof d->pos[0]);
    memcpy(d->tag, a->step->tag, (size_t)d->n_tags * sizeof d->tag[0]);
}

static void tell(struct rig *r, const struct core_event *ev)
{
    r->n = 0;
    core_step(r->core, ev, r->now_us, act, r);
}

static void later(struct rig *r, int64_t us)
{
    r->now_us += us;
    tell(r, &(struct core_event){.kind = CORE_TIME});
}

/* The only action of that kind in answer to the last event, or NULL. */
static const struct done *did(const struct rig *r, enum core_action_kind kind)
{
    const struct done *found = NULL;

    for (int i = 0; i < r->n; i++) {
        if (r->done[i].kind != kind)
            continue;
        assert_null(found);
        found = &r->done[i];
    }
    return found;
}

static void open_client(struct rig *r, int client, int n, enum err want)
{
    tell(r, &(struct core_event){.kind = CORE_OPEN, .client = client, .n = n});
    assert_int_equal(did(r, CORE_OPENED)->code, want);
    assert_int_equal(did(r, CORE_OPENED)->client, client);
}

static void plan(struct rig *r, uint32_t ticket, const struct plan *p)
{
    static const int members[] = {7, 9};

    tell(r, &(struct core_event){
                .kind = CORE_PLANNED, .ticket = ticket, .plan = p, .members = members});
}

static const struct plan two = {
    .n_devices = 2, .n_stages = 3, .stage = {{0, 0, 3}, {1, 3, 5}, {0, 5, 6}}};

/* Members 7 and 9 run an epoch of three stages. */
static void start(struct rig *r)
{
    const struct core_opts opts = {
        .n_slots = SLOTS, .n_ctx = CTX, .n_rows_max = ROWS, .n_vocab = VOCAB};
    struct core_opts o = opts;

    memset(r, 0, sizeof *r);
    memcpy(o.tag_key, key, sizeof key);
    r->core = core_new(&o);
    assert_int_equal(core_view(r->core).state, CORE_ALONE);
    tell(r, &(struct core_event){.kind = CORE_UP, .member = 9});
    tell(r, &(struct core_event){.kind = CORE_UP, .member = 7});
    assert_int_equal(r->n, 0);
    assert_int_equal(core_next_us(r->core), CORE_SETTLE_US);
    later(r, CORE_SETTLE_US);
    assert_int_equal(did(r, CORE_SOLVE)->n, 2);
    assert_int_equal(did(r, CORE_SOLVE)->members[0], 7);
    assert_int_equal(did(r, CORE_SOLVE)->members[1], 9);
    assert_int_equal(core_next_us(r->core), INT64_MAX);
    plan(r, did(r, CORE_SOLVE)->ticket, &two);
    assert_int_equal(did(r, CORE_ASSIGN)->epoch, 1);
    assert_int_equal(core_view(r->core).state, CORE_FETCHING);
    tell(r, &(struct core_event){.kind = CORE_FETCHED, .member = 7, .epoch = 1});
    assert_int_equal(r->n, 0);
    tell(r, &(struct core_event){.kind = CORE_FETCHED, .member = 9, .epoch = 1});
    assert_int_equal(did(r, CORE_LOAD)->epoch, 1);
    tell(r, &(struct core_event){.kind = CORE_READY, .member = 9, .epoch = 1});
    assert_int_equal(core_view(r->core).state, CORE_LOADING);
    tell(r, &(struct core_event){.kind = CORE_READY, .member = 7, .epoch = 1});
    assert_int_equal(core_view(r->core).state, CORE_RUNNING);
    assert_string_equal(core_view(r->core).text, "");
}

struct asking {
    struct core_ask ask;
    int32_t slot[ROWS + 1], pos[ROWS + 1], token[ROWS + 1];
    uint8_t want[ROWS + 1];
};

/* n rows of tokens 10, 11, ... by position; the last wanted. */
static struct core_ask *rows(struct asking *a, uint64_t number, int slot, int pos, int n)
{
    for (int i = 0; i < n && i <= ROWS; i++) {
        a->slot[i] = slot;
        a->pos[i] = pos + i;
        a->token[i] = 10 + pos + i;
        a->want[i] = i == n - 1;
    }
    a->ask = (struct core_ask){.number = number,
                               .n_rows = n,
                               .slot = a->slot,
                               .pos = a->pos,
                               .token = a->token,
                               .want = a->want};
    return &a->ask;
}

static void ask(struct rig *r, int client, const struct core_ask *a)
{
    tell(r, &(struct core_event){.kind = CORE_ASK, .client = client, .ask = a});
}

static void home(struct rig *r, uint64_t number, enum err code, const char *text)
{
    tell(r, &(struct core_event){
                .kind = CORE_HOME, .epoch = 1, .number = number, .code = code, .text = text});
}

static void refused(struct rig *r, const struct core_ask *a, enum err want, const char *words)
{
    const struct done *reply;

    ask(r, 1, a);
    reply = did(r, CORE_REPLY);
    if (!reply)
        fail_msg("no answer");
    assert_null(did(r, CORE_SEND));
    assert_null(did(r, CORE_STALE));
    assert_int_equal(reply->code, want);
    assert_int_equal(reply->number, a->number);
    if (!strstr(reply->text, words))
        fail_msg("\"%s\" does not say \"%s\"", reply->text, words);
}

/* ---- tests ---- */

/* Appendix A of the paper: key 00 01 .. 0f, message 00 01 .. 0e; the others are of its authors'
 * reference program. */
static void test_siphash(void **state)
{
    static const struct {
        size_t len;
        uint64_t hash;
    } want[] = {
        {0, 0x726fdb47dd0e0e31},  {1, 0x74f839c593dc67fd}, {2, 0x0d6c8009d9a94f5a},
        {3, 0x85676696d7fb7e2d},  {7, 0xab0200f58b01d137}, {8, 0x93f5f5799a932462},
        {15, 0xa129ca6149be45e5},
    };

    for (size_t i = 0; i < sizeof want / sizeof want[0]; i++)
        assert_true(siphash(key, key, want[i].len) == want[i].hash);
}

static uint64_t tag_after(uint64_t before, uint32_t token)
{
    uint8_t b[12];

    for (int i = 0; i < 8; i++)
        b[i] = (uint8_t)(before >> 8 * i);
    for (int i = 0; i < 4; i++)
        b[8 + i] = (uint8_t)(token >> 8 * i);
    return siphash(key, b, sizeof b);
}

static void test_tags(void **state)
{
    struct slot_op copy = {SLOT_OP_COPY, 0, 1, 2}, cut = {SLOT_OP_TRUNCATE, 1, 0, 1};
    uint64_t t[4] = {siphash(key, key, 0)};
    const struct done *d;
    struct asking a;
    struct rig r;

    for (uint32_t i = 0; i < 3; i++)
        t[i + 1] = tag_after(t[i], 10 + i);
    start(&r);
    open_client(&r, 1, 2, ERR_NONE);
    ask(&r, 1, rows(&a, 1, 0, 0, 3));
    d = did(&r, CORE_SEND);
    assert_int_equal(d->n_tags, 4);
    assert_memory_equal(d->tag, t, sizeof t);
    assert_int_equal(d->n_want, 1);
    home(&r, 1, ERR_NONE, NULL);
    /* A copy brings its tags along, a truncation leaves what is before it. */
    rows(&a, 2, 1, 2, 1);
    a.ask.ops = &copy;
    a.ask.n_ops = 1;
    ask(&r, 1, &a.ask);
    d = did(&r, CORE_SEND);
    assert_int_equal(d->n_ops, 1);
    assert_int_equal(d->ops[0].kind, SLOT_OP_COPY);
    assert_int_equal(d->n_tags, 2);
    assert_memory_equal(d->tag, t + 2, 2 * sizeof *t);
    home(&r, 2, ERR_NONE, NULL);
    rows(&a, 3, 1, 1, 1);
    a.token[0] = 99;
    a.ask.ops = &cut;
    a.ask.n_ops = 1;
    ask(&r, 1, &a.ask);
    d = did(&r, CORE_SEND);
    assert_true(d->tag[0] == t[1]);
    assert_true(d->tag[1] == tag_after(t[1], 99));
    assert_int_equal(core_slot_len(r.core, 1, 1), 2);
    assert_int_equal(core_slot_len(r.core, 1, 0), 3);
    home(&r, 3, ERR_NONE, NULL);
    /* Two runs: each begins with what is before it. */
    rows(&a, 4, 0, 3, 2);
    a.slot[1] = 1;
    a.pos[1] = 0;
    a.token[1] = 10;
    ask(&r, 1, &a.ask);
    d = did(&r, CORE_SEND);
    assert_int_equal(d->n_tags, 4);
    assert_true(d->tag[0] == t[3] && d->tag[2] == t[0] && d->tag[3] == t[1]);
    core_free(r.core);
}

static void test_bad_asks(void **state)
{
    struct slot_op op = {SLOT_OP_TRUNCATE, 0, 0, 3};
    struct asking a;
    struct rig r;

    start(&r);
    open_client(&r, 1, 2, ERR_NONE);
    refused(&r, rows(&a, 1, 0, 0, ROWS + 1), ERR_LIMIT, "8 go in one");
    refused(&r, rows(&a, 2, 0, 0, 0), ERR_INPUT, "nothing");
    refused(&r, rows(&a, 3, 2, 0, 1), ERR_INPUT, "slot 2: there are 0 to 1");
    refused(&r, rows(&a, 4, -1, 0, 1), ERR_INPUT, "slot -1");
    refused(&r, rows(&a, 5, 0, -1, 1), ERR_INPUT, "position -1");
    refused(&r, rows(&a, 6, 0, CTX, 1), ERR_LIMIT, "context of 32");
    refused(&r, rows(&a, 7, 0, 1, 1), ERR_INPUT, "which holds 0 positions");
    rows(&a, 8, 0, 0, 2);
    a.token[1] = -1;
    refused(&r, &a.ask, ERR_INPUT, "row 1: token -1");
    rows(&a, 9, 0, 0, 2);
    a.token[1] = VOCAB;
    refused(&r, &a.ask, ERR_INPUT, "row 1: token 100");
    rows(&a, 10, 0, 0, 3);
    a.pos[2] = 3;
    refused(&r, &a.ask, ERR_INPUT, "does not follow");
    rows(&a, 11, 0, 0, 3);
    a.slot[1] = 1;
    a.pos[1] = 0;
    refused(&r, &a.ask, ERR_INPUT, "do not stand together");
    rows(&a, 12, 0, 0, 1);
    a.ask.ops = &op;
    a.ask.n_ops = 1;
    refused(&r, &a.ask, ERR_INPUT, "truncation to 3");
    op = (struct slot_op){SLOT_OP_COPY, 1, 1, 0};
    rows(&a, 13, 0, 0, 1);
    a.ask.ops = &op;
    a.ask.n_ops = 1;
    refused(&r, &a.ask, ERR_INPUT, "copied to itself");
    op = (struct slot_op){SLOT_OP_COPY, 1, 2, 0};
    a.ask.number = 14;
    refused(&r, &a.ask, ERR_INPUT, "slot 2");
    op = (struct slot_op){9, 1, 0, 0};
    a.ask.number = 15;
    refused(&r, &a.ask, ERR_INPUT, "kind 9");
    op = (struct slot_op){SLOT_OP_TRUNCATE, 1, 0, -1};
    a.ask.number = 16;
    refused(&r, &a.ask, ERR_INPUT, "length -1");
    a.ask.number = 17;
    a.ask.n_ops = WIRE_OPS_MAX;
    refused(&r, &a.ask, ERR_LIMIT, "slot changes");
    refused(&r, rows(&a, 16, 0, 0, 1), ERR_INPUT, "numbers grow");
    assert_int_equal(core_slot_len(r.core, 1, 0), 0);
    /* And none of it has changed anything. */
    ask(&r, 1, rows(&a, 18, 0, 0, 2));
    assert_int_equal(did(&r, CORE_SEND)->number, 1);
    assert_int_equal(did(&r, CORE_SEND)->n_ops, 0);
    core_free(r.core);
}

/* A refusal waits for its turn. */
static void test_order(void **state)
{
    struct asking a;
    struct rig r;

    start(&r);
    open_client(&r, 1, 1, ERR_NONE);
    ask(&r, 1, rows(&a, 1, 0, 0, 2));
    ask(&r, 1, rows(&a, 2, 0, 9, 1)); /* a gap */
    assert_int_equal(r.n, 0);
    ask(&r, 1, rows(&a, 3, 0, 2, 1));
    assert_int_equal(r.n, 0);
    home(&r, 1, ERR_NONE, NULL);
    assert_int_equal(r.n, 3);
    assert_int_equal(r.done[0].number, 1);
    assert_int_equal(r.done[1].number, 2);
    assert_int_equal(r.done[1].code, ERR_INPUT);
    assert_int_equal(r.done[2].kind, CORE_SEND);
    core_free(r.core);
}

static void test_failed_step(void **state)
{
    struct asking a;
    struct rig r;

    start(&r);
    open_client(&r, 1, 2, ERR_NONE);
    open_client(&r, 2, 1, ERR_NONE);
    ask(&r, 2, rows(&a, 1, 0, 0, 4));
    ask(&r, 1, rows(&a, 1, 0, 0, 4));
    ask(&r, 1, rows(&a, 2, 0, 4, 4));
    ask(&r, 1, rows(&a, 3, 1, 0, 4));
    home(&r, 1, ERR_NONE, NULL);
    home(&r, 2, ERR_MEMORY, "no memory on kitchen-pi");
    assert_int_equal(r.done[0].kind, CORE_STALE);
    assert_int_equal(r.done[0].client, 1);
    assert_int_equal(r.done[1].code, ERR_MEMORY);
    assert_string_equal(r.done[1].text, "no memory on kitchen-pi");
    /* It reads again at once; what it had sent before fails, and that empties nothing any more. */
    ask(&r, 1, rows(&a, 4, 0, 0, 4));
    assert_int_equal(did(&r, CORE_SEND)->n_ops, 1);
    assert_int_equal(did(&r, CORE_SEND)->ops[0].kind, SLOT_OP_TRUNCATE);
    assert_int_equal(did(&r, CORE_SEND)->ops[0].len, 0);
    home(&r, 3, ERR_INPUT, "a gap");
    assert_null(did(&r, CORE_STALE));
    assert_int_equal(did(&r, CORE_REPLY)->code, ERR_CANCELLED);
    assert_string_equal(did(&r, CORE_REPLY)->text, "stale");
    home(&r, 4, ERR_NONE, NULL);
    assert_int_equal(did(&r, CORE_REPLY)->code, ERR_NONE);
    assert_int_equal(core_slot_len(r.core, 1, 0), 4);
    assert_int_equal(core_slot_len(r.core, 1, 1), 0);
    assert_int_equal(core_slot_len(r.core, 2, 0), 4); /* the other client's */
    /* What builds on a slot that was emptied is told so, each time, until the slot begins anew. */
    ask(&r, 1, rows(&a, 5, 1, 4, 1));
    home(&r, 5, ERR_NONE, NULL);
    assert_int_equal(r.n, 3);
    assert_int_equal(r.done[1].kind, CORE_STALE);
    assert_int_equal(r.done[2].code, ERR_CANCELLED);
    ask(&r, 1, rows(&a, 6, 0, 4, 1));
    assert_int_equal(did(&r, CORE_REPLY)->code, ERR_CANCELLED);
    ask(&r, 1, rows(&a, 7, 0, 0, 1));
    assert_int_equal(did(&r, CORE_SEND)->n_ops, 1);
    core_free(r.core);
}

static void test_lost(void **state)
{
    struct asking a;
    struct rig r;

    start(&r);
    open_client(&r, 1, 1, ERR_NONE);
    ask(&r, 1, rows(&a, 1, 0, 0, 4));
    tell(&r, &(struct core_event){
                 .kind = CORE_DOWN, .member = 9, .text = "kitchen-pi stopped answering"});
    assert_int_equal(did(&r, CORE_REPLY)->code, ERR_GONE);
    assert_string_equal(did(&r, CORE_REPLY)->text,
                        "kitchen-pi stopped answering while it held attn.1..ffn.1; bring it back "
                        "(lingua join on it) or wait: the next request goes to the devices that "
                        "are left");
    assert_non_null(did(&r, CORE_STALE));
    assert_int_equal(core_view(r.core).n_flight, 0);
    assert_int_equal(core_next_us(r.core), CORE_SETTLE_US + CORE_GRACE_US);
    home(&r, 1, ERR_NONE, NULL); /* too late */
    assert_int_equal(r.n, 0);
    ask(&r, 1, rows(&a, 2, 0, 0, 4));
    later(&r, CORE_GRACE_US);
    assert_int_equal(did(&r, CORE_SOLVE)->n, 1);
    tell(&r, &(struct core_event){.kind = CORE_PLANNED,
                                  .ticket = did(&r, CORE_SOLVE)->ticket,
                                  .code = ERR_MEMORY,
                                  .text = "120 MiB are missing"});
    assert_int_equal(core_view(r.core).state, CORE_WANTING);
    assert_string_equal(core_view(r.core).text, "120 MiB are missing");
    later(&r, CORE_WAIT_US - CORE_GRACE_US - 1);
    assert_int_equal(r.n, 0);
    later(&r, 1);
    assert_int_equal(did(&r, CORE_REPLY)->code, ERR_MEMORY);
    assert_string_equal(did(&r, CORE_REPLY)->text, "120 MiB are missing");
    core_free(r.core);
}

/* A device that cannot go on in the epoch that runs. */
static void test_failed_running(void **state)
{
    struct asking a;
    struct rig r;

    start(&r);
    open_client(&r, 1, 1, ERR_NONE);
    ask(&r, 1, rows(&a, 1, 0, 0, 4));
    tell(&r, &(struct core_event){.kind = CORE_FAILED,
                                  .member = 9,
                                  .epoch = 1,
                                  .code = ERR_FILE,
                                  .text = "its card broke"});
    assert_int_equal(did(&r, CORE_REPLY)->code, ERR_GONE);
    assert_non_null(strstr(did(&r, CORE_REPLY)->text, "its card broke while it held"));
    later(&r, CORE_SETTLE_US);
    assert_int_equal(did(&r, CORE_SOLVE)->n, 1);
    assert_int_equal(did(&r, CORE_SOLVE)->members[0], 7);
    core_free(r.core);
}

static void test_out_of_place(void **state)
{
    static const struct plan holes = {.n_devices = 1, .n_stages = 1, .stage = {{0, 1, 6}}};
    struct plan absurd = two;
    struct asking a;
    struct rig r;

    start(&r);
    open_client(&r, 1, 1, ERR_NONE);
    ask(&r, 1, rows(&a, 1, 0, 0, 1));
    for (int kind = CORE_FETCHED; kind <= CORE_FAILED; kind++) {
        tell(&r, &(struct core_event){.kind = (enum core_event_kind)kind, .member = 9, .epoch = 5});
        tell(&r, &(struct core_event){.kind = (enum core_event_kind)kind, .member = 3, .epoch = 1});
        assert_int_equal(r.n, 0);
    }
    tell(&r, &(struct core_event){.kind = CORE_DOWN, .member = 3});
    tell(&r, &(struct core_event){.kind = CORE_DRAIN, .member = 3});
    tell(&r, &(struct core_event){.kind = CORE_CLOSE, .client = 3});
    tell(&r, &(struct core_event){.kind = CORE_HOME, .epoch = 9, .number = 1});
    assert_int_equal(r.n, 0);
    plan(&r, 77, &two); /* nobody asked */
    assert_int_equal(r.n, 0);
    home(&r, 2, ERR_NONE, NULL);
    assert_non_null(did(&r, CORE_SAY));
    assert_int_equal(r.n, 1);
    ask(&r, 3, rows(&a, 8, 0, 0, 1));
    assert_int_equal(did(&r, CORE_REPLY)->code, ERR_INPUT);
    /* A planner that has lost its mind. */
    absurd.n_stages = 1000;
    for (int i = 0; i < 3; i++) {
        tell(&r, &(struct core_event){.kind = CORE_CHANGED});
        later(&r, CORE_SETTLE_US);
        plan(&r, did(&r, CORE_SOLVE)->ticket, i == 0 ? &holes : i == 1 ? &absurd : &two);
        assert_null(did(&r, CORE_ASSIGN));
        assert_int_equal(did(&r, CORE_SAY) != NULL, i < 2); /* the last is what runs already */
    }
    assert_int_equal(core_view(r.core).state, CORE_RUNNING);
    home(&r, 1, ERR_NONE, NULL);
    assert_int_equal(did(&r, CORE_REPLY)->code, ERR_NONE);
    core_free(r.core);
}

static void test_limits(void **state)
{
    struct asking a;
    struct rig r;

    start(&r);
    open_client(&r, 1, 0, ERR_INPUT);
    open_client(&r, 1, SLOTS + 1, ERR_LIMIT);
    open_client(&r, 1, 3, ERR_NONE);
    open_client(&r, 1, 1, ERR_INPUT); /* again */
    open_client(&r, 2, 2, ERR_LIMIT);
    open_client(&r, 2, 1, ERR_NONE);
    assert_int_equal(core_view(r.core).n_slots_taken, SLOTS);
    tell(&r, &(struct core_event){.kind = CORE_CLOSE, .client = 1});
    open_client(&r, 3, 3, ERR_NONE);
    for (uint64_t i = 1; i <= CORE_ASKS_MAX; i++) {
        ask(&r, 2, rows(&a, i, 0, 0, CORE_DECODE_ROWS + 1));
        assert_null(did(&r, CORE_REPLY));
        assert_int_equal(did(&r, CORE_SEND) != NULL, i <= CORE_FLIGHT_PER_STAGE * 3);
    }
    ask(&r, 2, rows(&a, CORE_ASKS_MAX + 1, 0, 0, 1));
    assert_int_equal(did(&r, CORE_REPLY)->code, ERR_LIMIT);
    home(&r, 1, ERR_NONE, NULL);
    assert_int_equal(did(&r, CORE_SEND)->number, CORE_FLIGHT_PER_STAGE * 3 + 1);
    core_free(r.core);
}

/* A device that answers pings but never comes to an end with its part is left out in the end. */
static void test_stuck(void **state)
{
    struct rig r;

    start(&r);
    tell(&r, &(struct core_event){.kind = CORE_DOWN, .member = 9});
    tell(&r, &(struct core_event){.kind = CORE_UP, .member = 9});
    assert_int_equal(did(&r, CORE_ASSIGN)->epoch, 2);
    assert_int_equal(core_next_us(r.core), r.now_us + CORE_STUCK_US);
    tell(&r, &(struct core_event){.kind = CORE_FETCHED, .member = 7, .epoch = 2});
    later(&r, CORE_STUCK_US - 1);
    assert_int_equal(r.n, 0);
    tell(&r, &(struct core_event){.kind = CORE_PROGRESS, .member = 9});
    later(&r, CORE_STUCK_US - 1);
    assert_int_equal(r.n, 0);
    later(&r, 1);
    assert_int_equal(did(&r, CORE_STUCK)->member, 9);
    assert_int_equal(did(&r, CORE_STUCK)->epoch, 2);
    tell(&r, &(struct core_event){
                 .kind = CORE_FAILED, .member = 9, .epoch = 2, .text = "it does not get on"});
    later(&r, CORE_SETTLE_US);
    assert_int_equal(did(&r, CORE_SOLVE)->n, 1);
    assert_int_equal(did(&r, CORE_SOLVE)->members[0], 7);
    core_free(r.core);
}

/* A step that never comes home: those who wait are told, and the same devices begin anew. */
static void test_lost_step(void **state)
{
    struct asking a;
    struct rig r;

    start(&r);
    open_client(&r, 1, 1, ERR_NONE);
    ask(&r, 1, rows(&a, 1, 0, 0, 4));
    ask(&r, 1, rows(&a, 2, 0, 4, 4));
    assert_int_equal(core_next_us(r.core), r.now_us + CORE_STEP_US);
    later(&r, CORE_STEP_US - 1);
    home(&r, 1, ERR_NONE, NULL);
    later(&r, CORE_STEP_US - 1);
    assert_int_equal(r.n, 0);
    later(&r, 1);
    assert_int_equal(did(&r, CORE_REPLY)->code, ERR_GONE);
    assert_int_equal(did(&r, CORE_REPLY)->number, 2);
    assert_non_null(did(&r, CORE_STALE));
    assert_int_equal(did(&r, CORE_ASSIGN)->epoch, 2);
    for (enum core_event_kind k = CORE_FETCHED; k <= CORE_READY; k++) {
        tell(&r, &(struct core_event){.kind = k, .member = 7, .epoch = 2});
        tell(&r, &(struct core_event){.kind = k, .member = 9, .epoch = 2});
    }
    assert_int_equal(core_view(r.core).state, CORE_RUNNING);
    core_free(r.core);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_siphash),        cmocka_unit_test(test_tags),
        cmocka_unit_test(test_bad_asks),       cmocka_unit_test(test_order),
        cmocka_unit_test(test_failed_step),    cmocka_unit_test(test_lost),
        cmocka_unit_test(test_failed_running), cmocka_unit_test(test_out_of_place),
        cmocka_unit_test(test_limits),         cmocka_unit_test(test_stuck),
        cmocka_unit_test(test_lost_step),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
