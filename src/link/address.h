/* Addresses as people and messages write them: "host", "host:port", "[v6]:port", "v6", "*:port".
 * Numbers only are understood here; names are for whoever dials. Pure; any thread. */
#ifndef LINGUA_LINK_ADDRESS_H
#define LINGUA_LINK_ADDRESS_H

#include <netinet/in.h>
#include <stdbool.h>
#include <sys/socket.h>

#include "base/err.h"
#include "link/link.h"

union address {
    struct sockaddr sa;
    struct sockaddr_in v4;
    struct sockaddr_in6 v6;
};

struct host_port {
    char host[ADDRESS_MAX]; /* without brackets; may be empty */
    int port;
};

/* ERR_INPUT names the text. port_default serves where none is written. */
MUST_CHECK enum err address_split(const char *text, int port_default, struct host_port *out,
                                  struct err_text *et);
/* False when host is no address in numbers ("192.168.1.7", "fe80::1%wlan0"). */
bool address_numeric(const char *host, int port, union address *out);
socklen_t address_len(const union address *a);
int address_port(const union address *a);
/* "192.168.1.7:40123", "[fe80::1%wlan0]:40123" */
const char *address_text(const union address *a, char buf[ADDRESS_MAX]);

#endif
