#include "api/error.h"

#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include "api/http.h"
#include "base/utf8.h"

enum { RETRY_GONE_S = 5 };

bool fault_field(struct fault *f, const char *param, const char *fmt, ...)
{
    va_list ap;

    *f = (struct fault){.status = 400, .type = "invalid_request_error"};
    snprintf(f->param, sizeof f->param, "%s", param);
    va_start(ap, fmt);
    vsnprintf(f->message, sizeof f->message, fmt, ap);
    va_end(ap);
    /* Both may quote the request, and be cut within a character. */
    utf8_clean(f->param, (const uint8_t *)f->param, strlen(f->param));
    utf8_clean(f->message, (const uint8_t *)f->message, strlen(f->message));
    return false;
}

void fault_err(struct fault *f, enum err e, const char *text, bool busy, int retry_s)
{
    (void)fault_field(f, "", "%s", text ? text : "it failed, and nobody said why");
    switch (e) {
    case ERR_LIMIT:
        if (!busy)
            return;
        f->status = 503;
        f->type = "server_error";
        f->code = "server_busy";
        f->retry_s = retry_s > 0 ? retry_s : 1;
        return;
    case ERR_NONE:
    case ERR_INPUT:
    case ERR_UNSUPPORTED:
        return;
    case ERR_GONE:
    case ERR_CANCELLED:
        f->status = 503;
        f->type = "server_error";
        f->code = "model_not_ready";
        f->retry_s = retry_s > 0 ? retry_s : RETRY_GONE_S;
        return;
    case ERR_FILE:
    case ERR_MEMORY:
    case ERR_PROTO:
        f->status = 500;
        f->type = "server_error";
        return;
    }
}

json_t *fault_json(const struct fault *f, bool native)
{
    json_t *error = json_pack("{s:s, s:s, s:s?}", "message", f->message, "type", f->type, "param",
                              *f->param ? f->param : NULL);

    if (native)
        json_object_set_new(error, "code", json_integer(f->status));
    else
        json_object_set_new(error, "code", f->code ? json_string(f->code) : json_null());
    return json_pack("{s:o}", "error", error);
}

/* llama-server's routes; those of the page are ours. */
static bool is_native(const char *path)
{
    static const char *const others[] = {"/v1/", "/cluster", "/session"};

    for (size_t i = 0; i < sizeof others / sizeof *others; i++)
        if (strncmp(path, others[i], strlen(others[i])) == 0)
            return false;
    return true;
}

void fault_reply(struct call *c, const struct fault *f)
{
    char seconds[16];

    if (f->retry_s > 0) {
        snprintf(seconds, sizeof seconds, "%d", f->retry_s);
        http_header(c, "Retry-After", seconds);
    }
    http_reply(c, f->status, fault_json(f, is_native(call_path(c))));
}
