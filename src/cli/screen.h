/* A picture made of characters: cells that text is put into, and how it goes out to a terminal or
 * elsewhere. What others wrote (names) is safe in it: control characters, what is no UTF-8, and what
 * turns the direction of writing becomes '?', marks without a width of their own are dropped, and
 * wide characters take two cells. Pure. */
#ifndef LINGUA_CLI_SCREEN_H
#define LINGUA_CLI_SCREEN_H

#include <stdbool.h>
#include <stddef.h>

enum screen_style {
    STYLE_PLAIN,
    STYLE_BOLD,
    STYLE_DIM,
    STYLE_GOOD,
    STYLE_BUSY,
    STYLE_BAD,
    STYLE_ALARM, /* a line that must be seen */
    STYLE_OWNER, /* + 0..SCREEN_OWNERS-1: a device's own colour, as text */
    SCREEN_OWNERS = 6,
    STYLE_FIELD = STYLE_OWNER + SCREEN_OWNERS, /* + the same: as a field of it */
    STYLE_END = STYLE_FIELD + SCREEN_OWNERS,
};

struct screen;

struct screen *screen_new(int width, int height); /* both >= 1 */
void screen_free(struct screen *s);               /* NULL is fine */
int screen_height(const struct screen *s);

/* Puts text at a cell, at most `width` cells of it; what is longer ends in '~'. Returns how many
 * cells it took. Outside the screen nothing happens. */
int screen_put(struct screen *s, int row, int column, int width, enum screen_style style,
               const char *text);
/* Ends at column + width. */
void screen_put_right(struct screen *s, int row, int column, int width, enum screen_style style,
                      const char *text);
/* Everything there is, in one style: what is no longer true. */
void screen_fade(struct screen *s, enum screen_style style);
/* How many cells a text takes. */
int screen_width_of(const char *text);

struct screen_out {
    bool colours;
    bool control; /* for a terminal whose whole screen is ours; else plain lines */
    bool ascii;   /* other characters become '?' */
};
/* The caller's to free; terminated. */
char *screen_text(const struct screen *s, const struct screen_out *how, size_t *len);

#endif
