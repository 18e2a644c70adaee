#include "head/trace.h"

#include <stdio.h>
#include <stdlib.h>

static int by_step(const void *a, const void *b)
{
    const struct trace_record *x = a, *y = b;

    if (x->number != y->number)
        return x->number < y->number ? -1 : 1;
    return x->stage < y->stage ? -1 : x->stage > y->stage;
}

/* pid is the device, tid the track. Gives the span's arguments, borrowed. */
static json_t *add_span(json_t *events, const char *what, const struct trace_record *r,
                        enum trace_track track, int64_t begin, int64_t end)
{
    char name[64];
    json_t *span;

    if (end < begin) /* two clocks that agree to some microseconds only */
        end = begin;
    snprintf(name, sizeof name, "%s step %lld stage %lld", what, (long long)r->number,
             (long long)r->stage);
    span =
        json_pack("{s:s, s:s, s:s, s:I, s:I, s:I, s:i, s:{s:I, s:I, s:I}}", "name", name, "cat",
                  what, "ph", "X", "ts", (json_int_t)begin, "dur", (json_int_t)(end - begin), "pid",
                  (json_int_t)r->device, "tid", (int)track, "args", "step", (json_int_t)r->number,
                  "stage", (json_int_t)r->stage, "rows", (json_int_t)r->rows);
    json_array_append_new(events, span);
    return json_object_get(span, "args");
}

void trace_add(json_t *events, const char *what, const struct trace_record *r,
               enum trace_track track, int64_t begin, int64_t end)
{
    (void)add_span(events, what, r, track, begin, end);
}

static void add_name(json_t *events, const char *kind, json_int_t pid, int tid, const char *name)
{
    json_array_append_new(events, json_pack("{s:s, s:s, s:I, s:i, s:{s:s}}", "name", kind, "ph",
                                            "M", "pid", pid, "tid", tid, "args", "name", name));
}

void trace_name_track(json_t *events, int device, enum trace_track track, const char *name)
{
    add_name(events, "thread_name", device, (int)track, name);
}

json_t *trace_events(const json_t *names, struct trace_record *r, size_t n, const json_t *predicted)
{
    json_t *events = json_array();

    if (n)
        qsort(r, n, sizeof *r, by_step);
    for (size_t i = 0; i < json_array_size(names); i++) {
        const char *name = json_string_value(json_array_get(names, i));

        add_name(events, "process_name", (json_int_t)i, 0, name ? name : "?");
        trace_name_track(events, (int)i, TRACE_COMPUTE, "compute");
        trace_name_track(events, (int)i, TRACE_QUEUE, "queue");
        trace_name_track(events, (int)i, TRACE_WIRE, "wire (arriving)");
    }
    for (size_t i = 0; i < n; i++) {
        const struct trace_record *before = i && r[i - 1].number == r[i].number ? &r[i - 1] : NULL;
        json_t *thought = json_array_get(predicted, (size_t)r[i].stage), *args;

        if (before && before->device != r[i].device)
            (void)add_span(events, "wire", &r[i], TRACE_WIRE, before->sent, r[i].arrived);
        (void)add_span(events, "queue", &r[i], TRACE_QUEUE, r[i].arrived, r[i].begun);
        args = add_span(events, "compute", &r[i], TRACE_COMPUTE, r[i].begun, r[i].ended);
        if (r[i].rows == 1 && json_is_real(thought))
            json_object_set(args, "predicted_ms", thought);
    }
    return events;
}

json_t *trace_json(json_t *events)
{
    return json_pack("{s:o, s:s}", "traceEvents", events, "displayTimeUnit", "ms");
}
