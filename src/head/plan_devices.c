/* Devices files: a cluster on paper. docs/planner.md has the format field by field.
 *
 * A person writes such a file by hand, so every error says where it is ("device 3 (pi)"), which
 * field, what stands there, and what belongs there; a field of another name is refused rather than
 * left out of account. */
#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "base/utf8.h"
#include "base/words.h"
#include "head/plan_json.h"

enum {
    FILE_BYTES_MAX = 1 << 20,
    NAME_BYTES_MAX = 63,
    WHERE_MAX = 160,
    KEY_MAX = CLASS_TEXT_MAX + 8,
};

#define MS_MAX         86400e3 /* a day, as place_check has it */
#define SPEED_MIN      1e3
#define SPEED_MAX      1e14
#define MEMORY_MIN     (1 << 20)
#define BYTES_MAX      0x1p60
#define RATE_MBIT_MIN  1e-3
#define RATE_MBIT_MAX  1e7
#define LATENCY_MS_MAX 60e3

/* What a device costs where the file does not say (docs/planner.md). */
static const double base_bytes_else = 16 << 20, step_ms_else = 0.1, head_ms_else = 0.3;

static const char *const kinds[] = {"embed", "attn", "ffn", "output"};

struct reader {
    const char *path;
    const struct model *m;
    struct place_problem *p;
    struct plan_devices *out;
    char (*key)[KEY_MAX]; /* (n_classes) what "costs" may call each class */
    int *example;         /* (n_classes) its first module */
    bool *listed;         /* (n, n) a pair that was given */
    struct err_text *et;
};

/* An object in the file, and what errors call it. */
struct at {
    struct reader *r;
    const json_t *o;
    char where[WHERE_MAX];
};

/* ---- errors ---- */

/* What stands there, cut short. */
static void shown(const json_t *v, char buf[48])
{
    char *text = json_dumps(v, JSON_ENCODE_ANY | JSON_COMPACT);

    if (!text)
        snprintf(buf, 48, "nothing");
    else if (strlen(text) > 40)
        snprintf(buf, 48, "%.36s ...", text);
    else
        snprintf(buf, 48, "%s", text);
    free(text);
}

static enum err wrong(const struct at *a, const char *key, const char *what)
{
    const json_t *v = json_object_get(a->o, key);
    char value[48];

    if (!v)
        return err_set(a->r->et, ERR_INPUT, "%s: %s: \"%s\" is missing: it must be %s", a->r->path,
                       a->where, key, what);
    shown(v, value);
    return err_set(a->r->et, ERR_INPUT, "%s: %s: \"%s\" must be %s, not %s", a->r->path, a->where,
                   key, what, value);
}

static enum err object_check(const struct at *a, const char *what)
{
    char value[48];

    if (json_is_object(a->o))
        return ERR_NONE;
    shown(a->o, value);
    return err_set(a->r->et, ERR_INPUT, "%s: %s must be %s, not %s", a->r->path, a->where, what,
                   value);
}

static enum err fields_check(const struct at *a, const char *const *names, int n)
{
    const char *key, *near;
    json_t *v;

    json_object_foreach((json_t *)a->o, key, v)
    {
        int i = 0;

        while (i < n && strcmp(names[i], key) != 0)
            i++;
        if (i < n)
            continue;
        near = nearest_word(key, names, n);
        return err_set(a->r->et, ERR_INPUT, "%s: %s: \"%.40s\" is no field of it%s%s%s", a->r->path,
                       a->where, key, near ? "; did you mean \"" : "", near ? near : "",
                       near ? "\"?" : "");
    }
    return ERR_NONE;
}

/* ---- fields; each leaves *out alone when the field is not there ---- */

static enum err number_field(const struct at *a, const char *key, double low, double high,
                             const char *what, double *out)
{
    const json_t *v = json_object_get(a->o, key);
    double got = json_number_value(v);

    if (!v)
        return ERR_NONE;
    if (!json_is_number(v) || !(got >= low && got <= high))
        return wrong(a, key, what);
    *out = got;
    return ERR_NONE;
}

static enum err whole_field(const struct at *a, const char *key, int low, int high,
                            const char *what, int *out)
{
    const json_t *v = json_object_get(a->o, key);
    json_int_t got = json_integer_value(v);

    if (!v)
        return ERR_NONE;
    if (!json_is_integer(v) || got < low || got > high)
        return wrong(a, key, what);
    *out = (int)got;
    return ERR_NONE;
}

static enum err bool_field(const struct at *a, const char *key, bool *out)
{
    const json_t *v = json_object_get(a->o, key);

    if (!v)
        return ERR_NONE;
    if (!json_is_boolean(v))
        return wrong(a, key, "true or false");
    *out = json_is_true(v);
    return ERR_NONE;
}

/* Bytes, as a number or as "2G". */
static enum err size_field(const struct at *a, const char *key, double low, double high,
                           const char *what, double *out)
{
    const json_t *v = json_object_get(a->o, key);
    double got = json_number_value(v);

    if (!v)
        return ERR_NONE;
    if (json_is_string(v) ? !size_parse(json_string_value(v), &got) : !json_is_number(v))
        return wrong(a, key, what);
    if (!(got >= low && got <= high))
        return wrong(a, key, what);
    *out = got;
    return ERR_NONE;
}

/* ---- a device's costs ---- */

/* Two classes may read the same to people; here the second of them is "... #2". */
static void keys_make(struct reader *r)
{
    const struct place_problem *p = r->p;
    size_t n = (size_t)p->n_classes;

    r->key = mem_zalloc(n, sizeof *r->key);
    r->example = mem_zalloc(n, sizeof *r->example);
    for (int m = p->n_modules - 1; m >= 0; m--)
        r->example[p->module[m].class] = m;
    for (int c = 0; c < p->n_classes; c++) {
        char text[CLASS_TEXT_MAX];
        int same = 1;

        model_class_text(r->m, r->example[c], text);
        for (int b = 0; b < c; b++) {
            const char *rest = r->key[b] + strlen(text);

            same += strncmp(r->key[b], text, strlen(text)) == 0 &&
                    (*rest == '\0' || strncmp(rest, " #", 2) == 0);
        }
        snprintf(r->key[c], KEY_MAX, same > 1 ? "%s #%d" : "%s", text, same);
    }
}

static void keys_free(struct reader *r)
{
    free(r->key);
    free(r->example);
}

static const char *kind_of(const struct reader *r, int class)
{
    return kinds[model_module(r->m, r->example[class])->kind];
}

static enum err cost_take(struct reader *r, const struct at *device, const char *key,
                          const json_t *o, struct place_cost *out)
{
    static const char *const fields[] = {"decode_ms", "prefill_ms", "position_us"};
    static const char decode_what[] =
        "5 numbers from 0 to 86400000: milliseconds for steps of 1, 2, 4, 8 and 16 rows";
    struct at a = {.r = r, .o = o};
    const json_t *decode;
    double prefill_ms, position_us = 0;
    enum err e;

    snprintf(a.where, sizeof a.where, "%.80s: costs: \"%.60s\"", device->where, key);
    e = object_check(&a, "an object with \"decode_ms\"");
    if (!e)
        e = fields_check(&a, fields, ARRAY_LEN(fields));
    if (e)
        return e;
    decode = json_object_get(o, "decode_ms");
    if (!json_is_array(decode) || json_array_size(decode) != PLACE_BATCHES)
        return wrong(&a, "decode_ms", decode_what);
    for (int b = 0; b < PLACE_BATCHES; b++) {
        const json_t *v = json_array_get(decode, (size_t)b);
        double ms = json_number_value(v);

        if (!json_is_number(v) || !(ms >= 0 && ms <= MS_MAX))
            return wrong(&a, "decode_ms", decode_what);
        out->decode[b] = ms / 1e3;
    }
    prefill_ms = 1e3 * out->decode[PLACE_BATCHES - 1] / (1 << (PLACE_BATCHES - 1));
    e = number_field(&a, "prefill_ms", 0, MS_MAX,
                     "milliseconds per token of a prompt, from 0 to 86400000", &prefill_ms);
    if (!e)
        e = number_field(&a, "position_us", 0, 1e6,
                         "microseconds per token and position of its context, from 0 to 1000000",
                         &position_us);
    out->prefill = prefill_ms / 1e3;
    out->position = position_us / 1e6;
    return e;
}

/* The classes of another model are no mistake: a file may serve several. */
static enum err costs_names_check(const struct at *a, const json_t *costs)
{
    const char *key, *near;
    json_t *v;

    json_object_foreach((json_t *)costs, key, v)
    {
        size_t n = strcspn(key, " ");
        int k = 0;

        while (k < (int)ARRAY_LEN(kinds) &&
               (strlen(kinds[k]) != n || strncmp(kinds[k], key, n) != 0))
            k++;
        if (k < (int)ARRAY_LEN(kinds))
            continue;
        near = nearest_word(key, kinds, ARRAY_LEN(kinds));
        return err_set(a->r->et, ERR_INPUT,
                       "%s: %s: costs: \"%.40s\" is no kind of module%s%s%s (embed, attn, ffn, "
                       "output, or a class as lingua plan --json has it)",
                       a->r->path, a->where, key, near ? "; did you mean \"" : "", near ? near : "",
                       near ? "\"?" : "");
    }
    return ERR_NONE;
}

/* By class, else by kind, else by speed. */
static enum err costs_take(struct at *a, int device)
{
    struct reader *r = a->r;
    struct plan_devices *out = r->out;
    const json_t *costs = json_object_get(a->o, "costs"), *v;
    struct place_cost *cost = out->cost + (size_t)device * (size_t)r->p->n_classes, unused;
    double speed = 0;
    const char *key;
    enum err e = size_field(a, "speed", SPEED_MIN, SPEED_MAX,
                            "bytes of weights per second at one row, such as \"12G\"", &speed);

    if (e)
        return e;
    if (costs && !json_is_object(costs))
        return wrong(a, "costs", "an object: a kind or class of modules, and what it costs");
    e = costs ? costs_names_check(a, costs) : ERR_NONE;
    if (e)
        return e;
    json_object_foreach((json_t *)costs, key, v)
    {
        e = cost_take(r, a, key, v, &unused);
        if (e)
            return e;
    }
    if (speed > 0)
        place_guess_cost(r->p, speed, cost);
    for (int c = 0; c < r->p->n_classes && !e; c++) {
        key = r->key[c];
        v = json_object_get(costs, key);
        if (!v) {
            key = kind_of(r, c);
            v = json_object_get(costs, key);
        }
        if (v)
            e = cost_take(r, a, key, v, &cost[c]);
        else if (speed > 0)
            out->guessed[device] = true;
        else
            e = err_set(r->et, ERR_INPUT,
                        "%s: %s: nothing says what \"%s\" costs: give \"speed\" (bytes of weights "
                        "per second, such as \"12G\"), or \"%s\" in \"costs\"",
                        r->path, a->where, r->key[c], kind_of(r, c));
    }
    return e;
}

/* ---- a device ---- */

static enum err name_take(struct at *a, int device)
{
    static const char what[] = "a text of 1 to 63 bytes without control characters";
    struct plan_devices *out = a->r->out;
    const char *name = json_string_value(json_object_get(a->o, "name"));
    char clean[NAME_BYTES_MAX + 1];
    size_t n = name ? strlen(name) : 0;

    if (n < 1 || n > NAME_BYTES_MAX)
        return wrong(a, "name", what);
    utf8_clean(clean, (const uint8_t *)name, n);
    if (strcmp(clean, name) != 0)
        return wrong(a, "name", what);
    for (int i = 0; i < device; i++)
        if (strcmp(out->name[i], name) == 0)
            return err_set(a->r->et, ERR_INPUT,
                           "%s: devices %d and %d are both called \"%s\": give them names of "
                           "their own",
                           a->r->path, i + 1, device + 1, name);
    out->name[device] = mem_strdup(name);
    out->device[device].name = out->name[device];
    snprintf(a->where, sizeof a->where, "device %d (%s)", device + 1, name);
    return ERR_NONE;
}

static enum err use_take(const struct at *a, struct place_device *d)
{
    const json_t *v = json_object_get(a->o, "use");
    const char *use = json_string_value(v);

    if (!v)
        return ERR_NONE;
    if (use && strcmp(use, "may") == 0)
        d->wish = PLACE_MAY;
    else if (use && strcmp(use, "must") == 0)
        d->wish = PLACE_MUST;
    else if (use && strcmp(use, "not") == 0)
        d->wish = PLACE_NOT;
    else
        return wrong(a, "use", "\"may\", \"must\" or \"not\"");
    return ERR_NONE;
}

/* What its owner wishes. */
static enum err wishes_take(const struct at *a, struct place_device *d)
{
    bool spare = false;
    enum err e = use_take(a, d);

    if (!e)
        e = bool_field(a, "mine", &d->mine);
    if (!e)
        e = bool_field(a, "spare", &spare);
    if (!e && spare && json_object_get(a->o, "worth"))
        return err_set(a->r->et, ERR_INPUT,
                       "%s: %s: \"spare\" and \"worth\" say the same thing: give one of them",
                       a->r->path, a->where);
    d->worth = spare ? PLACE_WORTH_SPARE : PLACE_WORTH_DEFAULT;
    if (!e)
        e = number_field(a, "worth", 0, 1, "the least share it must save, from 0 to 1", &d->worth);
    d->cap = 1;
    if (!e)
        e = number_field(a, "cap", 1e-3, 1, "the share of the time it may be busy, from 0.001 to 1",
                         &d->cap);
    return e;
}

static enum err device_take(struct reader *r, const json_t *o, int device)
{
    static const char *const fields[] = {"name", "memory", "base",  "threads", "speed",   "costs",
                                         "cap",  "spare",  "worth", "mine",    "step_ms", "use"};
    struct place_device *d = &r->out->device[device];
    struct at a = {.r = r, .o = o};
    double memory = 0, base = base_bytes_else, step_ms = step_ms_else;
    int threads;
    enum err e;

    snprintf(a.where, sizeof a.where, "device %d", device + 1);
    *d = (struct place_device){.mine = device == 0};
    d->cost = r->out->cost + (size_t)device * (size_t)r->p->n_classes;
    e = object_check(&a, "an object with \"name\", \"memory\", \"speed\"");
    if (!e)
        e = name_take(&a, device);
    if (!e)
        e = fields_check(&a, fields, ARRAY_LEN(fields));
    if (!e)
        e = size_field(&a, "memory", MEMORY_MIN, BYTES_MAX,
                       "what the program may take, such as \"2G\" (at least 1M)", &memory);
    if (!e)
        e = size_field(&a, "base", 0, BYTES_MAX,
                       "what the program takes before any model, such as \"16M\"", &base);
    if (!e)
        e = whole_field(&a, "threads", 1, 4096, "a whole number from 1 to 4096", &threads);
    if (!e)
        e = number_field(&a, "step_ms", 0, LATENCY_MS_MAX,
                         "milliseconds per step beside computing, from 0 to 60000", &step_ms);
    if (!e)
        e = wishes_take(&a, d);
    d->memory_bytes = (uint64_t)memory;
    d->base_bytes = (uint64_t)base;
    d->step_s = step_ms / 1e3;
    return e ? e : costs_take(&a, device);
}

static enum err devices_take(struct reader *r, const struct at *top)
{
    const json_t *list = json_object_get(top->o, "devices");
    struct plan_devices *out = r->out;
    size_t n = json_array_size(list);
    enum err e = ERR_NONE;

    if (!json_is_array(list) || n == 0)
        return wrong(top, "devices", "a list of at least one device, the head first");
    if (n > PLAN_DEVICES_MAX)
        return err_set(r->et, ERR_INPUT, "%s: %zu devices are more than the %d a plan can have",
                       r->path, n, PLAN_DEVICES_MAX);
    out->n = (int)n;
    out->device = mem_zalloc(n, sizeof *out->device);
    out->link = mem_zalloc(n * n, sizeof *out->link);
    out->cost = mem_zalloc(n * (size_t)r->p->n_classes, sizeof *out->cost);
    out->name = mem_zalloc(n, sizeof *out->name);
    out->guessed = mem_zalloc(n, sizeof *out->guessed);
    r->listed = mem_zalloc(n * n, sizeof *r->listed);
    for (int i = 0; i < out->n && !e; i++)
        e = device_take(r, json_array_get(list, (size_t)i), i);
    return e;
}

/* ---- links ---- */

static enum err rate_take(const struct at *a, double *bytes_per_s)
{
    static const char what[] = "megabits per second, from 0.001 to 10000000, or \"unlimited\"";
    const char *text = json_string_value(json_object_get(a->o, "rate_mbit"));
    double mbit = *bytes_per_s * 8 / 1e6;
    enum err e;

    if (text && strcmp(text, "unlimited") == 0) {
        *bytes_per_s = INFINITY;
        return ERR_NONE;
    }
    e = number_field(a, "rate_mbit", RATE_MBIT_MIN, RATE_MBIT_MAX, what, &mbit);
    *bytes_per_s = mbit * 1e6 / 8;
    return e ? e : *bytes_per_s > 0 ? ERR_NONE : wrong(a, "rate_mbit", what);
}

/* On top of what *l has already. */
static enum err link_take(const struct at *a, struct place_link *l)
{
    static const char latency_what[] = "milliseconds one way, from 0 to 60000";
    double ms = 1e3 * l->latency_s;
    enum err e;

    l->there = true;
    e = bool_field(a, "there", &l->there);
    if (e || !l->there)
        return e;
    e = number_field(a, "latency_ms", 0, LATENCY_MS_MAX, latency_what, &ms);
    if (!e && ms < 0)
        e = wrong(a, "latency_ms", latency_what);
    l->latency_s = ms / 1e3;
    if (!e)
        e = rate_take(a, &l->bytes_per_s);
    if (!e)
        e = whole_field(a, "air", 0, PLACE_AIRS_MAX,
                        "0 (its own wire) or the number of the air it shares, 1 to 8", &l->air);
    return e;
}

static enum err end_take(const struct at *a, const char *key, int *out)
{
    const struct plan_devices *all = a->r->out;
    const char *name = json_string_value(json_object_get(a->o, key)), *near;

    if (!name)
        return wrong(a, key, "the name of a device");
    for (int i = 0; i < all->n; i++)
        if (strcmp(all->name[i], name) == 0) {
            *out = i;
            return ERR_NONE;
        }
    near = nearest_word(name, (const char *const *)all->name, all->n);
    return err_set(a->r->et, ERR_INPUT,
                   "%s: %s: \"%s\" names \"%.64s\", which is no device here%s%s%s", a->r->path,
                   a->where, key, name, near ? "; did you mean \"" : "", near ? near : "",
                   near ? "\"?" : "");
}

static enum err way_set(const struct at *a, int from, int to, const struct place_link *l)
{
    struct plan_devices *out = a->r->out;
    int i = from * out->n + to;

    if (a->r->listed[i])
        return err_set(a->r->et, ERR_INPUT, "%s: %s: the way from \"%s\" to \"%s\" is given twice",
                       a->r->path, a->where, out->name[from], out->name[to]);
    a->r->listed[i] = true;
    out->link[i] = *l;
    return ERR_NONE;
}

static enum err pair_take(struct reader *r, const json_t *o, int number,
                          const struct place_link *basis)
{
    static const char *const fields[] = {"from",      "to",  "both", "latency_ms",
                                         "rate_mbit", "air", "there"};
    struct at a = {.r = r, .o = o};
    struct place_link l = *basis;
    bool both = true;
    int from = 0, to = 0;
    enum err e;

    snprintf(a.where, sizeof a.where, "links: pair %d", number + 1);
    e = object_check(&a, "an object with \"from\" and \"to\"");
    if (!e)
        e = fields_check(&a, fields, ARRAY_LEN(fields));
    if (!e)
        e = end_take(&a, "from", &from);
    if (!e)
        e = end_take(&a, "to", &to);
    if (!e && from == to)
        e = wrong(&a, "to", "another device than \"from\"");
    if (!e)
        e = bool_field(&a, "both", &both);
    if (!e)
        e = link_take(&a, &l);
    if (!e)
        e = way_set(&a, from, to, &l);
    if (!e && both)
        e = way_set(&a, to, from, &l);
    return e;
}

/* A default of which nothing is known but that a pair must say it all. */
static const struct place_link unknown_link = {.latency_s = -1e-3};

static enum err default_take(struct reader *r, const json_t *o, struct place_link *out)
{
    static const char *const fields[] = {"latency_ms", "rate_mbit", "air"};
    struct at a = {.r = r, .o = o, .where = "links: default"};
    enum err e = object_check(&a, "an object with \"latency_ms\" and \"rate_mbit\"");

    if (!e)
        e = fields_check(&a, fields, ARRAY_LEN(fields));
    if (!e)
        e = link_take(&a, out);
    for (int i = 0; !e && i < r->out->n * r->out->n; i++)
        if (i / r->out->n != i % r->out->n)
            r->out->link[i] = *out;
    return e;
}

static enum err links_take(struct reader *r, const struct at *top)
{
    static const char *const fields[] = {"default", "pairs"};
    struct at a = {.r = r, .o = json_object_get(top->o, "links"), .where = "links"};
    const json_t *pairs, *basis;
    struct place_link l = unknown_link;
    enum err e;

    if (!a.o && r->out->n == 1)
        return ERR_NONE;
    if (!a.o)
        return wrong(top, "links", "an object with \"default\", \"pairs\" or both");
    e = object_check(&a, "an object with \"default\", \"pairs\" or both");
    if (!e)
        e = fields_check(&a, fields, ARRAY_LEN(fields));
    basis = json_object_get(a.o, "default");
    if (!e && basis)
        e = default_take(r, basis, &l);
    pairs = json_object_get(a.o, "pairs");
    if (!e && pairs && !json_is_array(pairs))
        e = wrong(&a, "pairs", "a list of links");
    for (size_t i = 0; !e && i < json_array_size(pairs); i++)
        e = pair_take(r, json_array_get(pairs, i), (int)i, &l);
    return e;
}

/* ---- the file ---- */

enum err plan_devices_take(const json_t *file, const char *path, const struct model *m,
                           struct place_problem *p, struct plan_devices *out, struct err_text *et)
{
    static const char *const fields[] = {"about", "head_ms", "devices", "links"};
    struct reader r = {.path = path, .m = m, .p = p, .out = out, .et = et};
    struct at top = {.r = &r, .o = file, .where = "the file"};
    double head_ms = head_ms_else;
    enum err e = object_check(&top, "an object with \"devices\" and \"links\"");

    *out = (struct plan_devices){.n = 0};
    keys_make(&r);
    if (!e)
        e = fields_check(&top, fields, ARRAY_LEN(fields));
    if (!e && json_object_get(file, "about") && !json_is_string(json_object_get(file, "about")))
        e = wrong(&top, "about", "a text");
    if (!e)
        e = number_field(&top, "head_ms", 0, LATENCY_MS_MAX,
                         "milliseconds the head takes per step, from 0 to 60000", &head_ms);
    if (!e)
        e = devices_take(&r, &top);
    if (!e)
        e = links_take(&r, &top);
    keys_free(&r);
    free(r.listed);
    if (e) {
        plan_devices_fini(out);
        return e;
    }
    p->n_devices = out->n;
    p->device = out->device;
    p->link = out->link;
    p->head_s = head_ms / 1e3;
    return ERR_NONE;
}

static enum err file_load(const char *path, json_t **out, struct err_text *et)
{
    FILE *f = fopen(path, "rbe");
    char *bytes;
    json_error_t je;
    size_t n;

    if (!f)
        return err_system(et, "%s", path);
    bytes = mem_alloc(FILE_BYTES_MAX + 1);
    n = fread(bytes, 1, FILE_BYTES_MAX + 1, f);
    if (ferror(f)) {
        enum err e = err_system(et, "%s", path);

        free(bytes);
        fclose(f);
        return e;
    }
    fclose(f);
    if (n > FILE_BYTES_MAX) {
        free(bytes);
        return err_set(et, ERR_INPUT, "%s: more than the 1 MiB a devices file may have", path);
    }
    *out = json_loadb(bytes, n, JSON_REJECT_DUPLICATES, &je);
    free(bytes);
    if (!*out)
        return err_set(et, ERR_INPUT, "%s: line %d: this is no JSON: %s", path, je.line, je.text);
    return ERR_NONE;
}

enum err plan_devices_read(const char *path, const struct model *m, struct place_problem *p,
                           struct plan_devices *out, struct err_text *et)
{
    json_t *file = NULL;
    enum err e;

    *out = (struct plan_devices){.n = 0};
    e = file_load(path, &file, et);
    if (!e)
        e = plan_devices_take(file, path, m, p, out, et);
    json_decref(file);
    return e;
}

void plan_devices_fini(struct plan_devices *d)
{
    for (int i = 0; d->name && i < d->n; i++)
        free(d->name[i]);
    free(d->device);
    free(d->link);
    free(d->cost);
    free(d->name);
    free(d->guessed);
    *d = (struct plan_devices){.n = 0};
}

/* ---- and back ---- */

static void put(json_t *o, const char *key, json_t *value)
{
    json_object_set_new(o, key, value);
}

static json_t *cost_json(const struct place_cost *c)
{
    json_t *o = json_object(), *decode = json_array();

    for (int b = 0; b < PLACE_BATCHES; b++)
        json_array_append_new(decode, json_real(1e3 * c->decode[b]));
    put(o, "decode_ms", decode);
    put(o, "prefill_ms", json_real(1e3 * c->prefill));
    put(o, "position_us", json_real(1e6 * c->position));
    return o;
}

/* Bytes of weights per second, of all modules together. */
static double speed_of(const struct place_problem *p, const struct place_device *d)
{
    double bytes = 0, seconds = 0;

    for (int m = 0; m < p->n_modules; m++) {
        bytes += (double)p->module[m].decode_bytes;
        seconds += d->cost[p->module[m].class].decode[0];
    }
    return seconds > 0 ? bytes / seconds : 0;
}

static json_t *device_json(const struct reader *r, const struct place_device *d)
{
    static const char *const wishes[] = {"may", "must", "not"};
    json_t *o = json_object(), *costs = json_object();
    double speed = speed_of(r->p, d);

    put(o, "name", json_string(d->name));
    if (d->memory_bytes)
        put(o, "memory", json_integer((json_int_t)d->memory_bytes));
    put(o, "base", json_integer((json_int_t)d->base_bytes));
    put(o, "mine", json_boolean(d->mine));
    put(o, "use", json_string(wishes[d->wish]));
    put(o, "cap", json_real(d->cap));
    put(o, "worth", json_real(d->worth));
    put(o, "step_ms", json_real(1e3 * d->step_s));
    if (speed >= SPEED_MIN && speed <= SPEED_MAX)
        put(o, "speed", json_real(speed));
    for (int c = 0; c < r->p->n_classes; c++)
        put(costs, r->key[c], cost_json(&d->cost[c]));
    put(o, "costs", costs);
    return o;
}

static json_t *pair_json(const struct place_problem *p, int from, int to, bool both)
{
    const struct place_link *l = &p->link[from * p->n_devices + to];
    json_t *o = json_object();

    put(o, "from", json_string(p->device[from].name));
    put(o, "to", json_string(p->device[to].name));
    put(o, "both", json_boolean(both));
    put(o, "latency_ms", json_real(1e3 * l->latency_s));
    put(o, "rate_mbit",
        isfinite(l->bytes_per_s) ? json_real(l->bytes_per_s * 8 / 1e6) : json_string("unlimited"));
    put(o, "air", json_integer(l->air));
    return o;
}

static bool same_link(const struct place_link *a, const struct place_link *b)
{
    return a->there == b->there && a->latency_s == b->latency_s &&
           a->bytes_per_s == b->bytes_per_s && a->air == b->air;
}

/* Ways that are not there are those of which nothing is said. */
static json_t *links_json(const struct place_problem *p)
{
    json_t *pairs = json_array();
    int n = p->n_devices;

    for (int i = 0; i < n; i++)
        for (int j = i + 1; j < n; j++) {
            const struct place_link *out = &p->link[i * n + j], *back = &p->link[j * n + i];
            bool both = same_link(out, back);

            if (out->there)
                json_array_append_new(pairs, pair_json(p, i, j, both));
            if (back->there && !both)
                json_array_append_new(pairs, pair_json(p, j, i, false));
        }
    return json_pack("{s:o}", "pairs", pairs);
}

json_t *plan_devices_json(const struct place_problem *p, const struct model *m)
{
    struct place_problem same = *p;
    struct reader r = {.m = m, .p = &same};
    json_t *o = json_object(), *devices = json_array();

    keys_make(&r);
    for (int i = 0; i < p->n_devices; i++)
        json_array_append_new(devices, device_json(&r, &p->device[i]));
    put(o, "head_ms", json_real(1e3 * p->head_s));
    put(o, "devices", devices);
    put(o, "links", links_json(p));
    keys_free(&r);
    return o;
}
