#include "cli/table.h"

#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include "base/check.h"
#include "base/mem.h"

void table_init(struct table *t, const struct table_column *columns, int n)
{
    CHECK(n <= TABLE_COLUMNS_MAX);
    *t = (struct table){.n_columns = n};
    memcpy(t->columns, columns, (size_t)n * sizeof *columns);
}

void table_fini(struct table *t)
{
    free(t->cells);
}

int table_row(struct table *t)
{
    t->cells = mem_realloc(t->cells, (size_t)t->n_rows + 1, sizeof *t->cells);
    memset(t->cells[t->n_rows], 0, sizeof *t->cells);
    return t->n_rows++;
}

void table_cell(struct table *t, int column, const char *fmt, ...)
{
    va_list ap;

    CHECK(t->n_rows > 0 && column < t->n_columns);
    va_start(ap, fmt);
    vsnprintf(t->cells[t->n_rows - 1][column], TABLE_CELL_MAX, fmt, ap);
    va_end(ap);
}

/* Characters, not bytes: a continuation byte of UTF-8 takes no room. */
static int width_of(const char *s)
{
    int n = 0;

    for (; *s; s++)
        n += ((unsigned char)*s & 0xc0) != 0x80;
    return n;
}

static void cell_print(const struct table *t, int column, const char *s, int width, FILE *f)
{
    int pad = width - width_of(s);
    bool right = t->columns[column].right;
    /* Nothing ends in blanks but the Markdown form, whose pipes stand below each other. */
    bool last = column == t->n_columns - 1 && !t->pipes;

    if (t->pipes)
        fputs(column ? " | " : "| ", f);
    else if (column)
        fputs("  ", f);
    if (right)
        fprintf(f, "%*s", pad, "");
    fputs(s, f);
    if (!right && !last)
        fprintf(f, "%*s", pad, "");
}

static void rule_print(const struct table *t, const int *widths, FILE *f)
{
    for (int c = 0; c < t->n_columns; c++) {
        fputs(c ? " | " : "| ", f);
        for (int i = 0; i < widths[c] - t->columns[c].right; i++)
            fputc('-', f);
        if (t->columns[c].right)
            fputc(':', f);
    }
    fputs(" |\n", f);
}

void table_print(const struct table *t, FILE *f)
{
    int widths[TABLE_COLUMNS_MAX];

    for (int c = 0; c < t->n_columns; c++) {
        widths[c] = width_of(t->columns[c].head);
        for (int r = 0; r < t->n_rows; r++)
            if (width_of(t->cells[r][c]) > widths[c])
                widths[c] = width_of(t->cells[r][c]);
    }
    for (int r = -1; r < t->n_rows; r++) {
        for (int c = 0; c < t->n_columns; c++)
            cell_print(t, c, r < 0 ? t->columns[c].head : t->cells[r][c], widths[c], f);
        fputs(t->pipes ? " |\n" : "\n", f);
        if (r < 0 && t->pipes)
            rule_print(t, widths, f);
    }
}
