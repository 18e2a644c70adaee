/* What `lingua serve` and `lingua join` have in common: the options of a device, its name, and
 * where its log lines go. Needs nothing of the head. */
#ifndef LINGUA_CLI_MEMBER_H
#define LINGUA_CLI_MEMBER_H

#include <stdbool.h>
#include <stdint.h>

#include "base/log.h"
#include "cli/bars.h"
#include "cli/options.h"

enum { MEMBER_NAME_MAX = 64 };

struct member_options {
    const char *name, *listen, *state;
    int64_t threads; /* 0 = those that prove quickest, until member_threads */
    int64_t cap;     /* percent; 0 = not said */
    uint64_t memory; /* 0 = not said */
    bool verbose, spare;
    char host[MEMBER_NAME_MAX];
};

/* The rows of a command's option table that fill a struct member_options *o. */
#define OPTION_NAME(o)                                                                             \
    {                                                                                              \
        .name = "name", .kind = OPTION_TEXT, .value = &(o)->name, .argument = "NAME",              \
        .help = "what this device is called (default: the host's name)"                            \
    }
#define OPTION_LISTEN(o, text)                                                                     \
    {                                                                                              \
        .name = "listen", .kind = OPTION_TEXT, .value = &(o)->listen, .argument = "ADDR[:PORT]",   \
        .help = text                                                                               \
    }
#define OPTION_MEMORY(o)                                                                           \
    {                                                                                              \
        .name = "memory", .kind = OPTION_SIZE, .value = &(o)->memory, .min = 8 << 20,              \
        .max = 1ull << 50, .argument = "SIZE",                                                     \
        .help = "what this whole program may take of memory, such as\n"                            \
                "512M or 2G (default: 70 % of what is free)"                                       \
    }
#define OPTION_CORES(o)                                                                            \
    {                                                                                              \
        .name = "threads", .letter = 't', .kind = OPTION_WHOLE, .value = &(o)->threads, .min = 1,  \
        .max = 4096, .argument = "N",                                                              \
        .help = "cores to compute with (default: as many as prove quickest,\n"                     \
                "which is tried once)"                                                             \
    }
#define OPTION_CAP(o)                                                                              \
    {                                                                                              \
        .name = "cap", .kind = OPTION_WHOLE, .value = &(o)->cap, .min = 1, .max = 100,             \
        .argument = "PERCENT", .help = "busy at most that share of the time (default: 100)"        \
    }
#define OPTION_SPARE(o)                                                                            \
    {                                                                                              \
        .name = "spare", .kind = OPTION_FLAG, .value = &(o)->spare,                                \
        .help = "use this device only where it helps much: keep my laptop free"                    \
    }
#define OPTION_STATE(at)                                                                           \
    {                                                                                              \
        .name = "state", .kind = OPTION_TEXT, .value = at, .argument = "DIR",                      \
        .help = "where keys and memberships are kept, when one machine\n"                          \
                "is to be several devices"                                                         \
    }
#define OPTION_VERBOSE(o)                                                                          \
    {                                                                                              \
        .name = "verbose", .letter = 'v', .kind = OPTION_FLAG, .value = &(o)->verbose,             \
        .help = "say every event"                                                                  \
    }

/* Checks what was given and fills in what was not. Returns -1, or the exit status after saying what
 * is wrong. */
int member_settle(const char *command, struct member_options *o);

/* The thread count, where none was given: what this device is quickest with, remembered in its
 * state folder. Measures for a moment the first time. */
void member_threads(struct member_options *o, const char *state_folder);

/* Log lines as "[link] ..." above the bars; without verbose those that only explain are left out.
 * What was refused is always said. */
struct member_log {
    struct bars *bars;
    bool verbose;
};
struct log member_log(struct member_log *m);

#endif
