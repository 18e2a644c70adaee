/* The commands of the program, one file each. A command gets its own name as argv[0] and returns
 * the exit status. */
#ifndef LINGUA_CLI_CMD_H
#define LINGUA_CLI_CMD_H

enum {
    STATUS_OK = 0,
    STATUS_FAILED = 1,
    STATUS_USAGE = 2,
    STATUS_INTERRUPTED = 130, /* what a shell expects after Ctrl-C: 128 + SIGINT */
};

int cmd_run(int argc, char **argv);
int cmd_serve(int argc, char **argv);
int cmd_join(int argc, char **argv);
int cmd_devices(int argc, char **argv);
int cmd_top(int argc, char **argv);
int cmd_plan(int argc, char **argv);
int cmd_bench(int argc, char **argv);
int cmd_classify(int argc, char **argv);
int cmd_perplexity(int argc, char **argv);
int cmd_inspect(int argc, char **argv);
int cmd_device(int argc, char **argv); /* hidden: one device process of --split */

#endif
