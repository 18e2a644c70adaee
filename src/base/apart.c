/* apart_run: see apart.h.
 *
 *  1. The parent makes a pipe, blocks signals for a moment and forks.
 *  2. The child ties its life to the parent's, gives up every descriptor but the pipe, takes
 *     default signal actions, limits its memory and processor time, works, writes one record
 *     (struct record, then n bytes) and leaves by _exit, so that nothing of ours runs at its exit.
 *  3. The parent reads the record with a deadline. A record that is whole and makes sense is the
 *     answer. Otherwise the child is killed if it still lives, reaped, and its exit status becomes
 *     a sentence.
 *
 * Endless loops end at the processor limit, great appetites at the memory limit, endless recursion
 * at the end of the stack; each costs the child alone. We fork rather than start another program
 * because a library has no program of its own to start, and the child needs what the parent has in
 * memory. */
#define _GNU_SOURCE
#include "base/apart.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/check.h"
#include "base/mem.h"
#include "base/sys.h"

enum { WALL_MS_PER_CPU_S = 10000 }; /* only for a machine so busy that a second takes this long */

struct record {
    uint32_t err; /* enum err */
    uint32_t n;   /* bytes that follow: the answer, or the sentence of an error */
};

/* Child: bytes of address space in use, 0 when the system does not say. */
static rlim_t mapped_bytes(void)
{
    char line[128];
    unsigned long pages;
    int fd = open("/proc/self/statm", O_RDONLY);
    ssize_t n;

    if (fd < 0)
        return 0;
    n = read(fd, line, sizeof line - 1);
    close(fd);
    if (n <= 0)
        return 0;
    line[n] = '\0';
    pages = strtoul(line, NULL, 10);
    return (rlim_t)pages * (rlim_t)sysconf(_SC_PAGESIZE);
}

static void limit_set(int what, rlim_t soft, rlim_t hard)
{
    struct rlimit now, to = {soft, hard};

    if (getrlimit(what, &now) < 0)
        _exit(APART_EXIT_LIMITS);
    if (now.rlim_max != RLIM_INFINITY && to.rlim_max > now.rlim_max)
        to.rlim_max = now.rlim_max;
    if (to.rlim_cur > to.rlim_max)
        to.rlim_cur = to.rlim_max;
    if (setrlimit(what, &to) < 0)
        _exit(APART_EXIT_LIMITS);
}

/* Child: the parent's handlers must not run here, and Ctrl-C at the terminal is the parent's
 * business; what a failing program raises must end it. */
static void child_signals(void)
{
    static const int fatal[] = {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGABRT, SIGXCPU};
    struct sigaction plain = {.sa_handler = SIG_DFL};
    sigset_t blocked;

    for (int sig = 1; sig < NSIG; sig++)
        /* Refused for SIGKILL and a few more: good. */
        (void)sigaction(sig, &plain, NULL); /* layers-ok: a forked child sheds its inheritance */
    sigfillset(&blocked);
    for (size_t i = 0; i < ARRAY_LEN(fatal); i++)
        sigdelset(&blocked, fatal[i]);
    sigprocmask(SIG_SETMASK, &blocked, NULL);
}

/* Child: keeps the pipe alone, as descriptor 3, so that sockets of the parent close when the parent
 * closes them and nothing can be written to its terminal. */
static int child_descriptors(int fd)
{
    int null;

    fd = fcntl(fd, F_DUPFD, 3); /* an app may have had 0, 1 or 2 closed, and the pipe be there */
    null = open("/dev/null", O_RDWR);
    if (fd < 0)
        _exit(APART_EXIT_LIMITS);
    for (int i = 0; i < 3; i++) {
        if (null < 0 || dup2(null, i) < 0)
            close(i);
    }
    if (fd != 3) {
        if (dup2(fd, 3) < 0)
            _exit(APART_EXIT_LIMITS);
        fd = 3;
    }
    if (close_range(4, ~0U, 0) < 0) {
        for (int i = 4; i < 65536; i++) /* a kernel before 5.9 */
            close(i);
    }
    return fd;
}

static void child_write(int fd, const void *bytes, size_t n)
{
    const char *p = bytes;

    while (n > 0) {
        ssize_t w = write(fd, p, n);

        if (w < 0 && errno != EINTR)
            _exit(APART_EXIT_LIMITS);
        if (w > 0) {
            p += w;
            n -= (size_t)w;
        }
    }
}

static _Noreturn void child_main(const struct apart_task *task, int fd, pid_t parent)
{
    struct err_text et = {.text = ""};
    struct record rec;
    char *bytes = NULL;
    size_t n = 0;
    rlim_t mapped;
    enum err e;

    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (getppid() != parent) /* it died before the line above */
        _exit(APART_EXIT_LIMITS);
    child_signals();
    fd = child_descriptors(fd);
    mapped = mapped_bytes();
    if (!mapped)
        _exit(APART_EXIT_LIMITS);
    limit_set(RLIMIT_CORE, 0, 0);
    limit_set(RLIMIT_AS, mapped + task->memory_bytes, mapped + task->memory_bytes);
    limit_set(RLIMIT_CPU, (rlim_t)task->cpu_s, (rlim_t)task->cpu_s + 1);
    if (task->prepare)
        task->prepare();

    e = task->work(task->arg, &bytes, &n, &et);
    CHECK(e || n <= task->answer_max);
    rec.err = e;
    rec.n = (uint32_t)(e ? strlen(et.text) : n);
    child_write(fd, &rec, sizeof rec);
    child_write(fd, e ? et.text : bytes, rec.n);
    _exit(APART_EXIT_DONE);
}

/* Parent: n bytes before the deadline. False with *timed_out set, or at the end of the pipe. */
static bool read_exactly(int fd, void *out, size_t n, int64_t deadline_us, bool *timed_out)
{
    char *p = out;

    while (n > 0) {
        int64_t left_us = deadline_us - clock_us();
        struct pollfd pfd = {.fd = fd, .events = POLLIN};
        ssize_t got;
        int ready;

        if (left_us <= 0) {
            *timed_out = true;
            return false;
        }
        ready = poll(&pfd, 1, (int)(left_us / 1000) + 1);
        if (ready < 0 && errno != EINTR)
            return false;
        if (ready <= 0)
            continue;
        got = read(fd, p, n);
        if (got == 0 || (got < 0 && errno != EINTR))
            return false;
        if (got > 0) {
            p += got;
            n -= (size_t)got;
        }
    }
    return true;
}

/* What the parent has read. */
struct answer {
    enum err err;
    char *bytes; /* terminated; NULL on errors */
    size_t n;
    bool timed_out;
};

/* Parent: reads one record. True when it is whole. */
static bool record_read(const struct apart_task *task, int fd, struct answer *a,
                        struct err_text *et)
{
    int64_t deadline = clock_us() + (int64_t)task->cpu_s * WALL_MS_PER_CPU_S * 1000;
    struct record rec;
    char *bytes;

    if (!read_exactly(fd, &rec, sizeof rec, deadline, &a->timed_out))
        return false;
    /* The work may have broken the child, so its record is checked like a stranger's. */
    if (rec.n > (rec.err ? ERR_TEXT_MAX : task->answer_max))
        return false;
    if (rec.err && rec.err != ERR_INPUT && rec.err != ERR_LIMIT && rec.err != ERR_MEMORY &&
        rec.err != ERR_UNSUPPORTED)
        return false;
    bytes = mem_try((size_t)rec.n + 1, 1);
    if (!bytes) {
        a->err = err_set(et, ERR_MEMORY, "no memory for what %s gives", task->what);
        return true;
    }
    if (!read_exactly(fd, bytes, rec.n, deadline, &a->timed_out)) {
        free(bytes);
        return false;
    }
    if (rec.err) {
        a->err = err_set(et, (enum err)rec.err, "%s", bytes);
        free(bytes);
        return true;
    }
    a->bytes = bytes;
    a->n = rec.n;
    return true;
}

/* The sentence for a child that ended without a record. */
static enum err death_explain(const struct apart_task *task, int status, bool timed_out,
                              struct err_text *et)
{
    const char *what = task->what;
    int sig = WIFSIGNALED(status) ? WTERMSIG(status) : 0;
    int code = WIFEXITED(status) ? WEXITSTATUS(status) : 0;

    if (timed_out || sig == SIGXCPU || sig == SIGKILL)
        return err_set(et, ERR_LIMIT, "%s was stopped: it ran for more than %d s (does it loop?)",
                       what, task->cpu_s);
    if (code == APART_EXIT_MEMORY)
        return err_set(et, ERR_LIMIT, "%s was stopped: it needs more than %d MiB of memory", what,
                       (int)(task->memory_bytes >> 20));
    if (sig == SIGSEGV || sig == SIGBUS)
        return err_set(et, ERR_LIMIT,
                       "%s was stopped: it nests or recurses too deep, or broke its "
                       "reader",
                       what);
    if (code == APART_EXIT_ABORT || sig == SIGABRT)
        return err_set(et, ERR_INPUT, "%s broke its reader", what);
    if (code == APART_EXIT_LIMITS)
        return err_set(et, ERR_FILE, "%s was not read: the system refuses the limits that needs",
                       what);
    return err_set(et, ERR_LIMIT, "%s was stopped: its reader ended early", what);
}

/* Forks the child and gives the end to read from. All signals are blocked meanwhile: a handler of
 * the parent must not run in the child before child_signals. */
static enum err child_start(const struct apart_task *task, pid_t *pid, int *fd, struct err_text *et)
{
    sigset_t all, before;
    pid_t self = getpid();
    int ends[2];

    if (pipe2(ends, O_CLOEXEC) < 0)
        return err_system(et, "start a process for %s", task->what);
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    *pid = fork();
    if (*pid == 0)
        child_main(task, ends[1], self);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    close(ends[1]);
    if (*pid < 0) {
        close(ends[0]);
        return err_system(et, "start a process for %s", task->what);
    }
    *fd = ends[0];
    return ERR_NONE;
}

/* The system then reaps our children for us, and their numbers may be another's at any time. */
static bool sigchld_ignored(void)
{
    struct sigaction now;

    return sigaction(SIGCHLD, NULL, &now) == 0 && /* layers-ok: asks, installs nothing */
           (now.sa_handler == SIG_IGN || now.sa_flags & SA_NOCLDWAIT);
}

enum err apart_run(const struct apart_task *task, char **out, size_t *n, struct err_text *et)
{
    struct answer a = {0};
    int fd = -1, status = 0;
    pid_t pid = -1;
    bool whole;
    enum err e;

    *out = NULL;
    *n = 0;
    e = child_start(task, &pid, &fd, et);
    if (e)
        return e;
    whole = record_read(task, fd, &a, et);
    /* Only a whole record lets the child end by itself. One that its work has broken may have
     * closed its pipe and sleep on. It is our child until we have waited for it, so the number is
     * its own, but for an app that ignores SIGCHLD: there only a timeout proves that it still
     * lives. */
    if (a.timed_out || (!whole && !sigchld_ignored()))
        kill(pid, SIGKILL);
    close(fd);
    while (waitpid(pid, &status, 0) < 0) {
        if (errno == EINTR)
            continue;
        status = 0; /* an app that ignores SIGCHLD: the status is lost, the record is not */
        break;
    }
    if (!whole)
        return death_explain(task, status, a.timed_out, et);
    *out = a.bytes;
    *n = a.n;
    return a.err;
}
