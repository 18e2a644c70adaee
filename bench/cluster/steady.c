/* Holds emulated phones at their speeds while the speed of the machine below them changes.
 *
 *     lingua-bench-steady
 *
 * On a host that strangers share, one core takes once to twice the time for the same work, for seconds
 * or minutes on end. A quota of CPU time is then no speed. So every PULSE_MS a piece of the very work the
 * devices do (the dot products of the bench's model) is timed by its CPU time, which is what it takes and
 * not what it waits, and quotas are made larger when it takes longer.
 *
 * In: one line per device, "FILE SPEED PERIOD SUFFIX": its quota goes to FILE, microseconds of each
 * PERIOD and then SUFFIX (which may be empty); a second line for a FILE replaces the first. SPEED 1 is
 * a core at 1/SLACK of the best speed seen in the first seconds. The end of the input ends the program.
 * Out: "ready", and at the end the share of the time in which the machine was too slow to hold the
 * speeds, and how much its speed changed. */
#include <fcntl.h>
#include <poll.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/mem.h"
#include "ggml-cpu.h"
#include "ggml.h"

enum {
    PULSE_MS = 12,
    PULSES = 41,        /* whose median tells the speed, and after which quotas may be set anew */
    FIRST_PULSES = 100, /* before it is ready */
    FIRST_MS = 2,       /* between these */
    WIDTH = 1024,
    ROWS = 8, /* little, so that it is in the nearest cache at once, whoever computed before */
    TIMES = 40,
    DEVICES_MAX = 16,
    QUOTA_LEAST_US = 1000, /* the kernel takes no less */
};
#define SLACK  2.0
#define CHANGE 0.04 /* what is worth a new quota: setting one fills it up, which is a gift */

struct device {
    char file[256], suffix[32];
    double speed, period_us, set;
};

struct work {
    uint8_t *weights, *row;
    size_t stride;
};

static const struct ggml_type_traits_cpu *kernel(void)
{
    return ggml_get_type_traits_cpu(GGML_TYPE_Q2_0);
}

/* Any numbers will do, but for their scales, which are 1. */
static uint8_t *blocks(enum ggml_type type, size_t rows)
{
    size_t block = ggml_type_size(type), size = ggml_row_size(type, WIDTH) * rows;
    ggml_fp16_t one = ggml_fp32_to_fp16(1);
    uint8_t *b = mem_zalloc(size, 1);

    for (size_t i = 0; i < size; i++)
        b[i] = (uint8_t)(i * 151 + i / 7);
    for (size_t i = 0; i < size; i += block)
        memcpy(b + i, &one, sizeof one);
    return b;
}

static void work_do(const struct work *w, int times)
{
    float sum;

    for (int i = 0; i < times * ROWS; i++)
        kernel()->vec_dot(WIDTH, &sum, 0, w->weights + w->stride * (size_t)(i % ROWS), 0, w->row, 0,
                          1);
}

static double cpu_s(void)
{
    struct timespec t;

    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

/* CPU seconds of one piece of work. */
static double pulse(const struct work *w)
{
    double since;

    work_do(w, 2);
    since = cpu_s();
    work_do(w, TIMES);
    return cpu_s() - since;
}

static int compare(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;

    return (x > y) - (x < y);
}

/* What is known of the core: CPU seconds of a pulse. */
struct core {
    double last[PULSES], best, worst;
    unsigned long n, late; /* pulses; those since it is ready in which it was too slow */
};

static double middle_of(const double *last)
{
    double sorted[PULSES];

    memcpy(sorted, last, sizeof sorted);
    qsort(sorted, PULSES, sizeof *sorted, compare);
    return sorted[PULSES / 2];
}

/* One more pulse; the CPU seconds that a second of the emulated core takes now, 0 at first. */
static double core_feel(struct core *c, const struct work *w)
{
    double now;

    c->last[c->n++ % PULSES] = pulse(w);
    if (c->n < PULSES)
        return 0;
    now = middle_of(c->last);
    if (c->n < FIRST_PULSES) {
        c->best = c->best == 0 || now < c->best ? now : c->best;
        return 0;
    }
    c->worst = now > c->worst ? now : c->worst;
    c->late += now > c->best * SLACK;
    return now < c->best * SLACK ? now / (c->best * SLACK) : 1;
}

/* factor: as core_feel has it. */
static void device_set(struct device *d, double factor)
{
    double quota = d->speed * factor * d->period_us;
    char text[64];
    int fd, n;

    if (d->set > 0 && quota > d->set * (1 - CHANGE) && quota < d->set * (1 + CHANGE))
        return;
    n = snprintf(text, sizeof text, "%.0f%s", quota > QUOTA_LEAST_US ? quota : QUOTA_LEAST_US,
                 d->suffix);
    fd = open(d->file, O_WRONLY | O_CLOEXEC);
    if (fd >= 0 && write(fd, text, (size_t)n) == n)
        d->set = quota;
    if (fd >= 0)
        close(fd);
}

/* A line of the input; false when it cannot be read. */
static bool take(struct device *list, int *n, const char *line)
{
    struct device d = {0};
    int i;

    if (sscanf(line, "%255s %lf %lf %31[^\n]", d.file, &d.speed, &d.period_us, d.suffix + 1) < 3)
        return false;
    if (d.suffix[1])
        d.suffix[0] = ' ';
    for (i = 0; i < *n && strcmp(list[i].file, d.file) != 0; i++)
        ;
    if (i == DEVICES_MAX)
        return false;
    list[i] = d;
    *n += i == *n;
    return true;
}

/* Reads a line, if there is one within ms; false at the end of the input. */
static bool hear(struct device *list, int *n, int ms)
{
    struct pollfd in = {.fd = STDIN_FILENO, .events = POLLIN};
    char line[400];

    if (poll(&in, 1, ms) <= 0)
        return true;
    if (!fgets(line, sizeof line, stdin))
        return false;
    if (!take(list, n, line))
        fprintf(stderr, "lingua-bench-steady: not a device: %s", line);
    return true;
}

int main(void)
{
    struct work w = {.weights = blocks(GGML_TYPE_Q2_0, ROWS),
                     .stride = ggml_row_size(GGML_TYPE_Q2_0, WIDTH)};
    struct device list[DEVICES_MAX];
    struct core core = {.n = 0};
    int n = 0;

    ggml_cpu_init();
    w.row = blocks(kernel()->vec_dot_type, 1);
    setvbuf(stdin, NULL, _IONBF, 0); /* poll knows of all there is */
    while (hear(list, &n, core.n < FIRST_PULSES ? FIRST_MS : PULSE_MS)) {
        double factor = core_feel(&core, &w);

        if (core.n == FIRST_PULSES) {
            printf("ready\n");
            fflush(stdout);
        }
        for (int i = 0; i < n && factor > 0; i++)
            if (core.n % PULSES == 0 || list[i].set == 0) /* a new one at once */
                device_set(&list[i], factor);
    }
    if (core.n >= FIRST_PULSES)
        printf("too slow %.1f %% of the time; at worst %.2f of the best speed\n",
               100.0 * (double)core.late / (double)(core.n - FIRST_PULSES + 1),
               core.best / core.worst);
    free(w.weights);
    free(w.row);
    return 0;
}
