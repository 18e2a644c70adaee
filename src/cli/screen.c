#include "cli/screen.h"

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/check.h"
#include "base/mem.h"

enum { BYTES_MAX = 4, CODE_MAX = 24 };

struct cell {
    char bytes[BYTES_MAX]; /* UTF-8, not terminated */
    uint8_t n;             /* of bytes; 0: a space, or the second half of a wide character */
    bool half;
    uint8_t style;
};

struct screen {
    int width, height;
    struct cell *cells; /* (height, width) */
};

struct screen *screen_new(int width, int height)
{
    struct screen *s = mem_zalloc(1, sizeof *s);

    CHECK(width >= 1 && height >= 1);
    s->width = width;
    s->height = height;
    s->cells = mem_zalloc((size_t)width * (size_t)height, sizeof *s->cells);
    return s;
}

void screen_free(struct screen *s)
{
    if (!s)
        return;
    free(s->cells);
    free(s);
}

int screen_height(const struct screen *s)
{
    return s->height;
}

/* ---- characters ---- */

struct range {
    uint32_t first, last;
};

static bool within(uint32_t c, const struct range *r, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (c >= r[i].first && c <= r[i].last)
            return true;
    return false;
}

/* Marks that stand on the character before them, joiners and variation selectors. */
static const struct range narrow[] = {
    {0x300, 0x36f},   {0x483, 0x489},   {0x591, 0x5bd},     {0x610, 0x61a},   {0x64b, 0x65f},
    {0x93c, 0x93c},   {0x94d, 0x94d},   {0xe31, 0xe31},     {0xe34, 0xe3a},   {0xe47, 0xe4e},
    {0x1ab0, 0x1aff}, {0x1dc0, 0x1dff}, {0x200b, 0x200d},   {0x20d0, 0x20ff}, {0xfe00, 0xfe0f},
    {0xfe20, 0xfe2f}, {0xfeff, 0xfeff}, {0xe0100, 0xe01ef},
};
/* East Asian scripts, full-width forms, pictures. */
static const struct range wide[] = {
    {0x1100, 0x115f},   {0x2e80, 0x303e},   {0x3041, 0x33ff},   {0x3400, 0x4dbf},
    {0x4e00, 0x9fff},   {0xa000, 0xa4cf},   {0xac00, 0xd7a3},   {0xf900, 0xfaff},
    {0xfe30, 0xfe6f},   {0xff00, 0xff60},   {0xffe0, 0xffe6},   {0x1f300, 0x1f64f},
    {0x1f680, 0x1f6ff}, {0x1f900, 0x1f9ff}, {0x1fa70, 0x1faff}, {0x20000, 0x3fffd},
};
/* What a terminal obeys, and what turns the direction of writing. */
static const struct range unsafe[] = {
    {0, 0x1f},        {0x7f, 0x9f},     {0x61c, 0x61c},   {0x200e, 0x200f},
    {0x2028, 0x202e}, {0x2066, 0x206f}, {0xfff0, 0xfffb}, {0xe0000, 0xe007f},
};

#define WITHIN(c, ranges) within(c, ranges, sizeof(ranges) / sizeof *(ranges))

/* How long a character's UTF-8 is, by its first byte; 0: no character begins so. */
static int length_of(unsigned char first)
{
    return first < 0x80   ? 1
           : first < 0xc0 ? 0
           : first < 0xe0 ? 2
           : first < 0xf0 ? 3
           : first < 0xf8 ? 4
                          : 0;
}

/* The next character; 0 at the end. One that is not to be shown is '?', and so is each byte of what
 * is no UTF-8. */
static uint32_t next(const char **at)
{
    static const uint32_t least[] = {0, 0, 0x80, 0x800, 0x10000};
    const unsigned char *p = (const unsigned char *)*at;
    int len = length_of(p[0]), k = 1;
    uint32_t c = len < 2 ? p[0] : p[0] & (0x7fu >> len);

    if (!p[0])
        return 0;
    for (; k < len && (p[k] & 0xc0) == 0x80; k++)
        c = c << 6 | (p[k] & 0x3f);
    if (len == 0 || k < len || c < least[len] || c > 0x10ffff || (c >= 0xd800 && c <= 0xdfff))
        len = 0;
    *at += len ? len : 1;
    return !len || WITHIN(c, unsafe) ? '?' : c;
}

static int encode(uint32_t c, char bytes[BYTES_MAX])
{
    int len = c < 0x80 ? 1 : c < 0x800 ? 2 : c < 0x10000 ? 3 : 4;
    static const unsigned char first[] = {0, 0, 0xc0, 0xe0, 0xf0};

    for (int i = len - 1; i > 0; i--, c >>= 6)
        bytes[i] = (char)(0x80 | (c & 0x3f));
    bytes[0] = (char)(first[len] | c);
    return len;
}

static int width_of(uint32_t c)
{
    return WITHIN(c, narrow) ? 0 : WITHIN(c, wide) ? 2 : 1;
}

int screen_width_of(const char *text)
{
    int width = 0;
    uint32_t c;

    while ((c = next(&text)))
        width += width_of(c);
    return width;
}

/* ---- putting ---- */

static struct cell *cell_at(const struct screen *s, int row, int column)
{
    return &s->cells[(size_t)row * (size_t)s->width + (size_t)column];
}

static void set(struct screen *s, int row, int column, enum screen_style style, uint32_t c)
{
    struct cell *cell = cell_at(s, row, column);

    *cell = (struct cell){.style = (uint8_t)style};
    cell->n = c == ' ' ? 0 : (uint8_t)encode(c, cell->bytes);
    if (width_of(c) == 2)
        *cell_at(s, row, column + 1) = (struct cell){.half = true, .style = (uint8_t)style};
}

int screen_put(struct screen *s, int row, int column, int width, enum screen_style style,
               const char *text)
{
    int used = 0;
    uint32_t c;
    bool cut;

    if (row < 0 || row >= s->height || column < 0 || column >= s->width)
        return 0;
    if (width > s->width - column)
        width = s->width - column;
    cut = screen_width_of(text) > width;
    while ((c = next(&text)) && used + width_of(c) <= width - cut) {
        if (width_of(c))
            set(s, row, column + used, style, c);
        used += width_of(c);
    }
    if (cut && used < width)
        set(s, row, column + used++, style, '~');
    return used;
}

void screen_put_right(struct screen *s, int row, int column, int width, enum screen_style style,
                      const char *text)
{
    int w = screen_width_of(text);

    (void)screen_put(s, row, column + (w < width ? width - w : 0), width, style, text);
}

void screen_fade(struct screen *s, enum screen_style style)
{
    for (int i = 0; i < s->width * s->height; i++)
        s->cells[i].style = (uint8_t)style;
}

/* ---- out ---- */

static const char *code_of(int style, char buf[CODE_MAX])
{
    static const int owner[SCREEN_OWNERS] = {36, 32, 33, 35, 34, 37};
    static const char *const codes[STYLE_OWNER] = {
        [STYLE_PLAIN] = "\033[0m",         [STYLE_BOLD] = "\033[0;1m",  [STYLE_DIM] = "\033[0;2m",
        [STYLE_GOOD] = "\033[0;32m",       [STYLE_BUSY] = "\033[0;33m", [STYLE_BAD] = "\033[0;31m",
        [STYLE_ALARM] = "\033[0;1;37;41m",
    };

    if (style < STYLE_OWNER)
        return codes[style];
    if (style < STYLE_FIELD)
        snprintf(buf, CODE_MAX, "\033[0;1;%dm", owner[style - STYLE_OWNER]);
    else
        snprintf(buf, CODE_MAX, "\033[0;30;%dm", owner[style - STYLE_FIELD] + 10);
    return buf;
}

struct sink {
    char *text;
    size_t n;
};

static void say_n(struct sink *o, const char *text, size_t n)
{
    memcpy(o->text + o->n, text, n);
    o->n += n;
}

static void say_text(struct sink *o, const char *text)
{
    say_n(o, text, strlen(text));
}

/* Blanks at the end are left out, and wiped where the screen is ours: but not behind a full line, where
 * the cursor still stands on its last character. */
static void say_row(struct sink *o, const struct screen *s, int row, const struct screen_out *how)
{
    const struct cell *cells = cell_at(s, row, 0);
    int end = s->width, style = STYLE_PLAIN;
    char buf[CODE_MAX];

    while (end > 0 && !cells[end - 1].n && !cells[end - 1].half &&
           (!how->colours || cells[end - 1].style < STYLE_ALARM))
        end--;
    for (int i = 0; i < end; i++) {
        const struct cell *c = &cells[i];

        if (how->colours && c->style != style)
            say_text(o, code_of(style = c->style, buf));
        if (c->half)
            continue;
        if (how->ascii && (c->n > 1 || (unsigned char)c->bytes[0] >= 0x80))
            say_text(o, i + 1 < end && cells[i + 1].half ? "??" : "?");
        else if (c->n)
            say_n(o, c->bytes, c->n);
        else
            say_text(o, " ");
    }
    if (style != STYLE_PLAIN)
        say_text(o, code_of(STYLE_PLAIN, buf));
    if (how->control && end < s->width)
        say_text(o, "\033[K");
}

char *screen_text(const struct screen *s, const struct screen_out *how, size_t *len)
{
    size_t cells = (size_t)s->width * (size_t)s->height, rows = (size_t)s->height;
    struct sink o = {mem_alloc(cells * (BYTES_MAX + CODE_MAX) + rows * 64 + 64), 0};

    if (how->control)
        say_text(&o, "\033[H");
    for (int row = 0; row < s->height; row++) {
        say_row(&o, s, row, how);
        if (!how->control || row + 1 < s->height)
            say_text(&o, how->control ? "\r\n" : "\n");
    }
    o.text[o.n] = '\0';
    *len = o.n;
    return o.text;
}
