/* A plan as a drawing, from its document (plan_json.h). From the top: what it is and how quick; the
 * model as a bar, cut where the devices meet; a card for each stage, in rows that run to and fro,
 * with the ways between them as arrows; one token's time as a bar, predicted and, where it is
 * known, measured; the devices that are left out, and why.
 *
 * It has no scripts and no fonts of its own, follows the reader's light or dark theme, and names
 * are escaped: they come from other people's devices. */
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "head/plan_json.h"
#include "head/remote.h"

enum {
    STAGES_MAX = PLAN_STAGES_MAX + 2, /* with the head as sender and taker */
    WIDTH = 1080,
    MARGIN = 32,
    INNER = WIDTH - 2 * MARGIN,
    CARD_W = 188,
    CARD_H = 138,
    GAP_W = (INNER - 4 * CARD_W) / 3,
    GAP_H = 56,
    PER_ROW = 4,
    BAR_H = 30,
    OUT_H = 30,
};

/* Each reads well under white letters, on white and on black ground. */
static const char *const colours[] = {"#2f6fc4", "#bd5413", "#2a8452", "#8a4bb5",
                                      "#b3384e", "#177f8e", "#806a14", "#c23c78",
                                      "#5558c8", "#4c7525", "#9a4f2c", "#5f6775"};

static const char style[] =
    "<style>\n"
    "svg{font-family:system-ui,-apple-system,'Segoe UI',Roboto,'DejaVu Sans',sans-serif;"
    "font-size:12px}\n"
    ".bg{fill:#fff}.ink{fill:#1b2330}.soft{fill:#5a6575}.card{fill:#f6f7f9;stroke:#d5dae1}\n"
    ".track{fill:#e0e4ea}.way{stroke:#5a6575;fill:none}.tip{fill:#5a6575}\n"
    ".hop{fill:#9aa4b2}.head{fill:#46505f}.out{fill:none;stroke:#b8c0cb;stroke-dasharray:4 3}\n"
    ".big{font-size:20px;font-weight:600}.name{font-size:14px;font-weight:600}\n"
    ".in{fill:#fff;font-size:11px}.small{font-size:11px}.mid{text-anchor:middle}"
    ".end{text-anchor:end}\n"
    "@media (prefers-color-scheme:dark){.bg{fill:#12161c}.ink{fill:#e8ecf2}.soft{fill:#a3aebd}"
    ".card{fill:#1b212a;stroke:#343d4a}.track{fill:#343d4a}.way{stroke:#a3aebd}.tip{fill:#a3aebd}"
    ".hop{fill:#768296}.head{fill:#aab4c2}.out{stroke:#4a5564}}\n"
    "</style>\n";

/* ---- text that grows ---- */

struct text {
    char *s;
    size_t n, cap;
};

static void put_bytes(struct text *t, const char *s, size_t n)
{
    if (t->n + n + 1 > t->cap) {
        t->cap = 2 * (t->n + n + 1);
        t->s = mem_realloc(t->s, t->cap, 1);
    }
    memcpy(t->s + t->n, s, n);
    t->n += n;
    t->s[t->n] = '\0';
}

/* Markup, with nothing from outside in it but numbers. */
static void put(struct text *t, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
static void put(struct text *t, const char *fmt, ...)
{
    char buf[1024];
    va_list ap;
    int n;

    va_start(ap, fmt);
    n = vsnprintf(buf, sizeof buf, fmt, ap);
    va_end(ap);
    if (n > 0)
        put_bytes(t, buf, (size_t)n < sizeof buf ? (size_t)n : sizeof buf - 1);
}

/* The character at s, which is UTF-8 (jansson has checked it); *len gets its bytes. */
static unsigned character(const char *s, size_t *len)
{
    const unsigned char *b = (const unsigned char *)s;

    if (b[0] < 0xc0) {
        *len = 1;
        return b[0];
    }
    *len = b[0] < 0xe0 ? 2 : b[0] < 0xf0 ? 3 : 4;
    for (size_t i = 1; i < *len; i++)
        if (!b[i]) {
            *len = i;
            return '?';
        }
    if (*len == 2)
        return (b[0] & 0x1fu) << 6 | (b[1] & 0x3fu);
    if (*len == 3)
        return (b[0] & 0xfu) << 12 | (b[1] & 0x3fu) << 6 | (b[2] & 0x3fu);
    return (b[0] & 7u) << 18 | (b[1] & 0x3fu) << 12 | (b[2] & 0x3fu) << 6 | (b[3] & 0x3fu);
}

/* XML has no place for these, or they would turn the rest of the line round. */
static bool unfit(unsigned c)
{
    return c < 0x20 || (c >= 0x7f && c < 0xa0) || (c >= 0x202a && c <= 0x202e) ||
           (c >= 0x2066 && c <= 0x2069) || (c >= 0xd800 && c < 0xe000) || c == 0xfffe ||
           c == 0xffff;
}

static int columns_of(const char *s)
{
    int n = 0;

    for (size_t len; *s; s += len)
        n += character(s, &len) >= 0x1100 ? 2 : 1;
    return n;
}

/* Words from anywhere, escaped, and cut to as many columns. */
static void put_words(struct text *t, const char *s, int columns)
{
    bool whole = columns_of(s) <= columns;
    int left = whole ? columns : columns - 1;

    for (size_t len; *s; s += len) {
        unsigned c = character(s, &len);

        left -= c >= 0x1100 ? 2 : 1;
        if (left < 0)
            break;
        if (c == '<')
            put(t, "&lt;");
        else if (c == '>')
            put(t, "&gt;");
        else if (c == '&')
            put(t, "&amp;");
        else if (c == '"')
            put(t, "&quot;");
        else if (c == '\'')
            put(t, "&#39;");
        else if (unfit(c))
            put(t, "?");
        else
            put_bytes(t, s, len);
    }
    if (!whole)
        put(t, "\xe2\x80\xa6");
}

static void put_text(struct text *t, double x, double y, const char *class, const char *s,
                     int columns)
{
    put(t, "<text x=\"%.1f\" y=\"%.1f\" class=\"%s\">", x, y, class);
    put_words(t, s, columns);
    put(t, "</text>\n");
}

/* paint: a class of the style, or a colour. */
static void put_box(struct text *t, double x, double y, double w, double h, const char *paint)
{
    put(t, "<rect x=\"%.2f\" y=\"%.2f\" width=\"%.2f\" height=\"%.2f\" %s=\"%s\"/>\n", x, y,
        w > 0 ? w : 0, h, paint[0] == '#' ? "fill" : "class", paint);
}

/* ---- what the document says ---- */

/* Sums of these are finite, too. */
static double bounded(double v)
{
    return v > 0 ? fmin(v, 1e15) : 0;
}

static double number(const json_t *o, const char *key)
{
    return bounded(json_number_value(json_object_get(o, key)));
}

static double number_at(const json_t *list, int i)
{
    return bounded(json_number_value(json_array_get(list, (size_t)i)));
}

/* Three digits that matter. */
static const char *ms_text(char buf[32], double ms)
{
    if (ms < 0.005)
        snprintf(buf, 32, "0 ms");
    else if (ms < 999.5)
        snprintf(buf, 32, ms < 0.995 ? "%.2f ms" : ms < 99.95 ? "%.1f ms" : "%.0f ms", ms);
    else
        snprintf(buf, 32, "%.*f s", ms < 99950, ms / 1000);
    return buf;
}

static const char *bytes_text(char buf[32], double bytes)
{
    static const char *const units[] = {"B", "kB", "MB", "GB", "TB"};
    int u = 0;

    while (bytes >= 999.5 && u < 4) {
        bytes /= 1000;
        u++;
    }
    snprintf(buf, 32, u && bytes < 9.95 ? "%.1f %s" : "%.0f %s", bytes, units[u]);
    return buf;
}

/* A card: a stage, or the head in front of the first or behind the last, if it has neither. */
struct node {
    const json_t *device, *stage; /* stage: NULL if it only sends or takes */
    int colour;
    bool again;        /* its device had a card before */
    const json_t *hop; /* the way to it; NULL for the first */
};

struct drawing {
    struct text t;
    const json_t *doc, *devices, *stages, *hops, *prediction, *measured;
    int n_modules, n_stages, n_nodes, n_out;
    struct node node[STAGES_MAX];
};

static const json_t *device_of(const struct drawing *d, const json_t *o, const char *key, int *at)
{
    json_int_t i = json_integer_value(json_object_get(o, key));

    if (i < 0 || i >= (json_int_t)json_array_size(d->devices))
        i = 0;
    *at = (int)i;
    return json_array_get(d->devices, (size_t)i);
}

static void node_add(struct drawing *d, const json_t *device, int colour, const json_t *stage,
                     const json_t *hop)
{
    struct node *n = &d->node[d->n_nodes];

    *n = (struct node){device, stage, colour, false, d->n_nodes ? hop : NULL};
    for (int i = 0; i < d->n_nodes; i++)
        n->again |= d->node[i].device == device;
    d->n_nodes++;
}

static bool crosses(const json_t *hop)
{
    return json_integer_value(json_object_get(hop, "from")) !=
           json_integer_value(json_object_get(hop, "to"));
}

static void read(struct drawing *d, const json_t *document)
{
    const json_t *device, *hop;
    int at;

    *d = (struct drawing){.doc = document,
                          .devices = json_object_get(document, "devices"),
                          .stages = json_object_get(document, "stages"),
                          .hops = json_object_get(document, "hops"),
                          .prediction = json_object_get(document, "prediction"),
                          .measured = json_object_get(document, "measured")};
    d->n_modules =
        (int)fmin(fmax(1, number(json_object_get(document, "model"), "n_modules")), 1 << 20);
    d->n_stages = (int)fmin((double)json_array_size(d->stages), PLAN_STAGES_MAX);
    hop = json_array_get(d->hops, 0);
    if (hop && crosses(hop)) {
        device = device_of(d, hop, "from", &at);
        node_add(d, device, at, NULL, NULL);
    }
    for (int s = 0; s < d->n_stages; s++) {
        const json_t *stage = json_array_get(d->stages, (size_t)s);

        device = device_of(d, stage, "device", &at);
        node_add(d, device, at, stage, json_array_get(d->hops, (size_t)s));
    }
    hop = json_array_get(d->hops, (size_t)d->n_stages);
    if (hop && crosses(hop)) {
        device = device_of(d, hop, "to", &at);
        node_add(d, device, at, NULL, hop);
    }
    for (size_t i = 0; i < json_array_size(d->devices); i++)
        d->n_out += !json_is_true(json_object_get(json_array_get(d->devices, i), "used"));
}

static const char *colour_of(int device)
{
    return colours[(size_t)device % ARRAY_LEN(colours)];
}

/* ---- the parts ---- */

/* Where the modules of a stage lie in a bar of the whole model. */
static void segment(const struct drawing *d, const json_t *stage, double width, double *x,
                    double *w)
{
    double first = fmin(number(stage, "first"), d->n_modules);
    double end = fmin(fmax(number(stage, "end"), first), d->n_modules);

    *x = width * first / d->n_modules;
    *w = width * (end - first) / d->n_modules;
}

static void draw_head(struct drawing *d)
{
    double per_s = number(d->prediction, "tokens_per_s");
    double streams = number(d->doc, "concurrency");
    const json_t *model = json_object_get(d->doc, "model");
    char ms[32], ttft[32], line[256];

    snprintf(line, sizeof line, "%.120s, %.30s", remote_text(model, "name"),
             remote_text(model, "quantisation"));
    put_text(&d->t, MARGIN, 44, "ink big", line, 70);
    snprintf(line, sizeof line,
             "%.*f tokens/s for %.0f stream%s; %s per token, first token after %s for a prompt of "
             "%.0f",
             per_s < 9.995 ? 2 : per_s < 99.95, per_s, streams, streams == 1 ? "" : "s",
             ms_text(ms, number(d->prediction, "ms_per_token")),
             ms_text(ttft, number(d->prediction, "ttft_ms")), number(d->doc, "prompt"));
    put_text(&d->t, MARGIN, 68, "ink", line, 150);
    snprintf(line, sizeof line, "Limited by: %.200s", remote_text(d->doc, "limit"));
    put_text(&d->t, MARGIN, 88, "soft", line, 150);
}

static void draw_model(struct drawing *d, double y)
{
    put_text(&d->t, MARGIN, y - 8, "soft small", "the model, cut into segments", 60);
    put_box(&d->t, MARGIN, y, INNER, BAR_H, "track");
    for (int i = 0; i < d->n_nodes; i++) {
        const struct node *n = &d->node[i];
        double x, w;

        if (!n->stage)
            continue;
        segment(d, n->stage, INNER, &x, &w);
        put_box(&d->t, MARGIN + x, y, w - 1, BAR_H, colour_of(n->colour));
        if (w > 40)
            put_text(&d->t, MARGIN + x + w / 2, y + 19, "in mid", remote_text(n->device, "name"),
                     (int)(w / 7.4));
    }
}

/* Cards run to the right in even rows, and back in odd ones. */
static double card_x(int i)
{
    int column = i / PER_ROW % 2 ? PER_ROW - 1 - i % PER_ROW : i % PER_ROW;

    return MARGIN + column * (CARD_W + GAP_W);
}

static double card_y(int i, double top)
{
    return top + (double)(i / PER_ROW) * (CARD_H + GAP_H);
}

static void draw_memory(struct drawing *d, const struct node *n, double x, double y)
{
    double planned = number(n->device, "planned_bytes"), budget = number(n->device, "memory_bytes");
    double w = CARD_W - 28;
    char a[32], b[32], line[96];

    if (budget > 0)
        snprintf(line, sizeof line, "%s of %s memory", bytes_text(a, planned),
                 bytes_text(b, budget));
    else
        snprintf(line, sizeof line, "%s memory, no limit", bytes_text(a, planned));
    put_text(&d->t, x, y, "soft small", line, 34);
    if (!(budget > 0))
        return;
    put_box(&d->t, x, y + 5, w, 5, "track");
    put_box(&d->t, x, y + 5, w * fmin(planned / budget, 1), 5, colour_of(n->colour));
}

static void draw_stage(struct drawing *d, const struct node *n, double x, double y)
{
    double strip = CARD_W - 28, at, w, busy = 100 * number(n->device, "busy");
    char ms[32], line[64];

    put_text(&d->t, x + 14, y + 44, "ink small", remote_text(n->stage, "modules"), 27);
    put_box(&d->t, x + 14, y + 51, strip, 6, "track");
    segment(d, n->stage, strip, &at, &w);
    put_box(&d->t, x + 14 + at, y + 51, fmax(w, 2), 6, colour_of(n->colour));
    if (!n->again)
        draw_memory(d, n, x + 14, y + 77);
    put_text(&d->t, x + 14, y + 118, "ink name", ms_text(ms, number(n->stage, "compute_ms")), 16);
    if (n->again)
        return;
    snprintf(line, sizeof line, "busy %.0f %%", fmin(busy, 100));
    put_text(&d->t, x + CARD_W - 14, y + 118, "soft small end", line, 16);
}

static void draw_card(struct drawing *d, int i, double top)
{
    const struct node *n = &d->node[i];
    double x = card_x(i), y = card_y(i, top);
    const char *role = n->again                                           ? "again"
                       : json_is_true(json_object_get(n->device, "head")) ? "head"
                                                                          : "";

    put(&d->t, "<rect x=\"%.1f\" y=\"%.1f\" width=\"%d\" height=\"%d\" rx=\"8\" class=\"card\"/>\n",
        x, y, CARD_W, CARD_H);
    put(&d->t, "<path d=\"M%.1f %.1fv-%d\" stroke=\"%s\" stroke-width=\"4\"/>\n", x + 2,
        y + CARD_H - 9, CARD_H - 18, colour_of(n->colour));
    put(&d->t, "<text x=\"%.1f\" y=\"%.1f\" class=\"ink name\">", x + 14, y + 25);
    put_words(&d->t, remote_text(n->device, "name"), *role ? 13 : 17);
    put(&d->t, " <tspan class=\"soft small\">%s</tspan></text>\n", role);
    if (n->stage)
        draw_stage(d, n, x, y);
    else
        put_text(&d->t, x + 14, y + 44, "soft small",
                 i == 0 ? "sends the tokens" : "takes the result", 27);
}

/* What the way is like, in two lines around (x, y). */
static void draw_hop_text(struct drawing *d, const json_t *hop, double x, double y,
                          const char *class)
{
    const json_t *rate = json_object_get(hop, "rate_mbit");
    char ms[32], line[48], classes[48];

    snprintf(classes, sizeof classes, "ink small %s", class);
    put_text(&d->t, x, y - 7, classes, ms_text(ms, number(hop, "hop_ms")), 14);
    if (!json_is_number(rate))
        return;
    snprintf(line, sizeof line, number(hop, "rate_mbit") < 9.95 ? "%.1f Mbit/s" : "%.0f Mbit/s",
             number(hop, "rate_mbit"));
    snprintf(classes, sizeof classes, "soft small %s", class);
    put_text(&d->t, x, y + 16, classes, line, 14);
}

static void draw_hop(struct drawing *d, int i, double top)
{
    double x = card_x(i - 1), y = card_y(i - 1, top), to_y = card_y(i, top);
    bool back = i / PER_ROW % 2;

    if (!d->node[i].hop)
        return;
    if (i % PER_ROW == 0) {
        x += CARD_W / 2.0;
        put(&d->t, "<path d=\"M%.1f %.1fv%d\" class=\"way\"/>\n", x, y + CARD_H + 4, GAP_H - 14);
        put(&d->t, "<path d=\"M%.1f %.1fl-4 -8h8z\" class=\"tip\"/>\n", x, to_y - 3);
        draw_hop_text(d, d->node[i].hop, x + 12, y + CARD_H + GAP_H / 2.0 - 3, "");
        return;
    }
    x = back ? card_x(i) + CARD_W : x + CARD_W;
    y += CARD_H / 2.0;
    put(&d->t, "<path d=\"M%.1f %.1fh%d\" class=\"way\"/>\n", x + 5, y, GAP_W - 10);
    if (back)
        put(&d->t, "<path d=\"M%.1f %.1fl8 -4v8z\" class=\"tip\"/>\n", x + 4, y);
    else
        put(&d->t, "<path d=\"M%.1f %.1fl-8 -4v8z\" class=\"tip\"/>\n", x + GAP_W - 4, y);
    draw_hop_text(d, d->node[i].hop, x + GAP_W / 2.0, y, "mid");
}

/* ---- one token's time ---- */

static double sum_of(const json_t *list)
{
    double sum = 0;

    for (size_t i = 0; i < json_array_size(list); i++)
        sum += number_at(list, (int)i);
    return sum;
}

static double parts_ms(const json_t *time)
{
    return sum_of(json_object_get(time, "compute_ms")) + sum_of(json_object_get(time, "hop_ms")) +
           number(time, "head_ms");
}

static void draw_part(struct drawing *d, double *x, double y, double w, const char *paint,
                      const char *name)
{
    put_box(&d->t, *x, y, w - 0.6, BAR_H, paint);
    if (name && w > 40)
        put_text(&d->t, *x + w / 2, y + 19, "in mid", name, (int)(w / 7.4));
    *x += w;
}

/* A bar of one time, scale pixels per millisecond. */
static void draw_time(struct drawing *d, const json_t *time, double y, double scale)
{
    const json_t *compute = json_object_get(time, "compute_ms");
    const json_t *hops = json_object_get(time, "hop_ms");
    double x = MARGIN;

    for (int s = 0; s <= d->n_stages; s++) {
        const json_t *device;
        int at;

        draw_part(d, &x, y, scale * number_at(hops, s), "hop", NULL);
        if (s == d->n_stages)
            break;
        device = device_of(d, json_array_get(d->stages, (size_t)s), "device", &at);
        draw_part(d, &x, y, scale * number_at(compute, s), colour_of(at),
                  remote_text(device, "name"));
    }
    draw_part(d, &x, y, scale * number(time, "head_ms"), "head", NULL);
}

/* A running head learns from what it measures, so that what is predicted now is not what was
 * predicted then. */
static void time_words(const json_t *time, const char *what, char *buf, size_t cap)
{
    const json_t *error = json_object_get(time, "error_percent");
    const json_t *was = json_object_get(time, "predicted");
    char all[32], compute[32], hops[32], head[32], then[32], tail[96] = "";

    if (json_is_number(error) && json_is_object(was))
        snprintf(tail, sizeof tail, "; before that %s were predicted (%+.1f %%)",
                 ms_text(then, number(was, "ms_per_token")), json_number_value(error));
    else if (json_is_number(error))
        snprintf(tail, sizeof tail, "; the prediction is off by %+.1f %%",
                 json_number_value(error));
    snprintf(buf, cap, "%s: %s per token = %s computing + %s on the way + %s at the head%s", what,
             ms_text(all, number(time, "ms_per_token")),
             ms_text(compute, sum_of(json_object_get(time, "compute_ms"))),
             ms_text(hops, sum_of(json_object_get(time, "hop_ms"))),
             ms_text(head, number(time, "head_ms")), tail);
}

/* Only of the plan that is drawn: what runs may be another one. */
static bool has_measured(const struct drawing *d)
{
    const json_t *stages = json_object_get(d->measured, "stages");

    for (size_t s = 0; s < json_array_size(stages); s++) {
        const json_t *o = json_array_get(d->stages, s), *was = json_array_get(stages, s);
        int at;

        if (strcmp(remote_text(o, "modules"), remote_text(was, "modules")) != 0 ||
            strcmp(remote_text(device_of(d, o, "device", &at), "name"), remote_text(was, "name")))
            return false;
    }
    return parts_ms(d->measured) > 0;
}

static void draw_times(struct drawing *d, double y)
{
    double most = fmax(parts_ms(d->prediction), has_measured(d) ? parts_ms(d->measured) : 0);
    double scale = INNER / fmax(most, 1e-9);
    char line[256];

    time_words(d->prediction, "predicted", line, sizeof line);
    put_text(&d->t, MARGIN, y, "soft small", line, 160);
    draw_time(d, d->prediction, y + 8, scale);
    if (!has_measured(d))
        return;
    time_words(d->measured, "measured", line, sizeof line);
    put_text(&d->t, MARGIN, y + BAR_H + 28, "soft small", line, 160);
    draw_time(d, d->measured, y + BAR_H + 36, scale);
}

/* ---- who is left out ---- */

static void draw_out(struct drawing *d, double y)
{
    put_text(&d->t, MARGIN, y - 8, "soft small", "left out", 20);
    for (size_t i = 0; i < json_array_size(d->devices); i++) {
        const json_t *o = json_array_get(d->devices, i);

        if (json_is_true(json_object_get(o, "used")))
            continue;
        put(&d->t,
            "<rect x=\"%d\" y=\"%.1f\" width=\"%d\" height=\"%d\" rx=\"6\" class=\"out\"/>\n",
            MARGIN, y, INNER, OUT_H - 6);
        put_text(&d->t, MARGIN + 12, y + 16, "soft", remote_text(o, "name"), 26);
        put_text(&d->t, MARGIN + 210, y + 16, "soft small", remote_text(o, "why"), 125);
        y += OUT_H;
    }
}

/* ---- the whole ---- */

/* The same in words, for those who do not see it. */
static void draw_words(struct drawing *d)
{
    put(&d->t, "<title id=\"t\">What goes where: ");
    put_words(&d->t, remote_text(json_object_get(d->doc, "model"), "name"), 120);
    put(&d->t, "</title>\n<desc id=\"d\">");
    for (int i = 0; i < d->n_nodes; i++) {
        char ms[32];

        if (!d->node[i].stage)
            continue;
        put_words(&d->t, remote_text(d->node[i].device, "name"), 64);
        put(&d->t, " holds ");
        put_words(&d->t, remote_text(d->node[i].stage, "modules"), 64);
        put(&d->t, " and computes %s per token. ",
            ms_text(ms, number(d->node[i].stage, "compute_ms")));
    }
    put(&d->t, "Limited by: ");
    put_words(&d->t, remote_text(d->doc, "limit"), 200);
    put(&d->t, ".</desc>\n");
}

char *plan_svg(const json_t *document)
{
    struct drawing *d = mem_zalloc(1, sizeof *d);
    int n_rows;
    double cards = 178, times, out, height;
    char *svg;

    read(d, document);
    n_rows = (d->n_nodes + PER_ROW - 1) / PER_ROW;
    times = cards + n_rows * (CARD_H + GAP_H) - GAP_H + 44;
    out = times + 8 + BAR_H + (has_measured(d) ? BAR_H + 28 : 0) + 44;
    height = d->n_out ? out + d->n_out * OUT_H + 18 : out - 16;
    put(&d->t,
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 %d %.0f\" width=\"%d\" "
        "height=\"%.0f\" role=\"img\" aria-labelledby=\"t d\">\n",
        WIDTH, height, WIDTH, height);
    draw_words(d);
    put(&d->t, "%s", style);
    put_box(&d->t, 0, 0, WIDTH, height, "bg");
    draw_head(d);
    draw_model(d, 122);
    for (int i = 0; i < d->n_nodes; i++) {
        draw_card(d, i, cards);
        if (i > 0)
            draw_hop(d, i, cards);
    }
    draw_times(d, times);
    if (d->n_out)
        draw_out(d, out);
    put(&d->t, "</svg>\n");
    svg = d->t.s;
    free(d);
    return svg;
}
