/* Records of steps as a trace for Perfetto and Chrome's tracing page ("Trace Event Format", JSON
 * object form: complete events, "X", and names, "M"). A process is a device, with a track for what
 * it computed, what waited there and what was on the way to it. Pure; any thread. */
#ifndef LINGUA_HEAD_TRACE_H
#define LINGUA_HEAD_TRACE_H

#include <jansson.h>
#include <stddef.h>
#include <stdint.h>

/* Times in microseconds of one clock. */
struct trace_record {
    int64_t device, number, stage, rows, arrived, begun, ended, sent;
};

enum trace_track { TRACE_COMPUTE, TRACE_QUEUE, TRACE_WIRE, TRACE_HEAD };

/* The events; r is put in order. names: of the devices, strings; predicted: a list of milliseconds
 * by stage for one row, or NULL. */
json_t *trace_events(const json_t *names, struct trace_record *r, size_t n,
                     const json_t *predicted);
/* One more span of a device, on a track of r's stage and step. */
void trace_add(json_t *events, const char *what, const struct trace_record *r,
               enum trace_track track, int64_t begin, int64_t end);
void trace_name_track(json_t *events, int device, enum trace_track track, const char *name);
/* The whole document; takes events. */
json_t *trace_json(json_t *events);

#endif
