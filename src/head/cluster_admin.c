/* The socket for programs of this machine: questions in JSON, and steps of their sessions. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/check.h"
#include "base/mem.h"
#include "base/sys.h"
#include "head/cluster_impl.h"
#include "head/plan_json.h"

enum { BACKLOG = 16 };

/* ---- answering ---- */

static const char *const no_answer =
    "{\"error\":{\"code\":4,\"message\":\"the answer is too long for a frame, or is no text\"}}";

/* Takes json. NULL is what json_pack makes of a text that is no UTF-8: a file's name may be that.
 * Who asked is waiting, so there is always an answer. */
static void send_json(struct client *cl, uint64_t number, json_t *json)
{
    char *text = json ? json_dumps(json, JSON_COMPACT) : NULL;
    struct wire_admin m = {.number = number, .json = text};
    struct wire_buf buf;
    struct frame_out f;

    json_decref(json);
    if (!text || strlen(text) > WIRE_ADMIN_MAX)
        m.json = no_answer;
    m.len = strlen(m.json);
    if (cl->link) {
        wire_admin_encode(&m, &buf, &f);
        link_send(cl->link, &f);
    }
    free(text);
}

static void send_error(struct client *cl, uint64_t number, enum err e, const char *text)
{
    send_json(cl, number,
              json_pack("{s:{s:i, s:s}}", "error", "code", (int)wire_code(e), "message", text));
}

static int client_id(const struct cluster *c, const struct client *cl)
{
    return (int)(cl - c->client);
}

/* ---- what the core has to say to a client ---- */

void cluster_client_opened(struct cluster *c, const struct core_action *a)
{
    struct client *cl = &c->client[a->client];

    if (!cl->link || !cl->opening)
        return;
    cl->opening = false;
    if (a->code) {
        cl->n_slots = 0;
        send_error(cl, cl->open_number, a->code, a->text);
        return;
    }
    send_json(cl, cl->open_number,
              json_pack("{s:s, s:i, s:i, s:i, s:i, s:i}", "path", c->model_path, "n_ctx",
                        c->segment.n_ctx, "n_rows_max", c->segment.n_rows_max, "n_slots",
                        cl->n_slots, "kv", (int)c->segment.kv, "n_devices",
                        c->running.plan.n_devices));
}

void cluster_client_reply(struct cluster *c, const struct core_action *a)
{
    struct client *cl = &c->client[a->client];
    struct result r = {.number = a->number, .epoch = c->running.number, .code = a->code};
    struct frame_out f;

    if (!cl->link)
        return;
    if (a->code)
        (void)err_set(&r.reason, a->code, "%s", a->text);
    r.width = a->code ? 0 : model_shape(c->model)->n_vocab;
    if (!a->code && c->home && a->n_rows > 0) {
        CHECK(a->row >= 0 && a->n_rows <= c->home->n_rows - a->row);
        r.kind = c->home->kind;
        r.n_rows = a->n_rows;
        r.width = c->home->width;
        r.logits = c->home->logits + (size_t)a->row * (size_t)r.width;
    }
    result_encode(c->codec, &r, &f);
    link_send(cl->link, &f);
    if (!a->code)
        cluster_meter_reply(c, &cl->beat);
}

void cluster_client_stale(struct cluster *c, int client)
{
    struct client *cl = &c->client[client];

    if (cl->link)
        send_json(cl, 0, json_pack("{s:s}", "event", "stale"));
}

void cluster_tell_waiting(struct cluster *c)
{
    const char *text = core_view(c->core).text;

    if (strcmp(text, c->waiting.text) == 0)
        return;
    (void)err_set(&c->waiting, ERR_NONE, "%s", text);
    for (int i = 0; i < CORE_CLIENTS_MAX; i++)
        if (c->client[i].link && c->client[i].n_slots)
            send_json(&c->client[i], 0,
                      json_pack("{s:s, s:s}", "event", "waiting", "text", c->waiting.text));
}

/* ---- questions that wait for members ---- */

static void ask_later(struct client *cl, uint64_t number, enum question_kind kind, json_t *what)
{
    struct cluster *c = cl->cluster;
    int64_t wait_ms = kind == ASK_TRACE ? TRACE_WAIT_MS : REPORT_WAIT_MS;

    for (int i = 0; i < QUESTIONS_MAX; i++) {
        struct question *q = &c->question[i];

        if (q->client || q->with_planner)
            continue;
        *q = (struct question){.client = cl,
                               .number = number,
                               .kind = kind,
                               .what = what,
                               .until_us = clock_us() + wait_ms * 1000};
        cluster_answer_questions(c, clock_us());
        return;
    }
    json_decref(what);
    send_error(cl, number, ERR_LIMIT, "too many questions at once; ask again");
}

void cluster_ask_members(struct cluster *c)
{
    struct wire_buf buf;
    struct frame_out f;

    wire_empty_encode(FRAME_REPORT_ASK, &buf, &f);
    cluster_report_self(c);
    for (int i = 1; i < c->n_members; i++) {
        struct member *m = &c->member[i];

        if (!m->link)
            continue;
        m->report_due = true;
        link_send(m->link, &f);
    }
}

/* What was measured since last time is taken in on the way. */
static void ask_reports(struct client *cl, uint64_t number, enum question_kind kind, json_t *what)
{
    cluster_measure_begin(cl->cluster, clock_us());
    cluster_ask_members(cl->cluster);
    ask_later(cl, number, kind, what);
}

static void add_own_trace(struct cluster *c)
{
    struct wire_trace_record *r = mem_zalloc(WIRE_TRACE_MAX, sizeof *r);
    int n = worker_trace_take(c->worker, r);

    for (int i = 0; i < n; i++)
        json_array_append_new(c->trace_own, cluster_trace_record(0, &r[i], 0));
    free(r);
}

void cluster_take_trace(struct member *m, const struct wire_trace *t)
{
    struct cluster *c = m->cluster;

    if (t->epoch || (m->n_looks_due && !m->trace_due)) { /* an older device does not say which */
        cluster_timeline_take(m, t);
        return;
    }
    if (!m->trace_due || !c->trace_own)
        return;
    m->trace_due = false;
    for (int i = 0; i < t->n; i++) {
        struct wire_trace_record r;

        wire_trace_get(t->records + (size_t)i * WIRE_TRACE_BYTES, &r);
        json_array_append_new(c->trace_own, cluster_trace_record(m->id, &r, m->offset_us));
    }
    cluster_answer_questions(c, clock_us());
}

static void ask_trace(struct client *cl, uint64_t number, bool on)
{
    struct cluster *c = cl->cluster;
    struct wire_trace_ask ask = {.on = on};
    struct wire_buf buf;
    struct frame_out f;

    wire_trace_ask_encode(&ask, &buf, &f);
    for (int i = 1; i < c->n_members; i++)
        if (c->member[i].link) {
            link_send(c->member[i].link, &f);
            c->member[i].trace_due = !on;
        }
    json_decref(c->trace_own);
    c->trace_own = on ? NULL : json_array();
    if (on) {
        worker_trace(c->worker, true);
        send_json(cl, number, json_object());
        return;
    }
    add_own_trace(c);
    worker_trace(c->worker, false);
    ask_later(cl, number, ASK_TRACE, NULL);
}

static void question_end(struct question *q)
{
    json_decref(q->what);
    q->what = NULL;
    q->client = NULL;
}

static void begin_plan(struct cluster *c, struct question *q)
{
    struct err_text et;
    enum err e;

    if (!q->what) /* it is with the planner already */
        return;
    e = cluster_ask_plan(c, q->what, q, &et);
    if (e) {
        send_error(q->client, q->number, e, et.text);
        question_end(q);
        return;
    }
    q->with_planner = true;
    json_decref(q->what);
    q->what = NULL;
}

void cluster_plan_answer(struct cluster *c, struct planner_job *job)
{
    struct question *q = job->about;
    struct plan_json_opts opts;
    json_t *o;

    q->with_planner = false;
    if (!q->client) /* who asked has gone */
        return;
    if (job->code) {
        send_error(q->client, q->number, job->code, job->text.text);
        question_end(q);
        return;
    }
    opts = (struct plan_json_opts){.note = job->as_told ? "live, as the plan runs" : "live",
                                   .solve_ms = 1e3 * job->took_s};
    o = plan_json(&job->draft->p, c->model, job->report, &opts);
    json_object_set_new(o, "measured", cluster_measured_json(c));
    json_object_set_new(o, "devices_file", plan_devices_json(&job->draft->p, c->model));
    send_json(q->client, q->number, o);
    question_end(q);
}

static void answer(struct cluster *c, struct question *q)
{
    struct client *cl = q->client;
    json_t *names, *o;

    if (q->kind == ASK_PLAN) { /* stays until the planner is done */
        begin_plan(c, q);
        return;
    }
    q->client = NULL;
    if (q->kind == ASK_DEVICES) {
        send_json(cl, q->number, cluster_json(c));
        return;
    }
    names = json_array();
    for (int i = 0; i < c->n_members; i++)
        json_array_append_new(names, json_string(c->member[i].able.name));
    o = json_object();
    json_object_set_new(o, "devices", names);
    json_object_set_new(o, "records", c->trace_own ? c->trace_own : json_array());
    json_object_set_new(o, "predicted_ms", cluster_predicted_json(c));
    c->trace_own = NULL;
    send_json(cl, q->number, o);
}

void cluster_answer_questions(struct cluster *c, int64_t now_us)
{
    bool reports = false, traces = false;

    for (int i = 1; i < c->n_members; i++) {
        reports = reports || (c->member[i].link && c->member[i].report_due);
        traces = traces || (c->member[i].link && c->member[i].trace_due);
    }
    cluster_measure_end(c, now_us, !reports);
    cluster_timeline_go_on(c, now_us);
    for (int i = 0; i < QUESTIONS_MAX; i++) {
        struct question *q = &c->question[i];

        if (q->client && (!(q->kind == ASK_TRACE ? traces : reports) || now_us >= q->until_us))
            answer(c, q);
    }
}

/* ---- questions ---- */

static void do_open(struct client *cl, uint64_t number, const json_t *q)
{
    struct cluster *c = cl->cluster;
    json_int_t n = json_integer_value(json_object_get(q, "slots"));
    struct core_event event = {.kind = CORE_OPEN, .client = client_id(c, cl)};

    if (n < 1 || n > SEGMENT_SLOTS_MAX || cl->n_slots) {
        send_error(cl, number, ERR_INPUT, "\"slots\" must be a number from 1, asked for once");
        return;
    }
    cl->n_slots = event.n = (int)n;
    cl->opening = true;
    cl->open_number = number;
    cluster_feed(c, &event);
    if (*c->waiting.text)
        send_json(cl, 0, json_pack("{s:s, s:s}", "event", "waiting", "text", c->waiting.text));
}

static void do_invite(struct client *cl, uint64_t number)
{
    struct cluster_invitation in;

    cluster_invite(cl->cluster, &in);
    send_json(cl, number,
              json_pack("{s:s, s:s, s:I}", "token", in.token, "address", in.address, "expires_s",
                        (json_int_t)in.expires_s));
    OPENSSL_cleanse(&in, sizeof in);
}

static void do_named(struct client *cl, uint64_t number, const char *what, const json_t *q)
{
    const char *name = json_string_value(json_object_get(q, "name"));
    struct cluster *c = cl->cluster;
    struct err_text et = {{0}};
    enum err e;

    if (!name)
        e = err_set(&et, ERR_INPUT, "\"name\" is missing");
    else if (strcmp(what, "revoke") == 0)
        e = cluster_revoke(c, name, &et);
    else if (strcmp(what, "drain") == 0)
        e = cluster_drain(c, name, &et);
    else
        e = cluster_mine(c, name, json_is_true(json_object_get(q, "on")), &et);
    if (e)
        send_error(cl, number, e, et.text);
    else
        send_json(cl, number, json_pack("{s:s}", "name", name));
}

static void take_question(struct client *cl, uint64_t number, const json_t *q)
{
    const char *what = json_string_value(json_object_get(q, "do"));

    if (!what)
        send_error(cl, number, ERR_INPUT, "\"do\" is missing");
    else if (strcmp(what, "devices") == 0)
        ask_reports(cl, number, ASK_DEVICES, NULL);
    else if (strcmp(what, "plan") == 0)
        ask_reports(cl, number, ASK_PLAN, json_deep_copy(q));
    else if (strcmp(what, "invite") == 0)
        do_invite(cl, number);
    else if (strcmp(what, "open") == 0)
        do_open(cl, number, q);
    else if (strcmp(what, "trace") == 0)
        ask_trace(cl, number, json_is_true(json_object_get(q, "on")));
    else if (strcmp(what, "revoke") == 0 || strcmp(what, "drain") == 0 || strcmp(what, "mine") == 0)
        do_named(cl, number, what, q);
    else
        send_error(cl, number, ERR_UNSUPPORTED, "this head does not know that question");
}

/* ---- frames ---- */

static enum err take_admin(struct client *cl, const struct frame *f, struct err_text *et)
{
    struct wire_admin m;
    json_t *q;
    enum err e = wire_admin_decode(f, &m, et);

    if (e)
        return e;
    q = json_loadb(m.json, m.len, JSON_REJECT_DUPLICATES, NULL);
    if (!json_is_object(q)) {
        json_decref(q);
        return err_set(et, ERR_PROTO, "a question that is no JSON object");
    }
    take_question(cl, m.number, q);
    json_decref(q);
    return ERR_NONE;
}

static enum err take_ask(struct client *cl, const struct frame *f, struct err_text *et)
{
    struct cluster *c = cl->cluster;
    struct core_event event = {.kind = CORE_ASK, .client = client_id(c, cl)};
    struct core_ask ask;
    struct step s;
    enum err e = step_decode(c->codec, f, &s, et);

    if (e)
        return e;
    if (!cl->n_slots || cl->opening)
        return err_set(et, ERR_PROTO, "a step before slots were opened");
    ask = (struct core_ask){.number = s.number,
                            .n_ops = s.n_ops,
                            .ops = s.ops,
                            .n_rows = s.n_rows,
                            .slot = s.slot,
                            .pos = s.pos,
                            .token = s.token,
                            .want = s.want};
    event.ask = &ask;
    cluster_meter_ask(c, &cl->beat, s.n_rows);
    cluster_feed(c, &event);
    return ERR_NONE;
}

static void client_end(struct client *cl)
{
    struct cluster *c = cl->cluster;
    struct core_event event = {.kind = CORE_CLOSE, .client = client_id(c, cl)};
    bool had_slots = cl->n_slots > 0;

    for (int i = 0; i < QUESTIONS_MAX; i++)
        if (c->question[i].client == cl)
            question_end(&c->question[i]);
    cl->beat.home_us = 0;
    cl->link = NULL;
    cl->n_slots = 0;
    cl->opening = false;
    if (had_slots)
        cluster_feed(c, &event);
}

static void on_client_frame(void *user, struct link *link, const struct frame *f)
{
    struct client *cl = user;
    struct err_text et = {{0}};
    enum err e;

    if (f->type == FRAME_ADMIN)
        e = take_admin(cl, f, &et);
    else if (f->type == FRAME_STEP)
        e = take_ask(cl, f, &et);
    else
        e = err_set(&et, ERR_PROTO, "a frame of type %d", f->type);
    if (!e)
        return;
    log_say(&cl->cluster->opts.log, "local", "a program was cut off: %s", et.text);
    client_end(cl);
    link_close(link);
}

static void on_client_closed(void *user, struct link *link, enum err e, const char *why)
{
    (void)link;
    (void)e;
    (void)why;
    client_end(user);
}

static const struct link_calls client_calls = {.frame = on_client_frame,
                                               .closed = on_client_closed};

/* ---- the socket ---- */

static void on_local(evutil_socket_t listener, short what, void *user)
{
    struct cluster *c = user;
    int fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);

    (void)what;
    if (fd < 0) {
        /* Without descriptors the one who waits would wake us again at once: a tick will do. */
        if (errno == EMFILE || errno == ENFILE)
            event_del(c->local_listener);
        return;
    }
    for (int i = 0; i < CORE_CLIENTS_MAX; i++) {
        struct client *cl = &c->client[i];

        if (cl->link)
            continue;
        cl->cluster = c;
        cl->link = hub_adopt_local(c->hub, fd, &client_calls, cl);
        return;
    }
    log_say(&c->opts.log, "local", "too many programs at once; one was turned away");
    close(fd);
}

static enum err bind_socket(struct cluster *c, struct err_text *et)
{
    struct sockaddr_un a = {.sun_family = AF_UNIX};

    if (strlen(c->local_path) >= sizeof a.sun_path)
        return err_set(et, ERR_INPUT,
                       "the path %s is too long for a socket; name a shorter folder with --state",
                       c->local_path);
    memcpy(a.sun_path, c->local_path, strlen(c->local_path));
    c->local_fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (c->local_fd < 0)
        return err_system(et, "make a socket");
    unlink(c->local_path); /* ours: we hold the folder's lock */
    /* The folder lets nobody else in; the mode says it again, before anybody can connect. */
    if (bind(c->local_fd, (const struct sockaddr *)&a, sizeof a) < 0 ||
        chmod(c->local_path, 0600) < 0 || listen(c->local_fd, BACKLOG) < 0)
        return err_system(et, "listen at %s", c->local_path);
    return ERR_NONE;
}

enum err cluster_local_open(struct cluster *c, struct err_text *et)
{
    enum err e;

    c->local_path = mem_printf("%s/head.sock", c->state_folder);
    e = bind_socket(c, et);
    if (e)
        return e;
    c->local_listener = event_new(c->base, c->local_fd, EV_READ | EV_PERSIST, on_local, c);
    CHECK(c->local_listener);
    event_add(c->local_listener, NULL);
    return ERR_NONE;
}

void cluster_local_close(struct cluster *c)
{
    if (c->local_listener) {
        event_free(c->local_listener);
        unlink(c->local_path);
    }
    if (c->local_fd >= 0)
        close(c->local_fd);
    for (int i = 0; i < QUESTIONS_MAX; i++)
        json_decref(c->question[i].what);
    json_decref(c->trace_own);
    free(c->local_path);
}
