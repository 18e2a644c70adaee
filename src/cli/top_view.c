/* From top to bottom: the model and what is going on; the model's strip; devices; hops; predicted
 * against measured; a line on what is the matter. Where there are fewer lines than things, lists are
 * cut, and say how many more there are; where there are fewer still, hops go first. */
#include "cli/top_view.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "cli/say.h"
#include "head/remote.h"

enum {
    WIDTH_MAX = 400,
    HEIGHT_MAX = 200,
    CELL_MAX = 160,
    DEVICES_MAX = 64,
    STAGES_MAX = 128,
    MODULES_MAX = 100000,
    LIST_LEAST = 2, /* lines of a list that is cut */
};

struct view {
    const json_t *doc;
    struct screen *s;
    int width, height, row;
    int n_devices;
    const json_t *device[DEVICES_MAX]; /* in the order they are shown */
    int owner[DEVICES_MAX];            /* its place among those with a part; -1 */
    int n_owners;
};

/* ---- the document, taken apart ---- */

/* 0 for what is beyond all measure. */
static double bounded(double n)
{
    return isfinite(n) && n > -1e15 && n < 1e15 ? n : 0;
}

static double number(const json_t *o, const char *key)
{
    return bounded(json_number_value(json_object_get(o, key)));
}

/* A figure, or the sum of a list of them. */
static double sum(const json_t *o, const char *key)
{
    const json_t *list = json_object_get(o, key), *v;
    double n = 0;
    size_t i;

    if (!json_is_array(list))
        return number(o, key);
    json_array_foreach(list, i, v) n += json_number_value(v);
    return bounded(n);
}

static bool is(const json_t *d, const char *state)
{
    return strcmp(remote_text(d, "state"), state) == 0;
}

static bool has_part(const json_t *d)
{
    return *remote_text(d, "modules") != '\0';
}

/* Those who work or are about to come first, those who are away last. */
static int rank(const json_t *d)
{
    if (has_part(d))
        return 0;
    if (is(d, "fetching") || is(d, "loading") || is(d, "measuring"))
        return 1;
    if (is(d, "failed") || is(d, "lost"))
        return 2;
    return is(d, "offline") ? 4 : 3;
}

static void gather(struct view *v)
{
    const json_t *list = json_object_get(v->doc, "devices"), *d;
    size_t i;

    for (int r = 0; r <= 4; r++)
        json_array_foreach(list, i, d) if (rank(d) == r && v->n_devices < DEVICES_MAX)
        {
            v->owner[v->n_devices] = has_part(d) ? v->n_owners++ : -1;
            v->device[v->n_devices++] = d;
        }
}

/* The place among the owners of the device of that name; -1: it has none. */
static int owner_of(const struct view *v, const char *name)
{
    for (int i = 0; i < v->n_devices; i++)
        if (strcmp(remote_text(v->device[i], "name"), name) == 0)
            return v->owner[i];
    return -1;
}

static char letter_of(int owner)
{
    static const char letters[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789";

    return owner >= 0 && owner < (int)sizeof letters - 1 ? letters[owner] : ' ';
}

static enum screen_style colour_of(int owner, enum screen_style base)
{
    return owner < 0 ? STYLE_PLAIN : (enum screen_style)((int)base + owner % (int)SCREEN_OWNERS);
}

/* ---- lines ---- */

static int put(struct view *v, int column, int width, enum screen_style style, const char *fmt, ...)
    __attribute__((format(printf, 5, 6)));
static int put(struct view *v, int column, int width, enum screen_style style, const char *fmt, ...)
{
    char text[CELL_MAX * 4];
    va_list ap;

    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    return screen_put(v->s, v->row, column, width, style, text);
}

static void put_right(struct view *v, int column, int width, enum screen_style style,
                      const char *fmt, ...) __attribute__((format(printf, 5, 6)));
static void put_right(struct view *v, int column, int width, enum screen_style style,
                      const char *fmt, ...)
{
    char text[CELL_MAX];
    va_list ap;

    if (column + width > v->width) /* half a number is a wrong one */
        return;
    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    screen_put_right(v->s, v->row, column, width, style, text);
}

/* Three digits; "-" for what is not known. */
static const char *ms(char buf[NUM_MAX], double value)
{
    if (!(value > 0) || value >= 1e7)
        snprintf(buf, NUM_MAX, "-");
    else
        snprintf(buf, NUM_MAX, "%.*f", value >= 99.95 ? 0 : value >= 9.995 ? 1 : 2, value);
    return buf;
}

static const char *plural(double n)
{
    return n == 1 ? "" : "s";
}

static uint64_t whole(double n)
{
    return n > 0 && n < 1e18 ? (uint64_t)n : 0;
}

/* ---- the head ---- */

static void draw_title(struct view *v)
{
    const json_t *model = json_object_get(v->doc, "model");
    const json_t *speed = json_object_get(v->doc, "speed");
    const char *alias = remote_text(model, "alias"), *state = remote_text(v->doc, "state");
    enum screen_style style = strcmp(state, "running") == 0 ? STYLE_GOOD : STYLE_BUSY;
    char size[NUM_MAX], rate[CELL_MAX] = "";
    int at, room;

    if (speed)
        snprintf(rate, sizeof rate, "%.1f tokens/s", number(speed, "tokens_per_s"));
    room = v->width - (*rate ? screen_width_of(rate) + 2 : 0);
    at = put(v, 0, room - 12, STYLE_BOLD, "%s %s", *alias ? alias : remote_text(model, "name"),
             remote_text(model, "quantisation"));
    if (room - at > 40)
        at +=
            put(v, at, room - at, STYLE_PLAIN, ", %s at %s",
                num_bytes(size, whole(number(model, "weight_bytes"))), remote_text(v->doc, "head"));
    (void)put(v, at + 2, room - at - 2, style, "%s", state);
    put_right(v, 0, v->width, STYLE_BOLD, "%s", rate);
    v->row++;
}

static void draw_doing(struct view *v)
{
    const json_t *speed = json_object_get(v->doc, "speed");
    const json_t *slots = json_object_get(v->doc, "slots");
    double streams = number(speed, "streams"), waiting = number(slots, "waiting");
    double reading = number(speed, "prefill_tokens_per_s");
    int at = 0;

    if (speed)
        at += put(v, at, v->width, STYLE_PLAIN, "%.0f stream%s", streams, plural(streams));
    if (slots)
        at += put(v, at, v->width - at, STYLE_PLAIN, "%s%.0f of %.0f slots busy", at ? ", " : "",
                  number(slots, "busy"), number(slots, "n"));
    if (waiting > 0)
        at += put(v, at, v->width - at, STYLE_BUSY, ", %.0f waiting", waiting);
    if (reading > 0 && v->width - at > 30)
        put_right(v, 0, v->width, STYLE_PLAIN, "prompts %.0f tokens/s", reading);
    v->row++;
}

/* ---- the strip ---- */

struct strip {
    int n;
    int from[STAGES_MAX + 1], owner[STAGES_MAX]; /* columns; stage i fills from[i]..from[i + 1] */
    const char *name[STAGES_MAX];
};

/* In proportion to their modules, but each is to be seen. */
static void strip_make(const struct view *v, int width, struct strip *strip)
{
    const json_t *stages = json_object_get(v->doc, "stages"), *st;
    double n_modules = number(json_object_get(v->doc, "model"), "n_modules");
    size_t i;

    strip->n = 0;
    if (!(n_modules >= 1 && n_modules <= MODULES_MAX) || (int)json_array_size(stages) > width)
        return;
    json_array_foreach(stages, i, st)
    {
        double first = number(st, "first") / n_modules;
        int at = first >= 0 && first <= 1 ? (int)(first * width + 0.5) : 0;

        if (strip->n == STAGES_MAX)
            break;
        if (strip->n && at <= strip->from[strip->n - 1])
            at = strip->from[strip->n - 1] + 1;
        strip->name[strip->n] = remote_text(st, "device");
        strip->owner[strip->n] = owner_of(v, strip->name[strip->n]);
        strip->from[strip->n++] = at;
    }
    strip->from[strip->n] = width;
    for (int k = strip->n - 1; k > 0 && strip->from[k] >= strip->from[k + 1]; k--)
        strip->from[k] = strip->from[k + 1] - 1;
}

static void draw_strip(struct view *v)
{
    enum { LEFT = 7 };
    struct strip strip;

    strip_make(v, v->width - LEFT, &strip);
    (void)put(v, 0, LEFT, STYLE_DIM, "model");
    if (!strip.n)
        (void)put(v, LEFT, v->width - LEFT, STYLE_DIM, "no plan runs yet");
    for (int i = 0; i < strip.n; i++) {
        int from = LEFT + strip.from[i], width = strip.from[i + 1] - strip.from[i];
        enum screen_style style = colour_of(strip.owner[i], STYLE_FIELD);
        char fill[2] = {letter_of(strip.owner[i]), '\0'};
        int name = screen_width_of(strip.name[i]) + 2;

        for (int k = 0; k < width; k++)
            (void)screen_put(v->s, v->row, from + k, 1, style, fill);
        if (name + 2 <= width)
            (void)put(v, from + (width - name) / 2, name, style, " %s ", strip.name[i]);
    }
    v->row++;
}

/* ---- devices ---- */

/* The cells of a line: what does not fit is a little shorter each, and what is left makes names and
 * bars longer. */
struct columns {
    int name, state, modules, bar;
};

static struct columns columns_of(int width)
{
    struct columns c = {.name = 10, .state = 12, .modules = 15, .bar = 3};
    int more = width - 80;

    for (; more > 0 && (c.name < 24 || c.modules < 28 || c.bar < 12); more--)
        if (c.modules < 22)
            c.modules++;
        else if (c.name < 20)
            c.name++;
        else if (c.bar < 12)
            c.bar++;
        else if (c.modules < 28)
            c.modules++;
        else
            c.name++;
    if (more < 0)
        c.modules = c.modules + more > 6 ? c.modules + more : 6;
    return c;
}

static void draw_device_head(struct view *v, const struct columns *c)
{
    int at = 2;

    (void)put(v, at, c->name, STYLE_DIM, "device");
    at += c->name + 1;
    (void)put(v, at, c->state, STYLE_DIM, "state");
    at += c->state + 1;
    (void)put(v, at, c->modules, STYLE_DIM, "modules");
    at += c->modules + 1;
    (void)put(v, at, c->bar + 13, STYLE_DIM, "memory");
    at += c->bar + 14;
    put_right(v, at, 5, STYLE_DIM, "pred.");
    put_right(v, at + 6, 5, STYLE_DIM, "meas.");
    put_right(v, at + 12, 8, STYLE_DIM, "heat bat");
    v->row++;
}

static enum screen_style state_style(const json_t *d)
{
    if (is(d, "ready"))
        return STYLE_GOOD;
    if (is(d, "failed") || is(d, "lost"))
        return STYLE_BAD;
    return is(d, "idle") || is(d, "offline") ? STYLE_DIM : STYLE_BUSY;
}

static void draw_state(struct view *v, int at, int width, const json_t *d)
{
    double total = number(d, "total"), done = number(d, "done");
    bool moving = is(d, "fetching") || is(d, "loading");

    if (moving && total > 0 && done <= total)
        (void)put(v, at, width, STYLE_BUSY, "%s %.0f%%", remote_text(d, "state"),
                  100 * done / total);
    else if (json_is_true(json_object_get(d, "drained")) && is(d, "idle"))
        (void)put(v, at, width, STYLE_DIM, "drained");
    else
        (void)put(v, at, width, state_style(d), "%s", remote_text(d, "state"));
}

/* "0.27/1.07 GB", in the unit of what there may be. */
static void draw_memory(struct view *v, int at, int bar, const json_t *d)
{
    double used = number(d, "resident_bytes"), may = number(d, "memory_bytes");
    char fill[CELL_MAX], text[NUM_MAX];
    const char *unit;
    double scale = 1;
    int filled;

    if (!(may > 0) || !(used >= 0))
        return;
    num_bytes(text, whole(may));
    unit = strchr(text, ' ');
    for (double n = may; n >= 999.5 && scale < 1e12; n /= 1000)
        scale *= 1000;
    filled = used >= may ? bar : (int)(used / may * bar + 0.5);
    memset(fill, '.', (size_t)bar);
    memset(fill, '#', (size_t)filled);
    fill[bar] = '\0';
    (void)put(v, at, bar, used > may ? STYLE_BAD : STYLE_PLAIN, "%s", fill);
    put_right(v, at + bar + 1, 12, STYLE_PLAIN, "%.*f/%s", may / scale >= 99.95 ? 0 : 2,
              used / scale, unit ? text : "-");
}

static void draw_condition(struct view *v, int at, const json_t *d)
{
    const json_t *battery = json_object_get(d, "battery_percent");
    double heat = number(d, "temperature_c");

    if (heat > 0 && heat < 1000)
        put_right(v, at, 3,
                  heat >= 85   ? STYLE_BAD
                  : heat >= 70 ? STYLE_BUSY
                               : STYLE_PLAIN,
                  "%.0fC", heat);
    if (json_is_number(battery))
        put_right(v, at + 4, 5, json_number_value(battery) <= 15 ? STYLE_BAD : STYLE_PLAIN,
                  "%.0f%%%s", json_number_value(battery),
                  json_is_true(json_object_get(d, "charging")) ? "+" : "");
}

static void draw_device(struct view *v, const struct columns *c, int i)
{
    const json_t *d = v->device[i];
    enum screen_style own = colour_of(v->owner[i], STYLE_OWNER);
    char letter[2] = {letter_of(v->owner[i]), '\0'}, a[NUM_MAX], b[NUM_MAX];
    int at = 2;

    (void)put(v, 0, 1, own, "%s", letter);
    (void)put(v, at, c->name, own, "%s", remote_text(d, "name"));
    at += c->name + 1;
    draw_state(v, at, c->state, d);
    at += c->state + 1;
    (void)put(v, at, c->modules, STYLE_PLAIN, "%s", remote_text(d, "modules"));
    at += c->modules + 1;
    if (!is(d, "offline") && !is(d, "lost"))
        draw_memory(v, at, c->bar, d);
    at += c->bar + 14;
    if (has_part(d)) {
        put_right(v, at, 5, STYLE_PLAIN, "%s", ms(a, number(d, "predicted_ms")));
        put_right(v, at + 6, 5, STYLE_PLAIN, "%s", ms(b, number(d, "decode_ms")));
    }
    draw_condition(v, at + 12, d);
    v->row++;
}

/* The last of so many lines says what does not fit. */
static int shown_of(int n, int lines)
{
    return n <= lines ? n : lines > 0 ? lines - 1 : 0;
}

static void draw_more(struct view *v, int n, int shown, const char *what)
{
    if (shown == n)
        return;
    (void)put(v, 2, v->width - 2, STYLE_DIM, "and %d more %s%s", n - shown, what,
              plural(n - shown));
    v->row++;
}

static void draw_devices(struct view *v, int lines)
{
    struct columns c = columns_of(v->width);
    int shown = shown_of(v->n_devices, lines);

    draw_device_head(v, &c);
    for (int i = 0; i < shown; i++)
        draw_device(v, &c, i);
    draw_more(v, v->n_devices, shown, "device");
}

/* ---- hops ---- */

/* Within one device nothing flows. */
static bool flows(const json_t *hop)
{
    return strcmp(remote_text(hop, "from"), remote_text(hop, "to")) != 0;
}

static int n_hops(const struct view *v)
{
    const json_t *list = json_object_get(v->doc, "hops"), *hop;
    size_t i;
    int n = 0;

    json_array_foreach(list, i, hop) n += flows(hop);
    return n;
}

static void draw_hop(struct view *v, const json_t *hop, int left)
{
    const char *from = remote_text(hop, "from"), *to = remote_text(hop, "to");
    char a[NUM_MAX], b[NUM_MAX], rate[NUM_MAX], bytes[NUM_MAX];
    bool relayed = strcmp(remote_text(hop, "via"), "head") == 0;
    double latency = number(hop, "latency_ms"), per_s = number(hop, "bytes_per_s");
    double per_token = number(hop, "bytes_per_token");
    int at = left, half = (left - 6) / 2, used;

    used = put(v, 2, half, colour_of(owner_of(v, from), STYLE_OWNER), "%s", from);
    (void)put(v, 2 + used, 3, STYLE_DIM, " > ");
    (void)put(v, 5 + used, left - 6 - used, colour_of(owner_of(v, to), STYLE_OWNER), "%s", to);
    (void)put(v, at, 9, relayed ? STYLE_BUSY : STYLE_PLAIN, "%s", relayed ? "by head" : "direct");
    put_right(v, at + 9, 8, STYLE_PLAIN, "%s%s", ms(a, latency), latency > 0 ? " ms" : "");
    put_right(v, at + 18, 11, STYLE_PLAIN, "%s%s", per_s > 0 ? num_bytes(rate, whole(per_s)) : "-",
              per_s > 0 ? "/s" : "");
    put_right(v, at + 30, 9, STYLE_PLAIN, "%s",
              per_token > 0 ? num_bytes(bytes, whole(per_token)) : "-");
    put_right(v, at + 40, 5, STYLE_PLAIN, "%s", ms(a, number(hop, "predicted_ms")));
    put_right(v, at + 46, 5, STYLE_PLAIN, "%s", ms(b, number(hop, "measured_ms")));
    v->row++;
}

static void draw_hops(struct view *v, int lines)
{
    const json_t *list = json_object_get(v->doc, "hops"), *hop;
    int n = n_hops(v), shown = shown_of(n, lines), left = v->width - 51, drawn = 0;
    size_t i;

    if (left > 54)
        left = 54;
    (void)put(v, 2, left - 2, STYLE_DIM, "hop");
    (void)put(v, left, 9, STYLE_DIM, "way");
    put_right(v, left + 9, 8, STYLE_DIM, "latency");
    put_right(v, left + 18, 11, STYLE_DIM, "rate");
    put_right(v, left + 30, 9, STYLE_DIM, "per token");
    put_right(v, left + 40, 5, STYLE_DIM, "pred.");
    put_right(v, left + 46, 5, STYLE_DIM, "meas.");
    v->row++;
    json_array_foreach(list, i, hop) if (flows(hop) && drawn < shown)
    {
        draw_hop(v, hop, left);
        drawn++;
    }
    draw_more(v, n, shown, "hop");
}

/* ---- predicted against measured ---- */

struct parts {
    double token, compute, hops, head, tokens_per_s;
};

static void draw_parts_line(struct view *v, const char *what, const struct parts *p)
{
    const double values[] = {p->token, p->compute, p->hops, p->head, p->tokens_per_s};
    char buf[NUM_MAX];

    (void)put(v, 2, 14, STYLE_PLAIN, "%s", what);
    for (int i = 0; i < 5; i++)
        put_right(v, 14 + 12 * i, 11, i ? STYLE_PLAIN : STYLE_BOLD, "%s", ms(buf, values[i]));
    v->row++;
}

static void draw_parts(struct view *v)
{
    static const char *const names[] = {"in all", "computing", "on the way", "the head",
                                        "tokens/s"};
    const json_t *thought = json_object_get(v->doc, "predicted");
    const json_t *got = json_object_get(v->doc, "measured");
    const json_t *plan = json_object_get(v->doc, "plan");
    struct parts p = {number(thought, "token_ms"), sum(thought, "compute_ms"),
                      sum(thought, "hops_ms"), number(thought, "head_ms"),
                      number(thought, "tokens_per_s")};
    struct parts m = {number(got, "ms_per_token"), sum(got, "compute_ms"), sum(got, "hop_ms"),
                      number(got, "head_ms"), number(got, "tokens_per_s")};

    if (!json_is_object(thought))
        p = (struct parts){.token = number(plan, "ms_per_token"),
                           .tokens_per_s = number(plan, "tokens_per_s")};
    (void)put(v, 2, 14, STYLE_DIM, "ms per token");
    for (int i = 0; i < 5; i++)
        put_right(v, 14 + 12 * i, 11, STYLE_DIM, "%s", names[i]);
    v->row++;
    draw_parts_line(v, "predicted", &p);
    draw_parts_line(v, "measured", &m);
}

/* ---- what is the matter ---- */

static int n_troubles(const struct view *v)
{
    int n = *remote_text(v->doc, "waiting_for") != '\0';

    for (int i = 0; i < v->n_devices; i++)
        n += *remote_text(v->device[i], "trouble") != '\0';
    return n;
}

static void draw_troubles(struct view *v, int lines)
{
    const char *waits = remote_text(v->doc, "waiting_for");
    int n = n_troubles(v), shown = shown_of(n, lines), drawn = 0;

    if (*waits && drawn < shown) {
        (void)put(v, 2, v->width - 2, STYLE_BUSY, "%s", waits);
        v->row++;
        drawn++;
    }
    for (int i = 0; i < v->n_devices && drawn < shown; i++) {
        const char *trouble = remote_text(v->device[i], "trouble");
        const char *name = remote_text(v->device[i], "name");
        bool named = strncmp(trouble, name, strlen(name)) == 0; /* most sentences begin with it */

        if (!*trouble)
            continue;
        (void)put(v, 2, v->width - 2, STYLE_BAD, "%s%s%s", named ? "" : name, named ? "" : ": ",
                  trouble);
        v->row++;
        drawn++;
    }
    if (lines > 0)
        draw_more(v, n, shown, "trouble");
}

/* ---- all of it ---- */

/* Lines for each list, in a height that may be too small for all. */
struct layout {
    int devices, hops, troubles;
    bool parts, gaps;
};

enum { ALWAYS = 4, PARTS = 3 }; /* title, what goes on, the strip, the devices' head */

static int lines_of(const struct layout *l)
{
    int gaps = l->gaps ? 2 + (l->hops > 0) + l->parts + (l->troubles > 0) : 0;

    return ALWAYS + l->devices + (l->hops > 0 ? 1 + l->hops : 0) + (l->parts ? PARTS : 0) +
           l->troubles + gaps;
}

/* Gives up the next thing there is to give up: troubles beyond the first, the longer of the two
 * lists, gaps, hops, parts. False: there is nothing left. */
static bool shrink(struct layout *l)
{
    if (l->troubles > 1)
        l->troubles--;
    else if (l->hops > LIST_LEAST && l->hops >= l->devices)
        l->hops--;
    else if (l->devices > LIST_LEAST && (l->devices > 5 || !l->gaps))
        l->devices--;
    else if (l->hops > LIST_LEAST)
        l->hops--;
    else if (l->gaps)
        l->gaps = false;
    else if (l->hops > 0)
        l->hops = 0;
    else if (l->parts)
        l->parts = false;
    else if (l->troubles > 0)
        l->troubles = 0;
    else if (l->devices > 1)
        l->devices--;
    else
        return false;
    return true;
}

static struct layout layout_of(const struct view *v, int height)
{
    struct layout l = {v->n_devices, n_hops(v), n_troubles(v), true, true};

    while (lines_of(&l) > height && shrink(&l))
        ;
    while (lines_of(&l) < height && l.devices < v->n_devices) /* the last cut may have made room */
        l.devices++;
    return l;
}

static void draw_all(struct view *v, const struct layout *l)
{
    draw_title(v);
    draw_doing(v);
    v->row += l->gaps;
    draw_strip(v);
    v->row += l->gaps;
    draw_devices(v, l->devices);
    if (l->hops > 0) {
        v->row += l->gaps;
        draw_hops(v, l->hops);
    }
    if (l->parts) {
        v->row += l->gaps;
        draw_parts(v);
    }
    if (l->troubles > 0) {
        v->row += l->gaps;
        draw_troubles(v, l->troubles);
    }
}

static int within(int n, int least, int most)
{
    return n < least ? least : n > most ? most : n;
}

struct screen *top_draw(const struct top_view *of, int width, int height)
{
    struct view *v = mem_zalloc(1, sizeof *v);
    struct screen *s;
    struct layout l;
    int last;

    v->doc = of->doc;
    v->width = within(width, 20, WIDTH_MAX);
    gather(v);
    last = height != 1; /* the line at the bottom */
    l = layout_of(v, height ? within(height, 2, HEIGHT_MAX) - last : HEIGHT_MAX);
    v->height = height ? within(height, 2, HEIGHT_MAX) : lines_of(&l) + (of->lost != NULL);
    s = v->s = screen_new(v->width, v->height);
    if (v->doc)
        draw_all(v, &l);
    if (of->lost)
        screen_fade(s, STYLE_DIM);
    v->row = v->height - 1;
    if (of->lost)
        (void)put(v, 0, v->width, STYLE_ALARM, " %s ", of->lost);
    if (height && (!of->lost || screen_width_of(of->lost) + 12 < v->width))
        put_right(v, 0, v->width, STYLE_DIM, "q leaves");
    free(v);
    return s;
}
