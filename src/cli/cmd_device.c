/* `lingua device`: a hidden command. head/ring.c starts it to hold a part of a model; everything it
 * needs to know comes over the descriptor it is given (device/serve.h). */
#define _GNU_SOURCE
#include "cli/cmd.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <unistd.h>

#include "device/serve.h"

enum { EXIT_BAD_USE = 2 };

/* -1 unless all of text is a number. */
static long number(const char *text)
{
    char *end;
    long v;

    errno = 0;
    v = text ? strtol(text, &end, 10) : -1;
    return !text || errno || end == text || *end || v < 0 || v > 0x7fffffff ? -1 : v;
}

static long option(int argc, char **argv, const char *name)
{
    for (int i = 1; i + 1 < argc; i++)
        if (strcmp(argv[i], name) == 0)
            return number(argv[i + 1]);
    return -1;
}

int cmd_device(int argc, char **argv)
{
    long fd = option(argc, argv, "--fd"), parent = option(argc, argv, "--parent");
    struct err_text et;
    enum err e;

    if (fd < 0) {
        fprintf(stderr, "lingua device: lingua starts this itself; use `lingua run --split N`.\n");
        return EXIT_BAD_USE;
    }
    /* Ctrl-C stops the answer, not the devices. */
    signal(SIGINT, SIG_IGN);
    /* Die with the head even in the middle of a long step, when nobody looks at the control
     * connection. The check catches a head that was gone before prctl. */
    if (parent > 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        if (getppid() != (pid_t)parent)
            return EXIT_FAILURE;
    }
    e = device_serve((int)fd, &et);
    return e ? EXIT_FAILURE : EXIT_SUCCESS;
}
