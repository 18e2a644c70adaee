#include "cli/plan_table.h"

#include <ctype.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "base/mem.h"
#include "cli/say.h"
#include "cli/table.h"
#include "head/remote.h"
#include "plan/place.h"

/* ---- the document, taken apart ---- */

static double number_of(const json_t *o, const char *key)
{
    double v = json_number_value(json_object_get(o, key));

    return isfinite(v) ? v : 0;
}

static bool is(const json_t *o, const char *key)
{
    return json_is_true(json_object_get(o, key));
}

static const char *ms_of(double ms, char buf[NUM_MAX])
{
    if (ms < 0.005)
        snprintf(buf, NUM_MAX, "0");
    else
        snprintf(buf, NUM_MAX, ms < 0.995 ? "%.2f" : ms < 99.95 ? "%.1f" : "%.0f", ms);
    return buf;
}

/* Tokens per second. */
static const char *rate_of(double rate, char buf[NUM_MAX])
{
    snprintf(buf, NUM_MAX, rate < 9.995 ? "%.2f" : rate < 99.95 ? "%.1f" : "%.0f", rate);
    return buf;
}

static double sum_of(const json_t *list)
{
    double sum = 0;

    for (size_t i = 0; i < json_array_size(list); i++)
        sum += json_number_value(json_array_get(list, i));
    return sum;
}

static const json_t *device_at(const json_t *doc, const json_t *o, const char *key)
{
    return json_array_get(json_object_get(doc, "devices"), (size_t)number_of(o, key));
}

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

/* ---- the table ---- */

enum { COL_DEVICE, COL_MODULES, COL_MEMORY, COL_MS, COL_BUSY, COL_WITHOUT, COL_WITH, COLS };

/* "5.2 tokens/s, -45 %" */
static void other_cell(struct table *t, int column, const json_t *d)
{
    char buf[NUM_MAX];
    const char *key = is(d, "used") ? "loses_percent" : "costs_percent";

    if (is(d, "head"))
        table_cell(t, column, "-");
    else if (!json_is_number(json_object_get(d, key)))
        table_cell(t, column, "no plan");
    else
        table_cell(t, column, "%s tokens/s, %+.*f %%",
                   rate_of(number_of(d, "other_tokens_per_s"), buf), fabs(number_of(d, key)) < 2,
                   -number_of(d, key));
}

static void memory_cell(struct table *t, const json_t *d)
{
    char a[NUM_MAX], b[NUM_MAX];
    double planned = number_of(d, "planned_bytes"), budget = number_of(d, "memory_bytes");

    if (!is(d, "used"))
        table_cell(t, COL_MEMORY, "-");
    else if (budget > 0)
        table_cell(t, COL_MEMORY, "%s of %s", num_bytes(a, (uint64_t)planned),
                   num_bytes(b, (uint64_t)budget));
    else
        table_cell(t, COL_MEMORY, "%s", num_bytes(a, (uint64_t)planned));
}

static void device_row(struct table *t, const json_t *d)
{
    char buf[NUM_MAX];
    bool used = is(d, "used");

    table_row(t);
    table_cell(t, COL_DEVICE, "%s%s", remote_text(d, "name"), is(d, "head") ? " (head)" : "");
    table_cell(t, COL_MODULES, "%s", used ? remote_text(d, "modules") : "left out");
    memory_cell(t, d);
    table_cell(t, COL_MS, "%s", used ? ms_of(number_of(d, "compute_ms"), buf) : "-");
    if (used)
        table_cell(t, COL_BUSY, "%.0f %%", 100 * number_of(d, "busy"));
    else
        table_cell(t, COL_BUSY, "-");
    table_cell(t, COL_WITHOUT, "-");
    if (t->n_columns > COL_WITH)
        table_cell(t, COL_WITH, "-");
    other_cell(t, used ? COL_WITHOUT : COL_WITH, d);
}

/* In the order a token meets them; those left out come last. */
static void table_of(const json_t *doc)
{
    static const struct table_column columns[COLS] = {
        {"device", false}, {"modules", false},    {"memory", true},   {"ms/token", true},
        {"busy", true},    {"without it", false}, {"with it", false},
    };
    const json_t *devices = json_object_get(doc, "devices"),
                 *stages = json_object_get(doc, "stages");
    size_t n = json_array_size(devices), n_out = 0;
    bool *seen = mem_zalloc(n + 1, sizeof *seen);
    struct table t;

    for (size_t i = 0; i < n; i++)
        n_out += !is(json_array_get(devices, i), "used");
    table_init(&t, columns, n_out ? COLS : COLS - 1);
    for (size_t s = 0; s < json_array_size(stages); s++) {
        size_t at = (size_t)number_of(json_array_get(stages, s), "device");

        if (at < n && !seen[at]) {
            seen[at] = true;
            device_row(&t, json_array_get(devices, at));
        }
    }
    for (size_t i = 0; i < n; i++)
        if (!seen[i])
            device_row(&t, json_array_get(devices, i));
    table_print(&t, stdout);
    table_fini(&t);
    free(seen);
}

/* ---- what it comes to ---- */

static void parts_print(const json_t *doc)
{
    const json_t *stages = json_object_get(doc, "stages"), *hops = json_object_get(doc, "hops");
    char buf[NUM_MAX];
    const char *between = "";

    printf("%-10s ", "computing");
    for (size_t s = 0; s < json_array_size(stages); s++) {
        const json_t *o = json_array_get(stages, s);

        printf("%s%s %s", s ? ", " : "", remote_text(device_at(doc, o, "device"), "name"),
               ms_of(number_of(o, "compute_ms"), buf));
    }
    if (json_array_size(stages) < 2) {
        putchar('\n');
        return;
    }
    printf("\n%-10s ", "on the way");
    for (size_t s = 0; s < json_array_size(hops); s++) {
        const json_t *o = json_array_get(hops, s), *from = device_at(doc, o, "from");

        if (number_of(o, "from") == number_of(o, "to"))
            continue;
        printf("%s%s to %s %s", between, remote_text(from, "name"),
               remote_text(device_at(doc, o, "to"), "name"), ms_of(number_of(o, "hop_ms"), buf));
        between = ", ";
    }
    putchar('\n');
}

static void prediction_print(const json_t *doc)
{
    const json_t *p = json_object_get(doc, "prediction");
    double streams = number_of(doc, "concurrency"), ttft = number_of(p, "ttft_ms");
    char a[NUM_MAX], b[NUM_MAX], c[NUM_MAX], d[NUM_MAX];

    line("predicted",
         "%s ms per token of one stream = %s computing + %s on the way + %s at the head",
         ms_of(number_of(p, "ms_per_token"), a), ms_of(sum_of(json_object_get(p, "compute_ms")), b),
         ms_of(sum_of(json_object_get(p, "hop_ms")), c), ms_of(number_of(p, "head_ms"), d));
    parts_print(doc);
    line("speed", "%s tokens/s %s%.0f stream%s; the first token %s %s after a prompt of %.0f",
         rate_of(number_of(p, "tokens_per_s"), b), streams == 1 ? "for " : "in all for ", streams,
         streams == 1 ? "" : "s", ms_of(ttft < 1000 ? ttft : ttft / 1000, a),
         ttft < 1000 ? "ms" : "s", number_of(doc, "prompt"));
    line("limit", "%s", remote_text(doc, "limit"));
}

static void standby_print(const json_t *doc)
{
    const json_t *standby = json_object_get(doc, "standby"),
                 *copies = json_object_get(standby, "copies");
    char buf[NUM_MAX];

    if (json_array_size(copies) == 0)
        return;
    printf("%-10s %s more are held as copies:", "standby",
           num_bytes(buf, (uint64_t)number_of(standby, "weight_bytes")));
    for (size_t i = 0; i < json_array_size(copies); i++) {
        const json_t *o = json_array_get(copies, i);

        printf("%s %s on %s", i ? "," : "", remote_text(o, "modules"),
               remote_text(device_at(doc, o, "device"), "name"));
    }
    putchar('\n');
}

/* A name that can be typed in a shell and a list as it stands. Others are not put into a command to
 * copy: they were chosen by other people. */
static bool is_plain(const char *name)
{
    for (const char *p = name; *p; p++) {
        unsigned char c = (unsigned char)*p;

        if (!isalnum(c) && c < 0x80 && (!strchr("._-", c) || p == name))
            return false;
    }
    return *name;
}

static void left_out_print(const json_t *doc)
{
    const json_t *devices = json_object_get(doc, "devices");

    for (size_t i = 0; i < json_array_size(devices); i++) {
        const json_t *d = json_array_get(devices, i);
        const char *name = remote_text(d, "name");

        if (is(d, "used"))
            continue;
        printf("%s is left out: %s", name, remote_text(d, "why"));
        if (json_is_number(json_object_get(d, "costs_percent")) &&
            strcmp(remote_text(d, "use"), "not") != 0)
            printf("; --use %s forces it", is_plain(name) ? name : "with its name");
        putchar('\n');
    }
}

/* ---- how it was found ---- */

static void costs_print(const json_t *doc)
{
    const json_t *devices = json_object_get(doc, "devices");
    size_t guessed = 0, n = json_array_size(devices);

    for (size_t i = 0; i < n; i++)
        guessed += strcmp(remote_text(json_array_get(devices, i), "costs"), "guessed") == 0;
    if (guessed == 0) {
        line("costs", "measured, on all devices");
        return;
    }
    printf("%-10s guessed from the speed of", "costs");
    for (size_t i = 0, shown = 0; i < n; i++) {
        const json_t *d = json_array_get(devices, i);

        if (strcmp(remote_text(d, "costs"), "guessed") == 0)
            printf("%s %s", shown++ ? "," : "", remote_text(d, "name"));
    }
    puts(guessed < n ? "; measured on the others" : "");
}

/* Equal parts are not searched for, so that nothing is proved of them. */
static void search_print(const json_t *p)
{
    char a[NUM_MAX], b[NUM_MAX], c[NUM_MAX];
    double orders = number_of(p, "orders");

    if (number_of(p, "columns") > 0)
        line("program", "%s columns, %s rows, %s nodes of branch and bound",
             num_thousands(a, (uint64_t)number_of(p, "columns")),
             num_thousands(b, (uint64_t)number_of(p, "rows")),
             num_thousands(c, (uint64_t)number_of(p, "nodes")));
    else if (orders == 0)
        line("program", "none: nothing was searched for");
    else if (number_of(p, "gap") > 0)
        line("program", "none was solved; likely orders of the devices were tried");
    else
        line("program", "none was needed: every order of the devices was cut exactly");
    if (orders > 0)
        line("search", "%.0f order%s of devices cut, %s ms in all", orders, orders == 1 ? "" : "s",
             ms_of(number_of(p, "solve_ms"), a));
    if (number_of(p, "bound_ms") > 0)
        line("proof", "score %.5g ms, no plan is below %.5g ms: gap %.2g %%",
             number_of(p, "score_ms"), number_of(p, "bound_ms"), 100 * number_of(p, "gap"));
}

static void explain_print(const json_t *doc)
{
    const json_t *t = json_object_get(doc, "prediction");
    double k = number_of(t, "k"), g = number_of(t, "g");
    char buf[NUM_MAX];

    search_print(json_object_get(doc, "program"));
    line("groups", "%.0f group%s of %.0f row%s under way at once, one of them home every %s ms", k,
         k == 1 ? "" : "s", g, g == 1 ? "" : "s", ms_of(number_of(t, "period_ms"), buf));
    line("memory", "for a context of %.0f in %.0f slots", number_of(doc, "n_ctx"),
         number_of(doc, "n_slots"));
    costs_print(doc);
}

/* ---- predicted beside measured ---- */

static void compare_row(struct table *t, const json_t *predicted, const json_t *measured,
                        const char *fmt, ...) __attribute__((format(printf, 4, 5)));
static void compare_row(struct table *t, const json_t *predicted, const json_t *measured,
                        const char *fmt, ...)
{
    double was = json_number_value(predicted), is_now = json_number_value(measured);
    char part[TABLE_CELL_MAX], buf[NUM_MAX];
    va_list ap;

    va_start(ap, fmt);
    vsnprintf(part, sizeof part, fmt, ap);
    va_end(ap);
    table_row(t);
    table_cell(t, 0, "%s", part);
    table_cell(t, 1, "%s", json_is_number(predicted) ? ms_of(was, buf) : "-");
    table_cell(t, 2, "%s", json_is_number(measured) ? ms_of(is_now, buf) : "-");
    if (json_is_number(predicted) && is_now > 0)
        table_cell(t, 3, "%+.1f %%", 100 * (was - is_now) / is_now);
    else
        table_cell(t, 3, "-");
}

static const json_t *part_of(const json_t *time, const char *key, size_t i)
{
    return json_array_get(json_object_get(time, key), i);
}

/* The measured plan's device at a stage; in front of the first and behind the last it is the head. */
static const char *measured_at(const json_t *doc, size_t stage, size_t n)
{
    const json_t *stages = json_object_get(json_object_get(doc, "measured"), "stages");

    if (stage >= n)
        return remote_text(json_array_get(json_object_get(doc, "devices"), 0), "name");
    return remote_text(json_array_get(stages, stage), "name");
}

/* Part by part, in a token's order, of the plan that runs. */
static void measured_rows(struct table *t, const json_t *doc)
{
    const json_t *m = json_object_get(doc, "measured"), *p = json_object_get(m, "predicted");
    const json_t *stages = json_object_get(m, "stages");
    size_t n = json_array_size(stages);

    for (size_t s = 0; s <= n; s++) {
        /* In front of stage 0 is no stage: the head, as behind the last. */
        const char *from = measured_at(doc, s ? s - 1 : n, n), *to = measured_at(doc, s, n);

        if (strcmp(from, to) != 0)
            compare_row(t, part_of(p, "hop_ms", s), part_of(m, "hop_ms", s), "%s to %s", from, to);
        if (s < n)
            compare_row(t, part_of(p, "compute_ms", s), part_of(m, "compute_ms", s),
                        "%s computes %s", to, remote_text(json_array_get(stages, s), "modules"));
    }
    compare_row(t, json_object_get(p, "head_ms"), json_object_get(m, "head_ms"), "the head");
    compare_row(t, json_object_get(p, "ms_per_token"), json_object_get(m, "ms_per_token"),
                "a token");
}

static void measured_print(const json_t *doc)
{
    static const struct table_column columns[] = {{"the plan that runs", false},
                                                  {"predicted ms", true},
                                                  {"measured ms", true},
                                                  {"error", true}};
    const json_t *m = json_object_get(doc, "measured");
    struct table t;

    if (!json_is_object(m)) {
        say("plan: nothing was measured yet: a head measures while it answers (lingua run "
            "--cluster)");
        return;
    }
    putchar('\n');
    table_init(&t, columns, (int)ARRAY_LEN(columns));
    measured_rows(&t, doc);
    table_print(&t, stdout);
    table_fini(&t);
}

void plan_table_print(const json_t *doc, const struct plan_table_opts *opts)
{
    const json_t *model = json_object_get(doc, "model");
    char buf[NUM_MAX];

    printf("%s, %s, %s in %.0f modules; devices: %s\n\n", remote_text(model, "name"),
           remote_text(model, "quantisation"),
           num_bytes(buf, (uint64_t)number_of(model, "weight_bytes")),
           number_of(model, "n_modules"), remote_text(doc, "note"));
    table_of(doc);
    putchar('\n');
    prediction_print(doc);
    standby_print(doc);
    if (opts->explain)
        explain_print(doc);
    left_out_print(doc);
    if (opts->measured)
        measured_print(doc);
}
