#include "cli/say.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "cli/cmd.h"

void say(const char *fmt, ...)
{
    va_list ap;

    va_start(ap, fmt);
    fputs("lingua: ", stderr);
    vfprintf(stderr, fmt, ap);
    fputc('\n', stderr);
    va_end(ap);
}

int out_write(const char *bytes, size_t n)
{
    errno = 0;
    if (fwrite(bytes, 1, n, stdout) != n || fflush(stdout) != 0)
        return errno ? errno : EIO;
    return 0;
}

int out_failed(int reason)
{
    if (reason == EPIPE)
        return STATUS_OK;
    say("write standard output: %s", strerror(reason));
    return STATUS_FAILED;
}

int out_finish(void)
{
    errno = 0;
    if (fflush(stdout) != 0 || ferror(stdout))
        return out_failed(errno ? errno : EIO);
    return STATUS_OK;
}

/* Three digits and the first unit that leaves fewer than four in front of the point. */
static const char *scaled(char buf[NUM_MAX], double n, const char *const *units, int n_units)
{
    int u = 0;

    while (n >= 999.5 && u < n_units - 1) {
        n /= 1000;
        u++;
    }
    snprintf(buf, NUM_MAX, "%.*f%s%s",
             u == 0 || n >= 99.95 ? 0
             : n >= 9.995         ? 1
                                  : 2,
             n, *units[u] ? " " : "", units[u]);
    return buf;
}

const char *num_bytes(char buf[NUM_MAX], uint64_t n)
{
    static const char *const units[] = {"B", "kB", "MB", "GB", "TB"};

    return scaled(buf, (double)n, units, 5);
}

const char *num_short(char buf[NUM_MAX], double n)
{
    static const char *const units[] = {"", "k", "M", "B", "T"};

    return scaled(buf, n, units, 5);
}

const char *num_mib(char buf[NUM_MAX], uint64_t n)
{
    double mib = (double)n / 1048576;

    if (mib >= 1024)
        snprintf(buf, NUM_MAX, "%.2f GiB", mib / 1024);
    else
        snprintf(buf, NUM_MAX, "%.2f MiB", mib);
    return buf;
}

const char *num_thousands(char buf[NUM_MAX], uint64_t n)
{
    char digits[NUM_MAX];
    int len = snprintf(digits, sizeof digits, "%llu", (unsigned long long)n), k = 0;

    for (int i = 0; i < len; i++) {
        if (i && (len - i) % 3 == 0)
            buf[k++] = ',';
        buf[k++] = digits[i];
    }
    buf[k] = '\0';
    return buf;
}

const char *num_duration(char buf[NUM_MAX], double s)
{
    int whole = s < 0 ? 0 : s > 1e8 ? 100000000 : (int)(s + 0.5);

    if (whole < 60)
        snprintf(buf, NUM_MAX, "%d s", whole);
    else if (whole < 3600 && whole % 60 == 0)
        snprintf(buf, NUM_MAX, "%d min", whole / 60);
    else if (whole < 3600)
        snprintf(buf, NUM_MAX, "%d min %d s", whole / 60, whole % 60);
    else
        snprintf(buf, NUM_MAX, "%d h %d min", whole / 3600, whole % 3600 / 60);
    return buf;
}

double now_s(void)
{
    struct timespec ts;

    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (double)ts.tv_sec + (double)ts.tv_nsec / 1e9;
}

void progress_begin(struct progress *p, const char *what)
{
    *p = (struct progress){.what = what, .began_s = now_s(), .shown_s = now_s()};
}

void progress_show(struct progress *p, uint64_t done, uint64_t total)
{
    bool terminal = isatty(STDERR_FILENO);
    double now = now_s(), percent = total ? 100 * (double)done / (double)total : 0;

    if (now - p->shown_s < (terminal ? 0.2 : 5))
        return;
    p->shown_s = now;
    if (terminal) {
        fprintf(stderr, "\r\033[K%s: %.0f %%", p->what, percent);
        p->on_screen = true;
    } else {
        say("%s: %.0f %%", p->what, percent);
    }
}

void progress_end(struct progress *p)
{
    if (p->on_screen)
        fputs("\r\033[K", stderr);
    p->on_screen = false;
}
