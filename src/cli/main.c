/* The program: finds the command and calls it. */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#ifdef __GLIBC__
#include <malloc.h>
#endif

#include "base/words.h"
#include "cli/cmd.h"
#include "cli/options.h"
#include "cli/say.h"
#include "lingua/lingua.h"
#include "model/model.h"

enum { LARGE_BLOCK = 1 << 20 };

static int cmd_help(int argc, char **argv);
static int cmd_version(int argc, char **argv);

static const struct command {
    const char *name;
    int (*run)(int argc, char **argv);
    const char *summary; /* NULL: not for people */
} commands[] = {
#ifndef LINGUA_JOIN_ONLY
    {"run", cmd_run, "generate text, or chat when no prompt is given"},
    {"serve", cmd_serve, "be the head of a cluster: own the model, let other devices join"},
#endif
    {"join", cmd_join, "lend this device to a cluster"},
#ifndef LINGUA_JOIN_ONLY
    {"devices", cmd_devices, "who belongs to the cluster and how they are; invite, revoke"},
    {"top", cmd_top, "the cluster as it is just now, on a terminal that it keeps up to date"},
    {"plan", cmd_plan, "what goes where and why, predicted and measured; what-if on paper"},
    {"bench", cmd_bench, "measure prefill and decode in tokens per second"},
    {"perplexity", cmd_perplexity, "how well a model predicts a text"},
    {"classify", cmd_classify, "which of some labels fits a text, by how likely each is"},
    {"inspect", cmd_inspect, "a model's modules, their sizes and costs, and where it can be cut"},
#endif
    {"help", cmd_help, "this, or more about one command: lingua help COMMAND"},
    {"version", cmd_version, "the version"},
    {"device", cmd_device, NULL},
};
enum { N_COMMANDS = sizeof commands / sizeof commands[0] };

static const struct command *command_find(const char *name)
{
    for (int i = 0; i < N_COMMANDS; i++)
        if (strcmp(commands[i].name, name) == 0)
            return &commands[i];
    return NULL;
}

static void overview(FILE *f)
{
#ifdef LINGUA_JOIN_ONLY
    fprintf(f, "lingua runs a language model on several devices as one. This program can lend its\n"
               "device; the one that has the model runs the full program (lingua serve).\n\n"
               "usage: lingua COMMAND [OPTIONS]\n\n");
#else
    fprintf(f, "lingua runs a language model on one device, or on several as one.\n\n"
               "usage: lingua COMMAND [MODEL] [OPTIONS]\n\n");
#endif
    for (int i = 0; i < N_COMMANDS; i++)
        if (commands[i].summary)
            fprintf(f, "  %-12s %s\n", commands[i].name, commands[i].summary);
#ifndef LINGUA_JOIN_ONLY
    fprintf(f,
            "\nMODEL is a GGUF file; without one a small storyteller is fetched once and used.\n"
            "Try: lingua run -p \"Once upon a time\"\n\n"
            "Several devices as one: lingua serve on the one that has the model, lingua join on\n"
            "the others, then lingua run --cluster on the first.\n");
#endif
}

static int unknown(const char *name)
{
    const char *words[N_COMMANDS], *near;
    int n = 0;

    for (int i = 0; i < N_COMMANDS; i++)
        if (commands[i].summary)
            words[n++] = commands[i].name;
    near = nearest_word(name, words, n);
    if (near)
        say("unknown command %s; did you mean %s?", name, near);
    else
        say("unknown command %s; lingua help lists them", name);
    return STATUS_USAGE;
}

static int cmd_help(int argc, char **argv)
{
    const struct command *command;
    char help[] = "--help";

    if (argc < 2) {
        overview(stdout);
        return out_finish();
    }
    command = command_find(argv[1]);
    if (!command)
        return unknown(argv[1]);
    if (command->run == cmd_help || command->run == cmd_version || !command->summary) {
        overview(stdout);
        return out_finish();
    }
    return command->run(2, (char *[]){argv[1], help, NULL});
}

static int cmd_version(int argc, char **argv)
{
    (void)argc;
    (void)argv;
    printf("lingua %s\n", LL_VERSION);
    return out_finish();
}

/* A closed standard stream would give its number to the next file opened, and text meant for a
 * person would go into a socket. We fill the holes with descriptors that refuse the wrong use. */
static void streams_fill(void)
{
    for (int fd = 0; fd <= 2; fd++)
        if (fcntl(fd, F_GETFD) < 0 && errno == EBADF)
            (void)!open("/dev/null", fd == 0 ? O_WRONLY : O_RDONLY);
}

/* Runs before any other constructor: the engine's own, and inline functions the linker has picked
 * from its objects, may already use instructions this CPU does not have. So: no stdio, no exit().
 * */
__attribute__((constructor(101))) static void cpu_refuse(void)
{
    const char *why = model_cpu_unsuited();

    if (!why)
        return;
    (void)!write(STDERR_FILENO, "lingua: ", 8);
    (void)!write(STDERR_FILENO, why, strlen(why));
    (void)!write(STDERR_FILENO, "\n", 1);
    _exit(STATUS_FAILED);
}

int main(int argc, char **argv)
{
    const struct command *command;

    streams_fill();
    /* When ggml aborts it forks a debugger to print our stack, unless told not to. */
    setenv("GGML_NO_BACKTRACE", "1", 0);
#ifdef __GLIBC__
    /* glibc takes each large block that is freed for a sign to keep such blocks from then on. They
     * are weights and caches: a device that gets another part of the model needs the room at once,
     * within a budget. */
    mallopt(M_MMAP_THRESHOLD, LARGE_BLOCK);
#endif
    /* A reader that has seen enough, or a device that left, is an error to handle, not our end. */
    signal(SIGPIPE, SIG_IGN);
    if (argc < 2) {
        overview(stderr);
        return STATUS_USAGE;
    }
    if (strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-h") == 0)
        return cmd_help(1, argv);
    if (strcmp(argv[1], "--version") == 0)
        return cmd_version(1, argv);
    command = command_find(argv[1]);
    if (!command)
        return unknown(argv[1]);
    return command->run(argc - 1, argv + 1);
}
