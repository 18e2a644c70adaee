#include "cli/bars.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "cli/say.h"

enum { BAR_WIDTH = 20, COLUMNS_USUAL = 80 };
#define QUIET_S  0.3 /* what is over by then was not worth a line */
#define REDRAW_S 0.1 /* on a terminal */
#define SAY_S    5.0 /* elsewhere */
#define SAMPLE_S 0.5

void bars_begin(struct bars *b)
{
    for (int i = 0; i < b->n; i++)
        b->bar[i].seen = false;
}

static struct bar *find(struct bars *b, const char *name)
{
    for (int i = 0; i < b->n; i++)
        if (strncmp(b->bar[i].name, name, BARS_NAME_MAX - 1) == 0)
            return &b->bar[i];
    if (b->n == BARS_MAX)
        return NULL;
    b->bar[b->n] = (struct bar){.began_s = now_s()};
    snprintf(b->bar[b->n].name, BARS_NAME_MAX, "%s", name);
    return &b->bar[b->n++];
}

static void sample(struct bar *bar, double now)
{
    if (bar->n_samples && now - bar->sample[bar->n_samples - 1].at_s < SAMPLE_S)
        return;
    if (bar->n_samples == BARS_SAMPLES) {
        memmove(bar->sample, bar->sample + 1, sizeof bar->sample - sizeof *bar->sample);
        bar->n_samples--;
    }
    bar->sample[bar->n_samples].at_s = now;
    bar->sample[bar->n_samples++].done = bar->done;
}

void bars_set(struct bars *b, const char *name, const char *what, uint64_t done, uint64_t total)
{
    struct bar *bar = find(b, name);

    if (!bar)
        return;
    if (bar->what != what || bar->total != total || done < bar->done) { /* another piece of work */
        bar->n_samples = 0;
        if (bar->what != what)
            bar->began_s = now_s();
    }
    bar->what = what;
    bar->done = done < total ? done : total;
    bar->total = total;
    bar->seen = true;
    sample(bar, now_s());
}

const char *bar_text(const struct bar *bar, char buf[BAR_TEXT_MAX])
{
    char done[NUM_MAX], total[NUM_MAX], rate[NUM_MAX], left[NUM_MAX];
    double seconds = bar->n_samples ? now_s() - bar->sample[0].at_s : 0, per_second = 0;
    int n;

    if (seconds > SAMPLE_S)
        per_second = (double)(bar->done - bar->sample[0].done) / seconds;
    n = snprintf(buf, BAR_TEXT_MAX, "%s of %s", num_bytes(done, bar->done),
                 num_bytes(total, bar->total));
    if (per_second >= 1)
        snprintf(buf + n, BAR_TEXT_MAX - (size_t)n, ", %s/s, %s left",
                 num_bytes(rate, (uint64_t)per_second),
                 num_duration(left, (double)(bar->total - bar->done) / per_second));
    else if (seconds > 3)
        snprintf(buf + n, BAR_TEXT_MAX - (size_t)n, ", nothing comes just now");
    return buf;
}

void bars_wipe(struct bars *b)
{
    for (; b->n_on_screen > 0; b->n_on_screen--)
        fputs("\033[A\r\033[K", stderr);
}

static int columns(void)
{
    struct winsize size;

    if (ioctl(STDERR_FILENO, TIOCGWINSZ, &size) < 0 || size.ws_col < 20)
        return COLUMNS_USUAL;
    return size.ws_col;
}

/* A line must not wrap: wiping counts lines. Cut by characters, not inside one. */
static void line_put(const char *line, int width)
{
    int n = 0;
    const char *p = line;

    for (; *p && (n < width || ((unsigned char)*p & 0xc0) == 0x80); p++)
        n += ((unsigned char)*p & 0xc0) != 0x80;
    fwrite(line, 1, (size_t)(p - line), stderr);
    fputc('\n', stderr);
}

static void draw(struct bars *b, double now)
{
    int width = columns() - 1;

    if (now - b->drawn_s < REDRAW_S && b->n_on_screen)
        return;
    bars_wipe(b);
    b->drawn_s = now;
    for (int i = 0; i < b->n; i++) {
        const struct bar *bar = &b->bar[i];
        char text[BAR_TEXT_MAX], fill[BAR_WIDTH + 1], line[BARS_NAME_MAX + BAR_TEXT_MAX + 64];
        double part = bar->total ? (double)bar->done / (double)bar->total : 0;
        int filled = (int)(part * BAR_WIDTH + 0.5);

        if (now - bar->began_s < QUIET_S)
            continue;
        memset(fill, '.', BAR_WIDTH);
        memset(fill, '#', (size_t)filled);
        fill[BAR_WIDTH] = '\0';
        snprintf(line, sizeof line, "  %s %s [%s] %3.0f %%  %s", bar->name, bar->what, fill,
                 100 * part, bar_text(bar, text));
        line_put(line, width);
        b->n_on_screen++;
    }
}

static void say_some(struct bars *b, double now)
{
    char text[BAR_TEXT_MAX];

    for (int i = 0; i < b->n; i++) {
        struct bar *bar = &b->bar[i];

        if (now - (bar->said_s > bar->began_s ? bar->said_s : bar->began_s) < SAY_S)
            continue;
        bar->said_s = now;
        say("%s: %s %.0f %%: %s", bar->name, bar->what,
            bar->total ? 100 * (double)bar->done / (double)bar->total : 0, bar_text(bar, text));
    }
}

void bars_end(struct bars *b)
{
    int n = 0;

    for (int i = 0; i < b->n; i++)
        if (b->bar[i].seen) {
            if (n != i)
                b->bar[n] = b->bar[i];
            n++;
        }
    b->n = n;
    if (!isatty(STDERR_FILENO))
        say_some(b, now_s());
    else if (n)
        draw(b, now_s());
    else
        bars_wipe(b);
}

void bars_say(struct bars *b, const char *fmt, ...)
{
    char words[1024];
    va_list ap;

    va_start(ap, fmt);
    vsnprintf(words, sizeof words, fmt, ap);
    va_end(ap);
    bars_wipe(b);
    say("%s", words);
}
