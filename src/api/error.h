/* Errors as clients of OpenAI's API and of llama-server expect them. One body serves both:
 * {"error": {"message": ..., "type": ..., "param": ... or null, "code": ... or null}}
 * with OpenAI's types and string codes under /v1/ and on the page's own routes, and with "code" the
 * status as a number elsewhere, as llama-server's own routes have it. */
#ifndef LINGUA_API_ERROR_H
#define LINGUA_API_ERROR_H

#include <jansson.h>
#include <stdbool.h>

#include "base/err.h"

/* What is wrong with a request, as values; made on any thread. */
struct fault {
    int status;        /* 0: nothing is wrong */
    const char *type;  /* "invalid_request_error", "server_error", ...; static */
    const char *code;  /* "context_length_exceeded", "model_not_ready", ...; static, or NULL */
    char param[64];    /* the field at fault: "messages[2].role"; "" = none */
    char message[512]; /* what is wrong and what to do */
    int retry_s;       /* 503: Retry-After; 0 = none */
};

/* 400 for a field; returns false, so that checks can end with it. */
bool fault_field(struct fault *f, const char *param, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));
/* From an error of the layers below: INPUT 400, LIMIT 400 (or 503 when busy), GONE 503, ... */
void fault_err(struct fault *f, enum err e, const char *text, bool busy, int retry_s);
/* The body. native: llama-server's numbers instead of OpenAI's strings. */
json_t *fault_json(const struct fault *f, bool native);

struct call;
void fault_reply(struct call *c, const struct fault *f);

#endif
