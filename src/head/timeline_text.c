/* The timeline, and its trace, as JSON text. The spans, which are many, are written by hand: they
 * are numbers and four words. */
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/check.h"
#include "base/mem.h"
#include "head/timeline.h"
#include "head/trace.h"

enum { MS_DIGITS = 9, SPAN_TEXT_MAX = 128 };

/* ---- by part ---- */

static json_t *ms(double us)
{
    return json_real(us / 1e3);
}

static json_t *ms_list(const double *us, int n)
{
    json_t *list = json_array();

    for (int i = 0; i < n; i++)
        json_array_append_new(list, ms(us[i]));
    return list;
}

static json_t *parts_json(const struct timeline_parts *p, int n_stages)
{
    return json_pack("{s:o, s:o, s:o, s:o, s:o, s:o, s:o}", "queue_ms", ms(p->queue), "head_ms",
                     ms(p->head), "compute_ms", ms_list(p->compute, n_stages), "wait_ms",
                     ms_list(p->wait, n_stages), "wire_ms",
                     ms_list(p->wire, n_stages ? n_stages + 1 : 0), "other_ms", ms(p->other),
                     "total_ms", ms(p->total));
}

static json_t *predicted_json(const struct timeline_in *in)
{
    json_t *compute, *hops;

    if (!in->predicted)
        return json_null();
    compute = json_array();
    hops = json_array();
    for (int s = 0; s < in->n_stages; s++)
        json_array_append_new(compute, json_real(1e3 * in->compute_s[s]));
    for (int s = 0; s <= in->n_stages; s++)
        json_array_append_new(hops, json_real(1e3 * in->hop_s[s]));
    return json_pack("{s:o, s:o, s:f}", "compute_ms", compute, "hops_ms", hops, "head_ms",
                     1e3 * in->head_s);
}

/* ---- lanes ---- */

static json_t *text_json(const char *text)
{
    json_t *s = json_string(text);

    return s ? s : json_string("?");
}

static json_t *lanes_json(const struct timeline_in *in)
{
    json_t *list = json_array();

    json_array_append_new(list, json_pack("{s:s, s:o, s:i}", "name", "head", "device",
                                          text_json(in->head), "stage", -1));
    for (int s = 0; s < in->n_stages; s++) {
        const struct timeline_stage *st = &in->stage[s];
        char *name = mem_printf("%s: %s", st->name, st->modules);

        json_array_append_new(list, json_pack("{s:o, s:o, s:i}", "name", text_json(name), "device",
                                              text_json(st->name), "stage", s));
        free(name);
    }
    return list;
}

/* ---- all of it ---- */

static const char *const kind_names[TIMELINE_KINDS] = {
    [TIMELINE_COMPUTE] = "compute", [TIMELINE_WIRE] = "wire",   [TIMELINE_WAIT] = "wait",
    [TIMELINE_HEAD] = "head",       [TIMELINE_QUEUE] = "queue",
};

/* head ends in "}", which the spans are put in front of. Takes head. */
static char *with_spans(char *head, const struct timeline *t, size_t *len)
{
    size_t n = strlen(head);
    char *text = mem_realloc(head, n + 16 + (size_t)t->n_spans * SPAN_TEXT_MAX, 1);

    CHECK(n && text[n - 1] == '}');
    n += (size_t)sprintf(text + n - 1, ",\"spans\":[") - 1;
    for (int i = 0; i < t->n_spans; i++) {
        const struct timeline_span *s = &t->spans[i];

        n += (size_t)snprintf(
            text + n, SPAN_TEXT_MAX, "%s[%d,\"%s\",%" PRId64 ",%" PRId64 ",%" PRIu64 ",%d]",
            i ? "," : "", s->lane, kind_names[s->kind], s->start_us, s->end_us, s->step, s->rows);
    }
    n += (size_t)sprintf(text + n, "]}");
    *len = n;
    return text;
}

char *timeline_text(const struct timeline_in *in, size_t *len)
{
    struct timeline t;
    json_t *o;
    char *text;

    timeline_make(in, &t);
    o = json_pack("{s:s, s:b, s:i, s:i, s:i, s:I, s:o, s:o, s:o, s:o, s:o, s:o}", "state",
                  !in->id       ? "none"
                  : in->running ? "running"
                                : "done",
                  "complete", (int)t.complete, "tokens", in->n_tokens, "prompt_tokens",
                  in->n_prompt, "cached_tokens", in->n_cached, "ended_us",
                  (json_int_t)(in->ended_us - in->begun_us), "first_us",
                  in->first_us ? json_integer(in->first_us - in->begun_us) : json_null(), "lanes",
                  lanes_json(in), "parts", parts_json(&t.all, in->n_stages), "first",
                  parts_json(&t.first, in->n_stages), "rest", parts_json(&t.rest, in->n_stages),
                  "predicted", predicted_json(in));
    text = json_dumps(o, JSON_COMPACT | JSON_REAL_PRECISION(MS_DIGITS));
    json_decref(o);
    CHECK(text);
    text = with_spans(text, &t, len);
    timeline_fini(&t);
    return text;
}

/* ---- as a trace ---- */

static json_t *names_json(const struct timeline_in *in)
{
    json_t *names = json_array();

    json_array_append_new(names, text_json(in->head));
    for (int s = 0; s < in->n_stages; s++) {
        while (json_array_size(names) <= (size_t)in->stage[s].device)
            json_array_append_new(names, json_string("?"));
        json_array_set_new(names, (size_t)in->stage[s].device, text_json(in->stage[s].name));
    }
    return names;
}

/* What no device has a record of: the head's work, and the ways from it and back to it. */
static void add_others(const struct timeline_in *in, const struct timeline *t, json_t *events)
{
    trace_name_track(events, 0, TRACE_HEAD, "head");
    for (int i = 0; i < t->n_spans; i++) {
        const struct timeline_span *s = &t->spans[i];
        struct trace_record r = {.number = (int64_t)s->step, .stage = s->lane - 1, .rows = s->rows};

        r.device = s->lane ? in->stage[r.stage].device : 0;
        if (s->kind == TIMELINE_WIRE && s->lane < 2)
            trace_add(events, "wire", &r, TRACE_WIRE, s->start_us, s->end_us);
        else if (s->kind == TIMELINE_HEAD || s->kind == TIMELINE_QUEUE)
            trace_add(events, kind_names[s->kind], &r, TRACE_HEAD, s->start_us, s->end_us);
    }
}

char *timeline_trace_text(const struct timeline_in *in, size_t *len)
{
    struct timeline t;
    struct trace_record *r;
    json_t *names = names_json(in), *predicted = predicted_json(in), *events, *o;
    char *text;

    timeline_make(in, &t);
    r = mem_alloc(((size_t)in->n_steps * (size_t)in->n_stages + 1) * sizeof *r);
    events =
        trace_events(names, r, timeline_records(in, r), json_object_get(predicted, "compute_ms"));
    add_others(in, &t, events);
    o = trace_json(events);
    text = json_dumps(o, JSON_COMPACT | JSON_REAL_PRECISION(MS_DIGITS));
    CHECK(text);
    *len = strlen(text);
    json_decref(o);
    json_decref(names);
    json_decref(predicted);
    free(r);
    timeline_fini(&t);
    return text;
}
