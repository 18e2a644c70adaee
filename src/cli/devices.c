/* lingua devices: looks at a running head and changes who belongs to it, by the socket in its state
 * folder (head/remote.h). Tables for people and --json are of the same answers. */
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "base/words.h"
#include "cli/cmd.h"
#include "cli/member.h"
#include "cli/open.h"
#include "cli/options.h"
#include "cli/qr.h"
#include "cli/say.h"
#include "cli/table.h"
#include "head/remote.h"
#include "wire/cluster.h"

struct devices {
    const char *state;
    bool json, off;
    const char *name; /* as typed; then as the head knows it */
    struct remote *remote;
    json_t *all; /* the answer to "devices" */
};

static const char usage[] =
    "devices [list | show NAME | invite | mine NAME [--off] | drain NAME | revoke NAME]";
static const char about[] =
    "Shows the devices of the cluster whose head (lingua serve) runs on this machine, and changes\n"
    "them:\n"
    "  list           all of them (the default)\n"
    "  show NAME      everything about one\n"
    "  invite         prints a token with which one more device can join\n"
    "  mine NAME      this device is yours: lingua serve --private may show it text; --off: it is "
    "not\n"
    "  drain NAME     leaves it out of the work until it joins anew\n"
    "  revoke NAME    throws it out, at once and for good: only a new token lets it in again";

/* ---- the answers, taken apart ---- */

static double number_of(const json_t *o, const char *key)
{
    double v = json_number_value(json_object_get(o, key));

    return v > 0 ? v : 0;
}

static const char *bytes_of(const json_t *o, const char *key, char buf[NUM_MAX])
{
    return num_bytes(buf, (uint64_t)number_of(o, key));
}

static bool is(const json_t *o, const char *key)
{
    return json_is_true(json_object_get(o, key));
}

static bool is_here(const json_t *d)
{
    return strcmp(remote_text(d, "state"), "offline") != 0 &&
           strcmp(remote_text(d, "state"), "lost") != 0;
}

static int ask(struct devices *v, json_t *question, json_t **answer)
{
    struct err_text et;

    if (!remote_ask(v->remote, question, answer, &et))
        return -1;
    say("devices: %s", et.text);
    return STATUS_FAILED;
}

static json_t *device_named(const struct devices *v, const char *name)
{
    const json_t *list = json_object_get(v->all, "devices");

    for (size_t i = 0; i < json_array_size(list); i++)
        if (strcmp(remote_text(json_array_get(list, i), "name"), name) == 0)
            return json_array_get(list, i);
    return NULL;
}

/* Whether there is a device of v->name. Names are long to type: what is near is named. */
static int name_check(const struct devices *v)
{
    const json_t *list = json_object_get(v->all, "devices");
    const char *names[WIRE_MEMBERS_MAX], *near;
    int n = 0;

    if (device_named(v, v->name))
        return -1;
    for (size_t i = 0; i < json_array_size(list) && n < WIRE_MEMBERS_MAX; i++)
        names[n++] = remote_text(json_array_get(list, i), "name");
    near = nearest_word(v->name, names, n);
    if (near)
        say("devices: no device is called \"%s\"; did you mean \"%s\"?", v->name, near);
    else
        say("devices: no device is called \"%s\"; lingua devices lists them", v->name);
    return STATUS_FAILED;
}

/* ---- list ---- */

/* How what it makes gets to the next device. */
static const char *via_of(const json_t *d)
{
    const json_t *hops = json_object_get(d, "hops");
    bool direct = false, relayed = false;

    for (size_t i = 0; i < json_array_size(hops); i++) {
        bool head = strcmp(remote_text(json_array_get(hops, i), "via"), "head") == 0;

        relayed |= head;
        direct |= !head;
    }
    return relayed && direct ? "direct, head" : relayed ? "head" : direct ? "direct" : "-";
}

/* What the state does not say by itself. */
static const char *drained_text(const json_t *d)
{
    return is(d, "drained") && strcmp(remote_text(d, "state"), "draining") != 0 ? ", drained" : "";
}

static void state_cell(struct table *t, int column, const json_t *d)
{
    double total = number_of(d, "total"), done = number_of(d, "done");
    const char *state = remote_text(d, "state");
    bool moving = strcmp(state, "fetching") == 0 || strcmp(state, "loading") == 0;

    if (moving && total > 0)
        table_cell(t, column, "%s %.0f %%", state, 100 * done / total);
    else
        table_cell(t, column, "%s%s", state, drained_text(d));
}

static void device_row(struct table *t, const json_t *d)
{
    char a[NUM_MAX], b[NUM_MAX];
    double decode = number_of(d, "decode_ms"), rtt = number_of(d, "rtt_ms");
    double predicted = number_of(d, "predicted_ms");

    table_row(t);
    table_cell(t, 0, "%s%s%s", remote_text(d, "name"), is(d, "head") ? " (head)" : "",
               is(d, "mine") && !is(d, "head") ? " (mine)" : "");
    state_cell(t, 1, d);
    table_cell(t, 2, "%s", *remote_text(d, "modules") ? remote_text(d, "modules") : "-");
    if (number_of(d, "memory_bytes") > 0)
        table_cell(t, 3, "%s of %s", bytes_of(d, "resident_bytes", a),
                   bytes_of(d, "memory_bytes", b));
    else
        table_cell(t, 3, "-");
    table_cell(t, 4, predicted > 0 ? "%.2f" : "-", predicted);
    table_cell(t, 5, decode > 0 ? "%.2f" : "-", decode);
    table_cell(t, 6, rtt > 0 && is_here(d) ? "%.1f ms" : "-", rtt);
    table_cell(t, 7, "%s", via_of(d));
}

/* What to do next, from what is seen. */
static void hints_say(const struct devices *v)
{
    const json_t *list = json_object_get(v->all, "devices");
    const char *state = remote_text(v->all, "state"), *waits = remote_text(v->all, "waiting_for");
    bool relayed = false;

    if (*waits)
        say("%s: %s", state, waits);
    for (size_t i = 0; i < json_array_size(list); i++) {
        const json_t *d = json_array_get(list, i);

        if (*remote_text(d, "trouble"))
            say("%s: %s", remote_text(d, "name"), remote_text(d, "trouble"));
        else if (!is_here(d))
            say("%s is not here: lingua join on it brings it back, lingua devices revoke \"%s\" "
                "forgets it",
                remote_text(d, "name"), remote_text(d, "name"));
        relayed |= strstr(via_of(d), "head") != NULL;
    }
    if (relayed)
        say("via head: these devices cannot reach each other, so the head passes their work on, "
            "which costs time; a port open between them (join --listen) mends it");
    if (json_array_size(list) < 2)
        say("alone so far; lingua devices invite shows how another device joins");
}

/* What the plan promised, and what came of it. */
static void plan_print(const struct devices *v)
{
    const json_t *plan = json_object_get(v->all, "plan");
    const json_t *got = json_object_get(v->all, "measured");

    if (json_is_object(plan))
        printf("predicted: %.3g ms per token for one alone, %.3g tokens/s for %.0f at once\n",
               number_of(plan, "ms_per_token"), number_of(plan, "tokens_per_s"),
               number_of(plan, "concurrency"));
    if (json_is_object(got))
        printf("measured: %.3g ms per token, %.3g tokens/s over %.0f tokens with %.0f at once; "
               "lingua plan --measured has the parts\n",
               number_of(got, "ms_per_token"), number_of(got, "tokens_per_s"),
               number_of(got, "tokens"), number_of(got, "streams"));
}

static int list(struct devices *v)
{
    static const struct table_column columns[] = {
        {"device", false},   {"state", false},   {"modules", false}, {"memory", true},
        {"predicted", true}, {"ms/token", true}, {"rtt", true},      {"via", false},
    };
    const json_t *model = json_object_get(v->all, "model");
    const json_t *devices = json_object_get(v->all, "devices");
    struct table t;
    char buf[NUM_MAX];
    int status;

    if (v->json) {
        json_t *all = v->all;

        v->all = NULL;
        return json_print(all);
    }
    printf("%s at %s: %s %s, %s in %.0f modules, %s\n", remote_text(v->all, "head"),
           remote_text(v->all, "address"), remote_text(model, "name"),
           remote_text(model, "quantisation"), bytes_of(model, "weight_bytes", buf),
           number_of(model, "n_modules"), remote_text(v->all, "state"));
    table_init(&t, columns, (int)ARRAY_LEN(columns));
    for (size_t i = 0; i < json_array_size(devices); i++)
        device_row(&t, json_array_get(devices, i));
    table_print(&t, stdout);
    table_fini(&t);
    plan_print(v);
    status = out_finish();
    hints_say(v);
    return status;
}

/* ---- show ---- */

static void line(const char *name, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
static void line(const char *name, const char *fmt, ...)
{
    va_list ap;

    va_start(ap, fmt);
    printf("%-10s ", name);
    vprintf(fmt, ap);
    putchar('\n');
    va_end(ap);
}

static void hops_print(const json_t *d)
{
    const json_t *hops = json_object_get(d, "hops");

    for (size_t i = 0; i < json_array_size(hops); i++) {
        const json_t *hop = json_array_get(hops, i);
        bool relayed = strcmp(remote_text(hop, "via"), "head") == 0;

        line(i ? "" : "sends to", "%s, %s", remote_text(hop, "to"),
             relayed ? "passed on by the head" : "directly");
    }
}

static void text_line(const json_t *d, const char *key)
{
    if (*remote_text(d, key))
        line(key, "%s", remote_text(d, key));
}

/* How the device is, as far as it tells. */
static void condition_print(const json_t *d)
{
    char a[NUM_MAX], b[NUM_MAX];

    if (number_of(d, "memory_free_bytes") > 0)
        line("free", "%s of memory, %s of storage", bytes_of(d, "memory_free_bytes", a),
             bytes_of(d, "storage_free_bytes", b));
    if (number_of(d, "temperature_c") > 0)
        line("hottest", "%.0f degrees Celsius", number_of(d, "temperature_c"));
    if (json_object_get(d, "battery_percent"))
        line("battery", "%.0f %%%s", number_of(d, "battery_percent"),
             is(d, "charging") ? ", charging" : "");
    if (number_of(d, "cap_percent") > 0 && number_of(d, "cap_percent") < 100)
        line("cap", "busy at most %.0f %% of the time", number_of(d, "cap_percent"));
    if (is(d, "spare"))
        line("spare", "used only where it saves much");
}

static void work_print(const json_t *d)
{
    char a[NUM_MAX], b[NUM_MAX], c[NUM_MAX];
    double steps = number_of(d, "steps");

    line("memory", "%s used, %s planned, %s allowed", bytes_of(d, "resident_bytes", a),
         bytes_of(d, "planned_bytes", b), bytes_of(d, "memory_bytes", c));
    line("weights", "%s, %s of them received", bytes_of(d, "weight_bytes", a),
         bytes_of(d, "received_bytes", b));
    line("KV cache", "%s", bytes_of(d, "kv_bytes", a));
    line("steps", "%s of %s rows, %.0f ms in all", num_thousands(a, (uint64_t)steps),
         num_thousands(b, (uint64_t)number_of(d, "rows")), number_of(d, "compute_ms"));
    if (number_of(d, "predicted_ms") > 0)
        line("predicted", "%.2f ms per token", number_of(d, "predicted_ms"));
    if (number_of(d, "decode_ms") > 0)
        line("measured", "%.2f ms per token", number_of(d, "decode_ms"));
    line("sent", "%s, %.0f B per token", bytes_of(d, "sent_bytes", a),
         number_of(d, "sent_bytes_per_row"));
}

static int show(struct devices *v)
{
    json_t *d = device_named(v, v->name);
    char a[NUM_MAX];

    if (v->json)
        return json_print(json_incref(d));
    line("name", "%s%s%s", remote_text(d, "name"), is(d, "head") ? ", the head" : "",
         is(d, "mine") ? ", mine" : "");
    text_line(d, "key");
    line("state", "%s%s", remote_text(d, "state"), drained_text(d));
    text_line(d, "trouble");
    text_line(d, "address");
    text_line(d, "security");
    text_line(d, "kind");
    text_line(d, "kernels");
    if (number_of(d, "threads") > 0)
        line("threads", "%.0f", number_of(d, "threads"));
    if (number_of(d, "speed") > 0)
        line("speed", "%s of weights per second", bytes_of(d, "speed", a));
    if (number_of(d, "rtt_ms") > 0)
        line("rtt", "%.2f ms", number_of(d, "rtt_ms"));
    text_line(d, "modules");
    if (is_here(d)) {
        work_print(d);
        condition_print(d);
    }
    hops_print(d);
    return out_finish();
}

/* ---- what changes something ---- */

static int invite(struct devices *v)
{
    char life[NUM_MAX];
    json_t *answer;
    int status = ask(v, json_pack("{s:s}", "do", "invite"), &answer);

    if (status >= 0)
        return status;
    if (v->json)
        return json_print(answer);
    printf("%s\n", remote_text(answer, "token"));
    status = out_finish();
    say("on the other device: lingua join %s", remote_text(answer, "address"));
    say("the token lets one device in, within %s",
        num_duration(life, number_of(answer, "expires_s")));
    qr_invite(remote_text(answer, "token"), remote_text(answer, "address"));
    json_decref(answer);
    return status;
}

static int change(struct devices *v, json_t *question, const char *done)
{
    json_t *answer;
    int status = ask(v, question, &answer);

    if (status >= 0)
        return status;
    if (v->json)
        return json_print(answer);
    say("%s %s", remote_text(answer, "name"), done);
    json_decref(answer);
    return STATUS_OK;
}

static int mine(struct devices *v)
{
    return change(v, json_pack("{s:s, s:s, s:b}", "do", "mine", "name", v->name, "on", !v->off),
                  v->off ? "is no longer marked as yours" : "is marked as yours");
}

static int drain(struct devices *v)
{
    return change(v, json_pack("{s:s, s:s}", "do", "drain", "name", v->name),
                  "is left out of the work from now on; when it joins anew it takes part again");
}

static int revoke(struct devices *v)
{
    return change(v, json_pack("{s:s, s:s}", "do", "revoke", "name", v->name),
                  "is thrown out; only a new token (lingua devices invite) lets it in again");
}

/* ---- the command line ---- */

static const struct verb {
    const char *name;
    int (*run)(struct devices *v);
    bool wants_name, wants_list;
} verbs[] = {
    {"list", list, false, true}, {"show", show, true, true},   {"invite", invite, false, false},
    {"mine", mine, true, true},  {"drain", drain, true, true}, {"revoke", revoke, true, true},
};

static const struct verb *verb_find(const char *name)
{
    const char *words[ARRAY_LEN(verbs)], *near;

    for (size_t i = 0; i < ARRAY_LEN(verbs); i++) {
        if (strcmp(verbs[i].name, name) == 0)
            return &verbs[i];
        words[i] = verbs[i].name;
    }
    near = nearest_word(name, words, (int)ARRAY_LEN(verbs));
    if (near)
        say("devices: there is no \"%s\"; did you mean %s?", name, near);
    else
        say("devices: there is no \"%s\"; lingua help devices lists what there is", name);
    return NULL;
}

static int parse(struct devices *v, int argc, char **argv, const struct verb **verb)
{
    const struct option_spec options[] = {
        {"json", 0, OPTION_FLAG, &v->json, 0, 0, NULL, NULL, "the same, for machines"},
        {"off", 0, OPTION_FLAG, &v->off, 0, 0, NULL, NULL, "mine: take the mark away"},
        OPTION_STATE(&v->state),
    };
    const struct command_spec spec = {usage, about, options, sizeof options / sizeof *options, 2};
    const char *args[ARGS_MAX];
    int n_args, status = options_parse(&spec, argc, argv, args, &n_args);

    if (status >= 0)
        return status;
    *verb = n_args ? verb_find(args[0]) : &verbs[0];
    if (!*verb)
        return STATUS_USAGE;
    v->name = n_args > 1 ? args[1] : NULL;
    if ((*verb)->wants_name && !v->name)
        say("devices: %s whom? lingua devices %s NAME", args[0], args[0]);
    else if (!(*verb)->wants_name && v->name)
        say("devices: unexpected argument \"%s\"", v->name);
    else if (v->off && (*verb)->run != mine)
        say("devices: --off belongs to mine");
    else
        return -1;
    return STATUS_USAGE;
}

int cmd_devices(int argc, char **argv)
{
    const struct verb *verb = NULL;
    struct devices v = {0};
    struct err_text et;
    int status = parse(&v, argc, argv, &verb);

    if (status >= 0)
        return status;
    if (remote_open(v.state, &v.remote, &et)) {
        say("devices: %s", et.text);
        return STATUS_FAILED;
    }
    if (verb->wants_list)
        status = ask(&v, json_pack("{s:s}", "do", "devices"), &v.all);
    if (status < 0 && verb->wants_name)
        status = name_check(&v);
    if (status < 0)
        status = verb->run(&v);
    json_decref(v.all);
    remote_close(v.remote);
    return status;
}
