/* What is under way, below what has been said: on a terminal one line per device that rewrites
 * itself, with a bar, rate and time left; elsewhere one line per device every few seconds. Nothing
 * is shown of work that is over at once. Whoever says something while bars may be on the screen
 * says it by bars_say. The main thread's. */
#ifndef LINGUA_CLI_BARS_H
#define LINGUA_CLI_BARS_H

#include <stdbool.h>
#include <stdint.h>

enum { BARS_MAX = 64, BARS_NAME_MAX = 64, BARS_SAMPLES = 8 };

struct bar {
    char name[BARS_NAME_MAX];
    const char *what; /* "fetching" */
    uint64_t done, total;
    double began_s, said_s;
    bool seen;
    int n_samples; /* of the last seconds, the oldest first: what the rate is made of */
    struct {
        double at_s;
        uint64_t done;
    } sample[BARS_SAMPLES];
};

struct bars {
    int n, n_on_screen;
    double drawn_s;
    struct bar bar[BARS_MAX];
};

/* One round: begin, set for all that is under way, end. What was not set is over. */
void bars_begin(struct bars *b);
void bars_set(struct bars *b, const char *name, const char *what, uint64_t done, uint64_t total);
void bars_end(struct bars *b);
void bars_wipe(struct bars *b); /* takes them off the screen until the next round */

/* As say, above the bars. */
void bars_say(struct bars *b, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

/* "12.3 of 27.1 MB, 3.1 MB/s, 5 s left" */
enum { BAR_TEXT_MAX = 128 };
const char *bar_text(const struct bar *bar, char buf[BAR_TEXT_MAX]);

#endif
