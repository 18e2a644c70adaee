/* lingua serve: the head of a cluster, until it is told to stop. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/folder.h"
#include "base/mem.h"
#include "base/words.h"
#include "cli/bars.h"
#include "cli/cmd.h"
#include "cli/loop.h"
#include "cli/member.h"
#include "cli/open.h"
#include "cli/options.h"
#include "cli/qr.h"
#include "cli/say.h"
#include "cli/serve_api.h"
#include "head/cluster.h"
#include "head/remote.h"
#include "plan/place.h"
#include "wire/cluster.h"

enum { SLOTS_DEFAULT = 4 }; /* the cluster's choice when it is not told */

struct serve {
    struct member_options member;
    struct open_options open;
    struct serve_api api;
    int64_t slots, token_life, concurrency;
    bool want_private, no_announce, equal;
    const char *use, *without;
    const char *model;
    char *model_path, *state_folder;

    struct loop loop;
    struct cluster *cluster;
    struct event *refresh;
    struct bars bars;
    struct member_log log;
    struct progress hashing;
    bool cancelled;
    char token[TOKEN_TEXT_MAX], address[WIRE_TEXT_MAX]; /* to show once it is open */
    char *state_shown;                                  /* what was said last of the whole */
};

static const char usage[] = "serve [MODEL] [OPTIONS]";
static const char about[] =
    "Makes this device the head of a cluster: it owns the model and the conversation, is itself "
    "one\n"
    "of the devices, and answers alone until others have joined. It shows a token with which one\n"
    "other device can join (lingua join there), and a fresh one once that is used. A device "
    "fetches\n"
    "the part of the model it is to hold, and nothing else. lingua run --cluster uses the "
    "cluster,\n"
    "lingua devices shows it. Ctrl-C ends it.";

/* Wishes that contradict each other; -1: none do. */
static int wishes_check(const struct serve *s)
{
    const char *list = s->use, *name, *by_hand;
    size_t n;

    by_hand = s->use ? "--use" : s->without ? "--without" : s->equal ? "--equal" : NULL;
    if (s->open.split && by_hand) {
        say("serve: --split says already what goes where; leave out %s", by_hand);
        return STATUS_USAGE;
    }
    if (s->slots && s->concurrency > s->slots) {
        say("serve: %lld answers at once (--concurrency) need as many slots: --slots %lld",
            (long long)s->concurrency, (long long)s->concurrency);
        return STATUS_USAGE;
    }
    if (list_has(s->without, s->member.name)) {
        say("serve: %s is this device, the head, which has the model: it cannot be left out",
            s->member.name);
        return STATUS_USAGE;
    }
    while ((name = list_next(&list, &n))) {
        char *text = mem_printf("%.*s", (int)n, name);
        bool both = list_has(s->without, text);

        if (both)
            say("serve: --use and --without both name \"%s\"", text);
        free(text);
        if (both)
            return STATUS_USAGE;
    }
    return -1;
}

static int parse(struct serve *s, int argc, char **argv)
{
    const struct option_spec own[] = {
        OPTION_NAME(&s->member),
        OPTION_LISTEN(&s->member, "where devices reach it (default: every address, port 7333)"),
        OPTION_MEMORY(&s->member),
        OPTION_CORES(&s->member),
        OPTION_CAP(&s->member),
        OPTION_SPARE(&s->member),
        OPTION_CTX(&s->open, "positions of context (default: as trained, at most 4096)"),
        OPTION_KV(&s->open),
        {"slots", 0, OPTION_WHOLE, &s->slots, 1, 256, NULL, "N",
         "conversations kept at once (default: 4, or as many as\nanswers at once)"},
        {"split", 0, OPTION_TEXT, &s->open.split, 0, 0, NULL, "N|RANGES",
         "place by hand: over N devices, or explicit module ranges, one\nper device, as lingua run "
         "--split takes them"},
        {"concurrency", 0, OPTION_WHOLE, &s->concurrency, 1, PLACE_CONCURRENCY_MAX, NULL, "N",
         "plan for N answers at once (default: 1, the quickest answer)"},
        {"use", 0, OPTION_TEXT, &s->use, 0, 0, NULL, "NAMES",
         "these devices take part even where they slow the rest"},
        {"without", 0, OPTION_TEXT, &s->without, 0, 0, NULL, "NAMES", "these do not"},
        {"equal", 0, OPTION_FLAG, &s->equal, 0, 0, NULL, NULL,
         "equal parts for all devices, to compare the plan with"},
        {"private", 0, OPTION_FLAG, &s->want_private, 0, 0, NULL, NULL,
         "text, first and last layers only on devices marked as mine\n(lingua devices mine NAME)"},
        {"no-announce", 0, OPTION_FLAG, &s->no_announce, 0, 0, NULL, NULL,
         "do not tell the local network; devices name the address"},
        {"token-life", 0, OPTION_WHOLE, &s->token_life, 1, 60 * 24 * 7, NULL, "MIN",
         "minutes in which a token can be used (default: 15)"},
        OPTION_STATE(&s->member.state),
        OPTION_VERBOSE(&s->member),
    };
    struct option_spec options[ARRAY_LEN(own) + SERVE_API_OPTIONS];
    const struct command_spec spec = {usage, about, options, ARRAY_LEN(options), 1};
    const char *args[ARGS_MAX];
    int n_args, status, keys;

    s->api = SERVE_API_DEFAULT;
    memcpy(options, own, sizeof own);
    serve_api_options(&s->api, options + ARRAY_LEN(own));
    status = options_parse(&spec, argc, argv, args, &n_args);
    keys = serve_api_settle(&s->api); /* also when there is nothing to serve: it wipes */
    if (status < 0)
        status = keys;
    if (status >= 0)
        return status;
    s->model = n_args ? args[0] : NULL;
    status = member_settle("serve", &s->member);
    if (status < 0)
        status = wishes_check(s);
    if (s->concurrency > SLOTS_DEFAULT && !s->slots)
        s->slots = s->concurrency;
    return status;
}

/* ---- what it tells ---- */

static bool on_hashing(void *user, uint64_t done, uint64_t total)
{
    struct serve *s = user;

    progress_show(&s->hashing, done, total);
    s->cancelled = loop_is_told(&s->loop);
    return !s->cancelled;
}

static void token_show(struct serve *s)
{
    if (!*s->token)
        return;
    bars_say(&s->bars, "devices join with: lingua join%s%s", *s->address ? " " : "", s->address);
    say("token: %s", s->token);
    qr_invite(s->token, s->address);
    explicit_bzero(s->token, sizeof s->token);
}

static void on_invited(void *user, const char *token, const char *address)
{
    struct serve *s = user;

    snprintf(s->token, sizeof s->token, "%s", token);
    snprintf(s->address, sizeof s->address, "%s", address);
    if (s->cluster)
        token_show(s);
}

/* "kitchen embed..attn.1, pi ffn.1..attn.4": who holds what. */
static char *parts_text(const json_t *devices)
{
    char *text = mem_strdup(""), *longer;

    for (size_t i = 0; i < json_array_size(devices); i++) {
        const json_t *d = json_array_get(devices, i);

        if (!*remote_text(d, "modules"))
            continue;
        longer = mem_printf("%s%s%s %s", text, *text ? ", " : "", remote_text(d, "name"),
                            remote_text(d, "modules"));
        free(text);
        text = longer;
    }
    return text;
}

/* "; slug is left out", or nothing. */
static char *left_out_text(const json_t *all)
{
    const json_t *left = json_object_get(json_object_get(all, "plan"), "left_out");
    char *text = mem_strdup(""), *longer;

    for (size_t i = 0; i < json_array_size(left); i++) {
        longer =
            mem_printf("%s%s%s", text,
                       i ? ", " : "; left out: ", remote_text(json_array_get(left, i), "name"));
        free(text);
        text = longer;
    }
    return text;
}

/* What the plan promises, and what those it leaves out would cost. */
static void plan_say(struct serve *s, const json_t *all)
{
    const json_t *plan = json_object_get(all, "plan");
    const json_t *left = json_object_get(plan, "left_out");
    double ms = json_number_value(json_object_get(plan, "ms_per_token"));
    double per_s = json_number_value(json_object_get(plan, "tokens_per_s"));
    unsigned n = (unsigned)remote_number(plan, "concurrency");

    if (!json_is_object(plan))
        return;
    if (n > 1)
        bars_say(&s->bars,
                 "predicted: %.1f tokens/s for %u answers at once (%.1f ms per token "
                 "for one alone); %s",
                 per_s, n, ms, remote_text(plan, "limit"));
    else
        bars_say(&s->bars, "predicted: %.1f ms per token, %.1f tokens/s; %s", ms, per_s,
                 remote_text(plan, "limit"));
    for (size_t i = 0; i < json_array_size(left); i++) {
        const json_t *d = json_array_get(left, i);
        const char *name = remote_text(d, "name");
        bool can = json_number_value(json_object_get(d, "tokens_per_s_with_it")) > 0 &&
                   !list_has(s->without, name);

        bars_say(&s->bars, "%s is left out: %s", name, remote_text(d, "why"));
        if (can)
            bars_say(&s->bars, "  lingua serve --use %s forces it",
                     word_is_plain(name) ? name : "with its name");
    }
}

/* What the whole does, said when it changes. */
static void state_say(struct serve *s, const json_t *all)
{
    const char *state = remote_text(all, "state"), *waits = remote_text(all, "waiting_for");
    char *parts = parts_text(json_object_get(all, "devices")), *out = left_out_text(all), *now;

    /* Of fetching and loading the bars tell more. */
    if (strcmp(state, "running") == 0)
        now = mem_printf("ready: %s%s", parts, out);
    else if (strcmp(state, "waiting") == 0 && *waits)
        now = mem_printf("waiting: %s", waits);
    else
        now = mem_strdup("");
    free(parts);
    free(out);
    if (s->state_shown && strcmp(now, s->state_shown) == 0) {
        free(now);
        return;
    }
    if (*now)
        bars_say(&s->bars, "%s", now);
    if (strcmp(state, "running") == 0)
        plan_say(s, all);
    free(s->state_shown);
    s->state_shown = now;
}

static void refresh_later(struct serve *s, int ms)
{
    if (!evtimer_pending(s->refresh, NULL))
        event_add(s->refresh, &(struct timeval){ms / 1000, ms % 1000 * 1000});
}

static void on_refresh(evutil_socket_t fd, short what, void *user)
{
    struct serve *s = user;
    json_t *all = cluster_json(s->cluster);
    const json_t *devices = json_object_get(all, "devices");
    bool moving = false;

    (void)fd;
    (void)what;
    state_say(s, all);
    bars_begin(&s->bars);
    for (size_t i = 0; i < json_array_size(devices); i++) {
        const json_t *d = json_array_get(devices, i);
        const char *state = remote_text(d, "state");
        bool fetches = strcmp(state, "fetching") == 0;

        if ((!fetches && strcmp(state, "loading") != 0) || !remote_number(d, "total"))
            continue;
        bars_set(&s->bars, remote_text(d, "name"), fetches ? "fetching" : "loading",
                 remote_number(d, "done"), remote_number(d, "total"));
        moving = true;
    }
    bars_end(&s->bars);
    json_decref(all);
    if (moving)
        refresh_later(s, 500);
}

/* Called from inside the cluster, which we must not ask back; and several changes are one. */
static void on_changed(void *user)
{
    struct serve *s = user;

    if (s->cluster)
        refresh_later(s, 100);
}

/* A wish for a device that nobody knows may be one for tomorrow, or a slip of the pen. */
static void strangers_say(const json_t *devices, const char *list)
{
    size_t n;

    for (const char *name; (name = list_next(&list, &n));) {
        bool known = false;

        for (size_t i = 0; i < json_array_size(devices); i++) {
            const char *is = remote_text(json_array_get(devices, i), "name");

            known = known || (strlen(is) == n && memcmp(is, name, n) == 0);
        }
        if (!known)
            say("no device called \"%.*s\" has joined yet; what is wished for it holds once one "
                "has",
                (int)n, name);
    }
}

static void opened_say(const struct serve *s)
{
    json_t *all = cluster_json(s->cluster);
    const json_t *m = json_object_get(all, "model");
    char buf[NUM_MAX];

    say("%s, %s %s, %s in %llu modules", remote_text(m, "name"), remote_text(m, "arch"),
        remote_text(m, "quantisation"), num_bytes(buf, remote_number(m, "weight_bytes")),
        (unsigned long long)remote_number(m, "n_modules"));
    say("this device is %s, reached at %s, with %lld thread%s", remote_text(all, "head"),
        remote_text(all, "address"), (long long)s->member.threads,
        s->member.threads == 1 ? "" : "s");
    strangers_say(json_object_get(all, "devices"), s->use);
    strangers_say(json_object_get(all, "devices"), s->without);
    json_decref(all);
}

/* ---- its life ---- */

static int cluster_begin(struct serve *s)
{
    static const enum kv_type kinds[] = {KV_F16, KV_Q8_0, KV_F32};
    struct cluster_opts opts = {.model_path = s->model_path,
                                .state_folder = s->state_folder,
                                .name = s->member.name,
                                .alias = s->api.alias,
                                .listen = s->member.listen,
                                .n_threads = (int)s->member.threads,
                                .memory_bytes = s->member.memory,
                                .n_slots = (int)s->slots,
                                .n_ctx = (int)s->open.ctx,
                                .kv = kinds[s->open.kv],
                                .want_private = s->want_private,
                                .cap = (int)s->member.cap,
                                .spare = s->member.spare,
                                .split = s->open.split,
                                .concurrency = (int)s->concurrency,
                                .equal = s->equal,
                                .use = s->use,
                                .without = s->without,
                                .announce = !s->no_announce,
                                .api = !s->api.none,
                                .n_queue_max = (int)s->api.queue,
                                .token_life_s = (int)s->token_life * 60,
                                .log = member_log(&s->log),
                                .hashing = on_hashing,
                                .invited = on_invited,
                                .changed = on_changed,
                                .user = s};
    struct err_text et;
    enum err e;

    progress_begin(&s->hashing, "reading the model");
    e = cluster_open(s->loop.base, &opts, &s->cluster, &et);
    progress_end(&s->hashing);
    if (e && s->cancelled)
        return STATUS_INTERRUPTED;
    if (!e)
        return -1;
    say("%s", et.text);
    return STATUS_FAILED;
}

static int live(struct serve *s)
{
    int status;

    loop_init(&s->loop);
    s->refresh = evtimer_new(s->loop.base, on_refresh, s);
    status = cluster_begin(s);
    if (status < 0) {
        opened_say(s);
        status = serve_api_open(&s->api, s->loop.base, s->cluster, member_log(&s->log));
        if (status < 0) {
            token_show(s);
            refresh_later(s, 0);
            loop_run(&s->loop);
            bars_wipe(&s->bars);
            status = STATUS_OK;
        }
        serve_api_close(&s->api);
        cluster_close(s->cluster);
        if (status == STATUS_OK)
            say("stopped");
    }
    event_free(s->refresh);
    loop_fini(&s->loop);
    return status;
}

int cmd_serve(int argc, char **argv)
{
    struct serve s = {0};
    struct err_text et;
    int status = parse(&s, argc, argv);

    s.log = (struct member_log){&s.bars, s.member.verbose};
    if (status < 0 && folder_state(s.member.state, &s.state_folder, &et)) {
        say("serve: %s", et.text);
        status = STATUS_FAILED;
    }
    if (status < 0 && model_path_find(s.model, &s.model_path))
        status = STATUS_FAILED;
    if (status < 0) {
        member_threads(&s.member, s.state_folder);
        status = live(&s);
    }
    serve_api_close(&s.api);
    explicit_bzero(s.token, sizeof s.token);
    free(s.state_shown);
    free(s.model_path);
    free(s.state_folder);
    return status;
}
