#include "link/address.h"

#include <arpa/inet.h>
#include <net/if.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { HOST_MAX = INET6_ADDRSTRLEN + 1 + IF_NAMESIZE };

/* Digits alone, 0..65535; -1 else. */
static int parse_port(const char *text)
{
    int port = 0;

    if (!*text || strlen(text) > 5)
        return -1;
    for (; *text; text++) {
        if (*text < '0' || *text > '9')
            return -1;
        port = port * 10 + (*text - '0');
    }
    return port <= WIRE_PORT_MAX ? port : -1;
}

enum err address_split(const char *text, int port_default, struct host_port *out,
                       struct err_text *et)
{
    const char *host = text, *end = text + strlen(text), *port = NULL;

    if (*text == '[') {
        host = text + 1;
        end = strchr(host, ']');
        if (!end || (end[1] && end[1] != ':'))
            return err_set(et, ERR_INPUT, "\"%.100s\" is no address; write [ADDRESS]:PORT", text);
        port = end[1] ? end + 2 : NULL;
    } else if (strchr(text, ':') && strchr(text, ':') == strrchr(text, ':')) {
        end = strchr(text, ':'); /* one colon; more are an IPv6 address without port */
        port = end + 1;
    }
    if ((size_t)(end - host) >= sizeof out->host)
        return err_set(et, ERR_INPUT, "\"%.100s...\" is too long for an address", text);
    memcpy(out->host, host, (size_t)(end - host));
    out->host[end - host] = '\0';
    out->port = port ? parse_port(port) : port_default;
    if (out->port < 0)
        return err_set(et, ERR_INPUT, "\"%.100s\": the port must be a number from 0 to %d", text,
                       WIRE_PORT_MAX);
    return ERR_NONE;
}

bool address_numeric(const char *host, int port, union address *out)
{
    const char *zone = strchr(host, '%');
    char number[HOST_MAX];
    size_t len = zone ? (size_t)(zone - host) : strlen(host);

    if (len >= sizeof number)
        return false;
    memcpy(number, host, len);
    number[len] = '\0';
    memset(out, 0, sizeof *out);
    if (!zone && inet_pton(AF_INET, number, &out->v4.sin_addr) == 1) {
        out->v4.sin_family = AF_INET;
        out->v4.sin_port = htons((uint16_t)port);
        return true;
    }
    if (inet_pton(AF_INET6, number, &out->v6.sin6_addr) != 1)
        return false;
    out->v6.sin6_family = AF_INET6;
    out->v6.sin6_port = htons((uint16_t)port);
    if (zone)
        out->v6.sin6_scope_id = if_nametoindex(zone + 1);
    return !zone || out->v6.sin6_scope_id;
}

socklen_t address_len(const union address *a)
{
    return a->sa.sa_family == AF_INET6 ? sizeof a->v6 : sizeof a->v4;
}

int address_port(const union address *a)
{
    return ntohs(a->sa.sa_family == AF_INET6 ? a->v6.sin6_port : a->v4.sin_port);
}

const char *address_text(const union address *a, char buf[ADDRESS_MAX])
{
    char host[INET6_ADDRSTRLEN] = "?", name[IF_NAMESIZE];
    const char *zone = "", *mark = "";

    if (a->sa.sa_family == AF_INET6 && !IN6_IS_ADDR_V4MAPPED(&a->v6.sin6_addr)) {
        inet_ntop(AF_INET6, &a->v6.sin6_addr, host, sizeof host);
        if (a->v6.sin6_scope_id && if_indextoname(a->v6.sin6_scope_id, name)) {
            mark = "%";
            zone = name;
        }
        snprintf(buf, ADDRESS_MAX, "[%s%s%s]:%d", host, mark, zone, address_port(a));
    } else if (a->sa.sa_family == AF_INET6) {
        /* An IPv4 visitor at a socket that serves both. */
        inet_ntop(AF_INET, &a->v6.sin6_addr.s6_addr[12], host, sizeof host);
        snprintf(buf, ADDRESS_MAX, "%s:%d", host, address_port(a));
    } else if (a->sa.sa_family == AF_INET) {
        inet_ntop(AF_INET, &a->v4.sin_addr, host, sizeof host);
        snprintf(buf, ADDRESS_MAX, "%s:%d", host, address_port(a));
    } else {
        snprintf(buf, ADDRESS_MAX, "this machine");
    }
    return buf;
}
