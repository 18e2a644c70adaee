/* A table for people: columns as wide as their widest cell. Cells are copied. */
#ifndef LINGUA_CLI_TABLE_H
#define LINGUA_CLI_TABLE_H

#include <stdbool.h>
#include <stdio.h>

enum { TABLE_COLUMNS_MAX = 10, TABLE_CELL_MAX = 112 };

struct table {
    int n_columns, n_rows;
    bool pipes; /* Markdown, as llama-bench prints */
    struct table_column {
        const char *head;
        bool right; /* numbers stand at the right */
    } columns[TABLE_COLUMNS_MAX];
    char (*cells)[TABLE_COLUMNS_MAX][TABLE_CELL_MAX]; /* (n_rows) */
};

void table_init(struct table *t, const struct table_column *columns, int n);
void table_fini(struct table *t);
int table_row(struct table *t); /* an empty row; its number */
void table_cell(struct table *t, int column, const char *fmt, ...)
    __attribute__((format(printf, 3, 4))); /* of the last row */
void table_print(const struct table *t, FILE *f);

#endif
