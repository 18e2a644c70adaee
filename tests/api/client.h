/* A raw client of an HTTP server that runs on the same thread: bytes go out as they are given, and
 * the loop turns while it waits. */
#ifndef LINGUA_TESTS_API_CLIENT_H
#define LINGUA_TESTS_API_CLIENT_H

#include <event2/event.h>
#include <stdbool.h>
#include <stddef.h>

struct client {
    struct event_base *base;
    int fd;
    char *in; /* all that came, terminated */
    size_t n, cap;
    bool ended; /* the server has closed */
};

void client_open(struct client *c, struct event_base *base, int port);
void client_close(struct client *c);
void client_send(struct client *c, const char *bytes, size_t n);
void client_say(struct client *c, const char *text);
/* Until text has come, or the end, or 10 s: whether it has come. */
bool client_wait(struct client *c, const char *text);
/* Until the server has closed, or 10 s. */
bool client_wait_end(struct client *c);
/* Turns the loop until *what, or 10 s. */
bool loop_until(struct event_base *base, const bool *what);
void client_forget(struct client *c); /* what came so far */

#endif
