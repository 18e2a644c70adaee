/* The page itself: files that are the same for everyone, so they need no key. What it shows and does
 * comes by the other routes, each of which judges who asks; and how its session begins. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "api/api_impl.h"
#include "api/json.h"
#include "api/page_files.h"
#include "api/session.h"
#include "base/check.h"
#include "head/cluster.h"

enum { ETAG_MAX = 80 };

/* Nothing from elsewhere, nothing inline, nobody's frame: whatever a model writes, the browser runs
 * none of it. */
static const char policy[] =
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
    "font-src 'self'; connect-src 'self'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'";

static const struct page_file *file_find(const char *path)
{
    for (int i = 0; i < page_n_files; i++)
        if (strcmp(page_files[i].path, path) == 0)
            return &page_files[i];
    return NULL;
}

/* "q=0", "q=0.0": not wanted. */
static bool is_refused(const char *params, size_t n)
{
    for (size_t i = 0; i + 2 < n; i++)
        if (strncasecmp(params + i, "q=", 2) == 0)
            return strtod(params + i + 2, NULL) <= 0;
    return false;
}

/* RFC 9110, 12.5.3, as far as it says yes or no to gzip. */
static bool gzip_is_fine(const char *accepts)
{
    bool any = false;

    while (accepts && *accepts) {
        size_t n = strcspn(accepts, ","), blanks = strspn(accepts, " \t"), name;

        if (blanks < n) {
            name = strcspn(accepts + blanks, " \t;,");
            if (name == 4 && strncasecmp(accepts + blanks, "gzip", 4) == 0)
                return !is_refused(accepts + blanks + name, n - blanks - name);
            if (name == 1 && accepts[blanks] == '*')
                any = !is_refused(accepts + blanks + name, n - blanks - name);
        }
        accepts += n + (accepts[n] == ',');
    }
    return any;
}

/* Whether the browser has it already, in whichever coding it came. */
static bool is_known(const char *if_none_match, const struct page_file *f)
{
    char plain[ETAG_MAX], gz[ETAG_MAX];

    if (!if_none_match)
        return false;
    snprintf(plain, sizeof plain, "\"%s\"", f->etag);
    snprintf(gz, sizeof gz, "\"%s-gz\"", f->etag);
    return strcmp(if_none_match, "*") == 0 || strstr(if_none_match, plain) ||
           strstr(if_none_match, gz);
}

void handle_page(void *user, struct call *call)
{
    const struct page_file *f = file_find(call_path(call));
    bool gz = gzip_is_fine(call_header(call, "Accept-Encoding"));
    char etag[ETAG_MAX];

    (void)user;
    CHECK(f); /* the routes are those of the table */
    snprintf(etag, sizeof etag, "\"%s%s\"", f->etag, gz ? "-gz" : "");
    http_header(call, "ETag", etag);
    http_header(call, "Cache-Control", "no-cache");
    http_header(call, "Vary", "Accept-Encoding, Origin");
    http_header(call, "Content-Security-Policy", policy);
    http_header(call, "X-Content-Type-Options", "nosniff");
    http_header(call, "Referrer-Policy", "no-referrer");
    http_header(call, "Cross-Origin-Resource-Policy", "same-origin");
    if (is_known(call_header(call, "If-None-Match"), f)) {
        http_reply_bytes(call, 304, f->type, "", 0);
        return;
    }
    if (gz)
        http_header(call, "Content-Encoding", "gzip");
    http_reply_bytes(call, 200, f->type, gz ? f->gz : f->bytes, gz ? f->n_gz : f->n);
}

/* ---- /session ---- */

/* One answer for a wrong key and for whoever may not ask. */
static void refuse(struct call *call)
{
    struct fault f = {.status = 403, .type = "invalid_request_error", .code = "session_refused"};

    snprintf(f.message, sizeof f.message,
             "that is no key of this page: open the address that lingua serve printed when it "
             "was started last, by the machine's address or its own name");
    fault_reply(call, &f);
}

static void session_begin(const struct api *a, struct call *call)
{
    const struct session *s = http_session(a->http);
    char cookie[SESSION_COOKIE_MAX];
    const char *key = NULL;
    struct fault f = {0};
    json_t *body = order_body(call, &f);

    if (!body || !json_get_string(body, "key", &key, &f)) {
        json_decref(body);
        fault_reply(call, &f);
        return;
    }
    if (!key || !call_is_of_page(call) || !session_key_is(s, key, strlen(key))) {
        json_decref(body);
        refuse(call);
        return;
    }
    json_decref(body);
    session_set_cookie(s, cookie);
    http_header(call, "Set-Cookie", cookie);
    http_header(call, "Cache-Control", "no-store");
    http_reply(call, 200, json_pack("{s:b}", "session", 1));
}

void handle_session(void *user, struct call *call)
{
    const struct api *a = user;
    bool in = call_is_let_in(call);
    json_t *o;

    if (call_is_post(call)) {
        session_begin(a, call);
        return;
    }
    o = json_pack("{s:b, s:b}", "session", call_has_session(call), "key_wanted", !in);
    if (in) {
        const char *head = cluster_name(a->cluster);

        json_object_set_new(o, "model", json_text(api_model(a), strlen(api_model(a))));
        json_object_set_new(o, "head", json_text(head, strlen(head)));
    }
    http_header(call, "Cache-Control", "no-store");
    http_reply(call, 200, o);
}
