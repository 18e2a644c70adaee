/* Who may ask: API keys, the page's session, pages of other origins. */
#include <openssl/crypto.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "api/http_impl.h"
#include "base/mem.h"

/* ---- keys ---- */

void who_keys_take(struct http *h, const struct api_opts *opts)
{
    h->keys = mem_zalloc((size_t)opts->n_keys, sizeof *h->keys);
    h->n_keys = opts->n_keys;
    for (int i = 0; i < opts->n_keys; i++)
        SHA256((const uint8_t *)opts->keys[i], strlen(opts->keys[i]), h->keys[i].digest);
}

void who_keys_forget(struct http *h)
{
    OPENSSL_cleanse(h->keys, (size_t)h->n_keys * sizeof *h->keys);
    free(h->keys);
}

static const char *key_given(const struct call *c)
{
    const char *s = call_header(c, "Authorization");

    if (s && strncasecmp(s, "Bearer ", 7) == 0) {
        for (s += 7; *s == ' ';)
            s++;
        return s;
    }
    return call_header(c, "X-Api-Key"); /* llama-server takes it, too */
}

/* The key's index, or -1. Takes the same time wherever and whether it is found. */
static int key_find(const struct http *h, const char *given)
{
    struct key k;
    int found = -1;

    SHA256((const uint8_t *)given, strlen(given), k.digest);
    for (int i = 0; i < h->n_keys; i++)
        if (CRYPTO_memcmp(k.digest, h->keys[i].digest, sizeof k.digest) == 0)
            found = i;
    return found;
}

/* FNV-1a over the client's address, beyond the numbers of keys. */
static int address_flow(const struct call *c)
{
    char *address = NULL;
    ev_uint16_t port;
    uint32_t hash = 2166136261u;

    evhttp_connection_get_peer(evhttp_request_get_connection(c->req), &address, &port);
    for (const char *s = address; s && *s; s++)
        hash = (hash ^ (uint8_t)*s) * 16777619u;
    return API_KEYS_MAX + (int)(hash >> 2);
}

/* ---- who it is ---- */

/* A browser names the origin of whatever is posted, and of what a page from elsewhere may read. What
 * such a page gets without reading it (an image) newer ones tell by Sec-Fetch-Site. */
bool call_is_of_page(const struct call *c)
{
    const struct session *s = &c->conn->h->session;
    const char *host = call_header(c, "Host"), *origin = call_header(c, "Origin");
    const char *site = call_header(c, "Sec-Fetch-Site");
    enum evhttp_cmd_type how = evhttp_request_get_command(c->req);
    bool gets = how == EVHTTP_REQ_GET || how == EVHTTP_REQ_HEAD;

    if (site && strcmp(site, "same-origin") != 0 && strcmp(site, "none") != 0)
        return false;
    return origin ? session_is_origin(s, host, origin) : gets && session_is_us(s, host);
}

void who_look(struct call *c)
{
    const struct http *h = c->conn->h;
    const char *given = key_given(c);
    int key = h->n_keys && given ? key_find(h, given) : -1;

    c->has_key = key >= 0;
    c->flow = key >= 0 ? key : address_flow(c);
    c->has_session =
        session_has_cookie(&h->session, call_header(c, "Cookie")) && call_is_of_page(c);
}

int call_flow(const struct call *c)
{
    return c->flow;
}

bool call_has_session(const struct call *c)
{
    return c->has_session;
}

bool call_is_let_in(const struct call *c)
{
    return c->conn->h->n_keys == 0 || c->has_key || c->has_session;
}

/* ---- what it may ---- */

/* A Host and an Origin that agree may both be a stranger's name for our address. One that has an API
 * key needs no such proof: a browser adds none by itself. */
static bool is_own_origin(const struct call *c, const char *origin)
{
    const char *host = call_header(c, "Host"), *at = strstr(origin, "://");

    return session_is_origin(&c->conn->h->session, host, origin) ||
           (c->has_key && host && at && strcasecmp(at + 3, host) == 0);
}

bool who_judge_origin(struct call *c, struct fault *f)
{
    const struct http *h = c->conn->h;
    const char *origin = call_header(c, "Origin");
    bool all = h->cors && strcmp(h->cors, "*") == 0;

    if (!origin)
        return true;
    if (all || (h->cors && strcmp(h->cors, origin) == 0)) {
        http_header(c, "Access-Control-Allow-Origin", h->cors);
        if (!all)
            http_header(c, "Vary", "Origin");
        return true;
    }
    if (is_own_origin(c, origin))
        return true;
    *f = (struct fault){
        .status = 403, .type = "invalid_request_error", .code = "origin_not_allowed"};
    snprintf(f->message, sizeof f->message,
             "pages from there may not use this server; lingua serve --cors ORIGIN allows one "
             "origin, or * all");
    return false;
}

static bool session_wanted(struct fault *f)
{
    *f = (struct fault){.status = 403, .type = "invalid_request_error", .code = "session_needed"};
    snprintf(f->message, sizeof f->message,
             "this is for the page of this server alone: open the address that lingua serve "
             "prints, with all that stands behind its #");
    return false;
}

bool who_judge_need(struct call *c, const struct http_route *route, struct fault *f)
{
    enum http_need need = route ? route->need : HTTP_NEED_KEY;

    if (need == HTTP_NEED_SESSION)
        return c->has_session || session_wanted(f);
    if (need == HTTP_NEED_NOTHING || call_is_let_in(c))
        return true;
    *f = (struct fault){.status = 401, .type = "invalid_request_error", .code = "invalid_api_key"};
    snprintf(f->message, sizeof f->message, "%s",
             key_given(c) ? "this API key is not one of this server's"
                          : "this server wants an API key: send the header Authorization: Bearer "
                            "KEY");
    http_header(c, "WWW-Authenticate", "Bearer");
    return false;
}
