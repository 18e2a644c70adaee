#define _GNU_SOURCE
#include "api/session.h"

#include <arpa/inet.h>
#include <openssl/crypto.h>
#include <openssl/rand.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <unistd.h>

#include "base/check.h"

enum { PORT_HTTP = 80, PORT_HTTPS = 443, PORT_DIGITS = 5 };

static void random_text(char buf[SESSION_KEY_TEXT])
{
    uint8_t bytes[SESSION_KEY_BYTES];

    CHECK(RAND_bytes(bytes, sizeof bytes) == 1);
    for (size_t i = 0; i < sizeof bytes; i++)
        snprintf(buf + 2 * i, 3, "%02x", bytes[i]);
    OPENSSL_cleanse(bytes, sizeof bytes);
}

/* A name that could be an address, or nothing sensible, is none. */
static bool name_is_plain(const char *s)
{
    return *s && strspn(s, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-.") ==
                     strlen(s);
}

void session_init(struct session *s, int port, bool tls)
{
    *s = (struct session){.port = port, .tls = tls};
    random_text(s->key);
    random_text(s->cookie);
    snprintf(s->name, sizeof s->name, "lingua_%d", port);
    if (gethostname(s->machine, sizeof s->machine - 1) || !name_is_plain(s->machine))
        s->machine[0] = '\0';
}

void session_wipe(struct session *s)
{
    OPENSSL_cleanse(s, sizeof *s);
}

static bool is_text(const char *secret, const char *text, size_t n)
{
    /* How long it is is no secret. */
    return n == SESSION_KEY_TEXT - 1 && CRYPTO_memcmp(secret, text, n) == 0;
}

bool session_key_is(const struct session *s, const char *text, size_t n)
{
    return is_text(s->key, text, n);
}

/* Another program of this machine may have set one of our name, for another path: ours is as good
 * beside it. */
bool session_has_cookie(const struct session *s, const char *cookies)
{
    size_t name = strlen(s->name);
    bool found = false;

    while (cookies && *cookies) {
        size_t n;

        cookies += strspn(cookies, " \t;");
        n = strcspn(cookies, ";");
        if (n > name && strncmp(cookies, s->name, name) == 0 && cookies[name] == '=')
            found |= is_text(s->cookie, cookies + name + 1, n - name - 1);
        cookies += n;
    }
    return found;
}

static bool is_machine(const struct session *s, const char *name)
{
    size_t n = strlen(s->machine);

    return n && strncasecmp(name, s->machine, n) == 0 &&
           (!name[n] || strcasecmp(name + n, ".local") == 0);
}

static bool is_our_name(const struct session *s, const char *name)
{
    struct in_addr v4;

    return inet_pton(AF_INET, name, &v4) == 1 || strcasecmp(name, "localhost") == 0 ||
           is_machine(s, name);
}

/* ":8080", or "" where that is the usual port. */
static bool is_our_port(const struct session *s, const char *text)
{
    size_t n = strlen(text);
    char *end;

    if (!n)
        return s->port == (s->tls ? PORT_HTTPS : PORT_HTTP);
    if (*text != ':' || n < 2 || n > 1 + PORT_DIGITS || strspn(text + 1, "0123456789") != n - 1)
        return false;
    return strtol(text + 1, &end, 10) == s->port;
}

bool session_is_us(const struct session *s, const char *host)
{
    char name[SESSION_HOST_MAX];
    struct in6_addr v6;
    size_t n;

    if (!host)
        return false;
    n = *host == '[' ? strcspn(host, "]") : strcspn(host, ":");
    if (n == 0 || n >= sizeof name)
        return false;
    memcpy(name, host, n);
    name[n] = '\0';
    if (*name == '[')
        return host[n] == ']' && inet_pton(AF_INET6, name + 1, &v6) == 1 &&
               is_our_port(s, host + n + 1);
    return is_our_name(s, name) && is_our_port(s, host + n);
}

bool session_is_origin(const struct session *s, const char *host, const char *origin)
{
    const char *scheme = s->tls ? "https://" : "http://";
    size_t n = strlen(scheme);

    return session_is_us(s, host) && origin && strncasecmp(origin, scheme, n) == 0 &&
           strcasecmp(origin + n, host) == 0;
}

void session_set_cookie(const struct session *s, char buf[SESSION_COOKIE_MAX])
{
    int n = snprintf(buf, SESSION_COOKIE_MAX, "%s=%s; Path=/; HttpOnly; SameSite=Strict%s", s->name,
                     s->cookie, s->tls ? "; Secure" : "");

    CHECK(n > 0 && n < SESSION_COOKIE_MAX);
}
