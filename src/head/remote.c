/* The head answers steps in order, so a step whose rows nobody wants need not be waited for: its
 * answer is taken when the next one is. A failure among them is told then, once, as in chain.h. */
#define _GNU_SOURCE
#include "head/remote.h"

#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/check.h"
#include "base/folder.h"
#include "base/mem.h"
#include "device/conn.h"
#include "wire/cluster.h"
#include "wire/step.h"

enum {
    WATCH_MS = 50,
    AHEAD_MAX = 8, /* steps under way that nobody waits for */
};

struct ahead {
    uint64_t number;
    int n_want;
    uint8_t touched[SEGMENT_SLOTS_MAX / 8];
};

struct remote {
    struct conn conn;
    struct step_codec *codec;
    uint64_t asked;    /* number of the last question */
    uint64_t answered; /* of the last answer, which is in `answer` */
    json_t *answer;

    char *path;
    struct remote_info info;
    int slot_len[SEGMENT_SLOTS_MAX]; /* as it will be after all that was sent */
    bool stale;                      /* slots were emptied, and nobody has been told */
    int n_ops;
    struct slot_op ops[WIRE_OPS_MAX];

    uint64_t sent, home; /* numbers of steps */
    int n_ahead;
    struct ahead ahead[AHEAD_MAX];
    struct tensors logits; /* of the last result */
    enum err failed;
    struct err_text failed_text;

    void (*waiting)(void *user, const char *text);
    void *user;
    const atomic_int *watch;
};

enum err remote_open(const char *state_folder, struct remote **out, struct err_text *et)
{
    struct sockaddr_un a = {.sun_family = AF_UNIX};
    struct remote *r;
    char *folder, *path;
    enum err e = folder_state(state_folder, &folder, et);
    int fd;

    *out = NULL;
    if (e)
        return e;
    path = mem_printf("%s/head.sock", folder);
    if (strlen(path) >= sizeof a.sun_path) {
        e = err_set(et, ERR_INPUT, "the path %s is too long for a socket", path);
        goto out;
    }
    memcpy(a.sun_path, path, strlen(path));
    fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0) {
        e = err_system(et, "make a socket");
        goto out;
    }
    if (connect(fd, (const struct sockaddr *)&a, sizeof a) < 0) {
        if (errno == ENOENT || errno == ECONNREFUSED)
            e = err_set(et, ERR_GONE,
                        "no head runs with the state folder %s: start one with `lingua serve`, or "
                        "name its folder with --state",
                        folder);
        else
            e = err_system(et, "connect to %s", path);
        close(fd);
        goto out;
    }
    r = mem_zalloc(1, sizeof *r);
    conn_init(&r->conn, fd);
    r->codec = step_codec_new();
    *out = r;
out:
    free(path);
    free(folder);
    return e;
}

void remote_close(struct remote *r)
{
    if (!r)
        return;
    conn_fini(&r->conn);
    step_codec_free(r->codec);
    json_decref(r->answer);
    free(r->path);
    free(r);
}

/* ---- frames from the head ---- */

static enum err head_gone(struct err_text *et)
{
    return err_set(et, ERR_GONE, "the head has ended; start it again with `lingua serve`");
}

static void slots_emptied(struct remote *r)
{
    memset(r->slot_len, 0, sizeof r->slot_len);
    r->n_ops = 0;
    r->stale = true;
}

static void take_event(struct remote *r, const json_t *o)
{
    const char *event = json_string_value(json_object_get(o, "event"));
    const char *text = json_string_value(json_object_get(o, "text"));

    if (event && strcmp(event, "stale") == 0)
        slots_emptied(r);
    else if (event && strcmp(event, "waiting") == 0 && text && r->waiting)
        r->waiting(r->user, text);
}

static enum err take_admin(struct remote *r, const struct frame *f, struct err_text *et)
{
    struct wire_admin m;
    json_t *o;
    enum err e = wire_admin_decode(f, &m, et);

    if (e)
        return e;
    o = json_loadb(m.json, m.len, 0, NULL);
    if (!o)
        return err_set(et, ERR_PROTO, "the head's answer is no JSON");
    if (m.number == 0) {
        take_event(r, o);
        json_decref(o);
        return ERR_NONE;
    }
    json_decref(r->answer);
    r->answer = o;
    r->answered = m.number;
    return ERR_NONE;
}

static void forget_touched(struct remote *r, const struct ahead *a)
{
    for (int slot = 0; slot < SEGMENT_SLOTS_MAX; slot++)
        if (a->touched[slot / 8] & 1u << slot % 8)
            r->slot_len[slot] = 0;
}

static enum err take_result(struct remote *r, const struct frame *f, struct err_text *et)
{
    struct result res;
    enum err e = result_decode(r->codec, f, &res, et);

    if (e)
        return e;
    if (r->n_ahead == 0 || res.number != r->ahead[0].number)
        return err_set(et, ERR_PROTO, "the head answered step %llu, which was not its turn",
                       (unsigned long long)res.number);
    /* The rows may have been made by a lent device; who wants them reads so many. */
    if (!res.code && r->ahead[0].n_want && res.n_rows != r->ahead[0].n_want)
        res.code = err_set(&res.reason, ERR_PROTO, "%d rows came back where %d were wanted",
                           res.n_rows, r->ahead[0].n_want);
    if (res.code) {
        forget_touched(r, &r->ahead[0]);
        if (!r->failed) {
            r->failed = res.code;
            r->failed_text = res.reason;
        }
    }
    memmove(r->ahead, r->ahead + 1, (size_t)--r->n_ahead * sizeof r->ahead[0]);
    r->home = res.number;
    r->logits = (struct tensors){.n = 1, .n_rows = res.n_rows, .width = {res.width}};
    r->logits.data[0] = res.logits;
    return ERR_NONE;
}

/* One frame; waits for it when wait is set, else returns when none is there. Logits of a result
 * stay where they are until the next call. */
static enum err take_frame(struct remote *r, bool wait, bool *have, struct err_text *et)
{
    struct frame f;

    for (;;) {
        struct pollfd p = {r->conn.fd, conn_events(&r->conn), 0};
        enum err e = conn_next(&r->conn, &f, have, et);

        if (e || *have)
            return e                       ? e
                   : f.type == FRAME_ADMIN ? take_admin(r, &f, et)
                   : f.type == FRAME_RESULT
                       ? take_result(r, &f, et)
                       : err_set(et, ERR_PROTO, "the head sent a frame of type %d", f.type);
        if (r->conn.ended)
            return head_gone(et);
        if (wait && r->watch && atomic_load(r->watch))
            return err_set(et, ERR_CANCELLED, "cancelled");
        if (poll(&p, 1, !wait ? 0 : r->watch ? WATCH_MS : -1) < 0 && errno != EINTR)
            return err_system(et, "wait for the head");
        if (p.revents & POLLOUT)
            conn_flush(&r->conn);
        if (p.revents & (POLLIN | POLLHUP | POLLERR))
            conn_read(&r->conn);
        else if (!wait)
            return ERR_NONE;
    }
}

/* ---- questions ---- */

static enum err answer_error(const json_t *answer, struct err_text *et)
{
    const json_t *error = json_object_get(answer, "error");
    const char *message = json_string_value(json_object_get(error, "message"));
    int known;
    enum err e;

    if (!error)
        return ERR_NONE;
    e = wire_code_back((uint32_t)json_integer_value(json_object_get(error, "code")), &known);
    return err_set(et, e ? e : ERR_PROTO, "%s", message ? message : "the head refused");
}

void remote_ask_begin(struct remote *r, json_t *question)
{
    char *text = json_dumps(question, JSON_COMPACT);
    struct wire_admin m = {.number = ++r->asked, .json = text};
    struct wire_buf buf;
    struct frame_out f;

    json_decref(question);
    CHECK(text);
    m.len = strlen(text);
    wire_admin_encode(&m, &buf, &f);
    conn_send(&r->conn, &f);
    free(text);
}

/* The answer to the last question is there. */
static enum err give_answer(struct remote *r, json_t **answer, struct err_text *et)
{
    enum err e = answer_error(r->answer, et);

    if (e)
        return e;
    *answer = r->answer;
    r->answer = NULL;
    return ERR_NONE;
}

enum err remote_ask(struct remote *r, json_t *question, json_t **answer, struct err_text *et)
{
    enum err e = ERR_NONE;
    bool have;

    *answer = NULL;
    remote_ask_begin(r, question);
    while (!e && r->answered != r->asked)
        e = take_frame(r, true, &have, et);
    return e ? e : give_answer(r, answer, et);
}

enum err remote_ask_look(struct remote *r, json_t **answer, struct err_text *et)
{
    enum err e = ERR_NONE;
    bool have = true;

    *answer = NULL;
    while (!e && have && r->answered != r->asked)
        e = take_frame(r, false, &have, et);
    return e || r->answered != r->asked ? e : give_answer(r, answer, et);
}

int remote_fd(const struct remote *r)
{
    return r->conn.fd;
}

short remote_events(const struct remote *r)
{
    return conn_events(&r->conn);
}

const char *remote_text(const json_t *o, const char *key)
{
    const char *text = json_string_value(json_object_get(o, key));

    return text ? text : "";
}

uint64_t remote_number(const json_t *o, const char *key)
{
    json_int_t n = json_integer_value(json_object_get(o, key));

    return n > 0 ? (uint64_t)n : 0;
}

enum err remote_slots(struct remote *r, int n_slots, struct remote_info *info, struct err_text *et)
{
    json_t *answer;
    const char *path;
    enum err e =
        remote_ask(r, json_pack("{s:s, s:i}", "do", "open", "slots", n_slots), &answer, et);

    if (e)
        return e;
    path = json_string_value(json_object_get(answer, "path"));
    if (path)
        r->path = mem_strdup(path);
    r->info = (struct remote_info){
        .path = r->path,
        .n_ctx = (int)json_integer_value(json_object_get(answer, "n_ctx")),
        .n_rows_max = (int)json_integer_value(json_object_get(answer, "n_rows_max")),
        .n_slots = n_slots,
        .kv = (int)json_integer_value(json_object_get(answer, "kv")),
    };
    json_decref(answer);
    if (!path || r->info.n_ctx < 1 || r->info.n_rows_max < 1 ||
        r->info.n_rows_max > SEGMENT_ROWS_MAX || n_slots > SEGMENT_SLOTS_MAX)
        return err_set(et, ERR_PROTO, "the head's answer makes no sense");
    *info = r->info;
    return ERR_NONE;
}

void remote_on_waiting(struct remote *r, void (*waiting)(void *user, const char *text), void *user)
{
    r->waiting = waiting;
    r->user = user;
}

void remote_watch(struct remote *r, const atomic_int *flag)
{
    r->watch = flag;
}

/* ---- steps ---- */

static void touch(struct ahead *a, int slot)
{
    a->touched[slot / 8] |= (uint8_t)(1u << slot % 8);
}

/* Waits until at most n steps are under way. */
static enum err settle(struct remote *r, int n, struct err_text *et)
{
    enum err e = ERR_NONE;
    bool have;

    while (!e && r->n_ahead > n)
        e = take_frame(r, true, &have, et);
    return e;
}

/* The first failure nobody has heard of. The steps sent after it have failed as well; their answers
 * are taken first, so that it is told once. */
static enum err tell_failure(struct remote *r, bool *stale, struct err_text *et)
{
    enum err e = r->failed ? settle(r, 0, et) : ERR_NONE;

    if (e)
        return e;
    e = r->failed;
    r->failed = ERR_NONE;
    *stale = r->stale && (!e || e == ERR_CANCELLED);
    r->stale = false;
    if (*stale)
        return err_set(et, ERR_CANCELLED, "a device came or left; reading again");
    return e ? err_set(et, e, "%s", r->failed_text.text) : ERR_NONE;
}

static enum err send_batch(struct remote *r, const struct batch *b, int *n_want,
                           struct err_text *et)
{
    struct step s = {.number = ++r->sent,
                     .epoch = 1,
                     .n_ops = r->n_ops,
                     .ops = r->ops,
                     .n_rows = b->n_rows,
                     .slot = b->slot,
                     .pos = b->pos,
                     .token = b->token,
                     .want = b->want};
    struct ahead *a = &r->ahead[r->n_ahead];
    struct frame_out f;

    CHECK(r->n_ahead < AHEAD_MAX);
    memset(a, 0, sizeof *a);
    a->number = s.number;
    for (int i = 0; i < b->n_rows; i++) {
        if (b->slot[i] < 0 || b->slot[i] >= r->info.n_slots)
            return err_set(et, ERR_INPUT, "there is no slot %d", b->slot[i]);
        touch(a, b->slot[i]);
        s.n_want += b->want[i] != 0;
    }
    a->n_want = s.n_want;
    for (int i = 0; i < b->n_rows; i++)
        r->slot_len[b->slot[i]] = b->pos[i] + 1;
    step_encode(r->codec, &s, &f);
    conn_send(&r->conn, &f);
    r->n_ahead++;
    r->n_ops = 0;
    *n_want = s.n_want;
    return ERR_NONE;
}

enum err remote_run(struct remote *r, const struct batch *b, struct tensors *logits, bool *stale,
                    struct err_text *et)
{
    int n_want = 0;
    bool have = true;
    enum err e = ERR_NONE;

    *stale = false;
    *logits = (struct tensors){.n = 1};
    while (!e && have) /* what came in the meantime */
        e = take_frame(r, false, &have, et);
    if (!e)
        e = settle(r, AHEAD_MAX - 1, et);
    if (!e)
        e = tell_failure(r, stale, et);
    if (!e)
        e = send_batch(r, b, &n_want, et);
    if (e)
        return e;
    if (!n_want)
        return ERR_NONE;
    e = settle(r, 0, et);
    if (!e)
        e = tell_failure(r, stale, et);
    if (!e)
        *logits = r->logits;
    return e;
}

enum err remote_slot_truncate(struct remote *r, int slot, int len, struct err_text *et)
{
    if (slot < 0 || slot >= r->info.n_slots || len < 0 || len > r->slot_len[slot])
        return err_set(et, ERR_INPUT, "slot %d cannot be cut to %d positions", slot, len);
    for (int i = 0; i < r->n_ops; i++) /* a shorter one takes the place of a longer */
        if (r->ops[i].slot == slot) {
            r->ops[i].len = len;
            r->slot_len[slot] = len;
            return ERR_NONE;
        }
    CHECK(r->n_ops < WIRE_OPS_MAX); /* one per slot */
    r->ops[r->n_ops++] = (struct slot_op){SLOT_OP_TRUNCATE, slot, 0, len};
    r->slot_len[slot] = len;
    return ERR_NONE;
}

int remote_slot_len(const struct remote *r, int slot)
{
    return r->slot_len[slot];
}
