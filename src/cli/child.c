#define _GNU_SOURCE
#include "cli/child.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <spawn.h>
#include <string.h>
#include <sys/signalfd.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/check.h"
#include "base/mem.h"

extern char **environ;

enum { OUT, COMPLAINT, SIGNALS, N_FDS };

void child_hold_signals(sigset_t *held, sigset_t *before)
{
    static const int signals[] = {SIGINT, SIGTERM, SIGHUP};

    sigemptyset(held);
    for (size_t i = 0; i < ARRAY_LEN(signals); i++) {
        struct sigaction now;

        if (sigaction(signals[i], NULL, &now) == 0 && now.sa_handler != SIG_IGN)
            sigaddset(held, signals[i]);
    }
    pthread_sigmask(SIG_BLOCK, held, before);
}

/* The child gets a process group of its own, so that one kill reaches what it starts too, and no
 * signals held back. Returns an errno value. */
static int start(const struct child *c, int out, int complaint, pid_t *pid)
{
    posix_spawn_file_actions_t files;
    posix_spawnattr_t attr;
    sigset_t none, plain;
    int error;

    CHECK(posix_spawn_file_actions_init(&files) == 0 && posix_spawnattr_init(&attr) == 0);
    posix_spawn_file_actions_addopen(&files, STDIN_FILENO, "/dev/null", O_RDONLY, 0);
    posix_spawn_file_actions_adddup2(&files, out, STDOUT_FILENO);
    posix_spawn_file_actions_adddup2(&files, complaint, STDERR_FILENO);
    if (c->dir)
        posix_spawn_file_actions_addchdir_np(&files, c->dir);
    posix_spawnattr_setpgroup(&attr, 0);
    sigemptyset(&none);
    posix_spawnattr_setsigmask(&attr, &none);
    sigemptyset(&plain);
    sigaddset(&plain, SIGPIPE); /* we ignore it; other programs count on it */
    posix_spawnattr_setsigdefault(&attr, &plain);
    posix_spawnattr_setflags(&attr, POSIX_SPAWN_SETPGROUP | POSIX_SPAWN_SETSIGMASK |
                                        POSIX_SPAWN_SETSIGDEF);
    error = posix_spawnp(pid, c->argv[0], &files, &attr, c->argv, environ);
    posix_spawnattr_destroy(&attr);
    posix_spawn_file_actions_destroy(&files);
    return error;
}

/* Reads what there is of one pipe. Returns 0 at its end. */
static int take(struct child *c, int which, int fd, size_t *n_complaint)
{
    unsigned char spare[65536], *to = spare;
    size_t room = sizeof spare, cap = sizeof c->complaint - 1;
    ssize_t n;

    if (which == OUT && c->out_len < c->out_cap) {
        to = c->out + c->out_len;
        room = c->out_cap - c->out_len;
    }
    n = read(fd, to, room);
    if (n < 0)
        return errno == EINTR || errno == EAGAIN;
    if (which == OUT) {
        c->out_len += (size_t)n;
    } else if (*n_complaint < cap) {
        size_t keep = (size_t)n < cap - *n_complaint ? (size_t)n : cap - *n_complaint;

        memcpy(c->complaint + *n_complaint, spare, keep);
        *n_complaint += keep;
    }
    return n > 0;
}

/* Until both pipes have ended or a signal came. */
static void listen_to(struct child *c, struct pollfd fds[N_FDS])
{
    size_t n_complaint = 0;

    while (fds[OUT].fd >= 0 || fds[COMPLAINT].fd >= 0) {
        if (poll(fds, N_FDS, -1) < 0)
            continue;
        if (fds[SIGNALS].revents) {
            struct signalfd_siginfo info;

            if (read(fds[SIGNALS].fd, &info, sizeof info) == (ssize_t)sizeof info) {
                c->signal = (int)info.ssi_signo;
                return;
            }
        }
        for (int i = OUT; i <= COMPLAINT; i++)
            if (fds[i].fd >= 0 && fds[i].revents && !take(c, i, fds[i].fd, &n_complaint)) {
                close(fds[i].fd);
                fds[i].fd = -1;
            }
    }
}

/* A child that is told to end gets two seconds for it. */
static void end(pid_t pid, int *status)
{
    kill(-pid, SIGTERM);
    for (int i = 0; i < 40; i++) {
        if (waitpid(pid, status, WNOHANG) == pid)
            break;
        usleep(50 * 1000);
        if (i == 39) {
            kill(-pid, SIGKILL);
            waitpid(pid, status, 0);
        }
    }
    kill(-pid, SIGKILL); /* what it left behind, if anything */
}

enum err child_run(struct child *c, struct err_text *et)
{
    struct pollfd fds[N_FDS] = {{-1, POLLIN, 0}, {-1, POLLIN, 0}, {-1, POLLIN, 0}};
    int out[2] = {-1, -1}, complaint[2] = {-1, -1};
    sigset_t held, before;
    enum err e = ERR_NONE;
    pid_t pid;

    c->out_len = 0;
    c->signal = c->status = c->error = 0;
    memset(c->complaint, 0, sizeof c->complaint);
    child_hold_signals(&held, &before);
    fds[SIGNALS].fd = signalfd(-1, &held, SFD_CLOEXEC | SFD_NONBLOCK);
    if (fds[SIGNALS].fd < 0 || pipe2(out, O_CLOEXEC) || pipe2(complaint, O_CLOEXEC)) {
        c->error = errno;
        e = err_system(et, "start %s", c->argv[0]);
        goto out;
    }
    if ((c->error = start(c, out[1], complaint[1], &pid))) {
        errno = c->error;
        e = err_system(et, "start %s", c->argv[0]);
        goto out;
    }
    close(out[1]);
    close(complaint[1]);
    fds[OUT].fd = out[0];
    fds[COMPLAINT].fd = complaint[0];
    out[0] = out[1] = complaint[0] = complaint[1] = -1;
    listen_to(c, fds);
    if (c->signal) {
        end(pid, &c->status);
        e = err_set(et, ERR_CANCELLED, "%s was stopped", c->argv[0]);
    } else {
        while (waitpid(pid, &c->status, 0) < 0 && errno == EINTR)
            ;
    }
out:
    for (int i = 0; i < 2; i++) {
        if (out[i] >= 0)
            close(out[i]);
        if (complaint[i] >= 0)
            close(complaint[i]);
    }
    for (int i = 0; i < N_FDS; i++)
        if (fds[i].fd >= 0)
            close(fds[i].fd);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    return e;
}
