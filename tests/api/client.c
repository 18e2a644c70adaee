#include "api/client.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/mem.h"
#include "base/sys.h"

enum { PATIENCE_US = 10000000 };

void client_open(struct client *c, struct event_base *base, int port)
{
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};

    at.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    *c = (struct client){.base = base, .fd = socket(AF_INET, SOCK_STREAM, 0)};
    assert_int_equal(connect(c->fd, (struct sockaddr *)&at, sizeof at), 0);
    fcntl(c->fd, F_SETFL, O_NONBLOCK);
    c->in = mem_strdup("");
}

void client_close(struct client *c)
{
    close(c->fd);
    free(c->in);
    *c = (struct client){.fd = -1};
}

static void turn(struct event_base *base)
{
    const struct timespec ms = {0, 1000000};

    if (event_base_loop(base, EVLOOP_NONBLOCK) == 0)
        nanosleep(&ms, NULL);
}

static void take(struct client *c)
{
    char buf[65536];
    ssize_t n;

    while ((n = recv(c->fd, buf, sizeof buf, 0)) > 0) {
        c->in = mem_realloc(c->in, c->n + (size_t)n + 1, 1);
        memcpy(c->in + c->n, buf, (size_t)n);
        c->n += (size_t)n;
        c->in[c->n] = '\0';
    }
    if (n == 0 || (n < 0 && errno != EAGAIN))
        c->ended = true;
}

void client_send(struct client *c, const char *bytes, size_t n)
{
    int64_t until = clock_us() + PATIENCE_US;

    while (n > 0 && clock_us() < until) {
        ssize_t sent = send(c->fd, bytes, n, MSG_NOSIGNAL);

        if (sent > 0) {
            bytes += sent;
            n -= (size_t)sent;
        } else if (errno != EAGAIN) {
            return; /* the server has closed: what it said is what counts */
        }
        turn(c->base);
    }
}

void client_say(struct client *c, const char *text)
{
    client_send(c, text, strlen(text));
}

/* Looks at what has come since *from, which it moves on. */
static bool has(const struct client *c, const char *text, size_t *from)
{
    size_t n = strlen(text);
    bool there = memmem(c->in + *from, c->n - *from, text, n);

    if (!there)
        *from = c->n > n ? c->n - n : 0;
    return there;
}

bool client_wait(struct client *c, const char *text)
{
    int64_t until = clock_us() + PATIENCE_US;
    size_t from = 0;
    bool there;

    while (!(there = has(c, text, &from)) && !c->ended && clock_us() < until) {
        turn(c->base);
        take(c);
    }
    return there || has(c, text, &from);
}

bool client_wait_end(struct client *c)
{
    int64_t until = clock_us() + PATIENCE_US;

    while (!c->ended && clock_us() < until) {
        turn(c->base);
        take(c);
    }
    return c->ended;
}

bool loop_until(struct event_base *base, const bool *what)
{
    int64_t until = clock_us() + PATIENCE_US;

    while (!*what && clock_us() < until)
        turn(base);
    return *what;
}

void client_forget(struct client *c)
{
    c->n = 0;
    c->in[0] = '\0';
}
