/* Chats with everything a model's template can say: tools, calls, schemas; and the way back, from
 * what the model wrote to a message with content and tool calls.
 *
 * A template is a program from a file, and schemas come from strangers, so both are worked on in a
 * child process with bounds on time, stack and memory (render.c); what comes back is data. Its
 * grammar then goes into a sampler (text.h) and its parser into a chat_parser. Any thread. */
#ifndef LINGUA_TEXT_CHAT_H
#define LINGUA_TEXT_CHAT_H

#include <stdbool.h>
#include <stddef.h>

#include "base/err.h"
#include "text/text.h"

/* What is to be rendered; JSON texts, in OpenAI's shapes, valid UTF-8 and no deeper than the caller
 * has checked (api/json.h). NULL: not given. */
struct chat_ask {
    const char *messages;        /* array; required */
    const char *tools;           /* array */
    const char *tool_choice;     /* "auto", "none", "required" */
    const char *json_schema;     /* object: the answer is to be of it; "{}" = any object */
    const char *grammar;         /* GBNF; not together with a schema or tools */
    const char *template_kwargs; /* object */
    bool parallel_calls;
    bool add_assistant; /* end with the start of the assistant's turn */
    bool no_thinking;
};

struct chat_form {
    char *prompt;
    struct grammar grammar; /* text NULL: none; what it points to is owned by the form */
    int n_stops;
    char **stops; /* the template's own, beside end tokens */
    char *parser; /* opaque, for chat_parser_new */
};

/* ERR_INPUT: the template's or the schema's own complaint; ERR_LIMIT: it takes too long or too
 * much; ERR_UNSUPPORTED: the model has no chat template. gives what *out points to:
 * chat_form_fini. */
MUST_CHECK enum err chat_apply(const struct text *t, const struct chat_ask *ask,
                               struct chat_form *out, struct err_text *et);
void chat_form_fini(struct chat_form *f);

/* GBNF of a JSON schema (an object's text). gives *out: free(). */
MUST_CHECK enum err chat_schema_grammar(const char *schema, char **out, struct err_text *et);

/* What the template can do, for /props: JSON object {"tools": bool, ...}. gives *out: free(). */
MUST_CHECK enum err chat_caps(const struct text *t, char **out, struct err_text *et);

/* Reads an answer while it grows. One thread at a time. */
struct chat_parser;
MUST_CHECK enum err chat_parser_new(const char *parser, struct chat_parser **out,
                                    struct err_text *et);
void chat_parser_free(struct chat_parser *p); /* NULL is fine */
/* n more bytes (whole characters); final: no more come. gives *deltas, a JSON array's text of what
 * is new as OpenAI's delta objects ({"content": ...}, {"tool_calls": [{"index": 0, "id": ...,
 * "type": "function", "function": {"name": ..., "arguments": ...}}]}, {"reasoning_content": ...}),
 * often empty: free(). What cannot be read as a call is content. */
MUST_CHECK enum err chat_parser_feed(struct chat_parser *p, const char *text, size_t n, bool final,
                                     char **deltas, struct err_text *et);
/* The whole message so far, as JSON {"role": "assistant", "content": ..., "tool_calls": ...}; *n_calls
 * = its tool calls. gives *out: free(). */
MUST_CHECK enum err chat_parser_message(const struct chat_parser *p, char **out, int *n_calls,
                                        struct err_text *et);

#endif
