#include "fuzz/api_world.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/apart.h"
#include "base/check.h"
#include "base/mem.h"
#include "base/sys.h"
#include "head/cluster_impl.h"
#include "head/pool.h"
#include "support/tiny_vocab.h"
#include "text/chat.h"

enum {
    CTX = 64,
    SLOTS = 3,
    ROWS = 16,
    QUEUE = 6,
    EMBD = 4,
    VOCAB_MAX = 512,
    NOTES = 32,
    JOBS = 8192,
    MODULES = 4,
    PACE_US = 100, /* between two things */
};

/* What the core is to be told. */
struct note {
    struct core_event event;
    int n_want;
    bool hidden;
    uint32_t hash[ROWS]; /* of each wanted row */
};

struct jobs {
    struct pool_job job[JOBS];
    int first, n;
};

static struct world {
    struct cluster cluster;
    struct world_opts opts;
    uint32_t random;
    int64_t now_us;
    bool gens_due;
    int n_steps, n_members;
    struct note note[NOTES];
    int first_note, n_notes;
    struct jobs waiting[POOL_LANES], ran;
} world;

/* Made by world_open. */
static struct text *vocabulary;
static struct bytes {
    char *at;
    size_t n;
} plain_form, tools_form, schema_form, other_form;
static struct bytes *recording;
static struct model_shape shape = {
    .arch = "llama", .name = "tiny", .n_layers = 1, .n_embd = EMBD, .n_ctx_train = 512};
static struct plan plans[2]; /* for one device, for two */

static uint32_t random_below(uint32_t n)
{
    world.random = world.random * 1664525u + 1013904223u;
    return (world.random >> 8) % n;
}

/* ---- in place of what costs time, threads or chance (--wrap) ---- */

int64_t __wrap_clock_us(void);
void __wrap_event_active(struct event *ev, int res, short n_calls);
const struct model_shape *__wrap_model_shape(const struct model *m);
int __wrap_RAND_bytes(unsigned char *buf, int n);
enum err __wrap_apart_run(const struct apart_task *task, char **out, size_t *n,
                          struct err_text *et);
enum err __real_apart_run(const struct apart_task *task, char **out, size_t *n,
                          struct err_text *et);

int64_t __wrap_clock_us(void)
{
    return world.now_us;
}

/* Only gen.c's: something is to be told from the loop. */
void __wrap_event_active(struct event *ev, int res, short n_calls)
{
    (void)ev;
    (void)res;
    (void)n_calls;
    world.gens_due = true;
}

const struct model_shape *__wrap_model_shape(const struct model *m)
{
    (void)m;
    return &shape;
}

int __wrap_RAND_bytes(unsigned char *buf, int n)
{
    for (int i = 0; i < n; i++)
        buf[i] = (unsigned char)random_below(256);
    return 1;
}

enum err __wrap_apart_run(const struct apart_task *task, char **out, size_t *n, struct err_text *et)
{
    const struct bytes *b = strcmp(task->what, "the JSON schema") == 0     ? &schema_form
                            : strcmp(task->what, "the chat template") == 0 ? &other_form
                            : world.opts.tools                             ? &tools_form
                                                                           : &plain_form;

    if (recording) {
        enum err e = __real_apart_run(task, out, n, et);

        CHECK(!e);
        recording->at = mem_alloc(*n + 1);
        memcpy(recording->at, *out, *n + 1);
        recording->n = *n;
        return e;
    }
    *n = b->n;
    *out = mem_alloc(b->n + 1);
    memcpy(*out, b->at, b->n + 1);
    return ERR_NONE;
}

/* ---- the pool, without threads ---- */

static void job_put(struct jobs *j, struct pool_job job)
{
    CHECK(j->n < JOBS);
    j->job[(j->first + j->n++) % JOBS] = job;
}

static struct pool_job job_take(struct jobs *j)
{
    struct pool_job job = j->job[j->first];

    CHECK(j->n > 0);
    j->first = (j->first + 1) % JOBS;
    j->n--;
    return job;
}

void pool_give(struct pool *p, enum pool_lane lane, struct pool_job job)
{
    (void)p;
    job_put(&world.waiting[lane], job);
}

int pool_waiting(const struct pool *p, enum pool_lane lane)
{
    (void)p;
    return world.waiting[lane].n;
}

/* ---- the devices ---- */

static struct note *note_new(enum core_event_kind kind)
{
    struct note *n = &world.note[(world.first_note + world.n_notes++) % NOTES];

    CHECK(world.n_notes <= NOTES);
    memset(&n->event, 0, sizeof n->event);
    n->event.kind = kind;
    n->n_want = 0;
    n->hidden = false;
    return n;
}

static void on_solve(const struct core_action *a)
{
    static const int members[] = {0, 1};
    struct core_event *e = &note_new(CORE_PLANNED)->event;

    e->ticket = a->ticket;
    e->members = members;
    e->plan = &plans[a->n > 1];
    if (!world.opts.no_devices)
        return;
    e->plan = NULL;
    e->code = ERR_MEMORY;
    e->text = "no device has room";
}

/* Tells of all members of the plan, as if each had done at once what it was told. */
static void all_say(enum core_event_kind kind, uint32_t epoch)
{
    for (int i = 0; i < world.n_members; i++) {
        struct core_event *e = &note_new(kind)->event;

        e->member = i;
        e->epoch = epoch;
    }
}

static void on_send(const struct core_action *a)
{
    const struct step *s = a->step;
    struct note *n = note_new(CORE_HOME);

    n->event.epoch = s->epoch;
    n->event.number = s->number;
    n->hidden = step_wants(s) == STEP_WANT_HIDDEN;
    for (int i = 0; i < s->n_rows; i++)
        if (s->want[i])
            n->hash[n->n_want++] = (uint32_t)s->token[i] * 31 + (uint32_t)s->pos[i] * 7 + 1;
    if (++world.n_steps == world.opts.fail_step) {
        n->event.code = ERR_MEMORY;
        n->event.text = "there is no memory for this step";
        n->n_want = 0;
    }
    if (world.n_steps != world.opts.lose_step)
        return;
    n = note_new(CORE_DOWN);
    n->event.member = 1;
    n->event.text = "kitchen-pi stopped answering";
}

static void act(void *user, const struct core_action *a)
{
    (void)user;
    switch (a->kind) {
    case CORE_SOLVE:
        on_solve(a);
        return;
    case CORE_ASSIGN:
        world.n_members = a->plan->n_devices;
        all_say(CORE_FETCHED, a->epoch);
        return;
    case CORE_LOAD:
        all_say(CORE_READY, a->epoch);
        return;
    case CORE_SEND:
        on_send(a);
        return;
    case CORE_STARTED:
        cluster_gen_started(&world.cluster, a);
        return;
    case CORE_ROW:
        cluster_gen_row(&world.cluster, a);
        return;
    case CORE_ENDED:
        cluster_gen_ended(&world.cluster, a);
        return;
    case CORE_SAY:
        CHECK(a->text);
        return;
    default:
        CHECK(a->kind != CORE_REPLY && a->kind != CORE_STALE && a->kind != CORE_OPENED);
    }
}

void cluster_feed(struct cluster *c, const struct core_event *event)
{
    CHECK(!c->in_core);
    c->in_core = true;
    core_step(c->core, event, world.now_us, act, NULL);
    c->in_core = false;
}

static void tell_core(const struct note *n)
{
    static float rows[ROWS * VOCAB_MAX];
    int width = n->hidden ? EMBD : shape.n_vocab;
    struct result r = {.number = n->event.number,
                       .epoch = n->event.epoch,
                       .kind = n->hidden ? STEP_WANT_HIDDEN : STEP_WANT_LOGITS,
                       .n_rows = n->n_want,
                       .width = n->n_want ? width : 0,
                       .logits = rows};

    for (int i = 0; i < n->n_want; i++) {
        uint32_t x = n->hash[i];

        for (int k = 0; k < width; k++) {
            x = x * 1664525u + 1013904223u;
            rows[i * width + k] = world.opts.broken ? NAN : (float)(x >> 16) / 8192.0f;
        }
    }
    world.cluster.home = n->event.kind == CORE_HOME ? &r : NULL;
    cluster_feed(&world.cluster, &n->event);
    world.cluster.home = NULL;
}

/* ---- what gen.c and the routes ask of a cluster ---- */

void cluster_meter_ask(struct cluster *c, struct beat *b, int n_rows)
{
    CHECK(c == &world.cluster && b && n_rows == 1);
}

void cluster_meter_reply(struct cluster *c, struct beat *b)
{
    CHECK(c == &world.cluster && b);
}

const struct text *cluster_text(const struct cluster *c)
{
    return c->text;
}

struct pool *cluster_pool(const struct cluster *c)
{
    return c->pool;
}

void cluster_facts(const struct cluster *c, struct cluster_facts *out)
{
    *out = (struct cluster_facts){.model_name = shape.name,
                                  .model_path = "/models/tiny.gguf",
                                  .arch = shape.arch,
                                  .quantisation = "f32",
                                  .n_ctx = c->segment.n_ctx,
                                  .n_slots = c->segment.n_slots,
                                  .n_vocab = shape.n_vocab,
                                  .n_embd = EMBD,
                                  .n_ctx_train = shape.n_ctx_train};
}

void cluster_slot(const struct cluster *c, int slot, struct cluster_slot *out)
{
    struct core_slot_view v;

    core_slot_look(c->core, slot, &v);
    *out = (struct cluster_slot){.busy = v.stream >= 0, .n_held = v.len, .n_prompt = v.n_prompt};
    if (v.stream >= 0)
        out->gen = cluster_gen_of(c, v.stream, &out->n_generated);
}

void cluster_answer_over(struct cluster *c, struct answer_log *log)
{
    if (c->answer_begun == log)
        c->answer_begun = NULL;
    answer_log_free(log);
}

bool cluster_picture_ask(struct cluster *c, enum cluster_picture kind,
                         void (*done)(void *user, const char *text, size_t n), void *user)
{
    return false;
}

void cluster_picture_forget(struct cluster *c, const void *user)
{
    CHECK(!"there is none");
}

void cluster_stats(struct cluster *c, struct cluster_stats *out)
{
    struct core_view v = core_view(c->core);

    memset(out, 0, sizeof *out);
    out->running = v.state == CORE_RUNNING;
    out->epoch = v.epoch;
    out->n_streams = v.n_streams;
    out->n_waiting = v.n_waiting;
}

/* ---- beginning and end ---- */

static void record(const char *tools, struct bytes *to)
{
    const struct chat_ask ask = {.messages = "[{\"role\": \"user\", \"content\": \"hello\"}]",
                                 .tools = tools,
                                 .add_assistant = true};
    struct chat_form form;
    struct err_text et;

    recording = to;
    CHECK(chat_apply(vocabulary, &ask, &form, &et) == ERR_NONE);
    chat_form_fini(&form);
    recording = NULL;
}

/* A form begins with its prompt: its length in four bytes, its bytes. That of a chat with tools is
 * too long for our context, so it gets the other's. */
static void prompt_borrow(struct bytes *to, const struct bytes *from)
{
    uint32_t n_from, n_to;
    struct bytes b;

    memcpy(&n_from, from->at, sizeof n_from);
    memcpy(&n_to, to->at, sizeof n_to);
    CHECK(sizeof n_from + n_from <= from->n && sizeof n_to + n_to <= to->n);
    b.n = to->n - n_to + n_from;
    b.at = mem_zalloc(1, b.n + 1);
    memcpy(b.at, from->at, sizeof n_from + n_from);
    memcpy(b.at + sizeof n_from + n_from, to->at + sizeof n_to + n_to, to->n - sizeof n_to - n_to);
    free(to->at);
    *to = b;
}

static void forms_open(void)
{
    struct err_text et;
    char *text, *caps;

    record(NULL, &plain_form);
    record(
        "[{\"type\": \"function\", \"function\": {\"name\": \"look\", \"parameters\": {\"type\": "
        "\"object\", \"properties\": {\"at\": {\"type\": \"string\"}}}}}]",
        &tools_form);
    prompt_borrow(&tools_form, &plain_form);
    recording = &schema_form;
    CHECK(chat_schema_grammar("{\"type\": \"object\", \"properties\": {\"a\": {\"type\": "
                              "\"integer\"}}}",
                              &text, &et) == ERR_NONE);
    free(text);
    recording = &other_form;
    CHECK(chat_caps(vocabulary, &caps, &et) == ERR_NONE);
    free(caps);
    recording = NULL;
}

void world_open(void)
{
    const struct tiny_vocab v = {
        .chat_template = "{% for m in messages %}<|im_start|>{{ m.role }} {{ m.content }}<|im_end|>"
                         "{% endfor %}{% if add_generation_prompt %}<|im_start|>user "
                         "{% endif %}"};
    char path[] = "/tmp/lingua-fuzz-api-XXXXXX";
    int fd = mkstemp(path);
    struct err_text et;

    CHECK(fd >= 0);
    close(fd);
    CHECK(tiny_vocab_write(path, &v));
    CHECK(text_open(path, &vocabulary, &et) == ERR_NONE);
    unlink(path);
    shape.n_vocab = text_n_vocab(vocabulary);
    CHECK(shape.n_vocab <= VOCAB_MAX);
    forms_open();
    plans[0] = (struct plan){.n_devices = 1, .n_stages = 1, .stage = {{0, 0, MODULES}}};
    plans[1] = (struct plan){
        .n_devices = 2, .n_stages = 2, .stage = {{0, 0, MODULES / 2}, {1, MODULES / 2, MODULES}}};
}

void world_begin(const struct world_opts *o)
{
    const struct core_opts opts = {.n_slots = SLOTS,
                                   .n_ctx = CTX,
                                   .n_rows_max = ROWS,
                                   .n_vocab = shape.n_vocab,
                                   .n_queue_max = QUEUE};
    struct cluster *c = &world.cluster;

    CHECK(world.n_notes == 0 && world.ran.n == 0);
    world.opts = *o;
    world.random = o->order;
    world.now_us = 1000000;
    world.n_steps = 0;
    c->core = core_new(&opts);
    c->segment.n_ctx = CTX;
    c->segment.n_slots = SLOTS;
    c->text = vocabulary;
    c->pool = (struct pool *)&world; /* never looked into */
    c->gen_s = 0;
    c->last_stream = 0;
    for (int i = 0; i < 2; i++)
        note_new(CORE_UP)->event.member = i;
}

struct cluster *world_cluster(void)
{
    return &world.cluster;
}

static void take_note(void)
{
    struct note n = world.note[world.first_note];

    world.first_note = (world.first_note + 1) % NOTES;
    world.n_notes--;
    tell_core(&n);
}

static void run_job(enum pool_lane lane)
{
    struct pool_job job = job_take(&world.waiting[lane]);

    job.run(job.user);
    job_put(&world.ran, job);
}

static void pass_time(void)
{
    int64_t next = core_next_us(world.cluster.core);

    if (world.now_us < next)
        world.now_us = next;
    cluster_feed(&world.cluster, &(struct core_event){.kind = CORE_TIME});
}

bool world_turn(void)
{
    enum { NOTE, GENS, RAN, QUICK, SLOW, KINDS } due[KINDS], n = 0;

    world.now_us += PACE_US;
    if (world.n_notes)
        due[n++] = NOTE;
    if (world.gens_due)
        due[n++] = GENS;
    if (world.ran.n)
        due[n++] = RAN;
    if (world.waiting[POOL_QUICK].n)
        due[n++] = QUICK;
    if (world.waiting[POOL_SLOW].n)
        due[n++] = SLOW;
    if (n == 0 && core_next_us(world.cluster.core) == INT64_MAX)
        return false;
    if (n == 0 || world.now_us >= core_next_us(world.cluster.core)) {
        pass_time();
        return true;
    }
    switch (due[random_below(n)]) {
    case NOTE:
        take_note();
        break;
    case GENS:
        world.gens_due = false;
        cluster_gen_tell(-1, 0, &world.cluster);
        break;
    case RAN: {
        struct pool_job job = job_take(&world.ran);

        job.done(job.user, 1);
        break;
    }
    case QUICK:
        run_job(POOL_QUICK);
        break;
    default:
        run_job(POOL_SLOW);
    }
    return true;
}

void world_end(void)
{
    struct core_view v = core_view(world.cluster.core);

    CHECK(!world.cluster.gens && v.n_streams == 0 && v.n_waiting == 0);
    CHECK(world.ran.n == 0 && world.waiting[POOL_QUICK].n == 0 && world.waiting[POOL_SLOW].n == 0);
    core_free(world.cluster.core);
    world.cluster.core = NULL;
    world.first_note = world.n_notes = 0;
    world.gens_due = false;
}

/* ---- what the page tells it: nothing of this world is moved by that ---- */

const char *cluster_name(const struct cluster *c)
{
    (void)c;
    return "head";
}

json_t *cluster_json(const struct cluster *c)
{
    (void)c;
    return json_pack("{s:{s:s}, s:i}", "model", "name", "tiny", "time_ms", 1);
}

void cluster_watch(struct cluster *c, struct cluster_watch *w)
{
    (void)c;
    CHECK(w->changed);
}

void cluster_unwatch(struct cluster *c, struct cluster_watch *w)
{
    (void)c;
    CHECK(w->changed);
}

void cluster_refresh(struct cluster *c)
{
    (void)c;
}

void cluster_invite(struct cluster *c, struct cluster_invitation *out)
{
    (void)c;
    *out = (struct cluster_invitation){"aaaa-bbbb", "192.168.1.5:7333", 900};
}

enum err cluster_drain(struct cluster *c, const char *name, struct err_text *et)
{
    (void)c;
    return strlen(name) % 2 ? ERR_NONE : err_set(et, ERR_INPUT, "there is no device %s", name);
}
