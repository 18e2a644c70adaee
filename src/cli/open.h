/* Opening a model the way every command does: the default one when none is named, progress while it
 * loads, and warnings where it will not be what was asked for. */
#ifndef LINGUA_CLI_OPEN_H
#define LINGUA_CLI_OPEN_H

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#include "api/json.h" /* json_text */
#include "cli/options.h"
#include "lingua/lingua.h"

struct open_options {
    int64_t threads, ctx; /* 0 = the library's choice */
    int kv;               /* enum ll_kv */
    const char *split;
    const char *cluster; /* not NULL: the running cluster whose head keeps its state there; "" =
                            the usual place */
    bool any_ctx; /* speed alone is measured: no warning about a context beyond the trained one */
};

extern const char *const open_kv_names[]; /* in the order of enum ll_kv */

/* The rows of a command's option table that fill a struct open_options *o. */
#define OPTION_THREADS(o)                                                                          \
    {                                                                                              \
        .name = "threads", .letter = 't', .kind = OPTION_WHOLE, .value = &(o)->threads, .min = 1,  \
        .max = 4096, .argument = "N", .help = "threads over all devices (default: all cores)"      \
    }
#define OPTION_CTX(o, text)                                                                        \
    {                                                                                              \
        .name = "ctx", .kind = OPTION_WHOLE, .value = &(o)->ctx, .min = 2, .max = 1 << 24,         \
        .argument = "N", .help = text                                                              \
    }
#define OPTION_KV(o)                                                                               \
    {                                                                                              \
        .name = "kv", .kind = OPTION_CHOICE, .value = &(o)->kv, .choices = open_kv_names,          \
        .argument = "f16|q8_0|f32", .help = "how keys and values are kept (default: f16)"          \
    }
#define OPTION_SPLIT(o)                                                                            \
    {                                                                                              \
        .name = "split", .kind = OPTION_TEXT, .value = &(o)->split, .argument = "N|RANGES",        \
        .help = "over N device processes on this machine, or explicit\n"                           \
                "module ranges, one per device: 0-5,6-13,14- (0-4+13\n"                            \
                "gives a device two; lingua inspect lists modules)"                                \
    }

/* model NULL = the default model. Returns 0, or says what is wrong and returns the exit status. */
int engine_open(const char *model, const struct open_options *o, struct ll_engine **out);

/* The same of a running cluster (o->cluster), saying what it waits for. */
int cluster_engine_open(const struct open_options *o, struct ll_engine **out);

/* The path engine_open would use. gives *path: free with free(). The same returns. */
int model_path_find(const char *model, char **path);

/* Says an error of the library; returns STATUS_FAILED. */
int fail(const struct ll_error *error);

/* Who held what, and how it went. */
void devices_print(struct ll_engine *engine, FILE *f);
void cluster_devices_print(struct ll_engine *engine, FILE *f); /* what matters of a cluster */
json_t *devices_json(struct ll_engine *engine);

/* Prints value on stdout with a newline and frees it; the exit status. */
int json_print(json_t *value);

#endif
