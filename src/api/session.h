/* The page's session: what lets the page of `lingua serve` do more than anybody with an API key.
 *
 *   1. `serve` prints http://HOST:PORT/#key=KEY; the key is random and new at each start.
 *   2. The page gives the key once (POST /session) and gets a cookie, which is another random
 *      text: who sees the one does not have the other. HttpOnly keeps it from scripts,
 *      SameSite=Strict from requests that other sites cause.
 *   3. A request counts as the page's when it has the cookie, names us by an address or by this
 *      machine's own name in Host, and comes from that very origin.
 *
 * Why each of these: a browser sends cookies to every port of a host, so the name has the port in it,
 * and another program's page on this machine is the same *site*: Origin tells it from ours. And a
 * page from anywhere may come to have an address of ours (DNS rebinding): Origin and Host then
 * agree with each other, but both name a host that is not us.
 *
 * Pure but for randomness and the machine's name; any thread. */
#ifndef LINGUA_API_SESSION_H
#define LINGUA_API_SESSION_H

#include <stdbool.h>
#include <stddef.h>

enum {
    SESSION_KEY_BYTES = 24,
    SESSION_KEY_TEXT = 2 * SESSION_KEY_BYTES + 1, /* in hex */
    SESSION_NAME_MAX = 16,                        /* "lingua_65535" */
    SESSION_HOST_MAX = 256,
    SESSION_COOKIE_MAX = 192,
};

struct session {
    char key[SESSION_KEY_TEXT], cookie[SESSION_KEY_TEXT], name[SESSION_NAME_MAX];
    char machine[SESSION_HOST_MAX]; /* its own name; "" when it has none that is plain */
    int port;
    bool tls;
};

void session_init(struct session *s, int port, bool tls);
void session_wipe(struct session *s);

/* In constant time. */
bool session_key_is(const struct session *s, const char *text, size_t n);
/* A Cookie header; NULL: there is none. */
bool session_has_cookie(const struct session *s, const char *cookies);
/* Whether a Host header names us: an address, localhost, or this machine, with our port. */
bool session_is_us(const struct session *s, const char *host);
/* Whether an Origin header is that of the page at host, which is us. */
bool session_is_origin(const struct session *s, const char *host, const char *origin);
/* For Set-Cookie. */
void session_set_cookie(const struct session *s, char buf[SESSION_COOKIE_MAX]);

#endif
