/* The part of a chat request that the model's template is given: messages, tools, schemas. Used by
 * /v1/chat/completions and /apply-template. Pure; any thread. */
#ifndef LINGUA_API_ASK_H
#define LINGUA_API_ASK_H

#include <jansson.h>
#include <stdbool.h>

#include "api/error.h"
#include "text/chat.h"

struct ask {
    struct chat_ask chat; /* its texts are those below */
    char *messages, *tools, *schema, *grammar, *kwargs;
    bool has_tools; /* and may use them */
};

/* Checks shapes and counts (API_MESSAGES_MAX, API_TOOLS_MAX, API_SCHEMA_*); role "developer"
 * becomes "system"; a tool_choice that names a function leaves that one, required. */
MUST_CHECK bool ask_read(const json_t *body, struct ask *out, struct fault *f);
void ask_fini(struct ask *a); /* also after a fault */
/* A JSON schema within its limits, as text; NULL: *f names param. free(). */
char *ask_schema_text(const json_t *schema, const char *param, struct fault *f);

#endif
