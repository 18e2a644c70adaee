/* A plan for people: a table of devices and some lines, from its document (head/plan_json.h). */
#ifndef LINGUA_CLI_PLAN_TABLE_H
#define LINGUA_CLI_PLAN_TABLE_H

#include <jansson.h>
#include <stdbool.h>

struct plan_table_opts {
    bool explain;  /* how the plan was found */
    bool measured; /* what was measured beside what was predicted */
};
/* On stdout; hints on stderr. */
void plan_table_print(const json_t *document, const struct plan_table_opts *opts);

#endif
